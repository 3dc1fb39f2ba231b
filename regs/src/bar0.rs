//! BAR0: the registers. They describe themselves: [`MAGIC`], the contract's version, and a table of blocks.
//!
//! Accesses are 32 bits wide and aligned; a 64-bit register is two accesses, the low half first on a read
//! (which latches the high half) and last on a write (which makes the write take effect).

use crate::declare::{bits, registers};
use crate::events::{EVENTS, SLOT_STATES};
use crate::psp_policy::PSP_POLICY;
use crate::rows::Block;
use crate::shadow_doorbells::SHADOW_DOORBELLS;

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
pub const BLOCKS: &[Block] = &[
    IDENTITY,
    CAPABILITY,
    CONTROL_BLOCK,
    ADMIN,
    PSP,
    COUNTERS,
    STEERING,
    EVENTS,
    PSP_POLICY,
    SHADOW_DOORBELLS,
    QUEUE_PAIR,
    SLOT_STATES,
];

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
        /// Bytes of one entry: kind in bits 15:0 and version in bits 31:16 of its first 32 bits, then byte offset in BAR0,
        /// number of instances, bytes from one instance to the next, 32 bits each.
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
        /// Frames of several transmit descriptors.
        scatter_gather: bool = 1,
        /// Segmentation of TCP frames.
        segmentation: bool = 1,
        /// Checksums of IPv4, TCP and UDP on transmit, and their verdicts on receive.
        checksums: bool = 1,
        /// Frames over several receive buffers.
        receive_scatter: bool = 1,
        /// Receive completions that wait for one another.
        completion_coalescing: bool = 1,
        /// Interrupts that wait for more completions.
        interrupt_moderation: bool = 1,
        /// Receive scaling by the Toeplitz hash.
        receive_scaling: bool = 1,
        /// Pre-formatted PSP frames.
        psp_preformatted: bool = 1,
        /// Reserved.
        _reserved: u32 = 18,
    }
    /// The longest chains.
    pub struct ChainCapability: u32 {
        /// Most transmit descriptors of one frame.
        transmit_descriptors: u8 = 8,
        /// Most receive buffers of one frame.
        receive_buffers: u8 = 8,
        /// Most inbound SAs that refuse packets in clear.
        clear_policies: u16 = 16,
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
        /// BEET mode for ESP.
        esp_beet: bool = 1,
        /// Implicit IV for ESP.
        implicit_iv: bool = 1,
        /// ESP in UDP.
        udp_encapsulation: bool = 1,
        /// Traffic-flow-confidentiality padding and dummy packets.
        traffic_flow_confidentiality: bool = 1,
        /// Selectors of inbound SAs, and the refusal of clear packets by them.
        selectors: bool = 1,
        /// PSP with its key in an SA slot.
        psp_slot: bool = 1,
        /// PSP virtualization cookies on transmit.
        psp_cookie: bool = 1,
        /// ESP packets that no SA takes can be handed up.
        unmatched_to_host: bool = 1,
        /// The receive parser knows EESP (draft-ietf-ipsecme-eesp-03).
        eesp_parser: bool = 1,
        /// The receive parser knows WESPv2 (draft-klassert-ipsecme-wespv2-01).
        wespv2_parser: bool = 1,
        /// Reserved.
        _reserved: u32 = 10,
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
    /// The life of keys.
    pub struct LifeCapability: u32 {
        /// The ring of events, and the state of the slots.
        events: bool = 1,
        /// PSP device keys are rotated by period and on exhaustion.
        psp_rotation: bool = 1,
        /// Failed PSP packets can be captured.
        psp_capture: bool = 1,
        /// Sampled PSP packets can be copied.
        psp_sampling: bool = 1,
        /// Reserved.
        _reserved0: u8 = 4,
        /// Most SAs that one command installs.
        sa_batch: u8 = 8,
        /// Base-2 logarithm of the most slots of the event ring.
        event_slots_log2_max: u8 = 8,
        /// Reserved.
        _reserved1: u8 = 8,
    }
    /// Device control.
    pub struct Control: u32 {
        /// Lets packets in and out. Admin commands work without it.
        enable: bool = 1,
        /// Frames that the MAC would send come back to the receive side.
        mac_loopback: bool = 1,
        /// ESP packets that no SA takes are handed up as they came, for an SA in software; else they are dropped as
        /// `no_sa`.
        unmatched_to_host: bool = 1,
        /// Reserved.
        _reserved: u32 = 29,
    }
    /// ESP in UDP on receive.
    pub struct EspUdpPort: u32 {
        /// The port; 0 for none.
        port: u16 = 16,
        /// Reserved.
        _reserved: u16 = 16,
    }
    /// Where the receive parser looks for EESP and WESPv2.
    pub struct SecurityProtocols: u32 {
        /// IP protocol number of EESP, which has none assigned; 0 for none. Those of ESP and UDP are never EESP.
        eesp_protocol: u8 = 8,
        /// IP protocol number of WESPv2, 141 as a rule; 0 for none, in UDP too. Those of ESP, UDP and EESP are never WESPv2.
        wespv2_protocol: u8 = 8,
        /// An SPI whose first bit is 1 is EESP where ESP comes in UDP.
        eesp_in_udp: bool = 1,
        /// Reserved.
        _reserved: u16 = 15,
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
        /// The IV clock has an epoch: PSP packets may leave.
        epoch_set: bool = 1,
        /// The last write of an epoch was refused: it would have turned the clock back, or left it no room.
        epoch_refused: bool = 1,
        /// Reserved.
        _reserved: u16 = 10,
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
    /// Two entries of the table of UDP source ports.
    pub struct PspSourcePorts: u32 {
        /// The entry of an even number.
        even: u16 = 16,
        /// The entry of the odd number behind it.
        odd: u16 = 16,
    }
    /// Receive scaling.
    pub struct ReceiveScaling: u32 {
        /// The hash chooses the queue pair of packets that no SA has a queue for; else it is queue pair 0.
        enable: bool = 1,
        /// TCP ports are part of the hash.
        tcp_ports: bool = 1,
        /// UDP ports are part of the hash.
        udp_ports: bool = 1,
        /// Packets of ESP and PSP that were not opened are hashed by their SPI.
        spi: bool = 1,
        /// Base-2 logarithm of the entries of the table in use, 0 to 7.
        table_log2: u8 = 3,
        /// Reserved.
        _reserved: u32 = 25,
    }
    /// Four entries of the table of receive scaling.
    pub struct ReceiveScalingEntries: u32 {
        /// Queue pair of entry 4n.
        queue_0: u8 = 8,
        /// Queue pair of entry 4n + 1.
        queue_1: u8 = 8,
        /// Queue pair of entry 4n + 2.
        queue_2: u8 = 8,
        /// Queue pair of entry 4n + 3.
        queue_3: u8 = 8,
    }
    /// When the interrupt of a queue pair is sent.
    pub struct InterruptModeration: u32 {
        /// Nanoseconds that an interrupt waits for more completions after the first.
        delay_ns: u32 = 20,
        /// As many completions end the wait; 0 is 1.
        completions: u8 = 8,
        /// Reserved.
        _reserved: u8 = 4,
    }
    /// When receive completions are written.
    pub struct CompletionCoalescing: u32 {
        /// Nanoseconds that a completion waits for others.
        hold_ns: u16 = 16,
        /// As many are written together, 1 to 8; 0 is 1. They never wait past the end of the ring.
        completions: u8 = 4,
        /// Reserved.
        _reserved: u16 = 12,
    }
    /// Queue pair control.
    pub struct QueueControl: u32 {
        /// Turns the pair on. Turning it off drains it; [`QueueStatus`] tells when it is off.
        enable: bool = 1,
        /// Packets may leave in clear from this queue. Off after reset.
        transmit_clear_allowed: bool = 1,
        /// A frame longer than a buffer takes several; else it is dropped.
        receive_scatter: bool = 1,
        /// Reserved.
        _reserved0: u8 = 5,
        /// Base-2 logarithm of the transmit stride in bytes: 5, 6 or 7.
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
        /// Most descriptors and buffers of one frame.
        0x20 ReadOnly CHAIN_CAPABILITY: ChainCapability;
        /// Most bytes of a frame that the device cuts into segments.
        0x24 ReadOnly SEGMENTED_BYTES_MAX: u32;
        /// SA slots that are count-based, from slot 0 on; those behind them are byte-based.
        0x28 ReadOnly SA_PACKET_SLOTS: u32;
        /// Events, SAs of one command, and what PSP does beside opening and protecting.
        0x2c ReadOnly LIFE_CAPABILITY: LifeCapability;
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
        /// UDP destination port of ESP in UDP on receive. 4500 after reset; 0 turns it off.
        0x18 ReadWrite ESP_UDP_PORT: EspUdpPort;
        /// Where the receive parser looks for EESP and WESPv2. 0 after reset: nowhere.
        0x1c ReadWrite SECURITY_PROTOCOLS: SecurityProtocols;
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
        /// The first of 8 words of the table of UDP source ports, two entries a word, the low half first. After reset
        /// entry `n` is 49152 + 1024 × `n`.
        0x10 ReadWrite PSP_SOURCE_PORTS: PspSourcePorts;
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

/// Words of the key of receive scaling.
pub const RECEIVE_SCALING_KEY_WORDS: u32 = 10;
/// Words of the table of receive scaling.
pub const RECEIVE_SCALING_TABLE_WORDS: u32 = 32;

registers! {
    /// Steering of received packets: receive scaling by the Toeplitz hash of the packet as it is delivered.
    pub block STEERING, kind 8, version 1, at 0x1000, stride 0x200 {
        /// Receive scaling.
        0x00 ReadWrite RECEIVE_SCALING: ReceiveScaling;
        /// The first of 10 words of the hash key, key byte 0 in bits 7:0 of the first.
        0x40 ReadWrite RECEIVE_SCALING_KEY: u32;
        /// The first of 32 words of the table of queue pairs, four entries a word.
        0x80 ReadWrite RECEIVE_SCALING_TABLE: ReceiveScalingEntries;
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
        /// When the interrupt is sent.
        0x28 ReadWrite INTERRUPT_MODERATION: InterruptModeration;
        /// When receive completions are written.
        0x2c ReadWrite COMPLETION_COALESCING: CompletionCoalescing;
    }
}
