//! What a NIC and its queue pairs share: the host side, register access, and memory mapped for the device.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU32, Ordering};

use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory, Time};
use cryptonic_regs::bar0::{MAGIC, QUEUE_CONTROL, QUEUE_PAIR_STRIDE, QueueControl};
use cryptonic_regs::{Register, Value};

use crate::doorbells::ShadowMemory;
use crate::event_ring::EventRing;
use crate::queue::QueueMemory;
use crate::region::RegionMemory;
use crate::slots::Slots;
use crate::{Error, Quarantine};

/// Where I/O addresses begin: above what a machine reserves below 4 GiB.
const ADDRESSES_START: u64 = 1 << 32;
/// Where they end: the least that I/O memory management units translate.
const ADDRESSES_END: u64 = 1 << 39;
/// Mappings begin at multiples of this, with at least as much unmapped between them.
const ADDRESSES_STEP: u64 = 2 << 20;

/// What a NIC and its queue pairs share.
pub(crate) struct Shared {
    pub(crate) host: Box<dyn Host>,
    /// Marks what comes from this NIC.
    pub(crate) identity: u32,
    /// The device was closed, or reset because it failed: nothing may be sent to it any more.
    pub(crate) closed: Cell<bool>,
    pub(crate) command_timeout: Time,
    pub(crate) interrupts: Cell<bool>,
    pub(crate) queues: RefCell<Vec<Rc<QueueMemory>>>,
    pub(crate) regions: RefCell<Vec<Weak<RegionMemory>>>,
    /// Shadow doorbells, if the device has them and the host wants them.
    pub(crate) shadow: OnceCell<ShadowMemory>,
    pub(crate) slots: RefCell<Slots>,
    pub(crate) events: RefCell<Option<Rc<EventRing>>>,
    pub(crate) event_quarantines: Cell<u64>,
    /// Epoch of the IV clock of PSP in software, where the device has none; 0 for none.
    pub(crate) software_epoch: Cell<u64>,
    quarantines: Vec<Cell<u64>>,
    next_address: Cell<u64>,
}

impl Shared {
    pub(crate) fn new(host: Box<dyn Host>, command_timeout: Time) -> Self {
        Shared {
            host,
            identity: next_identity(),
            closed: Cell::new(false),
            command_timeout,
            interrupts: Cell::new(false),
            queues: RefCell::new(Vec::new()),
            regions: RefCell::new(Vec::new()),
            shadow: OnceCell::new(),
            slots: RefCell::default(),
            events: RefCell::default(),
            event_quarantines: Cell::new(0),
            software_epoch: Cell::new(0),
            quarantines: Quarantine::ALL.iter().map(|_| Cell::new(0)).collect(),
            next_address: Cell::new(ADDRESSES_START),
        }
    }

    /// Reads a register of BAR0; all ones of a function that is gone are an error.
    pub(crate) fn read<T: Value>(&self, register: Register<T>) -> Result<T, HostError> {
        let (bits, ones) = if T::WIDTH_BITS == 64 {
            (self.host.read64(Bar::Bar0, register.offset)?, u64::MAX)
        } else {
            (u64::from(self.host.read32(Bar::Bar0, register.offset)?), u64::from(u32::MAX))
        };
        if bits == ones && self.host.read32(Bar::Bar0, MAGIC.offset)? == u32::MAX {
            return Err(HostError::Gone);
        }
        Ok(T::of_bits(bits))
    }

    /// Writes a register of BAR0.
    pub(crate) fn write<T: Value>(&self, register: Register<T>, value: T) -> Result<(), HostError> {
        if T::WIDTH_BITS == 64 {
            self.host.write64(Bar::Bar0, register.offset, value.bits())
        } else {
            self.host.write32(Bar::Bar0, register.offset, value.bits() as u32)
        }
    }

    /// Polls until `look` gives something, or the timeout passes; looks once more after that.
    pub(crate) fn poll<T>(
        &self,
        timeout: Time,
        what: &'static str,
        mut look: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let deadline = self.host.now() + timeout;
        loop {
            let late = self.host.now() >= deadline;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if late {
                return Err(Error::Deadline { what });
            }
            self.host.relax();
        }
    }

    /// Whether the device may answer and start transactions.
    pub(crate) fn set_command(&self, memory: bool, bus_master: bool) -> Result<(), HostError> {
        let mut command = self.host.config_read(COMMAND)? & 0xffff & !(COMMAND_MEMORY | COMMAND_BUS_MASTER);
        if memory {
            command |= COMMAND_MEMORY;
        }
        if bus_master {
            command |= COMMAND_BUS_MASTER;
        }
        // The upper half is the status register, whose bits are cleared by writing ones: zeros leave it.
        self.host.config_write(COMMAND, command)
    }

    /// Allocates memory and maps it, at addresses that were never used before where they are ours to choose.
    pub(crate) fn arena(&self, bytes: usize, access: DmaAccess) -> Result<Arena, Error> {
        let memory = self.host.memory(bytes).map_err(Error::Memory)?;
        let iova = self.next_address.get();
        let steps = (memory.bytes() as u64).div_ceil(ADDRESSES_STEP) + 1;
        let next = iova + steps * ADDRESSES_STEP;
        if next > ADDRESSES_END {
            return Err(Error::AddressesExhausted);
        }
        let iova = self.host.address_of(&memory, iova)?;
        self.host.dma_map(&memory, iova, access)?;
        self.next_address.set(next);
        Ok(Arena { memory, iova, mapped: Cell::new(true) })
    }

    /// Takes the memory back from the device.
    pub(crate) fn unmap(&self, arena: &Arena) -> Result<(), HostError> {
        if arena.mapped.replace(false) { self.host.dma_unmap(arena.iova) } else { Ok(()) }
    }

    /// Ends a queue pair at once: turns it off without waiting, takes its memory back, then zeroises its
    /// rings. In this order: a descriptor whose key is zeroised must not be fetched any more.
    pub(crate) fn cut_off(&self, memory: &QueueMemory) -> Result<(), HostError> {
        let control = QUEUE_CONTROL.instance(memory.index, QUEUE_PAIR_STRIDE);
        let off = self.write(control, QueueControl::new());
        let reads = self.unmap(&memory.reads);
        let writes = self.unmap(&memory.writes);
        memory.zeroise_rings();
        off.and(reads).and(writes)
    }

    pub(crate) fn count_quarantine(&self, reason: Quarantine) {
        if let Some(counter) = self.quarantines.get(reason as usize) {
            counter.set(counter.get() + 1);
        }
    }

    pub(crate) fn quarantines(&self) -> impl Iterator<Item = (Quarantine, u64)> + '_ {
        Quarantine::ALL.iter().copied().zip(self.quarantines.iter().map(Cell::get))
    }
}

/// A number that no other NIC or queue pair of the process has.
pub(crate) fn next_identity() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Memory that holds nothing but what the device may see, and where the device sees it.
pub(crate) struct Arena {
    pub(crate) memory: SharedMemory,
    pub(crate) iova: u64,
    mapped: Cell<bool>,
}
