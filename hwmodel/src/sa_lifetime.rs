//! The life of an SA: what its slot has counted, what its limits are, and which of them were reached.
//!
//! A packet is judged before it is counted: with a hard limit of N packets N pass; with one of N bytes the packet that
//! would begin at or past byte N does not, so that at most one packet reaches over. Comparisons are `>=`, never `==`.
//! Counters stop at their end instead of coming round.

use cryptonic_regs::admin::{LifetimeKind, SaParameters, SaSticky};
use cryptonic_regs::events::{EventCause, ICV_8_PACKETS, ICV_FAILURES_IN_A_ROW, SEQUENCE_MARGIN};

/// Causes, one bit each by their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes(u16);

impl Causes {
    /// No cause.
    pub const NONE: Causes = Causes(0);
    /// Causes behind which a slot passes no packet.
    pub const END: Causes = Causes::NONE
        .with(EventCause::HardPackets)
        .with(EventCause::HardBytes)
        .with(EventCause::SequenceHard)
        .with(EventCause::HardIcv8);
    /// Causes that a slot is armed for.
    pub const ARMED: Causes =
        Causes::NONE.with(EventCause::SoftPackets).with(EventCause::SoftBytes).with(EventCause::IcvFailures);
    /// Causes behind which a slot is behind its soft limit.
    pub const SOFT: Causes =
        Causes::NONE.with(EventCause::SoftPackets).with(EventCause::SoftBytes).with(EventCause::SequenceSoft);

    /// These and one more.
    pub const fn with(self, cause: EventCause) -> Causes {
        Causes(self.0 | 1 << cause.number())
    }

    /// As bits.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any of these is among those.
    pub fn meets(self, those: Causes) -> bool {
        self.0 & those.0 != 0
    }

    /// Those that are not among the others.
    pub fn without(self, others: Causes) -> Causes {
        Causes(self.0 & !others.0)
    }

    fn and(self, others: Causes) -> Causes {
        Causes(self.0 | others.0)
    }

    /// One after another, in the order of their numbers.
    pub fn each(self) -> impl Iterator<Item = EventCause> {
        (0..u16::BITS).filter(move |bit| self.0 >> bit & 1 == 1).filter_map(EventCause::of_number)
    }
}

/// Counters, limits and sticky bits of a slot.
pub struct Lifetime {
    /// What the limits count.
    pub kind: LifetimeKind,
    /// Soft limit.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
    /// Packets protected or opened.
    pub packets: u64,
    /// Bytes of their IP packets in clear.
    pub bytes: u64,
    /// Device time of the install.
    pub installed_picoseconds: u64,
    /// Device time of the first packet counted.
    pub first_use_picoseconds: Option<u64>,
    /// Device time of the last packet counted.
    pub last_use_picoseconds: Option<u64>,
    /// Packets refused by a hard limit or for want of a sequence number.
    pub refused: u64,
    /// In: sequence numbers received before.
    pub replay_duplicates: u64,
    /// In: sequence numbers below the window.
    pub replay_below_window: u64,
    /// In: wrong ICVs.
    pub icv_failures: u64,
    /// In: wrong ICVs since the last right one.
    pub icv_failures_in_a_row: u32,
    /// Uses of the key that are left where the ICV has 8 bytes: packets, and on receive wrong ones too.
    icv_8_left: Option<u64>,
    sticky: Causes,
    arming: u8,
}

impl Lifetime {
    /// The life that parameters ask for; `None` where they contradict themselves.
    pub fn of_parameters(public: &SaParameters) -> Option<Lifetime> {
        let words = public.lifetime;
        let kind = LifetimeKind::of_number(u32::from(words.kind()))?;
        let limit = |absent: bool, value: u64| match (absent, value) {
            (true, 0) => Some(None),
            (false, 1..) => Some(Some(value)),
            _ => None,
        };
        let soft = limit(words.no_soft_limit(), public.soft_limit)?;
        let hard = limit(words.no_hard_limit(), public.hard_limit)?;
        let counted = match kind {
            LifetimeKind::Packets => public.packets,
            LifetimeKind::Bytes => public.bytes,
        };
        let ascending = hard.is_none_or(|hard| soft.is_none_or(|soft| soft < hard) && counted < hard);
        let icv_8_left = match public.form.icv_bytes() {
            8 => Some(ICV_8_PACKETS.checked_sub(public.packets).filter(|left| *left > 0)?),
            _ => None,
        };
        ascending.then_some(Lifetime {
            kind,
            soft,
            hard,
            packets: public.packets,
            bytes: public.bytes,
            installed_picoseconds: 0,
            first_use_picoseconds: None,
            last_use_picoseconds: None,
            refused: 0,
            replay_duplicates: 0,
            replay_below_window: 0,
            icv_failures: 0,
            icv_failures_in_a_row: 0,
            icv_8_left,
            sticky: Causes::NONE,
            arming: 0,
        })
    }

    /// Whether there is no limit at all, so that a slot of either kind does.
    pub fn unlimited(&self) -> bool {
        self.soft.is_none() && self.hard.is_none()
    }

    /// Whether a packet may pass; one that may not is counted as refused.
    #[inline]
    pub fn permits(&mut self) -> bool {
        let permitted =
            self.hard.is_none_or(|hard| self.counted() < hard) && self.icv_8_left.is_none_or(|left| left > 0);
        if !permitted {
            self.refused += 1;
        }
        permitted
    }

    /// Counts a packet that passes and gives the causes that are new with it. `sequence_left` numbers are left behind it.
    #[inline]
    pub fn count(&mut self, bytes: u64, sequence_left: u64, now_picoseconds: u64) -> Causes {
        self.packets = self.packets.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.first_use_picoseconds.get_or_insert(now_picoseconds);
        self.last_use_picoseconds = Some(now_picoseconds);
        self.icv_failures_in_a_row = 0;
        if self.unlimited() && sequence_left > SEQUENCE_MARGIN && self.icv_8_left.is_none() {
            return Causes::NONE;
        }
        self.use_icv_8();
        self.reached(sequence_left)
    }

    /// Counts a packet whose ICV is wrong and gives the causes that are new with it.
    pub fn count_icv_failure(&mut self) -> Causes {
        self.icv_failures += 1;
        self.icv_failures_in_a_row = self.icv_failures_in_a_row.saturating_add(1);
        self.use_icv_8();
        let mut causes = Causes::NONE;
        if self.icv_failures_in_a_row >= ICV_FAILURES_IN_A_ROW {
            causes = causes.with(EventCause::IcvFailures);
        }
        if self.icv_8_left == Some(0) {
            causes = causes.with(EventCause::HardIcv8);
        }
        self.note(causes)
    }

    /// Arms the soft limit anew; refused at or above the hard limit, and at 0.
    pub fn arm(&mut self, soft: u64) -> bool {
        if soft == 0 || self.hard.is_some_and(|hard| soft >= hard) {
            return false;
        }
        self.soft = Some(soft);
        self.sticky = self.sticky.without(Causes::ARMED);
        self.arming = self.arming.wrapping_add(1);
        true
    }

    /// What happened, and has not been armed anew since.
    pub fn sticky(&self) -> Causes {
        self.sticky
    }

    /// How often it was armed.
    pub fn arming(&self) -> u8 {
        self.arming
    }

    /// Sticky bits and failures in a row, as a query tells them.
    pub fn sticky_word(&self) -> SaSticky {
        SaSticky::new()
            .with_causes(self.sticky.bits())
            .with_arming(self.arming)
            .with_icv_failures_in_a_row(self.icv_failures_in_a_row)
    }

    fn counted(&self) -> u64 {
        match self.kind {
            LifetimeKind::Packets => self.packets,
            LifetimeKind::Bytes => self.bytes,
        }
    }

    fn use_icv_8(&mut self) {
        if let Some(left) = &mut self.icv_8_left {
            *left = left.saturating_sub(1);
        }
    }

    fn reached(&mut self, sequence_left: u64) -> Causes {
        let (soft, hard) = match self.kind {
            LifetimeKind::Packets => (EventCause::SoftPackets, EventCause::HardPackets),
            LifetimeKind::Bytes => (EventCause::SoftBytes, EventCause::HardBytes),
        };
        let counted = self.counted();
        let conditions = [
            (soft, self.soft.is_some_and(|limit| counted >= limit)),
            (hard, self.hard.is_some_and(|limit| counted >= limit)),
            (EventCause::SequenceSoft, sequence_left <= SEQUENCE_MARGIN),
            (EventCause::SequenceHard, sequence_left == 0),
            (EventCause::HardIcv8, self.icv_8_left == Some(0)),
        ];
        let causes = conditions
            .into_iter()
            .filter(|(_, holds)| *holds)
            .fold(Causes::NONE, |causes, (cause, _)| causes.with(cause));
        self.note(causes)
    }

    /// Sets sticky bits and gives those that were not set before.
    fn note(&mut self, causes: Causes) -> Causes {
        let new = causes.without(self.sticky);
        self.sticky = self.sticky.and(causes);
        new
    }
}
