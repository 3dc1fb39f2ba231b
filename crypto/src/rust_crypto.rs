//! AES-GCM over the aes and ghash crates of RustCrypto.
//!
//! The composition is ours, and not that of the aes-gcm crate, because aes-gcm verifies no 8-byte tag without its
//! `hazmat` feature, and fixes the tag's length in the type of the key.
//!
//! # What is wiped
//! With the `zeroize` feature, which this workspace sets, dropping the key overwrites the AES round keys (aes 0.9: `Drop` in
//! `lib.rs`) and H with its powers (polyval 0.7: `Drop` of `Polyval`, the inside of ghash 0.6). The copy of H's powers that each packet works on is
//! such a value too. The key lies where its owner puts it; [`GcmKey`](crate::GcmKey) puts it in a box, so that moves leave
//! no copies.
//!
//! Not wiped, and found by `tests/wiped.rs`: two to five copies of the AES key on the stack, left by the expansion, whose result
//! is handed over by value, and by the round keys that the VAES code spreads there. Take AWS-LC where that counts.

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, KeyInit, consts::U16};
use aes::{Aes128Enc, Aes192Enc, Aes256Enc, Block};
use cryptonic_wire::aead::{Aead, AuthenticationFailed};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::{Cipher, KeyLengthError};

/// One key, held by RustCrypto's crates.
pub struct RustCryptoKey(Inner);

enum Inner {
    Aes128(Gcm<Aes128Enc>),
    Aes192(Gcm<Aes192Enc>),
    Aes256(Gcm<Aes256Enc>),
}

impl RustCryptoKey {
    /// Expands `key`; the caller wipes his copy.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<RustCryptoKey, KeyLengthError> {
        let wrong_length = |_| KeyLengthError { cipher, length: key.len() };
        Ok(RustCryptoKey(match cipher.key_length() {
            16 => Inner::Aes128(Gcm::new(Aes128Enc::new_from_slice(key).map_err(wrong_length)?)),
            24 => Inner::Aes192(Gcm::new(Aes192Enc::new_from_slice(key).map_err(wrong_length)?)),
            _ => Inner::Aes256(Gcm::new(Aes256Enc::new_from_slice(key).map_err(wrong_length)?)),
        }))
    }
}

impl Aead for RustCryptoKey {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        match &self.0 {
            Inner::Aes128(gcm) => gcm.seal(nonce, aad, text),
            Inner::Aes192(gcm) => gcm.seal(nonce, aad, text),
            Inner::Aes256(gcm) => gcm.seal(nonce, aad, text),
        }
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        match &self.0 {
            Inner::Aes128(gcm) => gcm.open(nonce, aad, text, tag),
            Inner::Aes192(gcm) => gcm.open(nonce, aad, text, tag),
            Inner::Aes256(gcm) => gcm.open(nonce, aad, text, tag),
        }
    }
}

/// Blocks of key stream made at a time.
const BATCH: usize = 30;

/// GCM over one block cipher (NIST SP 800-38D, with 96-bit nonces only).
struct Gcm<A> {
    aes: A,
    ghash: GHash,
}

impl<A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Gcm<A> {
    fn new(aes: A) -> Gcm<A> {
        let mut h = Block::default();
        aes.encrypt_block(&mut h);
        let ghash = GHash::new(&h);
        h.zeroize();
        Gcm { aes, ghash }
    }

    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        let mut tag = self.apply_key_stream(nonce, text);
        xor(&mut tag, &self.hash(aad, text));
        tag
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        if !matches!(tag.len(), 8 | 12 | 16) {
            return Err(AuthenticationFailed);
        }
        let mut whole = self.hash(aad, text);
        xor(&mut whole, &self.apply_key_stream(nonce, text));
        if bool::from(whole[..tag.len()].ct_eq(tag)) {
            Ok(())
        } else {
            // The text is decrypted by now: no one may see it.
            text.fill(0);
            Err(AuthenticationFailed)
        }
    }

    /// Encrypts or decrypts `text`, and returns the block that hides the hash: E(K, nonce | 1). That block
    /// is made in one batch with the first blocks of key stream, which is what a short packet's time hangs on.
    fn apply_key_stream(&self, nonce: &[u8; 12], text: &mut [u8]) -> [u8; 16] {
        let mut stream = [Block::default(); BATCH];
        let mut counter = 1_u32;
        let (head, rest) = text.split_at_mut(text.len().min(16 * (BATCH - 1)));
        self.key_stream(nonce, &mut counter, &mut stream[..=head.len().div_ceil(16)]);
        let mask = stream[0].into();
        xor(head, Block::slice_as_flattened(&stream[1..]));
        for chunk in rest.chunks_mut(16 * BATCH) {
            self.key_stream(nonce, &mut counter, &mut stream[..chunk.len().div_ceil(16)]);
            xor(chunk, Block::slice_as_flattened(&stream));
        }
        mask
    }

    fn key_stream(&self, nonce: &[u8; 12], counter: &mut u32, out: &mut [Block]) {
        for block in out.iter_mut() {
            block[..12].copy_from_slice(nonce);
            block[12..].copy_from_slice(&counter.to_be_bytes());
            *counter = counter.wrapping_add(1);
        }
        self.aes.encrypt_blocks(out);
    }

    fn hash(&self, aad: &[u8], ciphertext: &[u8]) -> [u8; 16] {
        let mut ghash = self.ghash.clone();
        ghash.update_padded(aad);
        ghash.update_padded(ciphertext);
        let mut lengths = Block::default();
        lengths[..8].copy_from_slice(&(8 * aad.len() as u64).to_be_bytes());
        lengths[8..].copy_from_slice(&(8 * ciphertext.len() as u64).to_be_bytes());
        ghash.update(&[lengths]);
        ghash.finalize().into()
    }
}

fn xor(text: &mut [u8], stream: &[u8]) {
    for (byte, key) in text.iter_mut().zip(stream) {
        *byte ^= key;
    }
}
