//! What firmware drives: the DMA engine, the SA table and the PSP key hardware. Each does one operation at a time; keys go
//! between host memory and the last two without passing firmware.

use crate::Ticks;
use cryptonic_regs::admin::{
    PspAllocation, PspTestKeys, SaParameters, SaProtocol, SaStateHead, SaStateReply,
};
use cryptonic_regs::events::EventCause;
use cryptonic_regs::firmware::{self, DmaCommand, Outcome, PspOperation, SaOperation};
use cryptonic_wire::psp::Version;
use zeroize::{Zeroize, Zeroizing};

use crate::events::HostWrite;
use crate::key_derivation::KeyError;
use crate::nic::Nic;
use crate::sa_parameters::{Form, SECRET_WORDS};
use crate::sa_table::InstallError;

/// Cycles of an SA table operation that waits for nothing.
const TABLE_CYCLES: u64 = 32;
/// Why a device key is rotated.
const ROTATIONS: [EventCause; 3] =
    [EventCause::PspRotatedByCommand, EventCause::PspRotatedByPeriod, EventCause::PspRotatedByExhaustion];
/// Bytes of the secret words of SA parameters.
const SECRET_BYTES: usize = SECRET_WORDS * 8;
/// Most SPIs that one operation gives out.
const ALLOCATION_MAX: u32 = 65_536;

impl Nic {
    /// An engine has reached the end of its operation.
    pub(crate) fn engine_done(&mut self) {
        let now = self.now;
        if let Some((to_host, _)) = self.management.dma.running.take_if(|(_, done)| *done <= now) {
            self.management.dma.outcome = self.move_scratch(to_host).number() as u8;
        }
        if let Some((operation, _)) = self.management.sa.running.take_if(|(_, done)| *done <= now) {
            self.management.sa.outcome = self.sa_operation(operation).number() as u8;
        }
        if let Some((operation, _)) = self.management.psp.running.take_if(|(_, done)| *done <= now) {
            self.management.psp.outcome = self.psp_operation(operation).number() as u8;
        }
        self.wake_firmware(now);
    }

    pub(super) fn start_dma(&mut self, command: DmaCommand) {
        let dma = &mut self.management.dma;
        let bytes = u64::from(dma.bytes.min(firmware::SCRATCH_BYTES));
        let done = if command.to_host() {
            self.pcie.write(self.now, bytes).left
        } else {
            self.pcie.read(self.now, bytes)
        };
        dma.running = Some((command.to_host(), done));
        self.events.seldom.change(|queues| queues.engine.push(done, ()));
    }

    fn move_scratch(&mut self, to_host: bool) -> Outcome {
        let dma = &self.management.dma;
        let (first, count) = ((dma.scratch / 4) as usize, (dma.bytes / 4) as usize);
        let address = wide(dma.host);
        let Some(words) = first
            .checked_add(count)
            .and_then(|end| self.management.scratch.get_mut(first..end))
            .filter(|_| dma.scratch.is_multiple_of(4) && dma.bytes.is_multiple_of(4))
        else {
            return Outcome::BadArgument;
        };
        if to_host {
            if self.memory.writable(address, u64::from(dma.bytes)).is_err() {
                return Outcome::DmaFault;
            }
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let visible = self.now + Ticks::from_nanoseconds(self.parameters.pcie.write_latency_ns);
            self.events.host_writes.push(visible, HostWrite::Bytes { address, bytes });
            return Outcome::Ok;
        }
        let mut bytes = vec![0; count * 4];
        if self.memory.read(address, &mut bytes).is_err() {
            return Outcome::DmaFault;
        }
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Outcome::Ok
    }

    pub(super) fn start_sa(&mut self, operation: u32) {
        let Some(operation) = SaOperation::of_number(operation) else {
            self.management.sa.outcome = Outcome::BadArgument.number() as u8;
            return;
        };
        let quick = self.now + self.cycle.times(TABLE_CYCLES);
        let index = self.management.sa.index;
        let done = match operation {
            SaOperation::Install => {
                self.pcie.read(self.now, SECRET_BYTES as u64) + self.cycle.times(TABLE_CYCLES)
            }
            // From now on no packet begins to use the slot; it is empty when the last one is through.
            SaOperation::Delete => self.sa_table.drain(index).map_or(quick, |drained| quick.max(drained)),
            SaOperation::Query | SaOperation::Arm => quick,
        };
        self.management.sa.running = Some((operation, done));
        self.events.seldom.change(|queues| queues.engine.push(done, ()));
    }

    fn sa_operation(&mut self, operation: SaOperation) -> Outcome {
        let (index, scratch) = (self.management.sa.index, (self.management.sa.scratch / 4) as usize);
        match operation {
            SaOperation::Install => {
                let Some(public) =
                    self.management.scratch.get(scratch..scratch + SaParameters::PUBLIC_WORDS * 2)
                else {
                    return Outcome::BadArgument;
                };
                let mut words = [0_u64; SaParameters::WORDS];
                for (word, halves) in words.iter_mut().zip(public.chunks_exact(2)) {
                    *word = u64::from(halves[1]) << 32 | u64::from(halves[0]);
                }
                // Secret words go their own way: they are never in a value that is copied about.
                let mut secret = Zeroizing::new([0_u64; SECRET_WORDS]);
                if self.memory.read_words(wide(self.management.sa.host), &mut secret).is_err() {
                    return Outcome::DmaFault;
                }
                self.keys_zeroised = false;
                match self.sa_table.install(
                    index,
                    &SaParameters::of_words(&words),
                    &secret,
                    self.now_picoseconds(),
                ) {
                    Ok(_) => Outcome::Ok,
                    Err(InstallError::WrongState) => Outcome::WrongState,
                    Err(InstallError::Duplicate) => Outcome::DuplicateSpi,
                    Err(InstallError::BadArgument) => Outcome::BadArgument,
                }
            }
            SaOperation::Delete => {
                if self.sa_table.slot(index).is_none() {
                    return Outcome::WrongState;
                }
                self.sa_table.remove(index);
                self.context_cache.forget(index);
                Outcome::Ok
            }
            SaOperation::Arm => match self.sa_table.arm(index, wide(self.management.sa.host)) {
                Some(true) => Outcome::Ok,
                Some(false) => Outcome::BadArgument,
                None => Outcome::WrongState,
            },
            SaOperation::Query => {
                let Some(sa) = self.sa_table.slot(index) else { return Outcome::WrongState };
                let life = &sa.lifetime;
                let protocol = match sa.form {
                    Form::Esp(_) => SaProtocol::Esp,
                    Form::Psp(_) => SaProtocol::Psp,
                };
                let reply = SaStateReply {
                    head: SaStateHead::new()
                        .with_state(sa.state().number() as u8)
                        .with_kind(life.kind.number() as u8)
                        .with_no_soft_limit(life.soft.is_none())
                        .with_no_hard_limit(life.hard.is_none())
                        .with_direction(sa.direction.number() as u8)
                        .with_protocol(protocol.number() as u8)
                        .with_spi(sa.spi),
                    sequence: sa.last_sequence(),
                    packets: life.packets,
                    bytes: life.bytes,
                    soft_limit: life.soft.unwrap_or(0),
                    hard_limit: life.hard.unwrap_or(0),
                    installed_picoseconds: life.installed_picoseconds,
                    first_use_picoseconds: life.first_use_picoseconds.unwrap_or(0),
                    last_use_picoseconds: life.last_use_picoseconds.unwrap_or(0),
                    refused: life.refused,
                    replay_duplicates: life.replay_duplicates,
                    replay_below_window: life.replay_below_window,
                    icv_failures: life.icv_failures,
                    sticky: life.sticky_word(),
                };
                let Some(words) = self.management.scratch.get_mut(scratch..scratch + SaStateReply::WORDS * 2)
                else {
                    return Outcome::BadArgument;
                };
                for (halves, word) in words.chunks_exact_mut(2).zip(reply.to_words()) {
                    halves.copy_from_slice(&[word as u32, (word >> 32) as u32]);
                }
                Outcome::Ok
            }
        }
    }

    pub(super) fn start_psp(&mut self, operation: u32) {
        let Some(operation) = PspOperation::of_number(operation) else {
            self.management.psp.outcome = Outcome::BadArgument.number() as u8;
            return;
        };
        let done = match operation {
            PspOperation::Allocate => {
                let mut done = self.now;
                let version =
                    Version::from_code(self.management.psp.version as u8).unwrap_or(Version::AesGcm256);
                for _ in 0..self.management.psp.count.min(ALLOCATION_MAX) {
                    done = self.keys.derive_time(self.now, version);
                }
                let bytes =
                    u64::from(self.management.psp.count.min(ALLOCATION_MAX)) * PspAllocation::BYTES as u64;
                self.pcie.write(done, bytes).left
            }
            PspOperation::TestKeyLoad => self.pcie.read(self.now, PspTestKeys::BYTES as u64),
            PspOperation::Rotate | PspOperation::TestIvLoad => self.now + self.cycle.times(TABLE_CYCLES),
        };
        self.management.psp.running = Some((operation, done));
        self.events.seldom.change(|queues| queues.engine.push(done, ()));
    }

    fn psp_operation(&mut self, operation: PspOperation) -> Outcome {
        let host = wide(self.management.psp.host);
        let result = match operation {
            PspOperation::Allocate => return self.allocate_psp(host),
            PspOperation::Rotate => {
                self.keys_zeroised = false;
                self.keys.rotate(self.now_picoseconds());
                self.key_schedules.clear();
                let cause = EventCause::of_number(self.management.psp.count)
                    .filter(|cause| ROTATIONS.contains(cause))
                    .unwrap_or(EventCause::PspRotatedByCommand);
                self.raise_device_event(cause, u32::from(self.keys.generation()));
                Ok(())
            }
            PspOperation::TestKeyLoad => {
                let mut words = Zeroizing::new([0_u64; PspTestKeys::WORDS]);
                if self.memory.read_words(host, &mut words).is_err() {
                    return Outcome::DmaFault;
                }
                let mut keys = Zeroizing::new([[0_u8; 32]; 2]);
                for (bytes, word) in keys.as_flattened_mut().chunks_exact_mut(8).zip(words.iter()) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                self.key_schedules.clear();
                self.keys.test_load(&keys, self.now_picoseconds()).inspect(|()| self.keys_zeroised = false)
            }
            PspOperation::TestIvLoad => self.keys.test_iv(host),
        };
        match result {
            Ok(()) => Outcome::Ok,
            Err(error) => outcome_of(error),
        }
    }

    fn allocate_psp(&mut self, host: u64) -> Outcome {
        let count = self.management.psp.count;
        let version = match Version::from_code(self.management.psp.version as u8) {
            Some(version) if count <= ALLOCATION_MAX => version,
            _ => return Outcome::BadArgument,
        };
        if self.memory.writable(host, u64::from(count) * PspAllocation::BYTES as u64).is_err() {
            return Outcome::DmaFault;
        }
        let mut records = match self.keys.allocate(version, count) {
            Ok(records) => records,
            Err(error) => {
                if self.keys.take_exhausted() {
                    self.raise_device_event(EventCause::PspSpiExhausted, self.keys.remaining());
                }
                return outcome_of(error);
            }
        };
        if self.keys.take_low() {
            self.raise_device_event(EventCause::PspSpiLow, self.keys.remaining());
        }
        // The reply goes out ahead of the completion, in order; the records hold keys and do not stay.
        for (index, record) in records.iter().enumerate() {
            let address = host + (index * PspAllocation::BYTES) as u64;
            let mut words = Zeroizing::new(record.to_words());
            if self.memory.write_words(address, &words).is_err() {
                return Outcome::DmaFault;
            }
            words.zeroize();
        }
        records.fill(PspAllocation::default());
        Outcome::Ok
    }
}

fn outcome_of(error: KeyError) -> Outcome {
    match error {
        KeyError::NoSpiLeft => Outcome::NoSpiLeft,
        KeyError::Locked => Outcome::Locked,
        KeyError::BadArgument => Outcome::BadArgument,
    }
}

fn wide(halves: [u32; 2]) -> u64 {
    u64::from(halves[1]) << 32 | u64::from(halves[0])
}
