//! Checked access to octets: what every codec of this crate reads and writes with.

use crate::room::NoRoom;

/// The `N` octets from `offset`, or nothing where the slice ends before.
#[inline]
pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk::<N>().copied()
}

/// The octet at `offset`.
#[inline]
pub(crate) fn octet(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// The big-endian 16-bit word at `offset`.
#[inline]
pub(crate) fn word16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_be_bytes)
}

/// Writes `value` from `offset`.
#[inline]
pub(crate) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) -> Result<(), NoRoom> {
    let end = offset.checked_add(value.len()).ok_or(NoRoom)?;
    bytes.get_mut(offset..end).ok_or(NoRoom)?.copy_from_slice(value);
    Ok(())
}

/// Copies the first `length` octets from `from` to `to` inside one slice; the ranges may overlap.
#[inline(always)]
pub(crate) fn shift(bytes: &mut [u8], from: usize, to: usize, length: usize) -> Result<(), NoRoom> {
    let from_end = from.checked_add(length).ok_or(NoRoom)?;
    let to_end = to.checked_add(length).ok_or(NoRoom)?;
    if from_end > bytes.len() || to_end > bytes.len() {
        return Err(NoRoom);
    }
    bytes.copy_within(from..from_end, to);
    Ok(())
}
