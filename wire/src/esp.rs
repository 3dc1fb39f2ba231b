//! ESP with AES-GCM: layout, nonce, AAD, padding and trailer (RFC 4303, RFC 4106).
//!
//! ```text
//!   octet 0         1         2         3         4         5         6         7
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!      0 |                  SPI                  |  sequence number, low 32 bits         |   AAD
//!      8 |                                   IV (64 bits)                                |
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!     16 |  payload: inner packet, or upper header and data ...                          |  text
//!        |  ... padding 1, 2, 3, ... to a 4-octet boundary         | pad len | next hdr  |  text
//!        +---------------------------------------------------------------------------------+
//!        |  ICV (8, 12 or 16 octets)                                                     |
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//! ```

use core::fmt;

use crate::aead::IcvLength;
use crate::bytes;
use crate::geometry::{Aad, Geometry, Span};
use crate::malformed::Malformed;
use crate::packet::{Parsed, Protocol};
use crate::room::NoRoom;

/// Octets of SPI, sequence number and IV.
pub const HEADER_LENGTH: usize = 16;
/// Octets of pad length and next header.
pub const TRAILER_FIXED_LENGTH: usize = 2;
/// Boundary on which the next header ends, in octets (RFC 4303, 2.4).
pub const ALIGNMENT: usize = 4;
/// SPIs 1 up to this are reserved by IANA (RFC 4303, 2.1); 0 is never on the wire.
pub const LAST_RESERVED_SPI: u32 = 255;

/// Octet ranges from the ESP header's first octet.
pub mod field {
    use core::ops::Range;
    /// Security parameters index.
    pub const SPI: Range<usize> = 0..4;
    /// Low 32 bits of the sequence number.
    pub const SEQUENCE: Range<usize> = 4..8;
    /// Explicit IV (RFC 4106, 3.1).
    pub const IV: Range<usize> = 8..16;
}

/// SPI, sequence number and IV: what stands in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Security parameters index.
    pub spi: u32,
    /// Low 32 bits of the sequence number.
    pub sequence: u32,
    /// Explicit IV.
    pub iv: [u8; 8],
}

impl Header {
    /// Reads the header at the front of `packet`, which is the IP payload.
    ///
    /// # Errors
    /// [`Malformed::TruncatedEsp`]; [`Malformed::ReservedSpi`] for SPI 0.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let truncated = Malformed::TruncatedEsp;
        let spi = u32::from_be_bytes(bytes::array(packet, field::SPI.start).ok_or(truncated)?);
        let sequence = u32::from_be_bytes(bytes::array(packet, field::SEQUENCE.start).ok_or(truncated)?);
        let iv = bytes::array(packet, field::IV.start).ok_or(truncated)?;
        if spi == 0 { Err(Malformed::ReservedSpi) } else { Ok(Self { spi, sequence, iv }) }
    }

    /// Writes the header's 16 octets to the front of `packet`.
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter; what it holds is then unspecified.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        bytes::put(packet, field::SPI.start, &self.spi.to_be_bytes())?;
        bytes::put(packet, field::SEQUENCE.start, &self.sequence.to_be_bytes())?;
        bytes::put(packet, field::IV.start, &self.iv)
    }
}

/// What an SA gives to its packets, beside the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Security parameters index, above 255.
    pub spi: u32,
    /// First four octets of every nonce; part of the keying material (RFC 4106, 8.1).
    pub salt: [u8; 4],
    /// Whether sequence numbers have 64 bits, of which the high half is authenticated but not sent.
    pub extended_sequence: bool,
    /// Length of the ICV.
    pub icv_length: IcvLength,
}

impl fmt::Debug for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Parameters")
            .field("spi", &self.spi)
            .field("extended_sequence", &self.extended_sequence)
            .field("icv_length", &self.icv_length)
            .finish_non_exhaustive()
    }
}

/// Padding octets for `inner_length` octets of payload: the fewest that end the next header on a 4-octet boundary, 0 to
/// 3 (RFC 4303, 2.4).
#[inline]
pub const fn pad_length(inner_length: usize) -> usize {
    (ALIGNMENT - (inner_length % ALIGNMENT + TRAILER_FIXED_LENGTH) % ALIGNMENT) % ALIGNMENT
}

/// Octets of padding, pad length and next header after `inner_length` octets of payload: 2 to 5.
#[inline]
pub const fn trailer_length(inner_length: usize) -> usize {
    pad_length(inner_length) + TRAILER_FIXED_LENGTH
}

/// Octets ESP adds to `inner_length` octets of payload: header, IV, trailer and ICV; 34 to 37 with a 16-octet ICV. An
/// outer IP header comes on top in tunnel mode.
#[inline]
pub const fn overhead(inner_length: usize, icv_length: IcvLength) -> usize {
    HEADER_LENGTH + trailer_length(inner_length) + icv_length.octets()
}

/// The nonce: salt, then IV (RFC 4106, 4).
#[inline]
pub const fn nonce(salt: [u8; 4], iv: [u8; 8]) -> [u8; 12] {
    let [s0, s1, s2, s3] = salt;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}

/// The AAD of a packet whose ESP header begins at `offset` of its frame (RFC 4106, 5): with extended sequence
/// numbers SPI, high half, low half (12 octets), else SPI and sequence number as they stand in the frame (8 octets).
#[inline]
pub const fn aad(offset: usize, spi: u32, extended_sequence: Option<u64>) -> Aad {
    match extended_sequence {
        None => Aad::InPlace { start: offset, end: offset.saturating_add(field::SEQUENCE.end) },
        Some(sequence) => {
            let [p0, p1, p2, p3] = spi.to_be_bytes();
            let [q0, q1, q2, q3, q4, q5, q6, q7] = sequence.to_be_bytes();
            Aad::Inline { bytes: [p0, p1, p2, p3, q0, q1, q2, q3, q4, q5, q6, q7], length: 12 }
        }
    }
}

/// The geometry of a packet that is to be sealed: ESP header at `offset`, ICV ending at `end` of the frame. The IV
/// is the 64-bit sequence number, unique as long as the sequence number is.
#[inline]
pub(crate) fn transmit_geometry(
    parameters: &Parameters,
    sequence: u64,
    offset: usize,
    end: usize,
) -> Option<Geometry> {
    let extended = parameters.extended_sequence.then_some(sequence);
    let iv = sequence.to_be_bytes();
    geometry(parameters.spi, parameters.salt, iv, extended, parameters.icv_length, offset, end)
}

/// The geometry of a received packet, with what its SA says: the salt, the 64-bit sequence number if the SA
/// has extended ones (see [`sequence::infer`](crate::sequence::infer)), and the length of the ICV.
///
/// # Errors
/// [`Malformed::NotThisProtocol`] where the packet is not ESP; [`Malformed::TruncatedEsp`] where it cannot hold header,
/// IV, the shortest trailer and ICV.
#[inline]
pub fn receive_geometry(
    parsed: &Parsed,
    frame: &[u8],
    salt: [u8; 4],
    extended_sequence: Option<u64>,
    icv_length: IcvLength,
) -> Result<Geometry, Malformed> {
    if parsed.protocol != Protocol::Esp {
        return Err(Malformed::NotThisProtocol);
    }
    let (offset, end) = (parsed.security_offset, parsed.plain.l3_end);
    let packet = frame.get(offset..end).ok_or(Malformed::TruncatedEsp)?;
    let iv = bytes::array(packet, field::IV.start).ok_or(Malformed::TruncatedEsp)?;
    let geometry = geometry(parsed.spi, salt, iv, extended_sequence, icv_length, offset, end);
    geometry.ok_or(Malformed::TruncatedEsp)
}

/// Both directions' geometry; nothing where the text has no room for a trailer.
#[inline]
fn geometry(
    spi: u32,
    salt: [u8; 4],
    iv: [u8; 8],
    extended_sequence: Option<u64>,
    icv_length: IcvLength,
    offset: usize,
    end: usize,
) -> Option<Geometry> {
    let text = Span::new(offset.checked_add(HEADER_LENGTH)?, end.checked_sub(icv_length.octets())?);
    if text.length() < TRAILER_FIXED_LENGTH {
        return None;
    }
    Some(Geometry {
        nonce: nonce(salt, iv),
        aad: aad(offset, spi, extended_sequence),
        text,
        icv: Span::new(text.end, end),
    })
}

/// What the end of an opened ESP text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Padding octets, 0 to 255.
    pub pad_length: u8,
    /// Protocol of the payload; 59 for a dummy packet.
    pub next_header: u8,
    /// Octets of payload before the padding; the payload of tunnel mode may itself end in TFC padding.
    pub payload_length: usize,
}

/// Why an authenticated text has no trailer: its sender is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTrailer {
    /// The pad length passes the text's front.
    PadLength,
    /// The padding is not 1, 2, 3, ...
    PadPattern,
}

impl fmt::Display for BadTrailer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::PadLength => "the ESP pad length is longer than the text",
            Self::PadPattern => "the ESP padding is not 1, 2, 3, ...",
        })
    }
}

impl core::error::Error for BadTrailer {}

/// Reads the trailer at the end of an opened `text` (RFC 4303, 2.4 and 3.4.4.1).
///
/// # Errors
/// [`BadTrailer`].
#[inline]
pub fn parse_trailer(text: &[u8]) -> Result<Trailer, BadTrailer> {
    let (before, [pad_length, next_header]) =
        text.split_last_chunk::<TRAILER_FIXED_LENGTH>().ok_or(BadTrailer::PadLength)?;
    let payload_length = before.len().checked_sub(usize::from(*pad_length)).ok_or(BadTrailer::PadLength)?;
    let padding = before.get(payload_length..).unwrap_or(&[]);
    if padding.iter().zip(1u8..=255).any(|(octet, expected)| *octet != expected) {
        return Err(BadTrailer::PadPattern);
    }
    Ok(Trailer { pad_length: *pad_length, next_header: *next_header, payload_length })
}

/// Fills `trailer` with padding 1, 2, 3, ..., pad length and next header. Its length is [`trailer_length`], and says how
/// much padding there is.
///
/// # Errors
/// [`NoRoom`] where `trailer` has fewer than 2 or more than 257 octets.
#[inline]
pub fn emit_trailer(trailer: &mut [u8], next_header: u8) -> Result<(), NoRoom> {
    let (padding, last) = trailer.split_last_chunk_mut::<TRAILER_FIXED_LENGTH>().ok_or(NoRoom)?;
    let pad_length = u8::try_from(padding.len()).map_err(|_| NoRoom)?;
    for (octet, value) in padding.iter_mut().zip(1u8..=255) {
        *octet = value;
    }
    *last = [pad_length, next_header];
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_aligns_and_is_shortest() {
        for inner in 0..64 {
            assert_eq!((inner + trailer_length(inner)) % ALIGNMENT, 0);
            assert!(pad_length(inner) < ALIGNMENT);
        }
        assert_eq!(overhead(1, IcvLength::Octets16), 35);
        assert_eq!(overhead(3, IcvLength::Octets16), 37);
        pad_length(usize::MAX);
    }

    #[test]
    fn every_trailer_comes_back() {
        for pad in 0..=255usize {
            let mut text = [0xeeu8; 300];
            emit_trailer(&mut text[43..45 + pad], 41).unwrap();
            let text = &mut text[..45 + pad];
            let trailer = parse_trailer(text).unwrap();
            assert_eq!(trailer, Trailer { pad_length: pad as u8, next_header: 41, payload_length: 43 });
            if pad > 0 {
                text[43] ^= 0x80;
                assert_eq!(parse_trailer(text), Err(BadTrailer::PadPattern));
            }
        }
        assert_eq!(parse_trailer(&[2, 4]), Err(BadTrailer::PadLength));
        assert_eq!(parse_trailer(&[4]), Err(BadTrailer::PadLength));
        assert_eq!(parse_trailer(&[1, 1, 59]).unwrap().payload_length, 0);
        assert_eq!(emit_trailer(&mut [0; 1], 4), Err(NoRoom));
        assert_eq!(emit_trailer(&mut [0; 258], 4), Err(NoRoom));
    }

    #[test]
    fn salt_is_not_printed() {
        extern crate std;
        let parameters = Parameters {
            spi: 0x1001,
            salt: [0xde, 0xad, 0xbe, 0xef],
            extended_sequence: false,
            icv_length: IcvLength::Octets16,
        };
        let text = std::format!("{parameters:?}");
        assert!(!text.contains("222") && !text.contains("salt"), "{text}");
    }
}
