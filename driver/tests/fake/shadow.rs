//! Shadow doorbells of the small device: it is awake, unless a test says otherwise.

use cryptonic_regs::bar0::{DESCRIPTOR_CAPABILITY, DescriptorCapability, QUEUE_PAIR_STRIDE, QUEUE_STATUS};
use cryptonic_regs::shadow_doorbells::{
    EVENT_INDEX_BASE, SHADOW_DOORBELL_BASE, SHADOW_DOORBELL_CONTROL, SHADOW_DOORBELL_STATUS,
    ShadowDoorbellStatus,
};

use super::{Device, Fake, QUEUE_PAIRS};

#[derive(Default)]
pub struct Shadow {
    /// Refuses what it offers.
    pub refuses: bool,
    /// Never looks at the counts.
    pub blind: bool,
    /// Writes event indices that ask for the next doorbell.
    pub asks: bool,
    /// What the event indices are in place of what they should be.
    pub lies: Option<Box<dyn FnMut() -> [u64; 3]>>,
}

impl Fake {
    pub fn with_shadow_doorbells() -> Fake {
        let fake = Fake::new();
        {
            let mut device = fake.device.borrow_mut();
            let capability: DescriptorCapability = device.register(DESCRIPTOR_CAPABILITY);
            let capability = capability.with_shadow_doorbells(true);
            device.registers.insert(DESCRIPTOR_CAPABILITY.offset, capability.into_bits());
        }
        fake
    }
}

impl Device {
    pub(super) fn write_shadow_register(&mut self, offset: u32, value: u32) {
        if offset == SHADOW_DOORBELL_CONTROL.offset {
            let on = value & 1 == 1;
            let status = ShadowDoorbellStatus::new()
                .with_enabled(on && !self.shadow.refuses)
                .with_stopped(on && self.shadow.refuses);
            self.registers.insert(SHADOW_DOORBELL_STATUS.offset, status.into_bits());
        }
    }

    /// Takes the counts of queue pairs that are on, and writes their event indices.
    pub(super) fn look_at_shadow(&mut self) {
        if !self.register(SHADOW_DOORBELL_STATUS).enabled() {
            return;
        }
        let counts_base = self.register(SHADOW_DOORBELL_BASE);
        let event_base = self.register(EVENT_INDEX_BASE);
        for index in 0..QUEUE_PAIRS {
            let status = self.register(QUEUE_STATUS.instance(index as u32, QUEUE_PAIR_STRIDE));
            if !status.enabled() {
                continue;
            }
            let line = index as u64 * 64;
            let Some(counts) = self.words::<3>(counts_base + line) else { continue };
            assert!(counts.iter().all(|word| word >> 32 == 0), "reserved bits are 0");
            if !self.shadow.blind {
                let queue = &mut self.queues[index];
                (queue.transmit_doorbell, queue.receive_doorbell) = (counts[0] as u32, counts[1] as u32);
                queue.armed |= queue.arms != counts[2] as u32;
                queue.arms = counts[2] as u32;
            }
            let behind = u32::from(!self.shadow.asks);
            let indices = match &mut self.shadow.lies {
                Some(lie) => lie(),
                None => counts.map(|count| u64::from((count as u32).wrapping_sub(behind))),
            };
            self.put_words(event_base + line, &indices);
        }
    }
}
