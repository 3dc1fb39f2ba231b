//! Moving packets against a small device, honest and not.

mod fake;

use cryptonic_driver::{
    Cipher, Direction, Error, InlinePolicy, Mode, Nic, Offload, OpenOptions, Protection, PspTransmit,
    PushPolicy, Quarantine, QueueError, QueuePair, QueuePairOptions, ReceivedProtocol, SaConfiguration,
    SaHandle, SecretKey, SourcePort, Status, Time, TransmitPacket, Wake,
};
use cryptonic_regs::bar0::{QUEUE_PAIR_STRIDE, QUEUE_STATUS, QueueStatus};
use cryptonic_regs::completion::{ReceiveCompletion, TransmitCompletion};
use cryptonic_regs::descriptor::{TransmitControl, TransmitPsp};
use fake::Fake;
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

const SMALL: QueuePairOptions = QueuePairOptions {
    index: None,
    transmit_slots: 8,
    receive_slots: 8,
    stride: 32,
    buffer_bytes: 2048,
    clear_allowed: true,
    ..QueuePairOptions::new()
};

fn set_up(options: QueuePairOptions) -> (Fake, Nic, QueuePair) {
    let fake = Fake::new();
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let queue = nic.create_queue_pair(options).unwrap();
    (fake, nic, queue)
}

fn packets(queue: &mut QueuePair, count: usize, protection: Protection) -> Vec<TransmitPacket> {
    (0..count)
        .map_while(|number| {
            let mut buffer = queue.take_buffer()?;
            queue.fill(&mut buffer, &[number as u8; 60]).unwrap();
            Some(TransmitPacket::new(buffer, protection, number as u64))
        })
        .collect()
}

fn soon(queue: &QueuePair) -> Time {
    queue.time() + Time::from_milliseconds(1)
}

#[test]
fn frames_come_back_as_they_were_sent_over_many_passes() {
    for (stride, slots) in [(32, 2), (32, 8), (64, 8), (32, 128)] {
        let options = QueuePairOptions { stride, transmit_slots: slots, receive_slots: slots, ..SMALL };
        let (_fake, nic, mut queue) = set_up(options);
        let (mut done, mut received, mut back) = (vec![], vec![], vec![0; 2048]);
        // 8-bit tag generations wrap in this many rounds.
        for round in 0..600usize {
            let count = round % slots as usize + 1;
            let mut batch = vec![];
            for number in 0..count {
                let mut buffer = queue.take_buffer().unwrap();
                let frame: Vec<u8> =
                    (0..60 + round % 1400).map(|index| (index * 7 + number + round) as u8).collect();
                queue.fill(&mut buffer, &frame[..30]).unwrap();
                queue.append(&mut buffer, &frame[30..]).unwrap();
                batch.push(TransmitPacket::new(buffer, Protection::Clear, (round * 1000 + number) as u64));
            }
            assert_eq!(queue.transmit(&mut batch).unwrap(), count);
            assert!(batch.is_empty());
            assert_eq!(queue.drain(soon(&queue), &mut done).unwrap(), count);
            assert_eq!(done.iter().map(|done| done.packets as usize).sum::<usize>(), count);
            let last = done.last().unwrap();
            assert_eq!((last.cookie, last.status), ((round * 1000 + count - 1) as u64, Status::Ok));
            done.clear();
            assert_eq!(queue.receive(&mut received, usize::MAX).unwrap(), count);
            // Buffers go back in another order than they came.
            if round % 3 == 0 {
                received.reverse();
            }
            for (number, received) in received.drain(..).enumerate() {
                let number = if round % 3 == 0 { count - 1 - number } else { number };
                assert_eq!(received.protocol(), ReceivedProtocol::Clear);
                let length = queue.copy_out(received, &mut back).unwrap();
                assert_eq!(length, 60 + round % 1400);
                assert!((0..length).all(|index| back[index] == (index * 7 + number + round) as u8));
            }
        }
        assert_eq!((queue.in_flight(), queue.receive_held()), (0, 0));
        queue.close().unwrap();
        nic.close().unwrap();
    }
}

#[test]
fn a_full_ring_takes_what_fits_with_one_doorbell() {
    let (fake, _nic, mut queue) = set_up(SMALL);
    fake.device.borrow_mut().hold = true;
    let mut batch = packets(&mut queue, 12, Protection::Clear);
    assert_eq!(batch.len(), 12);
    assert_eq!(queue.transmit(&mut batch).unwrap(), 8);
    assert_eq!((batch.len(), queue.transmit_space(), queue.in_flight()), (4, 0, 8));
    assert_eq!(batch[0].cookie, 8);
    assert_eq!(queue.transmit(&mut batch).unwrap(), 0);
    assert_eq!(fake.device.borrow().queues[0].transmit_rings, 1);
    assert!(matches!(queue.drain(soon(&queue), &mut vec![]), Err(QueueError::Deadline)));
    fake.device.borrow_mut().hold = false;
    assert_eq!(queue.drain(soon(&queue), &mut vec![]).unwrap(), 8);
    assert_eq!(queue.transmit(&mut batch).unwrap(), 4);
    assert_eq!(queue.drain(soon(&queue), &mut vec![]).unwrap(), 4);
}

fn installed(nic: &mut Nic) -> SaHandle {
    let key = SecretKey::new(&[9; 16]).unwrap();
    let sa = SaConfiguration::new(Direction::Out, Mode::Transport, Cipher::AesGcm128, key, [0; 4], 0x1001);
    nic.install_sa(sa).unwrap()
}

#[test]
fn a_fault_of_a_packet_is_a_status_and_no_quarantine() {
    let (_fake, mut nic, mut queue) = set_up(QueuePairOptions { clear_allowed: false, ..SMALL });
    let mut batch = packets(&mut queue, 2, Protection::Clear);
    let stale = installed(&mut nic);
    nic.delete_sa(stale).unwrap();
    batch.extend(packets(&mut queue, 1, Protection::Sa(stale)));
    queue.transmit(&mut batch).unwrap();
    let mut done = vec![];
    queue.drain(soon(&queue), &mut done).unwrap();
    let found: Vec<_> = done.iter().map(|done| (done.packets, done.status)).collect();
    assert_eq!(found, [(1, Status::ClearNotAllowed), (1, Status::ClearNotAllowed), (1, Status::StaleSa)]);
    assert_eq!(queue.quarantine(), None);
}

#[test]
fn an_sa_of_another_nic_never_reaches_the_device() {
    // Given two NICs whose SAs have the same slot and generation,
    let (fake, mut nic, mut queue) = set_up(SMALL);
    let (_other_fake, mut other, _other_queue) = set_up(SMALL);
    let (ours, theirs) = (installed(&mut nic), installed(&mut other));
    assert_eq!((ours.index, ours.generation), (theirs.index, theirs.generation));
    assert_ne!(ours, theirs);
    // when packets are protected by either, then those of the other stay with the caller.
    let mut batch = packets(&mut queue, 1, Protection::Sa(ours));
    batch.extend(packets(&mut queue, 1, Protection::Sa(theirs)));
    assert_eq!(queue.transmit(&mut batch), Ok(1));
    assert_eq!(queue.transmit(&mut batch), Err(QueueError::ForeignSa));
    assert_eq!((batch.len(), queue.in_flight()), (1, 1));
    // Nor with anything that is special about the packet.
    batch[0].offload = Offload::NONE.l4_checksum();
    assert_eq!(queue.transmit(&mut batch), Err(QueueError::ForeignSa));
    queue.drain(soon(&queue), &mut vec![]).unwrap();
    assert_eq!(fake.device.borrow().sas[&ours.index].packets, 1);
    // What was received names ours, with either form of completion.
    let mut received = vec![];
    queue.receive(&mut received, 8).unwrap();
    assert_eq!(received[0].sa(), Some(ours));
    queue.return_buffers(&mut received).unwrap();
    // The NIC refuses them too.
    assert!(matches!(nic.query_sa(theirs), Err(Error::UnknownSa)));
    assert!(matches!(nic.delete_sa(theirs), Err(Error::UnknownSa)));
    assert!(matches!(nic.arm_sa(theirs, 1), Err(Error::UnknownSa)));
}

#[test]
fn what_belongs_elsewhere_is_refused_and_stays_with_the_caller() {
    let (_fake, mut nic, mut queue) = set_up(QueuePairOptions { stride: 64, ..SMALL });
    let mut other = nic.create_queue_pair(QueuePairOptions { stride: 64, ..SMALL }).unwrap();
    assert_ne!(queue.index(), other.index());
    let key = SecretKey::new(&[3; 16]).unwrap();
    let id = queue.add_psp_key(0, 1, &key).unwrap();
    assert!(matches!(queue.add_psp_key(1, 1, &key), Err(QueueError::Argument(_))));

    let mut batch = packets(&mut queue, 1, Protection::Clear);
    assert_eq!(other.transmit(&mut batch), Err(QueueError::Foreign));
    assert_eq!(other.fill(&mut batch[0].buffer, &[0]), Err(QueueError::Foreign));
    assert_eq!(
        queue.fill(&mut batch[0].buffer, &[0; 2049]),
        Err(QueueError::TooLong { bytes: 2049, room: 2048 })
    );
    assert_eq!(batch.len(), 1);
    // Packets before the one that cannot be sent are sent.
    let mut mixed = packets(&mut other, 1, Protection::Clear);
    mixed.extend(packets(&mut other, 1, Protection::PspKey(PspTransmit::new(id))));
    assert_eq!(other.transmit(&mut mixed), Ok(1));
    assert_eq!(other.transmit(&mut mixed), Err(QueueError::Foreign));

    queue.remove_psp_key(id).unwrap();
    let mut gone = packets(&mut queue, 1, Protection::PspKey(PspTransmit::new(id)));
    assert_eq!(queue.transmit(&mut gone), Err(QueueError::UnknownKey));
    let replacement = queue.add_psp_key(0, 2, &key).unwrap();
    assert_eq!(queue.transmit(&mut gone), Err(QueueError::UnknownKey), "a place is not a key");
    assert_ne!(id, replacement);
    assert!(!format!("{:?} {:?}", key, gone).contains("3, 3"));

    let mut plain = nic.create_queue_pair(SMALL).unwrap();
    assert_eq!(plain.add_psp_key(0, 1, &key), Err(QueueError::NoRoomForKey));
}

#[test]
fn received_buffers_go_back_to_their_own_pair_once() {
    let (_fake, mut nic, mut queue) = set_up(SMALL);
    let mut other = nic.create_queue_pair(SMALL).unwrap();
    let mut received = vec![];
    for queue in [&mut queue, &mut other] {
        let mut batch = packets(queue, 2, Protection::Clear);
        queue.transmit(&mut batch).unwrap();
        queue.drain(soon(queue), &mut vec![]).unwrap();
        assert_eq!(queue.receive(&mut received, 8), Ok(2));
    }
    assert_eq!(queue.receive_held(), 2);
    assert_eq!(queue.return_buffers(&mut received), Err(QueueError::Foreign));
    assert_eq!((queue.receive_held(), received.len()), (0, 2));
    assert_eq!(queue.read(&received[0], 0, &mut [0; 60]), Err(QueueError::Foreign));
    other.return_buffers(&mut received).unwrap();
    assert_eq!((other.receive_held(), received.len()), (0, 0));
}

#[test]
fn options_are_checked() {
    let (_fake, mut nic, _queue) = set_up(SMALL);
    for options in [
        QueuePairOptions { transmit_slots: 6, ..SMALL },
        QueuePairOptions { receive_slots: 1, ..SMALL },
        QueuePairOptions { receive_slots: 2048, ..SMALL },
        QueuePairOptions { stride: 256, ..SMALL },
        QueuePairOptions { stride: 48, ..SMALL },
        QueuePairOptions { push: PushPolicy::WhenIdle, ..SMALL },
        QueuePairOptions { inline: InlinePolicy::WholeFrames, ..SMALL },
        QueuePairOptions { buffer_bytes: 32768, ..SMALL },
        QueuePairOptions { buffer_bytes: 1500, ..SMALL },
        QueuePairOptions { vector: Some(6), ..SMALL },
        QueuePairOptions { index: Some(4), ..SMALL },
        QueuePairOptions { index: Some(0), ..SMALL },
    ] {
        assert!(nic.create_queue_pair(options).is_err(), "{options:?}");
    }
    let pairs: Vec<_> = (0..3).map(|_| nic.create_queue_pair(SMALL).unwrap()).collect();
    assert!(matches!(nic.create_queue_pair(SMALL), Err(Error::NoFreeQueue)));
    drop(pairs);
    assert_eq!(nic.create_queue_pair(SMALL).unwrap().index(), 1);
}

#[test]
fn psp_keys_stand_in_the_ring_no_longer_than_needed() {
    let (fake, _nic, mut queue) = set_up(QueuePairOptions { stride: 64, ..SMALL });
    fake.device.borrow_mut().keep_sent = true;
    let key = SecretKey::new(b"a psp key in it!").unwrap();
    let id = queue.add_psp_key(0, 0x9a34_5678, &key).unwrap();
    let how = PspTransmit {
        crypt_offset: 5,
        source_port: SourcePort::Fixed(1234),
        drop: true,
        ..PspTransmit::new(id)
    };
    let mut batch = packets(&mut queue, 3, Protection::PspKey(how));
    queue.transmit(&mut batch).unwrap();
    queue.drain(soon(&queue), &mut vec![]).unwrap();
    for (words, _) in &fake.device.borrow().sent {
        assert_eq!(words[4].to_le_bytes(), *b"a psp ke");
        assert_eq!(words[5].to_le_bytes(), *b"y in it!");
        let control = TransmitControl::from_bits(words[1]);
        assert_eq!((control.security(), control.psp_crypt_offset(), control.psp_drop()), (2, 5, true));
        let psp = TransmitPsp::from_bits(words[2]);
        assert_eq!((psp.spi(), psp.source_port(), control.psp_source_port_policy()), (0x9a34_5678, 1234, 2));
    }
    for memory in &fake.device.borrow().all_memory {
        let mut bytes = vec![0; memory.bytes()];
        memory.read(0, &mut bytes).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"a psp ke"));
    }
}

#[test]
fn waiting_sees_interrupts_completions_and_deadlines() {
    for (lose, none) in [(false, false), (true, false), (false, true)] {
        let fake = Fake::new();
        fake.device.borrow_mut().lose_interrupts = lose;
        fake.device.borrow_mut().no_interrupts = none;
        let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
        let mut queue = nic.create_queue_pair(SMALL).unwrap();
        let deadline = soon(&queue);
        assert_eq!(queue.wait(deadline), Ok(Wake::Deadline));
        assert!(queue.time() >= deadline);
        let mut batch = packets(&mut queue, 1, Protection::Clear);
        queue.transmit(&mut batch).unwrap();
        let deadline = soon(&queue);
        assert_eq!(queue.wait(deadline), Ok(Wake::Interrupt));
        assert_eq!(queue.time() >= deadline, lose);
        // What is there already needs no interrupt.
        assert_eq!(queue.wait(deadline), Ok(Wake::Interrupt));
    }
}

#[test]
fn a_device_that_stops_a_pair_or_goes_away_is_noticed() {
    let (fake, mut nic, mut queue) = set_up(SMALL);
    let status = QueueStatus::new().with_quarantined(true).with_cause(Status::RingDmaFault.number() as u16);
    let register = QUEUE_STATUS.instance(queue.index(), QUEUE_PAIR_STRIDE);
    fake.device.borrow_mut().registers.insert(register.offset, status.into_bits());
    let deadline = soon(&queue);
    assert_eq!(queue.wait(deadline), Err(QueueError::Quarantined(Quarantine::DeviceStopped)));
    assert_eq!(queue.device_cause(), Some(Status::RingDmaFault));

    let mut other = nic.create_queue_pair(SMALL).unwrap();
    fake.device.borrow_mut().gone = true;
    let deadline = soon(&other);
    assert_eq!(other.wait(deadline), Err(QueueError::Gone));
    assert!(matches!(nic.psp_rotate(), Err(Error::Gone)));
    assert!(nic.statistics().is_err());
    drop(other);
    drop(nic);
    assert!(fake.device.borrow().mappings.is_empty());
}

/// Sends and receives until nothing moves; the first error of the queue pair.
fn exercise(queue: &mut QueuePair) -> Result<(), QueueError> {
    for _ in 0..3 {
        let mut batch = packets(queue, 3, Protection::Clear);
        queue.transmit(&mut batch)?;
        queue.relax();
        queue.completed(&mut vec![])?;
        let mut received = vec![];
        queue.receive(&mut received, 8)?;
        let mut bytes = [0; 16];
        for received in received {
            queue.copy_out(received, &mut bytes)?;
        }
    }
    Ok(())
}

fn assert_quarantined(fake: &Fake, nic: &mut Nic, queue: &mut QueuePair, reason: Quarantine, name: &str) {
    assert_eq!(exercise(queue), Err(QueueError::Quarantined(reason)), "{name}");
    assert_eq!(queue.quarantine(), Some(reason), "{name}");
    assert_eq!(exercise(queue), Err(QueueError::Quarantined(reason)), "{name}: for good");
    // Its memory is out of reach, the NIC and its other pairs work on.
    assert_eq!(fake.device.borrow().mappings.len(), 2, "{name}");
    assert_eq!(nic.statistics().unwrap().quarantines(reason), 1, "{name}");
    fake.device.borrow_mut().on_transmit = None;
    fake.device.borrow_mut().on_receive = None;
    let mut other = nic.create_queue_pair(SMALL).unwrap();
    assert_eq!(exercise(&mut other), Ok(()), "{name}");
}

#[test]
fn hostile_transmit_completions() {
    type Lie = fn(&mut TransmitCompletion);
    let cases: [(&str, Lie, Quarantine); 9] = [
        ("tag 8 of 8", |lie| lie.completed.set_tag(8), Quarantine::TagOutOfRange),
        ("tag of all ones", |lie| lie.completed.set_tag(u16::MAX), Quarantine::TagOutOfRange),
        ("another tag", |lie| lie.completed.set_tag(lie.completed.tag() ^ 1), Quarantine::TagMismatch),
        ("a stale generation", |lie| lie.completed.set_tag_generation(255), Quarantine::StaleGeneration),
        ("no descriptors", |lie| lie.completed.set_descriptors(0), Quarantine::NoDescriptors),
        ("too many", |lie| lie.completed.set_descriptors(9), Quarantine::TooManyDescriptors),
        ("all there are", |lie| lie.completed.set_descriptors(u16::MAX), Quarantine::TooManyDescriptors),
        ("no status", |lie| lie.end.set_status(31), Quarantine::UnknownStatus),
        ("a receive status", |lie| lie.end.set_status(70), Quarantine::UnknownStatus),
    ];
    for (name, lie, reason) in cases {
        let (fake, mut nic, mut queue) = set_up(SMALL);
        fake.device.borrow_mut().on_transmit = Some(Box::new(lie));
        assert_quarantined(&fake, &mut nic, &mut queue, reason, name);
    }
}

#[test]
fn hostile_receive_completions() {
    type Lie = fn(&mut ReceiveCompletion);
    let cases: [(&str, Lie, Quarantine); 14] = [
        ("tag 8 of 8", |lie| lie.completed.set_tag(8), Quarantine::TagOutOfRange),
        ("tag of all ones", |lie| lie.completed.set_tag(u16::MAX), Quarantine::TagOutOfRange),
        ("a stale generation", |lie| lie.completed.set_tag_generation(0), Quarantine::StaleGeneration),
        ("the same buffer twice", |lie| lie.completed.set_tag(0), Quarantine::NotPosted),
        ("one byte too long", |lie| lie.completed.set_length(2049), Quarantine::LengthTooLong),
        ("much too long", |lie| lie.completed.set_length(u16::MAX), Quarantine::LengthTooLong),
        ("no bytes", |lie| lie.completed.set_length(0), Quarantine::LengthZero),
        ("no status", |lie| lie.end.set_status(u16::MAX), Quarantine::UnknownStatus),
        ("a transmit status", |lie| lie.end.set_status(2), Quarantine::UnknownStatus),
        ("no protocol", |lie| lie.steering.set_protocol(3), Quarantine::UnknownProtocol),
        (
            "a huge SA slot",
            |lie| {
                lie.completed.set_sa_index(0xff_ffff);
                lie.sa_generation = 1;
            },
            Quarantine::SaOutOfRange,
        ),
        ("a slot without a generation", |lie| lie.completed.set_sa_index(1), Quarantine::SaOutOfRange),
        ("a huge generation", |lie| lie.sa_generation = 1 << 32, Quarantine::SaOutOfRange),
        ("ESP without an SA", |lie| lie.steering.set_protocol(1), Quarantine::SaOutOfRange),
    ];
    for (name, lie, reason) in cases {
        let (fake, mut nic, mut queue) = set_up(SMALL);
        fake.device.borrow_mut().on_receive = Some(Box::new(lie));
        assert_quarantined(&fake, &mut nic, &mut queue, reason, name);
    }
}

#[test]
fn a_completion_in_the_wrong_phase_is_none() {
    let (fake, _nic, mut queue) = set_up(SMALL);
    fake.device.borrow_mut().on_transmit = Some(Box::new(|lie| lie.end.set_phase(false)));
    fake.device.borrow_mut().on_receive = Some(Box::new(|lie| lie.end.set_phase(false)));
    assert_eq!(exercise(&mut queue), Ok(()));
    assert!(queue.in_flight() > 0);
    assert_eq!(queue.quarantine(), None);
}

#[test]
fn quarantine_takes_the_memory_away_before_it_zeroises_keys() {
    let (fake, _nic, mut queue) = set_up(QueuePairOptions { stride: 64, ..SMALL });
    let id = queue.add_psp_key(0, 1, &SecretKey::new(b"a psp key in it!").unwrap()).unwrap();
    fake.device.borrow_mut().on_transmit = Some(Box::new(|lie| lie.completed.set_descriptors(0)));
    let mut batch = packets(&mut queue, 3, Protection::PspKey(PspTransmit::new(id)));
    queue.transmit(&mut batch).unwrap();
    queue.relax();
    assert!(queue.completed(&mut vec![]).is_err());
    let device = fake.device.borrow();
    assert_eq!(device.mappings.len(), 2);
    for memory in &device.all_memory {
        let mut bytes = vec![0; memory.bytes()];
        memory.read(0, &mut bytes).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"a psp ke"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics_and_never_passes_for_more_than_it_can(
        transmit in any::<[u64; 4]>(),
        receive in any::<[u64; 8]>(),
        masks in any::<[u64; 12]>(),
        sparse in any::<bool>(),
    ) {
        let (fake, _nic, mut queue) = set_up(SMALL);
        // Sparse garbage changes a few bits of an honest completion, and so comes further.
        let mix = move |honest: u64, garbage: u64, mask: u64| {
            let mask = if sparse { mask & mask.rotate_left(7) & mask.rotate_left(23) & mask.rotate_left(41) } else { !0 };
            honest & !mask | garbage & mask
        };
        fake.device.borrow_mut().on_transmit = Some(Box::new(move |lie| {
            let mut words = lie.to_words();
            for (index, word) in words.iter_mut().enumerate() {
                *word = mix(*word, transmit[index], masks[index]);
            }
            *lie = TransmitCompletion::of_words(&words);
        }));
        fake.device.borrow_mut().on_receive = Some(Box::new(move |lie| {
            let mut words = lie.to_words();
            for (index, word) in words.iter_mut().enumerate() {
                *word = mix(*word, receive[index], masks[4 + index]);
            }
            *lie = ReceiveCompletion::of_words(&words);
        }));
        for _ in 0..4 {
            let mut batch = packets(&mut queue, 3, Protection::Clear);
            let _ = queue.transmit(&mut batch);
            queue.relax();
            let _ = queue.completed(&mut vec![]);
            let mut received = vec![];
            let _ = queue.receive(&mut received, 8);
            prop_assert!(received.len() <= 8 && queue.in_flight() <= 8);
            let mut bytes = vec![0; 4096];
            for received in received {
                prop_assert!(received.length() <= 2048);
                let _ = (format!("{received:?}"), received.sa(), received.status());
                prop_assert!(queue.copy_out(received, &mut bytes).is_ok_and(|length| length <= 2048));
            }
        }
    }
}
