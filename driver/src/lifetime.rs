//! How long the key of an SA may be used: limits on packets or on bytes.

use cryptonic_regs::admin::{LifetimeKind, SaLifetime, SaParameters};

use crate::Error;

/// The limits of an SA. The device itself stops at the hard one: a limit of `n` packets passes exactly `n`; of bytes it
/// refuses the packet that would begin at or past the limit. It tells once when the soft one is reached, and again each
/// time that it is armed anew ([`crate::Nic::arm_sa`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// What is counted.
    pub kind: LifetimeKind,
    /// The soft limit; below the hard one.
    pub soft: Option<u64>,
    /// The hard limit.
    pub hard: Option<u64>,
}

impl Lifetime {
    /// No limit; packets are counted.
    pub const UNLIMITED: Lifetime = Lifetime { kind: LifetimeKind::Packets, soft: None, hard: None };

    /// Whether there is no limit, so that a slot of either kind does.
    pub const fn is_unlimited(&self) -> bool {
        self.soft.is_none() && self.hard.is_none()
    }

    /// Limits on packets.
    pub const fn packets(soft: Option<u64>, hard: Option<u64>) -> Self {
        Lifetime { kind: LifetimeKind::Packets, soft, hard }
    }

    /// Limits on bytes of IP packets in clear.
    pub const fn bytes(soft: Option<u64>, hard: Option<u64>) -> Self {
        Lifetime { kind: LifetimeKind::Bytes, soft, hard }
    }

    /// Checks against the contract, for a key that protected or opened so much before.
    pub(crate) fn check(&self, packets: u64, bytes: u64) -> Result<(), Error> {
        let counted = self.counted(packets, bytes);
        for (holds, sentence) in [
            (self.soft != Some(0) && self.hard != Some(0), "a limit of 0 is none: leave it out"),
            (self.is_ordered(self.soft), "a soft limit is below the hard one"),
            (
                self.hard.is_none_or(|hard| counted < hard),
                "what the key was used for before has reached the hard limit",
            ),
        ] {
            if !holds {
                return Err(Error::Argument(sentence));
            }
        }
        Ok(())
    }

    /// Whether a soft limit is below the hard one.
    pub(crate) fn is_ordered(&self, soft: Option<u64>) -> bool {
        soft.zip(self.hard).is_none_or(|(soft, hard)| soft < hard)
    }

    /// Of both counts the one that the limits are held against.
    pub(crate) fn counted(&self, packets: u64, bytes: u64) -> u64 {
        match self.kind {
            LifetimeKind::Packets => packets,
            LifetimeKind::Bytes => bytes,
        }
    }

    pub(crate) fn put(&self, parameters: &mut SaParameters) {
        parameters.lifetime = SaLifetime::new()
            .with_kind(self.kind.number() as u8)
            .with_no_soft_limit(self.soft.is_none())
            .with_no_hard_limit(self.hard.is_none());
        parameters.soft_limit = self.soft.unwrap_or(0);
        parameters.hard_limit = self.hard.unwrap_or(0);
    }
}

impl Default for Lifetime {
    fn default() -> Self {
        Lifetime::UNLIMITED
    }
}
