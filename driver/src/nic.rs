//! One function of the device: opening it, its controls, closing it.

use std::rc::{Rc, Weak};

use cryptonic_pci::{Host, HostError, Time};
use cryptonic_regs::admin::{CapabilityReply, Opcode, SaParameters};
use cryptonic_regs::bar0::{
    CONTROL, Control, DEVICE_STATUS, DeviceStatus, QUEUE_CONTROL, QUEUE_PAIR_STRIDE, QUEUE_STATUS,
    QueueControl, TIME_PICOSECONDS,
};

use crate::admin::{AdminQueue, Request};
use crate::doorbells::ShadowMemory;
use crate::information::{FirmwareCapabilities, Information};
use crate::ledger::KeyLedger;
use crate::shared::Shared;
use crate::{Error, QueuePair, QueuePairOptions, SaHandle, Unsupported};

/// How to open a device.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// How long a reset and the start of firmware may take.
    pub ready_timeout: Time,
    /// How long an admin command, or turning a queue on or off, may take.
    pub command_timeout: Time,
    /// Which keys were in use before; by default none.
    pub key_ledger: KeyLedger,
    /// Rings doorbells in host memory where the device offers it (`shadow_doorbells`), as one does behind which a register
    /// write is dear. By default so.
    pub shadow_doorbells: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            ready_timeout: Time::from_milliseconds(1_000),
            command_timeout: Time::from_milliseconds(100),
            key_ledger: KeyLedger::new(),
            shadow_doorbells: true,
        }
    }
}

/// A NIC: one function, its admin queue, and what was installed through it.
pub struct Nic {
    pub(crate) shared: Rc<Shared>,
    pub(crate) admin: AdminQueue,
    pub(crate) information: Information,
    pub(crate) ledger: KeyLedger,
    firmware: Option<FirmwareCapabilities>,
}

impl Nic {
    /// Resets the device, checks what it says of itself, and turns it on.
    pub fn open(host: Box<dyn Host>, options: OpenOptions) -> Result<Self, Error> {
        let shared = Rc::new(Shared::new(host, options.command_timeout));
        shared.host.reset()?;
        shared.set_command(true, false)?;
        let version = Information::check_identity(&shared)?;
        let status = shared.poll(options.ready_timeout, "ready after its reset", || {
            let status: DeviceStatus = shared.read(DEVICE_STATUS)?;
            if status.fatal() {
                return Err(Error::Fatal);
            }
            Ok((status.ready() && status.firmware_running()).then_some(status))
        })?;
        if !status.keys_zeroised() {
            return Err(Error::KeysNotZeroised);
        }
        let information = Information::read(&shared, version)?;
        let vectors = u16::from(information.capabilities.queue.vectors());
        match shared.host.interrupts_enable(vectors) {
            Ok(()) => shared.interrupts.set(true),
            Err(HostError::Unsupported(_)) => {} // Queues are polled then.
            Err(error) => return Err(error.into()),
        }
        let sa_batch = usize::from(information.capabilities.life.sa_batch());
        let admin = AdminQueue::new(shared.clone(), sa_batch * SaParameters::BYTES)?;
        // From here on dropping the NIC undoes what was done.
        let mut nic = Nic { shared, admin, information, ledger: options.key_ledger, firmware: None };
        nic.shared.set_command(true, true)?;
        nic.admin.start()?;
        if options.shadow_doorbells
            && nic.information.capabilities.descriptor.shadow_doorbells()
            && let Some(memory) = ShadowMemory::turn_on(&nic.shared)?
        {
            // The cell of a NIC that is being opened is empty.
            let _ = nic.shared.shadow.set(memory);
        }
        nic.shared.write(CONTROL, Control::new().with_enable(true))?;
        Ok(nic)
    }

    /// Who the device is and what it can do.
    pub fn information(&self) -> &Information {
        &self.information
    }

    /// Whether doorbells are rung in host memory ([`OpenOptions::shadow_doorbells`]).
    pub fn shadow_doorbells(&self) -> bool {
        self.shared.shadow.get().is_some()
    }

    /// The time of the host.
    pub fn time(&self) -> Time {
        self.shared.host.now()
    }

    /// Gives time away: to be called in every loop that polls.
    pub fn relax(&self) {
        self.shared.host.relax();
    }

    /// Device time in picoseconds since power-on.
    pub fn device_time_picoseconds(&self) -> Result<u64, Error> {
        self.alive()?;
        Ok(self.shared.read(TIME_PICOSECONDS)?)
    }

    /// State of the device.
    pub fn device_status(&self) -> Result<DeviceStatus, Error> {
        self.alive()?;
        Ok(self.shared.read(DEVICE_STATUS)?)
    }

    /// Sets up a queue pair, with every receive buffer posted.
    pub fn create_queue_pair(&mut self, options: QueuePairOptions) -> Result<QueuePair, Error> {
        self.alive()?;
        QueuePair::create(&self.shared, &self.information.capabilities, options)
    }

    /// Whether frames that the MAC would send come back to the receive side.
    pub fn set_mac_loopback(&mut self, on: bool) -> Result<(), Error> {
        self.alive()?;
        if on && !self.information.capabilities.protocol.mac_loopback() {
            return Err(Unsupported::one("MAC loopback").into());
        }
        let control = self.shared.read(CONTROL)?;
        self.shared.write(CONTROL, control.with_mac_loopback(on))?;
        // The write is posted; what is read back comes after it.
        self.shared.read(CONTROL)?;
        Ok(())
    }

    /// The limits that firmware sets, asked for once.
    pub fn capabilities_from_firmware(&mut self) -> Result<FirmwareCapabilities, Error> {
        if let Some(known) = self.firmware {
            return Ok(known);
        }
        let opcode = Opcode::Capabilities;
        self.admin.run(Request { reply_bytes: CapabilityReply::BYTES, ..Request::new(opcode) })?;
        let mut words = [0; CapabilityReply::WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.admin.reply(index)?;
        }
        let reply = CapabilityReply::of_words(&words);
        let known = FirmwareCapabilities {
            spis_per_command: reply.spis_per_command,
            sa_slots: reply.sa_slots,
            version: ((reply.firmware_version >> 16) as u16, reply.firmware_version as u16),
            replay_window_max: reply.replay_window_max,
        };
        self.firmware = Some(known);
        Ok(known)
    }

    /// Turns every queue off, deletes every SA, resets the device, so that no key is left in it, takes all memory back and
    /// zeroises rings and key memory.
    /// Queue pairs that still live are closed with it.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut_down()
    }

    pub(crate) fn alive(&self) -> Result<(), Error> {
        if self.shared.closed.get() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Every SA that is installed.
    fn handles(&self) -> Vec<SaHandle> {
        let nic = self.shared.identity;
        let slots = self.shared.slots.borrow();
        slots.installed().map(|(index, generation)| SaHandle { index, generation, nic }).collect()
    }

    fn shut_down(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        let mut note = |outcome: Result<(), Error>| {
            if result.is_ok() {
                result = outcome;
            }
        };
        let queues = self.shared.queues.take();
        if !self.shared.closed.get() {
            for queue in &queues {
                note(turn_off(&self.shared, queue.index));
            }
            for handle in self.handles() {
                if self.admin.stopped() {
                    break;
                }
                note(self.delete_sa(handle));
            }
            // PSP device keys go with a reset alone, and so does what no command could delete. It ends bus mastering too.
            let reset = self.shared.host.reset().map_err(Error::from);
            if reset.is_err() {
                note(self.shared.set_command(true, false).map_err(Error::from));
            }
            note(reset);
            self.shared.closed.set(true);
        }
        // What could not be deleted may have been used up to any sequence number.
        for handle in self.handles() {
            if let Some(sa) = self.shared.slots.borrow_mut().remove(handle) {
                self.ledger.retire(sa.fingerprint, None);
            }
        }
        if let Some(ring) = self.shared.events.take() {
            note(ring.close(&self.shared));
            ring.wake();
        }
        for queue in &queues {
            let reads = self.shared.unmap(&queue.reads);
            let writes = self.shared.unmap(&queue.writes);
            queue.zeroise_rings();
            note(reads.and(writes).map_err(Error::from));
        }
        let regions = self.shared.regions.take();
        for region in regions.iter().filter_map(Weak::upgrade) {
            note(self.shared.unmap(&region.arena).map_err(Error::from));
        }
        if let Some(shadow) = self.shared.shadow.get() {
            note(shadow.unmap(&self.shared));
        }
        note(self.admin.close());
        result
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        // A second run finds nothing to do.
        let _ = self.shut_down();
    }
}

/// Turns a queue pair off and waits until it is.
pub(crate) fn turn_off(shared: &Shared, index: u32) -> Result<(), Error> {
    let control = QUEUE_CONTROL.instance(index, QUEUE_PAIR_STRIDE);
    shared.write(control, QueueControl::new())?;
    let status = QUEUE_STATUS.instance(index, QUEUE_PAIR_STRIDE);
    shared.poll(shared.command_timeout, "rid of a queue pair", || {
        Ok((!shared.read(status)?.enabled()).then_some(()))
    })
}
