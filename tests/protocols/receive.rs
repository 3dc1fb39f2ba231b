//! Where ESP comes in UDP, congestion through tunnels, selectors, and what PSP says of its packets.

use cryptonic_driver::{
    ChecksumState, Direction, Mode, Protection, PspTransmit, ReceivedProtocol, SaConfiguration, Selector,
    SourcePort, Status, UdpEncapsulation,
};

use crate::packets::{self, SHAPES, Shape, TCP, UDP};
use crate::sas::{
    KEY, SALT, SPI, esp, network, opening_psp, packet, packet_v6, plain, psp, sa, sa_v6, selector, tunnel,
    tunnel_v6, wide,
};
use crate::witness::{self, Esp, Psp, internet_checksum};

fn in_udp(sa: SaConfiguration) -> SaConfiguration {
    SaConfiguration { encapsulation: Some(UdpEncapsulation::new()), ..sa }
}

/// A UDP packet to a port with a payload.
fn datagram(port: u16, payload: &[u8]) -> witness::Packet {
    let mut packet = packet(UDP, 8 + payload.len());
    packet.upper[2..4].copy_from_slice(&port.to_be_bytes());
    packet.upper[6..8].fill(0);
    packet.upper[8..].copy_from_slice(payload);
    packet
}

#[test]
fn an_sa_takes_packets_in_udp_or_over_ip_and_not_both() {
    let over_ip = esp(tunnel());
    let over_udp = Esp { udp: Some((4500, 4500, false)), ..over_ip.clone() };
    for udp in [false, true] {
        let mut rig = plain();
        let into = sa(Direction::In, Mode::Tunnel);
        rig.receiver.install_sa(if udp { in_udp(into) } else { into }).expect("in");
        let (taken, refused) = if udp { (&over_udp, &over_ip) } else { (&over_ip, &over_udp) };
        let inner = packet(UDP, 40);
        assert_eq!(rig.receive(&refused.protect(&inner, 1)).map(|_| ()), Err(Status::NoSa));
        assert_eq!(rig.receive(&taken.protect(&inner, 1)).expect("delivered").frame, inner.frame());
    }
}

#[test]
fn the_port_of_esp_in_udp_is_a_register() {
    let mut rig = plain();
    rig.receiver.install_sa(in_udp(sa(Direction::In, Mode::Tunnel))).expect("in");
    let inner = packet(UDP, 40);
    let at = |port| Esp { udp: Some((4500, port, false)), ..esp(tunnel()) };
    let opened = |rig: &mut crate::rig::Rig, port, sequence| {
        let frame = at(port).protect(&inner, sequence);
        let delivered = rig.receive(&frame).expect("delivered");
        let clear = delivered.facts.protocol == ReceivedProtocol::Clear;
        assert_eq!(delivered.frame, if clear { frame } else { inner.frame() });
        !clear
    };
    assert!(opened(&mut rig, 4500, 1), "4500 after reset");
    assert!(!opened(&mut rig, 4501, 2), "another port is in clear");
    rig.receiver.set_esp_udp_port(Some(4501)).expect("set");
    assert!(opened(&mut rig, 4501, 3));
    assert!(!opened(&mut rig, 4500, 4));
    rig.receiver.set_esp_udp_port(None).expect("set");
    assert!(!opened(&mut rig, 4501, 5), "off");
}

/// IKE shares the port (RFC 3948 2.2), keepalives end here (2.3), reserved SPIs are for the host (RFC 4303 2.1).
#[test]
fn what_is_not_esp_at_its_port_goes_to_the_host() {
    let mut rig = plain();
    let ike = datagram(4500, &[&[0, 0, 0, 0][..], &[7; 30]].concat());
    let ping = packet(50, 40);
    for (name, mut frame) in [("IKE", ike), ("a reserved SPI", ping)] {
        if name != "IKE" {
            frame.upper[..4].copy_from_slice(&[0, 0, 0, 7]);
        }
        let delivered = rig.receive(&frame.frame()).expect(name);
        assert_eq!(delivered.frame, frame.frame(), "{name}");
        assert_eq!((delivered.facts.protocol, delivered.facts.spi), (ReceivedProtocol::Clear, 0), "{name}");
    }
    let mut keepalive = datagram(4500, &[0xff]).frame();
    keepalive.resize(60, 0);
    assert_eq!(rig.receive(&keepalive).map(|_| ()), Err(Status::NatKeepalive));
    for octets in [&[0xfe][..], &[0xff, 0xff]] {
        let frame = datagram(4500, octets).frame();
        assert_eq!(rig.receive(&frame).map(|_| ()), Err(Status::TruncatedEsp), "{octets:?} is no keepalive");
    }
    let mut zero = packet(50, 40);
    zero.upper[..4].fill(0);
    assert_eq!(rig.receive(&zero.frame()).map(|_| ()), Err(Status::ReservedSpi));
}

/// The verdict on the outer checksum, and that the packet opens whatever it is (RFC 3948 2.1).
#[test]
fn the_outer_checksum_is_judged_and_nothing_hangs_on_it() {
    let mut rig = plain();
    rig.receiver.install_sa(in_udp(sa_v6(Direction::In, Mode::Tunnel))).expect("in");
    let inner = packet(UDP, 41);
    let with = Esp { udp: Some((4500, 4500, true)), ..esp(tunnel_v6()) };
    let without = Esp { udp: Some((4500, 4500, false)), ..esp(tunnel_v6()) };
    let good = with.protect(&inner, 1);
    let mut bad = with.protect(&inner, 2);
    bad[60] ^= 1;
    let none = without.protect(&inner, 3);
    for (frame, state) in
        [(good, ChecksumState::Good), (bad, ChecksumState::Bad), (none, ChecksumState::NotChecked)]
    {
        let delivered = rig.receive(&frame).expect("delivered");
        assert_eq!(delivered.frame, inner.frame());
        assert_eq!(delivered.facts.outer_checksum, state);
    }
}

/// RFC 6040 figure 4: what comes out by inner and outer ECN; `None` is dropped. 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
const COMBINED: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

#[test]
fn congestion_comes_out_of_a_tunnel() {
    let mut rig = opening_psp(plain());
    rig.receiver.install_sa(sa_v6(Direction::In, Mode::Tunnel)).expect("in");
    let psp = Psp { mode: tunnel_v6(), ..psp(0) };
    let mut sequence = 0;
    for inner_ipv6 in [false, true] {
        for (inner_ecn, row) in COMBINED.iter().enumerate() {
            for (outer_ecn, combined) in row.iter().enumerate() {
                let mut inner = packets::packet(inner_ipv6, Shape::Plain, UDP, 40);
                inner.traffic_class = 0xb8 | inner_ecn as u8;
                sequence += 1;
                for frame in [esp(tunnel_v6()).protect(&inner, sequence), psp.protect(&inner, sequence)] {
                    let mut frame = frame;
                    // Its low two bits stand in bits 5 and 4 of the IPv6 header's second byte.
                    frame[15] = frame[15] & 0xcf | (outer_ecn as u8) << 4;
                    let at = format!("inner {inner_ecn}, outer {outer_ecn}, IPv6 {inner_ipv6}");
                    let delivered = rig.receive(&frame);
                    match combined {
                        None => assert_eq!(delivered.map(|_| ()), Err(Status::EcnDrop), "{at}"),
                        Some(ecn) => {
                            let mut expected = inner.clone();
                            expected.traffic_class = 0xb8 | ecn;
                            assert_eq!(delivered.expect(&at).frame, expected.frame(), "{at}");
                        }
                    }
                }
            }
        }
    }
}

/// Given an SA with a selector, when packets of its peer come that are something else, then they are authentic and do not
/// come out, and their numbers are used up (RFC 4301 5.2).
#[test]
fn what_an_sa_is_not_for_does_not_come_out_of_it() {
    let mut rig = plain();
    let tcp_only = Selector { protocol: Some(TCP), ..selector() };
    let into =
        SaConfiguration { selector: Some(tcp_only), check_selector: true, ..sa(Direction::In, Mode::Tunnel) };
    rig.receiver.install_sa(into).expect("in");
    let witness = esp(tunnel());
    let (mut other_source, mut other_destination) = (packet(TCP, 40), packet(TCP, 40));
    other_source.source[2] = 1;
    other_destination.destination[1] = 2;
    let mismatch = Err(Status::SelectorMismatch);
    let rows = [
        ("as it should be", packet(TCP, 40), Ok(())),
        ("another source", other_source, mismatch),
        ("another destination", other_destination, mismatch),
        ("another protocol", packet(UDP, 40), mismatch),
        ("another family", packet_v6(TCP, 40), mismatch),
    ];
    for (index, (name, inner, expected)) in rows.iter().enumerate() {
        let frame = witness.protect(inner, index as u64 + 1);
        assert_eq!(rig.receive(&frame).map(|_| ()), *expected, "{name}");
        assert_eq!(rig.receive(&frame).map(|_| ()), Err(Status::ReplayDuplicate), "{name}");
    }
    assert_eq!(rig.receive(&witness.protect(&packet(TCP, 60), 9)).map(|_| ()), Ok(()));
}

#[test]
fn a_selector_of_prefixes_compares_as_many_bits() {
    for (bits, last, matches) in
        [(32, 1, true), (32, 0, false), (31, 0, true), (31, 2, false), (24, 255, true), (0, 77, true)]
    {
        let mut rig = plain();
        let address = if bits == 0 { [0; 4] } else { [10, 0, 0, if bits == 32 { 1 } else { 0 }] };
        let wanted = Selector { source: network(address, bits), ..selector() };
        let into = SaConfiguration {
            selector: Some(wanted),
            check_selector: true,
            ..sa(Direction::In, Mode::Transport)
        };
        rig.receiver.install_sa(into).expect("in");
        let mut inner = packet(TCP, 40);
        inner.source[3] = last;
        let received = rig.receive(&esp(witness::Mode::Transport).protect(&inner, 1)).map(|_| ());
        let expected = if matches { Ok(()) } else { Err(Status::SelectorMismatch) };
        assert_eq!(received, expected, "{bits} bits, {last}");
    }
}

/// A next header or a trailer that the sender authenticated and that still is wrong.
#[test]
fn an_authentic_packet_that_makes_no_sense_is_not_delivered() {
    let mut rig = plain();
    rig.receiver.install_sa(sa(Direction::In, Mode::Tunnel)).expect("in");
    // UDP in a tunnel; an inner packet cut short; another version than the next header names.
    let transport = esp(witness::Mode::Transport).protect(&packet(UDP, 40), 1);
    assert_eq!(rig.receive(&transport).map(|_| ()), Err(Status::BadInner));
    let mut short = packet(4, 19);
    short.upper[0] = 0x45;
    let frame = esp(witness::Mode::Transport).protect(&short, 2);
    assert_eq!(rig.receive(&frame).map(|_| ()), Err(Status::BadInner));
    let mut version = packet(4, 60);
    version.upper[0] = 0x65;
    let frame = esp(witness::Mode::Transport).protect(&version, 3);
    assert_eq!(rig.receive(&frame).map(|_| ()), Err(Status::BadInner));
    // BEET's pseudo header for options is software's.
    let mut rig = plain();
    let into = SaConfiguration {
        selector: Some(Selector::between([10, 0, 0, 1].into(), [10, 1, 0, 2].into())),
        ..sa(Direction::In, Mode::Beet)
    };
    rig.receiver.install_sa(into).expect("in");
    let frame = esp(witness::Mode::Transport).protect(&packet(94, 40), 1);
    assert_eq!(rig.receive(&frame).map(|_| ()), Err(Status::BadInner));
}

#[test]
fn padding_that_is_not_one_two_three_is_refused() {
    // 41 bytes of payload have one byte of padding, so its octet stands third from the text's end. Sealed by hand.
    let mut rig = plain();
    rig.receiver.install_sa(sa(Direction::In, Mode::Transport)).expect("in");
    let inner = packet(UDP, 41);
    let seal = |padding: u8, pad_length: u8| {
        let mut text = inner.upper.clone();
        text.extend([padding, pad_length, UDP]);
        let header = [&SPI.to_be_bytes()[..], &[0, 0, 0, 1]].concat();
        let nonce: [u8; 12] = [&SALT[..], &[0, 0, 0, 0, 0, 0, 0, 1]].concat().try_into().expect("12 bytes");
        let (text, icv) = crate::textbook::gcm_seal(&KEY, &nonce, &header, &text);
        let mut carrier = inner.clone();
        carrier.protocol = 50;
        carrier.upper = [&header[..], &nonce[4..], &text, &icv].concat();
        carrier.frame()
    };
    for (padding, length) in [(2, 1), (0, 1), (1, 255), (1, 45)] {
        let mut rig = plain();
        rig.receiver.install_sa(sa(Direction::In, Mode::Transport)).expect("in");
        let refused = rig.receive(&seal(padding, length)).map(|_| ());
        assert_eq!(refused, Err(Status::BadTrailer), "{padding}, {length}");
    }
    assert_eq!(rig.receive(&seal(1, 1)).expect("delivered").frame, inner.frame());
}

#[test]
fn psp_versions_are_opened_as_enabled() {
    let mut rig = opening_psp(plain());
    let inner = packet(UDP, 40);
    for enabled in 0..16 {
        rig.receiver.psp_receive(enabled, 1000).expect("receive");
        for version in 0..4 {
            let received = rig.receive(&psp(version).protect(&inner, 7)).map(|_| ());
            let expected = match (enabled, enabled >> version & 1) {
                (_, 1) => Ok(()),
                _ => Err(Status::PspVersionDisabled),
            };
            assert_eq!(received, expected, "version {version}, enabled {enabled:04b}");
        }
    }
    let mut reserved = psp(0).protect(&inner, 7);
    reserved[45] |= 4 << 2;
    assert_eq!(rig.receive(&reserved).map(|_| ()), Err(Status::PspBadVersion));
}

/// Given header extensions, reserved bits, S, D and cookies, in clear and encrypted, when packets are opened, then the
/// headers go, and what they said is told.
#[test]
fn psp_headers_are_told_and_taken_off() {
    let mut rig = opening_psp(plain());
    let cookie = [0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];
    for version in 0..4 {
        for turn in 0..32 {
            let bit = |at: usize| turn >> at & 1 == 1;
            let witness = Psp {
                cookie: bit(0).then_some(cookie),
                extension: if bit(1) { vec![0x5a; 24] } else { vec![] },
                sample: bit(2),
                drop: bit(3),
                // In clear, or encrypted with the cookie.
                crypt_offset: if bit(4) && version < 2 { 2 } else { 0 },
                ..psp(version)
            };
            let inner = packets::packet(turn % 2 == 0, SHAPES[turn % SHAPES.len()], TCP, 50);
            let frame = witness.protect(&inner, 9 + turn as u64);
            let delivered = rig.receive(&frame).expect("delivered");
            assert_eq!(delivered.frame, inner.frame(), "version {version}, {turn:05b}");
            let facts = delivered.facts;
            assert_eq!(
                (facts.psp_cookie, facts.psp_sample, facts.psp_drop, facts.psp_version, facts.next_header),
                (witness.cookie, witness.sample, witness.drop, version, TCP),
                "version {version}, {turn:05b}"
            );
        }
    }
}

/// The two reserved bits are ignored, and authenticated (PSP specification, "PSP Packet Format").
#[test]
fn reserved_bits_of_psp_are_ignored_and_covered() {
    let mut rig = opening_psp(plain());
    let inner = packet(UDP, 40);
    // The witness takes the offset's octet as it is; its low six bits are the offset.
    let witness = psp(2);
    let mut frame = witness.protect(&inner, 5);
    frame[44] |= 0xc0;
    assert_eq!(rig.receive(&frame).map(|_| ()), Err(Status::IcvMismatch), "they are covered");
    let packet_end = frame.len() - 16;
    let nonce: [u8; 12] = frame[46..58].try_into().expect("12 bytes");
    let (_, icv) = crate::textbook::gcm_seal(&witness.key, &nonce, &frame[42..packet_end], &[]);
    frame[packet_end..].copy_from_slice(&icv);
    assert_eq!(rig.receive(&frame).expect("delivered").frame, inner.frame(), "they say nothing");
}

/// Given keys that the receiver gave out, when a sender uses them, then the receiver opens its packets: the labels of
/// versions 2 and 3 are the same on both sides, and those of the witness.
#[test]
fn keys_given_out_open_what_they_protect() {
    let mut rig = opening_psp(wide());
    for version in 0..4 {
        let spi = rig.receiver.psp_allocate(version, 1).expect("an SPI").remove(0);
        let expected = witness::psp_key(&crate::sas::DEVICE_KEYS, spi.spi, version);
        let id = rig.queue(0).add_psp_key(version, spi.spi, &spi.key).expect("a key");
        let inner = packet(UDP, 40);
        let fixed = PspTransmit { source_port: SourcePort::Fixed(9), ..PspTransmit::new(id) };
        let sent = rig.send(0, &inner.frame(), Protection::PspKey(fixed)).expect("sent");
        let iv = u64::from_be_bytes(sent[50..58].try_into().expect("8 bytes"));
        let witness = Psp { key: expected, spi: spi.spi, source_port: 9, ..psp(version) };
        assert_eq!(sent, witness.protect(&inner, iv), "version {version}");
        assert_eq!(rig.receive(&sent).expect("delivered").frame, inner.frame(), "version {version}");
        rig.queue(0).remove_psp_key(id).expect("removed");
    }
}

/// An outer IPv4 header whose checksum is wrong is refused before anything is looked up.
#[test]
fn a_wrong_ipv4_checksum_is_refused() {
    let mut rig = plain();
    rig.receiver.install_sa(sa(Direction::In, Mode::Tunnel)).expect("in");
    let mut frame = esp(tunnel()).protect(&packet(UDP, 40), 1);
    frame[22] ^= 1;
    assert_ne!(internet_checksum(&frame[14..34]), 0);
    assert_eq!(rig.receive(&frame).map(|_| ()), Err(Status::BadIpv4Checksum));
}
