//! The AES-GCM lanes and the reorder buffer behind them.
//!
//! Each lane takes one 16-byte block a cycle. A packet goes whole to the lane that is free first, so one SA
//! spreads over all lanes; packets carry tickets in the order of the serial stage before, and leave in that
//! order. A packet takes a lane for the larger of its AES blocks (text and E(K, J0)) and its GHASH blocks (AAD,
//! text, lengths); a key that is fresh costs one more AES block, for H.

use crate::Ticks;
use cryptonic_wire::Geometry;

use crate::calendar::Calendar;
use crate::parameters::Parameters;

const BLOCK_BYTES: u64 = 16;

/// The lanes of one direction.
pub struct Lanes {
    lanes: Vec<Calendar>,
    cycle: Ticks,
    latency: Ticks,
    /// When the packet with the last ticket left the reorder buffer.
    last_left: Ticks,
}

impl Lanes {
    /// Idle lanes.
    pub fn new(parameters: &Parameters) -> Self {
        let cycle = parameters.cycle();
        Lanes {
            lanes: vec![Calendar::default(); parameters.crypto.lanes as usize],
            cycle,
            latency: cycle.times(parameters.crypto.lane_latency_cycles),
            last_left: Ticks::ZERO,
        }
    }

    /// The next ticket is a packet that is ready for a lane at `ready` and takes it for so many [`blocks`]. Gives when it
    /// leaves the reorder buffer.
    #[inline]
    pub fn pass(&mut self, ready: Ticks, blocks: u64) -> Ticks {
        let span = self.cycle.times(blocks);
        // The first of the lanes that are free soonest, so that the choice is the same in every run.
        let chosen = self.lanes.iter_mut().min_by_key(|lane| lane.free_at());
        let start = chosen.map_or(ready, |lane| lane.serve(ready, span));
        self.leave(start + span + self.latency)
    }

    /// The next ticket is a packet that takes no lane.
    #[inline]
    pub fn bypass(&mut self, ready: Ticks) -> Ticks {
        self.leave(ready)
    }

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        self.lanes.iter_mut().for_each(|lane| lane.begin_anew(by));
        self.last_left = self.last_left.earlier_by(by);
    }

    /// Time in use, averaged over the lanes.
    pub fn busy(&self) -> Ticks {
        let ticks: u64 = self.lanes.iter().map(|lane| lane.busy().0).sum();
        Ticks(ticks / self.lanes.len() as u64)
    }

    #[inline]
    fn leave(&mut self, done: Ticks) -> Ticks {
        self.last_left = self.last_left.max(done);
        self.last_left
    }
}

/// Cycles that a packet takes a lane.
#[inline]
pub fn blocks(geometry: &Geometry, fresh_key: bool) -> u64 {
    let aad_bytes = geometry.aad.length() as u64;
    let text = (geometry.text.length() as u64).div_ceil(BLOCK_BYTES);
    let aes = text + 1 + u64::from(fresh_key);
    let ghash = aad_bytes.div_ceil(BLOCK_BYTES) + text + 1;
    aes.max(ghash)
}

/// The cache of SA contexts: round keys, H powers, templates. It holds read-only material alone, so losing an
/// entry costs time and nothing else. Random replacement, with a generator of its own.
pub struct ContextCache {
    /// For each place the SA slot it holds.
    places: Vec<u32>,
    /// For each SA slot when its context is at hand, if it is cached or on its way.
    cached: Vec<Option<Ticks>>,
    miss: Ticks,
    random: u64,
    misses: u64,
}

const NO_SLOT: u32 = u32::MAX;

impl ContextCache {
    /// An empty cache.
    pub fn new(parameters: &Parameters) -> Self {
        let slots = parameters.capacity.sa_slots as usize;
        let entries = match parameters.crypto.context_cache_entries as usize {
            0 => slots,
            entries => entries.min(slots),
        };
        ContextCache {
            places: vec![NO_SLOT; entries],
            cached: vec![None; slots],
            miss: Ticks::from_nanoseconds(parameters.crypto.context_miss_ns),
            random: 0x9e37_79b9_7f4a_7c15,
            misses: 0,
        }
    }

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        self.cached.iter_mut().flatten().for_each(|at_hand| *at_hand = at_hand.earlier_by(by));
    }

    /// When the context of `slot`, asked for at `now`, is at hand.
    #[inline]
    pub fn fetch(&mut self, now: Ticks, slot: u32) -> Ticks {
        let Some(cached) = self.cached.get_mut(slot as usize) else { return now };
        if let Some(at_hand) = *cached {
            return now.max(at_hand);
        }
        let at_hand = now + self.miss;
        *cached = Some(at_hand);
        self.misses += 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let place = (self.random % self.places.len() as u64) as usize;
        let evicted = std::mem::replace(&mut self.places[place], slot);
        if evicted != slot
            && let Some(cached) = self.cached.get_mut(evicted as usize)
        {
            *cached = None;
        }
        at_hand
    }

    /// Forgets a slot: its context is wiped.
    pub fn forget(&mut self, slot: u32) {
        if let Some(cached) = self.cached.get_mut(slot as usize) {
            *cached = None;
        }
        self.places.iter_mut().filter(|place| **place == slot).for_each(|place| *place = NO_SLOT);
    }

    /// Contexts that had to be fetched.
    pub fn misses(&self) -> u64 {
        self.misses
    }
}

#[cfg(test)]
mod tests {
    use cryptonic_wire::{Aad, Span};

    use super::*;

    fn geometry(text: usize) -> Geometry {
        Geometry {
            nonce: [0; 12],
            aad: Aad::InPlace { start: 0, end: 8 },
            text: Span::new(16, 16 + text),
            icv: Span::new(16 + text, 32 + text),
        }
    }

    /// Lanes needed at 322.265625 MHz (a block a cycle each) for ESP transport over IPv4 at 100 Gb/s, by
    /// frame size with FCS, of which 70 bytes are not text: blocks times packet rate.
    #[test]
    fn lane_demand_is_that_of_the_arithmetic() {
        for (frame, text, expected) in [(74, 4, 1.24), (128, 58, 1.57), (512, 442, 2.19), (1518, 1448, 2.35)]
        {
            let packets_per_second = 100e9 / (8.0 * (f64::from(frame) + 20.0));
            let demand = blocks(&geometry(text), false) as f64 * packets_per_second / 322.265_625e6;
            assert!((demand - expected).abs() < 0.006, "{frame}: {demand}");
        }
    }

    /// AES-GMAC has no text: a lane takes its AAD and the lengths, and one AES block for E(K, J0), one for H.
    #[test]
    fn gmac_takes_its_aad_alone() {
        let gmac = |aad| Geometry { aad: Aad::InPlace { start: 0, end: aad }, ..geometry(0) };
        for (aad, fresh_key, expected) in
            [(0, false, 1), (0, true, 2), (16, true, 2), (17, false, 3), (1_448, false, 92)]
        {
            assert_eq!(blocks(&gmac(aad), fresh_key), expected, "{aad} bytes, fresh {fresh_key}");
        }
        // Four bytes more of AAD that stand nowhere: the high half of the sequence number (RFC 4543 3.3).
        let high = Aad::InPlaceWithSequenceHigh { start: 4, end: 18, sequence_high: 7 };
        assert_eq!(blocks(&Geometry { aad: high, ..geometry(0) }, false), 3);
    }

    #[test]
    fn packets_leave_in_the_order_of_their_tickets() {
        let mut lanes = Lanes::new(&Parameters::default());
        let long = lanes.pass(Ticks::ZERO, blocks(&geometry(9_000), false));
        let short = lanes.pass(Ticks::ZERO, blocks(&geometry(16), false));
        assert_eq!(long, short);
    }

    #[test]
    fn the_cache_keeps_what_fits() {
        let mut parameters = Parameters::default();
        parameters.crypto.context_cache_entries = 4;
        let mut cache = ContextCache::new(&parameters);
        for slot in 0..100 {
            cache.fetch(Ticks::ZERO, slot);
        }
        assert_eq!(cache.misses(), 100);
        assert!(cache.cached.iter().flatten().count() <= 4);
        let at_hand = Ticks::ZERO + cache.miss;
        assert_eq!(cache.fetch(Ticks(5), 99), at_hand, "it is still on its way");
        assert_eq!(cache.fetch(at_hand + Ticks(5), 99), at_hand + Ticks(5));
        cache.forget(99);
        assert_ne!(cache.fetch(Ticks(5), 99), Ticks(5));
    }
}
