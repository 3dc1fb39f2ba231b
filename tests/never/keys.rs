//! 5. No key byte can be read back, stays in memory after delete, reset or close, or appears in Debug text.

use cryptonic_driver::{
    Cipher, Direction, Mode, Protection, PspDeviceKeys, PspTransmit, SaConfiguration, SecretKey, Status,
};
use cryptonic_pci::{Bar, Host};
use cryptonic_regs::bar0::BAR0_BYTES;

use crate::rig::{End, apart, device_keys, esp, marked, udp};

/// Key bytes of a test, all different from those of the others.
fn key_bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| (index as u8).wrapping_mul(37) ^ seed ^ 0x5c).collect()
}

fn with_key(direction: Direction, key: &[u8]) -> SaConfiguration {
    let cipher = if key.len() == 16 { Cipher::AesGcm128 } else { Cipher::AesGcm256 };
    SaConfiguration {
        cipher,
        key: SecretKey::new(key).expect("a length"),
        salt: [0xd7, 0x3e, 0x91, 0xa6].into(),
        ..esp(direction, Mode::Tunnel, 0x42)
    }
}

/// Everything that a host can read of the function.
fn everything(host: &dyn Host) -> Vec<u8> {
    let mut bytes = vec![];
    for (bar, length) in [(Bar::Bar0, BAR0_BYTES), (Bar::Bar2, 0x1_0000), (Bar::Bar4, 0x1000)] {
        for offset in (0..length).step_by(4) {
            bytes.extend(host.read32(bar, offset).expect("read").to_le_bytes());
        }
    }
    for offset in (0..4096).step_by(4) {
        bytes.extend(host.config_read(offset).expect("read").to_le_bytes());
    }
    bytes
}

/// Whether any four bytes of a secret stand there, in either order.
fn shows_part(bytes: &[u8], secret: &[u8]) -> bool {
    let reversed: Vec<u8> = secret.iter().rev().copied().collect();
    let parts: Vec<&[u8]> = secret.windows(4).chain(reversed.windows(4)).collect();
    bytes.windows(4).any(|window| parts.contains(&window))
}

#[test]
fn no_register_shows_a_key_or_a_salt() {
    let (world, mut a, mut b) = apart();
    let secrets = [key_bytes(0x10, 16), key_bytes(0x20, 32), vec![0xd7, 0x3e, 0x91, 0xa6]];
    let out = a.nic.install_sa(with_key(Direction::Out, &secrets[0])).expect("install");
    a.nic.install_sa(with_key(Direction::In, &secrets[1])).expect("install");
    let device = [key_bytes(0x30, 32), key_bytes(0x40, 32)];
    let both = device.clone().map(|key| <[u8; 32]>::try_from(key).expect("32 bytes"));
    a.nic.psp_test_keys_load(PspDeviceKeys::new(&both[0], &both[1])).expect("load");
    a.nic.psp_receive(0b11, 1000).expect("receive");
    let spi = a.nic.psp_allocate(1, 1).expect("allocate").remove(0);
    let key = a.queue.add_psp_key(1, spi.spi, &spi.key).expect("key");
    for protection in [Protection::Sa(out), Protection::PspKey(PspTransmit::new(key))] {
        assert_eq!(a.send(&udp(&marked(64)), protection).status, Status::Ok);
    }
    let mut secrets: Vec<Vec<u8>> = secrets.into_iter().chain(device).collect();
    secrets.push(spi.key.expose().to_vec());
    let host = world.host(a.id);
    let before = everything(&*host);
    // A host that reads while commands are on their way sees no more.
    let under_way = {
        b.nic.psp_rotate().expect("another device's business");
        world.restart_firmware(a.id);
        everything(&*host)
    };
    for secret in &secrets {
        for read in [&before, &under_way] {
            assert!(!shows_part(read, secret), "{} bytes", secret.len());
        }
    }
    // What was read is not nothing.
    assert!(shows_part(&before, b"CRNC"));
}

#[test]
fn no_debug_text_shows_a_key_or_a_salt() {
    let (_world, mut a, _b) = apart();
    let key = key_bytes(0x50, 32);
    let configuration = with_key(Direction::Out, &key);
    a.nic.psp_test_keys_load(device_keys()).expect("load");
    let spi = a.nic.psp_allocate(1, 1).expect("allocate").remove(0);
    let words = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    let descriptor =
        cryptonic_regs::descriptor::TransmitKeyDescriptor::of_words(&[0, 0, 0, 0, words(&key), 0, 0, 0]);
    let parameters = cryptonic_regs::admin::SaParameters {
        key_0: words(&key).into(),
        salt: 0xa691_3ed7.into(),
        ..Default::default()
    };
    let texts = [
        format!("{configuration:?} {configuration:#?}"),
        format!("{:?} {:?}", configuration.key, configuration.salt),
        format!("{spi:?} {spi:#?}"),
        format!("{:?} {:#?}", device_keys(), device_keys()),
        format!("{:?} {:?}", a.ledger, a.nic.psp_key_status()),
        format!("{descriptor:?} {parameters:#?}"),
    ];
    let mut needles: Vec<String> = vec![];
    for bytes in [key.clone(), spi.key.expose().to_vec(), vec![0xd7, 0x3e, 0x91, 0xa6], vec![0x31; 8]] {
        for part in bytes.windows(4) {
            needles.push(hex::encode(part));
            needles.push(format!("{part:?}").trim_matches(['[', ']']).to_owned());
        }
        if let Some(first) = bytes.first_chunk::<8>() {
            needles.extend(
                [u64::from_le_bytes(*first), u64::from_be_bytes(*first)].map(|word| word.to_string()),
            );
        }
    }
    needles.push(0xa691_3ed7_u32.to_string());
    for text in texts {
        assert!(text.len() > 8);
        for needle in &needles {
            assert!(!text.to_lowercase().contains(needle), "{needle} in {text}");
        }
    }
}

#[cfg(target_os = "linux")]
mod behind {
    use cryptonic_regs::bar0::QueueControl;
    use cryptonic_regs::descriptor::{Security, TransmitPsp};

    use super::*;
    use crate::memory::{Inverted, assert_gone, search};
    use crate::raw::{RawQueue, control};

    /// How an SA's life ends.
    #[derive(Clone, Copy, Debug)]
    enum Ending {
        Delete,
        Reset,
        Close,
    }

    #[test]
    fn no_key_of_an_sa_stays_behind() {
        for (index, end) in [Ending::Delete, Ending::Reset, Ending::Close].into_iter().enumerate() {
            let (world, mut a, _b) = apart();
            let secrets = [Inverted::of(0x81 + index as u8, 32), Inverted::of(0x91 + index as u8, 32)];
            let out =
                secrets[0].with(|key| a.nic.install_sa(with_key(Direction::Out, key)).expect("install"));
            let incoming =
                secrets[1].with(|key| a.nic.install_sa(with_key(Direction::In, key)).expect("install"));
            for _ in 0..3 {
                assert_eq!(a.send(&udp(&marked(64)), Protection::Sa(out)).status, Status::Ok);
            }
            for secret in &secrets {
                let found = search(&secret.0[..16]);
                assert_eq!(found.elsewhere, 1, "in use it is in its slot and nowhere else ({end:?})");
            }
            match end {
                Ending::Delete => {
                    a.nic.delete_sa(out).expect("delete");
                    a.nic.delete_sa(incoming).expect("delete");
                }
                Ending::Reset => world.host(a.id).reset().expect("reset"),
                Ending::Close => a = a.reopen(&world),
            }
            for secret in &secrets {
                assert_gone(secret, &format!("{end:?}"));
            }
            drop(a);
        }
    }

    #[test]
    fn no_key_of_a_descriptor_stays_behind() {
        for (index, end) in [Ending::Delete, Ending::Reset, Ending::Close].into_iter().enumerate() {
            let (world, mut a, _b) = apart();
            let secret = Inverted::of(0xa1 + index as u8, 32);
            let key = secret.with(|key| {
                let key = SecretKey::new(key).expect("32 bytes");
                a.queue.add_psp_key(1, 0x90, &key).expect("key")
            });
            for _ in 0..3 {
                let protection = Protection::PspKey(PspTransmit::new(key));
                assert_eq!(a.send(&udp(&marked(64)), protection).status, Status::Ok);
            }
            assert_eq!(search(&secret.0[..16]).elsewhere, 1, "kept by its queue pair and nowhere else");
            match end {
                Ending::Delete => a.queue.remove_psp_key(key).expect("remove"),
                Ending::Reset => {
                    // With packets under way.
                    for cookie in 0..32 {
                        let protection = Protection::PspKey(PspTransmit::new(key));
                        crate::rig::put_on(&mut a.queue, &udp(&marked(64)), protection, cookie);
                    }
                    a.nic.relax();
                    world.host(a.id).reset().expect("reset");
                    let End { queue, .. } = a;
                    drop(queue);
                    assert_gone(&secret, "reset");
                    continue;
                }
                Ending::Close => a = a.reopen(&world),
            }
            assert_gone(&secret, &format!("{end:?}"));
            drop(a);
        }
    }

    /// Keys that come by push windows, whole or torn, and those of a frame whose end never comes.
    #[test]
    fn no_key_of_a_push_or_of_half_a_frame_stays_behind() {
        let spi = TransmitPsp::new().with_spi(0x90).into_bits();
        // (name, lines of the slot that are pushed, whether the descriptor ends its frame, whether it is in the ring)
        for (index, (name, lines, whole, in_ring)) in [
            ("a push", 2, true, true),
            ("a push that is torn", 1, true, false),
            ("a push of a first descriptor", 2, false, true),
            ("a first descriptor that is fetched", 0, false, true),
        ]
        .into_iter()
        .enumerate()
        {
            for end in [Ending::Close, Ending::Reset] {
                let (world, a, _b) = apart();
                let mut queue = RawQueue::new(&world, a.id, 5, 128, false);
                let secret = Inverted::of(0xd1 + index as u8, 32);
                let frame = udp(&marked(64));
                let at = queue.frame(&frame);
                let control = control(frame.len(), Security::PspKey)
                    .with_psp_version(1)
                    .with_end_of_packet(whole)
                    .into_bits();
                let mut words = [0; 16];
                words[..4].copy_from_slice(&[at, control, spi, frame.len() as u64]);
                secret.with(|key| {
                    for (word, bytes) in words[4..8].iter_mut().zip(key.chunks_exact(8)) {
                        *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
                    }
                });
                if in_ring {
                    queue.put_slot(&words);
                }
                if lines == 0 {
                    queue.ring();
                } else {
                    queue.push(&words, 1, 0, lines);
                }
                words.fill(0);
                std::hint::black_box(&mut words);
                queue.settle();
                queue.wipe_ring();
                let sent = queue.completion().map(|one| one.end.status());
                assert_eq!(sent, (whole && in_ring).then_some(0), "{name}");
                let kept = usize::from(!whole || !in_ring);
                assert_eq!(search(&secret.0[..16]).elsewhere, kept, "{name}: while it waits, in one place");
                match end {
                    Ending::Reset => world.host(a.id).reset().expect("reset"),
                    _ => queue.control(QueueControl::new()),
                }
                queue.status();
                assert_gone(&secret, name);
                drop((queue, a));
            }
        }
    }

    #[test]
    fn no_device_key_and_no_derived_key_stays_behind() {
        for close in [false, true] {
            device_keys_end(close);
        }
    }

    fn device_keys_end(close: bool) {
        let (world, mut a, _b) = apart();
        let secrets = [Inverted::of(0xb1, 32), Inverted::of(0xc1, 32)];
        secrets[0].with(|key_0| {
            secrets[1].with(|key_1| {
                let both = [key_0, key_1].map(|key| <&[u8; 32]>::try_from(key).expect("32 bytes"));
                a.nic.psp_test_keys_load(PspDeviceKeys::new(both[0], both[1])).expect("load");
            });
        });
        for secret in &secrets {
            assert!(search(&secret.0[..16]).elsewhere >= 1, "in use");
        }
        let spi = a.nic.psp_allocate(1, 3).expect("allocate").remove(1);
        let derived = Inverted(spi.key.expose().iter().map(|byte| !byte).collect());
        assert_eq!(search(&derived.0[..16]).elsewhere, 1, "its owner's and nobody else's");
        drop(spi);
        assert_gone(&derived, "a derived key, dropped by its owner");
        if close {
            a.nic.close().expect("close");
        } else {
            world.host(a.id).reset().expect("reset");
        }
        for secret in &secrets {
            assert_gone(secret, if close { "device keys, close" } else { "device keys, reset" });
        }
    }
}
