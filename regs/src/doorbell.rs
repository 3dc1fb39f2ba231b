//! BAR2: one page a queue pair, with its doorbells. BAR4 holds the MSI-X table and nothing else.

use crate::declare::registers;

/// Bytes of a queue pair's page in BAR2.
pub const DOORBELL_PAGE_BYTES: u32 = 0x1000;

registers! {
    /// Doorbells of one queue pair. Indices are free-running counts of slots: a ring of `n` slots holds
    /// index `i` in slot `i mod n`, and a producer is at most `n` ahead of its consumer.
    pub block DOORBELLS, kind 16, version 1, at 0x0000, stride 0x1000 {
        /// Producer index of the transmit ring. Written after the descriptors.
        0x00 WriteOnly TRANSMIT_DOORBELL: u32;
        /// Producer index of the receive ring.
        0x04 WriteOnly RECEIVE_DOORBELL: u32;
        /// Any write arms the queue pair's interrupt: the next completion of either ring sends it, once. A
        /// driver looks at both rings again after arming and before it sleeps.
        0x08 WriteOnly INTERRUPT_ARM: u32;
    }
}
