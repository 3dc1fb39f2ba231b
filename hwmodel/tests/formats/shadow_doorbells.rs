//! Shadow doorbells: counts in host memory, the event indices beside them, and doorbells that come too.

use cryptonic_hwmodel::Parameters;
use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, SharedMemory, Time};
use cryptonic_regs::Status;
use cryptonic_regs::bar0::{DESCRIPTOR_CAPABILITY, DescriptorCapability, QUEUE_CONTROL, QueueControl};
use cryptonic_regs::doorbell::{INTERRUPT_ARM, RECEIVE_DOORBELL, TRANSMIT_DOORBELL};
use cryptonic_regs::shadow_doorbells::{
    EVENT_INDEX_BASE, SHADOW_DOORBELL_BASE, SHADOW_DOORBELL_CONTROL, SHADOW_DOORBELL_STATUS,
    ShadowDoorbellStatus,
};

use crate::raw::{IOVA, Raw, status, udp};

/// Where the arrays are in the memory of [`Raw`], which zeroes them before it turns a pair on.
const COUNTS: usize = 0x4_0000;
const EVENT_INDICES: usize = 0x4_1000;
/// Words of an element.
const TRANSMIT: usize = 0;
const RECEIVE: usize = 1;
const ARM: usize = 2;

fn offering() -> Parameters {
    Parameters::default().with_setting("host.shadow_doorbells=true").expect("a knob")
}

/// Turns shadow doorbells on with these bases, after they were off.
fn turn_shadow_on(raw: &Raw, counts: u64, event_indices: u64) {
    raw.write(SHADOW_DOORBELL_CONTROL.offset, 0);
    raw.host.write64(Bar::Bar0, SHADOW_DOORBELL_BASE.offset, counts).expect("write");
    raw.host.write64(Bar::Bar0, EVENT_INDEX_BASE.offset, event_indices).expect("write");
    raw.write(SHADOW_DOORBELL_CONTROL.offset, 1);
}

/// A queue pair with shadow doorbells.
fn shadowed() -> Raw {
    let mut raw = Raw::new(&offering(), 64);
    raw.host.reset().expect("reset");
    turn_shadow_on(&raw, IOVA + COUNTS as u64, IOVA + EVENT_INDICES as u64);
    raw.set_up(QueueControl::new());
    assert!(shadow_status(&raw).enabled());
    raw
}

fn shadow_status(raw: &Raw) -> ShadowDoorbellStatus {
    ShadowDoorbellStatus::from_bits(raw.read(SHADOW_DOORBELL_STATUS.offset))
}

fn store(raw: &Raw, word: usize, count: u32) {
    raw.memory.write_word_release(COUNTS + word * 8, count.into()).expect("in range");
}

fn event_indices(raw: &Raw) -> [u64; 3] {
    std::array::from_fn(|word| raw.memory.read_word_acquire(EVENT_INDICES + word * 8).expect("in range"))
}

fn doorbell(raw: &Raw, offset: u32, count: u32) {
    raw.host.write32(Bar::Bar2, offset, count).expect("write");
}

#[test]
fn a_count_in_memory_is_a_doorbell_and_no_register_is_written() {
    // Given a queue pair whose host stores counts
    let mut raw = shadowed();
    assert_eq!(event_indices(&raw), [u64::from(u32::MAX); 3], "no first count passes");
    // When frames are sent and received over several passes of the rings
    let (mut frames, mut heard) = (vec![], vec![]);
    for round in 0..300 {
        let mut frame = udp(64 + round % 200);
        frame[42] = round as u8;
        raw.put_frame(&frame, round % 32);
        store(&raw, TRANSMIT, raw.produced);
        heard.extend(raw.sent());
        frames.push(frame);
    }
    // Then they leave, and none of the event indices asks
    assert_eq!(heard, frames);
    assert!(raw.statuses().iter().all(|status| *status == Status::Ok));
    assert_eq!(raw.world.doorbell_writes(raw.id), 0);
    assert_eq!(event_indices(&raw), [u64::from(u32::MAX); 3]);
}

#[test]
fn receive_buffers_are_announced_in_memory() {
    let mut raw = shadowed();
    raw.post_quietly(&[2048; 3]);
    store(&raw, RECEIVE, 3);
    for number in 0..3 {
        raw.pass(Time::from_microseconds(1));
        raw.world.inject(raw.id, &udp(100 + number));
    }
    raw.world.drain();
    let lengths: Vec<usize> = raw.received().iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [100, 101, 102]);
    assert_eq!(raw.world.doorbell_writes(raw.id), 0);
}

#[test]
fn arming_asks_for_the_next_doorbell_and_tells_what_came_meanwhile() {
    let mut raw = shadowed();
    let (world, id) = (raw.world.clone(), raw.id);
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, 1);
    // A count that came before is not slept over,
    assert!(!world.arm_shadow_doorbells(id));
    assert_eq!(event_indices(&raw), [0; 3], "the next count passes: 0 is all that the device knows");
    // it is found,
    assert!(world.poll_shadow_doorbells(id));
    assert_eq!(event_indices(&raw), [0, u64::from(u32::MAX), u64::from(u32::MAX)], "awake");
    assert!(!world.poll_shadow_doorbells(id), "once");
    // and then who serves the device may sleep.
    assert!(world.arm_shadow_doorbells(id));
    assert_eq!(event_indices(&raw), [1, 0, 0]);
    assert_eq!(raw.sent().len(), 1);
    // A doorbell that is asked for is not found a second time in memory.
    assert!(world.arm_shadow_doorbells(id));
    raw.put_frame(&udp(65), 0);
    store(&raw, TRANSMIT, 2);
    doorbell(&raw, TRANSMIT_DOORBELL.offset, 2);
    world.drain();
    assert_eq!(world.doorbell_writes(id), 1);
    assert!(!world.poll_shadow_doorbells(id));
    assert_eq!(raw.statuses(), [Status::Ok; 2]);
    assert_eq!(raw.sent().len(), 1);
}

#[test]
fn counts_and_doorbells_that_are_late_announce_nothing() {
    enum Step {
        Store(u32),
        Ring(u32),
    }
    use Step::{Ring, Store};
    let fault = Some(Status::BadDoorbell);
    // (name, what the host does with 4 descriptors in the ring, frames that leave, the fault that it is)
    for (name, steps, frames, cause) in [
        ("a doorbell behind memory", vec![Store(3), Ring(1), Ring(2)], 3, None),
        ("memory behind a doorbell", vec![Ring(3), Store(1), Store(2)], 3, None),
        ("memory follows its doorbell", vec![Ring(3), Store(3), Store(4)], 4, None),
        ("the same again", vec![Store(2), Store(2), Ring(2), Ring(2)], 2, None),
        ("a step back in memory", vec![Store(4), Store(0), Store(3)], 4, None),
        ("far behind", vec![Store(4), Store(4_u32.wrapping_sub(u32::MAX / 2))], 4, None),
        ("as far as is ahead", vec![Store(4), Store(4 + (1 << 31))], 4, fault),
        ("more than the ring", vec![Store(65)], 0, fault),
        ("more than the ring by a doorbell", vec![Store(2), Ring(3 + 64)], 2, fault),
        ("and both", vec![Store(1 << 30), Ring(4)], 0, fault),
    ] {
        let mut raw = shadowed();
        for _ in 0..4 {
            raw.put_frame(&udp(64), 0);
        }
        let mut sent = 0;
        for step in steps {
            match step {
                Store(count) => store(&raw, TRANSMIT, count),
                Ring(count) => doorbell(&raw, TRANSMIT_DOORBELL.offset, count),
            }
            sent += raw.sent().len();
        }
        let state = raw.status();
        assert_eq!(sent, frames, "{name}");
        assert_eq!(state.quarantined().then(|| status(state.cause())), cause, "{name}");
    }
}

#[test]
fn a_doorbell_that_is_on_its_way_while_memory_goes_on_is_no_fault() {
    // Given a doorbell that was written and has not arrived
    let mut raw = shadowed();
    for _ in 0..20 {
        raw.put_frame(&udp(64), 0);
    }
    doorbell(&raw, TRANSMIT_DOORBELL.offset, 1);
    doorbell(&raw, RECEIVE_DOORBELL.offset, 0);
    // When the device finds a later count in memory, and that is all done before
    store(&raw, TRANSMIT, 20);
    assert!(raw.world.poll_shadow_doorbells(raw.id));
    // Then it is as if it had not come.
    assert_eq!(raw.sent().len(), 20);
    assert!(raw.status().enabled());
}

#[test]
fn arrays_out_of_reach_stop_the_queue_pair() {
    const READ_ONLY: u64 = 0x5000_0000;
    let (counts, indices) = (IOVA + COUNTS as u64, IOVA + EVENT_INDICES as u64);
    // (name, base of the counts, base of the event indices, whether the pair is stopped)
    for (name, counts, indices, stopped) in [
        ("all is well", counts, indices, false),
        ("counts that are only read", READ_ONLY, indices, false),
        ("counts that are not mapped", 0x7000_0000, indices, true),
        ("event indices that are not mapped", counts, 0x7000_0000, true),
        ("event indices that are only read", counts, READ_ONLY, true),
        ("nothing was said", 0, 0, true),
    ] {
        let raw = shadowed();
        let memory = SharedMemory::new(4096).expect("memory");
        raw.host.dma_map(&memory, READ_ONLY, DmaAccess::DeviceReads).expect("map");
        raw.write(QUEUE_CONTROL.offset, 0);
        turn_shadow_on(&raw, counts, indices);
        assert!(shadow_status(&raw).enabled());
        let control = QueueControl::new()
            .with_enable(true)
            .with_transmit_stride_log2(6)
            .with_transmit_slots_log2(6)
            .with_receive_slots_log2(6);
        raw.write(QUEUE_CONTROL.offset, control.into_bits());
        raw.status();
        raw.world.drain();
        let cause = raw.status().quarantined().then(|| status(raw.status().cause()));
        assert_eq!(cause, stopped.then_some(Status::RingDmaFault), "{name}");
        assert_eq!(memory.read_word(0), Ok(0));
    }
}

#[test]
fn registers_are_taken_while_off_and_gone_after_a_reset() {
    let raw = shadowed();
    let base = |raw: &Raw| raw.host.read64(Bar::Bar0, SHADOW_DOORBELL_BASE.offset).expect("read");
    // While they are on the bases stay,
    raw.host.write64(Bar::Bar0, SHADOW_DOORBELL_BASE.offset, 0x1000).expect("write");
    assert_eq!(base(&raw), IOVA + COUNTS as u64);
    // bad bases are refused,
    for (counts, event_indices) in [(0x1800, 0x1000), (0x1000, 0x1008), (1 << 60, 0x1000), (0x1000, !0xfff)] {
        turn_shadow_on(&raw, counts, event_indices);
        let state = shadow_status(&raw);
        assert_eq!((state.enabled(), state.stopped()), (false, true), "{counts:#x} {event_indices:#x}");
        assert_eq!(raw.read(SHADOW_DOORBELL_CONTROL.offset), 1);
    }
    // and a reset turns all of it off.
    raw.host.reset().expect("reset");
    assert_eq!((base(&raw), shadow_status(&raw).into_bits()), (0, 0));
    assert_eq!(raw.read(SHADOW_DOORBELL_CONTROL.offset), 0);
    assert!(!raw.world.poll_shadow_doorbells(raw.id) && raw.world.arm_shadow_doorbells(raw.id));
    assert_eq!(raw.world.reserved_accesses(raw.id), 0);
}

#[test]
fn a_device_without_them_says_so_and_takes_nothing() {
    for (parameters, offered) in [(Parameters::default(), false), (offering(), true)] {
        let raw = Raw::new(&parameters, 64);
        let capability = DescriptorCapability::from_bits(raw.read(DESCRIPTOR_CAPABILITY.offset));
        assert_eq!(capability.shadow_doorbells(), offered);
        turn_shadow_on(&raw, 0x1000, 0x2000);
        assert_eq!(shadow_status(&raw).enabled(), offered);
        assert_eq!(raw.read(SHADOW_DOORBELL_CONTROL.offset), offered.into());
        assert_eq!(raw.world.reserved_accesses(raw.id), 0);
    }
}

#[test]
fn queue_pairs_that_were_on_before_and_after_have_doorbells_alone() {
    // Given a pair that was turned on before them, a count in memory is nothing
    let mut raw = Raw::new(&offering(), 64);
    turn_shadow_on(&raw, IOVA + COUNTS as u64, IOVA + EVENT_INDICES as u64);
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, 1);
    assert!(raw.sent().is_empty() && event_indices(&raw) == [0; 3]);
    raw.ring();
    assert_eq!(raw.sent().len(), 1);
    // and so for one that had them until they were turned off.
    let mut raw = shadowed();
    raw.write(SHADOW_DOORBELL_CONTROL.offset, 0);
    assert!(!shadow_status(&raw).enabled());
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, 1);
    assert!(raw.sent().is_empty());
    raw.ring();
    assert_eq!(raw.sent().len(), 1);
}

#[test]
fn a_count_of_a_ring_that_was_turned_off_is_not_of_the_next() {
    let mut raw = shadowed();
    for _ in 0..5 {
        raw.put_frame(&udp(64), 0);
    }
    store(&raw, TRANSMIT, 5);
    // Found, and not in effect before the pair is off and on again.
    raw.write(QUEUE_CONTROL.offset, 0);
    assert!(raw.world.poll_shadow_doorbells(raw.id));
    raw.turn_on(QueueControl::new());
    raw.world.drain();
    raw.world.take_sent(raw.id);
    assert!(raw.told().is_empty() && raw.status().enabled());
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, 1);
    assert_eq!(raw.sent().len(), 1);
}

#[test]
fn an_arming_holds_for_completions_that_the_host_may_have_missed() {
    let mut raw = shadowed();
    raw.host.interrupts_enable(1).expect("interrupts");
    let mut armed = 0;
    let mut sleep = |raw: &Raw, arm: bool| {
        armed += u32::from(arm);
        store(raw, ARM, armed);
        raw.host.wait(0, raw.host.now() + Time::from_microseconds(20)).expect("waits")
    };
    assert_eq!(sleep(&raw, true), Wake::Deadline, "nothing came");
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, raw.produced);
    assert_eq!(sleep(&raw, false), Wake::Interrupt, "it was armed");
    // A completion that was written before the device heard of the arming, and after it last looked, is told at once.
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, raw.produced);
    raw.world.drain();
    assert_eq!(raw.told().len(), 2);
    assert_eq!(sleep(&raw, true), Wake::Interrupt);
    assert_eq!(sleep(&raw, false), Wake::Deadline, "once");
    // One that was written before the last look is not: the host has seen it.
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, raw.produced);
    raw.world.drain();
    raw.world.poll_shadow_doorbells(raw.id);
    assert_eq!(sleep(&raw, true), Wake::Deadline);
    // It stays armed for the next, and a doorbell with the same count is the same arming.
    doorbell(&raw, INTERRUPT_ARM.offset, 3);
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, raw.produced);
    assert_eq!(sleep(&raw, false), Wake::Interrupt);
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, raw.produced);
    assert_eq!(sleep(&raw, false), Wake::Deadline, "not armed any more");
}

#[test]
fn a_doorbell_that_arms_a_sleeping_device_holds_for_what_was_missed_too() {
    let mut raw = shadowed();
    raw.host.interrupts_enable(1).expect("interrupts");
    raw.put_frame(&udp(64), 0);
    store(&raw, TRANSMIT, 1);
    raw.world.drain();
    assert!(raw.world.arm_shadow_doorbells(raw.id));
    store(&raw, ARM, 1);
    doorbell(&raw, INTERRUPT_ARM.offset, 1);
    let soon = raw.host.now() + Time::from_microseconds(20);
    assert_eq!(raw.host.wait(0, soon), Ok(Wake::Interrupt));
    let soon = raw.host.now() + Time::from_microseconds(20);
    assert_eq!(raw.host.wait(0, soon), Ok(Wake::Deadline), "once");
}
