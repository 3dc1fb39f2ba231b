//! A host side that tells what passes through it.

use std::cell::RefCell;
use std::io;

use crate::host::Wake;
use crate::{Bar, DmaAccess, Host, HostError, SharedMemory, Time, Work};

/// What was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read of config space.
    ConfigRead,
    /// A write to config space.
    ConfigWrite,
    /// A register read.
    Read,
    /// A register write.
    Write,
    /// A write of 64 bytes. The value is the first eight of them.
    Push,
    /// A mapping: the offset is the I/O address, the value the size in bytes.
    Map,
    /// The end of a mapping: the offset is the I/O address.
    Unmap,
    /// A wait for the interrupt vector in the offset. The value is 1 if it came and 0 if not.
    Wait,
    /// A function-level reset.
    Reset,
}

/// One access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// When it was over.
    pub time: Time,
    /// What it was.
    pub kind: Kind,
    /// The BAR, for registers.
    pub bar: Option<Bar>,
    /// Where.
    pub offset: u64,
    /// What was read or written; `None` if it is secret, or if the access failed.
    pub value: Option<u64>,
}

/// Tells a sink of every access to a function. A register that `secret` claims, by its BAR and offset, shows
/// no value.
pub struct Trace<H, S, R> {
    host: H,
    sink: RefCell<S>,
    secret: R,
}

impl<H: Host, S: FnMut(Access), R: Fn(Bar, u32) -> bool> Trace<H, S, R> {
    /// Wraps `host`.
    pub fn new(host: H, sink: S, secret: R) -> Self {
        Trace { host, sink: RefCell::new(sink), secret }
    }

    fn tell(&self, kind: Kind, bar: Option<Bar>, offset: u64, value: Option<u64>) {
        let time = self.host.now();
        (self.sink.borrow_mut())(Access { time, kind, bar, offset, value });
    }

    fn tell_register(&self, kind: Kind, bar: Bar, offset: u32, value: Option<u64>) {
        // A push covers 64 bytes: it is secret if any register under it is.
        let registers = if kind == Kind::Push { 16 } else { 1 };
        let secret = (0..registers).any(|index| (self.secret)(bar, offset.wrapping_add(index * 4)));
        self.tell(kind, Some(bar), offset.into(), value.filter(|_| !secret));
    }
}

impl<H: Host, S: FnMut(Access), R: Fn(Bar, u32) -> bool> Host for Trace<H, S, R> {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        let result = self.host.config_read(offset);
        self.tell(Kind::ConfigRead, None, offset.into(), result.as_ref().ok().map(|value| u64::from(*value)));
        result
    }

    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        let result = self.host.config_write(offset, value);
        self.tell(Kind::ConfigWrite, None, offset.into(), result.is_ok().then_some(value.into()));
        result
    }

    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        let result = self.host.read32(bar, offset);
        self.tell_register(Kind::Read, bar, offset, result.as_ref().ok().map(|value| u64::from(*value)));
        result
    }

    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        let result = self.host.write32(bar, offset, value);
        self.tell_register(Kind::Write, bar, offset, result.is_ok().then_some(value.into()));
        result
    }

    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        let result = self.host.push64(bar, offset, line);
        let first = line.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        self.tell_register(Kind::Push, bar, offset, first.filter(|_| result.is_ok()));
        result
    }

    fn memory(&self, bytes: usize) -> io::Result<SharedMemory> {
        self.host.memory(bytes)
    }

    fn address_of(&self, memory: &SharedMemory, wanted: u64) -> Result<u64, HostError> {
        self.host.address_of(memory, wanted)
    }
    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        let result = self.host.dma_map(memory, iova, access);
        self.tell(Kind::Map, None, iova, result.is_ok().then_some(memory.bytes() as u64));
        result
    }

    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        let result = self.host.dma_unmap(iova);
        self.tell(Kind::Unmap, None, iova, None);
        result
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
        let result = self.host.wait(vector, deadline);
        let came = result.as_ref().ok().map(|wake| u64::from(*wake == Wake::Interrupt));
        self.tell(Kind::Wait, None, vector.into(), came);
        result
    }

    fn reset(&self) -> Result<(), HostError> {
        let result = self.host.reset();
        self.tell(Kind::Reset, None, 0, None);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::fault::tests::Echo;

    #[test]
    fn every_access_is_told_and_secrets_are_not() {
        let told = Rc::new(RefCell::new(vec![]));
        let sink = {
            let told = told.clone();
            move |access| told.borrow_mut().push(access)
        };
        let trace = Trace::new(Echo::default(), sink, |bar, offset| bar == Bar::Bar0 && offset == 0x10);
        trace.write32(Bar::Bar0, 8, 5).unwrap();
        trace.write32(Bar::Bar0, 0x10, 0x5ec2e7).unwrap();
        assert_eq!(trace.read32(Bar::Bar0, 8), Ok(5));
        assert_eq!(trace.read32(Bar::Bar0, 0x10), Ok(0x5ec2e7));
        trace.write64(Bar::Bar2, 0x20, 7 << 32 | 6).unwrap();
        trace.push64(Bar::Bar0, 0, &[1; 64]).unwrap();
        trace.push64(Bar::Bar2, 0, &[1; 64]).unwrap();
        trace.wait(3, Time(9)).unwrap();
        let told: Vec<_> =
            told.borrow().iter().map(|access: &Access| (access.kind, access.offset, access.value)).collect();
        assert_eq!(
            told,
            [
                (Kind::Write, 8, Some(5)),
                (Kind::Write, 0x10, None),
                (Kind::Read, 8, Some(5)),
                (Kind::Read, 0x10, None),
                (Kind::Write, 0x24, Some(7)),
                (Kind::Write, 0x20, Some(6)),
                (Kind::Push, 0, None),
                (Kind::Push, 0, Some(0x0101_0101_0101_0101)),
                (Kind::Wait, 3, Some(1)),
            ]
        );
    }
}
