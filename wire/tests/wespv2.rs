//! The WESPv2 header: where things stand, what is malformed, and that every octet is answered.
//! Packets with their ciphers are in `wespv2_forms`.

mod witness;

use cryptonic_wire::esp::{self, Cipher, Parameters};
use cryptonic_wire::packet::Expected;
use cryptonic_wire::wespv2::{self, BadParameters, Header, Located, PROTOCOL};
use cryptonic_wire::{Aad, IcvLength, Malformed, Span, UdpPorts, parse_receive};
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

fn sa(cipher: Cipher, icv_length: IcvLength) -> wespv2::Parameters {
    let esp = Parameters { cipher, icv_length, ..Parameters::new(0x0102_0304, [0; 4]) };
    let most = if cipher == Cipher::Gmac { 0 } else { 63 };
    wespv2::Parameters::new(esp, 0, most).unwrap()
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
        for cipher in [Cipher::Gcm, Cipher::GcmImplicitIv, Cipher::Gmac] {
            let parameters = sa(cipher, IcvLength::Octets16);
            if let Ok(geometry) = wespv2::receive_geometry(&parsed, found, &frame, &parameters) {
                assert!(found.text_offset() + 16 + 2 <= parsed.plain.l3_end);
                assert_eq!((geometry.text.end, geometry.icv.end), (geometry.icv.start, parsed.plain.l3_end));
                assert_eq!(geometry.aad, Aad::InPlace { start: found.offset, end: geometry.text.start });
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

/// Header length, crypt offset, octets behind the sequence number, cipher, octets of ICV; the answer.
type Agreement = (u8, u8, usize, Cipher, IcvLength, Result<[usize; 4], Malformed>);

#[test]
fn the_header_must_be_what_the_sa_makes_it() {
    use Cipher::{Gcm, GcmImplicitIv, Gmac};
    use IcvLength::{Octets8, Octets16};
    let mismatch = Err(Malformed::WespHeaderLengthMismatch);
    let truncated = Err(Malformed::TruncatedEsp);
    let past_end = Err(Malformed::CryptOffsetPastEnd);
    // The header stands at 34: AAD from there to the text, text, ICV.
    let rows: [Agreement; 17] = [
        (20, 1, 52, Gcm, Octets16, Ok([34, 58, 82, 98])),
        (20, 1, 52, Gmac, Octets16, Ok([34, 82, 82, 98])),
        (20, 1, 52, Gcm, Octets8, Ok([34, 58, 90, 98])),
        (24, 1, 52, Gcm, Octets16, mismatch),
        (16, 1, 52, Gcm, Octets16, mismatch),
        (12, 1, 52, Gcm, Octets16, mismatch),
        (12, 1, 52, GcmImplicitIv, Octets16, Ok([34, 50, 82, 98])),
        (20, 1, 52, GcmImplicitIv, Octets16, mismatch),
        // 52 octets behind the sequence number less IV, trailer and ICV are 26: six units and two octets.
        (20, 6, 52, Gcm, Octets16, Ok([34, 78, 82, 98])),
        (20, 7, 52, Gcm, Octets16, past_end),
        (20, 7, 52, Gmac, Octets16, past_end),
        (20, 8, 52, Gcm, Octets8, Ok([34, 86, 90, 98])),
        (20, 9, 52, Gcm, Octets8, past_end),
        // The shortest packet: IV, trailer, ICV. What is wrong first is said first.
        (20, 0, 26, Gcm, Octets16, Ok([34, 54, 56, 72])),
        (20, 63, 25, Gcm, Octets16, truncated),
        (20, 0, 0, Gcm, Octets8, truncated),
        (24, 63, 0, Gcm, Octets16, mismatch),
    ];
    for (header_length, crypt_offset, octets, cipher, icv_length, expected) in rows {
        let next_header = if crypt_offset == 0 { 59 } else { 6 };
        let packet = &packet(next_header, header_length, crypt_offset, &[])[..12 + octets];
        let frame = reference::frame(&[], &inner_ip(4).packet(PROTOCOL, packet));
        let parsed = parse_receive(&frame, EXPECTED).unwrap();
        let found = Located::of(&parsed, &frame).unwrap();
        let geometry = wespv2::receive_geometry(&parsed, &found, &frame, &sa(cipher, icv_length));
        let expected = expected.map(|[aad, text, icv, end]| {
            let aad = Aad::InPlace { start: aad, end: text };
            (aad, Span::new(text, icv), Span::new(icv, end))
        });
        let row = (header_length, crypt_offset, octets, cipher);
        assert_eq!(geometry.map(|found| (found.aad, found.text, found.icv)), expected, "{row:?}");
    }
}

#[test]
fn what_no_packet_could_be_authenticated_by_is_no_sa() {
    let esp = Parameters::new(0x0102_0304, [0; 4]);
    let extended = Parameters { extended_sequence: true, ..esp };
    let gmac = Parameters { cipher: Cipher::Gmac, ..esp };
    let rows = [
        (esp, 0, 0, Ok(())),
        (esp, 63, 63, Ok(())),
        (esp, 5, 4, Err(BadParameters::CryptOffset)),
        (esp, 0, 64, Err(BadParameters::CryptOffset)),
        (extended, 0, 0, Err(BadParameters::ExtendedSequence)),
        (gmac, 0, 0, Ok(())),
        (gmac, 0, 1, Err(BadParameters::CryptOffsetWithoutEncryption)),
    ];
    for (esp, sent, maximum, expected) in rows {
        let found = wespv2::Parameters::new(esp, sent, maximum);
        assert_eq!(found.map(|_| ()), expected, "{esp:?} {sent} {maximum}");
    }
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
