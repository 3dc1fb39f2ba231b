//! The PSP dissector for Wireshark, run in tshark. Scapy's packets witness where each field stands, against the
//! parameters they were made with; frames made here, from the header's figure in the specification, add what Scapy does
//! not send.

use std::path::Path;
use std::process::Command;

use super::common::{ip_packet, read_pcap, repository};
use super::rig::{
    Header, PLAIN, Shown, dissect, failures, have_lua, octets, script, udp_frame, whole, write_pcap,
};
use super::{hex, written_command};

/// What Scapy sends, against the parameters in the SA file that its generator wrote and the packets that it started from.
#[test]
fn scapys_packets_show_the_parameters_they_were_made_with() {
    if !have_lua() {
        return;
    }
    for (name, packets) in [("psp-transport", 12), ("psp-cookie", 6), ("psp-header", 8)] {
        let file = |suffix: &str| repository().join("tests/vectors/scapy").join(format!("{name}.{suffix}"));
        let clear = read_pcap(&file("clear.pcap"));
        let sent = read_pcap(&file("protected.pcap"));
        let seen = dissect(&file("protected.pcap"), &[]);
        assert_eq!((clear.len(), sent.len(), seen.len()), (packets, packets, packets), "{name}: packets");
        let mut sas = psp_sas(&file("out.toml"));
        for (index, ((clear, sent), seen)) in clear.iter().zip(&sent).zip(&seen).enumerate() {
            let expected = expected_of_scapy(&mut sas, &clear.frame, &sent.frame);
            assert_eq!(*seen, expected, "{name}: packet {}", index + 1);
        }
    }
}

/// A PSP SA of an SA file, and how many packets it sent.
struct PspSa {
    source_port: u16,
    header: Header,
    cookie: Option<String>,
}

fn psp_sas(path: &Path) -> Vec<PspSa> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table: toml::Table = text.parse().expect("an SA file is TOML");
    let sas = table["sa"].as_array().expect("SAs").iter();
    sas.map(|sa| {
        let number = |key: &str| sa[key].as_integer().unwrap_or_else(|| panic!("{key} is a number"));
        let cookie = sa.get("vc").map(|value| value.as_str().expect("vc is text").to_owned());
        let is = |key: &str| sa.get(key).is_some_and(|value| value.as_bool().expect("true or false"));
        let header = Header {
            sample: is("sample"),
            drop: is("drop"),
            extension_length: if cookie.is_some() { 2 } else { 1 },
            crypt_offset: u8::try_from(number("crypt_offset")).expect("six bits"),
            version: u8::try_from(number("version")).expect("four bits"),
            cookie_present: cookie.is_some(),
            spi: u32::try_from(number("spi")).expect("32 bits"),
            iv: u64::try_from(number("iv")).expect("an IV"),
            ..PLAIN
        };
        PspSa { source_port: u16::try_from(number("src_port")).expect("a port"), header, cookie }
    })
    .collect()
}

/// What must be shown of a packet that Scapy protected. Each SA has a UDP source port of its own.
fn expected_of_scapy(sas: &mut [PspSa], clear: &[u8], sent: &[u8]) -> Shown {
    let upper = |frame: &'_ [u8]| -> (u8, Vec<u8>) {
        let (_, ip) = ip_packet(frame).expect("an IP packet");
        if ip[0] >> 4 == 4 { (ip[9], ip[20..].to_vec()) } else { (ip[6], ip[40..].to_vec()) }
    };
    let (next_header, payload) = upper(clear);
    let (_, udp) = upper(sent);
    let port = u16::from_be_bytes([udp[0], udp[1]]);
    let sa = sas.iter_mut().find(|sa| sa.source_port == port).expect("an SA with this source port");
    sa.header.next_header = next_header;

    let mut expected = sa.header.shown();
    let covered = 4 * usize::from(sa.header.crypt_offset);
    let cookie_bytes = if sa.cookie.is_some() { 8 } else { 0 };
    match &sa.cookie {
        Some(cookie) if covered >= 8 => expected.insert("psp.vc", format!("0x{cookie}")),
        // Behind the headers of UDP and PSP.
        Some(_) => expected.insert("psp.vc_encrypted", hex(&udp[8 + 16..8 + 16 + 8])),
        None => None,
    };
    // Versions 2 and 3 encrypt nothing.
    let in_clear = if sa.header.version > 1 { payload.len() } else { covered.saturating_sub(cookie_bytes) };
    if in_clear > 0 {
        expected.insert("psp.payload", hex(&payload[..in_clear]));
        if matches!(next_header, 6 | 17) {
            let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]).to_string();
            expected.insert("psp.inner.srcport", port(0));
            expected.insert("psp.inner.dstport", port(2));
        }
    }
    let icv_start = udp.len() - 16;
    // From where the text begins, which may be within the cookie.
    let text_start = if sa.header.version > 1 { icv_start } else { 8 + 16 + covered };
    let encrypted = &udp[text_start..icv_start];
    if !encrypted.is_empty() {
        expected.insert("psp.encrypted", hex(encrypted));
    }
    expected.insert("psp.icv", hex(&udp[icv_start..]));
    sa.header.iv += 1;
    expected
}

/// A frame made here: what follows the fixed header, and what must be shown beside the header's fields.
struct Case {
    name: &'static str,
    header: Header,
    behind: Vec<u8>,
    shown: Vec<(&'static str, String)>,
}

/// Octets in which each range, shown as its field, is told by where it begins and how many it has.
fn ranges(behind: &[u8], fields: &[(&'static str, usize, usize)]) -> Vec<(&'static str, String)> {
    fields.iter().map(|&(name, at, count)| (name, hex(&behind[at..at + count]))).collect()
}

#[rustfmt::skip] // a table
fn cases() -> Vec<Case> {
    let case = |name, header: Header, count: usize, fields: &[(&'static str, usize, usize)], more: &[(&'static str, &str)]| {
        let behind = octets(0x20, count);
        let mut shown = ranges(&behind, fields);
        shown.extend(more.iter().map(|&(name, value)| (name, value.to_owned())));
        Case { name, header, behind, shown }
    };
    // The first four octets, 0x20 to 0x23, as ports.
    let ports = [("psp.inner.srcport", "8225"), ("psp.inner.dstport", "8739")];
    let found = |name| [(name, "found")];
    let (payload, encrypted, icv) = ("psp.payload", "psp.encrypted", "psp.icv");
    vec![
        case("tunnel, IPv4 header and ports in clear", Header { next_header: 4, crypt_offset: 6, ..PLAIN }, 60,
            &[(payload, 0, 24), (encrypted, 24, 20), (icv, 44, 16)], &[]),
        case("tunnel, IPv6 header and ports in clear", Header { next_header: 41, crypt_offset: 11, version: 1, ..PLAIN }, 90,
            &[(payload, 0, 44), (encrypted, 44, 30), (icv, 74, 16)], &[]),
        case("S and D, the last IV", Header { sample: true, drop: true, iv: u64::MAX, ..PLAIN }, 25,
            &[(encrypted, 0, 9), (icv, 9, 16)], &[]),
        case("S alone", Header { sample: true, ..PLAIN }, 17, &[(encrypted, 0, 1), (icv, 1, 16)], &[]),
        case("version 2 encrypts nothing", Header { version: 2, ..PLAIN }, 41,
            &[(payload, 0, 25), (icv, 25, 16)], &ports),
        case("version 3 encrypts nothing, cookie", Header { version: 3, next_header: 58, extension_length: 2, cookie_present: true, ..PLAIN }, 34,
            &[(payload, 8, 10), (icv, 18, 16)], &[("psp.vc", "0x2021222324252627")]),
        case("cookie encrypted", Header { extension_length: 2, cookie_present: true, ..PLAIN }, 34,
            &[("psp.vc_encrypted", 0, 8), (encrypted, 0, 18), (icv, 18, 16)], &[]),
        case("cookie encrypted by half", Header { extension_length: 2, cookie_present: true, crypt_offset: 1, ..PLAIN }, 34,
            &[("psp.vc_encrypted", 0, 8), (encrypted, 4, 14), (icv, 18, 16)], &[]),
        case("cookie just in clear", Header { extension_length: 2, cookie_present: true, crypt_offset: 2, ..PLAIN }, 34,
            &[(encrypted, 8, 10), (icv, 18, 16)], &[("psp.vc", "0x2021222324252627")]),
        case("extension in clear", Header { extension_length: 3, crypt_offset: 7, next_header: 1, ..PLAIN }, 50,
            &[("psp.extension", 0, 16), (payload, 16, 12), (encrypted, 28, 6), (icv, 34, 16)], &[]),
        case("cookie, extension half encrypted", Header { extension_length: 3, cookie_present: true, crypt_offset: 3, ..PLAIN }, 42,
            &[("psp.extension", 8, 4), ("psp.extension_encrypted", 12, 4), (encrypted, 12, 14), (icv, 26, 16)],
            &[("psp.vc", "0x2021222324252627")]),
        case("extension encrypted", Header { extension_length: 2, ..PLAIN }, 30,
            &[("psp.extension_encrypted", 0, 8), (encrypted, 0, 14), (icv, 14, 16)], &[]),
        case("nothing behind the offset", Header { crypt_offset: 2, next_header: 17, ..PLAIN }, 24,
            &[(payload, 0, 8), (icv, 8, 16)], &ports),
        case("offset 0 and no payload", PLAIN, 16, &[(icv, 0, 16)], &[]),
        case("extension and no payload", Header { extension_length: 2, crypt_offset: 2, ..PLAIN }, 24,
            &[("psp.extension", 0, 8), (icv, 8, 16)], &[]),
        case("bits set that are reserved", Header { reserved: 3, ..PLAIN }, 20,
            &[(encrypted, 0, 4), (icv, 4, 16)], &found("psp.expert.reserved_bits_set")),
        case("no bit of 1", Header { one: false, ..PLAIN }, 20,
            &[(encrypted, 0, 4), (icv, 4, 16)], &found("psp.expert.reserved_bit")),
        case("SPI 0", Header { spi: 0, ..PLAIN }, 20,
            &[(encrypted, 0, 4), (icv, 4, 16)], &found("psp.expert.reserved_spi")),
        case("SPI 0 of the other device key", Header { spi: 0x8000_0000, ..PLAIN }, 20,
            &[(encrypted, 0, 4), (icv, 4, 16)], &found("psp.expert.reserved_spi")),
        case("version 4", Header { version: 4, ..PLAIN }, 20,
            &[("psp.undissected", 0, 20)], &found("psp.expert.bad_version")),
        case("version 15", Header { version: 15, crypt_offset: 63, ..PLAIN }, 20,
            &[("psp.undissected", 0, 20)], &found("psp.expert.bad_version")),
        case("header of eight octets", Header { extension_length: 0, ..PLAIN }, 20,
            &[("psp.undissected", 0, 4), (icv, 4, 16)], &found("psp.expert.bad_header_length")),
        case("no room for the cookie", Header { cookie_present: true, crypt_offset: 2, ..PLAIN }, 40,
            &[("psp.undissected", 0, 24), (icv, 24, 16)], &found("psp.expert.bad_header_length")),
        case("header an octet into the ICV", Header { extension_length: 2, ..PLAIN }, 23,
            &[("psp.undissected", 0, 7), (icv, 7, 16)], &found("psp.expert.bad_header_length")),
        case("longest header", Header { extension_length: 255, ..PLAIN }, 40,
            &[("psp.undissected", 0, 24), (icv, 24, 16)], &found("psp.expert.bad_header_length")),
        case("offset an octet past the end", Header { crypt_offset: 2, ..PLAIN }, 23,
            &[(payload, 0, 7), (icv, 7, 16)], &[ports[0], ports[1], ("psp.expert.crypt_offset_past_end", "found")]),
        case("longest offset, past the end", Header { crypt_offset: 63, ..PLAIN }, 18,
            &[(payload, 0, 2), (icv, 2, 16)], &found("psp.expert.crypt_offset_past_end")),
        case("longest offset", Header { crypt_offset: 63, next_header: 255, ..PLAIN }, 269,
            &[(payload, 0, 252), (encrypted, 252, 1), (icv, 253, 16)], &[]),
        case("offset without encryption", Header { version: 2, crypt_offset: 1, ..PLAIN }, 30,
            &[(payload, 0, 14), (icv, 14, 16)], &[ports[0], ports[1], ("psp.expert.gmac_crypt_offset", "found")]),
        case("an octet short of the ICV", PLAIN, 15,
            &[("psp.undissected", 0, 15)], &found("psp.expert.truncated")),
        case("fixed header alone", PLAIN, 0, &[], &found("psp.expert.truncated")),
    ]
}

#[test]
fn frames_show_the_parameters_they_were_made_with() {
    if !have_lua() {
        return;
    }
    let cases = cases();
    for (outer, source_port) in [(4, 49_152), (6, 1000)] {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let capture = scratch.path().join("frames.pcap");
        let frames: Vec<Vec<u8>> = cases
            .iter()
            .map(|case| {
                udp_frame(outer, source_port, 1000, &[case.header.octets(), case.behind.clone()].concat())
            })
            .collect();
        write_pcap(&capture, &whole(&frames));
        let seen = dissect(&capture, &[]);
        assert_eq!(seen.len(), cases.len());
        for (case, seen) in cases.iter().zip(seen) {
            let mut expected = case.header.shown();
            expected.extend(case.shown.iter().cloned());
            assert_eq!(seen, expected, "IPv{outer}: {}", case.name);
        }
    }
}

/// A header that breaks off is shown as far as it goes, and called truncated.
#[test]
fn headers_that_break_off_show_the_fields_that_are_there() {
    if !have_lua() {
        return;
    }
    // Where each field ends.
    let ends = [("psp.iv", 16), ("psp.spi", 8), ("psp.version", 4), ("psp.crypt_offset", 3)];
    let ends = ends.into_iter().chain([("psp.hdr_ext_len", 2), ("psp.next_header", 1)]);
    let ends: Vec<(&str, usize)> = ends.collect();
    let frames: Vec<Vec<u8>> =
        (0..16).map(|length| udp_frame(4, 2000, 1000, &PLAIN.octets()[..length])).collect();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let capture = scratch.path().join("short.pcap");
    write_pcap(&capture, &whole(&frames));
    // tshark hands no empty datagram to any dissector.
    for (length, seen) in dissect(&capture, &[]).iter().enumerate().skip(1) {
        assert!(seen.contains_key("psp.expert.truncated"), "{length} octets: {seen:?}");
        for (name, end) in &ends {
            assert_eq!(seen.contains_key(name), length >= *end, "{length} octets, {name}: {seen:?}");
        }
    }
}

/// A capture with a short snap length is not a truncated packet.
#[test]
fn what_the_capture_cut_is_not_held_against_the_packet() {
    if !have_lua() {
        return;
    }
    let header = Header { extension_length: 2, cookie_present: true, crypt_offset: 4, ..PLAIN };
    let behind = octets(0x20, 50);
    let frame = udp_frame(4, 2000, 1000, &[header.octets(), behind.clone()].concat());
    let psp_start = frame.len() - 66;
    let cut: Vec<(Vec<u8>, usize)> =
        (psp_start..=frame.len()).map(|kept| (frame[..kept].to_vec(), frame.len())).collect();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let capture = scratch.path().join("cut.pcap");
    write_pcap(&capture, &cut);
    let seen = dissect(&capture, &[]);
    assert_eq!(seen.len(), 67);
    // From where the fixed header is whole: cookie to octet 24, clear payload to 32, encrypted to 50, ICV to 66.
    for (kept, seen) in seen.iter().enumerate().skip(16) {
        let mut expected = header.shown();
        let mut add = |name, from: usize, to: usize| {
            if kept > from {
                expected.insert(name, hex(&behind[from - 16..to.min(kept) - 16]));
            }
        };
        add("psp.payload", 24, 32);
        add("psp.encrypted", 32, 50);
        add("psp.icv", 50, 66);
        if kept >= 24 {
            expected.insert("psp.vc", "0x2021222324252627".to_owned());
        }
        if kept >= 28 {
            expected.insert("psp.inner.srcport", 0x2829.to_string());
            expected.insert("psp.inner.dstport", 0x2a2b.to_string());
        }
        if kept < 66 {
            expected.insert("psp.expert.cut_by_capture", "found".to_owned());
        }
        assert_eq!(*seen, expected, "{kept} octets kept");
    }
    for (kept, seen) in seen.iter().enumerate().take(16).skip(1) {
        assert!(seen.contains_key("psp.expert.cut_by_capture"), "{kept} octets kept: {seen:?}");
        assert!(!seen.contains_key("psp.expert.truncated"), "{kept} octets kept: {seen:?}");
    }
}

/// The destination port says what is PSP, and the preference says which port that is.
#[test]
fn the_destination_port_names_psp() {
    if !have_lua() {
        return;
    }
    let packet = [PLAIN.octets(), octets(0, 40)].concat();
    let ports = [(2000, 1000), (1000, 1000), (1000, 2000), (2000, 4000), (2000, 4001)];
    let frames: Vec<Vec<u8>> =
        ports.iter().map(|&(source, destination)| udp_frame(4, source, destination, &packet)).collect();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let capture = scratch.path().join("ports.pcap");
    write_pcap(&capture, &whole(&frames));
    let preferences: [(&[&str], [bool; 5]); 4] = [
        (&[], [true, true, false, false, false]),
        (&["psp.udp_port:4000"], [false, false, false, true, false]),
        (&["psp.udp_port:1000,4000-4001"], [true, true, false, true, true]),
        (&["psp.udp_port:"], [false; 5]),
    ];
    for (preference, expected) in preferences {
        let seen = dissect(&capture, preference);
        let seen: Vec<bool> = seen.iter().map(|shown| shown.contains_key("psp")).collect();
        assert_eq!(seen, expected, "{preference:?}");
    }
}

/// No octets make the script fail: every length, random octets, and Scapy's packets with octets changed.
#[test]
fn hostile_packets_raise_no_error() {
    if !have_lua() {
        return;
    }
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    // xorshift64: any spread will do, and it is the same in every run.
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut packets = Vec::new();
    for length in 1..=96_usize {
        for round in 0..24 {
            let mut packet: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            // Lengths and versions that lead on, in most rounds.
            if round % 4 > 0 && length > 3 {
                packet[1] = (random() % 6) as u8;
                packet[3] &= 0b1100_1111;
            }
            packets.push(packet);
        }
    }
    let sent = read_pcap(&repository().join("tests/vectors/scapy/psp-cookie.protected.pcap"));
    for packet in &sent {
        let (_, ip) = ip_packet(&packet.frame).expect("an IP packet");
        for _ in 0..300 {
            let mut packet = ip[28..].to_vec();
            for _ in 0..1 + random() % 3 {
                let at = (random() % 28) as usize;
                packet[at] = random() as u8;
            }
            packets.push(packet);
        }
    }
    let frames: Vec<(Vec<u8>, usize)> = packets
        .iter()
        .map(|packet| {
            let frame = udp_frame(4, 2000, 1000, packet);
            // Every fourth is cut by the capture; one octet is left, or tshark would not call the dissector.
            let cut = if random() % 4 == 0 { random() as usize % packet.len() } else { 0 };
            (frame[..frame.len() - cut].to_vec(), frame.len())
        })
        .collect();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let capture = scratch.path().join("hostile.pcap");
    write_pcap(&capture, &frames);

    let seen = dissect(&capture, &[]);
    assert_eq!(seen.len(), packets.len());
    for (index, (packet, shown)) in packets.iter().zip(&seen).enumerate() {
        assert!(shown.contains_key("psp"), "packet {} is not taken: {}", index + 1, hex(packet));
    }
    assert_eq!(failures(&script(), &capture), 0, "packets that the script fails on");

    // The filter must be able to find a failure: without its check of lengths the script has some.
    let unchecked = scratch.path().join("unchecked.lua");
    let text = std::fs::read_to_string(script()).expect("the dissector");
    let check = "return from + count <= present and packet.tvb(from, count) or nil";
    assert!(text.contains(check), "{check}");
    std::fs::write(&unchecked, text.replace(check, "return packet.tvb(from, count)")).expect("a script");
    assert!(failures(&unchecked, &capture) > 0, "a script without its check of lengths fails");
}

/// The command line that `pcap --wireshark` writes runs as it stands, in a folder whose name needs quotes.
#[test]
fn the_written_command_line_shows_what_pcap_protected() {
    if !have_lua() {
        return;
    }
    let mixed = repository().join("tests/vectors/captures/mixed.pcap");
    for (example, shown, packets) in
        [("psp.toml", "PSP Security Protocol", 11), ("esp-tunnel.toml", "Encapsulating Security Payload", 20)]
    {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let sa_file = repository().join("examples").join(example);
        let command = written_command(&sa_file, &mixed, scratch.path());
        let run = Command::new("sh").arg("-c").arg(&command).output().expect("a shell");
        let (text, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success() && !errors.contains("Lua"), "{command}: {errors}");
        let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!(count(shown), packets, "{example}: {text}");
    }
}
