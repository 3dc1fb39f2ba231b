//! The receive ring of a queue pair.
//!
//! Every slot of the ring has a buffer of its own, whose number is its tag. A buffer is with the device, or
//! with the caller as part of a [`Received`], and its tag generation rises each time it is posted. A frame of several
//! buffers is put together here: what is known of it before its last completion is in [`OpenFrame`], and each of
//! its buffers remembers the one before.

use std::sync::atomic::Ordering;

use cryptonic_pci::SharedMemory;
use cryptonic_pci::memory::{Line, OutOfBounds};
use cryptonic_regs::Status;
use cryptonic_regs::completion::{
    ChecksumState, HashKind, ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSteering,
    ReceivedProtocol,
};
use cryptonic_regs::descriptor::{ReceiveControl, ReceiveDescriptor};

use crate::Quarantine;
use crate::queue::QueueMemory;
use crate::receive::{Owner, Received, joined};
use crate::transmit::Fault;

/// Completions are taken at most so many at a time.
const BURST: usize = 32;
/// Tag (16 bits) and tag generation (8 bits), as they stand above the length in descriptors and completions.
const NAME_MASK: u32 = 0xff_ffff;
const NAME_SHIFT: u32 = 16;
/// One in the tag generation of a name.
const GENERATION_ONE: u32 = 1 << 16;
/// Set in what is expected of a buffer while the caller has it: no name has this bit, so that no completion matches.
const HELD: u32 = 1 << 31;
/// Statuses below are of the transmit side.
const FIRST_STATUS: u32 = 32;
const WORDS: usize = ReceiveCompletion::WORDS;

/// How to set up the receive side.
pub(crate) struct ReceiveOptions {
    pub(crate) slots: u32,
    pub(crate) buffer_bytes: u32,
    /// Of the ring, in what the device reads.
    pub(crate) ring_offset: usize,
    /// Of the completions, in what the device writes.
    pub(crate) completion_offset: usize,
    /// Of the first frame, in what the device writes.
    pub(crate) frames_offset: usize,
    /// Of the first frame, for the device.
    pub(crate) frames_iova: u64,
    pub(crate) sa_slots: u32,
    /// Most buffers of a frame.
    pub(crate) chain_max: u8,
    /// Copies are taken.
    pub(crate) copies: bool,
    /// Marks the frames of this queue pair.
    pub(crate) owner: Owner,
}

/// Private state of the receive ring.
pub(crate) struct ReceiveSide {
    slots_log2: u32,
    buffer_bytes_log2: u32,
    buffer_bytes: u32,
    ring_offset: usize,
    completion_offset: usize,
    frames_offset: usize,
    sa_slots: u32,
    chain_max: u8,
    copies: bool,
    owner: Owner,
    /// Free-running counts: buffers posted, posted and announced, and completions taken.
    produced: u32,
    announced: u32,
    completions: u32,
    frames_iova: u64,
    /// By tag: the name that the buffer was posted by last; marked [`HELD`] while it is not posted.
    names: Box<[u32]>,
    /// By tag: the part of a frame in the buffer, where the frame has several.
    parts: Box<[Part]>,
    open: OpenFrame,
}

#[derive(Clone, Copy, Default)]
struct Part {
    previous: u16,
    length: u16,
}

/// A frame whose last completion has not come.
#[derive(Clone, Copy, Default)]
struct OpenFrame {
    /// None: there is no such frame.
    buffers: u8,
    last: u16,
    failed: bool,
    bytes: u32,
}

impl ReceiveSide {
    pub(crate) fn new(options: ReceiveOptions) -> Self {
        ReceiveSide {
            slots_log2: options.slots.ilog2(),
            buffer_bytes_log2: options.buffer_bytes.ilog2(),
            buffer_bytes: options.buffer_bytes,
            ring_offset: options.ring_offset,
            completion_offset: options.completion_offset,
            frames_offset: options.frames_offset,
            sa_slots: options.sa_slots,
            chain_max: options.chain_max,
            copies: options.copies,
            owner: options.owner,
            produced: 0,
            announced: 0,
            completions: 0,
            frames_iova: options.frames_iova,
            names: (0..options.slots).map(|tag| tag | HELD).collect(),
            parts: vec![Part::default(); options.slots as usize].into(),
            open: OpenFrame::default(),
        }
    }

    pub(crate) fn ring_offset(&self) -> usize {
        self.ring_offset
    }

    pub(crate) fn completion_offset(&self) -> usize {
        self.completion_offset
    }

    #[inline]
    pub(crate) fn slots(&self) -> u32 {
        1 << self.slots_log2
    }

    pub(crate) fn held(&self) -> usize {
        let posted = self.produced.wrapping_sub(self.completions);
        self.slots().saturating_sub(posted) as usize
    }

    /// Buffers that were posted and not announced.
    #[inline]
    pub(crate) fn waiting(&self) -> u32 {
        self.produced.wrapping_sub(self.announced)
    }

    /// The producer index, if there is something to announce.
    #[inline]
    pub(crate) fn announce(&mut self) -> Option<u32> {
        let news = self.announced != self.produced;
        self.announced = self.produced;
        news.then_some(self.produced)
    }

    /// Where the frame of a buffer is in memory.
    #[inline]
    pub(crate) fn frame_offset(&self, tag: u16) -> usize {
        self.frames_offset + (usize::from(tag) << self.buffer_bytes_log2)
    }

    pub(crate) fn has_completion(&self, memory: &QueueMemory) -> Result<bool, OutOfBounds> {
        let slot = (self.completions & (self.slots() - 1)) as usize;
        let at = self.completion_offset + slot * ReceiveCompletion::BYTES + (WORDS - 1) * 8;
        let end = ReceiveCompletionEnd::from_bits(memory.writes.memory.read_word_acquire(at)?);
        Ok(end.phase() == self.phase())
    }

    /// The phase of the completion that is due next.
    #[inline]
    fn phase(&self) -> bool {
        (self.completions >> self.slots_log2) & 1 == 0
    }

    /// Takes completions until there are `limit` frames more, or none is there.
    pub(crate) fn take(
        &mut self,
        memory: &SharedMemory,
        out: &mut Vec<Received>,
        limit: usize,
    ) -> Result<(), Fault> {
        let end = out.len().saturating_add(limit);
        loop {
            let most = end.saturating_sub(out.len());
            let slot = (self.completions & (self.slots() - 1)) as usize;
            let most = most.min(BURST).min(self.slots() as usize - slot);
            let start = self.completion_offset + slot * ReceiveCompletion::BYTES;
            let ring = memory.lines(start, most)?;
            let expected = self.expected();
            let ready = ring.iter().take_while(|completion| is_there(completion, expected)).count();
            if ready == 0 {
                return Ok(());
            }
            let before = out.len();
            let owner = self.owner;
            let copy = |completion: &Line| Received { completion: completion.copy(), owner };
            out.extend(ring.get(..ready).unwrap_or(&[]).iter().map(copy));
            let fresh = out.get_mut(before..).unwrap_or(&mut []);
            let simple = if self.open.buffers == 0 { self.take_simple(fresh) } else { 0 };
            if simple < ready {
                let (kept, outcome) = self.take_closely(fresh, simple);
                out.truncate(before + kept);
                outcome?;
            }
            self.completions = self.completions.wrapping_add(ready as u32);
        }
    }

    /// Checks private copies of completions and takes their buffers from the device, up to the first that is not of a
    /// good frame of one buffer. Gives how many.
    // On its own it keeps what it compares with in machine registers.
    #[inline(never)]
    fn take_simple(&mut self, fresh: &[Received]) -> usize {
        let (buffer_bytes, sa_slots) = (self.buffer_bytes, self.sa_slots);
        let names = &mut *self.names;
        let mut simple = 0;
        for received in fresh {
            let words = &received.completion;
            let name = (words[0] >> NAME_SHIFT) as u32 & NAME_MASK;
            let Some(known_name) = names.get_mut(name as usize & 0xffff) else { break };
            let length = u32::from(ReceiveCompleted::from_bits(words[0]).length());
            let good = words[7] & END_SIMPLE == 0 && length.wrapping_sub(1) < buffer_bytes;
            if *known_name != name || !good || !known(words[5]) || !sa_possible(words, sa_slots) {
                break;
            }
            *known_name = name | HELD;
            simple += 1;
        }
        simple
    }

    /// What the last word of a completion that is there gives when it is exclusive-ored with this: no phase.
    #[inline]
    fn expected(&self) -> u64 {
        ReceiveCompletionEnd::new().with_phase(self.phase()).into_bits()
    }

    /// Goes on behind the first `taken` completions, whatever they are, until one cannot be true. The frames that
    /// are whole are moved to the front. Gives how many frames there are, those first ones included.
    #[inline(never)]
    fn take_closely(&mut self, fresh: &mut [Received], taken: usize) -> (usize, Result<(), Quarantine>) {
        let mut kept = taken;
        for index in taken..fresh.len() {
            let Some(received) = fresh.get_mut(index) else { break };
            match self.take_one(&mut received.completion) {
                Ok(false) => {}
                Ok(true) => {
                    fresh.swap(kept, index);
                    kept += 1;
                }
                Err(reason) => return (kept, Err(reason)),
            }
        }
        (kept, Ok(()))
    }

    /// Checks a private copy of a completion and takes its buffer from the device. Gives whether it ends its frame.
    #[inline(never)]
    fn take_one(&mut self, words: &mut [u64; WORDS]) -> Result<bool, Quarantine> {
        let completed = ReceiveCompleted::from_bits(words[0]);
        let tag = completed.tag();
        let known_name = self.names.get_mut(usize::from(tag)).ok_or(Quarantine::TagOutOfRange)?;
        if *known_name != (words[0] >> NAME_SHIFT) as u32 & NAME_MASK {
            let held = *known_name & HELD != 0;
            return Err(if held { Quarantine::NotPosted } else { Quarantine::StaleGeneration });
        }
        *known_name |= HELD;
        let end = ReceiveCompletionEnd::from_bits(words[7]);
        let status = match Status::of_number(end.status().into()) {
            Some(status) if status == Status::Ok || status.number() >= FIRST_STATUS => status,
            // What could not be protected is captured as it was given.
            Some(status) if self.copies && (end.copy() || end.more()) => status,
            _ => return Err(Quarantine::UnknownStatus),
        };
        if end.copy() && !self.copies {
            return Err(Quarantine::UnexpectedCopy);
        }
        if u32::from(completed.length()) > 1 << self.buffer_bytes_log2 {
            return Err(Quarantine::LengthTooLong);
        }
        if completed.length() == 0 && (status == Status::Ok || end.more()) {
            return Err(Quarantine::LengthZero);
        }
        let open = self.open;
        let bytes = open.bytes + u32::from(completed.length());
        if let Some(part) = self.parts.get_mut(usize::from(tag)) {
            *part = Part { previous: open.last, length: completed.length() };
        }
        if end.more() {
            // The frame has a buffer more than those it has now.
            if open.buffers + 1 >= self.chain_max {
                return Err(Quarantine::FrameTooLong);
            }
            let failed = open.failed || status != Status::Ok;
            self.open = OpenFrame { buffers: open.buffers + 1, last: tag, failed, bytes };
            return Ok(false);
        }
        self.open = OpenFrame::default();
        if open.failed && status == Status::Ok {
            return Err(Quarantine::FrameContradiction);
        }
        if !known(words[5]) {
            let protocol = u32::from(ReceiveSteering::from_bits(words[5]).protocol());
            let unknown = ReceivedProtocol::of_number(protocol).is_none();
            return Err(if unknown { Quarantine::UnknownProtocol } else { Quarantine::UnknownMetadata });
        }
        if !sa_possible(words, self.sa_slots) {
            return Err(Quarantine::SaOutOfRange);
        }
        if open.buffers != 0 {
            words[6] = words[6] & u64::from(u32::MAX) | joined(open.buffers, bytes);
        }
        Ok(true)
    }

    /// Copies out bytes of a frame of several buffers, which has as many from `offset` on.
    #[inline(never)]
    pub(crate) fn read_joined(
        &self,
        memory: &SharedMemory,
        received: &Received,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), OutOfBounds> {
        // From the last buffer to the first: each knows the one before.
        let mut tag = received.completed().tag();
        let mut end = received.length();
        let wanted = offset + bytes.len();
        for _ in 0..received.buffers() {
            let part = *self.parts.get(usize::from(tag)).ok_or(OutOfBounds)?;
            let start = end.checked_sub(part.length.into()).ok_or(OutOfBounds)?;
            let (from, to) = (start.max(offset), end.min(wanted));
            if from < to {
                let place = bytes.get_mut(from - offset..to - offset).ok_or(OutOfBounds)?;
                memory.read(self.frame_offset(tag) + (from - start), place)?;
            }
            (tag, end) = (part.previous, start);
        }
        Ok(())
    }

    /// Posts a buffer; the device knows of it when it is announced.
    #[inline]
    pub(crate) fn post(&mut self, memory: &SharedMemory, tag: u16) -> Result<(), OutOfBounds> {
        let slot = (self.produced & (self.slots() - 1)) as usize;
        let buffers = self.buffers();
        let known_name = self.names.get_mut(usize::from(tag)).ok_or(OutOfBounds)?;
        let words = buffers.posted(tag.into(), known_name);
        memory.write_words(self.ring_offset + slot * ReceiveDescriptor::BYTES, &words)?;
        self.produced = self.produced.wrapping_add(1);
        Ok(())
    }

    #[inline]
    fn buffers(&self) -> Buffers {
        Buffers { frames_iova: self.frames_iova, bytes_log2: self.buffer_bytes_log2 }
    }

    /// Posts the buffers of frames, up to the first frame of another queue pair. Gives of how many frames.
    #[inline]
    pub(crate) fn post_frames(
        &mut self,
        memory: &SharedMemory,
        frames: &[Received],
    ) -> Result<usize, OutOfBounds> {
        let mut count = 0;
        loop {
            count += self.post_run(memory, frames.get(count..).unwrap_or(&[]))?;
            match frames.get(count) {
                None => return Ok(count),
                // Of this pair: the run ended at the end of the ring, or at a frame of several buffers.
                Some(received) if received.owner == self.owner => {
                    self.post_joined(memory, received)?;
                    count += 1;
                }
                Some(_) => return Ok(count),
            }
        }
    }

    /// Posts the buffers of frames of one buffer, up to the end of the ring or the first frame that is not that simple.
    #[inline(never)]
    fn post_run(&mut self, memory: &SharedMemory, frames: &[Received]) -> Result<usize, OutOfBounds> {
        let first = (self.produced & (self.slots() - 1)) as usize;
        let room = frames.len().min(self.slots() as usize - first);
        let offset = self.ring_offset + first * ReceiveDescriptor::BYTES;
        let ring = memory.atomics(offset, room * ReceiveDescriptor::WORDS)?;
        let buffers = self.buffers();
        let owner = self.owner;
        let names = &mut *self.names;
        let mut count = 0;
        for (received, place) in frames.iter().zip(ring.as_chunks::<{ ReceiveDescriptor::WORDS }>().0) {
            let tag = received.completed().tag();
            let Some(known_name) = names.get_mut(usize::from(tag)) else { break };
            if received.owner != owner || received.buffers_before() != 0 {
                break;
            }
            let [address, control] = buffers.posted(tag.into(), known_name);
            place[0].store(address.to_le(), Ordering::Relaxed);
            place[1].store(control.to_le(), Ordering::Relaxed);
            count += 1;
        }
        self.produced = self.produced.wrapping_add(count as u32);
        Ok(count)
    }

    /// Posts the buffers of a frame of several.
    #[inline(never)]
    pub(crate) fn post_joined(
        &mut self,
        memory: &SharedMemory,
        received: &Received,
    ) -> Result<(), OutOfBounds> {
        let mut tag = received.completed().tag();
        for _ in 0..received.buffers() {
            let previous = self.parts.get(usize::from(tag)).ok_or(OutOfBounds)?.previous;
            self.post(memory, tag)?;
            tag = previous;
        }
        Ok(())
    }
}

/// Where buffers are for the device.
#[derive(Clone, Copy)]
struct Buffers {
    frames_iova: u64,
    bytes_log2: u32,
}

impl Buffers {
    /// The descriptor that posts a buffer by its next name.
    #[inline]
    fn posted(self, tag: u64, known_name: &mut u32) -> [u64; 2] {
        let name = known_name.wrapping_add(GENERATION_ONE) & NAME_MASK;
        *known_name = name;
        [self.frames_iova + (tag << self.bytes_log2), u64::from(name) << NAME_SHIFT | 1 << self.bytes_log2]
    }
}
const _: () = assert!(
    ReceiveControl::new().with_length(1).with_tag(1).with_tag_generation(1).into_bits()
        == (1 | 1 << 16) << NAME_SHIFT | 1
);
const _: () = assert!(
    ReceiveCompleted::new().with_tag(u16::MAX).with_tag_generation(u8::MAX).into_bits()
        == (NAME_MASK as u64) << NAME_SHIFT
);

/// Whether a completion is there; if it is, its other words may be read.
#[inline]
fn is_there(completion: &Line, expected: u64) -> bool {
    let end = completion.word(WORDS - 1, Ordering::Acquire) ^ expected;
    !ReceiveCompletionEnd::from_bits(end).phase()
}

/// Bits of the last word that are 0 in the completion of a good frame of one buffer.
const END_SIMPLE: u64 =
    ReceiveCompletionEnd::new().with_status(u16::MAX).with_more(true).with_copy(true).into_bits();

/// Lower bits of the two-bit fields of the steering word in which 3 is no number: the checksums' states, and of the
/// protocol its lower half, whose other bits are in [`STEERING_ZERO`].
const STEERING_PAIRS: u64 = ReceiveSteering::new()
    .with_protocol(1)
    .with_ip_checksum(1)
    .with_l4_checksum(1)
    .with_outer_checksum(1)
    .into_bits();
/// Bits there that no known number has.
const STEERING_ZERO: u64 = ReceiveSteering::new().with_protocol(!3).with_hash_kind(8).into_bits();
const _: () =
    assert!(ReceivedProtocol::ALL.len() == 3 && ChecksumState::ALL.len() == 3 && HashKind::ALL.len() == 8);

/// Whether protocol, kind of hash and states of checksums are numbers of the contract.
#[inline]
fn known(steering: u64) -> bool {
    steering & (steering >> 1 & STEERING_PAIRS | STEERING_ZERO) == 0
}

/// An SA has a slot and a generation of 32 bits; what ESP opened has an SA, what has none names no slot.
#[inline]
fn sa_possible(words: &[u64; WORDS], sa_slots: u32) -> bool {
    let sa_index = ReceiveCompleted::from_bits(words[0]).sa_index();
    if words[6] == 0 {
        let protocol = u32::from(ReceiveSteering::from_bits(words[5]).protocol());
        let number = ReceiveCompletionEnd::from_bits(words[7]).status();
        sa_index == 0 && (protocol != ReceivedProtocol::Esp.number() || number != 0)
    } else {
        words[6] >> 32 == 0 && sa_index < sa_slots
    }
}
