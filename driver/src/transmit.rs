//! The transmit side of a queue pair.
//!
//! Packets end in ring order, so a descriptor's tag is its slot and its tag generation counts the passes
//! over the ring: a completion must name exactly the position that its count of descriptors leads to.

use cryptonic_pci::host::Work;
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_pci::{Bar, SharedMemory};
use cryptonic_regs::Status;
use cryptonic_regs::completion::{TransmitCompleted, TransmitCompletion, TransmitCompletionEnd};
use cryptonic_regs::descriptor::{
    Security, SourcePortPolicy, TransmitControl, TransmitDescriptor, TransmitPsp, TransmitSa,
};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, TRANSMIT_DOORBELL};
use zeroize::Zeroizing;

use crate::queue::QueueMemory;
use crate::{Quarantine, QueueError, QueuePair, SaHandle, SecretKey};

/// Byte offset of the key in a descriptor of stride 64.
const KEY_OFFSET: usize = TransmitDescriptor::BYTES;
/// A completion is asked for at least this often a pass over the ring.
const REPORTS_PER_PASS: u32 = 4;

/// A frame buffer of a queue pair. It is moved into the ring with its packet and comes back to the queue
/// pair when the packet has ended.
#[derive(Debug)]
pub struct TransmitBuffer {
    queue: u32,
    index: u32,
    length: u32,
}

impl TransmitBuffer {
    /// Bytes of the frame in it.
    pub fn length(&self) -> usize {
        self.length as usize
    }
}

/// How a packet is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It leaves as it is.
    Clear,
    /// By an SA.
    Sa(SaHandle),
    /// PSP, with a key of the queue pair.
    PspKey(PspTransmit),
}

/// How a packet is protected by PSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PspTransmit {
    /// Version, SPI and key.
    pub key: PspKeyId,
    /// Crypt offset in units of 4 bytes, 0 to 63.
    pub crypt_offset: u8,
    /// The UDP source port.
    pub source_port: SourcePort,
    /// The S bit.
    pub sample: bool,
    /// The D bit.
    pub drop: bool,
}

impl PspTransmit {
    /// Protection by this key, everything encrypted, source port by entropy.
    pub fn new(key: PspKeyId) -> Self {
        PspTransmit { key, crypt_offset: 0, source_port: SourcePort::Entropy, sample: false, drop: false }
    }
}

/// How the UDP source port of a PSP packet is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePort {
    /// A keyed hash of the flow.
    Entropy,
    /// Source port exclusive-or destination port.
    PortsXor,
    /// This one.
    Fixed(u16),
}

/// Names a PSP key of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PspKeyId {
    queue: u32,
    index: u32,
    generation: u32,
}

/// A packet to be sent.
#[derive(Debug)]
pub struct TransmitPacket {
    /// The frame.
    pub buffer: TransmitBuffer,
    /// How it is protected.
    pub protection: Protection,
    /// Comes back when the packet has ended.
    pub cookie: u64,
    /// Ask for a completion of its own.
    pub report: bool,
}

impl TransmitPacket {
    /// A packet without a completion of its own.
    pub fn new(buffer: TransmitBuffer, protection: Protection, cookie: u64) -> Self {
        TransmitPacket { buffer, protection, cookie, report: false }
    }
}

/// Packets that ended: those before the last went well, the last as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmitted {
    /// How many packets, in the order in which they were sent.
    pub packets: u32,
    /// Cookie of the last.
    pub cookie: u64,
    /// What became of the last.
    pub status: Status,
    /// SA slot of the last, or 0.
    pub sa_index: u32,
    /// 64-bit sequence number (ESP) or IV (PSP) of the last, or 0.
    pub sequence: u64,
    /// Device time when the fate of the last was known.
    pub time_picoseconds: u64,
}

/// A descriptor under way, as the driver remembers it.
#[derive(Clone, Copy, Default)]
struct Sent {
    cookie: u64,
    buffer: u32,
    has_key: bool,
}

struct Key {
    words: Box<Zeroizing<[u64; 4]>>,
    spi: u32,
    version: u8,
    generation: u32,
}

/// Private state of the transmit ring.
pub(crate) struct TransmitSide {
    doorbell: u32,
    slots_log2: u32,
    stride_log2: u32,
    /// Where the first frame buffer is for the device, and in memory.
    frames_iova: u64,
    frames_offset: usize,
    /// Free-running counts.
    produced: u32,
    retired: u32,
    completions: u32,
    sent: Box<[Sent]>,
    free: Vec<u32>,
    /// Boxed and never moved: a key leaves no copies behind.
    keys: Vec<Option<Key>>,
    key_generation: u32,
}

impl TransmitSide {
    pub(crate) fn new(
        queue: u32,
        slots: u32,
        stride: u32,
        frames_iova: u64,
        frames_offset: usize,
        buffers: u32,
    ) -> Self {
        TransmitSide {
            doorbell: TRANSMIT_DOORBELL.offset + queue * DOORBELL_PAGE_BYTES,
            slots_log2: slots.ilog2(),
            stride_log2: stride.ilog2(),
            frames_iova,
            frames_offset,
            produced: 0,
            retired: 0,
            completions: 0,
            sent: vec![Sent::default(); slots as usize].into(),
            free: (0..buffers).rev().collect(),
            keys: Vec::new(),
            key_generation: 0,
        }
    }

    #[inline]
    fn slots(&self) -> u32 {
        1 << self.slots_log2
    }

    #[inline]
    fn in_flight(&self) -> u32 {
        self.produced.wrapping_sub(self.retired)
    }

    /// The last word of the completion that is due next, if it is there.
    #[inline]
    fn due(&self, memory: &SharedMemory) -> Result<Option<(usize, TransmitCompletionEnd)>, OutOfBounds> {
        let slot = self.completions & (self.slots() - 1);
        let phase = (self.completions >> self.slots_log2) & 1 == 0;
        let offset = slot as usize * TransmitCompletion::BYTES;
        let end = TransmitCompletionEnd::from_bits(memory.read_word_acquire(offset + 24)?);
        Ok((end.phase() == phase).then_some((offset, end)))
    }

    pub(crate) fn has_completion(&self, memory: &QueueMemory) -> Result<bool, OutOfBounds> {
        Ok(self.due(&memory.writes.memory)?.is_some())
    }

    pub(crate) fn forget_keys(&mut self) {
        self.keys.clear();
    }

    #[inline]
    fn key(&self, id: PspKeyId, queue: u32) -> Result<&Key, QueueError> {
        let key = self.keys.get(id.index as usize).and_then(Option::as_ref);
        match key {
            Some(key) if key.generation == id.generation && id.queue == queue => Ok(key),
            _ => Err(if id.queue == queue { QueueError::UnknownKey } else { QueueError::Foreign }),
        }
    }

    /// Writes the descriptor of a packet into the next slot and remembers it. Gives where its control word
    /// is, and the word.
    #[inline]
    fn put(
        &mut self,
        memory: &SharedMemory,
        packet: &TransmitPacket,
        queue: u32,
        buffer_bytes_log2: u32,
    ) -> Result<(usize, u64), QueueError> {
        let buffer = &packet.buffer;
        if buffer.queue != queue {
            return Err(QueueError::Foreign);
        }
        let position = self.produced;
        let slot = position & (self.slots() - 1);
        let offset = (slot as usize) << self.stride_log2;
        // The fields are shifted into place once: each setter would mask and merge on its own.
        let mut control = TransmitControl::new()
            .with_length(buffer.length as u16)
            .with_tag(slot as u16)
            .with_tag_generation((position >> self.slots_log2) as u8)
            .with_end_of_packet(true)
            .with_report(packet.report || slot & (self.slots() / REPORTS_PER_PASS).wrapping_sub(1) == 0);
        let mut has_key = false;
        let security = match packet.protection {
            Protection::Sa(handle) => {
                control.set_security(Security::Sa.number() as u8);
                TransmitSa::new()
                    .with_index(handle.index & 0xff_ffff)
                    .with_generation(handle.generation)
                    .into_bits()
            }
            Protection::Clear => {
                control.set_security(Security::Clear.number() as u8);
                0
            }
            Protection::PspKey(psp) => {
                if self.stride_log2 != 6 {
                    return Err(QueueError::NoRoomForKey);
                }
                if psp.crypt_offset > 63 {
                    return Err(QueueError::Argument("a crypt offset has 6 bits"));
                }
                let key = self.key(psp.key, queue)?;
                let (policy, port) = match psp.source_port {
                    SourcePort::Entropy => (SourcePortPolicy::Entropy, 0),
                    SourcePort::PortsXor => (SourcePortPolicy::PortsXor, 0),
                    SourcePort::Fixed(port) => (SourcePortPolicy::Fixed, port),
                };
                control = control
                    .with_security(Security::PspKey.number() as u8)
                    .with_psp_version(key.version)
                    .with_psp_crypt_offset(psp.crypt_offset)
                    .with_psp_source_port_policy(policy.number() as u8)
                    .with_psp_sample(psp.sample)
                    .with_psp_drop(psp.drop);
                for (index, word) in key.words.iter().enumerate() {
                    memory.write_word(offset + KEY_OFFSET + index * 8, *word)?;
                }
                has_key = true;
                TransmitPsp::new().with_spi(key.spi).with_source_port(port).into_bits()
            }
        };
        // The fourth word is reserved and stays 0 from the beginning.
        let address = self.frames_iova + (u64::from(buffer.index) << buffer_bytes_log2);
        memory.write_word(offset, address)?;
        memory.write_word(offset + 8, control.into_bits())?;
        memory.write_word(offset + 16, security)?;
        if let Some(sent) = self.sent.get_mut(slot as usize) {
            *sent = Sent { cookie: packet.cookie, buffer: buffer.index, has_key };
        }
        self.produced = position.wrapping_add(1);
        Ok((offset + 8, control.into_bits()))
    }

    /// Takes back the next `count` descriptors: zeroises their keys, frees their buffers.
    #[inline]
    fn retire(&mut self, memory: &SharedMemory, count: u32) -> Result<(), OutOfBounds> {
        let mask = self.slots() - 1;
        for position in 0..count {
            let slot = self.retired.wrapping_add(position) & mask;
            let Some(sent) = self.sent.get(slot as usize) else { return Err(OutOfBounds) };
            self.free.push(sent.buffer);
            if sent.has_key {
                for word in 0..4 {
                    memory.write_word(((slot as usize) << self.stride_log2) + KEY_OFFSET + word * 8, 0)?;
                }
            }
        }
        self.retired = self.retired.wrapping_add(count);
        Ok(())
    }

    /// Checks a completion against what is under way. Gives how many descriptors it retires, and its status.
    #[inline]
    fn check(
        &self,
        completed: TransmitCompleted,
        end: TransmitCompletionEnd,
    ) -> Result<(u32, Status), Quarantine> {
        let count = u32::from(completed.descriptors());
        if count == 0 {
            return Err(Quarantine::NoDescriptors);
        }
        if count > self.in_flight() {
            return Err(Quarantine::TooManyDescriptors);
        }
        let last = self.retired.wrapping_add(count - 1);
        let (tag, mask) = (u32::from(completed.tag()), self.slots() - 1);
        if tag != last & mask {
            return Err(if tag > mask { Quarantine::TagOutOfRange } else { Quarantine::TagMismatch });
        }
        if completed.tag_generation() != (last >> self.slots_log2) as u8 {
            return Err(Quarantine::StaleGeneration);
        }
        match Status::of_number(end.status().into()) {
            Some(status) if matches!(status.number(), 0..32 | 96..) => Ok((count, status)),
            _ => Err(Quarantine::UnknownStatus),
        }
    }
}

impl QueuePair {
    /// Takes a free buffer. One that is not transmitted is given back by [`Self::give_back`].
    #[inline]
    pub fn take_buffer(&mut self) -> Option<TransmitBuffer> {
        let index = self.transmit.free.pop()?;
        Some(TransmitBuffer { queue: self.identity, index, length: 0 })
    }

    /// Gives a buffer back that is not to be transmitted.
    pub fn give_back(&mut self, buffer: TransmitBuffer) -> Result<(), QueueError> {
        if buffer.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        self.transmit.free.push(buffer.index);
        Ok(())
    }

    /// Copies a frame into a buffer, in place of what was in it.
    #[inline]
    pub fn fill(&self, buffer: &mut TransmitBuffer, bytes: &[u8]) -> Result<(), QueueError> {
        buffer.length = 0;
        self.append(buffer, bytes)
    }

    /// Copies bytes into a buffer, behind what is in it.
    #[inline]
    pub fn append(&self, buffer: &mut TransmitBuffer, bytes: &[u8]) -> Result<(), QueueError> {
        if buffer.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        let room = self.buffer_bytes() - buffer.length();
        if bytes.len() > room {
            return Err(QueueError::TooLong { bytes: bytes.len(), room });
        }
        let start = self.transmit.frames_offset + ((buffer.index as usize) << self.buffer_bytes_log2);
        self.memory.reads.memory.write(start + buffer.length(), bytes)?;
        buffer.length += bytes.len() as u32;
        Ok(())
    }

    /// Keeps a PSP key for packets of this pair, until it is removed or the pair is closed.
    pub fn add_psp_key(&mut self, version: u8, spi: u32, key: &SecretKey) -> Result<PspKeyId, QueueError> {
        self.usable()?;
        if crate::psp::key_bytes(version) != Some(key.bytes()) {
            return Err(QueueError::Argument("the key does not have the length of its PSP version"));
        }
        let side = &mut self.transmit;
        let generation = side.key_generation;
        side.key_generation = generation.wrapping_add(1);
        let mut words = Box::new(Zeroizing::new([0; 4]));
        words.copy_from_slice(&*key.words());
        let key = Some(Key { words, spi, version, generation });
        let index = match side.keys.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                side.keys.push(None);
                side.keys.len() - 1
            }
        };
        if let Some(place) = side.keys.get_mut(index) {
            *place = key;
        }
        Ok(PspKeyId { queue: self.identity, index: index as u32, generation })
    }

    /// Forgets a PSP key. Descriptors under way keep their copies until they are retired.
    pub fn remove_psp_key(&mut self, id: PspKeyId) -> Result<(), QueueError> {
        self.transmit.key(id, self.identity)?;
        if let Some(place) = self.transmit.keys.get_mut(id.index as usize) {
            *place = None;
        }
        Ok(())
    }

    /// Moves packets from the front of `batch` into the ring, as many as there is space for, and rings the
    /// doorbell once. A packet that cannot be sent ends the call before it; at the front it is an error, and
    /// stays there.
    pub fn transmit(&mut self, batch: &mut Vec<TransmitPacket>) -> Result<usize, QueueError> {
        self.usable()?;
        let memory = &self.memory.reads.memory;
        let mut last = None;
        let mut sent = 0;
        for packet in batch.iter().take(self.transmit.slots() as usize - self.transmit.in_flight() as usize) {
            match self.transmit.put(memory, packet, self.identity, self.buffer_bytes_log2) {
                Ok(control) => last = Some(control),
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
            sent += 1;
        }
        let Some((offset, control)) = last else { return Ok(0) };
        let control = TransmitControl::from_bits(control).with_report(true);
        memory.write_word(offset, control.into_bits())?;
        batch.drain(..sent);
        self.memory.set_in_flight(self.transmit.in_flight());
        self.shared.host.spend(Work::Burst { packets: sent as u32 });
        self.shared.host.write32(Bar::Bar2, self.transmit.doorbell, self.transmit.produced)?;
        Ok(sent)
    }

    /// Takes the completions that are there: one entry in `out` for each, which stands for one packet or
    /// more. Gives the number of packets.
    pub fn completed(&mut self, out: &mut Vec<Transmitted>) -> Result<usize, QueueError> {
        self.usable()?;
        let before = self.transmit.in_flight();
        let outcome = self.take_completions(out);
        let after = self.transmit.in_flight();
        if after != before {
            self.memory.set_in_flight(after);
        }
        match outcome {
            Ok(()) => Ok((before - after) as usize),
            Err(Fault::Quarantine(reason)) => Err(self.put_into_quarantine(reason)),
            Err(Fault::OutOfBounds) => Err(QueueError::OutOfBounds),
        }
    }

    /// Ends, because each completion retires a descriptor at least and there are at most as many as slots.
    fn take_completions(&mut self, out: &mut Vec<Transmitted>) -> Result<(), Fault> {
        let memory = &self.memory.writes.memory;
        let side = &mut self.transmit;
        while let Some((offset, end)) = side.due(memory)? {
            let completed = TransmitCompleted::from_bits(memory.read_word(offset)?);
            let sequence = memory.read_word(offset + 8)?;
            let time_picoseconds = memory.read_word(offset + 16)?;
            let (packets, status) = side.check(completed, end)?;
            side.completions = side.completions.wrapping_add(1);
            let sa_index = completed.sa_index();
            let last = (completed.tag() as usize) & (side.slots() as usize - 1);
            let cookie = side.sent.get(last).map_or(0, |sent| sent.cookie);
            side.retire(&self.memory.reads.memory, packets)?;
            out.push(Transmitted { packets, cookie, status, sa_index, sequence, time_picoseconds });
        }
        Ok(())
    }

    /// Slots of the transmit ring that are free.
    #[inline]
    pub fn transmit_space(&self) -> usize {
        (self.transmit.slots() - self.transmit.in_flight()) as usize
    }

    /// Transmit descriptors that were not completed yet.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.transmit.in_flight() as usize
    }
}

/// Why a burst ended early.
pub(crate) enum Fault {
    Quarantine(Quarantine),
    OutOfBounds,
}

impl From<Quarantine> for Fault {
    #[cold]
    fn from(reason: Quarantine) -> Self {
        Fault::Quarantine(reason)
    }
}

impl From<OutOfBounds> for Fault {
    #[cold]
    fn from(_: OutOfBounds) -> Self {
        Fault::OutOfBounds
    }
}
