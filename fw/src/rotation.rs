//! The PSP key hardware: allocation, rotation, and when the device rotates by itself.
//!
//! A rotation puts a fresh key in place of the older one of two, so two of them in a row take the key that
//! peers send with. None is made without need: whether one is due is read from the hardware (the age of the
//! active key, the SPIs it has left) right before, and nothing that firmware remembers, or forgets in a
//! restart, can cause one. What it remembers can only put one off: the next look comes not before the
//! period or [`STEP_MS`] is over, even if the last rotation failed.

use cryptonic_regs::admin::AdminStatus;
use cryptonic_regs::events::EventCause;
use cryptonic_regs::firmware::{
    Outcome, PSP_COMMAND, PSP_COUNT, PSP_GENERATION, PSP_HOST_HIGH, PSP_HOST_LOW, PSP_KEY_MADE_MS,
    PSP_REMAINING, PSP_VERSION, PSP_WANTED_PERIOD_MS, PSP_WANTED_ROTATION, PspOperation,
};

use crate::bus::{Bus, clock, get, set, set_wide};
use crate::{Ended, Firmware, State, Step, done};

/// The longest time in milliseconds to the next look while a period is wanted, so that a change of it is
/// noticed soon.
const STEP_MS: u32 = 1000;
/// The longest period: ages are modulo 2^32, and this one cannot pass between two looks.
const PERIOD_MAX_MS: u32 = u32::MAX - 60_000;
/// [`PSP_KEY_MADE_MS`] while no key is valid.
const NO_KEY: u32 = u32::MAX;
const PICOSECONDS_PER_MS: u64 = 1_000_000_000;
const NANOSECONDS_PER_MS: u32 = 1_000_000;

/// What became of a look at the age of the active key.
pub enum Look {
    /// A rotation began.
    Rotating,
    /// None is due; nanoseconds to the next look, if a period is wanted.
    NotDue(Option<u32>),
}

/// An allocation that is to be made.
#[derive(Clone, Copy)]
pub struct Allocation {
    pub count: u32,
    pub version: u32,
    pub reply: u64,
}

impl Firmware {
    /// Rotates if a period is wanted and the active key is as old, or there is none.
    pub(crate) fn look_at_period(&mut self, bus: &mut impl Bus) -> Look {
        let period = get(bus, PSP_WANTED_PERIOD_MS).min(PERIOD_MAX_MS);
        if period == 0 {
            return Look::NotDue(None);
        }
        let made = get(bus, PSP_KEY_MADE_MS);
        let now = (clock(bus) / PICOSECONDS_PER_MS) as u32;
        let wait = match self.rotated_ms {
            Some(last) => period.min(STEP_MS).saturating_sub(now.wrapping_sub(last)),
            None => 0,
        };
        let left = if made == NO_KEY { 0 } else { period.saturating_sub(now.wrapping_sub(made)) };
        let left = left.max(wait);
        if left > 0 {
            return Look::NotDue(Some(left.min(STEP_MS).saturating_mul(NANOSECONDS_PER_MS)));
        }
        self.rotated_ms = Some(now);
        rotate(bus, EventCause::PspRotatedByPeriod);
        self.state = State::Rotating;
        Look::Rotating
    }

    /// Allocates, after a rotation if too few SPIs are left and the host wants it so.
    pub(crate) fn allocate(&mut self, bus: &mut impl Bus, allocation: Allocation) -> Step {
        let few = get(bus, PSP_WANTED_ROTATION).on_exhaustion() && get(bus, PSP_REMAINING) < allocation.count;
        if few {
            rotate(bus, EventCause::PspRotatedByExhaustion);
            self.state = State::RotatingFirst { allocation };
            None
        } else {
            self.derive_keys(bus, allocation)
        }
    }

    /// The rotation before an allocation is done. There is one in a command at most.
    pub(crate) fn rotated_first(
        &mut self,
        bus: &mut impl Bus,
        allocation: Allocation,
        outcome: Option<Outcome>,
    ) -> Step {
        match done(outcome, AdminStatus::Aborted) {
            Ok(()) => self.derive_keys(bus, allocation),
            Err(status) => Some(Err(status.into())),
        }
    }

    fn derive_keys(&mut self, bus: &mut impl Bus, allocation: Allocation) -> Step {
        set(bus, PSP_VERSION, allocation.version);
        set(bus, PSP_COUNT, allocation.count);
        self.operate(bus, PspOperation::Allocate, allocation.count, allocation.reply)
    }

    pub(crate) fn rotate_by_command(&mut self, bus: &mut impl Bus) -> Step {
        rotate(bus, EventCause::PspRotatedByCommand);
        self.state = State::Deriving { operation: PspOperation::Rotate, count: 0 };
        None
    }

    /// Starts an operation that has an operand.
    pub(crate) fn operate(
        &mut self,
        bus: &mut impl Bus,
        operation: PspOperation,
        count: u32,
        operand: u64,
    ) -> Step {
        set_wide(bus, PSP_HOST_LOW, PSP_HOST_HIGH, operand);
        set(bus, PSP_COMMAND, operation.number());
        self.state = State::Deriving { operation, count };
        None
    }

    /// The PSP key hardware is done.
    pub(crate) fn derived(
        &mut self,
        bus: &mut impl Bus,
        operation: PspOperation,
        count: u32,
        outcome: Option<Outcome>,
    ) -> Ended {
        match (operation, done(outcome, AdminStatus::Aborted)) {
            // Count and place were checked before: what is left is a version that this device lacks.
            (PspOperation::Allocate, Err(AdminStatus::BadArgument)) => Err(AdminStatus::Unsupported.into()),
            (_, Err(status)) => Err(status.into()),
            (PspOperation::Allocate, Ok(())) => {
                self.spis_allocated = self.spis_allocated.wrapping_add(u64::from(count));
                Ok(u64::from(count))
            }
            (PspOperation::Rotate, Ok(())) => Ok(u64::from(get(bus, PSP_GENERATION))),
            (PspOperation::TestKeyLoad | PspOperation::TestIvLoad, Ok(())) => Ok(0),
        }
    }
}

fn rotate(bus: &mut impl Bus, cause: EventCause) {
    set(bus, PSP_COUNT, cause.number());
    set(bus, PSP_COMMAND, PspOperation::Rotate.number());
}
