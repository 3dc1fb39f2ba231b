//! Verilator's lint is clean for every unit, with the waivers of rtl/lint.vlt.

#[path = "../build/sources.rs"]
mod sources;

mod common;

use std::path::Path;
use std::process::Command;

use cryptonic_rtl_bench::units::UNITS;

#[test]
fn every_unit_is_clean() {
    let verilator = std::env::var("VERILATOR").unwrap_or_else(|_| "verilator".to_owned());
    if !Command::new(&verilator).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return common::skip("Verilator is not installed; apt-get install --no-remove verilator");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rtl = sources::read(&root.join("rtl")).expect("the RTL is read");
    for unit in UNITS {
        let mut command = Command::new(&verilator);
        command.current_dir(root).args(["--lint-only", "-Wall", "--assert", "--top-module", unit.module]);
        command.args(unit.parameters.iter().map(|(name, value)| format!("-G{name}={value}")));
        // `disable iff` of an assertion reads the reset, which is no register sampling it.
        command.args(["-Wno-SYNCASYNCNET", "rtl/lint.vlt"]);
        command.args(sources::needed(&rtl, unit.module).iter().map(|name| format!("rtl/{name}.sv")));
        let output = command.output().expect("Verilator runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.is_empty(), "{}:\n{text}", unit.name);
    }
}
