//! What the gateway did, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cryptonic_driver::SaState;
use serde_json::{Value, json};

use super::GatewayArguments;
use super::forward::{Forwarder, RouterCounters};
use crate::error::{Error, Result};
use crate::link::LinkCounters;
use crate::output::{self, Paint};
use crate::report::grouped;
use crate::sa_file::Sa;

/// What ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// `--packets` or `--seconds`.
    Enough,
    /// A replay that came to its end.
    ReplayOver,
    /// A signal.
    Interrupted,
}

/// What it did.
#[derive(Default)]
pub(super) struct Report {
    pub(super) seconds: f64,
    pub(super) interrupted: bool,
    /// The SA file was read again, and what was wrong with it was told.
    pub(super) read_again: u64,
    pub(super) read_again_refused: u64,
    pub(super) notes: Vec<String>,
    /// Those that were deleted come first, in that order.
    sas: Vec<SaReport>,
    /// Name, link, MTU and what it counted.
    links: Vec<(&'static str, String, usize, LinkCounters)>,
    verdicts: BTreeMap<&'static str, u64>,
    router: RouterCounters,
    lost: u64,
    seed: u64,
}

struct SaReport {
    name: String,
    direction: &'static str,
    protocol: &'static str,
    spi: u32,
    deleted: bool,
    /// None where the key travels in descriptors.
    state: Option<SaState>,
}

impl SaReport {
    fn new(sa: &Sa, state: Option<SaState>, deleted: bool) -> SaReport {
        SaReport {
            name: sa.name.clone(),
            direction: sa.direction.name(),
            protocol: sa.protocol.name(),
            spi: sa.spi,
            deleted,
            state,
        }
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "name": self.name,
            "direction": self.direction,
            "protocol": self.protocol,
            "spi": self.spi,
            "deleted": self.deleted,
        });
        if let Some(state) = &self.state {
            object["state"] = state.state.name().into();
            object["packets"] = state.packets.into();
            object["bytes"] = state.bytes.into();
            object["sequence"] = state.sequence.into();
            object["refused"] = state.refused.into();
            object["replayed"] = (state.replay_duplicates + state.replay_below_window).into();
            object["icv_failures"] = state.icv_failures.into();
        }
        object
    }
}

impl Report {
    pub(super) fn new(notes: Vec<String>) -> Report {
        Report { notes, ..Report::default() }
    }

    /// Adds SAs that are gone, as they were last.
    pub(super) fn add_deleted(&mut self, deleted: &[(Sa, Option<SaState>)]) {
        self.sas.extend(deleted.iter().map(|(sa, state)| SaReport::new(sa, *state, true)));
    }

    /// Takes the numbers of the end.
    pub(super) fn finish(&mut self, arguments: &GatewayArguments, forwarder: &mut Forwarder) -> Result<()> {
        for (side, name, link) in [
            ("inside", &arguments.inside, &forwarder.inside),
            ("outside", &arguments.outside, &forwarder.outside),
        ] {
            self.links.push((side, name.to_string(), link.mtu, link.link.counters()));
        }
        self.verdicts = std::mem::take(&mut forwarder.verdicts);
        self.router = forwarder.counters;
        self.lost = forwarder.lost;
        self.seed = arguments.seed;
        let states = forwarder.gate.states()?;
        let sas = forwarder.gate.file().sas.iter().zip(states);
        self.sas.extend(sas.map(|(sa, state)| SaReport::new(sa, state, false)));
        Ok(())
    }

    /// Prints it; an error that ended the gateway stands in the one JSON object.
    pub(super) fn print(&self, as_json: bool, error: Option<&Error>) -> Result<()> {
        if !as_json {
            return output::print(&self.human());
        }
        let mut object = json!({
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "verdicts": self.verdicts,
            "packets_cut": self.router.cut,
            "fragments": self.router.fragments,
            "errors_sent": self.router.errors_sent,
            "errors_withheld": self.router.errors_withheld,
            "lost_without_reason": self.lost,
            "sas": self.sas.iter().map(SaReport::json).collect::<Vec<_>>(),
            "sa_file_read_again": self.read_again,
            "sa_file_refused": self.read_again_refused,
            "notes": self.notes,
            "seed": self.seed,
        });
        for (side, name, mtu, counters) in &self.links {
            object[*side] = json!({
                "link": name,
                "mtu": mtu,
                "received": counters.received,
                "sent": counters.sent,
                "lost": counters.lost,
                "refused": counters.refused,
            });
        }
        if let Some(error) = error {
            object["error"] = error.message().into();
            object["where"] = error.place().into();
        }
        output::print_json(&object)
    }

    fn human(&self) -> String {
        let paint = Paint::for_stdout();
        let mut text = String::new();
        for (side, name, mtu, counters) in &self.links {
            let (received, sent) = (grouped(counters.received), grouped(counters.sent));
            let _ = write!(text, "{side:<8} {received} frames received, {sent} sent");
            for (count, what) in [(counters.lost, "not taken"), (counters.refused, "of no size of a frame")] {
                if count > 0 {
                    let _ = write!(text, ", {} {what}", grouped(count));
                }
            }
            let _ = writeln!(text, "  ({name}, MTU {mtu})");
        }
        for (verdict, count) in &self.verdicts {
            let _ = writeln!(text, "  {:>10}  {verdict}", grouped(*count));
        }
        let RouterCounters { cut, fragments, errors_sent, errors_withheld } = self.router;
        if cut > 0 {
            let _ =
                writeln!(text, "  {:>10}  packets cut into {} fragments", grouped(cut), grouped(fragments));
        }
        for (count, what) in [(errors_sent, "sent"), (errors_withheld, "withheld")] {
            if count > 0 {
                let _ = writeln!(text, "  {:>10}  ICMP errors {what}", grouped(count));
            }
        }
        for sa in &self.sas {
            let _ = write!(text, "{:<12} {:<3} {:#010x}  ", sa.name, sa.direction, sa.spi);
            let _ = match &sa.state {
                None => write!(text, "key in the descriptor"),
                Some(state) => write!(
                    text,
                    "{} packets, {} bytes, sequence {}, {}",
                    grouped(state.packets),
                    grouped(state.bytes),
                    state.sequence,
                    if sa.deleted { "deleted" } else { state.state.name() }
                ),
            };
            text.push('\n');
        }
        if self.lost > 0 {
            let _ = writeln!(text, "{:>12}  {}", grouped(self.lost), paint.bad("lost without a reason"));
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let how = if self.interrupted { "interrupted after" } else { "ended after" };
        let _ = writeln!(text, "{how} {:.1} s", self.seconds);
        text
    }
}
