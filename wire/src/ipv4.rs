//! IPv4 header (RFC 791).
//!
//! ```text
//!   octet 0                   1                   2                   3
//!        +-------+-----------+-------------------+---------------------------------------+
//!      0 | ver 4 | IHL words |  DSCP 7..2 ECN    |              total length             |
//!      4 |            identification             | 0 DF MF |    fragment offset / 8      |
//!      8 |       TTL         |     protocol      |            header checksum            |
//!     12 |                                 source address                                |
//!     16 |                               destination address                             |
//!     20 |                       options, up to 40 octets                                |
//!        +-------------------------------------------------------------------------------+
//! ```

use crate::bytes;
use crate::checksum;
use crate::malformed::Malformed;
use crate::room::NoRoom;

/// Octets of the header without options.
pub const HEADER_LENGTH: usize = 20;

/// Octet ranges from the header's first octet.
pub mod field {
    use core::ops::Range;
    /// Version in bits 7..4, header length in 32-bit words in bits 3..0.
    pub const VERSION_AND_HEADER_LENGTH: Range<usize> = 0..1;
    /// DSCP and ECN.
    pub const TRAFFIC_CLASS: Range<usize> = 1..2;
    /// Octets of header and payload.
    pub const TOTAL_LENGTH: Range<usize> = 2..4;
    /// Identification, for reassembly.
    pub const IDENTIFICATION: Range<usize> = 4..6;
    /// Flags in bits 15..13, fragment offset in 8-octet units in bits 12..0.
    pub const FLAGS_AND_FRAGMENT_OFFSET: Range<usize> = 6..8;
    /// Time to live.
    pub const TTL: Range<usize> = 8..9;
    /// Protocol of the payload.
    pub const PROTOCOL: Range<usize> = 9..10;
    /// Checksum over the header.
    pub const CHECKSUM: Range<usize> = 10..12;
    /// Source address.
    pub const SOURCE: Range<usize> = 12..16;
    /// Destination address.
    pub const DESTINATION: Range<usize> = 16..20;
}

/// Bits of the flags-and-fragment-offset word.
pub mod flag {
    /// Don't fragment.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// More fragments.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// The fragment offset, in units of eight octets.
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;
}

/// An IPv4 header; its options are counted by the header length but not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Octets of the header, options included: 20 to 60, a multiple of four.
    pub header_length: u8,
    /// DSCP in bits 7..2, ECN in bits 1..0.
    pub traffic_class: u8,
    /// Octets of header and payload.
    pub total_length: u16,
    /// Identification, for reassembly.
    pub identification: u16,
    /// Flags and fragment offset, see [`flag`].
    pub flags_and_fragment_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum as received, or as it is to be sent.
    pub checksum: u16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Header {
    /// Reads the header at the front of `packet`, which may be longer than the packet it begins (Ethernet padding).
    /// The checksum is not judged here, see [`checksum_is_valid`].
    ///
    /// # Errors
    /// [`Malformed::TruncatedIpv4`], [`Malformed::BadIpVersion`], [`Malformed::BadIpv4HeaderLength`],
    /// [`Malformed::BadIpv4TotalLength`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let fixed: [u8; HEADER_LENGTH] = bytes::array(packet, 0).ok_or(Malformed::TruncatedIpv4)?;
        if fixed[0] >> 4 != 4 {
            return Err(Malformed::BadIpVersion);
        }
        let header_length = (fixed[0] & 0x0f) * 4;
        if usize::from(header_length) < HEADER_LENGTH {
            return Err(Malformed::BadIpv4HeaderLength);
        }
        let total_length = u16::from_be_bytes([fixed[2], fixed[3]]);
        if total_length < u16::from(header_length) {
            return Err(Malformed::BadIpv4TotalLength);
        }
        if packet.len() < usize::from(total_length) {
            return Err(Malformed::TruncatedIpv4);
        }
        Ok(Self {
            header_length,
            traffic_class: fixed[1],
            total_length,
            identification: u16::from_be_bytes([fixed[4], fixed[5]]),
            flags_and_fragment_offset: u16::from_be_bytes([fixed[6], fixed[7]]),
            ttl: fixed[8],
            protocol: fixed[9],
            checksum: u16::from_be_bytes([fixed[10], fixed[11]]),
            source: bytes::array(packet, field::SOURCE.start).ok_or(Malformed::TruncatedIpv4)?,
            destination: bytes::array(packet, field::DESTINATION.start).ok_or(Malformed::TruncatedIpv4)?,
        })
    }

    /// Writes the header's fixed 20 octets to the front of `packet`. Options are left as they are there.
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        bytes::put(packet, 0, &self.to_bytes())
    }

    /// The header's fixed 20 octets.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_LENGTH] {
        let [l0, l1] = self.total_length.to_be_bytes();
        let [i0, i1] = self.identification.to_be_bytes();
        let [f0, f1] = self.flags_and_fragment_offset.to_be_bytes();
        let [c0, c1] = self.checksum.to_be_bytes();
        let [s0, s1, s2, s3] = self.source;
        let [d0, d1, d2, d3] = self.destination;
        let version = 0x40 | (self.header_length / 4) & 0x0f;
        #[rustfmt::skip]
        let octets = [
            version, self.traffic_class, l0, l1,
            i0, i1, f0, f1,
            self.ttl, self.protocol, c0, c1,
            s0, s1, s2, s3,
            d0, d1, d2, d3,
        ];
        octets
    }

    /// The same header with the checksum that is right for it, options not counted.
    #[inline]
    #[must_use]
    pub fn with_checksum(mut self) -> Self {
        self.checksum = 0;
        self.checksum = checksum::checksum(&self.to_bytes());
        self
    }

    /// Whether the packet is a fragment: more are to come, or this is not the first (RFC 4303, 3.4.1).
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.flags_and_fragment_offset & (flag::MORE_FRAGMENTS | flag::FRAGMENT_OFFSET) != 0
    }

    /// Whether the packet begins its datagram, so that the upper header is in it.
    #[inline]
    pub const fn is_first_fragment(&self) -> bool {
        self.flags_and_fragment_offset & flag::FRAGMENT_OFFSET == 0
    }

    /// Whether the packet must not be fragmented.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_and_fragment_offset & flag::DONT_FRAGMENT != 0
    }
}

/// Whether the checksum of the header at the front of `packet` is right, options included.
#[inline]
pub fn checksum_is_valid(packet: &[u8]) -> bool {
    let length = packet.first().map_or(0, |octet| usize::from(octet & 0x0f) * 4);
    packet.get(..length).is_some_and(checksum::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x14, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x26, 0xd7, 0x0a, 0x00, 0x00, 0x01, 0x0a,
        0x00, 0x00, 0x02,
    ];

    #[test]
    fn parses_and_emits() {
        let header = Header::parse(&HEADER).unwrap();
        assert_eq!(header.to_bytes(), HEADER);
        assert_eq!(header.with_checksum(), header);
        assert!(checksum_is_valid(&HEADER));
        assert!(header.dont_fragment() && !header.is_fragment());
    }

    #[test]
    fn names_each_malformation() {
        let with = |offset: usize, octet: u8| {
            let mut bytes = HEADER;
            bytes[offset] = octet;
            Header::parse(&bytes)
        };
        assert_eq!(Header::parse(&HEADER[..19]), Err(Malformed::TruncatedIpv4));
        assert_eq!(with(0, 0x65), Err(Malformed::BadIpVersion));
        assert_eq!(with(0, 0x44), Err(Malformed::BadIpv4HeaderLength));
        assert_eq!(with(0, 0x46), Err(Malformed::BadIpv4TotalLength));
        assert_eq!(with(3, 0x15), Err(Malformed::TruncatedIpv4));
    }
}
