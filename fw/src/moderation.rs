//! When the interrupt of the event ring is sent. One event is told at once. When many come, as when a
//! thousand SAs of one age reach their limits, the interrupt waits for more of them:
//!
//! | events in a millisecond | the interrupt waits for |
//! |---|---|
//! | up to 16 | nothing |
//! | 17 to 256 | 10 µs, or 16 events |
//! | more | 100 µs, or 64 events |
//!
//! It waits longer as soon as the events are there, and less long at the end of a millisecond that was calm
//! enough. Only while the interrupt waits at all does firmware look at the clock by itself.

use cryptonic_regs::bar0::InterruptModeration;
use cryptonic_regs::firmware::{EVENT_COUNT, EVENT_MODERATION};

use crate::bus::{Bus, clock, get, set};

/// Picoseconds of the interval in which events are counted.
const INTERVAL_PICOSECONDS: u64 = 1_000_000_000;

const AT_ONCE: InterruptModeration = InterruptModeration::new();

pub struct Moderation {
    /// What the register holds.
    current: InterruptModeration,
    /// The count of events at the last look.
    seen: u32,
    /// Device time when the interval began, and the count of events then.
    began_picoseconds: u64,
    began_count: u32,
}

impl Moderation {
    pub const fn new() -> Self {
        Moderation { current: AT_ONCE, seen: 0, began_picoseconds: 0, began_count: 0 }
    }

    /// Begins anew, whatever the firmware before has left in the register.
    pub fn reset(&mut self, bus: &mut impl Bus) {
        set(bus, EVENT_MODERATION, AT_ONCE);
        let count = get(bus, EVENT_COUNT);
        *self = Moderation { seen: count, began_count: count, ..Moderation::new() };
    }

    /// Sets the register by the events since the last looks. Gives the nanoseconds to the next look, if there
    /// has to be one without an event.
    pub fn look(&mut self, bus: &mut impl Bus) -> Option<u32> {
        let count = get(bus, EVENT_COUNT);
        let raised = self.current != AT_ONCE;
        if count == self.seen && !raised {
            return None;
        }
        self.seen = count;
        let now = clock(bus);
        let passed = now.wrapping_sub(self.began_picoseconds);
        let wanted = wanted(count.wrapping_sub(self.began_count));
        let over = passed >= INTERVAL_PICOSECONDS;
        // Of an interval that ended unseen, because all was calm before, nothing is known.
        let change = if over { raised } else { wanted.delay_ns() > self.current.delay_ns() };
        if change && wanted != self.current {
            set(bus, EVENT_MODERATION, wanted);
            self.current = wanted;
        }
        if over {
            (self.began_picoseconds, self.began_count) = (now, count);
        }
        let left = INTERVAL_PICOSECONDS.saturating_sub(if over { 0 } else { passed });
        (self.current != AT_ONCE).then_some(left.div_ceil(1000) as u32)
    }
}

fn wanted(events: u32) -> InterruptModeration {
    match events {
        0..=16 => AT_ONCE,
        17..=256 => AT_ONCE.with_delay_ns(10_000).with_completions(16),
        _ => AT_ONCE.with_delay_ns(100_000).with_completions(64),
    }
}
