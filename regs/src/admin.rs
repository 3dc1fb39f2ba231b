//! The admin queue: commands of 64 bytes, completions of 16 bytes, served by firmware in order.
//!
//! A command with a parameter block or a reply names its place in host memory. Keys in a parameter block are
//! moved by hardware; firmware never reads them. Derived PSP keys are written to the reply by the derivation
//! hardware.

use crate::declare::{bits, enumeration, record};

enumeration! {
    /// Admin commands.
    pub enum Opcode {
        /// Writes a [`CapabilityReply`].
        Capabilities = 0x01, "capabilities";
        /// Writes a [`StatisticsReply`].
        Statistics = 0x02, "statistics";
        /// Installs `argument_0` SAs, 1 to the most of [`crate::bar0::LifeCapability`], of as many [`SaParameters`] in
        /// free slots, and writes as many [`InstalledSa`]: all of them, or none. No packet uses one before the command
        /// completes with `ok`, and all are valid from then on. Result: 0, or on a refusal which of them is refused, from 0
        /// on.
        SaInstall = 0x10, "sa_install";
        /// Deletes the SA in slot `argument_0` bits 31:0 with generation bits 63:32. Completes when no packet
        /// uses it any more and every copy of its key is zeroised.
        SaDelete = 0x11, "sa_delete";
        /// Writes a [`SaStateReply`] of slot `argument_0` bits 31:0 with generation bits 63:32.
        SaQuery = 0x12, "sa_query";
        /// Arms the soft limit of slot `argument_0` bits 31:0 with generation bits 63:32 anew, at `argument_1`, which
        /// is not 0 and below the hard limit. Clears the sticky bits `soft_packets`, `soft_bytes` and `icv_failures`. An SA
        /// that has expired is a `bad_argument`.
        SaArm = 0x13, "sa_arm";
        /// Allocates `argument_0` bits 31:0 SPIs of PSP version `argument_0` bits 63:32 and writes as many
        /// [`PspAllocation`] records. Result: how many.
        PspAllocate = 0x20, "psp_allocate";
        /// Puts a fresh device key in place of the inactive one and makes it active. Result: the generation.
        PspRotate = 0x21, "psp_rotate";
        /// Test only: loads both device keys from a [`PspTestKeys`] block. Refused once locked.
        PspTestKeyLoad = 0x22, "psp_test_key_load";
        /// Test only: the next PSP packets take the IVs `argument_0`, `argument_0` + 1, … instead of device
        /// time. Refused once locked, and for a value at or below an IV already used.
        PspTestIvLoad = 0x23, "psp_test_iv_load";
    }
    /// How an admin command ended.
    pub enum AdminStatus {
        /// Done.
        Ok = 0, "ok";
        /// No such opcode.
        UnknownOpcode = 1, "unknown_opcode";
        /// An argument or a parameter field is out of range or reserved.
        BadArgument = 2, "bad_argument";
        /// The parameter block or the reply is too short, misaligned or outside mapped memory.
        BadAddress = 3, "bad_address";
        /// The slot is empty, or holds another generation.
        NoSuchSa = 4, "no_such_sa";
        /// Every slot of the kind that the lifetime names is taken, or no more SAs can refuse packets in clear.
        NoFreeSlot = 5, "no_free_slot";
        /// An inbound SA with this protocol, SPI and destination exists.
        DuplicateSpi = 6, "duplicate_spi";
        /// The device cannot do this; its capabilities say so.
        Unsupported = 7, "unsupported";
        /// The active device key has too few SPIs left, or is not valid.
        NoSpiLeft = 8, "no_spi_left";
        /// The test commands are locked.
        Locked = 9, "locked";
        /// SPI 0 to 255 of ESP, or 0 of PSP.
        ReservedSpi = 10, "reserved_spi";
        /// The command was cut short by a reset of the device or of its firmware.
        Aborted = 11, "aborted";
    }
    /// Direction of an SA.
    pub enum Direction {
        /// Protects packets on transmit.
        Out = 0, "out";
        /// Opens packets on receive.
        In = 1, "in";
    }
    /// Protocol of an SA.
    pub enum SaProtocol {
        /// ESP (RFC 4303).
        Esp = 1, "esp";
        /// PSP with its key in the slot; direction `out` only.
        Psp = 2, "psp";
    }
    /// What the limits of an SA count.
    pub enum LifetimeKind {
        /// Packets: the slot is count-based.
        Packets = 1, "packets";
        /// Bytes of IP packets in clear: the slot is byte-based.
        Bytes = 2, "bytes";
    }
    /// Mode of an SA.
    pub enum Mode {
        /// Tunnel.
        Tunnel = 0, "tunnel";
        /// Transport.
        Transport = 1, "transport";
        /// Bound end-to-end tunnel (RFC 7402 appendix B): the bytes of transport mode between the tunnel's ends; the
        /// inner addresses are the slot's selector.
        Beet = 2, "beet";
    }
    /// Cipher of an SA. For PSP it says the version: 0 and 1 for AES-GCM with 128 and 256 bits, 2 and 3 for AES-GMAC.
    pub enum Cipher {
        /// AES-GCM, 128-bit key (RFC 4106).
        AesGcm128 = 0, "aes_gcm_128";
        /// AES-GCM, 192-bit key.
        AesGcm192 = 1, "aes_gcm_192";
        /// AES-GCM, 256-bit key.
        AesGcm256 = 2, "aes_gcm_256";
        /// AES-GMAC, 128-bit key (RFC 4543).
        AesGmac128 = 3, "aes_gmac_128";
        /// AES-GMAC, 192-bit key.
        AesGmac192 = 4, "aes_gmac_192";
        /// AES-GMAC, 256-bit key.
        AesGmac256 = 5, "aes_gmac_256";
    }
    /// The ECN field of an outer header (RFC 6040).
    pub enum EcnPolicy {
        /// Normal mode: as the inner header; combined at the far end.
        Copy = 0, "copy";
        /// Compatibility mode: not ECN-capable.
        NotCapable = 1, "not_capable";
    }
    /// The flow label of an outer IPv6 header.
    pub enum FlowLabelPolicy {
        /// The number in the parameters.
        Fixed = 0, "fixed";
        /// As the inner IPv6 header; the number in the parameters for an inner IPv4 packet.
        Copy = 1, "copy";
        /// A keyed hash of the inner flow (RFC 6438).
        Hash = 2, "hash";
    }
    /// The don't-fragment bit of an outer IPv4 header (RFC 4301 8.1).
    pub enum DfPolicy {
        /// As the inner IPv4 header; set when the inner packet is IPv6.
        Copy = 0, "copy";
        /// Set.
        Set = 1, "set";
        /// Clear.
        Clear = 2, "clear";
    }
}

bits! {
    /// Command, word 0.
    pub struct CommandHead: u64 {
        /// An [`Opcode`] number.
        opcode: u16 = 16,
        /// Comes back in the completion.
        identifier: u16 = 16,
        /// Reserved.
        _reserved: u32 = 32,
    }
    /// Command, word 3.
    pub struct CommandLengths: u64 {
        /// Bytes of the parameter block.
        parameter_bytes: u32 = 32,
        /// Bytes that the reply may take.
        reply_bytes: u32 = 32,
    }
    /// The last word of an admin completion.
    pub struct AdminCompletionEnd: u64 {
        /// Identifier of the command.
        identifier: u16 = 16,
        /// An [`AdminStatus`] number.
        status: u16 = 16,
        /// Reserved.
        _reserved: u32 = 31,
        /// The phase, as in the other completion rings.
        phase: bool = 1,
    }
    /// SA parameters, word 0.
    pub struct SaForm: u64 {
        /// A [`Direction`] number.
        direction: u8 = 4,
        /// A [`SaProtocol`] number.
        protocol: u8 = 4,
        /// A [`Mode`] number.
        mode: u8 = 4,
        /// A [`Cipher`] number.
        cipher: u8 = 4,
        /// ICV length in bytes.
        icv_bytes: u8 = 8,
        /// Extended sequence numbers.
        esn: bool = 1,
        /// The outer header of a tunnel is IPv6.
        outer_ipv6: bool = 1,
        /// In: the destination address must match too.
        match_destination: bool = 1,
        /// The destination to match is IPv6.
        destination_ipv6: bool = 1,
        /// Out: copy the inner DSCP to the outer header; else take `dscp`.
        copy_dscp: bool = 1,
        /// ESP: the IV is not sent, it is the sequence number (RFC 8750).
        implicit_iv: bool = 1,
        /// In: receive scaling chooses the queue of its packets; else `receive_queue`.
        receive_scaling: bool = 1,
        /// Reserved.
        _reserved0: bool = 1,
        /// Out: a [`DfPolicy`] number.
        df: u8 = 2,
        /// Out: outer DSCP when it is not copied.
        dscp: u8 = 6,
        /// Out: outer TTL or hop limit; 0 copies the inner one.
        ttl: u8 = 8,
        /// In: receive queue of its packets.
        receive_queue: u16 = 16,
    }
    /// SA parameters, word 1.
    pub struct SaNames: u64 {
        /// SPI as a number.
        spi: u32 = 32,
        /// Host cookie, echoed in completions.
        cookie: u32 = 32,
    }
    /// SA parameters, word 3.
    pub struct SaWindow: u64 {
        /// In: replay window in packets; 0 is off, else 32 to the maximum.
        replay_window: u32 = 32,
        /// Out: flow label of an outer IPv6 header.
        flow_label: u32 = 20,
        /// Reserved.
        _reserved: u16 = 12,
    }
    /// SA parameters, word 10.
    pub struct SaOptions: u64 {
        /// ESP in UDP (RFC 3948). Out: with the ports of `encapsulation`. In: the SA takes packets in UDP alone.
        udp_encapsulation: bool = 1,
        /// Out: over IPv6 the UDP header has a checksum; else it is 0 (RFC 6935).
        udp_checksum: bool = 1,
        /// Out: an [`EcnPolicy`] number.
        ecn: u8 = 2,
        /// Out: a [`FlowLabelPolicy`] number.
        flow_label_policy: u8 = 2,
        /// Out, transport mode over IPv6: ESP stands before the destination options header, which it protects; else
        /// behind it (RFC 4303 3.1.1).
        protect_destination_options: bool = 1,
        /// In: opened packets must match the selector.
        check_selector: bool = 1,
        /// In: packets in clear that match the selector, read as that of received packets, do not enter.
        refuse_clear: bool = 1,
        /// PSP: send the virtualization cookie of the parameters.
        psp_cookie: bool = 1,
        /// PSP: crypt offset in units of 4 bytes from the end of the IV.
        psp_crypt_offset: u8 = 6,
        /// PSP: a [`crate::descriptor::SourcePortPolicy`] number.
        psp_source_port_policy: u8 = 2,
        /// Reserved.
        _reserved: u16 = 14,
        /// Out, tunnel mode: inner packets shorter than this are padded to it behind their end (RFC 4303 2.7); at most
        /// the largest frame without its Ethernet header.
        tfc_bytes: u16 = 16,
        /// Out: UDP source port, for ESP in UDP and for the policy `fixed` of PSP.
        udp_source_port: u16 = 16,
    }
    /// SA parameters, word 11: what its inner packets are, beside the two networks. In BEET mode these are the inner
    /// addresses, and both prefixes are whole.
    pub struct SaSelector: u64 {
        /// There is a selector.
        present: bool = 1,
        /// Its addresses are IPv6.
        ipv6: bool = 1,
        /// The protocol must be `protocol`.
        match_protocol: bool = 1,
        /// Reserved.
        _reserved0: u8 = 5,
        /// Upper protocol.
        protocol: u8 = 8,
        /// Bits of the source network, 0 to 32 or 128.
        source_bits: u8 = 8,
        /// Bits of the destination network, 0 to 32 or 128.
        destination_bits: u8 = 8,
        /// Reserved.
        _reserved1: u16 = 16,
        /// ESP in UDP, out: UDP destination port.
        udp_destination_port: u16 = 16,
    }
    /// SA parameters, word 17. Where there is no limit, its word is 0; else it is not 0, and the soft limit is below the
    /// hard one. An SA without limits goes into a slot of either kind.
    pub struct SaLifetime: u64 {
        /// A [`LifetimeKind`] number.
        kind: u8 = 4,
        /// There is no soft limit.
        no_soft_limit: bool = 1,
        /// There is no hard limit.
        no_hard_limit: bool = 1,
        /// Reserved.
        _reserved: u64 = 58,
    }
    /// Eight bytes of key or salt.
    pub struct SecretWord: u64 {
        /// Bytes in memory order.
        [secret] secret: u64 = 64,
    }
    /// State of an SA slot, word 0.
    pub struct SaStateHead: u64 {
        /// A [`crate::events::SlotState`] number.
        state: u8 = 8,
        /// A [`Direction`] number.
        direction: u8 = 4,
        /// A [`SaProtocol`] number.
        protocol: u8 = 4,
        /// What the slot's limits count: a [`LifetimeKind`] number.
        kind: u8 = 4,
        /// There is no soft limit.
        no_soft_limit: bool = 1,
        /// There is no hard limit.
        no_hard_limit: bool = 1,
        /// Reserved.
        _reserved: u16 = 10,
        /// SPI as a number.
        spi: u32 = 32,
    }
    /// State of an SA slot, word 13.
    pub struct SaSticky: u64 {
        /// Bit `n`: [`crate::events::EventCause`] `n` happened, as in [`crate::events::SlotStatus`].
        causes: u16 = 16,
        /// How often it was armed, modulo 2^8.
        arming: u8 = 8,
        /// Reserved.
        _reserved: u8 = 8,
        /// ICV failures since the last good packet.
        icv_failures_in_a_row: u32 = 32,
    }
    /// An installed SA.
    pub struct InstalledSa: u64 {
        /// Its slot.
        index: u32 = 32,
        /// The generation of the slot.
        generation: u32 = 32,
    }
    /// An allocated SPI.
    pub struct AllocatedSpi: u64 {
        /// SPI as a number.
        spi: u32 = 32,
        /// Bytes of the key.
        key_bytes: u8 = 8,
        /// Generation of the device key, as in the PSP key status.
        generation: u16 = 16,
        /// Reserved.
        _reserved: u8 = 8,
    }
}

record! {
    /// An admin command.
    pub struct Command[8] {
        /// What to do.
        head: CommandHead,
        /// IOVA of the parameter block, aligned to 8 bytes, or 0.
        parameter_address: u64,
        /// IOVA of the reply, aligned to 8 bytes, or 0.
        reply_address: u64,
        /// Lengths of both.
        lengths: CommandLengths,
        /// Argument 0.
        argument_0: u64,
        /// Argument 1.
        argument_1: u64,
        /// Reserved.
        reserved_0: u64,
        /// Reserved.
        reserved_1: u64,
    }
    /// An admin completion.
    pub struct AdminCompletion[2] {
        /// Result, by opcode.
        result: u64,
        /// Identifier, status, phase.
        end: AdminCompletionEnd,
    }
    /// What an SA is. The first 22 words hold no secret; addresses are in memory order, an IPv4 address in the last four of
    /// 16 bytes with zeros before it. A limit is 0 exactly where its flag says that there is none.
    pub struct SaParameters[28] {
        /// Direction, protocol, mode, cipher and outer header rules.
        form: SaForm,
        /// SPI and cookie.
        names: SaNames,
        /// Last sequence number used (out) or highest accepted (in).
        sequence: u64,
        /// Replay window and flow label.
        window: SaWindow,
        /// Destination to match, bytes 0 to 7.
        destination_0: u64,
        /// Destination to match, bytes 8 to 15.
        destination_1: u64,
        /// Tunnel source, bytes 0 to 7.
        tunnel_source_0: u64,
        /// Tunnel source, bytes 8 to 15.
        tunnel_source_1: u64,
        /// Tunnel destination, bytes 0 to 7.
        tunnel_destination_0: u64,
        /// Tunnel destination, bytes 8 to 15.
        tunnel_destination_1: u64,
        /// Encapsulation and what is checked.
        options: SaOptions,
        /// Which inner packets the SA is for.
        selector: SaSelector,
        /// Source network of inner packets, bytes 0 to 7; 0 behind the prefix.
        selector_source_0: u64,
        /// Source network of inner packets, bytes 8 to 15.
        selector_source_1: u64,
        /// Destination network of inner packets, bytes 0 to 7; 0 behind the prefix.
        selector_destination_0: u64,
        /// Destination network of inner packets, bytes 8 to 15.
        selector_destination_1: u64,
        /// PSP: the virtualization cookie, bytes in memory order.
        psp_cookie: u64,
        /// What its limits count, and which there are.
        lifetime: SaLifetime,
        /// Soft limit in packets or bytes, by the kind; below the hard one.
        soft_limit: u64,
        /// Hard limit. Of N packets, N pass; of N bytes, the packet that would begin at or past byte N does not.
        hard_limit: u64,
        /// Packets that its key protected or opened elsewhere before, which the slot goes on from; below a hard limit of
        /// packets.
        packets: u64,
        /// Bytes that its key protected or opened elsewhere before; below a hard limit of bytes.
        bytes: u64,
        /// Key bytes 0 to 7.
        key_0: SecretWord,
        /// Key bytes 8 to 15.
        key_1: SecretWord,
        /// Key bytes 16 to 23; 0 for a shorter key.
        key_2: SecretWord,
        /// Key bytes 24 to 31; 0 for a shorter key.
        key_3: SecretWord,
        /// Salt in the first four bytes; the others 0.
        salt: SecretWord,
        /// Reserved.
        reserved_1: u64,
    }
    /// Both device keys, for tests.
    pub struct PspTestKeys[8] {
        /// Device key 0, bytes 0 to 7.
        key_0_0: SecretWord,
        /// Device key 0, bytes 8 to 15.
        key_0_1: SecretWord,
        /// Device key 0, bytes 16 to 23.
        key_0_2: SecretWord,
        /// Device key 0, bytes 24 to 31.
        key_0_3: SecretWord,
        /// Device key 1, bytes 0 to 7.
        key_1_0: SecretWord,
        /// Device key 1, bytes 8 to 15.
        key_1_1: SecretWord,
        /// Device key 1, bytes 16 to 23.
        key_1_2: SecretWord,
        /// Device key 1, bytes 24 to 31.
        key_1_3: SecretWord,
    }
    /// Reply of `psp_allocate`: one a SPI.
    pub struct PspAllocation[5] {
        /// The SPI.
        spi: AllocatedSpi,
        /// Key bytes 0 to 7.
        key_0: SecretWord,
        /// Key bytes 8 to 15.
        key_1: SecretWord,
        /// Key bytes 16 to 23; 0 for a shorter key.
        key_2: SecretWord,
        /// Key bytes 24 to 31; 0 for a shorter key.
        key_3: SecretWord,
    }
    /// Reply of `sa_query`.
    pub struct SaStateReply[14] {
        /// State and names.
        head: SaStateHead,
        /// Last sequence number used (out) or highest accepted (in).
        sequence: u64,
        /// Packets protected or opened: those that took a sequence number or an IV, and those whose ICV was right and
        /// whose sequence number the window took.
        packets: u64,
        /// Bytes of these packets in clear: from the first byte of the IP header up to the end of the IP packet, before
        /// anything is added and after everything is taken off, so that both ends count alike. Dummy packets are 0, and
        /// so is, at the receiver, what cannot be taken apart or is dropped for congestion (RFC 6040 4.2).
        bytes: u64,
        /// Soft limit, or 0.
        soft_limit: u64,
        /// Hard limit, or 0.
        hard_limit: u64,
        /// Device time in picoseconds when it was installed.
        installed_picoseconds: u64,
        /// Device time in picoseconds of the first packet counted, or 0.
        first_use_picoseconds: u64,
        /// Device time in picoseconds of the last packet counted, or 0.
        last_use_picoseconds: u64,
        /// Packets refused by a hard limit or for want of a sequence number. Of a frame that is cut, what is left of it
        /// counts once.
        refused: u64,
        /// Packets whose sequence number was received before.
        replay_duplicates: u64,
        /// Packets whose sequence number was below the window.
        replay_below_window: u64,
        /// Packets whose ICV was wrong.
        icv_failures: u64,
        /// Sticky bits, and failures in a row.
        sticky: SaSticky,
    }
    /// Reply of `statistics`: counts of firmware.
    pub struct StatisticsReply[6] {
        /// Commands served.
        commands: u64,
        /// Commands that ended with another status than `ok`.
        refusals: u64,
        /// SA slots in use.
        sa_slots_used: u64,
        /// SA slots in all.
        sa_slots: u64,
        /// SPIs allocated since power-on.
        spis_allocated: u64,
        /// Device time in picoseconds.
        time_picoseconds: u64,
    }
    /// Reply of `capabilities`: the limits that firmware sets.
    pub struct CapabilityReply[4] {
        /// Most SPIs one `psp_allocate` gives.
        spis_per_command: u64,
        /// SA slots in all.
        sa_slots: u64,
        /// Version of the firmware: major in bits 31:16, minor in bits 15:0.
        firmware_version: u64,
        /// Largest replay window in packets.
        replay_window_max: u64,
    }
}

impl SaParameters {
    /// Words before the first secret.
    pub const PUBLIC_WORDS: usize = 22;
    /// Bytes before the first secret.
    pub const PUBLIC_BYTES: usize = Self::PUBLIC_WORDS * 8;
}
