//! BAR0: the registers. They describe themselves: [`MAGIC`], the contract's version, and a table of blocks.
//!
//! Accesses are 32 bits wide and aligned; a 64-bit register is two accesses, the low half first on a read
//! (which latches the high half) and last on a write (which makes the write take effect).

use crate::declare::{bits, registers};
use crate::rows::Block;

/// Size of BAR0 in bytes.
pub const BAR0_BYTES: u32 = 0x1_0000;
/// What [`MAGIC`] reads: the characters `CRNC` in memory order.
pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"CRNC");
/// Byte offset of the block table.
pub const BLOCK_TABLE_OFFSET: u32 = 0x40;
/// Bytes of one entry of the block table: {kind 16, version 16}, offset, instances, stride; 32 bits each.
pub const BLOCK_TABLE_ENTRY_BYTES: u32 = 16;
/// The most queue pairs that the register space has room for.
pub const QUEUE_PAIRS_MAX: u32 = 64;
/// Every block, in the order of the block table.
pub const BLOCKS: &[Block] = &[IDENTITY, CAPABILITY, CONTROL_BLOCK, ADMIN, PSP, COUNTERS, QUEUE_PAIR];

bits! {
    /// Version of the contract the device follows.
    pub struct ContractVersion: u32 {
        /// Rises when something is added.
        minor: u16 = 16,
        /// Rises when something changes; a driver refuses a major version it does not know.
        major: u16 = 16,
    }
    /// Where the block table is.
    pub struct BlockTable: u32 {
        /// Byte offset in BAR0.
        offset: u16 = 16,
        /// Number of entries.
        entries: u8 = 8,
        /// Bytes of one entry.
        entry_bytes: u8 = 8,
    }
    /// What kind of device this is.
    pub struct DeviceKind: u32 {
        /// Revision of the implementation.
        revision: u16 = 16,
        /// 1: the model; 2: RTL in simulation; 3: silicon or FPGA.
        kind: u16 = 16,
    }
    /// Queue capabilities.
    pub struct QueueCapability: u32 {
        /// Number of queue pairs.
        queue_pairs: u16 = 16,
        /// Base-2 logarithm of the most slots a ring may have.
        ring_slots_log2_max: u8 = 8,
        /// Number of MSI-X vectors.
        vectors: u8 = 8,
    }
    /// Descriptor formats.
    pub struct DescriptorCapability: u32 {
        /// Transmit descriptors of stride 32: SA by index and generation.
        stride_32: bool = 1,
        /// Transmit descriptors of stride 64: PSP key in the descriptor.
        stride_64: bool = 1,
        /// Transmit descriptors of stride 128.
        stride_128: bool = 1,
        /// Inline data in descriptors.
        inline_data: bool = 1,
        /// Push windows in BAR2.
        push_windows: bool = 1,
        /// Shadow doorbells in host memory.
        shadow_doorbells: bool = 1,
        /// Reserved.
        _reserved: u32 = 26,
    }
    /// Protocols and modes.
    pub struct ProtocolCapability: u32 {
        /// ESP (RFC 4303).
        esp: bool = 1,
        /// PSP.
        psp: bool = 1,
        /// Tunnel mode for ESP.
        esp_tunnel: bool = 1,
        /// Transport mode for ESP.
        esp_transport: bool = 1,
        /// Tunnel mode for PSP.
        psp_tunnel: bool = 1,
        /// Transport mode for PSP.
        psp_transport: bool = 1,
        /// Extended sequence numbers.
        esn: bool = 1,
        /// MAC loopback for tests on one device.
        mac_loopback: bool = 1,
        /// PSP versions, one bit each.
        psp_versions: u8 = 4,
        /// Reserved.
        _reserved: u32 = 20,
    }
    /// Ciphers.
    pub struct CipherCapability: u32 {
        /// AES-GCM with a 128-bit key.
        aes_gcm_128: bool = 1,
        /// AES-GCM with a 192-bit key.
        aes_gcm_192: bool = 1,
        /// AES-GCM with a 256-bit key.
        aes_gcm_256: bool = 1,
        /// AES-GMAC, any key length.
        aes_gmac: bool = 1,
        /// ICV of 8 bytes.
        icv_8: bool = 1,
        /// ICV of 12 bytes.
        icv_12: bool = 1,
        /// ICV of 16 bytes.
        icv_16: bool = 1,
        /// Reserved.
        _reserved: u32 = 25,
    }
    /// Device control.
    pub struct Control: u32 {
        /// Lets packets in and out. Admin commands work without it.
        enable: bool = 1,
        /// Frames that the MAC would send come back to the receive side.
        mac_loopback: bool = 1,
        /// Reserved.
        _reserved: u32 = 30,
    }
    /// Device state.
    pub struct DeviceStatus: u32 {
        /// Reset is over and the admin queue may be set up.
        ready: bool = 1,
        /// Firmware answers.
        firmware_running: bool = 1,
        /// The link is up.
        link_up: bool = 1,
        /// Every key memory was zeroised by the last reset and no key was loaded since.
        keys_zeroised: bool = 1,
        /// A fault that only a reset ends.
        fatal: bool = 1,
        /// Reserved.
        _reserved: u32 = 27,
    }
    /// Admin queue control.
    pub struct AdminControl: u32 {
        /// Turns the queue on; its bases must be set before.
        enable: bool = 1,
        /// Reserved.
        _reserved0: u8 = 7,
        /// Base-2 logarithm of the slots of both rings, 1 to 8.
        slots_log2: u8 = 8,
        /// MSI-X vector of its completions.
        vector: u8 = 8,
        /// Reserved.
        _reserved1: u8 = 8,
    }
    /// Admin queue state.
    pub struct AdminStatus: u32 {
        /// The queue is on.
        enabled: bool = 1,
        /// The queue stopped: a doorbell out of range, or a ring outside mapped memory.
        stopped: bool = 1,
        /// Reserved.
        _reserved: u32 = 30,
    }
    /// PSP receive.
    pub struct PspControl: u32 {
        /// Versions that are opened on receive, one bit each; 0 turns PSP receive off.
        receive_versions: u8 = 4,
        /// Reserved.
        _reserved0: u16 = 12,
        /// UDP destination port of PSP, on transmit and receive. 1000 after reset.
        udp_port: u16 = 16,
    }
    /// State of the PSP device keys. The keys themselves cannot be read by any means.
    pub struct PspKeyStatus: u32 {
        /// Device key 0 may be used.
        key_0_valid: bool = 1,
        /// Device key 1 may be used.
        key_1_valid: bool = 1,
        /// Which key derives newly allocated keys: the most significant bit of their SPIs.
        active: bool = 1,
        /// Test key load is locked until power is cut.
        test_load_locked: bool = 1,
        /// Reserved.
        _reserved: u16 = 12,
        /// Number of rotations, modulo 2^16.
        generation: u16 = 16,
    }
    /// The one-way lock of the test commands.
    pub struct PspTestLock: u32 {
        /// Writing 1 refuses test key load and test IV load until power is cut; a reset does not undo it.
        locked: bool = 1,
        /// Reserved.
        _reserved: u32 = 31,
    }
    /// Queue pair control.
    pub struct QueueControl: u32 {
        /// Turns the pair on. Turning it off drains it; [`QueueStatus`] tells when it is off.
        enable: bool = 1,
        /// Packets may leave in clear from this queue. Off after reset.
        transmit_clear_allowed: bool = 1,
        /// Reserved.
        _reserved0: u8 = 6,
        /// Base-2 logarithm of the transmit stride in bytes: 5 or 6.
        transmit_stride_log2: u8 = 4,
        /// Reserved.
        _reserved1: u8 = 4,
        /// Base-2 logarithm of the slots of the transmit ring and of its completion ring, 1 to the maximum.
        transmit_slots_log2: u8 = 4,
        /// Base-2 logarithm of the slots of the receive ring and of its completion ring, 1 to the maximum.
        receive_slots_log2: u8 = 4,
        /// MSI-X vector of both completion rings.
        vector: u8 = 8,
    }
    /// Queue pair state.
    pub struct QueueStatus: u32 {
        /// The pair is on.
        enabled: bool = 1,
        /// The device stopped the pair: the cause says why. Turning it off clears this.
        quarantined: bool = 1,
        /// Reserved.
        _reserved: u16 = 14,
        /// A status number ([`crate::Status`]).
        cause: u16 = 16,
    }
}

registers! {
    /// Who the device is.
    pub block IDENTITY, kind 1, version 1, at 0x0000, stride 0x100 {
        /// The characters `CRNC`: this is a Cryptonic NIC.
        0x00 ReadOnly MAGIC: u32;
        /// Version of the contract.
        0x04 ReadOnly CONTRACT_VERSION: ContractVersion;
        /// Where the block table is.
        0x08 ReadOnly BLOCK_TABLE: BlockTable;
        /// Kind and revision of the device.
        0x0c ReadOnly DEVICE_KIND: DeviceKind;
        /// Serial number.
        0x10 ReadOnly SERIAL: u64;
    }
}

registers! {
    /// What the device can do. Ask before use.
    pub block CAPABILITY, kind 2, version 1, at 0x0100, stride 0x100 {
        /// Queues, rings and vectors.
        0x00 ReadOnly QUEUE_CAPABILITY: QueueCapability;
        /// Descriptor formats.
        0x04 ReadOnly DESCRIPTOR_CAPABILITY: DescriptorCapability;
        /// Protocols and modes.
        0x08 ReadOnly PROTOCOL_CAPABILITY: ProtocolCapability;
        /// Ciphers and ICV lengths.
        0x0c ReadOnly CIPHER_CAPABILITY: CipherCapability;
        /// Number of SA slots.
        0x10 ReadOnly SA_SLOTS: u32;
        /// Largest replay window in packets.
        0x14 ReadOnly REPLAY_WINDOW_MAX: u32;
        /// Largest frame in bytes, without FCS.
        0x18 ReadOnly FRAME_BYTES_MAX: u32;
        /// Line rate in Mb/s.
        0x1c ReadOnly LINE_RATE_MBPS: u32;
    }
}

registers! {
    /// Control and state of the device.
    pub block CONTROL_BLOCK, kind 3, version 1, at 0x0200, stride 0x100 {
        /// Device control.
        0x00 ReadWrite CONTROL: Control;
        /// Device state.
        0x04 ReadOnly DEVICE_STATUS: DeviceStatus;
        /// Device time in picoseconds since power-on.
        0x08 ReadOnly TIME_PICOSECONDS: u64;
        /// MAC address, the first byte on the wire in bits 7:0.
        0x10 ReadOnly MAC_ADDRESS: u64;
    }
}

registers! {
    /// The admin queue, which firmware serves.
    pub block ADMIN, kind 4, version 1, at 0x0300, stride 0x100 {
        /// Admin queue control.
        0x00 ReadWrite ADMIN_CONTROL: AdminControl;
        /// Admin queue state.
        0x04 ReadOnly ADMIN_STATUS: AdminStatus;
        /// IOVA of the ring of commands, aligned to 64 bytes.
        0x08 ReadWrite ADMIN_COMMAND_BASE: u64;
        /// IOVA of the ring of completions, aligned to 64 bytes.
        0x10 ReadWrite ADMIN_COMPLETION_BASE: u64;
        /// Producer index of the ring of commands: a free-running count of slots.
        0x18 WriteOnly ADMIN_DOORBELL: u32;
    }
}

registers! {
    /// PSP: receive control and key state.
    pub block PSP, kind 5, version 1, at 0x0400, stride 0x100 {
        /// Versions opened on receive, and the UDP port.
        0x00 ReadWrite PSP_CONTROL: PspControl;
        /// State of the device keys.
        0x04 ReadOnly PSP_KEY_STATUS: PspKeyStatus;
        /// SPIs that the active device key has left.
        0x08 ReadOnly PSP_SPI_REMAINING: u32;
        /// The one-way lock of the test commands.
        0x0c WriteOneToSet PSP_TEST_LOCK: PspTestLock;
    }
}

registers! {
    /// Counters, 64 bits each, since power-on or reset. Behind the named ones follows, from offset 0x200 of
    /// the block, one counter a status number: packets that ended with that status.
    pub block COUNTERS, kind 6, version 1, at 0x0800, stride 0x800 {
        /// Frames the MAC sent.
        0x00 ReadOnly TRANSMITTED_FRAMES: u64;
        /// Bytes the MAC sent, with FCS.
        0x08 ReadOnly TRANSMITTED_BYTES: u64;
        /// Frames the MAC received with a good FCS.
        0x10 ReadOnly RECEIVED_FRAMES: u64;
        /// Bytes the MAC received, with FCS.
        0x18 ReadOnly RECEIVED_BYTES: u64;
        /// PSP packets opened (PSP specification, Implementation Requirements).
        0x20 ReadOnly PSP_RECEIVED_PACKETS: u64;
        /// PSP bytes opened: from the first byte after the IV to the last payload byte.
        0x28 ReadOnly PSP_RECEIVED_BYTES: u64;
        /// PSP packets whose ICV was wrong.
        0x30 ReadOnly PSP_RECEIVED_AUTHENTICATION_FAILURES: u64;
        /// PSP packets with a length or framing error.
        0x38 ReadOnly PSP_RECEIVED_ERRORS: u64;
        /// PSP packets with an invalid key selector, an unsupported version or another fault.
        0x40 ReadOnly PSP_RECEIVED_BAD: u64;
        /// PSP packets protected.
        0x48 ReadOnly PSP_TRANSMITTED_PACKETS: u64;
        /// PSP bytes protected: from the first byte after the IV to the last payload byte.
        0x50 ReadOnly PSP_TRANSMITTED_BYTES: u64;
        /// PSP packets that could not be protected.
        0x58 ReadOnly PSP_TRANSMITTED_ERRORS: u64;
        /// Accesses of the device to host memory that the IOMMU refused.
        0x60 ReadOnly DMA_FAULTS: u64;
    }
}

/// Byte offset in BAR0 of the counter of status 0; the counter of status `n` is 8 × `n` bytes on.
pub const STATUS_COUNTERS_OFFSET: u32 = 0x0800 + 0x200;
/// Bytes between two queue pairs' registers.
pub const QUEUE_PAIR_STRIDE: u32 = 0x40;

registers! {
    /// A queue pair: a transmit ring and a receive ring, each with its completion ring.
    pub block QUEUE_PAIR, kind 7, version 1, at 0x2000, stride 0x40 {
        /// Queue pair control.
        0x00 ReadWrite QUEUE_CONTROL: QueueControl;
        /// Queue pair state.
        0x04 ReadOnly QUEUE_STATUS: QueueStatus;
        /// IOVA of the transmit ring, aligned to 128 bytes.
        0x08 ReadWrite TRANSMIT_RING_BASE: u64;
        /// IOVA of the transmit completion ring, aligned to 64 bytes.
        0x10 ReadWrite TRANSMIT_COMPLETION_BASE: u64;
        /// IOVA of the receive ring, aligned to 64 bytes.
        0x18 ReadWrite RECEIVE_RING_BASE: u64;
        /// IOVA of the receive completion ring, aligned to 64 bytes.
        0x20 ReadWrite RECEIVE_COMPLETION_BASE: u64;
    }
}
