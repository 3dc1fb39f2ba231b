//! The receive parser's verdicts: every malformation has a frame that shows it, and what is well-formed is what stands
//! there.

mod frames;

use cryptonic_wire::ip::protocol;
use cryptonic_wire::packet::{Expected, Ports, RECEIVE_MALFORMATIONS};
use cryptonic_wire::psp;
use cryptonic_wire::{IcvLength, Malformed, Plain, Protocol, UdpPorts, esp, parse_receive, parse_transmit};
use frames::{Shape, changed, esp_shape, psp_header, psp_payload, psp_shape, simple, vlan};

const PORT: u16 = psp::DEFAULT_UDP_PORT;
const UDP_PORTS: UdpPorts = UdpPorts { psp: PORT, esp: esp::DEFAULT_UDP_PORT };
const EXPECTED: Expected =
    Expected { udp_ports: UDP_PORTS, eesp_protocol: 254, eesp_in_udp: true, wespv2_protocol: 141 };

#[test]
fn every_malformation_is_shown() {
    let v4 = simple(4, 30);
    let v6 = simple(6, 30);
    let psp = psp_shape(psp_payload(&psp_header(), 20));
    let with_psp = |change: fn(&mut Vec<u8>)| changed(&psp, change);
    let bad_checksum = {
        let mut octets = v4.build().octets;
        octets[24] ^= 1;
        octets
    };
    let deep = Shape { extensions: 9, ..simple(6, 8) };
    let short = |protocol: u8, length: usize| Shape { protocol, ..simple(4, length) };
    let mut cases = vec![
        (Malformed::TruncatedEthernet, vec![0; 13]),
        (
            Malformed::TruncatedVlan,
            changed(&Shape { tags: [vlan(1), None], ..v4.clone() }, |it| it.truncate(17)),
        ),
        (Malformed::BadIpVersion, changed(&v4, |it| it[14] = 0x65)),
        (Malformed::BadIpVersion, changed(&v6, |it| it[14] = 0x45)),
        (Malformed::TruncatedIpv4, changed(&v4, |it| it.truncate(33))),
        (Malformed::TruncatedIpv4, changed(&v4, |it| it.truncate(63))),
        (Malformed::BadIpv4HeaderLength, changed(&v4, |it| it[14] = 0x44)),
        (Malformed::BadIpv4TotalLength, changed(&v4, |it| it[17] = 19)),
        (Malformed::BadIpv4Checksum, bad_checksum),
        (Malformed::TruncatedIpv6, changed(&v6, |it| it.truncate(53))),
        (Malformed::TruncatedIpv6, changed(&v6, |it| it.truncate(83))),
        (Malformed::TruncatedIpv6Extension, changed(&simple(6, 7), |it| it[20] = 60)),
        (Malformed::TooDeepExtensionChain, deep.build().octets),
        (Malformed::Fragment, changed(&esp_shape(4, 0x1001), |it| it[21] = 1)),
        (Malformed::Fragment, changed(&psp, |it| it[20] = 0x20)),
        (Malformed::TruncatedUdp, short(17, 7).build().octets),
        (Malformed::TruncatedEsp, short(50, 7).build().octets),
        (Malformed::ReservedSpi, esp_shape(6, 0).build().octets),
    ];
    cases.push((Malformed::BadUdpLength, with_psp(|it| it[39] -= 1)));
    cases.push((Malformed::BadUdpLength, with_psp(|it| it[39] += 1)));
    cases.push((Malformed::BadUdpLength, with_psp(|it| it[39] = 7)));
    cases.push((Malformed::PspReservedBit, with_psp(|it| it[45] &= !1)));
    cases.push((Malformed::PspBadVersion, with_psp(|it| it[45] |= 4 << 2)));
    cases.push((Malformed::PspBadHeaderLength, with_psp(|it| it[43] = 0)));
    cases.push((Malformed::PspBadHeaderLength, with_psp(|it| it[43] = 4)));
    cases.push((Malformed::PspBadHeaderLength, with_psp(|it| it[45] |= 2)));
    cases.push((Malformed::PspCryptOffsetPastEnd, with_psp(|it| it[44] = 6)));
    cases.push((Malformed::ReservedSpi, with_psp(|it| it[46..50].copy_from_slice(&[0x80, 0, 0, 0]))));
    let short_psp = |length: usize| {
        let mut payload = psp_payload(&psp_header(), 0);
        payload.truncate(8 + length);
        payload[5] = 8 + length as u8;
        psp_shape(payload).build().octets
    };
    cases.push((Malformed::TruncatedPsp, short_psp(15)));
    cases.push((Malformed::TruncatedPsp, short_psp(31)));
    // Two tags, IPv4 options, extension headers of each kind, and ESP in UDP.
    let tagged = Shape { tags: [vlan(1), vlan(2)], ..v4.clone() };
    for length in [15, 17, 19, 21] {
        cases.push((Malformed::TruncatedVlan, changed(&tagged, |it| it.truncate(length))));
    }
    cases.push((Malformed::TruncatedIpv4, changed(&tagged, |it| it.truncate(41))));
    let options = Shape { extensions: 2, ..v4.clone() };
    cases.push((Malformed::BadIpv4TotalLength, changed(&options, |it| it[17] = 27)));
    cases.push((Malformed::TruncatedIpv4, changed(&options, |it| it.truncate(41))));
    for header in [protocol::HOP_BY_HOP, protocol::ROUTING, protocol::DESTINATION_OPTIONS] {
        let mut extended = Shape { extensions: 1, ..v6.clone() }.build().octets;
        extended[20] = header;
        extended[55] = 4;
        cases.push((Malformed::TruncatedIpv6Extension, extended));
    }
    for length in [0, 7] {
        let mut fragment = simple(6, length).build().octets;
        fragment[20] = protocol::FRAGMENT;
        cases.push((Malformed::TruncatedIpv6Extension, fragment));
    }
    let mut fragment = Shape { extensions: 1, protocol: 50, ..v6.clone() }.build().octets;
    fragment[20] = protocol::FRAGMENT;
    cases.push((Malformed::Fragment, fragment));
    let in_udp = |version: u8, payload: &[u8]| Shape {
        payload: [&[0x11, 0x94, 0x11, 0x94, 0, 8 + payload.len() as u8, 0, 0], payload].concat(),
        ..simple(version, 0)
    };
    for version in [4, 6] {
        for (malformed, payload) in [
            (Malformed::TruncatedEsp, &[][..]),
            (Malformed::TruncatedEsp, &[0xfe]),
            (Malformed::TruncatedEsp, &[0, 0, 0]),
            (Malformed::TruncatedEsp, &[0xff, 0xff]),
            (Malformed::TruncatedEsp, &[0, 0, 0x10, 1, 0, 0, 0]),
        ] {
            cases.push((malformed, in_udp(version, payload).build().octets));
        }
    }
    let esp_in_udp = in_udp(4, &[0, 0, 0x10, 1, 0, 0, 0, 1]);
    for length in [7, 15, 17] {
        cases.push((Malformed::BadUdpLength, changed(&esp_in_udp, |it| it[39] = length)));
    }
    cases.push((Malformed::Fragment, changed(&esp_in_udp, |it| it[20] = 0x20)));
    cases.push((Malformed::Fragment, changed(&in_udp(4, &[0, 0, 0]), |it| it[20] = 0x20)));

    // EESP and WESPv2, over IP and in UDP: a header, and what is said of it with some octets changed.
    let eesp = [&[0x80, 8, 0, 1, 0, 0, 0x10, 1, 230, 2, 9, 9, 2, 2, 20 << 2, 0][..], &[7; 80]].concat();
    let wespv2 = [&[6, 24, 4, 0x44, 0x1e, 2, 9, 9, 0, 0, 0x10, 1, 0, 0, 0, 9][..], &[7; 40]].concat();
    let of_eesp: [(Malformed, usize, &[u8]); 11] = [
        (Malformed::EespFixedBits, 0, &[0x81]),
        (Malformed::EespBadVersion, 0, &[0x88]),
        (Malformed::EespBadVersion, 0, &[0xff]),
        (Malformed::ReservedSpi, 4, &[0, 0, 0, 0]),
        (Malformed::TruncatedEesp, 1, &[89]),
        (Malformed::OptionOverrun, 1, &[7]),
        (Malformed::OptionOverrun, 9, &[7]),
        (Malformed::TooManyOptions, 1, &[9, 0, 1, 0, 0, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Malformed::EespBadCryptOffset, 12, &[2, 1, 0, 0]),
        (Malformed::EespBadCryptOffset, 8, &[2, 2, 20 << 2, 0]),
        (Malformed::EespBadCryptOffset, 14, &[25 << 2]),
    ];
    let of_wespv2: [(Malformed, usize, &[u8]); 9] = [
        (Malformed::WespBadVersion, 3, &[0x04]),
        (Malformed::WespBadHeaderLength, 1, &[8]),
        (Malformed::WespBadHeaderLength, 1, &[22]),
        (Malformed::WespBadHeaderLength, 1, &[12]),
        (Malformed::WespBadNextHeader, 2, &[3]),
        (Malformed::WespUnknownOption, 4, &[0x5e]),
        (Malformed::OptionOverrun, 5, &[3]),
        (Malformed::TruncatedWesp, 1, &[24]),
        (Malformed::ReservedSpi, 8, &[0, 0, 0, 0]),
    ];
    for (packet, protocol, marker, rows) in
        [(&eesp, 254, &[][..], &of_eesp[..]), (&wespv2, 141, &[0, 0, 0, 2], &of_wespv2)]
    {
        for (malformed, at, octets) in rows {
            let mut packet = packet.clone();
            packet[*at..at + octets.len()].copy_from_slice(octets);
            if *malformed == Malformed::TruncatedWesp {
                packet.truncate(15);
            }
            // Without its first bit EESP is ESP at this port.
            if octets[0] & 0x80 != 0 || *at != 0 {
                cases.push((*malformed, in_udp(6, &[marker, &packet].concat()).build().octets));
            }
            cases.push((*malformed, Shape { protocol, payload: packet, ..simple(4, 0) }.build().octets));
        }
    }
    let without_first_bit = [&[0][..], &eesp[1..]].concat();
    let over_ip = |payload| Shape { protocol: 254, payload, ..simple(4, 0) };
    cases.push((Malformed::EespFixedBits, over_ip(without_first_bit).build().octets));
    cases.push((Malformed::TruncatedEesp, over_ip(eesp[..7].to_vec()).build().octets));
    cases.push((Malformed::Fragment, changed(&over_ip(eesp), |it| it[20] = 0x20)));
    let aligned_4 = [&[59, 20, 0, 0x40, 0, 0, 0x10, 1][..], &[7; 40]].concat();
    let aligned_4 = Shape { protocol: 141, payload: aligned_4, ..simple(6, 0) };
    cases.push((Malformed::WespBadHeaderLength, aligned_4.build().octets));

    for (expected, frame) in &cases {
        assert_eq!(parse_receive(frame, EXPECTED), Err(*expected), "{}", hex::encode(frame));
    }
    for malformed in RECEIVE_MALFORMATIONS {
        assert!(cases.iter().any(|(shown, _)| shown == malformed), "{} is not shown", malformed.name());
    }
}

#[test]
fn esp_in_udp_is_told_from_what_shares_its_port() {
    use Protocol::{Esp, NatKeepalive, Other};
    let in_udp = |payload: &[u8]| Shape {
        payload: [&[0x12, 0x34, 0x11, 0x94, 0, 8 + payload.len() as u8, 0x55, 0x55], payload].concat(),
        ..simple(6, 0)
    };
    // (UDP payload, protocol, SPI, UDP offset, security offset)
    let udp = 14 + 40;
    type Row = (&'static [u8], Protocol, u32, Option<usize>, usize);
    let rows: [Row; 7] = [
        (&[0xff], NatKeepalive, 0, Some(udp), 0),
        (&[0, 0, 0, 0], Other, 0, None, 0),
        (&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 9], Other, 0, None, 0),
        (&[0, 0, 0, 2, 1, 2, 3, 4], Other, 0, None, 0),
        (&[0, 0, 0, 255, 1, 2, 3, 4], Other, 0, None, 0),
        (&[0, 0, 1, 0, 0, 0, 0, 9], Esp, 256, Some(udp), udp + 8),
        (&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9, 1], Esp, u32::MAX, Some(udp), udp + 8),
    ];
    for (payload, protocol, spi, udp_offset, security_offset) in rows {
        let frame = in_udp(payload).build().octets;
        let parsed = parse_receive(&frame, UDP_PORTS).unwrap();
        let found = (parsed.protocol, parsed.spi, parsed.udp_offset, parsed.security_offset);
        assert_eq!(found, (protocol, spi, udp_offset, security_offset), "{payload:?}");
        assert_eq!(parsed.sequence, if protocol == Esp { 9 } else { 0 });
        assert_eq!(parsed.reserved_esp_spi, spi == 0 && payload.len() == 8, "{payload:?}");
        // Off, or another port: not looked into.
        for esp in [0, 4501] {
            let parsed = parse_receive(&frame, UdpPorts { esp, ..UDP_PORTS }).unwrap();
            assert_eq!((parsed.protocol, parsed.udp_offset), (Other, None));
        }
    }
    // A first fragment of IKE's is for the host; so is every later one, which shows no ports.
    let ike = in_udp(&[0, 0, 0, 0, 1, 2, 3, 4]);
    let ike = changed(&Shape { version: 4, ..ike }, |it| it[20] = 0x20);
    assert_eq!(parse_receive(&ike, UDP_PORTS).unwrap().protocol, Other);
    // Port 0 is off, and not a port.
    let zero = changed(&psp_shape(psp_payload(&psp_header(), 20)), |it| it[36..38].fill(0));
    assert_eq!(parse_receive(&zero, UdpPorts { psp: 0, esp: 0 }).unwrap().protocol, Other);
}

#[test]
fn shortest_esp_packets() {
    use esp::Cipher::{Gcm, GcmImplicitIv, Gmac};
    for (cipher, icv_length, shortest) in [
        (Gcm, IcvLength::Octets8, 16 + 2 + 8),
        (Gcm, IcvLength::Octets12, 16 + 2 + 12),
        (Gcm, IcvLength::Octets16, 16 + 2 + 16),
        (GcmImplicitIv, IcvLength::Octets16, 8 + 2 + 16),
        (Gmac, IcvLength::Octets16, 16 + 2 + 16),
    ] {
        let parameters = esp::Parameters { cipher, icv_length, ..esp::Parameters::new(0x1001, [0; 4]) };
        for (length, fits) in [(shortest - 1, false), (shortest, true)] {
            let mut shape = esp_shape(4, 0x1001);
            shape.payload.truncate(length);
            let frame = shape.build().octets;
            let parsed = parse_receive(&frame, UDP_PORTS).unwrap();
            let geometry = esp::receive_geometry(&parsed, &frame, &parameters, 1);
            assert_eq!(geometry.err(), (!fits).then_some(Malformed::TruncatedEsp), "{cipher:?} {length}");
        }
    }
    let psp = psp_shape(psp_payload(&psp_header(), 20)).build().octets;
    let parsed = parse_receive(&psp, UDP_PORTS).unwrap();
    let parameters = esp::Parameters::new(0x1001, [0; 4]);
    assert_eq!(esp::receive_geometry(&parsed, &psp, &parameters, 1), Err(Malformed::NotThisProtocol));
    let esp = esp_shape(4, 0x1001).build().octets;
    let parsed = parse_receive(&esp, UDP_PORTS).unwrap();
    assert_eq!(psp::receive_geometry(&parsed, &esp), Err(Malformed::NotThisProtocol));
    assert_eq!(psp::opened(&parsed, &esp), Err(Malformed::NotThisProtocol));
}

#[test]
fn borders_are_accepted() {
    let psp = psp_shape(psp_payload(&psp_header(), 20));
    // The largest crypt offset, the reserved bits, the longest header, S and D.
    for (offset, value) in [(44, 5), (44, 0xc0), (43, 3), (45, 0xc1)] {
        let frame = changed(&psp, |it| it[offset] = value);
        assert_eq!(parse_receive(&frame, UDP_PORTS).unwrap().protocol, Protocol::Psp);
    }
    let empty = psp_shape(psp_payload(&psp_header(), 0)).build().octets;
    let parsed = parse_receive(&empty, UDP_PORTS).unwrap();
    assert_eq!(psp::counted_octets(parsed.security_offset, parsed.plain.l3_end), 0);
    assert_eq!(parse_receive(&empty, UdpPorts { psp: PORT + 1, esp: 0 }).unwrap().protocol, Protocol::Other);

    let ping = parse_receive(&esp_shape(6, 255).build().octets, UDP_PORTS).unwrap();
    assert_eq!((ping.protocol, ping.reserved_esp_spi), (Protocol::Other, true));
    let deep = Shape { extensions: 8, ..esp_shape(6, 256) };
    let parsed = parse_receive(&deep.build().octets, UDP_PORTS).unwrap();
    assert_eq!((parsed.protocol, parsed.security_offset), (Protocol::Esp, 14 + 40 + 64));
}

#[test]
fn plain_layers_are_what_stands_there() {
    let shape = Shape { tags: [vlan(0x6005), None], extensions: 2, padding: 9, ..simple(4, 30) };
    let plain = parse_transmit(&shape.build().octets).unwrap();
    let expected = Plain {
        vlan: Some(0x6005),
        l3_offset: 18,
        ip_version: 4,
        ip_header_length: 28,
        l3_end: 18 + 28 + 30,
        next_header: 17,
        next_header_offset: 18 + 9,
        traffic_class: 0,
        dont_fragment: true,
        hop_limit: 64,
        flow_label: 0,
        source: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
        destination: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 1, 0, 1],
        ports: Some(Ports { source: 0x0001, destination: 0x0203 }),
        fragment: false,
    };
    assert_eq!(plain, expected);
    let later = changed(&simple(4, 30), |it| it[21] = 1);
    let plain = parse_transmit(&later).unwrap();
    assert_eq!((plain.fragment, plain.ports), (true, None));
    let arp = changed(&simple(4, 30), |it| it[13] = 6);
    let plain = parse_receive(&arp, UDP_PORTS).unwrap().plain;
    assert_eq!((plain.ip_version, plain.l3_end), (0, arp.len()));
}
