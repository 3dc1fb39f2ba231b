//! Completions that wait for one another, and interrupts that wait for completions.
//!
//! ```text
//!   receive completions:  held ──▶ as many as asked for, or a time after the first, or the ring's end ──▶ one write
//!   interrupt (if armed): first completion ──▶ as many as asked for, or a time after the first ──▶ message
//! ```
//!
//! Each queue pair has one timer for either. One that fires for something that has gone meanwhile looks when the
//! first of what is there now came, and is set anew.

use crate::Ticks;
use cryptonic_regs::bar0::{CompletionCoalescing, InterruptModeration};

use crate::events::{HostWrite, QueueTimer};
use crate::nic::Nic;
use crate::steering::COMPLETION_BYTES;

/// Most completions that are written together.
const COMPLETIONS_MAX: u8 = 8;

impl Nic {
    /// Receive completions of one packet, `count` of them, go to the host: now, or with others.
    #[inline(always)]
    pub(crate) fn complete(&mut self, queue: u16, write: HostWrite, count: u32) {
        let pair = &mut self.queues[usize::from(queue)];
        let (most, hold) = held(pair.coalescing);
        if most <= 1 && count == 1 {
            let written = self.pcie.write(self.now, COMPLETION_BYTES);
            self.events.host_writes.push(written.visible, write);
            return;
        }
        let before = pair.receive_completions.producer.wrapping_sub(count);
        let to_end = pair.receive_completions.slots_to_end(before);
        pair.held.push(write);
        if pair.hold.count == 0 {
            pair.hold.since = self.now;
        }
        pair.hold.count += count;
        if pair.hold.count >= most || count >= to_end {
            self.flush_completions(queue);
        } else if !pair.hold.timer {
            pair.hold.timer = true;
            self.events.seldom.change(|queues| {
                queues.completion_holds.push(self.now + hold, QueueTimer { queue, epoch: pair.epoch })
            });
        }
    }

    /// Writes what is held: one write, or two where a scattered frame goes past the end of the ring.
    pub(crate) fn flush_completions(&mut self, queue: u16) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        let count = std::mem::take(&mut pair.hold.count);
        if count == 0 {
            return;
        }
        let first = pair.receive_completions.producer.wrapping_sub(count);
        let to_end = pair.receive_completions.slots_to_end(first).min(count);
        let mut written = self.pcie.write(self.now, u64::from(to_end) * COMPLETION_BYTES);
        let (mut rest, slots) = (count - to_end, pair.receive_completions.slots);
        // More than once around only where one frame has more buffers than the ring has slots.
        while rest > 0 {
            let run = rest.min(slots.max(1));
            written = self.pcie.write(self.now, u64::from(run) * COMPLETION_BYTES);
            rest -= run;
        }
        for write in pair.held.drain(..) {
            self.events.host_writes.push(written.visible, write);
        }
    }

    /// The time is up for completions that are held, if they are those it was set for.
    pub(crate) fn completion_hold_over(&mut self, timer: QueueTimer) {
        if self.queue_epoch(timer.queue) != Some(timer.epoch) {
            return;
        }
        let pair = &mut self.queues[usize::from(timer.queue)];
        let (_, hold) = held(pair.coalescing);
        let due = pair.hold.since + hold;
        pair.hold.timer = pair.hold.count != 0 && due > self.now;
        if pair.hold.timer {
            self.events.seldom.change(|queues| queues.completion_holds.push(due, timer));
        } else {
            self.flush_completions(timer.queue);
        }
    }

    /// A queue pair's register of coalescing is written. What is held goes by the old rule.
    pub(crate) fn coalescing_write(&mut self, queue: usize, value: u32) {
        self.flush_completions(queue as u16);
        if let Some(pair) = self.queues.get_mut(queue) {
            let written = CompletionCoalescing::from_bits(value);
            pair.coalescing = CompletionCoalescing::new()
                .with_hold_ns(written.hold_ns())
                .with_completions(written.completions().min(COMPLETIONS_MAX));
        }
    }

    /// The host can see a completion of a queue pair.
    #[inline]
    pub(crate) fn completion_visible(&mut self, queue: u16) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        if !pair.armed {
            pair.shadow.completed = true;
            return;
        }
        let (most, delay) = moderated(pair.moderation);
        if pair.interrupt.count == 0 {
            pair.interrupt.since = self.now;
        }
        pair.interrupt.count += 1;
        if pair.interrupt.count >= most {
            self.send_queue_interrupt(queue);
        } else if !pair.interrupt.timer {
            pair.interrupt.timer = true;
            self.events.seldom.change(|queues| {
                queues.interrupt_delays.push(self.now + delay, QueueTimer { queue, epoch: pair.epoch })
            });
        }
    }

    /// The time is up for an interrupt, if it is the one it was set for.
    pub(crate) fn interrupt_delay_over(&mut self, timer: QueueTimer) {
        if self.queue_epoch(timer.queue) != Some(timer.epoch) {
            return;
        }
        let pair = &mut self.queues[usize::from(timer.queue)];
        let (_, delay) = moderated(pair.moderation);
        let due = pair.interrupt.since + delay;
        pair.interrupt.timer = pair.interrupt.count != 0 && due > self.now;
        if pair.interrupt.timer {
            self.events.seldom.change(|queues| queues.interrupt_delays.push(due, timer));
        } else if pair.interrupt.count != 0 {
            self.send_queue_interrupt(timer.queue);
        }
    }

    /// A queue pair's register of moderation is written. An interrupt that waits is sent.
    pub(crate) fn moderation_write(&mut self, queue: usize, value: u32) {
        let Some(pair) = self.queues.get_mut(queue) else { return };
        let written = InterruptModeration::from_bits(value);
        pair.moderation = InterruptModeration::new()
            .with_delay_ns(written.delay_ns())
            .with_completions(written.completions());
        if pair.interrupt.count != 0 {
            self.send_queue_interrupt(queue as u16);
        }
    }

    pub(crate) fn send_queue_interrupt(&mut self, queue: u16) {
        let Some(pair) = self.queues.get_mut(usize::from(queue)) else { return };
        pair.armed = false;
        pair.interrupt.count = 0;
        let vector = u16::from(pair.control.vector());
        self.raise_interrupt(vector);
    }
}

/// How many completions are held at most, and how long. One is none.
#[inline]
fn held(coalescing: CompletionCoalescing) -> (u32, Ticks) {
    let most = if coalescing.hold_ns() == 0 { 1 } else { coalescing.completions().max(1) };
    (most.into(), Ticks::from_nanoseconds(coalescing.hold_ns().into()))
}

/// How many completions an interrupt waits for, and how long. One is none.
#[inline]
fn moderated(moderation: InterruptModeration) -> (u32, Ticks) {
    let most = if moderation.delay_ns() == 0 { 1 } else { moderation.completions().max(1) };
    (most.into(), Ticks::from_nanoseconds(moderation.delay_ns().into()))
}
