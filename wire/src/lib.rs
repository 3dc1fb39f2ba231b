//! Packet formats: layout, nonce, AAD, key-derivation input, sequence and replay arithmetic.

#![no_std]
#![forbid(unsafe_code)]
