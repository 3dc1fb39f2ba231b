//! What can go wrong in the command line: a message, the place it is about, and the exit code.

use std::fmt;
use std::io;
use std::path::Path;

/// The exit code that an error ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 1: the work found a failure, such as a mismatch or a packet lost without a reason.
    Failure,
    /// 2: bad usage, bad input, or an environment that does not do.
    Input,
    /// 130: interrupted, after a partial report.
    Interrupted,
    /// 0, quietly: nobody reads the output any more.
    ClosedPipe,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::ClosedPipe => 0,
            Exit::Failure => 1,
            Exit::Input => 2,
            Exit::Interrupted => 130,
        }
    }
}

/// An error with the place it is about: an option, a file, a line, a key, a packet.
#[derive(Debug)]
pub struct Error {
    place: Option<String>,
    message: String,
    exit: Exit,
    reported: bool,
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Bad input at a place.
    pub fn at(place: impl fmt::Display, message: impl fmt::Display) -> Error {
        Error {
            place: Some(place.to_string()),
            message: message.to_string(),
            exit: Exit::Input,
            reported: false,
        }
    }

    /// An environment or a request that does not do, with no better place than the command itself.
    pub fn input(message: impl fmt::Display) -> Error {
        Error { place: None, message: message.to_string(), exit: Exit::Input, reported: false }
    }

    /// The work found a failure.
    pub fn failure(message: impl fmt::Display) -> Error {
        Error { place: None, message: message.to_string(), exit: Exit::Failure, reported: false }
    }

    /// Interrupted; the partial report is already out.
    pub fn interrupted() -> Error {
        Error { place: None, message: "interrupted".to_owned(), exit: Exit::Interrupted, reported: true }
    }

    /// A file that could not be read or written.
    pub fn file(path: &Path, error: &io::Error) -> Error {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Error::closed_pipe();
        }
        Error::at(path.display(), error)
    }

    /// Something whose feature does not exist yet.
    pub fn not_supported(place: impl fmt::Display, what: impl fmt::Display) -> Error {
        Error::at(place, format_args!("{what} is not supported yet"))
    }

    /// Nobody reads the output any more.
    pub fn closed_pipe() -> Error {
        Error { place: None, message: "closed pipe".to_owned(), exit: Exit::ClosedPipe, reported: true }
    }

    /// The place, if there is one.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The message without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The report on standard output tells of it already; JSON output has no second object.
    pub fn reported(self) -> Error {
        Error { reported: true, ..self }
    }

    /// No report on standard output tells of it.
    pub fn unreported(self) -> Error {
        Error { reported: false, ..self }
    }

    /// Whether the report on standard output tells of it already.
    pub fn is_reported(&self) -> bool {
        self.reported
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(formatter, "{place}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}
