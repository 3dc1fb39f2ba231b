//! Whatever stands in a frame, the parsers answer; and every malformation has a frame that shows it.

mod frames;

use cryptonic_wire::outer::{Endpoints, PerPacket};
use cryptonic_wire::packet::{Ports, RECEIVE_MALFORMATIONS};
use cryptonic_wire::psp::{self, Version};
use cryptonic_wire::{
    IcvLength, Malformed, OuterTemplate, Parsed, Plain, Protocol, Room, UdpPorts, checksum, esp,
    esp_transform, ethernet, ipv4, ipv6, parse_receive, parse_transmit, psp_transform, tcp, udp,
};
use frames::{Shape, shapes, simple, vlan};
use proptest::collection::vec;
use proptest::prelude::*;

const PORT: u16 = psp::DEFAULT_UDP_PORT;
const UDP_PORTS: UdpPorts = UdpPorts { psp: PORT, esp: esp::DEFAULT_UDP_PORT };

/// A PSP packet: UDP header, PSP header, payload, ICV.
fn psp_payload(header: &psp::Header, payload_length: usize) -> Vec<u8> {
    let mut octets = vec![0u8; 8 + header.length() + payload_length + 16];
    let length = octets.len() as u16;
    udp::Header { source_port: 4, destination_port: PORT, length, checksum: 0 }.emit(&mut octets).unwrap();
    header.emit(&mut octets[8..]).unwrap();
    octets
}

fn psp_header() -> psp::Header {
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

fn psp_shape(payload: Vec<u8>) -> Shape {
    Shape { payload, ..simple(4, 0) }
}

fn esp_shape(version: u8, spi: u32) -> Shape {
    let mut payload = vec![0u8; 52];
    payload[..4].copy_from_slice(&spi.to_be_bytes());
    Shape { protocol: 50, payload, ..simple(version, 0) }
}

/// A frame after a change, with its IPv4 checksum made right again.
fn changed(shape: &Shape, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut octets = shape.build().octets;
    change(&mut octets);
    if octets.get(14).is_some_and(|octet| *octet >> 4 == 4) && octets.len() >= 34 {
        octets[24..26].fill(0);
        let sum = checksum::checksum(&octets[14..34]);
        octets[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}

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

    for (expected, frame) in &cases {
        assert_eq!(parse_receive(frame, UDP_PORTS), Err(*expected), "{}", hex::encode(frame));
    }
    for malformed in RECEIVE_MALFORMATIONS {
        assert!(cases.iter().any(|(shown, _)| shown == malformed), "{} is not shown", malformed.name());
    }
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

/// Runs everything that takes a frame; only a panic is a failure.
fn run_all(frame: &[u8], forged: Option<(Parsed, Plain)>) {
    let parsed = forged.map(|(parsed, _)| parsed).or(parse_receive(frame, UDP_PORTS).ok());
    let plain = forged.map(|(_, plain)| plain).or(parse_transmit(frame).ok());
    let mut storage = vec![0; 96];
    storage.extend_from_slice(frame);
    storage.resize(storage.len() + 24, 0);
    let end = 96 + frame.len();
    let endpoints = [
        Endpoints::V4 { source: [1; 4], destination: [2; 4] },
        Endpoints::V6 { source: [1; 16], destination: [2; 16] },
    ];
    for icv_length in [IcvLength::Octets8, IcvLength::Octets16] {
        let parameters =
            esp::Parameters { extended_sequence: true, icv_length, ..esp::Parameters::new(999, [0; 4]) };
        if let Some(parsed) = parsed {
            let _ = esp::receive_geometry(&parsed, frame, &parameters, 1);
            let mut copy = storage.clone();
            let _ = esp_transform::decapsulate_tunnel(
                &mut Room { storage: &mut copy, start: 96, end },
                &parsed,
                &parameters,
            );
            let mut copy = storage.clone();
            let _ = esp_transform::decapsulate_transport(
                &mut Room { storage: &mut copy, start: 96, end },
                &parsed,
                &parameters,
            );
        }
        for endpoints in endpoints {
            let Some(plain) = plain else { continue };
            let mut copy = storage.clone();
            let room = &mut Room { storage: &mut copy, start: 96, end };
            let outer = OuterTemplate::new(endpoints);
            let _ =
                esp_transform::encapsulate_tunnel(room, &plain, &parameters, 1, &outer, PerPacket::default());
            let _ = esp_transform::encapsulate_transport(room, &plain, &parameters, 1);
        }
    }
    if let Some(parsed) = parsed {
        let _ = psp::receive_geometry(&parsed, frame);
        let _ = psp_transform::decapsulate(&mut Room { storage: &mut storage, start: 96, end }, &parsed);
    }
}

prop_compose! {
    fn forged_plain()(
        numbers in any::<[u16; 4]>(),
        huge in any::<[bool; 4]>(),
        ip_version in prop_oneof![Just(4u8), Just(6u8), any::<u8>()],
        next_header in prop_oneof![Just(4u8), Just(41u8), any::<u8>()],
    ) -> Plain {
        let number = |index: usize| {
            let small = usize::from(numbers[index] % 200);
            if huge[index] { usize::MAX - small } else { small }
        };
        let mut plain = parse_transmit(&[0; 14]).unwrap();
        plain.l3_offset = number(0);
        plain.ip_header_length = number(1);
        plain.l3_end = number(2);
        plain.next_header_offset = number(3);
        plain.ip_version = ip_version;
        plain.next_header = next_header;
        plain
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_octets(frame in vec(any::<u8>(), 0..200), version in 0u8..3) {
        let mut frame = frame;
        if frame.len() > 14 && version > 0 {
            let (ethertype, first) = if version == 1 { ([0x08, 0x00], 0x45) } else { ([0x86, 0xdd], 0x60) };
            frame[12..14].copy_from_slice(&ethertype);
            frame[14] = first;
        }
        run_all(&frame, None);
        for cut in 0..frame.len().min(80) {
            let bytes = &frame[cut..];
            let _ = ethernet::Header::parse(bytes);
            let _ = ipv4::Header::parse(bytes);
            let _ = ipv4::checksum_is_valid(bytes);
            let _ = ipv6::Header::parse(bytes);
            let _ = ipv6::walk(bytes, 0);
            let _ = udp::Header::parse(bytes);
            let _ = tcp::Header::parse(bytes);
            let _ = esp::Header::parse(bytes);
            let _ = esp::parse_trailer(bytes);
            let _ = psp::Header::parse(bytes).map(|header| header.check_length(cut));
        }
    }

    #[test]
    fn mutated_packets(
        shape in shapes(),
        kind in 0u8..4,
        extension_length in 1u8..5,
        crypt_offset in 0u8..8,
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut shape = shape;
        match kind {
            0 => {}
            1 => {
                shape.protocol = 50;
                shape.payload.splice(0..0, [0, 0, 0x10, 1, 0, 0, 0, 1]);
            }
            _ => {
                shape.protocol = 17;
                let header = psp::Header { extension_length, crypt_offset, next_header: 2 + kind, ..psp_header() };
                shape.payload = psp_payload(&header, shape.payload.len());
            }
        }
        let mut frame = shape.build().octets;
        for (index, value) in mutations {
            let length = frame.len();
            frame[index.index(length.min(120))] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        // Checksums made right again, or hardly a mutation of the header would be seen behind them.
        let offset = if frame.get(12) == Some(&0x81) { 18 } else { 14 };
        let length = frame.get(offset).map_or(0, |octet| usize::from(octet & 15) * 4);
        if frame.get(offset).is_some_and(|octet| octet >> 4 == 4) && length >= 20 && frame.len() >= offset + length {
            frame[offset + 10..offset + 12].fill(0);
            let sum = checksum::checksum(&frame[offset..offset + length]);
            frame[offset + 10..offset + 12].copy_from_slice(&sum.to_be_bytes());
        }
        run_all(&frame, None);
    }

    #[test]
    fn parse_results_of_other_frames(
        frame in vec(any::<u8>(), 0..200),
        plain in forged_plain(),
        offset in any::<u16>(),
        protocol in prop_oneof![Just(Protocol::Esp), Just(Protocol::Psp)],
        near in any::<bool>(),
    ) {
        let udp_octets = if protocol == Protocol::Psp { 8 } else { 0 };
        let l4_offset = plain.l3_offset.saturating_add(plain.ip_header_length).saturating_add(udp_octets);
        let security_offset = if near { l4_offset } else { usize::from(offset % 250) };
        let parsed = Parsed { plain, protocol, udp_offset: None, security_offset, spi: 1000, sequence: 1, reserved_esp_spi: false };
        run_all(&frame, Some((parsed, plain)));
    }

    #[test]
    fn headers_come_back(octets in any::<[u8; 64]>(), version in 0u8..4, cookie in any::<bool>()) {
        let mut bytes = octets;
        let mut emitted = octets;
        let link = ethernet::Header::parse(&bytes).unwrap();
        emitted[..link.length()].fill(0);
        link.emit(&mut emitted).unwrap();
        prop_assert_eq!(emitted, bytes);

        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&[0, 64]);
        let header = ipv4::Header::parse(&bytes).unwrap();
        prop_assert_eq!(&header.to_bytes()[..], &bytes[..20]);

        bytes[0] = 0x60 | octets[0] & 0x0f;
        bytes[4..6].copy_from_slice(&[0, 24]);
        let mut emitted = [0u8; 40];
        ipv6::Header::parse(&bytes).unwrap().emit(&mut emitted).unwrap();
        prop_assert_eq!(&emitted[..], &bytes[..40]);

        let mut bytes = octets;
        bytes[0] |= 1;
        let mut emitted = [0u8; 8];
        esp::Header::parse(&bytes).unwrap().emit(&mut emitted).unwrap();
        prop_assert_eq!(&emitted[..], &bytes[..8]);

        bytes[4..6].copy_from_slice(&[0, 64]);
        let mut emitted = [0u8; 8];
        udp::Header::parse(&bytes).unwrap().emit(&mut emitted).unwrap();
        prop_assert_eq!(&emitted[..], &bytes[..8]);
        let mut emitted = [0u8; 4];
        tcp::Header::parse(&bytes).unwrap().emit(&mut emitted).unwrap();
        prop_assert_eq!(&emitted[..], &bytes[..4]);

        let mut bytes = octets;
        bytes[1] = bytes[1].max(2);
        bytes[3] = bytes[3] & 0xc0 | version << 2 | u8::from(cookie) << 1 | 1;
        bytes[7] |= 1;
        let length = if cookie { 24 } else { 16 };
        let mut emitted = [0u8; 24];
        psp::Header::parse(&bytes).unwrap().emit(&mut emitted).unwrap();
        prop_assert_eq!(&emitted[..length], &bytes[..length]);
    }
}
