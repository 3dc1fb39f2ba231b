//! `aes256`: the values that FIPS 197 and NIST SP 800-38B print, through the RTL.

mod common;

use cryptonic_rtl_bench::units::{AES256, word_of};
use cryptonic_rtl_bench::{Build, Model};

/// FIPS 197, appendix C.3: key, plaintext, ciphertext.
const FIPS_197_C3: [&str; 3] = [
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    "00112233445566778899aabbccddeeff",
    "8ea2b7ca516745bfeafc49904b496089",
];

/// NIST SP 800-38B, appendix D.3 (AES-256): key, AES(0), K1, and example 10, a message of one block with its CMAC.
const SP_800_38B_D3: [&str; 5] = [
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
    "e568f68194cf76d6174d4cc04310a854",
    "cad1ed03299eedac2e9a99808621502f",
    "6bc1bee22e409f96e93d7e117393172a",
    "28a7023f452e8f82bd4bf28d8c37c35c",
];

const BLOCK_CYCLES: usize = 29;
const EXPANSION_CYCLES: usize = 30;

const fn input(name: &str) -> usize {
    word_of(AES256.inputs, name)
}

fn words(hex: &str) -> Vec<u32> {
    let octet = |at: usize| u32::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex digits");
    (0..hex.len() / 8).map(|word| (0..4).map(|at| octet(4 * word + at) << (8 * at)).sum()).collect()
}

/// The unit, or nothing where there is no RTL and none is required.
fn rtl() -> Option<Model> {
    Model::new(&AES256, Build::Inspect, 1).map_err(common::skip).ok()
}

fn set(model: &mut Model, name: &str, value: &[u32]) {
    model.inputs()[input(name)..][..value.len()].copy_from_slice(value);
}

fn expand(model: &mut Model, index: u32, key: &str) {
    set(model, "expand_start_i", &[1]);
    set(model, "expand_index_i", &[index]);
    set(model, "expand_key_i", &words(key));
    model.step();
    set(model, "expand_start_i", &[0]);
    set(model, "expand_key_i", &[0; 8]);
    let done = (1..=EXPANSION_CYCLES).find(|_| {
        model.step();
        model.outputs()[word_of(AES256.outputs, "expand_done_o")] == 1
    });
    assert_eq!(done, Some(EXPANSION_CYCLES));
}

/// Ciphertexts of blocks that enter in consecutive cycles, each with its key.
fn encrypt(model: &mut Model, blocks: &[(u32, &str)]) -> Vec<Vec<u32>> {
    let mut ciphertexts = vec![];
    for cycle in 0..blocks.len() + BLOCK_CYCLES {
        let (index, block) = blocks.get(cycle).copied().unwrap_or((0, FIPS_197_C3[1]));
        set(model, "key_select_i", &[index]);
        set(model, "block_i", &words(block));
        model.step();
        if cycle >= BLOCK_CYCLES {
            ciphertexts.push(model.outputs()[word_of(AES256.outputs, "block_o")..].to_vec());
        }
    }
    ciphertexts
}

fn add_to_first_key(model: &mut Model, index: u32, value: &str) {
    set(model, "first_key_xor_valid_i", &[1]);
    set(model, "first_key_xor_index_i", &[index]);
    set(model, "first_key_xor_i", &words(value));
    model.step();
    set(model, "first_key_xor_valid_i", &[0]);
}

#[test]
fn the_printed_blocks_come_out_with_either_key() {
    let [key, plaintext, ciphertext] = FIPS_197_C3;
    let [cmac_key, zero, subkey, message, mac] = SP_800_38B_D3;
    for index in [0, 1] {
        let Some(mut model) = rtl() else { return };
        expand(&mut model, index, key);
        expand(&mut model, 1 - index, cmac_key);
        let zeros = "00".repeat(16);
        let blocks = [(index, plaintext), (1 - index, zeros.as_str()), (index, plaintext)];
        assert_eq!(encrypt(&mut model, &blocks), [ciphertext, zero, ciphertext].map(words));
        // The CMAC of one whole block is AES(block ^ K1).
        add_to_first_key(&mut model, 1 - index, subkey);
        let blocks = [(1 - index, message), (index, plaintext)];
        assert_eq!(encrypt(&mut model, &blocks), [mac, ciphertext].map(words));
    }
}

/// Round keys are written behind the last block of the old key, and the first block behind them has the new one.
#[test]
fn no_block_has_round_keys_of_two_keys() {
    let [key, plaintext, ciphertext] = FIPS_197_C3;
    let [other, zero, ..] = SP_800_38B_D3;
    let Some(mut model) = rtl() else { return };
    expand(&mut model, 0, key);
    set(&mut model, "key_select_i", &[0]);
    let zeros = "00".repeat(16);
    let start = 10;
    let mut seen = vec![];
    for cycle in 0..100 {
        set(&mut model, "expand_start_i", &[u32::from(cycle == start)]);
        set(&mut model, "expand_key_i", &words(other));
        // The old key's block until two cycles behind the start, the new key's from when it is there.
        set(&mut model, "block_i", &words(if cycle <= start + 2 { plaintext } else { &zeros }));
        model.step();
        seen.push(model.outputs()[word_of(AES256.outputs, "block_o")..].to_vec());
    }
    let entered = |cycle: usize| &seen[cycle + BLOCK_CYCLES];
    assert!((0..=start + 2).all(|cycle| *entered(cycle) == words(ciphertext)));
    assert!((start + EXPANSION_CYCLES + 1..71).all(|cycle| *entered(cycle) == words(zero)));
    assert_ne!(*entered(start + 10), words(zero), "a block between is of neither");
}

#[test]
fn a_clear_leaves_no_round_key() {
    let Some(mut model) = rtl() else { return };
    let zeros = "00".repeat(16);
    set(&mut model, "clear_i", &[1]);
    model.step();
    set(&mut model, "clear_i", &[0]);
    // AES with round keys that are all zero.
    let unkeyed = encrypt(&mut model, &[(0, &zeros), (1, &zeros)]);
    expand(&mut model, 0, FIPS_197_C3[0]);
    expand(&mut model, 1, SP_800_38B_D3[0]);
    assert_ne!(encrypt(&mut model, &[(0, &zeros), (1, &zeros)]), unkeyed);
    set(&mut model, "clear_i", &[1]);
    model.step();
    set(&mut model, "clear_i", &[0]);
    assert_eq!(encrypt(&mut model, &[(0, &zeros), (1, &zeros)]), unkeyed);
}
