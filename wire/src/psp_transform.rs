//! PSP encapsulation and decapsulation of a frame in a [`Room`], apart from the cipher.
//!
//! ```text
//!   transport   L2 | IP            | upper           ->  L2 | IP | UDP | PSP | upper | ICV
//!   tunnel      L2 | IP | upper (whole packet)       ->  L2 | outer IP | UDP | PSP | IP | upper | ICV
//! ```
//!
//!   pre-formatted   L2 | IP | UDP | PSP | payload    ->  the same with SPI, IV, lengths and checksums | ICV
//!
//! Sending: encapsulate, or [`complete_preformatted`], then [`Geometry::seal`]. Receiving: [`Geometry::open`], then
//! [`psp::opened`] for cookie and extension, then decapsulate. The room needs 24 octets of headroom (plus cookie,
//! extension and outer IP header) and 16 octets of tailroom.

use crate::bytes;
use crate::geometry::Geometry;
use crate::ip::protocol;
use crate::outer::{OuterTemplate, PerPacket};
use crate::packet::{Parsed, Plain, Ports, Protocol};
use crate::psp::{self, Parameters};
use crate::room::{NoRoom, Room};
use crate::transform::{self, Decapsulated, Refused, Rejected};
use crate::{checksum, ipv4, udp};

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
    parameters: &Parameters<'_>,
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
    finish(frame, parameters, &parameters.header(plain.next_header, iv), ports, offset)
}

/// Wraps the frame's IP packet whole into an outer IP header, UDP and PSP. VLAN tags stay, the EtherType
/// follows the outer family, octets after the IP packet are dropped. Inner fragments are carried.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_tunnel(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters<'_>,
    iv: u64,
    ports: Ports,
    outer: &OuterTemplate,
    per_packet: PerPacket,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    let inner_length = plain.l3_end - plain.l3_offset;
    check_parameters(parameters, inner_length)?;
    let added = udp::HEADER_LENGTH + parameters.header_length();
    let payload_length = added + inner_length + psp::ICV_LENGTH;
    let outer = outer.header(plain, protocol::UDP, payload_length, per_packet)?;
    u16::try_from(payload_length).map_err(|_| Refused::TooLong)?;
    let front = outer.length() + added;
    transform::grow(room, plain.l3_end, front, psp::ICV_LENGTH)?;
    let frame = room.frame_mut();
    transform::enter_tunnel(frame, plain, &outer, front)?;
    let header = parameters.header(transform::tunnel_next_header(plain), iv);
    finish(frame, parameters, &header, ports, plain.l3_offset + outer.length())
}

/// What the NIC puts into a frame that has its headers already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// UDP destination port of PSP.
    pub udp_port: u16,
    /// Security parameters index of the key.
    pub spi: u32,
    /// The key's version, which the header must name.
    pub version: psp::Version,
    /// Initialization vector.
    pub iv: u64,
}

/// Completes a frame that holds IP, UDP and PSP header and payload, but no ICV (specification, "Implementation
/// Requirements"): writes SPI and IV, room for the ICV, IP and UDP length, IPv4 checksum, and a UDP checksum of zero. The
/// SPI and IV that stand there do not matter, and the reserved bits are sent as zero. Octets after the IP packet are
/// dropped.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn complete_preformatted(
    room: &mut Room<'_>,
    plain: &Plain,
    completion: &Completion,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    if plain.fragment {
        return Err(Refused::Fragment);
    }
    let to_psp = plain.ports.is_some_and(|ports| ports.destination == completion.udp_port);
    if plain.next_header != protocol::UDP || !to_psp {
        return Err(Refused::NotPreformatted);
    }
    let offset = plain.l4_offset();
    let security_offset = offset + udp::HEADER_LENGTH;
    let packet = room.frame().get(security_offset..plain.l3_end).ok_or(Refused::NotPreformatted)?;
    if completion.spi & psp::SPI_COUNT_MASK == 0 {
        return Err(Refused::ReservedSpi);
    }
    let header = psp::Header::parse_with_spi(packet, Some(completion.spi)).map_err(Refused::Preformatted)?;
    if header.version != completion.version {
        return Err(Refused::PreformattedVersion);
    }
    if !header.version.encrypts() && header.crypt_offset != 0 {
        return Err(Refused::CryptOffsetWithoutEncryption);
    }
    let header = psp::Header { iv: completion.iv, reserved: 0, ..header };
    let end = plain.l3_end + psp::ICV_LENGTH;
    let geometry = psp::geometry(&header, security_offset, end).map_err(Refused::Preformatted)?;
    let udp_length = u16::try_from(end - offset).map_err(|_| Refused::TooLong)?;
    let ip_length = transform::ip_length(plain, end - offset)?;
    transform::grow(room, plain.l3_end, 0, psp::ICV_LENGTH)?;
    let frame = room.frame_mut();
    header.emit(frame.get_mut(security_offset..).ok_or(NoRoom)?)?;
    bytes::put(frame, offset + udp::field::LENGTH.start, &udp_length.to_be_bytes())?;
    bytes::put(frame, offset + udp::field::CHECKSUM.start, &[0, 0])?;
    transform::patch_ip(frame, plain, protocol::UDP, ip_length)?;
    if plain.ip_version == 4 {
        let header = frame.get_mut(plain.l3_offset..offset).ok_or(NoRoom)?;
        bytes::put(header, ipv4::field::CHECKSUM.start, &[0, 0])?;
        let sum = checksum::checksum(header);
        bytes::put(header, ipv4::field::CHECKSUM.start, &sum.to_be_bytes())?;
    }
    Ok(geometry)
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
    if parsed.protocol != Protocol::Psp
        || parsed.udp_offset != Some(offset)
        || parsed.security_offset != offset.saturating_add(udp::HEADER_LENGTH)
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
fn check_parameters(parameters: &Parameters<'_>, inner_length: usize) -> Result<(), Refused> {
    if parameters.spi & psp::SPI_COUNT_MASK == 0 {
        return Err(Refused::ReservedSpi);
    }
    if !parameters.version.encrypts() && parameters.crypt_offset != 0 {
        return Err(Refused::CryptOffsetWithoutEncryption);
    }
    if !parameters.extension.len().is_multiple_of(psp::EXTENSION_UNIT)
        || parameters.header_length() > psp::MAX_HEADER_LENGTH
    {
        return Err(Refused::PspExtension);
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
fn finish(
    frame: &mut [u8],
    parameters: &Parameters<'_>,
    header: &psp::Header,
    ports: Ports,
    offset: usize,
) -> Result<Geometry, Refused> {
    let end = frame.len();
    let length = u16::try_from(end.saturating_sub(offset)).map_err(|_| Refused::TooLong)?;
    let udp_header =
        udp::Header { source_port: ports.source, destination_port: ports.destination, length, checksum: 0 };
    udp_header.emit(frame.get_mut(offset..).ok_or(NoRoom)?)?;
    let security_offset = offset + udp::HEADER_LENGTH;
    header.emit(frame.get_mut(security_offset..).ok_or(NoRoom)?)?;
    bytes::put(frame, security_offset + parameters.extension_offset(), parameters.extension)?;
    psp::geometry(header, security_offset, end).map_err(|_| Refused::StaleParse)
}
