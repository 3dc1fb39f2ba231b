//! The byte work that encapsulations share: growing a frame, patching and restoring IP headers, tunnel entry and exit.
//!
//! The payload never moves. Headers before it move into the headroom to make a gap, or back to close one.

use core::fmt;

use crate::bytes;
use crate::checksum;
use crate::ecn;
use crate::esp::BadTrailer;
use crate::ethernet::{self, ethertype};
use crate::ip::{protocol, traffic_class};
use crate::malformed::Malformed;
use crate::outer::OuterHeader;
use crate::packet::{Plain, parse_transmit};
use crate::room::{NoRoom, Room};
use crate::{ipv4, ipv6, l4_checksum};

/// Why a packet is not encapsulated. The frame is then as it was, in clear: it must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The frame is not IP.
    NotIp,
    /// The packet is a fragment, which transport mode does not carry (RFC 4303, 3.1.1).
    Fragment,
    /// The packet is a fragment, which BEET mode cannot carry, for its fragment fields would be lost.
    BeetFragment,
    /// The packet has IPv4 options or IPv6 extension headers, which BEET mode does not carry here (RFC 7402, B.1 has a
    /// pseudo header for options).
    BeetOptions,
    /// The packet's addresses are not the two that the BEET SA is for: the far end would put others in their place.
    BeetAddresses,
    /// A length would not fit its 16-bit field.
    TooLong,
    /// The buffer has too little headroom or tailroom.
    NoRoom,
    /// The parse result does not belong to this frame.
    StaleParse,
    /// The SPI is one that is never sent.
    ReservedSpi,
    /// The sequence number is 0, or has more than 32 bits without extended sequence numbers.
    SequenceExhausted,
    /// The upper protocol would mean something else to the receiver: 59 in ESP transport and BEET mode is a dummy packet
    /// (RFC 4303, 2.6), 94 and 144 in BEET mode are not rebuilt, 4 and 41 in PSP are tunnel mode.
    AmbiguousNextHeader,
    /// The ICV length is none that the ESP cipher has.
    IcvLength,
    /// The UDP header around ESP is to have a checksum, and a routing header says that the packet's last destination is not
    /// the one that its IPv6 header names (RFC 8200, 8.1).
    RouteAhead,
    /// Traffic-flow-confidentiality padding outside tunnel mode, where the receiver could not tell it from data.
    TfcPadding,
    /// The PSP crypt offset is above 63 or points past the last payload octet.
    CryptOffsetPastEnd,
    /// A PSP version that does not encrypt has a crypt offset, which is reserved there.
    CryptOffsetWithoutEncryption,
    /// The PSP extension is no multiple of eight octets, or the header would be longer than it can say.
    PspExtension,
    /// A frame that should have its PSP header already is no UDP datagram to PSP's port.
    NotPreformatted,
    /// A frame that should have its PSP header already has one that is malformed.
    Preformatted(Malformed),
    /// The PSP header that the frame has already names another version than the key's.
    PreformattedVersion,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotIp => "the frame is not IP",
            Self::Fragment => "transport mode does not carry fragments",
            Self::BeetFragment => "BEET mode does not carry fragments",
            Self::BeetOptions => "BEET mode does not carry IPv4 options or IPv6 extension headers",
            Self::BeetAddresses => "the packet has not the addresses of the BEET SA",
            Self::TooLong => "the encapsulated packet is longer than its length field can say",
            Self::NoRoom => "the buffer has too little room for the encapsulation",
            Self::StaleParse => "the parse result does not belong to the frame",
            Self::ReservedSpi => "the SPI is reserved",
            Self::SequenceExhausted => "the sequence number is 0 or has left its 32 bits",
            Self::AmbiguousNextHeader => "the upper protocol would mean something else to the receiver",
            Self::IcvLength => "the cipher has no ICV of this length",
            Self::RouteAhead => "no UDP checksum can be told for a route that is still ahead",
            Self::TfcPadding => "only tunnel mode has traffic-flow-confidentiality padding",
            Self::CryptOffsetPastEnd => "the crypt offset points past the payload",
            Self::CryptOffsetWithoutEncryption => "a version without encryption has no crypt offset",
            Self::PspExtension => "the PSP header extension is no multiple of eight octets or is too long",
            Self::NotPreformatted => "the frame is no UDP datagram to the PSP port",
            Self::Preformatted(malformed) => malformed.sentence(),
            Self::PreformattedVersion => "the PSP header names another version than the key's",
        })
    }
}

impl core::error::Error for Refused {}

impl From<NoRoom> for Refused {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Why an authenticated packet is not decapsulated: its sender is broken, or congestion says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The ESP trailer is wrong.
    Trailer(BadTrailer),
    /// The next header is none that the mode can carry.
    NextHeader(u8),
    /// BEET mode's pseudo header for IPv4 options (RFC 7402, B.1), which is not undone here: the packet is for software.
    BeetPseudoHeader,
    /// The inner packet of a tunnel is not what its next header and its own lengths say.
    InnerPacket(Malformed),
    /// The ECN codepoints of inner and outer header have the packet dropped (RFC 6040, 4.2).
    CongestionDrop,
    /// The buffer has too little headroom for an inner header that is longer than the outer headers.
    NoRoom,
    /// The parse result does not belong to this frame or protocol.
    StaleParse,
}

impl fmt::Display for Rejected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trailer(trailer) => trailer.fmt(formatter),
            Self::NextHeader(number) => write!(formatter, "next header {number} has no place in this mode"),
            Self::BeetPseudoHeader => {
                formatter.write_str("the inner packet has IPv4 options in a pseudo header")
            }
            Self::NoRoom => NoRoom.fmt(formatter),
            Self::InnerPacket(malformed) => write!(formatter, "inner packet: {malformed}"),
            Self::CongestionDrop => ecn::CongestionDrop.fmt(formatter),
            Self::StaleParse => formatter.write_str("the parse result does not belong to the frame"),
        }
    }
}

impl core::error::Error for Rejected {}

impl From<NoRoom> for Rejected {
    fn from(_: NoRoom) -> Self {
        Self::StaleParse
    }
}

impl From<BadTrailer> for Rejected {
    fn from(trailer: BadTrailer) -> Self {
        Self::Trailer(trailer)
    }
}

/// Why an authenticated packet is not decapsulated where the protocol has rules of its own for what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectedWith<BadPayload> {
    /// The payload is not what the protocol's header promised.
    Payload(BadPayload),
    /// What all protocols have: trailer, inner packet, congestion, room, or another frame's parse result.
    Transform(Rejected),
}

impl<BadPayload: fmt::Display> fmt::Display for RejectedWith<BadPayload> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(payload) => payload.fmt(formatter),
            Self::Transform(rejected) => rejected.fmt(formatter),
        }
    }
}

impl<BadPayload: fmt::Debug + fmt::Display> core::error::Error for RejectedWith<BadPayload> {}

impl<BadPayload> From<Rejected> for RejectedWith<BadPayload> {
    fn from(rejected: Rejected) -> Self {
        Self::Transform(rejected)
    }
}

/// What came out of an opened packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decapsulated {
    /// The room now holds the frame as it was before encapsulation.
    Packet {
        /// What the security header or trailer named: the upper protocol, or 4 or 41 after tunnel mode. 144 has left
        /// the outer IP header where it was, whatever the mode.
        next_header: u8,
    },
    /// A dummy packet (RFC 4303, 2.6): to be counted and dropped. The room is as it was.
    Dummy,
}

/// Checks that a parse result is about an IP packet inside this frame.
#[inline]
pub(crate) fn check_plain(plain: &Plain, frame_length: usize) -> Result<(), Refused> {
    if plain.ip_version == 0 {
        return Err(Refused::NotIp);
    }
    let shortest = if plain.ip_version == 4 { ipv4::HEADER_LENGTH } else { ipv6::HEADER_LENGTH };
    let fits = plain.l3_offset >= ethernet::HEADER_LENGTH
        && plain.ip_header_length >= shortest
        && plain.next_header_offset >= plain.l3_offset
        && plain.l4_offset() <= plain.l3_end
        && plain.l3_end <= frame_length
        && plain.next_header_offset < plain.l4_offset();
    if fits { Ok(()) } else { Err(Refused::StaleParse) }
}

/// Drops what follows the IP packet, then grows the frame by `front` and `back` octets. On error nothing has changed.
#[inline(always)]
pub(crate) fn grow(room: &mut Room<'_>, l3_end: usize, front: usize, back: usize) -> Result<(), NoRoom> {
    let slack = room.length().checked_sub(l3_end).ok_or(NoRoom)?;
    if room.headroom() < front || room.tailroom().saturating_add(slack) < back {
        return Err(NoRoom);
    }
    room.end = room.end - slack + back;
    room.start -= front;
    Ok(())
}

/// Makes the `old` octets after a link header of `l3_offset` octets into `new` ones, whose values are then unspecified.
/// The link header moves, what follows stays. On error nothing has changed.
#[inline]
pub(crate) fn reshape(room: &mut Room<'_>, l3_offset: usize, old: usize, new: usize) -> Result<(), NoRoom> {
    if let Some(more) = new.checked_sub(old) {
        room.push_front(more)?;
        bytes::shift(room.frame_mut(), more, 0, l3_offset)
    } else {
        let fewer = old.saturating_sub(new);
        bytes::shift(room.frame_mut(), 0, fewer, l3_offset)?;
        room.pop_front(fewer)
    }
}

/// What a packet looks like if its extension headers end before the destination options that are for its last
/// destination alone (RFC 4303, 3.1.1).
#[inline]
pub(crate) fn without_last_options(frame: &[u8], plain: &Plain) -> Result<Plain, Refused> {
    if plain.ip_version != 6 || plain.ip_header_length == ipv6::HEADER_LENGTH {
        return Ok(*plain);
    }
    let packet = frame.get(plain.l3_offset..plain.l3_end).ok_or(Refused::StaleParse)?;
    let next_header = bytes::octet(packet, ipv6::field::NEXT_HEADER.start).ok_or(Refused::StaleParse)?;
    let chain = ipv6::walk(packet, next_header).map_err(|_| Refused::StaleParse)?;
    let next_header = bytes::octet(packet, chain.last_options_named_at).ok_or(Refused::StaleParse)?;
    Ok(Plain {
        ip_header_length: chain.last_options,
        next_header,
        next_header_offset: plain.l3_offset + chain.last_options_named_at,
        ..*plain
    })
}

/// The value of the IP length field when `payload_length` octets follow the IP header and its extensions.
#[inline]
pub(crate) fn ip_length(plain: &Plain, payload_length: usize) -> Result<u16, Refused> {
    let uncounted = if plain.ip_version == 4 { 0 } else { ipv6::HEADER_LENGTH };
    let length = plain.ip_header_length.saturating_sub(uncounted).saturating_add(payload_length);
    u16::try_from(length).map_err(|_| Refused::TooLong)
}

/// Gives the IP header another upper protocol and length. An IPv4 checksum is updated, not made anew: a wrong one stays
/// wrong, and giving the old values back gives the old checksum back (RFC 1624).
#[inline(always)]
pub(crate) fn patch_ip(frame: &mut [u8], plain: &Plain, next_header: u8, length: u16) -> Result<(), NoRoom> {
    if plain.ip_version == 4 {
        let header = frame.get_mut(plain.l3_offset..).and_then(|rest| rest.first_chunk_mut::<20>());
        let header = header.ok_or(NoRoom)?;
        let old_length = u16::from_be_bytes([header[2], header[3]]);
        let old_checksum = u16::from_be_bytes([header[10], header[11]]);
        let old_protocol = u16::from_be_bytes([header[8], header[9]]);
        let new_protocol = u16::from_be_bytes([header[8], next_header]);
        let words = [(old_length, length), (old_protocol, new_protocol)];
        let new_checksum = checksum::update_words(old_checksum, words);
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[9] = next_header;
        header[10..12].copy_from_slice(&new_checksum.to_be_bytes());
        return Ok(());
    }
    let length_offset = plain.l3_offset.saturating_add(ipv6::field::PAYLOAD_LENGTH.start);
    bytes::put(frame, length_offset, &length.to_be_bytes())?;
    bytes::put(frame, plain.next_header_offset, &[next_header])
}

/// The protocol number of tunnel mode for a packet.
#[inline]
pub(crate) fn tunnel_next_header(plain: &Plain) -> u8 {
    if plain.ip_version == 4 { protocol::IPV4 } else { protocol::IPV6 }
}

/// Writes link and outer header in front of a frame that has grown by `front` octets.
#[inline]
pub(crate) fn enter_tunnel(
    frame: &mut [u8],
    plain: &Plain,
    outer: &OuterHeader,
    front: usize,
) -> Result<(), NoRoom> {
    bytes::shift(frame, front, 0, plain.l3_offset)?;
    set_ethertype(frame, plain.l3_offset, outer.ethertype())?;
    outer.emit(frame.get_mut(plain.l3_offset..).ok_or(NoRoom)?)
}

/// Leaves a tunnel: the inner packet begins at `inner_start` and ends at or before `inner_end`; what lies between its own
/// end and `inner_end` is traffic-flow-confidentiality padding (RFC 4303, 2.7). On error the frame is as it was.
#[inline]
pub(crate) fn leave_tunnel(
    room: &mut Room<'_>,
    outer: &Plain,
    next_header: u8,
    inner_start: usize,
    inner_end: usize,
) -> Result<Decapsulated, Rejected> {
    let frame = room.frame_mut();
    let inner = frame.get_mut(inner_start..inner_end).ok_or(Rejected::StaleParse)?;
    let (inner_length, ethertype) = match next_header {
        protocol::IPV4 => {
            let header = ipv4::Header::parse(inner).map_err(Rejected::InnerPacket)?;
            combine_ipv4(inner, &header, outer.traffic_class)?;
            (usize::from(header.total_length), ethertype::IPV4)
        }
        protocol::IPV6 => {
            let header = ipv6::Header::parse(inner).map_err(Rejected::InnerPacket)?;
            combine_ipv6(inner, &header, outer.traffic_class)?;
            (ipv6::HEADER_LENGTH + usize::from(header.payload_length), ethertype::IPV6)
        }
        number => return Err(Rejected::NextHeader(number)),
    };
    let front = inner_start.checked_sub(outer.l3_offset).ok_or(Rejected::StaleParse)?;
    bytes::shift(frame, 0, front, outer.l3_offset)?;
    set_ethertype(frame, inner_start, ethertype)?;
    room.pop_front(front)?;
    room.truncate(outer.l3_offset + inner_length)?;
    Ok(Decapsulated::Packet { next_header })
}

/// Brings the outer ECN into an inner IPv4 header.
#[inline]
fn combine_ipv4(inner: &mut [u8], header: &ipv4::Header, outer_class: u8) -> Result<(), Rejected> {
    let class = combine(header.traffic_class, outer_class)?;
    if class != header.traffic_class {
        let first = bytes::octet(inner, 0).ok_or(Rejected::StaleParse)?;
        let old = u16::from_be_bytes([first, header.traffic_class]);
        let new = u16::from_be_bytes([first, class]);
        let checksum = checksum::update(header.checksum, old, new);
        bytes::put(inner, ipv4::field::TRAFFIC_CLASS.start, &[class])?;
        bytes::put(inner, ipv4::field::CHECKSUM.start, &checksum.to_be_bytes())?;
    }
    Ok(())
}

/// Brings the outer ECN into an inner IPv6 header.
#[inline]
fn combine_ipv6(inner: &mut [u8], header: &ipv6::Header, outer_class: u8) -> Result<(), Rejected> {
    let traffic_class = combine(header.traffic_class, outer_class)?;
    if traffic_class != header.traffic_class {
        ipv6::Header { traffic_class, ..*header }.emit(inner)?;
    }
    Ok(())
}

/// The inner traffic class after the tunnel's exit; its DSCP stays.
#[inline]
fn combine(inner_class: u8, outer_class: u8) -> Result<u8, Rejected> {
    let ecn = ecn::combine(inner_class, outer_class).map_err(|_| Rejected::CongestionDrop)?;
    Ok(inner_class & !traffic_class::ECN | ecn)
}

/// Rewrites the EtherType, the last two octets before the IP header, so that VLAN tags stay.
#[inline]
pub(crate) fn set_ethertype(frame: &mut [u8], l3_offset: usize, ethertype: u16) -> Result<(), NoRoom> {
    let offset = l3_offset.checked_sub(2).ok_or(NoRoom)?;
    bytes::put(frame, offset, &ethertype.to_be_bytes())
}

/// Computes the checksum of the UDP header around a sealed packet, if it is over IPv6.
#[inline]
pub(crate) fn fill_ipv6_udp_checksum(frame: &mut [u8]) -> Result<(), NoRoom> {
    let plain = parse_transmit(frame).map_err(|_| NoRoom)?;
    if plain.ip_version == 6 && !l4_checksum::fill_l4_checksum(frame, &plain) {
        return Err(NoRoom);
    }
    Ok(())
}
