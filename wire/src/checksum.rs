//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// One's complement sum of the big-endian 16-bit words of `bytes`, folded to 16 bits and not yet complemented. An odd
/// last octet counts as the high half of a word.
///
/// The sum is taken 32 bits at a time into 64 bits, which no slice below 16 GiB can overflow (RFC 1071, 2(C)).
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total = 0u64;
    for word in words {
        total = total.wrapping_add(u64::from(u32::from_be_bytes(*word)));
    }
    let mut last = [0u8; 4];
    for (slot, octet) in last.iter_mut().zip(rest) {
        *slot = *octet;
    }
    fold(total.wrapping_add(u64::from(u32::from_be_bytes(last))))
}

/// The sum of parts that each begin on a 16-bit boundary of the whole.
#[inline]
pub fn add<const N: usize>(sums: [u16; N]) -> u16 {
    fold(sums.iter().map(|sum| u64::from(*sum)).sum())
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
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
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
        fn update_is_undone(checksum in 0u16..0xffff, old in any::<u16>(), new in any::<u16>()) {
            prop_assert_eq!(update(update(checksum, old, new), new, old), checksum);
        }
    }
}
