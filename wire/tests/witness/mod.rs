//! What the tests judge by: AES-GCM and AES-CMAC of a library the crate knows nothing of, and the vector files.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod exchange;
pub mod reference;
pub mod wrapped;

use aes::cipher::{Array, BlockCipherEncrypt};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use cryptonic_wire::{Aead, AuthenticationFailed};
use serde_json::Value;

/// AES-GCM with any key length and any tag length.
pub enum Gcm {
    Bits128(Box<Aes128Gcm>),
    Bits192(Box<AesGcm<aes::Aes192, U12>>),
    Bits256(Box<Aes256Gcm>),
}

impl Gcm {
    pub fn new(key: &[u8]) -> Self {
        match key.len() {
            16 => Self::Bits128(Box::new(Aes128Gcm::new_from_slice(key).unwrap())),
            24 => Self::Bits192(Box::new(AesGcm::new_from_slice(key).unwrap())),
            32 => Self::Bits256(Box::new(Aes256Gcm::new_from_slice(key).unwrap())),
            length => panic!("no AES key has {length} octets"),
        }
    }
}

impl Aead for Gcm {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        let nonce = nonce.into();
        let tag = match self {
            Self::Bits128(gcm) => gcm.encrypt_inout_detached(nonce, aad, text.into()),
            Self::Bits192(gcm) => gcm.encrypt_inout_detached(nonce, aad, text.into()),
            Self::Bits256(gcm) => gcm.encrypt_inout_detached(nonce, aad, text.into()),
        };
        tag.unwrap().into()
    }

    /// Counter mode is its own inverse: sealing the ciphertext gives the plaintext, and sealing that the right tag, of
    /// which any length can be compared.
    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        self.seal(nonce, aad, text);
        let right = self.seal(nonce, aad, &mut text.to_vec());
        if matches!(tag.len(), 8 | 12 | 16) && right[..tag.len()] == *tag {
            Ok(())
        } else {
            Err(AuthenticationFailed)
        }
    }
}

/// AES-256-CMAC of one whole block (RFC 4493, 2.4).
pub fn cmac_of_block(key: &[u8], block: [u8; 16]) -> [u8; 16] {
    let cipher = aes::Aes256::new_from_slice(key).unwrap();
    let mut subkey = Array::from([0u8; 16]);
    cipher.encrypt_block(&mut subkey);
    let subkey = u128::from_be_bytes(subkey.into());
    let subkey = (subkey << 1) ^ ((subkey >> 127) * 0x87);
    let mut state = Array::from((u128::from_be_bytes(block) ^ subkey).to_be_bytes());
    cipher.encrypt_block(&mut state);
    state.into()
}

/// A vector file.
pub fn vectors(json: &str) -> Value {
    serde_json::from_str(json).expect("the vector file is JSON")
}

/// Octets of a hex string in a vector.
pub fn octets(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a string")).expect("hex")
}

/// Octets of a hex string in a vector, of known length.
pub fn array<const N: usize>(value: &Value) -> [u8; N] {
    octets(value).try_into().expect("the length")
}

/// A number in a vector, written as a number or as "0x...".
pub fn number(value: &Value) -> u128 {
    match value.as_str() {
        Some(text) => u128::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex"),
        None => u128::from(value.as_u64().expect("a number")),
    }
}
