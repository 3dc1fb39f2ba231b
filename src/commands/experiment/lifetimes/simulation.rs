//! SA pairs and their slots, event by event. Nothing happens between events but that counters rise in straight lines, so the time
//! at which one reaches a limit is computed, in whole nanoseconds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::accounts::{Accounts, State};
use super::parameters::Parameters;
use super::policy::Policy;
use super::traffic::{Traffic, mean_rates};
use super::tunnel::{NANOSECONDS, Pair, Tunnel, Way};
use crate::workload::Random;

/// A pair has an inbound and an outbound SA at either peer.
pub(super) const SLOTS_A_PAIR: u64 = 2;

/// What happens next. Pairs are named by their number in the tunnel, peers and directions by 0 and 1; peer 0 sends direction 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A burst begins or ends.
    Toggle {
        way: usize,
    },
    /// A counter reaches a limit, unless its line was bent since.
    Crossed {
        way: usize,
        epoch: u32,
    },
    /// The peer learns of the soft limit.
    Noticed {
        pair: u32,
        peer: usize,
    },
    /// A peer that was refused the tunnel's first pair tries again.
    BringUp {
        peer: usize,
    },
    /// Slots that a refused exchange has left are there for who waits.
    ServeLine {
        peer: usize,
    },
    /// The request is at the other end.
    Heard {
        pair: u32,
    },
    /// The response is back.
    Done {
        pair: u32,
    },
    Deleted {
        pair: u32,
        peer: usize,
    },
    Drained {
        pair: u32,
        peer: usize,
    },
    /// The time lifetime ends.
    Expired {
        pair: u32,
    },
}

/// What one run of one policy came to. Figures are those after the warm-up.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) accounts: Accounts,
    pub(super) rekeys: u64,
    pub(super) simultaneous_rekeys: u64,
    pub(super) redundant_sas: u64,
    /// How often a tunnel found no slot, at either end.
    pub(super) waits: u64,
    pub(super) packets_sent: u64,
    pub(super) packets_refused: u64,
}

/// Runs one policy.
pub(super) fn simulate(parameters: &Parameters, policy: Policy) -> Outcome {
    let mut simulation = Simulation::new(parameters, policy);
    simulation.run_until(parameters.warm_up_ns);
    simulation.begin();
    simulation.run_until(parameters.end_ns);
    simulation.outcome()
}

/// A run under way.
pub(super) struct Simulation<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) policy: Policy,
    pub(super) now: u64,
    serial: u64,
    events: BinaryHeap<Reverse<(u64, u64, u32, Event)>>,
    pub(super) tunnels: Vec<Tunnel>,
    /// Tunnels that wait for slots of a peer's own.
    pub(super) lines: [VecDeque<u32>; 2],
    pub(super) accounts: Accounts,
    pub(super) rekeys: u64,
    pub(super) simultaneous_rekeys: u64,
    pub(super) redundant_sas: u64,
    pub(super) waits: u64,
}

impl<'a> Simulation<'a> {
    fn new(parameters: &'a Parameters, policy: Policy) -> Self {
        let mut random = Random::new(parameters.seed);
        let rates = mean_rates(parameters, &mut random);
        let mut simulation = Simulation {
            parameters,
            policy,
            now: 0,
            serial: 0,
            events: BinaryHeap::new(),
            tunnels: Vec::new(),
            lines: [VecDeque::new(), VecDeque::new()],
            accounts: Accounts::new(parameters),
            rekeys: 0,
            simultaneous_rekeys: 0,
            redundant_sas: 0,
            waits: 0,
        };
        for (index, mean) in (0..).zip(rates) {
            let mut stream = || Random::new(random.next());
            let mut traffic = mean.map(|rate| Traffic::new(parameters, rate, stream()));
            let starts = traffic.each_mut().map(|traffic| traffic.first_silence(parameters));
            let poll_phases = [(); 2].map(|()| stream().below(parameters.poll_ns.max(1) as usize) as u64);
            let age = stream().next();
            simulation.tunnels.push(Tunnel::new(traffic, poll_phases, stream()));
            for (way, start) in starts.into_iter().enumerate() {
                simulation.push(start, index, Event::Toggle { way });
            }
            simulation.install_first(index, mean, age);
        }
        simulation
    }

    /// The first pair of a tunnel is there from the start, and is as old as chance has it, if there are slots; else it waits for them.
    fn install_first(&mut self, index: u32, mean: [u64; 2], age: u64) {
        let creator = self.tunnel(index).random.below(2);
        if (0..2).any(|peer| self.accounts.free(peer) < SLOTS_A_PAIR) {
            self.wait_in_line(index, creator);
            return;
        }
        let mut pair = self.new_pair(index, creator);
        pair.age(mean, age);
        pair.state = State::InUse;
        for peer in 0..2 {
            pair.hold(peer);
            self.accounts.take(peer, State::InUse, SLOTS_A_PAIR);
        }
        let tunnel = self.tunnel(index);
        tunnel.in_use = Some(pair.number);
        tunnel.pairs.push(pair);
    }

    pub(super) fn tunnel(&mut self, index: u32) -> &mut Tunnel {
        &mut self.tunnels[index as usize]
    }

    pub(super) fn new_pair(&mut self, index: u32, creator: usize) -> Pair {
        let (parameters, policy) = (self.parameters, self.policy);
        let tunnel = self.tunnel(index);
        Pair::new(parameters, policy, tunnel.next_number(), creator, tunnel.in_use, &mut tunnel.random)
    }

    pub(super) fn push(&mut self, time: u64, tunnel: u32, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((time, self.serial, tunnel, event)));
    }

    fn run_until(&mut self, end: u64) {
        while let Some(&Reverse((time, ..))) = self.events.peek()
            && time < end
        {
            let Some(Reverse((time, _, tunnel, event))) = self.events.pop() else { break };
            self.now = time;
            self.accounts.advance(time);
            self.happen(tunnel, event);
        }
        self.now = end;
        self.accounts.advance(end);
        for tunnel in &mut self.tunnels {
            tunnel.count(end, self.policy.unit);
        }
    }

    /// The warm-up is over.
    fn begin(&mut self) {
        self.accounts.begin();
        (self.rekeys, self.simultaneous_rekeys, self.redundant_sas, self.waits) = (0, 0, 0, 0);
        for way in self.tunnels.iter_mut().flat_map(|tunnel| &mut tunnel.ways) {
            way.forget();
        }
    }

    fn outcome(self) -> Outcome {
        let packets = |of: fn(&Way) -> u128| -> u64 {
            let all: u128 = self.tunnels.iter().flat_map(|tunnel| &tunnel.ways).map(of).sum();
            (all / NANOSECONDS) as u64
        };
        Outcome {
            packets_sent: packets(Way::sent),
            packets_refused: packets(Way::refused),
            accounts: self.accounts,
            rekeys: self.rekeys,
            simultaneous_rekeys: self.simultaneous_rekeys,
            redundant_sas: self.redundant_sas,
            waits: self.waits,
        }
    }

    fn happen(&mut self, index: u32, event: Event) {
        match event {
            Event::Toggle { way } => self.toggle(index, way),
            Event::Crossed { way, epoch } => self.crossed(index, way, epoch),
            Event::Noticed { pair, peer } => {
                let tunnel = self.tunnel(index);
                if tunnel.in_use == Some(pair) && !tunnel.told[peer] && !tunnel.waiting[peer] {
                    self.begin_exchange(index, peer);
                }
            }
            Event::BringUp { peer } => {
                if self.tunnel(index).in_use.is_none() {
                    self.begin_exchange(index, peer);
                }
            }
            Event::ServeLine { peer } => self.serve_line(peer),
            Event::Heard { pair } => self.heard(index, pair),
            Event::Done { pair } => self.done(index, pair),
            Event::Deleted { pair, peer } => self.deleted(index, pair, peer),
            Event::Drained { pair, peer } => self.release(index, pair, peer, false, true),
            Event::Expired { pair } => {
                for peer in 0..2 {
                    self.release(index, pair, peer, true, true);
                }
            }
        }
    }

    fn toggle(&mut self, index: u32, way: usize) {
        let (now, parameters, unit) = (self.now, self.parameters, self.policy.unit);
        let tunnel = self.tunnel(index);
        tunnel.count(now, unit);
        let lasts = tunnel.ways[way].traffic.toggle(parameters);
        if let Some(lasts) = lasts {
            self.push(now + lasts, index, Event::Toggle { way });
        }
        self.expect_crossing(index, way);
    }

    /// The line of the counter is another now.
    pub(super) fn expect_crossing(&mut self, index: u32, way: usize) {
        let unit = self.policy.unit;
        let next = self.tunnel(index).next_crossing(way, unit);
        let epoch = self.tunnel(index).ways[way].new_epoch();
        if let Some(after) = next {
            self.push(self.now.saturating_add(after), index, Event::Crossed { way, epoch });
        }
    }

    fn crossed(&mut self, index: u32, way: usize, epoch: u32) {
        let (now, delay, unit) = (self.now, self.parameters.delay_ns, self.policy.unit);
        let tunnel = self.tunnel(index);
        if tunnel.ways[way].epoch() != epoch {
            return;
        }
        tunnel.count(now, unit);
        let Some(pair) = tunnel.current() else { return };
        let number = pair.number;
        let noticing = pair.reach(way);
        for (peer, noticing) in noticing.into_iter().enumerate() {
            if noticing {
                // What the receiver counts has been under way.
                let seen = if peer == way { now } else { now + delay };
                let time = self.next_look(index, peer, seen);
                self.push(time, index, Event::Noticed { pair: number, peer });
            }
        }
        self.expect_crossing(index, way);
    }

    /// When the daemon of `peer` sees what its NIC has known since `time`.
    fn next_look(&mut self, index: u32, peer: usize, time: u64) -> u64 {
        let poll = self.parameters.poll_ns;
        if self.policy.events || poll == 0 {
            return time;
        }
        let phase = self.tunnel(index).poll_phases[peer];
        time + (phase + poll - time % poll) % poll
    }
}
