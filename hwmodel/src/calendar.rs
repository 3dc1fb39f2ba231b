//! The two building blocks of closed-form timing: a resource that serves one thing at a time, and a store
//! with a bounded number of units.

use std::collections::VecDeque;

use crate::Ticks;

/// A resource that serves in order, one at a time: a bus, a lane, a link direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calendar {
    free_at: Ticks,
    busy: Ticks,
}

impl Calendar {
    /// Serves from `ready` on, or from when the resource is free, for `span`. Gives the start.
    #[inline]
    pub fn serve(&mut self, ready: Ticks, span: Ticks) -> Ticks {
        let start = ready.max(self.free_at);
        self.take(start, span);
        start
    }

    /// Serves something asked for at `now` that is ready at `ready` or later, without keeping the resource from
    /// others until then. Gives the start. Callers that could start together see to their own order.
    #[inline]
    pub fn serve_later(&mut self, now: Ticks, ready: Ticks, span: Ticks) -> Ticks {
        ready.max(self.serve(now, span))
    }

    /// When it is free next.
    pub fn free_at(&self) -> Ticks {
        self.free_at
    }

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        self.free_at = self.free_at.earlier_by(by);
    }

    /// How long it served in all.
    pub fn busy(&self) -> Ticks {
        self.busy
    }

    /// Takes `span` out of the resource's future without waiting for it: posted writes pass read completions
    /// (PCIe 4.0 2.4.1), yet use the same link.
    #[inline]
    pub fn steal(&mut self, now: Ticks, span: Ticks) {
        self.take(self.free_at.max(now), span);
    }

    /// Is in use from `start` on. Nothing happens at 2^60 ticks or later (`events::Moment`), so that sums of times stay below
    /// 2^64: they need not saturate, as elsewhere, where a span may be `Ticks::NEVER`.
    #[inline]
    fn take(&mut self, start: Ticks, span: Ticks) {
        self.free_at = Ticks(start.0.wrapping_add(span.0));
        self.busy = Ticks(self.busy.0.wrapping_add(span.0));
    }
}

/// A store of a number of units, such as bytes of a buffer. Units are taken now and given back at a time that
/// becomes known later; times of release come in order.
#[derive(Clone, Debug)]
pub struct Store {
    free: u64,
    releases: VecDeque<(Ticks, u64)>,
}

/// Why units cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// They are free at this time.
    Until(Ticks),
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
    pub fn take(&mut self, now: Ticks, units: u64) -> Result<(), Full> {
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

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        self.releases.iter_mut().for_each(|(at, _)| *at = at.earlier_by(by));
    }

    /// Gives `units` back at `at`.
    #[inline]
    pub fn release(&mut self, at: Ticks, units: u64) {
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
        assert_eq!(calendar.serve(Ticks(10), Ticks(5)), Ticks(10));
        assert_eq!(calendar.serve(Ticks(12), Ticks(5)), Ticks(15));
        assert_eq!(calendar.serve(Ticks(40), Ticks(1)), Ticks(40));
        assert_eq!(calendar.busy(), Ticks(11));
    }

    #[test]
    fn units_come_back_at_their_release() {
        let mut store = Store::new(2);
        assert_eq!(store.take(Ticks(0), 1), Ok(()));
        assert_eq!(store.take(Ticks(0), 1), Ok(()));
        assert_eq!(store.take(Ticks(0), 1), Err(Full::Unknown));
        store.release(Ticks(100), 1);
        store.release(Ticks(90), 1);
        assert_eq!(store.take(Ticks(10), 2), Err(Full::Until(Ticks(100))));
        assert_eq!(store.take(Ticks(100), 2), Ok(()));
    }
}
