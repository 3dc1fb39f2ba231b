//! `psp_kdf`: the RTL against the model's shell, cycle for cycle, under random requests, stalls, loads and clears;
//! the keys that the PSP specification prints; and how many results it gives.

mod common;

use cryptonic_hwmodel::psp_kdf::{
    BlocksPerCycle, Inputs, KeyResult, Load, Outputs, PspKdfShell, Request, clear_cycles,
};
use cryptonic_rtl_bench::psp_kdf::{PspKdfRtl, results};
use cryptonic_rtl_bench::{Build, MUTANTS};
use cryptonic_wire::psp::Version;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

const WIDTHS: [BlocksPerCycle; 2] = [BlocksPerCycle::One, BlocksPerCycle::Two];
const VERSIONS: [Version; 4] =
    [Version::AesGcm128, Version::AesGcm256, Version::AesGmac128, Version::AesGmac256];

/// Printed in the PSP Architecture Specification (17 November 2022): device keys 0 and 1.
const DEVICE_KEYS: [&str; 2] = [
    "34448a064292601b11a0978f56a2d34cf3fc35ede1a6bc04f8db3e5243a2b0ca",
    "563952565d3a78ae773ec1b779f2f2d99f4a7f53a6fbb9b07d5b71f39364d739",
];

/// Printed there as well, but for the last: it stands in Scapy's tests (psp.uts).
const DERIVED: [(u32, Version, &str); 4] = [
    (0x1234_5678, Version::AesGcm128, "96c22dc799198090b74b70ae468e4e30"),
    (0x9a34_5678, Version::AesGcm128, "3946da2554eae46ad1ef77a64372edc4"),
    (0x1234_5678, Version::AesGcm256, "2b7d72074e42ca334487f2990e3f8c4037e436f38283449b76463e9b7fb2e3de"),
    (0x9a34_5678, Version::AesGcm256, "fa00f609df6020289a1c93d6027081a637ad45b24a5576b36e6f49dd43114d80"),
];

const QUIET: Inputs<'static> = Inputs { clear: false, load: None, request: None, result_ready: true };

/// Left-aligned, zeros behind.
fn octets(hex: &str) -> Zeroizing<[u8; 32]> {
    let mut octets = Zeroizing::new([0; 32]);
    for (index, octet) in octets.iter_mut().enumerate().take(hex.len() / 2) {
        *octet = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("hex digits");
    }
    octets
}

/// The unit, or nothing where there is no RTL and none is required.
fn rtl(build: Build, width: BlocksPerCycle, seed: u32) -> Option<PspKdfRtl> {
    PspKdfRtl::with_seed(build, width, seed).map_err(common::skip).ok()
}

fn load_both(rtl: &mut PspKdfRtl) {
    for (index, key) in [false, true].into_iter().zip(DEVICE_KEYS) {
        let load = Load { index, key: octets(key) };
        assert!(rtl.step(Inputs { load: Some(&load), ..QUIET }).load_ready);
        let cycles = (1..200).find(|_| rtl.step(QUIET).drained);
        assert_eq!(cycles, Some(cryptonic_hwmodel::psp_kdf::LOAD_CYCLES));
    }
}

#[test]
fn the_printed_keys_come_out_of_the_printed_device_keys() {
    for width in WIDTHS {
        let Some(mut rtl) = rtl(Build::Fast, width, 0) else { return };
        load_both(&mut rtl);
        for (tag, (spi, version, key)) in (0..).zip(DERIVED) {
            let request = Request { spi, version, tag };
            assert!(rtl.step(Inputs { request: Some(&request), ..QUIET }).request_ready);
            let result = (0..200).find_map(|_| rtl.step(QUIET).result).expect("a result");
            assert!(result == KeyResult { tag, key: Some(octets(key)) }, "{width:?}, {spi:08x}, {version:?}");
        }
    }
}

/// What a run saw, so that a run that tries nothing is seen.
#[derive(Debug, Default)]
struct Seen {
    keys: u64,
    missing: u64,
    loads: u64,
    clears: u64,
    full: u64,
    /// Clears with a result at the output.
    clears_of_waiting: u64,
}

/// Runs RTL and shell side by side with what `seed` says; the first difference, if there is one.
fn lockstep(rtl: &mut PspKdfRtl, width: BlocksPerCycle, seed: u64, cycles: u64) -> Result<Seen, String> {
    let mut noise = ChaCha20Rng::seed_from_u64(seed);
    let mut shell = PspKdfShell::new(results(width), width);
    let mut seen = Seen::default();
    // Chances of a request, a ready consumer and a 256-bit key in 8, of a load and a clear in 4096.
    let (mut asking, mut taking, mut wide, mut loading, mut clearing) = (8, 8, 4, 4096, 0);
    let mut chance = |of: u32, outcomes: u32| noise.next_u32() % of < outcomes;
    let mut fill = ChaCha20Rng::seed_from_u64(!seed);
    for cycle in 0..cycles {
        if cycle > 150 && chance(64, 1) {
            asking = fill.next_u32() % 9;
            taking = fill.next_u32() % 9;
            wide = fill.next_u32() % 9;
            loading = [0, 40, 4096][fill.next_u32() as usize % 3];
            clearing = [0, 0, 0, 40][fill.next_u32() as usize % 4];
        }
        let version = VERSIONS[usize::from(chance(8, wide)) + 2 * usize::from(chance(2, 1))];
        let request = Request { spi: fill.next_u32(), version, tag: cycle as u8 };
        let load = chance(4096, loading).then(|| {
            let mut key = Zeroizing::new([0; 32]);
            fill.fill_bytes(&mut *key);
            Load { index: fill.next_u32() % 2 == 1, key }
        });
        let inputs = Inputs {
            clear: chance(4096, clearing),
            load: load.as_ref(),
            request: chance(8, asking).then_some(&request),
            result_ready: chance(8, taking),
        };
        let by_model = shell.step(inputs);
        let by_rtl = rtl.step(inputs);
        if by_rtl != by_model || rtl.drained() != shell.drained() {
            let failure = rtl.failed_assertion();
            return Err(format!("seed {seed}, cycle {cycle}: {by_rtl:?}\nmodel: {by_model:?}\n{failure:?}"));
        }
        seen.count(&inputs, &by_model);
    }
    match rtl.failed_assertion() {
        Some(failure) => Err(failure),
        None => Ok(seen),
    }
}

impl Seen {
    fn count(&mut self, inputs: &Inputs<'_>, outputs: &Outputs) {
        if let Some(result) = outputs.result.as_ref().filter(|_| inputs.result_ready) {
            *if result.key.is_some() { &mut self.keys } else { &mut self.missing } += 1;
        }
        self.loads += u64::from(inputs.load.is_some() && outputs.load_ready);
        self.clears += u64::from(inputs.clear);
        self.full += u64::from(inputs.request.is_some() && !outputs.request_ready && !inputs.result_ready);
        self.clears_of_waiting += u64::from(inputs.clear && outputs.result.is_some());
    }
}

#[test]
fn the_rtl_is_the_model_in_every_cycle() {
    for (build, cycles, seeds) in [(Build::Fast, 100_000, 0..4), (Build::Inspect, 10_000, 4..6)] {
        for width in WIDTHS {
            for seed in seeds.clone() {
                let Some(mut rtl) = rtl(build, width, seed as u32) else { return };
                let seen = lockstep(&mut rtl, width, seed, cycles)
                    .unwrap_or_else(|difference| panic!("{build:?}, {width:?}: {difference}"));
                let least = cycles / 10_000;
                assert!(seen.keys >= 200 * least && seen.missing >= 100 * least, "{seen:?}");
                assert!(seen.loads >= 10 * least && seen.clears >= least, "{seen:?}");
                assert!(seen.full >= 10 * least && seen.clears_of_waiting >= 1, "{seen:?}");
            }
        }
    }
}

/// Keys a second are results a cycle times the clock. 200 million of 256 bits take two blocks a cycle.
#[test]
fn keys_come_out_at_the_rate_of_blocks() {
    const CYCLES: u64 = 10_000;
    const CLOCK_HZ: f64 = 322_265_625.0;
    // (width, version, results in as many cycles, millions a second that it reaches)
    for (width, version, expected, least) in [
        (BlocksPerCycle::One, Version::AesGcm128, CYCLES, 322.0),
        (BlocksPerCycle::One, Version::AesGcm256, CYCLES / 2, 161.0),
        (BlocksPerCycle::Two, Version::AesGcm128, CYCLES, 322.0),
        (BlocksPerCycle::Two, Version::AesGcm256, CYCLES, 322.0),
    ] {
        let Some(mut rtl) = rtl(Build::Fast, width, 0) else { return };
        load_both(&mut rtl);
        let mut keys = 0;
        for cycle in 0..CYCLES + 100 {
            let request = Request { spi: cycle as u32, version, tag: 0 };
            let outputs = rtl.step(Inputs { request: Some(&request), ..QUIET });
            keys += u64::from(cycle >= 100 && outputs.result.is_some_and(|result| result.key.is_some()));
        }
        let per_second = keys as f64 / CYCLES as f64 * CLOCK_HZ;
        println!("{width:?}, {version:?}: {keys} keys in {CYCLES} cycles, {:.0} million/s", per_second / 1e6);
        assert_eq!(keys, expected, "{width:?}, {version:?}");
        assert!(per_second >= least * 1e6, "{per_second}");
    }
}

/// A clear that hits a load, in every cycle of it: no key is valid behind it, and a load works again.
#[test]
fn a_clear_in_any_cycle_of_a_load_leaves_no_key() {
    let Some(mut rtl) = rtl(Build::Fast, BlocksPerCycle::One, 0) else { return };
    for after in 0..=70_u64 {
        let load = Load { index: true, key: octets(DEVICE_KEYS[1]) };
        assert!(rtl.step(Inputs { load: Some(&load), clear: after == 0, ..QUIET }).load_ready);
        for cycle in 1..=after {
            rtl.step(Inputs { clear: cycle == after, ..QUIET });
        }
        for _ in 0..clear_cycles(results(BlocksPerCycle::One)) {
            let outputs = rtl.step(QUIET);
            assert_eq!((outputs.device_key_valid, outputs.request_ready), ([false; 2], false));
        }
        let request = Request { spi: 1 << 31, version: Version::AesGcm128, tag: 3 };
        let outputs = rtl.step(Inputs { request: Some(&request), ..QUIET });
        assert!(outputs.request_ready && outputs.drained && outputs.device_key_valid == [false; 2]);
        let result = (0..200).find_map(|_| rtl.step(QUIET).result);
        assert_eq!(result, Some(KeyResult { tag: 3, key: None }), "a clear {after} cycles behind a load");
    }
    load_both(&mut rtl);
}

#[test]
fn every_fault_is_caught() {
    const CYCLES: u64 = 20_000;
    let width = BlocksPerCycle::One;
    let Some(mut rtl) = rtl(Build::Inspect, width, 0) else { return };
    let mutants: Vec<_> = MUTANTS.iter().filter(|mutant| mutant.unit == "psp_kdf").collect();
    assert!(mutants.len() >= 8);
    let missed: Vec<&str> = mutants
        .iter()
        .filter(|mutant| {
            rtl.select_mutant(Some(mutant)).expect("the inspect build has the mutants");
            let caught = lockstep(&mut rtl, width, 0, CYCLES);
            println!("{}: {}", mutant.name, caught.as_ref().err().map_or("MISSED", String::as_str));
            caught.is_ok()
        })
        .map(|mutant| mutant.name)
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}
