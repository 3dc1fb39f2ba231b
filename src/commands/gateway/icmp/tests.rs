use cryptonic_wire::packet;
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice, icmpv4, icmpv6,
};

use super::*;

const GATEWAY_4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
const GATEWAY_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xfe);
const HOST_4: [u8; 4] = [10, 1, 0, 1];
const FAR_4: [u8; 4] = [10, 2, 0, 1];
const HOST_6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const FAR_6: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn plain(frame: &[u8]) -> Plain {
    packet::parse_transmit(frame).expect("an IP packet")
}

fn udp_4(source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, destination, 64).udp(1, 2);
    builder.write(&mut frame, &vec![7; payload]).expect("a frame");
    frame
}

fn udp_6(source: [u8; 16], destination: [u8; 16], payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(source, destination, 64).udp(1, 2);
    builder.write(&mut frame, &vec![7; payload]).expect("a frame");
    frame
}

fn icmp_4(kind: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(HOST_4, FAR_4, 64);
    builder.icmpv4_raw(kind, 0, [0; 4]).write(&mut frame, &[7; 40]).expect("a frame");
    frame
}

fn icmp_6(kind: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(HOST_6, FAR_6, 64);
    builder.icmpv6_raw(kind, 0, [0; 4]).write(&mut frame, &[7; 40]).expect("a frame");
    frame
}

fn fragment_4(offset: u16) -> Vec<u8> {
    let mut header = Ipv4Header::new(40, 64, IpNumber::UDP, HOST_4, FAR_4).expect("a length");
    header.more_fragments = true;
    header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [&[4; 6][..], &[2; 6], &[8, 0]].concat();
    header.write(&mut frame).expect("a header");
    frame.extend([7; 40]);
    frame
}

fn fragment_6(offset: u16) -> Vec<u8> {
    let whole = udp_6(HOST_6, FAR_6, 32);
    let [high, low] = (offset << 3 | 1).to_be_bytes();
    let mut frame = [&whole[..54], &[17, 0, high, low, 0, 0, 0, 9], &whole[54..]].concat();
    frame[20] = 44;
    frame[19] += 8;
    frame
}

#[test]
fn nobody_is_told_of_errors_groups_and_rests_of_packets() {
    let to_all_stations = {
        let mut frame = udp_4(HOST_4, FAR_4, 9);
        frame[..6].fill(0xff);
        frame
    };
    let group_6 = [&[0xff, 5][..], &[0; 14]].concat().try_into().expect("16 octets");
    let cut_short = {
        let mut frame = icmp_4(8);
        frame[16..18].copy_from_slice(&20_u16.to_be_bytes());
        frame
    };
    // (frame, whether its sender may be told)
    let mut rows = vec![
        (udp_4(HOST_4, FAR_4, 9), true),
        (udp_6(HOST_6, FAR_6, 9), true),
        (udp_4([0, 0, 0, 0], FAR_4, 9), false),
        (udp_4([0, 1, 2, 3], FAR_4, 9), false),
        (udp_4([127, 0, 0, 1], FAR_4, 9), false),
        (udp_4([224, 0, 1, 1], FAR_4, 9), false),
        (udp_4([255; 4], FAR_4, 9), false),
        (udp_4([250, 0, 0, 1], FAR_4, 9), false),
        (udp_4(HOST_4, [224, 0, 1, 1], 9), false),
        (udp_4(HOST_4, [255; 4], 9), false),
        (udp_6([0; 16], FAR_6, 9), false),
        (udp_6(Ipv6Addr::LOCALHOST.octets(), FAR_6, 9), false),
        (udp_6(group_6, FAR_6, 9), false),
        (udp_6(HOST_6, group_6, 9), false),
        (to_all_stations, false),
        (fragment_4(0), true),
        (fragment_4(1), false),
        (fragment_4(0x1fff), false),
        (fragment_6(0), true),
        (fragment_6(1), false),
        (cut_short, false),
    ];
    // RFC 1122 3.2.2 and RFC 4443 2.1, 2.4 e
    rows.extend([0, 8, 13, 14, 17, 18].map(|kind| (icmp_4(kind), true)));
    rows.extend([3, 4, 5, 11, 12].map(|kind| (icmp_4(kind), false)));
    rows.extend([128, 129, 133, 255].map(|kind| (icmp_6(kind), true)));
    rows.extend([1, 2, 3, 4, 100, 127, 137].map(|kind| (icmp_6(kind), false)));
    for (frame, wanted) in rows {
        assert_eq!(may_be_told(&frame, &plain(&frame)), wanted, "{frame:02x?}");
    }
}

#[test]
fn etherparse_reads_the_errors_and_finds_their_checksums_right() {
    for payload in [0, 1, 9, 500, 1472, 3000] {
        for longest in [usize::MAX, 1280, 600, 577] {
            let (frame_4, frame_6) = (udp_4(HOST_4, FAR_4, payload), udp_6(HOST_6, FAR_6, payload));
            // (what is wrong, as ICMP says it, as ICMPv6 does)
            let rows = [
                (
                    Trouble::HopsExceeded,
                    Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
                    Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
                ),
                (
                    Trouble::TooBig(1446),
                    Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu: 1446,
                    }),
                    Icmpv6Type::PacketTooBig { mtu: 1446 },
                ),
            ];
            for (trouble, kind_4, kind_6) in rows {
                let told =
                    error(trouble, &frame_4, &plain(&frame_4), GATEWAY_4.into(), longest).expect("told");
                let packet = SlicedPacket::from_ethernet(&told).expect("a packet");
                let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) =
                    (packet.net, packet.transport)
                else {
                    panic!("ICMP: {told:02x?}")
                };
                let header = ip.header().to_header();
                assert_eq!((header.source, header.destination), (GATEWAY_4.octets(), HOST_4));
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!((header.time_to_live, header.dscp.value()), (64, 48));
                assert_eq!(icmp.icmp_type(), kind_4);
                let quoted = (frame_4.len() - 14).min(576 - 28).min(longest - 28);
                assert_eq!(icmp.payload(), &frame_4[14..14 + quoted]);
                let icmp = icmp.header();
                assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(&frame_4[14..14 + quoted]));

                let told =
                    error(trouble, &frame_6, &plain(&frame_6), GATEWAY_6.into(), longest).expect("told");
                let packet = SlicedPacket::from_ethernet(&told).expect("a packet");
                let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
                    (packet.net, packet.transport)
                else {
                    panic!("ICMPv6: {told:02x?}")
                };
                let header = ip.header().to_header();
                assert_eq!((header.source, header.destination), (GATEWAY_6.octets(), HOST_6));
                assert_eq!(header.hop_limit, 64);
                assert_eq!(icmp.icmp_type(), kind_6);
                assert!(icmp.is_checksum_valid(header.source, header.destination));
                let quoted = (frame_6.len() - 14).min(1280 - 48).min(longest - 48);
                assert_eq!(icmp.payload(), &frame_6[14..14 + quoted]);
            }
        }
    }
    let frame = udp_4(HOST_4, FAR_4, 9);
    assert_eq!(error(Trouble::HopsExceeded, &frame, &plain(&frame), GATEWAY_6.into(), 1280), None);
}

#[test]
fn errors_are_fifty_at_once_and_then_a_hundred_a_second() {
    let start = Instant::now();
    let mut budget = Budget::new(start);
    let mut taken =
        |after: u64| (0..1000).filter(|_| budget.take(start + Duration::from_millis(after))).count();
    assert_eq!([0, 9, 10, 40, 49, 50].map(&mut taken), [50, 0, 1, 3, 0, 1]);
    assert_eq!([10_000, 10_100].map(taken), [50, 10]);
}

/// ESP, alone and in UDP, or PSP, from the gateway to its peer.
fn protected(outer_6: bool, in_udp: Option<u16>) -> Vec<u8> {
    let header = [0, 0, 0x10, 1, 0, 0, 0, 5];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = if outer_6 {
        builder.ipv6(HOST_6, FAR_6, 64)
    } else {
        builder.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
    };
    let mut frame = Vec::new();
    match in_udp {
        None => builder.write(&mut frame, IpNumber(50), &header).expect("a frame"),
        Some(1000) => {
            let psp = [&[4, 1, 0, 1][..], &header].concat();
            builder.udp(9, 1000).write(&mut frame, &psp).expect("a frame");
        }
        Some(port) => builder.udp(4500, port).write(&mut frame, &header).expect("a frame"),
    }
    frame
}

#[test]
fn what_routers_outside_tell_is_read_with_its_spi() {
    let router_4 = Ipv4Addr::new(203, 0, 113, 9);
    let router_6 = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
    for outer_6 in [false, true] {
        for (in_udp, protocol) in [(None, "esp"), (Some(4500), "esp"), (Some(1000), "psp")] {
            let frame = protected(outer_6, in_udp);
            let router = if outer_6 { router_6.into() } else { router_4.into() };
            let told = error(Trouble::TooBig(1400), &frame, &plain(&frame), router, 1280).expect("told");
            let (source, destination) = gate::addresses(&plain(&frame));
            let wanted = Told { mtu: 1400, source, destination, protocol, spi: 0x1001 };
            assert_eq!(too_big(&told, &plain(&told)), Some(wanted));
            // Nothing is read that is cut short, changed, or tells something else
            let (l3, l4) = (14, if outer_6 { 54 } else { 34 });
            for length in l4..told.len() - 8 {
                let mut short = told[..length].to_vec();
                let at = if outer_6 { l3 + 4 } else { l3 + 2 };
                let octets = if outer_6 { length - l4 } else { length - l3 };
                short[at..at + 2].copy_from_slice(&(octets as u16).to_be_bytes());
                assert_eq!(too_big(&short, &plain(&short)), None);
            }
            for at in l4..told.len() {
                let mut changed = told.clone();
                changed[at] ^= 0x10;
                assert_eq!(too_big(&changed, &plain(&changed)), None, "octet {at}");
            }
            let other = error(Trouble::HopsExceeded, &frame, &plain(&frame), router, 1280).expect("told");
            assert_eq!(too_big(&other, &plain(&other)), None);
        }
    }
}
