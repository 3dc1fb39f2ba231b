//! `regs.json`: the contract for programs.

use core::fmt::{self, Write};

use super::{ENUMERATIONS, OneLine, RECORDS, SPACES, WORD_FORMS, positions};
use crate::rows::Field;
use crate::{CONTRACT_MAJOR, CONTRACT_MINOR};

/// Writes the contract as one JSON object: `contract`, `spaces`, `records`, `word_forms`, `enumerations`.
pub fn json(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "{{\n  \"contract\": {{ \"major\": {CONTRACT_MAJOR}, \"minor\": {CONTRACT_MINOR} }},")?;
    writeln!(out, "  \"spaces\": [")?;
    list(out, SPACES, |out, space| {
        writeln!(out, "    {{ \"name\": \"{}\", \"doc\": {}, \"blocks\": [", space.name, Text(space.doc))?;
        list(out, space.blocks, |out, block| {
            writeln!(
                out,
                "      {{ \"name\": \"{}\", \"kind\": {}, \"version\": {}, \"offset\": {}, \"stride\": {}, \"doc\": {}, \"registers\": [",
                block.name,
                block.kind,
                block.version,
                block.offset,
                block.stride,
                Text(block.doc)
            )?;
            list(out, block.registers, |out, register| {
                write!(
                    out,
                    "        {{ \"name\": \"{}\", \"offset\": {}, \"bits\": {}, \"access\": \"{}\", \"doc\": {}, \"fields\": ",
                    register.name,
                    register.offset,
                    register.width_bits,
                    register.access.name(),
                    Text(register.doc)
                )?;
                fields(out, register.fields)?;
                write!(out, " }}")
            })?;
            write!(out, "      ] }}")
        })?;
        write!(out, "    ] }}")
    })?;
    writeln!(out, "  ],\n  \"records\": [")?;
    list(out, RECORDS, |out, record| {
        writeln!(
            out,
            "    {{ \"name\": \"{}\", \"bytes\": {}, \"doc\": {}, \"words\": [",
            record.name,
            record.words.len() * 8,
            Text(record.doc)
        )?;
        list(out, record.words, |out, word| {
            write!(out, "      {{ \"name\": \"{}\", \"doc\": {}, \"fields\": ", word.name, Text(word.doc))?;
            fields(out, word.fields)?;
            write!(out, " }}")
        })?;
        write!(out, "    ] }}")
    })?;
    writeln!(out, "  ],\n  \"word_forms\": [")?;
    list(out, WORD_FORMS, |out, (name, form)| {
        write!(out, "    {{ \"name\": \"{name}\", \"fields\": ")?;
        fields(out, form)?;
        write!(out, " }}")
    })?;
    writeln!(out, "  ],\n  \"enumerations\": [")?;
    list(out, ENUMERATIONS, |out, enumeration| {
        writeln!(
            out,
            "    {{ \"name\": \"{}\", \"doc\": {}, \"values\": [",
            enumeration.name,
            Text(enumeration.doc)
        )?;
        list(out, enumeration.values, |out, value| {
            write!(
                out,
                "      {{ \"name\": \"{}\", \"number\": {}, \"doc\": {} }}",
                value.name,
                value.number,
                Text(value.doc)
            )
        })?;
        write!(out, "    ] }}")
    })?;
    writeln!(out, "  ]\n}}")
}

fn list<W: Write, T>(
    out: &mut W,
    items: &[T],
    mut item: impl FnMut(&mut W, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, one) in items.iter().enumerate() {
        item(out, one)?;
        writeln!(out, "{}", if index + 1 < items.len() { "," } else { "" })?;
    }
    Ok(())
}

fn fields(out: &mut impl Write, fields: &'static [Field]) -> fmt::Result {
    write!(out, "[")?;
    for (index, (low, field)) in positions(fields).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(
            out,
            "{comma}{{ \"name\": \"{}\", \"low\": {low}, \"bits\": {}, \"secret\": {}, \"doc\": {} }}",
            field.name,
            field.bits,
            field.secret,
            Text(field.doc)
        )?;
    }
    write!(out, "]")
}

/// A doc comment as a JSON string.
struct Text(&'static str);

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escaped<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for character in text.chars() {
                    if matches!(character, '"' | '\\') {
                        self.0.write_char('\\')?;
                    }
                    self.0.write_char(character)?;
                }
                Ok(())
            }
        }
        formatter.write_char('"')?;
        write!(Escaped(formatter), "{}", OneLine(self.0))?;
        formatter.write_char('"')
    }
}
