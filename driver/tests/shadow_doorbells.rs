//! Doorbells in host memory: when a register is written, and what a device can do by its event indices.

mod fake;

use cryptonic_driver::{
    Error, Nic, OpenOptions, Protection, PushPolicy, QueueError, QueuePair, QueuePairOptions, Time,
    TransmitPacket, Wake,
};
use cryptonic_pci::DmaAccess;
use cryptonic_regs::bar0::{BLOCK_TABLE_ENTRY_BYTES, BLOCK_TABLE_OFFSET, BLOCKS, QUEUE_STATUS, QueueStatus};
use cryptonic_regs::shadow_doorbells::{
    EVENT_INDEX_BASE, SHADOW_DOORBELL_BASE, SHADOW_DOORBELL_STATUS, SHADOW_DOORBELLS, doorbell_wanted,
};
use fake::Fake;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

const SMALL: QueuePairOptions = QueuePairOptions {
    transmit_slots: 8,
    receive_slots: 8,
    stride: 64,
    clear_allowed: true,
    ..QueuePairOptions::new()
};

fn set_up(fake: &Fake) -> (Nic, QueuePair) {
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let queue = nic.create_queue_pair(SMALL).unwrap();
    // The device has heard of the pair.
    nic.relax();
    (nic, queue)
}

fn soon(queue: &QueuePair) -> Time {
    queue.time() + Time::from_milliseconds(1)
}

fn send(queue: &mut QueuePair, count: u8) {
    let mut batch: Vec<TransmitPacket> = (0..count)
        .map(|number| {
            let mut buffer = queue.take_buffer().unwrap();
            queue.fill(&mut buffer, &[number; 60]).unwrap();
            TransmitPacket::new(buffer, Protection::Clear, number.into())
        })
        .collect();
    assert_eq!(queue.transmit(&mut batch).unwrap(), usize::from(count));
}

/// Takes what is there and gives the buffers back.
fn take(queue: &mut QueuePair) -> usize {
    let mut received = vec![];
    let count = queue.receive(&mut received, 64).unwrap();
    queue.return_buffers(&mut received).unwrap();
    count
}

/// Doorbell registers of the first queue pair that were written: transmit, receive, arming.
fn rung(fake: &Fake) -> [u32; 3] {
    let device = fake.device.borrow();
    let queue = &device.queues[0];
    [queue.transmit_rings, queue.receive_rings, queue.arm_rings]
}

#[test]
fn a_device_that_is_awake_is_told_everything_and_no_register_is_touched() {
    // Given a device that looks at the counts
    let fake = Fake::with_shadow_doorbells();
    let (nic, mut queue) = set_up(&fake);
    assert!(nic.shadow_doorbells());
    let (before, reads) = (rung(&fake), fake.device.borrow().reads);
    // When frames go both ways, over many passes of the rings, polled and slept for
    let (mut done, mut frames) = (vec![], 0);
    for round in 0..100 {
        send(&mut queue, 1 + round % 8);
        if round % 2 == 0 {
            assert_eq!(queue.wait(soon(&queue)), Ok(Wake::Interrupt));
        }
        queue.drain(soon(&queue), &mut done).unwrap();
        frames += take(&mut queue);
    }
    // Then they came, without a register write or read
    assert_eq!(frames, (0..100).map(|round| 1 + round % 8).sum::<usize>());
    assert_eq!(rung(&fake), before);
    assert_eq!(fake.device.borrow().reads, reads);
    assert_eq!(queue.statistics().doorbells, 0);
}

#[test]
fn a_doorbell_is_written_once_when_the_device_asks_for_it() {
    let fake = Fake::with_shadow_doorbells();
    let (_nic, mut queue) = set_up(&fake);
    fake.device.borrow_mut().shadow.asks = true;
    queue.relax();
    let before = rung(&fake);
    // The device has gone to sleep: the first batch passes its event index, the others do not.
    for _ in 0..3 {
        send(&mut queue, 2);
    }
    assert_eq!(rung(&fake), [before[0] + 1, before[1], before[2]]);
    assert_eq!(queue.statistics().doorbells, 1);
    let mut done = vec![];
    queue.drain(soon(&queue), &mut done).unwrap();
    take(&mut queue);
    assert_eq!(rung(&fake), [before[0] + 1, before[1] + 1, before[2]], "buffers went back");
    queue.relax();
    assert_eq!(queue.wait(soon(&queue)), Ok(Wake::Deadline));
    assert_eq!(rung(&fake)[2], before[2] + 1);
}

#[test]
fn arrays_are_on_pages_of_their_own_and_the_device_only_reads_the_counts() {
    let fake = Fake::with_shadow_doorbells();
    let (nic, queue) = set_up(&fake);
    let base = |offset: u32| {
        let device = fake.device.borrow();
        u64::from(device.registers[&(offset + 4)]) << 32 | u64::from(device.registers[&offset])
    };
    let access = |iova: u64| {
        let device = fake.device.borrow();
        let found = device.mappings.iter().find(|(start, ..)| *start == iova);
        found.map(|(_, memory, access)| (memory.bytes(), *access))
    };
    let bases = [base(SHADOW_DOORBELL_BASE.offset), base(EVENT_INDEX_BASE.offset)];
    assert!(bases.iter().all(|base| base % 4096 == 0));
    assert_eq!(access(bases[0]), Some((4096, DmaAccess::DeviceReads)));
    assert_eq!(access(bases[1]), Some((4096, DmaAccess::DeviceReadsAndWrites)));
    // And closing takes everything back.
    drop(queue);
    nic.close().unwrap();
    assert!(fake.device.borrow().mappings.is_empty());
}

#[test]
fn without_them_doorbells_are_written() {
    let refused = Fake::with_shadow_doorbells();
    refused.device.borrow_mut().shadow.refuses = true;
    let options = |shadow_doorbells| OpenOptions { shadow_doorbells, ..OpenOptions::default() };
    for (name, fake, options) in [
        ("not offered", Fake::new(), options(true)),
        ("not wanted", Fake::with_shadow_doorbells(), options(false)),
        ("offered and refused", refused, options(true)),
    ] {
        let mut nic = Nic::open(fake.host(), options).unwrap();
        let arenas = fake.device.borrow().mappings.len();
        assert!(!nic.shadow_doorbells(), "{name}");
        assert_eq!(arenas, 2, "{name}: only the admin queue's");
        let mut queue = nic.create_queue_pair(SMALL).unwrap();
        send(&mut queue, 3);
        queue.drain(soon(&queue), &mut vec![]).unwrap();
        assert_eq!(take(&mut queue), 3, "{name}");
        assert_eq!(rung(&fake)[..2], [1, 2], "{name}");
        assert!(!fake.device.borrow().register_on(), "{name}");
    }
}

#[test]
fn a_device_of_the_contract_before_needs_no_block_for_them() {
    let entry = BLOCKS.iter().position(|block| block.kind == SHADOW_DOORBELLS.kind).unwrap() as u32;
    let missing = |fake: &Fake| {
        let at = BLOCK_TABLE_OFFSET + entry * BLOCK_TABLE_ENTRY_BYTES;
        fake.device.borrow_mut().registers.insert(at, 0xffff);
    };
    let fake = Fake::new();
    missing(&fake);
    assert!(Nic::open(fake.host(), OpenOptions::default()).is_ok());
    let fake = Fake::with_shadow_doorbells();
    missing(&fake);
    let outcome = Nic::open(fake.host(), OpenOptions::default());
    assert!(matches!(outcome.err(), Some(Error::Block { name: "SHADOW_DOORBELLS" })));
}

#[test]
fn nothing_is_pushed() {
    let fake = Fake::with_shadow_doorbells();
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let mut queue = nic.create_queue_pair(QueuePairOptions { push: PushPolicy::WhenIdle, ..SMALL }).unwrap();
    send(&mut queue, 1);
    queue.drain(soon(&queue), &mut vec![]).unwrap();
    assert!(fake.device.borrow().pushes.is_empty());
    assert_eq!(queue.statistics().pushes, 0);
}

#[test]
fn a_queue_pair_that_is_set_up_again_begins_at_zero() {
    let fake = Fake::with_shadow_doorbells();
    let (mut nic, mut queue) = set_up(&fake);
    for _ in 0..5 {
        send(&mut queue, 5);
        queue.drain(soon(&queue), &mut vec![]).unwrap();
        take(&mut queue);
    }
    let index = queue.index();
    queue.close().unwrap();
    let mut queue = nic.create_queue_pair(QueuePairOptions { index: Some(index), ..SMALL }).unwrap();
    send(&mut queue, 5);
    queue.drain(soon(&queue), &mut vec![]).unwrap();
    assert_eq!(take(&mut queue), 5);
}

#[test]
fn a_device_that_stopped_the_pair_is_found_out_at_the_deadline() {
    let fake = Fake::with_shadow_doorbells();
    let (_nic, mut queue) = set_up(&fake);
    let stopped = QueueStatus::new().with_quarantined(true).with_cause(17);
    fake.device.borrow_mut().registers.insert(QUEUE_STATUS.offset, stopped.into_bits());
    let deadline = soon(&queue);
    assert!(matches!(queue.wait(deadline), Err(QueueError::Quarantined(_))));
    assert!(queue.time() >= deadline);
}

#[test]
fn a_device_that_never_looks_and_never_asks_costs_a_wait_to_its_deadline() {
    let fake = Fake::with_shadow_doorbells();
    let (_nic, mut queue) = set_up(&fake);
    fake.device.borrow_mut().shadow.blind = true;
    send(&mut queue, 3);
    let deadline = soon(&queue);
    assert_eq!(queue.drain(deadline, &mut vec![]), Err(QueueError::Deadline));
    assert!(queue.time() >= deadline && queue.time() < deadline + Time::from_milliseconds(1));
    assert_eq!(queue.wait(soon(&queue)), Ok(Wake::Deadline));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A device that writes anything for event indices, and looks at the counts or does not, never has more than a register
    /// write for each count, and the pair lives on.
    #[test]
    fn hostile_event_indices_cost_a_register_write_or_a_wait(seed in any::<u64>(), blind in any::<bool>()) {
        let fake = Fake::with_shadow_doorbells();
        let (_nic, mut queue) = set_up(&fake);
        let mut word = seed | 1;
        fake.device.borrow_mut().shadow.lies = Some(Box::new(move || {
            std::array::from_fn(|place| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Near the counts, or anything at all.
                if word >> 63 == 0 { word >> (place * 7) } else { (word >> 32) % 64 }
            })
        }));
        fake.device.borrow_mut().shadow.blind = blind;
        let (before, mut batches) = (rung(&fake), 0);
        for round in 0..40_u8 {
            let count = (round % 4 + 1).min(queue.transmit_space() as u8);
            if count != 0 {
                send(&mut queue, count);
                batches += 1;
            }
            let outcome = queue.drain(soon(&queue), &mut vec![]);
            prop_assert!(matches!(outcome, Ok(_) | Err(QueueError::Deadline)), "{outcome:?}");
            take(&mut queue);
            prop_assert!(queue.wait(soon(&queue)).is_ok());
            prop_assert!(queue.quarantine().is_none());
        }
        let after = rung(&fake);
        prop_assert!(after[0] - before[0] <= batches);
        prop_assert!(after[1] - before[1] <= 2 * 40 && after[2] - before[2] <= 40);
    }

    /// The rule of 32 bits against counts that never wrap: a doorbell is wanted if the event index is one of the counts that
    /// the host leaves behind.
    #[test]
    fn a_doorbell_is_wanted_as_with_counts_that_never_wrap(
        old in 1_u64 << 33..1 << 40,
        step in 0_u64..=1 << 31,
        apart in -(1_i64 << 31)..1 << 31,
        near in any::<bool>(),
    ) {
        let new = old + step;
        let apart = if near { apart % 8 } else { apart };
        for around in [old, new] {
            let event = around.checked_add_signed(apart).unwrap();
            let passed = old <= event && event < new;
            // An index that is 2^32 counts off is another.
            if new - event.min(new) <= 1 << 32 && event.saturating_sub(new) < 1 << 31 {
                prop_assert_eq!(doorbell_wanted(event as u32, old as u32, new as u32), passed);
            }
        }
    }
}

impl fake::Device {
    /// Whether shadow doorbells are on.
    fn register_on(&self) -> bool {
        self.registers.get(&SHADOW_DOORBELL_STATUS.offset).is_some_and(|status| status & 1 == 1)
    }
}
