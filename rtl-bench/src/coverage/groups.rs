//! The groups of coverage bins: what each counts, and what its bins are called.

use cryptonic_hwmodel::rx_parse::{LATENCY_CYCLES, verdict};
use cryptonic_regs::Status;
use cryptonic_wire::Malformed;
use cryptonic_wire::ip::protocol;
use cryptonic_wire::packet::{Expected, Parsed, Protocol, RECEIVE_MALFORMATIONS};

use crate::rx_parse::RESULTS;
use crate::stimulus::Pattern;

/// A group, as an index into [`GROUPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the titles in GROUPS say what each is")]
pub enum Group {
    Verdicts,
    Places,
    Kinds,
    Ipv4Words,
    ChainDepth,
    ChainKinds,
    ExtensionUnits,
    ExtensionStart,
    UdpStart,
    EspStart,
    PspStart,
    EespStart,
    Wespv2Start,
    CryptOffsetStart,
    NumbersStart,
    NumbersThere,
    EespOptions,
    EespOptionOctets,
    CryptOffsetPlace,
    EespCryptOffset,
    Wespv2Options,
    Wespv2OptionOctets,
    Wespv2CryptOffset,
    PspFlags,
    PspExtension,
    PspCryptOffset,
    Distance,
    LengthModulo,
    Beats,
    Padding,
    PaddingBeats,
    CutEthernet,
    CutTags,
    CutIpv4,
    CutIpv6,
    CutUdp,
    CutEsp,
    CutPsp,
    CutEesp,
    CutWespv2,
    Handshake,
    Inside,
    SingleBeats,
    GapsWithin,
    GapsBetween,
    Patterns,
    Configurations,
}

/// A row of [`GROUPS`].
pub struct Definition {
    /// The group.
    pub group: Group,
    /// What it counts.
    pub title: &'static str,
    /// How many bins it has.
    pub bins: fn() -> usize,
    /// What a bin is called.
    pub name: fn(usize) -> String,
}

const fn row(
    group: Group,
    title: &'static str,
    bins: fn() -> usize,
    name: fn(usize) -> String,
) -> Definition {
    Definition { group, title, bins, name }
}

/// Every group.
pub const GROUPS: &[Definition] = &[
    row(Group::Verdicts, "verdicts", || RECEIVE_MALFORMATIONS.len() + 1, verdict_name),
    row(
        Group::Places,
        "verdicts of IP and above, by IP version and carrier",
        || places().count(),
        place_name,
    ),
    row(Group::Kinds, "protocol, carrier, IP version, tags", || KINDS.len() * 6 + 3, kind_name),
    row(Group::Ipv4Words, "IPv4 header words", || 11, |bin| (bin + 5).to_string()),
    row(Group::ChainDepth, "extension headers of a packet", || 9, plain),
    row(
        Group::ChainKinds,
        "extension header by place in the chain",
        || 8 * EXTENSIONS.len(),
        chain_kind_name,
    ),
    row(
        Group::ExtensionUnits,
        "extension header length, 8-octet units",
        || EXTENSION_UNITS.len(),
        |bin| class_name(&EXTENSION_UNITS, bin),
    ),
    row(Group::ExtensionStart, "extension header's start modulo 64", || 16, start_name),
    row(Group::UdpStart, "UDP header's start modulo 64", || 16, start_name),
    row(Group::EspStart, "ESP header's start modulo 64", || 16, start_name),
    row(Group::PspStart, "PSP header's start modulo 64", || 16, start_name),
    row(Group::EespStart, "EESP header's start modulo 64", || 16, start_name),
    row(Group::Wespv2Start, "WESPv2 header's start modulo 64", || 16, start_name),
    row(Group::CryptOffsetStart, "crypt offset option's start modulo 64", || 64, plain),
    row(Group::NumbersStart, "start of EESP's numbers modulo 64", || 64, plain),
    row(Group::NumbersThere, "octets of the numbers that are in the frame", || 17, plain),
    row(Group::EespOptions, "EESP options of a packet", || 9, plain),
    row(
        Group::EespOptionOctets,
        "octets of EESP options",
        || OPTION_OCTETS.len(),
        |bin| class_name(&OPTION_OCTETS, bin),
    ),
    row(Group::CryptOffsetPlace, "crypt offset option's place", || 8, |bin| (bin + 1).to_string()),
    row(
        Group::EespCryptOffset,
        "EESP crypt offset",
        || CRYPT_OFFSET.len(),
        |bin| class_name(&CRYPT_OFFSET, bin),
    ),
    row(Group::Wespv2Options, "WESPv2 options of a packet", || 9, plain),
    row(Group::Wespv2OptionOctets, "octets of WESPv2 options", || 64, plain),
    row(
        Group::Wespv2CryptOffset,
        "WESPv2 crypt offset",
        || CRYPT_OFFSET.len(),
        |bin| class_name(&CRYPT_OFFSET, bin),
    ),
    row(Group::PspFlags, "PSP version, S, D, cookie", || 32, psp_flags_name),
    row(
        Group::PspExtension,
        "PSP header length, 8-octet units behind the IV",
        || EXTENSION_UNITS.len(),
        |bin| class_name(&EXTENSION_UNITS, bin),
    ),
    row(
        Group::PspCryptOffset,
        "PSP crypt offset",
        || CRYPT_OFFSET.len(),
        |bin| class_name(&CRYPT_OFFSET, bin),
    ),
    row(
        Group::Distance,
        "beats from IP header to upper protocol",
        || DISTANCE.len(),
        |bin| class_name(&DISTANCE, bin),
    ),
    row(Group::LengthModulo, "frame length modulo 64", || 64, plain),
    row(Group::Beats, "beats of a frame", || BEATS.len(), |bin| class_name(&BEATS, bin)),
    row(Group::Padding, "octets behind the IP packet", || PADDING.len(), |bin| class_name(&PADDING, bin)),
    row(Group::PaddingBeats, "last beat wholly behind the IP packet", || 1, |_| "yes".to_owned()),
    row(
        Group::CutEthernet,
        "octets of a frame cut in the Ethernet header",
        || 13,
        |bin| (bin + 1).to_string(),
    ),
    row(Group::CutTags, "octets of a frame cut in its tags", || 8, |bin| (bin + 14).to_string()),
    row(Group::CutIpv4, "octets of an IPv4 header cut short", || 20, plain),
    row(Group::CutIpv6, "octets of an IPv6 header cut short", || 40, plain),
    row(Group::CutUdp, "octets of a UDP header cut short", || 8, plain),
    row(Group::CutEsp, "octets of an ESP header cut short", || 8, plain),
    row(Group::CutPsp, "octets of a PSP packet too short", || 32, plain),
    row(Group::CutEesp, "octets of an EESP header cut short", || 8, plain),
    row(Group::CutWespv2, "octets of a WESPv2 header cut short", || 4, plain),
    row(Group::Handshake, "state, offer, ready, valid, consumer", handshakes, handshake_name),
    row(Group::Inside, "packets inside the unit", || INSIDE.len(), |bin| class_name(&INSIDE, bin)),
    row(
        Group::SingleBeats,
        "packets of one beat in consecutive cycles",
        || SINGLE.len(),
        |bin| class_name(&SINGLE, bin),
    ),
    row(Group::GapsWithin, "idle cycles within a packet", || IDLE.len(), |bin| class_name(&IDLE, bin)),
    row(Group::GapsBetween, "idle cycles between packets", || IDLE.len(), |bin| class_name(&IDLE, bin)),
    row(Group::Patterns, "pattern of stalls, pattern of gaps", || 25, pattern_name),
    row(
        Group::Configurations,
        "configurations",
        || CONFIGURATIONS.len(),
        |bin| CONFIGURATIONS[bin].0.to_owned(),
    ),
];

fn plain(bin: usize) -> String {
    bin.to_string()
}

fn start_name(bin: usize) -> String {
    (bin * 4 + 2).to_string()
}

/// Classes of numbers, by the first number of each.
pub type Classes<const N: usize> = [usize; N];

/// Units of eight octets.
pub const EXTENSION_UNITS: Classes<7> = [0, 1, 2, 4, 16, 64, 248];
/// Octets of options.
pub const OPTION_OCTETS: Classes<7> = [0, 1, 2, 16, 64, 128, 192];
/// Crypt offsets in 4-octet units.
pub const CRYPT_OFFSET: Classes<4> = [0, 1, 8, 32];
/// Beats from header to header.
pub const DISTANCE: Classes<7> = [0, 1, 2, 3, 8, 32, 128];
/// Beats of a frame.
pub const BEATS: Classes<9> = [1, 2, 3, 4, 8, 16, 64, 128, 256];
/// Octets of padding.
pub const PADDING: Classes<7> = [0, 1, 2, 4, 16, 64, 128];
/// Packets in the unit.
pub const INSIDE: Classes<6> = [0, 1, 2, 16, RESULTS as usize - 1, RESULTS as usize];
/// Consecutive cycles.
pub const SINGLE: Classes<5> = [1, 2, 8, 32, 64];
/// Idle cycles.
pub const IDLE: Classes<5> = [1, 2, 8, 32, LATENCY_CYCLES as usize + 8];

/// The class that a number is in. A number below the first class is in the first.
#[inline]
pub fn class<const N: usize>(classes: &Classes<N>, number: usize) -> usize {
    let mut class = 0;
    for (index, first) in classes.iter().enumerate().skip(1) {
        if number >= *first {
            class = index;
        }
    }
    class
}

fn class_name<const N: usize>(classes: &Classes<N>, bin: usize) -> String {
    match (classes.get(bin), classes.get(bin + 1)) {
        (Some(first), Some(next)) if *next == first + 1 => first.to_string(),
        (Some(first), Some(next)) => format!("{first}..{}", next - 1),
        (Some(first), None) => format!("{first} and more"),
        (None, _) => "none".to_owned(),
    }
}

/// The parser's verdicts: ok, and each malformation.
pub fn verdicts() -> impl Iterator<Item = Status> {
    std::iter::once(Status::Ok).chain(RECEIVE_MALFORMATIONS.iter().map(|malformed| verdict(*malformed)))
}

fn verdict_name(bin: usize) -> String {
    verdicts().nth(bin).map_or_else(|| "none".to_owned(), |status| status.name().to_owned())
}

/// Where a malformation of the IP header or above can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Ipv4,
    Ipv6,
    /// Either version; the carrier is not told yet, or there is none but IP.
    Ip,
    /// Either version, over UDP alone.
    Udp,
    /// Either version, over IP and UDP.
    Both,
}

const PLACES: &[(Malformed, Where)] = &[
    (Malformed::BadIpVersion, Where::Ip),
    (Malformed::TruncatedIpv4, Where::Ipv4),
    (Malformed::BadIpv4HeaderLength, Where::Ipv4),
    (Malformed::BadIpv4TotalLength, Where::Ipv4),
    (Malformed::BadIpv4Checksum, Where::Ipv4),
    (Malformed::TruncatedIpv6, Where::Ipv6),
    (Malformed::TruncatedIpv6Extension, Where::Ipv6),
    (Malformed::TooDeepExtensionChain, Where::Ipv6),
    (Malformed::Fragment, Where::Both),
    (Malformed::TruncatedUdp, Where::Udp),
    (Malformed::BadUdpLength, Where::Udp),
    (Malformed::TruncatedEsp, Where::Both),
    (Malformed::TruncatedPsp, Where::Udp),
    (Malformed::PspReservedBit, Where::Udp),
    (Malformed::PspBadVersion, Where::Udp),
    (Malformed::PspBadHeaderLength, Where::Udp),
    (Malformed::PspCryptOffsetPastEnd, Where::Udp),
    (Malformed::ReservedSpi, Where::Both),
    (Malformed::OptionOverrun, Where::Both),
    (Malformed::TooManyOptions, Where::Both),
    (Malformed::TruncatedEesp, Where::Both),
    (Malformed::EespFixedBits, Where::Both),
    (Malformed::EespBadVersion, Where::Both),
    (Malformed::EespBadCryptOffset, Where::Both),
    (Malformed::TruncatedWesp, Where::Both),
    (Malformed::WespBadVersion, Where::Both),
    (Malformed::WespBadHeaderLength, Where::Both),
    (Malformed::WespBadNextHeader, Where::Both),
    (Malformed::WespUnknownOption, Where::Both),
];

/// Every (malformation, IP version 0 or 1, in UDP) that can be.
fn places() -> impl Iterator<Item = (Malformed, usize, bool)> {
    let all = |(malformed, place): &(Malformed, Where)| {
        let rows: &[(usize, bool)] = match place {
            Where::Ipv4 => &[(0, false)],
            Where::Ipv6 => &[(1, false)],
            Where::Ip => &[(0, false), (1, false)],
            Where::Udp => &[(0, true), (1, true)],
            Where::Both => &[(0, false), (0, true), (1, false), (1, true)],
        };
        let malformed = *malformed;
        rows.iter().map(move |(version, in_udp)| (malformed, *version, *in_udp))
    };
    PLACES.iter().flat_map(all)
}

/// The bin of a verdict at a place.
pub fn place_bin(status: Status, version: usize, in_udp: bool) -> Option<usize> {
    places().position(|(malformed, at, udp)| verdict(malformed) == status && (at, udp) == (version, in_udp))
}

fn place_name(bin: usize) -> String {
    places().nth(bin).map_or_else(String::new, |(malformed, version, in_udp)| {
        let ip = ["IPv4", "IPv6"][version];
        format!("{} in {ip}{}", malformed.name(), if in_udp { " UDP" } else { "" })
    })
}

/// What an IP packet can be.
pub const KINDS: [&str; 12] = [
    "clear",
    "clear fragment",
    "ESP",
    "ESP in UDP",
    "ESP with reserved SPI",
    "PSP",
    "keepalive",
    "WESPv2",
    "WESPv2 in UDP",
    "EESP",
    "EESP in UDP",
    "UDP to a port of its own",
];

/// The bin of a packet's protocol, carrier, IP version and tags.
#[inline]
pub fn kind_bin(parsed: &Parsed) -> usize {
    let plain = &parsed.plain;
    let tags = (plain.l3_offset - 14) / 4;
    let in_udp = usize::from(parsed.udp_offset.is_some());
    let kind = match parsed.protocol {
        _ if plain.ip_version == 0 => return KINDS.len() * 6 + tags,
        Protocol::Other if parsed.reserved_esp_spi => 4,
        Protocol::Other if plain.fragment => 1,
        Protocol::Other if plain.next_header == protocol::UDP => 11,
        Protocol::Other => 0,
        Protocol::Esp => 2 + in_udp,
        Protocol::Psp => 5,
        Protocol::NatKeepalive => 6,
        Protocol::Wespv2 => 7 + in_udp,
        Protocol::Eesp => 9 + in_udp,
    };
    (kind * 2 + usize::from(plain.ip_version == 6)) * 3 + tags
}

fn kind_name(bin: usize) -> String {
    let (kind, tags) = (bin / 3, bin % 3);
    match KINDS.get(kind / 2) {
        Some(name) => format!("{name} in IPv{} with {tags} tags", if kind % 2 == 0 { 4 } else { 6 }),
        None => format!("no IP with {tags} tags"),
    }
}

/// The extension headers that are walked.
pub const EXTENSIONS: [(u8, &str); 4] = [
    (protocol::HOP_BY_HOP, "hop-by-hop"),
    (protocol::ROUTING, "routing"),
    (protocol::DESTINATION_OPTIONS, "destination"),
    (protocol::FRAGMENT, "fragment"),
];

fn chain_kind_name(bin: usize) -> String {
    format!("{} at {}", EXTENSIONS[bin % EXTENSIONS.len()].1, bin / EXTENSIONS.len() + 1)
}

fn psp_flags_name(bin: usize) -> String {
    let bit = |shift: usize, name| if bin >> shift & 1 != 0 { name } else { "" };
    format!("version {}{}{}{}", bin >> 3, bit(2, " S"), bit(1, " D"), bit(0, " cookie"))
}

/// Bins of one state of the handshake: offer, valid, consumer.
const OFFERS: usize = 8;

/// States: within a packet, between packets and ready, between packets and out of credit.
fn handshakes() -> usize {
    3 * OFFERS - if LATENCY_CYCLES < RESULTS { 4 } else { 0 }
}

/// The bin of a cycle. Out of credit without a result cannot be where the FIFO has more places than there are cycles from
/// a packet to its result; those bins come last.
#[inline]
pub fn handshake_bin(
    in_packet: bool,
    ready: bool,
    offered: bool,
    valid: bool,
    consumer_ready: bool,
) -> usize {
    let state = if in_packet { 0 } else { 2 - usize::from(ready) };
    state * OFFERS + usize::from(!valid) * 4 + usize::from(offered) * 2 + usize::from(consumer_ready)
}

fn handshake_name(bin: usize) -> String {
    let state = ["within a packet", "ready for a packet", "out of credit"][bin / OFFERS];
    let valid = if (bin / 4).is_multiple_of(2) { "result" } else { "no result" };
    let offer = if bin / 2 % 2 == 1 { "offer" } else { "no offer" };
    let consumer = if bin % 2 == 1 { "consumer ready" } else { "consumer stalls" };
    format!("({state}, {offer}, {valid}, {consumer})")
}

fn pattern_name(bin: usize) -> String {
    let kinds = Pattern::KINDS;
    format!("({}, {})", kinds[bin / kinds.len()], kinds[bin % kinds.len()])
}

/// A kind of configuration: its name, and whether a configuration is of it.
pub type Configuration = (&'static str, fn(&Expected) -> bool);

/// What configurations are told apart by.
pub const CONFIGURATIONS: [Configuration; 14] = [
    ("PSP on", |expected| expected.udp_ports.psp != 0),
    ("PSP off", |expected| expected.udp_ports.psp == 0),
    ("ESP in UDP on", |expected| expected.udp_ports.esp != 0),
    ("ESP in UDP off", |expected| expected.udp_ports.esp == 0),
    ("one port for both", |expected| {
        expected.udp_ports.psp != 0 && expected.udp_ports.psp == expected.udp_ports.esp
    }),
    ("EESP on", |expected| expected.eesp_protocol != 0),
    ("EESP off", |expected| expected.eesp_protocol == 0),
    ("EESP in UDP on", |expected| expected.eesp_in_udp),
    ("EESP in UDP off", |expected| !expected.eesp_in_udp),
    ("WESPv2 on", |expected| expected.wespv2_protocol != 0),
    ("WESPv2 off", |expected| expected.wespv2_protocol == 0),
    ("one number for EESP and WESPv2", |expected| {
        expected.eesp_protocol != 0 && expected.eesp_protocol == expected.wespv2_protocol
    }),
    ("EESP at a number that is taken", |expected| {
        matches!(expected.eesp_protocol, protocol::ESP | protocol::UDP | protocol::TCP | protocol::ROUTING)
    }),
    ("WESPv2 at a number that is taken", |expected| {
        matches!(expected.wespv2_protocol, protocol::ESP | protocol::UDP | protocol::TCP | protocol::ROUTING)
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_groups_and_names_every_bin_once() {
        for (index, definition) in GROUPS.iter().enumerate() {
            assert_eq!(definition.group as usize, index, "{:?}", definition.group);
            let mut names: Vec<String> = (0..(definition.bins)()).map(definition.name).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{}", definition.title);
            assert!(names.iter().all(|name| !name.is_empty()), "{}", definition.title);
        }
    }

    #[test]
    fn every_malformation_of_the_parser_has_a_place_or_is_of_ethernet() {
        for malformed in RECEIVE_MALFORMATIONS {
            let of_ethernet = matches!(malformed, Malformed::TruncatedEthernet | Malformed::TruncatedVlan);
            assert_ne!(
                PLACES.iter().any(|(place, _)| place == malformed),
                of_ethernet,
                "{}",
                malformed.name()
            );
        }
        assert_eq!(PLACES.len() + 2, RECEIVE_MALFORMATIONS.len());
    }
}
