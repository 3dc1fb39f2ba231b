//! EESP in every form against a second implementation, octet by octet, and against the offsets that the draft's examples
//! come to.

mod witness;

use cryptonic_wire::eesp::{
    self, Carrier, CryptOffset, Format, Header, Layout, Located, Numbering, Parameters,
};
use cryptonic_wire::eesp_transform::{self, Rejected};
use cryptonic_wire::esp::{Ipv6UdpChecksum, UdpEncapsulation};
use cryptonic_wire::outer::PerPacket;
use cryptonic_wire::packet::Expected;
use cryptonic_wire::packet::Ports;
use cryptonic_wire::{
    Aad, Decapsulated, IcvLength, Malformed, OuterTemplate, Refused, Room, Span, UdpPorts, parse_receive,
    parse_transmit,
};
use witness::Gcm;
use witness::exchange::{HEADROOM, TAILROOM, endpoints, inner_ip, storage};
use witness::reference::{self, Ip};
use witness::wrapped::Eesp;

const TAGS: &[(u16, u16)] = &[(0x88a8, 0x2007), (0x8100, 0x6005)];
const SIZES: [usize; 9] = [0, 1, 2, 3, 4, 13, 32, 1433, 8960];
const NUMBERS: [u64; 3] = [1, 0xffff_ffff_ffff, u64::MAX];
/// From the range for experiments (RFC 3692): EESP has no number of its own.
const PROTOCOL: u8 = 253;
const EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: PROTOCOL,
    eesp_in_udp: true,
    wespv2_protocol: 0,
};

/// One row of the table.
#[derive(Clone, Debug)]
struct Case {
    is_tunnel: bool,
    inner: u8,
    outer: u8,
    udp: Option<Ipv6UdpChecksum>,
    numbering: Numbering,
    format: Format,
    icv_length: IcvLength,
    number: u64,
    size: usize,
}

/// Every combination; sequence numbers go round.
fn cases() -> Vec<Case> {
    let crypt_offset = |sent| Format::FullWithCryptOffset { sent, maximum: 63 };
    let formats = [Format::Optimized, Format::Full, crypt_offset(0), crypt_offset(1), crypt_offset(6)];
    let numberings = [
        (Numbering::SequenceAndIv, IcvLength::Octets16),
        (Numbering::SequenceAndIv, IcvLength::Octets12),
        (Numbering::SequenceIsIv, IcvLength::Octets16),
        (Numbering::IvAlone, IcvLength::Octets8),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (is_tunnel, inner, outer) in
        [(true, 4, 4), (true, 4, 6), (true, 6, 4), (true, 6, 6), (false, 4, 4), (false, 6, 6)]
    {
        for udp in [None, Some(Ipv6UdpChecksum::Zero), Some(Ipv6UdpChecksum::Computed)] {
            for format in formats {
                for (numbering, icv_length) in numberings {
                    for size in SIZES {
                        let number = NUMBERS[cases.len() % NUMBERS.len()];
                        let case = Case {
                            is_tunnel,
                            inner,
                            outer,
                            udp,
                            numbering,
                            format,
                            icv_length,
                            number,
                            size,
                        };
                        let crypt_octets = if format == crypt_offset(6) { 24 } else { 0 };
                        let fits = is_tunnel || crypt_octets <= 4 + size;
                        if fits && (is_tunnel || format != Format::Optimized) {
                            cases.push(case);
                        }
                    }
                }
            }
        }
    }
    cases
}

impl Case {
    fn parameters(&self) -> Parameters {
        let carrier = match self.udp {
            None => Carrier::Ip(PROTOCOL),
            Some(ipv6_checksum) => Carrier::Udp(UdpEncapsulation {
                ports: Ports { source: 50_123, destination: 4500 },
                ipv6_checksum,
            }),
        };
        Parameters {
            session_id: 0xa5c3,
            numbering: self.numbering,
            format: self.format,
            icv_length: self.icv_length,
            ..Parameters::new(0x0102_0304, [9, 8, 7, 6], carrier)
        }
    }

    fn eesp(&self) -> Eesp {
        Eesp {
            key: (0..32).collect(),
            salt: [9, 8, 7, 6],
            spi: 0x0102_0304,
            session_id: 0xa5c3,
            has_sequence: self.numbering != Numbering::IvAlone,
            has_iv: self.numbering != Numbering::SequenceIsIv,
            is_full: self.format != Format::Optimized,
            crypt_offset: match self.format {
                Format::FullWithCryptOffset { sent, .. } => Some(sent),
                Format::Optimized | Format::Full => None,
            },
            boundary: if self.inner == 6 || self.outer == 6 { 8 } else { 4 },
            icv_octets: self.icv_length.octets(),
        }
    }

    /// The outer IP header, as RFC 4301's defaults make it.
    fn outer_ip(&self, inner: &Ip) -> Ip {
        let ends: [Vec<u8>; 2] = if self.outer == 4 {
            [vec![192, 0, 2, 1], vec![192, 0, 2, 2]]
        } else {
            [vec![0x20; 16], vec![0x21; 16]]
        };
        let [source, destination] = ends;
        let dont_fragment = inner.dont_fragment || self.inner == 6;
        let identification = if dont_fragment { 0 } else { 0x77 };
        Ip {
            source,
            destination,
            dont_fragment,
            hop_limit: 64,
            flow_label: 0,
            identification,
            ..inner.clone()
        }
    }

    /// The IP packet around an EESP packet.
    fn carried(&self, ip: &Ip, eesp: &[u8]) -> Vec<u8> {
        match self.udp {
            None => ip.packet(PROTOCOL, eesp),
            Some(Ipv6UdpChecksum::Computed) if !ip.is_v4() => {
                ip.packet(17, &reference::udp_with_checksum(ip, 50_123, 4500, eesp))
            }
            Some(_) => ip.packet(17, &reference::udp(50_123, 4500, eesp)),
        }
    }
}

fn send(frame: &[u8], case: &Case, outer: &Ip, number: u64) -> Result<Vec<u8>, Refused> {
    let parameters = case.parameters();
    let mut storage = storage(frame, TAILROOM);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let plain = parse_transmit(room.frame()).unwrap();
    let geometry = if case.is_tunnel {
        let outer = OuterTemplate::new(endpoints(outer));
        let per_packet = PerPacket::new(0x77);
        eesp_transform::encapsulate_tunnel(&mut room, &plain, &parameters, number, &outer, per_packet)?
    } else {
        eesp_transform::encapsulate_transport(&mut room, &plain, &parameters, number)?
    };
    geometry.seal(&Gcm::new(&case.eesp().key), room.frame_mut()).unwrap();
    eesp_transform::finish_outer_checksum(room.frame_mut(), &parameters).unwrap();
    Ok(room.frame().to_vec())
}

/// Parses, opens and decapsulates.
fn receive(
    frame: &[u8],
    case: &Case,
    parameters: &Parameters,
) -> Result<Result<(Decapsulated, Vec<u8>), Rejected>, Malformed> {
    let mut storage = storage(frame, 0);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let parsed = parse_receive(room.frame(), EXPECTED)?;
    let located = Located::of(&parsed).expect("an EESP packet");
    let received = eesp::receive_geometry(&parsed, &located, room.frame(), parameters)?;
    let number = (case.numbering != Numbering::IvAlone).then_some(case.number);
    assert_eq!(received.sequence, number);
    received.geometry.open(&Gcm::new(&case.eesp().key), room.frame_mut()).unwrap();
    let opened = if case.is_tunnel {
        eesp_transform::decapsulate_tunnel(&mut room, &parsed, &located, parameters)
    } else {
        eesp_transform::decapsulate_transport(&mut room, &parsed, &located, parameters)
    };
    Ok(opened.map(|opened| (opened, room.frame().to_vec())))
}

#[test]
fn every_form_is_what_the_second_implementation_makes() {
    let cases = cases();
    assert!(cases.len() > 2500, "{}", cases.len());
    for case in &cases {
        let inner = inner_ip(case.inner);
        let payload: Vec<u8> = (0..case.size).map(|index| (index * 13) as u8).collect();
        let packet = inner.packet(132, &payload);
        let clear = reference::frame(TAGS, &packet);
        let outer = case.outer_ip(&inner);
        let tunnelled = if case.inner == 4 { 4 } else { 41 };
        let expected = if case.is_tunnel {
            case.carried(&outer, &case.eesp().packet(case.number, &packet, tunnelled))
        } else {
            case.carried(&inner, &case.eesp().packet(case.number, &payload, 132))
        };
        let expected = reference::frame(TAGS, &expected);
        let sent = send(&clear, case, &outer, case.number).unwrap();
        assert!(sent == expected, "{case:?}: {} for {}", hex::encode(&sent), hex::encode(&expected));

        let (opened, frame) = receive(&expected, case, &case.parameters()).unwrap().unwrap();
        let next_header = if case.is_tunnel { tunnelled } else { 132 };
        assert_eq!(opened, Decapsulated::Packet { next_header }, "{case:?}");
        assert!(frame == clear, "{case:?}");
    }
}

/// Offsets from the header's first octet, and octets added without an outer IP header: the draft's figures 5, 6 and 19
/// counted out.
#[test]
fn offsets_are_those_of_the_examples() {
    let crypt = Format::FullWithCryptOffset { sent: 8, maximum: 8 };
    let rows = [
        // numbering, format, option octets, crypt offset; sequence, IV, payload header, inner, text, overhead
        (Numbering::SequenceAndIv, Format::Optimized, 0, 0, (Some(8), Some(16), 24, 24, 24, 40)),
        (Numbering::SequenceIsIv, Format::Optimized, 0, 0, (Some(8), None, 16, 16, 16, 32)),
        (Numbering::SequenceAndIv, crypt, 4, 8, (Some(12), Some(20), 28, 32, 60, 48)),
    ];
    for (numbering, format, option_length, crypt_offset, expected) in rows {
        let layout = Layout::new(option_length, numbering, format, crypt_offset);
        let Layout { sequence, iv, payload_header, payload, text } = layout;
        assert_eq!((sequence, iv, payload_header, payload, text, payload + 16), expected);
    }
    // Figure 19's option, with the length of two that its text has.
    assert_eq!(CryptOffset { payload_offset: 7, crypt_offset: 8 }.option(), [2, 2, 0b0001_1100, 0b1000_0000]);
    // The longest AAD that can be: both offsets at their most.
    let longest = CryptOffset::from_data([0xff, 0xff]);
    assert_eq!((longest.payload_offset, longest.crypt_offset), (63, 63));
}

/// Where each part of a packet stands in its frame, after Ethernet and IPv4 or IPv6, or UDP besides.
#[test]
fn parts_stand_in_the_frame_where_the_table_has_them() {
    let base = Case {
        is_tunnel: true,
        inner: 4,
        outer: 4,
        udp: None,
        numbering: Numbering::SequenceAndIv,
        format: Format::Optimized,
        icv_length: IcvLength::Octets16,
        number: 7,
        size: 40,
    };
    let zero = Some(Ipv6UdpChecksum::Zero);
    for (case, header_at, text_at) in [
        (base.clone(), 34, 58),
        (Case { outer: 6, ..base.clone() }, 54, 78),
        (Case { udp: zero, ..base.clone() }, 42, 66),
        (Case { is_tunnel: false, format: Format::Full, ..base.clone() }, 34, 58),
        (Case { is_tunnel: false, inner: 6, outer: 6, format: Format::Full, ..base.clone() }, 54, 82),
        (Case { format: Format::FullWithCryptOffset { sent: 8, maximum: 8 }, ..base }, 34, 94),
    ] {
        let inner = inner_ip(case.inner);
        let clear = reference::frame(&[], &inner.packet(132, &[1; 40]));
        let frame = send(&clear, &case, &case.outer_ip(&inner), 7).unwrap();
        let parsed = parse_receive(&frame, EXPECTED).unwrap();
        let located = Located::of(&parsed).unwrap();
        assert_eq!(located.offset, header_at);
        let geometry =
            eesp::receive_geometry(&parsed, &located, &frame, &case.parameters()).unwrap().geometry;
        assert_eq!(geometry.aad, Aad::InPlace { start: header_at, end: text_at }, "{case:?}");
        assert_eq!(geometry.text, Span::new(text_at, frame.len() - 16));
        assert_eq!(geometry.icv, Span::new(frame.len() - 16, frame.len()));
    }
}

fn simple(format: Format) -> Case {
    Case {
        is_tunnel: format == Format::Optimized,
        inner: 4,
        outer: 4,
        udp: None,
        numbering: Numbering::SequenceAndIv,
        format,
        icv_length: IcvLength::Octets16,
        number: 7,
        size: 40,
    }
}

/// A frame of the second implementation's, with these options and this padding.
fn made(
    case: &Case,
    options: &[u8],
    crypt_offset: u8,
    payload: &[u8],
    next_header: u8,
    pad: usize,
) -> Vec<u8> {
    let eesp = case.eesp();
    let clear = eesp.clear(case.number, options, payload, next_header, pad);
    reference::frame(&[], &inner_ip(4).packet(PROTOCOL, &eesp.sealed(case.number, clear, crypt_offset)))
}

#[test]
fn other_options_are_skipped_and_any_padding_is_taken() {
    let case = simple(Format::FullWithCryptOffset { sent: 0, maximum: 5 });
    for pad in [0, 1, 3, 255] {
        // A private option, one unassigned, Pad1, the crypt offset (payload info header at 8 + 16 + 16 = 40), Pad1, PadN.
        let options = [224, 2, 9, 9, 3, 0, 0, 2, 2, 10 << 2, 5 << 4 | 0xf, 0, 1, 2, 0, 0];
        let frame = made(&case, &options, 5, &[0x5a; 40], 132, pad);
        let opened = receive(&frame, &case, &case.parameters()).unwrap().unwrap();
        assert_eq!(opened.1, reference::frame(&[], &inner_ip(4).packet(132, &[0x5a; 40])), "{pad}");
    }
}

#[test]
fn a_crypt_offset_beyond_what_was_agreed_is_opened_and_dropped() {
    let option = |crypt_offset: u8| CryptOffset { payload_offset: 7, crypt_offset }.option();
    let case = simple(Format::FullWithCryptOffset { sent: 0, maximum: 5 });
    let bad = Ok(Err(Rejected::Payload(eesp::BadPayload::CryptOffset)));
    let run = |crypt_offset, payload: &[u8], pad| {
        let frame = made(&case, &option(crypt_offset), crypt_offset, payload, 132, pad);
        receive(&frame, &case, &case.parameters())
    };
    assert!(matches!(run(5, &[1; 16], 0), Ok(Ok(_))));
    assert_eq!(run(6, &[1; 40], 0), bad);
    // Sixteen octets are five units with the payload info header; fifteen and one of padding are not.
    assert_eq!(run(5, &[1; 15], 1), bad);
}

#[test]
fn a_dummy_packet_and_a_broken_inside_are_told() {
    use eesp::BadPayload;
    let full = simple(Format::Full);
    let run = |next_header, pad: usize| {
        receive(&made(&full, &[], 0, &[0; 8], next_header, pad), &full, &full.parameters())
    };
    assert!(matches!(run(59, 0), Ok(Ok((Decapsulated::Dummy, _)))));
    let sealed = |mut clear: Vec<u8>, at: usize, octet: u8, case: &Case| {
        clear[at] = octet;
        let packet = case.eesp().sealed(case.number, clear, 0);
        let frame = reference::frame(&[], &inner_ip(4).packet(PROTOCOL, &packet));
        receive(&frame, case, &case.parameters()).unwrap().map(|_| ())
    };
    let clear = full.eesp().clear(full.number, &[], &[0; 8], 132, 0);
    assert_eq!(sealed(clear.clone(), 24, 0x40, &full), Err(Rejected::Payload(BadPayload::PayloadInfo)));
    assert_eq!(sealed(clear.clone(), 24, 0x0f, &full), Ok(()));
    assert_eq!(sealed(clear.clone(), 27, 9, &full), Err(Rejected::Payload(BadPayload::PadLength)));
    assert_eq!(sealed(clear, 27, 8, &full), Ok(()));
    let optimized = simple(Format::Optimized);
    let clear = optimized.eesp().clear(optimized.number, &[], &inner_ip(4).packet(132, &[]), 0, 0);
    assert_eq!(sealed(clear, 24, 0x05, &optimized), Err(Rejected::Payload(BadPayload::NotIp)));
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let inner = inner_ip(4);
    let clear = reference::frame(&[], &inner.packet(132, &[1; 40]));
    let run = |case: &Case, number| send(&clear, case, &case.outer_ip(&inner), number).map(|_| ());
    let crypt = |sent, maximum| simple(Format::FullWithCryptOffset { sent, maximum });
    assert_eq!(run(&simple(Format::Optimized), 0), Err(Refused::SequenceExhausted));
    assert_eq!(
        run(&Case { is_tunnel: false, ..simple(Format::Optimized) }, 1),
        Err(Refused::AmbiguousNextHeader)
    );
    let implicit = Case { numbering: Numbering::SequenceIsIv, ..simple(Format::Full) };
    assert_eq!(run(&Case { icv_length: IcvLength::Octets12, ..implicit }, 1), Err(Refused::IcvLength));
    assert_eq!(run(&crypt(6, 5), 1), Err(Refused::CryptOffsetPastEnd));
    // Eleven units are payload info header and the whole inner packet.
    assert_eq!(run(&crypt(11, 63), 1), Ok(()));
    assert_eq!(run(&crypt(12, 63), 1), Err(Refused::CryptOffsetPastEnd));
    assert_eq!(run(&crypt(64, 255), 1), Err(Refused::CryptOffsetPastEnd));
}

/// A header, changed in one place, and what is said of it.
#[test]
fn every_malformation_has_its_own_name() {
    let case = simple(Format::FullWithCryptOffset { sent: 2, maximum: 5 });
    let good = case.eesp().packet(7, &[1; 40], 132);
    let located = |packet: &[u8]| {
        let frame = reference::frame(&[], &inner_ip(4).packet(PROTOCOL, packet));
        let parsed = parse_receive(&frame, EXPECTED)?;
        let located = Located::of(&parsed).expect("an EESP packet");
        let parameters = Parameters { last_sub_sa: Some(0xa5c3), ..case.parameters() };
        eesp::receive_geometry(&parsed, &located, &frame, &parameters).map(|_| located)
    };
    let header = Header { option_length: 4, session_id: 0xa5c3, spi: 0x0102_0304 };
    let crypt_offset = CryptOffset { payload_offset: 7, crypt_offset: 2 };
    assert_eq!(located(&good), Ok(Located { offset: 34, header, crypt_offset: Some(crypt_offset) }));
    let rows: [(usize, u8, Malformed); 14] = [
        (0, 0x00, Malformed::EespFixedBits),
        (0, 0x81, Malformed::EespFixedBits),
        (0, 0x84, Malformed::EespFixedBits),
        (0, 0x88, Malformed::EespBadVersion),
        (0, 0xff, Malformed::EespBadVersion),
        (1, 3, Malformed::OptionOverrun),
        (1, 255, Malformed::TruncatedEesp),
        (1, 9, Malformed::EespPayloadOffset),
        (3, 0xc4, Malformed::EespSessionId),
        (9, 3, Malformed::OptionOverrun),
        (9, 1, Malformed::EespBadCryptOffset),
        (10, 2 << 2, Malformed::EespBadCryptOffset),
        (10, 6 << 2, Malformed::EespPayloadOffset),
        (10, 63 << 2, Malformed::EespBadCryptOffset),
    ];
    for (at, octet, expected) in rows {
        let mut packet = good.clone();
        packet[at] = octet;
        assert_eq!(located(&packet), Err(expected), "octet {at} is {octet}");
    }
    let mut far = good.clone();
    far[11] = 15 << 4;
    assert_eq!(located(&far), Err(Malformed::CryptOffsetPastEnd));
    let mut zero = good.clone();
    zero[4..8].fill(0);
    assert_eq!(located(&zero), Err(Malformed::ReservedSpi));
    let twice = [[2, 2, 32, 0], [2, 2, 32, 0]].concat();
    assert_eq!(located(&case.eesp().clear(7, &twice, &[1; 40], 132, 0)), Err(Malformed::EespBadCryptOffset));
    assert_eq!(located(&case.eesp().clear(7, &[0; 12], &[1; 40], 132, 0)), Err(Malformed::TooManyOptions));
    let plain = simple(Format::Full);
    assert_eq!(
        receive(&made(&case, &crypt_offset.option(), 2, &[1; 40], 132, 0), &plain, &plain.parameters()),
        Err(Malformed::CryptOffsetNotAllowed)
    );
}

#[test]
fn eesp_is_found_only_where_it_is_expected() {
    let direct = made(&simple(Format::Full), &[], 0, &[1; 40], 132, 0);
    let case = Case { udp: Some(Ipv6UdpChecksum::Zero), ..simple(Format::Full) };
    let in_udp = case.carried(&inner_ip(4), &case.eesp().packet(7, &[1; 40], 132));
    let in_udp = reference::frame(&[], &in_udp);
    let esp = reference::frame(&[], &inner_ip(4).packet(17, &reference::udp(1, 4500, &[0x7f; 60])));
    let expected = |eesp_protocol, eesp_in_udp| Expected { eesp_protocol, eesp_in_udp, ..EXPECTED };
    let rows = [
        (&direct, expected(PROTOCOL, false), true),
        (&direct, expected(PROTOCOL - 1, true), false),
        (&direct, expected(0, true), false),
        (&in_udp, expected(0, true), true),
        (&in_udp, expected(PROTOCOL, false), false),
        (&esp, expected(PROTOCOL, true), false),
    ];
    for (index, (frame, expected, found)) in rows.into_iter().enumerate() {
        let parsed = parse_receive(frame, expected).unwrap();
        assert_eq!(Located::of(&parsed).is_some(), found, "row {index}");
    }
    let mut fragment = direct.clone();
    fragment[20] = 0x20;
    let sum = reference::internet_checksum(&[&fragment[14..24], &[0, 0], &fragment[26..34]].concat());
    fragment[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse_receive(&fragment, EXPECTED), Err(Malformed::Fragment));
}
