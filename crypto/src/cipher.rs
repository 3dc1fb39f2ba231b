//! The ciphers by name, and how long their keys are.

/// AES-GCM or GMAC with one of the three key lengths.
///
/// GMAC is GCM with an empty text: all that it covers is in the associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-GCM, 16-byte key.
    AesGcm128,
    /// AES-GCM, 24-byte key.
    AesGcm192,
    /// AES-GCM, 32-byte key.
    AesGcm256,
    /// AES-GMAC, 16-byte key.
    AesGmac128,
    /// AES-GMAC, 24-byte key.
    AesGmac192,
    /// AES-GMAC, 32-byte key.
    AesGmac256,
}

impl Cipher {
    /// Every cipher.
    pub const ALL: [Cipher; 6] = [
        Cipher::AesGcm128,
        Cipher::AesGcm192,
        Cipher::AesGcm256,
        Cipher::AesGmac128,
        Cipher::AesGmac192,
        Cipher::AesGmac256,
    ];

    /// Length of the key in bytes: 16, 24 or 32. The salt of ESP is not part of it.
    pub const fn key_length(self) -> usize {
        match self {
            Cipher::AesGcm128 | Cipher::AesGmac128 => 16,
            Cipher::AesGcm192 | Cipher::AesGmac192 => 24,
            Cipher::AesGcm256 | Cipher::AesGmac256 => 32,
        }
    }

    /// True if the cipher authenticates and does not encrypt.
    pub const fn is_gmac(self) -> bool {
        matches!(self, Cipher::AesGmac128 | Cipher::AesGmac192 | Cipher::AesGmac256)
    }

    /// Refuses a key of another length than the cipher's.
    pub(crate) fn check_key_length(self, key: &[u8]) -> Result<(), KeyLengthError> {
        if key.len() == self.key_length() {
            Ok(())
        } else {
            Err(KeyLengthError { cipher: self, length: key.len() })
        }
    }
}

/// A key of the wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLengthError {
    /// The cipher asked for.
    pub cipher: Cipher,
    /// Length of the key that was given.
    pub length: usize,
}

impl core::fmt::Display for KeyLengthError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} takes a key of {} bytes, not {}", self.cipher, self.cipher.key_length(), self.length)
    }
}

impl core::error::Error for KeyLengthError {}
