//! PSP as the operations of a device know it: when device keys are rotated, where the IV clock stands, what is captured
//! and sampled, the eight statistics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cryptonic_regs::Register;
use cryptonic_regs::bar0::{
    PSP_KEY_STATUS, PSP_RECEIVED_AUTHENTICATION_FAILURES, PSP_RECEIVED_BAD, PSP_RECEIVED_BYTES,
    PSP_RECEIVED_ERRORS, PSP_RECEIVED_PACKETS, PSP_TRANSMITTED_BYTES, PSP_TRANSMITTED_ERRORS,
    PSP_TRANSMITTED_PACKETS,
};
use cryptonic_regs::psp_policy::{
    PSP_CAPTURE, PSP_EPOCH, PSP_ROTATION, PSP_ROTATION_PERIOD_MS, PSP_SAMPLING, PSP_SPI_LOW_WATER,
    PspCapture, PspRotation, PspSampling,
};

use crate::{Error, Nic, Unsupported};

/// What becomes of PSP packets that failed. They come to a queue pair that takes copies
/// ([`crate::QueuePairOptions::copies`]), with their status and marked as copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PspCaptureOptions {
    /// The queue pair that takes them.
    pub queue: u8,
    /// Received packets with a wrong ICV, a fault of framing or no key, as they were on the wire.
    pub receive: bool,
    /// Packets that could not be protected, as the host gave them.
    pub transmit: bool,
    /// Least time between two of them in microseconds.
    pub interval_us: u16,
}

/// What becomes of PSP packets with the S and the D bit. Copies come to a queue pair that takes them
/// ([`crate::QueuePairOptions::copies`]), marked as copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PspSamplingOptions {
    /// The queue pair that takes the copies.
    pub queue: u8,
    /// Opened packets with the S bit are copied.
    pub copies: bool,
    /// Packets with the D bit are dropped, after their copy was made if they have the S bit.
    pub drop: bool,
    /// Least time between two copies in microseconds.
    pub interval_us: u16,
}

/// The counters of the PSP specification (Implementation Requirements). Bytes are those from the first behind the IV to
/// the last of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PspStatistics {
    /// Packets opened.
    pub received_packets: u64,
    /// Bytes opened.
    pub received_bytes: u64,
    /// Packets whose ICV was wrong.
    pub received_authentication_failures: u64,
    /// Packets with a length or framing error.
    pub received_errors: u64,
    /// Packets with an invalid key selector, an unsupported version or another fault.
    pub received_bad: u64,
    /// Packets protected.
    pub transmitted_packets: u64,
    /// Bytes protected.
    pub transmitted_bytes: u64,
    /// Packets that could not be protected.
    pub transmitted_errors: u64,
}

impl Nic {
    /// Lets the device rotate its keys by itself: after each period, of whole milliseconds, and before an allocation
    /// that finds too few SPIs left.
    pub fn psp_set_rotation(&mut self, period: Option<Duration>, on_exhaustion: bool) -> Result<(), Error> {
        self.psp_ability(self.information.capabilities.life.psp_rotation(), "rotation by itself")?;
        let period_ms = match period {
            None => 0,
            Some(period) => u32::try_from(period.as_millis())
                .ok()
                .filter(|period_ms| *period_ms > 0)
                .ok_or(Error::Argument("a period of rotation has 1 to 2^32 - 1 milliseconds"))?,
        };
        self.write_and_read_back(PSP_ROTATION_PERIOD_MS, period_ms)?;
        self.write_and_read_back(PSP_ROTATION, PspRotation::new().with_on_exhaustion(on_exhaustion))
    }

    /// How few SPIs left to a device key are an event.
    pub fn psp_set_low_water(&mut self, spis: u32) -> Result<(), Error> {
        self.psp_ability(true, "PSP")?;
        self.write_and_read_back(PSP_SPI_LOW_WATER, spis)
    }

    /// Sets the epoch, without which no PSP packet leaves: the IVs are those of a clock that is the epoch and the time
    /// since power-on. [`psp_epoch_picoseconds`] makes one of wall time. One that would turn the clock back is
    /// [`Error::EpochRefused`]. For a device without PSP the driver keeps it, for SAs in software.
    pub fn psp_set_epoch(&mut self, picoseconds: u64) -> Result<(), Error> {
        self.alive()?;
        if picoseconds == 0 {
            return Err(Error::Argument("an epoch is not 0"));
        }
        if !self.information.capabilities.protocol.psp() {
            if picoseconds < self.shared.software_epoch.get() {
                return Err(Error::EpochRefused { clock_picoseconds: self.iv_clock_picoseconds()? });
            }
            self.shared.software_epoch.set(picoseconds);
            return Ok(());
        }
        self.shared.write(PSP_EPOCH, picoseconds)?;
        let status = self.shared.read(PSP_KEY_STATUS)?;
        if status.epoch_refused() {
            return Err(Error::EpochRefused { clock_picoseconds: self.iv_clock_picoseconds()? });
        }
        if status.epoch_set() && self.shared.read(PSP_EPOCH)? == picoseconds {
            Ok(())
        } else {
            Err(Unsupported::one("this epoch").into())
        }
    }

    /// Sets the epoch by the clock on the wall.
    pub fn psp_set_epoch_by(&mut self, now: SystemTime) -> Result<(), Error> {
        self.psp_set_epoch(psp_epoch_picoseconds(now, self.device_time_picoseconds()?))
    }

    /// The clock that the IVs are taken from, in picoseconds: epoch and device time. `None` while there is no epoch.
    pub fn psp_clock_picoseconds(&self) -> Result<Option<u64>, Error> {
        let has_epoch = self.psp_epoch_picoseconds()? != 0;
        has_epoch.then(|| self.iv_clock_picoseconds()).transpose()
    }

    /// The IV clock; device time alone while there is no epoch, and no packet takes an IV.
    pub(crate) fn iv_clock_picoseconds(&self) -> Result<u64, Error> {
        Ok(self.psp_epoch_picoseconds()?.saturating_add(self.device_time_picoseconds()?))
    }

    /// 0 for none.
    fn psp_epoch_picoseconds(&self) -> Result<u64, Error> {
        self.alive()?;
        if !self.information.capabilities.protocol.psp() {
            return Ok(self.shared.software_epoch.get());
        }
        Ok(self.shared.read(PSP_EPOCH)?)
    }

    /// Captures packets that failed; `None` captures none.
    pub fn psp_set_capture(&mut self, options: Option<PspCaptureOptions>) -> Result<(), Error> {
        self.psp_ability(self.information.capabilities.life.psp_capture(), "capture of failed PSP packets")?;
        let mut capture = PspCapture::new();
        if let Some(options) = options {
            self.check_queue(options.queue)?;
            capture = capture
                .with_queue(options.queue)
                .with_receive(options.receive)
                .with_transmit(options.transmit)
                .with_interval_us(options.interval_us);
        }
        self.write_and_read_back(PSP_CAPTURE, capture)
    }

    /// Copies and drops packets by their S and D bits; `None` does neither.
    pub fn psp_set_sampling(&mut self, options: Option<PspSamplingOptions>) -> Result<(), Error> {
        self.psp_ability(self.information.capabilities.life.psp_sampling(), "copies of PSP packets")?;
        let mut sampling = PspSampling::new();
        if let Some(options) = options {
            self.check_queue(options.queue)?;
            sampling = sampling
                .with_queue(options.queue)
                .with_enable(options.copies)
                .with_drop(options.drop)
                .with_interval_us(options.interval_us);
        }
        self.write_and_read_back(PSP_SAMPLING, sampling)
    }

    /// The eight counters, since power-on or reset.
    pub fn psp_statistics(&self) -> Result<PspStatistics, Error> {
        self.psp_ability(true, "PSP")?;
        let read = |counter: Register<u64>| self.shared.read(counter);
        Ok(PspStatistics {
            received_packets: read(PSP_RECEIVED_PACKETS)?,
            received_bytes: read(PSP_RECEIVED_BYTES)?,
            received_authentication_failures: read(PSP_RECEIVED_AUTHENTICATION_FAILURES)?,
            received_errors: read(PSP_RECEIVED_ERRORS)?,
            received_bad: read(PSP_RECEIVED_BAD)?,
            transmitted_packets: read(PSP_TRANSMITTED_PACKETS)?,
            transmitted_bytes: read(PSP_TRANSMITTED_BYTES)?,
            transmitted_errors: read(PSP_TRANSMITTED_ERRORS)?,
        })
    }

    fn psp_ability(&self, able: bool, what: &'static str) -> Result<(), Error> {
        self.alive()?;
        if !self.information.capabilities.protocol.psp() {
            return Err(Unsupported::one("PSP").into());
        }
        if able { Ok(()) } else { Err(Unsupported::one(what).into()) }
    }

    fn check_queue(&self, queue: u8) -> Result<(), Error> {
        if u16::from(queue) < self.information.capabilities.queue.queue_pairs() {
            Ok(())
        } else {
            Err(Error::Argument("the device has no such queue pair"))
        }
    }
}

/// The epoch by which the IV clock is wall time modulo 2^63 picoseconds at this moment: the moment of power-on, modulo
/// 2^63 picoseconds, and 1 instead of 0.
///
/// Devices that are powered on one after another so take IVs that rise, across power cycles too, as long as their host's
/// clock is not set back. 2^63 picoseconds are 106 days: a key has to be replaced within them. From there the clock
/// counts on for 106 days more before it reaches the end of 64 bits.
pub fn psp_epoch_picoseconds(now: SystemTime, device_time_picoseconds: u64) -> u64 {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let picoseconds = since_1970.as_nanos().wrapping_mul(1000).wrapping_sub(device_time_picoseconds.into());
    ((picoseconds & u128::from(u64::MAX >> 1)) as u64).max(1)
}
