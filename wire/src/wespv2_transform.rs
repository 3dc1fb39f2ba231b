//! WESPv2 encapsulation and decapsulation of a frame in a [`Room`], apart from the cipher
//! (draft-klassert-ipsecme-wespv2-01, 2).
//!
//! ```text
//!   transport   L2 | IP            | upper     ->  L2 | IP (| UDP, marker) | WESPv2 | ESP | upper | trailer | ICV
//!   tunnel      L2 | IP | upper (whole packet) ->  L2 | outer IP (| UDP, marker) | WESPv2 | ESP | IP | upper (| TFC) | trailer | ICV
//! ```
//! All that is behind the WESPv2 header is ESP as in [`esp_transform`], and so are TFC padding and the side on which a last
//! destination's options stand. The header's options are padding alone, one PadN of four octets where it goes directly over
//! IPv6, whose boundary of 8 octets is not met otherwise.
//!
//! Sending: encapsulate, then [`Geometry::seal`], then [`finish_outer_checksum`] where the SA asks for a UDP checksum.
//! Receiving: [`Geometry::open`], then decapsulate. The room needs 24 octets of headroom (plus UDP header and marker, plus
//! the outer IP header) and up to 21 octets of tailroom (plus TFC padding).

use crate::esp::{self, Ipv6UdpChecksum, LastOptions, UdpEncapsulation};
use crate::esp_transform::{self, Opened, Payload};
use crate::geometry::Geometry;
use crate::ip::protocol;
use crate::outer::{Endpoints, OuterTemplate, PerPacket};
use crate::packet::{Parsed, Plain, Protocol};
use crate::room::{NoRoom, Room};
use crate::transform::{self, Decapsulated, Refused};
use crate::wespv2::{self, BadPayload, HEADER_LENGTH, Header, Located, Parameters, UDP_MARKER};
use crate::{bytes, l4_checksum, option, udp};

/// Wraps the frame's IP packet whole into an outer IP header, WESPv2 and ESP. VLAN tags stay, the EtherType follows the
/// outer family, octets after the IP packet are dropped. Inner fragments are carried.
///
/// `sequence` is the packet's own, above zero.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_tunnel(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    sequence: u64,
    outer: &OuterTemplate,
    per_packet: PerPacket,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    let esp = parameters.esp();
    let inner_length = plain.l3_end - plain.l3_offset;
    let payload = Payload {
        inner_length,
        payload_length: inner_length.max(usize::from(esp.tfc_length)),
        next_header: transform::tunnel_next_header(plain),
    };
    let is_ipv6 = matches!(outer.endpoints, Endpoints::V6 { .. });
    let shape = Shape::new(parameters, sequence, is_ipv6, &payload)?;
    let outer_payload = shape.carrier_length + shape.length(parameters, &payload);
    let outer = outer.header(plain, outer_protocol(parameters), outer_payload, per_packet)?;
    let front = outer.length() + shape.front();
    let back = outer.length() + outer_payload - front - inner_length;
    transform::grow(room, plain.l3_end, front, back)?;
    let frame = room.frame_mut();
    transform::enter_tunnel(frame, plain, &outer, front)?;
    finish(frame, parameters, sequence, plain.l3_offset + outer.length(), &shape, &payload)
}

/// Puts WESPv2 and ESP between the frame's IP header, with its options or extension headers, and the upper protocol. Octets
/// after the IP packet are dropped; nothing else is lost, so that opening gives back every octet. A packet of protocol 144
/// may take this way through an SA of any mode, as with ESP.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_transport(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    sequence: u64,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    let esp = parameters.esp();
    if plain.next_header == protocol::NO_NEXT_HEADER {
        return Err(Refused::AmbiguousNextHeader);
    }
    if esp.tfc_length != 0 && plain.next_header != protocol::AGGFRAG {
        return Err(Refused::TfcPadding);
    }
    if plain.fragment {
        return Err(Refused::Fragment);
    }
    if has_ipv6_checksum(esp.udp.as_ref()) && l4_checksum::route_ahead(room.frame(), plain) {
        return Err(Refused::RouteAhead);
    }
    let inside;
    let outside = match esp.last_options {
        LastOptions::Outside => plain,
        LastOptions::Inside => {
            inside = transform::without_last_options(room.frame(), plain)?;
            &inside
        }
    };
    let offset = outside.l4_offset();
    let inner_length = outside.l3_end.checked_sub(offset).ok_or(Refused::StaleParse)?;
    let payload = Payload { inner_length, payload_length: inner_length, next_header: outside.next_header };
    let shape = Shape::new(parameters, sequence, plain.ip_version == 6, &payload)?;
    let carried = shape.carrier_length + shape.length(parameters, &payload);
    let ip_length = transform::ip_length(outside, carried)?;
    let front = shape.front();
    transform::grow(room, outside.l3_end, front, carried - front - inner_length)?;
    let frame = room.frame_mut();
    bytes::shift(frame, front, 0, offset)?;
    transform::patch_ip(frame, outside, outer_protocol(parameters), ip_length)?;
    finish(frame, parameters, sequence, offset, &shape, &payload)
}

/// Computes the checksum of the UDP header around a sealed packet, as
/// [`esp_transform::finish_outer_checksum`] does for ESP.
///
/// # Errors
/// [`NoRoom`] where the frame is no packet of such an SA.
#[inline]
pub fn finish_outer_checksum(frame: &mut [u8], parameters: &Parameters) -> Result<(), NoRoom> {
    esp_transform::finish_outer_checksum(frame, parameters.esp())
}

/// Why an authenticated packet is not decapsulated.
pub type Rejected = transform::RejectedWith<BadPayload>;

impl From<BadPayload> for Rejected {
    fn from(payload: BadPayload) -> Self {
        Self::Payload(payload)
    }
}

/// Takes the inner packet out of an opened tunnel packet, as [`esp_transform::decapsulate_tunnel`] does for ESP.
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

/// Takes WESPv2 and ESP, and UDP where they came in it, out of an opened transport packet: the IP header gets its upper
/// protocol and length back.
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
    let opened = opened(room, parsed, located, parameters)?;
    if opened.next_header == protocol::NO_NEXT_HEADER {
        return Ok(Decapsulated::Dummy);
    }
    Ok(esp_transform::leave_transport(room, parsed, &opened)?)
}

/// What stands in front of the ESP packet that is to be sent.
struct Shape {
    /// Octets of UDP header and marker.
    carrier_length: usize,
    header: Header,
    /// Octets of SPI, sequence number and IV.
    esp_header_length: usize,
}

impl Shape {
    /// Checks what must hold before a packet may have this sequence number, and lays it out. `is_ipv6` is of the outer IP
    /// header.
    #[inline]
    fn new(
        parameters: &Parameters,
        sequence: u64,
        is_ipv6: bool,
        payload: &Payload,
    ) -> Result<Self, Refused> {
        let esp = parameters.esp();
        esp_transform::check_parameters(esp, sequence)?;
        let crypt_offset = parameters.crypt_offset();
        if usize::from(crypt_offset) * 4 > payload.payload_length {
            return Err(Refused::CryptOffsetPastEnd);
        }
        let esp_header_length = esp.header_length();
        let boundary = if is_ipv6 && esp.udp.is_none() { 8 } else { 4 };
        let unpadded = HEADER_LENGTH + esp_header_length;
        let option_length = unpadded.next_multiple_of(boundary) - unpadded;
        let header = Header {
            next_header: if crypt_offset == 0 { protocol::NO_NEXT_HEADER } else { payload.next_header },
            header_length: u8::try_from(unpadded + option_length).map_err(|_| Refused::TooLong)?,
            crypt_offset,
            option_length: u8::try_from(option_length).map_err(|_| Refused::TooLong)?,
        };
        let carrier_length = if esp.udp.is_some() { udp::HEADER_LENGTH + UDP_MARKER.len() } else { 0 };
        Ok(Self { carrier_length, header, esp_header_length })
    }

    /// Octets from the WESPv2 header's first to the ICV's last.
    #[inline]
    const fn length(&self, parameters: &Parameters, payload: &Payload) -> usize {
        let octets = payload.payload_length;
        self.header.esp_offset() + octets + parameters.esp().overhead(octets)
    }

    /// Octets before the inner packet, without an outer IP header.
    #[inline]
    const fn front(&self) -> usize {
        self.carrier_length + self.header.esp_offset() + self.esp_header_length
    }
}

/// What the outer IP header names.
#[inline]
const fn outer_protocol(parameters: &Parameters) -> u8 {
    if parameters.esp().udp.is_some() { protocol::UDP } else { wespv2::PROTOCOL }
}

/// Whether the UDP header has a checksum over IPv6.
#[inline]
fn has_ipv6_checksum(udp: Option<&UdpEncapsulation>) -> bool {
    udp.is_some_and(|udp| udp.ipv6_checksum == Ipv6UdpChecksum::Computed)
}

/// Writes UDP header and marker, WESPv2 and ESP around the inner packet, and says where the cipher works. `offset` is the
/// end of the outer IP header.
#[inline(always)]
fn finish(
    frame: &mut [u8],
    parameters: &Parameters,
    sequence: u64,
    offset: usize,
    shape: &Shape,
    payload: &Payload,
) -> Result<Geometry, Refused> {
    let (esp, end) = (parameters.esp(), frame.len());
    if let Some(encapsulation) = &esp.udp {
        let header = udp::Header {
            source_port: encapsulation.ports.source,
            destination_port: encapsulation.ports.destination,
            length: u16::try_from(end.saturating_sub(offset)).map_err(|_| Refused::TooLong)?,
            checksum: 0,
        };
        header.emit(frame.get_mut(offset..).ok_or(NoRoom)?)?;
        bytes::put(frame, offset + udp::HEADER_LENGTH, &UDP_MARKER)?;
    }
    let offset = offset + shape.carrier_length;
    let packet = frame.get_mut(offset..).ok_or(NoRoom)?;
    shape.header.emit(packet)?;
    let esp_offset = shape.header.esp_offset();
    option::emit_padding(packet.get_mut(HEADER_LENGTH..esp_offset).ok_or(NoRoom)?)?;
    let header = esp::Header { spi: esp.spi, sequence: sequence as u32 };
    header.emit(packet.get_mut(esp_offset..).ok_or(NoRoom)?)?;
    let iv = sequence.to_be_bytes();
    if esp.cipher.iv_length() != 0 {
        bytes::put(packet, esp_offset + esp::field::IV.start, &iv)?;
    }
    let body = esp::body(esp, offset + esp_offset, end).ok_or(Refused::StaleParse)?;
    let body = frame.get_mut(body.range()).ok_or(NoRoom)?;
    body.get_mut(payload.inner_length..payload.payload_length).ok_or(NoRoom)?.fill(0);
    esp::emit_trailer(body.get_mut(payload.payload_length..).ok_or(NoRoom)?, payload.next_header)?;
    wespv2::geometry(parameters, &shape.header, iv, offset, end).map_err(|_| Refused::StaleParse)
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
    if parsed.protocol != Protocol::Wespv2 {
        return Err(stale.into());
    }
    transform::check_plain(&parsed.plain, room.length()).map_err(|_| stale)?;
    let l4_offset = parsed.plain.l4_offset();
    let expected = match parsed.udp_offset {
        None => l4_offset,
        Some(offset) if offset == l4_offset => l4_offset + udp::HEADER_LENGTH + UDP_MARKER.len(),
        Some(_) => return Err(stale.into()),
    };
    let header = &located.header;
    if located.offset != expected
        || header.esp_offset() + parameters.esp().header_length() != usize::from(header.header_length)
    {
        return Err(stale.into());
    }
    let esp_offset = expected + header.esp_offset();
    let body = esp::body(parameters.esp(), esp_offset, parsed.plain.l3_end).ok_or(stale)?;
    let trailer = esp::parse_trailer(room.frame().get(body.range()).ok_or(stale)?)
        .map_err(transform::Rejected::Trailer)?;
    if header.crypt_offset > parameters.maximum_crypt_offset()
        || usize::from(header.crypt_offset) * 4 > trailer.payload_length
    {
        return Err(BadPayload::CryptOffset.into());
    }
    if !located.agrees(trailer.next_header) {
        return Err(BadPayload::NextHeader.into());
    }
    Ok(Opened {
        next_header: trailer.next_header,
        payload_start: body.start,
        payload_end: body.start + trailer.payload_length,
    })
}
