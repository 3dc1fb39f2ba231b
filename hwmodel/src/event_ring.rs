//! The event ring. What happens to a slot or to the device is told in a record of its own; a record that finds the ring
//! full, or off, is lost. As soon as there is room a record says so, and the host looks at the sticky bits.
//!
//! ```text
//!   commit ─▶ sticky bit ─▶ record ─▶ ring ─▶ interrupt, after a delay that firmware chooses
//!                              └─ no room: overflow ─▶ doorbell of the host ─▶ record `events_lost`
//! ```

use crate::Ticks;
use cryptonic_regs::bar0::InterruptModeration;
use cryptonic_regs::events::{
    EVENT_SLOTS_LOG2, Event, EventCause, EventControl, EventDetail, EventEnd, EventHead, EventNames,
    EventStatus,
};

use crate::events::HostWrite;
use crate::nic::Nic;
use crate::queue::{CompletionRing, Waiting};
use crate::sa_lifetime::Causes;

const EVENT_BYTES: u32 = Event::BYTES as u32;

/// State of the ring.
#[derive(Default)]
pub(crate) struct EventRing {
    pub(crate) control: EventControl,
    pub(crate) status: EventStatus,
    pub(crate) ring: CompletionRing,
    /// What the host took.
    consumer: u32,
    /// Records lost since the ring was turned on.
    pub(crate) lost: u32,
    /// Records lost since a record said so.
    untold: u32,
    /// Device causes that happened, bit `n` for cause 16 + `n`.
    pub(crate) sticky: u16,
    /// Events since power-on.
    pub(crate) count: u32,
    /// Rises each time the ring is turned on or off.
    epoch: u32,
    /// When the interrupt is sent.
    pub(crate) moderation: InterruptModeration,
    interrupt: Waiting,
}

impl EventRing {
    /// Times begin anew, `by` later.
    pub(crate) fn begin_anew(&mut self, by: Ticks) {
        self.interrupt.since = self.interrupt.since.earlier_by(by);
    }

    /// Function-level reset. What is counted since power-on goes on.
    pub(crate) fn reset(&mut self) {
        *self = EventRing { count: self.count, epoch: self.epoch.wrapping_add(1), ..EventRing::default() };
    }

    fn has_room(&self) -> bool {
        self.ring.producer.wrapping_sub(self.consumer) < self.ring.slots
    }
}

impl Nic {
    /// Something happened to an SA slot, which has its sticky bits already.
    #[cold]
    pub(crate) fn raise_slot_events(&mut self, index: u32, causes: Causes) {
        let Some(sa) = self.sa_table.slot(index) else { return };
        let event = Event {
            head: EventHead::new().with_arming(sa.lifetime.arming()).with_sa_index(index),
            names: EventNames::new().with_generation(sa.generation).with_cookie(sa.cookie),
            packets: sa.lifetime.packets,
            bytes: sa.lifetime.bytes,
            sequence: sa.last_sequence(),
            detail: EventDetail::new().with_spi(sa.spi),
            ..Event::default()
        };
        self.sa_table.mark_sticky(index);
        for cause in causes.each() {
            self.raise(cause, event);
        }
    }

    /// Something happened to the device.
    pub(crate) fn raise_device_event(&mut self, cause: EventCause, number: u32) {
        self.event_ring.sticky |= 1 << (cause.number() - 16);
        self.raise(cause, Event { detail: EventDetail::new().with_number(number), ..Event::default() });
    }

    /// The host turns the ring on or off.
    pub(crate) fn event_control_write(&mut self, control: EventControl) {
        let ring = &mut self.event_ring;
        let was_on = ring.control.enable();
        if control.enable() && was_on {
            // Only the vector may change while the ring is on.
            ring.control.set_vector(control.vector());
            return;
        }
        ring.control = control;
        if !was_on && !control.enable() {
            return;
        }
        ring.epoch = ring.epoch.wrapping_add(1);
        ring.interrupt = Waiting::default();
        ring.status = EventStatus::new();
        if !control.enable() {
            return;
        }
        let (least, most) = EVENT_SLOTS_LOG2;
        let base = ring.ring.base;
        if !(least..=most).contains(&control.slots_log2()) || !base.is_multiple_of(64) || base >= 1 << 60 {
            ring.status.set_stopped(true);
            return;
        }
        ring.ring =
            CompletionRing { base, slots: 1 << control.slots_log2(), stride: EVENT_BYTES, producer: 0 };
        // A loss that the ring before had not told is over with it: no doorbell would ever come to tell it.
        (ring.consumer, ring.lost, ring.untold) = (0, 0, 0);
        ring.status.set_enabled(true);
        // What happened while nobody listened is in the sticky bits.
        if ring.sticky != 0 || self.sa_table.any_sticky() {
            self.event_ring.untold = 1;
            self.tell_lost();
        }
    }

    /// The host took records.
    pub(crate) fn event_doorbell(&mut self, consumer: u32) {
        let ring = &mut self.event_ring;
        if !ring.status.enabled() {
            return;
        }
        let taken = consumer.wrapping_sub(ring.consumer);
        if taken > ring.ring.producer.wrapping_sub(ring.consumer) {
            self.stop_event_ring();
            return;
        }
        ring.consumer = consumer;
        if ring.untold != 0 && ring.has_room() {
            self.tell_lost();
        }
    }

    /// A record is in host memory.
    pub(crate) fn event_visible(&mut self, epoch: u32) {
        if epoch != self.event_ring.epoch {
            return;
        }
        let ring = &mut self.event_ring;
        if ring.interrupt.count == 0 {
            ring.interrupt.since = self.now;
        }
        ring.interrupt.count += 1;
        let most = u32::from(ring.moderation.completions()).max(1);
        let delay = Ticks::from_nanoseconds(u64::from(ring.moderation.delay_ns()));
        if ring.interrupt.count >= most || delay == Ticks::ZERO {
            self.send_event_interrupt();
        } else if !ring.interrupt.timer {
            ring.interrupt.timer = true;
            self.events.seldom.change(|queues| queues.event_interrupts.push(self.now + delay, epoch));
        }
    }

    /// The time is up for the interrupt of the ring.
    pub(crate) fn event_interrupt_due(&mut self, epoch: u32) {
        let ring = &mut self.event_ring;
        if epoch != ring.epoch {
            return;
        }
        ring.interrupt.timer = false;
        if ring.interrupt.count == 0 {
            return;
        }
        let due = ring.interrupt.since + Ticks::from_nanoseconds(u64::from(ring.moderation.delay_ns()));
        if due > self.now {
            ring.interrupt.timer = true;
            self.events.seldom.change(|queues| queues.event_interrupts.push(due, epoch));
        } else {
            self.send_event_interrupt();
        }
    }

    /// Whether a record belongs to the ring as it is now.
    pub(crate) fn event_epoch_is(&self, epoch: u32) -> bool {
        epoch == self.event_ring.epoch && self.event_ring.status.enabled()
    }

    /// The ring cannot go on: the host has to turn it off and on.
    pub(crate) fn stop_event_ring(&mut self) {
        self.event_ring.status = EventStatus::new().with_stopped(true);
    }

    fn send_event_interrupt(&mut self) {
        self.event_ring.interrupt.count = 0;
        self.raise_interrupt(u16::from(self.event_ring.control.vector()));
    }

    fn raise(&mut self, cause: EventCause, event: Event) {
        let ring = &mut self.event_ring;
        ring.count = ring.count.wrapping_add(1);
        if !ring.status.enabled() {
            return;
        }
        // While a loss is untold no record may pass it: the host would take the ring for complete.
        if ring.untold != 0 || !ring.has_room() {
            ring.lost = ring.lost.saturating_add(1);
            ring.untold = ring.untold.saturating_add(1);
            ring.status.set_overflow(true);
        } else {
            self.write_event(cause, event);
        }
        self.wake_firmware(self.now);
    }

    fn tell_lost(&mut self) {
        let untold = std::mem::take(&mut self.event_ring.untold);
        self.event_ring.status.set_overflow(false);
        self.write_event(
            EventCause::EventsLost,
            Event { detail: EventDetail::new().with_number(untold), ..Event::default() },
        );
    }

    fn write_event(&mut self, cause: EventCause, mut event: Event) {
        event.head.set_cause(cause.number() as u16);
        event.time_picoseconds = self.now_picoseconds();
        let (address, phase) = self.event_ring.ring.next();
        event.end = EventEnd::new().with_phase(phase);
        if self.memory.writable(address, u64::from(EVENT_BYTES)).is_err() {
            self.stop_event_ring();
            return;
        }
        let written = self.pcie.write(self.now, u64::from(EVENT_BYTES));
        let epoch = self.event_ring.epoch;
        let words = Box::new(event.to_words());
        self.events.host_writes.push(written.visible, HostWrite::Event { epoch, address, words });
    }
}
