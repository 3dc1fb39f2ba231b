//! The shrinker: from a case in which a unit differs from the model to the smallest that it finds.
//!
//! It takes away whole packets first, then stalls, gaps and configuration, then octets, then makes octets zero, and
//! begins again while anything got smaller. What it makes is one case and no other: there is no chance in it.
//!
//! A packet that got shorter or lost an octet is tried twice, as it is and with lengths and checksum put right, because most
//! faults are behind these checks.

use std::ops::Range;

use cryptonic_wire::packet::Expected;
use cryptonic_wire::{ethernet, ip, ipv4, ipv6, udp};

use crate::lockstep::Difference;
use crate::packets::repair_ipv4_checksum;
use crate::stimulus::{ALL_EXPECTED, Case};

/// Cases that are tried at most.
const MOST_TRIALS: usize = 20_000;

/// What came out.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The case.
    pub case: Case,
    /// How the unit differs in it.
    pub difference: Box<Difference>,
    /// How many cases were tried.
    pub trials: usize,
}

/// Shrinks. `differs` drives a case into a fresh unit. Gives nothing where the case itself shows no difference.
pub fn shrink(case: Case, differs: impl FnMut(&Case) -> Option<Box<Difference>>) -> Option<Shrunk> {
    let mut differs = differs;
    let difference = differs(&case)?;
    let mut search = Search { best: Shrunk { case, difference, trials: 1 }, differs };
    loop {
        let before = search.best.case.clone();
        search.packets();
        search.stalls();
        search.gaps();
        search.configuration();
        for packet in 0..search.best.case.offers.len() {
            search.headers(packet);
            search.octets(packet);
        }
        for packet in 0..search.best.case.offers.len() {
            let length = search.frame(packet).len();
            search.zeros(packet, 0..length);
        }
        if search.best.case == before || search.best.trials >= MOST_TRIALS {
            return Some(search.best);
        }
    }
}

struct Search<F> {
    best: Shrunk,
    differs: F,
}

impl<F: FnMut(&Case) -> Option<Box<Difference>>> Search<F> {
    /// Takes a case if it differs still, and is not what there is.
    fn take(&mut self, case: Case) -> bool {
        if case == self.best.case || case.offers.is_empty() || self.best.trials >= MOST_TRIALS {
            return false;
        }
        self.best.trials += 1;
        match (self.differs)(&case) {
            Some(difference) => {
                self.best.case = case;
                self.best.difference = difference;
                true
            }
            None => false,
        }
    }

    /// Takes what `change` makes of the case.
    fn change(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        let mut case = self.best.case.clone();
        change(&mut case);
        self.take(case)
    }

    fn frame(&self, packet: usize) -> &[u8] {
        self.best.case.offers.get(packet).map_or(&[], |offer| &offer.frame)
    }

    /// Without packets, many at once first.
    fn packets(&mut self) {
        let begun = self.best.difference.begun.max(1);
        self.change(|case| case.offers.truncate(begun));
        let mut size = self.best.case.offers.len() / 2;
        while size > 0 {
            let mut start = 0;
            while start < self.best.case.offers.len() {
                let end = (start + size).min(self.best.case.offers.len());
                if !self.change(|case| drop(case.offers.drain(start..end))) {
                    start += size;
                }
            }
            size /= 2;
        }
    }

    /// Without stalls; else with fewer and shorter ones.
    fn stalls(&mut self) {
        if self.best.case.stalls.is_empty() || self.change(|case| case.stalls.clear()) {
            return;
        }
        let mut runs = self.best.case.stalls.len() / 4 * 2;
        while runs >= 2 {
            if !self.change(|case| case.stalls.truncate(runs)) {
                runs = runs / 4 * 2;
            } else {
                runs = runs.min(self.best.case.stalls.len() / 4 * 2);
            }
        }
        for index in 0..self.best.case.stalls.len() {
            let Some(run) = self.best.case.stalls.get(index).copied() else { break };
            if index % 2 == 0 {
                self.smallest(run, 0, |case, run| set(&mut case.stalls, index, run));
            } else {
                self.smallest(run, 1, |case, run| set(&mut case.stalls, index, run));
            }
        }
    }

    /// Without gaps; else with fewer and shorter ones.
    fn gaps(&mut self) {
        if self.change(|case| case.offers.iter_mut().for_each(|offer| offer.gaps.clear())) {
            return;
        }
        for packet in 0..self.best.case.offers.len() {
            if self.change(|case| case.offers[packet].gaps.clear()) {
                continue;
            }
            for beat in 0..self.best.case.offers[packet].gaps.len() {
                let gap = self.best.case.offers[packet].gaps[beat];
                self.smallest(gap.into(), 0, |case, gap| {
                    set(&mut case.offers[packet].gaps, beat, gap as u16)
                });
            }
            while self.best.case.offers[packet].gaps.last() == Some(&0)
                && self.change(|case| {
                    case.offers[packet].gaps.pop();
                })
            {}
        }
    }

    /// The smallest number from `least` on with which the case differs still, by halving.
    fn smallest(&mut self, now: u32, least: u32, put: impl Fn(&mut Case, u32)) {
        let (mut low, mut high) = (least, now);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.change(|case| put(case, middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
    }

    /// The plain configuration; else with as much of it off as can be.
    fn configuration(&mut self) {
        if self.best.case.expected == ALL_EXPECTED || self.change(|case| case.expected = ALL_EXPECTED) {
            return;
        }
        let off: [fn(&mut Expected); 5] = [
            |expected| expected.udp_ports.psp = 0,
            |expected| expected.udp_ports.esp = 0,
            |expected| expected.eesp_protocol = 0,
            |expected| expected.eesp_in_udp = false,
            |expected| expected.wespv2_protocol = 0,
        ];
        for off in off {
            self.change(|case| off(&mut case.expected));
        }
    }

    /// Takes a frame in place of a packet's, as it is or with its lengths and checksum put right.
    fn replace(&mut self, packet: usize, frame: Vec<u8>) -> bool {
        if frame.is_empty() {
            return false;
        }
        let mut repaired = frame.clone();
        repair_lengths(&mut repaired);
        if repaired != frame && self.change(|case| case.offers[packet].frame = repaired) {
            return true;
        }
        self.change(|case| case.offers[packet].frame = frame)
    }

    /// Without tags, IPv4 options and extension headers, which lengths and next headers speak of.
    fn headers(&mut self, packet: usize) {
        for without in [without_tag, without_options, without_extension] {
            while let Some(frame) = without(self.frame(packet)) {
                if !self.replace(packet, frame) {
                    break;
                }
            }
        }
    }

    /// With fewer octets: from the end, then from anywhere.
    fn octets(&mut self, packet: usize) {
        let mut cut = self.frame(packet).len() / 2;
        while cut > 0 {
            let length = self.frame(packet).len();
            let shorter = self.frame(packet)[..length.saturating_sub(cut)].to_vec();
            if !self.replace(packet, shorter) {
                cut /= 2;
            }
        }
        for size in [1024, 256, 64, 16, 8, 4, 2, 1] {
            // Octet by octet a long packet would take for ever.
            if self.frame(packet).len() > 512 * size {
                break;
            }
            let mut end = self.frame(packet).len();
            while end >= size {
                let mut shorter = self.frame(packet).to_vec();
                shorter.drain(end - size..end);
                if self.replace(packet, shorter) {
                    end = end.min(self.frame(packet).len());
                } else {
                    end -= size.div_ceil(2);
                }
            }
        }
    }

    /// With zeros in place of the octets in a range, or in parts of it.
    fn zeros(&mut self, packet: usize, range: Range<usize>) {
        let frame = self.frame(packet);
        let Some(octets) = frame.get(range.clone()) else { return };
        if octets.iter().all(|octet| *octet == 0) {
            return;
        }
        let mut zeroed = frame.to_vec();
        zeroed[range.clone()].fill(0);
        let mut repaired = zeroed.clone();
        repair_checksum(&mut repaired);
        let is_smaller = |frame: &[u8]| weight(frame) < weight(self.frame(packet));
        if is_smaller(&zeroed) && self.change(|case| case.offers[packet].frame = zeroed) {
            return;
        }
        let is_smaller = |frame: &[u8]| weight(frame) < weight(self.frame(packet));
        if is_smaller(&repaired) && self.change(|case| case.offers[packet].frame = repaired) {
            return;
        }
        if range.len() > 1 {
            let middle = range.start + range.len() / 2;
            self.zeros(packet, range.start..middle);
            self.zeros(packet, middle..range.end);
        }
    }
}

fn set<T>(list: &mut [T], index: usize, value: T) {
    if let Some(place) = list.get_mut(index) {
        *place = value;
    }
}

/// Octets that are not zero.
fn weight(frame: &[u8]) -> usize {
    frame.iter().filter(|octet| **octet != 0).count()
}

/// Where the IP header is, and its EtherType.
fn l3(frame: &[u8]) -> Option<(usize, u16)> {
    let header = ethernet::Header::parse(frame).ok()?;
    Some((header.length(), header.ethertype))
}

/// The frame without its outermost tag.
fn without_tag(frame: &[u8]) -> Option<Vec<u8>> {
    (l3(frame)?.0 > ethernet::HEADER_LENGTH).then(|| without_range(frame, 12..12 + ethernet::TAG_LENGTH))
}

/// The frame with an IPv4 header of five words.
fn without_options(frame: &[u8]) -> Option<Vec<u8>> {
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
fn without_extension(frame: &[u8]) -> Option<Vec<u8>> {
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
fn repair_checksum(frame: &mut [u8]) {
    if let Some((l3, ethernet::ethertype::IPV4)) = l3(frame) {
        repair_ipv4_checksum(frame, l3);
    }
}

/// Makes the IP length, the length of UDP straight behind it, and the IPv4 checksum right for a frame that ends with
/// its IP packet.
fn repair_lengths(frame: &mut [u8]) {
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
    use cryptonic_hwmodel::rx_parse::Outputs;

    use super::*;
    use crate::lockstep::{Shown, What};
    use crate::stimulus::Offer;

    fn difference(begun: usize) -> Box<Difference> {
        let shown = Shown { outputs: Outputs { ready: true, result: None }, drained: false };
        Box::new(Difference {
            what: What::Ready,
            cycle: 0,
            packet: 0,
            begun,
            model: shown.clone(),
            unit: shown,
            ports: Vec::new(),
            assertion: None,
        })
    }

    /// One packet of 21 octets and more with a 7 somewhere behind the twentieth, after any packet of two beats.
    fn differs(case: &Case) -> Option<Box<Difference>> {
        let first = case.offers.iter().position(|offer| offer.frame.len() > 64)?;
        let second = case
            .offers
            .iter()
            .skip(first + 1)
            .position(|offer| offer.frame[20.min(offer.frame.len())..].contains(&7))?;
        let gap = case.offers[first].gaps.first().is_some_and(|gap| *gap >= 3);
        let stall = case.stalls.first().is_some_and(|run| *run >= 5);
        (gap && stall).then(|| difference(first + second + 2))
    }

    #[test]
    fn what_is_left_is_what_it_takes() {
        let offer = |length: usize, gap: u16| Offer {
            frame: (0..length).map(|octet| octet as u8).collect(),
            gaps: vec![gap; length.div_ceil(64)],
        };
        let offers = vec![offer(9, 1), offer(300, 9), offer(40, 0), offer(700, 2), offer(30, 5)];
        let case = Case { expected: Expected::default(), offers, stalls: vec![40, 2, 3, 9, 8, 1] };
        let shrunk = shrink(case.clone(), differs).unwrap();
        assert_eq!(shrunk.case.expected, ALL_EXPECTED);
        assert_eq!(shrunk.case.stalls, [5, 1]);
        let [first, second] = &shrunk.case.offers[..] else { panic!("{:?}", shrunk.case) };
        assert_eq!(*first, Offer { frame: vec![0; 65], gaps: vec![3] });
        let mut frame = vec![0; 21];
        frame[20] = 7;
        assert_eq!(*second, Offer { frame, gaps: vec![] });
        // The same again, for there is no chance in it.
        assert_eq!(shrink(case, differs).unwrap().case, shrunk.case);
        // And nothing where nothing differs.
        assert!(shrink(shrunk.case, |_| None).is_none());
    }

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
