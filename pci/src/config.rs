//! Config space of a type 0 function with memory BARs 0, 2 and 4 (64-bit), a PCI Express capability that
//! offers function-level reset, and an MSI-X capability (PCI 3.0 6.1, PCIe 4.0 7.5, 7.7.2).

/// Offset of the command register (low half) and the status register (high half).
pub const COMMAND: u16 = 0x04;
/// Command: the function answers memory accesses.
pub const COMMAND_MEMORY: u32 = 1 << 1;
/// Command: the function may start transactions.
pub const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// Offset of the PCI Express capability.
pub const PCI_EXPRESS: u16 = 0x40;
/// Offset of Device Control (low half) and Device Status (high half).
pub const DEVICE_CONTROL: u16 = PCI_EXPRESS + 0x08;
/// Device Control: starts a function-level reset.
pub const DEVICE_CONTROL_RESET: u32 = 1 << 15;
/// Offset of the MSI-X capability; its Message Control is the high half of this word.
pub const MSIX: u16 = 0x80;
/// MSI-X enable, as a bit of the word at [`MSIX`].
pub const MSIX_ENABLE: u32 = 1 << 31;
/// MSI-X function mask, as a bit of the word at [`MSIX`].
pub const MSIX_FUNCTION_MASK: u32 = 1 << 30;
/// Byte offset of the pending bits in BAR4; the table is at 0.
pub const MSIX_PENDING_OFFSET: u32 = 0x800;

/// Config space as the device keeps it.
pub struct ConfigSpace {
    words: [u32; 64],
    writable: [u32; 64],
    /// Bits that a function-level reset clears, kept apart because everything else survives it.
    reset_requested: bool,
}

/// What a function says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and interface, 24 bits.
    pub class: u32,
    /// Sizes of BAR0, BAR2 and BAR4 in bytes, powers of two.
    pub bar_bytes: [u32; 3],
    /// MSI-X vectors, 1 to 128.
    pub vectors: u16,
}

impl ConfigSpace {
    /// Config space after power-on.
    pub fn new(identity: Identity) -> Self {
        let mut words = [0; 64];
        let mut writable = [0; 64];
        words[0] = u32::from(identity.device) << 16 | u32::from(identity.vendor);
        words[1] = 1 << 20; // Status: there is a capability list.
        writable[1] = COMMAND_MEMORY | COMMAND_BUS_MASTER | 1 << 10;
        words[2] = identity.class << 8 | u32::from(identity.revision);
        for (index, bytes) in identity.bar_bytes.into_iter().enumerate() {
            let low = 4 + index * 2;
            words[low] = 0b1100; // 64-bit, prefetchable.
            writable[low] = !(bytes - 1);
            writable[low + 1] = u32::MAX;
        }
        words[11] = words[0]; // Subsystem identifiers.
        words[13] = u32::from(PCI_EXPRESS);
        writable[15] = 0xff; // Interrupt line: software's own.

        let express = usize::from(PCI_EXPRESS / 4);
        words[express] = 0x0002_0010 | u32::from(MSIX) << 8; // Version 2, endpoint.
        words[express + 1] = 1 << 28 | 1 << 15 | 0b010; // FLR, role-based errors, 512-byte payloads.
        writable[express + 2] = 0x0000_7fff;
        words[express + 2] = 0b010 << 12 | 1 << 5; // MRRS 512, MPS 256.

        let msix = usize::from(MSIX / 4);
        words[msix] = 0x0000_0011 | (u32::from(identity.vectors) - 1) << 16;
        writable[msix] = MSIX_ENABLE | MSIX_FUNCTION_MASK;
        words[msix + 1] = 4; // The table is in BAR4 at 0.
        words[msix + 2] = MSIX_PENDING_OFFSET | 4;
        ConfigSpace { words, writable, reset_requested: false }
    }

    /// Reads the aligned word at `offset`; past the end, 0 (no extended capabilities).
    pub fn read(&self, offset: u16) -> u32 {
        self.words.get(usize::from(offset / 4)).copied().unwrap_or(0)
    }

    /// Writes the aligned word at `offset`; read-only bits keep their value.
    pub fn write(&mut self, offset: u16, value: u32) {
        if offset == DEVICE_CONTROL && value & DEVICE_CONTROL_RESET != 0 {
            self.reset_requested = true;
        }
        let index = usize::from(offset / 4);
        if let (Some(word), Some(writable)) = (self.words.get_mut(index), self.writable.get(index)) {
            *word = *word & !writable | value & writable;
        }
    }

    /// Whether a function-level reset was asked for since the last call.
    pub fn take_reset_request(&mut self) -> bool {
        std::mem::take(&mut self.reset_requested)
    }

    /// What a function-level reset does to config space: commands and enables off, BARs 0.
    pub fn reset(&mut self) {
        for (word, writable) in self.words.iter_mut().zip(&self.writable) {
            *word &= !writable;
        }
        self.words[usize::from(DEVICE_CONTROL / 4)] |= 0b010 << 12 | 1 << 5;
    }

    /// Whether the function may start transactions.
    pub fn bus_master(&self) -> bool {
        self.words[1] & COMMAND_BUS_MASTER != 0
    }

    /// Whether MSI-X is on and not masked as a whole.
    pub fn msix_enabled(&self) -> bool {
        self.words[usize::from(MSIX / 4)] & (MSIX_ENABLE | MSIX_FUNCTION_MASK) == MSIX_ENABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 1,
            class: 0x02_0000,
            bar_bytes: [0x1_0000, 0x4_0000, 0x1000],
            vectors: 9,
        })
    }

    #[test]
    fn sizing_a_bar_reads_its_size_mask() {
        let mut space = space();
        space.write(0x10, u32::MAX);
        assert_eq!(space.read(0x10), !0xffff | 0b1100);
    }

    #[test]
    fn the_capability_list_ends_and_has_both_capabilities() {
        let space = space();
        let mut offset = space.read(0x34) as u16 & 0xff;
        let mut found = vec![];
        while offset != 0 {
            let word = space.read(offset);
            found.push(word & 0xff);
            offset = (word >> 8) as u16 & 0xff;
        }
        assert_eq!(found, [0x10, 0x11]);
        assert_eq!(space.read(MSIX) >> 16 & 0x7ff, 8);
    }

    #[test]
    fn a_reset_takes_bus_mastering_away() {
        let mut space = space();
        space.write(COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER);
        assert!(space.bus_master());
        space.write(DEVICE_CONTROL, DEVICE_CONTROL_RESET);
        assert!(space.take_reset_request() && !space.take_reset_request());
        space.reset();
        assert!(!space.bus_master());
        assert_eq!(space.read(0), 0x5678_1234);
    }
}
