//! A host side that fails where a test wants it to.

use std::cell::{Cell, RefCell};
use std::io;

use crate::host::Wake;
use crate::{Bar, DmaAccess, Host, HostError, SharedMemory, Time, Work};

/// What goes wrong. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// After so many accesses to registers and config space the function is gone: reads give all ones, and
    /// writes reach nothing. As on a real bus, nothing else tells.
    pub gone_after: Option<u64>,
    /// The function's absence is an error of every access, as when its server has ended.
    pub gone_is_an_error: bool,
    /// Register writes that get lost: BAR, offset, and how many of them (`u64::MAX`: all).
    pub lost_writes: Vec<(Bar, u32, u64)>,
    /// Registers that read a wrong value: BAR, offset, what they read.
    pub wrong_reads: Vec<(Bar, u32, u32)>,
    /// No interrupt arrives; waits last until their deadline.
    pub lost_interrupts: bool,
}

/// A host side with [`Faults`].
pub struct Fault<H> {
    host: H,
    faults: RefCell<Faults>,
    accesses: Cell<u64>,
}

impl<H: Host> Fault<H> {
    /// Wraps `host`.
    pub fn new(host: H, faults: Faults) -> Self {
        Fault { host, faults: RefCell::new(faults), accesses: Cell::new(0) }
    }

    /// Changes what goes wrong from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.borrow_mut() = faults;
    }

    /// Accesses to registers and config space so far.
    pub fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    /// Counts an access. `Ok(true)`: the function is gone.
    fn access(&self) -> Result<bool, HostError> {
        let before = self.accesses.get();
        self.accesses.set(before + 1);
        let faults = self.faults.borrow();
        match faults.gone_after {
            Some(limit) if before >= limit && faults.gone_is_an_error => Err(HostError::Gone),
            Some(limit) => Ok(before >= limit),
            None => Ok(false),
        }
    }

    fn lost(&self, bar: Bar, offset: u32) -> bool {
        let mut faults = self.faults.borrow_mut();
        let writes = faults.lost_writes.iter_mut();
        let left =
            writes.map(|(at, from, left)| ((*at, *from), left)).find(|(place, _)| *place == (bar, offset));
        match left {
            Some((_, left)) if *left > 0 => {
                *left = if *left == u64::MAX { *left } else { *left - 1 };
                true
            }
            _ => false,
        }
    }
}

impl<H: Host> Host for Fault<H> {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        if self.access()? { Ok(u32::MAX) } else { self.host.config_read(offset) }
    }

    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        if self.access()? { Ok(()) } else { self.host.config_write(offset, value) }
    }

    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        if self.access()? {
            return Ok(u32::MAX);
        }
        let value = self.host.read32(bar, offset)?;
        let faults = self.faults.borrow();
        let wrong = faults.wrong_reads.iter().find(|(at, from, _)| (*at, *from) == (bar, offset));
        Ok(wrong.map_or(value, |(.., wrong)| *wrong))
    }

    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        if self.access()? || self.lost(bar, offset) { Ok(()) } else { self.host.write32(bar, offset, value) }
    }

    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        if self.access()? || self.lost(bar, offset) { Ok(()) } else { self.host.push64(bar, offset, line) }
    }

    fn memory(&self, bytes: usize) -> io::Result<SharedMemory> {
        self.host.memory(bytes)
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

    fn relax(&self) {
        self.host.relax();
    }

    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError> {
        // An interrupt that is lost was sent: it is taken from the host and forgotten.
        while self.host.wait(vector, deadline)? == Wake::Interrupt {
            if !self.faults.borrow().lost_interrupts {
                return Ok(Wake::Interrupt);
            }
            if self.host.now() >= deadline {
                break;
            }
        }
        Ok(Wake::Deadline)
    }

    fn reset(&self) -> Result<(), HostError> {
        if self.access()? { Ok(()) } else { self.host.reset() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A function whose registers read what was written; an interrupt comes each tick.
    #[derive(Default)]
    pub(crate) struct Echo {
        registers: RefCell<HashMap<u32, u32>>,
        now: Cell<u64>,
    }

    impl Host for Echo {
        fn config_read(&self, _: u16) -> Result<u32, HostError> {
            Ok(0)
        }
        fn config_write(&self, _: u16, _: u32) -> Result<(), HostError> {
            Ok(())
        }
        fn read32(&self, _: Bar, offset: u32) -> Result<u32, HostError> {
            Ok(self.registers.borrow().get(&offset).copied().unwrap_or(0))
        }
        fn write32(&self, _: Bar, offset: u32, value: u32) -> Result<(), HostError> {
            self.registers.borrow_mut().insert(offset, value);
            Ok(())
        }
        fn push64(&self, _: Bar, _: u32, _: &[u8; 64]) -> Result<(), HostError> {
            Ok(())
        }
        fn dma_map(&self, _: &SharedMemory, _: u64, _: DmaAccess) -> Result<(), HostError> {
            Ok(())
        }
        fn dma_unmap(&self, _: u64) -> Result<(), HostError> {
            Ok(())
        }
        fn interrupts_enable(&self, _: u16) -> Result<(), HostError> {
            Ok(())
        }
        fn now(&self) -> Time {
            Time(u128::from(self.now.get()))
        }
        fn spend(&self, _: Work) {}
        fn relax(&self) {}
        fn wait(&self, _: u16, _: Time) -> Result<Wake, HostError> {
            self.now.set(self.now.get() + 1);
            Ok(Wake::Interrupt)
        }
        fn reset(&self) -> Result<(), HostError> {
            Ok(())
        }
    }

    #[test]
    fn a_function_that_is_gone_reads_all_ones_or_fails() {
        let fault = Fault::new(Echo::default(), Faults { gone_after: Some(2), ..Faults::default() });
        fault.write32(Bar::Bar0, 0, 5).unwrap();
        assert_eq!(fault.read32(Bar::Bar0, 0), Ok(5));
        assert_eq!(fault.read32(Bar::Bar0, 0), Ok(u32::MAX));
        assert_eq!(fault.config_read(0), Ok(u32::MAX));
        assert_eq!(fault.write32(Bar::Bar0, 0, 6), Ok(()));
        assert_eq!(fault.accesses(), 5);
        fault.set(Faults { gone_after: Some(0), gone_is_an_error: true, ..Faults::default() });
        assert_eq!(fault.read32(Bar::Bar0, 0), Err(HostError::Gone));
        fault.set(Faults::default());
        assert_eq!(fault.read32(Bar::Bar0, 0), Ok(5));
    }

    #[test]
    fn writes_get_lost_and_reads_lie_where_told() {
        let fault = Fault::new(
            Echo::default(),
            Faults {
                lost_writes: vec![(Bar::Bar0, 4, 1)],
                wrong_reads: vec![(Bar::Bar0, 8, 99)],
                ..Faults::default()
            },
        );
        fault.write32(Bar::Bar0, 4, 1).unwrap();
        assert_eq!(fault.read32(Bar::Bar0, 4), Ok(0));
        fault.write32(Bar::Bar0, 4, 2).unwrap();
        assert_eq!(fault.read32(Bar::Bar0, 4), Ok(2));
        fault.write32(Bar::Bar0, 8, 3).unwrap();
        assert_eq!(fault.read32(Bar::Bar0, 8), Ok(99));
    }

    #[test]
    fn a_lost_interrupt_is_a_wait_until_the_deadline() {
        let fault = Fault::new(Echo::default(), Faults::default());
        assert_eq!(fault.wait(0, Time(10)), Ok(Wake::Interrupt));
        fault.set(Faults { lost_interrupts: true, ..Faults::default() });
        assert_eq!(fault.wait(0, Time(10)), Ok(Wake::Deadline));
        assert_eq!(fault.now(), Time(10));
    }
}
