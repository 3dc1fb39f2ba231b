//! A server in a process of its own, and drivers on it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cryptonic_driver::backend::vfio_user::VfioUser;
use cryptonic_driver::{
    Nic, OpenOptions, Protection, QueueError, QueuePair, QueuePairOptions, Time, TransmitPacket,
};

/// Nothing takes longer, on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn cryptonic() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cryptonic"))
}

/// `cryptonic serve`; killed when dropped.
pub struct Server {
    pub child: Child,
    pub directory: tempfile::TempDir,
}

impl Server {
    /// A server with more arguments than its socket.
    pub fn start(arguments: &[&str]) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        Server::start_in(directory, arguments)
    }

    pub fn start_in(directory: tempfile::TempDir, arguments: &[&str]) -> Server {
        let notes = File::create(directory.path().join("notes")).expect("a file");
        let child = cryptonic()
            .args(["serve", "--json", "--socket"])
            .arg(directory.path().join("nic"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(notes)
            .spawn()
            .expect("the command line runs");
        let mut server = Server { child, directory };
        let started = Instant::now();
        while !server.notes().contains("serving at") {
            assert!(started.elapsed() < PATIENCE, "it serves: {}", server.notes());
            assert!(server.child.try_wait().expect("asked").is_none(), "it serves: {}", server.notes());
            std::thread::sleep(Duration::from_millis(2));
        }
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("nic")
    }

    /// What it wrote to standard error.
    pub fn notes(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("notes")).unwrap_or_default()
    }

    /// As an argument of `--device`.
    pub fn device(&self) -> String {
        format!("vfio-user:{}", self.socket().display())
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it lives").count()
    }

    /// How many mappings it has of files with this in their name.
    pub fn mappings_of(&self, name: &str) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("it lives");
        maps.lines().filter(|line| line.contains(name)).count()
    }

    pub fn attach(&self) -> VfioUser {
        VfioUser::attach(&self.socket(), PATIENCE).expect("it serves")
    }

    /// A driver and a queue pair on it, with MAC loopback.
    pub fn open(&self) -> (Nic, QueuePair) {
        let mut nic = Nic::open(Box::new(self.attach()), patient()).expect("open");
        nic.set_mac_loopback(true).expect("MAC loopback");
        let queue = queue_pair(&mut nic);
        (nic, queue)
    }

    /// Interrupts it and waits for its end.
    pub fn interrupt(mut self) -> Output {
        let killed = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
        let mut stdout = Vec::new();
        let pipe = self.child.stdout.as_mut().expect("it is piped");
        pipe.read_to_end(&mut stdout).expect("its report");
        let status = self.child.wait().expect("its end");
        Output { status, stdout, stderr: self.notes().into_bytes() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Deadlines of a driver beside other work.
pub fn patient() -> OpenOptions {
    let long = Time::from_milliseconds(30_000);
    OpenOptions { ready_timeout: long, command_timeout: long, ..OpenOptions::default() }
}

pub fn queue_pair(nic: &mut Nic) -> QueuePair {
    let options = QueuePairOptions { stride: 64, clear_allowed: true, ..Default::default() };
    nic.create_queue_pair(options).expect("a queue pair")
}

pub fn send(queue: &mut QueuePair, frame: &[u8], protection: Protection) -> Result<(), QueueError> {
    let mut done = vec![];
    queue.completed(&mut done)?;
    let Some(mut buffer) = queue.take_buffer() else {
        queue.relax();
        return Ok(());
    };
    queue.fill(&mut buffer, frame)?;
    queue.transmit(&mut vec![TransmitPacket::new(buffer, protection, 7)]).map(drop)
}

/// A UDP packet over IPv4, made by an independent library.
pub fn udp_frame(payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678);
    let payload: Vec<u8> = (0..payload).map(|index| index as u8).collect();
    let mut frame = vec![];
    builder.write(&mut frame, &payload).expect("a vector takes all");
    frame
}
