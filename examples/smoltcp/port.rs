//! smoltcp's `Device` over a queue pair, with an SA for each direction.

use cryptonic_driver::{Protection, QueuePair, SaHandle, Status, TransmitPacket};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

const ETHERNET_BYTES: usize = 14;
/// What ESP leaves of an Ethernet payload of 1500: header and IV 16, trailer at most 5, ICV 16.
const MTU: usize = 1500 - 37;

/// A queue pair as smoltcp sees one: IP packets, protected and opened by one SA each way.
pub struct Port {
    pub queue: QueuePair,
    pub protect: SaHandle,
    pub open: SaHandle,
    /// The link header of what is sent.
    pub link: [u8; ETHERNET_BYTES],
    /// Frames that no SA opened, and packets that were not protected.
    pub refused: u64,
}

impl Device for Port {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Packet, Sender<'_>)> {
        // Without room for an answer there is no receiving.
        let completed = self.queue.completed(&mut Vec::new());
        if completed.is_err() || self.queue.transmit_space() == 0 {
            return None;
        }
        let mut received = Vec::with_capacity(1);
        self.queue.receive(&mut received, 1).ok()?;
        let received = received.pop()?;
        let mut frame = vec![0; received.length()];
        let opened = received.sa() == Some(self.open) && received.status() == Status::Ok;
        self.queue.copy_out(received, &mut frame).ok()?;
        if !opened || frame.len() < ETHERNET_BYTES {
            self.refused += 1;
            return None;
        }
        Some((Packet(frame), Sender(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        self.queue.completed(&mut Vec::new()).ok()?;
        (self.queue.transmit_space() > 0).then_some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// A received frame.
pub struct Packet(Vec<u8>);

impl RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0.get(ETHERNET_BYTES..).unwrap_or(&[]))
    }
}

/// The right to send a packet.
pub struct Sender<'a>(&'a mut Port);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        let port = self.0;
        let queue = &mut port.queue;
        // What cannot be sent is lost, and TCP sends it again.
        if let Some(mut buffer) = queue.take_buffer() {
            let filled =
                queue.fill(&mut buffer, &port.link).and_then(|()| queue.append(&mut buffer, &packet));
            let mut batch = vec![TransmitPacket::new(buffer, Protection::Sa(port.protect), 0)];
            let sent = filled.and_then(|()| queue.transmit(&mut batch));
            if let Some(unsent) = batch.pop() {
                port.refused += u64::from(sent.is_err());
                let _ = queue.give_back(unsent.buffer);
            }
        }
        result
    }
}
