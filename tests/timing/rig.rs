//! Two NICs joined by a cable, their drivers, and traffic from one to the other.

use std::cell::RefCell;
use std::rc::Rc;

use cryptonic_driver::{
    Cipher, DfPolicy, Direction, Mode, Nic, OpenOptions, OuterHeader, Protection, PspTransmit, QueuePair,
    QueuePairOptions, Received, SaConfiguration, SecretKey, Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

/// Cable between the NICs.
pub const CABLE: Time = Time::from_nanoseconds(10);

/// How packets are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Clear,
    EspTransport,
    EspTunnel,
    Psp,
}

/// One end of the cable.
pub struct End {
    pub id: NicId,
    pub nic: Nic,
    pub queue: QueuePair,
}

/// Frames on the line, with their times.
pub type Line = Rc<RefCell<Vec<(Time, Vec<u8>)>>>;

pub struct Rig {
    pub world: World,
    pub a: End,
    pub b: End,
}

/// A host whose own work takes no time, so that the NIC alone is measured.
pub fn with_idle_hosts(mut parameters: Parameters) -> Parameters {
    parameters.host.burst_ns = 0;
    parameters.host.packet_ns = 0.0;
    parameters.host.register_write_ns = 0;
    parameters.host.poll_ns = 50;
    parameters
}

impl End {
    pub fn open(world: &World, id: NicId, stride: u32) -> End {
        let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("open");
        let options = QueuePairOptions {
            stride,
            clear_allowed: true,
            transmit_slots: 1024,
            receive_slots: 1024,
            ..Default::default()
        };
        let queue = nic.create_queue_pair(options).expect("queue pair");
        End { id, nic, queue }
    }

    /// Sends what `frames` holds, in batches with a doorbell each.
    pub fn send(&mut self, frames: &[Vec<u8>], protection: Protection) {
        let mut batch: Vec<_> = frames
            .iter()
            .map(|frame| {
                let mut buffer = self.queue.take_buffer().expect("twice as many buffers as slots");
                self.queue.fill(&mut buffer, frame).expect("fits");
                TransmitPacket::new(buffer, protection, 0)
            })
            .collect();
        assert_eq!(self.queue.transmit(&mut batch).expect("transmit"), frames.len());
    }

    /// Takes completions, so that ring space comes back.
    pub fn reap(&mut self) {
        let mut done = vec![];
        self.queue.completed(&mut done).expect("completions");
        assert!(done.iter().all(|one| one.status == Status::Ok), "{done:?}");
    }

    /// Takes what arrived and gives the buffers back. Gives how many.
    pub fn receive(&mut self, mut look: impl FnMut(&QueuePair, &Received)) -> usize {
        let mut received = vec![];
        self.queue.receive(&mut received, 256).expect("receive");
        received.iter().for_each(|one| look(&self.queue, one));
        let count = received.len();
        self.queue.return_buffers(&mut received).expect("go back");
        count
    }
}

impl Rig {
    pub fn new(parameters: &Parameters, stride: u32) -> Rig {
        Rig::with_two(parameters, parameters, stride)
    }

    pub fn with_two(sender: &Parameters, receiver: &Parameters, stride: u32) -> Rig {
        let world = World::new(1);
        let a = world.add_nic(sender).expect("in range");
        let b = world.add_nic(receiver).expect("in range");
        Rig::open(world, a, b, stride)
    }

    /// Joins two NICs of a world and opens them, `a` first.
    pub fn open(world: World, a: NicId, b: NicId, stride: u32) -> Rig {
        world.connect(a, b, CABLE);
        let a = End::open(&world, a, stride);
        let b = End::open(&world, b, stride);
        Rig { world, a, b }
    }

    /// What `a` protects packets with so that `b` opens them.
    pub fn protection(&mut self, kind: Kind) -> Protection {
        match kind {
            Kind::Clear => Protection::Clear,
            Kind::EspTransport | Kind::EspTunnel => {
                let mode = if kind == Kind::EspTunnel { Mode::Tunnel } else { Mode::Transport };
                self.b.nic.install_sa(sa(Direction::In, mode)).expect("install in");
                Protection::Sa(self.a.nic.install_sa(sa(Direction::Out, mode)).expect("install out"))
            }
            Kind::Psp => {
                self.b.nic.psp_rotate().expect("rotate");
                self.b.nic.psp_receive(0b11, 1000).expect("receive");
                let spi = self.b.nic.psp_allocate(0, 1).expect("allocate").remove(0);
                let key = self.a.queue.add_psp_key(0, spi.spi, &spi.key).expect("key");
                Protection::PspKey(PspTransmit::new(key))
            }
        }
    }

    /// Hears every frame of one end.
    pub fn tap(&self, id: NicId) -> Line {
        let line = Line::default();
        let heard = line.clone();
        let hear = move |_, time, frame: &[u8]| heard.borrow_mut().push((time, frame.to_vec()));
        self.world.tap(id, Box::new(hear));
        line
    }

    /// Sends `count` copies of `frame` as fast as the rings take them, in batches of `batch`, and gives how many
    /// arrived whole when nothing moves any more.
    pub fn flood(&mut self, frame: &[u8], protection: Protection, count: usize, batch: usize) -> usize {
        let frames = vec![frame.to_vec(); batch];
        let (mut sent, mut arrived) = (0, 0);
        let mut bytes = vec![0; frame.len()];
        let mut receive = |b: &mut End| {
            let whole = |queue: &QueuePair, one: &Received| {
                assert_eq!((one.status(), one.length()), (Status::Ok, frame.len()));
                queue.read(one, 0, &mut bytes).expect("in range");
                assert_eq!(bytes, frame);
            };
            b.receive(whole)
        };
        while sent < count {
            self.a.reap();
            arrived += receive(&mut self.b);
            let next = batch.min(count - sent);
            if self.a.queue.transmit_space() < next {
                self.a.queue.relax();
                continue;
            }
            self.a.send(&frames[..next], protection);
            sent += next;
        }
        loop {
            let before = arrived;
            for _ in 0..8 {
                self.a.queue.relax();
                arrived += receive(&mut self.b);
            }
            if arrived == before {
                self.world.drain();
                arrived += receive(&mut self.b);
                self.a.reap();
                if arrived == before {
                    assert_eq!(self.a.queue.in_flight(), 0, "every descriptor was told");
                    return arrived;
                }
            }
        }
    }
}

/// A UDP packet over IPv4 in a frame of `size` bytes, FCS (which is not in memory) included. Made by an independent
/// library.
pub fn frame(size: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678);
    let payload: Vec<u8> = (0..size - 4 - 42).map(|index| index as u8).collect();
    let mut frame = vec![];
    builder.write(&mut frame, &payload).expect("a vector takes all");
    frame
}

/// Bytes of a frame of `size` with FCS on the line, without FCS, once it is protected: headers of RFC 4303 and of
/// the PSP specification, an ICV of 16 bytes.
pub fn protected_bytes(kind: Kind, size: usize) -> usize {
    let (frame, ip) = (size - 4, size - 4 - 14);
    let padded = |text: usize| (text + 2).next_multiple_of(4);
    match kind {
        Kind::Clear => frame,
        Kind::EspTransport => 14 + 20 + 16 + padded(ip - 20) + 16,
        Kind::EspTunnel => 14 + 20 + 16 + padded(ip) + 16,
        Kind::Psp => 14 + 20 + 8 + 16 + (ip - 20) + 16,
    }
}

/// Bytes that the lanes encrypt.
pub fn text_bytes(kind: Kind, size: usize) -> usize {
    match kind {
        Kind::Clear => 0,
        Kind::EspTransport | Kind::EspTunnel => protected_bytes(kind, size) - 14 - 20 - 16 - 16,
        Kind::Psp => size - 4 - 14 - 20,
    }
}

fn sa(direction: Direction, mode: Mode) -> SaConfiguration {
    let out = direction == Direction::Out;
    SaConfiguration {
        replay_window: if out { 0 } else { 64 },
        outer: (mode == Mode::Tunnel && out).then(|| OuterHeader {
            df: DfPolicy::Copy,
            ..OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
        }),
        ..SaConfiguration::new(
            direction,
            mode,
            Cipher::AesGcm128,
            SecretKey::new(&[if mode == Mode::Tunnel { 0x42 } else { 0x43 }; 16]).expect("16 bytes"),
            [1, 2, 3, 4],
            if mode == Mode::Tunnel { 0x1001 } else { 0x1002 },
        )
    }
}
