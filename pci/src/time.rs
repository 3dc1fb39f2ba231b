//! Time as an integer that is exact for picoseconds and for clocks of 322.265625 MHz.
//!
//! One tick is 1/33 ps: a period of 322.265625 MHz is 102 400/33 ps = 102 400 ticks. 64 bits of ticks would last
//! 6.4 days, and drivers run longer.

use core::ops::{Add, AddAssign, Sub};

/// Ticks in a picosecond.
pub const TICKS_PER_PICOSECOND: u64 = 33;

/// A point in time, or a span of it, in ticks of 1/33 ps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u128);

impl Time {
    /// The beginning.
    pub const ZERO: Time = Time(0);
    /// Later than anything that happens.
    pub const NEVER: Time = Time(u128::MAX);

    /// A span of whole picoseconds.
    pub const fn from_picoseconds(picoseconds: u64) -> Time {
        Time(picoseconds as u128 * TICKS_PER_PICOSECOND as u128)
    }

    /// A span of whole nanoseconds.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Time {
        Time::from_picoseconds(nanoseconds * 1_000)
    }

    /// A span of whole microseconds.
    pub const fn from_microseconds(microseconds: u64) -> Time {
        Time::from_nanoseconds(microseconds * 1_000)
    }

    /// A span of whole milliseconds.
    pub const fn from_milliseconds(milliseconds: u64) -> Time {
        Time::from_microseconds(milliseconds * 1_000)
    }

    /// In picoseconds, rounded down. 64 bits of them last 213 days.
    pub const fn picoseconds(self) -> u64 {
        (self.0 / TICKS_PER_PICOSECOND as u128) as u64
    }

    /// In nanoseconds.
    pub fn nanoseconds(self) -> f64 {
        self.0 as f64 / (TICKS_PER_PICOSECOND * 1_000) as f64
    }

    /// In seconds.
    pub fn seconds(self) -> f64 {
        self.nanoseconds() / 1e9
    }

    /// The span from `earlier` to here, or zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> Time {
        Time(self.0.saturating_sub(earlier.0))
    }

    /// This span `count` times.
    pub const fn times(self, count: u64) -> Time {
        Time(self.0 * count as u128)
    }
}

impl Add for Time {
    type Output = Time;
    #[inline]
    fn add(self, span: Time) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl AddAssign for Time {
    #[inline]
    fn add_assign(&mut self, span: Time) {
        *self = *self + span;
    }
}

impl Sub for Time {
    type Output = Time;
    #[inline]
    fn sub(self, other: Time) -> Time {
        self.since(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_of_322_265625_mhz_is_whole() {
        let periods_in_64_microseconds = 20_625;
        assert_eq!(Time(102_400).times(periods_in_64_microseconds), Time::from_microseconds(64));
    }
}
