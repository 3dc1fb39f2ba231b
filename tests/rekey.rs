//! Rekeying under traffic: two NICs whose SAs have small limits, packets both ways without a pause, and pair after pair
//! replaced as its soft limit is told. No packet is lost, refused or received twice, with firmware that crashes in between
//! too.

#[path = "never/stepped.rs"]
#[allow(dead_code)] // Other tests stall firmware too.
mod stepped;

use std::collections::HashSet;

use cryptonic_driver::rekey::Rekeyer;
use cryptonic_driver::{
    AdminStatus, Cipher, Direction, Error, EventOptions, EventStream, KeyLedger, Lifetime, Mode, Nic,
    OuterHeader, Protection, QueuePair, QueuePairOptions, Replacement, SaConfiguration, SaHandle, SaPair,
    SecretKey, Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

use stepped::{Steps, open_stepped};

/// The pair that each end watches.
const NAME: u32 = 1;
const SOFT: u64 = 40;
const HARD: u64 = 100_000;

/// The SA of a direction and a turn: both ends make the same of it.
fn sa(direction: Direction, from_a: bool, turn: u32) -> SaConfiguration {
    let mut key = [if from_a { 0x3a } else { 0x3b }; 16];
    key[..4].copy_from_slice(&turn.to_be_bytes());
    let spi = 0x1_0000 * (1 + u32::from(from_a)) + turn;
    let key = SecretKey::new(&key).expect("16 bytes");
    let out = direction == Direction::Out;
    SaConfiguration {
        lifetime: if out { Lifetime::packets(Some(SOFT), Some(HARD)) } else { Lifetime::UNLIMITED },
        outer: out.then(|| OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())),
        ..SaConfiguration::new(direction, Mode::Tunnel, Cipher::AesGcm128, key, [1, 2, 3, 4], spi)
    }
}

struct End {
    id: NicId,
    nic: Nic,
    steps: Steps,
    queue: QueuePair,
    events: EventStream,
    rekeyer: Rekeyer<u32>,
    pair: SaPair<SaHandle>,
    /// The pair that was replaced, while the peer may still use it.
    replacement: Option<Replacement>,
    /// Inbound SAs that are there.
    opening: HashSet<SaHandle>,
    is_a: bool,
    sent: u64,
    under_way: u64,
    received: HashSet<u64>,
    slots_most: u64,
}

impl End {
    fn new(world: &World, id: NicId, is_a: bool) -> End {
        let (mut nic, steps) = open_stepped(world, id, Time::from_nanoseconds(200), &KeyLedger::new());
        let queue = nic.create_queue_pair(QueuePairOptions::default()).expect("queue");
        let events = nic.open_events(EventOptions { slots: 4, vector: None }).expect("events");
        let handles = nic.install_sas(pair_of(is_a, 0)).expect("install");
        let pair = SaPair::new(handles[0], handles[1]);
        let mut rekeyer = Rekeyer::new();
        rekeyer.watch(NAME, pair);
        End {
            id,
            nic,
            steps,
            queue,
            events,
            rekeyer,
            pair,
            replacement: None,
            opening: HashSet::from([handles[1]]),
            is_a,
            sent: 0,
            under_way: 0,
            received: HashSet::new(),
            slots_most: 0,
        }
    }

    /// Sends a few packets, each with its number, and takes what came.
    fn move_packets(&mut self, count: usize) {
        let outbound = self.pair.outbound.expect("there is always one");
        let mut batch = vec![];
        for _ in 0..count {
            self.sent += 1;
            let mut buffer = self.queue.take_buffer().expect("a buffer");
            self.queue.fill(&mut buffer, &frame(self.sent)).expect("fits");
            batch.push(TransmitPacket {
                report: true,
                ..TransmitPacket::new(buffer, Protection::Sa(outbound), self.sent)
            });
        }
        self.under_way += self.queue.transmit(&mut batch).expect("transmit") as u64;
        assert!(batch.is_empty(), "the ring has room");
        self.take_packets();
    }

    fn take_packets(&mut self) {
        let mut done = vec![];
        self.queue.completed(&mut done).expect("completed");
        for end in done {
            assert_eq!(end.status, Status::Ok, "none is refused");
            self.under_way -= u64::from(end.packets);
        }
        let mut received = vec![];
        self.queue.receive(&mut received, 256).expect("receive");
        for one in received {
            assert_eq!(one.status(), Status::Ok);
            let mut bytes = vec![0; one.length()];
            let (sa, spi) = (one.sa(), one.spi());
            self.queue.copy_out(one, &mut bytes).expect("in range");
            let number = u64::from_be_bytes(bytes[42..50].try_into().expect("8 bytes"));
            assert!(self.received.insert(number), "{number} twice");
            assert!(sa.is_some_and(|sa| self.opening.contains(&sa)), "SPI {spi:x}: by a live SA");
        }
    }

    /// What was sent by the SA of before has left the device: only then it may go.
    fn flush(&mut self) {
        let deadline = self.nic.time() + Time::from_milliseconds(1);
        while self.under_way != 0 {
            assert!(self.nic.time() < deadline);
            self.take_packets();
            self.nic.relax();
        }
    }
}

/// Outbound and inbound SA of an end.
fn pair_of(is_a: bool, turn: u32) -> Vec<SaConfiguration> {
    vec![sa(Direction::Out, is_a, turn), sa(Direction::In, !is_a, turn)]
}

fn frame(number: u64) -> Vec<u8> {
    let mut frame = vec![];
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678)
        .write(&mut frame, &[&number.to_be_bytes()[..], &[0x77; 200]].concat())
        .expect("a vector takes all");
    frame
}

/// What goes wrong on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Crashes,
}

struct Rekeying {
    world: World,
    ends: [End; 2],
    trouble: Trouble,
    aborted: u64,
    random: u64,
}

impl Rekeying {
    fn new(trouble: Trouble) -> Rekeying {
        let world = World::new(1);
        // With few slots firmware is soon there again after a crash.
        let mut parameters = Parameters::default();
        parameters.capacity.sa_slots = 16;
        let ids = [(); 2].map(|()| world.add_nic(&parameters).expect("in range"));
        world.connect(ids[0], ids[1], Time::from_nanoseconds(500));
        let ends = [End::new(&world, ids[0], true), End::new(&world, ids[1], false)];
        ids.iter().for_each(|id| world.record_drops(*id));
        Rekeying { world, ends, trouble, aborted: 0, random: 1 }
    }

    /// Runs a command until firmware does not crash in it.
    fn retry<T>(&mut self, end: usize, mut command: impl FnMut(&mut End) -> Result<T, Error>) -> T {
        for _ in 0..50 {
            if self.trouble == Trouble::Crashes {
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                if self.random >> 63 == 0 {
                    let End { steps, id, .. } = &self.ends[end];
                    steps.crash_at(&self.world, *id, self.random >> 20 & 63);
                }
            }
            let outcome = command(&mut self.ends[end]);
            self.ends[end].steps.stop();
            match outcome {
                Ok(done) => return done,
                Err(error) if is_aborted(&error) => self.aborted += 1,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("every try is aborted")
    }

    /// One turn. Both ends open by the new SAs before either protects by them; the old outbound SAs go when what they
    /// protected has left, the old inbound ones when the peer uses the new ones.
    fn rekey(&mut self, turn: u32) {
        for end in [1, 0] {
            let replacement = self.retry(end, |end| {
                let old = SaPair { outbound: None, ..end.pair };
                let new = sa(Direction::In, !end.is_a, turn);
                end.nic.replace_sas(old, SaPair { outbound: None, inbound: Some(new) })
            });
            let one = &mut self.ends[end];
            one.pair.inbound = replacement.sas.inbound;
            one.opening.extend(replacement.sas.inbound);
            one.replacement = Some(replacement);
        }
        for end in [0, 1] {
            self.ends[end].flush();
            let replacement = self.retry(end, |end| {
                let old = SaPair { inbound: None, ..end.pair };
                let new = sa(Direction::Out, end.is_a, turn);
                end.nic.replace_sas(old, SaPair { outbound: Some(new), inbound: None })
            });
            let old = replacement.retired.outbound.expect("there was one");
            self.retry(end, |end| end.nic.delete_sa(old));
            let one = &mut self.ends[end];
            one.pair.outbound = replacement.sas.outbound;
            one.rekeyer.watch(NAME, one.pair);
            // Meanwhile the other direction goes on.
            self.ends[1 - end].move_packets(3);
        }
    }

    fn move_packets(&mut self) {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        let counts = [self.random >> 60, self.random >> 52 & 7];
        for (end, count) in self.ends.iter_mut().zip(counts) {
            end.move_packets(count as usize);
            end.nic.relax();
        }
    }

    /// Until there were so many turns.
    fn run(&mut self, turns: u32) {
        let mut turn = 0;
        while turn < turns {
            self.move_packets();
            let mut due = false;
            for end in &mut self.ends {
                while let Some(event) = end.events.next().expect("next") {
                    let told = event.sa.is_some().then(|| end.rekeyer.take(&event)).flatten();
                    if let Some(told) = told {
                        assert!(!told.expired, "the soft limit comes in time");
                        due = true;
                    }
                }
            }
            // A turn begins when the one before is over.
            if due && self.ends.iter().all(|end| end.replacement.is_none()) {
                turn += 1;
                self.rekey(turn);
            }
            for end in 0..2 {
                self.finish(end);
            }
        }
        self.world.drain();
        for end in &mut self.ends {
            end.flush();
            end.take_packets();
        }
        self.world.drain();
        self.ends.iter_mut().for_each(End::take_packets);
    }

    /// Deletes the old inbound SA of an end once its peer has switched.
    fn finish(&mut self, end: usize) {
        let Some(replacement) = self.ends[end].replacement.take() else { return };
        let used = self.retry(end, |end| Ok(end.nic.statistics()?.firmware.sa_slots_used));
        let one = &mut self.ends[end];
        one.slots_most = one.slots_most.max(used);
        if self.retry(end, |end| end.nic.has_peer_switched(&replacement)) {
            let old = replacement.retired.inbound.expect("there was one");
            self.retry(end, |end| end.nic.delete_sa(old));
            // What it opened before may still wait in the ring.
            self.ends[end].take_packets();
            self.ends[end].opening.remove(&old);
        } else {
            self.ends[end].replacement = Some(replacement);
        }
    }
}

#[test]
fn pair_after_pair_is_replaced_and_no_packet_is_lost() {
    for trouble in [Trouble::None, Trouble::Crashes] {
        let turns = if std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1") { 1000 } else { 60 };
        let mut rekeying = Rekeying::new(trouble);
        rekeying.run(turns);
        let Rekeying { world, ends, aborted, .. } = &mut rekeying;
        let [a, b] = ends;
        for (one, other) in [(&*a, &*b), (&*b, &*a)] {
            assert_eq!(one.received.len() as u64, other.sent, "{trouble:?}: none is lost");
            assert!(one.sent > u64::from(turns) * SOFT / 2);
            assert_eq!(world.take_drops(one.id), [], "{trouble:?}");
            assert!(
                (3..=4).contains(&one.slots_most),
                "{trouble:?}: never more than two pairs: {}",
                one.slots_most
            );
        }
        assert_eq!(*aborted > 0, trouble == Trouble::Crashes, "{trouble:?}: {aborted}");
        for end in [a, b] {
            let firmware = end.nic.statistics().expect("statistics").firmware;
            assert!(firmware.sa_slots_used <= 4);
        }
    }
}

fn is_aborted(error: &Error) -> bool {
    match error {
        Error::Refused { status, .. } => *status == AdminStatus::Aborted,
        Error::InBatch { error, .. } => is_aborted(error),
        _ => false,
    }
}
