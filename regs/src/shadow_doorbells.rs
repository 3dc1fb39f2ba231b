//! Shadow doorbells: the doorbells of every queue pair in host memory, so that ringing them is a store to memory, and
//! an event index beside each, by which the device says when it wants the doorbell itself. For devices behind which a
//! register write is dear: one that is served by another process takes tens of microseconds for it.
//!
//! ```text
//!   host                                             device
//!   ────                                             ──────
//!   descriptors                                      (awake: event indices are behind the counts, and it looks)
//!   count (release)                                  event index = the count that it knows
//!   full fence                                       full fence
//!   event index passed? ─▶ doorbell, same count      count ahead of that? ─▶ stay awake, else sleep
//! ```
//!
//! The rule is that of NVMe (NVM Express 1.3, 5.7 and B.5), for free-running counts of 32 bits. The manual has the rest
//! of it.

use crate::declare::{bits, record, registers};

/// Base-2 logarithm of what both arrays are aligned to. They have a line of 64 bytes for each queue pair, so that neither
/// is longer than this.
pub const SHADOW_ALIGNMENT_LOG2: u32 = 12;

/// Whether a host that raised a doorbell's count from `old` to `new` has passed the event index, and so writes the
/// doorbell. Counts wrap; `old` and `new` are fewer than 2^32 apart.
pub const fn doorbell_wanted(event_index: u32, old: u32, new: u32) -> bool {
    new.wrapping_sub(event_index).wrapping_sub(1) < new.wrapping_sub(old)
}

bits! {
    /// Shadow doorbell control.
    pub struct ShadowDoorbellControl: u32 {
        /// Turns shadow doorbells on, for queue pairs that are turned on after it; both bases must be set before. Turning
        /// them off leaves every queue pair with its doorbells alone.
        enable: bool = 1,
        /// Reserved.
        _reserved: u32 = 31,
    }
    /// Shadow doorbell state.
    pub struct ShadowDoorbellStatus: u32 {
        /// They are on.
        enabled: bool = 1,
        /// They were refused: a base is not aligned, or is 2^60 or more.
        stopped: bool = 1,
        /// Reserved.
        _reserved: u32 = 30,
    }
    /// A doorbell's count in host memory.
    pub struct ShadowCount: u64 {
        /// The count, as the doorbell in BAR2 takes it.
        count: u32 = 32,
        /// Reserved.
        _reserved: u32 = 32,
    }
}

record! {
    /// Shadow doorbells of one queue pair: the host writes them and the device reads them.
    pub struct ShadowDoorbells[8] {
        /// Producer index of the transmit ring.
        transmit: ShadowCount,
        /// Producer index of the receive ring.
        receive: ShadowCount,
        /// How often the host has armed the interrupt.
        interrupt_arm: ShadowCount,
        /// Reserved.
        reserved_0: u64,
        /// Reserved.
        reserved_1: u64,
        /// Reserved.
        reserved_2: u64,
        /// Reserved.
        reserved_3: u64,
        /// Reserved.
        reserved_4: u64,
    }
    /// Event indices of one queue pair: the device writes them and the host reads them. A host whose count passes one
    /// writes that doorbell: 0, which the host puts there first, is passed by the first count.
    pub struct EventIndices[8] {
        /// Of the transmit doorbell.
        transmit: ShadowCount,
        /// Of the receive doorbell.
        receive: ShadowCount,
        /// Of the interrupt's arming.
        interrupt_arm: ShadowCount,
        /// Reserved.
        reserved_0: u64,
        /// Reserved.
        reserved_1: u64,
        /// Reserved.
        reserved_2: u64,
        /// Reserved.
        reserved_3: u64,
        /// Reserved.
        reserved_4: u64,
    }
}

registers! {
    /// Shadow doorbells, there if [`crate::bar0::DescriptorCapability`] has `shadow_doorbells`; without it these registers
    /// read 0 and take nothing, or the block is missing. Host memory has two arrays with an element of 64 bytes for each
    /// queue pair: [`ShadowDoorbells`], which the device only reads, and [`EventIndices`]. They are turned on before the
    /// queue pairs that use them; function-level reset turns them off.
    pub block SHADOW_DOORBELLS, kind 12, version 1, at 0x1500, stride 0x100 {
        /// Shadow doorbell control.
        0x00 ReadWrite SHADOW_DOORBELL_CONTROL: ShadowDoorbellControl;
        /// Shadow doorbell state.
        0x04 ReadOnly SHADOW_DOORBELL_STATUS: ShadowDoorbellStatus;
        /// IOVA of the array of [`ShadowDoorbells`], aligned to 4096 bytes. Taken while they are off.
        0x08 ReadWrite SHADOW_DOORBELL_BASE: u64;
        /// IOVA of the array of [`EventIndices`], aligned to 4096 bytes. Taken while they are off.
        0x10 ReadWrite EVENT_INDEX_BASE: u64;
    }
}
