//! Driver and model over every descriptor form: what leaves the NIC opens, by an SA in software, to the frame that was
//! handed over, whatever way it was handed over; and frames over several receive buffers and queues.

use cryptonic_driver::coalesce::{Coalescer, Origin};
use cryptonic_driver::{
    ChecksumState, Cipher, Direction, HashKind, InlinePolicy, Mode, Nic, Offload, OpenOptions, OuterHeader,
    Protection, PushPolicy, QueuePair, QueuePairOptions, ReceiveScalingOptions, Received, SaConfiguration,
    SecretKey, SoftwareSa, Status, Time, TransmitBuffer, TransmitPacket, Wake,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

fn nic(world: &World) -> (NicId, Nic) {
    let id = world.add_nic(&Parameters::default()).expect("the defaults are in range");
    (id, Nic::open(world.host(id), OpenOptions::default()).expect("open"))
}

fn esp(direction: Direction) -> SaConfiguration {
    let outer = OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    SaConfiguration {
        esn: true,
        outer: (direction == Direction::Out).then_some(outer),
        ..SaConfiguration::new(
            direction,
            Mode::Tunnel,
            Cipher::AesGcm128,
            SecretKey::new(&[0x42; 16]).expect("16 bytes"),
            [1, 2, 3, 4],
            0x1001,
        )
    }
}

/// A UDP packet over IPv4, made by an independent library.
fn udp(ports: (u16, u16), payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|index| (index * 7 + index / 256) as u8).collect();
    let mut frame = vec![];
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, &payload)
        .expect("a vector takes all");
    frame
}

fn drain(queue: &mut QueuePair) -> Vec<Status> {
    let mut done = vec![];
    queue.drain(queue.time() + Time::from_milliseconds(1), &mut done).expect("drains");
    done.iter().map(|ended| ended.status).collect()
}

/// Ways to hand a frame over: in one buffer, in several, in registered memory, in a mixture.
#[derive(Clone, Copy, Debug)]
enum Way {
    One,
    Buffers,
    Memory,
    Mixture,
}

fn hand_over(nic: &mut Nic, queue: &mut QueuePair, frame: &[u8], way: Way) -> TransmitBuffer {
    let mut buffer = queue.take_buffer().expect("a buffer");
    let (first, rest) = match way {
        Way::One => (frame, &[][..]),
        Way::Buffers => frame.split_at(frame.len() / 3),
        Way::Memory => frame.split_at(0),
        Way::Mixture => frame.split_at(14),
    };
    queue.fill(&mut buffer, first).expect("fits");
    for (index, piece) in rest.chunks(rest.len().div_ceil(3).max(1)).enumerate() {
        if matches!(way, Way::Memory) || (matches!(way, Way::Mixture) && index % 2 == 0) {
            let mut memory = nic.register_memory(piece.len()).expect("memory");
            memory.write(0, piece).expect("in range");
            queue.attach_region(&mut buffer, memory).map_err(|(error, _)| error).expect("attaches");
        } else {
            let mut more = queue.take_buffer().expect("a buffer");
            queue.fill(&mut more, piece).expect("fits");
            queue.attach_buffer(&mut buffer, more).map_err(|(error, _)| error).expect("attaches");
        }
    }
    buffer
}

#[test]
fn a_frame_handed_over_in_any_form_leaves_as_itself() {
    let forms = [
        (32, InlinePolicy::Never, PushPolicy::Never),
        (64, InlinePolicy::Never, PushPolicy::WhenIdle),
        (64, InlinePolicy::WholeFrames, PushPolicy::WhenIdle),
        (64, InlinePolicy::Heads { bytes: 32 }, PushPolicy::Never),
        (128, InlinePolicy::WholeFrames, PushPolicy::Never),
        (128, InlinePolicy::WholeFrames, PushPolicy::WhenIdle),
        (128, InlinePolicy::Heads { bytes: 54 }, PushPolicy::WhenIdle),
    ];
    for (stride, inline, push) in forms {
        let world = World::new(1);
        let (id, mut nic) = nic(&world);
        let sa = nic.install_sa(esp(Direction::Out)).expect("install");
        let (_, mut other) = self::nic(&world);
        let mut opener: SoftwareSa = other.software_sa(esp(Direction::In)).expect("in software");
        let options = QueuePairOptions { stride, inline, push, ..QueuePairOptions::default() };
        let mut queue = nic.create_queue_pair(options).expect("queue pair");
        let mut pushes = 0;
        for way in [Way::One, Way::Buffers, Way::Memory, Way::Mixture] {
            for payload in [0, 1, 18, 22, 54, 55, 100, 700, 1400] {
                let frame = udp((1234, 5678), payload);
                let buffer = hand_over(&mut nic, &mut queue, &frame, way);
                let before = queue.statistics();
                queue
                    .transmit(&mut vec![TransmitPacket::new(buffer, Protection::Sa(sa), 0)])
                    .expect("transmit");
                assert_eq!(drain(&mut queue), [Status::Ok], "{stride} {inline:?} {way:?} {payload}");
                world.drain();
                let sent = world.take_sent(id);
                assert_eq!(sent.len(), 1);
                let (opened, _) = opener.open(&sent[0]).expect("opens");
                assert_eq!(opened, frame, "{stride} {inline:?} {way:?} {payload}");
                let after = queue.statistics();
                assert_eq!(after.copied_bytes, before.copied_bytes, "sending copies nothing");
                pushes += after.pushes - before.pushes;
                queue.reclaim(&mut vec![]);
            }
        }
        // The device used what was pushed.
        assert_eq!(world.pushes_used(id), pushes);
        assert_eq!(pushes > 0, push == PushPolicy::WhenIdle);
    }
}

#[test]
fn segments_of_a_large_frame_join_to_it_again() {
    let world = World::new(1);
    let (id, mut nic) = nic(&world);
    assert!(nic.information().capabilities.descriptor.segmentation());
    let sa = nic.install_sa(esp(Direction::Out)).expect("install");
    let (_, mut other) = self::nic(&world);
    let mut opener = other.software_sa(esp(Direction::In)).expect("in software");
    let mut queue = nic.create_queue_pair(QueuePairOptions::default()).expect("queue pair");
    for ipv6 in [false, true] {
        for (payload, segment) in [(1, 1), (1000, 100), (30_000, 1400), (60_000, 8900)] {
            // Given a TCP frame larger than any on the line, whose payload is in registered memory,
            let bytes: Vec<u8> = (0..payload).map(|index| (index * 5 + index / 256) as u8).collect();
            let ethernet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            let mut frame = vec![];
            if ipv6 {
                let builder = ethernet.ipv6([0xfd; 16], [0xfc; 16], 64).tcp(1234, 5678, 7, 1024).ack(9).psh();
                builder.write(&mut frame, &bytes).expect("a vector takes all");
            } else {
                let builder =
                    ethernet.ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64).tcp(1234, 5678, 7, 1024).ack(9).psh();
                builder.write(&mut frame, &bytes).expect("a vector takes all");
            }
            let headers = frame.len() - payload;
            let mut memory = nic.register_memory(payload).expect("memory");
            memory.write(0, &frame[headers..]).expect("in range");
            let mut buffer = queue.take_buffer().expect("a buffer");
            queue.fill(&mut buffer, &frame[..headers]).expect("fits");
            queue.attach_region(&mut buffer, memory).map_err(|(error, _)| error).expect("attaches");
            // when it is sent to be cut into segments,
            let offload = Offload::NONE.segments(segment).ip_checksum().l4_checksum();
            let packet = TransmitPacket { offload, ..TransmitPacket::new(buffer, Protection::Sa(sa), 0) };
            queue.transmit(&mut vec![packet]).expect("transmit");
            assert_eq!(drain(&mut queue), [Status::Ok], "{payload} {segment}");
            world.drain();
            // then each leaves as a packet of its own, and together they are the frame.
            let mut joined = vec![];
            let mut coalescer = Coalescer::new(1);
            let sent = world.take_sent(id);
            assert_eq!(sent.len(), payload.div_ceil(segment.into()));
            let origin = Origin { sa: None, spi: 0, l4_checksum: ChecksumState::NotChecked };
            for sent in &sent {
                let (opened, _) = opener.open(sent).expect("opens");
                coalescer.push(opened, origin, |frame, _| joined.push(frame.to_vec()));
            }
            coalescer.flush(|frame, _| joined.push(frame.to_vec()));
            assert_eq!(joined.len(), 1);
            assert!(joined[0] == frame, "{payload} {segment}");
            queue.reclaim(&mut vec![]);
        }
    }
}

#[test]
fn a_frame_longer_than_a_buffer_arrives_over_several() {
    let world = World::new(1);
    let ((from_id, mut from), (to_id, mut to)) = (nic(&world), nic(&world));
    world.connect(from_id, to_id, Time::from_nanoseconds(10));
    let out = from.install_sa(esp(Direction::Out)).expect("install");
    let back = to.install_sa(esp(Direction::In)).expect("install");
    let mut sender = from.create_queue_pair(QueuePairOptions::default()).expect("queue pair");
    let options = QueuePairOptions {
        buffer_bytes: 256,
        receive_scatter: true,
        completion_batch: 4,
        completion_hold_ns: 500,
        ..QueuePairOptions::default()
    };
    let mut receiver = to.create_queue_pair(options).expect("queue pair");
    for round in 0..3 {
        for payload in [0, 100, 214, 215, 300, 500, 1000, 1400] {
            let frame = udp((1, 2), payload + round);
            let mut buffer = sender.take_buffer().expect("a buffer");
            sender.fill(&mut buffer, &frame).expect("fits");
            sender
                .transmit(&mut vec![TransmitPacket::new(buffer, Protection::Sa(out), 0)])
                .expect("transmit");
            drain(&mut sender);
            let mut received: Vec<Received> = vec![];
            while receiver.receive(&mut received, 1).expect("receive") == 0 {
                receiver.relax();
            }
            let found = received.remove(0);
            assert_eq!((found.sa(), found.next_header()), (Some(back), 4));
            assert_eq!(found.buffers(), frame.len().div_ceil(256));
            let mut bytes = vec![0; found.length()];
            receiver.copy_out(found, &mut bytes).expect("in range");
            assert_eq!(bytes, frame);
        }
    }
}

/// The Toeplitz hash, bit by bit, as its definition has it.
fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], place: usize| u32::from(bytes[place / 8] >> (7 - place % 8) & 1);
    let mut hash = 0;
    for place in (0..input.len() * 8).filter(|place| bit(input, *place) == 1) {
        hash ^= (place..place + 32).fold(0, |window, place| window << 1 | bit(key, place));
    }
    hash
}

#[test]
fn flows_spread_over_four_queues_by_their_hash_and_stay_there() {
    let key: [u8; 40] = std::array::from_fn(|index| (index * 37 + 11) as u8);
    let world = World::new(1);
    let ((from_id, mut from), (to_id, mut to)) = (nic(&world), nic(&world));
    world.connect(from_id, to_id, Time::from_nanoseconds(10));
    // Given four queue pairs whose interrupts wait for each other,
    let options = QueuePairOptions {
        interrupt_delay_ns: 20_000,
        interrupt_completions: 8,
        ..QueuePairOptions::default()
    };
    let mut queues: Vec<QueuePair> =
        (0..4).map(|_| to.create_queue_pair(options).expect("queue pair")).collect();
    let table = [2, 0, 3, 1, 1, 3, 0, 2];
    to.configure_receive_scaling(&key, &table, ReceiveScalingOptions::default()).expect("scaling");
    let clear = QueuePairOptions { clear_allowed: true, ..QueuePairOptions::default() };
    let mut sender = from.create_queue_pair(clear).expect("queue pair");
    // when many flows send,
    let flows: Vec<(u16, u16)> = (0..32).map(|flow| (1000 + flow * 7, 53)).collect();
    for _ in 0..4 {
        let mut batch = vec![];
        for ports in &flows {
            let mut buffer = sender.take_buffer().expect("a buffer");
            sender.fill(&mut buffer, &udp(*ports, 40)).expect("fits");
            batch.push(TransmitPacket::new(buffer, Protection::Clear, 0));
        }
        assert_eq!(sender.transmit(&mut batch).expect("transmit"), flows.len());
        drain(&mut sender);
    }
    // then each frame is where its hash says, and its queue's interrupts are fewer than its frames.
    let mut total = 0;
    for (index, queue) in queues.iter_mut().enumerate() {
        let mut received: Vec<Received> = vec![];
        let mut interrupts = 0;
        while queue.wait(queue.time() + Time::from_microseconds(100)).expect("wait") == Wake::Interrupt {
            interrupts += 1;
            queue.receive(&mut received, 64).expect("receive");
        }
        assert!(!received.is_empty() && interrupts < received.len(), "queue {index}");
        for found in &received {
            let mut bytes = vec![0; found.length()];
            queue.read(found, 0, &mut bytes).expect("in range");
            let hash = toeplitz(&key, &bytes[26..38]);
            assert_eq!(found.hash(), Some((hash, HashKind::Ipv4Udp)));
            assert_eq!(usize::from(table[hash as usize % table.len()]), index);
            assert_eq!(
                (found.ip_checksum(), found.l4_checksum()),
                (ChecksumState::Good, ChecksumState::Good)
            );
        }
        total += received.len();
        queue.return_buffers(&mut received).expect("go back");
    }
    assert_eq!(total, flows.len() * 4);
}
