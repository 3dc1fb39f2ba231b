//! The seam to the cipher: what a protocol asks of an AEAD with a 96-bit nonce and a 128-bit tag.

use core::fmt;

/// An AEAD with its key inside: AES-GCM, or AES-GMAC with an empty text.
///
/// Implementations keep no per-packet state, so that one value serves any number of packets; whoever calls
/// answers for a nonce that is never used twice to seal.
pub trait Aead {
    /// Encrypts `text` in place, authenticates `aad` and the result, and gives the full 16-octet tag. A protocol
    /// with a shorter ICV uses its leading octets (RFC 4106, 6).
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16];

    /// Checks `tag`, which has 8, 12 or 16 octets, and decrypts `text` in place.
    ///
    /// # Errors
    /// [`AuthenticationFailed`] where the tag does not match or has another length. What `text` holds then is
    /// unspecified and must not be used.
    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed>;
}

/// The ICV does not match: the packet is not what its sender sealed, or the key or sequence is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationFailed;

impl fmt::Display for AuthenticationFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the integrity check value does not match")
    }
}

impl core::error::Error for AuthenticationFailed {}

/// Length of an integrity check value. RFC 4106, 6 allows these three and forbids any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IcvLength {
    /// 64 bits. Few packets only: a NIST "restricted use" tag.
    Octets8,
    /// 96 bits.
    Octets12,
    /// 128 bits, the only one every IPsec and PSP receiver has.
    #[default]
    Octets16,
}

impl IcvLength {
    /// From a count of octets; nothing unless it is 8, 12 or 16.
    #[inline]
    pub const fn from_octets(octets: usize) -> Option<Self> {
        match octets {
            8 => Some(Self::Octets8),
            12 => Some(Self::Octets12),
            16 => Some(Self::Octets16),
            _ => None,
        }
    }

    /// The length in octets.
    #[inline]
    pub const fn octets(self) -> usize {
        match self {
            Self::Octets8 => 8,
            Self::Octets12 => 12,
            Self::Octets16 => 16,
        }
    }
}
