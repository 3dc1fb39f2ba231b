//! Linux as the peer: `cryptonic gateway` against the IPsec of a stock kernel (esp4, esp6, xfrm) in a guest.
//!
//! ```sh
//! cargo test --test peer
//! ```
//!
//! QEMU shows the guest a network card whose cable is a pair of datagram sockets, the other of which is the gateway's outer
//! link. Behind the gateway is a host of smoltcp in this process, which tells a program in the guest (`guest inside`) what to
//! do. Nothing of ours is on the way in the guest: keys, sequence numbers and replay windows are those of `ip xfrm`.

#[path = "../guest/cache.rs"]
mod cache;
#[path = "../gateway/host.rs"]
#[allow(dead_code, reason = "the test of two gateways uses the rest")]
mod host;
mod inside;
#[path = "../guest/machine.rs"]
#[allow(dead_code, reason = "other tests in a guest use the rest")]
mod machine;
#[path = "../gateway/rig.rs"]
#[allow(dead_code, reason = "the test of two gateways uses the rest")]
mod rig;
mod rows;
mod talk;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};
use machine::Guest;
use rows::{REKEY, ROWS};
use serde_json::Value;
use talk::Talk;

/// The guest's card, its IPsec, the cipher, and what numbers its IVs begin with. There is no modprobe in the guest, so what is
/// asked for by name in the kernel stands here too.
const MODULES: [&str; 13] = [
    "virtio_pci",
    "virtio_net",
    "esp4",
    "esp6",
    "xfrm_user",
    "aesni-intel",
    "gcm",
    "ctr",
    "ghash-generic",
    "seqiv",
    "sha512_generic",
    "jitterentropy_rng",
    "drbg",
];
/// Where `ip` is that knows `xfrm`, which busybox's does not.
const IP: [&str; 3] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"];
const NOTHING_DROPPED: &str = "no packet is dropped without a cause";
/// What the link behind the gateway takes in the end, and the rows by which the guest hears of it: what it makes of that, and what its
/// packets have left of 64 hops, if the gateway is a router. In transport mode the kernel takes an MTU for that of the route
/// under its own ESP, for which it leaves room: 34 octets.
const INSIDE_MTU: usize = 1300;
const ROUTED: [(&str, usize, usize, u8); 3] = [
    ("what the inner link takes, and hops, tunnel over IPv4", 0, INSIDE_MTU, 63),
    ("what the inner link takes, and hops, tunnel over IPv6", 2, INSIDE_MTU, 63),
    ("what the inner link takes, transport", 6, INSIDE_MTU - 34, 64),
];
const STREAM_BYTES: usize = 60_000;
/// SAs that stay when the keys of one row are replaced: each row has two of either family.
const KEPT: usize = 4 * ROWS.len();
/// The kernel's own counters of what its IPsec drops (Documentation/networking/xfrm_proc.rst).
const DROPPED: &str = "cat /proc/net/xfrm_stat";

/// What came of each row, by its name.
type Outcomes = BTreeMap<String, Result<(), String>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["inside"] => return inside::run(),
        ["hop", from, to] => return inside::hop(from, to),
        ["stream", from, to, bytes] => return inside::stream(from, to, bytes),
        _ => {}
    }
    let names = ROWS.iter().map(|row| row.name).chain([NOTHING_DROPPED]).chain(ROUTED.map(|(name, ..)| name));
    let trials = names
        .map(|name| {
            Trial::test(name.to_owned(), move || {
                outcomes().map_or(Ok(()), |outcomes| outcome(outcomes, name))
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn outcome(outcomes: &Outcomes, name: &str) -> Result<(), Failed> {
    match outcomes.get(name) {
        Some(Ok(())) => Ok(()),
        Some(Err(message)) => Err(message.clone().into()),
        None => Err("the guest did not come so far".into()),
    }
}

/// What came of the one guest of all these tests; none if it could not be started here.
fn outcomes() -> Option<&'static Outcomes> {
    static OUTCOMES: OnceLock<Result<Outcomes, String>> = OnceLock::new();
    match OUTCOMES.get_or_init(run) {
        Ok(outcomes) => Some(outcomes),
        Err(reason) => {
            cache::skip(reason);
            None
        }
    }
}

fn run() -> Result<Outcomes, String> {
    let cache = cache::fetch().map_err(|reason| format!("no guest: {reason}"))?;
    let ip = IP.iter().map(Path::new).find(|path| path.exists());
    let ip = ip.ok_or("no `ip` on this machine, which the guest needs: install iproute2")?;
    // Given the gateway with all rows, and the guest with the same in its kernel
    let mut talk = Talk::start(&rows::file(1, &[1, 2]));
    let mut guest = Guest::without_device(&MODULES);
    guest.file(ip, "/sbin/ip");
    let [local, remote] = [talk.path("guest"), talk.path("outside")];
    guest.arguments(&[
        "-netdev",
        &format!("dgram,id=net,local.type=unix,local.path={local},remote.type=unix,remote.path={remote}"),
        "-device",
        "virtio-net-pci,netdev=net",
    ]);
    guest.command(&rows::commands());
    guest.command("guest inside");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let machine = scope.spawn(|| guest.run_unless(&cache, &stop));
        // When the host talks with the guest by each row
        let mut outcomes = Outcomes::new();
        let mut told = |name: &str, body: &mut dyn FnMut()| {
            let ended = catch_unwind(AssertUnwindSafe(body)).map_err(|_| "see the panic above".to_owned());
            let good = ended.is_ok();
            println!("{name}: {}", if good { "done" } else { "failed" });
            outcomes.insert(name.to_owned(), ended);
            good
        };
        let mut dropped = String::new();
        let mut arrive = || {
            talk.await_guest();
            // The first pings came before the guest had its keys.
            dropped = talk.command(DROPPED);
        };
        if told("the guest is there", &mut arrive) {
            for (number, row) in ROWS.iter().enumerate() {
                told(row.name, &mut || {
                    if number == REKEY { rekey(&mut talk) } else { by_row(&mut talk, number) }
                });
            }
            // Then neither side dropped anything but what it should
            told(NOTHING_DROPPED, &mut || nothing_dropped(&mut talk, &dropped));
            for (name, number, mtu, hops) in ROUTED {
                told(name, &mut || path_is_found(&mut talk, number, mtu, hops));
            }
            let _ = catch_unwind(AssertUnwindSafe(|| talk.end()));
        }
        stop.store(true, Ordering::Relaxed);
        let log = machine.join().expect("no panic").map_err(|error| error.to_string())?;
        println!("{}", log.summary());
        if outcomes.values().any(Result::is_err) {
            println!("{}", log.end());
        }
        Ok(outcomes)
    })
}

/// Pings and streams of either family, begun on either side.
fn by_row(talk: &mut Talk, number: usize) {
    for family in [0, 1] {
        talk.ping(number, family, 3);
        talk.ping_from_guest(number, family, 3);
        talk.stream(number, family, STREAM_BYTES, |_, _| {});
        let told = talk.stream_from_guest(number, family, STREAM_BYTES);
        let longest = format!("the path takes {}\n", ROWS[number].longest());
        assert!(told.contains(&longest), "{longest}: {told}");
    }
}

/// Both sides change to new keys while a stream goes both ways, each when it likes.
fn rekey(talk: &mut Talk) {
    by_row(talk, REKEY);
    let (mut ours, mut theirs) = (false, false);
    talk.stream(REKEY, 0, 8 * STREAM_BYTES, |talk, bytes| {
        if !ours && bytes > 2 * STREAM_BYTES {
            ours = true;
            talk.change(&rows::file(2, &[1, 2]), &format!("2 SAs installed, {KEPT} kept, 2 deleted"));
        }
        if !theirs && bytes > 4 * STREAM_BYTES {
            theirs = true;
            talk.begin_command(&rows::rekeying());
        }
    });
    assert!(ours && theirs);
    talk.end_command();
    by_row(talk, REKEY);
    talk.change(&rows::file(2, &[2]), &format!("0 SAs installed, {KEPT} kept, 2 deleted"));
    talk.command(&rows::end_of_rekeying());
    by_row(talk, REKEY);
}

fn nothing_dropped(talk: &mut Talk, before: &str) {
    assert!(before.lines().count() > 20, "{before}");
    let states = talk.command("/sbin/ip -s xfrm state");
    assert_eq!(talk.command(DROPPED), before, "{states}");
    // The next gateway has a narrow link, of which the guest is to hear.
    let report = talk.start_again(&["--inside-mtu", &INSIDE_MTU.to_string()]);
    assert_eq!(report["lost_without_reason"], 0, "{report:#}");
    let Value::Object(verdicts) = &report["verdicts"] else { panic!("{report:#}") };
    // What a kernel sends to its own link besides, and the first pings, which came before the guest had an interface.
    let expected = ["protected", "opened", "neighbour_discovery", "link_scope", "no_neighbour"];
    assert!(verdicts.keys().all(|name| expected.contains(&name.as_str())), "{report:#}");
    let no_neighbour = verdicts.get("no_neighbour").and_then(Value::as_u64).unwrap_or(0);
    assert!(no_neighbour < talk.first_pings, "{report:#}");
    let sas = report["sas"].as_array().expect("SAs");
    for sa in sas {
        let unused = sa["packets"] == 0 || sa["icv_failures"] != 0 || sa["replayed"] != 0;
        assert!(!unused, "{sa:#}");
    }
    // Each row has an SA of either direction and family; two generations of one.
    assert_eq!(sas.len(), 4 * (ROWS.len() + 1));
}

/// The guest streams packets that are too long for the link behind the gateway, which says so through the SA.
fn path_is_found(talk: &mut Talk, number: usize, mtu: usize, hops: u8) {
    for family in [0, 1] {
        // Given a guest that has forgotten what it knew
        talk.command(&rows::forget());
        // When it streams, then all passes, and it has learnt what the path takes
        let told = talk.stream_from_guest(number, family, STREAM_BYTES);
        assert!(told.contains(&format!("the path takes {mtu}\n")), "{told}");
        let [host, guest] = Talk::ends(number, family);
        assert_eq!(talk.hops(guest), [hops].into());
        // And a tunnel's gateway tells where hops end
        if hops < 64 {
            let told = talk.command(&format!("guest hop {guest} {host}"));
            assert!(told.contains("the answer is"), "{told}");
        }
    }
}
