//! Receive commit: in the order of arrival, after the ICV. Only here does a packet count: slot still valid,
//! window test-and-set, counters; then the protection comes off, what came out is compared with the SA's selector, and
//! the packet goes to its queue.

use cryptonic_regs::Status;
use cryptonic_regs::admin::Mode;
use cryptonic_regs::completion::ReceivedProtocol;
use cryptonic_wire::ip::protocol;
use cryptonic_wire::selector::Selector;
use cryptonic_wire::transform::Rejected;
use cryptonic_wire::{Decapsulated, esp_beet, esp_transform, parse_transmit, psp, psp_transform};

use crate::nic::Nic;
use crate::packet::{Packet, PacketPool, Received};
use crate::protect_esp::last_sequence;
use crate::receive::replay_status;
use crate::sa_parameters::Form;
use crate::sa_table::Sa;

impl Nic {
    /// A packet reaches commit.
    pub(crate) fn receive_commit(&mut self, mut packet: Box<Packet>, pool: &mut PacketPool) {
        let committed = match packet.protocol {
            ReceivedProtocol::Clear => Ok(()),
            ReceivedProtocol::Esp => self.commit_esp(&mut packet),
            ReceivedProtocol::Psp if packet.status != Status::Ok => Err(packet.status),
            ReceivedProtocol::Psp => self.commit_psp(&mut packet),
        };
        match committed {
            Ok(()) => {
                self.judge_delivered(&mut packet);
                if packet.received.psp_sample || packet.received.psp_drop {
                    self.deliver_marked(packet, pool);
                } else {
                    self.deliver(packet, pool);
                }
            }
            Err(status) if packet.protocol == ReceivedProtocol::Psp => {
                if status == Status::IcvMismatch {
                    self.counters.psp.received_authentication_failures += 1;
                }
                self.capture_or_drop(packet, status, pool);
            }
            Err(status) => self.drop_received(packet, status, pool),
        }
    }

    /// Delivers a packet that counts and has the bits S or D of PSP. It comes before its copy, so that the copy costs it
    /// nothing.
    fn deliver_marked(&mut self, packet: Box<Packet>, pool: &mut PacketPool) {
        let Received { psp_sample, psp_drop, .. } = packet.received;
        let copy = if psp_sample { self.sample(&packet, pool) } else { None };
        if psp_drop && self.psp_copies.sampling().drop() {
            self.drop_received(packet, Status::PspDropBit, pool);
        } else {
            self.deliver(packet, pool);
        }
        if let Some(copy) = copy {
            self.deliver_sample(copy, pool);
        }
    }

    fn commit_esp(&mut self, packet: &mut Packet) -> Result<(), Status> {
        let l3_offset = packet.parsed.as_ref().ok_or(Status::BadInner)?.plain.l3_offset;
        let Received { sa_index, sa_generation, sequence, .. } = packet.received;
        let sa = self.sa_table.usable(sa_index, sa_generation).ok_or(Status::SaDeleted)?;
        if packet.status != Status::Ok {
            let causes = sa.lifetime.count_icv_failure();
            if !causes.is_empty() {
                self.raise_slot_events(sa_index, causes);
            }
            return Err(packet.status);
        }
        if !sa.lifetime.permits() {
            return Err(Status::ReceiveHardLimit);
        }
        replay_status(&mut sa.lifetime, sa.window.update(sequence))?;
        let Form::Esp(esp) = &sa.form else { return Err(Status::SaDeleted) };
        let opened = packet.with_parsed(|room, parsed| match sa.mode {
            Mode::Tunnel => esp_transform::decapsulate_tunnel(room, parsed, esp),
            Mode::Transport => esp_transform::decapsulate_transport(room, parsed, esp),
            Mode::Beet => esp_beet::decapsulate_beet(room, parsed, esp, &sa.inner),
        });
        let next_header = no_dummy(opened);
        let clear_bytes = next_header.map_or(0, |_| packet.bytes() - l3_offset as u64);
        let sequence_left = last_sequence(esp) - sa.window.top();
        let now_picoseconds = self.epoch_picoseconds.wrapping_add(self.now.picoseconds());
        // The key opened it and the window took it: it counts, whatever it turns out to be.
        let causes = sa.lifetime.count(clear_bytes, sequence_left, now_picoseconds);
        let verdict = next_header.and_then(|next_header| selected(sa, packet, next_header));
        if !causes.is_empty() {
            self.raise_slot_events(sa_index, causes);
        }
        packet.received.next_header = verdict?;
        Ok(())
    }

    fn commit_psp(&mut self, packet: &mut Packet) -> Result<(), Status> {
        let parsed = packet.parsed.as_ref().ok_or(Status::BadInner)?;
        // Cookie and extension go with the header, so the cookie is taken out before.
        let cookie = psp::opened(parsed, packet.frame())
            .map_err(|_| Status::BadInner)
            .map(|opened| opened.header.virtualization_cookie)
            .inspect_err(|_| self.counters.psp.received_errors += 1)?;
        if let Some(cookie) = cookie {
            packet.received.sequence = u64::from_le_bytes(cookie);
            packet.received.psp_cookie = true;
        }
        let opened = packet.with_parsed(psp_transform::decapsulate);
        packet.received.next_header =
            no_dummy(opened).inspect_err(|_| self.counters.psp.received_errors += 1)?;
        self.counters.psp.received_packets += 1;
        self.counters.psp.received_bytes += packet.received.psp_bytes;
        Ok(())
    }
}

/// The next header of what came out, if it is what the SA is for.
#[inline]
fn selected(sa: &Sa, packet: &Packet, next_header: u8) -> Result<u8, Status> {
    match &sa.selector {
        // What the device hands up as it is has no inner packet whose addresses could be compared.
        Some(selector) if next_header != protocol::AGGFRAG => {
            matches(selector, packet.frame()).map(|()| next_header)
        }
        _ => Ok(next_header),
    }
}

fn matches(selector: &Selector, frame: &[u8]) -> Result<(), Status> {
    let plain = parse_transmit(frame).map_err(|_| Status::BadInner)?;
    if selector.matches(&plain) { Ok(()) } else { Err(Status::SelectorMismatch) }
}

/// The next header of what came out, or its status.
fn no_dummy(opened: Option<Result<Decapsulated, Rejected>>) -> Result<u8, Status> {
    match opened.ok_or(Status::BadInner)? {
        Ok(Decapsulated::Packet { next_header }) => Ok(next_header),
        Ok(Decapsulated::Dummy) => Err(Status::Dummy),
        Err(Rejected::Trailer(_)) => Err(Status::BadTrailer),
        Err(
            Rejected::NextHeader(_)
            | Rejected::BeetPseudoHeader
            | Rejected::InnerPacket(_)
            | Rejected::NoRoom
            | Rejected::StaleParse,
        ) => Err(Status::BadInner),
        Err(Rejected::CongestionDrop) => Err(Status::EcnDrop),
    }
}
