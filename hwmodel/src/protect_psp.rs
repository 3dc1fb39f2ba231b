//! Commit of PSP packets, with the key in a slot or in the descriptor: everything that can be wrong is found before the IV
//! is taken.

use crate::Ticks;
use cryptonic_crypto::Cipher;
use cryptonic_regs::admin::Mode;
use cryptonic_regs::descriptor::{SourcePortPolicy, TransmitControl, TransmitPsp, TransmitSa};
use cryptonic_regs::{Status, rows::Value};
use cryptonic_wire::ip::protocol;
use cryptonic_wire::outer::{OuterTemplate, PerPacket};
use cryptonic_wire::packet::{Plain, Ports, widen};
use cryptonic_wire::psp::{self, SourcePort, Version};
use cryptonic_wire::psp_transform::{self, Completion};
use cryptonic_wire::{Aad, Geometry, ipv4, ipv6, parse_transmit, tcp, udp};
use zeroize::Zeroizing;

use crate::events::Pending;
use crate::lanes::blocks;
use crate::nic::Nic;
use crate::packet::Packet;
use crate::protect_esp::{outer_of, refusal};
use crate::receive_scaling::SourcePorts;
use crate::sa_parameters::Form;
use crate::transmit_commit::{Committed, Intent, flow_hash};

/// The cipher of a PSP version.
pub(crate) fn cipher_of(version: Version) -> Cipher {
    match version {
        Version::AesGcm128 => Cipher::AesGcm128,
        Version::AesGcm256 => Cipher::AesGcm256,
        Version::AesGmac128 => Cipher::AesGmac128,
        Version::AesGmac256 => Cipher::AesGmac256,
    }
}

/// What one packet is to be, from wherever its key comes.
struct Order {
    parameters: psp::Parameters<'static>,
    source_port: SourcePortPolicy,
    fixed_port: u16,
    preformatted: bool,
    iv: u64,
    /// What stands in the NIC's registers.
    udp_port: u16,
    flow_key: (u64, u64),
}

impl Nic {
    /// Protects a packet by the PSP slot that its descriptor names.
    pub(crate) fn protect_psp_by_slot(
        &mut self,
        packet: &mut Packet,
        reference: TransmitSa,
        control: TransmitControl,
        committed_at: Ticks,
        intent: Intent,
    ) -> Result<Committed, Status> {
        let sa = self.sa_table.usable(reference.index(), reference.generation()).ok_or(Status::StaleSa)?;
        let Form::Psp(form) = sa.form else { return Err(Status::StaleSa) };
        if !self.keys.has_epoch() {
            return Err(Status::PspNoEpoch);
        }
        if !sa.lifetime.permits() {
            return Err(Status::HardLimit);
        }
        let Some(iv) = self.keys.peek_iv(self.epoch_picoseconds.wrapping_add(committed_at.picoseconds()))
        else {
            sa.lifetime.refused += 1;
            return Err(Status::SequenceExhausted);
        };
        let order = Order {
            parameters: psp::Parameters {
                crypt_offset: form.crypt_offset,
                sample: control.psp_sample(),
                drop: control.psp_drop(),
                virtualization_cookie: form.cookie,
                ..psp::Parameters::new(sa.spi, form.version)
            },
            source_port: form.source_port,
            fixed_port: form.fixed_port,
            preformatted: control.psp_preformatted(),
            iv,
            udp_port: self.psp_control.udp_port(),
            flow_key: self.flow_key,
        };
        if order.preformatted && (control.psp_sample() || control.psp_drop()) {
            return Err(Status::BadDescriptor);
        }
        let identification = self.transmit.identification.wrapping_add(1);
        let tunnel = (sa.mode == Mode::Tunnel).then_some(Tunnel {
            outer: &sa.outer,
            flow_label: sa.flow_label,
            identification,
        });
        let (geometry, clear_bytes) = lay_out(packet, &order, &self.psp_source_ports, tunnel)?;
        if intent != Intent::Commit {
            return Ok(Committed::nothing(committed_at));
        }
        // Committed: from here on the IV is used up.
        self.keys.use_iv(order.iv);
        sa.sequence = order.iv;
        let now_picoseconds = self.epoch_picoseconds.wrapping_add(self.now.picoseconds());
        let causes = sa.lifetime.count(clear_bytes, u64::MAX, now_picoseconds);
        self.transmit.identification = identification;
        geometry.seal(&sa.key, packet.frame_mut()).map_err(|_| Status::TooLong)?;
        if !causes.is_empty() {
            self.raise_slot_events(reference.index(), causes);
        }
        self.count_psp_transmitted(&geometry);
        let key_ready = self.context_cache.fetch(committed_at, reference.index());
        Ok(Committed {
            blocks: Some(blocks(&geometry, false)),
            key_ready,
            sequence: order.iv,
            sa_index: reference.index(),
        })
    }

    /// Protects a packet by the key in its descriptor.
    pub(crate) fn protect_psp_by_key(
        &mut self,
        packet: &mut Packet,
        pending: &Pending,
        control: TransmitControl,
        committed_at: Ticks,
        intent: Intent,
    ) -> Result<Committed, Status> {
        let words = TransmitPsp::of_bits(pending.words[2]);
        let version = Version::from_code(control.psp_version()).ok_or(Status::BadPspKey)?;
        if words.spi() & psp::SPI_COUNT_MASK == 0 {
            return Err(Status::BadPspKey);
        }
        if !self.keys.has_epoch() {
            return Err(Status::PspNoEpoch);
        }
        // A pre-formatted frame says these itself.
        let own = control.psp_crypt_offset() != 0
            || control.psp_sample()
            || control.psp_drop()
            || control.psp_cookie();
        if control.psp_preformatted() && own {
            return Err(Status::BadDescriptor);
        }
        let mut key = Zeroizing::new([0_u8; 32]);
        let [key_words @ .., cookie] =
            pending.key.and_then(|place| self.transmit.keys.words(place)).ok_or(Status::BadPspKey)?;
        for (bytes, word) in key.chunks_exact_mut(8).zip(key_words.iter()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let cipher = cipher_of(version);
        if key[cipher.key_length()..].iter().any(|byte| *byte != 0) {
            return Err(Status::BadPspKey);
        }
        let order = Order {
            parameters: psp::Parameters {
                crypt_offset: control.psp_crypt_offset(),
                sample: control.psp_sample(),
                drop: control.psp_drop(),
                virtualization_cookie: control.psp_cookie().then_some(cookie.to_le_bytes()),
                ..psp::Parameters::new(words.spi(), version)
            },
            source_port: SourcePortPolicy::of_number(u32::from(control.psp_source_port_policy()))
                .ok_or(Status::BadDescriptor)?,
            fixed_port: words.source_port(),
            preformatted: control.psp_preformatted(),
            iv: self
                .keys
                .peek_iv(self.epoch_picoseconds.wrapping_add(committed_at.picoseconds()))
                .ok_or(Status::SequenceExhausted)?,
            udp_port: self.psp_control.udp_port(),
            flow_key: self.flow_key,
        };
        let (geometry, _) = lay_out(packet, &order, &self.psp_source_ports, None)?;
        if intent != Intent::Commit {
            return Ok(Committed::nothing(committed_at));
        }
        let key = self.transmit.key_schedules.get(cipher, &key).ok_or(Status::BadPspKey)?;
        // Committed: from here on the IV is used up.
        self.keys.use_iv(order.iv);
        geometry.seal(key, packet.frame_mut()).map_err(|_| Status::TooLong)?;
        self.count_psp_transmitted(&geometry);
        Ok(Committed {
            blocks: Some(blocks(&geometry, true)),
            key_ready: committed_at,
            sequence: order.iv,
            sa_index: 0,
        })
    }

    fn count_psp_transmitted(&mut self, geometry: &Geometry) {
        let offset = match geometry.aad {
            Aad::InPlace { start, .. } => start,
            _ => 0,
        };
        self.counters.psp.transmitted_packets += 1;
        self.counters.psp.transmitted_bytes += psp::counted_octets(offset, geometry.icv.end) as u64;
    }
}

/// What tunnel mode puts around a packet.
struct Tunnel<'a> {
    outer: &'a OuterTemplate,
    flow_label: u32,
    identification: u16,
}

/// Lays a packet out. Gives where the lanes work and the bytes of its IP packet in clear.
fn lay_out(
    packet: &mut Packet,
    order: &Order,
    table: &SourcePorts,
    tunnel: Option<Tunnel<'_>>,
) -> Result<(Geometry, u64), Status> {
    let plain = parse_transmit(packet.frame()).map_err(|_| Status::NotIp)?;
    let clear_bytes = (plain.l3_end - plain.l3_offset) as u64;
    if order.preformatted {
        return complete(packet, &plain, order, table).map(|geometry| (geometry, clear_bytes));
    }
    let ports = Ports { source: source_port(order, &plain, table), destination: order.udp_port };
    let geometry = packet.with_room(|room| match &tunnel {
        None => psp_transform::encapsulate_transport(room, &plain, &order.parameters, order.iv, ports),
        Some(tunnel) => {
            let (outer, turn): (OuterTemplate, PerPacket) =
                outer_of(tunnel.outer, tunnel.flow_label, order.flow_key, &plain, tunnel.identification);
            psp_transform::encapsulate_tunnel(room, &plain, &order.parameters, order.iv, ports, &outer, turn)
        }
    });
    geometry.map(|geometry| (geometry, clear_bytes)).map_err(refusal)
}

/// Completes a frame that has its UDP and PSP headers. Its source port stays under the policy `fixed`.
fn complete(
    packet: &mut Packet,
    plain: &Plain,
    order: &Order,
    table: &SourcePorts,
) -> Result<Geometry, Status> {
    let completion = Completion {
        udp_port: order.udp_port,
        spi: order.parameters.spi,
        version: order.parameters.version,
        iv: order.iv,
    };
    let flow = flow_inside(packet.frame(), plain);
    let geometry = packet
        .with_room(|room| psp_transform::complete_preformatted(room, plain, &completion))
        .map_err(refusal)?;
    if order.source_port != SourcePortPolicy::Fixed {
        let port = source_port(order, &flow.unwrap_or(*plain), table).to_be_bytes();
        // The checksum is 0, so nothing else changes with the port.
        let place = plain.l4_offset() + udp::field::SOURCE_PORT.start;
        packet
            .frame_mut()
            .get_mut(place..place + port.len())
            .ok_or(Status::BadPreformatted)?
            .copy_from_slice(&port);
    }
    Ok(geometry)
}

/// The UDP source port of a packet of this flow.
#[inline]
fn source_port(order: &Order, flow: &Plain, table: &SourcePorts) -> u16 {
    let hash = || flow_hash(order.flow_key, flow);
    match order.source_port {
        SourcePortPolicy::Entropy => SourcePort::Entropy.port(flow, hash()),
        SourcePortPolicy::PortsXor => SourcePort::PortsXor.port(flow, 0),
        SourcePortPolicy::Fixed => order.fixed_port,
        SourcePortPolicy::Table => table.port(hash()),
    }
}

/// The flow that a pre-formatted frame carries, as the packet would say it before encapsulation. `None` where its
/// headers end early.
fn flow_inside(frame: &[u8], plain: &Plain) -> Option<Plain> {
    let psp_offset = plain.l4_offset() + udp::HEADER_LENGTH;
    let header = frame.get(psp_offset..psp_offset + psp::HEADER_LENGTH)?;
    let [next_header, extension_length, ..] = header else { return None };
    let payload_offset = psp_offset + (usize::from(*extension_length) + 1) * psp::EXTENSION_UNIT;
    let payload = frame.get(payload_offset..plain.l3_end)?;
    let (flow, upper) = match *next_header {
        protocol::IPV4 => {
            let inner = ipv4::Header::parse(payload).ok()?;
            let flow = Plain {
                source: widen(inner.source),
                destination: widen(inner.destination),
                next_header: inner.protocol,
                ..*plain
            };
            (flow, payload.get(usize::from(inner.header_length)..).filter(|_| inner.is_first_fragment()))
        }
        protocol::IPV6 => {
            let inner = ipv6::Header::parse(payload).ok()?;
            let chain = ipv6::walk(payload, inner.next_header).ok()?;
            let flow = Plain {
                source: inner.source,
                destination: inner.destination,
                next_header: chain.next_header,
                ..*plain
            };
            (flow, payload.get(chain.length..).filter(|_| chain.is_first_fragment()))
        }
        next_header => (Plain { next_header, ..*plain }, Some(payload)),
    };
    // TCP and UDP have their ports at the same place.
    let ports = upper
        .filter(|_| matches!(flow.next_header, protocol::TCP | protocol::UDP))
        .and_then(tcp::Header::parse)
        .map(|ports| Ports { source: ports.source_port, destination: ports.destination_port });
    Some(Plain { ports, ..flow })
}
