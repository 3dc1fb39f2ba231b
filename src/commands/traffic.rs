//! The traffic of `run` and `bench`: a driver and its side of every flow at each end of the cable, sending, receiving
//! and comparing until everything has drained.

mod setup;
mod side;
mod wall;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cryptonic_driver::{Statistics, Status};
use cryptonic_hwmodel::{CableParameters, Parameters};
use cryptonic_pci::Time;
use indicatif::ProgressBar;

use super::protections::Keys;
use super::rekeying::Rekeying;
use super::run::parameters_json;
use crate::cable::CableReport;
use crate::capture;
use crate::device::{DeviceName, Pair, Reading};
use crate::error::{Error, Result};
use crate::output::{self, Interrupt};
use crate::parser::{ParserChoice, ParserReport};
use crate::report::{EndReport, FlowReport, LeftOut, ModelReport, Report};

pub(crate) use side::{Lane, SCATTERED_HEAD_BYTES, Side, far, near};

/// Loops between two looks at the wall clock, the interrupt flag and the progress bar.
const LOOPS_PER_LOOK: u64 = 1024;
/// Modelled time without any progress after which a run gives up.
const PATIENCE: Time = Time::from_milliseconds(20);
/// Packets alone before those that count: they fetch the contexts of the SAs.
const WARM_UP: u64 = 2;

/// What a run is made of, besides its flows.
pub(crate) struct Settings<'a> {
    pub(crate) packets: u64,
    /// Slots of the transmit rings; the receive rings have twice as many.
    pub(crate) transmit_slots: u32,
    pub(crate) seed: u64,
    pub(crate) ends: Ends<'a>,
}

/// What the NICs are, and what joins them.
pub(crate) enum Ends<'a> {
    /// Two models in this process, and the cable between them.
    Models(Models<'a>),
    /// Two devices that a cable joins, or one that its MAC loopback joins with itself.
    Devices(Vec<DeviceName>),
}

/// Two models in this process.
pub(crate) struct Models<'a> {
    pub(crate) preset: &'a str,
    pub(crate) parameters: &'a Parameters,
    pub(crate) cable: CableParameters,
    pub(crate) parser: ParserChoice,
}

impl<'a> Models<'a> {
    /// On a plain cable, with the model's own parsers.
    pub(crate) fn plain(preset: &'a str, parameters: &'a Parameters) -> Models<'a> {
        Models { preset, parameters, cable: CableParameters::default(), parser: ParserChoice::Model }
    }
}

/// NICs with their hosts, ready to run.
pub(crate) struct Bench {
    /// Clock, cable and measurements of models; devices have none of it.
    pair: Option<Pair>,
    /// Two, or the one device that is both ends.
    sides: Vec<Side>,
    lanes: Vec<Lane>,
    flows: Vec<FlowReport>,
    left_out: Vec<LeftOut>,
    /// Of the flows whose SAs have limits, if there are any.
    rekeying: Option<Rekeying>,
    keys: Keys,
    transmit_slots: u32,
    wire: Option<Rc<RefCell<WireCapture>>>,
}

/// What packets cost and took that were sent one at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alone {
    pub(crate) verified: u64,
    /// PCI Express bytes of the sending NIC: to the device, to the host.
    pub(crate) pcie_bytes: (u64, u64),
    /// Means.
    pub(crate) first_byte_ns: f64,
    pub(crate) latency_ns: f64,
}

/// The capture of the cable, and what went wrong with it first.
struct WireCapture {
    output: Option<capture::Output>,
    error: Option<Error>,
}

impl Bench {
    /// Flows that a NIC cannot serve, and why.
    pub(crate) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Sends and compares until everything has drained. Not inlined: `tests/instructions.sh` counts what happens in here.
    #[inline(never)]
    pub(crate) fn run(&mut self, settings: &Settings<'_>) -> Result<Report> {
        let mut report = Report { seed: settings.seed, left_out: self.left_out.clone(), ..Report::default() };
        let interrupt = Interrupt::listen()?;
        let bar = output::progress(Some(settings.packets), "packets");
        let before = self.statistics()?;
        match (self.pair.clone(), &settings.ends) {
            (Some(pair), Ends::Models(models)) => {
                self.drive_models(&pair, models, &mut report, &interrupt, &bar)?;
            }
            _ => self.drive_devices(&mut report, &before, &interrupt, &bar).map_err(|error| {
                let message = format!("{}, after {} packets", error.message(), report.packets_sent);
                Error::at(error.place().unwrap_or("device"), message)
            })?,
        }
        bar.finish_and_clear();
        self.conclude(&mut report, &before)?;
        Ok(report)
    }

    /// Two models: their time goes on as their hosts look, and tells when nothing is under way any more.
    fn drive_models(
        &mut self,
        pair: &Pair,
        models: &Models<'_>,
        report: &mut Report,
        interrupt: &Interrupt,
        bar: &ProgressBar,
    ) -> Result<()> {
        pair.settle();
        pair.reset_latencies();
        let before = pair.read();
        let started = Instant::now();

        let mut loops = 0_u64;
        let (mut last, mut idle) = (1, [false; 2]);
        let mut progress = (0, before.now);
        loop {
            // The host that is behind acts next; hosts that are level take turns.
            let times = [self.sides[0].time(), self.sides[1].time()];
            let host = if times[0] == times[1] { 1 - last } else { usize::from(times[1] < times[0]) };
            last = host;
            idle[host] = !self.turn(host, report, usize::MAX)?;
            let other_is_due = !idle[1 - host] && times[1 - host] <= times[host];
            if idle[host] && !other_is_due {
                if !self.sides.iter().any(|side| side.left > 0 || side.in_flight() > 0) {
                    break;
                }
                self.sides[host].nic.relax();
                idle = [false; 2];
            }
            loops += 1;
            if loops.is_multiple_of(LOOPS_PER_LOOK) {
                bar.set_position(report.packets_received);
                if interrupt.came() && !report.interrupted {
                    report.interrupted = true;
                    self.sides.iter_mut().for_each(|side| side.left = 0);
                }
                let now = pair.read().now;
                if report.packets_sent + report.packets_received != progress.0 {
                    progress = (report.packets_sent + report.packets_received, now);
                } else if now.since(progress.1) > PATIENCE {
                    report.failed = Some("the NICs stopped moving packets".to_owned());
                    break;
                }
            }
        }
        // What is in the NICs and on the cable still arrives, and the hosts still take it as it comes.
        loop {
            let drained = pair.drained();
            let mut taken = false;
            for side in &mut self.sides {
                taken |= side.take(&mut self.lanes, report)?;
            }
            if drained && !taken {
                break;
            }
            self.sides[0].nic.relax();
        }
        report.wall_seconds = started.elapsed().as_secs_f64();
        let after = pair.read();
        if !models.cable.is_plain() {
            let arrived = self.lanes.iter().filter_map(|lane| lane.arrived.as_ref());
            report.cable = Some(CableReport::new(&models.cable, pair.cable_counters(), arrived));
        }
        report.model = Some(measured(pair, models, &before, &after));
        Ok(())
    }

    /// One side does what there is to do: sends at most `room` packets, takes what arrived, renews its SAs. Says whether
    /// there was anything.
    fn turn(&mut self, side: usize, report: &mut Report, room: usize) -> Result<bool> {
        let sent = self.sides[side].send(&mut self.lanes, report, room)?;
        let taken = self.sides[side].take(&mut self.lanes, report)?;
        if let Some(rekeying) = &mut self.rekeying {
            rekeying.look(side, &mut self.sides, &mut self.lanes, &mut self.keys)?;
        }
        Ok(sent || taken)
    }

    /// Sends packets from the first of two models one at a time, each when the one before has arrived, after a few to warm up.
    pub(crate) fn run_alone(&mut self, packets: u64) -> Result<Alone> {
        let mut report = Report::default();
        let mut alone = Alone::default();
        let Some(pair) = self.pair.clone() else { return Ok(alone) };
        for number in 0..WARM_UP + packets {
            pair.settle();
            pair.reset_latencies();
            let before = pair.read().pcie_bytes[0];
            self.sides[0].left = 1;
            self.sides[0].send(&mut self.lanes, &mut report, usize::MAX)?;
            pair.settle();
            let after = pair.read().pcie_bytes[0];
            let verified = report.packets_verified;
            for side in &mut self.sides {
                side.take(&mut self.lanes, &mut report)?;
            }
            if number >= WARM_UP {
                alone.verified += report.packets_verified - verified;
                alone.pcie_bytes.0 += after.0 - before.0;
                alone.pcie_bytes.1 += after.1 - before.1;
                alone.first_byte_ns += pair.first_bytes().mean().nanoseconds() / packets as f64;
                alone.latency_ns += pair.latencies().max().nanoseconds() / packets as f64;
            }
        }
        Ok(alone)
    }

    /// Closes the NICs, so that devices are left as they were found: without keys, SAs and loopback.
    pub(crate) fn close(self, report: &mut Report) {
        for side in self.sides {
            if let Err(error) = side.close() {
                report.failed.get_or_insert(format!("closing {error}"));
            }
        }
    }

    /// The counters of each NIC.
    fn statistics(&mut self) -> Result<Vec<Statistics>> {
        let ask = |side: &mut Side| side.nic.statistics().map_err(|error| Error::at(&side.name, error));
        self.sides.iter_mut().map(ask).collect()
    }

    fn conclude(&mut self, report: &mut Report, before: &[Statistics]) -> Result<()> {
        let after = self.statistics()?;
        report.drops = drops(before, &after);
        report.ends = self
            .sides
            .iter()
            .zip(before.iter().zip(&after))
            .map(|(side, (before, after))| EndReport {
                name: side.name.clone(),
                frames_sent: after.transmitted_frames().saturating_sub(before.transmitted_frames()),
                frames_received: after.received_frames().saturating_sub(before.received_frames()),
            })
            .collect();
        let mut flows = self.flows.clone();
        for lane in &self.lanes {
            flows[lane.flow].sent += u64::from(lane.sent);
            flows[lane.flow].verified += lane.verified;
        }
        report.flows = flows;
        report.rekeys = self.rekeying.as_ref().map(|rekeying| rekeying.count);
        report.balance();
        let parser_faults = report.model.as_ref().map(|model| model.parser.faults());
        parser_faults.into_iter().flatten().for_each(|fault| report.fault(|| fault));
        if let Some(wire) = self.wire.take() {
            let mut wire = wire.borrow_mut();
            if let Some(error) = wire.error.take() {
                return Err(error);
            }
            if let Some(output) = wire.output.take() {
                output.finish()?;
            }
        }
        Ok(())
    }
}

/// Packets that did not end well since `before`, by reason, as the NICs count them.
fn drops(before: &[Statistics], after: &[Statistics]) -> BTreeMap<&'static str, u64> {
    let mut drops = BTreeMap::new();
    for (before, after) in before.iter().zip(after) {
        for (status, count) in after.packets_by_status().filter(|(status, _)| *status != Status::Ok) {
            let count = count.saturating_sub(before.packets(status));
            if count > 0 {
                let sum: &mut u64 = drops.entry(status.name()).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }
    drops
}

/// What the models measured between two readings.
fn measured(pair: &Pair, models: &Models<'_>, before: &Reading, after: &Reading) -> ModelReport {
    let elapsed = after.now.since(before.now);
    let latencies = pair.latencies();
    let share = |index: usize, nic: usize| {
        let span = after.busy[nic][index].1.since(before.busy[nic][index].1);
        if elapsed == Time::ZERO { 0.0 } else { span.0 as f64 / elapsed.0 as f64 }
    };
    let stages = after.busy[0].iter().enumerate();
    ModelReport {
        preset: models.preset.to_owned(),
        parameters: parameters_json(models.parameters),
        parser: ParserReport { choice: models.parser, outcomes: pair.parser_outcomes() },
        seconds: elapsed.seconds(),
        latency_ns: [latencies.quantile(0.5), latencies.quantile(0.99), latencies.max()]
            .map(Time::nanoseconds),
        stages: stages.map(|(index, (name, _))| (*name, share(index, 0).max(share(index, 1)))).collect(),
        pcie_bytes: [0, 1].map(|nic: usize| {
            let (before, after) = (before.pcie_bytes[nic], after.pcie_bytes[nic]);
            (after.0 - before.0, after.1 - before.1)
        }),
    }
}

impl WireCapture {
    fn hear(&mut self, time: Time, frame: &[u8]) {
        let Some(output) = self.output.as_mut().filter(|_| self.error.is_none()) else { return };
        let time = Duration::from_nanos(time.picoseconds() / 1_000);
        if let Err(error) = output.write(time, 0, frame) {
            self.error = Some(error);
        }
    }
}
