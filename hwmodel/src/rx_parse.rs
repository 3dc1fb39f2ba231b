//! `rx_parse`: the receive parser. It needs no SA: headers, SPI, end of the IP packet, verdict.
//!
//! The unit takes one beat of the packet bus a cycle and gives one result a packet, [`LATENCY_CYCLES`] after
//! the packet's last beat. It never stalls inside: a packet may begin only while the result FIFO has a place
//! for its result, and that place is taken when its first beat enters.
//!
//! ```text
//!             credit for a result?           LATENCY_CYCLES          result FIFO, `results` deep
//!   beats ──▶ ready (at first beats) ──▶ fixed pipeline ─────────▶ ┌──┬──┬──┬──┐ ──▶ valid / ready
//!                                                                  └──┴──┴──┴──┘
//! ```
//!
//! It has two faces. [`parse`] with [`RxParseTiming`] is what the NIC uses: a packet at a time. [`RxParseShell`]
//! is the same unit a cycle at a time, with valid and ready: what RTL is held to. A property test holds the two
//! together under random gaps and stalls.

use std::collections::VecDeque;

use cryptonic_regs::Status;
use cryptonic_wire::packet::Expected;
use cryptonic_wire::{Malformed, Parsed, parse_receive};

/// Cycles from a packet's last beat to its result, as the RTL has them (rtl-bench/rtl/rx_parse.sv): beat register and
/// window 3, IP 1, extension headers 16, upper protocol 7, options 24, verdict 1, result memory 1, output register 1.
pub const LATENCY_CYCLES: u64 = 54;

/// Cycles from the taking of the last result before a change of what to look for to the first beat behind it.
pub const CHANGE_CYCLES: u64 = 2;

/// Octets of a beat.
pub const BEAT_OCTETS: usize = 64;
/// Octets from where sequence number and IV begin that come with a result.
pub const NUMBERS_OCTETS: usize = 16;

/// What the parser says of a packet: its layers, or the verdict that it is malformed.
pub type Result = std::result::Result<Headers, Status>;

/// What the unit shows of a packet that is not malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Its layers.
    pub parsed: Parsed,
    /// The octets of the frame from [`Parsed::numbers_offset`] on, where sequence number and IV stand; zero past the
    /// frame's end, and where there is no security header.
    pub numbers: [u8; NUMBERS_OCTETS],
}

/// What the model's NIC needs of the unit, for it has the frame at hand.
#[inline]
pub fn parse(frame: &[u8], expected: &Expected) -> std::result::Result<Parsed, Status> {
    parse_receive(frame, *expected).map_err(verdict)
}

/// The function of the unit.
#[inline]
pub fn headers(frame: &[u8], expected: &Expected) -> Result {
    let parsed = parse(frame, expected)?;
    let mut numbers = [0; NUMBERS_OCTETS];
    if parsed.numbers_offset != 0 {
        let there = frame.get(parsed.numbers_offset..).unwrap_or(&[]);
        for (number, octet) in numbers.iter_mut().zip(there) {
            *number = *octet;
        }
    }
    Ok(Headers { parsed, numbers })
}

/// The status number of a malformation.
pub fn verdict(malformed: Malformed) -> Status {
    match malformed {
        Malformed::TruncatedEthernet => Status::TruncatedEthernet,
        Malformed::TruncatedVlan => Status::TruncatedVlan,
        Malformed::BadIpVersion => Status::BadIpVersion,
        Malformed::TruncatedIpv4 => Status::TruncatedIpv4,
        Malformed::BadIpv4HeaderLength => Status::BadIpv4HeaderLength,
        Malformed::BadIpv4TotalLength => Status::BadIpv4TotalLength,
        Malformed::BadIpv4Checksum => Status::BadIpv4Checksum,
        Malformed::TruncatedIpv6 => Status::TruncatedIpv6,
        Malformed::TruncatedIpv6Extension => Status::TruncatedIpv6Extension,
        Malformed::TooDeepExtensionChain => Status::TooDeepExtensionChain,
        Malformed::Fragment => Status::Fragment,
        Malformed::TruncatedUdp => Status::TruncatedUdp,
        Malformed::BadUdpLength => Status::BadUdpLength,
        Malformed::TruncatedEsp => Status::TruncatedEsp,
        Malformed::TruncatedPsp => Status::TruncatedPsp,
        Malformed::PspReservedBit => Status::PspReservedBit,
        Malformed::PspBadVersion => Status::PspBadVersion,
        Malformed::PspBadHeaderLength => Status::PspBadHeaderLength,
        Malformed::PspCryptOffsetPastEnd => Status::PspCryptOffsetPastEnd,
        Malformed::ReservedSpi => Status::ReservedSpi,
        Malformed::OptionOverrun => Status::OptionOverrun,
        Malformed::TooManyOptions => Status::TooManyOptions,
        Malformed::TruncatedEesp => Status::TruncatedEesp,
        Malformed::EespFixedBits => Status::EespFixedBits,
        Malformed::EespBadVersion => Status::EespBadVersion,
        Malformed::EespBadCryptOffset => Status::EespBadCryptOffset,
        Malformed::TruncatedWesp => Status::TruncatedWesp,
        Malformed::WespBadVersion => Status::WespBadVersion,
        Malformed::WespBadHeaderLength => Status::WespBadHeaderLength,
        Malformed::WespBadNextHeader => Status::WespBadNextHeader,
        Malformed::WespUnknownOption => Status::WespUnknownOption,
        Malformed::CryptOffsetNotAllowed => Status::CryptOffsetNotAllowed,
        Malformed::CryptOffsetPastEnd => Status::CryptOffsetPastEnd,
        Malformed::EespPayloadOffset => Status::EespPayloadOffset,
        Malformed::EespSessionId => Status::EespSessionId,
        Malformed::WespHeaderLengthMismatch => Status::WespHeaderLengthMismatch,
        // Never said of a frame: an SA is looked up under the protocol that the parser has named.
        Malformed::NotThisProtocol => Status::NoSa,
    }
}

/// The closed form of the unit's timing, in cycles.
#[derive(Clone, Debug)]
pub struct RxParseTiming {
    next_entry: u64,
    results: usize,
    /// Cycles in which results that still count against the FIFO are taken; a place taken in cycle `c` may be
    /// used again in cycle `c + 1`.
    taken: VecDeque<u64>,
}

/// When a packet passes the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The cycle in which its first beat enters.
    pub first_beat: u64,
    /// The cycle in which its last beat enters.
    pub last_beat: u64,
    /// The first cycle in which its result may stand at the output.
    pub result: u64,
}

/// When a packet's beats are there. Beat `i` is there in cycle `a(i)`; only two numbers of that matter.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// `a(0)`.
    pub first_beat: u64,
    /// The largest `a(i) - i`: `first_beat` for beats that come one a cycle.
    pub latest_skew: u64,
    /// Number of beats.
    pub beats: u64,
}

impl RxParseTiming {
    /// An idle unit with a FIFO for this many results.
    pub fn new(results: u64) -> Self {
        RxParseTiming { next_entry: 0, results: results as usize, taken: VecDeque::new() }
    }

    /// Lets a packet pass. [`Self::take`] must follow before the next packet.
    #[inline]
    pub fn pass(&mut self, arrival: Arrival) -> Passage {
        let mut first_beat = arrival.first_beat.max(self.next_entry);
        if self.taken.len() == self.results
            && let Some(taken) = self.taken.pop_front()
        {
            first_beat = first_beat.max(taken + 1);
        }
        // Beat i enters at max(first_beat + i, latest a(j) + i - j for j <= i).
        let last_beat = first_beat.max(arrival.latest_skew) + arrival.beats - 1;
        self.next_entry = last_beat + 1;
        Passage { first_beat, last_beat, result: last_beat + LATENCY_CYCLES }
    }

    /// What the unit is told to look for changes behind the last packet. It is told so while it is drained: it says
    /// that in the cycle behind the last result's, the change is a cycle more, and then a packet may begin.
    pub fn change(&mut self) {
        if let Some(taken) = self.taken.back() {
            self.next_entry = self.next_entry.max(taken + CHANGE_CYCLES);
        }
    }

    /// Says in which cycle the result of the last packet is taken.
    #[inline]
    pub fn take(&mut self, cycle: u64) {
        self.taken.push_back(cycle);
    }
}

/// One beat of the packet bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The octets, of which [`Self::octets`] count. The rest is of no meaning and must not matter.
    pub data: [u8; BEAT_OCTETS],
    /// Octets that count: 1 to 64, all 64 but in the last beat of a packet.
    pub octets: u8,
    /// Whether it is the last of its packet.
    pub last: bool,
}

impl Beat {
    /// The octets that count.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.data.get(..usize::from(self.octets)).unwrap_or(&self.data)
    }
}

/// The unit a cycle at a time.
pub struct RxParseShell {
    expected: Expected,
    frame: Vec<u8>,
    in_packet: bool,
    cycle: u64,
    /// Results on their way, with the cycle in which each comes out.
    pipeline: VecDeque<(u64, Result)>,
    fifo: VecDeque<Result>,
    results: usize,
    /// Results that a started packet may still bring, those on their way and those in the FIFO.
    reserved: usize,
}

/// What the unit shows in a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// It takes the beat that is offered.
    pub ready: bool,
    /// The result at the output, if any.
    pub result: Option<Result>,
}

/// A clocked receive parser: the model's shell, or RTL.
pub trait ParserUnit {
    /// One clock cycle. A beat may be offered, and the consumer of results may be ready. What is shown in a cycle depends
    /// only on registers; the beat is taken if `ready`, the result if there is one and the consumer is ready.
    fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs;

    /// Whether nothing is inside, so that cycles without a beat change nothing. A unit may be a cycle late to say so.
    fn drained(&mut self) -> bool;

    /// What it looks for from the next cycle on. To be called while it is drained.
    fn set_expected(&mut self, expected: Expected);
}

impl ParserUnit for RxParseShell {
    fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        RxParseShell::step(self, offered, consumer_ready)
    }

    fn drained(&mut self) -> bool {
        RxParseShell::drained(self)
    }

    fn set_expected(&mut self, expected: Expected) {
        RxParseShell::set_expected(self, expected);
    }
}

impl RxParseShell {
    /// The unit after reset.
    pub fn new(results: u64, expected: Expected) -> Self {
        RxParseShell {
            expected,
            frame: Vec::new(),
            in_packet: false,
            cycle: 0,
            pipeline: VecDeque::new(),
            fifo: VecDeque::new(),
            results: results as usize,
            reserved: 0,
        }
    }

    /// What it looks for from the next cycle on. To be called while it is drained.
    pub fn set_expected(&mut self, expected: Expected) {
        self.expected = expected;
    }

    /// One clock cycle: a beat may be offered, and the consumer may be ready. What is shown in a cycle depends
    /// only on registers; the beat is taken if `ready`, the result if there is one and the consumer is ready.
    pub fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        if self.pipeline.front().is_some_and(|(cycle, _)| *cycle == self.cycle)
            && let Some((_, result)) = self.pipeline.pop_front()
        {
            self.fifo.push_back(result);
        }
        let outputs = Outputs {
            ready: self.in_packet || self.reserved < self.results,
            result: self.fifo.front().copied(),
        };
        if outputs.ready
            && let Some(beat) = offered
        {
            if !self.in_packet {
                self.reserved += 1;
                self.frame.clear();
            }
            self.frame.extend_from_slice(beat.bytes());
            self.in_packet = !beat.last;
            if beat.last {
                self.pipeline.push_back((self.cycle + LATENCY_CYCLES, headers(&self.frame, &self.expected)));
            }
        }
        if consumer_ready && outputs.result.is_some() {
            self.fifo.pop_front();
            self.reserved -= 1;
        }
        self.cycle += 1;
        outputs
    }

    /// Whether nothing is inside.
    pub fn drained(&self) -> bool {
        !self.in_packet && self.pipeline.is_empty() && self.fifo.is_empty()
    }
}
