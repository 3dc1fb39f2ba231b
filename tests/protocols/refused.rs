//! A packet that cannot be protected is told and not sent, and takes no number: the next good one has the next.

use cryptonic_driver::{
    Direction, Mode, Offload, Protection, PspSaConfiguration, PspTransmit, SaConfiguration, SaHandle,
    SecretKey, Selector, SourcePort, Status, UdpEncapsulation,
};

use crate::packets::{self, EXPERIMENT, Shape, UDP};
use crate::rig::Rig;
use crate::sas::{KEY, address, esp, packet, packet_v6, plain, psp, sa, sa_v6, selector, wide};
use crate::witness::{self, Esp, Packet, Psp};

/// IPv4: a first fragment.
fn fragment() -> Vec<u8> {
    let mut frame = packet(UDP, 40).frame();
    frame[20] = 0x20;
    frame[24..26].fill(0);
    let checksum = witness::internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// IPv6 with a routing header whose route has an address ahead.
fn route_ahead() -> Packet {
    let mut packet = packets::packet(true, Shape::Options, UDP, 40);
    packet.extensions[1].1[3] = 1;
    packet
}

fn refused(rig: &mut Rig, out: SaHandle, rows: &[(&str, Vec<u8>, Offload, Status)]) {
    for (name, frame, offload, status) in rows {
        let sent = rig.send_many(0, frame, Protection::Sa(out), *offload);
        assert_eq!(sent, Err(*status), "{name}");
    }
}

#[test]
fn esp_in_transport_mode() {
    let mut rig = plain();
    let out = rig.sender.install_sa(sa(Direction::Out, Mode::Transport)).expect("out");
    let none = Offload::NONE;
    refused(
        &mut rig,
        out,
        &[
            ("not IP", vec![0x77; 60], none, Status::NotIp),
            ("a fragment", fragment(), none, Status::FragmentInTransport),
            ("what would be a dummy", packet(59, 20).frame(), none, Status::NotIp),
            ("a dummy outside a tunnel", packet(UDP, 20).frame(), none.dummy(), Status::BadDescriptor),
        ],
    );
    let inner = packet(UDP, 40);
    let sent = rig.send(0, &inner.frame(), Protection::Sa(out)).expect("sent");
    assert_eq!(sent, esp(witness::Mode::Transport).protect(&inner, 1), "no number was used");
    let state = rig.sender.query_sa(out).expect("a state");
    assert_eq!((state.sequence, state.packets, state.bytes), (1, 1, 60));
}

/// A UDP checksum over IPv6 needs the packet's last destination, which a routing header may not show yet.
#[test]
fn esp_in_udp_with_a_checksum_nobody_can_tell() {
    let mut rig = plain();
    let encapsulation = Some(UdpEncapsulation { checksum: true, ..UdpEncapsulation::new() });
    let out = SaConfiguration { encapsulation, ..sa(Direction::Out, Mode::Transport) };
    let out = rig.sender.install_sa(out).expect("out");
    refused(&mut rig, out, &[("a route ahead", route_ahead().frame(), Offload::NONE, Status::NotIp)]);
    let inner = packets::packet(true, Shape::Options, UDP, 40);
    let sent = rig.send(0, &inner.frame(), Protection::Sa(out)).expect("sent");
    let witness = Esp { udp: Some((4500, 4500, true)), ..esp(witness::Mode::Transport) };
    assert_eq!(sent, witness.protect(&inner, 1));
}

#[test]
fn esp_in_beet_mode() {
    let mut rig = plain();
    let out = SaConfiguration {
        selector: Some(Selector::between([10, 0, 0, 1].into(), [10, 1, 0, 2].into())),
        ..sa(Direction::Out, Mode::Beet)
    };
    let out = rig.sender.install_sa(out).expect("out");
    let (mut source, mut destination) = (packet(UDP, 40), packet(UDP, 40));
    source.source[3] = 2;
    destination.destination[3] = 1;
    let options = packets::packet(false, Shape::Options, UDP, 40);
    let none = Offload::NONE;
    refused(
        &mut rig,
        out,
        &[
            ("a fragment", fragment(), none, Status::NotBeet),
            ("IPv4 options", options.frame(), none, Status::NotBeet),
            ("another source", source.frame(), none, Status::NotBeet),
            ("another destination", destination.frame(), none, Status::NotBeet),
            ("another family", packet_v6(UDP, 40).frame(), none, Status::NotBeet),
            ("what would be options at the far end", packet(94, 40).frame(), none, Status::NotIp),
            ("a dummy", packet(UDP, 40).frame(), none.dummy(), Status::BadDescriptor),
        ],
    );
    let inner = packet(UDP, 40);
    let sent = rig.send(0, &inner.frame(), Protection::Sa(out)).expect("sent");
    let ends = crate::sas::ENDS_V4;
    let beet = witness::Mode::Beet { source: ends[0].to_vec(), destination: ends[1].to_vec() };
    assert_eq!(sent, esp(beet).protect(&inner, 1));
}

/// Given padding to a full packet, when short frames leave, then they have room for it; the longest stay as they are.
#[test]
fn padding_has_room_whatever_the_frame_was() {
    let mut rig = plain();
    for (turn, tfc_bytes) in [1, 1_500, 9_500].into_iter().enumerate() {
        let key = SecretKey::new(&[turn as u8 + 1; 16]).expect("a key");
        let out = SaConfiguration { tfc_bytes, key, ..sa_v6(Direction::Out, Mode::Tunnel) };
        let out = rig.sender.install_sa(out).expect("out");
        let witness = Esp {
            tfc_bytes: tfc_bytes.into(),
            key: vec![turn as u8 + 1; 16],
            ..esp(crate::sas::tunnel_v6())
        };
        for (number, bytes) in [0, 100, 1_480, 9_000].into_iter().enumerate() {
            let inner = packet(EXPERIMENT, bytes);
            let sent = rig.send(0, &inner.frame(), Protection::Sa(out)).expect("sent");
            assert!(sent == witness.protect(&inner, number as u64 + 1), "{tfc_bytes}, {bytes}");
        }
    }
    let too_much = SaConfiguration { tfc_bytes: 9_587, ..sa(Direction::Out, Mode::Tunnel) };
    assert!(rig.sender.install_sa(too_much).is_err(), "longer than a frame may be");
}

#[test]
fn psp_takes_no_iv() {
    let mut rig = wide();
    rig.sender.psp_test_iv_load(100).expect("an IV");
    let witness = Psp { source_port: 9, ..psp(0) };
    let key = |witness: &Psp| SecretKey::new(&witness.key).expect("a key");
    let fixed = SourcePort::Fixed(9);
    let add = |rig: &mut Rig, version| {
        let id = rig.queue(0).add_psp_key(version, psp(version).spi, &key(&psp(version))).expect("a key");
        PspTransmit { source_port: fixed, ..PspTransmit::new(id) }
    };
    let (gcm, gmac) = (add(&mut rig, 0), add(&mut rig, 2));
    let formatted = PspTransmit { preformatted: true, ..gcm };
    let inner = packet(UDP, 40);
    let changed = |at: usize, to: u8| {
        let mut frame = witness.preformatted(&inner);
        frame[at] = to;
        frame
    };
    let past_the_end = Psp { crypt_offset: 63, ..witness.clone() }.preformatted(&inner);
    let another_version = Psp { source_port: 9, ..psp(1) }.preformatted(&inner);
    let gmac_offset = Psp { crypt_offset: 1, source_port: 9, ..psp(2) }.preformatted(&inner);
    let mut fragmented = witness.preformatted(&inner);
    fragmented[20] = 0x20;
    let rows = [
        (
            "crypt offset past the end",
            inner.frame(),
            PspTransmit { crypt_offset: 11, ..gcm },
            Status::TransmitCryptOffset,
        ),
        (
            "crypt offset of GMAC",
            inner.frame(),
            PspTransmit { crypt_offset: 1, ..gmac },
            Status::TransmitCryptOffset,
        ),
        ("a fragment", fragment(), gcm, Status::FragmentInTransport),
        ("a tunnel by its own", packet(4, 40).frame(), gcm, Status::NotIp),
        ("not IP", vec![0x77; 60], gcm, Status::NotIp),
        ("no headers", inner.frame(), formatted, Status::BadPreformatted),
        ("another port", changed(37, 0xe9), formatted, Status::BadPreformatted),
        ("TCP", changed(23, 6), formatted, Status::BadPreformatted),
        ("the literal one is zero", changed(45, 0), formatted, Status::BadPreformatted),
        ("a header longer than the packet", changed(43, 255), formatted, Status::BadPreformatted),
        ("a header too short", changed(43, 0), formatted, Status::BadPreformatted),
        ("a reserved version", changed(45, 4 << 2 | 1), formatted, Status::BadPreformatted),
        ("another version", another_version, formatted, Status::BadPreformatted),
        ("crypt offset past the end, formatted", past_the_end, formatted, Status::BadPreformatted),
        (
            "crypt offset of GMAC, formatted",
            gmac_offset,
            PspTransmit { preformatted: true, ..gmac },
            Status::TransmitCryptOffset,
        ),
        ("a fragment, formatted", fragmented, formatted, Status::FragmentInTransport),
        ("cut inside the headers", witness.preformatted(&inner)[..50].to_vec(), formatted, Status::NotIp),
    ];
    for (name, frame, psp, status) in rows {
        assert_eq!(rig.send(0, &frame, Protection::PspKey(psp)), Err(status), "{name}");
    }

    // By a slot as well, which shares the clock with the keys of descriptors.
    let mut slot = PspSaConfiguration::new(0, SecretKey::new(&KEY).expect("a key"), 0x77);
    (slot.crypt_offset, slot.source_port) = (11, fixed);
    let slot = rig.sender.install_psp_sa(slot).expect("a slot");
    let rows = [
        ("crypt offset past the end", inner.frame(), Offload::NONE, Status::TransmitCryptOffset),
        ("a fragment", fragment(), Offload::NONE, Status::FragmentInTransport),
        ("a dummy", inner.frame(), Offload::NONE.dummy(), Status::BadDescriptor),
    ];
    refused(&mut rig, slot, &rows);

    let sent = rig.send(0, &inner.frame(), Protection::PspKey(gcm)).expect("sent");
    assert_eq!(sent, witness.protect(&inner, 100), "no IV was used");
    let longer = packet(UDP, 100);
    let sent = rig.send(0, &longer.frame(), Protection::Sa(slot)).expect("sent");
    let by_slot = Psp { key: KEY.to_vec(), spi: 0x77, crypt_offset: 11, ..witness };
    assert_eq!(sent, by_slot.protect(&longer, 101), "one clock for slots and descriptors");
}

/// What the device is told to protect by an SA that protects nothing.
#[test]
fn an_inbound_sa_protects_nothing_whatever_its_form() {
    let mut rig = plain();
    for (turn, mode) in [Mode::Tunnel, Mode::Transport, Mode::Beet].into_iter().enumerate() {
        let into = SaConfiguration {
            key: SecretKey::new(&[turn as u8 + 1; 16]).expect("a key"),
            spi: 0x1000 + turn as u32,
            selector: Some(if mode == Mode::Beet {
                Selector::between(address(&[10, 0, 0, 1]), address(&[10, 1, 0, 2]))
            } else {
                selector()
            }),
            check_selector: true,
            ..sa(Direction::In, mode)
        };
        let into = rig.sender.install_sa(into).expect("in");
        let sent = rig.send(0, &packet(UDP, 40).frame(), Protection::Sa(into));
        assert_eq!(sent, Err(Status::WrongDirection), "{mode:?}");
    }
}
