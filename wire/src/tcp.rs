//! The part of a TCP header that a NIC's classification needs: the ports (RFC 9293, 3.1).

use crate::bytes;
use crate::malformed::Malformed;
use crate::room::NoRoom;

/// Octet ranges from the header's first octet.
pub mod field {
    use core::ops::Range;
    /// Source port.
    pub const SOURCE_PORT: Range<usize> = 0..2;
    /// Destination port.
    pub const DESTINATION_PORT: Range<usize> = 2..4;
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
    /// Reads the ports at the front of `segment`.
    ///
    /// # Errors
    /// [`Malformed::TruncatedTcp`] where there are fewer than four octets.
    #[inline]
    pub fn parse(segment: &[u8]) -> Result<Self, Malformed> {
        let [s0, s1, d0, d1] = bytes::array(segment, 0).ok_or(Malformed::TruncatedTcp)?;
        Ok(Self { source_port: u16::from_be_bytes([s0, s1]), destination_port: u16::from_be_bytes([d0, d1]) })
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
