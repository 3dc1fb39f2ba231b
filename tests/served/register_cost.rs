//! What an access to a register costs, by backend: `CRYPTONIC_LONG=1 cargo test --test served register_cost --
//! --nocapture`. The figures are printed, not judged.

use std::time::Instant;

use cryptonic_hwmodel::{Parameters, World};
use cryptonic_pci::{Bar, Host};

use crate::rig::Server;

const ACCESSES: usize = 10_000;

/// Median and 90th percentile of as many accesses, in nanoseconds.
fn measure(mut access: impl FnMut()) -> (u128, u128) {
    let mut spans: Vec<u128> = (0..ACCESSES)
        .map(|_| {
            let started = Instant::now();
            access();
            started.elapsed().as_nanos()
        })
        .collect();
    spans.sort_unstable();
    (spans[ACCESSES / 2], spans[ACCESSES * 9 / 10])
}

fn print(backend: &str, host: &dyn Host) {
    let magic = u32::from_le_bytes(*b"CRNC");
    let read = measure(|| assert_eq!(host.read32(Bar::Bar0, 0), Ok(magic)));
    // The magic number is read-only: a write changes nothing. A read now and then, so that writes do not pile up.
    let mut writes = 0;
    let write = measure(|| {
        host.write32(Bar::Bar0, 0, 0).expect("taken");
        writes += 1;
        if writes % 64 == 0 {
            host.config_read(0).expect("answered");
        }
    });
    println!(
        "{backend}: read {} ns, 90 % in {} ns; posted write {} ns, 90 % in {} ns",
        read.0, read.1, write.0, write.1
    );
}

#[test]
fn register_cost() {
    if std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1") {
        let world = World::new(1);
        let id = world.add_nic(&Parameters::default()).expect("the defaults are in range");
        print("model in this process", world.host(id).as_ref());
        for clock in ["free", "wall"] {
            let server = Server::start(&["--clock", clock]);
            print(&format!("vfio-user, clock {clock}"), &server.attach());
        }
    } else {
        println!("skipped: CRYPTONIC_LONG=1 is not set");
    }
}
