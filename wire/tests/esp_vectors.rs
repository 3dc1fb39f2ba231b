//! ESP against draft-mcgrew-gcm-test-01 (`vectors/esp-mcgrew.json`).
//!
//! The vectors are ESP packets without IP; each is put into an IPv4 frame here and goes the whole way of a received
//! packet. Their payloads are not what their next header says, so that they are no tunnel packets.

mod witness;

use cryptonic_wire::{
    Aad, AuthenticationFailed, Decapsulated, Geometry, IcvLength, Malformed, Protocol, Room, Span, UdpPorts,
    esp, esp_transform, ethernet, ipv4, parse_receive,
};
use serde_json::Value;
use witness::{Gcm, array, number, octets, vectors};

const VECTORS: &str = include_str!("../../tests/vectors/esp-mcgrew.json");

fn each_vector(mut run: impl FnMut(&Value, &str)) {
    let vectors = vectors(VECTORS);
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 17);
    for vector in vectors {
        run(vector, &format!("case {}", vector["case"]));
    }
}

#[test]
fn opens_the_printed_packets() {
    let mut opened = 0;
    each_vector(|vector, name| {
        // Case 15 is AES-GMAC (RFC 4543), whose geometry `authentication_alone_has_no_text` shows.
        if vector["alg"].as_str().unwrap().starts_with("rfc4543") {
            return;
        }
        let gcm = Gcm::new(&octets(&vector["key"]));
        let sequence = number(&vector["seq64"]) as u64;
        for icv_length in [IcvLength::Octets16, IcvLength::Octets12, IcvLength::Octets8] {
            let mut packet = octets(&vector["esp_wire"]);
            packet.truncate(packet.len() - 16 + icv_length.octets());
            let mut frame = ipv4_frame(&packet);
            let end = frame.len();
            let mut room = Room::new(&mut frame, 0, end).unwrap();

            let received = parse_receive(room.frame(), UdpPorts::default());
            if number(&vector["spi"]) == 0 {
                // Case 4 has an SPI that is never on the wire; `seals_to_the_printed_packets` has it.
                assert_eq!(received, Err(Malformed::ReservedSpi), "{name}");
                return;
            }
            let parsed = received.unwrap();
            opened += 1;
            assert_eq!(parsed.protocol, Protocol::Esp, "{name}");
            assert_eq!(u128::from(parsed.spi), number(&vector["spi"]), "{name}");
            assert_eq!(parsed.sequence, sequence as u32, "{name}");
            let parameters = esp::Parameters {
                extended_sequence: vector["esn"] == true,
                icv_length,
                ..esp::Parameters::new(parsed.spi, array(&vector["salt"]))
            };
            let geometry = esp::receive_geometry(&parsed, room.frame(), &parameters, sequence).unwrap();
            assert_eq!(geometry.nonce, array(&vector["nonce"]), "{name}");
            let aad = match geometry.aad {
                Aad::InPlace { start, end } => room.frame()[start..end].to_vec(),
                Aad::Inline { bytes, length } => bytes[..usize::from(length)].to_vec(),
                Aad::InPlaceWithSequenceHigh { .. } => panic!("{name}: no AAD of AES-GCM"),
            };
            assert_eq!(aad, octets(&vector["aad"]), "{name}");

            geometry.open(&gcm, room.frame_mut()).unwrap_or_else(|_| panic!("{name}"));
            let text = octets(&vector["plaintext_with_trailer"]);
            assert_eq!(room.frame()[geometry.text.range()], text, "{name}");
            let trailer = esp::parse_trailer(&text).unwrap();
            assert_eq!(u64::from(trailer.next_header), vector["next_header"].as_u64().unwrap(), "{name}");
            assert_eq!(u64::from(trailer.pad_length), vector["pad_len"].as_u64().unwrap(), "{name}");

            let result = esp_transform::decapsulate_transport(&mut room, &parsed, &parameters);
            if trailer.next_header == 59 {
                assert_eq!(result, Ok(Decapsulated::Dummy), "{name}");
                continue;
            }
            let next_header = trailer.next_header;
            assert_eq!(result, Ok(Decapsulated::Packet { next_header }), "{name}");
            assert_eq!(room.frame()[34..], text[..trailer.payload_length], "{name}");
        }
    });
    assert_eq!(opened, 15 * 3);
}

#[test]
fn seals_to_the_printed_packets() {
    each_vector(|vector, name| {
        if vector["alg"].as_str().unwrap().starts_with("rfc4543") {
            return;
        }
        // The vectors' IVs are not their sequence numbers, hence not by way of `esp_transform`.
        let expected = octets(&vector["esp_wire"]);
        let mut packet = vec![0u8; expected.len()];
        let spi = number(&vector["spi"]) as u32;
        let sequence = number(&vector["seq64"]) as u64;
        let iv = array(&vector["iv"]);
        esp::Header { spi, sequence: sequence as u32 }.emit(&mut packet).unwrap();
        packet[esp::field::IV].copy_from_slice(&iv);
        assert_eq!(esp::Header::parse(&expected), esp::Header::parse(&packet), "{name}");
        let text = octets(&vector["plaintext_with_trailer"]);
        let text_span = Span::new(16, 16 + text.len());
        packet[text_span.range()].copy_from_slice(&text);
        let payload_length = text.len() - 2 - vector["pad_len"].as_u64().unwrap() as usize;
        let trailer = &mut packet[16 + payload_length..text_span.end];
        esp::emit_trailer(trailer, vector["next_header"].as_u64().unwrap() as u8).unwrap();
        let geometry = Geometry {
            nonce: esp::nonce(array(&vector["salt"]), iv),
            aad: esp::aad(0, spi, (vector["esn"] == true).then_some(sequence)),
            text: text_span,
            icv: Span::new(text_span.end, packet.len()),
        };
        geometry.seal(&Gcm::new(&octets(&vector["key"])), &mut packet).unwrap();
        assert_eq!(hex::encode(packet), hex::encode(expected), "{name}");
    });
}

#[test]
fn gmac_packet_of_the_draft_opens_and_seals() {
    let mut cases = 0;
    each_vector(|vector, name| {
        if !vector["alg"].as_str().unwrap().starts_with("rfc4543") {
            return;
        }
        cases += 1;
        let gcm = Gcm::new(&octets(&vector["key"]));
        let packet = octets(&vector["esp_wire"]);
        let mut frame = ipv4_frame(&packet);
        let parsed = parse_receive(&frame, UdpPorts::default()).unwrap();
        let parameters = esp::Parameters {
            cipher: esp::Cipher::Gmac,
            extended_sequence: vector["esn"] == true,
            ..esp::Parameters::new(parsed.spi, array(&vector["salt"]))
        };
        let sequence = number(&vector["seq64"]) as u64;
        let geometry = esp::receive_geometry(&parsed, &frame, &parameters, sequence).unwrap();
        assert_eq!(geometry.nonce, array(&vector["nonce"]), "{name}");
        assert_eq!(geometry.text.length(), 0, "{name}");
        assert_eq!(geometry.aad, Aad::InPlace { start: 34, end: frame.len() - 16 }, "{name}");
        geometry.open(&gcm, &mut frame).unwrap_or_else(|_| panic!("{name}"));
        assert_eq!(frame[34..], packet, "{name}: nothing is decrypted");

        frame[geometry.icv.range()].fill(0);
        geometry.seal(&gcm, &mut frame).unwrap();
        assert_eq!(hex::encode(&frame[34..]), hex::encode(&packet), "{name}");
        frame[34 + 12] ^= 1;
        let opened = geometry.open(&gcm, &mut frame);
        assert_eq!(opened, Err(AuthenticationFailed), "{name}: the IV is authenticated");
    });
    assert_eq!(cases, 1);
}

/// An Ethernet and IPv4 header before an ESP packet.
fn ipv4_frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0u8; 34];
    let link = ethernet::Header {
        destination: [2, 0, 0, 0, 0, 2],
        source: [2, 0, 0, 0, 0, 1],
        tags: [None; ethernet::MAX_TAGS],
        ethertype: ethernet::ethertype::IPV4,
    };
    link.emit(&mut frame).unwrap();
    let header = ipv4::Header {
        header_length: 20,
        traffic_class: 0,
        total_length: 20 + packet.len() as u16,
        identification: 0,
        flags_and_fragment_offset: ipv4::flag::DONT_FRAGMENT,
        ttl: 64,
        protocol: 50,
        checksum: 0,
        source: [192, 0, 2, 1],
        destination: [192, 0, 2, 2],
    };
    header.with_checksum().emit(&mut frame[14..]).unwrap();
    frame.extend_from_slice(packet);
    frame
}
