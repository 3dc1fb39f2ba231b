//! From descriptors to frames: each descriptor is checked and joined to its frame, which goes to gathering when its
//! last descriptor is here.
//!
//! A frame's fault does not end it: its other descriptors are taken up to the one with `end_of_packet`, so that none
//! of them is taken for the first of another frame.

use crate::Ticks;
use cryptonic_regs::Status;
use cryptonic_regs::descriptor::{
    Security, TRANSMIT_COOKIE_BYTES, TRANSMIT_KEY_BYTES, TransmitControl, TransmitDescriptor, TransmitExtent,
    TransmitPsp, TransmitSa, inline_offset, inline_room,
};
use cryptonic_regs::rows::{Field, Value};

use crate::events::Pending;
use crate::frame_parts::Piece;
use crate::nic::Nic;
use crate::queue::{Announced, Assembly, QueuePair};

/// Where the words of a descriptor are read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// The ring, at this IOVA.
    Memory(u64),
    /// A push window of the queue pair.
    Pushed(usize),
}

/// Words of a slot before the key.
const BASE_WORDS: usize = 4;
/// What a descriptor that continues a frame may hold in its control word.
const CONTINUATION_CONTROL: TransmitControl = TransmitControl::new()
    .with_length(u16::MAX)
    .with_tag(u16::MAX)
    .with_tag_generation(u8::MAX)
    .with_report(true)
    .with_end_of_packet(true);
/// What only PSP knows in a control word.
const PSP_CONTROL: TransmitControl = TransmitControl::new()
    .with_psp_version(0xf)
    .with_psp_crypt_offset(0x3f)
    .with_psp_source_port_policy(3)
    .with_psp_sample(true)
    .with_psp_drop(true)
    .with_psp_preformatted(true);
/// What a frame's one descriptor that an SA protects says in its control word as a rule, besides [`USUAL_SECURITY`].
const USUAL_CONTROL: TransmitControl = TransmitControl::new()
    .with_length(u16::MAX)
    .with_tag(u16::MAX)
    .with_tag_generation(u8::MAX)
    .with_report(true)
    .with_ip_checksum(true)
    .with_l4_checksum(true);
const USUAL_SECURITY: TransmitControl =
    TransmitControl::new().with_security(Security::Sa.number() as u8).with_end_of_packet(true);
/// What the ring ignores in an extent word.
const PRODUCER: TransmitExtent = TransmitExtent::new().with_producer(u16::MAX);

/// The bits of the reserved fields of a word.
const fn reserved(fields: &[Field]) -> u64 {
    let (mut mask, mut position, mut rest) = (0, 0, fields);
    while let [field, tail @ ..] = rest {
        if field.reserved() {
            mask |= (u64::MAX >> (u64::BITS - field.bits as u32)) << position;
        }
        position += field.bits as u32;
        rest = tail;
    }
    mask
}

const CONTROL_RESERVED: u64 = reserved(<TransmitControl as Value>::FIELDS);
const EXTENT_RESERVED: u64 = reserved(<TransmitExtent as Value>::FIELDS);
const SA_RESERVED: u64 = reserved(<TransmitSa as Value>::FIELDS);
const PSP_RESERVED: u64 = reserved(<TransmitPsp as Value>::FIELDS);

impl Nic {
    /// Takes the transmit descriptor of `index`. A slot that cannot be read is the ring's fault.
    #[inline]
    pub(crate) fn take_descriptor(&mut self, queue: u16, index: u32, slot: Slot) -> Result<(), Status> {
        let mut words = [0; BASE_WORDS];
        self.read_base(queue, slot, &mut words)?;
        let announced = self.queues[usize::from(queue)].announced(index);
        let control = TransmitControl::from(words[1]);
        if self.queues[usize::from(queue)].assembly.is_none() && self.is_usual(&words) {
            let epoch = self.queues[usize::from(queue)].epoch;
            let frame = self.transmit.frames.take(Pending {
                queue,
                descriptors: 1,
                epoch,
                words,
                last: control,
                bytes: control.length().into(),
                key: None,
                parts: None,
                accepted_at: announced.accepted_at,
                issued_at: announced.issued_at,
                fault: Status::Ok,
                follows_fault: false,
            });
            self.transmit.pending.push_back(frame);
            return Ok(());
        }
        self.take_closely(queue, slot, words, announced)
    }

    /// Joins a descriptor to its frame.
    // On its own, so that most descriptors do not pay for it.
    #[inline(never)]
    fn take_closely(
        &mut self,
        queue: u16,
        slot: Slot,
        words: [u64; BASE_WORDS],
        announced: Announced,
    ) -> Result<(), Status> {
        let control = TransmitControl::from(words[1]);
        let mut assembly = match self.queues[usize::from(queue)].assembly.take() {
            Some(assembly) => self.continue_frame(assembly, &words),
            None => self.begin_frame(queue, slot, &words)?,
        };
        let frame = &mut assembly.frame;
        frame.descriptors += 1;
        frame.last = control.with_report(control.report() | frame.last.report());
        if control.end_of_packet() {
            frame.accepted_at = announced.accepted_at;
            frame.issued_at = announced.issued_at;
            if frame.fault == Status::Ok {
                frame.fault = self.check_whole(frame, assembly.bytes);
            }
            self.transmit.pending.push_back(assembly.frame);
            return Ok(());
        }
        // Behind its arrival a descriptor of a chain stands with its frame, and leaves its place in prefetch.
        let prefetched = &mut self.transmit.prefetched[usize::from(queue)];
        *prefetched = prefetched.saturating_sub(1);
        if u64::from(frame.descriptors) >= self.parameters.descriptors.transmit_chain {
            // Too long in any case: told now, so that a ring gets its slots back before the frame's end.
            frame.fault = Status::ChainTooLong;
            let told = **frame;
            self.transmit.prefetched[usize::from(queue)] += 1;
            assembly.discarded = true;
            let rest = self.transmit.frames.take(Pending {
                descriptors: 0,
                words: [0; BASE_WORDS],
                last: TransmitControl::new(),
                key: None,
                parts: None,
                follows_fault: true,
                ..told
            });
            self.transmit.pending.push_back(std::mem::replace(&mut assembly.frame, rest));
        }
        self.queues[usize::from(queue)].assembly = Some(assembly);
        Ok(())
    }

    /// Whether a first descriptor is a frame by itself, for an SA to protect, and good: most are, and need not be looked at
    /// closely.
    #[inline]
    fn is_usual(&self, words: &[u64; BASE_WORDS]) -> bool {
        let [_, control, security, extent] = *words;
        let length = u64::from(TransmitControl::from(control).length());
        control & !USUAL_CONTROL.into_bits() == USUAL_SECURITY.into_bits()
            && security & SA_RESERVED == 0
            && extent == length
            && length != 0
            && length <= self.parameters.capacity.frame_bytes
    }

    /// The first descriptor of a frame.
    #[inline]
    fn begin_frame(&mut self, queue: u16, slot: Slot, words: &[u64; BASE_WORDS]) -> Result<Assembly, Status> {
        let TransmitDescriptor { address, control, extent, .. } = TransmitDescriptor::of_words(words);
        let pair = &self.queues[usize::from(queue)];
        let epoch = pair.epoch;
        let fault = check_first(words, pair.transmit.stride);
        let (mut key, mut parts) = (None, None);
        if fault == Status::Ok && control.security() == Security::PspKey.number() as u8 {
            key = Some(self.read_key(queue, slot, control.psp_cookie())?);
        }
        let inline_bytes = usize::from(extent.inline_bytes());
        let whole = control.end_of_packet() && inline_bytes == 0;
        if fault == Status::Ok && !whole {
            let place = self.transmit.parts.take();
            if let Err(cause) = self.read_inline(queue, slot, place, control, inline_bytes) {
                self.transmit.parts.give(Some(place));
                self.end_descriptor_key(key);
                return Err(cause);
            }
            if control.length() != 0
                && let Some(parts) = self.transmit.parts.at_mut(place)
            {
                parts.pieces.push(Piece { address, bytes: control.length() });
            }
            parts = Some(place);
        }
        let frame = self.transmit.frames.take(Pending {
            queue,
            descriptors: 0,
            epoch,
            words: *words,
            last: TransmitControl::new(),
            bytes: extent.total_length(),
            key,
            parts,
            accepted_at: Ticks::ZERO,
            issued_at: Ticks::ZERO,
            fault,
            follows_fault: false,
        });
        Ok(Assembly { frame, bytes: inline_bytes as u64 + u64::from(control.length()), discarded: false })
    }

    /// A further descriptor of a frame.
    fn continue_frame(&mut self, mut assembly: Assembly, words: &[u64; BASE_WORDS]) -> Assembly {
        let control = TransmitControl::from(words[1]);
        if assembly.discarded {
            return assembly;
        }
        let frame = &mut assembly.frame;
        if frame.fault == Status::Ok {
            frame.fault = check_continuation(words);
        }
        assembly.bytes += u64::from(control.length());
        if frame.fault == Status::Ok
            && let Some(parts) = frame.parts.and_then(|place| self.transmit.parts.at_mut(place))
        {
            parts.pieces.push(Piece { address: words[0], bytes: control.length() });
        }
        assembly
    }

    /// What is wrong with a frame whose descriptors are good one by one.
    #[inline]
    fn check_whole(&self, frame: &Pending, bytes: u64) -> Status {
        let segmented = TransmitExtent::from_bits(frame.words[3]).maximum_segment() != 0;
        let most = if segmented { self.segmented_bytes_max() } else { self.parameters.capacity.frame_bytes };
        if bytes != u64::from(frame.bytes) {
            Status::LengthMismatch
        } else if bytes > most {
            Status::TooLong
        } else {
            Status::Ok
        }
    }

    /// A frame has ended, however: it and what it held besides its descriptors is given back, keys wiped.
    #[inline]
    pub(crate) fn end_frame(&mut self, frame: Box<Pending>) {
        self.end_descriptor_key(frame.key);
        self.transmit.parts.give(frame.parts);
        self.transmit.frames.give(frame);
    }

    /// Copies the key of a slot, and its cookie, to where they can be wiped.
    fn read_key(&mut self, queue: u16, slot: Slot, with_cookie: bool) -> Result<u32, Status> {
        let count = (TRANSMIT_KEY_BYTES + if with_cookie { TRANSMIT_COOKIE_BYTES } else { 0 }) as usize / 8;
        let place = self.transmit.keys.take();
        let read = match (self.transmit.keys.words(place).and_then(|words| words.get_mut(..count)), slot) {
            (None, _) => Err(Status::RingDmaFault),
            (Some(words), Slot::Memory(address)) => (address + 8 * BASE_WORDS as u64..)
                .step_by(8)
                .zip(words)
                .try_for_each(|(address, word)| self.memory.read_words(address, std::array::from_mut(word)))
                .map_err(|_| Status::RingDmaFault),
            (Some(words), Slot::Pushed(window)) => {
                copy_pushed(self.queues.get(usize::from(queue)), window, BASE_WORDS, words)
            }
        };
        if read.is_err() {
            self.end_descriptor_key(Some(place));
        }
        read.map(|()| place)
    }

    /// Copies the inline bytes of a slot to a place for parts, which has nothing else then.
    fn read_inline(
        &mut self,
        queue: u16,
        slot: Slot,
        place: u32,
        control: TransmitControl,
        inline_bytes: usize,
    ) -> Result<(), Status> {
        let with_key = control.security() == Security::PspKey.number() as u8;
        let offset = inline_offset(with_key, control.psp_cookie());
        let Some(parts) = self.transmit.parts.at_mut(place) else { return Err(Status::RingDmaFault) };
        parts.clear();
        let inline = parts.inline.get_mut(..inline_bytes).ok_or(Status::RingDmaFault)?;
        match slot {
            Slot::Memory(address) => {
                self.memory.read(address + u64::from(offset), inline).map_err(|_| Status::RingDmaFault)?;
            }
            Slot::Pushed(window) => {
                for (index, chunk) in inline.chunks_mut(8).enumerate() {
                    let mut word = [0];
                    let from = offset as usize / 8 + index;
                    copy_pushed(self.queues.get(usize::from(queue)), window, from, &mut word)?;
                    chunk.copy_from_slice(&word[0].to_le_bytes()[..chunk.len()]);
                }
            }
        }
        parts.inline_bytes = inline_bytes;
        Ok(())
    }

    /// Reads the words that every slot begins with.
    #[inline]
    fn read_base(&self, queue: u16, slot: Slot, words: &mut [u64; BASE_WORDS]) -> Result<(), Status> {
        match slot {
            Slot::Memory(address) => self.memory.read_words(address, words).map_err(|_| Status::RingDmaFault),
            Slot::Pushed(window) => copy_pushed(self.queues.get(usize::from(queue)), window, 0, words),
        }
    }
}

/// Copies words out of a push window.
fn copy_pushed(
    pair: Option<&QueuePair>,
    window: usize,
    from: usize,
    words: &mut [u64],
) -> Result<(), Status> {
    let pushed = pair.and_then(|pair| pair.windows.get(window)).ok_or(Status::RingDmaFault)?;
    let source = pushed.words().get(from..from + words.len()).ok_or(Status::RingDmaFault)?;
    words.copy_from_slice(source);
    Ok(())
}

/// What is wrong with the first descriptor of a frame, or `Ok`.
#[inline]
fn check_first(words: &[u64; BASE_WORDS], stride: u32) -> Status {
    let TransmitDescriptor { control, security, extent, .. } = TransmitDescriptor::of_words(words);
    let psp_bits = control.into_bits() & PSP_CONTROL.into_bits();
    let consistent = match Security::of_number(u32::from(control.security())) {
        // What names a key and is to leave in clear is a mistake of somebody's.
        Some(Security::Clear) => security == 0 && psp_bits == 0 && !control.esp_dummy(),
        Some(Security::Sa) => security & SA_RESERVED == 0,
        Some(Security::PspKey) => security & PSP_RESERVED == 0 && !control.esp_dummy(),
        None => false,
    };
    let with_key = control.security() == Security::PspKey.number() as u8;
    let room = inline_room(stride, with_key, control.psp_cookie());
    let fits = room.is_some_and(|room| u32::from(extent.inline_bytes()) <= room);
    let reserved = control.into_bits() & CONTROL_RESERVED | extent.into_bits() & EXTENT_RESERVED;
    let cookie = !control.psp_cookie() || with_key;
    // Segments have headers of their own; what the host formatted itself, and a dummy, cannot be cut.
    let whole = extent.maximum_segment() == 0 || !control.psp_preformatted() && !control.esp_dummy();
    let empty = control.length() == 0 && extent.inline_bytes() == 0 || extent.total_length() == 0;
    if consistent && fits && reserved == 0 && cookie && whole && !empty {
        Status::Ok
    } else {
        Status::BadDescriptor
    }
}

/// What is wrong with a descriptor that continues a frame, or `Ok`.
fn check_continuation(words: &[u64; BASE_WORDS]) -> Status {
    let [_, control, security, extent] = *words;
    let plain = control & !CONTINUATION_CONTROL.into_bits() == 0
        && security == 0
        && extent & !PRODUCER.into_bits() == 0
        && TransmitControl::from(control).length() != 0;
    if plain { Status::Ok } else { Status::BadDescriptor }
}
