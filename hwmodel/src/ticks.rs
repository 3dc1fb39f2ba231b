//! Time inside the model: as [`Time`], in half as many bits, since these numbers are added and compared a few hundred times a
//! packet. 64 bits of ticks last 6.4 days; a world that runs longer begins to count anew when it is idle (`World`).

use std::ops::{Add, AddAssign, Sub};

use cryptonic_pci::Time;
use cryptonic_pci::time::TICKS_PER_PICOSECOND;

/// A point in time, or a span of it, in ticks of 1/33 ps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub u64);

impl Ticks {
    /// The beginning.
    pub const ZERO: Ticks = Ticks(0);
    /// Later than anything that happens.
    pub const NEVER: Ticks = Ticks(u64::MAX);

    /// A span of whole picoseconds.
    pub const fn from_picoseconds(picoseconds: u64) -> Ticks {
        Ticks(picoseconds * TICKS_PER_PICOSECOND)
    }

    /// A span of whole nanoseconds.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Ticks {
        Ticks::from_picoseconds(nanoseconds * 1_000)
    }

    /// A span of whole microseconds.
    pub const fn from_microseconds(microseconds: u64) -> Ticks {
        Ticks::from_nanoseconds(microseconds * 1_000)
    }

    /// A span of whole milliseconds.
    pub const fn from_milliseconds(milliseconds: u64) -> Ticks {
        Ticks::from_microseconds(milliseconds * 1_000)
    }

    /// In picoseconds, rounded down.
    pub const fn picoseconds(self) -> u64 {
        self.0 / TICKS_PER_PICOSECOND
    }

    /// The span from `earlier` to here, or zero if `earlier` is later.
    pub const fn since(self, earlier: Ticks) -> Ticks {
        Ticks(self.0.saturating_sub(earlier.0))
    }

    /// This time as seen from a point `by` later than before; what is behind that is there.
    pub(crate) fn earlier_by(self, by: Ticks) -> Ticks {
        if self == Ticks::NEVER { self } else { self.since(by) }
    }

    /// This span `count` times.
    pub const fn times(self, count: u64) -> Ticks {
        Ticks(self.0 * count)
    }
}

impl From<Ticks> for Time {
    /// A span. A point in time is one of the world's epoch besides.
    fn from(ticks: Ticks) -> Time {
        if ticks == Ticks::NEVER { Time::NEVER } else { Time(u128::from(ticks.0)) }
    }
}

impl From<Time> for Ticks {
    /// A span; one that is longer than 64 bits hold is for ever.
    fn from(span: Time) -> Ticks {
        u64::try_from(span.0).map_or(Ticks::NEVER, Ticks)
    }
}

impl Add for Ticks {
    type Output = Ticks;
    #[inline]
    fn add(self, span: Ticks) -> Ticks {
        Ticks(self.0.saturating_add(span.0))
    }
}

impl AddAssign for Ticks {
    #[inline]
    fn add_assign(&mut self, span: Ticks) {
        *self = *self + span;
    }
}

impl Sub for Ticks {
    type Output = Ticks;
    #[inline]
    fn sub(self, other: Ticks) -> Ticks {
        self.since(other)
    }
}
