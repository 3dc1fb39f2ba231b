//! Where the cipher works: nonce, AAD, text and ICV of one packet, as offsets into its frame.

use core::fmt;
use core::ops::Range;

use crate::aead::{Aead, AuthenticationFailed};
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
}

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
    /// # Errors
    /// [`NoRoom`] where the geometry does not lie within the frame, AAD before text before ICV, with an ICV of at most
    /// 16 octets. Nothing is encrypted then, and the frame must not be sent.
    #[inline]
    pub fn seal<A: Aead + ?Sized>(&self, aead: &A, frame: &mut [u8]) -> Result<(), NoRoom> {
        let (aad, text, icv) = self.split(frame).ok_or(NoRoom)?;
        let length = icv.len();
        if length > 16 {
            return Err(NoRoom);
        }
        let tag = aead.seal(&self.nonce, aad, text);
        icv.copy_from_slice(tag.get(..length).ok_or(NoRoom)?);
        Ok(())
    }

    /// Checks the frame's ICV and decrypts its text in place.
    ///
    /// # Errors
    /// [`AuthenticationFailed`] where the ICV does not match, or where the geometry does not lie within the frame. What
    /// the text holds then is unspecified and must not be used.
    #[inline]
    pub fn open<A: Aead + ?Sized>(&self, aead: &A, frame: &mut [u8]) -> Result<(), AuthenticationFailed> {
        let (aad, text, icv) = self.split(frame).ok_or(AuthenticationFailed)?;
        if !matches!(icv.len(), 8 | 12 | 16) {
            return Err(AuthenticationFailed);
        }
        aead.open(&self.nonce, aad, text, icv)
    }

    /// AAD, text and ICV as slices, or nothing where they overlap or leave the frame.
    #[inline]
    fn split<'a>(&'a self, frame: &'a mut [u8]) -> Option<(&'a [u8], &'a mut [u8], &'a mut [u8])> {
        let (front, back) = frame.split_at_mut_checked(self.icv.start)?;
        let icv = back.get_mut(..self.icv.end.checked_sub(self.icv.start)?)?;
        let (before, text) = front.split_at_mut_checked(self.text.start)?;
        let text = text.get_mut(..self.text.end.checked_sub(self.text.start)?)?;
        let aad = match &self.aad {
            Aad::InPlace { start, end } => before.get(*start..*end)?,
            Aad::Inline { bytes, length } => bytes.get(..usize::from(*length))?,
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
            Geometry { text: Span::new(12, 25), ..good },
            Geometry { icv: Span::new(24, 41), ..good },
            Geometry { icv: Span::new(24, 23), ..good },
            Geometry { text: Span::new(12, 12), icv: Span::new(12, 29), ..good },
        ] {
            assert_eq!(bad.seal(&Inverter, &mut frame), Err(NoRoom), "{bad:?}");
        }
        assert_eq!(frame, [0u8; 40]);
    }

    proptest! {
        #[test]
        fn never_panics(numbers in any::<[usize; 6]>(), small in any::<[u8; 7]>(), wide in any::<bool>()) {
            let mut frame = [0u8; 64];
            let number = |index: usize| if wide { numbers[index] } else { usize::from(small[index] & 0x7f) };
            let aad = if small[6] & 1 == 0 {
                Aad::InPlace { start: number(0), end: number(1) }
            } else {
                Aad::Inline { bytes: [0; 12], length: small[6] }
            };
            let text = Span::new(number(2), number(3));
            let geometry = Geometry { nonce: [0; 12], aad, text, icv: Span::new(number(4), number(5)) };
            let _ = geometry.seal(&Inverter, &mut frame);
            let _ = geometry.open(&Inverter, &mut frame);
        }
    }
}
