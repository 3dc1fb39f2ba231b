//! 7. Whatever stands in shadow doorbells, and wherever they are, the model neither panics nor hangs.

use cryptonic_driver::{Direction, Host, Mode};
use cryptonic_hwmodel::{Parameters, World};
use cryptonic_pci::{Bar, DmaAccess, SharedMemory, Time};
use cryptonic_regs::bar0::QueueControl;
use cryptonic_regs::descriptor::{Security, TransmitSa};
use cryptonic_regs::doorbell;
use cryptonic_regs::shadow_doorbells::{EVENT_INDEX_BASE, SHADOW_DOORBELL_BASE, SHADOW_DOORBELL_CONTROL};

use crate::hostile::{LIMIT, address, assert_serves_again, descriptor_like, within};
use crate::raw::{RawQueue, control};
use crate::rig::{Chance, End, cases, esp, marked, udp};

const QUEUE: u32 = 5;
/// Where both arrays are, one behind the other.
const ARRAYS: u64 = 0x3000_0000;
const ARRAY_BYTES: usize = 4096;

/// A count near the one that is due, or far away, with anything in the reserved bits.
fn count(chance: &mut Chance, due: u32) -> u64 {
    let near = due.wrapping_add(chance.below(9) as u32).wrapping_sub(4);
    match chance.below(8) {
        0 => chance.word(),
        1 => u64::from(due.wrapping_add(1 << 31)),
        2 => u64::from(near) | chance.word() << 32,
        3 => 0,
        4 => near.into(),
        _ => due.into(),
    }
}

/// Both arrays at these addresses, and on.
fn turn_on(host: &dyn Host, counts: u64, event_indices: u64) {
    host.write32(Bar::Bar0, SHADOW_DOORBELL_CONTROL.offset, 0).expect("write");
    host.write64(Bar::Bar0, SHADOW_DOORBELL_BASE.offset, counts).expect("write");
    host.write64(Bar::Bar0, EVENT_INDEX_BASE.offset, event_indices).expect("write");
    host.write32(Bar::Bar0, SHADOW_DOORBELL_CONTROL.offset, 1).expect("write");
}

#[test]
fn random_shadow_doorbells() {
    for seed in 0..cases(30) {
        within(LIMIT, format!("shadow doorbells, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let mut parameters = Parameters::default();
            parameters.host.shadow_doorbells = true;
            let world = World::new(seed);
            let mut a = End::new(&world, &parameters);
            let sa = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
            let good = TransmitSa::new().with_index(sa.index).with_generation(sa.generation).into_bits();
            let arrays = SharedMemory::new(2 * ARRAY_BYTES).expect("memory");
            let host = world.host(a.id);
            let map = |access| host.dma_map(&arrays, ARRAYS, access).expect("map");
            map(DmaAccess::DeviceReadsAndWrites);
            let mut queue = RawQueue::new(&world, a.id, QUEUE, 32, false);
            let begin = |queue: &mut RawQueue| {
                let _ = host.dma_unmap(ARRAYS);
                map(DmaAccess::DeviceReadsAndWrites);
                arrays.zeroise(0, 2 * ARRAY_BYTES).expect("in range");
                queue.control(QueueControl::new());
                turn_on(&*host, ARRAYS, ARRAYS + ARRAY_BYTES as u64);
                queue.turn_on(false);
            };
            begin(&mut queue);
            let line = QUEUE as usize * 64;
            let frame = udp(&marked(64));
            let mut armed = 0_u32;
            for _ in 0..120 {
                for _ in 0..chance.below(6) {
                    let at = queue.frame(&frame);
                    let mut words = [
                        at,
                        control(frame.len(), Security::Sa).into_bits(),
                        good,
                        frame.len() as u64,
                        0,
                        0,
                        0,
                        0,
                    ];
                    if chance.one_in(20) {
                        words[chance.below(4) as usize] = descriptor_like(&mut chance);
                    }
                    queue.put(words);
                }
                armed = armed.wrapping_add(chance.below(2) as u32);
                for (word, due) in [queue.producer, 0, armed].into_iter().enumerate() {
                    let count = if chance.one_in(4) { count(&mut chance, due) } else { due.into() };
                    arrays.write_word_release(line + word * 8, count).expect("in range");
                }
                let page = QUEUE * doorbell::DOORBELL_PAGE_BYTES;
                match chance.below(16) {
                    0 => {
                        // Everything, the event indices and the lines of others too.
                        for offset in (0..arrays.bytes()).step_by(8) {
                            arrays.write_word(offset, chance.word()).expect("in range");
                        }
                    }
                    1 => {
                        let _ = host.dma_unmap(ARRAYS);
                        if chance.one_in(2) {
                            map(DmaAccess::DeviceReads);
                        }
                    }
                    2 => turn_on(&*host, address(&mut chance) & !0xfff, address(&mut chance)),
                    3 => host.write32(Bar::Bar0, SHADOW_DOORBELL_CONTROL.offset, 0).expect("write"),
                    4 => queue.control(QueueControl::new()),
                    5..9 => {
                        let offset = page + 4 * chance.below(3) as u32;
                        let told = count(&mut chance, queue.producer) as u32;
                        host.write32(Bar::Bar2, offset, told).expect("write");
                    }
                    _ => {}
                }
                match chance.below(4) {
                    0 => _ = world.poll_shadow_doorbells(a.id),
                    1 => _ = world.arm_shadow_doorbells(a.id),
                    2 => world.drain(),
                    _ => _ = host.wait(6, host.now() + Time::from_nanoseconds(chance.below(3_000))),
                }
                if !queue.status().enabled() {
                    begin(&mut queue);
                }
            }
            world.drain();
            assert!(!a.wire.frames().is_empty(), "seed {seed}: some of it was good");
            assert!(!a.wire.shows_marker(), "seed {seed}: clear text on the line");
            drop((queue, a.queue, a.nic));
            let _ = host.dma_unmap(ARRAYS);
            assert_serves_again(&world, a.id);
        });
    }
}
