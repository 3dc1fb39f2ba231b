//! Management: the admin queue, the firmware and the hardware it drives (mailbox, DMA engine, SA table, PSP
//! key hardware). The firmware is the source of `fw/`; it is charged cycles for each bus access and each
//! activation, and the datapath never waits for it.

use cryptonic_fw::{Bus, Firmware, Wake};
use cryptonic_pci::Time;
use cryptonic_regs::admin::{
    AdminCompletion, AdminCompletionEnd, AdminStatus, Command, CommandHead, PspAllocation, PspTestKeys,
    SaParameters, SaProtocol, SaStateHead, SaStateReply,
};
use cryptonic_regs::events::EventCause;
use cryptonic_regs::firmware::{
    self, DmaCommand, EngineStatus, MailboxStatus, Outcome, PspOperation, SaOperation,
};
use cryptonic_regs::{Value, bar0};
use cryptonic_wire::psp::Version;
use zeroize::{Zeroize, Zeroizing};

use crate::events::{FirmwareRun, HostWrite};
use crate::key_derivation::KeyError;
use crate::nic::Nic;
use crate::parameters::Parameters;
use crate::queue::{CompletionRing, Ring};
use crate::sa_parameters::{Form, SECRET_WORDS};
use crate::sa_table::InstallError;

const COMMAND_BYTES: u64 = Command::BYTES as u64;
const COMPLETION_BYTES: u32 = AdminCompletion::BYTES as u32;
const SCRATCH_WORDS: usize = (firmware::SCRATCH_BYTES / 4) as usize;
/// From reset to the first instruction.
const BOOT: Time = Time::from_microseconds(10);
/// Cycles of an SA table operation that waits for nothing.
const TABLE_CYCLES: u64 = 32;

/// State of the management side.
pub(crate) struct Management {
    pub(crate) ready: bool,
    pub(crate) control: bar0::AdminControl,
    pub(crate) status: bar0::AdminStatus,
    pub(crate) ring: Ring,
    pub(crate) completions: CompletionRing,
    /// Rises each time the queue is turned on or off, so that what is still on its way for it is dropped.
    pub(crate) epoch: u32,
    firmware: Option<Box<Firmware>>,
    /// It has begun to run since it was started.
    pub(crate) running: bool,
    /// It was started before, since the last reset.
    started: bool,
    firmware_cycle: Time,
    access_cycles: u64,
    activation_cycles: u64,
    /// Firmware runs not before this.
    firmware_free_at: Time,
    mailbox: Mailbox,
    scratch: Box<[u32; SCRATCH_WORDS]>,
    dma: DmaEngine,
    sa: SaEngine,
    psp: PspEngine,
    clock_high: u32,
    fetching: bool,
}

#[derive(Default)]
struct Mailbox {
    pending: bool,
    /// Of the queue that the command came from.
    epoch: u32,
    command: [u64; Command::WORDS],
    result: [u32; 2],
    note: u32,
}

#[derive(Default)]
struct DmaEngine {
    host: [u32; 2],
    scratch: u32,
    bytes: u32,
    running: Option<(bool, Time)>,
    outcome: u8,
}

#[derive(Default)]
struct SaEngine {
    index: u32,
    scratch: u32,
    host: [u32; 2],
    running: Option<(SaOperation, Time)>,
    outcome: u8,
}

#[derive(Default)]
struct PspEngine {
    version: u32,
    count: u32,
    host: [u32; 2],
    running: Option<(PspOperation, Time)>,
    outcome: u8,
}

impl Management {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        Management {
            ready: false,
            control: bar0::AdminControl::new(),
            status: bar0::AdminStatus::new(),
            ring: Ring::default(),
            completions: CompletionRing::default(),
            epoch: 0,
            firmware: None,
            running: false,
            started: false,
            firmware_cycle: Time(33_000_000_000_000 / parameters.firmware.clock_hz),
            access_cycles: parameters.firmware.access_cycles,
            activation_cycles: parameters.firmware.activation_cycles,
            firmware_free_at: Time::ZERO,
            mailbox: Mailbox::default(),
            scratch: Box::new([0; SCRATCH_WORDS]),
            dma: DmaEngine::default(),
            sa: SaEngine::default(),
            psp: PspEngine::default(),
            clock_high: 0,
            fetching: false,
        }
    }
}

impl Nic {
    /// Starts the firmware anew.
    pub(crate) fn boot_firmware(&mut self, now: Time) {
        self.stop_firmware();
        self.management.firmware = Some(Box::new(Firmware::new()));
        if std::mem::replace(&mut self.management.started, true) {
            self.raise_device_event(EventCause::FirmwareRestarted, 0);
        }
        self.management.firmware_free_at = now + BOOT;
        self.wake_firmware(now + BOOT);
    }

    /// The firmware never runs again.
    pub(crate) fn stop_firmware(&mut self) {
        self.management.firmware = None;
        self.management.running = false;
    }

    /// Has the firmware run at `at`, or before.
    pub(crate) fn wake_firmware(&mut self, at: Time) {
        self.run_firmware_at(at, FirmwareRun::Event);
    }

    fn run_firmware_at(&mut self, at: Time, run: FirmwareRun) {
        let at = at.max(self.management.firmware_free_at);
        // It is run for the first reason there is, and then says itself when it wants to run again.
        if self.management.firmware.is_some() && at < self.events.seldom.queues().firmware.head().time() {
            self.events.seldom.change(|queues| queues.firmware.push(at, run));
        }
    }

    /// Firmware does one piece of work.
    pub(crate) fn run_firmware(&mut self) {
        if self.now < self.management.firmware_free_at {
            // It was to run before it was started anew.
            self.wake_firmware(self.now);
            return;
        }
        let Some(mut firmware) = self.management.firmware.take() else { return };
        (self.management.ready, self.management.running) = (true, true);
        let mut bus = FirmwareBus { nic: self, accesses: 0 };
        let wake = firmware.run(&mut bus);
        let accesses = bus.accesses;
        let cycles = accesses * self.management.access_cycles + self.management.activation_cycles;
        let busy = self.management.firmware_cycle.times(cycles);
        self.management.firmware_free_at = self.now + busy;
        self.management.firmware = Some(firmware);
        let free_at = self.now + busy;
        match wake {
            Wake::After { nanoseconds: 0 } => self.wake_firmware(free_at),
            Wake::After { nanoseconds } => {
                let at = free_at + Time::from_nanoseconds(u64::from(nanoseconds));
                self.run_firmware_at(at, FirmwareRun::Timer);
            }
            // An event came while firmware ran, or none will: to run it for nothing does no harm. One that looks at nothing
            // has stopped for good.
            Wake::OnEvent if accesses > 0 && self.management.mailbox.pending && self.engines_idle() => {
                self.wake_firmware(free_at);
            }
            Wake::OnEvent => {}
        }
    }

    fn engines_idle(&self) -> bool {
        let management = &self.management;
        management.dma.running.is_none()
            && management.sa.running.is_none()
            && management.psp.running.is_none()
    }

    /// The host writes the control register of the admin queue.
    pub(crate) fn admin_control_write(&mut self, control: bar0::AdminControl) {
        let management = &mut self.management;
        let was_on = management.control.enable();
        management.control = control;
        if control.enable() != was_on {
            management.epoch = management.epoch.wrapping_add(1);
            management.fetching = false;
        }
        if control.enable() && !was_on {
            let (commands, completions) = (management.ring.base, management.completions.base);
            let valid = (1..=8).contains(&control.slots_log2())
                && commands.is_multiple_of(64)
                && completions.is_multiple_of(64)
                && commands.max(completions) < 1 << 60;
            let slots = 1 << control.slots_log2().min(8);
            management.ring = Ring { base: commands, slots, stride: COMMAND_BYTES as u32, ..Ring::default() };
            management.completions =
                CompletionRing { base: completions, slots, stride: COMPLETION_BYTES, producer: 0 };
            management.status = bar0::AdminStatus::new().with_enabled(valid).with_stopped(!valid);
        } else if !control.enable() {
            management.status = bar0::AdminStatus::new();
        }
    }

    /// The host rings the admin doorbell.
    pub(crate) fn admin_doorbell(&mut self, producer: u32) {
        if !self.management.status.enabled() {
            return;
        }
        if self.management.ring.doorbell(producer).is_err() {
            self.stop_admin_queue();
            return;
        }
        self.fetch_admin_command();
    }

    fn stop_admin_queue(&mut self) {
        self.management.status = bar0::AdminStatus::new().with_stopped(true);
    }

    fn fetch_admin_command(&mut self) {
        let management = &mut self.management;
        if management.mailbox.pending
            || management.fetching
            || management.ring.unfetched() == 0
            || !management.status.enabled()
        {
            return;
        }
        management.fetching = true;
        // Asked for from now on: a doorbell cannot take it back.
        management.ring.fetched = management.ring.fetched.wrapping_add(1);
        let epoch = management.epoch;
        let done = self.pcie.read(self.now, COMMAND_BYTES);
        self.events.seldom.change(|queues| queues.admin_command.push(done, epoch));
    }

    /// An admin command is here, of the queue as it was in `epoch`.
    pub(crate) fn admin_command_arrived(&mut self, epoch: u32) {
        if epoch != self.management.epoch {
            return;
        }
        self.management.fetching = false;
        let ring = &self.management.ring;
        let address = ring.slot(ring.fetched.wrapping_sub(1));
        let mut command = [0; Command::WORDS];
        if self.memory.read_words(address, &mut command).is_err() {
            self.stop_admin_queue();
            return;
        }
        self.management.mailbox = Mailbox { pending: true, epoch, command, result: [0; 2], note: 0 };
        self.wake_firmware(self.now);
    }

    /// Firmware is done with the command in the mailbox.
    fn complete_admin_command(&mut self, status: u32) {
        let management = &mut self.management;
        if !std::mem::take(&mut management.mailbox.pending) {
            return;
        }
        let current = management.mailbox.epoch == management.epoch;
        let identifier = CommandHead::from_bits(management.mailbox.command[0]).identifier();
        let [low, high] = management.mailbox.result;
        let status =
            AdminStatus::of_number(status).map_or(AdminStatus::Aborted.number(), AdminStatus::number);
        management.mailbox.command = [0; Command::WORDS];
        let told = current && management.status.enabled();
        // Slots that a command installed are for its host, from the moment it is complete; nobody else knows of them.
        if told && status == AdminStatus::Ok.number() {
            self.sa_table.activate_staged();
        } else {
            self.sa_table.remove_staged();
        }
        let management = &mut self.management;
        if told {
            management.ring.consumer = management.ring.consumer.wrapping_add(1);
            let (completion, phase) = management.completions.next();
            let words = AdminCompletion {
                result: u64::from(high) << 32 | u64::from(low),
                end: AdminCompletionEnd::new()
                    .with_identifier(identifier)
                    .with_status(status as u16)
                    .with_phase(phase),
            }
            .to_words();
            let (epoch, vector) = (management.epoch, u16::from(management.control.vector()));
            let written = self.pcie.write(self.now, u64::from(COMPLETION_BYTES));
            self.events
                .host_writes
                .push(written.visible, HostWrite::Admin { epoch, completion, words, vector });
        }
        self.fetch_admin_command();
    }

    /// An engine has reached the end of its operation.
    pub(crate) fn engine_done(&mut self) {
        let now = self.now;
        if let Some((to_host, _)) = self.management.dma.running.take_if(|(_, done)| *done <= now) {
            self.management.dma.outcome = self.move_scratch(to_host).number() as u8;
        }
        if let Some((operation, _)) = self.management.sa.running.take_if(|(_, done)| *done <= now) {
            self.management.sa.outcome = self.sa_operation(operation).number() as u8;
        }
        if let Some((operation, _)) = self.management.psp.running.take_if(|(_, done)| *done <= now) {
            self.management.psp.outcome = self.psp_operation(operation).number() as u8;
        }
        self.wake_firmware(now);
    }

    fn start_dma(&mut self, command: DmaCommand) {
        let dma = &mut self.management.dma;
        let bytes = u64::from(dma.bytes.min(firmware::SCRATCH_BYTES));
        let done = if command.to_host() {
            self.pcie.write(self.now, bytes).left
        } else {
            self.pcie.read(self.now, bytes)
        };
        dma.running = Some((command.to_host(), done));
        self.events.seldom.change(|queues| queues.engine.push(done, ()));
    }

    fn move_scratch(&mut self, to_host: bool) -> Outcome {
        let dma = &self.management.dma;
        let (first, count) = ((dma.scratch / 4) as usize, (dma.bytes / 4) as usize);
        let address = wide(dma.host);
        let Some(words) = first
            .checked_add(count)
            .and_then(|end| self.management.scratch.get_mut(first..end))
            .filter(|_| dma.scratch.is_multiple_of(4) && dma.bytes.is_multiple_of(4))
        else {
            return Outcome::BadArgument;
        };
        if to_host {
            if self.memory.writable(address, u64::from(dma.bytes)).is_err() {
                return Outcome::DmaFault;
            }
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let visible = self.now + Time::from_nanoseconds(self.parameters.pcie.write_latency_ns);
            self.events.host_writes.push(visible, HostWrite::Bytes { address, bytes });
            return Outcome::Ok;
        }
        let mut bytes = vec![0; count * 4];
        if self.memory.read(address, &mut bytes).is_err() {
            return Outcome::DmaFault;
        }
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Outcome::Ok
    }

    fn start_sa(&mut self, operation: u32) {
        let Some(operation) = SaOperation::of_number(operation) else {
            self.management.sa.outcome = Outcome::BadArgument.number() as u8;
            return;
        };
        let quick = self.now + self.cycle.times(TABLE_CYCLES);
        let index = self.management.sa.index;
        let done = match operation {
            SaOperation::Install => {
                self.pcie.read(self.now, SECRET_BYTES as u64) + self.cycle.times(TABLE_CYCLES)
            }
            // From now on no packet begins to use the slot; it is empty when the last one is through.
            SaOperation::Delete => self.sa_table.drain(index).map_or(quick, |drained| quick.max(drained)),
            SaOperation::Query | SaOperation::Arm => quick,
        };
        self.management.sa.running = Some((operation, done));
        self.events.seldom.change(|queues| queues.engine.push(done, ()));
    }

    fn sa_operation(&mut self, operation: SaOperation) -> Outcome {
        let (index, scratch) = (self.management.sa.index, (self.management.sa.scratch / 4) as usize);
        match operation {
            SaOperation::Install => {
                let Some(public) =
                    self.management.scratch.get(scratch..scratch + SaParameters::PUBLIC_WORDS * 2)
                else {
                    return Outcome::BadArgument;
                };
                let mut words = [0_u64; SaParameters::WORDS];
                for (word, halves) in words.iter_mut().zip(public.chunks_exact(2)) {
                    *word = u64::from(halves[1]) << 32 | u64::from(halves[0]);
                }
                // Secret words go their own way: they are never in a value that is copied about.
                let mut secret = Zeroizing::new([0_u64; SECRET_WORDS]);
                if self.memory.read_words(wide(self.management.sa.host), &mut *secret).is_err() {
                    return Outcome::DmaFault;
                }
                self.keys_zeroised = false;
                match self.sa_table.install(index, &SaParameters::of_words(&words), &secret, self.now) {
                    Ok(_) => Outcome::Ok,
                    Err(InstallError::WrongState) => Outcome::WrongState,
                    Err(InstallError::Duplicate) => Outcome::DuplicateSpi,
                    Err(InstallError::BadArgument) => Outcome::BadArgument,
                }
            }
            SaOperation::Delete => {
                if self.sa_table.slot(index).is_none() {
                    return Outcome::WrongState;
                }
                self.sa_table.remove(index);
                self.context_cache.forget(index);
                Outcome::Ok
            }
            SaOperation::Arm => match self.sa_table.arm(index, wide(self.management.sa.host)) {
                Some(true) => Outcome::Ok,
                Some(false) => Outcome::BadArgument,
                None => Outcome::WrongState,
            },
            SaOperation::Query => {
                let Some(sa) = self.sa_table.slot(index) else { return Outcome::WrongState };
                let life = &sa.lifetime;
                let picoseconds = |time: Option<Time>| time.map_or(0, Time::picoseconds);
                let protocol = match sa.form {
                    Form::Esp(_) => SaProtocol::Esp,
                    Form::Psp(_) => SaProtocol::Psp,
                };
                let reply = SaStateReply {
                    head: SaStateHead::new()
                        .with_state(sa.state().number() as u8)
                        .with_kind(life.kind.number() as u8)
                        .with_no_soft_limit(life.soft.is_none())
                        .with_no_hard_limit(life.hard.is_none())
                        .with_direction(sa.direction.number() as u8)
                        .with_protocol(protocol.number() as u8)
                        .with_spi(sa.spi),
                    sequence: sa.last_sequence(),
                    packets: life.packets,
                    bytes: life.bytes,
                    soft_limit: life.soft.unwrap_or(0),
                    hard_limit: life.hard.unwrap_or(0),
                    installed_picoseconds: life.installed.picoseconds(),
                    first_use_picoseconds: picoseconds(life.first_use),
                    last_use_picoseconds: picoseconds(life.last_use),
                    refused: life.refused,
                    replay_duplicates: life.replay_duplicates,
                    replay_below_window: life.replay_below_window,
                    icv_failures: life.icv_failures,
                    sticky: life.sticky_word(),
                };
                let Some(words) = self.management.scratch.get_mut(scratch..scratch + SaStateReply::WORDS * 2)
                else {
                    return Outcome::BadArgument;
                };
                for (halves, word) in words.chunks_exact_mut(2).zip(reply.to_words()) {
                    halves.copy_from_slice(&[word as u32, (word >> 32) as u32]);
                }
                Outcome::Ok
            }
        }
    }

    fn start_psp(&mut self, operation: u32) {
        let Some(operation) = PspOperation::of_number(operation) else {
            self.management.psp.outcome = Outcome::BadArgument.number() as u8;
            return;
        };
        let done = match operation {
            PspOperation::Allocate => {
                let mut done = self.now;
                let version =
                    Version::from_code(self.management.psp.version as u8).unwrap_or(Version::AesGcm256);
                for _ in 0..self.management.psp.count.min(ALLOCATION_MAX) {
                    done = self.keys.derive_time(self.now, version);
                }
                let bytes =
                    u64::from(self.management.psp.count.min(ALLOCATION_MAX)) * PspAllocation::BYTES as u64;
                self.pcie.write(done, bytes).left
            }
            PspOperation::TestKeyLoad => self.pcie.read(self.now, PspTestKeys::BYTES as u64),
            PspOperation::Rotate | PspOperation::TestIvLoad => self.now + self.cycle.times(TABLE_CYCLES),
        };
        self.management.psp.running = Some((operation, done));
        self.events.seldom.change(|queues| queues.engine.push(done, ()));
    }

    fn psp_operation(&mut self, operation: PspOperation) -> Outcome {
        let host = wide(self.management.psp.host);
        let result = match operation {
            PspOperation::Allocate => return self.allocate_psp(host),
            PspOperation::Rotate => {
                self.keys_zeroised = false;
                self.keys.rotate(self.now);
                self.key_schedules.clear();
                let cause = EventCause::of_number(self.management.psp.count)
                    .filter(|cause| ROTATIONS.contains(cause))
                    .unwrap_or(EventCause::PspRotatedByCommand);
                self.raise_device_event(cause, u32::from(self.keys.generation()));
                Ok(())
            }
            PspOperation::TestKeyLoad => {
                let mut words = Zeroizing::new([0_u64; PspTestKeys::WORDS]);
                if self.memory.read_words(host, &mut *words).is_err() {
                    return Outcome::DmaFault;
                }
                let mut keys = Zeroizing::new([[0_u8; 32]; 2]);
                for (bytes, word) in keys.as_flattened_mut().chunks_exact_mut(8).zip(words.iter()) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                self.key_schedules.clear();
                self.keys.test_load(&keys, self.now).inspect(|()| self.keys_zeroised = false)
            }
            PspOperation::TestIvLoad => self.keys.test_iv(host),
        };
        match result {
            Ok(()) => Outcome::Ok,
            Err(error) => outcome_of(error),
        }
    }

    fn allocate_psp(&mut self, host: u64) -> Outcome {
        let count = self.management.psp.count;
        let version = match Version::from_code(self.management.psp.version as u8) {
            Some(version) if count <= ALLOCATION_MAX => version,
            _ => return Outcome::BadArgument,
        };
        if self.memory.writable(host, u64::from(count) * PspAllocation::BYTES as u64).is_err() {
            return Outcome::DmaFault;
        }
        let mut records = match self.keys.allocate(version, count) {
            Ok(records) => records,
            Err(error) => {
                if self.keys.take_exhausted() {
                    self.raise_device_event(EventCause::PspSpiExhausted, self.keys.remaining());
                }
                return outcome_of(error);
            }
        };
        if self.keys.take_low() {
            self.raise_device_event(EventCause::PspSpiLow, self.keys.remaining());
        }
        // The reply goes out ahead of the completion, in order; the records hold keys and do not stay.
        for (index, record) in records.iter().enumerate() {
            let address = host + (index * PspAllocation::BYTES) as u64;
            let mut words = Zeroizing::new(record.to_words());
            if self.memory.write_words(address, &*words).is_err() {
                return Outcome::DmaFault;
            }
            words.zeroize();
        }
        records.fill(PspAllocation::default());
        Outcome::Ok
    }

    fn firmware_read(&mut self, address: u32) -> u32 {
        let management = &mut self.management;
        if let Some(offset) = address.checked_sub(firmware::SCRATCH_ADDRESS) {
            return management.scratch.get((offset / 4) as usize).copied().unwrap_or(0);
        }
        if let Some(offset) = address.checked_sub(firmware::MAILBOX_COMMAND.offset)
            && let Some(word) = management.mailbox.command.get((offset / 8) as usize)
        {
            return if offset.is_multiple_of(8) { *word as u32 } else { (*word >> 32) as u32 };
        }
        let engine =
            |busy: bool, outcome| EngineStatus::new().with_busy(busy).with_outcome(outcome).into_bits();
        match address {
            _ if address == firmware::MAILBOX_STATUS.offset => {
                MailboxStatus::new().with_pending(management.mailbox.pending).into_bits()
            }
            _ if address == firmware::MAILBOX_NOTE.offset => management.mailbox.note,
            _ if address == firmware::DMA_STATUS.offset => {
                engine(management.dma.running.is_some(), management.dma.outcome)
            }
            _ if address == firmware::SA_SLOT_COUNT.offset => self.sa_table.slots() as u32,
            _ if address == firmware::SA_GENERATION.offset => {
                self.sa_table.slot(management.sa.index).map_or(0, |sa| sa.generation)
            }
            _ if address == firmware::SA_STATUS.offset => {
                engine(management.sa.running.is_some(), management.sa.outcome)
            }
            _ if address == firmware::SA_REPLAY_WINDOW_MAX.offset => {
                self.parameters.capacity.replay_window_packets as u32
            }
            _ if address == firmware::SA_QUEUE_PAIRS.offset => self.queues.len() as u32,
            _ if address == firmware::SA_PACKET_SLOT_COUNT.offset => {
                self.parameters.capacity.sa_packet_slots() as u32
            }
            _ if address == firmware::SA_STATE.offset => {
                self.sa_table.slot(management.sa.index).map_or(0, |sa| sa.state().number())
            }
            _ if address == firmware::PSP_REMAINING.offset => self.keys.remaining(),
            _ if address == firmware::PSP_WANTED_ROTATION.offset => self.psp_policy.rotation.into_bits(),
            _ if address == firmware::PSP_WANTED_PERIOD_MS.offset => self.psp_policy.period_ms,
            _ if address == firmware::PSP_KEY_MADE_MS.offset => {
                self.keys.made_at().map_or(u32::MAX, milliseconds)
            }
            _ if address == firmware::EVENT_COUNT.offset => self.event_ring.count,
            _ if address == firmware::EVENT_MODERATION.offset => self.event_ring.moderation.into_bits(),
            _ if address == firmware::PSP_STATUS.offset => {
                engine(management.psp.running.is_some(), management.psp.outcome)
            }
            _ if address == firmware::PSP_GENERATION.offset => u32::from(self.keys.generation()),
            _ if address == firmware::CLOCK_LOW.offset => {
                let clock = self.now.picoseconds();
                management.clock_high = (clock >> 32) as u32;
                clock as u32
            }
            _ if address == firmware::CLOCK_HIGH.offset => management.clock_high,
            _ => 0,
        }
    }

    fn firmware_write(&mut self, address: u32, value: u32) {
        let management = &mut self.management;
        if let Some(offset) = address.checked_sub(firmware::SCRATCH_ADDRESS) {
            if let Some(word) = management.scratch.get_mut((offset / 4) as usize) {
                *word = value;
            }
            return;
        }
        match address {
            _ if address == firmware::MAILBOX_RESULT_LOW.offset => management.mailbox.result[0] = value,
            _ if address == firmware::MAILBOX_RESULT_HIGH.offset => management.mailbox.result[1] = value,
            _ if address == firmware::MAILBOX_NOTE.offset => management.mailbox.note = value,
            _ if address == firmware::MAILBOX_COMPLETE.offset => self.complete_admin_command(value),
            _ if address == firmware::DMA_HOST_LOW.offset => management.dma.host[0] = value,
            _ if address == firmware::DMA_HOST_HIGH.offset => management.dma.host[1] = value,
            _ if address == firmware::DMA_SCRATCH.offset => management.dma.scratch = value,
            _ if address == firmware::DMA_BYTES.offset => management.dma.bytes = value,
            _ if address == firmware::DMA_COMMAND.offset => {
                self.start_dma(DmaCommand::of_bits(u64::from(value)))
            }
            _ if address == firmware::SA_INDEX.offset => management.sa.index = value,
            _ if address == firmware::SA_SCRATCH.offset => management.sa.scratch = value,
            _ if address == firmware::SA_HOST_LOW.offset => management.sa.host[0] = value,
            _ if address == firmware::SA_HOST_HIGH.offset => management.sa.host[1] = value,
            _ if address == firmware::SA_COMMAND.offset => self.start_sa(value),
            _ if address == firmware::PSP_VERSION.offset => management.psp.version = value,
            _ if address == firmware::PSP_COUNT.offset => management.psp.count = value,
            _ if address == firmware::PSP_HOST_LOW.offset => management.psp.host[0] = value,
            _ if address == firmware::PSP_HOST_HIGH.offset => management.psp.host[1] = value,
            _ if address == firmware::PSP_COMMAND.offset => self.start_psp(value),
            _ if address == firmware::EVENT_MODERATION.offset => {
                self.event_ring.moderation = bar0::InterruptModeration::from_bits(value);
            }
            _ => {}
        }
    }
}

/// Why a device key is rotated.
const ROTATIONS: [EventCause; 3] =
    [EventCause::PspRotatedByCommand, EventCause::PspRotatedByPeriod, EventCause::PspRotatedByExhaustion];
/// Bytes of the secret words of SA parameters.
const SECRET_BYTES: usize = SECRET_WORDS * 8;
/// Most SPIs that one operation gives out.
const ALLOCATION_MAX: u32 = 65_536;

fn outcome_of(error: KeyError) -> Outcome {
    match error {
        KeyError::NoSpiLeft => Outcome::NoSpiLeft,
        KeyError::Locked => Outcome::Locked,
        KeyError::BadArgument => Outcome::BadArgument,
    }
}

/// Whole milliseconds, modulo 2^32; never all ones, which says that there is none.
fn milliseconds(time: Time) -> u32 {
    let passed = (time.picoseconds() / 1_000_000_000) as u32;
    if passed == u32::MAX { 0 } else { passed }
}

fn wide(halves: [u32; 2]) -> u64 {
    u64::from(halves[1]) << 32 | u64::from(halves[0])
}

/// The bus that firmware sees, with a count of its accesses.
struct FirmwareBus<'a> {
    nic: &'a mut Nic,
    accesses: u64,
}

impl Bus for FirmwareBus<'_> {
    fn read(&mut self, address: u32) -> u32 {
        self.accesses += 1;
        self.nic.firmware_read(address)
    }

    fn write(&mut self, address: u32, value: u32) {
        self.accesses += 1;
        self.nic.firmware_write(address, value);
    }
}
