//! Steering and receive DMA: a packet that counts goes to a buffer of its queue pair, or over several, and its
//! completions behind it.

use cryptonic_regs::Status;
use cryptonic_regs::completion::{
    ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSecurity, ReceiveSteering,
};
use cryptonic_regs::descriptor::ReceiveDescriptor;

use crate::events::HostWrite;
use crate::frame_parts::{Piece, ScatteredBuffer};
use crate::nic::Nic;
use crate::packet::{Landing, Packet, PacketPool, Purpose};
use crate::queue::QueuePair;

/// Bytes of a receive completion.
pub(crate) const COMPLETION_BYTES: u64 = ReceiveCompletion::BYTES as u64;
/// Packets that may wait for receive descriptors on their way.
const WAITING_MAX: usize = 1024;

/// What of a queue pair's buffers a frame takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// So many, all at hand.
    Buffers(usize),
    /// More than are at hand.
    TooFew,
    /// It fits into none, or into no number that is allowed.
    TooBig,
}

impl Nic {
    /// Gives a packet to its receive queue.
    pub(crate) fn deliver(&mut self, packet: Box<Packet>, pool: &mut PacketPool) {
        let queue = packet.received.queue;
        let chain = self.parameters.descriptors.receive_chain as usize;
        let Some(pair) = self.queues.get_mut(usize::from(queue)).filter(|pair| pair.running()) else {
            self.drop_received(packet, Status::QueueOff, pool);
            return;
        };
        // Packets of a queue keep their order: behind one that waits, all wait.
        let fit = if pair.waiting.is_empty() { fit(pair, packet.bytes(), chain) } else { Fit::TooFew };
        if fit != Fit::TooFew {
            self.place(packet, fit, pool);
        } else if descriptors_coming(pair) && pair.waiting.len() < WAITING_MAX {
            pair.waiting.push_back(packet);
            self.fetch_receive(queue);
        } else {
            self.drop_received(packet, Status::NoBuffer, pool);
        }
    }

    /// Gives a copy, or a packet that is captured, to its queue if there are buffers for it at hand; else it is dropped. Says
    /// whether there were. It never waits: a packet that the host is owed does not stand behind it.
    pub(crate) fn deliver_beside(&mut self, packet: Box<Packet>, pool: &mut PacketPool) -> bool {
        let chain = self.parameters.descriptors.receive_chain as usize;
        let pair = self.queues.get(usize::from(packet.received.queue)).filter(|pair| pair.running());
        let fit = match pair {
            Some(pair) if pair.waiting.is_empty() => fit(pair, packet.bytes(), chain),
            _ => Fit::TooFew,
        };
        self.place(packet, fit, pool);
        matches!(fit, Fit::Buffers(_))
    }

    /// Receive descriptors are here: packets that wait for them go on.
    pub(crate) fn serve_waiting(&mut self, queue: u16, pool: &mut PacketPool) {
        let chain = self.parameters.descriptors.receive_chain as usize;
        while let Some(pair) = self.queues.get_mut(usize::from(queue)).filter(|pair| pair.running())
            && let Some(packet) = pair.waiting.front()
        {
            let fit = fit(pair, packet.bytes(), chain);
            if fit == Fit::TooFew && descriptors_coming(pair) {
                return;
            }
            if let Some(packet) = pair.waiting.pop_front() {
                self.place(packet, fit, pool);
            }
        }
    }

    /// Writes a packet to host memory, or drops it.
    #[inline(always)]
    fn place(&mut self, packet: Box<Packet>, fit: Fit, pool: &mut PacketPool) {
        match fit {
            Fit::Buffers(1) => self.place_whole(packet, pool),
            Fit::Buffers(count) => self.place_scattered(packet, count, pool),
            Fit::TooFew => self.drop_received(packet, Status::NoBuffer, pool),
            Fit::TooBig => self.drop_received(packet, Status::TooBig, pool),
        }
    }

    #[inline]
    fn place_whole(&mut self, mut packet: Box<Packet>, pool: &mut PacketPool) {
        let queue = packet.received.queue;
        let pair = &mut self.queues[usize::from(queue)];
        let Some(buffer) = pair.buffers.pop_front() else {
            self.drop_received(packet, Status::NoBuffer, pool);
            return;
        };
        if self.memory.writable(buffer.address, packet.bytes()).is_err() {
            self.drop_received(packet, Status::ReceiveDmaFault, pool);
            self.quarantine(queue, Status::ReceiveDmaFault);
            return;
        }
        pair.receive.consumer = pair.receive.consumer.wrapping_add(1);
        let (completion, phase) = pair.receive_completions.next();
        let epoch = pair.epoch;
        if self.memory.writable(completion, COMPLETION_BYTES).is_err() {
            self.drop_received(packet, Status::RingDmaFault, pool);
            self.quarantine(queue, Status::RingDmaFault);
            return;
        }
        let frame = self.pcie.write(self.now, packet.bytes());
        self.receive.buffer.release(frame.left, packet.buffer_bytes);
        self.count_placed(&packet);
        let words = completion_words(
            &packet,
            &buffer,
            packet.bytes() as u16,
            phase,
            self.picoseconds(packet.arrived_at),
        );
        packet.landing = Landing { buffer: buffer.address, completion, words };
        self.complete(queue, HostWrite::Receive { queue, epoch, packet }, 1);
        self.fetch_receive(queue);
    }

    fn place_scattered(&mut self, packet: Box<Packet>, count: usize, pool: &mut PacketPool) {
        let queue = packet.received.queue;
        let arrived_picoseconds = self.picoseconds(packet.arrived_at);
        let pair = &mut self.queues[usize::from(queue)];
        let epoch = pair.epoch;
        let place = self.receive.scattered.take();
        let Some(buffers) = self.receive.scattered.at_mut(place) else { return };
        buffers.clear();
        let mut left = packet.bytes();
        for buffer in pair.buffers.drain(..count.min(pair.buffers.len())) {
            let bytes = left.min(buffer.control.length().into()) as u16;
            left -= u64::from(bytes);
            let (completion, phase) = pair.receive_completions.next();
            let words = if left == 0 {
                completion_words(&packet, &buffer, bytes, phase, arrived_picoseconds)
            } else {
                part_words(&packet, &buffer, bytes, phase)
            };
            buffers.push(ScatteredBuffer {
                piece: Piece { address: buffer.address, bytes },
                completion,
                words,
            });
        }
        pair.receive.consumer = pair.receive.consumer.wrapping_add(count as u32);
        let writable = |buffer: &ScatteredBuffer| {
            if self.memory.writable(buffer.piece.address, buffer.piece.bytes.into()).is_err() {
                Err(Status::ReceiveDmaFault)
            } else if self.memory.writable(buffer.completion, COMPLETION_BYTES).is_err() {
                Err(Status::RingDmaFault)
            } else {
                Ok(())
            }
        };
        if let Err(fault) = buffers.iter().try_for_each(writable) {
            self.receive.scattered.give(Some(place));
            self.drop_received(packet, fault, pool);
            self.quarantine(queue, fault);
            return;
        }
        let mut left_at = self.now;
        for buffer in buffers.iter().filter(|buffer| buffer.piece.bytes != 0) {
            left_at = self.pcie.write(self.now, buffer.piece.bytes.into()).left;
        }
        self.receive.buffer.release(left_at, packet.buffer_bytes);
        self.count_placed(&packet);
        let write = HostWrite::Scattered { queue, epoch, buffers: place, packet };
        self.complete(queue, write, count as u32);
        self.fetch_receive(queue);
    }

    /// Counts a packet that has its buffers.
    #[inline]
    fn count_placed(&mut self, packet: &Packet) {
        match packet.purpose {
            Purpose::Delivery => self.count(Status::Ok),
            Purpose::Capture => self.count_drop(packet.status),
            Purpose::Copy => {}
        }
    }

    /// The bytes of a scattered frame and its completions reach host memory. Says whether all of them could.
    pub(crate) fn land_scattered(&mut self, place: u32, packet: &Packet) -> bool {
        let mut landed = true;
        let mut rest = packet.frame();
        for buffer in self.receive.scattered.at(place).into_iter().flatten() {
            let Some((bytes, behind)) = rest.split_at_checked(buffer.piece.bytes.into()) else {
                return false;
            };
            rest = behind;
            landed = landed
                && self.memory.write(buffer.piece.address, bytes).is_ok()
                && self.memory.write_words(buffer.completion, &buffer.words).is_ok();
        }
        landed
    }
}

/// Whether descriptors that the host has produced are not at hand yet.
fn descriptors_coming(pair: &QueuePair) -> bool {
    pair.receive.producer.wrapping_sub(pair.receive.consumer) as usize > pair.buffers.len()
}

/// What a frame takes of the buffers at hand, `chain` of them at most.
#[inline]
fn fit(pair: &QueuePair, frame_bytes: u64, chain: usize) -> Fit {
    let Some(first) = pair.buffers.front() else { return Fit::TooFew };
    if frame_bytes <= u64::from(first.control.length()) {
        return Fit::Buffers(1);
    }
    if !pair.control.receive_scatter() {
        return Fit::TooBig;
    }
    let mut room = 0;
    for (index, buffer) in pair.buffers.iter().take(chain).enumerate() {
        room += u64::from(buffer.control.length());
        if room >= frame_bytes {
            return Fit::Buffers(index + 1);
        }
    }
    if pair.buffers.len() >= chain { Fit::TooBig } else { Fit::TooFew }
}

/// The completion of the last buffer of a frame, which says all that is known.
#[inline(always)]
fn completion_words(
    packet: &Packet,
    buffer: &ReceiveDescriptor,
    bytes: u16,
    phase: bool,
    arrived_picoseconds: u64,
) -> [u64; 8] {
    let received = &packet.received;
    ReceiveCompletion {
        completed: completed(buffer, bytes).with_sa_index(received.sa_index),
        security: ReceiveSecurity::new().with_spi(received.spi).with_cookie(received.cookie),
        sequence: received.sequence,
        iv: received.iv,
        time_picoseconds: arrived_picoseconds,
        steering: ReceiveSteering::new()
            .with_hash(received.hash)
            .with_hash_kind(received.hash_kind)
            .with_protocol(packet.protocol.number() as u8)
            .with_psp_version(received.psp_version)
            .with_psp_sample(received.psp_sample)
            .with_psp_drop(received.psp_drop)
            .with_psp_device_key(received.psp_device_key)
            .with_psp_cookie(received.psp_cookie)
            .with_ip_checksum(received.checksums.ip)
            .with_l4_checksum(received.checksums.l4)
            .with_outer_checksum(received.checksums.outer),
        sa_generation: u64::from(received.sa_generation),
        end: ReceiveCompletionEnd::new()
            .with_status(packet.status.number() as u16)
            .with_next_header(received.next_header)
            .with_copy(packet.purpose != Purpose::Delivery)
            .with_phase(phase),
    }
    .to_words()
}

/// The completion of a buffer that the frame goes on behind.
fn part_words(packet: &Packet, buffer: &ReceiveDescriptor, bytes: u16, phase: bool) -> [u64; 8] {
    ReceiveCompletion {
        completed: completed(buffer, bytes),
        end: ReceiveCompletionEnd::new()
            .with_status(packet.status.number() as u16)
            .with_more(true)
            .with_phase(phase),
        ..ReceiveCompletion::default()
    }
    .to_words()
}

fn completed(buffer: &ReceiveDescriptor, bytes: u16) -> ReceiveCompleted {
    ReceiveCompleted::new()
        .with_length(bytes)
        .with_tag(buffer.control.tag())
        .with_tag_generation(buffer.control.tag_generation())
}
