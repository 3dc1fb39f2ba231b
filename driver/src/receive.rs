//! The receive side of a queue pair.
//!
//! Every slot of the ring has a buffer of its own, whose number is its tag. A buffer is with the device, or
//! with the caller as a [`Received`], and its tag generation rises each time it is posted.

use cryptonic_pci::host::Work;
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_pci::{Bar, SharedMemory};
use cryptonic_regs::Status;
use cryptonic_regs::completion::{
    ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSecurity, ReceiveSteering,
    ReceivedProtocol,
};
use cryptonic_regs::descriptor::{ReceiveControl, ReceiveDescriptor};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, RECEIVE_DOORBELL};

use crate::queue::QueueMemory;
use crate::transmit::Fault;
use crate::{Quarantine, QueueError, QueuePair, SaHandle};

/// The buffer is with the device; the low byte is its tag generation.
const POSTED: u16 = 0x100;

/// A received frame and its buffer, which goes back with [`QueuePair::copy_out`] or
/// [`QueuePair::return_buffers`]. One that is dropped instead is lost to the queue pair.
#[must_use = "the buffer must go back to its queue pair"]
#[derive(Debug)]
pub struct Received {
    completion: ReceiveCompletion,
    queue: u32,
    status: Status,
    protocol: ReceivedProtocol,
}

impl Received {
    /// Bytes of the frame.
    #[inline]
    pub fn length(&self) -> usize {
        self.completion.completed.length().into()
    }

    /// What became of the frame. Nothing but [`Status::Ok`] is a good one.
    #[inline]
    pub fn status(&self) -> Status {
        self.status
    }

    /// What protected the packet.
    #[inline]
    pub fn protocol(&self) -> ReceivedProtocol {
        self.protocol
    }

    /// The SA that opened the packet.
    #[inline]
    pub fn sa(&self) -> Option<SaHandle> {
        let generation = self.completion.sa_generation as u32;
        (generation != 0).then(|| SaHandle { index: self.completion.completed.sa_index(), generation })
    }

    /// SPI of the packet, or 0.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.completion.security.spi()
    }

    /// Cookie of the SA, or 0.
    #[inline]
    pub fn cookie(&self) -> u32 {
        self.completion.security.cookie()
    }

    /// 64-bit sequence number (ESP), or 0.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.completion.sequence
    }

    /// IV of the packet as a number, or 0.
    #[inline]
    pub fn iv(&self) -> u64 {
        self.completion.iv
    }

    /// Device time when the frame's last byte arrived.
    #[inline]
    pub fn time_picoseconds(&self) -> u64 {
        self.completion.time_picoseconds
    }

    /// Hash of the inner flow.
    #[inline]
    pub fn hash(&self) -> u32 {
        self.completion.steering.hash()
    }

    /// PSP: version of the packet.
    #[inline]
    pub fn psp_version(&self) -> u8 {
        self.completion.steering.psp_version()
    }

    /// PSP: the S bit.
    #[inline]
    pub fn psp_sample(&self) -> bool {
        self.completion.steering.psp_sample()
    }

    /// PSP: the D bit.
    #[inline]
    pub fn psp_drop(&self) -> bool {
        self.completion.steering.psp_drop()
    }

    /// PSP: the device key that derived the packet's key, 0 or 1.
    #[inline]
    pub fn psp_device_key(&self) -> u8 {
        self.completion.steering.psp_device_key().into()
    }
}

/// Private state of the receive ring.
pub(crate) struct ReceiveSide {
    doorbell: u32,
    slots_log2: u32,
    ring_offset: usize,
    completion_offset: usize,
    frames_offset: usize,
    frames_iova: u64,
    sa_slots: u32,
    /// Free-running counts: buffers posted, posted and announced, and completions taken.
    produced: u32,
    announced: u32,
    completions: u32,
    /// By tag: whether the device has the buffer, and its tag generation.
    buffers: Box<[u16]>,
}

impl ReceiveSide {
    pub(crate) fn new(
        queue: u32,
        slots: u32,
        ring_offset: usize,
        completion_offset: usize,
        frames_offset: usize,
        frames_iova: u64,
        sa_slots: u32,
    ) -> Self {
        ReceiveSide {
            doorbell: RECEIVE_DOORBELL.offset + queue * DOORBELL_PAGE_BYTES,
            slots_log2: slots.ilog2(),
            ring_offset,
            completion_offset,
            frames_offset,
            frames_iova,
            sa_slots,
            produced: 0,
            announced: 0,
            completions: 0,
            buffers: vec![0; slots as usize].into(),
        }
    }

    pub(crate) fn ring_offset(&self) -> usize {
        self.ring_offset
    }

    pub(crate) fn completion_offset(&self) -> usize {
        self.completion_offset
    }

    #[inline]
    fn slots(&self) -> u32 {
        1 << self.slots_log2
    }

    /// The last word of the completion that is due next, if it is there.
    #[inline]
    fn due(&self, memory: &SharedMemory) -> Result<Option<(usize, ReceiveCompletionEnd)>, OutOfBounds> {
        let slot = self.completions & (self.slots() - 1);
        let phase = (self.completions >> self.slots_log2) & 1 == 0;
        let offset = self.completion_offset + slot as usize * ReceiveCompletion::BYTES;
        let end = ReceiveCompletionEnd::from_bits(memory.read_word_acquire(offset + 56)?);
        Ok((end.phase() == phase).then_some((offset, end)))
    }

    pub(crate) fn has_completion(&self, memory: &QueueMemory) -> Result<bool, OutOfBounds> {
        Ok(self.due(&memory.writes.memory)?.is_some())
    }

    /// Checks a completion, and takes its buffer from the device.
    #[inline]
    fn check(
        &mut self,
        completion: &ReceiveCompletion,
        buffer_bytes: u32,
    ) -> Result<(Status, ReceivedProtocol), Quarantine> {
        let completed = completion.completed;
        let Some(buffer) = self.buffers.get_mut(usize::from(completed.tag())) else {
            return Err(Quarantine::TagOutOfRange);
        };
        if *buffer != POSTED | u16::from(completed.tag_generation()) {
            let posted = *buffer & POSTED != 0;
            return Err(if posted { Quarantine::StaleGeneration } else { Quarantine::NotPosted });
        }
        if u32::from(completed.length()) > buffer_bytes {
            return Err(Quarantine::LengthTooLong);
        }
        let status = match Status::of_number(completion.end.status().into()) {
            Some(Status::Ok) if completed.length() == 0 => return Err(Quarantine::LengthZero),
            Some(status) if matches!(status.number(), 0 | 32..) => status,
            _ => return Err(Quarantine::UnknownStatus),
        };
        let Some(protocol) = ReceivedProtocol::of_number(completion.steering.protocol().into()) else {
            return Err(Quarantine::UnknownProtocol);
        };
        // An SA has a slot and a generation of 32 bits, and a packet that ESP opened has an SA.
        let opened = status == Status::Ok && protocol == ReceivedProtocol::Esp;
        if completion.sa_generation > u64::from(u32::MAX)
            || completion.sa_generation != 0 && completed.sa_index() >= self.sa_slots
            || completion.sa_generation == 0 && (opened || completed.sa_index() != 0)
        {
            return Err(Quarantine::SaOutOfRange);
        }
        *buffer &= !POSTED;
        Ok((status, protocol))
    }

    /// Posts a buffer that is not with the device.
    #[inline]
    fn post(&mut self, memory: &SharedMemory, tag: u16, buffer_bytes_log2: u32) -> Result<(), OutOfBounds> {
        let buffer = self.buffers.get_mut(usize::from(tag)).ok_or(OutOfBounds)?;
        let generation = buffer.wrapping_add(1) as u8;
        *buffer = POSTED | u16::from(generation);
        let slot = self.produced & ((1 << self.slots_log2) - 1);
        let offset = self.ring_offset + slot as usize * ReceiveDescriptor::BYTES;
        let control = ReceiveControl::new()
            .with_length((1u32 << buffer_bytes_log2) as u16)
            .with_tag(tag)
            .with_tag_generation(generation);
        memory.write_word(offset, self.frames_iova + (u64::from(tag) << buffer_bytes_log2))?;
        memory.write_word(offset + 8, control.into_bits())?;
        self.produced = self.produced.wrapping_add(1);
        Ok(())
    }
}

impl QueuePair {
    pub(crate) fn post_every_buffer(&mut self) -> Result<(), QueueError> {
        for tag in 0..self.receive.slots() {
            self.receive.post(&self.memory.reads.memory, tag as u16, self.buffer_bytes_log2)?;
        }
        self.announce_buffers()
    }

    /// Rings the receive doorbell, if there is something to announce.
    pub(crate) fn announce_buffers(&mut self) -> Result<(), QueueError> {
        if self.receive.announced != self.receive.produced {
            self.shared.host.write32(Bar::Bar2, self.receive.doorbell, self.receive.produced)?;
            self.receive.announced = self.receive.produced;
        }
        Ok(())
    }

    /// Rings the doorbell when enough buffers have come together.
    #[inline]
    fn announce_some(&mut self) -> Result<(), QueueError> {
        let waiting = self.receive.produced.wrapping_sub(self.receive.announced);
        if waiting * 8 >= self.receive.slots() { self.announce_buffers() } else { Ok(()) }
    }

    /// Takes up to `limit` received frames, good and bad. Gives how many.
    pub fn receive(&mut self, out: &mut Vec<Received>, limit: usize) -> Result<usize, QueueError> {
        self.usable()?;
        let before = out.len();
        let outcome = self.take_received(out, limit);
        let taken = out.len() - before;
        match outcome {
            Ok(()) if taken == 0 => self.announce_buffers()?,
            Ok(()) => self.shared.host.spend(Work::Burst { packets: taken as u32 }),
            Err(Fault::Quarantine(reason)) => return Err(self.put_into_quarantine(reason)),
            Err(Fault::OutOfBounds) => return Err(QueueError::OutOfBounds),
        }
        Ok(taken)
    }

    fn take_received(&mut self, out: &mut Vec<Received>, limit: usize) -> Result<(), Fault> {
        let memory = &self.memory.writes.memory;
        let side = &mut self.receive;
        for _ in 0..limit {
            let Some((offset, end)) = side.due(memory)? else { break };
            let completion = ReceiveCompletion {
                completed: ReceiveCompleted::from_bits(memory.read_word(offset)?),
                security: ReceiveSecurity::from_bits(memory.read_word(offset + 8)?),
                sequence: memory.read_word(offset + 16)?,
                iv: memory.read_word(offset + 24)?,
                time_picoseconds: memory.read_word(offset + 32)?,
                steering: ReceiveSteering::from_bits(memory.read_word(offset + 40)?),
                sa_generation: memory.read_word(offset + 48)?,
                end,
            };
            let (status, protocol) = side.check(&completion, 1 << self.buffer_bytes_log2)?;
            side.completions = side.completions.wrapping_add(1);
            out.push(Received { completion, queue: self.identity, status, protocol });
        }
        Ok(())
    }

    /// Copies bytes of a frame, from `offset` of it on, as many as there are and fit. Gives how many.
    #[inline]
    pub fn read(&self, received: &Received, offset: usize, bytes: &mut [u8]) -> Result<usize, QueueError> {
        if received.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        let length = received.length().saturating_sub(offset).min(bytes.len());
        let tag = usize::from(received.completion.completed.tag());
        let start = self.receive.frames_offset + (tag << self.buffer_bytes_log2);
        if let Some(bytes) = bytes.get_mut(..length) {
            self.memory.writes.memory.read(start + offset, bytes)?;
        }
        Ok(length)
    }

    /// Copies a frame out, as much as fits, and gives its buffer back. Gives how many bytes were copied.
    #[inline]
    pub fn copy_out(&mut self, received: Received, bytes: &mut [u8]) -> Result<usize, QueueError> {
        let length = self.read(&received, 0, bytes)?;
        self.return_buffer(received)?;
        Ok(length)
    }

    /// Gives a buffer back.
    #[inline]
    pub fn return_buffer(&mut self, received: Received) -> Result<(), QueueError> {
        self.repost(&received)?;
        self.announce_some()
    }

    /// Gives buffers back.
    pub fn return_buffers(&mut self, all: &mut Vec<Received>) -> Result<(), QueueError> {
        for received in all.drain(..) {
            self.repost(&received)?;
        }
        self.announce_some()
    }

    #[inline]
    fn repost(&mut self, received: &Received) -> Result<(), QueueError> {
        if received.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        if self.usable().is_err() {
            return Ok(()); // Nothing is posted any more; the buffer lives as long as the pair.
        }
        let tag = received.completion.completed.tag();
        Ok(self.receive.post(&self.memory.reads.memory, tag, self.buffer_bytes_log2)?)
    }

    /// Received frames whose buffers have not come back.
    pub fn receive_held(&self) -> usize {
        let posted = self.receive.produced.wrapping_sub(self.receive.completions);
        self.receive.slots().saturating_sub(posted) as usize
    }
}
