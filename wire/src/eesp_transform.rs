//! EESP encapsulation and decapsulation of a frame in a [`Room`], apart from the cipher (draft-ietf-ipsecme-eesp-03, 4).
//!
//! ```text
//!   transport   L2 | IP            | upper             ->  L2 | IP (| UDP) | EESP | info | upper | padding | ICV
//!   tunnel      L2 | IP | upper (whole packet)         ->  L2 | outer IP (| UDP) | EESP (| info) | IP | upper | padding | ICV
//! ```
//! The padding is the fewest zeros that put the ICV on a 4-octet boundary (2.6).
//!
//! Sending: encapsulate, then [`Geometry::seal`], then [`finish_outer_checksum`] where the SA asks for a UDP checksum.
//! Receiving: [`Geometry::open`], then decapsulate. The room needs 36 octets of headroom (plus the UDP header, plus the
//! outer IP header) and up to 19 octets of tailroom.

use crate::aead::IcvLength;
use crate::eesp::{
    self, BadPayload, CRYPT_OFFSET_OPTION_LENGTH, Carrier, CryptOffset, Format, Header, Layout, Located,
    MAX_OFFSET_UNITS, Numbering, Parameters, PayloadInfo,
};
use crate::esp::{self, Ipv6UdpChecksum};
use crate::esp_transform::{self, Opened};
use crate::geometry::Geometry;
use crate::ip::protocol;
use crate::outer::{Endpoints, OuterTemplate, PerPacket};
use crate::packet::{Parsed, Plain};
use crate::room::{NoRoom, Room};
use crate::transform::{self, Decapsulated, Refused};
use crate::{bytes, l4_checksum, option, udp};

/// Octets of padding, and of the boundary on which the ICV stands.
const ALIGNMENT: usize = 4;

/// Wraps the frame's IP packet whole into an outer IP header and EESP. VLAN tags stay, the EtherType follows the outer
/// family, octets after the IP packet are dropped. Inner fragments are carried.
///
/// `number` is the packet's sequence number, above zero, and its IV.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_tunnel(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    number: u64,
    outer: &OuterTemplate,
    per_packet: PerPacket,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    let is_ipv6 = plain.ip_version == 6 || matches!(outer.endpoints, Endpoints::V6 { .. });
    let shape = Shape::new(parameters, number, is_ipv6, plain.l3_end - plain.l3_offset)?;
    let outer_payload = shape.udp_length + shape.length();
    let outer = outer.header(plain, outer_protocol(parameters), outer_payload, per_packet)?;
    let front = outer.length() + shape.front();
    transform::grow(room, plain.l3_end, front, shape.back())?;
    let frame = room.frame_mut();
    transform::enter_tunnel(frame, plain, &outer, front)?;
    let next_header = transform::tunnel_next_header(plain);
    finish(frame, parameters, number, plain.l3_offset + outer.length(), &shape, next_header)
}

/// Puts EESP between the frame's IP header, with its options or extension headers, and the upper protocol. Octets after
/// the IP packet are dropped; nothing else is lost, so that opening gives back every octet. A packet of protocol 144 may
/// take this way through an SA of any mode in the full format, as with ESP.
///
/// # Errors
/// [`Refused`]; the frame is then as it was. The optimized format, which has no place for the upper protocol, is
/// [`Refused::AmbiguousNextHeader`].
#[inline]
pub fn encapsulate_transport(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    number: u64,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    if parameters.format == Format::Optimized || plain.next_header == protocol::NO_NEXT_HEADER {
        return Err(Refused::AmbiguousNextHeader);
    }
    if plain.fragment {
        return Err(Refused::Fragment);
    }
    if has_ipv6_checksum(parameters) && l4_checksum::route_ahead(room.frame(), plain) {
        return Err(Refused::RouteAhead);
    }
    let offset = plain.l4_offset();
    let shape = Shape::new(parameters, number, plain.ip_version == 6, plain.l3_end - offset)?;
    let ip_length = transform::ip_length(plain, shape.udp_length + shape.length())?;
    let front = shape.front();
    transform::grow(room, plain.l3_end, front, shape.back())?;
    let frame = room.frame_mut();
    bytes::shift(frame, front, 0, offset)?;
    transform::patch_ip(frame, plain, outer_protocol(parameters), ip_length)?;
    finish(frame, parameters, number, offset, &shape, plain.next_header)
}

/// Computes the checksum of the UDP header around a sealed packet, as
/// [`esp_transform::finish_outer_checksum`] does for ESP.
///
/// # Errors
/// [`NoRoom`] where the frame is no packet of such an SA.
#[inline]
pub fn finish_outer_checksum(frame: &mut [u8], parameters: &Parameters) -> Result<(), NoRoom> {
    if !has_ipv6_checksum(parameters) {
        return Ok(());
    }
    transform::fill_ipv6_udp_checksum(frame)
}

/// Why an authenticated packet is not decapsulated.
pub type Rejected = transform::RejectedWith<BadPayload>;

impl From<BadPayload> for Rejected {
    fn from(payload: BadPayload) -> Self {
        Self::Payload(payload)
    }
}

/// Takes the inner packet out of an opened tunnel packet: the outer headers, EESP, padding and ICV go, the EtherType
/// follows the inner family, the outer ECN is combined into the inner one (RFC 6040). Next header 144 is left under the
/// outer IP header, as in transport mode (RFC 9347).
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate_tunnel(
    room: &mut Room<'_>,
    parsed: &Parsed,
    located: &Located,
    parameters: &Parameters,
) -> Result<Decapsulated, Rejected> {
    let opened = opened(room, parsed, located, parameters)?;
    Ok(esp_transform::leave_tunnel(room, parsed, &opened)?)
}

/// Takes EESP, and UDP where it came in it, out of an opened transport packet: the IP header gets its upper protocol and
/// length back. The SA is of the full format.
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate_transport(
    room: &mut Room<'_>,
    parsed: &Parsed,
    located: &Located,
    parameters: &Parameters,
) -> Result<Decapsulated, Rejected> {
    if parameters.format == Format::Optimized {
        return Err(transform::Rejected::StaleParse.into());
    }
    let opened = opened(room, parsed, located, parameters)?;
    if opened.next_header == protocol::NO_NEXT_HEADER {
        return Ok(Decapsulated::Dummy);
    }
    Ok(esp_transform::leave_transport(room, parsed, &opened)?)
}

/// The lengths of a packet that is to be sent.
struct Shape {
    udp_length: usize,
    option_length: usize,
    layout: Layout,
    inner_length: usize,
    pad_length: usize,
    icv_length: usize,
}

impl Shape {
    /// Checks what must hold before a packet may have this number, and lays it out.
    #[inline]
    fn new(
        parameters: &Parameters,
        number: u64,
        is_ipv6: bool,
        inner_length: usize,
    ) -> Result<Self, Refused> {
        if parameters.spi <= esp::LAST_RESERVED_SPI {
            return Err(Refused::ReservedSpi);
        }
        if number == 0 {
            return Err(Refused::SequenceExhausted);
        }
        // RFC 8750, 3: the only ICV that goes with an implicit IV.
        if parameters.numbering == Numbering::SequenceIsIv && parameters.icv_length != IcvLength::Octets16 {
            return Err(Refused::IcvLength);
        }
        let (crypt_offset, maximum, wanted) = match parameters.format {
            Format::Optimized | Format::Full => (0, 0, 0),
            Format::FullWithCryptOffset { sent, maximum } => {
                (sent, maximum.min(MAX_OFFSET_UNITS), CRYPT_OFFSET_OPTION_LENGTH)
            }
        };
        if crypt_offset > maximum {
            return Err(Refused::CryptOffsetPastEnd);
        }
        // The upper header is aligned relative to EESP's first octet (2.5), which takes padding among the options.
        let boundary = if is_ipv6 { 8 } else { 4 };
        let unpadded = Layout::new(wanted, parameters.numbering, parameters.format, crypt_offset);
        let option_length = wanted + (boundary - unpadded.payload % boundary) % boundary;
        let layout = Layout::new(option_length, parameters.numbering, parameters.format, crypt_offset);
        if layout.text > layout.payload + inner_length {
            return Err(Refused::CryptOffsetPastEnd);
        }
        Ok(Self {
            udp_length: eesp::udp_length(&parameters.carrier),
            option_length,
            layout,
            inner_length,
            pad_length: (ALIGNMENT - inner_length % ALIGNMENT) % ALIGNMENT,
            icv_length: parameters.icv_length.octets(),
        })
    }

    /// Octets from the EESP header's first to the ICV's last.
    #[inline]
    const fn length(&self) -> usize {
        self.layout.payload + self.inner_length + self.back()
    }

    /// Octets before the inner packet, without an outer IP header.
    #[inline]
    const fn front(&self) -> usize {
        self.udp_length + self.layout.payload
    }

    /// Octets behind the inner packet.
    #[inline]
    const fn back(&self) -> usize {
        self.pad_length + self.icv_length
    }
}

/// What the outer IP header names.
#[inline]
const fn outer_protocol(parameters: &Parameters) -> u8 {
    match parameters.carrier {
        Carrier::Ip(number) => number,
        Carrier::Udp(_) => protocol::UDP,
    }
}

/// Whether the UDP header around EESP has a checksum over IPv6.
#[inline]
const fn has_ipv6_checksum(parameters: &Parameters) -> bool {
    matches!(parameters.carrier, Carrier::Udp(udp) if matches!(udp.ipv6_checksum, Ipv6UdpChecksum::Computed))
}

/// Writes UDP header and EESP around the inner packet, and says where the cipher works. `offset` is the end of the outer
/// IP header.
#[inline(always)]
fn finish(
    frame: &mut [u8],
    parameters: &Parameters,
    number: u64,
    offset: usize,
    shape: &Shape,
    next_header: u8,
) -> Result<Geometry, Refused> {
    let end = frame.len();
    if let Carrier::Udp(encapsulation) = &parameters.carrier {
        let header = udp::Header {
            source_port: encapsulation.ports.source,
            destination_port: encapsulation.ports.destination,
            length: u16::try_from(end.saturating_sub(offset)).map_err(|_| Refused::TooLong)?,
            checksum: 0,
        };
        header.emit(frame.get_mut(offset..).ok_or(NoRoom)?)?;
    }
    let offset = offset + shape.udp_length;
    let layout = &shape.layout;
    let packet = frame.get_mut(offset..).ok_or(NoRoom)?;
    let option_length = u8::try_from(shape.option_length).map_err(|_| Refused::TooLong)?;
    Header { option_length, session_id: parameters.session_id, spi: parameters.spi }.emit(packet)?;
    let mut padding_at = eesp::HEADER_LENGTH;
    if let Format::FullWithCryptOffset { sent, .. } = parameters.format {
        let payload_offset = u8::try_from(layout.payload_header / 4).map_err(|_| Refused::TooLong)?;
        bytes::put(packet, padding_at, &CryptOffset { payload_offset, crypt_offset: sent }.option())?;
        padding_at += CRYPT_OFFSET_OPTION_LENGTH;
    }
    let options_end = eesp::HEADER_LENGTH + shape.option_length;
    option::emit_padding(packet.get_mut(padding_at..options_end).ok_or(NoRoom)?)?;
    for at in [layout.sequence, layout.iv].into_iter().flatten() {
        bytes::put(packet, at, &number.to_be_bytes())?;
    }
    if parameters.format != Format::Optimized {
        let info = PayloadInfo { next_header, pad_length: shape.pad_length as u8 };
        bytes::put(packet, layout.payload_header, &info.octets())?;
    }
    let padding = layout.payload + shape.inner_length;
    packet.get_mut(padding..padding + shape.pad_length).ok_or(NoRoom)?.fill(0);
    eesp::geometry(parameters, layout, number, offset, end).map_err(|_| Refused::StaleParse)
}

/// Reads what an opened packet carries.
#[inline]
fn opened(
    room: &Room<'_>,
    parsed: &Parsed,
    located: &Located,
    parameters: &Parameters,
) -> Result<Opened, Rejected> {
    let stale = transform::Rejected::StaleParse;
    transform::check_plain(&parsed.plain, room.length()).map_err(|_| stale)?;
    let l4_offset = parsed.plain.l4_offset();
    if located.offset != l4_offset && located.offset != l4_offset.saturating_add(udp::HEADER_LENGTH) {
        return Err(stale.into());
    }
    let layout = located.layout(parameters);
    let packet = room.frame().get(located.offset..parsed.plain.l3_end).ok_or(stale)?;
    let body_end = packet.len().checked_sub(parameters.icv_length.octets()).ok_or(stale)?;
    let body = packet.get(layout.payload..body_end).ok_or(stale)?;
    let (next_header, pad_length) = match parameters.format {
        Format::Optimized => match body.first().map(|octet| octet >> 4) {
            Some(4) => (protocol::IPV4, 0),
            Some(6) => (protocol::IPV6, 0),
            _ => return Err(BadPayload::NotIp.into()),
        },
        Format::Full | Format::FullWithCryptOffset { .. } => {
            let info = bytes::array(packet, layout.payload_header).ok_or(stale)?;
            let info = PayloadInfo::from_octets(info).ok_or(BadPayload::PayloadInfo)?;
            (info.next_header, usize::from(info.pad_length))
        }
    };
    let payload_length = body.len().checked_sub(pad_length).ok_or(BadPayload::PadLength)?;
    if let Some(option) = located.crypt_offset {
        let maximum = match parameters.format {
            Format::FullWithCryptOffset { maximum, .. } => maximum,
            Format::Optimized | Format::Full => 0,
        };
        if option.crypt_offset > maximum || layout.text > layout.payload + payload_length {
            return Err(BadPayload::CryptOffset.into());
        }
    }
    let payload_start = located.offset + layout.payload;
    Ok(Opened { next_header, payload_start, payload_end: payload_start + payload_length })
}
