//! Whatever octets an EESP packet has, everything answers, nothing panics, and what opens is what was sealed.

mod witness;

use cryptonic_wire::eesp::{self, Carrier, Format, Located, Numbering, Parameters};
use cryptonic_wire::eesp_transform;
use cryptonic_wire::packet::Expected;
use cryptonic_wire::{Room, UdpPorts, parse_receive};
use proptest::collection::vec;
use proptest::prelude::*;
use witness::Gcm;
use witness::exchange::{HEADROOM, inner_ip, storage};
use witness::reference;
use witness::wrapped::Eesp;

const PROTOCOL: u8 = 253;
const EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: PROTOCOL,
    eesp_in_udp: true,
    wespv2_protocol: 0,
};
const KEY: [u8; 32] = [0x42; 32];

/// The SAs that packets are tried with.
fn parameters() -> impl Iterator<Item = Parameters> {
    let crypt_offset = Format::FullWithCryptOffset { sent: 2, maximum: 9 };
    let numberings = [Numbering::SequenceAndIv, Numbering::SequenceIsIv, Numbering::IvAlone];
    [Format::Optimized, Format::Full, crypt_offset].into_iter().flat_map(move |format| {
        numberings.map(|numbering| Parameters {
            numbering,
            format,
            ..Parameters::new(0x0102_0304, [9, 8, 7, 6], Carrier::Ip(PROTOCOL))
        })
    })
}

fn eesp(parameters: &Parameters) -> Eesp {
    Eesp {
        key: KEY.to_vec(),
        salt: [9, 8, 7, 6],
        spi: 0x0102_0304,
        session_id: 5,
        has_sequence: parameters.numbering != Numbering::IvAlone,
        has_iv: parameters.numbering != Numbering::SequenceIsIv,
        is_full: parameters.format != Format::Optimized,
        crypt_offset: match parameters.format {
            Format::FullWithCryptOffset { sent, .. } => Some(sent),
            Format::Optimized | Format::Full => None,
        },
        boundary: 4,
        icv_octets: 16,
    }
}

/// A frame of the second implementation's, and what it carries.
fn sealed(parameters: &Parameters) -> (Vec<u8>, Vec<u8>) {
    let inner = inner_ip(4);
    let packet = inner.packet(17, &reference::udp(1, 2, &[0x33; 21]));
    let eesp = eesp(parameters).packet(0x0102_0304_0506_0708, &packet, 4);
    (reference::frame(&[], &inner.packet(PROTOCOL, &eesp)), reference::frame(&[], &packet))
}

/// The frame that comes out, if one does. Geometry never leaves the IP packet.
fn open(frame: &[u8], parameters: &Parameters) -> Option<Vec<u8>> {
    let mut storage = storage(frame, 0);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let parsed = parse_receive(room.frame(), EXPECTED).ok()?;
    let located = Located::of(&parsed)?;
    let received = eesp::receive_geometry(&parsed, &located, room.frame(), parameters).ok()?;
    let geometry = received.geometry;
    assert!(geometry.text.start <= geometry.text.end && geometry.text.end == geometry.icv.start);
    assert_eq!((geometry.icv.end, geometry.icv.length()), (parsed.plain.l3_end, 16));
    // What is not authenticated must not matter to decapsulation's safety either.
    let mut copy = storage_of(&room);
    let mut unopened = Room { storage: &mut copy, start: room.start, end: room.end };
    let _ = eesp_transform::decapsulate_tunnel(&mut unopened, &parsed, &located, parameters);
    let mut copy = storage_of(&room);
    let mut unopened = Room { storage: &mut copy, start: room.start, end: room.end };
    let _ = eesp_transform::decapsulate_transport(&mut unopened, &parsed, &located, parameters);
    geometry.open(&Gcm::new(&KEY), room.frame_mut()).ok()?;
    eesp_transform::decapsulate_tunnel(&mut room, &parsed, &located, parameters).ok()?;
    Some(room.frame().to_vec())
}

fn storage_of(room: &Room<'_>) -> Vec<u8> {
    room.storage.to_vec()
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

#[test]
fn no_octet_can_be_another_one() {
    for parameters in parameters() {
        let (frame, clear) = sealed(&parameters);
        assert_eq!(open(&frame, &parameters), Some(clear), "{parameters:?}");
        for at in 34..frame.len() {
            // Every value for what is in clear; behind it the cipher is the same everywhere.
            let values = if at < 34 + 60 { 1..=255 } else { 1..=3 };
            for change in values {
                let mut changed = frame.clone();
                changed[at] ^= change;
                assert_eq!(open(&changed, &parameters), None, "octet {at} of {parameters:?}");
            }
        }
    }
}

#[test]
fn no_packet_can_end_elsewhere() {
    for parameters in parameters() {
        let (frame, _) = sealed(&parameters);
        for length in 0..frame.len() {
            assert_eq!(open(&frame[..length], &parameters), None);
            assert_eq!(open(&mended(frame[..length].to_vec()), &parameters), None);
        }
        for more in 1..20 {
            let longer = [&frame[..], &vec![0; more]].concat();
            assert_eq!(open(&mended(longer), &parameters), None);
        }
    }
}

/// An implicit IV and a lone explicit one are the same octets with the same nonce; only the SA tells whether they are a
/// sequence number. And where a crypt offset is allowed, packets without one are too.
#[test]
fn no_packet_opens_under_another_form() {
    for sender in parameters() {
        let (frame, _) = sealed(&sender);
        for receiver in parameters() {
            let both = |numbering| (sender.numbering == numbering) == (receiver.numbering == numbering);
            let crypt_offset_allowed = matches!(receiver.format, Format::FullWithCryptOffset { .. });
            let same_format =
                sender.format == receiver.format || (sender.format == Format::Full && crypt_offset_allowed);
            let same_form = same_format && both(Numbering::SequenceAndIv);
            assert_eq!(open(&frame, &receiver).is_some(), same_form, "{sender:?} {receiver:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Header and options at random, behind a first octet that is often right.
    #[test]
    fn random_packets_are_answered(
        first in prop_oneof![4 => Just(0x80u8), 1 => any::<u8>()],
        option_length in prop_oneof![0u8..40, any::<u8>()],
        options in vec(prop_oneof![2 => 0u8..6, 1 => any::<u8>()], 0..300),
        form in 0usize..9,
    ) {
        let packet = [&[first, option_length, 0, 5, 1, 2, 3, 4][..], &options].concat();
        let frame = reference::frame(&[], &inner_ip(4).packet(PROTOCOL, &packet));
        let parameters = parameters().nth(form).unwrap();
        prop_assert_eq!(open(&frame, &parameters), None);
    }

    /// Several octets of a good packet changed at once, and its end cut.
    #[test]
    fn mutations_do_not_open(
        changes in vec((34usize..150, 1u8..=255), 1..6),
        cut in prop_oneof![3 => Just(0usize), 1 => 0usize..60],
        form in 0usize..9,
    ) {
        let parameters = parameters().nth(form).unwrap();
        let (good, _) = sealed(&parameters);
        let mut frame = good.clone();
        for (at, change) in changes {
            if let Some(octet) = frame.get_mut(at) {
                *octet ^= change;
            }
        }
        frame.truncate(good.len() - cut);
        if frame != good {
            prop_assert_eq!(open(&mended(frame), &parameters), None);
        }
    }
}
