//! The key that the model and the driver hold.

use cryptonic_wire::aead::{Aead, AuthenticationFailed};

use crate::{Cipher, KeyLengthError, aws_lc::AwsLcKey, rust_crypto::RustCryptoKey};

/// The library that does the work of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Library {
    /// AWS-LC. The default: `docs/crypto.md` has the numbers.
    #[default]
    AwsLc,
    /// RustCrypto's aes and ghash.
    RustCrypto,
}

impl Library {
    /// Every library.
    pub const ALL: [Library; 2] = [Library::AwsLc, Library::RustCrypto];

    /// Name and version line for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Library::AwsLc => "aws-lc-rs",
            Library::RustCrypto => "RustCrypto aes+ghash",
        }
    }
}

/// An expanded AES-GCM or GMAC key. It is wiped on drop, and holds its key material behind a pointer, so that moving
/// it leaves no copy. It has no `Debug` and no `Clone`.
///
/// The length of a tag to verify is the caller's policy: it comes from the SA, never from the packet.
pub struct GcmKey {
    cipher: Cipher,
    held: Held,
}

enum Held {
    AwsLc(AwsLcKey),
    RustCrypto(Box<RustCryptoKey>),
}

impl GcmKey {
    /// Expands `key` in the default library; the caller wipes his copy.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<GcmKey, KeyLengthError> {
        GcmKey::with_library(Library::default(), cipher, key)
    }

    /// Expands `key` in a library of choice; the caller wipes his copy.
    pub fn with_library(library: Library, cipher: Cipher, key: &[u8]) -> Result<GcmKey, KeyLengthError> {
        let held = match library {
            Library::AwsLc => Held::AwsLc(AwsLcKey::new(cipher, key)?),
            Library::RustCrypto => Held::RustCrypto(Box::new(RustCryptoKey::new(cipher, key)?)),
        };
        Ok(GcmKey { cipher, held })
    }

    /// The cipher that the key was made for.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The library that does the work.
    pub fn library(&self) -> Library {
        match self.held {
            Held::AwsLc(_) => Library::AwsLc,
            Held::RustCrypto(_) => Library::RustCrypto,
        }
    }
}

impl Aead for GcmKey {
    /// A GMAC key takes no text: what it authenticates is in `aad`. Should a caller give it one, the text leaves
    /// encrypted, and no GMAC key opens it.
    #[inline]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        debug_assert!(text.is_empty() || !self.cipher.is_gmac(), "GMAC covers associated data only");
        match &self.held {
            Held::AwsLc(key) => key.seal(nonce, aad, text),
            Held::RustCrypto(key) => key.seal(nonce, aad, text),
        }
    }

    #[inline]
    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        if self.cipher.is_gmac() && !text.is_empty() {
            return Err(AuthenticationFailed);
        }
        match &self.held {
            Held::AwsLc(key) => key.open(nonce, aad, text, tag),
            Held::RustCrypto(key) => key.open(nonce, aad, text, tag),
        }
    }
}
