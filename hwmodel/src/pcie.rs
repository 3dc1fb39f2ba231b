//! The PCI Express link of a NIC: a calendar each way, read tags, completion credits, and a count of bytes.
//!
//! A transaction of several packets is one reservation. With 64-bit addresses and no ECRC a memory write and
//! a read request cost 24 bytes of framing, sequence number, header and LCRC, a completion 20 (PCIe 4.0 2.2,
//! 3.6). The rate is that of the transaction layer: 128b/130b coding, acknowledgements, flow control updates
//! and skip sets taken off.

use std::collections::VecDeque;

use cryptonic_pci::Time;

use crate::calendar::Calendar;
use crate::parameters::PcieParameters;

/// Overhead of a memory write or of a read request.
pub const REQUEST_OVERHEAD_BYTES: u64 = 24;
/// Overhead of a completion with data.
pub const COMPLETION_OVERHEAD_BYTES: u64 = 20;
/// Units of the byte time: 1/1024 tick, so that rounding stays below 10^-6.
const BYTE_TIME_SHIFT: u32 = 10;

/// Rate of the transaction layer in Gb/s, each way.
pub fn transaction_rate_gbps(generation: u64, lanes: u64) -> f64 {
    let transfers_per_second = 8.0 * f64::powi(2.0, generation.clamp(3, 5) as i32 - 3);
    let raw = transfers_per_second * lanes as f64 * 128.0 / 130.0;
    // What acknowledgements, flow control and skip sets leave at MPS 256 (pcie-bench's model): 57.88 of
    // 63.02 Gb/s for 8 lanes, 113.70 of 126.03 for 16. Narrower links are taken as 8 lanes.
    raw * if lanes >= 16 { 113.70 / (128.0 * 128.0 / 130.0) } else { 57.88 / (64.0 * 128.0 / 130.0) }
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

/// The link.
pub struct Pcie {
    parameters: PcieParameters,
    byte_time: u64,
    to_device: Calendar,
    to_host: Calendar,
    reads: VecDeque<Read>,
    tags_used: u64,
    read_bytes_in_flight: u64,
    bytes_to_device: u64,
    bytes_to_host: u64,
}

struct Read {
    done: Time,
    tags: u64,
    bytes: u64,
}

impl Pcie {
    /// An idle link.
    pub fn new(parameters: &PcieParameters) -> Self {
        let rate = transaction_rate_gbps(parameters.generation, parameters.lanes);
        let picoseconds_per_byte = 8_000.0 / rate;
        let byte_time = (picoseconds_per_byte * 33.0 * f64::from(1 << BYTE_TIME_SHIFT)).round() as u64;
        Pcie {
            parameters: parameters.clone(),
            byte_time,
            to_device: Calendar::default(),
            to_host: Calendar::default(),
            reads: VecDeque::new(),
            tags_used: 0,
            read_bytes_in_flight: 0,
            bytes_to_device: 0,
            bytes_to_host: 0,
        }
    }

    /// The device reads `bytes` of host memory from `now` on. Gives the time at which all of them are here;
    /// reads complete in the order in which they were asked for.
    pub fn read(&mut self, now: Time, bytes: u64) -> Time {
        let tags = bytes.div_ceil(self.parameters.mrrs_bytes).max(1);
        let mut start = now;
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
        let sent = self.to_host.serve(start, span) + span;
        self.bytes_to_host += request;
        let completion = read_completion_bytes(bytes, self.parameters.completion_bytes);
        let span = self.span(completion);
        let latency = Time::from_nanoseconds(self.parameters.read_latency_ns);
        let done = self.to_device.serve(sent + latency, span) + span;
        self.bytes_to_device += completion;
        self.tags_used += tags;
        self.read_bytes_in_flight += bytes;
        self.reads.push_back(Read { done, tags, bytes });
        done
    }

    /// The device writes `bytes` to host memory from `now` on. Gives when the last byte has left, and when
    /// the host sees it.
    pub fn write(&mut self, now: Time, bytes: u64) -> Written {
        let on_link = write_bytes(bytes, self.parameters.mps_bytes);
        let span = self.span(on_link);
        let left = self.to_host.serve(now, span) + span;
        self.bytes_to_host += on_link;
        Written { left, visible: left + Time::from_nanoseconds(self.parameters.write_latency_ns) }
    }

    /// The host writes a register at `now`. Gives when it arrives.
    pub fn register_write(&mut self, now: Time, bytes: u64) -> Time {
        let on_link = write_bytes(bytes, self.parameters.mps_bytes);
        let span = self.span(on_link);
        self.to_device.steal(now, span);
        self.bytes_to_device += on_link;
        now + span + Time::from_nanoseconds(self.parameters.write_latency_ns)
    }

    /// The host reads a register at `now`. Gives when the request arrives.
    pub fn register_read(&mut self, now: Time) -> Time {
        let span = self.span(REQUEST_OVERHEAD_BYTES);
        self.to_device.steal(now, span);
        self.bytes_to_device += REQUEST_OVERHEAD_BYTES;
        now + span + Time::from_nanoseconds(self.parameters.write_latency_ns)
    }

    /// The device answers a register read at `now`. Gives when the host has the answer. A completion does not
    /// pass posted writes (PCIe 4.0 2.4.1): the host then sees every write that the device made before.
    pub fn register_answer(&mut self, now: Time) -> Time {
        let span = self.span(COMPLETION_OVERHEAD_BYTES + 4);
        let left = self.to_host.serve(now, span) + span;
        self.bytes_to_host += COMPLETION_OVERHEAD_BYTES + 4;
        left + Time::from_nanoseconds(self.parameters.write_latency_ns)
    }

    /// Bytes carried so far, to the device and to the host.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_to_device, self.bytes_to_host)
    }

    /// Time the link was in use so far, to the device and to the host.
    pub fn busy(&self) -> (Time, Time) {
        (self.to_device.busy(), self.to_host.busy())
    }

    fn span(&self, bytes: u64) -> Time {
        Time((bytes * self.byte_time) >> BYTE_TIME_SHIFT)
    }
}

/// The two times of a posted write.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// When its last byte has left the device.
    pub left: Time,
    /// When the host sees it.
    pub visible: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates at MPS 256 that pcie-bench's model (Neugebauer et al., SIGCOMM 2018) gives.
    #[test]
    fn rates_are_those_of_the_published_model() {
        for (generation, lanes, published) in
            [(3, 8, 57.88), (3, 16, 113.70), (4, 8, 115.77), (4, 16, 227.40), (5, 16, 454.80)]
        {
            let rate = transaction_rate_gbps(generation, lanes);
            assert!((rate / published - 1.0).abs() < 1e-3, "gen {generation} x{lanes}: {rate}");
        }
    }

    #[test]
    fn an_unloaded_read_takes_request_latency_and_completion() {
        let mut link = Pcie::new(&PcieParameters::default());
        let done = link.read(Time::ZERO, 64);
        let nanoseconds = done.nanoseconds();
        // 24 bytes up, 540 ns, 84 bytes down at 28.4 bytes a nanosecond.
        assert!((nanoseconds - (540.0 + 108.0 * 8.0 / 227.4)).abs() < 0.01, "{nanoseconds}");
        assert_eq!(link.bytes(), (84, 24));
    }

    #[test]
    fn tags_limit_the_reads_in_flight() {
        let parameters = PcieParameters { read_tags: 32, ..Default::default() };
        let mut link = Pcie::new(&parameters);
        let done: Vec<_> = (0..64).map(|_| link.read(Time::ZERO, 64)).collect();
        assert!(done[31] < Time::from_nanoseconds(660));
        assert!(done[32] > Time::from_nanoseconds(1_080));
    }
}
