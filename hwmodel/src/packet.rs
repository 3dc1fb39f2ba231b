//! A packet on its way through a NIC: one owned buffer with head- and tailroom, and what the stages know of
//! it. Packets are recycled: in the steady state nothing is allocated.

use crate::Ticks;
use cryptonic_regs::Status;
use cryptonic_regs::completion::ReceivedProtocol;
use cryptonic_wire::{Parsed, Room};

/// Room in front of a frame for an outer header and a protocol header.
pub const HEADROOM_BYTES: usize = 128;
/// Room behind a frame for trailer and ICV.
pub const TAILROOM_BYTES: usize = 64;

/// A packet and what the stages know of it.
pub struct Packet {
    storage: Box<[u8]>,
    start: usize,
    end: usize,
    /// When the doorbell that announced it was accepted; it travels with the packet to the far end.
    pub accepted_at: Ticks,
    /// When its last byte arrived here.
    pub arrived_at: Ticks,
    /// What became of it so far.
    pub status: Status,
    /// What protected it.
    pub protocol: ReceivedProtocol,
    /// Receive: what it goes to its queue for.
    pub purpose: Purpose,
    /// Receive: what lookup and opening found.
    pub received: Received,
    /// Receive: what the parser said.
    pub parsed: Option<Parsed>,
    /// Receive: where it goes in host memory.
    pub landing: Landing,
    /// Bytes it takes of the buffer between MAC and host memory.
    pub buffer_bytes: u64,
}

/// What a packet goes to a receive queue for, which decides what it is counted under and what becomes of it where there is
/// no buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It is a good packet, for whom it is addressed to.
    #[default]
    Delivery,
    /// It failed on receive: counted under its status, whether it finds a buffer or not.
    Capture,
    /// It stands beside a packet that is counted by itself: counted nowhere.
    Copy,
}

/// What the receive side found out about a packet.
#[derive(Clone, Copy, Default)]
pub struct Received {
    /// Receive queue.
    pub queue: u16,
    /// SA slot and its generation; generation 0 is none.
    pub sa_index: u32,
    /// Generation of the slot when the packet looked it up.
    pub sa_generation: u32,
    /// SPI, or 0.
    pub spi: u32,
    /// Host cookie of the SA.
    pub cookie: u32,
    /// ESP: 64-bit sequence number; PSP: the virtualization cookie, bytes in memory order; or 0.
    pub sequence: u64,
    /// IV as a number, or 0.
    pub iv: u64,
    /// PSP version.
    pub psp_version: u8,
    /// PSP S bit.
    pub psp_sample: bool,
    /// PSP D bit.
    pub psp_drop: bool,
    /// PSP device key.
    pub psp_device_key: bool,
    /// PSP: `sequence` is a virtualization cookie.
    pub psp_cookie: bool,
    /// PSP bytes by the specification's definition: after the IV to the last payload byte.
    pub psp_bytes: u64,
    /// What the protection named as the next header, or 0.
    pub next_header: u8,
    /// What was found about checksums.
    pub checksums: Checksums,
    /// Toeplitz hash, or 0.
    pub hash: u32,
    /// A `HashKind` number.
    pub hash_kind: u8,
    /// Receive scaling may choose the queue: no SA did.
    pub scaling: bool,
}

/// Where a packet goes that takes one buffer, and its completion.
#[derive(Clone, Copy, Default)]
pub struct Landing {
    /// IOVA of the buffer.
    pub buffer: u64,
    /// IOVA of the completion.
    pub completion: u64,
    /// Words of the completion.
    pub words: [u64; 8],
}

/// What was found about checksums, as `ChecksumState` numbers.
#[derive(Clone, Copy, Default)]
pub struct Checksums {
    /// Of the delivered packet's IPv4 header.
    pub ip: u8,
    /// Of its TCP or UDP header.
    pub l4: u8,
    /// Of the UDP header that carried ESP or PSP.
    pub outer: u8,
}

const ROOM_BYTES: usize = HEADROOM_BYTES + TAILROOM_BYTES;

impl Packet {
    fn new(frame_bytes: usize) -> Box<Self> {
        Box::new(Packet {
            storage: vec![0; frame_bytes + ROOM_BYTES].into_boxed_slice(),
            start: HEADROOM_BYTES,
            end: HEADROOM_BYTES,
            accepted_at: Ticks::ZERO,
            arrived_at: Ticks::ZERO,
            status: Status::Ok,
            protocol: ReceivedProtocol::Clear,
            purpose: Purpose::Delivery,
            received: Received::default(),
            parsed: None,
            landing: Landing::default(),
            buffer_bytes: 0,
        })
    }

    /// The frame.
    pub fn frame(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The frame, to be changed in place.
    #[inline]
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// Bytes of the frame, without FCS.
    pub fn bytes(&self) -> u64 {
        (self.end - self.start) as u64
    }

    /// Makes room for a frame of `bytes` at the usual place and gives it to be filled. `bytes` is at most
    /// what the packet was taken for.
    pub fn place(&mut self, bytes: usize) -> &mut [u8] {
        self.start = HEADROOM_BYTES;
        self.end = HEADROOM_BYTES + bytes;
        self.frame_mut()
    }

    /// Does `work` on the frame and its room; afterwards the frame is what the room says. On an error the
    /// frame is what it was, its bytes unspecified.
    #[inline]
    pub fn with_room<T, E>(&mut self, work: impl FnOnce(&mut Room<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut room = Room { storage: &mut self.storage, start: self.start, end: self.end };
        let result = work(&mut room)?;
        (self.start, self.end) = (room.start, room.end);
        Ok(result)
    }

    /// The same, with what the parser said of the frame; nothing is done if it said nothing.
    #[inline]
    pub fn with_parsed<T, E>(
        &mut self,
        work: impl FnOnce(&mut Room<'_>, &Parsed) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let parsed = self.parsed.as_ref()?;
        let mut room = Room { storage: &mut self.storage, start: self.start, end: self.end };
        let result = work(&mut room, parsed);
        if result.is_ok() {
            (self.start, self.end) = (room.start, room.end);
        }
        Some(result)
    }
}

/// Packets that are not in use, in two sizes: most frames are short, and short buffers lie closer together in
/// the caches of the machine that runs the model.
#[derive(Default)]
#[expect(
    clippy::vec_box,
    reason = "packets move from stage to stage by their box; taking one allocates nothing"
)]
pub struct PacketPool {
    short: Vec<Box<Packet>>,
    long: Vec<Box<Packet>>,
    long_frame_bytes: usize,
}

/// Frames up to this size take a short packet. With head- and tailroom it is no multiple of a page, so that the
/// same lines of different packets fall into different cache sets.
const SHORT_FRAME_BYTES: usize = 1_920;

impl PacketPool {
    /// Makes every further long packet large enough for frames of `frame_bytes`.
    pub fn grow(&mut self, frame_bytes: usize) {
        if frame_bytes > self.long_frame_bytes {
            self.long_frame_bytes = frame_bytes;
            self.long.clear();
        }
    }

    /// An empty packet with room for a frame of `frame_bytes`, at most what the pool was grown to.
    #[inline]
    pub fn take(&mut self, frame_bytes: usize) -> Box<Packet> {
        let short = frame_bytes <= SHORT_FRAME_BYTES;
        let free = if short { &mut self.short } else { &mut self.long };
        let Some(mut packet) = free.pop() else {
            return Packet::new(if short { SHORT_FRAME_BYTES } else { self.long_frame_bytes });
        };
        packet.status = Status::Ok;
        packet.protocol = ReceivedProtocol::Clear;
        packet.purpose = Purpose::Delivery;
        packet.received = Received::default();
        packet.parsed = None;
        packet
    }

    /// Gives a packet back. Its clear text is not wiped: it is the host's own data.
    #[inline]
    pub fn give(&mut self, packet: Box<Packet>) {
        let room = packet.storage.len();
        if room == SHORT_FRAME_BYTES + ROOM_BYTES {
            self.short.push(packet);
        } else if room == self.long_frame_bytes + ROOM_BYTES {
            self.long.push(packet);
        }
    }
}
