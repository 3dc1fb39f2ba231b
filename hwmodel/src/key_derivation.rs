//! PSP device keys, the derivation of receive keys, SPI allocation, and the IV clock: hardware that firmware
//! only asks. No register and no firmware access shows a device key.
//!
//! The derivation unit is [`psp_kdf`], one block a cycle. The label of versions 2 and 3 is said
//! nowhere; it is taken to go on by the rule that versions 0 and 1 show.

use crate::Ticks;
use cryptonic_crypto::DeviceKey;
use cryptonic_regs::admin::{AllocatedSpi, PspAllocation, SecretWord};
use cryptonic_wire::psp::Version;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::calendar::Calendar;
use crate::derived_key_cache::{DerivedKeyCache, ENTRY_BYTES};
use crate::parameters::Parameters;
use crate::psp_kdf::{self, BlocksPerCycle};

/// SPIs left that are few, after reset.
const SPI_LOW_WATER: u32 = 1 << 24;
/// The last epoch: what is left to the clock behind it are 106 days.
const EPOCH_MAX: u64 = 1 << 63;

/// The key hardware.
pub struct KeyDerivation {
    keys: [Option<DeviceKey>; 2],
    /// The SPIs that a key has: from 1 on, the key's number in the most significant bit.
    spis_per_key: u32,
    /// SPIs of each key that were given out.
    allocated: [u32; 2],
    active: usize,
    generation: u16,
    /// Device time at which the active key was made.
    made_at_picoseconds: u64,
    /// SPIs left to the active key that are few.
    low_water: u32,
    /// That the active key has few SPIs left, and that it has too few, was told.
    told: (bool, bool),
    locked: bool,
    /// The noise source. In the model it is seeded, so that a run can be repeated.
    noise: ChaCha20Rng,
    /// The IV clock is this and device time; `None` since power-on until someone says.
    epoch: Option<u64>,
    epoch_refused: bool,
    last_iv: u64,
    /// Test only: the next IV, instead of the IV clock.
    test_iv: Option<u64>,
    unit: Calendar,
    cycle: Ticks,
    latency: Ticks,
    /// Keys that need not be derived again, if there is a cache.
    cache: Option<DerivedKeyCache>,
}

/// Why an allocation or a test command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Fewer SPIs are left than asked for, or there is no device key.
    NoSpiLeft,
    /// The test commands are locked.
    Locked,
    /// The IV was already used.
    BadArgument,
}

impl KeyDerivation {
    /// The hardware after power-on: no device key is valid.
    pub fn new(parameters: &Parameters, seed: u64) -> Self {
        let cycle = parameters.cycle();
        KeyDerivation {
            keys: [None, None],
            spis_per_key: parameters.crypto.psp_spis_per_key as u32,
            allocated: [0; 2],
            active: 1,
            generation: 0,
            made_at_picoseconds: 0,
            low_water: SPI_LOW_WATER,
            told: (false, false),
            locked: false,
            noise: ChaCha20Rng::seed_from_u64(seed),
            epoch: Some(parameters.crypto.psp_epoch_ps).filter(|epoch| *epoch != 0),
            epoch_refused: false,
            last_iv: 0,
            test_iv: None,
            unit: Calendar::default(),
            cycle,
            latency: cycle.times(parameters.crypto.derivation_latency_cycles),
            cache: Some(parameters.crypto.derived_key_cache_entries)
                .filter(|entries| *entries != 0)
                .map(DerivedKeyCache::new),
        }
    }

    /// The key of a received packet, 16 or 32 bytes; `None` if its device key is not valid.
    #[inline]
    pub fn receive_key(&self, version: Version, spi: u32, out: &mut [u8; 32]) -> Option<usize> {
        psp_kdf::derive(&self.keys, version, spi, out)
    }

    /// When the key of a packet that is received at `ready` is there with its round keys and H, and whether it was made for
    /// this packet. Bytes do not depend on it.
    #[inline]
    pub fn receive_time(&mut self, ready: Ticks, version: Version, spi: u32) -> (Ticks, bool) {
        let Some(cache) = &mut self.cache else { return (self.derive_time(ready, version), true) };
        let looked_up = ready + self.cycle;
        if let Some(at_hand) = cache.look_up(spi, version) {
            return (looked_up.max(at_hand), false);
        }
        let at_hand = self.derive_time(looked_up, version);
        if let Some(cache) = &mut self.cache {
            cache.keep(spi, version, at_hand);
        }
        (at_hand, true)
    }

    /// Packets whose key the cache had, and packets whose key it had not; none without a cache.
    pub fn cache_lookups(&self) -> (u64, u64) {
        self.cache.as_ref().map_or((0, 0), DerivedKeyCache::lookups)
    }

    /// Bytes that the hardware keeps so that packets can be received: both device keys with their valid bits, the two SPI
    /// counters, and what the cache of derived keys holds.
    pub fn receive_state_bytes(&self) -> u64 {
        const DEVICE_KEY_BYTES: u64 = 32;
        const COUNTER_BYTES: u64 = 4;
        let cached = self.cache.as_ref().map_or(0, DerivedKeyCache::entries) * ENTRY_BYTES;
        2 * (DEVICE_KEY_BYTES + 1 + COUNTER_BYTES) + cached
    }

    /// When a key asked for at `ready` is there with its round keys and H.
    #[inline]
    pub fn derive_time(&mut self, ready: Ticks, version: Version) -> Ticks {
        let blocks = BlocksPerCycle::One.entry_cycles(version);
        // The latency counts from the block that enters last.
        self.unit.serve(ready, self.cycle.times(blocks)) + self.cycle.times(blocks - 1) + self.latency
    }

    /// Whether IVs can be given: a clock that began anew with the power could give those again that a key has seen.
    #[inline]
    pub fn has_epoch(&self) -> bool {
        self.epoch.is_some() || self.test_iv.is_some()
    }

    /// The epoch, or 0.
    pub fn epoch(&self) -> u64 {
        self.epoch.unwrap_or(0)
    }

    /// Whether the last epoch was refused.
    pub fn epoch_refused(&self) -> bool {
        self.epoch_refused
    }

    /// Sets the epoch, unless that would turn the clock back or leave it no room.
    pub fn set_epoch(&mut self, epoch: u64) {
        let ahead = epoch != 0 && self.epoch.is_none_or(|before| epoch >= before) && epoch <= EPOCH_MAX;
        self.epoch_refused = !ahead;
        if ahead {
            self.epoch = Some(epoch);
        }
    }

    /// The IV of the next packet to be protected: epoch and device time in picoseconds, and more than the last one in
    /// any case; `None` when there is none left. It is used up by [`Self::use_iv`].
    #[inline]
    pub fn peek_iv(&self, now_picoseconds: u64) -> Option<u64> {
        let after_the_last = self.last_iv.checked_add(1)?;
        let clock = match self.test_iv {
            Some(iv) => iv,
            None => self.epoch?.checked_add(now_picoseconds)?,
        };
        Some(clock.max(after_the_last))
    }

    /// A packet takes the IV that [`Self::peek_iv`] showed.
    #[inline]
    pub fn use_iv(&mut self, iv: u64) {
        self.last_iv = iv;
        if self.test_iv.is_some() {
            self.test_iv = Some(iv.saturating_add(1));
        }
    }

    /// Gives out `count` SPIs of the active key with their keys.
    pub fn allocate(&mut self, version: Version, count: u32) -> Result<Vec<PspAllocation>, KeyError> {
        let active = self.active;
        let device_key = self.keys[active].as_ref().ok_or(KeyError::NoSpiLeft)?;
        if count > self.spis_per_key - self.allocated[active] {
            return Err(KeyError::NoSpiLeft);
        }
        let first = self.allocated[active] + 1;
        self.allocated[active] += count;
        let mut key = Zeroizing::new([0_u8; 32]);
        let records = (first..first + count).map(|low| {
            let spi = (active as u32) << 31 | low;
            let length = device_key.derive(version, spi, &mut key);
            let word = |index: usize| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&key[index * 8..index * 8 + 8]);
                SecretWord::new().with_secret(u64::from_le_bytes(bytes))
            };
            PspAllocation {
                spi: AllocatedSpi::new()
                    .with_spi(spi)
                    .with_key_bytes(length as u8)
                    .with_generation(self.generation),
                key_0: word(0),
                key_1: word(1),
                key_2: word(2),
                key_3: word(3),
            }
        });
        Ok(records.collect())
    }

    /// Puts a fresh key in place of the inactive one and makes it active.
    pub fn rotate(&mut self, now_picoseconds: u64) {
        let mut key = Zeroizing::new([0_u8; 32]);
        self.noise.fill_bytes(&mut *key);
        self.load(1 - self.active, &key);
        self.active = 1 - self.active;
        self.begin_key(now_picoseconds);
    }

    /// Test only: loads both keys. Key 1 stays or becomes active, so that its SPIs have their top bit set.
    pub fn test_load(&mut self, keys: &[[u8; 32]; 2], now_picoseconds: u64) -> Result<(), KeyError> {
        if self.locked {
            return Err(KeyError::Locked);
        }
        self.load(0, &keys[0]);
        self.load(1, &keys[1]);
        self.active = 1;
        self.begin_key(now_picoseconds);
        Ok(())
    }

    /// Test only: the next packets take the IVs from `next` on.
    pub fn test_iv(&mut self, next: u64) -> Result<(), KeyError> {
        if self.locked {
            return Err(KeyError::Locked);
        }
        if next <= self.last_iv {
            return Err(KeyError::BadArgument);
        }
        self.test_iv = Some(next);
        Ok(())
    }

    /// Refuses the test commands until power is cut.
    pub fn lock(&mut self) {
        self.locked = true;
    }

    /// Whether the test commands are refused.
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// Which keys are valid.
    pub fn valid(&self) -> [bool; 2] {
        [self.keys[0].is_some(), self.keys[1].is_some()]
    }

    /// Which key gives out SPIs.
    pub fn active(&self) -> bool {
        self.active == 1
    }

    /// Number of rotations and loads, modulo 2^16.
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// SPIs the active key has left.
    pub fn remaining(&self) -> u32 {
        if self.keys[self.active].is_some() { self.spis_per_key - self.allocated[self.active] } else { 0 }
    }

    /// When the active key was made; `None` while it is not valid.
    pub fn made_at_picoseconds(&self) -> Option<u64> {
        self.keys[self.active].is_some().then_some(self.made_at_picoseconds)
    }

    /// SPIs left to the active key that are few.
    pub fn low_water(&self) -> u32 {
        self.low_water
    }

    /// Sets how many SPIs are few.
    pub fn set_low_water(&mut self, spis: u32) {
        self.low_water = spis;
    }

    /// Whether it is to be told that the active key has few SPIs left: once a key.
    pub fn take_low(&mut self) -> bool {
        self.remaining() <= self.low_water && !std::mem::replace(&mut self.told.0, true)
    }

    /// Whether it is to be told that the active key has too few SPIs left: once a key.
    pub fn take_exhausted(&mut self) -> bool {
        self.keys[self.active].is_some() && !std::mem::replace(&mut self.told.1, true)
    }

    /// Times begin anew, `by` later; device time goes on.
    pub fn begin_anew(&mut self, by: Ticks) {
        self.unit.begin_anew(by);
        if let Some(cache) = &mut self.cache {
            cache.begin_anew(by);
        }
    }

    /// Time the derivation unit was in use.
    pub fn busy(&self) -> Ticks {
        self.unit.busy()
    }

    /// Function-level reset: every key is wiped. The IV clock, the lock and the generation go on.
    pub fn reset(&mut self) {
        self.keys = [None, None];
        self.forget_derived();
        self.test_iv = None;
        self.low_water = SPI_LOW_WATER;
        self.epoch_refused = false;
    }

    fn forget_derived(&mut self) {
        if let Some(cache) = &mut self.cache {
            cache.clear();
        }
    }

    fn begin_key(&mut self, now_picoseconds: u64) {
        self.generation = self.generation.wrapping_add(1);
        self.made_at_picoseconds = now_picoseconds;
        self.told = (false, false);
    }

    fn load(&mut self, index: usize, key: &[u8; 32]) {
        self.forget_derived();
        // The valid bit goes first, the SPI count last: no SPI of the old key is derived with the new one.
        self.keys[index] = None;
        self.keys[index] = Some(DeviceKey::new(key));
        self.allocated[index] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spis_per_key() -> u32 {
        Parameters::default().crypto.psp_spis_per_key as u32
    }

    fn hardware() -> KeyDerivation {
        KeyDerivation::new(&Parameters::default(), 7)
    }

    /// A block a cycle: 322 million keys of 128 bits a second, half as many of 256.
    #[test]
    fn a_key_takes_a_cycle_for_each_block() {
        let cycle = Parameters::default().cycle();
        let latency = cycle.times(Parameters::default().crypto.derivation_latency_cycles);
        let mut hardware = hardware();
        let times = [
            Version::AesGcm128,
            Version::AesGcm256,
            Version::AesGcm128,
            Version::AesGmac256,
            Version::AesGmac128,
        ]
        .map(|version| hardware.derive_time(Ticks::ZERO, version) - latency);
        assert_eq!(times, [0, 2, 3, 5, 6].map(|cycles| cycle.times(cycles)));
        assert_eq!(hardware.busy(), cycle.times(7));
    }

    /// What the unit does a second: its clock over the blocks of a key that is not cached. 200 million need no cache.
    #[test]
    fn the_rate_of_keys_is_the_clock_over_the_blocks_that_are_not_cached() {
        const KEYS: u64 = 1_000_000;
        // (version, entries of the cache, SPIs in turn, share that is derived)
        for (version, entries, spis, derived) in [
            (Version::AesGcm128, 0, 1, 1.0),
            (Version::AesGcm256, 0, 1, 1.0),
            (Version::AesGcm128, 1 << 10, 1 << 10, 1024.0 / KEYS as f64),
            (Version::AesGcm256, 1 << 10, 1 << 10, 1024.0 / KEYS as f64),
            // In turn around a set that is too small, the way that goes is the next that is asked for.
            (Version::AesGcm128, 1 << 10, 1 << 11, 1.0),
        ] {
            let mut parameters = Parameters::default();
            parameters.crypto.derived_key_cache_entries = entries;
            let mut hardware = KeyDerivation::new(&parameters, 7);
            for key in 0..KEYS {
                hardware.receive_time(Ticks::ZERO, version, (key % spis) as u32 + 1);
            }
            let cycles = hardware.busy().0 as f64 / hardware.cycle.0 as f64;
            let expected = KEYS as f64 * derived * BlocksPerCycle::One.entry_cycles(version) as f64;
            assert_eq!(cycles.round(), expected.round(), "{version:?}, {entries} entries, {spis} SPIs");
            let keys_per_second = KEYS as f64 / cycles * parameters.pipeline.clock_hz as f64;
            if version == Version::AesGcm128 {
                assert!(keys_per_second >= 200e6, "{keys_per_second}");
            }
        }
    }

    #[test]
    fn ivs_rise_even_if_time_stands_still() {
        let mut hardware = hardware();
        let next_iv = |hardware: &mut KeyDerivation, now| {
            let iv = hardware.peek_iv(now).unwrap();
            hardware.use_iv(iv);
            iv
        };
        let now = 5_000;
        let first = hardware.epoch() + 5_000;
        assert_eq!([0; 3].map(|_| next_iv(&mut hardware, now)), [first, first + 1, first + 2]);
        assert_eq!(hardware.test_iv(first + 2), Err(KeyError::BadArgument));
        hardware.reset();
        assert_eq!(next_iv(&mut hardware, 0), first + 3, "the IV clock outlives a reset");
    }

    #[test]
    fn the_epoch_only_rises_and_outlives_a_reset() {
        let mut parameters = Parameters::default();
        parameters.crypto.psp_epoch_ps = 0;
        let mut hardware = KeyDerivation::new(&parameters, 7);
        let now = 1_000;
        assert_eq!((hardware.has_epoch(), hardware.peek_iv(now)), (false, None));
        for (epoch, refused, clock) in [
            (0, true, None),
            (700, false, Some(1_700)),
            (700, false, Some(1_700)),
            (699, true, Some(1_700)),
            (u64::MAX, true, Some(1_700)),
            (900, false, Some(1_900)),
        ] {
            hardware.set_epoch(epoch);
            assert_eq!((hardware.epoch_refused(), hardware.peek_iv(now)), (refused, clock), "epoch {epoch}");
        }
        hardware.reset();
        assert_eq!(hardware.peek_iv(now), Some(1_900));
    }

    #[test]
    fn spis_come_from_the_active_key_and_never_again() {
        let mut hardware = hardware();
        assert_eq!(hardware.allocate(Version::AesGcm128, 1), Err(KeyError::NoSpiLeft));
        hardware.rotate(0);
        let spis = |records: Vec<PspAllocation>| records.iter().map(|one| one.spi.spi()).collect::<Vec<_>>();
        assert_eq!(spis(hardware.allocate(Version::AesGcm128, 2).unwrap()), [1, 2]);
        assert_eq!(spis(hardware.allocate(Version::AesGcm256, 1).unwrap()), [3]);
        hardware.rotate(0);
        assert_eq!(spis(hardware.allocate(Version::AesGcm128, 1).unwrap()), [0x8000_0001]);
        assert_eq!(hardware.valid(), [true, true]);
        hardware.reset();
        assert_eq!(hardware.valid(), [false, false]);
    }

    #[test]
    fn test_commands_end_with_the_lock() {
        let mut hardware = hardware();
        hardware.test_load(&[[1; 32], [2; 32]], 0).unwrap();
        hardware.lock();
        hardware.reset();
        assert_eq!(
            hardware.test_load(&[[1; 32], [2; 32]], 0),
            Err(KeyError::Locked),
            "the lock outlives a reset"
        );
        assert_eq!(hardware.test_iv(1 << 60), Err(KeyError::Locked));
    }

    fn spis_of(hardware: &mut KeyDerivation, count: u32) -> Result<Vec<u32>, KeyError> {
        let records = hardware.allocate(Version::AesGcm128, count)?;
        Ok(records.iter().map(|record| record.spi.spi()).collect())
    }

    #[test]
    fn the_last_spi_is_given_out_and_a_fresh_key_begins_at_the_first() {
        let mut hardware = hardware();
        hardware.test_load(&[[1; 32], [2; 32]], 0).unwrap();
        hardware.allocated[1] = spis_per_key() - 3;
        assert_eq!(spis_of(&mut hardware, 4), Err(KeyError::NoSpiLeft));
        assert_eq!(hardware.remaining(), 3, "a refusal takes none");
        assert_eq!(spis_of(&mut hardware, 3), Ok(vec![0xffff_fffd, 0xffff_fffe, 0xffff_ffff]));
        assert_eq!(spis_of(&mut hardware, 1), Err(KeyError::NoSpiLeft));
        hardware.rotate(0);
        assert_eq!(spis_of(&mut hardware, 1), Ok(vec![1]));
        hardware.rotate(0);
        assert_eq!(spis_of(&mut hardware, 1), Ok(vec![0x8000_0001]), "a fresh key in the place of the other");
        hardware.rotate(0);
        hardware.test_load(&[[1; 32], [2; 32]], 0).unwrap();
        assert_eq!(spis_of(&mut hardware, 1), Ok(vec![0x8000_0001]), "loaded keys: key 1 is active");
    }

    #[test]
    fn that_spis_are_few_is_told_at_the_mark_and_once_a_key() {
        for mark in [0, 1, 1 << 24] {
            let mut hardware = hardware();
            assert!(!hardware.take_exhausted(), "without a key nothing is exhausted");
            hardware.set_low_water(mark);
            for _ in 0..2 {
                hardware.rotate(0);
                let active = hardware.active;
                hardware.allocated[active] = spis_per_key() - mark - 1;
                assert!(!hardware.take_low(), "one above {mark}");
                hardware.allocated[active] += 1;
                assert!(hardware.take_low(), "at {mark}");
                assert!(hardware.take_exhausted());
                assert!(!hardware.take_low() && !hardware.take_exhausted(), "once a key");
            }
            hardware.reset();
            assert_eq!((hardware.low_water(), hardware.remaining()), (SPI_LOW_WATER, 0));
        }
    }

    #[test]
    fn a_test_iv_is_over_with_a_reset_and_needs_no_epoch_before() {
        let mut parameters = Parameters::default();
        parameters.crypto.psp_epoch_ps = 0;
        let mut hardware = KeyDerivation::new(&parameters, 7);
        hardware.test_iv(u64::MAX - 1).unwrap();
        let mut next = || {
            let iv = hardware.peek_iv(0)?;
            hardware.use_iv(iv);
            Some(iv)
        };
        assert_eq!(
            [next(), next(), next()],
            [Some(u64::MAX - 1), Some(u64::MAX), None],
            "and none comes round"
        );
        hardware.reset();
        assert!(!hardware.has_epoch());
        hardware.set_epoch(1);
        assert_eq!(hardware.peek_iv(0), None, "an IV that was used stays behind the clock");
    }
}
