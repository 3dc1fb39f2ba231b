//! The Toeplitz hash of receive side scaling (Microsoft, "RSS Hashing Functions" and "RSS Hashing Types").
//!
//! For each bit of the input that is one, from the left, the 32 bits of the key that begin at the same place are added
//! modulo two. The hash of two inputs' sum is the sum of their hashes, which is why four bits at a time can be looked up.

use crate::packet::Plain;

/// Octets of the key: one bit window for each bit of the longest input.
pub const KEY_LENGTH: usize = 40;
/// Octets of the longest input: two IPv6 addresses and two ports.
pub const MAX_INPUT_LENGTH: usize = KEY_LENGTH - 4;

/// What is hashed beside the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    #[default]
    Addresses,
    /// The TCP or UDP ports; nothing where the packet shows none.
    Ports,
    /// An SPI, in the place of the ports: what tells the SAs between two gateways apart.
    Spi(u32),
}

/// A key, expanded: a table of 4608 octets, to be made when the key is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toeplitz {
    /// For each four bits of input, from the left, the hash of each of their values.
    table: [[u32; 16]; MAX_INPUT_LENGTH * 2],
}

impl Toeplitz {
    /// Expands a key.
    pub fn new(key: &[u8; KEY_LENGTH]) -> Self {
        let mut table = [[0; 16]; MAX_INPUT_LENGTH * 2];
        for (index, row) in table.iter_mut().enumerate() {
            for (value, hash) in row.iter_mut().enumerate() {
                for bit in 0..4 {
                    if value & 8 >> bit != 0 {
                        *hash ^= window(key, index * 4 + bit);
                    }
                }
            }
        }
        Self { table }
    }

    /// The hash of an input, of which octets past [`MAX_INPUT_LENGTH`] do not count.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let (rows, _) = self.table.as_chunks::<2>();
        let mut hash = 0;
        for (octet, [high, low]) in input.iter().zip(rows) {
            hash ^= entry(high, octet >> 4) ^ entry(low, octet & 15);
        }
        hash
    }

    /// The hash of a packet: source address, destination address, and the rest; 0 where it is not IP.
    #[inline]
    pub fn hash_packet(&self, plain: &Plain, with: With) -> u32 {
        let mut input = [0; MAX_INPUT_LENGTH];
        let address_length = match plain.ip_version {
            4 => 4,
            6 => 16,
            _ => return 0,
        };
        let (source, rest) = input.split_at_mut(address_length);
        let (destination, rest) = rest.split_at_mut(address_length);
        copy_last(source, &plain.source);
        copy_last(destination, &plain.destination);
        let last = match (with, plain.ports) {
            (With::Ports, Some(ports)) => Some(u32::from(ports.source) << 16 | u32::from(ports.destination)),
            (With::Spi(spi), _) => Some(spi),
            (With::Ports, None) | (With::Addresses, _) => None,
        };
        let mut length = 2 * address_length;
        if let (Some(word), Some(place)) = (last, rest.first_chunk_mut::<4>()) {
            *place = word.to_be_bytes();
            length += 4;
        }
        self.hash(input.get(..length).unwrap_or(&[]))
    }
}

/// The 32 bits of the key from bit `first` on.
#[inline]
fn window(key: &[u8; KEY_LENGTH], first: usize) -> u32 {
    let mut octets = [0; 8];
    for (octet, from) in octets.iter_mut().zip(key.iter().skip(first / 8).take(5)) {
        *octet = *from;
    }
    (u64::from_be_bytes(octets) << (first % 8) >> 32) as u32
}

/// An entry of a row; `value` is below 16.
#[inline]
fn entry(row: &[u32; 16], value: u8) -> u32 {
    row.get(usize::from(value)).copied().unwrap_or(0)
}

/// Copies the last octets of an address.
#[inline]
fn copy_last(place: &mut [u8], address: &[u8; 16]) {
    for (octet, from) in place.iter_mut().rev().zip(address.iter().rev()) {
        *octet = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit.
    fn slow(key: &[u8; KEY_LENGTH], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], index: usize| bytes[index / 8] >> (7 - index % 8) & 1;
        (0..input.len() * 8)
            .filter(|index| bit(input, *index) == 1)
            .map(|index| (0..32).fold(0, |word, place| word << 1 | u32::from(bit(key, index + place))))
            .fold(0, |hash, word| hash ^ word)
    }

    proptest::proptest! {
        #[test]
        fn table_is_the_definition(
            key in proptest::array::uniform32(0u8..),
            input in proptest::collection::vec(0u8.., 0..=MAX_INPUT_LENGTH),
        ) {
            let mut long = [0x5a; KEY_LENGTH];
            long[..32].copy_from_slice(&key);
            proptest::prop_assert_eq!(Toeplitz::new(&long).hash(&input), slow(&long, &input));
        }
    }

    #[test]
    fn octets_past_the_longest_input_do_not_count() {
        let toeplitz = Toeplitz::new(&[0x6d; KEY_LENGTH]);
        assert_eq!(toeplitz.hash(&[0xff; 50]), toeplitz.hash(&[0xff; MAX_INPUT_LENGTH]));
    }
}
