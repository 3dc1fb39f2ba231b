//! A forwarder on the driver's API: frames come in clear, go out again through an ESP tunnel.
//!
//! `cargo run --example forwarder -- [--device model]`. On the model, which has nobody at the other end of its
//! cable, a few frames are put on the wire first and what leaves is counted.

use std::error::Error;

use cryptonic::device::{self, DeviceName};
use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OuterHeader, Protection, QueuePair, QueuePairOptions, SaConfiguration,
    SaHandle, SecretKey, Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::Parameters;

/// Frames taken at a time.
const BURST: usize = 32;
/// How long to sleep on an idle port.
const IDLE: Time = Time::from_milliseconds(1);
/// What is put on the wire of a model.
const FRAMES: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name: DeviceName = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => DeviceName::Model,
        (Some("--device"), Some(name)) => name.parse()?,
        _ => return Err("usage: forwarder [--device model]".into()),
    };
    let opened = device::open(&name, &Parameters::default(), 1)?;
    let mut nic = opened.nic;
    println!("{}", nic.information());

    let queue = nic.create_queue_pair(QueuePairOptions::default())?;
    let tunnel = install(&mut nic)?;
    let mut forwarder = Forwarder { queue, tunnel, frame: vec![0; 2048], forwarded: 0, refused: 0 };

    if let Some(wire) = &opened.wire {
        // A model forwards what we put on its wire, and ends.
        let mut sent = 0;
        for index in 0..FRAMES {
            wire.inject(&clear_frame(index));
            wire.settle();
            forwarder.burst()?;
            wire.settle();
            sent += wire.take_sent().len();
        }
        println!(
            "{FRAMES} frames in, {} forwarded, {} refused, {sent} on the wire",
            forwarder.forwarded, forwarder.refused
        );
        return Ok(());
    }
    loop {
        forwarder.burst()?;
        let deadline = forwarder.queue.time() + IDLE;
        forwarder.queue.wait(deadline)?;
    }
}

/// An ESP tunnel with a key that nobody must use for anything else.
fn install(nic: &mut Nic) -> Result<SaHandle, Box<dyn Error>> {
    let key = SecretKey::new(&[0x42; 16]).ok_or("16 bytes are a key")?;
    Ok(nic.install_sa(SaConfiguration {
        esn: true,
        outer: Some(OuterHeader::new("192.0.2.1".parse()?, "192.0.2.2".parse()?)),
        ..SaConfiguration::new(Direction::Out, Mode::Tunnel, Cipher::AesGcm128, key, [1, 2, 3, 4], 0x1001)
    })?)
}

struct Forwarder {
    queue: QueuePair,
    tunnel: SaHandle,
    frame: Vec<u8>,
    forwarded: u64,
    refused: u64,
}

impl Forwarder {
    /// Takes what has arrived, and sends it back through the tunnel.
    fn burst(&mut self) -> Result<(), Box<dyn Error>> {
        let Forwarder { queue, tunnel, frame, .. } = self;
        let (mut received, mut batch, mut done) = (Vec::new(), Vec::new(), Vec::new());
        queue.receive(&mut received, BURST)?;
        for packet in received {
            let bytes = packet.length();
            let good = packet.status() == Status::Ok;
            queue.copy_out(packet, frame)?;
            let Some(mut buffer) = queue.take_buffer().filter(|_| good) else { continue };
            let (to, from) = frame.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
            queue.fill(&mut buffer, &frame[..bytes])?;
            batch.push(TransmitPacket {
                report: true,
                ..TransmitPacket::new(buffer, Protection::Sa(*tunnel), 0)
            });
        }
        while !batch.is_empty() {
            queue.transmit(&mut batch)?;
            queue.drain(queue.time() + IDLE, &mut done)?;
        }
        for ended in done {
            if ended.status == Status::Ok {
                self.forwarded += u64::from(ended.packets);
            } else {
                self.forwarded += u64::from(ended.packets - 1);
                self.refused += 1;
            }
        }
        Ok(())
    }
}

/// An Ethernet frame with UDP over IPv4; every hundredth is not IP, which a tunnel cannot take.
fn clear_frame(index: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64)
        .udp(4_000, 5_000);
    let mut frame = Vec::new();
    // A vector takes everything.
    let _ = builder.write(&mut frame, &[index as u8; 100]);
    if index % 100 == 99 {
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
    }
    frame
}
