//! Frames of every shape the transforms carry, made by hand and as proptest strategies.

#![allow(dead_code, reason = "each test binary uses its part")]

use cryptonic_wire::ethernet::{self, Tag, ethertype};
use cryptonic_wire::ip::protocol;
use cryptonic_wire::outer::{DontFragment, Dscp, Ecn, Endpoints, FlowLabel, Ttl};
use cryptonic_wire::psp::{self, Version};
use cryptonic_wire::{OuterTemplate, checksum, ipv4, ipv6, udp};
use proptest::collection::vec;
use proptest::prelude::*;

/// A frame and where its IP packet ends.
#[derive(Clone, Debug)]
pub struct Frame {
    pub octets: Vec<u8>,
    pub l3_offset: usize,
    pub l3_end: usize,
}

/// What an IP packet is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Tags, outermost first.
    pub tags: [Option<Tag>; ethernet::MAX_TAGS],
    pub version: u8,
    pub traffic_class: u8,
    pub dont_fragment: bool,
    pub ttl: u8,
    pub identification: u16,
    /// IPv4: options, in words. IPv6: destination-options headers of one unit.
    pub extensions: usize,
    pub protocol: u8,
    pub payload: Vec<u8>,
    pub padding: usize,
}

impl Shape {
    pub fn build(&self) -> Frame {
        let link = ethernet::Header {
            destination: [2, 0, 0, 0, 0, 2],
            source: [2, 0, 0, 0, 0, 1],
            tags: self.tags,
            ethertype: if self.version == 4 { ethertype::IPV4 } else { ethertype::IPV6 },
        };
        let mut octets = vec![0; link.length()];
        link.emit(&mut octets).unwrap();
        let l3_offset = octets.len();
        if self.version == 4 {
            self.push_ipv4(&mut octets)
        } else {
            self.push_ipv6(&mut octets)
        }
        octets.extend_from_slice(&self.payload);
        let l3_end = octets.len();
        octets.resize(l3_end + self.padding, 0x99);
        Frame { octets, l3_offset, l3_end }
    }

    fn push_ipv4(&self, octets: &mut Vec<u8>) {
        let start = octets.len();
        let length = 20 + 4 * self.extensions;
        octets.resize(start + length, 0x01);
        let header = ipv4::Header {
            header_length: length as u8,
            traffic_class: self.traffic_class,
            total_length: (length + self.payload.len()) as u16,
            identification: self.identification,
            flags_and_fragment_offset: if self.dont_fragment { ipv4::flag::DONT_FRAGMENT } else { 0 },
            ttl: self.ttl,
            protocol: self.protocol,
            checksum: 0,
            source: [10, 0, 0, 1],
            destination: [10, 1, 0, 1],
        };
        header.emit(&mut octets[start..]).unwrap();
        let sum = checksum::checksum(&octets[start..]);
        octets[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
    }

    fn push_ipv6(&self, octets: &mut Vec<u8>) {
        let start = octets.len();
        octets.resize(start + 40, 0);
        let options = protocol::DESTINATION_OPTIONS;
        let header = ipv6::Header {
            traffic_class: self.traffic_class,
            flow_label: u32::from(self.identification) << 4 | 0x5,
            payload_length: (8 * self.extensions + self.payload.len()) as u16,
            next_header: if self.extensions > 0 { options } else { self.protocol },
            hop_limit: self.ttl,
            source: [0xfd; 16],
            destination: [0xfc; 16],
        };
        header.emit(&mut octets[start..]).unwrap();
        for left in (0..self.extensions).rev() {
            octets.extend_from_slice(&[if left > 0 { options } else { self.protocol }, 0, 1, 4, 0, 0, 0, 0]);
        }
    }
}

/// Any packet that both modes carry.
pub fn shapes() -> impl Strategy<Value = Shape> {
    let head = (
        tags(),
        prop_oneof![Just(4u8), Just(6u8)],
        any::<u8>(),
        any::<bool>(),
        any::<u8>(),
        any::<u16>(),
        0usize..=8,
    );
    let protocols = prop_oneof![Just(6u8), Just(17u8), Just(1u8), Just(58u8), Just(132u8)];
    (head, protocols, vec(any::<u8>(), 0..300), 0usize..30).prop_map(|(head, protocol, payload, padding)| {
        let (tags, version, traffic_class, dont_fragment, ttl, identification, extensions) = head;
        Shape {
            tags,
            version,
            traffic_class,
            dont_fragment,
            ttl,
            identification,
            extensions,
            protocol,
            payload,
            padding,
        }
    })
}

/// No tag, one, or two.
fn tags() -> impl Strategy<Value = [Option<Tag>; ethernet::MAX_TAGS]> {
    (0usize..=2, any::<[u16; 2]>()).prop_map(|(count, [first, second])| match count {
        0 => [None, None],
        1 => [vlan(first), None],
        _ => [Some(Tag { protocol: ethertype::SERVICE_VLAN, control: first }), vlan(second)],
    })
}

/// A customer tag.
pub fn vlan(control: u16) -> Option<Tag> {
    Some(Tag { protocol: ethertype::VLAN, control })
}

/// A plain UDP packet of IPv4 or IPv6.
pub fn simple(version: u8, payload_length: usize) -> Shape {
    Shape {
        tags: [None; ethernet::MAX_TAGS],
        version,
        traffic_class: 0,
        dont_fragment: true,
        ttl: 64,
        identification: 0,
        extensions: 0,
        protocol: protocol::UDP,
        payload: (0..payload_length).map(|index| index as u8).collect(),
        padding: 0,
    }
}

/// Any outer header. ECN is copied, so that the exit finds what the entry wrote.
pub fn templates() -> impl Strategy<Value = OuterTemplate> {
    let endpoints = prop_oneof![
        Just(Endpoints::V4 { source: [192, 0, 2, 1], destination: [192, 0, 2, 2] }),
        Just(Endpoints::V6 { source: [0x20; 16], destination: [0x21; 16] }),
    ];
    let dscp = prop_oneof![Just(Dscp::Copy), (0u8..64).prop_map(Dscp::Value)];
    let ecn = prop_oneof![Just(Ecn::Copy), Just(Ecn::NotCapable)];
    let dont_fragment =
        prop_oneof![Just(DontFragment::Copy), Just(DontFragment::Set), Just(DontFragment::Clear)];
    let flow_label =
        prop_oneof![Just(FlowLabel::Copy), Just(FlowLabel::Hash), any::<u32>().prop_map(FlowLabel::Value)];
    let ttl = prop_oneof![Just(Ttl::Copy), any::<u8>().prop_map(Ttl::Value)];
    (endpoints, ttl, dscp, ecn, dont_fragment, flow_label).prop_map(
        |(endpoints, ttl, dscp, ecn, dont_fragment, flow_label)| OuterTemplate {
            endpoints,
            ttl,
            dscp,
            ecn,
            dont_fragment,
            flow_label,
        },
    )
}

/// A PSP packet: UDP header, PSP header, payload, ICV.
pub fn psp_payload(header: &psp::Header, payload_length: usize) -> Vec<u8> {
    let mut octets = vec![0u8; 8 + header.length() + payload_length + 16];
    let length = octets.len() as u16;
    udp::Header { source_port: 4, destination_port: psp::DEFAULT_UDP_PORT, length, checksum: 0 }
        .emit(&mut octets)
        .unwrap();
    header.emit(&mut octets[8..]).unwrap();
    octets
}

pub fn psp_header() -> psp::Header {
    psp::Header {
        next_header: 6,
        extension_length: 1,
        reserved: 0,
        crypt_offset: 0,
        sample: false,
        drop: false,
        version: Version::AesGcm128,
        spi: 0x9a345678,
        iv: 1,
        virtualization_cookie: None,
    }
}

pub fn psp_shape(payload: Vec<u8>) -> Shape {
    Shape { payload, ..simple(4, 0) }
}

pub fn esp_shape(version: u8, spi: u32) -> Shape {
    let mut payload = vec![0u8; 52];
    payload[..4].copy_from_slice(&spi.to_be_bytes());
    Shape { protocol: 50, payload, ..simple(version, 0) }
}

/// A frame after a change, with its IPv4 checksum made right again.
pub fn changed(shape: &Shape, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut octets = shape.build().octets;
    change(&mut octets);
    if octets.get(14).is_some_and(|octet| *octet >> 4 == 4) && octets.len() >= 34 {
        octets[24..26].fill(0);
        let sum = checksum::checksum(&octets[14..34]);
        octets[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}
