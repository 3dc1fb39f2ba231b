//! A waveform of a part of a run.

use std::path::Path;

use cryptonic_hwmodel::rx_parse::{Beat, Outputs};
use cryptonic_wire::packet::Expected;

use crate::coverage::Coverage;
use crate::lockstep::{self, Difference, Unit};
use crate::rx_parse::RxParseRtl;
use crate::stimulus::Segment;
use crate::verilated::TraceError;

/// Cycles behind the last one that still show.
const CYCLES_AFTER: usize = 8;

/// A unit whose waveform begins at one of its cycles.
struct Traced<'a> {
    unit: &'a mut RxParseRtl,
    path: &'a Path,
    cycles_before: u64,
    error: Option<TraceError>,
}

impl Unit for Traced<'_> {
    fn configure(&mut self, expected: &Expected) {
        self.unit.set_expected(expected);
    }

    fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        match self.cycles_before.checked_sub(1) {
            Some(left) => self.cycles_before = left,
            None if self.error.is_none() => {
                self.error = self.unit.trace_to(self.path).err();
                self.cycles_before = u64::MAX;
            }
            None => {}
        }
        self.unit.step(offered, consumer_ready)
    }

    fn was_drained(&self) -> bool {
        self.unit.was_drained()
    }

    fn failure(&self) -> Option<String> {
        self.unit.failed_assertion()
    }
}

/// Drives a segment into a drained unit of the inspect build, and writes a waveform (VCD) from one of its cycles on, up to
/// a few cycles behind the first difference or its end. Gives the difference, if the build shows one.
///
/// # Errors
/// [`TraceError`]: the build has no waveforms, or the file cannot be made.
pub fn record(
    unit: &mut RxParseRtl,
    segment: &Segment,
    from_cycle: u64,
    path: &Path,
) -> Result<Option<Box<Difference>>, TraceError> {
    let mut traced = Traced { unit, path, cycles_before: from_cycle, error: None };
    let difference = lockstep::run(&mut traced, segment, &mut Coverage::new()).err();
    if let Some(error) = traced.error {
        return Err(error);
    }
    for _ in 0..CYCLES_AFTER {
        unit.step(None, false);
    }
    unit.stop_trace();
    Ok(difference)
}
