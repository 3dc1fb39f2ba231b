//! Standard output, colours, progress, and files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::{Error, Result};

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::file(Path::new("standard output"), &error))
}

/// Writes one JSON object and a newline to standard output.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Writes a line to standard error. A standard error that is closed is nobody's fault.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// How human output may look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paint {
    colour: bool,
}

impl Paint {
    /// Colours if standard output is a terminal and NO_COLOR is unset or empty.
    pub(crate) fn for_stdout() -> Paint {
        Paint { colour: colours_wanted() && io::stdout().is_terminal() }
    }

    /// As [`Paint::for_stdout`], for standard error.
    pub(crate) fn for_stderr() -> Paint {
        Paint { colour: colours_wanted() && io::stderr().is_terminal() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }
    pub(crate) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// A progress bar on standard error if that is a terminal, else nothing.
pub(crate) fn progress(steps: Option<u64>, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr_with_hz(8);
    let (bar, template) = match steps {
        Some(steps) => (
            ProgressBar::with_draw_target(Some(steps), target),
            "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
        ),
        None => (ProgressBar::with_draw_target(None, target), "{msg} {human_pos} {per_sec} {elapsed}"),
    };
    // The templates are constants; a fault in one shows in the first run on a terminal.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Whether the user asked to stop. The second interrupt ends the process at once.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        let listened = signal_hook::flag::register_conditional_shutdown(
            signal_hook::consts::SIGINT,
            130,
            Arc::clone(&flag),
        )
        .and_then(|_| signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&flag)));
        listened.map_err(|error| Error::input(format_args!("cannot listen for interrupts: {error}")))?;
        Ok(Interrupt(flag))
    }

    /// Whether an interrupt came.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An output file that is written beside its place and renamed at the end, or standard output for `-`.
/// Dropped without [`OutputFile::finish`], it leaves nothing behind.
pub(crate) struct OutputFile {
    path: PathBuf,
    temporary: Option<PathBuf>,
    writer: Option<BufWriter<Box<dyn Write>>>,
}

impl OutputFile {
    /// Opens it.
    pub(crate) fn create(path: &Path) -> Result<OutputFile> {
        OutputFile::open(path, false)
    }

    fn open(path: &Path, secret: bool) -> Result<OutputFile> {
        if path == Path::new("-") {
            return OutputFile::around(Path::new("standard output"), None, Box::new(io::stdout()));
        }
        // A device or a pipe, such as /dev/null, cannot be renamed over.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
            let file = File::options().write(true).open(path).map_err(|error| Error::file(path, &error))?;
            return OutputFile::around(path, None, Box::new(file));
        }
        let Some(name) = path.file_name() else {
            return Err(Error::at(path.display(), "not the name of a file"));
        };
        if path.is_dir() {
            return Err(Error::at(path.display(), "is a directory"));
        }
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(beside);
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        if secret {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let _ = secret;
        let file = options.open(&temporary).map_err(|error| Error::file(path, &error))?;
        OutputFile::around(path, Some(temporary), Box::new(file))
    }

    fn around(path: &Path, temporary: Option<PathBuf>, writer: Box<dyn Write>) -> Result<OutputFile> {
        let writer = Some(BufWriter::with_capacity(1 << 16, writer));
        Ok(OutputFile { path: path.to_owned(), temporary, writer })
    }

    /// Puts the file in its place.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.flush().map_err(|error| Error::file(&self.path, &error))?;
        }
        if let Some(temporary) = self.temporary.take() {
            fs::rename(&temporary, &self.path).map_err(|error| {
                let _ = fs::remove_file(&temporary);
                Error::file(&self.path, &error)
            })?;
        }
        Ok(())
    }

    /// Writes a whole file.
    pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = OutputFile::create(path)?;
        file.write_all(bytes).map_err(|error| Error::file(path, &error))?;
        file.finish()
    }

    /// Writes a whole file that holds keys: nobody but its owner may read it.
    pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = OutputFile::open(path, true)?;
        file.write_all(bytes).map_err(|error| Error::file(path, &error))?;
        file.finish()
    }
}

/// The place of a file that somebody else writes, given its path: beside its place first, and renamed at the end.
/// Dropped without [`ReservedPath::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct ReservedPath {
    path: PathBuf,
    temporary: PathBuf,
}

impl ReservedPath {
    /// Makes the file, empty.
    pub(crate) fn new(path: &Path) -> Result<ReservedPath> {
        let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
            return Err(Error::at(path.display(), "not the name of a file"));
        };
        // A device or a pipe cannot be renamed over.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            File::options().write(true).open(path).map_err(|error| Error::file(path, &error))?;
            return Ok(ReservedPath { path: path.to_owned(), temporary: path.to_owned() });
        }
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(beside);
        File::create(&temporary).map_err(|error| Error::file(path, &error))?;
        Ok(ReservedPath { path: path.to_owned(), temporary })
    }

    /// Where the file is to be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is to be written.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Puts the file in its place.
    pub(crate) fn finish(self) -> Result<()> {
        if self.temporary == self.path {
            return Ok(());
        }
        fs::rename(&self.temporary, &self.path).map_err(|error| Error::file(&self.path, &error))
    }
}

impl Drop for ReservedPath {
    fn drop(&mut self) {
        if self.temporary != self.path {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.writer {
            Some(writer) => writer.write(bytes),
            None => Err(io::ErrorKind::WriteZero.into()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.flush())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            drop(self.writer.take().map(BufWriter::into_parts));
            let _ = fs::remove_file(temporary);
        }
    }
}
