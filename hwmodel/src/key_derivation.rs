//! PSP device keys, the derivation of receive keys, SPI allocation, and the IV clock: hardware that firmware
//! only asks. No register and no firmware access shows a device key.
//!
//! The derivation unit is a pipelined AES-256: one block a cycle, one block for a 128-bit key and two for a
//! 256-bit one (SP 800-108 in counter mode over AES-256-CMAC of one block). The label of versions 2 and 3 is said
//! nowhere; it is taken to go on by the rule that versions 0 and 1 show.

use cryptonic_crypto::DeviceKey;
use cryptonic_pci::Time;
use cryptonic_regs::admin::{AllocatedSpi, PspAllocation, SecretWord};
use cryptonic_wire::psp::{Version, key_length};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::calendar::Calendar;
use crate::parameters::Parameters;

/// The SPIs of one device key: 1 to 2^31 - 1, the key's number in the most significant bit.
const SPIS_PER_KEY: u32 = (1 << 31) - 1;

/// The key hardware.
pub struct KeyDerivation {
    keys: [Option<DeviceKey>; 2],
    /// SPIs of each key that were given out.
    allocated: [u32; 2],
    active: usize,
    generation: u16,
    locked: bool,
    /// The noise source. In the model it is seeded, so that a run can be repeated.
    noise: ChaCha20Rng,
    last_iv: u64,
    /// Test only: the next IV, instead of device time.
    test_iv: Option<u64>,
    unit: Calendar,
    cycle: Time,
    latency: Time,
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
            allocated: [0; 2],
            active: 1,
            generation: 0,
            locked: false,
            noise: ChaCha20Rng::seed_from_u64(seed),
            last_iv: 0,
            test_iv: None,
            unit: Calendar::default(),
            cycle,
            latency: cycle.times(parameters.crypto.derivation_latency_cycles),
        }
    }

    /// The key of a received packet, 16 or 32 bytes; `None` if its device key is not valid.
    #[inline]
    pub fn receive_key(&self, version: Version, spi: u32, out: &mut [u8; 32]) -> Option<usize> {
        let device_key = self.keys[(spi >> 31) as usize].as_ref()?;
        Some(device_key.derive(version, spi, out))
    }

    /// When a key asked for at `ready` is there with its round keys and H.
    #[inline]
    pub fn derive_time(&mut self, ready: Time, version: Version) -> Time {
        let blocks = blocks_of(version);
        // The latency counts from the block that enters last.
        self.unit.serve(ready, self.cycle.times(blocks)) + self.cycle.times(blocks - 1) + self.latency
    }

    /// The IV of the next packet to be protected: device time in picoseconds, and more than the last one in
    /// any case; `None` when there is none left. It is used up by [`Self::use_iv`].
    #[inline]
    pub fn peek_iv(&self, now: Time) -> Option<u64> {
        let after_the_last = self.last_iv.checked_add(1)?;
        Some(self.test_iv.unwrap_or(now.picoseconds()).max(after_the_last))
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
        if count > SPIS_PER_KEY - self.allocated[active] {
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
    pub fn rotate(&mut self) {
        let mut key = Zeroizing::new([0_u8; 32]);
        self.noise.fill_bytes(&mut *key);
        self.load(1 - self.active, &key);
        self.active = 1 - self.active;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Test only: loads both keys. Key 1 stays or becomes active, so that its SPIs have their top bit set.
    pub fn test_load(&mut self, keys: &[[u8; 32]; 2]) -> Result<(), KeyError> {
        if self.locked {
            return Err(KeyError::Locked);
        }
        self.load(0, &keys[0]);
        self.load(1, &keys[1]);
        self.active = 1;
        self.generation = self.generation.wrapping_add(1);
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
        if self.keys[self.active].is_some() { SPIS_PER_KEY - self.allocated[self.active] } else { 0 }
    }

    /// Time the derivation unit was in use.
    pub fn busy(&self) -> Time {
        self.unit.busy()
    }

    /// Function-level reset: every key is wiped. The IV clock, the lock and the generation go on.
    pub fn reset(&mut self) {
        self.keys = [None, None];
        self.test_iv = None;
    }

    fn load(&mut self, index: usize, key: &[u8; 32]) {
        // The valid bit goes first, the SPI count last: no SPI of the old key is derived with the new one.
        self.keys[index] = None;
        self.keys[index] = Some(DeviceKey::new(key));
        self.allocated[index] = 0;
    }
}

/// Blocks of AES that a key takes.
fn blocks_of(version: Version) -> u64 {
    key_length(version) as u64 / 16
}

#[cfg(test)]
mod tests {
    use super::*;

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
        .map(|version| hardware.derive_time(Time::ZERO, version) - latency);
        assert_eq!(times, [0, 2, 3, 5, 6].map(|cycles| cycle.times(cycles)));
        assert_eq!(hardware.busy(), cycle.times(7));
    }

    #[test]
    fn ivs_rise_even_if_time_stands_still() {
        let mut hardware = hardware();
        let next_iv = |hardware: &mut KeyDerivation, now| {
            let iv = hardware.peek_iv(now).unwrap();
            hardware.use_iv(iv);
            iv
        };
        let now = Time::from_nanoseconds(5);
        assert_eq!([0; 3].map(|_| next_iv(&mut hardware, now)), [5_000, 5_001, 5_002]);
        assert_eq!(hardware.test_iv(5_002), Err(KeyError::BadArgument));
        hardware.reset();
        assert_eq!(next_iv(&mut hardware, Time::ZERO), 5_003, "the IV clock outlives a reset");
    }

    #[test]
    fn spis_come_from_the_active_key_and_never_again() {
        let mut hardware = hardware();
        assert_eq!(hardware.allocate(Version::AesGcm128, 1), Err(KeyError::NoSpiLeft));
        hardware.rotate();
        let spis = |records: Vec<PspAllocation>| records.iter().map(|one| one.spi.spi()).collect::<Vec<_>>();
        assert_eq!(spis(hardware.allocate(Version::AesGcm128, 2).unwrap()), [1, 2]);
        assert_eq!(spis(hardware.allocate(Version::AesGcm256, 1).unwrap()), [3]);
        hardware.rotate();
        assert_eq!(spis(hardware.allocate(Version::AesGcm128, 1).unwrap()), [0x8000_0001]);
        assert_eq!(hardware.valid(), [true, true]);
        hardware.reset();
        assert_eq!(hardware.valid(), [false, false]);
    }

    #[test]
    fn test_commands_end_with_the_lock() {
        let mut hardware = hardware();
        hardware.test_load(&[[1; 32], [2; 32]]).unwrap();
        hardware.lock();
        hardware.reset();
        assert_eq!(
            hardware.test_load(&[[1; 32], [2; 32]]),
            Err(KeyError::Locked),
            "the lock outlives a reset"
        );
        assert_eq!(hardware.test_iv(1 << 60), Err(KeyError::Locked));
    }
}
