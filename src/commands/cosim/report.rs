//! What `cosim` prints.

use std::fmt::Write as _;

use cryptonic_hwmodel::rx_parse::LATENCY_CYCLES;
use cryptonic_rtl_bench::campaign::{Failure, Outcome};
use cryptonic_rtl_bench::mutation::Hunt;
use cryptonic_rtl_bench::shrink::Shrunk;
use cryptonic_rtl_bench::sizes::{self, Row};
use cryptonic_rtl_bench::{report, reproduction};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::output::Paint;
use crate::report::grouped;

/// What a run has come to.
pub(super) struct Report {
    pub(super) seed: u64,
    /// The version of Verilator.
    pub(super) verilator: &'static str,
    /// What was sent, in words.
    pub(super) stimulus: String,
    pub(super) outcome: Outcome,
    pub(super) smallest: Option<Shrunk>,
    /// Cycles a second of the RTL alone; 0 if that was not measured.
    pub(super) alone: f64,
    pub(super) mutants: Option<Mutants>,
}

/// What became of the mutants.
pub(super) struct Mutants {
    pub(super) hunts: Vec<Hunt>,
    pub(super) total: usize,
    pub(super) interrupted: bool,
}

impl Mutants {
    fn caught(&self) -> usize {
        self.hunts.iter().filter(|hunt| hunt.caught.is_some()).count()
    }
}

impl Report {
    /// The end of the command.
    pub(super) fn verdict(&self) -> Result<()> {
        if let Some(failure) = &self.outcome.failure {
            let message = format!("the RTL differs from the model in packet {}", failure.packet);
            return Err(Error::failure(message).reported());
        }
        if self.outcome.interrupted {
            return Err(Error::interrupted());
        }
        match &self.mutants {
            Some(mutants) if mutants.caught() < mutants.total => {
                let missed = mutants.total - mutants.caught();
                Err(Error::failure(format_args!("{missed} mutants were not caught")).reported())
            }
            _ => Ok(()),
        }
    }

    fn cycles_per_second(&self) -> f64 {
        self.outcome.cycles as f64 / self.outcome.seconds.max(1e-9)
    }

    pub(super) fn json(&self) -> Value {
        let outcome = &self.outcome;
        let (covered, total) = outcome.coverage.verdicts();
        let rows = outcome.coverage.rows();
        let coverage: Vec<Value> = rows
            .iter()
            .map(|row| json!({ "group": row.title, "hit": row.hit, "total": row.total, "missing": row.missing }))
            .collect();
        let verdicts: serde_json::Map<String, Value> = outcome
            .coverage
            .verdict_counts()
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        let mut object = json!({
            "unit": "rx_parse",
            "seed": self.seed,
            "stimulus": self.stimulus,
            "packets": outcome.packets,
            "cycles": outcome.cycles,
            "differences": u64::from(outcome.failure.is_some()),
            "cycles_per_second": self.cycles_per_second().round(),
            "rtl_only_cycles_per_second": (self.alone > 0.0).then(|| self.alone.round()),
            "verdicts_covered": covered,
            "verdicts_total": total,
            "verdicts": verdicts,
            "coverage": coverage,
            "latency_cycles": LATENCY_CYCLES,
            "verilator": self.verilator,
            "optimised": !cfg!(debug_assertions),
            "difference": outcome.failure.as_ref().map(|failure| self.difference_json(failure)),
            "interrupted": outcome.interrupted,
        });
        if let (Some(mutants), Some(object)) = (&self.mutants, object.as_object_mut()) {
            object.insert("mutants_caught".to_owned(), mutants.caught().into());
            object.insert("mutants_total".to_owned(), mutants.total.into());
            object.insert("mutants".to_owned(), mutants.hunts.iter().map(hunt_json).collect());
        }
        object
    }

    fn difference_json(&self, failure: &Failure) -> Value {
        let packet = failure.case.offers.get(failure.difference.packet);
        json!({
            "what": failure.difference.what.name(),
            "cycle": failure.cycle,
            "packet": failure.packet,
            "octets": packet.map(|offer| reproduction::hexadecimal(&offer.frame)),
            "text": report::difference(&failure.difference, &failure.case),
            "smallest": self.smallest.as_ref().map(|smallest| json!({
                "packets": smallest.case.offers.len(),
                "octets": smallest.case.offers.iter().map(|offer| offer.frame.len()).sum::<usize>(),
                "options": reproduction::options(&smallest.case),
                "text": report::difference(&smallest.difference, &smallest.case),
            })),
        })
    }

    pub(super) fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_text(&mut text, paint);
        text
    }

    fn write_text(&self, out: &mut String, paint: Paint) -> std::fmt::Result {
        let outcome = &self.outcome;
        let title = paint.bold("cryptonic cosim:");
        writeln!(out, "{title} rx_parse, RTL ({}) against model, {}\n", self.verilator, self.stimulus)?;
        let mut line = |name: &str, value: String| writeln!(out, "  {name:<16}{value}");
        let (covered, total) = outcome.coverage.verdicts();
        line("packets", grouped(outcome.packets))?;
        let cycles = grouped(outcome.cycles);
        line("cycles", format!("{cycles}, every output of each compared; latency {LATENCY_CYCLES}"))?;
        let differences = usize::from(outcome.failure.is_some()).to_string();
        let is_good = outcome.failure.is_none();
        line("differences", if is_good { paint.good(&differences) } else { paint.bad(&differences) })?;
        let mega = 1e-6;
        let alone = match self.alone {
            0.0 => String::new(),
            alone => format!(", the RTL alone {:.2} M", alone * mega),
        };
        line("cycles/s", format!("{:.2} M in lockstep{alone}", self.cycles_per_second() * mega))?;
        line("verdicts", format!("{covered} of {total}"))?;
        if let Some(mutants) = &self.mutants {
            let caught = format!("{} of {} caught", mutants.caught(), mutants.total);
            let is_good = mutants.caught() == mutants.total;
            line("mutants", if is_good { paint.good(&caught) } else { paint.bad(&caught) })?;
        }
        if outcome.interrupted {
            line("interrupted", "a partial report".to_owned())?;
        }
        if cfg!(debug_assertions) {
            line("", "built without optimisation: measure with `cargo run --release -- cosim`".to_owned())?;
        }
        if let Some(failure) = &outcome.failure {
            return self.write_failure(out, failure, paint);
        }
        if !self.stimulus.ends_with("given") {
            writeln!(out)?;
            out.push_str(&outcome.coverage.table());
        }
        if let Some(mutants) = &self.mutants {
            writeln!(out)?;
            for hunt in &mutants.hunts {
                write_hunt(out, hunt, paint)?;
            }
        }
        Ok(())
    }

    fn write_failure(&self, out: &mut String, failure: &Failure, paint: Paint) -> std::fmt::Result {
        let (cycle, packet) = (grouped(failure.cycle), grouped(failure.packet));
        let place = format!("first difference: cycle {cycle}, packet {packet} of the run");
        writeln!(out, "\n{}", paint.bad(&place))?;
        writeln!(
            out,
            "in segment {}, {}",
            failure.segment,
            report::difference(&failure.difference, &failure.case)
        )?;
        let Some(smallest) = &self.smallest else {
            return writeln!(out, "the segment alone does not show it, so there is no smaller case");
        };
        let found = format!("the smallest case of {} tried", grouped(smallest.trials as u64));
        writeln!(out, "{}", paint.bold(&found))?;
        writeln!(out, "{}", report::difference(&smallest.difference, &smallest.case))?;
        writeln!(out, "again: cryptonic cosim {}", reproduction::options(&smallest.case))
    }
}

fn hunt_json(hunt: &Hunt) -> Value {
    let caught = hunt.caught.as_ref();
    json!({
        "name": hunt.mutant.name,
        "rule": hunt.mutant.rule,
        "caught": caught.is_some(),
        "what": caught.map(|caught| caught.what.name()),
        "packet": caught.map(|caught| caught.packet),
        "cycle": caught.map(|caught| caught.cycle),
    })
}

fn write_hunt(out: &mut String, hunt: &Hunt, paint: Paint) -> std::fmt::Result {
    let name = hunt.mutant.name;
    match &hunt.caught {
        Some(caught) => writeln!(
            out,
            "  {name:<40} {} in packet {}, cycle {}",
            caught.what.name(),
            grouped(caught.packet),
            grouped(caught.cycle)
        ),
        None => {
            let missed = format!("not caught in {} packets: {}", grouped(hunt.packets), hunt.mutant.rule);
            writeln!(out, "  {name:<40} {}", paint.bad(&missed))
        }
    }
}

pub(super) fn sizes_json(rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "octets": row.octets,
                "cycles_per_packet": row.cycles_per_packet,
                "packets_per_second": row.packets_per_second,
                "line_gbps": row.line_gbps,
            })
        })
        .collect();
    json!({ "clock_hz": sizes::CLOCK_HZ, "rows": rows })
}

pub(super) fn sizes_text(rows: &[Row], paint: Paint) -> String {
    let mut text = format!(
        "{} packets of one size back to back through the RTL, at {} MHz\n",
        paint.bold("cryptonic cosim:"),
        sizes::CLOCK_HZ / 1e6
    );
    let header =
        format!("  {:>6} {:>14} {:>14} {:>12}", "octets", "cycles/packet", "M packets/s", "line Gb/s");
    let _ = writeln!(text, "{}", paint.dim(&header));
    for row in rows {
        let _ = writeln!(
            text,
            "  {:>6} {:>14.3} {:>14.2} {:>12.1}",
            row.octets,
            row.cycles_per_packet,
            row.packets_per_second / 1e6,
            row.line_gbps
        );
    }
    text.push_str(
        "octets: on the bus, without FCS; line: with FCS, preamble and gap, frames of at least 60 octets\n",
    );
    text
}
