//! Device keys, the IV clock, the cache of derived keys, the port of PSP.

use cryptonic_pci::Time;
use cryptonic_regs::Status;
use cryptonic_regs::admin::{AdminStatus, Opcode};
use cryptonic_regs::bar0::{self, DeviceStatus, PspKeyStatus, QueueControl};

use crate::psp::{HEADER, Psp};
use crate::raw::tcp;

fn iv_of(wire: &[u8]) -> u64 {
    u64::from_be_bytes(wire[HEADER + 8..HEADER + 16].try_into().expect("8 bytes"))
}

#[test]
fn ivs_rise_over_resets_with_the_same_key_and_whatever_the_epoch() {
    let mut psp = Psp::new(|_| {});
    let mut last = 0;
    for round in 0..5 {
        for _ in 0..20 {
            let (_, wire) = psp.wire(|control| control);
            assert!(iv_of(&wire) > last, "round {round}");
            last = iv_of(&wire);
        }
        psp.raw.host.reset().expect("reset");
        psp.raw.set_up(QueueControl::new());
        psp.admin.turn_on(&psp.raw);
        // An epoch in the past does not turn the clock back, and a test IV below one that was used is refused.
        psp.raw
            .host
            .write64(cryptonic_pci::Bar::Bar0, cryptonic_regs::psp_policy::PSP_EPOCH.offset, 1)
            .expect("write");
        let (ended, _) = psp.admin.try_ask(&psp.raw, Opcode::PspTestIvLoad, [last, 0], &[], 0);
        assert_eq!(ended, AdminStatus::BadArgument);
    }
    // A test IV far ahead, and a reset: the clock does not fall behind it.
    psp.admin.ask(&psp.raw, Opcode::PspTestIvLoad, 1 << 62, &[], 0);
    assert_eq!(iv_of(&psp.wire(|control| control).1), 1 << 62);
    psp.raw.host.reset().expect("reset");
    psp.raw.set_up(QueueControl::new());
    assert_eq!(iv_of(&psp.wire(|control| control).1), (1 << 62) + 1);
}

#[test]
fn a_reset_zeroises_device_keys_and_leaves_receive_off_until_fresh_ones_are_made() {
    let mut psp = Psp::new(|_| {});
    let (_, wire) = psp.wire(|control| control);
    psp.raw.host.reset().expect("reset");
    psp.raw.set_up(QueueControl::new());
    psp.admin.turn_on(&psp.raw);
    psp.post(&[2_048; 4]);
    let keys = |psp: &Psp| PspKeyStatus::from_bits(psp.raw.read(bar0::PSP_KEY_STATUS.offset));
    let zeroised =
        |psp: &Psp| DeviceStatus::from_bits(psp.raw.read(bar0::DEVICE_STATUS.offset)).keys_zeroised();
    assert!(zeroised(&psp) && !keys(&psp).key_0_valid() && !keys(&psp).key_1_valid());
    psp.arrive(&wire);
    assert_eq!(psp.count(Status::PspVersionDisabled), 1, "receive is off");
    psp.receive_on(1_000);
    psp.arrive(&wire);
    assert_eq!(psp.count(Status::PspNoDeviceKey), 1, "turned on, there is no key");
    let (ended, _) = psp.admin.try_ask(&psp.raw, Opcode::PspAllocate, [1, 0], &[], 5);
    assert_eq!(ended, AdminStatus::NoSpiLeft);
    psp.admin.ask(&psp.raw, Opcode::PspRotate, 0, &[], 0);
    psp.admin.ask(&psp.raw, Opcode::PspRotate, 0, &[], 0);
    assert!(!zeroised(&psp) && keys(&psp).key_0_valid() && keys(&psp).key_1_valid());
    psp.arrive(&wire);
    assert_eq!(psp.count(Status::IcvMismatch), 1, "keys are fresh, not those from before");
    (psp.spi, psp.key) = psp.admin.allocate(&psp.raw, 0, 1)[0];
    let (frame, wire) = psp.wire(|control| control);
    psp.arrive(&wire);
    assert_eq!(psp.raw.received().remove(0).1, frame);
}

#[test]
fn the_lock_of_test_keys_survives_a_reset_and_a_refused_load_loads_nothing() {
    let mut psp = Psp::new(|_| {});
    psp.raw.write(bar0::PSP_TEST_LOCK.offset, 1);
    psp.raw.write(bar0::PSP_TEST_LOCK.offset, 0);
    for _ in 0..2 {
        psp.raw.host.reset().expect("reset");
        psp.raw.set_up(QueueControl::new());
        psp.admin.turn_on(&psp.raw);
        for opcode in [Opcode::PspTestKeyLoad, Opcode::PspTestIvLoad] {
            let block: &[u64] = if opcode == Opcode::PspTestKeyLoad { &[5; 8] } else { &[] };
            let argument = if opcode == Opcode::PspTestIvLoad { 1 << 62 } else { 0 };
            let (ended, _) = psp.admin.try_ask(&psp.raw, opcode, [argument, 0], block, 0);
            assert_eq!(ended, AdminStatus::Locked, "{}", opcode.name());
        }
        let status = DeviceStatus::from_bits(psp.raw.read(bar0::DEVICE_STATUS.offset));
        assert!(status.keys_zeroised(), "no key was loaded");
        assert_eq!(psp.raw.read(bar0::PSP_TEST_LOCK.offset), 1);
    }
}

#[test]
fn packets_go_to_the_port_that_is_set_and_are_opened_at_no_other() {
    let mut psp = Psp::new(|_| {});
    let (_, at_1000) = psp.wire(|control| control);
    psp.receive_on(4_789);
    let (frame, at_4789) = psp.wire(|control| control);
    assert_eq!(at_4789[36..38], 4_789_u16.to_be_bytes());
    psp.post(&[2_048; 4]);
    psp.arrive(&at_1000);
    psp.arrive(&at_4789);
    let received = psp.raw.received();
    assert_eq!((&received[0].1, received[0].0.security.spi()), (&at_1000, 0), "in clear, as any UDP");
    assert_eq!((&received[1].1, received[1].0.security.spi()), (&frame, psp.spi));
}

/// What the derivation unit did, in cycles, and what the cache had and had not.
fn work(psp: &Psp) -> (u64, (u64, u64)) {
    let busy = psp.raw.world.busy(psp.raw.id);
    let (_, time) = busy.iter().find(|(stage, _)| *stage == "key_derivation").expect("a stage");
    ((time.0 / 102_400) as u64, psp.raw.world.derived_key_lookups(psp.raw.id))
}

#[test]
fn a_cache_saves_the_derivation_and_changes_no_byte() {
    let mut outcomes = vec![];
    for entries in [0, 64] {
        let mut psp = Psp::new(|parameters| parameters.crypto.derived_key_cache_entries = entries);
        let (_, wire) = psp.wire(|control| control);
        psp.post(&[2_048; 64]);
        let before = work(&psp).0;
        let mut seen = vec![];
        let mut bad = wire.clone();
        bad[HEADER + 50] ^= 1;
        for _ in 0..10 {
            psp.arrive(&wire);
            psp.arrive(&bad);
        }
        seen.extend(
            psp.raw.received().into_iter().map(|(completion, bytes)| (completion.end.status(), bytes)),
        );
        let (cycles, lookups) = work(&psp);
        let expected = if entries == 0 { (20, (0, 0)) } else { (1, (19, 1)) };
        assert_eq!((cycles - before, lookups), expected, "{entries} entries");
        // A rotation empties it, though the key of this SPI stays; a second one takes that key away.
        psp.admin.ask(&psp.raw, Opcode::PspRotate, 0, &[], 0);
        psp.arrive(&wire);
        seen.extend(
            psp.raw.received().into_iter().map(|(completion, bytes)| (completion.end.status(), bytes)),
        );
        assert_eq!(work(&psp).1, if entries == 0 { (0, 0) } else { (19, 2) });
        psp.admin.ask(&psp.raw, Opcode::PspRotate, 0, &[], 0);
        psp.arrive(&wire);
        assert_eq!((psp.count(Status::IcvMismatch), psp.raw.received().len()), (11, 0));
        outcomes.push(seen);
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0].len(), 11);
}

#[test]
fn a_key_that_is_cached_is_there_after_one_cycle() {
    // From arrival to the completion in host memory.
    let time = |entries: u64, warm: bool| {
        let mut psp = Psp::new(|parameters| parameters.crypto.derived_key_cache_entries = entries);
        let (_, wire) = psp.wire(|control| control);
        psp.post(&[2_048; 4]);
        if warm {
            psp.arrive(&wire);
        }
        psp.raw.pass(Time::from_microseconds(5));
        let start = psp.raw.world.now();
        psp.arrive(&wire);
        (psp.raw.world.now() - start).0
    };
    let cycle = 102_400;
    let cold = time(64, false);
    assert_eq!(cold - time(0, false), cycle, "the lookup before the derivation");
    // The derivation's latency; stages begin with a cycle, so that one more or less is chance.
    let saved = cold - time(64, true);
    assert!((32 * cycle..=34 * cycle).contains(&saved), "{} cycles", saved / cycle);
}

#[test]
fn a_frame_that_is_not_psp_asks_no_key() {
    let mut psp = Psp::new(|parameters| parameters.crypto.derived_key_cache_entries = 4);
    psp.post(&[2_048; 4]);
    psp.arrive(&tcp(false, &[1; 50]));
    assert_eq!(work(&psp).1, (0, 0));
}
