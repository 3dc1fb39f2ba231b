//! The command line as its users meet it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn cryptonic(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cryptonic"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    cryptonic(arguments).output().expect("the command line runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The JSON object of a command that must end with `code`.
fn json(arguments: &[&str], code: i32) -> Value {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", text(&output.stdout)))
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn name(path: &Path) -> &str {
    path.to_str().expect("a name in UTF-8")
}

const MIXED: &str = "tests/vectors/captures/mixed.pcap";
const TUNNEL: &str = "examples/esp-tunnel.toml";
const TUNNEL_IN: &str = "examples/esp-tunnel-in.toml";

#[test]
fn bad_input_ends_with_2_and_names_its_place() {
    let folder = scratch();
    let path = |file: &str, contents: &[u8]| {
        let path = folder.path().join(file);
        fs::write(&path, contents).expect("a file");
        path
    };
    let sa = fs::read_to_string(TUNNEL).expect("an example");
    let unknown = path("unknown.toml", sa.replace("salt", "sault").as_bytes());
    let short = path("short.toml", sa.replace("eeff\"", "ee\"").as_bytes());
    let lifetime = path(
        "lifetime.toml",
        format!("{sa}lifetime = {{ kind = \"count\", soft = 9, hard = 9 }}\n").as_bytes(),
    );
    let knobs = path("knobs.toml", b"[mac]\nrate_gbps = 50\n\n[pcie]\nlane = 8\n");
    let flows = path("flows.toml", b"[[flow]]\nprotection = \"esp\"\n");
    let small = path("small.toml", b"[[flow]]\nprotection = \"psp\"\nip = \"ipv6\"\nsize = 64\n");
    let keyless =
        path("keyless.toml", b"[[flow]]\nprotection = \"psp\"\ncookie = true\ndescriptor = \"inline-64\"\n");
    let icv =
        path("icv.toml", b"[[flow]]\nprotection = \"esp-tunnel\"\ncipher = \"aes-gmac-128\"\nicv = 8\n");
    let capture = fs::read(MIXED).expect("a capture");
    let mut cooked = capture.clone();
    cooked[20] = 113;
    let cooked = path("cooked.pcap", &cooked);
    let script = path("script", b"#!/bin/sh\necho this is no capture\n");
    let gone = folder.path().join("gone.pcap");
    let out = folder.path().join("out.pcap");
    let (gone, out) = (name(&gone), name(&out));
    // Nobody serves it.
    let served = "vfio-user:/tmp/x";

    let cases: &[(&[&str], &[&str])] = &[
        (&["frobnicate"], &["frobnicate"]),
        (&["run", "--packet", "3"], &["--packet"]),
        (&["run", "--packets", "many"], &["--packets", "many"]),
        (&["run", "--packets", "0"], &["--packets"]),
        (&["run", "--size", "63"], &["--size", "64 to 9018"]),
        (&["run", "--preset", "99g"], &["--preset", "99g", "400g"]),
        (&["run", "--set", "crypto.lanes=0"], &["crypto.lanes=0", "1 to 64"]),
        (&["run", "--set", "lanes"], &["--set lanes"]),
        (&["run", "--config", name(&knobs)], &["knobs.toml:5", "lane"]),
        (&["run", "--workload", name(&flows)], &["flows.toml:2", "esp"]),
        (&["run", "--workload", name(&small)], &["small.toml:4", "64 bytes", "70"]),
        (&["run", "--parser", "rtl", "--preset", "200g"], &["--parser", "pipeline.bus_bytes"]),
        (&["run", "--device", "vfio:0000:ff:1f.7"], &["vfio:0000:ff:1f.7", "no PCI function"]),
        (&["run", "--device", served], &[served, "no vfio-user server"]),
        (&["run", "--device", served, "--peer", served], &["--peer", "both ends", "MAC loopback"]),
        (&["run", "--device", served, "--peer", "model"], &["--peer", "cryptonic serve"]),
        (&["run", "--peer", served], &["--peer", "cryptonic serve"]),
        (&["run", "--device", served, "--preset", "100g"], &["--preset", "for a model in this process"]),
        (&["run", "--device", served, "--config", name(&knobs)], &["--config", "for a model"]),
        (&["run", "--device", served, "--set", "crypto.lanes=5"], &["--set", "for a model"]),
        (&["run", "--device", served, "--parser", "model"], &["--parser", "for a model"]),
        (&["run", "--device", served, "--wire-pcap", out], &["--wire-pcap", "for a model"]),
        (&["run", "--device", served, "--workload", "examples/reorder.toml"], &["[cable]", "for a model"]),
        (&["bench", "--device", served], &["--device", "`bench` needs the model"]),
        (&["experiment", "inline", "--device", served], &["--device", "`experiment` needs the model"]),
        (&["run", "--device", "eth0"], &["--device", "eth0"]),
        (
            &["info", "--device", "vfio:0000:ff:1f.7"],
            &["vfio:0000:ff:1f.7", "no PCI function", "cryptonic list"],
        ),
        (&["info", "--device", "vfio:eth0"], &["--device", "0000:03:00.0"]),
        (
            &["info", "--device", "vfio-noiommu:0000:ff:1f.7"],
            &["vfio-noiommu:0000:ff:1f.7", "no PCI function"],
        ),
        (&["info", "--device", "vfio-noiommu:eth0"], &["--device", "0000:03:00.0"]),
        (&["bind", "03:00"], &["03:00", "0000:03:00.0"]),
        (&["bind", "0000:ff:1f.7"], &["0000:ff:1f.7", "no PCI function", "cryptonic list"]),
        (&["unbind", "0000:ff:1f.7"], &["0000:ff:1f.7", "no PCI function"]),
        (&["sa", "check", gone], &["gone.pcap"]),
        (&["sa", "check", name(&unknown)], &["unknown.toml:", "sault", "salt"]),
        (&["sa", "check", name(&short)], &["short.toml:", "key", "15 bytes"]),
        (&["sa", "check", name(&lifetime)], &["lifetime.toml:", "lifetime", "not below the hard limit"]),
        (&["pcap", MIXED, out], &["--sa"]),
        (&["pcap", "--sa", TUNNEL, gone, out], &["gone.pcap"]),
        (&["pcap", "--sa", name(&short), MIXED, out], &["short.toml:"]),
        (&["pcap", "--sa", TUNNEL, name(&cooked), out], &["cooked.pcap", "113", "Ethernet"]),
        (&["pcap", "--sa", TUNNEL, name(&script), out], &["script", "pcap"]),
        (&["pcap", "--sa", TUNNEL, MIXED, "/nonexistent/out.pcap"], &["/nonexistent/out.pcap"]),
        (&["regs", "icv_mismatsh"], &["icv_mismatch"]),
        (&["bench", "--sizes", "imix"], &["--sizes"]),
        (&["run", "--workload", name(&keyless)], &["keyless.toml:4", "descriptor", "128"]),
        (&["run", "--workload", name(&icv)], &["icv.toml:4", "icv", "16 bytes"]),
        (&["experiment", "inline", "--sizes", "63"], &["--sizes", "64 to 9018"]),
        (&["experiment", "inline", "--formats", "inline-63"], &["--formats", "inline-63", "inline-64"]),
        (&["experiment", "inline", "--packets", "0"], &["--packets"]),
    ];
    for (arguments, parts) in cases {
        let output = run(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
        for part in *parts {
            assert!(message.contains(part), "{arguments:?}: no `{part}` in {message}");
        }
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let object = json(&with_json, 2);
        assert!(object["error"].is_string() && object.get("where").is_some(), "{arguments:?}: {object}");
    }
    let object = json(&["pcap", "--sa", TUNNEL, MIXED, "-", "--json"], 2);
    assert_eq!(object["where"], "--json");
    assert!(!Path::new(out).exists(), "no output of a command that failed");
    let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
    assert!(left.iter().all(|entry| !name(&entry.path()).ends_with(".part")), "{left:?}");
}

#[test]
fn every_command_has_help() {
    for command in [
        "run",
        "pcap",
        "gateway",
        "bench",
        "cosim",
        "experiment",
        "info",
        "stats",
        "sa",
        "regs",
        "completions",
        "man",
    ] {
        let output = run(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).contains("--json"), "{command}");
    }
}

#[test]
fn a_run_verifies_every_packet_and_has_the_keys_that_scripts_use() {
    let object = json(&["run", "--packets", "4000", "--json"], 0);
    for key in [
        "seed",
        "preset",
        "packets_sent",
        "packets_received",
        "packets_verified",
        "mismatches",
        "drops",
        "modelled_seconds",
        "modelled_gbps",
        "latency_ns",
        "limiting_stage",
        "pcie_bytes_per_packet",
        "wall_seconds",
        "wall_packets_per_second",
        "parameters",
    ] {
        assert!(object.get(key).is_some(), "{key}");
    }
    for (of, key) in [
        ("latency_ns", "p50"),
        ("latency_ns", "p99"),
        ("latency_ns", "max"),
        ("pcie_bytes_per_packet", "to_device"),
        ("pcie_bytes_per_packet", "to_host"),
    ] {
        assert!(object[of][key].as_f64().is_some_and(|number| number > 0.0), "{of}.{key}");
    }
    assert_eq!(object["packets_verified"], 4000);
    assert_eq!(object["mismatches"], 0);
    assert_eq!(object["drops"], serde_json::json!({}));
    assert!(object["modelled_gbps"].as_f64() > Some(1.0));
}

#[test]
fn the_same_seed_gives_the_same_result() {
    let folder = scratch();
    let result = |seed: &str, file: &str| {
        let wire = folder.path().join(file);
        let mut object = json(
            &[
                "run",
                "--packets",
                "2000",
                "--seed",
                seed,
                "--size",
                "mix",
                "--json",
                "--wire-pcap",
                name(&wire),
            ],
            0,
        );
        let object = object.as_object_mut().expect("an object");
        object.retain(|key, _| !key.starts_with("wall_"));
        (object.clone(), fs::read(&wire).expect("a capture"))
    };
    let (first, again, other) = (result("7", "a"), result("7", "b"), result("8", "c"));
    assert_eq!(first.0, again.0);
    assert!(first.1 == again.1, "the cable carried the same bytes at the same times");
    assert!(first.1 != other.1, "another seed is another run");
}

#[test]
fn every_flow_of_a_workload_is_verified_at_every_preset() {
    for preset in ["25g", "100g", "200g", "400g"] {
        let arguments = [
            "run",
            "--workload",
            "examples/workload.toml",
            "--packets",
            "2000",
            "--preset",
            preset,
            "--json",
        ];
        let object = json(&arguments, 0);
        assert_eq!(object["packets_verified"], 2000, "{preset}");
        let flows = object["flows"].as_array().expect("flows");
        assert!(flows.len() == 3 && flows.iter().all(|flow| flow["packets_verified"].as_u64() > Some(0)));
    }
}

#[test]
fn protect_then_open_gives_the_capture_back() {
    let folder = scratch();
    for (out, back, least) in [
        (TUNNEL, TUNNEL_IN, 20),
        ("examples/esp-udp.toml", "examples/esp-udp.toml", 5),
        ("examples/psp.toml", "examples/psp.toml", 5),
        ("examples/psp-tunnel.toml", "examples/psp-tunnel.toml", 10),
    ] {
        let (sealed, opened) = (folder.path().join("sealed.pcap"), folder.path().join("opened.pcap"));
        let object = json(&["pcap", "--sa", out, MIXED, name(&sealed), "--json"], 0);
        let protected = object["verdicts"]["protected"].as_u64().expect("a count");
        assert!(protected >= least, "{object}");
        assert_eq!(object["packets_in"], object["packets_out"]);
        let object = json(&["pcap", "--sa", back, name(&sealed), name(&opened), "--json"], 0);
        assert_eq!(object["verdicts"]["opened"].as_u64(), Some(protected), "{object}");
        assert_same_packets(&fs::read(MIXED).expect("in"), &fs::read(&opened).expect("out"));
    }
}

/// Both captures hold the same times and frames, up to Ethernet padding.
fn assert_same_packets(wanted: &[u8], found: &[u8]) {
    let packets = |bytes: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut at = 24;
        let mut packets = Vec::new();
        while at < bytes.len() {
            let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("4 bytes")) as usize;
            let time = bytes[at..at + 8].to_vec();
            let mut frame = bytes[at + 16..at + 16 + length].to_vec();
            let mut l3 = 14;
            while frame[l3 - 2..l3] == [0x81, 0x00] || frame[l3 - 2..l3] == [0x88, 0xa8] {
                l3 += 4;
            }
            if frame[l3 - 2..l3] == [0x08, 0x00] {
                frame.truncate(l3 + usize::from(u16::from_be_bytes([frame[l3 + 2], frame[l3 + 3]])));
            }
            packets.push((time, frame));
            at += 16 + length;
        }
        packets
    };
    let (wanted, found) = (packets(wanted), packets(found));
    assert_eq!(wanted.len(), found.len());
    for (index, (wanted, found)) in wanted.iter().zip(&found).enumerate() {
        assert_eq!(wanted, found, "packet {}", index + 1);
    }
}

#[test]
fn raw_ip_goes_in_and_comes_back() {
    let folder = scratch();
    let path = |file: &str| folder.path().join(file);
    let ethernet = fs::read(MIXED).expect("a capture");
    let mut raw = ethernet[..24].to_vec();
    raw[20] = 101;
    let mut at = 24;
    while at < ethernet.len() {
        let length = u32::from_le_bytes(ethernet[at + 8..at + 12].try_into().expect("4 bytes")) as usize;
        let (header, frame) = ethernet[at..at + 16 + length].split_at(16);
        at += 16 + length;
        if frame[12..14] == [0x08, 0x00] {
            let packet = &frame[14..14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))];
            let length = u32::try_from(packet.len()).expect("a length").to_le_bytes();
            raw.extend([&header[..8], &length, &length, packet].concat());
        }
    }
    fs::write(path("raw.pcap"), &raw).expect("a file");
    for (sa, from, to) in [(TUNNEL, "raw.pcap", "sealed.pcap"), (TUNNEL_IN, "sealed.pcap", "opened.pcap")] {
        let object = json(&["pcap", "--sa", sa, name(&path(from)), name(&path(to)), "--json"], 0);
        assert_eq!(object["packets_in"], object["packets_out"], "{object}");
    }
    assert!(fs::read(path("opened.pcap")).expect("out")[24..] == raw[24..]);
}

#[test]
fn captures_that_others_protected_open_and_hostile_copies_do_not() {
    let folder = scratch();
    let out = folder.path().join("out.pcap");
    for set in ["esp-tunnel", "esp-transport", "esp-esn", "psp-transport"] {
        let file = |suffix: &str| vectors().join("scapy").join(format!("{set}.{suffix}"));
        let (sa, clear) = (file("in.toml"), fs::read(file("clear.pcap")).expect("a capture"));
        for input in [file("protected.pcap"), file("hostile.pcap")] {
            let object = json(&["pcap", "--sa", name(&sa), name(&input), name(&out), "--json"], 0);
            assert_eq!(object["packets_out"], object["verdicts"]["opened"], "{set}: {object}");
            assert!(fs::read(&out).expect("out")[24..] == clear[24..], "{set}");
        }
    }
}

#[test]
fn what_was_good_before_the_end_of_a_cut_capture_is_written() {
    let folder = scratch();
    let (cut, out) = (folder.path().join("cut.pcap"), folder.path().join("out.pcap"));
    let mut bytes = fs::read(MIXED).expect("a capture");
    bytes.truncate(bytes.len() - 7);
    fs::write(&cut, bytes).expect("a file");
    let object = json(&["pcap", "--sa", TUNNEL, name(&cut), name(&out), "--json"], 2);
    assert_eq!(object["packets_in"], 23);
    assert_eq!(object["packets_out"], 23);
    assert!(object["where"].as_str().is_some_and(|place| place.contains("packet 24, at byte")), "{object}");
    let whole = json(&["pcap", "--sa", TUNNEL, name(&out), "/dev/null", "--json"], 0);
    assert_eq!(whole["packets_in"], 23);
}

#[test]
fn what_cannot_be_protected_does_not_leave_in_clear() {
    let folder = scratch();
    let (spent, out) = (folder.path().join("spent.toml"), folder.path().join("out.pcap"));
    // One sequence number is left, for packets that are protected by `east`.
    let sa = fs::read_to_string(TUNNEL).expect("an example");
    let sa = sa.replace("salt = \"a1b2c3d4\"", "salt = \"a1b2c3d4\"\nsequence = 0xfffffffe");
    fs::write(&spent, sa).expect("a file");
    let object = json(&["pcap", "--sa", name(&spent), MIXED, name(&out), "--json"], 0);
    let verdicts = object["verdicts"].as_object().expect("verdicts");
    let count = |verdict: &str| verdicts.get(verdict).and_then(Value::as_u64).unwrap_or(0);
    assert!(count("sequence_exhausted") > 0, "{object}");
    assert_eq!(object["packets_out"].as_u64(), Some(count("protected") + count("passed")), "{object}");
    assert_eq!(count("passed"), 4, "no more than pass with sequence numbers to spare");
}

#[test]
fn clear_packets_do_not_enter_where_protection_is_due() {
    let object = json(&["pcap", "--sa", TUNNEL_IN, MIXED, "/dev/null", "--json"], 0);
    assert_eq!(object["verdicts"]["clear_not_accepted"], 20, "{object}");
    assert_eq!(object["packets_out"], 4);
}

#[test]
fn what_the_device_refuses_has_its_name() {
    let folder = scratch();
    let file = |name: &str| fs::read_to_string(vectors().join("scapy").join(name)).expect("an SA file");
    let tunnel = file("esp-tunnel.in.toml");
    let psp = file("psp-transport.in.toml");
    let udp = file("esp-udp.in.toml");
    let key = r#"default = "drop""#;
    let verdicts = |counts: &[(&str, u64)]| -> serde_json::Map<String, Value> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect()
    };
    let cases = [
        (
            "what comes out is not what the SA is for",
            tunnel.replace("10.0.1.0/24", "10.9.0.0/16"),
            "scapy/esp-tunnel.protected.pcap",
            vec![("opened", 9), ("selector_mismatch", 3)],
        ),
        (
            "another upper protocol than the selector's",
            tunnel.replace("10.1.1.0/24\" }", "10.1.1.0/24\", protocol = \"udp\" }"),
            "scapy/esp-tunnel.protected.pcap",
            // One of its three packets is UDP.
            vec![("opened", 10), ("selector_mismatch", 2)],
        ),
        (
            "ESP of nobody, which a selector is due for, and which none is",
            tunnel.clone(),
            "scapy/esp-transport.protected.pcap",
            vec![("no_sa", 4), ("passed", 8)],
        ),
        (
            "the same where nothing else passes",
            format!("{key}\n{tunnel}"),
            "scapy/esp-transport.protected.pcap",
            vec![("dropped_by_default", 8), ("no_sa", 4)],
        ),
        (
            "packets in clear where protection is due, and where nothing else passes",
            format!("{key}\n{tunnel}"),
            "scapy/esp-transport.clear.pcap",
            vec![("clear_not_accepted", 4), ("dropped_by_default", 8)],
        ),
        (
            "a version of PSP that is not received",
            psp.replace("receive = true", "receive = [1]"),
            "scapy/psp-transport.protected.pcap",
            vec![("opened", 6), ("psp_version_disabled", 6)],
        ),
        (
            "PSP where none is received goes its way",
            psp.replace("receive = true", "receive = false"),
            "scapy/psp-transport.protected.pcap",
            vec![("passed", 12)],
        ),
        (
            "ESP in UDP at another port than that of the SAs is a packet in clear",
            udp.replace("dst_port = 4500", "dst_port = 4501"),
            "scapy/esp-udp.protected.pcap",
            // Transport mode has the addresses that the selectors are due for.
            vec![("clear_not_accepted", 6), ("passed", 9)],
        ),
    ]
    .map(|(what, sa, capture, counts)| (what, sa, capture, verdicts(&counts)));
    for (what, text, capture, expected) in cases {
        let sa = folder.path().join("sa.toml");
        fs::write(&sa, text).expect("a file");
        let capture = vectors().join(capture);
        let object = json(&["pcap", "--sa", name(&sa), name(&capture), "/dev/null", "--json"], 0);
        assert_eq!(object["verdicts"].as_object(), Some(&expected), "{what}");
        assert_eq!(object["lost_without_reason"], 0, "{what}");
    }
}

#[test]
fn no_match_ends_with_a_hint_that_names_the_flows() {
    let folder = scratch();
    let sa = folder.path().join("far.toml");
    let text_of_sa = fs::read_to_string(TUNNEL).expect("an example").replace("10.0.0.0/8", "10.99.0.0/16");
    fs::write(&sa, text_of_sa.replace("2001:db8::/32", "2001:db9::/32")).expect("a file");
    let output = run(&["pcap", "--sa", name(&sa), MIXED, "/dev/null"]);
    let message = text(&output.stdout);
    assert!(output.status.success());
    for part in ["no packet matched", "UDP", "TCP", "10.99.0.0/16"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn sa_out_carries_on_and_keeps_comments() {
    let folder = scratch();
    let (next, first, second) =
        (folder.path().join("next.toml"), folder.path().join("1.pcap"), folder.path().join("2.pcap"));
    assert!(run(&["pcap", "--sa", TUNNEL, MIXED, name(&first), "--sa-out", name(&next)]).status.success());
    let written = fs::read_to_string(&next).expect("an SA file");
    assert!(written.contains("sequence = ") && written.contains("# out protects, in opens"), "{written}");
    assert!(run(&["pcap", "--sa", name(&next), MIXED, name(&second)]).status.success());
    assert!(fs::read(&first).expect("1") != fs::read(&second).expect("2"), "no sequence number twice");
}

#[test]
fn wireshark_gets_its_keys() {
    let folder = scratch();
    let profile = folder.path().join("profile");
    let out = folder.path().join("out.pcap");
    assert!(
        run(&["pcap", "--sa", TUNNEL, MIXED, name(&out), "--wireshark", name(&profile)]).status.success()
    );
    let table = fs::read_to_string(profile.join("esp_sa")).expect("a table");
    let row = r#""IPv4","*","*","0x00001001","AES-GCM with 16 octet ICV [RFC4106]","0x00112233445566778899aabbccddeeffa1b2c3d4","NULL","""#;
    assert!(table.contains(row), "{table}");
    assert!(fs::read_to_string(profile.join("command.txt")).expect("a command").contains("tshark"));
}

#[test]
fn new_sa_files_pass_their_own_check_and_open_what_they_protect() {
    let folder = scratch();
    for kind in [&["sa", "new"][..], &["sa", "new", "--psp"]] {
        let (first, second) = (run(kind), run(kind));
        assert!(first.status.success() && first.stdout != second.stdout, "fresh keys each time");
        let (sa, sealed) = (folder.path().join("sa.toml"), folder.path().join("sealed.pcap"));
        fs::write(&sa, &first.stdout).expect("a file");
        let object = json(&["sa", "check", name(&sa), "--json"], 0);
        assert!(object["sas"].as_array().is_some_and(|sas| !sas.is_empty()));
        let object = json(&["pcap", "--sa", name(&sa), MIXED, name(&sealed), "--json"], 0);
        let protected = object["verdicts"]["protected"].as_u64().expect("a count");
        let object = json(&["pcap", "--sa", name(&sa), name(&sealed), "/dev/null", "--json"], 0);
        assert_eq!(object["verdicts"]["opened"].as_u64(), Some(protected), "{object}");
    }
    let sa = folder.path().join("sa.toml");
    assert_eq!(run(&["sa", "new", "--out", name(&sa)]).status.code(), Some(2), "keys are not written over");
}

#[test]
fn standard_streams_serve_as_files() {
    let folder = scratch();
    let out = folder.path().join("out.pcap");
    assert!(run(&["pcap", "--sa", TUNNEL, MIXED, name(&out)]).status.success());
    let piped = cryptonic(&["pcap", "--sa", TUNNEL, "-", "-"])
        .stdin(fs::File::open(MIXED).expect("a capture"))
        .output()
        .expect("the command line runs");
    assert!(piped.status.success(), "{}", text(&piped.stderr));
    assert!(piped.stdout == fs::read(&out).expect("out"));
}

#[test]
fn a_closed_pipe_is_quiet() {
    for arguments in [&["regs", "--format", "manual"][..], &["pcap", "--sa", TUNNEL, MIXED, "-"], &["man"]] {
        // Closed before the program starts: it cannot win the race.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = cryptonic(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command line runs");
        let mut message = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut message).expect("text");
        let status = child.wait().expect("an end");
        assert!(status.success() && message.is_empty(), "{arguments:?}: {status}: {message}");
    }
}

#[test]
fn info_stats_and_bench_have_the_keys_that_scripts_use() {
    let info = json(&["info", "--json"], 0);
    for key in ["vendor", "device", "version", "capabilities"] {
        assert!(info.get(key).is_some(), "{key}");
    }
    for capability in [
        "esp",
        "esp_beet",
        "udp_encapsulation",
        "implicit_iv",
        "selectors",
        "aes_gmac",
        "icv_8",
        "psp_tunnel",
    ] {
        assert_eq!(info["capabilities"][capability], 1, "{capability}");
    }
    let counters = json(&["stats", "--all", "--json"], 0);
    for status in ["clear_not_accepted", "selector_mismatch", "not_beet", "nat_keepalive"] {
        assert!(counters["counters"][format!("status_{status}")].is_u64(), "{status}");
    }
    assert!(json(&["stats", "--json"], 0)["counters"]["status_ok"].is_u64());
    let bench = json(&["bench", "--sizes", "64", "--packets", "2000", "--rounds", "1", "--json"], 0);
    assert!(bench["backend"].is_string() && bench["packets_per_second_64"].as_f64() > Some(1.0));
    let row = &bench["rows"][0];
    for key in ["size", "bare_ns", "path_ns", "ratio"] {
        assert!(row[key].as_f64().is_some_and(|number| number > 0.0), "{key}");
    }
}

#[test]
fn reports_go_to_a_folder_too() {
    let folder = scratch();
    let out = folder.path().join("deep/report");
    assert!(run(&["run", "--packets", "500", "--out", name(&out)]).status.success());
    let report: Value =
        serde_json::from_slice(&fs::read(out.join("report.json")).expect("a report")).expect("JSON");
    assert_eq!(report["packets_verified"], 500);
    assert!(fs::read_to_string(out.join("report.txt")).expect("a report").contains("verified byte for byte"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_with_130_after_a_partial_report() {
    let mut child = cryptonic(&["run", "--packets", "1000000000", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command line runs");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    let mut report = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut report).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    let report: Value = serde_json::from_str(&report).expect("one JSON object");
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["packets_sent"], report["packets_verified"]);
}
