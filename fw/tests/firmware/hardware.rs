//! Hardware for the firmware to run on: mailbox, scratch memory, events, and engines that are done a step
//! later. It panics where firmware breaks a rule: a register's access, a start or an operand of a busy engine,
//! a completion while an engine works or, with a refusal, while a slot is staged.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cryptonic_fw::{Bus, Firmware, Wake};
use cryptonic_regs::admin::{AdminStatus, Command, CommandHead, SaParameters};
use cryptonic_regs::bar0::InterruptModeration;
use cryptonic_regs::events::SlotState;
use cryptonic_regs::firmware::{
    BLOCKS, CLOCK_HIGH, CLOCK_LOW, DMA_COMMAND, DMA_ENGINE, DMA_STATUS, EVENT_COUNT, EVENT_MODERATION,
    EVENT_RING, EngineStatus, MAILBOX_COMMAND, MAILBOX_COMPLETE, MAILBOX_NOTE, MAILBOX_RESULT_HIGH,
    MAILBOX_RESULT_LOW, MAILBOX_STATUS, PSP_COMMAND, PSP_GENERATION, PSP_KEY_MADE_MS, PSP_KEYS,
    PSP_REMAINING, PSP_STATUS, PSP_WANTED_PERIOD_MS, PSP_WANTED_ROTATION, SA_COMMAND, SA_GENERATION,
    SA_INDEX, SA_PACKET_SLOT_COUNT, SA_QUEUE_PAIRS, SA_REPLAY_WINDOW_MAX, SA_SLOT_COUNT, SA_STATE, SA_STATUS,
    SA_TABLE, SCRATCH_ADDRESS, SCRATCH_BYTES,
};
use cryptonic_regs::psp_policy::PspRotation;
use cryptonic_regs::{Access, RegisterRow};

use crate::engines::{EngineName, Forced, Psp, Slot};

pub const PARAMETERS: u64 = 0x1_0000_0000;
pub const REPLY: u64 = 0x2_0000_0000;
pub const REPLAY_WINDOW_MAX: u32 = 4096;
pub const QUEUE_PAIRS: u32 = 8;
const HOST_WORDS: usize = 5 * 2048;

/// What a crash at an access throws.
struct Crash;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    pub identifier: u16,
    pub status: AdminStatus,
    pub result: u64,
    pub accesses: usize,
}

pub struct Hardware {
    pub registers: [u32; 0x500 / 4],
    pub scratch: [u32; SCRATCH_BYTES as usize / 4],
    /// What the host has at [`PARAMETERS`].
    pub parameters: Vec<u64>,
    /// What the host has at [`REPLY`].
    pub reply: Vec<u64>,
    pub queue: VecDeque<Command>,
    pub pending: bool,
    pub completions: Vec<Completion>,
    pub busy: [bool; 3],
    pub outcome: [u8; 3],
    pub forced: Vec<Forced>,
    pub slots: Vec<Slot>,
    /// Slots that count packets.
    pub packet_slots: usize,
    /// The generation given last.
    pub generation: u32,
    pub psp: Psp,
    pub events: u32,
    pub clock_picoseconds: u64,
    /// Engine operations started for the command in the mailbox.
    pub started: Vec<(EngineName, u32)>,
    pub accesses: usize,
    accesses_at_arrival: usize,
    pub crash_at: Option<usize>,
    /// Wakes firmware once for nothing before each event.
    pub wakes_early: bool,
    /// When firmware wanted to run again, as it said last.
    pub wake: Wake,
}

impl Hardware {
    pub fn new(packet_slots: usize, slots: usize) -> Self {
        Hardware {
            registers: [0; 0x500 / 4],
            scratch: [0xdead_beef; SCRATCH_BYTES as usize / 4],
            parameters: vec![0; SaParameters::WORDS],
            reply: vec![0; HOST_WORDS],
            queue: VecDeque::new(),
            pending: false,
            completions: Vec::new(),
            busy: [false; 3],
            outcome: [0; 3],
            forced: Vec::new(),
            slots: vec![Slot::default(); slots],
            packet_slots,
            generation: 0,
            psp: Psp::new(),
            events: 0,
            clock_picoseconds: 0x0123_4567_89ab_cdef,
            started: Vec::new(),
            accesses: 0,
            accesses_at_arrival: 0,
            crash_at: None,
            wakes_early: false,
            wake: Wake::OnEvent,
        }
    }

    /// The next event: an engine is done, or a command arrives. False if nothing is left to happen.
    pub fn step(&mut self) -> bool {
        for engine in [EngineName::Dma, EngineName::Sa, EngineName::Psp] {
            if self.busy[engine as usize] {
                self.finish(engine);
                return true;
            }
        }
        if self.pending {
            return false;
        }
        let Some(command) = self.queue.pop_front() else { return false };
        let at = MAILBOX_COMMAND.offset as usize / 4;
        for (index, word) in command.to_words().into_iter().enumerate() {
            self.registers[at + 2 * index] = word as u32;
            self.registers[at + 2 * index + 1] = (word >> 32) as u32;
        }
        self.registers[MAILBOX_NOTE.offset as usize / 4] = 0;
        self.started.clear();
        self.pending = true;
        self.accesses_at_arrival = self.accesses;
        true
    }

    /// Runs the firmware until nothing is left to happen but the passing of time; false if it crashed on the
    /// way.
    pub fn run(&mut self, firmware: &mut Firmware) -> bool {
        let mut woken_early = false;
        for _ in 0..100_000 {
            match catch_unwind(AssertUnwindSafe(|| firmware.run(self))) {
                Ok(wake) => self.wake = wake,
                Err(payload) if payload.is::<Crash>() => return false,
                Err(payload) => resume_unwind(payload),
            }
            if self.wake == (Wake::After { nanoseconds: 0 }) {
                continue;
            }
            if self.wakes_early && !woken_early {
                woken_early = true;
                continue;
            }
            woken_early = false;
            if !self.step() {
                return true;
            }
        }
        panic!("no end");
    }

    /// Runs the firmware for a time: it wakes when it asked to, and for what happens.
    pub fn run_for(&mut self, firmware: &mut Firmware, nanoseconds: u64) {
        let end = self.clock_picoseconds + nanoseconds * 1000;
        loop {
            assert!(self.run(firmware));
            let Wake::After { nanoseconds } = self.wake else { break };
            assert!((1..=1_000_000_000).contains(&nanoseconds), "{nanoseconds} ns to the next look");
            let next = self.clock_picoseconds + u64::from(nanoseconds) * 1000;
            if next > end {
                break;
            }
            self.clock_picoseconds = next;
        }
        self.clock_picoseconds = end;
    }

    /// Runs one command and gives its completion.
    pub fn serve(&mut self, firmware: &mut Firmware, command: Command) -> Completion {
        let before = self.completions.len();
        self.queue.push_back(command);
        assert!(self.run(firmware));
        assert_eq!(self.completions.len(), before + 1, "one completion a command");
        self.assert_agrees(firmware);
        self.completions[before]
    }

    /// Hardware and firmware agree on which slots are in use, and none is staged between two commands.
    pub fn assert_agrees(&self, firmware: &Firmware) {
        for (index, slot) in self.slots.iter().enumerate() {
            assert_ne!(slot.state, SlotState::Staged, "slot {index}");
            assert_eq!(firmware.slot_in_use(index as u32), slot.state != SlotState::Free, "slot {index}");
        }
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.slots.iter().filter(|slot| slot.state != SlotState::Free).count()
    }

    pub fn clock_ms(&self) -> u32 {
        (self.clock_picoseconds / 1_000_000_000) as u32
    }

    /// What firmware says of the interrupt of the event ring: nanoseconds and events that it waits for.
    pub fn moderation(&self) -> (u32, u8) {
        let moderation = InterruptModeration::from_bits(self.value(EVENT_MODERATION.offset));
        (moderation.delay_ns(), moderation.completions())
    }

    pub fn command(&self) -> Command {
        let at = MAILBOX_COMMAND.offset / 4;
        let word = |index: usize| self.wide((at + 2 * index as u32) * 4, (at + 2 * index as u32) * 4 + 4);
        Command::of_words(&std::array::from_fn(word))
    }

    /// Whether firmware serves the command in the mailbox.
    pub fn taken(&self) -> bool {
        self.pending && self.value(MAILBOX_NOTE.offset) != 0
    }

    pub fn value(&self, address: u32) -> u32 {
        self.registers[address as usize / 4]
    }

    pub fn wide(&self, low: u32, high: u32) -> u64 {
        u64::from(self.value(high)) << 32 | u64::from(self.value(low))
    }

    fn complete(&mut self, status: u32) {
        assert_eq!(self.busy, [false; 3], "a completion before the end");
        assert!(self.taken(), "a completion of a command that was not begun");
        let status = AdminStatus::of_number(status).expect("a defined status");
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.state == SlotState::Staged {
                assert_eq!(status, AdminStatus::Ok, "slot {index} is staged");
                slot.state = SlotState::Armed;
            }
        }
        self.pending = false;
        let head = CommandHead::from_bits(u64::from(self.value(MAILBOX_COMMAND.offset)));
        self.completions.push(Completion {
            identifier: head.identifier(),
            status,
            result: self.wide(MAILBOX_RESULT_LOW.offset, MAILBOX_RESULT_HIGH.offset),
            accesses: self.accesses - self.accesses_at_arrival,
        });
    }

    fn engine_status(&self, engine: EngineName) -> u32 {
        let status = EngineStatus::new().with_busy(self.busy[engine as usize]);
        status.with_outcome(self.outcome[engine as usize]).into_bits()
    }

    fn count_access(&mut self, address: u32) {
        assert_eq!(address % 4, 0);
        if self.crash_at == Some(self.accesses) {
            self.crash_at = None;
            resume_unwind(Box::new(Crash));
        }
        self.accesses += 1;
    }

    fn assert_idle(&self, engine: EngineName) {
        assert!(!self.busy[engine as usize], "{engine:?} works");
    }

    /// Nothing else moves scratch memory while firmware does.
    fn assert_scratch_is_still(&self) {
        self.assert_idle(EngineName::Dma);
        self.assert_idle(EngineName::Sa);
    }
}

impl Bus for Hardware {
    fn read(&mut self, address: u32) -> u32 {
        self.count_access(address);
        if let Some(index) = in_scratch(address) {
            self.assert_scratch_is_still();
            return self.scratch[index];
        }
        assert_ne!(register(address).access, Access::WriteOnly, "{}", register(address).name);
        if address == CLOCK_LOW.offset {
            self.registers[CLOCK_HIGH.offset as usize / 4] = (self.clock_picoseconds >> 32) as u32;
        }
        let slot = self.slots.get(self.value(SA_INDEX.offset) as usize).copied().unwrap_or_default();
        let rotation = PspRotation::new().with_on_exhaustion(self.psp.on_exhaustion);
        let registers = [
            (MAILBOX_STATUS.offset, u32::from(self.pending)),
            (DMA_STATUS.offset, self.engine_status(EngineName::Dma)),
            (SA_STATUS.offset, self.engine_status(EngineName::Sa)),
            (PSP_STATUS.offset, self.engine_status(EngineName::Psp)),
            (SA_SLOT_COUNT.offset, self.slots.len() as u32),
            (SA_PACKET_SLOT_COUNT.offset, self.packet_slots as u32),
            (SA_GENERATION.offset, slot.generation),
            (SA_STATE.offset, slot.state.number()),
            (SA_REPLAY_WINDOW_MAX.offset, REPLAY_WINDOW_MAX),
            (SA_QUEUE_PAIRS.offset, QUEUE_PAIRS),
            (PSP_GENERATION.offset, self.psp.rotations.len() as u32),
            (PSP_REMAINING.offset, self.psp.remaining),
            (PSP_WANTED_ROTATION.offset, rotation.into_bits()),
            (PSP_WANTED_PERIOD_MS.offset, self.psp.wanted_period_ms),
            (PSP_KEY_MADE_MS.offset, self.psp.key_made_ms.unwrap_or(u32::MAX)),
            (CLOCK_LOW.offset, self.clock_picoseconds as u32),
            (EVENT_COUNT.offset, self.events),
        ];
        let found = registers.into_iter().find(|(offset, _)| *offset == address);
        found.map_or(self.value(address), |(_, value)| value)
    }

    fn write(&mut self, address: u32, value: u32) {
        self.count_access(address);
        if let Some(index) = in_scratch(address) {
            self.assert_scratch_is_still();
            self.scratch[index] = value;
            return;
        }
        assert_ne!(register(address).access, Access::ReadOnly, "{}", register(address).name);
        let block = BLOCKS.iter().find(|block| block.offset == address & !0xff).expect("a block");
        match block.kind {
            kind if kind == DMA_ENGINE.kind => self.assert_idle(EngineName::Dma),
            kind if kind == SA_TABLE.kind => self.assert_idle(EngineName::Sa),
            kind if kind == PSP_KEYS.kind => self.assert_idle(EngineName::Psp),
            kind if kind == EVENT_RING.kind => {}
            _ => assert!(self.pending, "the mailbox is empty"),
        }
        self.registers[address as usize / 4] = value;
        if address == DMA_COMMAND.offset {
            self.start(EngineName::Dma, value);
        } else if address == SA_COMMAND.offset {
            self.start(EngineName::Sa, value);
        } else if address == PSP_COMMAND.offset {
            self.start(EngineName::Psp, value);
        } else if address == MAILBOX_COMPLETE.offset {
            self.complete(value);
        }
    }
}

fn in_scratch(address: u32) -> Option<usize> {
    let offset = address.checked_sub(SCRATCH_ADDRESS)?;
    (offset < SCRATCH_BYTES).then_some(offset as usize / 4)
}

fn register(address: u32) -> RegisterRow {
    let command = MAILBOX_COMMAND.offset;
    let address = if (command..command + 64).contains(&address) { command } else { address };
    let rows = BLOCKS.iter().flat_map(|block| block.registers);
    *rows.into_iter().find(|row| row.offset == address).unwrap_or_else(|| panic!("no register {address:#x}"))
}
