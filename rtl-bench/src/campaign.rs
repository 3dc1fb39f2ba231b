//! A lockstep run: segments from a seed, one after the other through one unit, until enough packets or a difference.

use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::lockstep::{self, Difference, Unit};
use crate::shrink::{Shrunk, shrink};
use crate::stimulus::{Case, SEGMENT_PACKETS, Segment, Style};

/// Segments that the RTL is measured alone with.
const ALONE_SEGMENTS: u64 = 8;
/// How long it is measured for.
const ALONE_TIME: Duration = Duration::from_millis(700);

/// What a run has come to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Packets whose segments passed.
    pub packets: u64,
    /// Cycles in which every output was compared.
    pub cycles: u64,
    /// Wall clock, the making of the packets included.
    pub seconds: f64,
    /// What was reached.
    pub coverage: Coverage,
    /// The first difference.
    pub failure: Option<Failure>,
    /// Whether it was asked to stop.
    pub interrupted: bool,
}

/// A difference, and where it is.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The segment.
    pub segment: u64,
    /// The cycle from the run's first.
    pub cycle: u64,
    /// The packet from the run's first.
    pub packet: u64,
    /// The difference; its cycle and packet count from the segment's first.
    pub difference: Box<Difference>,
    /// The segment as plain data.
    pub case: Case,
}

/// Runs so many packets. `go_on` hears after each segment how many packets have passed, and says whether to go on.
pub fn run<U: Unit>(
    unit: &mut U,
    style: &Style,
    packets: u64,
    mut go_on: impl FnMut(u64) -> bool,
) -> Outcome {
    let mut outcome = Outcome {
        packets: 0,
        cycles: 0,
        seconds: 0.0,
        coverage: Coverage::new(),
        failure: None,
        interrupted: false,
    };
    let mut segment = Segment::default();
    let started = Instant::now();
    for number in 0.. {
        let left = packets - outcome.packets;
        if left == 0 {
            break;
        }
        segment.generate(
            style,
            number,
            SEGMENT_PACKETS.min(usize::try_from(left).unwrap_or(SEGMENT_PACKETS)),
        );
        match lockstep::run(unit, &segment, &mut outcome.coverage) {
            Ok(cycles) => outcome.cycles += cycles,
            Err(difference) => {
                outcome.failure = Some(Failure {
                    segment: number,
                    cycle: outcome.cycles + difference.cycle,
                    packet: outcome.packets + difference.packet as u64,
                    difference,
                    case: segment.to_case(),
                });
                break;
            }
        }
        outcome.packets += segment.packets() as u64;
        if !go_on(outcome.packets) && outcome.packets < packets {
            outcome.interrupted = true;
            break;
        }
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome
}

/// Runs one case through a unit.
pub fn run_case<U: Unit>(unit: &mut U, case: &Case) -> Outcome {
    let mut coverage = Coverage::new();
    let started = Instant::now();
    let ran = lockstep::run(unit, &Segment::of_case(case), &mut coverage);
    let seconds = started.elapsed().as_secs_f64();
    let (cycles, packets, failure) = match ran {
        Ok(cycles) => (cycles, case.offers.len(), None),
        Err(difference) => {
            let (cycle, packet) = (difference.cycle, difference.packet);
            let case = case.clone();
            (cycle, packet, Some(Failure { segment: 0, cycle, packet: packet as u64, difference, case }))
        }
    };
    Outcome { packets: packets as u64, cycles, seconds, coverage, failure, interrupted: false }
}

/// The smallest case that shows a failure in a fresh unit; nothing where the segment alone does not show it.
pub fn smallest<U: Unit>(failure: &Failure, mut fresh: impl FnMut() -> Option<U>) -> Option<Shrunk> {
    shrink(failure.case.clone(), |case| {
        let mut unit = fresh()?;
        lockstep::run(&mut unit, &Segment::of_case(case), &mut Coverage::new()).err()
    })
}

/// Cycles a second of a unit that gets the packets of a run's first segments and is compared with nothing. 0 where it
/// does not let them pass.
pub fn speed_alone<U: Unit>(unit: &mut U, style: &Style) -> f64 {
    let segments: Vec<Segment> = (0..ALONE_SEGMENTS)
        .map(|number| {
            let mut segment = Segment::default();
            segment.generate(style, number, SEGMENT_PACKETS);
            segment
        })
        .collect();
    let started = Instant::now();
    let mut cycles = 0;
    while started.elapsed() < ALONE_TIME {
        for segment in &segments {
            match lockstep::run_alone(unit, segment, 10_000_000) {
                Some(ran) => cycles += ran,
                None => return 0.0,
            }
        }
    }
    cycles as f64 / started.elapsed().as_secs_f64()
}
