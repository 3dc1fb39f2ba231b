//! Which way an SA goes, and what the driver keeps of a key that it uses itself. The bytes are in the tests of the
//! workspace, against captures that are not ours.

mod fake;

use cryptonic_driver::{
    Cipher, Direction, Error, Installation, KeyLedger, Mode, Nic, OpenOptions, OuterHeader, Protection,
    PspInstallation, PspSaConfiguration, QueueError, QueuePairOptions, SaConfiguration, SecretKey,
    SoftwareSa, Status, Time, TransmitPacket,
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
fn psp_ivs_rise_from_the_time_of_the_device() {
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(PROTOCOL_CAPABILITY.offset, 1);
    fake.device.borrow_mut().registers.insert(TIME_PICOSECONDS.offset, 1000);
    let ledger = KeyLedger::new();
    let mut nic = open(&fake, &ledger);
    let psp = || PspSaConfiguration {
        mode: Mode::Tunnel,
        outer: Some(OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())),
        ..PspSaConfiguration::new(0, SecretKey::new(&[9; 16]).unwrap(), 5)
    };
    let mut sa = nic.software_psp_sa(psp()).unwrap();
    let ivs: Vec<u64> = (0..3).map(|_| sa.protect(&frame()).unwrap().1).collect();
    assert_eq!(ivs, [1000, 1001, 1002]);
    assert_eq!(sa.protect(&[0; 60]).unwrap_err(), Status::NotIp);
    assert_eq!(sa.protect(&frame()).unwrap().1, 1003);
    assert!(sa.load_test_iv(1).is_err());
    drop(sa);
    // The clock stands behind what was used.
    assert!(matches!(nic.software_psp_sa(psp()), Err(Error::KeyReused { lowest: Some(1004) })));
    fake.device.borrow_mut().registers.insert(TIME_PICOSECONDS.offset, 1004);
    assert!(nic.software_psp_sa(psp()).is_ok());
}
