//! Descriptor fetch and prefetch: reads of the transmit and receive rings, queue pairs in turn.

use cryptonic_regs::Status;
use cryptonic_regs::descriptor::ReceiveDescriptor;

use crate::events::Descriptors;
use crate::nic::Nic;
use crate::packet::PacketPool;
use crate::queue::QueuePair;
use crate::transmit_frames::Slot;

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
            self.events.seldom.change(|queues| {
                queues.transmit_descriptors.push(done, Descriptors { queue, epoch: pair.epoch, first, count })
            });
        }
    }

    /// Transmit descriptors are here: makes frames of them and lines those up for gathering.
    pub(crate) fn transmit_descriptors_arrived(&mut self, descriptors: Descriptors) {
        let Descriptors { queue, epoch, first, count } = descriptors;
        for index in (0..count).map(|offset| first.wrapping_add(offset)) {
            if self.queue_epoch(queue) != Some(epoch) {
                return;
            }
            let pair = &mut self.queues[usize::from(queue)];
            pair.arrived = index.wrapping_add(1);
            let slot = Slot::Memory(pair.transmit.slot(index));
            if let Err(cause) = self.take_descriptor(queue, index, slot) {
                self.quarantine(queue, cause);
                return;
            }
        }
        self.gather();
    }

    /// Asks for receive descriptors when half of the store has been used.
    #[inline]
    pub(crate) fn fetch_receive(&mut self, queue: u16) {
        let Some(pair) = self.queues.get(usize::from(queue)).filter(|pair| pair.running()) else { return };
        let limit = self.receive_prefetch(pair);
        if outstanding(pair) <= limit / 2 && pair.receive.unfetched() != 0 {
            self.fetch_receive_up_to(queue, limit);
        }
    }

    /// Most receive descriptors to keep ready: never fewer than a scattered frame may need.
    #[inline]
    fn receive_prefetch(&self, pair: &QueuePair) -> u32 {
        let knobs = &self.parameters.descriptors;
        let (prefetch, chain) = (knobs.receive_prefetch as u32, knobs.receive_chain as u32);
        if pair.control.receive_scatter() { prefetch.max(2 * chain) } else { prefetch }
    }

    // On its own, so that the look at most packets does not pay for it.
    #[inline(never)]
    fn fetch_receive_up_to(&mut self, queue: u16, limit: u32) {
        let batch = self.parameters.descriptors.receive_fetch as u32;
        let pair = &mut self.queues[usize::from(queue)];
        loop {
            let unfetched = pair.receive.unfetched();
            let room = limit.saturating_sub(outstanding(pair));
            let count = unfetched.min(batch).min(room);
            if count == 0 {
                return;
            }
            let count = count.min(pair.receive.slots_to_end(pair.receive.fetched));
            let first = pair.receive.fetched;
            pair.receive.fetched = first.wrapping_add(count);
            let done = self.pcie.read(self.now, u64::from(count * pair.receive.stride));
            self.events.seldom.change(|queues| {
                queues.receive_descriptors.push(done, Descriptors { queue, epoch: pair.epoch, first, count })
            });
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
        self.serve_waiting(queue, pool);
    }

    /// Forgets what a queue pair that is being turned off holds: packets that wait for a receive descriptor, completions
    /// that wait for others, the frame whose last descriptor is not here.
    pub(crate) fn forget_held(&mut self, queue: u16) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        let waiting = std::mem::take(&mut pair.waiting);
        let held = std::mem::take(&mut pair.held);
        if let Some(assembly) = pair.assembly.take() {
            self.end_frame(assembly.frame);
        }
        for write in held {
            self.forget_write(write);
        }
        for packet in waiting {
            self.count_drop(Status::QueueOff);
            self.receive.buffer.release(self.now, packet.buffer_bytes);
        }
    }

    /// Stops a queue pair; what it held is forgotten.
    pub(crate) fn quarantine(&mut self, queue: u16, cause: Status) {
        self.count(cause);
        self.forget_held(queue);
        if let Some(pair) = self.queues.get_mut(usize::from(queue)) {
            pair.quarantine(cause);
            self.transmit.prefetched[usize::from(queue)] = 0;
        }
    }
}

/// Receive descriptors that were asked for and are not used up.
#[inline]
fn outstanding(pair: &QueuePair) -> u32 {
    pair.receive.fetched.wrapping_sub(pair.receive.consumer)
}
