//! `rx_geometry` in lockstep: the RTL and the model's clocked shell show the same in every cycle, whatever they are asked,
//! and every fault of mutants.toml is caught.

mod common;

use std::collections::BTreeMap;

use cryptonic_hwmodel::rx_geometry::{
    Answer, LATENCY_CYCLES, Outputs, Request, RxGeometryShell, Sa, Window, answer,
};
use cryptonic_regs::Status;
use cryptonic_rtl_bench::rx_geometry::{RESULTS, RxGeometryRtl};
use cryptonic_rtl_bench::rx_geometry_requests::Requests;
use cryptonic_rtl_bench::{Build, MUTANTS, availability};
use cryptonic_wire::esp::Cipher;
use cryptonic_wire::{IcvLength, Protocol};

/// The unit, or nothing where there is no RTL and none is required.
fn rtl(build: Build, seed: u32) -> Option<RxGeometryRtl> {
    let rtl = RxGeometryRtl::new(build, seed);
    assert_eq!(rtl.as_ref().err(), availability().as_ref().err(), "one reason for all");
    rtl.map_err(common::skip).ok()
}

/// When requests are there and answers are taken.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    /// Of 16 cycles, in how many a request is there.
    offers: u64,
    /// Of 16 cycles, in how many the consumer is ready.
    takes: u64,
    /// For how many cycles on end the consumer is not ready at all, every 1024 cycles.
    stall: u64,
}

const PATTERNS: [Pattern; 6] = [
    Pattern { offers: 16, takes: 16, stall: 0 },
    Pattern { offers: 16, takes: 8, stall: 0 },
    Pattern { offers: 7, takes: 16, stall: 0 },
    Pattern { offers: 9, takes: 9, stall: 0 },
    Pattern { offers: 16, takes: 16, stall: 200 },
    Pattern { offers: 2, takes: 3, stall: 0 },
];

/// What a run came by.
#[derive(Debug, Default)]
struct Coverage {
    /// Protocol and verdict.
    answers: BTreeMap<(u8, &'static str), u64>,
    /// Where an inferred sequence number lies.
    inferred: BTreeMap<&'static str, u64>,
    full_cycles: u64,
    drained_cycles: u64,
}

impl Coverage {
    fn count(&mut self, request: &Request, answer: &Answer) {
        let verdict = answer.as_ref().map_or_else(|status| status.name(), |_| "ok");
        *self.answers.entry((request.protocol as u8, verdict)).or_default() += 1;
        if let (Sa::Esp { extended_sequence: Some(window), .. }, Protocol::Esp) =
            (request.sa, request.protocol)
        {
            *self.inferred.entry(place_of(request, window, answer)).or_default() += 1;
        }
    }
}

fn place_of(request: &Request, window: Window, answer: &Answer) -> &'static str {
    let low = u32::from_be_bytes([0, 1, 2, 3].map(|octet| request.numbers[octet]));
    let (top, last_epoch) = (window.top, window.top >> 32 == 0xffff_ffff);
    match answer {
        Ok(ranges) if ranges.sequence >> 32 > top >> 32 => "next epoch",
        Ok(ranges) if ranges.sequence >> 32 < top >> 32 => "epoch before",
        Ok(ranges) if ranges.sequence > top => "ahead",
        Ok(ranges) if ranges.sequence < top => "behind",
        Ok(_) => "top",
        Err(Status::BadSequence) if low == 0 && top >> 32 == 0 => "zero",
        Err(Status::BadSequence) if last_epoch => "behind the last epoch",
        Err(Status::BadSequence) => "before the first epoch",
        Err(_) => "elsewhere wrong",
    }
}

/// The first cycle in which RTL and shell differ.
struct Difference {
    cycle: u64,
    rtl: Outputs,
    model: Outputs,
    asked: Option<Request>,
    assertion: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { cycle, rtl, model, asked, assertion } = self;
        writeln!(f, "cycle {cycle}, assertion {assertion:?}, asked {asked:#x?}")?;
        writeln!(f, "RTL   {rtl:x?}\nmodel {model:x?}")
    }
}

/// Drives both with the same requests and stalls until both are drained.
fn lockstep(
    rtl: &mut RxGeometryRtl,
    seed: u64,
    count: u64,
    pattern: Pattern,
    coverage: &mut Coverage,
) -> Result<(), Box<Difference>> {
    let mut requests = Requests::new(seed);
    let mut chance = Requests::new(!seed);
    let mut shell = RxGeometryShell::new(RESULTS);
    let mut next = requests.request();
    let mut entered = 0;
    let mut waiting = std::collections::VecDeque::new();
    for cycle in 0.. {
        let offers = entered < count && chance.number() % 16 < pattern.offers;
        let takes = chance.number() % 16 < pattern.takes && cycle % 1024 >= pattern.stall;
        let offered = offers.then_some(&next);
        let (by_rtl, by_model) = (rtl.step(offered, takes), shell.step(offered, takes));
        let assertion = rtl.failed_assertion();
        if by_rtl != by_model || assertion.is_some() {
            let asked = waiting.front().copied().or(offered.copied());
            return Err(Box::new(Difference { cycle, rtl: by_rtl, model: by_model, asked, assertion }));
        }
        coverage.full_cycles += u64::from(!by_rtl.ready);
        coverage.drained_cycles += u64::from(by_rtl.drained);
        if offers && by_rtl.ready {
            waiting.push_back(next);
            next = requests.request();
            entered += 1;
        }
        if takes && let Some(answer) = by_rtl.answer {
            let request = waiting.pop_front().expect("an answer has its request");
            coverage.count(&request, &answer);
        }
        if entered == count && by_rtl.drained && waiting.is_empty() {
            return Ok(());
        }
        assert!(cycle < 100 * count + 10_000, "the unit does not drain");
    }
    Ok(())
}

/// What requests must come by, a hundred times at least.
const REACHED: [(Protocol, &[&str]); 6] = [
    (Protocol::Other, &["no_sa"]),
    (Protocol::Esp, &["ok", "no_sa", "bad_sequence", "truncated_esp"]),
    (Protocol::Psp, &["ok", "no_sa", "truncated_psp", "psp_bad_header_length", "psp_crypt_offset_past_end"]),
    (Protocol::NatKeepalive, &["no_sa"]),
    (
        Protocol::Wespv2,
        &[
            "ok",
            "no_sa",
            "bad_sequence",
            "wesp_header_length_mismatch",
            "truncated_esp",
            "crypt_offset_past_end",
        ],
    ),
    (
        Protocol::Eesp,
        &[
            "ok",
            "no_sa",
            "bad_sequence",
            "eesp_session_id",
            "crypt_offset_not_allowed",
            "eesp_payload_offset",
            "truncated_eesp",
            "crypt_offset_past_end",
        ],
    ),
];

const PLACES: [&str; 9] = [
    "next epoch",
    "epoch before",
    "ahead",
    "behind",
    "top",
    "zero",
    "behind the last epoch",
    "before the first epoch",
    "elsewhere wrong",
];

#[test]
fn rtl_and_shell_show_the_same_in_every_cycle() {
    let long = std::env::var_os("CRYPTONIC_LONG").is_some();
    let count = if long { 2_000_000 } else { 40_000 };
    let mut coverage = Coverage::default();
    for (index, pattern) in PATTERNS.into_iter().enumerate() {
        let Some(mut rtl) = rtl(Build::Fast, index as u32) else { return };
        lockstep(&mut rtl, index as u64, count, pattern, &mut coverage)
            .unwrap_or_else(|difference| panic!("{pattern:?}: {difference}"));
    }
    let mut expected = 0;
    for (protocol, verdicts) in REACHED {
        for verdict in verdicts {
            let reached = coverage.answers.get(&(protocol as u8, verdict)).copied().unwrap_or(0);
            assert!(reached >= 100, "{protocol:?} {verdict}: {coverage:#?}");
            expected += 1;
        }
    }
    assert_eq!(coverage.answers.len(), expected, "verdicts that no rule has: {coverage:#?}");
    for place in PLACES {
        assert!(coverage.inferred.get(place).is_some_and(|count| *count >= 100), "{place}: {coverage:#?}");
    }
    assert!(coverage.full_cycles > 1000 && coverage.drained_cycles > 1000, "{coverage:#?}");
}

/// The inspect build begins with registers at any value and judges its assertions.
#[test]
fn whatever_registers_begin_with_does_not_matter() {
    for seed in 0..8 {
        let Some(mut rtl) = rtl(Build::Inspect, seed) else { return };
        let pattern = PATTERNS[seed as usize % PATTERNS.len()];
        lockstep(&mut rtl, u64::from(seed) + 100, 2_000, pattern, &mut Coverage::default())
            .unwrap_or_else(|difference| panic!("{pattern:?}: {difference}"));
    }
}

/// The latency as the wires have it, and a request a cycle.
#[test]
fn answers_come_a_fixed_number_of_cycles_later_one_a_cycle() {
    let Some(mut rtl) = rtl(Build::Fast, 0) else { return };
    let request = Requests::new(5).request();
    for cycle in 0..LATENCY_CYCLES + 20 {
        let outputs = rtl.step((cycle < 20).then_some(&request), true);
        assert!(cycle >= 20 || outputs.ready, "cycle {cycle}");
        assert_eq!(outputs.answer.is_some(), cycle >= LATENCY_CYCLES, "cycle {cycle}");
    }
    assert!(rtl.step(None, true).drained);
}

/// Rows of `tests/vectors/esn-inference.json`: top, low half, window; the number, or nothing.
fn rows() -> Vec<(Window, u32, Option<u64>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/esn-inference.json");
    let text = std::fs::read_to_string(path).expect("the vectors");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = |value: &serde_json::Value| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    let row = |row: &serde_json::Value| {
        let top = number(&row["top_t"]).expect("a number");
        let size = row["window"].as_u64().expect("a number") as u32;
        let low = number(&row["seq_lo"]).expect("a number") as u32;
        let refused = row["verdict"].as_str().expect("a verdict").starts_with("reject_");
        (Window { top, size }, low, number(&row["seq64"]).filter(|_| !refused))
    };
    all["vectors"].as_array().expect("rows").iter().map(row).collect()
}

#[test]
fn the_directed_cases_of_inference_come_out_of_the_rtl() {
    let Some(mut rtl) = rtl(Build::Fast, 0) else { return };
    let rows = rows();
    assert_eq!(rows.len(), 90);
    let request = |window, low: u32| Request {
        protocol: Protocol::Esp,
        security_offset: 34,
        numbers_offset: 38,
        header_octets: 8,
        crypt_offset: 0,
        payload_offset: None,
        session_id: 0,
        psp_flags: 0,
        l3_end: 100,
        numbers: (u128::from(low) << 96 | 0x1122_3344_5566_7788 << 32).to_be_bytes(),
        sa: Sa::Esp {
            cipher: Cipher::GcmImplicitIv,
            icv_length: IcvLength::Octets16,
            extended_sequence: Some(window),
        },
    };
    let mut answers = Vec::new();
    for cycle in 0..200 {
        let offered = rows.get(cycle).map(|(window, low, _)| request(*window, *low));
        answers.extend(rtl.step(offered.as_ref(), true).answer);
    }
    assert_eq!(answers.len(), rows.len());
    for ((window, low, sequence), found) in rows.into_iter().zip(answers) {
        // With an implicit IV the IV is the number too.
        let found = found.map(|ranges| [ranges.sequence, ranges.iv]);
        let expected = sequence.map(|sequence| [sequence; 2]).ok_or(Status::BadSequence);
        assert_eq!(found, expected, "{window:x?} {low:#x}");
        assert_eq!(answer(&request(window, low)).map(|ranges| [ranges.sequence, ranges.iv]), expected);
    }
}

#[test]
fn every_mutant_is_caught() {
    let Some(mut rtl) = rtl(Build::Inspect, 1) else { return };
    let mutants: Vec<_> = MUTANTS.iter().filter(|mutant| mutant.unit == "rx_geometry").collect();
    assert!(mutants.len() >= 10, "{}", mutants.len());
    for mutant in mutants {
        rtl.select_mutant(Some(mutant)).expect("it is this unit's");
        let caught = PATTERNS.into_iter().enumerate().find_map(|(index, pattern)| {
            lockstep(&mut rtl, index as u64, 3_000, pattern, &mut Coverage::default()).err()
        });
        let caught = caught.unwrap_or_else(|| panic!("{} is not caught", mutant.name));
        println!("{:40} cycle {}", mutant.name, caught.cycle);
    }
}
