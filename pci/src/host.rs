//! The host side: what a driver holds of a PCI function, whatever is behind it.

use std::io;

use thiserror::Error;

use crate::{SharedMemory, Time};

/// A base address register, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// BAR0.
    Bar0,
    /// BAR2.
    Bar2,
    /// BAR4.
    Bar4,
}

/// What the device may do with mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaAccess {
    /// The device may read.
    DeviceReads,
    /// The device may read and write.
    DeviceReadsAndWrites,
}

/// Work of the host that takes time where time is modelled, and is the host's own business elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A burst of packets was prepared for transmission or taken from a receive ring.
    Burst {
        /// How many packets.
        packets: u32,
    },
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The interrupt came.
    Interrupt,
    /// The deadline passed.
    Deadline,
}

/// Why an access to the function failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// The function is gone: removed, its server ended, or all-ones everywhere.
    #[error("the device is gone")]
    Gone,
    /// An access that no register of this size can answer.
    #[error("{bar:?} has no register at {offset:#x}")]
    OutOfRange {
        /// The BAR.
        bar: Bar,
        /// Byte offset.
        offset: u32,
    },
    /// The host could not map memory for the device.
    #[error("mapping memory for the device at IOVA {iova:#x}: {reason}")]
    Map {
        /// Where.
        iova: u64,
        /// Why.
        reason: String,
    },
    /// Whoever stands between driver and function refuses, and says why and what to do.
    #[error("{reason}")]
    Refused {
        /// A sentence.
        reason: String,
    },
    /// The system that carries accesses to the function failed at one.
    #[error("{access} failed: {reason}")]
    Access {
        /// What was tried.
        access: String,
        /// Why it failed.
        reason: String,
    },
    /// The function cannot do this.
    #[error("the device does not support {0}")]
    Unsupported(&'static str),
}

/// A PCI function as its driver sees it.
///
/// Registers are accessed by 32 bits. The host side owns no time of its own: every deadline of a driver is
/// made of [`Host::now`], and every loop that polls calls [`Host::relax`] or [`Host::wait`]. On a modelled
/// device time moves only in those calls and in register reads; on a real one they are the wall clock.
pub trait Host {
    /// Reads config space; `offset` is aligned to 4 bytes.
    fn config_read(&self, offset: u16) -> Result<u32, HostError>;
    /// Writes config space; `offset` is aligned to 4 bytes.
    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError>;

    /// Reads a register and waits for the answer.
    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError>;
    /// Writes a register. Posted: it arrives later, and after every write to memory made before it.
    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError>;
    /// Writes 64 bytes as one transaction if the machine can, in ascending order if not.
    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError>;

    /// Zeroed memory that [`Host::dma_map`] takes, rounded up as the host likes; in huge pages where that makes
    /// the work of an IOMMU less.
    fn memory(&self, bytes: usize) -> io::Result<SharedMemory> {
        SharedMemory::new(bytes)
    }
    /// Where the device is to see `memory`, which the driver would like to have at `wanted`. A host whose IOMMU translates
    /// takes what is wanted; one without has no choice.
    fn address_of(&self, _memory: &SharedMemory, wanted: u64) -> Result<u64, HostError> {
        Ok(wanted)
    }
    /// Lets the device reach `memory` from `iova` on, which [`Host::address_of`] gave.
    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError>;
    /// Ends a mapping. When it returns, no access of the device to it is under way.
    fn dma_unmap(&self, iova: u64) -> Result<(), HostError>;

    /// Turns MSI-X on with this many vectors, unmasked.
    fn interrupts_enable(&self, vectors: u16) -> Result<(), HostError>;

    /// The time of this host.
    fn now(&self) -> Time;
    /// Accounts for work of the host.
    fn spend(&self, work: Work);
    /// Gives time away: returns when something that a host can see may have changed.
    fn relax(&self);
    /// Sleeps until interrupt `vector` or the deadline.
    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError>;

    /// Function-level reset. The caller has quiesced its queues.
    fn reset(&self) -> Result<(), HostError>;

    /// Reads a 64-bit register: the low half, which latches the high half, then the high half.
    fn read64(&self, bar: Bar, offset: u32) -> Result<u64, HostError> {
        let low = self.read32(bar, offset)?;
        let high = self.read32(bar, offset + 4)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// Writes a 64-bit register: the high half, then the low half, which makes the write take effect.
    fn write64(&self, bar: Bar, offset: u32, value: u64) -> Result<(), HostError> {
        self.write32(bar, offset + 4, (value >> 32) as u32)?;
        self.write32(bar, offset, value as u32)
    }
}
