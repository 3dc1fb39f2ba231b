//! Host memory as the device reaches it: through the IOMMU's mappings, and only while the device is bus
//! master. An access outside a mapping, or a write to a read-only one, is a fault that touches nothing.

use std::cell::Cell;
use std::ops::Range;

use cryptonic_pci::memory::OutOfBounds;
use cryptonic_pci::{DmaAccess, SharedMemory};

/// Mappings are whole pages.
const PAGE_BYTES: u64 = 4096;

/// The IOMMU refused an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaFault;

/// The mappings of one device.
#[derive(Default)]
pub struct HostMemory {
    /// In ascending order of addresses; none overlaps another.
    mappings: Vec<Mapping>,
    /// Which mappings held the last range that was read and the last that was written: drivers keep them apart.
    last: [Cell<usize>; 2],
    /// Whether the device may start transactions.
    pub bus_master: bool,
    faults: Cell<u64>,
}

struct Mapping {
    iova: u64,
    bytes: u64,
    writable: bool,
    memory: SharedMemory,
    /// Where in the memory the mapping begins.
    offset: u64,
}

impl HostMemory {
    /// Maps `bytes` of a memory from `offset` on; refused if that overlaps another mapping or wraps.
    pub fn map(
        &mut self,
        memory: &SharedMemory,
        offset: u64,
        bytes: u64,
        iova: u64,
        access: DmaAccess,
    ) -> Result<(), &'static str> {
        let end = iova.checked_add(bytes).ok_or("it reaches past the end of the address space")?;
        if offset.checked_add(bytes).is_none_or(|end| end > memory.bytes() as u64) {
            return Err("it reaches past the end of the memory");
        }
        if bytes == 0 || [offset, bytes, iova].iter().any(|number| !number.is_multiple_of(PAGE_BYTES)) {
            return Err("it is not whole pages");
        }
        let index = self.mappings.partition_point(|mapping| mapping.iova < iova);
        let before = index.checked_sub(1).and_then(|index| self.mappings.get(index));
        let behind = self.mappings.get(index);
        if before.is_some_and(|one| one.iova + one.bytes > iova) || behind.is_some_and(|one| one.iova < end) {
            return Err("it overlaps another mapping");
        }
        let writable = access == DmaAccess::DeviceReadsAndWrites;
        self.mappings.insert(index, Mapping { iova, bytes, writable, memory: memory.clone(), offset });
        Ok(())
    }

    /// Removes the mapping that begins at `iova`.
    pub fn unmap(&mut self, iova: u64) -> Result<(), &'static str> {
        let found = self.mappings.binary_search_by_key(&iova, |mapping| mapping.iova);
        self.mappings.remove(found.map_err(|_| "nothing is mapped there")?);
        Ok(())
    }

    /// Removes every mapping in a range, and says how many those were. Refused, with none removed, if a mapping is partly in
    /// it.
    pub fn unmap_range(&mut self, iova: u64, bytes: u64) -> Result<usize, &'static str> {
        let end = iova.saturating_add(bytes);
        let first = self.mappings.partition_point(|mapping| mapping.iova + mapping.bytes <= iova);
        let behind = self.mappings.partition_point(|mapping| mapping.iova < end);
        let inside = self.mappings.get(first..behind).unwrap_or_default();
        if inside.iter().any(|mapping| mapping.iova < iova || mapping.iova + mapping.bytes > end) {
            return Err("it cuts a mapping in two");
        }
        Ok(self.mappings.drain(first..behind.max(first)).count())
    }

    /// Removes every mapping.
    pub fn unmap_all(&mut self) {
        self.mappings.clear();
    }

    /// Reads `bytes.len()` bytes.
    #[inline]
    pub fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), DmaFault> {
        match self.find(iova, bytes.len() as u64, false) {
            Some((memory, offset)) => memory.read(offset, bytes).map_err(|_| self.fault()),
            None => self.across(iova, bytes.len(), false, |memory, offset, part| {
                memory.read(offset, bytes.get_mut(part).unwrap_or_default())
            }),
        }
    }

    /// Reads whole little-endian words; `iova` is aligned to 8.
    #[inline]
    pub fn read_words<const WORDS: usize>(
        &self,
        iova: u64,
        words: &mut [u64; WORDS],
    ) -> Result<(), DmaFault> {
        match self.find(iova, WORDS as u64 * 8, false) {
            Some((memory, offset)) => memory.read_words(offset, words).map_err(|_| self.fault()),
            None => self.across(iova, WORDS * 8, false, |memory, offset, part| {
                memory.read_words(offset, words.get_mut(part.start / 8..part.end / 8).unwrap_or_default())
            }),
        }
    }

    /// Writes bytes.
    #[inline]
    pub fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), DmaFault> {
        match self.find(iova, bytes.len() as u64, true) {
            Some((memory, offset)) => memory.write(offset, bytes).map_err(|_| self.fault()),
            None => self.across(iova, bytes.len(), true, |memory, offset, part| {
                memory.write(offset, bytes.get(part).unwrap_or_default())
            }),
        }
    }

    /// Writes whole little-endian words, the last one last and with release order; `iova` is aligned to 8.
    #[inline]
    pub fn write_words<const WORDS: usize>(&self, iova: u64, words: &[u64; WORDS]) -> Result<(), DmaFault> {
        match self.find(iova, WORDS as u64 * 8, true) {
            Some((memory, offset)) => memory.write_words_release(offset, words).map_err(|_| self.fault()),
            None => self.across(iova, WORDS * 8, true, |memory, offset, part| {
                for (index, word) in
                    words.get(part.start / 8..part.end / 8).unwrap_or_default().iter().enumerate()
                {
                    memory.write_word_release(offset + index * 8, *word)?;
                }
                Ok(())
            }),
        }
    }

    /// Whether a write of `bytes` at `iova` would be allowed.
    #[inline]
    pub fn writable(&self, iova: u64, bytes: u64) -> Result<(), DmaFault> {
        match self.find(iova, bytes, true) {
            Some(_) => Ok(()),
            None => self.across(iova, bytes as usize, true, |_, _, _| Ok(())),
        }
    }

    /// Refused accesses so far.
    pub fn faults(&self) -> u64 {
        self.faults.get()
    }

    fn fault(&self) -> DmaFault {
        self.faults.set(self.faults.get() + 1);
        DmaFault
    }

    /// The one mapping that holds all of a range.
    #[inline]
    fn find(&self, iova: u64, bytes: u64, write: bool) -> Option<(&SharedMemory, usize)> {
        if !self.bus_master {
            return None;
        }
        let fits = |mapping: &Mapping| {
            let offset = iova.wrapping_sub(mapping.iova);
            (offset < mapping.bytes && bytes <= mapping.bytes - offset && (mapping.writable || !write))
                .then(|| (mapping.offset + offset) as usize)
        };
        let last = &self.last[usize::from(write)];
        if let Some(mapping) = self.mappings.get(last.get())
            && let Some(offset) = fits(mapping)
        {
            return Some((&mapping.memory, offset));
        }
        let index = self.mappings.partition_point(|mapping| mapping.iova <= iova).checked_sub(1)?;
        let mapping = self.mappings.get(index)?;
        let offset = fits(mapping)?;
        last.set(index);
        Some((&mapping.memory, offset))
    }

    /// An access to a range that more than one mapping holds, or none: pages of a guest lie anywhere in its memory. All of
    /// it is checked before anything is touched. `access` gets a memory, where in it, and which part of the range that is.
    #[cold]
    fn across(
        &self,
        iova: u64,
        bytes: usize,
        write: bool,
        mut access: impl FnMut(&SharedMemory, usize, Range<usize>) -> Result<(), OutOfBounds>,
    ) -> Result<(), DmaFault> {
        let end = iova.checked_add(bytes as u64).filter(|_| self.bus_master).ok_or_else(|| self.fault())?;
        let first = self.mappings.partition_point(|mapping| mapping.iova + mapping.bytes <= iova);
        let held = self.mappings.get(first..).unwrap_or_default().iter();
        let held = held.take_while(|mapping| mapping.iova < end);
        let mut covered = iova;
        for mapping in held.clone() {
            if mapping.iova > covered || write && !mapping.writable {
                return Err(self.fault());
            }
            covered = mapping.iova + mapping.bytes;
        }
        if covered < end || bytes == 0 {
            return Err(self.fault());
        }
        for mapping in held {
            let from = mapping.iova.max(iova);
            let to = (mapping.iova + mapping.bytes).min(end);
            let offset = (mapping.offset + (from - mapping.iova)) as usize;
            let part = (from - iova) as usize..(to - iova) as usize;
            access(&mapping.memory, offset, part).map_err(|_| self.fault())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: DmaAccess = DmaAccess::DeviceReads;
    const WRITE: DmaAccess = DmaAccess::DeviceReadsAndWrites;

    #[test]
    fn accesses_outside_a_mapping_are_faults() {
        let memory = SharedMemory::new(4096).unwrap();
        let mut host = HostMemory::default();
        host.map(&memory, 0, 4096, 0x10_0000, READ).unwrap();
        assert_eq!(host.read(0x10_0000, &mut [0; 8]), Err(DmaFault), "not bus master");
        host.bus_master = true;
        host.read(0x10_0000, &mut [0; 8]).unwrap();
        assert_eq!(host.read(0x10_0fff, &mut [0; 8]), Err(DmaFault), "past the end");
        assert_eq!(host.read(0x0f_ffff, &mut [0; 1]), Err(DmaFault), "before the start");
        assert_eq!(host.read(u64::MAX, &mut [0; 8]), Err(DmaFault), "past the last address");
        assert_eq!(host.write(0x10_0000, &[0; 8]), Err(DmaFault), "read-only");
        host.unmap(0x10_0000).unwrap();
        assert_eq!(host.read(0x10_0000, &mut [0; 8]), Err(DmaFault), "unmapped");
        assert_eq!(host.faults(), 6);
    }

    #[test]
    fn mappings_that_make_no_sense_are_refused() {
        let memory = SharedMemory::new(3 * 4096).unwrap();
        let mut host = HostMemory::default();
        host.map(&memory, 4096, 4096, 0x10_0000, READ).unwrap();
        let page = 4096;
        for (offset, bytes, iova) in [
            (0, page, 0x10_0000),
            (0, 2 * page, 0x0f_f000),
            (0, page, 0x10_0800),
            (0, 0, 0x20_0000),
            (2 * page, 2 * page, 0x20_0000),
            (u64::MAX - page + 1, page, 0x20_0000),
            (0, page, u64::MAX - page + 1),
        ] {
            assert!(
                host.map(&memory, offset, bytes, iova, READ).is_err(),
                "{offset:#x} {bytes:#x} {iova:#x}"
            );
        }
        host.map(&memory, 0, page, 0x10_1000, READ).unwrap();
        host.map(&memory, 0, page, 0x0f_f000, READ).unwrap();
    }

    /// Pages of one range of addresses, in another order in memory.
    #[test]
    fn an_access_goes_over_mappings_side_by_side_or_touches_nothing() {
        let memory = SharedMemory::new(3 * 4096).unwrap();
        let mut host = HostMemory { bus_master: true, ..HostMemory::default() };
        host.map(&memory, 2 * 4096, 4096, 0x1000, WRITE).unwrap();
        host.map(&memory, 0, 4096, 0x2000, WRITE).unwrap();
        host.map(&memory, 4096, 4096, 0x3000, READ).unwrap();
        let bytes: Vec<u8> = (0..64).collect();
        host.write(0x1fe0, &bytes).unwrap();
        let mut there = [0; 32];
        memory.read(3 * 4096 - 32, &mut there).unwrap();
        assert_eq!(there[..], bytes[..32]);
        memory.read(0, &mut there).unwrap();
        assert_eq!(there[..], bytes[32..]);
        let mut words = [0; 8];
        host.read_words(0x1fe0, &mut words).unwrap();
        assert_eq!(words[4].to_le_bytes()[..], bytes[32..40]);
        host.write_words(0x1ff8, &[5, 6]).unwrap();
        assert_eq!((memory.read_word(3 * 4096 - 8), memory.read_word(0)), (Ok(5), Ok(6)));

        assert_eq!(host.write(0x2fe0, &bytes), Err(DmaFault), "its second half is read-only");
        memory.read(4096 - 32, &mut there).unwrap();
        assert_eq!(there, [0; 32]);
        assert_eq!(host.read(0x3fe0, &mut [0; 64]), Err(DmaFault), "nothing is behind it");
        host.unmap(0x2000).unwrap();
        assert_eq!(host.read(0x1fe0, &mut [0; 0x1040]), Err(DmaFault), "a hole");
    }

    #[test]
    fn a_range_takes_every_mapping_in_it_along_and_cuts_none() {
        let memory = SharedMemory::new(4 * 4096).unwrap();
        let mut host = HostMemory { bus_master: true, ..HostMemory::default() };
        host.map(&memory, 0, 4096, 0x1000, WRITE).unwrap();
        host.map(&memory, 0, 2 * 4096, 0x4000, WRITE).unwrap();
        host.map(&memory, 0, 4096, 0x8000, WRITE).unwrap();
        assert!(host.unmap_range(0, 0x5000).is_err() && host.unmap_range(0x5000, 0x1000).is_err());
        assert_eq!(host.unmap_range(0x2000, 0x2000), Ok(0));
        assert_eq!(host.unmap_range(0, 0x6000), Ok(2));
        assert_eq!(host.unmap_range(0, u64::MAX), Ok(1));
        assert_eq!(host.unmap_range(0, u64::MAX), Ok(0));
    }
}
