//! The PCI Express link of a NIC: a calendar each way, read tags, completion credits, and a count of bytes.
//!
//! A transaction of several packets is one reservation. With 64-bit addresses and no ECRC a memory write and
//! a read request cost 24 bytes of framing, sequence number, header and LCRC, a completion 20 (PCIe 4.0 2.2,
//! 3.6). The rate is that of the transaction layer: 128b/130b coding, acknowledgements, flow control updates
//! and skip sets taken off.

use std::collections::VecDeque;

use crate::Ticks;

use crate::calendar::Calendar;
use crate::parameters::PcieParameters;

/// Overhead of a memory write or of a read request.
pub const REQUEST_OVERHEAD_BYTES: u64 = 24;
/// Overhead of a completion with data.
pub const COMPLETION_OVERHEAD_BYTES: u64 = 20;
/// Units of the byte time: 1/1024 tick, so that rounding stays below 10^-6.
const BYTE_TIME_SHIFT: u32 = 10;

/// Bytes of an acknowledgement and of a flow control update on the link.
const DLLP_BYTES: f64 = 8.0;
/// A skip set of 4 bytes stands on every lane each 1538 bytes.
const SKIP_SHARE: f64 = 4.0 / 1538.0;

/// Rate of the transaction layer in Gb/s, each way: 128b/130b coding, and off that the acknowledgements and flow
/// control updates at the intervals that the specification recommends, and the skip sets.
pub fn transaction_rate_gbps(generation: u64, lanes: u64, mps_bytes: u64) -> f64 {
    let transfers_per_second = 8.0 * f64::powi(2.0, generation.clamp(3, 5) as i32 - 3);
    let raw = transfers_per_second * lanes as f64 * 128.0 / 130.0;
    let interval = update_interval_bytes(lanes, mps_bytes) as f64;
    raw * (1.0 - 2.0 * DLLP_BYTES / interval - SKIP_SHARE)
}

/// Byte times between two acknowledgements, and between two flow control updates (PCIe 4.0 2.6.1.2, 3.6.2.1, at
/// 8 GT/s and above): (MPS + 28) x factor / lanes + 115.
fn update_interval_bytes(lanes: u64, mps_bytes: u64) -> u64 {
    let tenths = match (lanes, mps_bytes) {
        (0..8, 0..512) => 14,
        (8, 0..512) => 25,
        (_, 0..512) => 30,
        (0..=8, _) => 10,
        _ => 20,
    };
    (mps_bytes + 28) * tenths / (10 * lanes) + 115
}

/// Bytes on the link for a write of `bytes`.
pub fn write_bytes(bytes: u64, mps_bytes: u64) -> u64 {
    bytes.div_ceil(mps_bytes) * REQUEST_OVERHEAD_BYTES + bytes
}

/// Bytes on the link for the requests of a read.
pub fn read_request_bytes(bytes: u64, mrrs_bytes: u64) -> u64 {
    bytes.div_ceil(mrrs_bytes) * REQUEST_OVERHEAD_BYTES
}

/// Bytes on the link for the completions of a read.
pub fn read_completion_bytes(bytes: u64, completion_bytes: u64) -> u64 {
    bytes.div_ceil(completion_bytes) * COMPLETION_OVERHEAD_BYTES + bytes
}

/// Tags that reads of packets leave to reads of descriptors and commands.
const DESCRIPTOR_TAGS: u64 = 8;

/// The link.
pub struct Pcie {
    parameters: PcieParameters,
    byte_time: u64,
    to_device: Calendar,
    to_host: Calendar,
    /// Requests leave in the order of the reads. One that waits for its turn, a tag or credits does not keep
    /// writes from the link.
    requests: Calendar,
    reads: VecDeque<Read>,
    tags_used: u64,
    read_bytes_in_flight: u64,
    bytes_to_device: u64,
    bytes_to_host: u64,
}

struct Read {
    done: Ticks,
    tags: u64,
    bytes: u64,
}

impl Pcie {
    /// An idle link.
    pub fn new(parameters: &PcieParameters) -> Self {
        let rate = transaction_rate_gbps(parameters.generation, parameters.lanes, parameters.mps_bytes);
        let picoseconds_per_byte = 8_000.0 / rate;
        let byte_time = (picoseconds_per_byte * 33.0 * f64::from(1 << BYTE_TIME_SHIFT)).round() as u64;
        Pcie {
            parameters: parameters.clone(),
            byte_time,
            to_device: Calendar::default(),
            to_host: Calendar::default(),
            requests: Calendar::default(),
            reads: VecDeque::new(),
            tags_used: 0,
            read_bytes_in_flight: 0,
            bytes_to_device: 0,
            bytes_to_host: 0,
        }
    }

    /// Whether a packet's read may be asked for at `now`; if not, when to ask again. Reads of packets leave a
    /// few tags, and credits for them, to reads of descriptors, which would else wait behind all packets that
    /// the transmit buffer has room for.
    ///
    /// A packet that takes more tags or credits than there ever are beside those waits for as many as there are.
    pub fn packet_read_allowed(&mut self, now: Ticks, tags: u64, bytes: u64) -> Result<(), Ticks> {
        self.retire_reads(now);
        let kept_bytes = DESCRIPTOR_TAGS * self.parameters.mrrs_bytes;
        let tags = tags.min(self.parameters.read_tags.saturating_sub(DESCRIPTOR_TAGS));
        let bytes = bytes.min(self.parameters.completion_credit_bytes.saturating_sub(kept_bytes));
        let allowed = self.tags_used + tags + DESCRIPTOR_TAGS <= self.parameters.read_tags
            && self.read_bytes_in_flight + bytes + kept_bytes <= self.parameters.completion_credit_bytes;
        match self.reads.front() {
            Some(read) if !allowed => Err(read.done),
            _ => Ok(()),
        }
    }

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        for calendar in [&mut self.to_device, &mut self.to_host, &mut self.requests] {
            calendar.begin_anew(by);
        }
        self.reads.iter_mut().for_each(|read| read.done = read.done.earlier_by(by));
    }

    /// Tags that a read of `bytes` takes.
    #[inline]
    pub fn tags_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.parameters.mrrs_bytes).max(1)
    }

    fn retire_reads(&mut self, now: Ticks) {
        while let Some(read) = self.reads.front()
            && read.done <= now
        {
            self.tags_used -= read.tags;
            self.read_bytes_in_flight -= read.bytes;
            self.reads.pop_front();
        }
    }

    /// The device reads `bytes` of host memory at `now`. Gives the time at which all of them are here; reads
    /// complete in the order in which they were asked for.
    pub fn read(&mut self, now: Ticks, bytes: u64) -> Ticks {
        self.read_later(now, now, bytes).done
    }

    /// The same, with a request that is ready at `ready`.
    pub fn read_later(&mut self, now: Ticks, ready: Ticks, bytes: u64) -> Arrival {
        let tags = self.tags_of(bytes);
        let mut start = ready;
        while let Some(read) = self.reads.front() {
            let room = self.tags_used + tags <= self.parameters.read_tags
                && self.read_bytes_in_flight + bytes <= self.parameters.completion_credit_bytes;
            if read.done > start && room {
                break;
            }
            start = start.max(read.done);
            self.tags_used -= read.tags;
            self.read_bytes_in_flight -= read.bytes;
            self.reads.pop_front();
        }
        let request = read_request_bytes(bytes, self.parameters.mrrs_bytes).max(REQUEST_OVERHEAD_BYTES);
        let span = self.span(request);
        let start = self.to_host.serve_later(now, start, span);
        let sent = self.requests.serve(start, span) + span;
        self.bytes_to_host += request;
        let completion = read_completion_bytes(bytes, self.parameters.completion_bytes);
        let span = self.span(completion);
        let latency = Ticks::from_nanoseconds(self.parameters.read_latency_ns);
        let begins = self.to_device.serve(sent + latency, span);
        let done = begins + span;
        let first_completion = COMPLETION_OVERHEAD_BYTES + bytes.min(self.parameters.completion_bytes);
        let first = done.min(begins + self.span(first_completion));
        self.bytes_to_device += completion;
        self.tags_used += tags;
        self.read_bytes_in_flight += bytes;
        self.reads.push_back(Read { done, tags, bytes });
        Arrival { first, done }
    }

    /// The device writes `bytes` to host memory from `now` on. Gives when the last byte has left, and when
    /// the host sees it.
    pub fn write(&mut self, now: Ticks, bytes: u64) -> Written {
        let on_link = write_bytes(bytes, self.parameters.mps_bytes);
        let span = self.span(on_link);
        let left = self.to_host.serve(now, span) + span;
        self.bytes_to_host += on_link;
        Written { left, visible: left + Ticks::from_nanoseconds(self.parameters.write_latency_ns) }
    }

    /// The host writes a register at `now`. Gives when it arrives.
    pub fn register_write(&mut self, now: Ticks, bytes: u64) -> Ticks {
        let on_link = write_bytes(bytes, self.parameters.mps_bytes);
        let span = self.span(on_link);
        self.to_device.steal(now, span);
        self.bytes_to_device += on_link;
        now + span + Ticks::from_nanoseconds(self.parameters.write_latency_ns)
    }

    /// The host reads a register at `now`. Gives when the request arrives.
    pub fn register_read(&mut self, now: Ticks) -> Ticks {
        let span = self.span(REQUEST_OVERHEAD_BYTES);
        self.to_device.steal(now, span);
        self.bytes_to_device += REQUEST_OVERHEAD_BYTES;
        now + span + Ticks::from_nanoseconds(self.parameters.write_latency_ns)
    }

    /// The device answers a register read at `now`. Gives when the host has the answer. A completion does not
    /// pass posted writes (PCIe 4.0 2.4.1): the host then sees every write that the device made before.
    pub fn register_answer(&mut self, now: Ticks) -> Ticks {
        let span = self.span(COMPLETION_OVERHEAD_BYTES + 4);
        let left = self.to_host.serve(now, span) + span;
        self.bytes_to_host += COMPLETION_OVERHEAD_BYTES + 4;
        left + Ticks::from_nanoseconds(self.parameters.write_latency_ns)
    }

    /// Bytes carried so far, to the device and to the host.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_to_device, self.bytes_to_host)
    }

    /// Time the link was in use so far, to the device and to the host.
    pub fn busy(&self) -> (Ticks, Ticks) {
        (self.to_device.busy(), self.to_host.busy())
    }

    fn span(&self, bytes: u64) -> Ticks {
        Ticks((bytes * self.byte_time) >> BYTE_TIME_SHIFT)
    }
}

/// The two times of a read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When the first completion is here, and the first bytes with it.
    pub first: Ticks,
    /// When all bytes are here.
    pub done: Ticks,
}

/// The two times of a posted write.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// When its last byte has left the device.
    pub left: Ticks,
    /// When the host sees it.
    pub visible: Ticks,
}

#[cfg(test)]
mod tests {
    use cryptonic_pci::Time;

    use super::*;

    /// Rates that pcie-bench's model (Neugebauer et al., SIGCOMM 2018) gives.
    #[test]
    fn rates_are_those_of_the_published_model() {
        for (generation, lanes, mps_bytes, published) in [
            (3, 8, 256, 57.88),
            (3, 16, 256, 113.70),
            (4, 8, 256, 115.77),
            (4, 16, 256, 227.40),
            (5, 16, 256, 454.80),
        ] {
            let rate = transaction_rate_gbps(generation, lanes, mps_bytes);
            assert!((rate - published).abs() < 0.006, "gen {generation} x{lanes}: {rate}");
        }
    }

    /// Intervals at 8 GT/s that the specification tabulates (PCIe 4.0 tables 2-47 and 3-8).
    #[test]
    fn intervals_are_those_of_the_specification() {
        for (lanes, row) in [
            (1, [333, 512, 655, 1167, 2191, 4239]),
            (2, [224, 313, 385, 641, 1153, 2177]),
            (4, [169, 214, 250, 378, 634, 1146]),
            (8, [163, 203, 182, 246, 374, 630]),
            (16, [144, 168, 182, 246, 374, 630]),
        ] {
            for (log2, interval) in (7..).zip(row) {
                assert_eq!(update_interval_bytes(lanes, 1 << log2), interval, "x{lanes}, MPS {}", 1 << log2);
            }
        }
    }

    #[test]
    fn an_unloaded_read_takes_request_latency_and_completion() {
        let mut link = Pcie::new(&PcieParameters::default());
        let done = link.read(Ticks::ZERO, 64);
        let nanoseconds = Time::from(done).nanoseconds();
        // 24 bytes up, 540 ns, 84 bytes down at 28.4 bytes a nanosecond.
        assert!((nanoseconds - (540.0 + 108.0 * 8.0 / 227.4)).abs() < 0.01, "{nanoseconds}");
        assert_eq!(link.bytes(), (84, 24));
    }

    #[test]
    fn tags_limit_the_reads_in_flight() {
        let parameters = PcieParameters { read_tags: 32, ..Default::default() };
        let mut link = Pcie::new(&parameters);
        let done: Vec<_> = (0..64).map(|_| link.read(Ticks::ZERO, 64)).collect();
        assert!(done[31] < Ticks::from_nanoseconds(660));
        assert!(done[32] > Ticks::from_nanoseconds(1_080));
    }

    #[test]
    fn a_write_does_not_wait_for_a_read_that_waits_for_a_tag() {
        let mut link = Pcie::new(&PcieParameters { read_tags: 32, ..Default::default() });
        let last = (0..64).map(|_| link.read(Ticks::ZERO, 64)).last();
        assert!(last > Some(Ticks::from_nanoseconds(1_080)));
        // 64 requests of 24 bytes are before it.
        let left = Time::from(link.write(Ticks::ZERO, 64).left).nanoseconds();
        assert!((left - (64.0 * 24.0 + 88.0) * 8.0 / 227.4).abs() < 0.01, "{left}");
    }
}
