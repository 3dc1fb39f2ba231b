//! `cosim`: the RTL against the model, in lockstep.

mod report;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cryptonic_rtl_bench::campaign::{self, Outcome};
use cryptonic_rtl_bench::mutation::{self, Hunt};
use cryptonic_rtl_bench::rx_parse::RxParseRtl;
use cryptonic_rtl_bench::shrink::Shrunk;
use cryptonic_rtl_bench::sizes::{self, Row};
use cryptonic_rtl_bench::stimulus::{ALL_EXPECTED, Case, Pattern, Segment, Style};
use cryptonic_rtl_bench::{Build, Unavailable, availability, reproduction, wave};
use report::{Mutants, Report};

use crate::error::{Error, Result};
use crate::output::{self, Interrupt, Paint, ReservedPath};

/// Packets that a waveform of a run without a difference shows.
const WAVE_PACKETS: usize = 24;
/// Cycles before a difference that a waveform shows, where the difference has no smaller case.
const WAVE_CYCLES_BEFORE: u64 = 200;

/// A unit that is there as RTL and in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnitChoice {
    /// The receive parser
    RxParse,
}

/// Arguments of `cosim`.
#[derive(Debug, Args)]
pub(crate) struct CosimArguments {
    /// Packets to send through both
    #[arg(long, default_value_t = 300_000, value_name = "N")]
    packets: u64,
    /// Where chance begins; the same seed gives the same packets in the same cycles
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the consumer of the results stalls: `none`, percent of the cycles, `bursts`, `long`, `mixed` (a kind for
    /// each segment of the run), or runs of cycles, stalled and not in turn, such as 3/1. With --packet: never, if
    /// not given
    #[arg(long, value_name = "PATTERN")]
    stalls: Option<Pattern>,
    /// How beats are kept apart: as --stalls; with --packet, the idle cycles before each beat, such as 0,3,1
    #[arg(long, value_name = "PATTERN")]
    gaps: Option<String>,
    /// Which unit
    #[arg(long, value_enum, default_value = "rx-parse")]
    unit: UnitChoice,
    /// Write a waveform (VCD) of the difference, or, if there is none, of the first packets
    #[arg(long, value_name = "FILE")]
    wave: Option<PathBuf>,
    /// Put deliberate faults into the RTL, one after the other, and see each caught within --packets
    #[arg(long, conflicts_with = "packet")]
    mutants: bool,
    /// Send this packet, in hexadecimal, instead of random ones; may be given more than once
    #[arg(long, value_name = "HEX")]
    packet: Vec<String>,
    /// With --packet: what the parser looks for, such as psp=1000,esp=4500,eesp=253,eesp-in-udp=1,wespv2=141
    #[arg(long, value_name = "WHAT", requires = "packet")]
    expect: Option<String>,
    /// Measure how many packets of each size pass in a second, and nothing else
    #[arg(long, conflicts_with_all = ["packet", "mutants", "wave"])]
    sizes: bool,
}

/// What is to be run.
enum Stimulus {
    Random(Style),
    Given(Case),
}

/// Runs.
pub(crate) fn run(arguments: &CosimArguments, as_json: bool) -> Result<()> {
    let stimulus = stimulus(arguments)?;
    if arguments.packets == 0 {
        return Err(Error::at("--packets", "wants at least 1"));
    }
    let verilator = availability().map_err(unavailable)?;
    let wave = arguments.wave.as_deref().map(ReservedPath::new).transpose()?;
    if arguments.sizes {
        return run_sizes(as_json);
    }
    let UnitChoice::RxParse = arguments.unit;
    let interrupt = Interrupt::listen()?;
    let mut unit = fresh(Build::Fast)?;
    let mut outcome = match &stimulus {
        Stimulus::Random(style) => {
            let bar = output::progress(Some(arguments.packets), "packets");
            let go_on = |packets| {
                bar.set_position(packets);
                !interrupt.came()
            };
            let outcome = campaign::run(&mut unit, style, arguments.packets, go_on);
            bar.finish_and_clear();
            outcome
        }
        Stimulus::Given(case) => campaign::run_case(&mut unit, case),
    };
    let smallest = match &outcome.failure {
        Some(failure) if !interrupt.came() => campaign::smallest(failure, || fresh(Build::Fast).ok()),
        _ => None,
    };
    let alone = match &stimulus {
        Stimulus::Random(style) if outcome.failure.is_none() && !outcome.interrupted => {
            campaign::speed_alone(&mut fresh(Build::Fast)?, style)
        }
        _ => 0.0,
    };
    if let Some(wave) = wave {
        write_wave(wave, &stimulus, &outcome, smallest.as_ref())?;
    }
    let mutants = match &stimulus {
        Stimulus::Random(style) if arguments.mutants && outcome.failure.is_none() => {
            Some(hunt(style, arguments.packets, &interrupt)?)
        }
        _ => None,
    };
    outcome.interrupted |= mutants.as_ref().is_some_and(|mutants| mutants.interrupted);
    let report = Report {
        seed: arguments.seed,
        verilator,
        stimulus: match &stimulus {
            Stimulus::Random(style) => {
                format!("seed {}, stalls {}, gaps {}", style.seed, style.stalls, style.gaps)
            }
            Stimulus::Given(case) => {
                format!("{} given", if case.offers.len() == 1 { "a packet" } else { "packets" })
            }
        },
        outcome,
        smallest,
        alone,
        mutants,
    };
    if as_json {
        output::print_json(&report.json())?;
    } else {
        output::print(&report.text(Paint::for_stdout()))?;
    }
    report.verdict()
}

/// What the arguments ask for.
fn stimulus(arguments: &CosimArguments) -> Result<Stimulus> {
    if arguments.packet.is_empty() {
        let pattern = |text: &String| text.parse::<Pattern>().map_err(|message| Error::at("--gaps", message));
        let gaps = arguments.gaps.as_ref().map(pattern).transpose()?.unwrap_or_default();
        let stalls = arguments.stalls.clone().unwrap_or_default();
        return Ok(Stimulus::Random(Style { seed: arguments.seed, stalls, gaps }));
    }
    let frames = arguments
        .packet
        .iter()
        .map(|text| reproduction::parse_packet(text).map_err(|message| Error::at("--packet", message)))
        .collect::<Result<Vec<_>>>()?;
    let number = |text: &str| {
        let usage = "with --packet wants numbers of cycles up to 65535, such as 0,3,1";
        text.parse::<u16>().map_err(|_| Error::at("--gaps", usage))
    };
    let gaps: Vec<u16> = match &arguments.gaps {
        Some(text) => text.split(',').map(number).collect::<Result<_>>()?,
        None => Vec::new(),
    };
    let expected = match &arguments.expect {
        Some(text) => reproduction::parse_expected(text).map_err(|message| Error::at("--expect", message))?,
        None => ALL_EXPECTED,
    };
    let stalls = match &arguments.stalls {
        None => Vec::new(),
        Some(pattern) => pattern.runs_from(arguments.seed),
    };
    Ok(Stimulus::Given(Case { expected, offers: reproduction::offers(frames, &gaps), stalls }))
}

/// A unit after reset.
fn fresh(build: Build) -> Result<RxParseRtl> {
    RxParseRtl::new(build, &ALL_EXPECTED).map_err(unavailable)
}

fn unavailable(reason: Unavailable) -> Error {
    let text = reason.to_string();
    Error::at("cosim", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Writes the waveform of the difference, or of the first packets.
fn write_wave(
    wave: ReservedPath,
    stimulus: &Stimulus,
    outcome: &Outcome,
    smallest: Option<&Shrunk>,
) -> Result<()> {
    let (segment, from_cycle) = match (smallest, &outcome.failure, stimulus) {
        (Some(smallest), _, _) => (Segment::of_case(&smallest.case), 0),
        (None, Some(failure), _) => {
            (Segment::of_case(&failure.case), failure.difference.cycle.saturating_sub(WAVE_CYCLES_BEFORE))
        }
        (None, None, Stimulus::Given(case)) => (Segment::of_case(case), 0),
        (None, None, Stimulus::Random(style)) => {
            let mut segment = Segment::default();
            segment.generate(style, 0, WAVE_PACKETS);
            (segment, 0)
        }
    };
    let mut unit = fresh(Build::Inspect)?;
    wave::record(&mut unit, &segment, from_cycle, wave.temporary())
        .map_err(|error| Error::at(wave.path().display(), error))?;
    if let Some(failure) = unit.failed_assertion()
        && outcome.failure.is_none()
    {
        return Err(Error::at(wave.path().display(), failure));
    }
    wave.finish()
}

/// Every mutant, one after the other.
fn hunt(style: &Style, packets: u64, interrupt: &Interrupt) -> Result<Mutants> {
    let total = mutation::mutants().count();
    let bar = output::progress(Some(total as u64), "mutants");
    let mut hunts: Vec<Hunt> = Vec::new();
    for mutant in mutation::mutants() {
        if interrupt.came() {
            break;
        }
        hunts.push(mutation::hunt(mutant, style, packets).map_err(unavailable)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Mutants { interrupted: hunts.len() < total, total, hunts })
}

fn run_sizes(as_json: bool) -> Result<()> {
    let mut unit = fresh(Build::Fast)?;
    let rows = sizes::SIZES
        .iter()
        .map(|octets| sizes::measure(&mut unit, *octets))
        .collect::<Option<Vec<Row>>>()
        .ok_or_else(|| Error::failure("the RTL does not let packets pass"))?;
    if as_json {
        output::print_json(&report::sizes_json(&rows))
    } else {
        output::print(&report::sizes_text(&rows, Paint::for_stdout()))
    }
}
