//! What the runs came to: a table, JSON and plots.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::super::plot::{Plot, Series};
use super::accounts::State;
use super::parameters::Parameters;
use super::policy::Policy;
use super::simulation::{Outcome, SLOTS_A_PAIR};
use crate::error::Result;
use crate::output::{OutputFile, Paint};
use crate::report::grouped;

/// A policy in one run.
#[derive(Clone, Debug)]
pub(super) struct Row {
    policy: Policy,
    /// Of the option that is scanned, as it was written; else empty.
    value: String,
    parameters: Parameters,
    outcome: Outcome,
}

impl Row {
    pub(super) fn new(policy: Policy, value: String, parameters: Parameters, outcome: Outcome) -> Row {
        Row { policy, value, parameters, outcome }
    }

    fn slot_seconds(&self, state: State) -> f64 {
        self.outcome.accounts.slot_seconds(state)
    }

    fn unneeded_slot_seconds(&self) -> f64 {
        self.slot_seconds(State::Old) + self.slot_seconds(State::Redundant)
    }

    fn occupied_slot_seconds(&self) -> f64 {
        self.unneeded_slot_seconds() + self.slot_seconds(State::InUse) + self.slot_seconds(State::SettingUp)
    }

    /// Of the occupied slots, those that hold an SA that is not needed.
    pub(super) fn wasted_share(&self) -> f64 {
        share(self.unneeded_slot_seconds(), self.occupied_slot_seconds())
    }

    /// The same, of all slots of both tables.
    fn wasted_share_of_table(&self) -> f64 {
        share(self.unneeded_slot_seconds(), 2.0 * f64::from(self.parameters.slots) * self.measured_seconds())
    }

    fn mean_slots(&self) -> f64 {
        share(self.occupied_slot_seconds(), 2.0 * self.measured_seconds())
    }

    fn measured_seconds(&self) -> f64 {
        (self.parameters.end_ns - self.parameters.warm_up_ns) as f64 / 1e9
    }

    /// Of the slots that the table must have, those that cannot be given to tunnels. None if it had too few.
    pub(super) fn headroom_share(&self) -> Option<f64> {
        let tunnels = (SLOTS_A_PAIR * u64::from(self.parameters.tunnels)) as f64;
        (self.outcome.waits == 0).then(|| 1.0 - share(tunnels, self.outcome.accounts.peak() as f64))
    }

    fn json(&self, scanned: Option<&str>) -> Value {
        let outcome = &self.outcome;
        let mut object = json!({
            "policy": self.policy.name,
            "wasted_share": round(self.wasted_share(), 6),
            "peak_slots": outcome.accounts.peak(),
            "redundant_sas": outcome.redundant_sas,
            "simultaneous_rekeys": outcome.simultaneous_rekeys,
            "packets_refused": outcome.packets_refused,
            "wasted_share_of_table": round(self.wasted_share_of_table(), 6),
            "headroom_share": self.headroom_share().map(|share| round(share, 6)),
            "mean_slots": round(self.mean_slots(), 3),
            "rekeys": outcome.rekeys,
            "waits_for_slots": outcome.waits,
            "packets_sent": outcome.packets_sent,
            "slot_seconds": {
                "in_use": round(self.slot_seconds(State::InUse), 3),
                "setting_up": round(self.slot_seconds(State::SettingUp), 3),
                "old": round(self.slot_seconds(State::Old), 3),
                "redundant": round(self.slot_seconds(State::Redundant), 3),
            },
        });
        if let (Some(name), Some(object)) = (scanned, object.as_object_mut()) {
            // Every value that was run is a number.
            let whole = self.value.parse::<u64>().map(Value::from);
            let value = whole.unwrap_or_else(|_| self.value.parse::<f64>().map_or(Value::Null, Value::from));
            object.insert("scanned".to_owned(), json!({ name: value }));
        }
        object
    }
}

/// The JSON object; its keys are promised in docs/.
pub(super) fn as_object(seed: u64, scanned: Option<&str>, rows: &[Row]) -> Value {
    let objects: Vec<Value> = rows.iter().map(|row| row.json(scanned)).collect();
    json!({
        "seed": seed,
        "rows": objects,
        "parameters": rows.first().map(|row| parameters_json(&row.parameters)),
    })
}

/// Every effective parameter; of a scan, those of its first value.
fn parameters_json(parameters: &Parameters) -> Value {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    json!({
        "tunnels": parameters.tunnels,
        "slots": parameters.slots,
        "seconds": seconds(parameters.end_ns),
        "warm_up_seconds": seconds(parameters.warm_up_ns),
        "rate_gbps": parameters.bytes_per_second as f64 * 8.0 / 1e9,
        "skew": parameters.skew,
        "asymmetry": parameters.asymmetry,
        "on_seconds": seconds(parameters.on_ns),
        "off_seconds": seconds(parameters.off_ns),
        "loss": parameters.loss_millionths as f64 / 1e6,
        "delay_ms": milliseconds(parameters.delay_ns),
        "rekey_latency_ms": milliseconds(parameters.rekey_ns),
        "delete_latency_ms": milliseconds(parameters.delete_ns),
        "drain_ms": milliseconds(parameters.drain_ns),
        "retransmit_ms": milliseconds(parameters.retransmit_ns),
        "poll_ms": milliseconds(parameters.poll_ns),
        "lifetime_bytes": parameters.lifetime_bytes,
        "lifetime_packets": parameters.lifetime_packets,
        "time_lifetime_seconds": seconds(parameters.time_lifetime_ns),
        "redundant": parameters.redundant.name(),
    })
}

/// The tables.
pub(super) fn text(scanned: Option<&str>, rows: &[Row], paint: Paint) -> String {
    let mut text = String::new();
    let Some(first) = rows.first() else { return text };
    let parameters = &first.parameters;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} {} tunnels, {} slots at each peer, {} s after {} s of warm-up, seed {}",
        paint.bold("cryptonic experiment lifetimes:"),
        parameters.tunnels,
        parameters.slots,
        first.measured_seconds(),
        parameters.warm_up_ns as f64 / 1e9,
        parameters.seed
    );
    let _ = writeln!(
        text,
        "{} Gb/s, hard limits {} bytes or {} packets, polled every {} ms; redundant SAs: {}{}",
        parameters.bytes_per_second as f64 * 8.0 / 1e9,
        grouped(parameters.lifetime_bytes),
        grouped(parameters.lifetime_packets),
        parameters.poll_ns as f64 / 1e6,
        parameters.redundant.name(),
        if scanned.is_some() { " (at the first value)" } else { "" },
    );
    let mut last = None;
    for row in rows {
        if last != Some(&row.value) {
            last = Some(&row.value);
            let title = scanned.map(|name| format!("{}\n", paint.bold(&format!("{name} {}", row.value))));
            let _ = write!(text, "\n{}", title.unwrap_or_default());
            let header = format!(
                "  {:<17} {:>8} {:>9} {:>7} {:>7} {:>9} {:>13} {:>10} {:>7} {:>16}",
                "policy",
                "wasted",
                "headroom",
                "mean",
                "peak",
                "rekeys",
                "simultaneous",
                "redundant",
                "waits",
                "packets refused"
            );
            let _ = writeln!(text, "{}", paint.dim(&header));
        }
        let outcome = &row.outcome;
        let headroom = row
            .headroom_share()
            .map_or_else(|| "too few".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let _ = writeln!(
            text,
            "  {:<17} {:>6.1} % {:>9} {:>7.0} {:>7} {:>9} {:>13} {:>10} {:>7} {:>16}",
            row.policy.name,
            row.wasted_share() * 100.0,
            headroom,
            row.mean_slots(),
            outcome.accounts.peak(),
            grouped(outcome.rekeys),
            grouped(outcome.simultaneous_rekeys),
            grouped(outcome.redundant_sas),
            grouped(outcome.waits),
            grouped(outcome.packets_refused),
        );
    }
    let _ = writeln!(
        text,
        "\nwasted: slot-time of SAs that are old or redundant, of all that is occupied. headroom: slots beyond two a tunnel,\n\
         of the most that were occupied at once. simultaneous: rekeys that both peers began. redundant: SAs made so."
    );
    text
}

/// The object, the tables and the plots.
pub(super) fn write_files(folder: &Path, object: &Value, scanned: Option<&str>, rows: &[Row]) -> Result<()> {
    OutputFile::write_whole(&folder.join("lifetimes.json"), format!("{object:#}\n").as_bytes())?;
    OutputFile::write_whole(&folder.join("lifetimes.txt"), text(scanned, rows, Paint::default()).as_bytes())?;
    let mut values: Vec<&str> = rows.iter().map(|row| row.value.as_str()).collect();
    values.dedup();
    for value in &values {
        let of_value = || rows.iter().filter(|row| row.value == *value);
        let title = match scanned {
            Some(name) => format!("slots occupied, {name} {value}"),
            None => "slots occupied".to_owned(),
        };
        let name = match scanned {
            Some(_) => format!("lifetimes-occupancy-{value}"),
            None => "lifetimes-occupancy".to_owned(),
        };
        let series = of_value()
            .map(|row| Series::line(row.policy.name, row.outcome.accounts.curve(row.parameters.end_ns)));
        let plot = Plot { title: &title, x_label: "seconds", log_x: false, series: series.collect() };
        plot.write(folder, &name)?;
    }
    let Some(name) = scanned.filter(|_| values.len() > 1) else { return Ok(()) };
    let series = Policy::ALL.iter().filter_map(|policy| {
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| row.policy.name == policy.name)
            .filter_map(|row| Some((row.value.parse().ok()?, row.wasted_share() * 100.0)))
            .collect();
        (!points.is_empty()).then(|| Series::line(policy.name, points))
    });
    let log_x = spans_decades(rows);
    let plot =
        Plot { title: "share of occupied slots wasted, %", x_label: name, log_x, series: series.collect() };
    plot.write(folder, "lifetimes-wasted")
}

/// Whether the scanned values are above 0 and so far apart that a linear axis would crowd them.
fn spans_decades(rows: &[Row]) -> bool {
    let values = rows.iter().filter_map(|row| row.value.parse::<f64>().ok());
    let (low, high) =
        values.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    low > 0.0 && high / low >= 20.0
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
