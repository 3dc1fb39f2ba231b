//! A world of any age: `Ticks` count from an epoch, which moves when the world is idle and an hour old.

use cryptonic_pci::Time;
use cryptonic_pci::time::TICKS_PER_PICOSECOND;

use crate::Ticks;
use crate::nic::{Nic, Transmit};
use crate::world::{Inner, Link};

/// An epoch is left behind it when the world is idle. Moments hold 60 bits of ticks, which are 9.7 hours.
pub(crate) const EPOCH_LASTS: Ticks = Ticks::from_milliseconds(3_600_000);

impl Inner {
    /// A time since the epoch as one since the beginning.
    pub(crate) fn absolute(&self, time: Ticks) -> Time {
        self.epoch + time.into()
    }

    /// A time since the beginning as one since the epoch.
    pub(crate) fn since_epoch(&self, time: Time) -> Ticks {
        if time == Time::NEVER { Ticks::NEVER } else { time.since(self.epoch).into() }
    }

    /// As [`Inner::run_until`], however far that is.
    pub(crate) fn run_until_absolute(&mut self, until: Time) {
        while self.since_epoch(until) > EPOCH_LASTS {
            let part = self.now + EPOCH_LASTS;
            self.run_until(part.min(self.since_epoch(until)));
            if !self.begin_anew() {
                break;
            }
        }
        let until = self.since_epoch(until);
        self.run_until(until);
    }

    /// Moves the epoch to now, so that 64 bits of ticks do. Only a world in which nothing is under way can do that: what is left
    /// of the past then, such as when a bus was free, is of no more use.
    ///
    /// The new epoch is a whole number of picoseconds and of every NIC's cycles away from the old one, so that no edge of a
    /// clock moves.
    pub(crate) fn begin_anew(&mut self) -> bool {
        let steps = self.nics.iter().map(|nic| nic.cycle.0).fold(TICKS_PER_PICOSECOND, least_common_multiple);
        let by = Ticks(self.now.0 - self.now.0 % steps);
        if by == Ticks::ZERO || !self.idle() {
            return false;
        }
        self.epoch += by.into();
        self.now = self.now.earlier_by(by);
        for (index, nic) in self.nics.iter_mut().enumerate() {
            nic.begin_anew(by);
            self.next[index] = nic.events.next();
        }
        for host in &mut self.hosts {
            host.busy_until = host.busy_until.earlier_by(by);
        }
        for link in &mut self.links {
            if let Link::Cable { disorder: Some(disorder), .. } = link {
                disorder.begin_anew(by);
            }
        }
        true
    }
}

impl Nic {
    /// Times begin anew, `by` later: a whole number of picoseconds and of cycles. Nothing is under way.
    pub(crate) fn begin_anew(&mut self, by: Ticks) {
        self.epoch_picoseconds = self.epoch_picoseconds.wrapping_add(by.picoseconds());
        self.cycles_before_epoch += by.0 / self.cycle.0;
        self.now = self.now.earlier_by(by);
        self.events.begin_anew(by);
        self.pcie.begin_anew(by);
        self.sa_table.begin_anew(by);
        self.keys.begin_anew(by);
        self.context_cache.begin_anew(by);
        self.management.begin_anew(by);
        self.event_ring.begin_anew(by);
        self.queues.iter_mut().for_each(|pair| pair.begin_anew(by));
        let Transmit { buffer, segment_buffer, gather, commit, lanes, bus, mac, last_report, .. } =
            &mut self.transmit;
        [gather, commit, bus].into_iter().for_each(|calendar| calendar.begin_anew(by));
        [buffer, segment_buffer].into_iter().for_each(|store| store.begin_anew(by));
        lanes.begin_anew(by);
        mac.begin_anew(by);
        *last_report = last_report.earlier_by(by);
        self.receive.buffer.begin_anew(by);
        self.receive.lanes.begin_anew(by);
        self.receive.commit.begin_anew(by);
    }
}

fn least_common_multiple(one: u64, other: u64) -> u64 {
    let (mut divisor, mut rest) = (one, other);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    // More than 64 bits: such a world keeps its epoch.
    (one / divisor.max(1)).saturating_mul(other)
}
