//! 2. A packet meant to be encrypted never leaves in clear, on any error; a clear one never enters where an
//!    SA was due.

use cryptonic_driver::{
    Direction, Mode, Protection, PspTransmit, QueuePairOptions, ReceivedProtocol, SaHandle, SecretKey, Status,
};
use cryptonic_pci::DmaAccess;
use cryptonic_regs::descriptor::{Security, SourcePortPolicy, TransmitControl, TransmitPsp, TransmitSa};

use crate::raw::{RawQueue, control};
use crate::rig::{
    Chance, apart, cases, device_keys, drain, esp, esp_offset, guarded, marked, pair, psp_offset, put_on,
    shows, tcp6, udp,
};

fn reference(sa: SaHandle) -> u64 {
    TransmitSa::new().with_index(sa.index).with_generation(sa.generation).into_bits()
}

#[test]
fn no_fault_of_a_descriptor_lets_the_packet_out() {
    let (world, mut a, _b) = apart();
    let out = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    let incoming = a.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x43)).expect("install");
    let deleted = a.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x44)).expect("install");
    a.nic.delete_sa(deleted).expect("delete");
    let mut wide = RawQueue::new(&world, a.id, 5, 64, false);
    let mut narrow = RawQueue::new(&world, a.id, 6, 32, false);

    let frame = udp(&marked(200));
    let length = frame.len();
    let sa = control(length, Security::Sa);
    let psp = control(length, Security::PspKey);
    let clear = control(length, Security::Clear);
    let good = reference(out);
    let spi = TransmitPsp::new().with_spi(0x90).into_bits();
    let oversize = 9_601;
    let reserved = TransmitControl::from(sa.into_bits() | 1 << 63);
    // (what is wrong, control word, security word, bits added to the extent, status); the address is that of the frame.
    let faults = [
        ("clear, not allowed", clear, 0, 0, Status::ClearNotAllowed),
        ("clear with an SA reference", clear, good, 0, Status::BadDescriptor),
        ("clear with a word of PSP", clear.with_psp_crypt_offset(1), 0, 0, Status::BadDescriptor),
        ("no such security", sa.with_security(3), good, 0, Status::BadDescriptor),
        ("length 0", sa.with_length(0), good, 0, Status::BadDescriptor),
        ("reserved bit of the extent", sa, good, 1 << 63, Status::BadDescriptor),
        ("reserved bit of the control word", reserved, good, 0, Status::BadDescriptor),
        ("reserved bit of the SA reference", sa, good | 1 << 24, 0, Status::BadDescriptor),
        ("more inline bytes than the slot has room for", sa, good, 33 << 18, Status::BadDescriptor),
        ("a total that is not the sum", sa, good, 1, Status::LengthMismatch),
        ("a cookie without a key", sa.with_psp_cookie(true), good, 0, Status::BadDescriptor),
        ("a cookie without room", psp.with_psp_cookie(true), spi, 0, Status::BadDescriptor),
        ("a dummy in clear", clear.with_esp_dummy(true), 0, 0, Status::BadDescriptor),
        ("TCP segments of UDP", sa, good, 100 << 25, Status::BadSegmentation),
        ("too long", sa.with_length(oversize), good, 0, Status::TooLong),
        ("length cut into the packet", sa.with_length(100), good, 0, Status::NotIp),
        ("not IP from here on", sa.with_length(13), good, 0, Status::NotIp),
        ("slot 0, generation 0", sa, 0, 0, Status::StaleSa),
        ("wrong generation", sa, good + (1 << 32), 0, Status::StaleSa),
        ("slot out of the table", sa, good | 0xff_ffff, 0, Status::StaleSa),
        ("deleted", sa, reference(deleted), 0, Status::StaleSa),
        ("wrong direction", sa, reference(incoming), 0, Status::WrongDirection),
        ("PSP version 4", psp.with_psp_version(4), spi, 0, Status::BadPspKey),
        (
            "PSP crypt offset where nothing is encrypted",
            psp.with_psp_version(2).with_psp_crypt_offset(1),
            spi,
            0,
            Status::TransmitCryptOffset,
        ),
        (
            "pre-formatted, with an S bit beside",
            psp.with_psp_preformatted(true).with_psp_sample(true),
            spi,
            0,
            Status::BadDescriptor,
        ),
        ("pre-formatted that is not", psp.with_psp_preformatted(true), spi, 0, Status::BadPreformatted),
        ("ESP with the version of PSP", sa.with_psp_version(1), good, 0, Status::BadDescriptor),
        ("ESP with a crypt offset", sa.with_psp_crypt_offset(1), good, 0, Status::BadDescriptor),
        ("ESP with a source port policy", sa.with_psp_source_port_policy(1), good, 0, Status::BadDescriptor),
        ("ESP with the S bit", sa.with_psp_sample(true), good, 0, Status::BadDescriptor),
        ("ESP, pre-formatted", sa.with_psp_preformatted(true), good, 0, Status::BadDescriptor),
        ("a dummy of PSP", psp.with_esp_dummy(true), spi, 0, Status::BadDescriptor),
        ("PSP version 15", psp.with_psp_version(15), spi, 0, Status::BadPspKey),
        ("PSP SPI 0", psp, 0, 0, Status::BadPspKey),
        ("PSP SPI 0 of device key 1", psp, 1 << 31, 0, Status::BadPspKey),
        ("PSP, not IP", psp.with_length(30), spi, 0, Status::NotIp),
    ];
    for (name, control, security, extent, status) in faults {
        for queue in [&mut wide, &mut narrow] {
            // A key in the descriptor has no room in a stride of 32: refused whatever else it says.
            let expected =
                if queue.index == 6 && control.security() == 2 { Status::BadDescriptor } else { status };
            let address = queue.frame(&frame);
            let extent = u64::from(control.length()) + extent;
            let words = [address, control.into_bits(), security, extent, 1, 2, 0, 0];
            assert_eq!(queue.send(words), Some(expected), "{name}, queue {}", queue.index);
            assert!(queue.status().enabled(), "{name}: a packet's fault does not stop the queue");
        }
    }
    assert!(a.wire.frames().is_empty(), "nothing left at all");

    // PSP crypt offset past the end: with nothing to encrypt, nothing leaves.
    let short = udp(&[]);
    let address = wide.frame(&short);
    let past_the_end = control(short.len(), Security::PspKey)
        .with_psp_crypt_offset(63)
        .with_psp_source_port_policy(SourcePortPolicy::Fixed.number() as u8);
    let status = wide.send([address, past_the_end.into_bits(), spi, short.len() as u64, 1, 2, 0, 0]);
    assert_eq!(status, Some(Status::TransmitCryptOffset));

    // A key longer than that of its version.
    let address = wide.frame(&frame);
    let status = wide.send([address, psp.into_bits(), spi, frame.len() as u64, 1, 2, 3, 4]);
    assert_eq!(status, Some(Status::BadPspKey));
    assert!(a.wire.frames().is_empty());
}

#[test]
fn memory_that_the_device_may_not_read_sends_nothing() {
    let (world, mut a, _b) = apart();
    let out = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    let mut queue = RawQueue::new(&world, a.id, 5, 64, false);
    let frame = udp(&marked(200));
    let sa = control(frame.len(), Security::Sa).into_bits();
    let inside = queue.frame(&frame);
    let end = queue.iova + queue.memory.bytes() as u64;
    for address in [0, 8, end, end - 10, queue.iova - 10, u64::MAX, u64::MAX - 100, 1 << 63, inside | 1 << 60]
    {
        assert_eq!(
            queue.send([address, sa, reference(out), frame.len() as u64, 0, 0, 0, 0]),
            Some(Status::DmaFault),
            "{address:#x}"
        );
    }
    assert_eq!(queue.send([inside, sa, reference(out), frame.len() as u64, 0, 0, 0, 0]), Some(Status::Ok));
    assert_eq!(a.wire.frames().len(), 1);

    // The ring itself goes away under the device: the queue stops, and nothing leaves.
    queue.put([inside, sa, reference(out), frame.len() as u64, 0, 0, 0, 0]);
    queue.host.dma_unmap(queue.iova).expect("unmap");
    queue.ring();
    queue.settle();
    let status = queue.status();
    assert!(status.quarantined() && !status.enabled());
    assert_eq!(u32::from(status.cause()), Status::RingDmaFault.number());
    assert_eq!(a.wire.frames().len(), 1);
    // Mapped again it does not start by itself.
    queue.host.dma_map(&queue.memory, queue.iova, DmaAccess::DeviceReadsAndWrites).expect("map");
    queue.ring();
    queue.settle();
    assert_eq!(a.wire.frames().len(), 1);
    assert!(!a.wire.shows_marker());
}

#[test]
fn bytes_behind_the_ip_packet_do_not_leave_beside_the_ciphertext() {
    let (_world, mut a, _b) = apart();
    let tunnel = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    let transport = a.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x43)).expect("install");
    let key = SecretKey::new(&[7; 16]).expect("16 bytes");
    let key = a.queue.add_psp_key(0, 0x90, &key).expect("key");
    let protections =
        [Protection::Sa(tunnel), Protection::Sa(transport), Protection::PspKey(PspTransmit::new(key))];
    for payload in [0, 1, 18, 200] {
        for packet in [udp(&marked(payload)), tcp6(&marked(payload))] {
            for behind in [16, 46, 300] {
                let mut frame = packet.clone();
                frame.extend(marked(behind));
                for protection in protections {
                    let end = a.send(&frame, protection);
                    assert_eq!(end.status, Status::Ok);
                    assert_eq!(a.wire.take().iter().filter(|frame| shows(frame, b"PLAIN")).count(), 0);
                }
            }
        }
    }
}

#[test]
fn a_clear_packet_leaves_only_where_its_queue_allows_it() {
    let (_world, mut a, _b) = apart();
    let frame = udp(&marked(64));
    assert_eq!(a.send(&frame, Protection::Clear).status, Status::ClearNotAllowed);
    assert!(a.wire.frames().is_empty());
    let options = QueuePairOptions { clear_allowed: true, ..guarded() };
    let mut open = a.nic.create_queue_pair(options).expect("queue");
    assert_eq!(crate::rig::send_on(&mut open, &frame, Protection::Clear).status, Status::Ok);
    assert_eq!(a.wire.take(), std::slice::from_ref(&frame));
    // A packet that was to be protected does not leave in clear from there either.
    let gone = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    a.nic.delete_sa(gone).expect("delete");
    assert_eq!(crate::rig::send_on(&mut open, &frame, Protection::Sa(gone)).status, Status::StaleSa);
    assert_eq!(a.send(&frame, Protection::Clear).status, Status::ClearNotAllowed, "of its own queue, still");
    assert!(a.wire.frames().is_empty());
}

/// What befalls a device with packets under way.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Delete,
    DeleteAndReplace,
    Firmware,
    QueueOff,
    Reset,
    DeviceOff,
}

#[test]
fn whatever_befalls_a_batch_under_way_only_ciphertext_leaves() {
    let blows =
        [Blow::Delete, Blow::DeleteAndReplace, Blow::Firmware, Blow::QueueOff, Blow::Reset, Blow::DeviceOff];
    for seed in 0..cases(4) {
        for blow in blows {
            let mut chance = Chance::new(seed);
            let (world, mut a, _b) = apart();
            let sa = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
            let frame = udp(&marked(1000));
            for cookie in 0..64 {
                put_on(&mut a.queue, &frame, Protection::Sa(sa), cookie);
            }
            for _ in 0..chance.below(40) {
                a.nic.relax();
            }
            match blow {
                Blow::Delete => a.nic.delete_sa(sa).expect("delete"),
                Blow::DeleteAndReplace => {
                    a.nic.delete_sa(sa).expect("delete");
                    a.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x43)).expect("install");
                }
                Blow::Firmware => world.restart_firmware(a.id),
                Blow::QueueOff => {
                    let host = world.host(a.id);
                    let control = cryptonic_regs::bar0::QUEUE_CONTROL;
                    host.write32(cryptonic_pci::Bar::Bar0, control.offset, 0).expect("write");
                }
                Blow::Reset => world.host(a.id).reset().expect("reset"),
                Blow::DeviceOff => {
                    let control = cryptonic_regs::bar0::CONTROL;
                    world.host(a.id).write32(cryptonic_pci::Bar::Bar0, control.offset, 0).expect("write");
                }
            }
            if matches!(blow, Blow::Delete | Blow::DeleteAndReplace | Blow::Firmware) {
                let done = drain(&mut a.queue);
                let packets: u32 = done.iter().map(|end| end.packets).sum();
                assert_eq!(packets, 64, "{blow:?}: each packet's end is told");
                for end in done {
                    assert!(matches!(end.status, Status::Ok | Status::StaleSa), "{blow:?}: {end:?}");
                }
            } else {
                world.drain();
            }
            for frame in a.wire.frames() {
                assert!(esp_offset(&frame).is_some(), "{blow:?}, seed {seed}");
                assert_eq!(&frame[34..38], &0x1042_u32.to_be_bytes(), "under the SA it was meant for");
            }
            assert!(!a.wire.shows_marker(), "{blow:?}, seed {seed}");
        }
    }
}

#[test]
fn a_protected_packet_that_nothing_opens_does_not_come_in_as_clear() {
    // Given ESP and PSP packets as they are on the wire,
    let (world, mut a, mut b) = apart();
    let tunnel = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    let transport = a.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x43)).expect("install");
    a.nic.psp_test_keys_load(device_keys()).expect("load");
    let spi = a.nic.psp_allocate(0, 1).expect("allocate").remove(0);
    let key = a.queue.add_psp_key(0, spi.spi, &spi.key).expect("key");
    for frame in [udp(&marked(100)), tcp6(&marked(100))] {
        for protection in
            [Protection::Sa(tunnel), Protection::Sa(transport), Protection::PspKey(PspTransmit::new(key))]
        {
            assert_eq!(a.send(&frame, protection).status, Status::Ok);
        }
    }
    let frames = a.wire.take();
    assert_eq!(frames.len(), 6);
    assert!(frames.iter().all(|frame| esp_offset(frame).is_some() || psp_offset(frame).is_some()));
    // when they arrive where no SA or key takes them (one is for the other direction, one was deleted),
    let gone = b.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x42)).expect("install");
    b.nic.delete_sa(gone).expect("delete");
    b.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x43)).expect("install");
    world.record_drops(b.id);
    let mut expected = 0;
    for frame in &frames {
        for variant in tagged_and_fragmented(frame) {
            world.inject(b.id, &variant);
            expected += 1;
        }
    }
    // then none is given to the host, not as what it is and not as a clear packet.
    assert_eq!(b.receive(), []);
    let drops = world.take_drops(b.id);
    assert_eq!(drops.len(), expected);
    let known = [Status::NoSa, Status::PspVersionDisabled, Status::Fragment];
    assert!(drops.iter().all(|status| known.contains(status)), "{drops:?}");

    // Nor with PSP receive on and no device key.
    b.nic.psp_receive(0b11, 1000).expect("receive");
    b.nic.device_status().expect("the write before is there");
    for frame in frames.iter().filter(|frame| psp_offset(frame).is_some()) {
        world.inject(b.id, frame);
    }
    assert_eq!(b.receive(), []);
    assert_eq!(world.take_drops(b.id), [Status::PspNoDeviceKey; 2]);
}

/// A frame, the same with a VLAN tag, and as a first fragment (IPv4). Frames with more tags are not IP to
/// the parser: they pass as they are, ciphertext and all.
fn tagged_and_fragmented(frame: &[u8]) -> Vec<Vec<u8>> {
    let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    let mut all = vec![frame.to_vec(), tagged];
    if frame[12..14] == [8, 0] {
        let mut fragment = frame.to_vec();
        fragment[20] = 0x20;
        let header =
            etherparse::Ipv4HeaderSlice::from_slice(&fragment[14..34]).expect("a header").to_header();
        fragment[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        all.push(fragment);
    }
    all
}

#[test]
fn psp_receive_is_off_after_a_reset_until_fresh_keys_are_made() {
    let (world, mut a, mut b) = pair();
    b.nic.psp_rotate().expect("rotate");
    b.nic.psp_receive(0b11, 1000).expect("receive");
    let spi = b.nic.psp_allocate(0, 1).expect("allocate").remove(0);
    let key = a.queue.add_psp_key(0, spi.spi, &spi.key).expect("key");
    let frame = udp(&marked(64));
    a.send(&frame, Protection::PspKey(PspTransmit::new(key)));
    let heard = b.receive();
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].0.protocol, &heard[0].1), (ReceivedProtocol::Psp, &frame));
    let mut b = b.reopen(&world);
    world.record_drops(b.id);
    for (step, expected) in [
        ("off", Status::PspVersionDisabled),
        ("on, no key", Status::PspNoDeviceKey),
        ("fresh key", Status::IcvMismatch),
    ] {
        match step {
            "on, no key" => b.nic.psp_receive(0b11, 1000).expect("receive"),
            "fresh key" => {
                // Both device keys are fresh, so that one of them has the SPI's most significant bit.
                b.nic.psp_rotate().expect("rotate");
                b.nic.psp_rotate().expect("rotate");
            }
            _ => {}
        }
        a.send(&frame, Protection::PspKey(PspTransmit::new(key)));
        assert_eq!(b.receive(), [], "{step}");
        assert_eq!(world.take_drops(b.id), [expected], "{step}");
    }
}
