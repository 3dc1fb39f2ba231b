//! WESPv2 in every form against a second implementation, octet by octet; what changed packets and broken senders come to.

mod witness;

use cryptonic_wire::esp::{self, Cipher, Ipv6UdpChecksum, UdpEncapsulation};
use cryptonic_wire::outer::PerPacket;
use cryptonic_wire::packet::{Expected, Ports};
use cryptonic_wire::wespv2::{self, BadPayload, Located, PROTOCOL, Parameters};
use cryptonic_wire::wespv2_transform::{self, Rejected};
use cryptonic_wire::{
    AuthenticationFailed, Decapsulated, IcvLength, Malformed, OuterTemplate, Refused, Room, UdpPorts,
    parse_receive, parse_transmit, transform,
};
use proptest::collection::vec;
use proptest::prelude::*;
use witness::Gcm;
use witness::exchange::{HEADROOM, TAILROOM, endpoints, inner_ip, storage};
use witness::reference::{self, EspCipher, Ip};
use witness::wrapped::Wespv2;

const TAGS: &[(u16, u16)] = &[(0x88a8, 0x2007), (0x8100, 0x6005)];
const SIZES: [usize; 9] = [0, 1, 2, 3, 4, 13, 32, 1433, 8960];
const SEQUENCES: [u32; 3] = [1, 0x8000_0001, u32::MAX];
const MARKER: [u8; 4] = [0, 0, 0, 2];
const EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: 0,
    eesp_in_udp: false,
    wespv2_protocol: PROTOCOL,
};

/// One row of the table.
#[derive(Clone, Debug)]
struct Case {
    is_tunnel: bool,
    inner: u8,
    outer: u8,
    udp: Option<Ipv6UdpChecksum>,
    cipher: EspCipher,
    icv_octets: usize,
    crypt_offset: u8,
    sequence: u32,
    size: usize,
}

/// Every combination; sequence numbers go round.
fn cases() -> Vec<Case> {
    let ciphers = [
        (EspCipher::Gcm, 16),
        (EspCipher::Gcm, 12),
        (EspCipher::Gcm, 8),
        (EspCipher::ImplicitIv, 16),
        (EspCipher::Gmac, 16),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (is_tunnel, inner, outer) in
        [(true, 4, 4), (true, 4, 6), (true, 6, 4), (true, 6, 6), (false, 4, 4), (false, 6, 6)]
    {
        for udp in [None, Some(Ipv6UdpChecksum::Zero), Some(Ipv6UdpChecksum::Computed)] {
            for (cipher, icv_octets) in ciphers {
                for crypt_offset in [0, 1, 5, 63] {
                    for size in SIZES {
                        let sequence = SEQUENCES[cases.len() % SEQUENCES.len()];
                        let ip_octets = if inner == 4 { 20 } else { 40 };
                        let payload = size + if is_tunnel { ip_octets } else { 0 };
                        let clear_alone = cipher == EspCipher::Gmac && crypt_offset != 0;
                        if usize::from(crypt_offset) * 4 <= payload && !clear_alone {
                            let case = Case {
                                is_tunnel,
                                inner,
                                outer,
                                udp,
                                cipher,
                                icv_octets,
                                crypt_offset,
                                sequence,
                                size,
                            };
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
    fn esp(&self) -> esp::Parameters {
        esp::Parameters {
            cipher: match self.cipher {
                EspCipher::Gcm => Cipher::Gcm,
                EspCipher::ImplicitIv => Cipher::GcmImplicitIv,
                EspCipher::Gmac => Cipher::Gmac,
            },
            icv_length: IcvLength::from_octets(self.icv_octets).unwrap(),
            udp: self.udp.map(|ipv6_checksum| UdpEncapsulation {
                ports: Ports { source: 50_123, destination: 4500 },
                ipv6_checksum,
            }),
            ..esp::Parameters::new(0x0102_0304, [9, 8, 7, 6])
        }
    }

    fn parameters(&self) -> Parameters {
        let most = if self.cipher == EspCipher::Gmac { 0 } else { 63 };
        Parameters::new(self.esp(), self.crypt_offset, most).unwrap()
    }

    fn wespv2(&self) -> Wespv2 {
        Wespv2 {
            key: (0..32).collect(),
            salt: [9, 8, 7, 6],
            spi: 0x0102_0304,
            cipher: self.cipher,
            icv_octets: self.icv_octets,
            boundary: if self.outer == 6 && self.udp.is_none() { 8 } else { 4 },
            crypt_offset: self.crypt_offset,
        }
    }

    /// The outer IP header, as RFC 4301's defaults make it.
    fn outer_ip(&self, inner: &Ip) -> Ip {
        let [source, destination]: [Vec<u8>; 2] = if self.outer == 4 {
            [vec![192, 0, 2, 1], vec![192, 0, 2, 2]]
        } else {
            [vec![0x20; 16], vec![0x21; 16]]
        };
        let dont_fragment = inner.dont_fragment || self.inner == 6;
        Ip {
            source,
            destination,
            traffic_class: inner.traffic_class,
            hop_limit: 64,
            dont_fragment,
            identification: if dont_fragment { 0 } else { 0x77 },
            flow_label: 0,
            extra: Vec::new(),
            first_extension: None,
        }
    }

    /// The packet around a WESPv2 packet.
    fn carried(&self, ip: &Ip, wespv2: &[u8]) -> Vec<u8> {
        let marked = [&MARKER, wespv2].concat();
        match self.udp {
            None => ip.packet(141, wespv2),
            Some(Ipv6UdpChecksum::Computed) if !ip.is_v4() => {
                ip.packet(17, &reference::udp_with_checksum(ip, 50_123, 4500, &marked))
            }
            Some(_) => ip.packet(17, &reference::udp(50_123, 4500, &marked)),
        }
    }
}

fn send(frame: &[u8], case: &Case, outer: &Ip, parameters: &Parameters) -> Result<Vec<u8>, Refused> {
    let mut storage = storage(frame, TAILROOM + usize::from(parameters.esp().tfc_length));
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let plain = parse_transmit(room.frame()).unwrap();
    let sequence = u64::from(case.sequence);
    let geometry = if case.is_tunnel {
        let outer = OuterTemplate::new(endpoints(outer));
        let per_packet = PerPacket::new(0x77);
        wespv2_transform::encapsulate_tunnel(&mut room, &plain, parameters, sequence, &outer, per_packet)
    } else {
        wespv2_transform::encapsulate_transport(&mut room, &plain, parameters, sequence)
    };
    let geometry = geometry.inspect_err(|_| assert_eq!(room.frame(), frame))?;
    geometry.seal(&Gcm::new(&case.wespv2().key), room.frame_mut()).unwrap();
    wespv2_transform::finish_outer_checksum(room.frame_mut(), parameters).unwrap();
    Ok(room.frame().to_vec())
}

/// What became of a received frame.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Malformed(Malformed),
    NotFound,
    NotAuthentic,
    Rejected(Rejected),
    Opened(Decapsulated, Vec<u8>),
}

/// Parses, opens and decapsulates.
fn receive(frame: &[u8], case: &Case, parameters: &Parameters) -> End {
    let mut storage = storage(frame, 0);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let parsed = match parse_receive(room.frame(), EXPECTED) {
        Ok(parsed) => parsed,
        Err(malformed) => return End::Malformed(malformed),
    };
    let Some(located) = Located::of(&parsed, room.frame()) else { return End::NotFound };
    let geometry = match wespv2::receive_geometry(&parsed, &located, room.frame(), parameters) {
        Ok(geometry) => geometry,
        Err(malformed) => return End::Malformed(malformed),
    };
    if let Err(AuthenticationFailed) = geometry.open(&Gcm::new(&case.wespv2().key), room.frame_mut()) {
        return End::NotAuthentic;
    }
    let opened = if case.is_tunnel {
        wespv2_transform::decapsulate_tunnel(&mut room, &parsed, &located, parameters)
    } else {
        wespv2_transform::decapsulate_transport(&mut room, &parsed, &located, parameters)
    };
    match opened {
        Ok(decapsulated) => End::Opened(decapsulated, room.frame().to_vec()),
        Err(rejected) => End::Rejected(rejected),
    }
}

#[test]
fn every_form_is_what_the_second_implementation_makes() {
    let cases = cases();
    assert!(cases.len() > 1500, "{}", cases.len());
    for case in &cases {
        let inner = inner_ip(case.inner);
        let payload: Vec<u8> = (0..case.size).map(|index| (index * 13) as u8).collect();
        let packet = inner.packet(132, &payload);
        let clear = reference::frame(TAGS, &packet);
        let outer = case.outer_ip(&inner);
        let next_header = match (case.is_tunnel, case.inner) {
            (false, _) => 132,
            (true, 4) => 4,
            (true, _) => 41,
        };
        let (outside, inside) = if case.is_tunnel { (&outer, &packet) } else { (&inner, &payload) };
        let made = case.wespv2().packet(case.sequence, inside, next_header);
        let expected = reference::frame(TAGS, &case.carried(outside, &made));
        let parameters = case.parameters();
        let sent = send(&clear, case, &outer, &parameters).unwrap();
        assert!(sent == expected, "{case:?}: {} for {}", hex::encode(&sent), hex::encode(&expected));
        let received = receive(&expected, case, &parameters);
        assert!(received == End::Opened(Decapsulated::Packet { next_header }, clear), "{case:?}");
    }
}

fn simple(cipher: EspCipher, crypt_offset: u8) -> Case {
    Case {
        is_tunnel: false,
        inner: 4,
        outer: 4,
        udp: None,
        cipher,
        icv_octets: 16,
        crypt_offset,
        sequence: 7,
        size: 40,
    }
}

/// The draft's picture, typed octet by octet: IPv6, a crypt offset of two, an implicit IV.
#[test]
fn a_header_is_what_the_picture_has() {
    let case = Case { inner: 6, outer: 6, ..simple(EspCipher::ImplicitIv, 2) };
    let inner = inner_ip(6);
    let clear = reference::frame(&[], &inner.packet(6, &[0x5a; 40]));
    let sent = send(&clear, &case, &inner, &case.parameters()).unwrap();
    let header = [6, 16, 0b0000_1000, 0b0100_0100, 1, 2, 0, 0, 1, 2, 3, 4, 0, 0, 0, 7];
    assert_eq!((sent[20], &sent[54..70], &sent[70..78]), (141, &header[..], &[0x5a; 8][..]));
    assert_ne!(sent[78..86], [0x5a; 8]);
    assert_eq!(sent.len(), 54 + 16 + 40 + 4 + 16);
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let inner = inner_ip(4);
    let clear = reference::frame(&[], &inner.packet(132, &[1; 40]));
    let base = simple(EspCipher::Gcm, 0);
    let run = |case: &Case, esp: esp::Parameters, frame: &[u8]| {
        let parameters = Parameters::new(esp, case.crypt_offset, 63).unwrap();
        send(frame, case, &case.outer_ip(&inner), &parameters).map(|_| ())
    };
    let offset = |crypt_offset| simple(EspCipher::Gcm, crypt_offset);
    let of_protocol = |number| reference::frame(&[], &inner.packet(number, &[1; 40]));
    let fragment = {
        let mut packet = inner.packet(132, &[1; 40]);
        packet[6] = 0x20;
        reference::frame(&[], &packet)
    };
    let base_esp = base.esp();
    let tfc = esp::Parameters { tfc_length: 100, ..base_esp };
    type Row<'a> = (&'a str, Case, esp::Parameters, &'a [u8], Result<(), Refused>);
    let rows: [Row<'_>; 9] = [
        ("good", base.clone(), base_esp, &clear, Ok(())),
        ("ten units are all of it", offset(10), base_esp, &clear, Ok(())),
        ("eleven are more", offset(11), base_esp, &clear, Err(Refused::CryptOffsetPastEnd)),
        ("sequence", Case { sequence: 0, ..base.clone() }, base_esp, &clear, Err(Refused::SequenceExhausted)),
        ("59", base.clone(), base_esp, &of_protocol(59), Err(Refused::AmbiguousNextHeader)),
        ("fragment", base.clone(), base_esp, &fragment, Err(Refused::Fragment)),
        ("padding", base.clone(), tfc, &clear, Err(Refused::TfcPadding)),
        ("SPI", base.clone(), esp::Parameters { spi: 255, ..base_esp }, &clear, Err(Refused::ReservedSpi)),
        (
            "ICV",
            base.clone(),
            esp::Parameters { cipher: Cipher::GcmImplicitIv, icv_length: IcvLength::Octets8, ..base_esp },
            &clear,
            Err(Refused::IcvLength),
        ),
    ];
    for (name, case, esp, frame, expected) in rows {
        assert_eq!(run(&case, esp, frame), expected, "{name}");
    }
    let mut storage = storage(&clear, TAILROOM);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + clear.len()).unwrap();
    let plain = parse_transmit(room.frame()).unwrap();
    let refused = wespv2_transform::encapsulate_transport(&mut room, &plain, &base.parameters(), 1 << 32);
    assert_eq!(refused, Err(Refused::SequenceExhausted));
}

#[test]
fn tunnel_mode_pads_against_traffic_analysis() {
    let case = Case { is_tunnel: true, ..simple(EspCipher::Gcm, 1) };
    let inner = inner_ip(4);
    let packet = inner.packet(132, &[1; 40]);
    let clear = reference::frame(&[], &packet);
    let esp = esp::Parameters { tfc_length: 100, ..case.esp() };
    let parameters = Parameters::new(esp, 1, 1).unwrap();
    let outer = case.outer_ip(&inner);
    let sent = send(&clear, &case, &outer, &parameters).unwrap();
    let mut padded = packet;
    padded.resize(100, 0);
    let made = case.wespv2().packet(7, &padded, 4);
    assert_eq!(sent, reference::frame(&[], &case.carried(&outer, &made)));
    let opened = End::Opened(Decapsulated::Packet { next_header: 4 }, clear);
    assert_eq!(receive(&sent, &case, &parameters), opened);
}

/// A frame of the second implementation's whose header was changed before it was sealed.
fn made(case: &Case, payload: &[u8], next_header: u8, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let wespv2 = case.wespv2();
    let mut clear = wespv2.clear(case.sequence, &wespv2.options(), payload, next_header);
    change(&mut clear);
    let packet = wespv2.sealed(case.sequence, clear);
    reference::frame(&[], &inner_ip(4).packet(PROTOCOL, &packet))
}

#[test]
fn an_authentic_packet_that_breaks_its_promise_is_rejected() {
    let case = simple(EspCipher::Gcm, 3);
    let rejected = |payload| End::Rejected(Rejected::Payload(payload));
    let receive_up_to =
        |frame: &[u8], maximum| receive(frame, &case, &Parameters::new(case.esp(), 0, maximum).unwrap());
    let good = made(&case, &[1; 40], 132, |_| {});
    assert!(matches!(receive_up_to(&good, 3), End::Opened(..)));
    assert_eq!(receive_up_to(&good, 2), rejected(BadPayload::CryptOffset));
    let other = made(&case, &[1; 40], 132, |clear| clear[0] = 6);
    assert_eq!(receive_up_to(&other, 63), rejected(BadPayload::NextHeader));
    // Without a crypt offset the header promises nothing.
    let hidden = made(&simple(EspCipher::Gcm, 0), &[1; 40], 132, |_| {});
    assert!(matches!(receive_up_to(&hidden, 63), End::Opened(..)));
    // Three units are twelve octets: more than eleven of payload, though three of padding follow.
    let long = made(&case, &[1; 11], 132, |_| {});
    assert_eq!(receive_up_to(&long, 63), rejected(BadPayload::CryptOffset));
    assert!(matches!(receive_up_to(&made(&case, &[1; 12], 132, |_| {}), 63), End::Opened(..)));
    // A wrong trailer, and a dummy packet, which both headers name.
    let trailer = made(&case, &[1; 40], 132, |clear| {
        let at = clear.len() - 2;
        clear[at] = 200;
    });
    let bad_trailer = transform::Rejected::Trailer(esp::BadTrailer::PadLength);
    assert_eq!(receive_up_to(&trailer, 63), End::Rejected(Rejected::Transform(bad_trailer)));
    assert!(matches!(
        receive_up_to(&made(&case, &[1; 40], 59, |_| {}), 63),
        End::Opened(Decapsulated::Dummy, _)
    ));
    // The reserved bits are ignored, but authenticated.
    let reserved = made(&case, &[1; 40], 132, |clear| clear[2] |= 3);
    assert!(matches!(receive_up_to(&reserved, 63), End::Opened(..)));
}

#[test]
fn options_of_others_are_skipped() {
    let case = simple(EspCipher::Gcm, 2);
    let wespv2 = case.wespv2();
    // A private option, Pad1, PadN: twelve octets.
    let options = [27, 5, 1, 2, 3, 4, 5, 0, 1, 2, 0, 0];
    let packet = wespv2.sealed(7, wespv2.clear(7, &options, &[1; 40], 132));
    let frame = reference::frame(&[], &inner_ip(4).packet(PROTOCOL, &packet));
    let clear = reference::frame(&[], &inner_ip(4).packet(132, &[1; 40]));
    let opened = End::Opened(Decapsulated::Packet { next_header: 132 }, clear);
    assert_eq!(receive(&frame, &case, &case.parameters()), opened);
}

/// Gives an IPv4 frame without tags the length and checksum that its IP header should have.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.len() >= 34 {
        let length = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[24..26].fill(0);
        let sum = reference::internet_checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The forms that hostile packets are tried with, and a good frame of each.
fn forms() -> Vec<(Case, Vec<u8>)> {
    let rows = [
        (EspCipher::Gcm, 0),
        (EspCipher::Gcm, 4),
        (EspCipher::ImplicitIv, 0),
        (EspCipher::ImplicitIv, 4),
        (EspCipher::Gmac, 0),
    ];
    let form = |(cipher, crypt_offset)| {
        let case = simple(cipher, crypt_offset);
        let frame = made(&case, &[0x33; 29], 132, |_| {});
        (case, frame)
    };
    rows.map(form).to_vec()
}

fn opens(frame: &[u8], case: &Case) -> bool {
    matches!(receive(frame, case, &case.parameters()), End::Opened(..))
}

#[test]
fn no_octet_can_be_another_one_and_no_packet_can_end_elsewhere() {
    for (case, frame) in forms() {
        assert!(opens(&frame, &case));
        for at in 34..frame.len() {
            for change in 1..=255 {
                let mut changed = frame.clone();
                changed[at] ^= change;
                assert!(!opens(&changed, &case), "octet {at} of {case:?}");
            }
        }
        for length in 0..frame.len() {
            assert!(!opens(&mended(frame[..length].to_vec()), &case), "{length} octets of {case:?}");
        }
        for more in 1..20 {
            assert!(!opens(&mended([&frame[..], &vec![0; more]].concat()), &case));
        }
    }
}

/// The packet itself says its crypt offset, so that SAs that differ in it alone open the same.
#[test]
fn no_packet_opens_under_another_cipher() {
    for (sender, frame) in forms() {
        for (receiver, _) in forms() {
            // AES-GMAC is the same as AES-GCM where all is in clear, which it never is here.
            assert_eq!(opens(&frame, &receiver), sender.cipher == receiver.cipher, "{sender:?} {receiver:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutations_do_not_open(
        changes in vec((34usize..110, 1u8..=255), 1..6),
        cut in prop_oneof![3 => Just(0usize), 1 => 0usize..60],
        form in 0usize..5,
    ) {
        let (case, good) = forms().remove(form);
        let mut frame = good.clone();
        for (at, change) in changes {
            if let Some(octet) = frame.get_mut(at) {
                *octet ^= change;
            }
        }
        frame.truncate(good.len() - cut);
        let frame = mended(frame);
        if frame != good {
            prop_assert!(!opens(&frame, &case));
        }
    }
}
