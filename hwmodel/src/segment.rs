//! Segmentation: one large TCP frame becomes many that fit, each protected by itself.
//!
//! Commit takes the segments one after another, each in a turn of its own. All of them are judged before the first is
//! committed: the longest and the shortest are laid out and not sealed. So either all leave or none does, but for an SA
//! that ends between two of them: each segment counts alone, those before the limit leave and the rest does not. One
//! completion tells of all, with the last number used.

use cryptonic_regs::Status;
use cryptonic_regs::descriptor::{TransmitControl, TransmitExtent};
use cryptonic_wire::segmentation::{NotSegmentable, Segmentation};
use cryptonic_wire::{l4_checksum, parse_transmit};

use crate::events::Pending;
use crate::gather::control_of;
use crate::nic::{Effect, Nic};
use crate::packet::{Packet, PacketPool};
use crate::transmit_commit::{Committed, Intent};

impl Nic {
    /// A frame that is to be cut is gathered.
    pub(crate) fn commit_segments(&mut self, pending: &Pending, pool: &mut PacketPool) -> Effect {
        // One large frame is in commit at a time, so it has one place to stand; it is put back below.
        let mut large = std::mem::take(&mut self.transmit.large);
        large.resize(pending.bytes as usize, 0);
        let cut = match self.read_frame(pending, &mut large) {
            Ok(()) => self.cut(pending, &large, pool),
            Err(_) => Err(Status::DmaFault),
        };
        let effect = match cut {
            Ok(cut) => self.send_segments(pending, &large, &cut, pool),
            Err(status) => self.refuse(pending, status, pool),
        };
        self.transmit.large = large;
        effect
    }

    /// How a frame is cut, if all of its segments can leave.
    fn cut(
        &mut self,
        pending: &Pending,
        large: &[u8],
        pool: &mut PacketPool,
    ) -> Result<Segmentation, Status> {
        let plain = parse_transmit(large).map_err(|_| Status::NotIp)?;
        let maximum_segment = TransmitExtent::from_bits(pending.words[3]).maximum_segment();
        let cut = Segmentation::new(large, &plain, maximum_segment).map_err(not_segmentable)?;
        let (control, at) = (control_of(pending), self.now);
        for index in [0, cut.segments() - 1] {
            let mut packet = self.segment(pending, large, &cut, index, pool)?;
            let possible = self.protect(&mut packet, pending, control, at, Intent::Ask);
            pool.give(packet);
            possible?;
        }
        Ok(cut)
    }

    /// Sends all segments; the last goes as a frame does, those before it stand in `sent`.
    fn send_segments(
        &mut self,
        pending: &Pending,
        large: &[u8],
        cut: &Segmentation,
        pool: &mut PacketPool,
    ) -> Effect {
        let control: TransmitControl = control_of(pending);
        let mut status = Status::Ok;
        let mut last = Committed::nothing(self.now);
        let (mut left_lanes, mut left) = (self.now, self.now);
        for index in 0..cut.segments() {
            let committed_at = self.commit_slot();
            let protected = self.segment(pending, large, cut, index, pool).and_then(|mut packet| {
                let committed = self.protect(&mut packet, pending, control, committed_at, Intent::Commit);
                committed.map(|committed| (packet, committed))
            });
            match protected {
                Ok((mut packet, committed)) => {
                    let departure = self.send(&mut packet, pending, control, &committed, committed_at);
                    (left_lanes, left) = (departure.left_lanes, departure.left);
                    self.transmit.sent.push_back((packet, departure.on_line));
                    last = committed;
                }
                // Each was judged, so it is the SA that has ended.
                Err(fault) => {
                    status = fault;
                    break;
                }
            }
        }
        self.count(status);
        if status != Status::Ok {
            self.note_refused(pending, status, pool);
        }
        self.transmit_done(pending, status, &last, left_lanes);
        self.release_gathered(pending, left);
        Effect::SentSegments
    }

    /// Makes one segment.
    fn segment(
        &self,
        pending: &Pending,
        large: &[u8],
        cut: &Segmentation,
        index: usize,
        pool: &mut PacketPool,
    ) -> Result<Box<Packet>, Status> {
        let fault = Status::BadSegmentation;
        let data = cut.data(index).and_then(|data| large.get(data.start..data.end)).ok_or(fault)?;
        let header = large.get(..cut.header_length()).ok_or(fault)?;
        let plain = cut.plain(index).ok_or(fault)?;
        let bytes = header.len() + data.len();
        if bytes as u64 > self.parameters.capacity.frame_bytes {
            return Err(Status::TooLong);
        }
        let mut packet = pool.take(self.frame_room(pending, control_of(pending), bytes));
        let frame = packet.place(bytes);
        let (header_place, data_place) = frame.split_at_mut(header.len());
        header_place.copy_from_slice(header);
        data_place.copy_from_slice(data);
        let made = cut.segment_header(index, header_place).is_ok()
            && l4_checksum::fill_l4_checksum(packet.frame_mut(), &plain);
        if made {
            Ok(packet)
        } else {
            pool.give(packet);
            Err(fault)
        }
    }
}

/// The status of a frame that cannot be cut.
fn not_segmentable(reason: NotSegmentable) -> Status {
    match reason {
        NotSegmentable::ZeroMss => Status::BadDescriptor,
        NotSegmentable::StaleParse => Status::NotIp,
        NotSegmentable::NotTcp
        | NotSegmentable::Fragment
        | NotSegmentable::NoPayload
        | NotSegmentable::TruncatedHeader
        | NotSegmentable::Flags => Status::BadSegmentation,
    }
}
