//! A host whose time goes in small steps, with something done at each of them: firmware crashed, packets injected.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use cryptonic_driver::{Host, KeyLedger, Nic, OpenOptions, Time, Wake};
use cryptonic_hwmodel::{NicId, World};
use cryptonic_pci::host::{HostError, Work};
use cryptonic_pci::{Bar, DmaAccess, SharedMemory};

/// What is done at each step, which has a number. It may use the world, and not the driver.
type StepWork = Box<dyn FnMut(u64)>;

/// What a test holds of a stepped host.
#[derive(Clone)]
pub struct Steps(Rc<Inner>);

struct Inner {
    step: Cell<Time>,
    count: Cell<u64>,
    work: RefCell<Option<StepWork>>,
}

impl Steps {
    /// Has work done at each step from now on, which are counted from 0.
    pub fn at_each(&self, work: impl FnMut(u64) + 'static) {
        self.0.count.set(0);
        *self.0.work.borrow_mut() = Some(Box::new(work));
    }

    /// Does nothing more. Gives the steps that there were.
    pub fn stop(&self) -> u64 {
        *self.0.work.borrow_mut() = None;
        self.0.count.get()
    }

    /// Crashes the firmware of a NIC at a step.
    pub fn crash_at(&self, world: &World, id: NicId, step: u64) {
        let world = world.clone();
        self.at_each(move |now| {
            if now == step {
                world.restart_firmware(id);
            }
        });
    }

    /// Stalls the firmware of a NIC from a step on.
    pub fn stall_at(&self, world: &World, id: NicId, step: u64) {
        let world = world.clone();
        self.at_each(move |now| {
            if now == step {
                world.stop_firmware(id);
            }
        });
    }
}

struct Stepped {
    host: Box<dyn Host>,
    steps: Steps,
    unused_vector: u16,
}

/// Opens a NIC whose driver waits in steps. Its commands may take 200 µs.
pub fn open_stepped(world: &World, id: NicId, step: Time, ledger: &KeyLedger) -> (Nic, Steps) {
    let steps =
        Steps(Rc::new(Inner { step: Cell::new(step), count: Cell::new(0), work: RefCell::new(None) }));
    let host = Stepped { host: world.host(id), steps: steps.clone(), unused_vector: 15 };
    let options = OpenOptions {
        key_ledger: ledger.clone(),
        command_timeout: Time::from_microseconds(200),
        ..OpenOptions::default()
    };
    (Nic::open(Box::new(host), options).expect("open"), steps)
}

impl Host for Stepped {
    fn relax(&self) {
        let deadline = self.host.now() + self.steps.0.step.get();
        // Nothing is sent to this vector, so the time goes exactly so far.
        self.host.wait(self.unused_vector, deadline).expect("a vector");
        let inner = &self.steps.0;
        if let Some(work) = inner.work.borrow_mut().as_mut() {
            work(inner.count.replace(inner.count.get() + 1));
        }
    }

    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        self.host.config_read(offset)
    }
    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        self.host.config_write(offset, value)
    }
    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        self.host.read32(bar, offset)
    }
    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        self.host.write32(bar, offset, value)
    }
    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        self.host.push64(bar, offset, line)
    }
    fn address_of(&self, memory: &SharedMemory, wanted: u64) -> Result<u64, HostError> {
        self.host.address_of(memory, wanted)
    }
    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        self.host.dma_map(memory, iova, access)
    }
    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        self.host.dma_unmap(iova)
    }
    fn interrupts_enable(&self, vectors: u16) -> Result<(), HostError> {
        self.host.interrupts_enable(vectors)
    }
    fn now(&self) -> Time {
        self.host.now()
    }
    fn spend(&self, work: Work) {
        self.host.spend(work);
    }
    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError> {
        self.host.wait(vector, deadline)
    }
    fn reset(&self) -> Result<(), HostError> {
        self.host.reset()
    }
}
