//! PSP key derivation: NIST SP 800-108 in counter mode over AES-256-CMAC.
//!
//! The CMAC input is exactly one block, so CMAC(M) = AES(M xor K1), with K1 fixed by the device key: one AES block
//! for a 128-bit key, two independent ones for a 256-bit key.

//!
//! AES here is AWS-LC's, block by block: its assembly keeps round keys in registers and in the schedule alone. (The aes crate derives a
//! batch several times faster, and leaves round keys on the stack of whoever called it.)

use std::hint::black_box;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use cryptonic_wire::psp::{Version, key_derivation_block, key_length};
use zeroize::Zeroize;

/// A PSP device key ("master key") with its AES schedule and CMAC subkey ready. Wiped on drop; behind a pointer, so
/// that moving it leaves no copy. It has no `Debug` and no `Clone`.
pub struct DeviceKey(Box<Expanded>);

struct Expanded {
    /// Wipes itself on drop (`SymmetricCipherKey` of aws-lc-rs).
    aes: EncryptingKey,
    k1: u128,
}

impl Drop for Expanded {
    fn drop(&mut self) {
        self.k1.zeroize();
    }
}

impl Expanded {
    /// On a stack frame of its own: the library hands the schedule over by value, and so leaves copies behind.
    #[inline(never)]
    fn new(key: &[u8; 32]) -> Box<Expanded> {
        let aes = UnboundCipherKey::new(&AES_256, key).and_then(EncryptingKey::ecb);
        let mut expanded = Box::new(Expanded { aes: aes.expect("the key's length is right"), k1: 0 });
        let mut zero = [0; 16];
        expanded.encrypt(&mut zero);
        expanded.k1 = double(u128::from_be_bytes(zero));
        zero.zeroize();
        expanded
    }

    fn encrypt(&self, blocks: &mut [u8]) {
        self.aes.encrypt(blocks).expect("the text is whole blocks");
    }
}

/// Overwrites what calls that have returned left below the caller's frame.
#[inline(never)]
fn overwrite_stack() {
    black_box(&mut [0_u8; 16 << 10]);
}

impl DeviceKey {
    /// Expands a device key; the caller wipes his copy.
    pub fn new(key: &[u8; 32]) -> DeviceKey {
        let expanded = Expanded::new(key);
        overwrite_stack();
        DeviceKey(expanded)
    }

    /// Writes the key of (`version`, `spi`) into `out` and returns its length, 16 or 32 bytes; the rest of `out` is
    /// zeroed.
    ///
    /// The SPI's top bit chooses between the two device keys: that choice is the caller's.
    pub fn derive(&self, version: Version, spi: u32, out: &mut [u8; 32]) -> usize {
        let length = key_length(version);
        let (key, rest) = out.split_at_mut(length);
        rest.fill(0);
        for (counter, block) in (1..).zip(key.chunks_exact_mut(16)) {
            let input = u128::from_be_bytes(key_derivation_block(version, spi, counter));
            block.copy_from_slice(&(input ^ self.0.k1).to_be_bytes());
        }
        self.0.encrypt(key);
        length
    }

    /// As [`derive`](DeviceKey::derive), for many SPIs: `out[i]` becomes the key of `spis[i]`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn derive_batch(&self, version: Version, spis: &[u32], out: &mut [[u8; 32]]) -> usize {
        assert_eq!(spis.len(), out.len(), "one key for each SPI");
        for (&spi, key) in spis.iter().zip(out) {
            self.derive(version, spi, key);
        }
        key_length(version)
    }

    /// The CMAC subkey, for tests against published values.
    #[doc(hidden)]
    pub fn subkey_for_tests(&self) -> [u8; 16] {
        self.0.k1.to_be_bytes()
    }
}

/// Doubling in GF(2^128) as CMAC has it (NIST SP 800-38B), without a branch on the key.
fn double(value: u128) -> u128 {
    (value << 1) ^ ((value >> 127) * 0x87)
}
