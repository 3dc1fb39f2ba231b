//! Sending: packets, their buffers and pieces, and what becomes of them. The ring itself is in
//! [`crate::transmit_ring`].

use cryptonic_pci::Bar;
use cryptonic_pci::host::{HostError, Work};
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_regs::Status;
use cryptonic_regs::descriptor::{SourcePortPolicy, TransmitControl, TransmitExtent};
use cryptonic_regs::doorbell::DOORBELL_PAGE_BYTES;

use crate::doorbells::Doorbell;
use crate::psp_keys::PspKeyId;
use crate::region::Region;
use crate::transmit_ring::Piece;
use crate::{Quarantine, QueueError, QueuePair, SaHandle, SecretKey};

/// A frame buffer of a queue pair, with whatever is attached to it. It is moved into the ring with its packet
/// and comes back to the queue pair when the packet has ended.
#[derive(Debug)]
#[repr(C)]
pub struct TransmitBuffer {
    pub(crate) queue: u32,
    /// Where it begins, in bytes behind the queue pair's first buffer.
    pub(crate) place: u32,
    pub(crate) length: u32,
    /// The first attached piece, as its number in the queue pair's pool and 1; 0 if there is none.
    pub(crate) chain: u32,
}

impl TransmitBuffer {
    /// Bytes of the frame in the buffer itself, without what is attached to it.
    pub fn length(&self) -> usize {
        self.length as usize
    }
}

/// How a packet is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)] // A tag of its own is quicker to look at than one that shares a field.
pub enum Protection {
    /// It leaves as it is.
    Clear,
    /// By an SA.
    Sa(SaHandle),
    /// PSP, with a key of the queue pair.
    PspKey(PspTransmit),
}

/// How a packet is protected by PSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PspTransmit {
    /// Version, SPI and key.
    pub key: PspKeyId,
    /// Crypt offset in units of 4 bytes, 0 to 63.
    pub crypt_offset: u8,
    /// The UDP source port.
    pub source_port: SourcePort,
    /// The S bit.
    pub sample: bool,
    /// The D bit.
    pub drop: bool,
    /// The virtualization cookie, in the order of the wire; stride 128.
    pub cookie: Option<[u8; 8]>,
    /// The frame has its UDP and PSP headers already: the device sets SPI, IV, lengths and checksums and adds
    /// the ICV; crypt offset, S, D and cookie are those of the frame and must not be given here.
    pub preformatted: bool,
}

impl PspTransmit {
    /// Protection by this key, everything encrypted, source port by entropy.
    pub fn new(key: PspKeyId) -> Self {
        PspTransmit {
            key,
            crypt_offset: 0,
            source_port: SourcePort::Entropy,
            sample: false,
            drop: false,
            cookie: None,
            preformatted: false,
        }
    }
}

/// How the UDP source port of a PSP packet is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePort {
    /// A keyed hash of the flow.
    Entropy,
    /// Source port exclusive-or destination port.
    PortsXor,
    /// This one; in a pre-formatted frame, the one that stands there.
    Fixed(u16),
    /// An entry of the device's table, by the keyed hash of the flow.
    Table,
}

impl SourcePort {
    /// The policy as the contract knows it, and the port.
    pub(crate) fn policy(self) -> (SourcePortPolicy, u16) {
        match self {
            SourcePort::Entropy => (SourcePortPolicy::Entropy, 0),
            SourcePort::PortsXor => (SourcePortPolicy::PortsXor, 0),
            SourcePort::Fixed(port) => (SourcePortPolicy::Fixed, port),
            SourcePort::Table => (SourcePortPolicy::Table, 0),
        }
    }
}

/// What the device does to a frame before it protects it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload(u32);

impl Offload {
    /// Nothing.
    pub const NONE: Offload = Offload(0);
    const SEGMENT_MASK: u32 = (1 << 14) - 1;
    const IP_CHECKSUM: u32 = 1 << 16;
    const L4_CHECKSUM: u32 = 1 << 17;
    const DUMMY: u32 = 1 << 18;

    /// Computes the checksum of the IPv4 header.
    pub const fn ip_checksum(self) -> Self {
        Offload(self.0 | Self::IP_CHECKSUM)
    }

    /// Computes the checksum of the TCP or UDP header.
    pub const fn l4_checksum(self) -> Self {
        Offload(self.0 | Self::L4_CHECKSUM)
    }

    /// Cuts the frame into segments of at most `payload_bytes` of TCP payload, 1 to 16383. A larger number is cut
    /// to that; 0 does not segment.
    pub const fn segments(self, payload_bytes: u16) -> Self {
        let most =
            if payload_bytes as u32 > Self::SEGMENT_MASK { Self::SEGMENT_MASK } else { payload_bytes as u32 };
        Offload(self.0 & !Self::SEGMENT_MASK | most)
    }

    /// ESP in tunnel mode: the packet leaves as a dummy packet (RFC 4303 2.6).
    pub const fn dummy(self) -> Self {
        Offload(self.0 | Self::DUMMY)
    }

    pub(crate) fn maximum_segment(self) -> u16 {
        (self.0 & Self::SEGMENT_MASK) as u16
    }

    pub(crate) fn asks_checksum(self) -> bool {
        self.0 & (Self::IP_CHECKSUM | Self::L4_CHECKSUM) != 0
    }

    pub(crate) fn asks_dummy(self) -> bool {
        self.0 & Self::DUMMY != 0
    }

    pub(crate) fn control(self) -> TransmitControl {
        TransmitControl::new()
            .with_ip_checksum(self.0 & Self::IP_CHECKSUM != 0)
            .with_l4_checksum(self.0 & Self::L4_CHECKSUM != 0)
            .with_esp_dummy(self.0 & Self::DUMMY != 0)
    }
}

/// Which bytes of a frame stand in the descriptor itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InlinePolicy {
    /// None.
    #[default]
    Never,
    /// The first `bytes` of each frame, as far as the slot has room.
    Heads {
        /// How many.
        bytes: u8,
    },
    /// All of a frame that fits into the slot, none of a longer one.
    WholeFrames,
}

/// When a descriptor is pushed into the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushPolicy {
    /// Never.
    #[default]
    Never,
    /// When a call sends one packet of one descriptor and nothing is in flight; stride 64 or 128.
    WhenIdle,
}

/// A packet to be sent: the bytes of its buffer, then those of what is attached to it.
#[derive(Debug)]
#[repr(C)] // What makes a packet special stands together: the last word of the buffer, and the first behind it.
pub struct TransmitPacket {
    /// The frame.
    pub buffer: TransmitBuffer,
    /// What is done to it before it is protected.
    pub offload: Offload,
    /// Ask for a completion of its own.
    pub report: bool,
    /// Comes back when the packet has ended.
    pub cookie: u64,
    /// How it is protected.
    pub protection: Protection,
}

impl TransmitPacket {
    /// A packet without offloads and without a completion of its own.
    #[inline]
    pub fn new(buffer: TransmitBuffer, protection: Protection, cookie: u64) -> Self {
        TransmitPacket { buffer, offload: Offload::NONE, report: false, cookie, protection }
    }

    /// Whether it is more than one buffer sent as it is.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        u64::from(self.buffer.chain) | u64::from(self.offload.0) << 32 != 0
    }
}

/// Packets that ended: those before the last went well, the last as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmitted {
    /// How many packets, in the order in which they were sent.
    pub packets: u32,
    /// Cookie of the last.
    pub cookie: u64,
    /// What became of the last.
    pub status: Status,
    /// SA slot of the last, or 0.
    pub sa_index: u32,
    /// 64-bit sequence number (ESP) or IV (PSP) of the last, or 0.
    pub sequence: u64,
    /// Device time when the fate of the last was known.
    pub time_picoseconds: u64,
}

/// Registered memory that comes back: its packet has ended.
#[derive(Debug)]
pub struct Reclaimed {
    /// Cookie of the packet; `None` if it was given back unsent.
    pub cookie: Option<u64>,
    /// The memory.
    pub region: Region,
}

/// What a queue pair did, since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Copies between the caller's memory and that of the device.
    pub copies: u64,
    /// Bytes so copied.
    pub copied_bytes: u64,
    /// Bytes copied into descriptors.
    pub inline_bytes: u64,
    /// Packets of several descriptors.
    pub chained_packets: u64,
    /// Descriptors pushed into the device.
    pub pushes: u64,
    /// Transmit doorbells written to their register.
    pub doorbells: u64,
}

impl QueuePair {
    /// Takes a free buffer. One that is not transmitted is given back by [`Self::give_back`].
    #[inline]
    pub fn take_buffer(&mut self) -> Option<TransmitBuffer> {
        let place = self.transmit.free.pop()?;
        Some(TransmitBuffer { queue: self.identity, place, length: 0, chain: 0 })
    }

    /// Gives a buffer back that is not to be transmitted. Registered memory attached to it comes back through
    /// [`Self::reclaim`].
    pub fn give_back(&mut self, buffer: TransmitBuffer) -> Result<(), QueueError> {
        if buffer.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        self.transmit.pieces.release(buffer.chain, None, &mut self.transmit.free);
        self.transmit.free.push(buffer.place);
        Ok(())
    }

    /// Copies a frame into a buffer, in place of what was in it.
    #[inline]
    pub fn fill(&self, buffer: &mut TransmitBuffer, bytes: &[u8]) -> Result<(), QueueError> {
        buffer.length = 0;
        self.append(buffer, bytes)
    }

    /// Copies bytes into a buffer, behind what is in it and before what is attached to it.
    #[inline]
    pub fn append(&self, buffer: &mut TransmitBuffer, bytes: &[u8]) -> Result<(), QueueError> {
        if buffer.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        let room = self.buffer_bytes() - buffer.length();
        if bytes.len() > room {
            return Err(QueueError::TooLong { bytes: bytes.len(), room });
        }
        let start = self.transmit.frames_offset + buffer.place as usize;
        self.memory.reads.memory.write(start + buffer.length(), bytes)?;
        self.count_copy(bytes.len());
        buffer.length += bytes.len() as u32;
        Ok(())
    }

    /// Puts another buffer's bytes behind everything that is in `buffer` and attached to it. A buffer that cannot be
    /// attached comes back with the reason.
    pub fn attach_buffer(
        &mut self,
        buffer: &mut TransmitBuffer,
        more: TransmitBuffer,
    ) -> Result<(), (QueueError, TransmitBuffer)> {
        if buffer.queue != self.identity || more.queue != self.identity {
            return Err((QueueError::Foreign, more));
        }
        if more.chain != 0 {
            return Err((QueueError::Argument("what is attached has nothing attached itself"), more));
        }
        let piece = Piece::Buffer { place: more.place, length: more.length };
        self.transmit.pieces.append(&mut buffer.chain, piece);
        Ok(())
    }

    /// Puts registered memory behind everything that is in `buffer` and attached to it, without a copy. It comes back
    /// through [`Self::reclaim`]. What cannot be attached comes back with the reason.
    pub fn attach_region(
        &mut self,
        buffer: &mut TransmitBuffer,
        region: Region,
    ) -> Result<(), (QueueError, Region)> {
        if buffer.queue != self.identity || !region.is_of(&self.shared) {
            return Err((QueueError::Foreign, region));
        }
        if region.bytes() == 0 || region.bytes() > usize::from(u16::MAX) {
            return Err((QueueError::Argument("a piece of a frame has 1 to 65535 bytes"), region));
        }
        self.transmit.pieces.append(&mut buffer.chain, Piece::Region(region));
        Ok(())
    }

    /// Takes the registered memory whose packets have ended. Gives how many pieces.
    pub fn reclaim(&mut self, out: &mut Vec<Reclaimed>) -> usize {
        let count = self.transmit.pieces.reclaimed.len();
        out.append(&mut self.transmit.pieces.reclaimed);
        count
    }

    /// Keeps a PSP key for packets of this pair, until it is removed or the pair is closed.
    pub fn add_psp_key(&mut self, version: u8, spi: u32, key: &SecretKey) -> Result<PspKeyId, QueueError> {
        self.usable()?;
        if self.transmit.stride_log2() < 6 {
            return Err(QueueError::NoRoomForKey);
        }
        self.transmit.keys.add(self.identity, version, spi, key)
    }

    /// Forgets a PSP key. Descriptors under way keep their copies until they are retired.
    pub fn remove_psp_key(&mut self, id: PspKeyId) -> Result<(), QueueError> {
        self.transmit.keys.remove(self.identity, id)
    }

    /// Moves packets from the front of `batch` into the ring, as many as there is space for, and rings the
    /// doorbell once. A packet that cannot be sent ends the call before it; at the front it is an error, and
    /// stays there.
    pub fn transmit(&mut self, batch: &mut Vec<TransmitPacket>) -> Result<usize, QueueError> {
        self.usable()?;
        let memory = &self.memory.reads.memory;
        let side = &mut self.transmit;
        let idle = side.in_flight() == 0;
        let before = side.produced();
        let (sent, outcome) = side.put(memory, batch);
        if sent == 0 {
            return outcome.map(|()| 0);
        }
        side.report_last(memory)?;
        if sent == batch.len() {
            batch.clear();
        } else {
            batch.drain(..sent);
        }
        self.memory.set_in_flight(side.numbers_in_flight());
        self.shared.host.spend(Work::Burst { packets: sent as u32 });
        let one = side.produced().wrapping_sub(before) == 1;
        if idle && one && side.push == PushPolicy::WhenIdle && self.push()? {
            return Ok(sent);
        }
        let produced = self.transmit.produced();
        let rung = self.doorbells.ring(&*self.shared.host, Doorbell::Transmit, produced)?;
        self.statistics.doorbells += u64::from(rung);
        Ok(sent)
    }

    /// Pushes the slot made last into the window whose turn it is. Gives whether the host can do that.
    fn push(&mut self) -> Result<bool, QueueError> {
        let side = &mut self.transmit;
        let producer = TransmitExtent::new().with_producer(side.produced() as u16);
        let lines = side.lines_of_last(&self.memory.reads.memory, producer)?;
        let window = side.take_window() + self.memory.index * DOORBELL_PAGE_BYTES;
        let count = (1usize << side.stride_log2()) / 64;
        for (line, offset) in lines.iter().take(count).zip((window..).step_by(64)) {
            match self.shared.host.push64(Bar::Bar2, offset, line) {
                Ok(()) => {}
                Err(HostError::Unsupported(_)) => {
                    side.push = PushPolicy::Never;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.statistics.pushes += 1;
        Ok(true)
    }

    /// Takes the completions that are there: one entry in `out` for each, which stands for one packet or
    /// more. Gives the number of packets.
    pub fn completed(&mut self, out: &mut Vec<Transmitted>) -> Result<usize, QueueError> {
        self.usable()?;
        let before = out.len();
        let outcome = self.transmit.take_completions(&self.memory, out);
        let taken = out.get(before..).unwrap_or(&[]);
        if !taken.is_empty() {
            self.memory.set_in_flight(self.transmit.numbers_in_flight());
        }
        match outcome {
            Ok(()) => Ok(taken.iter().map(|ended| ended.packets as usize).sum()),
            Err(Fault::Quarantine(reason)) => Err(self.put_into_quarantine(reason)),
            Err(Fault::OutOfBounds) => Err(QueueError::OutOfBounds),
        }
    }

    /// Slots of the transmit ring that are free.
    #[inline]
    pub fn transmit_space(&self) -> usize {
        (self.transmit.slots() - self.transmit.in_flight()) as usize
    }

    /// Transmit descriptors that were not completed yet.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.transmit.in_flight() as usize
    }

    /// What the pair did so far.
    pub fn statistics(&self) -> QueueStatistics {
        QueueStatistics {
            copies: self.copies.get(),
            copied_bytes: self.copied_bytes.get(),
            inline_bytes: self.transmit.inline_bytes,
            chained_packets: self.transmit.chained_packets,
            ..self.statistics
        }
    }

    #[inline]
    pub(crate) fn count_copy(&self, bytes: usize) {
        self.copies.set(self.copies.get() + 1);
        self.copied_bytes.set(self.copied_bytes.get() + bytes as u64);
    }
}

/// Why a burst ended early.
pub(crate) enum Fault {
    Quarantine(Quarantine),
    OutOfBounds,
}

impl From<Quarantine> for Fault {
    #[cold]
    fn from(reason: Quarantine) -> Self {
        Fault::Quarantine(reason)
    }
}

impl From<OutOfBounds> for Fault {
    #[cold]
    fn from(_: OutOfBounds) -> Self {
        Fault::OutOfBounds
    }
}
