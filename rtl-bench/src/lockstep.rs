//! Lockstep: a unit and the model's clocked shell get the same beats, gaps and stalls, and every output of every cycle
//! is compared.

use cryptonic_hwmodel::rx_parse::{Beat, Outputs, RxParseShell};
use cryptonic_wire::packet::Expected;

use crate::coverage::{Coverage, Cycle};
use crate::rx_parse::{PortDifference, RESULTS, RxParseRtl};
use crate::stimulus::{Runs, Segment};

/// Cycles without anything to do at a segment's end, in which nothing may come out.
const IDLE_CYCLES: u64 = 3;

/// What can be held against the shell: the RTL, or in tests of the bench a shell with a fault.
pub trait Unit {
    /// Sets the configuration. The unit is drained.
    fn configure(&mut self, expected: &Expected);

    /// One clock cycle, as [`RxParseShell::step`].
    fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs;

    /// Whether the unit said in the last cycle that nothing was inside.
    fn was_drained(&self) -> bool;

    /// What is wrong with the unit by its own account.
    fn failure(&self) -> Option<String> {
        None
    }

    /// The ports that did not show in the last cycle what the model did.
    fn ports(&self, _model: &Outputs) -> Vec<PortDifference> {
        Vec::new()
    }
}

impl Unit for RxParseRtl {
    fn configure(&mut self, expected: &Expected) {
        self.set_expected(expected);
    }

    #[inline]
    fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        RxParseRtl::step(self, offered, consumer_ready)
    }

    #[inline]
    fn was_drained(&self) -> bool {
        RxParseRtl::was_drained(self)
    }

    fn failure(&self) -> Option<String> {
        self.failed_assertion()
    }

    fn ports(&self, model: &Outputs) -> Vec<PortDifference> {
        self.differences(model)
    }
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Whether the unit takes a beat.
    Ready,
    /// Whether there is a result.
    Valid,
    /// The result.
    Result,
    /// Whether nothing is inside.
    Drained,
    /// Nothing: an assertion of the unit failed.
    Assertion,
}

impl What {
    /// As a few words.
    pub const fn name(self) -> &'static str {
        match self {
            What::Ready => "ready",
            What::Valid => "valid",
            What::Result => "result",
            What::Drained => "drained",
            What::Assertion => "assertion",
        }
    }
}

/// The first cycle in which a unit was not what the model is.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What differs.
    pub what: What,
    /// The cycle, from the segment's first.
    pub cycle: u64,
    /// The packet of the segment that it is about: of the result, or of the beat that is offered.
    pub packet: usize,
    /// Packets that had begun, this one included.
    pub begun: usize,
    /// What the model shows.
    pub model: Shown,
    /// What the unit shows.
    pub unit: Shown,
    /// The ports that differ.
    pub ports: Vec<PortDifference>,
    /// The first assertion of the unit that failed.
    pub assertion: Option<String>,
}

/// All that is shown in a cycle.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Ready and result.
    pub outputs: Outputs,
    /// Whether nothing is inside.
    pub drained: bool,
}

/// Drives a segment into a drained unit until it is drained again. Gives the cycles that took.
///
/// # Errors
/// The first [`Difference`]; the unit is then in no state to go on with.
pub fn run<U: Unit>(
    unit: &mut U,
    segment: &Segment,
    coverage: &mut Coverage,
) -> Result<u64, Box<Difference>> {
    unit.configure(&segment.expected);
    coverage.segment(&segment.expected, segment.kinds);
    let mut shell = RxParseShell::new(RESULTS, segment.expected);
    let mut producer = segment.producer();
    let mut stalls = Runs::new(&segment.stalls);
    let (mut cycle, mut idle) = (0, 0);
    // Packets that have begun, and results that were shown and taken.
    let (mut begun, mut shown, mut taken) = (0, 0, 0);
    while idle < IDLE_CYCLES {
        let consumer_ready = !stalls.is_on();
        let drained = shell.drained();
        let offered = producer.offered();
        let model = shell.step(offered, consumer_ready);
        let outputs = unit.step(offered, consumer_ready);
        begun += usize::from(offered.is_some() && model.ready && producer.begins());
        if outputs != model || unit.was_drained() != drained {
            let model = Shown { outputs: model, drained };
            return Err(difference(unit, outputs, model, cycle, (producer.packet(), taken), begun));
        }
        coverage.cycle(Cycle {
            in_packet: !producer.begins() && !producer.is_done(),
            offered: offered.is_some(),
            last: offered.is_some_and(|beat| beat.last),
            ready: model.ready,
            valid: model.result.is_some(),
            consumer_ready,
            inside: begun - taken,
        });
        if let Some(result) = &model.result {
            if shown == taken {
                coverage.packet(segment.packet(taken), result);
                shown += 1;
            }
            taken += usize::from(consumer_ready);
        }
        idle += u64::from(drained && producer.is_done());
        producer.advance(model.ready);
        stalls.advance();
        cycle += 1;
    }
    match unit.failure() {
        None => Ok(cycle),
        Some(_) => {
            let outputs = Outputs { ready: true, result: None };
            let model = Shown { outputs: outputs.clone(), drained: true };
            Err(difference(unit, outputs, model, cycle, (taken, taken), begun))
        }
    }
}

/// What there is to say of a difference. `packets`: that of the beat which is next, and that of the result.
#[cold]
fn difference<U: Unit>(
    unit: &U,
    outputs: Outputs,
    model: Shown,
    cycle: u64,
    packets: (usize, usize),
    begun: usize,
) -> Box<Difference> {
    let drained = unit.was_drained();
    let (of_beat, of_result) = packets;
    let (what, packet) = if outputs.result.is_some() != model.outputs.result.is_some() {
        (What::Valid, of_result)
    } else if outputs.result != model.outputs.result {
        (What::Result, of_result)
    } else if outputs.ready != model.outputs.ready {
        (What::Ready, of_beat)
    } else if drained != model.drained {
        (What::Drained, of_beat)
    } else {
        (What::Assertion, of_beat)
    };
    Box::new(Difference {
        what,
        cycle,
        packet: packet.min(begun.saturating_sub(1)),
        begun,
        ports: unit.ports(&model.outputs),
        assertion: unit.failure(),
        model,
        unit: Shown { outputs, drained },
    })
}

/// Drives a segment into a drained unit that is compared with nothing. Gives the cycles that took, or nothing where
/// it goes on for more than `most`.
pub fn run_alone<U: Unit>(unit: &mut U, segment: &Segment, most: u64) -> Option<u64> {
    unit.configure(&segment.expected);
    let mut producer = segment.producer();
    let mut stalls = Runs::new(&segment.stalls);
    let mut left = segment.packets();
    for cycle in 0..most {
        if left == 0 {
            return Some(cycle);
        }
        let consumer_ready = !stalls.is_on();
        let outputs = unit.step(producer.offered(), consumer_ready);
        left -= usize::from(outputs.result.is_some() && consumer_ready);
        producer.advance(outputs.ready);
        stalls.advance();
    }
    None
}
