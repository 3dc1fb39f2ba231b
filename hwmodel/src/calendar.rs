//! The two building blocks of closed-form timing: a resource that serves one thing at a time, and a store
//! with a bounded number of places whose releases are known ahead.

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
        self.free_at = start + span;
        self.busy += span;
        start
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
        self.free_at = self.free_at.max(now) + span;
        self.busy += span;
    }
}

/// A store of `capacity` units. Each taking names the time of its release, which is known when it is taken,
/// and releases come in order.
#[derive(Clone, Debug)]
pub struct Credits {
    free: u64,
    releases: VecDeque<(Time, u64)>,
}

impl Credits {
    /// A store with all its `capacity` free.
    pub fn new(capacity: u64) -> Self {
        Credits { free: capacity, releases: VecDeque::new() }
    }

    /// The earliest time, not before `ready`, at which `units` are free; takes nothing. `units` is at most
    /// the capacity.
    #[inline]
    pub fn earliest(&mut self, ready: Time, units: u64) -> Time {
        let mut earliest = ready;
        while let Some((at, released)) = self.releases.front().copied() {
            if at > earliest && self.free >= units {
                break;
            }
            earliest = earliest.max(at);
            self.free += released;
            self.releases.pop_front();
        }
        earliest
    }

    /// Takes `units`, which [`Self::earliest`] found free, until `release`.
    #[inline]
    pub fn take(&mut self, units: u64, release: Time) {
        self.free = self.free.saturating_sub(units);
        let release = self.releases.back().map_or(release, |(last, _)| release.max(*last));
        self.releases.push_back((release, units));
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
    fn credits_come_back_at_their_release() {
        let mut credits = Credits::new(2);
        for (ready, release, expected) in [(0, 100, 0), (0, 150, 0), (10, 200, 100), (120, 210, 150), (500, 501, 500)] {
            assert_eq!(credits.earliest(Time(ready), 1), Time(expected));
            credits.take(1, Time(release));
        }
    }
}
