//! Firmware that crashes, at whatever moment, and firmware that stalls: hardware holds every line without it, and no command
//! hangs, no slot is lost.

use std::collections::HashSet;

use cryptonic_driver::{
    AdminStatus, Direction, Error, EventCause, EventOptions, KeyLedger, Lifetime, Mode, Nic, Protection,
    SaConfiguration, SaHandle, Status, Time,
};
use cryptonic_hwmodel::{NicId, Parameters, World};
use cryptonic_pci::Bar;
use cryptonic_regs::events::{SLOT_SELECT, SLOT_STATUS, SlotState, SlotStatus};

use crate::rig::{Chance, End, Wire, cases, device_keys, esp_number, guarded, marked, pair, send_all, udp};
use crate::stepped::{Steps, open_stepped};

/// How far a host's time goes at a step.
const STEP: Time = Time::from_nanoseconds(250);

/// A NIC with eight slots, whose driver waits in steps.
struct Rig {
    world: World,
    id: NicId,
    nic: Nic,
    steps: Steps,
    ledger: KeyLedger,
    numbers: u32,
    sas: Vec<SaHandle>,
    spis: HashSet<(u16, u32)>,
}

impl Rig {
    fn new() -> Rig {
        let mut parameters = Parameters::default();
        parameters.capacity.sa_slots = 8;
        let world = World::new(1);
        let id = world.add_nic(&parameters).expect("in range");
        let ledger = KeyLedger::new();
        let (nic, steps) = open_stepped(&world, id, STEP, &ledger);
        Rig { world, id, nic, steps, ledger, numbers: 0, sas: vec![], spis: HashSet::new() }
    }

    /// Closes the device and opens it anew, which resets it.
    fn reopen(self) -> Rig {
        let Rig { world, id, nic, ledger, numbers, spis, .. } = self;
        drop(nic);
        let (nic, steps) = open_stepped(&world, id, STEP, &ledger);
        Rig { world, id, nic, steps, ledger, numbers, sas: vec![], spis }
    }

    fn next(&mut self, direction: Direction) -> SaConfiguration {
        self.numbers += 1;
        let lifetime = Lifetime::packets(Some(5), Some(1 << 40));
        SaConfiguration { lifetime, ..esp_number(direction, Mode::Tunnel, self.numbers) }
    }

    /// Slots that can still be taken: takes them, and gives them back.
    fn free_slots(&mut self) -> usize {
        let mut taken = vec![];
        loop {
            self.numbers += 1;
            match self.nic.install_sa(esp_number(Direction::In, Mode::Tunnel, self.numbers)) {
                Ok(handle) => taken.push(handle),
                Err(Error::Refused { status: AdminStatus::NoFreeSlot, .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let count = taken.len();
        taken.into_iter().for_each(|handle| self.nic.delete_sa(handle).expect("delete"));
        count
    }
}

/// A command of the driver. It can be given again after it failed.
type Command = fn(&mut Rig) -> Result<(), Error>;

const COMMANDS: [(&str, Command); 7] = [
    ("install", |rig| {
        let batch = vec![rig.next(Direction::Out), rig.next(Direction::In)];
        let handles = rig.nic.install_sas(batch)?;
        rig.sas.extend(handles);
        Ok(())
    }),
    ("query", |rig| {
        let sa = rig.sas[0];
        rig.nic.query_sa(sa).map(|state| assert_eq!(state.state, SlotState::Armed))
    }),
    ("arm", |rig| {
        let sa = rig.sas[0];
        rig.nic.arm_sa(sa, 50)
    }),
    ("delete", |rig| {
        let Some(sa) = rig.sas.last().copied() else { return Ok(()) };
        rig.nic.delete_sa(sa)?;
        rig.sas.pop();
        Ok(())
    }),
    ("rotate", |rig| rig.nic.psp_rotate().map(drop)),
    ("allocate", |rig| {
        let spis = rig.nic.psp_allocate(1, 3)?;
        for spi in spis {
            let generation = rig.nic.psp_key_status().expect("status").generation();
            assert!(rig.spis.insert((generation, spi.spi)), "SPI {:x} twice", spi.spi);
        }
        Ok(())
    }),
    ("statistics", |rig| rig.nic.statistics().map(drop)),
];

#[test]
fn a_crash_at_any_moment_of_any_command_ends_it_and_loses_no_slot() {
    for (name, command) in COMMANDS {
        let mut rig = Rig::new();
        rig.nic.psp_test_keys_load(device_keys()).expect("keys");
        (COMMANDS[0].1)(&mut rig).expect("install");
        rig.steps.at_each(|_| {});
        command(&mut rig).expect("without a crash");
        let steps = rig.steps.stop();
        let mut aborted = 0;
        let sample = if cases(1) == 1 { steps.div_ceil(12) as usize } else { 1 };
        for crash in (0..steps + 2).step_by(sample) {
            if rig.sas.len() < 2 {
                (COMMANDS[0].1)(&mut rig).expect("install");
            }
            while rig.sas.len() > 2 {
                (COMMANDS[3].1)(&mut rig).expect("delete");
            }
            rig.steps.crash_at(&rig.world, rig.id, crash);
            let outcome = command(&mut rig);
            rig.steps.stop();
            match outcome {
                Ok(()) => {}
                Err(Error::Refused { status: AdminStatus::Aborted, .. }) => {
                    aborted += 1;
                    command(&mut rig).unwrap_or_else(|error| panic!("{name}, {crash}, again: {error}"));
                }
                Err(error) => panic!("{name}, crash at step {crash} of {steps}: {error}"),
            }
        }
        // What became of a deletion and of an arming, the driver finds out by itself.
        assert_eq!(aborted > 0, !matches!(name, "delete" | "arm"), "{name}: some crash came in time");
        let used = rig.sas.len();
        assert_eq!(rig.free_slots() + used, 8, "{name}: a slot is lost");
        let firmware = rig.nic.statistics().expect("statistics").firmware;
        assert_eq!(firmware.sa_slots_used, used as u64, "{name}");
    }
}

#[test]
fn a_stall_at_any_moment_of_any_command_ends_it_in_time_and_a_reset_makes_all_good() {
    let sample = if cases(1) == 1 { 9 } else { 1 };
    for (name, command) in COMMANDS {
        let mut rig = Rig::new();
        let mut stalled = 0;
        for stall in (0..60).step_by(sample) {
            rig.nic.psp_test_keys_load(device_keys()).expect("keys");
            rig.spis.clear();
            (COMMANDS[0].1)(&mut rig).expect("install");
            rig.steps.stall_at(&rig.world, rig.id, stall);
            let began = rig.nic.time();
            let outcome = command(&mut rig);
            let took = rig.nic.time() - began;
            rig.steps.stop();
            rig.world.stop_firmware(rig.id);
            assert!(took < Time::from_microseconds(900), "{name}: {took:?}");
            match outcome {
                Ok(()) => {}
                // A deletion asks for the state first.
                Err(Error::Deadline { .. } | Error::AdminStopped) => {
                    stalled += 1;
                    let again = rig.nic.statistics();
                    assert!(matches!(again, Err(Error::AdminStopped | Error::Closed)), "{name}: {again:?}");
                }
                Err(error) => panic!("{name}, stall at step {stall}: {error}"),
            }
            rig = rig.reopen();
            assert_eq!(rig.free_slots(), 8, "{name}, stall at step {stall}: a slot is lost");
        }
        assert!(stalled > 0, "{name}: some stall came in time");
    }
}

/// What becomes of the firmware while packets go on.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Stalled,
    CrashedAgainAndAgain,
}

fn trouble(world: &World, end: &End, trouble: Trouble) {
    match trouble {
        Trouble::Stalled => world.stop_firmware(end.id),
        Trouble::CrashedAgainAndAgain => world.restart_firmware(end.id),
    }
}

fn slot_status(world: &World, id: NicId, slot: u32) -> SlotStatus {
    let host = world.host(id);
    host.write32(Bar::Bar0, SLOT_SELECT.offset, slot).expect("write");
    SlotStatus::from_bits(host.read32(Bar::Bar0, SLOT_STATUS.offset).expect("read"))
}

#[test]
fn limits_hold_and_are_told_without_firmware() {
    for kind in [Trouble::Stalled, Trouble::CrashedAgainAndAgain] {
        let (world, mut a, mut b) = pair();
        let sa = |direction, soft, hard| SaConfiguration {
            lifetime: Lifetime::packets(Some(soft), Some(hard)),
            ..esp_number(direction, Mode::Tunnel, 1)
        };
        let out = a.nic.install_sa(sa(Direction::Out, 5, 12)).expect("install");
        let incoming = b.nic.install_sa(sa(Direction::In, 3, 7)).expect("install");
        let mut streams =
            [&mut a, &mut b].map(|end| end.nic.open_events(EventOptions::default()).expect("open"));
        world.record_drops(b.id);
        let mut sent = vec![];
        let mut received = 0;
        for _ in 0..4 {
            trouble(&world, &a, kind);
            trouble(&world, &b, kind);
            sent.extend(send_all(&mut a.queue, &vec![udp(&marked(64)); 5], Protection::Sa(out)));
            received += b.receive().len();
        }
        let left = sent.iter().filter(|end| end.status == Status::Ok).count();
        assert_eq!((sent.len(), left, a.wire.frames().len(), received), (20, 12, 12, 7), "{kind:?}");
        assert_eq!(world.take_drops(b.id), [Status::ReceiveHardLimit; 5]);
        for ((stream, (id, handle)), counts) in
            streams.iter_mut().zip([(a.id, out), (b.id, incoming)]).zip([[5, 12], [3, 7]])
        {
            for (cause, count) in [EventCause::SoftPackets, EventCause::HardPackets].into_iter().zip(counts) {
                let event = loop {
                    let deadline = world.now() + Time::from_microseconds(50);
                    let event = stream.wait(deadline).expect("wait").expect("told in time");
                    if event.sa.is_some() {
                        break event;
                    }
                };
                assert_eq!((event.cause, event.sa), (cause, Some(handle)), "{kind:?}");
                assert_eq!(event.record.map(|record| record.packets), Some(count));
            }
            while let Some(event) = stream.next().expect("next") {
                assert_eq!(event.cause, EventCause::FirmwareRestarted, "and nothing else");
            }
            let status = slot_status(&world, id, handle.index);
            assert_eq!(status.state(), SlotState::Expired.number() as u8);
            assert_eq!(status.causes(), 0b110, "{kind:?}: soft and hard");
        }
        drop(streams);
        if matches!(kind, Trouble::CrashedAgainAndAgain) {
            assert_eq!(a.nic.query_sa(out).expect("query").refused, 8);
            a.nic.delete_sa(out).expect("delete");
        } else {
            assert!(matches!(a.nic.query_sa(out), Err(Error::Deadline { .. })));
        }
    }
}

#[test]
fn the_other_lines_hold_without_firmware() {
    for kind in [Trouble::Stalled, Trouble::CrashedAgainAndAgain] {
        let (world, mut a, mut b) = pair();
        let mut chance = Chance::new(7);
        let out = a.nic.install_sa(esp_number(Direction::Out, Mode::Tunnel, 1)).expect("install");
        let deleted = a.nic.install_sa(esp_number(Direction::Out, Mode::Tunnel, 2)).expect("install");
        a.nic.delete_sa(deleted).expect("delete");
        b.nic.install_sa(esp_number(Direction::In, Mode::Tunnel, 1)).expect("install");
        let mut seen = HashSet::new();
        for turn in 0..cases(40) {
            trouble(&world, &a, kind);
            trouble(&world, &b, kind);
            let frame = udp(&marked(chance.below(900) as usize));
            assert_eq!(a.send(&frame, Protection::Sa(out)).status, Status::Ok, "{kind:?}");
            assert_eq!(a.send(&frame, Protection::Clear).status, Status::ClearNotAllowed);
            assert_eq!(a.send(&frame, Protection::Sa(deleted)).status, Status::StaleSa);
            let received = b.receive();
            assert_eq!(received.len(), 1, "turn {turn}");
            assert_eq!(received[0].1, frame);
            let frames = a.wire.take();
            assert_eq!(frames.len(), 1, "one of the three leaves");
            assert!(seen.insert(frames[0][34..50].to_vec()), "a nonce twice");
            assert!(!crate::rig::shows(&frames[0], &crate::rig::MARKER[..8]) || marked(0) == frame);
            // What comes again, what is forged, and what is nothing at all.
            let mut forged = frames[0].clone();
            let at = chance.below(forged.len() as u64 - 34) as usize + 34;
            forged[at] ^= 1 << chance.below(8);
            let length = chance.below(200) as usize;
            for frame in [frames[0].clone(), forged, chance.bytes(length)] {
                world.inject(b.id, &frame);
            }
            assert!(b.receive().iter().all(|(one, _)| one.spi == 0), "turn {turn}: what counts is good");
        }
    }
}

#[test]
fn nothing_that_a_stalled_firmware_staged_is_ever_usable() {
    let world = World::new(1);
    let mut sender = End::new(&world, &Parameters::default());
    for stall in (2..60).step_by(if cases(1) == 1 { 4 } else { 1 }) {
        let id = world.add_nic(&Parameters::default()).expect("in range");
        let ledger = KeyLedger::new();
        let (mut nic, steps) = open_stepped(&world, id, STEP, &ledger);
        let mut queue = nic.create_queue_pair(guarded()).expect("queue");
        let number = 10_000 + stall as u32;
        let out = sender.nic.install_sa(esp_number(Direction::Out, Mode::Tunnel, number)).expect("install");
        send_all(&mut sender.queue, &vec![udp(&marked(64)); 3], Protection::Sa(out));
        sender.nic.delete_sa(out).expect("delete");
        let frames = sender.wire.take();
        let other = world.clone();
        steps.at_each(move |step| {
            if step == stall {
                other.stop_firmware(id);
            }
            if step > stall {
                other.inject(id, &frames[0]);
            }
        });
        world.record_drops(id);
        let batch = vec![
            esp_number(Direction::In, Mode::Tunnel, number),
            esp_number(Direction::Out, Mode::Tunnel, 20_000 + number),
        ];
        let installed = nic.install_sas(batch);
        steps.stop();
        world.drain();
        let mut received = vec![];
        match installed {
            Ok(_) => continue,
            Err(Error::Deadline { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let drops = world.take_drops(id);
        assert!(
            drops.len() > 100 && drops.iter().all(|status| *status == Status::NoSa),
            "{stall}: {drops:?}"
        );
        // The driver has reset the device: nobody knows what it would have made of it.
        assert!(queue.receive(&mut received, 8).is_err() && received.is_empty());
        drop((queue, nic));
        let wire = Wire::on(&world, id);
        let (mut nic, _steps) = open_stepped(&world, id, STEP, &ledger);
        assert_eq!(nic.statistics().expect("statistics").firmware.sa_slots_used, 0);
        assert!(wire.frames().is_empty());
    }
}
