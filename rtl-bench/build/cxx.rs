//! C++ to archives, with the compiler that the cc crate finds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};

use crate::verilator::{Missing, Verilator, output};

/// A C++ compiler and archiver.
pub struct Cxx {
    build: cc::Build,
    /// What it says of itself, and how it is called: part of every cache key.
    pub identity: String,
    /// For every program that a build runs.
    pub slots: Slots,
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
        Ok(Self { build, identity, slots: Slots::of_cargo(), include: verilator.include.clone() })
    }

    /// Compiles the files into `folder` and makes `archive` of them.
    pub fn archive(&self, job: &Job, folder: &Path, archive: &Path) -> Result<(), Missing> {
        let tool = self
            .build
            .clone()
            .opt_level(job.optimisation)
            .try_get_compiler()
            .map_err(|error| Missing::failed(error.to_string()))?;
        let compile = |(index, file): &(usize, &PathBuf)| {
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
            self.slots
                .run(|| output(&mut command))
                .map(|_| object)
                .map_err(|error| Missing::failed(format!("the C++ compiler fails on {name}: {error}")))
        };
        let files: Vec<_> = job.files.iter().enumerate().collect();
        let objects = in_parallel(&files, compile).into_iter().collect::<Result<Vec<_>, Missing>>()?;
        let mut archiver = self
            .build
            .try_get_archiver()
            .map_err(|error| Missing::tool(format!("no `ar` is found: {error}")))?;
        output(archiver.arg("crs").arg(archive).args(&objects))
            .map_err(|error| Missing::failed(format!("`ar` fails: {error}")))?;
        Ok(())
    }
}

/// Does the work for each item on a thread of its own, and gives the results in the items' order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}

/// How many programs run at once, whatever threads they are started from.
pub struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    /// As many as Cargo allows.
    fn of_cargo() -> Self {
        let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
        Self { free: Mutex::new(jobs), freed: Condvar::new() }
    }

    /// Does the work when there is a slot.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let free = self.free.lock().expect("no thread panics");
        *self.freed.wait_while(free, |free| *free == 0).expect("no thread panics") -= 1;
        let result = work();
        *self.free.lock().expect("no thread panics") += 1;
        self.freed.notify_one();
        result
    }
}
