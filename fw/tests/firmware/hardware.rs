//! Hardware for the firmware to run on: mailbox, scratch memory, engines that are done a step later. It
//! panics where firmware breaks a rule: a register's access, a start or an operand of a busy engine, a
//! completion while an engine works, a transfer of secret words, an operation repeated for one command.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cryptonic_fw::{Bus, Firmware, Wake};
use cryptonic_regs::admin::{
    AdminStatus, AllocatedSpi, Command, CommandHead, CommandLengths, Direction, Opcode, PspAllocation,
    SaForm, SaNames, SaParameters, SaStateHead, SaStateReply, SaWindow, SecretWord,
};
use cryptonic_regs::firmware::{
    BLOCKS, CLOCK_HIGH, CLOCK_LOW, DMA_BYTES, DMA_COMMAND, DMA_ENGINE, DMA_HOST_HIGH, DMA_HOST_LOW,
    DMA_SCRATCH, DMA_STATUS, DmaCommand, EngineStatus, MAILBOX_COMMAND, MAILBOX_COMPLETE, MAILBOX_NOTE,
    MAILBOX_RESULT_HIGH, MAILBOX_RESULT_LOW, MAILBOX_STATUS, Outcome, PSP_COMMAND, PSP_COUNT, PSP_GENERATION,
    PSP_HOST_HIGH, PSP_HOST_LOW, PSP_KEYS, PSP_STATUS, PSP_VERSION, PspOperation, SA_COMMAND, SA_GENERATION,
    SA_HOST_HIGH, SA_HOST_LOW, SA_INDEX, SA_QUEUE_PAIRS, SA_REPLAY_WINDOW_MAX, SA_SCRATCH, SA_SLOT_COUNT,
    SA_STATUS, SA_TABLE, SCRATCH_ADDRESS, SCRATCH_BYTES, SaOperation,
};
use cryptonic_regs::{Access, RegisterRow};

pub const PARAMETERS: u64 = 0x1_0000_0000;
pub const REPLY: u64 = 0x2_0000_0000;
pub const REPLAY_WINDOW_MAX: u32 = 4096;
pub const QUEUE_PAIRS: u32 = 8;
const HOST_WORDS: usize = 5 * 2048;
const KEY: [u64; 2] = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888];

/// What a crash at an access throws.
struct Crash;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    pub generation: u32,
    pub direction: u8,
    pub spi: u32,
    destination: [u64; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineName {
    Dma,
    Sa,
    Psp,
}

/// The next operation of an engine ends so, with or without its effect.
#[derive(Clone, Copy, Debug)]
pub struct Forced {
    pub engine: EngineName,
    pub outcome: u8,
    pub effect: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    pub identifier: u16,
    pub status: AdminStatus,
    pub result: u64,
    pub accesses: usize,
}

pub struct Hardware {
    registers: [u32; 0x400 / 4],
    scratch: [u32; SCRATCH_BYTES as usize / 4],
    pub parameters: [u64; SaParameters::WORDS],
    pub reply: Vec<u64>,
    pub queue: VecDeque<Command>,
    pending: bool,
    pub completions: Vec<Completion>,
    busy: [bool; 3],
    outcome: [u8; 3],
    pub forced: Vec<Forced>,
    pub slots: Vec<Slot>,
    generation: u32,
    pub rotations: u32,
    pub spis: u32,
    pub iv: u64,
    pub test_keys_loaded: u32,
    /// Engine commands given for the command in the mailbox.
    given: Vec<(EngineName, u32)>,
    pub accesses: usize,
    accesses_at_arrival: usize,
    pub crash_at: Option<usize>,
    /// Wakes firmware once for nothing before each event.
    pub wakes_early: bool,
}

fn register(address: u32) -> RegisterRow {
    let command = MAILBOX_COMMAND.offset;
    let address = if (command..command + 64).contains(&address) { command } else { address };
    let rows = BLOCKS.iter().flat_map(|block| block.registers);
    *rows.into_iter().find(|row| row.offset == address).unwrap_or_else(|| panic!("no register {address:#x}"))
}

impl Hardware {
    pub fn new(slots: usize) -> Self {
        Hardware {
            registers: [0; 0x100],
            scratch: [0xdead_beef; SCRATCH_BYTES as usize / 4],
            parameters: [0; SaParameters::WORDS],
            reply: vec![0; HOST_WORDS],
            queue: VecDeque::new(),
            pending: false,
            completions: Vec::new(),
            busy: [false; 3],
            outcome: [0; 3],
            forced: Vec::new(),
            slots: vec![Slot::default(); slots],
            generation: 0,
            rotations: 0,
            spis: 0,
            iv: 0,
            test_keys_loaded: 0,
            given: Vec::new(),
            accesses: 0,
            accesses_at_arrival: 0,
            crash_at: None,
            wakes_early: false,
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
        self.given.clear();
        self.pending = true;
        self.accesses_at_arrival = self.accesses;
        true
    }

    /// Runs the firmware until nothing is left to happen; false if it crashed on the way.
    pub fn run(&mut self, firmware: &mut Firmware) -> bool {
        let mut woken_early = false;
        for _ in 0..100_000 {
            let crashed = catch_unwind(AssertUnwindSafe(|| firmware.run(self)));
            match crashed {
                Ok(Wake::After { .. }) => {}
                Ok(Wake::OnEvent) if self.wakes_early && !woken_early => woken_early = true,
                Ok(Wake::OnEvent) => {
                    woken_early = false;
                    if !self.step() {
                        return true;
                    }
                }
                Err(payload) if payload.is::<Crash>() => return false,
                Err(payload) => resume_unwind(payload),
            }
        }
        panic!("no end");
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

    /// Hardware and firmware agree on which slots are in use.
    pub fn assert_agrees(&self, firmware: &Firmware) {
        for (index, slot) in self.slots.iter().enumerate() {
            assert_eq!(firmware.slot_in_use(index as u32), slot.generation != 0, "slot {index}");
        }
    }

    fn value(&self, address: u32) -> u32 {
        self.registers[address as usize / 4]
    }

    fn wide(&self, low: u32, high: u32) -> u64 {
        u64::from(self.value(high)) << 32 | u64::from(self.value(low))
    }

    fn scratch_words(&self, offset: u32, count: usize) -> Vec<u64> {
        let word = |at: usize| u64::from(self.scratch[at + 1]) << 32 | u64::from(self.scratch[at]);
        (0..count).map(|index| word(offset as usize / 4 + 2 * index)).collect()
    }

    fn start(&mut self, engine: EngineName, operation: u32) {
        assert!(!self.busy[engine as usize], "{engine:?} is busy");
        assert!(self.pending, "work without a command");
        let removes_orphan = engine == EngineName::Sa && operation == SaOperation::Delete.number();
        let key = (engine, operation);
        assert!(removes_orphan || !self.given.contains(&key), "operation {key:?} repeated");
        self.given.push(key);
        self.registers[0x3f0 / 4 + engine as usize] = operation;
        self.busy[engine as usize] = true;
    }

    fn finish(&mut self, engine: EngineName) {
        let operation = self.registers[0x3f0 / 4 + engine as usize];
        let forced = self.forced.iter().position(|forced| forced.engine == engine);
        let forced = forced.map(|index| self.forced.remove(index));
        let mut outcome = Outcome::Ok.number() as u8;
        if forced.is_none_or(|forced| forced.effect) {
            outcome = match engine {
                EngineName::Dma => self.dma(operation),
                EngineName::Sa => self.sa_table(operation),
                EngineName::Psp => self.psp(operation),
            }
            .number() as u8;
        }
        self.outcome[engine as usize] = forced.map_or(outcome, |forced| forced.outcome);
        self.busy[engine as usize] = false;
    }

    fn dma(&mut self, command: u32) -> Outcome {
        let host = self.wide(DMA_HOST_LOW.offset, DMA_HOST_HIGH.offset);
        let (offset, bytes) = (self.value(DMA_SCRATCH.offset), self.value(DMA_BYTES.offset));
        assert!(bytes.is_multiple_of(8) && offset + bytes <= SCRATCH_BYTES);
        let count = bytes as usize / 8;
        if DmaCommand::from_bits(command).to_host() {
            if host != REPLY {
                return Outcome::DmaFault;
            }
            let words = self.scratch_words(offset, count);
            self.reply[..count].copy_from_slice(&words);
        } else {
            assert!(bytes as usize <= SaParameters::PUBLIC_BYTES, "secret words are not firmware's");
            if host != PARAMETERS {
                return Outcome::DmaFault;
            }
            for (index, word) in self.parameters[..count].iter().enumerate() {
                self.scratch[offset as usize / 4 + 2 * index] = *word as u32;
                self.scratch[offset as usize / 4 + 2 * index + 1] = (word >> 32) as u32;
            }
        }
        Outcome::Ok
    }

    fn sa_table(&mut self, operation: u32) -> Outcome {
        let index = self.value(SA_INDEX.offset) as usize;
        let scratch = self.value(SA_SCRATCH.offset);
        let Some(slot) = self.slots.get(index).copied() else { return Outcome::BadArgument };
        match SaOperation::of_number(operation).expect("a defined operation") {
            SaOperation::Install => {
                let secrets = self.wide(SA_HOST_LOW.offset, SA_HOST_HIGH.offset);
                assert_eq!(secrets, PARAMETERS + SaParameters::PUBLIC_BYTES as u64);
                assert_eq!(slot.generation, 0, "an install over an SA");
                let mut words = [0; SaParameters::WORDS];
                words[..SaParameters::PUBLIC_WORDS]
                    .copy_from_slice(&self.scratch_words(scratch, SaParameters::PUBLIC_WORDS));
                let sa = SaParameters::of_words(&words);
                let new = Slot {
                    generation: self.generation + 1,
                    direction: sa.form.direction(),
                    spi: sa.names.spi(),
                    destination: [sa.destination_0, sa.destination_1],
                };
                let same = |slot: &Slot| Slot { generation: new.generation, ..*slot } == new;
                let inbound = u32::from(new.direction) == Direction::In.number();
                if inbound && self.slots.iter().any(|slot| slot.generation != 0 && same(slot)) {
                    return Outcome::DuplicateSpi;
                }
                self.generation += 1;
                self.slots[index] = new;
                Outcome::Ok
            }
            SaOperation::Delete if slot.generation == 0 => Outcome::WrongState,
            SaOperation::Delete => {
                self.slots[index] = Slot::default();
                Outcome::Ok
            }
            SaOperation::Query => {
                let head = SaStateHead::new().with_state(1).with_direction(slot.direction).with_spi(slot.spi);
                let state = SaStateReply { head, sequence: 7, packets: 8, bytes: 9 };
                for (index, word) in state.to_words().into_iter().enumerate() {
                    self.scratch[scratch as usize / 4 + 2 * index] = word as u32;
                    self.scratch[scratch as usize / 4 + 2 * index + 1] = (word >> 32) as u32;
                }
                Outcome::Ok
            }
        }
    }

    fn psp(&mut self, operation: u32) -> Outcome {
        let operand = self.wide(PSP_HOST_LOW.offset, PSP_HOST_HIGH.offset);
        match PspOperation::of_number(operation).expect("a defined operation") {
            PspOperation::Allocate => {
                let count = self.value(PSP_COUNT.offset);
                if self.value(PSP_VERSION.offset) > 1 {
                    return Outcome::BadArgument;
                }
                if operand != REPLY {
                    return Outcome::DmaFault;
                }
                for index in 0..count as usize {
                    self.spis += 1;
                    let spi = AllocatedSpi::new().with_spi(self.spis).with_key_bytes(16);
                    let key = SecretWord::from_bits(KEY[0]);
                    let record = PspAllocation { spi, key_0: key, ..Default::default() };
                    self.reply[5 * index..][..5].copy_from_slice(&record.to_words());
                }
            }
            PspOperation::Rotate => self.rotations += 1,
            PspOperation::TestKeyLoad if operand != PARAMETERS => return Outcome::DmaFault,
            PspOperation::TestKeyLoad => self.test_keys_loaded += 1,
            PspOperation::TestIvLoad if operand <= self.iv => return Outcome::BadArgument,
            PspOperation::TestIvLoad => self.iv = operand,
        }
        Outcome::Ok
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
}

fn in_scratch(address: u32) -> Option<usize> {
    let offset = address.checked_sub(SCRATCH_ADDRESS)?;
    (offset < SCRATCH_BYTES).then_some(offset as usize / 4)
}

impl Bus for Hardware {
    fn read(&mut self, address: u32) -> u32 {
        self.count_access(address);
        if let Some(index) = in_scratch(address) {
            self.assert_idle(EngineName::Dma);
            self.assert_idle(EngineName::Sa);
            return self.scratch[index];
        }
        assert_ne!(register(address).access, Access::WriteOnly, "{}", register(address).name);
        let index = self.value(SA_INDEX.offset) as usize;
        let registers: [(u32, u32); 10] = [
            (MAILBOX_STATUS.offset, u32::from(self.pending)),
            (DMA_STATUS.offset, self.engine_status(EngineName::Dma)),
            (SA_STATUS.offset, self.engine_status(EngineName::Sa)),
            (PSP_STATUS.offset, self.engine_status(EngineName::Psp)),
            (SA_SLOT_COUNT.offset, self.slots.len() as u32),
            (SA_GENERATION.offset, self.slots.get(index).map_or(0, |slot| slot.generation)),
            (SA_REPLAY_WINDOW_MAX.offset, REPLAY_WINDOW_MAX),
            (SA_QUEUE_PAIRS.offset, QUEUE_PAIRS),
            (PSP_GENERATION.offset, self.rotations),
            (CLOCK_LOW.offset, 0x89ab_cdef),
        ];
        if address == CLOCK_LOW.offset {
            self.registers[CLOCK_HIGH.offset as usize / 4] = 0x0123_4567;
        }
        let found = registers.into_iter().find(|(offset, _)| *offset == address);
        found.map_or(self.value(address), |(_, value)| value)
    }

    fn write(&mut self, address: u32, value: u32) {
        self.count_access(address);
        if let Some(index) = in_scratch(address) {
            self.assert_idle(EngineName::Dma);
            self.assert_idle(EngineName::Sa);
            self.scratch[index] = value;
            return;
        }
        assert_ne!(register(address).access, Access::ReadOnly, "{}", register(address).name);
        let block = BLOCKS.iter().find(|block| block.offset == address & !0xff).expect("a block");
        match block.kind {
            kind if kind == DMA_ENGINE.kind => self.assert_idle(EngineName::Dma),
            kind if kind == SA_TABLE.kind => self.assert_idle(EngineName::Sa),
            kind if kind == PSP_KEYS.kind => self.assert_idle(EngineName::Psp),
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
            assert_eq!(self.busy, [false; 3], "a completion before the end");
            self.pending = false;
            let head = CommandHead::from_bits(u64::from(self.value(MAILBOX_COMMAND.offset)));
            self.completions.push(Completion {
                identifier: head.identifier(),
                status: AdminStatus::of_number(value).expect("a defined status"),
                result: self.wide(MAILBOX_RESULT_LOW.offset, MAILBOX_RESULT_HIGH.offset),
                accesses: self.accesses - self.accesses_at_arrival,
            });
        }
    }
}

/// A well-formed command of an opcode.
pub fn command(opcode: Opcode, argument_0: u64) -> Command {
    let head = CommandHead::new().with_opcode(opcode.number() as u16).with_identifier(0x77);
    let (parameters, reply) = match opcode {
        Opcode::Capabilities => (0, 32),
        Opcode::Statistics => (0, 48),
        Opcode::SaInstall => (SaParameters::BYTES as u32, 0),
        Opcode::SaQuery => (0, 32),
        Opcode::PspAllocate => (0, 40 * (argument_0 as u32).min(2048)),
        Opcode::PspTestKeyLoad => (64, 0),
        Opcode::SaDelete | Opcode::PspRotate | Opcode::PspTestIvLoad => (0, 0),
    };
    Command {
        head,
        parameter_address: if parameters > 0 { PARAMETERS } else { 0 },
        reply_address: if reply > 0 { REPLY } else { 0 },
        lengths: CommandLengths::new().with_parameter_bytes(parameters).with_reply_bytes(reply),
        argument_0,
        ..Default::default()
    }
}

fn secrets(sa: SaParameters) -> SaParameters {
    SaParameters { key_0: SecretWord::from_bits(KEY[0]), key_1: SecretWord::from_bits(KEY[1]), ..sa }
}

fn form(direction: Direction) -> SaForm {
    SaForm::new().with_direction(direction.number() as u8).with_protocol(1).with_icv_bytes(16)
}

/// An outbound IPv4 tunnel.
pub fn outbound(spi: u32) -> SaParameters {
    secrets(SaParameters {
        form: form(Direction::Out).with_ttl(64).with_copy_dscp(true),
        names: SaNames::new().with_spi(spi).with_cookie(5),
        tunnel_source_1: 0x0102_00c0_0000_0000,
        tunnel_destination_1: 0x0202_00c0_0000_0000,
        ..Default::default()
    })
}

/// An inbound transport SA that matches an IPv4 destination.
pub fn inbound(spi: u32) -> SaParameters {
    secrets(SaParameters {
        form: form(Direction::In).with_mode(1).with_match_destination(true).with_receive_queue(3),
        names: SaNames::new().with_spi(spi),
        window: SaWindow::new().with_replay_window(1024),
        destination_1: 0x0202_00c0_0000_0000,
        ..Default::default()
    })
}

/// Hardware with firmware that is ready for commands.
pub fn booted(slots: usize) -> (Hardware, Firmware) {
    let (mut hardware, mut firmware) = (Hardware::new(slots), Firmware::new());
    assert!(hardware.run(&mut firmware));
    (hardware, firmware)
}

impl Hardware {
    pub fn install(&mut self, firmware: &mut Firmware, sa: &SaParameters) -> Completion {
        self.parameters = sa.to_words();
        self.serve(firmware, command(Opcode::SaInstall, 0))
    }
}
