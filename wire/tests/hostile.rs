//! Whatever stands in a frame, and whatever frame a parse result is of, everything answers and nothing panics.

mod frames;

use cryptonic_wire::esp::LastOptions;
use cryptonic_wire::ip::protocol;
use cryptonic_wire::outer::{Endpoints, PerPacket};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::psp::{self, Version};
use cryptonic_wire::psp_transform::{self, Completion};
use cryptonic_wire::segmentation::Segmentation;
use cryptonic_wire::{
    IcvLength, OuterTemplate, Parsed, Plain, Protocol, Room, UdpPorts, checksum, esp, esp_beet,
    esp_transform, ethernet, ipv4, ipv6, l4_checksum, parse_receive, parse_transmit, tcp, udp,
};
use frames::{psp_header, psp_payload, shapes};
use proptest::collection::vec;
use proptest::prelude::*;

const PORT: u16 = psp::DEFAULT_UDP_PORT;
const UDP_PORTS: UdpPorts = UdpPorts { psp: PORT, esp: esp::DEFAULT_UDP_PORT };

/// Runs everything that takes a frame; only a panic is a failure.
fn run_all(frame: &[u8], forged: Option<(Parsed, Plain)>) {
    let parsed = forged.map(|(parsed, _)| parsed).or(parse_receive(frame, UDP_PORTS).ok());
    let plain = forged.map(|(_, plain)| plain).or(parse_transmit(frame).ok());
    let storage = [&[0; 96][..], frame, &[0; 24]].concat();
    let with_room = |work: &dyn Fn(&mut Room<'_>)| {
        let mut copy = storage.clone();
        work(&mut Room { storage: &mut copy, start: 96, end: 96 + frame.len() });
    };
    let endpoints = [
        Endpoints::V4 { source: [1; 4], destination: [2; 4] },
        Endpoints::V6 { source: [1; 16], destination: [2; 16] },
    ];
    for (icv_length, cipher, last_options) in [
        (IcvLength::Octets8, esp::Cipher::Gcm, LastOptions::Outside),
        (IcvLength::Octets16, esp::Cipher::GcmImplicitIv, LastOptions::Inside),
    ] {
        let parameters = esp::Parameters {
            extended_sequence: true,
            icv_length,
            cipher,
            last_options,
            ..esp::Parameters::new(999, [0; 4])
        };
        if let Some(parsed) = &parsed {
            let _ = esp::receive_geometry(parsed, frame, &parameters, 1);
            with_room(&|room| {
                let _ = esp_transform::decapsulate_tunnel(room, parsed, &parameters);
            });
            with_room(&|room| {
                let _ = esp_transform::decapsulate_transport(room, parsed, &parameters);
            });
        }
        for ends in &endpoints {
            if let Some(parsed) = &parsed {
                with_room(&|room| {
                    let _ = esp_beet::decapsulate_beet(room, parsed, &parameters, ends);
                });
            }
            let Some(plain) = &plain else { continue };
            let outer = OuterTemplate::new(*ends);
            with_room(&|room| {
                let per_packet = PerPacket::default();
                let _ = esp_transform::encapsulate_tunnel(room, plain, &parameters, 1, &outer, per_packet);
            });
            with_room(&|room| {
                let _ = esp_transform::encapsulate_transport(room, plain, &parameters, 1);
            });
            with_room(&|room| {
                let _ = esp_beet::encapsulate_beet(room, plain, &parameters, 1, ends, &endpoints[0]);
            });
        }
    }
    if let Some(parsed) = &parsed {
        let _ = psp::receive_geometry(parsed, frame);
        let _ = psp::opened(parsed, frame);
        with_room(&|room| {
            let _ = psp_transform::decapsulate(room, parsed);
        });
    }
    let Some(plain) = &plain else { return };
    let ports = Ports { source: 5, destination: PORT };
    let parameters = psp::Parameters { crypt_offset: 1, ..psp::Parameters::new(1, Version::AesGcm128) };
    let outer = OuterTemplate::new(endpoints[1]);
    with_room(&|room| {
        let _ = psp_transform::encapsulate_transport(room, plain, &parameters, 1, ports);
    });
    with_room(&|room| {
        let per_packet = PerPacket::default();
        let _ = psp_transform::encapsulate_tunnel(room, plain, &parameters, 1, ports, &outer, per_packet);
    });
    let completion = Completion { udp_port: PORT, spi: 1, version: Version::AesGcm128, iv: 1 };
    let to_psp = Plain { next_header: protocol::UDP, ports: Some(ports), ..*plain };
    with_room(&|room| {
        let _ = psp_transform::complete_preformatted(room, &to_psp, &completion);
    });
    for next_header in [protocol::TCP, protocol::UDP] {
        let plain = Plain { next_header, ..*plain };
        with_room(&|room| {
            let _ = l4_checksum::check_l4_checksum(room.frame(), &plain);
            let _ = l4_checksum::check_ipv4_checksum(room.frame(), &plain);
            let _ = l4_checksum::fill_l4_checksum(room.frame_mut(), &plain);
            let _ = l4_checksum::fill_ipv4_checksum(room.frame_mut(), &plain);
        });
        if let Ok(cut) = Segmentation::new(frame, &plain, 7) {
            for index in [0, 1, cut.segments() - 1, cut.segments(), usize::MAX] {
                let _ = cut.segment_header(index, &mut frame.to_vec());
            }
        }
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
        in_udp in any::<bool>(),
    ) {
        let udp_octets = if protocol == Protocol::Psp || in_udp { 8 } else { 0 };
        let l4_offset = plain.l3_offset.saturating_add(plain.ip_header_length).saturating_add(udp_octets);
        let security_offset = if near { l4_offset } else { usize::from(offset % 250) };
        let parsed = Parsed {
            plain,
            protocol,
            udp_offset: (udp_octets != 0).then_some(plain.l4_offset()),
            security_offset,
            spi: 1000,
            sequence: 1,
            reserved_esp_spi: false,
            numbers_offset: security_offset,
            header_octets: offset,
            crypt_offset: 0,
            payload_offset: None,
            session_id: 0,
            psp_flags: 0,
        };
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
