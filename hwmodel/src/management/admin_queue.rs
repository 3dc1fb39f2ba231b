//! The admin queue of the host: commands into the mailbox, one at a time, and completions out of it. The completion of an
//! install is its commit: slots that are staged come into use with it, or not at all.

use cryptonic_regs::admin::{AdminCompletion, AdminCompletionEnd, AdminStatus, Command, CommandHead};
use cryptonic_regs::bar0;

use super::Mailbox;
use crate::events::HostWrite;
use crate::nic::Nic;
use crate::queue::{CompletionRing, Ring};

const COMMAND_BYTES: u64 = Command::BYTES as u64;
const COMPLETION_BYTES: u32 = AdminCompletion::BYTES as u32;

impl Nic {
    /// The host writes the control register of the admin queue.
    pub(crate) fn admin_control_write(&mut self, control: bar0::AdminControl) {
        let management = &mut self.management;
        let was_on = management.control.enable();
        management.control = control;
        if control.enable() != was_on {
            management.epoch = management.epoch.wrapping_add(1);
            management.fetching = false;
        }
        if control.enable() && !was_on {
            let (commands, completions) = (management.ring.base, management.completions.base);
            let valid = (1..=8).contains(&control.slots_log2())
                && commands.is_multiple_of(64)
                && completions.is_multiple_of(64)
                && commands.max(completions) < 1 << 60;
            let slots = 1 << control.slots_log2().min(8);
            management.ring = Ring { base: commands, slots, stride: COMMAND_BYTES as u32, ..Ring::default() };
            management.completions =
                CompletionRing { base: completions, slots, stride: COMPLETION_BYTES, producer: 0 };
            management.status = bar0::AdminStatus::new().with_enabled(valid).with_stopped(!valid);
        } else if !control.enable() {
            management.status = bar0::AdminStatus::new();
        }
    }

    /// The host rings the admin doorbell.
    pub(crate) fn admin_doorbell(&mut self, producer: u32) {
        if !self.management.status.enabled() {
            return;
        }
        if self.management.ring.doorbell(producer).is_err() {
            self.stop_admin_queue();
            return;
        }
        self.fetch_admin_command();
    }

    fn stop_admin_queue(&mut self) {
        self.management.status = bar0::AdminStatus::new().with_stopped(true);
    }

    fn fetch_admin_command(&mut self) {
        let management = &mut self.management;
        if management.mailbox.pending
            || management.fetching
            || management.ring.unfetched() == 0
            || !management.status.enabled()
        {
            return;
        }
        management.fetching = true;
        // Asked for from now on: a doorbell cannot take it back.
        management.ring.fetched = management.ring.fetched.wrapping_add(1);
        let epoch = management.epoch;
        let done = self.pcie.read(self.now, COMMAND_BYTES);
        self.events.seldom.change(|queues| queues.admin_command.push(done, epoch));
    }

    /// An admin command is here, of the queue as it was in `epoch`.
    pub(crate) fn admin_command_arrived(&mut self, epoch: u32) {
        if epoch != self.management.epoch {
            return;
        }
        self.management.fetching = false;
        let ring = &self.management.ring;
        let address = ring.slot(ring.fetched.wrapping_sub(1));
        let mut command = [0; Command::WORDS];
        if self.memory.read_words(address, &mut command).is_err() {
            self.stop_admin_queue();
            return;
        }
        self.management.mailbox = Mailbox { pending: true, epoch, command, result: [0; 2], note: 0 };
        self.wake_firmware(self.now);
    }

    /// Firmware is done with the command in the mailbox.
    pub(super) fn complete_admin_command(&mut self, status: u32) {
        let management = &mut self.management;
        if !std::mem::take(&mut management.mailbox.pending) {
            return;
        }
        let current = management.mailbox.epoch == management.epoch;
        let identifier = CommandHead::from_bits(management.mailbox.command[0]).identifier();
        let [low, high] = management.mailbox.result;
        let status =
            AdminStatus::of_number(status).map_or(AdminStatus::Aborted.number(), AdminStatus::number);
        management.mailbox.command = [0; Command::WORDS];
        let told = current && management.status.enabled();
        // Slots that a command installed are for its host, which learns of them by the completion; nobody else does.
        let committed = if told && status == AdminStatus::Ok.number() {
            self.sa_table.commit_staged()
        } else {
            self.sa_table.remove_staged();
            Box::default()
        };
        let management = &mut self.management;
        if told {
            management.ring.consumer = management.ring.consumer.wrapping_add(1);
            let (completion, phase) = management.completions.next();
            let words = AdminCompletion {
                result: u64::from(high) << 32 | u64::from(low),
                end: AdminCompletionEnd::new()
                    .with_identifier(identifier)
                    .with_status(status as u16)
                    .with_phase(phase),
            }
            .to_words();
            let (epoch, vector) = (management.epoch, u16::from(management.control.vector()));
            let written = self.pcie.write(self.now, u64::from(COMPLETION_BYTES));
            self.events
                .host_writes
                .push(written.visible, HostWrite::Admin { epoch, completion, words, vector, committed });
        }
        self.fetch_admin_command();
    }
}
