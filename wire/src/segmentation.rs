//! Large send offload: one large TCP/IP packet becomes many that fit (NDIS large send offload version 2, Linux TSO).
//!
//! ```text
//!   large      L2 | IP | TCP | data 0 ...................................... N
//!   segment 0  L2 | IP | TCP | data 0 .. MSS
//!   segment 1  L2 | IP | TCP |               data MSS .. 2 MSS
//!   ...
//! ```
//!
//! What differs from segment to segment is computed from the large packet's header each time, so that segments may be made
//! in any order: copy the first [`header_length`](Segmentation::header_length) octets, let
//! [`segment_header`](Segmentation::segment_header) change the copy, append the octets of
//! [`data`](Segmentation::data), and fill the TCP checksum with
//! [`fill_l4_checksum`](crate::l4_checksum::fill_l4_checksum) over [`plain`](Segmentation::plain).

use core::fmt;

use crate::bytes;
use crate::geometry::Span;
use crate::ip::protocol;
use crate::l4_checksum;
use crate::packet::Plain;
use crate::room::NoRoom;
use crate::{ipv4, ipv6, tcp, transform};

/// Why a packet is not segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSegmentable {
    /// The packet is not TCP over IP.
    NotTcp,
    /// The packet is a fragment.
    Fragment,
    /// The MSS is zero.
    ZeroMss,
    /// There is no data after the TCP header.
    NoPayload,
    /// The packet ends inside the TCP header, or the header's length is below five words.
    TruncatedHeader,
    /// SYN, RST or URG is set, which no large packet has: each speaks of one place in the sequence.
    Flags,
    /// The parse result does not belong to this frame.
    StaleParse,
}

impl fmt::Display for NotSegmentable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotTcp => "the packet is not TCP",
            Self::Fragment => "fragments are not segmented",
            Self::ZeroMss => "the MSS is zero",
            Self::NoPayload => "there is no data to segment",
            Self::TruncatedHeader => "the packet ends inside its TCP header",
            Self::Flags => "a packet with SYN, RST or URG is not segmented",
            Self::StaleParse => "the parse result does not belong to the frame",
        })
    }
}

impl core::error::Error for NotSegmentable {}

/// How a large packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    plain: Plain,
    header_length: usize,
    data_length: usize,
    mss: usize,
}

impl Segmentation {
    /// Looks at a large packet. `mss` is the most octets of data that a segment may have.
    ///
    /// # Errors
    /// [`NotSegmentable`].
    pub fn new(frame: &[u8], plain: &Plain, mss: u16) -> Result<Self, NotSegmentable> {
        if plain.ip_version == 0 || plain.next_header != protocol::TCP {
            return Err(NotSegmentable::NotTcp);
        }
        transform::check_plain(plain, frame.len()).map_err(|_| NotSegmentable::StaleParse)?;
        if plain.fragment {
            return Err(NotSegmentable::Fragment);
        }
        if mss == 0 {
            return Err(NotSegmentable::ZeroMss);
        }
        let segment = frame.get(plain.l4_offset()..plain.l3_end).ok_or(NotSegmentable::StaleParse)?;
        let words = bytes::octet(segment, tcp::field::DATA_OFFSET.start).map_or(0, |octet| octet >> 4);
        let tcp_length = usize::from(words) * 4;
        if tcp_length < tcp::HEADER_LENGTH {
            return Err(NotSegmentable::TruncatedHeader);
        }
        let data_length = segment.len().checked_sub(tcp_length).ok_or(NotSegmentable::TruncatedHeader)?;
        if data_length == 0 {
            return Err(NotSegmentable::NoPayload);
        }
        let flags = bytes::octet(segment, tcp::field::FLAGS.start).unwrap_or(0);
        if flags & (tcp::flag::SYN | tcp::flag::RST | tcp::flag::URG) != 0 {
            return Err(NotSegmentable::Flags);
        }
        let header_length = plain.l4_offset() + tcp_length;
        Ok(Self { plain: *plain, header_length, data_length, mss: usize::from(mss) })
    }

    /// Octets from the frame's first to the TCP header's last: what each segment begins with.
    #[inline]
    pub const fn header_length(&self) -> usize {
        self.header_length
    }

    /// Number of segments, at least one.
    #[inline]
    pub const fn segments(&self) -> usize {
        self.data_length.div_ceil(self.mss)
    }

    /// Where a segment's data stands in the large frame; nothing from [`segments`](Self::segments) on.
    #[inline]
    pub fn data(&self, index: usize) -> Option<Span> {
        let start = index.checked_mul(self.mss).filter(|start| *start < self.data_length)?;
        let end = (start + self.mss).min(self.data_length);
        Some(Span::new(self.header_length + start, self.header_length + end))
    }

    /// The parse result of a segment; nothing from [`segments`](Self::segments) on.
    #[inline]
    pub fn plain(&self, index: usize) -> Option<Plain> {
        let data = self.data(index)?;
        Some(Plain { l3_end: self.header_length + data.length(), ..self.plain })
    }

    /// Makes `header`, a copy of the large frame's first octets, the header of a segment: IP length, IPv4 identification
    /// plus `index`, IPv4 checksum, TCP sequence number; FIN and PSH stay on the last segment alone, CWR on the first alone
    /// (RFC 3168, 6.1.2). The TCP checksum is left to be filled once the data stands behind.
    ///
    /// # Errors
    /// [`NoRoom`] where there is no such segment or `header` is shorter; what it holds is then unspecified.
    pub fn segment_header(&self, index: usize, header: &mut [u8]) -> Result<(), NoRoom> {
        let segment = self.plain(index).ok_or(NoRoom)?;
        let header = header.get_mut(..self.header_length).ok_or(NoRoom)?;
        let tcp_offset = segment.l4_offset();
        let ip_length =
            transform::ip_length(&segment, segment.l3_end - tcp_offset).map_err(|_| NoRoom)?.to_be_bytes();
        if segment.ip_version == 4 {
            let identification_at = segment.l3_offset + ipv4::field::IDENTIFICATION.start;
            let identification = bytes::word16(header, identification_at).ok_or(NoRoom)?;
            let identification = identification.wrapping_add(index as u16);
            bytes::put(header, identification_at, &identification.to_be_bytes())?;
            bytes::put(header, segment.l3_offset + ipv4::field::TOTAL_LENGTH.start, &ip_length)?;
            if !l4_checksum::fill_ipv4_checksum(header, &segment) {
                return Err(NoRoom);
            }
        } else {
            bytes::put(header, segment.l3_offset + ipv6::field::PAYLOAD_LENGTH.start, &ip_length)?;
        }
        let sequence_at = tcp_offset + tcp::field::SEQUENCE.start;
        let sequence = u32::from_be_bytes(bytes::array(header, sequence_at).ok_or(NoRoom)?);
        let sequence = sequence.wrapping_add((index * self.mss) as u32);
        bytes::put(header, sequence_at, &sequence.to_be_bytes())?;
        let flags_at = tcp_offset + tcp::field::FLAGS.start;
        let mut flags = bytes::octet(header, flags_at).ok_or(NoRoom)?;
        if index > 0 {
            flags &= !tcp::flag::CWR;
        }
        if index + 1 < self.segments() {
            flags &= !(tcp::flag::FIN | tcp::flag::PSH);
        }
        bytes::put(header, flags_at, &[flags])
    }
}
