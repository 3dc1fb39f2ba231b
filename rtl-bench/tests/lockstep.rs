//! Lockstep: the RTL of `rx_parse` is the model's clocked shell in every output of every cycle. And the bench itself: it
//! finds a fault in a shell, makes it small, and reaches everything that it says it reaches.

mod common;

use cryptonic_hwmodel::rx_parse::{Beat, Outputs, RxParseShell};
use cryptonic_regs::Status;
use cryptonic_rtl_bench::campaign::{self, Failure, Outcome};
use cryptonic_rtl_bench::coverage::Coverage;
use cryptonic_rtl_bench::lockstep::{self, Unit, What};
use cryptonic_rtl_bench::reproduction;
use cryptonic_rtl_bench::rx_parse::{RESULTS, RxParseRtl};
use cryptonic_rtl_bench::stimulus::{ALL_EXPECTED, Case, Pattern, Segment, Style};
use cryptonic_rtl_bench::{Build, mutation, report, sizes, wave};
use cryptonic_wire::packet::Expected;

const STYLE: Style = Style { seed: 1, stalls: Pattern::Mixed, gaps: Pattern::Mixed };
/// Enough for every bin of the coverage, with this seed.
const PACKETS: u64 = 120_000;
/// Packets that a mutant may see before it must be caught.
const MUTANT_PACKETS: u64 = 100_000;

/// The RTL, or nothing where there is none and none is required.
fn rtl(build: Build) -> Option<RxParseRtl> {
    RxParseRtl::new(build, &ALL_EXPECTED).map_err(common::skip).ok()
}

/// A fault that a shell can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The flow label loses its highest bit.
    FlowLabel,
    /// The octets of the numbers past the frame's end are not zero.
    NumbersPastEnd,
    /// Out of credit it takes one packet more.
    Credit,
    /// A result that waits is lost when the next one comes.
    LostResult,
    /// A packet that follows a fragment at once is called ok.
    StickyState,
    /// It is never drained once it has seen PSP.
    NeverDrained,
    /// It says itself that something is wrong.
    Assertion,
}

/// The shell with a fault, as something to be held against the shell.
struct FaultyShell {
    shell: RxParseShell,
    fault: Fault,
    was_drained: bool,
    tainted: bool,
    packets: usize,
}

impl FaultyShell {
    fn new(fault: Fault) -> Self {
        let results = if fault == Fault::Credit { RESULTS + 1 } else { RESULTS };
        let shell = RxParseShell::new(results, ALL_EXPECTED);
        FaultyShell { shell, fault, was_drained: true, tainted: false, packets: 0 }
    }
}

impl Unit for FaultyShell {
    fn configure(&mut self, expected: &Expected) {
        let results = if self.fault == Fault::Credit { RESULTS + 1 } else { RESULTS };
        self.shell = RxParseShell::new(results, *expected);
    }

    fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        self.was_drained = self.shell.drained() && !(self.fault == Fault::NeverDrained && self.tainted);
        let mut outputs = self.shell.step(offered, consumer_ready);
        self.packets += usize::from(outputs.ready && offered.is_some_and(|beat| beat.last));
        let after_fragment = self.tainted;
        match (&mut outputs.result, self.fault) {
            (Some(Ok(headers)), Fault::FlowLabel) => headers.parsed.plain.flow_label &= 0x7_ffff,
            (Some(Ok(headers)), Fault::NumbersPastEnd)
                if headers.parsed.numbers_offset != 0 && headers.numbers[14..] == [0, 0] =>
            {
                headers.numbers[15] = 0xa5;
            }
            (Some(Ok(headers)), Fault::NeverDrained) => self.tainted |= headers.parsed.psp_flags != 0,
            (Some(result), Fault::StickyState) => {
                self.tainted = *result == Err(Status::Fragment);
                if after_fragment && result.is_err() && !self.tainted {
                    *result = Err(Status::Fragment);
                }
            }
            (result @ Some(_), Fault::LostResult) if !consumer_ready && self.packets > 1 => *result = None,
            _ => {}
        }
        outputs
    }

    fn was_drained(&self) -> bool {
        self.was_drained
    }

    fn failure(&self) -> Option<String> {
        (self.fault == Fault::Assertion && self.packets > 300).then(|| "more than 300 packets".to_owned())
    }
}

fn failure_of(fault: Fault, packets: u64) -> Option<Failure> {
    campaign::run(&mut FaultyShell::new(fault), &STYLE, packets, |_| true).failure
}

#[test]
fn the_shell_is_itself() {
    let outcome = campaign::run(&mut FaultyShell::new(Fault::None), &STYLE, 5_000, |_| true);
    assert!(outcome.failure.is_none());
    assert_eq!(outcome.packets, 5_000);
}

#[test]
fn a_faulty_shell_is_caught_and_told_of() {
    let rows = [
        (Fault::FlowLabel, What::Result),
        (Fault::NumbersPastEnd, What::Result),
        (Fault::Credit, What::Ready),
        (Fault::LostResult, What::Valid),
        (Fault::StickyState, What::Result),
        (Fault::NeverDrained, What::Drained),
        (Fault::Assertion, What::Assertion),
    ];
    for (fault, what) in rows {
        let failure = failure_of(fault, 20_000).unwrap_or_else(|| panic!("{fault:?} goes unseen"));
        assert_eq!(failure.difference.what, what, "{fault:?}");
        let text = report::difference(&failure.difference, &failure.case);
        assert!(text.contains(&format!("{} differs", what.name())), "{fault:?}: {text}");
        let frame = &failure.case.offers[failure.difference.packet].frame;
        let first: String = frame.iter().take(8).map(|octet| format!(" {octet:02x}")).collect();
        assert!(text.contains(&first), "{fault:?}: {text}");
    }
    let failure = failure_of(Fault::FlowLabel, 20_000).expect("it is caught");
    let text = report::difference(&failure.difference, &failure.case);
    let marked: Vec<&str> = text.lines().filter(|line| line.starts_with('*')).collect();
    assert!(matches!(marked[..], [line] if line.starts_with("* flow_label")), "{text}");
}

#[test]
fn a_failure_becomes_its_smallest_case() {
    for (fault, packets, most_octets) in [
        // Ethernet, and IPv6 with one bit of the flow label.
        (Fault::FlowLabel, 1, 54),
        // A fragment in IPv6, whose header and fragment header it takes, and a frame too short for an Ethernet header.
        (Fault::StickyState, 2, 63),
        // Ethernet, IPv6 and a security header of eight octets.
        (Fault::NumbersPastEnd, 1, 62),
    ] {
        let failure = failure_of(fault, 20_000).expect("it is caught");
        let shrunk =
            campaign::smallest(&failure, || Some(FaultyShell::new(fault))).expect("it is reproduced");
        let found: usize = shrunk.case.offers.iter().map(|offer| offer.frame.len()).sum();
        assert_eq!(shrunk.case.offers.len(), packets, "{fault:?}: {:?}", shrunk.case);
        assert!(found <= most_octets, "{fault:?}: {:?}", shrunk.case);
        assert!(shrunk.case.stalls.is_empty(), "{fault:?}: {:?}", shrunk.case);
        // What is printed runs again.
        let again = campaign::run_case(&mut FaultyShell::new(fault), &shrunk.case);
        assert_eq!(again.failure.expect("it differs").difference.what, shrunk.difference.what);
        assert!(reproduction::options(&shrunk.case).starts_with("--packet "));
    }
    let failure = failure_of(Fault::Credit, 20_000).expect("it is caught");
    let shrunk =
        campaign::smallest(&failure, || Some(FaultyShell::new(Fault::Credit))).expect("it is reproduced");
    // A packet for each place, behind a consumer that stalls: the shell is ready then for one more, which need not come.
    assert_eq!(shrunk.difference.what, What::Ready);
    assert_eq!(shrunk.case.offers.len() as u64, RESULTS);
    assert!(shrunk.case.offers.iter().all(|offer| offer.frame == [0] && offer.gaps.is_empty()));
    assert_eq!(shrunk.case.stalls.len(), 2, "{:?}", shrunk.case.stalls);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let style = Style { seed, ..STYLE };
        let outcome = campaign::run(&mut FaultyShell::new(Fault::None), &style, 2_000, |_| true);
        (outcome.cycles, outcome.coverage.verdict_counts())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// The floor: every verdict, and every bin of every group.
#[test]
fn random_packets_reach_every_bin() {
    let outcome = campaign::run(&mut FaultyShell::new(Fault::None), &STYLE, PACKETS, |_| true);
    assert_covered(&outcome.coverage);
}

fn assert_covered(coverage: &Coverage) {
    let (reached, verdicts) = coverage.verdicts();
    assert_eq!(reached, verdicts, "{:?}", coverage.verdict_counts());
    let missing: Vec<_> = coverage.rows().into_iter().filter(|row| row.hit < row.total).collect();
    assert!(missing.is_empty(), "{}", coverage.table());
}

fn assert_same(outcome: &Outcome) {
    if let Some(failure) = &outcome.failure {
        let text = report::difference(&failure.difference, &failure.case);
        panic!("seed {}, segment {}\n{text}", STYLE.seed, failure.segment);
    }
}

#[test]
fn rtl_is_the_model_in_every_cycle() {
    let Some(mut rtl) = rtl(Build::Fast) else { return };
    let outcome = campaign::run(&mut rtl, &STYLE, PACKETS, |_| true);
    assert_same(&outcome);
    assert_eq!(outcome.packets, PACKETS);
    assert_covered(&outcome.coverage);
}

/// With assertions, and registers without reset at any value.
#[test]
fn the_inspect_build_is_the_model_too() {
    for seed in [1, 2] {
        let Some(_) = rtl(Build::Inspect) else { return };
        let mut rtl = RxParseRtl::with_seed(Build::Inspect, &ALL_EXPECTED, seed).expect("there is RTL");
        let style = Style { seed: seed.into(), ..STYLE };
        assert_same(&campaign::run(&mut rtl, &style, 3_000, |_| true));
    }
}

#[test]
fn every_mutant_is_caught() {
    let Some(_) = rtl(Build::Inspect) else { return };
    let hunts: Vec<_> = mutation::mutants()
        .map(|mutant| mutation::hunt(mutant, &STYLE, MUTANT_PACKETS).expect("there is RTL"))
        .collect();
    assert!(hunts.len() >= 30, "{} mutants", hunts.len());
    for hunt in &hunts {
        match &hunt.caught {
            Some(caught) => println!(
                "{}: {} in packet {}, cycle {}",
                hunt.mutant.name,
                caught.what.name(),
                caught.packet,
                caught.cycle
            ),
            None => println!("{}: not caught in {} packets", hunt.mutant.name, hunt.packets),
        }
    }
    let missed: Vec<_> =
        hunts.iter().filter(|hunt| hunt.caught.is_none()).map(|hunt| hunt.mutant.name).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn a_mutant_becomes_its_smallest_case() {
    let Some(_) = rtl(Build::Inspect) else { return };
    let mutant = mutation::mutants().find(|mutant| mutant.name == "checksum_carry_is_lost").expect("a row");
    let shrunk =
        mutation::smallest(mutant, &STYLE, MUTANT_PACKETS).expect("there is RTL").expect("it is caught");
    let [offer] = &shrunk.case.offers[..] else { panic!("one packet is enough: {:?}", shrunk.case) };
    // Ethernet and an IPv4 header: what a checksum takes.
    assert_eq!(offer.frame.len(), 34, "{:?}", shrunk.case);
    assert!(shrunk.case.stalls.is_empty() && offer.gaps.is_empty(), "{:?}", shrunk.case);
}

#[test]
fn a_waveform_shows_the_difference() {
    let Some(mut rtl) = rtl(Build::Inspect) else { return };
    let mutant = mutation::mutants().find(|mutant| mutant.name == "packet_without_a_place").expect("a row");
    rtl.select_mutant(Some(mutant)).expect("the inspect build has mutants");
    let failure = campaign::run(&mut rtl, &STYLE, MUTANT_PACKETS, |_| true).failure.expect("it is caught");
    rtl.select_mutant(Some(mutant)).expect("the inspect build has mutants");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("difference.vcd");
    let segment = Segment::of_case(&failure.case);
    let from = failure.difference.cycle - 20;
    let difference = wave::record(&mut rtl, &segment, from, &path).expect("the file can be made");
    assert_eq!(difference.expect("it differs again").cycle, failure.difference.cycle);
    let text = std::fs::read_to_string(&path).expect("it was written");
    let times: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix('#')?.parse().ok()).collect();
    let cycles = (times.last().expect("it has times") - times[0]).div_ceil(1000);
    assert_eq!(cycles, 20 + 1 + 8, "from 20 cycles before the difference to 8 behind it");
}

#[test]
fn the_bus_takes_one_packet_a_beat() {
    let Some(mut rtl) = rtl(Build::Fast) else { return };
    for octets in [1, 60, 64, 65, 128, 129, 1514] {
        let row = sizes::measure(&mut rtl, octets).expect("packets pass");
        assert_eq!(row.cycles_per_packet, octets.div_ceil(64) as f64, "{octets} octets");
    }
}

#[test]
fn a_case_of_one_packet_runs_by_itself() {
    let Some(mut rtl) = rtl(Build::Fast) else { return };
    let frame = reproduction::parse_packet("02:02:02:02:02:02 02:02:02:02:02:02 88b5").expect("hexadecimal");
    let offers = reproduction::offers(vec![frame.clone(), frame], &[3]);
    let outcome = campaign::run_case(&mut rtl, &Case { expected: ALL_EXPECTED, offers, stalls: vec![9, 1] });
    assert!(outcome.failure.is_none());
    assert_eq!(outcome.packets, 2);
    let _ = lockstep::run_alone(&mut rtl, &Segment::of_case(&Case::default()), 1);
}
