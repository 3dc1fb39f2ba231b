//! What the tests on captures share. A reader of their own, so that a fault in ours cannot hide itself.

use std::path::Path;
use std::process::Command;

/// A packet of a capture: when, in seconds and microseconds, and its Ethernet frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub time: (u32, u32),
    pub frame: Vec<u8>,
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `cryptonic pcap`, which must succeed.
pub fn cryptonic_pcap(sa_file: &Path, input: &Path, output: &Path) {
    let run = Command::new(env!("CARGO_BIN_EXE_cryptonic"))
        .arg("pcap")
        .arg("--sa")
        .args([sa_file, input, output])
        .output()
        .expect("the command line runs");
    assert!(
        run.status.success(),
        "cryptonic pcap --sa {} {} ends with {}\n{}",
        sa_file.display(),
        input.display(),
        run.status,
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(output.is_file(), "cryptonic pcap wrote no {}", output.display());
}

/// The packets of a pcap file in this machine's byte order, in microseconds, with Ethernet frames.
pub fn read_pcap(path: &Path) -> Vec<Packet> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four octets"));
    assert_eq!(word(0), 0xa1b2_c3d4, "{}: a pcap file with microseconds", path.display());
    assert_eq!(word(20), 1, "{}: link type Ethernet", path.display());
    let mut packets = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let length = word(at + 8) as usize;
        assert_eq!(length, word(at + 12) as usize, "{}: packet {} is cut", path.display(), packets.len() + 1);
        packets.push(Packet {
            time: (word(at), word(at + 4)),
            frame: bytes[at + 16..at + 16 + length].to_vec(),
        });
        at += 16 + length;
    }
    packets
}

/// A frame's L2 header up to where its IP packet begins, and that packet without Ethernet padding.
/// `None` when it carries no IP.
pub fn ip_packet(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let (l2, ip) = frame.split_at(at + 2);
    let length = match l2[at..] {
        [0x08, 0x00] => usize::from(u16::from_be_bytes([ip[2], ip[3]])),
        [0x86, 0xdd] => 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])),
        _ => return None,
    };
    Some((l2, &ip[..length]))
}
