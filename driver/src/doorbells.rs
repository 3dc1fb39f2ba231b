//! Doorbells: registers of a queue pair's page, or counts in host memory where the device takes them from there.
//!
//! With shadow doorbells a doorbell is a store, a fence and a load; its register is written only when the device asked for
//! it by an event index. What the device writes there is believed in nothing but that: the worst it can do is a register
//! write too many, or one that is missing, and every wait has its deadline.

use std::sync::atomic::{Ordering, fence};

use cryptonic_pci::memory::OutOfBounds;
use cryptonic_pci::{Bar, DmaAccess, Host, SharedMemory};
use cryptonic_regs::bar0::QUEUE_PAIRS_MAX;
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, INTERRUPT_ARM, RECEIVE_DOORBELL, TRANSMIT_DOORBELL};
use cryptonic_regs::shadow_doorbells::{
    EVENT_INDEX_BASE, EventIndices, SHADOW_DOORBELL_BASE, SHADOW_DOORBELL_CONTROL, SHADOW_DOORBELL_STATUS,
    ShadowDoorbellControl, ShadowDoorbells, doorbell_wanted,
};

use crate::shared::{Arena, Shared};
use crate::{Error, QueueError};

const _: () = assert!(ShadowDoorbells::BYTES == EventIndices::BYTES);

/// Which doorbell; the number is its word in an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doorbell {
    Transmit = 0,
    Receive = 1,
    InterruptArm = 2,
}

impl Doorbell {
    const COUNT: usize = 3;

    /// Where it is in a queue pair's page.
    const fn offset(self) -> u32 {
        match self {
            Doorbell::Transmit => TRANSMIT_DOORBELL.offset,
            Doorbell::Receive => RECEIVE_DOORBELL.offset,
            Doorbell::InterruptArm => INTERRUPT_ARM.offset,
        }
    }
}

/// The memory of a NIC's shadow doorbells.
pub(crate) struct ShadowMemory {
    /// Counts: the device only reads them.
    counts: Arena,
    event_indices: Arena,
}

impl ShadowMemory {
    /// Turns shadow doorbells on. `None` if the device refuses what it offers.
    pub(crate) fn turn_on(shared: &Shared) -> Result<Option<ShadowMemory>, Error> {
        let bytes = QUEUE_PAIRS_MAX as usize * ShadowDoorbells::BYTES;
        let counts = shared.arena(bytes, DmaAccess::DeviceReads)?;
        let event_indices = shared
            .arena(bytes, DmaAccess::DeviceReadsAndWrites)
            .inspect_err(|_| drop(shared.unmap(&counts)))?;
        let memory = ShadowMemory { counts, event_indices };
        let on = || -> Result<bool, Error> {
            shared.write(SHADOW_DOORBELL_BASE, memory.counts.iova)?;
            shared.write(EVENT_INDEX_BASE, memory.event_indices.iova)?;
            shared.write(SHADOW_DOORBELL_CONTROL, ShadowDoorbellControl::new().with_enable(true))?;
            let on = shared.read(SHADOW_DOORBELL_STATUS)?.enabled();
            if !on {
                shared.write(SHADOW_DOORBELL_CONTROL, ShadowDoorbellControl::new())?;
            }
            Ok(on)
        };
        match on() {
            Ok(true) => Ok(Some(memory)),
            outcome => {
                memory.unmap(shared)?;
                outcome.map(|_| None)
            }
        }
    }

    /// Takes the memory back from the device.
    pub(crate) fn unmap(&self, shared: &Shared) -> Result<(), Error> {
        let counts = shared.unmap(&self.counts);
        Ok(counts.and(shared.unmap(&self.event_indices))?)
    }
}

/// The doorbells of a queue pair.
pub(crate) struct Doorbells {
    /// Byte offset of the pair's page in BAR2.
    page: u32,
    shadow: Option<ShadowLine>,
}

/// The counts of a queue pair in host memory, and its event indices.
struct ShadowLine {
    counts: SharedMemory,
    event_indices: SharedMemory,
    /// Of the pair's element, in both.
    offset: usize,
    /// The last counts; those in memory are never read back.
    rung: [u32; Doorbell::COUNT],
}

impl Doorbells {
    /// Those of a queue pair that is about to be turned on.
    pub(crate) fn new(shared: &Shared, index: u32) -> Result<Self, OutOfBounds> {
        let shadow = match shared.shadow.get() {
            Some(memory) => {
                let offset = index as usize * ShadowDoorbells::BYTES;
                memory.counts.memory.zeroise(offset, ShadowDoorbells::BYTES)?;
                memory.event_indices.memory.zeroise(offset, EventIndices::BYTES)?;
                let (counts, event_indices) =
                    (memory.counts.memory.clone(), memory.event_indices.memory.clone());
                Some(ShadowLine { counts, event_indices, offset, rung: [0; Doorbell::COUNT] })
            }
            None => None,
        };
        Ok(Doorbells { page: index * DOORBELL_PAGE_BYTES, shadow })
    }

    /// Whether the device takes counts from memory.
    #[inline]
    pub(crate) fn shadowed(&self) -> bool {
        self.shadow.is_some()
    }

    /// Rings a doorbell: what was written to memory before is there when the device hears of it. Says whether a register was
    /// written.
    #[inline]
    pub(crate) fn ring(
        &mut self,
        host: &dyn Host,
        doorbell: Doorbell,
        count: u32,
    ) -> Result<bool, QueueError> {
        if let Some(line) = &mut self.shadow
            && !line.ring(doorbell, count)?
        {
            return Ok(false);
        }
        host.write32(Bar::Bar2, self.page + doorbell.offset(), count)?;
        Ok(true)
    }

    /// Arms the interrupt.
    pub(crate) fn arm_interrupt(&mut self, host: &dyn Host) -> Result<bool, QueueError> {
        let armed = self.shadow.as_ref().map_or(0, |line| line.rung[Doorbell::InterruptArm as usize]);
        self.ring(host, Doorbell::InterruptArm, armed.wrapping_add(1))
    }
}

impl ShadowLine {
    /// Stores a count. Says whether the device wants the register written.
    fn ring(&mut self, doorbell: Doorbell, count: u32) -> Result<bool, OutOfBounds> {
        let word = self.offset + doorbell as usize * 8;
        self.counts.write_word_release(word, count.into())?;
        // A device that goes to sleep writes the event index, fences, and looks at the count: with a fence here too, one of
        // both sees what the other wrote.
        fence(Ordering::SeqCst);
        let event_index = self.event_indices.read_word(word)? as u32;
        let before = std::mem::replace(&mut self.rung[doorbell as usize], count);
        Ok(doorbell_wanted(event_index, before, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_doorbell_is_the_word_of_its_element() {
        for (doorbell, name) in [
            (Doorbell::Transmit, "transmit"),
            (Doorbell::Receive, "receive"),
            (Doorbell::InterruptArm, "interrupt_arm"),
        ] {
            for row in [ShadowDoorbells::ROW, EventIndices::ROW] {
                assert_eq!(row.words.iter().position(|word| word.name == name), Some(doorbell as usize));
            }
        }
    }
}
