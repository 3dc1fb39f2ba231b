//! Push windows: descriptors that the host writes into BAR2, so that they need not be fetched.
//!
//! ```text
//!   stores ──▶ window: bytes and a bit for each four of them ──▶ last word of the slot: all here, and next in line?
//!                                                                 yes: the descriptor, as if it had been fetched
//!                                                                 no:  a doorbell with the producer of the extent word
//!                                                                 no extent word: nothing
//! ```
//!
//! A write of the window's first word begins a push, so that what an earlier one left behind is never taken for part
//! of it. A window is wiped when its push ends: it may have brought a key.

use crate::Ticks;
use cryptonic_regs::descriptor::TransmitExtent;
use cryptonic_regs::doorbell::{PUSH_WINDOW_BYTES, PUSH_WINDOWS};
use zeroize::{Zeroize, Zeroizing};

use crate::nic::Nic;
use crate::queue::Announced;
use crate::transmit_frames::Slot;

/// Words of a window.
const WINDOW_WORDS: usize = PUSH_WINDOW_BYTES as usize / 8;
/// The word of a slot that says its producer index.
const EXTENT_WORD: usize = 3;

/// A push window of a queue pair.
#[derive(Default)]
pub struct PushWindow {
    words: Zeroizing<[u64; WINDOW_WORDS]>,
    /// Which halves of words were written since the push began, one bit each.
    filled: u32,
    /// When the host issued the first store of the push.
    issued_at: Ticks,
}

impl PushWindow {
    /// Times begin anew, `by` later.
    pub(crate) fn begin_anew(&mut self, by: Ticks) {
        self.issued_at = self.issued_at.earlier_by(by);
    }

    /// Takes the 32 bits of half word `half`.
    fn write(&mut self, half: u32, value: u32, issued_at: Ticks) {
        if half == 0 {
            self.wipe();
        }
        if self.filled == 0 {
            self.issued_at = issued_at;
        }
        let Some(word) = self.words.get_mut(half as usize / 2) else { return };
        let shift = half % 2 * 32;
        *word = *word & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
        self.filled |= 1 << half;
    }

    /// Whether every byte up to `bytes` was written.
    fn complete(&self, bytes: u32) -> bool {
        let wanted = if bytes >= PUSH_WINDOW_BYTES { u32::MAX } else { (1 << (bytes / 4)) - 1 };
        self.filled & wanted == wanted
    }

    /// The extent word, if it was written.
    fn extent(&self) -> Option<TransmitExtent> {
        let halves = 0b11 << (2 * EXTENT_WORD);
        (self.filled & halves == halves).then(|| TransmitExtent::from_bits(self.words[EXTENT_WORD]))
    }

    /// The words of the slot.
    pub fn words(&self) -> &[u64] {
        &*self.words
    }

    fn wipe(&mut self) {
        self.words.zeroize();
        self.filled = 0;
    }
}

/// The window of a queue pair's page that an offset in the page lies in, and the offset in the window.
pub fn window_at(offset_in_page: u32) -> Option<(usize, u32)> {
    PUSH_WINDOWS.iter().enumerate().find_map(|(window, start)| {
        let within = offset_in_page.checked_sub(*start)?;
        (within < PUSH_WINDOW_BYTES).then_some((window, within))
    })
}

impl Nic {
    /// A store of 32 bits into a window of a queue pair that is on.
    pub(crate) fn push_write(
        &mut self,
        queue: u16,
        window: usize,
        within: u32,
        value: u32,
        issued_at: Ticks,
    ) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        let Some(target) = pair.windows.get_mut(window) else { return };
        let stride = pair.transmit.stride;
        if within >= stride {
            return;
        }
        target.write(within / 4, value, issued_at);
        if within + 4 == stride {
            self.push_ended(queue, window);
        }
    }

    /// The slot's last word was written.
    fn push_ended(&mut self, queue: u16, window: usize) {
        let (now, enabled) = (self.now, self.enabled());
        let prefetched = self.transmit.prefetched.get(usize::from(queue)).copied().unwrap_or(u32::MAX);
        let room = u64::from(prefetched) < self.parameters.descriptors.transmit_prefetch;
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        let Some(pushed) = pair.windows.get_mut(window) else { return };
        let issued_at = pushed.issued_at;
        let Some(extent) = pushed.extent() else {
            pushed.wipe();
            return;
        };
        // The extent word has the low half of the index; a ring has fewer slots than that can count.
        let fetched = pair.transmit.fetched;
        let producer = fetched.wrapping_add(u32::from(extent.producer().wrapping_sub(fetched as u16)));
        let next_in_line = producer == fetched.wrapping_add(1)
            && pair.transmit.producer == fetched
            && pair.arrived == fetched;
        let usable = pushed.complete(pair.transmit.stride) && next_in_line && enabled && room;
        if usable && pair.transmit.doorbell(producer).is_ok() {
            pair.doorbells.push_back(Announced { producer, accepted_at: now, issued_at });
            pair.transmit.fetched = producer;
            pair.arrived = producer;
            self.transmit.prefetched[usize::from(queue)] += 1;
            self.transmit.pushes += 1;
            if let Err(cause) = self.take_descriptor(queue, fetched, Slot::Pushed(window)) {
                self.quarantine(queue, cause);
            }
            self.wipe_window(queue, window);
            self.gather();
        } else {
            self.wipe_window(queue, window);
            self.transmit_doorbell(queue, producer, issued_at);
        }
    }

    fn wipe_window(&mut self, queue: u16, window: usize) {
        if let Some(window) =
            self.queues.get_mut(usize::from(queue)).and_then(|pair| pair.windows.get_mut(window))
        {
            window.wipe();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_complete_when_every_word_of_the_slot_was_written_since_the_first() {
        for (name, halves, bytes, complete) in [
            ("in order", (0..16).collect::<Vec<u32>>(), 64, true),
            ("one missing", (0..16).filter(|half| *half != 9).collect(), 64, false),
            ("half a line for stride 32", (0..8).collect(), 32, true),
            ("one line of two", (0..16).collect(), 128, false),
            ("both lines", (0..32).collect(), 128, true),
            ("begun anew halfway", (0..10).chain(0..1).chain(10..16).collect(), 64, false),
        ] {
            let mut window = PushWindow::default();
            for half in halves {
                window.write(half, half, Ticks::ZERO);
            }
            assert_eq!(window.complete(bytes), complete, "{name}");
        }
    }

    #[test]
    fn the_extent_word_is_known_when_both_its_halves_were_written() {
        let mut window = PushWindow::default();
        window.write(6, 0x40, Ticks(7));
        assert_eq!(window.extent(), None);
        window.write(7, 5, Ticks(8));
        assert_eq!(window.extent().map(TransmitExtent::into_bits), Some(5 << 32 | 0x40));
        assert_eq!(window.issued_at, Ticks(7), "the push began with its first store");
    }
}
