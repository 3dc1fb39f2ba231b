//! Replay windows behind a network that reorders: a window of one more than the depth loses nothing, one of the depth
//! does; what the cable lost and doubled is told as such.

use std::fs;
use std::process::{Command, Stdio};

use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OpenOptions, Protection, QueuePair, QueuePairOptions, Received,
    SaConfiguration, SecretKey, Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{NicId, Parameters, World};
use serde_json::Value;

/// `run` on a workload of this text, which must end with `code`: standard output and standard error.
fn run(workload: &str, packets: &str, seed: &str, code: i32) -> (String, String) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("workload.toml");
    fs::write(&file, workload).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_cryptonic"))
        .args(["run", "--json", "--packets", packets, "--seed", seed, "--workload"])
        .arg(&file)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .expect("the command line runs");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(output.status.code(), Some(code), "{workload}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn report(workload: &str, packets: &str, seed: &str) -> Value {
    let (stdout, _) = run(workload, packets, seed, 0);
    let report: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(report["mismatches"], 0, "{workload}\n{report}");
    assert_eq!(report["lost_without_reason"], 0, "{workload}\n{report}");
    report
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// A flow one way, so that each packet of the cable is the next of its SA.
fn one_flow(window: u64, more: &str) -> String {
    format!(
        "[[flow]]\nfrom = \"a\"\nprotection = \"esp-tunnel\"\nsize = 64\nreplay_window = {window}\n{more}"
    )
}

/// What the flows of one SA are: their keys, and what a packet left of the window is counted as. With ESN it comes out an
/// epoch ahead (RFC 4303, A2.2), unless others pass it between lookup and commit.
const NUMBERS: [(&str, &[&str]); 4] = [
    ("", &["replay_below_window"]),
    ("sequence = \"0xffffe000\"", &["replay_below_window"]),
    ("esn = true", &["replay_below_window", "icv_mismatch"]),
    ("esn = true\nsequence = \"0xffffe000\"", &["replay_below_window", "icv_mismatch"]),
];

#[test]
fn a_window_of_one_more_than_the_depth_drops_nothing() {
    for depth in [31, 32, 64, 500] {
        for (numbers, _) in NUMBERS {
            // Without ESN there are no more numbers behind 2^32.
            let packets = if numbers.starts_with("sequence") { "8191" } else { "16384" };
            let cable = format!("[cable]\nreorder_depth = {depth}\n");
            let report = report(&(cable + &one_flow(depth + 1, numbers)), packets, "1");
            assert_eq!(report["packets_verified"].to_string(), packets, "{depth} {numbers}");
            assert_eq!(report["drops"], serde_json::json!({}), "{depth} {numbers}");
            assert_eq!(number(&report["cable"]["deepest_reordering"]), depth, "the worst case is among them");
            assert!(number(&report["cable"]["packets_reordered"]) > 100);
        }
    }
}

#[test]
fn a_window_of_the_depth_drops_good_packets_and_says_why() {
    for depth in [32, 64, 500] {
        for (numbers, reasons) in NUMBERS {
            let packets = if numbers.starts_with("sequence") { "8191" } else { "16384" };
            let cable = format!("[cable]\nreorder_depth = {depth}\n");
            let report = report(&(cable + &one_flow(depth, numbers)), packets, "1");
            let drops = report["drops"].as_object().expect("an object");
            assert!(!drops.is_empty(), "{depth} {numbers}");
            assert!(drops.keys().all(|reason| reasons.contains(&reason.as_str())), "{numbers}: {drops:?}");
            let dropped: u64 = drops.values().map(number).sum();
            assert_eq!(number(&report["packets_verified"]) + dropped, number(&report["packets_sent"]));
        }
    }
}

#[test]
fn every_copy_that_the_cable_makes_is_dropped_by_a_window_and_none_without() {
    let cable = "[cable]\nreorder_depth = 64\nduplicate = 0.05\n";
    for (flow, dropped) in [
        (one_flow(65, ""), true),
        (one_flow(65, "esn = true\nsequence = \"0xffffe000\""), true),
        (one_flow(0, ""), false),
        (one_flow(0, "esn = true\nsequence = \"0xffffe000\""), false),
        ("[[flow]]\nfrom = \"a\"\nprotection = \"psp\"\nsize = 64\n".to_owned(), false),
    ] {
        let report = report(&format!("{cable}{flow}"), "10000", "2");
        let copies = number(&report["cable"]["packets_duplicated"]);
        assert!((400..600).contains(&copies), "{report}");
        assert_eq!(report["packets_verified"], 10_000, "{flow}");
        let (drops, again) = if dropped {
            (serde_json::json!({ "replay_duplicate": copies }), 0)
        } else {
            (serde_json::json!({}), copies)
        };
        assert_eq!(report["drops"], drops, "{flow}");
        assert_eq!(number(&report["cable"]["packets_received_twice"]), again, "{flow}");
    }
}

#[test]
fn what_the_cable_loses_is_told_as_lost_by_it() {
    for loss in ["0.02", "1"] {
        let cable = format!("[cable]\nloss = {loss}\n");
        let flows = one_flow(32, "") + "[[flow]]\nprotection = \"psp\"\n";
        let report = report(&(cable + &flows), "10000", "3");
        let lost = number(&report["cable"]["packets_lost"]);
        assert!(if loss == "1" { lost == 10_000 } else { (120..280).contains(&lost) }, "{lost}");
        assert_eq!(number(&report["packets_verified"]), 10_000 - lost);
        assert_eq!(report["drops"], serde_json::json!({}));
    }
}

#[test]
fn the_deepest_reordering_of_paths_is_the_window_they_need() {
    let cable = "[cable]\npath_delays_ns = [0, 400, 1100, 1900]\n";
    let wide = report(&format!("{cable}{}", one_flow(4096, "")), "10000", "4");
    let deepest = number(&wide["cable"]["deepest_reordering"]);
    assert!((100..400).contains(&deepest), "{deepest}");
    for (window, drops) in [(deepest + 1, false), (deepest, true)] {
        let report = report(&format!("{cable}{}", one_flow(window, "")), "10000", "4");
        assert_eq!(!report["drops"].as_object().expect("an object").is_empty(), drops, "{window}");
    }
}

#[test]
fn a_seed_is_a_run_and_the_example_loses_nothing_else() {
    let example = fs::read_to_string("examples/reorder.toml").expect("an example");
    let result = |seed| {
        let mut report = report(&example, "20000", seed);
        let object = report.as_object_mut().expect("an object");
        object.retain(|key, _| !key.starts_with("wall_") && key != "size");
        report
    };
    let first = result("5");
    assert_eq!(first, result("5"));
    assert_ne!(first["cable"], result("6")["cable"]);
    let cable = &first["cable"];
    let copies = number(&cable["packets_duplicated"]) - number(&cable["packets_received_twice"]);
    assert_eq!(first["drops"], serde_json::json!({ "replay_duplicate": copies }));
    assert_eq!(number(&first["packets_verified"]), 20_000 - number(&cable["packets_lost"]));
    assert_eq!(number(&cable["deepest_reordering"]), 64);
}

#[test]
fn a_plain_cable_is_not_told() {
    let report = report(&format!("[cable]\n{}", one_flow(64, "")), "100", "1");
    assert_eq!(report["cable"], Value::Null);
}

#[test]
fn what_a_cable_cannot_be_is_named_with_its_line() {
    let flow = one_flow(64, "");
    for (text, parts) in [
        (format!("[cable]\nreorder_dept = 3\n{flow}"), ["workload.toml:2", "reorder_depth"]),
        (format!("[cable]\nreorder_depth = 70000\n{flow}"), ["workload.toml:2", "0 to 65536"]),
        (format!("[cable]\nloss = 1.5\n{flow}"), ["workload.toml:2", "from 0 to 1"]),
        (format!("[cable]\n\nduplicate = -0.1\n{flow}"), ["workload.toml:3", "from 0 to 1"]),
        (format!("[cable]\nduplicate = nan\n{flow}"), ["workload.toml:2", "from 0 to 1"]),
        (format!("[cable]\nloss = \"much\"\n{flow}"), ["workload.toml:2", "wants a number"]),
        (format!("[cable]\npath_delays_ns = []\n{flow}"), ["workload.toml:2", "1 to 256"]),
        (format!("[cable]\npath_delays_ns = [0, -1]\n{flow}"), ["workload.toml:2", "from 0 to"]),
        (one_flow(31, ""), ["workload.toml:5", "32 to 65536"]),
        (one_flow(65_537, ""), ["workload.toml:5", "32 to 65536"]),
        (one_flow(64, "sequence = \"0x100000000\""), ["workload.toml:6", "32 bits"]),
        (
            "[[flow]]\nprotection = \"psp\"\nreplay_window = 64\n".to_owned(),
            ["workload.toml:3", "replay_window"],
        ),
    ] {
        let (stdout, stderr) = run(&text, "10", "1", 2);
        for part in parts {
            assert!(
                stdout.contains(part) || stderr.contains(part),
                "{text}: no `{part}` in {stdout} {stderr}"
            );
        }
    }
}

/// One end, driven by hand.
struct End {
    id: NicId,
    nic: Nic,
    queue: QueuePair,
}

fn end(world: &World) -> End {
    let id = world.add_nic(&Parameters::default()).expect("the defaults are in range");
    let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("opens");
    let options = QueuePairOptions { receive_slots: 1024, ..QueuePairOptions::default() };
    let queue = nic.create_queue_pair(options).expect("a queue pair");
    End { id, nic, queue }
}

fn sa(direction: Direction, esn: bool, sequence: u64, replay_window: u32) -> SaConfiguration {
    SaConfiguration {
        esn,
        sequence,
        replay_window,
        ..SaConfiguration::new(
            direction,
            Mode::Transport,
            Cipher::AesGcm128,
            SecretKey::new(&[0x42; 16]).expect("16 bytes"),
            [1, 2, 3, 4],
            0x1001,
        )
    }
}

/// The worst order there is at a depth: one frame behind as many later ones as may pass it, and so on.
fn worst(frames: &[Vec<u8>], depth: usize) -> Vec<&Vec<u8>> {
    frames
        .chunks(depth + 1)
        .flat_map(|chunk| {
            let (held, passing) = chunk.split_first().expect("chunks are not empty");
            passing.iter().chain([held])
        })
        .collect()
}

/// Sends frames from `sequence` on, and hands them to a receiver in the worst order. Gives the numbers it accepted, and the
/// reasons of the others.
fn through_the_worst_order(esn: bool, sequence: u64, window: u32, depth: usize) -> (Vec<u64>, Vec<Status>) {
    let world = World::new(1);
    let [mut a, mut b] = [end(&world), end(&world)];
    world.record_drops(b.id);
    let handle = a.nic.install_sa(sa(Direction::Out, esn, sequence, 0)).expect("installs");
    b.nic.install_sa(sa(Direction::In, esn, sequence, window)).expect("installs");
    let mut frame = vec![];
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    builder.ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64).udp(1, 2).write(&mut frame, &[7; 20]).expect("a frame");
    let mut sent = vec![];
    for _ in 0..3 * (depth + 1) {
        let mut buffer = a.queue.take_buffer().expect("a buffer");
        a.queue.fill(&mut buffer, &frame).expect("fits");
        let mut packet = TransmitPacket::new(buffer, Protection::Sa(handle), 0);
        packet.report = true;
        assert_eq!(a.queue.transmit(&mut vec![packet]).expect("transmits"), 1);
        world.drain();
        a.queue.completed(&mut vec![]).expect("completes");
        sent.extend(world.take_sent(a.id));
    }
    assert_eq!(sent.len(), 3 * (depth + 1));
    let mut accepted = vec![];
    for frame in worst(&sent, depth) {
        world.inject(b.id, frame);
        world.drain();
        let mut received: Vec<Received> = vec![];
        b.queue.receive(&mut received, 8).expect("receives");
        accepted.extend(received.iter().map(Received::sequence));
        b.queue.return_buffers(&mut received).expect("go back");
    }
    let deadline = b.queue.time() + Time::from_microseconds(1);
    assert!(b.queue.wait(deadline).is_ok());
    (accepted, world.take_drops(b.id))
}

#[test]
fn the_bound_is_exact_in_the_worst_order() {
    for depth in [32, 33, 63, 64, 65, 127] {
        let size = u32::try_from(depth).expect("small");
        let packets = 3 * (depth as u64 + 1);
        // The numbers begin, end at the last of 32 bits, go over 2^32, and end at the last of all but one.
        for (esn, before) in [
            (false, 0),
            (false, (1 << 32) - 1 - packets),
            (true, 0),
            (true, (1 << 32) - packets / 2),
            (true, (1 << 32) - 2),
            (true, (5 << 32) - packets),
            (true, u64::MAX - 1 - packets),
        ] {
            let (mut accepted, drops) = through_the_worst_order(esn, before, size + 1, depth);
            assert_eq!(drops, [], "window {} at depth {depth}, {before:#x}", size + 1);
            accepted.sort_unstable();
            assert!(accepted.into_iter().eq(before + 1..=before + packets), "depth {depth}, {before:#x}");

            let (accepted, drops) = through_the_worst_order(esn, before, size, depth);
            // What is too old is taken for the next epoch's, if there is one (RFC 4303, A2.2).
            let reason = match before >> 32 {
                _ if !esn => Status::ReplayBelowWindow,
                0xffff_ffff => Status::BadSequence,
                _ => Status::IcvMismatch,
            };
            assert_eq!(drops, [reason; 3], "one of each chunk: window {size} at depth {depth}, {before:#x}");
            assert_eq!(accepted.len() as u64, packets - 3);
        }
    }
}
