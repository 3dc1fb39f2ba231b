//! Bit pictures in plain characters: rows of 32 bits with bit 31 on the left, two characters a bit.
//!
//! A field that is too narrow for its name gets a letter and a legend under the picture; reserved bits are dots, secret
//! ones number signs. A line is drawn in an array and written at once: nothing here allocates.

use core::fmt::{self, Write};

use super::positions;
use crate::rows::{Field, Record, Word};

/// Bits of one row.
const ROW_BITS: u32 = 32;
/// Bytes of one row.
const ROW_BYTES: usize = 4;
/// Characters of one row: two a bit, and the last edge.
pub(super) const ROW_CHARACTERS: usize = 65;
/// Columns where a legend goes on in the next line.
const LEGEND_COLUMNS: usize = 80;

/// The picture of one register or word, with its legend. Empty for a value without inner structure.
pub(super) fn value(out: &mut impl Write, fields: &'static [Field]) -> fmt::Result {
    if whole(fields) {
        return Ok(());
    }
    writeln!(out, "```text")?;
    bit_numbers(out)?;
    writeln!(out, "     {}", Line::ruler())?;
    word_rows(out, fields, None, "", &mut Letters::default())?;
    let mut legend = Legend::default();
    legend.of(out, fields)?;
    legend.end(out)?;
    writeln!(out, "```\n")
}

/// The picture of a record, byte offsets on the left.
pub(super) fn record(out: &mut impl Write, record: &Record) -> fmt::Result {
    writeln!(out, "```text")?;
    bit_numbers(out)?;
    writeln!(out, "     {}", Line::ruler())?;
    let mut letters = Letters::default();
    let mut index = 0;
    while let Some(word) = record.words.get(index) {
        let byte = index * 8;
        if !whole(word.fields) {
            word_rows(out, word.fields, Some(byte), word.name, &mut letters)?;
            index += 1;
            continue;
        }
        let run = run_of_words(record.words, index);
        whole_words(out, record.words, index, run)?;
        index += run;
    }
    let mut legend = Legend::default();
    for word in record.words.iter().filter(|word| !whole(word.fields)) {
        legend.of(out, word.fields)?;
    }
    legend.end(out)?;
    writeln!(out, "```\n")
}

/// Whether a value has no inner structure.
pub(super) fn whole(fields: &[Field]) -> bool {
    fields.len() == 1
}

fn width_bits(fields: &[Field]) -> u32 {
    fields.iter().map(|field| u32::from(field.bits)).sum()
}

/// The rows of a word with fields, at `byte` of a record or alone.
fn word_rows(
    out: &mut impl Write,
    fields: &'static [Field],
    byte: Option<usize>,
    name: &str,
    letters: &mut Letters,
) -> fmt::Result {
    let first = *letters;
    for row in 0..width_bits(fields).div_ceil(ROW_BITS) {
        *letters = first;
        match byte {
            Some(byte) => write!(out, "{:>4} ", byte + row as usize * ROW_BYTES)?,
            None => write!(out, "     ")?,
        }
        write!(out, "{}", field_row(fields, row, letters))?;
        match row {
            0 if name.is_empty() => {}
            0 => write!(out, " {name}")?,
            _ => write!(out, " 63:32")?,
        }
        writeln!(out, "\n     {}", Line::ruler())?;
    }
    Ok(())
}

fn bit_numbers(out: &mut impl Write) -> fmt::Result {
    write!(out, "     ")?;
    (10..ROW_BITS).rev().try_for_each(|bit| write!(out, " {}", bit / 10))?;
    write!(out, "\n     ")?;
    (0..ROW_BITS).rev().try_for_each(|bit| write!(out, " {}", bit % 10))?;
    writeln!(out)
}

/// One row of a word with fields. Each row of a word is drawn with the same first letter.
fn field_row(fields: &'static [Field], row: u32, letters: &mut Letters) -> Line {
    let mut line = Line::edges(b'|');
    for (low, field) in positions(fields) {
        let letter = if needs_letter(low, field) { letters.take() } else { None };
        let Some((low, bits)) = piece(low, field, row) else { continue };
        let (start, end) = columns(low, bits);
        line.put(start, b'|');
        line.put(end, b'|');
        line.fill(start + 1, end, fill_of(field));
        match letter {
            _ if field.reserved() => {}
            Some(letter) if field.name.len() > end - start - 1 => line.put((start + end) / 2, letter),
            _ => line.centre(start + 1, end, field.name, ""),
        }
    }
    line
}

/// A box of one word or a run of them, which hold one thing.
fn whole_words(out: &mut impl Write, words: &[Word], index: usize, run: usize) -> fmt::Result {
    let (Some(first), Some(last)) = (words.get(index), words.get(index + run - 1)) else { return Ok(()) };
    let reserved = reserved_word(first);
    let fill = if reserved { b'.' } else { first.fields.first().map_or(b' ', fill_of) };
    // A longer run is cut short, which its edge says.
    let mut middle = Line::edges(if run > 1 { b'~' } else { b'+' });
    middle.fill(1, ROW_CHARACTERS - 1, fill);
    let mut side = Line::edges(b'|');
    side.fill(1, ROW_CHARACTERS - 1, fill);
    if !reserved {
        middle.centre(1, ROW_CHARACTERS - 1, first.name, if run > 1 { last.name } else { "" });
    }
    writeln!(out, "{:>4} {side}", index * 8)?;
    writeln!(out, "     {middle}")?;
    writeln!(out, "{:>4} {side}", (index + run) * 8 - ROW_BYTES)?;
    writeln!(out, "     {}", Line::ruler())
}

fn reserved_word(word: &Word) -> bool {
    word.name.starts_with("reserved")
}

/// How many words from `index` on hold consecutive bytes of one thing: numbered, and described by their bytes.
fn run_of_words(words: &[Word], index: usize) -> usize {
    let stem = |word: &Word| word.name.trim_end_matches(|character: char| character.is_ascii_digit());
    let Some(first) = words.get(index) else { return 1 };
    let bytes = first.doc.contains("ytes ") || reserved_word(first);
    let same = |word: &&Word| bytes && whole(word.fields) && stem(word) == stem(first);
    words.iter().skip(index).take_while(same).count().max(1)
}

/// The part of a field at `low` that stands in a row: its lowest bit there and its width.
fn piece(low: u32, field: &Field, row: u32) -> Option<(u32, u32)> {
    let (row_low, row_end) = (row * ROW_BITS, (row + 1) * ROW_BITS);
    let (start, end) = (low.max(row_low), (low + u32::from(field.bits)).min(row_end));
    (start < end).then(|| (start - row_low, end - start))
}

/// The columns of the edges of a piece.
fn columns(low: u32, bits: u32) -> (usize, usize) {
    (2 * (ROW_BITS - low - bits) as usize, 2 * (ROW_BITS - low) as usize)
}

/// Whether a piece of the field is too narrow for its name.
fn needs_letter(low: u32, field: &Field) -> bool {
    let too_narrow = |(_, bits)| field.name.len() > 2 * bits as usize - 1;
    !field.reserved() && (0..2).filter_map(|row| piece(low, field, row)).any(too_narrow)
}

fn fill_of(field: &Field) -> u8 {
    match field {
        field if field.reserved() => b'.',
        Field { secret: true, .. } => b'#',
        _ => b' ',
    }
}

/// One line of a picture.
pub(super) struct Line([u8; ROW_CHARACTERS]);

impl Line {
    /// A horizontal line with a tick a bit.
    pub(super) fn ruler() -> Self {
        let mut line = Line([b'-'; ROW_CHARACTERS]);
        line.0.iter_mut().step_by(2).for_each(|character| *character = b'+');
        line
    }

    /// A horizontal line without ticks.
    pub(super) fn rule() -> Self {
        let mut line = Line::edges(b'+');
        line.fill(1, ROW_CHARACTERS - 1, b'-');
        line
    }

    /// An empty line between two edges.
    pub(super) fn edges(edge: u8) -> Self {
        let mut line = Line([b' '; ROW_CHARACTERS]);
        line.put(0, edge);
        line.put(ROW_CHARACTERS - 1, edge);
        line
    }

    pub(super) fn put(&mut self, column: usize, character: u8) {
        if let Some(place) = self.0.get_mut(column) {
            *place = character;
        }
    }

    pub(super) fn fill(&mut self, start: usize, end: usize, character: u8) {
        if let Some(places) = self.0.get_mut(start..end) {
            places.fill(character);
        }
    }

    /// Writes `text`, or `text` to `last`, into the middle of the columns from `start` to `end`.
    pub(super) fn centre(&mut self, start: usize, end: usize, text: &str, last: &str) {
        let between = if last.is_empty() { "" } else { " to " };
        let length = text.len() + between.len() + last.len();
        // A blank on each side sets a name off from what fills its box.
        let room = end - start;
        let first = start + room.saturating_sub(length) / 2;
        if length + 2 <= room {
            self.fill(first - 1, first + length + 1, b' ');
        }
        let characters = text.bytes().chain(between.bytes()).chain(last.bytes());
        for (column, character) in (first..end).zip(characters) {
            self.put(column, character);
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|character| formatter.write_char(char::from(*character)))
    }
}

/// The letters of one picture, in the order of its fields.
#[derive(Clone, Copy, Default)]
struct Letters {
    taken: u8,
}

impl Letters {
    fn take(&mut self) -> Option<u8> {
        let index = self.taken;
        self.taken += 1;
        match index {
            0..26 => Some(b'A' + index),
            26..52 => Some(b'a' + index - 26),
            _ => None,
        }
    }
}

/// What the letters of a picture stand for, several to a line.
#[derive(Default)]
struct Legend {
    letters: Letters,
    column: usize,
}

impl Legend {
    fn of(&mut self, out: &mut impl Write, fields: &'static [Field]) -> fmt::Result {
        for (_, field) in positions(fields).filter(|(low, field)| needs_letter(*low, field)) {
            let letter = char::from(self.letters.take().unwrap_or(b'?'));
            let length = field.name.len() + 2;
            let gap = if self.column == 0 { 5 } else { 3 };
            if self.column != 0 && self.column + gap + length > LEGEND_COLUMNS {
                write!(out, "\n     ")?;
                self.column = 5;
            } else {
                write!(out, "{:gap$}", "")?;
                self.column += gap;
            }
            write!(out, "{letter} {}", field.name)?;
            self.column += length;
        }
        Ok(())
    }

    fn end(&self, out: &mut impl Write) -> fmt::Result {
        if self.column == 0 { Ok(()) } else { writeln!(out) }
    }
}
