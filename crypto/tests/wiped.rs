//! A dropped key leaves no key bytes in this process: all its writable memory is searched, by way of /proc/self/mem.
//! Only test of its binary, so that no other thread has keys.
#![cfg(target_os = "linux")]

use std::fs::{File, read_to_string};
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use cryptonic_crypto::{Cipher, DeviceKey, GcmKey, Library};
use cryptonic_wire::aead::Aead;
use cryptonic_wire::psp::Version;
use zeroize::Zeroize;

/// Searches memory for a needle that it holds inverted, so as not to find itself.
struct Search {
    memory: File,
    window: Vec<u8>,
}

const OVERLAP: usize = 64;

impl Search {
    fn new() -> Search {
        Search { memory: File::open("/proc/self/mem").unwrap(), window: vec![0; (1 << 16) + OVERLAP] }
    }

    /// Places that hold the bytes whose inverse is given, those on the caller's stack apart: (elsewhere, stack).
    fn count(&mut self, inverted: &[u8]) -> (usize, usize) {
        let here = &raw const inverted as u64;
        let own = self.window.as_ptr() as u64;
        let (mut elsewhere, mut stack) = (0, 0);
        for line in read_to_string("/proc/self/maps").unwrap().lines() {
            let mut fields = line.split_whitespace();
            let (start, end) = fields.next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
            if !fields.next().unwrap().starts_with("rw") || line.contains("[vvar") {
                continue;
            }
            for from in (start..end).step_by(1 << 16) {
                let length = self.window.len().min((end - from) as usize);
                let window = &mut self.window[..length];
                if self.memory.read_exact_at(window, from).is_err() {
                    continue;
                }
                for at in 0..length.saturating_sub(inverted.len() - 1).min(1 << 16) {
                    let address = from + at as u64;
                    if window[at] == !inverted[0]
                        && window[at..].iter().zip(inverted).all(|(a, b)| *a == !*b)
                        && !(own..own + (1 << 16) + OVERLAP as u64).contains(&address)
                    {
                        if (start..end).contains(&here) { stack += 1 } else { elsewhere += 1 }
                    }
                }
            }
        }
        self.window.as_mut_slice().zeroize();
        (elsewhere, stack)
    }
}

#[test]
fn no_key_byte_outlives_its_key() {
    let mut search = Search::new();
    let inverted: [u8; 32] = core::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5c);
    // AES takes the key's first bytes as its first round key, so these stand for raw key and schedule.
    let first = &inverted[..16];
    let key_bytes = |length: usize| inverted[..length].iter().map(|byte| !byte).collect::<Vec<u8>>();
    assert_eq!(search.count(first), (0, 0), "nothing is there before");

    let mut bytes: [u8; 32] = key_bytes(32).try_into().unwrap();
    let key = black_box(DeviceKey::new(&bytes));
    bytes.zeroize();
    let mut derived = [[0; 32]; 40];
    key.derive(Version::AesGcm256, 1, &mut derived[0]);
    key.derive_batch(Version::AesGcm256, &[1; 40], &mut derived);
    let (found, stack) = search.count(first);
    assert!(found >= 1 && stack == 0, "a device key in use: {found}, on the stack {stack}");
    drop(key);
    assert_eq!(search.count(first), (0, 0), "a dropped device key");

    // AWS-LC first: RustCrypto leaves copies on the stack, as its adapter says.
    for library in [Library::AwsLc, Library::RustCrypto] {
        for cipher in [Cipher::AesGcm128, Cipher::AesGcm192, Cipher::AesGcm256] {
            let mut bytes = key_bytes(cipher.key_length());
            let key = GcmKey::with_library(library, cipher, &bytes).unwrap();
            bytes.zeroize();
            let moved = black_box(Box::new(black_box(key)));
            let mut text = [0; 1500];
            let tag = moved.seal(&[0; 12], b"", &mut text);
            moved.open(&[0; 12], b"", &mut text, &tag).unwrap();
            let (found, _) = search.count(first);
            assert_eq!(found, 1, "{library:?} {cipher:?}: the key in use is found, and found once");
            drop(moved);
            let (found, stack) = search.count(first);
            assert_eq!(found, 0, "{library:?} {cipher:?}");
            println!("{library:?} {cipher:?}: {stack} copies left on the stack");
            assert!(library == Library::RustCrypto || stack == 0, "{library:?} {cipher:?}: {stack}");
        }
    }
}
