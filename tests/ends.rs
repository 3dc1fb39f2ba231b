//! Lifetimes on the command line: `pcap` stops at the hard limit and carries on what is used, `run` rekeys at the soft one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const TUNNEL: &str = "examples/esp-tunnel.toml";
const MIXED: &str = "tests/vectors/captures/mixed.pcap";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cryptonic")).args(arguments).output().expect("the command line runs")
}

fn json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn name(path: &Path) -> &str {
    path.to_str().expect("a name in UTF-8")
}

/// The first SA of the example with a lifetime; it takes every IPv4 packet of its networks.
fn with_lifetime(lifetime: &str) -> String {
    let text = fs::read_to_string(TUNNEL).expect("the example");
    text.replacen("direction = \"out\"", &format!("direction = \"out\"\nlifetime = {lifetime}"), 1)
}

#[test]
fn exactly_as_many_packets_as_the_hard_limit_says_are_protected() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (sa, out, next) =
        (folder.path().join("sa.toml"), folder.path().join("out.pcap"), folder.path().join("next.toml"));
    let whole = json(&["pcap", "--sa", TUNNEL, MIXED, name(&out), "--json"]);
    let protected = whole["verdicts"]["protected"].as_u64().expect("a count");
    for limit in [1, 2, 3] {
        fs::write(&sa, with_lifetime(&format!("{{ kind = \"count\", hard = {limit} }}"))).expect("a file");
        let some = json(&["pcap", "--sa", name(&sa), MIXED, name(&out), "--sa-out", name(&next), "--json"]);
        let refused = some["verdicts"]["hard_limit"].as_u64().expect("a count");
        assert_eq!(some["verdicts"]["protected"].as_u64(), Some(protected - refused), "{some}");
        let life = &some["lifetimes"][0];
        assert_eq!((life["used"].as_u64(), life["state"].as_str()), (Some(limit), Some("expired")), "{some}");
        // What is used is used: the next run has nothing left.
        let ended = run(&["pcap", "--sa", name(&next), MIXED, name(&out)]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&ended.stderr).contains("the SA has ended"));
    }
}

#[test]
fn what_is_used_of_a_lifetime_carries_on() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (sa, out, next) =
        (folder.path().join("sa.toml"), folder.path().join("out.pcap"), folder.path().join("next.toml"));
    fs::write(&sa, with_lifetime("{ kind = \"bytes\", soft = 100, hard = 100000000 }")).expect("a file");
    let first = json(&["pcap", "--sa", name(&sa), MIXED, name(&out), "--sa-out", name(&next), "--json"]);
    let used = |object: &Value| object["lifetimes"][0]["used"].as_u64().expect("a count");
    assert_eq!(first["lifetimes"][0]["state"], "soft", "{first}");
    assert_eq!(first["lifetimes"][0]["unit"], "bytes");
    let written = fs::read_to_string(&next).expect("the file");
    assert!(written.contains("hard = 100000000, used = "), "{written}");
    let second = json(&["pcap", "--sa", name(&next), MIXED, name(&out), "--json"]);
    assert_eq!(used(&second), 2 * used(&first), "the same packets again");
}

#[test]
fn what_an_sa_file_says_of_lifetimes_is_shown() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let sa = folder.path().join("sa.toml");
    for (lifetime, text, object) in [
        (
            "{ kind = \"count\", soft = 9, hard = 10 }",
            "0 of 10 (soft 9) packets used",
            serde_json::json!({ "unit": "packets", "soft": 9, "hard": 10, "used": 0 }),
        ),
        (
            "{ kind = \"bytes\", hard = 10, used = 3 }",
            "3 of 10 bytes used",
            serde_json::json!({ "unit": "bytes", "soft": null, "hard": 10, "used": 3 }),
        ),
        (
            "{ kind = \"count\", soft = 7 }",
            "0 of soft 7 packets used",
            serde_json::json!({ "unit": "packets", "soft": 7, "hard": null, "used": 0 }),
        ),
    ] {
        fs::write(&sa, with_lifetime(lifetime)).expect("a file");
        let shown = String::from_utf8(run(&["sa", "check", name(&sa)]).stdout).expect("text");
        assert!(shown.lines().next().is_some_and(|line| line.ends_with(text)), "{lifetime}: {shown}");
        let sas = &json(&["sa", "check", name(&sa), "--json"])["sas"];
        assert_eq!((&sas[0]["lifetime"], &sas[1]["lifetime"]), (&object, &Value::Null), "{lifetime}");
    }
    // A flow without a hard limit names the soft one alone.
    let workload = folder.path().join("soft.toml");
    let flow = "[[flow]]\nprotection = \"esp-tunnel\"\nlifetime = { kind = \"count\", soft = 500 }\n";
    fs::write(&workload, flow).expect("a file");
    let object = json(&["run", "--workload", name(&workload), "--packets", "100", "--json"]);
    let protection = object["flows"][0]["protection"].as_str().expect("text");
    assert!(protection.ends_with("rekeyed at 500 packets"), "{protection}");
}

#[test]
fn a_run_rekeys_under_traffic_and_loses_nothing() {
    let object = json(&["run", "--workload", "examples/rekey.toml", "--packets", "240000", "--json"]);
    let number = |key: &str| object[key].as_u64().unwrap_or_else(|| panic!("{key}: {object}"));
    assert_eq!(number("packets_verified"), 240_000);
    assert_eq!((number("mismatches"), number("lost_without_reason")), (0, 0));
    assert_eq!(object["drops"], serde_json::json!({}), "no packet met a hard limit");
    // Four of six packets are of 8 lanes whose SAs last 5 000 packets: 20 000 for each.
    assert!(number("rekeys") >= 8 * 3, "{}", number("rekeys"));
    let plain = json(&["run", "--packets", "2000", "--json"]);
    assert_eq!(plain["rekeys"], Value::Null, "nothing has limits");
}

#[test]
fn without_time_to_rekey_the_hard_limit_drops_with_its_reason() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let workload = folder.path().join("tight.toml");
    let flow =
        "[[flow]]\nprotection = \"esp-tunnel\"\nlifetime = { kind = \"count\", soft = 999, hard = 1000 }\n";
    fs::write(&workload, flow).expect("a file");
    let object = json(&["run", "--workload", name(&workload), "--packets", "20000", "--json"]);
    let refused = object["drops"]["hard_limit"].as_u64().expect("packets met the limit");
    let stale = object["drops"]["stale_sa"].as_u64().unwrap_or(0);
    assert_eq!(object["packets_verified"].as_u64(), Some(20_000 - refused - stale), "{object}");
    assert_eq!(object["lost_without_reason"], 0);
}

#[test]
fn a_table_without_room_for_a_second_sa_names_its_knobs() {
    let tight =
        ["run", "--workload", "examples/rekey.toml", "--packets", "100000", "--set", "capacity.sa_slots=20"];
    let output = run(&tight);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("no free slot") && error.contains("capacity.sa_packet_slots_percent"), "{error}");
}

#[test]
fn a_lifetime_that_cannot_be_names_its_line() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let workload = folder.path().join("bad.toml");
    for (lifetime, says) in [
        ("{ kind = \"count\", hard = 5 }", "wants `soft`"),
        ("{ kind = \"count\", soft = 5, hard = 5 }", "not below the hard limit"),
        ("{ kind = \"count\", soft = 0, hard = 5 }", "1 to"),
        ("{ kind = \"packets\", soft = 1 }", "count"),
        ("{ kind = \"count\", soft = 1, used = 1 }", "has no `used`"),
    ] {
        let text = format!("[[flow]]\nprotection = \"esp-tunnel\"\nlifetime = {lifetime}\n");
        fs::write(&workload, text).expect("a file");
        let output = run(&["run", "--workload", name(&workload)]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{lifetime}");
        assert!(error.contains("bad.toml:3") && error.contains(says), "{lifetime}: {error}");
    }
}
