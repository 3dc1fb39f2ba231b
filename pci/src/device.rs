//! The device side: what a PCI function is to the machine it sits in.

use crate::host::Bar;

/// A PCI function. Registers are accessed by 32 bits; offsets are aligned and within the BAR.
///
/// A device answers register accesses and reads and writes host memory through the access its machine gave
/// it; interrupts are writes to host memory like any other (PCIe 4.0 6.1.4).
pub trait Device {
    /// Reads config space.
    fn config_read(&mut self, offset: u16) -> u32;
    /// Writes config space.
    fn config_write(&mut self, offset: u16, value: u32);
    /// Reads a register.
    fn bar_read(&mut self, bar: Bar, offset: u32) -> u32;
    /// Writes a register.
    fn bar_write(&mut self, bar: Bar, offset: u32, value: u32);
    /// Writes 64 bytes as one transaction.
    fn bar_push(&mut self, bar: Bar, offset: u32, line: &[u8; 64]);
    /// Function-level reset.
    fn reset(&mut self);
}
