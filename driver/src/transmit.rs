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
#[repr(u32)] // A tag of its own is quicker to look at than one that shares a field.
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
    /// An entry of the device's table, by the keyed hash of the flow.
    Table,
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

/// A descriptor under way.
#[derive(Clone, Copy, Default)]
struct Sent {
    cookie: u64,
    buffer: u32,
    keyed: bool,
}

struct Key {
    /// Boxed: moving the entry must not leave copies behind.
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
    /// Control word of the descriptor made last.
    last_control: u64,
    /// What is under way, by slot.
    sent: Box<[Sent]>,
    free: Vec<u32>,
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
            last_control: 0,
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

    /// Puts packets from the front of `batch` into slots up to the end of the ring, as many as `limit`. Gives
    /// how many, and why the next could not be put, if that is why it ended.
    #[inline]
    fn put_run(
        &mut self,
        memory: &SharedMemory,
        batch: &[TransmitPacket],
        limit: usize,
        owner: Owner,
    ) -> (usize, Result<(), QueueError>) {
        let mask = self.slots() - 1;
        let first = (self.produced & mask) as usize;
        let report_mask = ((mask + 1) / REPORTS_PER_PASS).wrapping_sub(1) as usize;
        // What grows by one from slot to slot is added, not set: the tag is above the length.
        let mut common = TransmitControl::new()
            .with_tag(first as u16)
            .with_tag_generation((self.produced >> self.slots_log2) as u8)
            .with_end_of_packet(true)
            .into_bits();
        let places = self.sent.get_mut(first..).unwrap_or(&mut []);
        let count = limit.min(batch.len()).min(places.len());
        let batch = batch.get(..count).unwrap_or(&[]);
        let mut slot = first;
        let mut outcome = Ok(());
        for (packet, sent) in batch.iter().zip(places) {
            let buffer = &packet.buffer;
            if buffer.queue != owner.identity {
                outcome = Err(QueueError::Foreign);
                break;
            }
            let offset = slot << self.stride_log2;
            let (how, security) = match &packet.protection {
                Protection::Sa(handle) => (SECURITY_SA, sa_word(*handle)),
                Protection::Clear => (SECURITY_CLEAR, 0),
                Protection::PspKey(psp) => match put_key(&self.keys, memory, offset, psp, owner.identity) {
                    Ok(words) => words,
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                },
            };
            let report = if packet.report || slot & report_mask == 0 { REPORT } else { 0 };
            let address = self.frames_iova + (u64::from(buffer.index) << owner.buffer_bytes_log2);
            let control = common | u64::from(buffer.length) | how | report;
            if memory.write_words(offset, &[address, control, security, u64::from(buffer.length)]).is_err() {
                outcome = Err(QueueError::OutOfBounds);
                break;
            }
            let keyed = matches!(packet.protection, Protection::PspKey(_));
            *sent = Sent { cookie: packet.cookie, buffer: buffer.index, keyed };
            self.last_control = control;
            common += TAG_ONE;
            slot += 1;
        }
        let put = slot - first;
        self.produced = self.produced.wrapping_add(put as u32);
        (put, outcome)
    }

    /// Makes the last descriptor ask for a report.
    #[inline]
    fn report_last(&self, memory: &SharedMemory) -> Result<(), OutOfBounds> {
        let slot = self.produced.wrapping_sub(1) & (self.slots() - 1);
        memory.write_word(((slot as usize) << self.stride_log2) + 8, self.last_control | REPORT)
    }

    /// Takes back the next `count` descriptors: zeroises their keys, frees their buffers.
    #[inline]
    fn retire(&mut self, memory: &SharedMemory, count: u32) -> Result<(), OutOfBounds> {
        let first = (self.retired & (self.slots() - 1)) as usize;
        let to_end = self.sent.len() - first;
        let (head, tail) = ((count as usize).min(to_end), (count as usize).saturating_sub(to_end));
        for run in [first..first + head, 0..tail] {
            let sent = self.sent.get(run.clone()).ok_or(OutOfBounds)?;
            self.free.extend(sent.iter().map(|sent| sent.buffer));
            if self.stride_log2 != 6 {
                continue;
            }
            for (sent, slot) in sent.iter().zip(run) {
                if sent.keyed {
                    for word in 0..4 {
                        memory.write_word((slot << self.stride_log2) + KEY_OFFSET + word * 8, 0)?;
                    }
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

/// What marks a queue pair's buffers, and how large they are.
#[derive(Clone, Copy)]
struct Owner {
    identity: u32,
    buffer_bytes_log2: u32,
}

const TAG_ONE: u64 = 1 << 16;
const REPORT: u64 = TransmitControl::new().with_report(true).into_bits();
const SECURITY_CLEAR: u64 = TransmitControl::new().with_security(Security::Clear.number() as u8).into_bits();
const SECURITY_SA: u64 = TransmitControl::new().with_security(Security::Sa.number() as u8).into_bits();
const _: () = assert!(TransmitControl::new().with_tag(1).into_bits() == TAG_ONE);

#[inline]
fn sa_word(handle: SaHandle) -> u64 {
    TransmitSa::new().with_index(handle.index & 0xff_ffff).with_generation(handle.generation).into_bits()
}

#[inline]
fn key(keys: &[Option<Key>], id: PspKeyId, identity: u32) -> Result<&Key, QueueError> {
    match keys.get(id.index as usize) {
        _ if id.queue != identity => Err(QueueError::Foreign),
        Some(Some(key)) if key.generation == id.generation => Ok(key),
        _ => Err(QueueError::UnknownKey),
    }
}

/// Puts a PSP key into the slot at `offset`. Gives the bits for the control word, and the security word.
#[inline(never)]
fn put_key(
    keys: &[Option<Key>],
    memory: &SharedMemory,
    offset: usize,
    psp: &PspTransmit,
    identity: u32,
) -> Result<(u64, u64), QueueError> {
    if psp.crypt_offset > 63 {
        return Err(QueueError::Argument("a crypt offset has 6 bits"));
    }
    let key = key(keys, psp.key, identity)?;
    let (policy, port) = match psp.source_port {
        SourcePort::Entropy => (SourcePortPolicy::Entropy, 0),
        SourcePort::PortsXor => (SourcePortPolicy::PortsXor, 0),
        SourcePort::Fixed(port) => (SourcePortPolicy::Fixed, port),
        SourcePort::Table => (SourcePortPolicy::Table, 0),
    };
    let control = TransmitControl::new()
        .with_security(Security::PspKey.number() as u8)
        .with_psp_version(key.version)
        .with_psp_crypt_offset(psp.crypt_offset)
        .with_psp_source_port_policy(policy.number() as u8)
        .with_psp_sample(psp.sample)
        .with_psp_drop(psp.drop);
    for (index, word) in key.words.iter().enumerate() {
        memory.write_word(offset + KEY_OFFSET + index * 8, *word)?;
    }
    Ok((control.into_bits(), TransmitPsp::new().with_spi(key.spi).with_source_port(port).into_bits()))
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
        if self.transmit.stride_log2 != 6 {
            return Err(QueueError::NoRoomForKey);
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
        key(&self.transmit.keys, id, self.identity)?;
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
        let side = &mut self.transmit;
        let owner = Owner { identity: self.identity, buffer_bytes_log2: self.buffer_bytes_log2 };
        let space = (side.slots() - side.in_flight()) as usize;
        let (mut sent, mut outcome) = side.put_run(memory, batch, space, owner);
        if sent < space.min(batch.len()) && outcome.is_ok() {
            // The run ended at the end of the ring.
            let (more, end) = side.put_run(memory, batch.get(sent..).unwrap_or(&[]), space - sent, owner);
            sent += more;
            outcome = end;
        }
        if sent == 0 {
            return outcome.map(|()| 0);
        }
        side.report_last(memory)?;
        batch.drain(..sent);
        self.memory.set_in_flight(side.in_flight());
        self.shared.host.spend(Work::Burst { packets: sent as u32 });
        self.shared.host.write32(Bar::Bar2, side.doorbell, side.produced)?;
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
