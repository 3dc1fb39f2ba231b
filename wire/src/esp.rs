//! ESP with AES-GCM and AES-GMAC: layout, nonce, AAD, padding and trailer (RFC 4303, RFC 4106, RFC 4543, RFC 8750).
//!
//! ```text
//!   octet 0         1         2         3         4         5         6         7
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!      0 |                  SPI                  |  sequence number, low 32 bits         |   AAD
//!      8 |                IV (64 bits; none where it is implicit)                        |
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!     16 |  payload: inner packet, or upper header and data, then TFC padding ...          |  text
//!        |  ... padding 1, 2, 3, ... to a 4-octet boundary         | pad len | next hdr  |  text
//!        +---------------------------------------------------------------------------------+
//!        |  ICV (8, 12 or 16 octets)                                                     |
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//! ```
//! Under AES-GMAC all from the SPI to the next header is AAD, and there is no text.

use core::fmt;

use crate::aead::IcvLength;
use crate::bytes;
use crate::geometry::{Aad, Geometry, Span};
use crate::malformed::Malformed;
use crate::packet::{Parsed, Ports, Protocol};
use crate::room::NoRoom;

/// Octets of SPI and sequence number.
pub const FIXED_LENGTH: usize = 8;
/// Octets of SPI, sequence number and explicit IV.
pub const HEADER_LENGTH: usize = 16;
/// Octets of pad length and next header.
pub const TRAILER_FIXED_LENGTH: usize = 2;
/// Boundary on which the next header ends, in octets (RFC 4303, 2.4).
pub const ALIGNMENT: usize = 4;
/// SPIs 1 up to this are reserved by IANA (RFC 4303, 2.1); 0 is never on the wire.
pub const LAST_RESERVED_SPI: u32 = 255;
/// UDP port of ESP in UDP unless configured otherwise (RFC 3948, 2.1).
pub const DEFAULT_UDP_PORT: u16 = 4500;
/// The payload of a NAT keepalive, one octet (RFC 3948, 2.3).
pub const NAT_KEEPALIVE: u8 = 0xff;
/// What stands in the SPI's place where a datagram at the port of ESP in UDP is not ESP (RFC 3948, 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

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

/// SPI and sequence number, with which every ESP packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Security parameters index.
    pub spi: u32,
    /// Low 32 bits of the sequence number.
    pub sequence: u32,
}

impl Header {
    /// Reads the header at the front of `packet`, which is the IP or UDP payload.
    ///
    /// # Errors
    /// [`Malformed::TruncatedEsp`]; [`Malformed::ReservedSpi`] for SPI 0.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let truncated = Malformed::TruncatedEsp;
        let spi = u32::from_be_bytes(bytes::array(packet, field::SPI.start).ok_or(truncated)?);
        let sequence = u32::from_be_bytes(bytes::array(packet, field::SEQUENCE.start).ok_or(truncated)?);
        if spi == 0 { Err(Malformed::ReservedSpi) } else { Ok(Self { spi, sequence }) }
    }

    /// Writes the header's eight octets to the front of `packet`. An explicit IV stands behind them, at [`field::IV`].
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter; what it holds is then unspecified.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        bytes::put(packet, field::SPI.start, &self.spi.to_be_bytes())?;
        bytes::put(packet, field::SEQUENCE.start, &self.sequence.to_be_bytes())
    }
}

/// What an SA does with its packets' octets; the key's length is the cipher's own affair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-GCM with the IV in the packet (RFC 4106).
    #[default]
    Gcm,
    /// AES-GCM whose IV is the sequence number and stands nowhere else (RFC 8750). The ICV has 16 octets.
    GcmImplicitIv,
    /// AES-GMAC: authentication alone (RFC 4543). The ICV has 16 octets.
    Gmac,
}

impl Cipher {
    /// Octets of the IV in the packet.
    #[inline]
    pub const fn iv_length(self) -> usize {
        match self {
            Self::Gcm | Self::Gmac => HEADER_LENGTH - FIXED_LENGTH,
            Self::GcmImplicitIv => 0,
        }
    }

    /// Whether the cipher has ICVs of this length (RFC 4106, 6; RFC 4543, 3.3; RFC 8750, 3).
    #[inline]
    pub const fn has_icv_length(self, icv_length: IcvLength) -> bool {
        matches!((self, icv_length), (Self::Gcm, _) | (_, IcvLength::Octets16))
    }
}

/// The checksum of the UDP header around ESP when it goes over IPv6. Over IPv4 it is always zero (RFC 3948, 2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv6UdpChecksum {
    /// Zero, which the far end must have agreed to (RFC 6935, RFC 6936).
    #[default]
    Zero,
    /// Over all of the packet, ciphertext and ICV included: by
    /// [`finish_outer_checksum`](crate::esp_transform::finish_outer_checksum), after sealing.
    Computed,
}

/// The UDP header around ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpEncapsulation {
    /// Source and destination port.
    pub ports: Ports,
    /// What its checksum is over IPv6.
    pub ipv6_checksum: Ipv6UdpChecksum,
}

/// On which side of ESP the destination options of a transport packet stand that are for its last destination (RFC 4303,
/// 3.1.1 allows both).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastOptions {
    /// Before ESP, in clear.
    #[default]
    Outside,
    /// After ESP, protected.
    Inside,
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
    /// How octets are protected.
    pub cipher: Cipher,
    /// Length of the ICV, one that the cipher [has](Cipher::has_icv_length).
    pub icv_length: IcvLength,
    /// Sending: the UDP header around ESP, if there is one. Receiving takes ESP with and without it.
    pub udp: Option<UdpEncapsulation>,
    /// Sending in tunnel mode: inner packets with fewer octets than this are followed by zeros up to it, so that their
    /// lengths do not tell what they are (RFC 4303, 2.7). 0 is off. Inner packets of other modes do not say their own
    /// length, so those modes refuse it.
    pub tfc_length: u16,
    /// Sending in transport mode over IPv6: the place of destination options.
    pub last_options: LastOptions,
}

impl Parameters {
    /// AES-GCM with an explicit IV, 32-bit sequence numbers and an ICV of 16 octets, directly over IP.
    pub const fn new(spi: u32, salt: [u8; 4]) -> Self {
        Self {
            spi,
            salt,
            extended_sequence: false,
            cipher: Cipher::Gcm,
            icv_length: IcvLength::Octets16,
            udp: None,
            tfc_length: 0,
            last_options: LastOptions::Outside,
        }
    }

    /// Octets of SPI, sequence number and IV.
    #[inline]
    pub const fn header_length(&self) -> usize {
        FIXED_LENGTH + self.cipher.iv_length()
    }

    /// Octets ESP adds to `inner_length` octets of payload: header, IV, trailer and ICV; 34 to 37 with an explicit IV and
    /// a 16-octet ICV. UDP header, TFC padding and outer IP header come on top.
    #[inline]
    pub const fn overhead(&self, inner_length: usize) -> usize {
        self.header_length() + trailer_length(inner_length) + self.icv_length.octets()
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Parameters")
            .field("spi", &self.spi)
            .field("extended_sequence", &self.extended_sequence)
            .field("cipher", &self.cipher)
            .field("icv_length", &self.icv_length)
            .field("udp", &self.udp)
            .field("tfc_length", &self.tfc_length)
            .field("last_options", &self.last_options)
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

/// The nonce: salt, then IV (RFC 4106, 4).
#[inline]
pub const fn nonce(salt: [u8; 4], iv: [u8; 8]) -> [u8; 12] {
    let [s0, s1, s2, s3] = salt;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}

/// The AAD of an AES-GCM packet whose ESP header begins at `offset` of its frame (RFC 4106, 5; RFC 8750, 5): with
/// extended sequence numbers SPI, high half, low half (12 octets), else SPI and sequence number as they stand in the
/// frame (8 octets).
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

/// The AAD of an AES-GMAC packet from its ESP header at `offset` to its next header at `end - 1` (RFC 4543, 3.3): all of
/// it, IV included (errata 1821 and 3643), with the high half of an extended sequence number before the low one.
#[inline]
pub const fn gmac_aad(offset: usize, end: usize, extended_sequence: Option<u64>) -> Aad {
    match extended_sequence {
        None => Aad::InPlace { start: offset, end },
        Some(sequence) => {
            let sequence_high = (sequence >> 32) as u32;
            Aad::InPlaceWithSequenceHigh { start: offset, end, sequence_high }
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
    geometry(parameters, parameters.spi, sequence.to_be_bytes(), extended, offset, end)
}

/// The geometry of a received packet. `sequence` is its 64-bit sequence number (see
/// [`sequence::infer`](crate::sequence::infer)); it is used where the SA has extended ones, and the packet's own 32 bits
/// elsewhere.
///
/// # Errors
/// [`Malformed::NotThisProtocol`] where the packet is not ESP; [`Malformed::TruncatedEsp`] where it cannot hold header,
/// IV, the shortest trailer and ICV.
#[inline]
pub fn receive_geometry(
    parsed: &Parsed,
    frame: &[u8],
    parameters: &Parameters,
    sequence: u64,
) -> Result<Geometry, Malformed> {
    if parsed.protocol != Protocol::Esp {
        return Err(Malformed::NotThisProtocol);
    }
    let (offset, end) = (parsed.security_offset, parsed.plain.l3_end);
    let packet = frame.get(offset..end).ok_or(Malformed::TruncatedEsp)?;
    let extended = parameters.extended_sequence.then_some(sequence);
    let iv = match parameters.cipher {
        Cipher::Gcm | Cipher::Gmac => bytes::array(packet, field::IV.start).ok_or(Malformed::TruncatedEsp)?,
        Cipher::GcmImplicitIv => extended.unwrap_or(u64::from(parsed.sequence)).to_be_bytes(),
    };
    let geometry = geometry(parameters, parsed.spi, iv, extended, offset, end);
    geometry.ok_or(Malformed::TruncatedEsp)
}

/// Where payload and trailer of the packet stand whose ESP header begins at `offset` and whose ICV ends at `end`: from
/// after the IV to before the ICV. Nothing where a trailer has no room there.
#[inline]
pub(crate) fn body(parameters: &Parameters, offset: usize, end: usize) -> Option<Span> {
    let start = offset.checked_add(parameters.header_length())?;
    let body = Span::new(start, end.checked_sub(parameters.icv_length.octets())?);
    (body.length() >= TRAILER_FIXED_LENGTH).then_some(body)
}

/// Both directions' geometry; nothing where the packet has no room for a trailer.
#[inline(always)]
fn geometry(
    parameters: &Parameters,
    spi: u32,
    iv: [u8; 8],
    extended_sequence: Option<u64>,
    offset: usize,
    end: usize,
) -> Option<Geometry> {
    let body = body(parameters, offset, end)?;
    let (aad, text) = match parameters.cipher {
        Cipher::Gcm | Cipher::GcmImplicitIv => (aad(offset, spi, extended_sequence), body),
        Cipher::Gmac => (gmac_aad(offset, body.end, extended_sequence), Span::new(body.end, body.end)),
    };
    Some(Geometry { nonce: nonce(parameters.salt, iv), aad, text, icv: Span::new(body.end, end) })
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
        let parameters = Parameters::new(0x1001, [0; 4]);
        assert_eq!([parameters.overhead(1), parameters.overhead(3)], [35, 37]);
        let implicit = Parameters { cipher: Cipher::GcmImplicitIv, ..parameters };
        assert_eq!(implicit.overhead(3), 29);
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
        let parameters = Parameters::new(0x1001, [0xde, 0xad, 0xbe, 0xef]);
        let text = std::format!("{parameters:?}");
        assert!(!text.contains("222") && !text.contains("salt"), "{text}");
    }
}
