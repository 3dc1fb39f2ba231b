//! PSP frames of the reference implementation's parameters, through driver, rings and NIC, both ways.
//!
//! `tests/vectors/psp.json` holds keys that the specification prints, and whole frames computed from its
//! text with another AES-GCM.

use cryptonic_driver::{
    Nic, OpenOptions, Protection, PspDeviceKeys, PspTransmit, QueuePairOptions, SecretKey, SourcePort,
    Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{Parameters, World};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/psp.json")).expect("the vectors are JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a string")).expect("hex")
}

/// The clear frame of a case: a fixed header and 0, 1, … 255, 0, …; the `empty` case has no UDP payload.
fn clear_frame(vectors: &Value, empty: bool) -> Vec<u8> {
    let mut frame = bytes(&vectors["clear_first_42"]);
    if !empty {
        frame.extend((0..1392).map(|index| index as u8));
        return frame;
    }
    frame[16..18].copy_from_slice(&28_u16.to_be_bytes());
    frame[38..40].copy_from_slice(&8_u16.to_be_bytes());
    // The case is the same packet with lengths and checksums adjusted; both sums are of 16-bit words.
    frame[24..26].fill(0);
    let sum = ones_complement(&frame[14..34]);
    frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    frame[40..42].fill(0);
    let mut pseudo = frame[26..34].to_vec();
    pseudo.extend([0, 17, 0, 8]);
    pseudo.extend(&frame[34..42]);
    let sum = ones_complement(&pseudo);
    frame[40..42].copy_from_slice(&(!sum).to_be_bytes());
    frame
}

fn ones_complement(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

#[test]
fn transport_frames_leave_and_open_as_printed() {
    let vectors = vectors();
    let device_key = |name: &str| <[u8; 32]>::try_from(bytes(&vectors["kdf"][name])).expect("32 bytes");
    let keys = || PspDeviceKeys::new(&device_key("master_key_0"), &device_key("master_key_1"));
    let mut shown = 0;
    for case in vectors["cases"].as_array().expect("cases") {
        let name = case["case"].as_str().expect("a name");
        let with_cookie = case["vc"].as_bool().expect("a flag");
        if case["mode"] != "transport" || with_cookie || case.get("note").is_some() {
            continue;
        }
        let clear = clear_frame(&vectors, name.ends_with("_empty"));
        let spi = u32::from_be_bytes(bytes(&case["spi"]).try_into().expect("4 bytes"));
        let version = case["version"].as_u64().expect("a number") as u8;

        // Out: the key of the case in the descriptor.
        let world = World::new(1);
        let id = world.add_nic(&Parameters::default()).expect("in range");
        let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("open");
        let mut queue =
            nic.create_queue_pair(QueuePairOptions { stride: 64, ..Default::default() }).expect("queue pair");
        nic.psp_test_iv_load(1).expect("IVs begin at 1");
        let key = SecretKey::new(&bytes(&case["derived_key"])).expect("a key");
        let key = queue.add_psp_key(version, spi, &key).expect("room for a key");
        let mut buffer = queue.take_buffer().expect("a buffer");
        queue.fill(&mut buffer, &clear).expect("fits");
        let psp = PspTransmit {
            crypt_offset: case["crypt_offset_words"].as_u64().expect("a number") as u8,
            source_port: SourcePort::PortsXor,
            ..PspTransmit::new(key)
        };
        let mut batch = vec![TransmitPacket::new(buffer, Protection::PspKey(psp), 0)];
        queue.transmit(&mut batch).expect("transmit");
        world.drain();
        let sent = world.take_sent(id);
        assert_eq!(sent.len(), 1, "{name}");
        assert_eq!(sent[0].len() as u64, case["frame_octets"].as_u64().expect("a number"), "{name}");
        let first = bytes(&case["first_82_octets"]);
        assert_eq!(sent[0][..first.len()], first[..], "{name}");
        assert_eq!(
            hex::encode(Sha256::digest(&sent[0])),
            case["frame_sha256"].as_str().expect("text"),
            "{name}"
        );

        // In: no key is installed; it is derived from the device keys.
        nic.psp_test_keys_load(keys()).expect("load");
        nic.psp_receive(1 << version, 1000).expect("receive");
        world.record_drops(id);
        world.inject(id, &sent[0]);
        let mut received = vec![];
        let deadline = queue.time() + Time::from_microseconds(100);
        while queue.receive(&mut received, 1).expect("receive") == 0 && queue.time() < deadline {
            queue.relax();
        }
        let one = received.pop().unwrap_or_else(|| panic!("{name}: dropped for {:?}", world.take_drops(id)));
        assert_eq!((one.status(), one.spi(), one.iv()), (Status::Ok, spi, 1), "{name}");
        let mut opened = vec![0; one.length()];
        queue.copy_out(one, &mut opened).expect("in range");
        assert_eq!(opened, clear, "{name}");
        shown += 1;
    }
    assert_eq!(shown, 5, "cases in the file");
}
