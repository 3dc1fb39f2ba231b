//! Linux as the hosts: two network namespaces, whose only links are the TAP interfaces of two gateways. As root alone.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::forms::TUNNEL;
use crate::host::addresses;
use crate::rig::{Gateway, SIDES, text};

/// What 1500 octets leave a packet in the tunnel, and what the right inside link takes.
const LONGEST: usize = 1446;
const RIGHT_MTU: usize = 1400;
const STREAM_BYTES: usize = 1_000_000;
const PORT: u16 = 7;

/// Two namespaces, which end with the test.
struct Namespaces;

impl Namespaces {
    fn name(side: usize) -> String {
        format!("cry{}-{}", std::process::id(), SIDES[side])
    }

    fn tap(side: usize) -> String {
        format!("cry{}{side}", std::process::id())
    }

    /// None, with the reason told, where they cannot be made.
    fn new() -> Option<Namespaces> {
        let names = [0, 1].map(Namespaces::name);
        for name in &names {
            if let Err(reason) = run("ip", &["netns", "add", name]) {
                println!("skipped: a network namespace needs root and iproute2: {reason}");
                let _ = run("ip", &["netns", "del", &names[0]]);
                return None;
            }
        }
        Some(Namespaces)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for side in [0, 1] {
            let _ = run("ip", &["netns", "del", &Namespaces::name(side)]);
            let _ = run("ip", &["link", "del", &Namespaces::tap(side)]);
        }
    }
}

/// What a program printed; an error with it if it failed.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    let printed = [&output.stdout[..], &output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    if output.status.success() { Ok(printed) } else { Err(printed) }
}

fn ip(arguments: &str) {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &words).unwrap_or_else(|error| panic!("ip {arguments}: {error}"));
}

/// `ping` in a namespace: what it printed, however it ended.
fn ping(side: usize, arguments: &str) -> String {
    let name = Namespaces::name(side);
    let words =
        ["netns", "exec", &name, "ping", "-n", "-W", "5"].into_iter().chain(arguments.split_whitespace());
    run("ip", &words.collect::<Vec<_>>()).unwrap_or_else(|printed| printed)
}

/// Does something in a namespace, in a thread of its own.
fn inside<T: Send + 'static>(
    side: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        let path = Path::new("/run/netns").join(Namespaces::name(side));
        let namespace = fs::File::open(path).expect("the namespace is there");
        // SAFETY: the descriptor is open, and the namespace of this thread alone changes.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        body()
    })
}

/// A stream from `from` to the other side and back.
fn stream(from: usize, to: IpAddr) {
    let listening =
        inside(1 - from, move || TcpListener::bind(SocketAddr::new(to, PORT)).expect("an address"));
    let listener = listening.join().expect("no panic");
    let echo = inside(1 - from, move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("all of it");
        stream.write_all(&all).expect("it goes back");
    });
    let sender = inside(from, move || {
        let bytes: Vec<u8> = (0..STREAM_BYTES).map(|place| (place * 7 + place / 255) as u8).collect();
        let mut stream = TcpStream::connect(SocketAddr::new(to, PORT)).expect("a connection");
        let mut outgoing = stream.try_clone().expect("the same socket");
        outgoing.write_all(&bytes).expect("it takes all");
        outgoing.shutdown(std::net::Shutdown::Write).expect("that was all");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("all of it");
        assert!(back == bytes, "other bytes come back");
    });
    sender.join().expect("all came back");
    echo.join().expect("all was sent back");
}

#[test]
fn linux_finds_the_path_mtu_and_the_hops_through_two_gateways() {
    // Given two hosts of Linux with a gateway before each, and links that take 1500 and 1400 octets
    let Some(_namespaces) = Namespaces::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let name = |what: &str, side: usize| text(&folder.path().join(format!("{what}-{}", SIDES[side])));
    let gateways = [0, 1].map(|side| {
        let tap = Namespaces::tap(side);
        ip(&format!("tuntap add dev {tap} mode tap"));
        if side == 1 {
            ip(&format!("link set {tap} mtu {RIGHT_MTU}"));
        }
        fs::write(name("sa.toml", side), TUNNEL.file(side, 1, &[1])).expect("a file");
        let [gateway_4, gateway_6] = addresses(side as u8 + 1, 254);
        let gateway = Gateway::start(&[
            "--sa".to_owned(),
            name("sa.toml", side),
            format!("--inside=tap:{tap}"),
            format!("--outside=dgram:{},{}", name("outside", side), name("outside", 1 - side)),
            format!("--inside-gateway={gateway_4}"),
            format!("--inside-gateway={gateway_6}"),
        ]);
        let namespace = Namespaces::name(side);
        ip(&format!("link set {tap} netns {namespace}"));
        for (address, prefix, router) in addresses(side as u8 + 1, 1)
            .into_iter()
            .zip([24, 64])
            .zip([gateway_4, gateway_6])
            .map(|((address, prefix), router)| (address, prefix, router))
        {
            let nodad = if address.is_ipv6() { "nodad" } else { "" };
            ip(&format!("-n {namespace} addr add {address}/{prefix} dev {tap} {nodad}"));
            ip(&format!("-n {namespace} link set {tap} up"));
            ip(&format!("-n {namespace} route add default via {router}"));
        }
        // The host itself takes more, so that the gateway has something to say.
        ip(&format!("-n {namespace} link set {tap} mtu 1500"));
        gateway
    });
    for family in [0, 1] {
        let [left, right] = [1, 2].map(|side| addresses(side, 1)[family]);
        let gateway = [1, 2].map(|side| addresses(side, 254)[family]);
        // When they ping each other, then two hops are counted
        let printed = ping(0, &format!("-c 2 {right}"));
        assert!(printed.contains("ttl=62") && printed.contains(" 0% packet loss"), "{printed}");
        // And each gateway tells that the hops are exceeded
        for (hops, gateway) in [(1, gateway[0]), (2, gateway[1])] {
            let printed = ping(0, &format!("-c 1 -t {hops} {right}"));
            let said = ["Time to live exceeded", "Hop limit"].iter().any(|what| printed.contains(what));
            assert!(said && printed.contains(&format!("From {gateway}")), "{printed}");
        }
        let headers = [28, 48][family];
        // And the near gateway says what the tunnel takes, and the far one what its link does
        for (length, gateway, mtu) in
            [(LONGEST + 1, gateway[0], LONGEST), (RIGHT_MTU + 1, gateway[1], RIGHT_MTU)]
        {
            let printed = ping(0, &format!("-c 1 -M do -s {} {right}", length - headers));
            assert!(printed.contains(&format!("From {gateway}")), "{printed}");
            assert!(
                printed.contains(&format!("mtu = {mtu}")) || printed.contains(&format!("mtu={mtu}")),
                "{printed}"
            );
        }
        let printed = ping(0, &format!("-c 1 -M do -s {} {right}", RIGHT_MTU - headers));
        assert!(printed.contains(" 0% packet loss"), "{printed}");
        // And what they send in pieces of 1500 octets comes whole, cut once more on the way
        if family == 0 {
            let printed = ping(1, &format!("-c 2 -M dont -s 4000 {left}"));
            assert!(printed.contains(" 0% packet loss"), "{printed}");
        }
        // And streams pass, begun at either end
        for side in [0, 1] {
            ip(&format!("-n {} -{} route flush cache", Namespaces::name(side), [4, 6][family]));
        }
        stream(0, right);
        stream(1, left);
    }
    let reports = gateways.map(Gateway::end);
    for (side, report) in reports.iter().enumerate() {
        assert_eq!(report["lost_without_reason"], 0, "{report:#}");
        assert_eq!(report["inside"]["mtu"], [1500, RIGHT_MTU][side], "{report:#}");
        let told = report["errors_sent"].as_u64().expect("a number");
        assert!(told >= 4, "{report:#}");
    }
}
