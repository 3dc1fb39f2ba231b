//! The command line around it.

use std::path::Path;
use std::process::Output;

use crate::rig::{Server, cryptonic, patient};
use cryptonic_driver::Nic;
use serde_json::Value;

fn json(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn run(arguments: &[&str]) -> Output {
    cryptonic().args(arguments).output().expect("the command line runs")
}

#[test]
fn info_and_stats_say_the_same_of_a_served_model() {
    for clock in ["free", "wall"] {
        // As the model in its driver's process has it.
        let server = Server::start(&["--clock", clock, "--doorbells", "trapped"]);
        let there = json(&run(&["info", "--json", "--device", &server.device()]), 0);
        let here = json(&run(&["info", "--json"]), 0);
        assert_eq!(there, here);
        let stats = json(&run(&["stats", "--json", "--all", "--device", &server.device()]), 0);
        let names = |stats: &Value| {
            stats["counters"].as_object().expect("counters").keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&stats), names(&json(&run(&["stats", "--json", "--all"]), 0)));
    }
}

#[test]
fn a_command_that_cannot_be_served_says_so() {
    let server = Server::start(&[]);
    let device = server.device();
    for arguments in [
        &["bench", "--packets", "10"][..],
        &["experiment", "inline", "--packets", "10"],
        &["pcap", "--sa", "examples/esp-tunnel.toml", "tests/vectors/captures/mixed.pcap", "/dev/null"],
    ] {
        let error = json(&run(&[arguments, &["--json", "--device", &device]].concat()), 2);
        assert_eq!(error["where"], "--device", "{arguments:?}");
        assert!(error["error"].as_str().is_some_and(|text| text.contains("needs the model")), "{error}");
    }
    // What would change nothing is not taken either.
    for option in [["--preset", "25g"], ["--config", "knobs.toml"], ["--set", "crypto.lanes=2"]] {
        for command in ["info", "stats"] {
            let error = json(&run(&[command, "--json", "--device", &device, option[0], option[1]]), 2);
            assert_eq!(error["where"], option[0], "{command}");
        }
    }
}

/// A server has no other end than an interrupt: it has done its work then.
#[test]
fn an_interrupted_server_ends_well_and_leaves_no_socket() {
    let server = Server::start(&[]);
    drop(Nic::open(Box::new(server.attach()), patient()).expect("open"));
    let nic = Nic::open(Box::new(server.attach()), patient()).expect("open");
    let socket = server.socket();
    let report = json(&server.interrupt(), 0);
    assert_eq!(report["clients"], 2);
    assert!(!socket.exists());
    assert!(nic.device_status().is_err(), "the device is gone");
}

#[test]
fn once_is_once() {
    let mut server = Server::start(&["--once"]);
    // Who only looks is no client.
    drop(std::os::unix::net::UnixStream::connect(server.socket()).expect("it serves"));
    drop(Nic::open(Box::new(server.attach()), patient()).expect("open"));
    assert_eq!(server.child.wait().expect("its end").code(), Some(0));
    assert!(!server.socket().exists());
}

#[test]
fn a_path_that_will_not_do_is_exit_2_and_a_sentence() {
    let server = Server::start(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "somebody's").expect("written");
    let long = directory.path().join("l".repeat(120));
    for (path, message) in [
        (server.socket().as_path(), "another process serves it"),
        (file.as_path(), "a file that is no socket"),
        (long.as_path(), "too long"),
        (directory.path().join("missing/nic").as_path(), "cannot be made there"),
        (Path::new("/proc/nic"), "cannot be made there"),
        (directory.path(), "choose another path"),
    ] {
        let path = path.display().to_string();
        let error = json(&run(&["serve", "--json", "--socket", &path]), 2);
        assert_eq!(error["where"], path.as_str());
        assert!(error["error"].as_str().is_some_and(|text| text.contains(message)), "{error}");
        // As an address of a device that nobody serves.
        if path != server.socket().display().to_string() {
            let error = json(&run(&["info", "--json", "--device", &format!("vfio-user:{path}")]), 2);
            assert!(
                error["error"].as_str().is_some_and(|text| text.contains("no vfio-user server")),
                "{error}"
            );
        }
    }
    assert_eq!(std::fs::read(&file).expect("still there"), b"somebody's");
    // The first one goes on as if nothing had been.
    json(&run(&["info", "--json", "--device", &server.device()]), 0);
}

#[test]
fn a_socket_that_a_killed_server_left_is_replaced() {
    let mut server = Server::start(&[]);
    server.child.kill().expect("killed");
    server.child.wait().expect("dead");
    assert!(server.socket().exists());
    let directory = std::mem::replace(&mut server.directory, tempfile::tempdir().expect("a directory"));
    let server = Server::start_in(directory, &[]);
    json(&run(&["info", "--json", "--device", &server.device()]), 0);
}

/// A server that has a driver already takes a second one's connection, and lets it wait.
#[test]
fn a_second_driver_is_told_that_there_may_be_another() {
    let server = Server::start(&[]);
    let _nic = Nic::open(Box::new(server.attach()), patient()).expect("open");
    let error = json(&run(&["info", "--json", "--device", &server.device()]), 2);
    assert!(error["error"].as_str().is_some_and(|text| text.contains("one driver at a time")), "{error}");
}
