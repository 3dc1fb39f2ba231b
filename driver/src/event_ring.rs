//! The ring of events: its memory, the one copy that is made of each record, and who sleeps until there is one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use cryptonic_pci::Time;
use cryptonic_pci::host::Wake;
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_regs::events::{EVENT_CONTROL, EVENT_RING_BASE, EVENT_STATUS, Event, EventControl, EventEnd};

use crate::Error;
use crate::shared::{Arena, Shared};

const WORDS: usize = Event::WORDS;

/// Wakes the task that awaits a stream's next event. Clones are for the same stream.
#[derive(Clone)]
pub struct EventDispatcher {
    pub(crate) shared: Rc<Shared>,
    pub(crate) ring: Rc<EventRing>,
}

impl EventDispatcher {
    /// Wakes the task if there is a record. Gives whether there is.
    pub fn dispatch(&self) -> Result<bool, Error> {
        let found = self.ring.has_record()?;
        if found || self.shared.closed.get() {
            self.ring.wake();
        }
        Ok(found)
    }

    /// Sleeps until there is a record, or the deadline, and wakes the task.
    pub fn wait(&self, deadline: Time) -> Result<Wake, Error> {
        loop {
            let late = self.shared.host.now() >= deadline;
            if self.dispatch()? {
                return Ok(Wake::Interrupt);
            }
            if late || self.shared.closed.get() {
                return Ok(Wake::Deadline);
            }
            self.sleep(deadline)?;
        }
    }

    /// Sleeps until the next interrupt, which may be that of a record that was read already.
    pub(crate) fn sleep(&self, deadline: Time) -> Result<(), Error> {
        if self.shared.interrupts.get() {
            self.shared.host.wait(self.ring.vector.into(), deadline)?;
        } else {
            self.shared.host.relax();
        }
        Ok(())
    }
}

/// The ring, and who waits for its records. The NIC knows it too, to take it back when it closes first.
pub(crate) struct EventRing {
    arena: Arena,
    slots_log2: u8,
    pub(crate) vector: u8,
    /// Records read: a free-running count.
    read: Cell<u32>,
    waker: RefCell<Option<Waker>>,
}

impl EventRing {
    /// A ring in zeroed memory: no record has the phase of the first pass.
    pub(crate) fn new(arena: Arena, slots_log2: u8, vector: u8) -> Self {
        EventRing { arena, slots_log2, vector, read: Cell::new(0), waker: RefCell::default() }
    }

    /// Turns the ring on and waits until it is.
    pub(crate) fn turn_on(&self, shared: &Shared) -> Result<(), Error> {
        shared.write(EVENT_RING_BASE, self.arena.iova)?;
        let control =
            EventControl::new().with_enable(true).with_slots_log2(self.slots_log2).with_vector(self.vector);
        shared.write(EVENT_CONTROL, control)?;
        shared.poll(shared.command_timeout, "ready with the ring of events", || {
            Ok(shared.read(EVENT_STATUS)?.enabled().then_some(()))
        })
    }

    /// Turns the ring off and waits until it is, where the device still answers; takes its memory back.
    pub(crate) fn close(&self, shared: &Shared) -> Result<(), Error> {
        let off = if shared.closed.get() { Ok(()) } else { self.turn_off(shared) };
        let unmapped = shared.unmap(&self.arena);
        self.wake();
        off.and(unmapped.map_err(Error::from))
    }

    fn turn_off(&self, shared: &Shared) -> Result<(), Error> {
        shared.write(EVENT_CONTROL, EventControl::new())?;
        shared.poll(shared.command_timeout, "rid of the ring of events", || {
            Ok((!shared.read(EVENT_STATUS)?.enabled()).then_some(()))
        })
    }

    pub(crate) fn slots(&self) -> u32 {
        1 << self.slots_log2
    }

    /// Records read so far.
    pub(crate) fn position(&self) -> u32 {
        self.read.get()
    }

    pub(crate) fn has_record(&self) -> Result<bool, OutOfBounds> {
        Ok(self.due()?.is_some())
    }

    /// Copies the next record out, if it is there. Each of its words is read once.
    pub(crate) fn take(&self) -> Result<Option<Event>, OutOfBounds> {
        let Some((offset, end)) = self.due()? else { return Ok(None) };
        let mut words = [0; WORDS];
        self.arena.memory.read_words(offset, words.get_mut(..WORDS - 1).ok_or(OutOfBounds)?)?;
        words[WORDS - 1] = end.into_bits();
        self.read.set(self.read.get().wrapping_add(1));
        Ok(Some(Event::of_words(&words)))
    }

    /// Where the record that is due next stands, and its last word, if it is there.
    fn due(&self) -> Result<Option<(usize, EventEnd)>, OutOfBounds> {
        let read = self.read.get();
        let offset = (read & (self.slots() - 1)) as usize * Event::BYTES;
        let end = self.arena.memory.read_word_acquire(offset + (WORDS - 1) * 8)?;
        let end = EventEnd::from_bits(end);
        let phase = (read >> self.slots_log2) & 1 == 0;
        Ok((end.phase() == phase).then_some((offset, end)))
    }

    /// Remembers who is to be woken by [`Self::wake`].
    pub(crate) fn await_record(&self, waker: &Waker) {
        self.waker.replace(Some(waker.clone()));
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
