//! Who holds the slots of both tables, integrated over time.

use super::parameters::Parameters;

/// What an SA pair is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its exchange is under way.
    SettingUp,
    /// It carries the tunnel's traffic.
    InUse,
    /// Its successor is up at both ends.
    Old,
    /// Both peers made a successor, and this is the one too many.
    Redundant,
}

const STATES: usize = 4;
/// Points of the curve of occupancy over time.
pub(super) const POINTS: usize = 480;

/// The slots of both peers.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    now: u64,
    slots: u64,
    held: [[u64; STATES]; 2],
    /// Slots times nanoseconds since measuring began, both peers together.
    integrals: [u128; STATES],
    peak: u64,
    /// Slots times nanoseconds of each point, both peers together, from the beginning of the run.
    curve: Vec<u128>,
    point_ns: u64,
}

impl Accounts {
    pub(super) fn new(parameters: &Parameters) -> Accounts {
        Accounts {
            now: 0,
            slots: parameters.slots.into(),
            held: [[0; STATES]; 2],
            integrals: [0; STATES],
            peak: 0,
            curve: vec![0; POINTS],
            point_ns: parameters.end_ns.div_ceil(POINTS as u64).max(1),
        }
    }

    /// Time passes.
    pub(super) fn advance(&mut self, now: u64) {
        let span = u128::from(now - self.now);
        for (state, integral) in self.integrals.iter_mut().enumerate() {
            *integral += span * u128::from(self.held[0][state] + self.held[1][state]);
        }
        let both = u128::from(self.occupied(0) + self.occupied(1));
        while self.now < now {
            let point = self.now / self.point_ns;
            let until = now.min((point + 1) * self.point_ns);
            if let Some(sum) = self.curve.get_mut(point as usize) {
                *sum += both * u128::from(until - self.now);
            }
            self.now = until;
        }
    }

    /// What was measured so far does not count.
    pub(super) fn begin(&mut self) {
        self.integrals = [0; STATES];
        self.peak = self.occupied(0).max(self.occupied(1));
    }

    pub(super) fn free(&self, peer: usize) -> u64 {
        self.slots.saturating_sub(self.occupied(peer))
    }

    fn occupied(&self, peer: usize) -> u64 {
        self.held[peer].iter().sum()
    }

    pub(super) fn take(&mut self, peer: usize, state: State, slots: u64) {
        self.held[peer][state as usize] += slots;
        self.peak = self.peak.max(self.occupied(peer));
    }

    pub(super) fn release(&mut self, peer: usize, state: State, slots: u64) {
        self.held[peer][state as usize] -= slots;
    }

    /// The most slots that one table held at once.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// Slots times seconds, both peers together.
    pub(super) fn slot_seconds(&self, state: State) -> f64 {
        self.integrals[state as usize] as f64 / 1e9
    }

    /// Slots occupied in one table over time: the mean of both tables in each interval, with the interval's middle in seconds.
    pub(super) fn curve(&self, end_ns: u64) -> Vec<(f64, f64)> {
        let middle = |point: usize| (point as f64 + 0.5) * self.point_ns as f64 / 1e9;
        let whole = |point: usize| (point as u64 + 1) * self.point_ns <= end_ns;
        self.curve
            .iter()
            .enumerate()
            .filter(|(point, _)| whole(*point))
            .map(|(point, sum)| (middle(point), *sum as f64 / self.point_ns as f64 / 2.0))
            .collect()
    }
}
