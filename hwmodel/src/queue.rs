//! Queue pairs: rings, indices and doorbells as the device keeps them.

use std::collections::VecDeque;

use crate::Ticks;
use cryptonic_regs::Status;
use cryptonic_regs::bar0::{CompletionCoalescing, InterruptModeration, QueueControl, QueueStatus};
use cryptonic_regs::descriptor::{RECEIVE_STRIDE_BYTES, ReceiveDescriptor, TRANSMIT_STRIDES_LOG2};

use crate::events::{HostWrite, Pending};
use crate::packet::Packet;
use crate::push::PushWindow;
use crate::shadow_doorbells::ShadowLine;

/// A ring of the host: where it is and how far the device got. Indices count slots and run freely.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ring {
    /// IOVA of slot 0.
    pub base: u64,
    /// Number of slots, a power of two; 0 while the ring is off.
    pub slots: u32,
    /// Bytes of a slot.
    pub stride: u32,
    /// What the host produced.
    pub producer: u32,
    /// What the device fetched or asked for.
    pub fetched: u32,
    /// What the device used up.
    pub consumer: u32,
}

impl Ring {
    /// IOVA of the slot of an index.
    #[inline]
    pub fn slot(&self, index: u32) -> u64 {
        self.base + u64::from(index & self.slots.wrapping_sub(1)) * u64::from(self.stride)
    }

    /// Slots from an index to the end of the ring's memory.
    #[inline]
    pub fn slots_to_end(&self, index: u32) -> u32 {
        self.slots - (index & self.slots.wrapping_sub(1))
    }

    /// Takes a producer index from a doorbell. An index more than the ring's slots ahead of what the device
    /// used up is refused.
    pub fn doorbell(&mut self, producer: u32) -> Result<(), Status> {
        if producer.wrapping_sub(self.consumer) > self.slots
            || producer.wrapping_sub(self.fetched) > self.slots
        {
            return Err(Status::BadDoorbell);
        }
        self.producer = producer;
        Ok(())
    }

    /// Slots that the host produced and the device did not ask for.
    #[inline]
    pub fn unfetched(&self) -> u32 {
        self.producer.wrapping_sub(self.fetched)
    }
}

/// A completion ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompletionRing {
    /// IOVA of slot 0.
    pub base: u64,
    /// Number of slots, a power of two.
    pub slots: u32,
    /// Bytes of a slot.
    pub stride: u32,
    /// Next index.
    pub producer: u32,
}

impl CompletionRing {
    /// Slots from an index to the end of the ring's memory.
    #[inline]
    pub fn slots_to_end(&self, index: u32) -> u32 {
        self.slots - (index & self.slots.wrapping_sub(1))
    }

    /// IOVA and phase of the next completion.
    #[inline]
    pub fn next(&mut self) -> (u64, bool) {
        let slot = self.producer & self.slots.wrapping_sub(1);
        let phase = self.producer & self.slots == 0;
        self.producer = self.producer.wrapping_add(1);
        (self.base + u64::from(slot) * u64::from(self.stride), phase)
    }
}

/// A queue pair.
#[derive(Default)]
pub struct QueuePair {
    /// Control as the host wrote it.
    pub control: QueueControl,
    /// Status as the host reads it.
    pub status: QueueStatus,
    /// Base registers as the host wrote them: transmit ring, transmit completions, receive ring, receive
    /// completions.
    pub bases: [u64; 4],
    /// Rises each time the pair is turned off, so that what is still on its way for it is dropped.
    pub epoch: u32,
    /// Transmit ring.
    pub transmit: Ring,
    /// Transmit completions.
    pub transmit_completions: CompletionRing,
    /// Transmit descriptors whose outcome no completion has told yet.
    pub unreported: u16,
    /// Doorbells and pushes accepted and not yet used up.
    pub doorbells: VecDeque<Announced>,
    /// Index of the next transmit descriptor to arrive; behind `transmit.fetched` while reads are under way.
    pub arrived: u32,
    /// The frame whose last descriptor is not here yet.
    pub assembly: Option<Assembly>,
    /// When the last frame given to gathering reaches commit: frames of a queue pair keep their order.
    pub gathered_until: Ticks,
    /// The two push windows.
    pub windows: [PushWindow; 2],
    /// Receive ring.
    pub receive: Ring,
    /// Receive completions.
    pub receive_completions: CompletionRing,
    /// Receive descriptors at hand.
    pub buffers: VecDeque<ReceiveDescriptor>,
    /// Packets that wait for a descriptor that is on its way.
    pub waiting: VecDeque<Box<Packet>>,
    /// The next completion sends the interrupt.
    pub armed: bool,
    /// Its doorbells in host memory.
    pub shadow: ShadowLine,
    /// When the interrupt is sent.
    pub moderation: InterruptModeration,
    /// The interrupt that waits for more completions.
    pub interrupt: Waiting,
    /// When receive completions are written.
    pub coalescing: CompletionCoalescing,
    /// The completions that wait for others.
    pub hold: Waiting,
    /// Their writes.
    pub held: Vec<HostWrite>,
}

/// Transmit descriptors that a doorbell or a push announced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announced {
    /// Producer index behind them.
    pub producer: u32,
    /// When it was accepted.
    pub accepted_at: Ticks,
    /// When the host issued it.
    pub issued_at: Ticks,
}

/// A frame of which some descriptors are here.
pub struct Assembly {
    /// What is known so far.
    pub(crate) frame: Box<Pending>,
    /// Inline bytes and lengths so far.
    pub(crate) bytes: u64,
    /// The frame was too long, and this is the rest of it.
    pub(crate) discarded: bool,
}

/// Something that waits for more of its kind, a time at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// How many there are.
    pub count: u32,
    /// When the first of them came.
    pub since: Ticks,
    /// A timer is under way; it looks again if the first has come later than when it was set.
    pub timer: bool,
}

/// Byte sizes of completions, which are the strides of their rings.
const TRANSMIT_COMPLETION_BYTES: u32 = 32;
const RECEIVE_COMPLETION_BYTES: u32 = 64;

impl QueuePair {
    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        let frame = self.assembly.as_mut().map(|assembly| &mut assembly.frame);
        let of_frame = frame.into_iter().flat_map(|frame| [&mut frame.accepted_at, &mut frame.issued_at]);
        let of_doorbells = self
            .doorbells
            .iter_mut()
            .flat_map(|announced| [&mut announced.accepted_at, &mut announced.issued_at]);
        let own = [&mut self.gathered_until, &mut self.interrupt.since, &mut self.hold.since];
        for time in of_frame.chain(of_doorbells).chain(own) {
            *time = time.earlier_by(by);
        }
        self.windows.iter_mut().for_each(|window| window.begin_anew(by));
    }

    /// Turns the pair on with what its registers say.
    pub fn enable(&mut self, ring_slots_log2_max: u8) -> Result<(), Status> {
        let control = self.control;
        let in_range = |log2: u8| (1..=ring_slots_log2_max).contains(&log2);
        let [transmit, transmit_completion, receive, receive_completion] = self.bases;
        let aligned = transmit.is_multiple_of(128)
            && [transmit_completion, receive, receive_completion].iter().all(|base| base.is_multiple_of(64));
        let far_below_the_end = self.bases.iter().all(|base| *base < 1 << 60);
        if !TRANSMIT_STRIDES_LOG2.contains(&control.transmit_stride_log2())
            || !in_range(control.transmit_slots_log2())
            || !in_range(control.receive_slots_log2())
            || !aligned
            || !far_below_the_end
        {
            return Err(Status::BadRing);
        }
        let ring = |base, log2: u8, stride| Ring { base, slots: 1 << log2, stride, ..Ring::default() };
        let completions =
            |base, log2: u8, stride| CompletionRing { base, slots: 1 << log2, stride, producer: 0 };
        self.transmit = ring(transmit, control.transmit_slots_log2(), 1 << control.transmit_stride_log2());
        self.receive = ring(receive, control.receive_slots_log2(), RECEIVE_STRIDE_BYTES);
        self.transmit_completions =
            completions(transmit_completion, control.transmit_slots_log2(), TRANSMIT_COMPLETION_BYTES);
        self.receive_completions =
            completions(receive_completion, control.receive_slots_log2(), RECEIVE_COMPLETION_BYTES);
        self.status = QueueStatus::new().with_enabled(true);
        Ok(())
    }

    /// Turns the pair off: what is on its way for it belongs to an epoch that is over.
    pub fn disable(&mut self) {
        *self = QueuePair {
            control: self.control.with_enable(false),
            bases: self.bases,
            moderation: self.moderation,
            coalescing: self.coalescing,
            epoch: self.epoch.wrapping_add(1),
            ..QueuePair::default()
        };
    }

    /// Stops the pair with a cause.
    pub fn quarantine(&mut self, cause: Status) {
        let control = self.control;
        self.disable();
        self.control = control;
        self.status = QueueStatus::new().with_quarantined(true).with_cause(cause.number() as u16);
    }

    /// Whether packets may pass.
    #[inline]
    pub fn running(&self) -> bool {
        self.status.enabled()
    }

    /// The doorbell or push that announced the transmit descriptor of `index`.
    #[inline]
    pub fn announced(&mut self, index: u32) -> Announced {
        while self.doorbells.len() > 1
            && let Some(first) = self.doorbells.front()
            && index.wrapping_sub(first.producer) < 1 << 31
        {
            self.doorbells.pop_front();
        }
        self.doorbells.front().copied().unwrap_or_default()
    }
}
