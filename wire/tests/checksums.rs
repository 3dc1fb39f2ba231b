//! TCP, UDP and IPv4 checksums against the second implementation and against packets of others.

mod witness;

use cryptonic_wire::l4_checksum::{
    Checked, check_ipv4_checksum, check_l4_checksum, fill_ipv4_checksum, fill_l4_checksum,
};
use cryptonic_wire::parse_transmit;
use witness::reference::{self, Ip};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn ip(version: u8) -> Ip {
    let (source, destination) = if version == 4 {
        (vec![10, 0, 0, 1], vec![10, 0, 0, 2])
    } else {
        ((0..16).collect(), (16..32).map(|octet| octet * 7).collect())
    };
    Ip {
        source,
        destination,
        traffic_class: 0,
        hop_limit: 64,
        dont_fragment: true,
        identification: 0,
        flow_label: 0,
        extra: Vec::new(),
        first_extension: None,
    }
}

/// A TCP segment with its checksum field zero.
fn tcp(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x2b, 0x67, 0x56, 0xce, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
    out.extend(data);
    out
}

/// A payload with the checksum that the second implementation computes, and where that stands.
fn checksummed(ip: &Ip, protocol: u8, data: &[u8]) -> (Vec<u8>, usize) {
    if protocol == UDP {
        return (reference::udp_with_checksum(ip, 11111, 22222, data), 6);
    }
    let mut segment = tcp(data);
    let sum = ip.transport_checksum(TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    (segment, 16)
}

#[test]
fn sums_are_those_of_the_second_implementation() {
    let options = Ip { extra: vec![1, 1, 1, 0], ..ip(4) };
    let extension = Ip { extra: vec![0, 0, 1, 4, 0, 0, 0, 0], first_extension: Some(60), ..ip(6) };
    for base in [ip(4), ip(6), options, extension] {
        for protocol in [TCP, UDP] {
            for size in [0, 1, 2, 3, 17, 1459, 1460, 8999] {
                let data: Vec<u8> = (0..size).map(|index| (index * 31) as u8).collect();
                let mut base = base.clone();
                if base.first_extension.is_some() {
                    base.extra[0] = protocol;
                }
                let (segment, place) = checksummed(&base, protocol, &data);
                let mut frame = reference::frame(&[], &base.packet(protocol, &segment));
                let wire_length = frame.len();
                frame.resize(wire_length + 5, 0x99);
                let plain = parse_transmit(&frame).unwrap();
                assert_eq!(check_l4_checksum(&frame, &plain), Checked::Good, "{protocol} {size}");

                let right = frame.clone();
                let place = plain.l4_offset() + place;
                frame[place..place + 2].copy_from_slice(&[0x5a, 0xa5]);
                assert_eq!(check_l4_checksum(&frame, &plain), Checked::Bad);
                assert!(fill_l4_checksum(&mut frame, &plain));
                assert_eq!(frame, right, "{protocol} {size}");
                frame[wire_length - 1] ^= 0x10;
                assert_eq!(check_l4_checksum(&frame, &plain), Checked::Bad, "{protocol} {size}");
            }
        }
    }
}

#[test]
fn a_packet_of_the_psp_reference_is_right() {
    // `clear_first_42` is the front of google/psp's pcap/v4_cleartext.pcap, whose payload counts up.
    let vectors = witness::vectors(include_str!("../../tests/vectors/psp.json"));
    let mut right = witness::octets(&vectors["clear_first_42"]);
    right.extend((0..1392).map(|index| index as u8));
    let mut frame = right.clone();
    frame[24..26].fill(0);
    frame[40..42].fill(0);
    let plain = parse_transmit(&frame).unwrap();
    assert!(fill_ipv4_checksum(&mut frame, &plain) && fill_l4_checksum(&mut frame, &plain));
    assert_eq!(frame, right);
    assert_eq!(check_ipv4_checksum(&frame, &plain), Checked::Good);
    frame[24] ^= 1;
    assert_eq!(check_ipv4_checksum(&frame, &plain), Checked::Bad);
}

#[test]
fn a_sum_of_zero_has_another_spelling_in_udp_alone() {
    // The last word makes up what the rest leaves, so that the sum is 0xffff and its complement zero.
    let ip = ip(4);
    for (protocol, expected) in [(UDP, [0xff, 0xff]), (TCP, [0, 0])] {
        let (segment, place) = checksummed(&ip, protocol, &[0, 0]);
        let mut frame = reference::frame(&[], &ip.packet(protocol, &segment));
        let plain = parse_transmit(&frame).unwrap();
        let place = plain.l4_offset() + place;
        let last = frame.len() - 2;
        let sum = [frame[place], frame[place + 1]];
        frame[last..].copy_from_slice(&sum);
        assert!(fill_l4_checksum(&mut frame, &plain));
        assert_eq!(frame[place..place + 2], expected, "{protocol}");
        assert_eq!(check_l4_checksum(&frame, &plain), Checked::Good);
    }
}

#[test]
fn what_cannot_be_checked_is_not() {
    let frame_of =
        |ip: &Ip, protocol: u8, payload: &[u8]| reference::frame(&[], &ip.packet(protocol, payload));
    let (v4, v6) = (ip(4), ip(6));
    let mut fragment = frame_of(&v4, UDP, &reference::udp_with_checksum(&v4, 1, 2, &[7; 9]));
    fragment[20] = 0x20;
    let mut short_udp = reference::udp(1, 2, &[7; 9]);
    short_udp[4..6].copy_from_slice(&[0, 7]);
    let mut long_udp = reference::udp(1, 2, &[7; 9]);
    long_udp[4..6].copy_from_slice(&[0, 18]);
    let routing =
        |ahead: u8| Ip { extra: vec![UDP, 0, 4, ahead, 0, 0, 0, 0], first_extension: Some(43), ..ip(6) };
    let routed =
        |ahead: u8| frame_of(&routing(ahead), UDP, &reference::udp_with_checksum(&v6, 1, 2, &[7; 9]));
    let mut not_ip = vec![0; 60];
    not_ip[12..14].copy_from_slice(&[0x08, 0x06]);
    let rows = [
        (fragment, Checked::NotChecked, false),
        (frame_of(&v4, 1, &[8; 40]), Checked::NotChecked, false),
        (frame_of(&v4, TCP, &tcp(&[])[..19]), Checked::NotChecked, false),
        (frame_of(&v4, UDP, &[0; 7]), Checked::NotChecked, false),
        (frame_of(&v4, UDP, &short_udp), Checked::NotChecked, false),
        (frame_of(&v4, UDP, &long_udp), Checked::NotChecked, false),
        (frame_of(&v4, UDP, &reference::udp(1, 2, &[7; 9])), Checked::NotChecked, true),
        (frame_of(&v6, UDP, &reference::udp(1, 2, &[7; 9])), Checked::Bad, true),
        (routed(1), Checked::NotChecked, false),
        (routed(0), Checked::Good, true),
        (not_ip, Checked::NotChecked, false),
    ];
    for (index, (mut frame, expected, fills)) in rows.into_iter().enumerate() {
        let plain = parse_transmit(&frame).unwrap();
        assert_eq!(check_l4_checksum(&frame, &plain), expected, "row {index}");
        let before = frame.clone();
        assert_eq!(fill_l4_checksum(&mut frame, &plain), fills, "row {index}");
        assert!(fills || frame == before, "row {index}");
        if fills {
            assert_eq!(check_l4_checksum(&frame, &plain), Checked::Good, "row {index}");
        }
    }
    let mut frame = frame_of(&v6, TCP, &tcp(&[]));
    let plain = parse_transmit(&frame).unwrap();
    assert_eq!(check_ipv4_checksum(&frame, &plain), Checked::NotChecked);
    assert!(!fill_ipv4_checksum(&mut frame, &plain));
}

#[test]
fn a_udp_length_below_the_packets_is_the_datagrams() {
    // Octets behind the datagram belong to no checksum (RFC 768).
    let ip = ip(6);
    let mut payload = reference::udp_with_checksum(&ip, 1, 2, &[7; 9]);
    payload.extend([0xaa; 6]);
    let frame = reference::frame(&[], &ip.packet(UDP, &payload));
    assert_eq!(check_l4_checksum(&frame, &parse_transmit(&frame).unwrap()), Checked::Good);
}
