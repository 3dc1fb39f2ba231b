//! Protect, then open: every octet up to the end of the IP packet comes back, and one flipped authenticated bit
//! does not pass.

mod frames;
mod witness;

use cryptonic_wire::esp::{Cipher, Ipv6UdpChecksum, LastOptions, UdpEncapsulation};
use cryptonic_wire::esp_transform as esp_frame;
use cryptonic_wire::outer::{Endpoints, PerPacket};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::psp::{self, Version};
use cryptonic_wire::{
    Aad, Decapsulated, Geometry, IcvLength, Malformed, OuterTemplate, Parsed, Plain, Protocol, Refused,
    Rejected, Room, UdpPorts, ecn, esp, ethernet, parse_receive, parse_transmit, psp_transform, sequence,
};
use frames::{Shape, shapes, simple, templates, vlan};
use proptest::prelude::*;
use witness::Gcm;

const PORT: u16 = psp::DEFAULT_UDP_PORT;
const UDP_PORTS: UdpPorts = UdpPorts { psp: PORT, esp: esp::DEFAULT_UDP_PORT };
const HEADROOM: usize = 64 + psp::MAX_HEADER_LENGTH;
const TAILROOM: usize = 24 + 600;
const SALT: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];
const PORTS: Ports = Ports { source: 50000, destination: PORT };

fn gcm() -> Gcm {
    Gcm::new(&[0x42; 16])
}

fn icv_lengths() -> impl Strategy<Value = IcvLength> {
    prop_oneof![Just(IcvLength::Octets8), Just(IcvLength::Octets12), Just(IcvLength::Octets16)]
}

fn ciphers() -> impl Strategy<Value = (Cipher, IcvLength)> {
    prop_oneof![
        icv_lengths().prop_map(|icv_length| (Cipher::Gcm, icv_length)),
        Just((Cipher::GcmImplicitIv, IcvLength::Octets16)),
        Just((Cipher::Gmac, IcvLength::Octets16)),
    ]
}

fn udp_encapsulations() -> impl Strategy<Value = Option<UdpEncapsulation>> {
    let checksum = prop_oneof![Just(Ipv6UdpChecksum::Zero), Just(Ipv6UdpChecksum::Computed)];
    let encapsulation = (any::<u16>(), checksum).prop_map(|(source, ipv6_checksum)| UdpEncapsulation {
        ports: Ports { source, destination: esp::DEFAULT_UDP_PORT },
        ipv6_checksum,
    });
    proptest::option::of(encapsulation)
}

fn esp_parameters() -> impl Strategy<Value = (esp::Parameters, u64)> {
    let last_options = prop_oneof![Just(LastOptions::Outside), Just(LastOptions::Inside)];
    (256u32.., any::<bool>(), ciphers(), udp_encapsulations(), last_options, 1u64..).prop_map(
        |(spi, extended_sequence, (cipher, icv_length), udp, last_options, sequence)| {
            let sequence = if extended_sequence { sequence } else { 1 + sequence % u64::from(u32::MAX) };
            let parameters = esp::Parameters {
                extended_sequence,
                cipher,
                icv_length,
                udp,
                last_options,
                ..esp::Parameters::new(spi, SALT)
            };
            (parameters, sequence)
        },
    )
}

/// What no extension is longer than, for headers of 2048 octets.
static EXTENSION: [u8; psp::MAX_HEADER_LENGTH] = {
    let mut octets = [0; psp::MAX_HEADER_LENGTH];
    let mut index = 0;
    while index < octets.len() {
        octets[index] = (index / 3) as u8;
        index += 1;
    }
    octets
};

fn extensions() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0usize), 4 => 1usize..20, 1 => 20usize..=253]
}

fn psp_parameters() -> impl Strategy<Value = psp::Parameters<'static>> {
    let cookies = proptest::option::of(any::<[u8; 8]>());
    let names = (1u32..=psp::SPI_COUNT_MASK, any::<bool>());
    (names, 0u8..4, 0u8..64, any::<[bool; 2]>(), cookies, extensions()).prop_map(
        |((spi, key), version, crypt_offset, [sample, drop], virtualization_cookie, units)| {
            let version = Version::from_code(version).unwrap();
            psp::Parameters {
                crypt_offset: if version.encrypts() { crypt_offset } else { 0 },
                sample,
                drop,
                virtualization_cookie,
                extension: &EXTENSION[..8 * units],
                ..psp::Parameters::new(spi | u32::from(key) << 31, version)
            }
        },
    )
}

/// A frame in a buffer, with room on both sides that holds what is not to show up.
fn storage(frame: &[u8]) -> Vec<u8> {
    let mut storage = vec![0xee; HEADROOM];
    storage.extend_from_slice(frame);
    storage.resize(storage.len() + TAILROOM, 0xdd);
    storage
}

/// Encapsulates and seals a frame, parses it as received, and gives it with the geometry both sides agree on.
fn protect(
    shape: &Shape,
    encapsulate: impl FnOnce(&mut Room<'_>, &Plain) -> Result<Geometry, Refused>,
) -> Result<(Vec<u8>, Geometry, Parsed), Refused> {
    let frame = shape.build();
    let mut storage = storage(&frame.octets);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.octets.len()).unwrap();
    let plain = parse_transmit(room.frame()).unwrap();
    let (start, end) = (room.start, room.end);
    let geometry = match encapsulate(&mut room, &plain) {
        Ok(geometry) => geometry,
        Err(refused) => {
            assert_eq!((room.start, room.end, room.frame()), (start, end, &frame.octets[..]));
            return Err(refused);
        }
    };
    geometry.seal(&gcm(), room.frame_mut()).unwrap();
    let parsed = parse_receive(room.frame(), UDP_PORTS).unwrap();
    assert_eq!(parsed.plain.l3_end, room.length());
    Ok((room.frame().to_vec(), geometry, parsed))
}

/// Opens and decapsulates, and compares with the frame that went in.
fn open(
    shape: &Shape,
    frame: &[u8],
    geometry: &Geometry,
    decapsulate: impl FnOnce(&mut Room<'_>) -> Result<Decapsulated, Rejected>,
) -> Result<(), TestCaseError> {
    let mut storage = storage(frame);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    geometry.open(&gcm(), room.frame_mut()).unwrap();
    let opened = decapsulate(&mut room);
    prop_assert!(matches!(opened, Ok(Decapsulated::Packet { .. })), "{opened:?}");
    let before = shape.build();
    prop_assert_eq!(room.frame(), &before.octets[..before.l3_end]);
    Ok(())
}

/// Flips one bit of what is authenticated; the ICV must not match, if the frame still parses at all.
fn flip(
    frame: &[u8],
    geometry: &Geometry,
    header_length: usize,
    bit: usize,
    receive: impl FnOnce(&Parsed, &[u8]) -> Result<Geometry, Malformed>,
) -> Result<(), TestCaseError> {
    let start = match geometry.aad {
        Aad::InPlace { start, .. } | Aad::InPlaceWithSequenceHigh { start, .. } => start,
        Aad::Inline { .. } => geometry.text.start - header_length,
    };
    let bit = start * 8 + bit % ((frame.len() - start) * 8);
    let mut flipped = frame.to_vec();
    flipped[bit / 8] ^= 0x80 >> (bit % 8);
    let Ok(parsed) = parse_receive(&flipped, UDP_PORTS) else { return Ok(()) };
    if matches!(parsed.protocol, Protocol::Other | Protocol::NatKeepalive) {
        return Ok(());
    }
    if let Ok(geometry) = receive(&parsed, &flipped) {
        prop_assert!(geometry.open(&gcm(), &mut flipped).is_err(), "bit {bit}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn esp_tunnel(
        shape in shapes(),
        (parameters, number) in esp_parameters(),
        outer in templates(),
        (identification, flow_hash) in any::<(u16, u32)>(),
        tfc_length in 0u16..600,
        bit in any::<usize>(),
    ) {
        let parameters = esp::Parameters { tfc_length, ..parameters };
        let per_packet = PerPacket { identification, flow_hash };
        let (frame, geometry, parsed) = protect(&shape, |room, plain| {
            esp_frame::encapsulate_tunnel(room, plain, &parameters, number, &outer, per_packet)
        }).unwrap();
        prop_assert_eq!((parsed.protocol, parsed.spi), (Protocol::Esp, parameters.spi));
        prop_assert_eq!(parsed.plain.vlan, shape.tags[0].map(|tag| tag.control));
        prop_assert_eq!(parsed.udp_offset.is_some(), parameters.udp.is_some());
        let receive = |parsed: &Parsed, frame: &[u8]| {
            let inferred = sequence::infer(number, parsed.sequence, 64).unwrap_or(u64::MAX);
            esp::receive_geometry(parsed, frame, &parameters, inferred)
        };
        prop_assert_eq!(receive(&parsed, &frame), Ok(geometry));
        open(&shape, &frame, &geometry, |room| {
            esp_frame::decapsulate_tunnel(room, &parsed, &parameters)
        })?;
        flip(&frame, &geometry, parameters.header_length(), bit, receive)?;
    }

    #[test]
    fn esp_transport(shape in shapes(), (parameters, number) in esp_parameters(), bit in any::<usize>()) {
        let (frame, geometry, parsed) = protect(&shape, |room, plain| {
            esp_frame::encapsulate_transport(room, plain, &parameters, number)
        }).unwrap();
        let receive = |parsed: &Parsed, frame: &[u8]| {
            let inferred = sequence::infer(number, parsed.sequence, 64).unwrap_or(u64::MAX);
            esp::receive_geometry(parsed, frame, &parameters, inferred)
        };
        prop_assert_eq!(receive(&parsed, &frame), Ok(geometry));
        open(&shape, &frame, &geometry, |room| {
            esp_frame::decapsulate_transport(room, &parsed, &parameters)
        })?;
        flip(&frame, &geometry, parameters.header_length(), bit, receive)?;
    }

    #[test]
    fn psp_both_modes(
        shape in shapes(),
        parameters in psp_parameters(),
        iv in any::<u64>(),
        tunnel in proptest::option::of((templates(), any::<u16>())),
        bit in any::<usize>(),
    ) {
        let covered = shape.payload.len() + parameters.header_length() - psp::HEADER_LENGTH;
        let protected = protect(&shape, |room, plain| match &tunnel {
            None => psp_transform::encapsulate_transport(room, plain, &parameters, iv, PORTS),
            Some((outer, identification)) => psp_transform::encapsulate_tunnel(
                room, plain, &parameters, iv, PORTS, outer, PerPacket::new(*identification),
            ),
        });
        let (frame, geometry, parsed) = match protected {
            Ok(protected) => protected,
            Err(refused) => {
                prop_assert_eq!(refused, Refused::CryptOffsetPastEnd);
                prop_assert!(covered < usize::from(parameters.crypt_offset) * 4);
                return Ok(());
            }
        };
        prop_assert_eq!((parsed.protocol, parsed.spi), (Protocol::Psp, parameters.spi));
        let header = psp::Header::parse(&frame[parsed.security_offset..]).unwrap();
        prop_assert_eq!((header.iv, header.version), (iv, parameters.version));
        prop_assert_eq!(psp::receive_geometry(&parsed, &frame), Ok(geometry));
        open(&shape, &frame, &geometry, |room| {
            let opened = psp::opened(&parsed, room.frame()).unwrap();
            assert_eq!(opened.header.virtualization_cookie, parameters.virtualization_cookie);
            assert_eq!(opened.extension, parameters.extension);
            psp_transform::decapsulate(room, &parsed)
        })?;
        flip(&frame, &geometry, 0, bit, psp::receive_geometry)?;
    }
}

const PARAMETERS: esp::Parameters = esp::Parameters::new(0x1001, SALT);
const V4: Endpoints = Endpoints::V4 { source: [192, 0, 2, 1], destination: [192, 0, 2, 2] };
const V6: Endpoints = Endpoints::V6 { source: [0x20; 16], destination: [0x21; 16] };

fn esp_tunnel_frame(shape: &Shape, endpoints: Endpoints) -> Result<(Vec<u8>, Geometry, Parsed), Refused> {
    let outer = OuterTemplate::new(endpoints);
    protect(shape, |room, plain| {
        esp_frame::encapsulate_tunnel(room, plain, &PARAMETERS, 1, &outer, PerPacket::new(7))
    })
}

#[test]
fn outer_header_has_the_defaults() {
    let mut shape = simple(4, 100);
    shape.traffic_class = 0b1011_1010;
    let (frame, _, _) = esp_tunnel_frame(&shape, V4).unwrap();
    assert_eq!(frame[14..24], [0x45, 0b1011_1010, 0, 20 + 120 + 36, 0, 0, 0x40, 0, 64, 50]);
    shape.dont_fragment = false;
    let (frame, _, _) = esp_tunnel_frame(&shape, V4).unwrap();
    assert_eq!(frame[18..22], [0, 7, 0, 0], "identification only without don't-fragment");
    shape.tags[0] = vlan(5);
    let (frame, _, _) = esp_tunnel_frame(&shape, V6).unwrap();
    assert_eq!(frame[12..18], [0x81, 0x00, 0x00, 0x05, 0x86, 0xdd]);
    assert_eq!(frame[18..22], [0x6b, 0xa0, 0, 0]);
}

#[test]
fn congestion_passes_the_tunnel() {
    for (version, endpoints) in [(4, V4), (4, V6), (6, V4), (6, V6)] {
        for inner in [ecn::NOT_ECT, ecn::ECT_0, ecn::ECT_1, ecn::CE] {
            let mut shape = simple(version, 40);
            shape.traffic_class = 0x28 | inner;
            let (mut frame, geometry, _) = esp_tunnel_frame(&shape, endpoints).unwrap();
            // A router marks the outer header.
            match endpoints {
                Endpoints::V4 { .. } => {
                    frame[15] |= ecn::CE;
                    frame[24..26].fill(0);
                    let sum = cryptonic_wire::checksum::checksum(&frame[14..34]);
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                }
                Endpoints::V6 { .. } => frame[15] |= ecn::CE << 4,
            }
            let parsed = parse_receive(&frame, UDP_PORTS).unwrap();
            geometry.open(&gcm(), &mut frame).unwrap();
            let end = frame.len();
            let mut room = Room::new(&mut frame, 0, end).unwrap();
            let opened = esp_frame::decapsulate_tunnel(&mut room, &parsed, &PARAMETERS);
            if inner == ecn::NOT_ECT {
                assert_eq!(opened, Err(Rejected::CongestionDrop));
                continue;
            }
            opened.unwrap();
            shape.traffic_class = 0x28 | ecn::CE;
            assert_eq!(room.frame(), shape.build().octets);
        }
    }
}

/// Builds an ESP tunnel packet around any text, as a peer might, already opened.
fn opened_tunnel(text: &[u8]) -> (Vec<u8>, Parsed) {
    let mut shape = simple(4, 0);
    shape.protocol = 50;
    shape.payload = [&[0, 0, 0x10, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], text, &[0; 16]].concat();
    let frame = shape.build().octets;
    let parsed = parse_receive(&frame, UDP_PORTS).unwrap();
    (frame, parsed)
}

fn leave(text: &[u8]) -> (Result<Decapsulated, Rejected>, Vec<u8>) {
    let (mut frame, parsed) = opened_tunnel(text);
    let before = frame.clone();
    let end = frame.len();
    let mut room = Room::new(&mut frame, 0, end).unwrap();
    let opened = esp_frame::decapsulate_tunnel(&mut room, &parsed, &PARAMETERS);
    if opened.is_err() || opened == Ok(Decapsulated::Dummy) {
        assert_eq!(room.frame(), before);
    }
    (opened, room.frame().to_vec())
}

#[test]
fn tunnel_exit_judges_the_trailer_and_the_inner_packet() {
    let inner = simple(4, 8).build().octets[14..].to_vec();
    let text = |inner: &[u8], trailer: &[u8]| [inner, trailer].concat();
    assert_eq!(leave(&text(&inner, &[1, 2, 2, 59])).0, Ok(Decapsulated::Dummy));
    assert_eq!(leave(&text(&inner, &[1, 3, 2, 4])).0, Err(Rejected::Trailer(esp::BadTrailer::PadPattern)));
    assert_eq!(leave(&text(&inner, &[1, 2, 31, 4])).0, Err(Rejected::Trailer(esp::BadTrailer::PadLength)));
    assert_eq!(leave(&text(&inner, &[0, 17])).0, Err(Rejected::NextHeader(17)));
    let ipv4 = |malformed| Err(Rejected::InnerPacket(malformed));
    assert_eq!(leave(&text(&inner[..19], &[1, 1, 4])).0, ipv4(Malformed::TruncatedIpv4));
    assert_eq!(leave(&text(&inner[..27], &[1, 1, 4])).0, ipv4(Malformed::TruncatedIpv4));
    assert_eq!(leave(&text(&[0x60; 44], &[0, 4])).0, ipv4(Malformed::BadIpVersion));
    assert_eq!(leave(&text(&[0x45; 44], &[0, 41])).0, ipv4(Malformed::BadIpVersion));
    // Padding for traffic-flow confidentiality lies between the inner packet and the trailer.
    let (opened, frame) = leave(&text(&[&inner[..], &[0xaa; 50]].concat(), &[0, 4]));
    assert_eq!(opened, Ok(Decapsulated::Packet { next_header: 4 }));
    assert_eq!(frame, simple(4, 8).build().octets);
}

#[test]
fn refusals_leave_the_frame() {
    let refused = |shape: &Shape, parameters: esp::Parameters, number: u64| {
        protect(shape, |room, plain| esp_frame::encapsulate_transport(room, plain, &parameters, number))
            .map(|_| ())
    };
    let shape = simple(4, 40);
    assert_eq!(refused(&shape, PARAMETERS, u64::from(u32::MAX)), Ok(()));
    assert_eq!(refused(&shape, PARAMETERS, 0), Err(Refused::SequenceExhausted));
    assert_eq!(refused(&shape, PARAMETERS, 1 << 32), Err(Refused::SequenceExhausted));
    assert_eq!(refused(&shape, esp::Parameters { spi: 255, ..PARAMETERS }, 1), Err(Refused::ReservedSpi));
    let dummy = Shape { protocol: 59, ..simple(6, 0) };
    assert_eq!(refused(&dummy, PARAMETERS, 1), Err(Refused::AmbiguousNextHeader));

    let psp_parameters = psp::Parameters::new(1, Version::AesGcm128);
    let refused = |shape: &Shape, parameters: psp::Parameters<'_>| {
        protect(shape, |room, plain| psp_transform::encapsulate_transport(room, plain, &parameters, 1, PORTS))
            .map(|_| ())
    };
    let with = |change: fn(&mut psp::Parameters<'_>)| {
        let mut parameters = psp_parameters;
        change(&mut parameters);
        parameters
    };
    assert_eq!(refused(&shape, psp_parameters), Ok(()));
    assert_eq!(refused(&shape, with(|it| it.spi = 1 << 31)), Err(Refused::ReservedSpi));
    assert_eq!(refused(&shape, with(|it| it.crypt_offset = 10)), Ok(()));
    assert_eq!(refused(&shape, with(|it| it.crypt_offset = 11)), Err(Refused::CryptOffsetPastEnd));
    assert_eq!(refused(&shape, with(|it| it.crypt_offset = 64)), Err(Refused::CryptOffsetPastEnd));
    let gmac = with(|it| {
        it.version = Version::AesGmac256;
        it.crypt_offset = 1;
    });
    assert_eq!(refused(&shape, gmac), Err(Refused::CryptOffsetWithoutEncryption));
    let nested = Shape { protocol: 41, ..simple(4, 40) };
    assert_eq!(refused(&nested, psp_parameters), Err(Refused::AmbiguousNextHeader));
}

#[test]
fn fragments_pass_tunnels_and_not_transport() {
    let mut octets = simple(4, 40).build().octets;
    octets[20] = 0x20;
    let plain = parse_transmit(&octets).unwrap();
    assert!(plain.fragment);
    let mut storage = storage(&octets);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + octets.len()).unwrap();
    let refused = esp_frame::encapsulate_transport(&mut room, &plain, &PARAMETERS, 1);
    assert_eq!(refused, Err(Refused::Fragment));
    let outer = OuterTemplate::new(V4);
    esp_frame::encapsulate_tunnel(&mut room, &plain, &PARAMETERS, 1, &outer, PerPacket::default()).unwrap();
}

#[test]
fn lengths_do_not_wrap() {
    // The largest payloads whose encapsulation still fits 16 bits, and one octet more.
    let lengths = |shape: fn(usize) -> Shape, run: &dyn Fn(&Shape) -> Result<(), Refused>, largest: usize| {
        assert_eq!(run(&shape(largest)), Ok(()), "{largest}");
        assert_eq!(run(&shape(largest + 1)), Err(Refused::TooLong), "{largest}");
    };
    let transport = |shape: &Shape| {
        protect(shape, |room, plain| esp_frame::encapsulate_transport(room, plain, &PARAMETERS, 1))
            .map(|_| ())
    };
    // ESP ends on a 4-octet boundary: at most 65532 octets of payload and 20 of header for IPv4.
    lengths(|length| simple(4, length), &transport, 65512 - 34);
    lengths(|length| simple(6, length), &transport, 65532 - 34);
    let tunnel = |shape: &Shape| esp_tunnel_frame(shape, V4).map(|_| ());
    lengths(|length| simple(4, length), &tunnel, 65512 - 34 - 20);
    lengths(|length| simple(6, length), &tunnel, 65512 - 34 - 40);
    let tunnel = |shape: &Shape| esp_tunnel_frame(shape, V6).map(|_| ());
    lengths(|length| simple(4, length), &tunnel, 65532 - 34 - 20);
    lengths(|length| simple(6, length), &tunnel, 65532 - 34 - 40);
}

#[test]
fn no_room_is_an_error() {
    let octets = simple(4, 41).build().octets;
    let plain = parse_transmit(&octets).unwrap();
    let (front, back) = (36, PARAMETERS.overhead(plain.l3_end - 14) - 16);
    for (headroom, tailroom, fits) in
        [(front, back, true), (front - 1, back, false), (front, back - 1, false)]
    {
        let mut storage = vec![0; headroom];
        storage.extend_from_slice(&octets);
        storage.resize(storage.len() + tailroom, 0);
        let mut room = Room::new(&mut storage, headroom, headroom + octets.len()).unwrap();
        let outer = OuterTemplate::new(V4);
        let result =
            esp_frame::encapsulate_tunnel(&mut room, &plain, &PARAMETERS, 1, &outer, PerPacket::default());
        assert_eq!(result.map(|_| ()), if fits { Ok(()) } else { Err(Refused::NoRoom) });
    }
    let not_ip = [0u8; 60];
    let plain = parse_transmit(&not_ip).unwrap();
    let mut storage = storage(&not_ip);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + 60).unwrap();
    let refused = esp_frame::encapsulate_transport(&mut room, &plain, &PARAMETERS, 1);
    assert_eq!(refused, Err(Refused::NotIp));
    assert_eq!(ethernet::HEADER_LENGTH, plain.l3_offset);
}
