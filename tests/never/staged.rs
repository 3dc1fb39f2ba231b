//! 2, 4, 6. A slot neither protects nor opens before the command that installs it completes, nor once it is deleted; of
//! SAs that are installed as one, all do or none.

use std::cell::RefCell;
use std::rc::Rc;

use cryptonic_driver::{
    Direction, Error, KeyLedger, Mode, Nic, Protection, QueuePair, QueuePairOptions, SaConfiguration,
    Selector, Status, Time,
};
use cryptonic_hwmodel::{NicId, Parameters, World};
use cryptonic_pci::Bar;
use cryptonic_regs::bar0::ADMIN_CONTROL;
use cryptonic_regs::descriptor::{Security, TransmitSa};

use crate::raw::{RawQueue, control};
use crate::rig::{End, MARKER, Wire, cases, esp_number, guarded, marked, send_all, shows, udp};
use crate::stepped::{Steps, open_stepped};

/// How far a host's time goes at a step.
const STEP: Time = Time::from_nanoseconds(200);
/// More than any command of these tests takes.
const STEPS: usize = 250;
/// From the completion of a command in the device to the host's notice of it, at most.
const NOTICE: Time = Time::from_nanoseconds(1_500);

/// A device with few slots, whose firmware is soon there again after a crash.
fn small() -> Parameters {
    let mut parameters = Parameters::default();
    parameters.capacity.sa_slots = 8;
    parameters
}

/// A receiver whose time goes in steps, and a sender that makes its frames.
struct Rig {
    world: World,
    sender: End,
    id: NicId,
    nic: Nic,
    steps: Steps,
    queue: QueuePair,
    numbers: u32,
}

/// Frames of two SAs, sequence number by sequence number.
struct Pair {
    numbers: [u32; 2],
    frames: Rc<Vec<[Vec<u8>; 2]>>,
}

impl Rig {
    fn new() -> Rig {
        let world = World::new(1);
        let sender = End::new(&world, &Parameters::default());
        let id = world.add_nic(&small()).expect("in range");
        let (mut nic, steps) = open_stepped(&world, id, STEP, &KeyLedger::new());
        let options = QueuePairOptions { receive_slots: 1024, ..guarded() };
        let queue = nic.create_queue_pair(options).expect("queue");
        Rig { world, sender, id, nic, steps, queue, numbers: 0 }
    }

    /// Frames of two SAs that were never used.
    fn pair(&mut self) -> Pair {
        self.numbers += 2;
        let numbers = [self.numbers - 1, self.numbers];
        let clear = vec![udp(&marked(40)); STEPS];
        let [one, other] = numbers.map(|number| {
            let sa = esp_number(Direction::Out, Mode::Tunnel, number);
            let sa = self.sender.nic.install_sa(sa).expect("install");
            send_all(&mut self.sender.queue, &clear, Protection::Sa(sa));
            self.sender.nic.delete_sa(sa).expect("delete");
            self.sender.wire.take()
        });
        Pair { numbers, frames: Rc::new(one.into_iter().zip(other).map(|(a, b)| [a, b]).collect()) }
    }

    /// Has a frame of each SA injected at each step, and crashes firmware at one of them. Gives when they were.
    fn inject_at_each_step(&self, pair: &Pair, crash: Option<u64>) -> Rc<RefCell<Vec<Time>>> {
        let (world, id, frames) = (self.world.clone(), self.id, pair.frames.clone());
        let times = Rc::new(RefCell::new(vec![]));
        let heard = times.clone();
        self.steps.at_each(move |step| {
            if let Some(both) = frames.get(step as usize) {
                both.iter().for_each(|frame| world.inject(id, frame));
                heard.borrow_mut().push(world.now());
            }
            if Some(step) == crash {
                world.restart_firmware(id);
            }
        });
        times
    }

    /// The sequence numbers that were opened so far, of each SA.
    fn opened(&mut self, pair: &Pair) -> [Vec<u64>; 2] {
        self.world.drain();
        let mut received = vec![];
        while self.queue.receive(&mut received, 64).expect("receive") != 0 {}
        let of = |number: u32| {
            let mine = received.iter().filter(|one| one.spi() == 0x1_0000 + number);
            mine.map(|one| {
                assert_eq!(one.status(), Status::Ok);
                one.sequence()
            })
            .collect::<Vec<_>>()
        };
        let opened = pair.numbers.map(of);
        assert_eq!(opened[0].len() + opened[1].len(), received.len(), "nothing else came");
        self.queue.return_buffers(&mut received).expect("back");
        opened
    }
}

/// Whether all sequence numbers from one on, up to `last`, were opened.
fn is_run_to(opened: &[u64], last: u64) -> bool {
    opened.first().is_some_and(|first| opened.iter().copied().eq(*first..=last))
}

#[test]
fn a_batch_opens_as_one_and_not_before_its_command_completes() {
    let mut rig = Rig::new();
    // Without a crash, then with one at each step that the command takes.
    let mut crash = None;
    let (mut done, mut aborted) = (0, 0);
    loop {
        let pair = rig.pair();
        let times = rig.inject_at_each_step(&pair, crash);
        let batch = pair.numbers.map(|number| esp_number(Direction::In, Mode::Tunnel, number));
        let installed = rig.nic.install_sas(batch.into());
        let visible = rig.world.now();
        let steps = rig.steps.stop();
        let times = times.borrow().clone();
        assert!(times.len() < STEPS - 2);
        for both in &pair.frames[STEPS - 2..] {
            both.iter().for_each(|frame| rig.world.inject(rig.id, frame));
        }
        let [one, other] = rig.opened(&pair);
        assert_eq!(one, other, "crash at {crash:?}: one of two");
        match installed {
            Ok(handles) => {
                let (during, after) = one.split_at(one.len() - 2);
                assert_eq!(after, [STEPS as u64 - 1, STEPS as u64]);
                if let Some(first) = during.first() {
                    assert!(is_run_to(during, times.len() as u64), "{during:?}");
                    let since = times[*first as usize - 1];
                    assert!(since + NOTICE > visible, "opened long before the command was complete");
                    assert!(*first > 1);
                }
                handles.into_iter().for_each(|handle| rig.nic.delete_sa(handle).expect("delete"));
                done += 1;
            }
            Err(Error::Refused { .. }) => {
                assert_eq!(one, [] as [u64; 0], "crash at {crash:?}: none");
                aborted += 1;
            }
            Err(error) => panic!("crash at {crash:?}: {error}"),
        }
        let next = crash.map_or(0, |step| step + if cases(1) == 1 { 3 } else { 1 });
        if next > steps {
            break;
        }
        crash = Some(next);
    }
    assert!(done > 1 && aborted > 5, "{done} done, {aborted} aborted");
}

#[test]
fn of_a_batch_that_is_refused_nothing_ever_opens() {
    let mut rig = Rig::new();
    let taken = rig.nic.install_sa(esp_number(Direction::In, Mode::Tunnel, 900)).expect("install");
    for _ in 0..3 {
        let pair = rig.pair();
        rig.inject_at_each_step(&pair, None);
        let mut batch: Vec<_> =
            pair.numbers.into_iter().map(|number| esp_number(Direction::In, Mode::Tunnel, number)).collect();
        // The third has the SPI of one that is there.
        batch.push(SaConfiguration {
            spi: 0x1_0000 + 900,
            ..esp_number(Direction::In, Mode::Transport, 1000 + pair.numbers[0])
        });
        let refused = rig.nic.install_sas(batch);
        assert!(matches!(refused, Err(Error::InBatch { number: 2, .. })), "{refused:?}");
        rig.steps.stop();
        pair.frames[STEPS - 2..].iter().flatten().for_each(|frame| rig.world.inject(rig.id, frame));
        assert_eq!(rig.opened(&pair), [Vec::<u64>::new(), Vec::new()]);
    }
    rig.nic.delete_sa(taken).expect("delete");
    assert_eq!(rig.nic.statistics().expect("statistics").firmware.sa_slots_used, 0, "no slot is lost");
}

#[test]
fn nothing_opens_once_it_is_deleted() {
    let mut rig = Rig::new();
    let mut crash = None;
    loop {
        let pair = rig.pair();
        let batch = pair.numbers.map(|number| esp_number(Direction::In, Mode::Tunnel, number));
        let handles = rig.nic.install_sas(batch.into()).expect("install");
        let times = rig.inject_at_each_step(&pair, crash);
        let mut outcome = rig.nic.delete_sa(handles[0]);
        let steps = rig.steps.stop();
        let injected = times.borrow().len() as u64;
        let aborted = outcome.is_err();
        for _ in 0..3 {
            if outcome.is_err() {
                outcome = rig.nic.delete_sa(handles[0]);
            }
        }
        assert!(matches!(outcome, Ok(()) | Err(Error::UnknownSa)), "crash at {crash:?}: {outcome:?}");
        pair.frames[STEPS - 2..].iter().flatten().for_each(|frame| rig.world.inject(rig.id, frame));
        let [deleted, other] = rig.opened(&pair);
        let expected = (1..=injected).chain(STEPS as u64 - 1..=STEPS as u64);
        assert!(other.into_iter().eq(expected), "the other is untouched");
        // Up to a moment all, from then on none.
        assert!(deleted.iter().copied().eq(1..=deleted.len() as u64), "crash at {crash:?}: {deleted:?}");
        assert!(deleted.len() as u64 <= injected, "crash at {crash:?}, aborted {aborted}");
        rig.nic.delete_sa(handles[1]).expect("delete");
        let next = crash.map_or(0, |step| step + if cases(1) == 1 { 3 } else { 1 });
        if next > steps {
            break;
        }
        crash = Some(next);
    }
    assert_eq!(rig.nic.statistics().expect("statistics").firmware.sa_slots_used, 0, "no slot is lost");
}

/// A host that knows which slots and generations come next uses them before they are valid.
#[test]
fn a_staged_slot_protects_nothing_whoever_guesses_its_name() {
    let mut generation = 0;
    let world = World::new(1);
    let id = world.add_nic(&small()).expect("in range");
    let wire = Wire::on(&world, id);
    let (mut nic, steps) = open_stepped(&world, id, STEP, &KeyLedger::new());
    let frame = udp(&marked(40));
    for crash in [None, Some(4), Some(12), Some(20), Some(30), Some(40)] {
        let numbers = [generation + 1, generation + 2];
        let raw = Rc::new(RefCell::new(RawQueue::new(&world, id, 5, 32, false)));
        let (queue, bytes, other) = (raw.clone(), frame.clone(), world.clone());
        steps.at_each(move |step| {
            let mut queue = queue.borrow_mut();
            // One after the other, each with the name that it will have.
            for (slot, generation) in numbers.into_iter().enumerate() {
                let at = queue.frame(&bytes);
                let name = TransmitSa::new().with_index(slot as u32).with_generation(generation);
                let control = control(bytes.len(), Security::Sa).into_bits();
                queue.put([at, control, name.into_bits(), bytes.len() as u64, 0, 0, 0, 0]);
            }
            queue.ring();
            if Some(step) == crash {
                other.restart_firmware(id);
            }
        });
        let batch = numbers.map(|number| esp_number(Direction::Out, Mode::Tunnel, number));
        let installed = nic.install_sas(batch.into());
        steps.stop();
        world.drain();
        let mut raw = raw.borrow_mut();
        let ends: Vec<u16> = std::iter::from_fn(|| raw.completion()).map(|one| one.end.status()).collect();
        let stale = Status::StaleSa.number() as u16;
        let first = ends.iter().position(|status| *status != stale).unwrap_or(ends.len());
        assert!(first > 0 && !ends.is_empty());
        assert!(
            ends[first..].iter().all(|status| *status == 0),
            "once they are valid they stay so: {ends:?}"
        );
        assert_eq!(wire.take().len(), ends.len() - first);
        match installed {
            Ok(handles) => {
                assert_eq!(handles[0].generation, numbers[0], "the guess was right");
                handles.into_iter().for_each(|handle| nic.delete_sa(handle).expect("delete"));
                generation += 2;
            }
            Err(_) => {
                assert_eq!(first, ends.len(), "crash at {crash:?}: a staged slot protected");
                let next = nic.install_sa(esp_number(Direction::Out, Mode::Tunnel, 5000 + generation));
                let next = next.expect("install");
                generation = next.generation;
                nic.delete_sa(next).expect("delete");
            }
        }
        assert!(!wire.frames().iter().any(|frame| shows(frame, MARKER)));
        raw.turn_off();
    }
}

/// Nobody learns of slots whose command completes when its queue is off.
#[test]
fn what_a_command_of_a_queue_that_was_turned_off_staged_never_opens() {
    let install = |rig: &mut Rig, pair: &Pair| {
        let batch = pair.numbers.map(|number| esp_number(Direction::In, Mode::Tunnel, number));
        let installed = rig.nic.install_sas(batch.into());
        (installed, rig.steps.stop())
    };
    let mut rig = Rig::new();
    let pair = rig.pair();
    rig.steps.at_each(|_| {});
    let (installed, steps) = install(&mut rig, &pair);
    installed.expect("while the queue is on");
    // Up to the last step, at which the completion may have landed; before that it is on its way.
    let mut dropped = 0;
    for off in 0..steps {
        let mut rig = Rig::new();
        rig.world.record_drops(rig.id);
        let pair = rig.pair();
        let (world, id, frames) = (rig.world.clone(), rig.id, pair.frames.clone());
        let host = world.host(id);
        rig.steps.at_each(move |step| {
            if step == off {
                host.write32(Bar::Bar0, ADMIN_CONTROL.offset, 0).expect("write");
            }
            if let Some(both) = step.checked_sub(off).and_then(|past| frames.get(past as usize)) {
                both.iter().for_each(|frame| world.inject(id, frame));
            }
        });
        let (installed, _) = install(&mut rig, &pair);
        if installed.is_ok() {
            assert!(off + 2 >= steps, "off at {off} of {steps}, and there is a completion");
            continue;
        }
        dropped += 1;
        assert!(matches!(installed, Err(Error::Deadline { .. })), "off at {off}: {installed:?}");
        rig.world.drain();
        let drops = rig.world.take_drops(rig.id);
        let others = drops.iter().filter(|status| **status != Status::NoSa).count();
        assert!(drops.len() > 100 && others == 0, "off at {off}: {} drops, {others} others", drops.len());
    }
    assert!(dropped > steps / 2, "{dropped} of {steps}");
}

/// Line 2: a packet in clear does not enter where an SA is due for it, from the moment that the SA is valid until it is gone.
#[test]
fn packets_in_clear_are_refused_as_long_as_their_sa_is_valid() {
    for crash in [None, Some(5), Some(15), Some(25), Some(35)] {
        let mut rig = Rig::new();
        let frames = Rc::new((0..STEPS).map(|step| udp(&(step as u64).to_be_bytes())).collect::<Vec<_>>());
        let inject = |rig: &Rig, crash: Option<u64>| {
            let (world, id, frames) = (rig.world.clone(), rig.id, frames.clone());
            rig.steps.at_each(move |step| {
                frames.get(step as usize).into_iter().for_each(|frame| world.inject(id, frame));
                if Some(step) == crash {
                    world.restart_firmware(id);
                }
            });
        };
        // The numbers of those that entered.
        let entered = |rig: &mut Rig| {
            rig.world.drain();
            let mut received = vec![];
            while rig.queue.receive(&mut received, 64).expect("receive") != 0 {}
            let number = |one: cryptonic_driver::Received| {
                let mut bytes = vec![0; one.length()];
                rig.queue.copy_out(one, &mut bytes).expect("in range");
                u64::from_be_bytes(bytes[42..50].try_into().expect("8 bytes"))
            };
            received.into_iter().map(number).collect::<Vec<_>>()
        };
        let address = |last: u8| std::net::IpAddr::from([10, last, 0, 1 + last]);
        let sa = SaConfiguration {
            selector: Some(Selector::between(address(0), address(1))),
            refuse_clear: true,
            ..esp_number(Direction::In, Mode::Tunnel, 1)
        };
        inject(&rig, crash);
        let installed = rig.nic.install_sa(sa);
        let steps = rig.steps.stop();
        let before = entered(&mut rig);
        assert!(before.iter().copied().eq(0..before.len() as u64), "up to a moment all, then none");
        let Ok(sa) = installed else {
            assert_eq!(before.len() as u64, steps, "crash at {crash:?}: refused by an SA that never was");
            continue;
        };
        rig.world.inject(rig.id, &frames[0]);
        assert_eq!(entered(&mut rig), [] as [u64; 0], "valid");
        inject(&rig, crash);
        rig.nic.delete_sa(sa).expect("delete");
        let steps = rig.steps.stop();
        let after = entered(&mut rig);
        assert!(after.iter().copied().eq(steps - after.len() as u64..steps), "up to a moment none, then all");
        rig.world.inject(rig.id, &frames[0]);
        assert_eq!(entered(&mut rig), [0], "gone");
    }
}
