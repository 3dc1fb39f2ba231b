//! Extended sequence numbers through the device: every row of `tests/vectors/esn-inference.json`, with packets that the
//! textbook's AES-GCM sealed and with SAs that begin where the row says.

#[path = "forms/textbook.rs"]
#[allow(dead_code)] // The other tests' part of the book.
mod textbook;

use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OpenOptions, QueuePair, QueuePairOptions, SaConfiguration, SecretKey,
    Status,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

use textbook::gcm_seal;

const KEY: [u8; 16] = [0x5e; 16];
const SALT: [u8; 4] = [7, 1, 8, 2];
const SPI: u32 = 0x4321;

/// A row: the highest number accepted, what is on the wire, and what RFC 4303 A2.2 makes of it.
struct Row {
    note: String,
    top: u64,
    low: u32,
    window: u32,
    sequence: Option<u64>,
    verdict: String,
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/esn-inference.json");
    let text = std::fs::read_to_string(path).expect("the vectors");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = |value: &serde_json::Value| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    let row = |row: &serde_json::Value| Row {
        note: row["note"].as_str().expect("a note").to_owned(),
        top: number(&row["top_t"]).expect("a number"),
        low: number(&row["seq_lo"]).expect("a number") as u32,
        window: row["window"].as_u64().expect("a number") as u32,
        sequence: number(&row["seq64"]),
        verdict: row["verdict"].as_str().expect("a verdict").to_owned(),
    };
    all["vectors"].as_array().expect("rows").iter().map(row).collect()
}

/// An IPv4 packet of 28 bytes: UDP without payload.
fn inner() -> Vec<u8> {
    let mut packet = vec![];
    etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1, 2)
        .write(&mut packet, &[])
        .expect("a vector takes all");
    packet
}

/// A frame of ESP in tunnel mode (RFC 4303 2, RFC 4106): `low` is what is on the wire, `sequence` what is authenticated.
fn sealed(low: u32, sequence: u64) -> Vec<u8> {
    let mut text = inner();
    text.extend([1, 2, 2, 4]);
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&SALT);
    nonce[4..].copy_from_slice(&sequence.to_be_bytes());
    let aad = [&SPI.to_be_bytes()[..], &sequence.to_be_bytes()].concat();
    let (text, icv) = gcm_seal(&KEY, &nonce, &aad, &text);
    let iv = sequence.to_be_bytes();
    let esp = [&SPI.to_be_bytes()[..], &low.to_be_bytes(), &iv, &text, &icv].concat();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let mut header =
        etherparse::Ipv4Header::new(esp.len() as u16, 64, 50.into(), [192, 0, 2, 1], [192, 0, 2, 2])
            .expect("a header");
    header.header_checksum = header.calc_header_checksum();
    header.write(&mut frame).expect("a vector takes all");
    frame.extend(esp);
    frame
}

struct Rig {
    world: World,
    id: NicId,
    nic: Nic,
    queue: QueuePair,
}

impl Rig {
    fn new() -> Rig {
        let world = World::new(1);
        let id = world.add_nic(&Parameters::default()).expect("in range");
        let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("open");
        let queue = nic.create_queue_pair(QueuePairOptions::default()).expect("queue pair");
        world.record_drops(id);
        world.drain();
        Rig { world, id, nic, queue }
    }

    fn install(&mut self, window: u32, sequence: u64) {
        let key = SecretKey::new(&KEY).expect("16 bytes");
        let sa = SaConfiguration {
            esn: true,
            sequence,
            replay_window: window,
            ..SaConfiguration::new(Direction::In, Mode::Tunnel, Cipher::AesGcm128, key, SALT, SPI)
        };
        self.nic.install_sa(sa).expect("install");
    }

    /// The sequence number of the packet, or why it is dropped.
    fn receive(&mut self, frame: &[u8]) -> Result<u64, Status> {
        self.world.inject(self.id, frame);
        self.world.drain();
        let mut received = vec![];
        self.queue.receive(&mut received, 8).expect("receive");
        let drops = self.world.take_drops(self.id);
        match (received.pop(), drops.first()) {
            (Some(one), None) => {
                let (status, sequence) = (one.status(), one.sequence());
                let mut bytes = vec![0; one.length()];
                self.queue.copy_out(one, &mut bytes).expect("in range");
                assert_eq!((status, &bytes[14..]), (Status::Ok, &inner()[..]));
                Ok(sequence)
            }
            (None, Some(status)) => Err(*status),
            _ => panic!("one frame in, one fate"),
        }
    }
}

#[test]
fn every_row_of_the_table_comes_out_of_the_device() {
    let rows = rows();
    assert_eq!(rows.len(), 90);
    for row in rows {
        let Row { note, top, low, window, sequence, verdict } = row;
        let what = format!("{note}: top {top:#x}, {low:#x} on the wire, window {window}");
        let mut rig = Rig::new();
        match verdict.as_str() {
            "new_right_edge" => {
                let sequence = sequence.expect("a number");
                // Under a wrong epoch nothing opens, and nothing is used up.
                rig.install(window, top);
                for wrong in [sequence.wrapping_sub(1 << 32), sequence.wrapping_add(1 << 32)] {
                    assert_eq!(rig.receive(&sealed(low, wrong)), Err(Status::IcvMismatch), "{what}");
                }
                assert_eq!(rig.receive(&sealed(low, sequence)), Ok(sequence), "{what}");
                assert_eq!(rig.receive(&sealed(low, sequence)), Err(Status::ReplayDuplicate), "{what}");
            }
            "in_window" => {
                let sequence = sequence.expect("a number");
                // Numbers up to where an SA starts count as seen: for an SA that starts at the top it is a replay.
                rig.install(window, top);
                assert_eq!(rig.receive(&sealed(low, sequence)), Err(Status::ReplayDuplicate), "{what}");
                // One that starts a window before, and has come to the top by a packet, has not seen it.
                let mut rig = Rig::new();
                rig.install(window, sequence - 1);
                if sequence != top {
                    assert_eq!(rig.receive(&sealed(top as u32, top)), Ok(top), "{what}: the top");
                }
                for wrong in [sequence.wrapping_sub(1 << 32), sequence.wrapping_add(1 << 32)] {
                    assert_eq!(rig.receive(&sealed(low, wrong)), Err(Status::IcvMismatch), "{what}");
                }
                assert_eq!(rig.receive(&sealed(low, sequence)), Ok(sequence), "{what}");
                assert_eq!(rig.receive(&sealed(low, sequence)), Err(Status::ReplayDuplicate), "{what}");
            }
            "reject_zero" | "reject_underflow" | "reject_overflow" => {
                rig.install(window, top);
                let epoch = top & !0xffff_ffff;
                for guess in [epoch, epoch.wrapping_sub(1 << 32), epoch.wrapping_add(1 << 32)] {
                    let frame = sealed(low, guess | u64::from(low));
                    assert_eq!(rig.receive(&frame), Err(Status::BadSequence), "{what}");
                }
            }
            other => panic!("no verdict: {other}"),
        }
    }
}
