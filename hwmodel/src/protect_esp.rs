//! Commit of packets that a slot protects, and of ESP in particular: everything that can be wrong is found before the
//! sequence number is taken.

use crate::Ticks;
use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_regs::descriptor::{Security, TransmitControl, TransmitSa};
use cryptonic_regs::{Status, rows::Value};
use cryptonic_wire::ip::protocol;
use cryptonic_wire::outer::{FlowLabel, OuterTemplate, PerPacket};
use cryptonic_wire::{Plain, Refused, esp, esp_beet, esp_transform, parse_transmit};

use crate::events::Pending;
use crate::lanes::blocks;
use crate::nic::Nic;
use crate::packet::Packet;
use crate::sa_parameters::Form;
use crate::transmit_commit::{Committed, Intent, flow_hash};

/// Ethernet header with two VLAN tags: what stands before an IP packet at most.
const LINK_BYTES: usize = 22;
/// What only PSP with its key in the descriptor, and only PSP at all, knows in a control word.
const PSP_KEY_CONTROL: TransmitControl = TransmitControl::new()
    .with_psp_version(0xf)
    .with_psp_crypt_offset(0x3f)
    .with_psp_source_port_policy(3)
    .with_psp_cookie(true);
const PSP_CONTROL: TransmitControl =
    PSP_KEY_CONTROL.with_psp_sample(true).with_psp_drop(true).with_psp_preformatted(true);

impl Nic {
    /// Bytes of frame that a packet needs room for: more than its own where the SA pads it.
    #[inline]
    pub(crate) fn frame_room(&self, pending: &Pending, control: TransmitControl, bytes: usize) -> usize {
        if control.security() != Security::Sa.number() as u8 {
            return bytes;
        }
        let reference = TransmitSa::of_bits(pending.words[2]);
        match self.sa_table.slot(reference.index()).map(|sa| &sa.form) {
            Some(Form::Esp(esp)) if esp.tfc_length != 0 => {
                bytes.max(LINK_BYTES + usize::from(esp.tfc_length))
            }
            _ => bytes,
        }
    }

    /// Protects a packet by the slot that its descriptor names.
    pub(crate) fn protect_by_slot(
        &mut self,
        packet: &mut Packet,
        pending: &Pending,
        control: TransmitControl,
        committed_at: Ticks,
        intent: Intent,
    ) -> Result<Committed, Status> {
        let reference = TransmitSa::of_bits(pending.words[2]);
        let sa = self.sa_table.usable(reference.index(), reference.generation()).ok_or(Status::StaleSa)?;
        if sa.direction != Direction::Out {
            return Err(Status::WrongDirection);
        }
        // What the slot says, the descriptor does not.
        let foreign = match sa.form {
            Form::Esp(_) => PSP_CONTROL,
            Form::Psp(_) => PSP_KEY_CONTROL.with_esp_dummy(true),
        };
        if control.into_bits() & foreign.into_bits() != 0 {
            return Err(Status::BadDescriptor);
        }
        match sa.form {
            Form::Esp(_) => self.protect_esp(packet, reference, control, committed_at, intent),
            Form::Psp(_) => self.protect_psp_by_slot(packet, reference, control, committed_at, intent),
        }
    }

    fn protect_esp(
        &mut self,
        packet: &mut Packet,
        reference: TransmitSa,
        control: TransmitControl,
        committed_at: Ticks,
        intent: Intent,
    ) -> Result<Committed, Status> {
        let sa = self.sa_table.usable(reference.index(), reference.generation()).ok_or(Status::StaleSa)?;
        let Form::Esp(esp) = &sa.form else { return Err(Status::StaleSa) };
        if control.esp_dummy() && sa.mode != Mode::Tunnel {
            return Err(Status::BadDescriptor);
        }
        if !sa.lifetime.permits() {
            return Err(Status::HardLimit);
        }
        let last = last_sequence(esp);
        let Some(sequence) = sa.sequence.checked_add(1).filter(|sequence| *sequence <= last) else {
            sa.lifetime.refused += 1;
            return Err(Status::SequenceExhausted);
        };
        let plain = parse_transmit(packet.frame());
        let Ok(plain) = &plain else { return Err(Status::NotIp) };
        let identification = self.transmit.identification.wrapping_add(1);
        let clear_bytes = if control.esp_dummy() { 0 } else { (plain.l3_end - plain.l3_offset) as u64 };
        let geometry = packet.with_room(|room| match sa.mode {
            // An AGGFRAG payload is not wrapped: it leaves under the IP header that it came with (RFC 9347 6.1).
            _ if plain.next_header == protocol::AGGFRAG && !control.esp_dummy() => {
                esp_transform::encapsulate_transport(room, plain, esp, sequence)
            }
            Mode::Tunnel => {
                let (outer, turn) = outer_of(&sa.outer, sa.flow_label, self.flow_key, plain, identification);
                if control.esp_dummy() {
                    esp_transform::encapsulate_dummy(room, plain, esp, sequence, Some((&outer, turn)))
                } else {
                    esp_transform::encapsulate_tunnel(room, plain, esp, sequence, &outer, turn)
                }
            }
            Mode::Transport => esp_transform::encapsulate_transport(room, plain, esp, sequence),
            Mode::Beet => {
                esp_beet::encapsulate_beet(room, plain, esp, sequence, &sa.inner, &sa.outer.endpoints)
            }
        });
        let geometry = geometry.map_err(refusal)?;
        if intent != Intent::Commit {
            return Ok(Committed::nothing(committed_at));
        }
        // Committed: from here on the number is used up.
        sa.sequence = sequence;
        let now_picoseconds = self.epoch_picoseconds.wrapping_add(self.now.picoseconds());
        let causes = sa.lifetime.count(clear_bytes, last - sequence, now_picoseconds);
        self.transmit.identification = identification;
        geometry.seal(&sa.key, packet.frame_mut()).map_err(|_| Status::TooLong)?;
        esp_transform::finish_outer_checksum(packet.frame_mut(), esp).map_err(|_| Status::TooLong)?;
        if !causes.is_empty() {
            self.raise_slot_events(reference.index(), causes);
        }
        let key_ready = self.context_cache.fetch(committed_at, reference.index());
        Ok(Committed {
            blocks: Some(blocks(&geometry, false)),
            key_ready,
            sequence,
            sa_index: reference.index(),
        })
    }
}

/// The last sequence number of an SA: without ESN 2^32 - 1 (RFC 4303 3.3.3), with it 2^64 - 1.
#[inline]
pub(crate) fn last_sequence(esp: &esp::Parameters) -> u64 {
    if esp.extended_sequence { u64::MAX } else { u64::from(u32::MAX) }
}

/// The outer header's rules for one packet: `flow_label` stands in for the label that an IPv4 packet does not have.
#[inline]
pub(crate) fn outer_of(
    template: &OuterTemplate,
    flow_label: u32,
    flow_key: (u64, u64),
    plain: &Plain,
    identification: u16,
) -> (OuterTemplate, PerPacket) {
    let mut outer = *template;
    let mut turn = PerPacket::new(identification);
    match template.flow_label {
        FlowLabel::Value(_) => {}
        FlowLabel::Copy if plain.ip_version == 4 => outer.flow_label = FlowLabel::Value(flow_label),
        FlowLabel::Copy => {}
        FlowLabel::Hash => turn.flow_hash = flow_hash(flow_key, plain) as u32,
    }
    (outer, turn)
}

/// The status of a refused layout.
pub(crate) fn refusal(refused: Refused) -> Status {
    match refused {
        Refused::NotIp | Refused::StaleParse | Refused::AmbiguousNextHeader | Refused::RouteAhead => {
            Status::NotIp
        }
        Refused::BeetOptions | Refused::BeetAddresses | Refused::BeetFragment => Status::NotBeet,
        Refused::NotPreformatted | Refused::Preformatted(_) | Refused::PreformattedVersion => {
            Status::BadPreformatted
        }
        Refused::Fragment => Status::FragmentInTransport,
        Refused::TooLong | Refused::NoRoom => Status::TooLong,
        Refused::ReservedSpi | Refused::PspExtension => Status::BadPspKey,
        Refused::IcvLength | Refused::TfcPadding => Status::BadDescriptor,
        Refused::SequenceExhausted => Status::SequenceExhausted,
        Refused::CryptOffsetPastEnd | Refused::CryptOffsetWithoutEncryption => Status::TransmitCryptOffset,
    }
}
