//! Memory of the caller's that the device may read: frames are sent from it without a copy.

use std::fmt;
use std::rc::Rc;

use cryptonic_pci::{DmaAccess, SharedMemory};

use crate::shared::{Arena, Shared};
use crate::{Error, Nic, QueueError};

/// A range of registered memory, which its owner alone can write and send. It is moved into a packet by
/// [`crate::QueuePair::attach_region`] and comes back when the packet has ended, so that nothing under way can
/// change. Splitting it gives ranges that are owned, and sent, one by one.
///
/// The memory is a sealed arena that the device may only read; it is unmapped with the last of its ranges.
pub struct Region {
    memory: Rc<RegionMemory>,
    offset: usize,
    bytes: usize,
}

/// What the ranges of one registration share.
pub(crate) struct RegionMemory {
    pub(crate) arena: Arena,
    shared: Rc<Shared>,
}

impl Region {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies bytes in, from `offset` of the range on.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), QueueError> {
        let start = self.place(offset, bytes.len())?;
        Ok(self.memory.arena.memory.write(start, bytes)?)
    }

    /// Copies bytes out, from `offset` of the range on.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), QueueError> {
        let start = self.place(offset, bytes.len())?;
        Ok(self.memory.arena.memory.read(start, bytes)?)
    }

    /// Cuts the range at `at`: it keeps what is before, the result is what is behind. `None` if it ends before.
    pub fn split_off(&mut self, at: usize) -> Option<Region> {
        let bytes = self.bytes.checked_sub(at)?;
        self.bytes = at;
        Some(Region { memory: self.memory.clone(), offset: self.offset + at, bytes })
    }

    /// Takes back what was cut off directly behind. Any other range comes back.
    pub fn join(&mut self, behind: Region) -> Result<(), Region> {
        if !Rc::ptr_eq(&self.memory, &behind.memory) || self.offset + self.bytes != behind.offset {
            return Err(behind);
        }
        self.bytes += behind.bytes;
        Ok(())
    }

    fn place(&self, offset: usize, bytes: usize) -> Result<usize, QueueError> {
        let room = self.bytes.saturating_sub(offset);
        if offset > self.bytes || bytes > room {
            return Err(QueueError::TooLong { bytes, room });
        }
        Ok(self.offset + offset)
    }

    pub(crate) fn is_of(&self, shared: &Rc<Shared>) -> bool {
        Rc::ptr_eq(&self.memory.shared, shared)
    }

    pub(crate) fn iova(&self) -> u64 {
        self.memory.arena.iova + self.offset as u64
    }

    /// Its memory, and where it begins there.
    pub(crate) fn source(&self) -> (&SharedMemory, usize) {
        (&self.memory.arena.memory, self.offset)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Region({} bytes at {:#x})", self.bytes, self.iova())
    }
}

impl Drop for RegionMemory {
    fn drop(&mut self) {
        let _ = self.shared.unmap(&self.arena);
    }
}

impl Nic {
    /// Registers zeroed memory of `bytes`, at least 1, from which frames are sent without a copy.
    pub fn register_memory(&mut self, bytes: usize) -> Result<Region, Error> {
        self.alive()?;
        if bytes == 0 {
            return Err(Error::Argument("registered memory has a byte at least"));
        }
        let arena = self.shared.arena(bytes, DmaAccess::DeviceReads)?;
        let memory = Rc::new(RegionMemory { arena, shared: self.shared.clone() });
        let mut regions = self.shared.regions.borrow_mut();
        regions.retain(|region| region.strong_count() > 0);
        regions.push(Rc::downgrade(&memory));
        Ok(Region { memory, offset: 0, bytes })
    }
}
