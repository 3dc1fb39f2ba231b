//! What is done to a unit: packets, the gaps between their beats, the stalls of the consumer, the configuration.
//!
//! A run is made of segments. A segment has one configuration, begins and ends with nothing inside the unit, and is made
//! from the seed and its number alone, so that any of them can be had again.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use cryptonic_hwmodel::rx_parse::{BEAT_OCTETS, Beat};
use cryptonic_wire::packet::{Expected, UdpPorts};
use cryptonic_wire::{esp, psp, wespv2};

use crate::packets;
use crate::random::Random;

/// Packets of a segment.
pub const SEGMENT_PACKETS: usize = 256;
/// A protocol number for EESP, which has none yet: one for experiments (RFC 3692).
pub const EESP_PROTOCOL: u8 = 253;
/// What stands behind the last octet of packets that are given, in their last beat.
const FILLER: u8 = 0xa5;
/// Runs of a random pattern, before it repeats.
const RUNS: usize = 96;

/// A configuration that looks for every protocol.
pub const ALL_EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: psp::DEFAULT_UDP_PORT, esp: esp::DEFAULT_UDP_PORT },
    eesp_protocol: EESP_PROTOCOL,
    eesp_in_udp: true,
    wespv2_protocol: wespv2::PROTOCOL,
};

/// How the consumer of the results stalls, or how the beats of packets are kept apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// Each segment has one of the other kinds.
    #[default]
    Mixed,
    /// Never.
    None,
    /// In so many of a hundred cycles, at random.
    Percent(u8),
    /// Some cycles on, some off.
    Bursts,
    /// For hundreds of cycles, which fills all that is behind.
    Long,
    /// These runs of cycles, on and off in turn, and then again. The last is not 0.
    Runs(Vec<u32>),
}

impl Pattern {
    /// The kinds that [`Pattern::Mixed`] takes, by name.
    pub const KINDS: [&'static str; 5] = ["none", "seldom", "often", "bursts", "long"];

    /// The kind of a segment, as an index into [`Self::KINDS`], and what it is.
    fn of_segment(&self, random: &mut Random) -> (usize, Pattern) {
        let drawn = random.below(16);
        match self {
            Pattern::Mixed => match drawn {
                0..4 => (0, Pattern::None),
                4..7 => (1, Pattern::Percent(1 + random.below(30) as u8)),
                7..10 => (2, Pattern::Percent(40 + random.below(55) as u8)),
                10..13 => (3, Pattern::Bursts),
                _ => (4, Pattern::Long),
            },
            Pattern::None => (0, Pattern::None),
            Pattern::Percent(percent) => (if *percent < 40 { 1 } else { 2 }, self.clone()),
            Pattern::Bursts | Pattern::Runs(_) => (3, self.clone()),
            Pattern::Long => (4, Pattern::Long),
        }
    }

    /// Runs of cycles, on and off in turn, of this pattern from a seed; empty where it is never on.
    pub fn runs_from(&self, seed: u64) -> Vec<u32> {
        let random = &mut Random::new(seed);
        let mut runs = Vec::new();
        let (_, pattern) = self.of_segment(random);
        if pattern != Pattern::None {
            pattern.runs(random, &mut runs);
        }
        runs
    }

    /// Runs of cycles, on and off in turn.
    fn runs(&self, random: &mut Random, runs: &mut Vec<u32>) {
        runs.clear();
        let mut random_runs = |on: Range<usize>, off: Range<usize>| {
            for _ in 0..RUNS / 2 {
                runs.push((on.start + random.below(on.len())) as u32);
                runs.push((off.start + random.below(off.len())) as u32);
            }
        };
        match self {
            Pattern::Mixed | Pattern::None => runs.extend([0, 1]),
            Pattern::Percent(percent) => {
                // As many cycles as runs; those of one kind that meet are one run.
                let (mut is_on, mut length) = (true, 0);
                for cycle in 0..4 * RUNS {
                    let on = random.percent((*percent).into()) && cycle + 1 < 4 * RUNS;
                    if on != is_on {
                        runs.push(length);
                        (is_on, length) = (on, 0);
                    }
                    length += 1;
                }
                runs.push(length);
            }
            Pattern::Bursts => random_runs(0..24, 1..24),
            Pattern::Long => random_runs(100..400, 1..300),
            Pattern::Runs(given) => runs.extend_from_slice(given),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Mixed => formatter.write_str("mixed"),
            Pattern::None => formatter.write_str("none"),
            Pattern::Percent(percent) => write!(formatter, "{percent}"),
            Pattern::Bursts => formatter.write_str("bursts"),
            Pattern::Long => formatter.write_str("long"),
            Pattern::Runs(runs) => formatter.write_str(&join(runs, "/")),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || {
            "wants none, mixed, bursts, long, 0 to 95 (percent), or runs of cycles, stalled and not in turn, such as 3/1"
                .to_owned()
        };
        Ok(match text {
            "mixed" => Pattern::Mixed,
            "none" => Pattern::None,
            "bursts" => Pattern::Bursts,
            "long" => Pattern::Long,
            _ if text.contains('/') => {
                let runs: Vec<u32> =
                    text.split('/').map(|run| run.parse().map_err(|_| usage())).collect::<Result<_, _>>()?;
                let free: u64 = runs.iter().skip(1).step_by(2).map(|run| u64::from(*run)).sum();
                if !runs.len().is_multiple_of(2) || free == 0 || runs.iter().any(|run| *run > 100_000) {
                    return Err(usage());
                }
                Pattern::Runs(runs)
            }
            _ => match text.parse() {
                Ok(0) => Pattern::None,
                Ok(percent) if percent <= 95 => Pattern::Percent(percent),
                _ => return Err(usage()),
            },
        })
    }
}

/// Numbers with something between them.
pub(crate) fn join<T: ToString>(numbers: &[T], between: &str) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

/// Where runs of cycles, off and on in turn, stand at a cycle. It begins with the first run, which is on.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    runs: &'a [u32],
    index: usize,
    left: u32,
}

impl<'a> Runs<'a> {
    /// At the first cycle. Runs that are never off count as always off.
    pub fn new(runs: &'a [u32]) -> Self {
        let free = runs.iter().skip(1).step_by(2).any(|run| *run > 0);
        let runs: &[u32] = if free && runs.len().is_multiple_of(2) { runs } else { &[0, 1] };
        let mut these = Runs { runs, index: 0, left: runs.first().copied().unwrap_or(0) };
        these.settle();
        these
    }

    /// Whether this cycle is on.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.index.is_multiple_of(2)
    }

    /// To the next cycle.
    #[inline]
    pub fn advance(&mut self) {
        self.left -= 1;
        self.settle();
    }

    #[inline]
    fn settle(&mut self) {
        while self.left == 0 {
            self.index = if self.index + 1 == self.runs.len() { 0 } else { self.index + 1 };
            self.left = self.runs[self.index];
        }
    }
}

/// A packet to be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its octets, 1 to 16383.
    pub frame: Vec<u8>,
    /// Idle cycles before each of its beats; 0 for beats that have no entry.
    pub gaps: Vec<u16>,
}

/// Everything that happens to a unit from one drained state to the next, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The configuration.
    pub expected: Expected,
    /// The packets.
    pub offers: Vec<Offer>,
    /// Cycles in which the consumer stalls, and in which it does not, in turn, and then again. Empty: never.
    pub stalls: Vec<u32>,
}

/// A case in the form in which it is driven: octets in beats.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The configuration.
    pub expected: Expected,
    /// How the consumer stalls, as in [`Case::stalls`].
    pub stalls: Vec<u32>,
    /// The kinds of [`Pattern::KINDS`] that stalls and gaps are of.
    pub kinds: (usize, usize),
    /// Every packet's octets, each from the beginning of a beat, and anything in the rest of its last beat.
    octets: Vec<u8>,
    places: Vec<Place>,
    /// Idle cycles before each beat.
    gaps: Vec<u16>,
    scratch: Vec<u8>,
    gap_runs: Vec<u32>,
}

/// Where a packet's octets are.
#[derive(Clone, Copy, Debug)]
struct Place {
    beat: usize,
    octets: usize,
}

impl Place {
    fn beats(self) -> usize {
        self.octets.div_ceil(BEAT_OCTETS)
    }
}

/// What random segments are made of.
#[derive(Clone, Debug)]
pub struct Style {
    /// Where chance begins.
    pub seed: u64,
    /// How the consumer stalls.
    pub stalls: Pattern,
    /// How beats are kept apart.
    pub gaps: Pattern,
}

impl Segment {
    /// The segment of a case.
    pub fn of_case(case: &Case) -> Self {
        let mut segment =
            Segment { expected: case.expected, stalls: case.stalls.clone(), ..Segment::default() };
        segment.kinds = (usize::from(!case.stalls.is_empty()), 0);
        for Offer { frame, gaps } in &case.offers {
            segment.push(frame, |beat| gaps.get(beat).copied().unwrap_or(0), None);
        }
        segment
    }

    /// The case of this segment.
    pub fn to_case(&self) -> Case {
        let offers = (0..self.packets()).map(|index| {
            let place = self.places[index];
            let gaps = self.gaps[place.beat..place.beat + place.beats()].to_vec();
            Offer { frame: self.packet(index).to_vec(), gaps }
        });
        Case { expected: self.expected, offers: offers.collect(), stalls: self.stalls.clone() }
    }

    /// Becomes segment `number` of the run of this style, with so many packets.
    pub fn generate(&mut self, style: &Style, number: u64, packets: usize) {
        let random = &mut Random::of_part(style.seed, number);
        self.octets.clear();
        self.places.clear();
        self.gaps.clear();
        self.expected = configuration(random);
        let (stalls, stall_pattern) = style.stalls.of_segment(random);
        let (gaps, gap_pattern) = style.gaps.of_segment(random);
        self.kinds = (stalls, gaps);
        stall_pattern.runs(random, &mut self.stalls);
        let mut frame = std::mem::take(&mut self.scratch);
        let mut gap_runs = std::mem::take(&mut self.gap_runs);
        gap_pattern.runs(random, &mut gap_runs);
        let mut gap = Runs::new(&gap_runs);
        // One in some segments has only packets of one beat: a new packet in every cycle.
        let short = random.percent(12);
        let expected = self.expected;
        for _ in 0..packets {
            packets::generate(random, &expected, &mut frame);
            if short {
                frame.truncate(BEAT_OCTETS);
            }
            let gaps = |_| {
                let mut cycles = 0;
                while gap.is_on() {
                    cycles += 1;
                    gap.advance();
                }
                gap.advance();
                cycles
            };
            self.push(&frame, gaps, Some(random));
        }
        self.scratch = frame;
        self.gap_runs = gap_runs;
    }

    /// Appends a packet. What fills its last beat comes from `random`, if given.
    fn push(&mut self, frame: &[u8], mut gaps: impl FnMut(usize) -> u16, random: Option<&mut Random>) {
        let place = Place { beat: self.gaps.len(), octets: frame.len() };
        let beats = place.beats();
        self.octets.extend_from_slice(frame);
        let filled = (place.beat + beats) * BEAT_OCTETS;
        match random {
            Some(random) => random.append(filled - self.octets.len(), &mut self.octets),
            None => self.octets.resize(filled, FILLER),
        }
        self.places.push(place);
        self.gaps.extend((0..beats).map(&mut gaps));
    }

    /// Number of packets.
    pub fn packets(&self) -> usize {
        self.places.len()
    }

    /// Number of beats.
    pub fn beats(&self) -> usize {
        self.gaps.len()
    }

    /// A packet's octets.
    #[inline]
    pub fn packet(&self, index: usize) -> &[u8] {
        let Some(place) = self.places.get(index) else { return &[] };
        let start = place.beat * BEAT_OCTETS;
        &self.octets[start..start + place.octets]
    }

    /// The producer of this segment's beats, before the first of them.
    pub fn producer(&self) -> Producer<'_> {
        let mut producer = Producer {
            segment: self,
            beat: Beat { data: [0; BEAT_OCTETS], octets: 0, last: false },
            next: 0,
            packet: 0,
            begins: false,
            gap: 0,
        };
        producer.load();
        producer
    }
}

/// Offers a segment's beats: each when its gap is over, until it is taken.
#[derive(Clone, Debug)]
pub struct Producer<'a> {
    segment: &'a Segment,
    beat: Beat,
    /// The beat that is offered.
    next: usize,
    /// The packet that it is of.
    packet: usize,
    /// Whether it is the packet's first.
    begins: bool,
    /// Cycles until it is there.
    gap: u16,
}

impl Producer<'_> {
    /// The beat that is offered in this cycle.
    #[inline]
    pub fn offered(&self) -> Option<&Beat> {
        (self.gap == 0 && self.next < self.segment.gaps.len()).then_some(&self.beat)
    }

    /// The packet of the beat that is next.
    #[inline]
    pub fn packet(&self) -> usize {
        self.packet
    }

    /// Whether the beat that is next is its packet's first.
    #[inline]
    pub fn begins(&self) -> bool {
        self.begins
    }

    /// Whether every beat was taken.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.next == self.segment.gaps.len()
    }

    /// To the next cycle; the beat that was offered, if any, was taken if `ready`.
    #[inline]
    pub fn advance(&mut self, ready: bool) {
        if self.gap > 0 {
            self.gap -= 1;
        } else if ready && self.next < self.segment.gaps.len() {
            self.next += 1;
            self.packet += usize::from(self.beat.last);
            self.load();
        }
    }

    fn load(&mut self) {
        let Some(gap) = self.segment.gaps.get(self.next) else { return };
        let place = self.segment.places[self.packet];
        let left = place.octets - (self.next - place.beat) * BEAT_OCTETS;
        let start = self.next * BEAT_OCTETS;
        self.gap = *gap;
        self.begins = self.next == place.beat;
        self.beat.octets = left.min(BEAT_OCTETS) as u8;
        self.beat.last = left <= BEAT_OCTETS;
        self.beat.data.copy_from_slice(&self.segment.octets[start..start + BEAT_OCTETS]);
    }
}

/// The configuration of a segment: all on in one of two, else anything, numbers that mean two things included.
fn configuration(random: &mut Random) -> Expected {
    if random.percent(50) {
        return ALL_EXPECTED;
    }
    let (port, number) = (random.bits() as u16, random.octet());
    let psp = random.of(&[0, psp::DEFAULT_UDP_PORT, port]);
    let esp = random.of(&[0, esp::DEFAULT_UDP_PORT, port.rotate_left(5), psp]);
    // ESP, UDP, TCP, the extension headers and WESPv2 have these numbers already.
    let taken = random.of(&[0, 6, 17, 43, 44, 50, 60, wespv2::PROTOCOL]);
    let eesp_protocol = random.of(&[0, EESP_PROTOCOL, number, taken]);
    let wespv2_protocol = random.of(&[0, wespv2::PROTOCOL, number.rotate_left(3), eesp_protocol, taken]);
    Expected {
        udp_ports: UdpPorts { psp, esp },
        eesp_protocol,
        eesp_in_udp: random.percent(50),
        wespv2_protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_its_case() {
        let style = Style { seed: 5, stalls: Pattern::Mixed, gaps: Pattern::Mixed };
        let mut segment = Segment::default();
        for number in 0..20 {
            segment.generate(&style, number, 30);
            let case = segment.to_case();
            assert_eq!(Segment::of_case(&case).to_case(), case);
            assert_eq!(segment.packets(), 30);
        }
    }

    #[test]
    fn a_producer_gives_every_octet_in_beats_at_its_time() {
        let offers = vec![
            Offer { frame: (0..130).collect(), gaps: vec![2, 0, 1] },
            Offer { frame: vec![9; 64], gaps: vec![] },
            Offer { frame: vec![7], gaps: vec![1] },
        ];
        let segment = Segment::of_case(&Case { offers: offers.clone(), ..Case::default() });
        let mut producer = segment.producer();
        let mut frames = vec![Vec::new(); 3];
        let mut cycles = Vec::new();
        for cycle in 0.. {
            if producer.is_done() {
                break;
            }
            // Every second cycle the unit is not ready.
            let ready = cycle % 2 == 1;
            if let Some(beat) = producer.offered().copied()
                && ready
            {
                assert!(beat.octets == 64 || beat.last);
                frames[producer.packet()].extend_from_slice(beat.bytes());
                cycles.push((cycle, producer.begins(), beat.last));
            }
            producer.advance(ready);
        }
        let expected: Vec<Vec<u8>> = offers.into_iter().map(|offer| offer.frame).collect();
        assert_eq!(frames, expected);
        let expected =
            [(3, true, false), (5, false, false), (7, false, true), (9, true, true), (11, true, true)];
        assert_eq!(cycles, expected);
    }

    #[test]
    fn patterns_are_read_as_they_are_written() {
        for text in ["none", "mixed", "bursts", "long", "1", "95", "0/1", "200/50/0/3"] {
            let pattern: Pattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
        assert_eq!("0".parse(), Ok(Pattern::None));
        for text in ["", "96", "-1", "3", "3/", "/", "3/0", "1/2/3", "all", "1/100001"] {
            assert_eq!(text.parse::<Pattern>().is_err(), text != "3", "{text}");
        }
    }

    #[test]
    fn runs_are_on_and_off_in_turn() {
        let mut runs = Runs::new(&[2, 1, 0, 3]);
        let mut seen = String::new();
        for _ in 0..12 {
            seen.push(if runs.is_on() { 's' } else { '-' });
            runs.advance();
        }
        assert_eq!(seen, "ss----ss----");
        assert!(!Runs::new(&[5, 0]).is_on() && !Runs::new(&[]).is_on());
    }
}
