//! The admin queue of a NIC, and the event ring, word by word.

use cryptonic_pci::{Bar, DmaAccess, SharedMemory};
use cryptonic_regs::admin::{
    AdminCompletion, AdminStatus, Command, CommandHead, CommandLengths, Direction, InstalledSa, LifetimeKind,
    Mode, Opcode, PspAllocation, SaForm, SaLifetime, SaNames, SaParameters, SaProtocol, SaStateReply,
    SecretWord,
};
use cryptonic_regs::bar0::{self, AdminControl};
use cryptonic_regs::descriptor::TransmitSa;
use cryptonic_regs::events::{
    EVENT_CONTROL, EVENT_DOORBELL, EVENT_RING_BASE, Event, EventCause, EventControl,
};

use crate::raw::Raw;

const ADMIN_IOVA: u64 = 0x8000_0000;
const SLOTS: u64 = 256;
const COMPLETIONS: usize = 0x4000;
const BLOCK: usize = 0x8000;
const REPLY: usize = 0xa000;
const EVENTS_IOVA: u64 = 0x9000_0000;

/// The admin queue of a NIC.
pub struct Admin {
    memory: SharedMemory,
    commands: u64,
}

impl Admin {
    pub fn new(raw: &Raw) -> Admin {
        let memory = SharedMemory::new(0x4_0000).expect("memory");
        raw.host.dma_map(&memory, ADMIN_IOVA, DmaAccess::DeviceReadsAndWrites).expect("map");
        let mut admin = Admin { memory, commands: 0 };
        admin.turn_on(raw);
        admin
    }

    /// Once more, after a reset.
    pub fn turn_on(&mut self, raw: &Raw) {
        self.memory.zeroise(0, BLOCK).expect("in range");
        self.commands = 0;
        raw.host.write64(Bar::Bar0, bar0::ADMIN_COMMAND_BASE.offset, ADMIN_IOVA).expect("write");
        let completions = ADMIN_IOVA + COMPLETIONS as u64;
        raw.host.write64(Bar::Bar0, bar0::ADMIN_COMPLETION_BASE.offset, completions).expect("write");
        raw.world.drain();
        let on = AdminControl::new().with_enable(true).with_slots_log2(8);
        raw.write(bar0::ADMIN_CONTROL.offset, on.into_bits());
    }

    /// Gives a command to the device and does not wait for it.
    pub fn post(&mut self, raw: &Raw, opcode: Opcode, arguments: [u64; 2], block: &[u64], reply: usize) {
        for (index, word) in block.iter().enumerate() {
            self.memory.write_word(BLOCK + index * 8, *word).expect("in range");
        }
        let command = Command {
            head: CommandHead::new().with_opcode(opcode.number() as u16),
            parameter_address: if block.is_empty() { 0 } else { ADMIN_IOVA + BLOCK as u64 },
            reply_address: if reply == 0 { 0 } else { ADMIN_IOVA + REPLY as u64 },
            lengths: CommandLengths::new()
                .with_parameter_bytes(block.len() as u32 * 8)
                .with_reply_bytes(reply as u32 * 8),
            argument_0: arguments[0],
            argument_1: arguments[1],
            ..Command::default()
        };
        let slot = (self.commands % SLOTS) as usize;
        for (index, word) in command.to_words().iter().enumerate() {
            self.memory.write_word(slot * 64 + index * 8, *word).expect("in range");
        }
        self.commands += 1;
        raw.write(bar0::ADMIN_DOORBELL.offset, self.commands as u32);
    }

    /// How the last command ended, if it has.
    pub fn ended(&self) -> Option<(AdminStatus, u64)> {
        let last = self.commands - 1;
        let done = COMPLETIONS + (last % SLOTS) as usize * AdminCompletion::BYTES;
        let word = |at: usize| self.memory.read_word(at).expect("in range");
        let completion = AdminCompletion::of_words(&[word(done), word(done + 8)]);
        (completion.end.phase() == (last & SLOTS == 0)).then(|| {
            (AdminStatus::of_number(completion.end.status().into()).expect("known"), completion.result)
        })
    }

    /// Does a command; gives how it ended and its result.
    pub fn try_ask(
        &mut self,
        raw: &Raw,
        opcode: Opcode,
        arguments: [u64; 2],
        block: &[u64],
        reply: usize,
    ) -> (AdminStatus, u64) {
        self.post(raw, opcode, arguments, block, reply);
        raw.world.drain();
        self.ended().expect("it ends")
    }

    /// Does a command that ends well; gives its result and its reply.
    pub fn ask(
        &mut self,
        raw: &Raw,
        opcode: Opcode,
        argument: u64,
        block: &[u64],
        reply: usize,
    ) -> (u64, Vec<u64>) {
        let (status, result) = self.try_ask(raw, opcode, [argument, 0], block, reply);
        assert_eq!(status, AdminStatus::Ok, "{}", opcode.name());
        (
            result,
            (0..reply).map(|index| self.memory.read_word(REPLY + index * 8).expect("in range")).collect(),
        )
    }

    /// Installs SAs in one command.
    pub fn install(&mut self, raw: &Raw, sas: &[SaParameters]) -> Vec<TransmitSa> {
        let block: Vec<u64> = sas.iter().flat_map(|sa| sa.to_words()).collect();
        let (_, reply) = self.ask(raw, Opcode::SaInstall, sas.len() as u64, &block, sas.len());
        let reference = |word: &u64| {
            let sa = InstalledSa::from_bits(*word);
            TransmitSa::new().with_index(sa.index()).with_generation(sa.generation())
        };
        reply.iter().map(reference).collect()
    }

    /// The state of an SA.
    pub fn query(&mut self, raw: &Raw, sa: TransmitSa) -> SaStateReply {
        let (_, reply) = self.ask(raw, Opcode::SaQuery, name(sa), &[], SaStateReply::WORDS);
        SaStateReply::of_words(&reply.try_into().expect("a record"))
    }

    /// SPIs of a version with their keys, four words each.
    pub fn allocate(&mut self, raw: &Raw, version: u64, count: u64) -> Vec<(u32, [u64; 4])> {
        let words = count as usize * PspAllocation::WORDS;
        let (_, reply) = self.ask(raw, Opcode::PspAllocate, version << 32 | count, &[], words);
        reply
            .chunks_exact(PspAllocation::WORDS)
            .map(|words| {
                let record = PspAllocation::of_words(words.try_into().expect("a record"));
                (record.spi.spi(), [words[1], words[2], words[3], words[4]])
            })
            .collect()
    }
}

/// A slot and its generation as arguments name it.
pub fn name(sa: TransmitSa) -> u64 {
    u64::from(sa.generation()) << 32 | u64::from(sa.index())
}

/// An ESP tunnel with AES-GCM-128 and no limits.
pub fn esp(direction: Direction, spi: u32) -> SaParameters {
    let out = direction == Direction::Out;
    let address = |last: u8| u64::from_le_bytes([0, 0, 0, 0, 192, 0, 2, last]);
    SaParameters {
        form: SaForm::new()
            .with_direction(direction.number() as u8)
            .with_protocol(SaProtocol::Esp.number() as u8)
            .with_mode(Mode::Tunnel.number() as u8)
            .with_icv_bytes(16)
            .with_ttl(if out { 64 } else { 0 }),
        names: SaNames::new().with_spi(spi).with_cookie(0xc00c_1e00 | spi & 0xff),
        tunnel_source_1: if out { address(1) } else { 0 },
        tunnel_destination_1: if out { address(2) } else { 0 },
        lifetime: unlimited(LifetimeKind::Packets),
        key_0: SecretWord::new().with_secret(0x1111_2222_3333_4444),
        key_1: SecretWord::new().with_secret(u64::from(spi)),
        ..SaParameters::default()
    }
}

/// The same with limits.
pub fn limited(sa: SaParameters, kind: LifetimeKind, soft: u64, hard: u64) -> SaParameters {
    let lifetime = SaLifetime::new()
        .with_kind(kind.number() as u8)
        .with_no_soft_limit(soft == 0)
        .with_no_hard_limit(hard == 0);
    SaParameters { lifetime, soft_limit: soft, hard_limit: hard, ..sa }
}

fn unlimited(kind: LifetimeKind) -> SaLifetime {
    SaLifetime::new().with_kind(kind.number() as u8).with_no_soft_limit(true).with_no_hard_limit(true)
}

/// The event ring of a NIC.
pub struct Ring {
    memory: SharedMemory,
    slots: u32,
    taken: u32,
}

impl Ring {
    /// Memory for rings; the ring is off.
    pub fn new(raw: &Raw) -> Ring {
        let memory = SharedMemory::new(0x4_0000).expect("memory");
        raw.host.dma_map(&memory, EVENTS_IOVA, DmaAccess::DeviceReadsAndWrites).expect("map");
        Ring { memory, slots: 0, taken: 0 }
    }

    /// Turns the ring on, with base and size as they are given.
    pub fn turn_on(&mut self, raw: &Raw, offset: u64, slots_log2: u8) {
        self.memory.zeroise(0, 0x4_0000).expect("in range");
        (self.slots, self.taken) = (1 << slots_log2, 0);
        raw.write(EVENT_CONTROL.offset, 0);
        raw.host.write64(Bar::Bar0, EVENT_RING_BASE.offset, EVENTS_IOVA.wrapping_add(offset)).expect("write");
        let on = EventControl::new().with_enable(true).with_slots_log2(slots_log2).with_vector(1);
        raw.write(EVENT_CONTROL.offset, on.into_bits());
        raw.world.drain();
    }

    /// Events that have come, without a word to the device.
    pub fn take(&mut self, raw: &Raw) -> Vec<Event> {
        raw.world.drain();
        let mut all = vec![];
        loop {
            let at = (self.taken & (self.slots - 1)) as usize * Event::BYTES;
            let words = std::array::from_fn(|word| self.memory.read_word(at + word * 8).expect("in range"));
            let event = Event::of_words(&words);
            if event.end.phase() != (self.taken & self.slots == 0) {
                return all;
            }
            self.taken += 1;
            all.push(event);
        }
    }

    /// The cause of the first record of a ring at this offset that began anew, if it is there.
    pub fn first(&self, offset: u64) -> Option<EventCause> {
        let at = offset as usize;
        let words = std::array::from_fn(|word| self.memory.read_word(at + word * 8).expect("in range"));
        let event = Event::of_words(&words);
        event.end.phase().then(|| cause(&event))
    }

    /// Says how many were taken.
    pub fn ring(&self, raw: &Raw) {
        raw.write(EVENT_DOORBELL.offset, self.taken);
        raw.world.drain();
    }
}

/// The cause of an event.
pub fn cause(event: &Event) -> EventCause {
    EventCause::of_number(event.head.cause().into()).expect("a known cause")
}
