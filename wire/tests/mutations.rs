//! Packets of every form, mutated: whatever comes out of it, nothing panics, offsets stay inside the frame, a refused
//! frame is as it was, and what could be protected can be opened again.
//!
//! Every header octet takes every value, and random mutations follow: as many as take a second or two, or ten million with
//! `CRYPTONIC_LONG=1`.

mod witness;

use cryptonic_wire::esp::{self, Cipher, Ipv6UdpChecksum, LastOptions, UdpEncapsulation};
use cryptonic_wire::l4_checksum::{
    check_ipv4_checksum, check_l4_checksum, fill_ipv4_checksum, fill_l4_checksum,
};
use cryptonic_wire::outer::{Endpoints, PerPacket};
use cryptonic_wire::packet::{Expected, Ports};
use cryptonic_wire::psp::{self, Version};
use cryptonic_wire::psp_transform::{self, Completion};
use cryptonic_wire::segmentation::Segmentation;
use cryptonic_wire::selector::Selector;
use cryptonic_wire::toeplitz::{Toeplitz, With};
use cryptonic_wire::{
    Decapsulated, Geometry, Malformed, OuterTemplate, Parsed, Plain, Protocol, Refused, Rejected, Room,
    UdpPorts, esp_beet, esp_transform, parse_receive, parse_transmit,
};
use witness::reference::{self, Esp, EspCipher, Ip, Psp};

const EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: 254,
    eesp_in_udp: true,
    wespv2_protocol: 141,
};
const HEADROOM: usize = 128;
const TAILROOM: usize = 64;
const V4: Endpoints = Endpoints::V4 { source: [192, 0, 2, 1], destination: [192, 0, 2, 2] };
const V6: Endpoints = Endpoints::V6 { source: [0x20; 16], destination: [0x21; 16] };

fn ip(version: u8) -> Ip {
    let (source, destination) =
        if version == 4 { (vec![10, 0, 0, 1], vec![10, 1, 0, 1]) } else { (vec![0xfd; 16], vec![0xfc; 16]) };
    Ip {
        source,
        destination,
        traffic_class: 0xb9,
        hop_limit: 57,
        dont_fragment: false,
        identification: 0x1234,
        flow_label: 0,
        extra: Vec::new(),
        first_extension: None,
    }
}

/// An ESP packet whose text can be read, as an opened one.
fn esp_packet(cipher: EspCipher, payload: &[u8], next_header: u8) -> Vec<u8> {
    let esp = Esp {
        key: vec![1; 16],
        salt: [0; 4],
        spi: 0x1001,
        esn: false,
        cipher: EspCipher::Gmac,
        icv_octets: 16,
    };
    let mut packet = esp.packet(5, payload, next_header);
    if cipher == EspCipher::ImplicitIv {
        packet.drain(8..16);
    }
    packet
}

/// One frame of every form.
fn seeds() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let tcp = [&[0x2b, 0x67, 0x56, 0xce, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 9, 9, 0, 0, 0, 0][..], &[7; 33]]
        .concat();
    for version in [4, 6] {
        let outer = ip(version);
        let inner = ip(version).packet(6, &tcp);
        let next_header = if version == 4 { 4 } else { 41 };
        packets.push(inner.clone());
        packets.push(outer.packet(17, &reference::udp_with_checksum(&outer, 1, 2, &[8; 21])));
        for cipher in [EspCipher::Gcm, EspCipher::ImplicitIv] {
            packets.push(outer.packet(50, &esp_packet(cipher, &inner, next_header)));
            packets.push(outer.packet(50, &esp_packet(cipher, &tcp, 6)));
            packets.push(
                outer.packet(17, &reference::udp(4500, 4500, &esp_packet(cipher, &inner, next_header))),
            );
        }
        packets.push(outer.packet(50, &esp_packet(EspCipher::Gcm, &tcp, 144)));
        packets.push(outer.packet(17, &reference::udp(4500, 4500, &[0xff])));
        packets.push(outer.packet(17, &reference::udp(4500, 4500, &[0, 0, 0, 0, 1, 2, 3, 4])));
        // EESP with eight options, a private one and the crypt offset among them; WESPv2 with an option that may be skipped.
        let eesp =
            [&[0x80, 12, 0, 3, 0, 0, 0x10, 1, 0, 0, 0, 0, 0, 0, 230, 0, 2, 2, 32, 16][..], &tcp].concat();
        let wespv2 = [&[6, 24, 8, 0x44, 0x1e, 2, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 9][..], &tcp].concat();
        packets.push(outer.packet(254, &eesp));
        packets.push(outer.packet(17, &reference::udp(4500, 4500, &eesp)));
        packets.push(outer.packet(141, &wespv2));
        packets.push(outer.packet(17, &reference::udp(4500, 4500, &[&[0, 0, 0, 2], &wespv2[..]].concat())));
        for psp_version in 0..4 {
            let psp = Psp {
                key: vec![1; if psp_version % 2 == 0 { 16 } else { 32 }],
                spi: 0x9a34_5678,
                version: psp_version,
                crypt_offset: if psp_version < 2 { 3 } else { 0 },
                reserved: 0,
                sample: true,
                drop: false,
                cookie: (psp_version % 2 == 1).then_some([3; 8]),
                extension: vec![4; 8],
            };
            let (payload, next_header) = if psp_version < 2 { (&tcp, 6) } else { (&inner, next_header) };
            let packet = psp.packet(77, payload, next_header);
            packets.push(outer.packet(17, &reference::udp(9, 1000, &packet)));
            packets.push(outer.packet(17, &reference::udp(9, 1000, &packet[..31])));
        }
    }
    let options = Ip { extra: vec![1, 1, 1, 0], ..ip(4) };
    packets.push(options.packet(6, &tcp));
    packets.push(options.packet(50, &esp_packet(EspCipher::Gcm, &tcp, 6)));
    let extensions = vec![43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 4, 0, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    let extensions = Ip { extra: extensions, first_extension: Some(0), ..ip(6) };
    packets.push(extensions.packet(6, &tcp));
    let fragment = Ip { extra: vec![6, 0, 0, 1, 0, 0, 0, 9], first_extension: Some(44), ..ip(6) };
    packets.push(fragment.packet(6, &tcp));
    let deepest = [[60, 0, 1, 4, 0, 0, 0, 0].repeat(7), vec![6, 0, 1, 4, 0, 0, 0, 0]].concat();
    let deepest = Ip { extra: deepest, first_extension: Some(60), ..ip(6) };
    packets.push(deepest.packet(6, &tcp));
    let tags: [&[(u16, u16)]; 3] = [&[], &[(0x8100, 5)], &[(0x88a8, 6), (0x8100, 5)]];
    packets.iter().enumerate().map(|(index, packet)| reference::frame(tags[index % 3], packet)).collect()
}

/// Everything a run needs again and again.
struct Bench {
    toeplitz: Toeplitz,
    storage: Vec<u8>,
    /// How often each outcome was seen, so that a run which reaches nothing cannot pass.
    protected: usize,
    opened: usize,
    refused: usize,
    rejected: usize,
    malformed: [usize; Malformed::ALL.len()],
}

impl Bench {
    fn new() -> Self {
        Bench {
            toeplitz: Toeplitz::new(&[0x6d; 40]),
            storage: Vec::new(),
            protected: 0,
            opened: 0,
            refused: 0,
            rejected: 0,
            malformed: [0; Malformed::ALL.len()],
        }
    }

    fn run(&mut self, frame: &[u8]) {
        let received = parse_receive(frame, EXPECTED);
        match received {
            Ok(parsed) => self.receive(frame, &parsed),
            Err(malformed) => {
                let place = Malformed::ALL.iter().position(|entry| *entry == malformed).unwrap();
                self.malformed[place] += 1;
            }
        }
        if let Ok(plain) = parse_transmit(frame) {
            assert!(plain.l3_end <= frame.len() && plain.l4_offset() <= plain.l3_end);
            let checksum_is_right = !matches!(received, Err(Malformed::BadIpv4Checksum));
            self.transmit(frame, &plain, checksum_is_right);
            self.offload(frame, &plain);
        }
    }

    fn receive(&mut self, frame: &[u8], parsed: &Parsed) {
        let least = match parsed.protocol {
            Protocol::Other | Protocol::NatKeepalive => 0,
            Protocol::Esp => 8,
            Protocol::Psp => 32,
            Protocol::Wespv2 => 12,
            Protocol::Eesp => 8,
        };
        assert!(parsed.security_offset + least <= parsed.plain.l3_end && parsed.plain.l3_end <= frame.len());
        for cipher in [Cipher::Gcm, Cipher::GcmImplicitIv, Cipher::Gmac] {
            let sa = esp::Parameters { cipher, ..esp::Parameters::new(parsed.spi, [0; 4]) };
            if let Ok(geometry) = esp::receive_geometry(parsed, frame, &sa, 1 << 33) {
                assert!(geometry.text.start <= geometry.text.end && geometry.icv.end <= frame.len());
            }
            self.decapsulate(frame, |room| esp_transform::decapsulate_tunnel(room, parsed, &sa));
            self.decapsulate(frame, |room| esp_transform::decapsulate_transport(room, parsed, &sa));
            for inner in [V4, V6] {
                self.decapsulate(frame, |room| esp_beet::decapsulate_beet(room, parsed, &sa, &inner));
            }
        }
        if let Ok(geometry) = psp::receive_geometry(parsed, frame) {
            assert!(geometry.text.start <= geometry.text.end && geometry.icv.end <= frame.len());
        }
        let _ = psp::opened(parsed, frame);
        self.decapsulate(frame, |room| psp_transform::decapsulate(room, parsed));
    }

    fn decapsulate(
        &mut self,
        frame: &[u8],
        work: impl FnOnce(&mut Room<'_>) -> Result<Decapsulated, Rejected>,
    ) {
        let mut room = fill(&mut self.storage, frame);
        match work(&mut room) {
            Ok(Decapsulated::Packet { .. }) => {
                assert!(room.length() <= frame.len() + 20);
                self.opened += 1;
            }
            Ok(Decapsulated::Dummy) => assert_eq!(room.frame(), frame),
            Err(_) => {
                assert_eq!(room.frame(), frame);
                self.rejected += 1;
            }
        }
    }

    fn transmit(&mut self, frame: &[u8], plain: &Plain, checksum_is_right: bool) {
        let udp = UdpEncapsulation {
            ports: Ports { source: 4500, destination: 4500 },
            ipv6_checksum: Ipv6UdpChecksum::Computed,
        };
        for (cipher, udp) in [(Cipher::Gcm, None), (Cipher::GcmImplicitIv, Some(udp)), (Cipher::Gmac, None)] {
            let sa = esp::Parameters {
                cipher,
                udp,
                extended_sequence: cipher == Cipher::Gmac,
                ..esp::Parameters::new(0x1001, [0; 4])
            };
            for endpoints in [V4, V6] {
                let outer = OuterTemplate::new(endpoints);
                let per_packet = PerPacket::new(3);
                self.encapsulate(frame, plain, true, &sa, |room| {
                    esp_transform::encapsulate_tunnel(room, plain, &sa, 9, &outer, per_packet)
                });
            }
            let inside = esp::Parameters { last_options: LastOptions::Inside, ..sa };
            for sa in [sa, inside] {
                self.encapsulate(frame, plain, checksum_is_right, &sa, |room| {
                    esp_transform::encapsulate_transport(room, plain, &sa, 9)
                });
            }
            let ends = own_addresses(plain);
            self.encapsulate(frame, plain, true, &sa, |room| {
                esp_beet::encapsulate_beet(room, plain, &sa, 9, &ends, &V4)
            });
        }
        let psp = psp::Parameters {
            crypt_offset: 2,
            virtualization_cookie: Some([1; 8]),
            ..psp::Parameters::new(1, Version::AesGcm128)
        };
        let ports = Ports { source: 5, destination: 1000 };
        self.protect(frame, |room| psp_transform::encapsulate_transport(room, plain, &psp, 1, ports));
        let outer = OuterTemplate::new(V6);
        self.protect(frame, |room| {
            psp_transform::encapsulate_tunnel(room, plain, &psp, 1, ports, &outer, PerPacket::default())
        });
        let completion = Completion { udp_port: 1000, spi: 1, version: Version::AesGcm128, iv: 1 };
        self.protect(frame, |room| psp_transform::complete_preformatted(room, plain, &completion));
    }

    /// Lays an ESP packet out; where that could be, the receiver finds the same packet and the same geometry.
    fn encapsulate(
        &mut self,
        frame: &[u8],
        plain: &Plain,
        checksum_is_right: bool,
        sa: &esp::Parameters,
        work: impl FnOnce(&mut Room<'_>) -> Result<Geometry, Refused>,
    ) {
        let Some((geometry, sent)) = self.protect(frame, work) else { return };
        esp_transform::finish_outer_checksum(sent, sa).unwrap();
        if !checksum_is_right {
            assert_eq!(parse_receive(sent, EXPECTED), Err(Malformed::BadIpv4Checksum));
            return;
        }
        let parsed = parse_receive(sent, EXPECTED).unwrap();
        assert_eq!((parsed.protocol, parsed.spi, parsed.sequence), (Protocol::Esp, 0x1001, 9));
        assert_eq!(parsed.plain.l3_offset, plain.l3_offset);
        assert_eq!(esp::receive_geometry(&parsed, sent, sa, 9), Ok(geometry));
    }

    /// Lays a packet out, and checks that it is as it was where that could not be.
    fn protect<'a>(
        &'a mut self,
        frame: &[u8],
        work: impl FnOnce(&mut Room<'_>) -> Result<Geometry, Refused>,
    ) -> Option<(Geometry, &'a mut [u8])> {
        let mut room = fill(&mut self.storage, frame);
        match work(&mut room) {
            Ok(geometry) => {
                self.protected += 1;
                assert_eq!(geometry.icv.end, room.length());
                let range = room.start..room.end;
                Some((geometry, &mut self.storage[range]))
            }
            Err(_) => {
                assert_eq!(room.frame(), frame);
                self.refused += 1;
                None
            }
        }
    }

    fn offload(&mut self, frame: &[u8], plain: &Plain) {
        let mut copy = frame.to_vec();
        let _ = check_l4_checksum(&copy, plain);
        let _ = check_ipv4_checksum(&copy, plain);
        if fill_l4_checksum(&mut copy, plain) {
            assert_eq!(check_l4_checksum(&copy, plain), cryptonic_wire::l4_checksum::Checked::Good);
        }
        let _ = fill_ipv4_checksum(&mut copy, plain);
        let _ = self.toeplitz.hash_packet(plain, With::Ports);
        let _ = Selector::default().matches(plain);
        if let Ok(cut) = Segmentation::new(frame, plain, 11) {
            let octets: usize = (0..cut.segments()).map(|index| cut.data(index).unwrap().length()).sum();
            assert_eq!(octets, plain.l3_end - cut.header_length());
            for index in 0..cut.segments() {
                copy.copy_from_slice(frame);
                cut.segment_header(index, &mut copy).unwrap();
            }
        }
    }
}

/// A frame in a buffer with room on both sides.
fn fill<'a>(storage: &'a mut Vec<u8>, frame: &[u8]) -> Room<'a> {
    storage.clear();
    storage.resize(HEADROOM, 0xee);
    storage.extend_from_slice(frame);
    storage.resize(storage.len() + TAILROOM, 0xdd);
    Room::new(storage, HEADROOM, HEADROOM + frame.len()).unwrap()
}

/// A packet's addresses as those of an SA.
fn own_addresses(plain: &Plain) -> Endpoints {
    let last = |address: [u8; 16]| [address[12], address[13], address[14], address[15]];
    if plain.ip_version == 4 {
        Endpoints::V4 { source: last(plain.source), destination: last(plain.destination) }
    } else {
        Endpoints::V6 { source: plain.source, destination: plain.destination }
    }
}

/// Makes the IPv4 checksum right, or hardly a mutation would be seen behind it.
fn mend(frame: &mut [u8]) {
    let mut offset = 12;
    while matches!(frame.get(offset..offset + 2), Some([0x81, 0x00] | [0x88, 0xa8])) && offset < 20 {
        offset += 4;
    }
    let start = offset + 2;
    let length = frame.get(start).map_or(0, |octet| usize::from(octet & 15) * 4);
    if length < 20 || frame[start] >> 4 != 4 || frame.len() < start + length {
        return;
    }
    frame[start + 10..start + 12].fill(0);
    let sum = reference::internet_checksum(&frame[start..start + length]);
    frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn every_octet_of_every_header_takes_every_value() {
    let mut bench = Bench::new();
    for seed in seeds() {
        // Not the MAC addresses; all headers up to the payload's front, and the trailer with a little before it.
        let front = 12..seed.len().min(120);
        let back = seed.len().saturating_sub(20).max(120)..seed.len();
        for offset in front.chain(back) {
            for value in 0..=255 {
                let mut frame = seed.clone();
                if frame[offset] == value {
                    continue;
                }
                frame[offset] = value;
                mend(&mut frame);
                bench.run(&frame);
            }
        }
        let mut unmended = seed.clone();
        unmended[30] ^= 1;
        bench.run(&unmended);
        for length in 0..seed.len() {
            let mut frame = seed[..length].to_vec();
            mend(&mut frame);
            bench.run(&frame);
        }
    }
    assert!(bench.protected > 100_000 && bench.opened > 100_000, "{} {}", bench.protected, bench.opened);
    assert!(bench.refused > 100_000 && bench.rejected > 100_000, "{} {}", bench.refused, bench.rejected);
    for malformed in cryptonic_wire::packet::RECEIVE_MALFORMATIONS {
        let place = Malformed::ALL.iter().position(|entry| entry == malformed).unwrap();
        assert!(bench.malformed[place] > 0, "{}", malformed.name());
    }
}

#[test]
fn random_mutations() {
    let long = std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1");
    let count = if long { 10_000_000 } else { 100_000 };
    let seeds = seeds();
    let mut bench = Bench::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % below.max(1)
    };
    for _ in 0..count {
        let mut frame = seeds[random(seeds.len())].clone();
        for _ in 0..1 + random(5) {
            let length = frame.len();
            match random(8) {
                0 => frame.truncate(random(length + 1)),
                1 => frame.extend_from_slice(&[0x99; 70][..random(70)]),
                2 if length > 40 => {
                    // A piece moves: headers stand where others are expected.
                    let (from, to, octets) = (random(length - 20), random(length - 20), 1 + random(20));
                    frame.copy_within(from..from + octets, to);
                }
                3 if length > 2 => {
                    let offset = random(length - 1);
                    let value = [0u16, 1, 7, 8, 20, 40, 0x7fff, 0xffff][random(8)];
                    frame[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
                }
                4 if length > 0 => frame[length - 1 - random(length.min(20))] = random(256) as u8,
                _ if length > 12 => frame[12 + random((length - 12).min(90))] = random(256) as u8,
                _ => {}
            }
        }
        if random(8) > 0 {
            mend(&mut frame);
        }
        bench.run(&frame);
    }
    assert!(bench.protected > count / 10 && bench.opened > count / 10);
    assert!(bench.refused > count / 10 && bench.rejected > count / 10);
}
