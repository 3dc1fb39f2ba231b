//! The rows of mutants.toml fit the RTL, and what they do to it. Needs no Verilator.

#[path = "../build/mutants.rs"]
#[allow(dead_code)]
mod mutants;
#[path = "../build/sources.rs"]
#[allow(dead_code)]
mod sources;

use std::collections::BTreeMap;
use std::path::Path;

use cryptonic_rtl_bench::MUTANTS;
use cryptonic_rtl_bench::units::UNITS;

fn sources_of(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn row(original: &str, fault: &str) -> String {
    format!(
        "[[mutant]]\nname = \"{fault} for {original}\"\nunit = \"u\"\nfile = \"u.sv\"\n\
         original = \"{original}\"\nfault = \"{fault}\"\nrule = \"r\"\n"
    )
}

#[test]
fn every_row_fits_the_rtl() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("mutants.toml")).expect("mutants.toml is read");
    let rows = mutants::parse(&text).expect("mutants.toml is right");
    let rtl = sources::read(&root.join("rtl")).expect("the RTL is read");
    for row in &rows {
        assert!(UNITS.iter().any(|unit| unit.module == row.unit), "'{}': no unit {}", row.name, row.unit);
        let stem = row.file.strip_suffix(".sv").expect("a file has its ending").to_owned();
        assert!(sources::needed(&rtl, &row.unit).contains(&stem), "'{}': not a file of the unit", row.name);
        mutants::place(&rtl[&stem], row).unwrap_or_else(|fault| panic!("{fault}"));
    }
    for unit in UNITS {
        mutants::apply(&rtl, &rows, unit.module).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

#[test]
fn the_table_in_rust_is_that_of_the_file() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants.toml"))
        .expect("mutants.toml is read");
    let rows = mutants::parse(&text).expect("mutants.toml is right");
    assert_eq!(rows.len(), MUTANTS.len());
    for (index, (row, mutant)) in rows.iter().zip(MUTANTS).enumerate() {
        assert_eq!(mutant.number as usize, index + 1);
        assert_eq!((mutant.name, mutant.unit, mutant.file), (&*row.name, &*row.unit, &*row.file));
        assert_eq!((mutant.original, mutant.fault, mutant.rule), (&*row.original, &*row.fault, &*row.rule));
    }
}

#[test]
fn a_fault_stands_behind_its_number() {
    let rtl = sources_of(&[("u", "assign x = a + b;\nassign y = c;\n"), ("v", "a + b")]);
    let rows = mutants::parse(&[row("a + b", "a"), row("c", "1'b0"), row("a + b", "b")].concat());
    let mutated = mutants::apply(&rtl, &rows.expect("the rows are right"), "u").expect("they fit");
    assert_eq!(
        mutated["u"],
        "assign x = ((mutant_pkg::selected == 32'd3) ? (b) : \
         ((mutant_pkg::selected == 32'd1) ? (a) : (a + b)));\n\
         assign y = ((mutant_pkg::selected == 32'd2) ? (1'b0) : (c));\n"
    );
    assert_eq!(mutated["v"], rtl["v"], "other files stay as they are");
    assert_eq!(sources::needed(&mutated, "u"), ["mutant_pkg", "u"]);
}

#[test]
fn a_row_of_another_unit_changes_nothing() {
    let rtl = sources_of(&[("u", "assign x = a;")]);
    let rows = mutants::parse(&row("a", "b")).expect("the row is right");
    let mutated = mutants::apply(&rtl, &rows, "w").expect("nothing to do");
    assert_eq!(mutated["u"], rtl["u"]);
}

#[test]
fn a_row_that_does_not_fit_is_named() {
    let rtl = sources_of(&[("u", "assign x = a + b; assign y = b;")]);
    for (rows, complaint) in [
        (row("c", "d"), "'d for c': 'c' is not in u.sv"),
        (row("b", "d"), "'d for b': 'b' is 2 times in u.sv, and must be there once"),
        (row("a + b", "d") + &row("x = a", "e"), "overlaps with the original of another row"),
        (row("a", "d").replace("u.sv", "w.sv"), "there is no file 'w.sv'"),
    ] {
        let rows = mutants::parse(&rows).expect("the rows can be read");
        let fault = mutants::apply(&rtl, &rows, "u").expect_err("it does not fit");
        assert!(fault.contains(complaint), "{fault}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_explained() {
    for (text, complaint) in [
        ("[[mutant]", "mutants.toml: TOML parse error"),
        ("[[mutants]]\nname = \"x\"", "unknown key 'mutants'"),
        ("mutant = 1", "unknown key 'mutant'"),
        ("[[mutant]]\nname = \"x\"", "row 1: 'unit' must be text"),
        (&row("a", "b").replace("rule", "rules"), "row 1: unknown key 'rules'"),
        (&row("a", "b").replace("\"r\"", "\" \""), "row 1: 'rule' must be text"),
        (&row("a", "a"), "'a for a' changes nothing"),
        (&row("a", "b").repeat(2), "two rows have the name 'b for a'"),
    ] {
        let fault = mutants::parse(text).expect_err(text);
        assert!(fault.contains(complaint), "{fault}");
    }
}

#[test]
fn files_come_behind_those_they_name() {
    let rtl = sources_of(&[
        ("top", "b u_b (); // not c\n/* nor\nc */ x_pkg::y"),
        ("b", "b2 u_b2 (); x_pkg::z"),
        ("b2", "logic c_i;"),
        ("c", ""),
        ("x_pkg", "package x_pkg; // for top\nendpackage"),
    ]);
    assert_eq!(sources::needed(&rtl, "top"), ["b2", "x_pkg", "b", "top"]);
    assert_eq!(sources::needed(&rtl, "absent"), [""; 0]);
}
