//! The registers of the life of keys: event ring, state of the SA slots, PSP policy.

use cryptonic_regs::events::{
    EVENT_CONTROL, EVENT_DOORBELL, EVENT_RING_BASE, EVENT_STATUS, EVENT_STICKY, EVENTS_LOST, EventControl,
    EventSticky, SLOT_GENERATION, SLOT_SELECT, SLOT_STATUS, STICKY_SLOTS, STICKY_WORDS, SlotStatus,
};
use cryptonic_regs::psp_policy::{
    PSP_CAPTURE, PSP_EPOCH, PSP_ROTATION, PSP_ROTATION_PERIOD_MS, PSP_SAMPLING, PSP_SPI_LOW_WATER,
    PspCapture, PspRotation, PspSampling,
};

use crate::nic::Nic;

impl Nic {
    /// What the host reads at an offset of BAR0, if it is one of these registers.
    pub(crate) fn life_register(&self, offset: u32) -> Option<u32> {
        if let Some(past) = offset.checked_sub(STICKY_SLOTS.offset)
            && past / 4 < STICKY_WORDS
        {
            return Some(self.sa_table.sticky_word(past / 4));
        }
        let selected = || self.sa_table.slot(self.selected_slot);
        Some(match offset {
            _ if offset == EVENT_CONTROL.offset => self.event_ring.control.into_bits(),
            _ if offset == EVENT_STATUS.offset => self.event_ring.status.into_bits(),
            _ if offset == EVENTS_LOST.offset => self.event_ring.lost,
            _ if offset == EVENT_STICKY.offset => {
                EventSticky::new().with_causes(self.event_ring.sticky).into_bits()
            }
            // Write-only registers read 0.
            _ if offset == EVENT_DOORBELL.offset => 0,
            _ if offset == SLOT_SELECT.offset => self.selected_slot,
            _ if offset == SLOT_GENERATION.offset => selected().map_or(0, |sa| sa.generation),
            _ if offset == SLOT_STATUS.offset => selected()
                .map_or(SlotStatus::new(), |sa| {
                    SlotStatus::new()
                        .with_state(sa.state().number() as u8)
                        .with_arming(sa.lifetime.arming())
                        .with_causes(sa.lifetime.sticky().bits())
                })
                .into_bits(),
            _ if offset == PSP_ROTATION.offset => self.psp_policy.rotation.into_bits(),
            _ if offset == PSP_ROTATION_PERIOD_MS.offset => self.psp_policy.period_ms,
            _ if offset == PSP_SPI_LOW_WATER.offset => self.keys.low_water(),
            _ if offset == PSP_CAPTURE.offset => self.psp_copies.capture().into_bits(),
            _ if offset == PSP_SAMPLING.offset => self.psp_copies.sampling().into_bits(),
            _ => return None,
        })
    }

    /// The host writes at an offset of BAR0: whether it is one of these registers. `wide` is the value of a 64-bit one.
    pub(crate) fn life_register_write(&mut self, offset: u32, value: u32, wide: u64) -> bool {
        match offset {
            _ if offset == EVENT_CONTROL.offset => self.event_control_write(EventControl::from_bits(value)),
            _ if offset == EVENT_RING_BASE.offset => {
                if !self.event_ring.control.enable() {
                    self.event_ring.ring.base = wide;
                }
            }
            _ if offset == EVENT_DOORBELL.offset => self.event_doorbell(value),
            _ if offset == EVENT_STICKY.offset => {
                self.event_ring.sticky &= !EventSticky::from_bits(value).causes();
            }
            _ if offset == SLOT_SELECT.offset => self.selected_slot = value,
            _ if offset == PSP_ROTATION.offset => {
                let written = PspRotation::from_bits(value);
                self.psp_policy.rotation = PspRotation::new().with_on_exhaustion(written.on_exhaustion());
            }
            _ if offset == PSP_ROTATION_PERIOD_MS.offset => {
                self.psp_policy.period_ms = value;
                // Firmware takes notice of a new period.
                self.wake_firmware(self.now);
            }
            _ if offset == PSP_SPI_LOW_WATER.offset => self.keys.set_low_water(value),
            _ if offset == PSP_CAPTURE.offset => self.psp_copies.set_capture(PspCapture::from_bits(value)),
            _ if offset == PSP_SAMPLING.offset => {
                self.psp_copies.set_sampling(PspSampling::from_bits(value));
            }
            _ if offset == PSP_EPOCH.offset => self.keys.set_epoch(wide),
            _ => return false,
        }
        true
    }
}
