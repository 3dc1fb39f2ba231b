//! AES-GCM, GMAC and CMAC behind the trait of wire, one adapter per library.
//!
//! * [`GcmKey`]: what the model and the driver hold. Its library is a value chosen when the key is built.
//! * [`aws_lc`], [`rust_crypto`]: the adapters.
//! * [`DeviceKey`]: PSP key derivation.
//!
//! Nothing here prints, clones or returns a key. What each library wipes is written at its adapter; the
//! measured numbers are in `docs/crypto.md`.

#![forbid(unsafe_code)]

pub mod aws_lc;
mod cipher;
mod gcm_key;
mod key_derivation;
pub mod rust_crypto;

pub use cipher::{Cipher, KeyLengthError};
pub use gcm_key::{GcmKey, Library};
pub use key_derivation::DeviceKey;
