//! What the driver knows of the SA slots: the NIC writes it, the stream of events looks names up in it.

use std::collections::HashMap;

use cryptonic_regs::admin::Direction;
use cryptonic_regs::events::EventCause;

use crate::ledger::Fingerprint;
use crate::{Lifetime, SaHandle};

/// The slots that were ever in use.
#[derive(Default)]
pub(crate) struct Slots {
    slots: HashMap<u32, Slot>,
    /// How often the ring of events was seen empty.
    batches: u64,
}

#[derive(Default)]
struct Slot {
    /// The generation that it had last: those of a slot only rise.
    generation: u32,
    sa: Option<InstalledSa>,
}

/// What the driver remembers of an SA. Nothing of it comes from the device but the arming.
#[derive(Clone, Copy)]
pub(crate) struct InstalledSa {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) numbers: Numbers,
    pub(crate) direction: Direction,
    pub(crate) spi: u32,
    pub(crate) cookie: u32,
    pub(crate) lifetime: Lifetime,
    pub(crate) told: Told,
    /// Firmware was started anew under a deletion.
    pub(crate) may_be_deleted: bool,
}

/// Where the numbers that a key must not meet twice come from.
#[derive(Clone, Copy)]
pub(crate) enum Numbers {
    /// The sequence, from this one on; each packet under way may take one.
    Sequence(u64),
    /// Those of received packets, from this one on.
    Received(u64),
    /// The IV clock of PSP.
    Clock,
}

/// Which events of an SA were told.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    /// How often the device says that it was armed, modulo 2^8; `None` until it has said so.
    arming: Option<u8>,
    /// Bit `n`: cause `n` was told; those of soft limits since the SA was armed last.
    causes: u16,
    /// Device time of the look at the sticky bits that told of ICV failures.
    icv_failures_until_picoseconds: u64,
    /// How often it was armed since the ring was seen empty, and as of which time.
    armed: u16,
    armed_since: u64,
}

/// What becomes of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// It is told.
    Tell,
    /// It was told.
    Repeated,
    /// It is of an arming before the last.
    Superseded,
    /// It may be of any arming: the sticky bits know.
    Unclear,
}

/// What a slot and a generation that the device names are to the driver.
pub(crate) enum Named<'a> {
    /// An SA that is installed.
    Installed(&'a mut InstalledSa),
    /// An SA that was deleted.
    Deleted,
    /// No SA that there ever was.
    Never,
}

impl Slots {
    /// Whether a slot is free, and the generation is one that it did not have yet.
    pub(crate) fn is_new(&self, index: u32, generation: u32) -> bool {
        match self.slots.get(&index) {
            Some(slot) => slot.sa.is_none() && generation > slot.generation,
            None => generation != 0,
        }
    }

    pub(crate) fn insert(&mut self, handle: SaHandle, sa: InstalledSa) {
        self.slots.insert(handle.index, Slot { generation: handle.generation, sa: Some(sa) });
    }

    pub(crate) fn get(&self, handle: SaHandle) -> Option<&InstalledSa> {
        self.slots.get(&handle.index).filter(|slot| slot.generation == handle.generation)?.sa.as_ref()
    }

    pub(crate) fn get_mut(&mut self, handle: SaHandle) -> Option<&mut InstalledSa> {
        let slot = self.slots.get_mut(&handle.index)?;
        slot.sa.as_mut().filter(|_| slot.generation == handle.generation)
    }

    pub(crate) fn remove(&mut self, handle: SaHandle) -> Option<InstalledSa> {
        self.get(handle)?;
        self.slots.get_mut(&handle.index)?.sa.take()
    }

    /// What the device means by a slot and a generation.
    pub(crate) fn named(&mut self, index: u32, generation: u32) -> Named<'_> {
        match self.slots.get_mut(&index) {
            Some(slot) if generation == slot.generation => {
                slot.sa.as_mut().map_or(Named::Deleted, Named::Installed)
            }
            Some(slot) if generation != 0 && generation < slot.generation => Named::Deleted,
            _ => Named::Never,
        }
    }

    /// The ring of events was seen empty.
    pub(crate) fn caught_up(&mut self) {
        self.batches += 1;
    }

    /// How often it was.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// Slot and generation of every SA that is installed.
    pub(crate) fn installed(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.slots.iter().filter(|(_, slot)| slot.sa.is_some()).map(|(index, slot)| (*index, slot.generation))
    }
}

impl Told {
    /// The SA was armed anew, for which the device has this number, if it told. `batches` is that of [`Slots::batches`].
    pub(crate) fn arm(&mut self, arming: Option<u8>, batches: u64) {
        self.arming = arming;
        self.causes &= !SOFT;
        if self.armed_since != batches {
            (self.armed, self.armed_since) = (0, batches);
        }
        self.armed = self.armed.saturating_add(1);
    }

    /// A record tells of a cause.
    pub(crate) fn by_record(
        &mut self,
        cause: EventCause,
        arming: u8,
        batches: u64,
        time_picoseconds: u64,
    ) -> Telling {
        if self.is_superseded(cause, arming) {
            return Telling::Superseded;
        }
        if is_soft(cause) && self.armed > u16::from(u8::MAX) && self.armed_since == batches {
            return Telling::Unclear;
        }
        if cause == EventCause::IcvFailures {
            self.tell_once(cause);
            let before = time_picoseconds <= self.icv_failures_until_picoseconds;
            return if before { Telling::Repeated } else { Telling::Tell };
        }
        self.learn(cause, arming);
        self.tell_once(cause)
    }

    /// A sticky bit tells of a cause.
    pub(crate) fn by_sticky_bit(&mut self, cause: EventCause, arming: u8, now_picoseconds: u64) -> Telling {
        if self.is_superseded(cause, arming) {
            return Telling::Superseded;
        }
        self.learn(cause, arming);
        let telling = self.tell_once(cause);
        if cause == EventCause::IcvFailures && telling == Telling::Tell {
            self.icv_failures_until_picoseconds = now_picoseconds;
        }
        telling
    }

    /// Whether a cause is one of a soft limit before the last.
    pub(crate) fn is_superseded(&self, cause: EventCause, arming: u8) -> bool {
        is_soft(cause) && self.arming.is_some_and(|last| last != arming)
    }

    /// A cause was taken to be told, and was not.
    pub(crate) fn take_back(&mut self, cause: EventCause) {
        self.causes &= !(1 << cause.number());
    }

    fn learn(&mut self, cause: EventCause, arming: u8) {
        if is_soft(cause) {
            self.arming = Some(arming);
        }
    }

    fn tell_once(&mut self, cause: EventCause) -> Telling {
        let bit = 1 << cause.number();
        let told = self.causes & bit != 0;
        self.causes |= bit;
        if told { Telling::Repeated } else { Telling::Tell }
    }
}

/// Causes that an arming begins anew.
const SOFT: u16 = 1 << EventCause::SoftPackets.number() | 1 << EventCause::SoftBytes.number();

fn is_soft(cause: EventCause) -> bool {
    cause.number() < 16 && SOFT & 1 << cause.number() != 0
}
