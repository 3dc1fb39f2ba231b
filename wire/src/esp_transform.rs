//! ESP encapsulation and decapsulation of a frame in a [`Room`], apart from the cipher (RFC 4303, 3.1; RFC 3948).
//!
//! ```text
//!   transport   L2 | IP            | upper                 ->  L2 | IP (| UDP) | ESP | upper | trailer | ICV
//!   tunnel      L2 | IP | upper (whole packet)             ->  L2 | outer IP (| UDP) | ESP | IP | upper (| TFC) | trailer | ICV
//! ```
//! BEET mode is in [`esp_beet`](crate::esp_beet).
//!
//! Sending: encapsulate, then [`Geometry::seal`], then [`finish_outer_checksum`] where the SA asks for a UDP checksum.
//! Receiving: [`Geometry::open`], then decapsulate. The room needs 16 octets of headroom (plus the UDP header, plus the
//! outer IP header) and up to 21 octets of tailroom (plus TFC padding).

use crate::bytes;
use crate::esp::{self, Ipv6UdpChecksum, LastOptions, Parameters};
use crate::geometry::Geometry;
use crate::ip::protocol;
use crate::l4_checksum;
use crate::outer::{OuterTemplate, PerPacket};
use crate::packet::{Parsed, Plain, Protocol};
use crate::room::{NoRoom, Room};
use crate::transform::{self, Decapsulated, Refused, Rejected};
use crate::udp;

/// Wraps the frame's IP packet whole into an outer IP header and ESP. VLAN tags stay, the EtherType follows the
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
    let next_header = transform::tunnel_next_header(plain);
    tunnel(room, plain, parameters, sequence, outer, per_packet, next_header)
}

/// Puts ESP between the frame's IP header, with its options or extension headers, and the upper protocol. Octets
/// after the IP packet are dropped; nothing else is lost, so that opening gives back every octet.
///
/// A packet of protocol 144 may take this way through an SA of any mode: it leaves under its own IP header, and comes out
/// of the far end's decapsulation under the same, whatever the mode there.
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
    if plain.next_header == protocol::NO_NEXT_HEADER {
        return Err(Refused::AmbiguousNextHeader);
    }
    if parameters.tfc_length != 0 && plain.next_header != protocol::AGGFRAG {
        return Err(Refused::TfcPadding);
    }
    transport(room, plain, parameters, sequence, None)
}

/// Makes the frame a dummy packet, which the receiver drops once its ICV is good (RFC 4303, 2.6). With `outer` the whole IP
/// packet is what the dummy carries, as in tunnel mode; without it the frame's own IP header leaves, as in transport mode.
/// It takes a sequence number like any other packet.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_dummy(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    sequence: u64,
    outer: Option<(&OuterTemplate, PerPacket)>,
) -> Result<Geometry, Refused> {
    let next_header = protocol::NO_NEXT_HEADER;
    match outer {
        Some((outer, per_packet)) => {
            tunnel(room, plain, parameters, sequence, outer, per_packet, next_header)
        }
        None => transport(room, plain, parameters, sequence, Some(next_header)),
    }
}

/// Computes the checksum of the UDP header around a sealed packet, where the SA wants one and the outer header is IPv6
/// ([`Ipv6UdpChecksum::Computed`]); it covers the ciphertext and the ICV, so nothing of the packet may change afterwards.
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

/// Takes the inner packet out of an opened tunnel packet: the outer headers, ESP, trailer, ICV and TFC padding go, the
/// EtherType follows the inner family, the outer ECN is combined into the inner one (RFC 6040). `parsed` is what the
/// receive parser said of this frame. Next header 144 is left under the outer IP header, as in transport mode (RFC 9347).
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate_tunnel(
    room: &mut Room<'_>,
    parsed: &Parsed,
    parameters: &Parameters,
) -> Result<Decapsulated, Rejected> {
    let opened = opened(room, parsed, parameters)?;
    leave_tunnel(room, parsed, &opened)
}

/// Takes ESP, and UDP where it came in it, out of an opened transport packet: the IP header gets its upper protocol and
/// length back. `parsed` is what the receive parser said of this frame.
///
/// A TCP or UDP checksum inside may be wrong where the packet came through NAT in UDP (RFC 3948, 3.1.2).
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate_transport(
    room: &mut Room<'_>,
    parsed: &Parsed,
    parameters: &Parameters,
) -> Result<Decapsulated, Rejected> {
    let opened = opened(room, parsed, parameters)?;
    if opened.next_header == protocol::NO_NEXT_HEADER {
        return Ok(Decapsulated::Dummy);
    }
    leave_transport(room, parsed, &opened)
}

/// Tunnel mode with any next header in the trailer.
#[inline]
fn tunnel(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    sequence: u64,
    outer: &OuterTemplate,
    per_packet: PerPacket,
    next_header: u8,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    check_parameters(parameters, sequence)?;
    let inner_length = plain.l3_end - plain.l3_offset;
    let payload_length = inner_length.max(usize::from(parameters.tfc_length));
    let udp_length = udp_length(parameters);
    let outer_payload = udp_length + payload_length + parameters.overhead(payload_length);
    let outer = outer.header(plain, outer_protocol(parameters), outer_payload, per_packet)?;
    let front = outer.length() + udp_length + parameters.header_length();
    let back = outer.length() + outer_payload - front - inner_length;
    transform::grow(room, plain.l3_end, front, back)?;
    let frame = room.frame_mut();
    transform::enter_tunnel(frame, plain, &outer, front)?;
    let offset = plain.l3_offset + outer.length();
    finish(frame, parameters, sequence, offset, Payload { inner_length, payload_length, next_header })
}

/// Transport mode; `dummy` is another next header than the packet's own.
#[inline]
fn transport(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    sequence: u64,
    dummy: Option<u8>,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    check_parameters(parameters, sequence)?;
    if plain.fragment {
        return Err(Refused::Fragment);
    }
    if has_ipv6_checksum(parameters) && l4_checksum::route_ahead(room.frame(), plain) {
        return Err(Refused::RouteAhead);
    }
    let inside;
    let outside = match parameters.last_options {
        LastOptions::Outside => plain,
        LastOptions::Inside => {
            inside = transform::without_last_options(room.frame(), plain)?;
            &inside
        }
    };
    let offset = outside.l4_offset();
    let inner_length = outside.l3_end.checked_sub(offset).ok_or(Refused::StaleParse)?;
    let udp_length = udp_length(parameters);
    let front = udp_length + parameters.header_length();
    let added = udp_length + parameters.overhead(inner_length);
    let ip_length = transform::ip_length(outside, inner_length + added)?;
    transform::grow(room, outside.l3_end, front, added - front)?;
    let frame = room.frame_mut();
    bytes::shift(frame, front, 0, offset)?;
    transform::patch_ip(frame, outside, outer_protocol(parameters), ip_length)?;
    let next_header = dummy.unwrap_or(outside.next_header);
    let payload = Payload { inner_length, payload_length: inner_length, next_header };
    finish(frame, parameters, sequence, offset, payload)
}

/// Takes out what a tunnel packet carries, whatever it is.
#[inline(always)]
pub(crate) fn leave_tunnel(
    room: &mut Room<'_>,
    parsed: &Parsed,
    opened: &Opened,
) -> Result<Decapsulated, Rejected> {
    match opened.next_header {
        protocol::NO_NEXT_HEADER => Ok(Decapsulated::Dummy),
        protocol::AGGFRAG => leave_transport(room, parsed, opened),
        number => {
            transform::leave_tunnel(room, &parsed.plain, number, opened.payload_start, opened.payload_end)
        }
    }
}

/// Closes the gap between the outer IP header and the payload.
#[inline(always)]
pub(crate) fn leave_transport(
    room: &mut Room<'_>,
    parsed: &Parsed,
    opened: &Opened,
) -> Result<Decapsulated, Rejected> {
    let (plain, offset, next_header) = (&parsed.plain, parsed.plain.l4_offset(), opened.next_header);
    let payload_length = opened.payload_end - opened.payload_start;
    let ip_length = transform::ip_length(plain, payload_length).map_err(|_| Rejected::StaleParse)?;
    let gap = opened.payload_start - offset;
    let frame = room.frame_mut();
    transform::patch_ip(frame, plain, next_header, ip_length)?;
    bytes::shift(frame, 0, gap, offset)?;
    room.pop_front(gap)?;
    room.truncate(offset + payload_length)?;
    Ok(Decapsulated::Packet { next_header })
}

/// Checks what must hold before a packet may have this sequence number.
#[inline]
pub(crate) fn check_parameters(parameters: &Parameters, sequence: u64) -> Result<(), Refused> {
    if parameters.spi <= esp::LAST_RESERVED_SPI {
        return Err(Refused::ReservedSpi);
    }
    if sequence == 0 || (!parameters.extended_sequence && sequence > u64::from(u32::MAX)) {
        return Err(Refused::SequenceExhausted);
    }
    if !parameters.cipher.has_icv_length(parameters.icv_length) {
        return Err(Refused::IcvLength);
    }
    Ok(())
}

/// Whether the UDP header around ESP has a checksum over IPv6.
#[inline]
fn has_ipv6_checksum(parameters: &Parameters) -> bool {
    parameters.udp.is_some_and(|udp| udp.ipv6_checksum == Ipv6UdpChecksum::Computed)
}

/// Octets of the UDP header that the SA puts around ESP.
#[inline]
pub(crate) const fn udp_length(parameters: &Parameters) -> usize {
    if parameters.udp.is_some() { udp::HEADER_LENGTH } else { 0 }
}

/// What the outer IP header names.
#[inline]
pub(crate) const fn outer_protocol(parameters: &Parameters) -> u8 {
    if parameters.udp.is_some() { protocol::UDP } else { protocol::ESP }
}

/// What stands between ESP header and trailer.
pub(crate) struct Payload {
    /// Octets of the packet.
    pub inner_length: usize,
    /// The same with TFC padding.
    pub payload_length: usize,
    /// What the trailer names.
    pub next_header: u8,
}

/// Writes UDP and ESP header, TFC padding and trailer around the payload, and says where the cipher works. `offset` is the
/// end of the outer IP header.
#[inline(always)]
pub(crate) fn finish(
    frame: &mut [u8],
    parameters: &Parameters,
    sequence: u64,
    offset: usize,
    payload: Payload,
) -> Result<Geometry, Refused> {
    let end = frame.len();
    if let Some(encapsulation) = &parameters.udp {
        let header = udp::Header {
            source_port: encapsulation.ports.source,
            destination_port: encapsulation.ports.destination,
            length: u16::try_from(end.saturating_sub(offset)).map_err(|_| Refused::TooLong)?,
            checksum: 0,
        };
        header.emit(frame.get_mut(offset..).ok_or(NoRoom)?)?;
    }
    let offset = offset + udp_length(parameters);
    let header = esp::Header { spi: parameters.spi, sequence: sequence as u32 };
    header.emit(frame.get_mut(offset..).ok_or(NoRoom)?)?;
    if parameters.cipher.iv_length() != 0 {
        bytes::put(frame, offset + esp::field::IV.start, &sequence.to_be_bytes())?;
    }
    let body = esp::body(parameters, offset, end).ok_or(Refused::StaleParse)?;
    let body = frame.get_mut(body.range()).ok_or(NoRoom)?;
    body.get_mut(payload.inner_length..payload.payload_length).ok_or(NoRoom)?.fill(0);
    esp::emit_trailer(body.get_mut(payload.payload_length..).ok_or(NoRoom)?, payload.next_header)?;
    esp::transmit_geometry(parameters, sequence, offset, end).ok_or(Refused::StaleParse)
}

/// What an opened packet carries.
pub(crate) struct Opened {
    /// What the trailer names.
    pub next_header: u8,
    /// First octet of the payload; not before the end of the outer IP header.
    pub payload_start: usize,
    /// One past the payload's last octet, TFC padding included; not before its start.
    pub payload_end: usize,
}

/// Reads the trailer of an opened packet.
#[inline(always)]
pub(crate) fn opened(room: &Room<'_>, parsed: &Parsed, parameters: &Parameters) -> Result<Opened, Rejected> {
    if parsed.protocol != Protocol::Esp {
        return Err(Rejected::StaleParse);
    }
    transform::check_plain(&parsed.plain, room.length()).map_err(|_| Rejected::StaleParse)?;
    let l4_offset = parsed.plain.l4_offset();
    let expected = match parsed.udp_offset {
        None => l4_offset,
        Some(offset) if offset == l4_offset => l4_offset + udp::HEADER_LENGTH,
        Some(_) => return Err(Rejected::StaleParse),
    };
    if parsed.security_offset != expected {
        return Err(Rejected::StaleParse);
    }
    let body = esp::body(parameters, expected, parsed.plain.l3_end).ok_or(Rejected::StaleParse)?;
    let trailer = esp::parse_trailer(room.frame().get(body.range()).ok_or(Rejected::StaleParse)?)?;
    Ok(Opened {
        next_header: trailer.next_header,
        payload_start: body.start,
        payload_end: body.start + trailer.payload_length,
    })
}
