//! Sequence numbers of ESP: the high half that is not on the wire (RFC 4303, A2.2) and the anti-replay window
//! (RFC 4303, 3.4.3; RFC 6479).

use core::fmt;

/// Smallest window other than off (RFC 4303, 3.4.3).
pub const MIN_WINDOW: u32 = 32;
/// Largest window.
pub const MAX_WINDOW: u32 = 65536;
/// Bits in a block of the ring.
pub const BLOCK_BITS: u32 = u64::BITS;

/// Why no 64-bit sequence number can be given to 32 bits from the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSequence {
    /// The number is 0, which no sender uses (RFC 4303, 3.3.3).
    Zero,
    /// The packet would belong to the epoch before the first.
    Underflow,
    /// The packet would belong to the epoch after the last.
    Overflow,
}

impl fmt::Display for BadSequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Zero => "sequence number 0 is never sent",
            Self::Underflow => "the sequence number lies before the first epoch",
            Self::Overflow => "the sequence number lies after the last epoch",
        })
    }
}

impl core::error::Error for BadSequence {}

/// The 64-bit sequence number whose low half is `low`, given the highest authenticated one and the window.
///
/// RFC 4303, A2.2 tells two cases apart. Both say: of all numbers with that low half, take the one in
/// `top - window + 1 ..= top - window + 2^32`. Hence one adder and a compare:
///
/// ```text
///   d = (low - top + window - 1) mod 2^32        distance from the window's left edge
///   S = top - window + 1 + d
/// ```
///
/// A number that was too old by the wire's view comes out one epoch ahead, and so fails its ICV. `window` is taken
/// as 1 to 2^31 (A2.1); with the window off, pass 2^31: half of the numbers are then behind and half ahead.
///
/// # Errors
/// [`BadSequence`] where S is 0 or does not fit 64 bits.
#[inline]
pub const fn infer(top: u64, low: u32, window: u32) -> Result<u64, BadSequence> {
    let window = if window == 0 {
        1
    } else if window > 1 << 31 {
        1 << 31
    } else {
        window
    };
    let behind_top = window - 1;
    let distance = low.wrapping_sub(top as u32).wrapping_add(behind_top);
    let sequence = if distance >= behind_top {
        match top.checked_add((distance - behind_top) as u64) {
            Some(sequence) => sequence,
            None => return Err(BadSequence::Overflow),
        }
    } else {
        match top.checked_sub((behind_top - distance) as u64) {
            Some(sequence) => sequence,
            None => return Err(BadSequence::Underflow),
        }
    };
    if sequence == 0 { Err(BadSequence::Zero) } else { Ok(sequence) }
}

/// What the window says about a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Above every number accepted so far: it moves the window.
    New,
    /// Inside the window and not seen yet.
    InWindow,
    /// Inside the window and seen already: a replay.
    Duplicate,
    /// Left of the window, or 0: too old to tell.
    BelowWindow,
}

impl Verdict {
    /// Whether the packet may go on.
    #[inline]
    pub const fn is_acceptable(self) -> bool {
        matches!(self, Self::New | Self::InWindow)
    }
}

/// Blocks of [`BLOCK_BITS`] that a window needs: a power of two with one block to spare (RFC 6479, 2), none for
/// window 0.
#[inline]
pub const fn ring_blocks(window: u32) -> usize {
    if window == 0 { 0 } else { (window.div_ceil(BLOCK_BITS) + 1).next_power_of_two() as usize }
}

/// Why a window cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadWindow {
    /// The size is neither 0 nor within [`MIN_WINDOW`] to [`MAX_WINDOW`].
    Size,
    /// The ring has not exactly [`ring_blocks`] blocks.
    Ring,
}

impl fmt::Display for BadWindow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Size => "a replay window is 0 (off) or 32 to 65536",
            Self::Ring => "the ring has the wrong number of blocks for the window",
        })
    }
}

impl core::error::Error for BadWindow {}

/// An anti-replay window as a ring of 64-bit blocks (RFC 6479). Moving it clears whole blocks and shifts nothing.
///
/// ```text
///   sequence number   63 ............ 6 | 5 .... 0
///                     block, mod ring   | bit in block
/// ```
///
/// The ring is any storage that lends `[u64]`: an array, a slice, a vector. The window is exact: a number is
/// in it from `top - window + 1` to `top`. With window 0 nothing is refused and the ring is empty. The verdict before
/// the ICV is advisory; [`update`](Self::update) after a good ICV is the test-and-set that counts (RFC 4303, 3.4.3).
#[derive(Clone, Debug)]
pub struct ReplayWindow<R> {
    window: u32,
    top: u64,
    ring: R,
}

impl<R: AsRef<[u64]> + AsMut<[u64]>> ReplayWindow<R> {
    /// A window after `top` was the highest sequence number accepted. Numbers up to `top` count as seen, for whoever
    /// restores an SA does not know which of them were. A fresh SA has `top` 0. The ring is overwritten.
    ///
    /// # Errors
    /// [`BadWindow`].
    pub fn new(window: u32, top: u64, mut ring: R) -> Result<Self, BadWindow> {
        if window != 0 && !(MIN_WINDOW..=MAX_WINDOW).contains(&window) {
            return Err(BadWindow::Size);
        }
        if ring.as_ref().len() != ring_blocks(window) {
            return Err(BadWindow::Ring);
        }
        ring.as_mut().fill(u64::MAX);
        let index = block_index(ring.as_ref(), top);
        if let Some(block) = ring.as_mut().get_mut(index) {
            *block = u64::MAX >> (63 - top % 64);
        }
        Ok(Self { window, top, ring })
    }

    /// The highest sequence number accepted, 0 at first.
    #[inline]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// The window's size in packets, 0 where it is off.
    #[inline]
    pub fn window(&self) -> u32 {
        self.window
    }

    /// What the window says about `sequence`, without a change.
    #[inline]
    pub fn check(&self, sequence: u64) -> Verdict {
        if self.window == 0 {
            return if sequence > self.top { Verdict::New } else { Verdict::InWindow };
        }
        if sequence == 0 {
            return Verdict::BelowWindow;
        }
        if sequence > self.top {
            return Verdict::New;
        }
        if self.top - sequence >= u64::from(self.window) {
            return Verdict::BelowWindow;
        }
        let ring = self.ring.as_ref();
        let block = ring.get(block_index(ring, sequence)).copied().unwrap_or(u64::MAX);
        if block >> (sequence % 64) & 1 == 1 { Verdict::Duplicate } else { Verdict::InWindow }
    }

    /// Checks `sequence` and, where it is acceptable, marks it as seen and moves the window. To be called in
    /// the packets' order of commitment, after the ICV was found good.
    #[inline]
    pub fn update(&mut self, sequence: u64) -> Verdict {
        let verdict = self.check(sequence);
        if verdict == Verdict::New {
            self.advance(sequence);
        }
        if verdict.is_acceptable() {
            let ring = self.ring.as_mut();
            let index = block_index(ring, sequence);
            if let Some(block) = ring.get_mut(index) {
                *block |= 1 << (sequence % 64);
            }
        }
        verdict
    }

    /// Moves the right edge to `sequence` and clears the blocks it enters.
    #[inline]
    fn advance(&mut self, sequence: u64) {
        let (old, new) = (self.top / 64, sequence / 64);
        self.top = sequence;
        let ring = self.ring.as_mut();
        if new - old >= ring.len() as u64 {
            ring.fill(0);
            return;
        }
        for entered in old + 1..=new {
            let index = block_index(ring, entered * 64);
            if let Some(block) = ring.get_mut(index) {
                *block = 0;
            }
        }
    }
}

/// The block of a sequence number; 0 in an empty ring.
#[inline]
fn block_index(ring: &[u64], sequence: u64) -> usize {
    (sequence / 64) as usize & ring.len().saturating_sub(1)
}
