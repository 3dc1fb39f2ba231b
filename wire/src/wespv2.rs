//! WESPv2: header, options, layout, nonce, AAD of what stands in front of an ESP packet
//! (draft-klassert-ipsecme-wespv2-01).
//!
//! ```text
//!   octet 0         1         2         3
//!        +---------+---------+---------+---------+
//!      0 |next hdr |hdr len  |offset R |V opt len|   AAD    offset: bits 7..2, R: bits 1..0
//!      4 |  options (opt len octets) ...         |   AAD    V: bits 7..6, opt len: bits 5..0
//!        +---------+---------+---------+---------+
//!        |  SPI                                  |   AAD
//!        |  sequence number                      |   AAD
//!        |  IV (64 bits; none where implicit)    |   AAD
//!        +---------+---------+---------+---------+
//!        |  payload ...                          |   AAD below the crypt offset, else text
//!        |  padding, pad length, next header     |   text
//!        +---------+---------+---------+---------+
//!        |  ICV (8, 12 or 16 octets)             |
//! ```
//! The header length counts from the WESPv2 header's first octet to the payload behind ESP's IV; the crypt offset counts
//! 4-octet units from there. The receiver has to know both from the SA, and drops a packet whose header says another length.
//!
//! # Where the draft leaves open
//! * "The full WESPv2 header, including all header options" is authenticated, and so is the payload in front of the crypt
//!   offset. Not said is in which order they stand beside ESP's own AAD (SPI and sequence number, RFC 4106, 5), nor whether
//!   the IV between them is part of it. Here the AAD is all octets as they stand in the frame, from the WESPv2 header's first
//!   to where encryption begins, the IV included: the reading that the draft's successor made explicit
//!   (draft-ietf-ipsecme-eesp-03, 4.2). A peer that read it otherwise finds a wrong ICV, and nothing else.
//! * The high half of an extended sequence number, which is not sent, has then no place among those octets, and the draft
//!   does not give it one. So there are no extended sequence numbers: [`BadParameters::ExtendedSequence`].
//! * AES-GMAC encrypts nothing, and authenticates here all from the WESPv2 header to ESP's next header, whatever the crypt
//!   offset says; 0 is sent. The draft does not speak of it. PSP does the same.
//! * The largest crypt offset is agreed upon with the key, but what to do with a larger one is not said. It is opened and
//!   dropped then, as in EESP, and so is one that is larger than the payload, which is known only after opening.
//! * "The beginning of the next header" is aligned on 8 octets for IPv6. That is asked of the outer header; RFC 5840
//!   exempts UDP, whose marker is four octets long, and it holds here too.

use core::fmt;

use crate::esp::{self, Cipher};
use crate::geometry::{Aad, Geometry, Span};
use crate::malformed::Malformed;
use crate::option::Options;
use crate::packet::{Parsed, Protocol};
use crate::room::NoRoom;
use crate::{bytes, ip};

/// IP protocol number, which WESP has in all versions (RFC 5840).
pub const PROTOCOL: u8 = 141;
/// Octets of the fixed header.
pub const HEADER_LENGTH: usize = 4;
/// Most octets of options.
pub const MAX_OPTION_LENGTH: u8 = 63;
/// Largest crypt offset, in 4-octet units.
pub const MAX_CRYPT_OFFSET: u8 = 63;
/// The smallest header length (header length field).
pub const MIN_HEADER_LENGTH_FIELD: u8 = 12;
/// The version in the header.
pub const VERSION: u8 = 1;
/// What stands in front of the header in UDP, at the port of ESP in UDP (RFC 5840, 2.1).
pub const UDP_MARKER: [u8; 4] = [0, 0, 0, 2];

/// Octet ranges from the header's first octet.
pub mod field {
    use core::ops::Range;
    /// Protocol of the ESP payload; 59 where the crypt offset is zero.
    pub const NEXT_HEADER: Range<usize> = 0..1;
    /// Octets up to the payload behind ESP's IV.
    pub const HEADER_LENGTH: Range<usize> = 1..2;
    /// Crypt offset in bits 7..2; bits 1..0 are reserved.
    pub const CRYPT_OFFSET: Range<usize> = 2..3;
    /// Version in bits 7..6, octets of options in bits 5..0.
    pub const VERSION_AND_OPTION_LENGTH: Range<usize> = 3..4;
}

/// Bits of an option's type (RFC 8200, 4.2).
pub mod option_type {
    /// What a receiver that does not know the option does: 0 skips it, all else drops the packet.
    pub const ACTION: u8 = 0xc0;
    /// The option may change on its way. Never set, for options are authenticated.
    pub const MAY_CHANGE: u8 = 0x20;
}

/// The fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Protocol of the ESP payload; 59 where the crypt offset is zero.
    pub next_header: u8,
    /// Octets from the header's first to the payload behind ESP's IV.
    pub header_length: u8,
    /// 4-octet units from the end of the IV to where encryption begins, 0 to 63.
    pub crypt_offset: u8,
    /// Octets of options, 0 to 63.
    pub option_length: u8,
}

impl Header {
    /// Reads the header at the front of `packet`. The reserved bits are ignored, as the draft wants.
    ///
    /// # Errors
    /// [`Malformed::TruncatedWesp`], [`Malformed::WespBadVersion`]; [`Malformed::WespBadHeaderLength`] where the length is
    /// below 12, no multiple of 4, or ends before ESP's SPI and sequence number do; [`Malformed::WespBadNextHeader`]
    /// where the crypt offset is zero and the next header is not 59. Found in this order.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let fixed: [u8; HEADER_LENGTH] = bytes::array(packet, 0).ok_or(Malformed::TruncatedWesp)?;
        let [next_header, header_length, offset, flags] = fixed;
        if flags >> 6 != VERSION {
            return Err(Malformed::WespBadVersion);
        }
        let option_length = flags & MAX_OPTION_LENGTH;
        let shortest = HEADER_LENGTH + usize::from(option_length) + esp::FIXED_LENGTH;
        if header_length < MIN_HEADER_LENGTH_FIELD
            || !header_length.is_multiple_of(4)
            || usize::from(header_length) < shortest
        {
            return Err(Malformed::WespBadHeaderLength);
        }
        let crypt_offset = offset >> 2;
        if crypt_offset == 0 && next_header != ip::protocol::NO_NEXT_HEADER {
            return Err(Malformed::WespBadNextHeader);
        }
        Ok(Self { next_header, header_length, crypt_offset, option_length })
    }

    /// Writes the four octets to the front of `packet`; of crypt offset and option length six bits count.
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        let offset = (self.crypt_offset & MAX_CRYPT_OFFSET) << 2;
        let flags = VERSION << 6 | self.option_length & MAX_OPTION_LENGTH;
        bytes::put(packet, 0, &[self.next_header, self.header_length, offset, flags])
    }

    /// Where the ESP packet begins.
    #[inline]
    pub const fn esp_offset(&self) -> usize {
        HEADER_LENGTH + self.option_length as usize
    }
}

/// What an SA gives to its packets, beside the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    esp: esp::Parameters,
    crypt_offset: u8,
    maximum_crypt_offset: u8,
}

impl Parameters {
    /// WESPv2 around this ESP. Packets are sent with `crypt_offset`; up to `maximum_crypt_offset` they are received. Both
    /// are in 4-octet units from the end of the IV.
    ///
    /// # Errors
    /// [`BadParameters`].
    pub const fn new(
        esp: esp::Parameters,
        crypt_offset: u8,
        maximum_crypt_offset: u8,
    ) -> Result<Self, BadParameters> {
        if esp.extended_sequence {
            return Err(BadParameters::ExtendedSequence);
        }
        if crypt_offset > maximum_crypt_offset || maximum_crypt_offset > MAX_CRYPT_OFFSET {
            return Err(BadParameters::CryptOffset);
        }
        if matches!(esp.cipher, Cipher::Gmac) && maximum_crypt_offset != 0 {
            return Err(BadParameters::CryptOffsetWithoutEncryption);
        }
        Ok(Self { esp, crypt_offset, maximum_crypt_offset })
    }

    /// What is said of the ESP packet.
    #[inline]
    pub const fn esp(&self) -> &esp::Parameters {
        &self.esp
    }

    /// Sending: the crypt offset.
    #[inline]
    pub const fn crypt_offset(&self) -> u8 {
        self.crypt_offset
    }

    /// Receiving: the largest crypt offset.
    #[inline]
    pub const fn maximum_crypt_offset(&self) -> u8 {
        self.maximum_crypt_offset
    }
}

/// Why an SA cannot be one of WESPv2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadParameters {
    /// Extended sequence numbers, whose high half the draft gives no place in the AAD.
    ExtendedSequence,
    /// The crypt offset is above the maximum, or the maximum above [`MAX_CRYPT_OFFSET`].
    CryptOffset,
    /// AES-GMAC with a crypt offset: there is no encryption that could begin.
    CryptOffsetWithoutEncryption,
}

impl fmt::Display for BadParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ExtendedSequence => "WESPv2 has no extended sequence numbers",
            Self::CryptOffset => "the WESPv2 crypt offset is above the largest one",
            Self::CryptOffsetWithoutEncryption => "WESPv2 without encryption has no crypt offset",
        })
    }
}

impl core::error::Error for BadParameters {}

/// What a WESPv2 packet says of itself without its SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where the WESPv2 header begins in the frame.
    pub offset: usize,
    /// The fixed header.
    pub header: Header,
    /// ESP's header, whose SPI finds the SA.
    pub esp: esp::Header,
}

impl Located {
    /// What the receive parser has found in `frame`; nothing where it has found another protocol.
    #[inline]
    pub fn of(parsed: &Parsed, frame: &[u8]) -> Option<Self> {
        let Parsed { protocol: Protocol::Wespv2, security_offset: offset, spi, sequence, .. } = *parsed
        else {
            return None;
        };
        let header = Header::parse(frame.get(offset..parsed.plain.l3_end)?).ok()?;
        Some(Self { offset, header, esp: esp::Header { spi, sequence } })
    }

    /// Where ESP's payload begins in the frame, by what the packet says.
    #[inline]
    pub const fn payload_offset(&self) -> usize {
        self.offset.saturating_add(self.header.header_length as usize)
    }

    /// Where encryption begins in the frame, by what the packet says.
    #[inline]
    pub const fn text_offset(&self) -> usize {
        self.payload_offset().saturating_add(self.header.crypt_offset as usize * 4)
    }

    /// Whether the next header of the opened packet's ESP trailer is the one that the header has promised. With a crypt
    /// offset of zero it promises nothing.
    #[inline]
    pub const fn agrees(&self, trailer_next_header: u8) -> bool {
        self.header.crypt_offset == 0 || self.header.next_header == trailer_next_header
    }
}

/// The geometry of a received packet.
///
/// A crypt offset above the agreed maximum is no error here: see the module's text.
///
/// # Errors
/// [`Malformed::WespHeaderLengthMismatch`] where the header length is not what the SA's IV makes it,
/// [`Malformed::TruncatedEsp`] where the packet cannot hold IV, the shortest trailer and ICV,
/// [`Malformed::CryptOffsetPastEnd`] where encryption would begin behind the last octet before trailer and ICV; found in
/// this order.
#[inline]
pub fn receive_geometry(
    parsed: &Parsed,
    located: &Located,
    frame: &[u8],
    parameters: &Parameters,
) -> Result<Geometry, Malformed> {
    let esp = &parameters.esp;
    if located.header.esp_offset() + esp.header_length() != usize::from(located.header.header_length) {
        return Err(Malformed::WespHeaderLengthMismatch);
    }
    let packet = frame.get(located.offset..parsed.plain.l3_end).ok_or(Malformed::TruncatedEsp)?;
    let iv = match esp.cipher {
        Cipher::Gcm | Cipher::Gmac => {
            let at = located.header.esp_offset() + esp::field::IV.start;
            bytes::array(packet, at).ok_or(Malformed::TruncatedEsp)?
        }
        Cipher::GcmImplicitIv => u64::from(located.esp.sequence).to_be_bytes(),
    };
    geometry(parameters, &located.header, iv, located.offset, parsed.plain.l3_end)
}

/// The geometry of a packet whose WESPv2 header begins at `offset` and whose ICV ends at `end` of its frame. The header
/// length is the one that the SA makes it.
///
/// # Errors
/// [`Malformed::TruncatedEsp`], [`Malformed::CryptOffsetPastEnd`].
#[inline]
pub(crate) fn geometry(
    parameters: &Parameters,
    header: &Header,
    iv: [u8; 8],
    offset: usize,
    end: usize,
) -> Result<Geometry, Malformed> {
    let esp = &parameters.esp;
    let esp_offset = offset.saturating_add(header.esp_offset());
    let body = esp::body(esp, esp_offset, end).ok_or(Malformed::TruncatedEsp)?;
    let clear_end = body.start.saturating_add(usize::from(header.crypt_offset) * 4);
    if clear_end.saturating_add(esp::TRAILER_FIXED_LENGTH) > body.end {
        return Err(Malformed::CryptOffsetPastEnd);
    }
    let text_start = if matches!(esp.cipher, Cipher::Gmac) { body.end } else { clear_end };
    Ok(Geometry {
        nonce: esp::nonce(esp.salt, iv),
        aad: Aad::InPlace { start: offset, end: text_start },
        text: Span::new(text_start, body.end),
        icv: Span::new(body.end, end),
    })
}

/// What is wrong with the inside of an authenticated packet: its sender is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPayload {
    /// The trailer names another next header than the WESPv2 header.
    NextHeader,
    /// The crypt offset is above the agreed maximum, or reaches behind the payload.
    CryptOffset,
}

impl fmt::Display for BadPayload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NextHeader => "the next headers of the WESPv2 header and of the ESP trailer differ",
            Self::CryptOffset => "the WESPv2 crypt offset is larger than agreed or than the payload",
        })
    }
}

impl core::error::Error for BadPayload {}

/// Reads the header at the front of `packet`, its options, and the header of the ESP packet behind them.
///
/// # Errors
/// What [`Header::parse`] says, [`Malformed::WespBadHeaderLength`] where the length is not `aligned_8`,
/// [`Malformed::TruncatedWesp`] where the packet ends before ESP's header, [`Malformed::OptionOverrun`],
/// [`Malformed::TooManyOptions`], [`Malformed::WespUnknownOption`], [`Malformed::ReservedSpi`].
#[inline]
pub(crate) fn parse(packet: &[u8], aligned_8: bool) -> Result<(Header, esp::Header), Malformed> {
    let header = Header::parse(packet)?;
    if aligned_8 && !header.header_length.is_multiple_of(8) {
        return Err(Malformed::WespBadHeaderLength);
    }
    let options = packet.get(HEADER_LENGTH..header.esp_offset()).ok_or(Malformed::TruncatedWesp)?;
    for option in Options::new(options) {
        if option?.option_type & (option_type::ACTION | option_type::MAY_CHANGE) != 0 {
            return Err(Malformed::WespUnknownOption);
        }
    }
    match esp::Header::parse(packet.get(header.esp_offset()..).unwrap_or(&[])) {
        Ok(esp) => Ok((header, esp)),
        Err(Malformed::TruncatedEsp) => Err(Malformed::TruncatedWesp),
        Err(malformed) => Err(malformed),
    }
}
