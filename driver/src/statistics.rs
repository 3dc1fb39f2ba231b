//! Counters of hardware, firmware and driver.

use cryptonic_regs::admin::{Opcode, StatisticsReply};
use cryptonic_regs::bar0::{COUNTERS, MAGIC, STATUS_COUNTERS_OFFSET};
use cryptonic_regs::{Access, Register, RegisterRow, Status};

use crate::admin::Request;
use crate::{Error, Nic, Quarantine};

/// All counters at one time.
#[derive(Clone, Debug)]
pub struct Statistics {
    hardware: Vec<(&'static RegisterRow, u64)>,
    packets: Vec<(Status, u64)>,
    /// Counts of firmware.
    pub firmware: StatisticsReply,
    quarantines: Vec<(Quarantine, u64)>,
    event_quarantines: u64,
}

impl Statistics {
    /// Every counter as a name in snake_case and a number: those of hardware by their register, packets by
    /// `status_` and the status, those of firmware with `firmware_` and those of the driver with
    /// `quarantined_` before them.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let hardware = self.hardware.iter().map(|(row, count)| (row.name.to_ascii_lowercase(), *count));
        let packets =
            self.packets.iter().map(|(status, count)| (format!("status_{}", status.name()), *count));
        let firmware = StatisticsReply::ROW.words.iter().zip(self.firmware.to_words());
        let firmware = firmware.map(|(word, count)| (format!("firmware_{}", word.name), count));
        let quarantines =
            self.quarantines.iter().map(|(reason, count)| (format!("quarantined_{}", reason.name()), *count));
        let events = ("quarantined_events".to_owned(), self.event_quarantines);
        hardware.chain(packets).chain(firmware).chain(quarantines).chain([events])
    }

    /// The counter of this name, as [`Self::iter`] gives it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter().find(|(known, _)| known == name).map(|(_, count)| count)
    }

    /// Packets that ended with this status.
    pub fn packets(&self, status: Status) -> u64 {
        self.packets.iter().find(|(known, _)| *known == status).map_or(0, |(_, count)| *count)
    }

    /// Every status that packets ended with.
    pub fn packets_by_status(&self) -> impl Iterator<Item = (Status, u64)> + '_ {
        self.packets.iter().copied().filter(|(_, count)| *count > 0)
    }

    /// Queue pairs that went into quarantine for this reason.
    pub fn quarantines(&self, reason: Quarantine) -> u64 {
        self.quarantines.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }

    /// A hardware counter, by its register.
    pub fn hardware(&self, register: Register<u64>) -> u64 {
        let offset = register.offset;
        self.hardware.iter().find(|(row, _)| row.offset == offset).map_or(0, |(_, count)| *count)
    }

    /// Frames the MAC sent.
    pub fn transmitted_frames(&self) -> u64 {
        self.hardware(cryptonic_regs::bar0::TRANSMITTED_FRAMES)
    }

    /// Frames the MAC received with a good FCS.
    pub fn received_frames(&self) -> u64 {
        self.hardware(cryptonic_regs::bar0::RECEIVED_FRAMES)
    }
}

impl Nic {
    /// Reads all counters.
    pub fn statistics(&mut self) -> Result<Statistics, Error> {
        self.alive()?;
        let opcode = Opcode::Statistics;
        self.admin.run(Request { reply_bytes: StatisticsReply::BYTES, ..Request::new(opcode) })?;
        let mut words = [0; StatisticsReply::WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.admin.reply(index)?;
        }
        let counter =
            |offset| self.shared.read(Register::<u64>::new(offset, "COUNTER", Access::ReadOnly, ""));
        let mut hardware = Vec::with_capacity(COUNTERS.registers.len());
        for row in COUNTERS.registers {
            hardware.push((row, counter(row.offset)?));
        }
        let mut packets = Vec::with_capacity(Status::ALL.len());
        for status in Status::ALL {
            packets.push((*status, counter(STATUS_COUNTERS_OFFSET + status.number() * 8)?));
        }
        self.shared.read(MAGIC)?; // All ones here: the device went while we read.
        Ok(Statistics {
            hardware,
            packets,
            firmware: StatisticsReply::of_words(&words),
            quarantines: self.shared.quarantines().collect(),
            event_quarantines: self.shared.event_quarantines.get(),
        })
    }
}
