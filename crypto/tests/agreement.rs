//! The libraries against each other and against the aes-gcm crate, and what keys refuse.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use cryptonic_crypto::{Cipher, GcmKey, KeyLengthError, Library};
use cryptonic_wire::aead::{Aead, AuthenticationFailed};
use proptest::prelude::*;

fn cipher() -> impl Strategy<Value = Cipher> {
    prop::sample::select(vec![Cipher::AesGcm128, Cipher::AesGcm192, Cipher::AesGcm256])
}

fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    // Short ones often, so that block edges are met.
    prop_oneof![prop::collection::vec(any::<u8>(), 0..70), prop::collection::vec(any::<u8>(), 0..longest)]
}

proptest! {
    #[test]
    fn libraries_agree(
        cipher in cipher(), key: [u8; 32], nonce: [u8; 12], aad in bytes(300), plain in bytes(9100),
        length in prop::sample::select(vec![8, 12, 16]), flip: (prop::sample::Index, u8),
    ) {
        let keys = Library::ALL
            .map(|library| GcmKey::with_library(library, cipher, &key[..cipher.key_length()]).unwrap());
        let mut text = plain.clone();
        let tag = keys[0].seal(&nonce, &aad, &mut text);
        for key in &keys {
            let mut other = plain.clone();
            prop_assert_eq!(key.seal(&nonce, &aad, &mut other), tag);
            prop_assert!(other == text);
            prop_assert_eq!(key.open(&nonce, &aad, &mut other, &tag[..length]), Ok(()));
            prop_assert!(other == plain);

            // One bit of what the tag covers, or of the tag.
            let (mut aad, mut text, mut tag) = (aad.clone(), text.clone(), tag[..length].to_vec());
            let at = flip.0.index(aad.len() + text.len() + length);
            *aad.iter_mut().chain(&mut text).chain(&mut tag).nth(at).unwrap() ^= 1 << (flip.1 % 8);
            prop_assert_eq!(key.open(&nonce, &aad, &mut text, &tag), Err(AuthenticationFailed));
            if plain.len() >= 16 {
                prop_assert!(text != plain, "a refused packet shows no plaintext");
            }
        }
    }

    #[test]
    fn aes_gcm_crate_agrees(key: [u8; 32], nonce: [u8; 12], aad in bytes(300), plain in bytes(2000)) {
        let witness = Aes256Gcm::new(&key.into());
        let mut expected = plain.clone();
        let tag = witness
            .encrypt_inout_detached(&nonce.into(), &aad, expected.as_mut_slice().into())
            .unwrap();
        for library in Library::ALL {
            let key = GcmKey::with_library(library, Cipher::AesGcm256, &key).unwrap();
            let mut text = plain.clone();
            prop_assert_eq!(key.seal(&nonce, &aad, &mut text), <[u8; 16]>::from(tag));
            prop_assert!(text == expected);
        }
    }
}

#[test]
fn keys_of_other_lengths_are_refused() {
    for library in Library::ALL {
        for cipher in Cipher::ALL {
            for length in 0..=40 {
                let made = GcmKey::with_library(library, cipher, &vec![1; length]);
                if length == cipher.key_length() {
                    let key = made.expect("the length is right");
                    assert_eq!((key.cipher(), key.library()), (cipher, library));
                } else {
                    assert_eq!(made.err(), Some(KeyLengthError { cipher, length }));
                }
            }
        }
    }
}

#[test]
fn the_error_says_both_lengths() {
    let error = GcmKey::new(Cipher::AesGcm256, &[0; 16]).err().unwrap();
    assert_eq!(error.to_string(), "AesGcm256 takes a key of 32 bytes, not 16");
}

#[test]
fn gmac_is_gcm_without_text_and_opens_none() {
    for library in Library::ALL {
        let gcm = GcmKey::with_library(library, Cipher::AesGcm128, &[5; 16]).unwrap();
        let gmac = GcmKey::with_library(library, Cipher::AesGmac128, &[5; 16]).unwrap();
        let tag = gmac.seal(&[1; 12], b"all of the packet", &mut []);
        assert_eq!(tag, gcm.seal(&[1; 12], b"all of the packet", &mut []));
        assert_eq!(gmac.open(&[1; 12], b"all of the packet", &mut [], &tag), Ok(()));

        let mut text = *b"text";
        let tag = gcm.seal(&[1; 12], b"", &mut text);
        assert_eq!(gmac.open(&[1; 12], b"", &mut text, &tag), Err(AuthenticationFailed));
    }
}
