//! What is to happen in a NIC, in the order of time.
//!
//! Each kind of event has a queue of its own whose times ascend, because the resource behind it serves in
//! order. The total order of all events is (time, NIC, kind, serial): the kinds rank in the order of
//! [`Kind`], and the serial is the place in the queue.

use std::collections::VecDeque;

use crate::Ticks;
use cryptonic_pci::host::Bar;
use cryptonic_pci::msix;
use cryptonic_regs::Status;
use cryptonic_regs::descriptor::TransmitControl;
use cryptonic_regs::events::Event;
use cryptonic_wire::packet::Expected;

use crate::packet::Packet;
use crate::sa_table::SlotName;

/// Kinds of events, in the order in which they happen at one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RegisterWrite,
    Engine,
    AdminCommand,
    Firmware,
    TransmitDescriptors,
    ReceiveDescriptors,
    GatherRetry,
    Gathered,
    TransmitReport,
    WireArrival,
    Parsed,
    ReceiveCommit,
    CompletionHold,
    InterruptDelay,
    HostWrite,
    EventInterrupt,
}

const KINDS: [Kind; 16] = [
    Kind::RegisterWrite,
    Kind::Engine,
    Kind::AdminCommand,
    Kind::Firmware,
    Kind::TransmitDescriptors,
    Kind::ReceiveDescriptors,
    Kind::GatherRetry,
    Kind::Gathered,
    Kind::TransmitReport,
    Kind::WireArrival,
    Kind::Parsed,
    Kind::ReceiveCommit,
    Kind::CompletionHold,
    Kind::InterruptDelay,
    Kind::HostWrite,
    Kind::EventInterrupt,
];

/// A point in the order of one NIC's events: time and kind in one number, so that the next event is a minimum.
/// 60 bits of time are 9.7 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

const KIND_BITS: u32 = 4;

impl Moment {
    /// Later than anything that happens.
    pub(crate) const NEVER: Moment = Moment(u64::MAX);
    /// Not later than anything that happens.
    const FIRST: Moment = Moment(0);
    /// Not earlier than anything that happens.
    pub(crate) const LAST: Moment = Moment(u64::MAX - 1);

    #[inline]
    const fn new(time: Ticks, kind: u64) -> Moment {
        // Past the end of the order everything is never: a world that old stands still.
        if time.0 < Self::NEVER.0 >> KIND_BITS { Moment(time.0 << KIND_BITS | kind) } else { Moment::NEVER }
    }

    /// The time; `Ticks::NEVER` for never.
    #[inline]
    pub(crate) fn time(self) -> Ticks {
        if self == Moment::NEVER { Ticks::NEVER } else { Ticks(self.0 >> KIND_BITS) }
    }

    /// The last moment at a time.
    pub(crate) fn end_of(time: Ticks) -> Moment {
        Moment::new(time, (1 << KIND_BITS) - 1).min(Moment::LAST)
    }

    /// The earlier of two with what goes with it; of two at one point in time, whatever happens then, the first.
    #[inline]
    pub(crate) fn earlier<T>(first: (Moment, T), second: (Moment, T)) -> (Moment, T) {
        if second.0.0 >> KIND_BITS < first.0.0 >> KIND_BITS { second } else { first }
    }

    /// The same point of the order as seen from `by` later.
    fn earlier_by(self, by: Ticks) -> Moment {
        if self == Moment::NEVER { self } else { Moment(self.0.saturating_sub(by.0 << KIND_BITS)) }
    }

    /// What happens.
    #[inline]
    pub(crate) fn kind(self) -> Kind {
        KINDS[(self.0 & ((1 << KIND_BITS) - 1)) as usize % KINDS.len()]
    }
}

/// A queue of events of one kind. The moment of its head stands beside it, so that finding the next event
/// touches nothing else.
pub(crate) struct Queue<T, const KIND: u64> {
    head: Moment,
    /// No event is later.
    last: Moment,
    events: VecDeque<(Moment, T)>,
}

impl<T, const KIND: u64> Default for Queue<T, KIND> {
    fn default() -> Self {
        Queue { head: Moment::NEVER, last: Moment::FIRST, events: VecDeque::new() }
    }
}

impl<T, const KIND: u64> Queue<T, KIND> {
    /// Adds an event. Times ascend; one that would not is put right behind those at or before its time.
    #[inline]
    pub(crate) fn push(&mut self, time: Ticks, event: T) {
        let moment = Moment::new(time, KIND);
        if self.last <= moment {
            self.last = moment;
            self.events.push_back((moment, event));
        } else {
            self.insert(moment, event);
        }
        self.head = self.head.min(moment);
    }

    #[cold]
    fn insert(&mut self, moment: Moment, event: T) {
        let place = self.events.partition_point(|(at, _)| *at <= moment);
        self.events.insert(place, (moment, event));
    }

    /// Puts an event back that was the first, for later. What would come before it comes right behind it then.
    #[cold]
    pub(crate) fn put_back(&mut self, time: Ticks, event: T) {
        let moment = Moment::new(time, KIND);
        for (at, _) in self.events.iter_mut().take_while(|(at, _)| *at < moment) {
            *at = moment;
        }
        self.events.push_front((moment, event));
        self.last = self.last.max(moment);
        self.head = moment;
    }

    /// Times begin anew, `by` later.
    fn begin_anew(&mut self, by: Ticks) {
        self.last = self.last.earlier_by(by);
        self.events.iter_mut().for_each(|(moment, _)| *moment = moment.earlier_by(by));
        self.head = self.head.earlier_by(by);
    }

    /// The moment of the first event.
    #[inline]
    pub(crate) fn head(&self) -> Moment {
        self.head
    }

    /// Whether there is no event.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == Moment::NEVER
    }

    /// The first event.
    pub(crate) fn first(&self) -> Option<&T> {
        self.events.front().map(|(_, event)| event)
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (_, event) = self.events.pop_front()?;
        self.head = self.events.front().map_or(Moment::NEVER, |(moment, _)| *moment);
        Some(event)
    }

    /// Time of the last event.
    pub(crate) fn last(&self) -> Ticks {
        self.events.back().map_or(Ticks::ZERO, |(moment, _)| moment.time())
    }
}

/// A register write of the host.
pub(crate) struct RegisterWrite {
    pub(crate) bar: Bar,
    pub(crate) offset: u32,
    pub(crate) data: RegisterData,
    /// When the host issued it.
    pub(crate) issued_at: Ticks,
}

/// What a register write brings.
#[derive(Clone, Copy)]
pub(crate) enum RegisterData {
    /// 32 bits.
    Word(u32),
    /// The first bytes of a place for lines of pushes, which may hold a key.
    Line { place: u32, bytes: u32 },
    /// A count that was found in host memory, of a queue pair in this epoch.
    Shadow { count: u32, epoch: u32 },
}

/// Why firmware runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirmwareRun {
    /// Something happened that it waits for, or it has more to do.
    Event,
    /// It wants to look at the clock.
    Timer,
}

/// Descriptors that were asked for.
#[derive(Clone, Copy)]
pub(crate) struct Descriptors {
    pub(crate) queue: u16,
    pub(crate) epoch: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// A frame to be transmitted, as its descriptors say.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) queue: u16,
    /// How many descriptors.
    pub(crate) descriptors: u16,
    pub(crate) epoch: u32,
    /// Words of the first descriptor.
    pub(crate) words: [u64; 4],
    /// Tag of the last descriptor, and whether any asks for a report.
    pub(crate) last: TransmitControl,
    /// Bytes of the frame as the host gives it.
    pub(crate) bytes: u32,
    /// Where its key is, if it has one.
    pub(crate) key: Option<u32>,
    /// Where its parts are; `None` if it is all at the address of its one descriptor.
    pub(crate) parts: Option<u32>,
    /// When the doorbell or push was accepted that announced its last descriptor.
    pub(crate) accepted_at: Ticks,
    /// When the host issued that.
    pub(crate) issued_at: Ticks,
    /// What is wrong with it, or `Ok`; a bad one is not gathered.
    pub(crate) fault: Status,
    /// These are more descriptors of a frame whose fault was told and counted.
    pub(crate) follows_fault: bool,
}

/// Frames that are not in use: they go from stage to stage by their box, and taking one allocates nothing in the
/// steady state.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "frames move from stage to stage by their box")]
pub(crate) struct PendingPool(Vec<Box<Pending>>);

impl PendingPool {
    /// Boxes a frame.
    #[inline]
    pub(crate) fn take(&mut self, frame: Pending) -> Box<Pending> {
        match self.0.pop() {
            Some(mut place) => {
                *place = frame;
                place
            }
            None => Box::new(frame),
        }
    }

    /// Gives a box back.
    #[inline]
    pub(crate) fn give(&mut self, frame: Box<Pending>) {
        self.0.push(frame);
    }
}

/// A received frame whose headers the parser has, or will have by the time of the event.
pub(crate) struct InParser {
    pub(crate) packet: Box<Packet>,
    /// What the registers said when it arrived.
    pub(crate) expected: Expected,
}

/// A queue pair whose held completions or whose interrupt may be due.
#[derive(Clone, Copy)]
pub(crate) struct QueueTimer {
    pub(crate) queue: u16,
    pub(crate) epoch: u32,
}

/// The fate of transmit descriptors, to be told to the host.
#[derive(Clone, Copy)]
pub(crate) struct TransmitReport {
    pub(crate) queue: u16,
    pub(crate) epoch: u32,
    /// Completion words 0 to 3 but for the phase.
    pub(crate) words: [u64; 4],
}

/// A write to host memory on its way.
pub(crate) enum HostWrite {
    /// A frame in one buffer, and its completion; the packet says where.
    Receive {
        queue: u16,
        epoch: u32,
        packet: Box<Packet>,
    },
    /// A frame over several buffers, which stand in a place of their own.
    Scattered {
        queue: u16,
        epoch: u32,
        buffers: u32,
        packet: Box<Packet>,
    },
    Transmit {
        queue: u16,
        epoch: u32,
        completion: u64,
        words: [u64; 4],
    },
    Admin {
        epoch: u32,
        completion: u64,
        words: [u64; 2],
        vector: u16,
        /// SAs that the command installed.
        committed: Box<[SlotName]>,
    },
    Bytes {
        address: u64,
        bytes: Vec<u8>,
    },
    Event {
        epoch: u32,
        address: u64,
        words: Box<[u64; Event::WORDS]>,
    },
    Interrupt(msix::Message),
}

/// All events of one NIC.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) seldom: Seldom,
    pub(crate) gathered: Queue<Box<Pending>, 7>,
    pub(crate) wire_arrivals: Queue<Box<Packet>, 9>,
    pub(crate) parsed: Queue<InParser, 10>,
    pub(crate) receive_commits: Queue<Box<Packet>, 11>,
    pub(crate) host_writes: Queue<HostWrite, 14>,
}

impl Events {
    /// The next event.
    #[inline]
    pub(crate) fn next(&self) -> Moment {
        self.heads().into_iter().fold(self.seldom.head, Moment::min)
    }

    /// The first of each kind that comes with every packet.
    #[inline]
    fn heads(&self) -> [Moment; 5] {
        [
            self.gathered.head,
            self.wire_arrivals.head,
            self.parsed.head,
            self.receive_commits.head,
            self.host_writes.head,
        ]
    }

    /// Times begin anew, `by` later.
    pub(crate) fn begin_anew(&mut self, by: Ticks) {
        let Events { seldom, gathered, wire_arrivals, parsed, receive_commits, host_writes } = self;
        gathered.begin_anew(by);
        wire_arrivals.begin_anew(by);
        parsed.begin_anew(by);
        receive_commits.begin_anew(by);
        host_writes.begin_anew(by);
        seldom.change(|queues| queues.begin_anew(by));
    }

    /// Whether nothing is under way but firmware that looks at the clock from time to time, for good.
    pub(crate) fn idle(&self) -> bool {
        let firmware = &self.seldom.queues.firmware;
        let next = self.next();
        next == Moment::NEVER
            || next == firmware.head && firmware.first() == Some(&FirmwareRun::Timer) && {
                let seldom = self.seldom.queues.heads_but_firmware();
                self.heads().iter().chain(&seldom).all(|head| *head == Moment::NEVER)
            }
    }
}

/// Events of the kinds of which there are fewer than packets, behind the moment of their first: it is found anew when
/// one of them changes, and not at every event.
pub(crate) struct Seldom {
    head: Moment,
    queues: SeldomQueues,
}

/// The queues of [`Seldom`], in the order of [`Kind`].
#[derive(Default)]
pub(crate) struct SeldomQueues {
    pub(crate) register_writes: Queue<RegisterWrite, 0>,
    pub(crate) engine: Queue<(), 1>,
    pub(crate) admin_command: Queue<u32, 2>,
    pub(crate) firmware: Queue<FirmwareRun, 3>,
    pub(crate) transmit_descriptors: Queue<Descriptors, 4>,
    pub(crate) receive_descriptors: Queue<Descriptors, 5>,
    pub(crate) gather_retry: Queue<(), 6>,
    pub(crate) transmit_reports: Queue<TransmitReport, 8>,
    pub(crate) completion_holds: Queue<QueueTimer, 12>,
    pub(crate) interrupt_delays: Queue<QueueTimer, 13>,
    pub(crate) event_interrupts: Queue<u32, 15>,
}

impl SeldomQueues {
    fn begin_anew(&mut self, by: Ticks) {
        self.register_writes.begin_anew(by);
        self.engine.begin_anew(by);
        self.admin_command.begin_anew(by);
        self.firmware.begin_anew(by);
        self.transmit_descriptors.begin_anew(by);
        self.receive_descriptors.begin_anew(by);
        self.gather_retry.begin_anew(by);
        self.transmit_reports.begin_anew(by);
        self.completion_holds.begin_anew(by);
        self.interrupt_delays.begin_anew(by);
        self.event_interrupts.begin_anew(by);
    }

    fn heads_but_firmware(&self) -> [Moment; 10] {
        [
            self.register_writes.head,
            self.engine.head,
            self.admin_command.head,
            self.transmit_descriptors.head,
            self.receive_descriptors.head,
            self.gather_retry.head,
            self.transmit_reports.head,
            self.completion_holds.head,
            self.interrupt_delays.head,
            self.event_interrupts.head,
        ]
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Seldom { head: Moment::NEVER, queues: SeldomQueues::default() }
    }
}

impl Seldom {
    /// The queues.
    pub(crate) fn queues(&self) -> &SeldomQueues {
        &self.queues
    }

    /// Changes the queues.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut SeldomQueues) -> R) -> R {
        let result = change(&mut self.queues);
        let queues = &self.queues;
        self.head = queues.heads_but_firmware().into_iter().fold(queues.firmware.head, Moment::min);
        result
    }
}
