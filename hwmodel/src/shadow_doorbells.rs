//! Shadow doorbells: the host stores what it would write to a doorbell in memory, and the device looks there.
//!
//! ```text
//!   host store ──▶ element of the queue pair ──▶ look: a count ahead of what is known? ──▶ as the doorbell's write
//!   host, if its count passes the event index ──▶ doorbell ─────────────────────────────────────────┘
//! ```
//!
//! A look takes no time of the link: what serves this device looks as often as it likes (`docs/timing.md`). Counts come
//! from two places, so one that is behind what is known is late, and announces nothing. Whatever memory holds, a count
//! goes the way of a doorbell's write, and is checked there.

use std::sync::atomic::{Ordering, fence};

use crate::Ticks;
use cryptonic_pci::host::Bar;
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, INTERRUPT_ARM, RECEIVE_DOORBELL, TRANSMIT_DOORBELL};
use cryptonic_regs::shadow_doorbells::{
    EVENT_INDEX_BASE, EventIndices, SHADOW_ALIGNMENT_LOG2, SHADOW_DOORBELL_BASE, SHADOW_DOORBELL_CONTROL,
    SHADOW_DOORBELL_STATUS, ShadowDoorbellControl, ShadowDoorbellStatus, ShadowDoorbells,
};
use cryptonic_regs::{Register, Status};

use crate::events::{RegisterData, RegisterWrite};
use crate::host_memory::DmaFault;
use crate::nic::Nic;
use crate::world::{Inner, NicId, World};

/// Doorbells of a queue pair, in the order of its element.
const DOORBELLS: [Register<u32>; 3] = [TRANSMIT_DOORBELL, RECEIVE_DOORBELL, INTERRUPT_ARM];
/// Places in an element.
pub(crate) const TRANSMIT: usize = 0;
pub(crate) const RECEIVE: usize = 1;
pub(crate) const ARM: usize = 2;

/// State of the registers.
#[derive(Default)]
pub(crate) struct ShadowRegisters {
    control: ShadowDoorbellControl,
    status: ShadowDoorbellStatus,
    doorbell_base: u64,
    event_index_base: u64,
}

impl ShadowRegisters {
    /// Whether they are on.
    #[inline]
    pub(crate) fn on(&self) -> bool {
        self.status.enabled()
    }

    /// A 64-bit register.
    pub(crate) fn wide(&self, offset: u32) -> Option<u64> {
        match offset {
            _ if offset == SHADOW_DOORBELL_BASE.offset => Some(self.doorbell_base),
            _ if offset == EVENT_INDEX_BASE.offset => Some(self.event_index_base),
            _ => None,
        }
    }

    /// A 32-bit register.
    pub(crate) fn narrow(&self, offset: u32) -> Option<u32> {
        match offset {
            _ if offset == SHADOW_DOORBELL_CONTROL.offset => Some(self.control.into_bits()),
            _ if offset == SHADOW_DOORBELL_STATUS.offset => Some(self.status.into_bits()),
            _ => None,
        }
    }

    fn turn_on(&mut self) {
        let good = |base: u64| base.trailing_zeros() >= SHADOW_ALIGNMENT_LOG2 && base < 1 << 60;
        let good = good(self.doorbell_base) && good(self.event_index_base);
        self.status = ShadowDoorbellStatus::new().with_enabled(good).with_stopped(!good);
    }
}

/// What a queue pair has of them. Default: it has doorbells alone.
#[derive(Default)]
pub struct ShadowLine {
    /// The pair has them.
    pub on: bool,
    /// The last counts that were found, or told by doorbells.
    known: [u32; 3],
    /// The event indices ask for the next doorbell.
    asks: bool,
    /// An arming was found and has not taken effect.
    arming: bool,
    /// A completion was written, without an interrupt, since the last look that found no arming.
    pub completed: bool,
}

impl ShadowLine {
    /// Takes notice of a count. Says whether it announces anything where `taken` was taken before.
    pub fn takes(&mut self, place: usize, count: u32, taken: u32) -> bool {
        if !self.on {
            return true;
        }
        if let Some(known) = self.known.get_mut(place).filter(|known| is_ahead(count, **known)) {
            *known = count;
        }
        is_ahead(count, taken)
    }

    /// Takes notice of an arming. Says whether a completion came that it holds for.
    pub fn arms(&mut self, count: u32) -> bool {
        if self.on {
            self.takes(ARM, count, count);
        }
        self.on && std::mem::take(&mut self.completed)
    }
}

/// Whether a count is ahead of another: it is not the same, and not fewer than 2^31 behind.
fn is_ahead(count: u32, known: u32) -> bool {
    known.wrapping_sub(count) >= 1 << 31
}

impl Nic {
    /// The host writes at an offset of BAR0: whether it is one of these registers. `wide` is the value of a 64-bit one.
    pub(crate) fn shadow_register_write(&mut self, offset: u32, value: u32, wide: u64) -> bool {
        let offered = self.parameters.host.shadow_doorbells;
        let shadow = &mut self.shadow;
        match offset {
            _ if offset == SHADOW_DOORBELL_CONTROL.offset => {
                let enable = ShadowDoorbellControl::from_bits(value).enable();
                if !offered || enable == shadow.control.enable() {
                    return true;
                }
                *shadow = ShadowRegisters {
                    control: ShadowDoorbellControl::new().with_enable(enable),
                    status: ShadowDoorbellStatus::new(),
                    ..*shadow
                };
                if enable {
                    shadow.turn_on();
                } else {
                    self.queues.iter_mut().for_each(|pair| pair.shadow = ShadowLine::default());
                }
            }
            _ if offset == SHADOW_DOORBELL_BASE.offset => {
                if offered && !shadow.control.enable() {
                    shadow.doorbell_base = wide;
                }
            }
            _ if offset == EVENT_INDEX_BASE.offset => {
                if offered && !shadow.control.enable() {
                    shadow.event_index_base = wide;
                }
            }
            _ if offset == SHADOW_DOORBELL_STATUS.offset => {}
            _ => return false,
        }
        true
    }

    /// A queue pair was turned on: if it has shadow doorbells, its host need not ring.
    pub(crate) fn begin_shadow(&mut self, queue: u16) {
        if !self.shadow.on() {
            return;
        }
        if let Some(pair) = self.queues.get_mut(usize::from(queue)) {
            pair.shadow = ShadowLine { on: true, ..ShadowLine::default() };
            self.ask_for_doorbells(queue, false);
        }
    }

    /// Looks at the counts of every queue pair. What is new takes effect as a doorbell's write would that arrives at `at`.
    /// Says whether something was.
    pub(crate) fn look_at_shadow(&mut self, at: Ticks) -> bool {
        if !self.shadow.on() {
            return false;
        }
        let mut news = false;
        for queue in 0..self.queues.len() as u16 {
            news |= self.look_at_counts(queue, at);
        }
        news
    }

    fn look_at_counts(&mut self, queue: u16, at: Ticks) -> bool {
        let Some(counts) = self.counts(queue) else { return false };
        let Some(pair) = self.queues.get_mut(usize::from(queue)).filter(|pair| pair.running()) else {
            return true; // Its element is out of reach.
        };
        let line = &mut pair.shadow;
        let asked = std::mem::take(&mut line.asks);
        let mut news = false;
        for (place, (count, register)) in counts.into_iter().zip(DOORBELLS).enumerate() {
            if !is_ahead(count, line.known[place]) {
                continue;
            }
            line.known[place] = count;
            line.arming |= place == ARM;
            news = true;
            let write = RegisterWrite {
                bar: Bar::Bar2,
                offset: u32::from(queue) * DOORBELL_PAGE_BYTES + register.offset,
                data: RegisterData::Shadow { count, epoch: pair.epoch },
                issued_at: at,
            };
            self.events.seldom.change(|queues| queues.register_writes.push(at, write));
        }
        // Completions before this look were in memory before the host armed, and it looked after that.
        line.completed &= line.arming;
        if asked {
            self.ask_for_doorbells(queue, false);
        }
        news
    }

    /// Asks the host to ring from now on. Says whether nothing is new: who serves the device may sleep until then.
    pub(crate) fn arm_shadow(&mut self) -> bool {
        if !self.shadow.on() {
            return true;
        }
        let mut quiet = true;
        for queue in 0..self.queues.len() as u16 {
            self.ask_for_doorbells(queue, true);
            let Some(counts) = self.counts(queue) else { continue };
            quiet &= self.queues.get(usize::from(queue)).is_some_and(|pair| {
                pair.running()
                    && counts.iter().zip(pair.shadow.known).all(|(count, known)| !is_ahead(*count, known))
            });
        }
        quiet
    }

    /// The counts of a queue pair, if it has any. What the device wrote to memory is there before they are read, and what
    /// it reads of memory is read after them. A pair whose element is out of reach is stopped, and has counts of 0.
    fn counts(&mut self, queue: u16) -> Option<[u32; 3]> {
        if !self.queues.get(usize::from(queue))?.shadow.on {
            return None;
        }
        let mut words = [0; 3];
        let address = self.shadow.doorbell_base + u64::from(queue) * ShadowDoorbells::BYTES as u64;
        fence(Ordering::SeqCst);
        let outcome = self.memory.read_words(address, &mut words);
        fence(Ordering::SeqCst);
        if outcome == Err(DmaFault) {
            self.quarantine(queue, Status::RingDmaFault);
        }
        Some(words.map(|word| word as u32))
    }

    /// Writes the event indices of a queue pair that has them: the counts that are known, so that the next passes them, or
    /// one less, so that none does.
    fn ask_for_doorbells(&mut self, queue: u16, ask: bool) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)).filter(|pair| pair.shadow.on) else {
            return;
        };
        pair.shadow.asks = ask;
        let words = pair.shadow.known.map(|count| u64::from(count.wrapping_sub(u32::from(!ask))));
        let address = self.shadow.event_index_base + u64::from(queue) * EventIndices::BYTES as u64;
        if self.memory.write_words(address, &words) == Err(DmaFault) {
            self.quarantine(queue, Status::RingDmaFault);
        }
    }

    /// A count that was found in memory takes effect, if the pair was not turned off since.
    pub(crate) fn shadow_count(&mut self, offset: u32, count: u32, epoch: u32, issued_at: Ticks) {
        let queue = (offset / DOORBELL_PAGE_BYTES) as u16;
        if self.queue_epoch(queue) != Some(epoch) {
            return;
        }
        let at = offset % DOORBELL_PAGE_BYTES;
        if at == INTERRUPT_ARM.offset {
            self.queues[usize::from(queue)].shadow.arming = false;
        }
        self.doorbell(queue, at, count, issued_at);
    }
}

impl World {
    /// Looks at the shadow doorbells of a NIC, for who serves it to another process. What is new takes effect when its host
    /// is free, as the doorbell's write would. Says whether something was; without shadow doorbells nothing is. Who waits for
    /// a host in this process need not: its calls look at them.
    pub fn poll_shadow_doorbells(&self, nic: NicId) -> bool {
        self.0.borrow_mut().look_at_shadow(nic.0)
    }

    /// Has the host of a NIC write its doorbells from now on, until the next [`World::poll_shadow_doorbells`]. Says whether
    /// nothing new is in its shadow doorbells: if so, who serves the NIC may sleep until a register is written.
    pub fn arm_shadow_doorbells(&self, nic: NicId) -> bool {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        let one = &mut inner.nics[nic.0];
        one.now = now;
        let quiet = one.arm_shadow();
        inner.refresh(nic.0);
        quiet
    }

    /// Writes to doorbells of a NIC that came as register writes, since power-on.
    pub fn doorbell_writes(&self, nic: NicId) -> u64 {
        self.0.borrow().nics[nic.0].doorbell_writes
    }
}

impl Inner {
    /// Looks at the shadow doorbells of every NIC.
    #[inline]
    pub(crate) fn look_at_every_shadow(&mut self) {
        for nic in 0..self.nics.len() {
            if self.nics[nic].shadow.on() {
                self.look_at_shadow(nic);
            }
        }
    }

    /// Looks at those of one: a host has written what it wrote when it is free.
    #[cold]
    fn look_at_shadow(&mut self, nic: usize) -> bool {
        let (now, free_at) = (self.now, self.host_free_at(nic));
        let one = &mut self.nics[nic];
        one.now = now;
        let news = one.look_at_shadow(free_at);
        self.refresh(nic);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_ahead_by_less_than_half_of_all_counts_or_behind() {
        for (count, known, ahead) in [
            (0, 0, false),
            (1, 0, true),
            (0, 1, false),
            (0, u32::MAX, true),
            (u32::MAX, 0, false),
            (5, 5 + (1 << 31) - 1, false),
            (5, 5 + (1 << 31), true),
            ((1 << 31) + 7, 7, true),
        ] {
            assert_eq!(is_ahead(count, known), ahead, "{count:#x} after {known:#x}");
            let mut line = ShadowLine { on: true, known: [known; 3], ..ShadowLine::default() };
            assert_eq!(line.takes(RECEIVE, count, known), ahead);
            assert_eq!(line.known, [known, if ahead { count } else { known }, known]);
            assert!(ShadowLine::default().takes(RECEIVE, count, known), "a doorbell alone is never late");
        }
    }
}
