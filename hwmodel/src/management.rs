//! Management: the admin queue, the firmware and the hardware it drives (mailbox, DMA engine, SA table, PSP
//! key hardware). The firmware is the source of `fw/`; it is charged cycles for each bus access and each
//! activation, and the datapath never waits for it.

mod admin_queue;
mod engines;
mod firmware_bus;

use crate::Ticks;
use cryptonic_fw::{Firmware, Wake};
use cryptonic_regs::admin::Command;
use cryptonic_regs::bar0;
use cryptonic_regs::events::EventCause;
use cryptonic_regs::firmware::{self, PspOperation, SaOperation};

use crate::events::FirmwareRun;
use crate::nic::Nic;
use crate::parameters::Parameters;
use crate::queue::{CompletionRing, Ring};
use firmware_bus::FirmwareBus;

const SCRATCH_WORDS: usize = (firmware::SCRATCH_BYTES / 4) as usize;
/// From reset to the first instruction.
const BOOT: Ticks = Ticks::from_microseconds(10);

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
    firmware_cycle: Ticks,
    access_cycles: u64,
    activation_cycles: u64,
    /// Firmware runs not before this.
    firmware_free_at: Ticks,
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
    running: Option<(bool, Ticks)>,
    outcome: u8,
}

#[derive(Default)]
struct SaEngine {
    index: u32,
    scratch: u32,
    host: [u32; 2],
    running: Option<(SaOperation, Ticks)>,
    outcome: u8,
}

#[derive(Default)]
struct PspEngine {
    version: u32,
    count: u32,
    host: [u32; 2],
    running: Option<(PspOperation, Ticks)>,
    outcome: u8,
}

impl Management {
    /// Times begin anew, `by` later.
    pub(crate) fn begin_anew(&mut self, by: Ticks) {
        self.firmware_free_at = self.firmware_free_at.earlier_by(by);
    }

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
            firmware_cycle: Ticks(33_000_000_000_000 / parameters.firmware.clock_hz),
            access_cycles: parameters.firmware.access_cycles,
            activation_cycles: parameters.firmware.activation_cycles,
            firmware_free_at: Ticks::ZERO,
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
    pub(crate) fn boot_firmware(&mut self, now: Ticks) {
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
    pub(crate) fn wake_firmware(&mut self, at: Ticks) {
        self.run_firmware_at(at, FirmwareRun::Event);
    }

    fn run_firmware_at(&mut self, at: Ticks, run: FirmwareRun) {
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
                let at = free_at + Ticks::from_nanoseconds(u64::from(nanoseconds));
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
}
