//! The one table of status, drop reason and verdict: completions, counters, RTL, JSON and the manual use its
//! numbers and names.

use crate::declare::enumeration;

/// The most status numbers there can be; the counters of BAR0 have room for as many.
pub const STATUS_NUMBERS: u32 = 128;

enumeration! {
    /// What became of a packet. Numbers 1 to 31: transmit; 32 to 63: receive parser; 64 to 95: receive
    /// behind the parser; 96 to 127: queues.
    pub enum Status {
        /// The packet went well.
        Ok = 0, "ok";

        /// commit: the packet was meant to leave in clear and its queue does not allow that.
        ClearNotAllowed = 1, "clear_not_allowed";
        /// commit: the SA slot is empty or has another generation.
        StaleSa = 2, "stale_sa";
        /// commit: the SA slot is for the other direction.
        WrongDirection = 3, "wrong_direction";
        /// commit: the SA has no sequence number left.
        SequenceExhausted = 4, "sequence_exhausted";
        /// descriptor: a reserved or contradictory field, or a length of 0.
        BadDescriptor = 5, "bad_descriptor";
        /// descriptor: the frame is longer than the device allows, or becomes so under protection.
        TooLong = 6, "too_long";
        /// gather: the IOMMU refused to read the frame.
        DmaFault = 7, "dma_fault";
        /// encapsulate: the frame is not a well-formed IP packet.
        NotIp = 8, "not_ip";
        /// encapsulate: a fragment cannot take transport mode.
        FragmentInTransport = 9, "fragment_in_transport";
        /// encapsulate: the crypt offset is past the end of the payload, or not 0 where nothing is encrypted.
        TransmitCryptOffset = 10, "transmit_crypt_offset";
        /// commit: PSP version not supported, an SPI that is reserved, or key bytes behind the key.
        BadPspKey = 11, "bad_psp_key";
        /// commit: the device was reset while the packet was on its way.
        Reset = 12, "reset";
        /// gather: inline bytes and lengths of a frame's descriptors are not its total length.
        LengthMismatch = 13, "length_mismatch";
        /// gather: a frame of more descriptors than the device takes. What follows up to the frame's end is
        /// discarded, with a completion of this status for as many descriptors again.
        ChainTooLong = 14, "chain_too_long";
        /// segment: the frame is not TCP, has no payload, or its headers leave no room.
        BadSegmentation = 15, "bad_segmentation";
        /// encapsulate: a pre-formatted frame whose UDP or PSP header is not right.
        BadPreformatted = 16, "bad_preformatted";
        /// encapsulate: BEET mode cannot carry this packet: a fragment, IPv4 options, or other addresses.
        NotBeet = 17, "not_beet";
        /// commit: the SA has reached a hard limit.
        HardLimit = 18, "hard_limit";
        /// commit: the IV clock of PSP has no epoch yet.
        PspNoEpoch = 19, "psp_no_epoch";

        /// rx_parse: the frame ends inside the Ethernet header.
        TruncatedEthernet = 32, "truncated_ethernet";
        /// rx_parse: the frame ends inside a VLAN tag or before the EtherType after it.
        TruncatedVlan = 33, "truncated_vlan";
        /// rx_parse: the version in the IP header is not that of the EtherType.
        BadIpVersion = 34, "bad_ip_version";
        /// rx_parse: the frame ends before the IPv4 header, its options or its total length do.
        TruncatedIpv4 = 35, "truncated_ipv4";
        /// rx_parse: the IPv4 header length is below 5 words.
        BadIpv4HeaderLength = 36, "bad_ipv4_header_length";
        /// rx_parse: the IPv4 total length is shorter than the header.
        BadIpv4TotalLength = 37, "bad_ipv4_total_length";
        /// rx_parse: the IPv4 header checksum is wrong.
        BadIpv4Checksum = 38, "bad_ipv4_checksum";
        /// rx_parse: the frame ends before the IPv6 header or its payload length does.
        TruncatedIpv6 = 39, "truncated_ipv6";
        /// rx_parse: the packet ends inside an IPv6 extension header.
        TruncatedIpv6Extension = 40, "truncated_ipv6_extension";
        /// rx_parse: more than 8 extension headers.
        TooDeepExtensionChain = 41, "too_deep_extension_chain";
        /// rx_parse: a fragment of a protected packet; it is never opened (RFC 4303 3.4.1).
        Fragment = 42, "fragment";
        /// rx_parse: the packet ends before the EESP header and its options do; rx_geometry: before sequence number, IV,
        /// payload info header and ICV do.
        TruncatedEesp = 43, "truncated_eesp";
        /// rx_parse: the packet ends inside the UDP header.
        TruncatedUdp = 44, "truncated_udp";
        /// rx_parse: the UDP length is shorter than its header, longer than the packet, or under PSP not all of it.
        BadUdpLength = 45, "bad_udp_length";
        /// rx_parse: the packet ends before ESP header, IV, trailer and ICV do.
        TruncatedEsp = 46, "truncated_esp";
        /// rx_parse: the packet ends before the PSP header and its ICV do.
        TruncatedPsp = 47, "truncated_psp";
        /// rx_parse: the bit of the PSP header that is always 1 is 0.
        PspReservedBit = 48, "psp_reserved_bit";
        /// rx_parse: a reserved PSP version.
        PspBadVersion = 49, "psp_bad_version";
        /// rx_parse: the PSP header length cannot hold its own fields or passes the payload.
        PspBadHeaderLength = 50, "psp_bad_header_length";
        /// rx_parse: the crypt offset points past the end of the payload.
        PspCryptOffsetPastEnd = 51, "psp_crypt_offset_past_end";
        /// rx_parse: an SPI that is never on the wire: 0 (RFC 4303 2.1), for PSP 0 in its low 31 bits.
        ReservedSpi = 52, "reserved_spi";
        /// rx_parse: a NAT keepalive (RFC 3948 2.3), dropped silently.
        NatKeepalive = 53, "nat_keepalive";
        /// rx_parse: an option of an EESP or WESPv2 header passes the end of the options.
        OptionOverrun = 54, "option_overrun";
        /// rx_parse: an EESP or WESPv2 header with more than 8 options, padding included.
        TooManyOptions = 55, "too_many_options";
        /// rx_parse: the first bit of an EESP header is not 1, or its reserved bits are not 0.
        EespFixedBits = 56, "eesp_fixed_bits";
        /// rx_parse: the EESP version is not 0.
        EespBadVersion = 57, "eesp_bad_version";
        /// rx_parse: an EESP crypt offset option is not of two octets, comes twice, or has its payload inside the options
        /// or past the packet.
        EespBadCryptOffset = 58, "eesp_bad_crypt_offset";
        /// rx_parse: the packet ends before the WESPv2 header, its options and the ESP header do.
        TruncatedWesp = 59, "truncated_wesp";
        /// rx_parse: the WESP version is not that of WESPv2.
        WespBadVersion = 60, "wesp_bad_version";
        /// rx_parse: the WESPv2 header length is below 12, not aligned, or ends before the ESP header does.
        WespBadHeaderLength = 61, "wesp_bad_header_length";
        /// rx_parse: a WESPv2 packet without a crypt offset has another next header than 59.
        WespBadNextHeader = 62, "wesp_bad_next_header";
        /// rx_parse: a WESPv2 option that asks for the packet to be dropped where it is not known, or may change on its way.
        WespUnknownOption = 63, "wesp_unknown_option";

        /// sa_lookup: no inbound SA for this protocol, SPI and destination.
        NoSa = 64, "no_sa";
        /// sa_lookup: PSP receive is off for this version.
        PspVersionDisabled = 65, "psp_version_disabled";
        /// key_derivation: the SPI names a device key that is not valid.
        PspNoDeviceKey = 66, "psp_no_device_key";
        /// replay: the sequence number was received before.
        ReplayDuplicate = 67, "replay_duplicate";
        /// replay: the sequence number is below the window.
        ReplayBelowWindow = 68, "replay_below_window";
        /// replay: the sequence number cannot be of this SA (0, or outside its number space).
        BadSequence = 69, "bad_sequence";
        /// lane: the ICV is wrong.
        IcvMismatch = 70, "icv_mismatch";
        /// decapsulate: pad length or padding bytes are wrong (RFC 4303 3.4.4).
        BadTrailer = 71, "bad_trailer";
        /// decapsulate: the inner packet is not what the next header says, or is truncated.
        BadInner = 72, "bad_inner";
        /// decapsulate: a dummy packet (RFC 4303 2.6), dropped silently.
        Dummy = 73, "dummy";
        /// decapsulate: congestion was signalled on an inner packet that does not take part (RFC 6040 4.2).
        EcnDrop = 74, "ecn_drop";
        /// receive commit: the SA slot was deleted while the packet was on its way.
        SaDeleted = 75, "sa_deleted";
        /// selector: the opened packet is not what its SA is for (RFC 4301 5.2).
        SelectorMismatch = 76, "selector_mismatch";
        /// selector: a packet in clear that an SA was due for (RFC 4301 5.2).
        ClearNotAccepted = 77, "clear_not_accepted";
        /// receive commit: the SA has reached a hard limit.
        ReceiveHardLimit = 78, "receive_hard_limit";
        /// receive commit: a PSP packet with the D bit, where the host wants those dropped.
        PspDropBit = 79, "psp_drop_bit";
        /// rx_geometry: an EESP packet has a crypt offset option that its SA does not allow.
        CryptOffsetNotAllowed = 80, "crypt_offset_not_allowed";
        /// rx_geometry: the crypt offset of an EESP or WESPv2 packet points past its last payload octet.
        CryptOffsetPastEnd = 81, "crypt_offset_past_end";
        /// rx_geometry: the EESP payload offset is not where the SA has the payload.
        EespPayloadOffset = 82, "eesp_payload_offset";
        /// rx_geometry: the EESP session ID is above the SA's last sub SA ID.
        EespSessionId = 83, "eesp_session_id";
        /// rx_geometry: the WESPv2 header length is not the one that the SA makes it.
        WespHeaderLengthMismatch = 84, "wesp_header_length_mismatch";

        /// steering: no receive descriptor was posted, or too few for the frame.
        NoBuffer = 96, "no_buffer";
        /// steering: the frame is longer than the posted buffer, or than as many as it may take.
        TooBig = 97, "too_big";
        /// steering: the queue pair is off.
        QueueOff = 98, "queue_off";
        /// doorbell: a producer index more than the ring's slots ahead.
        BadDoorbell = 99, "bad_doorbell";
        /// queue: a ring's base, stride or size is out of range.
        BadRing = 100, "bad_ring";
        /// queue: the IOMMU refused an access to a ring.
        RingDmaFault = 101, "ring_dma_fault";
        /// receive_dma: the IOMMU refused to write a frame.
        ReceiveDmaFault = 102, "receive_dma_fault";
        /// mac: a full receive FIFO.
        ReceiveOverflow = 103, "receive_overflow";
    }
}
