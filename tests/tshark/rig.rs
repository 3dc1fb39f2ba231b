//! Runs the PSP dissector in tshark, and makes the frames that it is run on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::repository;
use super::{have_tshark, skip};

const FINDINGS: [&str; 9] = [
    "psp.expert.truncated",
    "psp.expert.bad_version",
    "psp.expert.bad_header_length",
    "psp.expert.crypt_offset_past_end",
    "psp.expert.reserved_spi",
    "psp.expert.reserved_bit",
    "psp.expert.reserved_bits_set",
    "psp.expert.gmac_crypt_offset",
    "psp.expert.cut_by_capture",
];

const FIELDS: [&str; 27] = [
    "psp",
    "psp.next_header",
    "psp.hdr_ext_len",
    "psp.hdr_len",
    "psp.reserved",
    "psp.crypt_offset",
    "psp.crypt_offset_octets",
    "psp.sample",
    "psp.drop",
    "psp.version",
    "psp.vc_present",
    "psp.one",
    "psp.spi",
    "psp.spi.device_key",
    "psp.spi.index",
    "psp.iv",
    "psp.iv_time",
    "psp.vc",
    "psp.vc_encrypted",
    "psp.extension",
    "psp.extension_encrypted",
    "psp.payload",
    "psp.inner.srcport",
    "psp.inner.dstport",
    "psp.encrypted",
    "psp.icv",
    "psp.undissected",
];

/// What is shown of one packet: the fields that are there, each with its value as tshark prints it. A finding has
/// the value "found". Empty for a packet that is not PSP.
pub type Shown = BTreeMap<&'static str, String>;

pub fn script() -> PathBuf {
    repository().join("src/wireshark/psp.lua")
}

/// Whether to run a test that needs a tshark that loads Lua scripts: some builds load none for root.
pub fn have_lua() -> bool {
    if !have_tshark() {
        return false;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (probe, capture) = (scratch.path().join("probe.lua"), scratch.path().join("empty.pcap"));
    std::fs::write(&probe, "Proto('probe_of_lua', 'Probe')").expect("a script");
    write_pcap(&capture, &[]);
    let output = tshark(&probe, &capture).args(["-T", "fields", "-e", "probe_of_lua"]).output();
    if output.is_ok_and(|output| output.status.success()) {
        return true;
    }
    skip("this tshark loads no Lua scripts; later versions than 4.0 load none for root")
}

fn tshark(script: &Path, capture: &Path) -> Command {
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-X").arg(format!("lua_script:{}", script.display())).arg("-r").arg(capture);
    tshark
}

/// Every packet of a capture as the dissector shows it.
pub fn dissect(capture: &Path, preferences: &[&str]) -> Vec<Shown> {
    let mut tshark = tshark(&script(), capture);
    for preference in preferences {
        tshark.args(["-o", preference]);
    }
    tshark.args(["-T", "fields", "-E", "separator=/t"]);
    let columns: Vec<&'static str> = FIELDS.into_iter().chain(FINDINGS).collect();
    for column in &columns {
        tshark.args(["-e", column]);
    }
    let output = tshark.output().expect("tshark runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("Lua"), "tshark fails: {errors}");
    let text = String::from_utf8(output.stdout).expect("tshark prints text");
    text.lines()
        .map(|line| {
            let values: Vec<&str> = line.split('\t').collect();
            assert_eq!(values.len(), columns.len(), "one column for each field: {line}");
            let shown = columns.iter().zip(values).filter(|(_, value)| !value.is_empty());
            shown
                .map(|(name, value)| {
                    let value = match (*name, value) {
                        (name, _) if FINDINGS.contains(&name) => "found",
                        // 4.0 prints 0 and 1, later versions False and True.
                        (_, "False") => "0",
                        (_, "True") => "1",
                        (_, value) => value,
                    };
                    (*name, value.to_owned())
                })
                .collect()
        })
        .collect()
}

/// The header's fixed part, one member for each field of the specification's figure.
#[derive(Clone, Copy)]
pub struct Header {
    pub next_header: u8,
    pub extension_length: u8,
    pub reserved: u8,
    pub crypt_offset: u8,
    pub sample: bool,
    pub drop: bool,
    pub version: u8,
    pub cookie_present: bool,
    pub one: bool,
    pub spi: u32,
    pub iv: u64,
}

pub const PLAIN: Header = Header {
    next_header: 6,
    extension_length: 1,
    reserved: 0,
    crypt_offset: 0,
    sample: false,
    drop: false,
    version: 0,
    cookie_present: false,
    one: true,
    spi: 0x9a34_5678,
    iv: 1_234_567_890_123_456_789,
};

impl Header {
    /// As they stand on the wire.
    pub fn octets(&self) -> Vec<u8> {
        let bit = |set: bool, position: u8| u8::from(set) << position;
        let flags = bit(self.sample, 7)
            | bit(self.drop, 6)
            | self.version << 2
            | bit(self.cookie_present, 1)
            | bit(self.one, 0);
        let first = [self.next_header, self.extension_length, self.reserved << 6 | self.crypt_offset, flags];
        [&first[..], &self.spi.to_be_bytes(), &self.iv.to_be_bytes()].concat()
    }

    /// The fields that these parameters have, as tshark prints them.
    pub fn shown(&self) -> Shown {
        let number = |value: u64| value.to_string();
        let flag = |value: bool| u8::from(value).to_string();
        Shown::from([
            ("psp", "psp".to_owned()),
            ("psp.next_header", number(self.next_header.into())),
            ("psp.hdr_ext_len", number(self.extension_length.into())),
            ("psp.hdr_len", number(8 + 8 * u64::from(self.extension_length))),
            ("psp.reserved", number(self.reserved.into())),
            ("psp.crypt_offset", number(self.crypt_offset.into())),
            ("psp.crypt_offset_octets", number(4 * u64::from(self.crypt_offset))),
            ("psp.sample", flag(self.sample)),
            ("psp.drop", flag(self.drop)),
            ("psp.version", number(self.version.into())),
            ("psp.vc_present", flag(self.cookie_present)),
            ("psp.one", flag(self.one)),
            ("psp.spi", format!("{:#010x}", self.spi)),
            ("psp.spi.device_key", number((self.spi >> 31).into())),
            ("psp.spi.index", format!("{:#010x}", self.spi & 0x7fff_ffff)),
            ("psp.iv", number(self.iv)),
            // Picoseconds; the last three digits are lost.
            (
                "psp.iv_time",
                format!("{}.{:09}", self.iv / 1_000_000_000_000, self.iv % 1_000_000_000_000 / 1000),
            ),
        ])
    }
}

/// How many packets the script raised an error on, or read past the end of. What it finds wrong with a packet is
/// `_ws.malformed` as well, but not `_ws.malformed.expert`.
pub fn failures(script: &Path, capture: &Path) -> usize {
    let output = tshark(script, capture)
        .args(["-Y", "_ws.lua.error || _ws.malformed.expert || _ws.short"])
        .args(["-T", "fields", "-e", "frame.number"])
        .output()
        .expect("tshark runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark fails: {errors}");
    output.stdout.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()).count()
}

/// Octets that count up from `first`.
pub fn octets(first: u8, count: usize) -> Vec<u8> {
    (0..count).map(|index| first.wrapping_add(index as u8)).collect()
}

/// An Ethernet frame with a UDP datagram over IPv4 or IPv6. Checksums are 0.
pub fn udp_frame(family: u8, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a short datagram");
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if family == 4 {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + length).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([17, 64]);
        for host in [1, 2] {
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
    }
    for word in [source_port, destination_port, length, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// Frames of which the capture has every octet.
pub fn whole(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, usize)> {
    frames.iter().map(|frame| (frame.clone(), frame.len())).collect()
}

/// Writes Ethernet frames as a pcap file: the octets kept of each, and its length on the wire.
pub fn write_pcap(path: &Path, frames: &[(Vec<u8>, usize)]) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (kept, length) in frames {
        for word in [0, 0, kept.len(), *length] {
            bytes.extend(u32::try_from(word).expect("a short frame").to_le_bytes());
        }
        bytes.extend(kept);
    }
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
