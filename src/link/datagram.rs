//! A pair of Unix datagram sockets: a frame is a datagram, as with QEMU's `-netdev dgram`.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::LinkCounters;
use crate::error::{Error, Result};

/// Frames that wait for room in the far end's queue, which is ten datagrams long (net.unix.max_dgram_qlen).
const BACKLOG_FRAMES: usize = 1024;
/// How soon those are tried again: no descriptor tells that the far end has read.
const RETRY: Duration = Duration::from_millis(1);

/// The local socket, and the path of the remote one. It is not connected: a connected socket would take no frame from a
/// peer that came back.
pub(super) struct Datagram {
    socket: UnixDatagram,
    local: PathBuf,
    /// Device and inode of the socket file, so that no other is removed.
    identity: Option<(u64, u64)>,
    remote: PathBuf,
    backlog: VecDeque<Vec<u8>>,
}

impl Datagram {
    pub(super) fn open(local: &Path, remote: &Path) -> Result<Datagram> {
        let wrong = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::InvalidInput => " (a socket's path has room for 107 bytes)",
                _ => "",
            };
            Error::at(local.display(), format_args!("cannot be made a datagram socket: {error}{hint}"))
        };
        let socket = match UnixDatagram::bind(local) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(local)?;
                UnixDatagram::bind(local)
            }
            bound => bound,
        }
        .map_err(wrong)?;
        let datagram = Datagram {
            socket,
            local: local.to_owned(),
            identity: identity(local),
            remote: remote.to_owned(),
            backlog: VecDeque::new(),
        };
        datagram.socket.set_nonblocking(true).map_err(wrong)?;
        Ok(datagram)
    }

    /// The length of the datagram that came; one more than fits is cut to `room`.
    pub(super) fn receive(&self, room: &mut [u8]) -> Result<Option<usize>> {
        loop {
            return match self.socket.recv(room) {
                Ok(length) => Ok(Some(length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(Error::at(self.local.display(), error)),
            };
        }
    }

    pub(super) fn send(&mut self, frame: &[u8], counters: &mut LinkCounters) {
        self.flush(counters);
        if self.backlog.is_empty() && self.try_send(frame, counters) {
            return;
        }
        if self.backlog.len() < BACKLOG_FRAMES {
            self.backlog.push_back(frame.to_vec());
        } else {
            counters.lost += 1;
        }
    }

    /// Tries again what waits.
    pub(super) fn flush(&mut self, counters: &mut LinkCounters) {
        while let Some(frame) = self.backlog.pop_front() {
            if !self.try_send(&frame, counters) {
                self.backlog.push_front(frame);
                return;
            }
        }
    }

    /// Sends a frame and counts what became of it, unless it has to wait.
    fn try_send(&self, frame: &[u8], counters: &mut LinkCounters) -> bool {
        loop {
            match self.socket.send_to(frame, &self.remote) {
                Ok(_) => counters.sent += 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        || Errno::from_io_error(&error) == Some(Errno::NOBUFS) =>
                {
                    return false;
                }
                // The peer is not there, or its path is something else for now: as a cable that is not plugged in.
                Err(_) => counters.lost += 1,
            }
            return true;
        }
    }

    pub(super) fn look_again(&self) -> Option<Duration> {
        (!self.backlog.is_empty()).then_some(RETRY)
    }
}

impl AsFd for Datagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Datagram {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.local) {
            let _ = fs::remove_file(&self.local);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Removes a socket that nobody has open any more; refuses what is in use, and what is no socket.
fn remove_stale(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|error| Error::file(path, &error))?;
    if !metadata.file_type().is_socket() {
        return Err(Error::at(path.display(), "exists and is no socket; it is not replaced"));
    }
    let probe = UnixDatagram::unbound().map_err(|error| Error::file(path, &error))?;
    match probe.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| Error::file(path, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Error::file(path, &error)),
        // Another end of the same kind, or a socket of another type.
        _ => {
            Err(Error::at(path.display(), "is the socket of another process that runs; choose another path"))
        }
    }
}
