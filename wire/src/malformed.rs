//! Everything a parser can find wrong with a frame, one entry each.

use core::fmt;

macro_rules! malformations {
    ($($variant:ident $name:literal $sentence:literal)+) => {
        /// What is wrong with a frame. Each malformation has an entry of its own, and each entry a stable
        /// [`name`](Malformed::name) for counters, verdict tables and reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Malformed {
            $(#[doc = $sentence] $variant,)+
        }

        impl Malformed {
            /// Every entry, in the order of declaration.
            pub const ALL: &'static [Malformed] = &[$(Malformed::$variant),+];

            /// The entry's stable snake_case name.
            pub const fn name(self) -> &'static str {
                match self { $(Malformed::$variant => $name,)+ }
            }

            /// What the entry means, as one sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Malformed::$variant => $sentence,)+ }
            }
        }
    };
}

malformations! {
    TruncatedEthernet "truncated_ethernet" "The frame ends before its 14-octet Ethernet header does."
    TruncatedVlan "truncated_vlan" "The frame ends inside a VLAN tag or before the EtherType after it."
    BadIpVersion "bad_ip_version" "The IP version nibble contradicts the EtherType."
    TruncatedIpv4 "truncated_ipv4" "The frame ends before the IPv4 header, its options or its total length do."
    BadIpv4HeaderLength "bad_ipv4_header_length" "The IPv4 header length is below five words."
    BadIpv4TotalLength "bad_ipv4_total_length" "The IPv4 total length is shorter than the IPv4 header."
    BadIpv4Checksum "bad_ipv4_checksum" "The IPv4 header checksum is wrong."
    TruncatedIpv6 "truncated_ipv6" "The frame ends before the IPv6 header or its payload length does."
    TruncatedIpv6Extension "truncated_ipv6_extension" "The IPv6 packet ends inside an extension header."
    TooDeepExtensionChain "too_deep_extension_chain" "The IPv6 packet has more than eight extension headers."
    Fragment "fragment" "An IP fragment carries ESP or PSP, which are opened only after reassembly."
    TruncatedUdp "truncated_udp" "The IP packet ends before the 8-octet UDP header does."
    BadUdpLength "bad_udp_length" "The UDP length is below eight or past the IP payload, or under ESP or PSP is not all of it."
    TruncatedEsp "truncated_esp" "The IP packet ends before the ESP header, IV, trailer and ICV do."
    TruncatedPsp "truncated_psp" "The UDP payload ends before the PSP header and its 16-octet ICV do."
    PspReservedBit "psp_reserved_bit" "The PSP header bit that is a literal one is zero."
    PspBadVersion "psp_bad_version" "The PSP version is none of 0 to 3."
    PspBadHeaderLength "psp_bad_header_length" "The PSP header length cannot hold its own fields or passes the payload."
    PspCryptOffsetPastEnd "psp_crypt_offset_past_end" "The PSP crypt offset points past the last payload octet."
    ReservedSpi "reserved_spi" "The SPI is zero (for PSP: zero in its low 31 bits), which is never on the wire."
    OptionOverrun "option_overrun" "An option of an EESP or WESPv2 header passes the end of the header's options."
    TooManyOptions "too_many_options" "An EESP or WESPv2 header has more than eight options, padding included."
    CryptOffsetNotAllowed "crypt_offset_not_allowed" "An EESP packet has a crypt offset option that its SA does not allow."
    CryptOffsetPastEnd "crypt_offset_past_end" "The crypt offset of an EESP or WESPv2 packet points past its last payload octet."
    TruncatedEesp "truncated_eesp" "The IP packet ends before EESP header, options, sequence number, IV, payload info header and ICV do."
    EespFixedBits "eesp_fixed_bits" "The first bit of an EESP header is not one, or its reserved bits are not zero."
    EespBadVersion "eesp_bad_version" "The EESP version is not zero."
    EespBadCryptOffset "eesp_bad_crypt_offset" "An EESP crypt offset option is not of two octets, comes twice, or has its payload inside the options or past the packet."
    EespPayloadOffset "eesp_payload_offset" "The EESP payload offset is not where the SA has the payload."
    EespSessionId "eesp_session_id" "The EESP session ID is above the SA's last sub SA ID."
    TruncatedWesp "truncated_wesp" "The IP packet ends before the WESPv2 header, its options and the ESP header do."
    WespBadVersion "wesp_bad_version" "The WESP version is not that of WESPv2."
    WespBadHeaderLength "wesp_bad_header_length" "The WESPv2 header length is below 12, not aligned, or ends before the ESP header does."
    WespBadNextHeader "wesp_bad_next_header" "A WESPv2 packet without a crypt offset has another next header than 59."
    WespUnknownOption "wesp_unknown_option" "A WESPv2 option asks for its packet to be dropped where it is not known, or may change on its way."
    WespHeaderLengthMismatch "wesp_header_length_mismatch" "The WESPv2 header length is not the one that the SA makes it."
    NotThisProtocol "not_this_protocol" "The parse result names another protocol than the one asked for."
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.sentence())
    }
}

impl core::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (index, entry) in Malformed::ALL.iter().enumerate() {
            assert!(Malformed::ALL[index + 1..].iter().all(|other| other.name() != entry.name()));
        }
    }
}
