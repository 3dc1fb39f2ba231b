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
const STREAM_BYTES: usize = 60_000;
/// The kernel's own counters of what its IPsec drops (Documentation/networking/xfrm_proc.rst).
const DROPPED: &str = "cat /proc/net/xfrm_stat";

/// What came of each row, by its name.
type Outcomes = BTreeMap<String, Result<(), String>>;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "inside") {
        return inside::run();
    }
    let names = ROWS.iter().map(|row| row.name).chain(["no packet is dropped without a cause"]);
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
            told("no packet is dropped without a cause", &mut || nothing_dropped(&mut talk, &dropped));
            let _ = catch_unwind(AssertUnwindSafe(|| talk.end_guest()));
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
    }
}

/// Both sides change to new keys while a stream goes both ways, each when it likes.
fn rekey(talk: &mut Talk) {
    by_row(talk, REKEY);
    let (mut ours, mut theirs) = (false, false);
    talk.stream(REKEY, 0, 8 * STREAM_BYTES, |talk, bytes| {
        if !ours && bytes > 2 * STREAM_BYTES {
            ours = true;
            talk.change(&rows::file(2, &[1, 2]), "2 SAs installed, 36 kept, 2 deleted");
        }
        if !theirs && bytes > 4 * STREAM_BYTES {
            theirs = true;
            talk.begin_command(&rows::rekeying());
        }
    });
    assert!(ours && theirs);
    talk.end_command();
    by_row(talk, REKEY);
    talk.change(&rows::file(2, &[2]), "0 SAs installed, 36 kept, 2 deleted");
    talk.command(&rows::end_of_rekeying());
    by_row(talk, REKEY);
}

fn nothing_dropped(talk: &mut Talk, before: &str) {
    assert!(before.lines().count() > 20, "{before}");
    let states = talk.command("/sbin/ip -s xfrm state");
    assert_eq!(talk.command(DROPPED), before, "{states}");
    let report = talk.end();
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
