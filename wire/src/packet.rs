//! What can be said of a frame without an SA: the receive parser's verdict, and the transmit side's classification.
//!
//! Both are pure and total, and both judge in one order, front to back: Ethernet and tags, IP header, (receive:
//! IPv4 checksum), extension headers, then UDP, ESP or PSP. The first malformation found is the answer.

use crate::bytes;
use crate::ethernet::{self, ethertype};
use crate::ip::protocol;
use crate::malformed::Malformed;
use crate::{esp, ipv4, ipv6, psp, tcp, udp};

/// The malformations that [`parse_receive`] can answer with; the others belong to single headers or to misuse.
pub const RECEIVE_MALFORMATIONS: &[Malformed] = &[
    Malformed::TruncatedEthernet,
    Malformed::TruncatedVlan,
    Malformed::BadIpVersion,
    Malformed::TruncatedIpv4,
    Malformed::BadIpv4HeaderLength,
    Malformed::BadIpv4TotalLength,
    Malformed::BadIpv4Checksum,
    Malformed::TruncatedIpv6,
    Malformed::TruncatedIpv6Extension,
    Malformed::TooDeepExtensionChain,
    Malformed::Fragment,
    Malformed::TruncatedUdp,
    Malformed::BadUdpLength,
    Malformed::TruncatedEsp,
    Malformed::TruncatedPsp,
    Malformed::PspReservedBit,
    Malformed::PspBadVersion,
    Malformed::PspBadHeaderLength,
    Malformed::PspCryptOffsetPastEnd,
    Malformed::ReservedSpi,
];

/// The UDP destination ports at which the receive parser looks for a security protocol; 0 is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPorts {
    /// PSP's port.
    pub psp: u16,
    /// The port of ESP in UDP (RFC 3948).
    pub esp: u16,
}

impl Default for UdpPorts {
    /// PSP at its own port, ESP directly over IP alone.
    fn default() -> Self {
        Self { psp: psp::DEFAULT_UDP_PORT, esp: 0 }
    }
}

/// TCP or UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

/// The layers of a frame up to the upper protocol. All offsets count from the frame's first octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Tag control information of the outermost VLAN tag.
    pub vlan: Option<u16>,
    /// Where the IP header begins: the length of the Ethernet header with its tags.
    pub l3_offset: usize,
    /// 4 or 6, or 0 where the frame is not IP; all fields below are then zero, but `l3_end`.
    pub ip_version: u8,
    /// Octets of the IP header with its options or extension headers (a fragment header included).
    pub ip_header_length: usize,
    /// One past the IP packet's last octet; what follows in the frame is Ethernet padding.
    pub l3_end: usize,
    /// Protocol after the IP header and its extension headers.
    pub next_header: u8,
    /// Where the octet stands that names `next_header`.
    pub next_header_offset: usize,
    /// DSCP in bits 7..2, ECN in bits 1..0.
    pub traffic_class: u8,
    /// Whether routers must not fragment the packet: the IPv4 flag, and always for IPv6.
    pub dont_fragment: bool,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv6 flow label, zero for IPv4.
    pub flow_label: u32,
    /// Source address; an IPv4 address stands in the last four octets after zeros.
    pub source: [u8; 16],
    /// Destination address; an IPv4 address stands in the last four octets after zeros.
    pub destination: [u8; 16],
    /// Ports, where the upper protocol is TCP or UDP and its ports are in this packet.
    pub ports: Option<Ports>,
    /// Whether the packet is a fragment (any IPv6 packet with a fragment header is).
    pub fragment: bool,
}

impl Plain {
    /// Where the upper protocol begins.
    #[inline]
    pub const fn l4_offset(&self) -> usize {
        self.l3_offset.saturating_add(self.ip_header_length)
    }
}

/// The security protocol of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Neither: for the host, if clear packets may enter.
    #[default]
    Other,
    /// ESP, over IP or UDP.
    Esp,
    /// PSP over UDP.
    Psp,
    /// One octet 0xff at the port of ESP in UDP: it keeps a NAT mapping alive, and is to be counted and dropped (RFC 3948,
    /// 2.3).
    NatKeepalive,
}

/// What the receive parser says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The outer layers.
    pub plain: Plain,
    /// The security protocol.
    pub protocol: Protocol,
    /// Where the UDP header stands that ESP, PSP or a keepalive came in; nothing for ESP over IP and for the rest.
    pub udp_offset: Option<usize>,
    /// Where the ESP or PSP header begins; 0 where there is none.
    pub security_offset: usize,
    /// SPI as a number, 0 where there is none.
    pub spi: u32,
    /// ESP: the low half of the sequence number. 0 otherwise.
    pub sequence: u32,
    /// An ESP packet whose SPI is 1 to 255: reserved by IANA, never looked up, for the host (such as an ESP ping).
    /// The protocol is then [`Protocol::Other`].
    pub reserved_esp_spi: bool,
}

/// Parses a frame from the wire. `udp_ports` says where ESP and PSP are expected over UDP.
///
/// A UDP checksum is not looked at: the ICV covers what it covers and more, and RFC 3948, 2.1 forbids to depend on it. At
/// the port of ESP in UDP four octets of zero are the mark of something else, such as IKE: [`Protocol::Other`].
///
/// # Errors
/// The first [`Malformed`] entry that holds. Only what the NIC has to understand is judged: the length of
/// a UDP datagram, for one, only where it goes to one of the ports. Fragments are an error only where ESP or PSP is seen
/// in them (RFC 4303, 3.4.1), and a flag in [`Plain`] otherwise.
#[inline]
pub fn parse_receive(frame: &[u8], udp_ports: UdpPorts) -> Result<Parsed, Malformed> {
    let plain = parse_layers(frame, true)?;
    let other = Parsed {
        plain,
        protocol: Protocol::Other,
        udp_offset: None,
        security_offset: 0,
        spi: 0,
        sequence: 0,
        reserved_esp_spi: false,
    };
    if plain.ip_version == 0 {
        return Ok(other);
    }
    let upper = frame.get(plain.l4_offset()..plain.l3_end).unwrap_or(&[]);
    match plain.next_header {
        protocol::ESP if other.plain.fragment => Err(Malformed::Fragment),
        protocol::ESP => receive_esp(other, upper),
        protocol::UDP => receive_udp(other, upper, udp_ports),
        _ => Ok(other),
    }
}

/// Parses a frame of the host's, to be sent or to be classified. The IPv4 header checksum is not judged, for the host
/// may leave it to the NIC.
///
/// # Errors
/// The first [`Malformed`] entry of Ethernet, IP or the extension headers that holds.
#[inline]
pub fn parse_transmit(frame: &[u8]) -> Result<Plain, Malformed> {
    parse_layers(frame, false)
}

/// ESP, which begins where `packet` does; `other.udp_offset` says what it came in.
#[inline]
fn receive_esp(other: Parsed, packet: &[u8]) -> Result<Parsed, Malformed> {
    let [s0, s1, s2, s3, q0, q1, q2, q3]: [u8; 8] = bytes::array(packet, 0).ok_or(Malformed::TruncatedEsp)?;
    match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => Err(Malformed::ReservedSpi),
        1..=esp::LAST_RESERVED_SPI => Ok(Parsed { reserved_esp_spi: true, udp_offset: None, ..other }),
        spi => Ok(Parsed {
            protocol: Protocol::Esp,
            security_offset: other.udp_offset.map_or(other.plain.l4_offset(), |udp| udp + udp::HEADER_LENGTH),
            spi,
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            ..other
        }),
    }
}

/// UDP, and ESP or PSP within it.
#[inline]
fn receive_udp(other: Parsed, upper: &[u8], udp_ports: UdpPorts) -> Result<Parsed, Malformed> {
    let destination = other.plain.ports.map_or(0, |ports| ports.destination);
    let to_psp = destination != 0 && destination == udp_ports.psp;
    let to_esp = destination != 0 && destination == udp_ports.esp;
    if other.plain.fragment {
        // IKE shares the port and may come in fragments, which are for the host.
        let marked = bytes::array(upper, udp::HEADER_LENGTH) == Some(esp::NON_ESP_MARKER);
        let protected = to_psp || (to_esp && !marked);
        return if protected { Err(Malformed::Fragment) } else { Ok(other) };
    }
    if upper.len() < udp::HEADER_LENGTH {
        return Err(Malformed::TruncatedUdp);
    }
    if !to_psp && !to_esp {
        return Ok(other);
    }
    let header = udp::Header::parse(upper)?;
    if usize::from(header.length) != upper.len() {
        return Err(Malformed::BadUdpLength);
    }
    let packet = upper.get(udp::HEADER_LENGTH..).unwrap_or(&[]);
    let in_udp = Parsed { udp_offset: Some(other.plain.l4_offset()), ..other };
    if !to_psp {
        return match packet {
            [esp::NAT_KEEPALIVE] => Ok(Parsed { protocol: Protocol::NatKeepalive, ..in_udp }),
            _ if packet.starts_with(&esp::NON_ESP_MARKER) => Ok(other),
            _ => receive_esp(in_udp, packet),
        };
    }
    let header = psp::Header::parse(packet)?;
    header.check_length(packet.len())?;
    Ok(Parsed {
        protocol: Protocol::Psp,
        security_offset: other.plain.l4_offset() + udp::HEADER_LENGTH,
        spi: header.spi,
        ..in_udp
    })
}

/// Ethernet, IP and ports.
#[inline]
fn parse_layers(frame: &[u8], check_ipv4_checksum: bool) -> Result<Plain, Malformed> {
    let link = ethernet::Header::parse(frame)?;
    let l3_offset = link.length();
    let packet = frame.get(l3_offset..).unwrap_or(&[]);
    let mut plain = Plain {
        vlan: link.tags.first().copied().flatten().map(|tag| tag.control),
        l3_offset,
        ip_version: 0,
        ip_header_length: 0,
        l3_end: frame.len(),
        next_header: 0,
        next_header_offset: 0,
        traffic_class: 0,
        dont_fragment: false,
        hop_limit: 0,
        flow_label: 0,
        source: [0; 16],
        destination: [0; 16],
        ports: None,
        fragment: false,
    };
    let upper_is_here = match link.ethertype {
        ethertype::IPV4 => {
            let header = ipv4::Header::parse(packet)?;
            if check_ipv4_checksum && !ipv4::checksum_is_valid(packet) {
                return Err(Malformed::BadIpv4Checksum);
            }
            fill_ipv4(&mut plain, &header)
        }
        ethertype::IPV6 => {
            let header = ipv6::Header::parse(packet)?;
            let length = ipv6::HEADER_LENGTH + usize::from(header.payload_length);
            let chain = ipv6::walk(packet.get(..length).unwrap_or(&[]), header.next_header)?;
            fill_ipv6(&mut plain, &header, &chain)
        }
        _ => return Ok(plain),
    };
    if upper_is_here {
        plain.ports = parse_ports(&plain, frame);
    }
    Ok(plain)
}

/// Carries an IPv4 header over; says whether the upper header is in this packet.
#[inline]
fn fill_ipv4(plain: &mut Plain, header: &ipv4::Header) -> bool {
    plain.ip_version = 4;
    plain.ip_header_length = usize::from(header.header_length);
    plain.l3_end = plain.l3_offset + usize::from(header.total_length);
    plain.next_header = header.protocol;
    plain.next_header_offset = plain.l3_offset + ipv4::field::PROTOCOL.start;
    plain.traffic_class = header.traffic_class;
    plain.dont_fragment = header.dont_fragment();
    plain.hop_limit = header.ttl;
    plain.source = widen(header.source);
    plain.destination = widen(header.destination);
    plain.fragment = header.is_fragment();
    header.is_first_fragment()
}

/// Carries an IPv6 header and its chain over; says whether the upper header is in this packet.
#[inline]
fn fill_ipv6(plain: &mut Plain, header: &ipv6::Header, chain: &ipv6::Chain) -> bool {
    plain.ip_version = 6;
    plain.ip_header_length = chain.length;
    plain.l3_end = plain.l3_offset + ipv6::HEADER_LENGTH + usize::from(header.payload_length);
    plain.next_header = chain.next_header;
    plain.next_header_offset = plain.l3_offset + chain.next_header_offset;
    plain.traffic_class = header.traffic_class;
    plain.dont_fragment = true;
    plain.hop_limit = header.hop_limit;
    plain.flow_label = header.flow_label;
    plain.source = header.source;
    plain.destination = header.destination;
    plain.fragment = chain.fragment.is_some();
    chain.is_first_fragment()
}

/// The ports at the front of the upper protocol. TCP and UDP have them at the same place.
#[inline]
fn parse_ports(plain: &Plain, frame: &[u8]) -> Option<Ports> {
    if !matches!(plain.next_header, protocol::TCP | protocol::UDP) {
        return None;
    }
    let header = tcp::Header::parse(frame.get(plain.l4_offset()..plain.l3_end)?).ok()?;
    Some(Ports { source: header.source_port, destination: header.destination_port })
}

/// An IPv4 address in the last four of sixteen octets.
#[inline]
pub(crate) const fn widen(address: [u8; 4]) -> [u8; 16] {
    (u32::from_be_bytes(address) as u128).to_be_bytes()
}
