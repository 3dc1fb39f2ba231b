//! Queue pairs: setting one up, waiting for it, quarantine, taking it down. Moving packets is in
//! [`crate::transmit`] and [`crate::receive`].

use std::cell::Cell;
use std::rc::Rc;

use cryptonic_pci::host::Wake;
use cryptonic_pci::{DmaAccess, HostError, Time};
use cryptonic_regs::bar0::{
    COMPLETION_COALESCING, CompletionCoalescing, INTERRUPT_MODERATION, InterruptModeration, QUEUE_CONTROL,
    QUEUE_PAIR_STRIDE, QUEUE_STATUS, QueueControl, RECEIVE_COMPLETION_BASE, RECEIVE_RING_BASE,
    TRANSMIT_COMPLETION_BASE, TRANSMIT_RING_BASE,
};
use cryptonic_regs::completion::{ReceiveCompletion, TransmitCompletion};
use cryptonic_regs::descriptor::ReceiveDescriptor;
use cryptonic_regs::{Register, Status, Value};

use crate::doorbells::Doorbells;
use crate::information::Capabilities;
use crate::nic::turn_off;
use crate::receive::Owner;
use crate::receive_ring::{ReceiveOptions, ReceiveSide};
use crate::shared::{Arena, Shared, next_identity};
use crate::transmit::{InlinePolicy, PushPolicy, QueueStatistics, Transmitted};
use crate::transmit_ring::{Abilities, TransmitOptions, TransmitSide};
use crate::{Error, Quarantine, QueueError};

/// Frame buffers begin at multiples of this in their arenas.
const BUFFERS_ALIGNMENT: usize = 4096;
pub(crate) const BUFFER_BYTES_MAX: u32 = 16384;

/// How to set up a queue pair.
#[derive(Clone, Copy, Debug)]
pub struct QueuePairOptions {
    /// Which one; `None` takes the first that is free.
    pub index: Option<u32>,
    /// Slots of the transmit ring, a power of two from 2 up.
    pub transmit_slots: u32,
    /// Slots of the receive ring, a power of two from 2 up. As many buffers are posted.
    pub receive_slots: u32,
    /// Bytes of a transmit descriptor: 32; 64 with room for a PSP key or 32 bytes of inline data; 128.
    pub stride: u32,
    /// Bytes of a frame buffer, a power of two from 256 to 16384.
    pub buffer_bytes: u32,
    /// Packets may leave in clear.
    pub clear_allowed: bool,
    /// MSI-X vector; `None` spreads queue pairs over the vectors between the first and the last.
    pub vector: Option<u8>,
    /// Which bytes of a frame stand in its descriptor.
    pub inline: InlinePolicy,
    /// When a descriptor is pushed. With shadow doorbells never: a device that has them is one behind which the stores of a
    /// push cost more than its look at the ring.
    pub push: PushPolicy,
    /// A frame longer than a buffer takes several; else the device drops it.
    pub receive_scatter: bool,
    /// The pair takes copies: captured and sampled PSP packets ([`crate::Received::is_copy`]). Any other goes into
    /// quarantine when one comes.
    pub copies: bool,
    /// Nanoseconds, up to 65535, that a receive completion waits for others.
    pub completion_hold_ns: u16,
    /// As many receive completions end that wait, up to 8; 0 is 1.
    pub completion_batch: u8,
    /// Nanoseconds, below 2^20, that an interrupt waits for more completions after the first.
    pub interrupt_delay_ns: u32,
    /// As many completions end that wait; 0 is 1.
    pub interrupt_completions: u8,
}

impl QueuePairOptions {
    /// Rings of 256 slots of stride 32, buffers of 2048 bytes, and everything else off.
    pub const fn new() -> Self {
        QueuePairOptions {
            index: None,
            transmit_slots: 256,
            receive_slots: 256,
            stride: 32,
            buffer_bytes: 2048,
            clear_allowed: false,
            vector: None,
            inline: InlinePolicy::Never,
            push: PushPolicy::Never,
            receive_scatter: false,
            copies: false,
            completion_hold_ns: 0,
            completion_batch: 0,
            interrupt_delay_ns: 0,
            interrupt_completions: 0,
        }
    }
}

impl Default for QueuePairOptions {
    fn default() -> Self {
        QueuePairOptions::new()
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
    numbers_in_flight: Cell<u64>,
}

impl QueueMemory {
    /// Sequence numbers that what the device may still be working on can take.
    pub(crate) fn in_flight(&self) -> u64 {
        self.numbers_in_flight.get()
    }

    pub(crate) fn set_in_flight(&self, numbers: u64) {
        self.numbers_in_flight.set(numbers);
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
    pub(crate) doorbells: Doorbells,
    pub(crate) buffer_bytes_log2: u32,
    pub(crate) statistics: QueueStatistics,
    pub(crate) copies: Cell<u64>,
    pub(crate) copied_bytes: Cell<u64>,
    vector: u8,
    quarantine: Option<Quarantine>,
    device_cause: Option<Status>,
    closed: bool,
}

impl QueuePair {
    pub(crate) fn create(
        shared: &Rc<Shared>,
        capabilities: &Capabilities,
        options: QueuePairOptions,
    ) -> Result<Self, Error> {
        check(capabilities, options)?;
        let index = free_index(shared, capabilities, options.index)?;
        let vectors = capabilities.queue.vectors();
        let vector = options.vector.unwrap_or(spread_vector(index, vectors));
        let doorbells =
            Doorbells::new(shared, index).map_err(|_| Error::Argument("a queue pair past the last"))?;

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
        let memory = QueueMemory {
            index,
            reads,
            writes,
            descriptor_bytes,
            completion_bytes,
            numbers_in_flight: Cell::new(0),
        };
        let memory = Rc::new(memory);
        let identity = next_identity();
        let chain = capabilities.chain;
        let scatters = capabilities.descriptor.scatter_gather();
        let abilities = Abilities {
            descriptor: capabilities.descriptor,
            protocol: capabilities.protocol,
            chain_max: if scatters { chain.transmit_descriptors().max(1).into() } else { 1 },
        };
        shared.queues.borrow_mut().push(memory.clone());
        // From here on dropping the pair undoes what was done.
        let mut queue = QueuePair {
            shared: shared.clone(),
            identity,
            transmit: TransmitSide::new(TransmitOptions {
                slots: options.transmit_slots,
                stride: options.stride,
                frames_iova: memory.reads.iova + transmit_frames as u64,
                frames_offset: transmit_frames,
                buffers: transmit_buffers as u32,
                buffer_bytes: options.buffer_bytes,
                identity,
                nic: shared.identity,
                inline: options.inline,
                push: if doorbells.shadowed() { PushPolicy::Never } else { options.push },
                abilities,
            }),
            receive: ReceiveSide::new(ReceiveOptions {
                slots: options.receive_slots,
                buffer_bytes: options.buffer_bytes,
                ring_offset: receive_ring.next_multiple_of(64),
                completion_offset: receive_completions,
                frames_offset: receive_frames,
                frames_iova: memory.writes.iova + receive_frames as u64,
                sa_slots: capabilities.sa_slots,
                chain_max: if options.receive_scatter { chain.receive_buffers().max(1) } else { 1 },
                copies: options.copies,
                owner: Owner::new(identity, shared.identity),
            }),
            doorbells,
            memory,
            buffer_bytes_log2: options.buffer_bytes.ilog2(),
            statistics: QueueStatistics::default(),
            copies: Cell::new(0),
            copied_bytes: Cell::new(0),
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
        let moderation = InterruptModeration::new()
            .with_delay_ns(options.interrupt_delay_ns)
            .with_completions(options.interrupt_completions);
        shared.write(self.register(INTERRUPT_MODERATION), moderation)?;
        let coalescing = CompletionCoalescing::new()
            .with_hold_ns(options.completion_hold_ns)
            .with_completions(options.completion_batch);
        shared.write(self.register(COMPLETION_COALESCING), coalescing)?;
        let control = QueueControl::new()
            .with_enable(true)
            .with_transmit_clear_allowed(options.clear_allowed)
            .with_receive_scatter(options.receive_scatter)
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
        self.transmit.keys.forget();
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
        self.doorbells.arm_interrupt(&*self.shared.host)?;
        let shadowed = self.doorbells.shadowed();
        if !shadowed {
            // The write that arms is posted. The answer to this read comes after it, and after every completion
            // written before it took effect: what the interrupt will not announce is visible now. With shadow doorbells
            // the device answers for those, and a register read is what they are there to save.
            self.check_device()?;
        }
        if self.has_completions()? {
            return Ok(Wake::Interrupt);
        }
        let wake = self.shared.host.wait(self.vector.into(), deadline)?;
        if wake == Wake::Interrupt {
            return Ok(wake);
        }
        // An interrupt may be lost; a completion is not.
        if self.has_completions()? {
            return Ok(Wake::Interrupt);
        }
        if shadowed {
            self.check_device()?;
        }
        Ok(Wake::Deadline)
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
        self.transmit.keys.forget();
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

/// The vector of a queue pair: the first is that of the admin queue, the last that of events.
fn spread_vector(index: u32, vectors: u8) -> u8 {
    match vectors {
        0..3 => vectors.saturating_sub(1),
        _ => 1 + (index % u32::from(vectors - 2)) as u8,
    }
}

fn check(capabilities: &Capabilities, options: QueuePairOptions) -> Result<(), Error> {
    let slots = [options.transmit_slots, options.receive_slots];
    let buffer_bytes = options.buffer_bytes;
    let pushes = options.push != PushPolicy::Never;
    for (holds, sentence) in [
        (
            slots.iter().all(|slots| slots.is_power_of_two() && *slots >= 2),
            "the slots of a ring are a power of two from 2 up",
        ),
        (
            buffer_bytes.is_power_of_two() && (256..=BUFFER_BYTES_MAX).contains(&buffer_bytes),
            "the bytes of a buffer are a power of two from 256 to 16384",
        ),
        (options.stride.is_power_of_two(), "a stride is a power of two"),
        (!pushes || options.stride >= 64, "a pushed descriptor has a stride of 64 or 128"),
        (
            options.inline == InlinePolicy::Never || options.stride >= 64,
            "inline data needs a stride of 64 or 128",
        ),
        (options.completion_batch <= 8, "at most 8 completions wait for one another"),
        (options.interrupt_delay_ns < 1 << 20, "an interrupt waits less than 2^20 ns"),
    ] {
        if !holds {
            return Err(Error::Argument(sentence));
        }
    }
    Ok(capabilities.supports_queue(&options)?)
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
