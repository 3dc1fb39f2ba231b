//! Two gateways back to back, a host behind each, and between them a wire that the test carries frames over.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{Host, Port, addresses};

/// Nothing here takes as long; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that runs.
pub struct Gateway {
    child: Child,
    lines: Receiver<String>,
}

impl Gateway {
    pub fn start(arguments: &[String]) -> Gateway {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cryptonic"))
            .arg("gateway")
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command line runs");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (tell, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let gateway = Gateway { child, lines };
        gateway.await_line("gateway between");
        gateway
    }

    /// The next line on standard error with this in it.
    pub fn await_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no `{part}` but {seen:?}: {error}"),
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// Ends it with Ctrl-C and gives its report.
    pub fn end(mut self) -> Value {
        self.signal("INT");
        self.report(130)
    }

    /// Its report when it has ended by itself.
    pub fn report(&mut self, code: i32) -> Value {
        let mut text = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        assert_eq!(self.child.wait().expect("it ends").code(), Some(code), "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where streams go.
const PORT: u16 = 7;

/// The names of the two sides, and the outer addresses of the gateways.
pub const SIDES: [&str; 2] = ["left", "right"];

pub struct Rig {
    pub folder: tempfile::TempDir,
    pub gateways: [Option<Gateway>; 2],
    pub hosts: [Host; 2],
    /// The wire's ends, one towards each gateway.
    wire: [Port; 2],
    /// Frames that were carried: who sent them, and their octets.
    pub carried: Vec<(usize, Vec<u8>)>,
}

impl Rig {
    /// Gateways with these SA files. On the link are hosts that reach each other without a router.
    pub fn new(files: [&str; 2], on_link: bool) -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str, side: usize| folder.path().join(format!("{name}-{}", SIDES[side]));
        for (side, text) in files.iter().enumerate() {
            fs::write(path("sa.toml", side), text).expect("a file");
        }
        let wire = [0, 1].map(|side| Port::new(&path("wire", side), &path("outside", side)));
        let hosts = [0, 1].map(|side| {
            let port = Port::new(&path("host", side), &path("inside", side));
            let number = side as u8 + 1;
            if on_link {
                return Host::new(port, number, addresses(9, number), [24, 64], [None, None]);
            }
            let routers = addresses(number, 254).map(Some);
            Host::new(port, number, addresses(number, 1), [24, 64], routers)
        });
        let mut rig = Rig { folder, gateways: [None, None], hosts, wire, carried: Vec::new() };
        for side in [0, 1] {
            rig.start(side, &[]);
        }
        rig
    }

    pub fn path(&self, name: &str, side: usize) -> PathBuf {
        self.folder.path().join(format!("{name}-{}", SIDES[side]))
    }

    pub fn start(&mut self, side: usize, more: &[String]) {
        let name = |what: &str| text(&self.path(what, side));
        let mut arguments = vec![
            "--sa".to_owned(),
            name("sa.toml"),
            "--inside".to_owned(),
            format!("dgram:{},{}", name("inside"), name("host")),
            "--outside".to_owned(),
            format!("dgram:{},{}", name("outside"), name("wire")),
            "--sa-out".to_owned(),
            name("sa-out.toml"),
        ];
        for address in addresses(side as u8 + 1, 254) {
            arguments.extend(["--inside-gateway".to_owned(), address.to_string()]);
        }
        arguments.extend_from_slice(more);
        self.gateways[side] = Some(Gateway::start(&arguments));
    }

    pub fn end(&mut self, side: usize) -> Value {
        self.gateways[side].take().expect("it runs").end()
    }

    /// Carries what waits on the wire. Says whether there was any.
    pub fn carry(&mut self) -> bool {
        let mut any = false;
        for side in [0, 1] {
            while let Some(frame) = self.wire[side].get() {
                any = true;
                self.wire[1 - side].put(&frame);
                self.carried.push((side, frame));
            }
        }
        any
    }

    /// Lets everything go on until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.hosts.iter_mut().for_each(Host::poll);
            if !self.carry() {
                thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// Addresses of the hosts, of a family: 0 is IPv4.
    pub fn ends(&self, family: usize, on_link: bool) -> [IpAddr; 2] {
        [1, 2].map(|number| if on_link { addresses(9, number) } else { addresses(number, 1) }[family])
    }

    /// Pings from one host to the other, until each was answered with its data.
    pub fn ping(&mut self, from: usize, ends: [IpAddr; 2], count: u16) {
        for sequence in 0..count {
            let data: Vec<u8> = (0..usize::from(sequence) * 37 % 1000).map(|place| place as u8).collect();
            self.hosts[from].send_ping(ends[from], ends[1 - from], sequence, &data);
            self.until("an answer", |rig| match rig.hosts[from].answered() {
                Some(answer) => {
                    assert_eq!(answer, (sequence, data.clone()));
                    true
                }
                None => false,
            });
        }
    }

    /// A TCP connection from left to right, over which each sends `bytes` and closes.
    pub fn stream(
        &mut self,
        ends: [IpAddr; 2],
        local_port: u16,
        bytes: usize,
        mut beside: impl FnMut(&mut Rig, usize),
    ) {
        let pattern = |side: usize, place: usize| (place * 31 + place / 256 + side * 7) as u8;
        let (mut sent, mut received) = ([0; 2], [0; 2]);
        self.hosts[1].listen(0, PORT);
        self.hosts[0].connect(0, ends[1], PORT, local_port);
        self.until("both streams", |rig| {
            for side in [0, 1] {
                let mut chunk = vec![0; 8192];
                let socket = rig.hosts[side].tcp(0);
                if socket.can_send() && sent[side] < bytes {
                    let count = chunk.len().min(bytes - sent[side]);
                    let data: Vec<u8> = (0..count).map(|index| pattern(side, sent[side] + index)).collect();
                    sent[side] += socket.send_slice(&data).expect("sends");
                }
                if socket.can_recv() {
                    let count = socket.recv_slice(&mut chunk).expect("receives");
                    for (index, byte) in chunk[..count].iter().enumerate() {
                        assert_eq!(
                            *byte,
                            pattern(1 - side, received[side] + index),
                            "byte {}",
                            received[side] + index
                        );
                    }
                    received[side] += count;
                }
                if sent[side] == bytes && received[side] == bytes {
                    socket.close();
                }
            }
            beside(rig, received[0] + received[1]);
            received == [bytes; 2]
        });
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("a name in UTF-8").to_owned()
}
