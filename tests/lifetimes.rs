//! `experiment lifetimes` as its users meet it. Its simulation is held against closed forms beside its source.

use std::process::{Command, Output};

use serde_json::Value;

/// Small enough to be quick, and busy enough for every column.
const SMALL: [&str; 14] = [
    "--tunnels",
    "60",
    "--slots",
    "300",
    "--rate-gbps",
    "10",
    "--seconds",
    "1200",
    "--warm-up-seconds",
    "600",
    "--time-lifetime-seconds",
    "600",
    "--lifetime-bytes",
    "2000000000",
];

fn lifetimes(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cryptonic"))
        .args(["experiment", "lifetimes"])
        .args(arguments)
        .output()
        .expect("the command line runs")
}

fn json(arguments: &[&str]) -> Value {
    let output = lifetimes(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed: &str| lifetimes(&[&SMALL[..], &["--json", "--seed", seed]].concat()).stdout;
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn rows_have_what_scripts_rely_on() {
    let object = json(&SMALL);
    let policies: Vec<&str> =
        object["rows"].as_array().expect("rows").iter().filter_map(|row| row["policy"].as_str()).collect();
    let all =
        ["bytes-equal", "bytes-strongswan", "bytes-libreswan", "bytes-events", "count-draft", "count-events"];
    assert_eq!(policies, all);
    for row in object["rows"].as_array().expect("rows") {
        for key in ["peak_slots", "redundant_sas", "simultaneous_rekeys", "packets_refused"] {
            assert!(row[key].is_u64(), "{key} is a whole number: {row}");
        }
        let wasted = row["wasted_share"].as_f64().expect("a share");
        assert!((0.0..1.0).contains(&wasted), "{row}");
        // What the share is made of stands beside it.
        let seconds = |key: &str| -> f64 {
            row["slot_seconds"][key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"))
        };
        let unneeded = seconds("old") + seconds("redundant");
        let occupied = unneeded + seconds("in_use") + seconds("setting_up");
        assert!((wasted - unneeded / occupied).abs() < 1e-5, "{row}");
    }
    assert_eq!((&object["seed"], &object["parameters"]["tunnels"]), (&1.into(), &60.into()));
}

#[test]
fn a_scan_runs_every_value_with_every_policy_named() {
    let scan = ["--scan", "poll-ms=0,2500.5", "--policies", "count-draft,bytes-equal"];
    let object = json(&[&SMALL[..], &scan].concat());
    let rows: Vec<(&Value, &Value)> = object["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (&row["scanned"]["poll-ms"], &row["policy"]))
        .collect();
    let (first, second) = (Value::from(0), Value::from(2500.5));
    let (count, equal) = (Value::from("count-draft"), Value::from("bytes-equal"));
    assert_eq!(rows, [(&first, &count), (&first, &equal), (&second, &count), (&second, &equal)]);
}

#[test]
fn tables_and_plots_go_to_a_folder() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let out = scratch.path().join("deep/lifetimes");
    let out_name = out.to_str().expect("a name in UTF-8");
    let object = json(&[&SMALL[..], &["--scan", "poll-ms=100,3000", "--out", out_name]].concat());
    let read = |name: &str| std::fs::read(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written: Value = serde_json::from_slice(&read("lifetimes.json")).expect("JSON");
    assert_eq!(written, object);
    assert!(String::from_utf8_lossy(&read("lifetimes.txt")).contains("poll-ms 3000"));
    for plot in ["lifetimes-occupancy-100", "lifetimes-occupancy-3000", "lifetimes-wasted"] {
        let svg = String::from_utf8(read(&format!("{plot}.svg"))).expect("text");
        assert!(
            svg.starts_with("<svg") && svg.contains("count-draft") && svg.contains("<polyline"),
            "{plot}"
        );
        let (width, height, rgb) = pixels(&read(&format!("{plot}.png")));
        assert_eq!((width, height), (960, 560), "{plot}");
        let of = |wanted: [u8; 3]| rgb.chunks_exact(3).filter(|pixel| *pixel == wanted).count();
        // The frame, the line of the last series, which nothing hides; and where the names stand, letters.
        assert!(of([0, 0, 0]) > 500 && of([0, 114, 178]) > 300, "{plot}");
        let letters = (45..200).flat_map(|row| (820..940).map(move |column| (row * 960 + column) * 3));
        assert!(letters.filter(|pixel| rgb[*pixel] < 128).count() > 300, "{plot}: names");
    }
}

/// Width, height and octets of the pixels of a PNG file.
fn pixels(file: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG file");
    let mut rgb = vec![0; reader.output_buffer_size().expect("a size")];
    let frame = reader.next_frame(&mut rgb).expect("a picture");
    (frame.width, frame.height, rgb)
}

#[test]
fn the_documents_show_what_their_commands_print() {
    let document = include_str!("../docs/experiments.md");
    let shown: Vec<(&str, &str)> = document
        .split("```sh\n")
        .skip(1)
        .filter_map(|part| {
            let (command, rest) = part.split_once("\n```\n\n```text\n")?;
            let arguments = command.strip_prefix("cryptonic experiment lifetimes")?;
            Some((arguments, rest.split_once("```\n")?.0))
        })
        .collect();
    std::thread::scope(|scope| {
        for (arguments, expected) in &shown {
            scope.spawn(move || {
                let output = lifetimes(&arguments.split_whitespace().collect::<Vec<_>>());
                let printed = String::from_utf8(output.stdout).expect("text");
                assert!(printed.starts_with(expected), "docs/experiments.md is stale:{arguments}\n{printed}");
            });
        }
    });
    assert_eq!(shown.len(), 7, "commands whose output is shown");
}

#[test]
fn bad_input_ends_with_2_and_names_the_option() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--tunnels", "0"], &["--tunnels", "1 to 100000"]),
        (&["--slots", "1"], &["--slots", "2 to"]),
        (&["--loss", "0.6"], &["--loss", "0 to 0.5"]),
        (&["--loss", "NaN"], &["--loss"]),
        (&["--asymmetry=-0.1"], &["--asymmetry", "0 to 1"]),
        (&["--seconds", "100", "--warm-up-seconds", "100"], &["--warm-up-seconds", "100"]),
        (&["--lifetime-bytes", "5"], &["--lifetime-bytes", "1000000"]),
        (&["--lifetime-packets", "0"], &["--lifetime-packets", "1000"]),
        (&["--policies", "bytes"], &["--policies", "bytes", "count-draft"]),
        (&["--redundant", "maybe"], &["--redundant", "keep"]),
        (&["--scan", "poll-ms"], &["--scan", "poll-ms=0,500,2000"]),
        (&["--scan", "polls=1"], &["--scan", "polls", "poll-ms"]),
        (&["--scan", "poll-ms=1,x"], &["--scan", "`x`", "--poll-ms"]),
        (&["--scan", "loss=0,2"], &["--loss", "0 to 0.5"]),
    ];
    for (arguments, words) in cases {
        let output = lifetimes(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        for word in *words {
            assert!(message.contains(word), "{arguments:?}: no {word} in: {message}");
        }
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
