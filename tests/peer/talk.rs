//! A host of smoltcp behind the gateway, which talks with the guest.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{Host, Port, addresses};
use crate::inside::{ECHO, END, HOST_ECHO, SHELL};
use crate::rig::{Gateway, text};
use crate::rows::guest;

/// The guest is emulated, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Talk {
    folder: tempfile::TempDir,
    gateway: Option<Gateway>,
    host: Host,
    local_port: u16,
    /// What the guest has answered so far to the command that is under way.
    answer: Vec<u8>,
    /// Pings that were sent before the guest answered one.
    pub first_pings: u64,
}

impl Talk {
    pub fn start(file: &str) -> Talk {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("sa.toml"), file).expect("a file");
        let port = Port::new(&path("host"), &path("inside"));
        let host = Host::new(port, 1, addresses(1, 1), [24, 64], addresses(1, 254).map(Some));
        let mut talk =
            Talk { folder, gateway: None, host, local_port: 40_000, answer: Vec::new(), first_pings: 0 };
        talk.start_gateway(&[]);
        talk
    }

    fn start_gateway(&mut self, more: &[&str]) {
        let [gateway_4, gateway_6] = addresses(1, 254);
        let mut arguments = vec![
            "--sa".to_owned(),
            self.path("sa.toml"),
            "--inside".to_owned(),
            format!("dgram:{},{}", self.path("inside"), self.path("host")),
            "--outside".to_owned(),
            format!("dgram:{},{}", self.path("outside"), self.path("guest")),
            format!("--inside-gateway={gateway_4}"),
            format!("--inside-gateway={gateway_6}"),
            "--sa-out".to_owned(),
            self.path("sa-out.toml"),
        ];
        arguments.extend(more.iter().map(|&one| one.to_owned()));
        self.gateway = Some(Gateway::start(&arguments));
    }

    /// Another gateway in the place of this one, which goes on with its numbers. Gives the report of the first.
    pub fn start_again(&mut self, more: &[&str]) -> Value {
        let report = self.gateway.take().expect("it runs").end();
        fs::rename(self.path("sa-out.toml"), self.path("sa.toml")).expect("renames");
        self.start_gateway(more);
        report
    }

    pub fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Talk) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.host.poll();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// The host, and the guest by a row.
    pub fn ends(number: usize, family: usize) -> [IpAddr; 2] {
        [addresses(1, 1)[family], guest(number, family).parse().expect("an address")]
    }

    /// Until the guest answers a ping by the first row.
    pub fn await_guest(&mut self) {
        let ends = Talk::ends(0, 0);
        let mut last = Instant::now();
        self.until("the guest", |talk| {
            if last.elapsed() > Duration::from_millis(500) {
                last = Instant::now();
                talk.first_pings += 1;
                talk.host.send_ping(ends[0], ends[1], 0, b"there?");
            }
            talk.host.answered().is_some()
        });
        // Answers to the others are on their way.
        self.command("true");
        while self.host.answered().is_some() {}
    }

    pub fn ping(&mut self, number: usize, family: usize, count: u16) {
        let ends = Talk::ends(number, family);
        for sequence in 0..count {
            let data = vec![sequence as u8; 56 + 400 * usize::from(sequence)];
            // No answer to one of before is the answer to this.
            let sequence = sequence + 100 * (number as u16 + 1);
            self.host.send_ping(ends[0], ends[1], sequence, &data);
            self.until("an answer", |talk| match talk.host.answered() {
                Some(answer) => {
                    assert_eq!(answer, (sequence, data.clone()));
                    true
                }
                None => false,
            });
        }
    }

    pub fn ping_from_guest(&mut self, number: usize, family: usize, count: usize) {
        let [host, guest] = Talk::ends(number, family);
        let version = if family == 0 { "-4" } else { "-6" };
        self.command(&format!("ping {version} -c {count} -W 20 -s 800 -I {guest} {host}"));
    }

    /// Streams to the guest's echo and back.
    pub fn stream(
        &mut self,
        number: usize,
        family: usize,
        bytes: usize,
        mut beside: impl FnMut(&mut Talk, usize),
    ) {
        let pattern = |place: usize| (place * 29 + place / 253 + number) as u8;
        let (mut sent, mut received) = (0, 0);
        self.connect(0, Talk::ends(number, family)[1], ECHO);
        self.until("the stream", |talk| {
            let mut chunk = [0; 8192];
            let socket = talk.host.tcp(0);
            if socket.can_send() && sent < bytes {
                let data: Vec<u8> = (sent..bytes.min(sent + chunk.len())).map(pattern).collect();
                sent += socket.send_slice(&data).expect("sends");
            }
            if socket.can_recv() {
                let count = socket.recv_slice(&mut chunk).expect("receives");
                let right =
                    chunk[..count].iter().enumerate().all(|(index, byte)| *byte == pattern(received + index));
                assert!(right, "other bytes come back near {received}");
                received += count;
            }
            beside(talk, received);
            talk.take_answer();
            received == bytes
        });
        self.host.tcp(0).close();
    }

    /// Sends back what the guest streams over a connection that it opens.
    /// Gives what the guest's program says.
    pub fn stream_from_guest(&mut self, number: usize, family: usize, bytes: usize) -> String {
        let [host, guest] = Talk::ends(number, family);
        self.host.listen(0, HOST_ECHO);
        self.begin_command(&format!("guest stream {guest} {host} {bytes}"));
        let mut waiting: Vec<u8> = Vec::new();
        self.until("the guest's stream", |talk| {
            talk.take_answer();
            let mut chunk = [0; 8192];
            let socket = talk.host.tcp(0);
            if socket.can_recv() {
                let count = socket.recv_slice(&mut chunk).expect("receives");
                waiting.extend(&chunk[..count]);
            }
            if socket.can_send() {
                let count = socket.send_slice(&waiting).expect("sends");
                waiting.drain(..count);
            }
            !talk.host.tcp(1).may_recv()
        });
        self.host.tcp(0).close();
        let told = self.end_command();
        assert!(told.contains(&format!("{bytes} bytes came back, as they were")), "{told}");
        told
    }

    /// The hops that packets from an address of the guest had left.
    pub fn hops(&mut self, guest: IpAddr) -> BTreeSet<u8> {
        let received = self.host.port.received.borrow();
        let hops = |packet: &Vec<u8>| match guest {
            IpAddr::V4(guest) => (packet[12..16] == guest.octets()).then_some(packet[8]),
            IpAddr::V6(guest) => (packet[8..24] == guest.octets()).then_some(packet[7]),
        };
        received.iter().filter_map(hops).collect()
    }

    fn connect(&mut self, socket: usize, to: IpAddr, port: u16) {
        self.local_port += 1;
        self.host.connect(socket, to, port, self.local_port);
    }

    /// Has the guest's shell do something; what it prints.
    pub fn command(&mut self, command: &str) -> String {
        self.begin_command(command);
        self.end_command()
    }

    pub fn begin_command(&mut self, command: &str) {
        self.answer.clear();
        self.connect(1, Talk::ends(0, 0)[1], SHELL);
        let line = format!("{command}\n");
        let mut last = Instant::now();
        self.until("the guest's shell", |talk| {
            // It may not be there yet.
            if !talk.host.tcp(1).is_open() && last.elapsed() > Duration::from_millis(200) {
                last = Instant::now();
                talk.connect(1, Talk::ends(0, 0)[1], SHELL);
            }
            talk.host.tcp(1).can_send()
        });
        assert_eq!(self.host.tcp(1).send_slice(line.as_bytes()), Ok(line.len()));
    }

    pub fn end_command(&mut self) -> String {
        self.until("the command's end", |talk| {
            talk.take_answer();
            !talk.host.tcp(1).may_recv()
        });
        self.host.tcp(1).close();
        let answer = String::from_utf8_lossy(&self.answer).into_owned();
        let (printed, code) = answer.rsplit_once("code ").expect("the guest tells the end");
        assert_eq!(code, "0", "{printed}");
        printed.to_owned()
    }

    fn take_answer(&mut self) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.host.tcp(1).recv_slice(&mut chunk) {
            self.answer.extend(&chunk[..count]);
        }
    }

    /// Has the gateway read another file.
    pub fn change(&mut self, file: &str, says: &str) {
        fs::write(self.path("sa.toml"), file).expect("a file");
        let gateway = self.gateway.as_ref().expect("it runs");
        gateway.signal("HUP");
        let line = gateway.await_line("SAs");
        assert!(line.ends_with(says), "{line}");
    }

    pub fn end_guest(&mut self) {
        if self.gateway.is_some() {
            self.begin_command(END);
            self.until("the end", |talk| !talk.host.tcp(1).may_recv());
        }
    }

    /// The gateway's report.
    pub fn end(&mut self) -> Value {
        // The guest ends first: it needs the gateway to be told so.
        self.end_guest();
        self.gateway.take().expect("it runs").end()
    }
}
