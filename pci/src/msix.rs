//! The MSI-X table and its pending bits, as the device keeps them (PCIe 4.0 7.7.2).

use crate::config::MSIX_PENDING_OFFSET;

/// Bytes of one table entry: address low, address high, data, vector control.
pub const ENTRY_BYTES: u32 = 16;
const MASKED: u32 = 1;

/// What an interrupt is: a write of `data` to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// The table: all vectors masked after reset.
pub struct MsixTable {
    entries: Vec<[u32; 4]>,
    pending: Vec<bool>,
}

impl MsixTable {
    /// A table of `vectors` entries.
    pub fn new(vectors: u16) -> Self {
        let vectors = usize::from(vectors);
        MsixTable { entries: vec![[0, 0, 0, MASKED]; vectors], pending: vec![false; vectors] }
    }

    /// Reads BAR4; past the table and the pending bits, 0.
    pub fn read(&self, offset: u32) -> u32 {
        if offset >= MSIX_PENDING_OFFSET {
            let first = (offset - MSIX_PENDING_OFFSET) as usize * 8;
            return (0..32)
                .filter(|bit| self.pending.get(first + bit) == Some(&true))
                .fold(0, |word, bit| word | 1 << bit);
        }
        let entry = self.entries.get((offset / ENTRY_BYTES) as usize);
        entry.map_or(0, |entry| entry[(offset % ENTRY_BYTES / 4) as usize])
    }

    /// Writes BAR4. Unmasking a pending vector gives its message, which is to be sent now.
    pub fn write(&mut self, offset: u32, value: u32) -> Option<Message> {
        let vector = (offset / ENTRY_BYTES) as usize;
        let entry = self.entries.get_mut(vector)?;
        let word = (offset % ENTRY_BYTES / 4) as usize;
        entry[word] = if word == 3 { value & MASKED } else { value };
        if word == 3 && value & MASKED == 0 && self.pending[vector] {
            self.fire(vector as u16, true)
        } else {
            None
        }
    }

    /// The message to send for `vector`, or `None` when it is masked (it is then pending) or does not exist.
    /// `enabled` is the MSI-X enable of config space.
    pub fn fire(&mut self, vector: u16, enabled: bool) -> Option<Message> {
        let vector = usize::from(vector);
        let entry = *self.entries.get(vector)?;
        self.pending[vector] = !enabled || entry[3] & MASKED != 0;
        (!self.pending[vector])
            .then(|| Message { address: u64::from(entry[1]) << 32 | u64::from(entry[0]), data: entry[2] })
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// Masks every vector and forgets what is pending.
    pub fn reset(&mut self) {
        *self = MsixTable::new(self.vectors());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_vector_is_pending_until_it_is_unmasked() {
        let mut table = MsixTable::new(4);
        table.write(0x20, 0xfee0_0000);
        table.write(0x28, 0x42);
        assert_eq!(table.fire(2, true), None);
        assert_eq!(table.read(MSIX_PENDING_OFFSET), 1 << 2);
        assert_eq!(table.write(0x2c, 0), Some(Message { address: 0xfee0_0000, data: 0x42 }));
        assert_eq!(table.read(MSIX_PENDING_OFFSET), 0);
        assert_eq!(table.fire(9, true), None);
    }
}
