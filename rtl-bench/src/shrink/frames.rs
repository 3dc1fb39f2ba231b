//! What the shrinker does to one frame: headers taken out, and lengths and checksum put right.

use std::ops::Range;

use cryptonic_wire::{ethernet, ip, ipv4, ipv6, udp};

use crate::packets::repair_ipv4_checksum;

/// Octets that are not zero.
pub(super) fn weight(frame: &[u8]) -> usize {
    frame.iter().filter(|octet| **octet != 0).count()
}

/// Where the IP header is, and its EtherType.
fn l3(frame: &[u8]) -> Option<(usize, u16)> {
    let header = ethernet::Header::parse(frame).ok()?;
    Some((header.length(), header.ethertype))
}

/// The frame without its outermost tag.
pub(super) fn without_tag(frame: &[u8]) -> Option<Vec<u8>> {
    (l3(frame)?.0 > ethernet::HEADER_LENGTH).then(|| without_range(frame, 12..12 + ethernet::TAG_LENGTH))
}

/// The frame with an IPv4 header of five words.
pub(super) fn without_options(frame: &[u8]) -> Option<Vec<u8>> {
    let (l3, ethernet::ethertype::IPV4) = l3(frame)? else { return None };
    let first = *frame.get(l3)?;
    let end = l3 + usize::from(first & 0x0f) * 4;
    if end <= l3 + ipv4::HEADER_LENGTH || end > frame.len() {
        return None;
    }
    let mut shorter = without_range(frame, l3 + ipv4::HEADER_LENGTH..end);
    shorter[l3] = first & 0xf0 | 5;
    Some(shorter)
}

/// The frame without the first extension header of its IPv6 packet.
pub(super) fn without_extension(frame: &[u8]) -> Option<Vec<u8>> {
    let (l3, ethernet::ethertype::IPV6) = l3(frame)? else { return None };
    let named_at = l3 + ipv6::field::NEXT_HEADER.start;
    let at = l3 + ipv6::HEADER_LENGTH;
    let units = match *frame.get(named_at)? {
        ip::protocol::FRAGMENT => 0,
        ip::protocol::HOP_BY_HOP | ip::protocol::ROUTING | ip::protocol::DESTINATION_OPTIONS => {
            usize::from(*frame.get(at + 1)?)
        }
        _ => return None,
    };
    let end = at + (units + 1) * 8;
    if end > frame.len() {
        return None;
    }
    let mut shorter = without_range(frame, at..end);
    shorter[named_at] = frame[at];
    Some(shorter)
}

fn without_range(frame: &[u8], range: Range<usize>) -> Vec<u8> {
    [&frame[..range.start], &frame[range.end..]].concat()
}

/// Makes the IPv4 checksum right.
pub(super) fn repair_checksum(frame: &mut [u8]) {
    if let Some((l3, ethernet::ethertype::IPV4)) = l3(frame) {
        repair_ipv4_checksum(frame, l3);
    }
}

/// Makes the IP length, the length of UDP straight behind it, and the IPv4 checksum right for a frame that ends with
/// its IP packet.
pub(super) fn repair_lengths(frame: &mut [u8]) {
    let Some((l3, ethertype)) = l3(frame) else { return };
    let octet = |at: usize| frame.get(at).copied().unwrap_or(0);
    let (field, from, protocol, l4) = match ethertype {
        ethernet::ethertype::IPV4 => {
            let words = usize::from(octet(l3) & 0x0f);
            (ipv4::field::TOTAL_LENGTH, l3, octet(l3 + ipv4::field::PROTOCOL.start), l3 + 4 * words)
        }
        ethernet::ethertype::IPV6 => {
            let l4 = l3 + ipv6::HEADER_LENGTH;
            (ipv6::field::PAYLOAD_LENGTH, l4, octet(l3 + ipv6::field::NEXT_HEADER.start), l4)
        }
        _ => return,
    };
    put_length(frame, l3 + field.start, from);
    if protocol == ip::protocol::UDP {
        put_length(frame, l4 + udp::field::LENGTH.start, l4);
    }
    repair_checksum(frame);
}

/// The octets from `from` on, as a length at `at`.
fn put_length(frame: &mut [u8], at: usize, from: usize) {
    let length = frame.len().saturating_sub(from) as u16;
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_taken_out() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 1, 2, 0x08, 0, 0x46]);
        frame.extend(0..30);
        let untagged = without_tag(&frame).unwrap();
        assert_eq!(untagged[12..16], [0x08, 0, 0x46, 0]);
        assert_eq!(without_tag(&untagged), None);
        let short = without_options(&untagged).unwrap();
        assert_eq!((short[14], &short[33..35]), (0x45, &[18, 23][..]));
        assert_eq!(without_options(&short), None);

        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, ip::protocol::ROUTING, 9]);
        frame.extend([7; 32]);
        frame.extend([ip::protocol::FRAGMENT, 1]);
        frame.extend([1; 14]);
        frame.extend([ip::protocol::ESP, 200, 0, 0, 0, 0, 0, 0, 0xaa]);
        let once = without_extension(&frame).unwrap();
        assert_eq!((once[20], once.len()), (ip::protocol::FRAGMENT, frame.len() - 16));
        let twice = without_extension(&once).unwrap();
        assert_eq!((twice[20], &twice[54..]), (ip::protocol::ESP, &[0xaa][..]));
        assert_eq!(without_extension(&twice), None);
    }

    #[test]
    fn lengths_are_put_right() {
        let mut frame = vec![0; 14 + 20 + 8 + 5];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 9] = 17;
        repair_lengths(&mut frame);
        assert_eq!((frame[17], frame[14 + 20 + 5]), (33, 13));
        assert!(cryptonic_wire::ipv4::checksum_is_valid(&frame[14..]));
    }
}
