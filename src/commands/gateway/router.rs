//! What a router does to a packet on its way (RFC 1812, RFC 8200): counts its hops, and cuts what is too long for the next link.

#[cfg(test)]
mod tests;

use cryptonic_wire::packet::Plain;
use cryptonic_wire::{checksum, ipv4, ipv6};

/// What fragments but the last have in common: offsets count units of as many octets (RFC 791 3.1).
const FRAGMENT_UNIT: usize = 8;
/// Options of IPv4 (RFC 791 3.1): the end, one that does nothing, and the bit of those that every fragment has.
const OPTIONS_END: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPIED: u8 = 0x80;

/// Whether a packet has hops left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hops {
    /// One fewer than before.
    Left,
    /// This was the last.
    Exceeded,
    /// The header is not as it was sent, so that nothing in it counts (RFC 1812 5.2.2).
    BadChecksum,
}

/// Counts a packet's TTL or hop limit down (RFC 1812 5.3.1, RFC 8200 3), and its header checksum with it (RFC 1624).
pub(super) fn count_down(frame: &mut [u8], plain: &Plain) -> Hops {
    let Some(header) = frame.get_mut(plain.l3_offset..plain.l3_end) else { return Hops::BadChecksum };
    if plain.ip_version == 4 && !ipv4::checksum_is_valid(header) {
        return Hops::BadChecksum;
    }
    if plain.hop_limit <= 1 {
        return Hops::Exceeded;
    }
    if plain.ip_version == 4 {
        let [old, sum] = [ipv4::field::TTL.start, ipv4::field::CHECKSUM.start].map(|at| word(header, at));
        header[ipv4::field::TTL.start] -= 1;
        let new = word(header, ipv4::field::TTL.start);
        put(header, ipv4::field::CHECKSUM.start, checksum::update(sum, old, new));
    } else {
        header[ipv6::field::HOP_LIMIT.start] -= 1;
    }
    Hops::Left
}

/// Whether a packet is as short as the next link wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Whole,
    /// It may be cut.
    InPieces,
    /// Its sender wants to hear of it.
    TooBig,
}

/// Compares a packet with the longest that passes (RFC 1812 5.2.6, RFC 8200 5).
pub(super) fn fit(plain: &Plain, longest: usize) -> Fit {
    match plain.l3_end.saturating_sub(plain.l3_offset) <= longest {
        true => Fit::Whole,
        false if plain.dont_fragment => Fit::TooBig,
        false => Fit::InPieces,
    }
}

/// Cuts an IPv4 packet into frames of no longer packets, each with the frame's Ethernet header (RFC 791 3.2). Nothing comes out
/// where no octet of payload finds room.
pub(super) fn fragments(frame: &[u8], plain: &Plain, longest: usize) -> Vec<Vec<u8>> {
    let (start, end) = (plain.l3_offset, plain.l3_end);
    let header_length = plain.ip_header_length;
    let (Some(ethernet), Some(header), Some(payload)) =
        (frame.get(..start), frame.get(start..start + header_length), frame.get(start + header_length..end))
    else {
        return Vec::new();
    };
    let chunk = longest.saturating_sub(header_length) / FRAGMENT_UNIT * FRAGMENT_UNIT;
    if plain.ip_version != 4 || chunk == 0 {
        return Vec::new();
    }
    // The packet may be a fragment itself.
    let place = word(header, ipv4::field::FLAGS_AND_FRAGMENT_OFFSET.start);
    let chunks = payload.len().div_ceil(chunk);
    let fragment = |(number, part): (usize, &[u8])| {
        let mut header = header.to_vec();
        if number > 0 {
            leave_out_options(&mut header);
        }
        let more = if number + 1 < chunks { ipv4::flag::MORE_FRAGMENTS } else { 0 };
        let place = (place | more).wrapping_add((number * chunk / FRAGMENT_UNIT) as u16);
        put(&mut header, ipv4::field::TOTAL_LENGTH.start, (header_length + part.len()) as u16);
        put(&mut header, ipv4::field::FLAGS_AND_FRAGMENT_OFFSET.start, place);
        put(&mut header, ipv4::field::CHECKSUM.start, 0);
        let sum = checksum::checksum(&header);
        put(&mut header, ipv4::field::CHECKSUM.start, sum);
        [ethernet, &header, part].concat()
    };
    payload.chunks(chunk).enumerate().map(fragment).collect()
}

/// Has options that are for the first fragment alone do nothing in this one.
fn leave_out_options(header: &mut [u8]) {
    let mut at = ipv4::HEADER_LENGTH;
    while let Some(&kind) = header.get(at) {
        let length = match kind {
            OPTIONS_END => return,
            NO_OPERATION => 1,
            _ => header.get(at + 1).map_or(0, |length| usize::from(*length)),
        };
        if length == 0 {
            return;
        }
        let end = header.len().min(at + length);
        if kind & COPIED == 0 {
            header[at..end].fill(NO_OPERATION);
        }
        at = end;
    }
}

fn word(header: &[u8], at: usize) -> u16 {
    header.get(at..at + 2).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]))
}

fn put(header: &mut [u8], at: usize, word: u16) {
    if let Some(octets) = header.get_mut(at..at + 2) {
        octets.copy_from_slice(&word.to_be_bytes());
    }
}
