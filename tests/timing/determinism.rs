//! The same seed, parameters and calls give the same bytes at the same times.

use std::hash::{DefaultHasher, Hash, Hasher};

use cryptonic_driver::{Protection, Time};
use cryptonic_hwmodel::{Parameters, World};

use crate::rig::{Kind, Rig, frame};

/// A number that looks random, from a counter (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// Everything of a run that could differ.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    frames: usize,
    line: u64,
    received: u64,
    latencies: (u64, Time, Time, Time),
    pcie_bytes: [(u64, u64); 2],
    end: Time,
}

/// Random traffic from `a` to `b`: kinds, sizes, batches and idle times.
fn run(mut rig: Rig, traffic: u64, kinds: &[Kind]) -> Outcome {
    let protections: Vec<Protection> = kinds.iter().map(|kind| rig.protection(*kind)).collect();
    let line = rig.tap(rig.a.id);
    let mut random = Random(traffic);
    let mut received = DefaultHasher::new();
    let take = |rig: &mut Rig, received: &mut DefaultHasher| {
        rig.b.receive(|queue, one| {
            let mut bytes = vec![0; one.length()];
            queue.read(one, 0, &mut bytes).expect("in range");
            (one.time_picoseconds(), one.sequence(), one.iv(), bytes, queue.time()).hash(received);
        })
    };
    for _ in 0..60 {
        let protection = protections[random.below(protections.len() as u64) as usize];
        let count = 1 + random.below(24);
        let frames: Vec<_> = (0..count).map(|_| frame(64 + random.below(1_455) as usize)).collect();
        rig.a.send(&frames, protection);
        for _ in 0..random.below(12) {
            rig.a.queue.relax();
            take(&mut rig, &mut received);
            rig.a.reap();
        }
        while rig.a.queue.transmit_space() < 512 {
            rig.a.queue.relax();
            rig.a.reap();
        }
    }
    rig.world.drain();
    while take(&mut rig, &mut received) > 0 {}
    let mut heard = DefaultHasher::new();
    line.borrow().hash(&mut heard);
    let latencies = rig.world.latencies();
    let frames = line.borrow().len();
    Outcome {
        frames,
        line: heard.finish(),
        received: received.finish(),
        latencies: (latencies.samples(), latencies.quantile(0.5), latencies.quantile(0.99), latencies.max()),
        pcie_bytes: [rig.a.id, rig.b.id].map(|id| rig.world.pcie_bytes(id)),
        end: rig.world.now(),
    }
}

const ALL: [Kind; 4] = [Kind::Clear, Kind::EspTransport, Kind::EspTunnel, Kind::Psp];
/// Without PSP, whose device keys come from a NIC's serial number.
const UNSEEDED: [Kind; 3] = [Kind::Clear, Kind::EspTransport, Kind::EspTunnel];

fn world(seed: u64) -> Rig {
    let world = World::new(seed);
    let [a, b] = [(); 2].map(|()| world.add_nic(&Parameters::default()).expect("in range"));
    Rig::open(world, a, b, 64)
}

#[test]
fn the_same_seed_gives_the_same_bytes_at_the_same_times() {
    for seed in 0..8 {
        let one = run(world(seed), seed, &ALL);
        assert!(one.frames > 300 && one.latencies.0 == one.frames as u64, "{one:?}");
        assert_eq!(one, run(world(seed), seed, &ALL), "seed {seed}");
        assert_ne!(one.line, run(world(seed + 100), seed, &ALL).line, "the seed makes the keys");
        assert_ne!(one.line, run(world(seed), seed + 100, &ALL).line, "the traffic is in the hash");
    }
}

#[test]
fn neither_the_order_of_nics_nor_an_idle_one_changes_the_others() {
    let parameters = Parameters::default();
    for traffic in 0..8 {
        let expected = run(world(3), traffic, &UNSEEDED);

        let swapped = World::new(3);
        let [b, a] = [(); 2].map(|()| swapped.add_nic(&parameters).expect("in range"));
        assert_eq!(
            run(Rig::open(swapped, a, b, 64), traffic, &UNSEEDED),
            expected,
            "added the other way round"
        );

        let more = World::new(3);
        let [_, a, _, b, _] = [(); 5].map(|()| more.add_nic(&parameters).expect("in range"));
        assert_eq!(run(Rig::open(more, a, b, 64), traffic, &UNSEEDED), expected, "among idle NICs");
    }
}
