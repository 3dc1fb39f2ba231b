//! A cable that loses, doubles and reorders frames: a network of several paths, seen from its two ends.
//!
//! When a frame arrives is decided as it goes onto the line, from what went before it, so that every arrival is an
//! event with a time like any other. Frames that arrive at one time do so in the order in which they were sent.

use std::collections::VecDeque;

use cryptonic_pci::Time;

use crate::Ticks;

use crate::mac::{FCS_BYTES, GAP_BYTES, PREAMBLE_BYTES};

/// What a cable does to the frames that one NIC sends. The default does nothing to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CableParameters {
    /// No frame is overtaken by one that was sent more than so many frames after it. Without paths each frame is held
    /// at random for up to twice the time that so many of its length take on the line.
    pub reorder_depth: Option<u32>,
    /// Delay of each path on top of the cable's; each frame takes one of them at random.
    pub path_delays: Vec<Time>,
    /// Share of the frames that do not arrive, 0 to 1.
    pub loss: f64,
    /// Share of the others that arrive twice, 0 to 1.
    pub duplicate: f64,
}

impl CableParameters {
    /// Whether frames arrive as on a plain cable.
    pub fn is_plain(&self) -> bool {
        *self == CableParameters::default()
    }
}

/// What a cable did to the frames of one NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CableCounters {
    /// Frames that did not arrive.
    pub lost: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// The furthest that a frame was sent before one that overtook it, in frames. A replay window of one more keeps them
    /// all.
    pub deepest: u64,
}

/// When a frame arrives, and when its copy does.
pub(crate) struct Arrivals {
    pub(crate) frame: Option<Ticks>,
    pub(crate) copy: Option<Ticks>,
}

/// The state of one direction of such a cable.
pub(crate) struct Disorder {
    parameters: CableParameters,
    random: Random,
    /// Time of a byte on the line.
    byte_time: Ticks,
    /// For each of the frames sent last: the latest arrival of it and of all before it. The first that nothing can
    /// overtake any more are left out.
    latest: VecDeque<Ticks>,
    counters: CableCounters,
}

impl Disorder {
    pub(crate) fn new(parameters: &CableParameters, byte_time: Ticks, seed: u64) -> Disorder {
        Disorder {
            parameters: parameters.clone(),
            random: Random(seed),
            byte_time,
            latest: VecDeque::new(),
            counters: CableCounters::default(),
        }
    }

    pub(crate) fn counters(&self) -> CableCounters {
        self.counters
    }

    /// Times begin anew, `by` later.
    pub(crate) fn begin_anew(&mut self, by: Ticks) {
        self.latest.iter_mut().for_each(|latest| *latest = latest.earlier_by(by));
    }

    /// A frame of `bytes` goes onto the line that would arrive at `plain` on a plain cable. Times ascend.
    pub(crate) fn pass(&mut self, plain: Ticks, bytes: u64) -> Arrivals {
        // Later frames arrive at `plain` or after it.
        while self.latest.front().is_some_and(|latest| *latest <= plain) {
            self.latest.pop_front();
        }
        let mut arrivals = Arrivals { frame: None, copy: None };
        if self.random.chance(self.parameters.loss) {
            self.counters.lost += 1;
        } else {
            arrivals.frame = Some(self.arrival(plain, bytes));
            if self.random.chance(self.parameters.duplicate) {
                self.counters.duplicated += 1;
                arrivals.copy = Some(self.arrival(plain, bytes));
            }
        }
        let before = self.latest.back().copied().unwrap_or(plain);
        let own = arrivals.frame.max(arrivals.copy).unwrap_or(plain);
        self.latest.push_back(before.max(own));
        arrivals
    }

    /// When a frame arrives, or its copy.
    fn arrival(&mut self, plain: Ticks, bytes: u64) -> Ticks {
        let held = match (&*self.parameters.path_delays, self.parameters.reorder_depth) {
            ([], None) => Ticks::ZERO,
            ([], Some(depth)) => {
                let on_line = self.byte_time.times(PREAMBLE_BYTES + bytes + FCS_BYTES + GAP_BYTES);
                Ticks(self.random.below(2 * u64::from(depth) * on_line.0 + 1))
            }
            (delays, _) => {
                let path = self.random.below(delays.len() as u64) as usize;
                delays.get(path).map_or(Ticks::ZERO, |delay| (*delay).into())
            }
        };
        let mut arrival = plain + held;
        // A frame sent more than the depth before this one comes first, or at the same time.
        let bound = self
            .parameters
            .reorder_depth
            .and_then(|depth| self.latest.len().checked_sub(depth as usize + 1))
            .and_then(|place| self.latest.get(place));
        arrival = arrival.max(bound.copied().unwrap_or(arrival));
        let overtaken = self.latest.partition_point(|latest| *latest <= arrival);
        self.counters.deepest = self.counters.deepest.max((self.latest.len() - overtaken) as u64);
        arrival
    }
}

/// A random number generator that is the same everywhere and for ever (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True in a `share` of the cases: never for 0, always for 1.
    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && ((self.next() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 64;
    const BYTE_TIME: Ticks = Ticks::from_picoseconds(80);

    /// Sends frames back to back, and gives their numbers in order of arrival.
    fn order(parameters: &CableParameters, frames: u64, seed: u64) -> (Vec<u64>, CableCounters) {
        let mut disorder = Disorder::new(parameters, BYTE_TIME, seed);
        let mut arrivals = Vec::new();
        for number in 0..frames {
            let plain = BYTE_TIME.times(88 * number);
            let Arrivals { frame, copy } = disorder.pass(plain, BYTES);
            assert!(frame.is_none_or(|time| time >= plain), "a frame arrives before it was sent");
            arrivals.extend(frame.into_iter().chain(copy).map(|time| (time, number)));
        }
        // A stable sort: what arrives at one time does so in the order of sending.
        arrivals.sort_by_key(|(time, _)| *time);
        (arrivals.into_iter().map(|(_, number)| number).collect(), disorder.counters())
    }

    /// How far each frame was behind the furthest that had arrived, at most.
    fn deepest(order: &[u64]) -> u64 {
        let mut top = 0;
        let behind = order.iter().map(|number| {
            top = top.max(*number);
            top - number
        });
        behind.max().unwrap_or(0)
    }

    #[test]
    fn no_frame_is_further_behind_than_the_depth_and_some_are_just_as_far() {
        for depth in [0, 1, 2, 31, 32, 64, 1000] {
            for seed in 0..8 {
                for (loss, duplicate) in [(0.0, 0.0), (0.0, 0.1), (0.1, 0.0)] {
                    let parameters =
                        CableParameters { reorder_depth: Some(depth), path_delays: vec![], loss, duplicate };
                    let (order, counters) = order(&parameters, 20_000, seed);
                    assert_eq!(deepest(&order), depth.into(), "seed {seed}");
                    assert_eq!(counters.deepest, depth.into());
                    assert_eq!(order.len() as u64 + counters.lost, 20_000 + counters.duplicated);
                }
            }
        }
    }

    #[test]
    fn a_path_keeps_its_order_and_paths_differ_by_their_delays() {
        let delays = [0, 500, 1_500].map(Time::from_nanoseconds);
        let parameters = CableParameters { path_delays: delays.to_vec(), ..CableParameters::default() };
        let (found, counters) = order(&parameters, 20_000, 3);
        // A frame takes 7.04 ns on the line: 213 of them pass one that is 1.5 us late.
        assert_eq!((deepest(&found), counters.deepest), (213, 213));
        let capped = CableParameters { reorder_depth: Some(40), ..parameters };
        let (found, counters) = order(&capped, 20_000, 3);
        assert_eq!((deepest(&found), counters.deepest), (40, 40));
    }

    #[test]
    fn frames_are_lost_and_doubled_as_often_as_asked() {
        for (loss, duplicate) in [(0.0, 0.0), (0.1, 0.02), (0.0, 1.0), (1.0, 1.0)] {
            let parameters = CableParameters { loss, duplicate, ..CableParameters::default() };
            let (order, counters) = order(&parameters, 100_000, 5);
            let arrived = 100_000 - counters.lost;
            assert_eq!(order.len() as u64, arrived + counters.duplicated);
            assert_eq!(counters.deepest, 0);
            let near = |count: u64, of: u64, share: f64| (count as f64 - of as f64 * share).abs() < 500.0;
            assert!(near(counters.lost, 100_000, loss) && near(counters.duplicated, arrived, duplicate));
        }
    }

    #[test]
    fn a_seed_is_an_order() {
        let parameters =
            CableParameters { reorder_depth: Some(64), loss: 0.01, ..CableParameters::default() };
        assert_eq!(order(&parameters, 1_000, 1), order(&parameters, 1_000, 1));
        assert_ne!(order(&parameters, 1_000, 1), order(&parameters, 1_000, 2));
    }
}
