//! A tunnel, its SA pairs, and the counters that rise with its traffic.

use super::accounts::State;
use super::parameters::Parameters;
use super::policy::{Policy, Unit};
use super::traffic::Traffic;
use crate::workload::Random;

/// Counters are kept in billionths of a byte or packet, so that a rate in seconds times a time in nanoseconds is exact.
pub(super) const NANOSECONDS: u128 = 1_000_000_000;

/// Two peers and what they have between them.
pub(super) struct Tunnel {
    pub(super) ways: [Way; 2],
    pub(super) pairs: Vec<Pair>,
    /// The pair that carries the traffic.
    pub(super) in_use: Option<u32>,
    /// The pair that a peer's own exchange is about to make.
    pub(super) exchanges: [Option<u32>; 2],
    /// The peer has heard that the other rekeys the pair in use.
    pub(super) told: [bool; 2],
    /// The peer waits for slots.
    pub(super) waiting: [bool; 2],
    /// When each daemon looks at this tunnel's counters, within its polling period.
    pub(super) poll_phases: [u64; 2],
    pub(super) random: Random,
    pairs_made: u32,
}

/// One direction.
pub(super) struct Way {
    pub(super) traffic: Traffic,
    counted_until: u64,
    epoch: u32,
    /// In billionths of a packet.
    sent: u128,
    refused: u128,
}

/// An outbound and an inbound SA at either peer, made in one exchange.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) number: u32,
    pub(super) creator: usize,
    pub(super) replaces: Option<u32>,
    /// What the other peer made at the same time for the same purpose.
    pub(super) rival: Option<u32>,
    /// Both peers have begun to replace it, neither knowing of the other.
    pub(super) replaced_by_both: bool,
    pub(super) state: State,
    /// Which peers hold a slot for it.
    pub(super) outbound: [bool; 2],
    inbound: [bool; 2],
    /// The responder has agreed, or has not.
    pub(super) heard: bool,
    pub(super) refused: bool,
    pub(super) deleting: bool,
    pub(super) carried: bool,
    /// By direction, in billionths of the policy's unit.
    counters: [u128; 2],
    /// By direction: what the sender's counter shows when the sender's, and when the receiver's soft limit is reached,
    /// and the hard limit. None once it is reached.
    limits: [[Option<u128>; 3]; 2],
    noticed: [bool; 2],
}

const HARD: usize = 2;

impl Tunnel {
    pub(super) fn new(traffic: [Traffic; 2], poll_phases: [u64; 2], random: Random) -> Tunnel {
        let way = |traffic| Way { traffic, counted_until: 0, epoch: 0, sent: 0, refused: 0 };
        Tunnel {
            ways: traffic.map(way),
            pairs: Vec::new(),
            in_use: None,
            exchanges: [None; 2],
            told: [false; 2],
            waiting: [false; 2],
            poll_phases,
            random,
            pairs_made: 0,
        }
    }

    pub(super) fn next_number(&mut self) -> u32 {
        self.pairs_made += 1;
        self.pairs_made
    }

    /// The latest pairs are asked for the most.
    pub(super) fn pair(&mut self, number: u32) -> Option<&mut Pair> {
        self.pairs.iter_mut().rev().find(|pair| pair.number == number)
    }

    pub(super) fn forget(&mut self, number: u32) {
        self.pairs.retain(|pair| pair.number != number);
    }

    /// The pair in use.
    pub(super) fn current(&mut self) -> Option<&mut Pair> {
        self.in_use.and_then(|number| self.pair(number))
    }

    /// Counters rise until `now`. Without a pair, or at its hard limit, packets are refused.
    pub(super) fn count(&mut self, now: u64, unit: Unit) {
        let Tunnel { ways, pairs, in_use, .. } = self;
        let mut pair = in_use.and_then(|number| pairs.iter_mut().rev().find(|pair| pair.number == number));
        for (index, way) in ways.iter_mut().enumerate() {
            let span = u128::from(now - std::mem::replace(&mut way.counted_until, now));
            let packets = span * u128::from(way.traffic.rate(Unit::Packets));
            match &mut pair {
                Some(pair) if pair.limits[index][HARD].is_some() => {
                    pair.counters[index] += span * u128::from(way.traffic.rate(unit));
                    way.sent += packets;
                }
                _ => way.refused += packets,
            }
        }
    }

    /// Nanoseconds from the last count until the next limit in this direction, at the present rate.
    pub(super) fn next_crossing(&mut self, way: usize, unit: Unit) -> Option<u64> {
        let rate = u128::from(self.ways[way].traffic.rate(unit));
        let pair = self.current()?;
        pair.limits[way][HARD]?;
        let next = pair.limits[way].iter().flatten().min()?;
        let missing = next.saturating_sub(pair.counters[way]);
        if rate == 0 { None } else { u64::try_from(missing.div_ceil(rate)).ok() }
    }
}

impl Way {
    /// An event that was expected in the epoch before does not happen.
    pub(super) fn new_epoch(&mut self) -> u32 {
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Packets so far do not count.
    pub(super) fn forget(&mut self) {
        (self.sent, self.refused) = (0, 0);
    }

    pub(super) fn sent(&self) -> u128 {
        self.sent
    }

    pub(super) fn refused(&self) -> u128 {
        self.refused
    }
}

impl Pair {
    pub(super) fn new(
        parameters: &Parameters,
        policy: Policy,
        number: u32,
        creator: usize,
        replaces: Option<u32>,
        random: &mut Random,
    ) -> Pair {
        let hard = match policy.unit {
            Unit::Bytes => parameters.lifetime_bytes,
            Unit::Packets => parameters.lifetime_packets,
        };
        let soft = policy.margins.soft_limits(hard, creator, random).map(u128::from);
        // Of what the sender has counted the receiver counts what is not lost.
        let million = 1_000_000;
        let arrives = million - u128::from(parameters.loss_millionths);
        let limits = [0, 1].map(|way: usize| {
            [
                Some(soft[way] * NANOSECONDS),
                Some((soft[1 - way] * NANOSECONDS * million).div_ceil(arrives)),
                Some(u128::from(hard) * NANOSECONDS),
            ]
        });
        Pair {
            number,
            creator,
            replaces,
            rival: None,
            replaced_by_both: false,
            state: State::SettingUp,
            outbound: [false; 2],
            inbound: [false; 2],
            heard: false,
            refused: false,
            deleting: false,
            carried: false,
            counters: [0; 2],
            limits,
            noticed: [false; 2],
        }
    }

    /// It was in use before the run began: of what is left until the first soft limit a share of `age` / 2^64 is spent, and
    /// each direction has had its share of that by its mean rate.
    pub(super) fn age(&mut self, mean: [u64; 2], age: u64) {
        let most = u128::from(mean[0].max(mean[1])).max(1);
        let first = self.limits.iter().flatten().flatten().min().copied().unwrap_or(0);
        self.carried = true;
        self.counters = mean.map(|rate| (first >> 32) * u128::from(age >> 32) / most * u128::from(rate));
    }

    pub(super) fn hold(&mut self, peer: usize) {
        (self.outbound[peer], self.inbound[peer]) = (true, true);
    }

    pub(super) fn slots(&self, peer: usize) -> u64 {
        u64::from(self.outbound[peer]) + u64::from(self.inbound[peer])
    }

    /// Tells how many slots that frees.
    pub(super) fn let_go(&mut self, peer: usize, outbound: bool, inbound: bool) -> u64 {
        let before = self.slots(peer);
        self.outbound[peer] &= !outbound;
        self.inbound[peer] &= !inbound;
        before - self.slots(peer)
    }

    /// Marks the limits that the counter of a direction has reached. Tells for each peer whether its soft limit is among
    /// them, the first time in either direction.
    pub(super) fn reach(&mut self, way: usize) -> [bool; 2] {
        let counter = self.counters[way];
        let [sender, receiver, _] =
            self.limits[way].each_mut().map(|limit| limit.take_if(|limit| *limit <= counter).is_some());
        let reached = if way == 0 { [sender, receiver] } else { [receiver, sender] };
        [0, 1].map(|peer: usize| reached[peer] && !std::mem::replace(&mut self.noticed[peer], true))
    }
}
