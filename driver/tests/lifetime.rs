//! The life of SAs: limits, installing as one, state, arming, replacement.

mod fake;

use cryptonic_driver::{
    AdminAnomaly, AdminStatus, Cipher, Direction, Error, EventCause, KeyLedger, Lifetime, LifetimeKind, Mode,
    Nic, OpenOptions, Protection, PspSaConfiguration, QueuePairOptions, SaConfiguration, SaHandle, SaPair,
    SecretKey, SlotState, Status, Time, TransmitPacket,
};
use cryptonic_regs::admin::{InstalledSa, SaLifetime, SaParameters, SaStateReply};
use cryptonic_regs::bar0::SA_PACKET_SLOTS;
use fake::{Fake, PACKET_SLOT_COUNT, SA_BATCH};

fn key(number: u8) -> SecretKey {
    SecretKey::new(&[number; 16]).unwrap()
}

fn sa(direction: Direction, number: u8) -> SaConfiguration {
    SaConfiguration {
        cookie: number.into(),
        ..SaConfiguration::new(
            direction,
            Mode::Transport,
            Cipher::AesGcm128,
            key(number),
            *b"salt",
            0x1000 + u32::from(number),
        )
    }
}

fn out(number: u8) -> SaConfiguration {
    sa(Direction::Out, number)
}

fn limited(lifetime: Lifetime) -> SaConfiguration {
    SaConfiguration { lifetime, ..out(1) }
}

fn open(fake: &Fake) -> Nic {
    Nic::open(fake.host(), OpenOptions::default()).unwrap()
}

fn parameters(fake: &Fake) -> Vec<SaParameters> {
    let blocks = &fake.device.borrow().parameters;
    blocks.iter().map(|words| SaParameters::of_words(&words.clone().try_into().unwrap())).collect()
}

/// Slots that are in use, with the SPI in each.
fn slots(fake: &Fake) -> Vec<(u32, u32)> {
    let device = fake.device.borrow();
    let mut slots: Vec<_> =
        device.sas.iter().map(|(index, sa)| (*index, sa.parameters.names.spi())).collect();
    slots.sort();
    slots
}

#[test]
fn limits_reach_the_device_with_no_limit_as_a_flag() {
    let packets = LifetimeKind::Packets;
    for (lifetime, no_soft, no_hard, soft, hard) in [
        (Lifetime::default(), true, true, 0, 0),
        (Lifetime::packets(Some(7), None), false, true, 7, 0),
        (Lifetime::packets(None, Some(9)), true, false, 0, 9),
        (Lifetime::bytes(Some(1), Some(u64::MAX)), false, false, 1, u64::MAX),
    ] {
        let fake = Fake::new();
        let mut nic = open(&fake);
        let psp = PspSaConfiguration {
            lifetime,
            packets: 1,
            bytes: 2,
            cookie: 3,
            ..PspSaConfiguration::new(0, key(2), 5)
        };
        nic.install_sa(SaConfiguration { packets: 1, bytes: 2, ..limited(lifetime) }).unwrap();
        nic.install_psp_sa(psp).unwrap();
        for (found, cookie) in parameters(&fake).iter().zip([1, 3]) {
            let expected = SaLifetime::new()
                .with_kind(lifetime.kind.number() as u8)
                .with_no_soft_limit(no_soft)
                .with_no_hard_limit(no_hard);
            assert_eq!((found.lifetime, found.soft_limit, found.hard_limit), (expected, soft, hard));
            assert_eq!((found.packets, found.bytes, found.names.cookie()), (1, 2, cookie));
        }
        // Count-based slots come first.
        let first = if lifetime.kind == packets { 0 } else { PACKET_SLOT_COUNT };
        assert_eq!(slots(&fake)[0].0, first);
    }
}

#[test]
fn limits_that_cannot_be_are_refused_before_the_device_is_asked() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let used = |lifetime, packets, bytes| SaConfiguration { packets, bytes, ..limited(lifetime) };
    for (name, sa, sentence) in [
        ("soft 0", limited(Lifetime::packets(Some(0), None)), "a limit of 0"),
        ("hard 0", limited(Lifetime::bytes(None, Some(0))), "a limit of 0"),
        ("equal", limited(Lifetime::packets(Some(5), Some(5))), "below the hard one"),
        ("above", limited(Lifetime::bytes(Some(6), Some(5))), "below the hard one"),
        ("packets used up", used(Lifetime::packets(None, Some(5)), 5, 0), "used for before"),
        ("bytes used up", used(Lifetime::bytes(None, Some(5)), 0, 6), "used for before"),
    ] {
        let psp = PspSaConfiguration {
            lifetime: sa.lifetime,
            packets: sa.packets,
            bytes: sa.bytes,
            ..PspSaConfiguration::new(0, key(2), 5)
        };
        for error in [nic.install_sa(sa).unwrap_err(), nic.install_psp_sa(psp).unwrap_err()] {
            assert!(matches!(error, Error::Argument(found) if found.contains(sentence)), "{name}: {error}");
        }
    }
    assert!(fake.device.borrow().parameters.is_empty());
    // The other count is not held against the limit, and one below is what is left.
    nic.install_sa(used(Lifetime::packets(None, Some(5)), 4, 100)).unwrap();
}

#[test]
fn a_kind_without_slots_is_named_as_lacking() {
    let packets = Lifetime::packets(None, Some(5));
    let bytes = Lifetime::bytes(None, Some(5));
    for (packet_slots, refused, taken, reason) in [
        (8, bytes, packets, "the device does not support SAs whose limits count bytes"),
        (0, packets, bytes, "the device does not support SAs whose limits count packets"),
    ] {
        let fake = Fake::new();
        fake.device.borrow_mut().registers.insert(SA_PACKET_SLOTS.offset, packet_slots);
        let nic = open(&fake);
        let capabilities = nic.information().capabilities;
        let lacks = capabilities.supports(&limited(refused)).unwrap_err();
        assert_eq!(lacks.sentences().collect::<Vec<_>>(), [reason]);
        let psp = PspSaConfiguration { lifetime: refused, ..PspSaConfiguration::new(0, key(1), 5) };
        assert!(capabilities.supports_psp(&psp).is_err());
        assert_eq!(capabilities.supports(&limited(taken)), Ok(()));
    }
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(SA_PACKET_SLOTS.offset, 9);
    let outcome = Nic::open(fake.host(), OpenOptions::default());
    assert!(matches!(outcome, Err(Error::Capability { name: "sa_packet_slots", value: 9 })));
}

#[test]
fn a_batch_comes_as_a_whole() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let handles = nic.install_sas((1..=SA_BATCH).map(out).collect()).unwrap();
    assert_eq!(slots(&fake), [(0, 0x1001), (1, 0x1002), (2, 0x1003), (3, 0x1004)]);
    for (handle, words) in handles.iter().zip(parameters(&fake)) {
        assert_eq!(nic.query_sa(*handle).unwrap().spi, words.names.spi());
    }
    assert_eq!(nic.install_sas(vec![]).unwrap(), []);
}

#[test]
fn of_a_batch_that_is_refused_nothing_is_left() {
    let ledger = KeyLedger::new();
    let fake = Fake::new();
    let options = OpenOptions { key_ledger: ledger.clone(), ..OpenOptions::default() };
    let mut nic = Nic::open(fake.host(), options).unwrap();
    let taken = nic.install_sa(out(9)).unwrap();

    // By the configuration, by the ledger, and because one key cannot be twice in a batch.
    let nonsense = SaConfiguration { icv_bytes: 3, ..out(2) };
    for (batch, number) in [
        (vec![out(1), nonsense], 1),
        (vec![out(1), out(2), out(9)], 2),
        (vec![out(1), out(2), out(3), out(1)], 3),
    ] {
        let refused = nic.install_sas(batch).unwrap_err();
        assert!(matches!(refused, Error::InBatch { number: found, .. } if found == number), "{refused}");
    }
    let most = usize::from(SA_BATCH);
    let refused = nic.install_sas((1..=SA_BATCH + 1).map(out).collect()).unwrap_err();
    assert!(matches!(refused, Error::BatchTooLarge { sas, most: found } if sas == most + 1 && found == most));
    assert_eq!(fake.device.borrow().parameters.len(), 1, "the device was not asked");

    // By the device: five slots are left, so the third of the second batch finds none.
    nic.install_sas(vec![out(11), out(12), out(13)]).unwrap();
    let before = slots(&fake);
    let refused = nic.install_sas(vec![out(1), out(2), out(3)]).unwrap_err();
    let Error::InBatch { number: 2, error } = refused else { panic!("{refused}") };
    assert!(matches!(*error, Error::Refused { status: AdminStatus::NoFreeSlot, result: 2, .. }), "{error}");
    assert_eq!(slots(&fake), before);

    // No key of them was spent.
    nic.delete_sa(taken).unwrap();
    nic.install_sas(vec![
        out(1),
        out(2),
        SaConfiguration { lifetime: Lifetime::bytes(None, None), ..out(3) },
    ])
    .unwrap();
}

#[test]
fn a_reply_that_cannot_be_true_is_an_anomaly_and_the_keys_are_spent() {
    type Lie = fn(&mut (u32, InstalledSa));
    let lies: [(&str, Lie); 5] = [
        ("one slot twice", |reply| reply.1.set_index(0)),
        ("a slot of the other kind", |reply| reply.1.set_index(PACKET_SLOT_COUNT)),
        ("no slot", |reply| reply.1.set_index(1 << 20)),
        ("no generation", |reply| reply.1.set_generation(0)),
        ("not written", |reply| reply.1 = InstalledSa::new()),
    ];
    for (name, lie) in lies {
        let fake = Fake::new();
        let mut nic = open(&fake);
        fake.device.borrow_mut().on_installed = Some(Box::new(move |reply| {
            if reply.0 == 1 {
                lie(reply);
            }
        }));
        // Where there is no limit, a slot of the other kind would do.
        let limited = SaConfiguration { lifetime: Lifetime::packets(None, Some(9)), ..out(2) };
        let outcome = nic.install_sas(vec![out(1), limited]);
        assert!(
            matches!(outcome, Err(Error::Anomaly { anomaly: AdminAnomaly::Reply, .. })),
            "{name}: {outcome:?}"
        );
        for number in [1, 2] {
            let outcome = nic.install_sa(out(number));
            assert!(matches!(outcome, Err(Error::KeyReused { lowest: None })), "{name}: {outcome:?}");
        }
    }
    // A generation that the slot had before would bring a stale handle back to life.
    let fake = Fake::new();
    let mut nic = open(&fake);
    let first = nic.install_sa(out(1)).unwrap();
    nic.delete_sa(first).unwrap();
    let generation = first.generation;
    fake.device.borrow_mut().on_installed = Some(Box::new(move |reply| reply.1.set_generation(generation)));
    let outcome = nic.install_sa(out(2));
    assert!(matches!(outcome, Err(Error::Anomaly { anomaly: AdminAnomaly::Reply, .. })), "{outcome:?}");
    assert!(matches!(nic.query_sa(first), Err(Error::UnknownSa)));
}

#[test]
fn a_deleted_sa_is_unknown_for_ever_and_an_expired_one_is_not() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let mut queue = nic.create_queue_pair(QueuePairOptions::default()).unwrap();
    let lifetime = Lifetime::packets(Some(2), Some(3));
    let handle = nic.install_sa(limited(lifetime)).unwrap();
    let mut done = vec![];
    for number in 0..5 {
        let mut buffer = queue.take_buffer().unwrap();
        queue.fill(&mut buffer, &[1; 60]).unwrap();
        queue.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Sa(handle), number)]).unwrap();
        queue.drain(queue.time() + Time::from_milliseconds(1), &mut done).unwrap();
        let expected = [SlotState::Armed, SlotState::Soft, SlotState::Expired, SlotState::Expired];
        let state = nic.query_sa(handle).unwrap();
        assert_eq!(state.state, expected[(number as usize).min(3)]);
    }
    // A refused packet is a status of its own, and no quarantine.
    let statuses: Vec<_> = done.iter().map(|done| done.status).collect();
    assert_eq!(statuses, [Status::Ok, Status::Ok, Status::Ok, Status::HardLimit, Status::HardLimit]);
    let state = nic.query_sa(handle).unwrap();
    assert_eq!((state.packets, state.bytes, state.refused, state.lifetime), (3, 180, 2, lifetime));
    let causes: Vec<_> = state.causes.iter().collect();
    assert_eq!(causes, [EventCause::SoftPackets, EventCause::HardPackets]);
    assert!(state.causes.contains(EventCause::HardPackets) && !state.causes.contains(EventCause::SoftBytes));

    nic.delete_sa(handle).unwrap();
    assert!(matches!(nic.delete_sa(handle), Err(Error::UnknownSa)));
    // Another takes the slot; the handle is none of it.
    let next = nic.install_sa(out(2)).unwrap();
    assert_eq!(next.index, handle.index);
    assert!(matches!(nic.query_sa(handle), Err(Error::UnknownSa)));
    // Nor on the same device opened again.
    nic.close().unwrap();
    let mut nic = open(&fake);
    let again = nic.install_sa(out(3)).unwrap();
    assert_ne!(again, next);
    assert!(matches!(nic.query_sa(next), Err(Error::UnknownSa)));
}

#[test]
fn a_state_that_cannot_be_true_is_an_anomaly() {
    type Lie = fn(&mut SaStateReply);
    let lies: [(&str, Lie); 8] = [
        ("free", |reply| reply.head.set_state(0)),
        ("draining", |reply| reply.head.set_state(4)),
        ("staged", |reply| reply.head.set_state(5)),
        ("no state", |reply| reply.head.set_state(9)),
        ("no direction", |reply| reply.head.set_direction(2)),
        ("no kind", |reply| reply.head.set_kind(0)),
        ("no cause", |reply| reply.sticky.set_causes(1 << 15)),
        ("a limit that is none", |reply| reply.hard_limit = 5),
    ];
    for (name, lie) in lies {
        let fake = Fake::new();
        let mut nic = open(&fake);
        let handle = nic.install_sa(out(1)).unwrap();
        nic.query_sa(handle).unwrap();
        fake.device.borrow_mut().on_query = Some(Box::new(lie));
        let outcome = nic.query_sa(handle);
        assert!(
            matches!(outcome, Err(Error::Anomaly { anomaly: AdminAnomaly::Reply, .. })),
            "{name}: {outcome:?}"
        );
    }
    let fake = Fake::new();
    let mut nic = open(&fake);
    let handle = nic.install_sa(out(1)).unwrap();
    fake.device.borrow_mut().on_query = Some(Box::new(|reply| {
        reply.packets = 1;
        (reply.installed_picoseconds, reply.first_use_picoseconds, reply.last_use_picoseconds) = (1, 2, 3);
        (reply.replay_duplicates, reply.replay_below_window, reply.icv_failures) = (4, 5, 6);
        reply.sticky.set_icv_failures_in_a_row(7);
    }));
    let state = nic.query_sa(handle).unwrap();
    assert_eq!(state.installed_picoseconds, 1);
    assert_eq!((state.first_use_picoseconds, state.last_use_picoseconds), (Some(2), Some(3)));
    assert_eq!((state.replay_duplicates, state.replay_below_window, state.icv_failures), (4, 5, 6));
    assert_eq!(state.icv_failures_in_a_row, 7);
}

#[test]
fn arming_keeps_below_the_hard_limit() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let handle = nic.install_sa(limited(Lifetime::packets(None, Some(100)))).unwrap();
    for soft in [0, 100, 101] {
        assert!(matches!(nic.arm_sa(handle, soft), Err(Error::Argument(_))), "{soft}");
    }
    nic.arm_sa(handle, 99).unwrap();
    let state = nic.query_sa(handle).unwrap();
    assert_eq!((state.lifetime, state.arming), (Lifetime::packets(Some(99), Some(100)), 1));
    nic.delete_sa(handle).unwrap();
    assert!(matches!(nic.arm_sa(handle, 50), Err(Error::UnknownSa)));
}

fn pair(nic: &mut Nic, first: u8) -> SaPair<SaHandle> {
    let handles = nic.install_sas(vec![out(first), sa(Direction::In, first + 1)]).unwrap();
    SaPair::new(handles[0], handles[1])
}

#[test]
fn a_pair_is_replaced_before_it_breaks() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let old = pair(&mut nic, 1);
    // What a key was used for elsewhere is no use of the new SA.
    let inbound = SaConfiguration { packets: 5, ..sa(Direction::In, 4) };
    let replacement = nic.replace_sas(old, SaPair::new(out(3), inbound)).unwrap();
    // The new ones are there, and the old ones too.
    assert_eq!(slots(&fake), [(0, 0x1001), (1, 0x1002), (2, 0x1003), (3, 0x1004)]);
    assert_eq!(replacement.retired, old);
    assert!(!nic.has_peer_switched(&replacement).unwrap());
    fake.device.borrow_mut().on_query = Some(Box::new(|reply| {
        (reply.packets, reply.first_use_picoseconds) = (1, 5);
    }));
    assert!(nic.has_peer_switched(&replacement).unwrap());
    let sas = nic.finish_replacement(replacement).unwrap();
    assert_eq!(slots(&fake), [(2, 0x1003), (3, 0x1004)]);
    assert_eq!(nic.query_sa(sas.outbound.unwrap()).unwrap().spi, 0x1003);
    assert_eq!(nic.query_sa(sas.inbound.unwrap()).unwrap().spi, 0x1004);
}

#[test]
fn one_direction_is_replaced_alone() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let old = pair(&mut nic, 1);
    let outbound = SaPair { outbound: old.outbound, inbound: None };
    let replacement = nic.replace_sas(outbound, SaPair { outbound: Some(out(3)), inbound: None }).unwrap();
    assert_eq!((replacement.retired.inbound, replacement.sas.inbound), (None, None));
    assert!(nic.has_peer_switched(&replacement).unwrap());
    nic.finish_replacement(replacement).unwrap();
    assert_eq!(slots(&fake), [(1, 0x1002), (2, 0x1003)]);
    let inbound = SaPair { outbound: None, inbound: old.inbound };
    let new = SaPair { outbound: None, inbound: Some(sa(Direction::In, 4)) };
    let replacement = nic.replace_sas(inbound, new).unwrap();
    assert_eq!((replacement.retired, replacement.sas.outbound), (inbound, None));
    nic.finish_replacement(replacement).unwrap();
    assert_eq!(slots(&fake), [(0, 0x1004), (2, 0x1003)]);
}

#[test]
fn a_replacement_that_fails_leaves_everything_as_it_was() {
    let fake = Fake::new();
    let mut nic = open(&fake);
    let old = pair(&mut nic, 1);
    let before = slots(&fake);
    let new = || SaPair::new(out(3), sa(Direction::In, 4));
    let swapped = SaPair { outbound: old.inbound, inbound: old.outbound };
    let nonsense = SaPair::new(SaConfiguration { icv_bytes: 1, ..out(3) }, sa(Direction::In, 4));
    let one = SaPair { outbound: Some(out(3)), inbound: None };
    assert!(matches!(nic.replace_sas(swapped, new()), Err(Error::Argument(_))));
    assert!(matches!(nic.replace_sas(old, one), Err(Error::Argument(_))));
    assert!(matches!(nic.replace_sas(old, nonsense), Err(Error::InBatch { number: 0, .. })));
    let used = SaPair::new(out(3), sa(Direction::In, 2));
    assert!(matches!(nic.replace_sas(old, used), Err(Error::InBatch { number: 1, .. })));
    assert_eq!(slots(&fake), before);
    assert_eq!(nic.query_sa(old.outbound.unwrap()).unwrap().spi, 0x1001);
}
