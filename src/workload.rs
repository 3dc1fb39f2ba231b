//! The frames that the flows of `run` consist of.
//!
//! A flow's frames are templates made once. A packet is a template with its number written into the payload
//! and the checksum of its transport header brought up to date, which costs a few nanoseconds.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use crate::error::{Error, Result};
use crate::flow::Flow;

/// Bytes of the frame check sequence: "64 B" is 60 bytes in memory.
pub(crate) const FCS_BYTES: usize = 4;
/// Shortest and longest frame, FCS included.
pub(crate) const SIZE_MIN: usize = 64;
pub(crate) const SIZE_MAX: usize = 9_018;
/// Bytes of a packet's number in its payload.
pub(crate) const NUMBER_BYTES: usize = 4;
/// How many different sizes `mix` has.
const MIX_SIZES: usize = 48;
/// A flow repeats its order of sizes after this many packets.
const SIZE_ORDER: usize = 1_024;
const ETHERNET_BYTES: usize = 14;

/// A random number generator that is the same everywhere and for ever (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Sizes of frames, FCS included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// 7 of 64 bytes to 4 of 594 to 1 of 1518.
    Imix,
    /// Anything from 64 to 1518 bytes.
    Mix,
    /// These, in turn.
    These(Vec<usize>),
}

impl Sizes {
    /// From `64`, `imix` or `mix`.
    pub(crate) fn parse(text: &str) -> std::result::Result<Sizes, String> {
        match text {
            "imix" => Ok(Sizes::Imix),
            "mix" => Ok(Sizes::Mix),
            _ => match text.parse() {
                Ok(size) if (SIZE_MIN..=SIZE_MAX).contains(&size) => Ok(Sizes::These(vec![size])),
                _ => Err(format!("wants {SIZE_MIN} to {SIZE_MAX} bytes (FCS included), imix or mix")),
            },
        }
    }

    /// How a report names them.
    pub(crate) fn name(&self) -> String {
        match self {
            Sizes::Imix => "imix".to_owned(),
            Sizes::Mix => "mix".to_owned(),
            Sizes::These(sizes) => sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        }
    }

    /// The smallest of them.
    pub(crate) fn smallest(&self) -> usize {
        match self {
            Sizes::These(sizes) => sizes.iter().copied().min().unwrap_or(SIZE_MIN),
            Sizes::Imix | Sizes::Mix => SIZE_MIN,
        }
    }

    /// The sizes there are, and in which order a flow has them.
    fn order(&self, random: &mut Random) -> (Vec<usize>, Vec<u8>) {
        let (sizes, shares): (Vec<usize>, Vec<u8>) = match self {
            Sizes::Imix => (vec![64, 594, 1518], vec![0, 0, 1, 0, 1, 0, 2, 0, 1, 0, 1, 0]),
            Sizes::Mix => {
                let mut sizes = vec![64, 65, 127, 128, 256, 512, 1024, 1280, 1500, 1518];
                while sizes.len() < MIX_SIZES {
                    sizes.push(SIZE_MIN + random.below(1518 - SIZE_MIN + 1));
                }
                (sizes, Vec::new())
            }
            Sizes::These(sizes) => (sizes.clone(), (0..sizes.len() as u8).collect()),
        };
        let order = (0..SIZE_ORDER)
            .map(|index| {
                if shares.is_empty() { random.below(sizes.len()) as u8 } else { shares[index % shares.len()] }
            })
            .collect();
        (sizes, order)
    }
}

/// The packets of one flow one way.
#[derive(Debug)]
pub(crate) struct Stream {
    templates: Vec<Template>,
    order: Vec<u8>,
}

#[derive(Debug)]
struct Template {
    frame: Vec<u8>,
    number_at: usize,
    checksum_at: usize,
    /// One's complement sum of everything the checksum covers but the packet's number.
    sum: u32,
    udp: bool,
}

impl Stream {
    /// The stream number `index` of a flow; `way` is 0 from the first NIC and 1 from the second.
    pub(crate) fn new(flow: &Flow, index: usize, way: usize, random: &mut Random) -> Result<Stream> {
        let (sizes, order) = flow.sizes.order(random);
        let least = flow.smallest();
        let templates = sizes
            .iter()
            .map(|size| Template::new(flow, index, way, (*size).max(least) - FCS_BYTES, random))
            .collect::<Result<_>>()?;
        Ok(Stream { templates, order })
    }

    /// Packet `number` of the stream.
    #[inline]
    pub(crate) fn frame(&mut self, number: u32) -> &[u8] {
        let size = self.order[number as usize % SIZE_ORDER];
        self.templates[usize::from(size)].with_number(number)
    }

    /// The number of the packet that `frame` is, by its length and payload; `None` if it is none of these.
    #[inline]
    pub(crate) fn number_of(&self, frame: &[u8]) -> Option<u32> {
        // Every template has its number at the same place.
        let at = self.templates[0].number_at;
        Some(u32::from_be_bytes(frame.get(at..at + NUMBER_BYTES)?.try_into().ok()?))
    }

    /// Bytes of the longest frame.
    pub(crate) fn longest(&self) -> usize {
        self.templates.iter().map(|template| template.frame.len()).max().unwrap_or(0)
    }
}

/// The address that stream `index` has at a side.
pub(crate) fn address(ipv6: bool, index: usize, side: usize) -> IpAddr {
    let (host, side) = (index as u16, side as u8);
    let [high, low] = host.to_be_bytes();
    if ipv6 {
        [0x2001, 0xdb8, u16::from(side) << 8, 0, 0, 0, 0, host].into()
    } else {
        [10, side, high, low].into()
    }
}

impl Template {
    fn new(flow: &Flow, index: usize, way: usize, bytes: usize, random: &mut Random) -> Result<Template> {
        let mac = |side: usize| [2, 0, 0, 0, 0, side as u8 + 1];
        let builder = PacketBuilder::ethernet2(mac(way), mac(1 - way));
        let ports = (40_000_u16.wrapping_add(index as u16), 443);
        let network = if flow.ipv6 { 40 } else { 20 };
        let transport = if flow.tcp { 20 } else { 8 };
        let transport_at = ETHERNET_BYTES + network;
        let number_at = transport_at + transport;
        let mut payload = vec![0; bytes - number_at];
        random.fill(&mut payload);
        payload[..NUMBER_BYTES].fill(0);
        let mut frame = Vec::with_capacity(bytes);
        let builder = match [address(flow.ipv6, index, way), address(flow.ipv6, index, 1 - way)] {
            [IpAddr::V4(near), IpAddr::V4(far)] => builder.ipv4(near.octets(), far.octets(), 64),
            [IpAddr::V6(near), IpAddr::V6(far)] => builder.ipv6(near.octets(), far.octets(), 64),
            _ => return Err(Error::input("addresses of two families")),
        };
        let written = if flow.tcp {
            builder.tcp(ports.0, ports.1, 1, 4_096).ack(1).write(&mut frame, &payload)
        } else {
            builder.udp(ports.0, ports.1).write(&mut frame, &payload)
        };
        written.map_err(|error| Error::input(format_args!("a frame of {bytes} bytes: {error}")))?;
        let checksum_at = transport_at + if flow.tcp { 16 } else { 6 };
        let checksum = u16::from_be_bytes([frame[checksum_at], frame[checksum_at + 1]]);
        Ok(Template { frame, number_at, checksum_at, sum: u32::from(!checksum), udp: !flow.tcp })
    }

    #[inline]
    fn with_number(&mut self, number: u32) -> &[u8] {
        // The number is at an even distance from the checksum's first byte (all headers are even).
        let mut sum = self.sum + (number >> 16) + (number & 0xffff);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        let mut checksum = !(sum as u16);
        if self.udp && checksum == 0 {
            checksum = 0xffff;
        }
        self.frame[self.number_at..self.number_at + NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
        self.frame[self.checksum_at..self.checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        &self.frame
    }
}

/// The order in which a side takes its streams: each as often as its weight says, well mixed.
pub(crate) fn schedule(weights: &[usize]) -> Vec<u32> {
    let total: usize = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            for (credit, weight) in credit.iter_mut().zip(weights) {
                *credit += *weight as i64;
            }
            let most = credit.iter().enumerate().max_by_key(|(index, credit)| (**credit, usize::MAX - index));
            let index = most.map_or(0, |(index, _)| index);
            credit[index] -= total as i64;
            index as u32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::default_flows;

    #[test]
    fn every_packet_has_its_size_and_its_checksum() {
        for sizes in [Sizes::Imix, Sizes::Mix, Sizes::These(vec![64]), Sizes::These(vec![1518, 9000])] {
            for flow in default_flows(&sizes) {
                let mut stream = Stream::new(&flow, 3, 1, &mut Random::new(7)).unwrap();
                for number in [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 0x1234_5678] {
                    let frame = stream.frame(number).to_vec();
                    assert_eq!(stream.number_of(&frame), Some(number));
                    if let Sizes::These(sizes) = &sizes {
                        assert!(sizes.contains(&(frame.len() + FCS_BYTES)), "{}", flow.name);
                    }
                    let sliced = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
                    let payload = sliced.payload.slice();
                    let net = sliced.net.unwrap();
                    let wanted = match (sliced.transport.unwrap(), &net) {
                        (etherparse::TransportHeader::Udp(udp), etherparse::NetHeaders::Ipv4(ip, _)) => {
                            (udp.checksum, udp.calc_checksum_ipv4(ip, payload).unwrap())
                        }
                        (etherparse::TransportHeader::Udp(udp), etherparse::NetHeaders::Ipv6(ip, _)) => {
                            (udp.checksum, udp.calc_checksum_ipv6(ip, payload).unwrap())
                        }
                        (etherparse::TransportHeader::Tcp(tcp), etherparse::NetHeaders::Ipv4(ip, _)) => {
                            (tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap())
                        }
                        (etherparse::TransportHeader::Tcp(tcp), etherparse::NetHeaders::Ipv6(ip, _)) => {
                            (tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap())
                        }
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(wanted.0, wanted.1, "{} {number}", flow.name);
                }
            }
        }
    }

    #[test]
    fn a_schedule_keeps_the_weights_and_mixes() {
        assert_eq!(schedule(&[1, 1]), [0, 1]);
        let order = schedule(&[3, 1]);
        assert_eq!(order.iter().filter(|index| **index == 0).count(), 3);
        assert_eq!(order.len(), 4);
    }
}
