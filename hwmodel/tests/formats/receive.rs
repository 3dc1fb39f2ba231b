//! The receive side: frames over several buffers, checksums, scaling, completions and interrupts that wait.

use cryptonic_hwmodel::{Parameters, World};
use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, Time};
use cryptonic_regs::Status;
use cryptonic_regs::bar0::{
    self, CompletionCoalescing, InterruptModeration, QueueControl, ReceiveScaling, STATUS_COUNTERS_OFFSET,
};
use cryptonic_regs::completion::{ChecksumState, HashKind};
use cryptonic_regs::doorbell;

use crate::raw::{Raw, payload, status, tcp, udp};

fn raw(slots: u32, control: QueueControl, change: impl FnOnce(&mut Parameters)) -> Raw {
    let mut parameters = Parameters::default();
    change(&mut parameters);
    let world = World::new(1);
    let id = world.add_nic(&parameters).expect("in range");
    Raw::on(&world, id, 32, slots, control)
}

const SCATTER: QueueControl = QueueControl::new().with_receive_scatter(true);

fn count(raw: &Raw, status: Status) -> u32 {
    raw.read(STATUS_COUNTERS_OFFSET + 8 * status.number())
}

#[test]
fn a_frame_takes_as_many_buffers_as_it_needs_and_no_more() {
    for (bytes, buffers, taken) in [
        (100, vec![100], 1),
        (101, vec![100, 100], 2),
        (1_000, vec![300, 300, 300, 300], 4),
        (900, vec![300, 300, 300, 300], 3),
        (500, vec![100, 0, 200, 200, 50], 4),
        (16 * 60, vec![60; 16], 16),
    ] {
        let mut raw = raw(64, SCATTER, |_| {});
        // From every place in the ring, over its end as well.
        for round in 0..20 {
            raw.post(&buffers);
            raw.world.drain();
            let mut frame = udp(bytes);
            frame[42] = round;
            raw.world.inject(raw.id, &frame);
            raw.world.drain();
            let received = raw.received();
            assert_eq!(received.len(), taken, "{bytes} bytes over {buffers:?}, round {round}");
            let mut whole = vec![];
            for (index, (completion, part)) in received.iter().enumerate() {
                let last = index + 1 == taken;
                assert_eq!(completion.end.more(), !last);
                assert_eq!(status(completion.end.status()), Status::Ok);
                assert_eq!(completion.time_picoseconds != 0, last, "the last says everything");
                assert_eq!(completion.steering.ip_checksum() != 0, last);
                whole.extend_from_slice(part);
            }
            assert_eq!(whole, frame);
            // Buffers that are left are the next frame's: its sizes would not be those of the table.
            if taken != buffers.len() {
                break;
            }
        }
    }
}

#[test]
fn too_few_buffers_consume_none_and_too_many_are_not_taken() {
    let mut raw = raw(64, SCATTER, |parameters| parameters.descriptors.receive_chain = 4);
    raw.post(&[100, 100, 100]);
    raw.world.drain();
    raw.world.inject(raw.id, &udp(301));
    raw.world.drain();
    assert_eq!(count(&raw, Status::NoBuffer), 1);
    raw.world.inject(raw.id, &udp(300));
    raw.world.drain();
    assert_eq!(raw.received().len(), 3, "all three were still there");
    // Four is the most: what needs five is too big however many there are.
    raw.post(&[100; 10]);
    raw.world.drain();
    raw.world.inject(raw.id, &udp(401));
    raw.world.inject(raw.id, &udp(400));
    raw.world.drain();
    assert_eq!((count(&raw, Status::TooBig), raw.received().len()), (1, 4));
    assert_eq!(raw.read(bar0::CHAIN_CAPABILITY.offset) >> 8 & 0xff, 4);
}

#[test]
fn a_frame_waits_for_buffers_that_are_on_their_way_and_others_wait_behind_it() {
    // With a prefetch smaller than a frame may need.
    let mut raw = raw(64, SCATTER, |parameters| {
        parameters.descriptors.receive_prefetch = 1;
        parameters.descriptors.receive_fetch = 2;
    });
    let (long, short) = (udp(700), udp(80));
    raw.post(&[100; 12]);
    // The doorbell needs 270 ns, the first two descriptors 540 more; the frames are here between.
    raw.pass(Time::from_nanoseconds(830));
    raw.world.inject(raw.id, &long);
    raw.world.inject(raw.id, &short);
    raw.world.drain();
    let received = raw.received();
    assert_eq!(received.len(), 8);
    let parts: Vec<u8> = received[..7].iter().flat_map(|(_, part)| part.clone()).collect();
    assert_eq!((parts, &received[7].1), (long, &short), "in the order of their arrival");
}

#[test]
fn without_scatter_a_frame_longer_than_a_buffer_is_dropped() {
    let mut raw = raw(64, QueueControl::new(), |_| {});
    raw.post(&[100, 100]);
    raw.world.drain();
    raw.world.inject(raw.id, &udp(101));
    raw.world.inject(raw.id, &udp(100));
    raw.world.drain();
    assert_eq!((count(&raw, Status::TooBig), raw.received().len()), (1, 1));
}

#[test]
fn checksums_are_judged() {
    let (good, bad) = (ChecksumState::Good.number(), ChecksumState::Bad.number());
    let none = ChecksumState::NotChecked.number();
    let with = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let mut arp = udp(60);
    arp[12..14].copy_from_slice(&[8, 6]);
    for (name, frame, ip, l4) in [
        ("UDP", udp(100), good, good),
        ("UDP, odd", udp(101), good, good),
        ("UDP without one", with(udp(100), 40, &[0, 0]), good, none),
        ("UDP, wrong", with(udp(100), 50, &[0xff]), good, bad),
        ("TCP", tcp(false, &payload(333)), good, good),
        ("TCP, wrong", with(tcp(false, &payload(333)), 40, &[0xab]), good, bad),
        ("TCP over IPv6", tcp(true, &payload(333)), none, good),
        ("TCP over IPv6, wrong", with(tcp(true, &payload(333)), 80, &[0xab]), none, bad),
        ("no IP", arp, none, none),
    ] {
        let mut raw = raw(64, QueueControl::new(), |_| {});
        raw.post(&[2_048]);
        raw.world.drain();
        raw.world.inject(raw.id, &frame);
        raw.world.drain();
        let (completion, _) = raw.received().remove(0);
        let steering = completion.steering;
        let found = (u32::from(steering.ip_checksum()), u32::from(steering.l4_checksum()));
        assert_eq!(found, (ip, l4), "{name}");
        assert_eq!(u32::from(steering.outer_checksum()), none, "{name}");
    }
}

/// The key and the vectors that Microsoft prints ("Verifying the RSS Hash Calculation").
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

fn scaling(raw: &Raw, control: ReceiveScaling) {
    for (index, word) in KEY.chunks_exact(4).enumerate() {
        let word = u32::from_le_bytes(word.try_into().expect("4 bytes"));
        raw.write(bar0::RECEIVE_SCALING_KEY.offset + index as u32 * 4, word);
    }
    raw.write(bar0::RECEIVE_SCALING.offset, control.into_bits());
}

/// A TCP packet between two addresses and ports.
fn flow(source: [u8; 4], source_port: u16, destination: [u8; 4], destination_port: u16) -> Vec<u8> {
    let mut frame = vec![];
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(source, destination, 64)
        .tcp(source_port, destination_port, 0, 0)
        .write(&mut frame, &[0; 20])
        .expect("a vector takes all");
    frame
}

#[test]
fn hashes_are_those_that_are_published_and_choose_the_queue_pair() {
    let vectors = [
        (flow([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766), 0x51cc_c178, 0x323e_8fc2),
        (flow([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739), 0xc626_b0ea, 0xd718_262a),
        (flow([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024), 0x5c2b_394a, 0xd2d0_a5de),
    ];
    let on = ReceiveScaling::new().with_enable(true);
    for (frame, with_ports, addresses) in vectors {
        for (control, hash, kind) in [
            (ReceiveScaling::new(), 0, HashKind::None),
            (on, addresses, HashKind::Ipv4),
            (on.with_udp_ports(true), addresses, HashKind::Ipv4),
            (on.with_tcp_ports(true), with_ports, HashKind::Ipv4Tcp),
        ] {
            let mut raw = raw(64, QueueControl::new(), |_| {});
            raw.post(&[2_048; 4]);
            scaling(&raw, control);
            raw.world.drain();
            raw.world.inject(raw.id, &frame);
            raw.world.drain();
            let (completion, _) = raw.received().remove(0);
            assert_eq!(
                (completion.steering.hash(), completion.steering.hash_kind()),
                (hash, kind.number() as u8)
            );
            // Entry 127 of the table, or that of fewer bits, names a queue pair that is off.
            if kind == HashKind::None {
                continue;
            }
            for table_log2 in 0..=7 {
                let entry = hash & ((1 << table_log2) - 1);
                let word = bar0::RECEIVE_SCALING_TABLE.offset + entry / 4 * 4;
                raw.write(word, 9 << (entry % 4 * 8));
                raw.write(bar0::RECEIVE_SCALING.offset, control.with_table_log2(table_log2).into_bits());
                raw.world.drain();
                let before = count(&raw, Status::QueueOff);
                raw.world.inject(raw.id, &frame);
                raw.world.drain();
                assert_eq!(count(&raw, Status::QueueOff), before + 1, "{table_log2} bits");
                raw.write(word, 0);
            }
        }
    }
}

/// Receives `frames` frames of 60 bytes with this coalescing; gives bytes to the host, and after each how many completions
/// the host sees.
fn coalesced(completions: u8, hold_ns: u16, frames: usize) -> (u64, Vec<usize>) {
    let mut raw = raw(16, QueueControl::new(), |_| {});
    let coalescing = CompletionCoalescing::new().with_completions(completions).with_hold_ns(hold_ns);
    raw.write(bar0::COMPLETION_COALESCING.offset, coalescing.into_bits());
    raw.post(&[2_048; 16]);
    raw.world.drain();
    let (_, before) = raw.world.pcie_bytes(raw.id);
    let mut seen = vec![];
    for _ in 0..frames {
        raw.world.inject(raw.id, &udp(60));
        // Longer than it takes to be received, and shorter than a hold.
        raw.pass(Time::from_nanoseconds(1_000));
        seen.push(raw.received().len());
    }
    let (_, after) = raw.world.pcie_bytes(raw.id);
    raw.world.drain();
    let rest = raw.received().len();
    assert_eq!(seen.iter().sum::<usize>() + rest, frames, "none is lost");
    (after - before, seen)
}

#[test]
fn completions_wait_for_one_another_and_save_headers() {
    // A frame of 60 bytes is 84 on the link, a completion alone 88; four at once are 24 + 256 at MPS 256.
    assert_eq!(coalesced(0, 0, 8), (8 * (84 + 88), vec![1; 8]));
    assert_eq!(coalesced(4, 0, 8), (8 * (84 + 88), vec![1; 8]), "no time to wait is no waiting");
    assert_eq!(coalesced(1, 60_000, 8), (8 * (84 + 88), vec![1; 8]));
    assert_eq!(coalesced(4, 60_000, 8), (8 * 84 + 2 * (24 + 256), vec![0, 0, 0, 4, 0, 0, 0, 4]));
    // Eight are 512 bytes: two packets at MPS 256, one write.
    assert_eq!(coalesced(8, 60_000, 8), (8 * 84 + 2 * 24 + 512, vec![0, 0, 0, 0, 0, 0, 0, 8]));
    assert_eq!(coalesced(15, 60_000, 8).1, vec![0, 0, 0, 0, 0, 0, 0, 8], "8 is the most");
    // The time is up: the first waits 2500 ns.
    assert_eq!(coalesced(8, 2_500, 6).1, vec![0, 0, 3, 0, 0, 3]);
    // Never past the end of the ring: the 16th goes with what is there.
    assert_eq!(coalesced(7, 60_000, 16).1, vec![0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 7, 0, 2]);
}

#[test]
fn held_completions_go_when_holding_ends_and_are_forgotten_with_their_queue_pair() {
    for (name, register, value, seen) in [
        ("turned off", bar0::COMPLETION_COALESCING.offset, 0, 3),
        ("queue pair off", bar0::QUEUE_CONTROL.offset, 0, 0),
    ] {
        let mut raw = raw(16, QueueControl::new(), |_| {});
        let coalescing = CompletionCoalescing::new().with_completions(8).with_hold_ns(u16::MAX);
        raw.write(bar0::COMPLETION_COALESCING.offset, coalescing.into_bits());
        raw.post(&[2_048; 16]);
        raw.pass(Time::from_microseconds(5));
        for _ in 0..3 {
            raw.world.inject(raw.id, &udp(60));
        }
        raw.pass(Time::from_microseconds(5));
        raw.write(register, value);
        raw.pass(Time::from_microseconds(5));
        assert_eq!(raw.received().len(), seen, "{name}");
        raw.world.drain();
        assert_eq!(raw.received().len(), 0, "{name}: no more than that");
    }
}

#[test]
fn an_interrupt_waits_for_as_many_completions_or_a_time() {
    // (completions, delay, frames 1 µs apart, microsecond in which the interrupt comes)
    for (completions, delay_ns, frames, expected) in [
        (0, 0, 5, 1),
        (3, 0, 5, 1),
        (1, 50_000, 5, 1),
        (0, 50_000, 5, 1),
        (3, 50_000, 5, 3),
        (200, 4_000, 3, 5),
    ] {
        let mut raw = raw(64, QueueControl::new().with_vector(1), |_| {});
        raw.host.interrupts_enable(2).expect("interrupts");
        let moderation = InterruptModeration::new().with_completions(completions).with_delay_ns(delay_ns);
        raw.write(bar0::INTERRUPT_MODERATION.offset, moderation.into_bits());
        assert_eq!(raw.read(bar0::INTERRUPT_MODERATION.offset), moderation.into_bits());
        raw.post(&[2_048; 32]);
        // Twice: it has to be armed again.
        for _ in 0..2 {
            raw.host.write32(Bar::Bar2, doorbell::INTERRUPT_ARM.offset, 1).expect("write");
            raw.pass(Time::from_microseconds(60));
            let start = raw.host.now();
            let mut came = None;
            for microsecond in 1..100 {
                if microsecond <= frames {
                    raw.world.inject(raw.id, &udp(60));
                }
                let deadline = start + Time::from_microseconds(microsecond);
                if raw.host.wait(1, deadline) == Ok(Wake::Interrupt) {
                    assert_eq!(came, None, "once");
                    came = Some(microsecond);
                    raw.host.wait(1, deadline).expect("waits");
                }
            }
            assert_eq!(came, Some(expected), "{completions} completions, {delay_ns} ns");
            raw.received();
        }
    }
}

#[test]
fn registers_of_the_receive_side_read_as_they_were_written() {
    let raw = raw(64, QueueControl::new(), |_| {});
    for (register, written, reads) in [
        (bar0::ESP_UDP_PORT.offset, 0xffff_1234, 0x1234),
        (bar0::PSP_SOURCE_PORTS.offset + 28, 0xdead_beef, 0xdead_beef),
        (bar0::RECEIVE_SCALING.offset, u32::MAX, 0x7f),
        (bar0::RECEIVE_SCALING_KEY.offset + 36, 0x1234_5678, 0x1234_5678),
        (bar0::RECEIVE_SCALING_TABLE.offset + 124, 0x0102_0304, 0x0102_0304),
        (bar0::COMPLETION_COALESCING.offset + 0x40, 0xf_1234, 0x8_1234),
    ] {
        raw.write(register, written);
        assert_eq!(raw.read(register), reads, "{register:#x}");
    }
    raw.host.reset().expect("reset");
    assert_eq!(raw.read(bar0::ESP_UDP_PORT.offset), 4_500);
    for word in 0..8 {
        let entry = 49_152 + 2_048 * word;
        assert_eq!(raw.read(bar0::PSP_SOURCE_PORTS.offset + 4 * word), entry | (entry + 1_024) << 16);
    }
    for register in [bar0::RECEIVE_SCALING.offset, bar0::RECEIVE_SCALING_KEY.offset + 36, 0x206c] {
        assert_eq!(raw.read(register), 0, "{register:#x}");
    }
    assert_eq!(raw.world.reserved_accesses(raw.id), 0, "each is a register");
}
