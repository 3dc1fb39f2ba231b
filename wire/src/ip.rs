//! Numbers that IPv4 and IPv6 share: protocol numbers and the traffic class octet.

/// IP protocol and next-header numbers (IANA) this crate knows.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// IPv4 in IP: a whole IPv4 packet follows.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP: a whole IPv6 packet follows.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// No next header; inside ESP a dummy packet (RFC 4303, 2.6).
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// The pseudo header that carries IPv4 options through BEET mode (RFC 7402, B.1).
    pub const BEET_PSEUDO_HEADER: u8 = 94;
    /// AGGFRAG payload inside ESP (RFC 9347, 6.1); ESP echo packets use it too.
    pub const AGGFRAG: u8 = 144;
}

/// Bits of the IPv4 TOS and IPv6 traffic class octet: DSCP 7..2, ECN 1..0 (RFC 2474, RFC 3168).
pub mod traffic_class {
    /// Mask of the ECN bits.
    pub const ECN: u8 = 0x03;
    /// Shift of the six DSCP bits.
    pub const DSCP_SHIFT: u8 = 2;
}
