//! `rx_geometry` gives what `cryptonic_wire`'s functions give, which read the frame where the unit reads what the parser
//! has kept of it; and its two faces, closed form and clocked shell, agree in every cycle.

use std::collections::BTreeMap;

use cryptonic_hwmodel::rx_geometry::{
    Answer, EespFormat, Ranges, Request, RxGeometryShell, RxGeometryTiming, Sa, Window, answer,
};
use cryptonic_hwmodel::rx_parse::verdict;
use cryptonic_regs::Status;
use cryptonic_wire::eesp::{self, Carrier, Format, Numbering};
use cryptonic_wire::esp::{self, Cipher};
use cryptonic_wire::packet::Expected;
use cryptonic_wire::{Geometry, IcvLength, Parsed, Protocol, UdpPorts, parse_receive, psp, sequence, wespv2};
use proptest::collection::vec;
use proptest::prelude::*;

const EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: 254,
    eesp_in_udp: true,
    wespv2_protocol: 141,
};
const SPI: [u8; 4] = [0x81, 2, 3, 4];
const SALT: [u8; 4] = [9, 8, 7, 6];

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Ethernet and an IPv6 header, which has no checksum, in front of an upper protocol; behind it what the link pads with.
fn framed(protocol: u8, upper: &[u8], padding: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((upper.len() as u16).to_be_bytes());
    frame.extend([protocol, 64]);
    frame.extend([7; 32]);
    frame.extend(upper);
    frame.extend(padding);
    frame
}

fn in_udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() + 8) as u16;
    [&[0x12, 0x34], &port.to_be_bytes()[..], &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn cipher(random: &mut Random) -> (Cipher, IcvLength) {
    let cipher = random.of(&[Cipher::Gcm, Cipher::GcmImplicitIv, Cipher::Gmac]);
    (cipher, random.of(&[IcvLength::Octets8, IcvLength::Octets12, IcvLength::Octets16]))
}

fn window(random: &mut Random) -> Window {
    let (any, any_size) = (random.next(), random.next() as u32);
    let low = random.of(&[0, 1, 31, 0x8000_0000, 0xffff_fff0, any & 0xffff_ffff]);
    let high = random.of(&[0, 0, 1, 0xffff_ffff, any >> 32]);
    let size = random.of(&[0, 32, 64, 1024, 65536, 1 << 31, u32::MAX, any_size]);
    Window { top: high << 32 | low, size }
}

/// The low half of a sequence number, often one that is 0 or close to the window's top.
fn low(random: &mut Random, window: Window) -> u32 {
    let near = (window.top as u32).wrapping_add(random.below(200) as u32).wrapping_sub(100);
    let any = random.next() as u32;
    random.of(&[0, 1, near, near, near, any])
}

/// A frame of ESP, an SA for it, and what wire's functions say.
fn esp_case(random: &mut Random) -> (Vec<u8>, Sa, impl Fn(&Parsed, &[u8]) -> Expectation + use<>) {
    let (cipher, icv_length) = cipher(random);
    let window = window(random);
    let extended_sequence = random.one_in(2);
    let parameters =
        esp::Parameters { cipher, icv_length, extended_sequence, ..esp::Parameters::new(7, SALT) };
    let count = random.below(60);
    let packet = [&SPI[..], &low(random, window).to_be_bytes(), &random.octets(count)].concat();
    let padding = random.octets(random.0 as usize % 30);
    let expectation = move |parsed: &Parsed, frame: &[u8]| {
        let sequence = if extended_sequence {
            let size = if window.size == 0 { 1 << 31 } else { window.size };
            sequence::infer(window.top, parsed.sequence, size).map_err(|_| Status::BadSequence)?
        } else if parsed.sequence == 0 {
            return Err(Status::BadSequence);
        } else {
            u64::from(parsed.sequence)
        };
        let geometry = esp::receive_geometry(parsed, frame, &parameters, sequence).map_err(verdict)?;
        Ok((sequence, geometry))
    };
    (framed(50, &packet, &padding), Sa::esp(&parameters, window), expectation)
}

/// The sequence number and the geometry.
type Expectation = Result<(u64, Geometry), Status>;

/// The same of WESPv2, whose header says now and then something else than the SA.
fn wespv2_case(random: &mut Random) -> (Vec<u8>, Sa, impl Fn(&Parsed, &[u8]) -> Expectation + use<>) {
    let (cipher, icv_length) = cipher(random);
    let esp = esp::Parameters { cipher, icv_length, ..esp::Parameters::new(7, SALT) };
    let most = if cipher == Cipher::Gmac { 0 } else { 63 };
    let parameters = wespv2::Parameters::new(esp, 0, most).expect("good parameters");
    let option_octets = random.of(&[4, 4, 12]);
    let iv_length = if random.one_in(5) { 8 - cipher.iv_length() } else { cipher.iv_length() };
    let header_length = (4 + option_octets + 8 + iv_length) as u8;
    let crypt_offset = random.of(&[0, 1, 3, 6, 63]);
    let next_header = if crypt_offset == 0 { 59 } else { 6 };
    let mut packet = vec![next_header, header_length, crypt_offset * 4, 64 + option_octets as u8];
    packet.extend([1, option_octets as u8 - 2]);
    packet.resize(4 + option_octets, 0);
    packet.extend(SPI);
    packet.extend(if random.one_in(8) { [0; 4] } else { [0, 0, 1, random.next() as u8] });
    packet.extend(random.octets(random.0 as usize % 70));
    let padding = random.octets(random.0 as usize % 30);
    let expectation = move |parsed: &Parsed, frame: &[u8]| {
        let located = wespv2::Located::of(parsed, frame).expect("WESPv2");
        if parsed.sequence == 0 {
            return Err(Status::BadSequence);
        }
        let geometry = wespv2::receive_geometry(parsed, &located, frame, &parameters).map_err(verdict)?;
        Ok((u64::from(parsed.sequence), geometry))
    };
    (framed(141, &packet, &padding), Sa::wespv2(&parameters), expectation)
}

/// The same of EESP.
fn eesp_case(random: &mut Random) -> (Vec<u8>, Sa, impl Fn(&Parsed, &[u8]) -> Expectation + use<>) {
    let numbering = random.of(&[Numbering::SequenceAndIv, Numbering::SequenceIsIv, Numbering::IvAlone]);
    let with_offset = Format::FullWithCryptOffset { sent: 0, maximum: 63 };
    let format = random.of(&[Format::Optimized, Format::Full, with_offset, with_offset]);
    let parameters = eesp::Parameters {
        numbering,
        format,
        icv_length: random.of(&[IcvLength::Octets8, IcvLength::Octets12, IcvLength::Octets16]),
        last_sub_sa: random.of(&[None, Some(7), Some(8), Some(u16::MAX)]),
        ..eesp::Parameters::new(7, SALT, Carrier::Ip(254))
    };
    let has_option = random.one_in(2);
    let option_octets: usize = random.of(&[4, 8, 20]);
    let numbers = if numbering == Numbering::SequenceAndIv { 16 } else { 8 };
    let payload_header = (8 + option_octets + numbers) / 4 + usize::from(random.one_in(6));
    let crypt_offset = random.of(&[0, 1, 4, 9, 63]);
    let option = eesp::CryptOffset { payload_offset: payload_header as u8, crypt_offset };
    let mut packet = vec![0x80, option_octets as u8, 0, 8];
    packet.extend(SPI);
    if has_option {
        packet.extend(option.option());
    }
    let options_left = 8 + option_octets - packet.len();
    if options_left >= 2 {
        packet.extend([1, options_left as u8 - 2]);
    }
    packet.resize(8 + option_octets, 0);
    packet.extend(if random.one_in(6) { vec![0; 8] } else { random.octets(8) });
    packet.extend(random.octets(random.0 as usize % 90));
    let padding = random.octets(random.0 as usize % 30);
    let expectation = move |parsed: &Parsed, frame: &[u8]| {
        let located = eesp::Located::of(parsed).expect("EESP");
        let received = eesp::receive_geometry(parsed, &located, frame, &parameters).map_err(verdict)?;
        match received.sequence {
            Some(0) => Err(Status::BadSequence),
            sequence => Ok((sequence.unwrap_or(0), received.geometry)),
        }
    };
    (framed(254, &packet, &padding), Sa::eesp(&parameters), expectation)
}

/// The same of PSP, which has no SA.
fn psp_case(random: &mut Random) -> (Vec<u8>, Sa, impl Fn(&Parsed, &[u8]) -> Expectation + use<>) {
    let version = random.of(&[0, 1, 2, 3]);
    let cookie = random.one_in(3);
    let extension_length = random.of(&[1, 2, 3]).max(1 + u8::from(cookie));
    let flags = 1 | u8::from(cookie) << 1 | version << 2 | (random.next() as u8 & 0xc0);
    let crypt_offset = random.of(&[0, 1, 3, 6]);
    let mut packet = vec![6, extension_length, crypt_offset, flags];
    packet.extend(SPI);
    packet.extend(random.octets(8));
    packet.extend(random.octets(40 + random.0 as usize % 60));
    let expectation = move |parsed: &Parsed, frame: &[u8]| {
        psp::receive_geometry(parsed, frame).map(|geometry| (0, geometry)).map_err(verdict)
    };
    (framed(17, &in_udp(1000, &packet), &[]), Sa::Psp, expectation)
}

/// Adds one to what is known of an answer.
fn count(counts: &mut BTreeMap<&'static str, u32>, found: &Answer) {
    let name = found.as_ref().map_or_else(|status| status.name(), |_| "ok");
    *counts.entry(name).or_default() += 1;
}

/// Asks of one frame, and compares with what is expected of it.
fn compare(
    frame: &[u8],
    sa: Sa,
    salt: [u8; 4],
    expectation: &impl Fn(&Parsed, &[u8]) -> Expectation,
    counts: &mut BTreeMap<&'static str, u32>,
) {
    let Ok(parsed) = parse_receive(frame, EXPECTED) else { return };
    let found = answer(&Request::of(&parsed, frame, sa));
    let expected = expectation(&parsed, frame);
    count(counts, &found);
    let found = found.map(|ranges| (ranges.sequence, ranges.iv, ranges.geometry(salt, parsed.spi)));
    let expected = expected.map(|(sequence, geometry)| {
        let iv = u64::from_be_bytes(geometry.nonce[4..].try_into().expect("eight octets"));
        (sequence, iv, geometry)
    });
    assert_eq!(found, expected, "{sa:?} {frame:02x?}");
}

#[test]
fn the_unit_finds_what_the_functions_find_that_read_the_frame() {
    let mut random = Random(1);
    let mut counts = [const { BTreeMap::new() }; 4];
    let [of_esp, of_wespv2, of_eesp, of_psp] = &mut counts;
    for _ in 0..40_000 {
        let (frame, sa, expectation) = esp_case(&mut random);
        compare(&frame, sa, SALT, &expectation, of_esp);
        let (frame, sa, expectation) = wespv2_case(&mut random);
        compare(&frame, sa, SALT, &expectation, of_wespv2);
        let (frame, sa, expectation) = eesp_case(&mut random);
        compare(&frame, sa, SALT, &expectation, of_eesp);
        let (frame, sa, expectation) = psp_case(&mut random);
        compare(&frame, sa, SPI, &expectation, of_psp);
    }
    let reached: [&[&str]; 4] = [
        &["ok", "bad_sequence", "truncated_esp"],
        &["ok", "bad_sequence", "truncated_esp", "wesp_header_length_mismatch", "crypt_offset_past_end"],
        &[
            "ok",
            "bad_sequence",
            "truncated_eesp",
            "eesp_session_id",
            "crypt_offset_not_allowed",
            "eesp_payload_offset",
            "crypt_offset_past_end",
        ],
        // The parser has judged all of PSP's lengths.
        &["ok"],
    ];
    for (counts, names) in counts.iter().zip(reached) {
        for name in names {
            assert!(counts.get(name).is_some_and(|count| *count > 500), "{name}: {counts:?}");
        }
        assert_eq!(counts.len(), names.len(), "{counts:?}");
    }
}

/// A request whose ranges are at the least that they can be, and what it becomes by one octet less or one more.
#[test]
fn every_verdict_is_for_the_first_thing_that_is_wrong() {
    let gcm = |extended_sequence| Sa::Esp {
        cipher: Cipher::Gcm,
        icv_length: IcvLength::Octets16,
        extended_sequence,
    };
    let base = Request {
        protocol: Protocol::Esp,
        security_offset: 34,
        numbers_offset: 38,
        header_octets: 8,
        crypt_offset: 0,
        payload_offset: None,
        session_id: 5,
        psp_flags: 1,
        l3_end: 68,
        numbers: [0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0],
        sa: gcm(None),
    };
    let wespv2 = Request {
        protocol: Protocol::Wespv2,
        numbers_offset: 42,
        header_octets: 20,
        l3_end: 80,
        crypt_offset: 2,
        sa: Sa::Wespv2 { cipher: Cipher::Gcm, icv_length: IcvLength::Octets16 },
        ..base
    };
    let format = EespFormat::FullWithCryptOffset;
    let (numbering, icv_length) = (Numbering::SequenceAndIv, IcvLength::Octets12);
    let of_eesp = |format, last_sub_sa| Sa::Eesp { numbering, format, icv_length, last_sub_sa };
    let eesp = Request {
        protocol: Protocol::Eesp,
        numbers_offset: 46,
        header_octets: 12,
        payload_offset: Some(7),
        crypt_offset: 3,
        l3_end: 86,
        sa: of_eesp(format, Some(5)),
        ..base
    };
    let psp = Request {
        protocol: Protocol::Psp,
        numbers_offset: 42,
        header_octets: 24,
        crypt_offset: 2,
        l3_end: 74,
        sa: Sa::Psp,
        ..base
    };
    let no_numbers = [0; 16];
    let off = Some(Window { top: 1 << 31, size: 0 });
    type Row<'a> = (&'a str, Request, Result<[u16; 4], Status>);
    let rows: [Row<'_>; 28] = [
        // AAD, text, ICV
        ("ESP", base, Ok([34, 42, 50, 52])),
        ("ESP, ESN", Request { sa: gcm(off), ..base }, Ok([34, 42, 50, 52])),
        ("ESP, short", Request { l3_end: 67, ..base }, Err(Status::TruncatedEsp)),
        ("ESP, no ICV", Request { l3_end: 15, ..base }, Err(Status::TruncatedEsp)),
        ("ESP, 0", Request { numbers: no_numbers, l3_end: 0, ..base }, Err(Status::BadSequence)),
        ("SA of ESP", Request { protocol: Protocol::Eesp, ..base }, Err(Status::NoSa)),
        ("no protocol", Request { protocol: Protocol::Other, ..base }, Err(Status::NoSa)),
        ("keepalive", Request { protocol: Protocol::NatKeepalive, ..base }, Err(Status::NoSa)),
        ("WESPv2", wespv2, Ok([34, 62, 62, 64])),
        ("WESPv2, 0", Request { numbers: no_numbers, ..wespv2 }, Err(Status::BadSequence)),
        ("WESPv2, longer", Request { header_octets: 24, ..wespv2 }, Err(Status::WespHeaderLengthMismatch)),
        ("WESPv2, short", Request { l3_end: 71, ..wespv2 }, Err(Status::TruncatedEsp)),
        ("WESPv2, all clear", Request { l3_end: 79, ..wespv2 }, Err(Status::CryptOffsetPastEnd)),
        ("EESP", eesp, Ok([34, 74, 74, 74])),
        ("EESP, sub SA", Request { session_id: 6, ..eesp }, Err(Status::EespSessionId)),
        (
            "EESP, option",
            Request { sa: of_eesp(EespFormat::Full, None), ..eesp },
            Err(Status::CryptOffsetNotAllowed),
        ),
        ("EESP, offset", Request { payload_offset: Some(8), ..eesp }, Err(Status::EespPayloadOffset)),
        ("EESP, short", Request { l3_end: 77, ..eesp }, Err(Status::TruncatedEesp)),
        ("EESP, all clear", Request { l3_end: 85, ..eesp }, Err(Status::CryptOffsetPastEnd)),
        ("EESP, no ICV", Request { l3_end: 11, ..eesp }, Err(Status::TruncatedEesp)),
        ("EESP, 0", Request { numbers: no_numbers, ..eesp }, Err(Status::BadSequence)),
        ("SA of EESP", Request { sa: Sa::Psp, ..eesp }, Err(Status::NoSa)),
        ("PSP", psp, Ok([34, 58, 58, 58])),
        ("PSP, GMAC", Request { psp_flags: 9, l3_end: 80, ..psp }, Ok([34, 64, 64, 64])),
        ("PSP, short", Request { l3_end: 65, ..psp }, Err(Status::TruncatedPsp)),
        ("PSP, header", Request { header_octets: 32, ..psp }, Err(Status::PspBadHeaderLength)),
        ("PSP, all clear", Request { crypt_offset: 3, ..psp }, Err(Status::PspCryptOffsetPastEnd)),
        ("PSP, no ICV", Request { l3_end: 3, ..psp }, Err(Status::TruncatedPsp)),
    ];
    for (name, request, expected) in rows {
        let found = answer(&request).map(|ranges| {
            let Ranges { aad_start, aad_end, text_start, icv_offset, .. } = ranges;
            [aad_start, aad_end, text_start, icv_offset]
        });
        assert_eq!(found, expected, "{name}");
    }
}

/// Requests that tell themselves apart by their answers.
fn request(number: u64) -> Request {
    Request {
        protocol: Protocol::Psp,
        security_offset: 42,
        numbers_offset: 50,
        header_octets: 16,
        crypt_offset: 0,
        payload_offset: None,
        session_id: 0,
        psp_flags: 1,
        // Every fourth is too short.
        l3_end: if number % 4 == 3 { 60 } else { 90 },
        numbers: (u128::from(number) << 64).to_be_bytes(),
        sa: Sa::Psp,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn shell_and_closed_form_agree(
        gaps in vec(0_u64..4, 1..80),
        results in 1_u64..12,
        stalls in vec(any::<bool>(), 1..64),
    ) {
        let consumer_ready = |cycle: u64| !stalls[cycle as usize % stalls.len()] || cycle % 64 == 63;
        let mut time = 0;
        let there: Vec<u64> = gaps.iter().map(|gap| { time += gap; time }).collect();

        // The clocked shell. A request is offered from when it is there on, until it is taken.
        let mut shell = RxGeometryShell::new(results);
        let (mut entered, mut shown, mut taken, mut answers) = (vec![], vec![], vec![], vec![]);
        let mut showing = false;
        for cycle in 0.. {
            prop_assert!(cycle < 100_000, "the shell hangs");
            let next = entered.len();
            let offered = there.get(next).filter(|there| **there <= cycle).map(|_| request(next as u64));
            let outputs = shell.step(offered.as_ref(), consumer_ready(cycle));
            prop_assert_eq!(outputs.drained, entered.len() == taken.len());
            if let Some(answer) = outputs.answer {
                if !showing {
                    shown.push(cycle);
                    answers.push(answer);
                }
                showing = !consumer_ready(cycle);
                if !showing {
                    taken.push(cycle);
                }
            }
            if offered.is_some() && outputs.ready {
                entered.push(cycle);
            }
            if taken.len() == there.len() {
                break;
            }
        }

        // The closed form, request by request.
        let mut timing = RxGeometryTiming::new(results);
        let mut last_taken = None;
        for (index, there) in there.iter().enumerate() {
            let passage = timing.pass(*there);
            let valid = last_taken.map_or(passage.answer, |taken: u64| passage.answer.max(taken + 1));
            let take = (valid..).find(|cycle| consumer_ready(*cycle)).unwrap_or(valid);
            timing.take(take);
            last_taken = Some(take);
            prop_assert_eq!(passage.entry, entered[index], "entry of request {}", index);
            prop_assert_eq!(valid, shown[index], "answer of request {}", index);
            prop_assert_eq!(take, taken[index], "taking of request {}", index);
            prop_assert_eq!(answers[index], answer(&request(index as u64)));
        }
    }
}
