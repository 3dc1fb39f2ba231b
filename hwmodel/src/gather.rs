//! Gather: reads each frame whole into the transmit buffer (store and forward), in the order of the frames, one read a
//! cycle, as far as the buffer has room.
//!
//! Room for all of a frame is taken before its first read. A frame in several pieces is a read each, in order; what stands in
//! the descriptor is here already, and a frame that is inline altogether needs no read. A frame that is to be cut
//! into segments stands in a buffer of its own.

use crate::Ticks;
use cryptonic_regs::Status;
use cryptonic_regs::descriptor::{TransmitControl, TransmitExtent};

use crate::calendar::{Full, Store};
use crate::events::Pending;
use crate::nic::Nic;

/// What a packet may grow by under protection: outer IPv6 header, UDP, PSP or ESP, trailer and ICV.
const GROWTH_BYTES: u64 = 128;
/// Most bytes of a frame that is cut into segments: the longest IP packet behind Ethernet and a VLAN tag.
const SEGMENTED_BYTES_MAX: u64 = 65_535 + 14 + 4;

impl Nic {
    /// Asks for the frames at hand.
    pub(crate) fn gather(&mut self) {
        while let Some(pending) = self.transmit.pending.pop_front() {
            if self.queue_epoch(pending.queue) != Some(pending.epoch) {
                self.end_frame(pending);
                continue;
            }
            let gathered =
                if pending.fault == Status::Ok { self.gather_frame(&pending) } else { Ok(self.now) };
            let done = match gathered {
                Ok(done) => done,
                Err(full) => {
                    self.transmit.pending.push_front(pending);
                    // A frame on its way of which it is not known when it leaves will call again.
                    if let Full::Until(time) = full {
                        self.retry_gather(time);
                    }
                    break;
                }
            };
            if let Some(prefetched) = self.transmit.prefetched.get_mut(usize::from(pending.queue)) {
                *prefetched = prefetched.saturating_sub(1);
            }
            // What needs no read waits for what its queue pair sent before.
            let pair = &mut self.queues[usize::from(pending.queue)];
            pair.gathered_until = pair.gathered_until.max(done);
            self.events.gathered.push(pair.gathered_until, pending);
        }
        self.fetch_transmit();
    }

    /// Takes room for a frame and asks for its pieces. Gives when all of it is here.
    #[inline]
    fn gather_frame(&mut self, pending: &Pending) -> Result<Ticks, Full> {
        let Some(parts) = pending.parts else {
            let bytes = u64::from(pending.bytes);
            self.take_room(pending, self.pcie.tags_of(bytes), bytes)?;
            return Ok(self.gather_piece(pending, bytes, true));
        };
        let (mut pieces, mut tags, mut bytes) = (0, 0, 0);
        let mut inline = false;
        if let Some(parts) = self.transmit.parts.at(parts) {
            pieces = parts.pieces.len();
            inline = parts.inline_bytes != 0;
            for piece in &parts.pieces {
                tags += self.pcie.tags_of(piece.bytes.into());
                bytes += u64::from(piece.bytes);
            }
        }
        self.take_room(pending, tags, bytes)?;
        let mut done = self.now;
        if inline {
            self.first_byte(pending, self.now);
        }
        for index in 0..pieces {
            let piece = self.transmit.parts.at(parts).and_then(|parts| parts.pieces.get(index).copied());
            if let Some(piece) = piece {
                done = self.gather_piece(pending, piece.bytes.into(), !inline && index == 0);
            }
        }
        Ok(done)
    }

    /// Takes what a frame needs of the buffer, if its reads may begin.
    #[inline(always)]
    fn take_room(&mut self, pending: &Pending, tags: u64, bytes: u64) -> Result<(), Full> {
        if tags != 0 {
            self.pcie.packet_read_allowed(self.now, tags, bytes).map_err(Full::Until)?;
        }
        let now = self.now;
        self.buffer_of(pending).take(now, u64::from(pending.bytes) + GROWTH_BYTES)
    }

    #[inline(always)]
    fn gather_piece(&mut self, pending: &Pending, bytes: u64, first: bool) -> Ticks {
        let start = self.transmit.gather.serve(self.now, self.cycle);
        let arrival = self.pcie.read_later(self.now, start, bytes);
        if first {
            self.first_byte(pending, arrival.first);
        }
        arrival.done
    }

    /// The first byte of a frame is in the NIC at `time`.
    #[inline]
    fn first_byte(&mut self, pending: &Pending, time: Ticks) {
        self.transmit.first_bytes.add(time.since(pending.issued_at));
    }

    fn retry_gather(&mut self, time: Ticks) {
        if self.events.seldom.queues().gather_retry.is_empty() {
            self.events.seldom.change(|queues| queues.gather_retry.push(time, ()));
        }
    }

    /// Gives the buffer's bytes of a frame back at `left`.
    pub(crate) fn release_gathered(&mut self, pending: &Pending, left: Ticks) {
        self.buffer_of(pending).release(left, u64::from(pending.bytes) + GROWTH_BYTES);
        // A retry comes when the first of what is missing is back; what is given back now comes later.
        if !self.transmit.pending.is_empty() && self.events.seldom.queues().gather_retry.is_empty() {
            self.gather();
        }
    }

    #[inline]
    fn buffer_of(&mut self, pending: &Pending) -> &mut Store {
        if is_segmented(pending) { &mut self.transmit.segment_buffer } else { &mut self.transmit.buffer }
    }

    /// Most bytes of a frame that is cut into segments, as the device says them.
    pub(crate) fn segmented_bytes_max(&self) -> u64 {
        SEGMENTED_BYTES_MAX.min(self.parameters.mac.segment_buffer_bytes.saturating_sub(GROWTH_BYTES))
    }
}

/// Whether a frame is cut into segments.
#[inline]
pub(crate) fn is_segmented(pending: &Pending) -> bool {
    TransmitExtent::from_bits(pending.words[3]).maximum_segment() != 0
}

/// The control word of a frame's first descriptor.
#[inline]
pub(crate) fn control_of(pending: &Pending) -> TransmitControl {
    TransmitControl::from(pending.words[1])
}
