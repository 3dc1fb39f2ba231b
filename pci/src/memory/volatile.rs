//! Copies between private and shared memory: volatile on the shared side, 16 bytes at a time where the machine has a
//! type for that, and 32 in a long copy where its processor can.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m256i;

#[cfg(target_arch = "x86_64")]
type Chunk = core::arch::x86_64::__m128i;
#[cfg(not(target_arch = "x86_64"))]
type Chunk = u64;
const CHUNK_BYTES: usize = size_of::<Chunk>();

/// Copies of as many bytes ask the processor for wider accesses.
#[cfg(target_arch = "x86_64")]
const WIDE_BYTES_MIN: usize = 256;

/// Copies 64 bytes from shared memory.
///
/// # Safety
/// `from` and the 63 bytes after it are in a live mapping, and `from` is aligned to 64.
#[inline(always)]
pub(super) unsafe fn copy_line(from: *const u8) -> [u64; 8] {
    let from = from.cast::<Chunk>();
    // SAFETY: every chunk is within the 64 bytes, and aligned since the first is.
    let chunks: [Chunk; 64 / CHUNK_BYTES] =
        std::array::from_fn(|index| unsafe { from.add(index).read_volatile() });
    // SAFETY: both are 64 bytes in which every pattern of bits is a value.
    unsafe { std::mem::transmute(chunks) }
}

/// Copies `to.len()` bytes from shared memory.
///
/// # Safety
/// `from` and the bytes after it are in a live mapping.
#[inline]
pub(super) unsafe fn copy_from(from: *const u8, to: &mut [u8]) {
    let bytes = to.len();
    let to = to.as_mut_ptr();
    let mut done = 0;
    // SAFETY: here and in all blocks below, `done + size <= bytes` before each access, so both pointers stay
    // in their ranges; the wide shared accesses are aligned because this loop runs up to a chunk boundary.
    while done < bytes && !unsafe { from.add(done) }.cast::<Chunk>().is_aligned() {
        // SAFETY: as above.
        unsafe { to.add(done).write(from.add(done).read_volatile()) };
        done += 1;
    }
    #[cfg(target_arch = "x86_64")]
    if bytes - done >= WIDE_BYTES_MIN {
        // SAFETY: as above.
        done = unsafe { long_from(from, to, done, bytes) };
    }
    // SAFETY: as above.
    done = unsafe { lines_from::<Chunk>(from, to, done, bytes) };
    while bytes - done >= CHUNK_BYTES {
        // SAFETY: as above; the private side may be unaligned.
        unsafe {
            to.add(done).cast::<Chunk>().write_unaligned(from.add(done).cast::<Chunk>().read_volatile())
        };
        done += CHUNK_BYTES;
    }
    if bytes - done >= 8 {
        // SAFETY: as above; a chunk boundary is aligned to 8.
        unsafe { to.add(done).cast::<u64>().write_unaligned(from.add(done).cast::<u64>().read_volatile()) };
        done += 8;
    }
    if bytes - done >= 4 {
        // SAFETY: as above; aligned to 4.
        unsafe { to.add(done).cast::<u32>().write_unaligned(from.add(done).cast::<u32>().read_volatile()) };
        done += 4;
    }
    while done < bytes {
        // SAFETY: as above.
        unsafe { to.add(done).write(from.add(done).read_volatile()) };
        done += 1;
    }
}

/// Copies `from` to shared memory.
///
/// # Safety
/// `to` and the bytes after it are in a live mapping.
#[inline]
pub(super) unsafe fn copy_to(to: *mut u8, from: &[u8]) {
    let bytes = from.len();
    let from = from.as_ptr();
    let mut done = 0;
    // SAFETY: as in `copy_from`.
    while done < bytes && !unsafe { to.add(done) }.cast::<Chunk>().is_aligned() {
        // SAFETY: as in `copy_from`.
        unsafe { to.add(done).write_volatile(from.add(done).read()) };
        done += 1;
    }
    #[cfg(target_arch = "x86_64")]
    if bytes - done >= WIDE_BYTES_MIN {
        // SAFETY: as in `copy_from`.
        done = unsafe { long_to(to, from, done, bytes) };
    }
    // SAFETY: as in `copy_from`.
    done = unsafe { lines_to::<Chunk>(to, from, done, bytes) };
    while bytes - done >= CHUNK_BYTES {
        // SAFETY: as in `copy_from`.
        unsafe {
            to.add(done).cast::<Chunk>().write_volatile(from.add(done).cast::<Chunk>().read_unaligned())
        };
        done += CHUNK_BYTES;
    }
    if bytes - done >= 8 {
        // SAFETY: as in `copy_from`.
        unsafe { to.add(done).cast::<u64>().write_volatile(from.add(done).cast::<u64>().read_unaligned()) };
        done += 8;
    }
    if bytes - done >= 4 {
        // SAFETY: as in `copy_from`.
        unsafe { to.add(done).cast::<u32>().write_volatile(from.add(done).cast::<u32>().read_unaligned()) };
        done += 4;
    }
    while done < bytes {
        // SAFETY: as in `copy_from`.
        unsafe { to.add(done).write_volatile(from.add(done).read()) };
        done += 1;
    }
}

/// Accesses of a step of a loop: a step for each would be half of the work.
const STEP: usize = 4;

/// Copies from byte `done` on while there are whole steps, and says how far that is.
///
/// # Safety
/// As of [`copy_from`]; the range is as long on both sides, `done` is within it, and the shared side there is aligned.
#[inline(always)]
unsafe fn lines_from<C: Copy>(from: *const u8, to: *mut u8, mut done: usize, bytes: usize) -> usize {
    while bytes - done >= STEP * size_of::<C>() {
        for _ in 0..STEP {
            // SAFETY: as in `copy_from`.
            unsafe { to.add(done).cast::<C>().write_unaligned(from.add(done).cast::<C>().read_volatile()) };
            done += size_of::<C>();
        }
    }
    done
}

/// As [`lines_from`].
///
/// # Safety
/// As of [`copy_to`], and as there.
#[inline(always)]
unsafe fn lines_to<C: Copy>(to: *mut u8, from: *const u8, mut done: usize, bytes: usize) -> usize {
    while bytes - done >= STEP * size_of::<C>() {
        for _ in 0..STEP {
            // SAFETY: as in `copy_from`.
            unsafe { to.add(done).cast::<C>().write_volatile(from.add(done).cast::<C>().read_unaligned()) };
            done += size_of::<C>();
        }
    }
    done
}

/// As [`lines_from`], 32 bytes at a time, where processor and alignment allow that.
///
/// # Safety
/// As there.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn long_from(from: *const u8, to: *mut u8, done: usize, bytes: usize) -> usize {
    // SAFETY: by contract.
    let aligned = unsafe { from.add(done) }.cast::<__m256i>().is_aligned();
    if !aligned || !is_x86_feature_detected!("avx") {
        return done;
    }
    // SAFETY: by contract; the processor has AVX.
    unsafe { lines_from_wide(from, to, done, bytes) }
}

/// As [`lines_to`], 32 bytes at a time, where processor and alignment allow that.
///
/// # Safety
/// As there.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn long_to(to: *mut u8, from: *const u8, done: usize, bytes: usize) -> usize {
    // SAFETY: by contract.
    let aligned = unsafe { to.add(done) }.cast::<__m256i>().is_aligned();
    if !aligned || !is_x86_feature_detected!("avx") {
        return done;
    }
    // SAFETY: by contract; the processor has AVX.
    unsafe { lines_to_wide(to, from, done, bytes) }
}

/// As [`lines_from`], 32 bytes at a time.
///
/// # Safety
/// As there, and the processor has AVX.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn lines_from_wide(from: *const u8, to: *mut u8, done: usize, bytes: usize) -> usize {
    // SAFETY: by contract.
    unsafe { lines_from::<__m256i>(from, to, done, bytes) }
}

/// As [`lines_to`], 32 bytes at a time.
///
/// # Safety
/// As there, and the processor has AVX.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn lines_to_wide(to: *mut u8, from: *const u8, done: usize, bytes: usize) -> usize {
    // SAFETY: by contract.
    unsafe { lines_to::<__m256i>(to, from, done, bytes) }
}
