//! The parts of a TCP header that a NIC needs (RFC 9293, 3.1): the ports to classify, the rest to segment.
//!
//! ```text
//!   octet 0         1         2         3         4         5         6         7
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!      0 |    source port    | destination port  |            sequence number            |
//!      8 |        acknowledgement number         |off|res|  flags  |      window         |
//!     16 |     checksum      |  urgent pointer   |  options, up to 40 octets
//!        +---------+---------+---------+---------+
//! ```

use crate::bytes;
use crate::room::NoRoom;

/// Octets of the header without options.
pub const HEADER_LENGTH: usize = 20;

/// Octet ranges from the header's first octet.
pub mod field {
    use core::ops::Range;
    /// Source port.
    pub const SOURCE_PORT: Range<usize> = 0..2;
    /// Destination port.
    pub const DESTINATION_PORT: Range<usize> = 2..4;
    /// Sequence number of the first octet of data.
    pub const SEQUENCE: Range<usize> = 4..8;
    /// Header length in 32-bit words in bits 7..4.
    pub const DATA_OFFSET: Range<usize> = 12..13;
    /// See [`flag`](super::flag).
    pub const FLAGS: Range<usize> = 13..14;
    /// Checksum over pseudo header, header and data.
    pub const CHECKSUM: Range<usize> = 16..18;
}

/// Bits of the flags octet.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion window reduced (RFC 3168, 6.1.2).
    pub const CWR: u8 = 0x80;
}

/// The ports of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Header {
    /// Reads the ports at the front of `segment`; nothing where there are fewer than four octets.
    #[inline]
    pub fn parse(segment: &[u8]) -> Option<Self> {
        let [s0, s1, d0, d1] = bytes::array(segment, 0)?;
        Some(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
        })
    }

    /// Writes the ports to the front of `segment`; the rest of the TCP header is left as it is.
    ///
    /// # Errors
    /// [`NoRoom`] where `segment` has fewer than four octets.
    #[inline]
    pub fn emit(&self, segment: &mut [u8]) -> Result<(), NoRoom> {
        let [s0, s1] = self.source_port.to_be_bytes();
        let [d0, d1] = self.destination_port.to_be_bytes();
        bytes::put(segment, 0, &[s0, s1, d0, d1])
    }
}
