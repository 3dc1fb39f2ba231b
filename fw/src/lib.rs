//! The management firmware: serves the admin queue over a small [`Bus`]. It decides which SA goes in which
//! slot, what is refused, when the PSP device key is rotated by itself, and how long the interrupt of the
//! event ring waits. Limits, events, replay, sequence numbers and keys are the hardware's alone, and the
//! datapath never waits for firmware.
//!
//! [`Firmware::run`] does one bounded piece of work and returns; it never waits for an engine. One command
//! is served at a time:
//!
//! ```text
//!  settle ─ scan ─┬─ idle ─┬─ parameters ─ (placing) ─ installing ─┬─ telling ─┐
//!    │            │   │    │     └─────────── next SA ─────────────┘           │
//!    └─ removing ─┘   │    │              (undoing) ── refused ────────────────┤
//!                     │    ├─ deleting, arming ────────────────────────────────┤
//!                     │    ├─ querying ─ replying ─────────────────────────────┼─ complete ─ idle
//!                     │    ├─ (rotating first) ─ deriving ─────────────────────┤
//!                     │    └─ replying ────────────────────────────────────────┘
//!                     └─ rotating ─ idle
//! ```
//!
//! While idle, before each look at the mailbox, firmware looks at the count of events and at the rotation
//! period that the host wants, so that a host that never stops asking puts off neither.
//!
//! # All or none
//! `sa_install` stages its SAs one by one; no packet uses a staged slot. The hardware makes all of them valid
//! at the one bus access that completes the command with `ok`. On a refusal every staged slot is deleted
//! before the command completes. Should the hardware not give one up, firmware stops: the next `ok` would make
//! it valid.
//!
//! Where the host turned its queue off meanwhile, the hardware empties the slots of such an `ok` again, and
//! firmware is not told. So before it says that no slot is free, it compares those that it takes for used with
//! the hardware, once for all installs that ended well before.
//!
//! # After a restart
//! Firmware may be started anew at any instruction while the hardware runs on.
//! 1. *Settle*: nothing happens until every engine is idle, so that nothing of the old firmware still writes
//!    to scratch memory or to a host buffer whose command is over.
//! 2. *Scan*: which slots are in use is read from the hardware. A staged slot is of an `sa_install` that did
//!    not complete: nobody will ever learn of it, so it is deleted.
//! 3. A command that the old firmware had begun (the mailbox's note says so) may have had effects, so it is
//!    never served again: it completes as `aborted`, after the scan. Only then the next one is served.
//! 4. Whether a rotation is due is read from the hardware right before it: one that the old firmware began is
//!    over by then, and is not made twice.
//!
//! What only firmware counted (commands, refusals, SPIs) begins at 0 again, and the interrupt of the event
//! ring is sent at once again.
//!
//! # Cost
//! Bus accesses of a command that ends well, from the first look at the mailbox to the completion:
//!
//! | command | accesses |
//! |---|---|
//! | `capabilities` | 37 |
//! | `statistics` | 43 |
//! | `sa_install` | 90 |
//! | `sa_delete` | 28 |
//! | `sa_query` | 34 |
//! | `sa_arm` | 29 |
//! | `psp_allocate` | 30 |
//! | `psp_rotate` | 27 |
//! | `psp_test_key_load` | 27 |
//! | `psp_test_iv_load` | 27 |
//!
//! Each further SA of an `sa_install` takes 61 more, and an allocation that rotates first takes 4 more.
//! A command refused by its form alone takes 23; a look at an empty mailbox takes 3, 8 with events and a
//! wanted period, and one at a busy engine 1. After a start, the scan takes 2 a slot,
//! and so does the comparison before a `no_free_slot`.

#![no_std]
#![forbid(unsafe_code)]
#![forbid(clippy::wildcard_imports)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod bus;
mod install;
mod moderation;
mod request;
mod restart;
mod rotation;
mod sa;
mod slots;

use cryptonic_regs::admin::{AdminStatus, CapabilityReply, Command, SaStateReply, StatisticsReply};
use cryptonic_regs::firmware::{
    DMA_STATUS, DmaCommand, MAILBOX_COMMAND, MAILBOX_COMPLETE, MAILBOX_NOTE, MAILBOX_RESULT_HIGH,
    MAILBOX_RESULT_LOW, MAILBOX_STATUS, MailboxNote, Outcome, PSP_STATUS, PspOperation, SA_COMMAND,
    SA_GENERATION, SA_HOST_HIGH, SA_HOST_LOW, SA_SCRATCH, SA_STATUS, SaOperation,
};

pub use bus::Bus;
pub use request::{SA_BATCH, SPIS_PER_COMMAND};
pub use slots::SLOTS_MAX;

use bus::{Engine, clock, engine, generation, get, read_words, set, set_wide, transfer, write_scratch};
use install::Batch;
use moderation::Moderation;
use request::Request;
use rotation::{Allocation, Look};
use sa::{Limits, Placement};
use slots::Slots;

/// Where parameter blocks go in scratch memory.
const PARAMETERS_OFFSET: u32 = 0;
/// Where replies are made in scratch memory.
const REPLY_OFFSET: u32 = 0x100;

/// When firmware wants to run again. To run it earlier, or for nothing, does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At the next arrival in the mailbox, completion of an engine, event of a ring that is on, or write of
    /// the host to the rotation period, one during the run included.
    OnEvent,
    /// After this time, or as for [`Wake::OnEvent`] if that is earlier; 0 is at once. Other times than 0 are
    /// asked for only while the host wants a rotation period (a second at most, so that a change is noticed
    /// soon) and while the interrupt of the event ring waits.
    After {
        /// How long.
        nanoseconds: u32,
    },
}

const AT_ONCE: Wake = Wake::After { nanoseconds: 0 };

/// What firmware waits for, or does next.
#[derive(Clone, Copy)]
enum State {
    /// Started; the engines may still work for the firmware before.
    Settle,
    /// Slots from here on are not known yet.
    Scan { slot: u32 },
    /// The SA table, with the delete of a slot that the firmware before had staged.
    Removing { slot: u32, tries: u32 },
    /// A command, or something to look after.
    Idle,
    /// The PSP key hardware, with a rotation that no command asked for.
    Rotating,
    /// The DMA of an SA's public words.
    Parameters,
    /// Another slot: the one tried was in use.
    Placing { placement: Placement },
    /// Nothing: no slot is known to be empty, and slots from here on are not compared with the hardware yet.
    Comparing { slot: u32, placement: Placement },
    /// The SA table, with an install.
    Installing { slot: u32 },
    /// The DMA of what was installed.
    Telling,
    /// The SA table, with the delete of a slot of a refused install.
    Undoing { refusal: Refusal, tries: u32 },
    /// The SA table, with a delete.
    Deleting { slot: u32 },
    /// The SA table, with a new soft limit.
    Arming,
    /// The SA table, with a query whose state goes to this address.
    Querying { reply: u64 },
    /// The PSP key hardware, with a rotation before an allocation.
    RotatingFirst { allocation: Allocation },
    /// The PSP key hardware, with what the command asks for.
    Deriving { operation: PspOperation, count: u32 },
    /// The DMA of a reply.
    Replying,
    /// Nothing any more: the SA table does not give up a staged slot.
    Stopped,
}

/// Why a command is refused, and its result.
#[derive(Clone, Copy)]
struct Refusal {
    status: AdminStatus,
    result: u64,
}

impl From<AdminStatus> for Refusal {
    fn from(status: AdminStatus) -> Self {
        Refusal { status, result: 0 }
    }
}

/// A command that needs no more waiting: its result, or why it is refused.
type Ended = Result<u64, Refusal>;

/// A step of a command: `None` while it goes on.
type Step = Option<Ended>;

/// The firmware: what it knows between two runs.
pub struct Firmware {
    state: State,
    slots: Slots,
    limits: Limits,
    batch: Batch,
    moderation: Moderation,
    /// SAs were installed since the slots were compared with the hardware.
    compare: bool,
    /// Device time in milliseconds when firmware last rotated by itself.
    rotated_ms: Option<u32>,
    /// The command in the mailbox was begun by the firmware before.
    interrupted: bool,
    commands: u64,
    refusals: u64,
    spis_allocated: u64,
}

impl Default for Firmware {
    fn default() -> Self {
        Firmware::new()
    }
}

impl Firmware {
    /// Major version in bits 31:16, minor in bits 15:0.
    pub const VERSION: u32 = 0x0000_0001;

    /// Firmware as it is after a start or restart.
    pub const fn new() -> Self {
        Firmware {
            state: State::Settle,
            slots: Slots::new(),
            limits: Limits { replay_window_max: 0, queue_pairs: 0 },
            batch: Batch::new(0, 0, 0),
            moderation: Moderation::new(),
            compare: false,
            rotated_ms: None,
            interrupted: false,
            commands: 0,
            refusals: 0,
            spis_allocated: 0,
        }
    }

    /// Whether firmware takes an SA slot for used.
    pub fn slot_in_use(&self, slot: u32) -> bool {
        self.slots.contains(slot)
    }

    /// Does one bounded piece of work and says when to run again.
    pub fn run(&mut self, bus: &mut impl Bus) -> Wake {
        let step = match self.state {
            State::Settle => return self.settle(bus),
            State::Scan { slot } => return self.scan(bus, slot),
            State::Removing { slot, tries } => return self.removing(bus, slot, tries),
            State::Stopped => return Wake::OnEvent,
            State::Idle => match self.look_after(bus) {
                Some(wake) => return wake,
                None => self.begin(bus),
            },
            State::Rotating => {
                // Whatever came of it: the key that is active now says when the next one is due.
                let Engine::Done(_) = engine(bus, PSP_STATUS) else { return Wake::OnEvent };
                self.state = State::Idle;
                return AT_ONCE;
            }
            State::Placing { placement } => self.place(bus, placement),
            State::Comparing { slot, placement } => self.compare(bus, slot, placement),
            State::Undoing { refusal, tries } => self.undone(bus, refusal, tries),
            State::Parameters | State::Telling | State::Replying => {
                let Engine::Done(outcome) = engine(bus, DMA_STATUS) else { return Wake::OnEvent };
                self.transferred(bus, outcome)
            }
            State::Installing { .. } | State::Deleting { .. } | State::Arming | State::Querying { .. } => {
                let Engine::Done(outcome) = engine(bus, SA_STATUS) else { return Wake::OnEvent };
                self.sa_table_done(bus, outcome)
            }
            State::RotatingFirst { allocation } => {
                let Engine::Done(outcome) = engine(bus, PSP_STATUS) else { return Wake::OnEvent };
                self.rotated_first(bus, allocation, outcome)
            }
            State::Deriving { operation, count } => {
                let Engine::Done(outcome) = engine(bus, PSP_STATUS) else { return Wake::OnEvent };
                Some(self.derived(bus, operation, count, outcome))
            }
        };
        if let Some(ended) = step {
            self.complete(bus, ended);
            self.state = State::Idle;
        }
        match self.state {
            State::Placing { .. } | State::Comparing { .. } | State::Idle => AT_ONCE,
            _ => Wake::OnEvent,
        }
    }

    /// Looks at events, the rotation period and the mailbox: when to look again, or `None` if there is a
    /// command.
    fn look_after(&mut self, bus: &mut impl Bus) -> Option<Wake> {
        let moderation = self.moderation.look(bus);
        let rotation = match self.look_at_period(bus) {
            Look::Rotating => return Some(Wake::OnEvent),
            Look::NotDue(nanoseconds) => nanoseconds,
        };
        if get(bus, MAILBOX_STATUS).pending() {
            return None;
        }
        let soonest = [moderation, rotation].into_iter().flatten().min();
        Some(soonest.map_or(Wake::OnEvent, |nanoseconds| Wake::After { nanoseconds }))
    }

    /// Takes the command in the mailbox and starts what it asks for.
    fn begin(&mut self, bus: &mut impl Bus) -> Step {
        // From here on the command is never begun again, whatever becomes of this firmware.
        set(bus, MAILBOX_NOTE, MailboxNote::new().with_taken(true));
        self.commands = self.commands.wrapping_add(1);
        let mut words = [0; Command::WORDS];
        read_words(bus, MAILBOX_COMMAND.offset, &mut words);
        let request = match Request::check(&Command::of_words(&words)) {
            Ok(request) => request,
            Err(status) => return Some(Err(status.into())),
        };
        match request {
            Request::Capabilities { reply } => {
                let words = CapabilityReply {
                    spis_per_command: u64::from(SPIS_PER_COMMAND),
                    sa_slots: u64::from(self.slots.count()),
                    firmware_version: u64::from(Firmware::VERSION),
                    replay_window_max: u64::from(self.limits.replay_window_max),
                };
                self.reply_with(bus, reply, &words.to_words())
            }
            Request::Statistics { reply } => {
                let words = StatisticsReply {
                    commands: self.commands,
                    refusals: self.refusals,
                    sa_slots_used: u64::from(self.slots.in_use()),
                    sa_slots: u64::from(self.slots.count()),
                    spis_allocated: self.spis_allocated,
                    time_picoseconds: clock(bus),
                };
                self.reply_with(bus, reply, &words.to_words())
            }
            Request::SaInstall { count, parameters, reply } => {
                self.install(bus, Batch::new(count, parameters, reply))
            }
            Request::SaDelete { slot, generation } => {
                if !self.is_installed(bus, slot, generation) {
                    return Some(Err(AdminStatus::NoSuchSa.into()));
                }
                set(bus, SA_COMMAND, SaOperation::Delete.number());
                self.state = State::Deleting { slot };
                None
            }
            Request::SaQuery { slot, generation, reply } => {
                if !self.is_installed(bus, slot, generation) {
                    return Some(Err(AdminStatus::NoSuchSa.into()));
                }
                set(bus, SA_SCRATCH, REPLY_OFFSET);
                set(bus, SA_COMMAND, SaOperation::Query.number());
                self.state = State::Querying { reply };
                None
            }
            Request::SaArm { slot, generation, soft_limit } => {
                if !self.is_installed(bus, slot, generation) {
                    return Some(Err(AdminStatus::NoSuchSa.into()));
                }
                set_wide(bus, SA_HOST_LOW, SA_HOST_HIGH, soft_limit);
                set(bus, SA_COMMAND, SaOperation::Arm.number());
                self.state = State::Arming;
                None
            }
            Request::PspAllocate { count, version, reply } => {
                self.allocate(bus, Allocation { count, version, reply })
            }
            Request::PspRotate => self.rotate_by_command(bus),
            Request::PspTestKeyLoad { parameters } => {
                self.operate(bus, PspOperation::TestKeyLoad, 0, parameters)
            }
            Request::PspTestIvLoad { iv } => self.operate(bus, PspOperation::TestIvLoad, 0, iv),
        }
    }

    /// Leaves slot `slot` in [`SA_INDEX`](cryptonic_regs::firmware::SA_INDEX).
    fn is_installed(&self, bus: &mut impl Bus, slot: u32, expected: u32) -> bool {
        expected != 0 && slot < self.slots.count() && generation(bus, slot) == expected
    }

    fn reply_with(&mut self, bus: &mut impl Bus, reply: u64, words: &[u64]) -> Step {
        write_scratch(bus, REPLY_OFFSET, words);
        self.state = State::Replying;
        let bytes = (words.len() as u32).saturating_mul(u64::BITS / u8::BITS);
        transfer(bus, reply, REPLY_OFFSET, bytes, DmaCommand::new().with_to_host(true));
        None
    }

    /// The DMA engine is done.
    fn transferred(&mut self, bus: &mut impl Bus, outcome: Option<Outcome>) -> Step {
        match self.state {
            State::Parameters => self.fetched(bus, outcome),
            State::Telling => self.told(bus, outcome),
            _ => Some(done(outcome, AdminStatus::Aborted).map(|()| 0).map_err(Refusal::from)),
        }
    }

    /// The SA table is done; [`SA_INDEX`](cryptonic_regs::firmware::SA_INDEX) still names the slot.
    fn sa_table_done(&mut self, bus: &mut impl Bus, outcome: Option<Outcome>) -> Step {
        match self.state {
            State::Installing { slot } => self.staged(bus, slot, outcome),
            State::Deleting { slot } => {
                if get(bus, SA_GENERATION) == 0 {
                    self.slots.free(slot);
                } else if outcome == Some(Outcome::Ok) {
                    // The outcome makes no sense.
                    return Some(Err(AdminStatus::Aborted.into()));
                }
                Some(done(outcome, AdminStatus::NoSuchSa).map(|()| 0).map_err(Refusal::from))
            }
            // The SA was found before, so what is wrong with its state is that it has expired: no limit can
            // be armed any more.
            State::Arming => Some(done(outcome, AdminStatus::BadArgument).map(|()| 0).map_err(Refusal::from)),
            State::Querying { reply } => match done(outcome, AdminStatus::NoSuchSa) {
                Ok(()) => {
                    self.state = State::Replying;
                    let bytes = SaStateReply::BYTES as u32;
                    transfer(bus, reply, REPLY_OFFSET, bytes, DmaCommand::new().with_to_host(true));
                    None
                }
                Err(status) => Some(Err(status.into())),
            },
            _ => Some(Err(AdminStatus::Aborted.into())),
        }
    }

    fn complete(&mut self, bus: &mut impl Bus, ended: Ended) {
        let (status, result) = match ended {
            Ok(result) => (AdminStatus::Ok, result),
            Err(refusal) => (refusal.status, refusal.result),
        };
        if status != AdminStatus::Ok {
            self.refusals = self.refusals.wrapping_add(1);
        }
        set_wide(bus, MAILBOX_RESULT_LOW, MAILBOX_RESULT_HIGH, result);
        set(bus, MAILBOX_COMPLETE, status.number());
    }
}

/// What an outcome means for the command. An outcome that the contract does not define says nothing of what
/// was done: the command was cut short.
fn done(outcome: Option<Outcome>, wrong_state: AdminStatus) -> Result<(), AdminStatus> {
    match outcome {
        Some(Outcome::Ok) => Ok(()),
        Some(Outcome::DmaFault) => Err(AdminStatus::BadAddress),
        Some(Outcome::DuplicateSpi) => Err(AdminStatus::DuplicateSpi),
        Some(Outcome::WrongState) => Err(wrong_state),
        Some(Outcome::NoSpiLeft) => Err(AdminStatus::NoSpiLeft),
        Some(Outcome::Locked) => Err(AdminStatus::Locked),
        Some(Outcome::BadArgument) => Err(AdminStatus::BadArgument),
        None => Err(AdminStatus::Aborted),
    }
}
