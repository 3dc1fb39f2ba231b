//! What the device tells of by itself: the ring of events, and the state of the SA slots.

use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, Time};
use cryptonic_regs::bar0::SA_SLOTS;
use cryptonic_regs::descriptor::TransmitSa;
use cryptonic_regs::events::{
    EVENT_CONTROL, EVENT_DOORBELL, EVENT_RING_BASE, EVENT_STATUS, Event, EventControl, EventEnd,
    SLOT_GENERATION, SLOT_SELECT, SLOT_STATUS, STICKY_SLOTS, SlotStatus,
};

use super::function::{Arena, Function, Outcome};

/// Four slots, the fewest there may be: so few that records are lost within a short story.
const SLOTS_LOG2: u8 = 2;
/// Slots of the ring.
pub const SLOTS: u32 = 1 << SLOTS_LOG2;
/// The vector of the ring's interrupt.
const VECTOR: u8 = 2;

/// The ring of events.
pub struct Events {
    ring: Arena,
    /// Records taken, a free-running count.
    taken: u32,
}

impl Events {
    // guide: event ring
    /// Turns the ring on. From here on the device tells what happens to SAs and device keys.
    pub fn start(function: &Function) -> Outcome<Events> {
        let ring = function.arena(SLOTS as usize * Event::BYTES, DmaAccess::DeviceReadsAndWrites)?;
        function.write(EVENT_RING_BASE, ring.iova)?;
        let control = EventControl::new().with_enable(true).with_slots_log2(SLOTS_LOG2).with_vector(VECTOR);
        function.write(EVENT_CONTROL, control)?;
        function.poll("event ring", || {
            let status = function.read(EVENT_STATUS)?;
            if status.stopped() {
                return Err("the event ring stopped: its base or its size is out of range".into());
            }
            Ok(status.enabled().then_some(()))
        })?;
        Ok(Events { ring, taken: 0 })
    }
    // guide: end

    // guide: event
    /// Takes the next record, if it is there, and gives its slot back to the device.
    pub fn next(&mut self, function: &Function) -> Outcome<Option<Event>> {
        let at = (self.taken % SLOTS) as usize * Event::BYTES;
        let end = EventEnd::from_bits(self.ring.memory.read_word_acquire(at + 56)?);
        if end.phase() != (self.taken / SLOTS).is_multiple_of(2) {
            return Ok(None);
        }
        let mut words = [0; Event::WORDS];
        self.ring.memory.read_words(at, &mut words)?;
        self.taken = self.taken.wrapping_add(1);
        // The count of records taken. It makes room, and where records were lost, one that says so comes next.
        function.write(EVENT_DOORBELL, self.taken)?;
        Ok(Some(Event { end, ..Event::of_words(&words) }))
    }

    /// Waits for the next record.
    pub fn wait(&mut self, function: &Function, deadline: Time) -> Outcome<Event> {
        loop {
            if let Some(event) = self.next(function)? {
                return Ok(event);
            }
            if function.read(EVENT_STATUS)?.stopped() {
                return Err("the device stopped the event ring".into());
            }
            // An interrupt of a record that was taken without waiting costs one more look.
            if function.host.wait(u16::from(VECTOR), deadline)? == Wake::Deadline {
                return self.next(function)?.ok_or("no event in time".into());
            }
        }
    }
    // guide: end

    // guide: scan
    /// Every slot to which something happened, and what. Needs neither the ring nor firmware.
    pub fn scan(function: &Function) -> Outcome<Vec<(TransmitSa, SlotStatus)>> {
        let mut found = Vec::new();
        for word in 0..function.read(SA_SLOTS)?.div_ceil(32) {
            let mut slots = function.host.read32(Bar::Bar0, STICKY_SLOTS.offset + 4 * word)?;
            while slots != 0 {
                let index = 32 * word + slots.trailing_zeros();
                slots &= slots - 1;
                function.write(SLOT_SELECT, index)?;
                let generation = function.read(SLOT_GENERATION)?;
                let sa = TransmitSa::new().with_index(index).with_generation(generation);
                found.push((sa, function.read(SLOT_STATUS)?));
            }
        }
        Ok(found)
    }
    // guide: end

    /// Turns the ring off and takes its memory back.
    pub fn close(self, function: &Function) -> Outcome<()> {
        function.write(EVENT_CONTROL, EventControl::new())?;
        function
            .poll("end of the event ring", || Ok((!function.read(EVENT_STATUS)?.enabled()).then_some(())))?;
        function.release(&self.ring)
    }
}
