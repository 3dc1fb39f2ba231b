//! Deliberate faults in the RTL: the rows of mutants.toml, and the copy of the RTL that has them built in.
//!
//! The copy holds every fault, each behind a number: `((mutant_pkg::selected == 3) ? (fault) : (original))`. So
//! one build serves all, and the shipped RTL has none of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::sources::Sources;

/// The package that the copy selects by. C++ writes the variable before the first evaluation.
pub const PACKAGE: &str = "mutant_pkg";

/// A row of mutants.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub unit: String,
    pub file: String,
    pub original: String,
    pub fault: String,
    pub rule: String,
}

/// Reads the rows. A row's number is its place, from 1.
pub fn parse(text: &str) -> Result<Vec<Row>, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("mutants.toml: {error}"))?;
    let mut rows = Vec::new();
    for (key, value) in &table {
        let list = value.as_array().filter(|_| key == "mutant");
        for row in list.ok_or_else(|| format!("mutants.toml: unknown key '{key}'"))? {
            rows.push(
                parse_row(row).map_err(|fault| format!("mutants.toml, row {}: {fault}", rows.len() + 1))?,
            );
        }
    }
    let mut names = BTreeSet::new();
    match rows.iter().find(|row| !names.insert(&row.name)) {
        Some(row) => Err(format!("mutants.toml: two rows have the name '{}'", row.name)),
        None => Ok(rows),
    }
}

fn parse_row(row: &toml::Value) -> Result<Row, String> {
    const KEYS: [&str; 6] = ["name", "unit", "file", "original", "fault", "rule"];
    let row = row.as_table().ok_or("not a table")?;
    if let Some(unknown) = row.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key '{unknown}'"));
    }
    let text = |key: &str| match row.get(key).and_then(toml::Value::as_str) {
        Some(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => Err(format!("'{key}' must be text")),
    };
    let row = Row {
        name: text("name")?,
        unit: text("unit")?,
        file: text("file")?,
        original: text("original")?,
        fault: text("fault")?,
        rule: text("rule")?,
    };
    if row.original == row.fault {
        return Err(format!("'{}' changes nothing", row.name));
    }
    Ok(row)
}

/// The sources with every row of `unit` built in, and the package.
pub fn apply(sources: &Sources, rows: &[Row], unit: &str) -> Result<Sources, String> {
    let mut mutated = sources.clone();
    let package =
        format!("package {PACKAGE};\n  logic [31:0] selected /*verilator public_flat_rw*/;\nendpackage\n");
    mutated.insert(PACKAGE.to_owned(), package);
    let files: BTreeSet<&str> =
        rows.iter().filter(|row| row.unit == unit).map(|row| row.file.as_str()).collect();
    for file in files {
        let stem = file.strip_suffix(".sv").unwrap_or(file);
        let text = sources.get(stem).ok_or_else(|| format!("mutants.toml: there is no file '{file}'"))?;
        let of_file = rows.iter().enumerate().filter(|(_, row)| row.unit == unit && row.file == file);
        mutated.insert(stem.to_owned(), apply_to(text, of_file)?);
    }
    Ok(mutated)
}

/// The text with these rows built in. Rows with the same original share its place; others may not overlap.
fn apply_to<'a>(text: &str, rows: impl Iterator<Item = (usize, &'a Row)>) -> Result<String, String> {
    let mut places: Vec<(usize, &str, String)> = Vec::new();
    for (index, row) in rows {
        let start = place(text, row)?;
        let number = index + 1;
        match places.iter_mut().find(|(other, original, _)| *other == start && *original == row.original) {
            Some((_, _, choice)) => choose(choice, number, &row.fault),
            None => {
                let mut choice = format!("({})", row.original);
                choose(&mut choice, number, &row.fault);
                places.push((start, &row.original, choice));
            }
        }
    }
    places.sort_by_key(|(start, _, _)| *start);
    let mut result = String::new();
    let mut position = 0;
    for (start, original, choice) in places {
        let between = text
            .get(position..start)
            .ok_or_else(|| format!("mutants.toml: '{original}' overlaps with the original of another row"))?;
        result.push_str(between);
        result.push_str(&choice);
        position = start + original.len();
    }
    result.push_str(&text[position..]);
    Ok(result)
}

fn choose(choice: &mut String, number: usize, fault: &str) {
    *choice = format!("(({PACKAGE}::selected == 32'd{number}) ? ({fault}) : {choice})");
}

/// Where the row's original stands, which must be in one place only.
pub fn place(text: &str, row: &Row) -> Result<usize, String> {
    let mut places = text.match_indices(&row.original).map(|(start, _)| start);
    match (places.next(), places.count()) {
        (Some(start), 0) => Ok(start),
        (None, _) => Err(format!("mutants.toml, '{}': '{}' is not in {}", row.name, row.original, row.file)),
        (Some(_), more) => Err(format!(
            "mutants.toml, '{}': '{}' is {} times in {}, and must be there once",
            row.name,
            row.original,
            more + 1,
            row.file
        )),
    }
}

/// The rows as a Rust table.
pub fn rust_table(rows: &[Row]) -> String {
    let mut table = String::from("&[\n");
    for (index, Row { name, unit, file, original, fault, rule }) in rows.iter().enumerate() {
        let number = index + 1;
        let _ = writeln!(
            table,
            "Mutant {{ number: {number}, name: {name:?}, unit: {unit:?}, file: {file:?}, \
             original: {original:?}, fault: {fault:?}, rule: {rule:?} }},"
        );
    }
    table.push(']');
    table
}
