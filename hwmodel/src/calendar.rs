//! The two building blocks of closed-form timing: a resource that serves one thing at a time, and a store
//! with a bounded number of units.

use std::collections::VecDeque;

use cryptonic_pci::Time;

/// A resource that serves in order, one at a time: a bus, a lane, a link direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calendar {
    free_at: Time,
    busy: Time,
}

impl Calendar {
    /// Serves from `ready` on, or from when the resource is free, for `span`. Gives the start.
    #[inline]
    pub fn serve(&mut self, ready: Time, span: Time) -> Time {
        let start = ready.max(self.free_at);
        self.take(start, span);
        start
    }

    /// Serves something asked for at `now` that is ready at `ready` or later, without keeping the resource from
    /// others until then. Gives the start. Callers that could start together see to their own order.
    #[inline]
    pub fn serve_later(&mut self, now: Time, ready: Time, span: Time) -> Time {
        ready.max(self.serve(now, span))
    }

    /// When it is free next.
    pub fn free_at(&self) -> Time {
        self.free_at
    }

    /// How long it served in all.
    pub fn busy(&self) -> Time {
        self.busy
    }

    /// Takes `span` out of the resource's future without waiting for it: posted writes pass read completions
    /// (PCIe 4.0 2.4.1), yet use the same link.
    #[inline]
    pub fn steal(&mut self, now: Time, span: Time) {
        self.take(self.free_at.max(now), span);
    }

    /// Is in use from `start` on. Nothing happens at 2^60 ticks or later (`events::Moment`), so that sums of times stay below
    /// 2^64: they need not saturate, as elsewhere, where a span may be `Time::NEVER`.
    #[inline]
    fn take(&mut self, start: Time, span: Time) {
        self.free_at = Time(start.0.wrapping_add(span.0));
        self.busy = Time(self.busy.0.wrapping_add(span.0));
    }
}

/// A store of a number of units, such as bytes of a buffer. Units are taken now and given back at a time that
/// becomes known later; times of release come in order.
#[derive(Clone, Debug)]
pub struct Store {
    free: u64,
    releases: VecDeque<(Time, u64)>,
}

/// Why units cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// They are free at this time.
    Until(Time),
    /// It is not known yet when they will be.
    Unknown,
}

impl Store {
    /// A store with all its `capacity` free.
    pub fn new(capacity: u64) -> Self {
        Store { free: capacity, releases: VecDeque::new() }
    }

    /// Takes `units` at `now`.
    #[inline]
    pub fn take(&mut self, now: Time, units: u64) -> Result<(), Full> {
        while let Some((at, released)) = self.releases.front().copied()
            && at <= now
        {
            self.free += released;
            self.releases.pop_front();
        }
        if self.free >= units {
            self.free -= units;
            return Ok(());
        }
        let mut free = self.free;
        for (at, released) in &self.releases {
            free += released;
            if free >= units {
                return Err(Full::Until(*at));
            }
        }
        Err(Full::Unknown)
    }

    /// Gives `units` back at `at`.
    #[inline]
    pub fn release(&mut self, at: Time, units: u64) {
        let at = self.releases.back().map_or(at, |(last, _)| at.max(*last));
        self.releases.push_back((at, units));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calendar_serves_in_order() {
        let mut calendar = Calendar::default();
        assert_eq!(calendar.serve(Time(10), Time(5)), Time(10));
        assert_eq!(calendar.serve(Time(12), Time(5)), Time(15));
        assert_eq!(calendar.serve(Time(40), Time(1)), Time(40));
        assert_eq!(calendar.busy(), Time(11));
    }

    #[test]
    fn units_come_back_at_their_release() {
        let mut store = Store::new(2);
        assert_eq!(store.take(Time(0), 1), Ok(()));
        assert_eq!(store.take(Time(0), 1), Ok(()));
        assert_eq!(store.take(Time(0), 1), Err(Full::Unknown));
        store.release(Time(100), 1);
        store.release(Time(90), 1);
        assert_eq!(store.take(Time(10), 2), Err(Full::Until(Time(100))));
        assert_eq!(store.take(Time(100), 2), Ok(()));
    }
}
