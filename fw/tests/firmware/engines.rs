//! The engines of the hardware: what they do, and the rules that firmware keeps when it starts them. They
//! panic at a transfer of secret words, at an operation repeated for one command, at an SA in a slot of the
//! wrong kind, and at a rotation that nothing asks for.

use cryptonic_regs::admin::{
    AllocatedSpi, Direction, LifetimeKind, Opcode, PspAllocation, SaParameters, SaStateHead, SaStateReply,
    SecretWord,
};
use cryptonic_regs::events::{EventCause, SlotState};
use cryptonic_regs::firmware::{
    DMA_BYTES, DMA_HOST_HIGH, DMA_HOST_LOW, DMA_SCRATCH, DmaCommand, Outcome, PSP_COUNT, PSP_HOST_HIGH,
    PSP_HOST_LOW, PSP_VERSION, PspOperation, SA_HOST_HIGH, SA_HOST_LOW, SA_INDEX, SA_SCRATCH, SCRATCH_BYTES,
    SaOperation,
};

use crate::hardware::{Hardware, PARAMETERS, REPLY};
use crate::samples::KEY;

/// SPIs of a fresh device key.
pub const FRESH_SPIS: u32 = 0x7fff_ffff;
/// Where the operation of each engine is kept, in addresses that hold no register.
const OPERATIONS: usize = 0x3f0 / 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineName {
    Dma,
    Sa,
    Psp,
}

/// An operation of an engine ends so, with or without its effect.
#[derive(Clone, Copy, Debug)]
pub struct Forced {
    pub engine: EngineName,
    /// Operations of the engine that come before.
    pub skip: usize,
    pub outcome: u8,
    pub effect: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    pub generation: u32,
    pub state: SlotState,
    pub direction: u8,
    pub spi: u32,
    pub destination: [u64; 2],
    pub soft_limit: u64,
    pub hard_limit: u64,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            generation: 0,
            state: SlotState::Free,
            direction: 0,
            spi: 0,
            destination: [0; 2],
            soft_limit: 0,
            hard_limit: 0,
        }
    }
}

/// The PSP key hardware, and what the host wants of it.
pub struct Psp {
    pub on_exhaustion: bool,
    pub wanted_period_ms: u32,
    pub key_made_ms: Option<u32>,
    /// How much too early a rotation may be.
    pub tolerance_ms: u32,
    pub remaining: u32,
    /// Cause and time of each rotation.
    pub rotations: Vec<(EventCause, u32)>,
    pub spis: u32,
    pub iv: u64,
    pub test_keys_loaded: u32,
}

impl Psp {
    pub fn new() -> Self {
        Psp {
            on_exhaustion: false,
            wanted_period_ms: 0,
            key_made_ms: Some(0),
            tolerance_ms: 0,
            remaining: FRESH_SPIS,
            rotations: Vec::new(),
            spis: 0,
            iv: 0,
            test_keys_loaded: 0,
        }
    }
}

impl Hardware {
    pub fn start(&mut self, engine: EngineName, operation: u32) {
        assert!(!self.busy[engine as usize], "{engine:?} is busy");
        let index = self.value(SA_INDEX.offset) as usize;
        let removes_staged = engine == EngineName::Sa
            && operation == SaOperation::Delete.number()
            && self.slots.get(index).is_some_and(|slot| slot.state == SlotState::Staged);
        let rotates = engine == EngineName::Psp && operation == PspOperation::Rotate.number();
        if rotates {
            self.assert_rotation_is_due();
        }
        assert!(removes_staged || rotates || self.taken(), "work without a command");
        let of_command = self.taken() && !removes_staged;
        if of_command {
            let command = self.command();
            let installs = command.head.opcode() == Opcode::SaInstall.number() as u16;
            // One record after the other.
            let fetch = (EngineName::Dma, DmaCommand::new().into_bits());
            let often = [fetch, (EngineName::Sa, SaOperation::Install.number())];
            let most = if installs && often.contains(&(engine, operation)) { command.argument_0 } else { 1 };
            self.started.push((engine, operation));
            let times = self.started.iter().filter(|start| **start == (engine, operation)).count();
            assert!(times as u64 <= most, "operation {operation} of {engine:?} repeated");
        }
        self.registers[OPERATIONS + engine as usize] = operation;
        self.busy[engine as usize] = true;
    }

    pub fn finish(&mut self, engine: EngineName) {
        let operation = self.registers[OPERATIONS + engine as usize];
        let forced = self.forced.iter().position(|forced| forced.engine == engine && forced.skip == 0);
        for forced in self.forced.iter_mut().filter(|forced| forced.engine == engine) {
            forced.skip = forced.skip.saturating_sub(1);
        }
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

    /// Two rotations in a row evict the key that peers send with.
    fn assert_rotation_is_due(&self) {
        let cause = EventCause::of_number(self.value(PSP_COUNT.offset));
        let command = self.command();
        let opcode = self.taken().then(|| command.head.opcode());
        match cause.expect("a defined cause") {
            EventCause::PspRotatedByCommand => {
                assert_eq!(opcode, Some(Opcode::PspRotate.number() as u16));
            }
            EventCause::PspRotatedByExhaustion => {
                assert_eq!(opcode, Some(Opcode::PspAllocate.number() as u16));
                assert!(self.psp.on_exhaustion && self.psp.remaining < command.argument_0 as u32);
            }
            EventCause::PspRotatedByPeriod => {
                assert_eq!(opcode, None, "a rotation by period during a command");
                let age = self.psp.key_made_ms.map(|made| self.clock_ms().wrapping_sub(made));
                let period = self.psp.wanted_period_ms;
                let due = age.is_none_or(|age| age >= period - self.psp.tolerance_ms);
                assert!(period > 0 && due, "{age:?} ms of {period} ms");
            }
            cause => panic!("{} is no cause of a rotation", cause.name()),
        }
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
            let Some(words) = self.host_words(host, count) else { return Outcome::DmaFault };
            self.set_scratch_words(offset, &words);
        }
        Outcome::Ok
    }

    fn sa_table(&mut self, operation: u32) -> Outcome {
        let index = self.value(SA_INDEX.offset) as usize;
        let scratch = self.value(SA_SCRATCH.offset);
        let operand = self.wide(SA_HOST_LOW.offset, SA_HOST_HIGH.offset);
        let Some(slot) = self.slots.get(index).copied() else { return Outcome::BadArgument };
        match SaOperation::of_number(operation).expect("a defined operation") {
            SaOperation::Install => self.stage(index, scratch, operand),
            SaOperation::Delete if slot.state == SlotState::Free => Outcome::WrongState,
            SaOperation::Delete => {
                self.slots[index] = Slot::default();
                Outcome::Ok
            }
            SaOperation::Query => {
                let head = SaStateHead::new().with_state(1).with_direction(slot.direction).with_spi(slot.spi);
                let mut words: [u64; SaStateReply::WORDS] = std::array::from_fn(|index| index as u64);
                words[0] = head.into_bits();
                self.set_scratch_words(scratch, &words);
                Outcome::Ok
            }
            SaOperation::Arm if !matches!(slot.state, SlotState::Armed | SlotState::Soft) => {
                Outcome::WrongState
            }
            SaOperation::Arm if slot.hard_limit != 0 && operand >= slot.hard_limit => Outcome::BadArgument,
            SaOperation::Arm => {
                self.slots[index] = Slot { state: SlotState::Armed, soft_limit: operand, ..slot };
                Outcome::Ok
            }
        }
    }

    fn stage(&mut self, index: usize, scratch: u32, secrets: u64) -> Outcome {
        assert_eq!(self.slots[index].state, SlotState::Free, "an install over an SA");
        let public = self.scratch_words(scratch, SaParameters::PUBLIC_WORDS);
        let record = secrets - SaParameters::PUBLIC_BYTES as u64;
        assert_eq!((record - PARAMETERS) % SaParameters::BYTES as u64, 0, "the secrets of a record");
        let Some(whole) = self.host_words(record, SaParameters::WORDS) else { return Outcome::DmaFault };
        assert_eq!(whole[..SaParameters::PUBLIC_WORDS], public, "public and secret words of one record");
        let sa = SaParameters::of_words(&whole.try_into().expect("a record"));
        let packets = u32::from(sa.lifetime.kind()) == LifetimeKind::Packets.number();
        let limited = !sa.lifetime.no_soft_limit() || !sa.lifetime.no_hard_limit();
        assert!(!limited || packets == (index < self.packet_slots), "slot {index} is of the other kind");
        let new = Slot {
            generation: self.generation + 1,
            state: SlotState::Staged,
            direction: sa.form.direction(),
            spi: sa.names.spi(),
            destination: [sa.destination_0, sa.destination_1],
            soft_limit: sa.soft_limit,
            hard_limit: sa.hard_limit,
        };
        let name = |slot: &Slot| (slot.direction, slot.spi, slot.destination);
        let inbound = u32::from(new.direction) == Direction::In.number();
        let taken = |slot: &Slot| slot.state != SlotState::Free && name(slot) == name(&new);
        if inbound && self.slots.iter().any(taken) {
            return Outcome::DuplicateSpi;
        }
        self.generation += 1;
        self.slots[index] = new;
        Outcome::Ok
    }

    fn psp(&mut self, operation: u32) -> Outcome {
        let operand = self.wide(PSP_HOST_LOW.offset, PSP_HOST_HIGH.offset);
        let count = self.value(PSP_COUNT.offset);
        match PspOperation::of_number(operation).expect("a defined operation") {
            PspOperation::Allocate => {
                if self.value(PSP_VERSION.offset) > 1 {
                    return Outcome::BadArgument;
                }
                if operand != REPLY {
                    return Outcome::DmaFault;
                }
                if self.psp.remaining < count {
                    return Outcome::NoSpiLeft;
                }
                self.psp.remaining -= count;
                for index in 0..count as usize {
                    self.psp.spis += 1;
                    let spi = AllocatedSpi::new().with_spi(self.psp.spis).with_key_bytes(16);
                    let key = SecretWord::from_bits(KEY[0]);
                    let record = PspAllocation { spi, key_0: key, ..Default::default() };
                    self.reply[5 * index..][..5].copy_from_slice(&record.to_words());
                }
            }
            PspOperation::Rotate => {
                let cause = EventCause::of_number(count).expect("a defined cause");
                self.psp.rotations.push((cause, self.clock_ms()));
                self.psp.key_made_ms = Some(self.clock_ms());
                self.psp.remaining = FRESH_SPIS;
                self.events += 1;
            }
            PspOperation::TestKeyLoad if operand != PARAMETERS => return Outcome::DmaFault,
            PspOperation::TestKeyLoad => self.psp.test_keys_loaded += 1,
            PspOperation::TestIvLoad if operand <= self.psp.iv => return Outcome::BadArgument,
            PspOperation::TestIvLoad => self.psp.iv = operand,
        }
        Outcome::Ok
    }

    /// Words of the host's parameters; `None` outside.
    fn host_words(&self, address: u64, count: usize) -> Option<Vec<u64>> {
        let first = usize::try_from(address.checked_sub(PARAMETERS)? / 8).ok()?;
        Some(self.parameters.get(first..first.checked_add(count)?)?.to_vec())
    }

    fn scratch_words(&self, offset: u32, count: usize) -> Vec<u64> {
        let word = |at: usize| u64::from(self.scratch[at + 1]) << 32 | u64::from(self.scratch[at]);
        (0..count).map(|index| word(offset as usize / 4 + 2 * index)).collect()
    }

    fn set_scratch_words(&mut self, offset: u32, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            self.scratch[offset as usize / 4 + 2 * index] = *word as u32;
            self.scratch[offset as usize / 4 + 2 * index + 1] = (word >> 32) as u32;
        }
    }
}
