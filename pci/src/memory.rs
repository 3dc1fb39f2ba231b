//! Memory that a host and a device both reach.
//!
//! The other side may write at any time, so no Rust reference to these bytes is ever made but as atomics: words
//! are accessed atomically, ranges are copied out or in with volatile accesses. Offsets are checked; an access
//! outside is [`OutOfBounds`] and touches nothing.

mod volatile;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use thiserror::Error;

/// An access outside the memory, or a word access that is not aligned to 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("access outside shared memory")]
pub struct OutOfBounds;

/// Bytes of a huge page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A range of memory that a host and a device both reach: a sealed memfd on Linux, an unlinked file
/// elsewhere. Clones share the memory; it is unmapped with the last of them.
#[derive(Clone)]
pub struct SharedMemory(Arc<Mapping>);

/// Eight aligned words that a host and a device both reach, each a little-endian number.
#[repr(C, align(64))]
pub struct Line([AtomicU64; 8]);

impl Line {
    /// Size in bytes.
    pub const BYTES: usize = 64;

    /// The word of this index, 0 to 7.
    #[inline(always)]
    pub fn word(&self, index: usize, order: Ordering) -> u64 {
        u64::from_le(self.0[index].load(order))
    }

    /// A copy of all words. Each is read once, in any order.
    #[inline(always)]
    pub fn copy(&self) -> [u64; 8] {
        // SAFETY: the words are aligned to more than a chunk and as many bytes as the copy has; the reads are volatile,
        // as in `SharedMemory::read`.
        let words: [u64; 8] = unsafe { volatile::copy_line(self.0.as_ptr().cast()) };
        words.map(u64::from_le)
    }
}

struct Mapping {
    huge_pages: bool,
    // A raw pointer and a length beside the mapping keep the hot path free of its indirections.
    start: *mut u8,
    bytes: usize,
    file: File,
    _mapping: MmapRaw,
}

// SAFETY: the pointer is to a shared mapping that lives as long as `Mapping`, and every access through it is
// atomic or volatile; `File` and `MmapRaw` are Send and Sync themselves.
unsafe impl Send for Mapping {}
// SAFETY: as above; no access needs exclusive use of the mapping.
unsafe impl Sync for Mapping {}

impl SharedMemory {
    /// Zeroed memory of `bytes`, rounded up to a multiple of 4096. It is sealed against change of size, so
    /// that nobody can cut it off under a mapping.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1).next_multiple_of(4096);
        SharedMemory::map(anonymous_file(bytes as u64, false)?, bytes, false)
    }

    /// As [`SharedMemory::new`], in pages of 2 MiB and rounded up to a multiple of that, if the system has as many
    /// set aside (`/proc/sys/vm/nr_hugepages`). If not, in normal pages: [`SharedMemory::has_huge_pages`] tells.
    pub fn new_huge(bytes: usize) -> io::Result<Self> {
        // A system without such pages refuses the file; one whose pages are taken refuses the mapping.
        bytes
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE_BYTES)
            .and_then(|bytes| SharedMemory::map(anonymous_file(bytes as u64, true).ok()?, bytes, true).ok())
            .map_or_else(|| SharedMemory::new(bytes), Ok)
    }

    /// Some of this memory's huge pages, by number, in the order in which they are named; the others are given back to
    /// the system. Consumes this memory, which nobody else may have; the result's [`SharedMemory::file`] has its pages in
    /// the order of before.
    #[cfg(target_os = "linux")]
    pub fn into_huge_pages(self, order: &[usize]) -> io::Result<Self> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let pages = self.bytes() / HUGE_PAGE_BYTES;
        let named = |page: &usize| order.iter().filter(|other| *other == page).count();
        let is_valid = !order.is_empty() && order.iter().all(|page| *page < pages && named(page) == 1);
        if !self.has_huge_pages() || !is_valid || Arc::strong_count(&self.0) != 1 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = self.file().try_clone()?;
        for page in (0..pages).filter(|page| named(page) == 0) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, flags, (page * HUGE_PAGE_BYTES) as u64, HUGE_PAGE_BYTES as u64)?;
        }
        let memory = SharedMemory::map(file, order.len() * HUGE_PAGE_BYTES, true)?;
        for (place, page) in order.iter().enumerate() {
            let start = memory.address().wrapping_add(place * HUGE_PAGE_BYTES);
            // SAFETY: the mapping that is replaced is this memory's own, whole pages of it, and nobody has it yet. What
            // replaces it is a page of the same file, which is sealed against being made shorter.
            unsafe {
                mmap(
                    start.cast(),
                    HUGE_PAGE_BYTES,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::FIXED,
                    memory.file(),
                    (page * HUGE_PAGE_BYTES) as u64,
                )
            }?;
        }
        Ok(memory)
    }

    fn map(file: File, bytes: usize, huge_pages: bool) -> io::Result<Self> {
        let mapping = MmapOptions::new().len(bytes).map_raw(&file)?;
        let start = mapping.as_mut_ptr();
        Ok(SharedMemory(Arc::new(Mapping { huge_pages, start, bytes, file, _mapping: mapping })))
    }

    /// Whether it lies in pages of 2 MiB.
    pub fn has_huge_pages(&self) -> bool {
        self.0.huge_pages
    }

    /// The memory of a file that another process handed over, all of it. Refused if the file could be made shorter, since
    /// an access to what was cut off would end this process.
    #[cfg(target_os = "linux")]
    pub fn of_file(file: File) -> io::Result<Self> {
        use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
        let refused = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
        let sealed = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if !sealed {
            return Err(refused("the memory's file is not sealed against being made shorter"));
        }
        let bytes = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if bytes == 0 || !bytes.is_multiple_of(4096) {
            return Err(refused("the memory's file is not whole pages"));
        }
        SharedMemory::map(file, bytes, false)
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The file behind it, for handing to another process or to the kernel.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// The address of its first byte, for mapping it into an IOMMU. Dereferencing it is up to the caller.
    pub fn address(&self) -> *mut u8 {
        self.0.start
    }

    /// Reads the 8-byte aligned little-endian word at `offset`.
    #[inline]
    pub fn read_word(&self, offset: usize) -> Result<u64, OutOfBounds> {
        Ok(u64::from_le(self.word(offset)?.load(Ordering::Relaxed)))
    }

    /// Writes the 8-byte aligned little-endian word at `offset`.
    #[inline]
    pub fn write_word(&self, offset: usize, value: u64) -> Result<(), OutOfBounds> {
        self.word(offset)?.store(value.to_le(), Ordering::Relaxed);
        Ok(())
    }

    /// As [`Self::read_word`]; what the other side wrote before it released the word is seen after it.
    #[inline]
    pub fn read_word_acquire(&self, offset: usize) -> Result<u64, OutOfBounds> {
        Ok(u64::from_le(self.word(offset)?.load(Ordering::Acquire)))
    }

    /// As [`Self::write_word`]; what was written before it is seen by whoever acquires the word.
    #[inline]
    pub fn write_word_release(&self, offset: usize, value: u64) -> Result<(), OutOfBounds> {
        self.word(offset)?.store(value.to_le(), Ordering::Release);
        Ok(())
    }

    /// Reads 8-byte aligned little-endian words from `offset` on, in ascending order.
    #[inline(always)]
    pub fn read_words(&self, offset: usize, words: &mut [u64]) -> Result<(), OutOfBounds> {
        let first = self.words(offset, words.len())?;
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: `words` checked that the whole range is aligned and within the mapping.
            *word = u64::from_le(unsafe { AtomicU64::from_ptr(first.add(index)) }.load(Ordering::Relaxed));
        }
        Ok(())
    }

    /// Writes 8-byte aligned little-endian words from `offset` on, in ascending order.
    #[inline(always)]
    pub fn write_words(&self, offset: usize, words: &[u64]) -> Result<(), OutOfBounds> {
        let first = self.words(offset, words.len())?;
        for (index, word) in words.iter().enumerate() {
            // SAFETY: as in `read_words`.
            unsafe { AtomicU64::from_ptr(first.add(index)) }.store(word.to_le(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// As [`Self::write_words`]; what was written before the last word is seen by whoever acquires that.
    #[inline(always)]
    pub fn write_words_release(&self, offset: usize, words: &[u64]) -> Result<(), OutOfBounds> {
        let first = self.words(offset, words.len())?;
        for (index, word) in words.iter().enumerate() {
            let order = if index + 1 == words.len() { Ordering::Release } else { Ordering::Relaxed };
            // SAFETY: as in `read_words`.
            unsafe { AtomicU64::from_ptr(first.add(index)) }.store(word.to_le(), order);
        }
        Ok(())
    }

    /// `count` 8-byte aligned words from `offset` on, for runs of them with one check. Each holds a little-endian
    /// number.
    #[inline(always)]
    pub fn atomics(&self, offset: usize, count: usize) -> Result<&[AtomicU64], OutOfBounds> {
        let first = self.words(offset, count)?;
        // SAFETY: `words` checked that the whole range is aligned and within the mapping, which lives as long as
        // `self`. Atomics may change under a shared reference; both sides access words atomically or copy with
        // volatile accesses.
        Ok(unsafe { std::slice::from_raw_parts(first.cast::<AtomicU64>(), count) })
    }

    /// `count` lines from `offset` on, which is a multiple of their size.
    #[inline(always)]
    pub fn lines(&self, offset: usize, count: usize) -> Result<&[Line], OutOfBounds> {
        self.check(offset, count.checked_mul(Line::BYTES).ok_or(OutOfBounds)?)?;
        if !offset.is_multiple_of(Line::BYTES) {
            return Err(OutOfBounds);
        }
        let first = self.0.start.wrapping_add(offset).cast::<Line>();
        // SAFETY: in range (checked above) and aligned, since mappings start on a page. A line is nothing but atomics:
        // see `atomics`.
        Ok(unsafe { std::slice::from_raw_parts(first, count) })
    }

    /// Copies out `bytes.len()` bytes from `offset` on.
    #[inline]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        self.check(offset, bytes.len())?;
        // SAFETY: `offset + bytes.len()` is within the mapping (checked above), so every address the copy
        // forms is inside it; the copy only makes volatile reads of it.
        unsafe { volatile::copy_from(self.0.start.add(offset), bytes) };
        Ok(())
    }

    /// Copies `bytes` in, from `offset` on.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        self.check(offset, bytes.len())?;
        // SAFETY: as in `read`; the copy only makes volatile writes to it.
        unsafe { volatile::copy_to(self.0.start.add(offset), bytes) };
        Ok(())
    }

    /// Writes zeros; never optimised away.
    pub fn zeroise(&self, offset: usize, bytes: usize) -> Result<(), OutOfBounds> {
        self.check(offset, bytes)?;
        const ZEROS: [u8; 256] = [0; 256];
        let mut done = 0;
        while done < bytes {
            let step = (bytes - done).min(ZEROS.len());
            self.write(offset + done, &ZEROS[..step])?;
            done += step;
        }
        Ok(())
    }

    /// The bytes themselves.
    ///
    /// # Safety
    /// Nobody, on this side or the other, writes the range while the slice lives: the caller has taken the
    /// buffer back from the device and the device can no longer reach it, or is trusted not to write.
    pub unsafe fn slice(&self, offset: usize, bytes: usize) -> Result<&[u8], OutOfBounds> {
        self.check(offset, bytes)?;
        // SAFETY: in range (checked above), initialised (the mapping is zeroed), not written (by contract).
        Ok(unsafe { std::slice::from_raw_parts(self.0.start.add(offset), bytes) })
    }

    #[inline]
    fn check(&self, offset: usize, bytes: usize) -> Result<(), OutOfBounds> {
        if offset <= self.0.bytes && bytes <= self.0.bytes - offset { Ok(()) } else { Err(OutOfBounds) }
    }

    #[inline]
    fn word(&self, offset: usize) -> Result<&AtomicU64, OutOfBounds> {
        let word = self.words(offset, 1)?;
        // SAFETY: in range and aligned (checked by `words`); the memory lives as long as `self`, and both sides
        // access words atomically or copy with volatile accesses.
        Ok(unsafe { AtomicU64::from_ptr(word) })
    }

    /// Where `count` words from `offset` on begin; all of them are within the mapping and aligned.
    #[inline(always)]
    fn words(&self, offset: usize, count: usize) -> Result<*mut u64, OutOfBounds> {
        self.check(offset, count.checked_mul(8).ok_or(OutOfBounds)?)?;
        if !offset.is_multiple_of(8) {
            return Err(OutOfBounds);
        }
        // Mappings start on a page, so an offset that is a multiple of 8 is an aligned address.
        Ok(self.0.start.wrapping_add(offset).cast())
    }
}

#[cfg(target_os = "linux")]
fn anonymous_file(bytes: u64, huge_pages: bool) -> io::Result<File> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let pages = if huge_pages { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
    let file = memfd_create("cryptonic-dma", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages)?;
    ftruncate(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(File::from(file))
}

#[cfg(not(target_os = "linux"))]
fn anonymous_file(bytes: u64, huge_pages: bool) -> io::Result<File> {
    if huge_pages {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let file = tempfile::tempfile()?;
    file.set_len(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_give_back_what_was_put_at_every_alignment() {
        let memory = SharedMemory::new(4096).unwrap();
        let bytes: Vec<u8> =
            (0..1500).map(|index| (index as u8 ^ 0x5a).wrapping_add((index >> 8) as u8)).collect();
        for offset in 0..40 {
            for length in [0, 1, 3, 4, 7, 8, 12, 15, 16, 17, 31, 60, 64, 130, 200, 256, 300, 383, 1500] {
                memory.zeroise(0, 4096).unwrap();
                memory.write(offset, &bytes[..length]).unwrap();
                let mut whole = vec![0; 4096];
                memory.read(0, &mut whole).unwrap();
                assert_eq!(&whole[offset..offset + length], &bytes[..length]);
                assert!(whole[..offset].iter().chain(&whole[offset + length..]).all(|byte| *byte == 0));
                let mut part = vec![0; length];
                memory.read(offset, &mut part).unwrap();
                assert_eq!(part, &bytes[..length]);
            }
        }
    }

    #[test]
    fn accesses_outside_touch_nothing() {
        let memory = SharedMemory::new(4096).unwrap();
        assert_eq!(memory.write(4095, &[1, 2]), Err(OutOfBounds));
        assert_eq!(memory.read(usize::MAX, &mut [0]), Err(OutOfBounds));
        assert_eq!(memory.read_word(4), Err(OutOfBounds));
        assert_eq!(memory.read_word(4096), Err(OutOfBounds));
        assert_eq!(memory.read_word(4088), Ok(0));
        assert_eq!(memory.read_words(4088, &mut [0; 2]), Err(OutOfBounds));
        assert_eq!(memory.write_words(4, &[0; 2]), Err(OutOfBounds));
        assert_eq!(memory.write_words(usize::MAX - 7, &[0; 1]), Err(OutOfBounds));
        assert!(memory.atomics(4088, 2).is_err() && memory.atomics(4, 1).is_err());
        assert!(memory.atomics(4088, 1).is_ok() && memory.atomics(0, usize::MAX).is_err());
        assert!(memory.lines(4032, 2).is_err() && memory.lines(32, 1).is_err());
        assert!(memory.lines(4032, 1).is_ok() && memory.lines(0, usize::MAX).is_err());
    }

    #[test]
    fn words_are_little_endian_and_in_order() {
        let memory = SharedMemory::new(4096).unwrap();
        memory.write_words(8, &[0x0807_0605_0403_0201, 9]).unwrap();
        let mut bytes = [0; 16];
        memory.read(8, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0]);
        let mut words = [0; 2];
        memory.read_words(8, &mut words).unwrap();
        assert_eq!(words, [0x0807_0605_0403_0201, 9]);
        memory.write_words_release(4080, &words).unwrap();
        assert_eq!((memory.read_word(4080), memory.read_word(4088)), (Ok(words[0]), Ok(9)));
        assert_eq!(memory.write_words_release(4088, &words), Err(OutOfBounds));
        let lines = memory.lines(0, 2).unwrap();
        assert_eq!(lines[0].copy(), [0, 0x0807_0605_0403_0201, 9, 0, 0, 0, 0, 0]);
        assert_eq!((lines[0].word(2, Ordering::Acquire), lines[1].copy()), (9, [0; 8]));
    }

    #[test]
    fn memory_in_huge_pages_is_memory_whether_the_system_has_them_or_not() {
        let memory = SharedMemory::new_huge(100_000).unwrap();
        let multiple = if memory.has_huge_pages() { 2 << 20 } else { 4096 };
        assert!(memory.bytes() >= 100_000 && memory.bytes() - 100_000 < multiple);
        let last = memory.bytes() - 8;
        memory.write_word(last, 7).unwrap();
        assert_eq!((memory.read_word(last), memory.read_word(0)), (Ok(7), Ok(0)));
        // More than any machine has huge pages for.
        assert!(!SharedMemory::new_huge(1 << 40).is_ok_and(|memory| memory.has_huge_pages()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn huge_pages_take_the_order_that_is_asked_for() {
        for order in [&[][..], &[3], &[0, 0]] {
            let memory = SharedMemory::new_huge(3 * HUGE_PAGE_BYTES).unwrap();
            assert!(memory.into_huge_pages(order).is_err(), "{order:?}");
        }
        let memory = SharedMemory::new_huge(3 * HUGE_PAGE_BYTES).unwrap();
        if memory.has_huge_pages() {
            for page in 0..3 {
                memory.write_word(page * HUGE_PAGE_BYTES, page as u64).unwrap();
            }
            assert!(memory.clone().into_huge_pages(&[2]).is_err(), "another has it");
            let memory = memory.into_huge_pages(&[2, 0]).unwrap();
            assert_eq!(memory.bytes(), 2 * HUGE_PAGE_BYTES);
            assert_eq!((memory.read_word(0), memory.read_word(HUGE_PAGE_BYTES)), (Ok(2), Ok(0)));
        } else {
            assert!(memory.into_huge_pages(&[2, 0]).is_err(), "it lies in small pages");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_cannot_be_cut_off() {
        let memory = SharedMemory::new(4096).unwrap();
        assert!(memory.file().set_len(0).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_of_a_file_is_the_same_memory_and_only_of_a_sealed_one() {
        let memory = SharedMemory::new(8192).unwrap();
        let other = SharedMemory::of_file(memory.file().try_clone().unwrap()).unwrap();
        memory.write_word(8184, 77).unwrap();
        assert_eq!((other.bytes(), other.read_word(8184)), (8192, Ok(77)));

        use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
        let loose = memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&loose, 4096).unwrap();
        assert!(SharedMemory::of_file(File::from(loose)).is_err());
        assert!(SharedMemory::of_file(File::open("/dev/zero").unwrap()).is_err());
    }
}
