//! 7, continued: malicious packets, from the line and from the host.

use cryptonic_driver::{Direction, Mode, Protection, PspTransmit};
use cryptonic_hwmodel::{Parameters, World};

use crate::hostile::{LIMIT, assert_serves_again, within};
use crate::rig::{Chance, apart, cases, device_keys, esp, esp_offset, marked, psp_offset, put_on, tcp6, udp};

/// Frames that hold something for every part of the parser, from valid ones and by chance.
fn hostile_frame(chance: &mut Chance, valid: &[Vec<u8>]) -> Vec<u8> {
    if chance.one_in(20) {
        let length = chance.below(200) as usize;
        return chance.bytes(length);
    }
    let mut frame = valid[chance.below(valid.len() as u64) as usize].clone();
    for _ in 0..chance.below(4) {
        if frame.is_empty() {
            break;
        }
        let at = chance.below(frame.len().min(100) as u64) as usize;
        match chance.below(5) {
            0 => frame.truncate(at),
            1 => frame[at] = chance.pick(&[0, 0xff, 0x7f, 0x80]),
            2 => frame[at] ^= 1 << chance.below(8),
            3 => {
                let byte = chance.word() as u8;
                frame.insert(at, byte);
            }
            _ => frame.extend(std::iter::repeat_n(0, chance.below(100) as usize)),
        }
    }
    // With the right checksum more of the parser is reached.
    if frame.len() >= 34 && frame[12..14] == [8, 0] && chance.one_in(2) {
        frame[24..26].fill(0);
        let words = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// Protected frames under SAs and PSP keys that the receiver has.
fn protected(world: &World) -> (crate::rig::End, Vec<Vec<u8>>) {
    let mut a = crate::rig::End::new(world, &Parameters::default());
    let mut frames = vec![];
    a.nic.psp_test_keys_load(device_keys()).expect("load");
    a.nic.psp_receive(0b11, 1000).expect("receive");
    for (key, mode) in [(0x42, Mode::Tunnel), (0x43, Mode::Transport)] {
        let out = a.nic.install_sa(esp(Direction::Out, mode, key)).expect("install");
        a.nic.install_sa(esp(Direction::In, mode, key)).expect("install");
        for frame in [udp(&marked(100)), tcp6(&marked(100)), udp(&[])] {
            a.send(&frame, Protection::Sa(out));
        }
    }
    for version in [0, 1] {
        let spi = a.nic.psp_allocate(version, 1).expect("allocate").remove(0);
        let key = a.queue.add_psp_key(version, spi.spi, &spi.key).expect("key");
        for crypt_offset in [0, 5] {
            let psp = PspTransmit { crypt_offset, ..PspTransmit::new(key) };
            for frame in [udp(&marked(100)), tcp6(&marked(100))] {
                a.send(&frame, Protection::PspKey(psp));
            }
        }
    }
    frames.extend(a.wire.take());
    assert!(frames.iter().all(|frame| esp_offset(frame).is_some() || psp_offset(frame).is_some()));
    (a, frames)
}

#[test]
fn random_frames() {
    for seed in 0..cases(12) {
        within(LIMIT, format!("frames, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let world = World::new(seed);
            let (mut a, mut valid) = protected(&world);
            valid.extend([udp(&marked(100)), tcp6(&marked(100)), vec![], vec![0; 60]]);
            for _ in 0..100 {
                for _ in 0..50 {
                    let frame = hostile_frame(&mut chance, &valid);
                    world.inject(a.id, &frame);
                }
                if chance.one_in(10) {
                    world.inject(a.id, &vec![0x55; chance.pick(&[9_600, 9_728, 9_729, 65_535, 100_000])]);
                }
                a.receive();
            }
            world.drain();
            drop((a.queue, a.nic));
            assert_serves_again(&world, a.id);
        });
    }
}

#[test]
fn random_frames_on_transmit() {
    for seed in 0..cases(12) {
        within(LIMIT, format!("frames on transmit, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let (_world, mut a, _b) = apart();
            let key = cryptonic_driver::SecretKey::new(&[7; 16]).expect("16 bytes");
            let key = a.queue.add_psp_key(0, 0x90, &key).expect("key");
            let protections = [
                Protection::Sa(a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install")),
                Protection::Sa(
                    a.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x43)).expect("install"),
                ),
                Protection::PspKey(PspTransmit::new(key)),
                Protection::PspKey(PspTransmit { crypt_offset: 9, ..PspTransmit::new(key) }),
            ];
            let valid = [udp(&marked(100)), tcp6(&marked(100)), udp(&[]), tcp6(&[]), vec![0; 60]];
            for _ in 0..3000 {
                let mut frame = hostile_frame(&mut chance, &valid);
                frame.truncate(2048);
                let protection = if seed % 2 == 0 { protections[0] } else { chance.pick(&protections) };
                put_on(&mut a.queue, &frame, protection, 0);
                if a.queue.transmit_space() < 10 {
                    crate::rig::drain(&mut a.queue);
                }
            }
            crate::rig::drain(&mut a.queue);
            assert!(!a.wire.frames().is_empty());
            // In a tunnel nothing of a packet is seen, whatever it is; in transport mode its headers are.
            assert!(seed % 2 == 1 || !a.wire.shows_marker());
        });
    }
}
