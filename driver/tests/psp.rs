//! PSP as the operations of a device know it: rotation, epoch, capture, sampling, statistics; copies on a queue pair.

mod fake;

use std::time::{Duration, UNIX_EPOCH};

use cryptonic_driver::{
    Error, KeyLedger, Nic, OpenOptions, Protection, PspCaptureOptions, PspSaConfiguration,
    PspSamplingOptions, PspStatistics, Quarantine, QueueError, QueuePair, QueuePairOptions, SecretKey,
    Status, TransmitPacket, psp_epoch_picoseconds,
};
use cryptonic_regs::bar0::{
    LIFE_CAPABILITY, LifeCapability, PROTOCOL_CAPABILITY, PSP_RECEIVED_PACKETS, TIME_PICOSECONDS,
};
use cryptonic_regs::completion::ReceiveCompletion;
use cryptonic_regs::psp_policy::{
    PSP_CAPTURE, PSP_EPOCH, PSP_ROTATION, PSP_ROTATION_PERIOD_MS, PSP_SAMPLING, PSP_SPI_LOW_WATER,
};
use fake::Fake;

fn open(fake: &Fake) -> Nic {
    Nic::open(fake.host(), OpenOptions::default()).unwrap()
}

#[test]
fn policies_are_told_to_the_device() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let register = |offset: u32| fake.device.borrow().registers.get(&offset).copied().unwrap_or(0);
    nic.psp_set_rotation(Some(Duration::from_secs(86_400)), true).unwrap();
    assert_eq!((register(PSP_ROTATION.offset), register(PSP_ROTATION_PERIOD_MS.offset)), (1, 86_400_000));
    nic.psp_set_rotation(None, false).unwrap();
    assert_eq!((register(PSP_ROTATION.offset), register(PSP_ROTATION_PERIOD_MS.offset)), (0, 0));
    for period in [Duration::from_micros(999), Duration::from_millis(1 << 32)] {
        assert!(matches!(nic.psp_set_rotation(Some(period), false), Err(Error::Argument(_))), "{period:?}");
    }
    nic.psp_set_low_water(1 << 20).unwrap();
    assert_eq!(register(PSP_SPI_LOW_WATER.offset), 1 << 20);

    let capture = PspCaptureOptions { queue: 3, receive: true, transmit: false, interval_us: 10 };
    nic.psp_set_capture(Some(capture)).unwrap();
    assert_eq!(register(PSP_CAPTURE.offset), 3 | 1 << 8 | 10 << 16);
    nic.psp_set_capture(None).unwrap();
    assert_eq!(register(PSP_CAPTURE.offset), 0);
    let wrong = PspCaptureOptions { queue: 4, ..capture };
    assert!(matches!(nic.psp_set_capture(Some(wrong)), Err(Error::Argument(_))));

    let sampling = PspSamplingOptions { queue: 2, copies: true, drop: true, interval_us: 7 };
    nic.psp_set_sampling(Some(sampling)).unwrap();
    assert_eq!(register(PSP_SAMPLING.offset), 2 | 3 << 8 | 7 << 16);
    let wrong = PspSamplingOptions { queue: 200, ..sampling };
    assert!(matches!(nic.psp_set_sampling(Some(wrong)), Err(Error::Argument(_))));

    // What a device lacks is not asked of it.
    let life = LifeCapability::new().with_sa_batch(1);
    fake.device.borrow_mut().registers.insert(LIFE_CAPABILITY.offset, life.into_bits());
    drop(nic);
    let mut nic = open(&fake);
    assert!(matches!(nic.psp_set_rotation(None, true), Err(Error::Unsupported(_))));
    assert!(matches!(nic.psp_set_capture(Some(capture)), Err(Error::Unsupported(_))));
    assert!(matches!(nic.psp_set_sampling(None), Err(Error::Unsupported(_))));
    fake.device.borrow_mut().registers.insert(PROTOCOL_CAPABILITY.offset, 1);
    drop(nic);
    let mut nic = open(&fake);
    assert!(matches!(nic.psp_set_low_water(1), Err(Error::Unsupported(_))));
    assert!(matches!(nic.psp_statistics(), Err(Error::Unsupported(_))));
}

#[test]
fn the_eight_counters_have_their_places() {
    let fake = Fake::new();
    for number in 0..8 {
        fake.device.borrow_mut().registers.insert(PSP_RECEIVED_PACKETS.offset + 8 * number, number + 1);
    }
    let found = open(&fake).psp_statistics().unwrap();
    let expected = PspStatistics {
        received_packets: 1,
        received_bytes: 2,
        received_authentication_failures: 3,
        received_errors: 4,
        received_bad: 5,
        transmitted_packets: 6,
        transmitted_bytes: 7,
        transmitted_errors: 8,
    };
    assert_eq!(found, expected);
}

#[test]
fn an_epoch_never_turns_the_clock_back() {
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(TIME_PICOSECONDS.offset, 500);
    let mut nic = open(&fake);
    assert_eq!(nic.psp_clock_picoseconds().unwrap(), None);
    assert!(matches!(nic.psp_set_epoch(0), Err(Error::Argument(_))));
    let epoch = 7 << 40;
    nic.psp_set_epoch(epoch).unwrap();
    assert_eq!(nic.psp_clock_picoseconds().unwrap(), Some(epoch + 500));
    let refused = nic.psp_set_epoch(epoch - 1).unwrap_err();
    assert!(
        matches!(refused, Error::EpochRefused { clock_picoseconds } if clock_picoseconds == epoch + 500),
        "{refused}"
    );
    assert_eq!(nic.psp_clock_picoseconds().unwrap(), Some(epoch + 500));
    nic.psp_set_epoch(epoch + 1).unwrap();
    let high = fake.device.borrow().registers[&(PSP_EPOCH.offset + 4)];
    assert_eq!(high, 7 << 8);

    // A device without PSP has no clock: the driver keeps one for SAs in software, by the same rule.
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(PROTOCOL_CAPABILITY.offset, 1);
    let mut nic = open(&fake);
    nic.psp_set_epoch(900).unwrap();
    assert!(matches!(nic.psp_set_epoch(899), Err(Error::EpochRefused { .. })));
    assert_eq!(nic.psp_clock_picoseconds().unwrap(), Some(900));
}

#[test]
fn an_epoch_of_wall_time_makes_the_clock_wall_time() {
    let modulus = 1_u128 << 63;
    for (seconds, device_time) in [(0, 0), (1_700_000_000, 0), (1_700_000_000, 5_000), (9_223_372, 1 << 62)] {
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        let epoch = psp_epoch_picoseconds(now, device_time);
        let clock = (u128::from(epoch) + u128::from(device_time)) % modulus;
        let wall = u128::from(seconds) * 1_000_000_000_000 % modulus;
        // An epoch of 0 would be none.
        assert_eq!(clock, if wall == 0 { 1 } else { wall });
        assert!(epoch != 0 && u128::from(epoch) < modulus);
    }
    let fake = Fake::new();
    let mut nic = open(&fake);
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    nic.psp_set_epoch_by(now).unwrap();
    assert!(matches!(nic.psp_set_epoch_by(now - Duration::from_secs(1)), Err(Error::EpochRefused { .. })));
}

#[test]
fn the_ledger_goes_by_the_iv_clock_and_not_by_device_time() {
    // A device that was powered on again counts its time from 0, but its epoch is later.
    let ledger = KeyLedger::new();
    let power_on = |time: u32| {
        let fake = Fake::new();
        fake.device.borrow_mut().registers.insert(TIME_PICOSECONDS.offset, time);
        let options = OpenOptions { key_ledger: ledger.clone(), ..OpenOptions::default() };
        let nic = Nic::open(fake.host(), options).unwrap();
        (fake, nic)
    };
    let psp = || PspSaConfiguration::new(0, SecretKey::new(&[7; 16]).unwrap(), 5);
    let (_fake, mut nic) = power_on(9_000);
    nic.psp_set_epoch(1_000_000).unwrap();
    let handle = nic.install_psp_sa(psp()).unwrap();
    nic.delete_sa(handle).unwrap();

    let (_fake, mut nic) = power_on(50_000);
    let refused = nic.install_psp_sa(psp());
    assert!(matches!(refused, Err(Error::KeyReused { lowest: Some(1_009_000) })), "{refused:?}");
    nic.psp_set_epoch(959_000).unwrap();
    nic.install_psp_sa(psp()).unwrap();
}

const OPTIONS: QueuePairOptions = QueuePairOptions {
    transmit_slots: 8,
    receive_slots: 8,
    buffer_bytes: 256,
    clear_allowed: true,
    receive_scatter: true,
    ..QueuePairOptions::new()
};

/// Sends a frame of so many bytes to itself, with a change to what the device says of it.
fn sent(
    options: QueuePairOptions,
    bytes: usize,
    mut change: impl FnMut(&mut ReceiveCompletion) + 'static,
) -> (Nic, QueuePair) {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let mut queue = nic.create_queue_pair(options).unwrap();
    fake.device.borrow_mut().on_receive = Some(Box::new(move |completion| change(completion)));
    let frame = vec![0x5a; bytes];
    let mut pieces = frame.chunks(256);
    let mut buffer = queue.take_buffer().unwrap();
    queue.fill(&mut buffer, pieces.next().unwrap()).unwrap();
    for piece in pieces {
        let mut more = queue.take_buffer().unwrap();
        queue.fill(&mut more, piece).unwrap();
        queue.attach_buffer(&mut buffer, more).unwrap();
    }
    queue.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Clear, 0)]).unwrap();
    queue.relax();
    (nic, queue)
}

/// As the device marks its copies: the last completion of a frame says so.
fn copy_with(status: Status) -> impl FnMut(&mut ReceiveCompletion) + 'static {
    move |completion| {
        let copy = !completion.end.more();
        completion.end.set_copy(copy);
        completion.end.set_status(status.number() as u16);
    }
}

#[test]
fn copies_come_to_a_queue_pair_that_takes_them() {
    let taking = QueuePairOptions { copies: true, ..OPTIONS };
    for bytes in [60, 256, 600] {
        for status in
            [Status::Ok, Status::IcvMismatch, Status::PspNoDeviceKey, Status::HardLimit, Status::PspNoEpoch]
        {
            let (_nic, mut queue) = sent(taking, bytes, copy_with(status));
            let mut received = vec![];
            queue.receive(&mut received, 8).unwrap();
            let frame = &received[0];
            assert_eq!((frame.status(), frame.is_copy(), frame.length()), (status, true, bytes));
            assert!(format!("{frame:?}").contains("is_copy: true"));
            let mut copy = vec![0; bytes];
            queue.read(frame, 0, &mut copy).unwrap();
            assert_eq!(copy, vec![0x5a; bytes]);
            queue.return_buffers(&mut received).unwrap();
            assert_eq!(queue.receive_held(), 0);
            // Every other queue pair is cut off.
            let (_nic, mut queue) = sent(OPTIONS, bytes, copy_with(status));
            let outcome = queue.receive(&mut received, 8);
            let of_transmit = matches!(status, Status::HardLimit | Status::PspNoEpoch);
            let reason = if of_transmit { Quarantine::UnknownStatus } else { Quarantine::UnexpectedCopy };
            assert_eq!(outcome, Err(QueueError::Quarantined(reason)), "{status:?}");
        }
    }
}

#[test]
fn what_is_no_copy_is_held_to_the_rules_of_received_packets() {
    let taking = QueuePairOptions { copies: true, ..OPTIONS };
    let (_nic, mut queue) = sent(taking, 60, |_| {});
    let mut received = vec![];
    queue.receive(&mut received, 8).unwrap();
    assert_eq!((received[0].status(), received[0].is_copy()), (Status::Ok, false));
    queue.return_buffers(&mut received).unwrap();
    // A packet that failed on transmit and is no copy; one that failed in part and is good as a whole.
    let (_nic, mut queue) = sent(taking, 60, |completion| completion.end.set_status(18));
    assert_eq!(queue.receive(&mut received, 8), Err(QueueError::Quarantined(Quarantine::UnknownStatus)));
    let (_nic, mut queue) = sent(taking, 600, |completion| {
        completion.end.set_status(if completion.end.more() { 18 } else { 0 });
    });
    assert_eq!(queue.receive(&mut received, 8), Err(QueueError::Quarantined(Quarantine::FrameContradiction)));
    // A status that is none.
    let (_nic, mut queue) = sent(taking, 60, |completion| completion.end.set_status(31));
    assert_eq!(queue.receive(&mut received, 8), Err(QueueError::Quarantined(Quarantine::UnknownStatus)));
    assert!(received.is_empty());
}
