//! One end of the traffic: a NIC and what its host does, and the streams of packets between the ends.

use std::collections::HashMap;

use cryptonic_driver::{Nic, QueuePair, Received, Status, TransmitPacket, Transmitted};
use cryptonic_pci::Time;

use crate::cable::Arrived;
use crate::error::{Error, Result};
use crate::flow::Descriptor;
use crate::report::Report;
use crate::workload::Stream;

/// Packets the driver is handed at a time.
pub(super) const BATCH: usize = 64;
/// A scattered frame's headers: those of Ethernet, IPv4 and TCP.
pub(crate) const SCATTERED_HEAD_BYTES: usize = 54;
/// The longest frame that is received.
const BUFFER_BYTES: usize = 16_384;

/// A stream one way: how it is sent, and how far both ends are.
pub(crate) struct Lane {
    pub(super) stream: Stream,
    pub(super) flow: usize,
    /// Which of its side's queues it leaves by.
    pub(super) queue: usize,
    pub(crate) protection: cryptonic_driver::Protection,
    pub(crate) sent: u32,
    /// Number of the packet that is due next at the far end.
    pub(crate) due: u32,
    /// Behind a cable that is not plain: which packets arrived.
    pub(super) arrived: Option<Arrived>,
    pub(super) verified: u64,
}

/// A queue pair, and what is about to leave by it.
pub(crate) struct Queue {
    pub(crate) pair: QueuePair,
    pub(super) descriptor: Descriptor,
    pub(super) batch: Vec<TransmitPacket>,
}

/// One NIC and what its host does.
pub(crate) struct Side {
    /// Which device, as the command line has it.
    pub(crate) name: String,
    pub(crate) nic: Nic,
    /// One for each kind of descriptor. Everything is received by the first.
    pub(crate) queues: Vec<Queue>,
    /// Indices of the lanes that leave from here, as often as their weight says.
    pub(super) schedule: Vec<u32>,
    next: usize,
    pub(super) left: u64,
    completed: Vec<Transmitted>,
    received: Vec<Received>,
    buffer: Vec<u8>,
    /// Lanes that end here, by the SPI of PSP.
    pub(super) psp_lanes: HashMap<u32, u32>,
    last_psp: (u32, u32),
}

/// Which side sends what goes a way. One device alone is both ends.
pub(crate) fn near(way: usize, sides: &[Side]) -> usize {
    way.min(sides.len() - 1)
}

/// Which side receives what goes a way.
pub(crate) fn far(way: usize, sides: &[Side]) -> usize {
    near(1 - way, sides)
}

impl Side {
    pub(super) fn new(name: String, nic: Nic) -> Side {
        Side {
            name,
            nic,
            queues: Vec::new(),
            schedule: Vec::new(),
            next: 0,
            left: 0,
            completed: Vec::with_capacity(BATCH),
            received: Vec::with_capacity(2 * BATCH),
            buffer: vec![0; BUFFER_BYTES],
            psp_lanes: HashMap::new(),
            last_psp: (0, 0),
        }
    }

    pub(super) fn time(&self) -> Time {
        self.nic.time()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.queues.iter().map(|queue| queue.pair.in_flight()).sum()
    }

    /// Hands the driver a batch, of at most `room` packets. Says whether it took any packet.
    pub(super) fn send(&mut self, lanes: &mut [Lane], report: &mut Report, room: usize) -> Result<bool> {
        let name = &self.name;
        let waiting: usize = self.queues.iter().map(|queue| queue.batch.len()).sum();
        let space = |queue: &Queue| queue.pair.transmit_space() >> u32::from(queue.descriptor.scattered);
        let space = self.queues.iter().map(space).min().unwrap_or(0).min(BATCH).min(room);
        // A ring that is nearly full waits until a whole batch fits: one doorbell for many packets.
        if space < BATCH.min(self.left as usize) && waiting == 0 {
            return Ok(false);
        }
        for _ in waiting..space {
            if self.left == 0 {
                break;
            }
            let lane = &mut lanes[self.schedule[self.next] as usize];
            let queue = &mut self.queues[lane.queue];
            let Some(mut buffer) = queue.pair.take_buffer() else { break };
            let frame = lane.stream.frame(lane.sent);
            if queue.descriptor.scattered {
                let Some(mut tail) = queue.pair.take_buffer() else {
                    queue.pair.give_back(buffer).map_err(|error| Error::at(name, error))?;
                    break;
                };
                let (head, payload) = frame.split_at(SCATTERED_HEAD_BYTES);
                queue.pair.fill(&mut buffer, head).map_err(|error| Error::at(name, error))?;
                queue.pair.fill(&mut tail, payload).map_err(|error| Error::at(name, error))?;
                queue.pair.attach_buffer(&mut buffer, tail).map_err(|(error, _)| Error::at(name, error))?;
            } else {
                queue.pair.fill(&mut buffer, frame).map_err(|error| Error::at(name, error))?;
            }
            queue.batch.push(TransmitPacket::new(buffer, lane.protection, 0));
            lane.sent = lane.sent.wrapping_add(1);
            self.left -= 1;
            self.next += 1;
            if self.next == self.schedule.len() {
                self.next = 0;
            }
        }
        let mut any = false;
        for Queue { pair, batch, .. } in self.queues.iter_mut().filter(|queue| !queue.batch.is_empty()) {
            let sent = pair.transmit(batch).map_err(|error| Error::at(name, error))?;
            report.packets_sent += sent as u64;
            any |= sent > 0;
        }
        Ok(any)
    }

    /// Takes and compares what arrived. Says whether anything did.
    pub(super) fn take(&mut self, lanes: &mut [Lane], report: &mut Report) -> Result<bool> {
        for queue in &mut self.queues {
            queue.pair.completed(&mut self.completed).map_err(|error| Error::at(&self.name, error))?;
        }
        let ended = !self.completed.is_empty();
        self.completed.clear();
        let first = &mut self.queues[0].pair;
        first.receive(&mut self.received, 2 * BATCH).map_err(|error| Error::at(&self.name, error))?;
        let mut received = std::mem::take(&mut self.received);
        let any = !received.is_empty();
        for packet in received.drain(..) {
            self.compare(packet, lanes, report)?;
        }
        self.received = received;
        Ok(ended || any)
    }

    /// Compares a packet with what was sent, and gives its buffer back.
    fn compare(&mut self, packet: Received, lanes: &mut [Lane], report: &mut Report) -> Result<()> {
        report.packets_received += 1;
        let (status, spi) = (packet.status(), packet.spi());
        // The cookie of an SA is the number of its lane, from 1 on.
        let index = match packet.cookie() {
            0 if spi == self.last_psp.0 => Some(self.last_psp.1),
            0 => self.psp_lanes.get(&spi).copied(),
            cookie => Some(cookie - 1),
        };
        let bytes = self.queues[0].pair.copy_out(packet, &mut self.buffer);
        let bytes = bytes.map_err(|error| Error::at(&self.name, error))?;
        let frame = &self.buffer[..bytes];
        let Some(lane) = index.and_then(|index| lanes.get_mut(index as usize)) else {
            report.mismatches += 1;
            report.fault(|| format!("a packet of {bytes} bytes with SPI {spi:#x} that nobody sent"));
            return Ok(());
        };
        if let Some(index) = index {
            self.last_psp = (spi, index);
        }
        let due = lane.due;
        let number = lane.stream.number_of(frame);
        let timely = |number: u32| match &lane.arrived {
            None => number.wrapping_sub(due) < u32::MAX / 2,
            Some(arrived) => arrived.may_come(number),
        };
        let right = status == Status::Ok
            && number.is_some_and(|number| timely(number) && number < lane.sent)
            && number.is_some_and(|number| lane.stream.frame(number) == frame);
        if right {
            if let (Some(arrived), Some(number)) = (&mut lane.arrived, number)
                && !arrived.note(number)
            {
                return Ok(());
            }
            lane.verified += 1;
            lane.due = number.map_or(due, |number| number.wrapping_add(1));
            report.packets_verified += 1;
            report.verified_bytes += bytes as u64;
        } else {
            report.mismatches += 1;
            report.fault(|| {
                let number = number.map_or("none".to_owned(), |number| number.to_string());
                format!(
                    "SPI {spi:#x}, status {}, {bytes} bytes, packet number {number} where {due} or later was due",
                    status.name()
                )
            });
        }
        Ok(())
    }

    /// Closes queue pairs and NIC: a reset leaves it without keys, SAs and loopback.
    pub(super) fn close(self) -> Result<()> {
        let Side { name, nic, queues, .. } = self;
        let mut closed = Ok(());
        for queue in queues {
            closed = closed.and(queue.pair.close());
        }
        closed.and(nic.close()).map_err(|error| Error::at(name, error))
    }
}
