//! PSP against the specification's printed keys and against whole frames of the reference implementation's
//! parameters (`vectors/psp.json` names their origin).

mod witness;

use cryptonic_wire::outer::{Endpoints, PerPacket};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::psp::{self, Parameters, SourcePort, Version};
use cryptonic_wire::{
    AuthenticationFailed, Decapsulated, OuterTemplate, Protocol, Room, UdpPorts, checksum, parse_receive,
    parse_transmit, psp_transform,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use witness::{Gcm, array, octets, vectors};

const VECTORS: &str = include_str!("../../tests/vectors/psp.json");
const HEADROOM: usize = 96;
const TAILROOM: usize = 16;

#[test]
fn derives_the_printed_keys() {
    let vectors = vectors(VECTORS);
    let kdf = &vectors["kdf"];
    for entry in kdf["keys"].as_array().unwrap() {
        let spi = u32::from_be_bytes(array(&entry["spi"]));
        let version = Version::from_code(entry["version"].as_u64().unwrap() as u8).unwrap();
        assert_eq!(derive(kdf, version, spi), octets(&entry["key"]), "SPI {spi:08x}");
    }
    assert_eq!(
        hex::encode(psp::key_derivation_block(Version::AesGcm256, 0x12345678, 2)),
        "00000002507631001234567800000100"
    );
}

#[test]
fn protects_and_opens_the_reference_frames() {
    let vectors = vectors(VECTORS);
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let clear = clear_frame(&vectors, name.ends_with("_empty"));
        let (parameters, iv) = parameters(case);
        let key = derive(&vectors["kdf"], parameters.version, parameters.spi);
        assert_eq!(key, octets(&case["derived_key"]), "{name}");
        let gcm = Gcm::new(&key);

        let mut storage = vec![0xa5; HEADROOM];
        storage.extend_from_slice(&clear);
        storage.resize(storage.len() + TAILROOM, 0x5a);
        let end = HEADROOM + clear.len();
        let mut room = Room::new(&mut storage, HEADROOM, end).unwrap();
        let plain = parse_transmit(room.frame()).unwrap();
        let source = SourcePort::PortsXor.port(&plain, 0);
        let ports = Ports { source, destination: psp::DEFAULT_UDP_PORT };
        let geometry = if case["mode"] == "tunnel" {
            // The reference's outer header is a copy of the inner one.
            let endpoints = Endpoints::V4 { source: [10, 0, 0, 1], destination: [10, 0, 0, 2] };
            let outer = OuterTemplate::new(endpoints);
            psp_transform::encapsulate_tunnel(
                &mut room,
                &plain,
                &parameters,
                iv,
                ports,
                &outer,
                PerPacket::default(),
            )
        } else {
            psp_transform::encapsulate_transport(&mut room, &plain, &parameters, iv, ports)
        }
        .unwrap();
        geometry.seal(&gcm, room.frame_mut()).unwrap();

        let frame = room.frame().to_vec();
        assert_eq!(frame.len() as u64, case["frame_octets"].as_u64().unwrap(), "{name}");
        assert_eq!(geometry.text.length() as u64, case["ciphertext_octets"].as_u64().unwrap(), "{name}");
        assert_eq!(hex::encode(&frame[..82]), case["first_82_octets"].as_str().unwrap(), "{name}");
        assert_eq!(hex::encode(&frame[frame.len() - 16..]), case["icv"].as_str().unwrap(), "{name}");
        assert_eq!(hex::encode(Sha256::digest(&frame)), case["frame_sha256"].as_str().unwrap(), "{name}");

        let parsed = parse_receive(room.frame(), UdpPorts::default()).unwrap();
        assert_eq!((parsed.protocol, parsed.spi), (Protocol::Psp, parameters.spi), "{name}");
        let received = psp::receive_geometry(&parsed, room.frame()).unwrap();
        assert_eq!(received, geometry, "{name}");
        if name.ends_with("_err") {
            // The reference flips a reserved bit of the crypt-offset octet, which is authenticated as received.
            room.frame_mut()[parsed.security_offset + psp::field::CRYPT_OFFSET.start] ^= 0x80;
            assert_eq!(received.open(&gcm, room.frame_mut()), Err(AuthenticationFailed));
            continue;
        }
        received.open(&gcm, room.frame_mut()).unwrap();
        let next_header = case["next_header"].as_u64().unwrap() as u8;
        assert_eq!(psp_transform::decapsulate(&mut room, &parsed), Ok(Decapsulated::Packet { next_header }));
        assert_eq!(room.frame(), clear, "{name}");
    }
}

/// The vectors' clear frame, or the same without a UDP payload.
fn clear_frame(vectors: &Value, empty: bool) -> Vec<u8> {
    let mut frame = octets(&vectors["clear_first_42"]);
    if !empty {
        frame.extend((0..1392).map(|index| index as u8));
        assert_eq!(frame.len() as u64, vectors["clear_octets"].as_u64().unwrap());
        return frame;
    }
    frame[16..18].copy_from_slice(&28u16.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[38..42].copy_from_slice(&[0x00, 0x08, 0x69, 0xa6]);
    frame
}

fn parameters(case: &Value) -> (Parameters<'static>, u64) {
    let parameters = Parameters {
        crypt_offset: case["crypt_offset_words"].as_u64().unwrap() as u8,
        virtualization_cookie: (case["vc"] == true).then_some([0; 8]),
        ..Parameters::new(
            u32::from_be_bytes(array(&case["spi"])),
            Version::from_code(case["version"].as_u64().unwrap() as u8).unwrap(),
        )
    };
    (parameters, u64::from_be_bytes(array(&case["iv"])))
}

fn derive(kdf: &Value, version: Version, spi: u32) -> Vec<u8> {
    let master = octets(&kdf[if spi >> 31 == 0 { "master_key_0" } else { "master_key_1" }]);
    let halves = (1..=2).map(|counter| psp::key_derivation_block(version, spi, counter));
    let mut key: Vec<u8> = halves.flat_map(|block| witness::cmac_of_block(&master, block)).collect();
    key.truncate(psp::key_length(version));
    key
}
