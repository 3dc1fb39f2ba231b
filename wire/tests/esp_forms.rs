//! ESP in every form against a second implementation, octet by octet: mode, families, UDP, cipher, ESN, key and size.

mod witness;

use cryptonic_wire::esp::Ipv6UdpChecksum;
use cryptonic_wire::outer::PerPacket;
use cryptonic_wire::{Decapsulated, OuterTemplate, esp_beet, esp_transform};
use witness::exchange::{Mode, endpoints, inner_ip, parameters, receive, send, wrapped};
use witness::reference::{self, Esp, EspCipher, Ip};

const TAGS: &[(u16, u16)] = &[(0x88a8, 0x2007), (0x8100, 0x6005)];
/// Payload octets: none, about a word and about a block, a usual MTU, a jumbo frame.
const SIZES: [usize; 14] = [0, 1, 2, 3, 4, 13, 14, 15, 16, 17, 31, 32, 1472, 8972];
const SEQUENCES: [u64; 3] = [1, 0xffff_ffff, 0x0000_0002_8000_0007];

/// One row of the table.
#[derive(Clone, Debug)]
struct Case {
    mode: Mode,
    inner: u8,
    outer: u8,
    udp: Option<Ipv6UdpChecksum>,
    esp: Esp,
    sequence: u64,
    size: usize,
}

/// Every combination; the sequence number and the key's length go round.
fn cases() -> Vec<Case> {
    let ciphers = [
        (EspCipher::Gcm, 8),
        (EspCipher::Gcm, 12),
        (EspCipher::Gcm, 16),
        (EspCipher::ImplicitIv, 16),
        (EspCipher::Gmac, 16),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for mode in [Mode::Tunnel, Mode::Transport, Mode::Beet] {
        for (inner, outer) in [(4, 4), (4, 6), (6, 4), (6, 6)] {
            if mode == Mode::Transport && inner != outer {
                continue;
            }
            for udp in [None, Some(Ipv6UdpChecksum::Zero), Some(Ipv6UdpChecksum::Computed)] {
                for (cipher, icv_octets) in ciphers {
                    for esn in [false, true] {
                        for size in SIZES {
                            let turn = cases.len();
                            let sequence = SEQUENCES[turn % if esn { 3 } else { 2 }];
                            let key = (0..[16, 24, 32][turn / 2 % 3])
                                .map(|octet| (octet * 7 + turn) as u8)
                                .collect();
                            let salt = [0xa1, 0xb2, 0xc3, turn as u8];
                            let esp = Esp { key, salt, spi: 0x1000 + turn as u32, esn, cipher, icv_octets };
                            cases.push(Case { mode, inner, outer, udp, esp, sequence, size });
                        }
                    }
                }
            }
        }
    }
    cases
}

/// The outer header, as RFC 4301's defaults make it in tunnel mode, or as it is carried over in BEET mode.
fn outer_ip(case: &Case, inner: &Ip) -> Ip {
    let (source, destination) = if case.outer == 4 {
        (vec![192, 0, 2, 1], vec![192, 0, 2, 2])
    } else {
        (vec![0x20; 16], vec![0x21; 16])
    };
    // An IPv6 packet is never fragmented by routers, so it has don't-fragment set where IPv4 carries it.
    let dont_fragment = inner.dont_fragment || case.inner == 6;
    let mut outer = Ip { source, destination, dont_fragment, ..inner.clone() };
    match case.mode {
        Mode::Tunnel => {
            outer.hop_limit = 64;
            outer.flow_label = 0;
            outer.identification = if dont_fragment { 0 } else { 0x77 };
        }
        _ if case.inner == 6 => outer.identification = 0,
        _ => {}
    }
    if case.outer == 4 {
        outer.flow_label = 0;
    }
    outer
}

#[test]
fn every_form_is_what_the_second_implementation_makes() {
    let cases = cases();
    assert_eq!(cases.len(), (4 + 2 + 4) * 3 * 5 * 2 * SIZES.len());
    for case in &cases {
        let Case { mode, esp, sequence, udp, .. } = case;
        let inner = inner_ip(case.inner);
        let payload: Vec<u8> = (0..case.size).map(|index| (index * 13) as u8).collect();
        let packet = inner.packet(132, &payload);
        let clear = reference::frame(TAGS, &packet);
        let outer = outer_ip(case, &inner);
        let expected = match mode {
            Mode::Tunnel => {
                wrapped(&outer, *udp, &esp.packet(*sequence, &packet, if case.inner == 4 { 4 } else { 41 }))
            }
            Mode::Transport => wrapped(&inner, *udp, &esp.packet(*sequence, &payload, 132)),
            Mode::Beet => wrapped(&outer, *udp, &esp.packet(*sequence, &payload, 132)),
        };
        let expected = reference::frame(TAGS, &expected);

        let parameters = parameters(esp, *udp);
        let (inner_ends, outer_ends) = (endpoints(&inner), endpoints(&outer));
        let sent = send(&clear, esp, &parameters, |room, plain| match mode {
            Mode::Tunnel => {
                let outer = OuterTemplate::new(outer_ends);
                let per_packet = PerPacket::new(0x77);
                esp_transform::encapsulate_tunnel(room, plain, &parameters, *sequence, &outer, per_packet)
            }
            Mode::Transport => esp_transform::encapsulate_transport(room, plain, &parameters, *sequence),
            Mode::Beet => {
                esp_beet::encapsulate_beet(room, plain, &parameters, *sequence, &inner_ends, &outer_ends)
            }
        });
        assert!(
            sent.as_ref() == Ok(&expected),
            "{case:?}: {} for {}",
            hex::encode(sent.unwrap()),
            hex::encode(&expected)
        );

        let (opened, frame) = receive(&expected, esp, &parameters, *sequence, |room, parsed| match mode {
            Mode::Tunnel => esp_transform::decapsulate_tunnel(room, parsed, &parameters),
            Mode::Transport => esp_transform::decapsulate_transport(room, parsed, &parameters),
            Mode::Beet => esp_beet::decapsulate_beet(room, parsed, &parameters, &inner_ends),
        })
        .unwrap();
        // IPv4 that came through BEET mode in IPv6 is atomic, and IPv6 through IPv4 has lost its flow label.
        let expected_inner = match (mode, case.inner, case.outer) {
            (Mode::Beet, 4, 6) => Ip { dont_fragment: true, identification: 0, ..inner.clone() },
            (Mode::Beet, 6, 4) => Ip { flow_label: 0, ..inner.clone() },
            _ => inner.clone(),
        };
        assert!(frame == reference::frame(TAGS, &expected_inner.packet(132, &payload)), "{case:?}");
        let next_header = match mode {
            Mode::Tunnel if case.inner == 4 => 4,
            Mode::Tunnel => 41,
            Mode::Transport | Mode::Beet => 132,
        };
        assert_eq!(opened, Decapsulated::Packet { next_header }, "{case:?}");
    }
}
