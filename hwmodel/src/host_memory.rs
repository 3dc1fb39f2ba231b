//! Host memory as the device reaches it: through the IOMMU's mappings, and only while the device is bus
//! master. An access outside a mapping, or a write to a read-only one, is a fault that touches nothing.

use std::cell::Cell;

use cryptonic_pci::{DmaAccess, SharedMemory};

/// The IOMMU refused an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaFault;

/// The mappings of one device.
#[derive(Default)]
pub struct HostMemory {
    mappings: Vec<Mapping>,
    last: Cell<usize>,
    /// Whether the device may start transactions.
    pub bus_master: bool,
    faults: Cell<u64>,
}

struct Mapping {
    iova: u64,
    bytes: u64,
    writable: bool,
    memory: SharedMemory,
}

impl HostMemory {
    /// Adds a mapping; refused if it overlaps another or wraps.
    pub fn map(&mut self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), &'static str> {
        let bytes = memory.bytes() as u64;
        let end = iova.checked_add(bytes).ok_or("it reaches past the end of the address space")?;
        if self.mappings.iter().any(|mapping| iova < mapping.iova + mapping.bytes && mapping.iova < end) {
            return Err("it overlaps another mapping");
        }
        let writable = access == DmaAccess::DeviceReadsAndWrites;
        self.mappings.push(Mapping { iova, bytes, writable, memory: memory.clone() });
        Ok(())
    }

    /// Removes the mapping that begins at `iova`.
    pub fn unmap(&mut self, iova: u64) -> Result<(), &'static str> {
        let index =
            self.mappings.iter().position(|mapping| mapping.iova == iova).ok_or("nothing is mapped there")?;
        self.mappings.swap_remove(index);
        Ok(())
    }

    /// Reads `bytes.len()` bytes.
    #[inline]
    pub fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaFault> {
        let (memory, offset) = self.find(iova, bytes.len() as u64, false)?;
        memory.read(offset, bytes).map_err(|_| self.fault())
    }

    /// Reads whole little-endian words; `iova` is aligned to 8.
    #[inline]
    pub fn read_words(&self, iova: u64, words: &mut [u64]) -> Result<(), DmaFault> {
        let (memory, offset) = self.find(iova, words.len() as u64 * 8, false)?;
        memory.read_words(offset, words).map_err(|_| self.fault())
    }

    /// Writes bytes.
    #[inline]
    pub fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaFault> {
        let (memory, offset) = self.find(iova, bytes.len() as u64, true)?;
        memory.write(offset, bytes).map_err(|_| self.fault())
    }

    /// Writes whole little-endian words, the last one last and with release order; `iova` is aligned to 8.
    #[inline]
    pub fn write_words(&self, iova: u64, words: &[u64]) -> Result<(), DmaFault> {
        let (memory, offset) = self.find(iova, words.len() as u64 * 8, true)?;
        let Some((last, first)) = words.split_last() else { return Ok(()) };
        memory.write_words(offset, first).map_err(|_| self.fault())?;
        memory.write_word_release(offset + first.len() * 8, *last).map_err(|_| self.fault())
    }

    /// Whether a write of `bytes` at `iova` would be allowed.
    #[inline]
    pub fn writable(&self, iova: u64, bytes: u64) -> Result<(), DmaFault> {
        self.find(iova, bytes, true).map(|_| ())
    }

    /// Refused accesses so far.
    pub fn faults(&self) -> u64 {
        self.faults.get()
    }

    fn fault(&self) -> DmaFault {
        self.faults.set(self.faults.get() + 1);
        DmaFault
    }

    #[inline]
    fn find(&self, iova: u64, bytes: u64, write: bool) -> Result<(&SharedMemory, usize), DmaFault> {
        if !self.bus_master {
            return Err(self.fault());
        }
        let fits = |mapping: &Mapping| {
            let offset = iova.wrapping_sub(mapping.iova);
            (offset < mapping.bytes && bytes <= mapping.bytes - offset && (mapping.writable || !write))
                .then_some(offset)
        };
        let last = self.last.get();
        if let Some(mapping) = self.mappings.get(last)
            && let Some(offset) = fits(mapping)
        {
            return Ok((&mapping.memory, offset as usize));
        }
        for (index, mapping) in self.mappings.iter().enumerate() {
            if let Some(offset) = fits(mapping) {
                self.last.set(index);
                return Ok((&mapping.memory, offset as usize));
            }
        }
        Err(self.fault())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_outside_a_mapping_are_faults() {
        let memory = SharedMemory::new(4096).unwrap();
        let mut host = HostMemory::default();
        host.map(&memory, 0x10_0000, DmaAccess::DeviceReads).unwrap();
        assert_eq!(host.read(0x10_0000, &mut [0; 8]), Err(DmaFault), "not bus master");
        host.bus_master = true;
        host.read(0x10_0000, &mut [0; 8]).unwrap();
        assert_eq!(host.read(0x10_0fff, &mut [0; 8]), Err(DmaFault), "past the end");
        assert_eq!(host.read(0x0f_ffff, &mut [0; 1]), Err(DmaFault), "before the start");
        assert_eq!(host.write(0x10_0000, &[0; 8]), Err(DmaFault), "read-only");
        assert!(host.map(&memory, 0x10_0800, DmaAccess::DeviceReads).is_err());
        host.unmap(0x10_0000).unwrap();
        assert_eq!(host.read(0x10_0000, &mut [0; 8]), Err(DmaFault), "unmapped");
        assert_eq!(host.faults(), 5);
    }
}
