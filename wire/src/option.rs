//! The options of WESPv2 and EESP: type, length and value, as in the extension headers of IPv6 (RFC 8200, 4.2).
//!
//! ```text
//!   octet 0         1         2
//!        +---------+
//!        |    0    |                          Pad1: one octet
//!        +---------+---------+--------------
//!        |    1    |   N-2   | N-2 zeros      PadN: N octets
//!        +---------+---------+--------------
//!        |  type   | length  | data           length: octets of data
//!        +---------+---------+--------------
//! ```

use crate::malformed::Malformed;
use crate::room::NoRoom;

/// Options that are walked through, padding included, as many as there are IPv6 extension headers. Both drafts allow
/// more, up to one in each octet, but a parser that takes a packet in a few cycles needs an end. A packet with one option
/// and its padding has two, or three where the padding is two Pad1.
pub const MAX_OPTIONS: usize = 8;
/// Type of the one octet that has neither length nor data.
pub const PAD1: u8 = 0;
/// Type of padding of two octets and more.
pub const PADN: u8 = 1;

/// Octets of type and length.
const FIXED_LENGTH: usize = 2;

/// One option that is no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeLengthValue<'a> {
    /// The option's type.
    pub option_type: u8,
    /// The option's data.
    pub data: &'a [u8],
}

/// The options of a header in their order, without the padding. What is wrong comes as the last item.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Options<'a> {
    /// The options in `octets`, which are all of the header's option field.
    #[inline]
    pub const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets, left: MAX_OPTIONS }
    }

    /// The next option, padding included.
    #[inline]
    fn step(&mut self) -> Result<Option<TypeLengthValue<'a>>, Malformed> {
        let Some((option_type, behind_type)) = self.rest.split_first() else { return Ok(None) };
        self.left = self.left.checked_sub(1).ok_or(Malformed::TooManyOptions)?;
        if *option_type == PAD1 {
            self.rest = behind_type;
            return Ok(Some(TypeLengthValue { option_type: PAD1, data: &[] }));
        }
        let (length, value) = behind_type.split_first().ok_or(Malformed::OptionOverrun)?;
        let (data, rest) = value.split_at_checked(usize::from(*length)).ok_or(Malformed::OptionOverrun)?;
        self.rest = rest;
        Ok(Some(TypeLengthValue { option_type: *option_type, data }))
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<TypeLengthValue<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some(option)) if matches!(option.option_type, PAD1 | PADN) => {}
                Ok(option) => return option.map(Ok),
                Err(malformed) => {
                    self.rest = &[];
                    return Some(Err(malformed));
                }
            }
        }
    }
}

/// Fills `octets` with one padding option: Pad1, or PadN; nothing where it is empty.
///
/// # Errors
/// [`NoRoom`] for more than 257 octets, which one option cannot be.
#[inline]
pub fn emit_padding(octets: &mut [u8]) -> Result<(), NoRoom> {
    if octets.len() == 1 {
        octets.fill(PAD1);
        return Ok(());
    }
    let Some((head, zeros)) = octets.split_first_chunk_mut::<FIXED_LENGTH>() else { return Ok(()) };
    *head = [PADN, u8::try_from(zeros.len()).map_err(|_| NoRoom)?];
    zeros.fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_padding_is_one_option_of_its_length() {
        let mut octets = [0xeeu8; 259];
        for length in 0..=257 {
            let padding = &mut octets[..length];
            emit_padding(padding).unwrap();
            let mut options = Options::new(padding);
            let first = options.step().unwrap();
            assert_eq!(first.is_some(), length > 0, "{length}");
            assert!(options.rest.is_empty(), "{length}");
            assert!(first.is_none_or(|option| option.data.iter().all(|octet| *octet == 0)));
            assert_eq!(Options::new(&octets[..length]).next(), None);
        }
        assert_eq!(emit_padding(&mut octets[..258]), Err(NoRoom));
    }

    #[test]
    fn options_end_where_their_field_does() {
        use Malformed::{OptionOverrun, TooManyOptions};
        let rows: [(&[u8], Result<usize, Malformed>); 12] = [
            (&[], Ok(0)),
            (&[0], Ok(0)),
            (&[1], Err(OptionOverrun)),
            (&[1, 0], Ok(0)),
            (&[1, 1], Err(OptionOverrun)),
            (&[7, 2, 0, 0], Ok(1)),
            (&[7, 3, 0, 0], Err(OptionOverrun)),
            (&[7, 0, 9, 0, 0, 0], Ok(2)),
            (&[7, 0, 9, 255, 0, 0], Err(OptionOverrun)),
            (&[0; 8], Ok(0)),
            (&[0; 9], Err(TooManyOptions)),
            (&[7, 0, 0, 0, 0, 0, 0, 0, 0, 7], Err(TooManyOptions)),
        ];
        for (octets, expected) in rows {
            let found = Options::new(octets).try_fold(0, |count, option| option.map(|_| count + 1));
            assert_eq!(found, expected, "{octets:?}");
        }
    }

    #[test]
    fn nothing_comes_behind_what_is_wrong() {
        let mut options = Options::new(&[7, 9, 0]);
        assert_eq!(options.next(), Some(Err(Malformed::OptionOverrun)));
        assert_eq!(options.next(), None);
    }
}
