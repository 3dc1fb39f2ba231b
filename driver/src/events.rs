//! Events: what the device tells of by itself.
//!
//! **No soft or hard limit is missed, and none is told twice.** The device keeps a sticky bit for each cause of each
//! SA, writes a record beside it, and counts the records for which the ring had no room. The stream goes by these rules:
//!
//! * A batch is read until the ring is empty, at most once around. Then the doorbell is written, and the count of lost
//!   records is read: the read arrives behind the doorbell. A record is lost only while records are unread, so that
//!   every loss is followed by a batch whose read sees it.
//! * When that count has risen, or a record says so, the sticky bits of every slot are looked at. What they say and was
//!   not told is told, without a record: the counters are asked for with [`crate::Nic::query_sa`].
//! * What was told is remembered by slot, generation and cause; of soft limits since the SA was armed last. A record
//!   that is read after a look at the sticky bits, though it was written before, finds its cause told and is dropped.
//! * A record of another arming than the last is superseded and dropped: whoever armed anew wants to hear of the new
//!   limit. So is one of an SA that was deleted.
//! * An arming is a number modulo 2^8. When an SA was armed 256 times since the ring was last seen empty, its records
//!   could be of any of them: they are dropped, and the sticky bits decide.
//!
//! ICV failures are told each time that a record says so, and after a loss at least once. Causes of the device may be
//! told once more after a loss.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

use cryptonic_pci::{DmaAccess, Time};
use cryptonic_regs::admin::{Direction, LifetimeKind};
use cryptonic_regs::bar0::TIME_PICOSECONDS;
use cryptonic_regs::events::{
    EVENT_DOORBELL, EVENT_SLOTS_LOG2, EVENT_STATUS, EVENT_STICKY, EVENTS_LOST, Event as Record, EventCause,
    EventSticky, SLOT_GENERATION, SLOT_SELECT, SLOT_STATUS, STICKY_SLOTS,
};

use crate::event_ring::{EventDispatcher, EventRing};
use crate::sa::SaCauses;
use crate::shared::Shared;
use crate::slots::{InstalledSa, Named, Telling};
use crate::{Error, EventAnomaly, Nic, SaHandle, Unsupported};

/// Most batches that a call reads: a device that writes without end what is not to be told must not hold the caller.
const BATCHES_MAX: u32 = 16;

/// How to set up the ring of events.
#[derive(Clone, Copy, Debug)]
pub struct EventOptions {
    /// Slots of the ring, a power of two from 4 up.
    pub slots: u32,
    /// MSI-X vector; `None` takes the last, which no queue pair has.
    pub vector: Option<u8>,
}

impl Default for EventOptions {
    fn default() -> Self {
        EventOptions { slots: 256, vector: None }
    }
}

/// Something that happened in the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub cause: EventCause,
    /// To which SA; `None` for a cause of the device.
    pub sa: Option<SaHandle>,
    /// Cookie of the SA, or 0.
    pub cookie: u32,
    /// SPI of the SA, or 0.
    pub spi: u32,
    /// What the device's record says beside; `None` if the record was lost and the sticky bit tells of the cause.
    pub record: Option<EventRecord>,
}

/// What a record says beside its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Packets of the SA, that of the event included.
    pub packets: u64,
    /// Bytes of the SA, those of that packet included.
    pub bytes: u64,
    /// Last sequence number used (out) or highest accepted (in).
    pub sequence: u64,
    /// Device time.
    pub time_picoseconds: u64,
    /// SPIs left (`psp_spi_low`, `psp_spi_exhausted`), generation of the device key (`psp_rotated_…`), or 0.
    pub number: u32,
}

/// What a stream of events did, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventStatistics {
    /// Events told.
    pub told: u64,
    /// Records of an arming before the last.
    pub superseded: u64,
    /// Records whose cause had been told by the sticky bits.
    pub repeated: u64,
    /// Records of SAs that were deleted meanwhile.
    pub of_deleted: u64,
    /// Records that the device had no room for.
    pub lost: u32,
    /// How often the sticky bits were looked at.
    pub scans: u64,
}

/// The events of a device, in order. Dropping it turns them off.
///
/// Without a runtime, [`Self::next`] polls and [`Self::wait`] sleeps. A task awaits
/// `std::future::poll_fn(|context| stream.poll_next(context))`, and whoever runs the tasks calls
/// [`EventDispatcher::wait`] when none of them can go on.
pub struct EventStream {
    shared: Rc<Shared>,
    ring: Rc<EventRing>,
    sa_slots: u32,
    /// Read and not handed out, with the arming of their SA.
    pending: VecDeque<(Event, u8)>,
    /// Count of lost records at the last look at the sticky bits.
    lost: u32,
    scan_due: bool,
    statistics: EventStatistics,
    quarantine: Option<EventAnomaly>,
    closed: bool,
}

impl Nic {
    /// Turns the ring of events on. What happened before to the SAs that are installed is told first.
    pub fn open_events(&mut self, options: EventOptions) -> Result<EventStream, Error> {
        self.alive()?;
        let capabilities = &self.information.capabilities;
        if !capabilities.life.events() {
            return Err(Unsupported::one("events").into());
        }
        let (slots, least) = (options.slots, 1 << EVENT_SLOTS_LOG2.0);
        let most = 1 << capabilities.life.event_slots_log2_max().min(EVENT_SLOTS_LOG2.1);
        if !slots.is_power_of_two() || !(least..=most).contains(&slots) {
            return Err(Error::EventSlots { slots, least, most });
        }
        let vectors = capabilities.queue.vectors();
        let vector = options.vector.unwrap_or(vectors.saturating_sub(1));
        if vector >= vectors {
            return Err(Error::Argument("the device has no such MSI-X vector"));
        }
        let shared = &self.shared;
        if shared.events.borrow().is_some() {
            return Err(Error::Argument("the events of this device are open already"));
        }
        let arena = shared.arena(slots as usize * Record::BYTES, DmaAccess::DeviceReadsAndWrites)?;
        let ring = Rc::new(EventRing::new(arena, slots.ilog2() as u8, vector));
        shared.events.replace(Some(ring.clone()));
        // From here on dropping the stream undoes what was done.
        let mut stream = EventStream {
            shared: shared.clone(),
            ring,
            sa_slots: capabilities.sa_slots,
            pending: VecDeque::new(),
            lost: 0,
            scan_due: true,
            statistics: EventStatistics::default(),
            quarantine: None,
            closed: false,
        };
        // What the device itself did before is of the past.
        shared.write(EVENT_STICKY, EventSticky::new().with_causes(u16::MAX))?;
        stream.ring.turn_on(shared)?;
        stream.look_for_losses()?;
        Ok(stream)
    }
}

impl EventStream {
    /// The next event, if there is one.
    #[allow(clippy::should_implement_trait)] // It can fail, and none now is not the end.
    pub fn next(&mut self) -> Result<Option<Event>, Error> {
        for _ in 0..BATCHES_MAX {
            if let Some(event) = self.take_pending() {
                return Ok(Some(event));
            }
            self.usable()?;
            if !self.ring.has_record()? {
                return Ok(None);
            }
            self.read_batch()?;
        }
        Ok(self.take_pending())
    }

    /// The next event; sleeps until there is one, or the deadline. Without interrupts it polls.
    pub fn wait(&mut self, deadline: Time) -> Result<Option<Event>, Error> {
        loop {
            let late = self.shared.host.now() >= deadline;
            if let Some(event) = self.next()? {
                return Ok(Some(event));
            }
            if late {
                self.check_device()?;
                return Ok(None);
            }
            if !self.ring.has_record()? {
                self.dispatcher().sleep(deadline)?;
            }
        }
    }

    /// The next event, for a task: while there is none, its waker is woken by an [`EventDispatcher`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        self.ring.await_record(context.waker());
        match self.next().transpose() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }

    fn take_pending(&mut self) -> Option<Event> {
        while let Some((event, arming)) = self.pending.pop_front() {
            if self.still_holds(&event, arming) {
                self.statistics.told += 1;
                return Some(event);
            }
        }
        None
    }

    /// What wakes tasks that await this stream's events.
    pub fn dispatcher(&self) -> EventDispatcher {
        EventDispatcher { shared: self.shared.clone(), ring: self.ring.clone() }
    }

    /// What the stream did so far.
    pub fn statistics(&self) -> EventStatistics {
        self.statistics
    }

    /// Why the stream is in quarantine, if it is.
    pub fn quarantine(&self) -> Option<EventAnomaly> {
        self.quarantine
    }

    /// Turns the ring of events off and takes its memory back.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut_down()
    }

    fn usable(&self) -> Result<(), Error> {
        match self.quarantine {
            Some(anomaly) => Err(Error::EventsQuarantined(anomaly)),
            None if self.shared.closed.get() => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// Asks the device whether it stopped the ring.
    fn check_device(&mut self) -> Result<(), Error> {
        let status = self.shared.read(EVENT_STATUS)?;
        if status.stopped() || !status.enabled() {
            return Err(self.put_into_quarantine(EventAnomaly::DeviceStopped));
        }
        Ok(())
    }

    /// Reads what is in the ring, at most once around, and looks for losses.
    fn read_batch(&mut self) -> Result<(), Error> {
        let mut count = 0;
        while count < self.ring.slots() {
            let Some(record) = self.ring.take()? else {
                self.shared.slots.borrow_mut().caught_up();
                break;
            };
            count += 1;
            if let Err(anomaly) = self.take_record(&record) {
                let error = self.put_into_quarantine(anomaly);
                // What came before it holds.
                return if self.pending.is_empty() { Err(error) } else { Ok(()) };
            }
        }
        self.shared.write(EVENT_DOORBELL, self.ring.position())?;
        self.look_for_losses()
    }

    fn take_record(&mut self, record: &Record) -> Result<(), EventAnomaly> {
        let head = record.head;
        let cause = EventCause::of_number(head.cause().into()).ok_or(EventAnomaly::UnknownCause)?;
        let (index, generation) = (head.sa_index(), record.names.generation());
        let details = EventRecord {
            packets: record.packets,
            bytes: record.bytes,
            sequence: record.sequence,
            time_picoseconds: record.time_picoseconds,
            number: record.detail.number(),
        };
        if is_of_device(cause) {
            if index != 0 || generation != 0 {
                return Err(EventAnomaly::Contradiction);
            }
            match cause {
                EventCause::EventsLost => self.scan_due = true,
                _ => self.pending.push_back((of_device(cause, Some(details)), 0)),
            }
            return Ok(());
        }
        if index >= self.sa_slots {
            return Err(EventAnomaly::SlotOutOfRange);
        }
        let names = (record.names.cookie(), record.detail.spi());
        let nic = self.shared.identity;
        let mut slots = self.shared.slots.borrow_mut();
        let batches = slots.batches();
        let sa = match slots.named(index, generation) {
            Named::Installed(sa) => sa,
            Named::Deleted => {
                self.statistics.of_deleted += 1;
                return Ok(());
            }
            Named::Never => return Err(EventAnomaly::UnknownSa),
        };
        if names != (sa.cookie, sa.spi) || !is_possible(cause, sa) {
            return Err(EventAnomaly::Contradiction);
        }
        match sa.told.by_record(cause, head.arming(), batches, record.time_picoseconds) {
            Telling::Tell => {
                let handle = SaHandle { index, generation, nic };
                self.pending.push_back((of_sa(cause, handle, sa, Some(details)), head.arming()));
            }
            Telling::Repeated => self.statistics.repeated += 1,
            Telling::Superseded => self.statistics.superseded += 1,
            Telling::Unclear => self.scan_due = true,
        }
        Ok(())
    }

    /// Looks at the sticky bits if records were lost since the last look.
    fn look_for_losses(&mut self) -> Result<(), Error> {
        let lost = self.shared.read(EVENTS_LOST)?;
        if lost == self.lost && !self.scan_due {
            return Ok(());
        }
        self.lost = lost;
        self.scan_due = false;
        self.statistics.lost = lost;
        self.statistics.scans += 1;
        for word in 0..self.sa_slots.div_ceil(32) {
            let mut bits = self.shared.read(STICKY_SLOTS.instance(word, 4))?;
            while bits != 0 {
                let index = word * 32 + bits.trailing_zeros();
                bits &= bits - 1;
                self.look_at_slot(index)?;
            }
        }
        let sticky = self.shared.read(EVENT_STICKY)?;
        if sticky.causes() != 0 {
            self.shared.write(EVENT_STICKY, sticky)?;
        }
        for place in (0..16).filter(|place| sticky.causes() & 1 << place != 0) {
            match EventCause::of_number(16 + place) {
                Some(EventCause::EventsLost) => {}
                Some(cause) => self.pending.push_back((of_device(cause, None), 0)),
                None => return Err(self.put_into_quarantine(EventAnomaly::UnknownCause)),
            }
        }
        Ok(())
    }

    fn look_at_slot(&mut self, index: u32) -> Result<(), Error> {
        let shared = self.shared.clone();
        shared.write(SLOT_SELECT, index)?;
        let generation = shared.read(SLOT_GENERATION)?;
        let status = shared.read(SLOT_STATUS)?;
        let now_picoseconds = shared.read(TIME_PICOSECONDS)?;
        let outcome = self.take_slot(index, generation, status.arming(), status.causes(), now_picoseconds);
        outcome.map_err(|anomaly| self.put_into_quarantine(anomaly))
    }

    fn take_slot(
        &mut self,
        index: u32,
        generation: u32,
        arming: u8,
        causes: u16,
        now_picoseconds: u64,
    ) -> Result<(), EventAnomaly> {
        if index >= self.sa_slots {
            return Err(EventAnomaly::SlotOutOfRange);
        }
        let causes = SaCauses::of_bits(causes).ok_or(EventAnomaly::UnknownCause)?;
        let mut slots = self.shared.slots.borrow_mut();
        let sa = match slots.named(index, generation) {
            Named::Installed(sa) => sa,
            // It was emptied between the bitmap and its turn, or is of the past.
            _ if generation == 0 => return Ok(()),
            Named::Deleted => return Ok(()),
            Named::Never => return Err(EventAnomaly::UnknownSa),
        };
        let handle = SaHandle { index, generation, nic: self.shared.identity };
        for cause in causes.iter() {
            if !is_possible(cause, sa) {
                return Err(EventAnomaly::Contradiction);
            }
            match sa.told.by_sticky_bit(cause, arming, now_picoseconds) {
                Telling::Tell => self.pending.push_back((of_sa(cause, handle, sa, None), arming)),
                Telling::Repeated => {}
                // Nobody but this driver arms.
                Telling::Superseded | Telling::Unclear => return Err(EventAnomaly::Contradiction),
            }
        }
        Ok(())
    }

    /// Whether an event that was read is still to be told: its SA lives, and was not armed anew.
    fn still_holds(&mut self, event: &Event, arming: u8) -> bool {
        let Some(handle) = event.sa else { return true };
        match self.shared.slots.borrow().get(handle) {
            None => self.statistics.of_deleted += 1,
            Some(sa) if sa.told.is_superseded(event.cause, arming) => self.statistics.superseded += 1,
            Some(_) => return true,
        }
        false
    }

    #[cold]
    fn put_into_quarantine(&mut self, anomaly: EventAnomaly) -> Error {
        self.quarantine = Some(anomaly);
        self.shared.event_quarantines.set(self.shared.event_quarantines.get() + 1);
        let _ = self.shut_down();
        Error::EventsQuarantined(anomaly)
    }

    fn shut_down(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.shared.events.borrow_mut().take_if(|ring| Rc::ptr_eq(ring, &self.ring));
        self.ring.close(&self.shared)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        // What was read and not handed out is for the next stream to tell.
        let mut slots = self.shared.slots.borrow_mut();
        for (event, _) in self.pending.drain(..) {
            if let Some(sa) = event.sa.and_then(|handle| slots.get_mut(handle)) {
                sa.told.take_back(event.cause);
            }
        }
        drop(slots);
        let _ = self.shut_down();
    }
}

/// Causes from 16 on are of the device.
fn is_of_device(cause: EventCause) -> bool {
    cause.number() >= 16
}

fn of_device(cause: EventCause, record: Option<EventRecord>) -> Event {
    Event { cause, sa: None, cookie: 0, spi: 0, record }
}

fn of_sa(cause: EventCause, handle: SaHandle, sa: &InstalledSa, record: Option<EventRecord>) -> Event {
    Event { cause, sa: Some(handle), cookie: sa.cookie, spi: sa.spi, record }
}

/// Whether a cause can be one of this SA.
fn is_possible(cause: EventCause, sa: &InstalledSa) -> bool {
    let packets = sa.lifetime.kind == LifetimeKind::Packets;
    match cause {
        EventCause::SoftPackets => packets && sa.lifetime.soft.is_some(),
        EventCause::HardPackets => packets && sa.lifetime.hard.is_some(),
        EventCause::SoftBytes => !packets && sa.lifetime.soft.is_some(),
        EventCause::HardBytes => !packets && sa.lifetime.hard.is_some(),
        EventCause::IcvFailures => sa.direction == Direction::In,
        _ => true,
    }
}
