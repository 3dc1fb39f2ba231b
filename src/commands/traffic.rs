//! The traffic of `run` and `bench`: a driver and its side of every flow at each end of the cable, sending, receiving
//! and comparing until everything has drained.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cryptonic_driver::{Nic, QueuePair, QueuePairOptions, Received, Status, TransmitPacket, Transmitted};
use cryptonic_hwmodel::{CableParameters, Parameters};
use cryptonic_pci::Time;

use super::protections::{EspLane, FIRST_SPI, describe, psp};
use super::rekeying::Rekeying;
use super::run::{ModelArguments, parameters_json};
use crate::cable::{Arrived, CableReport};
use crate::capture;
use crate::device::{Pair, Reading};
use crate::error::{Error, Result};
use crate::flow::{Descriptor, Flow, Protection};
use crate::output::{self, Interrupt};
use crate::parser::{ParserChoice, ParserReport};
use crate::report::{FlowReport, Report};
use crate::sa_file::PSP_UDP_PORT;
use crate::workload::{self, Random, Stream};

/// Packets the driver is handed at a time.
const BATCH: usize = 64;
/// Loops between two looks at the wall clock, the interrupt flag and the progress bar.
const LOOPS_PER_LOOK: u64 = 1024;
/// Modelled time without any progress after which a run gives up.
const PATIENCE: Time = Time::from_milliseconds(20);
/// A scattered frame's headers: those of Ethernet, IPv4 and TCP.
pub(crate) const SCATTERED_HEAD_BYTES: usize = 54;
/// Packets alone before those that count: they fetch the contexts of the SAs.
const WARM_UP: u64 = 2;
/// Receive slots of a queue pair that only sends.
const IDLE_SLOTS: u32 = 2;

/// What a run is made of, besides its flows.
pub(crate) struct Settings<'a> {
    pub(crate) packets: u64,
    /// Slots of the transmit rings; the receive rings have twice as many.
    pub(crate) transmit_slots: u32,
    pub(crate) parameters: &'a Parameters,
    pub(crate) model: &'a ModelArguments,
    pub(crate) cable: CableParameters,
    pub(crate) parser: ParserChoice,
}

/// A stream one way: how it is sent, and how far both ends are.
pub(super) struct Lane {
    stream: Stream,
    flow: usize,
    /// Which of its side's queues it leaves by.
    queue: usize,
    pub(super) protection: cryptonic_driver::Protection,
    pub(super) sent: u32,
    /// Number of the packet that is due next at the far end.
    pub(super) due: u32,
    /// Behind a cable that is not plain: which packets arrived.
    arrived: Option<Arrived>,
    received: u64,
    verified: u64,
}

/// A queue pair, and what is about to leave by it.
struct Queue {
    pair: QueuePair,
    descriptor: Descriptor,
    batch: Vec<TransmitPacket>,
}

/// One NIC and what its host does.
pub(super) struct Side {
    pub(super) nic: Nic,
    /// One for each kind of descriptor. Everything is received by the first.
    queues: Vec<Queue>,
    /// Indices of the lanes that leave from here, as often as their weight says.
    schedule: Vec<u32>,
    next: usize,
    left: u64,
    completed: Vec<Transmitted>,
    received: Vec<Received>,
    buffer: Vec<u8>,
    /// Lanes that end here, by the SPI of PSP.
    psp_lanes: HashMap<u32, u32>,
    last_psp: (u32, u32),
}

/// Two NICs with their hosts, ready to run.
pub(crate) struct Bench {
    pair: Pair,
    sides: [Side; 2],
    lanes: Vec<Lane>,
    flows: Vec<FlowReport>,
    /// Of the flows whose SAs have limits, if there are any.
    rekeying: Option<Rekeying>,
    random: Random,
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

pub(super) fn device_error(error: impl std::fmt::Display) -> Error {
    Error::at("device", error)
}

impl Bench {
    /// Opens the NICs and installs the SAs and keys of the flows.
    pub(crate) fn new(
        settings: &Settings<'_>,
        flows: &[Flow],
        wire: Option<capture::Output>,
    ) -> Result<Bench> {
        let mut random = Random::new(settings.model.seed);
        let Settings { parameters, model, cable, .. } = settings;
        let parsers = [settings.parser.parser(parameters)?, settings.parser.parser(parameters)?];
        let (pair, nics) = Pair::open(&model.device, parameters, parsers, cable, model.seed)?;
        let mut sides = Vec::new();
        for mut nic in nics {
            nic.psp_rotate().map_err(device_error)?;
            let versions = nic.information().capabilities.protocol.psp_versions();
            nic.psp_receive(versions, PSP_UDP_PORT).map_err(device_error)?;
            sides.push(nic);
        }

        // Streams first: their longest frame decides how large buffers are.
        let mut streams = Vec::new();
        for (flow_index, flow) in flows.iter().enumerate() {
            for way in 0..2 {
                for _ in (0..flow.count).filter(|_| flow.ways[way]) {
                    let index = streams.len();
                    streams.push((flow_index, way, Stream::new(flow, index, way, &mut random)?));
                }
            }
        }
        let longest = streams.iter().map(|(_, _, stream)| stream.longest()).max().unwrap_or(0);
        if longest as u64 > settings.parameters.capacity.frame_bytes {
            let limit = settings.parameters.capacity.frame_bytes;
            return Err(Error::at(
                "--size",
                format_args!("frames of {longest} bytes; capacity.frame_bytes is {limit}"),
            ));
        }
        let buffer_bytes = longest.next_power_of_two().clamp(2048, 16_384) as u32;
        let mut queues = [Vec::new(), Vec::new()];
        for (way, nic) in sides.iter_mut().enumerate() {
            let mut descriptors: Vec<Descriptor> = Vec::new();
            for (flow, ..) in streams.iter().filter(|(_, of, _)| *of == way) {
                if !descriptors.contains(&flows[*flow].descriptor) {
                    descriptors.push(flows[*flow].descriptor);
                }
            }
            if descriptors.is_empty() {
                // A side that sends nothing still receives.
                descriptors.push(Descriptor::STRIDE_64);
            }
            for descriptor in descriptors {
                let (inline, push) = descriptor.policies();
                let first = queues[way].is_empty();
                let options = QueuePairOptions {
                    stride: descriptor.stride,
                    transmit_slots: settings.transmit_slots,
                    receive_slots: if first { settings.transmit_slots * 2 } else { IDLE_SLOTS },
                    buffer_bytes,
                    inline,
                    push,
                    ..QueuePairOptions::default()
                };
                let pair = nic.create_queue_pair(options).map_err(device_error)?;
                queues[way].push(Queue { pair, descriptor, batch: Vec::with_capacity(BATCH) });
            }
        }
        let mut lanes = Vec::with_capacity(streams.len());
        let mut weights = [Vec::new(), Vec::new()];
        let mut psp_lanes = [HashMap::new(), HashMap::new()];
        let mut limited = Vec::new();
        for (flow_index, way, stream) in streams {
            let flow = &flows[flow_index];
            let lane = lanes.len() as u32;
            let queue = queues[way].iter().position(|queue| queue.descriptor == flow.descriptor).unwrap_or(0);
            let protection = match flow.protection {
                Protection::Psp(form) => {
                    let pair = &mut queues[way][queue].pair;
                    let (spi, protection) = psp(&mut sides, pair, way, lane, form)?;
                    psp_lanes[1 - way].insert(spi, lane);
                    protection
                }
                Protection::Esp(form) => {
                    let inner = [way, 1 - way].map(|side| workload::address(flow.ipv6, lane as usize, side));
                    let esp = EspLane { way, lane, form, inner };
                    let sas =
                        esp.install(nics_of(&mut sides)?, FIRST_SPI + lane, form.sequence, &mut random)?;
                    if form.lifetime.is_some() {
                        limited.push((lane, esp, sas));
                    }
                    cryptonic_driver::Protection::Sa(sas[0])
                }
            };
            weights[way].push((lane, flow.weight));
            lanes.push(Lane {
                stream,
                flow: flow_index,
                queue,
                protection,
                sent: 0,
                due: 0,
                arrived: (!cable.is_plain()).then(|| Arrived::new(flow)),
                received: 0,
                verified: 0,
            });
        }
        let totals =
            weights.each_ref().map(|lanes| lanes.iter().map(|(_, weight)| *weight as u64).sum::<u64>());
        let all = totals[0] + totals[1];
        let first = (u128::from(settings.packets) * u128::from(totals[0]) / u128::from(all.max(1))) as u64;
        let mut left = [first, settings.packets - first];
        let sides = sides.into_iter().zip(queues).zip(weights).zip(psp_lanes).zip(&mut left).map(
            |((((nic, queues), weights), psp_lanes), left)| {
                let order =
                    workload::schedule(&weights.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
                Side {
                    nic,
                    queues,
                    schedule: order.iter().map(|index| weights[*index as usize].0).collect(),
                    next: 0,
                    left: *left,
                    completed: Vec::with_capacity(BATCH),
                    received: Vec::with_capacity(2 * BATCH),
                    buffer: vec![0; 16_384],
                    psp_lanes,
                    last_psp: (0, 0),
                }
            },
        );
        let mut sides: [Side; 2] =
            sides.collect::<Vec<_>>().try_into().map_err(|_| device_error("there are not two"))?;
        let rekeying = (!limited.is_empty())
            .then(|| {
                let [one, other] = &mut sides;
                let depth = cable.reorder_depth.unwrap_or(0);
                let nics = [&mut one.nic, &mut other.nic];
                let mut rekeying = Rekeying::new(nics, lanes.len() as u32, depth)?;
                limited.into_iter().for_each(|(lane, esp, sas)| rekeying.watch(lane, esp, sas));
                Ok::<_, Error>(rekeying)
            })
            .transpose()?;
        let wire =
            wire.map(|output| Rc::new(RefCell::new(WireCapture { output: Some(output), error: None })));
        if let Some(wire) = &wire {
            let wire = Rc::clone(wire);
            pair.tap(move |time, frame| wire.borrow_mut().hear(time, frame));
        }
        let flows = flows.iter().map(|flow| FlowReport {
            name: flow.name.clone(),
            protection: describe(flow),
            ..FlowReport::default()
        });
        Ok(Bench { pair, sides, lanes, flows: flows.collect(), rekeying, random, wire })
    }

    /// Sends and compares until everything has drained. Not inlined: `tests/instructions.sh` counts what happens in here.
    #[inline(never)]
    pub(crate) fn run(&mut self, settings: &Settings<'_>) -> Result<Report> {
        let mut report = Report { seed: settings.model.seed, ..Report::default() };
        report.parameters = parameters_json(settings.parameters);
        let interrupt = Interrupt::listen()?;
        let bar = output::progress(Some(settings.packets), "packets");
        let drops_before = self.drops()?;
        self.pair.settle();
        self.pair.reset_latencies();
        let before = self.pair.read();
        let started = Instant::now();

        let mut loops = 0_u64;
        let (mut last, mut idle) = (1, [false; 2]);
        let mut progress = (0, before.now);
        loop {
            // The host that is behind acts next; hosts that are level take turns.
            let times = [self.sides[0].time(), self.sides[1].time()];
            let host = if times[0] == times[1] { 1 - last } else { usize::from(times[1] < times[0]) };
            last = host;
            let sent = self.sides[host].send(&mut self.lanes, &mut report)?;
            let taken = self.take(host, &mut report)?;
            if let Some(rekeying) = &mut self.rekeying {
                rekeying.look(host, &mut self.sides, &mut self.lanes, &mut self.random)?;
            }
            idle[host] = !sent && !taken;
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
                let now = self.pair.read().now;
                if report.packets_sent + report.packets_received != progress.0 {
                    progress = (report.packets_sent + report.packets_received, now);
                } else if now.since(progress.1) > PATIENCE {
                    report.fault(|| "the NICs stopped moving packets".to_owned());
                    break;
                }
            }
        }
        // What is in the NICs and on the cable still arrives, and the hosts still take it as it comes.
        loop {
            let drained = self.pair.drained();
            let taken = [self.take(0, &mut report)?, self.take(1, &mut report)?];
            if drained && taken == [false, false] {
                break;
            }
            self.sides[0].nic.relax();
        }
        report.wall_seconds = started.elapsed().as_secs_f64();
        let after = self.pair.read();
        bar.finish_and_clear();
        if !settings.cable.is_plain() {
            let arrived = self.lanes.iter().filter_map(|lane| lane.arrived.as_ref());
            report.cable = Some(CableReport::new(&settings.cable, self.pair.cable_counters(), arrived));
        }
        report.parser = ParserReport { choice: settings.parser, outcomes: self.pair.parser_outcomes() };
        self.conclude(&mut report, &before, &after, &drops_before)?;
        Ok(report)
    }

    /// Sends packets from the first NIC one at a time, each when the one before has arrived, after a few to warm up.
    pub(crate) fn run_alone(&mut self, packets: u64) -> Result<Alone> {
        let mut report = Report::default();
        let mut alone = Alone::default();
        for number in 0..WARM_UP + packets {
            self.pair.settle();
            self.pair.reset_latencies();
            let before = self.pair.read().pcie_bytes[0];
            self.sides[0].left = 1;
            self.sides[0].send(&mut self.lanes, &mut report)?;
            self.pair.settle();
            let after = self.pair.read().pcie_bytes[0];
            let verified = report.packets_verified;
            self.take(0, &mut report)?;
            self.take(1, &mut report)?;
            if number >= WARM_UP {
                alone.verified += report.packets_verified - verified;
                alone.pcie_bytes.0 += after.0 - before.0;
                alone.pcie_bytes.1 += after.1 - before.1;
                alone.first_byte_ns += self.pair.first_bytes().mean().nanoseconds() / packets as f64;
                alone.latency_ns += self.pair.latencies().max().nanoseconds() / packets as f64;
            }
        }
        Ok(alone)
    }

    /// Packets that did not end well, by reason, as both NICs count them.
    fn drops(&mut self) -> Result<HashMap<Status, u64>> {
        let mut drops = HashMap::new();
        for side in &mut self.sides {
            let statistics = side.nic.statistics().map_err(device_error)?;
            for (status, count) in statistics.packets_by_status().filter(|(status, _)| *status != Status::Ok)
            {
                *drops.entry(status).or_insert(0) += count;
            }
        }
        Ok(drops)
    }

    /// Takes and compares what arrived at one side. Says whether anything did.
    fn take(&mut self, index: usize, report: &mut Report) -> Result<bool> {
        let Bench { sides, lanes, .. } = self;
        let side = &mut sides[index];
        for queue in &mut side.queues {
            queue.pair.completed(&mut side.completed).map_err(device_error)?;
        }
        let ended = !side.completed.is_empty();
        side.completed.clear();
        side.queues[0].pair.receive(&mut side.received, 2 * BATCH).map_err(device_error)?;
        let mut received = std::mem::take(&mut side.received);
        let any = !received.is_empty();
        for packet in received.drain(..) {
            side.compare(packet, lanes, report)?;
        }
        side.received = received;
        Ok(ended || any)
    }

    fn conclude(
        &mut self,
        report: &mut Report,
        before: &Reading,
        after: &Reading,
        drops_before: &HashMap<Status, u64>,
    ) -> Result<()> {
        let elapsed = after.now.since(before.now);
        report.modelled_seconds = elapsed.seconds();
        let latencies = self.pair.latencies();
        report.latency_ns =
            [latencies.quantile(0.5), latencies.quantile(0.99), latencies.max()].map(Time::nanoseconds);
        for (nic, bytes) in report.pcie_bytes.iter_mut().enumerate() {
            let (before, after) = (before.pcie_bytes[nic], after.pcie_bytes[nic]);
            *bytes = (after.0 - before.0, after.1 - before.1);
        }
        for (index, (name, _)) in after.busy[0].iter().enumerate() {
            let share = |nic: usize| {
                let span = after.busy[nic][index].1.since(before.busy[nic][index].1);
                if elapsed == Time::ZERO { 0.0 } else { span.0 as f64 / elapsed.0 as f64 }
            };
            report.stages.push((*name, share(0).max(share(1))));
        }
        for (status, count) in self.drops()? {
            let count = count - drops_before.get(&status).copied().unwrap_or(0);
            if count > 0 {
                report.drops.insert(status.name(), count);
            }
        }
        let mut flows = self.flows.clone();
        for lane in &self.lanes {
            flows[lane.flow].sent += u64::from(lane.sent);
            flows[lane.flow].verified += lane.verified;
        }
        report.flows = flows;
        report.rekeys = self.rekeying.as_ref().map(|rekeying| rekeying.count);
        report.balance();
        report.parser.faults().into_iter().for_each(|fault| report.fault(|| fault));
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

/// Both NICs.
fn nics_of(nics: &mut [Nic]) -> Result<[&mut Nic; 2]> {
    match nics {
        [one, other] => Ok([one, other]),
        _ => Err(device_error("there are not two")),
    }
}

impl Side {
    fn time(&self) -> Time {
        self.nic.time()
    }

    fn in_flight(&self) -> usize {
        self.queues.iter().map(|queue| queue.pair.in_flight()).sum()
    }

    /// Hands the driver a batch. Says whether it took any packet.
    fn send(&mut self, lanes: &mut [Lane], report: &mut Report) -> Result<bool> {
        let waiting: usize = self.queues.iter().map(|queue| queue.batch.len()).sum();
        let room = |queue: &Queue| queue.pair.transmit_space() >> u32::from(queue.descriptor.scattered);
        let space = self.queues.iter().map(room).min().unwrap_or(0).min(BATCH);
        // A ring that is nearly full waits until a whole batch fits: one doorbell for many packets.
        if space < BATCH.min(self.left as usize) && waiting == 0 {
            return Ok(false);
        }
        for _ in waiting..space {
            if self.left == 0 {
                break;
            }
            let lane = &mut lanes[self.schedule[self.next] as usize];
            let queue = &mut self.queues[lane.queue];
            let Some(mut buffer) = queue.pair.take_buffer() else { break };
            let frame = lane.stream.frame(lane.sent);
            if queue.descriptor.scattered {
                let Some(mut tail) = queue.pair.take_buffer() else {
                    queue.pair.give_back(buffer).map_err(device_error)?;
                    break;
                };
                let (head, payload) = frame.split_at(SCATTERED_HEAD_BYTES);
                queue.pair.fill(&mut buffer, head).map_err(device_error)?;
                queue.pair.fill(&mut tail, payload).map_err(device_error)?;
                queue.pair.attach_buffer(&mut buffer, tail).map_err(|(error, _)| device_error(error))?;
            } else {
                queue.pair.fill(&mut buffer, frame).map_err(device_error)?;
            }
            queue.batch.push(TransmitPacket::new(buffer, lane.protection, 0));
            lane.sent = lane.sent.wrapping_add(1);
            self.left -= 1;
            self.next += 1;
            if self.next == self.schedule.len() {
                self.next = 0;
            }
        }
        let mut any = false;
        for Queue { pair, batch, .. } in self.queues.iter_mut().filter(|queue| !queue.batch.is_empty()) {
            let sent = pair.transmit(batch).map_err(device_error)?;
            report.packets_sent += sent as u64;
            any |= sent > 0;
        }
        Ok(any)
    }

    /// Compares a packet with what was sent, and gives its buffer back.
    fn compare(&mut self, packet: Received, lanes: &mut [Lane], report: &mut Report) -> Result<()> {
        report.packets_received += 1;
        let (status, spi) = (packet.status(), packet.spi());
        // The cookie of an SA is the number of its lane, from 1 on.
        let index = match packet.cookie() {
            0 if spi == self.last_psp.0 => Some(self.last_psp.1),
            0 => self.psp_lanes.get(&spi).copied(),
            cookie => Some(cookie - 1),
        };
        let bytes = self.queues[0].pair.copy_out(packet, &mut self.buffer).map_err(device_error)?;
        let frame = &self.buffer[..bytes];
        let Some(lane) = index.and_then(|index| lanes.get_mut(index as usize)) else {
            report.mismatches += 1;
            report.fault(|| format!("a packet of {bytes} bytes with SPI {spi:#x} that nobody sent"));
            return Ok(());
        };
        if let Some(index) = index {
            self.last_psp = (spi, index);
        }
        lane.received += 1;
        let due = lane.due;
        let number = lane.stream.number_of(frame);
        let timely = |number: u32| match &lane.arrived {
            None => number.wrapping_sub(due) < u32::MAX / 2,
            Some(arrived) => arrived.may_come(number),
        };
        let right = status == Status::Ok
            && number.is_some_and(|number| timely(number) && number < lane.sent)
            && number.is_some_and(|number| lane.stream.frame(number) == frame);
        if right {
            if let (Some(arrived), Some(number)) = (&mut lane.arrived, number)
                && !arrived.note(number)
            {
                return Ok(());
            }
            lane.verified += 1;
            lane.due = number.map_or(due, |number| number.wrapping_add(1));
            report.packets_verified += 1;
            report.verified_bytes += bytes as u64;
        } else {
            report.mismatches += 1;
            report.fault(|| {
                let number = number.map_or("none".to_owned(), |number| number.to_string());
                format!(
                    "SPI {spi:#x}, status {}, {bytes} bytes, packet number {number} where {due} or later was due",
                    status.name()
                )
            });
        }
        Ok(())
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
