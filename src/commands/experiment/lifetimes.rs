//! `experiment lifetimes`: what a table of SA slots loses when SAs end by bytes or by count, and under which policies.

mod accounts;
mod parameters;
mod policy;
mod rekey;
mod report;
mod simulation;
#[cfg(test)]
mod tests;
mod traffic;
mod tunnel;

use std::path::PathBuf;

use clap::Args;

use self::parameters::{Parameters, Redundant};
use self::policy::Policy;
use self::report::Row;
use crate::error::{Error, Result};
use crate::output::{self, Paint};

/// Arguments of `experiment lifetimes`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Policies: bytes-equal (80 % at both peers), bytes-strongswan, bytes-libreswan (their margins and fuzz), \
                  bytes-events (as bytes-equal, with events of the NIC), count-draft (margins of \
                  draft-liu-ipsecme-ikev2-rekey-redundant-sas), count-events (the same with events).\n\
                  What is modelled and what comes out stands in docs/experiments.md."
)]
pub(crate) struct LifetimesArguments {
    /// Tunnels between the two peers; each needs two slots at either
    #[arg(long, default_value_t = 512, value_name = "N")]
    tunnels: u64,
    /// Slots of each peer's SA table
    #[arg(long, default_value_t = 2048, value_name = "N")]
    slots: u64,
    /// How long, in modelled time
    #[arg(long, default_value_t = 57_600.0, value_name = "S")]
    seconds: f64,
    /// From when on figures are taken
    #[arg(long, default_value_t = 28_800.0, value_name = "S")]
    warm_up_seconds: f64,
    /// Where chance begins; the same seed gives the same output
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Mean rate of all tunnels together, each in its heavier direction
    #[arg(long, default_value_t = 100.0, value_name = "GBPS")]
    rate_gbps: f64,
    /// How uneven tunnels are: the tunnel of rank n has 1 / n^SKEW of the first one's rate
    #[arg(long, default_value_t = 1.0)]
    skew: f64,
    /// By which share a tunnel's other direction is slower, 0 to 1
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    asymmetry: f64,
    /// Mean length of a burst
    #[arg(long, default_value_t = 60.0, value_name = "S")]
    on_seconds: f64,
    /// Mean silence between bursts; 0 for a constant rate
    #[arg(long, default_value_t = 60.0, value_name = "S")]
    off_seconds: f64,
    /// Share of packets lost between the peers, data and IKE, 0 to 0.5
    #[arg(long, default_value_t = 0.0001, value_name = "SHARE")]
    loss: f64,
    /// One way between the peers, for data
    #[arg(long, default_value_t = 5.0, value_name = "MS")]
    delay_ms: f64,
    /// A rekey exchange, the daemons' work included; a peer hears of the other's after half of it
    #[arg(long, default_value_t = 500.0, value_name = "MS")]
    rekey_latency_ms: f64,
    /// A delete exchange
    #[arg(long, default_value_t = 100.0, value_name = "MS")]
    delete_latency_ms: f64,
    /// How long an inbound SA stays after it was deleted, for packets under way
    #[arg(long, default_value_t = 5000.0, value_name = "MS")]
    drain_ms: f64,
    /// First retransmission of an exchange; the timer doubles
    #[arg(long, default_value_t = 2000.0, value_name = "MS")]
    retransmit_ms: f64,
    /// How often a daemon reads its SAs' counters (not with events of the NIC)
    #[arg(long, default_value_t = 2000.0, value_name = "MS")]
    poll_ms: f64,
    /// Hard limit of an SA where bytes are counted
    #[arg(long, default_value_t = 200_000_000_000, value_name = "BYTES")]
    lifetime_bytes: u64,
    /// Hard limit of an SA where packets are counted [default: bytes / 800, the mean packet]
    #[arg(long, value_name = "N")]
    lifetime_packets: Option<u64>,
    /// When an SA that nobody uses or deletes ends
    #[arg(long, default_value_t = 28_800.0, value_name = "S")]
    time_lifetime_seconds: f64,
    /// What becomes of an SA pair too many
    #[arg(long, value_enum, default_value = "keep")]
    redundant: Redundant,
    /// Policies, in this order [default: all]
    #[arg(long, value_delimiter = ',', value_name = "POLICIES")]
    policies: Vec<String>,
    /// Run with each of several values of one option, such as poll-ms=0,500,2000
    #[arg(long, value_name = "OPTION=VALUES")]
    scan: Option<String>,
    /// Write lifetimes.json, lifetimes.txt and plots here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// An option that takes a number: what it may be, and where it stands.
struct Knob {
    name: &'static str,
    low: f64,
    high: f64,
    field: Field,
}

enum Field {
    Whole(fn(&mut LifetimesArguments) -> &mut u64),
    Real(fn(&mut LifetimesArguments) -> &mut f64),
    Packets,
}

/// The longest time of any option, in seconds: more than eleven days.
const SECONDS_MAX: f64 = 1e6;
/// Longest exchange, delay or period, in milliseconds.
const MS_MAX: f64 = 3.6e6;
/// Limits of lifetimes, in bytes or packets; 2^53 is where JSON readers begin to round.
const LIFETIME_MAX: f64 = 9_007_199_254_740_992.0;

const KNOBS: [Knob; 20] = {
    use Field::{Packets, Real, Whole};
    const fn knob(name: &'static str, low: f64, high: f64, field: Field) -> Knob {
        Knob { name, low, high, field }
    }
    [
        knob("tunnels", 1.0, 100_000.0, Whole(|arguments| &mut arguments.tunnels)),
        knob("slots", 2.0, 16_777_216.0, Whole(|arguments| &mut arguments.slots)),
        knob("seconds", 1.0, SECONDS_MAX, Real(|arguments| &mut arguments.seconds)),
        knob("warm-up-seconds", 0.0, SECONDS_MAX, Real(|arguments| &mut arguments.warm_up_seconds)),
        knob("rate-gbps", 0.001, 1e5, Real(|arguments| &mut arguments.rate_gbps)),
        knob("skew", 0.0, 4.0, Real(|arguments| &mut arguments.skew)),
        knob("asymmetry", 0.0, 1.0, Real(|arguments| &mut arguments.asymmetry)),
        knob("on-seconds", 0.1, SECONDS_MAX, Real(|arguments| &mut arguments.on_seconds)),
        knob("off-seconds", 0.0, SECONDS_MAX, Real(|arguments| &mut arguments.off_seconds)),
        knob("loss", 0.0, 0.5, Real(|arguments| &mut arguments.loss)),
        knob("delay-ms", 0.0, MS_MAX, Real(|arguments| &mut arguments.delay_ms)),
        knob("rekey-latency-ms", 1.0, MS_MAX, Real(|arguments| &mut arguments.rekey_latency_ms)),
        knob("delete-latency-ms", 0.0, MS_MAX, Real(|arguments| &mut arguments.delete_latency_ms)),
        knob("drain-ms", 0.0, MS_MAX, Real(|arguments| &mut arguments.drain_ms)),
        knob("retransmit-ms", 1.0, MS_MAX, Real(|arguments| &mut arguments.retransmit_ms)),
        knob("poll-ms", 0.0, MS_MAX, Real(|arguments| &mut arguments.poll_ms)),
        knob("lifetime-bytes", 1e6, LIFETIME_MAX, Whole(|arguments| &mut arguments.lifetime_bytes)),
        knob("lifetime-packets", 1e3, LIFETIME_MAX, Packets),
        knob(
            "time-lifetime-seconds",
            1.0,
            SECONDS_MAX,
            Real(|arguments| &mut arguments.time_lifetime_seconds),
        ),
        knob("seed", 0.0, LIFETIME_MAX, Whole(|arguments| &mut arguments.seed)),
    ]
};

/// The option that is scanned, and its values as they were written.
pub(crate) struct Scan<'a> {
    name: &'static str,
    values: Vec<(&'a str, LifetimesArguments)>,
}

/// Runs.
pub(crate) fn run(arguments: &LifetimesArguments, as_json: bool) -> Result<()> {
    let policies = chosen(&arguments.policies)?;
    let scan = match &arguments.scan {
        Some(text) => Some(scanned(arguments, text)?),
        None => None,
    };
    let once = [("", arguments.clone())];
    let runs = scan.as_ref().map_or(&once[..], |scan| &scan.values);
    let runs: Vec<(&str, Parameters)> =
        runs.iter().map(|(value, arguments)| Ok((*value, arguments.parameters()?))).collect::<Result<_>>()?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
    }
    let bar = output::progress(Some((runs.len() * policies.len()) as u64), "runs");
    let mut rows = Vec::new();
    for (value, parameters) in &runs {
        for policy in &policies {
            let outcome = simulation::simulate(parameters, *policy);
            rows.push(Row::new(*policy, (*value).to_owned(), parameters.clone(), outcome));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let scanned = scan.as_ref().map(|scan| scan.name);
    let object = report::as_object(arguments.seed, scanned, &rows);
    if let Some(folder) = &arguments.out {
        report::write_files(folder, &object, scanned, &rows)?;
    }
    if as_json {
        output::print_json(&object)
    } else {
        output::print(&report::text(scanned, &rows, Paint::for_stdout()))
    }
}

/// The policies that were named, or all.
fn chosen(names: &[String]) -> Result<Vec<Policy>> {
    if names.is_empty() {
        return Ok(Policy::ALL.to_vec());
    }
    names
        .iter()
        .map(|name| {
            Policy::ALL.into_iter().find(|policy| policy.name == name).ok_or_else(|| {
                let known = Policy::ALL.map(|policy| policy.name).join(", ");
                Error::at("--policies", format_args!("no `{name}`; known are {known}"))
            })
        })
        .collect()
}

/// Reads OPTION=VALUE,VALUE,...
fn scanned<'a>(arguments: &LifetimesArguments, text: &'a str) -> Result<Scan<'a>> {
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| Error::at("--scan", "wants an option and its values, such as poll-ms=0,500,2000"))?;
    let name = name.trim_start_matches("--");
    let knob = KNOBS.iter().find(|knob| knob.name == name).ok_or_else(|| {
        let known = KNOBS.map(|knob| knob.name).join(", ");
        Error::at("--scan", format_args!("no option `{name}` with a number; known are {known}"))
    })?;
    let values = values
        .split(',')
        .map(|value| {
            let mut arguments = arguments.clone();
            let bad = || Error::at("--scan", format_args!("`{value}` is no number that --{name} takes"));
            match knob.field {
                Field::Whole(field) => *field(&mut arguments) = value.parse().map_err(|_| bad())?,
                Field::Real(field) => *field(&mut arguments) = value.parse().map_err(|_| bad())?,
                Field::Packets => arguments.lifetime_packets = Some(value.parse().map_err(|_| bad())?),
            }
            Ok((value, arguments))
        })
        .collect::<Result<_>>()?;
    Ok(Scan { name: knob.name, values })
}

impl LifetimesArguments {
    /// Checked, and in the units of the simulation.
    fn parameters(&self) -> Result<Parameters> {
        let mut copy = self.clone();
        for knob in &KNOBS {
            let value = match knob.field {
                Field::Whole(field) => *field(&mut copy) as f64,
                Field::Real(field) => *field(&mut copy),
                Field::Packets => self.packets() as f64,
            };
            if !(knob.low..=knob.high).contains(&value) {
                let message = format_args!("{value}: wants {} to {}", knob.low, knob.high).to_string();
                return Err(Error::at(format_args!("--{}", knob.name), message));
            }
        }
        if self.warm_up_seconds >= self.seconds {
            let message =
                format!("{}: wants less than the {} of --seconds", self.warm_up_seconds, self.seconds);
            return Err(Error::at("--warm-up-seconds", message));
        }
        let seconds = |seconds: f64| (seconds * 1e9).round() as u64;
        let milliseconds = |milliseconds: f64| (milliseconds * 1e6).round() as u64;
        Ok(Parameters {
            tunnels: self.tunnels as u32,
            slots: self.slots as u32,
            end_ns: seconds(self.seconds),
            warm_up_ns: seconds(self.warm_up_seconds),
            seed: self.seed,
            bytes_per_second: (self.rate_gbps * 1e9 / 8.0).round() as u64,
            skew: self.skew,
            asymmetry: self.asymmetry,
            on_ns: seconds(self.on_seconds),
            off_ns: seconds(self.off_seconds),
            loss_millionths: (self.loss * 1e6).round() as u64,
            delay_ns: milliseconds(self.delay_ms),
            rekey_ns: milliseconds(self.rekey_latency_ms),
            delete_ns: milliseconds(self.delete_latency_ms),
            drain_ns: milliseconds(self.drain_ms),
            retransmit_ns: milliseconds(self.retransmit_ms),
            poll_ns: milliseconds(self.poll_ms),
            lifetime_bytes: self.lifetime_bytes,
            lifetime_packets: self.packets(),
            time_lifetime_ns: seconds(self.time_lifetime_seconds),
            redundant: self.redundant,
        })
    }

    fn packets(&self) -> u64 {
        self.lifetime_packets.unwrap_or(self.lifetime_bytes / traffic::PACKET_BYTES)
    }
}
