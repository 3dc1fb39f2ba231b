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
use cryptonic_wire::{Malformed, Parsed, UdpPorts, parse_receive};

/// Cycles from a packet's last beat to its result: beat register, header extraction in three steps (Ethernet
/// and IP, extension headers, security protocol), verdict.
pub const LATENCY_CYCLES: u64 = 5;

/// What the parser says of a packet: its layers, or the verdict that it is malformed.
pub type Result = std::result::Result<Parsed, Status>;

/// The function of the unit.
#[inline]
pub fn parse(frame: &[u8], udp_ports: UdpPorts) -> Result {
    parse_receive(frame, udp_ports).map_err(verdict)
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
        Malformed::TruncatedTcp => Status::TruncatedTcp,
        Malformed::TruncatedUdp => Status::TruncatedUdp,
        Malformed::BadUdpLength => Status::BadUdpLength,
        Malformed::TruncatedEsp => Status::TruncatedEsp,
        Malformed::TruncatedPsp => Status::TruncatedPsp,
        Malformed::PspReservedBit => Status::PspReservedBit,
        Malformed::PspBadVersion => Status::PspBadVersion,
        Malformed::PspBadHeaderLength => Status::PspBadHeaderLength,
        Malformed::PspCryptOffsetPastEnd => Status::PspCryptOffsetPastEnd,
        Malformed::ReservedSpi => Status::ReservedSpi,
        // The parser asks for neither EESP nor WESPv2, so that none of these is its answer.
        Malformed::OptionOverrun
        | Malformed::TooManyOptions
        | Malformed::CryptOffsetNotAllowed
        | Malformed::CryptOffsetPastEnd
        | Malformed::TruncatedEesp
        | Malformed::EespFixedBits
        | Malformed::EespBadVersion
        | Malformed::EespBadCryptOffset
        | Malformed::EespPayloadOffset
        | Malformed::EespSessionId
        | Malformed::TruncatedWesp
        | Malformed::WespBadVersion
        | Malformed::WespBadHeaderLength
        | Malformed::WespBadNextHeader
        | Malformed::WespUnknownOption
        | Malformed::WespHeaderLengthMismatch
        | Malformed::NotThisProtocol => Status::NoSa,
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

    /// Says in which cycle the result of the last packet is taken.
    #[inline]
    pub fn take(&mut self, cycle: u64) {
        self.taken.push_back(cycle);
    }
}

/// One beat of the packet bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The bytes; only the last beat of a packet may have fewer than the bus.
    pub bytes: Vec<u8>,
    /// Whether it is the last of its packet.
    pub last: bool,
}

/// The unit a cycle at a time.
pub struct RxParseShell {
    udp_ports: UdpPorts,
    frame: Vec<u8>,
    in_packet: bool,
    /// Results on their way, with the cycles each has left.
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

impl RxParseShell {
    /// The unit after reset.
    pub fn new(results: u64, udp_ports: UdpPorts) -> Self {
        RxParseShell {
            udp_ports,
            frame: Vec::new(),
            in_packet: false,
            pipeline: VecDeque::new(),
            fifo: VecDeque::new(),
            results: results as usize,
            reserved: 0,
        }
    }

    /// One clock cycle: a beat may be offered, and the consumer may be ready. What is shown in a cycle depends
    /// only on registers; the beat is taken if `ready`, the result if there is one and the consumer is ready.
    pub fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        for (cycles, _) in &mut self.pipeline {
            *cycles -= 1;
        }
        while let Some((0, _)) = self.pipeline.front() {
            if let Some((_, result)) = self.pipeline.pop_front() {
                self.fifo.push_back(result);
            }
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
            self.frame.extend_from_slice(&beat.bytes);
            self.in_packet = !beat.last;
            if beat.last {
                self.pipeline.push_back((LATENCY_CYCLES, parse(&self.frame, self.udp_ports)));
            }
        }
        if consumer_ready && outputs.result.is_some() {
            self.fifo.pop_front();
            self.reserved -= 1;
        }
        outputs
    }

    /// Whether nothing is inside.
    pub fn drained(&self) -> bool {
        !self.in_packet && self.pipeline.is_empty() && self.fifo.is_empty()
    }
}
