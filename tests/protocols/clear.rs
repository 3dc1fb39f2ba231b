//! A packet in clear never enters where an SA was due (RFC 4301 5.2).

use cryptonic_driver::{
    Direction, Error, Mode, ReceivedProtocol, SaConfiguration, SaHandle, SecretKey, Selector, Status,
};
use cryptonic_hwmodel::Parameters;

use crate::packets::{self, Shape, TCP, UDP};
use crate::rig::{FORMATS, Rig};
use crate::sas::{esp, network, packet, packet_v6, plain, sa, selector};
use crate::witness::{self, Packet};

fn refusing(selector: Selector) -> SaConfiguration {
    SaConfiguration { selector: Some(selector), refuse_clear: true, ..sa(Direction::In, Mode::Transport) }
}

const REFUSED: Result<(), Status> = Err(Status::ClearNotAccepted);

#[test]
fn a_packet_in_clear_does_not_enter_where_an_sa_was_due() {
    let mut rig = plain();
    let frames = |packet: Packet| packet.frame();
    let enters = |rig: &mut Rig, frame: &[u8]| rig.receive(frame).map(|_| ());
    assert_eq!(enters(&mut rig, &frames(packet(UDP, 40))), Ok(()), "without an SA it enters");

    let into = rig.receiver.install_sa(refusing(selector())).expect("in");
    let mut other_source = packet(UDP, 40);
    other_source.source[2] = 1;
    let mut other_destination = packet(UDP, 40);
    other_destination.destination[1] = 2;
    let mut same_network = packet(UDP, 40);
    same_network.source[3] = 77;
    let tagged = packets::packet(false, Shape::TwoTags, UDP, 40);
    let with_options = packets::packet(false, Shape::Options, TCP, 40);
    let mut arp = packet(UDP, 40).frame();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut ike = packet(UDP, 40);
    ike.upper[2..4].copy_from_slice(&500_u16.to_be_bytes());
    let mut fragment = packet(UDP, 40).frame();
    // The last fragment of a datagram: it shows no ports, but its protocol.
    fragment[20..22].copy_from_slice(&[0x00, 0x20]);
    refresh_checksum(&mut fragment);
    let rows = [
        ("what it is for", frames(packet(UDP, 40)), REFUSED),
        ("another protocol of it", frames(packet(TCP, 40)), REFUSED),
        ("the same network", frames(same_network), REFUSED),
        ("behind VLAN tags", frames(tagged), REFUSED),
        ("with IPv4 options", frames(with_options), REFUSED),
        ("a fragment", fragment, REFUSED),
        ("IKE between the same hosts", frames(ike), REFUSED),
        ("another source", frames(other_source), Ok(())),
        ("another destination", frames(other_destination), Ok(())),
        ("another family", frames(packet_v6(UDP, 40)), Ok(())),
        ("no IP at all", arp, Ok(())),
    ];
    for (name, frame, expected) in &rows {
        assert_eq!(enters(&mut rig, frame), *expected, "{name}");
    }

    // Protected it enters; an ESP packet that the device leaves to the host is not in clear.
    let inner = packet(UDP, 40);
    let protected = rig.receive(&esp(witness::Mode::Transport).protect(&inner, 1)).expect("delivered");
    assert_eq!((protected.frame, protected.facts.protocol), (inner.frame(), ReceivedProtocol::Esp));
    let mut ping = packet(50, 40);
    ping.upper[..4].copy_from_slice(&[0, 0, 0, 7]);
    assert_eq!(enters(&mut rig, &ping.frame()), Ok(()));

    rig.receiver.delete_sa(into).expect("deleted");
    assert_eq!(enters(&mut rig, &rows[0].1), Ok(()), "nothing is due any more");
}

fn refresh_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let checksum = witness::internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// A fragment can hide its upper protocol behind extension headers that are in other fragments: it counts as any.
#[test]
fn a_fragment_that_hides_its_protocol_does_not_slip_through() {
    let mut rig = plain();
    let base = packet_v6(TCP, 64);
    let between = |protocol| Selector {
        protocol,
        ..Selector::between(crate::sas::address(&base.source), crate::sas::address(&base.destination))
    };
    rig.receiver.install_sa(refusing(between(Some(TCP)))).expect("in");
    let fragment = |next_header: u8, offset_and_more: u16| {
        let mut header = vec![next_header, 0];
        header.extend(offset_and_more.to_be_bytes());
        header.extend([0, 0, 0, 9]);
        Packet { extensions: vec![(44, header)], protocol: next_header, ..base.clone() }.frame()
    };
    // (next header in the fragment header, offset and more-fragments, enters)
    let rows = [
        (TCP, 0x0001, REFUSED),
        (TCP, 0x0040, REFUSED),
        (60, 0x0001, REFUSED),
        (60, 0x0040, REFUSED),
        (43, 0x0000, REFUSED),
        (0, 0x0040, REFUSED),
        (UDP, 0x0040, Ok(())),
        (UDP, 0x0001, Ok(())),
    ];
    for (next_header, word, expected) in rows {
        let received = rig.receive(&fragment(next_header, word)).map(|_| ());
        assert_eq!(received, expected, "next header {next_header}, {word:#06x}");
    }
}

/// Given room for two, when a third SA is to refuse packets in clear, then it is not installed, and is once there is room.
#[test]
fn no_more_sas_refuse_than_there_is_room_for() {
    let mut parameters = Parameters::default();
    parameters.capacity.clear_policies = 2;
    let mut rig = Rig::with(&FORMATS[..1], &parameters);
    let to = |third: u8| Selector { destination: network([10, third, 0, 0], 16), ..selector() };
    let install = |rig: &mut Rig, number: u8| -> Result<SaHandle, Error> {
        let key = SecretKey::new(&[number; 16]).expect("a key");
        rig.receiver.install_sa(SaConfiguration {
            key,
            spi: 0x1000 + u32::from(number),
            ..refusing(to(number))
        })
    };
    let enters = |rig: &mut Rig, second: u8| {
        let mut packet = packet(UDP, 40);
        packet.destination[1] = second;
        rig.receive(&packet.frame()).map(|_| ())
    };
    let first = install(&mut rig, 1).expect("room");
    install(&mut rig, 2).expect("room");
    assert!(matches!(install(&mut rig, 3), Err(Error::Refused { .. })), "no room");
    assert_eq!([1, 2, 3].map(|number| enters(&mut rig, number)), [REFUSED, REFUSED, Ok(())]);
    rig.receiver.delete_sa(first).expect("deleted");
    install(&mut rig, 4).expect("room again");
    assert_eq!([1, 2, 4].map(|number| enters(&mut rig, number)), [Ok(()), REFUSED, REFUSED]);
    // One that refuses nothing takes no room.
    let key = SecretKey::new(&[5; 16]).expect("a key");
    let other = SaConfiguration { key, spi: 0x1005, ..sa(Direction::In, Mode::Transport) };
    rig.receiver.install_sa(other).expect("a slot");
}
