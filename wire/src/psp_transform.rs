//! PSP encapsulation and decapsulation of a frame in a [`Room`], apart from the cipher.
//!
//! ```text
//!   transport   L2 | IP            | upper           ->  L2 | IP | UDP | PSP | upper | ICV
//!   tunnel      L2 | IP | upper (whole packet)       ->  L2 | outer IP | UDP | PSP | IP | upper | ICV
//! ```
//!
//! Sending: encapsulate, then [`Geometry::seal`]. Receiving: [`Geometry::open`], then decapsulate. The room needs
//! 24 octets of headroom (32 with a cookie, plus the outer IP header) and 16 octets of tailroom.

use crate::bytes;
use crate::geometry::Geometry;
use crate::ip::protocol;
use crate::outer::OuterTemplate;
use crate::packet::{Parsed, Plain, Ports, Protocol};
use crate::psp::{self, Parameters};
use crate::room::{NoRoom, Room};
use crate::transform::{self, Decapsulated, Refused, Rejected};
use crate::udp;

/// Puts UDP and PSP between the frame's IP header, with its options or extension headers, and the upper protocol.
/// `ports` are those of the new UDP header, whose checksum is zero. Octets after the IP packet are dropped; nothing
/// else is lost, so that opening gives back every octet.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_transport(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    iv: u64,
    ports: Ports,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    if plain.fragment {
        return Err(Refused::Fragment);
    }
    if matches!(plain.next_header, protocol::IPV4 | protocol::IPV6) {
        return Err(Refused::AmbiguousNextHeader);
    }
    let offset = plain.l4_offset();
    let inner_length = plain.l3_end - offset;
    check_parameters(parameters, inner_length)?;
    let front = udp::HEADER_LENGTH + parameters.header_length();
    let ip_length = transform::ip_length(plain, front + inner_length + psp::ICV_LENGTH)?;
    transform::grow(room, plain.l3_end, front, psp::ICV_LENGTH)?;
    let frame = room.frame_mut();
    bytes::shift(frame, front, 0, offset)?;
    transform::patch_ip(frame, plain, protocol::UDP, ip_length)?;
    finish(frame, &parameters.header(plain.next_header, iv), ports, offset)
}

/// Wraps the frame's IP packet whole into an outer IP header, UDP and PSP. The VLAN tag stays, the EtherType
/// follows the outer family, octets after the IP packet are dropped. Inner fragments are carried.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_tunnel(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    iv: u64,
    ports: Ports,
    outer: &OuterTemplate,
    identification: u16,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    let inner_length = plain.l3_end - plain.l3_offset;
    check_parameters(parameters, inner_length)?;
    let added = udp::HEADER_LENGTH + parameters.header_length();
    let payload_length = added + inner_length + psp::ICV_LENGTH;
    let outer = outer.header(plain, protocol::UDP, payload_length, identification)?;
    u16::try_from(payload_length).map_err(|_| Refused::TooLong)?;
    let front = outer.length() + added;
    transform::grow(room, plain.l3_end, front, psp::ICV_LENGTH)?;
    let frame = room.frame_mut();
    transform::enter_tunnel(frame, plain, &outer, front)?;
    let header = parameters.header(transform::tunnel_next_header(plain), iv);
    finish(frame, &header, ports, plain.l3_offset + outer.length())
}

/// Takes the original packet out of an opened PSP packet, in the mode its next header says: 4 and 41 are tunnel mode, with
/// the outer ECN combined into the inner one (RFC 6040), anything else is transport mode. Cookie and extension go
/// with the header; whoever wants them reads them before. `parsed` is what the receive parser said of this frame.
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate(room: &mut Room<'_>, parsed: &Parsed) -> Result<Decapsulated, Rejected> {
    let (plain, offset) = (&parsed.plain, parsed.plain.l4_offset());
    transform::check_plain(plain, room.length()).map_err(|_| Rejected::StaleParse)?;
    if parsed.protocol != Protocol::Psp || parsed.security_offset != offset.saturating_add(udp::HEADER_LENGTH)
    {
        return Err(Rejected::StaleParse);
    }
    let packet = room.frame().get(parsed.security_offset..plain.l3_end).ok_or(Rejected::StaleParse)?;
    let header = psp::Header::parse(packet).map_err(|_| Rejected::StaleParse)?;
    header.check_length(packet.len()).map_err(|_| Rejected::StaleParse)?;
    let front = udp::HEADER_LENGTH + header.length();
    let inner_start = offset + front;
    let inner_end = plain.l3_end - psp::ICV_LENGTH;
    let next_header = header.next_header;
    if matches!(next_header, protocol::IPV4 | protocol::IPV6) {
        return transform::leave_tunnel(room, plain, next_header, inner_start, inner_end);
    }
    let inner_length = inner_end - inner_start;
    let ip_length = transform::ip_length(plain, inner_length).map_err(|_| Rejected::StaleParse)?;
    let frame = room.frame_mut();
    transform::patch_ip(frame, plain, next_header, ip_length)?;
    bytes::shift(frame, 0, front, offset)?;
    room.pop_front(front)?;
    room.truncate(offset + inner_length)?;
    Ok(Decapsulated::Packet { next_header })
}

/// Checks what must hold before a payload of `inner_length` octets may be protected.
#[inline]
fn check_parameters(parameters: &Parameters, inner_length: usize) -> Result<(), Refused> {
    if parameters.spi & psp::SPI_COUNT_MASK == 0 {
        return Err(Refused::ReservedSpi);
    }
    if !parameters.version.encrypts() && parameters.crypt_offset != 0 {
        return Err(Refused::CryptOffsetWithoutEncryption);
    }
    let covered = parameters.header_length() - psp::HEADER_LENGTH + inner_length;
    if parameters.crypt_offset > psp::MAX_CRYPT_OFFSET
        || psp::crypt_offset_octets(parameters.crypt_offset) > covered
    {
        return Err(Refused::CryptOffsetPastEnd);
    }
    Ok(())
}

/// Writes UDP and PSP header before the payload, and says where the cipher works.
#[inline]
fn finish(frame: &mut [u8], header: &psp::Header, ports: Ports, offset: usize) -> Result<Geometry, Refused> {
    let end = frame.len();
    let length = u16::try_from(end.saturating_sub(offset)).map_err(|_| Refused::TooLong)?;
    let udp_header =
        udp::Header { source_port: ports.source, destination_port: ports.destination, length, checksum: 0 };
    udp_header.emit(frame.get_mut(offset..).ok_or(NoRoom)?)?;
    let security_offset = offset + udp::HEADER_LENGTH;
    header.emit(frame.get_mut(security_offset..).ok_or(NoRoom)?)?;
    psp::geometry(header, security_offset, end).map_err(|_| Refused::StaleParse)
}
