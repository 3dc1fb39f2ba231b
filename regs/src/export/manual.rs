//! The register and descriptor manual, in Markdown.

use core::fmt::{self, Write};

use super::{ENUMERATIONS, OneLine, RECORDS, SPACES, WORD_FORMS, positions};
use crate::rows::Field;
use crate::{CONTRACT_MAJOR, CONTRACT_MINOR};

/// Writes the manual.
pub fn manual(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "# Register and descriptor manual, contract {CONTRACT_MAJOR}.{CONTRACT_MINOR}\n")?;
    writeln!(
        out,
        "Made from `regs/` by `cargo run -- regs --format manual`. Little-endian; bit 0 is the least"
    )?;
    writeln!(
        out,
        "significant. Reserved bits are written as 0 and ignored on read. Secret fields are redacted in"
    )?;
    writeln!(out, "traces.\n")?;
    for space in SPACES {
        writeln!(out, "## {}\n\n{}\n", space.name, space.doc)?;
        for block in space.blocks {
            writeln!(out, "### {}\n\n{}\n", block.name, OneLine(block.doc))?;
            writeln!(
                out,
                "Kind {}, version {}, offset {:#x}, {:#x} bytes an instance.\n",
                block.kind, block.version, block.offset, block.stride
            )?;
            for register in block.registers {
                writeln!(
                    out,
                    "#### {} · {:#06x} · {} bits · {}\n\n{}\n",
                    register.name,
                    register.offset,
                    register.width_bits,
                    register.access.name(),
                    OneLine(register.doc)
                )?;
                fields(out, register.fields)?;
            }
        }
    }
    writeln!(out, "## Records in host memory\n")?;
    for record in RECORDS {
        writeln!(out, "### {} · {} bytes\n\n{}\n", record.name, record.words.len() * 8, OneLine(record.doc))?;
        for (index, word) in record.words.iter().enumerate() {
            writeln!(
                out,
                "Bytes {} to {}, `{}`: {}\n",
                index * 8,
                index * 8 + 7,
                word.name,
                OneLine(word.doc)
            )?;
            fields(out, word.fields)?;
        }
    }
    for (name, form) in WORD_FORMS {
        writeln!(out, "### {name} · a form of one word\n")?;
        fields(out, form)?;
    }
    writeln!(out, "## Numbers\n")?;
    for enumeration in ENUMERATIONS {
        writeln!(out, "### {}\n\n{}\n", enumeration.name, OneLine(enumeration.doc))?;
        writeln!(out, "| number | name | meaning |\n|---|---|---|")?;
        for value in enumeration.values {
            writeln!(out, "| {} | `{}` | {} |", value.number, value.name, OneLine(value.doc))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A table of fields, unless the value has no inner structure.
fn fields(out: &mut impl Write, fields: &'static [Field]) -> fmt::Result {
    if fields.len() == 1 && fields[0].name == "value" {
        return Ok(());
    }
    writeln!(out, "| bits | field | meaning |\n|---|---|---|")?;
    for (low, field) in positions(fields) {
        let high = low + u32::from(field.bits) - 1;
        let name = if field.reserved() { "reserved" } else { field.name };
        let secret = if field.secret { " (secret)" } else { "" };
        if high == low {
            write!(out, "| {low} ")?;
        } else {
            write!(out, "| {high}:{low} ")?;
        }
        writeln!(out, "| `{name}`{secret} | {} |", OneLine(field.doc))?;
    }
    writeln!(out)
}
