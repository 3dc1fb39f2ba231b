//! Joining received TCP segments of one flow into larger frames, after they were opened, by the rules of Linux's
//! generic receive offload (net/ipv4/tcp_offload.c `tcp_gro_receive`, net/ipv4/af_inet.c `inet_gro_receive`,
//! net/ipv6/ip6_offload.c `ipv6_gro_receive`), so that segmenting the result again gives the segments back:
//!
//! * Same link header, addresses, ports, and origin (the SA that opened them). Sequence numbers follow one another;
//!   acknowledgement, window, header length and every option octet (timestamps) are equal.
//! * IPv4 without options, not fragmented: TTL, TOS and don't-fragment are equal, identifications rise by one; with
//!   don't-fragment they may all be equal instead. IPv6 without extension headers: traffic class, flow label and hop
//!   limit are equal.
//! * No segment is longer than the first, and one that is shorter is the last. FIN and PSH may be set in the last, which
//!   they make it; nothing with CWR is joined to what was before; SYN, RST and URG are never joined.
//! * Checksums are right, and the whole has at most 65535 octets of IP packet.
//!
//! What is not joined is delivered as it is. Frames of a flow keep their order; those of several may change places.

use std::ops::Range;

use cryptonic_wire::ip::protocol;
use cryptonic_wire::l4_checksum::{self, Checked};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::tcp::{self, flag};
use cryptonic_wire::{Plain, ipv4, ipv6, parse_transmit};

use crate::{ChecksumState, Received, SaHandle};

/// The longest IP packet that segments are joined to.
const PACKET_BYTES_MAX: usize = 65_535;
/// Flags that end what they are joined to, and are or-ed into its header.
const ENDS: u8 = flag::FIN | flag::PSH;
/// Flags that a segment must not have to be joined or to be joined to.
const NEVER: u8 = flag::SYN | flag::RST | flag::URG;

/// Where a frame comes from and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The SA that opened it.
    pub sa: Option<SaHandle>,
    /// The SPI of the packet that it came in, or 0.
    pub spi: u32,
    /// Its TCP checksum; [`ChecksumState::NotChecked`] has it computed here.
    pub l4_checksum: ChecksumState,
}

impl Origin {
    /// Of a received frame.
    pub fn of(received: &Received) -> Self {
        Origin { sa: received.sa(), spi: received.spi(), l4_checksum: received.l4_checksum() }
    }
}

/// What is told of a delivered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Frames that were joined; 1 for one that is as it came.
    pub segments: u32,
    /// TCP payload octets of the first, which cut the frame into the segments again; 0 for one that is as it came.
    pub segment_bytes: u16,
    /// Where they come from.
    pub origin: Origin,
}

/// Joins segments. It holds at most one frame a flow, and as many flows as it was made for; the longest held goes when
/// there are more.
pub struct Coalescer {
    flows: Vec<Flow>,
    flows_max: usize,
    /// Buffers of flows that were delivered.
    spare: Vec<Vec<u8>>,
}

/// A frame that more may be joined to.
struct Flow {
    frame: Vec<u8>,
    shape: Shape,
    origin: Origin,
    segments: u32,
    segment_bytes: usize,
    next_sequence: u32,
    identification: Identification,
    /// The identification that the next segment has, if they rise.
    next_identification: u16,
}

/// How the identifications of a flow's IPv4 packets go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identification {
    /// IPv6 has none.
    None,
    /// One segment with don't-fragment: both ways are open.
    Open,
    Rises,
    Stays,
}

/// Where the parts of a candidate are.
#[derive(Clone, Copy)]
struct Shape {
    plain: Plain,
    ports: Ports,
    payload: usize,
}

impl Coalescer {
    /// For `flows_max` flows at a time, at least one.
    pub fn new(flows_max: usize) -> Self {
        Coalescer { flows: Vec::new(), flows_max: flows_max.max(1), spare: Vec::new() }
    }

    /// Takes a frame. Whatever is to be delivered now is given to `deliver`, in order.
    pub fn push(&mut self, frame: &[u8], origin: Origin, mut deliver: impl FnMut(&[u8], Joined)) {
        let as_it_is = Joined { segments: 1, segment_bytes: 0, origin };
        let Some(plain) = tcp_of(frame) else {
            deliver(frame, as_it_is);
            return;
        };
        let held = plain
            .ports
            .and_then(|ports| self.flows.iter().position(|flow| flow.is_of(frame, &plain, ports, origin)));
        let candidate = candidate(frame, &plain, origin);
        if let Some(place) = held {
            let ends = match (&candidate, self.flows.get_mut(place)) {
                (Some(shape), Some(flow)) => flow.join(frame, shape),
                _ => None,
            };
            match ends {
                Some(false) => return,
                Some(true) => return self.deliver(place, &mut deliver),
                // It goes before what comes behind it.
                None => self.deliver(place, &mut deliver),
            }
        }
        match candidate {
            Some(shape) if flags(frame, &shape.plain) & ENDS == 0 => {
                if self.flows.len() >= self.flows_max {
                    self.deliver(0, &mut deliver);
                }
                self.hold(frame, shape, origin);
            }
            _ => deliver(frame, as_it_is),
        }
    }

    /// Delivers everything that is held, as when there is nothing more to receive for now.
    pub fn flush(&mut self, mut deliver: impl FnMut(&[u8], Joined)) {
        while !self.flows.is_empty() {
            self.deliver(0, &mut deliver);
        }
    }

    /// Flows of which a frame is held.
    pub fn held(&self) -> usize {
        self.flows.len()
    }

    fn hold(&mut self, frame: &[u8], shape: Shape, origin: Origin) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(frame);
        let plain = &shape.plain;
        let identification = match plain.ip_version {
            4 if plain.dont_fragment => Identification::Open,
            4 => Identification::Rises,
            _ => Identification::None,
        };
        let payload = frame.len() - shape.payload;
        self.flows.push(Flow {
            frame: buffer,
            shape,
            origin,
            segments: 1,
            segment_bytes: payload,
            next_sequence: sequence(frame, plain).wrapping_add(payload as u32),
            identification,
            next_identification: identification_of(frame, plain).wrapping_add(1),
        });
    }

    fn deliver(&mut self, place: usize, deliver: &mut impl FnMut(&[u8], Joined)) {
        if place >= self.flows.len() {
            return;
        }
        let mut flow = self.flows.remove(place);
        let segments = flow.segments;
        if segments > 1 {
            flow.finish();
        }
        let segment_bytes = if segments > 1 { flow.segment_bytes as u16 } else { 0 };
        deliver(&flow.frame, Joined { segments, segment_bytes, origin: flow.origin });
        self.spare.push(flow.frame);
    }
}

impl Flow {
    /// Whether a TCP packet is of this flow. One of another SA is of another flow, though its addresses are the same.
    fn is_of(&self, frame: &[u8], plain: &Plain, ports: Ports, origin: Origin) -> bool {
        let own = &self.shape.plain;
        self.shape.ports == ports
            && (own.source, own.destination) == (plain.source, plain.destination)
            && own.ip_version == plain.ip_version
            && (self.origin.sa, self.origin.spi) == (origin.sa, origin.spi)
            && self.frame.get(..own.l3_offset) == frame.get(..plain.l3_offset)
    }

    /// Joins a candidate of this flow. Gives whether the frame is complete; nothing where it cannot be joined.
    fn join(&mut self, frame: &[u8], shape: &Shape) -> Option<bool> {
        let (own, plain) = (&self.shape.plain, &shape.plain);
        let payload = frame.get(shape.payload..)?;
        let same_ip = own.hop_limit == plain.hop_limit
            && own.traffic_class == plain.traffic_class
            && own.flow_label == plain.flow_label
            && own.dont_fragment == plain.dont_fragment;
        // Of the TCP header everything but ports, sequence number, flags and checksum.
        let same_tcp = self.shape.payload == shape.payload
            && [8..13, 14..16, 18..shape.payload - plain.l4_offset()]
                .into_iter()
                .all(|range| equal(&self.frame, frame, at(own, range.clone()), at(plain, range)));
        let fits = self.frame.len() - own.l3_offset + payload.len() <= PACKET_BYTES_MAX;
        let (old, new) = (flags(&self.frame, own), flags(frame, plain));
        let same_flags = (old ^ new) & !(ENDS | flag::CWR) == 0 && new & flag::CWR == 0;
        let follows = sequence(frame, plain) == self.next_sequence;
        if !(same_ip && same_tcp && fits && same_flags && follows && payload.len() <= self.segment_bytes) {
            return None;
        }
        let identification = identification_of(frame, plain);
        let rises = identification == self.next_identification;
        let stays = identification == identification_of(&self.frame, own);
        self.identification = match self.identification {
            Identification::None => Identification::None,
            Identification::Open | Identification::Rises if rises => Identification::Rises,
            Identification::Open | Identification::Stays if stays => Identification::Stays,
            _ => return None,
        };
        self.next_identification = self.next_identification.wrapping_add(1);
        self.next_sequence = self.next_sequence.wrapping_add(payload.len() as u32);
        self.segments += 1;
        self.frame.extend_from_slice(payload);
        if let Some(octet) = self.frame.get_mut(own.l4_offset() + tcp::field::FLAGS.start) {
            *octet |= new & ENDS;
        }
        Some(payload.len() < self.segment_bytes || new & ENDS != 0)
    }

    /// Gives the headers the lengths and checksums of the whole.
    fn finish(&mut self) {
        let plain = &mut self.shape.plain;
        plain.l3_end = self.frame.len();
        let total = self.frame.len() - plain.l3_offset;
        let (field, length) = match plain.ip_version {
            4 => (ipv4::field::TOTAL_LENGTH, total),
            _ => (ipv6::field::PAYLOAD_LENGTH, total - ipv6::HEADER_LENGTH),
        };
        let place = plain.l3_offset + field.start..plain.l3_offset + field.end;
        if let Some(octets) = self.frame.get_mut(place) {
            octets.copy_from_slice(&(length as u16).to_be_bytes());
        }
        l4_checksum::fill_ipv4_checksum(&mut self.frame, plain);
        l4_checksum::fill_l4_checksum(&mut self.frame, plain);
    }
}

/// The layers of a frame, if it is a TCP packet that shows its ports.
fn tcp_of(frame: &[u8]) -> Option<Plain> {
    let plain = parse_transmit(frame).ok()?;
    (plain.ip_version != 0 && plain.next_header == protocol::TCP && plain.ports.is_some()).then_some(plain)
}

/// Whether a TCP packet may be joined, and where its parts are.
fn candidate(frame: &[u8], plain: &Plain, origin: Origin) -> Option<Shape> {
    let ip_header = if plain.ip_version == 4 { ipv4::HEADER_LENGTH } else { ipv6::HEADER_LENGTH };
    let words = frame.get(plain.l4_offset() + tcp::field::DATA_OFFSET.start)? >> 4;
    let header = usize::from(words) * 4;
    let payload = plain.l4_offset() + header;
    let whole = !plain.fragment && plain.ip_header_length == ip_header && plain.l3_end == frame.len();
    if !whole || header < tcp::HEADER_LENGTH || payload >= plain.l3_end || flags(frame, plain) & NEVER != 0 {
        return None;
    }
    let good = match origin.l4_checksum {
        ChecksumState::Good => true,
        ChecksumState::Bad => false,
        ChecksumState::NotChecked => l4_checksum::check_l4_checksum(frame, plain) == Checked::Good,
    };
    let ip_good = plain.ip_version != 4 || l4_checksum::check_ipv4_checksum(frame, plain) == Checked::Good;
    (good && ip_good).then_some(Shape { plain: *plain, ports: plain.ports?, payload })
}

/// A range of the TCP header, in the frame.
fn at(plain: &Plain, range: Range<usize>) -> Range<usize> {
    plain.l4_offset() + range.start..plain.l4_offset() + range.end
}

fn equal(one: &[u8], other: &[u8], of_one: Range<usize>, of_other: Range<usize>) -> bool {
    matches!((one.get(of_one), other.get(of_other)), (Some(one), Some(other)) if one == other)
}

fn flags(frame: &[u8], plain: &Plain) -> u8 {
    frame.get(plain.l4_offset() + tcp::field::FLAGS.start).copied().unwrap_or(NEVER)
}

fn sequence(frame: &[u8], plain: &Plain) -> u32 {
    let octets = frame.get(at(plain, tcp::field::SEQUENCE)).and_then(|octets| octets.try_into().ok());
    octets.map_or(0, u32::from_be_bytes)
}

fn identification_of(frame: &[u8], plain: &Plain) -> u16 {
    let field = ipv4::field::IDENTIFICATION;
    let place = plain.l3_offset + field.start..plain.l3_offset + field.end;
    let octets = frame.get(place).and_then(|octets| octets.try_into().ok());
    if plain.ip_version == 4 { octets.map_or(0, u16::from_be_bytes) } else { 0 }
}
