//! Descriptor fetch and prefetch: reads of the transmit and receive rings, queue pairs in turn.

use cryptonic_regs::Status;
use cryptonic_regs::descriptor::{ReceiveDescriptor, Security, TransmitControl, TransmitDescriptor};

use crate::events::{Descriptors, Pending};
use crate::nic::Nic;
use crate::packet::PacketPool;

/// Bytes of a transmit slot without key words.
const BASE_STRIDE_BYTES: u32 = 32;

impl Nic {
    /// Asks for transmit descriptors as far as prefetch allows, while packets may pass.
    pub(crate) fn fetch_transmit(&mut self) {
        if !self.enabled() {
            return;
        }
        let (batch, limit) = (
            self.parameters.descriptors.transmit_fetch as u32,
            self.parameters.descriptors.transmit_prefetch as u32,
        );
        // Queue pairs in turn, from the one after the last that was served; those that cannot be are left out.
        let mut left = self.transmit.announced;
        while left != 0 {
            let turn = u32::from(self.transmit.turn);
            let queue = ((left.rotate_right(turn).trailing_zeros() + turn) % u64::BITS) as u16;
            let bit = 1 << queue;
            let pair = &mut self.queues[usize::from(queue)];
            let prefetched = &mut self.transmit.prefetched[usize::from(queue)];
            let wanted = if pair.running() { pair.transmit.unfetched() } else { 0 };
            let burst = wanted.min(batch).min(limit);
            if burst == 0 {
                self.transmit.announced &= !bit;
                left &= !bit;
                continue;
            }
            // A read waits until there is room for all that it could fetch: reads of single descriptors
            // would take half as many bytes again.
            if burst > limit.saturating_sub(*prefetched) {
                left &= !bit;
                continue;
            }
            let count = burst.min(pair.transmit.slots_to_end(pair.transmit.fetched));
            self.transmit.turn = (queue + 1) % u64::BITS as u16;
            left = self.transmit.announced;
            let first = pair.transmit.fetched;
            pair.transmit.fetched = first.wrapping_add(count);
            *prefetched += count;
            let done = self.pcie.read(self.now, u64::from(count * pair.transmit.stride));
            self.events
                .transmit_descriptors
                .push(done, Descriptors { queue, epoch: pair.epoch, first, count });
        }
    }

    /// Transmit descriptors are here: checks them and lines them up for gathering.
    pub(crate) fn transmit_descriptors_arrived(&mut self, descriptors: Descriptors) {
        let Descriptors { queue, epoch, first, count } = descriptors;
        for index in (0..count).map(|offset| first.wrapping_add(offset)) {
            if self.queue_epoch(queue) != Some(epoch) {
                return;
            }
            let pair = &mut self.queues[usize::from(queue)];
            let mut words = [0; 4];
            let address = pair.transmit.slot(index);
            let accepted_at = pair.accepted_at(index);
            let with_key = pair.transmit.stride > BASE_STRIDE_BYTES;
            if self.memory.read_words(address, &mut words).is_err() {
                self.quarantine(queue, Status::RingDmaFault);
                return;
            }
            let fault = check(&words, with_key, self.parameters.capacity.frame_bytes);
            let has_key = TransmitControl::from(words[1]).security() == Security::PspKey.number() as u8;
            let key = (has_key && fault == Status::Ok).then(|| self.transmit.keys.take());
            if let Some(words) = key.and_then(|key| self.transmit.keys.words(key))
                && self.memory.read_words(address + u64::from(BASE_STRIDE_BYTES), words).is_err()
            {
                self.end_descriptor_key(key);
                self.quarantine(queue, Status::RingDmaFault);
                return;
            }
            self.transmit.pending.push_back(Pending { queue, epoch, words, key, accepted_at, fault });
        }
        self.gather();
    }

    /// Asks for receive descriptors when half of the store has been used.
    pub(crate) fn fetch_receive(&mut self, queue: u16) {
        let (batch, limit) = (
            self.parameters.descriptors.receive_fetch as u32,
            self.parameters.descriptors.receive_prefetch as u32,
        );
        let Some(pair) = self.queues.get_mut(usize::from(queue)).filter(|pair| pair.running()) else {
            return;
        };
        let outstanding =
            |pair: &crate::queue::QueuePair| pair.receive.fetched.wrapping_sub(pair.receive.consumer);
        if outstanding(pair) > limit / 2 {
            return;
        }
        loop {
            let unfetched = pair.receive.unfetched();
            let room = limit.saturating_sub(outstanding(pair));
            let count = unfetched.min(batch).min(room);
            let count =
                if count == 0 { 0 } else { count.min(pair.receive.slots_to_end(pair.receive.fetched)) };
            if count == 0 {
                return;
            }
            let first = pair.receive.fetched;
            pair.receive.fetched = first.wrapping_add(count);
            let done = self.pcie.read(self.now, u64::from(count * pair.receive.stride));
            self.events
                .receive_descriptors
                .push(done, Descriptors { queue, epoch: pair.epoch, first, count });
        }
    }

    /// Receive descriptors are here: packets that wait for one go on.
    pub(crate) fn receive_descriptors_arrived(&mut self, descriptors: Descriptors, pool: &mut PacketPool) {
        let Descriptors { queue, epoch, first, count } = descriptors;
        if self.queue_epoch(queue) != Some(epoch) {
            return;
        }
        for index in (0..count).map(|offset| first.wrapping_add(offset)) {
            let pair = &mut self.queues[usize::from(queue)];
            let mut words = [0; 2];
            if self.memory.read_words(pair.receive.slot(index), &mut words).is_err() {
                self.quarantine(queue, Status::RingDmaFault);
                return;
            }
            pair.buffers.push_back(ReceiveDescriptor::of_words(&words));
        }
        while let Some(pair) = self.queues.get_mut(usize::from(queue))
            && !pair.buffers.is_empty()
            && let Some(packet) = pair.waiting.pop_front()
        {
            self.deliver(packet, pool);
        }
    }

    /// Drops the packets that wait for a receive descriptor of a queue pair that is being turned off.
    pub(crate) fn forget_waiting(&mut self, queue: u16) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        for packet in std::mem::take(&mut pair.waiting) {
            self.count(Status::QueueOff);
            if let Some(drops) = &mut self.drops {
                drops.push(Status::QueueOff);
            }
            self.receive.buffer.release(self.now, packet.buffer_bytes);
        }
    }

    /// Stops a queue pair; what it held is forgotten.
    pub(crate) fn quarantine(&mut self, queue: u16, cause: Status) {
        self.count(cause);
        self.forget_waiting(queue);
        if let Some(pair) = self.queues.get_mut(usize::from(queue)) {
            pair.quarantine(cause);
            self.transmit.prefetched[usize::from(queue)] = 0;
        }
    }
}

/// What is wrong with a transmit descriptor, or `Ok`.
fn check(words: &[u64; 4], with_key: bool, frame_bytes: u64) -> Status {
    let TransmitDescriptor { control, extent, .. } = TransmitDescriptor::of_words(words);
    let security_known = match Security::of_number(u32::from(control.security())) {
        Some(Security::Clear | Security::Sa) => true,
        Some(Security::PspKey) => with_key,
        None => false,
    };
    // One descriptor a frame, all of it at its address: the other forms are not built yet.
    let whole = u32::from(control.length()) == extent.total_length();
    let plain = extent.into_bits() >> 18 == 0;
    if !security_known || !control.end_of_packet() || control.length() == 0 || !whole || !plain {
        Status::BadDescriptor
    } else if u64::from(control.length()) > frame_bytes {
        Status::TooLong
    } else {
        Status::Ok
    }
}
