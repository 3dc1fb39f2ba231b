//! Builds the RTL for simulation: Verilator makes C++ of it, the compiler that the cc crate finds makes archives.
//!
//! ```text
//! rtl/*.sv ──▶ fast:    -O3, no assertions, no waveforms        ┐
//!          └─▶ inspect: assertions, waveforms, mutants built in ┴─▶ archives in TARGET/verilated, by content
//! ```
//!
//! Without the feature `test-units` only the units of the command line are built, so that a first run does not wait for the
//! others.
//!
//! Where Verilator is missing or fails, everything else still builds: `cfg(rtl)` is not set, and the reason is kept
//! for `availability()`. `CRYPTONIC_REQUIRE_RTL=1`, or `rtl` or `all` in `CRYPTONIC_REQUIRE`, makes it an error.
//! `VERILATOR` and `CXX` name other programs; `CRYPTONIC_RTL_NATIVE=1` compiles for this machine's processor.

#[path = "build/cache.rs"]
mod cache;
#[path = "build/cxx.rs"]
mod cxx;
#[path = "build/glue.rs"]
mod glue;
#[path = "build/mutants.rs"]
mod mutants;
#[path = "build/sources.rs"]
mod sources;
#[path = "src/units.rs"]
#[allow(dead_code)]
mod units;
#[path = "build/verilator.rs"]
mod verilator;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use cache::Cache;
use cxx::{Cxx, Job, in_parallel};
use mutants::Row;
use sources::Sources;
use units::{Build, COMMAND_LINE_UNITS, UNITS, Unit};
use verilator::{Missing, Verilator};

/// Everything that decides how an archive is made, so that a change to it makes new ones.
const BUILD_CODE: &[&str] = &[
    include_str!("build.rs"),
    include_str!("build/cache.rs"),
    include_str!("build/cxx.rs"),
    include_str!("build/glue.rs"),
    include_str!("build/mutants.rs"),
    include_str!("build/sources.rs"),
    include_str!("build/verilator.rs"),
    SHIM_UNIT,
    SHIM_RUNTIME_HEADER,
    SHIM_PRINT,
    SHIM_RUNTIME,
];
const SHIM_UNIT: &str = include_str!("shim/unit.h");
const SHIM_RUNTIME_HEADER: &str = include_str!("shim/runtime.h");
const SHIM_PRINT: &str = include_str!("shim/print.h");
const SHIM_RUNTIME: &str = include_str!("shim/runtime.cpp");

impl Build {
    fn name(self) -> &'static str {
        match self {
            Build::Fast => "fast",
            Build::Inspect => "inspect",
        }
    }

    fn verilator_arguments(self) -> &'static [&'static str] {
        match self {
            Build::Fast => &["--no-assert", "--x-assign", "fast", "--x-initial", "fast"],
            Build::Inspect => &["--assert", "--trace", "--x-assign", "unique", "--x-initial", "unique"],
        }
    }

    /// Of the C++ compiler: one is run for hours, the other compiled more often than run.
    fn optimisation(self) -> u32 {
        match self {
            Build::Fast => 3,
            Build::Inspect => 1,
        }
    }
}

/// For both builds. Warnings are the lint's business, and other versions of Verilator have other ones.
const VERILATOR_ARGUMENTS: &[&str] = &["-O3", "--no-timing", "--timescale", "1ns/1ps", "-Wno-fatal"];

impl From<io::Error> for Missing {
    fn from(error: io::Error) -> Self {
        Missing::failed(format!("the cache of built RTL cannot be written: {error}"))
    }
}

fn main() {
    println!("cargo::rustc-check-cfg=cfg(rtl)");
    for path in ["build.rs", "build", "shim", "rtl", "mutants.toml", "src/units.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for variable in ["VERILATOR", "VERILATOR_ROOT", "CXX", "CXXFLAGS", "CRYPTONIC_RTL_NATIVE"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    let text = fs::read_to_string(root.join("mutants.toml")).expect("mutants.toml is in the package");
    let rows = mutants::parse(&text).unwrap_or_else(|fault| fail(&fault));
    fs::write(out.join("mutants.rs"), mutants::rust_table(&rows)).expect("OUT_DIR can be written");

    let built = build(&root, &out, &rows);
    match &built {
        Ok(_) => println!("cargo::rustc-cfg=rtl"),
        Err(missing) => without_rtl(missing),
    }
    let built = match built {
        Ok(verilator) => format!("Ok({verilator:?})"),
        Err(Missing { reason, install }) => {
            format!("Err(Unavailable {{ reason: {reason:?}, install: {install:?} }})")
        }
    };
    fs::write(out.join("availability.rs"), built).expect("OUT_DIR can be written");
}

/// The build goes on without RTL, if nothing forbids that, and looks again when it may have come.
fn without_rtl(missing: &Missing) {
    for variable in ["PATH", "CRYPTONIC_REQUIRE", "CRYPTONIC_REQUIRE_RTL"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    // Debian's list of installed packages. A program that is not there cannot be watched itself: Cargo would build
    // this package anew each time.
    let packages = "/var/lib/dpkg/status";
    if Path::new(packages).exists() {
        println!("cargo::rerun-if-changed={packages}");
    }
    let list = env::var("CRYPTONIC_REQUIRE").unwrap_or_default();
    let required = env::var("CRYPTONIC_REQUIRE_RTL").is_ok_and(|value| value == "1")
        || list.split(',').any(|name| name == "all" || name == "rtl");
    if required {
        fail(&format!("the RTL is required and cannot be built: {}\n{}", missing.reason, missing.install));
    }
    // Not installed is a choice; installed and failing is news.
    if missing.install.is_empty() {
        for line in missing.reason.lines() {
            println!("cargo::warning={line}");
        }
    }
}

fn fail(reason: &str) -> ! {
    eprintln!("error: {reason}");
    for line in reason.lines() {
        println!("cargo::error={line}");
    }
    std::process::exit(1)
}

/// Builds the units that are asked for and tells Cargo to link them. Gives Verilator's version.
fn build(root: &Path, out: &Path, rows: &[Row]) -> Result<String, Missing> {
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty());
    let verilator = Verilator::find(named("VERILATOR"), named("PATH"), named("VERILATOR_ROOT"))?;
    println!("cargo::rerun-if-changed={}", verilator.program.display());
    let mut compiler = cc::Build::new();
    if env::var("CRYPTONIC_RTL_NATIVE").is_ok_and(|value| value == "1") {
        compiler.flag("-march=native");
    }
    let cxx = Cxx::find(compiler, &verilator)?;
    let sources = sources::read(&root.join("rtl")).map_err(Missing::failed)?;
    let cache = Cache::open(out)?;
    let builder = Builder { verilator: &verilator, cxx: &cxx, cache: &cache, shim: root.join("shim") };

    let units = if cfg!(feature = "test-units") { UNITS } else { COMMAND_LINE_UNITS };
    let mut jobs = Vec::new();
    for unit in units {
        let mutated = mutants::apply(&sources, rows, unit.module).unwrap_or_else(|fault| fail(&fault));
        jobs.extend(unit.builds.iter().map(|build| match build {
            Build::Fast => (*unit, *build, sources.clone()),
            Build::Inspect => (*unit, *build, mutated.clone()),
        }));
    }
    let entries = in_parallel(&jobs, |(unit, build, sources)| builder.unit(unit, *build, sources));
    let mut archives = Vec::new();
    let mut runtime = BTreeSet::new();
    for ((unit, build, _), entry) in jobs.iter().zip(entries) {
        let entry = entry?;
        runtime.extend(fs::read_to_string(entry.join("runtime"))?.lines().map(str::to_owned));
        archives.push((format!("{}_{}", unit.name, build.name()), entry));
    }
    archives.push(("runtime".to_owned(), builder.runtime(&runtime)?));

    println!("cargo::rustc-link-search=native={}", out.display());
    for (name, entry) in archives {
        let library = format!("cryptonic_rtl_{name}");
        fs::copy(entry.join("archive.a"), out.join(format!("lib{library}.a")))?;
        println!("cargo::rustc-link-lib=static={library}");
    }
    let standard_library = if cfg!(target_os = "macos") { "c++" } else { "stdc++" };
    println!("cargo::rustc-link-lib={standard_library}");
    Ok(if verilator.version.is_empty() { "unknown".to_owned() } else { verilator.version })
}

struct Builder<'a> {
    verilator: &'a Verilator,
    cxx: &'a Cxx,
    cache: &'a Cache,
    shim: PathBuf,
}

impl Builder<'_> {
    /// The cache entry of one build of a unit: its archive, and the runtime files that it needs.
    fn unit(&self, unit: &Unit, build: Build, sources: &Sources) -> Result<PathBuf, Missing> {
        let files = sources::needed(sources, unit.module);
        if files.is_empty() {
            return Err(Missing::failed(format!("rtl/{}.sv is missing", unit.module)));
        }
        let traced = build == Build::Inspect;
        let mutated = files.iter().any(|file| file == mutants::PACKAGE);
        let name = format!("{}_{}", unit.name, build.name());
        let class = format!("V{name}");
        let glue = glue::text(unit, &class, &format!("cryptonic_{name}"), traced, mutated);
        let mut parts = vec![name.as_str(), unit.module, &glue];
        parts.extend(files.iter().flat_map(|file| [file.as_str(), sources[file].as_str()]));
        let parameters = format!("{:?}", unit.parameters);
        parts.push(&parameters);
        self.cache.entry(&name, &self.key(&parts)?, |folder| {
            for file in &files {
                fs::write(folder.join(format!("{file}.sv")), &sources[file])?;
            }
            let mut arguments: Vec<String> = VERILATOR_ARGUMENTS
                .iter()
                .chain(build.verilator_arguments())
                .map(|argument| (*argument).to_owned())
                .collect();
            arguments.extend(["--top-module".to_owned(), unit.module.to_owned()]);
            arguments.extend(unit.parameters.iter().map(|(name, value)| format!("-G{name}={value}")));
            arguments.extend(files.iter().map(|file| format!("{file}.sv")));
            let generated = folder.join("generated");
            let generate = || self.verilator.generate(folder, &arguments, &class, &generated);
            let made = self.cxx.slots.run(generate)?;
            glue::check_ports(unit, &generated.join(format!("{class}.h"))).map_err(Missing::failed)?;

            let glue_file = generated.join("glue.cpp");
            fs::write(&glue_file, &glue)?;
            let mut cpp_files = made.files;
            cpp_files.push(glue_file);
            let job = Job {
                files: &cpp_files,
                includes: &[&generated, &self.shim],
                defines: if traced { TRACED } else { UNTRACED },
                header_before: None,
                optimisation: build.optimisation(),
            };
            self.cxx.archive(&job, &generated, &folder.join("archive.a"))?;
            let runtime: Vec<String> = made.runtime.into_iter().collect();
            fs::write(folder.join("runtime"), runtime.join("\n"))?;
            Ok(fs::remove_dir_all(generated)?)
        })
    }

    /// The cache entry of Verilator's runtime with what replaces parts of it. Shared by all units.
    fn runtime(&self, names: &BTreeSet<String>) -> Result<PathBuf, Missing> {
        let include = &self.verilator.include;
        let mut files: Vec<PathBuf> = names.iter().map(|name| include.join(format!("{name}.cpp"))).collect();
        files.push(self.shim.join("runtime.cpp"));
        let parts: Vec<&str> = names.iter().map(String::as_str).collect();
        self.cache.entry("runtime", &self.key(&parts)?, |folder| {
            let mut defines = TRACED.to_vec();
            defines.extend([
                "VL_USER_STOP",
                "VL_USER_FATAL",
                "VL_USER_FINISH",
                "VL_PRINTF=cryptonic_rtl_print",
            ]);
            let job = Job {
                files: &files,
                includes: &[&self.shim],
                defines: &defines,
                header_before: Some(&self.shim.join("print.h")),
                optimisation: 1,
            };
            self.cxx.archive(&job, folder, &folder.join("archive.a"))
        })
    }

    fn key(&self, parts: &[&str]) -> Result<String, Missing> {
        let include = self.verilator.include.display().to_string();
        let header = fs::read(self.verilator.include.join("verilated.h"))?;
        let runtime = fs::read(self.verilator.include.join("verilated.cpp"))?;
        let program = self.verilator.program.display().to_string();
        let version = [&program, &self.verilator.version, &include, &self.cxx.identity];
        let all = BUILD_CODE.iter().chain(parts).map(|part| part.as_bytes());
        Ok(cache::key(all.chain(version.map(|part| part.as_bytes())).chain([&header[..], &runtime[..]])))
    }
}

/// Macros that Verilator's makefiles would set. `VL_TIME_CONTEXT`: time is the context's.
const TRACED: &[&str] = &[
    "VL_TIME_CONTEXT",
    "VM_COVERAGE=0",
    "VM_SC=0",
    "VM_TIMING=0",
    "VM_TRACE=1",
    "VM_TRACE_FST=0",
    "VM_TRACE_VCD=1",
];
const UNTRACED: &[&str] = &[
    "VL_TIME_CONTEXT",
    "VM_COVERAGE=0",
    "VM_SC=0",
    "VM_TIMING=0",
    "VM_TRACE=0",
    "VM_TRACE_FST=0",
    "VM_TRACE_VCD=0",
];
