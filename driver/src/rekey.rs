//! When to rekey: soft limits drawn so that both ends seldom rekey at once, and which pair is due.
//!
//! Nothing here touches a device. A [`Policy`] draws the soft limit of an SA to be; a [`Rekeyer`] is fed with events
//! and says once for each pair that it is to be replaced ([`crate::Nic::replace_sas`]).

use std::collections::HashMap;
use std::hash::Hash;

use crate::{Event, EventCause, Lifetime, LifetimeKind, SaHandle, SaPair};

/// Which end of an SA this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It proposed the SA: it rekeys first.
    Initiator,
    /// It rekeys if the initiator does not.
    Responder,
}

/// How far below the hard limit a soft one is drawn, as shares of the hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Margins {
    /// draft-liu-ipsecme-ikev2-rekey-redundant-sas: initiator 80 % and up to 5 % more; responder 95 % and up to 5 % more.
    CountBased,
    /// Libreswan: initiator 25 % and up to an eighth of 50 % more; responder 50 % and up to as much less. Below 16384
    /// nothing is drawn.
    Libreswan,
    /// strongSwan, by the margins of its time limits: 10/11, and up to 1/11 less, for both.
    StrongSwan,
}

/// Draws soft limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The shares.
    pub margins: Margins,
    /// Which end this is.
    pub role: Role,
}

impl Policy {
    /// A soft limit, above 0 and below the hard one; `None` for a hard limit below 2, which has no room for one.
    /// `random` gives numbers of 64 random bits.
    pub fn soft_limit(&self, hard: u64, mut random: impl FnMut() -> u64) -> Option<u64> {
        let highest = hard.checked_sub(1).filter(|highest| *highest > 0)?;
        let share = |part: u64, of: u64| (u128::from(hard) * u128::from(part) / u128::from(of)) as u64;
        let mut below = |most: u64| drawn(most, &mut random);
        let soft = match (self.margins, self.role) {
            (Margins::CountBased, Role::Initiator) => share(80, 100) + below(share(5, 100)),
            // Above 95 %: one more than what is rounded down.
            (Margins::CountBased, Role::Responder) => {
                share(95, 100).saturating_add(1).saturating_add(below(share(5, 100)))
            }
            (Margins::Libreswan, role) => {
                let base = share(1, 2);
                let fuzz = if hard < LIBRESWAN_FUZZ_LEAST { 0 } else { below(base / 8) };
                if role == Role::Initiator { base / 2 + fuzz } else { base - fuzz }
            }
            (Margins::StrongSwan, _) => share(10, 11) - below(share(1, 11)),
        };
        Some(soft.clamp(1, highest))
    }

    /// Limits of an SA: the hard one, and a soft one below it.
    pub fn lifetime(&self, kind: LifetimeKind, hard: u64, random: impl FnMut() -> u64) -> Lifetime {
        Lifetime { kind, soft: self.soft_limit(hard, random), hard: Some(hard) }
    }
}

/// Below this Libreswan draws nothing.
const LIBRESWAN_FUZZ_LEAST: u64 = 16_384;

/// A number from 0 to `most`, each as likely but for one part in 2^64.
fn drawn(most: u64, random: &mut impl FnMut() -> u64) -> u64 {
    ((u128::from(random()) * (u128::from(most) + 1)) >> 64) as u64
}

/// Which pair is to be replaced, and how urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due<N> {
    /// The pair.
    pub name: N,
    /// One of its SAs passes no packet any more.
    pub expired: bool,
}

/// Tells once for each pair that it is to be replaced. `N` names a pair.
#[derive(Clone, Debug)]
pub struct Rekeyer<N> {
    pairs: HashMap<N, Pair>,
    names: HashMap<SaHandle, N>,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    sas: SaPair<SaHandle>,
    /// How it was told to be due, if it was.
    told: Option<bool>,
}

impl<N: Copy + Eq + Hash> Rekeyer<N> {
    /// One that watches nothing.
    pub fn new() -> Self {
        Rekeyer { pairs: HashMap::new(), names: HashMap::new() }
    }

    /// Watches a pair. If its name is known, this one has replaced the other, whose events are heard no more.
    pub fn watch(&mut self, name: N, sas: SaPair<SaHandle>) {
        self.forget(name);
        self.pairs.insert(name, Pair { sas, told: None });
        self.names.extend(sas.iter().map(|handle| (*handle, name)));
    }

    /// Watches a pair no more.
    pub fn forget(&mut self, name: N) {
        if let Some(pair) = self.pairs.remove(&name) {
            for handle in pair.sas.iter() {
                self.names.remove(handle);
            }
        }
    }

    /// Rekeying a pair did not succeed: its next event tells of it again.
    pub fn retry(&mut self, name: N) {
        if let Some(pair) = self.pairs.get_mut(&name) {
            pair.told = None;
        }
    }

    /// Takes an event. Gives the pair if it is to be replaced and that was not said, or not that it has expired.
    pub fn take(&mut self, event: &Event) -> Option<Due<N>> {
        let expired = match event.cause {
            EventCause::SoftPackets | EventCause::SoftBytes | EventCause::SequenceSoft => false,
            EventCause::HardPackets
            | EventCause::HardBytes
            | EventCause::SequenceHard
            | EventCause::HardIcv8 => true,
            _ => return None,
        };
        let name = *self.names.get(&event.sa?)?;
        let pair = self.pairs.get_mut(&name)?;
        let news = pair.told.is_none_or(|told| expired && !told);
        pair.told = Some(expired || pair.told == Some(true));
        news.then_some(Due { name, expired })
    }
}

impl<N: Copy + Eq + Hash> Default for Rekeyer<N> {
    fn default() -> Self {
        Rekeyer::new()
    }
}
