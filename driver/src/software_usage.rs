//! What a software SA counts, and where it stops: as a slot of the device does.

use cryptonic_regs::admin::{Direction, LifetimeKind};
use cryptonic_regs::events::{EventCause, ICV_8_PACKETS, ICV_FAILURES_IN_A_ROW, SEQUENCE_MARGIN};

use crate::sa::SaCauses;
use crate::{Error, Lifetime};

/// What a software SA was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareUsage {
    /// Its limits; the soft one as it was armed last.
    pub lifetime: Lifetime,
    /// Packets protected or opened, those counted elsewhere before included.
    pub packets: u64,
    /// Bytes of these IP packets in clear.
    pub bytes: u64,
    /// Packets refused by a hard limit.
    pub refused: u64,
    /// ICV failures since the last good packet.
    pub icv_failures_in_a_row: u32,
    /// What happened to it; of soft limits since it was armed last.
    pub causes: SaCauses,
}

/// The counters of a software SA.
pub(crate) struct Usage {
    usage: SoftwareUsage,
    /// With an ICV of 8 bytes: how often its key was used, failures on receive included.
    key_uses: Option<u64>,
    /// The last sequence number there is, for one that protects.
    last_sequence: Option<u64>,
    /// Causes that were not asked for yet.
    news: SaCauses,
}

/// A hard limit refuses a packet.
pub(crate) struct HardLimit;

impl Usage {
    pub(crate) fn new(lifetime: Lifetime, packets: u64, bytes: u64) -> Self {
        let usage = SoftwareUsage {
            lifetime,
            packets,
            bytes,
            refused: 0,
            icv_failures_in_a_row: 0,
            causes: SaCauses::default(),
        };
        Usage { usage, key_uses: None, last_sequence: None, news: SaCauses::default() }
    }

    /// That of an ESP SA.
    pub(crate) fn of_esp(mut self, direction: Direction, icv_bytes: u8, esn: bool) -> Self {
        self.key_uses = (icv_bytes == 8).then_some(self.usage.packets);
        let last = if esn { u64::MAX } else { u32::MAX.into() };
        self.last_sequence = (direction == Direction::Out).then_some(last);
        self
    }

    pub(crate) fn get(&self) -> SoftwareUsage {
        self.usage
    }

    /// The causes that happened since they were asked for last.
    pub(crate) fn take_news(&mut self) -> SaCauses {
        std::mem::take(&mut self.news)
    }

    pub(crate) fn arm(&mut self, soft: u64) -> Result<(), Error> {
        let lifetime = Lifetime { soft: Some(soft), ..self.usage.lifetime };
        lifetime.check(0, 0)?;
        self.usage.lifetime = lifetime;
        for cause in [EventCause::SoftPackets, EventCause::SoftBytes] {
            self.usage.causes.remove(cause);
            self.news.remove(cause);
        }
        Ok(())
    }

    /// Whether a packet may pass. The test comes before the packet is counted: a limit of `n` packets passes `n`.
    pub(crate) fn admit(&mut self) -> Result<(), HardLimit> {
        let usage = &mut self.usage;
        let counted = usage.lifetime.counted(usage.packets, usage.bytes);
        let below = usage.lifetime.hard.is_none_or(|hard| counted < hard)
            && self.key_uses.is_none_or(|uses| uses < ICV_8_PACKETS);
        usage.refused += u64::from(!below);
        if below { Ok(()) } else { Err(HardLimit) }
    }

    /// A packet took a sequence number or an IV, or the window took its number.
    pub(crate) fn count_packet(&mut self) {
        self.usage.packets = self.usage.packets.saturating_add(1);
        self.judge(LifetimeKind::Packets, EventCause::SoftPackets, EventCause::HardPackets);
    }

    pub(crate) fn count_bytes(&mut self, bytes: usize) {
        self.usage.bytes = self.usage.bytes.saturating_add(bytes as u64);
        self.judge(LifetimeKind::Bytes, EventCause::SoftBytes, EventCause::HardBytes);
    }

    /// The key sealed a packet, or tried to open one.
    pub(crate) fn count_key_use(&mut self) {
        if let Some(uses) = &mut self.key_uses {
            *uses = uses.saturating_add(1);
            if *uses >= ICV_8_PACKETS {
                self.happen(EventCause::HardIcv8);
            }
        }
    }

    pub(crate) fn count_icv(&mut self, right: bool) {
        let failures = &mut self.usage.icv_failures_in_a_row;
        *failures = if right { 0 } else { failures.saturating_add(1) };
        if *failures == ICV_FAILURES_IN_A_ROW {
            // It is told again after a right one.
            self.usage.causes.insert(EventCause::IcvFailures);
            self.news.insert(EventCause::IcvFailures);
        }
    }

    /// A packet took this sequence number.
    pub(crate) fn used_sequence(&mut self, sequence: u64) {
        if let Some(left) = self.last_sequence.map(|last| last.saturating_sub(sequence)) {
            if left <= SEQUENCE_MARGIN {
                self.happen(EventCause::SequenceSoft);
            }
            if left == 0 {
                self.happen(EventCause::SequenceHard);
            }
        }
    }

    fn judge(&mut self, kind: LifetimeKind, soft: EventCause, hard: EventCause) {
        let SoftwareUsage { lifetime, packets, bytes, .. } = self.usage;
        if lifetime.kind != kind {
            return;
        }
        let counted = lifetime.counted(packets, bytes);
        if lifetime.soft.is_some_and(|limit| counted >= limit) {
            self.happen(soft);
        }
        if lifetime.hard.is_some_and(|limit| counted >= limit) {
            self.happen(hard);
        }
    }

    fn happen(&mut self, cause: EventCause) {
        if !self.usage.causes.contains(cause) {
            self.usage.causes.insert(cause);
            self.news.insert(cause);
        }
    }
}
