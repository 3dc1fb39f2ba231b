//! Links: where the far end of a NIC's cable leads. A frame is an Ethernet frame without its FCS.
//!
//! Nothing here waits. Who wants to sleep until a frame comes gives [`Link::descriptor`] and [`Link::look_again`] to poll.

mod datagram;
mod tap;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::capture::{Format, Input, Link as LinkType, Output};
use crate::error::{Error, Result};
use datagram::Datagram;
use tap::Tap;

/// The shortest frame: an Ethernet header alone.
pub const FRAME_BYTES_MIN: usize = 14;
/// The longest frame.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Frames that a loopback holds before it loses some.
const LOOPBACK_FRAMES: usize = 4096;

/// Where a cable leads, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkName {
    /// `none`: no frame comes, and what is sent is lost.
    None,
    /// `loopback`: what is sent comes back.
    Loopback,
    /// `dgram:LOCAL,REMOTE`: two Unix datagram sockets; a frame is a datagram.
    Datagram {
        /// The socket that is made here.
        local: PathBuf,
        /// The peer's, which may come and go.
        remote: PathBuf,
    },
    /// `tap:NAME`: a TAP interface of this machine.
    Tap(String),
    /// `pcap:FILE`: what is sent is written to a capture; no frame comes.
    Capture(PathBuf),
    /// `replay:FILE`: the frames of a capture come, without its pauses; what is sent is lost.
    Replay(PathBuf),
}

impl FromStr for LinkName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<LinkName, String> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let file = |what: &str| match rest {
            None | Some("") => Err(format!("`{kind}:` wants {what} behind it")),
            Some(rest) => Ok(rest),
        };
        match (kind, rest) {
            ("none", None) => Ok(LinkName::None),
            ("loopback", None) => Ok(LinkName::Loopback),
            ("dgram", _) => {
                let paths = file("two socket paths, as in dgram:LOCAL,REMOTE")?;
                match paths.split(',').collect::<Vec<_>>()[..] {
                    [local, remote] if local == remote => {
                        Err(format!("`{local}` cannot be both ends: the local and the remote socket are two"))
                    }
                    [local, remote] if !local.is_empty() && !remote.is_empty() => {
                        Ok(LinkName::Datagram { local: local.into(), remote: remote.into() })
                    }
                    _ => Err(format!("`{paths}` is not two paths with one comma between, LOCAL,REMOTE")),
                }
            }
            ("tap", _) => Ok(LinkName::Tap(tap::checked_name(file("the name of an interface")?)?)),
            ("pcap", Some("-")) => {
                Err("standard output is for the report; give the capture a file".to_owned())
            }
            ("pcap", _) => Ok(LinkName::Capture(file("a file")?.into())),
            ("replay", _) => Ok(LinkName::Replay(file("a file")?.into())),
            _ => Err("there are none, loopback, dgram:LOCAL,REMOTE, tap:NAME, pcap:FILE and replay:FILE"
                .to_owned()),
        }
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkName::None => formatter.write_str("none"),
            LinkName::Loopback => formatter.write_str("loopback"),
            LinkName::Datagram { local, remote } => {
                write!(formatter, "dgram:{},{}", local.display(), remote.display())
            }
            LinkName::Tap(name) => write!(formatter, "tap:{name}"),
            LinkName::Capture(path) => write!(formatter, "pcap:{}", path.display()),
            LinkName::Replay(path) => write!(formatter, "replay:{}", path.display()),
        }
    }
}

/// What a link counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames that went to the far end.
    pub sent: u64,
    /// Frames that came from it.
    pub received: u64,
    /// Frames that the far end did not take: it is not there, its queue stays full, or its interface is down.
    pub lost: u64,
    /// Frames from the far end that are too short or too long.
    pub refused: u64,
}

/// An open link. Dropped without [`Link::close`], it leaves no socket and no half-written capture.
pub struct Link {
    end: End,
    /// The frame that came last, with room to tell one that is too long.
    frame: Vec<u8>,
    counters: LinkCounters,
}

enum End {
    None,
    Loopback(VecDeque<Vec<u8>>),
    Datagram(Datagram),
    Tap(Tap),
    Capture(Output),
    Replay { input: Input, over: bool },
}

impl Link {
    /// Opens it.
    pub fn open(name: &LinkName) -> Result<Link> {
        let end = match name {
            LinkName::None => End::None,
            LinkName::Loopback => End::Loopback(VecDeque::new()),
            LinkName::Datagram { local, remote } => End::Datagram(Datagram::open(local, remote)?),
            LinkName::Tap(name) => End::Tap(Tap::open(name)?),
            LinkName::Capture(path) => End::Capture(Output::create(path, Format::ETHERNET)?),
            LinkName::Replay(path) => End::Replay { input: replayed(path)?, over: false },
        };
        Ok(Link { end, frame: vec![0; FRAME_BYTES_MAX + 1], counters: LinkCounters::default() })
    }

    /// The next frame that came, if one did.
    pub fn receive(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let Some(length) = self.receive_any()? else { return Ok(None) };
            if (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&length) {
                self.counters.received += 1;
                return Ok(self.frame.get(..length));
            }
            self.counters.refused += 1;
        }
    }

    /// Puts what came next into `self.frame`, and gives its length, which may be more than the room.
    fn receive_any(&mut self) -> Result<Option<usize>> {
        let whole = match &mut self.end {
            End::None | End::Capture(_) => return Ok(None),
            End::Datagram(datagram) => {
                datagram.flush(&mut self.counters);
                return datagram.receive(&mut self.frame);
            }
            End::Tap(tap) => return tap.receive(&mut self.frame),
            End::Loopback(frames) => frames.pop_front(),
            End::Replay { input, over } => {
                let record = input.next()?;
                *over = record.is_none();
                record.map(|record| record.data)
            }
        };
        Ok(whole.map(|whole| {
            let length = whole.len().min(self.frame.len());
            self.frame[..length].copy_from_slice(&whole[..length]);
            length
        }))
    }

    /// Sends a frame. A far end that does not take it is no error: [`LinkCounters::lost`] tells of it.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let sent = match &mut self.end {
            _ if frame.len() > FRAME_BYTES_MAX => false,
            End::None | End::Replay { .. } => false,
            End::Loopback(frames) => {
                let room = frames.len() < LOOPBACK_FRAMES;
                if room {
                    frames.push_back(frame.to_vec());
                }
                room
            }
            End::Datagram(datagram) => {
                datagram.send(frame, &mut self.counters);
                return Ok(());
            }
            End::Tap(tap) => tap.send(frame)?,
            End::Capture(output) => {
                let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                output.write(time, 0, frame)?;
                true
            }
        };
        self.counters.sent += u64::from(sent);
        self.counters.lost += u64::from(!sent);
        Ok(())
    }

    /// The longest IP packet that it carries, where it has such a limit of its own.
    pub fn mtu(&self) -> Option<usize> {
        match &self.end {
            End::Tap(tap) => tap.mtu(),
            End::None | End::Loopback(_) | End::Datagram(_) | End::Capture(_) | End::Replay { .. } => None,
        }
    }

    /// What poll is to watch for frames that come, where there is such a thing.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.end {
            End::Datagram(datagram) => Some(datagram.as_fd()),
            End::Tap(tap) => Some(tap.as_fd()),
            End::None | End::Loopback(_) | End::Capture(_) | End::Replay { .. } => None,
        }
    }

    /// When to call [`Link::receive`] though [`Link::descriptor`] is quiet: at once while frames are here that it tells
    /// nothing of, soon while frames wait for room at the far end, else never.
    pub fn look_again(&self) -> Option<Duration> {
        match &self.end {
            End::Loopback(frames) => (!frames.is_empty()).then_some(Duration::ZERO),
            End::Replay { over, .. } => (!over).then_some(Duration::ZERO),
            End::Datagram(datagram) => datagram.look_again(),
            End::None | End::Tap(_) | End::Capture(_) => None,
        }
    }

    /// Whether no frame can come any more: a replay that came to its end.
    pub fn is_over(&self) -> bool {
        matches!(self.end, End::Replay { over: true, .. })
    }

    /// What it counted.
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Closes it: a socket is removed, a capture is put in its place.
    pub fn close(self) -> Result<()> {
        match self.end {
            End::Capture(output) => output.finish(),
            _ => Ok(()),
        }
    }
}

fn replayed(path: &Path) -> Result<Input> {
    let input = Input::open(path)?;
    if input.format().link != LinkType::Ethernet {
        return Err(Error::at(path.display(), "a link carries Ethernet frames, and this capture has raw IP"));
    }
    Ok(input)
}
