//! Registers behind a BAR: by loads and stores where vfio lets it be mapped, by system calls where it does not.
//!
//! vfio-pci maps BARs uncached: each access is one transaction, in program order, behind every earlier write to memory
//! (Intel SDM volume 3A, 9.2.2 and 12.3.1). A push is written in the first of these ways that the machine has:
//!
//! 1. MOVDIR64B: one transaction of 64 bytes whatever the mapping's type is (Intel SDM volume 2B, MOVDIR64B).
//! 2. Eight stores of 8 bytes in ascending order. The device uses a push only when all of it has come, and
//!    takes it for a doorbell otherwise, so this is as right and only slower.
//!
//! A write-combined mapping, which other drivers put between the two, is not to be had: no vfio-pci of upstream Linux
//! gives one (as of 7.2), and out-of-tree modules that do are not what this driver wants to depend on.

use cryptonic_pci::{Bar, HostError};
use rustix::io::Errno;

use super::attachment::{Attachment, failed};
use super::region::Region;
use mapping::{LINE_BYTES, Mapping};

/// A BAR of a function.
pub(super) struct BaseAddress {
    bar: Bar,
    bytes: u64,
    file_offset: u64,
    mappings: Vec<Mapping>,
}

impl BaseAddress {
    /// Maps what may be mapped of a BAR. `with_interrupts` has a bit for each BAR, by number, that holds the MSI-X
    /// table or its pending bits: those are the kernel's, and such a BAR is not mapped even where the kernel would
    /// let us (VFIO_REGION_INFO_CAP_MSIX_MAPPABLE); by the contract it holds nothing else.
    pub(super) fn open(attachment: &Attachment, bar: Bar, with_interrupts: u8) -> BaseAddress {
        let index = match bar {
            Bar::Bar0 => 0,
            Bar::Bar2 => 2,
            Bar::Bar4 => 4,
        };
        let region = Region::of(attachment, index);
        let areas = if with_interrupts >> index & 1 == 0 { region.mappable.as_slice() } else { &[] };
        let inside = |area: &&(u64, u64)| area.0.checked_add(area.1).is_some_and(|end| end <= region.bytes);
        // What cannot be mapped after all is reached by system calls.
        let mappings = areas
            .iter()
            .filter(inside)
            .filter_map(|(offset, bytes)| Mapping::new(attachment, region.file_offset, *offset, *bytes).ok())
            .collect();
        BaseAddress { bar, bytes: region.bytes, file_offset: region.file_offset, mappings }
    }

    pub(super) fn bar(&self) -> Bar {
        self.bar
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_mapped(&self, offset: u32) -> bool {
        self.mappings.iter().any(|mapping| mapping.holds(offset, 4))
    }

    #[inline]
    pub(super) fn read32(&self, attachment: &Attachment, offset: u32) -> Result<u32, HostError> {
        for mapping in &self.mappings {
            if let Some(value) = mapping.read32(offset) {
                return Ok(value);
            }
        }
        self.check(offset, 4)?;
        let mut bytes = [0; 4];
        let result = attachment.read(self.file_offset + u64::from(offset), &mut bytes);
        result.map_err(|error| self.failed("reading", offset, error))?;
        Ok(u32::from_le_bytes(bytes))
    }

    #[inline]
    pub(super) fn write32(&self, attachment: &Attachment, offset: u32, value: u32) -> Result<(), HostError> {
        if self.mappings.iter().any(|mapping| mapping.write32(offset, value)) {
            return Ok(());
        }
        self.check(offset, 4)?;
        let result = attachment.write(self.file_offset + u64::from(offset), &value.to_le_bytes());
        result.map_err(|error| self.failed("writing", offset, error))
    }

    #[inline]
    pub(super) fn push64(
        &self,
        attachment: &Attachment,
        offset: u32,
        line: &[u8; LINE_BYTES],
    ) -> Result<(), HostError> {
        if self.mappings.iter().any(|mapping| mapping.push64(offset, line)) {
            return Ok(());
        }
        self.check(offset, LINE_BYTES as u32)?;
        for (index, bytes) in line.chunks_exact(8).enumerate() {
            let at = self.file_offset + u64::from(offset) + index as u64 * 8;
            attachment.write(at, bytes).map_err(|error| self.failed("pushing", offset, error))?;
        }
        Ok(())
    }

    /// Whether there is a register of this size, aligned to it.
    fn check(&self, offset: u32, bytes: u32) -> Result<(), HostError> {
        let inside = u64::from(offset) + u64::from(bytes) <= self.bytes;
        if inside && offset.is_multiple_of(bytes) {
            Ok(())
        } else {
            Err(HostError::OutOfRange { bar: self.bar, offset })
        }
    }

    #[cold]
    fn failed(&self, what: &str, offset: u32, error: Errno) -> HostError {
        failed(format_args!("{what} {:?} at {offset:#x}", self.bar), error)
    }
}

/// Mapped registers. Every access to them is here.
mod mapping {
    #![allow(unsafe_code)]

    use std::io;
    use std::os::fd::{AsFd, AsRawFd};
    use std::sync::atomic::{Ordering, fence};

    use memmap2::{MmapOptions, MmapRaw};
    use volatile_register::RW;

    use super::Attachment;

    /// Bytes of a push.
    pub(super) const LINE_BYTES: usize = 64;

    /// A part of a BAR that is mapped.
    pub(super) struct Mapping {
        /// Where it begins in the BAR.
        offset: u64,
        bytes: u64,
        start: *mut u8,
        has_direct_store: bool,
        _mapping: MmapRaw,
    }

    impl Mapping {
        pub(super) fn new(
            attachment: &Attachment,
            file_offset: u64,
            offset: u64,
            bytes: u64,
        ) -> io::Result<Mapping> {
            let file_offset = file_offset.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
            let length = usize::try_from(bytes).map_err(io::Error::other)?;
            let file = attachment.as_fd().as_raw_fd();
            let mapping = MmapOptions::new().offset(file_offset).len(length).map_raw(file)?;
            let start = mapping.as_mut_ptr();
            Ok(Mapping { offset, bytes, start, has_direct_store: has_direct_store(), _mapping: mapping })
        }

        /// Whether the whole of a register of this size is here, aligned to its size.
        #[inline]
        pub(super) fn holds(&self, offset: u32, bytes: u64) -> bool {
            let offset = u64::from(offset);
            offset.is_multiple_of(bytes)
                && offset >= self.offset
                && offset - self.offset <= self.bytes.saturating_sub(bytes)
                && self.bytes >= bytes
        }

        /// Reads a register, if it is here.
        #[inline]
        pub(super) fn read32(&self, offset: u32) -> Option<u32> {
            let register = self.register::<u32>(offset)?;
            // SAFETY: the register is within the mapping and aligned (`register`), and the mapping lives as long as
            // `self`. The reference is formed for this access alone; its target is an `UnsafeCell` of which nothing
            // but volatile accesses are made.
            let value = u32::from_le(unsafe { &*register }.read());
            // What the device wrote before it answered is seen after this.
            fence(Ordering::Acquire);
            Some(value)
        }

        /// Writes a register behind all memory that was written before. Whether it is here.
        #[inline]
        pub(super) fn write32(&self, offset: u32, value: u32) -> bool {
            let Some(register) = self.register::<u32>(offset) else { return false };
            behind_memory();
            // SAFETY: as in `read32`. A register of a device is not memory of Rust's: what a write does is up to the
            // device, whose DMA the IOMMU holds to memory that was mapped for it.
            unsafe { (*register).write(value.to_le()) };
            true
        }

        /// Writes a line, aligned to its size, behind all memory that was written before. Whether it is here.
        #[inline]
        pub(super) fn push64(&self, offset: u32, line: &[u8; LINE_BYTES]) -> bool {
            if !self.holds(offset, LINE_BYTES as u64) {
                return false;
            }
            behind_memory();
            if self.has_direct_store {
                let place = self.start.wrapping_add((u64::from(offset) - self.offset) as usize);
                // SAFETY: the processor has the instruction (`has_direct_store` asked it); the line lies within
                // the mapping and is aligned to 64 in the BAR, and so in memory, since a mapping begins on a page.
                unsafe { store_direct(place, line) };
                return true;
            }
            for (index, bytes) in line.as_chunks::<8>().0.iter().enumerate() {
                let Some(register) = self.register::<u64>(offset + index as u32 * 8) else { return false };
                // SAFETY: as in `write32`.
                unsafe { (*register).write(u64::from_ne_bytes(*bytes)) };
            }
            true
        }

        #[inline]
        fn register<T: Copy>(&self, offset: u32) -> Option<*const RW<T>> {
            let here = self.holds(offset, size_of::<T>() as u64);
            here.then(|| {
                self.start.wrapping_add((u64::from(offset) - self.offset) as usize).cast_const().cast()
            })
        }
    }

    /// Whether the processor has MOVDIR64B (CPUID leaf 7, ECX bit 28).
    fn has_direct_store() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__cpuid, __cpuid_count};
            __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ecx >> 28 & 1 == 1
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Stores a line at once.
    ///
    /// # Safety
    /// The processor has MOVDIR64B, and `place` is aligned to 64 with as many bytes behind it in a live mapping.
    #[inline]
    unsafe fn store_direct(place: *mut u8, line: &[u8; LINE_BYTES]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: by contract. The store is weakly ordered, as one of write-combining memory is, so a fence stands on
        // either side of it: before it memory that was written, behind it the next push or doorbell.
        unsafe {
            std::arch::asm!(
                "sfence",
                "movdir64b {place}, [{line}]",
                "sfence",
                place = in(reg) place,
                line = in(reg) line.as_ptr(),
                options(nostack, preserves_flags),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (place, line);
    }

    /// Puts what follows behind every earlier write to memory, as a device sees it.
    #[inline]
    fn behind_memory() {
        // An uncached store of x86 is behind every earlier store: this holds the compiler back.
        fence(Ordering::Release);
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a barrier has no operands and touches no memory of Rust's.
        unsafe {
            std::arch::asm!("dmb oshst", options(nostack, preserves_flags));
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Memory in the place of registers, mapped from `offset` on.
        fn mapping(offset: u64, bytes: u64, has_direct_store: bool) -> Mapping {
            let mapping = MmapRaw::from(MmapOptions::new().len(4096).map_anon().expect("memory"));
            Mapping { offset, bytes, start: mapping.as_mut_ptr(), has_direct_store, _mapping: mapping }
        }

        #[test]
        fn only_whole_aligned_registers_are_here() {
            let mapping = mapping(0x1000, 0x800, false);
            for (offset, bytes, here) in [
                (0x1000, 4, true),
                (0x17fc, 4, true),
                (0x17c0, 64, true),
                (0x0ffc, 4, false),
                (0x1800, 4, false),
                (0x17fe, 4, false),
                (0x1002, 4, false),
                (0x1020, 64, false),
                (0x17e0, 64, false),
                (u32::MAX - 3, 4, false),
            ] {
                assert_eq!(mapping.holds(offset, bytes), here, "{offset:#x}, {bytes} bytes");
            }
        }

        #[test]
        fn a_push_is_the_same_bytes_in_either_way() {
            let line: [u8; 64] = std::array::from_fn(|index| index as u8 * 3 + 1);
            let mut ways = vec![false];
            if has_direct_store() {
                ways.push(true);
            }
            for way in ways {
                let mapping = mapping(0, 4096, way);
                assert!(mapping.push64(0x40, &line) && !mapping.push64(0x48, &line));
                let words: Vec<u8> = (0..32)
                    .flat_map(|index| mapping.read32(index * 4).expect("here").to_le_bytes())
                    .collect();
                assert_eq!((&words[..64], &words[64..]), (&[0; 64][..], &line[..]));
                assert!(mapping.write32(0x44, 0x0403_0201));
                assert_eq!(mapping.read32(0x44), Some(0x0403_0201));
            }
        }
    }
}
