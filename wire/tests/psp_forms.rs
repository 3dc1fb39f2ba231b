//! PSP in every form against a second implementation, octet by octet: mode, families, version, cookie, extension, crypt
//! offset and size; and frames that come with their headers already.

mod witness;

use cryptonic_wire::outer::{Endpoints, PerPacket};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::psp::{self, Parameters, SourcePort, Version};
use cryptonic_wire::psp_transform::{self, Completion};
use cryptonic_wire::{
    Aad, AuthenticationFailed, Decapsulated, Geometry, Malformed, OuterTemplate, Plain, Protocol, Refused,
    Room, UdpPorts, parse_receive, parse_transmit,
};
use witness::Gcm;
use witness::reference::{self, Ip, Psp};

const HEADROOM: usize = 64 + psp::MAX_HEADER_LENGTH;
const PORTS: Ports = Ports { source: 0xc123, destination: 1000 };
const IV: u64 = 0x0102_0304_0506_0708;
const SIZES: [usize; 12] = [0, 1, 3, 4, 8, 15, 16, 17, 32, 252, 1460, 8960];

fn ip(version: u8, outer: bool) -> Ip {
    let (source, destination) = match (version, outer) {
        (4, false) => (vec![10, 0, 0, 1], vec![10, 1, 0, 1]),
        (4, true) => (vec![192, 0, 2, 1], vec![192, 0, 2, 2]),
        (_, false) => (vec![0xfd; 16], vec![0xfc; 16]),
        (_, true) => (vec![0x20; 16], vec![0x21; 16]),
    };
    Ip {
        source,
        destination,
        traffic_class: 0x02,
        hop_limit: 64,
        dont_fragment: true,
        identification: 0,
        flow_label: 0,
        extra: Vec::new(),
        first_extension: None,
    }
}

fn endpoints(version: u8) -> Endpoints {
    if version == 4 {
        Endpoints::V4 { source: [192, 0, 2, 1], destination: [192, 0, 2, 2] }
    } else {
        Endpoints::V6 { source: [0x20; 16], destination: [0x21; 16] }
    }
}

fn parameters(psp: &Psp) -> Parameters<'_> {
    Parameters {
        crypt_offset: psp.crypt_offset,
        sample: psp.sample,
        drop: psp.drop,
        virtualization_cookie: psp.cookie,
        extension: &psp.extension,
        ..Parameters::new(psp.spi, Version::from_code(psp.version).unwrap())
    }
}

fn sa(version: u8) -> Psp {
    let key_octets = if version.is_multiple_of(2) { 16 } else { 32 };
    Psp {
        key: (0..key_octets).map(|octet| octet * 3 + version).collect(),
        spi: 0x9a34_5678,
        version,
        crypt_offset: 0,
        reserved: 0,
        sample: false,
        drop: false,
        cookie: None,
        extension: Vec::new(),
    }
}

fn send(
    frame: &[u8],
    key: &[u8],
    encapsulate: impl FnOnce(&mut Room<'_>, &Plain) -> Result<Geometry, Refused>,
) -> Result<(Vec<u8>, Geometry), Refused> {
    let mut storage = [&[0xee; HEADROOM][..], frame, &[0xdd; 16]].concat();
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let plain = parse_transmit(room.frame()).unwrap();
    let before = (room.start, room.end);
    let geometry = encapsulate(&mut room, &plain).inspect_err(|_| {
        assert_eq!((room.start, room.end, room.frame()), (before.0, before.1, frame));
    })?;
    geometry.seal(&Gcm::new(key), room.frame_mut()).unwrap();
    Ok((room.frame().to_vec(), geometry))
}

/// Receives what the second implementation made; gives the frame that comes out.
fn receive(wire: &[u8], psp: &Psp) -> (Decapsulated, Vec<u8>) {
    let mut frame = wire.to_vec();
    let end = frame.len();
    let mut room = Room::new(&mut frame, 0, end).unwrap();
    let parsed = parse_receive(room.frame(), UdpPorts::default()).unwrap();
    assert_eq!((parsed.protocol, parsed.spi), (Protocol::Psp, psp.spi));
    let geometry = psp::receive_geometry(&parsed, room.frame()).unwrap();
    geometry.open(&Gcm::new(&psp.key), room.frame_mut()).unwrap();
    let opened = psp::opened(&parsed, room.frame()).unwrap();
    assert_eq!(opened.header.virtualization_cookie, psp.cookie);
    assert_eq!(opened.header.reserved, psp.reserved);
    assert_eq!((opened.header.sample, opened.header.drop), (psp.sample, psp.drop));
    assert_eq!(opened.extension, psp.extension);
    let opened = psp_transform::decapsulate(&mut room, &parsed).unwrap();
    (opened, room.frame().to_vec())
}

#[test]
fn every_form_is_what_the_second_implementation_makes() {
    let mut compared = 0;
    for (tunnel, inner, outer) in
        [(false, 4, 4), (false, 6, 6), (true, 4, 4), (true, 4, 6), (true, 6, 4), (true, 6, 6)]
    {
        for version in 0..4 {
            for (cookie, extension) in
                [(false, 0), (true, 0), (false, 8), (true, 64), (false, 2032), (true, 2024)]
            {
                for crypt_offset in [0, 1, 2, 3, 6, 11, 63] {
                    for size in SIZES {
                        let turn = compared;
                        let payload: Vec<u8> = (0..size).map(|index| (index * 11 + turn) as u8).collect();
                        let clear_ip = ip(inner, false);
                        let packet = clear_ip.packet(6, &payload);
                        let psp = Psp {
                            crypt_offset,
                            cookie: cookie.then_some([0xc0, 1, 2, 3, 4, 5, 6, turn as u8]),
                            extension: (0..extension).map(|index| (index * 5) as u8).collect(),
                            sample: turn % 3 == 0,
                            drop: turn % 5 == 0,
                            ..sa(version)
                        };
                        let protected = if tunnel { &packet } else { &payload };
                        let covered = protected.len() + 8 * usize::from(cookie) + extension;
                        let clear = reference::frame(&[], &packet);
                        let sent = send(&clear, &psp.key, |room, plain| {
                            let parameters = parameters(&psp);
                            if tunnel {
                                let template = OuterTemplate::new(endpoints(outer));
                                psp_transform::encapsulate_tunnel(
                                    room,
                                    plain,
                                    &parameters,
                                    IV,
                                    PORTS,
                                    &template,
                                    PerPacket::default(),
                                )
                            } else {
                                psp_transform::encapsulate_transport(room, plain, &parameters, IV, PORTS)
                            }
                        });
                        if version >= 2 && crypt_offset > 0 {
                            assert_eq!(sent, Err(Refused::CryptOffsetWithoutEncryption));
                            continue;
                        }
                        if covered < 4 * usize::from(crypt_offset) {
                            assert_eq!(sent, Err(Refused::CryptOffsetPastEnd));
                            continue;
                        }
                        let next_header = if !tunnel {
                            6
                        } else if inner == 4 {
                            4
                        } else {
                            41
                        };
                        let datagram = reference::udp(
                            PORTS.source,
                            PORTS.destination,
                            &psp.packet(IV, protected, next_header),
                        );
                        let expected = if tunnel {
                            ip(outer, true).packet(17, &datagram)
                        } else {
                            clear_ip.packet(17, &datagram)
                        };
                        let expected = reference::frame(&[], &expected);
                        let (sent, geometry) = sent.unwrap();
                        assert!(sent == expected, "{psp:?} {size}: {}", hex::encode(&sent));
                        assert_eq!(
                            geometry.text.length(),
                            if version >= 2 { 0 } else { covered - 4 * usize::from(crypt_offset) }
                        );
                        let received = receive(&expected, &psp);
                        assert!(received == (Decapsulated::Packet { next_header }, clear), "{psp:?} {size}");
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

#[test]
fn reserved_bits_are_received_as_they_are() {
    for reserved in 0..4 {
        let psp = Psp { reserved, crypt_offset: 1, ..sa(0) };
        let datagram = reference::udp(1, 1000, &psp.packet(IV, &[7; 20], 6));
        let mut wire = reference::frame(&[], &ip(4, false).packet(17, &datagram));
        let clear = reference::frame(&[], &ip(4, false).packet(6, &[7; 20]));
        assert_eq!(receive(&wire, &psp), (Decapsulated::Packet { next_header: 6 }, clear));
        // They are authenticated: another value does not pass.
        wire[14 + 20 + 8 + 2] ^= 0x40;
        let parsed = parse_receive(&wire, UdpPorts::default()).unwrap();
        let geometry = psp::receive_geometry(&parsed, &wire).unwrap();
        assert_eq!(geometry.open(&Gcm::new(&psp.key), &mut wire), Err(AuthenticationFailed));
    }
}

#[test]
fn empty_ciphertext_is_authenticated() {
    for (size, crypt_offset, cookie) in [(0, 0, None), (8, 2, None), (252, 63, None), (4, 3, Some([9; 8]))] {
        let psp = Psp { crypt_offset, cookie, ..sa(1) };
        let datagram = reference::udp(1, 1000, &psp.packet(IV, &vec![7; size], 6));
        let mut wire = reference::frame(&[], &ip(6, false).packet(17, &datagram));
        let parsed = parse_receive(&wire, UdpPorts::default()).unwrap();
        let geometry = psp::receive_geometry(&parsed, &wire).unwrap();
        assert_eq!(geometry.text.length(), 0);
        geometry.open(&Gcm::new(&psp.key), &mut wire).unwrap();
        let last = wire.len() - 1;
        wire[last] ^= 1;
        assert_eq!(geometry.open(&Gcm::new(&psp.key), &mut wire), Err(AuthenticationFailed));
    }
}

#[test]
fn extensions_that_no_header_can_say_are_refused() {
    let clear = reference::frame(&[], &ip(4, false).packet(6, &[1; 20]));
    for (octets, cookie, refused) in
        [(7, false, true), (2032, false, false), (2040, false, true), (2024, true, false), (2032, true, true)]
    {
        let psp = Psp { extension: vec![3; octets], cookie: cookie.then_some([0; 8]), ..sa(0) };
        let sent = send(&clear, &psp.key, |room, plain| {
            psp_transform::encapsulate_transport(room, plain, &parameters(&psp), IV, PORTS)
        });
        assert_eq!(sent.err(), refused.then_some(Refused::PspExtension), "{octets} {cookie}");
    }
}

/// A frame with its headers, but without ICV, SPI, IV, lengths and checksums.
fn preformatted(ip: &Ip, psp: &Psp, destination_port: u16, payload: &[u8], padding: usize) -> Vec<u8> {
    let blank = Psp { spi: 0, ..psp.clone() };
    let packet = [blank.header(6, 0), payload.to_vec()].concat();
    let mut datagram = reference::udp(PORTS.source, destination_port, &packet);
    datagram[4..8].copy_from_slice(&[0, 8, 0xab, 0xcd]);
    let mut packet = ip.packet(17, &datagram);
    if ip.is_v4() {
        packet[10..12].copy_from_slice(&[0x12, 0x34]);
    }
    packet.resize(packet.len() + padding, 0x99);
    reference::frame(&[(0x8100, 7)], &packet)
}

fn completion(psp: &Psp) -> Completion {
    Completion { udp_port: 1000, spi: psp.spi, version: Version::from_code(psp.version).unwrap(), iv: IV }
}

#[test]
fn preformatted_frames_become_what_full_encapsulation_makes() {
    let options = Ip { extra: vec![1, 1, 1, 0], ..ip(4, false) };
    for ip in [ip(4, false), ip(6, false), options] {
        for version in 0..4 {
            for (cookie, extension, crypt_offset) in
                [(false, 0, 0), (true, 0, 0), (true, 16, 6), (false, 0, 1)]
            {
                for size in [0, 4, 17, 1400] {
                    if (version >= 2 && crypt_offset != 0) || (size == 0 && crypt_offset == 1) {
                        continue;
                    }
                    let psp = Psp {
                        crypt_offset,
                        cookie: cookie.then_some([5; 8]),
                        extension: vec![6; extension],
                        sample: true,
                        ..sa(version)
                    };
                    let payload: Vec<u8> = (0..size).map(|index| index as u8).collect();
                    let datagram = reference::udp(PORTS.source, 1000, &psp.packet(IV, &payload, 6));
                    let expected = reference::frame(&[(0x8100, 7)], &ip.packet(17, &datagram));
                    // The reserved bits are sent as zero, and octets after the packet are dropped.
                    let host = Psp { reserved: 2, ..psp.clone() };
                    let frame = preformatted(&ip, &host, 1000, &payload, 9);
                    let sent = send(&frame, &psp.key, |room, plain| {
                        psp_transform::complete_preformatted(room, plain, &completion(&psp))
                    });
                    assert_eq!(hex::encode(sent.unwrap().0), hex::encode(&expected), "{psp:?} {size}");
                }
            }
        }
    }
}

#[test]
fn preformatted_frames_are_checked() {
    let (v4, gcm) = (ip(4, false), sa(0));
    let good = preformatted(&v4, &gcm, 1000, &[1; 20], 0);
    let complete = |frame: &[u8], completion: Completion| {
        send(frame, &gcm.key, |room, plain| psp_transform::complete_preformatted(room, plain, &completion))
            .map(|_| ())
    };
    let changed = |offset: usize, value: u8| {
        let mut frame = good.clone();
        frame[offset] = value;
        frame
    };
    // Octet 18 is the IP header's first, 38 UDP's, 46 PSP's.
    let rows = [
        (good.clone(), Ok(())),
        (preformatted(&v4, &gcm, 1001, &[1; 20], 0), Err(Refused::NotPreformatted)),
        (changed(18 + 9, 6), Err(Refused::NotPreformatted)),
        (changed(18 + 6, 0x20), Err(Refused::Fragment)),
        (changed(46 + 3, 0), Err(Refused::Preformatted(Malformed::PspReservedBit))),
        (changed(46 + 3, 4 << 2 | 1), Err(Refused::Preformatted(Malformed::PspBadVersion))),
        (changed(46 + 3, 1 << 2 | 1), Err(Refused::PreformattedVersion)),
        (changed(46 + 3, 3), Err(Refused::Preformatted(Malformed::PspBadHeaderLength))),
        (changed(46 + 1, 0), Err(Refused::Preformatted(Malformed::PspBadHeaderLength))),
        (changed(46 + 1, 4), Err(Refused::Preformatted(Malformed::PspBadHeaderLength))),
        (changed(46 + 2, 5), Ok(())),
        (changed(46 + 2, 6), Err(Refused::Preformatted(Malformed::PspCryptOffsetPastEnd))),
    ];
    for (index, (frame, expected)) in rows.iter().enumerate() {
        assert_eq!(complete(frame, completion(&gcm)), *expected, "row {index}");
    }
    let cut = reference::frame(&[], &v4.packet(17, &reference::udp(1, 1000, &[0; 15])));
    let truncated = Err(Refused::Preformatted(Malformed::TruncatedPsp));
    assert_eq!(complete(&cut, completion(&gcm)), truncated);
    let reserved = Completion { spi: 1 << 31, ..completion(&gcm) };
    assert_eq!(complete(&good, reserved), Err(Refused::ReservedSpi));
    let gmac = preformatted(&v4, &Psp { crypt_offset: 1, ..sa(2) }, 1000, &[1; 20], 0);
    let sent = send(&gmac, &sa(2).key, |room, plain| {
        psp_transform::complete_preformatted(room, plain, &completion(&sa(2)))
    });
    assert_eq!(sent.err(), Some(Refused::CryptOffsetWithoutEncryption));

    let mut full = good.clone();
    let end = full.len();
    let mut room = Room::new(&mut full, 0, end).unwrap();
    let plain = parse_transmit(room.frame()).unwrap();
    let refused = psp_transform::complete_preformatted(&mut room, &plain, &completion(&gcm));
    assert_eq!((refused, room.frame()), (Err(Refused::NoRoom), &good[..]));
}

#[test]
fn gmac_authenticates_the_whole_packet() {
    let psp = sa(3);
    let datagram = reference::udp(1, 1000, &psp.packet(IV, &[7; 33], 6));
    let wire = reference::frame(&[], &ip(4, false).packet(17, &datagram));
    let parsed = parse_receive(&wire, UdpPorts::default()).unwrap();
    let geometry = psp::receive_geometry(&parsed, &wire).unwrap();
    assert_eq!(geometry.aad, Aad::InPlace { start: parsed.security_offset, end: wire.len() - 16 });
    for offset in parsed.security_offset..wire.len() {
        let mut changed = wire.clone();
        changed[offset] ^= 4;
        assert_eq!(geometry.open(&Gcm::new(&psp.key), &mut changed), Err(AuthenticationFailed), "{offset}");
    }
}

#[test]
fn source_ports_come_from_where_the_policy_says() {
    let mut segment = [0; 20];
    segment[..4].copy_from_slice(&[0x2b, 0x67, 0x56, 0xce]);
    let plain = parse_transmit(&reference::frame(&[], &ip(4, false).packet(6, &segment))).unwrap();
    let none = parse_transmit(&reference::frame(&[], &ip(4, false).packet(1, &segment))).unwrap();
    let table: Vec<u16> = (0..16).map(|index| 50000 + 7 * index).collect();
    let rows = [
        (SourcePort::Fixed(7), &plain, 9, 7),
        (SourcePort::PortsXor, &plain, 9, 0x2b67 ^ 0x56ce),
        (SourcePort::PortsXor, &none, 9, 1000),
        (SourcePort::Entropy, &plain, 0xffff_1234, 0xd234),
        (SourcePort::Table(&table), &plain, 0, 50000),
        (SourcePort::Table(&table), &plain, 16 * 77 + 3, 50021),
        (SourcePort::Table(&table), &plain, u64::MAX, 50000 + 7 * 15),
        (SourcePort::Table(&[]), &plain, 0xffff_1234, 0xd234),
    ];
    for (policy, plain, hash, expected) in rows {
        assert_eq!(policy.port(plain, hash), expected, "{policy:?}");
    }
}
