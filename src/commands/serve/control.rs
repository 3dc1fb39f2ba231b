//! The control socket of a served model, for tests: what they do to a NIC from its far side, and to its inside, that no
//! driver can do. One JSON object a line each way:
//!
//! ```text
//! {"do": "settle"}                                 what is under way is done
//! {"do": "inject", "frame": "0200..."}             a frame arrives on the line
//! {"do": "sent"}                                   {"frames": [...]}: those that left since the last call
//! {"do": "drops"}                                  {"drops": [status numbers]}: why frames were dropped, since the last call
//! {"do": "firmware", "what": "restart" | "stop"}   it crashes and starts anew, or it stalls
//! {"do": "power"}                                  the NIC is turned off and on
//! {"do": "search", "inverted": "cf..."}            {"found": n}: places in the server's own memory with these bytes inverted
//! {"do": "registers"}                              {"reserved": n}: accesses that no register answered
//! ```
//!
//! The answer is `{"error": "..."}` where a line makes no sense.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryptonic_hwmodel::{NicId, World};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::memory_search;

/// Frames that are kept for a test at most; older ones are forgotten.
const FRAMES_MAX: usize = 65_536;
/// Bytes of a line at most: a frame of the longest IP packet, in hexadecimal.
const LINE_BYTES_MAX: usize = 1 << 18;
/// How long a test may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The control socket.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    client: Option<Client>,
    sent: VecDeque<Vec<u8>>,
}

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
}

impl Control {
    pub(super) fn bind(path: &Path, world: &World, nic: NicId) -> io::Result<Control> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        world.record_drops(nic);
        Ok(Control { listener, path: path.to_owned(), client: None, sent: VecDeque::new() })
    }

    /// What becomes readable when there is something to do.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.client {
            Some(client) => client.stream.as_fd(),
            None => self.listener.as_fd(),
        }
    }

    /// Keeps a frame that left the NIC.
    pub(super) fn keep(&mut self, frame: Vec<u8>) {
        if self.sent.len() == FRAMES_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(frame);
    }

    /// Does what has come in; says whether there was anything. What is under way in the NIC has been done.
    pub(super) fn serve(&mut self, world: &World, nic: NicId) -> bool {
        let Some(client) = &mut self.client else {
            let Ok((stream, _)) = self.listener.accept() else { return false };
            let ready = stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
            self.client = ready.is_ok().then(|| Client { stream, line: Vec::new() });
            return true;
        };
        match client.receive() {
            Ok(None) => false,
            Ok(Some(line)) => {
                let answer = self.answer(&line, world, nic).unwrap_or_else(|error| json!({ "error": error }));
                let told = self.client.as_mut().is_some_and(|client| client.send(&answer).is_ok());
                if !told {
                    self.client = None;
                }
                true
            }
            Err(_) => {
                self.client = None;
                true
            }
        }
    }

    fn answer(&mut self, line: &[u8], world: &World, nic: NicId) -> Result<Value, String> {
        let asked: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let bytes = |name: &str| {
            let text = asked.get(name).and_then(Value::as_str).ok_or(format!("{name} is missing"))?;
            hex::decode(text).map_err(|error| format!("{name}: {error}"))
        };
        let what = asked.get("do").and_then(Value::as_str).ok_or("do is missing")?;
        match what {
            "settle" => {
                world.drain();
                Ok(json!({}))
            }
            "inject" => {
                world.inject(nic, &bytes("frame")?);
                world.drain();
                Ok(json!({}))
            }
            "sent" => {
                let frames: Vec<String> = self.sent.drain(..).map(hex::encode).collect();
                Ok(json!({ "frames": frames }))
            }
            "drops" => {
                let drops: Vec<u32> =
                    world.take_drops(nic).into_iter().map(|status| status.number()).collect();
                Ok(json!({ "drops": drops }))
            }
            "firmware" => {
                match asked.get("what").and_then(Value::as_str) {
                    Some("restart") => world.restart_firmware(nic),
                    Some("stop") => world.stop_firmware(nic),
                    _ => return Err("what is restart or stop".to_owned()),
                }
                Ok(json!({}))
            }
            "power" => {
                world.power_cycle(nic);
                self.sent.clear();
                Ok(json!({}))
            }
            "search" => {
                let found = memory_search::count(&bytes("inverted")?).map_err(|error| error.to_string())?;
                Ok(json!({ "found": found }))
            }
            "registers" => Ok(json!({ "reserved": world.reserved_accesses(nic) })),
            other => Err(format!("there is no {other}")),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    /// The next line, if it is there whole.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.line, rest)));
            }
            if self.line.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&nothing))? == 0 {
                return Ok(None);
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.line.extend_from_slice(bytes.get(..count).unwrap_or_default());
        }
    }

    fn send(&mut self, answer: &Value) -> io::Result<()> {
        self.stream.write_all(format!("{answer}\n").as_bytes())
    }
}
