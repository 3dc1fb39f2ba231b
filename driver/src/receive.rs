//! The receive side of a queue pair.
//!
//! Every slot of the ring has a buffer of its own, whose number is its tag. A buffer is with the device, or
//! with the caller as a [`Received`], and its tag generation rises each time it is posted.

use std::fmt;

use cryptonic_pci::host::Work;
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_pci::{Bar, SharedMemory};
use cryptonic_regs::Status;
use cryptonic_regs::completion::{
    ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSecurity, ReceiveSteering,
    ReceivedProtocol,
};
use cryptonic_regs::descriptor::{ReceiveControl, ReceiveDescriptor};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, RECEIVE_DOORBELL};

use crate::queue::QueueMemory;
use crate::transmit::Fault;
use crate::{Quarantine, QueueError, QueuePair, SaHandle};

/// Completions are copied out at most so many at a time.
const BURST: usize = 32;
/// Bits of a descriptor's control word that its completion must repeat in its first word: tag and generation.
const TAG_MASK: u64 = 0xff_ffff_0000;
/// Set in the private copy of a control word while the caller has the buffer: no tag has this bit, so that
/// no completion matches.
const HELD: u64 = 1 << 31;
/// Statuses below are of the transmit side.
const FIRST_STATUS: u32 = 32;
/// One in the tag generation of a control word.
const GENERATION_ONE: u64 = 1 << 32;

/// A received frame and its buffer, which goes back with [`QueuePair::copy_out`] or
/// [`QueuePair::return_buffers`]. One that is dropped instead is lost to the queue pair.
#[must_use = "the buffer must go back to its queue pair"]
pub struct Received {
    /// The completion as it was checked; of its last word the status, and above it the mark of the queue pair.
    completion: Copied,
}

/// A private copy of a completion, word by word as it stood in memory.
type Copied = [[u8; 8]; ReceiveCompletion::WORDS];

impl Received {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.completion[index])
    }

    #[inline]
    fn completed(&self) -> ReceiveCompleted {
        ReceiveCompleted::from_bits(self.word(0))
    }

    #[inline]
    fn security(&self) -> ReceiveSecurity {
        ReceiveSecurity::from_bits(self.word(1))
    }

    #[inline]
    fn steering(&self) -> ReceiveSteering {
        ReceiveSteering::from_bits(self.word(5))
    }

    #[inline]
    fn queue(&self) -> u32 {
        (self.word(7) >> 32) as u32
    }

    /// Bytes of the frame.
    #[inline]
    pub fn length(&self) -> usize {
        self.completed().length().into()
    }

    /// What became of the frame. Nothing but [`Status::Ok`] is a good one.
    #[inline]
    pub fn status(&self) -> Status {
        // The number was checked when the frame was taken; a number that is none is not a good one.
        match self.word(7) as u16 {
            0 => Status::Ok,
            number => Status::of_number(number.into()).unwrap_or(Status::BadInner),
        }
    }

    /// What protected the packet.
    #[inline]
    pub fn protocol(&self) -> ReceivedProtocol {
        // The number was checked when the frame was taken.
        ReceivedProtocol::of_number(self.steering().protocol().into()).unwrap_or(ReceivedProtocol::Clear)
    }

    /// The SA that opened the packet.
    #[inline]
    pub fn sa(&self) -> Option<SaHandle> {
        let generation = self.word(6) as u32;
        (generation != 0).then(|| SaHandle { index: self.completed().sa_index(), generation })
    }

    /// SPI of the packet, or 0.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.security().spi()
    }

    /// Cookie of the SA, or 0.
    #[inline]
    pub fn cookie(&self) -> u32 {
        self.security().cookie()
    }

    /// 64-bit sequence number (ESP), or 0.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.word(2)
    }

    /// IV of the packet as a number, or 0.
    #[inline]
    pub fn iv(&self) -> u64 {
        self.word(3)
    }

    /// Device time when the frame's last byte arrived.
    #[inline]
    pub fn time_picoseconds(&self) -> u64 {
        self.word(4)
    }

    /// PSP: version of the packet.
    #[inline]
    pub fn psp_version(&self) -> u8 {
        self.steering().psp_version()
    }

    /// PSP: the S bit.
    #[inline]
    pub fn psp_sample(&self) -> bool {
        self.steering().psp_sample()
    }

    /// PSP: the D bit.
    #[inline]
    pub fn psp_drop(&self) -> bool {
        self.steering().psp_drop()
    }

    /// PSP: the device key that derived the packet's key, 0 or 1.
    #[inline]
    pub fn psp_device_key(&self) -> u8 {
        self.steering().psp_device_key().into()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Received")
            .field("status", &self.status())
            .field("length", &self.length())
            .field("protocol", &self.protocol())
            .field("sa", &self.sa())
            .field("spi", &self.spi())
            .field("sequence", &self.sequence())
            .field("iv", &self.iv())
            .field("time_picoseconds", &self.time_picoseconds())
            .finish_non_exhaustive()
    }
}

/// Where the memory of a receive ring is.
pub(crate) struct Places {
    /// Of the ring, in what the device reads.
    pub(crate) ring_offset: usize,
    /// Of the completions, in what the device writes.
    pub(crate) completion_offset: usize,
    /// Of the first frame, in what the device writes.
    pub(crate) frames_offset: usize,
    /// Of the first frame, for the device.
    pub(crate) frames_iova: u64,
}

/// Private state of the receive ring.
pub(crate) struct ReceiveSide {
    doorbell: u32,
    slots_log2: u32,
    ring_offset: usize,
    completion_offset: usize,
    frames_offset: usize,
    sa_slots: u32,
    /// Free-running counts: buffers posted, posted and announced, and completions taken.
    produced: u32,
    announced: u32,
    completions: u32,
    /// By tag: the descriptor that posts the buffer, as it stands in memory; marked [`HELD`] while it is
    /// not posted.
    descriptors: Box<[[u64; 2]]>,
    /// Private copies of completions.
    copies: Box<[Copied]>,
    /// The ring, as it stands in memory once it is announced.
    ring: Box<[[[u8; 8]; 2]]>,
}

impl ReceiveSide {
    pub(crate) fn new(queue: u32, slots: u32, places: Places, buffer_bytes: u32, sa_slots: u32) -> Self {
        let descriptor = |tag: u32| {
            let control = ReceiveControl::new().with_length(buffer_bytes as u16).with_tag(tag as u16);
            let address = places.frames_iova + u64::from(tag) * u64::from(buffer_bytes);
            [address, control.into_bits() | HELD]
        };
        ReceiveSide {
            doorbell: RECEIVE_DOORBELL.offset + queue * DOORBELL_PAGE_BYTES,
            slots_log2: slots.ilog2(),
            ring_offset: places.ring_offset,
            completion_offset: places.completion_offset,
            frames_offset: places.frames_offset,
            sa_slots,
            produced: 0,
            announced: 0,
            completions: 0,
            copies: vec![[[0; 8]; ReceiveCompletion::WORDS]; BURST].into(),
            ring: vec![[[0; 8]; 2]; slots as usize].into(),
            descriptors: (0..slots).map(descriptor).collect(),
        }
    }

    pub(crate) fn ring_offset(&self) -> usize {
        self.ring_offset
    }

    pub(crate) fn completion_offset(&self) -> usize {
        self.completion_offset
    }

    #[inline]
    fn slots(&self) -> u32 {
        1 << self.slots_log2
    }

    /// How many completions are there, up to `limit`, [`BURST`] and the end of the ring; and where the first is.
    // On its own it keeps its counts in machine registers.
    #[inline(never)]
    fn ready(&self, memory: &SharedMemory, limit: usize) -> Result<(usize, usize), OutOfBounds> {
        let slot = (self.completions & (self.slots() - 1)) as usize;
        let phase = (self.completions >> self.slots_log2) & 1 == 0;
        let start = self.completion_offset + slot * ReceiveCompletion::BYTES;
        let most = limit.min(BURST).min(self.slots() as usize - slot);
        let expected = ReceiveCompletionEnd::new().with_phase(phase).into_bits();
        for count in 0..most {
            let end = memory.read_word_acquire(start + count * ReceiveCompletion::BYTES + 56)?;
            if ReceiveCompletionEnd::from_bits(end ^ expected).phase() {
                return Ok((count, start));
            }
        }
        Ok((most, start))
    }

    pub(crate) fn has_completion(&self, memory: &QueueMemory) -> Result<bool, OutOfBounds> {
        Ok(self.ready(&memory.writes.memory, 1)?.0 == 1)
    }

    /// Puts a buffer back into the ring; it is posted when it is announced.
    #[inline]
    fn post(&mut self, tag: u16) -> Result<(), OutOfBounds> {
        let slot = (self.produced & (self.slots() - 1)) as usize;
        let [address, control] = self.descriptors.get_mut(usize::from(tag)).ok_or(OutOfBounds)?;
        let place = self.ring.get_mut(slot).ok_or(OutOfBounds)?;
        *control = ((*control & !HELD) + GENERATION_ONE) & !(GENERATION_ONE << 8);
        *place = [address.to_le_bytes(), control.to_le_bytes()];
        self.produced = self.produced.wrapping_add(1);
        Ok(())
    }

    /// Copies the slots that were not announced yet into the ring.
    fn publish(&mut self, memory: &SharedMemory) -> Result<(), OutOfBounds> {
        let first = (self.announced & (self.slots() - 1)) as usize;
        let count = self.produced.wrapping_sub(self.announced) as usize;
        let head = count.min(self.ring.len() - first);
        for run in [first..first + head, 0..count - head] {
            let offset = self.ring_offset + run.start * ReceiveDescriptor::BYTES;
            let slots = self.ring.get(run).ok_or(OutOfBounds)?;
            memory.write(offset, slots.as_flattened().as_flattened())?;
        }
        self.announced = self.produced;
        Ok(())
    }
}

/// Checks a private copy of a completion, and takes its buffer from the device.
#[inline]
fn take(
    descriptors: &mut [[u64; 2]],
    copy: &Copied,
    buffer_bytes: u32,
    sa_slots: u32,
) -> Result<(), Quarantine> {
    let tag = ReceiveCompleted::from_bits(u64::from_le_bytes(copy[0])).tag();
    let [_, descriptor] = descriptors.get_mut(usize::from(tag)).ok_or(Quarantine::TagOutOfRange)?;
    check(*descriptor, copy, buffer_bytes, sa_slots)?;
    *descriptor |= HELD;
    Ok(())
}

/// Checks a private copy of a completion against the descriptor of its buffer.
#[inline]
fn check(descriptor: u64, copy: &Copied, buffer_bytes: u32, sa_slots: u32) -> Result<(), Quarantine> {
    let words = copy.map(u64::from_le_bytes);
    let completed = ReceiveCompleted::from_bits(words[0]);
    let length = u32::from(completed.length());
    let number = ReceiveCompletionEnd::from_bits(words[7]).status();
    let protocol = u32::from(ReceiveSteering::from_bits(words[5]).protocol());
    let sa_generation = words[6];
    // An SA has a slot and a generation of 32 bits; what ESP opened has an SA, what has none names no slot.
    let possible = if sa_generation == 0 {
        completed.sa_index() == 0 && (protocol != ReceivedProtocol::Esp.number() || number != 0)
    } else {
        sa_generation >> 32 == 0 && completed.sa_index() < sa_slots
    };
    let matches = (words[0] ^ descriptor) & TAG_MASK == 0;
    let good =
        number == 0 && length.wrapping_sub(1) < buffer_bytes && protocol <= ReceivedProtocol::Psp.number();
    if possible && matches && good { Ok(()) } else { check_closely(descriptor, copy, buffer_bytes, possible) }
}

/// What is wrong with a completion, or nothing but that its frame is not a good one.
#[cold]
fn check_closely(
    descriptor: u64,
    copy: &Copied,
    buffer_bytes: u32,
    sa_possible: bool,
) -> Result<(), Quarantine> {
    let words = copy.map(u64::from_le_bytes);
    let completed = ReceiveCompleted::from_bits(words[0]);
    if (words[0] ^ descriptor) & TAG_MASK != 0 {
        let held = descriptor & HELD != 0;
        return Err(if held { Quarantine::NotPosted } else { Quarantine::StaleGeneration });
    }
    let status = match Status::of_number(ReceiveCompletionEnd::from_bits(words[7]).status().into()) {
        Some(status) if status == Status::Ok || status.number() >= FIRST_STATUS => status,
        _ => return Err(Quarantine::UnknownStatus),
    };
    if u32::from(completed.length()) > buffer_bytes {
        return Err(Quarantine::LengthTooLong);
    }
    if completed.length() == 0 && status == Status::Ok {
        return Err(Quarantine::LengthZero);
    }
    if u32::from(ReceiveSteering::from_bits(words[5]).protocol()) > ReceivedProtocol::Psp.number() {
        return Err(Quarantine::UnknownProtocol);
    }
    if sa_possible { Ok(()) } else { Err(Quarantine::SaOutOfRange) }
}

impl QueuePair {
    pub(crate) fn post_every_buffer(&mut self) -> Result<(), QueueError> {
        for tag in 0..self.receive.slots() {
            self.receive.post(tag as u16)?;
        }
        self.announce_buffers()
    }

    /// Rings the receive doorbell, if there is something to announce.
    pub(crate) fn announce_buffers(&mut self) -> Result<(), QueueError> {
        if self.receive.announced != self.receive.produced {
            self.receive.publish(&self.memory.reads.memory)?;
            self.shared.host.write32(Bar::Bar2, self.receive.doorbell, self.receive.produced)?;
        }
        Ok(())
    }

    /// Rings the doorbell when enough buffers have come together.
    #[inline]
    fn announce_some(&mut self) -> Result<(), QueueError> {
        let waiting = self.receive.produced.wrapping_sub(self.receive.announced);
        if waiting * 8 >= self.receive.slots() && self.usable().is_ok() {
            self.announce_buffers()
        } else {
            Ok(())
        }
    }

    /// Takes up to `limit` received frames, good and bad. Gives how many.
    pub fn receive(&mut self, out: &mut Vec<Received>, limit: usize) -> Result<usize, QueueError> {
        self.usable()?;
        self.announce_buffers()?;
        let before = out.len();
        let outcome = self.take_received(out, limit);
        let taken = out.len() - before;
        match outcome {
            Ok(()) if taken == 0 => {}
            Ok(()) => self.shared.host.spend(Work::Burst { packets: taken as u32 }),
            Err(Fault::Quarantine(reason)) => return Err(self.put_into_quarantine(reason)),
            Err(Fault::OutOfBounds) => return Err(QueueError::OutOfBounds),
        }
        Ok(taken)
    }

    fn take_received(&mut self, out: &mut Vec<Received>, limit: usize) -> Result<(), Fault> {
        let memory = &self.memory.writes.memory;
        let side = &mut self.receive;
        let (identity, buffer_bytes) = (self.identity, 1 << self.buffer_bytes_log2);
        let mut left = limit;
        loop {
            let (count, start) = side.ready(memory, left)?;
            let Some(copies) = side.copies.get_mut(..count).filter(|copies| !copies.is_empty()) else {
                return Ok(());
            };
            memory.read(start, copies.as_flattened_mut().as_flattened_mut())?;
            // All are checked where they were copied to, then moved at once.
            let mut good = 0;
            let mut outcome = Ok(());
            for copy in copies.iter_mut() {
                outcome = take(&mut side.descriptors, copy, buffer_bytes, side.sa_slots);
                if outcome.is_err() {
                    break;
                }
                let end = u64::from_le_bytes(copy[7]) & 0xffff | u64::from(identity) << 32;
                copy[7] = end.to_le_bytes();
                good += 1;
            }
            out.extend(copies.iter().take(good).map(|copy| Received { completion: *copy }));
            outcome?;
            side.completions = side.completions.wrapping_add(count as u32);
            left -= count;
        }
    }

    /// Copies bytes of a frame, from `offset` of it on, as many as there are and fit. Gives how many.
    #[inline]
    pub fn read(&self, received: &Received, offset: usize, bytes: &mut [u8]) -> Result<usize, QueueError> {
        if received.queue() != self.identity {
            return Err(QueueError::Foreign);
        }
        let length = received.length().saturating_sub(offset).min(bytes.len());
        let tag = usize::from(received.completed().tag());
        let start = self.receive.frames_offset + (tag << self.buffer_bytes_log2);
        if let Some(bytes) = bytes.get_mut(..length) {
            self.memory.writes.memory.read(start + offset, bytes)?;
        }
        Ok(length)
    }

    /// Copies a frame out, as much as fits, and gives its buffer back. Gives how many bytes were copied.
    #[inline]
    pub fn copy_out(&mut self, received: Received, bytes: &mut [u8]) -> Result<usize, QueueError> {
        let length = self.read(&received, 0, bytes)?;
        self.return_buffer(received)?;
        Ok(length)
    }

    /// Gives a buffer back. The device hears of it when some have come together, and at the next
    /// [`Self::receive`], [`Self::wait`] or [`Self::drain`].
    #[inline]
    pub fn return_buffer(&mut self, received: Received) -> Result<(), QueueError> {
        self.repost(&received)?;
        self.announce_some()
    }

    /// Gives buffers back. One of another queue pair ends the call, and stays with those behind it.
    pub fn return_buffers(&mut self, all: &mut Vec<Received>) -> Result<(), QueueError> {
        let usable = self.usable().is_ok();
        let mut outcome = Ok(());
        let mut returned = 0;
        for received in all.iter() {
            if received.queue() != self.identity {
                outcome = Err(QueueError::Foreign);
                break;
            }
            if usable {
                self.receive.post(received.completed().tag())?;
            }
            returned += 1;
        }
        // What was posted must not be given back a second time.
        all.drain(..returned);
        if usable {
            self.announce_buffers()?;
        }
        outcome
    }

    #[inline]
    fn repost(&mut self, received: &Received) -> Result<(), QueueError> {
        if received.queue() != self.identity {
            return Err(QueueError::Foreign);
        }
        if self.usable().is_err() {
            return Ok(()); // Nothing is posted any more; the buffer lives as long as the pair.
        }
        let tag = received.completed().tag();
        Ok(self.receive.post(tag)?)
    }

    /// Received frames whose buffers have not come back.
    pub fn receive_held(&self) -> usize {
        let posted = self.receive.produced.wrapping_sub(self.receive.completions);
        self.receive.slots().saturating_sub(posted) as usize
    }
}
