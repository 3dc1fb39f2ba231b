//! 7. A malicious host or packet never makes the model panic or hang.
//!
//! Each case runs in a thread of its own with a deadline: what panics fails there, what does not drain fails
//! here. After each the device is reset and has to serve a driver again.

use std::sync::mpsc;
use std::time::Duration;

use cryptonic_driver::{Direction, Host, KeyLedger, Mode, Protection, Status};
use cryptonic_hwmodel::{NicId, Parameters, World};
use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use cryptonic_pci::{Bar, DmaAccess, SharedMemory, Time};
use cryptonic_regs::bar0::{self, AdminControl, QueueControl};
use cryptonic_regs::descriptor::{
    RECEIVE_STRIDE_BYTES, ReceiveControl, Security, TransmitControl, TransmitExtent, TransmitSa,
};
use cryptonic_regs::doorbell;

use crate::raw::{RawQueue, control};
use crate::rig::{
    Chance, MARKER, Wire, apart, cases, esp, esp_offset, guarded, marked, open, send_on, shows, tcp6, udp,
};

/// Runs a case; fails when it panics, and when it is not over in time.
pub fn within(limit: Duration, name: String, case: impl FnOnce() + Send + 'static) {
    let (done, over) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        case();
        let _ = done.send(());
    });
    match over.recv_timeout(limit) {
        Ok(()) => thread.join().expect("it is over"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            assert!(thread.join().is_ok(), "{name}: panicked, see above");
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: does not come to an end"),
    }
}

pub const LIMIT: Duration = Duration::from_secs(60);

/// Resets the device and sends a packet through driver, rings and line back to itself.
pub fn assert_serves_again(world: &World, id: NicId) {
    let host = world.host(id);
    host.reset().expect("reset");
    drop(host);
    let mut nic = open(world, id, &KeyLedger::new());
    nic.set_mac_loopback(true).expect("loopback");
    let mut queue = nic.create_queue_pair(guarded()).expect("queue");
    let out = nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x77)).expect("install");
    nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x77)).expect("install");
    let frame = udp(&marked(100));
    assert_eq!(send_on(&mut queue, &frame, Protection::Sa(out)).status, Status::Ok);
    let mut received = vec![];
    let deadline = queue.time() + Time::from_milliseconds(1);
    while received.is_empty() && queue.time() < deadline {
        queue.receive(&mut received, 1).expect("receive");
        queue.relax();
    }
    let one = received.pop().expect("it comes back");
    assert_eq!((one.status(), one.length()), (Status::Ok, frame.len()));
    queue.return_buffer(one).expect("goes back");
}

/// Memory of a host without manners: 1 MiB at this address, the second half read-only, in parts.
pub const IOVA: u64 = 0x1000_0000;
pub const MEMORY_BYTES: usize = 1 << 20;

pub struct Mapped {
    writable: SharedMemory,
    read_only: SharedMemory,
}

impl Mapped {
    pub fn new(host: &dyn Host) -> Mapped {
        let half = || SharedMemory::new(MEMORY_BYTES / 2).expect("memory");
        let mapped = Mapped { writable: half(), read_only: half() };
        host.dma_map(&mapped.writable, IOVA, DmaAccess::DeviceReadsAndWrites).expect("map");
        let behind = IOVA + MEMORY_BYTES as u64 / 2;
        host.dma_map(&mapped.read_only, behind, DmaAccess::DeviceReads).expect("map");
        mapped
    }

    pub fn fill(&self, chance: &mut Chance) {
        for memory in [&self.writable, &self.read_only] {
            for offset in (0..memory.bytes()).step_by(8) {
                memory.write_word(offset, descriptor_like(chance)).expect("in range");
            }
        }
    }
}

/// An address that is often good, and else bad in a way of its own.
pub fn address(chance: &mut Chance) -> u64 {
    match chance.below(12) {
        0 => chance.word(),
        1 => u64::MAX - chance.below(256),
        2 => (1 << 60) - chance.below(256),
        3 => IOVA + MEMORY_BYTES as u64 - chance.below(300),
        4 => IOVA - chance.below(300),
        5 => IOVA + MEMORY_BYTES as u64 / 2 - chance.below(300),
        6 => 0,
        _ => IOVA + chance.below(MEMORY_BYTES as u64) / 128 * 128,
    }
}

/// A word that may pass for an address or for a control word.
pub fn descriptor_like(chance: &mut Chance) -> u64 {
    match chance.below(6) {
        0 => chance.word(),
        1 => 0,
        2 => address(chance),
        3 => control(chance.below(200) as usize, Security::Clear).into_bits(),
        4 => control(chance.below(1 << 16) as usize, chance.pick(Security::ALL)).into_bits(),
        _ => TransmitControl::from(chance.word()).with_end_of_packet(true).into_bits(),
    }
}

pub fn bus_master(host: &dyn Host) {
    host.config_write(COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER).expect("write");
}

/// A register that exists, or one nearby, or one anywhere in its BAR.
fn register(chance: &mut Chance) -> (Bar, u32) {
    match chance.below(10) {
        0..5 => {
            let block = chance.pick(bar0::BLOCKS);
            let row = chance.pick(block.registers);
            let instance = if block.kind == bar0::QUEUE_PAIR.kind { chance.below(17) as u32 } else { 0 };
            (Bar::Bar0, row.offset + instance * block.stride + chance.pick(&[0, 0, 0, 4]))
        }
        5 => (Bar::Bar0, chance.below(u64::from(bar0::BAR0_BYTES)) as u32 & !3),
        6..9 => (
            Bar::Bar2,
            chance.below(17) as u32 * doorbell::DOORBELL_PAGE_BYTES
                + chance.pick(&[0, 4, 8, 12, 0x100, 0x118, 0x13c, 0x17c, 0x180, 0x1fc]),
        ),
        _ => (Bar::Bar4, chance.below(0x1000) as u32 & !3),
    }
}

pub fn value(chance: &mut Chance) -> u32 {
    match chance.below(8) {
        0 => chance.word() as u32,
        1 => chance.below(3) as u32,
        2 => 1 << chance.below(32),
        3 => u32::MAX - chance.below(3) as u32,
        4 => chance.below(300) as u32,
        5 => QueueControl::new()
            .with_enable(true)
            .with_transmit_clear_allowed(true)
            .with_transmit_stride_log2(5 + chance.below(3) as u8)
            .with_receive_scatter(chance.one_in(2))
            .with_transmit_slots_log2(1 + chance.below(14) as u8)
            .with_receive_slots_log2(1 + chance.below(14) as u8)
            .with_vector(chance.word() as u8)
            .into_bits(),
        6 => AdminControl::new().with_enable(true).with_slots_log2(chance.below(10) as u8).into_bits(),
        _ => address(chance) as u32,
    }
}

#[test]
fn random_register_accesses() {
    for seed in 0..cases(30) {
        within(LIMIT, format!("registers, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let world = World::new(seed);
            let id = world.add_nic(&Parameters::default()).expect("parameters");
            let host = world.host(id);
            let memory = Mapped::new(&*host);
            memory.fill(&mut chance);
            bus_master(&*host);
            for _ in 0..3000 {
                let (bar, offset) = register(&mut chance);
                match chance.below(60) {
                    0..6 => drop(host.read32(bar, offset)),
                    // Outside its BAR an access is refused; that is all it may be.
                    6..10 => drop(host.write64(bar, offset & !7, address(&mut chance))),
                    10 => {
                        host.config_write(chance.below(256) as u16 & !3, chance.word() as u32).expect("write")
                    }
                    11 => bus_master(&*host),
                    12 => drop(host.config_read(chance.below(4096) as u16 & !3)),
                    13 if chance.one_in(4) => world.restart_firmware(id),
                    14 if chance.one_in(4) => host.reset().expect("reset"),
                    15..25 => host.relax(),
                    25 => {
                        let line: [u8; 64] = std::array::from_fn(|_| chance.word() as u8);
                        let window = chance.pick(&[0, 0x100, 0x140, 0x180, 0x1c0]);
                        let _ = host.push64(Bar::Bar2, offset & 0xf000 | window, &line);
                    }
                    26 => world.inject(id, &udp(&[0; 100])),
                    27 => drop(host.interrupts_enable(17)),
                    _ => drop(host.write32(bar, offset, value(&mut chance))),
                }
            }
            world.drain();
            assert_serves_again(&world, id);
        });
    }
}

#[test]
fn random_rings_and_descriptors() {
    for seed in 0..cases(30) {
        within(LIMIT, format!("rings, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let (world, mut a, _b) = apart();
            a.nic.set_mac_loopback(true).expect("loopback");
            let sas = [
                a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install"),
                a.nic.install_sa(esp(Direction::Out, Mode::Transport, 0x43)).expect("install"),
                a.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x42)).expect("install"),
            ];
            let mut queue = RawQueue::new(&world, a.id, 5, chance.pick(&[32, 64, 128]), true);
            let frames = [udp(&marked(200)), tcp6(&marked(30)), udp(&[]), vec![0xff; 60]];
            for _ in 0..40 {
                for _ in 0..chance.below(40) {
                    let frame = &frames[chance.below(4) as usize];
                    let at = queue.frame(frame);
                    let sa = chance.pick(&sas);
                    let good = TransmitSa::new().with_index(sa.index).with_generation(sa.generation);
                    let mut words = std::array::from_fn(|_| chance.word());
                    words[0] = if chance.one_in(4) { address(&mut chance) } else { at };
                    words[1] = control(frame.len(), chance.pick(Security::ALL)).into_bits();
                    words[2] = if chance.one_in(3) { chance.word() } else { good.into_bits() };
                    words[3] = 0;
                    if chance.one_in(3) {
                        words[1] ^= 1 << chance.below(64);
                    }
                    if chance.one_in(4) {
                        words[chance.below(8) as usize] = descriptor_like(&mut chance);
                    }
                    queue.put(words);
                    // Receive descriptors, good and bad.
                    let slot = chance.below(u64::from(crate::raw::SLOTS)) as usize;
                    let ring = 0xc000 + slot * RECEIVE_STRIDE_BYTES as usize;
                    let buffer = if chance.one_in(4) { address(&mut chance) } else { queue.iova + 0x2_0000 };
                    let length = ReceiveControl::new().with_length(chance.word() as u16).into_bits();
                    queue.memory.write_word(ring, buffer).expect("in range");
                    queue.memory.write_word(ring + 8, length).expect("in range");
                }
                queue.ring();
                let page = 5 * doorbell::DOORBELL_PAGE_BYTES;
                let posted = chance.below(300) as u32;
                queue
                    .host
                    .write32(Bar::Bar2, page + doorbell::RECEIVE_DOORBELL.offset, posted)
                    .expect("write");
                match chance.below(12) {
                    0 => queue.control(QueueControl::new()),
                    1 => {
                        queue.producer = chance.word() as u32;
                        queue.ring();
                    }
                    2 => {
                        queue.host.dma_unmap(queue.iova).expect("unmap");
                        queue.settle();
                        let access = DmaAccess::DeviceReads;
                        queue.host.dma_map(&queue.memory, queue.iova, access).expect("map");
                    }
                    3 => {
                        let _ = queue.host.dma_unmap(queue.iova);
                        let access = DmaAccess::DeviceReadsAndWrites;
                        queue.host.dma_map(&queue.memory, queue.iova, access).expect("map");
                    }
                    _ => {}
                }
                queue.settle();
                if !queue.status().enabled() {
                    queue.control(QueueControl::new());
                    queue.turn_on(true);
                }
            }
            world.drain();
            drop((queue, a.queue, a.nic));
            assert_serves_again(&world, a.id);
        });
    }
}

/// Descriptors of one frame in tunnel mode, as a driver would write them: inline bytes, pieces, perhaps to be cut.
fn chain(chance: &mut Chance, queue: &RawQueue, frame: &[u8], security: u64, room: usize) -> Vec<[u64; 16]> {
    let at = queue.frame(frame);
    let inline = if chance.one_in(2) { chance.below(room as u64 + 1) as usize } else { 0 }.min(frame.len());
    let mut descriptors = vec![];
    let mut done = inline;
    while done < frame.len() || descriptors.is_empty() {
        let piece = if chance.one_in(2) {
            frame.len() - done
        } else {
            (frame.len() - done).min(1 + chance.below(40) as usize)
        };
        let last = done + piece == frame.len();
        let mut words = [0; 16];
        words[0] = at + done as u64;
        words[1] = control(piece, Security::Clear).with_end_of_packet(last).into_bits();
        if descriptors.is_empty() {
            words[1] = control(piece, Security::Sa).with_end_of_packet(last).into_bits();
            words[2] = security;
            words[3] = TransmitExtent::new()
                .with_total_length(frame.len() as u32)
                .with_inline_bytes(inline as u8)
                .with_maximum_segment(if chance.one_in(4) { 1 + chance.below(500) as u16 } else { 0 })
                .into_bits();
            for (word, bytes) in words[4..].iter_mut().zip(frame[..inline].chunks(8)) {
                let mut whole = [0; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(whole);
            }
        }
        done += piece;
        descriptors.push(words);
    }
    descriptors
}

/// Chains, inline bytes and pushes, whole, torn and damaged, on a queue that may send nothing in clear: whatever
/// happens to a descriptor, what leaves is encrypted; nothing panics, and nothing hangs.
#[test]
fn random_chains_and_pushes_send_nothing_in_clear() {
    for seed in 0..cases(40) {
        within(LIMIT, format!("chains, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let mut parameters = Parameters::default();
            parameters.descriptors.transmit_chain = chance.pick(&[1, 2, 5, 32]);
            parameters.descriptors.transmit_prefetch = chance.pick(&[1, 3, 128]);
            parameters.mac.segment_buffer_bytes = chance.pick(&[16_384, 1 << 17]);
            let world = World::new(seed);
            let mut a = crate::rig::End::new(&world, &parameters);
            let sa = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
            let good = TransmitSa::new().with_index(sa.index).with_generation(sa.generation).into_bits();
            let stride = chance.pick(&[32, 64, 128]);
            let mut queue = RawQueue::new(&world, a.id, 5, stride, false);
            let frames = [udp(&marked(64)), tcp6(&marked(1_200)), tcp6(&marked(9)), udp(&marked(16))];
            let damaged = seed % 4 != 0;
            for _ in 0..30 {
                for _ in 0..chance.below(6) {
                    let frame = &frames[chance.below(4) as usize];
                    for mut words in chain(&mut chance, &queue, frame, good, stride - 32) {
                        if damaged && chance.one_in(10) {
                            words[chance.below(4) as usize] ^= 1 << chance.below(64);
                        }
                        if damaged && chance.one_in(40) {
                            words[chance.below(4) as usize] = descriptor_like(&mut chance);
                        }
                        queue.put_slot(&words);
                        if chance.one_in(3) {
                            if damaged && chance.one_in(5) {
                                words[chance.below(16) as usize] = descriptor_like(&mut chance);
                            }
                            let lines = if damaged { chance.below(3) as usize } else { stride.div_ceil(64) };
                            let producer = if damaged && chance.one_in(20) {
                                chance.word() as u32
                            } else {
                                queue.producer
                            };
                            queue.push(&words, producer, chance.below(2) as usize, lines);
                        }
                        if chance.one_in(20) {
                            let page = 5 * doorbell::DOORBELL_PAGE_BYTES;
                            let at = page + 0x100 + chance.below(64) as u32 * 4;
                            if damaged {
                                queue.host.write32(Bar::Bar2, at, chance.word() as u32).expect("write");
                            }
                        }
                    }
                }
                queue.ring();
                if chance.one_in(3) {
                    let _ =
                        queue.host.wait(6, queue.host.now() + Time::from_nanoseconds(chance.below(2_000)));
                } else {
                    queue.settle();
                }
                if damaged && chance.one_in(12) {
                    queue.control(QueueControl::new());
                }
                if !queue.status().enabled() {
                    queue.control(QueueControl::new());
                    queue.turn_on(false);
                }
            }
            world.drain();
            let heard = a.wire.frames();
            // An address that was damaged may put any bytes in the place of the Ethernet header, which is sent as it is.
            let clear = |frame: &Vec<u8>| {
                MARKER.chunks(8).any(|half| frame.get(14..).is_some_and(|rest| shows(rest, half)))
            };
            assert!(!heard.iter().any(clear), "seed {seed}: clear text on the line");
            assert!(heard.iter().all(|frame| esp_offset(frame).is_some()), "only ESP leaves");
            assert!(damaged || !heard.is_empty());
            drop((queue, a.queue, a.nic));
            assert_serves_again(&world, a.id);
        });
    }
}

/// Receive buffers of any size, completions and interrupts that wait, scaling by any table.
#[test]
fn random_receive_rings_with_scatter_and_coalescing() {
    for seed in 0..cases(20) {
        within(LIMIT, format!("receive, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let mut parameters = Parameters::default();
            parameters.descriptors.receive_chain = chance.pick(&[1, 3, 16]);
            parameters.descriptors.receive_prefetch = chance.pick(&[1, 4, 256]);
            let world = World::new(seed);
            let id = world.add_nic(&parameters).expect("parameters");
            bus_master(&*world.host(id));
            let mut queue = RawQueue::new(&world, id, 5, 32, true);
            queue.scatter = chance.one_in(2);
            queue.control(QueueControl::new());
            queue.turn_on(true);
            queue.host.write32(Bar::Bar0, bar0::CONTROL.offset, 1).expect("write");
            world.record_drops(id);
            let (mut posted, mut injected) = (0_u32, 0);
            for _ in 0..60 {
                for register in [
                    bar0::INTERRUPT_MODERATION.offset + 5 * bar0::QUEUE_PAIR_STRIDE,
                    bar0::COMPLETION_COALESCING.offset + 5 * bar0::QUEUE_PAIR_STRIDE,
                    bar0::RECEIVE_SCALING.offset,
                    bar0::RECEIVE_SCALING_KEY.offset + 4 * chance.below(10) as u32,
                    bar0::RECEIVE_SCALING_TABLE.offset + 4 * chance.below(32) as u32,
                ] {
                    if chance.one_in(4) {
                        // Queue pair 5 most of the time.
                        let value = if chance.one_in(2) { 0x0505_0505 } else { chance.word() as u32 };
                        queue.host.write32(Bar::Bar0, register, value).expect("write");
                    }
                }
                for _ in 0..chance.below(30) {
                    let at = crate::raw::RECEIVE_RING + (posted % crate::raw::SLOTS) as usize * 16;
                    let buffer = if chance.one_in(60) { address(&mut chance) } else { queue.iova + 0x2_0000 };
                    let length = chance.pick(&[0, 1, 60, 100, 1_000, 2_048, 65_535]);
                    let length = ReceiveControl::new().with_length(length).into_bits();
                    queue.memory.write_word(at, buffer).expect("in range");
                    queue.memory.write_word(at + 8, length).expect("in range");
                    posted = posted.wrapping_add(1);
                }
                let page = 5 * doorbell::DOORBELL_PAGE_BYTES;
                let told = if chance.one_in(40) { chance.word() as u32 } else { posted };
                queue.host.write32(Bar::Bar2, page + doorbell::RECEIVE_DOORBELL.offset, told).expect("write");
                queue.host.write32(Bar::Bar2, page + doorbell::INTERRUPT_ARM.offset, 1).expect("write");
                for _ in 0..chance.below(20) {
                    let frame = chance.pick(&[20, 60, 300, 1_500]);
                    world.inject(id, &udp(&vec![0x11; frame]));
                    injected += 1;
                }
                let _ = queue.host.wait(6, queue.host.now() + Time::from_nanoseconds(chance.below(3_000)));
                if chance.one_in(10) {
                    queue.control(QueueControl::new());
                }
                // A ring that is as full as the host says takes no more until it is begun anew.
                if !queue.status().enabled() || chance.one_in(10) {
                    queue.control(QueueControl::new());
                    queue.turn_on(true);
                    posted = 0;
                }
            }
            world.drain();
            let drops = world.take_drops(id);
            assert!(!drops.contains(&Status::ReceiveOverflow), "the buffer is full for good");
            let good = queue.host.read64(Bar::Bar0, bar0::STATUS_COUNTERS_OFFSET).expect("read");
            assert_eq!(drops.len() as u64 + good, injected, "each packet ended somewhere");
            drop(queue);
            assert_serves_again(&world, id);
        });
    }
}

#[test]
fn packets_without_end_that_never_ask_for_a_completion() {
    within(LIMIT, "no reports".into(), || {
        let (world, a, _b) = apart();
        let mut queue = RawQueue::new(&world, a.id, 5, 32, true);
        let frame = vec![0xee; 60];
        let at = queue.frame(&frame);
        let quiet = control(frame.len(), Security::Clear).with_report(false).into_bits();
        for _ in 0..(1 << 16) / 128 + 2 {
            for _ in 0..128 {
                queue.put([at, quiet, 0, 60, 0, 0, 0, 0]);
            }
            queue.ring();
            world.drain();
            world.take_sent(a.id);
        }
        assert!(queue.completion().is_none() && queue.status().enabled());
        let asked = control(frame.len(), Security::Clear).into_bits();
        assert_eq!(queue.send([at, asked, 0, 60, 0, 0, 0, 0]), Some(Status::Ok));
    });
}

#[test]
fn a_queue_turned_off_gives_back_the_receive_buffer() {
    // Given packets that wait for receive descriptors which are on their way, when their queue is turned off
    // under them, again and again, then the buffer between line and host does not fill up.
    within(LIMIT, "waiting packets".into(), || {
        let (world, mut a, _b) = apart();
        // The SA steers to the queue.
        let sa = cryptonic_driver::SaConfiguration {
            receive_queue: 5,
            replay_window: 0,
            ..esp(Direction::In, Mode::Tunnel, 0x42)
        };
        a.nic.install_sa(sa).expect("install");
        let out = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
        assert_eq!(a.send(&udp(&[0; 1400]), Protection::Sa(out)).status, Status::Ok);
        let frame = a.wire.take().remove(0);
        let mut queue = RawQueue::new(&world, a.id, 5, 32, false);
        world.record_drops(a.id);
        for round in 0..200 {
            let wait = |nanoseconds| {
                let deadline = queue.host.now() + Time::from_nanoseconds(nanoseconds);
                let _ = queue.host.wait(6, deadline);
            };
            let offset = doorbell::RECEIVE_DOORBELL.offset + 5 * doorbell::DOORBELL_PAGE_BYTES;
            queue.host.write32(Bar::Bar2, offset, 4).expect("write");
            // The doorbell takes 270 ns, the descriptors 540 ns more.
            wait(280);
            for _ in 0..8 {
                world.inject(a.id, &frame);
            }
            wait(round % 7 * 50);
            queue.control(QueueControl::new());
            queue.turn_on(false);
        }
        world.drain();
        let drops = world.take_drops(a.id);
        assert!(!drops.contains(&Status::ReceiveOverflow), "the buffer is full for good");
        assert!(drops.contains(&Status::TooBig) && drops.contains(&Status::QueueOff), "some waited");
        let good = queue.host.read64(Bar::Bar0, bar0::STATUS_COUNTERS_OFFSET).expect("read");
        assert_eq!(drops.len() as u64 + good, 1600 + 1, "each packet ended somewhere, and was counted there");
    });
}

#[test]
fn doorbells_without_end() {
    within(LIMIT, "doorbells".into(), || {
        let world = World::new(1);
        let id = world.add_nic(&Parameters::default()).expect("parameters");
        let host = world.host(id);
        bus_master(&*host);
        let queue = RawQueue::new(&world, id, 5, 32, true);
        // The device is not enabled, so that no descriptor is ever fetched.
        for round in 0..200_000_u32 {
            let offset = 5 * doorbell::DOORBELL_PAGE_BYTES;
            queue.host.write32(Bar::Bar2, offset, 1 + round % 2).expect("write");
        }
        world.drain();
        assert_serves_again(&world, id);
    });
}

#[test]
fn accesses_outside_every_bar() {
    let world = World::new(1);
    let id = world.add_nic(&Parameters::default()).expect("parameters");
    let host = world.host(id);
    let queue = RawQueue::new(&world, id, 0, 32, true);
    let line = [1; 64];
    for bar in [Bar::Bar0, Bar::Bar2, Bar::Bar4] {
        for offset in [1 << 20, 1 << 28, 1 << 31, u32::MAX - 3, u32::MAX - 15, 1, 2, u32::MAX] {
            // Refused or without effect; never an alias of a register that exists.
            let _ = host.write32(bar, offset, 1 << 20);
            let _ = host.read32(bar, offset);
            let _ = host.push64(bar, offset, &line);
            if offset.is_multiple_of(8) {
                let _ = host.read64(bar, offset);
                let _ = host.write64(bar, offset, u64::MAX);
            }
        }
    }
    world.drain();
    assert!(queue.status().enabled(), "a doorbell 2^16 pages on is not that of queue 0");
    for offset in [0x100, 0xffc, 0x1000, u16::MAX - 3] {
        host.config_write(offset, u32::MAX).expect("write");
        host.config_read(offset).expect("read");
    }
    assert_serves_again(&world, id);
}

/// A small device is the same device: the smallest capacities that are allowed.
#[test]
fn the_smallest_device_serves_and_refuses() {
    within(LIMIT, "smallest".into(), || {
        let mut parameters = Parameters::default();
        parameters.capacity.queue_pairs = 1;
        parameters.capacity.sa_slots = 2;
        let world = World::new(1);
        let id = world.add_nic(&parameters).expect("in range");
        let wire = Wire::on(&world, id);
        let mut nic = open(&world, id, &KeyLedger::new());
        for (key, mode) in [(0x42, Mode::Tunnel), (0x43, Mode::Transport)] {
            nic.install_sa(esp(Direction::Out, mode, key)).expect("install");
        }
        assert!(nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x44)).is_err());
        nic.close().expect("close");
        assert_serves_again(&world, id);
        assert!(!wire.shows_marker());
    });
}
