//! Of lines 1 and 3: no soft or hard limit is missed, and none is told twice, however small the ring and however long the
//! host sleeps. The witness is what the test set and sent.

use std::collections::HashMap;

use cryptonic_driver::{
    Direction, Event, EventCause, EventOptions, EventStream, Lifetime, LifetimeKind, Mode, Protection,
    SaConfiguration, SaHandle, Status, Time,
};
use cryptonic_hwmodel::{Parameters, World};

use crate::rig::{Chance, End, apart, cases, esp_number, marked, packet_of, send_all, udp};

/// Every packet of these tests: 28 bytes of headers and this payload.
const PAYLOAD: usize = 72;
const IP_BYTES: u64 = 100;

/// The smallest ring.
const SMALL: EventOptions = EventOptions { slots: 4, vector: None };

fn frame() -> Vec<u8> {
    udp(&marked(PAYLOAD))
}

fn kind_of(number: u32) -> LifetimeKind {
    if number.is_multiple_of(2) { LifetimeKind::Packets } else { LifetimeKind::Bytes }
}

fn weight(kind: LifetimeKind) -> u64 {
    if kind == LifetimeKind::Packets { 1 } else { IP_BYTES }
}

fn causes(kind: LifetimeKind) -> [EventCause; 2] {
    match kind {
        LifetimeKind::Packets => [EventCause::SoftPackets, EventCause::HardPackets],
        LifetimeKind::Bytes => [EventCause::SoftBytes, EventCause::HardBytes],
    }
}

/// Installs SAs of both kinds, eight by eight, with limits in packets.
fn install(end: &mut End, numbers: std::ops::Range<u32>, soft: u64, hard: u64) -> Vec<SaHandle> {
    let numbers: Vec<u32> = numbers.collect();
    let most = usize::from(end.nic.information().capabilities.life.sa_batch());
    let mut handles = vec![];
    for some in numbers.chunks(most) {
        let batch = some.iter().map(|number| {
            let kind = kind_of(*number);
            let lifetime =
                Lifetime { kind, soft: Some(soft * weight(kind)), hard: Some(hard * weight(kind)) };
            let sa = esp_number(Direction::Out, Mode::Tunnel, *number);
            SaConfiguration { lifetime, cookie: number + 7, ..sa }
        });
        handles.extend(end.nic.install_sas(batch.collect()).expect("install"));
    }
    handles
}

/// Sends a packet by each SA, as many times, while nobody looks at the events.
fn send_by_each(end: &mut End, handles: &[SaHandle], times: usize) {
    for _ in 0..times {
        for some in handles.chunks(64) {
            let mut batch: Vec<_> =
                some.iter().map(|sa| packet_of(&mut end.queue, &frame(), Protection::Sa(*sa))).collect();
            end.queue.transmit(&mut batch).expect("transmit");
            assert!(batch.is_empty());
            crate::rig::drain(&mut end.queue);
        }
    }
}

/// Everything that is told of SAs until nothing comes any more.
fn all_told(world: &World, stream: &mut EventStream) -> Vec<Event> {
    let mut told = vec![];
    loop {
        world.drain();
        match stream.next().expect("next") {
            Some(event) => told.push(event),
            None => {
                // What the last doorbell let the device write comes after it.
                world.drain();
                match stream.next().expect("next") {
                    Some(event) => told.push(event),
                    None => break,
                }
            }
        }
    }
    told.retain(|event| event.sa.is_some());
    told
}

fn counted(told: &[Event]) -> HashMap<(SaHandle, EventCause), usize> {
    let mut counts = HashMap::new();
    for event in told {
        *counts.entry((event.sa.expect("of an SA"), event.cause)).or_default() += 1;
    }
    counts
}

#[test]
fn hundreds_of_limits_at_once_are_each_told_once_through_a_ring_of_four() {
    let (world, mut a, _b) = apart();
    let mut stream = a.nic.open_events(SMALL).expect("events");
    let handles = install(&mut a, 0..400, 2, 4);
    // While the host sleeps every SA passes both its limits.
    send_by_each(&mut a, &handles, 6);
    assert_eq!(a.wire.frames().len(), 400 * 4);
    let told = all_told(&world, &mut stream);
    assert!(stream.statistics().lost > 300, "the ring was too small: {:?}", stream.statistics());
    let counts = counted(&told);
    for (number, sa) in (0..400).zip(&handles) {
        for cause in causes(kind_of(number)) {
            assert_eq!(counts.get(&(*sa, cause)), Some(&1), "SA {number}, {}", cause.name());
        }
    }
    assert_eq!(told.len(), 800, "and nothing else");
    assert!(told.iter().all(|event| event.cookie == event.spi - 0x1_0000 + 7));
    assert_eq!(stream.next().expect("next"), None);
    // They are told no more, by whatever.
    let more = install(&mut a, 400..404, 1, 10);
    send_by_each(&mut a, &more, 3);
    let told = all_told(&world, &mut stream);
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn limits_armed_anew_between_losses_are_each_told_once() {
    for seed in 0..cases(3) {
        let mut chance = Chance::new(seed);
        let (world, mut a, _b) = apart();
        let handles = install(&mut a, 0..60, 1, 1 << 30);
        let mut stream = a.nic.open_events(SMALL).expect("events");
        // What the test knows of each: packets, soft limit in packets, whether it fired since it was armed, and whether
        // that is still to be told.
        let mut known = vec![(0_u64, 1_u64, false, false); handles.len()];
        let mut total = 0;
        for turn in 0..300 {
            let place = chance.below(handles.len() as u64) as usize;
            let (sa, kind) = (handles[place], kind_of(place as u32));
            match chance.below(10) {
                0 => {
                    let soft = known[place].0 + chance.below(3);
                    if soft != 0 {
                        a.nic.arm_sa(sa, soft * weight(kind)).expect("arm");
                        // What was not told of the arming before is told no more.
                        known[place] = (known[place].0, soft, false, false);
                    }
                }
                1 if chance.one_in(3) => {
                    let told = counted(&all_told(&world, &mut stream));
                    let expected: HashMap<_, _> = known
                        .iter()
                        .enumerate()
                        .filter(|(_, (.., due))| *due)
                        .map(|(place, _)| ((handles[place], causes(kind_of(place as u32))[0]), 1))
                        .collect();
                    assert_eq!(told, expected, "seed {seed}, turn {turn}");
                    total += told.len();
                    known.iter_mut().for_each(|one| one.3 = false);
                }
                2 if chance.one_in(4) => world.restart_firmware(a.id),
                _ => {
                    let burst = 1 + chance.below(6) as usize;
                    for place in (place..handles.len()).take(burst) {
                        send_all(&mut a.queue, &[frame()], Protection::Sa(handles[place]));
                        let (packets, soft, fired, due) = &mut known[place];
                        *packets += 1;
                        if *packets >= *soft && !*fired {
                            (*fired, *due) = (true, true);
                        }
                    }
                }
            }
        }
        assert!(total > 20, "seed {seed}: {total}");
    }
}

#[test]
fn what_happened_before_the_ring_was_on_is_told_when_it_is() {
    let (world, mut a, _b) = apart();
    let handles = install(&mut a, 0..100, 1, 3);
    send_by_each(&mut a, &handles[..50], 1);
    send_by_each(&mut a, &handles[50..], 4);
    let mut stream = a.nic.open_events(SMALL).expect("events");
    let counts = counted(&all_told(&world, &mut stream));
    assert_eq!(counts.len(), 150);
    assert!(counts.values().all(|count| *count == 1));
    // Off and on again: a new stream is told of what holds, once.
    stream.close().expect("close");
    send_by_each(&mut a, &handles[..50], 3);
    let mut stream = a.nic.open_events(SMALL).expect("events");
    let told = all_told(&world, &mut stream);
    let hard = told.iter().filter(|event| causes(kind_of(event.spi - 0x1_0000))[1] == event.cause);
    assert!(hard.clone().count() >= 50, "{told:?}");
    assert!(counted(&told).values().all(|count| *count == 1));
}

#[test]
fn after_a_reset_nothing_of_before_is_told() {
    let (world, mut a, _b) = apart();
    let stream = a.nic.open_events(SMALL).expect("events");
    let handles = install(&mut a, 0..20, 1, 3);
    send_by_each(&mut a, &handles, 4);
    drop(stream);
    let mut a = a.reopen(&world);
    let mut stream = a.nic.open_events(SMALL).expect("events");
    assert_eq!(all_told(&world, &mut stream), []);
    let fresh = install(&mut a, 100..120, 1, 3);
    send_by_each(&mut a, &fresh, 4);
    let counts = counted(&all_told(&world, &mut stream));
    assert_eq!(counts.len(), 40);
    assert!(counts.iter().all(|((sa, _), count)| fresh.contains(sa) && *count == 1));
}

#[test]
fn an_event_wakes_a_host_that_sleeps() {
    let (_world, mut a, _b) = apart();
    let mut stream = a.nic.open_events(EventOptions::default()).expect("events");
    let handles = install(&mut a, 0..2, 1, 3);
    let asleep = a.nic.time() + Time::from_milliseconds(50);
    for handle in &handles {
        crate::rig::put_on(&mut a.queue, &frame(), Protection::Sa(*handle), 1);
        let event = stream.wait(asleep).expect("wait").expect("it was woken");
        assert_eq!(event.sa, Some(*handle));
        assert!(a.nic.time() + Time::from_milliseconds(40) < asleep, "in time");
    }
    assert_eq!(crate::rig::drain(&mut a.queue).last().map(|end| end.status), Some(Status::Ok));
    let late = a.nic.time() + Time::from_microseconds(5);
    assert_eq!(stream.wait(late).expect("wait"), None, "and sleeps on");
}

#[test]
fn arming_that_a_crash_aborted_loses_no_event() {
    use crate::stepped::open_stepped;
    for crash in 0..cases(60).min(90) {
        let world = World::new(1);
        let id = world.add_nic(&Parameters::default()).expect("in range");
        let (mut nic, steps) = open_stepped(&world, id, Time::from_nanoseconds(100), &Default::default());
        let mut queue = nic.create_queue_pair(crate::rig::guarded()).expect("queue");
        let mut stream = nic.open_events(SMALL).expect("events");
        let lifetime = Lifetime::packets(Some(1), Some(100));
        let sa = SaConfiguration { lifetime, ..esp_number(Direction::Out, Mode::Tunnel, 1) };
        let sa = nic.install_sa(sa).expect("install");
        send_all(&mut queue, &[frame()], Protection::Sa(sa));
        assert_eq!(all_told(&world, &mut stream).len(), 1, "the first");
        steps.crash_at(&world, id, crash);
        let armed = nic.arm_sa(sa, 3);
        steps.stop();
        send_all(&mut queue, &[frame(), frame()], Protection::Sa(sa));
        let effective = nic.query_sa(sa).expect("query").lifetime.soft == Some(3);
        assert!(effective || armed.is_err());
        let told = all_told(&world, &mut stream).len();
        assert_eq!(told, usize::from(effective), "crash at {crash}: {armed:?}, told by the record");
        // And so by the sticky bits alone.
        if armed.is_err() {
            nic.arm_sa(sa, 5).expect("again");
            send_all(&mut queue, &[frame(), frame()], Protection::Sa(sa));
            assert_eq!(all_told(&world, &mut stream).len(), 1, "crash at {crash}: armed again");
        }
        drop(stream);
        let mut stream = nic.open_events(SMALL).expect("events");
        assert!(all_told(&world, &mut stream).len() <= 1);
    }
}

#[test]
fn a_ring_that_overflowed_and_was_turned_off_begins_anew() {
    let (world, mut a, _b) = apart();
    let stream = a.nic.open_events(SMALL).expect("events");
    let handles = install(&mut a, 0..20, 1, 3);
    send_by_each(&mut a, &handles, 4);
    // Given losses that nobody was told of, and no SA that has a sticky bit any more,
    drop(stream);
    handles.into_iter().for_each(|handle| a.nic.delete_sa(handle).expect("delete"));
    // when the ring is turned on again, then what happens is told.
    let mut stream = a.nic.open_events(SMALL).expect("events");
    assert_eq!(all_told(&world, &mut stream), []);
    let fresh = install(&mut a, 100..101, 1, 2);
    send_by_each(&mut a, &fresh, 2);
    assert_eq!(all_told(&world, &mut stream).len(), 2);
}

#[test]
fn icv_failures_in_a_row_are_told_once_until_the_sa_is_armed_anew() {
    let (world, mut a, mut b) = apart();
    let out = a.nic.install_sa(esp_number(Direction::Out, Mode::Tunnel, 1)).expect("install");
    let sa = SaConfiguration {
        lifetime: Lifetime::packets(Some(1 << 20), None),
        ..esp_number(Direction::In, Mode::Tunnel, 1)
    };
    let incoming = b.nic.install_sa(sa).expect("install");
    let mut stream = b.nic.open_events(SMALL).expect("events");
    send_all(&mut a.queue, &[frame(), frame()], Protection::Sa(out));
    let [good, mut forged] = <[Vec<u8>; 2]>::try_from(a.wire.take()).expect("two");
    *forged.last_mut().expect("bytes") ^= 1;
    let mut told_after = |count: usize, frame: &[u8]| {
        (0..count).for_each(|_| world.inject(b.id, frame));
        let told = all_told(&world, &mut stream);
        assert!(
            told.iter().all(|event| { (event.cause, event.sa) == (EventCause::IcvFailures, Some(incoming)) })
        );
        told.len()
    };
    assert_eq!(told_after(255, &forged), 0, "one good packet begins the row anew");
    assert_eq!(told_after(1, &good), 0);
    assert_eq!(told_after(255, &forged), 0);
    assert_eq!(told_after(1, &forged), 1);
    assert_eq!(told_after(600, &forged), 0, "once");
    b.nic.arm_sa(incoming, 1 << 20).expect("arm");
    assert_eq!(told_after(300, &forged), 1, "and once more");
    assert_eq!(b.nic.query_sa(incoming).expect("query").icv_failures, 255 + 255 + 1 + 600 + 300);
}
