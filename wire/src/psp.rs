//! PSP: header, nonce, ranges, key-derivation input (PSP Architecture Specification, 17 November 2022).
//!
//! ```text
//!   octet 0         1         2                   3                     bit 7 ... 0 inside an octet
//!        +---------+---------+---------+---------+
//!      0 |next hdr | ext len |R 7..6   |S7 D6    |   ext len: 8-octet units, the first eight not counted
//!        |         |         |offset   |ver 5..2 |   offset: 4-octet units from the end of the IV
//!        |         |         |   5..0  |V 1  1  0|   last bit: a literal one
//!      4 |     SPI, bit 31 selects the key       |
//!      8 |            IV, high half              |
//!     12 |            IV, low half               |
//!     16 |  virtualization cookie, high (if V)   |
//!     20 |  virtualization cookie, low  (if V)   |
//!        |  opaque extension up to the header's length, payload, then the 16-octet ICV
//!        +---------+---------+---------+---------+
//! ```

use crate::bytes;
use crate::geometry::{Aad, Geometry, Span};
use crate::malformed::Malformed;
use crate::packet::{Parsed, Plain, Protocol};
use crate::room::NoRoom;

/// Octets up to the end of the IV: where crypt offset 0 is.
pub const HEADER_LENGTH: usize = 16;
/// Octets of a virtualization cookie.
pub const VIRTUALIZATION_COOKIE_LENGTH: usize = 8;
/// Octets of the ICV, always the full tag.
pub const ICV_LENGTH: usize = 16;
/// UDP destination port unless configured otherwise (IANA).
pub const DEFAULT_UDP_PORT: u16 = 1000;
/// Largest crypt offset, in 4-octet units.
pub const MAX_CRYPT_OFFSET: u8 = 63;
/// Bits of the SPI that count up; the remaining one selects the device key. All zero is reserved.
pub const SPI_COUNT_MASK: u32 = 0x7fff_ffff;
/// Longest header, cookie and extension included, that the extension length can say.
pub const MAX_HEADER_LENGTH: usize = 256 * EXTENSION_UNIT;
/// Octets that the extension length counts by.
pub const EXTENSION_UNIT: usize = 8;

/// Octet ranges from the PSP header's first octet.
pub mod field {
    use core::ops::Range;
    /// Protocol of the payload.
    pub const NEXT_HEADER: Range<usize> = 0..1;
    /// Header length in 8-octet units, the first eight octets not counted.
    pub const EXTENSION_LENGTH: Range<usize> = 1..2;
    /// Reserved in bits 7..6, crypt offset in bits 5..0.
    pub const CRYPT_OFFSET: Range<usize> = 2..3;
    /// S, D, version, V and the literal one, see [`flag`](super::flag).
    pub const FLAGS: Range<usize> = 3..4;
    /// Security parameters index.
    pub const SPI: Range<usize> = 4..8;
    /// Initialization vector.
    pub const IV: Range<usize> = 8..16;
    /// Virtualization cookie, where V is set.
    pub const VIRTUALIZATION_COOKIE: Range<usize> = 16..24;
    /// What the nonce is: SPI and IV as they stand.
    pub const NONCE: Range<usize> = 4..16;
}

/// Bits of the flags octet.
pub mod flag {
    /// S: sample the packet at the receiver.
    pub const SAMPLE: u8 = 0x80;
    /// D: drop the packet after sampling.
    pub const DROP: u8 = 0x40;
    /// Mask of the version.
    pub const VERSION: u8 = 0x3c;
    /// Shift of the version.
    pub const VERSION_SHIFT: u8 = 2;
    /// V: a virtualization cookie follows the IV.
    pub const VIRTUALIZATION_COOKIE: u8 = 0x02;
    /// The literal one.
    pub const ONE: u8 = 0x01;
}

/// The algorithm of a packet. Code points 4 to 15 are reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// Version 0: AES-GCM, 128-bit key; the one every implementation has.
    #[default]
    AesGcm128 = 0,
    /// Version 1: AES-GCM, 256-bit key.
    AesGcm256 = 1,
    /// Version 2: AES-GMAC, 128-bit key; nothing is encrypted.
    AesGmac128 = 2,
    /// Version 3: AES-GMAC, 256-bit key; nothing is encrypted.
    AesGmac256 = 3,
}

impl Version {
    /// From the code point; nothing for a reserved one.
    #[inline]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::AesGcm128),
            1 => Some(Self::AesGcm256),
            2 => Some(Self::AesGmac128),
            3 => Some(Self::AesGmac256),
            _ => None,
        }
    }

    /// The code point.
    #[inline]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether the payload is encrypted, not only authenticated.
    #[inline]
    pub const fn encrypts(self) -> bool {
        matches!(self, Self::AesGcm128 | Self::AesGcm256)
    }
}

/// A PSP header. The literal one is not held: [`parse`](Self::parse) insists on it and [`emit`](Self::emit) writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Protocol of the payload: the original one in transport mode, 4 or 41 in tunnel mode.
    pub next_header: u8,
    /// Header length in 8-octet units, the first eight octets not counted: 1, or 2 with a cookie, or more.
    pub extension_length: u8,
    /// The two reserved bits: sent as zero, ignored on receipt, but authenticated.
    pub reserved: u8,
    /// 4-octet units from the end of the IV to where encryption begins, 0 to 63.
    pub crypt_offset: u8,
    /// S: sample the packet at the receiver.
    pub sample: bool,
    /// D: drop the packet after sampling.
    pub drop: bool,
    /// The algorithm.
    pub version: Version,
    /// Security parameters index.
    pub spi: u32,
    /// Initialization vector.
    pub iv: u64,
    /// V and its cookie. In a packet not yet opened it is ciphertext if the crypt offset is below 2.
    pub virtualization_cookie: Option<[u8; VIRTUALIZATION_COOKIE_LENGTH]>,
}

impl Header {
    /// Reads the header at the front of `packet`, which is the UDP payload.
    ///
    /// # Errors
    /// [`Malformed::TruncatedPsp`], [`Malformed::PspReservedBit`], [`Malformed::PspBadVersion`],
    /// [`Malformed::ReservedSpi`], [`Malformed::PspBadHeaderLength`]; found in this order.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        Self::parse_with_spi(packet, None)
    }

    /// The same, with another SPI in place of the one that stands there, if given.
    #[inline]
    pub(crate) fn parse_with_spi(packet: &[u8], spi: Option<u32>) -> Result<Self, Malformed> {
        let fixed: [u8; HEADER_LENGTH] = bytes::array(packet, 0).ok_or(Malformed::TruncatedPsp)?;
        let flags = fixed[3];
        if flags & flag::ONE == 0 {
            return Err(Malformed::PspReservedBit);
        }
        let version = Version::from_code((flags & flag::VERSION) >> flag::VERSION_SHIFT)
            .ok_or(Malformed::PspBadVersion)?;
        let [_, _, _, _, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7] = fixed;
        let spi = spi.unwrap_or(u32::from_be_bytes([s0, s1, s2, s3]));
        if spi & SPI_COUNT_MASK == 0 {
            return Err(Malformed::ReservedSpi);
        }
        let extension_length = fixed[1];
        let has_cookie = flags & flag::VIRTUALIZATION_COOKIE != 0;
        if extension_length < if has_cookie { 2 } else { 1 } {
            return Err(Malformed::PspBadHeaderLength);
        }
        let virtualization_cookie = if has_cookie {
            let cookie = bytes::array(packet, field::VIRTUALIZATION_COOKIE.start);
            Some(cookie.ok_or(Malformed::TruncatedPsp)?)
        } else {
            None
        };
        Ok(Self {
            next_header: fixed[0],
            extension_length,
            reserved: fixed[2] >> 6,
            crypt_offset: fixed[2] & MAX_CRYPT_OFFSET,
            sample: flags & flag::SAMPLE != 0,
            drop: flags & flag::DROP != 0,
            version,
            spi,
            iv: u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            virtualization_cookie,
        })
    }

    /// Checks the header's lengths against `length` octets from the header's first to the ICV's last.
    ///
    /// # Errors
    /// [`Malformed::TruncatedPsp`], [`Malformed::PspBadHeaderLength`], [`Malformed::PspCryptOffsetPastEnd`].
    #[inline]
    pub const fn check_length(&self, length: usize) -> Result<(), Malformed> {
        if length < HEADER_LENGTH + ICV_LENGTH {
            return Err(Malformed::TruncatedPsp);
        }
        let payload_end = length - ICV_LENGTH;
        if self.length() > payload_end {
            return Err(Malformed::PspBadHeaderLength);
        }
        if HEADER_LENGTH + crypt_offset_octets(self.crypt_offset) > payload_end {
            return Err(Malformed::PspCryptOffsetPastEnd);
        }
        Ok(())
    }

    /// Octets of the header with cookie and extension: where the payload begins.
    #[inline]
    pub const fn length(&self) -> usize {
        (self.extension_length as usize + 1) * 8
    }

    /// Writes the header and its cookie to the front of `packet`. Octets of a further extension are left as they are.
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter; what it holds is then unspecified.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        let bit = |set: bool, mask: u8| if set { mask } else { 0 };
        let flags = bit(self.sample, flag::SAMPLE)
            | bit(self.drop, flag::DROP)
            | self.version.code() << flag::VERSION_SHIFT
            | bit(self.virtualization_cookie.is_some(), flag::VIRTUALIZATION_COOKIE)
            | flag::ONE;
        let offset = (self.reserved & 0b11) << 6 | self.crypt_offset & MAX_CRYPT_OFFSET;
        bytes::put(packet, 0, &[self.next_header, self.extension_length, offset, flags])?;
        bytes::put(packet, field::SPI.start, &self.spi.to_be_bytes())?;
        bytes::put(packet, field::IV.start, &self.iv.to_be_bytes())?;
        match &self.virtualization_cookie {
            Some(cookie) => bytes::put(packet, field::VIRTUALIZATION_COOKIE.start, cookie),
            None => Ok(()),
        }
    }
}

/// What an SA gives to its packets, beside the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters<'a> {
    /// Security parameters index; its low 31 bits are not all zero.
    pub spi: u32,
    /// The algorithm.
    pub version: Version,
    /// 4-octet units from the end of the IV to where encryption begins, 0 to 63; 0 for the GMAC versions.
    pub crypt_offset: u8,
    /// S: have the receiver sample the packet.
    pub sample: bool,
    /// D: have the receiver drop the packet after sampling.
    pub drop: bool,
    /// Virtualization cookie, as it is to stand in the header.
    pub virtualization_cookie: Option<[u8; VIRTUALIZATION_COOKIE_LENGTH]>,
    /// Octets between IV or cookie and payload: a multiple of eight, as many as [`MAX_HEADER_LENGTH`] leaves. Like the
    /// cookie they are encrypted as far as the crypt offset does not cover them.
    pub extension: &'a [u8],
}

impl Parameters<'_> {
    /// Crypt offset 0, neither S nor D, no cookie, no extension.
    pub const fn new(spi: u32, version: Version) -> Self {
        Self {
            spi,
            version,
            crypt_offset: 0,
            sample: false,
            drop: false,
            virtualization_cookie: None,
            extension: &[],
        }
    }

    /// The header of one packet, without the extension's octets.
    #[inline]
    pub const fn header(&self, next_header: u8, iv: u64) -> Header {
        Header {
            next_header,
            extension_length: (self.header_length() / EXTENSION_UNIT - 1) as u8,
            reserved: 0,
            crypt_offset: self.crypt_offset,
            sample: self.sample,
            drop: self.drop,
            version: self.version,
            spi: self.spi,
            iv,
            virtualization_cookie: self.virtualization_cookie,
        }
    }

    /// Octets of the header up to the extension, cookie included.
    #[inline]
    pub const fn extension_offset(&self) -> usize {
        match self.virtualization_cookie {
            Some(_) => HEADER_LENGTH + VIRTUALIZATION_COOKIE_LENGTH,
            None => HEADER_LENGTH,
        }
    }

    /// Octets of the header, cookie and extension included.
    #[inline]
    pub const fn header_length(&self) -> usize {
        self.extension_offset() + self.extension.len()
    }
}

/// A crypt offset in octets.
#[inline]
pub const fn crypt_offset_octets(crypt_offset: u8) -> usize {
    (crypt_offset & MAX_CRYPT_OFFSET) as usize * 4
}

/// The nonce: header octets 4 to 15, SPI and IV as on the wire.
#[inline]
pub const fn nonce(spi: u32, iv: u64) -> [u8; 12] {
    let [s0, s1, s2, s3] = spi.to_be_bytes();
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv.to_be_bytes();
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}

/// The geometry of a packet whose PSP header begins at `offset` and whose ICV ends at `end` of the frame.
///
/// AAD runs from the header's first octet up to the crypt offset, counted from the end of the IV, so that cookie
/// and extension are encrypted as far as the offset does not cover them. The GMAC versions authenticate all and
/// encrypt nothing, whatever the offset says.
///
/// # Errors
/// What [`Header::check_length`] says.
#[inline]
pub fn geometry(header: &Header, offset: usize, end: usize) -> Result<Geometry, Malformed> {
    header.check_length(end.saturating_sub(offset))?;
    let payload_end = end.saturating_sub(ICV_LENGTH);
    let text_start = if header.version.encrypts() {
        offset.saturating_add(HEADER_LENGTH + crypt_offset_octets(header.crypt_offset))
    } else {
        payload_end
    };
    Ok(Geometry {
        nonce: nonce(header.spi, header.iv),
        aad: Aad::InPlace { start: offset, end: text_start },
        text: Span::new(text_start, payload_end),
        icv: Span::new(payload_end, end),
    })
}

/// The geometry of a received packet.
///
/// # Errors
/// [`Malformed::NotThisProtocol`] where the packet is not PSP, else what [`Header::parse`] and [`geometry`] say.
#[inline]
pub fn receive_geometry(parsed: &Parsed, frame: &[u8]) -> Result<Geometry, Malformed> {
    if parsed.protocol != Protocol::Psp {
        return Err(Malformed::NotThisProtocol);
    }
    let (offset, end) = (parsed.security_offset, parsed.plain.l3_end);
    let header = Header::parse(frame.get(offset..end).ok_or(Malformed::TruncatedPsp)?)?;
    geometry(&header, offset, end)
}

/// What the header of an opened packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The header; its cookie is in clear now.
    pub header: Header,
    /// The octets between IV or cookie and payload.
    pub extension: &'a [u8],
}

/// Reads header, cookie and extension of an opened packet, before decapsulation takes them off.
///
/// # Errors
/// [`Malformed::NotThisProtocol`] where the packet is not PSP, else what [`Header::parse`] and
/// [`Header::check_length`] say.
#[inline]
pub fn opened<'a>(parsed: &Parsed, frame: &'a [u8]) -> Result<Opened<'a>, Malformed> {
    if parsed.protocol != Protocol::Psp {
        return Err(Malformed::NotThisProtocol);
    }
    let packet = frame.get(parsed.security_offset..parsed.plain.l3_end).ok_or(Malformed::TruncatedPsp)?;
    let header = Header::parse(packet)?;
    header.check_length(packet.len())?;
    let cookie_length = header.virtualization_cookie.map_or(0, |cookie| cookie.len());
    let extension = packet.get(HEADER_LENGTH + cookie_length..header.length());
    Ok(Opened { header, extension: extension.ok_or(Malformed::PspBadHeaderLength)? })
}

/// Octets that the byte counters count for a packet whose PSP header begins at `offset` and whose ICV ends at `end`: from
/// the first after the IV to the payload's last (specification, "Implementation Requirements").
#[inline]
pub const fn counted_octets(offset: usize, end: usize) -> usize {
    end.saturating_sub(offset).saturating_sub(HEADER_LENGTH + ICV_LENGTH)
}

/// Octets of a version's key.
#[inline]
pub const fn key_length(version: Version) -> usize {
    match version {
        Version::AesGcm128 | Version::AesGmac128 => 16,
        Version::AesGcm256 | Version::AesGmac256 => 32,
    }
}

/// One input block of the key derivation (SP 800-108 counter mode over AES-256-CMAC): counter, label "Pv0\0",
/// SPI, and the key's length in bits. `counter` is 1, and 2 for the second half of a 256-bit key.
///
/// The label's third octet is '0' or-ed with the version. The specification prints that for versions 0 and 1; for
/// 2 and 3 it follows from the same rule and is printed nowhere.
#[inline]
pub const fn key_derivation_block(version: Version, spi: u32, counter: u32) -> [u8; 16] {
    let [c0, c1, c2, c3] = counter.to_be_bytes();
    let [s0, s1, s2, s3] = spi.to_be_bytes();
    let [l0, l1, l2, l3] = (key_length(version) as u32 * 8).to_be_bytes();
    [c0, c1, c2, c3, b'P', b'v', b'0' | version.code(), 0, s0, s1, s2, s3, l0, l1, l2, l3]
}

/// Where the UDP source port of a PSP packet comes from: it spreads flows over paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourcePort<'a> {
    /// From a hash of the flow. The hash should be keyed, or the port tells of the inner ports.
    #[default]
    Entropy,
    /// Inner source port xor inner destination port, 1000 where there are none; as the reference implementation does.
    PortsXor,
    /// Always this one.
    Fixed(u16),
    /// One of these, chosen by a hash of the flow; the specification asks for 16 or more. An empty table is
    /// [`SourcePort::Entropy`].
    Table(&'a [u16]),
}

impl SourcePort<'_> {
    /// The source port of a packet. `flow_hash` is used by [`SourcePort::Entropy`], whose ports are 49152 to 65535 (RFC
    /// 6335, dynamic ports), and by [`SourcePort::Table`].
    #[inline]
    pub fn port(self, plain: &Plain, flow_hash: u64) -> u16 {
        let entropy = 0xc000 | (flow_hash & 0x3fff) as u16;
        match self {
            Self::Entropy => entropy,
            Self::Table(table) => {
                let place = flow_hash.checked_rem(table.len() as u64).unwrap_or(0);
                table.get(place as usize).copied().unwrap_or(entropy)
            }
            Self::PortsXor => plain.ports.map_or(DEFAULT_UDP_PORT, |ports| ports.source ^ ports.destination),
            Self::Fixed(port) => port,
        }
    }
}
