//! `regs`: the contract as text, manual, JSON or SystemVerilog.

use std::fmt::Write;

use clap::ValueEnum;
use cryptonic_regs::bar0::{BLOCKS, STATUS_COUNTERS_OFFSET};
use cryptonic_regs::doorbell::DOORBELLS;
use cryptonic_regs::{Block, RegisterRow, Status, export, firmware};
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::{self, Paint};
use crate::toml_reader::nearest;

/// How the contract is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Registers and status numbers, for a person
    Text,
    /// The register and descriptor manual, in Markdown
    Manual,
    /// All of it, for programs
    Json,
    /// The SystemVerilog package
    Sv,
    /// The SystemVerilog package of packet formats
    WireSv,
}

/// Prints the contract, or the part of it that `name` names.
pub(crate) fn run(name: Option<&str>, format: Format, as_json: bool) -> Result<()> {
    let format = if as_json && format == Format::Text { Format::Json } else { format };
    if let Some(name) = name {
        return match format {
            Format::Text => search(name, false),
            Format::Json => search(name, true),
            _ => Err(Error::at("NAME", "searches text and JSON only")),
        };
    }
    let mut text = String::new();
    let written = match format {
        Format::Text => list(&mut text),
        Format::Manual => export::manual(&mut text),
        Format::Json => export::json(&mut text),
        Format::Sv => export::system_verilog(&mut text),
        Format::WireSv => cryptonic_wire::constants::system_verilog(&mut text),
    };
    written.map_err(Error::input)?;
    if as_json && format != Format::Json {
        return output::print_json(&json!({ "text": text }));
    }
    output::print(&text)
}

fn spaces() -> [(&'static str, &'static [Block]); 3] {
    const DOORBELL_BLOCKS: &[Block] = &[DOORBELLS];
    [("bar0", BLOCKS), ("bar2", DOORBELL_BLOCKS), ("firmware", firmware::BLOCKS)]
}

fn registers() -> impl Iterator<Item = (&'static str, &'static Block, &'static RegisterRow)> {
    spaces().into_iter().flat_map(|(space, blocks)| {
        blocks.iter().flat_map(move |block| block.registers.iter().map(move |row| (space, block, row)))
    })
}

/// A doc comment as one line, without the brackets of its links.
fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ").replace("[`", "").replace("`]", "")
}

fn list(text: &mut String) -> std::fmt::Result {
    let paint = Paint::for_stdout();
    for (space, blocks) in spaces() {
        for block in blocks {
            let title = format!("{space} {}", block.name);
            writeln!(text, "{}  {}", paint.bold(&title), one_line(block.doc))?;
            for row in block.registers {
                register_line(text, row)?;
            }
            writeln!(text)?;
        }
    }
    writeln!(text, "{}  what became of a packet", paint.bold("status"))?;
    for status in Status::ALL {
        status_line(text, *status)?;
    }
    writeln!(text, "\nMore of one with `cryptonic regs NAME`, everything with --format manual.")
}

fn register_line(text: &mut String, row: &RegisterRow) -> std::fmt::Result {
    writeln!(
        text,
        "  {:#06x}  {:<3} {:>2}  {:<38} {}",
        row.offset,
        row.access.name(),
        row.width_bits,
        row.name,
        one_line(row.doc)
    )
}

fn status_doc(status: Status) -> String {
    let row = Status::ROW.values.iter().find(|value| value.number == status.number());
    row.map(|value| one_line(value.doc)).unwrap_or_default()
}

fn status_line(text: &mut String, status: Status) -> std::fmt::Result {
    writeln!(text, "  {:>3}  {:<24} {}", status.number(), status.name(), status_doc(status))
}

fn search(name: &str, as_json: bool) -> Result<()> {
    let wanted = name.to_ascii_lowercase();
    let number = wanted
        .strip_prefix("0x")
        .map_or_else(|| wanted.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok());
    let named = |candidate: &str| candidate.to_ascii_lowercase().contains(&wanted);
    let found: Vec<_> = registers()
        .filter(|(_, block, row)| named(row.name) || named(block.name) || number == Some(row.offset))
        .collect();
    let statuses: Vec<Status> = Status::ALL
        .iter()
        .copied()
        .filter(|status| named(status.name()) || number == Some(status.number()))
        .collect();
    if found.is_empty() && statuses.is_empty() {
        let names: Vec<&str> =
            registers().map(|(_, _, row)| row.name).chain(Status::ALL.iter().map(|s| s.name())).collect();
        let upper = name.to_ascii_uppercase();
        let near = nearest(&upper, &names).or_else(|| nearest(&wanted, &names));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        return Err(Error::at("NAME", format_args!("no register and no status is called `{name}`{hint}")));
    }
    if as_json {
        let registers: Vec<_> =
            found.iter().map(|(space, block, row)| register_json(space, block, row)).collect();
        let statuses: Vec<_> = statuses
            .iter()
            .map(|status| {
                json!({ "name": status.name(), "number": status.number(), "doc": status_doc(*status),
                        "counter_offset": STATUS_COUNTERS_OFFSET + status.number() * 8 })
            })
            .collect();
        return output::print_json(&json!({ "registers": registers, "statuses": statuses }));
    }
    let mut text = String::new();
    for (space, block, row) in &found {
        describe(&mut text, space, block, row).map_err(Error::input)?;
    }
    for status in statuses {
        status_line(&mut text, status).map_err(Error::input)?;
        let counter = STATUS_COUNTERS_OFFSET + status.number() * 8;
        let _ = writeln!(text, "       counted in bar0 at {counter:#06x}");
    }
    output::print(&text)
}

fn register_json(space: &str, block: &Block, row: &RegisterRow) -> serde_json::Value {
    let mut low = 0;
    let fields: Vec<_> = row
        .fields
        .iter()
        .map(|field| {
            let object =
                json!({ "name": field.name, "low": low, "bits": field.bits, "doc": one_line(field.doc) });
            low += u32::from(field.bits);
            object
        })
        .collect();
    json!({ "space": space, "block": block.name, "name": row.name, "offset": row.offset,
            "bits": row.width_bits, "access": row.access.name(), "doc": one_line(row.doc), "fields": fields })
}

fn describe(text: &mut String, space: &str, block: &Block, row: &RegisterRow) -> std::fmt::Result {
    let paint = Paint::for_stdout();
    writeln!(
        text,
        "{}  {space} {} at {:#06x}, {} bits, {}",
        paint.bold(row.name),
        block.name,
        row.offset,
        row.width_bits,
        row.access.name()
    )?;
    writeln!(text, "  {}", one_line(row.doc))?;
    if block.stride > 0 && matches!(block.name, "QUEUE_PAIR" | "DOORBELLS") {
        writeln!(text, "  One for each queue pair, {:#x} bytes apart.", block.stride)?;
    }
    let mut low = 0;
    for field in row.fields {
        let high = low + u32::from(field.bits) - 1;
        let bits = if high == low { format!("{low}") } else { format!("{high}:{low}") };
        let name = if field.reserved() { "reserved" } else { field.name };
        let secret = if field.secret { " (secret)" } else { "" };
        writeln!(text, "  {bits:>7}  {name:<24} {}{secret}", one_line(field.doc))?;
        low = high + 1;
    }
    writeln!(text)
}
