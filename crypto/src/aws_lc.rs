//! AES-GCM by AWS-LC, through the aws-lc-rs crate.
//!
//! # What is wiped
//! The key schedule and the powers of H live in one heap block of the C library. Dropping the key frees it with
//! `OPENSSL_free`, which overwrites the whole block first (aws-lc-sys 0.47: `EVP_AEAD_CTX_free` in
//! `crypto/fipsmodule/cipher/aead.c`, `OPENSSL_free` in `crypto/mem.c`). Moving the key moves a pointer only.
//! `tests/wiped.rs` searches the memory of the process: in use, the AES key is there once; afterwards nowhere, stack included.
//!
//! Not wiped: each seal and open copies the powers of H (not the AES key) into a stack frame of the C library
//! (`aead_aes_gcm_seal_scatter_impl`, `aead_aes_gcm_open_gather_impl` in `e_aes.c`), and the frame stays as it is until overwritten.

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use cryptonic_wire::aead::{Aead, AuthenticationFailed};
use subtle::ConstantTimeEq;

use crate::{Cipher, KeyLengthError};

/// One key, held by AWS-LC.
pub struct AwsLcKey(LessSafeKey);

impl AwsLcKey {
    /// Expands `key`; the caller wipes his copy.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<AwsLcKey, KeyLengthError> {
        cipher.check_key_length(key)?;
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            _ => &AES_256_GCM,
        };
        // The length is right, so what can fail is the allocation, and Rust's own allocations abort on that too.
        let key = UnboundKey::new(algorithm, key).expect("AWS-LC allocates a key");
        Ok(AwsLcKey(LessSafeKey::new(key)))
    }

    /// Opens with a truncated tag. The library compares whole tags only, and gives no tag of a ciphertext. So:
    /// decrypt (sealing a ciphertext gives its plaintext, with a tag of no use), encrypt again, which gives back the ciphertext
    /// and its whole tag, compare, and only then decrypt for good. Three passes; short tags are legacy.
    /// A refused packet leaves with its ciphertext as it came.
    fn open_truncated(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        self.seal(nonce, aad, text);
        let whole = self.seal(nonce, aad, text);
        if !bool::from(whole[..tag.len()].ct_eq(tag)) {
            return Err(AuthenticationFailed);
        }
        self.seal(nonce, aad, text);
        Ok(())
    }
}

impl Aead for AwsLcKey {
    /// # Panics
    /// If the text is longer than GCM allows (64 GiB).
    #[inline]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        let mut out = [0; 16];
        out.copy_from_slice(tag.expect("the text is no longer than GCM allows").as_ref());
        out
    }

    #[inline]
    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        match tag.len() {
            16 => {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                match self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(AuthenticationFailed),
                }
            }
            8 | 12 => self.open_truncated(nonce, aad, text, tag),
            _ => Err(AuthenticationFailed),
        }
    }
}
