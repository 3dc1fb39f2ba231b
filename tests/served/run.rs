//! `run` on served NICs: two of them on a link that the test watches, cuts and breaks, and one alone.

use std::collections::{HashMap, HashSet};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use serde_json::{Value, json};

use crate::rig::{PATIENCE, Server, cryptonic};

/// What only a model in this process knows.
const NOT_KNOWN: [&str; 12] = [
    "preset",
    "parser",
    "parser_cycles",
    "parser_differences",
    "modelled_seconds",
    "modelled_gbps",
    "modelled_packets_per_second",
    "latency_ns",
    "limiting_stage",
    "limiting_stage_share",
    "stages",
    "pcie_bytes_per_packet",
];

/// Two served NICs and the test between them, which passes frames on and keeps a copy.
struct Joined {
    servers: [Server; 2],
    line: Line,
    _links: tempfile::TempDir,
}

/// What is between the far ends of two links.
struct Line {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    over: Arc<AtomicBool>,
    relays: Vec<JoinHandle<()>>,
}

impl Joined {
    /// On a line that loses each frame whose number `is_lost` names, counted each way from 0.
    fn new(is_lost: fn(usize) -> bool) -> Joined {
        let links = tempfile::tempdir().expect("a directory");
        let path = |name: &str| links.path().join(name);
        let (frames, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let relay = |from: PathBuf, to: PathBuf| {
            let (frames, over) = (Arc::clone(&frames), Arc::clone(&over));
            let socket = UnixDatagram::bind(from).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            std::thread::spawn(move || relay(&socket, &to, is_lost, &frames, &over))
        };
        let relays = vec![relay(path("from-a"), path("a")), relay(path("from-b"), path("b"))];
        // What a sends comes to the socket that is named as its far end, and is to arrive at b.
        let serve = |own: &str, far: &str| {
            let link = format!("dgram:{},{}", path(own).display(), path(far).display());
            Server::start(&["--link", &link])
        };
        let servers = [serve("a", "from-b"), serve("b", "from-a")];
        Joined { servers, line: Line { frames, over, relays }, _links: links }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let [a, b] = &self.servers;
        run(&[&["--device", &a.device(), "--peer", &b.device()], arguments].concat())
    }
}

/// Passes on what comes to a socket, until it is over.
fn relay(
    socket: &UnixDatagram,
    to: &Path,
    is_lost: fn(usize) -> bool,
    frames: &Mutex<Vec<Vec<u8>>>,
    over: &AtomicBool,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let frame = &buffer[..length];
        frames.lock().expect("nobody panicked").push(frame.to_vec());
        if !is_lost(number) {
            // Waits while the far end's queue is full. One that is dead takes nothing.
            let _ = socket.send_to(frame, to);
        }
        number += 1;
    }
}

impl Line {
    fn frames(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.frames.lock().expect("nobody panicked"))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.relays.drain(..).map(JoinHandle::join).filter(Result::is_err).count();
        assert!(ended == 0 || std::thread::panicking(), "a relay panicked");
    }
}

fn command(arguments: &[&str]) -> std::process::Command {
    let mut command = cryptonic();
    command.args(["run", "--json"]).args(arguments);
    command
}

/// Runs to the end, which has to come.
fn run(arguments: &[&str]) -> Output {
    ended(command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs"))
}

fn ended(mut child: Child) -> Output {
    let started = Instant::now();
    while child.try_wait().expect("asked").is_none() {
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("its output")
}

fn report(output: &Output, code: i32) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether every packet of a run arrived and was compared, and nothing is claimed that was not measured.
fn assert_whole(report: &Value, packets: u64) {
    for key in ["packets_sent", "packets_received", "packets_verified"] {
        assert_eq!(report[key], packets, "{key}: {report}");
    }
    assert_eq!((&report["mismatches"], &report["lost_without_reason"]), (&json!(0), &json!(0)));
    assert_eq!((&report["drops"], &report["flows_left_out"]), (&json!({}), &json!([])));
    for key in NOT_KNOWN.iter().chain(&["parameters", "cable"]) {
        assert!(report.get(key).is_some_and(Value::is_null), "{key}");
    }
    for key in ["wall_seconds", "wall_packets_per_second", "wall_gbps"] {
        assert!(report[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}");
    }
    assert_eq!(report["flows"].as_array().map(Vec::len), Some(7));
}

/// SPI and sequence number of an ESP frame, and none for PSP; any other does not belong on the line.
fn esp(frame: &[u8]) -> Option<(u32, u32)> {
    let packet = PacketHeaders::from_ethernet_slice(frame).expect("a frame");
    let protocol = match packet.net.as_ref().expect("IP") {
        NetHeaders::Ipv4(header, _) => header.protocol.0,
        NetHeaders::Ipv6(header, _) => header.next_header.0,
        NetHeaders::Arp(_) => panic!("nobody asks"),
    };
    let word =
        |at: usize| u32::from_be_bytes(packet.payload.slice()[at..at + 4].try_into().expect("4 octets"));
    match (protocol, &packet.transport) {
        (50, None) => Some((word(0), word(4))),
        (17, Some(TransportHeader::Udp(udp))) if udp.destination_port == 4500 => Some((word(0), word(4))),
        (17, Some(TransportHeader::Udp(udp))) if udp.destination_port == 1000 => None,
        other => panic!("neither ESP nor PSP: {other:?}"),
    }
}

#[test]
fn two_served_nics_are_joined_by_their_links() {
    let joined = Joined::new(|_| false);
    // A run on one alone comes first: what it turns on does not stay, or nothing would cross the line afterwards.
    assert_whole(&report(&run(&["--device", &joined.servers[0].device(), "--packets", "700"]), 0), 700);
    assert_eq!(joined.line.frames().len(), 0, "its MAC turns all frames around");
    let mut before = HashSet::new();
    for _ in 0..2 {
        let object = report(&joined.run(&["--packets", "4000"]), 0);
        assert_whole(&object, 4000);
        let devices: Vec<Value> = joined
            .servers
            .iter()
            .map(|server| json!({ "name": server.device(), "frames_sent": 2000, "frames_received": 2000 }))
            .collect();
        assert_eq!(object["devices"], json!(devices));

        // All of it was on the line: protected, and by each SA with the numbers from 1 on.
        let frames = joined.line.frames();
        assert_eq!(frames.len(), 4000);
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        for (spi, sequence) in frames.iter().filter_map(|frame| esp(frame)) {
            let last = numbers.entry(spi).or_default();
            *last += 1;
            assert_eq!(sequence, *last, "SPI {spi:#x}");
        }
        assert_eq!(numbers.len(), 8, "four forms both ways");
        // The same seed, SPIs and numbers: the keys are others, for the devices are the same.
        assert!(frames.iter().all(|frame| !before.contains(frame)), "a frame came twice");
        before.extend(frames);
    }
    let info = cryptonic().args(["info", "--device", &joined.servers[1].device()]).output();
    assert!(info.expect("it runs").status.success(), "the next client finds it");
}

#[test]
fn sas_are_replaced_under_traffic() {
    let joined = Joined::new(|_| false);
    let object = report(&joined.run(&["--workload", "examples/rekey.toml", "--packets", "60000"]), 0);
    assert_eq!(object["packets_verified"], 60_000);
    assert!(object["rekeys"].as_u64() >= Some(4), "{}", object["rekeys"]);
}

#[test]
fn one_served_nic_is_joined_with_itself() {
    // Its link leads nowhere: the MAC turns the frames around.
    for arguments in [&["--clock", "free"][..], &["--clock", "wall", "--doorbells", "trapped"]] {
        let server = Server::start(arguments);
        let object = report(&run(&["--device", &server.device(), "--packets", "3000"]), 0);
        assert_whole(&object, 3000);
        let devices = json!([{ "name": server.device(), "frames_sent": 3000, "frames_received": 3000 }]);
        assert_eq!(object["devices"], devices);
        let workload =
            ["--device", &server.device(), "--workload", "examples/workload.toml", "--packets", "500"];
        assert_eq!(report(&run(&workload), 0)["packets_verified"], 500);
    }
}

#[test]
fn what_a_line_loses_is_told_and_ends_the_run() {
    let joined = Joined::new(|number| number % 50 == 49);
    let object = report(&joined.run(&["--packets", "2000"]), 1);
    assert_eq!((&object["packets_sent"], &object["lost_without_reason"]), (&json!(2000), &json!(40)));
    assert_eq!((&object["packets_verified"], &object["mismatches"]), (&json!(1960), &json!(0)));
    let devices = object["devices"].as_array().expect("two");
    assert!(devices.iter().all(|device| device["frames_received"] == 980), "{devices:?}");
}

#[test]
fn nobody_at_the_other_end_is_an_answer() {
    let links = tempfile::tempdir().expect("a directory");
    let serve = |name: &str| {
        let path = links.path().join(name).display().to_string();
        Server::start(&["--link", &format!("dgram:{path},{path}-nobody")])
    };
    let servers = [serve("a"), serve("b")];
    let (a, b) = (servers[0].device(), servers[1].device());
    let output = cryptonic().args(["run", "--device", &a, "--peer", &b]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    for part in ["lost without a reason", "nothing has arrived", &a, &b, "received 0"] {
        assert!(message.contains(part), "no `{part}` in {message}");
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("not known on this device"));
}

#[test]
fn a_server_that_is_killed_is_one_sentence() {
    let mut joined = Joined::new(|_| false);
    let [a, b] = joined.servers.each_ref().map(Server::device);
    let child = command(&["--device", &a, "--peer", &b, "--packets", "1000000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    until(|| joined.line.frames.lock().is_ok_and(|frames| frames.len() > 2000));
    joined.servers[1].child.kill().expect("killed");
    joined.servers[1].child.wait().expect("dead");
    let object = report(&ended(child), 2);
    assert_eq!(object["where"], b.as_str());
    assert!(object["error"].as_str().is_some_and(|text| text.contains("gone")), "{object}");
    // The other one is free.
    assert_whole(&report(&run(&["--device", &a, "--packets", "700"]), 0), 700);
}

#[test]
fn an_interrupt_ends_with_130_after_a_partial_report() {
    let joined = Joined::new(|_| false);
    let [a, b] = joined.servers.each_ref().map(Server::device);
    let child = command(&["--device", &a, "--peer", &b, "--packets", "1000000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    until(|| joined.line.frames.lock().is_ok_and(|frames| frames.len() > 2000));
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    let object = report(&ended(child), 130);
    assert_eq!(object["interrupted"], true);
    assert!(object["packets_sent"].as_u64() > Some(2000));
    assert_eq!(object["packets_sent"], object["packets_verified"]);
}

fn until(happened: impl Fn() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < PATIENCE, "it does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}
