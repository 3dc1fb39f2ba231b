//! Descriptors: what the host gives to the device through the transmit and receive rings.
//!
//! A ring has a stride fixed at creation. Stride 32 holds a [`TransmitDescriptor`]; stride 64 holds a
//! [`TransmitKeyDescriptor`], which a packet that uses no key in its descriptor may use too (its key words
//! are then 0 and ignored). Receive rings have a stride of 16.

use crate::declare::{bits, enumeration, record};

/// Bytes of one slot of a receive ring.
pub const RECEIVE_STRIDE_BYTES: u32 = 16;

enumeration! {
    /// Where the key of a packet comes from.
    pub enum Security {
        /// The packet leaves in clear. Refused unless the queue pair allows it.
        Clear = 0, "clear";
        /// `sa_index` and `sa_generation` name an SA slot.
        Sa = 1, "sa";
        /// PSP with the key in the descriptor; stride 64 only.
        PspKey = 2, "psp_key";
    }
    /// How the UDP source port of a PSP packet is chosen.
    pub enum SourcePortPolicy {
        /// A keyed hash of the flow, 49152..=65535.
        Entropy = 0, "entropy";
        /// Source port exclusive-or destination port of TCP or UDP; 1000 for other protocols.
        PortsXor = 1, "ports_xor";
        /// The number in the descriptor.
        Fixed = 2, "fixed";
    }
}

bits! {
    /// Transmit descriptor, word 1.
    pub struct TransmitControl: u64 {
        /// Frame length in bytes, from the Ethernet header on, without FCS.
        length: u16 = 16,
        /// Comes back in the completion.
        tag: u16 = 16,
        /// Comes back in the completion.
        tag_generation: u8 = 8,
        /// A [`Security`] number.
        security: u8 = 2,
        /// Write a completion for this descriptor even if the packet went well.
        report: bool = 1,
        /// The last descriptor of its packet. Must be set.
        end_of_packet: bool = 1,
        /// PSP: version.
        psp_version: u8 = 4,
        /// PSP: crypt offset in units of 4 bytes from the end of the IV.
        psp_crypt_offset: u8 = 6,
        /// PSP: a [`SourcePortPolicy`] number.
        psp_source_port_policy: u8 = 2,
        /// PSP: the S bit.
        psp_sample: bool = 1,
        /// PSP: the D bit.
        psp_drop: bool = 1,
        /// Reserved.
        _reserved: u8 = 6,
    }
    /// Transmit descriptor, word 2, when the security is `sa`.
    pub struct TransmitSa: u64 {
        /// SA slot.
        index: u32 = 24,
        /// Reserved.
        _reserved: u8 = 8,
        /// Generation the slot must have.
        generation: u32 = 32,
    }
    /// Transmit descriptor, word 2, when the security is `psp_key`.
    pub struct TransmitPsp: u64 {
        /// SPI as a number (its first byte on the wire is the most significant).
        spi: u32 = 32,
        /// UDP source port for the policy `fixed`.
        source_port: u16 = 16,
        /// Reserved.
        _reserved: u16 = 16,
    }
    /// Eight bytes of key.
    pub struct KeyWord: u64 {
        /// Key bytes in memory order.
        [secret] key: u64 = 64,
    }
    /// Receive descriptor, word 1.
    pub struct ReceiveControl: u64 {
        /// Bytes of the buffer.
        length: u16 = 16,
        /// Comes back in the completion.
        tag: u16 = 16,
        /// Comes back in the completion.
        tag_generation: u8 = 8,
        /// Reserved.
        _reserved: u32 = 24,
    }
}

record! {
    /// Transmit descriptor of stride 32.
    pub struct TransmitDescriptor[4] {
        /// IOVA of the frame.
        address: u64,
        /// Length, tag and flags.
        control: TransmitControl,
        /// [`TransmitSa`] or [`TransmitPsp`], by `security`.
        security: u64,
        /// Reserved.
        reserved: u64,
    }
    /// Transmit descriptor of stride 64: as stride 32, and a key.
    pub struct TransmitKeyDescriptor[8] {
        /// IOVA of the frame.
        address: u64,
        /// Length, tag and flags.
        control: TransmitControl,
        /// [`TransmitSa`] or [`TransmitPsp`], by `security`.
        security: u64,
        /// Reserved.
        reserved: u64,
        /// Key bytes 0 to 7.
        key_0: KeyWord,
        /// Key bytes 8 to 15.
        key_1: KeyWord,
        /// Key bytes 16 to 23; 0 for a 128-bit key.
        key_2: KeyWord,
        /// Key bytes 24 to 31; 0 for a 128-bit key.
        key_3: KeyWord,
    }
    /// Receive descriptor: a buffer for one frame.
    pub struct ReceiveDescriptor[2] {
        /// IOVA of the buffer.
        address: u64,
        /// Length and tag.
        control: ReceiveControl,
    }
}
