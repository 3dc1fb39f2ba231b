//! The NIC: its stages, joined. Each stage's file holds its state and what it does; here is who hands what
//! to whom, and when.
//!
//! ```text
//!   doorbell ─▶ descriptor_fetch ─▶ gather ─▶ transmit_commit ─▶ lanes ─▶ reorder ─▶ mac ─▶ wire
//!   host ◀─ steering ◀─ receive_commit ◀─ reorder ◀─ lanes ◀─ rx_geometry ◀─ sa_lookup ◀─ rx_parse ◀─ wire
//! ```

use crate::Ticks;
use cryptonic_pci::Device;
use cryptonic_pci::config::{ConfigSpace, Identity};
use cryptonic_pci::host::Bar;
use cryptonic_pci::msix::MsixTable;
use cryptonic_regs::bar0::{BAR0_BYTES, Control, EspUdpPort, PspControl, SecurityProtocols};
use cryptonic_regs::doorbell::DOORBELL_PAGE_BYTES;
use cryptonic_regs::psp_policy::PspRotation;
use cryptonic_regs::{PCI_CLASS, PCI_DEVICE_ID, PCI_VENDOR_ID, Status};
use cryptonic_wire::packet::Expected;

use crate::calendar::{Calendar, Store};
use crate::counters::Counters;
use crate::event_ring::EventRing;
use crate::events::{Events, HostWrite, Kind, Pending, PendingPool, RegisterData, RegisterWrite};
use crate::frame_parts::{FrameParts, Places, ScatteredBuffer};
use crate::host_memory::HostMemory;
use crate::in_process::BAR4_BYTES;
use crate::key_derivation::KeyDerivation;
use crate::key_schedules::KeySchedules;
use crate::lanes::{ContextCache, Lanes};
use crate::latency::Spread;
use crate::mac::Mac;
use crate::management::Management;
use crate::packet::{Packet, PacketPool, Purpose};
use crate::parameters::Parameters;
use crate::pcie::Pcie;
use crate::psp_copies::PspCopies;
use crate::queue::QueuePair;
use crate::receive_scaling::{ReceiveScaling, SourcePorts};
use crate::rx_parse::RxParseTiming;
use crate::rx_parse_in_place::{InPlace, Parser};
use crate::sa_table::SaTable;
use crate::secret_places::SecretPlaces;
use crate::shadow_doorbells::ShadowRegisters;

/// UDP port of PSP after reset.
const PSP_UDP_PORT: u16 = 1000;
/// UDP port of ESP after reset (RFC 3948 2.1).
const ESP_UDP_PORT: u16 = 4500;

/// One NIC.
pub struct Nic {
    pub(crate) parameters: Parameters,
    pub(crate) cycle: Ticks,
    pub(crate) now: Ticks,
    /// Device time where those of this NIC begin.
    pub(crate) epoch_picoseconds: u64,
    /// Whole cycles before that.
    pub(crate) cycles_before_epoch: u64,
    pub(crate) serial: u64,
    pub(crate) config: ConfigSpace,
    pub(crate) msix: MsixTable,
    pub(crate) memory: HostMemory,
    pub(crate) pcie: Pcie,
    pub(crate) events: Events,
    pub(crate) counters: Counters,
    pub(crate) control: Control,
    pub(crate) psp_control: PspControl,
    pub(crate) esp_udp_port: EspUdpPort,
    pub(crate) security_protocols: SecurityProtocols,
    pub(crate) psp_source_ports: SourcePorts,
    /// Writes into push windows on their way, 64 bytes a place.
    pub(crate) lines: SecretPlaces<8>,
    pub(crate) latched_high: u32,
    pub(crate) written_high: u32,
    /// The SA slot whose state the host reads.
    pub(crate) selected_slot: u32,
    pub(crate) queues: Vec<QueuePair>,
    pub(crate) sa_table: SaTable,
    pub(crate) keys: KeyDerivation,
    pub(crate) key_schedules: KeySchedules,
    pub(crate) context_cache: ContextCache,
    pub(crate) management: Management,
    pub(crate) event_ring: EventRing,
    pub(crate) shadow: ShadowRegisters,
    pub(crate) psp_policy: PspPolicy,
    pub(crate) psp_copies: PspCopies,
    pub(crate) keys_zeroised: bool,
    pub(crate) transmit: Transmit,
    pub(crate) receive: Receive,
    pub(crate) flow_key: (u64, u64),
    /// Register accesses that no register answers.
    pub(crate) reserved_accesses: u64,
    /// Writes to doorbells that came as such.
    pub(crate) doorbell_writes: u64,
    /// Drops on receive, in order, while somebody asks for them.
    pub(crate) drops: Option<Vec<Status>>,
}

/// When the host wants device keys rotated.
#[derive(Default)]
pub(crate) struct PspPolicy {
    pub(crate) rotation: PspRotation,
    pub(crate) period_ms: u32,
}

/// State of the transmit stages.
pub(crate) struct Transmit {
    /// Queue pair whose turn it is to fetch.
    pub(crate) turn: u16,
    /// Queue pairs whose doorbell rang and that may have descriptors to fetch, one bit each.
    pub(crate) announced: u64,
    /// Descriptors at hand, to be gathered.
    pub(crate) pending: std::collections::VecDeque<Box<Pending>>,
    /// Those that are not in use.
    pub(crate) frames: PendingPool,
    /// Keys of the descriptors at hand, each with the cookie behind it.
    pub(crate) keys: SecretPlaces<5>,
    /// Inline bytes and pieces of the frames at hand that have them.
    pub(crate) parts: Places<FrameParts>,
    /// Schedules of those keys.
    pub(crate) key_schedules: KeySchedules,
    /// Descriptors fetched or asked for and not yet gathered, per queue pair.
    pub(crate) prefetched: Vec<u32>,
    pub(crate) buffer: Store,
    /// Room for frames that are cut into segments.
    pub(crate) segment_buffer: Store,
    /// The frame that is being cut.
    pub(crate) large: Vec<u8>,
    /// Its segments, and when each is on the line.
    pub(crate) sent: std::collections::VecDeque<(Box<Packet>, Ticks)>,
    /// From the host's doorbell or push to the first byte of each frame in the NIC.
    pub(crate) first_bytes: Spread,
    /// Pushes whose descriptor was used, so that none was fetched.
    pub(crate) pushes: u64,
    pub(crate) gather: Calendar,
    pub(crate) commit: Calendar,
    pub(crate) lanes: Lanes,
    pub(crate) bus: Calendar,
    pub(crate) mac: Mac,
    /// Counts outer IPv4 packets that may be fragmented.
    pub(crate) identification: u16,
    /// Packets of an earlier reset do not leave.
    pub(crate) last_report: Ticks,
}

/// State of the receive stages.
pub(crate) struct Receive {
    pub(crate) buffer: Store,
    pub(crate) parse: RxParseTiming,
    /// A clocked unit that parses, or that stands beside what does.
    pub(crate) in_place: Option<Box<InPlace>>,
    /// What the parser is told to look for: what the registers say.
    pub(crate) expected: Expected,
    pub(crate) lanes: Lanes,
    pub(crate) commit: Calendar,
    pub(crate) parse_busy: Ticks,
    pub(crate) scaling: ReceiveScaling,
    /// Buffers of scattered frames on their way to host memory.
    pub(crate) scattered: Places<Vec<ScatteredBuffer>>,
}

/// What the rest of the world has to do with an event.
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// A frame goes onto the line.
    Sent(Box<Packet>, Ticks),
    /// The segments of a frame go onto the line.
    SentSegments,
    /// The host can see something new.
    Visible,
    /// The host can see a received packet: how long it took from doorbell to here.
    Received(Ticks),
    /// The host gets interrupt `vector`.
    Interrupt(u32),
}

fn bar_bytes(queue_pairs: u16) -> [u32; 3] {
    [BAR0_BYTES, (u32::from(queue_pairs) * DOORBELL_PAGE_BYTES).next_power_of_two(), BAR4_BYTES]
}

impl Nic {
    /// A NIC after power-on.
    pub(crate) fn new(parameters: &Parameters, parser: Parser, serial: u64, seed: u64) -> Self {
        let queue_pairs = parameters.capacity.queue_pairs as u16;
        // Admin queue, queue pairs, events.
        let vectors = queue_pairs + 2;
        let receive_parse = RxParseTiming::new(parameters.pipeline.parse_results);
        let mut nic = Nic {
            cycle: parameters.cycle(),
            now: Ticks::ZERO,
            epoch_picoseconds: 0,
            cycles_before_epoch: 0,
            serial,
            config: ConfigSpace::new(Identity {
                vendor: PCI_VENDOR_ID,
                device: PCI_DEVICE_ID,
                revision: 1,
                class: PCI_CLASS,
                bar_bytes: bar_bytes(queue_pairs),
                vectors,
            }),
            msix: MsixTable::new(vectors),
            memory: HostMemory::default(),
            pcie: Pcie::new(&parameters.pcie),
            events: Events::default(),
            counters: Counters::default(),
            control: Control::new(),
            psp_control: PspControl::new().with_udp_port(PSP_UDP_PORT),
            esp_udp_port: EspUdpPort::new().with_port(ESP_UDP_PORT),
            security_protocols: SecurityProtocols::new(),
            psp_source_ports: SourcePorts::default(),
            lines: SecretPlaces::default(),
            latched_high: 0,
            written_high: 0,
            selected_slot: 0,
            queues: (0..queue_pairs).map(|_| QueuePair::default()).collect(),
            sa_table: SaTable::new(&parameters.capacity),
            keys: KeyDerivation::new(parameters, seed),
            key_schedules: KeySchedules::new(),
            context_cache: ContextCache::new(parameters),
            management: Management::new(parameters),
            event_ring: EventRing::default(),
            shadow: ShadowRegisters::default(),
            psp_policy: PspPolicy::default(),
            psp_copies: PspCopies::default(),
            keys_zeroised: true,
            transmit: Transmit {
                turn: 0,
                announced: 0,
                pending: std::collections::VecDeque::new(),
                frames: PendingPool::default(),
                keys: SecretPlaces::default(),
                parts: Places::default(),
                key_schedules: KeySchedules::new(),
                prefetched: vec![0; usize::from(queue_pairs)],
                buffer: Store::new(parameters.mac.transmit_buffer_bytes),
                segment_buffer: Store::new(parameters.mac.segment_buffer_bytes),
                large: Vec::new(),
                sent: std::collections::VecDeque::new(),
                first_bytes: Spread::default(),
                pushes: 0,
                gather: Calendar::default(),
                commit: Calendar::default(),
                lanes: Lanes::new(parameters),
                bus: Calendar::default(),
                mac: Mac::new(&parameters.mac),
                identification: 0,
                last_report: Ticks::ZERO,
            },
            receive: Receive {
                buffer: Store::new(parameters.mac.receive_buffer_bytes),
                parse: receive_parse,
                in_place: None,
                expected: Expected::default(),
                lanes: Lanes::new(parameters),
                commit: Calendar::default(),
                parse_busy: Ticks::ZERO,
                scaling: ReceiveScaling::default(),
                scattered: Places::default(),
            },
            flow_key: (seed ^ 0x0f1e_2d3c_4b5a_6978, seed.rotate_left(32) ^ 0x8796_a5b4_c3d2_e1f0),
            reserved_accesses: 0,
            doorbell_writes: 0,
            drops: None,
            parameters: parameters.clone(),
        };
        nic.receive.expected = nic.expected();
        let results = parameters.pipeline.parse_results;
        nic.receive.in_place = InPlace::new(parser, results, nic.receive.expected);
        nic.boot_firmware(Ticks::ZERO);
        nic
    }

    /// Bytes of BARs 0, 2 and 4.
    pub(crate) fn bar_bytes(&self) -> [u32; 3] {
        bar_bytes(self.queues.len() as u16)
    }

    /// Device time at a point in time, in picoseconds: what registers, completions and events tell. It wraps after 213 days.
    #[inline]
    pub(crate) fn picoseconds(&self, time: Ticks) -> u64 {
        self.epoch_picoseconds.wrapping_add(time.picoseconds())
    }

    /// Device time now.
    #[inline]
    pub(crate) fn now_picoseconds(&self) -> u64 {
        self.picoseconds(self.now)
    }

    /// Does the next event, which is at `time`.
    // Part of its one caller's loop: what it takes to enter and to leave so large a function, it would take at every event.
    #[inline(always)]
    pub(crate) fn step(&mut self, time: Ticks, kind: Kind, pool: &mut PacketPool) -> Effect {
        self.now = time;
        match kind {
            Kind::RegisterWrite => {
                if let Some(write) = self.events.seldom.change(|queues| queues.register_writes.pop()) {
                    self.posted_write(&write);
                }
                Effect::None
            }
            Kind::Engine => {
                self.events.seldom.change(|queues| queues.engine.pop());
                self.engine_done();
                Effect::None
            }
            Kind::AdminCommand => {
                if let Some(epoch) = self.events.seldom.change(|queues| queues.admin_command.pop()) {
                    self.admin_command_arrived(epoch);
                }
                Effect::None
            }
            Kind::Firmware => {
                self.events.seldom.change(|queues| queues.firmware.pop());
                self.run_firmware();
                Effect::None
            }
            Kind::TransmitDescriptors => {
                if let Some(descriptors) =
                    self.events.seldom.change(|queues| queues.transmit_descriptors.pop())
                {
                    self.transmit_descriptors_arrived(descriptors);
                }
                Effect::None
            }
            Kind::ReceiveDescriptors => {
                if let Some(descriptors) =
                    self.events.seldom.change(|queues| queues.receive_descriptors.pop())
                {
                    self.receive_descriptors_arrived(descriptors, pool);
                }
                Effect::None
            }
            Kind::GatherRetry => {
                self.events.seldom.change(|queues| queues.gather_retry.pop());
                self.gather();
                Effect::None
            }
            Kind::Gathered => match self.events.gathered.pop() {
                Some(pending) => {
                    let effect = self.transmit_commit(&pending, pool);
                    self.end_frame(pending);
                    effect
                }
                None => Effect::None,
            },
            Kind::TransmitReport => {
                if let Some(report) = self.events.seldom.change(|queues| queues.transmit_reports.pop()) {
                    self.write_transmit_report(&report);
                }
                Effect::None
            }
            Kind::WireArrival => {
                if let Some(packet) = self.events.wire_arrivals.pop() {
                    self.wire_arrival(packet, pool);
                }
                Effect::None
            }
            Kind::Parsed => {
                if let Some(frame) = self.events.parsed.pop() {
                    self.parsed(frame, pool);
                }
                Effect::None
            }
            Kind::ReceiveCommit => {
                if let Some(packet) = self.events.receive_commits.pop() {
                    self.receive_commit(packet, pool);
                }
                Effect::None
            }
            Kind::CompletionHold => {
                if let Some(timer) = self.events.seldom.change(|queues| queues.completion_holds.pop()) {
                    self.completion_hold_over(timer);
                }
                Effect::None
            }
            Kind::InterruptDelay => {
                if let Some(timer) = self.events.seldom.change(|queues| queues.interrupt_delays.pop()) {
                    self.interrupt_delay_over(timer);
                }
                Effect::None
            }
            Kind::EventInterrupt => {
                if let Some(epoch) = self.events.seldom.change(|queues| queues.event_interrupts.pop()) {
                    self.event_interrupt_due(epoch);
                }
                Effect::None
            }
            Kind::HostWrite => match self.events.host_writes.pop() {
                Some(write) => self.host_write(write, pool),
                None => Effect::None,
            },
        }
    }

    /// A write reaches host memory.
    fn host_write(&mut self, write: HostWrite, pool: &mut PacketPool) -> Effect {
        match write {
            HostWrite::Receive { queue, epoch, packet } => {
                let landing = &packet.landing;
                let landed = self.queue_epoch(queue) == Some(epoch)
                    && self.memory.write(landing.buffer, packet.frame()).is_ok()
                    && self.memory.write_words(landing.completion, &landing.words).is_ok();
                self.received(queue, packet, landed, pool)
            }
            HostWrite::Scattered { queue, epoch, buffers, packet } => {
                let landed = self.queue_epoch(queue) == Some(epoch) && self.land_scattered(buffers, &packet);
                self.receive.scattered.give(Some(buffers));
                self.received(queue, packet, landed, pool)
            }
            HostWrite::Transmit { queue, epoch, completion, words } => {
                if self.queue_epoch(queue) != Some(epoch)
                    || self.memory.write_words(completion, &words).is_err()
                {
                    return Effect::None;
                }
                self.completion_visible(queue);
                Effect::Visible
            }
            HostWrite::Admin { epoch, completion, words, vector, committed } => {
                let landed =
                    self.management.epoch == epoch && self.memory.write_words(completion, &words).is_ok();
                self.sa_table.settle(&committed, landed);
                if !landed {
                    return Effect::None;
                }
                self.raise_interrupt(vector);
                Effect::Visible
            }
            HostWrite::Event { epoch, address, words } => {
                if !self.event_epoch_is(epoch) {
                    return Effect::None;
                }
                if self.memory.write_words(address, &words).is_err() {
                    self.stop_event_ring();
                    return Effect::None;
                }
                self.event_visible(epoch);
                Effect::Visible
            }
            HostWrite::Bytes { address, bytes } => {
                // A fault is counted by the memory itself; the operation's outcome was told when the write
                // was posted, as for any posted write.
                let _ = self.memory.write(address, &bytes);
                Effect::None
            }
            HostWrite::Interrupt(message) => Effect::Interrupt(message.data),
        }
    }

    pub(crate) fn queue_epoch(&self, queue: u16) -> Option<u32> {
        self.queues.get(usize::from(queue)).filter(|pair| pair.running()).map(|pair| pair.epoch)
    }

    /// A received packet is in host memory with its completion, if it could be.
    #[inline]
    fn received(&mut self, queue: u16, packet: Box<Packet>, landed: bool, pool: &mut PacketPool) -> Effect {
        let accepted_at = packet.accepted_at;
        pool.give(packet);
        if !landed {
            return Effect::None;
        }
        self.completion_visible(queue);
        if accepted_at == Ticks::ZERO { Effect::Visible } else { Effect::Received(self.now - accepted_at) }
    }

    /// A write that will not be made gives back what it holds.
    pub(crate) fn forget_write(&mut self, write: HostWrite) {
        if let HostWrite::Scattered { buffers, .. } = write {
            self.receive.scattered.give(Some(buffers));
        }
    }

    pub(crate) fn raise_interrupt(&mut self, vector: u16) {
        if let Some(message) = self.msix.fire(vector, self.config.msix_enabled()) {
            self.send_message(message);
        }
    }

    pub(crate) fn send_message(&mut self, message: cryptonic_pci::msix::Message) {
        let written = self.pcie.write(self.now, 4);
        self.events.host_writes.push(written.visible, HostWrite::Interrupt(message));
    }

    /// A descriptor has ended: its key, if it has one, is wiped.
    pub(crate) fn end_descriptor_key(&mut self, key: Option<u32>) {
        if key.is_some() {
            self.transmit.keys.give(key);
            if self.transmit.keys.none_under_way() {
                self.transmit.key_schedules.clear();
            }
        }
    }

    /// Counts a packet's end.
    #[inline]
    pub(crate) fn count(&mut self, status: Status) {
        self.counters.statuses[status.number() as usize] += 1;
    }

    /// Drops a received packet. One that failed before counts under what it failed by, and a copy under nothing.
    pub(crate) fn drop_received(&mut self, packet: Box<Packet>, status: Status, pool: &mut PacketPool) {
        match packet.purpose {
            Purpose::Delivery => self.count_drop(status),
            Purpose::Capture => self.count_drop(packet.status),
            Purpose::Copy => {}
        }
        self.receive.buffer.release(self.now, packet.buffer_bytes);
        pool.give(packet);
    }

    /// Counts a received packet that does not reach its queue.
    pub(crate) fn count_drop(&mut self, status: Status) {
        self.count(status);
        if let Some(drops) = &mut self.drops {
            drops.push(status);
        }
    }

    /// Puts up to 64 bytes that the host writes in a place of their own, where they can be wiped.
    pub(crate) fn line(&mut self, line: &[u8]) -> RegisterData {
        let place = self.lines.take();
        if let Some(words) = self.lines.words(place) {
            for (word, bytes) in words.iter_mut().zip(line.chunks(8)) {
                let mut whole = [0; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(whole);
            }
        }
        RegisterData::Line { place, bytes: line.len().min(64) as u32 }
    }

    /// Whether packets may pass.
    pub(crate) fn enabled(&self) -> bool {
        self.control.enable()
    }
}

impl Device for Nic {
    fn config_read(&mut self, offset: u16) -> u32 {
        self.config.read(offset)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        self.config.write(offset, value);
        self.memory.bus_master = self.config.bus_master();
        if self.config.take_reset_request() {
            self.reset();
        }
    }

    fn bar_read(&mut self, bar: Bar, offset: u32) -> u32 {
        self.register_read(bar, offset)
    }

    fn bar_write(&mut self, bar: Bar, offset: u32, value: u32) {
        self.register_write(bar, offset, value, self.now);
    }

    fn bar_push(&mut self, bar: Bar, offset: u32, line: &[u8; 64]) {
        let data = self.line(line);
        self.posted_write(&RegisterWrite { bar, offset, data, issued_at: self.now });
    }

    fn reset(&mut self) {
        // What was on its way is gone: nothing of it reaches host memory or the line.
        let kept = std::mem::take(&mut self.events.wire_arrivals);
        self.events = Events::default();
        self.events.wire_arrivals = kept;
        self.config.reset();
        self.memory.bus_master = false;
        self.msix.reset();
        self.control = Control::new();
        self.psp_control = PspControl::new().with_udp_port(PSP_UDP_PORT);
        self.esp_udp_port = EspUdpPort::new().with_port(ESP_UDP_PORT);
        self.security_protocols = SecurityProtocols::new();
        self.parser_registers_written();
        if let Some(unit) = &mut self.receive.in_place {
            unit.abandon();
        }
        self.psp_source_ports = SourcePorts::default();
        self.lines.reset();
        // What its rings still held is gone as a whole; only the epoch goes on.
        self.queues.iter_mut().for_each(|pair| {
            pair.disable();
            *pair = QueuePair { epoch: pair.epoch, ..QueuePair::default() };
        });
        self.sa_table.reset();
        self.keys.reset();
        self.key_schedules.clear();
        self.context_cache = ContextCache::new(&self.parameters);
        self.keys_zeroised = true;
        self.transmit.pending.clear();
        self.transmit.keys.reset();
        self.transmit.parts = Places::default();
        self.transmit.sent.clear();
        self.transmit.key_schedules.clear();
        self.transmit.prefetched.fill(0);
        self.transmit.announced = 0;
        self.transmit.buffer = Store::new(self.parameters.mac.transmit_buffer_bytes);
        self.transmit.segment_buffer = Store::new(self.parameters.mac.segment_buffer_bytes);
        self.receive.buffer = Store::new(self.parameters.mac.receive_buffer_bytes);
        self.receive.scaling = ReceiveScaling::default();
        self.receive.scattered = Places::default();
        self.counters = Counters::default();
        self.event_ring.reset();
        self.shadow = ShadowRegisters::default();
        self.selected_slot = 0;
        self.psp_policy = PspPolicy::default();
        self.psp_copies = PspCopies::default();
        self.management = Management::new(&self.parameters);
        self.boot_firmware(self.now);
    }
}
