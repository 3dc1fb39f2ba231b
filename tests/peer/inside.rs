//! What runs in the guest: a TCP echo, a door to its shell, through which the test at the other end says what to do, and a
//! stream of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

/// Ports of the two.
pub const ECHO: u16 = 7;
pub const SHELL: u16 = 9;
/// Where the host behind the gateway sends back what the guest streams to it.
pub const HOST_ECHO: u16 = 17;
/// ESP in UDP (RFC 3948).
const ESP_PORT: u16 = 4500;
/// The command that ends it.
pub const END: &str = "end";

pub fn run() -> ExitCode {
    let _esp = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(open_esp_port);
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

/// Opens a connection from an own address, and streams so many bytes to the far end and back.
pub fn stream(from: &str, to: &str, bytes: &str) -> ExitCode {
    let [from, to]: [IpAddr; 2] = [from, to].map(|address| address.parse().expect("an address"));
    let bytes: usize = bytes.parse().expect("a number");
    let socket = open(from, SocketType::STREAM);
    bind(&socket, &SocketAddr::new(from, 0)).expect("an address of the guest");
    connect(&socket, &SocketAddr::new(to, HOST_ECHO)).expect("the host answers");
    let mut outgoing = TcpStream::from(socket);
    let mut incoming = outgoing.try_clone().expect("the same socket");
    let pattern = move |place: usize| (place * 13 + place / 251) as u8;
    let sender = thread::spawn(move || {
        outgoing.write_all(&(0..bytes).map(pattern).collect::<Vec<u8>>()).expect("the host takes all");
    });
    let mut back = vec![0; bytes];
    incoming.read_exact(&mut back).expect("the host sends all back");
    sender.join().expect("no panic");
    let right = back.iter().enumerate().all(|(place, byte)| *byte == pattern(place));
    println!("the path takes {}", path_mtu(&incoming, to.is_ipv6()));
    println!("{bytes} bytes came back, {}", if right { "as they were" } else { "changed" });
    ExitCode::from(u8::from(!right))
}

/// Sends a packet with no hop left behind the next router, and says whether anybody tells so.
pub fn hop(from: &str, to: &str) -> ExitCode {
    let [from, to]: [IpAddr; 2] = [from, to].map(|address| address.parse().expect("an address"));
    let socket = open(from, SocketType::DGRAM);
    bind(&socket, &SocketAddr::new(from, 0)).expect("an address of the guest");
    // linux/in.h, linux/in6.h: errors that may pass are told too.
    let (level, hops, errors) = match to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_RECVERR),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_RECVERR),
    };
    set(&socket, level, hops, 1);
    set(&socket, level, errors, 1);
    connect(&socket, &SocketAddr::new(to, HOST_ECHO)).expect("there is a route");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket.send(b"one hop").expect("it leaves");
    let error = socket.recv(&mut [0; 9]).expect_err("nobody answers");
    println!("the answer is: {error}");
    ExitCode::from(u8::from(error.raw_os_error() != Some(libc::EHOSTUNREACH)))
}

/// What a socket's packets may be, as far as the kernel knows.
fn path_mtu(socket: &TcpStream, is_ipv6: bool) -> i32 {
    let (level, option) =
        if is_ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let mut mtu = 0_i32;
    let mut length = size_of::<i32>() as u32;
    // SAFETY: the descriptor is open, and the option is one int, which lives through the call as its length does.
    let got = unsafe {
        let value = (&raw mut mtu).cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, value, &raw mut length)
    };
    assert_eq!(got, 0, "the kernel tells");
    mtu
}

/// A socket whose packets the kernel takes for ESP (linux/udp.h: UDP_ENCAP, UDP_ENCAP_ESPINUDP), of the family of its packets.
fn open_esp_port(any: IpAddr) -> OwnedFd {
    const UDP_ENCAP: i32 = 100;
    const UDP_ENCAP_ESPINUDP: i32 = 2;
    let socket = open(any, SocketType::DGRAM);
    if any.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).expect("IPv4 has a socket of its own");
    }
    bind(&socket, &SocketAddr::new(any, ESP_PORT)).expect("the port of ESP in UDP");
    set(&socket, libc::IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP);
    socket
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) {
    // SAFETY: the descriptor is open, and the option is one int, which lives through the call.
    let set = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), level, option, value, size_of::<i32>() as u32)
    };
    assert_eq!(set, 0, "the kernel takes option {option}");
}

fn open(address: IpAddr, kind: SocketType) -> OwnedFd {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket(family, kind, None).expect("a socket")
}
