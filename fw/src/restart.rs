//! From a start to the first command, whatever the firmware before was doing.

use cryptonic_regs::admin::AdminStatus;
use cryptonic_regs::events::SlotState;
use cryptonic_regs::firmware::{
    DMA_STATUS, MAILBOX_NOTE, MAILBOX_STATUS, PSP_STATUS, SA_PACKET_SLOT_COUNT, SA_QUEUE_PAIRS,
    SA_REPLAY_WINDOW_MAX, SA_SLOT_COUNT, SA_STATUS,
};

use crate::bus::{Bus, Engine, engine, get, slot_state};
use crate::install::{Removal, removal, remove};
use crate::sa::Limits;
use crate::{AT_ONCE, Firmware, State, Wake};

/// Slots that one run of the scan looks at.
pub const SCAN_SLOTS: u32 = 128;

impl Firmware {
    /// Waits until no engine works for the firmware before, then learns what hardware this is.
    pub(crate) fn settle(&mut self, bus: &mut impl Bus) -> Wake {
        for status in [DMA_STATUS, SA_STATUS, PSP_STATUS] {
            if let Engine::Busy = engine(bus, status) {
                return Wake::OnEvent;
            }
        }
        let (count, packet_slots) = (get(bus, SA_SLOT_COUNT), get(bus, SA_PACKET_SLOT_COUNT));
        self.slots.reset(count, packet_slots);
        self.limits = Limits {
            replay_window_max: get(bus, SA_REPLAY_WINDOW_MAX),
            queue_pairs: get(bus, SA_QUEUE_PAIRS),
        };
        self.compare = true;
        self.moderation.reset(bus);
        self.interrupted = get(bus, MAILBOX_STATUS).pending() && get(bus, MAILBOX_NOTE).taken();
        self.state = State::Scan { slot: 0 };
        AT_ONCE
    }

    /// Looks at the next slots. A staged one is of a command that will never end well: it is deleted.
    pub(crate) fn scan(&mut self, bus: &mut impl Bus, first: u32) -> Wake {
        let end = first.saturating_add(SCAN_SLOTS).min(self.slots.count());
        for slot in first..end {
            match slot_state(bus, slot) {
                Some(SlotState::Free) => {}
                Some(SlotState::Staged) => {
                    remove(bus, slot);
                    self.state = State::Removing { slot, tries: 1 };
                    return Wake::OnEvent;
                }
                _ => self.slots.mark(slot),
            }
        }
        if end < self.slots.count() {
            self.state = State::Scan { slot: end };
            return AT_ONCE;
        }
        if self.interrupted {
            self.commands = self.commands.wrapping_add(1);
            self.complete(bus, Err(AdminStatus::Aborted.into()));
        }
        self.state = State::Idle;
        AT_ONCE
    }

    /// Looks at the delete of a slot that was staged.
    pub(crate) fn removing(&mut self, bus: &mut impl Bus, slot: u32, tries: u32) -> Wake {
        match removal(bus, tries) {
            Removal::Busy => Wake::OnEvent,
            Removal::Done => {
                self.state = State::Scan { slot: slot.saturating_add(1) };
                AT_ONCE
            }
            Removal::Again(tries) => {
                self.state = State::Removing { slot, tries };
                Wake::OnEvent
            }
            Removal::Failed => {
                self.state = State::Stopped;
                Wake::OnEvent
            }
        }
    }
}
