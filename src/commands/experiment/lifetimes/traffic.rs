//! The traffic of a tunnel in one direction: bursts of one rate and one mean packet size, and silence between them.

use super::parameters::Parameters;
use super::policy::Unit;
use crate::workload::Random;

/// Mean packet size of a burst, in bytes; drawn anew for each, so that bytes and packets end at different times.
const PACKET_BYTES_MIN: usize = 128;
const PACKET_BYTES_MAX: usize = 1472;
/// The mean of the means.
pub(super) const PACKET_BYTES: u64 = (PACKET_BYTES_MIN + PACKET_BYTES_MAX) as u64 / 2;

/// One direction of one tunnel. The same for every policy: it draws from nothing but its own seed.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    random: Random,
    /// While a burst lasts.
    burst_bytes_per_second: u64,
    bytes_per_second: u64,
    packets_per_second: u64,
}

impl Traffic {
    /// Silent until the first toggle. `bytes_per_second` is the mean over bursts and silence.
    pub(super) fn new(parameters: &Parameters, bytes_per_second: u64, random: Random) -> Traffic {
        let (on, off) = (u128::from(parameters.on_ns), u128::from(parameters.off_ns));
        let burst = u128::from(bytes_per_second) * (on + off) / on;
        Traffic { random, burst_bytes_per_second: burst as u64, bytes_per_second: 0, packets_per_second: 0 }
    }

    /// What the counters rise by in a second.
    pub(super) fn rate(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Bytes => self.bytes_per_second,
            Unit::Packets => self.packets_per_second,
        }
    }

    /// How many nanoseconds it is silent at first: none as often as a burst would be met at a random time.
    pub(super) fn first_silence(&mut self, parameters: &Parameters) -> u64 {
        let (on, off) = (parameters.on_ns, parameters.off_ns);
        let in_burst = (self.random.below((on + off) as usize) as u64) < on;
        if in_burst { 0 } else { self.random.below(2 * off as usize) as u64 }
    }

    /// Ends the burst or the silence, and tells how many nanoseconds what follows will last: uniform from 0 to twice
    /// its mean. None if it lasts for ever.
    pub(super) fn toggle(&mut self, parameters: &Parameters) -> Option<u64> {
        let was_silent = self.bytes_per_second == 0;
        if was_silent {
            let sizes = PACKET_BYTES_MAX - PACKET_BYTES_MIN + 1;
            let packet_bytes = (PACKET_BYTES_MIN + self.random.below(sizes)) as u64;
            self.bytes_per_second = self.burst_bytes_per_second;
            self.packets_per_second = self.burst_bytes_per_second.div_ceil(packet_bytes);
        } else {
            (self.bytes_per_second, self.packets_per_second) = (0, 0);
        }
        if parameters.off_ns == 0 || self.burst_bytes_per_second == 0 {
            return None;
        }
        let mean = if was_silent { parameters.on_ns } else { parameters.off_ns };
        Some(1 + self.random.below(2 * mean as usize) as u64)
    }
}

/// Mean bytes per second of each tunnel, both directions: ranks share the rate as 1 / rank^skew, one direction of each tunnel
/// has this rate, and the other is slower by the asymmetry.
pub(super) fn mean_rates(parameters: &Parameters, random: &mut Random) -> Vec<[u64; 2]> {
    let weight = |rank: u32| f64::from(rank).powf(-parameters.skew);
    let all: f64 = (1..=parameters.tunnels).map(weight).sum();
    (1..=parameters.tunnels)
        .map(|rank| {
            let heavy = parameters.bytes_per_second as f64 * weight(rank) / all;
            let light = heavy * (1.0 - parameters.asymmetry);
            let rates = [heavy.round() as u64, light.round() as u64];
            if random.below(2) == 0 { rates } else { [rates[1], rates[0]] }
        })
        .collect()
}
