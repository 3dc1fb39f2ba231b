//! Security associations: installing, asking after, arming, deleting.

use cryptonic_regs::admin::{
    AdminStatus, Direction, InstalledSa as InstalledWord, Opcode, SaParameters, SaStateReply,
};
use cryptonic_regs::events::{EventCause, SLOT_SELECT, SLOT_STATUS, SlotState};

use crate::admin::Request;
use crate::ledger::Claim;
use crate::slots::{InstalledSa, Numbers, Told};
use crate::{
    AdminAnomaly, Error, Lifetime, LifetimeKind, Nic, PspSaConfiguration, SaConfiguration, Salt, SecretKey,
};

/// Names an installed SA of one [`Nic`]. A handle of an SA that was deleted names nothing, for ever; on another NIC, or
/// on the same device when it was opened again, it names nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaHandle {
    /// Slot.
    pub index: u32,
    /// Generation of the slot.
    pub generation: u32,
    /// The NIC that it came from: no two of a process have the same.
    pub(crate) nic: u32,
}

/// State of an SA, all of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaState {
    /// State of its slot.
    pub state: SlotState,
    /// Whether it protects or opens.
    pub direction: Direction,
    /// The SPI.
    pub spi: u32,
    /// Its limits; the soft one as it was armed last.
    pub lifetime: Lifetime,
    /// Last sequence number used (out) or highest accepted (in).
    pub sequence: u64,
    /// Packets protected or opened.
    pub packets: u64,
    /// Bytes of these IP packets in clear, so that both ends count alike. Dummy packets are 0.
    pub bytes: u64,
    /// Device time when it was installed.
    pub installed_picoseconds: u64,
    /// Device time of the first packet counted.
    pub first_use_picoseconds: Option<u64>,
    /// Device time of the last packet counted.
    pub last_use_picoseconds: Option<u64>,
    /// Packets refused by a hard limit or for want of a sequence number.
    pub refused: u64,
    /// Packets whose sequence number was received before.
    pub replay_duplicates: u64,
    /// Packets whose sequence number was below the window.
    pub replay_below_window: u64,
    /// Packets whose ICV was wrong.
    pub icv_failures: u64,
    /// ICV failures since the last good packet.
    pub icv_failures_in_a_row: u32,
    /// What happened to it.
    pub causes: SaCauses,
    /// How often it was armed, modulo 2^8.
    pub arming: u8,
}

/// Which causes of an SA happened; those of soft limits since it was armed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaCauses(u16);

impl SaCauses {
    /// Bits of the causes that an SA can have.
    const KNOWN: u16 = {
        let mut known = 0;
        let mut place = 0;
        while place < EventCause::ALL.len() {
            let number = EventCause::ALL[place].number();
            if number < 16 {
                known |= 1 << number;
            }
            place += 1;
        }
        known
    };

    /// `None` if there is a bit of no cause.
    pub(crate) fn of_bits(bits: u16) -> Option<Self> {
        (bits & !Self::KNOWN == 0).then_some(SaCauses(bits))
    }

    pub(crate) fn insert(&mut self, cause: EventCause) {
        self.0 |= (1 << cause.number()) & Self::KNOWN;
    }

    pub(crate) fn remove(&mut self, cause: EventCause) {
        self.0 &= !(1 << cause.number());
    }

    /// Whether this one happened.
    pub fn contains(self, cause: EventCause) -> bool {
        cause.number() < 16 && self.0 & 1 << cause.number() != 0
    }

    /// Whether nothing happened.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What happened, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = EventCause> {
        EventCause::ALL.iter().copied().filter(move |cause| self.contains(*cause))
    }
}

/// An SA as the device takes it.
pub(crate) struct Wanted {
    parameters: SaParameters,
    direction: Direction,
    key: SecretKey,
    salt: Salt,
    /// The first number that its key may meet.
    first: u64,
    numbers: Numbers,
    lifetime: Lifetime,
}

/// How often a deletion is asked for whose outcome a restart of firmware leaves open.
const DELETE_TRIES: u32 = 8;

impl Nic {
    /// Installs an SA. Its key stays in no memory of the host; a key that was in use before is refused,
    /// unless the start sequence is above everything it may have been used for.
    pub fn install_sa(&mut self, sa: SaConfiguration) -> Result<SaHandle, Error> {
        let wanted = self.wanted(sa)?;
        self.install_one(wanted)
    }

    /// Installs SAs as one: all of them come into use at the same moment, or none does. As many as
    /// [`crate::Capabilities::life`] says fit into one command, and more are refused. What is wrong with one of them
    /// comes as [`Error::InBatch`].
    pub fn install_sas(&mut self, sas: Vec<SaConfiguration>) -> Result<Vec<SaHandle>, Error> {
        let of = |number| move |error| Error::InBatch { number, error: Box::new(error) };
        let mut wanted = Vec::with_capacity(sas.len());
        for (number, sa) in sas.into_iter().enumerate() {
            wanted.push(self.wanted(sa).map_err(of(number))?);
        }
        self.install(wanted).map_err(|(number, error)| match number {
            Some(number) => of(number)(error),
            None => error,
        })
    }

    /// Installs a PSP SA, which protects packets. Its IVs are those of the IV clock, which only rises: a key that was in
    /// use before is refused as long as it is, and on a device whose clock is behind the one that used it.
    pub fn install_psp_sa(&mut self, sa: PspSaConfiguration) -> Result<SaHandle, Error> {
        self.alive()?;
        sa.check()?;
        self.information.capabilities.supports_psp(&sa)?;
        let first = self.iv_clock_picoseconds()?;
        self.install_one(Wanted {
            parameters: sa.parameters(),
            direction: Direction::Out,
            key: sa.key,
            salt: Salt([0; 4]),
            first,
            numbers: Numbers::Clock,
            lifetime: sa.lifetime,
        })
    }

    fn wanted(&self, sa: SaConfiguration) -> Result<Wanted, Error> {
        self.alive()?;
        sa.check()?;
        self.information.capabilities.supports(&sa)?;
        Ok(Wanted {
            parameters: sa.parameters(),
            direction: sa.direction,
            key: sa.key,
            salt: sa.salt,
            first: sa.sequence,
            numbers: match sa.direction {
                Direction::Out => Numbers::Sequence(sa.sequence),
                Direction::In => Numbers::Received(sa.sequence),
            },
            lifetime: sa.lifetime,
        })
    }

    fn install_one(&mut self, wanted: Wanted) -> Result<SaHandle, Error> {
        let handles = self.install(vec![wanted]).map_err(|(_, error)| error)?;
        let anomaly = Error::Anomaly { command: Opcode::SaInstall, anomaly: AdminAnomaly::Reply };
        handles.first().copied().ok_or(anomaly)
    }

    /// Installs all or none. An error says of which it is, if it is of one.
    fn install(&mut self, all: Vec<Wanted>) -> Result<Vec<SaHandle>, (Option<usize>, Error)> {
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let most = usize::from(self.information.capabilities.life.sa_batch());
        if all.len() > most {
            return Err((None, Error::BatchTooLarge { sas: all.len(), most }));
        }
        let mut claims: Vec<Claim> = Vec::with_capacity(all.len());
        for (number, wanted) in all.iter().enumerate() {
            match self.ledger.claim(wanted.direction, &wanted.key, wanted.first) {
                Ok(claim) => claims.push(claim),
                Err(error) => {
                    self.undo(claims);
                    return Err((Some(number), error));
                }
            }
        }
        match self.install_claimed(&all) {
            Ok(handles) => {
                let mut slots = self.shared.slots.borrow_mut();
                for ((handle, wanted), claim) in handles.iter().zip(&all).zip(&claims) {
                    slots.insert(*handle, wanted.installed(claim));
                }
                Ok(handles)
            }
            // The keys reached no slot of the device.
            Err(error @ (Error::Refused { .. } | Error::AdminStopped | Error::Closed)) => {
                self.undo(claims);
                let number = match &error {
                    // That firmware was started anew is the fault of none of them.
                    Error::Refused { status: AdminStatus::Aborted, .. } => None,
                    Error::Refused { result, .. } => Some(*result as usize),
                    _ => None,
                };
                Err((number.filter(|number| *number < all.len()), error))
            }
            Err(error) => {
                // The device may have the keys and may use them.
                for claim in claims {
                    self.ledger.retire(claim.fingerprint, None);
                }
                Err((None, error))
            }
        }
    }

    /// The last claim first: two of one key must leave what was before both.
    fn undo(&self, claims: Vec<Claim>) {
        for claim in claims.into_iter().rev() {
            self.ledger.undo(claim);
        }
    }

    fn install_claimed(&mut self, all: &[Wanted]) -> Result<Vec<SaHandle>, Error> {
        for (number, wanted) in all.iter().enumerate() {
            let first = number * SaParameters::WORDS;
            self.admin.set_parameter(first, &wanted.parameters.to_words())?;
            let secrets = first + SaParameters::PUBLIC_WORDS;
            self.admin.set_parameter(secrets, &*wanted.key.words())?;
            let salt = u64::from(u32::from_le_bytes(wanted.salt.0));
            self.admin.set_parameter(secrets + 4, &[salt])?;
        }
        let command = Opcode::SaInstall;
        let result = self.admin.run(Request {
            arguments: [all.len() as u64, 0],
            parameter_bytes: all.len() * SaParameters::BYTES,
            reply_bytes: all.len() * size_of::<u64>(),
            ..Request::new(command)
        })?;
        if result != 0 {
            return Err(Error::Anomaly { command, anomaly: AdminAnomaly::Result });
        }
        let slots = self.shared.slots.borrow();
        let mut handles: Vec<SaHandle> = Vec::with_capacity(all.len());
        for (number, wanted) in all.iter().enumerate() {
            let word = InstalledWord::from_bits(self.admin.reply(number)?);
            let (index, generation) = (word.index(), word.generation());
            let capabilities = &self.information.capabilities;
            let slots_of_kind = if wanted.lifetime.is_unlimited() {
                0..capabilities.sa_slots
            } else {
                capabilities.sa_slots_of(wanted.lifetime.kind)
            };
            let possible = slots_of_kind.contains(&index)
                && slots.is_new(index, generation)
                && handles.iter().all(|other| other.index != index);
            if !possible {
                return Err(Error::Anomaly { command, anomaly: AdminAnomaly::Reply });
            }
            handles.push(SaHandle { index, generation, nic: self.shared.identity });
        }
        Ok(handles)
    }

    /// State of an SA.
    pub fn query_sa(&mut self, handle: SaHandle) -> Result<SaState, Error> {
        self.installed(handle)?;
        let command = Opcode::SaQuery;
        let arguments = [handle.argument(), 0];
        self.admin.run(Request { arguments, reply_bytes: SaStateReply::BYTES, ..Request::new(command) })?;
        let mut words = [0; SaStateReply::WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.admin.reply(index)?;
        }
        let state = state_of(&SaStateReply::of_words(&words));
        state.ok_or(Error::Anomaly { command, anomaly: AdminAnomaly::Reply })
    }

    /// Arms the soft limit of an SA anew, at `soft`, which is below its hard limit: its event comes once more. Those of
    /// earlier armings that were not told yet are told no more.
    pub fn arm_sa(&mut self, handle: SaHandle, soft: u64) -> Result<(), Error> {
        let sa = self.installed(handle)?;
        Lifetime { soft: Some(soft), ..sa.lifetime }.check(0, 0)?;
        let before = self.arming(handle)?;
        let arguments = [handle.argument(), soft];
        let outcome = self.admin.run(Request { arguments, ..Request::new(Opcode::SaArm) });
        let (outcome, arming) = match outcome {
            Ok(_) => (Ok(()), self.arming(handle)?),
            // Firmware that is started anew under the command does not know what became of it; the slot does.
            Err(error @ Error::Refused { status: AdminStatus::Aborted, .. }) => {
                let arming = self.arming(handle)?;
                if arming == before {
                    return Err(error);
                }
                (Ok(()), arming)
            }
            Err(error @ Error::Refused { .. }) => return Err(error),
            // The device may have armed it or not: the next it tells decides.
            Err(error) => (Err(error), None),
        };
        let mut slots = self.shared.slots.borrow_mut();
        let batches = slots.batches();
        if let Some(sa) = slots.get_mut(handle) {
            sa.told.arm(arming, batches);
            sa.lifetime.soft = Some(soft);
        }
        outcome
    }

    /// How often the device says that an SA was armed, if it can say.
    fn arming(&self, handle: SaHandle) -> Result<Option<u8>, Error> {
        if !self.information.capabilities.life.events() {
            return Ok(None);
        }
        self.shared.write(SLOT_SELECT, handle.index)?;
        Ok(Some(self.shared.read(SLOT_STATUS)?.arming()))
    }

    /// Deletes an SA, expired or not. When this returns, no packet uses it any more and the device has zeroised its key.
    pub fn delete_sa(&mut self, handle: SaHandle) -> Result<(), Error> {
        let InstalledSa { fingerprint, numbers, .. } = self.installed(handle)?;
        let last = self.query_sa(handle).ok().map(|state| state.sequence);
        // Packets may take numbers between that query and the deletion: at most those under way.
        let under_way: u64 = self.shared.queues.borrow().iter().map(|queue| queue.in_flight()).sum();
        let outcome = self.command_delete(handle);
        if let Err(error @ Error::Refused { .. }) = outcome {
            return Err(error);
        }
        self.shared.slots.borrow_mut().remove(handle);
        let used_up_to = |start: u64, under_way: u64| {
            last.and_then(|last| last.max(start.saturating_add(1)).checked_add(under_way))
        };
        let lowest = match numbers {
            _ if outcome.is_err() => None,
            Numbers::Sequence(start) => used_up_to(start, under_way),
            Numbers::Received(start) => used_up_to(start, 0),
            // The clock is ahead of every IV but those that a test took from ahead of the clock.
            Numbers::Clock => {
                let used = used_up_to(0, under_way).and_then(|used| used.checked_add(1));
                self.iv_clock_picoseconds().ok().zip(used).map(|(clock, used)| clock.max(used))
            }
        };
        self.ledger.retire(fingerprint, lowest);
        outcome.map(drop)
    }

    /// Firmware that is started anew under a deletion completes it as `aborted`, whether or not the SA is gone by then. Only
    /// asking again tells: an SA that the device then does not have is deleted.
    fn command_delete(&mut self, handle: SaHandle) -> Result<u64, Error> {
        let arguments = [handle.argument(), 0];
        let mut outcome = Ok(0);
        for _ in 0..DELETE_TRIES {
            outcome = self.admin.run(Request { arguments, ..Request::new(Opcode::SaDelete) });
            match outcome {
                Err(Error::Refused { status: AdminStatus::Aborted, .. }) => {
                    if let Some(sa) = self.shared.slots.borrow_mut().get_mut(handle) {
                        sa.may_be_deleted = true;
                    }
                }
                Err(Error::Refused { status: AdminStatus::NoSuchSa, .. })
                    if self.installed(handle)?.may_be_deleted =>
                {
                    return Ok(0);
                }
                _ => break,
            }
        }
        outcome
    }

    /// What the driver knows of an SA that is installed.
    pub(crate) fn installed(&self, handle: SaHandle) -> Result<InstalledSa, Error> {
        let known = self.shared.slots.borrow().get(handle).copied();
        known.filter(|_| handle.nic == self.shared.identity).ok_or(Error::UnknownSa)
    }
}

impl Wanted {
    fn installed(&self, claim: &Claim) -> InstalledSa {
        InstalledSa {
            fingerprint: claim.fingerprint,
            numbers: self.numbers,
            direction: self.direction,
            spi: self.parameters.names.spi(),
            cookie: self.parameters.names.cookie(),
            lifetime: self.lifetime,
            told: Told::default(),
            may_be_deleted: false,
        }
    }
}

impl SaHandle {
    /// As argument 0 of a command.
    fn argument(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

/// What a reply says, if it can be true of an SA that is installed.
fn state_of(reply: &SaStateReply) -> Option<SaState> {
    let head = reply.head;
    let state = SlotState::of_number(head.state().into())?;
    if !matches!(state, SlotState::Armed | SlotState::Soft | SlotState::Expired) {
        return None;
    }
    let limit = |none: bool, limit: u64| if none { (limit == 0).then_some(None) } else { Some(Some(limit)) };
    let used = |time: u64| (time != 0).then_some(time);
    Some(SaState {
        state,
        direction: Direction::of_number(head.direction().into())?,
        spi: head.spi(),
        lifetime: Lifetime {
            kind: LifetimeKind::of_number(head.kind().into())?,
            soft: limit(head.no_soft_limit(), reply.soft_limit)?,
            hard: limit(head.no_hard_limit(), reply.hard_limit)?,
        },
        sequence: reply.sequence,
        packets: reply.packets,
        bytes: reply.bytes,
        installed_picoseconds: reply.installed_picoseconds,
        first_use_picoseconds: used(reply.first_use_picoseconds),
        last_use_picoseconds: used(reply.last_use_picoseconds),
        refused: reply.refused,
        replay_duplicates: reply.replay_duplicates,
        replay_below_window: reply.replay_below_window,
        icv_failures: reply.icv_failures,
        icv_failures_in_a_row: reply.sticky.icv_failures_in_a_row(),
        causes: SaCauses::of_bits(reply.sticky.causes())?,
        arming: reply.sticky.arming(),
    })
}
