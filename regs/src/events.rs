//! What the device tells of by itself: the ring of events, and the state of every SA slot, which needs no firmware to be
//! read.
//!
//! Limits, sticky bits and events are hardware. A record that finds the ring full is lost, its sticky bit is not: the
//! next record that is written says that some are missing, and the host then looks at the sticky bits.

use crate::declare::{bits, enumeration, record, registers};

/// Base-2 logarithm of the fewest and of the most slots of the event ring.
pub const EVENT_SLOTS_LOG2: (u8, u8) = (2, 12);
/// Sequence numbers that are left when an SA gives notice of it.
pub const SEQUENCE_MARGIN: u64 = 1 << 28;
/// ICV failures in a row, of one inbound SA, that are an event (RFC 4303 A3: the SA may have lost its place).
pub const ICV_FAILURES_IN_A_ROW: u32 = 256;
/// Packets that a key with an ICV of 8 bytes may protect; on receive each attempt counts (SP 800-38D, appendix C).
pub const ICV_8_PACKETS: u64 = 1 << 32;
/// Words of the bitmap of slots.
pub const STICKY_WORDS: u32 = 2048;

enumeration! {
    /// What happened. Each cause has a number of its own and a record of its own. Causes below 16 are of an SA slot and
    /// have the sticky bit of their number there; causes from 16 on are of the device, with sticky bit `cause - 16`.
    pub enum EventCause {
        /// A count-based SA has reached its soft limit.
        SoftPackets = 1, "soft_packets";
        /// A count-based SA has reached its hard limit: it passes no further packet.
        HardPackets = 2, "hard_packets";
        /// A byte-based SA has reached its soft limit.
        SoftBytes = 3, "soft_bytes";
        /// A byte-based SA has reached its hard limit: it passes no further packet.
        HardBytes = 4, "hard_bytes";
        /// 2^28 sequence numbers or fewer are left.
        SequenceSoft = 5, "sequence_soft";
        /// No sequence number is left (out), or the highest was received (in).
        SequenceHard = 6, "sequence_hard";
        /// The key of an SA with an ICV of 8 bytes was used 2^32 times: it passes no further packet.
        HardIcv8 = 7, "hard_icv_8";
        /// 256 ICVs in a row were wrong; told once until the slot is armed anew.
        IcvFailures = 8, "icv_failures";
        /// The active PSP device key has no more SPIs left than the low-water mark; told once a key.
        PspSpiLow = 16, "psp_spi_low";
        /// An allocation was refused because the active PSP device key has too few SPIs left; told once a key.
        PspSpiExhausted = 17, "psp_spi_exhausted";
        /// The PSP device key was rotated by a command.
        PspRotatedByCommand = 18, "psp_rotated_by_command";
        /// The PSP device key was rotated because its period was over.
        PspRotatedByPeriod = 19, "psp_rotated_by_period";
        /// The PSP device key was rotated because it had too few SPIs left.
        PspRotatedByExhaustion = 20, "psp_rotated_by_exhaustion";
        /// Firmware was started anew.
        FirmwareRestarted = 24, "firmware_restarted";
        /// Records were lost before this one: the host looks at the sticky bits. It has none itself.
        EventsLost = 31, "events_lost";
    }
    /// State of an SA slot. Of several that hold the last in this order counts: `armed`, `soft`, `expired`, `draining`,
    /// `staged`.
    pub enum SlotState {
        /// Empty.
        Free = 0, "free";
        /// In use; no soft limit was reached since it was armed.
        Armed = 1, "armed";
        /// In use, behind its soft limit.
        Soft = 2, "soft";
        /// It passes no packet any more: a hard limit was reached, or (out) no sequence number is left.
        Expired = 3, "expired";
        /// Being deleted: no packet begins to use it, and those under way are waited for.
        Draining = 4, "draining";
        /// Installed by a command that is not complete: no packet uses it yet.
        Staged = 5, "staged";
    }
}

bits! {
    /// Event ring control.
    pub struct EventControl: u32 {
        /// Turns the ring on; its base must be set before.
        enable: bool = 1,
        /// Reserved.
        _reserved0: u8 = 7,
        /// Base-2 logarithm of the slots, 2 to 12.
        slots_log2: u8 = 8,
        /// MSI-X vector.
        vector: u8 = 8,
        /// Reserved.
        _reserved1: u8 = 8,
    }
    /// Event ring state.
    pub struct EventStatus: u32 {
        /// The ring is on.
        enabled: bool = 1,
        /// The ring stopped: its size or base is out of range, its consumer index was, or it lies outside mapped memory.
        stopped: bool = 1,
        /// Records were lost, and the record that says so is not written yet.
        overflow: bool = 1,
        /// Reserved.
        _reserved: u32 = 29,
    }
    /// Device causes that happened, one bit each.
    pub struct EventSticky: u32 {
        /// Bit `n`: cause 16 + `n`.
        causes: u16 = 16,
        /// Reserved.
        _reserved: u16 = 16,
    }
    /// State of the selected slot.
    pub struct SlotStatus: u32 {
        /// A [`SlotState`] number.
        state: u8 = 8,
        /// How often it was armed by `sa_arm`, modulo 2^8.
        arming: u8 = 8,
        /// Bit `n`: cause `n` happened; `soft_packets`, `soft_bytes` and `icv_failures` since it was armed last.
        causes: u16 = 16,
    }
    /// Event, word 0.
    pub struct EventHead: u64 {
        /// An [`EventCause`] number.
        cause: u16 = 16,
        /// How often the slot had been armed by `sa_arm`, modulo 2^8.
        arming: u8 = 8,
        /// Reserved.
        _reserved: u8 = 8,
        /// SA slot, or 0.
        sa_index: u32 = 32,
    }
    /// Event, word 1.
    pub struct EventNames: u64 {
        /// Generation of the slot; 0 for a cause of the device.
        generation: u32 = 32,
        /// Host cookie of the slot.
        cookie: u32 = 32,
    }
    /// Event, word 6.
    pub struct EventDetail: u64 {
        /// SPI of the slot.
        spi: u32 = 32,
        /// SPIs left (`psp_spi_low`, `psp_spi_exhausted`), generation of the device key (`psp_rotated_…`), records lost
        /// (`events_lost`; 1 also stands for all that happened while the ring was off), or 0.
        number: u32 = 32,
    }
    /// The last word of an event.
    pub struct EventEnd: u64 {
        /// Reserved.
        _reserved: u64 = 63,
        /// The phase, as in the completion rings.
        phase: bool = 1,
    }
}

record! {
    /// An event. Counters and sequence number are those of the slot with the packet that caused it, and 0 for a cause of
    /// the device.
    pub struct Event[8] {
        /// What happened, and to which slot.
        head: EventHead,
        /// Generation and cookie.
        names: EventNames,
        /// Packets of the slot, this one included.
        packets: u64,
        /// Bytes of the slot, this packet included.
        bytes: u64,
        /// Last sequence number used (out) or highest accepted (in).
        sequence: u64,
        /// Device time in picoseconds.
        time_picoseconds: u64,
        /// SPI, and a number by cause.
        detail: EventDetail,
        /// The phase.
        end: EventEnd,
    }
}

registers! {
    /// The ring of events: records ([`Event`]) that the device writes into host memory, in the order in which things
    /// happened, at most as many as slots ahead of the host's consumer index. What finds no room is lost, and as soon as
    /// there is room again the next record says so. Turning the ring on begins anew: every index is 0, and if a sticky bit is
    /// set, `events_lost` is the first record.
    pub block EVENTS, kind 9, version 1, at 0x1200, stride 0x100 {
        /// Event ring control. Base and size are taken when it is turned on; after that only the vector may change.
        0x00 ReadWrite EVENT_CONTROL: EventControl;
        /// Event ring state.
        0x04 ReadOnly EVENT_STATUS: EventStatus;
        /// IOVA of the ring, aligned to 64 bytes.
        0x08 ReadWrite EVENT_RING_BASE: u64;
        /// Consumer index of the host: a free-running count of the records that it took. Records up to a ring's length ahead
        /// of it are written; an index ahead of what was written stops the ring.
        0x10 WriteOnly EVENT_DOORBELL: u32;
        /// Records lost since the ring was turned on.
        0x14 ReadOnly EVENTS_LOST: u32;
        /// Device causes that happened since they were cleared. They need no ring; function-level reset clears them.
        0x18 WriteOneToClear EVENT_STICKY: EventSticky;
    }
}

registers! {
    /// State of the SA slots. Hardware keeps it, so it can be read while firmware stands still. A bit of the bitmap is set
    /// while any sticky bit of its slot is: `sa_arm` clears some of these, and a slot that is emptied has none.
    pub block SLOT_STATES, kind 11, version 1, at 0x4000, stride 0x4000 {
        /// The slot of the next two registers, which are 0 for a slot that does not exist.
        0x00 ReadWrite SLOT_SELECT: u32;
        /// Its generation; 0 if it is empty.
        0x04 ReadOnly SLOT_GENERATION: u32;
        /// Its state and sticky bits.
        0x08 ReadOnly SLOT_STATUS: SlotStatus;
        /// The first of 2048 words of a bitmap, slot `n` in bit `n` mod 32 of word `n` / 32: slots with a sticky bit.
        0x2000 ReadOnly STICKY_SLOTS: u32;
    }
}
