//! Signals of a command that runs until it is told to end: what came, and a descriptor that wakes a poll.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::{Error, Result};

/// SIGINT and SIGTERM end, SIGHUP asks to read files anew. The second SIGINT or SIGTERM ends the process at once.
pub(crate) struct Signals {
    end: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Signals> {
        Signals::register().map_err(|error| Error::input(format_args!("cannot listen for signals: {error}")))
    }

    fn register() -> std::io::Result<Signals> {
        let (end, hangup) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (wake, woken_by) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&end))?;
            flag::register(signal, Arc::clone(&end))?;
        }
        flag::register(SIGHUP, Arc::clone(&hangup))?;
        // The byte comes after the flag, so that who is woken sees it.
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            low_level::pipe::register(signal, woken_by.try_clone()?)?;
        }
        Ok(Signals { end, hangup, wake })
    }

    /// Whether the command is to end.
    pub(crate) fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether files are to be read anew; says so once.
    pub(crate) fn take_hangup(&mut self) -> bool {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|length| length == bytes.len()) {}
        self.hangup.swap(false, Ordering::Relaxed)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
