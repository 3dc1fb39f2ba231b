//! Two NICs that nothing joins: what one sends is compared with the witness, and what the witness sends is given to
//! the other.

use cryptonic_driver::{
    ChecksumState, InlinePolicy, Nic, Offload, Protection, PushPolicy, QueuePair, QueuePairOptions, Received,
    ReceivedProtocol, Status, TransmitPacket,
};

use cryptonic_hwmodel::{Parameters, World};

use crate::bench::{Backend, Device, Lab};

/// How a frame is handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub name: &'static str,
    pub stride: u32,
    pub inline: InlinePolicy,
    pub push: PushPolicy,
    /// In how many pieces, of buffers or of registered memory.
    pub pieces: usize,
    pub registered: bool,
}

const BASE: Format = Format {
    name: "32",
    stride: 32,
    inline: InlinePolicy::Never,
    push: PushPolicy::Never,
    pieces: 1,
    registered: false,
};

/// Every descriptor format.
pub const FORMATS: [Format; 8] = [
    BASE,
    Format { name: "32, three pieces", pieces: 3, ..BASE },
    Format { name: "32, registered memory", pieces: 2, registered: true, ..BASE },
    Format { name: "64, inline heads", stride: 64, inline: InlinePolicy::Heads { bytes: 32 }, ..BASE },
    Format { name: "64, pushed", stride: 64, push: PushPolicy::WhenIdle, ..BASE },
    Format {
        name: "128, inline heads, pieces",
        stride: 128,
        inline: InlinePolicy::Heads { bytes: 33 },
        pieces: 2,
        ..BASE
    },
    Format { name: "128, whole frames", stride: 128, inline: InlinePolicy::WholeFrames, ..BASE },
    Format {
        name: "128, whole frames, pushed",
        stride: 128,
        inline: InlinePolicy::WholeFrames,
        push: PushPolicy::WhenIdle,
        ..BASE
    },
];

/// The longest frame of a case, with what protection adds, fits a buffer.
const BUFFER_BYTES: u32 = 16384;

/// What became of a frame that was given to the receiver.
#[derive(Debug)]
pub struct Delivered {
    pub frame: Vec<u8>,
    pub facts: Facts,
}

/// What its completion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub status: Status,
    pub protocol: ReceivedProtocol,
    pub next_header: u8,
    pub spi: u32,
    pub sequence: u64,
    pub iv: u64,
    pub ip_checksum: ChecksumState,
    pub l4_checksum: ChecksumState,
    pub outer_checksum: ChecksumState,
    pub psp_version: u8,
    pub psp_sample: bool,
    pub psp_drop: bool,
    pub psp_cookie: Option<[u8; 8]>,
}

impl Facts {
    fn of(received: &Received) -> Self {
        Facts {
            status: received.status(),
            protocol: received.protocol(),
            next_header: received.next_header(),
            spi: received.spi(),
            sequence: received.sequence(),
            iv: received.iv(),
            ip_checksum: received.ip_checksum(),
            l4_checksum: received.l4_checksum(),
            outer_checksum: received.outer_checksum(),
            psp_version: received.psp_version(),
            psp_sample: received.psp_sample(),
            psp_drop: received.psp_drop(),
            psp_cookie: received.psp_cookie(),
        }
    }
}

/// A sender with a queue pair for each format it needs, and a receiver.
pub struct Rig {
    queues: Vec<(Format, QueuePair)>,
    receive_queue: QueuePair,
    pub sender: Nic,
    pub receiver: Nic,
    sender_lab: Lab,
    receiver_lab: Lab,
}

impl Rig {
    /// In this process.
    pub fn new(formats: &[Format]) -> Self {
        Rig::on(Backend::InProcess, formats)
    }

    /// In this process, with knobs.
    pub fn with(formats: &[Format], parameters: &Parameters) -> Self {
        let world = World::new(1);
        Rig::of([(); 2].map(|()| Device::in_process(&world, parameters)), formats)
    }

    pub fn on(backend: Backend, formats: &[Format]) -> Self {
        let devices = backend.devices(2);
        Rig::of(devices.try_into().unwrap_or_else(|_| panic!("two devices")), formats)
    }

    fn of(devices: [Device; 2], formats: &[Format]) -> Self {
        let [(mut sender, sender_lab), (mut receiver, mut receiver_lab)] = devices.map(Device::open);
        let options = QueuePairOptions {
            transmit_slots: 16,
            receive_slots: 16,
            buffer_bytes: BUFFER_BYTES,
            clear_allowed: true,
            ..QueuePairOptions::new()
        };
        let queue = |format: &Format| {
            let Format { stride, inline, push, .. } = *format;
            let options = QueuePairOptions { stride, inline, push, ..options };
            (*format, sender.create_queue_pair(options).expect(format.name))
        };
        let queues = formats.iter().map(queue).collect();
        let receive_queue = receiver.create_queue_pair(options).expect("queue pair");
        // The buffers are posted; now the device knows.
        receiver_lab.settle();
        Rig { queues, receive_queue, sender, receiver, sender_lab, receiver_lab }
    }

    /// Room for a PSP key in each queue pair's descriptors, or not.
    pub fn queue(&mut self, format: usize) -> &mut QueuePair {
        &mut self.queues[format].1
    }

    /// Sends a frame in a format; gives what it became on the wire, or why it did not leave.
    pub fn send(&mut self, format: usize, frame: &[u8], protection: Protection) -> Result<Vec<u8>, Status> {
        let mut sent = self.send_many(format, frame, protection, Offload::NONE)?;
        assert_eq!(sent.len(), 1, "one frame leaves");
        Ok(sent.remove(0))
    }

    /// As [`Self::send`], with what the device does before; several frames may leave.
    pub fn send_many(
        &mut self,
        format: usize,
        frame: &[u8],
        protection: Protection,
        offload: Offload,
    ) -> Result<Vec<Vec<u8>>, Status> {
        let (format, queue) = &mut self.queues[format];
        let mut buffer = queue.take_buffer().expect("a buffer");
        let piece = frame.len().div_ceil(format.pieces).clamp(1, BUFFER_BYTES as usize);
        let mut pieces = frame.chunks(piece);
        queue.fill(&mut buffer, pieces.next().unwrap_or(&[])).expect("fits");
        for bytes in pieces {
            if format.registered {
                let mut region = self.sender.register_memory(bytes.len()).expect("memory");
                region.write(0, bytes).expect("fits");
                queue.attach_region(&mut buffer, region).expect("attached");
            } else {
                let mut more = queue.take_buffer().expect("a buffer");
                queue.fill(&mut more, bytes).expect("fits");
                queue.attach_buffer(&mut buffer, more).expect("attached");
            }
        }
        let packet = TransmitPacket { offload, ..TransmitPacket::new(buffer, protection, 0) };
        assert_eq!(queue.transmit(&mut vec![packet]).expect("transmit"), 1);
        let mut done = vec![];
        queue.drain(queue.time() + self.sender_lab.patience(), &mut done).expect("an end");
        queue.reclaim(&mut vec![]);
        self.sender_lab.settle();
        let sent = self.sender_lab.take_sent();
        match done.last().map(|done| done.status) {
            Some(Status::Ok) => Ok(sent),
            Some(status) => {
                assert!(sent.is_empty(), "{} leaves nothing", status.name());
                Err(status)
            }
            None => panic!("no completion"),
        }
    }

    /// Gives a frame to the receiver; what is delivered, or why it is not.
    pub fn receive(&mut self, frame: &[u8]) -> Result<Delivered, Status> {
        self.receiver_lab.inject(frame);
        let mut received = vec![];
        self.receive_queue.receive(&mut received, 8).expect("receive");
        let drops = self.receiver_lab.take_drops();
        let Some(one) = received.pop() else {
            return Err(*drops.first().expect("a frame is delivered or dropped for a reason"));
        };
        assert!(received.is_empty() && drops.is_empty(), "one frame in, one out");
        let mut bytes = vec![0; one.length()];
        self.receive_queue.read(&one, 0, &mut bytes).expect("in range");
        let facts = Facts::of(&one);
        self.receive_queue.return_buffer(one).expect("goes back");
        if facts.status == Status::Ok { Ok(Delivered { frame: bytes, facts }) } else { Err(facts.status) }
    }
}
