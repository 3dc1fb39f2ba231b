//! Transmit commit: the serial stage. For each packet it checks the slot, takes the sequence number or the
//! IV, and lays the packet out; behind it nothing can fail but a reset. What cannot be protected goes no
//! further: it is told to the host and never sent, least of all in clear.

use std::hash::Hasher;

use crate::Ticks;
use cryptonic_regs::completion::{TransmitCompleted, TransmitCompletion, TransmitCompletionEnd};
use cryptonic_regs::descriptor::{Security, TransmitControl, TransmitSa};
use cryptonic_regs::{Status, rows::Value};
use cryptonic_wire::{Plain, l4_checksum, parse_transmit};
use siphasher::sip::SipHasher13;

use crate::events::{HostWrite, Pending, TransmitReport};
use crate::gather::{control_of, is_segmented};
use crate::host_memory::DmaFault;
use crate::nic::{Effect, Nic};
use crate::packet::{Packet, PacketPool};
use crate::sa_parameters::Form;

/// What commit gave to a packet.
pub(crate) struct Committed {
    /// For how many blocks it takes a lane; `None` for a clear packet.
    pub(crate) blocks: Option<u64>,
    /// When the key is at hand.
    pub(crate) key_ready: Ticks,
    pub(crate) sequence: u64,
    pub(crate) sa_index: u32,
}

impl Committed {
    /// What a packet gets that takes no key.
    pub(crate) fn nothing(at: Ticks) -> Self {
        Committed { blocks: None, key_ready: at, sequence: 0, sa_index: 0 }
    }
}

/// What a packet is protected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// To be sent.
    Commit,
    /// To learn whether it could be sent. Nothing is used up and nothing sealed.
    Ask,
}

/// When a packet leaves the lanes, the buffer, and for the line.
pub(crate) struct Departure {
    pub(crate) left_lanes: Ticks,
    pub(crate) left: Ticks,
    pub(crate) on_line: Ticks,
}

impl Nic {
    /// A frame is gathered.
    pub(crate) fn transmit_commit(&mut self, pending: &Pending, pool: &mut PacketPool) -> Effect {
        let running = self.queue_epoch(pending.queue) == Some(pending.epoch);
        if !running {
            if pending.fault == Status::Ok {
                self.release_gathered(pending, self.now);
            }
            return Effect::None;
        }
        if pending.fault != Status::Ok {
            self.transmit_fault(pending, pending.fault);
            return Effect::None;
        }
        if is_segmented(pending) {
            return self.commit_segments(pending, pool);
        }
        let control = control_of(pending);
        let bytes = pending.bytes as usize;
        let mut packet = pool.take(self.frame_room(pending, control, bytes));
        if self.read_frame(pending, packet.place(bytes)).is_err() {
            pool.give(packet);
            return self.refuse(pending, Status::DmaFault, pool);
        }
        let committed_at = self.commit_slot();
        let protected = fill_checksums(packet.frame_mut(), control)
            .and_then(|()| self.protect(&mut packet, pending, control, committed_at, Intent::Commit));
        match protected {
            Ok(committed) => {
                let sent = self.send(&mut packet, pending, control, &committed, committed_at);
                self.count(Status::Ok);
                self.transmit_done(pending, Status::Ok, &committed, sent.left_lanes);
                self.release_gathered(pending, sent.left);
                Effect::Sent(packet, sent.on_line)
            }
            Err(status) => {
                pool.give(packet);
                self.refuse(pending, status, pool)
            }
        }
    }

    /// The next turn of the serial stage: when a packet that takes it has passed.
    pub(crate) fn commit_slot(&mut self) -> Ticks {
        let interval = self.cycle.times(self.parameters.pipeline.commit_interval_cycles);
        self.transmit.commit.serve(self.now, interval) + interval
    }

    /// A gathered frame goes no further.
    pub(crate) fn refuse(&mut self, pending: &Pending, status: Status, pool: &mut PacketPool) -> Effect {
        self.release_gathered(pending, self.now);
        self.note_refused(pending, status, pool);
        self.transmit_fault(pending, status);
        Effect::None
    }

    /// A gathered frame, or the rest of one that is cut, does not leave: counted, and perhaps captured, if it is of PSP.
    pub(crate) fn note_refused(&mut self, pending: &Pending, status: Status, pool: &mut PacketPool) {
        if status != Status::DmaFault && self.is_psp(pending) {
            self.counters.psp.transmitted_errors += 1;
            self.capture_refused(pending, status, pool);
        }
    }

    /// Whether a frame was to leave under PSP.
    fn is_psp(&self, pending: &Pending) -> bool {
        match Security::of_number(u32::from(control_of(pending).security())) {
            Some(Security::PspKey) => true,
            Some(Security::Sa) => {
                let reference = TransmitSa::of_bits(pending.words[2]);
                let slot = self.sa_table.slot(reference.index());
                slot.is_some_and(|sa| {
                    sa.generation == reference.generation() && matches!(sa.form, Form::Psp(_))
                })
            }
            Some(Security::Clear) | None => false,
        }
    }

    /// Reads a frame from host memory: inline bytes, then its pieces.
    #[inline]
    pub(crate) fn read_frame(&self, pending: &Pending, frame: &mut [u8]) -> Result<(), DmaFault> {
        let Some(parts) = pending.parts.and_then(|place| self.transmit.parts.at(place)) else {
            return self.memory.read(pending.words[0], frame);
        };
        let (inline, mut rest) = frame.split_at_mut_checked(parts.inline_bytes).ok_or(DmaFault)?;
        inline.copy_from_slice(parts.inline());
        for piece in &parts.pieces {
            let (bytes, behind) =
                std::mem::take(&mut rest).split_at_mut_checked(piece.bytes.into()).ok_or(DmaFault)?;
            self.memory.read(piece.address, bytes)?;
            rest = behind;
        }
        Ok(())
    }

    /// Checks, lays out and seals; gives a status and has consumed nothing if that cannot be.
    pub(crate) fn protect(
        &mut self,
        packet: &mut Packet,
        pending: &Pending,
        control: TransmitControl,
        committed_at: Ticks,
        intent: Intent,
    ) -> Result<Committed, Status> {
        match Security::of_number(u32::from(control.security())) {
            Some(Security::Sa) => self.protect_by_slot(packet, pending, control, committed_at, intent),
            Some(Security::PspKey) => self.protect_psp_by_key(packet, pending, control, committed_at, intent),
            Some(Security::Clear) => {
                let allowed = self.queues[usize::from(pending.queue)].control.transmit_clear_allowed();
                if !allowed {
                    return Err(Status::ClearNotAllowed);
                }
                Ok(Committed::nothing(committed_at))
            }
            None => Err(Status::BadDescriptor),
        }
    }

    /// A committed packet passes lanes, reorder, checksum and MAC.
    pub(crate) fn send(
        &mut self,
        packet: &mut Packet,
        pending: &Pending,
        control: TransmitControl,
        committed: &Committed,
        committed_at: Ticks,
    ) -> Departure {
        let stage = self.cycle.times(self.parameters.pipeline.stage_latency_cycles);
        let ready = (committed_at + stage).max(committed.key_ready);
        let left_lanes = match committed.blocks {
            Some(blocks) => self.transmit.lanes.pass(ready, blocks),
            None => self.transmit.lanes.bypass(ready),
        };
        let sa = TransmitSa::of_bits(pending.words[2]);
        if control.security() == Security::Sa.number() as u8
            && let Some(sa) = self.sa_table.usable(sa.index(), sa.generation())
        {
            sa.busy_until = sa.busy_until.max(left_lanes);
        }
        let beats = packet.bytes().div_ceil(self.parameters.pipeline.bus_bytes);
        let span = self.cycle.times(beats);
        let on_bus = self.transmit.bus.serve(left_lanes + stage, span) + span;
        let sent = self.transmit.mac.send(on_bus, packet);
        self.counters.transmitted_frames += 1;
        self.counters.transmitted_bytes += packet.bytes() + crate::mac::FCS_BYTES;
        packet.accepted_at = pending.accepted_at;
        Departure { left_lanes, left: sent.left, on_line: sent.on_line }
    }

    pub(crate) fn transmit_fault(&mut self, pending: &Pending, status: Status) {
        if !pending.follows_fault {
            self.count(status);
        }
        self.transmit_done(pending, status, &Committed::nothing(self.now), self.now);
    }

    /// The fate of a frame is known: tells the host if it asked, or if the frame did not go well.
    pub(crate) fn transmit_done(
        &mut self,
        pending: &Pending,
        status: Status,
        committed: &Committed,
        at: Ticks,
    ) {
        let pair = &mut self.queues[usize::from(pending.queue)];
        pair.transmit.consumer = pair.transmit.consumer.wrapping_add(pending.descriptors.into());
        // A host that never asks for a report may send more than the field can count.
        pair.unreported = pair.unreported.saturating_add(pending.descriptors);
        if status == Status::Ok && !pending.last.report() {
            return;
        }
        let at = at.max(self.transmit.last_report);
        self.transmit.last_report = at;
        let completion = TransmitCompletion {
            completed: TransmitCompleted::new()
                .with_descriptors(std::mem::take(&mut pair.unreported))
                .with_tag(pending.last.tag())
                .with_tag_generation(pending.last.tag_generation())
                .with_sa_index(committed.sa_index),
            sequence: committed.sequence,
            time_picoseconds: self.picoseconds(at),
            end: TransmitCompletionEnd::new().with_status(status.number() as u16),
        };
        self.events.seldom.change(|queues| {
            queues.transmit_reports.push(
                at,
                TransmitReport { queue: pending.queue, epoch: pending.epoch, words: completion.to_words() },
            )
        });
    }

    /// Writes a transmit completion.
    pub(crate) fn write_transmit_report(&mut self, report: &TransmitReport) {
        if self.queue_epoch(report.queue) != Some(report.epoch) {
            return;
        }
        let pair = &mut self.queues[usize::from(report.queue)];
        let (completion, phase) = pair.transmit_completions.next();
        let mut words = report.words;
        words[3] = TransmitCompletionEnd::from_bits(words[3]).with_phase(phase).into_bits();
        if self.memory.writable(completion, 32).is_err() {
            self.quarantine(report.queue, Status::RingDmaFault);
            return;
        }
        let written = self.pcie.write(self.now, 32);
        self.events.host_writes.push(
            written.visible,
            HostWrite::Transmit { queue: report.queue, epoch: report.epoch, completion, words },
        );
    }
}

/// Writes the checksums that a descriptor asks for.
#[inline]
fn fill_checksums(frame: &mut [u8], control: TransmitControl) -> Result<(), Status> {
    if !control.ip_checksum() && !control.l4_checksum() {
        return Ok(());
    }
    let plain = parse_transmit(frame).map_err(|_| Status::NotIp)?;
    // A checksum that the frame has no place for is a mistake of the descriptor's.
    if control.ip_checksum() && !l4_checksum::fill_ipv4_checksum(frame, &plain)
        || control.l4_checksum() && !l4_checksum::fill_l4_checksum(frame, &plain)
    {
        return Err(Status::BadDescriptor);
    }
    Ok(())
}

/// Keyed hash of a flow: the UDP source port tells nothing of the inner ports to who does not have the key.
pub(crate) fn flow_hash(key: (u64, u64), plain: &Plain) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write(&plain.source);
    hasher.write(&plain.destination);
    let ports = plain.ports.map_or(0, |ports| u32::from(ports.source) << 16 | u32::from(ports.destination));
    hasher.write_u64(u64::from(plain.next_header) << 32 | u64::from(ports));
    hasher.finish()
}
