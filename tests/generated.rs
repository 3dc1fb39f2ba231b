//! What is made from rows of data is checked in; it must not be older than they are.

use std::fmt;
use std::path::Path;

use cryptonic_regs::export;

struct Generated {
    path: &'static str,
    format: &'static str,
    write: fn(&mut String) -> fmt::Result,
}

const GENERATED: [Generated; 4] = [
    Generated { path: "docs/registers.md", format: "manual", write: export::manual },
    Generated { path: "regs/regs.json", format: "json", write: export::json },
    Generated { path: "rtl-bench/rtl/cryptonic_regs_pkg.sv", format: "sv", write: export::system_verilog },
    Generated {
        path: "rtl-bench/rtl/cryptonic_wire_pkg.sv",
        format: "wire-sv",
        write: cryptonic_wire::constants::system_verilog,
    },
];

#[test]
fn generated_files_are_those_of_the_rows() {
    let mut stale = Vec::new();
    for Generated { path, format, write } in GENERATED {
        let mut wanted = String::new();
        write(&mut wanted).expect("a string takes everything");
        let found = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        if found.as_deref().unwrap_or_default() != wanted {
            stale.push(format!("  cargo run -q -- regs --format {format} > {path}"));
        }
    }
    assert!(stale.is_empty(), "stale; renew them with\n{}", stale.join("\n"));
}

#[test]
fn the_json_is_json() {
    let mut text = String::new();
    export::json(&mut text).expect("a string takes everything");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for key in ["contract", "spaces", "records", "word_forms", "enumerations"] {
        assert!(value.get(key).is_some(), "{key}");
    }
}
