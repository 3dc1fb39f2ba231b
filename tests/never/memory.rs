//! Search of this process's memory for secrets.

use cryptonic::memory_search;

use crate::rig::Chance;

/// Secrets are kept inverted, so that the search does not find its own needle.
pub struct Inverted(pub Vec<u8>);

impl Inverted {
    pub fn of(seed: u8, length: usize) -> Inverted {
        Inverted((0..length).map(|index| !((index as u8).wrapping_mul(37) ^ seed ^ 0x5c)).collect())
    }

    /// One that no other number has.
    pub fn number(number: u64, length: usize) -> Inverted {
        Inverted(Chance::new(number | 1 << 50).bytes(length))
    }

    /// Gives the bytes to `work` and wipes them.
    pub fn with<T>(&self, work: impl FnOnce(&[u8]) -> T) -> T {
        let mut bytes = zeroizing(self.0.len());
        bytes.iter_mut().zip(&self.0).for_each(|(byte, inverted)| *byte = !inverted);
        let result = work(&bytes);
        wipe(&mut bytes);
        result
    }
}

fn zeroizing(length: usize) -> Vec<u8> {
    vec![0; length]
}

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

/// Where copies of a secret are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// On a heap, in shared memory, in static data.
    pub elsewhere: usize,
    /// On the stack of this thread.
    pub stack: usize,
}

/// Places that hold these bytes, given inverted.
pub fn search(inverted: &[u8]) -> Found {
    search_where(inverted, |_| true)
}

/// Places in memory that devices see.
pub fn search_shared(inverted: &[u8]) -> usize {
    search_where(inverted, |line| line.contains("memfd")).elsewhere
}

fn search_where(inverted: &[u8], is_searched: impl Fn(&str) -> bool) -> Found {
    let here = &raw const inverted as u64;
    let mut found = Found::default();
    for place in memory_search::search(inverted, is_searched).expect("Linux") {
        let range = place.mapping.split_whitespace().next().and_then(|range| range.split_once('-'));
        let (start, end) = range.expect("a range");
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).expect("an address"));
        if (start..end).contains(&here) { found.stack += 1 } else { found.elsewhere += 1 }
    }
    found
}

pub fn assert_gone(secret: &Inverted, when: &str) {
    let found = search(&secret.0[..16]);
    assert_eq!(found, Found::default(), "{when}");
}
