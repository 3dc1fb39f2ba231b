//! Explicit congestion notification through tunnels (RFC 6040).

use core::fmt;

/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable transport, codepoint 1.
pub const ECT_1: u8 = 0b01;
/// ECN-capable transport, codepoint 0.
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The outer header says congestion, the inner transport cannot be told: RFC 6040, 4.2 has the packet dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionDrop;

impl fmt::Display for CongestionDrop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("congestion was marked on a packet whose transport has no ECN")
    }
}

impl core::error::Error for CongestionDrop {}

/// The inner ECN codepoint after a tunnel's exit (RFC 6040, 4.2, figure 4). Only the two low bits of either octet
/// are looked at.
///
/// ```text
///                      outer: Not-ECT   ECT(0)    ECT(1)    CE
///   inner Not-ECT             Not-ECT   Not-ECT   Not-ECT   drop
///   inner ECT(0)              ECT(0)    ECT(0)    ECT(1)    CE
///   inner ECT(1)              ECT(1)    ECT(1)    ECT(1)    CE
///   inner CE                  CE        CE        CE        CE
/// ```
///
/// # Errors
/// [`CongestionDrop`] for the one combination that is to be dropped.
#[inline]
pub const fn combine(inner: u8, outer: u8) -> Result<u8, CongestionDrop> {
    match (inner & 0b11, outer & 0b11) {
        (NOT_ECT, CE) => Err(CongestionDrop),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (_, CE) => Ok(CE),
        (ECT_0, ECT_1) => Ok(ECT_1),
        (inner, _) => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_4_of_rfc_6040() {
        let rows = [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), Err(CongestionDrop)]),
            (ECT_0, [Ok(ECT_0), Ok(ECT_0), Ok(ECT_1), Ok(CE)]),
            (ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)]),
            (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                assert_eq!(combine(inner, outer), expected, "inner {inner:02b}, outer {outer:02b}");
            }
        }
    }
}
