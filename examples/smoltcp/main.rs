//! A TCP/IP stack on the driver: smoltcp's `Device` over a queue pair and an SA for each direction. Two NICs of the
//! model are joined by a cable; a client sends to an echo server through ESP in transport mode and checks what comes
//! back. The queue pairs allow no clear packets, and nothing that no SA opened reaches the stack.
//!
//! ```text
//! cargo run --release --example smoltcp [BYTES]
//! ```

mod port;

use std::error::Error;

use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OpenOptions, QueuePairOptions, SaConfiguration, SaHandle, SecretKey, Time,
};
use cryptonic_hwmodel::{Parameters, World};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address};

use port::Port;

const BUFFERS: usize = 65_535;

/// One host: a NIC, its port, a stack with one socket.
struct Host {
    nic: Nic,
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
}

impl Host {
    /// Host `number` 0 or 1; each sends by the key of its number.
    fn new(mut nic: Nic, number: u8) -> Result<Host, Box<dyn Error>> {
        let queue = nic.create_queue_pair(QueuePairOptions::default())?;
        let mut sa = |direction, sender: u8| -> Result<SaHandle, Box<dyn Error>> {
            let key = SecretKey::new(&[0x40 + sender; 16]).ok_or("16 bytes are a key")?;
            let spi = 0x1000 + u32::from(sender);
            let transport = Mode::Transport;
            let sa = SaConfiguration::new(direction, transport, Cipher::AesGcm128, key, [sender; 4], spi);
            Ok(nic.install_sa(SaConfiguration { esn: true, ..sa })?)
        };
        let (protect, open) = (sa(Direction::Out, number)?, sa(Direction::In, 1 - number)?);
        let mut link = [2, 0, 0, 0, 0, 1 - number, 2, 0, 0, 0, 0, number, 0x08, 0x00];
        link[0] |= 2; // Locally administered.
        let mut port = Port { queue, protect, open, link, refused: 0 };
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut port, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let own = IpCidr::new(address(number).into(), 24);
            // There is room for two.
            let _ = addresses.push(own);
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFERS]);
        let mut sockets = SocketSet::new(vec![]);
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Ok(Host { nic, port, interface, sockets, tcp })
    }

    fn poll(&mut self) {
        let now = Instant::from_micros(self.nic.time().picoseconds() as i64 / 1_000_000);
        self.interface.poll(now, &mut self.port, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }
}

fn address(number: u8) -> Ipv4Address {
    Ipv4Address::new(10, 0, 0, 1 + number)
}

/// What an exchange came to.
#[derive(Debug)]
pub struct Exchanged {
    /// Bytes sent, and come back.
    pub bytes: usize,
    /// ESP packets that each host opened.
    pub opened: [u64; 2],
    /// Frames that no SA opened, and packets that were not protected.
    pub refused: u64,
    /// What it took of the model's time.
    pub time: Time,
}

/// Sends `bytes` to an echo server and back.
pub fn run(bytes: usize) -> Result<Exchanged, Box<dyn Error>> {
    let world = World::new(1);
    let ids = [world.add_nic(&Parameters::default())?, world.add_nic(&Parameters::default())?];
    world.connect(ids[0], ids[1], Time::from_nanoseconds(100));
    let open = |id| Nic::open(world.host(id), OpenOptions::default());
    let (mut client, mut server) = (Host::new(open(ids[0])?, 0)?, Host::new(open(ids[1])?, 1)?);
    server.socket().listen(7)?;
    let context = client.interface.context();
    client.sockets.get_mut::<tcp::Socket>(client.tcp).connect(context, (address(1), 7), 49_152)?;

    let pattern = |place: usize| (place * 31 + place / 256) as u8;
    let (mut sent, mut back) = (0, 0);
    let mut chunk = vec![0; 16 * 1024];
    let start = client.nic.time();
    let deadline = start + Time::from_milliseconds(60_000);
    while back < bytes {
        client.poll();
        server.poll();
        let socket = client.socket();
        if socket.can_send() && sent < bytes {
            let count = (bytes - sent).min(chunk.len());
            chunk.iter_mut().take(count).enumerate().for_each(|(index, byte)| *byte = pattern(sent + index));
            sent += socket.send_slice(chunk.get(..count).unwrap_or(&[]))?;
        }
        if socket.can_recv() {
            let count = socket.recv_slice(&mut chunk)?;
            let right =
                chunk.iter().take(count).enumerate().all(|(index, byte)| *byte == pattern(back + index));
            if !right {
                return Err(format!("other bytes came back than were sent, near {back}").into());
            }
            back += count;
        }
        let socket = server.socket();
        if socket.can_recv() && socket.can_send() {
            let room = (socket.send_capacity() - socket.send_queue()).min(chunk.len());
            let count = socket.recv_slice(chunk.get_mut(..room).unwrap_or(&mut []))?;
            socket.send_slice(chunk.get(..count).unwrap_or(&[]))?;
        }
        client.nic.relax();
        if client.nic.time() > deadline {
            return Err(format!("{back} of {bytes} bytes came back in a minute").into());
        }
    }
    let time = client.nic.time() - start;
    let mut opened = [0; 2];
    let mut refused = 0;
    for (host, opened) in [client, server].into_iter().zip(&mut opened) {
        let Host { mut nic, port, .. } = host;
        *opened = nic.query_sa(port.open)?.packets;
        refused += port.refused;
        port.queue.close()?;
        nic.close()?;
    }
    Ok(Exchanged { bytes: back, opened, refused, time })
}

#[allow(dead_code)] // The test of this example has its own.
fn main() -> Result<(), Box<dyn Error>> {
    let bytes = std::env::args().nth(1).map_or(Ok(1_000_000), |bytes| bytes.parse())?;
    let Exchanged { bytes, opened: [client, server], refused, time } = run(bytes)?;
    println!(
        "{bytes} bytes to the echo server and back in {} us of the model's time",
        time.picoseconds() / 1_000_000
    );
    println!("ESP packets opened: {server} by the server, {client} by the client; {refused} frames refused");
    Ok(())
}
