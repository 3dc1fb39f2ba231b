//! Instructions that the driver spends on a packet over vfio-pci, as the guest's clock has them: QEMU lets an instruction take a
//! nanosecond of that clock (`-icount shift=0`), and what the device does in the meantime takes none.

use std::time::{Duration, Instant};

use cryptonic::device::DeviceName;
use cryptonic_driver::{Protection, QueuePairOptions, TransmitPacket};

use super::rig::Rig;
use super::stage;

pub const STAGES: &[&str] = &["the cost of a packet"];

const BURST: usize = 32;
const BURSTS: usize = 200;
/// In which the device does a burst, and the driver nothing.
const REST: Duration = Duration::from_millis(5);

pub fn run(device: &DeviceName) {
    for name in STAGES {
        stage(name, || cost(device));
    }
}

fn cost(device: &DeviceName) {
    for shadow_doorbells in [false, true] {
        let mut rig = Rig::with(device, QueuePairOptions::new(), shadow_doorbells);
        let mut costs: Vec<u128> = (0..BURSTS).map(|_| burst(&mut rig)).collect();
        costs.sort_unstable();
        let doorbells = if shadow_doorbells { "in host memory" } else { "in registers" };
        println!(
            "FIGURE instructions a packet, bursts of {BURST}, doorbells {doorbells}: {}",
            costs[BURSTS / 2] / BURST as u128
        );
        rig.close();
    }
}

/// What the same calls take that `driver/examples/instructions.rs` counts, for one burst in clear; the median of many is without the
/// guest's own interrupts.
fn burst(rig: &mut Rig) -> u128 {
    let (mut batch, mut done, mut received) = (vec![], Vec::with_capacity(BURST), Vec::with_capacity(BURST));
    batch.reserve(BURST);
    let queue = &mut rig.queue;
    let begun = Instant::now();
    for cookie in 0..BURST as u64 {
        let buffer = queue.take_buffer().expect("a buffer");
        batch.push(TransmitPacket::new(buffer, Protection::Clear, cookie));
    }
    let mut spent = begun.elapsed();
    for packet in &mut batch {
        queue.fill(&mut packet.buffer, &[0x5a; 60]).expect("it fits");
    }
    let begun = Instant::now();
    let sent = queue.transmit(&mut batch).expect("transmitted");
    spent += begun.elapsed();
    std::thread::sleep(REST);
    let begun = Instant::now();
    let ended = queue.completed(&mut done).expect("completed");
    let arrived = queue.receive(&mut received, BURST).expect("received");
    queue.return_buffers(&mut received).expect("they go back");
    spent += begun.elapsed();
    assert_eq!((sent, ended, arrived), (BURST, BURST, BURST));
    spent.as_nanos()
}
