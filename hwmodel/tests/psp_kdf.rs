//! The two faces of `psp_kdf` are one unit: its closed form and its clocked shell agree in every cycle, under
//! random requests, stalls of the consumer, loads and clears of device keys.

use cryptonic_crypto::DeviceKey;
use cryptonic_hwmodel::psp_kdf::{
    BlocksPerCycle, Inputs, KeyResult, KeyTiming, LOAD_CYCLES, Load, Outputs, PspKdfShell, PspKdfTiming,
    Request, clear_cycles,
};
use cryptonic_wire::psp::Version;
use proptest::collection::vec;
use proptest::prelude::*;
use zeroize::Zeroizing;

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

/// Left-aligned, zeros behind.
fn octets(hex: &str) -> [u8; 32] {
    let mut octets = [0; 32];
    for (index, octet) in octets.iter_mut().enumerate().take(hex.len() / 2) {
        *octet = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("hex digits");
    }
    octets
}

const QUIET: Inputs<'static> = Inputs { clear: false, load: None, request: None, result_ready: true };

/// Steps until a result is taken; gives it.
fn next_result(shell: &mut PspKdfShell) -> KeyResult {
    (0..200).find_map(|_| shell.step(QUIET).result).expect("a result within 200 cycles")
}

#[test]
fn the_printed_keys_come_out_of_the_printed_device_keys() {
    for width in [BlocksPerCycle::One, BlocksPerCycle::Two] {
        let mut shell = PspKdfShell::new(64, width);
        for (index, key) in [false, true].into_iter().zip(DEVICE_KEYS) {
            assert!(
                shell
                    .step(Inputs { load: Some(&Load { index, key: Zeroizing::new(octets(key)) }), ..QUIET })
                    .load_ready
            );
            while !shell.drained() {
                shell.step(QUIET);
            }
        }
        for (tag, (spi, version, key)) in (0..).zip(DERIVED) {
            let request = Request { spi, version, tag };
            assert!(shell.step(Inputs { request: Some(&request), ..QUIET }).request_ready);
            assert_eq!(
                next_result(&mut shell).key,
                Some(Zeroizing::new(octets(key))),
                "{width:?}, {spi:08x}, {version:?}"
            );
        }
    }
}

/// A cycle of what is offered: chances in 64ths.
#[derive(Clone, Debug)]
struct Plan {
    width: BlocksPerCycle,
    results: u64,
    /// For each request: cycles after the one before, SPI, version.
    requests: Vec<(u64, u32, u8)>,
    /// For each load or clear: cycles after the one before, and the load's index and key.
    keys: Vec<(u64, Option<(bool, u8)>)>,
    stalls: Vec<bool>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let width = prop_oneof![Just(BlocksPerCycle::One), Just(BlocksPerCycle::Two)];
    let requests = (0_u64..4).prop_flat_map(|idle| vec((0..=idle, any::<u32>(), 0_u8..4), 1..300));
    let load = (any::<bool>(), any::<u8>());
    let gap = prop_oneof![3 => 0_u64..150, 1 => 0_u64..3];
    let keys = vec((gap, prop_oneof![4 => load.prop_map(Some), 1 => Just(None)]), 0..8);
    (width, 1_u32..8, requests, keys, vec(any::<bool>(), 1..64)).prop_map(
        |(width, results_log2, requests, keys, stalls)| Plan {
            width,
            results: 1 << results_log2,
            requests,
            keys,
            stalls,
        },
    )
}

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Passed {
    entry: u64,
    shown: u64,
    taken: u64,
    result: KeyResult,
}

/// The shell, cycle by cycle: what it did with requests, and the cycles in which loads were taken.
fn run_shell(plan: &Plan) -> (Vec<Passed>, Vec<u64>) {
    let mut shell = PspKdfShell::new(plan.results, plan.width);
    let (mut entries, mut passed, mut loads) = (vec![], vec![], vec![]);
    let mut requests = offered(plan).into_iter().peekable();
    let mut keys = key_events(plan).into_iter().peekable();
    let mut showing = None;
    for cycle in 0..200_000 {
        let request = requests.peek().filter(|(there, _)| *there <= cycle).map(|(_, request)| *request);
        let key = keys.peek().filter(|(there, _)| *there <= cycle).cloned();
        let load = key.as_ref().and_then(|(_, load)| load.clone());
        let clear = key.is_some() && load.is_none();
        let result_ready = consumer_ready(plan, cycle);
        let inputs = Inputs { clear, load: load.as_ref(), request: request.as_ref(), result_ready };
        let Outputs { load_ready, request_ready, result, .. } = shell.step(inputs);
        if clear || (load.is_some() && load_ready) {
            loads.push(cycle);
            keys.next();
        }
        if request.is_some() && request_ready {
            entries.push(cycle);
            requests.next();
        }
        if let Some(result) = result {
            let shown = *showing.get_or_insert(cycle);
            if result_ready {
                passed.push(Passed { entry: entries[passed.len()], shown, taken: cycle, result });
                showing = None;
            }
        }
        if requests.peek().is_none() && keys.peek().is_none() && shell.drained() {
            return (passed, loads);
        }
    }
    panic!("the shell hangs");
}

fn consumer_ready(plan: &Plan, cycle: u64) -> bool {
    !plan.stalls[cycle as usize % plan.stalls.len()] || cycle % 64 == 63
}

fn offered(plan: &Plan) -> Vec<(u64, Request)> {
    let mut time = 0;
    let numbered = plan.requests.iter().enumerate();
    numbered
        .map(|(index, &(gap, spi, version))| {
            time += gap;
            let version = Version::from_code(version).expect("four versions");
            (time, Request { spi, version, tag: index as u8 })
        })
        .collect()
}

/// Loads, and `None` for clears, from when they are there on.
fn key_events(plan: &Plan) -> Vec<(u64, Option<Load>)> {
    let mut time = 0;
    plan.keys
        .iter()
        .map(|(gap, load)| {
            time += gap;
            (time, load.map(|(index, fill)| Load { index, key: Zeroizing::new([fill; 32]) }))
        })
        .collect()
}

/// The closed form of the same.
fn run_closed_form(plan: &Plan) -> (Vec<Passed>, Vec<u64>) {
    // Offers are in turn: one is there when it is, and when the one before was taken.
    let (mut key_timing, mut keys_taken, mut next) = (KeyTiming::default(), vec![], 0);
    let events = key_events(plan);
    for (there, load) in &events {
        let offered = next.max(*there);
        let cycle = if load.is_some() {
            key_timing.load(offered)
        } else {
            key_timing.clear(offered, plan.results);
            offered
        };
        keys_taken.push(cycle);
        next = cycle + 1;
    }
    // The device key with this index that is valid in a cycle.
    let valid = |index: bool, cycle: u64| {
        let mut valid = None;
        for (&taken, (_, event)) in keys_taken.iter().zip(&events) {
            match event {
                _ if taken >= cycle => break,
                None => valid = None,
                Some(load) if load.index == index => {
                    let cleared = |(&clear, (_, event)): (&u64, &(u64, Option<Load>))| {
                        event.is_none() && (taken..taken + LOAD_CYCLES).contains(&clear)
                    };
                    let whole = taken + LOAD_CYCLES <= cycle && !keys_taken.iter().zip(&events).any(cleared);
                    valid = whole.then(|| load.key.clone());
                }
                Some(_) => {}
            }
        }
        valid
    };
    let cleared_while_pending = |entry: u64, taken: u64| {
        let mut clears = keys_taken.iter().zip(&events).filter(|(_, (_, event))| event.is_none());
        clears.any(|(clear, _)| (entry..taken).contains(clear))
    };

    let mut timing = PspKdfTiming::new(plan.results, plan.width);
    let (mut passed, mut last_taken) = (vec![], None);
    for (there, request) in offered(plan) {
        let passage = timing.pass(there, request.version, &key_timing);
        let shown = last_taken.map_or(passage.result, |taken: u64| passage.result.max(taken + 1));
        let taken = (shown..).find(|cycle| consumer_ready(plan, *cycle)).expect("one in 64 cycles");
        timing.take(taken);
        last_taken = Some(taken);
        let device_key = valid(request.spi >> 31 == 1, passage.entry)
            .filter(|_| !cleared_while_pending(passage.entry, taken));
        let key = device_key.map(|device_key| {
            let mut key = Zeroizing::new([0; 32]);
            DeviceKey::new(&device_key).derive(request.version, request.spi, &mut key);
            key
        });
        passed.push(Passed {
            entry: passage.entry,
            shown,
            taken,
            result: KeyResult { tag: request.tag, key },
        });
    }
    (passed, keys_taken)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn shell_and_closed_form_agree(plan in plan()) {
        let (shell, loads) = run_shell(&plan);
        let (closed_form, expected_loads) = run_closed_form(&plan);
        prop_assert_eq!(loads, expected_loads);
        prop_assert_eq!(shell.len(), closed_form.len());
        for (index, (shell, closed_form)) in shell.iter().zip(&closed_form).enumerate() {
            prop_assert_eq!(shell, closed_form, "request {}", index);
        }
    }
}

/// The plans reach what they are to reach: a result that a clear makes missing where it stands.
#[test]
fn a_clear_takes_the_key_out_of_a_result_that_waits_at_the_output() {
    let stalled = Inputs { result_ready: false, ..QUIET };
    let mut shell = PspKdfShell::new(4, BlocksPerCycle::One);
    shell.step(Inputs { load: Some(&Load { index: true, key: Zeroizing::new([7; 32]) }), ..stalled });
    while !shell.drained() {
        shell.step(stalled);
    }
    let request = Request { spi: 1 << 31, version: Version::AesGcm128, tag: 9 };
    shell.step(Inputs { request: Some(&request), ..stalled });
    for _ in 0..40 {
        shell.step(stalled);
    }
    let at_clear = shell.step(Inputs { clear: true, ..stalled });
    assert!(at_clear.result.is_some_and(|result| result.key.is_some()));
    for _ in 0..clear_cycles(4) {
        let Outputs { device_key_valid, load_ready, request_ready, result, .. } = shell.step(stalled);
        assert_eq!((device_key_valid, load_ready, request_ready), ([false; 2], false, false));
        assert_eq!(result, Some(KeyResult { tag: 9, key: None }));
    }
    assert!(shell.step(QUIET).request_ready);
    assert!(shell.drained());
}
