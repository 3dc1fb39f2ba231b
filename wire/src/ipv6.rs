//! IPv6 header and the walk over its extension headers (RFC 8200).
//!
//! ```text
//!   octet 0                   1                   2                   3
//!        +-------+-------------------+-------------------------------------------------+
//!      0 | ver 6 |  DSCP 6, ECN 2    |                  flow label 20                  |
//!      4 |            payload length             |    next header    |    hop limit    |
//!      8 |                                source address (16)                          |
//!     24 |                              destination address (16)                       |
//!     40 |                               extension headers                             |
//!        +-----------------------------------------------------------------------------+
//! ```

use crate::bytes;
use crate::ip::protocol;
use crate::malformed::Malformed;
use crate::room::NoRoom;

/// Octets of the header without extension headers.
pub const HEADER_LENGTH: usize = 40;
/// The 20 bits of a flow label.
pub const FLOW_LABEL_MASK: u32 = 0x000f_ffff;
/// Octets of a fragment header.
pub const FRAGMENT_HEADER_LENGTH: usize = 8;
/// Extension headers that [`walk`] goes through before it gives up.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Octet ranges from the header's first octet.
pub mod field {
    use core::ops::Range;
    /// Version in bits 31..28, traffic class in bits 27..20, flow label in bits 19..0.
    pub const VERSION_CLASS_AND_FLOW_LABEL: Range<usize> = 0..4;
    /// Octets after the 40-octet header, extension headers included.
    pub const PAYLOAD_LENGTH: Range<usize> = 4..6;
    /// Protocol of what follows the 40-octet header.
    pub const NEXT_HEADER: Range<usize> = 6..7;
    /// Hop limit.
    pub const HOP_LIMIT: Range<usize> = 7..8;
    /// Source address.
    pub const SOURCE: Range<usize> = 8..24;
    /// Destination address.
    pub const DESTINATION: Range<usize> = 24..40;
}

/// Octet ranges from the first octet of an extension header.
pub mod extension_field {
    use core::ops::Range;
    /// Protocol of what follows the extension header.
    pub const NEXT_HEADER: Range<usize> = 0..1;
    /// Length in 8-octet units, the first eight octets not counted. Reserved in a fragment header.
    pub const LENGTH: Range<usize> = 1..2;
    /// Routing header: addresses of the route that are still ahead.
    pub const SEGMENTS_LEFT: Range<usize> = 3..4;
    /// Fragment header: offset in 8-octet units in bits 15..3, more-fragments flag in bit 0.
    pub const FRAGMENT_OFFSET_AND_FLAGS: Range<usize> = 2..4;
}

/// An IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// DSCP in bits 7..2, ECN in bits 1..0.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Octets after the 40-octet header, extension headers included.
    pub payload_length: u16,
    /// Protocol of what follows the 40-octet header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Header {
    /// Reads the header at the front of `packet`, which may be longer than the packet it begins (Ethernet padding).
    ///
    /// # Errors
    /// [`Malformed::TruncatedIpv6`], [`Malformed::BadIpVersion`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let truncated = Malformed::TruncatedIpv6;
        let [w0, w1, w2, w3, l0, l1, next_header, hop_limit]: [u8; 8] =
            bytes::array(packet, 0).ok_or(truncated)?;
        if w0 >> 4 != 6 {
            return Err(Malformed::BadIpVersion);
        }
        let source = bytes::array(packet, field::SOURCE.start).ok_or(truncated)?;
        let destination = bytes::array(packet, field::DESTINATION.start).ok_or(truncated)?;
        let payload_length = u16::from_be_bytes([l0, l1]);
        if packet.len() < HEADER_LENGTH + usize::from(payload_length) {
            return Err(truncated);
        }
        let word = u32::from_be_bytes([w0, w1, w2, w3]);
        Ok(Self {
            traffic_class: (word >> 20) as u8,
            flow_label: word & FLOW_LABEL_MASK,
            payload_length,
            next_header,
            hop_limit,
            source,
            destination,
        })
    }

    /// Writes the header's 40 octets to the front of `packet`.
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter; what it holds is then unspecified.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & FLOW_LABEL_MASK;
        bytes::put(packet, field::VERSION_CLASS_AND_FLOW_LABEL.start, &word.to_be_bytes())?;
        bytes::put(packet, field::PAYLOAD_LENGTH.start, &self.payload_length.to_be_bytes())?;
        bytes::put(packet, field::NEXT_HEADER.start, &[self.next_header, self.hop_limit])?;
        bytes::put(packet, field::SOURCE.start, &self.source)?;
        bytes::put(packet, field::DESTINATION.start, &self.destination)
    }
}

/// Where a chain of extension headers ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Protocol after the chain.
    pub next_header: u8,
    /// Offset, from the IPv6 header, of the octet that names [`next_header`](Self::next_header).
    pub next_header_offset: usize,
    /// Octets of the IPv6 header and its extension headers: where the upper protocol begins.
    pub length: usize,
    /// The offset-and-flags word of the fragment header, if there is one. The walk ends after it.
    pub fragment: Option<u16>,
    /// Where the last run of destination options begins that no other extension header follows, from the IPv6 header;
    /// [`length`](Self::length) where there is none. Those options are for the packet's last destination alone, and may
    /// stand inside ESP (RFC 4303, 3.1.1).
    pub last_options: usize,
    /// Offset, from the IPv6 header, of the octet that names what begins at [`last_options`](Self::last_options).
    pub last_options_named_at: usize,
    /// Whether a routing header has addresses ahead, so that the header's destination is not the packet's last.
    pub route_ahead: bool,
}

impl Chain {
    /// Whether the upper protocol's header is in this packet: no fragment, or the first one.
    #[inline]
    pub const fn is_first_fragment(&self) -> bool {
        match self.fragment {
            None => true,
            Some(word) => word & 0xfff8 == 0,
        }
    }
}

/// Walks hop-by-hop options, routing headers and destination options up to the upper protocol, or up to and over a
/// fragment header. `packet` is the IPv6 packet alone, from its header to its payload's end.
///
/// # Errors
/// [`Malformed::TruncatedIpv6Extension`], [`Malformed::TooDeepExtensionChain`].
#[inline]
pub fn walk(packet: &[u8], next_header: u8) -> Result<Chain, Malformed> {
    let mut chain = Chain {
        next_header,
        next_header_offset: field::NEXT_HEADER.start,
        length: HEADER_LENGTH,
        fragment: None,
        last_options: HEADER_LENGTH,
        last_options_named_at: field::NEXT_HEADER.start,
        route_ahead: false,
    };
    let mut headers = 0;
    loop {
        let is_fragment = match chain.next_header {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => false,
            protocol::FRAGMENT => true,
            _ => return Ok(chain),
        };
        if headers == MAX_EXTENSION_HEADERS {
            return Err(Malformed::TooDeepExtensionChain);
        }
        headers += 1;
        let [next_header, units, high, low]: [u8; 4] =
            bytes::array(packet, chain.length).ok_or(Malformed::TruncatedIpv6Extension)?;
        let length = if is_fragment { FRAGMENT_HEADER_LENGTH } else { (usize::from(units) + 1) * 8 };
        let is_options = chain.next_header == protocol::DESTINATION_OPTIONS;
        chain.route_ahead |= chain.next_header == protocol::ROUTING && low != 0;
        chain.next_header = next_header;
        chain.next_header_offset = chain.length;
        chain.length += length;
        if !is_options {
            chain.last_options = chain.length;
            chain.last_options_named_at = chain.next_header_offset;
        }
        if chain.length > packet.len() {
            return Err(Malformed::TruncatedIpv6Extension);
        }
        if is_fragment {
            chain.fragment = Some(u16::from_be_bytes([high, low]));
            return Ok(chain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_of_eight_is_walked_and_of_nine_refused() {
        let mut packet = [0u8; HEADER_LENGTH + 9 * 8];
        for index in 0..9 {
            packet[HEADER_LENGTH + index * 8] = protocol::DESTINATION_OPTIONS;
        }
        assert_eq!(walk(&packet, protocol::HOP_BY_HOP), Err(Malformed::TooDeepExtensionChain));
        packet[HEADER_LENGTH + 7 * 8] = protocol::ESP;
        let chain = walk(&packet, protocol::HOP_BY_HOP).unwrap();
        assert_eq!((chain.next_header, chain.length), (protocol::ESP, 40 + 64));
        assert_eq!(chain.next_header_offset, 40 + 56);
        assert_eq!(
            walk(&packet[..HEADER_LENGTH + 63], protocol::HOP_BY_HOP),
            Err(Malformed::TruncatedIpv6Extension)
        );
    }

    #[test]
    fn last_options_are_those_for_the_last_destination() {
        use protocol::{DESTINATION_OPTIONS as OPTIONS, HOP_BY_HOP, ROUTING, TCP};
        // (first next header, chain of next headers, last options begin after so many headers)
        let rows: [(u8, &[u8], usize); 6] = [
            (TCP, &[], 0),
            (OPTIONS, &[TCP], 0),
            (OPTIONS, &[ROUTING, TCP], 2),
            (HOP_BY_HOP, &[OPTIONS, ROUTING, OPTIONS, OPTIONS, TCP], 3),
            (HOP_BY_HOP, &[OPTIONS, TCP], 1),
            (ROUTING, &[TCP], 1),
        ];
        for (first, headers, outside) in rows {
            let mut packet = [0u8; HEADER_LENGTH + 5 * 8];
            for (index, next) in headers.iter().enumerate() {
                packet[HEADER_LENGTH + index * 8] = *next;
            }
            let chain = walk(&packet[..HEADER_LENGTH + headers.len() * 8], first).unwrap();
            assert_eq!(chain.last_options, HEADER_LENGTH + 8 * outside, "{headers:?}");
            let named_at = if outside == 0 { 6 } else { HEADER_LENGTH + 8 * (outside - 1) };
            assert_eq!(chain.last_options_named_at, named_at, "{headers:?}");
            assert!(!chain.route_ahead);
        }
        let mut packet = [0u8; HEADER_LENGTH + 8];
        packet[HEADER_LENGTH..HEADER_LENGTH + 4].copy_from_slice(&[TCP, 0, 4, 1]);
        assert!(walk(&packet, ROUTING).unwrap().route_ahead);
        assert!(!walk(&packet, OPTIONS).unwrap().route_ahead);
    }

    #[test]
    fn fragment_header_ends_the_walk() {
        let mut packet = [0u8; HEADER_LENGTH + 8];
        packet[HEADER_LENGTH..].copy_from_slice(&[protocol::ROUTING, 0xff, 0x00, 0x09, 0, 0, 0, 1]);
        let chain = walk(&packet, protocol::FRAGMENT).unwrap();
        assert_eq!((chain.next_header, chain.length), (protocol::ROUTING, 48));
        assert!(!chain.is_first_fragment());
    }
}
