//! What a gateway tells the senders of packets that it cannot forward, and what it is told itself: ICMP (RFC 792, RFC 1191,
//! RFC 1812 4.3.2) and ICMPv6 (RFC 4443).

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use cryptonic_wire::ethernet::{self, ethertype};
use cryptonic_wire::ip::protocol;
use cryptonic_wire::packet::Plain;
use cryptonic_wire::{checksum, esp, ipv4, ipv6, psp, udp};

use crate::commands::gate;

/// IP protocols.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Messages of ICMP (RFC 792): type, and code where there is one only.
const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TIME_EXCEEDED: u8 = 11;
/// Those that tell of errors: unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122 3.2.2).
const ERRORS: [u8; 5] = [DESTINATION_UNREACHABLE, 4, 5, TIME_EXCEEDED, 12];
/// Messages of ICMPv6 (RFC 4443 2.1): those below 128 tell of errors, and a redirect counts as one (2.4 e.2).
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED_6: u8 = 3;
const FIRST_INFORMATIONAL: u8 = 128;
const REDIRECT_6: u8 = 137;
/// Octets of a message's header.
const HEADER_LENGTH: usize = 8;
/// The longest errors, with their IP header: RFC 1812 4.3.2.3, RFC 4443 2.4 c.
const LONGEST_4: usize = 576;
const LONGEST_6: usize = 1280;
/// Precedence 6, internetwork control (RFC 1812 4.3.2.5).
const TRAFFIC_CLASS: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;
/// Errors that may be sent at once, and how long each takes to be earned again (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
const BURST: u32 = 50;
const EARNED: Duration = Duration::from_millis(10);

/// Why a packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    HopsExceeded,
    /// It is longer than this, and must not be cut.
    TooBig(usize),
}

/// Whether a packet's sender may be told of an error (RFC 1812 4.3.2.7, RFC 4443 2.4 e): never of one with an error, nor with
/// anything but the beginning of a packet from one host to another.
pub(super) fn may_be_told(frame: &[u8], plain: &Plain) -> bool {
    let (source, destination) = gate::addresses(plain);
    let to_one_station = frame.first().is_some_and(|octet| octet & 1 == 0);
    to_one_station
        && is_host(source)
        && is_host(destination)
        && is_beginning(frame, plain)
        && !is_error(frame, plain)
}

/// The frame, its Ethernet addresses still open, that tells a packet's sender what is wrong. It is an IP packet of at most
/// `longest` octets, with the beginning of the packet in it. `source` is of the packet's family.
pub(super) fn error(
    trouble: Trouble,
    frame: &[u8],
    plain: &Plain,
    source: IpAddr,
    longest: usize,
) -> Option<Vec<u8>> {
    let packet = frame.get(plain.l3_offset..plain.l3_end)?;
    match (source, gate::addresses(plain).0) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let begins = match trouble {
                Trouble::HopsExceeded => [TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0],
                Trouble::TooBig(mtu) => {
                    let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
                    [DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, high, low]
                }
            };
            let room = longest.min(LONGEST_4).checked_sub(ipv4::HEADER_LENGTH + HEADER_LENGTH)?;
            let mut message = [&begins, &packet[..packet.len().min(room)]].concat();
            let sum = checksum::checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            Some(over_ipv4(source, to, &message))
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            let (kind, word) = match trouble {
                Trouble::HopsExceeded => (TIME_EXCEEDED_6, 0),
                Trouble::TooBig(mtu) => (PACKET_TOO_BIG, u32::try_from(mtu).unwrap_or(u32::MAX)),
            };
            let begins = [&[kind, 0, 0, 0][..], &word.to_be_bytes()].concat();
            let room = longest.min(LONGEST_6).checked_sub(ipv6::HEADER_LENGTH + HEADER_LENGTH)?;
            let mut message = [&begins, &packet[..packet.len().min(room)]].concat();
            let sum = checksum_6(source, to, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            Some(over_ipv6(source, to, &message))
        }
        _ => None,
    }
}

/// How many errors may still be sent: all at once up to a burst, then as many as are earned.
pub(super) struct Budget {
    left: u32,
    earned: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Budget {
        Budget { left: BURST, earned: now }
    }

    /// Whether one more may be sent.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.earned);
        let earned = (passed.as_nanos() / EARNED.as_nanos()).min(u128::from(BURST)) as u32;
        if earned > 0 {
            self.left = BURST.min(self.left + earned);
            self.earned = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// What a router outside says of a packet that this end protected: that it is longer than `mtu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) mtu: usize,
    /// As they stand in the packet that was too long.
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: &'static str,
    pub(super) spi: u32,
}

/// Reads a message that an ESP or PSP packet was too long (RFC 1191, RFC 4443 3.2).
pub(super) fn too_big(frame: &[u8], plain: &Plain) -> Option<Told> {
    let is_right = |message: &[u8]| match gate::addresses(plain) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => checksum_6(source, destination, message) == 0,
        _ => checksum::is_valid(message),
    };
    let message = frame.get(plain.l4_offset()..plain.l3_end)?;
    let [kind, code, _, _, a, b, c, d] = *message.first_chunk::<HEADER_LENGTH>()?;
    let quoted = message.get(HEADER_LENGTH..)?;
    let told = match (plain.ip_version, plain.next_header, kind, code) {
        (4, ICMP, DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED) if is_right(message) => {
            let [source, destination] = [ipv4::field::SOURCE, ipv4::field::DESTINATION].map(|at| {
                quoted
                    .get(at)
                    .and_then(|octets| octets.first_chunk())
                    .map(|octets: &[u8; 4]| (*octets).into())
            });
            let length = usize::from(quoted.first()? & 0xf) * 4;
            let number = *quoted.get(ipv4::field::PROTOCOL.start)?;
            (u32::from_be_bytes([0, 0, c, d]), source?, destination?, number, length)
        }
        (6, ICMPV6, PACKET_TOO_BIG, 0) if is_right(message) => {
            let [source, destination] = [ipv6::field::SOURCE, ipv6::field::DESTINATION].map(|at| {
                quoted
                    .get(at)
                    .and_then(|octets| octets.first_chunk())
                    .map(|octets: &[u8; 16]| (*octets).into())
            });
            let number = *quoted.get(ipv6::field::NEXT_HEADER.start)?;
            (u32::from_be_bytes([a, b, c, d]), source?, destination?, number, ipv6::HEADER_LENGTH)
        }
        _ => return None,
    };
    let (mtu, source, destination, number, length) = told;
    let upper = quoted.get(length..)?;
    let (protocol, spi) = match number {
        protocol::ESP => ("esp", upper.get(esp::field::SPI)?),
        protocol::UDP => {
            let port = upper.get(udp::field::DESTINATION_PORT)?;
            let inner = upper.get(udp::HEADER_LENGTH..)?;
            if port == psp::DEFAULT_UDP_PORT.to_be_bytes() {
                ("psp", inner.get(psp::field::SPI)?)
            } else {
                ("esp", inner.get(esp::field::SPI)?)
            }
        }
        _ => return None,
    };
    let spi = u32::from_be_bytes(*spi.first_chunk()?);
    Some(Told { mtu: mtu as usize, source, destination, protocol, spi })
}

/// Whether an address is one host's.
fn is_host(address: IpAddr) -> bool {
    match address {
        // 240.0.0.0/4 with the limited broadcast in it is of nobody (RFC 1112 4).
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first < 224 && !address.is_loopback()
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_multicast() || address.is_loopback()),
    }
}

/// Whether a packet is whole or a first fragment.
fn is_beginning(frame: &[u8], plain: &Plain) -> bool {
    if !plain.fragment {
        return true;
    }
    let packet = frame.get(plain.l3_offset..plain.l3_end).unwrap_or(&[]);
    if plain.ip_version == 4 {
        return ipv4::Header::parse(packet).is_ok_and(|header| header.is_first_fragment());
    }
    let next_header = packet.get(ipv6::field::NEXT_HEADER.start);
    next_header.is_some_and(|next| ipv6::walk(packet, *next).is_ok_and(|chain| chain.is_first_fragment()))
}

/// Whether a packet tells of an error itself. One that is too short to say so may do so.
fn is_error(frame: &[u8], plain: &Plain) -> bool {
    let kind = frame.get(plain.l4_offset()..plain.l3_end).and_then(|message| message.first());
    match (plain.ip_version, plain.next_header) {
        (4, ICMP) => kind.is_none_or(|kind| ERRORS.contains(kind)),
        (6, ICMPV6) => kind.is_none_or(|kind| *kind < FIRST_INFORMATIONAL || *kind == REDIRECT_6),
        _ => false,
    }
}

/// The checksum of a message of ICMPv6, with its pseudo header (RFC 8200 8.1).
fn checksum_6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = (message.len() as u32).to_be_bytes();
    let all = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, ICMPV6], message].concat();
    checksum::checksum(&all)
}

fn over_ipv4(source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let header = ipv4::Header {
        header_length: ipv4::HEADER_LENGTH as u8,
        traffic_class: TRAFFIC_CLASS,
        total_length: (ipv4::HEADER_LENGTH + message.len()) as u16,
        // What is never cut needs no number (RFC 6864 4.1).
        identification: 0,
        flags_and_fragment_offset: ipv4::flag::DONT_FRAGMENT,
        ttl: HOP_LIMIT,
        protocol: ICMP,
        checksum: 0,
        source: source.octets(),
        destination: destination.octets(),
    };
    [&ethernet_header(ethertype::IPV4)[..], &header.with_checksum().to_bytes(), message].concat()
}

fn over_ipv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let header = ipv6::Header {
        traffic_class: TRAFFIC_CLASS,
        flow_label: 0,
        payload_length: message.len() as u16,
        next_header: ICMPV6,
        hop_limit: HOP_LIMIT,
        source: source.octets(),
        destination: destination.octets(),
    };
    let mut octets = [0; ipv6::HEADER_LENGTH];
    let fits = header.emit(&mut octets);
    debug_assert!(fits.is_ok(), "the header has its own length");
    [&ethernet_header(ethertype::IPV6)[..], &octets, message].concat()
}

/// Both addresses are written when the neighbour is known.
fn ethernet_header(kind: u16) -> [u8; ethernet::HEADER_LENGTH] {
    let mut header = [0; ethernet::HEADER_LENGTH];
    header[12..].copy_from_slice(&kind.to_be_bytes());
    header
}
