//! Transmit descriptors of every form: strides, inline data, pushes, chains over buffers and registered memory,
//! offloads, keys and cookies; and what of them is left in memory.

mod fake;

use cryptonic_driver::{
    Error, InlinePolicy, Nic, Offload, OpenOptions, Protection, PspTransmit, PushPolicy, Quarantine,
    QueueError, QueuePair, QueuePairOptions, Received, Region, SecretKey, SourcePort, Status, Time,
    TransmitBuffer, TransmitPacket, Transmitted,
};
use cryptonic_regs::bar0::{CHAIN_CAPABILITY, DESCRIPTOR_CAPABILITY, PROTOCOL_CAPABILITY};
use cryptonic_regs::descriptor::{TransmitControl, TransmitExtent};
use cryptonic_regs::doorbell::PUSH_WINDOWS;
use fake::{Fake, TRANSMIT_CHAIN};

const SMALL: QueuePairOptions = QueuePairOptions {
    transmit_slots: 8,
    receive_slots: 8,
    stride: 128,
    clear_allowed: true,
    ..QueuePairOptions::new()
};
const KEY: [u8; 32] = *b"a psp key of two hundred 56 bits";

fn set_up(options: QueuePairOptions) -> (Fake, Nic, QueuePair) {
    let fake = Fake::new();
    fake.device.borrow_mut().keep_sent = true;
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let queue = nic.create_queue_pair(options).unwrap();
    (fake, nic, queue)
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 256 + seed) as u8).collect()
}

fn filled(queue: &mut QueuePair, frame: &[u8]) -> TransmitBuffer {
    let mut buffer = queue.take_buffer().unwrap();
    queue.fill(&mut buffer, frame).unwrap();
    buffer
}

/// Sends one packet and waits for its end.
fn send(queue: &mut QueuePair, packet: TransmitPacket) -> Result<Transmitted, QueueError> {
    let mut batch = vec![packet];
    assert_eq!(queue.transmit(&mut batch)?, 1);
    let mut done = vec![];
    let deadline = queue.time() + Time::from_milliseconds(1);
    queue.drain(deadline, &mut done)?;
    assert_eq!(done.iter().map(|ended| ended.packets).sum::<u32>(), 1);
    Ok(done[0])
}

fn receive_one(queue: &mut QueuePair) -> Vec<u8> {
    let mut received: Vec<Received> = vec![];
    assert_eq!(queue.receive(&mut received, 8), Ok(1));
    let mut frame = vec![0; received[0].length()];
    let length = queue.copy_out(received.remove(0), &mut frame).unwrap();
    assert_eq!(length, frame.len());
    frame
}

/// How many mapped memories hold these bytes.
fn places(fake: &Fake, secret: &[u8]) -> usize {
    let holds = |memory: &cryptonic_pci::SharedMemory| {
        let mut bytes = vec![0; memory.bytes()];
        memory.read(0, &mut bytes).unwrap();
        bytes.windows(secret.len()).any(|window| window == secret)
    };
    fake.device.borrow().all_memory.iter().filter(|memory| holds(memory)).count()
}

#[test]
fn inline_data_of_every_length_at_every_stride() {
    // (stride, policy, room of the slot without a key)
    let cases = [
        (64, InlinePolicy::WholeFrames, 32),
        (128, InlinePolicy::WholeFrames, 96),
        (64, InlinePolicy::Heads { bytes: 20 }, 32),
        (128, InlinePolicy::Heads { bytes: 64 }, 96),
        (64, InlinePolicy::Heads { bytes: 255 }, 32),
        (128, InlinePolicy::Never, 96),
        (32, InlinePolicy::Never, 0),
    ];
    for (stride, inline, room) in cases {
        let (fake, _nic, mut queue) = set_up(QueuePairOptions { stride, inline, ..SMALL });
        let mut inline_bytes = 0;
        for length in (1..=130).chain([1499, 1500, 2048]) {
            // Given a frame, when it is sent,
            let frame = bytes(length, stride as usize);
            let buffer = filled(&mut queue, &frame);
            let ended = send(&mut queue, TransmitPacket::new(buffer, Protection::Clear, 9)).unwrap();
            // then the device puts it together from slot and buffer.
            assert_eq!((ended.status, ended.cookie), (Status::Ok, 9), "{stride} {inline:?} {length}");
            assert_eq!(receive_one(&mut queue), frame, "{stride} {inline:?} {length}");
            let expected = match inline {
                InlinePolicy::Never => 0,
                InlinePolicy::Heads { bytes } => usize::from(bytes).min(room).min(length),
                InlinePolicy::WholeFrames => {
                    if length <= room {
                        length
                    } else {
                        0
                    }
                }
            };
            let words = fake.device.borrow_mut().sent.pop().unwrap().0;
            let extent = TransmitExtent::from_bits(words[3]);
            assert_eq!(usize::from(extent.inline_bytes()), expected, "{stride} {inline:?} {length}");
            assert_eq!(extent.total_length() as usize, length);
            assert_eq!(usize::from(TransmitControl::from_bits(words[1]).length()), length - expected);
            inline_bytes += expected;
        }
        assert_eq!(queue.statistics().inline_bytes, inline_bytes as u64);
    }
}

#[test]
fn a_frame_of_pieces_comes_whole_in_the_order_of_the_contract() {
    for (stride, inline) in [
        (32, InlinePolicy::Never),
        (64, InlinePolicy::Heads { bytes: 32 }),
        (128, InlinePolicy::Heads { bytes: 96 }),
        (128, InlinePolicy::WholeFrames),
    ] {
        let (_fake, mut nic, mut queue) = set_up(QueuePairOptions { stride, inline, ..SMALL });
        let mut memory = nic.register_memory(10_000).unwrap();
        memory.write(0, &bytes(10_000, 3)).unwrap();
        // Over many passes, so that chains cross the end of the ring.
        for round in 0..40 {
            let mut expected = bytes(round, 1);
            let mut buffer = filled(&mut queue, &expected);
            for piece in 0..round % 4 {
                if piece % 2 == 0 {
                    let more = bytes(10 + round * 5, piece);
                    expected.extend(&more);
                    let more = filled(&mut queue, &more);
                    queue.attach_buffer(&mut buffer, more).unwrap();
                } else {
                    let length = 10 + round;
                    let mut part = memory.split_off(memory.bytes() - length).unwrap();
                    let mut content = vec![0; length];
                    part.read(0, &mut content).unwrap();
                    part.write(0, &content).unwrap();
                    expected.extend(&content);
                    queue.attach_region(&mut buffer, part).unwrap();
                }
            }
            if expected.is_empty() {
                queue.give_back(buffer).unwrap();
                continue;
            }
            let ended =
                send(&mut queue, TransmitPacket::new(buffer, Protection::Clear, round as u64)).unwrap();
            assert_eq!((ended.status, ended.cookie), (Status::Ok, round as u64), "{stride} {round}");
            assert_eq!(receive_one(&mut queue), expected, "{stride} {inline:?} {round}");
            let mut back = vec![];
            queue.reclaim(&mut back);
            for reclaimed in back {
                assert_eq!(reclaimed.cookie, Some(round as u64));
                memory.join(reclaimed.region).unwrap();
            }
        }
        assert_eq!(memory.bytes(), 10_000, "every piece came back");
        // Every buffer came back too.
        assert_eq!(std::iter::from_fn(|| queue.take_buffer()).count(), 16);
    }
}

#[test]
fn registered_memory_is_sent_without_a_copy_and_belongs_to_the_ring_meanwhile() {
    let (fake, mut nic, mut queue) = set_up(QueuePairOptions { stride: 32, ..SMALL });
    let payload = bytes(60_000, 5);
    let mut memory = nic.register_memory(payload.len()).unwrap();
    memory.write(0, &payload).unwrap();
    let behind = memory.split_off(1000).unwrap();
    let before = queue.statistics();

    // Given a frame that is nothing but registered memory, when it is sent,
    fake.device.borrow_mut().hold = true;
    let mut buffer = queue.take_buffer().unwrap();
    queue.attach_region(&mut buffer, memory).unwrap();
    let mut batch = vec![TransmitPacket::new(buffer, Protection::Clear, 77)];
    queue.transmit(&mut batch).unwrap();
    // then nobody has it while it is under way,
    let mut back = vec![];
    assert_eq!(queue.reclaim(&mut back), 0);
    // and it was not copied.
    assert_eq!(queue.statistics(), cryptonic_driver::QueueStatistics { doorbells: 1, ..before });
    fake.device.borrow_mut().hold = false;
    let deadline = queue.time() + Time::from_milliseconds(1);
    queue.drain(deadline, &mut vec![]).unwrap();
    assert_eq!(fake.device.borrow_mut().sent.pop().unwrap().1, payload[..1000]);
    assert_eq!((queue.reclaim(&mut back), back[0].cookie), (1, Some(77)));
    let mut memory = back.pop().unwrap().region;
    memory.join(behind).unwrap();
    assert_eq!(memory.bytes(), 60_000);

    // Given back unsent, it comes back without a cookie.
    let mut buffer = queue.take_buffer().unwrap();
    queue.attach_region(&mut buffer, memory).unwrap();
    queue.give_back(buffer).unwrap();
    queue.reclaim(&mut back);
    assert_eq!(back[0].cookie, None);

    // The device can only read it, and not after it is gone.
    let mapped = |fake: &Fake| fake.device.borrow().mappings.len();
    let count = mapped(&fake);
    let region = back.pop().unwrap().region;
    assert!(
        fake.device.borrow().mappings.iter().any(|(_, memory, access)| memory.bytes() >= 60_000
            && *access == cryptonic_pci::DmaAccess::DeviceReads)
    );
    drop(region);
    assert_eq!(mapped(&fake), count - 1);
    assert!(matches!(nic.register_memory(0), Err(Error::Argument(_))));
    let kept = nic.register_memory(10).unwrap();
    drop(queue);
    nic.close().unwrap();
    assert_eq!(mapped(&fake), 0);
    assert!(kept.read(0, &mut [0; 11]).is_err());
}

#[test]
fn regions_split_and_join_only_where_they_touch() {
    let (_fake, mut nic, _queue) = set_up(SMALL);
    let mut first = nic.register_memory(100).unwrap();
    let mut second = first.split_off(40).unwrap();
    let third = second.split_off(10).unwrap();
    assert_eq!((first.bytes(), second.bytes(), third.bytes()), (40, 10, 50));
    assert!(third.read(50, &mut [0]).is_err() && second.write(9, &[1, 2]).is_err());
    assert!(second.write(usize::MAX, &[1]).is_err());
    let third = first.join(third).unwrap_err();
    let other = nic.register_memory(50).unwrap();
    assert!(second.join(other).is_err());
    second.join(third).unwrap();
    first.join(second).unwrap();
    assert_eq!(first.bytes(), 100);
    assert!(first.split_off(101).is_none());
}

#[test]
fn pieces_of_others_are_refused_and_come_back() {
    let (_fake, mut nic, mut queue) = set_up(SMALL);
    let (_other_fake, mut other_nic, mut other) = set_up(SMALL);
    let mut buffer = queue.take_buffer().unwrap();
    let foreign = other.take_buffer().unwrap();
    let (error, foreign) = queue.attach_buffer(&mut buffer, foreign).unwrap_err();
    assert_eq!(error, QueueError::Foreign);
    other.give_back(foreign).unwrap();
    let region: Region = other_nic.register_memory(10).unwrap();
    let (error, region) = queue.attach_region(&mut buffer, region).unwrap_err();
    assert_eq!((error, region.bytes()), (QueueError::Foreign, 10));
    let long = nic.register_memory(70_000).unwrap();
    let (error, long) = queue.attach_region(&mut buffer, long).unwrap_err();
    assert!(matches!(error, QueueError::Argument(_)) && long.bytes() == 70_000);
    // A chain hangs on no chain.
    let mut head = queue.take_buffer().unwrap();
    let tail = queue.take_buffer().unwrap();
    queue.attach_buffer(&mut head, tail).unwrap();
    assert!(matches!(queue.attach_buffer(&mut buffer, head), Err((QueueError::Argument(_), _))));
}

#[test]
fn chains_longer_than_the_device_takes_are_refused_and_longer_than_the_space_wait() {
    let (fake, _nic, mut queue) = set_up(QueuePairOptions { stride: 32, ..SMALL });
    let chain = |queue: &mut QueuePair, count: usize| {
        let mut buffer = filled(queue, &[1; 10]);
        for _ in 1..count {
            let more = filled(queue, &[2; 10]);
            queue.attach_buffer(&mut buffer, more).unwrap();
        }
        TransmitPacket::new(buffer, Protection::Clear, 0)
    };
    let most = usize::from(TRANSMIT_CHAIN);
    let mut batch = vec![chain(&mut queue, most + 1)];
    assert_eq!(queue.transmit(&mut batch), Err(QueueError::ChainTooLong { descriptors: most + 1, most }));
    assert_eq!(batch.len(), 1, "it stays with the caller");
    queue.give_back(batch.remove(0).buffer).unwrap();

    fake.device.borrow_mut().hold = true;
    let mut batch = vec![chain(&mut queue, most), chain(&mut queue, 3), chain(&mut queue, 2)];
    assert_eq!(queue.transmit(&mut batch), Ok(1));
    assert_eq!((batch.len(), queue.in_flight(), queue.transmit_space()), (2, most, 8 - most));
    fake.device.borrow_mut().hold = false;
    let deadline = queue.time() + Time::from_milliseconds(1);
    assert_eq!(queue.drain(deadline, &mut vec![]), Ok(1));
    assert_eq!(queue.transmit(&mut batch), Ok(2));
    let mut done = vec![];
    assert_eq!(queue.drain(deadline + Time::from_milliseconds(1), &mut done), Ok(2));
    assert_eq!(done.iter().map(|ended| ended.packets).sum::<u32>(), 2);

    // A completion that ends inside a packet cannot be true.
    fake.device.borrow_mut().on_transmit = Some(Box::new(|lie| {
        lie.completed.set_descriptors(1);
        lie.completed.set_tag(lie.completed.tag().wrapping_sub(2) & 7);
    }));
    let mut batch = vec![chain(&mut queue, 3)];
    queue.transmit(&mut batch).unwrap();
    queue.relax();
    let outcome = queue.completed(&mut vec![]);
    assert_eq!(outcome, Err(QueueError::Quarantined(Quarantine::InsidePacket)));
}

#[test]
fn a_push_is_used_when_nothing_is_in_flight_and_windows_alternate() {
    for (stride, inline) in
        [(64, InlinePolicy::WholeFrames), (128, InlinePolicy::WholeFrames), (128, InlinePolicy::Never)]
    {
        let options = QueuePairOptions { stride, inline, push: PushPolicy::WhenIdle, ..SMALL };
        let (fake, _nic, mut queue) = set_up(options);
        // The producer index in a push has 16 bits.
        let rounds = if inline == InlinePolicy::Never { 66_000 } else { 300 };
        fake.device.borrow_mut().keep_sent = false;
        for round in 0..rounds {
            let frame = bytes(stride as usize - 32, round);
            let buffer = filled(&mut queue, &frame);
            send(&mut queue, TransmitPacket::new(buffer, Protection::Clear, 0)).unwrap();
            assert_eq!(receive_one(&mut queue), frame);
        }
        let device = fake.device.borrow();
        assert_eq!((device.pushes_used, device.queues[0].transmit_rings), (rounds as u32, 0));
        assert!(device.pushes.iter().enumerate().all(|(index, at)| *at == PUSH_WINDOWS[index % 2]));
        drop(device);
        assert_eq!((queue.statistics().pushes, queue.statistics().doorbells), (rounds as u64, 0));

        // With something in flight, or with two packets, the doorbell is rung.
        fake.device.borrow_mut().hold = true;
        for count in [2, 1] {
            let mut batch: Vec<_> = (0..count)
                .map(|_| TransmitPacket::new(filled(&mut queue, &[1; 20]), Protection::Clear, 0))
                .collect();
            queue.transmit(&mut batch).unwrap();
        }
        assert_eq!((queue.statistics().pushes, queue.statistics().doorbells), (rounds as u64, 2));
    }
}

#[test]
fn a_host_that_cannot_push_rings() {
    let options = QueuePairOptions { push: PushPolicy::WhenIdle, ..SMALL };
    let (fake, _nic, mut queue) = set_up(options);
    fake.device.borrow_mut().no_pushes = true;
    for _ in 0..3 {
        let buffer = filled(&mut queue, &[7; 60]);
        send(&mut queue, TransmitPacket::new(buffer, Protection::Clear, 0)).unwrap();
        receive_one(&mut queue);
    }
    assert_eq!((queue.statistics().pushes, queue.statistics().doorbells), (0, 3));
}

#[test]
fn keys_cookies_and_inline_data_share_a_slot_and_only_data_stays() {
    let cookie = *b"a cookie";
    // (stride, policy, with cookie, inline bytes of a frame of 40)
    for (stride, inline, with_cookie, expected) in [
        (64, InlinePolicy::Never, false, 0),
        (64, InlinePolicy::WholeFrames, false, 0),
        (128, InlinePolicy::Never, true, 0),
        (128, InlinePolicy::WholeFrames, false, 40),
        (128, InlinePolicy::WholeFrames, true, 40),
        (128, InlinePolicy::Heads { bytes: 255 }, true, 40),
    ] {
        for push in [PushPolicy::Never, PushPolicy::WhenIdle] {
            let (fake, mut nic, mut queue) = set_up(QueuePairOptions { stride, inline, push, ..SMALL });
            let key = SecretKey::new(&KEY).unwrap();
            let id = queue.add_psp_key(1, 0x9a34_5678, &key).unwrap();
            let psp = PspTransmit {
                crypt_offset: 3,
                source_port: SourcePort::Table,
                cookie: with_cookie.then_some(cookie),
                ..PspTransmit::new(id)
            };
            let memory = nic.register_memory(100).unwrap();
            for chained in [false, true] {
                let frame = bytes(40, 1);
                let mut buffer = filled(&mut queue, &frame);
                if chained {
                    let more = queue.take_buffer().unwrap();
                    queue.attach_buffer(&mut buffer, more).unwrap();
                    let mut more = queue.take_buffer().unwrap();
                    queue.fill(&mut more, &[9; 50]).unwrap();
                    queue.attach_buffer(&mut buffer, more).unwrap();
                }
                let name = format!("{stride} {inline:?} {with_cookie} {push:?} {chained}");
                fake.device.borrow_mut().hold = true;
                let mut batch = vec![TransmitPacket::new(buffer, Protection::PspKey(psp), 0)];
                queue.transmit(&mut batch).unwrap();
                assert_eq!(places(&fake, &KEY), 1, "{name}: the key is in the ring");
                fake.device.borrow_mut().hold = false;
                let deadline = queue.time() + Time::from_milliseconds(1);
                assert_eq!(queue.drain(deadline, &mut vec![]), Ok(1));
                assert_eq!(
                    (places(&fake, &KEY[..8]), places(&fake, &KEY[24..])),
                    (0, 0),
                    "{name}: no longer"
                );
                if with_cookie {
                    assert_eq!(places(&fake, &cookie), 1, "{name}: in the completion alone");
                }
                let words = fake.device.borrow_mut().sent.pop().unwrap().0;
                let slot: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                assert_eq!(slot[32..64], KEY);
                let control = TransmitControl::from_bits(words[1]);
                assert_eq!((control.psp_cookie(), control.psp_source_port_policy()), (with_cookie, 3));
                let start = if with_cookie {
                    assert_eq!(slot[64..72], cookie);
                    72
                } else {
                    64
                };
                let inline_bytes = usize::from(TransmitExtent::from_bits(words[3]).inline_bytes());
                if !chained {
                    assert_eq!(inline_bytes, expected, "{name}");
                    assert_eq!(slot[start..start + inline_bytes], frame[..inline_bytes], "{name}");
                }
                let mut received = vec![];
                queue.receive(&mut received, 8).unwrap();
                assert_eq!(received[0].psp_cookie(), with_cookie.then_some(cookie), "{name}");
                queue.return_buffers(&mut received).unwrap();
            }
            drop(memory);
        }
    }
    // A cookie needs 128.
    let (_fake, _nic, mut queue) = set_up(QueuePairOptions { stride: 64, ..SMALL });
    let id = queue.add_psp_key(1, 1, &SecretKey::new(&KEY).unwrap()).unwrap();
    let psp = PspTransmit { cookie: Some(cookie), ..PspTransmit::new(id) };
    let buffer = filled(&mut queue, &[1; 40]);
    let mut batch = vec![TransmitPacket::new(buffer, Protection::PspKey(psp), 0)];
    assert_eq!(queue.transmit(&mut batch), Err(QueueError::NoRoomForKey));
}

/// What ends a queue pair with packets under way.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Drop,
    CloseNic,
    DropNic,
    Quarantine,
    Reset,
    Gone,
}

#[test]
fn no_key_is_left_whatever_ends_the_pair() {
    let ends = [End::Close, End::Drop, End::CloseNic, End::DropNic, End::Quarantine, End::Reset, End::Gone];
    for (stride, inline) in [
        (64, InlinePolicy::Never),
        (128, InlinePolicy::Never),
        (128, InlinePolicy::WholeFrames),
        (128, InlinePolicy::Heads { bytes: 20 }),
    ] {
        for end in ends {
            let options = QueuePairOptions { stride, inline, push: PushPolicy::WhenIdle, ..SMALL };
            let (fake, mut nic, mut queue) = set_up(options);
            let id = queue.add_psp_key(1, 5, &SecretKey::new(&KEY).unwrap()).unwrap();
            fake.device.borrow_mut().hold = true;
            for length in [1, 40, 60, 200] {
                let mut buffer = filled(&mut queue, &bytes(length, 0));
                let more = filled(&mut queue, &[1; 30]);
                queue.attach_buffer(&mut buffer, more).unwrap();
                let protection = Protection::PspKey(PspTransmit::new(id));
                queue.transmit(&mut vec![TransmitPacket::new(buffer, protection, 0)]).unwrap();
            }
            assert!(places(&fake, &KEY) == 1, "{stride} {inline:?} {end:?}");
            match end {
                End::Close => queue.close().unwrap(),
                End::Drop => drop(queue),
                End::CloseNic => nic.close().unwrap(),
                End::DropNic => drop(nic),
                End::Quarantine => {
                    fake.device.borrow_mut().on_transmit =
                        Some(Box::new(|lie| lie.completed.set_descriptors(0)));
                    fake.device.borrow_mut().hold = false;
                    queue.relax();
                    assert!(queue.completed(&mut vec![]).is_err());
                }
                End::Reset => {
                    // A command with a key that is not answered resets the device.
                    fake.device.borrow_mut().admin_silent = true;
                    assert!(
                        nic.psp_test_keys_load(cryptonic_driver::PspDeviceKeys::new(&[1; 32], &[2; 32]))
                            .is_err()
                    );
                    assert!(queue.transmit(&mut vec![]).is_err());
                    drop(queue);
                }
                End::Gone => {
                    fake.device.borrow_mut().gone = true;
                    drop(queue);
                }
            }
            for part in [&KEY[..8], &KEY[8..16], &KEY[16..24], &KEY[24..]] {
                assert_eq!(places(&fake, part), 0, "{stride} {inline:?} {end:?}");
            }
        }
    }
}

#[test]
fn offloads_are_bits_of_the_first_descriptor() {
    let (fake, _nic, mut queue) = set_up(QueuePairOptions { stride: 32, ..SMALL });
    let offload = Offload::NONE.ip_checksum().l4_checksum().segments(1448);
    let mut buffer = filled(&mut queue, &bytes(2000, 0));
    let more = filled(&mut queue, &bytes(2000, 0));
    queue.attach_buffer(&mut buffer, more).unwrap();
    send(&mut queue, TransmitPacket { offload, ..TransmitPacket::new(buffer, Protection::Clear, 0) })
        .unwrap();
    let buffer = filled(&mut queue, &[1; 60]);
    let offload = Offload::NONE.dummy();
    send(&mut queue, TransmitPacket { offload, ..TransmitPacket::new(buffer, Protection::Clear, 0) })
        .unwrap();
    let sent: Vec<_> = fake.device.borrow().sent.iter().map(|(words, _)| words.clone()).collect();
    let bits = |words: &[u64]| {
        let control = TransmitControl::from_bits(words[1]);
        let extent = TransmitExtent::from_bits(words[3]);
        (
            control.ip_checksum(),
            control.l4_checksum(),
            control.esp_dummy(),
            extent.maximum_segment(),
            extent.total_length(),
        )
    };
    assert_eq!(bits(&sent[0]), (true, true, false, 1448, 4000));
    assert_eq!(bits(&sent[1]), (false, false, true, 0, 60));
    assert_eq!(Offload::NONE.segments(20_000), Offload::NONE.segments(16_383));
}

#[test]
fn what_the_device_lacks_is_refused_before_anything_is_written() {
    // Given a device with none of it,
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(DESCRIPTOR_CAPABILITY.offset, 0b111);
    fake.device.borrow_mut().registers.insert(CHAIN_CAPABILITY.offset, 0);
    fake.device.borrow_mut().registers.insert(PROTOCOL_CAPABILITY.offset, 0b11);
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let everything = QueuePairOptions {
        inline: InlinePolicy::WholeFrames,
        push: PushPolicy::WhenIdle,
        receive_scatter: true,
        completion_hold_ns: 500,
        interrupt_completions: 4,
        transmit_slots: 2048,
        ..SMALL
    };
    // then a queue pair that wants all of it is told everything,
    let lacks = nic.information().capabilities.supports_queue(&everything).unwrap_err();
    assert_eq!(
        lacks.sentences().collect::<Vec<_>>(),
        [
            "the device does not support a ring of more than 1024 slots",
            "the device does not support inline data in descriptors",
            "the device does not support push windows",
            "the device does not support frames over several receive buffers",
            "the device does not support receive completions that wait for one another",
            "the device does not support interrupts that wait for more completions",
        ]
    );
    assert!(matches!(nic.create_queue_pair(everything), Err(Error::Unsupported(found)) if found == lacks));
    // and so is a packet.
    let mut queue = nic.create_queue_pair(SMALL).unwrap();
    let id = queue.add_psp_key(1, 5, &SecretKey::new(&KEY).unwrap()).unwrap();
    let psp = PspTransmit::new(id);
    let cases = [
        (Offload::NONE.segments(1000), Protection::Clear),
        (Offload::NONE.ip_checksum(), Protection::Clear),
        (Offload::NONE.l4_checksum(), Protection::Clear),
        (Offload::NONE.dummy(), Protection::Clear),
        (Offload::NONE, Protection::PspKey(PspTransmit { cookie: Some([1; 8]), ..psp })),
        (Offload::NONE, Protection::PspKey(PspTransmit { preformatted: true, ..psp })),
    ];
    for (offload, protection) in cases {
        let buffer = filled(&mut queue, &[1; 60]);
        let mut batch = vec![TransmitPacket { offload, ..TransmitPacket::new(buffer, protection, 0) }];
        let outcome = queue.transmit(&mut batch);
        assert!(matches!(outcome, Err(QueueError::Unsupported(_))), "{offload:?} {protection:?} {outcome:?}");
        queue.give_back(batch.remove(0).buffer).unwrap();
    }
    let mut buffer = filled(&mut queue, &[1; 60]);
    let more = filled(&mut queue, &[1; 60]);
    queue.attach_buffer(&mut buffer, more).unwrap();
    let mut batch = vec![TransmitPacket::new(buffer, Protection::Clear, 0)];
    assert_eq!(queue.transmit(&mut batch), Err(QueueError::ChainTooLong { descriptors: 2, most: 1 }));
    assert_eq!(places(&fake, &KEY), 0);
}
