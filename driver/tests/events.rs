//! Events: nothing is missed and nothing told twice, whatever is lost and whoever arms in between; a device that lies.

mod fake;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake as WakeTask, Waker};

use cryptonic_driver::{
    Cipher, Direction, Error, Event, EventAnomaly, EventCause, EventOptions, EventStream, Lifetime, Mode,
    Nic, OpenOptions, SaConfiguration, SaHandle, SecretKey, Time, Wake,
};
use cryptonic_regs::events::Event as Record;
use fake::Fake;

const SOFT: EventCause = EventCause::SoftPackets;
const HARD: EventCause = EventCause::HardPackets;

fn sa(number: u8) -> SaConfiguration {
    SaConfiguration {
        lifetime: Lifetime::packets(Some(1 << 20), Some(1 << 30)),
        cookie: 70 + u32::from(number),
        ..SaConfiguration::new(
            Direction::In,
            Mode::Transport,
            Cipher::AesGcm128,
            SecretKey::new(&[number; 16]).unwrap(),
            *b"salt",
            0x1000 + u32::from(number),
        )
    }
}

struct Rig {
    fake: Fake,
    nic: Nic,
    stream: EventStream,
    sas: Vec<SaHandle>,
}

/// A ring of so many slots, and four SAs.
fn set_up(slots: u32) -> Rig {
    let fake = Fake::new();
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let stream = nic.open_events(EventOptions { slots, ..EventOptions::default() }).unwrap();
    let sas = nic.install_sas((0..4).map(sa).collect()).unwrap();
    Rig { fake, nic, stream, sas }
}

impl Rig {
    fn happen(&self, cause: EventCause, sa: usize) {
        self.fake.device.borrow_mut().happen(cause, self.sas[sa].index);
    }

    fn all(&mut self) -> Vec<(EventCause, Option<usize>)> {
        let mut all = vec![];
        while let Some(event) = self.stream.next().unwrap() {
            let number = event.sa.map(|sa| self.sas.iter().position(|other| *other == sa).unwrap());
            all.push((event.cause, number));
        }
        all
    }
}

#[test]
fn an_event_says_what_and_whose() {
    let mut rig = set_up(8);
    assert_eq!(rig.stream.next().unwrap(), None);
    assert_eq!(rig.fake.device.borrow().events.vector, 5, "the last one");
    {
        let mut device = rig.fake.device.borrow_mut();
        let sa = device.sas.get_mut(&rig.sas[2].index).unwrap();
        (sa.packets, sa.bytes, sa.sequence) = (11, 12, 13);
    }
    rig.happen(SOFT, 2);
    rig.fake.device.borrow_mut().happen_to_device(EventCause::PspSpiLow, 99);
    let event = rig.stream.next().unwrap().unwrap();
    let record = event.record.unwrap();
    assert_eq!((event.cause, event.sa, event.cookie, event.spi), (SOFT, Some(rig.sas[2]), 72, 0x1002));
    assert_eq!((record.packets, record.bytes, record.sequence, record.time_picoseconds), (11, 12, 13, 1000));
    let event = rig.stream.next().unwrap().unwrap();
    assert_eq!((event.cause, event.sa, event.cookie, event.spi), (EventCause::PspSpiLow, None, 0, 0));
    assert_eq!(event.record.unwrap().number, 99);
    assert_eq!(rig.stream.next().unwrap(), None);
    assert_eq!(rig.fake.device.borrow().events.doorbells, 1, "one a batch");
    // Over many passes, with every cause.
    for pass in 0..100 {
        let causes = [EventCause::PspRotatedByPeriod, EventCause::FirmwareRestarted, EventCause::PspSpiLow];
        for cause in &causes[..pass % 3 + 1] {
            rig.fake.device.borrow_mut().happen_to_device(*cause, 0);
        }
        let expected: Vec<_> = causes[..pass % 3 + 1].iter().map(|cause| (*cause, None)).collect();
        assert_eq!(rig.all(), expected);
    }
    assert_eq!(rig.stream.statistics().lost, 0);
}

#[test]
fn a_ring_has_a_size_that_the_device_can_have() {
    let fake = Fake::new();
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let mut open = |slots| nic.open_events(EventOptions { slots, ..EventOptions::default() });
    for wrong in [0, 1, 2, 3, 5, 128, 1 << 31] {
        let refused = open(wrong).map(drop).unwrap_err();
        assert!(
            matches!(refused, Error::EventSlots { slots, least: 4, most: 64 } if slots == wrong),
            "{refused}"
        );
    }
    let stream = open(4).unwrap();
    assert!(matches!(open(4).map(drop), Err(Error::Argument(_))), "one ring, one stream");
    drop(stream);
    open(64).unwrap().close().unwrap();
    let other = EventOptions { vector: Some(6), ..EventOptions { slots: 4, vector: None } };
    assert!(matches!(nic.open_events(other).map(drop), Err(Error::Argument(_))));
}

#[test]
fn what_is_lost_at_any_position_is_told_once() {
    let causes: Vec<(EventCause, usize)> =
        (0..4).flat_map(|sa| [(SOFT, sa), (HARD, sa), (EventCause::SequenceSoft, sa)]).collect();
    for read_before in 0..6 {
        for at_once in 1..=causes.len() {
            let mut rig = set_up(4);
            // Any place in the ring.
            for _ in 0..read_before {
                rig.fake.device.borrow_mut().happen_to_device(EventCause::FirmwareRestarted, 0);
                assert_eq!(rig.stream.next().unwrap().unwrap().cause, EventCause::FirmwareRestarted);
            }
            let name = format!("{read_before} before, {at_once} at once");
            let mut told = vec![];
            for some in causes.chunks(at_once) {
                some.iter().for_each(|(cause, sa)| rig.happen(*cause, *sa));
                told.extend(rig.all().into_iter().filter(|(_, sa)| sa.is_some()));
            }
            let expected: HashSet<_> = causes.iter().map(|(cause, sa)| (*cause, Some(*sa))).collect();
            assert_eq!(told.len(), expected.len(), "{name}: {told:?}");
            assert_eq!(told.iter().copied().collect::<HashSet<_>>(), expected, "{name}");
            assert_eq!(rig.stream.statistics().lost > 0, at_once > 4, "{name}");
        }
    }
}

#[test]
fn a_record_that_crosses_a_look_at_the_sticky_bits_is_told_once() {
    // Five for a ring of four: one is lost. While the doorbell is rung, and while the bitmap is read, more happens.
    for (at_doorbell, at_scan) in
        [(vec![(HARD, 0)], vec![]), (vec![], vec![(HARD, 0)]), (vec![(HARD, 0)], vec![(HARD, 1)])]
    {
        let mut rig = set_up(4);
        for (cause, sa) in [(SOFT, 0), (SOFT, 1), (SOFT, 2), (SOFT, 3), (EventCause::SequenceSoft, 0)] {
            rig.happen(cause, sa);
        }
        let index = |list: &[(EventCause, usize)]| {
            list.iter().map(|(cause, sa)| (*cause, rig.sas[*sa].index)).collect()
        };
        let (rung, scanned) = (index(&at_doorbell), index(&at_scan));
        rig.fake.device.borrow_mut().events.at_doorbell = rung;
        rig.fake.device.borrow_mut().events.at_scan = scanned;
        let mut told = rig.all();
        told.sort_by_key(|(cause, sa)| (cause.number(), *sa));
        let mut expected: Vec<_> = (0..4).map(|sa| (SOFT, Some(sa))).collect();
        expected.extend(at_doorbell.iter().chain(&at_scan).map(|(cause, sa)| (*cause, Some(*sa))));
        expected.push((EventCause::SequenceSoft, Some(0)));
        assert_eq!(told, expected);
    }
}

#[test]
fn a_loss_is_seen_though_no_further_record_tells_of_it() {
    let mut rig = set_up(4);
    for sa in 0..4 {
        rig.happen(SOFT, sa);
    }
    rig.happen(HARD, 0);
    assert_eq!(rig.all().len(), 5);
    let statistics = rig.stream.statistics();
    assert_eq!((statistics.lost, statistics.scans, statistics.told), (1, 2, 5));
    // What was found by its sticky bit has no record.
    rig.happen(HARD, 1);
    let event = rig.stream.next().unwrap().unwrap();
    assert_eq!(
        (event.sa, event.record.is_some()),
        (Some(rig.sas[1]), true),
        "the device tells of the loss now"
    );
    assert_eq!(rig.stream.next().unwrap(), None);
    assert_eq!(rig.stream.statistics().scans, 3);
}

#[test]
fn what_happened_before_the_ring_was_on_is_told_first() {
    let mut rig = set_up(4);
    drop(rig.stream);
    rig.fake.device.borrow_mut().happen(HARD, rig.sas[1].index);
    rig.stream = rig.nic.open_events(EventOptions { slots: 4, vector: None }).unwrap();
    rig.happen(HARD, 2);
    assert_eq!(rig.all(), [(HARD, Some(1)), (HARD, Some(2))]);
    // A stream that is opened again does not tell again, but for what was read and not handed out.
    drop(rig.stream);
    rig.stream = rig.nic.open_events(EventOptions { slots: 4, vector: None }).unwrap();
    assert_eq!(rig.all(), []);
    rig.happen(HARD, 3);
    rig.happen(HARD, 0);
    assert_eq!(rig.stream.next().unwrap().unwrap().sa, Some(rig.sas[3]));
    drop(rig.stream);
    rig.stream = rig.nic.open_events(EventOptions { slots: 4, vector: None }).unwrap();
    assert_eq!(rig.all(), [(HARD, Some(0))]);
}

#[test]
fn a_soft_limit_is_told_once_an_arming() {
    let mut rig = set_up(16);
    for _ in 0..300 {
        rig.happen(SOFT, 0);
        assert_eq!(rig.all(), [(SOFT, Some(0))]);
        rig.nic.arm_sa(rig.sas[0], 1 << 21).unwrap();
        assert_eq!(rig.all(), []);
    }
    // A record of an arming before the last: whoever armed anew has no use for it. One that was read and not handed out
    // is no better.
    rig.happen(SOFT, 0);
    rig.nic.arm_sa(rig.sas[0], 1 << 22).unwrap();
    assert_eq!(rig.all(), []);
    rig.happen(SOFT, 1);
    rig.happen(SOFT, 0);
    assert_eq!(rig.stream.next().unwrap().unwrap().sa, Some(rig.sas[1]));
    rig.nic.arm_sa(rig.sas[0], 1 << 23).unwrap();
    assert_eq!(rig.all(), []);
    assert_eq!(rig.stream.statistics().superseded, 2);
    rig.happen(SOFT, 0);
    assert_eq!(rig.all(), [(SOFT, Some(0))]);
    // Hard ones are told once for ever, armed or not.
    rig.happen(HARD, 0);
    rig.nic.arm_sa(rig.sas[0], 1 << 24).unwrap();
    assert_eq!(rig.all(), [(HARD, Some(0))]);
}

#[test]
fn armings_that_come_round_do_not_bring_an_old_record_back() {
    let mut rig = set_up(16);
    // Given a record that is not read while its SA is armed 256 times, so that it is of the arming of today by number,
    rig.happen(SOFT, 0);
    for _ in 0..256 {
        rig.nic.arm_sa(rig.sas[0], 1 << 21).unwrap();
    }
    // then it is not told; the limit of today is.
    assert_eq!(rig.all(), []);
    rig.happen(SOFT, 0);
    assert_eq!(rig.all(), [(SOFT, Some(0))]);
    // And if it was reached meanwhile, the sticky bit tells.
    for _ in 0..256 {
        rig.nic.arm_sa(rig.sas[0], 1 << 21).unwrap();
    }
    rig.happen(SOFT, 0);
    assert_eq!(rig.all(), [(SOFT, Some(0))]);
}

/// Whatever happens, is read, lost, armed, deleted and installed, in whatever order: at the end every sticky bit was told,
/// and none was told that was not there or was told before.
#[test]
fn any_order_of_happening_reading_arming_and_deleting() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    let (mut lost, mut superseded, mut of_deleted) = (0, 0, 0);
    for round in 0..400 {
        let mut rig = set_up(4 << (round % 3));
        let mut told: HashSet<(SaHandle, EventCause, u8)> = HashSet::new();
        let mut check = |rig: &Rig, event: Event| {
            let Some(handle) = event.sa else { return };
            let device = rig.fake.device.borrow();
            let sa = device
                .sas
                .get(&handle.index)
                .filter(|sa| sa.generation == handle.generation)
                .expect("it lives");
            assert_ne!(sa.causes & 1 << event.cause.number(), 0, "round {round}: {event:?} did not happen");
            let arming = if event.cause == SOFT { sa.arming } else { 0 };
            assert!(told.insert((handle, event.cause, arming)), "round {round}: {event:?} told twice");
        };
        let mut next_key = 10;
        for _ in 0..200 {
            let sa = random(4) as usize;
            match random(12) {
                0..7 => {
                    let causes = [SOFT, SOFT, HARD, EventCause::SequenceSoft, EventCause::SequenceHard];
                    let cause = causes[random(5) as usize];
                    let index = rig.sas[sa].index;
                    let before = rig.fake.device.borrow().sas[&index].causes & 1 << cause.number() != 0;
                    match random(8) {
                        _ if before => {}
                        0 => rig.fake.device.borrow_mut().events.at_doorbell.push_back((cause, index)),
                        1 => rig.fake.device.borrow_mut().events.at_scan.push_back((cause, index)),
                        _ => rig.happen(cause, sa),
                    }
                }
                7..10 => {
                    for _ in 0..random(4) {
                        if let Some(event) = rig.stream.next().unwrap() {
                            check(&rig, event);
                        }
                    }
                }
                10 => rig.nic.arm_sa(rig.sas[sa], 1 << 21).unwrap(),
                _ => {
                    rig.nic.delete_sa(rig.sas[sa]).unwrap();
                    next_key += 1;
                    rig.sas[sa] = rig.nic.install_sa(self::sa(next_key)).unwrap();
                }
            }
        }
        while let Some(event) = rig.stream.next().unwrap() {
            check(&rig, event);
        }
        for handle in &rig.sas {
            let sa = rig.fake.device.borrow().sas[&handle.index].clone();
            for cause in [SOFT, HARD, EventCause::SequenceSoft, EventCause::SequenceHard] {
                let arming = if cause == SOFT { sa.arming } else { 0 };
                let happened = sa.causes & 1 << cause.number() != 0;
                assert_eq!(told.contains(&(*handle, cause, arming)), happened, "round {round}: {cause:?}");
            }
        }
        let statistics = rig.stream.statistics();
        lost += statistics.lost;
        superseded += statistics.superseded;
        of_deleted += statistics.of_deleted;
    }
    assert!(lost > 1000 && superseded > 100 && of_deleted > 100, "{lost} {superseded} {of_deleted}");
}

#[test]
fn icv_failures_are_told_each_time() {
    let mut rig = set_up(8);
    for _ in 0..3 {
        rig.happen(EventCause::IcvFailures, 0);
        assert_eq!(rig.all(), [(EventCause::IcvFailures, Some(0))]);
    }
}

#[test]
fn records_of_a_deleted_sa_are_dropped() {
    let mut rig = set_up(8);
    rig.happen(HARD, 0);
    rig.happen(HARD, 1);
    rig.happen(HARD, 0);
    // One is read and not handed out, one is in the ring, and one is of the slot's next SA.
    assert_eq!(rig.stream.next().unwrap().unwrap().sa, Some(rig.sas[0]));
    rig.happen(HARD, 1);
    rig.nic.delete_sa(rig.sas[1]).unwrap();
    let next = rig.nic.install_sa(sa(9)).unwrap();
    assert_eq!(next.index, rig.sas[1].index);
    rig.sas[1] = next;
    assert_eq!(rig.all(), []);
    assert_eq!(rig.stream.statistics().of_deleted, 2);
    rig.happen(HARD, 1);
    assert_eq!(rig.all(), [(HARD, Some(1))]);
}

#[test]
fn a_record_that_cannot_be_true_ends_the_stream() {
    type Lie = fn(&mut Record);
    let lies: [(&str, Lie, EventAnomaly); 13] = [
        ("cause 0", |lie| lie.head.set_cause(0), EventAnomaly::UnknownCause),
        ("cause 9", |lie| lie.head.set_cause(9), EventAnomaly::UnknownCause),
        ("cause 65535", |lie| lie.head.set_cause(u16::MAX), EventAnomaly::UnknownCause),
        ("a slot beyond the table", |lie| lie.head.set_sa_index(8), EventAnomaly::SlotOutOfRange),
        ("much beyond", |lie| lie.head.set_sa_index(u32::MAX), EventAnomaly::SlotOutOfRange),
        ("an empty slot", |lie| lie.head.set_sa_index(7), EventAnomaly::UnknownSa),
        ("generation 0", |lie| lie.names.set_generation(0), EventAnomaly::UnknownSa),
        ("a generation to come", |lie| lie.names.set_generation(u32::MAX), EventAnomaly::UnknownSa),
        ("another cookie", |lie| lie.names.set_cookie(1), EventAnomaly::Contradiction),
        ("another SPI", |lie| lie.detail.set_spi(1), EventAnomaly::Contradiction),
        ("bytes of a count-based SA", |lie| lie.head.set_cause(3), EventAnomaly::Contradiction),
        ("a device's cause with a slot", |lie| lie.head.set_cause(16), EventAnomaly::Contradiction),
        ("a loss with a generation", |lie| lie.head.set_cause(31), EventAnomaly::Contradiction),
    ];
    for (name, lie, anomaly) in lies {
        let mut rig = set_up(8);
        let mappings = rig.fake.device.borrow().mappings.len();
        rig.happen(HARD, 0);
        rig.fake.device.borrow_mut().events.on_event = Some(Box::new(lie));
        rig.happen(HARD, 1);
        // What came before it holds.
        assert_eq!(rig.stream.next().unwrap().unwrap().sa, Some(rig.sas[0]), "{name}");
        for _ in 0..2 {
            let outcome = rig.stream.next();
            assert!(
                matches!(outcome, Err(Error::EventsQuarantined(found)) if found == anomaly),
                "{name}: {outcome:?}"
            );
        }
        assert_eq!(rig.stream.quarantine(), Some(anomaly), "{name}");
        assert_eq!(rig.fake.device.borrow().mappings.len(), mappings - 1, "{name}: the memory is taken back");
        assert_eq!(rig.nic.statistics().unwrap().get("quarantined_events"), Some(1));
        // The NIC goes on, and another stream can be opened.
        drop(rig.stream);
        rig.nic.open_events(EventOptions { slots: 4, vector: None }).unwrap();
    }
}

#[test]
fn a_slot_that_cannot_be_true_ends_the_stream() {
    type Lie = fn(&mut fake::Sa);
    let lies: [(&str, Lie, EventAnomaly); 4] = [
        ("no cause", |sa| sa.causes = 1 << 12, EventAnomaly::UnknownCause),
        ("a cause of the other kind", |sa| sa.causes = 1 << 4, EventAnomaly::Contradiction),
        ("a generation to come", |sa| sa.generation += 100, EventAnomaly::UnknownSa),
        ("another arming", |sa| (sa.causes, sa.arming) = (1 << 1, 77), EventAnomaly::Contradiction),
    ];
    for (name, lie, anomaly) in lies {
        let mut rig = set_up(4);
        rig.nic.arm_sa(rig.sas[3], 5).unwrap();
        {
            let mut device = rig.fake.device.borrow_mut();
            let sa = device.sas.get_mut(&rig.sas[3].index).unwrap();
            sa.causes = 1 << 2;
            lie(sa);
            device.events.lost = 1;
        }
        rig.happen(HARD, 0);
        assert!(rig.stream.next().is_err(), "{name}");
        assert_eq!(rig.stream.quarantine(), Some(anomaly), "{name}");
    }
}

#[test]
fn garbage_in_the_ring_never_panics_and_never_names_what_is_not_there() {
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state ^ state >> 29
    };
    for _ in 0..3000 {
        let mut rig = set_up(4);
        let flips: Vec<(usize, u64)> =
            (0..random() % 4).map(|_| ((random() % 8) as usize, 1 << (random() % 64))).collect();
        rig.fake.device.borrow_mut().events.on_event = Some(Box::new(move |event| {
            let mut words = event.to_words();
            flips.iter().for_each(|(word, bit)| words[*word] ^= bit);
            *event = Record::of_words(&words);
        }));
        for sa in 0..4 {
            rig.happen(if random().is_multiple_of(2) { SOFT } else { HARD }, sa);
            if random().is_multiple_of(3) {
                let _ = rig.stream.next();
            }
        }
        for _ in 0..8 {
            if let Ok(Some(event)) = rig.stream.next() {
                assert!(event.sa.is_none_or(|sa| rig.sas.contains(&sa)), "{event:?}");
            }
        }
    }
}

#[test]
fn a_device_that_stops_the_ring_or_goes_is_noticed() {
    let mut rig = set_up(4);
    let soon = |rig: &Rig| rig.nic.time() + Time::from_microseconds(20);
    let deadline = soon(&rig);
    assert_eq!(rig.stream.wait(deadline).unwrap(), None);
    rig.happen(HARD, 0);
    let deadline = soon(&rig);
    assert_eq!(rig.stream.wait(deadline).unwrap().unwrap().cause, HARD);
    rig.fake.device.borrow_mut().events.stopped = true;
    let deadline = soon(&rig);
    let outcome = rig.stream.wait(deadline);
    assert!(matches!(outcome, Err(Error::EventsQuarantined(EventAnomaly::DeviceStopped))), "{outcome:?}");

    let mut rig = set_up(4);
    rig.fake.device.borrow_mut().gone = true;
    let deadline = soon(&rig);
    assert!(matches!(rig.stream.wait(deadline), Err(Error::Gone)));

    // Without interrupts it polls; when the NIC closes first the stream says so.
    let fake = Fake::new();
    fake.device.borrow_mut().no_interrupts = true;
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let mut stream = nic.open_events(EventOptions { slots: 4, vector: None }).unwrap();
    fake.device.borrow_mut().happen_to_device(EventCause::FirmwareRestarted, 0);
    let deadline = nic.time() + Time::from_microseconds(20);
    assert_eq!(stream.wait(deadline).unwrap().unwrap().cause, EventCause::FirmwareRestarted);
    let deadline = nic.time() + Time::from_microseconds(20);
    assert_eq!(stream.wait(deadline).unwrap(), None);
    nic.close().unwrap();
    assert!(matches!(stream.next(), Err(Error::Closed)));
    assert!(fake.device.borrow().mappings.is_empty());
}

#[derive(Default)]
struct Count(AtomicU32);

impl WakeTask for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_task_awaits_events_without_a_runtime() {
    let mut rig = set_up(4);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    let woken = || count.0.load(Ordering::Relaxed);
    let dispatcher = rig.stream.dispatcher();
    let stream = &mut rig.stream;
    let mut task = pin!(async move {
        let mut causes = vec![];
        for _ in 0..2 {
            causes.push(poll_fn(|context| stream.poll_next(context)).await.unwrap().cause);
        }
        causes
    });
    assert!(task.as_mut().poll(&mut context).is_pending());
    // Nothing came: nobody is woken.
    assert_eq!(dispatcher.wait(rig.nic.time() + Time::from_microseconds(5)).unwrap(), Wake::Deadline);
    assert_eq!((dispatcher.dispatch().unwrap(), woken()), (false, 0));
    rig.fake.device.borrow_mut().happen(HARD, rig.sas[0].index);
    assert_eq!(dispatcher.wait(rig.nic.time() + Time::from_microseconds(5)).unwrap(), Wake::Interrupt);
    assert_eq!(woken(), 1);
    assert!(task.as_mut().poll(&mut context).is_pending());
    rig.fake.device.borrow_mut().happen(HARD, rig.sas[1].index);
    assert!(dispatcher.dispatch().unwrap());
    assert_eq!(woken(), 2);
    assert_eq!(task.as_mut().poll(&mut context), Poll::Ready(vec![HARD, HARD]));
}

#[test]
fn closing_the_nic_wakes_who_waits() {
    let mut rig = set_up(4);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    assert!(rig.stream.poll_next(&mut Context::from_waker(&waker)).is_pending());
    rig.nic.close().unwrap();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    let outcome = rig.stream.poll_next(&mut Context::from_waker(&waker));
    assert!(matches!(outcome, Poll::Ready(Err(Error::Closed))), "{outcome:?}");
}
