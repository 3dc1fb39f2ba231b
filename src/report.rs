//! What `run` found: for a person, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::cable::CableReport;
use crate::output::Paint;
use crate::parser::{ParserChoice, ParserReport};

/// Stages that are busy less than this share of the time do not limit anything.
const LIMIT_SHARE: f64 = 0.9;
/// Examples of what went wrong that a report shows.
const EXAMPLES: usize = 10;

/// What became of one flow, both ways together.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowReport {
    pub(crate) name: String,
    pub(crate) protection: String,
    pub(crate) sent: u64,
    pub(crate) verified: u64,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) preset: String,
    pub(crate) sizes: String,
    pub(crate) parser: ParserReport,
    pub(crate) interrupted: bool,
    pub(crate) flows: Vec<FlowReport>,
    pub(crate) packets_sent: u64,
    pub(crate) packets_received: u64,
    pub(crate) packets_verified: u64,
    pub(crate) mismatches: u64,
    /// Packets that did not arrive and that no drop accounts for.
    pub(crate) lost_without_reason: u64,
    pub(crate) drops: BTreeMap<&'static str, u64>,
    /// SAs that were replaced because their soft limit was reached; `None` where none has limits.
    pub(crate) rekeys: Option<u64>,
    /// Of a cable that is not plain.
    pub(crate) cable: Option<CableReport>,
    /// Bytes of the verified packets as they were handed to the driver.
    pub(crate) verified_bytes: u64,
    pub(crate) modelled_seconds: f64,
    pub(crate) latency_ns: [f64; 3],
    /// The busiest of both NICs, per stage, as a share of the time.
    pub(crate) stages: Vec<(&'static str, f64)>,
    /// Of either NIC: to the device, to the host.
    pub(crate) pcie_bytes: [(u64, u64); 2],
    pub(crate) wall_seconds: f64,
    pub(crate) parameters: Value,
    /// The first faults in words.
    pub(crate) faults: Vec<String>,
}

impl Report {
    /// Notes a fault; only the first ones are kept.
    pub(crate) fn fault(&mut self, describe: impl FnOnce() -> String) {
        if self.faults.len() < EXAMPLES {
            self.faults.push(describe());
        }
    }

    /// Counts what was lost without a reason: what went onto the cable or was made by it, less what arrived, was dropped,
    /// or was lost by it. A packet that arrived twice and that the cable did not double is a mismatch.
    pub(crate) fn balance(&mut self) {
        let (mut there, mut explained) = (self.packets_sent, self.drops.values().sum::<u64>());
        if let Some(CableReport { counters, again, .. }) = &self.cable {
            there += counters.duplicated;
            explained += counters.lost;
            self.mismatches += again.saturating_sub(counters.duplicated);
        }
        self.lost_without_reason = there.saturating_sub(self.packets_received + explained);
    }

    /// Whether everything that was sent arrived unchanged or was dropped with a reason, and parsers agreed.
    pub(crate) fn is_good(&self) -> bool {
        self.mismatches == 0 && self.lost_without_reason == 0 && self.parser.differences() == 0
    }

    fn per_packet(&self, bytes: u64) -> f64 {
        if self.packets_sent == 0 { 0.0 } else { round(bytes as f64 / self.packets_sent as f64, 1) }
    }

    /// PCI Express bytes of both NICs a packet: to the device, to the host.
    fn pcie_per_packet(&self) -> (f64, f64) {
        let [one, other] = self.pcie_bytes;
        (self.per_packet(one.0 + other.0), self.per_packet(one.1 + other.1))
    }

    fn gbps(&self) -> f64 {
        ratio(self.verified_bytes as f64 * 8.0 / 1e9, self.modelled_seconds)
    }

    fn wall_rate(&self) -> f64 {
        ratio(self.packets_sent as f64, self.wall_seconds)
    }

    /// The stage that is in use the most, and how much.
    fn busiest(&self) -> (&'static str, f64) {
        self.stages.iter().copied().max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("none", 0.0))
    }

    /// The JSON object; its keys are promised in docs/.
    pub(crate) fn json(&self) -> Value {
        let (stage, share) = self.busiest();
        let flows: Vec<Value> = self
            .flows
            .iter()
            .map(|flow| {
                json!({ "name": flow.name, "protection": flow.protection, "packets_sent": flow.sent,
                        "packets_verified": flow.verified })
            })
            .collect();
        let stages: BTreeMap<&str, f64> =
            self.stages.iter().map(|(name, share)| (*name, round(*share, 4))).collect();
        let [p50, p99, max] = self.latency_ns.map(|nanoseconds| round(nanoseconds, 1));
        let (to_device, to_host) = self.pcie_per_packet();
        json!({
            "seed": self.seed,
            "preset": self.preset,
            "size": self.sizes,
            "parser": self.parser.choice.name(),
            "parser_cycles": self.parser.cycles(),
            "parser_differences": self.parser.differences(),
            "interrupted": self.interrupted,
            "packets_sent": self.packets_sent,
            "packets_received": self.packets_received,
            "packets_verified": self.packets_verified,
            "mismatches": self.mismatches,
            "lost_without_reason": self.lost_without_reason,
            "drops": self.drops,
            "rekeys": self.rekeys,
            "cable": self.cable.as_ref().map(CableReport::json),
            "modelled_seconds": self.modelled_seconds,
            "modelled_gbps": round(self.gbps(), 3),
            "modelled_packets_per_second": ratio(self.packets_verified as f64, self.modelled_seconds).round(),
            "latency_ns": { "p50": p50, "p99": p99, "max": max },
            "limiting_stage": stage,
            "limiting_stage_share": round(share, 4),
            "stages": stages,
            "pcie_bytes_per_packet": {
                "to_device": to_device,
                "to_host": to_host,
            },
            "wall_seconds": round(self.wall_seconds, 6),
            "wall_packets_per_second": self.wall_rate().round(),
            "flows": flows,
            "faults": self.faults,
            "parameters": self.parameters,
        })
    }

    /// The report for a person.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_text(&mut text, paint);
        text
    }

    fn write_text(&self, out: &mut String, paint: Paint) -> std::fmt::Result {
        writeln!(
            out,
            "{} two NICs and a cable, {} preset, frames: {}, seed {}",
            paint.bold("cryptonic run:"),
            self.preset,
            match self.sizes.parse::<usize>() {
                Ok(bytes) => format!("{bytes} B"),
                Err(_) => self.sizes.clone(),
            },
            self.seed
        )?;
        writeln!(out)?;
        let widest = self.flows.iter().map(|flow| flow.name.len()).max().unwrap_or(0).max(4);
        let longest = self.flows.iter().map(|flow| flow.protection.len()).max().unwrap_or(0).max(44);
        let header =
            format!("  {:<widest$}  {:<longest$} {:>12} {:>12}", "flow", "protected by", "sent", "verified");
        writeln!(out, "{}", paint.dim(&header))?;
        for flow in &self.flows {
            writeln!(
                out,
                "  {:<widest$}  {:<longest$} {:>12} {:>12}",
                flow.name,
                flow.protection,
                grouped(flow.sent),
                grouped(flow.verified)
            )?;
        }
        writeln!(out)?;
        let mut line = |name: &str, value: String| writeln!(out, "  {name:<16}{value}");
        line(
            "packets",
            format!(
                "{} sent, {} received, {} verified byte for byte",
                grouped(self.packets_sent),
                grouped(self.packets_received),
                grouped(self.packets_verified)
            ),
        )?;
        let wrong = format!(
            "{} mismatches, {} lost without a reason",
            grouped(self.mismatches),
            grouped(self.lost_without_reason)
        );
        let arrived = self.mismatches == 0 && self.lost_without_reason == 0;
        line("", if arrived { paint.good(&wrong) } else { paint.bad(&wrong) })?;
        if self.parser.choice != ParserChoice::Model {
            let (cycles, differences) = (self.parser.cycles(), self.parser.differences());
            let found = format!("{} differences", grouped(differences));
            let found = if differences == 0 { paint.good(&found) } else { paint.bad(&found) };
            line(
                "parser",
                format!("{}, {} cycles of RTL: {found}", self.parser.choice.name(), grouped(cycles)),
            )?;
        }
        let drops: Vec<String> =
            self.drops.iter().map(|(reason, count)| format!("{} {reason}", grouped(*count))).collect();
        line("drops", if drops.is_empty() { "none".to_owned() } else { drops.join(", ") })?;
        if let Some(rekeys) = self.rekeys {
            line("rekeys", grouped(rekeys))?;
        }
        if let Some(cable) = &self.cable {
            line("cable", cable.text())?;
        }
        let rate = ratio(self.packets_verified as f64, self.modelled_seconds) / 1e6;
        line(
            "modelled",
            format!(
                "{:.1} Gb/s of clear frames, both ways together; {rate:.1} M packets/s; {:.3} ms of device time",
                self.gbps(),
                self.modelled_seconds * 1e3
            ),
        )?;
        let [p50, p99, max] = self.latency_ns;
        line("latency", format!("p50 {}, p99 {}, max {}", time(p50), time(p99), time(max)))?;
        let (stage, share) = self.busiest();
        let verdict = if share >= LIMIT_SHARE { "the limit" } else { "the busiest; nothing is at its limit" };
        line("limiting stage", format!("{stage}, in use {:.0} % of the time: {verdict}", share * 100.0))?;
        let (to_device, to_host) = self.pcie_per_packet();
        line("PCIe", format!("{to_device:.1} bytes a packet to the device, {to_host:.1} to the host"))?;
        line("wall clock", format!("{:.2} s, {:.2} M packets/s", self.wall_seconds, self.wall_rate() / 1e6))?;
        for fault in &self.faults {
            line(&paint.bad("fault"), fault.clone())?;
        }
        if self.interrupted {
            writeln!(out, "\n{}", paint.bad("interrupted: what stands here is as far as it went"))?;
        }
        Ok(())
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// A number with thin groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(time(1_360.0), "1.36 us");
    }
}
