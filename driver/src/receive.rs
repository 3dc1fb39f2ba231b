//! Receiving: frames, and the way of their buffers back. The ring itself is in [`crate::receive_ring`].

use std::fmt;

use cryptonic_pci::host::Work;
use cryptonic_regs::Status;
use cryptonic_regs::completion::{
    ChecksumState, HashKind, ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSecurity,
    ReceiveSteering, ReceivedProtocol,
};

use crate::doorbells::Doorbell;
use crate::transmit::Fault;
use crate::{QueueError, QueuePair, SaHandle};

/// A received frame and its buffers, which go back with [`QueuePair::copy_out`] or
/// [`QueuePair::return_buffers`]. One that is dropped instead is lost to the queue pair.
#[must_use = "the buffers must go back to their queue pair"]
pub struct Received {
    /// The frame's last completion as it was checked. With several buffers, the upper half of the word of the SA's
    /// generation, which is 0 elsewhere, is what [`joined`] makes of them.
    pub(crate) completion: [u64; ReceiveCompletion::WORDS],
    pub(crate) owner: Owner,
}

/// Where a frame comes from: the marks of its queue pair and of its NIC in one word, copied and compared as such.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) fn new(queue: u32, nic: u32) -> Self {
        Owner(u64::from(nic) << 32 | u64::from(queue))
    }

    #[inline]
    fn queue(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn nic(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The buffers before the last of a frame, at least 1, and the bytes of all, for the upper half of a word.
pub(crate) fn joined(buffers_before: u8, bytes: u32) -> u64 {
    u64::from(buffers_before) << 56 | u64::from(bytes & JOINED_BYTES) << 32
}

/// The most that a frame of 256 buffers can have is less.
const JOINED_BYTES: u32 = (1 << 24) - 1;
const _: () = assert!(256 * crate::queue::BUFFER_BYTES_MAX <= JOINED_BYTES);

impl Received {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.completion[index]
    }

    #[inline]
    pub(crate) fn completed(&self) -> ReceiveCompleted {
        ReceiveCompleted::from_bits(self.word(0))
    }

    #[inline]
    fn security(&self) -> ReceiveSecurity {
        ReceiveSecurity::from_bits(self.word(1))
    }

    #[inline]
    fn steering(&self) -> ReceiveSteering {
        ReceiveSteering::from_bits(self.word(5))
    }

    #[inline]
    pub(crate) fn queue(&self) -> u32 {
        self.owner.queue()
    }

    /// Buffers of the frame before its last.
    #[inline]
    pub(crate) fn buffers_before(&self) -> u8 {
        (self.word(6) >> 56) as u8
    }

    /// Bytes of the frame.
    #[inline]
    pub fn length(&self) -> usize {
        if self.buffers_before() == 0 {
            self.completed().length().into()
        } else {
            ((self.word(6) >> 32) as u32 & JOINED_BYTES) as usize
        }
    }

    /// How many buffers it takes.
    #[inline]
    pub fn buffers(&self) -> usize {
        usize::from(self.buffers_before()) + 1
    }

    /// What became of the frame. Nothing but [`Status::Ok`] is a good one.
    #[inline]
    pub fn status(&self) -> Status {
        // The number was checked when the frame was taken; a number that is none is not a good one.
        match self.word(7) as u16 {
            0 => Status::Ok,
            number => Status::of_number(number.into()).unwrap_or(Status::BadInner),
        }
    }

    /// Whether it is a copy: a sampled packet, or one that failed and was captured, which its status tells.
    #[inline]
    pub fn is_copy(&self) -> bool {
        ReceiveCompletionEnd::from_bits(self.word(7)).copy()
    }

    /// What protected the packet.
    #[inline]
    pub fn protocol(&self) -> ReceivedProtocol {
        // The number was checked when the frame was taken.
        ReceivedProtocol::of_number(self.steering().protocol().into()).unwrap_or(ReceivedProtocol::Clear)
    }

    /// Next header that the protection named: 4 and 41 after tunnel mode, 144 for what is handed up as it is
    /// (RFC 9347), else the upper protocol; 0 for a packet without protection.
    #[inline]
    pub fn next_header(&self) -> u8 {
        ReceiveCompletionEnd::from_bits(self.word(7)).next_header()
    }

    /// The SA that opened the packet.
    #[inline]
    pub fn sa(&self) -> Option<SaHandle> {
        let generation = self.word(6) as u32;
        let (index, nic) = (self.completed().sa_index(), self.owner.nic());
        (generation != 0).then_some(SaHandle { index, generation, nic })
    }

    /// SPI of the packet, or 0.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.security().spi()
    }

    /// Cookie of the SA, or 0.
    #[inline]
    pub fn cookie(&self) -> u32 {
        self.security().cookie()
    }

    /// 64-bit sequence number (ESP), or 0.
    #[inline]
    pub fn sequence(&self) -> u64 {
        if self.steering().psp_cookie() { 0 } else { self.word(2) }
    }

    /// IV of the packet as a number, or 0.
    #[inline]
    pub fn iv(&self) -> u64 {
        self.word(3)
    }

    /// Device time when the frame's last byte arrived.
    #[inline]
    pub fn time_picoseconds(&self) -> u64 {
        self.word(4)
    }

    /// The Toeplitz hash of the packet and what it covers, if there is one.
    #[inline]
    pub fn hash(&self) -> Option<(u32, HashKind)> {
        // The number was checked when the frame was taken.
        match HashKind::of_number(self.steering().hash_kind().into()) {
            None | Some(HashKind::None) => None,
            Some(kind) => Some((self.steering().hash(), kind)),
        }
    }

    /// The checksum of the delivered packet's IPv4 header.
    #[inline]
    pub fn ip_checksum(&self) -> ChecksumState {
        checksum(self.steering().ip_checksum())
    }

    /// The checksum of the delivered packet's TCP or UDP header.
    #[inline]
    pub fn l4_checksum(&self) -> ChecksumState {
        checksum(self.steering().l4_checksum())
    }

    /// The checksum of the UDP header that carried ESP or PSP.
    #[inline]
    pub fn outer_checksum(&self) -> ChecksumState {
        checksum(self.steering().outer_checksum())
    }

    /// PSP: version of the packet.
    #[inline]
    pub fn psp_version(&self) -> u8 {
        self.steering().psp_version()
    }

    /// PSP: the S bit.
    #[inline]
    pub fn psp_sample(&self) -> bool {
        self.steering().psp_sample()
    }

    /// PSP: the D bit.
    #[inline]
    pub fn psp_drop(&self) -> bool {
        self.steering().psp_drop()
    }

    /// PSP: the device key that derived the packet's key, 0 or 1.
    #[inline]
    pub fn psp_device_key(&self) -> u8 {
        self.steering().psp_device_key().into()
    }

    /// PSP: the virtualization cookie, in the order of the wire.
    #[inline]
    pub fn psp_cookie(&self) -> Option<[u8; 8]> {
        self.steering().psp_cookie().then(|| self.word(2).to_le_bytes())
    }
}

/// The number was checked when the frame was taken.
#[inline]
fn checksum(number: u8) -> ChecksumState {
    ChecksumState::of_number(number.into()).unwrap_or(ChecksumState::NotChecked)
}

impl fmt::Debug for Received {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Received")
            .field("status", &self.status())
            .field("is_copy", &self.is_copy())
            .field("length", &self.length())
            .field("buffers", &self.buffers())
            .field("protocol", &self.protocol())
            .field("sa", &self.sa())
            .field("spi", &self.spi())
            .field("sequence", &self.sequence())
            .field("iv", &self.iv())
            .field("time_picoseconds", &self.time_picoseconds())
            .finish_non_exhaustive()
    }
}

impl QueuePair {
    pub(crate) fn post_every_buffer(&mut self) -> Result<(), QueueError> {
        for tag in 0..self.receive.slots() {
            self.receive.post(&self.memory.reads.memory, tag as u16)?;
        }
        self.announce_buffers()
    }

    /// Rings the receive doorbell, if there is something to announce.
    #[inline]
    pub(crate) fn announce_buffers(&mut self) -> Result<(), QueueError> {
        if let Some(produced) = self.receive.announce() {
            self.doorbells.ring(&*self.shared.host, Doorbell::Receive, produced)?;
        }
        Ok(())
    }

    /// Rings the doorbell when enough buffers have come together.
    #[inline]
    fn announce_some(&mut self) -> Result<(), QueueError> {
        if self.receive.waiting() * 8 >= self.receive.slots() && self.usable().is_ok() {
            self.announce_buffers()
        } else {
            Ok(())
        }
    }

    /// Takes up to `limit` received frames, good and bad. Gives how many.
    pub fn receive(&mut self, out: &mut Vec<Received>, limit: usize) -> Result<usize, QueueError> {
        self.usable()?;
        self.announce_buffers()?;
        let before = out.len();
        let outcome = self.receive.take(&self.memory.writes.memory, out, limit);
        let taken = out.len() - before;
        match outcome {
            Ok(()) if taken == 0 => {}
            Ok(()) => self.shared.host.spend(Work::Burst { packets: taken as u32 }),
            Err(Fault::Quarantine(reason)) => return Err(self.put_into_quarantine(reason)),
            Err(Fault::OutOfBounds) => return Err(QueueError::OutOfBounds),
        }
        Ok(taken)
    }

    /// Copies bytes of a frame, from `offset` of it on, as many as there are and fit. Gives how many. The parts of a
    /// frame of several buffers are joined.
    #[inline]
    pub fn read(&self, received: &Received, offset: usize, bytes: &mut [u8]) -> Result<usize, QueueError> {
        if received.queue() != self.identity {
            return Err(QueueError::Foreign);
        }
        let length = received.length().saturating_sub(offset).min(bytes.len());
        let bytes = bytes.get_mut(..length).unwrap_or(&mut []);
        self.count_copy(length);
        let memory = &self.memory.writes.memory;
        if received.buffers_before() == 0 {
            let start = self.receive.frame_offset(received.completed().tag());
            memory.read(start + offset, bytes)?;
        } else {
            self.receive.read_joined(memory, received, offset, bytes)?;
        }
        Ok(length)
    }

    /// Copies a frame out, as much as fits, and gives its buffers back. Gives how many bytes were copied.
    #[inline]
    pub fn copy_out(&mut self, received: Received, bytes: &mut [u8]) -> Result<usize, QueueError> {
        let length = self.read(&received, 0, bytes)?;
        self.return_buffer(received)?;
        Ok(length)
    }

    /// Gives a frame's buffers back. The device hears of it when some have come together, and at the next
    /// [`Self::receive`], [`Self::wait`] or [`Self::drain`].
    #[inline]
    pub fn return_buffer(&mut self, received: Received) -> Result<(), QueueError> {
        if received.queue() != self.identity {
            return Err(QueueError::Foreign);
        }
        if self.usable().is_err() {
            return Ok(()); // Nothing is posted any more; the buffer lives as long as the pair.
        }
        let memory = &self.memory.reads.memory;
        if received.buffers_before() == 0 {
            self.receive.post(memory, received.completed().tag())?;
        } else {
            self.receive.post_joined(memory, &received)?;
        }
        self.announce_some()
    }

    /// Gives the buffers of frames back. A frame of another queue pair ends the call, and stays with those behind it.
    pub fn return_buffers(&mut self, all: &mut Vec<Received>) -> Result<(), QueueError> {
        let usable = self.usable().is_ok();
        let returned = if usable {
            self.receive.post_frames(&self.memory.reads.memory, all)?
        } else {
            all.iter().take_while(|received| received.queue() == self.identity).count()
        };
        // What was posted must not be given back a second time.
        let outcome = if returned == all.len() {
            all.clear();
            Ok(())
        } else {
            all.drain(..returned);
            Err(QueueError::Foreign)
        };
        if usable {
            self.announce_buffers()?;
        }
        outcome
    }

    /// Buffers with received frames that have not come back.
    pub fn receive_held(&self) -> usize {
        self.receive.held()
    }
}
