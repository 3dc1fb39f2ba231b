//! ESP in BEET mode, Bound End-to-End Tunnel (RFC 7402, appendix B): on the wire like transport mode, but the inner
//! addresses are constants of the SA, and are put back by the receiver.
//!
//! ```text
//!   BEET   L2 | inner IP | upper   ->  L2 | outer IP (| UDP) | ESP | upper | trailer | ICV
//! ```
//!
//! The inner header does not travel. What can change from packet to packet goes with the outer header: traffic class,
//! TTL or hop limit, and where both are of one family don't-fragment, identification and flow label. IPv4 inside IPv6
//! comes out with don't-fragment set and no identification, which makes it atomic (RFC 6864, 4). Not carried, and refused by
//! name: IPv4 options, IPv6 extension headers, fragments.

use crate::bytes;
use crate::esp::Parameters;
use crate::esp_transform::{
    Opened, Payload, check_parameters, finish, leave_transport, opened, outer_protocol, udp_length,
};
use crate::geometry::Geometry;
use crate::ip::protocol;
use crate::outer::{
    DontFragment, Dscp, Ecn, Endpoints, FlowLabel, OuterHeader, OuterTemplate, PerPacket, Ttl,
};
use crate::packet::{Parsed, Plain, widen};
use crate::room::Room;
use crate::transform::{self, Decapsulated, Refused, Rejected};
use crate::{ipv4, ipv6};

/// Puts the outer addresses in the place of the inner ones, and ESP after them. `inner` are the only addresses that the
/// packet may have; the families of `inner` and `outer` may differ. Octets after the IP packet are dropped.
///
/// # Errors
/// [`Refused`]; the frame is then as it was.
#[inline]
pub fn encapsulate_beet(
    room: &mut Room<'_>,
    plain: &Plain,
    parameters: &Parameters,
    sequence: u64,
    inner: &Endpoints,
    outer: &Endpoints,
) -> Result<Geometry, Refused> {
    transform::check_plain(plain, room.length())?;
    check_parameters(parameters, sequence)?;
    check_inner(plain, parameters, inner)?;
    let offset = plain.l4_offset();
    let inner_length = plain.l3_end - offset;
    let outer_payload = udp_length(parameters) + inner_length + parameters.overhead(inner_length);
    let per_packet = PerPacket::new(identification(room.frame(), plain));
    let outer = template(*outer).header(plain, outer_protocol(parameters), outer_payload, per_packet)?;
    let outer = with_identification(outer, per_packet.identification);
    let (old, new) =
        (plain.ip_header_length, outer.length() + udp_length(parameters) + parameters.header_length());
    let back = outer.length() + outer_payload - new - inner_length;
    if new.saturating_sub(old) > room.headroom() {
        return Err(Refused::NoRoom);
    }
    transform::grow(room, plain.l3_end, 0, back)?;
    transform::reshape(room, plain.l3_offset, old, new)?;
    let frame = room.frame_mut();
    transform::set_ethertype(frame, plain.l3_offset, outer.ethertype())?;
    outer.emit(frame.get_mut(plain.l3_offset..).ok_or(Refused::NoRoom)?)?;
    let payload = Payload { inner_length, payload_length: inner_length, next_header: plain.next_header };
    finish(frame, parameters, sequence, plain.l3_offset + outer.length(), payload)
}

/// Puts the inner header back before the payload of an opened packet: `inner` are its addresses, the rest comes from the
/// outer header. `parsed` is what the receive parser said of this frame. The room needs 12 octets of headroom for
/// IPv6 that came in IPv4 with an implicit IV. Next header 144 is left under the outer IP header (RFC 9347).
///
/// # Errors
/// [`Rejected`]; the frame is then as it was.
#[inline]
pub fn decapsulate_beet(
    room: &mut Room<'_>,
    parsed: &Parsed,
    parameters: &Parameters,
    inner: &Endpoints,
) -> Result<Decapsulated, Rejected> {
    let opened = opened(room, parsed, parameters)?;
    match opened.next_header {
        protocol::NO_NEXT_HEADER => Ok(Decapsulated::Dummy),
        protocol::AGGFRAG => leave_transport(room, parsed, &opened),
        protocol::BEET_PSEUDO_HEADER => Err(Rejected::BeetPseudoHeader),
        _ => rebuild(room, &parsed.plain, &opened, inner),
    }
}

/// Writes the inner header before the payload.
#[inline]
fn rebuild(
    room: &mut Room<'_>,
    outer: &Plain,
    opened: &Opened,
    inner: &Endpoints,
) -> Result<Decapsulated, Rejected> {
    let payload_length = opened.payload_end - opened.payload_start;
    let identification = identification(room.frame(), outer);
    let header = template(*inner)
        .header(outer, opened.next_header, payload_length, PerPacket::new(identification))
        .map_err(|_| Rejected::StaleParse)?;
    let header = with_identification(header, identification);
    let old = opened.payload_start - outer.l3_offset;
    if header.length().saturating_sub(old) > room.headroom() {
        return Err(Rejected::NoRoom);
    }
    room.truncate(opened.payload_end)?;
    transform::reshape(room, outer.l3_offset, old, header.length())?;
    let frame = room.frame_mut();
    transform::set_ethertype(frame, outer.l3_offset, header.ethertype())?;
    header.emit(frame.get_mut(outer.l3_offset..).ok_or(Rejected::StaleParse)?)?;
    Ok(Decapsulated::Packet { next_header: opened.next_header })
}

/// Checks that nothing of the inner header but what the outer one carries differs from what the SA knows.
#[inline]
fn check_inner(plain: &Plain, parameters: &Parameters, inner: &Endpoints) -> Result<(), Refused> {
    if plain.fragment {
        return Err(Refused::BeetFragment);
    }
    let bare = if plain.ip_version == 4 { ipv4::HEADER_LENGTH } else { ipv6::HEADER_LENGTH };
    if plain.ip_header_length != bare {
        return Err(Refused::BeetOptions);
    }
    let (version, source, destination) = match *inner {
        Endpoints::V4 { source, destination } => (4, widen(source), widen(destination)),
        Endpoints::V6 { source, destination } => (6, source, destination),
    };
    if (plain.ip_version, plain.source, plain.destination) != (version, source, destination) {
        return Err(Refused::BeetAddresses);
    }
    if matches!(
        plain.next_header,
        protocol::NO_NEXT_HEADER | protocol::BEET_PSEUDO_HEADER | protocol::AGGFRAG
    ) {
        return Err(Refused::AmbiguousNextHeader);
    }
    if parameters.tfc_length != 0 { Err(Refused::TfcPadding) } else { Ok(()) }
}

/// The header that carries over from the other side all that a header of its family can.
#[inline]
const fn template(endpoints: Endpoints) -> OuterTemplate {
    OuterTemplate {
        endpoints,
        ttl: Ttl::Copy,
        dscp: Dscp::Copy,
        ecn: Ecn::Copy,
        dont_fragment: DontFragment::Copy,
        flow_label: FlowLabel::Copy,
    }
}

/// The identification of a packet's IPv4 header, 0 for IPv6.
#[inline]
fn identification(frame: &[u8], plain: &Plain) -> u16 {
    if plain.ip_version != 4 {
        return 0;
    }
    let offset = plain.l3_offset.saturating_add(ipv4::field::IDENTIFICATION.start);
    bytes::word16(frame, offset).unwrap_or(0)
}

/// Keeps an identification even where don't-fragment makes it meaningless, as a header carried over has it.
#[inline]
fn with_identification(header: OuterHeader, identification: u16) -> OuterHeader {
    match header {
        OuterHeader::V4(header) => OuterHeader::V4(ipv4::Header { identification, ..header }.with_checksum()),
        OuterHeader::V6(header) => OuterHeader::V6(header),
    }
}
