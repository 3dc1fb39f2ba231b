//! The cable of a workload: what it is to do to the frames between the two NICs, what it did, and what arrived.

use cryptonic_hwmodel::{CableCounters, CableParameters};
use cryptonic_pci::Time;
use serde_json::{Value, json};

use crate::error::Result;
use crate::flow::{Flow, Protection};
use crate::report::grouped;
use crate::toml_reader::{Item, Table};

/// The largest replay window bears one less.
const DEPTH_MAX: u64 = 65_536;
const PATHS_MAX: usize = 256;
/// Below the time after which a run without progress gives up.
const PATH_DELAY_NS_MAX: u64 = 10_000_000;

/// Reads the table `[cable]`.
pub(crate) fn read(mut table: Table<'_>) -> Result<CableParameters> {
    let reorder_depth = table.take("reorder_depth").map(|item| item.number(0, DEPTH_MAX)).transpose()?;
    let path_delays = table.take("path_delays_ns").map(|item| path_delays(&item)).transpose()?;
    let mut share = |key| table.take(key).map_or(Ok(0.0), |item: Item<'_>| item.share());
    let parameters = CableParameters {
        reorder_depth: reorder_depth.map(|depth| depth as u32),
        path_delays: path_delays.unwrap_or_default(),
        loss: share("loss")?,
        duplicate: share("duplicate")?,
    };
    table.finish()?;
    Ok(parameters)
}

fn path_delays(item: &Item<'_>) -> Result<Vec<Time>> {
    let items = item.items()?;
    if items.is_empty() || items.len() > PATHS_MAX {
        return Err(item.error(format_args!("wants 1 to {PATHS_MAX} delays")));
    }
    items.iter().map(|item| Ok(Time::from_nanoseconds(item.number(0, PATH_DELAY_NS_MAX)?))).collect()
}

/// A cable's parameters under the names they have in a workload file.
pub(crate) fn json(parameters: &CableParameters) -> Value {
    let delays = parameters.path_delays.iter().map(|delay| delay.picoseconds() / 1_000);
    json!({
        "reorder_depth": parameters.reorder_depth,
        "path_delays_ns": delays.collect::<Vec<u64>>(),
        "loss": parameters.loss,
        "duplicate": parameters.duplicate,
    })
}

/// Which packets of a flow arrived behind a cable that is not plain.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// A bit for each packet.
    seen: Vec<u64>,
    /// One more than the highest number that arrived.
    end: u32,
    /// Nothing keeps the second of two out: the flow has no replay window.
    copies_pass: bool,
    /// Packets behind one that was sent after them.
    reordered: u64,
    /// Packets that had arrived before.
    again: u64,
}

impl Arrived {
    pub(crate) fn new(flow: &Flow) -> Arrived {
        let copies_pass = match flow.protection {
            Protection::Esp(form) => form.replay_window == 0,
            Protection::Psp(_) => true,
        };
        Arrived { seen: Vec::new(), end: 0, copies_pass, reordered: 0, again: 0 }
    }

    /// Whether packet `number` may arrive now.
    pub(crate) fn may_come(&self, number: u32) -> bool {
        let seen = self.seen.get(number as usize / 64).is_some_and(|block| block >> (number % 64) & 1 == 1);
        !seen || self.copies_pass
    }

    /// Packet `number` arrived, which was sent. Says whether for the first time.
    pub(crate) fn note(&mut self, number: u32) -> bool {
        let (block, bit) = (number as usize / 64, 1 << (number % 64));
        if self.seen.len() <= block {
            self.seen.resize(block + 1, 0);
        }
        let first = self.seen[block] & bit == 0;
        self.seen[block] |= bit;
        self.again += u64::from(!first);
        self.reordered += u64::from(first && number < self.end);
        self.end = self.end.max(number.saturating_add(1));
        first
    }
}

/// What a cable was to do, and what it did.
#[derive(Clone, Debug)]
pub(crate) struct CableReport {
    pub(crate) parameters: CableParameters,
    pub(crate) counters: CableCounters,
    /// Packets that drivers received behind one of their SA that was sent after them.
    pub(crate) reordered: u64,
    /// Packets that drivers received a second time, of flows without a replay window.
    pub(crate) again: u64,
}

impl CableReport {
    pub(crate) fn new<'a>(
        parameters: &CableParameters,
        counters: CableCounters,
        arrived: impl Iterator<Item = &'a Arrived>,
    ) -> CableReport {
        let (reordered, again) = arrived.fold((0, 0), |sum, one| (sum.0 + one.reordered, sum.1 + one.again));
        CableReport { parameters: parameters.clone(), counters, reordered, again }
    }

    pub(crate) fn json(&self) -> Value {
        let mut object = json(&self.parameters);
        object["packets_lost"] = self.counters.lost.into();
        object["packets_duplicated"] = self.counters.duplicated.into();
        object["packets_received_twice"] = self.again.into();
        object["packets_reordered"] = self.reordered.into();
        object["deepest_reordering"] = self.counters.deepest.into();
        object
    }

    pub(crate) fn text(&self) -> String {
        let CableCounters { lost, duplicated, deepest } = self.counters;
        format!(
            "{} lost, {} duplicated ({} received twice), {} reordered, at most {} behind",
            grouped(lost),
            grouped(duplicated),
            grouped(self.again),
            grouped(self.reordered),
            grouped(deepest)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{EspForm, PspForm};
    use crate::workload::Sizes;
    use cryptonic_regs::admin::{Cipher, Mode};

    #[test]
    fn a_packet_arrives_once_unless_nothing_keeps_copies_out() {
        let esp = EspForm::new(Mode::Tunnel, Cipher::AesGcm128);
        for (protection, copies_pass) in [
            (Protection::Esp(esp), false),
            (Protection::Esp(EspForm { replay_window: 0, ..esp }), true),
            (Protection::Psp(PspForm::default()), true),
        ] {
            let mut arrived = Arrived::new(&Flow::new("f", protection, Sizes::Imix));
            for (number, late) in [(0, 0), (64, 0), (63, 1), (200, 1), (1, 2), (201, 2)] {
                assert!(arrived.may_come(number));
                assert!(arrived.note(number));
                assert_eq!(arrived.may_come(number), copies_pass);
                assert_eq!(arrived.reordered, late, "{number}");
            }
            assert!(!arrived.note(64));
            assert_eq!((arrived.reordered, arrived.again), (2, 1));
        }
    }
}
