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

/// A flow that was not sent, and why.
#[derive(Clone, Debug)]
pub(crate) struct LeftOut {
    pub(crate) flow: String,
    pub(crate) reason: String,
}

/// What a NIC counted on its line.
#[derive(Clone, Debug)]
pub(crate) struct EndReport {
    pub(crate) name: String,
    pub(crate) frames_sent: u64,
    pub(crate) frames_received: u64,
}

/// What two models know and no other device tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelReport {
    pub(crate) preset: String,
    pub(crate) parameters: Value,
    pub(crate) parser: ParserReport,
    pub(crate) seconds: f64,
    pub(crate) latency_ns: [f64; 3],
    /// The busiest of both NICs, per stage, as a share of the time.
    pub(crate) stages: Vec<(&'static str, f64)>,
    /// Of either NIC: to the device, to the host.
    pub(crate) pcie_bytes: [(u64, u64); 2],
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) sizes: String,
    /// Two NICs, or the one that was joined with itself.
    pub(crate) ends: Vec<EndReport>,
    /// Of models in this process.
    pub(crate) model: Option<ModelReport>,
    pub(crate) interrupted: bool,
    /// Why it was given up, or what did not end as it should.
    pub(crate) failed: Option<String>,
    pub(crate) flows: Vec<FlowReport>,
    pub(crate) left_out: Vec<LeftOut>,
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
    pub(crate) wall_seconds: f64,
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
        let mut there = self.packets_sent;
        let mut explained = self.drops.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        if let Some(CableReport { counters, again, .. }) = &self.cable {
            there += counters.duplicated;
            explained = explained.saturating_add(counters.lost);
            self.mismatches += again.saturating_sub(counters.duplicated);
        }
        self.lost_without_reason = there.saturating_sub(self.packets_received.saturating_add(explained));
    }

    /// Whether everything that was sent arrived unchanged or was dropped with a reason, and parsers agreed.
    pub(crate) fn is_good(&self) -> bool {
        self.arrived() && self.parser_differences() == 0 && self.failed.is_none()
    }

    /// What is not good, in a sentence without a full stop.
    pub(crate) fn failure(&self) -> String {
        let mut message = format!(
            "{} mismatches, {} packets lost without a reason",
            self.mismatches, self.lost_without_reason
        );
        if self.parser_differences() > 0 {
            message += &format!(", {} differences of the parsers", self.parser_differences());
        }
        if let Some(failed) = &self.failed {
            message += &format!("; {failed}");
        }
        if self.model.is_none() {
            message += &format!("; {}", self.ends_text());
        }
        message
    }

    fn all_faults(&self) -> impl Iterator<Item = &String> {
        self.faults.iter().chain(&self.failed)
    }

    fn arrived(&self) -> bool {
        self.mismatches == 0 && self.lost_without_reason == 0
    }

    fn parser_differences(&self) -> u64 {
        self.model.as_ref().map_or(0, |model| model.parser.differences())
    }

    /// What each NIC counted on its line.
    fn ends_text(&self) -> String {
        let ends = self.ends.iter().map(|EndReport { name, frames_sent, frames_received }| {
            format!("{name} sent {} frames, received {}", grouped(*frames_sent), grouped(*frames_received))
        });
        ends.collect::<Vec<_>>().join("; ")
    }

    /// PCI Express bytes of both NICs a packet: to the device, to the host.
    fn pcie_per_packet(&self, model: &ModelReport) -> (f64, f64) {
        let per_packet = |bytes: u64| round(ratio(bytes as f64, self.packets_sent as f64), 1);
        let [one, other] = model.pcie_bytes;
        (per_packet(one.0 + other.0), per_packet(one.1 + other.1))
    }

    /// Goodput over some time.
    fn gbps(&self, seconds: f64) -> f64 {
        ratio(self.verified_bytes as f64 * 8.0 / 1e9, seconds)
    }

    fn wall_rate(&self) -> f64 {
        ratio(self.packets_sent as f64, self.wall_seconds)
    }

    /// The JSON object; its keys are promised in docs/.
    pub(crate) fn json(&self) -> Value {
        let model = self.model.as_ref();
        let of_model = |value: &dyn Fn(&ModelReport) -> Value| model.map_or(Value::Null, value);
        let flows: Vec<Value> = self
            .flows
            .iter()
            .map(|flow| {
                json!({ "name": flow.name, "protection": flow.protection, "packets_sent": flow.sent,
                        "packets_verified": flow.verified })
            })
            .collect();
        let left_out: Vec<Value> = self
            .left_out
            .iter()
            .map(|LeftOut { flow, reason }| json!({ "name": flow, "reason": reason }))
            .collect();
        let devices: Vec<Value> = self
            .ends
            .iter()
            .map(|end| {
                json!({ "name": end.name, "frames_sent": end.frames_sent, "frames_received": end.frames_received })
            })
            .collect();
        json!({
            "seed": self.seed,
            "devices": devices,
            "preset": of_model(&|model| model.preset.clone().into()),
            "size": self.sizes,
            "parser": of_model(&|model| model.parser.choice.name().into()),
            "parser_cycles": of_model(&|model| model.parser.cycles().into()),
            "parser_differences": of_model(&|model| model.parser.differences().into()),
            "interrupted": self.interrupted,
            "packets_sent": self.packets_sent,
            "packets_received": self.packets_received,
            "packets_verified": self.packets_verified,
            "mismatches": self.mismatches,
            "lost_without_reason": self.lost_without_reason,
            "drops": self.drops,
            "rekeys": self.rekeys,
            "cable": self.cable.as_ref().map(CableReport::json),
            "modelled_seconds": of_model(&|model| model.seconds.into()),
            "modelled_gbps": of_model(&|model| round(self.gbps(model.seconds), 3).into()),
            "modelled_packets_per_second":
                of_model(&|model| ratio(self.packets_verified as f64, model.seconds).round().into()),
            "latency_ns": of_model(&|model| {
                let [p50, p99, max] = model.latency_ns.map(|nanoseconds| round(nanoseconds, 1));
                json!({ "p50": p50, "p99": p99, "max": max })
            }),
            "limiting_stage": of_model(&|model| model.busiest().0.into()),
            "limiting_stage_share": of_model(&|model| round(model.busiest().1, 4).into()),
            "stages": of_model(&|model| {
                let stages = model.stages.iter().map(|(name, share)| (*name, round(*share, 4)));
                json!(stages.collect::<BTreeMap<&str, f64>>())
            }),
            "pcie_bytes_per_packet": of_model(&|model| {
                let (to_device, to_host) = self.pcie_per_packet(model);
                json!({ "to_device": to_device, "to_host": to_host })
            }),
            "wall_seconds": round(self.wall_seconds, 6),
            "wall_packets_per_second": self.wall_rate().round(),
            "wall_gbps": round(self.gbps(self.wall_seconds), 3),
            "flows": flows,
            "flows_left_out": left_out,
            "faults": self.all_faults().collect::<Vec<_>>(),
            "parameters": of_model(&|model| model.parameters.clone()),
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
            "{} {}, frames: {}, seed {}",
            paint.bold("cryptonic run:"),
            match (&self.model, &self.ends[..]) {
                (Some(model), _) => format!("two NICs and a cable, {} preset", model.preset),
                (None, [alone]) => format!("{} and its MAC loopback", alone.name),
                (None, ends) => {
                    ends.iter().map(|end| end.name.as_str()).collect::<Vec<_>>().join(" and ")
                }
            },
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
        line("", if self.arrived() { paint.good(&wrong) } else { paint.bad(&wrong) })?;
        if !self.arrived() && self.model.is_none() {
            line("devices", self.ends_text())?;
        }
        for LeftOut { flow, reason } in &self.left_out {
            line("left out", format!("{flow}: {reason}"))?;
        }
        if let Some(parser) = self.model.as_ref().map(|model| &model.parser)
            && parser.choice != ParserChoice::Model
        {
            let (cycles, differences) = (parser.cycles(), parser.differences());
            let found = format!("{} differences", grouped(differences));
            let found = if differences == 0 { paint.good(&found) } else { paint.bad(&found) };
            line("parser", format!("{}, {} cycles of RTL: {found}", parser.choice.name(), grouped(cycles)))?;
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
        match &self.model {
            Some(model) => {
                let rate = ratio(self.packets_verified as f64, model.seconds) / 1e6;
                line(
                    "modelled",
                    format!(
                        "{:.1} Gb/s of clear frames, both ways together; {rate:.1} M packets/s; {:.3} ms of device time",
                        self.gbps(model.seconds),
                        model.seconds * 1e3
                    ),
                )?;
                let [p50, p99, max] = model.latency_ns;
                line("latency", format!("p50 {}, p99 {}, max {}", time(p50), time(p99), time(max)))?;
                let (stage, share) = model.busiest();
                let verdict =
                    if share >= LIMIT_SHARE { "the limit" } else { "the busiest; nothing is at its limit" };
                line(
                    "limiting stage",
                    format!("{stage}, in use {:.0} % of the time: {verdict}", share * 100.0),
                )?;
                let (to_device, to_host) = self.pcie_per_packet(model);
                line(
                    "PCIe",
                    format!("{to_device:.1} bytes a packet to the device, {to_host:.1} to the host"),
                )?;
                let rate = self.wall_rate() / 1e6;
                line("wall clock", format!("{:.2} s, {rate:.2} M packets/s", self.wall_seconds))?;
            }
            None => {
                let unknown = "time, rate, latency, limiting stage, PCIe bytes: not known on this device";
                line("modelled", unknown.to_owned())?;
                line(
                    "wall clock",
                    format!(
                        "{:.2} s, {} packets/s, {:.3} Gb/s of clear frames: this host's speed as much as the device's",
                        self.wall_seconds,
                        grouped(self.wall_rate().round() as u64),
                        self.gbps(self.wall_seconds)
                    ),
                )?;
            }
        }
        for fault in self.all_faults() {
            line(&paint.bad("fault"), fault.clone())?;
        }
        if self.interrupted {
            writeln!(out, "\n{}", paint.bad("interrupted: what stands here is as far as it went"))?;
        }
        Ok(())
    }
}

impl ModelReport {
    /// The stage that is in use the most, and how much.
    fn busiest(&self) -> (&'static str, f64) {
        self.stages.iter().copied().max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("none", 0.0))
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
