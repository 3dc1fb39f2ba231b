//! What goes to a queue of its own beside the traffic of PSP: packets that failed, for who looks for the reason, and copies of
//! packets that their sender marked (PSP specification, Implementation Requirements: captures in both directions, and the
//! bits S and D).
//!
//! ```text
//!   receive   fault ─────▶ one an interval ─┐
//!   transmit  refused ───▶ (the same one)  ─┼─▶ buffer at hand? ─▶ queue of captures, completion with `copy`
//!   receive   opened, S ─▶ one an interval ───▶ buffer at hand? ─▶ queue of samples,  completion with `copy`
//! ```
//!
//! Both directions share the interval of captures, as the register says it; samples have their own. A packet takes the
//! interval when it finds a buffer, and none waits for one, so a queue without buffers costs nothing and a flood of
//! faults costs one packet an interval of PCI Express and of that queue's buffers. They are buffers as any other: a good
//! packet for the same queue may come to find them taken, which a queue of its own avoids.
//!
//! A received packet is captured as it was on the wire, a refused one as the host gave it, without anything that the NIC
//! added. The status of its completion is its fault, never `ok`. It is counted once, under that fault; a sample is not
//! counted, its packet is. What is refused before its bytes were read from host memory cannot be captured, nor a frame
//! to be cut that is longer than the largest frame, nor one of a slot that is gone: nothing says that it was of PSP.

use crate::Ticks;
use cryptonic_regs::completion::ReceivedProtocol;
use cryptonic_regs::descriptor::{TransmitControl, TransmitPsp, TransmitSa};
use cryptonic_regs::psp_policy::{PspCapture, PspSampling};
use cryptonic_regs::{Status, rows::Value};
use cryptonic_wire::ip::protocol;
use cryptonic_wire::psp::{self, flag};
use cryptonic_wire::{parse_transmit, udp};

use crate::events::Pending;
use crate::gather::control_of;
use crate::nic::Nic;
use crate::packet::{Packet, PacketPool, Purpose, Received};
use crate::sa_parameters::Form;

/// What the host wants, and when it last got some.
#[derive(Default)]
pub(crate) struct PspCopies {
    capture: PspCapture,
    sampling: PspSampling,
    captured_at_picoseconds: Option<u64>,
    sampled_at_picoseconds: Option<u64>,
    /// A frame as it was on the wire, while it is opened in place. The hardware has it in the receive buffer anyway.
    kept: Vec<u8>,
}

impl PspCopies {
    /// The register of captures.
    pub(crate) fn capture(&self) -> PspCapture {
        self.capture
    }

    /// Writes the register of captures. Its interval begins anew.
    pub(crate) fn set_capture(&mut self, written: PspCapture) {
        self.capture = PspCapture::new()
            .with_queue(written.queue())
            .with_receive(written.receive())
            .with_transmit(written.transmit())
            .with_interval_us(written.interval_us());
        self.captured_at_picoseconds = None;
    }

    /// The register of samples.
    pub(crate) fn sampling(&self) -> PspSampling {
        self.sampling
    }

    /// Writes the register of samples. Its interval begins anew.
    pub(crate) fn set_sampling(&mut self, written: PspSampling) {
        self.sampling = PspSampling::new()
            .with_queue(written.queue())
            .with_enable(written.enable())
            .with_drop(written.drop())
            .with_interval_us(written.interval_us());
        self.sampled_at_picoseconds = None;
    }

    /// Keeps a frame that is about to be opened, if it would be captured. Most are not: then there is nothing to pay.
    #[inline]
    pub(crate) fn keep(&mut self, frame: &[u8], now_picoseconds: u64) -> bool {
        let due = self.receive_due(now_picoseconds);
        if due {
            self.kept.clear();
            self.kept.extend_from_slice(frame);
        }
        due
    }

    /// Puts the frame back that was kept: what an AEAD leaves of a packet that it refuses is nobody's to see.
    pub(crate) fn put_back(&self, frame: &mut [u8]) {
        if let Some(place) = frame.get_mut(..self.kept.len()) {
            place.copy_from_slice(&self.kept);
        }
    }

    #[inline]
    fn receive_due(&self, now_picoseconds: u64) -> bool {
        self.capture.receive()
            && is_over(self.captured_at_picoseconds, self.capture.interval_us(), now_picoseconds)
    }

    fn transmit_due(&self, now_picoseconds: u64) -> bool {
        self.capture.transmit()
            && is_over(self.captured_at_picoseconds, self.capture.interval_us(), now_picoseconds)
    }

    fn sample_due(&self, now_picoseconds: u64) -> bool {
        self.sampling.enable()
            && is_over(self.sampled_at_picoseconds, self.sampling.interval_us(), now_picoseconds)
    }
}

impl Nic {
    /// Marks a received PSP packet that has failed before the lanes for the queue of captures, if one is due. It goes on in
    /// the order of its arrival.
    pub(crate) fn mark_for_capture(&mut self, packet: &mut Packet, status: Status) -> bool {
        let due = self.psp_copies.receive_due(self.now_picoseconds());
        if due {
            packet.status = status;
            packet.purpose = Purpose::Capture;
            packet.protocol = ReceivedProtocol::Psp;
            if packet.received.spi == 0 {
                note_header(packet);
            }
        }
        due
    }

    /// A received PSP packet that failed is at commit: it is captured if it is marked for it and none went meanwhile, or
    /// dropped.
    pub(crate) fn capture_or_drop(&mut self, mut packet: Box<Packet>, status: Status, pool: &mut PacketPool) {
        if packet.purpose != Purpose::Capture || !self.psp_copies.receive_due(self.now_picoseconds()) {
            packet.purpose = Purpose::Delivery;
            self.drop_received(packet, status, pool);
            return;
        }
        packet.status = status;
        self.capture(packet, pool);
    }

    /// Captures a frame of PSP that was refused on transmit, if one is due.
    pub(crate) fn capture_refused(&mut self, pending: &Pending, status: Status, pool: &mut PacketPool) {
        let bytes = u64::from(pending.bytes);
        if !self.psp_copies.transmit_due(self.now_picoseconds())
            || status == Status::Ok
            || bytes > self.parameters.capacity.frame_bytes
            || self.receive.buffer.take(self.now, bytes).is_err()
        {
            return;
        }
        let mut packet = pool.take(pending.bytes as usize);
        packet.purpose = Purpose::Copy;
        packet.buffer_bytes = bytes;
        // Layout wrote over the frame; the transmit buffer still has it as the host gave it.
        if self.read_frame(pending, packet.place(pending.bytes as usize)).is_err() {
            self.drop_received(packet, status, pool);
            return;
        }
        packet.status = status;
        packet.protocol = ReceivedProtocol::Psp;
        packet.arrived_at = self.now;
        packet.received = self.refused(pending);
        self.capture(packet, pool);
    }

    /// A copy of an opened packet with the S bit, if one is due and the receive buffer has room for it.
    pub(crate) fn sample(&mut self, packet: &Packet, pool: &mut PacketPool) -> Option<Box<Packet>> {
        if !self.psp_copies.sample_due(self.now_picoseconds())
            || self.receive.buffer.take(self.now, packet.bytes()).is_err()
        {
            return None;
        }
        let frame = packet.frame();
        let mut copy = pool.take(frame.len());
        copy.place(frame.len()).copy_from_slice(frame);
        copy.purpose = Purpose::Copy;
        copy.buffer_bytes = packet.bytes();
        copy.status = packet.status;
        copy.protocol = packet.protocol;
        copy.arrived_at = packet.arrived_at;
        copy.accepted_at = Ticks::ZERO;
        copy.received = Received { queue: self.psp_copies.sampling.queue().into(), ..packet.received };
        Some(copy)
    }

    /// A sample goes to its queue.
    pub(crate) fn deliver_sample(&mut self, copy: Box<Packet>, pool: &mut PacketPool) {
        if self.deliver_beside(copy, pool) {
            self.psp_copies.sampled_at_picoseconds = Some(self.now_picoseconds());
        }
    }

    fn capture(&mut self, mut packet: Box<Packet>, pool: &mut PacketPool) {
        packet.received.queue = self.psp_copies.capture.queue().into();
        // How long it took from a doorbell says nothing of traffic.
        packet.accepted_at = Ticks::ZERO;
        if self.deliver_beside(packet, pool) {
            self.psp_copies.captured_at_picoseconds = Some(self.now_picoseconds());
        }
    }

    /// What is known of a frame that was to leave under PSP.
    fn refused(&self, pending: &Pending) -> Received {
        let control: TransmitControl = control_of(pending);
        let reference = TransmitSa::of_bits(pending.words[2]);
        let slot = self.sa_table.slot(reference.index()).filter(|_| pending.key.is_none());
        let (spi, version) = match slot.map(|sa| (&sa.form, sa.spi)) {
            Some((Form::Psp(form), spi)) => (spi, form.version.code()),
            _ => (TransmitPsp::of_bits(pending.words[2]).spi(), control.psp_version()),
        };
        Received {
            spi,
            psp_version: version,
            psp_sample: control.psp_sample(),
            psp_drop: control.psp_drop(),
            psp_device_key: spi >> 31 == 1,
            ..Received::default()
        }
    }
}

/// Where the PSP header of a frame is, if its ports say that it has one.
pub(crate) fn psp_offset(frame: &[u8], udp_port: u16) -> Option<usize> {
    let plain = parse_transmit(frame).ok()?;
    let to_psp = udp_port != 0 && plain.ports.is_some_and(|ports| ports.destination == udp_port);
    (plain.next_header == protocol::UDP && !plain.fragment && to_psp)
        .then(|| plain.l4_offset() + udp::HEADER_LENGTH)
}

/// Notes what a header says that is not right, as far as it is there.
fn note_header(packet: &mut Packet) {
    let Some(header) = parse_transmit(packet.frame())
        .ok()
        .and_then(|plain| packet.frame().get(plain.l4_offset() + udp::HEADER_LENGTH..plain.l3_end))
        .and_then(|bytes| bytes.first_chunk::<{ psp::HEADER_LENGTH }>())
    else {
        return;
    };
    let [_, _, _, flags, s0, s1, s2, s3, iv @ ..] = *header;
    let spi = u32::from_be_bytes([s0, s1, s2, s3]);
    packet.received.spi = spi;
    packet.received.iv = u64::from_be_bytes(iv);
    packet.received.psp_version = (flags & flag::VERSION) >> flag::VERSION_SHIFT;
    packet.received.psp_sample = flags & flag::SAMPLE != 0;
    packet.received.psp_drop = flags & flag::DROP != 0;
    packet.received.psp_device_key = spi >> 31 == 1;
}

/// Whether it is long enough since the last one.
#[inline]
fn is_over(last_picoseconds: Option<u64>, interval_us: u16, now_picoseconds: u64) -> bool {
    last_picoseconds.is_none_or(|last| now_picoseconds >= last + u64::from(interval_us) * 1_000_000)
}
