//! The WESPv2 header: where things stand, what is malformed, and that every octet is answered.

mod witness;

use cryptonic_wire::esp::{self, Cipher, Parameters};
use cryptonic_wire::packet::Expected;
use cryptonic_wire::wespv2::{Header, Located, PROTOCOL};
use cryptonic_wire::{Malformed, UdpPorts, parse_receive};
use proptest::collection::vec;
use proptest::prelude::*;
use witness::exchange::inner_ip;
use witness::reference;

const EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: 0,
    eesp_in_udp: false,
    wespv2_protocol: PROTOCOL,
};

/// A packet by the draft's picture: options, an ESP packet of SPI 0x01020304 and 60 octets.
fn packet(next_header: u8, header_length: u8, crypt_offset: u8, options: &[u8]) -> Vec<u8> {
    let mut out = vec![next_header, header_length, crypt_offset * 4, 64 + options.len() as u8];
    out.extend(options);
    out.extend([1, 2, 3, 4, 0, 0, 0, 9]);
    out.extend([0x5a; 52]);
    out
}

fn located(version: u8, packet: &[u8], udp: bool) -> Result<Option<(Located, usize)>, Malformed> {
    let ip = inner_ip(version);
    let carried = if udp {
        ip.packet(17, &reference::udp(4500, 4500, &[&[0, 0, 0, 2], packet].concat()))
    } else {
        ip.packet(PROTOCOL, packet)
    };
    let frame = reference::frame(&[], &carried);
    let parsed = parse_receive(&frame, EXPECTED)?;
    let found = Located::of(&parsed, &frame);
    if let Some(found) = &found {
        for cipher in [Cipher::Gcm, Cipher::GcmImplicitIv] {
            let parameters = Parameters { cipher, ..Parameters::new(7, [0; 4]) };
            if found.check(&parsed, &parameters).is_ok() {
                assert!(found.text_offset() + 16 + 2 <= parsed.plain.l3_end);
            }
        }
    }
    Ok(found.map(|found| (found, parsed.plain.l3_end)))
}

/// IP version, in UDP, options, header length, crypt offset; WESP at, ESP at, payload at, text at.
type Place = (u8, bool, &'static [u8], u8, u8, [usize; 4]);

#[test]
fn parts_stand_where_the_draft_has_them() {
    let rows: [Place; 5] = [
        (4, false, &[], 20, 0, [34, 38, 54, 54]),
        (4, false, &[1, 2, 0, 0], 24, 7, [34, 42, 58, 86]),
        (6, false, &[1, 2, 0, 0], 24, 5, [54, 62, 78, 98]),
        (4, true, &[], 20, 5, [46, 50, 66, 86]),
        (6, true, &[], 20, 0, [66, 70, 86, 86]),
    ];
    for (version, udp, options, header_length, crypt_offset, offsets) in rows {
        let next_header = if crypt_offset == 0 { 59 } else { 6 };
        let packet = packet(next_header, header_length, crypt_offset, options);
        let (found, _) = located(version, &packet, udp).unwrap().unwrap();
        let esp_offset = found.offset + found.header.esp_offset();
        assert_eq!([found.offset, esp_offset, found.payload_offset(), found.text_offset()], offsets);
        assert_eq!(found.esp, esp::Header { spi: 0x0102_0304, sequence: 9 });
        assert_eq!((found.agrees(6), found.agrees(17)), (true, crypt_offset == 0));
        let mut written = [0; 4];
        found.header.emit(&mut written).unwrap();
        assert_eq!(written, packet[..4]);
    }
}

#[test]
fn every_malformation_has_its_own_name() {
    let good = packet(6, 24, 5, &[1, 2, 0, 0]);
    assert!(matches!(located(4, &good, false), Ok(Some(_))));
    let rows: [(usize, u8, Malformed); 13] = [
        (1, 8, Malformed::WespBadHeaderLength),
        (1, 12, Malformed::WespBadHeaderLength),
        (1, 22, Malformed::WespBadHeaderLength),
        (2, 0, Malformed::WespBadNextHeader),
        (2, 3, Malformed::WespBadNextHeader),
        (3, 0x04, Malformed::WespBadVersion),
        (3, 0xc4, Malformed::WespBadVersion),
        (3, 0x7f, Malformed::WespBadHeaderLength),
        (4, 0x3f, Malformed::WespUnknownOption),
        (4, 0x5f, Malformed::WespUnknownOption),
        (4, 0x9f, Malformed::WespUnknownOption),
        (5, 3, Malformed::OptionOverrun),
        (5, 255, Malformed::OptionOverrun),
    ];
    for (at, octet, expected) in rows {
        let mut packet = good.clone();
        packet[at] = octet;
        assert_eq!(located(4, &packet, false), Err(expected), "octet {at} is {octet}");
    }
    // The two reserved bits and an unknown option that may be skipped do not matter.
    for (at, octet) in [(2, 5 << 2 | 3), (4, 0x1f)] {
        let mut packet = good.clone();
        packet[at] = octet;
        assert!(matches!(located(4, &packet, false), Ok(Some(_))), "octet {at}");
    }
    assert_eq!(located(6, &packet(59, 20, 0, &[]), false), Err(Malformed::WespBadHeaderLength));
    assert_eq!(located(4, &packet(59, 32, 0, &[0; 12]), false), Err(Malformed::TooManyOptions));
    let mut zero = good.clone();
    zero[8..12].fill(0);
    assert_eq!(located(4, &zero, false), Err(Malformed::ReservedSpi));
    for length in 0..16 {
        assert_eq!(located(4, &good[..length], false), Err(Malformed::TruncatedWesp), "{length}");
    }
}

#[test]
fn the_header_must_be_what_the_sa_makes_it() {
    let check = |header_length, crypt_offset, cipher| {
        let frame = reference::frame(
            &[],
            &inner_ip(4).packet(PROTOCOL, &packet(6, header_length, crypt_offset, &[])),
        );
        let parsed = parse_receive(&frame, EXPECTED).unwrap();
        let found = Located::of(&parsed, &frame).unwrap();
        found.check(&parsed, &Parameters { cipher, ..Parameters::new(0x0102_0304, [0; 4]) })
    };
    let mismatch = Err(Malformed::WespHeaderLengthMismatch);
    assert_eq!(check(20, 1, Cipher::Gcm), Ok(()));
    assert_eq!(check(24, 1, Cipher::Gcm), mismatch);
    assert_eq!(check(12, 1, Cipher::Gcm), mismatch);
    assert_eq!(check(12, 1, Cipher::GcmImplicitIv), Ok(()));
    // 52 octets behind the sequence number less IV, trailer and ICV are 26: six units and two octets.
    assert_eq!(check(20, 6, Cipher::Gcm), Ok(()));
    assert_eq!(check(20, 7, Cipher::Gcm), Err(Malformed::CryptOffsetPastEnd));
}

#[test]
fn every_octet_takes_every_value() {
    let good = packet(6, 24, 5, &[1, 2, 0, 0]);
    for at in 0..20 {
        for value in 0..=255 {
            let mut packet = good.clone();
            packet[at] = value;
            for (version, udp) in [(4, false), (6, false), (4, true)] {
                if let Ok(Some((found, end))) = located(version, &packet, udp) {
                    assert!(found.offset + found.header.esp_offset() + 8 <= end);
                    assert_eq!(Header::parse(&packet), Ok(found.header));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn random_packets_are_answered(octets in vec(any::<u8>(), 0..120), version in prop_oneof![Just(4u8), Just(6u8)]) {
        let _ = located(version, &octets, false);
        let _ = located(version, &octets, true);
        let mut likely = octets;
        if let Some(octet) = likely.get_mut(3) {
            *octet = *octet & 0x1f | 0x40;
        }
        let _ = located(version, &likely, false);
    }
}
