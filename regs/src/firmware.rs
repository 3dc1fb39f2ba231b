//! What firmware sees: a 32-bit address space of its own. The host cannot reach it.
//!
//! Hardware fetches an admin command into the mailbox; firmware moves parameter blocks and replies through
//! the DMA engine to and from its scratch memory, and drives the SA table and the PSP key hardware. Keys pass
//! between host memory and those two directly: no register here shows one.

use crate::bar0::InterruptModeration;
use crate::declare::{bits, enumeration, registers};
use crate::psp_policy::PspRotation;
use crate::rows::Block;

/// Byte address of the scratch memory.
pub const SCRATCH_ADDRESS: u32 = 0x1000;
/// Bytes of scratch memory.
pub const SCRATCH_BYTES: u32 = 0x1000;
/// Every block of the firmware's address space.
pub const BLOCKS: &[Block] = &[MAILBOX, DMA_ENGINE, SA_TABLE, PSP_KEYS, EVENT_RING];

enumeration! {
    /// What the SA table is asked to do with slot [`SA_INDEX`].
    pub enum SaOperation {
        /// Puts the public words in scratch memory (from [`SA_SCRATCH`] on) and the secret words in host
        /// memory (at [`SA_HOST_LOW`], [`SA_HOST_HIGH`]) into the slot and gives it a new generation. The slot is staged:
        /// no packet uses it before the command in the mailbox completes with `ok`.
        Install = 1, "install";
        /// No packet may begin to use the slot; waits until none does; zeroises every copy of its key.
        Delete = 2, "delete";
        /// Writes the slot's state to scratch memory as a `SaStateReply`, from [`SA_SCRATCH`] on.
        Query = 3, "query";
        /// Arms the soft limit anew, at the value in [`SA_HOST_LOW`], [`SA_HOST_HIGH`].
        Arm = 4, "arm";
    }
    /// What the PSP key hardware is asked to do.
    pub enum PspOperation {
        /// Takes [`PSP_COUNT`] SPIs of the active device key, derives their keys of version [`PSP_VERSION`]
        /// and writes the records to host memory at [`PSP_HOST_LOW`], [`PSP_HOST_HIGH`].
        Allocate = 1, "allocate";
        /// Puts a fresh random key in place of the inactive device key and makes it active. [`PSP_COUNT`] says why: the
        /// [`crate::events::EventCause`] number of the event.
        Rotate = 2, "rotate";
        /// Loads both device keys from host memory at [`PSP_HOST_LOW`], [`PSP_HOST_HIGH`].
        TestKeyLoad = 3, "test_key_load";
        /// Loads the next IV from [`PSP_HOST_LOW`], [`PSP_HOST_HIGH`] (the value itself).
        TestIvLoad = 4, "test_iv_load";
    }
    /// How an operation of the hardware ended.
    pub enum Outcome {
        /// Done.
        Ok = 0, "ok";
        /// The IOMMU refused an access.
        DmaFault = 1, "dma_fault";
        /// An inbound SA with this protocol, SPI and destination exists.
        DuplicateSpi = 2, "duplicate_spi";
        /// The slot is not in the state that the operation needs.
        WrongState = 3, "wrong_state";
        /// The active device key has too few SPIs left, or is not valid.
        NoSpiLeft = 4, "no_spi_left";
        /// The test operations are locked.
        Locked = 5, "locked";
        /// An argument is out of range.
        BadArgument = 6, "bad_argument";
    }
}

bits! {
    /// State of the mailbox.
    pub struct MailboxStatus: u32 {
        /// A command is in the mailbox.
        pending: bool = 1,
        /// Reserved.
        _reserved: u32 = 31,
    }
    /// What firmware did so far with the command in the mailbox.
    pub struct MailboxNote: u32 {
        /// Firmware began to serve the command: it may have had effects.
        taken: bool = 1,
        /// Reserved.
        _reserved: u32 = 31,
    }
    /// State of an engine.
    pub struct EngineStatus: u32 {
        /// An operation is under way; the other fields are of the last one.
        busy: bool = 1,
        /// Reserved.
        _reserved0: u8 = 7,
        /// An [`Outcome`] number.
        outcome: u8 = 8,
        /// Reserved.
        _reserved1: u16 = 16,
    }
    /// Starts a transfer.
    pub struct DmaCommand: u32 {
        /// From scratch to host; else from host to scratch.
        to_host: bool = 1,
        /// Reserved.
        _reserved: u32 = 31,
    }
}

registers! {
    /// The mailbox: one admin command at a time.
    pub block MAILBOX, kind 32, version 1, at 0x0000, stride 0x100 {
        /// Whether a command is waiting.
        0x00 ReadOnly MAILBOX_STATUS: MailboxStatus;
        /// Result of the command, low half.
        0x04 ReadWrite MAILBOX_RESULT_LOW: u32;
        /// Result of the command, high half.
        0x08 ReadWrite MAILBOX_RESULT_HIGH: u32;
        /// An `AdminStatus` number: completes the command and empties the mailbox. With `ok`, packets may use every slot
        /// that is staged from the moment on when the completion is in host memory; if it cannot get there, these slots
        /// are emptied.
        0x0c WriteOnly MAILBOX_COMPLETE: u32;
        /// Firmware's note for a firmware that restarts. Hardware clears it when a command arrives, and at
        /// no other time.
        0x10 ReadWrite MAILBOX_NOTE: MailboxNote;
        /// The first of the 16 words of the command.
        0x40 ReadOnly MAILBOX_COMMAND: u32;
    }
}

registers! {
    /// The DMA engine between host memory and scratch memory.
    pub block DMA_ENGINE, kind 33, version 1, at 0x0100, stride 0x100 {
        /// IOVA, low half.
        0x00 ReadWrite DMA_HOST_LOW: u32;
        /// IOVA, high half.
        0x04 ReadWrite DMA_HOST_HIGH: u32;
        /// Byte offset in scratch memory.
        0x08 ReadWrite DMA_SCRATCH: u32;
        /// Bytes, at most the scratch memory's size.
        0x0c ReadWrite DMA_BYTES: u32;
        /// Starts the transfer.
        0x10 WriteOnly DMA_COMMAND: DmaCommand;
        /// Whether it is done and how it ended.
        0x14 ReadOnly DMA_STATUS: EngineStatus;
    }
}

registers! {
    /// The SA table.
    pub block SA_TABLE, kind 34, version 1, at 0x0200, stride 0x100 {
        /// Number of slots.
        0x00 ReadOnly SA_SLOT_COUNT: u32;
        /// Slot of the next operation.
        0x04 ReadWrite SA_INDEX: u32;
        /// Generation of the slot [`SA_INDEX`]; 0 if it is empty.
        0x08 ReadOnly SA_GENERATION: u32;
        /// Byte offset in scratch memory of the parameters or the state.
        0x0c ReadWrite SA_SCRATCH: u32;
        /// IOVA of the secret words, low half.
        0x10 ReadWrite SA_HOST_LOW: u32;
        /// IOVA of the secret words, high half.
        0x14 ReadWrite SA_HOST_HIGH: u32;
        /// A [`SaOperation`] number: starts it.
        0x18 WriteOnly SA_COMMAND: u32;
        /// Whether it is done and how it ended.
        0x1c ReadOnly SA_STATUS: EngineStatus;
        /// Largest replay window in packets.
        0x20 ReadOnly SA_REPLAY_WINDOW_MAX: u32;
        /// Number of queue pairs, which `receive_queue` must be below.
        0x24 ReadOnly SA_QUEUE_PAIRS: u32;
        /// Slots that are count-based, from slot 0 on; those behind them are byte-based.
        0x28 ReadOnly SA_PACKET_SLOT_COUNT: u32;
        /// A [`crate::events::SlotState`] number: state of the slot [`SA_INDEX`].
        0x2c ReadOnly SA_STATE: u32;
    }
}

registers! {
    /// The PSP key hardware and the device clock.
    pub block PSP_KEYS, kind 35, version 1, at 0x0300, stride 0x100 {
        /// PSP version of the keys.
        0x00 ReadWrite PSP_VERSION: u32;
        /// How many.
        0x04 ReadWrite PSP_COUNT: u32;
        /// IOVA or value, low half.
        0x08 ReadWrite PSP_HOST_LOW: u32;
        /// IOVA or value, high half.
        0x0c ReadWrite PSP_HOST_HIGH: u32;
        /// A [`PspOperation`] number: starts it.
        0x10 WriteOnly PSP_COMMAND: u32;
        /// Whether it is done and how it ended.
        0x14 ReadOnly PSP_STATUS: EngineStatus;
        /// Number of rotations.
        0x18 ReadOnly PSP_GENERATION: u32;
        /// Device time in picoseconds, low half; latches the high half.
        0x20 ReadOnly CLOCK_LOW: u32;
        /// Device time in picoseconds, high half.
        0x24 ReadOnly CLOCK_HIGH: u32;
        /// SPIs that the active device key has left.
        0x28 ReadOnly PSP_REMAINING: u32;
        /// What the host wants of rotation.
        0x2c ReadOnly PSP_WANTED_ROTATION: PspRotation;
        /// Milliseconds between rotations, as the host wants it; 0 for none.
        0x30 ReadOnly PSP_WANTED_PERIOD_MS: u32;
        /// Device time in milliseconds since power-on, modulo 2^32, when the active device key was made; all ones while it
        /// is not valid.
        0x34 ReadOnly PSP_KEY_MADE_MS: u32;
    }
}

registers! {
    /// The ring of events: firmware sees how many there are, and says when the interrupt is sent.
    pub block EVENT_RING, kind 36, version 1, at 0x0400, stride 0x100 {
        /// Events since power-on: a free-running count.
        0x00 ReadOnly EVENT_COUNT: u32;
        /// When the interrupt of the event ring is sent; at once after reset.
        0x04 ReadWrite EVENT_MODERATION: InterruptModeration;
    }
}
