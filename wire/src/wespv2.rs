//! WESPv2: the header in front of an ESP packet (draft-klassert-ipsecme-wespv2-01), as far as it can be read without the
//! cipher.
//!
//! ```text
//!   octet 0         1         2         3
//!        +---------+---------+---------+---------+
//!      0 |next hdr |hdr len  |offset R |V opt len|   offset: bits 7..2, R: bits 1..0; V: bits 7..6, opt len: bits 5..0
//!      4 |  options (opt len octets) ...         |
//!        +---------+---------+---------+---------+
//!        |  ESP packet, from SPI to ICV ...      |
//! ```
//! The header length counts from the WESPv2 header's first octet to the payload behind ESP's IV; the crypt offset counts
//! 4-octet units from there. The receiver has to know both from the SA, and drops a packet whose header says another length.
//!
//! There is no geometry here: the draft has header, options and the octets in front of the crypt offset authenticated, but
//! says neither in which order they stand beside ESP's own AAD nor whether the IV between them is part of it.

use crate::esp;
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

    /// Checks the header against the SA and the end of the IP packet: the draft drops what differs.
    ///
    /// # Errors
    /// [`Malformed::WespHeaderLengthMismatch`] where the header length is not what the SA's IV makes it,
    /// [`Malformed::CryptOffsetPastEnd`] where encryption would begin behind the last octet before trailer and ICV.
    #[inline]
    pub const fn check(&self, parsed: &Parsed, parameters: &esp::Parameters) -> Result<(), Malformed> {
        if self.header.esp_offset() + parameters.header_length() != self.header.header_length as usize {
            return Err(Malformed::WespHeaderLengthMismatch);
        }
        let behind_payload = esp::TRAILER_FIXED_LENGTH + parameters.icv_length.octets();
        if self.text_offset().saturating_add(behind_payload) > parsed.plain.l3_end {
            return Err(Malformed::CryptOffsetPastEnd);
        }
        Ok(())
    }

    /// Whether the next header of the opened packet's ESP trailer is the one that the header has promised. With a crypt
    /// offset of zero it promises nothing.
    #[inline]
    pub const fn agrees(&self, trailer_next_header: u8) -> bool {
        self.header.crypt_offset == 0 || self.header.next_header == trailer_next_header
    }
}

/// Reads the header at the front of `packet`, its options, and the header of the ESP packet behind them.
///
/// The alignment on 8 octets that the draft has for IPv6 is asked of the outer header. RFC 5840 exempts UDP, whose marker
/// is four octets long; the draft does not say it again, and it holds here too.
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
