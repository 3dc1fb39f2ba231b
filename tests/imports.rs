//! Who may import whom, and under which licences: the workspace as `cargo metadata` sees it.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};

/// What each package may import of the workspace, development and build dependencies included.
/// The root package joins all. Driver and model never see each other: they meet in the contract alone.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("cryptonic-regs", &[]),
    ("cryptonic-wire", &[]),
    ("cryptonic-pci", &[]),
    ("cryptonic-crypto", &["cryptonic-wire"]),
    ("cryptonic-fw", &["cryptonic-regs"]),
    ("cryptonic-driver", &["cryptonic-regs", "cryptonic-wire", "cryptonic-crypto", "cryptonic-pci"]),
    (
        "cryptonic-hwmodel",
        &["cryptonic-regs", "cryptonic-wire", "cryptonic-crypto", "cryptonic-pci", "cryptonic-fw"],
    ),
    ("cryptonic-rtl-bench", &["cryptonic-regs", "cryptonic-wire", "cryptonic-hwmodel"]),
    (
        "cryptonic",
        &[
            "cryptonic-regs",
            "cryptonic-wire",
            "cryptonic-crypto",
            "cryptonic-pci",
            "cryptonic-driver",
            "cryptonic-hwmodel",
            "cryptonic-fw",
            "cryptonic-rtl-bench",
        ],
    ),
];

/// Licences, by SPDX name, that a dependency may have.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

fn offline() -> MetadataCommand {
    let mut command = MetadataCommand::new();
    command.manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    command.other_options(["--offline".to_owned(), "--locked".to_owned()]);
    command
}

fn workspace() -> Metadata {
    offline().no_deps().exec().expect("cargo metadata reads the workspace")
}

#[test]
fn every_import_is_allowed() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let metadata = workspace();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(
        ours,
        allowed.keys().copied().collect(),
        "the table names exactly the packages of the workspace"
    );

    let mut wrong = Vec::new();
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            let (from, to) = (package.name.as_str(), dependency.name.as_str());
            // A package's tests may ask for a feature of its own.
            if ours.contains(to) && from != to && !allowed[from].contains(&to) {
                wrong.push(format!("{from} imports {to} ({} dependency)", dependency.kind));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that the table does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_keeps_driver_and_model_apart() {
    for (from, to) in [("cryptonic-driver", "cryptonic-hwmodel"), ("cryptonic-hwmodel", "cryptonic-driver")] {
        let (_, imports) = MAY_IMPORT.iter().find(|(name, _)| *name == from).expect("a row for each package");
        assert!(!imports.contains(&to), "{from} must never import {to}");
    }
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let metadata = offline().features(CargoOpt::AllFeatures).exec().unwrap_or_else(|error| {
        // Packages that only other platforms need are fetched by `cargo fetch`, not by a build.
        println!("only the packages of this platform are looked at: {error}");
        offline()
            .features(CargoOpt::AllFeatures)
            .other_options(["--offline", "--locked", "--filter-platform", &host()].map(str::to_owned))
            .exec()
            .expect("cargo metadata reads the packages that this test was built from")
    });
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let licence = package.license.as_deref().unwrap_or("none named");
        if !allows(licence) {
            wrong.push(format!("{} {}: {licence}", package.name, package.version));
        }
    }
    println!("{} packages looked at", metadata.packages.len());
    assert!(wrong.is_empty(), "licences that are not on the list:\n{}", wrong.join("\n"));
}

fn host() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = std::process::Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("rustc prints text");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

/// Whether an SPDX expression can be met with allowed licences alone. `MIT/Apache-2.0` is the old way to write OR.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any_of(&mut rest);
    met && rest.is_empty()
}

fn any_of(words: &mut &[&str]) -> bool {
    let mut met = all_of(words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= all_of(words);
    }
    met
}

fn all_of(words: &mut &[&str]) -> bool {
    let mut met = one(words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= one(words);
    }
    met
}

fn one(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any_of(words);
            match *words {
                [")", rest @ ..] => {
                    *words = rest;
                    met
                }
                _ => false,
            }
        }
        // An exception only ever adds a permission.
        [name, "WITH", _, rest @ ..] | [name, rest @ ..] => {
            *words = rest;
            LICENCES.contains(name)
        }
        [] => false,
    }
}

#[test]
fn licence_expressions_are_read_as_written() {
    for met in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "ISC AND (Apache-2.0 OR OpenSSL)",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
    ] {
        assert!(allows(met), "{met}");
    }
    for unmet in
        ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND AGPL-3.0", "none named", "", "(MIT", "MIT)"]
    {
        assert!(!allows(unmet), "{unmet}");
    }
}
