//! Scapy as a witness: what it protected we open to the frames it started from, and what we protect are the octets
//! that it sent. The captures are checked in; no Python is needed here.

mod common;

use std::path::PathBuf;

use common::{Packet, cryptonic_pcap, ip_packet, read_pcap, repository};

struct Set {
    name: &'static str,
    /// Its outer headers have fields that are the sender's choice.
    tunnel: bool,
    /// Whether the device can send it; it opens every set.
    sends: bool,
}

const SETS: [Set; 15] = [
    Set { name: "esp-tunnel", tunnel: true, sends: true },
    Set { name: "esp-transport", tunnel: false, sends: true },
    Set { name: "esp-esn", tunnel: true, sends: true },
    Set { name: "esp-gmac", tunnel: true, sends: true },
    Set { name: "esp-icv", tunnel: true, sends: true },
    Set { name: "esp-implicit-iv", tunnel: true, sends: true },
    Set { name: "esp-udp", tunnel: true, sends: true },
    Set { name: "esp-beet", tunnel: false, sends: true },
    Set { name: "esp-beet-families", tunnel: true, sends: true },
    Set { name: "psp-transport", tunnel: false, sends: true },
    Set { name: "psp-tunnel", tunnel: true, sends: true },
    Set { name: "psp-gmac", tunnel: false, sends: true },
    Set { name: "psp-cookie", tunnel: false, sends: true },
    Set { name: "psp-header", tunnel: false, sends: true },
    // The device opens what has a header extension, and sends none.
    Set { name: "psp-extension", tunnel: false, sends: false },
];

impl Set {
    fn file(&self, suffix: &str) -> PathBuf {
        repository().join("tests/vectors/scapy").join(format!("{}.{suffix}", self.name))
    }

    /// The packets that come out when `input` is pushed through with an SA file of this set.
    fn push(&self, sa: &str, input: &str) -> Vec<Packet> {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let output = scratch.path().join("out.pcap");
        cryptonic_pcap(&self.file(sa), &self.file(input), &output);
        read_pcap(&output)
    }
}

fn assert_same(set: &Set, what: &str, seen: &[Packet], expected: &[Packet]) {
    for (index, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        assert_eq!(seen, expected, "{}: {what}, packet {}", set.name, index + 1);
    }
    assert_eq!(seen.len(), expected.len(), "{}: {what}, packets", set.name);
}

#[test]
fn what_scapy_protected_opens() {
    for set in &SETS {
        let opened = set.push("in.toml", "protected.pcap");
        assert_same(set, "opened", &opened, &read_pcap(&set.file("clear.pcap")));
    }
}

#[test]
fn tampered_and_replayed_packets_do_not_pass() {
    for set in &SETS {
        let opened = set.push("in.toml", "hostile.pcap");
        assert_same(set, "opened among hostile ones", &opened, &read_pcap(&set.file("clear.pcap")));
    }
}

#[test]
fn what_we_protect_is_what_scapy_sends() {
    for set in SETS.iter().filter(|set| set.sends) {
        let blank = |packets: Vec<Packet>| -> Vec<Packet> {
            packets
                .into_iter()
                .map(|packet| Packet { frame: blank_senders_choice(packet.frame, set.tunnel), ..packet })
                .collect()
        };
        let protected = blank(set.push("out.toml", "clear.pcap"));
        assert_same(set, "protected", &protected, &blank(read_pcap(&set.file("protected.pcap"))));
    }
}

/// Clears what a tunnel's standard leaves to the sender in the outer header: identification and flow label. The
/// checksum over them must be right, and is then cleared too. Transport mode leaves nothing open.
fn blank_senders_choice(mut frame: Vec<u8>, tunnel: bool) -> Vec<u8> {
    if !tunnel {
        return frame;
    }
    let (l2, ip) = ip_packet(&frame).expect("the sets hold IP packets only");
    let (at, version) = (l2.len(), ip[0] >> 4);
    if version == 4 {
        assert!(header_checksum_holds(&ip[..20]), "the checksum of the outer header is wrong");
        frame[at + 4..at + 6].fill(0);
        frame[at + 10..at + 12].fill(0);
    } else {
        frame[at + 1] &= 0xf0;
        frame[at + 2..at + 4].fill(0);
    }
    frame
}

fn header_checksum_holds(header: &[u8]) -> bool {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}
