//! A queue pair driven by hand: a host that follows no rules.

use cryptonic_driver::{Host, Status};
use cryptonic_hwmodel::{NicId, World};
use cryptonic_pci::{Bar, DmaAccess, SharedMemory, Time};
use cryptonic_regs::bar0::{self, QueueControl, QueueStatus};
use cryptonic_regs::completion::TransmitCompletion;
use cryptonic_regs::descriptor::{Security, TransmitControl, TransmitExtent};
use cryptonic_regs::doorbell;

const COMPLETIONS: usize = 0x8000;
pub const RECEIVE_RING: usize = 0xc000;
const RECEIVE_COMPLETIONS: usize = 0x1_0000;
const FRAMES: usize = 0x2_0000;
const FRAME_BYTES: usize = 0x4000;
const FRAME_PLACES: usize = 8;
const MEMORY_BYTES: usize = FRAMES + FRAME_BYTES * FRAME_PLACES;
pub const SLOTS: u32 = 256;

/// A queue pair of a NIC whose driver uses others. Its I/O addresses lie below those of the driver.
pub struct RawQueue {
    pub host: Box<dyn Host>,
    pub index: u32,
    pub memory: SharedMemory,
    pub iova: u64,
    pub producer: u32,
    /// Whether frames take several buffers from the next time it is turned on.
    pub scatter: bool,
    taken: u32,
    stride: usize,
}

impl RawQueue {
    pub fn new(world: &World, nic: NicId, index: u32, stride: usize, clear_allowed: bool) -> RawQueue {
        let host = world.host(nic);
        let memory = SharedMemory::new(MEMORY_BYTES).expect("memory");
        let iova = 0x100_0000 * (u64::from(index) + 1);
        host.dma_map(&memory, iova, DmaAccess::DeviceReadsAndWrites).expect("map");
        let mut queue = RawQueue { host, index, memory, iova, producer: 0, scatter: false, taken: 0, stride };
        queue.turn_on(clear_allowed);
        queue
    }

    pub fn turn_on(&mut self, clear_allowed: bool) {
        let bases = [
            (bar0::TRANSMIT_RING_BASE, 0),
            (bar0::TRANSMIT_COMPLETION_BASE, COMPLETIONS),
            (bar0::RECEIVE_RING_BASE, RECEIVE_RING),
            (bar0::RECEIVE_COMPLETION_BASE, RECEIVE_COMPLETIONS),
        ];
        for (register, offset) in bases {
            let offset_in_bar = register.offset + self.index * bar0::QUEUE_PAIR_STRIDE;
            self.host.write64(Bar::Bar0, offset_in_bar, self.iova + offset as u64).expect("write");
        }
        let slots = SLOTS.ilog2() as u8;
        let control = QueueControl::new()
            .with_enable(true)
            .with_transmit_clear_allowed(clear_allowed)
            .with_receive_scatter(self.scatter)
            .with_transmit_stride_log2(self.stride.ilog2() as u8)
            .with_transmit_slots_log2(slots)
            .with_receive_slots_log2(slots);
        self.control(control);
        (self.producer, self.taken) = (0, 0);
        assert!(self.status().enabled());
    }

    /// Turns the queue pair off and takes its memory back.
    pub fn turn_off(&self) {
        self.control(QueueControl::new());
        self.status();
        self.host.dma_unmap(self.iova).expect("unmap");
    }

    pub fn control(&self, control: QueueControl) {
        let offset = bar0::QUEUE_CONTROL.offset + self.index * bar0::QUEUE_PAIR_STRIDE;
        self.host.write32(Bar::Bar0, offset, control.into_bits()).expect("write");
    }

    pub fn status(&self) -> QueueStatus {
        let offset = bar0::QUEUE_STATUS.offset + self.index * bar0::QUEUE_PAIR_STRIDE;
        QueueStatus::from_bits(self.host.read32(Bar::Bar0, offset).expect("read"))
    }

    /// Puts a frame in memory and gives its I/O address.
    pub fn frame(&self, frame: &[u8]) -> u64 {
        let offset = FRAMES + self.producer as usize % FRAME_PLACES * FRAME_BYTES;
        self.memory.write(offset, frame).expect("fits");
        self.iova + offset as u64
    }

    /// Writes a descriptor into the next slot, as much of it as the stride has.
    pub fn put(&mut self, words: [u64; 8]) {
        let slot = (self.producer % SLOTS) as usize * self.stride;
        for (index, word) in words.into_iter().take(self.stride / 8).enumerate() {
            self.memory.write_word(slot + index * 8, word).expect("in range");
        }
        self.producer = self.producer.wrapping_add(1);
    }

    /// Writes any words into the next slot.
    pub fn put_slot(&mut self, words: &[u64]) {
        let slot = (self.producer % SLOTS) as usize * self.stride;
        for (index, word) in words.iter().take(self.stride / 8).enumerate() {
            self.memory.write_word(slot + index * 8, *word).expect("in range");
        }
        self.producer = self.producer.wrapping_add(1);
    }

    /// Pushes the first lines of a slot of these words, with a producer index.
    pub fn push(&self, words: &[u64; 16], producer: u32, window: usize, lines: usize) {
        let page = self.index * doorbell::DOORBELL_PAGE_BYTES + doorbell::PUSH_WINDOWS[window];
        for (index, words) in words.chunks_exact(8).take(lines).enumerate() {
            let mut line = [0; 64];
            for (place, (bytes, word)) in line.chunks_exact_mut(8).zip(words).enumerate() {
                let extent = index == 0 && place == 3;
                let word = if extent {
                    TransmitExtent::from(*word).with_producer(producer as u16).into()
                } else {
                    *word
                };
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            self.host.push64(Bar::Bar2, page + index as u32 * 64, &line).expect("push");
            line.fill(0);
            std::hint::black_box(&mut line);
        }
    }

    /// Forgets the slots.
    pub fn wipe_ring(&self) {
        self.memory.zeroise(0, SLOTS as usize * self.stride).expect("in range");
    }

    pub fn ring(&self) {
        let offset = doorbell::TRANSMIT_DOORBELL.offset + self.index * doorbell::DOORBELL_PAGE_BYTES;
        self.host.write32(Bar::Bar2, offset, self.producer).expect("write");
    }

    /// Sends one descriptor and gives its status; `None` if there is no completion.
    pub fn send(&mut self, words: [u64; 8]) -> Option<Status> {
        self.put(words);
        self.ring();
        self.settle();
        self.completion().map(|completion| {
            Status::of_number(u32::from(completion.end.status())).expect("a status of the table")
        })
    }

    /// Lets 20 µs pass.
    pub fn settle(&self) {
        let deadline = self.host.now() + Time::from_microseconds(20);
        while self.host.now() < deadline {
            self.host.relax();
        }
    }

    /// The next completion, if it is there.
    pub fn completion(&mut self) -> Option<TransmitCompletion> {
        let offset = COMPLETIONS + (self.taken % SLOTS) as usize * TransmitCompletion::BYTES;
        let words: [u64; 4] =
            std::array::from_fn(|index| self.memory.read_word(offset + index * 8).expect("in range"));
        let completion = TransmitCompletion::of_words(&words);
        let phase = self.taken & SLOTS == 0;
        (completion.end.phase() == phase).then(|| {
            self.taken += 1;
            completion
        })
    }
}

/// A control word that a driver would write.
pub fn control(length: usize, security: Security) -> TransmitControl {
    TransmitControl::new()
        .with_length(length as u16)
        .with_security(security.number() as u8)
        .with_report(true)
        .with_end_of_packet(true)
}
