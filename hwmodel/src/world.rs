//! The world: every NIC, every link and the clock, in one thread.
//!
//! Events happen in the total order (time, NIC, kind, serial). Time moves only when a host gives it away or
//! waits for a register (see [`crate::in_process`]). The same seed, parameters and calls give the same bytes
//! at the same times.

use std::cell::RefCell;
use std::rc::Rc;

use cryptonic_pci::{Host, Time};
use cryptonic_regs::Status;

use crate::Ticks;
use crate::cable::{Arrivals, CableCounters, CableParameters, Disorder};
use crate::events::{Kind, Moment};
use crate::host_memory::HostMemory;
use crate::in_process::InProcess;
use crate::latency::{Latencies, Spread};
use crate::mac::byte_time;
use crate::nic::{Effect, Nic};
use crate::packet::{Packet, PacketPool};
use crate::parameters::{ParameterError, Parameters};
use crate::rx_parse_in_place::{Parser, ParserOutcome};

/// A NIC of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicId(pub(crate) usize);

/// The world; clones are the same world.
#[derive(Clone)]
pub struct World(pub(crate) Rc<RefCell<Inner>>);

pub(crate) struct Inner {
    pub(crate) nics: Vec<Nic>,
    pub(crate) links: Vec<Link>,
    /// The next event of each NIC.
    pub(crate) next: Vec<Moment>,
    pub(crate) hosts: Vec<HostTime>,
    pool: PacketPool,
    /// Since the epoch, as every time in here.
    pub(crate) now: Ticks,
    /// Where those begin: see [`Inner::begin_anew`].
    pub(crate) epoch: Time,
    seed: u64,
    latencies: Latencies,
    taps: Vec<Tap>,
}

/// What a tap hears of each frame on a line: its NIC, its time, its bytes.
type TapFunction = Box<dyn FnMut(NicId, Time, &[u8])>;

struct Tap {
    nic: usize,
    hear: TapFunction,
}

/// What the cable of a NIC leads to.
pub(crate) enum Link {
    /// Nothing yet: frames are kept for [`World::take_sent`].
    Open(Vec<Vec<u8>>),
    /// Another NIC.
    Cable { peer: usize, delay: Ticks, disorder: Option<Box<Disorder>> },
}

/// Time of one host: until when it is busy, and which interrupts came.
#[derive(Clone, Default)]
pub(crate) struct HostTime {
    pub(crate) busy_until: Ticks,
    pub(crate) busy: Ticks,
    pub(crate) interrupts: Vec<bool>,
}

impl World {
    /// A world at time 0 without NICs. The seed is for what is random in devices: device keys, hash keys.
    pub fn new(seed: u64) -> World {
        World(Rc::new(RefCell::new(Inner {
            nics: Vec::new(),
            links: Vec::new(),
            next: Vec::new(),
            hosts: Vec::new(),
            pool: PacketPool::default(),
            now: Ticks::ZERO,
            epoch: Time::ZERO,
            seed,
            latencies: Latencies::default(),
            taps: Vec::new(),
        })))
    }

    /// Adds a NIC with an open cable.
    pub fn add_nic(&self, parameters: &Parameters) -> Result<NicId, ParameterError> {
        self.add_nic_with_parser(parameters, Parser::Model)
    }

    /// Adds a NIC with an open cable and a parser of one's own. A clocked unit has a bus of 64 bytes, room for
    /// `pipeline.parse_results` results, and takes frames of up to 16383 bytes.
    pub fn add_nic_with_parser(
        &self,
        parameters: &Parameters,
        parser: Parser,
    ) -> Result<NicId, ParameterError> {
        parameters.check()?;
        if !matches!(parser, Parser::Model) {
            parameters.check_clocked_parser()?;
        }
        let mut inner = self.0.borrow_mut();
        let index = inner.nics.len();
        let serial = index as u64 + 1;
        let seed = nic_seed(inner.seed, serial);
        let nic = Nic::new(parameters, parser, serial, seed);
        inner.pool.grow(parameters.capacity.frame_bytes as usize + GROWTH_BYTES);
        inner.next.push(nic.events.next());
        let interrupts = vec![false; usize::from(nic.msix.vectors())];
        inner.nics.push(nic);
        inner.links.push(Link::Open(Vec::new()));
        inner.hosts.push(HostTime { interrupts, ..HostTime::default() });
        Ok(NicId(index))
    }

    /// Joins two NICs with a cable. The delay is above zero, so that nothing acts on its own past.
    pub fn connect(&self, one: NicId, other: NicId, delay: Time) {
        self.connect_through(one, other, delay, &CableParameters::default());
    }

    /// Joins two NICs with a cable that treats the frames of both as the parameters say; what is random in it comes from
    /// the world's seed.
    pub fn connect_through(&self, one: NicId, other: NicId, delay: Time, cable: &CableParameters) {
        let mut inner = self.0.borrow_mut();
        let delay = Ticks::from(delay).max(Ticks::from_picoseconds(1));
        for (near, far) in [(one.0, other.0), (other.0, one.0)] {
            let seed = inner.seed.rotate_left(32) ^ near as u64;
            let byte_time = byte_time(&inner.nics[near].parameters.mac);
            let disorder = (!cable.is_plain()).then(|| Box::new(Disorder::new(cable, byte_time, seed)));
            inner.links[near] = Link::Cable { peer: far, delay, disorder };
        }
    }

    /// What the cable did to the frames that a NIC sent.
    pub fn cable_counters(&self, nic: NicId) -> CableCounters {
        match &self.0.borrow().links[nic.0] {
            Link::Cable { disorder: Some(disorder), .. } => disorder.counters(),
            Link::Cable { disorder: None, .. } | Link::Open(_) => CableCounters::default(),
        }
    }

    /// The host side of a NIC.
    pub fn host(&self, nic: NicId) -> Box<dyn Host> {
        Box::new(InProcess::new(self.clone(), nic))
    }

    /// Turns a NIC off and on: nothing of what it knew is left, and its parser is the model's. What its host mapped for it
    /// stays mapped.
    pub fn power_cycle(&self, nic: NicId) {
        let mut inner = self.0.borrow_mut();
        let (now, seed) = (inner.now, inner.seed);
        let old = &mut inner.nics[nic.0];
        let memory = std::mem::take(&mut old.memory);
        let recorded = old.drops.is_some();
        let mut new =
            Nic::new(&old.parameters.clone(), Parser::Model, old.serial, nic_seed(seed, old.serial));
        new.memory = memory;
        new.memory.bus_master = false;
        new.drops = recorded.then(Vec::new);
        new.now = now;
        new.boot_firmware(now);
        inner.nics[nic.0] = new;
        inner.hosts[nic.0].interrupts.fill(false);
        inner.refresh(nic.0);
    }

    /// Puts a frame on the line towards a NIC, as if its last bit arrived now.
    pub fn inject(&self, nic: NicId, frame: &[u8]) {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        inner.pool.grow(frame.len());
        let mut packet = inner.pool.take(frame.len());
        packet.place(frame.len()).copy_from_slice(frame);
        packet.accepted_at = Ticks::ZERO;
        inner.nics[nic.0].events.wire_arrivals.push(now, packet);
        inner.refresh(nic.0);
    }

    /// Takes the frames that left a NIC whose cable is open, in order. Short frames are padded, as on a line.
    pub fn take_sent(&self, nic: NicId) -> Vec<Vec<u8>> {
        match &mut self.0.borrow_mut().links[nic.0] {
            Link::Open(frames) => std::mem::take(frames),
            Link::Cable { .. } => Vec::new(),
        }
    }

    /// Has a function called for each frame that a NIC sends. It must not use the world.
    pub fn tap(&self, nic: NicId, hear: TapFunction) {
        self.0.borrow_mut().taps.push(Tap { nic: nic.0, hear });
    }

    /// Has the reasons of drops on receive recorded, for [`World::take_drops`].
    pub fn record_drops(&self, nic: NicId) {
        self.0.borrow_mut().nics[nic.0].drops = Some(Vec::new());
    }

    /// Takes the recorded reasons, in order.
    pub fn take_drops(&self, nic: NicId) -> Vec<Status> {
        self.0.borrow_mut().nics[nic.0].drops.as_mut().map_or_else(Vec::new, std::mem::take)
    }

    /// Does every event that is under way: nothing moves any more without a host, but for firmware that looks at the clock.
    pub fn drain(&self) {
        let mut inner = self.0.borrow_mut();
        inner.look_at_every_shadow();
        inner.advance(Until::Idle, false);
    }

    /// Whether nothing is under way: nothing moves any more without a host, but for firmware that looks at the clock.
    pub fn drained(&self) -> bool {
        self.0.borrow().idle()
    }

    /// The time.
    pub fn now(&self) -> Time {
        let inner = self.0.borrow();
        inner.absolute(inner.now)
    }

    /// Begins to count time anew, so that 64 bits of ticks do for ever; nobody notices. The world does it itself in time, and tests
    /// more often. Not while something is under way: whether it did.
    pub fn begin_epoch(&self) -> bool {
        self.0.borrow_mut().begin_anew()
    }

    /// Does what is due up to `until`, and sets the clock there. A clock that is past it stays.
    pub fn run_until(&self, until: Time) {
        self.0.borrow_mut().run_until_absolute(until);
    }

    /// When something is due next, if anything is.
    pub fn next_event(&self) -> Option<Time> {
        let inner = self.0.borrow();
        let next = inner.next.iter().map(|moment| moment.time()).min();
        next.filter(|time| *time != Ticks::NEVER).map(|time| inner.absolute(time))
    }

    /// Takes the interrupts that a NIC sent since the last call, and that no host waited for.
    pub fn take_interrupts(&self, nic: NicId, mut take: impl FnMut(u16)) {
        let mut inner = self.0.borrow_mut();
        for (vector, interrupt) in inner.hosts[nic.0].interrupts.iter_mut().enumerate() {
            if std::mem::take(interrupt) {
                take(vector as u16);
            }
        }
    }

    /// Memory of a NIC's host as the NIC reaches it, for a host side of one's own.
    pub(crate) fn with_host_memory<T>(&self, nic: NicId, change: impl FnOnce(&mut HostMemory) -> T) -> T {
        change(&mut self.0.borrow_mut().nics[nic.0].memory)
    }

    /// Bytes of a NIC's BARs 0, 2 and 4.
    pub(crate) fn bar_bytes(&self, nic: NicId) -> [u32; 3] {
        self.0.borrow().nics[nic.0].bar_bytes()
    }

    /// How many interrupt vectors a NIC has.
    pub(crate) fn vectors(&self, nic: NicId) -> u16 {
        self.0.borrow().nics[nic.0].msix.vectors()
    }

    /// Latencies from doorbell accepted to receive completion visible at the far end, since the last reset.
    pub fn latencies(&self) -> Latencies {
        self.0.borrow().latencies.clone()
    }

    /// Times from the host's doorbell or push, as it issues it, to the first byte of the frame in the NIC, since the last
    /// reset: inline bytes come with their descriptor, others with the first completion of their read.
    pub fn first_bytes(&self, nic: NicId) -> Spread {
        self.0.borrow().nics[nic.0].transmit.first_bytes
    }

    /// Pushes of a NIC's host that were used, so that no descriptor was fetched, since power-on.
    pub fn pushes_used(&self, nic: NicId) -> u64 {
        self.0.borrow().nics[nic.0].transmit.pushes
    }

    /// Begins to measure anew.
    pub fn reset_latencies(&self) {
        let mut inner = self.0.borrow_mut();
        inner.latencies = Latencies::default();
        inner.nics.iter_mut().for_each(|nic| nic.transmit.first_bytes = Spread::default());
    }

    /// Bytes that a NIC's PCI Express link carried so far: to the device, to the host.
    pub fn pcie_bytes(&self, nic: NicId) -> (u64, u64) {
        self.0.borrow().nics[nic.0].pcie.bytes()
    }

    /// Time that each stage of a NIC and its host were in use so far.
    pub fn busy(&self, nic: NicId) -> Vec<(&'static str, Time)> {
        let inner = self.0.borrow();
        let one = &inner.nics[nic.0];
        let (to_device, to_host) = one.pcie.busy();
        let busy = [
            ("host", inner.hosts[nic.0].busy),
            ("pcie_to_device", to_device),
            ("pcie_to_host", to_host),
            ("gather", one.transmit.gather.busy()),
            ("transmit_commit", one.transmit.commit.busy()),
            ("transmit_lanes", one.transmit.lanes.busy()),
            ("transmit_bus", one.transmit.bus.busy()),
            ("mac", one.transmit.mac.busy()),
            ("rx_parse", one.receive.parse_busy),
            ("key_derivation", one.keys.busy()),
            ("receive_lanes", one.receive.lanes.busy()),
            ("receive_commit", one.receive.commit.busy()),
        ];
        busy.map(|(stage, span)| (stage, span.into())).to_vec()
    }

    /// What the clocked parser of a NIC did so far, if it has one.
    pub fn parser_outcome(&self, nic: NicId) -> ParserOutcome {
        let inner = self.0.borrow();
        inner.nics[nic.0]
            .receive
            .in_place
            .as_ref()
            .map_or_else(Default::default, |unit| unit.outcome().clone())
    }

    /// SA contexts that a NIC had to fetch because they were not cached.
    pub fn context_misses(&self, nic: NicId) -> u64 {
        self.0.borrow().nics[nic.0].context_cache.misses()
    }

    /// PSP packets that a NIC received whose key the cache of derived keys had, and whose key it had not, since power-on.
    pub fn derived_key_lookups(&self, nic: NicId) -> (u64, u64) {
        self.0.borrow().nics[nic.0].keys.cache_lookups()
    }

    /// Bytes that the hardware of a NIC keeps so that PSP packets can be received: device keys, SPI counters, and derived keys
    /// that are cached. None of them is of an SPI that was given out. What the model keeps to run faster (see
    /// `key_schedules`) is not hardware: 256 key schedules at most.
    pub fn psp_receive_state_bytes(&self, nic: NicId) -> u64 {
        self.0.borrow().nics[nic.0].keys.receive_state_bytes()
    }

    /// Register accesses that no register of a NIC answered.
    pub fn reserved_accesses(&self, nic: NicId) -> u64 {
        self.0.borrow().nics[nic.0].reserved_accesses
    }

    /// Stalls the firmware of a NIC: it never runs again before [`World::restart_firmware`] or a function-level reset, while the
    /// hardware runs on.
    pub fn stop_firmware(&self, nic: NicId) {
        let mut inner = self.0.borrow_mut();
        inner.nics[nic.0].stop_firmware();
        inner.refresh(nic.0);
    }

    /// Crashes the firmware of a NIC and starts it anew, while the hardware runs on.
    pub fn restart_firmware(&self, nic: NicId) {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        inner.nics[nic.0].now = now;
        inner.nics[nic.0].boot_firmware(now);
        inner.refresh(nic.0);
    }
}

/// What chance in a NIC begins with.
fn nic_seed(world: u64, serial: u64) -> u64 {
    world.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(serial)
}

/// How far events are done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Up to a point in time.
    Time(Ticks),
    /// Until nothing is under way.
    Idle,
}

/// What a frame may grow by on its way out.
const GROWTH_BYTES: usize = 256;

impl Inner {
    /// Recomputes the next event of a NIC after it was touched from outside.
    pub(crate) fn refresh(&mut self, nic: usize) {
        self.next[nic] = self.nics[nic].events.next();
    }

    /// Whether nothing is under way but what goes on for good.
    pub(crate) fn idle(&self) -> bool {
        self.nics.iter().all(|nic| nic.events.idle())
    }

    /// Does the events up to `until`; if `watching`, up to the first that shows something to a host. Says whether it
    /// ended at such a one.
    pub(crate) fn advance(&mut self, until: Until, watching: bool) -> bool {
        let (last, until_idle) = match until {
            Until::Time(time) => (Moment::end_of(time), false),
            Until::Idle => (Moment::LAST, true),
        };
        loop {
            // At one point in time the first NIC comes first, whatever happens there.
            let (moment, index) = match *self.next.as_slice() {
                // As a rule there are two, and this is done at every event.
                [one, other] => Moment::earlier((one, 0), (other, 1)),
                _ => {
                    let next = self.next.iter().copied().zip(0..);
                    next.reduce(Moment::earlier).unwrap_or((Moment::NEVER, 0))
                }
            };
            if moment > last || until_idle && moment.kind() == Kind::Firmware && self.idle() {
                return false;
            }
            let time = moment.time();
            self.now = self.now.max(time);
            let Some(nic) = self.nics.get_mut(index) else { return false };
            let effect = nic.step(time, moment.kind(), &mut self.pool);
            self.next[index] = nic.events.next();
            let seen = match effect {
                Effect::None => false,
                Effect::Visible => true,
                Effect::Received(latency) => {
                    self.latencies.add(latency);
                    true
                }
                Effect::Interrupt(vector) => {
                    if let Some(interrupt) = self.hosts[index].interrupts.get_mut(vector as usize) {
                        *interrupt = true;
                    }
                    true
                }
                Effect::Sent(packet, on_line) => {
                    self.onto_line(index, packet, on_line);
                    false
                }
                Effect::SentSegments => {
                    while let Some((packet, on_line)) = self.nics[index].transmit.sent.pop_front() {
                        self.onto_line(index, packet, on_line);
                    }
                    false
                }
            };
            if seen && watching {
                return true;
            }
        }
    }

    /// A frame of a NIC goes onto its line.
    #[inline]
    fn onto_line(&mut self, index: usize, packet: Box<Packet>, on_line: Ticks) {
        for tap in self.taps.iter_mut().filter(|tap| tap.nic == index) {
            (tap.hear)(NicId(index), self.epoch + on_line.into(), packet.frame());
        }
        let (peer, arrival) = if self.nics[index].control.mac_loopback() {
            (index, on_line + Ticks::from_picoseconds(1))
        } else {
            match &mut self.links[index] {
                Link::Cable { peer, delay, disorder: None } => (*peer, on_line + *delay),
                Link::Cable { peer, delay, disorder: Some(disorder) } => {
                    let (peer, arrivals) = (*peer, disorder.pass(on_line + *delay, packet.bytes()));
                    return self.arrive_in_disorder(peer, packet, &arrivals);
                }
                Link::Open(frames) => {
                    frames.push(packet.frame().to_vec());
                    return self.pool.give(packet);
                }
            }
        };
        self.arrive(peer, packet, arrival);
    }

    /// A frame reaches the line's end at a NIC at some time.
    #[inline(always)]
    fn arrive(&mut self, peer: usize, packet: Box<Packet>, at: Ticks) {
        let latency = Ticks::from_nanoseconds(self.nics[peer].parameters.mac.latency_ns);
        let arrivals = &mut self.nics[peer].events.wire_arrivals;
        arrivals.push(at + latency, packet);
        self.next[peer] = self.next[peer].min(arrivals.head());
    }

    /// A frame reaches a NIC when its cable says, once, twice or not at all.
    #[cold]
    fn arrive_in_disorder(&mut self, peer: usize, packet: Box<Packet>, arrivals: &Arrivals) {
        if let Some(at) = arrivals.copy {
            let frame = packet.frame();
            let mut copy = self.pool.take(frame.len());
            copy.place(frame.len()).copy_from_slice(frame);
            copy.accepted_at = packet.accepted_at;
            self.arrive(peer, copy, at);
        }
        match arrivals.frame {
            Some(at) => self.arrive(peer, packet, at),
            None => self.pool.give(packet),
        }
    }

    /// Does every event up to `until` and sets the clock there.
    pub(crate) fn run_until(&mut self, until: Ticks) {
        self.advance(Until::Time(until), false);
        self.now = self.now.max(until);
    }
}
