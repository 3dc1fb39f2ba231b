//! UDP header (RFC 768).
//!
//! ```text
//!   octet 0         1         2         3         4         5         6         7
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//!        |    source port    | destination port  |      length       |     checksum      |
//!        +---------+---------+---------+---------+---------+---------+---------+---------+
//! ```

use crate::bytes;
use crate::malformed::Malformed;
use crate::room::NoRoom;

/// Octets of the header.
pub const HEADER_LENGTH: usize = 8;

/// Octet ranges from the header's first octet.
pub mod field {
    use core::ops::Range;
    /// Source port.
    pub const SOURCE_PORT: Range<usize> = 0..2;
    /// Destination port.
    pub const DESTINATION_PORT: Range<usize> = 2..4;
    /// Octets of header and payload.
    pub const LENGTH: Range<usize> = 4..6;
    /// Checksum; zero where there is none (over IPv6 only by RFC 6935, 6936).
    pub const CHECKSUM: Range<usize> = 6..8;
}

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Octets of header and payload.
    pub length: u16,
    /// Checksum; zero where there is none.
    pub checksum: u16,
}

impl Header {
    /// Reads the header at the front of `datagram`, which is the IP payload.
    ///
    /// # Errors
    /// [`Malformed::TruncatedUdp`]; [`Malformed::BadUdpLength`] where the length is below eight or past the IP payload.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let [s0, s1, d0, d1, l0, l1, c0, c1] = bytes::array(datagram, 0).ok_or(Malformed::TruncatedUdp)?;
        let length = u16::from_be_bytes([l0, l1]);
        if usize::from(length) < HEADER_LENGTH || usize::from(length) > datagram.len() {
            return Err(Malformed::BadUdpLength);
        }
        Ok(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            length,
            checksum: u16::from_be_bytes([c0, c1]),
        })
    }

    /// Writes the header's eight octets to the front of `datagram`.
    ///
    /// # Errors
    /// [`NoRoom`] where `datagram` is shorter.
    #[inline]
    pub fn emit(&self, datagram: &mut [u8]) -> Result<(), NoRoom> {
        let [s0, s1] = self.source_port.to_be_bytes();
        let [d0, d1] = self.destination_port.to_be_bytes();
        let [l0, l1] = self.length.to_be_bytes();
        let [c0, c1] = self.checksum.to_be_bytes();
        bytes::put(datagram, 0, &[s0, s1, d0, d1, l0, l1, c0, c1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_malformation() {
        let datagram = [0x2b, 0x67, 0x56, 0xce, 0x00, 0x08, 0x69, 0xa6];
        let header = Header::parse(&datagram).unwrap();
        assert_eq!((header.source_port, header.destination_port), (11111, 22222));
        let mut emitted = [0u8; 8];
        header.emit(&mut emitted).unwrap();
        assert_eq!(emitted, datagram);
        assert_eq!(header.emit(&mut emitted[..7]), Err(NoRoom));
        assert_eq!(Header::parse(&datagram[..7]), Err(Malformed::TruncatedUdp));
        assert_eq!(Header::parse(&[0, 0, 0, 0, 0, 7, 0, 0]), Err(Malformed::BadUdpLength));
        assert_eq!(Header::parse(&[0, 0, 0, 0, 0, 9, 0, 0]), Err(Malformed::BadUdpLength));
    }
}
