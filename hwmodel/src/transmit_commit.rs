//! Transmit commit: the serial stage. For each packet it checks the slot, takes the sequence number or the
//! IV, and lays the packet out; behind it nothing can fail but a reset. What cannot be protected goes no
//! further: it is told to the host and never sent, least of all in clear.

use std::hash::Hasher;

use cryptonic_crypto::Cipher;
use cryptonic_pci::Time;
use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_regs::completion::{TransmitCompleted, TransmitCompletion, TransmitCompletionEnd};
use cryptonic_regs::descriptor::{Security, SourcePortPolicy, TransmitControl, TransmitPsp, TransmitSa};
use cryptonic_regs::{Status, rows::Value};
use cryptonic_wire::outer::PerPacket;
use cryptonic_wire::packet::Ports;
use cryptonic_wire::psp::{self, SourcePort, Version};
use cryptonic_wire::{Geometry, Plain, Refused, esp_transform, l4_checksum, parse_transmit, psp_transform};
use siphasher::sip::SipHasher13;
use zeroize::Zeroizing;

use crate::events::{HostWrite, Pending, TransmitReport};
use crate::gather::{control_of, is_segmented};
use crate::host_memory::DmaFault;
use crate::nic::{Effect, Nic};
use crate::packet::{Packet, PacketPool};

/// What commit gave to a packet.
pub(crate) struct Committed {
    /// Where the lanes worked, and whether the key was fresh; `None` for a clear packet.
    pub(crate) geometry: Option<(Geometry, bool)>,
    /// When the key is at hand.
    pub(crate) key_ready: Time,
    pub(crate) sequence: u64,
    pub(crate) sa_index: u32,
}

impl Committed {
    /// What a packet gets that takes no key.
    pub(crate) fn nothing(at: Time) -> Self {
        Committed { geometry: None, key_ready: at, sequence: 0, sa_index: 0 }
    }
}

/// What a packet is protected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// To be sent.
    Commit,
    /// To learn whether so many packets like it could be sent one after another. Nothing is used up and nothing sealed.
    Ask(u64),
}

impl Intent {
    /// Numbers that must be left.
    fn packets(self) -> u64 {
        match self {
            Intent::Commit => 1,
            Intent::Ask(packets) => packets,
        }
    }
}

/// When a packet leaves the lanes, the buffer, and for the line.
pub(crate) struct Departure {
    pub(crate) left_lanes: Time,
    pub(crate) left: Time,
    pub(crate) on_line: Time,
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
        let mut packet = pool.take(bytes);
        if self.read_frame(pending, packet.place(bytes)).is_err() {
            pool.give(packet);
            return self.refuse(pending, Status::DmaFault);
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
                self.refuse(pending, status)
            }
        }
    }

    /// The next turn of the serial stage: when a packet that takes it has passed.
    pub(crate) fn commit_slot(&mut self) -> Time {
        let interval = self.cycle.times(self.parameters.pipeline.commit_interval_cycles);
        self.transmit.commit.serve(self.now, interval) + interval
    }

    /// A gathered frame goes no further.
    pub(crate) fn refuse(&mut self, pending: &Pending, status: Status) -> Effect {
        self.release_gathered(pending, self.now);
        if status != Status::DmaFault && control_of(pending).security() == Security::PspKey.number() as u8 {
            self.counters.psp.transmitted_errors += 1;
        }
        self.transmit_fault(pending, status);
        Effect::None
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
        committed_at: Time,
        intent: Intent,
    ) -> Result<Committed, Status> {
        match Security::of_number(u32::from(control.security())) {
            Some(Security::Sa) => {
                self.protect_esp(packet, TransmitSa::of_bits(pending.words[2]), committed_at, intent)
            }
            Some(Security::PspKey) => self.protect_psp(packet, pending, control, committed_at, intent),
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

    fn protect_esp(
        &mut self,
        packet: &mut Packet,
        reference: TransmitSa,
        committed_at: Time,
        intent: Intent,
    ) -> Result<Committed, Status> {
        let sa = self.sa_table.usable(reference.index(), reference.generation()).ok_or(Status::StaleSa)?;
        if sa.direction != Direction::Out {
            return Err(Status::WrongDirection);
        }
        // Without ESN the last number is 2^32 - 1 (RFC 4303 3.3.3); with it, 2^64 - 1.
        let last = if sa.esp.extended_sequence { u64::MAX } else { u64::from(u32::MAX) };
        if last - sa.sequence.min(last) < intent.packets() {
            return Err(Status::SequenceExhausted);
        }
        let sequence = sa.sequence + 1;
        let plain = parse_transmit(packet.frame()).map_err(|_| Status::NotIp)?;
        let identification = self.transmit.identification.wrapping_add(1);
        let clear_bytes = (plain.l3_end - plain.l3_offset) as u64;
        let geometry = packet.with_room(|room| match sa.mode {
            Mode::Tunnel => {
                let per_packet = PerPacket::new(identification);
                esp_transform::encapsulate_tunnel(room, &plain, &sa.esp, sequence, &sa.outer, per_packet)
            }
            Mode::Transport | Mode::Beet => {
                esp_transform::encapsulate_transport(room, &plain, &sa.esp, sequence)
            }
        });
        let geometry = geometry.map_err(refusal)?;
        if intent != Intent::Commit {
            return Ok(Committed::nothing(committed_at));
        }
        // Committed: from here on the number is used up.
        sa.sequence = sequence;
        sa.packets += 1;
        sa.bytes += clear_bytes;
        self.transmit.identification = identification;
        geometry.seal(&sa.key, packet.frame_mut()).map_err(|_| Status::TooLong)?;
        let key_ready = self.context_cache.fetch(committed_at, reference.index());
        Ok(Committed { geometry: Some((geometry, false)), key_ready, sequence, sa_index: reference.index() })
    }

    fn protect_psp(
        &mut self,
        packet: &mut Packet,
        pending: &Pending,
        control: TransmitControl,
        committed_at: Time,
        intent: Intent,
    ) -> Result<Committed, Status> {
        let words = TransmitPsp::of_bits(pending.words[2]);
        let version = match Version::from_code(control.psp_version()) {
            Some(version @ (Version::AesGcm128 | Version::AesGcm256)) => version,
            _ => return Err(Status::BadPspKey),
        };
        if words.spi() << 1 == 0 {
            return Err(Status::BadPspKey);
        }
        let policy = match SourcePortPolicy::of_number(u32::from(control.psp_source_port_policy())) {
            Some(SourcePortPolicy::Entropy) => SourcePort::Entropy,
            Some(SourcePortPolicy::PortsXor) => SourcePort::PortsXor,
            Some(SourcePortPolicy::Fixed) => SourcePort::Fixed(words.source_port()),
            // The table's entry is found by the hash of the flow, below.
            Some(SourcePortPolicy::Table) => SourcePort::Fixed(0),
            None => return Err(Status::BadDescriptor),
        };
        let by_table = control.psp_source_port_policy() == SourcePortPolicy::Table.number() as u8;
        let mut key = Zeroizing::new([0_u8; 32]);
        let words_of_key =
            pending.key.and_then(|key| self.transmit.keys.words(key)).ok_or(Status::BadPspKey)?;
        for (bytes, word) in key.chunks_exact_mut(8).zip(words_of_key.iter()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let cookie = control.psp_cookie().then_some(words_of_key[4].to_le_bytes());
        let cipher = if version == Version::AesGcm128 { Cipher::AesGcm128 } else { Cipher::AesGcm256 };
        let tail_is_zero = key[cipher.key_length()..].iter().all(|byte| *byte == 0);
        if !tail_is_zero {
            return Err(Status::BadPspKey);
        }
        let plain = parse_transmit(packet.frame()).map_err(|_| Status::NotIp)?;
        let parameters = psp::Parameters {
            crypt_offset: control.psp_crypt_offset(),
            sample: control.psp_sample(),
            drop: control.psp_drop(),
            virtualization_cookie: cookie,
            ..psp::Parameters::new(words.spi(), version)
        };
        let hashed = by_table || policy == SourcePort::Entropy;
        let hash = if hashed { flow_hash(self.flow_key, &plain) } else { 0 };
        let policy = if by_table { SourcePort::Fixed(self.psp_source_ports.port(hash)) } else { policy };
        let ports = Ports { source: policy.port(&plain, hash), destination: self.psp_control.udp_port() };
        let iv = self.keys.peek_iv(committed_at).ok_or(Status::SequenceExhausted)?;
        let geometry = packet
            .with_room(|room| psp_transform::encapsulate_transport(room, &plain, &parameters, iv, ports))
            .map_err(refusal)?;
        if intent != Intent::Commit {
            iv.checked_add(intent.packets()).ok_or(Status::SequenceExhausted)?;
            return Ok(Committed::nothing(committed_at));
        }
        let key = self.transmit.key_schedules.get(cipher, &key).ok_or(Status::BadPspKey)?;
        // Committed: from here on the IV is used up.
        self.keys.use_iv(iv);
        geometry.seal(key, packet.frame_mut()).map_err(|_| Status::TooLong)?;
        self.counters.psp.transmitted_packets += 1;
        let offset = match geometry.aad {
            cryptonic_wire::Aad::InPlace { start, .. } => start,
            _ => 0,
        };
        self.counters.psp.transmitted_bytes += psp::counted_octets(offset, geometry.icv.end) as u64;
        Ok(Committed { geometry: Some((geometry, true)), key_ready: committed_at, sequence: iv, sa_index: 0 })
    }

    /// A committed packet passes lanes, reorder, checksum and MAC.
    pub(crate) fn send(
        &mut self,
        packet: &mut Packet,
        pending: &Pending,
        control: TransmitControl,
        committed: &Committed,
        committed_at: Time,
    ) -> Departure {
        let stage = self.cycle.times(self.parameters.pipeline.stage_latency_cycles);
        let ready = (committed_at + stage).max(committed.key_ready);
        let left_lanes = match &committed.geometry {
            Some((geometry, fresh_key)) => self.transmit.lanes.pass(ready, geometry, *fresh_key),
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
        at: Time,
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
            time_picoseconds: at.picoseconds(),
            end: TransmitCompletionEnd::new().with_status(status.number() as u16),
        };
        self.events.transmit_reports.push(
            at,
            TransmitReport { queue: pending.queue, epoch: pending.epoch, words: completion.to_words() },
        );
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

/// The status of a refused layout.
fn refusal(refused: Refused) -> Status {
    match refused {
        Refused::NotIp
        | Refused::StaleParse
        | Refused::AmbiguousNextHeader
        | Refused::BeetOptions
        | Refused::BeetAddresses
        | Refused::NotPreformatted
        | Refused::Preformatted(_) => Status::NotIp,
        Refused::Fragment | Refused::BeetFragment => Status::FragmentInTransport,
        Refused::TooLong | Refused::NoRoom => Status::TooLong,
        Refused::ReservedSpi | Refused::PspExtension | Refused::PreformattedVersion => Status::BadPspKey,
        Refused::IcvLength | Refused::TfcPadding => Status::BadDescriptor,
        Refused::SequenceExhausted => Status::SequenceExhausted,
        Refused::CryptOffsetPastEnd | Refused::CryptOffsetWithoutEncryption => Status::TransmitCryptOffset,
    }
}

/// Keyed hash of a flow: the UDP source port tells nothing of the inner ports to who does not have the key.
fn flow_hash(key: (u64, u64), plain: &Plain) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write(&plain.source);
    hasher.write(&plain.destination);
    let ports = plain.ports.map_or(0, |ports| u32::from(ports.source) << 16 | u32::from(ports.destination));
    hasher.write_u64(u64::from(plain.next_header) << 32 | u64::from(ports));
    hasher.finish()
}
