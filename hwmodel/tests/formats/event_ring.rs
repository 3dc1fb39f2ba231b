//! The ring of events: order, phase, wrap, overflow, and every way in which a host can set it up wrongly.

use cryptonic_hwmodel::Parameters;
use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, Time};
use cryptonic_regs::admin::{Direction, LifetimeKind, Opcode};
use cryptonic_regs::bar0::QueueControl;
use cryptonic_regs::descriptor::{Security, TransmitSa};
use cryptonic_regs::events::{
    EVENT_CONTROL, EVENT_DOORBELL, EVENT_RING_BASE, EVENT_STATUS, EVENT_STICKY, EVENTS_LOST, EventCause,
    EventControl, EventStatus,
};

use crate::admin::{Admin, Ring, cause, esp, limited};
use crate::raw::{Raw, control, extent, udp};

struct Nic {
    raw: Raw,
    admin: Admin,
    ring: Ring,
}

impl Nic {
    fn new() -> Nic {
        let raw = Raw::new(&Parameters::default(), 32);
        let admin = Admin::new(&raw);
        let ring = Ring::new(&raw);
        Nic { raw, admin, ring }
    }

    fn turn_on(&mut self, offset: u64, slots_log2: u8) -> EventStatus {
        self.ring.turn_on(&self.raw, offset, slots_log2);
        self.status()
    }

    fn status(&self) -> EventStatus {
        EventStatus::from_bits(self.raw.read(EVENT_STATUS.offset))
    }

    fn lost(&self) -> u32 {
        self.raw.read(EVENTS_LOST.offset)
    }

    /// So many events: rotations, whose number is the generation.
    fn rotate(&mut self, count: u32) {
        for _ in 0..count {
            self.admin.ask(&self.raw, Opcode::PspRotate, 0, &[], 0);
        }
    }

    /// Cause and number of the events that have come.
    fn take(&mut self) -> Vec<(EventCause, u32)> {
        self.ring.take(&self.raw).iter().map(|event| (cause(event), event.detail.number())).collect()
    }

    fn clear_sticky(&self) {
        self.raw.write(EVENT_STICKY.offset, 0xffff);
    }
}

fn rotations(generations: std::ops::RangeInclusive<u32>) -> Vec<(EventCause, u32)> {
    generations.map(|generation| (EventCause::PspRotatedByCommand, generation)).collect()
}

const ON: EventStatus = EventStatus::new().with_enabled(true);
const STOPPED: EventStatus = EventStatus::new().with_stopped(true);

#[test]
fn events_come_in_order_over_every_wrap() {
    for slots_log2 in [2, 3, 12] {
        let mut nic = Nic::new();
        assert_eq!(nic.turn_on(0, slots_log2), ON);
        let mut generation = 0;
        for round in 0..9 {
            let count = 1 + round % 4;
            nic.rotate(count);
            assert_eq!(
                nic.take(),
                rotations(generation + 1..=generation + count),
                "2^{slots_log2}, round {round}"
            );
            nic.ring.ring(&nic.raw);
            generation += count;
        }
        assert_eq!((nic.status(), nic.lost()), (ON, 0));
    }
}

#[test]
fn a_full_ring_loses_events_and_says_so_before_any_other() {
    let mut nic = Nic::new();
    nic.turn_on(0, 2);
    nic.rotate(7);
    assert_eq!((nic.status(), nic.lost()), (ON.with_overflow(true), 3));
    assert_eq!(nic.take(), rotations(1..=4));
    // Room alone does not let an event pass the loss: the doorbell tells it first.
    nic.ring.ring(&nic.raw);
    nic.rotate(2);
    assert_eq!((nic.status(), nic.lost()), (ON, 3));
    let mut expected = vec![(EventCause::EventsLost, 3)];
    expected.extend(rotations(8..=9));
    assert_eq!(nic.take(), expected);
    // A doorbell that frees nothing tells nothing; the next loss is counted from there.
    nic.ring.ring(&nic.raw);
    nic.rotate(6);
    assert_eq!((nic.lost(), nic.take()), (5, rotations(10..=13)));
    nic.ring.ring(&nic.raw);
    assert_eq!(nic.take(), [(EventCause::EventsLost, 2)]);
}

#[test]
fn a_ring_that_is_turned_on_late_says_that_something_happened() {
    let mut nic = Nic::new();
    nic.rotate(3);
    assert_eq!(nic.lost(), 0);
    nic.turn_on(0, 4);
    assert_eq!(nic.take(), [(EventCause::EventsLost, 1)]);
    nic.rotate(1);
    assert_eq!(nic.take(), rotations(4..=4));
    // Once the host has looked at the sticky bits and cleared them there is nothing to say.
    let bit = 1 << (EventCause::PspRotatedByCommand.number() - 16);
    assert_eq!(nic.raw.read(EVENT_STICKY.offset), bit);
    nic.clear_sticky();
    assert_eq!(nic.raw.read(EVENT_STICKY.offset), 0);
    nic.turn_on(0, 4);
    assert_eq!(nic.take(), []);
}

#[test]
fn a_loss_that_was_not_told_does_not_silence_the_next_ring() {
    let mut nic = Nic::new();
    nic.turn_on(0, 2);
    nic.rotate(9);
    assert!(nic.status().overflow());
    // The host has read the sticky bits and turns the ring off and on.
    nic.clear_sticky();
    assert_eq!(nic.turn_on(0, 2), ON);
    assert_eq!((nic.lost(), nic.take()), (0, vec![]));
    nic.rotate(1);
    assert_eq!(nic.take(), rotations(10..=10), "without a doorbell: the ring is empty");
}

#[test]
fn a_ring_out_of_range_does_not_start() {
    for (name, offset, slots_log2) in [
        ("too small", 0, 1),
        ("too small", 0, 0),
        ("too large", 0, 13),
        ("misaligned", 32, 4),
        ("at the end of addresses", (1 << 60) - 0x9000_0000, 4),
    ] {
        let mut nic = Nic::new();
        assert_eq!(nic.turn_on(offset, slots_log2), STOPPED, "{name}");
        nic.rotate(2);
        assert_eq!((nic.status(), nic.lost()), (STOPPED, 0), "{name}");
        assert_eq!(nic.turn_on(0, 4), ON, "{name}: turned off and on rightly it works");
        assert_eq!(nic.take(), [(EventCause::EventsLost, 1)], "{name}");
    }
}

#[test]
fn a_consumer_index_out_of_range_stops_the_ring() {
    for (name, taken) in [("ahead", 3), ("behind", u32::MAX), ("far ahead", 1 << 31)] {
        let mut nic = Nic::new();
        nic.turn_on(0, 3);
        nic.rotate(2);
        nic.raw.write(EVENT_DOORBELL.offset, taken);
        assert_eq!(nic.status(), STOPPED, "{name}");
        nic.rotate(1);
        assert_eq!(nic.take(), rotations(1..=2), "{name}");
        nic.raw.write(EVENT_DOORBELL.offset, 2);
        assert_eq!(nic.status(), STOPPED, "{name}: it stays so");
        nic.turn_on(0, 3);
        assert_eq!(nic.take(), [(EventCause::EventsLost, 1)], "{name}");
    }
}

#[test]
fn a_ring_outside_mapped_memory_stops_and_touches_nothing() {
    let mut nic = Nic::new();
    // Half of it is inside: 4 of 8 slots.
    assert_eq!(nic.turn_on(0x4_0000 - 256, 3), ON);
    nic.rotate(4);
    assert_eq!(nic.status(), ON);
    nic.rotate(1);
    assert_eq!(nic.status(), STOPPED);
    nic.rotate(1);
    // All of it is outside, and there is something to tell at once.
    assert_eq!(nic.turn_on(0x100_0000, 3), STOPPED);
    assert_eq!(nic.turn_on(0, 3), ON);
}

#[test]
fn while_it_is_on_only_the_vector_changes() {
    let mut nic = Nic::new();
    nic.turn_on(0, 3);
    let base = nic.raw.host.read64(Bar::Bar0, EVENT_RING_BASE.offset).expect("read");
    nic.raw.host.write64(Bar::Bar0, EVENT_RING_BASE.offset, 0x40).expect("write");
    let changed = EventControl::new().with_enable(true).with_slots_log2(12).with_vector(2);
    nic.raw.write(EVENT_CONTROL.offset, changed.into_bits());
    assert_eq!(nic.raw.host.read64(Bar::Bar0, EVENT_RING_BASE.offset).expect("read"), base);
    assert_eq!(nic.raw.read(EVENT_CONTROL.offset), changed.with_slots_log2(3).into_bits());
    nic.rotate(9);
    assert_eq!(nic.take(), rotations(1..=8));
}

#[test]
fn the_interrupt_comes_with_the_event_and_the_vector_is_its_own() {
    let mut nic = Nic::new();
    nic.raw.host.interrupts_enable(2).expect("interrupts");
    nic.turn_on(0, 3);
    nic.rotate(1);
    let soon = nic.raw.host.now() + Time::from_microseconds(50);
    assert_eq!(nic.raw.host.wait(1, soon), Ok(Wake::Interrupt));
    assert_eq!(nic.take().len(), 1, "the record is there before the interrupt");
    let later = nic.raw.host.now() + Time::from_microseconds(50);
    assert_eq!(nic.raw.host.wait(1, later), Ok(Wake::Deadline), "once");
}

#[test]
fn a_reset_turns_the_ring_off_and_forgets_what_happened() {
    let mut nic = Nic::new();
    nic.turn_on(0, 2);
    nic.rotate(9);
    nic.raw.host.reset().expect("reset");
    nic.raw.set_up(QueueControl::new());
    nic.admin.turn_on(&nic.raw);
    assert_eq!((nic.status(), nic.lost(), nic.raw.read(EVENT_STICKY.offset)), (EventStatus::new(), 0, 0));
    assert_eq!(nic.raw.read(EVENT_CONTROL.offset), 0);
    nic.turn_on(0, 2);
    assert_eq!(nic.take(), []);
    nic.rotate(1);
    assert_eq!(nic.take(), rotations(10..=10), "the generation goes on");
}

/// A ring whose interrupt waits: there were so many events that firmware has it wait 10 µs, or for 16 events.
struct Moderated {
    nic: Nic,
    /// SAs that have not sent; each is an event with its first packet.
    fresh: Vec<TransmitSa>,
}

impl Moderated {
    fn new() -> Moderated {
        let mut nic = Nic::new();
        nic.raw.host.interrupts_enable(2).expect("interrupts");
        nic.turn_on(0, 8);
        let sas: Vec<_> = (0x1001..0x1001 + 192)
            .map(|spi| limited(esp(Direction::Out, spi), LifetimeKind::Packets, 1, 0))
            .collect();
        let fresh = sas.chunks(16).flat_map(|batch| nic.admin.install(&nic.raw, batch)).collect();
        let mut moderated = Moderated { nic, fresh };
        // Of the first burst firmware may not know in which millisecond it began.
        for _ in 0..2 {
            moderated.events(40);
            while moderated.interrupt_within(20) {}
        }
        moderated
    }

    /// So many events at once.
    fn events(&mut self, count: usize) {
        let frame = udp(100);
        for sa in self.fresh.drain(..count) {
            let at = self.nic.raw.bytes(&frame);
            let control = control(frame.len())
                .with_security(Security::Sa.number() as u8)
                .with_report(false)
                .into_bits();
            self.nic.raw.put([at, control, sa.into_bits(), extent(frame.len(), 0)], &[]);
        }
        self.nic.raw.ring();
    }

    fn interrupt_within(&self, microseconds: u64) -> bool {
        let host = &self.nic.raw.host;
        host.wait(1, host.now() + Time::from_microseconds(microseconds)) == Ok(Wake::Interrupt)
    }
}

#[test]
fn when_events_come_in_masses_few_wait_for_the_interrupt_and_many_do_not() {
    let mut ring = Moderated::new();
    ring.events(3);
    assert!(!ring.interrupt_within(9), "three wait for more");
    assert!(ring.interrupt_within(3), "and not for ever");
    ring.events(16);
    assert!(ring.interrupt_within(5), "sixteen do not wait");
    assert!(!ring.interrupt_within(5));
    // The timer of those sixteen is not that of what comes behind them.
    ring.events(1);
    assert!(!ring.interrupt_within(9));
    assert!(ring.interrupt_within(3));
    assert!(!ring.interrupt_within(50), "once");
}

#[test]
fn a_ring_that_is_turned_off_and_on_has_a_timer_of_its_own() {
    let mut ring = Moderated::new();
    ring.events(3);
    assert!(!ring.interrupt_within(6));
    let on = EventControl::from_bits(ring.nic.raw.read(EVENT_CONTROL.offset));
    ring.nic.raw.write(EVENT_CONTROL.offset, 0);
    ring.nic.raw.write(EVENT_CONTROL.offset, on.into_bits());
    // Turned on, it says at once that something was lost: that waits from now on, not from before.
    assert!(!ring.interrupt_within(9));
    assert!(ring.interrupt_within(3));
    assert!(!ring.interrupt_within(50), "the timer of before is over with its ring");
}

#[test]
fn a_record_under_way_to_a_ring_that_is_turned_off_never_lands() {
    const SECOND: u64 = 0x1000;
    let mut under_way = 0;
    for moment in 0.. {
        let mut nic = Nic::new();
        nic.turn_on(0, 2);
        nic.admin.post(&nic.raw, Opcode::PspRotate, [0; 2], &[], 0);
        nic.raw.pass(Time::from_nanoseconds(50 * moment));
        nic.raw.write(EVENT_CONTROL.offset, 0);
        let base = nic.raw.host.read64(Bar::Bar0, EVENT_RING_BASE.offset).expect("read");
        nic.raw.host.write64(Bar::Bar0, EVENT_RING_BASE.offset, base + SECOND).expect("write");
        let on = EventControl::new().with_enable(true).with_slots_log2(2);
        nic.raw.write(EVENT_CONTROL.offset, on.into_bits());
        nic.raw.world.drain();
        match (nic.ring.first(0), nic.ring.first(SECOND)) {
            // The rotation came after.
            (None, Some(EventCause::PspRotatedByCommand)) => {}
            (None, Some(EventCause::EventsLost)) => under_way += 1,
            (Some(EventCause::PspRotatedByCommand), Some(EventCause::EventsLost)) => break,
            told => panic!("moment {moment}: {told:?}"),
        }
    }
    assert!(under_way > 0);
}

#[test]
fn a_sticky_bit_is_cleared_by_its_own_one_alone() {
    let mut nic = Nic::new();
    nic.rotate(1);
    nic.raw.world.restart_firmware(nic.raw.id);
    nic.raw.world.drain();
    let [rotated, restarted] = [EventCause::PspRotatedByCommand, EventCause::FirmwareRestarted]
        .map(|cause| 1 << (cause.number() - 16));
    assert_eq!(nic.raw.read(EVENT_STICKY.offset), rotated | restarted);
    nic.raw.write(EVENT_STICKY.offset, restarted);
    assert_eq!(nic.raw.read(EVENT_STICKY.offset), rotated);
}
