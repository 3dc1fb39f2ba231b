//! The host side of a modelled NIC, in the process of its driver.
//!
//! Each host has a core of its own: its work keeps it busy, and what it does next happens when it is free.
//! The clock of the world moves in three places only: a register read waits for its answer; `relax` goes on
//! to what a host can see next; `wait` sleeps until an interrupt or a deadline.

use crate::Ticks;
use cryptonic_pci::host::{Bar, Wake};
use cryptonic_pci::{Device, DmaAccess, Host, HostError, SharedMemory, Time, Work, config};
use cryptonic_regs::bar0::BAR0_BYTES;
use cryptonic_regs::doorbell::DOORBELL_PAGE_BYTES;

use crate::epochs::EPOCH_LASTS;
use crate::events::{RegisterData, RegisterWrite};
use crate::nic::Nic;
use crate::push::window_at;
use crate::world::{Inner, NicId, Until, World};

/// What interrupt messages are written to; any address outside host memory serves.
const INTERRUPT_ADDRESS: u32 = 0xfee0_0000;
/// Bytes of BAR4.
pub(crate) const BAR4_BYTES: u32 = 0x1000;
/// What an access to config space takes.
const CONFIG_ACCESS: Ticks = Ticks::from_microseconds(1);
/// How far `relax` goes when nothing at all is under way.
const IDLE_STEP: Ticks = Ticks::from_microseconds(1);
/// From a function-level reset to the first access (PCIe 4.0 6.6.2 allows up to 100 ms; the model is there
/// at once, and this is what the host waits).
const RESET_TIME: Ticks = Ticks::from_microseconds(100);

/// The host side of one NIC.
pub struct InProcess {
    world: World,
    nic: usize,
}

impl InProcess {
    pub(crate) fn new(world: World, nic: NicId) -> Self {
        InProcess { world, nic: nic.0 }
    }

    /// Runs `access`, to config space, on the NIC when the host is free, after everything that happens before. Like a read it
    /// pushes the posted writes before it ahead (PCIe 4.0 2.4.1): a reset does not overtake the write of a lock.
    fn when_free<T>(&self, takes: Ticks, access: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.world.0.borrow_mut();
        let posted = inner.nics[self.nic].events.seldom.queues().register_writes.last();
        let start = inner.host_free_at(self.nic).max(posted);
        inner.run_until(start);
        let result = access(&mut inner);
        inner.refresh(self.nic);
        inner.occupy_host(self.nic, start, takes);
        result
    }
}

impl Inner {
    /// When the host of a NIC may do something next.
    pub(crate) fn host_free_at(&self, nic: usize) -> Ticks {
        self.hosts[nic].busy_until.max(self.now)
    }

    /// Whether an offset is aligned and within its BAR.
    fn check(&self, nic: usize, bar: Bar, offset: u32) -> Result<(), HostError> {
        let bytes = match bar {
            Bar::Bar0 => BAR0_BYTES,
            Bar::Bar2 => self.nics[nic].queues.len() as u32 * DOORBELL_PAGE_BYTES,
            Bar::Bar4 => BAR4_BYTES,
        };
        let inside = offset.is_multiple_of(4) && offset < bytes;
        if inside { Ok(()) } else { Err(HostError::OutOfRange { bar, offset }) }
    }

    /// The host writes `bytes` to a register: one posted write, which arrives later and in order.
    fn post(
        &mut self,
        nic: usize,
        bar: Bar,
        offset: u32,
        bytes: u64,
        data: impl FnOnce(&mut Nic) -> RegisterData,
    ) {
        let issued_at = self.host_free_at(nic);
        let one = &mut self.nics[nic];
        let takes = Ticks::from_nanoseconds(one.parameters.host.register_write_ns);
        let arrives =
            one.pcie.register_write(issued_at, bytes).max(one.events.seldom.queues().register_writes.last());
        let data = data(one);
        one.events.seldom.change(|queues| {
            queues.register_writes.push(arrives, RegisterWrite { bar, offset, data, issued_at })
        });
        self.refresh(nic);
        self.occupy_host(nic, issued_at, takes);
    }

    fn occupy_host(&mut self, nic: usize, start: Ticks, span: Ticks) {
        let host = &mut self.hosts[nic];
        host.busy_until = start + span;
        host.busy += span;
    }
}

impl Host for InProcess {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        Ok(self.when_free(CONFIG_ACCESS, |inner| inner.nics[self.nic].config_read(offset)))
    }

    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        self.when_free(CONFIG_ACCESS, |inner| inner.nics[self.nic].config_write(offset, value));
        Ok(())
    }

    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        let mut inner = self.world.0.borrow_mut();
        inner.check(self.nic, bar, offset)?;
        let start = inner.host_free_at(self.nic);
        inner.run_until(start);
        let nic = &mut inner.nics[self.nic];
        // A read pushes the posted writes before it ahead (PCIe 4.0 2.4.1).
        let arrives = nic.pcie.register_read(start).max(nic.events.seldom.queues().register_writes.last());
        inner.run_until(arrives);
        let nic = &mut inner.nics[self.nic];
        nic.now = arrives;
        let value = nic.bar_read(bar, offset);
        let answered = nic.pcie.register_answer(arrives);
        inner.run_until(answered);
        inner.occupy_host(self.nic, start, answered - start);
        Ok(value)
    }

    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        let mut inner = self.world.0.borrow_mut();
        inner.check(self.nic, bar, offset)?;
        // What goes into a push window may be a piece of a key.
        let window = bar == Bar::Bar2 && window_at(offset % DOORBELL_PAGE_BYTES).is_some();
        inner.post(self.nic, bar, offset, 4, |nic| {
            if window { nic.line(&value.to_le_bytes()) } else { RegisterData::Word(value) }
        });
        Ok(())
    }

    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        let mut inner = self.world.0.borrow_mut();
        inner.check(self.nic, bar, offset)?;
        if !offset.is_multiple_of(64) {
            return Err(HostError::OutOfRange { bar, offset });
        }
        inner.post(self.nic, bar, offset, 64, |nic| nic.line(line));
        Ok(())
    }

    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        let mut inner = self.world.0.borrow_mut();
        inner.nics[self.nic]
            .memory
            .map(memory, 0, memory.bytes() as u64, iova, access)
            .map_err(|reason| HostError::Map { iova, reason: reason.to_owned() })
    }

    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        // Every access checks its mapping at the moment it reaches memory, so none is under way after this.
        let mut inner = self.world.0.borrow_mut();
        inner.nics[self.nic]
            .memory
            .unmap(iova)
            .map_err(|reason| HostError::Map { iova, reason: reason.to_owned() })
    }

    fn interrupts_enable(&self, vectors: u16) -> Result<(), HostError> {
        for vector in 0..u32::from(vectors) {
            let entry = vector * cryptonic_pci::msix::ENTRY_BYTES;
            for (word, value) in [INTERRUPT_ADDRESS, 0, vector, 0].into_iter().enumerate() {
                self.write32(Bar::Bar4, entry + word as u32 * 4, value)?;
            }
        }
        let control = self.config_read(config::MSIX)?;
        self.config_write(config::MSIX, control & !config::MSIX_FUNCTION_MASK | config::MSIX_ENABLE)
    }

    fn now(&self) -> Time {
        let inner = self.world.0.borrow();
        inner.absolute(inner.host_free_at(self.nic))
    }

    fn spend(&self, work: Work) {
        let mut inner = self.world.0.borrow_mut();
        let host = &inner.nics[self.nic].parameters.host;
        let Work::Burst { packets } = work;
        let picoseconds = host.burst_ns * 1_000 + (host.packet_ns * 1e3 * f64::from(packets)).round() as u64;
        let start = inner.host_free_at(self.nic);
        inner.occupy_host(self.nic, start, Ticks::from_picoseconds(picoseconds));
    }

    fn relax(&self) {
        let mut inner = self.world.0.borrow_mut();
        inner.look_at_every_shadow();
        let poll = Ticks::from_nanoseconds(inner.nics[self.nic].parameters.host.poll_ns);
        let resume = inner.hosts[self.nic].busy_until.max(inner.now + poll);
        if !inner.advance(Until::Idle, true) {
            let later = inner.now + IDLE_STEP;
            let until = inner.absolute(later.max(resume));
            inner.run_until_absolute(until);
            return;
        }
        // All that happens at this point in time is done, whichever NIC's event came first.
        let now = inner.now;
        inner.run_until(resume.max(now));
    }

    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError> {
        let mut inner = self.world.0.borrow_mut();
        inner.look_at_every_shadow();
        loop {
            match inner.hosts[self.nic].interrupts.get_mut(usize::from(vector)) {
                Some(interrupt) if *interrupt => {
                    *interrupt = false;
                    let now = inner.now;
                    inner.run_until(now);
                    return Ok(Wake::Interrupt);
                }
                Some(_) => {}
                None => return Err(HostError::Unsupported("an interrupt vector above its table")),
            }
            // An epoch at a time, and no more than that where nothing is waited for but an interrupt.
            let until = inner.since_epoch(deadline).min(inner.now + EPOCH_LASTS);
            if !inner.advance(Until::Time(until), true) {
                // A deadline that never comes, with nothing under way: the clock stays where it is.
                if deadline == Time::NEVER {
                    return Ok(Wake::Deadline);
                }
                let until = inner.absolute(until);
                inner.run_until_absolute(until);
                if until == deadline {
                    return Ok(Wake::Deadline);
                }
            }
        }
    }

    fn reset(&self) -> Result<(), HostError> {
        self.when_free(RESET_TIME, |inner| {
            let control = inner.nics[self.nic].config_read(config::DEVICE_CONTROL);
            let reset = control & 0xffff | config::DEVICE_CONTROL_RESET;
            inner.nics[self.nic].config_write(config::DEVICE_CONTROL, reset);
            inner.hosts[self.nic].interrupts.fill(false);
        });
        Ok(())
    }
}
