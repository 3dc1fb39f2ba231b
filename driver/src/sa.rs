//! Security associations: installing, asking after, deleting.

use cryptonic_regs::admin::{Direction, Opcode, SaParameters, SaStateReply};

use crate::admin::Request;
use crate::ledger::Fingerprint;
use crate::{AdminAnomaly, Error, Nic, PspSaConfiguration, SaConfiguration, Salt, SecretKey};

/// Names an installed SA. A handle of an SA that was deleted names nothing, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaHandle {
    /// Slot.
    pub index: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// State of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaState {
    /// Whether it protects or opens.
    pub direction: Direction,
    /// The SPI.
    pub spi: u32,
    /// Last sequence number used (out) or highest accepted (in).
    pub sequence: u64,
    /// Packets protected or opened.
    pub packets: u64,
    /// Bytes of the frames' IP packets, in clear.
    pub bytes: u64,
}

/// What the driver remembers of an SA.
#[derive(Clone, Copy)]
pub(crate) struct InstalledSa {
    pub(crate) fingerprint: Fingerprint,
    numbers: Numbers,
}

/// Where the numbers that a key must not meet twice come from.
#[derive(Clone, Copy)]
enum Numbers {
    /// The sequence, from this one on; each packet under way may take one.
    Sequence(u64),
    /// Those of received packets, from this one on.
    Received(u64),
    /// Device time in picoseconds.
    Clock,
}

impl Nic {
    /// Installs an SA. Its key stays in no memory of the host; a key that was in use before is refused,
    /// unless the start sequence is above everything it may have been used for.
    pub fn install_sa(&mut self, sa: SaConfiguration) -> Result<SaHandle, Error> {
        self.alive()?;
        sa.check()?;
        self.information.capabilities.supports(&sa)?;
        let numbers = match sa.direction {
            Direction::Out => Numbers::Sequence(sa.sequence),
            Direction::In => Numbers::Received(sa.sequence),
        };
        self.install(&sa.parameters(), sa.direction, &sa.key, sa.salt, sa.sequence, numbers)
    }

    /// Installs a PSP SA, which protects packets. Its IVs are device time, which only rises: a key that was in use
    /// before is refused as long as it is, and on a device whose time is behind the one that used it.
    pub fn install_psp_sa(&mut self, sa: PspSaConfiguration) -> Result<SaHandle, Error> {
        self.alive()?;
        sa.check()?;
        self.information.capabilities.supports_psp(&sa)?;
        let now = self.device_time_picoseconds()?;
        self.install(&sa.parameters(), Direction::Out, &sa.key, Salt([0; 4]), now, Numbers::Clock)
    }

    fn install(
        &mut self,
        parameters: &SaParameters,
        direction: Direction,
        key: &SecretKey,
        salt: Salt,
        first: u64,
        numbers: Numbers,
    ) -> Result<SaHandle, Error> {
        let claim = self.ledger.claim(direction, key, first)?;
        let fingerprint = claim.fingerprint;
        match self.install_claimed(parameters, key, salt) {
            Ok(handle) => {
                self.installed.insert(handle, InstalledSa { fingerprint, numbers });
                Ok(handle)
            }
            // The key reached no slot of the device.
            Err(error @ (Error::Refused { .. } | Error::AdminStopped | Error::Closed)) => {
                self.ledger.undo(claim);
                Err(error)
            }
            Err(error) => {
                // The device may have the key and may use it.
                self.ledger.retire(fingerprint, None);
                Err(error)
            }
        }
    }

    fn install_claimed(
        &mut self,
        parameters: &SaParameters,
        key: &SecretKey,
        salt: Salt,
    ) -> Result<SaHandle, Error> {
        self.admin.set_parameter(0, &parameters.to_words())?;
        self.admin.set_parameter(SaParameters::PUBLIC_WORDS, &*key.words())?;
        self.admin.set_parameter(SaParameters::PUBLIC_WORDS + 4, &[u64::from(u32::from_le_bytes(salt.0))])?;
        let command = Opcode::SaInstall;
        let request = Request { parameter_bytes: SaParameters::BYTES, ..Request::new(command) };
        let result = self.admin.run(request)?;
        let handle = SaHandle { index: result as u32, generation: (result >> 32) as u32 };
        let possible = handle.index < self.information.capabilities.sa_slots
            && handle.generation != 0
            && self.installed.keys().all(|other| other.index != handle.index);
        if possible { Ok(handle) } else { Err(Error::Anomaly { command, anomaly: AdminAnomaly::Result }) }
    }

    /// State of an SA.
    pub fn query_sa(&mut self, handle: SaHandle) -> Result<SaState, Error> {
        if !self.installed.contains_key(&handle) {
            return Err(Error::UnknownSa);
        }
        let command = Opcode::SaQuery;
        let arguments = [u64::from(handle.generation) << 32 | u64::from(handle.index), 0];
        self.admin.run(Request { arguments, reply_bytes: SaStateReply::BYTES, ..Request::new(command) })?;
        let mut words = [0; SaStateReply::WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.admin.reply(index)?;
        }
        let reply = SaStateReply::of_words(&words);
        let direction = Direction::of_number(u32::from(reply.head.direction()));
        match direction {
            Some(direction) if reply.head.state() == 1 => Ok(SaState {
                direction,
                spi: reply.head.spi(),
                sequence: reply.sequence,
                packets: reply.packets,
                bytes: reply.bytes,
            }),
            _ => Err(Error::Anomaly { command, anomaly: AdminAnomaly::Reply }),
        }
    }

    /// Deletes an SA. When this returns, no packet uses it any more and the device has zeroised its key.
    pub fn delete_sa(&mut self, handle: SaHandle) -> Result<(), Error> {
        let Some(sa) = self.installed.get(&handle) else {
            return Err(Error::UnknownSa);
        };
        let InstalledSa { fingerprint, numbers } = *sa;
        let last = self.query_sa(handle).ok().map(|state| state.sequence);
        // Packets may take numbers between that query and the deletion: at most those under way.
        let under_way: u64 = self.shared.queues.borrow().iter().map(|queue| queue.in_flight()).sum();
        let arguments = [u64::from(handle.generation) << 32 | u64::from(handle.index), 0];
        let outcome = self.admin.run(Request { arguments, ..Request::new(Opcode::SaDelete) });
        if let Err(error @ Error::Refused { .. }) = outcome {
            return Err(error);
        }
        self.installed.remove(&handle);
        let used_up_to = |start: u64, under_way: u64| {
            last.and_then(|last| last.max(start.saturating_add(1)).checked_add(under_way))
        };
        let lowest = match numbers {
            _ if outcome.is_err() => None,
            Numbers::Sequence(start) => used_up_to(start, under_way),
            Numbers::Received(start) => used_up_to(start, 0),
            // No packet uses the key any more, so every IV was below what the clock says now.
            Numbers::Clock => self.device_time_picoseconds().ok(),
        };
        self.ledger.retire(fingerprint, lowest);
        outcome.map(drop)
    }
}
