//! The shrinker: from a case in which a unit differs from the model to the smallest that it finds.
//!
//! Stalls become one, then whole packets go, then gaps, octets and what octets say, then the stall is made short and the
//! configuration plain, and it begins again while anything got smaller. What is done to a packet is tried with all of them
//! at once first, then with halves of them, and only what is left is made small packet by packet: a fault that takes many packets
//! mostly takes nothing of what is in them. What it makes is one case and no other: there is no chance in it.
//!
//! A packet that got shorter or lost an octet is tried twice, as it is and with lengths and checksum put right, because most
//! faults are behind these checks.

use std::ops::Range;

use cryptonic_wire::packet::Expected;

use crate::lockstep::Difference;
use crate::stimulus::{ALL_EXPECTED, Case, Offer};

mod frames;

use frames::{repair_checksum, repair_lengths, weight, without_extension, without_options, without_tag};

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
        search.one_stall();
        search.packets();
        search.gaps();
        search.lengths();
        search.contents();
        search.stalls();
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

    fn offers(&self, packets: &Range<usize>) -> &[Offer] {
        self.best.case.offers.get(packets.clone()).unwrap_or(&[])
    }

    /// Tries what `attempt` does to a range of packets with all of them, and where it does not do with halves, down to one.
    fn by_halves(
        &mut self,
        packets: Range<usize>,
        attempt: &mut impl FnMut(&mut Self, Range<usize>) -> bool,
    ) {
        if attempt(self, packets.clone()) || packets.len() <= 1 {
            return;
        }
        let middle = packets.start + packets.len() / 2;
        self.by_halves(packets.start..middle, attempt);
        self.by_halves(middle..packets.end, attempt);
    }

    /// Every packet.
    fn all(&self) -> Range<usize> {
        0..self.best.case.offers.len()
    }

    /// With one stall from the beginning in place of many, if there must be any: what waits for a stall then waits for
    /// nothing else, whatever becomes of the packets.
    fn one_stall(&mut self) {
        if self.best.case.stalls.is_empty() || self.change(|case| case.stalls.clear()) {
            return;
        }
        let cycles = self.best.case.stalls.iter().fold(0_u32, |sum, run| sum.saturating_add(*run));
        let until = u32::try_from(self.best.difference.cycle).unwrap_or(u32::MAX).saturating_add(1);
        if self.best.case.stalls.len() > 2 {
            self.change(|case| case.stalls = vec![cycles.max(until), 1]);
        }
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

    /// With fewer and shorter stalls.
    fn stalls(&mut self) {
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
        self.by_halves(self.all(), &mut |search, packets| {
            search.offers(&packets).iter().all(|offer| offer.gaps.is_empty())
                || search.change(|case| {
                    for offer in &mut case.offers[packets] {
                        offer.gaps.clear();
                    }
                })
        });
        for packet in self.all() {
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

    /// With packets cut to one length, as they are or put right.
    fn lengths(&mut self) {
        self.by_halves(self.all(), &mut |search, packets| {
            let longest = |search: &Self| search.offers(&packets).iter().map(|offer| offer.frame.len()).max();
            let mut least = 1;
            while let Some(most) = longest(search)
                && least < most
            {
                let middle = least + (most - least) / 2;
                let cut = |frame: &[u8]| frame[..frame.len().min(middle)].to_vec();
                if !search.replace_all(packets.clone(), cut) {
                    least = middle + 1;
                }
            }
            longest(search) == Some(1)
        });
    }

    /// With nothing but zeros in packets.
    fn contents(&mut self) {
        self.by_halves(self.all(), &mut |search, packets| {
            search.offers(&packets).iter().all(|offer| weight(&offer.frame) == 0)
                || search.change(|case| {
                    for offer in &mut case.offers[packets] {
                        offer.frame.fill(0);
                    }
                })
        });
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
        !frame.is_empty() && self.replace_all(packet..packet + 1, |_| frame.clone())
    }

    /// Takes what `change` makes of the frames of some packets, as it is or with their lengths and checksums put right.
    fn replace_all(&mut self, packets: Range<usize>, change: impl Fn(&[u8]) -> Vec<u8>) -> bool {
        let mut plain = self.best.case.clone();
        for offer in &mut plain.offers[packets.clone()] {
            offer.frame = change(&offer.frame);
        }
        let mut repaired = plain.clone();
        for offer in &mut repaired.offers[packets] {
            repair_lengths(&mut offer.frame);
        }
        repaired != plain && self.take(repaired) || self.take(plain)
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

#[cfg(test)]
mod tests {
    use cryptonic_hwmodel::rx_parse::Outputs;

    use super::*;
    use crate::lockstep::{Shown, What};

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
}
