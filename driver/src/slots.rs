//! What the driver knows of the SA slots: the NIC writes it, the stream of events looks names up in it.

use std::collections::HashMap;

use cryptonic_regs::admin::Direction;
use cryptonic_regs::events::EventCause;

use crate::ledger::Fingerprint;
use crate::{Lifetime, SaHandle};

/// The slots that were ever in use.
#[derive(Default)]
pub(crate) struct Slots(HashMap<u32, Slot>);

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
    pub(crate) arming: Option<u8>,
    /// Bit `n`: cause `n` was told; those of soft limits since the SA was armed last.
    pub(crate) causes: u16,
    /// Device time of the last look at the sticky bits that told of ICV failures.
    pub(crate) icv_failures_until_picoseconds: u64,
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
        match self.0.get(&index) {
            Some(slot) => slot.sa.is_none() && generation > slot.generation,
            None => generation != 0,
        }
    }

    pub(crate) fn insert(&mut self, handle: SaHandle, sa: InstalledSa) {
        self.0.insert(handle.index, Slot { generation: handle.generation, sa: Some(sa) });
    }

    pub(crate) fn get(&self, handle: SaHandle) -> Option<&InstalledSa> {
        self.0.get(&handle.index).filter(|slot| slot.generation == handle.generation)?.sa.as_ref()
    }

    pub(crate) fn get_mut(&mut self, handle: SaHandle) -> Option<&mut InstalledSa> {
        let slot = self.0.get_mut(&handle.index)?;
        slot.sa.as_mut().filter(|_| slot.generation == handle.generation)
    }

    pub(crate) fn remove(&mut self, handle: SaHandle) -> Option<InstalledSa> {
        self.get(handle)?;
        self.0.get_mut(&handle.index)?.sa.take()
    }

    /// What the device means by a slot and a generation.
    pub(crate) fn named(&mut self, index: u32, generation: u32) -> Named<'_> {
        match self.0.get_mut(&index) {
            Some(slot) if generation == slot.generation => {
                slot.sa.as_mut().map_or(Named::Deleted, Named::Installed)
            }
            Some(slot) if generation != 0 && generation < slot.generation => Named::Deleted,
            _ => Named::Never,
        }
    }

    /// Slot and generation of every SA that is installed.
    pub(crate) fn installed(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().filter(|(_, slot)| slot.sa.is_some()).map(|(index, slot)| (*index, slot.generation))
    }
}

impl Told {
    /// Causes that an arming begins anew.
    pub(crate) const SOFT: u16 = 1 << EventCause::SoftPackets.number() | 1 << EventCause::SoftBytes.number();

    /// The SA was armed anew, for which the device has this number, if it told.
    pub(crate) fn arm(&mut self, arming: Option<u8>) {
        self.arming = arming;
        self.causes &= !Self::SOFT;
    }
}
