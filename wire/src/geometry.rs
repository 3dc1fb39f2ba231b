//! Where the cipher works: nonce, AAD, text and ICV of one packet, as offsets into its frame.

use core::fmt;
use core::ops::Range;

use crate::aead::{Aead, AuthenticationFailed};
use crate::bytes;
use crate::room::NoRoom;

/// A range of octets, from the frame's first octet. `Range` itself is not `Copy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First octet.
    pub start: usize,
    /// One past the last octet.
    pub end: usize,
}

impl Span {
    /// The span `start..end`.
    #[inline]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The same as a range.
    #[inline]
    pub const fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// Octets in the span.
    #[inline]
    pub const fn length(self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

/// What is authenticated but not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aad {
    /// Octets that stand in the frame, before the text.
    InPlace {
        /// First octet, from the frame's first.
        start: usize,
        /// One past the last octet, at most the text's start.
        end: usize,
    },
    /// Octets that do not stand in the frame in this order: ESP with extended sequence numbers.
    Inline {
        /// The octets.
        bytes: [u8; 12],
        /// How many of them count, at most 12.
        length: u8,
    },
    /// Octets in place as if four more stood between the first four, which are the SPI, and the rest: AES-GMAC in ESP
    /// with extended sequence numbers, whose AAD is the whole packet (RFC 4543, 3.3). The cipher gets one run of octets
    /// all the same, see [`Geometry::seal`].
    InPlaceWithSequenceHigh {
        /// First octet of the SPI, at least 4.
        start: usize,
        /// One past the last octet, at most the text's start.
        end: usize,
        /// The high half of the sequence number.
        sequence_high: u32,
    },
}

impl Aad {
    /// Octets that are authenticated only.
    #[inline]
    pub const fn length(&self) -> usize {
        match *self {
            Self::InPlace { start, end } => end.saturating_sub(start),
            Self::Inline { length, .. } => length as usize,
            Self::InPlaceWithSequenceHigh { start, end, .. } => {
                end.saturating_sub(start).saturating_add(SEQUENCE_HIGH_LENGTH)
            }
        }
    }
}

/// Octets of the high half of a sequence number.
const SEQUENCE_HIGH_LENGTH: usize = 4;

/// Everything a cipher lane has to know about one packet, beside the key.
///
/// Its `Debug` text leaves out the nonce's first four octets, which are an ESP SA's salt and so keying material.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The 96-bit nonce.
    pub nonce: [u8; 12],
    /// What is authenticated only.
    pub aad: Aad,
    /// What is encrypted and authenticated; empty for authentication alone.
    pub text: Span,
    /// The integrity check value, after the text; 8, 12 or 16 octets.
    pub icv: Span,
}

impl fmt::Debug for Geometry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, _, _, _, iv @ ..] = self.nonce;
        formatter
            .debug_struct("Geometry")
            .field("iv", &iv)
            .field("aad", &self.aad)
            .field("text", &self.text)
            .field("icv", &self.icv)
            .finish_non_exhaustive()
    }
}

impl Geometry {
    /// Encrypts the frame's text in place and writes the ICV.
    ///
    /// For [`Aad::InPlaceWithSequenceHigh`] the SPI moves four octets to the front while the cipher works, the high half
    /// takes its place, and both the SPI and the octets before it come back afterwards: no copy of the packet is made.
    ///
    /// # Errors
    /// [`NoRoom`] where the geometry does not lie within the frame, AAD before text before ICV, with an ICV of at most
    /// 16 octets. Nothing is encrypted then, and the frame must not be sent.
    #[inline]
    pub fn seal<A: Aead + ?Sized>(&self, aead: &A, frame: &mut [u8]) -> Result<(), NoRoom> {
        self.with_parts(frame, |aad, text, icv| {
            let length = icv.len();
            if length > 16 {
                return Err(NoRoom);
            }
            let tag = aead.seal(&self.nonce, aad, text);
            icv.copy_from_slice(tag.get(..length).ok_or(NoRoom)?);
            Ok(())
        })
        .unwrap_or(Err(NoRoom))
    }

    /// Checks the frame's ICV and decrypts its text in place.
    ///
    /// # Errors
    /// [`AuthenticationFailed`] where the ICV does not match, or where the geometry does not lie within the frame. What
    /// the text holds then is unspecified and must not be used.
    #[inline]
    pub fn open<A: Aead + ?Sized>(&self, aead: &A, frame: &mut [u8]) -> Result<(), AuthenticationFailed> {
        self.with_parts(frame, |aad, text, icv| {
            if !matches!(icv.len(), 8 | 12 | 16) {
                return Err(AuthenticationFailed);
            }
            aead.open(&self.nonce, aad, text, icv)
        })
        .unwrap_or(Err(AuthenticationFailed))
    }

    /// Runs `work` on AAD, text and ICV, or nothing where they overlap or leave the frame.
    #[inline(always)]
    fn with_parts<R>(
        &self,
        frame: &mut [u8],
        work: impl FnOnce(&[u8], &mut [u8], &mut [u8]) -> R,
    ) -> Option<R> {
        let Aad::InPlaceWithSequenceHigh { start, end, sequence_high } = self.aad else {
            let (aad, text, icv) = self.split(frame, &self.aad)?;
            return Some(work(aad, text, icv));
        };
        let front = start.checked_sub(SEQUENCE_HIGH_LENGTH)?;
        // The octets that are put back below must not reach into the text.
        if end < start.checked_add(SEQUENCE_HIGH_LENGTH)? {
            return None;
        }
        let before: [u8; 2 * SEQUENCE_HIGH_LENGTH] = bytes::array(frame, front)?;
        let [_, _, _, _, p0, p1, p2, p3] = before;
        let [h0, h1, h2, h3] = sequence_high.to_be_bytes();
        bytes::put(frame, front, &[p0, p1, p2, p3, h0, h1, h2, h3]).ok()?;
        let result = self
            .split(frame, &Aad::InPlace { start: front, end })
            .map(|(aad, text, icv)| work(aad, text, icv));
        bytes::put(frame, front, &before).ok()?;
        result
    }

    /// AAD, text and ICV as slices, or nothing where they overlap or leave the frame.
    #[inline]
    fn split<'a>(&self, frame: &'a mut [u8], aad: &'a Aad) -> Option<(&'a [u8], &'a mut [u8], &'a mut [u8])> {
        let (front, back) = frame.split_at_mut_checked(self.icv.start)?;
        let icv = back.get_mut(..self.icv.end.checked_sub(self.icv.start)?)?;
        let (before, text) = front.split_at_mut_checked(self.text.start)?;
        let text = text.get_mut(..self.text.end.checked_sub(self.text.start)?)?;
        let aad = match aad {
            Aad::InPlace { start, end } => before.get(*start..*end)?,
            Aad::Inline { bytes, length } => bytes.get(..usize::from(*length))?,
            Aad::InPlaceWithSequenceHigh { .. } => return None,
        };
        Some((aad, text, icv))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Not a cipher: inverts the text, and sums AAD and text into the tag.
    struct Inverter;

    impl Inverter {
        fn tag(nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> [u8; 16] {
            let mut tag = [0u8; 16];
            for (index, octet) in nonce.iter().chain(aad).chain(text).enumerate() {
                tag[index % 8] = tag[index % 8].wrapping_mul(31).wrapping_add(*octet);
            }
            tag
        }
    }

    impl Aead for Inverter {
        fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
            text.iter_mut().for_each(|octet| *octet = !*octet);
            Self::tag(nonce, aad, text)
        }

        fn open(
            &self,
            nonce: &[u8; 12],
            aad: &[u8],
            text: &mut [u8],
            tag: &[u8],
        ) -> Result<(), AuthenticationFailed> {
            if Self::tag(nonce, aad, text)[..tag.len()] != *tag {
                return Err(AuthenticationFailed);
            }
            text.iter_mut().for_each(|octet| *octet = !*octet);
            Ok(())
        }
    }

    #[test]
    fn open_undoes_seal() {
        let mut frame: [u8; 40] = core::array::from_fn(|index| index as u8);
        let before = frame;
        let geometry = Geometry {
            nonce: [7; 12],
            aad: Aad::InPlace { start: 4, end: 12 },
            text: Span::new(12, 28),
            icv: Span::new(28, 40),
        };
        geometry.seal(&Inverter, &mut frame).unwrap();
        assert_ne!(frame, before);
        let mut flipped = frame;
        flipped[5] ^= 1;
        assert_eq!(geometry.open(&Inverter, &mut flipped), Err(AuthenticationFailed));
        geometry.open(&Inverter as &dyn Aead, &mut frame).unwrap();
        assert_eq!(frame[..28], before[..28]);
    }

    #[test]
    fn overlap_is_refused() {
        let mut frame = [0u8; 40];
        let good = Geometry {
            nonce: [0; 12],
            aad: Aad::InPlace { start: 4, end: 12 },
            text: Span::new(12, 24),
            icv: Span::new(24, 40),
        };
        for bad in [
            Geometry { aad: Aad::InPlace { start: 4, end: 13 }, ..good },
            Geometry { aad: Aad::InPlace { start: 5, end: 4 }, ..good },
            Geometry { aad: Aad::Inline { bytes: [0; 12], length: 13 }, ..good },
            Geometry { aad: Aad::InPlaceWithSequenceHigh { start: 3, end: 12, sequence_high: 9 }, ..good },
            Geometry { aad: Aad::InPlaceWithSequenceHigh { start: 4, end: 13, sequence_high: 9 }, ..good },
            Geometry { aad: Aad::InPlaceWithSequenceHigh { start: 8, end: 11, sequence_high: 9 }, ..good },
            Geometry { aad: Aad::InPlaceWithSequenceHigh { start: 38, end: 50, sequence_high: 9 }, ..good },
            Geometry { text: Span::new(12, 25), ..good },
            Geometry { icv: Span::new(24, 41), ..good },
            Geometry { icv: Span::new(24, 23), ..good },
            Geometry { text: Span::new(12, 12), icv: Span::new(12, 29), ..good },
        ] {
            assert_eq!(bad.seal(&Inverter, &mut frame), Err(NoRoom), "{bad:?}");
        }
        assert_eq!(frame, [0u8; 40]);
    }

    #[test]
    fn high_half_stands_between_the_spi_and_the_rest() {
        let mut frame: [u8; 40] = core::array::from_fn(|index| index as u8);
        let before = frame;
        let geometry = Geometry {
            nonce: [7; 12],
            aad: Aad::InPlaceWithSequenceHigh { start: 4, end: 24, sequence_high: 0xa1a2_a3a4 },
            text: Span::new(24, 24),
            icv: Span::new(24, 40),
        };
        let mut aad = [0u8; 24];
        aad[..4].copy_from_slice(&before[4..8]);
        aad[4..8].copy_from_slice(&[0xa1, 0xa2, 0xa3, 0xa4]);
        aad[8..].copy_from_slice(&before[8..24]);
        assert_eq!(geometry.aad.length(), aad.len());
        geometry.seal(&Inverter, &mut frame).unwrap();
        assert_eq!(frame[..24], before[..24]);
        assert_eq!(frame[24..], Inverter::tag(&[7; 12], &aad, &[]));
        let sealed = frame;
        geometry.open(&Inverter, &mut frame).unwrap();
        assert_eq!(frame, sealed);
        let other = Aad::InPlaceWithSequenceHigh { start: 4, end: 24, sequence_high: 1 };
        let other = Geometry { aad: other, ..geometry };
        assert_eq!(other.open(&Inverter, &mut frame), Err(AuthenticationFailed));
        assert_eq!(frame, sealed);
    }

    proptest! {
        #[test]
        fn never_panics(numbers in any::<[usize; 6]>(), small in any::<[u8; 7]>(), wide in any::<bool>()) {
            let mut frame = [0u8; 64];
            let number = |index: usize| if wide { numbers[index] } else { usize::from(small[index] & 0x7f) };
            let aad = match small[6] % 3 {
                0 => Aad::InPlace { start: number(0), end: number(1) },
                1 => Aad::Inline { bytes: [0; 12], length: small[6] },
                _ => Aad::InPlaceWithSequenceHigh { start: number(0), end: number(1), sequence_high: 7 },
            };
            let text = Span::new(number(2), number(3));
            let geometry = Geometry { nonce: [0; 12], aad, text, icv: Span::new(number(4), number(5)) };
            let _ = geometry.seal(&Inverter, &mut frame);
            let _ = geometry.open(&Inverter, &mut frame);
        }
    }
}
