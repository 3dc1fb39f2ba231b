//! What can be said of a frame without an SA: the receive parser's verdict, and the transmit side's classification.
//!
//! Both are pure and total, and both judge in one order, front to back: Ethernet and tags, IP header, (receive:
//! IPv4 checksum), extension headers, then UDP and the security protocol. The first malformation found is the answer.

use crate::bytes;
use crate::ethernet::{self, ethertype};
use crate::ip::protocol;
use crate::malformed::Malformed;
use crate::{eesp, esp, ipv4, ipv6, psp, tcp, udp, wespv2};

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
    Malformed::OptionOverrun,
    Malformed::TooManyOptions,
    Malformed::TruncatedEesp,
    Malformed::EespFixedBits,
    Malformed::EespBadVersion,
    Malformed::EespBadCryptOffset,
    Malformed::TruncatedWesp,
    Malformed::WespBadVersion,
    Malformed::WespBadHeaderLength,
    Malformed::WespBadNextHeader,
    Malformed::WespUnknownOption,
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

/// Where the receive parser looks for security protocols, beside ESP over IP, which it always takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The ports of PSP and of ESP in UDP.
    pub udp_ports: UdpPorts,
    /// The IP protocol number of EESP, which has none assigned yet; 0 is off.
    pub eesp_protocol: u8,
    /// Whether an SPI whose first bit is one is EESP where ESP comes in UDP. ESP's SPIs then must begin with a zero
    /// (draft-ietf-ipsecme-eesp-03, 6).
    pub eesp_in_udp: bool,
    /// The IP protocol number of WESPv2, [`wespv2::PROTOCOL`] as a rule; 0 is off, in UDP too.
    pub wespv2_protocol: u8,
}

impl From<UdpPorts> for Expected {
    /// ESP and PSP alone.
    fn from(udp_ports: UdpPorts) -> Self {
        Self { udp_ports, ..Self::default() }
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
    /// None: for the host, if clear packets may enter.
    #[default]
    Other = 0,
    /// ESP, over IP or UDP.
    Esp = 1,
    /// PSP over UDP.
    Psp = 2,
    /// One octet 0xff at the port of ESP in UDP: it keeps a NAT mapping alive, and is to be counted and dropped (RFC 3948,
    /// 2.3).
    NatKeepalive = 3,
    /// WESPv2, over IP or UDP, with ESP in it.
    Wespv2 = 4,
    /// EESP, over IP or UDP.
    Eesp = 5,
}

/// What the receive parser says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The outer layers.
    pub plain: Plain,
    /// The security protocol.
    pub protocol: Protocol,
    /// Where the UDP header stands that the security protocol or a keepalive came in; nothing for what comes over IP.
    pub udp_offset: Option<usize>,
    /// Where the security header begins; 0 where there is none.
    pub security_offset: usize,
    /// SPI as a number, of WESPv2 that of the ESP packet in it; 0 where there is none.
    pub spi: u32,
    /// ESP and WESPv2: the low half of the sequence number. 0 otherwise.
    pub sequence: u32,
    /// An ESP packet whose SPI is 1 to 255: reserved by IANA, never looked up, for the host (such as an ESP ping).
    /// The protocol is then [`Protocol::Other`].
    pub reserved_esp_spi: bool,
    /// Where sequence number and IV begin, as far as a packet has them: what stands there the SA tells. ESP and WESPv2:
    /// behind the SPI. PSP: the IV. EESP: behind the options. 0 where there is no security header.
    pub numbers_offset: usize,
    /// Octets of the security header that the packet itself tells. ESP: 8. PSP: all, as the header extension length says.
    /// WESPv2: up to the payload behind ESP's IV, as it says. EESP: with its options. 0 where there is none.
    pub header_octets: u16,
    /// The crypt offset that stands in the packet, in 4-octet units; 0 where none does.
    pub crypt_offset: u8,
    /// EESP with a crypt offset option: its payload offset, in 4-octet units.
    pub payload_offset: Option<u8>,
    /// EESP: session ID. 0 otherwise.
    pub session_id: u16,
    /// PSP: the octet of [`psp::flag`]. 0 otherwise.
    pub psp_flags: u8,
}

/// Parses a frame from the wire. `expected` says where security protocols are looked for; [`UdpPorts`] alone will do.
///
/// A UDP checksum is not looked at: the ICV covers what it covers and more, and RFC 3948, 2.1 forbids to depend on it. At
/// the port of ESP in UDP four octets of zero are the mark of something else, such as IKE: [`Protocol::Other`]. ESP's SPI
/// stands at the place of that mark, and so do the marks of WESPv2 and EESP: all that comes to this port and is not marked
/// with zero is judged as ESP first, which needs eight octets.
///
/// # Errors
/// The first [`Malformed`] entry that holds. Only what the NIC has to understand is judged: the length of
/// a UDP datagram, for one, only where it goes to one of the ports. Fragments are an error only where a security protocol
/// is seen in them (RFC 4303, 3.4.1), and a flag in [`Plain`] otherwise.
#[inline]
pub fn parse_receive(frame: &[u8], expected: impl Into<Expected>) -> Result<Parsed, Malformed> {
    let expected = &expected.into();
    let plain = parse_layers(frame, true)?;
    let upper = frame.get(plain.l4_offset()..plain.l3_end).unwrap_or(&[]);
    let over_ip = Carrier { udp_offset: None, offset: plain.l4_offset(), ip_version: plain.ip_version };
    let security = match plain.next_header {
        _ if plain.ip_version == 0 => Security::NONE,
        protocol::UDP => receive_udp(&plain, upper, expected)?,
        number if !expected.over_ip(number) => Security::NONE,
        _ if plain.fragment => return Err(Malformed::Fragment),
        protocol::ESP => receive_esp(upper, over_ip)?,
        number if number == expected.eesp_protocol => receive_eesp(upper, over_ip)?,
        _ => receive_wespv2(upper, over_ip)?,
    };
    let reserved_esp_spi = security.reserved_esp_spi;
    Ok(Parsed {
        plain,
        protocol: security.protocol,
        udp_offset: security.udp_offset,
        security_offset: security.offset,
        spi: security.spi,
        sequence: security.sequence,
        reserved_esp_spi,
        numbers_offset: security.numbers_offset,
        header_octets: security.header_octets,
        crypt_offset: security.crypt_offset,
        payload_offset: security.payload_offset,
        session_id: security.session_id,
        psp_flags: security.psp_flags,
    })
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

impl Expected {
    /// Whether the packets of this IP protocol are of a security protocol.
    #[inline]
    const fn over_ip(&self, number: u8) -> bool {
        number == protocol::ESP
            || (number != 0 && (number == self.eesp_protocol || number == self.wespv2_protocol))
    }
}

/// What [`Parsed`] says beside [`Plain`].
#[derive(Clone, Copy)]
struct Security {
    protocol: Protocol,
    udp_offset: Option<usize>,
    offset: usize,
    spi: u32,
    sequence: u32,
    reserved_esp_spi: bool,
    numbers_offset: usize,
    header_octets: u16,
    crypt_offset: u8,
    payload_offset: Option<u8>,
    session_id: u16,
    psp_flags: u8,
}

impl Security {
    /// No security protocol.
    const NONE: Self = Self {
        protocol: Protocol::Other,
        udp_offset: None,
        offset: 0,
        spi: 0,
        sequence: 0,
        reserved_esp_spi: false,
        numbers_offset: 0,
        header_octets: 0,
        crypt_offset: 0,
        payload_offset: None,
        session_id: 0,
        psp_flags: 0,
    };
}

/// What a security header came in.
#[derive(Clone, Copy)]
struct Carrier {
    udp_offset: Option<usize>,
    /// Where the security header begins.
    offset: usize,
    ip_version: u8,
}

/// ESP, which begins where `packet` does.
#[inline]
fn receive_esp(packet: &[u8], carrier: Carrier) -> Result<Security, Malformed> {
    let [s0, s1, s2, s3, q0, q1, q2, q3]: [u8; 8] = bytes::array(packet, 0).ok_or(Malformed::TruncatedEsp)?;
    match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => Err(Malformed::ReservedSpi),
        1..=esp::LAST_RESERVED_SPI => Ok(Security { reserved_esp_spi: true, ..Security::NONE }),
        spi => Ok(Security {
            protocol: Protocol::Esp,
            udp_offset: carrier.udp_offset,
            offset: carrier.offset,
            spi,
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            numbers_offset: carrier.offset + esp::field::SEQUENCE.start,
            header_octets: esp::FIXED_LENGTH as u16,
            ..Security::NONE
        }),
    }
}

/// What comes to the port of ESP in UDP.
#[inline]
fn receive_esp_in_udp(packet: &[u8], carrier: Carrier, expected: &Expected) -> Result<Security, Malformed> {
    if packet == [esp::NAT_KEEPALIVE] {
        let udp_offset = carrier.udp_offset;
        return Ok(Security { protocol: Protocol::NatKeepalive, udp_offset, ..Security::NONE });
    }
    if packet.starts_with(&esp::NON_ESP_MARKER) {
        return Ok(Security::NONE);
    }
    if packet.len() >= esp::FIXED_LENGTH {
        if expected.wespv2_protocol != 0 && packet.starts_with(&wespv2::UDP_MARKER) {
            let offset = carrier.offset + wespv2::UDP_MARKER.len();
            let behind_marker = packet.get(wespv2::UDP_MARKER.len()..).unwrap_or(&[]);
            return receive_wespv2(behind_marker, Carrier { offset, ..carrier });
        }
        if expected.eesp_in_udp && packet.first().is_some_and(|octet| octet & eesp::first::ONE != 0) {
            return receive_eesp(packet, carrier);
        }
    }
    receive_esp(packet, carrier)
}

/// EESP, which begins where `packet` does.
#[inline]
fn receive_eesp(packet: &[u8], carrier: Carrier) -> Result<Security, Malformed> {
    let (header, option) = eesp::parse(packet)?;
    Ok(Security {
        protocol: Protocol::Eesp,
        udp_offset: carrier.udp_offset,
        offset: carrier.offset,
        spi: header.spi,
        numbers_offset: carrier.offset + header.options_end(),
        header_octets: header.options_end() as u16,
        crypt_offset: option.map_or(0, |option| option.crypt_offset),
        payload_offset: option.map(|option| option.payload_offset),
        session_id: header.session_id,
        ..Security::NONE
    })
}

/// WESPv2, which begins where `packet` does.
#[inline]
fn receive_wespv2(packet: &[u8], carrier: Carrier) -> Result<Security, Malformed> {
    let aligned_8 = carrier.ip_version == 6 && carrier.udp_offset.is_none();
    let (header, esp) = wespv2::parse(packet, aligned_8)?;
    Ok(Security {
        protocol: Protocol::Wespv2,
        udp_offset: carrier.udp_offset,
        offset: carrier.offset,
        spi: esp.spi,
        sequence: esp.sequence,
        numbers_offset: carrier.offset + header.esp_offset() + esp::field::SEQUENCE.start,
        header_octets: u16::from(header.header_length),
        crypt_offset: header.crypt_offset,
        ..Security::NONE
    })
}

/// UDP, and a security protocol within it.
#[inline]
fn receive_udp(plain: &Plain, upper: &[u8], expected: &Expected) -> Result<Security, Malformed> {
    let udp_ports = expected.udp_ports;
    let destination = plain.ports.map_or(0, |ports| ports.destination);
    let to_psp = destination != 0 && destination == udp_ports.psp;
    let to_esp = destination != 0 && destination == udp_ports.esp;
    if plain.fragment {
        // IKE shares the port and may come in fragments, which are for the host.
        let marked = bytes::array(upper, udp::HEADER_LENGTH) == Some(esp::NON_ESP_MARKER);
        let protected = to_psp || (to_esp && !marked);
        return if protected { Err(Malformed::Fragment) } else { Ok(Security::NONE) };
    }
    if upper.len() < udp::HEADER_LENGTH {
        return Err(Malformed::TruncatedUdp);
    }
    if !to_psp && !to_esp {
        return Ok(Security::NONE);
    }
    let header = udp::Header::parse(upper)?;
    if usize::from(header.length) != upper.len() {
        return Err(Malformed::BadUdpLength);
    }
    let packet = upper.get(udp::HEADER_LENGTH..).unwrap_or(&[]);
    let udp_offset = Some(plain.l4_offset());
    let offset = plain.l4_offset() + udp::HEADER_LENGTH;
    if !to_psp {
        return receive_esp_in_udp(
            packet,
            Carrier { udp_offset, offset, ip_version: plain.ip_version },
            expected,
        );
    }
    let header = psp::Header::parse(packet)?;
    header.check_length(packet.len())?;
    Ok(Security {
        protocol: Protocol::Psp,
        udp_offset,
        offset,
        spi: header.spi,
        numbers_offset: offset + psp::field::IV.start,
        header_octets: header.length() as u16,
        crypt_offset: header.crypt_offset,
        psp_flags: packet.get(psp::field::FLAGS.start).copied().unwrap_or(0),
        ..Security::NONE
    })
}

/// Ethernet, IP and ports. Inlined into its two callers, so that what it finds is written where it stays.
#[inline(always)]
fn parse_layers(frame: &[u8], check_ipv4_checksum: bool) -> Result<Plain, Malformed> {
    let link = Link::parse(frame)?;
    let packet = frame.get(link.length..).unwrap_or(&[]);
    match link.ethertype {
        ethertype::IPV4 => {
            let header = ipv4::Header::parse(packet)?;
            if check_ipv4_checksum && !ipv4::checksum_is_valid(packet) {
                return Err(Malformed::BadIpv4Checksum);
            }
            Ok(plain_of_ipv4(frame, &link, &header))
        }
        ethertype::IPV6 => {
            let header = ipv6::Header::parse(packet)?;
            let length = ipv6::HEADER_LENGTH + usize::from(header.payload_length);
            let chain = ipv6::walk(packet.get(..length).unwrap_or(&[]), header.next_header)?;
            Ok(plain_of_ipv6(frame, &link, &header, &chain))
        }
        _ => Ok(plain_of_other(frame, &link)),
    }
}

/// What is kept of the Ethernet header.
struct Link {
    vlan: Option<u16>,
    length: usize,
    ethertype: u16,
}

impl Link {
    /// Reads the header. Most frames have no tag.
    #[inline]
    fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let ethertype = ethernet::field::ETHERTYPE.start;
        let ethertype = bytes::word16(frame, ethertype).ok_or(Malformed::TruncatedEthernet)?;
        if !ethernet::is_tag(ethertype) {
            return Ok(Self { vlan: None, length: ethernet::HEADER_LENGTH, ethertype });
        }
        let header = ethernet::Header::parse(frame)?;
        let vlan = header.tags.first().copied().flatten().map(|tag| tag.control);
        Ok(Self { vlan, length: header.length(), ethertype: header.ethertype })
    }
}

/// What an IPv4 header says.
#[inline(always)]
fn plain_of_ipv4(frame: &[u8], link: &Link, header: &ipv4::Header) -> Plain {
    let l4_offset = link.length + usize::from(header.header_length);
    let l3_end = link.length + usize::from(header.total_length);
    let upper = frame.get(l4_offset..l3_end).filter(|_| header.is_first_fragment());
    Plain {
        vlan: link.vlan,
        l3_offset: link.length,
        ip_version: 4,
        ip_header_length: usize::from(header.header_length),
        l3_end,
        next_header: header.protocol,
        next_header_offset: link.length + ipv4::field::PROTOCOL.start,
        traffic_class: header.traffic_class,
        dont_fragment: header.dont_fragment(),
        hop_limit: header.ttl,
        flow_label: 0,
        source: widen(header.source),
        destination: widen(header.destination),
        ports: upper.and_then(|upper| parse_ports(header.protocol, upper)),
        fragment: header.is_fragment(),
    }
}

/// What an IPv6 header and its chain say.
#[inline]
fn plain_of_ipv6(frame: &[u8], link: &Link, header: &ipv6::Header, chain: &ipv6::Chain) -> Plain {
    let l4_offset = link.length + chain.length;
    let l3_end = link.length + ipv6::HEADER_LENGTH + usize::from(header.payload_length);
    let upper = frame.get(l4_offset..l3_end).filter(|_| chain.is_first_fragment());
    Plain {
        vlan: link.vlan,
        l3_offset: link.length,
        ip_version: 6,
        ip_header_length: chain.length,
        l3_end,
        next_header: chain.next_header,
        next_header_offset: link.length + chain.next_header_offset,
        traffic_class: header.traffic_class,
        dont_fragment: true,
        hop_limit: header.hop_limit,
        flow_label: header.flow_label,
        source: header.source,
        destination: header.destination,
        ports: upper.and_then(|upper| parse_ports(chain.next_header, upper)),
        fragment: chain.fragment.is_some(),
    }
}

/// What can be said of a frame that is not IP.
#[inline]
fn plain_of_other(frame: &[u8], link: &Link) -> Plain {
    Plain {
        vlan: link.vlan,
        l3_offset: link.length,
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
    }
}

/// The ports at the front of the upper protocol. TCP and UDP have them at the same place.
#[inline]
fn parse_ports(next_header: u8, upper: &[u8]) -> Option<Ports> {
    if !matches!(next_header, protocol::TCP | protocol::UDP) {
        return None;
    }
    let header = tcp::Header::parse(upper)?;
    Some(Ports { source: header.source_port, destination: header.destination_port })
}

/// An IPv4 address in the last four of sixteen octets, where [`Plain`] has it.
#[inline]
pub const fn widen(address: [u8; 4]) -> [u8; 16] {
    (u32::from_be_bytes(address) as u128).to_be_bytes()
}
