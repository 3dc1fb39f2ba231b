//! 5, continued: no byte of a key or a salt stays in any memory of device, host or driver when the life of a key ends
//! otherwise than planned: refused, rolled back, aborted, replaced, rotated, reset, dropped.

use cryptonic_driver::{
    Cipher, Direction, Error, EventOptions, KeyLedger, Lifetime, Mode, Nic, Protection, PspDeviceKeys,
    SaConfiguration, SaHandle, SaPair, SecretKey, Status, Time,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

use crate::memory::{Inverted, assert_gone, search, search_shared};
use crate::rig::{MARKER, apart, cases, esp, marked, pair, udp};
use crate::stepped::{Steps, open_stepped};

/// A key and a salt that no other has.
struct Secret {
    key: Inverted,
    salt: Inverted,
}

impl Secret {
    fn of(number: u64) -> Secret {
        Secret { key: Inverted::number(number, 32), salt: Inverted::number(number | 1 << 40, 4) }
    }

    fn sa(&self, direction: Direction, spi: u32) -> SaConfiguration {
        self.key.with(|key| {
            self.salt.with(|salt| SaConfiguration {
                cipher: Cipher::AesGcm256,
                key: SecretKey::new(key).expect("32 bytes"),
                salt: <[u8; 4]>::try_from(salt).expect("4 bytes").into(),
                spi,
                ..esp(direction, Mode::Tunnel, 0)
            })
        })
    }

    /// The key is in no memory at all, the salt in none that the device sees.
    fn is_gone(&self, when: &str) {
        assert_gone(&self.key, when);
        // Four bytes may stand in a packet of another test by chance, but not for long.
        let found = (0..3).map(|_| search_shared(&self.salt.0)).min();
        assert_eq!(found, Some(0), "{when}: the salt");
    }

    /// In its slot and nowhere else.
    fn is_in_use(&self) {
        assert_eq!(search(&self.key.0[..16]).elsewhere, 1);
    }
}

fn stepped(step: u64) -> (World, NicId, Nic, Steps) {
    let world = World::new(1);
    let id = world.add_nic(&Parameters::default()).expect("in range");
    let (nic, steps) = open_stepped(&world, id, Time::from_nanoseconds(step), &KeyLedger::new());
    (world, id, nic, steps)
}

#[test]
fn keys_of_a_refused_batch_are_nowhere() {
    let (_world, mut a, _b) = apart();
    let secrets = [101, 102, 103].map(Secret::of);
    let taken = Secret::of(104);
    a.nic.install_sa(taken.sa(Direction::In, 0x900)).expect("install");
    // The first two are staged, the third has an SPI that is taken.
    let spis = [0x901, 0x902, 0x900];
    let batch = secrets.iter().zip(spis).map(|(secret, spi)| secret.sa(Direction::In, spi)).collect();
    let refused = a.nic.install_sas(batch);
    assert!(matches!(refused, Err(Error::InBatch { number: 2, .. })), "{refused:?}");
    secrets.iter().for_each(|secret| secret.is_gone("refused"));
    taken.is_in_use();
    // A batch that the driver refuses never gets so far.
    let mut batch: Vec<_> = secrets.iter().map(|secret| secret.sa(Direction::In, 0x910)).collect();
    batch[2].lifetime = Lifetime::packets(Some(2), Some(2));
    assert!(a.nic.install_sas(batch).is_err());
    secrets.iter().for_each(|secret| secret.is_gone("refused by the driver"));
}

#[test]
fn keys_of_a_batch_that_a_crash_aborted_are_nowhere() {
    let (world, id, mut nic, steps) = stepped(200);
    let mut aborted = 0;
    for crash in (0..60).step_by(if cases(1) == 1 { 12 } else { 1 }) {
        let secrets = [1000 + 2 * crash, 1001 + 2 * crash].map(Secret::of);
        steps.crash_at(&world, id, crash);
        let batch =
            secrets.iter().zip([1, 2]).map(|(secret, spi)| secret.sa(Direction::Out, 0x900 + spi)).collect();
        let installed = nic.install_sas(batch);
        steps.stop();
        match installed {
            Ok(handles) => {
                secrets.iter().for_each(Secret::is_in_use);
                handles.into_iter().for_each(|handle| nic.delete_sa(handle).expect("delete"));
            }
            Err(_) => aborted += 1,
        }
        secrets.iter().for_each(|secret| secret.is_gone(&format!("crash at {crash}")));
    }
    assert!(aborted > 0);
}

#[test]
fn keys_of_an_install_whose_firmware_stalls_are_nowhere() {
    for stall in [5, 15, 25, 40] {
        let (world, id, mut nic, steps) = stepped(200);
        let secret = Secret::of(300 + stall);
        steps.stall_at(&world, id, stall);
        let installed = nic.install_sa(secret.sa(Direction::Out, 0x900));
        steps.stop();
        match installed {
            Ok(_) => secret.is_in_use(),
            Err(Error::Deadline { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if installed.is_ok() {
            world.host(id).reset().expect("reset");
        }
        secret.is_gone(&format!("stall at {stall}"));
    }
}

#[test]
fn the_key_of_a_replaced_sa_is_nowhere_when_the_replacement_is_finished() {
    let (_world, mut a, _b) = apart();
    let old = [401, 402].map(Secret::of);
    let new = [403, 404].map(Secret::of);
    let configurations = |secrets: &[Secret; 2], spi| {
        SaPair::new(secrets[0].sa(Direction::Out, spi), secrets[1].sa(Direction::In, spi))
    };
    let SaPair { outbound, inbound } = configurations(&old, 0x900);
    let handles = a.nic.install_sas([outbound, inbound].into_iter().flatten().collect()).expect("install");
    let old_pair = SaPair::new(handles[0], handles[1]);
    let replacement = a.nic.replace_sas(old_pair, configurations(&new, 0x901)).expect("replace");
    old.iter().for_each(Secret::is_in_use);
    new.iter().for_each(Secret::is_in_use);
    let pair = a.nic.finish_replacement(replacement).expect("finish");
    old.iter().for_each(|secret| secret.is_gone("replaced"));
    for handle in [pair.outbound, pair.inbound].into_iter().flatten() {
        a.nic.delete_sa(handle).expect("delete");
    }
    new.iter().for_each(|secret| secret.is_gone("deleted"));
}

#[test]
fn an_expired_key_is_nowhere_once_it_is_deleted_and_no_event_shows_it() {
    let (world, mut a, mut b) = pair();
    let secret = Secret::of(501);
    let limited = |direction| SaConfiguration {
        lifetime: Lifetime::packets(Some(1), Some(2)),
        ..secret.sa(direction, 0x900)
    };
    let mut streams =
        [&mut a, &mut b].map(|end| end.nic.open_events(EventOptions::default()).expect("events"));
    let out = a.nic.install_sa(limited(Direction::Out)).expect("install");
    let incoming = b.nic.install_sa(limited(Direction::In)).expect("install");
    for status in [Status::Ok, Status::Ok, Status::HardLimit] {
        assert_eq!(a.send(&udp(&marked(64)), Protection::Sa(out)).status, status);
    }
    assert_eq!(b.receive().len(), 2);
    world.drain();
    // In the memory of both rings there is no third copy, nor is there one in what is told.
    assert_eq!(search(&secret.key.0[..16]).elsewhere, 2);
    for stream in &mut streams {
        let mut told = String::new();
        while let Some(event) = stream.next().expect("next") {
            told.push_str(&format!("{event:?} {:?} ", stream.statistics()));
        }
        assert!(told.contains("Hard"));
        secret.key.with(|key| assert!(!told.contains(&hex::encode(&key[..4]))));
    }
    a.nic.delete_sa(out).expect("delete");
    b.nic.delete_sa(incoming).expect("delete");
    secret.is_gone("expired and deleted");
}

/// How a device's life ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Reset,
    Close,
    Drop,
}

#[test]
fn keys_of_expired_staged_and_living_sas_are_nowhere_after_the_end_of_the_device() {
    for (index, ending) in [Ending::Reset, Ending::Close, Ending::Drop].into_iter().enumerate() {
        let (world, id, mut nic, steps) = stepped(200);
        let secrets = [0, 1, 2, 3].map(|number| Secret::of(600 + 4 * index as u64 + number));
        let handles: Vec<SaHandle> = secrets[..2]
            .iter()
            .zip([1, 2])
            .map(|(secret, spi)| nic.install_sa(secret.sa(Direction::Out, 0x900 + spi)).expect("install"))
            .collect();
        // Firmware stalls in the middle of a batch, and the driver gives the device up.
        if matches!(ending, Ending::Drop | Ending::Reset) {
            steps.stall_at(&world, id, 20);
            let batch =
                secrets[2..].iter().zip([3, 4]).map(|(secret, spi)| secret.sa(Direction::In, 0x900 + spi));
            assert!(nic.install_sas(batch.collect()).is_err());
            steps.stop();
        }
        match ending {
            Ending::Reset => world.host(id).reset().expect("reset"),
            Ending::Close => nic.close().expect("close"),
            Ending::Drop => drop(nic),
        }
        assert_eq!(handles.len(), 2);
        secrets.iter().for_each(|secret| secret.is_gone(&format!("{ending:?}")));
    }
}

#[test]
fn a_device_key_is_nowhere_after_two_rotations_nor_are_the_keys_derived_from_it() {
    let (_world, mut a, mut b) = pair();
    let secrets = [701, 702].map(|number| Inverted::number(number, 32));
    secrets[0].with(|key_0| {
        secrets[1].with(|key_1| {
            let both = [key_0, key_1].map(|key| <&[u8; 32]>::try_from(key).expect("32 bytes"));
            b.nic.psp_test_keys_load(PspDeviceKeys::new(both[0], both[1])).expect("load");
        });
    });
    b.nic.psp_receive(0b11, 1000).expect("receive");
    // A derived key that its owner uses, so that both ends have made round keys of it.
    let spi = b.nic.psp_allocate(1, 1).expect("allocate").remove(0);
    let derived = Inverted(spi.key.expose().iter().map(|byte| !byte).collect());
    let key = a.queue.add_psp_key(1, spi.spi, &spi.key).expect("key");
    drop(spi);
    let transmit = cryptonic_driver::PspTransmit::new(key);
    assert_eq!(a.send(&udp(&MARKER[..]), Protection::PspKey(transmit)).status, Status::Ok);
    assert_eq!(b.receive().len(), 1);
    a.queue.remove_psp_key(key).expect("remove");
    b.nic.psp_rotate().expect("rotate");
    assert_gone(&secrets[0], "the key that was replaced");
    assert!(search(&secrets[1].0[..16]).elsewhere >= 1, "the one before still opens");
    b.nic.psp_rotate().expect("rotate");
    assert_gone(&secrets[1], "after the next rotation");
    assert_gone(&derived, "a key derived from it");
}

#[test]
fn keys_that_a_stalled_firmware_cannot_delete_go_with_the_close() {
    for drops in [false, true] {
        let (world, id, mut nic, _steps) = stepped(200);
        let secret = Secret::of(800 + u64::from(drops));
        let sa = nic.install_sa(secret.sa(Direction::Out, 0x900)).expect("install");
        world.stop_firmware(id);
        assert!(matches!(nic.query_sa(sa), Err(Error::Deadline { .. })));
        secret.is_in_use();
        if drops {
            drop(nic);
        } else {
            nic.close().expect("close");
        }
        secret.is_gone("closed without firmware");
    }
}
