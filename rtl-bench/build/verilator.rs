//! Verilator: finding it, and turning RTL into C++.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest version this is known to work with (Debian 12).
const OLDEST: (u32, u32) = (5, 6);

const INSTALL: &str =
    "apt-get install -y --no-remove --no-install-recommends verilator g++ (Debian 12 or newer)";

/// Why there is no RTL in this build.
#[derive(Clone, Debug)]
pub struct Missing {
    pub reason: String,
    /// What helps, or nothing where installing does not.
    pub install: String,
}

impl Missing {
    /// Something is not installed, or not as it should be.
    pub fn tool(reason: String) -> Self {
        Self { reason, install: INSTALL.to_owned() }
    }

    /// The tools are there, and do not take what they are given.
    pub fn failed(reason: String) -> Self {
        Self { reason, install: String::new() }
    }
}

/// An installed Verilator.
pub struct Verilator {
    pub program: PathBuf,
    /// Its first line about itself.
    pub version: String,
    /// The folder of its C++ runtime.
    pub include: PathBuf,
}

/// What Verilator made.
pub struct Generated {
    /// C++ files of the unit.
    pub files: Vec<PathBuf>,
    /// Names of the runtime's files that the unit needs.
    pub runtime: BTreeSet<String>,
}

impl Verilator {
    /// The one that `named` names (a path, or a program to look for), or `verilator` in the folders of `path`.
    /// `root` is where it is installed, if it does not itself know.
    pub fn find(
        named: Option<OsString>,
        path: Option<OsString>,
        root: Option<OsString>,
    ) -> Result<Self, Missing> {
        let name = PathBuf::from(named.as_deref().unwrap_or(OsStr::new("verilator")));
        let program = if name.components().count() > 1 { Some(name.clone()) } else { in_path(path, &name) };
        let program = program.ok_or_else(|| {
            Missing::tool(format!("Verilator is not installed (no `{}` in PATH)", name.display()))
        })?;
        let version = output(Command::new(&program).arg("--version"))
            .map_err(|error| Missing::tool(format!("`{} --version` fails: {error}", program.display())))?;
        let version = version.lines().next().unwrap_or_default().trim().to_owned();
        if let Some(found) = number(&version)
            && found < OLDEST
        {
            let reason = format!(
                "{version} ({}) is too old: {}.{:03} or newer is needed",
                program.display(),
                OLDEST.0,
                OLDEST.1
            );
            return Err(Missing::tool(reason));
        }
        let include = root_of(&program, root)?.join("include");
        if !include.join("verilated.cpp").is_file() {
            let reason = format!(
                "the installation of {} is broken: {} has no verilated.cpp",
                program.display(),
                include.display()
            );
            return Err(Missing::tool(reason));
        }
        Ok(Self { program, version, include })
    }

    /// Runs `verilator --cc` in the folder `sources` and reads the list of what it made.
    pub fn generate(
        &self,
        sources: &Path,
        arguments: &[String],
        prefix: &str,
        into: &Path,
    ) -> Result<Generated, Missing> {
        let mut command = Command::new(&self.program);
        command.current_dir(sources).arg("--cc").arg("--prefix").arg(prefix).arg("--Mdir").arg(into);
        command.args(arguments);
        output(&mut command).map_err(|error| Missing::failed(format!("Verilator fails: {error}")))?;
        let list = into.join(format!("{prefix}_classes.mk"));
        let text = std::fs::read_to_string(&list)
            .map_err(|error| Missing::failed(format!("{}: {error}", list.display())))?;
        let mut generated = Generated { files: Vec::new(), runtime: BTreeSet::new() };
        for (variable, name) in listed(&text) {
            match variable {
                "VM_CLASSES_FAST" | "VM_CLASSES_SLOW" | "VM_SUPPORT_FAST" | "VM_SUPPORT_SLOW" => {
                    generated.files.push(into.join(format!("{name}.cpp")));
                }
                "VM_GLOBAL_FAST" | "VM_GLOBAL_SLOW" => {
                    generated.runtime.insert(name.to_owned());
                }
                _ => {}
            }
        }
        if generated.files.is_empty() {
            return Err(Missing::failed(format!("{} names no files", list.display())));
        }
        Ok(generated)
    }
}

/// The `NAME += \` lists of a make file, as (variable, word).
fn listed(makefile: &str) -> Vec<(&str, &str)> {
    let mut words = Vec::new();
    let mut variable = None;
    for line in makefile.lines() {
        let (content, continues) = match line.trim_end().strip_suffix('\\') {
            Some(content) => (content, true),
            None => (line, false),
        };
        let content = match content.split_once("+=") {
            Some((name, values)) => {
                variable = Some(name.trim());
                values
            }
            None => content,
        };
        if let Some(name) = variable {
            words.extend(content.split_whitespace().map(|word| (name, word)));
        }
        if !continues {
            variable = None;
        }
    }
    words
}

/// Major and minor number of "Verilator 5.006 2023-01-22 …". Some builds have none: those are tried.
fn number(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.strip_prefix("Verilator ")?.split_whitespace().next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Where the runtime's sources are. Debian's wrapper prints a folder that it does not itself accept in
/// `VERILATOR_ROOT`, so it is only used as a path.
fn root_of(program: &Path, root: Option<OsString>) -> Result<PathBuf, Missing> {
    if let Some(root) = root {
        return Ok(PathBuf::from(root));
    }
    let root = output(Command::new(program).args(["--getenv", "VERILATOR_ROOT"])).map_err(|error| {
        Missing::tool(format!("`{} --getenv VERILATOR_ROOT` fails: {error}", program.display()))
    })?;
    Ok(PathBuf::from(root.trim()))
}

fn in_path(path: Option<OsString>, program: &Path) -> Option<PathBuf> {
    std::env::split_paths(&path?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a command prints, or the first lines of what it complains of.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text =
        format!("{}\n{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.iter().position(|line| line.to_lowercase().contains("error")).unwrap_or(0);
    let shown: Vec<&str> = lines.iter().skip(first).take(5).copied().collect();
    Err(format!("{}\n{}", output.status, shown.join("\n")).trim_end().to_owned())
}
