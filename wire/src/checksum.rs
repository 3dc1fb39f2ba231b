//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// One's complement sum of the big-endian 16-bit words of `bytes`, folded to 16 bits and not yet complemented. An odd
/// last octet counts as the high half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    Total::of(bytes).sum()
}

/// A sum that is not folded yet, of parts that each begin on a 16-bit boundary of the whole.
///
/// It is taken 64 bits at a time into 128 bits, which no slice can overflow, in the byte order of the machine
/// (RFC 1071, 2(B) and 2(C)).
#[derive(Clone, Copy)]
pub(crate) struct Total(u128);

impl Total {
    /// The total of `bytes`; an odd last octet counts as the high half of a word.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (words, mut rest) = bytes.as_chunks::<8>();
        let mut total: u128 = words.iter().map(|word| u128::from(u64::from_ne_bytes(*word))).sum();
        if let Some((word, behind)) = rest.split_first_chunk::<4>() {
            total += u128::from(u32::from_ne_bytes(*word));
            rest = behind;
        }
        if let Some((word, behind)) = rest.split_first_chunk::<2>() {
            total += u128::from(u16::from_ne_bytes(*word));
            rest = behind;
        }
        if let [last] = rest {
            total += u128::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(total)
    }

    /// The total of bytes that are many, as a rule: a step of a loop for each word would be half of the work.
    #[inline]
    pub(crate) fn of_many(bytes: &[u8]) -> Self {
        let (lines, rest) = bytes.as_chunks::<64>();
        let mut total = Self::of(rest);
        for line in lines {
            for word in line.as_chunks::<8>().0 {
                total.0 += u128::from(u64::from_ne_bytes(*word));
            }
        }
        total
    }

    /// This and another part.
    #[inline]
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum, folded to 16 bits.
    #[inline]
    pub(crate) fn sum(self) -> u16 {
        // What stands above 64 bits is a count of carries, fewer than a slice has octets.
        let (word, carries) = (self.0 as u64, (self.0 >> 64) as u64);
        let sum = fold((word & 0xffff_ffff) + (word >> 32) + carries);
        u16::from_be_bytes(sum.to_ne_bytes())
    }
}

/// The checksum of a header whose checksum field holds zero, or of a header that is to be checked: the latter gives
/// zero where it is right.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// Whether the checksum inside `bytes` is right.
#[inline]
pub fn is_valid(bytes: &[u8]) -> bool {
    sum(bytes) == 0xffff
}

/// The checksum after one aligned 16-bit word changed from `old` to `new`: `HC' = ~(~HC + ~m + m')` (RFC 1624, 3,
/// equation 3).
///
/// Undoing an update gives the first checksum back, whether it was right or wrong, but for 0xffff, which comes
/// back as its other spelling 0x0000. A correct sender never writes 0xffff into an IPv4 header.
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    update_words(checksum, [(old, new)])
}

/// The checksum after aligned 16-bit words changed, each from the first to the second of its pair: what [`update`] gives
/// for one after another.
#[inline]
pub fn update_words<const N: usize>(checksum: u16, words: [(u16, u16); N]) -> u16 {
    let changes = words.iter().map(|(old, new)| u64::from(!old) + u64::from(*new));
    !fold(u64::from(!checksum) + changes.sum::<u64>())
}

/// Folds carries back until 16 bits are left. A sum above zero never folds to zero.
#[inline]
fn fold(total: u64) -> u16 {
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff) + ((total >> 16) & 0xffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: words one by one, each carry folded at once.
    fn slow_sum(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            if total > 0xffff {
                total -= 0xffff;
            }
        }
        total as u16
    }

    #[test]
    fn printed_examples() {
        // RFC 1071, 3: the sum of these octets is ddf2.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        // RFC 1624, 4: from dd2f, when a word goes from 5555 to 3285, the checksum becomes 0000.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn sum_is_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sum(&bytes), slow_sum(&bytes));
            prop_assert_eq!(Total::of_many(&bytes).sum(), slow_sum(&bytes));
        }

        #[test]
        fn update_is_a_recomputation(mut header in any::<[u8; 20]>(), new in any::<u16>()) {
            header[10] = 0;
            header[11] = 0;
            header[0] = 0x45;
            let before = checksum(&header);
            let old = u16::from_be_bytes([header[2], header[3]]);
            header[2..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), checksum(&header));
        }

        #[test]
        fn words_are_updated_as_one_after_another(
            checksum in any::<u16>(),
            words in any::<[(u16, u16); 3]>(),
        ) {
            let one_by_one = words.iter().fold(checksum, |checksum, (old, new)| update(checksum, *old, *new));
            prop_assert_eq!(update_words(checksum, words), one_by_one);
        }

        #[test]
        fn update_is_undone(checksum in 0u16..0xffff, old in any::<u16>(), new in any::<u16>()) {
            prop_assert_eq!(update(update(checksum, old, new), new, old), checksum);
        }
    }
}
