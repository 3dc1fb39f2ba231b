//! Checksums over whole packets: TCP and UDP with their pseudo headers (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1), and the
//! IPv4 header's.
//!
//! All work on a frame and the [`Plain`] that a parser gave of it. A `Plain` of another frame gives wrong sums or
//! [`Checked::NotChecked`], and never more.

use crate::bytes;
use crate::checksum::{self, Total};
use crate::ip::protocol;
use crate::packet::Plain;
use crate::{ipv4, ipv6, tcp, udp};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// There is nothing to check, or it cannot be checked here: another protocol, a fragment, UDP over IPv4 without a
    /// checksum, a UDP length that is not within the packet, a truncated header, an IPv6 packet on its way to a routing
    /// header's next address.
    NotChecked,
    /// It is right.
    Good,
    /// It is wrong. A checksum of zero in UDP over IPv6 is (RFC 8200, 8.1), unless the port is one of RFC 6935's.
    Bad,
}

/// Checks the TCP or UDP checksum of a packet.
#[inline]
pub fn check_l4_checksum(frame: &[u8], plain: &Plain) -> Checked {
    let Some(upper) = Upper::find(frame, plain) else { return Checked::NotChecked };
    let Some(segment) = frame.get(upper.start..upper.end) else { return Checked::NotChecked };
    let without = bytes::word16(segment, upper.checksum) == Some(0) && plain.next_header == protocol::UDP;
    if without {
        return if plain.ip_version == 4 { Checked::NotChecked } else { Checked::Bad };
    }
    if sum(plain, segment) == 0xffff { Checked::Good } else { Checked::Bad }
}

/// Writes the TCP or UDP checksum of a packet. Says whether it did; it does not where [`Checked::NotChecked`] has its
/// reasons, but for a UDP checksum of zero, which it replaces.
#[inline]
pub fn fill_l4_checksum(frame: &mut [u8], plain: &Plain) -> bool {
    let Some(upper) = Upper::find(frame, plain) else { return false };
    let Some(segment) = frame.get_mut(upper.start..upper.end) else { return false };
    if bytes::put(segment, upper.checksum, &[0, 0]).is_err() {
        return false;
    }
    // Zero would say that there is no checksum (RFC 768); the other spelling of zero says the same sum.
    let checksum = match !sum(plain, segment) {
        0 if plain.next_header == protocol::UDP => 0xffff,
        checksum => checksum,
    };
    bytes::put(segment, upper.checksum, &checksum.to_be_bytes()).is_ok()
}

/// Checks the IPv4 header checksum, options included.
#[inline]
pub fn check_ipv4_checksum(frame: &[u8], plain: &Plain) -> Checked {
    match ipv4_header(plain).and_then(|range| frame.get(range)) {
        None => Checked::NotChecked,
        Some(header) if checksum::is_valid(header) => Checked::Good,
        Some(_) => Checked::Bad,
    }
}

/// Writes the IPv4 header checksum, options included. Says whether it did: not where the packet is not IPv4.
#[inline]
pub fn fill_ipv4_checksum(frame: &mut [u8], plain: &Plain) -> bool {
    let Some(header) = ipv4_header(plain).and_then(|range| frame.get_mut(range)) else { return false };
    if bytes::put(header, ipv4::field::CHECKSUM.start, &[0, 0]).is_err() {
        return false;
    }
    let sum = checksum::checksum(header);
    bytes::put(header, ipv4::field::CHECKSUM.start, &sum.to_be_bytes()).is_ok()
}

/// Where the IPv4 header stands.
#[inline]
fn ipv4_header(plain: &Plain) -> Option<core::ops::Range<usize>> {
    (plain.ip_version == 4).then(|| plain.l3_offset..plain.l4_offset())
}

/// A TCP segment or UDP datagram.
struct Upper {
    start: usize,
    end: usize,
    /// Offset of the checksum from the start.
    checksum: usize,
}

impl Upper {
    /// Finds the segment or datagram whose checksum can be told.
    #[inline]
    fn find(frame: &[u8], plain: &Plain) -> Option<Self> {
        if plain.ip_version == 0 || plain.fragment || route_ahead(frame, plain) {
            return None;
        }
        let (start, end) = (plain.l4_offset(), plain.l3_end);
        let segment = frame.get(start..end)?;
        match plain.next_header {
            protocol::TCP if segment.len() >= tcp::HEADER_LENGTH => {
                Some(Self { start, end, checksum: tcp::field::CHECKSUM.start })
            }
            protocol::UDP => {
                let header = udp::Header::parse(segment).ok()?;
                let end = start.checked_add(usize::from(header.length))?;
                Some(Self { start, end, checksum: udp::field::CHECKSUM.start })
            }
            _ => None,
        }
    }
}

/// Whether the pseudo header's destination is not the header's, but stands in a routing header (RFC 8200, 8.1).
#[inline]
pub(crate) fn route_ahead(frame: &[u8], plain: &Plain) -> bool {
    if plain.ip_version != 6 || plain.ip_header_length <= ipv6::HEADER_LENGTH {
        return false;
    }
    let chain = frame.get(plain.l3_offset..plain.l3_end).and_then(|packet| {
        let next_header = bytes::octet(packet, ipv6::field::NEXT_HEADER.start)?;
        ipv6::walk(packet, next_header).ok()
    });
    chain.is_none_or(|chain| chain.route_ahead)
}

/// Sum over pseudo header and segment. The zeros before an IPv4 address add nothing, so that one form serves both.
#[inline]
fn sum(plain: &Plain, segment: &[u8]) -> u16 {
    let length = segment.len() as u32;
    let [l0, l1, l2, l3] = length.to_be_bytes();
    Total::of(&plain.source)
        .and(Total::of(&plain.destination))
        .and(Total::of(&[l0, l1, l2, l3, 0, 0, 0, plain.next_header]))
        .and(Total::of_many(segment))
        .sum()
}
