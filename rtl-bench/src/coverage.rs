//! Functional coverage: what the packets and cycles of a run have reached, counted in bins.
//!
//! A bin counts what was seen, as the model understood it, not what the generator meant to make. The groups and the names
//! of their bins are in [`groups`].

pub mod groups;

use std::fmt::Write as _;

use cryptonic_hwmodel::rx_parse::{BEAT_OCTETS, Headers, Result};
use cryptonic_regs::Status;
use cryptonic_wire::ip::protocol;
use cryptonic_wire::packet::{Expected, Plain, Protocol, parse_transmit};
use cryptonic_wire::{eesp, option, psp, udp, wespv2};
use groups::{GROUPS, Group};

/// What happens in a cycle, as far as it is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cycle {
    /// A packet has begun and not ended.
    pub in_packet: bool,
    /// A beat is offered.
    pub offered: bool,
    /// It is the last of its packet.
    pub last: bool,
    /// The unit takes a beat.
    pub ready: bool,
    /// A result is there.
    pub valid: bool,
    /// The consumer takes a result.
    pub consumer_ready: bool,
    /// Packets that have begun and whose results were not taken yet.
    pub inside: usize,
}

/// The counters.
#[derive(Clone, Debug)]
pub struct Coverage {
    hits: Vec<Vec<u64>>,
    /// The bin of each status number in the group of verdicts.
    verdicts: Vec<Option<usize>>,
    /// Cycles in a row without an offer.
    idle: u64,
    /// Cycles in a row in which a packet of one beat entered.
    single: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self::new()
    }
}

/// How far a group is covered.
#[derive(Clone, Debug)]
pub struct Row {
    /// The group.
    pub title: &'static str,
    /// Bins that were hit.
    pub hit: usize,
    /// All bins.
    pub total: usize,
    /// The names of those that were not.
    pub missing: Vec<String>,
}

impl Coverage {
    /// Nothing seen.
    pub fn new() -> Self {
        let mut verdicts = vec![None; cryptonic_regs::status::STATUS_NUMBERS as usize];
        for (bin, status) in groups::verdicts().enumerate() {
            verdicts[status.number() as usize] = Some(bin);
        }
        let hits = GROUPS.iter().map(|group| vec![0; (group.bins)()]).collect();
        Coverage { hits, verdicts, idle: 0, single: 0 }
    }

    #[inline]
    fn hit(&mut self, group: Group, bin: usize) {
        let bins = &mut self.hits[group as usize];
        // A bin that is not in the table is a fault of ours, which the tables' test would show.
        debug_assert!(bin < bins.len(), "{group:?} has no bin {bin}");
        if let Some(count) = bins.get_mut(bin) {
            *count += 1;
        }
    }

    /// A segment begins.
    pub fn segment(&mut self, expected: &Expected, (stalls, gaps): (usize, usize)) {
        self.hit(Group::Patterns, stalls * crate::stimulus::Pattern::KINDS.len() + gaps);
        for (bin, (_, holds)) in groups::CONFIGURATIONS.iter().enumerate() {
            if holds(expected) {
                self.hit(Group::Configurations, bin);
            }
        }
        (self.idle, self.single) = (0, 0);
    }

    /// A cycle.
    #[inline]
    pub fn cycle(&mut self, cycle: Cycle) {
        let Cycle { in_packet, offered, last, ready, valid, consumer_ready, inside } = cycle;
        let bin = groups::handshake_bin(in_packet, ready, offered, valid, consumer_ready);
        self.hits[Group::Handshake as usize][bin] += 1;
        self.hit(Group::Inside, groups::class(&groups::INSIDE, inside));
        if !offered {
            self.idle += 1;
        } else {
            if self.idle > 0 {
                let class = groups::class(&groups::IDLE, self.idle as usize);
                self.hit(if in_packet { Group::GapsWithin } else { Group::GapsBetween }, class);
            }
            self.idle = 0;
        }
        if offered && ready && last && !in_packet {
            self.single += 1;
        } else if self.single > 0 {
            self.hit(Group::SingleBeats, groups::class(&groups::SINGLE, self.single as usize));
            self.single = 0;
        }
    }

    /// A packet and what the model says of it.
    #[inline]
    pub fn packet(&mut self, frame: &[u8], result: &Result) {
        self.hit(Group::LengthModulo, frame.len() % BEAT_OCTETS);
        self.hit(Group::Beats, groups::class(&groups::BEATS, frame.len().div_ceil(BEAT_OCTETS)));
        match result {
            Ok(headers) => {
                self.hit(Group::Verdicts, 0);
                self.parsed(frame, headers);
            }
            Err(status) => self.malformed(frame, *status),
        }
    }

    #[cold]
    fn malformed(&mut self, frame: &[u8], status: Status) {
        let Some(Some(bin)) = self.verdicts.get(status.number() as usize).copied() else { return };
        self.hit(Group::Verdicts, bin);
        match status {
            Status::TruncatedEthernet => self.hit(Group::CutEthernet, frame.len() - 1),
            Status::TruncatedVlan => self.hit(Group::CutTags, frame.len() - 14),
            _ => {}
        }
        let tags = (0..2).take_while(|tag| is_tag(frame, 12 + 4 * tag)).count();
        let l3 = 14 + 4 * tags;
        let there = frame.len().saturating_sub(l3);
        match status {
            Status::TruncatedIpv4 if there < 20 => self.hit(Group::CutIpv4, there),
            Status::TruncatedIpv6 if there < 40 => self.hit(Group::CutIpv6, there),
            _ => {}
        }
        let Some(version) = version_of(frame, l3) else { return };
        let Ok(plain) = parse_transmit(frame) else {
            self.place(status, version, false);
            return;
        };
        let in_udp = plain.next_header == protocol::UDP;
        self.place(status, version, in_udp);
        let upper = plain.l3_end - plain.l4_offset();
        match status {
            Status::TruncatedUdp => self.hit(Group::CutUdp, upper),
            Status::TruncatedEsp if !in_udp => self.hit(Group::CutEsp, upper),
            Status::TruncatedEesp if !in_udp && upper < eesp::HEADER_LENGTH => {
                self.hit(Group::CutEesp, upper)
            }
            Status::TruncatedWesp if !in_udp && upper < wespv2::HEADER_LENGTH => {
                self.hit(Group::CutWespv2, upper)
            }
            Status::TruncatedPsp => self.hit(Group::CutPsp, upper - udp::HEADER_LENGTH),
            _ => {}
        }
    }

    fn place(&mut self, status: Status, version: usize, in_udp: bool) {
        if let Some(bin) = groups::place_bin(status, version, in_udp) {
            self.hit(Group::Places, bin);
        }
    }

    #[inline]
    fn parsed(&mut self, frame: &[u8], headers: &Headers) {
        let parsed = &headers.parsed;
        let plain = &parsed.plain;
        self.hit(Group::Kinds, groups::kind_bin(parsed));
        self.hit(Group::Padding, groups::class(&groups::PADDING, frame.len() - plain.l3_end));
        if plain.l3_end < frame.len() && plain.l3_end.div_ceil(64) < frame.len().div_ceil(64) {
            self.hit(Group::PaddingBeats, 0);
        }
        let l4 = plain.l4_offset();
        match plain.ip_version {
            4 => self.hit(Group::Ipv4Words, plain.ip_header_length / 4 - 5),
            6 => self.chain(frame, plain),
            _ => return,
        }
        self.hit(Group::Distance, groups::class(&groups::DISTANCE, l4 / 64 - plain.l3_offset / 64));
        if plain.next_header == protocol::UDP && !plain.fragment {
            self.hit(Group::UdpStart, start(l4));
        }
        let at = parsed.security_offset;
        match parsed.protocol {
            Protocol::Other | Protocol::NatKeepalive => return,
            Protocol::Esp => self.hit(Group::EspStart, start(at)),
            Protocol::Psp => {
                self.hit(Group::PspStart, start(at));
                let flags = usize::from(parsed.psp_flags);
                let version = flags >> psp::flag::VERSION_SHIFT & 0b11;
                let cookie = flags >> 1 & 1;
                self.hit(Group::PspFlags, version << 3 | (flags >> 6) << 1 | cookie);
                let units = usize::from(parsed.header_octets) / 8 - 2;
                self.hit(Group::PspExtension, groups::class(&groups::EXTENSION_UNITS, units));
                self.hit(
                    Group::PspCryptOffset,
                    groups::class(&groups::CRYPT_OFFSET, parsed.crypt_offset.into()),
                );
            }
            Protocol::Wespv2 => {
                self.hit(Group::Wespv2Start, start(at));
                let octets =
                    frame.get(at + 3).map_or(0, |octet| usize::from(octet & wespv2::MAX_OPTION_LENGTH));
                self.hit(Group::Wespv2OptionOctets, octets);
                let count = self.options(frame, at + wespv2::HEADER_LENGTH, octets, false);
                self.hit(Group::Wespv2Options, count);
                self.hit(
                    Group::Wespv2CryptOffset,
                    groups::class(&groups::CRYPT_OFFSET, parsed.crypt_offset.into()),
                );
            }
            Protocol::Eesp => {
                self.hit(Group::EespStart, start(at));
                let octets = usize::from(parsed.header_octets) - eesp::HEADER_LENGTH;
                self.hit(Group::EespOptionOctets, groups::class(&groups::OPTION_OCTETS, octets));
                let count = self.options(frame, at + eesp::HEADER_LENGTH, octets, true);
                self.hit(Group::EespOptions, count);
                self.hit(Group::NumbersStart, parsed.numbers_offset % BEAT_OCTETS);
                if parsed.payload_offset.is_some() {
                    self.hit(
                        Group::EespCryptOffset,
                        groups::class(&groups::CRYPT_OFFSET, parsed.crypt_offset.into()),
                    );
                }
            }
        }
        let numbers = frame.len().saturating_sub(parsed.numbers_offset).min(16);
        self.hit(Group::NumbersThere, numbers);
    }

    /// The extension headers of a packet that is well formed.
    fn chain(&mut self, frame: &[u8], plain: &Plain) {
        let octet = |at: usize| frame.get(at).copied().unwrap_or(0);
        let mut next = octet(plain.l3_offset + 6);
        let mut at = plain.l3_offset + 40;
        let mut depth = 0;
        while at < plain.l4_offset() {
            let Some(kind) = groups::EXTENSIONS.iter().position(|(number, _)| *number == next) else { break };
            self.hit(Group::ChainKinds, depth * groups::EXTENSIONS.len() + kind);
            self.hit(Group::ExtensionStart, start(at));
            let units = if next == protocol::FRAGMENT { 0 } else { usize::from(octet(at + 1)) };
            self.hit(Group::ExtensionUnits, groups::class(&groups::EXTENSION_UNITS, units));
            next = octet(at);
            at += (units + 1) * 8;
            depth += 1;
        }
        self.hit(Group::ChainDepth, depth);
    }

    /// The options of a packet that is well formed; gives how many there are.
    fn options(&mut self, frame: &[u8], start: usize, octets: usize, eesp: bool) -> usize {
        let octet = |at: usize| usize::from(frame.get(at).copied().unwrap_or(0));
        let mut at = start;
        let mut count = 0;
        while at < start + octets {
            let option_type = octet(at) as u8;
            if eesp && option_type == eesp::option_type::CRYPT_OFFSET {
                self.hit(Group::CryptOffsetStart, at % BEAT_OCTETS);
                self.hit(Group::CryptOffsetPlace, count);
            }
            at += if option_type == option::PAD1 { 1 } else { 2 + octet(at + 1) };
            count += 1;
        }
        count
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Coverage) {
        for (bins, others) in self.hits.iter_mut().zip(&other.hits) {
            for (count, other) in bins.iter_mut().zip(others) {
                *count += other;
            }
        }
    }

    /// Every group, in the order of the table.
    pub fn rows(&self) -> Vec<Row> {
        let row = |(group, bins): (&groups::Definition, &Vec<u64>)| {
            let missing: Vec<String> = bins
                .iter()
                .enumerate()
                .filter(|(_, hits)| **hits == 0)
                .map(|(bin, _)| (group.name)(bin))
                .collect();
            Row { title: group.title, hit: bins.len() - missing.len(), total: bins.len(), missing }
        };
        GROUPS.iter().zip(&self.hits).map(row).collect()
    }

    /// How many of the verdicts were reached, and how many there are.
    pub fn verdicts(&self) -> (usize, usize) {
        let bins = &self.hits[Group::Verdicts as usize];
        (bins.iter().filter(|hits| **hits > 0).count(), bins.len())
    }

    /// How often each verdict was reached, by name.
    pub fn verdict_counts(&self) -> Vec<(&'static str, u64)> {
        let bins = &self.hits[Group::Verdicts as usize];
        groups::verdicts().map(Status::name).zip(bins.iter().copied()).collect()
    }

    /// A table of the groups, and the bins that were not hit.
    pub fn table(&self) -> String {
        const NAMED: usize = 8;
        let rows = self.rows();
        let (hit, total) = rows.iter().fold((0, 0), |(hit, total), row| (hit + row.hit, total + row.total));
        let mut text = format!("  coverage: {hit} of {total} bins\n");
        for row in &rows {
            let _ = write!(text, "  {:>5} / {:<4} {}", row.hit, row.total, row.title);
            for (index, name) in row.missing.iter().take(NAMED).enumerate() {
                let _ = write!(text, "{} {name}", if index == 0 { "; not:" } else { "," });
            }
            if row.missing.len() > NAMED {
                let _ = write!(text, " and {} more", row.missing.len() - NAMED);
            }
            text.push('\n');
        }
        text
    }
}

/// The bin of a header's start. Every header from IP on begins two octets behind a multiple of four.
#[inline]
fn start(offset: usize) -> usize {
    offset % BEAT_OCTETS / 4
}

fn is_tag(frame: &[u8], at: usize) -> bool {
    matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]))
}

/// 0 for IPv4, 1 for IPv6, by the EtherType in front of `l3`.
fn version_of(frame: &[u8], l3: usize) -> Option<usize> {
    match frame.get(l3 - 2..l3)? {
        [0x08, 0x00] => Some(0),
        [0x86, 0xdd] => Some(1),
        _ => None,
    }
}
