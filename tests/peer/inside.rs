//! What runs in the guest: a TCP echo, and a door to its shell, through which the test at the other end says what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

/// Ports of the two.
pub const ECHO: u16 = 7;
pub const SHELL: u16 = 9;
/// ESP in UDP (RFC 3948).
const ESP_PORT: u16 = 4500;
/// The command that ends it.
pub const END: &str = "end";

pub fn run() -> ExitCode {
    let _esp = open_esp_port();
    let echo = TcpListener::bind(("::", ECHO)).expect("the echo's port");
    let shell = TcpListener::bind(("::", SHELL)).expect("the shell's port");
    thread::spawn(move || {
        echo.incoming().flatten().for_each(|stream| drop(thread::spawn(move || send_back(stream))))
    });
    println!("STAGE inside: OK");
    for stream in shell.incoming().flatten() {
        let mut command = String::new();
        BufReader::new(&stream).read_line(&mut command).expect("a command");
        if command.trim() == END {
            // The other end is to hear of it before there is no network.
            drop(stream);
            thread::sleep(Duration::from_millis(300));
            break;
        }
        answer(stream, command.trim());
    }
    ExitCode::SUCCESS
}

fn send_back(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

/// What the command printed, and how it ended.
fn answer(mut stream: TcpStream, command: &str) {
    println!("$ {command}");
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    let text = [&output.stdout[..], &output.stderr].concat();
    print!("{}", String::from_utf8_lossy(&text));
    let code = output.status.code().unwrap_or(-1);
    let _ = stream.write_all(&text).and_then(|()| write!(stream, "code {code}"));
}

/// A socket whose packets the kernel takes for ESP (linux/udp.h: UDP_ENCAP, UDP_ENCAP_ESPINUDP).
fn open_esp_port() -> UdpSocket {
    const UDP_ENCAP: i32 = 100;
    const UDP_ENCAP_ESPINUDP: i32 = 2;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ESP_PORT)).expect("the port of ESP in UDP");
    let value = UDP_ENCAP_ESPINUDP;
    // SAFETY: the descriptor is open, and the option is one int, which lives through the call.
    let set = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_UDP, UDP_ENCAP, value, size_of::<i32>() as u32)
    };
    assert_eq!(set, 0, "the kernel takes ESP in UDP");
    socket
}
