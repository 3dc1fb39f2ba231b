//! C++ to archives, with the compiler that the cc crate finds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::verilator::{Missing, Verilator, output};

/// A C++ compiler and archiver.
pub struct Cxx {
    build: cc::Build,
    /// What it says of itself, and how it is called: part of every cache key.
    pub identity: String,
    include: PathBuf,
}

/// What to compile.
pub struct Job<'a> {
    pub files: &'a [PathBuf],
    pub includes: &'a [&'a Path],
    /// Macros: `NAME=VALUE`.
    pub defines: &'a [&'a str],
    /// A header that every file sees first.
    pub header_before: Option<&'a Path>,
    pub optimisation: u32,
}

impl Cxx {
    /// The compiler that the cc crate finds: the one that `CXX` names, or the platform's.
    pub fn find(mut build: cc::Build, verilator: &Verilator) -> Result<Self, Missing> {
        // What Cargo's profile says of optimisation is of no matter here, so that profiles share what is built.
        build
            .opt_level(0)
            .cpp(true)
            .std("c++17")
            .debug(false)
            .warnings(false)
            .cargo_metadata(false)
            .cargo_warnings(false);
        let tool = build
            .try_get_compiler()
            .map_err(|error| Missing::tool(format!("no C++ compiler is found: {error}")))?;
        if tool.is_like_msvc() {
            return Err(Missing::failed("the RTL is built with GCC or Clang only".to_owned()));
        }
        let version = output(Command::new(tool.path()).arg("--version")).map_err(|error| {
            Missing::tool(format!("the C++ compiler `{} --version` fails: {error}", tool.path().display()))
        })?;
        let identity = format!(
            "{} {:?} {}",
            tool.path().display(),
            tool.args(),
            version.lines().next().unwrap_or_default()
        );
        Ok(Self { build, identity, include: verilator.include.clone() })
    }

    /// Compiles the files into `folder` and makes `archive` of them.
    pub fn archive(&self, job: &Job, folder: &Path, archive: &Path) -> Result<(), Missing> {
        let tool = self
            .build
            .clone()
            .opt_level(job.optimisation)
            .try_get_compiler()
            .map_err(|error| Missing::failed(error.to_string()))?;
        let compile = |index: usize, file: &Path| {
            let object = folder.join(format!("{index}.o"));
            let mut command = tool.to_command();
            if let Some(header) = job.header_before {
                command.arg("-include").arg(header);
            }
            for include in job.includes {
                command.arg("-I").arg(include);
            }
            // Verilator's own headers warn, and are not ours to change.
            command.arg("-isystem").arg(&self.include).arg("-isystem").arg(self.include.join("vltstd"));
            command.args(job.defines.iter().map(|define| format!("-D{define}")));
            command.arg("-c").arg(file).arg("-o").arg(&object);
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            output(&mut command)
                .map(|_| object)
                .map_err(|error| Missing::failed(format!("the C++ compiler fails on {name}: {error}")))
        };
        let objects = in_parallel(job.files, compile)?;
        let mut archiver = self
            .build
            .try_get_archiver()
            .map_err(|error| Missing::tool(format!("no `ar` is found: {error}")))?;
        output(archiver.arg("crs").arg(archive).args(&objects))
            .map_err(|error| Missing::failed(format!("`ar` fails: {error}")))?;
        Ok(())
    }
}

/// Does the work for each file, on as many threads as Cargo allows, and gives the results in the files' order.
fn in_parallel(
    files: &[PathBuf],
    work: impl Fn(usize, &Path) -> Result<PathBuf, Missing> + Sync,
) -> Result<Vec<PathBuf>, Missing> {
    let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; files.len()]);
    std::thread::scope(|scope| {
        for _ in 0..files.len().min(jobs) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(index) else { return };
                    let result = work(index, file);
                    if result.is_err() {
                        next.store(files.len(), Ordering::Relaxed);
                    }
                    results.lock().expect("no thread panics")[index] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panics");
    let mut objects = Vec::new();
    // A failure stops the rest, so what is absent stands beside what failed.
    for result in results.into_iter().flatten() {
        objects.push(result?);
    }
    Ok(objects)
}
