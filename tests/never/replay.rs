//! 4. A replayed or unauthenticated packet never reaches a receive queue marked good.
//!
//! PSP has no replay protection: its packets carry an IV and no sequence number, and a receiver keeps no
//! window. What is tested of PSP is authentication alone.

use std::collections::HashSet;

use cryptonic_driver::{
    Direction, Error, Mode, Protection, PspCaptureOptions, PspTransmit, QueuePairOptions, ReceivedProtocol,
    SaConfiguration, SecretKey, Status,
};
use cryptonic_hwmodel::World;

use crate::rig::{
    Chance, End, MARKER, apart, cases, device_keys, esp, esp_offset, guarded, marked, psp_offset, shows,
    tcp6, udp,
};

/// Given an SA at both ends, `count` distinct packets as they are on the wire, none of which has arrived.
fn recorded(a: &mut End, sa: SaConfiguration, count: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let sa = a.nic.install_sa(sa).expect("install");
    (0..count)
        .map(|index| {
            let mut payload = marked(60);
            payload.extend(index.to_be_bytes());
            let frame = udp(&payload);
            assert_eq!(a.send(&frame, Protection::Sa(sa)).status, Status::Ok);
            (frame, a.wire.take().remove(0))
        })
        .collect()
}

#[test]
fn each_packet_is_delivered_once_however_often_and_in_whatever_order_it_arrives() {
    for seed in 0..cases(6) {
        for esn in [false, true] {
            for start in [0, u64::from(u32::MAX) - 120] {
                let mut chance = Chance::new(seed);
                let (world, mut a, mut b) = apart();
                let count = 100;
                let packets = recorded(
                    &mut a,
                    SaConfiguration { esn, sequence: start, ..esp(Direction::Out, Mode::Tunnel, 0x42) },
                    count,
                );
                let incoming =
                    SaConfiguration { esn, sequence: start, ..esp(Direction::In, Mode::Tunnel, 0x42) };
                b.nic.install_sa(incoming).expect("install");
                let mut delivered = HashSet::new();
                for round in 0..30 {
                    for _ in 0..20 {
                        // Near the front at first, later anywhere.
                        let end = if round < 20 { (round + 1) * 5 } else { count };
                        let one = chance.below(end) as usize;
                        world.inject(b.id, &packets[one].1);
                        if chance.one_in(3) {
                            world.inject(b.id, &packets[one].1);
                        }
                    }
                    if chance.one_in(10) {
                        world.restart_firmware(b.id);
                    }
                    for (heard, bytes) in b.receive() {
                        assert_eq!((heard.status, heard.protocol), (Status::Ok, ReceivedProtocol::Esp));
                        assert!(delivered.insert(heard.sequence), "{} twice, seed {seed}", heard.sequence);
                        let index = (heard.sequence - start - 1) as usize;
                        assert_eq!(bytes, packets[index].0, "its own bytes");
                    }
                }
                assert!(delivered.len() > 50, "{} delivered", delivered.len());
            }
        }
    }
}

#[test]
fn a_replay_stays_a_replay_over_a_reset_of_the_receiver() {
    let (world, mut a, mut b) = apart();
    let packets = recorded(&mut a, esp(Direction::Out, Mode::Tunnel, 0x42), 10);
    b.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x42)).expect("install");
    for (_, frame) in &packets {
        world.inject(b.id, frame);
    }
    assert_eq!(b.receive().len(), 10);
    // When the receiver is reset, its driver does not take the key again where a replay would pass;
    let mut b = b.reopen(&world);
    for sequence in [0, 9] {
        let again = SaConfiguration { sequence, ..esp(Direction::In, Mode::Tunnel, 0x42) };
        assert!(matches!(b.nic.install_sa(again), Err(Error::KeyReused { .. })));
    }
    // and where it takes it, none passes.
    let again = SaConfiguration { sequence: 10, ..esp(Direction::In, Mode::Tunnel, 0x42) };
    b.nic.install_sa(again).expect("above");
    for (_, frame) in &packets {
        world.inject(b.id, frame);
    }
    assert_eq!(b.receive(), []);
}

#[test]
fn a_packet_of_another_epoch_is_not_taken_for_one_of_this() {
    // Given packets of ESN epoch 0, when the receiver is in epoch 1 or the last, then none passes.
    let (world, mut a, _b) = apart();
    let old = recorded(&mut a, SaConfiguration { esn: true, ..esp(Direction::Out, Mode::Tunnel, 0x42) }, 20);
    for top in [1 << 32, (1 << 32) + 10, u64::MAX - 40, u64::MAX] {
        let sa = SaConfiguration { esn: true, sequence: top, ..esp(Direction::In, Mode::Tunnel, 0x42) };
        // The replay window is the test's subject, not the ledger: each receiver is a new one.
        let mut b = End::new(&world, &cryptonic_hwmodel::Parameters::default());
        b.nic.install_sa(sa).expect("install");
        for (_, frame) in &old {
            world.inject(b.id, frame);
        }
        assert_eq!(b.receive(), [], "top {top:#x}");
    }
}

#[test]
fn the_last_numbers_are_received_once_and_nothing_follows_them() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let (world, mut a, mut b) = apart();
        let out = SaConfiguration { esn, sequence: last - 3, ..esp(Direction::Out, Mode::Tunnel, 0x42) };
        let packets = recorded(&mut a, out, 3);
        let incoming = SaConfiguration { esn, sequence: last - 3, ..esp(Direction::In, Mode::Tunnel, 0x42) };
        b.nic.install_sa(incoming).expect("install");
        for _ in 0..3 {
            for (_, frame) in &packets {
                world.inject(b.id, frame);
                // The same with number 0, as after a wrap.
                let mut wrapped = frame.clone();
                wrapped[38..42].fill(0);
                world.inject(b.id, &wrapped);
            }
        }
        let sequences: Vec<_> = b.receive().into_iter().map(|(heard, _)| heard.sequence).collect();
        assert_eq!(sequences, [last - 2, last - 1, last], "ESN {esn}");
    }
}

/// Protected frames of every kind, each with the frame in it, and where in it authentication begins.
fn protected(a: &mut End, b: &mut End) -> Vec<(String, Vec<u8>, Vec<u8>, usize)> {
    let mut all = vec![];
    for (key, mode, esn) in
        [(0x42, Mode::Tunnel, false), (0x43, Mode::Transport, false), (0x44, Mode::Transport, true)]
    {
        let sa = |direction| SaConfiguration { esn, ..esp(direction, mode, key) };
        let out = a.nic.install_sa(sa(Direction::Out)).expect("install");
        b.nic.install_sa(sa(Direction::In)).expect("install");
        for frame in [udp(&marked(40)), tcp6(&marked(40))] {
            assert_eq!(a.send(&frame, Protection::Sa(out)).status, Status::Ok);
            let sent = a.wire.take().remove(0);
            let from = esp_offset(&sent).expect("ESP");
            all.push((format!("ESP {mode:?}, ESN {esn}"), frame, sent, from));
        }
    }
    b.nic.psp_test_keys_load(device_keys()).expect("load");
    b.nic.psp_receive(0b11, 1000).expect("receive");
    for version in [0, 1] {
        let spi = b.nic.psp_allocate(version, 1).expect("allocate").remove(0);
        let key = a.queue.add_psp_key(version, spi.spi, &spi.key).expect("key");
        for crypt_offset in [0, 2] {
            for frame in [udp(&marked(40)), tcp6(&marked(40))] {
                let psp = PspTransmit { crypt_offset, ..PspTransmit::new(key) };
                assert_eq!(a.send(&frame, Protection::PspKey(psp)).status, Status::Ok);
                let sent = a.wire.take().remove(0);
                let from = psp_offset(&sent).expect("PSP");
                all.push((format!("PSP version {version}, crypt offset {crypt_offset}"), frame, sent, from));
            }
        }
    }
    b.nic.device_status().expect("every write is there");
    all
}

/// Injects a frame and says what came of it: nothing, or a good packet of a protocol.
fn outcome(world: &World, b: &mut End, frame: &[u8]) -> Vec<(ReceivedProtocol, Vec<u8>)> {
    world.inject(b.id, frame);
    b.receive()
        .into_iter()
        .filter(|(heard, _)| heard.status == Status::Ok)
        .map(|(heard, bytes)| (heard.protocol, bytes))
        .collect()
}

#[test]
fn no_bit_of_a_protected_packet_can_be_changed() {
    let (world, mut a, mut b) = apart();
    let frames = protected(&mut a, &mut b);
    for (name, plain, sent, from) in &frames {
        // (1 of 8 bits of each byte, or all of them in the long form)
        let step = if cases(1) == 1 { 8 } else { 1 };
        // What is authenticated comes first: a change of a header may use up the packet's number.
        let mut bits: Vec<_> = (0..sent.len() * 8).step_by(step).map(|bit| bit + bit / 8 % step).collect();
        bits.sort_by_key(|bit| bit / 8 < *from);
        for bit in bits {
            let mut changed = sent.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let outcome = outcome(&world, &mut b, &changed);
            if bit / 8 >= *from {
                // Reserved SPIs of ESP are for the host (such as an ESP ping) and come as they were.
                let reserved = name.starts_with("ESP") && changed[*from..from + 3] == [0; 3];
                assert!(outcome.is_empty() || reserved, "{name}: bit {bit}");
                assert!(opened(outcome.clone()).is_empty(), "{name}: bit {bit}");
            }
            for (protocol, bytes) in outcome {
                // Headers before are not authenticated: another protocol number or port makes another packet
                // of it, and what is delivered then is what was on the wire. Another MAC address leaves the
                // packet good, and then what was protected comes out.
                if protocol == ReceivedProtocol::Clear {
                    assert_eq!(bytes, changed, "{name}: bit {bit}");
                    assert!(!shows(&bytes[*from..], b"MARKER") || name.contains("crypt offset 2"));
                } else {
                    let protected = if plain[12..14] == [8, 0] { 34 } else { 54 };
                    assert_eq!(bytes[protected..], plain[protected..], "{name}: bit {bit}");
                }
            }
        }
    }
}

#[test]
fn no_part_of_a_protected_packet_can_be_cut_off_or_added() {
    let (world, mut a, mut b) = apart();
    for (name, plain, sent, from) in protected(&mut a, &mut b) {
        for length in 0..sent.len() {
            let cut = &sent[..length];
            assert!(opened(outcome(&world, &mut b, cut)).is_empty(), "{name}: {length} bytes");
            // The same with lengths that fit, so that the parser lets it through to the lanes.
            if length > from {
                let cut = with_lengths(cut, from);
                assert!(
                    opened(outcome(&world, &mut b, &cut)).is_empty(),
                    "{name}: {length} bytes, lengths right"
                );
            }
        }
        for added in [1, 4, 16, 64] {
            let mut longer = sent.clone();
            longer.extend(vec![0; added]);
            let longer = with_lengths(&longer, from);
            assert!(opened(outcome(&world, &mut b, &longer)).is_empty(), "{name}: {added} bytes more");
        }
        // As it was, it arrives: all that was before used up nothing.
        assert_eq!(opened(outcome(&world, &mut b, &sent)), [plain], "{name}");
    }
}

fn opened(outcome: Vec<(ReceivedProtocol, Vec<u8>)>) -> Vec<Vec<u8>> {
    outcome
        .into_iter()
        .filter(|(protocol, _)| *protocol != ReceivedProtocol::Clear)
        .map(|(_, bytes)| bytes)
        .collect()
}

/// A frame with IP and UDP lengths, and the IPv4 checksum, of what is there.
fn with_lengths(frame: &[u8], from: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let total = (frame.len() - 14) as u16;
    let ipv4 = frame[12..14] == [8, 0];
    let upper = if ipv4 {
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..34]).expect("a header").to_header();
        frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        34
    } else {
        frame[18..20].copy_from_slice(&(total - 40).to_be_bytes());
        54
    };
    if from != upper {
        let length = (frame.len() - upper) as u16;
        frame[upper + 4..upper + 6].copy_from_slice(&length.to_be_bytes());
    }
    frame
}

#[test]
fn a_packet_under_another_key_salt_or_spi_is_not_good() {
    let out = || esp(Direction::Out, Mode::Tunnel, 0x42);
    let others: [(&str, SaConfiguration); 4] = [
        ("key", SaConfiguration { key: SecretKey::new(&[0x43; 16]).expect("16 bytes"), ..out() }),
        ("salt", SaConfiguration { salt: [1, 2, 3, 5].into(), ..out() }),
        ("ESN", SaConfiguration { esn: true, ..out() }),
        ("SPI", SaConfiguration { spi: 0x9999, ..out() }),
    ];
    for (name, other) in others {
        let (world, mut a, mut b) = apart();
        b.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x42)).expect("install");
        world.record_drops(b.id);
        let packets = recorded(&mut a, other, 3);
        for (_, frame) in &packets {
            world.inject(b.id, frame);
        }
        assert_eq!(b.receive(), [], "{name}");
        let expected = if name == "SPI" { Status::NoSa } else { Status::IcvMismatch };
        assert_eq!(world.take_drops(b.id), [expected; 3], "{name}");
    }
}

#[test]
fn a_forged_number_does_not_move_the_window() {
    // Given a forged packet far ahead, when the packets behind it arrive, then they still pass.
    let (world, mut a, mut b) = apart();
    let packets = recorded(&mut a, esp(Direction::Out, Mode::Tunnel, 0x42), 5);
    b.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x42)).expect("install");
    let mut forged = packets[0].1.clone();
    forged[38..42].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    world.inject(b.id, &forged);
    for (_, frame) in &packets {
        world.inject(b.id, frame);
    }
    let sequences: Vec<_> = b.receive().into_iter().map(|(heard, _)| heard.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
}

#[test]
fn a_captured_packet_is_marked_as_one_is_never_good_and_is_as_it_was_on_the_wire() {
    let (world, mut a, mut b) = apart();
    let options = QueuePairOptions { copies: true, ..guarded() };
    let mut captures = b.nic.create_queue_pair(options).expect("queue");
    let queue = captures.index() as u8;
    let capture = PspCaptureOptions { queue, receive: true, transmit: true, interval_us: 0 };
    b.nic.psp_set_capture(Some(capture)).expect("capture");
    b.nic.psp_test_keys_load(device_keys()).expect("load");
    b.nic.psp_receive(0b11, 1000).expect("receive");
    let spi = b.nic.psp_allocate(1, 1).expect("allocate").remove(0);
    let key = a.queue.add_psp_key(1, spi.spi, &spi.key).expect("key");
    let protection = Protection::PspKey(PspTransmit::new(key));
    assert_eq!(a.send(&udp(&marked(400)), protection).status, Status::Ok);
    let good = a.wire.take().remove(0);
    let offset = psp_offset(&good).expect("PSP");
    for at in [offset + 20, good.len() - 1] {
        let mut forged = good.clone();
        forged[at] ^= 1;
        world.inject(b.id, &forged);
        assert_eq!(b.receive(), [], "not to its own queue");
        let mut received = vec![];
        captures.receive(&mut received, 8).expect("receive");
        let one = received.pop().expect("captured");
        assert!(one.is_copy() && received.is_empty());
        assert_eq!(one.status(), Status::IcvMismatch);
        let mut bytes = vec![0; one.length()];
        captures.copy_out(one, &mut bytes).expect("in range");
        assert!(bytes == forged, "what is not authenticated is not shown in clear");
    }
    world.inject(b.id, &good);
    let received = b.receive();
    assert_eq!(received.len(), 1);
    assert!(shows(&received[0].1, MARKER));
    let mut none = vec![];
    assert_eq!(captures.receive(&mut none, 8).expect("receive"), 0, "a good packet is not captured");
}
