//! Two NICs with drivers, what is heard on their lines, and frames to send.

use std::cell::RefCell;
use std::rc::Rc;

use cryptonic_driver::{
    Cipher, DfPolicy, Direction, KeyLedger, Mode, Nic, OpenOptions, OuterHeader, Protection, PspDeviceKeys,
    QueuePair, QueuePairOptions, Received, SaConfiguration, SecretKey, Status, Time, TransmitPacket,
    Transmitted,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

/// Stands in every payload that must not be seen on a line.
pub const MARKER: &[u8; 16] = b"PLAINTEXT-MARKER";

/// How many cases a test runs: `short`, or many times that with `CRYPTONIC_LONG=1`.
pub fn cases(short: u64) -> u64 {
    if std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1") { short * 50 } else { short }
}

/// A seeded source of choices (splitmix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6a09_e667_f3bc_c908)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `end`, which is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    pub fn one_in(&mut self, end: u64) -> bool {
        self.below(end) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.word() as u8).collect()
    }
}

/// What was heard on a line.
#[derive(Clone, Default)]
pub struct Wire(Rc<RefCell<Vec<Vec<u8>>>>);

impl Wire {
    pub fn on(world: &World, nic: NicId) -> Wire {
        let wire = Wire::default();
        let heard = wire.clone();
        world.tap(nic, Box::new(move |_, _, frame| heard.0.borrow_mut().push(frame.to_vec())));
        wire
    }

    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.0.borrow().clone()
    }

    pub fn take(&self) -> Vec<Vec<u8>> {
        self.0.take()
    }

    /// Whether anything of the marker went over the line: half of it is enough.
    pub fn shows_marker(&self) -> bool {
        self.0.borrow().iter().any(|frame| shows(frame, &MARKER[..8]) || shows(frame, &MARKER[8..]))
    }
}

pub fn shows(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// One end of a cable.
pub struct End {
    pub id: NicId,
    pub nic: Nic,
    pub queue: QueuePair,
    pub ledger: KeyLedger,
    pub wire: Wire,
}

/// With stride 64 and clear packets refused.
pub fn guarded() -> QueuePairOptions {
    QueuePairOptions { stride: 64, ..Default::default() }
}

impl End {
    pub fn new(world: &World, parameters: &Parameters) -> End {
        End::with_queue(world, parameters, guarded())
    }

    pub fn with_queue(world: &World, parameters: &Parameters, queue: QueuePairOptions) -> End {
        let id = world.add_nic(parameters).expect("parameters in range");
        let ledger = KeyLedger::new();
        let wire = Wire::on(world, id);
        let mut nic = open(world, id, &ledger);
        let queue = nic.create_queue_pair(queue).expect("queue pair");
        End { id, nic, queue, ledger, wire }
    }

    /// Closes the device and opens it anew, which resets it. What the driver knows of keys goes on.
    pub fn reopen(self, world: &World) -> End {
        let End { id, nic, queue, ledger, wire } = self;
        queue.close().expect("close queue");
        nic.close().expect("close");
        let mut nic = open(world, id, &ledger);
        let queue = nic.create_queue_pair(guarded()).expect("queue pair");
        End { id, nic, queue, ledger, wire }
    }

    /// Sends one frame and gives its end.
    pub fn send(&mut self, frame: &[u8], protection: Protection) -> Transmitted {
        send_on(&mut self.queue, frame, protection)
    }

    /// What arrives within 20 µs, with its bytes; the buffers go back.
    pub fn receive(&mut self) -> Vec<(Heard, Vec<u8>)> {
        let mut frames = vec![];
        let deadline = self.queue.time() + Time::from_microseconds(20);
        while self.queue.time() < deadline {
            let mut received: Vec<Received> = vec![];
            self.queue.receive(&mut received, 64).expect("receive");
            for one in received {
                let mut bytes = vec![0; one.length()];
                self.queue.read(&one, 0, &mut bytes).expect("in range");
                let heard = Heard {
                    status: one.status(),
                    protocol: one.protocol(),
                    sequence: one.sequence(),
                    spi: one.spi(),
                };
                self.queue.return_buffer(one).expect("goes back");
                frames.push((heard, bytes));
            }
            self.queue.relax();
        }
        frames
    }
}

/// What a completion says of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub status: Status,
    pub protocol: cryptonic_driver::ReceivedProtocol,
    pub sequence: u64,
    pub spi: u32,
}

pub fn open(world: &World, id: NicId, ledger: &KeyLedger) -> Nic {
    let options = OpenOptions { key_ledger: ledger.clone(), ..OpenOptions::default() };
    Nic::open(world.host(id), options).expect("open")
}

pub fn put_on(queue: &mut QueuePair, frame: &[u8], protection: Protection, cookie: u64) {
    let mut buffer = queue.take_buffer().expect("a buffer");
    queue.fill(&mut buffer, frame).expect("fits");
    let mut packet = TransmitPacket::new(buffer, protection, cookie);
    packet.report = true;
    assert_eq!(queue.transmit(&mut vec![packet]).expect("transmit"), 1);
}

pub fn drain(queue: &mut QueuePair) -> Vec<Transmitted> {
    let mut done = vec![];
    queue.drain(queue.time() + Time::from_milliseconds(1), &mut done).expect("drains");
    done
}

pub fn send_on(queue: &mut QueuePair, frame: &[u8], protection: Protection) -> Transmitted {
    drain(queue);
    put_on(queue, frame, protection, 7);
    let done = drain(queue);
    assert_eq!(done.len(), 1);
    done[0]
}

/// Sends frames as fast as the ring takes them and gives the end of each, in their order.
pub fn send_all(queue: &mut QueuePair, frames: &[Vec<u8>], protection: Protection) -> Vec<Transmitted> {
    let (mut batch, mut done) = (vec![], vec![]);
    let mut frames = frames.iter();
    loop {
        while batch.len() < 64
            && let Some(frame) = frames.next()
        {
            batch.push(packet_of(queue, frame, protection));
        }
        if batch.is_empty() {
            break;
        }
        while queue.transmit_space() == 0 {
            queue.relax();
            queue.completed(&mut done).expect("completed");
        }
        queue.transmit(&mut batch).expect("transmit");
        queue.completed(&mut done).expect("completed");
    }
    queue.drain(queue.time() + Time::from_milliseconds(10), &mut done).expect("drains");
    done
}

/// A packet with a completion of its own.
pub fn packet_of(queue: &mut QueuePair, frame: &[u8], protection: Protection) -> TransmitPacket {
    let mut buffer = queue.take_buffer().expect("a buffer");
    queue.fill(&mut buffer, frame).expect("fits");
    TransmitPacket { report: true, ..TransmitPacket::new(buffer, protection, 7) }
}

/// Bytes of a frame's IP packet, by its own header.
pub fn ip_bytes(frame: &[u8]) -> u64 {
    let field = |at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if frame[14] >> 4 == 4 { field(16) } else { 40 + field(18) }
}

/// Two NICs on one cable.
pub fn pair() -> (World, End, End) {
    pair_with(&Parameters::default())
}

pub fn pair_with(parameters: &Parameters) -> (World, End, End) {
    let world = World::new(1);
    let (a, b) = (End::new(&world, parameters), End::new(&world, parameters));
    world.connect(a.id, b.id, Time::from_nanoseconds(10));
    (world, a, b)
}

/// Two NICs that nothing joins: the test is the cable.
pub fn apart() -> (World, End, End) {
    let world = World::new(1);
    let parameters = Parameters::default();
    let (a, b) = (End::new(&world, &parameters), End::new(&world, &parameters));
    (world, a, b)
}

/// A UDP packet over IPv4 of a payload, by an independent library.
pub fn udp(payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678);
    built(|frame| builder.write(frame, payload).expect("a vector takes all"))
}

/// A TCP packet over IPv6 of a payload.
pub fn tcp6(payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv6([0xfd; 16], [0xfc; 16], 64)
        .tcp(1234, 5678, 1, 1024);
    built(|frame| builder.write(frame, payload).expect("a vector takes all"))
}

/// A TCP packet over IPv4 with so many bytes of the marker.
pub fn tcp(bytes: usize) -> Vec<u8> {
    let mut frame = vec![];
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .tcp(1234, 5678, 1, 1024)
        .write(&mut frame, &marked(bytes))
        .expect("a vector takes all");
    frame
}

fn built(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = vec![];
    write(&mut frame);
    frame
}

/// The marker, over and over.
pub fn marked(bytes: usize) -> Vec<u8> {
    MARKER.iter().copied().cycle().take(bytes).collect()
}

/// An ESP SA. The key is the byte `key` 16 times.
pub fn esp(direction: Direction, mode: Mode, key: u8) -> SaConfiguration {
    SaConfiguration {
        replay_window: if direction == Direction::In { 64 } else { 0 },
        outer: (mode == Mode::Tunnel && direction == Direction::Out).then(|| OuterHeader {
            df: DfPolicy::Copy,
            ..OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
        }),
        ..SaConfiguration::new(
            direction,
            mode,
            Cipher::AesGcm128,
            SecretKey::new(&[key; 16]).expect("16 bytes"),
            [1, 2, 3, 4],
            0x1000 + u32::from(key),
        )
    }
}

/// An ESP SA of a test with many: number, key and SPI stand for each other.
pub fn esp_number(direction: Direction, mode: Mode, number: u32) -> SaConfiguration {
    SaConfiguration { key: key_number(number), spi: 0x1_0000 + number, ..esp(direction, mode, 0) }
}

/// A key of 16 bytes that no other number has.
pub fn key_number(number: u32) -> SecretKey {
    let mut chance = Chance::new(u64::from(number) | 1 << 40);
    let mut key = chance.bytes(16);
    key[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::new(&key).expect("16 bytes")
}

/// Device keys of a test.
pub fn device_keys() -> PspDeviceKeys {
    PspDeviceKeys::new(&[0x31; 32], &[0x32; 32])
}

/// Offset of the ESP header of an IPv4 frame without options, or `None` if it carries something else.
pub fn esp_offset(frame: &[u8]) -> Option<usize> {
    match (&frame[12..14], frame[14]) {
        ([0x08, 0x00], 0x45) if frame[23] == 50 => Some(34),
        ([0x86, 0xdd], _) if frame[20] == 50 => Some(54),
        _ => None,
    }
}

/// Offset of the PSP header of a frame to UDP port 1000, or `None`.
pub fn psp_offset(frame: &[u8]) -> Option<usize> {
    let udp = match (&frame[12..14], frame[14]) {
        ([0x08, 0x00], 0x45) if frame[23] == 17 => 34,
        ([0x86, 0xdd], _) if frame[20] == 17 => 54,
        _ => return None,
    };
    (frame[udp + 2..udp + 4] == 1000_u16.to_be_bytes()).then_some(udp + 8)
}

/// SPI and IV of a protected frame: what the nonce is made of, under the key that the SPI stands for.
pub fn spi_and_iv(frame: &[u8]) -> Option<(u32, u64)> {
    // ESP: SPI, sequence number, IV (RFC 4303 2, RFC 4106 3). PSP: four bytes, SPI, IV (PSP specification).
    let at = esp_offset(frame).or_else(|| psp_offset(frame).map(|offset| offset + 4))?;
    let iv = if esp_offset(frame).is_some() { at + 8 } else { at + 4 };
    Some((
        u32::from_be_bytes(frame[at..at + 4].try_into().expect("4 bytes")),
        u64::from_be_bytes(frame[iv..iv + 8].try_into().expect("8 bytes")),
    ))
}
