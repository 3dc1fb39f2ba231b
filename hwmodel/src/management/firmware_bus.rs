//! The address space of firmware: which register of which engine an access is.

use cryptonic_fw::Bus;
use cryptonic_regs::firmware::{self, DmaCommand, EngineStatus, MailboxStatus};
use cryptonic_regs::{Value, bar0};

use crate::nic::Nic;

/// The bus that firmware sees, with a count of its accesses.
pub(super) struct FirmwareBus<'a> {
    pub(super) nic: &'a mut Nic,
    pub(super) accesses: u64,
}

impl Bus for FirmwareBus<'_> {
    fn read(&mut self, address: u32) -> u32 {
        self.accesses += 1;
        self.nic.firmware_read(address)
    }

    fn write(&mut self, address: u32, value: u32) {
        self.accesses += 1;
        self.nic.firmware_write(address, value);
    }
}

impl Nic {
    fn firmware_read(&mut self, address: u32) -> u32 {
        let now_picoseconds = self.now_picoseconds();
        let management = &mut self.management;
        if let Some(offset) = address.checked_sub(firmware::SCRATCH_ADDRESS) {
            return management.scratch.get((offset / 4) as usize).copied().unwrap_or(0);
        }
        if let Some(offset) = address.checked_sub(firmware::MAILBOX_COMMAND.offset)
            && let Some(word) = management.mailbox.command.get((offset / 8) as usize)
        {
            return if offset.is_multiple_of(8) { *word as u32 } else { (*word >> 32) as u32 };
        }
        let engine =
            |busy: bool, outcome| EngineStatus::new().with_busy(busy).with_outcome(outcome).into_bits();
        match address {
            _ if address == firmware::MAILBOX_STATUS.offset => {
                MailboxStatus::new().with_pending(management.mailbox.pending).into_bits()
            }
            _ if address == firmware::MAILBOX_NOTE.offset => management.mailbox.note,
            _ if address == firmware::DMA_STATUS.offset => {
                engine(management.dma.running.is_some(), management.dma.outcome)
            }
            _ if address == firmware::SA_SLOT_COUNT.offset => self.sa_table.slots() as u32,
            _ if address == firmware::SA_GENERATION.offset => {
                self.sa_table.slot(management.sa.index).map_or(0, |sa| sa.generation)
            }
            _ if address == firmware::SA_STATUS.offset => {
                engine(management.sa.running.is_some(), management.sa.outcome)
            }
            _ if address == firmware::SA_REPLAY_WINDOW_MAX.offset => {
                self.parameters.capacity.replay_window_packets as u32
            }
            _ if address == firmware::SA_QUEUE_PAIRS.offset => self.queues.len() as u32,
            _ if address == firmware::SA_PACKET_SLOT_COUNT.offset => {
                self.parameters.capacity.sa_packet_slots() as u32
            }
            _ if address == firmware::SA_STATE.offset => {
                self.sa_table.slot(management.sa.index).map_or(0, |sa| sa.state().number())
            }
            _ if address == firmware::PSP_REMAINING.offset => self.keys.remaining(),
            _ if address == firmware::PSP_WANTED_ROTATION.offset => self.psp_policy.rotation.into_bits(),
            _ if address == firmware::PSP_WANTED_PERIOD_MS.offset => self.psp_policy.period_ms,
            _ if address == firmware::PSP_KEY_MADE_MS.offset => {
                self.keys.made_at_picoseconds().map_or(u32::MAX, milliseconds)
            }
            _ if address == firmware::EVENT_COUNT.offset => self.event_ring.count,
            _ if address == firmware::EVENT_MODERATION.offset => self.event_ring.moderation.into_bits(),
            _ if address == firmware::PSP_STATUS.offset => {
                engine(management.psp.running.is_some(), management.psp.outcome)
            }
            _ if address == firmware::PSP_GENERATION.offset => u32::from(self.keys.generation()),
            _ if address == firmware::CLOCK_LOW.offset => {
                management.clock_high = (now_picoseconds >> 32) as u32;
                now_picoseconds as u32
            }
            _ if address == firmware::CLOCK_HIGH.offset => management.clock_high,
            _ => 0,
        }
    }

    fn firmware_write(&mut self, address: u32, value: u32) {
        let management = &mut self.management;
        if let Some(offset) = address.checked_sub(firmware::SCRATCH_ADDRESS) {
            if let Some(word) = management.scratch.get_mut((offset / 4) as usize) {
                *word = value;
            }
            return;
        }
        match address {
            _ if address == firmware::MAILBOX_RESULT_LOW.offset => management.mailbox.result[0] = value,
            _ if address == firmware::MAILBOX_RESULT_HIGH.offset => management.mailbox.result[1] = value,
            _ if address == firmware::MAILBOX_NOTE.offset => management.mailbox.note = value,
            _ if address == firmware::MAILBOX_COMPLETE.offset => self.complete_admin_command(value),
            _ if address == firmware::DMA_HOST_LOW.offset => management.dma.host[0] = value,
            _ if address == firmware::DMA_HOST_HIGH.offset => management.dma.host[1] = value,
            _ if address == firmware::DMA_SCRATCH.offset => management.dma.scratch = value,
            _ if address == firmware::DMA_BYTES.offset => management.dma.bytes = value,
            _ if address == firmware::DMA_COMMAND.offset => {
                self.start_dma(DmaCommand::of_bits(u64::from(value)))
            }
            _ if address == firmware::SA_INDEX.offset => management.sa.index = value,
            _ if address == firmware::SA_SCRATCH.offset => management.sa.scratch = value,
            _ if address == firmware::SA_HOST_LOW.offset => management.sa.host[0] = value,
            _ if address == firmware::SA_HOST_HIGH.offset => management.sa.host[1] = value,
            _ if address == firmware::SA_COMMAND.offset => self.start_sa(value),
            _ if address == firmware::PSP_VERSION.offset => management.psp.version = value,
            _ if address == firmware::PSP_COUNT.offset => management.psp.count = value,
            _ if address == firmware::PSP_HOST_LOW.offset => management.psp.host[0] = value,
            _ if address == firmware::PSP_HOST_HIGH.offset => management.psp.host[1] = value,
            _ if address == firmware::PSP_COMMAND.offset => self.start_psp(value),
            _ if address == firmware::EVENT_MODERATION.offset => {
                self.event_ring.moderation = bar0::InterruptModeration::from_bits(value);
            }
            _ => {}
        }
    }
}

/// Whole milliseconds, modulo 2^32; never all ones, which says that there is none.
fn milliseconds(picoseconds: u64) -> u32 {
    let passed = (picoseconds / 1_000_000_000) as u32;
    if passed == u32::MAX { 0 } else { passed }
}
