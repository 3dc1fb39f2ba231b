//! The counters of BAR0.

use cryptonic_regs::bar0;
use cryptonic_regs::status::STATUS_NUMBERS;

/// All counters.
#[derive(Clone)]
pub struct Counters {
    /// Frames sent.
    pub transmitted_frames: u64,
    /// Bytes sent, with FCS.
    pub transmitted_bytes: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Bytes received, with FCS.
    pub received_bytes: u64,
    /// The eight counters of the PSP specification, in the order of the registers.
    pub psp: PspCounters,
    /// Packets by the status they ended with.
    pub statuses: [u64; STATUS_NUMBERS as usize],
}

/// The counters that the PSP specification names.
#[derive(Clone, Copy, Default)]
pub struct PspCounters {
    /// Packets opened.
    pub received_packets: u64,
    /// Bytes opened.
    pub received_bytes: u64,
    /// Packets with a wrong ICV.
    pub received_authentication_failures: u64,
    /// Packets with a length or framing error.
    pub received_errors: u64,
    /// Packets with another fault.
    pub received_bad: u64,
    /// Packets protected.
    pub transmitted_packets: u64,
    /// Bytes protected.
    pub transmitted_bytes: u64,
    /// Packets that could not be protected.
    pub transmitted_errors: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            transmitted_frames: 0,
            transmitted_bytes: 0,
            received_frames: 0,
            received_bytes: 0,
            psp: PspCounters::default(),
            statuses: [0; STATUS_NUMBERS as usize],
        }
    }
}

impl Counters {
    /// The counter whose low half is at this byte offset of BAR0; `dma_faults` is kept elsewhere.
    pub fn at(&self, offset: u32, dma_faults: u64) -> Option<u64> {
        if let Some(past) = offset.checked_sub(bar0::STATUS_COUNTERS_OFFSET) {
            return self.statuses.get((past / 8) as usize).copied();
        }
        let psp = &self.psp;
        Some(match offset {
            _ if offset == bar0::TRANSMITTED_FRAMES.offset => self.transmitted_frames,
            _ if offset == bar0::TRANSMITTED_BYTES.offset => self.transmitted_bytes,
            _ if offset == bar0::RECEIVED_FRAMES.offset => self.received_frames,
            _ if offset == bar0::RECEIVED_BYTES.offset => self.received_bytes,
            _ if offset == bar0::PSP_RECEIVED_PACKETS.offset => psp.received_packets,
            _ if offset == bar0::PSP_RECEIVED_BYTES.offset => psp.received_bytes,
            _ if offset == bar0::PSP_RECEIVED_AUTHENTICATION_FAILURES.offset => {
                psp.received_authentication_failures
            }
            _ if offset == bar0::PSP_RECEIVED_ERRORS.offset => psp.received_errors,
            _ if offset == bar0::PSP_RECEIVED_BAD.offset => psp.received_bad,
            _ if offset == bar0::PSP_TRANSMITTED_PACKETS.offset => psp.transmitted_packets,
            _ if offset == bar0::PSP_TRANSMITTED_BYTES.offset => psp.transmitted_bytes,
            _ if offset == bar0::PSP_TRANSMITTED_ERRORS.offset => psp.transmitted_errors,
            _ if offset == bar0::DMA_FAULTS.offset => dma_faults,
            _ => return None,
        })
    }
}
