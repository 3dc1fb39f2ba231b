//! What the build says of missing, old and broken tools, with programs that stand in for them.

#[path = "../build/cxx.rs"]
#[allow(dead_code)]
mod cxx;
#[path = "../build/verilator.rs"]
#[allow(dead_code)]
mod verilator;

use std::ffi::OsStr;
use std::fs;

use std::path::{Path, PathBuf};
use std::process::Command;

use cxx::{Cxx, Job};
use tempfile::TempDir;
use verilator::{Missing, Verilator};

/// A folder with a program that is this shell script.
fn program(name: &str, script: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    // Written by another process: a file that a thread has open for writing goes on in what other threads start, and
    // cannot be run until those have let go of it.
    let made = Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .args([path.as_os_str(), OsStr::new(script)])
        .status();
    assert!(made.expect("there is a shell").success());
    (folder, path)
}

/// What is found where `verilator` is this script, and its runtime's folder this.
fn found(script: &str, root: Option<&Path>) -> Result<Verilator, Missing> {
    let (folder, _) = program("verilator", script);
    Verilator::find(None, Some(folder.path().into()), root.map(Into::into))
}

/// A folder with what is looked at in an installation.
fn installation() -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    fs::create_dir(root.path().join("include")).expect("a folder");
    fs::write(root.path().join("include/verilated.cpp"), "").expect("a file");
    root
}

#[test]
fn a_verilator_that_will_not_do_is_explained_with_what_to_install() {
    let root = installation();
    let folder = tempfile::tempdir().expect("a folder");
    let empty = Verilator::find(None, Some(folder.path().into()), None);
    let none = Verilator::find(None, None, None);
    let absent = Verilator::find(Some("/nowhere/verilator".into()), None, None);
    for (found, reason) in [
        (empty, "Verilator is not installed (no `verilator` in PATH)"),
        (none, "Verilator is not installed"),
        (absent, "`/nowhere/verilator --version` fails: No such file"),
        (found("echo Verilator 4.0 2018-09-16", Some(root.path())), "is too old: 5.006 or newer is needed"),
        (found("echo Verilator 5.004 2022-12-14", Some(root.path())), "is too old"),
        (found("echo sorry >&2; exit 1", Some(root.path())), "exit status: 1\nsorry"),
        (found("echo Verilator 5.006", Some(folder.path())), "is broken"),
        (found("[ $1 = --version ] && exec echo Verilator 5.006; exit 3", None), "exit status: 3"),
    ] {
        let missing = found.err().unwrap_or_else(|| panic!("found, although {reason}"));
        assert!(missing.reason.contains(reason), "{} / {reason}", missing.reason);
        assert!(missing.install.contains("apt-get install") && missing.install.contains("verilator"));
    }
}

#[test]
fn a_version_that_is_new_enough_or_unknown_is_tried() {
    let root = installation();
    for version in
        ["Verilator 5.006 2023-01-22 rev (Debian 5.006-3)", "Verilator 6.000", " rev vUNKNOWN-built2026"]
    {
        let found = found(&format!("echo '{version}'"), Some(root.path())).expect(version);
        assert_eq!(found.version, version.trim());
        assert_eq!(found.include, root.path().join("include"));
    }
}

#[test]
fn what_verilator_complains_of_is_kept() {
    let complaint = "%Error: u.sv:1:1: syntax error";
    let script =
        format!("[ $1 = --cc ] || exec echo Verilator 5.006; echo noise; echo '{complaint}' >&2; exit 1");
    let root = installation();
    let (folder, path) = program("verilator", &script);
    let verilator = Verilator::find(Some(path.into()), None, Some(root.path().into())).expect("it is found");
    let missing = verilator.generate(folder.path(), &[], "V", folder.path()).err().expect("it fails");
    assert_eq!(missing.reason, format!("Verilator fails: exit status: 1\n{complaint}\nnoise"));
    assert!(missing.install.is_empty(), "installing something does not help");
}

#[test]
fn a_compiler_that_fails_is_explained() {
    let root = installation();
    let verilator = found("echo Verilator 5.006", Some(root.path())).expect("it is found");
    let cc = |compiler: &Path| {
        let mut build = cc::Build::new();
        let (target, out) = ("x86_64-unknown-linux-gnu", root.path());
        build.target(target).host(target).opt_level(1).out_dir(out).compiler(compiler);
        build
    };
    let absent = Cxx::find(cc(Path::new("/nowhere/c++")), &verilator).err().expect("it is not there");
    assert!(absent.reason.contains("/nowhere/c++"), "{}", absent.reason);
    assert!(absent.install.contains("g++"));

    let (folder, path) = program(
        "c++",
        "[ \"$1\" = --version ] && exec echo g++ 1.0; case \"$*\" in *-c*) echo 'u.cpp:3:4: error: no' >&2;; esac; exit 1",
    );
    let cxx = Cxx::find(cc(&path), &verilator).expect("it says a version");
    let file = folder.path().join("u.cpp");
    let job = Job { files: &[file], includes: &[], defines: &[], header_before: None, optimisation: 1 };
    let missing = cxx.archive(&job, folder.path(), &folder.path().join("u.a")).expect_err("it fails");
    assert!(
        missing.reason.starts_with("the C++ compiler fails on u.cpp: exit status: 1\nu.cpp:3:4: error: no"),
        "{}",
        missing.reason
    );
    assert!(missing.install.is_empty() && !folder.path().join("u.a").exists());
}
