//! Which way an SA goes, and what the driver keeps of a key that it uses itself. The bytes are in the tests of the
//! workspace, against captures that are not ours.

mod fake;

use cryptonic_driver::{
    Cipher, Direction, Error, EventCause, Installation, KeyLedger, Lifetime, LifetimeKind, Mode, Nic,
    OpenOptions, OuterHeader, Protection, PspInstallation, PspSaConfiguration, QueueError, QueuePairOptions,
    SaConfiguration, SecretKey, SoftwareSa, Status, Time, TransmitPacket,
};
use cryptonic_regs::bar0::{CIPHER_CAPABILITY, PROTOCOL_CAPABILITY, TIME_PICOSECONDS};
use fake::Fake;

/// An Ethernet frame with an IPv4 and a UDP header and 20 bytes; the sums are those of the headers.
fn frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 48, 0, 0, 0x40, 0, 64, 17, 0x26, 0xbb, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x04, 0xd2, 0x16, 0x2e, 0, 28, 0, 0]);
    frame.extend([0x5a; 20]);
    frame
}

fn sa(direction: Direction) -> SaConfiguration {
    let key = SecretKey::new(&[7; 24]).unwrap();
    SaConfiguration::new(direction, Mode::Transport, Cipher::AesGcm192, key, [1, 2, 3, 4], 0x1001)
}

fn open(fake: &Fake, ledger: &KeyLedger) -> Nic {
    let options = OpenOptions { key_ledger: ledger.clone(), ..OpenOptions::default() };
    Nic::open(fake.host(), options).unwrap()
}

fn software(nic: &mut Nic, sa: SaConfiguration) -> Box<SoftwareSa> {
    match nic.install_sa_or_software(sa).unwrap() {
        Installation::Software(sa) => sa,
        Installation::Device(handle) => panic!("the device has no such cipher: {handle:?}"),
    }
}

#[test]
fn an_sa_goes_where_it_can_be_served() {
    // Given a device without AES-GCM-192,
    let fake = Fake::new();
    let mut nic = open(&fake, &KeyLedger::new());
    let found = nic.install_sa_or_software(sa(Direction::Out)).unwrap();
    assert!(matches!(found, Installation::Software(_)));
    assert!(fake.device.borrow().parameters.is_empty(), "the key stayed here");
    assert!(!format!("{found:?}").contains("7, 7"));
    // and one with it,
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(CIPHER_CAPABILITY.offset, 0x7f);
    let mut nic = open(&fake, &KeyLedger::new());
    assert!(matches!(nic.install_sa_or_software(sa(Direction::Out)), Ok(Installation::Device(_))));
    // then what is no SA at all goes nowhere.
    let nonsense = SaConfiguration { icv_bytes: 9, ..sa(Direction::In) };
    assert!(matches!(nic.install_sa_or_software(nonsense), Err(Error::Argument(_))));

    let psp = || PspSaConfiguration::new(0, SecretKey::new(&[9; 16]).unwrap(), 5);
    let found = nic.install_psp_sa_or_software(psp()).unwrap();
    assert!(matches!(found, PspInstallation::Device(_)));
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(PROTOCOL_CAPABILITY.offset, 1);
    let mut nic = open(&fake, &KeyLedger::new());
    assert!(matches!(nic.install_psp_sa_or_software(psp()), Ok(PspInstallation::Software(_))));
}

#[test]
fn a_frame_goes_through_the_device_in_clear_and_comes_out_opened() {
    let fake = Fake::new();
    fake.device.borrow_mut().keep_sent = true;
    let mut nic = open(&fake, &KeyLedger::new());
    let mut queue = nic
        .create_queue_pair(QueuePairOptions { clear_allowed: true, ..QueuePairOptions::default() })
        .unwrap();
    let mut out = software(&mut nic, sa(Direction::Out));
    let mut back = software(&mut nic, sa(Direction::In));
    for sequence in 1..=3 {
        let mut buffer = queue.take_buffer().unwrap();
        assert_eq!(queue.fill_protected(&mut buffer, &frame(), &mut out), Ok(sequence));
        assert_eq!(buffer.length(), frame().len() + 16 + 4 + 16, "header, trailer and ICV");
        queue.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Clear, 0)]).unwrap();
    }
    queue.drain(queue.time() + Time::from_milliseconds(1), &mut vec![]).unwrap();
    let mut received = vec![];
    queue.receive(&mut received, 8).unwrap();
    for (index, received) in received.iter().enumerate() {
        let mut bytes = vec![0; received.length()];
        queue.read(received, 0, &mut bytes).unwrap();
        assert!(!bytes.windows(8).any(|window| window == [0x5a; 8]), "it shows");
        // Tampered with, it does not open; then it does, once.
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(back.open(&other).unwrap_err(), Status::IcvMismatch);
        let (opened, found) = back.open(&bytes).unwrap();
        assert_eq!((opened, found.sequence, found.next_header), (&frame()[..], index as u64 + 1, 17));
        assert_eq!(back.open(&bytes).unwrap_err(), Status::ReplayDuplicate);
    }
    assert_eq!(back.sequence(), 3);
    // The wrong way round, and what is none of theirs.
    assert_eq!(out.open(&frame()).unwrap_err(), Status::WrongDirection);
    assert_eq!(back.protect(&frame()).unwrap_err(), Status::WrongDirection);
    assert_eq!(back.open(&frame()).unwrap_err(), Status::NoSa);
    assert_eq!(back.open(&[]).unwrap_err(), Status::NoSa);
    // What is refused takes no number and leaves nothing to be sent.
    let mut buffer = queue.take_buffer().unwrap();
    queue.fill(&mut buffer, &frame()).unwrap();
    let refused = queue.fill_protected(&mut buffer, &[0; 60], &mut out);
    assert_eq!((refused, buffer.length(), out.sequence()), (Err(QueueError::Refused(Status::NotIp)), 0, 3));
}

#[test]
fn a_key_in_software_stands_in_the_ledger() {
    let fake = Fake::new();
    let ledger = KeyLedger::new();
    let mut nic = open(&fake, &ledger);
    let mut first = software(&mut nic, SaConfiguration { sequence: 10, ..sa(Direction::Out) });
    assert!(matches!(nic.install_sa_or_software(sa(Direction::Out)), Err(Error::KeyInUse)));
    for _ in 0..5 {
        first.protect(&frame()).unwrap();
    }
    // The driver's SA outlives its NIC; the key comes free with the SA.
    drop(nic);
    let mut nic = open(&fake, &ledger);
    assert!(matches!(nic.install_sa_or_software(sa(Direction::Out)), Err(Error::KeyInUse)));
    drop(first);
    let refused = nic.install_sa_or_software(SaConfiguration { sequence: 14, ..sa(Direction::Out) });
    assert!(matches!(refused, Err(Error::KeyReused { lowest: Some(15) })), "{refused:?}");
    let mut second = software(&mut nic, SaConfiguration { sequence: 15, ..sa(Direction::Out) });
    assert_eq!(second.protect(&frame()).unwrap().1, 16);

    // Numbers end, and do not wrap.
    drop(second);
    let last = u64::from(u32::MAX) - 1;
    let mut third = software(&mut nic, SaConfiguration { sequence: last, ..sa(Direction::Out) });
    third.protect(&frame()).unwrap();
    assert_eq!(third.protect(&frame()).unwrap_err(), Status::SequenceExhausted);
}

#[test]
fn psp_ivs_rise_from_the_iv_clock_of_the_device() {
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(PROTOCOL_CAPABILITY.offset, 1);
    let clock = |now: u32| {
        fake.device.borrow_mut().registers.insert(TIME_PICOSECONDS.offset, now);
    };
    clock(400);
    let ledger = KeyLedger::new();
    let mut nic = open(&fake, &ledger);
    let psp = || PspSaConfiguration {
        mode: Mode::Tunnel,
        outer: Some(OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())),
        ..PspSaConfiguration::new(0, SecretKey::new(&[9; 16]).unwrap(), 5)
    };
    // Without an epoch none leaves, as from a device.
    let mut sa = nic.software_psp_sa(psp()).unwrap();
    assert_eq!(sa.protect(&frame()).unwrap_err(), Status::PspNoEpoch);
    drop(sa);
    nic.psp_set_epoch(600).unwrap();
    let mut sa = nic.software_psp_sa(psp()).unwrap();
    let ivs: Vec<u64> = (0..3).map(|_| sa.protect(&frame()).unwrap().1).collect();
    assert_eq!(ivs, [1000, 1001, 1002]);
    assert_eq!(sa.protect(&[0; 60]).unwrap_err(), Status::NotIp);
    assert_eq!(sa.protect(&frame()).unwrap().1, 1003);
    assert!(sa.load_test_iv(1).is_err());
    drop(sa);
    // The clock stands behind what was used.
    assert!(matches!(nic.software_psp_sa(psp()), Err(Error::KeyReused { lowest: Some(1004) })));
    clock(404);
    assert!(nic.software_psp_sa(psp()).is_ok());
}

/// As [`frame`], of another length.
fn frame_of(payload: usize) -> Vec<u8> {
    let mut frame = frame();
    frame.truncate(42);
    frame.resize(42 + payload, 0x5a);
    frame[16..18].copy_from_slice(&(28 + payload as u16).to_be_bytes());
    frame[38..40].copy_from_slice(&(8 + payload as u16).to_be_bytes());
    let sum: u32 = [14, 16, 18, 20, 22, 26, 28, 30, 32]
        .iter()
        .map(|at| u32::from(u16::from_be_bytes([frame[*at], frame[at + 1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame
}

#[test]
fn a_software_sa_stops_where_a_slot_of_the_device_does() {
    let fake = Fake::new();
    let packet_bytes = (frame().len() - 14) as u64;
    // Limit, packets that pass, what the second end counts: a limit of packets passes exactly so many; of bytes it
    // refuses the packet that would begin at or past it.
    for (lifetime, used, passing) in [
        (Lifetime::packets(None, Some(1)), 0, 1),
        (Lifetime::packets(Some(2), Some(3)), 0, 3),
        (Lifetime::packets(Some(2), Some(5)), 3, 2),
        (Lifetime::bytes(None, Some(1)), 0, 1),
        (Lifetime::bytes(Some(1), Some(packet_bytes)), 0, 1),
        (Lifetime::bytes(Some(1), Some(packet_bytes + 1)), 0, 2),
        (Lifetime::bytes(Some(1), Some(3 * packet_bytes)), packet_bytes, 2),
    ] {
        let mut nic = open(&fake, &KeyLedger::new());
        let limited = |direction| SaConfiguration { lifetime, packets: used, bytes: used, ..sa(direction) };
        let mut out = software(&mut nic, limited(Direction::Out));
        let mut back = software(&mut nic, limited(Direction::In));
        let mut unlimited = nic
            .software_sa(SaConfiguration { key: SecretKey::new(&[8; 24]).unwrap(), ..sa(Direction::Out) })
            .unwrap();
        for sequence in 1..=passing {
            let (bytes, found) = out.protect(&frame()).unwrap();
            assert_eq!(found, sequence, "{lifetime:?}");
            let bytes = bytes.to_vec();
            back.open(&bytes).unwrap();
        }
        for refused in 1..=2 {
            assert_eq!(out.protect(&frame()).unwrap_err(), Status::HardLimit, "{lifetime:?}");
            assert_eq!((out.sequence(), out.usage().refused), (passing, refused));
        }
        // What is no packet is refused as such, and counts for nothing.
        assert_eq!(out.protect(&[0; 60]).unwrap_err(), Status::NotIp);
        assert_eq!(out.usage().refused, 2);
        // Both ends count alike.
        let (sent, received) = (out.usage(), back.usage());
        assert_eq!((sent.packets, sent.bytes), (used + passing, used + passing * packet_bytes));
        assert_eq!((received.packets, received.bytes), (sent.packets, sent.bytes));
        assert_eq!(sent.causes, received.causes);
        let (soft, hard) = match lifetime.kind {
            LifetimeKind::Packets => (EventCause::SoftPackets, EventCause::HardPackets),
            LifetimeKind::Bytes => (EventCause::SoftBytes, EventCause::HardBytes),
        };
        let mut expected = vec![soft, hard];
        expected.retain(|cause| *cause == hard || lifetime.soft.is_some());
        assert_eq!(out.take_causes().iter().collect::<Vec<_>>(), expected);
        assert!(out.take_causes().is_empty(), "each is told once");
        unlimited.protect(&frame()).unwrap();
        assert!(unlimited.take_causes().is_empty());
    }
}

#[test]
fn what_comes_in_behind_a_hard_limit_is_refused_after_its_icv() {
    let fake = Fake::new();
    let mut nic = open(&fake, &KeyLedger::new());
    let mut out = software(&mut nic, sa(Direction::Out));
    let lifetime = Lifetime::packets(None, Some(2));
    let mut back = software(&mut nic, SaConfiguration { lifetime, ..sa(Direction::In) });
    let frames: Vec<Vec<u8>> = (0..4).map(|_| out.protect(&frame()).unwrap().0.to_vec()).collect();
    back.open(&frames[0]).unwrap();
    back.open(&frames[1]).unwrap();
    let mut tampered = frames[2].clone();
    *tampered.last_mut().unwrap() ^= 1;
    assert_eq!(back.open(&tampered).unwrap_err(), Status::IcvMismatch);
    assert_eq!(back.usage().refused, 0, "it was none of its packets");
    assert_eq!(back.open(&frames[2]).unwrap_err(), Status::ReceiveHardLimit);
    assert_eq!((back.sequence(), back.usage().packets, back.usage().refused), (2, 2, 1));
    assert_eq!(back.open(&frames[1]).unwrap_err(), Status::ReplayDuplicate);
}

#[test]
fn soft_limits_of_a_software_sa_are_armed_anew() {
    let fake = Fake::new();
    let mut nic = open(&fake, &KeyLedger::new());
    let lifetime = Lifetime::bytes(Some(100), Some(10_000));
    let mut out = software(&mut nic, SaConfiguration { lifetime, ..sa(Direction::Out) });
    let mut told = 0;
    for length in [10, 50, 300, 100, 200, 700] {
        let before = out.usage().bytes;
        out.protect(&frame_of(length)).unwrap();
        assert_eq!(out.usage().bytes - before, 28 + length as u64);
        if out.take_causes().contains(EventCause::SoftBytes) {
            told += 1;
            out.arm(out.usage().bytes + 300).unwrap();
        }
    }
    assert_eq!(told, 4, "at 116, 444, 800 and 1528 bytes");
    assert!(matches!(out.arm(0), Err(Error::Argument(_))));
    assert!(matches!(out.arm(10_000), Err(Error::Argument(_))));

    // Few sequence numbers are left, then none.
    let last = u64::from(u32::MAX);
    let key = SecretKey::new(&[3; 24]).unwrap();
    let mut out =
        software(&mut nic, SaConfiguration { key, sequence: last - (1 << 28) - 2, ..sa(Direction::Out) });
    out.protect(&frame()).unwrap();
    assert!(out.take_causes().is_empty());
    out.protect(&frame()).unwrap();
    assert_eq!(out.take_causes().iter().collect::<Vec<_>>(), [EventCause::SequenceSoft]);
    let key = SecretKey::new(&[4; 24]).unwrap();
    let lifetime = Lifetime::packets(None, Some(2));
    let ending = SaConfiguration { key, sequence: last - 1, lifetime, ..sa(Direction::Out) };
    let mut out = software(&mut nic, SaConfiguration { packets: 1, ..ending });
    out.protect(&frame()).unwrap();
    assert!(out.take_causes().contains(EventCause::SequenceHard));
    // Of two reasons the device gives the limit.
    assert_eq!(out.protect(&frame()).unwrap_err(), Status::HardLimit);

    // Wrong ICVs in a row.
    let mut back = software(&mut nic, sa(Direction::In));
    let mut peer = software(&mut open(&Fake::new(), &KeyLedger::new()), sa(Direction::Out));
    for _ in 0..2 {
        let good = peer.protect(&frame()).unwrap().0.to_vec();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        for count in 1..=256 {
            assert_eq!(back.open(&bad).unwrap_err(), Status::IcvMismatch);
            assert_eq!(back.take_causes().contains(EventCause::IcvFailures), count == 256);
        }
        back.open(&good).unwrap();
        assert_eq!(back.usage().icv_failures_in_a_row, 0);
    }
}

#[test]
fn a_short_icv_ends_the_use_of_its_key_on_both_ends() {
    let fake = Fake::new();
    let mut nic = open(&fake, &KeyLedger::new());
    let short =
        |direction| SaConfiguration { icv_bytes: 8, esn: true, packets: (1 << 32) - 2, ..sa(direction) };
    let mut out = software(&mut nic, short(Direction::Out));
    let mut back = software(&mut nic, short(Direction::In));
    let first = out.protect(&frame()).unwrap().0.to_vec();
    let second = out.protect(&frame()).unwrap().0.to_vec();
    assert_eq!(out.protect(&frame()).unwrap_err(), Status::HardLimit);
    assert_eq!(out.take_causes().iter().collect::<Vec<_>>(), [EventCause::HardIcv8]);
    // On receive an attempt counts too.
    let mut bad = first.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(back.open(&bad).unwrap_err(), Status::IcvMismatch);
    back.open(&first).unwrap();
    assert_eq!(back.open(&second).unwrap_err(), Status::ReceiveHardLimit);
    assert!(back.take_causes().contains(EventCause::HardIcv8));
}

#[test]
fn a_psp_sa_in_software_has_limits_too() {
    let fake = Fake::new();
    let mut nic = open(&fake, &KeyLedger::new());
    nic.psp_set_epoch(1).unwrap();
    let key = SecretKey::new(&[9; 16]).unwrap();
    let lifetime = Lifetime::packets(Some(1), Some(2));
    let mut psp =
        nic.software_psp_sa(PspSaConfiguration { lifetime, ..PspSaConfiguration::new(0, key, 5) }).unwrap();
    psp.protect(&frame()).unwrap();
    assert_eq!(psp.take_causes().iter().collect::<Vec<_>>(), [EventCause::SoftPackets]);
    psp.protect(&frame()).unwrap();
    assert_eq!(psp.protect(&frame()).unwrap_err(), Status::HardLimit);
    assert_eq!((psp.usage().packets, psp.usage().bytes, psp.usage().refused), (2, 96, 1));
    // A limit that cannot be is refused as for the device.
    let key = SecretKey::new(&[8; 16]).unwrap();
    let wrong = PspSaConfiguration {
        lifetime: Lifetime::packets(Some(2), Some(2)),
        ..PspSaConfiguration::new(0, key, 5)
    };
    assert!(matches!(nic.software_psp_sa(wrong), Err(Error::Argument(_))));
}
