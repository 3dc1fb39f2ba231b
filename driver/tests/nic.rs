//! Opening, commands, SAs, PSP and closing against a small device, honest and not.

mod fake;

use cryptonic_driver::{
    AdminAnomaly, AdminStatus, Cipher, Direction, Error, KeyLedger, Mode, Nic, OpenOptions, OuterHeader,
    Protection, PspDeviceKeys, QueueError, QueuePairOptions, SaConfiguration, SecretKey, Status, Time,
    TransmitPacket,
};
use cryptonic_pci::DmaAccess;
use cryptonic_regs::admin::AdminCompletion;
use cryptonic_regs::bar0::{
    BLOCK_TABLE_OFFSET, CONTRACT_VERSION, DEVICE_STATUS, DeviceStatus, MAGIC, QUEUE_CAPABILITY,
};
use fake::Fake;

const KEY: [u8; 16] = *b"0123456789abcdef";

fn configuration(direction: Direction, sequence: u64) -> SaConfiguration {
    SaConfiguration {
        sequence,
        replay_window: if direction == Direction::In { 64 } else { 0 },
        cookie: 77,
        ..SaConfiguration::new(
            direction,
            Mode::Transport,
            Cipher::AesGcm128,
            SecretKey::new(&KEY).unwrap(),
            *b"salt",
            0x1001,
        )
    }
}

fn open(fake: &Fake) -> Nic {
    Nic::open(fake.host(), OpenOptions::default()).unwrap()
}

fn open_error(fake: &Fake) -> Error {
    Nic::open(fake.host(), OpenOptions::default()).err().expect("opening must fail")
}

/// No memory that the device ever saw holds these bytes.
fn assert_nowhere(fake: &Fake, secret: &[u8]) {
    for memory in &fake.device.borrow().all_memory {
        let mut bytes = vec![0; memory.bytes()];
        memory.read(0, &mut bytes).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "a secret is left");
    }
}

#[test]
fn information_is_what_the_device_says() {
    let fake = Fake::new();
    let nic = open(&fake);
    let information = nic.information();
    assert_eq!((information.vendor, information.device), (0x1234, 0xc417));
    assert_eq!((information.kind, information.revision), (1, 7));
    assert_eq!(information.mac_address, [0x02, 0x22, 0x33, 0x44, 0x55, 0x66]);
    let capabilities: Vec<_> = information.capabilities.iter().collect();
    for expected in [("queue_pairs", 4), ("stride_64", 1), ("psp_versions", 3), ("sa_slots", 8)] {
        assert!(capabilities.contains(&expected), "{expected:?} in {capabilities:?}");
    }
    assert!(capabilities.iter().all(|(name, _)| !name.starts_with('_')));
    assert!(fake.device.borrow().bus_master);
}

#[test]
fn a_device_of_another_kind_is_refused() {
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(MAGIC.offset, 0x1234);
    assert!(matches!(open_error(&fake), Error::NotCryptonic { found: 0x1234 }));

    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(CONTRACT_VERSION.offset, 9 << 16 | 3);
    assert!(matches!(open_error(&fake), Error::ContractVersion { major: 9, minor: 3 }));

    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(BLOCK_TABLE_OFFSET, 0xffff);
    assert!(matches!(open_error(&fake), Error::Block { name: "IDENTITY" }));

    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(QUEUE_CAPABILITY.offset, 0x06ff_0004);
    assert!(matches!(open_error(&fake), Error::Capability { name: "ring_slots_log2_max", value: 255 }));

    let fake = Fake::new();
    fake.device.borrow_mut().gone = true;
    assert!(matches!(open_error(&fake), Error::Gone));
}

#[test]
fn a_device_that_is_never_ready_ends_at_the_deadline() {
    let fake = Fake::new();
    fake.device.borrow_mut().never_ready = true;
    fake.device.borrow_mut().registers.insert(DEVICE_STATUS.offset, 0);
    assert!(matches!(open_error(&fake), Error::Deadline { .. }));

    let fake = Fake::new();
    let status = DeviceStatus::new().with_ready(true).with_firmware_running(true);
    fake.device.borrow_mut().registers.insert(DEVICE_STATUS.offset, status.into_bits());
    assert!(matches!(open_error(&fake), Error::KeysNotZeroised));

    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(DEVICE_STATUS.offset, status.with_fatal(true).into_bits());
    assert!(matches!(open_error(&fake), Error::Fatal));
    let device = fake.device.borrow();
    assert!(device.mappings.is_empty() && !device.bus_master);
}

#[test]
fn what_the_device_only_reads_it_cannot_write() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let _queue = nic.create_queue_pair(QueuePairOptions::default()).unwrap();
    let device = fake.device.borrow();
    let read_only = device.mappings.iter().filter(|(.., access)| *access == DmaAccess::DeviceReads).count();
    assert_eq!((read_only, device.mappings.len()), (2, 4));
    for (start, memory, _) in &device.mappings {
        let end = start + memory.bytes() as u64;
        let next = device.mappings.iter().map(|(other, ..)| *other).filter(|other| *other > *start).min();
        assert!(next.is_none_or(|next| next - end >= 4096), "no gap behind {start:#x}");
    }
}

#[test]
fn an_sa_is_installed_used_queried_and_deleted() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let sa = nic.install_sa(configuration(Direction::Out, 5)).unwrap();
    let words = fake.device.borrow().parameters[0].clone();
    assert_eq!(words[22].to_le_bytes(), KEY[..8]);
    assert_eq!(words[23].to_le_bytes(), KEY[8..]);
    assert_eq!((words[2], words[26]), (5, u64::from(u32::from_le_bytes(*b"salt"))));
    assert_nowhere(&fake, &KEY[..8]);
    assert_nowhere(&fake, b"salt");

    let mut queue = nic.create_queue_pair(QueuePairOptions::default()).unwrap();
    let mut buffer = queue.take_buffer().unwrap();
    queue.fill(&mut buffer, &[1; 60]).unwrap();
    queue.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Sa(sa), 9)]).unwrap();
    let mut done = vec![];
    queue.drain(nic.time() + Time::from_milliseconds(1), &mut done).unwrap();
    assert_eq!((done[0].sequence, done[0].status, done[0].cookie), (6, Status::Ok, 9));
    let mut received = vec![];
    assert_eq!(queue.receive(&mut received, 8).unwrap(), 1);
    assert_eq!((received[0].sa(), received[0].cookie(), received[0].spi()), (Some(sa), 77, 0x1001));
    queue.return_buffers(&mut received).unwrap();

    let state = nic.query_sa(sa).unwrap();
    assert_eq!((state.sequence, state.packets, state.spi), (6, 1, 0x1001));
    nic.delete_sa(sa).unwrap();
    assert!(matches!(nic.query_sa(sa), Err(Error::UnknownSa)));
    assert!(matches!(nic.delete_sa(sa), Err(Error::UnknownSa)));
}

#[test]
fn a_key_is_not_used_twice_from_the_same_number_on() {
    let fake = Fake::new();
    let ledger = KeyLedger::new();
    let options = || OpenOptions { key_ledger: ledger.clone(), ..OpenOptions::default() };
    let mut nic = Nic::open(fake.host(), options()).unwrap();
    let sa = nic.install_sa(configuration(Direction::Out, 0)).unwrap();
    assert!(matches!(nic.install_sa(configuration(Direction::Out, 1000)), Err(Error::KeyInUse)));
    // The other direction encrypts nothing.
    let inbound = nic.install_sa(configuration(Direction::In, 0)).unwrap();
    fake.device.borrow_mut().sas.get_mut(&sa.index).unwrap().sequence = 41;
    nic.delete_sa(sa).unwrap();
    nic.delete_sa(inbound).unwrap();
    let refused = nic.install_sa(configuration(Direction::Out, 40));
    assert!(matches!(refused, Err(Error::KeyReused { lowest: Some(41) })), "{refused:?}");
    nic.install_sa(configuration(Direction::Out, 41)).unwrap();
    nic.close().unwrap();

    // Closing asked the device for the number, and the ledger carries it over to the next opening.
    let mut nic = Nic::open(fake.host(), options()).unwrap();
    let refused = nic.install_sa(configuration(Direction::Out, 41));
    assert!(matches!(refused, Err(Error::KeyReused { lowest: Some(42) })), "{refused:?}");
    nic.install_sa(configuration(Direction::Out, 42)).unwrap();
    fake.device.borrow_mut().admin_silent = true;
    drop(nic);

    // What a device did with a key that it was not seen to delete is unknown.
    fake.device.borrow_mut().admin_silent = false;
    let mut nic = Nic::open(fake.host(), options()).unwrap();
    let refused = nic.install_sa(configuration(Direction::Out, 1 << 30));
    assert!(matches!(refused, Err(Error::KeyReused { lowest: None })), "{refused:?}");
}

#[test]
fn a_refused_installation_leaves_no_trace() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    fake.device.borrow_mut().on_admin = Some(Box::new(|completion| {
        completion.end.set_status(AdminStatus::DuplicateSpi.number() as u16);
    }));
    let refused = nic.install_sa(configuration(Direction::Out, 0));
    assert!(matches!(refused, Err(Error::Refused { status: AdminStatus::DuplicateSpi, .. })));
    assert_nowhere(&fake, &KEY[..8]);
    fake.device.borrow_mut().on_admin = None;
    nic.install_sa(configuration(Direction::Out, 0)).unwrap();
}

#[test]
fn configurations_are_checked_before_the_device_sees_them() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let base = || configuration(Direction::Out, 0);
    let v4 = "192.0.2.1".parse().unwrap();
    let v6 = "2001:db8::1".parse().unwrap();
    let cases: Vec<(&str, SaConfiguration)> = vec![
        ("key length", SaConfiguration { cipher: Cipher::AesGcm256, ..base() }),
        (
            "cipher",
            SaConfiguration { cipher: Cipher::AesGcm192, key: SecretKey::new(&[1; 24]).unwrap(), ..base() },
        ),
        ("icv", SaConfiguration { icv_bytes: 12, ..base() }),
        ("icv", SaConfiguration { icv_bytes: 13, ..base() }),
        ("sequence", SaConfiguration { sequence: 1 << 32, ..base() }),
        ("window", SaConfiguration { replay_window: 2048, ..base() }),
        ("no outer header", SaConfiguration { mode: Mode::Tunnel, ..base() }),
        ("families", SaConfiguration { mode: Mode::Tunnel, outer: Some(OuterHeader::new(v4, v6)), ..base() }),
        (
            "ttl",
            SaConfiguration {
                mode: Mode::Tunnel,
                outer: Some(OuterHeader { ttl: Some(0), ..OuterHeader::new(v4, v4) }),
                ..base()
            },
        ),
    ];
    for (name, configuration) in cases {
        assert!(nic.install_sa(configuration).is_err(), "{name}");
    }
    assert!(fake.device.borrow().parameters.is_empty());
}

#[test]
fn an_answer_that_cannot_be_true_stops_the_admin_queue() {
    type Lie = fn(&mut AdminCompletion);
    let lies: [(Lie, AdminAnomaly); 2] = [
        (
            |completion| completion.end.set_identifier(completion.end.identifier() ^ 1),
            AdminAnomaly::Identifier,
        ),
        (|completion| completion.end.set_status(999), AdminAnomaly::Status),
    ];
    for (lie, expected) in lies {
        let fake = Fake::new();
        let mut nic = open(&fake);
        fake.device.borrow_mut().on_admin = Some(Box::new(lie));
        let found = nic.psp_rotate();
        assert!(matches!(found, Err(Error::Anomaly { anomaly, .. }) if anomaly == expected), "{found:?}");
        assert!(matches!(nic.psp_rotate(), Err(Error::AdminStopped)));
        assert_eq!(fake.device.borrow().resets, 1, "no key was at stake");
    }

    // A completion in the wrong phase is none.
    let fake = Fake::new();
    let mut nic = open(&fake);
    fake.device.borrow_mut().on_admin = Some(Box::new(|completion| completion.end.set_phase(false)));
    assert!(matches!(nic.psp_rotate(), Err(Error::Deadline { .. })));

    let fake = Fake::new();
    let mut nic = open(&fake);
    fake.device.borrow_mut().on_admin = Some(Box::new(|completion| completion.result = 1));
    let found = nic.install_sa(configuration(Direction::Out, 0));
    assert!(matches!(found, Err(Error::Anomaly { anomaly: AdminAnomaly::Result, .. })), "{found:?}");
}

#[test]
fn a_command_with_a_key_that_is_not_answered_resets_the_device() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let mut queue = nic.create_queue_pair(QueuePairOptions::default()).unwrap();
    fake.device.borrow_mut().admin_silent = true;
    assert!(matches!(nic.install_sa(configuration(Direction::Out, 0)), Err(Error::Deadline { .. })));
    assert_nowhere(&fake, &KEY[..8]);
    assert_eq!(fake.device.borrow().resets, 2);
    assert!(matches!(nic.psp_rotate(), Err(Error::Closed)));
    assert!(matches!(queue.receive(&mut vec![], 1), Err(QueueError::Closed)));
    assert!(matches!(nic.install_sa(configuration(Direction::Out, 5)), Err(Error::Closed)));
}

#[test]
fn many_commands_pass_over_the_ring_of_commands() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    for generation in 1..100 {
        assert_eq!(nic.psp_rotate().unwrap(), generation);
    }
}

#[test]
fn psp_spis_come_with_keys_that_stay_nowhere_else() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let spis = nic.psp_allocate(1, 7).unwrap();
    assert_eq!(spis.iter().map(|spi| spi.spi).collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
    assert!(spis.iter().all(|spi| spi.key.bytes() == 32 && spi.key.expose()[0] == 0x59));
    assert_nowhere(&fake, &0x004b_4559_u64.to_le_bytes());
    assert!(matches!(nic.psp_allocate(2, 1), Err(Error::Unsupported(_))));
    assert!(!format!("{spis:?}").contains("59"));

    fake.device.borrow_mut().on_admin = Some(Box::new(|completion| completion.result += 1));
    assert!(matches!(nic.psp_allocate(0, 1), Err(Error::Anomaly { anomaly: AdminAnomaly::Result, .. })));
}

#[test]
fn psp_controls() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    nic.psp_receive(0b11, 1000).unwrap();
    assert!(matches!(nic.psp_receive(0b100, 1000), Err(Error::Unsupported(_))));
    let keys = PspDeviceKeys::new(&[0xa1; 32], &[0xb2; 32]);
    assert_eq!(format!("{keys:?}"), "PspDeviceKeys(redacted)");
    nic.psp_test_keys_load(keys).unwrap();
    assert_eq!(
        fake.device.borrow().parameters[0],
        [[0xa1a1_a1a1_a1a1_a1a1; 4], [0xb2b2_b2b2_b2b2_b2b2; 4]].concat()
    );
    assert_nowhere(&fake, &[0xa1; 8]);
    assert!(matches!(nic.psp_test_iv_load(1), Err(Error::Refused { status: AdminStatus::Locked, .. })));
    nic.psp_test_lock().unwrap();
    nic.set_mac_loopback(true).unwrap();
}

#[test]
fn statistics_have_names() {
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(0x0800, 3);
    fake.device.borrow_mut().registers.insert(0x0a00 + 8 * Status::StaleSa.number(), 4);
    let mut nic = open(&fake);
    let statistics = nic.statistics().unwrap();
    assert_eq!(statistics.transmitted_frames(), 3);
    assert_eq!(statistics.get("transmitted_frames"), Some(3));
    assert_eq!(statistics.get("status_stale_sa"), Some(4));
    assert_eq!(statistics.packets(Status::StaleSa), 4);
    assert_eq!(statistics.get("firmware_commands"), Some(42));
    assert_eq!(statistics.get("quarantined_tag_mismatch"), Some(0));
}

#[test]
fn no_text_shows_a_key() {
    let configuration = configuration(Direction::Out, 0);
    let text = format!("{configuration:?} {:?}", configuration.key);
    assert!(text.contains("redacted") && !text.contains("48, 49") && !text.contains("0123"), "{text}");
    assert!(!text.contains("115, 97"), "the salt shows: {text}");
}

#[test]
fn closing_takes_everything_back_and_leaves_zeros() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let sa = nic.install_sa(configuration(Direction::Out, 0)).unwrap();
    let options = QueuePairOptions { stride: 64, ..QueuePairOptions::default() };
    let mut queue = nic.create_queue_pair(options).unwrap();
    let secret = *b"a psp key in it!";
    let key = queue.add_psp_key(0, 0x9a34_5678, &SecretKey::new(&secret).unwrap()).unwrap();
    fake.device.borrow_mut().hold = true;
    let mut batch = vec![];
    for protection in [Protection::Sa(sa), Protection::PspKey(cryptonic_driver::PspTransmit::new(key))] {
        let mut buffer = queue.take_buffer().unwrap();
        queue.fill(&mut buffer, &[1; 60]).unwrap();
        batch.push(TransmitPacket::new(buffer, protection, 0));
    }
    queue.transmit(&mut batch).unwrap();
    nic.close().unwrap();
    assert_nowhere(&fake, &secret[..8]);
    {
        let device = fake.device.borrow();
        assert!(device.mappings.is_empty() && !device.bus_master && device.sas.is_empty());
        // Rings stand at the beginning of every arena.
        for memory in &device.all_memory {
            let mut bytes = vec![0; 4096];
            memory.read(0, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
    }
    assert!(matches!(queue.completed(&mut vec![]), Err(QueueError::Closed)));
    queue.close().unwrap();
}
