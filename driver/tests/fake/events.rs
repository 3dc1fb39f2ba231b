//! The ring of events of the small device, and the state of its slots.

use std::collections::VecDeque;

use cryptonic_regs::Register;
use cryptonic_regs::events::{
    EVENT_CONTROL, EVENT_DOORBELL, EVENT_RING_BASE, EVENT_STATUS, EVENT_STICKY, EVENTS_LOST, Event,
    EventCause, EventControl, EventDetail, EventEnd, EventHead, EventNames, EventStatus, SLOT_GENERATION,
    SLOT_SELECT, SLOT_STATUS, STICKY_SLOTS, STICKY_WORDS, SlotStatus,
};

use super::{Device, Hook, Sa};

#[derive(Default)]
pub struct Events {
    enabled: bool,
    pub stopped: bool,
    slots_log2: u8,
    produced: u32,
    consumed: u32,
    pub lost: u32,
    /// Records lost that no record has told of.
    untold: u32,
    pub sticky: u32,
    select: u32,
    pub fired: bool,
    /// How often the doorbell was rung.
    pub doorbells: u32,
    /// Records that are written when the doorbell is rung the next time.
    pub at_doorbell: VecDeque<(EventCause, u32)>,
    /// Records that are written when the bitmap of sticky bits is read the next time.
    pub at_scan: VecDeque<(EventCause, u32)>,
    pub on_event: Hook<Event>,
    pub vector: u8,
}

impl Device {
    /// A cause of an SA: its sticky bit, and its record.
    pub fn happen(&mut self, cause: EventCause, index: u32) {
        let Some(sa) = self.sas.get_mut(&index) else { return self.happen_to_device(cause, 0) };
        sa.causes |= 1 << cause.number();
        let sa = sa.clone();
        self.tell(cause, index, Some(&sa), 0);
    }

    /// A cause of the device.
    pub fn happen_to_device(&mut self, cause: EventCause, number: u32) {
        self.events.sticky |= 1 << (cause.number() - 16);
        self.tell(cause, 0, None, number);
    }

    fn tell(&mut self, cause: EventCause, index: u32, sa: Option<&Sa>, number: u32) {
        let events = &mut self.events;
        let slots = 1 << events.slots_log2;
        if !events.enabled {
            return;
        }
        let room = slots - events.produced.wrapping_sub(events.consumed);
        if room < 1 + u32::from(events.untold != 0) {
            events.lost += 1;
            events.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut events.untold);
        if untold != 0 {
            self.write_event(EventCause::EventsLost, 0, None, untold);
        }
        self.write_event(cause, index, sa, number);
    }

    /// Writes a record, whatever it says.
    pub fn write_event(&mut self, cause: EventCause, index: u32, sa: Option<&Sa>, number: u32) {
        let events = &mut self.events;
        let position = events.produced;
        events.produced = position.wrapping_add(1);
        let phase = (position >> events.slots_log2) & 1 == 0;
        let slot = u64::from(position & ((1 << events.slots_log2) - 1));
        let mut event = Event {
            head: EventHead::new().with_cause(cause.number() as u16).with_sa_index(index),
            time_picoseconds: 1000 + u64::from(position),
            detail: EventDetail::new().with_number(number),
            end: EventEnd::new().with_phase(phase),
            ..Event::default()
        };
        if let Some(sa) = sa {
            event.head.set_arming(sa.arming);
            event.names =
                EventNames::new().with_generation(sa.generation).with_cookie(sa.parameters.names.cookie());
            event.packets = sa.packets;
            event.bytes = sa.bytes;
            event.sequence = sa.sequence;
            event.detail.set_spi(sa.parameters.names.spi());
        }
        if let Some(hook) = &mut events.on_event {
            hook(&mut event);
        }
        events.fired = true;
        let base = self.register(EVENT_RING_BASE);
        self.put_words(base + slot * Event::BYTES as u64, &event.to_words());
    }

    pub(super) fn read_event_register(&mut self, offset: u32) -> Option<u32> {
        let events = &self.events;
        let selected = self.sas.get(&events.select);
        let found = match offset {
            at if at == EVENT_STATUS.offset => EventStatus::new()
                .with_enabled(events.enabled)
                .with_stopped(events.stopped)
                .with_overflow(events.untold != 0)
                .into_bits(),
            at if at == EVENTS_LOST.offset => events.lost,
            at if at == EVENT_STICKY.offset => events.sticky,
            at if at == SLOT_SELECT.offset => events.select,
            at if at == SLOT_GENERATION.offset => selected.map_or(0, |sa| sa.generation),
            at if at == SLOT_STATUS.offset => selected.map_or(0, |sa| {
                SlotStatus::new()
                    .with_state(sa.state().number() as u8)
                    .with_arming(sa.arming)
                    .with_causes(sa.causes)
                    .into_bits()
            }),
            at if (STICKY_SLOTS.offset..STICKY_SLOTS.offset + 4 * STICKY_WORDS).contains(&at) => {
                let first = (at - STICKY_SLOTS.offset) * 8;
                let bit = |sa: (&u32, &Sa)| u32::from(sa.1.causes != 0) << (sa.0 - first);
                let word = self.sas.iter().filter(|sa| (first..first + 32).contains(sa.0)).map(bit).sum();
                for (cause, index) in std::mem::take(&mut self.events.at_scan) {
                    self.happen(cause, index);
                }
                word
            }
            _ => return None,
        };
        Some(found)
    }

    pub(super) fn write_event_register(&mut self, offset: u32, value: u32) -> bool {
        let is = |register: Register<u32>| offset == register.offset;
        if offset == EVENT_CONTROL.offset {
            let control = EventControl::from_bits(value);
            let events = &mut self.events;
            if control.enable() {
                *events = Events {
                    enabled: true,
                    slots_log2: control.slots_log2(),
                    vector: control.vector(),
                    sticky: events.sticky,
                    on_event: events.on_event.take(),
                    ..Events::default()
                };
            } else {
                events.enabled = false;
            }
        } else if is(EVENT_DOORBELL) {
            self.events.doorbells += 1;
            self.events.consumed = value;
            for (cause, index) in std::mem::take(&mut self.events.at_doorbell) {
                self.happen(cause, index);
            }
        } else if is(SLOT_SELECT) {
            self.events.select = value;
        } else if offset == EVENT_STICKY.offset {
            self.events.sticky &= !value;
        } else {
            return false;
        }
        true
    }
}
