//! A source of random numbers that is the same everywhere and for ever (SplitMix64).

/// The generator. The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of one of many parts, so that each can be had without those before it.
    pub fn of_part(seed: u64, part: u64) -> Self {
        // Two steps apart from plain seeds: neighbouring parts have nothing in common.
        let mut random = Self(seed);
        let base = random.bits();
        let mut random = Self(base ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.bits();
        random
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Eight random bits.
    #[inline]
    pub fn octet(&mut self) -> u8 {
        (self.bits() >> 56) as u8
    }

    /// A number below `bound`; 0 where that is 0.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Whether one of `percent` in a hundred cases is there.
    #[inline]
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    #[inline]
    pub fn of<T: Copy, const N: usize>(&mut self, choices: &[T; N]) -> T {
        const { assert!(N > 0) };
        choices[self.below(N)]
    }

    /// Fills a slice.
    #[inline]
    pub fn fill(&mut self, octets: &mut [u8]) {
        let (words, rest) = octets.as_chunks_mut::<8>();
        for word in words {
            *word = self.bits().to_le_bytes();
        }
        if !rest.is_empty() {
            let word = self.bits().to_le_bytes();
            rest.copy_from_slice(&word[..rest.len()]);
        }
    }

    /// Appends so many octets.
    #[inline]
    pub fn append(&mut self, count: usize, octets: &mut Vec<u8>) {
        let start = octets.len();
        octets.resize(start + count, 0);
        self.fill(&mut octets[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // The reference implementation's first numbers for seed 1234567 (Vigna, splitmix64.c).
        let mut random = Random::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        for number in expected {
            assert_eq!(random.bits(), number);
        }
    }

    #[test]
    fn parts_differ_and_numbers_stay_below_their_bound() {
        assert_ne!(Random::of_part(1, 0).bits(), Random::of_part(1, 1).bits());
        assert_ne!(Random::of_part(1, 1).bits(), Random::of_part(2, 1).bits());
        let mut random = Random::new(3);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.below(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
    }
}
