//! ESP packets of Scapy (`vectors/esp-forms.json`): sent octet by octet, and opened.

mod witness;

use cryptonic_wire::esp::{self, Cipher, Ipv6UdpChecksum, LastOptions, Parameters, UdpEncapsulation};
use cryptonic_wire::outer::{Endpoints, PerPacket};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::{
    Decapsulated, OuterTemplate, Room, UdpPorts, esp_transform, parse_receive, parse_transmit,
};
use serde_json::Value;
use witness::{Gcm, array, number, octets, reference, vectors};

const HEADROOM: usize = 96;
const UDP_PORTS: UdpPorts = UdpPorts { psp: 1000, esp: 4500 };

fn parameters(case: &Value) -> Parameters {
    let udp = UdpEncapsulation {
        ports: Ports { source: 4500, destination: 4500 },
        ipv6_checksum: Ipv6UdpChecksum::Zero,
    };
    Parameters {
        extended_sequence: case["esn"] == true,
        cipher: if case["cipher"] == "gmac" { Cipher::Gmac } else { Cipher::Gcm },
        udp: (case["udp"] == true).then_some(udp),
        // Where Scapy puts them.
        last_options: LastOptions::Outside,
        ..Parameters::new(number(&case["spi"]) as u32, array(&case["salt"]))
    }
}

/// The ends of the tunnel are the addresses of the protected packet.
fn template(protected: &[u8]) -> OuterTemplate {
    OuterTemplate::new(if protected[0] >> 4 == 4 {
        Endpoints::V4 {
            source: protected[12..16].try_into().unwrap(),
            destination: protected[16..20].try_into().unwrap(),
        }
    } else {
        Endpoints::V6 {
            source: protected[8..24].try_into().unwrap(),
            destination: protected[24..40].try_into().unwrap(),
        }
    })
}

#[test]
fn packets_of_scapy_are_sent_and_opened() {
    let vectors = vectors(include_str!("vectors/esp-forms.json"));
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 112);
    for (index, case) in cases.iter().enumerate() {
        let (parameters, gcm) = (parameters(case), Gcm::new(&octets(&case["key"])));
        let sequence = number(&case["sequence"]) as u64;
        let clear = reference::frame(&[], &octets(&case["clear"]));
        let protected = octets(&case["protected"]);
        let tunnel = case["mode"] == "tunnel";

        let mut storage = [&[0xee; HEADROOM][..], &clear, &[0xdd; 24]].concat();
        let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + clear.len()).unwrap();
        let plain = parse_transmit(room.frame()).unwrap();
        let geometry = if tunnel {
            let (outer, per_packet) = (template(&protected), PerPacket::new(0x77));
            esp_transform::encapsulate_tunnel(&mut room, &plain, &parameters, sequence, &outer, per_packet)
        } else {
            esp_transform::encapsulate_transport(&mut room, &plain, &parameters, sequence)
        }
        .unwrap();
        geometry.seal(&gcm, room.frame_mut()).unwrap();
        esp_transform::finish_outer_checksum(room.frame_mut(), &parameters).unwrap();
        let protected = reference::frame(&[], &protected);
        assert_eq!(hex::encode(room.frame()), hex::encode(&protected), "case {index}: {case}");

        let mut storage = protected.clone();
        let mut room = Room::new(&mut storage, 0, protected.len()).unwrap();
        let parsed = parse_receive(room.frame(), UDP_PORTS).unwrap();
        let geometry = esp::receive_geometry(&parsed, room.frame(), &parameters, sequence).unwrap();
        geometry.open(&gcm, room.frame_mut()).unwrap();
        let opened = if tunnel {
            esp_transform::decapsulate_tunnel(&mut room, &parsed, &parameters)
        } else {
            esp_transform::decapsulate_transport(&mut room, &parsed, &parameters)
        };
        assert!(matches!(opened, Ok(Decapsulated::Packet { .. })), "case {index}: {opened:?}");
        assert_eq!(hex::encode(room.frame()), hex::encode(&clear), "case {index}");
    }
}
