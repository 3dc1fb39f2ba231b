//! `cosim` as its users meet it. Without RTL in the build: what it says then.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn cosim(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_cryptonic");
    Command::new(program)
        .arg("cosim")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command line runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The JSON object of a run that must end with `code`.
fn json(arguments: &[&str], code: i32) -> Value {
    let mut with_json = arguments.to_vec();
    with_json.push("--json");
    let output = cosim(&with_json);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", text(&output.stdout)))
}

/// Whether this build has the RTL. `CRYPTONIC_REQUIRE`, `all` or a list of names, forbids to skip.
fn have_rtl() -> bool {
    let output = cosim(&["--packet", "00"]);
    if output.status.success() {
        return true;
    }
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("this build has no RTL"), "{message}");
    let required = std::env::var("CRYPTONIC_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == "all" || name == "rtl"),
        "{message}: and CRYPTONIC_REQUIRE={required} requires it"
    );
    println!("skipped: {message}");
    false
}

/// Ethernet, IPv4 with a checksum that is right, ESP: 192.0.2.1 to 192.0.2.2, SPI 0x1001.
const ESP: &str = "0202020202020202020202020800\
                   45000028000040004032b6a0c0000201c0000202\
                   000010010000000701020304050607080900010203";

#[test]
fn bad_input_ends_with_2_before_any_work() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--packets", "0"], &["--packets", "at least 1"]),
        (&["--packets", "many"], &["--packets"]),
        (&["--stalls", "96"], &["--stalls", "percent"]),
        (&["--stalls", "3/0"], &["--stalls", "runs"]),
        (&["--gaps", "wide"], &["--gaps"]),
        (&["--unit", "tx-parse"], &["--unit", "rx-parse"]),
        (&["--packet", "0"], &["--packet", "odd"]),
        (&["--packet", "0x"], &["--packet", "'x'"]),
        (&["--packet", "00", "--gaps", "1,many"], &["--gaps", "0,3,1"]),
        (&["--packet", "00", "--expect", "port=3"], &["--expect", "port"]),
        (&["--expect", "psp=3"], &["--packet"]),
        (&["--packet", "00", "--mutants"], &["--packet", "--mutants"]),
    ];
    for (arguments, parts) in cases {
        let output = cosim(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
        for part in *parts {
            assert!(message.contains(part), "{arguments:?}: no `{part}` in {message}");
        }
    }
    if have_rtl() {
        // A billion packets would take an hour: the path is looked at first.
        let object = json(&["--packets", "1000000000", "--wave", "/nowhere/wave.vcd"], 2);
        assert_eq!(object["where"], "/nowhere/wave.vcd", "{object}");
        json(&["--packets", "1000000000", "--wave", "/"], 2);
    }
}

#[test]
fn a_run_has_the_keys_that_scripts_use_and_is_the_same_again() {
    if !have_rtl() {
        return;
    }
    let object = json(&["--packets", "3000", "--seed", "9"], 0);
    assert_eq!(object["packets"], 3000);
    assert_eq!(object["differences"], 0);
    assert_eq!(object["difference"], Value::Null);
    for key in
        ["cycles", "cycles_per_second", "rtl_only_cycles_per_second", "verdicts_covered", "verdicts_total"]
    {
        assert!(object[key].as_f64().is_some_and(|number| number > 0.0), "{key}: {object}");
    }
    assert_eq!(
        object["verdicts"].as_object().map(|verdicts| verdicts.len() as u64),
        object["verdicts_total"].as_u64()
    );
    assert!(object.get("mutants_total").is_none());
    let again = json(&["--packets", "3000", "--seed", "9"], 0);
    for key in ["cycles", "verdicts", "coverage"] {
        assert_eq!(object[key], again[key], "{key}");
    }
    let other = json(&["--packets", "3000", "--seed", "10", "--stalls", "30", "--gaps", "none"], 0);
    assert_ne!(object["cycles"], other["cycles"]);
}

#[test]
fn a_packet_can_be_given() {
    if !have_rtl() {
        return;
    }
    let spaced: String = ESP
        .chars()
        .enumerate()
        .map(
            |(index, digit)| {
                if index > 0 && index % 2 == 0 { format!(" {digit}") } else { digit.to_string() }
            },
        )
        .collect();
    for packet in [ESP, &spaced] {
        let object = json(&["--packet", packet, "--packet", "00", "--gaps", "2,1", "--stalls", "60/1"], 0);
        assert_eq!(
            (object["packets"].as_u64(), object["verdicts"]["ok"].as_u64()),
            (Some(2), Some(1)),
            "{object}"
        );
        assert_eq!(object["verdicts"]["truncated_ethernet"], 1);
    }
    // WESPv2's number off, and EESP's instead of it: what is 50 stays ESP.
    let object = json(&["--packet", ESP, "--expect", "wespv2=0,eesp=50"], 0);
    assert_eq!(object["verdicts"]["ok"], 1, "{object}");
}

#[test]
fn a_waveform_of_the_first_packets_is_written_whole_or_not_at_all() {
    if !have_rtl() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("first.vcd");
    json(&["--packets", "500", "--wave", path.to_str().expect("a name in UTF-8")], 0);
    let wave = fs::read_to_string(&path).expect("it was written");
    assert!(wave.contains("$timescale") && wave.contains("result_verdict_o"));
    let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    json(&["--packets", "500", "--wave", "/dev/null"], 0);
    assert!(!Path::new("/dev/null").is_file());
}

#[test]
fn sizes_are_a_sawtooth() {
    if !have_rtl() {
        return;
    }
    let object = json(&["--sizes"], 0);
    let rows = object["rows"].as_array().expect("rows");
    let row = |octets: u64| rows.iter().find(|row| row["octets"] == octets).expect("a row");
    // A beat a cycle at 322.265625 MHz, and two beats for 65 octets.
    for (octets, cycles) in [(60, 1.0), (64, 1.0), (65, 2.0), (128, 2.0), (129, 3.0), (1514, 24.0)] {
        assert_eq!(row(octets)["cycles_per_packet"], cycles, "{octets}");
        assert_eq!(row(octets)["packets_per_second"], 322_265_625.0 / cycles, "{octets}");
    }
    // 65 octets, FCS, preamble and gap: 89 octets at 161.1328125 M packets a second.
    let gbps = row(65)["line_gbps"].as_f64().expect("a number");
    assert!((gbps - 114.73).abs() < 0.01, "{gbps}");
}
