//! The transmit ring of a queue pair.
//!
//! Packets end in ring order, so a descriptor's tag is its slot and its tag generation counts the passes
//! over the ring: a completion must name exactly the position that its count of descriptors leads to. Packets of
//! one buffer, protected by an SA or in clear, are put in a run with nothing to decide; all others one by one by
//! [`TransmitSide::put_special`]. What a slot stands for is in [`Sent`] of the packet's last slot.

use std::sync::atomic::{AtomicU64, Ordering};

use cryptonic_pci::SharedMemory;
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_regs::Status;
use cryptonic_regs::bar0::{DescriptorCapability, ProtocolCapability};
use cryptonic_regs::completion::{TransmitCompleted, TransmitCompletion, TransmitCompletionEnd};
use cryptonic_regs::descriptor::{
    Security, TRANSMIT_BASE_BYTES, TRANSMIT_COOKIE_BYTES, TRANSMIT_KEY_BYTES, TransmitControl,
    TransmitDescriptor, TransmitExtent, TransmitPsp, TransmitSa, inline_offset, inline_room,
};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, PUSH_WINDOWS, TRANSMIT_DOORBELL};
use zeroize::Zeroizing;

use crate::psp_keys::{Key, PspKeys};
use crate::queue::QueueMemory;
use crate::region::Region;
use crate::transmit::{Fault, InlinePolicy, PushPolicy, Reclaimed, TransmitBuffer};
use crate::{Protection, PspTransmit, Quarantine, QueueError, SaHandle, TransmitPacket, Transmitted};

/// A completion is asked for at least this often a pass over the ring.
const REPORTS_PER_PASS: u32 = 4;
/// The most inline bytes a slot has room for.
const INLINE_BYTES_MAX: usize = 96;

/// A descriptor under way.
#[derive(Clone, Copy, Default)]
struct Sent {
    cookie: u64,
    /// Place of the packet's own buffer (30 bits), [`CONTINUES`], [`KEYED`], and in the upper half the packet's
    /// attached pieces as in [`TransmitBuffer`].
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
    pub(crate) inline: InlinePolicy,
    pub(crate) push: PushPolicy,
    pub(crate) abilities: Abilities,
}

/// Private state of the transmit ring.
pub(crate) struct TransmitSide {
    pub(crate) doorbell: u32,
    /// Marks this queue pair's buffers and keys.
    identity: u32,
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
    pub(crate) fn new(queue: u32, options: TransmitOptions) -> Self {
        TransmitSide {
            doorbell: TRANSMIT_DOORBELL.offset + queue * DOORBELL_PAGE_BYTES,
            identity: options.identity,
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
        let (identity, frames_iova) = (self.identity, self.frames_iova);
        let places = self.sent.get_mut(first..).unwrap_or(&mut []);
        let mut last_control = self.last_control;
        for ((packet, sent), words) in batch.iter().zip(places).zip(words.as_chunks::<WORDS>().0) {
            let buffer = &packet.buffer;
            if buffer.queue != identity || packet.is_special() {
                break;
            }
            let (how, security) = match &packet.protection {
                Protection::Sa(handle) => (SECURITY_SA, sa_word(*handle)),
                Protection::Clear => (SECURITY_CLEAR, 0),
                Protection::PspKey(_) => break,
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

    /// Puts a packet of any kind. Gives whether there was space for it. Nothing is written before everything that
    /// can be wrong with the packet was looked at.
    #[inline(never)]
    fn put_special(
        &mut self,
        memory: &SharedMemory,
        packet: &TransmitPacket,
        space: u32,
    ) -> Result<bool, QueueError> {
        if packet.buffer.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        self.abilities.check(packet)?;
        let segment = packet.offload.maximum_segment();
        let mut key = None;
        let mut cookie = None;
        let (how, security) = match &packet.protection {
            Protection::Sa(handle) => (SECURITY_SA, sa_word(*handle)),
            Protection::Clear => (SECURITY_CLEAR, 0),
            Protection::PspKey(psp) => {
                let found = self.keys.get(self.identity, psp.key)?;
                key = Some(found);
                cookie = psp.cookie;
                psp_words(psp, found)?
            }
        };
        let stride = 1 << self.stride_log2;
        let room = inline_room(stride, key.is_some(), cookie.is_some()).ok_or(QueueError::NoRoomForKey)?;

        collect_spans(&mut self.spans, &self.pieces, &packet.buffer, self.frames_iova);
        let total: usize = self.spans.iter().map(|span| span.bytes as usize).sum();
        if total > TOTAL_LENGTH_MAX {
            return Err(QueueError::TooLong { bytes: total, room: TOTAL_LENGTH_MAX });
        }
        let room = (room as usize).min(INLINE_BYTES_MAX);
        let inline_bytes = match self.inline {
            InlinePolicy::Never => 0,
            InlinePolicy::Heads { bytes } => usize::from(bytes).min(room).min(total),
            InlinePolicy::WholeFrames if total <= room => total,
            InlinePolicy::WholeFrames => 0,
        };
        let mut inline = [0; INLINE_BYTES_MAX];
        let inline = inline.get_mut(..inline_bytes).unwrap_or(&mut []);
        let frame = self.frames_offset + packet.buffer.place as usize;
        take_inline(&mut self.spans, &self.pieces, memory, frame, self.frames_offset, inline)?;
        self.spans.retain(|span| span.bytes > 0);

        let count = self.spans.len().max(1);
        let most = self.abilities.chain_max.min(self.slots() as usize);
        if count > most {
            return Err(QueueError::ChainTooLong { descriptors: count, most });
        }
        if count > space as usize {
            return Ok(false);
        }

        let extent = TransmitExtent::new()
            .with_total_length(total as u32)
            .with_inline_bytes(inline_bytes as u8)
            .with_maximum_segment(segment);
        let mask = self.slots() - 1;
        let mut report = packet.report;
        for place in 0..count as u32 {
            let position = self.produced.wrapping_add(place);
            let slot = position & mask;
            let offset = (slot as usize) << self.stride_log2;
            let span = self.spans.get(place as usize).copied().unwrap_or_default();
            let end = place as usize + 1 == count;
            report |= slot & self.report_mask() == 0;
            let mut control =
                self.tagged(position).with_length(span.bytes as u16).with_end_of_packet(end).into_bits();
            if end && report {
                control |= REPORT;
            }
            let mut sent = Sent { cookie: 0, what: CONTINUES };
            if end {
                let buffer = &packet.buffer;
                let what = u64::from(buffer.place) | u64::from(buffer.chain) << 32;
                sent = Sent { cookie: packet.cookie, what };
            }
            if place == 0 {
                control |= how | packet.offload.control().into_bits();
                memory.write_words(offset, &[span.iova, control, security, extent.into_bits()])?;
                if let Some(key) = key {
                    key.put(memory, offset + TRANSMIT_BASE_BYTES as usize)?;
                    sent.what |= KEYED;
                }
                if let Some(cookie) = &cookie {
                    memory.write(offset + (TRANSMIT_BASE_BYTES + TRANSMIT_KEY_BYTES) as usize, cookie)?;
                }
                let behind = inline_offset(key.is_some(), cookie.is_some()) as usize;
                memory.write(offset + behind, inline)?;
            } else {
                memory.write_words(offset, &[span.iova, control, 0, 0])?;
            }
            self.last_control = control;
            self.special += u32::from(sent.is_special());
            if let Some(known) = self.sent.get_mut(slot as usize) {
                *known = sent;
            }
        }
        self.produced = self.produced.wrapping_add(count as u32);
        self.inline_bytes += inline_bytes as u64;
        self.chained_packets += u64::from(count > 1);
        if segment != 0 {
            self.extra_numbers += (total / usize::from(segment)) as u64;
        }
        Ok(true)
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
            let completed = TransmitCompleted::from_bits(completions.read_word(offset)?);
            let sequence = completions.read_word(offset + 8)?;
            let time_picoseconds = completions.read_word(offset + 16)?;
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

impl Abilities {
    /// Whether the device can do what a packet asks for.
    fn check(&self, packet: &TransmitPacket) -> Result<(), QueueError> {
        let (descriptor, protocol) = (self.descriptor, self.protocol);
        let psp = match &packet.protection {
            Protection::PspKey(psp) => Some(psp),
            _ => None,
        };
        let offload = packet.offload;
        for (able, name) in [
            (descriptor.segmentation() || offload.maximum_segment() == 0, "segmentation"),
            (descriptor.checksums() || !offload.asks_checksum(), "checksums on transmit"),
            (protocol.traffic_flow_confidentiality() || !offload.asks_dummy(), "dummy packets"),
            (protocol.psp_cookie() || psp.is_none_or(|psp| psp.cookie.is_none()), "PSP cookies"),
            (
                descriptor.psp_preformatted() || psp.is_none_or(|psp| !psp.preformatted),
                "pre-formatted PSP frames",
            ),
        ] {
            if !able {
                return Err(QueueError::Unsupported(name));
            }
        }
        Ok(())
    }
}

const TAG_ONE: u64 = 1 << 16;
const TOTAL_LENGTH_MAX: usize = (1 << 18) - 1;
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

/// The bits for the control word of a packet with a PSP key, and its security word.
fn psp_words(psp: &PspTransmit, key: &Key) -> Result<(u64, u64), QueueError> {
    if psp.crypt_offset > 63 {
        return Err(QueueError::Argument("a crypt offset has 6 bits"));
    }
    let own = psp.crypt_offset != 0 || psp.sample || psp.drop || psp.cookie.is_some();
    if psp.preformatted && own {
        return Err(QueueError::Argument("a pre-formatted frame has its own crypt offset, S, D and cookie"));
    }
    let (policy, port) = psp.source_port.policy();
    let control = TransmitControl::new()
        .with_security(Security::PspKey.number() as u8)
        .with_psp_version(key.version)
        .with_psp_crypt_offset(psp.crypt_offset)
        .with_psp_source_port_policy(policy.number() as u8)
        .with_psp_sample(psp.sample)
        .with_psp_drop(psp.drop)
        .with_psp_cookie(psp.cookie.is_some())
        .with_psp_preformatted(psp.preformatted);
    Ok((control.into_bits(), TransmitPsp::new().with_spi(key.spi).with_source_port(port).into_bits()))
}

/// A part of a frame in one place.
#[derive(Clone, Copy, Default)]
struct Span {
    iova: u64,
    bytes: u32,
    /// The piece it is of, as in [`TransmitBuffer`]; 0 for the packet's own buffer.
    piece: u32,
    /// Bytes of the piece before it.
    taken: u32,
}

fn collect_spans(spans: &mut Vec<Span>, pieces: &Pieces, buffer: &TransmitBuffer, frames_iova: u64) {
    let iova = |place: u32| frames_iova + u64::from(place);
    spans.clear();
    spans.push(Span { iova: iova(buffer.place), bytes: buffer.length, piece: 0, taken: 0 });
    for (number, piece) in pieces.of(buffer.chain) {
        let (iova, bytes) = match piece {
            Piece::Buffer { place, length } => (iova(*place), *length),
            Piece::Region(region) => (region.iova(), region.bytes() as u32),
            Piece::Free => (0, 0),
        };
        spans.push(Span { iova, bytes, piece: number, taken: 0 });
    }
}

/// Takes the frame's first bytes out of its spans.
fn take_inline(
    spans: &mut [Span],
    pieces: &Pieces,
    memory: &SharedMemory,
    own_frame: usize,
    frames_offset: usize,
    inline: &mut [u8],
) -> Result<(), OutOfBounds> {
    let mut rest = inline;
    for span in spans {
        if rest.is_empty() {
            break;
        }
        let step = rest.len().min(span.bytes as usize);
        let (part, behind) = std::mem::take(&mut rest).split_at_mut(step);
        let (source, start) = match pieces.get(span.piece) {
            Some(Piece::Region(region)) => region.source(),
            Some(Piece::Buffer { place, .. }) => (memory, frames_offset + *place as usize),
            _ => (memory, own_frame),
        };
        source.read(start + span.taken as usize, part)?;
        span.iova += step as u64;
        span.bytes -= step as u32;
        span.taken += step as u32;
        rest = behind;
    }
    Ok(())
}

/// What is attached to a buffer.
pub(crate) enum Piece {
    Free,
    Buffer { place: u32, length: u32 },
    Region(Region),
}

struct Node {
    piece: Piece,
    next: u32,
}

/// The attached pieces of all packets, in chains. A piece's number is its place and 1, so that 0 is none.
#[derive(Default)]
pub(crate) struct Pieces {
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// Registered memory whose packets have ended.
    pub(crate) reclaimed: Vec<Reclaimed>,
}

impl Pieces {
    /// Puts a piece at the end of a chain.
    pub(crate) fn append(&mut self, chain: &mut u32, piece: Piece) {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.nodes.push(Node { piece: Piece::Free, next: 0 });
                self.nodes.len() as u32
            }
        };
        if let Some(node) = self.nodes.get_mut(number as usize - 1) {
            *node = Node { piece, next: 0 };
        }
        let mut last = 0;
        for (number, _) in self.of(*chain) {
            last = number;
        }
        match (last as usize).checked_sub(1).and_then(|place| self.nodes.get_mut(place)) {
            Some(node) => node.next = number,
            None => *chain = number,
        }
    }

    fn get(&self, number: u32) -> Option<&Piece> {
        Some(&self.nodes.get((number as usize).checked_sub(1)?)?.piece)
    }

    /// The pieces of a chain, with their numbers.
    fn of(&self, chain: u32) -> impl Iterator<Item = (u32, &Piece)> {
        let mut number = chain;
        std::iter::from_fn(move || {
            let node = self.nodes.get((number as usize).checked_sub(1)?)?;
            let found = (number, &node.piece);
            number = node.next;
            Some(found)
        })
    }

    /// Frees the pieces of a chain: buffers into `free`, registered memory to be reclaimed.
    pub(crate) fn release(&mut self, chain: u32, cookie: Option<u64>, free: &mut Vec<u32>) {
        let mut number = chain;
        while let Some(node) = (number as usize).checked_sub(1).and_then(|place| self.nodes.get_mut(place)) {
            match std::mem::replace(&mut node.piece, Piece::Free) {
                Piece::Buffer { place, .. } => free.push(place),
                Piece::Region(region) => self.reclaimed.push(Reclaimed { cookie, region }),
                Piece::Free => {}
            }
            self.free.push(number);
            number = std::mem::take(&mut node.next);
        }
    }
}
