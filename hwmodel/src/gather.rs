//! Gather: reads each packet whole into the transmit buffer (store and forward), in the order of the
//! descriptors, one read a cycle, as far as the buffer has room.

use cryptonic_pci::Time;
use cryptonic_regs::Status;
use cryptonic_regs::descriptor::TransmitControl;

use crate::calendar::Full;
use crate::nic::Nic;

/// What a packet may grow by under protection: outer IPv6 header, UDP, PSP or ESP, trailer and ICV.
const GROWTH_BYTES: u64 = 128;

impl Nic {
    /// Asks for the packets of the descriptors at hand.
    pub(crate) fn gather(&mut self) {
        while let Some(pending) = self.transmit.pending.front() {
            let queue = usize::from(pending.queue);
            let stale = self.queue_epoch(pending.queue) != Some(pending.epoch);
            if !stale && pending.fault == Status::Ok {
                let bytes = u64::from(TransmitControl::from(pending.words[1]).length());
                if let Err(time) = self.pcie.packet_read_allowed(self.now, bytes) {
                    self.retry_gather(time);
                    break;
                }
                match self.transmit.buffer.take(self.now, bytes + GROWTH_BYTES) {
                    Ok(()) => {}
                    Err(Full::Until(time)) => {
                        self.retry_gather(time);
                        break;
                    }
                    // A packet on its way will say when it leaves, and call again.
                    Err(Full::Unknown) => break,
                }
                let start = self.transmit.gather.serve(self.now, self.cycle);
                let done = self.pcie.read_later(self.now, start, bytes);
                let pending = *pending;
                self.events.gathered.push(done, pending);
            } else if !stale {
                // Told in its place among the packets of its queue.
                let time = self.now.max(self.events.gathered.last());
                let pending = *pending;
                self.events.gathered.push(time, pending);
            }
            if !stale && let Some(prefetched) = self.transmit.prefetched.get_mut(queue) {
                *prefetched = prefetched.saturating_sub(1);
            }
            let ended = self.transmit.pending.pop_front();
            if stale {
                self.end_descriptor_key(ended.and_then(|pending| pending.key));
            }
        }
        self.fetch_transmit();
    }

    fn retry_gather(&mut self, time: Time) {
        if self.events.gather_retry.is_empty() {
            self.events.gather_retry.push(time, ());
        }
    }

    /// Gives the transmit buffer's bytes of a packet back at `left`.
    pub(crate) fn release_gathered(&mut self, control: TransmitControl, left: Time) {
        self.transmit.buffer.release(left, u64::from(control.length()) + GROWTH_BYTES);
        // A retry comes when the first of what is missing is back; what is given back now comes later.
        if !self.transmit.pending.is_empty() && self.events.gather_retry.is_empty() {
            self.gather();
        }
    }
}
