//! A NIC whose rings a test writes word by word, and frames made by an independent library.

use cryptonic_hwmodel::{NicId, Parameters, World};
use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use cryptonic_pci::{Bar, DmaAccess, Host, SharedMemory, Time};
use cryptonic_regs::Status;
use cryptonic_regs::bar0::{self, Control, QueueControl, QueueStatus};
use cryptonic_regs::completion::{ReceiveCompletion, TransmitCompletion};
use cryptonic_regs::descriptor::{ReceiveControl, Security, TransmitControl, TransmitExtent};
use cryptonic_regs::doorbell::{self, PUSH_WINDOWS};

pub const IOVA: u64 = 0x100_0000;
const COMPLETIONS: usize = 0x1_0000;
const RECEIVE_RING: usize = 0x2_0000;
const RECEIVE_COMPLETIONS: usize = 0x3_0000;
const FRAMES: usize = 0x10_0000;
const MEMORY_BYTES: usize = 0x40_0000;

/// Queue pair 0 of a NIC.
pub struct Raw {
    pub world: World,
    pub id: NicId,
    pub host: Box<dyn Host>,
    pub memory: SharedMemory,
    pub stride: usize,
    pub slots: u32,
    pub produced: u32,
    pub posted: u32,
    told: u32,
    received: u32,
    next_frame: usize,
}

impl Raw {
    /// With 64 slots in each ring and packets in clear allowed.
    pub fn new(parameters: &Parameters, stride: usize) -> Raw {
        let mut parameters = parameters.clone();
        (parameters.host.register_write_ns, parameters.host.poll_ns) = (0, 50);
        let world = World::new(1);
        let id = world.add_nic(&parameters).expect("in range");
        Raw::on(&world, id, stride, 64, QueueControl::new())
    }

    /// On a NIC of a world, with what `control` says besides.
    pub fn on(world: &World, id: NicId, stride: usize, slots: u32, control: QueueControl) -> Raw {
        let host = world.host(id);
        let memory = SharedMemory::new(MEMORY_BYTES).expect("memory");
        host.dma_map(&memory, IOVA, DmaAccess::DeviceReadsAndWrites).expect("map");
        let mut raw = Raw {
            world: world.clone(),
            id,
            host,
            memory,
            stride,
            slots,
            produced: 0,
            posted: 0,
            told: 0,
            received: 0,
            next_frame: 0,
        };
        raw.set_up(control);
        raw
    }

    /// From power-on, or from a reset, to a queue pair that is on.
    pub fn set_up(&mut self, control: QueueControl) {
        self.host.config_write(COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER).expect("write");
        for (register, offset) in [
            (bar0::TRANSMIT_RING_BASE, 0),
            (bar0::TRANSMIT_COMPLETION_BASE, COMPLETIONS),
            (bar0::RECEIVE_RING_BASE, RECEIVE_RING),
            (bar0::RECEIVE_COMPLETION_BASE, RECEIVE_COMPLETIONS),
        ] {
            self.host.write64(Bar::Bar0, register.offset, IOVA + offset as u64).expect("write");
        }
        self.write(bar0::CONTROL.offset, Control::new().with_enable(true).into_bits());
        self.turn_on(control);
    }

    pub fn turn_on(&mut self, control: QueueControl) {
        let slots_log2 = self.slots.ilog2() as u8;
        self.memory.zeroise(0, FRAMES).expect("in range");
        let control = control
            .with_enable(true)
            .with_transmit_clear_allowed(true)
            .with_transmit_stride_log2(self.stride.ilog2() as u8)
            .with_transmit_slots_log2(slots_log2)
            .with_receive_slots_log2(slots_log2);
        self.write(bar0::QUEUE_CONTROL.offset, control.into_bits());
        (self.produced, self.posted, self.told, self.received) = (0, 0, 0, 0);
        assert!(self.status().enabled());
    }

    pub fn write(&self, offset: u32, value: u32) {
        self.host.write32(Bar::Bar0, offset, value).expect("write");
    }

    pub fn read(&self, offset: u32) -> u32 {
        self.host.read32(Bar::Bar0, offset).expect("read")
    }

    pub fn status(&self) -> QueueStatus {
        QueueStatus::from_bits(self.read(bar0::QUEUE_STATUS.offset))
    }

    /// Puts bytes in memory, never where others are under way, and gives their I/O address.
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let at = FRAMES + self.next_frame;
        self.memory.write(at, bytes).expect("fits");
        self.next_frame = (self.next_frame + bytes.len().next_multiple_of(64)) % 0x10_0000;
        IOVA + at as u64
    }

    /// Writes a descriptor and what stands behind it into the next slot.
    pub fn put(&mut self, words: [u64; 4], behind: &[u8]) -> Vec<u8> {
        let mut slot: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        slot.extend_from_slice(behind);
        assert!(slot.len() <= self.stride, "what stands behind fits");
        slot.resize(self.stride, 0);
        let at = (self.produced % self.slots) as usize * self.stride;
        self.memory.write(at, &slot).expect("in range");
        self.produced += 1;
        slot
    }

    pub fn ring(&self) {
        self.host.write32(Bar::Bar2, doorbell::TRANSMIT_DOORBELL.offset, self.produced).expect("write");
    }

    /// Pushes a slot that [`Raw::put`] wrote, in lines of 64 bytes.
    pub fn push(&self, slot: &[u8], window: usize) {
        let mut slot = self.with_producer(slot, self.produced);
        slot.resize(slot.len().next_multiple_of(64), 0xee);
        for (index, line) in slot.chunks_exact(64).enumerate() {
            let line = line.try_into().expect("64 bytes");
            let offset = PUSH_WINDOWS[window] + index as u32 * 64;
            self.host.push64(Bar::Bar2, offset, line).expect("push");
        }
    }

    /// A slot with the low half of a producer index in its extent word.
    pub fn with_producer(&self, slot: &[u8], producer: u32) -> Vec<u8> {
        let mut slot = slot.to_vec();
        let word = u64::from_le_bytes(slot[24..32].try_into().expect("8 bytes"));
        let word = TransmitExtent::from(word).with_producer(producer as u16).into_bits();
        slot[24..32].copy_from_slice(&word.to_le_bytes());
        slot
    }

    /// Sends one whole frame, its first `inline` bytes in the descriptor.
    pub fn put_frame(&mut self, frame: &[u8], inline: usize) -> Vec<u8> {
        let (head, rest) = frame.split_at(inline);
        let address = if rest.is_empty() { 0 } else { self.bytes(rest) };
        self.put([address, control(rest.len()).into_bits(), 0, extent(frame.len(), inline)], head)
    }

    /// Transmit completions that have come.
    pub fn told(&mut self) -> Vec<TransmitCompletion> {
        let mut all = vec![];
        loop {
            let at = COMPLETIONS + (self.told % self.slots) as usize * TransmitCompletion::BYTES;
            let words = std::array::from_fn(|word| self.memory.read_word(at + word * 8).expect("in range"));
            let completion = TransmitCompletion::of_words(&words);
            if completion.end.phase() != (self.told & self.slots == 0) {
                return all;
            }
            self.told += 1;
            all.push(completion);
        }
    }

    /// Statuses of the transmit completions that have come once nothing moves any more.
    pub fn statuses(&mut self) -> Vec<Status> {
        self.world.drain();
        self.told().iter().map(|one| status(one.end.status())).collect()
    }

    /// Frames that have left.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        self.world.drain();
        self.world.take_sent(self.id)
    }

    /// Writes receive descriptors of buffers of these sizes and rings. A buffer's tag is its number.
    pub fn post(&mut self, buffers: &[usize]) {
        self.post_quietly(buffers);
        self.ring_receive(self.posted);
    }

    /// Writes them, and the doorbell is another's business.
    pub fn post_quietly(&mut self, buffers: &[usize]) {
        for bytes in buffers {
            let at = RECEIVE_RING + (self.posted % self.slots) as usize * 16;
            let buffer = self.buffer_offset(self.posted);
            let control = ReceiveControl::new().with_length(*bytes as u16).with_tag(self.posted as u16);
            self.memory.write_word(at, IOVA + buffer as u64).expect("in range");
            self.memory.write_word(at + 8, control.into_bits()).expect("in range");
            self.posted += 1;
        }
    }

    pub fn ring_receive(&self, posted: u32) {
        self.host.write32(Bar::Bar2, doorbell::RECEIVE_DOORBELL.offset, posted).expect("write");
    }

    fn buffer_offset(&self, number: u32) -> usize {
        0x20_0000 + (number % self.slots) as usize * 0x4000
    }

    /// Receive completions that have come, each with the bytes of its buffer.
    pub fn received(&mut self) -> Vec<(ReceiveCompletion, Vec<u8>)> {
        let mut all = vec![];
        loop {
            let at = RECEIVE_COMPLETIONS + (self.received % self.slots) as usize * ReceiveCompletion::BYTES;
            let words = std::array::from_fn(|word| self.memory.read_word(at + word * 8).expect("in range"));
            let completion = ReceiveCompletion::of_words(&words);
            if completion.end.phase() != (self.received & self.slots == 0) {
                return all;
            }
            let mut bytes = vec![0; completion.completed.length().into()];
            let buffer = self.buffer_offset(completion.completed.tag().into());
            self.memory.read(buffer, &mut bytes).expect("in range");
            self.received += 1;
            all.push((completion, bytes));
        }
    }

    /// Lets time pass.
    pub fn pass(&self, span: Time) {
        let _ = self.host.wait(1, self.host.now() + span);
    }
}

pub fn status(number: u16) -> Status {
    Status::of_number(number.into()).expect("a status of the table")
}

/// The control word of a whole frame in clear, or of the last descriptor of one.
pub fn control(length: usize) -> TransmitControl {
    TransmitControl::new()
        .with_length(length as u16)
        .with_security(Security::Clear.number() as u8)
        .with_report(true)
        .with_end_of_packet(true)
}

/// The extent word of a first descriptor.
pub fn extent(total: usize, inline: usize) -> u64 {
    TransmitExtent::new().with_total_length(total as u32).with_inline_bytes(inline as u8).into_bits()
}

/// A UDP packet over IPv4 in a frame of so many bytes.
pub fn udp(bytes: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678);
    let mut frame = vec![];
    builder.write(&mut frame, &payload(bytes - 42)).expect("a vector takes all");
    frame
}

/// A TCP packet of a payload, over IPv4 or IPv6.
pub fn tcp(ipv6: bool, payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let builder = if ipv6 {
        builder.ipv6([0xfd; 16], [0xfc; 16], 64)
    } else {
        builder.ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
    };
    let mut frame = vec![];
    builder
        .tcp(1234, 5678, 1_000, 1_024)
        .ack(77)
        .psh()
        .fin()
        .write(&mut frame, payload)
        .expect("a vector takes all");
    frame
}

/// Bytes that differ from place to place.
pub fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 7 + index / 251) as u8).collect()
}
