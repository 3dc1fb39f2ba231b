//! What is to happen in a NIC, in the order of time.
//!
//! Each kind of event has a queue of its own whose times ascend, because the resource behind it serves in
//! order. The total order of all events is (time, NIC, kind, serial): the kinds rank in the order of
//! [`Kind`], and the serial is the place in the queue.

use std::collections::VecDeque;

use cryptonic_pci::host::Bar;
use cryptonic_pci::{Time, msix};

use crate::packet::Packet;

/// Kinds of events, in the order in which they happen at one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
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
    ReceiveCommit,
    HostWrite,
}

pub(crate) const KINDS: usize = 12;

/// A queue of events of one kind. The time of its head stands beside it, so that finding the next event
/// touches nothing else.
pub(crate) struct Queue<T> {
    head: Time,
    events: VecDeque<(Time, T)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { head: Time::NEVER, events: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    /// Adds an event. Times ascend; one that would not is put right behind those at or before its time.
    #[inline]
    pub(crate) fn push(&mut self, time: Time, event: T) {
        if self.events.back().is_none_or(|(last, _)| *last <= time) {
            self.events.push_back((time, event));
        } else {
            let place = self.events.partition_point(|(at, _)| *at <= time);
            self.events.insert(place, (time, event));
        }
        self.head = self.head.min(time);
    }

    #[inline]
    pub(crate) fn next(&self) -> Time {
        self.head
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (_, event) = self.events.pop_front()?;
        self.head = self.events.front().map_or(Time::NEVER, |(time, _)| *time);
        Some(event)
    }

    /// Time of the last event.
    pub(crate) fn last(&self) -> Time {
        self.events.back().map_or(Time::ZERO, |(time, _)| *time)
    }
}

/// A register write of the host.
pub(crate) struct RegisterWrite {
    pub(crate) bar: Bar,
    pub(crate) offset: u32,
    pub(crate) value: u32,
}

/// Descriptors that were asked for.
#[derive(Clone, Copy)]
pub(crate) struct Descriptors {
    pub(crate) queue: u16,
    pub(crate) epoch: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// A transmit descriptor at hand.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) queue: u16,
    pub(crate) epoch: u32,
    pub(crate) words: [u64; 8],
    pub(crate) accepted_at: Time,
    /// What is wrong with it, or `Ok`; a bad one is not gathered.
    pub(crate) fault: cryptonic_regs::Status,
}

/// Transmit descriptors whose outcome is to be told to the host.
#[derive(Clone, Copy)]
pub(crate) struct TransmitReport {
    pub(crate) queue: u16,
    pub(crate) epoch: u32,
    /// Completion words 0 to 3 but for the phase.
    pub(crate) words: [u64; 4],
}

/// A write to host memory on its way.
pub(crate) enum HostWrite {
    Receive { queue: u16, epoch: u32, buffer: u64, completion: u64, words: [u64; 8], packet: Box<Packet> },
    Transmit { queue: u16, epoch: u32, completion: u64, words: [u64; 4] },
    Admin { completion: u64, words: [u64; 2], vector: u16 },
    Bytes { address: u64, bytes: Vec<u8> },
    Interrupt(msix::Message),
}

/// All events of one NIC.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) register_writes: Queue<RegisterWrite>,
    pub(crate) engine: Queue<()>,
    pub(crate) admin_command: Queue<()>,
    pub(crate) firmware: Queue<()>,
    pub(crate) transmit_descriptors: Queue<Descriptors>,
    pub(crate) receive_descriptors: Queue<Descriptors>,
    pub(crate) gather_retry: Queue<()>,
    pub(crate) gathered: Queue<Pending>,
    pub(crate) transmit_reports: Queue<TransmitReport>,
    pub(crate) wire_arrivals: Queue<Box<Packet>>,
    pub(crate) receive_commits: Queue<Box<Packet>>,
    pub(crate) host_writes: Queue<HostWrite>,
}

impl Events {
    /// The next event's time and kind.
    #[inline]
    pub(crate) fn next(&self) -> (Time, Kind) {
        let times: [(Time, Kind); KINDS] = [
            (self.register_writes.next(), Kind::RegisterWrite),
            (self.engine.next(), Kind::Engine),
            (self.admin_command.next(), Kind::AdminCommand),
            (self.firmware.next(), Kind::Firmware),
            (self.transmit_descriptors.next(), Kind::TransmitDescriptors),
            (self.receive_descriptors.next(), Kind::ReceiveDescriptors),
            (self.gather_retry.next(), Kind::GatherRetry),
            (self.gathered.next(), Kind::Gathered),
            (self.transmit_reports.next(), Kind::TransmitReport),
            (self.wire_arrivals.next(), Kind::WireArrival),
            (self.receive_commits.next(), Kind::ReceiveCommit),
            (self.host_writes.next(), Kind::HostWrite),
        ];
        let mut first = times[0];
        for candidate in &times[1..] {
            if candidate.0 < first.0 {
                first = *candidate;
            }
        }
        first
    }
}
