//! Shadow doorbells from driver to driver: the same traffic with doorbells in registers and in host memory, and a device
//! whose server sleeps.

use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OpenOptions, OuterHeader, Protection, PushPolicy, QueuePair,
    QueuePairOptions, SaConfiguration, SaHandle, SecretKey, Status, Time, TransmitPacket, Transmitted, Wake,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

struct End {
    id: NicId,
    nic: Nic,
    queue: QueuePair,
    out: SaHandle,
    heard: Vec<(Status, u64, Vec<u8>)>,
    done: Vec<Transmitted>,
}

fn parameters(shadow_doorbells: bool) -> Parameters {
    let mut parameters = Parameters::default();
    parameters.host.shadow_doorbells = shadow_doorbells;
    parameters
}

fn esp(direction: Direction, spi: u32) -> SaConfiguration {
    let key = SecretKey::new(&[(spi >> 12) as u8; 16]).expect("16 bytes");
    let out = direction == Direction::Out;
    SaConfiguration {
        replay_window: if out { 0 } else { 64 },
        outer: out.then(|| OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())),
        ..SaConfiguration::new(direction, Mode::Tunnel, Cipher::AesGcm128, key, [1, 2, 3, 4], spi)
    }
}

/// Two NICs on a cable, with an SA each way.
fn pair(parameters: &Parameters, options: &OpenOptions) -> (World, End, End) {
    let world = World::new(1);
    let ids = [(); 2].map(|()| world.add_nic(parameters).expect("in range"));
    world.connect(ids[0], ids[1], Time::from_nanoseconds(10));
    let end = |id: NicId, out: u32, r#in: u32| {
        let mut nic = Nic::open(world.host(id), options.clone()).expect("open");
        let options = QueuePairOptions {
            transmit_slots: 64,
            receive_slots: 128,
            stride: 64,
            clear_allowed: true,
            push: PushPolicy::WhenIdle,
            ..QueuePairOptions::new()
        };
        let queue = nic.create_queue_pair(options).expect("queue pair");
        let out = nic.install_sa(esp(Direction::Out, out)).expect("install");
        nic.install_sa(esp(Direction::In, r#in)).expect("install");
        End { id, nic, queue, out, heard: vec![], done: vec![] }
    };
    let (a, b) = (end(ids[0], 0x1001, 0x2001), end(ids[1], 0x2001, 0x1001));
    (world, a, b)
}

/// A UDP packet over IPv4, made by an independent library.
fn udp(number: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678);
    let payload: Vec<u8> = (0..number % 1300).map(|index| (index * 7 + number) as u8).collect();
    let mut frame = vec![];
    builder.write(&mut frame, &payload).expect("a vector takes all");
    frame
}

impl End {
    /// Sends frames of these numbers, every third in clear.
    fn send(&mut self, numbers: std::ops::Range<usize>) {
        let mut batch = vec![];
        for number in numbers {
            let mut buffer = self.queue.take_buffer().expect("a buffer");
            self.queue.fill(&mut buffer, &udp(number)).expect("fits");
            let protection =
                if number.is_multiple_of(3) { Protection::Clear } else { Protection::Sa(self.out) };
            batch.push(TransmitPacket::new(buffer, protection, number as u64));
        }
        while !batch.is_empty() {
            self.queue.transmit(&mut batch).expect("transmit");
            self.queue.completed(&mut self.done).expect("completed");
            self.queue.relax();
        }
    }

    fn receive(&mut self) {
        let mut received = vec![];
        self.queue.receive(&mut received, 64).expect("receive");
        for one in &received {
            let mut bytes = vec![0; one.length()];
            self.queue.read(one, 0, &mut bytes).expect("in range");
            self.heard.push((one.status(), one.sequence(), bytes));
        }
        self.queue.return_buffers(&mut received).expect("goes back");
    }
}

/// What traffic of both ends comes to: on the lines, received, completed, and doorbell registers written.
struct Outcome {
    lines: [Vec<Vec<u8>>; 2],
    heard: [Vec<(Status, u64, Vec<u8>)>; 2],
    ended: [usize; 2],
    doorbell_writes: u64,
}

const FRAMES: usize = 2_000;

/// Sends frames both ways, in bursts of 1 to 48, one end polled and the other slept for.
fn traffic(parameters: &Parameters, options: &OpenOptions) -> Outcome {
    let (world, mut a, mut b) = pair(parameters, options);
    let lines = [a.id, b.id].map(|id| {
        let line = std::rc::Rc::new(std::cell::RefCell::new(vec![]));
        let heard = line.clone();
        world.tap(id, Box::new(move |_, _, frame| heard.borrow_mut().push(frame.to_vec())));
        line
    });
    let mut sent = 0;
    while sent < FRAMES {
        let burst = (sent % 48 + 1).min(FRAMES - sent);
        a.send(sent..sent + burst);
        b.send(FRAMES + sent..FRAMES + sent + burst);
        sent += burst;
        while a.heard.len() < sent || b.heard.len() < sent {
            if b.heard.len() < sent {
                assert_eq!(b.queue.wait(b.queue.time() + Time::from_milliseconds(1)), Ok(Wake::Interrupt));
                b.receive();
                b.queue.completed(&mut b.done).expect("completed");
            } else {
                a.queue.relax();
            }
            a.receive();
        }
    }
    for end in [&mut a, &mut b] {
        end.queue.drain(end.queue.time() + Time::from_milliseconds(1), &mut end.done).expect("drains");
    }
    let doorbell_writes = world.doorbell_writes(a.id) + world.doorbell_writes(b.id);
    let ended = [&a, &b].map(|end| end.done.iter().map(|done| done.packets as usize).sum());
    let pushes = a.queue.statistics().pushes + b.queue.statistics().pushes;
    assert_eq!(pushes == 0, a.nic.shadow_doorbells(), "single frames are pushed where that is cheaper");
    let heard = [a.heard, b.heard];
    Outcome { lines: lines.map(|line| line.take()), heard, ended, doorbell_writes }
}

#[test]
fn traffic_is_the_same_and_no_doorbell_register_is_written() {
    // Given the same frames with doorbells in registers, offered by no device or refused by the driver,
    let refusing = OpenOptions { shadow_doorbells: false, ..OpenOptions::default() };
    let by_register = traffic(&parameters(false), &OpenOptions::default());
    let refused = traffic(&parameters(true), &refusing);
    // when they are in host memory,
    let in_memory = traffic(&parameters(true), &OpenOptions::default());
    // then every byte is the same on both lines and in both hosts,
    for other in [&refused, &in_memory] {
        assert!(other.lines == by_register.lines, "the lines differ");
        assert!(other.heard == by_register.heard, "what was received differs");
        assert_eq!(other.ended, [FRAMES; 2]);
    }
    assert!(by_register.heard.iter().flatten().all(|(status, ..)| *status == Status::Ok));
    for (number, (_, _, bytes)) in by_register.heard[1].iter().enumerate() {
        // A short frame in clear is padded on the line.
        assert!(
            bytes.starts_with(&udp(number)) && bytes.len() <= udp(number).len().max(60),
            "frame {number}"
        );
    }
    // and what was a register write is none.
    assert!(by_register.doorbell_writes > 100, "{}", by_register.doorbell_writes);
    assert_eq!(refused.doorbell_writes, by_register.doorbell_writes);
    assert_eq!(in_memory.doorbell_writes, 0);
}

#[test]
fn a_server_that_sleeps_is_woken_by_one_doorbell_for_each_ring() {
    // Given a device whose server has gone to sleep
    let (world, mut a, mut b) = pair(&parameters(true), &OpenOptions::default());
    a.queue.relax();
    assert!(!world.poll_shadow_doorbells(a.id), "nothing is new");
    assert!(world.arm_shadow_doorbells(a.id));
    // When its host sends three bursts
    let send = |end: &mut End, number: usize| {
        let mut buffer = end.queue.take_buffer().expect("a buffer");
        end.queue.fill(&mut buffer, &udp(number)).expect("fits");
        let packet = TransmitPacket::new(buffer, Protection::Sa(end.out), number as u64);
        assert_eq!(end.queue.transmit(&mut vec![packet]).expect("transmit"), 1);
    };
    for number in 0..3 {
        send(&mut a, number);
    }
    // Then the first is a doorbell and the others are not: the server that it wakes finds them.
    assert_eq!(a.queue.statistics().doorbells, 1);
    assert!(world.poll_shadow_doorbells(a.id));
    world.drain();
    assert_eq!(world.doorbell_writes(a.id), 1);
    b.receive();
    assert_eq!(b.heard.len(), 3);
    // And a count that comes while the server is about to sleep keeps it awake.
    send(&mut a, 3);
    assert!(!world.arm_shadow_doorbells(a.id));
    assert!(world.poll_shadow_doorbells(a.id));
    world.drain();
    assert!(world.arm_shadow_doorbells(a.id));
    assert_eq!(a.queue.statistics().doorbells, 1);
}
