//! The management firmware: serves the admin queue over a small [`Bus`]. It decides which SA goes in which
//! slot and what is refused; limits, replay, sequence numbers and keys are the hardware's alone, and the
//! datapath never waits for firmware.
//!
//! [`Firmware::run`] does one bounded piece of work and returns; it never waits for an engine. One command
//! is served at a time:
//!
//! ```text
//!  settle ─ scan ─┬─ idle ─┬─ parameters ─ (placing) ─ installing ─┐
//!    │            │        ├─ deleting ────────────────────────────┤
//!    └─ removing ─┘        ├─ querying ─ replying ─────────────────┼─ complete ─ idle
//!                          ├─ deriving ────────────────────────────┤
//!                          └─ replying ────────────────────────────┘
//! ```
//!
//! # After a restart
//! Firmware may be started anew at any instruction while the hardware runs on.
//! 1. *Settle*: nothing happens until every engine is idle, so that nothing of the old firmware still writes
//!    to scratch memory or to a host buffer whose command is over.
//! 2. A command that the old firmware had begun (the mailbox's note says so) may have had effects, so it is
//!    never served again: it completes as `aborted`. If it was installing an SA whose slot is now full, nobody
//!    will ever learn of that slot: the SA is removed first.
//! 3. *Scan*: which slots are in use is read from the hardware, before the first command is served.
//!
//! What only firmware counted (commands, refusals, SPIs) begins at 0 again.
//!
//! # Cost
//! Bus accesses of a command that ends well, from the first look at the mailbox to the completion:
//!
//! | command | accesses |
//! |---|---|
//! | `capabilities` | 35 |
//! | `statistics` | 41 |
//! | `sa_install` | 72 |
//! | `sa_delete` | 26 |
//! | `sa_query` | 32 |
//! | `psp_allocate` | 27 |
//! | `psp_rotate` | 24 |
//! | `psp_test_key_load` | 25 |
//! | `psp_test_iv_load` | 25 |
//!
//! A command refused by its form alone takes 21; a look at an empty mailbox or a busy engine takes one.
//! After a start, the scan takes two a slot.

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
mod request;
mod sa;
mod slots;

use cryptonic_regs::admin::{
    AdminStatus, CapabilityReply, Command, SaParameters, SaStateReply, StatisticsReply,
};
use cryptonic_regs::firmware::{
    CLOCK_HIGH, CLOCK_LOW, DMA_BYTES, DMA_COMMAND, DMA_HOST_HIGH, DMA_HOST_LOW, DMA_SCRATCH, DMA_STATUS,
    DmaCommand, MAILBOX_COMMAND, MAILBOX_COMPLETE, MAILBOX_NOTE, MAILBOX_RESULT_HIGH, MAILBOX_RESULT_LOW,
    MAILBOX_STATUS, MailboxNote, Outcome, PSP_COMMAND, PSP_COUNT, PSP_GENERATION, PSP_HOST_HIGH,
    PSP_HOST_LOW, PSP_STATUS, PSP_VERSION, PspOperation, SA_COMMAND, SA_GENERATION, SA_HOST_HIGH,
    SA_HOST_LOW, SA_INDEX, SA_QUEUE_PAIRS, SA_REPLAY_WINDOW_MAX, SA_SCRATCH, SA_SLOT_COUNT, SA_STATUS,
    SCRATCH_ADDRESS, SaOperation,
};

pub use bus::Bus;
pub use request::SPIS_PER_COMMAND;
pub use slots::SLOTS_MAX;

use bus::{Engine, engine, get, read_words, set, set_wide, write_scratch};
use request::Request;
use sa::Limits;
use slots::Slots;

/// Where parameter blocks go in scratch memory.
const PARAMETERS_OFFSET: u32 = 0;
/// Where replies are made in scratch memory.
const REPLY_OFFSET: u32 = 0x100;
/// Slots that one run of the scan looks at.
const SCAN_SLOTS: u32 = 128;

/// When firmware wants to run again. To run it earlier, or for nothing, does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At the next arrival in the mailbox or completion of an engine, one during the run included.
    OnEvent,
    /// After this time; 0 is at once.
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
    /// An SA that nobody will learn of is being deleted.
    Removing,
    /// Slots from here on are not known yet.
    Scan { slot: u32 },
    /// A command.
    Idle,
    /// The DMA of an SA's public words; the block is at this address.
    Parameters { address: u64 },
    /// Another slot: the one tried was in use.
    Placing { address: u64 },
    /// The SA table, with an install.
    Installing { slot: u32 },
    /// The SA table, with a delete.
    Deleting { slot: u32 },
    /// The SA table, with a query whose state goes to this address.
    Querying { reply: u64 },
    /// The PSP key hardware.
    Deriving { operation: PspOperation, count: u32 },
    /// The DMA of a reply.
    Replying,
}

/// A command that needs no more waiting: its result, or why it is refused.
type Ended = Result<u64, AdminStatus>;

/// A step of a command: `None` while it goes on.
type Step = Option<Ended>;

/// The firmware: what it knows between two runs.
pub struct Firmware {
    state: State,
    slots: Slots,
    limits: Limits,
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
            State::Removing => return self.removing(bus),
            State::Scan { slot } => return self.scan(bus, slot),
            State::Idle => {
                if !get(bus, MAILBOX_STATUS).pending() {
                    return Wake::OnEvent;
                }
                self.begin(bus)
            }
            State::Placing { address } => self.place(bus, address),
            State::Parameters { .. } | State::Replying => {
                let Engine::Done(outcome) = engine(bus, DMA_STATUS) else { return Wake::OnEvent };
                self.transferred(bus, outcome)
            }
            State::Installing { .. } | State::Deleting { .. } | State::Querying { .. } => {
                let Engine::Done(outcome) = engine(bus, SA_STATUS) else { return Wake::OnEvent };
                self.sa_table_done(bus, outcome)
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
            State::Placing { .. } | State::Scan { .. } => AT_ONCE,
            _ => Wake::OnEvent,
        }
    }

    /// Waits until no engine works for the firmware before, then ends the command it had begun.
    fn settle(&mut self, bus: &mut impl Bus) -> Wake {
        for status in [DMA_STATUS, SA_STATUS, PSP_STATUS] {
            if let Engine::Busy = engine(bus, status) {
                return Wake::OnEvent;
            }
        }
        self.slots.reset(get(bus, SA_SLOT_COUNT));
        self.limits = Limits {
            replay_window_max: get(bus, SA_REPLAY_WINDOW_MAX),
            queue_pairs: get(bus, SA_QUEUE_PAIRS),
        };
        self.state = State::Scan { slot: 0 };
        if !get(bus, MAILBOX_STATUS).pending() {
            return AT_ONCE;
        }
        let note = get(bus, MAILBOX_NOTE);
        if !note.taken() {
            return AT_ONCE;
        }
        self.commands = self.commands.wrapping_add(1);
        if note.installing() {
            self.abandon(bus, u32::from(note.slot()))
        } else {
            self.complete(bus, Err(AdminStatus::Aborted));
            AT_ONCE
        }
    }

    /// Ends an install whose outcome is not known: the slot was empty before, so what is there now is the
    /// SA of this command.
    fn abandon(&mut self, bus: &mut impl Bus, slot: u32) -> Wake {
        if generation(bus, slot) == 0 {
            self.complete(bus, Err(AdminStatus::Aborted));
            self.state = State::Scan { slot: 0 };
            return AT_ONCE;
        }
        set(bus, SA_COMMAND, SaOperation::Delete.number());
        self.state = State::Removing;
        Wake::OnEvent
    }

    fn removing(&mut self, bus: &mut impl Bus) -> Wake {
        if let Engine::Busy = engine(bus, SA_STATUS) {
            return Wake::OnEvent;
        }
        self.complete(bus, Err(AdminStatus::Aborted));
        self.state = State::Scan { slot: 0 };
        AT_ONCE
    }

    fn scan(&mut self, bus: &mut impl Bus, first: u32) -> Wake {
        let end = first.saturating_add(SCAN_SLOTS).min(self.slots.count());
        for slot in first..end {
            if generation(bus, slot) == 0 {
                self.slots.free(slot);
            } else {
                self.slots.mark(slot);
            }
        }
        self.state = if end < self.slots.count() { State::Scan { slot: end } } else { State::Idle };
        AT_ONCE
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
            Err(status) => return Some(Err(status)),
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
                let low = get(bus, CLOCK_LOW);
                let high = get(bus, CLOCK_HIGH);
                let words = StatisticsReply {
                    commands: self.commands,
                    refusals: self.refusals,
                    sa_slots_used: u64::from(self.slots.in_use()),
                    sa_slots: u64::from(self.slots.count()),
                    spis_allocated: self.spis_allocated,
                    time_picoseconds: u64::from(high) << 32 | u64::from(low),
                };
                self.reply_with(bus, reply, &words.to_words())
            }
            Request::SaInstall { parameters } => {
                self.state = State::Parameters { address: parameters };
                let bytes = SaParameters::PUBLIC_BYTES as u32;
                transfer(bus, parameters, PARAMETERS_OFFSET, bytes, DmaCommand::new())
            }
            Request::SaDelete { slot, generation } => {
                if !self.is_installed(bus, slot, generation) {
                    return Some(Err(AdminStatus::NoSuchSa));
                }
                set(bus, SA_COMMAND, SaOperation::Delete.number());
                self.state = State::Deleting { slot };
                None
            }
            Request::SaQuery { slot, generation, reply } => {
                if !self.is_installed(bus, slot, generation) {
                    return Some(Err(AdminStatus::NoSuchSa));
                }
                set(bus, SA_SCRATCH, REPLY_OFFSET);
                set(bus, SA_COMMAND, SaOperation::Query.number());
                self.state = State::Querying { reply };
                None
            }
            Request::PspAllocate { count, version, reply } => {
                set(bus, PSP_VERSION, version);
                set(bus, PSP_COUNT, count);
                self.derive(bus, PspOperation::Allocate, count, Some(reply))
            }
            Request::PspRotate => self.derive(bus, PspOperation::Rotate, 0, None),
            Request::PspTestKeyLoad { parameters } => {
                self.derive(bus, PspOperation::TestKeyLoad, 0, Some(parameters))
            }
            Request::PspTestIvLoad { iv } => self.derive(bus, PspOperation::TestIvLoad, 0, Some(iv)),
        }
    }

    /// Leaves slot `slot` in [`SA_INDEX`].
    fn is_installed(&self, bus: &mut impl Bus, slot: u32, expected: u32) -> bool {
        expected != 0 && slot < self.slots.count() && generation(bus, slot) == expected
    }

    fn derive(
        &mut self,
        bus: &mut impl Bus,
        operation: PspOperation,
        count: u32,
        operand: Option<u64>,
    ) -> Step {
        if let Some(operand) = operand {
            set_wide(bus, PSP_HOST_LOW, PSP_HOST_HIGH, operand);
        }
        set(bus, PSP_COMMAND, operation.number());
        self.state = State::Deriving { operation, count };
        None
    }

    fn reply_with(&mut self, bus: &mut impl Bus, reply: u64, words: &[u64]) -> Step {
        write_scratch(bus, REPLY_OFFSET, words);
        self.state = State::Replying;
        let bytes = (words.len() as u32).saturating_mul(u64::BITS / u8::BITS);
        transfer(bus, reply, REPLY_OFFSET, bytes, DmaCommand::new().with_to_host(true))
    }

    /// The DMA engine is done.
    fn transferred(&mut self, bus: &mut impl Bus, outcome: Option<Outcome>) -> Step {
        if let Err(status) = done(outcome, AdminStatus::Aborted) {
            return Some(Err(status));
        }
        let State::Parameters { address } = self.state else { return Some(Ok(0)) };
        // The secret words stay 0: firmware never sees them.
        let mut words = [0; SaParameters::WORDS];
        if let Some(public) = words.get_mut(..SaParameters::PUBLIC_WORDS) {
            read_words(bus, SCRATCH_ADDRESS.wrapping_add(PARAMETERS_OFFSET), public);
        }
        match sa::check(&SaParameters::of_words(&words), &self.limits) {
            Ok(()) => self.place(bus, address),
            Err(status) => Some(Err(status)),
        }
    }

    /// Installs the SA whose public words are in scratch memory in a slot that is empty.
    fn place(&mut self, bus: &mut impl Bus, address: u64) -> Step {
        let Some(slot) = self.slots.find() else { return Some(Err(AdminStatus::NoFreeSlot)) };
        if generation(bus, slot) != 0 {
            self.slots.mark(slot);
            self.slots.pass(slot);
            self.state = State::Placing { address };
            return None;
        }
        let note = MailboxNote::new().with_taken(true).with_installing(true).with_slot(slot as u16);
        set(bus, MAILBOX_NOTE, note);
        set(bus, SA_SCRATCH, PARAMETERS_OFFSET);
        let secrets = address.wrapping_add(SaParameters::PUBLIC_BYTES as u64);
        set_wide(bus, SA_HOST_LOW, SA_HOST_HIGH, secrets);
        set(bus, SA_COMMAND, SaOperation::Install.number());
        self.state = State::Installing { slot };
        None
    }

    /// The SA table is done; [`SA_INDEX`] still names the slot.
    fn sa_table_done(&mut self, bus: &mut impl Bus, outcome: Option<Outcome>) -> Step {
        match self.state {
            State::Installing { slot } => {
                let installed = get(bus, SA_GENERATION);
                if outcome.is_none() || (outcome == Some(Outcome::Ok)) != (installed != 0) {
                    // The outcome makes no sense.
                    self.abandon(bus, slot);
                    return None;
                }
                self.slots.pass(slot);
                Some(done(outcome, AdminStatus::NoFreeSlot).map(|()| {
                    self.slots.mark(slot);
                    u64::from(installed) << 32 | u64::from(slot)
                }))
            }
            State::Deleting { slot } => {
                if get(bus, SA_GENERATION) == 0 {
                    self.slots.free(slot);
                } else if outcome == Some(Outcome::Ok) {
                    // The outcome makes no sense.
                    return Some(Err(AdminStatus::Aborted));
                }
                Some(done(outcome, AdminStatus::NoSuchSa).map(|()| 0))
            }
            State::Querying { reply } => match done(outcome, AdminStatus::NoSuchSa) {
                Ok(()) => {
                    self.state = State::Replying;
                    let bytes = SaStateReply::BYTES as u32;
                    transfer(bus, reply, REPLY_OFFSET, bytes, DmaCommand::new().with_to_host(true))
                }
                Err(status) => Some(Err(status)),
            },
            _ => Some(Err(AdminStatus::Aborted)),
        }
    }

    /// The PSP key hardware is done.
    fn derived(
        &mut self,
        bus: &mut impl Bus,
        operation: PspOperation,
        count: u32,
        outcome: Option<Outcome>,
    ) -> Ended {
        match (operation, done(outcome, AdminStatus::Aborted)) {
            // Count and place were checked before: what is left is a version that this device lacks.
            (PspOperation::Allocate, Err(AdminStatus::BadArgument)) => Err(AdminStatus::Unsupported),
            (_, Err(status)) => Err(status),
            (PspOperation::Allocate, Ok(())) => {
                self.spis_allocated = self.spis_allocated.wrapping_add(u64::from(count));
                Ok(u64::from(count))
            }
            (PspOperation::Rotate, Ok(())) => Ok(u64::from(get(bus, PSP_GENERATION))),
            (PspOperation::TestKeyLoad | PspOperation::TestIvLoad, Ok(())) => Ok(0),
        }
    }

    fn complete(&mut self, bus: &mut impl Bus, ended: Ended) {
        let (status, result) = match ended {
            Ok(result) => (AdminStatus::Ok, result),
            Err(status) => (status, 0),
        };
        if status != AdminStatus::Ok {
            self.refusals = self.refusals.wrapping_add(1);
        }
        set_wide(bus, MAILBOX_RESULT_LOW, MAILBOX_RESULT_HIGH, result);
        set(bus, MAILBOX_COMPLETE, status.number());
    }
}

/// The generation of a slot, which stays in [`SA_INDEX`].
fn generation(bus: &mut impl Bus, slot: u32) -> u32 {
    set(bus, SA_INDEX, slot);
    get(bus, SA_GENERATION)
}

fn transfer(bus: &mut impl Bus, host: u64, scratch: u32, bytes: u32, command: DmaCommand) -> Step {
    set_wide(bus, DMA_HOST_LOW, DMA_HOST_HIGH, host);
    set(bus, DMA_SCRATCH, scratch);
    set(bus, DMA_BYTES, bytes);
    set(bus, DMA_COMMAND, command);
    None
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
