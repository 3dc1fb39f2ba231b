//! Completions: what the device gives back through the completion rings.
//!
//! The last word of a completion is written last and holds the phase: 1 on the first pass over the ring, 0
//! on the second, and so on (the host clears the ring before it starts). A host that reads the last word
//! with acquire order and finds the phase it waits for may read the other words.

use crate::declare::{bits, enumeration, record};

enumeration! {
    /// What protected a received packet.
    pub enum ReceivedProtocol {
        /// Nothing the device knows: the frame is as it was on the wire.
        Clear = 0, "clear";
        /// ESP.
        Esp = 1, "esp";
        /// PSP.
        Psp = 2, "psp";
    }
    /// What the device found about a checksum.
    pub enum ChecksumState {
        /// There is none, or the device did not look: another protocol, a fragment, UDP without one, a packet that
        /// passed a NAT in transport mode (RFC 3948 3.1.2).
        NotChecked = 0, "not_checked";
        /// It is right.
        Good = 1, "good";
        /// It is wrong.
        Bad = 2, "bad";
    }
    /// What the hash of a received packet covers.
    pub enum HashKind {
        /// No hash.
        None = 0, "none";
        /// Both IPv4 addresses.
        Ipv4 = 1, "ipv4";
        /// Both IPv4 addresses and TCP ports.
        Ipv4Tcp = 2, "ipv4_tcp";
        /// Both IPv4 addresses and UDP ports.
        Ipv4Udp = 3, "ipv4_udp";
        /// Both IPv6 addresses.
        Ipv6 = 4, "ipv6";
        /// Both IPv6 addresses and TCP ports.
        Ipv6Tcp = 5, "ipv6_tcp";
        /// Both IPv6 addresses and UDP ports.
        Ipv6Udp = 6, "ipv6_udp";
        /// The SPI of a packet that was not opened.
        Spi = 7, "spi";
    }
}

bits! {
    /// Transmit completion, word 0.
    pub struct TransmitCompleted: u64 {
        /// How many descriptors this completion retires. All but the last went well.
        descriptors: u16 = 16,
        /// Tag of the last descriptor.
        tag: u16 = 16,
        /// Tag generation of the last descriptor.
        tag_generation: u8 = 8,
        /// SA slot of the last descriptor's packet, or 0.
        sa_index: u32 = 24,
    }
    /// The last word of a transmit completion.
    pub struct TransmitCompletionEnd: u64 {
        /// Status of the last descriptor's packet ([`crate::Status`]).
        status: u16 = 16,
        /// Reserved.
        _reserved: u64 = 47,
        /// The phase.
        phase: bool = 1,
    }
    /// Receive completion, word 0.
    pub struct ReceiveCompleted: u64 {
        /// Bytes written to this buffer.
        length: u16 = 16,
        /// Tag of the buffer.
        tag: u16 = 16,
        /// Tag generation of the buffer.
        tag_generation: u8 = 8,
        /// SA slot that opened the packet, or 0.
        sa_index: u32 = 24,
    }
    /// Receive completion, word 1.
    pub struct ReceiveSecurity: u64 {
        /// SPI of the packet, or 0.
        spi: u32 = 32,
        /// Host cookie of the SA slot, or 0.
        cookie: u32 = 32,
    }
    /// Receive completion, word 5.
    pub struct ReceiveSteering: u64 {
        /// Toeplitz hash by the key of the steering block, or 0.
        hash: u32 = 32,
        /// A [`ReceivedProtocol`] number.
        protocol: u8 = 8,
        /// PSP: version of the packet.
        psp_version: u8 = 4,
        /// PSP: the S bit.
        psp_sample: bool = 1,
        /// PSP: the D bit.
        psp_drop: bool = 1,
        /// PSP: the device key that derived the packet's key.
        psp_device_key: bool = 1,
        /// PSP: the packet had a virtualization cookie; it stands in the word of the sequence number.
        psp_cookie: bool = 1,
        /// A [`HashKind`] number.
        hash_kind: u8 = 4,
        /// A [`ChecksumState`] number: of the delivered packet's IPv4 header.
        ip_checksum: u8 = 2,
        /// A [`ChecksumState`] number: of the delivered packet's TCP or UDP header.
        l4_checksum: u8 = 2,
        /// A [`ChecksumState`] number: of the UDP header that carried ESP or PSP.
        outer_checksum: u8 = 2,
        /// Reserved.
        _reserved1: u8 = 6,
    }
    /// The last word of a receive completion.
    pub struct ReceiveCompletionEnd: u64 {
        /// Status of the packet ([`crate::Status`]).
        status: u16 = 16,
        /// Next header that the protection named: 4 and 41 after tunnel mode, 144 for what the device opens and hands
        /// up as it is (RFC 9347), else the upper protocol; 0 for a packet without protection.
        next_header: u8 = 8,
        /// The frame goes on in the next buffer. Of its completions only the last, where this is 0, says more than
        /// length, tag and status.
        more: bool = 1,
        /// A copy of a packet for the queue of samples, or a failed packet for the queue of captures.
        copy: bool = 1,
        /// Reserved.
        _reserved: u64 = 37,
        /// The phase.
        phase: bool = 1,
    }
}

record! {
    /// Transmit completion. Written when a descriptor asks for a report or its packet did not go well.
    pub struct TransmitCompletion[4] {
        /// How many descriptors, and which was the last.
        completed: TransmitCompleted,
        /// 64-bit sequence number (ESP) or IV (PSP) of the last packet, or 0.
        sequence: u64,
        /// Device time in picoseconds when the last packet's fate was known.
        time_picoseconds: u64,
        /// Status and phase.
        end: TransmitCompletionEnd,
    }
    /// Receive completion: one a buffer.
    pub struct ReceiveCompletion[8] {
        /// Length and tag.
        completed: ReceiveCompleted,
        /// SPI and cookie.
        security: ReceiveSecurity,
        /// 64-bit sequence number (ESP), virtualization cookie with its bytes in memory order (PSP), or 0.
        sequence: u64,
        /// IV of the packet as a number, or 0.
        iv: u64,
        /// Device time in picoseconds when the frame's last byte arrived.
        time_picoseconds: u64,
        /// Protocol and what its header said.
        steering: ReceiveSteering,
        /// Generation of the SA slot that opened the packet, or 0.
        sa_generation: u64,
        /// Status and phase.
        end: ReceiveCompletionEnd,
    }
}
