//! The traffic of devices, which live by the clock on the wall. Nothing tells when they are done: a frame that does not arrive
//! is late, and then lost.

use std::time::{Duration, Instant};

use cryptonic_driver::Statistics;
use indicatif::ProgressBar;

use super::{Bench, drops};
use crate::error::{Error, Result};
use crate::output::Interrupt;
use crate::report::Report;

/// When nothing has arrived for so long, what is on the way is overdue, and others may leave in its place.
const OVERDUE: Duration = Duration::from_millis(500);
/// When nothing has arrived for so long, nothing will.
const PATIENCE: Duration = Duration::from_secs(5);

impl Bench {
    /// Sends and compares until everything has arrived or been dropped for a reason, or nothing has arrived for a while. No more
    /// packets are on the way than a transmit ring has slots: links between processes have short queues, and a
    /// receive ring that overflows would show how fast this host is, and nothing of the NIC.
    pub(super) fn drive_devices(
        &mut self,
        report: &mut Report,
        before: &[Statistics],
        interrupt: &Interrupt,
        bar: &ProgressBar,
    ) -> Result<()> {
        let started = Instant::now();
        let (mut arrived, mut arrived_at) = (0, started);
        let (mut overdue, mut looked_at) = (0, started);
        loop {
            let mut busy = false;
            for side in 0..self.sides.len() {
                let on_the_way = report.packets_sent.saturating_sub(report.packets_received + overdue);
                let room = u64::from(self.transmit_slots).saturating_sub(on_the_way);
                busy |= self.turn(side, report, room as usize)?;
            }
            if interrupt.came() && !report.interrupted {
                report.interrupted = true;
                self.sides.iter_mut().for_each(|side| side.left = 0);
            }
            let now = Instant::now();
            if report.packets_received != arrived {
                (arrived, arrived_at, looked_at) = (report.packets_received, now, now);
                bar.set_position(arrived);
            }
            let missing = report.packets_sent.saturating_sub(arrived);
            if self.all_left() && missing == 0 {
                break;
            }
            if now - looked_at >= OVERDUE {
                (overdue, looked_at) = (missing, now);
                self.check_devices()?;
                let drops = drops(before, &self.statistics()?);
                let explained = drops.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
                if self.all_left() && missing <= explained {
                    break;
                }
            }
            // Who interrupts does not want to wait for what will hardly come.
            if now - arrived_at >= if report.interrupted { OVERDUE } else { PATIENCE } {
                if !self.all_left() {
                    let seconds = (now - arrived_at).as_secs_f64();
                    report.failed = Some(format!("nothing has arrived for {seconds:.1} s: given up"));
                }
                break;
            }
            if !busy {
                self.sides[0].nic.relax();
            }
        }
        let last = if arrived == 0 { Instant::now() } else { arrived_at };
        report.wall_seconds = (last - started).as_secs_f64();
        Ok(())
    }

    /// Whether every packet has left.
    fn all_left(&self) -> bool {
        self.sides.iter().all(|side| side.left == 0 && side.in_flight() == 0)
    }

    /// Asks the devices whether they are still there: rings are only memory, and stay as they are without one.
    fn check_devices(&mut self) -> Result<()> {
        for side in &mut self.sides {
            for queue in &mut side.queues {
                queue.pair.check_device().map_err(|error| Error::at(&side.name, error))?;
            }
        }
        Ok(())
    }
}
