//! The rules of ESP's modes, one by one, against a second implementation: TFC padding, dummy packets, next header 144,
//! options and extension headers, what BEET mode refuses, and the outer header's template.

mod witness;

use cryptonic_wire::esp::{self, Cipher, Ipv6UdpChecksum, LastOptions, Parameters};
use cryptonic_wire::outer::{Endpoints, PerPacket, Ttl};
use cryptonic_wire::{
    Decapsulated, IcvLength, OuterTemplate, Parsed, Refused, Rejected, Room, esp_beet, esp_transform,
    parse_receive, parse_transmit,
};
use witness::Gcm;
use witness::exchange::{Mode, UDP_PORTS, endpoints, inner_ip, parameters, receive, send, wrapped};
use witness::reference::{self, Esp, EspCipher, Ip};

fn gcm_sa() -> Esp {
    Esp {
        key: vec![0x42; 16],
        salt: [1, 2, 3, 4],
        spi: 0x1001,
        esn: false,
        cipher: EspCipher::Gcm,
        icv_octets: 16,
    }
}

const TUNNEL_V4: Endpoints = Endpoints::V4 { source: [192, 0, 2, 1], destination: [192, 0, 2, 2] };

fn tunnel_v4_ip() -> Ip {
    Ip {
        source: vec![192, 0, 2, 1],
        destination: vec![192, 0, 2, 2],
        hop_limit: 64,
        identification: 0x77,
        ..inner_ip(4)
    }
}

#[test]
fn tfc_padding_follows_the_inner_packet() {
    for version in [4, 6] {
        for (inner_payload, tfc_length, padded) in
            [(10, 0, 0), (10, 20, 0), (10, 200, 200), (300, 200, 0), (10, 203, 203)]
        {
            let esp = gcm_sa();
            let inner = inner_ip(version);
            let packet = inner.packet(17, &vec![7; inner_payload]);
            let mut body = packet.clone();
            body.resize(body.len().max(padded), 0);
            let next_header = if version == 4 { 4 } else { 41 };
            let outer = Ip {
                dont_fragment: version == 6,
                identification: if version == 6 { 0 } else { 0x77 },
                flow_label: 0,
                ..tunnel_v4_ip()
            };
            let expected = reference::frame(&[], &outer.packet(50, &esp.packet(9, &body, next_header)));
            let parameters = Parameters { tfc_length, ..parameters(&esp, None) };
            let clear = reference::frame(&[], &packet);
            let outer = OuterTemplate::new(TUNNEL_V4);
            let sent = send(&clear, &esp, &parameters, |room, plain| {
                esp_transform::encapsulate_tunnel(room, plain, &parameters, 9, &outer, PerPacket::new(0x77))
            });
            assert_eq!(sent, Ok(expected.clone()), "IPv{version}, {inner_payload}, {tfc_length}");
            let received = receive(&expected, &esp, &parameters, 9, |room, parsed| {
                esp_transform::decapsulate_tunnel(room, parsed, &parameters)
            });
            assert_eq!(received, Ok((Decapsulated::Packet { next_header }, clear)));
        }
    }
}

#[test]
fn dummy_packets_leave_and_are_told() {
    let (esp, parameters) = (gcm_sa(), parameters(&gcm_sa(), None));
    let inner = inner_ip(4);
    let packet = inner.packet(17, &[9; 33]);
    let clear = reference::frame(&[], &packet);
    let outer = OuterTemplate::new(TUNNEL_V4);

    let tunnel = reference::frame(&[], &tunnel_v4_ip().packet(50, &esp.packet(3, &packet, 59)));
    let sent = send(&clear, &esp, &parameters, |room, plain| {
        let outer = Some((&outer, PerPacket::new(0x77)));
        esp_transform::encapsulate_dummy(room, plain, &parameters, 3, outer)
    });
    assert_eq!(sent, Ok(tunnel.clone()));
    let transport = reference::frame(&[], &inner.packet(50, &esp.packet(3, &[9; 33], 59)));
    let sent = send(&clear, &esp, &parameters, |room, plain| {
        esp_transform::encapsulate_dummy(room, plain, &parameters, 3, None)
    });
    assert_eq!(sent, Ok(transport));
    for mode in [Mode::Tunnel, Mode::Transport, Mode::Beet] {
        let received = receive(&tunnel, &esp, &parameters, 3, |room, parsed| {
            decapsulate(mode, room, parsed, &parameters)
        });
        assert_eq!(received.unwrap().0, Decapsulated::Dummy, "{mode:?}");
    }
}

fn decapsulate(
    mode: Mode,
    room: &mut Room<'_>,
    parsed: &Parsed,
    parameters: &Parameters,
) -> Result<Decapsulated, Rejected> {
    let inner = endpoints(&inner_ip(4));
    match mode {
        Mode::Tunnel => esp_transform::decapsulate_tunnel(room, parsed, parameters),
        Mode::Transport => esp_transform::decapsulate_transport(room, parsed, parameters),
        Mode::Beet => esp_beet::decapsulate_beet(room, parsed, parameters, &inner),
    }
}

#[test]
fn next_header_144_stays_under_the_outer_header() {
    // An AGGFRAG payload and an ESP echo look the same from here: any octets.
    for udp in [None, Some(Ipv6UdpChecksum::Zero), Some(Ipv6UdpChecksum::Computed)] {
        for outer in
            [tunnel_v4_ip(), Ip { source: vec![0x20; 16], destination: vec![0x21; 16], ..tunnel_v4_ip() }]
        {
            let (esp, parameters) = (gcm_sa(), parameters(&gcm_sa(), udp));
            let wire = reference::frame(&[], &wrapped(&outer, udp, &esp.packet(5, &[0xc5; 41], 144)));
            let clear = reference::frame(&[], &outer.packet(144, &[0xc5; 41]));
            for mode in [Mode::Tunnel, Mode::Transport, Mode::Beet] {
                let received = receive(&wire, &esp, &parameters, 5, |room, parsed| {
                    decapsulate(mode, room, parsed, &parameters)
                });
                assert_eq!(
                    received,
                    Ok((Decapsulated::Packet { next_header: 144 }, clear.clone())),
                    "{mode:?}"
                );
            }
            let sent = send(&clear, &esp, &parameters, |room, plain| {
                esp_transform::encapsulate_transport(room, plain, &parameters, 5)
            });
            assert_eq!(sent, Ok(wire));
        }
    }
}

#[test]
fn extension_headers_stand_on_the_side_asked_for() {
    const OPTIONS: [u8; 6] = [0, 1, 4, 0, 0, 0];
    let header = |next: u8, rest: [u8; 6]| -> Vec<u8> {
        let [length, rest @ ..] = rest;
        [&[next, length][..], &rest, &[0]].concat()
    };
    let routing = [0, 4, 0, 0, 0, 0];
    let payload = [3u8; 50];
    // (first, headers outside, headers inside, what follows the outside ones in clear)
    let chain = |numbers: &[u8], last: u8| -> Vec<u8> {
        let nexts = numbers.iter().skip(1).chain([&last]);
        let octets = numbers
            .iter()
            .zip(nexts)
            .flat_map(|(number, next)| header(*next, if *number == 43 { routing } else { OPTIONS }));
        octets.collect()
    };
    let rows: [(LastOptions, &[u8], &[u8]); 8] = [
        (LastOptions::Outside, &[60], &[]),
        (LastOptions::Inside, &[], &[60]),
        (LastOptions::Outside, &[0, 43, 60], &[]),
        (LastOptions::Inside, &[0, 43], &[60]),
        (LastOptions::Inside, &[0, 60, 43], &[60, 60]),
        (LastOptions::Inside, &[0, 43], &[]),
        (LastOptions::Inside, &[43], &[]),
        (LastOptions::Inside, &[], &[]),
    ];
    for (last_options, outside, inside) in rows {
        let esp = gcm_sa();
        let parameters = Parameters { last_options, ..parameters(&esp, None) };
        let all = [outside, inside].concat();
        let clear_ip = Ip { extra: chain(&all, 17), first_extension: all.first().copied(), ..inner_ip(6) };
        let clear = reference::frame(&[], &clear_ip.packet(17, &payload));
        let outer_ip =
            Ip { extra: chain(outside, 50), first_extension: outside.first().copied(), ..inner_ip(6) };
        let protected = [chain(inside, 17), payload.to_vec()].concat();
        let next_header = inside.first().copied().unwrap_or(17);
        let wire = outer_ip.packet(50, &esp.packet(2, &protected, next_header));
        let wire = reference::frame(&[], &wire);
        let sent = send(&clear, &esp, &parameters, |room, plain| {
            esp_transform::encapsulate_transport(room, plain, &parameters, 2)
        });
        assert_eq!(sent, Ok(wire.clone()), "{last_options:?} {outside:?} {inside:?}");
        let received = receive(&wire, &esp, &parameters, 2, |room, parsed| {
            esp_transform::decapsulate_transport(room, parsed, &parameters)
        });
        assert_eq!(received, Ok((Decapsulated::Packet { next_header }, clear)));
    }
}

#[test]
fn ipv4_options_stay_before_esp() {
    let (esp, parameters) = (gcm_sa(), parameters(&gcm_sa(), Some(Ipv6UdpChecksum::Zero)));
    let ip = Ip { extra: vec![1, 1, 1, 0], ..inner_ip(4) };
    let clear = reference::frame(&[], &ip.packet(6, &[8; 40]));
    let wire = reference::frame(&[], &wrapped(&ip, Some(Ipv6UdpChecksum::Zero), &esp.packet(2, &[8; 40], 6)));
    let sent = send(&clear, &esp, &parameters, |room, plain| {
        esp_transform::encapsulate_transport(room, plain, &parameters, 2)
    });
    assert_eq!(sent, Ok(wire.clone()));
    let received = receive(&wire, &esp, &parameters, 2, |room, parsed| {
        esp_transform::decapsulate_transport(room, parsed, &parameters)
    });
    assert_eq!(received, Ok((Decapsulated::Packet { next_header: 6 }, clear)));
}

#[test]
fn beet_keeps_the_identification_of_an_atomic_packet() {
    let (esp, parameters) = (gcm_sa(), parameters(&gcm_sa(), None));
    for (dont_fragment, identification) in [(true, 0x1234), (true, 0), (false, 0x1234)] {
        let inner = Ip { dont_fragment, identification, ..inner_ip(4) };
        let outer = Ip { source: vec![192, 0, 2, 1], destination: vec![192, 0, 2, 2], ..inner.clone() };
        let clear = reference::frame(&[], &inner.packet(17, &[4; 21]));
        let wire = reference::frame(&[], &outer.packet(50, &esp.packet(1, &[4; 21], 17)));
        let ends = endpoints(&inner);
        let sent = send(&clear, &esp, &parameters, |room, plain| {
            esp_beet::encapsulate_beet(room, plain, &parameters, 1, &ends, &TUNNEL_V4)
        });
        assert_eq!(sent, Ok(wire.clone()));
        let received = receive(&wire, &esp, &parameters, 1, |room, parsed| {
            decapsulate(Mode::Beet, room, parsed, &parameters)
        });
        assert_eq!(received, Ok((Decapsulated::Packet { next_header: 17 }, clear)));
    }
}

#[test]
fn beet_refuses_what_it_would_lose() {
    let (esp, sa) = (gcm_sa(), parameters(&gcm_sa(), None));
    let (inner4, inner6) = (endpoints(&inner_ip(4)), endpoints(&inner_ip(6)));
    let refused = |packet: Vec<u8>, inner: &Endpoints, parameters: &Parameters| {
        let frame = reference::frame(&[], &packet);
        send(&frame, &esp, parameters, |room, plain| {
            let before = (room.start, room.end, room.frame().to_vec());
            let result = esp_beet::encapsulate_beet(room, plain, parameters, 1, inner, &TUNNEL_V4);
            assert!(result.is_ok() || before == (room.start, room.end, room.frame().to_vec()));
            result
        })
        .map(|_| ())
    };
    let (v4, v6) = (inner_ip(4), inner_ip(6));
    assert_eq!(refused(v4.packet(17, &[0; 9]), &inner4, &sa), Ok(()));
    let mut fragment = v4.packet(17, &[0; 9]);
    fragment[6] = 0x20;
    assert_eq!(refused(fragment, &inner4, &sa), Err(Refused::BeetFragment));
    let options = Ip { extra: vec![1, 1, 1, 0], ..v4.clone() };
    assert_eq!(refused(options.packet(17, &[0; 9]), &inner4, &sa), Err(Refused::BeetOptions));
    let extension = Ip { extra: vec![17, 0, 1, 4, 0, 0, 0, 0], first_extension: Some(60), ..v6.clone() };
    assert_eq!(refused(extension.packet(17, &[0; 9]), &inner6, &sa), Err(Refused::BeetOptions));
    assert_eq!(refused(v4.packet(17, &[0; 9]), &inner6, &sa), Err(Refused::BeetAddresses));
    let other = Ip { destination: vec![10, 1, 0, 2], ..v4.clone() };
    assert_eq!(refused(other.packet(17, &[0; 9]), &inner4, &sa), Err(Refused::BeetAddresses));
    for protocol in [59, 94, 144] {
        assert_eq!(refused(v4.packet(protocol, &[0; 9]), &inner4, &sa), Err(Refused::AmbiguousNextHeader));
    }
    let tfc = Parameters { tfc_length: 100, ..sa };
    assert_eq!(refused(v4.packet(17, &[0; 9]), &inner4, &tfc), Err(Refused::TfcPadding));

    // Received: the pseudo header of IPv4 options has a name of its own, and a longer inner header needs room.
    let wire =
        reference::frame(&[], &tunnel_v4_ip().packet(50, &esp.packet(1, &[17, 0, 4, 0, 1, 1, 1, 0], 94)));
    let received = receive(&wire, &esp, &sa, 1, |room, parsed| decapsulate(Mode::Beet, room, parsed, &sa));
    assert_eq!(received.unwrap_err(), Rejected::BeetPseudoHeader);
    let implicit = Esp { cipher: EspCipher::ImplicitIv, ..esp.clone() };
    let parameters = parameters(&implicit, None);
    let wire = reference::frame(&[], &tunnel_v4_ip().packet(50, &implicit.packet(1, &[7; 20], 17)));
    for (headroom, fits) in [(11, false), (12, true)] {
        let mut storage = [&vec![0; headroom][..], &wire].concat();
        let end = storage.len();
        let mut room = Room::new(&mut storage, headroom, end).unwrap();
        let parsed = parse_receive(room.frame(), UDP_PORTS).unwrap();
        let geometry = esp::receive_geometry(&parsed, room.frame(), &parameters, 1).unwrap();
        geometry.open(&Gcm::new(&implicit.key), room.frame_mut()).unwrap();
        let before = room.frame().to_vec();
        let opened = esp_beet::decapsulate_beet(&mut room, &parsed, &parameters, &inner6);
        if fits {
            assert_eq!(opened, Ok(Decapsulated::Packet { next_header: 17 }));
        } else {
            assert_eq!((opened, room.frame()), (Err(Rejected::NoRoom), &before[..]));
        }
    }
}

#[test]
fn parameters_are_checked_before_anything_moves() {
    let esp = gcm_sa();
    let clear = reference::frame(&[], &inner_ip(4).packet(17, &[1; 30]));
    let sa = Parameters::new(0x1001, [0; 4]);
    let transport = |parameters: Parameters| {
        send(&clear, &esp, &parameters, |room, plain| {
            esp_transform::encapsulate_transport(room, plain, &parameters, 1)
        })
        .map(|_| ())
    };
    for cipher in [Cipher::GcmImplicitIv, Cipher::Gmac] {
        for icv_length in [IcvLength::Octets8, IcvLength::Octets12] {
            assert_eq!(transport(Parameters { cipher, icv_length, ..sa }), Err(Refused::IcvLength));
        }
        assert_eq!(transport(Parameters { cipher, ..sa }), Ok(()));
    }
    assert_eq!(transport(Parameters { tfc_length: 64, ..sa }), Err(Refused::TfcPadding));

    for (ahead, checksum, refused) in [
        (1, Ipv6UdpChecksum::Computed, true),
        (0, Ipv6UdpChecksum::Computed, false),
        (1, Ipv6UdpChecksum::Zero, false),
    ] {
        let routed =
            Ip { extra: vec![17, 0, 4, ahead, 0, 0, 0, 0], first_extension: Some(43), ..inner_ip(6) };
        let clear = reference::frame(&[], &routed.packet(17, &[1; 30]));
        let parameters = parameters(&esp, Some(checksum));
        let sent = send(&clear, &esp, &parameters, |room, plain| {
            esp_transform::encapsulate_transport(room, plain, &parameters, 1)
        });
        assert_eq!(sent.err(), refused.then_some(Refused::RouteAhead), "{ahead} {checksum:?}");
    }
}

#[test]
fn outer_header_follows_its_template() {
    use cryptonic_wire::outer::{DontFragment, Dscp, Ecn, FlowLabel};
    let v6 = Endpoints::V6 { source: [0x20; 16], destination: [0x21; 16] };
    type Change = fn(&mut OuterTemplate);
    // (inner version, outer ends, template, traffic class, TTL, DF and identification or flow label)
    #[rustfmt::skip]
    let rows: &[(u8, Endpoints, Change, u8, u8, u32)] = &[
        (4, TUNNEL_V4, |_| {},                                            0xb9, 64, 0x0077_0000),
        (4, TUNNEL_V4, |it| it.ttl = Ttl::Copy,                           0xb9, 57, 0x0077_0000),
        (4, TUNNEL_V4, |it| it.ttl = Ttl::Value(3),                       0xb9, 3,  0x0077_0000),
        (4, TUNNEL_V4, |it| it.dscp = Dscp::Value(0x0a),                  0x29, 64, 0x0077_0000),
        (4, TUNNEL_V4, |it| it.ecn = Ecn::NotCapable,                     0xb8, 64, 0x0077_0000),
        (4, TUNNEL_V4, |it| it.dont_fragment = DontFragment::Set,         0xb9, 64, 0x0000_4000),
        (6, TUNNEL_V4, |_| {},                                            0xb9, 64, 0x0000_4000),
        (6, TUNNEL_V4, |it| it.dont_fragment = DontFragment::Clear,       0xb9, 64, 0x0077_0000),
        (6, TUNNEL_V4, |it| it.ttl = Ttl::Copy,                           0xb9, 57, 0x0000_4000),
        (6, v6,        |_| {},                                            0xb9, 64, 0),
        (6, v6,        |it| it.flow_label = FlowLabel::Copy,              0xb9, 64, 0x5_4321),
        (4, v6,        |it| it.flow_label = FlowLabel::Copy,              0xb9, 64, 0),
        (4, v6,        |it| it.flow_label = FlowLabel::Value(0xfff1_2345),0xb9, 64, 0x1_2345),
        (4, v6,        |it| it.flow_label = FlowLabel::Hash,              0xb9, 64, 0x9_abcd),
        (4, v6,        |it| { it.ttl = Ttl::Copy; it.dscp = Dscp::Value(63); }, 0xfd, 57, 0),
    ];
    for (index, (inner, ends, change, traffic_class, ttl, rest)) in rows.iter().enumerate() {
        let (esp, parameters) = (gcm_sa(), parameters(&gcm_sa(), None));
        let clear = reference::frame(&[], &inner_ip(*inner).packet(17, &[1; 30]));
        let mut template = OuterTemplate::new(*ends);
        change(&mut template);
        let per_packet = PerPacket { identification: 0x77, flow_hash: 0x1239_abcd };
        let sent = send(&clear, &esp, &parameters, |room, plain| {
            esp_transform::encapsulate_tunnel(room, plain, &parameters, 1, &template, per_packet)
        })
        .unwrap();
        let ip = &sent[14..];
        if matches!(ends, Endpoints::V4 { .. }) {
            assert_eq!((ip[1], ip[8]), (*traffic_class, *ttl), "row {index}");
            assert_eq!(u32::from_be_bytes(ip[4..8].try_into().unwrap()), *rest, "row {index}");
            assert_eq!(reference::internet_checksum(&ip[..20]), 0, "row {index}");
        } else {
            let word = u32::from_be_bytes(ip[..4].try_into().unwrap());
            assert_eq!(word, 6 << 28 | u32::from(*traffic_class) << 20 | rest, "row {index}");
            assert_eq!(ip[7], *ttl, "row {index}");
        }
    }
    // A hash of zero is not the label that means none.
    let plain = parse_transmit(&reference::frame(&[], &inner_ip(4).packet(17, &[1; 30]))).unwrap();
    let template = OuterTemplate { flow_label: FlowLabel::Hash, ..OuterTemplate::new(v6) };
    let mut header = [0; 40];
    template.header(&plain, 50, 0, PerPacket::default()).unwrap().emit(&mut header).unwrap();
    assert_eq!(header[1..4], [0x90, 0, 1]);
}
