//! Constrained-random frames: a grammar of all that the receive parser reads, and of what can be wrong with it.
//!
//! ```text
//!   Ethernet, 0..3 tags ─┬─ IPv4, options ──────────┬─ ESP, EESP, WESPv2
//!                        ├─ IPv6, 0..10 extension ──┼─ UDP ─┬─ PSP
//!                        │  headers, to 2 KiB long  │       ├─ ESP, EESP, WESPv2, marker, keepalive
//!                        └─ anything                └─ TCP, anything
//! ```
//! A frame is made right first, then one fault at most is put in. Faults of a security header are in its own writer, each a
//! few in a hundred. What a frame came out as is not kept: the model says it.

mod security;

use cryptonic_wire::packet::Expected;
use cryptonic_wire::{checksum, ethernet, ip, ipv4, ipv6, psp, udp};

use crate::random::Random;

/// The longest frame.
pub const MAX_OCTETS: usize = 16_383;
/// Chains of extension headers grow no further than this.
const CHAIN_OCTETS: usize = 14_000;
/// The protocol numbers that packets of EESP and WESPv2 have while the parser does not look for them.
const EESP_UNEXPECTED: u8 = 253;

/// Where the headers of a frame in the making are.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    /// The IP header.
    l3: usize,
    /// 4 or 6.
    ip_version: u8,
    /// The upper protocol.
    l4: usize,
    /// The UDP header, if it is UDP.
    udp: Option<usize>,
    /// One past the last header's last octet.
    headers_end: usize,
    /// Nothing more is in the packet.
    is_whole: bool,
}

/// The upper protocol of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upper {
    Esp,
    Eesp,
    Wespv2,
    UdpToPsp,
    UdpToEsp,
    UdpToOther,
    Tcp,
    Other,
}

/// In as many of 16 frames as it is listed.
const UPPERS: [Upper; 16] = [
    Upper::Esp,
    Upper::Esp,
    Upper::Eesp,
    Upper::Eesp,
    Upper::Eesp,
    Upper::Wespv2,
    Upper::Wespv2,
    Upper::UdpToPsp,
    Upper::UdpToPsp,
    Upper::UdpToPsp,
    Upper::UdpToEsp,
    Upper::UdpToEsp,
    Upper::UdpToEsp,
    Upper::UdpToOther,
    Upper::Tcp,
    Upper::Other,
];

/// What is wrong with a frame below its security header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The IP packet ends early, and all lengths say so.
    PacketCut,
    /// The frame ends early, and no length says so.
    FrameCut,
    /// A length is wrong.
    Length,
    /// A field of the IP header is wrong.
    IpField,
    /// The IPv4 checksum is wrong.
    Checksum,
    /// Some octets are anything.
    Octets,
}

/// In as many of 40 frames as it is listed.
fn fault(random: &mut Random) -> Option<Fault> {
    match random.below(40) {
        0..=5 => Some(Fault::PacketCut),
        6..=8 => Some(Fault::FrameCut),
        9..=10 => Some(Fault::Length),
        11 => Some(Fault::IpField),
        12 => Some(Fault::Checksum),
        13..=14 => Some(Fault::Octets),
        _ => None,
    }
}

/// Makes one frame of 1 to [`MAX_OCTETS`] octets in place of what `frame` holds.
pub fn generate(random: &mut Random, expected: &Expected, frame: &mut Vec<u8>) {
    frame.clear();
    let fault = fault(random);
    let mut layout = Layout::default();
    match write_ethernet(random, frame) {
        ethernet::ethertype::IPV4 => write_ipv4(random, expected, frame, &mut layout),
        ethernet::ethertype::IPV6 => write_ipv6(random, expected, frame, &mut layout),
        _ => {
            let room = random.below(120);
            random.append(room, frame);
            let cut = if random.percent(30) { random.below(frame.len()) } else { 0 };
            frame.truncate(frame.len() - cut);
            return;
        }
    }
    if !layout.is_whole {
        let end = target_length(random, frame.len());
        random.append(end - frame.len(), frame);
    }
    let mut packet_end = frame.len();
    if fault == Some(Fault::PacketCut) {
        let first = if layout.ip_version == 4 { layout.l4 } else { layout.l3 + ipv6::HEADER_LENGTH };
        let behind = (layout.headers_end + 4).min(frame.len());
        packet_end = first + random.below(behind - first + 1);
        // What is cut off may stay as octets behind the packet.
        if random.percent(50) {
            frame.truncate(packet_end);
        }
    }
    write_lengths(frame, &layout, packet_end);
    match fault {
        Some(Fault::Length) => spoil_length(random, frame, &layout),
        Some(Fault::IpField) => spoil_ip_field(random, frame, &layout),
        _ => {}
    }
    write_checksum(frame, &layout);
    if random.percent(2) {
        write_zero_checksum(random, frame, &layout);
    }
    if random.percent(20) {
        write_padding(random, frame);
    }
    match fault {
        Some(Fault::FrameCut) => {
            let behind = (layout.headers_end + 8).min(frame.len());
            let most = if random.percent(80) { behind } else { frame.len() };
            frame.truncate(1 + random.below(most));
        }
        Some(Fault::Checksum) => spoil_checksum(random, frame, &layout),
        Some(Fault::Octets) => {
            let behind = (layout.headers_end + 4).min(frame.len());
            for _ in 0..1 + random.below(3) {
                let place = random.below(behind);
                frame[place] =
                    if random.percent(50) { random.octet() } else { frame[place] ^ 1 << random.below(8) };
            }
            if random.percent(60) {
                write_checksum(frame, &layout);
            }
        }
        _ => {}
    }
    frame.truncate(MAX_OCTETS);
}

/// Mostly just behind the headers, often at the corner of a beat, seldom long.
fn target_length(random: &mut Random, at_least: usize) -> usize {
    const CORNERS: [usize; 20] =
        [60, 62, 63, 64, 65, 66, 68, 126, 127, 128, 129, 130, 191, 192, 193, 256, 257, 1500, 1514, 2048];
    let length = match random.below(400) {
        0..160 => at_least + random.below(24),
        160..310 => at_least + random.below(80),
        310..360 => {
            let corner = random.of(&CORNERS);
            if corner >= at_least { corner } else { at_least.next_multiple_of(64) + random.below(3) }
        }
        360..390 => at_least + random.below(500),
        390..399 => {
            let magnitude = random.below(11);
            at_least + random.below(16 << magnitude)
        }
        _ => MAX_OCTETS - random.of(&[0, 1, 2, 50, 64]),
    };
    length.clamp(at_least, MAX_OCTETS.max(at_least))
}

/// Addresses and tags; gives the EtherType behind them.
fn write_ethernet(random: &mut Random, frame: &mut Vec<u8>) -> u16 {
    use ethernet::ethertype::{IPV4, IPV6, SERVICE_VLAN, VLAN};
    random.append(ethernet::field::ETHERTYPE.start, frame);
    let tags = random.of(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]);
    // A third tag is an EtherType that nobody knows.
    let tags = if random.percent(2) { 3 } else { tags };
    for _ in 0..tags {
        frame.extend_from_slice(&random.of(&[VLAN, SERVICE_VLAN]).to_be_bytes());
        random.append(2, frame);
    }
    let ethertype = match random.below(100) {
        0..44 => IPV4,
        44..97 => IPV6,
        97 => VLAN,
        98 => IPV4 ^ 1 << random.below(16),
        _ => random.bits() as u16,
    };
    frame.extend_from_slice(&ethertype.to_be_bytes());
    // Behind a third tag nothing is looked at any more, but it is there.
    ethertype
}

fn write_ipv4(random: &mut Random, expected: &Expected, frame: &mut Vec<u8>, layout: &mut Layout) {
    let upper = random.of(&UPPERS);
    let options = if random.percent(45) { 0 } else { random.below(11) };
    let fragment = match random.below(20) {
        0 => ipv4::flag::MORE_FRAGMENTS,
        1 => ipv4::flag::FRAGMENT_OFFSET & random.bits() as u16,
        2 => 1 << random.below(13),
        _ => 0,
    };
    let [f0, f1] = (fragment | (random.bits() as u16 & !(0x3fff))).to_be_bytes();
    layout.ip_version = 4;
    layout.l3 = frame.len();
    frame.push(0x45 + options as u8);
    random.append(5, frame);
    frame.extend_from_slice(&[f0, f1, random.octet(), number_of(random, expected, upper), 0, 0]);
    random.append(8, frame);
    let octet = random.of(&[None, None, Some(0), Some(0xff)]);
    let start = frame.len();
    random.append(4 * options, frame);
    if let Some(octet) = octet {
        frame[start..].fill(octet);
    }
    write_upper(random, expected, frame, layout, upper, false);
}

fn write_ipv6(random: &mut Random, expected: &Expected, frame: &mut Vec<u8>, layout: &mut Layout) {
    use ip::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
    let upper = random.of(&UPPERS);
    let number = number_of(random, expected, upper);
    layout.ip_version = 6;
    layout.l3 = frame.len();
    frame.push(0x60 | random.octet() & 0x0f);
    random.append(ipv6::HEADER_LENGTH - 1, frame);
    let mut named_at = layout.l3 + ipv6::field::NEXT_HEADER.start;
    let headers = match random.below(20) {
        0..8 => 0,
        8..15 => 1 + random.below(3),
        15..18 => 4 + random.below(5),
        18 => 8,
        _ => 9 + random.below(2),
    };
    // Some chains reach over hundreds of beats.
    let far = random.below(150) == 0;
    let headers = if far { 1 + random.below(8) } else { headers };
    let mut number = Some(number);
    for _ in 0..headers {
        if frame.len() > CHAIN_OCTETS {
            break;
        }
        let header = random.of(&[
            HOP_BY_HOP,
            ROUTING,
            DESTINATION_OPTIONS,
            HOP_BY_HOP,
            ROUTING,
            DESTINATION_OPTIONS,
            FRAGMENT,
        ]);
        frame[named_at] = header;
        named_at = frame.len();
        let units = match random.below(64) {
            _ if header == FRAGMENT => 0,
            _ if far => 256 - 1 - random.below(40),
            0..46 => 0,
            46..58 => 1 + random.below(3),
            58..63 => random.below(40),
            _ => 248 + random.below(8),
        };
        random.append((units + 1) * 8, frame);
        if header != FRAGMENT {
            frame[named_at + 1] = units as u8;
            continue;
        }
        // Behind a fragment header nothing is walked, and its second octet is reserved.
        let word = random.of(&[0_u16, 1, 1, 0xfff8]) & random.bits() as u16 | random.below(2) as u16;
        frame[named_at + 2..named_at + 4].copy_from_slice(&word.to_be_bytes());
        if random.percent(15) {
            frame[named_at] = random.of(&[HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT]);
            number = None;
        }
        break;
    }
    if let Some(number) = number {
        frame[named_at] = number;
    }
    write_upper(random, expected, frame, layout, upper, true);
}

/// The IP protocol number of an upper protocol.
fn number_of(random: &mut Random, expected: &Expected, upper: Upper) -> u8 {
    let expected_or = |number: u8, other: u8| if number == 0 { other } else { number };
    match upper {
        Upper::Esp => ip::protocol::ESP,
        Upper::Eesp => expected_or(expected.eesp_protocol, EESP_UNEXPECTED),
        Upper::Wespv2 => expected_or(expected.wespv2_protocol, cryptonic_wire::wespv2::PROTOCOL),
        Upper::UdpToPsp | Upper::UdpToEsp | Upper::UdpToOther => ip::protocol::UDP,
        Upper::Tcp => ip::protocol::TCP,
        Upper::Other => random.octet(),
    }
}

fn write_upper(
    random: &mut Random,
    expected: &Expected,
    frame: &mut Vec<u8>,
    layout: &mut Layout,
    upper: Upper,
    ipv6: bool,
) {
    layout.l4 = frame.len();
    let or = |port: u16, other: u16| if port == 0 { other } else { port };
    let port = match upper {
        Upper::UdpToPsp => Some(or(expected.udp_ports.psp, psp::DEFAULT_UDP_PORT)),
        Upper::UdpToEsp => Some(or(expected.udp_ports.esp, cryptonic_wire::esp::DEFAULT_UDP_PORT)),
        Upper::UdpToOther => Some(match random.below(4) {
            0 => 0,
            1 => expected.udp_ports.psp ^ 1 << random.below(16),
            2 => expected.udp_ports.esp.swap_bytes(),
            _ => random.bits() as u16,
        }),
        _ => None,
    };
    if let Some(port) = port {
        layout.udp = Some(frame.len());
        // From the port of either protocol too: only the destination counts.
        let any = random.bits() as u16;
        let source = random.of(&[expected.udp_ports.psp, expected.udp_ports.esp, any]);
        frame.extend_from_slice(&source.to_be_bytes());
        frame.extend_from_slice(&port.to_be_bytes());
        random.append(udp::HEADER_LENGTH - 4, frame);
    }
    let security = frame.len();
    match upper {
        Upper::Esp => security::write_esp(random, frame),
        Upper::Eesp => security::write_eesp(random, frame),
        Upper::Wespv2 => security::write_wespv2(random, frame, ipv6),
        Upper::UdpToPsp => security::write_psp(random, frame),
        Upper::UdpToEsp => layout.is_whole = security::write_at_esp_port(random, frame),
        Upper::Tcp => random.append(20, frame),
        Upper::UdpToOther | Upper::Other => {
            let room = random.below(40);
            random.append(room, frame);
        }
    }
    debug_assert!(frame.len() >= security, "headers only grow a frame");
    layout.headers_end = frame.len();
}

/// The lengths of an IP packet that ends at `end`.
fn write_lengths(frame: &mut [u8], layout: &Layout, end: usize) {
    let (at, from) = match layout.ip_version {
        4 => (layout.l3 + ipv4::field::TOTAL_LENGTH.start, layout.l3),
        _ => (layout.l3 + ipv6::field::PAYLOAD_LENGTH.start, layout.l3 + ipv6::HEADER_LENGTH),
    };
    put_word(frame, at, end.saturating_sub(from));
    if let Some(udp) = layout.udp {
        put_word(frame, udp + udp::field::LENGTH.start, end.saturating_sub(udp));
    }
}

fn put_word(frame: &mut [u8], at: usize, length: usize) {
    if let Some(octets) = frame.get_mut(at..at + 2) {
        octets.copy_from_slice(&(length as u16).to_be_bytes());
    }
}

/// The IPv4 header checksum, of a header as long as its IHL says.
fn write_checksum(frame: &mut [u8], layout: &Layout) {
    if layout.ip_version != 4 {
        return;
    }
    repair_ipv4_checksum(frame, layout.l3);
}

/// Makes the checksum of the IPv4 header at `l3` right, if the header is there.
pub(crate) fn repair_ipv4_checksum(frame: &mut [u8], l3: usize) {
    let Some(octets) = frame.get(l3).map(|octet| usize::from(octet & 0x0f) * 4) else { return };
    let Some(header) = frame.get_mut(l3..l3 + octets) else { return };
    let Some(field) = header.get_mut(ipv4::field::CHECKSUM) else { return };
    field.fill(0);
    let sum = checksum::checksum(header);
    header[ipv4::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

/// One of the two forms of zero that a right checksum can have: 0 and 0xffff. The identification makes it so.
fn write_zero_checksum(random: &mut Random, frame: &mut [u8], layout: &Layout) {
    if layout.ip_version != 4 {
        return;
    }
    let at = layout.l3 + ipv4::field::IDENTIFICATION.start;
    put_word(frame, at, 0);
    repair_ipv4_checksum(frame, layout.l3);
    let checksum = layout.l3 + ipv4::field::CHECKSUM.start;
    if let Some(field) = frame.get(checksum..checksum + 2).and_then(|octets| octets.first_chunk()).copied() {
        put_word(frame, at, u16::from_be_bytes(field).into());
        put_word(frame, checksum, random.of(&[0, 0xffff]));
    }
}

/// Octets behind the IP packet, as a line that wants 60 octets adds them, or anybody.
fn write_padding(random: &mut Random, frame: &mut Vec<u8>) {
    let octets = match random.below(4) {
        0 => 60_usize.saturating_sub(frame.len()),
        1 => random.below(8),
        2 => random.below(64),
        _ => random.below(200),
    };
    let zeros = random.percent(50);
    let start = frame.len();
    random.append(octets, frame);
    if zeros {
        frame[start..].fill(0);
    }
}

fn spoil_length(random: &mut Random, frame: &mut [u8], layout: &Layout) {
    let at = match layout.udp {
        Some(udp) if random.percent(60) => udp + udp::field::LENGTH.start,
        _ if layout.ip_version == 4 => layout.l3 + ipv4::field::TOTAL_LENGTH.start,
        _ => layout.l3 + ipv6::field::PAYLOAD_LENGTH.start,
    };
    let Some([high, low]) = frame.get(at..at + 2).and_then(|octets| octets.first_chunk()).copied() else {
        return;
    };
    let length = u16::from_be_bytes([high, low]);
    let spoilt = match random.below(8) {
        0 => length.wrapping_sub(1),
        1 => length.wrapping_add(1),
        2 => length.wrapping_sub(1 + random.below(16) as u16),
        3 => length.wrapping_add(1 + random.below(64) as u16),
        4 => length ^ 1 << random.below(16),
        5 => random.below(64) as u16,
        6 => u16::MAX - random.below(64) as u16,
        _ => random.bits() as u16,
    };
    put_word(frame, at, spoilt.into());
}

fn spoil_ip_field(random: &mut Random, frame: &mut [u8], layout: &Layout) {
    let octet = &mut frame[layout.l3];
    if layout.ip_version == 6 || random.percent(40) {
        *octet ^= 0x10 << random.below(4);
    } else if random.percent(60) {
        *octet = 0x40 | random.below(5) as u8;
    } else {
        // A header longer than its packet.
        let words = usize::from(*octet & 0x0f);
        let at = layout.l3 + ipv4::field::TOTAL_LENGTH.start;
        put_word(frame, at, random.below(4 * words));
    }
}

fn spoil_checksum(random: &mut Random, frame: &mut [u8], layout: &Layout) {
    if layout.ip_version != 4 {
        return;
    }
    let octets = usize::from(frame[layout.l3] & 0x0f) * 4;
    let place = match random.below(3) {
        0 => ipv4::field::CHECKSUM.start + random.below(2),
        1 => octets.saturating_sub(1 + random.below(4)),
        _ => 1 + random.below(octets.max(2) - 1),
    };
    if let Some(octet) = frame.get_mut(layout.l3 + place) {
        *octet = match random.below(3) {
            0 => octet.wrapping_add(1),
            _ => *octet ^ 1 << random.below(8),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_1_to_16383_octets_and_reach_both_ends() {
        let mut random = Random::new(1);
        let mut frame = Vec::new();
        let (mut shortest, mut longest) = (usize::MAX, 0);
        for _ in 0..40_000 {
            generate(&mut random, &Expected::default(), &mut frame);
            shortest = shortest.min(frame.len());
            longest = longest.max(frame.len());
        }
        assert_eq!((shortest, longest), (1, MAX_OCTETS));
    }
}
