//! Exchanges between the peers: who may begin one, what becomes of it, and which slots it takes and frees.

use super::accounts::State;
use super::parameters::Redundant;
use super::simulation::{Event, SLOTS_A_PAIR, Simulation};
use super::tunnel::Pair;

/// A peer that was refused, or that is busy with an exchange of the same tunnel, tries again after half to one and a half of this.
const RETRY_NS: u64 = 1_000_000_000;
/// The timer of retransmissions doubles this often.
const DOUBLINGS: u32 = 6;

impl Simulation<'_> {
    /// The peer wants a new pair, for one that ends or for the first time.
    pub(super) fn begin_exchange(&mut self, index: u32, peer: usize) {
        if self.tunnel(index).exchanges[peer].is_some() {
            self.try_again(index, peer);
        } else if !self.lines[peer].is_empty() || self.accounts.free(peer) < SLOTS_A_PAIR {
            self.wait_in_line(index, peer);
        } else {
            self.send_request(index, peer);
        }
    }

    fn try_again(&mut self, index: u32, peer: usize) {
        let event = match self.tunnel(index).in_use {
            Some(pair) => Event::Noticed { pair, peer },
            None => Event::BringUp { peer },
        };
        let pause = RETRY_NS / 2 + self.tunnel(index).random.below(RETRY_NS as usize) as u64;
        self.push(self.now + pause, index, event);
    }

    pub(super) fn wait_in_line(&mut self, index: u32, peer: usize) {
        self.waits += 1;
        self.tunnel(index).waiting[peer] = true;
        self.lines[peer].push_back(index);
    }

    pub(super) fn serve_line(&mut self, peer: usize) {
        while self.accounts.free(peer) >= SLOTS_A_PAIR {
            let Some(index) = self.lines[peer].pop_front() else { return };
            // Who has got a pair in the meantime has left the line.
            if std::mem::take(&mut self.tunnel(index).waiting[peer]) {
                self.send_request(index, peer);
            }
        }
    }

    fn send_request(&mut self, index: u32, peer: usize) {
        let mut pair = self.new_pair(index, peer);
        let number = pair.number;
        pair.hold(peer);
        self.accounts.take(peer, State::SettingUp, SLOTS_A_PAIR);
        let tunnel = self.tunnel(index);
        tunnel.exchanges[peer] = Some(number);
        // RFC 7296 2.8.1: both peers have sent a request before either has seen the other's.
        let replaced = pair.replaces;
        let rival = tunnel.exchanges[1 - peer].and_then(|rival| tunnel.pair(rival));
        if let Some(rival) = rival.filter(|rival| rival.replaces == replaced && !rival.refused) {
            rival.rival = Some(number);
            pair.rival = Some(rival.number);
            let old = replaced.and_then(|old| tunnel.pair(old));
            if old.is_some_and(|old| !std::mem::replace(&mut old.replaced_by_both, true)) {
                self.simultaneous_rekeys += 1;
            }
        }
        self.tunnel(index).pairs.push(pair);
        let (heard, done) = self.exchange(index, self.parameters.rekey_ns);
        self.push(heard, index, Event::Heard { pair: number });
        self.push(done, index, Event::Done { pair: number });
    }

    /// When a request that is sent now is heard, and when its response is back.
    fn exchange(&mut self, index: u32, latency: u64) -> (u64, u64) {
        let (now, first_timer, loss) =
            (self.now, self.parameters.retransmit_ns, self.parameters.loss_millionths);
        let random = &mut self.tunnel(index).random;
        let mut arrives = || random.below(1_000_000) as u64 >= loss;
        let (mut sent, mut timer, mut heard) = (now, first_timer, None);
        loop {
            if arrives() {
                let heard = *heard.get_or_insert(sent + latency / 2);
                if arrives() {
                    return (heard, sent + latency);
                }
            }
            sent += timer;
            timer = (timer * 2).min(first_timer << DOUBLINGS);
        }
    }

    pub(super) fn heard(&mut self, index: u32, number: u32) {
        let tunnel = self.tunnel(index);
        let in_use = tunnel.in_use;
        let Some(&Pair { creator, replaces, rival, .. }) = tunnel.pair(number).map(|pair| &*pair) else {
            return;
        };
        let responder = 1 - creator;
        // RFC 7296 2.25.1: a pair that this end has deleted cannot be rekeyed (CHILD_SA_NOT_FOUND).
        let can_replace = match replaces {
            Some(old) => tunnel.pair(old).is_some_and(|old| old.outbound[responder]),
            None => in_use.is_none(),
        };
        if !can_replace || self.accounts.free(responder) < SLOTS_A_PAIR {
            if can_replace {
                self.waits += 1;
            }
            let tunnel = self.tunnel(index);
            if let Some(pair) = tunnel.pair(number) {
                (pair.refused, pair.rival) = (true, None);
            }
            if let Some(rival) = rival.and_then(|rival| tunnel.pair(rival)) {
                rival.rival = None;
            }
            return;
        }
        self.accounts.take(responder, State::SettingUp, SLOTS_A_PAIR);
        let tunnel = self.tunnel(index);
        if let Some(pair) = tunnel.pair(number) {
            pair.hold(responder);
            pair.heard = true;
        }
        if replaces == in_use {
            tunnel.told[responder] = true;
            tunnel.waiting[responder] = false;
        }
    }

    pub(super) fn done(&mut self, index: u32, number: u32) {
        let tunnel = self.tunnel(index);
        let in_use = tunnel.in_use;
        let Some(&Pair { creator, replaces, rival, refused, .. }) = tunnel.pair(number).map(|pair| &*pair)
        else {
            return;
        };
        tunnel.exchanges[creator] = None;
        if refused {
            let must_retry = in_use == replaces && !tunnel.told[creator];
            // If who waits here took the slots at once, and the same at the other end, each would find the other's taken for ever.
            self.free(index, number, creator, true, true);
            let pause = self.tunnel(index).random.below(RETRY_NS as usize) as u64;
            self.push(self.now + pause, index, Event::ServeLine { peer: creator });
            if must_retry {
                self.try_again(index, creator);
            }
            return;
        }
        self.rekeys += 1;
        if in_use == replaces {
            self.switch_to(index, number);
            // Who has heard of a rival waits until it is known which of the two stays.
            let rival = rival.and_then(|rival| self.tunnel(index).pair(rival));
            if !rival.is_some_and(|rival| rival.heard) {
                self.delete_old(index, replaces, creator);
            }
            return;
        }
        let winner = match rival.filter(|rival| in_use == Some(*rival)) {
            Some(rival) => self.settle(index, rival, number),
            // The rival has itself been rekeyed already.
            None => {
                self.make_redundant(index, number);
                creator
            }
        };
        self.delete_old(index, replaces, winner);
    }

    /// Both exchanges are through. Traffic stays with one pair; tells who created it.
    fn settle(&mut self, index: u32, earlier: u32, later: u32) -> usize {
        // RFC 7296 2.8.1: the pair with the lowest of the four nonces goes, which is chance. Who closes none uses the latest.
        let keeps_later =
            self.parameters.redundant == Redundant::Keep || self.tunnel(index).random.below(2) == 0;
        let (stays, goes) = if keeps_later { (later, earlier) } else { (earlier, later) };
        if keeps_later {
            self.switch_to(index, later);
        }
        self.make_redundant(index, goes);
        self.tunnel(index).pair(stays).map_or(0, |pair| pair.creator)
    }

    fn make_redundant(&mut self, index: u32, number: u32) {
        self.redundant_sas += 2;
        self.change_state(index, number, State::Redundant);
        let Some(creator) = self.tunnel(index).pair(number).map(|pair| pair.creator) else { return };
        match self.parameters.redundant {
            Redundant::Close => self.delete(index, number, creator),
            Redundant::Keep => {
                let time = self.now + self.parameters.time_lifetime_ns;
                self.push(time, index, Event::Expired { pair: number });
            }
        }
    }

    /// The tunnel's traffic moves to this pair, in both directions at once.
    fn switch_to(&mut self, index: u32, number: u32) {
        let (now, unit) = (self.now, self.policy.unit);
        let tunnel = self.tunnel(index);
        tunnel.count(now, unit);
        let before = tunnel.in_use.replace(number);
        (tunnel.told, tunnel.waiting) = ([false; 2], [false; 2]);
        if let Some(before) = before {
            self.change_state(index, before, State::Old);
        }
        self.change_state(index, number, State::InUse);
        for way in 0..2 {
            self.expect_crossing(index, way);
        }
    }

    fn change_state(&mut self, index: u32, number: u32, state: State) {
        let Some(pair) = self.tunnels[index as usize].pair(number) else { return };
        let before = std::mem::replace(&mut pair.state, state);
        pair.carried |= state == State::InUse;
        for peer in 0..2 {
            let slots = pair.slots(peer);
            self.accounts.release(peer, before, slots);
            self.accounts.take(peer, state, slots);
        }
    }

    fn delete_old(&mut self, index: u32, old: Option<u32>, peer: usize) {
        if let Some(old) = old {
            self.delete(index, old, peer);
        }
    }

    fn delete(&mut self, index: u32, number: u32, peer: usize) {
        let Some(pair) = self.tunnel(index).pair(number) else { return };
        if std::mem::replace(&mut pair.deleting, true) {
            return;
        }
        let (heard, done) = self.exchange(index, self.parameters.delete_ns);
        self.push(heard, index, Event::Deleted { pair: number, peer: 1 - peer });
        self.push(done, index, Event::Deleted { pair: number, peer });
    }

    pub(super) fn deleted(&mut self, index: u32, number: u32, peer: usize) {
        let drain = self.parameters.drain_ns;
        let drains = drain > 0 && self.tunnel(index).pair(number).is_some_and(|pair| pair.carried);
        if drains {
            self.push(self.now + drain, index, Event::Drained { pair: number, peer });
        }
        self.release(index, number, peer, true, !drains);
    }

    /// Frees slots of a pair at one end, for who waits there.
    pub(super) fn release(&mut self, index: u32, number: u32, peer: usize, outbound: bool, inbound: bool) {
        self.free(index, number, peer, outbound, inbound);
        self.serve_line(peer);
    }

    /// Frees slots of a pair at one end, and forgets the pair with its last.
    fn free(&mut self, index: u32, number: u32, peer: usize, outbound: bool, inbound: bool) {
        let tunnel = &mut self.tunnels[index as usize];
        let Some(pair) = tunnel.pair(number) else { return };
        let slots = pair.let_go(peer, outbound, inbound);
        self.accounts.release(peer, pair.state, slots);
        if (0..2).all(|peer| pair.slots(peer) == 0) {
            tunnel.forget(number);
        }
    }
}
