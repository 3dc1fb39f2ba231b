//! Which SA slots are in use, as far as firmware knows. The hardware's generations are the truth; this map
//! only finds a slot that is likely to be empty.

/// The most slots that firmware manages; a larger table is used up to here.
pub const SLOTS_MAX: u32 = 1 << 16;

const WORDS: usize = 1 << 11;

pub struct Slots {
    used: [u32; WORDS],
    /// Slots that the hardware has, at most [`SLOTS_MAX`].
    count: u32,
    in_use: u32,
    /// Where the search for an empty slot begins: behind the slot taken last, so that a slot that was just
    /// emptied is taken again as late as possible.
    next: u32,
}

impl Slots {
    pub const fn new() -> Self {
        Slots { used: [0; WORDS], count: 0, in_use: 0, next: 0 }
    }

    /// Forgets every slot and takes a new count.
    pub fn reset(&mut self, count: u32) {
        *self = Slots { count: count.min(SLOTS_MAX), ..Slots::new() };
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

    /// The first empty slot from where the last search ended, around the end of the table.
    pub fn find(&self) -> Option<u32> {
        self.find_between(self.next, self.count).or_else(|| self.find_between(0, self.next))
    }

    /// The next search begins behind this slot.
    pub fn pass(&mut self, slot: u32) {
        let next = slot.wrapping_add(1);
        self.next = if next < self.count { next } else { 0 };
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

    #[test]
    fn slots_are_taken_around_the_table() {
        let mut slots = Slots::new();
        slots.reset(70);
        for slot in 0..70 {
            assert_eq!(slots.find(), Some(slot));
            slots.mark(slot);
            slots.pass(slot);
        }
        assert_eq!((slots.find(), slots.in_use()), (None, 70));
        slots.free(3);
        slots.free(69);
        assert_eq!(slots.find(), Some(3));
        slots.mark(3);
        slots.pass(3);
        slots.free(3);
        assert_eq!(slots.find(), Some(69), "the slot emptied last is taken last");
    }

    #[test]
    fn marks_are_counted_once_and_stay_inside_the_table() {
        let mut slots = Slots::new();
        slots.reset(u32::MAX);
        assert_eq!(slots.count(), SLOTS_MAX);
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
        assert_eq!(slots.find(), None);
        slots.pass(7);
        assert_eq!(slots.find(), None);
    }
}
