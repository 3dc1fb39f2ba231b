//! 1. The same key and nonce never encrypt two packets.

use std::collections::HashSet;

use cryptonic_driver::{
    Cipher, Direction, Error, Mode, Protection, PspTransmit, SaConfiguration, SaHandle, SecretKey, Status,
};
use cryptonic_hwmodel::World;
use cryptonic_regs::descriptor::{Security, TransmitExtent, TransmitPsp, TransmitSa};

use crate::raw::{RawQueue, control};
use crate::rig::{
    Chance, End, Wire, apart, cases, device_keys, drain, esp, guarded, marked, pair, put_on, send_on,
    spi_and_iv, tcp, udp,
};

/// The nonces on a line. Each key of these tests has one SPI, so the SPI stands for key and salt.
fn nonces(wire: &Wire) -> Vec<(u32, u64)> {
    wire.frames()
        .iter()
        .map(|frame| spi_and_iv(frame).expect("only protected packets are on the line"))
        .collect()
}

fn assert_distinct(wire: &Wire) {
    let mut seen = HashSet::new();
    for nonce in nonces(wire) {
        assert!(seen.insert(nonce), "SPI and IV {nonce:x?} twice");
    }
}

fn psp_key(version: u8) -> SecretKey {
    SecretKey::new(&[0x60 + version; 32][..if version == 0 { 16 } else { 32 }]).expect("a key")
}

/// Protections of one life of a device, between two resets.
fn protections(
    end: &mut End,
    queues: &mut [cryptonic_driver::QueuePair],
    sas: &[SaHandle],
) -> Vec<Vec<Protection>> {
    let keys = |queue: &mut cryptonic_driver::QueuePair| {
        let mut all: Vec<_> = sas.iter().map(|sa| Protection::Sa(*sa)).collect();
        for version in [0, 1] {
            let key = queue.add_psp_key(version, 0x90 + u32::from(version), &psp_key(version)).expect("key");
            all.push(Protection::PspKey(PspTransmit::new(key)));
        }
        all
    };
    std::iter::once(keys(&mut end.queue)).chain(queues.iter_mut().map(keys)).collect()
}

#[test]
fn nonces_stay_distinct_over_queues_restarts_deletions_and_resets() {
    for seed in 0..cases(3) {
        let mut chance = Chance::new(seed);
        let (world, mut a, _b) = apart();
        // The lowest start that the driver takes for each ESP key.
        let mut starts = [0, 0];
        for life in 0..3 {
            let mut queues: Vec<_> =
                (0..3).map(|_| a.nic.create_queue_pair(guarded()).expect("queue")).collect();
            let mut sas: Vec<_> = (0..2)
                .map(|index| install_from(&mut a, index, &mut starts[index]).expect("install"))
                .collect();
            let mut protections_of = protections(&mut a, &mut queues, &sas);
            for _ in 0..300 {
                let queue = chance.below(4) as usize;
                let protection = chance.pick(&protections_of[queue]);
                let pair = if queue == 0 { &mut a.queue } else { &mut queues[queue - 1] };
                let frame = match chance.below(10) {
                    0 => vec![0xee; 64],                  // Not IP.
                    1 => udp(&[0; 1400])[..900].to_vec(), // Shorter than it says.
                    _ => udp(&marked(chance.below(1200) as usize)),
                };
                put_on(pair, &frame, protection, 0);
                match chance.below(40) {
                    0 => world.restart_firmware(a.id),
                    1 => {
                        // Delete with packets under way, and come back with the same key.
                        let index = chance.below(2) as usize;
                        let old = sas[index];
                        if a.nic.delete_sa(old).is_err() {
                            continue; // Firmware was restarted under it.
                        }
                        let fresh = install_from(&mut a, index, &mut starts[index]).expect("install");
                        for protection in protections_of.iter_mut().flatten() {
                            if *protection == Protection::Sa(old) {
                                *protection = Protection::Sa(fresh);
                            }
                        }
                        sas[index] = fresh;
                    }
                    2..8 => {
                        a.nic.relax();
                    }
                    _ => {}
                }
                if chance.one_in(30) {
                    drain(&mut a.queue);
                    queues.iter_mut().for_each(|queue| drop(drain(queue)));
                }
            }
            assert_distinct(&a.wire);
            for queue in queues {
                queue.close().expect("close");
            }
            if life != 2 {
                a = a.reopen(&world);
            }
        }
        let all = nonces(&a.wire);
        assert!(all.len() > 400, "seed {seed}: {} packets", all.len());
        let spis: HashSet<u32> = all.iter().map(|(spi, _)| *spi).collect();
        assert_eq!(spis.len(), 4, "every key was used");
    }
}

/// Installs ESP key `index` as low as the driver lets it, beginning at `start`.
fn install_from(end: &mut End, index: usize, start: &mut u64) -> Result<SaHandle, Error> {
    let configuration = |sequence| SaConfiguration {
        esn: index == 1,
        sequence,
        ..esp(Direction::Out, Mode::Tunnel, 0x42 + index as u8)
    };
    for _ in 0..100 {
        match end.nic.install_sa(configuration(*start)) {
            Err(Error::KeyReused { lowest: Some(lowest) }) => *start = lowest,
            // Firmware was restarted while it installed; the key may have reached the device.
            Err(Error::Refused { .. }) => {}
            other => return other,
        }
    }
    panic!("no start is accepted")
}

#[test]
fn a_key_used_before_a_reset_is_refused_after_it_unless_it_starts_higher() {
    // Given a key that protected five packets, when the device is reset in an orderly way,
    let (world, mut a, _b) = apart();
    let sa = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    for _ in 0..5 {
        assert_eq!(a.send(&udp(b"text"), Protection::Sa(sa)).status, Status::Ok);
    }
    let mut a = a.reopen(&world);
    // then it does not start at 0 again, nor with another salt, mode or cookie; only above what it used.
    for sequence in [0, 1, 4] {
        let again = SaConfiguration { sequence, ..esp(Direction::Out, Mode::Tunnel, 0x42) };
        assert!(matches!(a.nic.install_sa(again), Err(Error::KeyReused { lowest: Some(5) })), "{sequence}");
    }
    let other_salt = SaConfiguration {
        salt: [9, 9, 9, 9].into(),
        cookie: 3,
        ..esp(Direction::Out, Mode::Transport, 0x42)
    };
    assert!(matches!(a.nic.install_sa(other_salt), Err(Error::KeyReused { .. })));
    let above = SaConfiguration { sequence: 5, ..esp(Direction::Out, Mode::Tunnel, 0x42) };
    let sa = a.nic.install_sa(above).expect("above what was used");
    assert_eq!(a.send(&udp(b"text"), Protection::Sa(sa)).sequence, 6);
    assert_distinct(&a.wire);
}

#[test]
fn a_key_whose_device_was_reset_behind_the_drivers_back_is_never_taken_again() {
    let (world, mut a, _b) = apart();
    let sa = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    a.send(&udp(b"text"), Protection::Sa(sa));
    world.host(a.id).reset().expect("reset");
    let End { id, nic, queue, ledger, .. } = a;
    drop((queue, nic));
    let mut nic = crate::rig::open(&world, id, &ledger);
    for sequence in [0, 1, 1000] {
        let again = SaConfiguration { sequence, ..esp(Direction::Out, Mode::Tunnel, 0x42) };
        assert!(matches!(nic.install_sa(again), Err(Error::KeyReused { lowest: None })), "{sequence}");
    }
}

#[test]
fn a_key_in_use_is_not_installed_twice() {
    let (_world, mut a, _b) = apart();
    a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    for spi in [0x1042, 0x2000] {
        let twice = SaConfiguration { spi, sequence: 1 << 20, ..esp(Direction::Out, Mode::Transport, 0x42) };
        assert!(matches!(a.nic.install_sa(twice), Err(Error::KeyInUse)));
    }
}

#[test]
fn sequence_numbers_end_and_do_not_wrap() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let (world, mut a, _b) = apart();
        let sa = SaConfiguration {
            esn,
            sequence: last - 2,
            cipher: Cipher::AesGcm128,
            ..esp(Direction::Out, Mode::Tunnel, 0x42)
        };
        let sa = a.nic.install_sa(sa).expect("install");
        let mut ends = vec![];
        for round in 0..6 {
            if round == 4 {
                world.restart_firmware(a.id);
            }
            ends.push(a.send(&udp(&marked(64)), Protection::Sa(sa)));
        }
        let statuses: Vec<_> = ends.iter().map(|end| end.status).collect();
        let exhausted = Status::SequenceExhausted;
        assert_eq!(statuses, [Status::Ok, Status::Ok, exhausted, exhausted, exhausted, exhausted]);
        let ivs: Vec<_> = nonces(&a.wire).into_iter().map(|(_, iv)| iv).collect();
        assert_eq!(ivs, [last - 1, last], "ESN {esn}: two packets, and no more");
        assert_eq!(a.nic.query_sa(sa).expect("query").sequence, last);
        // The key is used up for good.
        a.nic.delete_sa(sa).expect("delete");
        let again = SaConfiguration { esn, ..esp(Direction::Out, Mode::Tunnel, 0x42) };
        assert!(matches!(a.nic.install_sa(again), Err(Error::KeyReused { .. })));
    }
}

#[test]
fn without_esn_no_start_is_above_32_bits() {
    let (_world, mut a, _b) = apart();
    let sa = SaConfiguration { sequence: 1 << 32, ..esp(Direction::Out, Mode::Tunnel, 0x42) };
    assert!(matches!(a.nic.install_sa(sa), Err(Error::Argument(_))));
}

#[test]
fn a_packet_that_fails_neither_burns_nor_reuses_a_number() {
    let (_world, mut a, _b) = apart();
    let tunnel = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    let transport = a.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x43)).expect("install");
    let mut fragment = udp(&[0; 64]);
    fragment[20] = 0x20; // More fragments follow.
    let checksum = etherparse::Ipv4HeaderSlice::from_slice(&fragment[14..34])
        .expect("a header")
        .to_header()
        .calc_header_checksum();
    fragment[24..26].copy_from_slice(&checksum.to_be_bytes());
    let faults: [(&str, Vec<u8>, SaHandle, Status); 4] = [
        ("not IP", vec![0xee; 64], tunnel, Status::NotIp),
        ("shorter than it says", udp(&[0; 100])[..80].to_vec(), tunnel, Status::NotIp),
        ("a header alone", udp(&[])[..20].to_vec(), transport, Status::NotIp),
        ("a fragment in transport mode", fragment, transport, Status::FragmentInTransport),
    ];
    for (index, (name, frame, sa, status)) in faults.into_iter().enumerate() {
        assert_eq!(a.send(&frame, Protection::Sa(sa)).status, status, "{name}");
        for sa in [tunnel, transport] {
            let end = a.send(&udp(b"good"), Protection::Sa(sa));
            assert_eq!((end.status, end.sequence), (Status::Ok, index as u64 + 1), "after {name}");
        }
    }
    assert_distinct(&a.wire);
}

#[test]
fn psp_ivs_never_repeat_over_resets_with_the_same_device_keys() {
    let (world, mut a, mut b) = pair();
    let mut last = 0;
    for life in 0..4 {
        b.nic.psp_test_keys_load(device_keys()).expect("load");
        b.nic.psp_receive(0b11, 1000).expect("receive");
        // The same device keys give the same SPIs and keys again.
        let spi = b.nic.psp_allocate(1, 1).expect("allocate").remove(0);
        assert_eq!(spi.spi, 0x8000_0001);
        if life == 1 {
            a.nic.psp_test_iv_load(last + 1_000_000_000_000).expect("ahead of the clock");
        }
        let key = a.queue.add_psp_key(1, spi.spi, &spi.key).expect("key");
        for _ in 0..20 {
            let end = a.send(&udp(b"text"), Protection::PspKey(PspTransmit::new(key)));
            assert_eq!(end.status, Status::Ok);
            assert!(end.sequence > last, "life {life}: {} after {last}", end.sequence);
            last = end.sequence;
        }
        for iv in [0, 1, last - 1, last] {
            assert!(a.nic.psp_test_iv_load(iv).is_err(), "an IV at or below one that was used");
        }
        (a, b) = (a.reopen(&world), b.reopen(&world));
    }
    assert_distinct(&a.wire);
    assert_eq!(nonces(&a.wire).len(), 80);
}

#[test]
fn psp_ivs_end_and_do_not_wrap() {
    let (world, mut a, _b) = apart();
    a.nic.psp_test_iv_load(u64::MAX - 1).expect("load");
    let mut sent = vec![];
    for life in 0..2 {
        let key = a.queue.add_psp_key(0, 0x90, &psp_key(0)).expect("key");
        for _ in 0..3 {
            sent.push(a.send(&udp(&marked(64)), Protection::PspKey(PspTransmit::new(key))).status);
        }
        if life == 0 {
            a = a.reopen(&world);
        }
    }
    let exhausted = Status::SequenceExhausted;
    assert_eq!(sent, [Status::Ok, Status::Ok, exhausted, exhausted, exhausted, exhausted]);
    assert_eq!(nonces(&a.wire), [(0x90, u64::MAX - 1), (0x90, u64::MAX)]);
}

#[test]
fn two_queues_with_one_psp_key_in_the_same_instant_take_different_ivs() {
    let (_world, mut a, _b) = apart();
    let mut other = a.nic.create_queue_pair(guarded()).expect("queue");
    let keys = [
        a.queue.add_psp_key(0, 0x90, &psp_key(0)).expect("key"),
        other.add_psp_key(0, 0x90, &psp_key(0)).expect("key"),
    ];
    for _ in 0..100 {
        put_on(&mut a.queue, &udp(b""), Protection::PspKey(PspTransmit::new(keys[0])), 0);
        put_on(&mut other, &udp(b""), Protection::PspKey(PspTransmit::new(keys[1])), 0);
    }
    drain(&mut a.queue);
    drain(&mut other);
    assert_eq!(nonces(&a.wire).len(), 200);
    assert_distinct(&a.wire);
}

#[test]
fn the_test_commands_stay_locked_over_a_reset() {
    let (world, a, _b) = apart();
    let mut a: End = a;
    a.nic.psp_test_lock().expect("lock");
    let mut a = reset_twice(&world, a);
    assert!(a.nic.psp_test_keys_load(device_keys()).is_err());
    assert!(a.nic.psp_test_iv_load(1 << 60).is_err());
    let key = a.queue.add_psp_key(0, 0x90, &psp_key(0)).expect("key");
    let end = send_on(&mut a.queue, &udp(b""), Protection::PspKey(PspTransmit::new(key)));
    assert!(end.sequence < 1 << 60);
}

fn reset_twice(world: &World, end: End) -> End {
    end.reopen(world).reopen(world)
}

#[test]
fn segments_leave_up_to_the_last_number_and_each_has_a_nonce_of_its_own() {
    let (world, mut a, _b) = apart();
    let near_the_end =
        SaConfiguration { sequence: u64::from(u32::MAX) - 7, ..esp(Direction::Out, Mode::Tunnel, 0x42) };
    let sa = a.nic.install_sa(near_the_end).expect("install");
    let deleted = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x43)).expect("install");
    a.nic.delete_sa(deleted).expect("delete");
    let reference =
        |sa: SaHandle| TransmitSa::new().with_index(sa.index).with_generation(sa.generation).into_bits();
    let mut queue = RawQueue::new(&world, a.id, 5, 64, false);
    let frame = tcp(1_000);
    let cut = |maximum_segment: u16| {
        let extent = TransmitExtent::new().with_total_length(frame.len() as u32);
        extent.with_maximum_segment(maximum_segment).into_bits()
    };
    let esp_control = control(frame.len(), Security::Sa).into_bits();
    let psp_control =
        |crypt_offset| control(frame.len(), Security::PspKey).with_psp_crypt_offset(crypt_offset).into_bits();
    let spi = TransmitPsp::new().with_spi(0x90).into_bits();
    // 7 numbers are left. (descriptor words 1 to 5, status, packets that leave)
    let steps = [
        ([esp_control, reference(deleted), cut(400), 0, 0], Status::StaleSa, 0),
        ([esp_control, reference(sa), cut(400), 0, 0], Status::Ok, 3),
        ([esp_control, reference(sa), cut(100), 0, 0], Status::SequenceExhausted, 4),
        ([esp_control, reference(sa), cut(250), 0, 0], Status::SequenceExhausted, 0),
        ([esp_control, reference(sa), cut(1_000), 0, 0], Status::SequenceExhausted, 0),
        ([psp_control(0), spi, cut(300), 1, 2], Status::Ok, 4),
        ([control(frame.len(), Security::Clear).into_bits(), 0, cut(300), 0, 0], Status::ClearNotAllowed, 0),
        // The last segment has 1 byte of payload, and a crypt offset that is past its end but in none before.
        ([psp_control(6), spi, cut(999), 1, 2], Status::TransmitCryptOffset, 0),
    ];
    let mut on_line = 0;
    for (index, ([control, security, extent, key_0, key_1], status, packets)) in steps.into_iter().enumerate()
    {
        let at = queue.frame(&frame);
        let words = [at, control, security, extent, key_0, key_1, 0, 0];
        assert_eq!(queue.send(words), Some(status), "step {index}");
        on_line += packets;
        assert_eq!(a.wire.frames().len(), on_line, "step {index}");
    }
    assert_distinct(&a.wire);
    assert!(!a.wire.shows_marker());
    assert!(queue.status().enabled());
}
