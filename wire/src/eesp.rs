//! EESP, version 0: header, options, layout, nonce, AAD (draft-ietf-ipsecme-eesp-03).
//!
//! ```text
//!   octet 0         1         2         3         4         5         6         7
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!      0 |1 ver  R | opt len |    session ID     |                  SPI                  |   AAD
//!      8 |  options (opt len octets) ...                                                 |   AAD
//!        |  sequence number (64 bits; none where the SA has no replay protection)        |   AAD
//!        |  IV (64 bits; none where it is implicit)                                      |   AAD
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!        | 0  reserved (12)  |next hdr | pad len |   payload info header: full format only   AAD below the crypt
//!        +---------+---------+---------+---------+                                           offset, else text
//!        |  payload ...                                                                      likewise
//!        |  padding (zeros)                                                              |   text
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!        |  ICV (8, 12 or 16 octets)                                                     |
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//! ```
//! The AAD is all from the header's first octet to where encryption begins, the IV included. That differs from RFC 4106,
//! which the draft updates (4.2). Neither sequence number, IV nor format is flagged in the packet: the SA says it.
//!
//! EESP has no IP protocol number yet, so the number is a parameter. Algorithms other than AES-GCM are not here, nor is the
//! derivation of keys for sub SAs: each session ID's key is the caller's affair.
//!
//! # Where the draft contradicts itself
//! * Tunnel mode "MUST" have the optimized format (2.8), and a crypt offset the full one (3.1.2). Figure 19 shows tunnel
//!   mode with a crypt offset, in the full format: so it is here. Tunnel mode without a crypt offset takes either, as the SA
//!   says.
//! * The crypt offset option has two octets of data. Figure 19 writes a length of 4, and an F field that is no more.
//! * The payload offset "or the payload for optimized packet format" (3.1.2) never is: the optimized format has no
//!   crypt offset, and an option there is [`Malformed::CryptOffsetNotAllowed`].
//! * Figures 17 and 18 leave the options or the payload info header out; table 2 and the text have them authenticated.
//! * The next protocol header is aligned on 4 octets "for IPv4" and 8 "for IPv6" (2.5), but not said is whether the inner
//!   or the outer one: where either is IPv6, eight are sent. Received packets are not judged by it, nor by the octets of
//!   padding, which the draft lets the algorithm judge and AES-GCM does not (2.6).
//! * Nothing is said of SPIs that are not used. They are those of ESP: 0 is malformed, 1 to 255 are not sent.

use core::fmt;

use crate::aead::IcvLength;
use crate::esp::{self, UdpEncapsulation};
use crate::geometry::{Aad, Geometry, Span};
use crate::malformed::Malformed;
use crate::option::Options;
use crate::packet::{Parsed, Protocol};
use crate::room::NoRoom;
use crate::{bytes, udp};

/// Octets of the fixed header.
pub const HEADER_LENGTH: usize = 8;
/// Octets of a sequence number.
pub const SEQUENCE_LENGTH: usize = 8;
/// Octets of an explicit IV.
pub const IV_LENGTH: usize = 8;
/// Octets of the payload info header.
pub const PAYLOAD_INFO_LENGTH: usize = 4;
/// Octets of a crypt offset option with its type and length.
pub const CRYPT_OFFSET_OPTION_LENGTH: usize = 4;
/// Largest payload offset and crypt offset, in 4-octet units.
pub const MAX_OFFSET_UNITS: u8 = 63;
/// The smallest window of a receiver (4.5.3).
pub const MIN_WINDOW: u32 = 64;

/// Octet ranges from the header's first octet.
pub mod field {
    use core::ops::Range;
    /// The literal one, version and reserved bits; see [`first`](super::first).
    pub const FIRST: Range<usize> = 0..1;
    /// Octets of options.
    pub const OPTION_LENGTH: Range<usize> = 1..2;
    /// Session ID: opaque, or the number of a sub SA.
    pub const SESSION_ID: Range<usize> = 2..4;
    /// Security parameters index.
    pub const SPI: Range<usize> = 4..8;
}

/// Bits of the header's first octet.
pub mod first {
    /// The literal one, which tells EESP from ESP in UDP.
    pub const ONE: u8 = 0x80;
    /// Version, bits 6..3: 0.
    pub const VERSION: u8 = 0x78;
    /// Reserved bits, which the receiver checks to be zero.
    pub const RESERVED: u8 = 0x07;
}

/// Octet ranges from the payload info header's first octet.
pub mod payload_info_field {
    use core::ops::Range;
    /// Four bits of zero, which tell it from an IP header, and twelve reserved bits.
    pub const ZERO: Range<usize> = 0..2;
    /// Protocol of the payload.
    pub const NEXT_HEADER: Range<usize> = 2..3;
    /// Octets of padding.
    pub const PAD_LENGTH: Range<usize> = 3..4;
}

/// Option types beside the padding of [`option`](crate::option). Other types are skipped by their length.
pub mod option_type {
    /// Crypt offset.
    pub const CRYPT_OFFSET: u8 = 2;
    /// This and all above it are for private use.
    pub const FIRST_PRIVATE: u8 = 224;
}

/// The fixed header. Its first octet is 0x80 and nothing else, and so not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Octets of options behind the fixed header.
    pub option_length: u8,
    /// Session ID: opaque, or the number of a sub SA.
    pub session_id: u16,
    /// Security parameters index.
    pub spi: u32,
}

impl Header {
    /// Reads the header at the front of `packet`, which is the IP or UDP payload.
    ///
    /// # Errors
    /// [`Malformed::TruncatedEesp`], [`Malformed::EespFixedBits`], [`Malformed::EespBadVersion`],
    /// [`Malformed::ReservedSpi`] for SPI 0; found in this order. Reserved bits count only in version 0.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let fixed: [u8; HEADER_LENGTH] = bytes::array(packet, 0).ok_or(Malformed::TruncatedEesp)?;
        let [octet, option_length, i0, i1, s0, s1, s2, s3] = fixed;
        if octet & first::ONE == 0 {
            return Err(Malformed::EespFixedBits);
        }
        if octet & first::VERSION != 0 {
            return Err(Malformed::EespBadVersion);
        }
        if octet & first::RESERVED != 0 {
            return Err(Malformed::EespFixedBits);
        }
        let spi = u32::from_be_bytes([s0, s1, s2, s3]);
        if spi == 0 {
            return Err(Malformed::ReservedSpi);
        }
        Ok(Self { option_length, session_id: u16::from_be_bytes([i0, i1]), spi })
    }

    /// Writes the eight octets to the front of `packet`.
    ///
    /// # Errors
    /// [`NoRoom`] where `packet` is shorter.
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), NoRoom> {
        let [i0, i1] = self.session_id.to_be_bytes();
        let [s0, s1, s2, s3] = self.spi.to_be_bytes();
        bytes::put(packet, 0, &[first::ONE, self.option_length, i0, i1, s0, s1, s2, s3])
    }

    /// Where the options end.
    #[inline]
    pub const fn options_end(&self) -> usize {
        HEADER_LENGTH + self.option_length as usize
    }
}

/// The data of a crypt offset option. Its four low bits are reserved: sent as zero, ignored on receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptOffset {
    /// 4-octet units from the header's first octet to the payload info header.
    pub payload_offset: u8,
    /// 4-octet units from the payload info header's first octet to where encryption begins.
    pub crypt_offset: u8,
}

impl CryptOffset {
    /// From the option's data.
    #[inline]
    pub const fn from_data([high, low]: [u8; 2]) -> Self {
        Self { payload_offset: high >> 2, crypt_offset: (high & 0b11) << 4 | low >> 4 }
    }

    /// The option: type, length and data. Of each offset six bits count.
    #[inline]
    pub const fn option(self) -> [u8; CRYPT_OFFSET_OPTION_LENGTH] {
        let payload_offset = ((self.payload_offset & MAX_OFFSET_UNITS) as u16) << 10;
        let crypt_offset = ((self.crypt_offset & MAX_OFFSET_UNITS) as u16) << 4;
        let data = payload_offset | crypt_offset;
        let [high, low] = data.to_be_bytes();
        [option_type::CRYPT_OFFSET, 2, high, low]
    }
}

/// The payload info header of the full format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadInfo {
    /// Protocol of the payload; 59 for a dummy packet (4.5.4.1).
    pub next_header: u8,
    /// Octets of padding behind the payload.
    pub pad_length: u8,
}

impl PayloadInfo {
    /// From its four octets; nothing where they begin as an IP header does. The twelve reserved bits are ignored.
    #[inline]
    pub const fn from_octets(octets: [u8; PAYLOAD_INFO_LENGTH]) -> Option<Self> {
        let [zero, _, next_header, pad_length] = octets;
        if zero >> 4 == 0 { Some(Self { next_header, pad_length }) } else { None }
    }

    /// The four octets.
    #[inline]
    pub const fn octets(self) -> [u8; PAYLOAD_INFO_LENGTH] {
        [0, 0, self.next_header, self.pad_length]
    }
}

/// Which of sequence number and IV stand in an SA's packets. An implicit IV is the sequence number, so one of them does. The
/// second and the third are the same octets: only the SA tells whether they are a sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Numbering {
    /// Sequence number, then IV (RFC 4106).
    #[default]
    SequenceAndIv,
    /// The sequence number, which is the IV too (RFC 8750). The ICV has 16 octets.
    SequenceIsIv,
    /// The IV: the SA has no replay protection.
    IvAlone,
}

/// How the payload of an SA's packets begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// With an IPv4 or IPv6 header: tunnel mode alone.
    #[default]
    Optimized,
    /// With a payload info header.
    Full,
    /// With a payload info header, and a crypt offset option is allowed.
    FullWithCryptOffset {
        /// Sending: the crypt offset of each packet, 4-octet units from the payload info header.
        sent: u8,
        /// The largest crypt offset that was agreed to.
        maximum: u8,
    },
}

impl Format {
    /// Octets of the payload info header.
    #[inline]
    pub const fn payload_info_length(self) -> usize {
        match self {
            Self::Optimized => 0,
            Self::Full | Self::FullWithCryptOffset { .. } => PAYLOAD_INFO_LENGTH,
        }
    }
}

/// What EESP stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// IP, with this protocol number.
    Ip(u8),
    /// UDP (6; RFC 3948).
    Udp(UdpEncapsulation),
}

/// What an SA gives to its packets, beside the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Security parameters index, above 255.
    pub spi: u32,
    /// First four octets of every nonce; part of the keying material (RFC 4106, 8.1).
    pub salt: [u8; 4],
    /// Sending: the session ID.
    pub session_id: u16,
    /// Receiving: the last sub SA's ID, where session IDs are those of sub SAs.
    pub last_sub_sa: Option<u16>,
    /// Sequence number and IV.
    pub numbering: Numbering,
    /// Full or optimized.
    pub format: Format,
    /// Length of the ICV.
    pub icv_length: IcvLength,
    /// Sending: what EESP stands in.
    pub carrier: Carrier,
}

impl Parameters {
    /// AES-GCM with sequence number, explicit IV and an ICV of 16 octets, in the optimized format, session ID 0, no sub SAs.
    pub const fn new(spi: u32, salt: [u8; 4], carrier: Carrier) -> Self {
        Self {
            spi,
            salt,
            session_id: 0,
            last_sub_sa: None,
            numbering: Numbering::SequenceAndIv,
            format: Format::Optimized,
            icv_length: IcvLength::Octets16,
            carrier,
        }
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Parameters")
            .field("spi", &self.spi)
            .field("session_id", &self.session_id)
            .field("last_sub_sa", &self.last_sub_sa)
            .field("numbering", &self.numbering)
            .field("format", &self.format)
            .field("icv_length", &self.icv_length)
            .field("carrier", &self.carrier)
            .finish_non_exhaustive()
    }
}

/// Where the parts of a packet stand, from the header's first octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The sequence number.
    pub sequence: Option<usize>,
    /// The IV.
    pub iv: Option<usize>,
    /// The payload info header; the payload where there is none.
    pub payload_header: usize,
    /// The inner packet, or the upper header.
    pub payload: usize,
    /// Where encryption begins; all before it is the AAD.
    pub text: usize,
}

impl Layout {
    /// The layout behind so many octets of options, with a crypt offset in 4-octet units.
    #[inline]
    pub const fn new(option_length: usize, numbering: Numbering, format: Format, crypt_offset: u8) -> Self {
        let front = HEADER_LENGTH + option_length;
        let (sequence, iv, payload_header) = match numbering {
            Numbering::SequenceAndIv => {
                (Some(front), Some(front + SEQUENCE_LENGTH), front + SEQUENCE_LENGTH + IV_LENGTH)
            }
            Numbering::SequenceIsIv => (Some(front), None, front + SEQUENCE_LENGTH),
            Numbering::IvAlone => (None, Some(front), front + IV_LENGTH),
        };
        let payload = payload_header + format.payload_info_length();
        let text = payload_header + (crypt_offset & MAX_OFFSET_UNITS) as usize * 4;
        Self { sequence, iv, payload_header, payload, text }
    }
}

/// What an EESP packet says of itself without its SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where the header begins in the frame.
    pub offset: usize,
    /// The fixed header.
    pub header: Header,
    /// The crypt offset option.
    pub crypt_offset: Option<CryptOffset>,
}

impl Located {
    /// What the receive parser has found; nothing where it has found another protocol.
    #[inline]
    pub fn of(parsed: &Parsed) -> Option<Self> {
        let Parsed { protocol: Protocol::Eesp, crypt_offset, session_id, spi, .. } = *parsed else {
            return None;
        };
        let option_length =
            u8::try_from(usize::from(parsed.header_octets).checked_sub(HEADER_LENGTH)?).ok()?;
        let option = |payload_offset| CryptOffset { payload_offset, crypt_offset };
        Some(Self {
            offset: parsed.security_offset,
            header: Header { option_length, session_id, spi },
            crypt_offset: parsed.payload_offset.map(option),
        })
    }

    /// The layout of the packet under an SA.
    #[inline]
    pub const fn layout(&self, parameters: &Parameters) -> Layout {
        let crypt_offset = match self.crypt_offset {
            Some(option) => option.crypt_offset,
            None => 0,
        };
        Layout::new(self.header.option_length as usize, parameters.numbering, parameters.format, crypt_offset)
    }
}

/// Reads the fixed header at the front of `packet` and its crypt offset option. `packet` ends with its ICV.
///
/// # Errors
/// What [`Header::parse`] says, then [`Malformed::TruncatedEesp`] where the packet ends inside the options,
/// [`Malformed::OptionOverrun`], [`Malformed::TooManyOptions`] or [`Malformed::EespBadCryptOffset`].
#[inline]
pub(crate) fn parse(packet: &[u8]) -> Result<(Header, Option<CryptOffset>), Malformed> {
    let header = Header::parse(packet)?;
    let options = packet.get(HEADER_LENGTH..header.options_end()).ok_or(Malformed::TruncatedEesp)?;
    let mut crypt_offset = None;
    for option in Options::new(options) {
        let option = option?;
        if option.option_type == option_type::CRYPT_OFFSET {
            let data = option.data.try_into().map_err(|_| Malformed::EespBadCryptOffset)?;
            let found = CryptOffset::from_data(data);
            let payload = usize::from(found.payload_offset) * 4;
            let is_first = crypt_offset.replace(found).is_none();
            if !is_first || payload < header.options_end() || payload > packet.len() {
                return Err(Malformed::EespBadCryptOffset);
            }
        }
    }
    Ok((header, crypt_offset))
}

/// What a received packet says under its SA, before its ICV is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Where the cipher works.
    pub geometry: Geometry,
    /// The sequence number; 0 is not valid. It is of the sub SA, where the SA has those.
    pub sequence: Option<u64>,
}

/// The geometry and the sequence number of a received packet.
///
/// A crypt offset above the agreed maximum is no error here: the draft wants such packets opened, and dropped after it
/// (3.1.2). That is [`BadPayload::CryptOffset`] of the decapsulation.
///
/// # Errors
/// [`Malformed::EespSessionId`], [`Malformed::CryptOffsetNotAllowed`], [`Malformed::EespPayloadOffset`],
/// [`Malformed::TruncatedEesp`] where the packet cannot hold its headers and ICV, [`Malformed::CryptOffsetPastEnd`]; found
/// in this order.
#[inline]
pub fn receive_geometry(
    parsed: &Parsed,
    located: &Located,
    frame: &[u8],
    parameters: &Parameters,
) -> Result<Received, Malformed> {
    let header = &located.header;
    if parameters.last_sub_sa.is_some_and(|last| header.session_id > last) {
        return Err(Malformed::EespSessionId);
    }
    let layout = located.layout(parameters);
    if let Some(option) = located.crypt_offset {
        if !matches!(parameters.format, Format::FullWithCryptOffset { .. }) {
            return Err(Malformed::CryptOffsetNotAllowed);
        }
        if usize::from(option.payload_offset) * 4 != layout.payload_header {
            return Err(Malformed::EespPayloadOffset);
        }
    }
    let (offset, end) = (located.offset, parsed.plain.l3_end);
    let packet = frame.get(offset..end).ok_or(Malformed::TruncatedEesp)?;
    let number = |at: usize| bytes::array(packet, at).map(u64::from_be_bytes).ok_or(Malformed::TruncatedEesp);
    let sequence = layout.sequence.map(number).transpose()?;
    let iv = match layout.iv {
        Some(at) => number(at)?,
        None => sequence.unwrap_or(0),
    };
    let geometry = geometry(parameters, &layout, iv, offset, end)?;
    Ok(Received { geometry, sequence })
}

/// The geometry of a packet whose header begins at `offset` and whose ICV ends at `end` of its frame.
///
/// # Errors
/// [`Malformed::TruncatedEesp`], [`Malformed::CryptOffsetPastEnd`].
#[inline]
pub(crate) fn geometry(
    parameters: &Parameters,
    layout: &Layout,
    iv: u64,
    offset: usize,
    end: usize,
) -> Result<Geometry, Malformed> {
    let body_end = end.checked_sub(parameters.icv_length.octets()).ok_or(Malformed::TruncatedEesp)?;
    if offset.saturating_add(layout.payload) > body_end {
        return Err(Malformed::TruncatedEesp);
    }
    let text = offset.saturating_add(layout.text);
    if text > body_end {
        return Err(Malformed::CryptOffsetPastEnd);
    }
    Ok(Geometry {
        nonce: esp::nonce(parameters.salt, iv.to_be_bytes()),
        aad: Aad::InPlace { start: offset, end: text },
        text: Span::new(text, body_end),
        icv: Span::new(body_end, end),
    })
}

/// What is wrong with the inside of an authenticated packet: its sender is broken, and the SA is best torn down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPayload {
    /// The payload info header does not begin with four bits of zero.
    PayloadInfo,
    /// The pad length passes the payload's front.
    PadLength,
    /// The crypt offset is above the agreed maximum, or reaches behind the inner packet. An auditable event (3.1.2).
    CryptOffset,
    /// In the optimized format: the payload is neither IPv4 nor IPv6.
    NotIp,
}

impl fmt::Display for BadPayload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::PayloadInfo => "the EESP payload info header does not begin with zero",
            Self::PadLength => "the EESP pad length is longer than the payload",
            Self::CryptOffset => "the EESP crypt offset is larger than agreed or than the inner packet",
            Self::NotIp => "the EESP payload is no IP packet",
        })
    }
}

impl core::error::Error for BadPayload {}

/// Octets of the UDP header that goes in front.
#[inline]
pub(crate) const fn udp_length(carrier: &Carrier) -> usize {
    match carrier {
        Carrier::Ip(_) => 0,
        Carrier::Udp(_) => udp::HEADER_LENGTH,
    }
}
