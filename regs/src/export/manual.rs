//! The register and descriptor manual, in Markdown that reads in a terminal too.

use core::fmt::{self, Write};

use super::{ENUMERATIONS, OneLine, RECORDS, SPACES, WORD_FORMS, layouts, picture, positions};
use crate::rows::{Block, Enumeration, Field, Record, RegisterRow, Word};
use crate::{CONTRACT_MAJOR, CONTRACT_MINOR};

/// Headings of the parts that are not address spaces, in their order.
const RINGS: &str = "Rings, indices and phases";
const SLOTS: &str = "Transmit slots";
const PUSHES: &str = "Push windows";
const SHADOWS: &str = "Shadow doorbells";
const RECORDS_HEADING: &str = "Records in host memory";
const FORMS: &str = "Forms of a word";
const NUMBERS: &str = "Numbers";

/// Writes the manual.
pub fn manual(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "# Register and descriptor manual, contract {CONTRACT_MAJOR}.{CONTRACT_MINOR}\n")?;
    writeln!(
        out,
        "\
Made from `regs/` by `cargo run -- regs --format manual`. The [programmer's guide](programmers-guide.md) goes from the
first register read to the first packet. Everything is little-endian; bit 0 is the least significant. Reserved bits
are written as 0 and ignored on read. Secret fields are redacted in traces and dumps. Access: `ro` read only, `rw` read
and write, `wo` write only and 0 on read, `w1s` writing 1 sets the bit for good, `w1c` writing 1 clears the bit and
writing 0 leaves it.

Pictures show 32 bits a row, bit 31 on the left; on the left of a record's rows stands the byte offset, on the right
the name of the word. A field too narrow for its name has a letter, explained under the picture. `.` is reserved,
`#` is secret, and a box with `~` at its edge stands for more words than it has rows.
"
    )?;
    contents(out)?;
    writeln!(out, "## {RINGS}\n")?;
    layouts::rings(out)?;
    writeln!(out, "## {SLOTS}\n")?;
    layouts::slots(out)?;
    writeln!(out, "## {PUSHES}\n")?;
    layouts::pushes(out)?;
    writeln!(out, "## {SHADOWS}\n")?;
    layouts::shadows(out)?;
    for space in SPACES {
        writeln!(out, "## {}\n\n{}\n", space.name, space.doc)?;
        space.blocks.iter().try_for_each(|one| block(out, one))?;
    }
    writeln!(out, "## {RECORDS_HEADING}\n")?;
    RECORDS.iter().try_for_each(|one| record(out, one))?;
    writeln!(
        out,
        "## {FORMS}\n\nThe security word of a descriptor is one of the first two, as its control word says. The reply of \
         `sa_install`\nis as many of the last as it installed SAs.\n"
    )?;
    for (name, form) in WORD_FORMS {
        writeln!(out, "### {name}\n")?;
        picture::value(out, form)?;
        fields(out, form)?;
    }
    writeln!(out, "## {NUMBERS}\n")?;
    ENUMERATIONS.iter().try_for_each(|one| enumeration(out, one))
}

/// The list of contents, with a link to each heading.
fn contents(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "## Contents\n")?;
    for heading in [RINGS, SLOTS, PUSHES, SHADOWS] {
        writeln!(out, "- {}", Link(heading))?;
    }
    for space in SPACES {
        writeln!(out, "- {}: {}", Link(space.name), space.doc)?;
        for block in space.blocks {
            write!(out, "  - {}: ", Link(block.name))?;
            links(out, block.registers.iter().map(|register| register.name))?;
        }
    }
    write!(out, "- {}: ", Link(RECORDS_HEADING))?;
    links(out, RECORDS.iter().map(|record| record.name))?;
    write!(out, "- {}: ", Link(FORMS))?;
    links(out, WORD_FORMS.iter().map(|(name, _)| *name))?;
    write!(out, "- {}: ", Link(NUMBERS))?;
    links(out, ENUMERATIONS.iter().map(|enumeration| enumeration.name))?;
    writeln!(out)
}

fn links(out: &mut impl Write, headings: impl Iterator<Item = &'static str>) -> fmt::Result {
    for (index, heading) in headings.enumerate() {
        let comma = if index == 0 { "" } else { ",\n    " };
        write!(out, "{comma}{}", Link(heading))?;
    }
    writeln!(out)
}

fn block(out: &mut impl Write, block: &Block) -> fmt::Result {
    writeln!(out, "### {}\n\n{}\n", block.name, Text(block.doc))?;
    writeln!(
        out,
        "Kind {}, version {}, offset `{:#x}`, {:#x} bytes an instance.\n",
        block.kind, block.version, block.offset, block.stride
    )?;
    block.registers.iter().try_for_each(|one| register(out, one))
}

fn register(out: &mut impl Write, register: &RegisterRow) -> fmt::Result {
    writeln!(
        out,
        "#### {}\n\n`{:#06x}` · {} bits · `{}` · {}\n",
        register.name,
        register.offset,
        register.width_bits,
        register.access.name(),
        Text(register.doc)
    )?;
    picture::value(out, register.fields)?;
    fields(out, register.fields)
}

fn record(out: &mut impl Write, record: &Record) -> fmt::Result {
    let bytes = record.words.len() * 8;
    writeln!(out, "### {}\n\n{bytes} bytes. {}\n", record.name, Text(record.doc))?;
    picture::record(out, record)?;
    for (index, word) in record.words.iter().enumerate() {
        let (first, last) = (index * 8, index * 8 + 7);
        let secret = if word.fields.iter().any(|field| field.secret) { " (secret)" } else { "" };
        write!(out, "Bytes {first} to {last}, `{}`{secret}: {}", word.name, Text(word.doc))?;
        match told_before(record, word) {
            Some(earlier) => writeln!(out, " Fields as in {}.\n", Link(earlier.name))?,
            None => {
                writeln!(out, "\n")?;
                fields(out, word.fields)?;
            }
        }
    }
    Ok(())
}

/// The record before this one whose word of this name has the same fields.
fn told_before(record: &Record, word: &Word) -> Option<&'static Record> {
    let same = |other: &Word| {
        other.name == word.name
            && other.fields.iter().map(|field| field.doc).eq(word.fields.iter().map(|field| field.doc))
    };
    let before = RECORDS.iter().take_while(|other| other.name != record.name);
    before.filter(|_| !picture::whole(word.fields)).find(|other| other.words.iter().any(same))
}

fn enumeration(out: &mut impl Write, enumeration: &Enumeration) -> fmt::Result {
    writeln!(out, "### {}\n\n{}\n", enumeration.name, Text(enumeration.doc))?;
    let width = enumeration.values.iter().map(|value| value.name.len()).max().unwrap_or(0) + 2;
    writeln!(out, "| number | {:<width$} | meaning |\n|---|---|---|", "name")?;
    for value in enumeration.values {
        let gap = width - 2 - value.name.len();
        writeln!(out, "| {:>6} | `{}`{:gap$} | {} |", value.number, value.name, "", Text(value.doc))?;
    }
    writeln!(out)
}

/// A table of fields, unless the value has no inner structure.
fn fields(out: &mut impl Write, fields: &'static [Field]) -> fmt::Result {
    if picture::whole(fields) {
        return Ok(());
    }
    let width = fields.iter().map(|field| name(field).len()).max().unwrap_or(0) + 2;
    writeln!(out, "| bits  | {:<width$} | meaning |\n|---|---|---|", "field")?;
    for (low, field) in positions(fields) {
        let high = low + u32::from(field.bits) - 1;
        if high == low {
            write!(out, "| {low:>5} ")?;
        } else {
            write!(out, "| {high:>2}:{low:<2} ")?;
        }
        let (name, secret) = (name(field), if field.secret { " (secret)" } else { "" });
        let gap = width - 2 - name.len();
        writeln!(out, "| `{name}`{secret}{:gap$} | {} |", "", Text(field.doc))?;
    }
    writeln!(out)
}

fn name(field: &Field) -> &'static str {
    if field.reserved() { "reserved" } else { field.name }
}

/// A heading of the manual as a link to it. Forges make the anchor of a heading from its letters, digits, `_` and `-`
/// in lower case, and a `-` from each blank.
struct Link(&'static str);

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}](#", self.0)?;
        for character in self.0.chars() {
            match character {
                ' ' => formatter.write_char('-')?,
                '_' | '-' => formatter.write_char(character)?,
                _ if character.is_alphanumeric() => formatter.write_char(character.to_ascii_lowercase())?,
                _ => {}
            }
        }
        formatter.write_char(')')
    }
}

/// A doc comment as one line, its references as links.
struct Text(&'static str);

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mut rest) in OneLine(self.0).lines().enumerate() {
            if index > 0 {
                formatter.write_char(' ')?;
            }
            while let Some((before, reference)) = rest.split_once("[`") {
                let Some((path, after)) = reference.split_once("`]") else { break };
                formatter.write_str(before)?;
                match heading_of(path) {
                    Some(heading) => Link(heading).fmt(formatter)?,
                    None => write!(formatter, "`{path}`")?,
                }
                rest = after;
            }
            formatter.write_str(rest)?;
        }
        Ok(())
    }
}

/// The heading that a reference of a doc comment leads to: a table of numbers, a record, a form, or the register of a
/// type. Several tables of numbers may have the name of a register's type, so they come first.
fn heading_of(path: &'static str) -> Option<&'static str> {
    let name = path.rsplit("::").next()?;
    let numbers = ENUMERATIONS.iter().map(|enumeration| enumeration.name);
    let records = RECORDS.iter().map(|record| record.name);
    let forms = WORD_FORMS.iter().map(|(name, _)| *name);
    let registers = SPACES.iter().flat_map(|space| space.blocks).flat_map(|block| block.registers);
    numbers
        .chain(records)
        .chain(forms)
        .find(|heading| *heading == name)
        .or_else(|| registers.map(|register| register.name).find(|heading| same_name(heading, name)))
}

/// Whether two names differ in nothing but case and underscores.
fn same_name(one: &str, other: &str) -> bool {
    let letters = one.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase());
    letters.eq(other.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()))
}
