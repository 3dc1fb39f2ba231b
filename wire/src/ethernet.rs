//! Ethernet II with VLAN tags (IEEE 802.3, 802.1Q).
//!
//! ```text
//!   octet  0           6           12    14
//!          +-----------+-----------+-----+----
//!          |destination|  source   |EType| payload            no tag
//!          +-----------+-----------+-----+----
//!
//!   octet  0           6           12    14    16    18
//!          +-----------+-----------+-----+-----+-----+----
//!          |destination|  source   |8100 | TCI |EType| payload   one tag
//!          +-----------+-----------+-----+-----+-----+----
//!                                         TCI: priority 15..13, drop eligible 12, VLAN 11..0
//!
//!   octet  0           6           12    14    16    18    20    22
//!          +-----------+-----------+-----+-----+-----+-----+-----+----
//!          |destination|  source   |88a8 | TCI |8100 | TCI |EType| payload   two tags (802.1ad)
//!          +-----------+-----------+-----+-----+-----+-----+-----+----
//! ```

use crate::bytes;
use crate::malformed::Malformed;
use crate::room::NoRoom;

/// Octets of the header without tags.
pub const HEADER_LENGTH: usize = 14;
/// Octets one VLAN tag adds.
pub const TAG_LENGTH: usize = 4;
/// Tags a header may carry. A frame with more of them has a tag's number as its EtherType, so it is not IP.
pub const MAX_TAGS: usize = 2;

/// Octet ranges of the header without tags; each tag moves the EtherType by [`TAG_LENGTH`].
pub mod field {
    use core::ops::Range;
    /// Destination MAC address.
    pub const DESTINATION: Range<usize> = 0..6;
    /// Source MAC address.
    pub const SOURCE: Range<usize> = 6..12;
    /// EtherType, or the first tag's protocol identifier.
    pub const ETHERTYPE: Range<usize> = 12..14;
}

/// Octet ranges of one VLAN tag, from the tag's first octet.
pub mod tag_field {
    use core::ops::Range;
    /// Tag protocol identifier.
    pub const PROTOCOL: Range<usize> = 0..2;
    /// Tag control information.
    pub const CONTROL: Range<usize> = 2..4;
}

/// EtherType numbers this crate knows.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Customer VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Service VLAN tag (802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Tag protocol identifier, [`ethertype::VLAN`] or [`ethertype::SERVICE_VLAN`].
    pub protocol: u16,
    /// Tag control information: priority, drop-eligible bit and VLAN number.
    pub control: u16,
}

/// An Ethernet header with its tags, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// Tags, outermost first; used slots come before free ones.
    pub tags: [Option<Tag>; MAX_TAGS],
    /// EtherType of the payload.
    pub ethertype: u16,
}

impl Header {
    /// Reads a header with up to [`MAX_TAGS`] tags.
    ///
    /// # Errors
    /// [`Malformed::TruncatedEthernet`], [`Malformed::TruncatedVlan`].
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let fixed: [u8; HEADER_LENGTH] = bytes::array(frame, 0).ok_or(Malformed::TruncatedEthernet)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = fixed;
        let mut ethertype = u16::from_be_bytes([t0, t1]);
        let mut tags = [None; MAX_TAGS];
        let mut offset = HEADER_LENGTH;
        for slot in &mut tags {
            if !is_tag(ethertype) {
                break;
            }
            let control = bytes::word16(frame, offset).ok_or(Malformed::TruncatedVlan)?;
            *slot = Some(Tag { protocol: ethertype, control });
            ethertype = bytes::word16(frame, offset + 2).ok_or(Malformed::TruncatedVlan)?;
            offset += TAG_LENGTH;
        }
        Ok(Self { destination: [d0, d1, d2, d3, d4, d5], source: [s0, s1, s2, s3, s4, s5], tags, ethertype })
    }

    /// Octets of the header, tags included.
    #[inline]
    pub fn length(&self) -> usize {
        HEADER_LENGTH + TAG_LENGTH * self.tags.iter().flatten().count()
    }

    /// Writes the header to the front of `frame`.
    ///
    /// # Errors
    /// [`NoRoom`] where `frame` is shorter than [`length`](Self::length); what it holds is then unspecified.
    pub fn emit(&self, frame: &mut [u8]) -> Result<(), NoRoom> {
        bytes::put(frame, field::DESTINATION.start, &self.destination)?;
        bytes::put(frame, field::SOURCE.start, &self.source)?;
        let mut offset = field::ETHERTYPE.start;
        for tag in self.tags.iter().flatten() {
            bytes::put(frame, offset + tag_field::PROTOCOL.start, &tag.protocol.to_be_bytes())?;
            bytes::put(frame, offset + tag_field::CONTROL.start, &tag.control.to_be_bytes())?;
            offset += TAG_LENGTH;
        }
        bytes::put(frame, offset, &self.ethertype.to_be_bytes())
    }
}

/// Whether an EtherType announces a VLAN tag.
#[inline]
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tags_are_read_and_a_third_is_the_ethertype() {
        let mut frame = [0u8; 30];
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
        frame[14..16].copy_from_slice(&[0x20, 0x07]);
        frame[16..18].copy_from_slice(&[0x81, 0x00]);
        frame[18..20].copy_from_slice(&[0x00, 0x05]);
        frame[20..22].copy_from_slice(&[0x86, 0xdd]);
        let tags =
            [Some(Tag { protocol: 0x88a8, control: 0x2007 }), Some(Tag { protocol: 0x8100, control: 5 })];
        let header = Header::parse(&frame).unwrap();
        assert_eq!((header.tags, header.ethertype, header.length()), (tags, ethertype::IPV6, 22));
        let mut emitted = [0u8; 30];
        header.emit(&mut emitted).unwrap();
        assert_eq!(emitted, frame);

        frame[20..22].copy_from_slice(&[0x81, 0x00]);
        let header = Header::parse(&frame).unwrap();
        assert_eq!((header.tags, header.ethertype, header.length()), (tags, ethertype::VLAN, 22));
        for (length, expected) in [
            (13, Malformed::TruncatedEthernet),
            (15, Malformed::TruncatedVlan),
            (17, Malformed::TruncatedVlan),
            (19, Malformed::TruncatedVlan),
            (21, Malformed::TruncatedVlan),
        ] {
            assert_eq!(Header::parse(&frame[..length]), Err(expected), "{length}");
        }
    }
}
