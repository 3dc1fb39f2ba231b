//! The cache of derived PSP keys: what the derivation unit made for an SPI, with round keys and H, kept for the next packet
//! with the same SPI and version.
//!
//! Four ways a set, chosen by the low bits of the SPI (SPIs are given out one after another, so these spread evenly), and in
//! a set the way goes that was used least recently: four comparators and six bits of state a set. A lookup takes a
//! cycle. A key that is still being made is found too, and waited for.
//!
//! An entry is made when a packet comes, before anyone knows whether its ICV is right: who sends SPIs at random can empty
//! the cache of others, and gains nothing by it but time that the NIC without a cache takes for every packet. Device
//! keys that change empty it at once; it holds nothing that the unit could not make again.
//!
//! The model keeps which keys the hardware would hold, and no key. (What [`crate::key_schedules`] keeps is the model's
//! own, has nothing to do with this, and changes no time.)

use crate::Ticks;
use cryptonic_wire::psp::Version;

/// Ways of a set.
pub const WAYS: usize = 4;
/// Bytes that the hardware keeps of a key: 15 round keys, H, and what it is found by.
pub const ENTRY_BYTES: u64 = 15 * 16 + 16 + 8;

/// The cache.
pub struct DerivedKeyCache {
    /// In each set the way that was used last comes first.
    sets: Vec<[Option<Entry>; WAYS]>,
    hits: u64,
    misses: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    spi: u32,
    version: Version,
    at_hand: Ticks,
}

impl DerivedKeyCache {
    /// An empty cache of so many entries: a power of two and at least [`WAYS`].
    pub fn new(entries: u64) -> Self {
        DerivedKeyCache { sets: vec![[None; WAYS]; entries as usize / WAYS], hits: 0, misses: 0 }
    }

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        for entry in self.sets.iter_mut().flatten().flatten() {
            entry.at_hand = entry.at_hand.earlier_by(by);
        }
    }

    /// When the key of an SPI is or was at hand; `None` if it has to be derived.
    #[inline]
    pub fn look_up(&mut self, spi: u32, version: Version) -> Option<Ticks> {
        let found = self.set(spi).and_then(|set| {
            let way = set
                .iter()
                .position(|entry| entry.is_some_and(|entry| entry.spi == spi && entry.version == version))?;
            set[..=way].rotate_right(1);
            set[0].map(|entry| entry.at_hand)
        });
        match found {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        found
    }

    /// A key that was not found is at hand at `at_hand`.
    #[inline]
    pub fn keep(&mut self, spi: u32, version: Version, at_hand: Ticks) {
        if let Some(set) = self.set(spi) {
            set.rotate_right(1);
            set[0] = Some(Entry { spi, version, at_hand });
        }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.sets.fill([None; WAYS]);
    }

    /// Packets whose key was found, and packets whose key was not.
    pub fn lookups(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// Entries in use.
    pub fn entries(&self) -> u64 {
        self.sets.iter().flatten().flatten().count() as u64
    }

    fn set(&mut self, spi: u32) -> Option<&mut [Option<Entry>; WAYS]> {
        let mask = self.sets.len().wrapping_sub(1);
        self.sets.get_mut(spi as usize & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version::AesGcm128;

    fn found(cache: &mut DerivedKeyCache, spi: u32) -> bool {
        let found = cache.look_up(spi, VERSION).is_some();
        if !found {
            cache.keep(spi, VERSION, Ticks::ZERO);
        }
        found
    }

    #[test]
    fn the_way_goes_that_was_used_least_recently() {
        // Two sets: even SPIs share one, odd ones the other.
        let mut cache = DerivedKeyCache::new(8);
        for (spi, expected) in [
            (2, false),
            (4, false),
            (6, false),
            (8, false),
            (2, true),
            (10, false),
            (4, false),
            (2, true),
            (6, false),
            (1, false),
            (1, true),
            (2, true),
        ] {
            assert_eq!(found(&mut cache, spi), expected, "{spi}");
        }
        assert_eq!((cache.lookups(), cache.entries()), ((4, 8), 5));
        cache.clear();
        assert_eq!((cache.entries(), found(&mut cache, 2)), (0, false));
    }

    #[test]
    fn an_spi_has_a_key_for_each_version_and_for_each_device_key() {
        let mut cache = DerivedKeyCache::new(4);
        cache.keep(7, VERSION, Ticks(5));
        assert_eq!(cache.look_up(7, VERSION), Some(Ticks(5)));
        assert_eq!(cache.look_up(7, Version::AesGcm256), None);
        assert_eq!(cache.look_up(0x8000_0007, VERSION), None);
    }
}
