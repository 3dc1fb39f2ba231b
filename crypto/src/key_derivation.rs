//! PSP key derivation: NIST SP 800-108 in counter mode over AES-256-CMAC.
//!
//! The CMAC input is exactly one block, so CMAC(M) = AES(M xor K1), with K1 fixed by the device key: one AES block
//! for a 128-bit key, two independent ones for a 256-bit key.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes256Enc, Block};
use zeroize::Zeroize;

/// A PSP device key ("master key") with its AES schedule and CMAC subkey ready. Wiped on drop; behind a pointer, so
/// that moving it leaves no copy. It has no `Debug` and no `Clone`.
pub struct DeviceKey(Box<Expanded>);

struct Expanded {
    /// Wipes itself on drop (feature `zeroize` of the aes crate).
    aes: Aes256Enc,
    k1: Block,
}

impl Drop for Expanded {
    fn drop(&mut self) {
        self.k1.zeroize();
    }
}

impl DeviceKey {
    /// Expands a device key; the caller wipes his copy.
    pub fn new(key: &[u8; 32]) -> DeviceKey {
        let aes = Aes256Enc::new(key.into());
        let mut k1 = Block::default();
        aes.encrypt_block(&mut k1);
        double(&mut k1);
        DeviceKey(Box::new(Expanded { aes, k1 }))
    }

    /// Writes the key of (`version`, `spi`) into `out` and returns its length, 16 or 32 bytes; the rest of `out` is
    /// zeroed. A reserved version (4 to 15) has no key: the length is 0.
    ///
    /// The SPI's top bit chooses between the two device keys: that choice is the caller's.
    pub fn derive(&self, version: u8, spi: u32, out: &mut [u8; 32]) -> usize {
        self.derive_batch(version, &[spi], core::slice::from_mut(out))
    }

    /// As [`derive`](DeviceKey::derive), for many SPIs: `out[i]` becomes the key of `spis[i]`. AES works on many blocks at a
    /// time, so a batch costs a fraction of single calls.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn derive_batch(&self, version: u8, spis: &[u32], out: &mut [[u8; 32]]) -> usize {
        assert_eq!(spis.len(), out.len(), "one key for each SPI");
        out.as_flattened_mut().fill(0);
        match derived_key_length(version) {
            32 => {
                for (&spi, key) in spis.iter().zip(out.iter_mut()) {
                    key[..16].copy_from_slice(&self.masked_input(version, spi, 1));
                    key[16..].copy_from_slice(&self.masked_input(version, spi, 2));
                }
                let (blocks, _) = Array::slice_as_chunks_mut(out.as_flattened_mut());
                self.0.aes.encrypt_blocks(blocks);
                32
            }
            16 => {
                let mut blocks = [Block::default(); 16];
                for (spis, keys) in spis.chunks(16).zip(out.chunks_mut(16)) {
                    let blocks = &mut blocks[..spis.len()];
                    for (&spi, block) in spis.iter().zip(blocks.iter_mut()) {
                        *block = self.masked_input(version, spi, 1).into();
                    }
                    self.0.aes.encrypt_blocks(blocks);
                    for (key, block) in keys.iter_mut().zip(blocks.iter()) {
                        key[..16].copy_from_slice(block);
                    }
                }
                Block::slice_as_flattened_mut(&mut blocks).zeroize();
                16
            }
            _ => 0,
        }
    }

    fn masked_input(&self, version: u8, spi: u32, counter: u32) -> [u8; 16] {
        let mut block = key_derivation_block(version, spi, counter);
        for (byte, mask) in block.iter_mut().zip(self.0.k1) {
            *byte ^= mask;
        }
        block
    }

    /// The CMAC subkey, for tests against published values. Not a key, but derived from one: never printed.
    #[doc(hidden)]
    pub fn subkey_for_tests(&self) -> [u8; 16] {
        self.0.k1.into()
    }
}

/// Key length in bytes of a PSP version: AES-GCM-128 and -256, then GMAC likewise.
const fn derived_key_length(version: u8) -> usize {
    match version {
        0 | 2 => 16,
        1 | 3 => 32,
        _ => 0,
    }
}

/// The CMAC input: counter, label "Pv" and the version's digit, SPI, length of the key in bits. The specification prints
/// the labels of versions 0 and 1; those of 2 and 3 follow its rule for making them.
fn key_derivation_block(version: u8, spi: u32, counter: u32) -> [u8; 16] {
    let mut block = [0; 16];
    block[..4].copy_from_slice(&counter.to_be_bytes());
    block[4..8].copy_from_slice(&[b'P', b'v', b'0' | version, 0]);
    block[8..12].copy_from_slice(&spi.to_be_bytes());
    block[12..].copy_from_slice(&(8 * derived_key_length(version) as u32).to_be_bytes());
    block
}

/// Doubling in GF(2^128) as CMAC has it (NIST SP 800-38B), without a branch on the key.
fn double(block: &mut Block) {
    let value = u128::from_be_bytes((*block).into());
    let reduction = (value >> 127) * 0x87;
    *block = ((value << 1) ^ reduction).to_be_bytes().into();
}
