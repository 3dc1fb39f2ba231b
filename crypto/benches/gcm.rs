//! AES-GCM of each library at hand, interleaved in one process, and PSP key derivation.
//!
//! `cargo bench -p cryptonic-crypto` prints a table of nanoseconds a packet. Each cell is the fourth lowest of
//! its rounds; all libraries take their turn in each round, so that a noisy neighbour hits all alike. Arguments after `--` choose the rows whose
//! name contains one of them, for instance `-- "AES-128"`.
//!
//! ring and the aes-gcm crate are here to compare with, and serve nothing else.

use std::hint::black_box;
use std::time::Instant;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{AesGcm, KeyInit};
use cryptonic_crypto::aws_lc::AwsLcKey;
use cryptonic_crypto::rust_crypto::RustCryptoKey;
use cryptonic_crypto::{Cipher, DeviceKey, GcmKey};
use cryptonic_wire::aead::{Aead, AuthenticationFailed};
use cryptonic_wire::psp::Version;

const ROUNDS: usize = 25;
const BUFFERS: usize = 64;
/// Bytes that one library handles in a turn.
const TURN_BYTES: usize = 400_000;
const AAD: [u8; 12] = [7; 12];

/// A library, as a way from a key's bytes to a key.
trait Candidate: Aead + Sized {
    const NAME: &'static str;
    fn new(cipher: Cipher, key: &[u8]) -> Self;
}

impl Candidate for GcmKey {
    const NAME: &'static str = "GcmKey";
    fn new(cipher: Cipher, key: &[u8]) -> GcmKey {
        GcmKey::new(cipher, key).unwrap()
    }
}

impl Candidate for AwsLcKey {
    const NAME: &'static str = "aws-lc-rs";
    fn new(cipher: Cipher, key: &[u8]) -> AwsLcKey {
        AwsLcKey::new(cipher, key).unwrap()
    }
}

impl Candidate for RustCryptoKey {
    const NAME: &'static str = "aes+ghash";
    fn new(cipher: Cipher, key: &[u8]) -> RustCryptoKey {
        RustCryptoKey::new(cipher, key).unwrap()
    }
}

type Gcm<A> = AesGcm<A, aes_gcm::aead::consts::U12>;

enum AesGcmCrate {
    Aes128(Gcm<aes::Aes128Enc>),
    Aes256(Gcm<aes::Aes256Enc>),
}

impl Candidate for AesGcmCrate {
    const NAME: &'static str = "aes-gcm";
    fn new(_: Cipher, key: &[u8]) -> AesGcmCrate {
        if key.len() == 16 {
            AesGcmCrate::Aes128(Gcm::new_from_slice(key).unwrap())
        } else {
            AesGcmCrate::Aes256(Gcm::new_from_slice(key).unwrap())
        }
    }
}

impl Aead for AesGcmCrate {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        let (nonce, text) = (nonce.into(), text.into());
        match self {
            AesGcmCrate::Aes128(key) => key.encrypt_inout_detached(nonce, aad, text),
            AesGcmCrate::Aes256(key) => key.encrypt_inout_detached(nonce, aad, text),
        }
        .unwrap()
        .into()
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        let (nonce, text, tag) = (nonce.into(), text.into(), tag.try_into().unwrap());
        match self {
            AesGcmCrate::Aes128(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
            AesGcmCrate::Aes256(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
        }
        .map_err(|_| AuthenticationFailed)
    }
}

struct Ring(ring::aead::LessSafeKey);

impl Candidate for Ring {
    const NAME: &'static str = "ring";
    fn new(_: Cipher, key: &[u8]) -> Ring {
        let algorithm = if key.len() == 16 { &ring::aead::AES_128_GCM } else { &ring::aead::AES_256_GCM };
        Ring(ring::aead::LessSafeKey::new(ring::aead::UnboundKey::new(algorithm, key).unwrap()))
    }
}

impl Aead for Ring {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, ring::aead::Aad::from(aad), text).unwrap();
        tag.as_ref().try_into().unwrap()
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), AuthenticationFailed> {
        let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
        let tag = tag.try_into().unwrap();
        let opened = self.0.open_in_place_separate_tag(nonce, ring::aead::Aad::from(aad), tag, text, 0..);
        opened.map(|_| ()).map_err(|_| AuthenticationFailed)
    }
}

/// What one library needs for its turns: packets as they stood, so that open has something to open.
struct Bench {
    cipher: Cipher,
    key: Vec<u8>,
    plain: Vec<Vec<u8>>,
    sealed: Vec<(Vec<u8>, [u8; 16])>,
}

fn nonce(i: usize) -> [u8; 12] {
    let mut nonce = [3; 12];
    nonce[4..].copy_from_slice(&(i as u64).to_be_bytes());
    nonce
}

impl Bench {
    fn new(cipher: Cipher, size: usize) -> Bench {
        let key: Vec<u8> = (0..cipher.key_length() as u8).collect();
        let plain = vec![vec![0x5a; size]; BUFFERS];
        let aead = GcmKey::new(cipher, &key).unwrap();
        let seal = |(i, text): (usize, &Vec<u8>)| {
            let mut text = text.clone();
            let tag = aead.seal(&nonce(i), &AAD, &mut text);
            (text, tag)
        };
        let sealed = plain.iter().enumerate().map(seal).collect();
        Bench { cipher, key, plain, sealed }
    }

    /// Nanoseconds a packet, `text` being restored outside the clock.
    fn turn<C: Candidate>(&self, operation: Operation, text: &mut [Vec<u8>]) -> f64 {
        let kept = C::new(self.cipher, &self.key);
        let passes = (TURN_BYTES / BUFFERS / (self.plain[0].len() + 500)).max(1);
        let mut nanoseconds = 0;
        for _ in 0..passes {
            for (i, text) in text.iter_mut().enumerate() {
                let from = if operation.opens() { &self.sealed[i].0 } else { &self.plain[i] };
                text.copy_from_slice(from);
            }
            let start = Instant::now();
            for (i, text) in text.iter_mut().enumerate() {
                let fresh;
                let key = if operation.takes_fresh_key() {
                    fresh = C::new(self.cipher, black_box(&self.key));
                    &fresh
                } else {
                    &kept
                };
                if operation.opens() {
                    key.open(&nonce(i), &AAD, text, &self.sealed[i].1).expect("it opens");
                } else {
                    black_box(key.seal(&nonce(i), &AAD, text));
                }
            }
            nanoseconds += start.elapsed().as_nanos();
        }
        nanoseconds as f64 / (passes * BUFFERS) as f64
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Seal,
    Open,
    SealFresh,
    OpenFresh,
}

impl Operation {
    const ALL: [(Operation, &str); 4] = [
        (Operation::Seal, "seal"),
        (Operation::Open, "open"),
        (Operation::SealFresh, "seal, fresh key"),
        (Operation::OpenFresh, "open, fresh key"),
    ];

    fn opens(self) -> bool {
        matches!(self, Operation::Open | Operation::OpenFresh)
    }

    fn takes_fresh_key(self) -> bool {
        matches!(self, Operation::SealFresh | Operation::OpenFresh)
    }
}

fn low(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[3]
}

type Turn = fn(&Bench, Operation, &mut [Vec<u8>]) -> f64;

fn gcm(wanted: &dyn Fn(&str) -> bool) {
    let candidates: [(&str, Turn); 5] = [
        (GcmKey::NAME, Bench::turn::<GcmKey>),
        (AwsLcKey::NAME, Bench::turn::<AwsLcKey>),
        (RustCryptoKey::NAME, Bench::turn::<RustCryptoKey>),
        (AesGcmCrate::NAME, Bench::turn::<AesGcmCrate>),
        (Ring::NAME, Bench::turn::<Ring>),
    ];
    print!("| ns a packet |");
    candidates.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n|---|{}", "---:|".repeat(candidates.len()));
    for (cipher, cipher_name) in [(Cipher::AesGcm128, "AES-128"), (Cipher::AesGcm256, "AES-256")] {
        for (operation, operation_name) in Operation::ALL {
            for size in [64, 256, 1500, 9000] {
                let name = format!("{cipher_name} {operation_name} {size} B");
                if !wanted(&name) {
                    continue;
                }
                let bench = Bench::new(cipher, size);
                let mut text = bench.plain.clone();
                let mut times = vec![Vec::new(); candidates.len()];
                for _ in 0..ROUNDS {
                    for ((_, turn), times) in candidates.iter().zip(&mut times) {
                        times.push(turn(&bench, operation, &mut text));
                    }
                }
                print!("| {name} |");
                times.into_iter().for_each(|times| print!(" {:.0} |", low(times)));
                println!();
            }
        }
    }
}

fn key_derivation(wanted: &dyn Fn(&str) -> bool) {
    let device_key = DeviceKey::new(&[9; 32]);
    let spis: [u32; 64] = core::array::from_fn(|i| i as u32);
    let mut keys = [[0; 32]; 64];
    for version in [Version::AesGcm128, Version::AesGcm256] {
        let name = format!("key derivation, version {}", version.code());
        if !wanted(&name) {
            continue;
        }
        let mut single = Vec::new();
        let mut batch = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..20 {
                for (spi, key) in spis.iter().zip(&mut keys) {
                    device_key.derive(version, black_box(*spi), key);
                    black_box(key);
                }
            }
            single.push(start.elapsed().as_nanos() as f64 / 1280.0);
            let start = Instant::now();
            for _ in 0..20 {
                device_key.derive_batch(version, black_box(&spis), &mut keys);
                black_box(&keys);
            }
            batch.push(start.elapsed().as_nanos() as f64 / 1280.0);
        }
        println!("{name}: {:.1} ns single, {:.1} ns in a batch of 64", low(single), low(batch));
    }
}

fn main() {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    gcm(&wanted);
    key_derivation(&wanted);
}
