//! What a descriptor format costs and takes by arithmetic alone, from the knobs: docs/experiments.md writes it out.

use cryptonic_hwmodel::Parameters;
use cryptonic_hwmodel::pcie::{
    read_completion_bytes, read_request_bytes, transaction_rate_gbps, write_bytes,
};

use super::inline::{BATCH, FETCH, Format, TRANSMIT_SLOTS};
use crate::commands::traffic::SCATTERED_HEAD_BYTES;

/// Bytes of a doorbell, a push's store, and of completions.
const DOORBELL_BYTES: u64 = 4;
const PUSH_BYTES: u64 = 64;
const TRANSMIT_COMPLETION_BYTES: u64 = 32;
const RECEIVE_COMPLETION_BYTES: u64 = 64;
const RECEIVE_DESCRIPTOR_BYTES: u64 = 16;
/// Ethernet and IPv4.
const L3_BYTES: u64 = 34;
/// Preamble and FCS, which a latency contains; and the gap after them.
const PREAMBLE_BYTES: u64 = 8;
pub(super) const FCS_BYTES: u64 = 4;
const GAP_BYTES: u64 = 12;
const SHORTEST_BYTES: u64 = 60;
const CIPHER_BLOCK_BYTES: u64 = 16;
/// Cycles of the parser behind a frame's last beat.
const PARSE_CYCLES: u64 = 54;
const CABLE_NS: f64 = 10.0;

/// What is told of one format and one size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// PCI Express bytes a packet of the sending NIC, in batches.
    pub(crate) to_device: f64,
    pub(crate) to_host: f64,
    /// The same, one packet at a time.
    pub(crate) to_device_alone: f64,
    pub(crate) to_host_alone: f64,
    /// From the doorbell or push, as the host issues it, to the first byte in the NIC; one packet at a time.
    pub(crate) first_byte_ns: f64,
    /// From the doorbell accepted to the far completion visible; one packet at a time.
    pub(crate) latency_ns: f64,
    /// In batches.
    pub(crate) packets_per_second: f64,
}

/// The arithmetic of one format and one frame.
pub(crate) struct Formulas<'a> {
    parameters: &'a Parameters,
    format: &'a Format,
    /// Bytes of the frame in memory.
    frame: u64,
}

impl<'a> Formulas<'a> {
    /// For frames of `size` bytes, FCS included.
    pub(crate) fn new(parameters: &'a Parameters, format: &'a Format, size: usize) -> Self {
        Formulas { parameters, format, frame: size as u64 - FCS_BYTES }
    }

    /// Everything.
    pub(crate) fn figures(&self) -> Figures {
        let (to_device, to_host) = self.bytes(BATCH as f64, FETCH);
        let to_host = to_host + self.reports_in_passing();
        let (to_device_alone, to_host_alone) = self.alone();
        Figures {
            to_device,
            to_host,
            to_device_alone,
            to_host_alone,
            first_byte_ns: self.first_byte_ns(),
            latency_ns: self.latency_ns(),
            packets_per_second: self.packets_per_second(to_device, to_host),
        }
    }

    /// Bytes of the pieces of the frame that are read.
    fn pieces(&self) -> Vec<u64> {
        let head = SCATTERED_HEAD_BYTES as u64;
        let all = match self.format.descriptor.scattered {
            true => vec![head, self.frame - head],
            false => vec![self.frame.saturating_sub(self.format.inline_bytes())],
        };
        all.into_iter().filter(|bytes| *bytes > 0).collect()
    }

    fn descriptors(&self) -> u64 {
        1 + u64::from(self.format.descriptor.scattered)
    }

    fn stride(&self) -> u64 {
        self.format.descriptor.stride.into()
    }

    fn completions(&self, bytes: u64) -> f64 {
        read_completion_bytes(bytes, self.parameters.pcie.completion_bytes) as f64
    }

    fn requests(&self, bytes: u64) -> f64 {
        read_request_bytes(bytes, self.parameters.pcie.mrrs_bytes) as f64
    }

    fn writes(&self, bytes: u64) -> f64 {
        write_bytes(bytes, self.parameters.pcie.mps_bytes) as f64
    }

    fn frame_bytes(&self) -> (f64, f64) {
        let pieces = self.pieces();
        (
            pieces.iter().map(|bytes| self.completions(*bytes)).sum(),
            pieces.iter().map(|bytes| self.requests(*bytes)).sum(),
        )
    }

    /// Bytes a packet with a doorbell and a completion each `batch` packets, and `fetch` descriptors a read.
    fn bytes(&self, batch: f64, fetch: u64) -> (f64, f64) {
        let (to_device, to_host) = self.frame_bytes();
        let reads = self.descriptors() as f64 / fetch as f64;
        (
            to_device + self.completions(fetch * self.stride()) * reads + self.writes(DOORBELL_BYTES) / batch,
            to_host
                + self.requests(fetch * self.stride()) * reads
                + self.writes(TRANSMIT_COMPLETION_BYTES) / batch,
        )
    }

    /// The driver asks for a completion at the end of a batch, and, where slots hold more than an address, once each
    /// quarter of the ring.
    fn reports_in_passing(&self) -> f64 {
        if self.stride() == 32 && !self.format.descriptor.scattered {
            return 0.0;
        }
        let slots_a_report = f64::from(TRANSMIT_SLOTS) / 4.0;
        self.writes(TRANSMIT_COMPLETION_BYTES) * self.descriptors() as f64 / slots_a_report
    }

    fn alone(&self) -> (f64, f64) {
        if !self.format.descriptor.pushed {
            return self.bytes(1.0, self.descriptors());
        }
        let (to_device, to_host) = self.frame_bytes();
        let stores = self.stride() / PUSH_BYTES;
        (
            to_device + stores as f64 * self.writes(PUSH_BYTES),
            to_host + self.writes(TRANSMIT_COMPLETION_BYTES),
        )
    }

    /// Gb/s of the link, which are bits a nanosecond.
    fn link_rate(&self) -> f64 {
        let link = &self.parameters.pcie;
        transaction_rate_gbps(link.generation, link.lanes, link.mps_bytes)
    }

    fn span_ns(&self, bytes: f64) -> f64 {
        bytes * 8.0 / self.link_rate()
    }

    fn cycles_ns(&self, cycles: u64) -> f64 {
        cycles as f64 * 1e9 / self.parameters.pipeline.clock_hz as f64
    }

    /// A read, to the last byte of `completed` of its bytes.
    fn read_ns(&self, bytes: u64, completed: u64) -> f64 {
        self.span_ns(self.requests(bytes))
            + self.parameters.pcie.read_latency_ns as f64
            + self.span_ns(self.completions(completed))
    }

    fn first_byte_ns(&self) -> f64 {
        let (link, descriptor) = (&self.parameters.pcie, &self.format.descriptor);
        let arrives = |bytes| self.span_ns(self.writes(bytes)) + link.write_latency_ns as f64;
        let slot = if descriptor.pushed {
            let stores_before = self.stride() / PUSH_BYTES - 1;
            (stores_before * self.parameters.host.register_write_ns) as f64 + arrives(PUSH_BYTES)
        } else {
            let bytes = self.descriptors() * self.stride();
            arrives(DOORBELL_BYTES) + self.read_ns(bytes, bytes.min(link.completion_bytes))
        };
        match self.pieces().first() {
            Some(first) if self.format.inline_bytes() == 0 => {
                slot + self.read_ns(*first, (*first).min(link.completion_bytes))
            }
            _ => slot,
        }
    }

    /// Bytes of the frame on the line, without FCS.
    fn protected_bytes(&self) -> u64 {
        let upper = self.frame - L3_BYTES;
        match self.format.key {
            // UDP, PSP header, ICV.
            true => self.frame + 8 + 16 + 16,
            // ESP header, IV, padding to four with its two octets, ICV.
            false => self.frame + 8 + 8 + (upper + 2).next_multiple_of(4) - upper + 16,
        }
    }

    /// Cycles of a packet in a lane: text, E(K, J0) and for the fresh key of PSP H; or AAD, text and lengths.
    fn lane_cycles(&self) -> u64 {
        let upper = self.frame - L3_BYTES;
        let text = if self.format.key { upper } else { (upper + 2).next_multiple_of(4) };
        let blocks = text.div_ceil(CIPHER_BLOCK_BYTES);
        (blocks + 1 + u64::from(self.format.key)).max(1 + blocks + 1)
    }

    fn beats(&self) -> u64 {
        self.protected_bytes().div_ceil(self.parameters.pipeline.bus_bytes)
    }

    /// The sum of docs/timing.md, but for the wait for a clock edge before the parser, which is less than a cycle.
    fn latency_ns(&self) -> f64 {
        let (pipeline, crypto, mac) =
            (&self.parameters.pipeline, &self.parameters.crypto, &self.parameters.mac);
        let slot = self.descriptors() * self.stride();
        let fetch = if self.format.descriptor.pushed { 0.0 } else { self.read_ns(slot, slot) };
        let pieces = self.pieces();
        // Reads of the pieces follow each other by a cycle, and their completions share the link.
        let all: u64 = pieces.iter().sum();
        let gather = match pieces.as_slice() {
            [] => 0.0,
            [one] => self.read_ns(*one, *one),
            [first, .., last] => {
                let first_here = self.read_ns(*first, *first);
                let last_alone = self.cycles_ns(1) + self.read_ns(*last, *last);
                last_alone.max(first_here + self.span_ns(self.completions(all - first)))
            }
        };
        let lanes = self.cycles_ns(self.lane_cycles() + crypto.lane_latency_cycles);
        let on_line = PREAMBLE_BYTES + self.protected_bytes().max(SHORTEST_BYTES) + FCS_BYTES;
        let line = on_line as f64 * 8.0 / mac.rate_gbps as f64;
        let derivation = if self.format.key { crypto.derivation_latency_cycles } else { 0 };
        let transmit = self.cycles_ns(pipeline.commit_interval_cycles + 2 * pipeline.stage_latency_cycles);
        let receive = self.cycles_ns(
            self.beats()
                + PARSE_CYCLES
                + pipeline.lookup_latency_cycles
                + derivation
                + pipeline.commit_interval_cycles,
        );
        let to_memory = self.writes(self.frame) + self.writes(RECEIVE_COMPLETION_BYTES);
        fetch
            + gather
            + transmit
            + lanes
            + self.cycles_ns(self.beats())
            + line
            + 2.0 * mac.latency_ns as f64
            + CABLE_NS
            + receive
            + lanes
            + self.span_ns(to_memory)
            + self.parameters.pcie.write_latency_ns as f64
    }

    /// The least of line, bus, lanes, host, and of both directions of both links.
    fn packets_per_second(&self, to_device: f64, to_host: f64) -> f64 {
        let (host, mac) = (&self.parameters.host, &self.parameters.mac);
        let on_line = PREAMBLE_BYTES + self.protected_bytes().max(SHORTEST_BYTES) + FCS_BYTES + GAP_BYTES;
        let line = on_line as f64 * 8.0 / mac.rate_gbps as f64;
        let bus = self.cycles_ns(self.beats());
        let lanes = self.cycles_ns(self.lane_cycles()) / self.parameters.crypto.lanes as f64;
        let work = (host.burst_ns + host.register_write_ns) as f64 / BATCH as f64 + host.packet_ns;
        let received = self.writes(self.frame)
            + self.writes(RECEIVE_COMPLETION_BYTES)
            + self.requests(FETCH * RECEIVE_DESCRIPTOR_BYTES) / FETCH as f64;
        let links = [to_device, to_host, received].map(|bytes| self.span_ns(bytes));
        let slowest = [line, bus, lanes, work].into_iter().chain(links).fold(0.0, f64::max);
        1e9 / slowest
    }
}
