//! Of every line: what is asked for and cannot be is refused with an error of its own, and changes nothing.

use cryptonic_driver::{
    AdminStatus, Direction, Error, EventOptions, Lifetime, LifetimeKind, Mode, Nic, Opcode, Protection,
    QueueError, SaConfiguration, SaHandle, SaState, Status,
};
use cryptonic_hwmodel::{Parameters, World};
use cryptonic_pci::Bar;
use cryptonic_regs::admin::{SaForm, SaLifetime, SaNames, SaParameters};
use cryptonic_regs::events::{EVENT_CONTROL, EVENT_RING_BASE, EVENT_STATUS, EventControl, EventStatus};

use crate::hostile_admin::RawAdmin;
use crate::rig::{End, apart, device_keys, esp_number, marked, packet_of, send_all, udp};

fn limited(number: u32, lifetime: Lifetime) -> SaConfiguration {
    SaConfiguration { lifetime, ..esp_number(Direction::Out, Mode::Tunnel, number) }
}

/// States of SAs and the number of slots in use, to be compared.
fn state(nic: &mut Nic, sas: &[SaHandle]) -> (Vec<SaState>, u64) {
    let states = sas.iter().map(|sa| nic.query_sa(*sa).expect("query")).collect();
    (states, nic.statistics().expect("statistics").firmware.sa_slots_used)
}

#[test]
fn limits_that_contradict_themselves_are_refused_and_nothing_changes() {
    let (_world, mut a, _b) = apart();
    let there = a.nic.install_sa(limited(1, Lifetime::packets(Some(5), Some(9)))).expect("install");
    let before = state(&mut a.nic, &[there]);
    let kinds = [LifetimeKind::Packets, LifetimeKind::Bytes];
    // (what is wrong, soft, hard, counted before)
    let wrong = [
        ("a hard limit of 0", None, Some(0), 0),
        ("a soft limit of 0", Some(0), None, 0),
        ("a soft limit of 0 below a hard one", Some(0), Some(9), 0),
        ("soft at hard", Some(9), Some(9), 0),
        ("soft above hard", Some(10), Some(9), 0),
        ("counted to hard", None, Some(9), 9),
        ("counted past hard", Some(3), Some(9), u64::MAX),
    ];
    for (kind, (name, soft, hard, counted)) in
        kinds.into_iter().flat_map(|kind| wrong.map(|wrong| (kind, wrong)))
    {
        let sa = || SaConfiguration {
            packets: counted,
            bytes: counted,
            ..limited(2, Lifetime { kind, soft, hard })
        };
        assert!(matches!(a.nic.install_sa(sa()), Err(Error::Argument(_))), "{name}");
        let batch = vec![limited(3, Lifetime::UNLIMITED), sa()];
        let refused = a.nic.install_sas(batch);
        assert!(matches!(refused, Err(Error::InBatch { number: 1, .. })), "{name}: {refused:?}");
        assert_eq!(state(&mut a.nic, &[there]), before, "{name}");
    }
    // The keys were in use nowhere, so they can be used.
    for number in [2, 3] {
        a.nic.install_sa(limited(number, Lifetime::UNLIMITED)).expect("install");
    }
}

#[test]
fn a_table_that_is_full_of_a_kind_refuses_that_kind_alone() {
    let mut parameters = Parameters::default();
    (parameters.capacity.sa_slots, parameters.capacity.sa_packet_slots_percent) = (6, 66);
    let world = World::new(1);
    let mut a = End::new(&world, &parameters);
    let packets = Lifetime::packets(None, Some(9));
    let bytes = Lifetime::bytes(None, Some(9));
    let mut handles: Vec<_> =
        (0..4).map(|number| a.nic.install_sa(limited(number, packets)).expect("install")).collect();
    let full = |nic: &mut Nic, number, lifetime| {
        let refused = nic.install_sa(limited(number, lifetime));
        let status = AdminStatus::NoFreeSlot;
        assert!(
            matches!(&refused, Err(Error::Refused { status: found, command: Opcode::SaInstall, .. }) if *found == status),
            "{refused:?}"
        );
    };
    full(&mut a.nic, 10, packets);
    handles.push(a.nic.install_sa(limited(11, bytes)).expect("the other kind has room"));
    // What has no limit takes either.
    let before = state(&mut a.nic, &handles);
    let two = vec![limited(12, Lifetime::UNLIMITED), limited(13, Lifetime::UNLIMITED)];
    assert!(matches!(a.nic.install_sas(two), Err(Error::InBatch { number: 1, .. })));
    assert_eq!(state(&mut a.nic, &handles), before, "of two, none");
    handles.push(a.nic.install_sa(limited(12, Lifetime::UNLIMITED)).expect("one has room"));
    full(&mut a.nic, 14, bytes);
    full(&mut a.nic, 14, Lifetime::UNLIMITED);
    a.nic.delete_sa(handles[0]).expect("delete");
    full(&mut a.nic, 14, bytes);
    a.nic.install_sa(limited(14, packets)).expect("room of its kind");
}

#[test]
fn what_names_no_sa_any_more_is_refused() {
    let (world, mut a, mut b) = apart();
    let lifetime = Lifetime::packets(Some(2), Some(3));
    let there = a.nic.install_sa(limited(1, lifetime)).expect("install");
    let deleted = a.nic.install_sa(limited(2, lifetime)).expect("install");
    a.nic.delete_sa(deleted).expect("delete");
    let foreign = b.nic.install_sa(limited(3, lifetime)).expect("install");
    let before = state(&mut a.nic, &[there]);
    for stale in [deleted, foreign] {
        assert!(matches!(a.nic.delete_sa(stale), Err(Error::UnknownSa)));
        assert!(matches!(a.nic.arm_sa(stale, 1), Err(Error::UnknownSa)));
        assert!(matches!(a.nic.query_sa(stale), Err(Error::UnknownSa)));
        let old = cryptonic_driver::SaPair { outbound: Some(stale), inbound: None };
        let new = cryptonic_driver::SaPair { outbound: Some(limited(4, lifetime)), inbound: None };
        assert!(matches!(a.nic.replace_sas(old, new), Err(Error::UnknownSa)));
    }
    assert_eq!(state(&mut a.nic, &[there]), before);
    assert_eq!(a.send(&udp(&marked(64)), Protection::Sa(deleted)).status, Status::StaleSa);
    let mut packet = vec![packet_of(&mut a.queue, &udp(&marked(64)), Protection::Sa(foreign))];
    assert!(matches!(a.queue.transmit(&mut packet), Err(QueueError::ForeignSa)), "of another NIC");
    a.queue.give_back(packet.remove(0).buffer).expect("back");
    // Of the same device before its reset.
    let mut a = a.reopen(&world);
    let mut packet = vec![packet_of(&mut a.queue, &udp(&marked(64)), Protection::Sa(there))];
    assert!(matches!(a.queue.transmit(&mut packet), Err(QueueError::ForeignSa)), "of before the reset");
    assert!(matches!(a.nic.delete_sa(there), Err(Error::UnknownSa)));
    assert!(a.wire.frames().is_empty());
}

#[test]
fn an_expired_sa_is_not_armed_anew() {
    for direction in [Direction::Out, Direction::In] {
        let (world, mut a, mut b) = crate::rig::pair();
        let lifetime = Lifetime::packets(Some(1), Some(3));
        let of = |at| if at == direction { lifetime } else { Lifetime::UNLIMITED };
        let sa = |at| SaConfiguration { lifetime: of(at), ..esp_number(at, Mode::Tunnel, 1) };
        let out = a.nic.install_sa(sa(Direction::Out)).expect("install");
        let incoming = b.nic.install_sa(sa(Direction::In)).expect("install");
        send_all(&mut a.queue, &vec![udp(&marked(64)); 4], Protection::Sa(out));
        world.drain();
        let (nic, limited) =
            if direction == Direction::Out { (&mut a.nic, out) } else { (&mut b.nic, incoming) };
        let before = state(nic, &[limited]);
        for soft in [1, 2] {
            let refused = nic.arm_sa(limited, soft);
            let status = AdminStatus::BadArgument;
            assert!(
                matches!(&refused, Err(Error::Refused { status: found, command: Opcode::SaArm, .. }) if *found == status),
                "{refused:?}"
            );
        }
        for soft in [0, 3, 4, u64::MAX] {
            assert!(matches!(nic.arm_sa(limited, soft), Err(Error::Argument(_))), "{soft}");
        }
        assert_eq!(state(nic, &[limited]), before);
        nic.delete_sa(limited).expect("an expired SA is deleted like any");
    }
}

#[test]
fn test_keys_are_refused_while_locked_and_rotation_is_not() {
    let (_world, mut a, _b) = apart();
    a.nic.psp_test_lock().expect("lock");
    a.nic.psp_rotate().expect("rotate");
    let before = a.nic.psp_key_status().expect("status").into_bits();
    let refused = a.nic.psp_test_keys_load(device_keys());
    assert!(matches!(refused, Err(Error::Refused { status: AdminStatus::Locked, .. })), "{refused:?}");
    assert_eq!(a.nic.psp_key_status().expect("status").into_bits(), before);
    a.nic.psp_rotate().expect("rotate");
}

#[test]
fn an_epoch_that_turns_the_clock_back_is_refused_and_the_clock_goes_on() {
    let (world, mut a, _b) = apart();
    let epoch = 1_700_000_000_000_000_000;
    a.nic.psp_set_epoch(epoch).expect("ahead");
    for back in [1, epoch - 1, epoch / 2] {
        assert!(matches!(a.nic.psp_set_epoch(back), Err(Error::EpochRefused { .. })), "{back}");
        assert!(a.nic.psp_clock_picoseconds().expect("read").is_some_and(|clock| clock > epoch));
    }
    assert!(matches!(a.nic.psp_set_epoch(0), Err(Error::Argument(_))));
    let mut a = a.reopen(&world);
    assert!(matches!(a.nic.psp_set_epoch(epoch - 1), Err(Error::EpochRefused { .. })), "over a reset too");
    a.nic.psp_set_epoch(epoch).expect("the same does not turn it back");
}

#[test]
fn a_ring_of_events_that_cannot_be_is_refused() {
    let (world, mut a, _b) = apart();
    for slots in [0, 1, 2, 3, 5, 6, 1 << 13, u32::MAX] {
        let refused = a.nic.open_events(EventOptions { slots, vector: None });
        assert!(matches!(refused.map(drop), Err(Error::EventSlots { .. })), "{slots}");
    }
    let refused = a.nic.open_events(EventOptions { slots: 4, vector: Some(200) });
    assert!(matches!(refused.map(drop), Err(Error::Argument(_))));
    let stream = a.nic.open_events(EventOptions::default()).expect("events");
    assert!(matches!(a.nic.open_events(EventOptions::default()).map(drop), Err(Error::Argument(_))));
    drop(stream);
    // A host that goes past the driver: the device stops the ring, and the next good one runs.
    let host = world.host(a.id);
    for (base, slots_log2) in [(0x1000, 1), (0x1000, 13), (0x1000, 255), (0x1020, 4), (1 << 60, 4)] {
        host.write64(Bar::Bar0, EVENT_RING_BASE.offset, base).expect("write");
        let control = EventControl::new().with_enable(true).with_slots_log2(slots_log2);
        host.write32(Bar::Bar0, EVENT_CONTROL.offset, control.into_bits()).expect("write");
        let status = EventStatus::from_bits(host.read32(Bar::Bar0, EVENT_STATUS.offset).expect("read"));
        assert!(status.stopped() && !status.enabled(), "{base:x} {slots_log2}");
        host.write32(Bar::Bar0, EVENT_CONTROL.offset, 0).expect("write");
    }
    a.nic.open_events(EventOptions::default()).expect("events");
}

#[test]
fn a_batch_is_not_larger_than_the_device_takes() {
    let (_world, mut a, _b) = apart();
    let most = usize::from(a.nic.information().capabilities.life.sa_batch());
    let batch = |count: usize| (0..count as u32).map(|number| limited(number, Lifetime::UNLIMITED)).collect();
    let refused = a.nic.install_sas(batch(most + 1));
    assert!(matches!(refused, Err(Error::BatchTooLarge { .. })), "{refused:?}");
    assert_eq!(a.nic.install_sas(vec![]).expect("nothing to do"), []);
    assert_eq!(a.nic.install_sas(batch(most)).expect("as many as it takes").len(), most);
    // Twice one key, twice one SPI: of two, none.
    let twice = vec![limited(50, Lifetime::UNLIMITED), limited(50, Lifetime::UNLIMITED)];
    assert!(matches!(a.nic.install_sas(twice), Err(Error::InBatch { number: 1, .. })));
    let inbound = |key| SaConfiguration { spi: 0x7777, ..esp_number(Direction::In, Mode::Tunnel, key) };
    assert!(matches!(
        a.nic.install_sas(vec![inbound(60), inbound(61)]),
        Err(Error::InBatch { number: 1, .. })
    ));
    assert_eq!(a.nic.statistics().expect("statistics").firmware.sa_slots_used, most as u64);
    a.nic.install_sas(vec![limited(50, Lifetime::UNLIMITED), inbound(60)]).expect("the keys are unused");
}

/// A host without a driver's care: firmware and hardware refuse by themselves.
#[test]
fn the_device_itself_refuses_limits_that_contradict_themselves() {
    let mut parameters = Parameters::default();
    parameters.capacity.sa_slots = 4;
    let world = World::new(1);
    let id = world.add_nic(&parameters).expect("in range");
    let mut admin = RawAdmin::new(&world, id);
    world.drain();
    let good = SaParameters {
        form: SaForm::new().with_protocol(1).with_mode(1).with_icv_bytes(16),
        names: SaNames::new().with_spi(0x1000),
        key_0: 1.into(),
        lifetime: SaLifetime::new().with_kind(1),
        soft_limit: 5,
        hard_limit: 9,
        ..SaParameters::default()
    };
    let kind = |kind| good.lifetime.with_kind(kind);
    let wrong = [
        ("no kind", SaParameters { lifetime: kind(0), ..good }),
        ("a kind that is none", SaParameters { lifetime: kind(3), ..good }),
        ("another that is none", SaParameters { lifetime: kind(15), ..good }),
        ("reserved bits", SaParameters { lifetime: (good.lifetime.into_bits() | 1 << 63).into(), ..good }),
        ("a soft limit of 0", SaParameters { soft_limit: 0, ..good }),
        ("a hard limit of 0", SaParameters { hard_limit: 0, ..good }),
        (
            "a soft limit where none is said",
            SaParameters { lifetime: good.lifetime.with_no_soft_limit(true), ..good },
        ),
        (
            "a hard limit where none is said",
            SaParameters { lifetime: good.lifetime.with_no_hard_limit(true), ..good },
        ),
        ("soft at hard", SaParameters { soft_limit: 9, ..good }),
        ("soft above hard", SaParameters { soft_limit: u64::MAX, ..good }),
        ("packets at hard", SaParameters { packets: 9, ..good }),
        ("bytes past hard", SaParameters { lifetime: kind(2), bytes: u64::MAX, ..good }),
        (
            "an ICV of 8 bytes that is used up",
            SaParameters {
                form: good.form.with_icv_bytes(8),
                lifetime: good.lifetime.with_no_hard_limit(true),
                hard_limit: 0,
                packets: 1 << 32,
                ..good
            },
        ),
    ];
    let bad_argument = AdminStatus::BadArgument.number() as u16;
    for (name, wrong) in wrong {
        assert_eq!(admin.install(&world, &[wrong]), (bad_argument, 0, vec![0]), "{name}");
        assert_eq!(admin.install(&world, &[good, wrong]), (bad_argument, 1, vec![0, 0]), "{name}, second");
    }
    // None of all these took a slot: both that there are of the kind are free.
    for expected in [AdminStatus::Ok, AdminStatus::Ok, AdminStatus::NoFreeSlot] {
        let (status, ..) = admin.install(&world, &[good]);
        assert_eq!(AdminStatus::of_number(status.into()), Some(expected));
    }
}
