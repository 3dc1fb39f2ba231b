//! Which packets an SA is for: address prefixes, upper protocol and port ranges (RFC 4301, 4.4.1.1).

use crate::packet::{Plain, widen};

/// Addresses of one family, or any address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefix {
    /// Every address of both families.
    #[default]
    Any,
    /// IPv4 addresses that agree in their first `length` bits, 0 to 32.
    V4 {
        /// An address of the prefix.
        address: [u8; 4],
        /// Bits that count; more than 32 are 32.
        length: u8,
    },
    /// IPv6 addresses that agree in their first `length` bits, 0 to 128.
    V6 {
        /// An address of the prefix.
        address: [u8; 16],
        /// Bits that count; more than 128 are 128.
        length: u8,
    },
}

impl Prefix {
    /// Whether an address of a family is in the prefix. An IPv4 address stands in the last four octets, as in [`Plain`].
    #[inline]
    pub const fn contains(&self, ip_version: u8, address: [u8; 16]) -> bool {
        let (version, own, free_bits) = match *self {
            Self::Any => return true,
            Self::V4 { address, length } => (4, widen(address), 32_u32.saturating_sub(length as u32)),
            Self::V6 { address, length } => (6, address, 128_u32.saturating_sub(length as u32)),
        };
        let differing = u128::from_be_bytes(own) ^ u128::from_be_bytes(address);
        ip_version == version && matches!(differing.checked_shr(free_bits), None | Some(0))
    }
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is in the range.
    #[inline]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// What a packet must look like. [`Default`] is every IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Source addresses.
    pub source: Prefix,
    /// Destination addresses.
    pub destination: Prefix,
    /// Upper protocol, after extension headers.
    pub protocol: Option<u8>,
    /// Source ports. A packet that shows no ports, such as a later fragment, does not match (RFC 4301, 7.2).
    pub source_ports: Option<PortRange>,
    /// Destination ports, likewise.
    pub destination_ports: Option<PortRange>,
}

impl Selector {
    /// Whether a packet is one of these. A frame that is not IP never is.
    #[inline]
    pub fn matches(&self, plain: &Plain) -> bool {
        let in_range = |range: Option<PortRange>, port: Option<u16>| match (range, port) {
            (None, _) => true,
            (Some(range), Some(port)) => range.contains(port),
            (Some(_), None) => false,
        };
        plain.ip_version != 0
            && self.source.contains(plain.ip_version, plain.source)
            && self.destination.contains(plain.ip_version, plain.destination)
            && self.protocol.is_none_or(|protocol| protocol == plain.next_header)
            && in_range(self.source_ports, plain.ports.map(|ports| ports.source))
            && in_range(self.destination_ports, plain.ports.map(|ports| ports.destination))
    }
}
