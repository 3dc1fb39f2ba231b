//! Descriptors: what the host gives to the device through the transmit and receive rings.
//!
//! A transmit ring has a stride fixed at creation: 32, 64 or 128 bytes. Every slot begins with the four words
//! of [`TransmitDescriptor`]; what a wider slot has behind them holds, in this order and without gaps,
//!
//! ```text
//!   32 bytes   the key               if the security is `psp_key`
//!    8 bytes   the cookie            if `psp_cookie` is set
//!   the rest   inline data           `inline_bytes` of it are the first bytes of the frame
//! ```
//!
//! so that fetching a descriptor fetches the packet, or its head, too. A frame is its inline bytes, then the
//! `length` bytes at `address`, then those of the descriptors that continue it, up to the one with
//! `end_of_packet`. Only the first descriptor says how the packet is protected; the descriptors that continue it have
//! zeros there. [`inline_offset`] and [`inline_room`] are the arithmetic of it. Receive rings have a stride of 16.

use crate::declare::{bits, enumeration, record};

/// Bytes of one slot of a receive ring.
pub const RECEIVE_STRIDE_BYTES: u32 = 16;
/// Base-2 logarithms of the strides that a transmit ring may have.
pub const TRANSMIT_STRIDES_LOG2: [u8; 3] = [5, 6, 7];
/// Bytes of a slot before key, cookie and inline data.
pub const TRANSMIT_BASE_BYTES: u32 = 32;
/// Bytes of the key in a slot.
pub const TRANSMIT_KEY_BYTES: u32 = 32;
/// Bytes of the cookie in a slot.
pub const TRANSMIT_COOKIE_BYTES: u32 = 8;

/// Byte offset of the inline data in a slot.
pub const fn inline_offset(with_key: bool, with_cookie: bool) -> u32 {
    TRANSMIT_BASE_BYTES
        + if with_key { TRANSMIT_KEY_BYTES } else { 0 }
        + if with_cookie { TRANSMIT_COOKIE_BYTES } else { 0 }
}

/// Bytes of inline data that a slot has room for; `None` where not even key and cookie fit.
pub const fn inline_room(stride_bytes: u32, with_key: bool, with_cookie: bool) -> Option<u32> {
    stride_bytes.checked_sub(inline_offset(with_key, with_cookie))
}

enumeration! {
    /// Where the key of a packet comes from.
    pub enum Security {
        /// The packet leaves in clear. Refused unless the queue pair allows it.
        Clear = 0, "clear";
        /// `sa_index` and `sa_generation` name an SA slot.
        Sa = 1, "sa";
        /// PSP with the key in the descriptor; stride 64 or 128.
        PspKey = 2, "psp_key";
    }
    /// How the UDP source port of a PSP packet is chosen. It stays as the host wrote it in a pre-formatted packet
    /// unless the policy is another than `fixed`.
    pub enum SourcePortPolicy {
        /// A keyed hash of the flow, 49152..=65535.
        Entropy = 0, "entropy";
        /// Source port exclusive-or destination port of TCP or UDP; 1000 for other protocols.
        PortsXor = 1, "ports_xor";
        /// The number in the descriptor.
        Fixed = 2, "fixed";
        /// An entry of the table of source ports, by the keyed hash of the flow.
        Table = 3, "table";
    }
}

bits! {
    /// Transmit descriptor, word 1.
    pub struct TransmitControl: u64 {
        /// Bytes at `address`; may be 0 where the descriptor holds inline data.
        length: u16 = 16,
        /// Comes back in the completion.
        tag: u16 = 16,
        /// Comes back in the completion.
        tag_generation: u8 = 8,
        /// A [`Security`] number.
        security: u8 = 2,
        /// Write a completion for this descriptor even if the packet went well.
        report: bool = 1,
        /// The last descriptor of its packet.
        end_of_packet: bool = 1,
        /// PSP with the key in the descriptor: version.
        psp_version: u8 = 4,
        /// PSP with the key in the descriptor: crypt offset in units of 4 bytes from the end of the IV.
        psp_crypt_offset: u8 = 6,
        /// PSP with the key in the descriptor: a [`SourcePortPolicy`] number.
        psp_source_port_policy: u8 = 2,
        /// PSP: the S bit.
        psp_sample: bool = 1,
        /// PSP: the D bit.
        psp_drop: bool = 1,
        /// Compute the checksum of the frame's IPv4 header before protection.
        ip_checksum: bool = 1,
        /// Compute the checksum of the frame's TCP or UDP header before protection.
        l4_checksum: bool = 1,
        /// PSP with the key in the descriptor: a virtualization cookie stands behind the key; stride 128.
        psp_cookie: bool = 1,
        /// PSP: the frame has its UDP and PSP headers already. The device sets SPI, IV, lengths and checksums and
        /// adds the ICV; version, crypt offset, S, D, cookie and extension are those of the frame. The version here is
        /// the same, the others are 0.
        psp_preformatted: bool = 1,
        /// ESP in tunnel mode: the frame's packet leaves as a dummy packet (RFC 4303 2.6).
        esp_dummy: bool = 1,
        /// Reserved.
        _reserved: bool = 1,
    }
    /// Transmit descriptor, word 3.
    pub struct TransmitExtent: u64 {
        /// Bytes of the whole frame as the host gives it, from the Ethernet header on, without FCS: inline bytes and
        /// all lengths of its descriptors. 0 in a descriptor that continues a frame.
        total_length: u32 = 18,
        /// Bytes of the frame that stand in the descriptor itself. 0 in a descriptor that continues a frame.
        inline_bytes: u8 = 7,
        /// TCP payload bytes of a segment: the device cuts the frame into segments before it protects them. 0 does
        /// not.
        maximum_segment: u16 = 14,
        /// In a push: the low half of the producer index behind this descriptor. Ignored in a ring.
        producer: u16 = 16,
        /// Reserved.
        _reserved: u16 = 9,
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
    /// Transmit descriptor: all of a slot of stride 32, and the beginning of a wider one.
    pub struct TransmitDescriptor[4] {
        /// IOVA of the frame, or of the part of it behind the inline bytes.
        address: u64,
        /// Length, tag and flags.
        control: TransmitControl,
        /// [`TransmitSa`] or [`TransmitPsp`], by `security`.
        security: u64,
        /// Lengths.
        extent: TransmitExtent,
    }
    /// Transmit descriptor with inline data, stride 64.
    pub struct TransmitInline64Descriptor[8] {
        /// IOVA of the part of the frame behind the inline bytes.
        address: u64,
        /// Length, tag and flags.
        control: TransmitControl,
        /// [`TransmitSa`], by `security`.
        security: u64,
        /// Lengths.
        extent: TransmitExtent,
        /// Frame bytes 0 to 7.
        inline_0: u64,
        /// Frame bytes 8 to 15.
        inline_1: u64,
        /// Frame bytes 16 to 23.
        inline_2: u64,
        /// Frame bytes 24 to 31.
        inline_3: u64,
    }
    /// Transmit descriptor with a PSP key: all of a slot of stride 64, and the beginning of one of stride 128, where
    /// cookie and inline data follow.
    pub struct TransmitKeyDescriptor[8] {
        /// IOVA of the frame, or of the part of it behind the inline bytes.
        address: u64,
        /// Length, tag and flags.
        control: TransmitControl,
        /// [`TransmitPsp`].
        security: u64,
        /// Lengths.
        extent: TransmitExtent,
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
