//! The published closed form of what a PCI Express link lets a NIC do: pcie-bench's three NICs (Neugebauer et al.,
//! "Understanding PCIe performance for end host networking", SIGCOMM 2018), written down as lists of
//! transactions. The calendars of [`crate::pcie`] are held to it.
//!
//! A link direction that carries `b` bytes a packet at rate `r` lets `r / b` packets a second pass; the slower
//! direction decides.

use crate::parameters::PcieParameters;
use crate::pcie::{
    COMPLETION_OVERHEAD_BYTES, REQUEST_OVERHEAD_BYTES, read_completion_bytes, read_request_bytes,
    transaction_rate_gbps, write_bytes,
};

/// A register, an index or an interrupt message.
const WORD_BYTES: u64 = 4;
/// A descriptor, on the way in and written back.
const DESCRIPTOR_BYTES: u64 = 16;

/// One transaction on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// The device reads so many bytes of host memory.
    Read(u64),
    /// The device writes so many bytes to host memory, an interrupt included.
    Write(u64),
    /// The host writes a register.
    RegisterWrite,
    /// The host reads a register.
    RegisterRead,
}

/// One of the published NICs, by how often it does what for each packet sent and each packet received.
#[derive(Clone, Copy, Debug)]
pub struct PublishedNic {
    /// Packets that one fetch of transmit descriptors brings.
    transmit_fetch: u64,
    /// Transmit descriptors that are written back at once; 0: none is.
    transmit_write_back: u64,
    /// Packets that one transmit doorbell announces.
    transmit_doorbell: u64,
    /// Packets a transmit interrupt, and a receive interrupt; 0: none.
    interrupt: u64,
    /// Packets a read of the transmit head register; 0: never.
    transmit_head: u64,
    /// Buffers that one receive doorbell announces.
    receive_doorbell: u64,
    /// Packets a read of the receive head register; 0: never.
    receive_head: u64,
}

/// Every step once a packet.
pub const SIMPLE: PublishedNic = PublishedNic {
    transmit_fetch: 1,
    transmit_write_back: 0,
    transmit_doorbell: 1,
    interrupt: 1,
    transmit_head: 1,
    receive_doorbell: 1,
    receive_head: 1,
};

/// An Intel 82599 under the Linux driver.
pub const KERNEL: PublishedNic = PublishedNic {
    transmit_fetch: 40,
    transmit_write_back: 8,
    transmit_doorbell: 1,
    interrupt: 32,
    transmit_head: 1,
    receive_doorbell: 32,
    receive_head: 8,
};

/// The same under DPDK's driver: doorbells in batches, no interrupt, no register read.
pub const DPDK: PublishedNic =
    PublishedNic { transmit_doorbell: 32, interrupt: 0, transmit_head: 0, receive_head: 0, ..KERNEL };

impl PublishedNic {
    /// Packets after which the pattern repeats.
    pub fn period(&self) -> u64 {
        // A multiple of every number of packets above.
        160
    }

    /// What the link carries for packet `index` each way, with `frame_bytes` of it in memory.
    pub fn transactions(&self, index: u64, frame_bytes: u64) -> Vec<Transaction> {
        let due = |every: u64| every != 0 && index.is_multiple_of(every);
        let steps = [
            // Transmit: doorbell, descriptors, frame, write-back, interrupt, head.
            (due(self.transmit_doorbell), Transaction::RegisterWrite),
            (due(self.transmit_fetch), Transaction::Read(DESCRIPTOR_BYTES * self.transmit_fetch)),
            (true, Transaction::Read(frame_bytes)),
            (due(self.transmit_write_back), Transaction::Write(DESCRIPTOR_BYTES * self.transmit_write_back)),
            (due(self.interrupt), Transaction::Write(WORD_BYTES)),
            (due(self.transmit_head), Transaction::RegisterRead),
            // Receive: doorbell, descriptor, frame, write-back, interrupt, head.
            (due(self.receive_doorbell), Transaction::RegisterWrite),
            (true, Transaction::Read(DESCRIPTOR_BYTES)),
            (true, Transaction::Write(frame_bytes)),
            (true, Transaction::Write(DESCRIPTOR_BYTES)),
            (due(self.interrupt), Transaction::Write(WORD_BYTES)),
            (due(self.receive_head), Transaction::RegisterRead),
        ];
        steps.into_iter().filter_map(|(due, transaction)| due.then_some(transaction)).collect()
    }

    /// Packets each way that the link lets pass in a nanosecond, with `frame_bytes` of each in memory.
    pub fn packets_per_nanosecond(&self, link: &PcieParameters, frame_bytes: u64) -> f64 {
        let (mut to_device, mut to_host) = (0, 0);
        for transaction in (0..self.period()).flat_map(|index| self.transactions(index, frame_bytes)) {
            let (down, up) = transaction.bytes(link);
            to_device += down;
            to_host += up;
        }
        let bytes = to_device.max(to_host) as f64 / self.period() as f64;
        transaction_rate_gbps(link.generation, link.lanes, link.mps_bytes) / 8.0 / bytes
    }
}

impl Transaction {
    /// Bytes on the link, to the device and to the host.
    pub fn bytes(self, link: &PcieParameters) -> (u64, u64) {
        match self {
            Transaction::Read(bytes) => (
                read_completion_bytes(bytes, link.completion_bytes),
                read_request_bytes(bytes, link.mrrs_bytes),
            ),
            Transaction::Write(bytes) => (0, write_bytes(bytes, link.mps_bytes)),
            Transaction::RegisterWrite => (write_bytes(WORD_BYTES, link.mps_bytes), 0),
            Transaction::RegisterRead => (REQUEST_OVERHEAD_BYTES, COMPLETION_OVERHEAD_BYTES + WORD_BYTES),
        }
    }
}
