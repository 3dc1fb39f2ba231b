//! The outer IP header of tunnel mode (RFC 4301, 5.1.2; RFC 6040).

use crate::ethernet::ethertype;
use crate::ip::traffic_class;
use crate::packet::Plain;
use crate::room::NoRoom;
use crate::transform::Refused;
use crate::{ipv4, ipv6};

/// A tunnel's ends. One value, so that they are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// An IPv4 tunnel.
    V4 {
        /// The near end.
        source: [u8; 4],
        /// The far end.
        destination: [u8; 4],
    },
    /// An IPv6 tunnel.
    V6 {
        /// The near end.
        source: [u8; 16],
        /// The far end.
        destination: [u8; 16],
    },
}

/// Where the outer TTL or hop limit comes from (RFC 4301, 5.1.2.1, note 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// This one.
    Value(u8),
    /// From the inner header.
    Copy,
}

/// Where the outer DSCP comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dscp {
    /// From the inner header.
    #[default]
    Copy,
    /// This one, six bits.
    Value(u8),
}

/// Where the outer ECN comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// From the inner header: RFC 6040's normal mode.
    #[default]
    Copy,
    /// Not ECN-capable: RFC 6040's compatibility mode, for a far end that does not combine.
    NotCapable,
}

/// Where the outer IPv4 don't-fragment flag comes from (RFC 4301, 8.1 has all three).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DontFragment {
    /// From the inner header; set for an inner IPv6 packet, which routers never fragment.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Always clear: the outer packet may be fragmented, and needs an identification of its own.
    Clear,
}

/// Where the outer IPv6 flow label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowLabel {
    /// This one, 20 bits.
    Value(u32),
    /// From the inner header, 0 for inner IPv4. It tells inner flows apart for whoever watches the outer ones.
    Copy,
    /// From [`PerPacket::flow_hash`], which should be keyed: it spreads inner flows over paths (RFC 6438) and tells them
    /// apart without their numbers. A hash of 0 gives 1, for 0 means no label (RFC 6437, 2).
    Hash,
}

impl Default for FlowLabel {
    fn default() -> Self {
        Self::Value(0)
    }
}

/// What an outer header takes from its packet's turn, and from neither SA nor inner header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerPacket {
    /// Must be unique among outer IPv4 packets that may be fragmented; not used where don't-fragment is set (RFC 6864,
    /// 4.1).
    pub identification: u16,
    /// Hash of the inner flow, for [`FlowLabel::Hash`] alone.
    pub flow_hash: u32,
}

impl PerPacket {
    /// An identification, and no flow hash.
    pub const fn new(identification: u16) -> Self {
        Self { identification, flow_hash: 0 }
    }
}

/// Everything that an SA says of its outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterTemplate {
    /// The tunnel's ends.
    pub endpoints: Endpoints,
    /// TTL or hop limit policy.
    pub ttl: Ttl,
    /// DSCP policy.
    pub dscp: Dscp,
    /// ECN policy.
    pub ecn: Ecn,
    /// IPv4 don't-fragment policy.
    pub dont_fragment: DontFragment,
    /// IPv6 flow label policy.
    pub flow_label: FlowLabel,
}

impl OuterTemplate {
    /// RFC 4301's defaults: TTL 64; DSCP, ECN and don't-fragment copied; flow label 0.
    pub const fn new(endpoints: Endpoints) -> Self {
        Self {
            endpoints,
            ttl: Ttl::Value(64),
            dscp: Dscp::Copy,
            ecn: Ecn::Copy,
            dont_fragment: DontFragment::Copy,
            flow_label: FlowLabel::Value(0),
        }
    }

    /// Octets of the outer header.
    #[inline]
    pub const fn header_length(&self) -> usize {
        match self.endpoints {
            Endpoints::V4 { .. } => ipv4::HEADER_LENGTH,
            Endpoints::V6 { .. } => ipv6::HEADER_LENGTH,
        }
    }

    /// The outer header of one packet: `inner` is what it wraps, `protocol` and `payload_length` what follows it.
    /// The identification is used for IPv4 without don't-fragment alone; with it the field is 0 (RFC 6864, 4.1).
    ///
    /// # Errors
    /// [`Refused::TooLong`] where the length does not fit its 16 bits.
    #[inline]
    pub fn header(
        &self,
        inner: &Plain,
        protocol: u8,
        payload_length: usize,
        per_packet: PerPacket,
    ) -> Result<OuterHeader, Refused> {
        let dscp = match self.dscp {
            Dscp::Copy => inner.traffic_class & !traffic_class::ECN,
            Dscp::Value(value) => value << traffic_class::DSCP_SHIFT,
        };
        let ecn = match self.ecn {
            Ecn::Copy => inner.traffic_class & traffic_class::ECN,
            Ecn::NotCapable => 0,
        };
        let traffic_class = dscp | ecn;
        let ttl = match self.ttl {
            Ttl::Value(value) => value,
            Ttl::Copy => inner.hop_limit,
        };
        match self.endpoints {
            Endpoints::V4 { source, destination } => {
                let dont_fragment = match self.dont_fragment {
                    DontFragment::Copy => inner.dont_fragment,
                    DontFragment::Set => true,
                    DontFragment::Clear => false,
                };
                let total_length = payload_length.saturating_add(ipv4::HEADER_LENGTH);
                let header = ipv4::Header {
                    header_length: ipv4::HEADER_LENGTH as u8,
                    traffic_class,
                    total_length: u16::try_from(total_length).map_err(|_| Refused::TooLong)?,
                    identification: if dont_fragment { 0 } else { per_packet.identification },
                    flags_and_fragment_offset: if dont_fragment { ipv4::flag::DONT_FRAGMENT } else { 0 },
                    ttl,
                    protocol,
                    checksum: 0,
                    source,
                    destination,
                };
                Ok(OuterHeader::V4(header.with_checksum()))
            }
            Endpoints::V6 { source, destination } => Ok(OuterHeader::V6(ipv6::Header {
                traffic_class,
                flow_label: match self.flow_label {
                    FlowLabel::Value(value) => value & ipv6::FLOW_LABEL_MASK,
                    FlowLabel::Copy => inner.flow_label,
                    FlowLabel::Hash => (per_packet.flow_hash & ipv6::FLOW_LABEL_MASK).max(1),
                },
                payload_length: u16::try_from(payload_length).map_err(|_| Refused::TooLong)?,
                next_header: protocol,
                hop_limit: ttl,
                source,
                destination,
            })),
        }
    }
}

/// A finished outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterHeader {
    /// IPv4, checksum included.
    V4(ipv4::Header),
    /// IPv6.
    V6(ipv6::Header),
}

impl OuterHeader {
    /// Octets of the header.
    #[inline]
    pub const fn length(&self) -> usize {
        match self {
            Self::V4(_) => ipv4::HEADER_LENGTH,
            Self::V6(_) => ipv6::HEADER_LENGTH,
        }
    }

    /// The EtherType that goes with it.
    #[inline]
    pub const fn ethertype(&self) -> u16 {
        match self {
            Self::V4(_) => ethertype::IPV4,
            Self::V6(_) => ethertype::IPV6,
        }
    }

    /// Writes the header to the front of `packet`.
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        match self {
            Self::V4(header) => header.emit(packet),
            Self::V6(header) => header.emit(packet),
        }
    }
}
