//! A host behind a gateway: smoltcp's stack on a datagram socket. It remembers the IP packets it sent and got.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{icmp, tcp};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr,
};

/// So that an outer header, UDP, ESP and an ICV find room in 1500 octets.
const FRAME_BYTES: usize = 1414;
const BUFFER_BYTES: usize = 65_535;
const IDENTIFIER: u16 = 0x6372;

/// The socket that is a host's network interface.
pub struct Port {
    socket: UnixDatagram,
    remote: PathBuf,
    pub sent: Rc<RefCell<Vec<Vec<u8>>>>,
    pub received: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Port {
    pub fn new(local: &Path, remote: &Path) -> Port {
        let socket = UnixDatagram::bind(local).expect("a socket");
        socket.set_nonblocking(true).expect("a mode");
        Port { socket, remote: remote.to_owned(), sent: Rc::default(), received: Rc::default() }
    }

    pub fn get(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 20_000];
        let length = self.socket.recv(&mut frame).ok()?;
        frame.truncate(length);
        Some(frame)
    }

    /// Waits while the gateway's queue is full; a gateway that is not there loses the frame.
    pub fn put(&self, frame: &[u8]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = self.socket.send_to(frame, &self.remote) {
            if error.kind() != std::io::ErrorKind::WouldBlock {
                return;
            }
            assert!(Instant::now() < deadline, "the gateway does not read");
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

pub struct Incoming(Vec<u8>);
pub struct Outgoing<'a>(&'a Port);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_frame: F) -> R {
        use_frame(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        self.0.sent.borrow_mut().extend(ip_packet(&frame));
        self.0.put(&frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.get()?;
        self.received.borrow_mut().extend(ip_packet(&frame));
        Some((Incoming(frame), Outgoing(self)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}

/// A frame's IP packet, without neighbour discovery and without padding.
pub fn ip_packet(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = &frame[14..];
    let length = match frame[12..14] {
        [0x08, 0x00] => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        [0x86, 0xdd] if packet[6] != 58 || packet[40] >= 128 && packet[40] < 130 => {
            40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
        }
        _ => return None,
    };
    Some(packet[..length].to_vec())
}

pub struct Host {
    pub port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: [SocketHandle; 2],
    icmp: SocketHandle,
    started: Instant,
}

impl Host {
    /// With an address of each family, and routers of each: `None` is on the link.
    pub fn new(
        mut port: Port,
        number: u8,
        addresses: [IpAddr; 2],
        prefixes: [u8; 2],
        routers: [Option<IpAddr>; 2],
    ) -> Host {
        let mac = EthernetAddress([2, 0xaa, 0, 0, 0, number]);
        let started = Instant::now();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ethernet(mac)), &mut port, StackInstant::ZERO);
        interface.update_ip_addrs(|own| {
            for (address, prefix) in addresses.into_iter().zip(prefixes) {
                own.push(IpCidr::new(address.into(), prefix)).expect("there is room for two");
            }
        });
        for router in routers.into_iter().flatten() {
            match router {
                IpAddr::V4(router) => drop(interface.routes_mut().add_default_ipv4_route(router)),
                IpAddr::V6(router) => drop(interface.routes_mut().add_default_ipv6_route(router)),
            }
        }
        let mut sockets = SocketSet::new(vec![]);
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let tcp = [0, 1].map(|_| sockets.add(tcp::Socket::new(buffer(), buffer())));
        let metadata = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 64], vec![0; 16_384]);
        let mut socket = icmp::Socket::new(metadata(), metadata());
        socket.bind(icmp::Endpoint::Ident(IDENTIFIER)).expect("binds");
        let icmp = sockets.add(socket);
        Host { port, interface, sockets, tcp, icmp, started }
    }

    pub fn poll(&mut self) {
        let now = StackInstant::from_micros(self.started.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.port, &mut self.sockets);
    }

    /// One of its two sockets.
    pub fn tcp(&mut self, number: usize) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp[number])
    }

    /// A new connection; what was is forgotten.
    pub fn connect(&mut self, number: usize, to: IpAddr, port: u16, local_port: u16) {
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp[number]);
        socket.abort();
        socket.connect(self.interface.context(), (IpAddress::from(to), port), local_port).expect("connects");
    }

    pub fn listen(&mut self, number: usize, port: u16) {
        self.tcp(number).abort();
        self.tcp(number).listen(port).expect("listens");
    }

    pub fn send_ping(&mut self, from: IpAddr, to: IpAddr, sequence: u16, data: &[u8]) {
        let socket = self.sockets.get_mut::<icmp::Socket>(self.icmp);
        let checksums = ChecksumCapabilities::default();
        match (from, to) {
            (_, IpAddr::V4(_)) => {
                let echo = Icmpv4Repr::EchoRequest { ident: IDENTIFIER, seq_no: sequence, data };
                let buffer = socket.send(echo.buffer_len(), to.into()).expect("there is room");
                echo.emit(&mut Icmpv4Packet::new_unchecked(buffer), &checksums);
            }
            (IpAddr::V6(from), IpAddr::V6(remote)) => {
                let echo = Icmpv6Repr::EchoRequest { ident: IDENTIFIER, seq_no: sequence, data };
                let buffer = socket.send(echo.buffer_len(), to.into()).expect("there is room");
                echo.emit(&from, &remote, &mut Icmpv6Packet::new_unchecked(buffer), &checksums);
            }
            _ => panic!("addresses of two families"),
        }
    }

    /// Sequence number and data of an answer; requests come to the socket too.
    pub fn answered(&mut self) -> Option<(u16, Vec<u8>)> {
        let socket = self.sockets.get_mut::<icmp::Socket>(self.icmp);
        while let Ok((message, _)) = socket.recv() {
            // Both families have type, code, checksum, identifier and sequence number alike.
            if matches!(message[0], 0 | 129) {
                return Some((u16::from_be_bytes([message[6], message[7]]), message[8..].to_vec()));
            }
        }
        None
    }
}

/// Addresses of a number in each family, behind gateway `side`.
pub fn addresses(side: u8, number: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, side, 0, number).into(),
        Ipv6Addr::new(0xfd00, u16::from(side), 0, 0, 0, 0, 0, u16::from(number)).into(),
    ]
}
