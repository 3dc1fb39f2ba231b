//! What does not pass, and why; and what ends a gateway before it begins.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use crate::forms::TUNNEL;
use crate::host::Port;
use crate::rig::{Gateway, text};

const INSIDE_MAC: [u8; 6] = [2, 0, 10, 1, 0, 254];
const OUTSIDE_MAC: [u8; 6] = [2, 1, 192, 0, 2, 1];
const HOST_MAC: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];

/// An IPv4 packet with UDP in a frame.
fn frame(to: [u8; 6], source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(HOST_MAC, to).ipv4(source, destination, 64).udp(9, 9);
    builder.write(&mut frame, b"nobody's business").expect("a frame");
    frame
}

fn esp(to: [u8; 6], spi: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(HOST_MAC, to).ipv4([192, 0, 2, 2], [192, 0, 2, 1], 64);
    let packet = [&spi.to_be_bytes()[..], &1_u32.to_be_bytes(), &[0x55; 60]].concat();
    builder.write(&mut frame, etherparse::IpNumber(50), &packet).expect("a frame");
    frame
}

fn changed(mut frame: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
    frame[at..at + octets.len()].copy_from_slice(octets);
    frame
}

#[test]
fn what_is_not_for_an_sa_does_not_pass_and_has_its_reason() {
    let (here, there) = ([10, 1, 0, 1], [10, 2, 0, 1]);
    let inside = |source, destination| frame(INSIDE_MAC, source, destination);
    let tagged = {
        let mut frame = inside(here, there);
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        frame
    };
    // (from outside, frame, verdict)
    let rows: Vec<(bool, Vec<u8>, &str)> = vec![
        (false, frame([2, 0, 0, 0, 0, 77], here, there), "not_for_gateway"),
        (false, inside(here, [10, 1, 0, 254]), "to_gateway"),
        (false, inside([169, 254, 0, 1], there), "link_scope"),
        (false, inside(here, [224, 0, 0, 251]), "link_scope"),
        (false, tagged, "vlan_tag"),
        (false, changed(inside(here, there), 12, &[0x88, 0xcc]), "not_ip"),
        (false, changed(inside(here, there), 14, &[0x95]), "bad_ip_version"),
        (false, inside(here, [10, 3, 0, 1]), "dropped_by_default"),
        (true, frame(OUTSIDE_MAC, there, here), "dropped_by_default"),
        (true, esp(OUTSIDE_MAC, 0x7777), "no_sa"),
        (true, esp(OUTSIDE_MAC, 0x2001), "icv_mismatch"),
        // No ESP (RFC 4303 2.1), so a packet as any other.
        (true, esp(OUTSIDE_MAC, 5), "dropped_by_default"),
        (true, esp([2, 0, 0, 0, 0, 77], 0x2001), "not_for_gateway"),
        (true, changed(esp(OUTSIDE_MAC, 0x2001), 24, &[0, 0]), "bad_ipv4_checksum"),
    ];
    // Given a gateway with a selector
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut file = TUNNEL.file(0, 1, &[1]);
    let selector = "selector = { dst = \"10.2.0.0/16\" }\n[[sa]]\nname = \"in";
    file = file.replacen("[[sa]]\nname = \"in", selector, 1);
    fs::write(path("sa.toml"), file).expect("a file");
    let name = |what: &str| text(&path(what));
    let ports =
        [("host", "inside"), ("wire", "outside")].map(|(one, other)| Port::new(&path(one), &path(other)));
    let gateway = Gateway::start(
        &[
            "--sa",
            &name("sa.toml"),
            "--inside",
            &format!("dgram:{},{}", name("inside"), name("host")),
            "--outside",
            &format!("dgram:{},{}", name("outside"), name("wire")),
            "--inside-gateway",
            "10.1.0.254",
        ]
        .map(str::to_owned),
    );
    // When each frame comes, and then one that an SA takes
    for (outside, frame, _) in &rows {
        ports[usize::from(*outside)].put(frame);
    }
    ports[0].put(&inside(here, there));
    // Then the first that leaves is what asks for the peer: nothing came out before
    let question = loop {
        if let Some(frame) = ports[1].get() {
            break frame;
        }
        std::thread::sleep(std::time::Duration::from_micros(100));
    };
    assert_eq!(
        (&question[..6], &question[12..14], &question[38..42]),
        (&[0xff; 6][..], &[8, 6][..], &[192, 0, 2, 2][..])
    );
    let report = gateway.end();
    assert!(ports[0].get().is_none() && ports[1].get().is_none(), "nothing else comes out");
    let mut wanted = std::collections::BTreeMap::from([("protected", 1)]);
    rows.iter().for_each(|(_, _, verdict)| *wanted.entry(verdict).or_insert(0) += 1);
    assert_eq!(report["verdicts"], serde_json::json!(wanted), "{report:#}");
    assert_eq!(report["lost_without_reason"], 0);
}

fn run(arguments: &[&str], more: impl Fn(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cryptonic"));
    command.arg("gateway").args(arguments).stdin(Stdio::null());
    more(&mut command);
    command.output().expect("the command line runs")
}

#[test]
fn bad_input_ends_with_2_and_names_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name));
    let (sa, broken) = (path("sa.toml"), path("broken.toml"));
    fs::write(&sa, TUNNEL.file(0, 1, &[1])).expect("a file");
    fs::write(&broken, "default = \"reject\"\n").expect("a file");
    let (one, other) = (format!("dgram:{},x", path("one")), format!("dgram:{},x", path("other")));
    let nowhere = format!("dgram:{}/no/such/folder,x", path("one"));
    let rows: [(&[&str], &[&str]); 13] = [
        (&["--inside", "none", "--outside", "none"], &["--sa"]),
        (&["--sa", &sa, "--inside", &one], &["--outside"]),
        (
            &["--sa", &sa, "--inside", "eth0", "--outside", "none"],
            &["--inside", "eth0", "dgram:LOCAL,REMOTE"],
        ),
        (&["--sa", &sa, "--inside", "dgram:x", "--outside", "none"], &["--inside", "one comma"]),
        (&["--sa", &sa, "--inside", "tap:", "--outside", "none"], &["--inside", "name of an interface"]),
        (&["--sa", &sa, "--inside", &one, "--outside", &one], &["--outside", "same link"]),
        (
            &["--sa", &path("gone.toml"), "--inside", &one, "--outside", &other],
            &["gone.toml", "No such file"],
        ),
        (
            &["--sa", folder.path().to_str().expect("UTF-8"), "--inside", &one, "--outside", &other],
            &["directory"],
        ),
        (&["--sa", &broken, "--inside", &one, "--outside", &other], &["broken.toml:1", "reject"]),
        (&["--sa", &sa, "--inside", &nowhere, "--outside", &other], &["no/such/folder", "No such file"]),
        (
            &["--sa", &sa, "--inside", &one, "--outside", &other, "--neighbour", "10.0.0.1"],
            &["--neighbour", "MAC"],
        ),
        (
            &["--sa", &sa, "--inside", &one, "--outside", &other, "--device", "vfio:0000:03:00.0"],
            &["needs the model"],
        ),
        (&["--sa", &sa, "--inside", &format!("replay:{sa}"), "--outside", &other], &["sa.toml", "capture"]),
    ];
    for (arguments, parts) in rows {
        let output = run(arguments, |_| {});
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty());
    }
    let left = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 2, "no socket is left");
}

/// Whoever runs this, nobody may make an interface.
#[test]
fn a_tap_interface_that_is_not_permitted_says_who_can_make_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let sa = text(&folder.path().join("sa.toml"));
    fs::write(&sa, TUNNEL.file(0, 1, &[1])).expect("a file");
    let of_all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), of_all).expect("a mode");
    let arguments = ["--sa", &sa, "--inside", "tap:crytap0", "--outside", "none", "--seconds", "1"];
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    let output = run(&arguments, |command| {
        if is_root {
            command.uid(65_534).gid(65_534);
        }
    });
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    let advised = ["ip tuntap add dev crytap0", "modprobe tun", "cannot be opened", "Linux's"];
    assert!(
        message.contains("tap:crytap0") && advised.iter().any(|part| message.contains(part)),
        "{message}"
    );
}

#[test]
fn a_replay_goes_through_once_and_ends_the_gateway() {
    // Given a capture of packets for the gateway, and one that no SA takes
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name));
    let packet = frame(INSIDE_MAC, [10, 1, 0, 1], [10, 2, 0, 1]);
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        capture.extend(word.to_le_bytes());
    }
    for frame in [&packet, &changed(packet.clone(), 12, &[0x88, 0xcc]), &packet] {
        let length = frame.len() as u32;
        [1_700_000_000, 0, length, length].iter().for_each(|word: &u32| capture.extend(word.to_le_bytes()));
        capture.extend(frame);
    }
    fs::write(path("in.pcap"), capture).expect("a file");
    fs::write(path("sa.toml"), TUNNEL.file(0, 1, &[1])).expect("a file");
    // When it is replayed into a gateway that knows its peer
    let output = run(
        &[
            "--sa",
            &path("sa.toml"),
            "--inside",
            &format!("replay:{}", path("in.pcap")),
            "--outside",
            &format!("pcap:{}", path("out.pcap")),
            "--inside-gateway",
            "10.1.0.254",
            "--neighbour",
            "192.0.2.2=02:00:00:00:00:99",
            "--json",
        ],
        |_| {},
    );
    // Then it ends by itself, and the peer's packets are in the other capture
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["verdicts"], serde_json::json!({ "protected": 2, "not_ip": 1 }), "{report:#}");
    let written = fs::read(path("out.pcap")).expect("written");
    let frames: Vec<_> = written.windows(12).filter(|window| window[..6] == [2, 0, 0, 0, 0, 0x99]).collect();
    assert_eq!(frames, [[2, 0, 0, 0, 0, 0x99, 2, 1, 192, 0, 2, 1]; 2]);
}
