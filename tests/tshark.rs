//! tshark as a witness: what we protect, it decrypts, finds its ICV correct, and sees the packet that went in. And as
//! the place where our PSP dissector runs (`psp`).

mod common;
#[path = "tshark/psp.rs"]
mod psp;
#[path = "tshark/rig.rs"]
mod rig;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{cryptonic_pcap, ip_packet, read_pcap, repository};

/// Whether to run a test that needs tshark. `CRYPTONIC_REQUIRE`, `all` or a list of names, forbids to skip.
fn have_tshark() -> bool {
    if Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    skip("tshark is not installed; apt-get install --no-remove tshark")
}

/// Says why a test is skipped, which `CRYPTONIC_REQUIRE` may forbid. Always `false`.
fn skip(reason: &str) -> bool {
    let required = std::env::var("CRYPTONIC_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == "all" || name == "tshark"),
        "{reason}: and CRYPTONIC_REQUIRE={required} requires it"
    );
    println!("skipped: {reason}");
    false
}

/// tshark's view of one ESP packet. Its contents are octets as hex.
#[derive(Debug)]
struct Seen {
    spi: u32,
    icv_good: bool,
    next_header: Option<u8>,
    contents: String,
    checksums_good: bool,
}

/// An SA of a file, as far as tshark must know it.
struct Sa {
    spi: u32,
    tunnel: bool,
    /// Whether tshark 4.0 can check its packets: it knows no AES-GMAC, no implicit IV, and no high half of ESN.
    checkable: bool,
    icv: i64,
    key_and_salt: String,
}

fn sas(sa_file: &Path) -> Vec<Sa> {
    let text =
        std::fs::read_to_string(sa_file).unwrap_or_else(|error| panic!("{}: {error}", sa_file.display()));
    let table: toml::Table = text.parse().expect("an SA file is TOML");
    let read = |sa: &toml::Value| {
        let text = |key: &str| sa[key].as_str().unwrap_or_else(|| panic!("{key} is text"));
        let is = |key: &str| sa.get(key).and_then(toml::Value::as_bool).unwrap_or(false);
        Sa {
            spi: u32::try_from(sa["spi"].as_integer().expect("spi is a number")).expect("32 bits"),
            tunnel: text("mode") == "tunnel",
            checkable: !text("cipher").contains("gmac") && !is("implicit_iv") && !is("esn"),
            icv: sa.get("icv").map_or(16, |icv| icv.as_integer().expect("icv is a number")),
            key_and_salt: format!("{}{}", text("key"), text("salt")),
        }
    };
    table["sa"].as_array().expect("SAs").iter().map(read).collect()
}

/// The ESP keys of an SA file in the form of tshark's esp_sa table, for either family of the outer header.
fn esp_sa_options(sa_file: &Path) -> Vec<String> {
    let mut options = Vec::new();
    for Sa { spi, icv, key_and_salt, .. } in sas(sa_file).iter().filter(|sa| sa.checkable) {
        for family in ["IPv4", "IPv6"] {
            options.push(format!(
                r#"uat:esp_sa:"{family}","*","*","0x{spi:08x}","AES-GCM with {icv} octet ICV [RFC4106]","0x{key_and_salt}","NULL","""#
            ));
        }
    }
    options
}

/// Every packet of a capture as tshark sees it, `None` for one that is not ESP.
fn dissect(capture: &Path, sa_file: &Path) -> Vec<Option<Seen>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(capture);
    for option in [
        "esp.enable_encryption_decode:TRUE",
        "esp.enable_authentication_check:TRUE",
        "ip.check_checksum:TRUE",
        "tcp.check_checksum:TRUE",
        "udp.check_checksum:TRUE",
    ] {
        tshark.args(["-o", option]);
    }
    for option in esp_sa_options(sa_file) {
        tshark.args(["-o", &option]);
    }
    tshark.args(["-T", "fields", "-E", "separator=/t"]);
    for field in [
        "esp.spi",
        "esp.icv_good",
        "esp.protocol",
        "esp.contained_data",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
    ] {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("tshark runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark fails: {errors}");
    let text = String::from_utf8(output.stdout).expect("tshark prints text");
    text.lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [spi, icv_good, next_header, contents, checksums @ ..] = columns.as_slice() else {
                panic!("tshark prints one column for each field: {line}");
            };
            (!spi.is_empty()).then(|| Seen {
                spi: u32::from_str_radix(spi.trim_start_matches("0x"), 16).expect("an SPI"),
                // 4.0 prints 1, later versions True.
                icv_good: matches!(*icv_good, "1" | "True"),
                next_header: number(next_header),
                contents: contents.replace(':', ""),
                // Each is a list, outer to inner: 1 is good, 2 unverified (UDP without one); 0 is bad.
                checksums_good: checksums.iter().flat_map(|list| list.split(',')).all(|status| status != "0"),
            })
        })
        .collect()
}

/// `None` when tshark could not decrypt, and so shows no next header.
fn number(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Holds one protected packet against the clear frame it was made of.
fn assert_carries(seen: &Seen, clear: &[u8], tunnel: bool, number: usize) {
    let (_, ip) = ip_packet(clear).expect("a protected packet was an IP packet");
    let (next_header, contents) = match (ip[0] >> 4, tunnel) {
        (4, true) => (4, ip),
        (6, true) => (41, ip),
        (4, false) => (ip[9], &ip[20..]),
        (6, false) => (ip[6], &ip[40..]),
        (version, _) => panic!("packet {number} has IP version {version}"),
    };
    assert!(seen.icv_good, "packet {number}: tshark does not find the ICV correct: {seen:?}");
    assert!(seen.checksums_good, "packet {number}: tshark finds a checksum wrong: {seen:?}");
    assert_eq!(seen.next_header, Some(next_header), "packet {number}: next header");
    assert_eq!(seen.contents, hex(contents), "packet {number}: contents");
}

/// Both witnesses against each other: what Scapy and python-cryptography protected is right in tshark's eyes too. ESN is
/// left out, because tshark 4.0 takes no high half and calls such an ICV wrong.
#[test]
fn scapy_and_tshark_agree() {
    if !have_tshark() {
        return;
    }
    // How many packets of each set tshark can check.
    for (name, checkable) in [("esp-tunnel", 12), ("esp-transport", 12), ("esp-udp", 12), ("esp-icv", 8)] {
        let file = |suffix: &str| -> PathBuf {
            repository().join("tests/vectors/scapy").join(format!("{name}.{suffix}"))
        };
        let sas = sas(&file("in.toml"));
        let clear = read_pcap(&file("clear.pcap"));
        let seen = dissect(&file("protected.pcap"), &file("in.toml"));
        assert_eq!(seen.len(), clear.len(), "{name}: one protected packet for each clear one");
        let mut checked = 0;
        for (index, (seen, clear)) in seen.iter().zip(&clear).enumerate() {
            let seen = seen.as_ref().unwrap_or_else(|| panic!("{name}: packet {} is not ESP", index + 1));
            let sa = sas.iter().find(|sa| sa.spi == seen.spi).expect("an SA of the file");
            if sa.checkable {
                assert_carries(seen, &clear.frame, sa.tunnel, index + 1);
                checked += 1;
            }
        }
        assert_eq!(checked, checkable, "{name}: packets that tshark checked");
        // The same keys must not make everything look right: of each five hostile packets, two are genuine.
        let hostile = dissect(&file("hostile.pcap"), &file("in.toml"));
        let good = hostile.iter().flatten().filter(|seen| seen.icv_good).count();
        assert_eq!(
            good,
            2 * checkable,
            "{name}: the genuine packet and its replay, none of the tampered copies"
        );
    }
}

/// The command line that `pcap --wireshark` writes checks every packet whose algorithm tshark knows: ESP in UDP at its
/// own port and at another, ICVs of 8 and 12 octets.
#[test]
fn the_written_command_checks_every_form_that_tshark_knows() {
    if !have_tshark() {
        return;
    }
    for (name, port) in [("esp-udp", "4500"), ("esp-udp", "4501"), ("esp-icv", "4500")] {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let file = |suffix: &str| repository().join("tests/vectors/scapy").join(format!("{name}.{suffix}"));
        let sa_file = scratch.path().join("out.toml");
        let text = std::fs::read_to_string(file("out.toml")).expect("an SA file");
        let text = text.replace("dst_port = 4500", &format!("dst_port = {port}"));
        std::fs::write(&sa_file, text).expect("a file");
        let command = written_command(&sa_file, &file("clear.pcap"), scratch.path());
        let command =
            format!("{} -T fields -e esp.spi -e esp.icv_good", command.trim_end().trim_end_matches(" -V"));
        let run = Command::new("sh").arg("-c").arg(&command).output().expect("a shell");
        assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
        let output = String::from_utf8_lossy(&run.stdout);
        let sas = sas(&sa_file);
        let mut good = 0;
        for line in output.lines() {
            let (spi, icv_good) = line.split_once('\t').unwrap_or((line, ""));
            let spi = u32::from_str_radix(spi.trim_start_matches("0x"), 16).expect("every packet is ESP");
            if sas.iter().any(|sa| sa.spi == spi && sa.checkable) {
                assert!(matches!(icv_good, "1" | "True"), "{name}: {line}");
                good += 1;
            }
        }
        assert_eq!(good, if name == "esp-udp" { 12 } else { 8 }, "{name}");
    }
}

/// A capture of ordinary traffic through the example of a tunnel: IP packets in its nets leave as ESP that tshark
/// opens to the packets that went in; the rest passes untouched. The peer's example gives everything back.
#[test]
fn tshark_opens_what_we_protect() {
    if !have_tshark() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let protected = scratch.path().join("protected.pcap");
    let input = repository().join("tests/vectors/captures/mixed.pcap");
    let sa_file = repository().join("examples/esp-tunnel.toml");
    cryptonic_pcap(&sa_file, &input, &protected);

    let clear = read_pcap(&input);
    let seen = dissect(&protected, &sa_file);
    let sent = read_pcap(&protected);
    assert_eq!(seen.len(), clear.len(), "one packet out for each one in");
    let mut esp = 0;
    for (index, ((seen, clear), sent)) in seen.iter().zip(&clear).zip(&sent).enumerate() {
        assert_eq!(sent.time, clear.time, "packet {}: time", index + 1);
        assert_eq!(seen.is_some(), in_the_tunnel(&clear.frame), "packet {}: protected or not", index + 1);
        match seen {
            Some(seen) => {
                assert_carries(seen, &clear.frame, true, index + 1);
                esp += 1;
            }
            None => assert_eq!(sent.frame, clear.frame, "packet {} passes untouched", index + 1),
        }
    }
    assert_eq!(esp, 20, "ESP packets");

    let opened = scratch.path().join("opened.pcap");
    cryptonic_pcap(&repository().join("examples/esp-tunnel-in.toml"), &protected, &opened);
    let opened = read_pcap(&opened);
    assert_eq!(opened.len(), clear.len(), "packets given back");
    for (index, (opened, clear)) in opened.iter().zip(&clear).enumerate() {
        // Ethernet padding behind the IP packet need not come back.
        assert_eq!(ip_packet(&opened.frame), ip_packet(&clear.frame), "packet {} given back", index + 1);
    }
}

/// With the command line that `pcap --wireshark` writes, tshark 4.4 verifies extended sequence numbers: those whose low
/// half wraps, and those whose high half is not 0 from the first packet on. Never required: Debian 12 has 4.0.
#[test]
fn tshark_verifies_esn_from_4_4_on() {
    if !have_tshark() {
        return;
    }
    let version = tshark_version();
    if version < (4, 4) {
        println!("skipped: tshark {}.{} cannot verify ESN; 4.4 can", version.0, version.1);
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let file =
        |suffix: &str| -> PathBuf { repository().join("tests/vectors/scapy/esp-esn").with_extension(suffix) };
    let command = written_command(&file("out.toml"), &file("clear.pcap"), scratch.path());
    let command = format!("{} -T fields -e esp.icv_good", command.trim_end().trim_end_matches(" -V"));
    let run = Command::new("sh").arg("-c").arg(&command).output().expect("a shell");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
    let clear = read_pcap(&file("clear.pcap"));
    assert_eq!(text.lines().collect::<Vec<_>>(), vec!["True"; clear.len()], "{command}");
}

/// Protects a capture and gives the tshark command line that `--wireshark` writes. Its paths need quotes.
fn written_command(sa_file: &Path, input: &Path, scratch: &Path) -> String {
    let (folder, output) = (scratch.join("a reader's profile"), scratch.join("what's out.pcap"));
    let run = Command::new(env!("CARGO_BIN_EXE_cryptonic"))
        .args(["pcap", "--wireshark"])
        .arg(&folder)
        .arg("--sa")
        .args([sa_file, input, &output])
        .output()
        .expect("the command line runs");
    assert!(run.status.success(), "{}: {}", sa_file.display(), String::from_utf8_lossy(&run.stderr));
    let text = std::fs::read_to_string(folder.join("command.txt")).expect("a command line");
    let (_, command) = text.split_once("# Without it:\n").expect("a command line for tshark");
    command.to_owned()
}

/// tshark's version, major and minor.
fn tshark_version() -> (u32, u32) {
    let output = Command::new("tshark").arg("--version").output().expect("tshark runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // "TShark (Wireshark) 4.0.17 (Git …" or "TShark (Wireshark) 4.4.18."
    let numbers = text.split_whitespace().nth(2).expect("a version").split('.');
    let numbers: Vec<u32> = numbers.map_while(|number| number.parse().ok()).collect();
    let [major, minor, ..] = numbers.as_slice() else { panic!("a version of tshark: {text}") };
    (*major, *minor)
}

/// Whether the selectors of examples/esp-tunnel.toml take a frame.
fn in_the_tunnel(frame: &[u8]) -> bool {
    ip_packet(frame).is_some_and(|(_, ip)| match ip[0] >> 4 {
        4 => ip[12] == 10 && ip[16] == 10,
        _ => ip[8..12] == [0x20, 0x01, 0x0d, 0xb8] && ip[24..28] == [0x20, 0x01, 0x0d, 0xb8],
    })
}
