//! `sa_install`: all SAs of the command, or none. Each is fetched, checked and staged in turn; no packet uses
//! a staged slot. The completion with `ok` is what makes all of them valid, so until that one bus access there
//! is nothing that a refusal or a restart could leave half done: the staged slots are deleted.
//!
//! A refusal of one record has its number as result; a refusal of the whole, as for the place of the reply,
//! has 0.

use cryptonic_regs::admin::{AdminStatus, InstalledSa, SaParameters};
use cryptonic_regs::events::SlotState;
use cryptonic_regs::firmware::{
    DmaCommand, Outcome, SA_COMMAND, SA_GENERATION, SA_HOST_HIGH, SA_HOST_LOW, SA_INDEX, SA_SCRATCH,
    SA_STATE, SA_STATUS, SCRATCH_ADDRESS, SaOperation,
};

use crate::bus::{Bus, Engine, engine, get, read_words, set, set_wide, slot_state, transfer, write_scratch};
use crate::request::SA_BATCH;
use crate::restart::SCAN_SLOTS;
use crate::sa::{self, Placement};
use crate::{Firmware, PARAMETERS_OFFSET, REPLY_OFFSET, Refusal, State, Step, done};

/// How often a delete of a staged slot is tried.
const DELETE_TRIES: u32 = 3;

/// The command that is being served.
pub struct Batch {
    count: u32,
    parameters: u64,
    reply: u64,
    /// Slots that are staged, which is the number of the record at hand as well.
    staged: u32,
    installed: [u64; SA_BATCH as usize],
}

impl Batch {
    pub const fn new(count: u32, parameters: u64, reply: u64) -> Self {
        Batch { count, parameters, reply, staged: 0, installed: [0; SA_BATCH as usize] }
    }

    /// Where the record at hand is in host memory. The form of the command was checked: it does not wrap.
    fn address(&self) -> u64 {
        let before = u64::from(self.staged).saturating_mul(SaParameters::BYTES as u64);
        self.parameters.wrapping_add(before)
    }

    fn push(&mut self, sa: InstalledSa) {
        if let Some(word) = self.installed.get_mut(self.staged as usize) {
            *word = sa.into_bits();
        }
        self.staged = self.staged.saturating_add(1);
    }

    /// The slot that was staged last.
    fn last(&self) -> Option<u32> {
        let word = self.installed.get(self.staged.checked_sub(1)? as usize)?;
        Some(InstalledSa::from_bits(*word).index())
    }
}

/// How the delete of a staged slot stands.
pub enum Removal {
    Busy,
    /// The slot is empty.
    Done,
    /// Tried so often; it began once more.
    Again(u32),
    /// The hardware does not give it up.
    Failed,
}

/// Starts to delete a staged slot.
pub fn remove(bus: &mut impl Bus, slot: u32) {
    set(bus, SA_INDEX, slot);
    set(bus, SA_COMMAND, SaOperation::Delete.number());
}

/// Looks at a delete that was begun `tries` times; [`SA_INDEX`] still names the slot.
pub fn removal(bus: &mut impl Bus, tries: u32) -> Removal {
    if let Engine::Busy = engine(bus, SA_STATUS) {
        return Removal::Busy;
    }
    if get(bus, SA_STATE) == SlotState::Free.number() {
        return Removal::Done;
    }
    if tries >= DELETE_TRIES {
        return Removal::Failed;
    }
    set(bus, SA_COMMAND, SaOperation::Delete.number());
    Removal::Again(tries.saturating_add(1))
}

impl Firmware {
    pub(crate) fn install(&mut self, bus: &mut impl Bus, batch: Batch) -> Step {
        self.batch = batch;
        self.fetch(bus)
    }

    /// Fetches the public words of the record at hand; firmware never sees the others.
    fn fetch(&mut self, bus: &mut impl Bus) -> Step {
        self.state = State::Parameters;
        let bytes = SaParameters::PUBLIC_BYTES as u32;
        transfer(bus, self.batch.address(), PARAMETERS_OFFSET, bytes, DmaCommand::new());
        None
    }

    /// The public words of the record at hand are in scratch memory.
    pub(crate) fn fetched(&mut self, bus: &mut impl Bus, outcome: Option<Outcome>) -> Step {
        if let Err(status) = done(outcome, AdminStatus::Aborted) {
            return self.refuse(bus, status);
        }
        // The secret words stay 0.
        let mut words = [0; SaParameters::WORDS];
        if let Some(public) = words.get_mut(..SaParameters::PUBLIC_WORDS) {
            read_words(bus, SCRATCH_ADDRESS.wrapping_add(PARAMETERS_OFFSET), public);
        }
        match sa::check(&SaParameters::of_words(&words), &self.limits) {
            Ok(placement) => self.place(bus, placement),
            Err(status) => self.refuse(bus, status),
        }
    }

    /// Stages the record at hand in a slot that is empty: of its kind, or of any if it has no limit.
    pub(crate) fn place(&mut self, bus: &mut impl Bus, placement: Placement) -> Step {
        let found = self.slots.find(placement.kind);
        let other = || self.slots.find(sa::other(placement.kind)).filter(|_| placement.any);
        let Some(slot) = found.or_else(other) else {
            if !core::mem::take(&mut self.compare) {
                return self.refuse(bus, AdminStatus::NoFreeSlot);
            }
            self.state = State::Comparing { slot: 0, placement };
            return None;
        };
        if slot_state(bus, slot) != Some(SlotState::Free) {
            self.slots.mark(slot);
            self.slots.pass(slot);
            self.state = State::Placing { placement };
            return None;
        }
        set(bus, SA_SCRATCH, PARAMETERS_OFFSET);
        let secrets = self.batch.address().wrapping_add(SaParameters::PUBLIC_BYTES as u64);
        set_wide(bus, SA_HOST_LOW, SA_HOST_HIGH, secrets);
        set(bus, SA_COMMAND, SaOperation::Install.number());
        self.state = State::Installing { slot };
        None
    }

    /// Looks which of the next slots the hardware has emptied by itself, because the host was gone when the
    /// command that installed them completed.
    pub(crate) fn compare(&mut self, bus: &mut impl Bus, first: u32, placement: Placement) -> Step {
        let end = first.saturating_add(SCAN_SLOTS).min(self.slots.count());
        for slot in first..end {
            if self.slots.contains(slot) && slot_state(bus, slot) == Some(SlotState::Free) {
                self.slots.free(slot);
            }
        }
        if end < self.slots.count() {
            self.state = State::Comparing { slot: end, placement };
            return None;
        }
        self.place(bus, placement)
    }

    /// The SA table is done with an install; [`SA_INDEX`] still names the slot.
    pub(crate) fn staged(&mut self, bus: &mut impl Bus, slot: u32, outcome: Option<Outcome>) -> Step {
        let state = SlotState::of_number(get(bus, SA_STATE));
        self.slots.pass(slot);
        if state == Some(SlotState::Free) {
            let refused = done(outcome, AdminStatus::NoFreeSlot).err();
            // Without a reason the outcome makes no sense.
            return self.refuse(bus, refused.unwrap_or(AdminStatus::Aborted));
        }
        // The slot was empty before, so whatever is there now is this command's to answer for.
        let number = self.batch.staged;
        let generation = get(bus, SA_GENERATION);
        self.slots.mark(slot);
        self.batch.push(InstalledSa::new().with_index(slot).with_generation(generation));
        if outcome != Some(Outcome::Ok) || state != Some(SlotState::Staged) || generation == 0 {
            return self.undo(bus, Refusal { status: AdminStatus::Aborted, result: u64::from(number) });
        }
        if self.batch.staged < self.batch.count {
            return self.fetch(bus);
        }
        let words = self.batch.installed.get(..self.batch.count as usize).unwrap_or(&[]);
        write_scratch(bus, REPLY_OFFSET, words);
        let bytes = (words.len() as u32).saturating_mul(u64::BITS / u8::BITS);
        transfer(bus, self.batch.reply, REPLY_OFFSET, bytes, DmaCommand::new().with_to_host(true));
        self.state = State::Telling;
        None
    }

    /// The reply is written: what is staged becomes valid with the completion.
    pub(crate) fn told(&mut self, bus: &mut impl Bus, outcome: Option<Outcome>) -> Step {
        match done(outcome, AdminStatus::Aborted) {
            Ok(()) => {
                self.compare = true;
                Some(Ok(0))
            }
            Err(status) => self.undo(bus, status.into()),
        }
    }

    /// Refuses the record at hand, and with it all others.
    fn refuse(&mut self, bus: &mut impl Bus, status: AdminStatus) -> Step {
        let result = u64::from(self.batch.staged);
        self.undo(bus, Refusal { status, result })
    }

    /// Deletes what is staged, then ends the command.
    fn undo(&mut self, bus: &mut impl Bus, refusal: Refusal) -> Step {
        let Some(slot) = self.batch.last() else { return Some(Err(refusal)) };
        remove(bus, slot);
        self.state = State::Undoing { refusal, tries: 1 };
        None
    }

    /// Looks at the delete of the slot that was staged last.
    pub(crate) fn undone(&mut self, bus: &mut impl Bus, refusal: Refusal, tries: u32) -> Step {
        match removal(bus, tries) {
            Removal::Busy => None,
            Removal::Again(tries) => {
                self.state = State::Undoing { refusal, tries };
                None
            }
            Removal::Failed => {
                self.state = State::Stopped;
                None
            }
            Removal::Done => {
                if let Some(slot) = self.batch.last() {
                    self.slots.free(slot);
                }
                self.batch.staged = self.batch.staged.saturating_sub(1);
                self.undo(bus, refusal)
            }
        }
    }
}
