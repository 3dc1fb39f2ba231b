//! ESP encapsulation and decapsulation of a frame in a [`Room`], apart from the cipher (RFC 4303, 3.1).
//!
//! ```text
//!   transport   L2 | IP            | upper                       ->  L2 | IP | ESP | upper | trailer | ICV
//!   tunnel      L2 | IP | upper (whole packet)                   ->  L2 | outer IP | ESP | IP | upper | trailer | ICV
//! ```
//!
//! Sending: encapsulate, then [`Geometry::seal`]. Receiving: [`Geometry::open`], then decapsulate. The room needs
//! 16 octets of headroom (plus the outer IP header) and up to 21 octets of tailroom.

use crate::esp::{self, Parameters};
use crate::geometry::Geometry;
use crate::ip::protocol;
use crate::outer::OuterTemplate;
use crate::packet::{Parsed, Plain, Protocol};
use crate::room::{NoRoom, Room};
use crate::transform::{self, Decapsulated, Refused, Rejected};
use crate::{aead::IcvLength, bytes};

/// Wraps the frame's IP packet whole into an outer IP header and ESP. The VLAN tag stays, the EtherType follows the
/// outer family, octets after the IP packet are dropped. Inner fragments are carried.
///
/// `sequence` is the packet's own, above zero; `identification` must be unique among outer IPv4 packets that may be
/// fragmented, and is not used where the don't-fragment flag is set.
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
    identification: u16,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    check_parameters(parameters, sequence)?;
    let inner_length = plain.l3_end - plain.l3_offset;
    let added = esp::overhead(inner_length, parameters.icv_length);
    let outer = outer.header(plain, protocol::ESP, inner_length + added, identification)?;
    let front = outer.length() + esp::HEADER_LENGTH;
    transform::grow(room, plain.l3_end, front, added - esp::HEADER_LENGTH)?;
    let frame = room.frame_mut();
    transform::enter_tunnel(frame, plain, &outer, front)?;
    let offset = plain.l3_offset + outer.length();
    let next_header = transform::tunnel_next_header(plain);
    finish(frame, parameters, sequence, offset, inner_length, next_header)
}

/// Puts ESP between the frame's IP header, with its options or extension headers, and the upper protocol. Octets
/// after the IP packet are dropped; nothing else is lost, so that opening gives back every octet.
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
    check_parameters(parameters, sequence)?;
    if plain.fragment {
        return Err(Refused::Fragment);
    }
    if plain.next_header == protocol::NO_NEXT_HEADER {
        return Err(Refused::AmbiguousNextHeader);
    }
    let offset = plain.l4_offset();
    let inner_length = plain.l3_end - offset;
    let added = esp::overhead(inner_length, parameters.icv_length);
    let ip_length = transform::ip_length(plain, inner_length + added)?;
    transform::grow(room, plain.l3_end, esp::HEADER_LENGTH, added - esp::HEADER_LENGTH)?;
    let frame = room.frame_mut();
    bytes::shift(frame, esp::HEADER_LENGTH, 0, offset)?;
    transform::patch_ip(frame, plain, protocol::ESP, ip_length)?;
    finish(frame, parameters, sequence, offset, inner_length, plain.next_header)
}

/// Takes the inner packet out of an opened tunnel packet: the outer header, ESP, trailer, ICV and TFC padding go, the
/// EtherType follows the inner family, the outer ECN is combined into the inner one (RFC 6040). `parsed` is what the
/// receive parser said of this frame.
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate_tunnel(
    room: &mut Room<'_>,
    parsed: &Parsed,
    icv_length: IcvLength,
) -> Result<Decapsulated, Rejected> {
    let trailer = opened_trailer(room, parsed, icv_length)?;
    if trailer.next_header == protocol::NO_NEXT_HEADER {
        return Ok(Decapsulated::Dummy);
    }
    let start = parsed.security_offset + esp::HEADER_LENGTH;
    transform::leave_tunnel(room, &parsed.plain, trailer.next_header, start, start + trailer.payload_length)
}

/// Takes ESP out of an opened transport packet: the IP header gets its upper protocol and length back. `parsed` is what
/// the receive parser said of this frame.
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate_transport(
    room: &mut Room<'_>,
    parsed: &Parsed,
    icv_length: IcvLength,
) -> Result<Decapsulated, Rejected> {
    let trailer = opened_trailer(room, parsed, icv_length)?;
    let next_header = trailer.next_header;
    if next_header == protocol::NO_NEXT_HEADER {
        return Ok(Decapsulated::Dummy);
    }
    let (plain, offset) = (&parsed.plain, parsed.security_offset);
    let ip_length = transform::ip_length(plain, trailer.payload_length).map_err(|_| Rejected::StaleParse)?;
    let frame = room.frame_mut();
    transform::patch_ip(frame, plain, next_header, ip_length)?;
    bytes::shift(frame, 0, esp::HEADER_LENGTH, offset)?;
    room.pop_front(esp::HEADER_LENGTH)?;
    room.truncate(offset + trailer.payload_length)?;
    Ok(Decapsulated::Packet { next_header })
}

/// Checks what must hold before a packet may have this sequence number.
#[inline]
fn check_parameters(parameters: &Parameters, sequence: u64) -> Result<(), Refused> {
    if parameters.spi <= esp::LAST_RESERVED_SPI {
        return Err(Refused::ReservedSpi);
    }
    if sequence == 0 || (!parameters.extended_sequence && sequence > u64::from(u32::MAX)) {
        return Err(Refused::SequenceExhausted);
    }
    Ok(())
}

/// Writes ESP header and trailer around the payload, and says where the cipher works.
#[inline]
fn finish(
    frame: &mut [u8],
    parameters: &Parameters,
    sequence: u64,
    offset: usize,
    inner_length: usize,
    next_header: u8,
) -> Result<Geometry, Refused> {
    let end = frame.len();
    let geometry = esp::transmit_geometry(parameters, sequence, offset, end).ok_or(Refused::StaleParse)?;
    let header = esp::Header { spi: parameters.spi, sequence: sequence as u32, iv: sequence.to_be_bytes() };
    header.emit(frame.get_mut(offset..).ok_or(NoRoom)?)?;
    let trailer_start = geometry.text.start + inner_length;
    let trailer = frame.get_mut(trailer_start..geometry.text.end).ok_or(NoRoom)?;
    esp::emit_trailer(trailer, next_header)?;
    Ok(geometry)
}

/// The trailer of an opened packet.
#[inline]
fn opened_trailer(room: &Room<'_>, parsed: &Parsed, icv_length: IcvLength) -> Result<esp::Trailer, Rejected> {
    if parsed.protocol != Protocol::Esp {
        return Err(Rejected::StaleParse);
    }
    transform::check_plain(&parsed.plain, room.length()).map_err(|_| Rejected::StaleParse)?;
    if parsed.security_offset != parsed.plain.l4_offset() {
        return Err(Rejected::StaleParse);
    }
    let text_start = parsed.security_offset.saturating_add(esp::HEADER_LENGTH);
    let text_end = parsed.plain.l3_end.checked_sub(icv_length.octets()).ok_or(Rejected::StaleParse)?;
    let text = room.frame().get(text_start..text_end).ok_or(Rejected::StaleParse)?;
    Ok(esp::parse_trailer(text)?)
}
