//! Frames over several buffers, and what completions say of a frame, from an honest device and a lying one.

mod fake;

use std::cell::Cell;
use std::rc::Rc;

use cryptonic_driver::{
    ChecksumState, Error, HashKind, Nic, OpenOptions, Protection, Quarantine, QueueError, QueuePair,
    QueuePairOptions, ReceiveScalingOptions, Received, Time, TransmitPacket,
};
use cryptonic_regs::bar0::{
    COMPLETION_COALESCING, CompletionCoalescing, ESP_UDP_PORT, INTERRUPT_MODERATION, InterruptModeration,
    PSP_SOURCE_PORTS, RECEIVE_SCALING, RECEIVE_SCALING_KEY, RECEIVE_SCALING_TABLE,
};
use cryptonic_regs::completion::{ReceiveCompletion, ReceiveSteering};
use fake::{Fake, RECEIVE_CHAIN, ReceiveExtra};

const SCATTER: QueuePairOptions = QueuePairOptions {
    transmit_slots: 8,
    receive_slots: 8,
    buffer_bytes: 256,
    clear_allowed: true,
    receive_scatter: true,
    ..QueuePairOptions::new()
};

fn set_up(options: QueuePairOptions) -> (Fake, Nic, QueuePair) {
    let fake = Fake::new();
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let queue = nic.create_queue_pair(options).unwrap();
    (fake, nic, queue)
}

/// Sends a frame of any length, in as many pieces as it takes.
fn send(queue: &mut QueuePair, frame: &[u8]) {
    let room = queue.buffer_bytes();
    let mut pieces = frame.chunks(room);
    let mut buffer = queue.take_buffer().unwrap();
    queue.fill(&mut buffer, pieces.next().unwrap()).unwrap();
    for piece in pieces {
        let mut more = queue.take_buffer().unwrap();
        queue.fill(&mut more, piece).unwrap();
        queue.attach_buffer(&mut buffer, more).unwrap();
    }
    queue.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Clear, 0)]).unwrap();
    let deadline = queue.time() + Time::from_milliseconds(1);
    queue.drain(deadline, &mut vec![]).unwrap();
}

fn frame(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 11 + index / 256 + seed) as u8).collect()
}

#[test]
fn a_frame_over_several_buffers_is_joined_at_every_offset() {
    let (_fake, _nic, mut queue) = set_up(SCATTER);
    let mut received: Vec<Received> = vec![];
    for (round, length) in
        [1, 255, 256, 257, 512, 513, 700, 768, 769, 1024].into_iter().cycle().take(60).enumerate()
    {
        let sent = frame(length, round);
        send(&mut queue, &sent);
        assert_eq!(queue.receive(&mut received, 1), Ok(1), "{length}");
        let found = received.pop().unwrap();
        assert_eq!((found.length(), found.buffers()), (length, length.div_ceil(256)));
        assert_eq!(queue.receive_held(), found.buffers());
        for offset in [0, 1, 100, 255, 256, 257, 511, 512, 600, 1023, 1024, 2000] {
            for count in [0, 1, 2, 256, 300, 2000] {
                let mut bytes = vec![0xee; count];
                let copied = queue.read(&found, offset, &mut bytes).unwrap();
                let expected = sent.get(offset..(offset + count).min(length)).unwrap_or(&[]);
                assert_eq!(bytes[..copied], *expected, "{length} {offset} {count}");
            }
        }
        let mut bytes = vec![0; 2000];
        let copied = queue.copy_out(found, &mut bytes).unwrap();
        assert_eq!(bytes[..copied], sent);
        assert_eq!(queue.receive_held(), 0);
    }
}

#[test]
fn frames_of_one_and_of_several_buffers_mix_in_one_burst() {
    let options = QueuePairOptions { receive_slots: 16, transmit_slots: 32, ..SCATTER };
    let (_fake, _nic, mut queue) = set_up(options);
    for round in 0..50 {
        let lengths = [40, 600, 256, 257, 1, 800];
        let frames: Vec<_> = lengths.iter().map(|length| frame(*length, round)).collect();
        for frame in &frames {
            send(&mut queue, frame);
        }
        // Taken in two calls, given back in one.
        let mut received = vec![];
        assert_eq!(queue.receive(&mut received, 2), Ok(2));
        assert_eq!(queue.receive(&mut received, 100), Ok(4));
        for (received, frame) in received.iter().zip(&frames) {
            let mut bytes = vec![0; received.length()];
            queue.read(received, 0, &mut bytes).unwrap();
            assert_eq!(bytes, *frame);
        }
        assert_eq!(queue.receive_held(), 12);
        queue.return_buffers(&mut received).unwrap();
        assert_eq!((received.len(), queue.receive_held()), (0, 0));
    }
}

#[test]
fn a_frame_that_has_not_ended_is_none() {
    let (fake, _nic, mut queue) = set_up(SCATTER);
    // Given a device whose second completion comes in the wrong phase,
    let count = Rc::new(Cell::new(0));
    let seen = count.clone();
    fake.device.borrow_mut().on_receive = Some(Box::new(move |completion| {
        seen.set(seen.get() + 1);
        if seen.get() == 2 {
            completion.end.set_phase(!completion.end.phase());
        }
    }));
    send(&mut queue, &frame(300, 0));
    let mut received = vec![];
    assert_eq!(queue.receive(&mut received, 8), Ok(0));
    assert_eq!((queue.receive_held(), queue.quarantine()), (1, None));
}

#[test]
fn what_a_completion_says_is_told() {
    let (fake, _nic, mut queue) = set_up(SCATTER);
    let steering = ReceiveSteering::new()
        .with_hash(0x1234_5678)
        .with_hash_kind(HashKind::Ipv6Tcp.number() as u8)
        .with_ip_checksum(ChecksumState::Good.number() as u8)
        .with_l4_checksum(ChecksumState::Bad.number() as u8)
        .with_outer_checksum(ChecksumState::NotChecked.number() as u8)
        .with_psp_version(1)
        .with_psp_sample(true)
        .with_psp_device_key(true);
    fake.device.borrow_mut().extra = ReceiveExtra { steering: steering.into_bits(), next_header: 144 };
    for length in [100, 600] {
        send(&mut queue, &frame(length, 0));
        let mut received = vec![];
        queue.receive(&mut received, 8).unwrap();
        let found = &received[0];
        assert_eq!(found.hash(), Some((0x1234_5678, HashKind::Ipv6Tcp)));
        assert_eq!(found.ip_checksum(), ChecksumState::Good);
        assert_eq!(found.l4_checksum(), ChecksumState::Bad);
        assert_eq!(found.outer_checksum(), ChecksumState::NotChecked);
        assert_eq!((found.next_header(), found.length()), (144, length));
        assert_eq!((found.psp_version(), found.psp_sample(), found.psp_drop()), (1, true, false));
        assert_eq!((found.psp_device_key(), found.psp_cookie(), found.sa()), (1, None, None));
        queue.return_buffers(&mut received).unwrap();
    }
    fake.device.borrow_mut().extra = ReceiveExtra::default();
    send(&mut queue, &frame(60, 0));
    let mut received = vec![];
    queue.receive(&mut received, 8).unwrap();
    assert_eq!(received[0].hash(), None);
    queue.return_buffers(&mut received).unwrap();
}

/// What a device writes in place of the completions of one frame of three buffers; the number counts them.
type Lie = fn(u32, &mut ReceiveCompletion);

#[test]
fn hostile_completions_of_a_frame_over_several_buffers() {
    let cases: [(&str, Lie, Quarantine); 16] = [
        ("never ends", |_, lie| lie.end.set_more(true), Quarantine::FrameTooLong),
        (
            "no bytes in the middle",
            |at, lie| {
                if at == 1 {
                    lie.completed.set_length(0)
                }
            },
            Quarantine::LengthZero,
        ),
        (
            "no bytes at the end",
            |at, lie| {
                if at == 2 {
                    lie.completed.set_length(0)
                }
            },
            Quarantine::LengthZero,
        ),
        (
            "too long in the middle",
            |at, lie| {
                if at == 1 {
                    lie.completed.set_length(257)
                }
            },
            Quarantine::LengthTooLong,
        ),
        (
            "much too long",
            |at, lie| {
                if at == 0 {
                    lie.completed.set_length(u16::MAX)
                }
            },
            Quarantine::LengthTooLong,
        ),
        (
            "too long at the end",
            |at, lie| {
                if at == 2 {
                    lie.completed.set_length(257)
                }
            },
            Quarantine::LengthTooLong,
        ),
        ("the first buffer again", |_, lie| lie.completed.set_tag(0), Quarantine::NotPosted),
        (
            "another buffer's tag",
            |at, lie| {
                if at == 1 {
                    lie.completed.set_tag(7);
                    lie.completed.set_tag_generation(9)
                }
            },
            Quarantine::StaleGeneration,
        ),
        (
            "a tag of no buffer",
            |at, lie| {
                if at == 1 {
                    lie.completed.set_tag(8)
                }
            },
            Quarantine::TagOutOfRange,
        ),
        (
            "a stale generation",
            |at, lie| {
                if at == 2 {
                    lie.completed.set_tag_generation(0)
                }
            },
            Quarantine::StaleGeneration,
        ),
        (
            "no status in the middle",
            |at, lie| {
                if at == 1 {
                    lie.end.set_status(u16::MAX)
                }
            },
            Quarantine::UnknownStatus,
        ),
        (
            "a transmit status",
            |at, lie| {
                if at == 0 {
                    lie.end.set_status(5)
                }
            },
            Quarantine::UnknownStatus,
        ),
        (
            "failed, then good",
            |at, lie| {
                if at == 0 {
                    lie.end.set_status(102)
                }
            },
            Quarantine::FrameContradiction,
        ),
        (
            "no protocol",
            |at, lie| {
                if at == 2 {
                    lie.steering.set_protocol(3)
                }
            },
            Quarantine::UnknownProtocol,
        ),
        (
            "an SA beyond the table",
            |at, lie| {
                if at == 2 {
                    lie.sa_generation = 1;
                    lie.completed.set_sa_index(8)
                }
            },
            Quarantine::SaOutOfRange,
        ),
        (
            "ESP without an SA",
            |at, lie| {
                if at == 2 {
                    lie.steering.set_protocol(1)
                }
            },
            Quarantine::SaOutOfRange,
        ),
    ];
    for (name, lie, reason) in cases {
        let (fake, _nic, mut queue) = set_up(SCATTER);
        let count = Cell::new(0);
        fake.device.borrow_mut().on_receive = Some(Box::new(move |completion| {
            lie(count.get(), completion);
            count.set(count.get() + 1);
        }));
        send(&mut queue, &frame(700, 0));
        send(&mut queue, &frame(700, 0));
        let mut received = vec![];
        assert_eq!(queue.receive(&mut received, 8), Err(QueueError::Quarantined(reason)), "{name}");
        assert_eq!(queue.quarantine(), Some(reason), "{name}");
        assert!(received.is_empty(), "{name}");
    }
}

#[test]
fn hostile_metadata() {
    type Lie = fn(&mut ReceiveCompletion);
    let cases: [(&str, Lie, Quarantine); 9] = [
        ("more, where frames have one buffer", |lie| lie.end.set_more(true), Quarantine::FrameTooLong),
        ("hash kind 8", |lie| lie.steering.set_hash_kind(8), Quarantine::UnknownMetadata),
        ("hash kind 15", |lie| lie.steering.set_hash_kind(15), Quarantine::UnknownMetadata),
        ("IP checksum 3", |lie| lie.steering.set_ip_checksum(3), Quarantine::UnknownMetadata),
        ("L4 checksum 3", |lie| lie.steering.set_l4_checksum(3), Quarantine::UnknownMetadata),
        ("outer checksum 3", |lie| lie.steering.set_outer_checksum(3), Quarantine::UnknownMetadata),
        ("protocol 3", |lie| lie.steering.set_protocol(3), Quarantine::UnknownProtocol),
        ("protocol 4", |lie| lie.steering.set_protocol(4), Quarantine::UnknownProtocol),
        ("protocol 255", |lie| lie.steering.set_protocol(255), Quarantine::UnknownProtocol),
    ];
    for (name, lie, reason) in cases {
        let (fake, _nic, mut queue) = set_up(QueuePairOptions { receive_scatter: false, ..SCATTER });
        fake.device.borrow_mut().on_receive = Some(Box::new(lie));
        send(&mut queue, &frame(60, 0));
        let outcome = queue.receive(&mut vec![], 8);
        assert_eq!(outcome, Err(QueueError::Quarantined(reason)), "{name}");
    }
    // What is only told and never relied on may be anything.
    let (fake, _nic, mut queue) = set_up(SCATTER);
    fake.device.borrow_mut().on_receive = Some(Box::new(|lie| {
        lie.steering.set_hash(u32::MAX);
        lie.steering.set_hash_kind(7);
        lie.steering.set_psp_cookie(true);
        lie.steering.set_psp_version(15);
        lie.end.set_next_header(255);
    }));
    send(&mut queue, &frame(60, 0));
    let mut received = vec![];
    assert_eq!(queue.receive(&mut received, 8), Ok(1));
    assert_eq!((received[0].next_header(), received[0].psp_cookie()), (255, Some([0; 8])));
    let _ = format!("{received:?}");
    queue.return_buffers(&mut received).unwrap();
}

#[test]
fn garbage_over_several_buffers_never_panics_or_passes_for_more_than_it_can() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut frames = 0;
    for _ in 0..2000 {
        let (fake, _nic, mut queue) = set_up(SCATTER);
        // A few bits of honest completions are changed, of the length, tag, more and status more often.
        let flips: Vec<(usize, u64)> = (0..random() % 4)
            .map(|_| {
                let word = [0, 7, 7, 5, 6, 0][(random() % 6) as usize];
                let bit =
                    if word == 7 { [0, 5, 24, 24, 24, 63][(random() % 6) as usize] } else { random() % 40 };
                (word, 1 << bit)
            })
            .collect();
        let mut turn = random() % 5;
        fake.device.borrow_mut().on_receive = Some(Box::new(move |completion| {
            let mut words = completion.to_words();
            if turn == 0 {
                flips.iter().for_each(|(word, bit)| words[*word] ^= bit);
            }
            turn = turn.wrapping_sub(1) % 5;
            *completion = ReceiveCompletion::of_words(&words);
        }));
        for length in [700, 60, 300, 900] {
            let room = queue.buffer_bytes();
            let mut buffer = queue.take_buffer().unwrap();
            queue.fill(&mut buffer, &frame(length.min(room), 0)).unwrap();
            for piece in frame(length, 0).chunks(room).skip(1) {
                let mut more = queue.take_buffer().unwrap();
                queue.fill(&mut more, piece).unwrap();
                queue.attach_buffer(&mut buffer, more).unwrap();
            }
            let _ = queue.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Clear, 0)]);
            queue.relax();
            let _ = queue.completed(&mut vec![]);
            let mut received = vec![];
            let _ = queue.receive(&mut received, 8);
            assert!(received.len() <= 8 && queue.receive_held() <= 8);
            for received in received {
                let most = usize::from(RECEIVE_CHAIN);
                assert!(received.buffers() <= most && received.length() <= most * 256);
                let mut bytes = vec![0; 4096];
                assert!(queue.copy_out(received, &mut bytes).is_ok_and(|length| length <= most * 256));
                frames += 1;
            }
        }
    }
    assert!(frames > 2000, "{frames}: most of it is honest");
}

#[test]
fn moderation_and_coalescing_are_told_to_the_device() {
    let options = QueuePairOptions {
        completion_hold_ns: 500,
        completion_batch: 8,
        interrupt_delay_ns: 20_000,
        interrupt_completions: 64,
        ..SCATTER
    };
    let (fake, mut nic, _queue) = set_up(options);
    let register = |offset: u32| fake.device.borrow().registers.get(&offset).copied().unwrap_or(0);
    let moderation = InterruptModeration::from_bits(register(INTERRUPT_MODERATION.offset));
    assert_eq!((moderation.delay_ns(), moderation.completions()), (20_000, 64));
    let coalescing = CompletionCoalescing::from_bits(register(COMPLETION_COALESCING.offset));
    assert_eq!((coalescing.hold_ns(), coalescing.completions()), (500, 8));
    for options in [
        QueuePairOptions { completion_batch: 9, ..SCATTER },
        QueuePairOptions { interrupt_delay_ns: 1 << 20, ..SCATTER },
    ] {
        assert!(matches!(nic.create_queue_pair(options), Err(Error::Argument(_))));
    }
}

#[test]
fn receive_scaling_and_ports_are_told_to_the_device() {
    let (fake, mut nic, _queue) = set_up(SCATTER);
    let key: [u8; 40] = std::array::from_fn(|index| index as u8 + 1);
    nic.configure_receive_scaling(
        &key,
        &[3, 2, 1, 0, 1, 2, 3, 0],
        ReceiveScalingOptions { udp_ports: false, ..ReceiveScalingOptions::default() },
    )
    .unwrap();
    let register = |offset: u32| fake.device.borrow().registers.get(&offset).copied().unwrap_or(0);
    // enable, TCP ports, SPI, 8 entries
    assert_eq!(register(RECEIVE_SCALING.offset), 0b011_1011);
    assert_eq!(register(RECEIVE_SCALING_KEY.offset), 0x0403_0201);
    assert_eq!(register(RECEIVE_SCALING_KEY.offset + 36), 0x2827_2625);
    assert_eq!(register(RECEIVE_SCALING_TABLE.offset), 0x0001_0203);
    assert_eq!(register(RECEIVE_SCALING_TABLE.offset + 4), 0x0003_0201);
    nic.stop_receive_scaling().unwrap();
    assert_eq!(register(RECEIVE_SCALING.offset), 0);
    for table in [&[][..], &[0, 1, 2], &[4], &[0; 256]] {
        let outcome = nic.configure_receive_scaling(&key, table, ReceiveScalingOptions::default());
        assert!(matches!(outcome, Err(Error::Argument(_))), "{table:?}");
    }
    nic.set_esp_udp_port(Some(4501)).unwrap();
    assert_eq!(register(ESP_UDP_PORT.offset), 4501);
    nic.set_esp_udp_port(None).unwrap();
    assert_eq!(register(ESP_UDP_PORT.offset), 0);
    assert!(nic.set_esp_udp_port(Some(0)).is_err());
    nic.set_psp_source_ports(&std::array::from_fn(|index| 50_000 + index as u16)).unwrap();
    assert_eq!(register(PSP_SOURCE_PORTS.offset + 28), 50_015 << 16 | 50_014);
}
