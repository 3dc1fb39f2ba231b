//! BAR2: one page a queue pair, with its doorbells and push windows. BAR4 holds the MSI-X table and nothing
//! else.
//!
//! A push is a doorbell that brings its descriptor along. The host writes the descriptor into the ring first, then
//! the same bytes into a push window, with the low half of the producer index in the descriptor's extent word, in
//! stores of 64 bytes from the window's beginning on. The write of the slot's last word ends a push. The device uses
//! the pushed bytes if all of the slot has arrived since the push began and the descriptor is the next in line;
//! otherwise the push is a doorbell with that producer index, or nothing if the extent word is missing. Memory stays
//! the truth.

use crate::declare::registers;

/// Byte offsets of the two push windows in a queue pair's page. A driver uses them in turn.
pub const PUSH_WINDOWS: [u32; 2] = [0x100, 0x180];
/// Bytes of a push window.
pub const PUSH_WINDOW_BYTES: u32 = 0x80;

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
        /// driver looks at both rings again after arming and before it sleeps. With shadow doorbells the value is the count
        /// of armings.
        0x08 WriteOnly INTERRUPT_ARM: u32;
    }
}
