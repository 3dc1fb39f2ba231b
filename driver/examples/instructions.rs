//! Counts the instructions that the driver spends on a packet: one transmission, its completion, one
//! reception and the return of its buffer, in bursts of 32, with every check on and the device left out.
//!
//! ```text
//! cargo build --release -p cryptonic-driver --example instructions
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
//!     --toggle-collect='instructions::measured_*' target/release/examples/instructions 1000
//! ```
//!
//! The figure is `Collected` divided by the number of packets that this program prints.

#[path = "../tests/fake/mod.rs"]
mod fake;

use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OpenOptions, Protection, QueueError, QueuePair, QueuePairOptions, Received,
    SaConfiguration, SaHandle, SecretKey, TransmitPacket, Transmitted,
};

const BURST: usize = 32;

#[inline(never)]
fn measured_transmit(queue: &mut QueuePair, batch: &mut Vec<TransmitPacket>) -> Result<usize, QueueError> {
    queue.transmit(batch)
}

#[inline(never)]
fn measured_completed(queue: &mut QueuePair, done: &mut Vec<Transmitted>) -> Result<usize, QueueError> {
    queue.completed(done)
}

#[inline(never)]
fn measured_receive(queue: &mut QueuePair, received: &mut Vec<Received>) -> Result<usize, QueueError> {
    queue.receive(received, BURST)
}

#[inline(never)]
fn measured_return(queue: &mut QueuePair, received: &mut Vec<Received>) -> Result<(), QueueError> {
    queue.return_buffers(received)
}

#[inline(never)]
fn measured_prepare(queue: &mut QueuePair, batch: &mut Vec<TransmitPacket>, sa: SaHandle, first: u64) {
    for cookie in first..first + BURST as u64 {
        let Some(buffer) = queue.take_buffer() else { return };
        batch.push(TransmitPacket::new(buffer, Protection::Sa(sa), cookie));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bursts: u64 = std::env::args().nth(1).map_or(Ok(1_000), |count| count.parse())?;
    let fake = fake::Fake::new();
    let mut nic = Nic::open(fake.host(), OpenOptions::default())?;
    let sa = nic.install_sa(SaConfiguration {
        esn: true,
        replay_window: 0,
        ..SaConfiguration::new(
            Direction::Out,
            Mode::Transport,
            Cipher::AesGcm128,
            SecretKey::new(&[7; 16]).ok_or("key")?,
            [1, 2, 3, 4],
            0x1001,
        )
    })?;
    let mut queue = nic.create_queue_pair(QueuePairOptions::default())?;
    let mut batch = Vec::with_capacity(BURST);
    let mut done = Vec::with_capacity(BURST);
    let mut received = Vec::with_capacity(BURST);
    let mut packets = 0;
    for burst in 0..bursts {
        measured_prepare(&mut queue, &mut batch, sa, burst * BURST as u64);
        for packet in &mut batch {
            queue.fill(&mut packet.buffer, &[0x5a; 60])?;
        }
        let sent = measured_transmit(&mut queue, &mut batch)?;
        queue.relax();
        let ended = measured_completed(&mut queue, &mut done)?;
        done.clear();
        let arrived = measured_receive(&mut queue, &mut received)?;
        measured_return(&mut queue, &mut received)?;
        if sent != BURST || ended != BURST || arrived != BURST {
            return Err(format!("burst {burst}: {sent} sent, {ended} ended, {arrived} received").into());
        }
        packets += BURST;
    }
    println!("{packets} packets sent, completed and received");
    queue.close()?;
    nic.close()?;
    Ok(())
}
