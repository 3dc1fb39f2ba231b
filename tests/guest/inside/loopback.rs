//! Packets through the whole device and back: every byte that leaves is compared with the witness's, and what the witness
//! makes is opened.

use std::path::Path;
use std::time::Instant;

use cryptonic::device::DeviceName;
use cryptonic_driver::backend::vfio::Vfio;
use cryptonic_driver::{
    Cipher, Direction, InlinePolicy, Mode, OuterHeader, Protection, PspCaptureOptions, PspDeviceKeys,
    PspTransmit, PushPolicy, QueuePairOptions, ReceivedProtocol, SaConfiguration, SecretKey, SourcePort,
    Status, Time, Wake,
};
use cryptonic_pci::{Bar, DmaAccess, Host};
use cryptonic_regs::bar0::MAGIC;

use super::rig::{PATIENCE, Rig, open};
use super::stage;
use crate::packets::{Shape, UDP, packet};
use crate::witness::{self, Packet, psp_key};

pub const STAGES: &[&str] = &[
    "the device opens and closes",
    "it is attached by iommufd where the kernel has that",
    "frames come back as they were",
    "ESP leaves as the witness makes it",
    "ESP of the witness is opened",
    "PSP leaves as the witness makes it",
    "PSP of the witness is opened",
    "pushed descriptors and inline frames",
    "a sleeper is woken by its interrupt",
    "a reset forgets keys and queues",
    "bursts through ESP",
    "the cost of a register",
    "memory lies in huge pages",
];

/// Bytes of upper protocol of the packets that are compared.
const SIZES: [usize; 6] = [8, 25, 64, 500, 1_400, 8_900];
const KEY: [u8; 16] = *b"one guest's key!";
const SALT: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];
const SPI: u32 = 0x8000_1001;
const DEVICE_KEYS: [[u8; 32]; 2] = [[0x31; 32], [0x9c; 32]];
const PSP_SPI: u32 = 0x9a34_5678;
/// Interrupts that are waited for.
const WAITS: usize = 50;
/// Frames of a burst, and bursts.
const BURST: usize = 32;
const BURSTS: usize = 40;

pub fn run(device: &DeviceName) {
    let bodies: [fn(&DeviceName); STAGES.len()] = [
        opens_and_closes,
        attached,
        clear,
        esp_out,
        esp_in,
        psp_out,
        psp_in,
        pushed,
        interrupts,
        reset,
        bursts,
        register_cost,
        huge_pages,
    ];
    for (name, body) in STAGES.iter().zip(bodies) {
        stage(name, || body(device));
    }
}

fn plain(device: &DeviceName) -> Rig {
    Rig::new(device, QueuePairOptions::new())
}

fn opens_and_closes(device: &DeviceName) {
    for shadow_doorbells in [false, true] {
        let (mut nic, host) = open(device, shadow_doorbells);
        assert!(shadow_doorbells || !nic.shadow_doorbells());
        println!("{}", nic.information());
        assert!(nic.capabilities_from_firmware().expect("firmware answers").spis_per_command > 0);
        nic.close().expect("it closes");
        drop(host);
    }
}

fn attached(device: &DeviceName) {
    let DeviceName::Vfio(address) = device else { return };
    let has_iommufd = Path::new("/dev/iommu").exists();
    println!("FIGURE attached by {}", if has_iommufd { "iommufd" } else { "a container and its group" });
    assert_eq!(Vfio::open(*address).expect("it opens").uses_iommufd(), has_iommufd);
}

/// A frame as the MAC sends it: at least 60 bytes (IEEE 802.3 3.2.8).
fn padded(frame: &[u8]) -> Vec<u8> {
    let mut padded = frame.to_vec();
    padded.resize(frame.len().max(60), 0);
    padded
}

fn clear(device: &DeviceName) {
    let mut rig = plain(device);
    for bytes in SIZES {
        for ipv6 in [false, true] {
            let frame = packet(ipv6, Shape::OneTag, UDP, bytes).frame();
            let (received, back) = rig.there_and_back(&frame, Protection::Clear);
            assert_eq!((received.status(), received.protocol()), (Status::Ok, ReceivedProtocol::Clear));
            assert_eq!(hex::encode(back), hex::encode(padded(&frame)), "{bytes} bytes");
            rig.give_back(received);
        }
    }
    rig.close();
}

/// An ESP SA as the driver and as the witness take it, in both modes.
fn esp(mode: Mode, direction: Direction) -> (SaConfiguration, witness::Esp) {
    let outer = [[192, 0, 2, 1], [192, 0, 2, 2]];
    let configuration = SaConfiguration {
        esn: true,
        replay_window: if direction == Direction::In { 64 } else { 0 },
        outer: (mode == Mode::Tunnel).then(|| OuterHeader::new(outer[0].into(), outer[1].into())),
        ..SaConfiguration::new(
            direction,
            mode,
            Cipher::AesGcm128,
            SecretKey::new(&KEY).expect("a key"),
            SALT,
            SPI,
        )
    };
    let witness = witness::Esp {
        key: KEY.to_vec(),
        salt: SALT,
        spi: SPI,
        gmac: false,
        icv_bytes: 16,
        implicit_iv: false,
        extended_sequence: true,
        udp: None,
        tfc_bytes: 0,
        protect_destination_options: false,
        mode: if mode == Mode::Tunnel {
            witness::Mode::Tunnel(witness::Outer {
                source: outer[0].to_vec(),
                destination: outer[1].to_vec(),
                ttl: Some(64),
                dscp: None,
                dont_fragment: None,
                ecn_compatibility: false,
                flow_label: Some(0),
            })
        } else {
            witness::Mode::Transport
        },
    };
    (configuration, witness)
}

fn inner(turn: usize, bytes: usize) -> Packet {
    packet(turn % 2 == 1, Shape::Plain, UDP, bytes)
}

fn esp_out(device: &DeviceName) {
    for mode in [Mode::Tunnel, Mode::Transport] {
        let mut rig = plain(device);
        rig.unmatched_to_host();
        let (configuration, witness) = esp(mode, Direction::Out);
        let sa = rig.nic.install_sa(configuration).expect("installed");
        for (turn, bytes) in SIZES.into_iter().enumerate() {
            let inner = inner(turn, bytes);
            let (received, on_the_wire) = rig.there_and_back(&inner.frame(), Protection::Sa(sa));
            let expected = witness.protect(&inner, turn as u64 + 1);
            assert_eq!(hex::encode(on_the_wire), hex::encode(expected), "{mode:?}, {bytes} bytes");
            rig.give_back(received);
        }
        rig.close();
    }
}

fn esp_in(device: &DeviceName) {
    for mode in [Mode::Tunnel, Mode::Transport] {
        let mut rig = plain(device);
        let (configuration, witness) = esp(mode, Direction::In);
        let sa = rig.nic.install_sa(configuration).expect("installed");
        for (turn, bytes) in SIZES.into_iter().enumerate() {
            let (inner, sequence) = (inner(turn, bytes), turn as u64 + 1);
            let sealed = witness.protect(&inner, sequence);
            let (received, opened) = rig.there_and_back(&sealed, Protection::Clear);
            assert_eq!((received.status(), received.sa()), (Status::Ok, Some(sa)));
            assert_eq!((received.sequence(), received.spi()), (sequence, SPI));
            assert_eq!(hex::encode(opened), hex::encode(inner.frame()), "{mode:?}, {bytes} bytes");
            rig.give_back(received);
        }
        // What was changed, and what was there before, do not come up.
        let mut changed = witness.protect(&inner(0, 64), 100);
        if let Some(last) = changed.last_mut() {
            *last ^= 1;
        }
        let replayed = witness.protect(&inner(0, 64), 3);
        let good = witness.protect(&inner(0, 64), 101);
        assert_eq!(rig.send(&[changed, replayed, good], Protection::Clear), [Status::Ok; 3]);
        let (received, _) = rig.receive(1).pop().expect("one");
        assert_eq!((received.status(), received.sequence()), (Status::Ok, 101));
        let statistics = rig.nic.statistics().expect("statistics");
        assert_eq!(
            [Status::IcvMismatch, Status::ReplayDuplicate].map(|status| statistics.packets(status)),
            [1, 1],
            "each is counted for what it is"
        );
        rig.give_back(received);
        rig.close();
    }
}

fn psp(version: u8, crypt_offset: usize) -> witness::Psp {
    witness::Psp {
        key: psp_key(&DEVICE_KEYS, PSP_SPI, version),
        spi: PSP_SPI,
        version,
        crypt_offset,
        sample: false,
        drop: false,
        cookie: None,
        extension: vec![],
        source_port: 0xc123,
        destination_port: 1000,
        mode: witness::Mode::Transport,
    }
}

fn psp_out(device: &DeviceName) {
    let mut last_iv = 0;
    for version in 0..2 {
        // There is no device key to open them with, so they are captured as they were on the wire.
        let options = QueuePairOptions { stride: 64, copies: true, ..QueuePairOptions::new() };
        let mut rig = Rig::new(device, options);
        rig.nic.psp_receive(1 << version, 1000).expect("PSP is received");
        let queue = rig.queue.index() as u8;
        let capture = PspCaptureOptions { queue, receive: true, transmit: false, interval_us: 0 };
        rig.nic.psp_set_capture(Some(capture)).expect("faults are captured");
        let witness = psp(version, 2);
        let key = SecretKey::new(&witness.key).expect("a key");
        let key = rig.queue.add_psp_key(version, PSP_SPI, &key).expect("room");
        let psp = PspTransmit {
            crypt_offset: 2,
            source_port: SourcePort::Fixed(witness.source_port),
            ..PspTransmit::new(key)
        };
        for (turn, bytes) in SIZES.into_iter().enumerate() {
            let inner = inner(turn, bytes);
            let (received, on_the_wire) = rig.there_and_back(&inner.frame(), Protection::PspKey(psp));
            assert!(received.is_copy());
            // The IV is device time, which no reset turns back: the frame tells it, in the eight bytes behind the SPI.
            let header = 14 + if inner.is_ipv4() { 20 } else { 40 } + 8;
            let iv =
                on_the_wire[header + 8..header + 16].try_into().map(u64::from_be_bytes).expect("8 bytes");
            assert!(iv > last_iv, "{iv} after {last_iv}");
            last_iv = iv;
            let expected = witness.protect(&inner, iv);
            assert_eq!(hex::encode(on_the_wire), hex::encode(expected), "version {version}, {bytes} bytes");
            rig.give_back(received);
        }
        rig.close();
    }
}

fn psp_in(device: &DeviceName) {
    for version in 0..2 {
        let mut rig = plain(device);
        let keys = PspDeviceKeys::new(&DEVICE_KEYS[0], &DEVICE_KEYS[1]);
        rig.nic.psp_test_keys_load(keys).expect("keys are loaded");
        rig.nic.psp_receive(1 << version, 1000).expect("PSP is received");
        for (turn, bytes) in SIZES.into_iter().enumerate() {
            let (inner, iv) = (inner(turn, bytes), 1_000 + turn as u64);
            let sealed = psp(version, turn).protect(&inner, iv);
            let (received, opened) = rig.there_and_back(&sealed, Protection::Clear);
            assert_eq!((received.status(), received.protocol()), (Status::Ok, ReceivedProtocol::Psp));
            assert_eq!((received.spi(), received.iv()), (PSP_SPI, iv));
            assert_eq!(hex::encode(opened), hex::encode(inner.frame()), "version {version}, {bytes} bytes");
            rig.give_back(received);
        }
        rig.close();
    }
}

fn pushed(device: &DeviceName) {
    for (stride, inline) in [
        (64, InlinePolicy::Heads { bytes: 32 }),
        (128, InlinePolicy::WholeFrames),
        (128, InlinePolicy::Never),
    ] {
        let options =
            QueuePairOptions { stride, inline, push: PushPolicy::WhenIdle, ..QueuePairOptions::new() };
        let mut rig = Rig::with(device, options, false);
        for bytes in [8, 20, 40, 64, 500] {
            let frame = inner(0, bytes).frame();
            let (received, back) = rig.there_and_back(&frame, Protection::Clear);
            assert_eq!(
                hex::encode(back),
                hex::encode(padded(&frame)),
                "stride {stride}, {inline:?}, {bytes} bytes"
            );
            rig.give_back(received);
        }
        assert!(rig.queue.statistics().pushes > 0, "stride {stride}: nothing was pushed");
        rig.close();
    }
}

fn interrupts(device: &DeviceName) {
    let mut rig = plain(device);
    let frame = inner(0, 64).frame();
    let nap = Time::from_milliseconds(20);
    // What the rings announced while they were set up is taken first.
    while rig.queue.wait(rig.queue.time() + nap).expect("it waits") == Wake::Interrupt {}
    let started = rig.queue.time();
    assert_eq!(rig.queue.wait(started + nap), Ok(Wake::Deadline));
    assert!(rig.queue.time() >= started + nap);

    let begun = Instant::now();
    for _ in 0..WAITS {
        let mut buffer = rig.queue.take_buffer().expect("a buffer");
        rig.queue.fill(&mut buffer, &frame).expect("it fits");
        let mut batch = vec![cryptonic_driver::TransmitPacket::new(buffer, Protection::Clear, 0)];
        rig.queue.transmit(&mut batch).expect("transmitted");
        assert_eq!(rig.queue.wait(rig.queue.time() + PATIENCE), Ok(Wake::Interrupt));
        let (received, back) = rig.receive(1).pop().expect("one");
        assert_eq!(back, frame);
        rig.give_back(received);
        rig.queue.drain(rig.queue.time() + PATIENCE, &mut vec![]).expect("it ended");
    }
    let microseconds = begun.elapsed().as_micros() / WAITS as u128;
    println!("FIGURE a frame, its interrupt and back: {microseconds} us");
    rig.close();
}

fn reset(device: &DeviceName) {
    let mut rig = plain(device);
    rig.nic.psp_rotate().expect("device keys are made");
    let valid = rig.nic.psp_key_status().expect("a register");
    assert!(valid.key_0_valid() || valid.key_1_valid());
    rig.nic.install_sa(esp(Mode::Tunnel, Direction::In).0).expect("installed");
    rig.close();
    // Opening resets.
    let rig = plain(device);
    let status = rig.nic.psp_key_status().expect("a register");
    assert!(!status.key_0_valid() && !status.key_1_valid(), "a reset leaves no device key");
    rig.close();

    let mut rig = plain(device);
    // The SA of before is gone: what it would open is counted as nobody's.
    let sealed = esp(Mode::Tunnel, Direction::In).1.protect(&inner(0, 64), 1);
    assert_eq!(rig.send(&[sealed], Protection::Clear), [Status::Ok]);
    let deadline = rig.queue.time() + PATIENCE;
    while rig.nic.statistics().expect("statistics").packets(Status::NoSa) == 0 {
        assert!(rig.queue.time() < deadline);
    }
    rig.close();
}

fn bursts(device: &DeviceName) {
    for shadow_doorbells in [false, true] {
        let rig = Rig::with(device, QueuePairOptions::new(), shadow_doorbells);
        if rig.nic.shadow_doorbells() != shadow_doorbells {
            println!("the device offers no doorbells in host memory");
            return;
        }
        let per_second = bursts_a_second(rig);
        let doorbells = if shadow_doorbells { "in host memory" } else { "in registers" };
        println!(
            "FIGURE packets through ESP there and back, doorbells {doorbells}: {per_second:.0} a second"
        );
    }
}

fn bursts_a_second(mut rig: Rig) -> f64 {
    let out = rig.nic.install_sa(esp(Mode::Tunnel, Direction::Out).0).expect("installed");
    rig.nic.install_sa(esp(Mode::Tunnel, Direction::In).0).expect("installed");
    let frames: Vec<Vec<u8>> = (0..BURST).map(|index| inner(index, 40 + index * 30).frame()).collect();
    let begun = Instant::now();
    for burst in 0..BURSTS {
        assert_eq!(rig.send(&frames, Protection::Sa(out)), [Status::Ok; BURST]);
        for (index, (received, back)) in rig.receive(BURST).into_iter().enumerate() {
            assert_eq!(received.sequence(), (burst * BURST + index) as u64 + 1);
            assert_eq!(back, frames[index], "frame {index} of burst {burst}");
            rig.give_back(received);
        }
    }
    let per_second = (BURST * BURSTS) as f64 / begun.elapsed().as_secs_f64();
    rig.close();
    per_second
}

fn register_cost(device: &DeviceName) {
    const READS: u32 = 200;
    let (nic, host) = open(device, false);
    let begun = Instant::now();
    for _ in 0..READS {
        host.read32(Bar::Bar0, MAGIC.offset).expect("a register");
    }
    println!("FIGURE a register read: {:.1} us", begun.elapsed().as_secs_f64() * 1e6 / f64::from(READS));
    nic.close().expect("it closes");
}

/// The guest has set some aside.
fn huge_pages(device: &DeviceName) {
    let (nic, host) = open(device, false);
    let memory = host.memory(2 << 20).expect("memory");
    assert!(memory.has_huge_pages());
    let iova = host.address_of(&memory, 1 << 38).expect("it has an address");
    host.dma_map(&memory, iova, DmaAccess::DeviceReads).expect("mapped");
    host.dma_unmap(iova).expect("it was mapped");
    nic.close().expect("it closes");
}
