//! One end of a vfio-user socket: whole messages in, whole messages out.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::{FILES_MAX, Header, TRANSFER_BYTES_MAX};

/// A message that came in.
#[derive(Debug)]
pub struct Incoming {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Files that came with it.
    pub files: Vec<File>,
}

/// One end of a socket. What the other end sends is collected as it comes, so that a message that stops half-way
/// stops nobody.
pub struct Connection {
    stream: UnixStream,
    /// Of the message that is coming in.
    bytes: Vec<u8>,
    files: Vec<File>,
}

/// Payload that no message of the protocol is longer than.
const PAYLOAD_BYTES_MAX: usize = TRANSFER_BYTES_MAX + 4096;

impl Connection {
    /// Takes a connected socket.
    pub fn new(stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, bytes: Vec::new(), files: Vec::new() })
    }

    /// Sends a message whole. Fails with [`io::ErrorKind::TimedOut`] if the other end does not take it in `patience`;
    /// the connection is of no use after that.
    pub fn send(&mut self, message: &[u8], files: &[BorrowedFd<'_>], patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        let mut files = files;
        let mut left = message;
        while !left.is_empty() {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            match sendmsg(&self.stream, &[IoSlice::new(left)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    // Files go with the first byte.
                    files = &[];
                    left = left.get(sent..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let patience = deadline.saturating_duration_since(Instant::now());
                    if !self.ready(PollFlags::OUT, patience)? {
                        return Err(io::Error::from(io::ErrorKind::TimedOut));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next message, if it is there whole. An end of the stream is [`io::ErrorKind::UnexpectedEof`]; a message of
    /// impossible size, or with more files than one may have, is [`io::ErrorKind::InvalidData`], after which nothing that
    /// follows makes sense.
    pub fn receive(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            let wanted = match Header::read(&self.bytes) {
                None => Header::BYTES,
                Some((header, payload)) => {
                    let bytes = header.bytes as usize;
                    if !(Header::BYTES..=Header::BYTES + PAYLOAD_BYTES_MAX).contains(&bytes) {
                        return Err(io::Error::from(io::ErrorKind::InvalidData));
                    }
                    if self.bytes.len() == bytes {
                        let payload = payload.to_vec();
                        self.bytes.clear();
                        let files = std::mem::take(&mut self.files);
                        return Ok(Some(Incoming { header, payload, files }));
                    }
                    bytes
                }
            };
            if !self.take(wanted)? {
                return Ok(None);
            }
        }
    }

    /// Waits until something can be received; says whether it can.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        self.ready(PollFlags::IN, patience)
    }

    /// Reads up to `wanted` bytes of the message, never more: files belong to the message whose bytes they came with.
    fn take(&mut self, wanted: usize) -> io::Result<bool> {
        const STEP_BYTES: usize = 1 << 16;
        let have = self.bytes.len();
        // Memory is taken as bytes come, whatever size a header claims.
        let step = (wanted - have).min(STEP_BYTES);
        self.bytes.resize(have + step, 0);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slot = &mut self.bytes[have..];
        let result =
            recvmsg(&self.stream, &mut [IoSliceMut::new(slot)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = result.as_ref().map_or(0, |message| message.bytes);
        self.bytes.truncate(have + received);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files.map(File::from));
            }
        }
        // Files that found no room are lost, and a message without its files is another message.
        let lost = result.as_ref().is_ok_and(|message| message.flags.contains(ReturnFlags::CTRUNC));
        if lost || self.files.len() > FILES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        match result {
            Ok(_) if received == 0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn ready(&self, what: PollFlags, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.stream, what)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{command, message};
    use super::*;
    use std::io::Write;

    const PATIENCE: Duration = Duration::from_millis(200);

    fn pair() -> (Connection, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (Connection::new(one).unwrap(), other)
    }

    #[test]
    fn a_message_in_pieces_is_received_when_it_is_whole() {
        let (mut connection, mut other) = pair();
        let bytes = message(7, command::REGION_READ, 0, 0, &[1, 2, 3]);
        for byte in &bytes {
            assert!(connection.receive().unwrap().is_none());
            other.write_all(&[*byte]).unwrap();
        }
        let incoming = connection.receive().unwrap().unwrap();
        assert_eq!((incoming.header.id, incoming.payload), (7, vec![1, 2, 3]));
        assert!(connection.receive().unwrap().is_none());
    }

    #[test]
    fn files_come_with_their_own_message() {
        let (mut connection, other) = pair();
        let mut sender = Connection::new(other).unwrap();
        let file = tempfile_of(b"here");
        sender.send(&message(1, command::DMA_MAP, 0, 0, &[]), &[], PATIENCE).unwrap();
        sender.send(&message(2, command::DMA_MAP, 0, 0, &[]), &[file.as_fd()], PATIENCE).unwrap();
        sender.send(&message(3, command::DMA_MAP, 0, 0, &[]), &[], PATIENCE).unwrap();
        let counts: Vec<usize> = (0..3).map(|_| connection.receive().unwrap().unwrap().files.len()).collect();
        assert_eq!(counts, [0, 1, 0]);
    }

    #[test]
    fn sizes_that_no_message_has_are_refused() {
        for size in [0, 15, u32::MAX] {
            let (mut connection, mut other) = pair();
            let mut bytes = Vec::new();
            Header { bytes: size, ..Header::default() }.write(&mut bytes);
            other.write_all(&bytes).unwrap();
            assert_eq!(connection.receive().unwrap_err().kind(), io::ErrorKind::InvalidData, "{size}");
        }
    }

    #[test]
    fn more_files_than_a_message_may_have_end_the_connection_however_they_come() {
        let file = tempfile_of(b"here");
        let bytes = message(1, command::DMA_MAP, 0, 0, &[0; 32]);
        // In one piece, which the kernel cuts, and in two.
        for pieces in [&[FILES_MAX + 1][..], &[FILES_MAX, 1]] {
            let (mut connection, other) = pair();
            let mut left = &bytes[..];
            for files in pieces {
                let files = vec![file.as_fd(); *files];
                let mut space =
                    [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX + 1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
                let (piece, rest) = left.split_at(8);
                sendmsg(&other, &[IoSlice::new(piece)], &mut control, SendFlags::NOSIGNAL).unwrap();
                left = rest;
            }
            let error = (0..4).find_map(|_| connection.receive().err()).unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{pieces:?}");
        }
    }

    #[test]
    fn the_end_of_the_other_side_is_an_error() {
        let (mut connection, other) = pair();
        drop(other);
        assert_eq!(connection.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_end_that_takes_nothing_costs_no_more_than_the_patience() {
        let (mut connection, _other) = pair();
        let long = vec![0; 1 << 20];
        let error = connection.send(&message(1, command::REGION_WRITE, 0, 0, &long), &[], PATIENCE);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    fn tempfile_of(bytes: &[u8]) -> File {
        let memory = crate::SharedMemory::new(4096).unwrap();
        memory.write(0, bytes).unwrap();
        memory.file().try_clone().unwrap()
    }
}
