//! Steering and receive DMA: a packet that counts goes to a buffer of its queue, and a completion behind it.

use cryptonic_regs::Status;
use cryptonic_regs::completion::{
    ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSecurity, ReceiveSteering,
};

use crate::events::HostWrite;
use crate::nic::Nic;
use crate::packet::{Packet, PacketPool};

const COMPLETION_BYTES: u64 = 64;

impl Nic {
    /// Gives a packet to its receive queue.
    pub(crate) fn deliver(&mut self, packet: Box<Packet>, pool: &mut PacketPool) {
        let queue = packet.received.queue;
        let Some(pair) = self.queues.get_mut(usize::from(queue)).filter(|pair| pair.running()) else {
            self.drop_received(packet, Status::QueueOff, pool);
            return;
        };
        let Some(buffer) = pair.buffers.front() else {
            let descriptors_coming = pair.receive.producer != pair.receive.consumer;
            if descriptors_coming && pair.waiting.len() < WAITING_MAX {
                pair.waiting.push_back(packet);
                self.fetch_receive(queue);
            } else {
                self.drop_received(packet, Status::NoBuffer, pool);
            }
            return;
        };
        if packet.bytes() > u64::from(buffer.control.length()) {
            self.drop_received(packet, Status::TooBig, pool);
            return;
        }
        let buffer = *buffer;
        if self.memory.writable(buffer.address, packet.bytes()).is_err() {
            self.drop_received(packet, Status::ReceiveDmaFault, pool);
            self.quarantine(queue, Status::ReceiveDmaFault);
            return;
        }
        let pair = &mut self.queues[usize::from(queue)];
        pair.buffers.pop_front();
        pair.receive.consumer = pair.receive.consumer.wrapping_add(1);
        let (completion, phase) = pair.receive_completions.next();
        let epoch = pair.epoch;
        if self.memory.writable(completion, COMPLETION_BYTES).is_err() {
            self.drop_received(packet, Status::RingDmaFault, pool);
            self.quarantine(queue, Status::RingDmaFault);
            return;
        }
        let frame = self.pcie.write(self.now, packet.bytes());
        let written = self.pcie.write(frame.left, COMPLETION_BYTES);
        self.receive.buffer.release(frame.left, packet.buffer_bytes);
        self.count(Status::Ok);
        let words = completion_words(&packet, &buffer, phase);
        self.events.host_writes.push(
            written.visible,
            HostWrite::Receive { queue, epoch, buffer: buffer.address, completion, words, packet },
        );
        self.fetch_receive(queue);
    }
}

/// Packets that may wait for a receive descriptor on its way.
const WAITING_MAX: usize = 1024;

fn completion_words(
    packet: &Packet,
    buffer: &cryptonic_regs::descriptor::ReceiveDescriptor,
    phase: bool,
) -> [u64; 8] {
    let received = &packet.received;
    ReceiveCompletion {
        completed: ReceiveCompleted::new()
            .with_length(packet.bytes() as u16)
            .with_tag(buffer.control.tag())
            .with_tag_generation(buffer.control.tag_generation())
            .with_sa_index(received.sa_index),
        security: ReceiveSecurity::new().with_spi(received.spi).with_cookie(received.cookie),
        sequence: received.sequence,
        iv: received.iv,
        time_picoseconds: packet.arrived_at.picoseconds(),
        steering: ReceiveSteering::new()
            .with_protocol(packet.protocol.number() as u8)
            .with_psp_version(received.psp_version)
            .with_psp_sample(received.psp_sample)
            .with_psp_drop(received.psp_drop)
            .with_psp_device_key(received.psp_device_key),
        sa_generation: u64::from(received.sa_generation),
        end: ReceiveCompletionEnd::new().with_status(packet.status.number() as u16).with_phase(phase),
    }
    .to_words()
}
