//! The packets that the forms carry: both families, every kind of header that stands around them, every size.

use crate::witness::{DESTINATION_OPTIONS, Packet, upper_checksum};

/// What stands around the upper protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Plain,
    OneTag,
    TwoTags,
    /// IPv4 options; over IPv6 hop-by-hop options and a routing header.
    Options,
    /// Over IPv6 destination options, behind a routing header; over IPv4 as `Plain`.
    DestinationOptions,
}

pub const SHAPES: [Shape; 5] =
    [Shape::Plain, Shape::OneTag, Shape::TwoTags, Shape::Options, Shape::DestinationOptions];

/// Upper protocol for experiments (RFC 3692): its payload is what we like, nothing included.
pub const EXPERIMENT: u8 = 253;
pub const UDP: u8 = 17;
pub const TCP: u8 = 6;

/// A packet with `bytes` of upper protocol and what it carries: UDP or TCP where their headers fit, else
/// [`EXPERIMENT`].
pub fn packet(ipv6: bool, shape: Shape, protocol: u8, bytes: usize) -> Packet {
    let mut link = vec![0x00, 0x88, 0x99, 0xaa, 0xbb, 0x00, 0x00, 0x22, 0x33, 0x44, 0x55, 0x00];
    match shape {
        Shape::OneTag => link.extend([0x81, 0x00, 0x20, 0x64]),
        Shape::TwoTags => link.extend([0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0xb0, 0x14]),
        _ => {}
    }
    let (source, destination) = if ipv6 {
        let address = |last: u8| [[0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0].as_slice(), &[0; 7], &[last]].concat();
        (address(1), address(2))
    } else {
        (vec![10, 0, 0, 1], vec![10, 1, 0, 2])
    };
    let options = match shape {
        // Router alert, and an end of the list (RFC 2113, RFC 791).
        Shape::Options if !ipv6 => vec![0x94, 4, 0, 0, 0, 0, 0, 0],
        _ => vec![],
    };
    // The first byte of each is set by the witness; the second is the length in units of 8 bytes beyond the first
    // eight.
    let hop_by_hop = (0, vec![0, 0, 5, 2, 0, 0, 1, 0]);
    let routing = (43, [vec![0, 2, 4, 0, 0, 0, 0, 0], vec![0x20; 16]].concat());
    let destination_options = (DESTINATION_OPTIONS, [vec![0, 1, 1, 12], vec![0; 12]].concat());
    let extensions = match shape {
        Shape::Options if ipv6 => vec![hop_by_hop, routing],
        Shape::DestinationOptions if ipv6 => vec![routing, destination_options],
        _ => vec![],
    };
    let mut packet = Packet {
        link,
        source,
        destination,
        traffic_class: 0xb9,
        ttl: 61,
        identification: 0x1234,
        dont_fragment: true,
        options,
        flow_label: if ipv6 { 0x5_4321 } else { 0 },
        extensions,
        protocol,
        upper: vec![],
    };
    packet.upper = upper(&packet, protocol, bytes);
    packet
}

/// `bytes` of an upper protocol.
fn upper(packet: &Packet, protocol: u8, bytes: usize) -> Vec<u8> {
    let header = match protocol {
        UDP => vec![0x2b, 0x67, 0x56, 0xce, (bytes >> 8) as u8, bytes as u8, 0, 0],
        TCP => vec![0x2b, 0x67, 0x56, 0xce, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0],
        _ => vec![],
    };
    assert!(bytes >= header.len(), "{bytes} bytes hold no header of protocol {protocol}");
    let payload = (0..bytes - header.len()).map(|index| (index * 7 + index / 251) as u8);
    let mut upper: Vec<u8> = header.into_iter().chain(payload).collect();
    let field = match protocol {
        UDP => 6,
        TCP => 16,
        _ => return upper,
    };
    let checksum = upper_checksum(&packet.source, &packet.destination, protocol, &upper);
    upper[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    upper
}
