//! The SystemVerilog package: offsets, field positions and numbers as parameters, in the subset that
//! Verilator and yosys both read.

use core::fmt::{self, Write};

use super::{ENUMERATIONS, SPACES, positions};

/// Writes the package `cryptonic_regs_pkg`.
pub fn system_verilog(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "// Made from regs/ by `cargo run -- regs --format sv`.")?;
    writeln!(out, "package cryptonic_regs_pkg;")?;
    for space in SPACES {
        writeln!(out, "\n  // {}", space.doc)?;
        for register in space.blocks.iter().flat_map(|block| block.registers) {
            let space_name = Upper(space.name);
            writeln!(
                out,
                "  localparam logic [31:0] {space_name}_{}_OFFSET = 32'h{:08x};",
                register.name, register.offset
            )?;
            for (low, field) in positions(register.fields) {
                if field.reserved() || register.fields.len() == 1 {
                    continue;
                }
                let name = Upper(field.name);
                writeln!(out, "  localparam int {space_name}_{}_{name}_LOW = {low};", register.name)?;
                writeln!(
                    out,
                    "  localparam int {space_name}_{}_{name}_BITS = {};",
                    register.name, field.bits
                )?;
            }
        }
    }
    for enumeration in ENUMERATIONS {
        writeln!(out, "\n  // {}", enumeration.name)?;
        for value in enumeration.values {
            writeln!(
                out,
                "  localparam logic [15:0] {}_{} = 16'd{};",
                Upper(enumeration.name),
                Upper(value.name),
                value.number
            )?;
        }
    }
    writeln!(out, "endpackage")
}

/// SCREAMING_SNAKE_CASE of snake_case or CamelCase.
struct Upper(&'static str);

impl fmt::Display for Upper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lower_before = false;
        for character in self.0.chars() {
            if character.is_ascii_uppercase() && lower_before {
                formatter.write_char('_')?;
            }
            lower_before = character.is_ascii_lowercase() || character.is_ascii_digit();
            formatter.write_char(character.to_ascii_uppercase())?;
        }
        Ok(())
    }
}
