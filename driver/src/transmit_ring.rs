//! The transmit ring of a queue pair.
//!
//! Packets end in ring order, so a descriptor's tag is its slot and its tag generation counts the passes
//! over the ring: a completion must name exactly the position that its count of descriptors leads to. Packets of
//! one buffer, protected by an SA or in clear, are put in a run with nothing to decide; all others one by one by
//! [`TransmitSide::put_special`]. What a slot stands for is in [`Sent`] of the packet's last slot.

mod pieces;
mod special;

use std::sync::atomic::{AtomicU64, Ordering};

use cryptonic_pci::SharedMemory;
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_regs::Status;
use cryptonic_regs::bar0::{DescriptorCapability, ProtocolCapability};
use cryptonic_regs::completion::{TransmitCompleted, TransmitCompletion, TransmitCompletionEnd};
use cryptonic_regs::descriptor::{
    Security, TRANSMIT_BASE_BYTES, TRANSMIT_COOKIE_BYTES, TRANSMIT_KEY_BYTES, TransmitControl,
    TransmitDescriptor, TransmitExtent, TransmitSa,
};
use cryptonic_regs::doorbell::PUSH_WINDOWS;
use zeroize::Zeroizing;

pub(crate) use self::pieces::Piece;
use self::pieces::{Pieces, Span};
use crate::psp_keys::PspKeys;
use crate::queue::QueueMemory;
use crate::transmit::{Fault, InlinePolicy, PushPolicy};
use crate::{Protection, Quarantine, QueueError, SaHandle, TransmitPacket, Transmitted};

/// A completion is asked for at least this often a pass over the ring.
const REPORTS_PER_PASS: u32 = 4;

/// A descriptor under way.
#[derive(Clone, Copy, Default)]
struct Sent {
    cookie: u64,
    /// Place of the packet's own buffer (30 bits), [`CONTINUES`], [`KEYED`], and in the upper half the packet's
    /// attached pieces as in [`crate::TransmitBuffer`].
    what: u64,
}

/// The slot holds a key.
const KEYED: u64 = 1 << 31;
/// The packet goes on in the next slot, whose entry has its buffer and pieces.
const CONTINUES: u64 = 1 << 30;

impl Sent {
    fn is_special(&self) -> bool {
        self.what >= CONTINUES
    }

    fn chain(&self) -> u32 {
        (self.what >> 32) as u32
    }

    fn place(&self) -> u32 {
        (self.what & (CONTINUES - 1)) as u32
    }
}

/// What the device can do for a packet.
#[derive(Clone, Copy)]
pub(crate) struct Abilities {
    pub(crate) descriptor: DescriptorCapability,
    pub(crate) protocol: ProtocolCapability,
    /// Most descriptors of a frame.
    pub(crate) chain_max: usize,
}

/// How to set up the transmit side.
pub(crate) struct TransmitOptions {
    pub(crate) slots: u32,
    pub(crate) stride: u32,
    pub(crate) frames_iova: u64,
    pub(crate) frames_offset: usize,
    pub(crate) buffers: u32,
    pub(crate) buffer_bytes: u32,
    pub(crate) identity: u32,
    pub(crate) nic: u32,
    pub(crate) inline: InlinePolicy,
    pub(crate) push: PushPolicy,
    pub(crate) abilities: Abilities,
}

/// Private state of the transmit ring.
pub(crate) struct TransmitSide {
    /// Marks this queue pair's buffers and keys.
    identity: u32,
    /// Marks the SAs of its NIC.
    nic: u32,
    slots_log2: u32,
    stride_log2: u32,
    /// Where the first frame buffer is for the device, and in memory.
    frames_iova: u64,
    pub(crate) frames_offset: usize,
    /// Free-running counts.
    produced: u32,
    retired: u32,
    completions: u32,
    /// Control word of the descriptor made last.
    last_control: u64,
    /// What is under way, by slot.
    sent: Box<[Sent]>,
    /// How many entries of it are special.
    special: u32,
    /// Sequence numbers that segmented packets may take beyond one each, since the ring was empty.
    extra_numbers: u64,
    pub(crate) free: Vec<u32>,
    pub(crate) pieces: Pieces,
    pub(crate) keys: PspKeys,
    inline: InlinePolicy,
    pub(crate) push: PushPolicy,
    next_window: usize,
    abilities: Abilities,
    spans: Vec<Span>,
    pub(crate) inline_bytes: u64,
    pub(crate) chained_packets: u64,
}

impl TransmitSide {
    pub(crate) fn new(options: TransmitOptions) -> Self {
        TransmitSide {
            identity: options.identity,
            nic: options.nic,
            slots_log2: options.slots.ilog2(),
            stride_log2: options.stride.ilog2(),
            frames_iova: options.frames_iova,
            frames_offset: options.frames_offset,
            produced: 0,
            retired: 0,
            completions: 0,
            last_control: 0,
            sent: vec![Sent::default(); options.slots as usize].into(),
            special: 0,
            extra_numbers: 0,
            free: (0..options.buffers).rev().map(|index| index * options.buffer_bytes).collect(),
            pieces: Pieces::default(),
            keys: PspKeys::default(),
            inline: options.inline,
            push: options.push,
            next_window: 0,
            abilities: options.abilities,
            spans: Vec::with_capacity(options.abilities.chain_max),
            inline_bytes: 0,
            chained_packets: 0,
        }
    }

    #[inline]
    pub(crate) fn slots(&self) -> u32 {
        1 << self.slots_log2
    }

    #[inline]
    pub(crate) fn stride_log2(&self) -> u32 {
        self.stride_log2
    }

    #[inline]
    pub(crate) fn produced(&self) -> u32 {
        self.produced
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.produced.wrapping_sub(self.retired)
    }

    /// The most sequence numbers that what is in flight may still take.
    #[inline]
    pub(crate) fn numbers_in_flight(&self) -> u64 {
        u64::from(self.in_flight()) + self.extra_numbers
    }

    pub(crate) fn has_completion(&self, memory: &QueueMemory) -> Result<bool, OutOfBounds> {
        Ok(self.due(&memory.writes.memory)?.is_some())
    }

    /// Puts packets from the front of `batch` into the ring, as many as there is space for. Gives how many, and why
    /// the next could not be put, if that is why it ended.
    #[inline]
    pub(crate) fn put(
        &mut self,
        memory: &SharedMemory,
        batch: &[TransmitPacket],
    ) -> (usize, Result<(), QueueError>) {
        let mut sent = 0;
        while let Some(rest) = batch.get(sent..).filter(|rest| !rest.is_empty()) {
            let space = self.slots() - self.in_flight();
            if space == 0 {
                break;
            }
            if self.inline == InlinePolicy::Never {
                match self.put_run(memory, rest, space as usize) {
                    Ok(0) => {}
                    Ok(run) => {
                        sent += run;
                        continue;
                    }
                    Err(OutOfBounds) => return (sent, Err(QueueError::OutOfBounds)),
                }
            }
            match rest.first().map(|packet| self.put_special(memory, packet, space)) {
                Some(Ok(true)) => sent += 1,
                Some(Err(error)) => return (sent, Err(error)),
                Some(Ok(false)) | None => break,
            }
        }
        (sent, Ok(()))
    }

    /// Puts packets of one buffer, up to the end of the ring or to one that is not that simple.
    #[inline]
    fn put_run(
        &mut self,
        memory: &SharedMemory,
        batch: &[TransmitPacket],
        limit: usize,
    ) -> Result<usize, OutOfBounds> {
        let first = (self.produced & (self.slots() - 1)) as usize;
        let count = limit.min(batch.len()).min(self.slots() as usize - first);
        let words = memory.atomics(first << self.stride_log2, count << (self.stride_log2 - 3))?;
        let put = match self.stride_log2 {
            5 => self.put_slots::<4>(words, batch, first),
            6 => self.put_slots::<8>(words, batch, first),
            _ => self.put_slots::<16>(words, batch, first),
        };
        // A batch asks for a report at its end; a long one now and then before.
        let every = self.report_mask() as usize + 1;
        if put >= every {
            for slot in (first.next_multiple_of(every)..first + put).step_by(every) {
                let control = &words[((slot - first) << (self.stride_log2 - 3)) + 1];
                control.store(control.load(Ordering::Relaxed) | REPORT.to_le(), Ordering::Relaxed);
            }
        }
        self.produced = self.produced.wrapping_add(put as u32);
        Ok(put)
    }

    // On its own it keeps what it adds and compares with in machine registers.
    #[inline(never)]
    fn put_slots<const WORDS: usize>(
        &mut self,
        words: &[AtomicU64],
        batch: &[TransmitPacket],
        first: usize,
    ) -> usize {
        // What grows by one from slot to slot is added, not set: the tag is above the length.
        let mut common = self.tagged(self.produced).with_end_of_packet(true).into_bits();
        let start = common;
        let (identity, nic, frames_iova) = (self.identity, self.nic, self.frames_iova);
        let places = self.sent.get_mut(first..).unwrap_or(&mut []);
        let mut last_control = self.last_control;
        for ((packet, sent), words) in batch.iter().zip(places).zip(words.as_chunks::<WORDS>().0) {
            let buffer = &packet.buffer;
            if buffer.queue != identity || packet.is_special() {
                break;
            }
            let (how, security) = match &packet.protection {
                Protection::Sa(handle) if handle.nic == nic => (SECURITY_SA, sa_word(*handle)),
                Protection::Clear => (SECURITY_CLEAR, 0),
                Protection::PspKey(_) | Protection::Sa(_) => break,
            };
            let report = u64::from(packet.report) << REPORT.trailing_zeros();
            let (length, place) = (u64::from(buffer.length), u64::from(buffer.place));
            last_control = (common | length | report) + how;
            words[0].store((frames_iova + place).to_le(), Ordering::Relaxed);
            words[1].store(last_control.to_le(), Ordering::Relaxed);
            words[2].store(security.to_le(), Ordering::Relaxed);
            words[3].store(length.to_le(), Ordering::Relaxed);
            *sent = Sent { cookie: packet.cookie, what: place };
            common += TAG_ONE;
        }
        self.last_control = last_control;
        ((common - start) / TAG_ONE) as usize
    }

    /// Descriptors in slots with none of these bits ask for a report.
    #[inline]
    fn report_mask(&self) -> u32 {
        (self.slots() / REPORTS_PER_PASS).wrapping_sub(1) & (self.slots() - 1)
    }

    #[inline]
    fn tagged(&self, position: u32) -> TransmitControl {
        TransmitControl::new()
            .with_tag((position & (self.slots() - 1)) as u16)
            .with_tag_generation((position >> self.slots_log2) as u8)
    }

    /// Makes the last descriptor ask for a report.
    #[inline]
    pub(crate) fn report_last(&mut self, memory: &SharedMemory) -> Result<(), OutOfBounds> {
        self.last_control |= REPORT;
        memory.write_word(self.last_offset() + 8, self.last_control)
    }

    fn last_offset(&self) -> usize {
        ((self.produced.wrapping_sub(1) & (self.slots() - 1)) as usize) << self.stride_log2
    }

    /// The slot made last as it is pushed, with this in its extent word. They are zeroised on drop: there may be a
    /// key.
    pub(crate) fn lines_of_last(
        &self,
        memory: &SharedMemory,
        producer: TransmitExtent,
    ) -> Result<Zeroizing<[[u8; 64]; 2]>, OutOfBounds> {
        let mut words = Zeroizing::new([0; 16]);
        let count = (1usize << self.stride_log2) / 8;
        memory.read_words(self.last_offset(), words.get_mut(..count).ok_or(OutOfBounds)?)?;
        words[3] |= producer.into_bits();
        let mut lines = Zeroizing::new([[0; 64]; 2]);
        for (to, from) in lines.as_flattened_mut().as_chunks_mut::<8>().0.iter_mut().zip(words.iter()) {
            *to = from.to_le_bytes();
        }
        Ok(lines)
    }

    /// Byte offset of the push window whose turn it is, in a queue pair's page.
    pub(crate) fn take_window(&mut self) -> u32 {
        self.next_window ^= 1;
        PUSH_WINDOWS[self.next_window ^ 1]
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

    /// Ends, because each completion retires a descriptor at least and there are at most as many as slots.
    pub(crate) fn take_completions(
        &mut self,
        memory: &QueueMemory,
        out: &mut Vec<Transmitted>,
    ) -> Result<(), Fault> {
        let completions = &memory.writes.memory;
        while let Some((offset, end)) = self.due(completions)? {
            let mut words = [0; 3];
            completions.read_words(offset, &mut words)?;
            let [completed, sequence, time_picoseconds] = words;
            let completed = TransmitCompleted::from_bits(completed);
            let (descriptors, status) = self.check(completed, end)?;
            self.completions = self.completions.wrapping_add(1);
            let sa_index = completed.sa_index();
            let last = usize::from(completed.tag()) & (self.slots() as usize - 1);
            let cookie = self.sent.get(last).map_or(0, |sent| sent.cookie);
            let packets = self.retire(&memory.reads.memory, descriptors)?;
            out.push(Transmitted { packets, cookie, status, sa_index, sequence, time_picoseconds });
        }
        if self.in_flight() == 0 {
            self.extra_numbers = 0;
        }
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
        let status = match Status::of_number(end.status().into()) {
            Some(status) if matches!(status.number(), 0..32 | 96..) => status,
            _ => return Err(Quarantine::UnknownStatus),
        };
        // A packet ends as a whole; chains that the device would cut short are never given to it.
        let continues =
            self.special != 0 && self.sent.get(tag as usize).is_some_and(|sent| sent.what & CONTINUES != 0);
        if continues { Err(Quarantine::InsidePacket) } else { Ok((count, status)) }
    }

    /// Takes back the next `count` descriptors: zeroises their keys, frees their buffers. Gives how many packets
    /// they were.
    #[inline]
    fn retire(&mut self, memory: &SharedMemory, count: u32) -> Result<u32, OutOfBounds> {
        let first = (self.retired & (self.slots() - 1)) as usize;
        let to_end = self.sent.len() - first;
        let (head, tail) = ((count as usize).min(to_end), (count as usize).saturating_sub(to_end));
        let mut packets = count;
        for run in [first..first + head, 0..tail] {
            let sent = self.sent.get(run.clone()).ok_or(OutOfBounds)?;
            if self.special == 0 {
                self.free.extend(sent.iter().map(|sent| sent.what as u32));
            } else {
                packets -= self.retire_special(memory, run)?;
            }
        }
        self.retired = self.retired.wrapping_add(count);
        Ok(packets)
    }

    /// Takes slots back where some are special. Gives how many of them did not end a packet.
    #[inline(never)]
    fn retire_special(
        &mut self,
        memory: &SharedMemory,
        run: std::ops::Range<usize>,
    ) -> Result<u32, OutOfBounds> {
        let mut continued = 0;
        for slot in run {
            let sent = *self.sent.get(slot).ok_or(OutOfBounds)?;
            self.special -= u32::from(sent.is_special());
            if sent.what & KEYED != 0 {
                let offset = (slot << self.stride_log2) + TRANSMIT_BASE_BYTES as usize;
                memory.zeroise(offset, self.secret_bytes())?;
            }
            if sent.what & CONTINUES != 0 {
                continued += 1;
            } else {
                self.pieces.release(sent.chain(), Some(sent.cookie), &mut self.free);
                self.free.push(sent.place());
            }
        }
        Ok(continued)
    }

    /// Bytes behind the base words that key and cookie may stand in.
    fn secret_bytes(&self) -> usize {
        let room = (1usize << self.stride_log2) - TRANSMIT_BASE_BYTES as usize;
        room.min((TRANSMIT_KEY_BYTES + TRANSMIT_COOKIE_BYTES) as usize)
    }
}

const TAG_ONE: u64 = 1 << 16;
const REPORT: u64 = TransmitControl::new().with_report(true).into_bits();
const SECURITY_CLEAR: u64 = TransmitControl::new().with_security(Security::Clear.number() as u8).into_bits();
const SECURITY_SA: u64 = TransmitControl::new().with_security(Security::Sa.number() as u8).into_bits();
const _: () = assert!(TransmitControl::new().with_tag(1).into_bits() == TAG_ONE);
const _: () = assert!(TransmitSa::new().with_index(1).with_generation(1).into_bits() == 1 | 1 << 32);
const _: () = assert!(TransmitDescriptor::BYTES == TRANSMIT_BASE_BYTES as usize);

#[inline]
fn sa_word(handle: SaHandle) -> u64 {
    // A handle of the driver has an index of 24 bits; with any other the reserved bits of the word are not 0, and the
    // device refuses the packet.
    u64::from(handle.index) | u64::from(handle.generation) << 32
}
