//! Which SA slots are in use, as far as firmware knows. The hardware's states are the truth; this map only
//! finds a slot that is likely to be empty.

use cryptonic_regs::admin::LifetimeKind;

/// The most slots that firmware manages; a larger table is used up to here.
pub const SLOTS_MAX: u32 = 1 << 16;

const WORDS: usize = 1 << 11;

pub struct Slots {
    used: [u32; WORDS],
    /// Slots that the hardware has, at most [`SLOTS_MAX`].
    count: u32,
    in_use: u32,
    /// Slots that count packets, from slot 0 on.
    packets: Range,
    /// Slots that count bytes, behind them.
    bytes: Range,
}

/// Slots of one kind.
struct Range {
    first: u32,
    end: u32,
    /// Where the search for an empty slot begins: behind the slot taken last, so that a slot that was just
    /// emptied is taken again as late as possible.
    next: u32,
}

impl Range {
    const fn new(first: u32, end: u32) -> Self {
        Range { first, end, next: first }
    }
}

impl Slots {
    pub const fn new() -> Self {
        Slots { used: [0; WORDS], count: 0, in_use: 0, packets: Range::new(0, 0), bytes: Range::new(0, 0) }
    }

    /// Forgets every slot and takes new counts: of all slots, and of those among them that count packets.
    pub fn reset(&mut self, count: u32, packet_slots: u32) {
        let count = count.min(SLOTS_MAX);
        let split = packet_slots.min(count);
        let (packets, bytes) = (Range::new(0, split), Range::new(split, count));
        *self = Slots { count, packets, bytes, ..Slots::new() };
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    pub fn contains(&self, slot: u32) -> bool {
        self.used.get((slot >> 5) as usize).is_some_and(|word| word & bit(slot) != 0)
    }

    pub fn mark(&mut self, slot: u32) {
        if slot >= self.count {
            return;
        }
        if let Some(word) = self.used.get_mut((slot >> 5) as usize)
            && *word & bit(slot) == 0
        {
            *word |= bit(slot);
            self.in_use = self.in_use.saturating_add(1);
        }
    }

    pub fn free(&mut self, slot: u32) {
        if let Some(word) = self.used.get_mut((slot >> 5) as usize)
            && *word & bit(slot) != 0
        {
            *word &= !bit(slot);
            self.in_use = self.in_use.saturating_sub(1);
        }
    }

    /// The first empty slot of a kind from where its last search ended, around the end of its range.
    pub fn find(&self, kind: LifetimeKind) -> Option<u32> {
        let range = match kind {
            LifetimeKind::Packets => &self.packets,
            LifetimeKind::Bytes => &self.bytes,
        };
        self.find_between(range.next, range.end).or_else(|| self.find_between(range.first, range.next))
    }

    /// The next search for a slot of its kind begins behind this slot.
    pub fn pass(&mut self, slot: u32) {
        let range = if slot < self.packets.end { &mut self.packets } else { &mut self.bytes };
        let next = slot.wrapping_add(1);
        range.next = if next < range.end { next } else { range.first };
    }

    fn find_between(&self, from: u32, end: u32) -> Option<u32> {
        let mut slot = from;
        while slot < end {
            let word = self.used.get((slot >> 5) as usize).copied()?;
            // Slots before this one count as used.
            let below = bit(slot).wrapping_sub(1);
            let found = (slot & !31).saturating_add((word | below).trailing_ones());
            let word_end = (slot & !31).saturating_add(32);
            if found < word_end {
                return (found < end).then_some(found);
            }
            slot = word_end;
        }
        None
    }
}

const fn bit(slot: u32) -> u32 {
    1u32.wrapping_shl(slot & 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use LifetimeKind::{Bytes, Packets};

    #[test]
    fn slots_of_each_kind_are_taken_around_their_range() {
        for (kind, first, end) in [(Packets, 0, 70), (Bytes, 70, 145)] {
            let mut slots = Slots::new();
            slots.reset(145, 70);
            for slot in first..end {
                assert_eq!(slots.find(kind), Some(slot));
                slots.mark(slot);
                slots.pass(slot);
            }
            assert_eq!((slots.find(kind), slots.in_use()), (None, end - first));
            slots.free(first + 3);
            slots.free(end - 1);
            assert_eq!(slots.find(kind), Some(first + 3));
            slots.mark(first + 3);
            slots.pass(first + 3);
            slots.free(first + 3);
            assert_eq!(slots.find(kind), Some(end - 1), "the slot emptied last is taken last");
        }
    }

    #[test]
    fn a_search_for_one_kind_leaves_the_other_where_it_was() {
        let mut slots = Slots::new();
        slots.reset(8, 4);
        slots.pass(1);
        slots.pass(5);
        assert_eq!((slots.find(Packets), slots.find(Bytes)), (Some(2), Some(6)));
        slots.pass(7);
        assert_eq!((slots.find(Packets), slots.find(Bytes)), (Some(2), Some(4)));
        slots.pass(3);
        assert_eq!((slots.find(Packets), slots.find(Bytes)), (Some(0), Some(4)));
    }

    #[test]
    fn marks_are_counted_once_and_stay_inside_the_table() {
        let mut slots = Slots::new();
        slots.reset(u32::MAX, u32::MAX);
        assert_eq!((slots.count(), slots.find(Bytes)), (SLOTS_MAX, None));
        for slot in [0, 0, 65535, 65536, u32::MAX] {
            slots.mark(slot);
        }
        assert_eq!(slots.in_use(), 2);
        assert!(slots.contains(65535) && !slots.contains(65536) && !slots.contains(u32::MAX));
        for slot in [65535, 65535, 65536, u32::MAX] {
            slots.free(slot);
        }
        assert_eq!(slots.in_use(), 1);
    }

    #[test]
    fn a_table_without_slots_is_full() {
        let mut slots = Slots::new();
        for kind in [Packets, Bytes] {
            assert_eq!(slots.find(kind), None);
            slots.pass(7);
            assert_eq!(slots.find(kind), None);
        }
    }
}
