//! Receive commit: in the order of arrival, after the ICV. Only here does a packet count: slot still valid,
//! window test-and-set, counters; then the protection comes off and the packet goes to its queue.

use cryptonic_regs::Status;
use cryptonic_regs::admin::Mode;
use cryptonic_regs::completion::ReceivedProtocol;
use cryptonic_wire::transform::Rejected;
use cryptonic_wire::{Decapsulated, Parsed, esp_transform, psp_transform};

use crate::nic::Nic;
use crate::packet::{Packet, PacketPool};
use crate::rx_geometry::replay_status;

impl Nic {
    /// A packet reaches commit.
    pub(crate) fn receive_commit(&mut self, mut packet: Box<Packet>, pool: &mut PacketPool) {
        let committed = match (packet.protocol, packet.parsed) {
            (ReceivedProtocol::Clear, _) => Ok(()),
            (ReceivedProtocol::Esp, Some(parsed)) => self.commit_esp(&mut packet, &parsed),
            (ReceivedProtocol::Psp, Some(parsed)) => self.commit_psp(&mut packet, &parsed),
            (_, None) => Err(Status::BadInner),
        };
        match committed {
            Ok(()) => {
                self.judge_delivered(&mut packet);
                self.deliver(packet, pool);
            }
            Err(status) => self.drop_received(packet, status, pool),
        }
    }

    fn commit_esp(&mut self, packet: &mut Packet, parsed: &Parsed) -> Result<(), Status> {
        let received = packet.received;
        let sa = self.sa_table.usable(received.sa_index, received.sa_generation).ok_or(Status::SaDeleted)?;
        if packet.status != Status::Ok {
            return Err(packet.status);
        }
        replay_status(sa.window.update(received.sequence))?;
        let (mode, esp) = (sa.mode, &sa.esp);
        let opened = packet.with_room(|room| match mode {
            Mode::Tunnel => esp_transform::decapsulate_tunnel(room, parsed, esp),
            Mode::Transport | Mode::Beet => esp_transform::decapsulate_transport(room, parsed, esp),
        });
        packet.received.next_header = no_dummy(opened)?;
        sa.packets += 1;
        sa.bytes += packet.bytes() - parsed.plain.l3_offset as u64;
        Ok(())
    }

    fn commit_psp(&mut self, packet: &mut Packet, parsed: &Parsed) -> Result<(), Status> {
        if packet.status != Status::Ok {
            self.counters.psp.received_authentication_failures += 1;
            return Err(packet.status);
        }
        let opened = packet.with_room(|room| psp_transform::decapsulate(room, parsed));
        packet.received.next_header =
            no_dummy(opened).inspect_err(|_| self.counters.psp.received_errors += 1)?;
        self.counters.psp.received_packets += 1;
        self.counters.psp.received_bytes += packet.received.psp_bytes;
        Ok(())
    }
}

/// The next header of what came out, or its status.
fn no_dummy(opened: Result<Decapsulated, Rejected>) -> Result<u8, Status> {
    match opened {
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
