//! Queue pairs: setting one up, waiting for it, quarantine, taking it down. Moving packets is in
//! [`crate::transmit`] and [`crate::receive`].

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, HostError, Time};
use cryptonic_regs::bar0::{
    QUEUE_CONTROL, QUEUE_PAIR_STRIDE, QUEUE_STATUS, QueueControl, RECEIVE_COMPLETION_BASE, RECEIVE_RING_BASE,
    TRANSMIT_COMPLETION_BASE, TRANSMIT_RING_BASE,
};
use cryptonic_regs::completion::{ReceiveCompletion, TransmitCompletion};
use cryptonic_regs::descriptor::ReceiveDescriptor;
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, INTERRUPT_ARM};
use cryptonic_regs::{Register, Status, Value};

use crate::information::Capabilities;
use crate::nic::turn_off;
use crate::receive::{Places, ReceiveSide};
use crate::shared::{Arena, Shared};
use crate::transmit::{TransmitSide, Transmitted};
use crate::{Error, Quarantine, QueueError};

/// Frame buffers begin at multiples of this in their arenas.
const BUFFERS_ALIGNMENT: usize = 4096;
const BUFFER_BYTES_MAX: u32 = 16384;

/// How to set up a queue pair.
#[derive(Clone, Copy, Debug)]
pub struct QueuePairOptions {
    /// Which one; `None` takes the first that is free.
    pub index: Option<u32>,
    /// Slots of the transmit ring, a power of two from 2 up.
    pub transmit_slots: u32,
    /// Slots of the receive ring, a power of two from 2 up. As many buffers are posted.
    pub receive_slots: u32,
    /// Bytes of a transmit descriptor: 32, or 64 with room for a PSP key.
    pub stride: u32,
    /// Bytes of a frame buffer, a power of two from 256 to 16384.
    pub buffer_bytes: u32,
    /// Packets may leave in clear.
    pub clear_allowed: bool,
    /// MSI-X vector; `None` spreads queue pairs over the vectors behind the first.
    pub vector: Option<u8>,
}

impl Default for QueuePairOptions {
    fn default() -> Self {
        QueuePairOptions {
            index: None,
            transmit_slots: 256,
            receive_slots: 256,
            stride: 32,
            buffer_bytes: 2048,
            clear_allowed: false,
            vector: None,
        }
    }
}

/// The memory of a queue pair. The NIC knows it too, to take it back when it closes first.
pub(crate) struct QueueMemory {
    pub(crate) index: u32,
    /// Descriptors and frames to send: the device only reads them.
    pub(crate) reads: Arena,
    /// Completions and received frames.
    pub(crate) writes: Arena,
    /// Bytes of descriptors at the beginning of `reads`.
    descriptor_bytes: usize,
    /// Bytes of completions at the beginning of `writes`.
    completion_bytes: usize,
    in_flight: Cell<u32>,
}

impl QueueMemory {
    /// Descriptors that the device may still be working on.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.get().into()
    }

    pub(crate) fn set_in_flight(&self, descriptors: u32) {
        self.in_flight.set(descriptors);
    }

    pub(crate) fn zeroise_rings(&self) {
        let _ = self.reads.memory.zeroise(0, self.descriptor_bytes);
        let _ = self.writes.memory.zeroise(0, self.completion_bytes);
    }
}

/// A queue pair: a transmit ring and a receive ring, their completions and their buffers. Whoever holds it
/// moves packets with it; dropping it turns it off.
pub struct QueuePair {
    pub(crate) shared: Rc<Shared>,
    pub(crate) memory: Rc<QueueMemory>,
    /// Marks this pair's buffers and keys.
    pub(crate) identity: u32,
    pub(crate) transmit: TransmitSide,
    pub(crate) receive: ReceiveSide,
    pub(crate) buffer_bytes_log2: u32,
    vector: u8,
    quarantine: Option<Quarantine>,
    device_cause: Option<Status>,
    closed: bool,
}

/// No two queue pairs of a process have the same.
static NEXT_IDENTITY: AtomicU32 = AtomicU32::new(1);

impl QueuePair {
    pub(crate) fn create(
        shared: &Rc<Shared>,
        capabilities: &Capabilities,
        options: QueuePairOptions,
    ) -> Result<Self, Error> {
        check(capabilities, options)?;
        let index = free_index(shared, capabilities, options.index)?;
        let vectors = capabilities.queue.vectors();
        let spread = if vectors > 1 { 1 + index % u32::from(vectors - 1) } else { 0 };
        let vector = options.vector.unwrap_or(spread as u8);

        let (transmit_slots, receive_slots) =
            (options.transmit_slots as usize, options.receive_slots as usize);
        let buffer_bytes = options.buffer_bytes as usize;
        // Twice as many buffers as slots: one ring under way, one being filled.
        let transmit_buffers = transmit_slots * 2;
        let receive_ring = transmit_slots * options.stride as usize;
        let descriptor_bytes = receive_ring.next_multiple_of(64) + receive_slots * ReceiveDescriptor::BYTES;
        let transmit_frames = descriptor_bytes.next_multiple_of(BUFFERS_ALIGNMENT);
        let receive_completions = transmit_slots * TransmitCompletion::BYTES;
        let receive_completions = receive_completions.next_multiple_of(64);
        let completion_bytes = receive_completions + receive_slots * ReceiveCompletion::BYTES;
        let receive_frames = completion_bytes.next_multiple_of(BUFFERS_ALIGNMENT);

        let reads =
            shared.arena(transmit_frames + transmit_buffers * buffer_bytes, DmaAccess::DeviceReads)?;
        let writes = shared
            .arena(receive_frames + receive_slots * buffer_bytes, DmaAccess::DeviceReadsAndWrites)
            .inspect_err(|_| drop(shared.unmap(&reads)))?;
        let memory =
            QueueMemory { index, reads, writes, descriptor_bytes, completion_bytes, in_flight: Cell::new(0) };
        let memory = Rc::new(memory);
        shared.queues.borrow_mut().push(memory.clone());
        // From here on dropping the pair undoes what was done.
        let mut queue = QueuePair {
            shared: shared.clone(),
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            transmit: TransmitSide::new(
                index,
                options.transmit_slots,
                options.stride,
                memory.reads.iova + transmit_frames as u64,
                transmit_frames,
                transmit_buffers as u32,
            ),
            receive: ReceiveSide::new(
                index,
                options.receive_slots,
                Places {
                    ring_offset: receive_ring.next_multiple_of(64),
                    completion_offset: receive_completions,
                    frames_offset: receive_frames,
                    frames_iova: memory.writes.iova + receive_frames as u64,
                },
                options.buffer_bytes,
                capabilities.sa_slots,
            ),
            memory,
            buffer_bytes_log2: options.buffer_bytes.ilog2(),
            vector,
            quarantine: None,
            device_cause: None,
            closed: false,
        };
        queue.start(options)?;
        Ok(queue)
    }

    fn start(&mut self, options: QueuePairOptions) -> Result<(), Error> {
        let (shared, memory) = (&self.shared, &self.memory);
        let (reads, writes) = (memory.reads.iova, memory.writes.iova);
        shared.write(self.register(TRANSMIT_RING_BASE), reads)?;
        shared.write(self.register(TRANSMIT_COMPLETION_BASE), writes)?;
        shared.write(self.register(RECEIVE_RING_BASE), reads + self.receive.ring_offset() as u64)?;
        shared.write(
            self.register(RECEIVE_COMPLETION_BASE),
            writes + self.receive.completion_offset() as u64,
        )?;
        let control = QueueControl::new()
            .with_enable(true)
            .with_transmit_clear_allowed(options.clear_allowed)
            .with_transmit_stride_log2(options.stride.ilog2() as u8)
            .with_transmit_slots_log2(options.transmit_slots.ilog2() as u8)
            .with_receive_slots_log2(options.receive_slots.ilog2() as u8)
            .with_vector(self.vector);
        shared.write(self.register(QUEUE_CONTROL), control)?;
        shared.poll(shared.command_timeout, "ready with a queue pair", || {
            let status = shared.read(self.register(QUEUE_STATUS))?;
            if status.quarantined() {
                let cause = Status::of_number(status.cause().into());
                return Err(Error::QueueStopped { index: memory.index, cause });
            }
            Ok(status.enabled().then_some(()))
        })?;
        self.post_every_buffer().map_err(|error| match error {
            QueueError::Gone => Error::Gone,
            QueueError::Host(error) => Error::Host(error),
            _ => Error::Argument("access outside shared memory"),
        })
    }

    fn register<T: Value>(&self, register: Register<T>) -> Register<T> {
        register.instance(self.memory.index, QUEUE_PAIR_STRIDE)
    }

    /// Index of the pair on its device.
    pub fn index(&self) -> u32 {
        self.memory.index
    }

    /// Bytes of a frame buffer.
    pub fn buffer_bytes(&self) -> usize {
        1 << self.buffer_bytes_log2
    }

    /// Why the pair is in quarantine, if it is.
    pub fn quarantine(&self) -> Option<Quarantine> {
        self.quarantine
    }

    /// Why the device stopped the pair, if it did and said so.
    pub fn device_cause(&self) -> Option<Status> {
        self.device_cause
    }

    /// The time of the host.
    pub fn time(&self) -> Time {
        self.shared.host.now()
    }

    /// Gives time away: to be called in every loop that polls.
    pub fn relax(&self) {
        self.shared.host.relax();
    }

    /// Whether the pair may be used.
    #[inline]
    pub(crate) fn usable(&self) -> Result<(), QueueError> {
        if self.quarantine.is_none() && !self.shared.closed.get() { Ok(()) } else { Err(self.unusable()) }
    }

    #[cold]
    fn unusable(&self) -> QueueError {
        self.quarantine.map_or(QueueError::Closed, QueueError::Quarantined)
    }

    /// Puts the pair into quarantine: it is off, its memory is taken back and its rings are zeroised.
    #[cold]
    pub(crate) fn put_into_quarantine(&mut self, reason: Quarantine) -> QueueError {
        self.quarantine = Some(reason);
        self.shared.count_quarantine(reason);
        let _ = self.shared.cut_off(&self.memory);
        self.transmit.forget_keys();
        self.memory.set_in_flight(0);
        QueueError::Quarantined(reason)
    }

    /// Asks the device whether it stopped the pair. The read also makes sure that every completion which the
    /// device wrote before it is visible.
    pub fn check_device(&mut self) -> Result<(), QueueError> {
        self.usable()?;
        let status = self.shared.read(self.register(QUEUE_STATUS))?;
        if status.quarantined() || !status.enabled() {
            self.device_cause = Status::of_number(status.cause().into());
            return Err(self.put_into_quarantine(Quarantine::DeviceStopped));
        }
        Ok(())
    }

    /// Sleeps until there is a completion on either ring, or the deadline. Without interrupts it polls.
    pub fn wait(&mut self, deadline: Time) -> Result<Wake, QueueError> {
        self.usable()?;
        self.announce_buffers()?;
        if !self.shared.interrupts.get() {
            while !self.has_completions()? {
                if self.shared.host.now() >= deadline {
                    self.check_device()?;
                    return Ok(Wake::Deadline);
                }
                self.shared.host.relax();
            }
            return Ok(Wake::Interrupt);
        }
        let arm = INTERRUPT_ARM.offset + self.memory.index * DOORBELL_PAGE_BYTES;
        self.shared.host.write32(Bar::Bar2, arm, 1)?;
        // The write that arms is posted. The answer to this read comes after it, and after every completion
        // written before it took effect: what the interrupt will not announce is visible now.
        self.check_device()?;
        if self.has_completions()? {
            return Ok(Wake::Interrupt);
        }
        let wake = self.shared.host.wait(self.vector.into(), deadline)?;
        // An interrupt may be lost; a completion is not.
        if wake == Wake::Deadline && self.has_completions()? { Ok(Wake::Interrupt) } else { Ok(wake) }
    }

    fn has_completions(&self) -> Result<bool, QueueError> {
        Ok(self.transmit.has_completion(&self.memory)? || self.receive.has_completion(&self.memory)?)
    }

    /// Waits until no transmit descriptor is in flight; `out` takes the completions. Gives the number of
    /// packets that ended.
    pub fn drain(&mut self, deadline: Time, out: &mut Vec<Transmitted>) -> Result<usize, QueueError> {
        self.usable()?;
        self.announce_buffers()?;
        let mut packets = 0;
        loop {
            let late = self.shared.host.now() >= deadline;
            packets += self.completed(out)?;
            if self.in_flight() == 0 {
                return Ok(packets);
            }
            if late {
                self.check_device()?;
                return Err(QueueError::Deadline);
            }
            self.shared.host.relax();
        }
    }

    /// Turns the pair off and waits until it is, takes its memory back and zeroises its rings and keys.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.transmit.forget_keys();
        let off = if self.shared.closed.get() { Ok(()) } else { turn_off(&self.shared, self.memory.index) };
        let reads = self.shared.unmap(&self.memory.reads);
        let writes = self.shared.unmap(&self.memory.writes);
        self.memory.zeroise_rings();
        self.shared.queues.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.memory));
        off.and(reads.and(writes).map_err(|error: HostError| error.into()))
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        let _ = self.shut_down();
    }
}

fn check(capabilities: &Capabilities, options: QueuePairOptions) -> Result<(), Error> {
    let (queue, descriptor) = (capabilities.queue, capabilities.descriptor);
    let slots_max = 1 << queue.ring_slots_log2_max();
    for slots in [options.transmit_slots, options.receive_slots] {
        if !slots.is_power_of_two() || slots < 2 {
            return Err(Error::Argument("the slots of a ring are a power of two from 2 up"));
        }
        if slots > slots_max {
            return Err(Error::Unsupported("a ring of this size"));
        }
    }
    match options.stride {
        32 if descriptor.stride_32() => {}
        64 if descriptor.stride_64() => {}
        _ => return Err(Error::Unsupported("this stride")),
    }
    let buffer_bytes = options.buffer_bytes;
    if !buffer_bytes.is_power_of_two() || !(256..=BUFFER_BYTES_MAX).contains(&buffer_bytes) {
        return Err(Error::Argument("the bytes of a buffer are a power of two from 256 to 16384"));
    }
    if options.vector.is_some_and(|vector| vector >= queue.vectors()) {
        return Err(Error::Unsupported("this MSI-X vector"));
    }
    Ok(())
}

fn free_index(shared: &Shared, capabilities: &Capabilities, wanted: Option<u32>) -> Result<u32, Error> {
    let queues = shared.queues.borrow();
    let free = |index: &u32| queues.iter().all(|queue| queue.index != *index);
    let mut all = 0..u32::from(capabilities.queue.queue_pairs());
    match wanted {
        Some(index) if all.contains(&index) && free(&index) => Ok(index),
        Some(_) => Err(Error::NoFreeQueue),
        None => all.find(free).ok_or(Error::NoFreeQueue),
    }
}
