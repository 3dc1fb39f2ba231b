//! A device that another process serves over a Unix socket (vfio-user).
//!
//! A read of a register is a round trip through the socket. Writes are posted, as on a bus: they want no reply, and the
//! stream keeps them in order. Memory is shared, and interrupts are eventfds, so neither passes the socket.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use cryptonic_pci::host::Wake;
use cryptonic_pci::time::TICKS_PER_PICOSECOND;
use cryptonic_pci::vfio_user::{
    Connection, DeviceInfo, DmaMap, DmaUnmap, FILES_MAX, Header, Incoming, InterruptInfo, MAJOR, MINOR,
    RegionAccess, RegionInfo, SetInterrupts, Version, command, device_flags, dma_flags, header_flags,
    interrupt, message, region, set_flags,
};
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory, Time, Work};
use cryptonic_regs::bar0::BAR0_BYTES;
use cryptonic_regs::doorbell::DOORBELL_PAGE_BYTES;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use thiserror::Error;

const TICKS_PER_NANOSECOND: u128 = TICKS_PER_PICOSECOND as u128 * 1_000;
/// How long a server may take to answer, by default. One that does not is taken for gone.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// What this client can do, in the protocol's JSON.
const CAPABILITIES: &str = r#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576}}"#;
/// File descriptors that a server takes with a message if it does not say.
const FILES_DEFAULT: usize = 1;

/// Why a served device could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no server at the socket.
    #[error("no vfio-user server answers at {path}: {error}")]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The server took the connection and said nothing.
    #[error(
        "the vfio-user server at {path} did not answer in {} ms: it serves one driver at a time, and may have another",
        patience.as_millis()
    )]
    Silent {
        /// The socket.
        path: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The server refused, went away, or said what makes no sense.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The server speaks another version.
    #[error("the server speaks vfio-user {major}.{minor}; this driver speaks {MAJOR}.{MINOR}")]
    Version {
        /// The server's.
        major: u16,
        /// The server's.
        minor: u16,
    },
    /// The device is no PCI function that can be reset.
    #[error("the served device is not a PCI function with a reset")]
    NotPci,
    /// A BAR is smaller than the contract's.
    #[error("{bar:?} of the served device has {bytes:#x} bytes, fewer than the {wanted:#x} of this contract")]
    BarTooSmall {
        /// Which.
        bar: Bar,
        /// Its size.
        bytes: u64,
        /// The least.
        wanted: u64,
    },
}

/// A device at the other end of a socket.
pub struct VfioUser {
    socket: RefCell<Socket>,
    started: Instant,
    /// The server's limit.
    files_max: usize,
    bar_bytes: [u64; 3],
    vectors: u32,
    interrupts: RefCell<Vec<OwnedFd>>,
    /// Size of each mapping.
    mappings: RefCell<std::collections::BTreeMap<u64, u64>>,
}

struct Socket {
    connection: Connection,
    patience: Duration,
    next_id: u16,
    /// Commands that want no reply, since the last one that got its reply.
    posted: u16,
    gone: Cell<bool>,
    silent: bool,
}

impl VfioUser {
    /// Attaches to the device served at `path`. A server that does not answer a command in `patience`, or does not take it,
    /// is taken for gone; see [`PATIENCE`].
    pub fn attach(path: &Path, patience: Duration) -> Result<VfioUser, AttachError> {
        let connect = |error| AttachError::Connect { path: path.display().to_string(), error };
        let connection = UnixStream::connect(path).and_then(Connection::new).map_err(connect)?;
        let gone = Cell::new(false);
        let mut socket = Socket { connection, patience, next_id: 0, posted: 0, gone, silent: false };

        let mut payload = Vec::new();
        Version { major: MAJOR, minor: MINOR }.write(&mut payload);
        payload.extend_from_slice(CAPABILITIES.as_bytes());
        payload.push(0);
        let answer = socket.request(command::VERSION, &payload, &[]).map_err(|error| {
            if socket.silent {
                AttachError::Silent { path: path.display().to_string(), patience }
            } else {
                error.into()
            }
        })?;
        let (version, capabilities) = Version::read(&answer).ok_or_else(senseless)?;
        if version.major != MAJOR || version.minor > MINOR {
            return Err(AttachError::Version { major: version.major, minor: version.minor });
        }
        let files_max = files_max(capabilities);

        let record_bytes = DeviceInfo::BYTES as u32;
        let mut payload = Vec::new();
        DeviceInfo { record_bytes, ..DeviceInfo::default() }.write(&mut payload);
        let answer = socket.request(command::DEVICE_GET_INFO, &payload, &[])?;
        let (device, _) = DeviceInfo::read(&answer).ok_or_else(senseless)?;
        let wanted = device_flags::PCI | device_flags::RESET;
        if device.flags & wanted != wanted
            || device.regions <= region::CONFIG
            || device.interrupts <= interrupt::MSIX
        {
            return Err(AttachError::NotPci);
        }
        let mut bar_bytes = [0; 3];
        let least = [BAR0_BYTES, DOORBELL_PAGE_BYTES, 0];
        for ((bar, bytes), wanted) in
            [Bar::Bar0, Bar::Bar2, Bar::Bar4].into_iter().zip(&mut bar_bytes).zip(least)
        {
            *bytes = socket.region_bytes(bar.region())?;
            let wanted = u64::from(wanted);
            if *bytes < wanted {
                return Err(AttachError::BarTooSmall { bar, bytes: *bytes, wanted });
            }
        }
        let vectors = socket.vectors()?;
        Ok(VfioUser {
            socket: RefCell::new(socket),
            started: Instant::now(),
            files_max,
            bar_bytes,
            vectors,
            interrupts: RefCell::default(),
            mappings: RefCell::default(),
        })
    }

    fn check(&self, bar: Bar, offset: u32, count: u32) -> Result<(), HostError> {
        let [bar0, bar2, bar4] = self.bar_bytes;
        let bytes = match bar {
            Bar::Bar0 => bar0,
            Bar::Bar2 => bar2,
            Bar::Bar4 => bar4,
        };
        let inside = offset.is_multiple_of(4) && u64::from(offset) + u64::from(count) <= bytes;
        if inside { Ok(()) } else { Err(HostError::OutOfRange { bar, offset }) }
    }
}

/// What a server's JSON says of file descriptors.
fn files_max(capabilities: &[u8]) -> usize {
    let text = capabilities.split(|byte| *byte == 0).next().unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    let number = json.pointer("/capabilities/max_msg_fds").and_then(serde_json::Value::as_u64);
    number.map_or(FILES_DEFAULT, |number| number.clamp(1, FILES_MAX as u64) as usize)
}

fn senseless() -> HostError {
    HostError::Refused { reason: "the server's answer makes no sense".to_owned() }
}

/// What a reply says.
fn reply(command: u16, flags: u32, error: u32, payload: Vec<u8>) -> Result<Vec<u8>, HostError> {
    if flags & header_flags::ERROR == 0 {
        return Ok(payload);
    }
    let why = match error {
        0 => "it does not say why".to_owned(),
        errno => io::Error::from_raw_os_error(errno as i32).to_string(),
    };
    Err(HostError::Refused { reason: format!("the vfio-user server refuses command {command}: {why}") })
}

impl Socket {
    /// Sends a command and waits for its reply; gives the reply's payload.
    fn request(
        &mut self,
        command: u16,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, HostError> {
        let id = self.send(command, 0, payload, files)?;
        let deadline = Instant::now() + self.patience;
        let posted = std::mem::take(&mut self.posted);
        loop {
            let incoming = self.received()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && incoming.as_ref().is_none_or(|incoming| incoming.header.id != id) {
                self.silent = true;
                return Err(self.lost());
            }
            let Some(incoming) = incoming else {
                if self.connection.wait(left).is_err() {
                    return Err(self.lost());
                }
                continue;
            };
            let Header { id: answered, command: of, flags, error, .. } = incoming.header;
            if flags & header_flags::REPLY == 0 {
                self.refuse(&incoming)?;
            } else if answered == id && of == command {
                return reply(command, flags, error, incoming.payload);
            } else if flags & header_flags::ERROR == 0 || !(1..=posted).contains(&id.wrapping_sub(answered)) {
                return Err(self.lost());
            }
            // Some servers tell of a posted command that failed; a bus has no place for that.
        }
    }

    /// Sends a command that wants no reply.
    fn post(&mut self, command: u16, payload: &[u8]) -> Result<(), HostError> {
        self.send(command, header_flags::NO_REPLY, payload, &[])?;
        self.posted = self.posted.saturating_add(1);
        Ok(())
    }

    fn send(
        &mut self,
        command: u16,
        flags: u32,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<u16, HostError> {
        if self.gone.get() {
            return Err(HostError::Gone);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let sent = self.connection.send(&message(id, command, flags, 0, payload), files, self.patience);
        sent.map_err(|_| self.lost())?;
        Ok(id)
    }

    fn received(&mut self) -> Result<Option<Incoming>, HostError> {
        self.connection.receive().map_err(|_| self.lost())
    }

    /// The server asks for something, such as memory that it has a mapping of: nothing that this client offers.
    fn refuse(&mut self, incoming: &Incoming) -> Result<(), HostError> {
        let Header { id, command, flags, .. } = incoming.header;
        if flags & header_flags::NO_REPLY != 0 {
            return Ok(());
        }
        let errno = Errno::NOTSUP.raw_os_error() as u32;
        let reply = message(id, command, header_flags::REPLY | header_flags::ERROR, errno, &[]);
        self.connection.send(&reply, &[], self.patience).map_err(|_| self.lost())
    }

    /// What is sent or received from here on would make no sense.
    fn lost(&self) -> HostError {
        self.gone.set(true);
        HostError::Gone
    }

    fn region_bytes(&mut self, index: u32) -> Result<u64, HostError> {
        let mut payload = Vec::new();
        let record_bytes = RegionInfo::BYTES as u32;
        RegionInfo { record_bytes, index, ..RegionInfo::default() }.write(&mut payload);
        let answer = self.request(command::DEVICE_GET_REGION_INFO, &payload, &[])?;
        let (information, _) = RegionInfo::read(&answer).ok_or_else(senseless)?;
        Ok(information.bytes)
    }

    fn vectors(&mut self) -> Result<u32, HostError> {
        let mut payload = Vec::new();
        let record_bytes = InterruptInfo::BYTES as u32;
        InterruptInfo { record_bytes, index: interrupt::MSIX, ..InterruptInfo::default() }
            .write(&mut payload);
        let answer = self.request(command::DEVICE_GET_IRQ_INFO, &payload, &[])?;
        let (information, _) = InterruptInfo::read(&answer).ok_or_else(senseless)?;
        Ok(information.count)
    }

    fn read32(&mut self, region: u32, offset: u64) -> Result<u32, HostError> {
        let mut payload = Vec::new();
        RegionAccess { offset, region, count: 4 }.write(&mut payload);
        let answer = self.request(command::REGION_READ, &payload, &[])?;
        let data = RegionAccess::read(&answer).and_then(|(_, data)| data.first_chunk());
        data.map(|word| u32::from_le_bytes(*word)).ok_or_else(|| self.lost())
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let mut payload = Vec::with_capacity(RegionAccess::BYTES + data.len());
        RegionAccess { offset, region, count: data.len() as u32 }.write(&mut payload);
        payload.extend_from_slice(data);
        self.post(command::REGION_WRITE, &payload)
    }

    /// Sends where MSI-X interrupts from `start` on go to.
    fn set_interrupts(&mut self, start: u32, files: &[BorrowedFd<'_>]) -> Result<(), HostError> {
        let data = if files.is_empty() { set_flags::DATA_NONE } else { set_flags::DATA_EVENTFD };
        let mut payload = Vec::new();
        SetInterrupts {
            record_bytes: SetInterrupts::BYTES as u32,
            flags: data | set_flags::ACTION_TRIGGER,
            index: interrupt::MSIX,
            start,
            count: files.len() as u32,
        }
        .write(&mut payload);
        self.request(command::DEVICE_SET_IRQS, &payload, files).map(|_| ())
    }
}

impl Host for VfioUser {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        self.socket.borrow_mut().read32(region::CONFIG, offset.into())
    }

    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        self.socket.borrow_mut().write(region::CONFIG, offset.into(), &value.to_le_bytes())
    }

    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        self.check(bar, offset, 4)?;
        self.socket.borrow_mut().read32(bar.region(), offset.into())
    }

    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        self.check(bar, offset, 4)?;
        self.socket.borrow_mut().write(bar.region(), offset.into(), &value.to_le_bytes())
    }

    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        self.check(bar, offset, 64)?;
        self.socket.borrow_mut().write(bar.region(), offset.into(), line)
    }

    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        let flags = match access {
            DmaAccess::DeviceReads => dma_flags::READ,
            DmaAccess::DeviceReadsAndWrites => dma_flags::READ | dma_flags::WRITE,
        };
        let bytes = memory.bytes() as u64;
        let mut payload = Vec::new();
        DmaMap { record_bytes: DmaMap::BYTES as u32, flags, offset: 0, iova, bytes }.write(&mut payload);
        let file = memory.file().as_fd();
        match self.socket.borrow_mut().request(command::DMA_MAP, &payload, &[file]) {
            Ok(_) => {
                self.mappings.borrow_mut().insert(iova, bytes);
                Ok(())
            }
            Err(HostError::Refused { reason }) => Err(HostError::Map { iova, reason }),
            Err(error) => Err(error),
        }
    }

    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        let Some(bytes) = self.mappings.borrow_mut().remove(&iova) else {
            return Err(HostError::Map { iova, reason: "nothing is mapped there".to_owned() });
        };
        let mut payload = Vec::new();
        DmaUnmap { record_bytes: DmaUnmap::BYTES as u32, flags: 0, iova, bytes }.write(&mut payload);
        self.socket.borrow_mut().request(command::DMA_UNMAP, &payload, &[]).map(|_| ())
    }

    fn interrupts_enable(&self, vectors: u16) -> Result<(), HostError> {
        if u32::from(vectors) > self.vectors {
            return Err(HostError::Unsupported("as many interrupt vectors"));
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let made: Result<Vec<OwnedFd>, Errno> = (0..vectors).map(|_| eventfd(0, flags)).collect();
        let made = made.map_err(|errno| HostError::Refused {
            reason: format!("no eventfd for an interrupt: {errno}; see ulimit -n"),
        })?;
        let mut socket = self.socket.borrow_mut();
        socket.set_interrupts(0, &[])?;
        let files: Vec<BorrowedFd<'_>> = made.iter().map(AsFd::as_fd).collect();
        for (index, some) in files.chunks(self.files_max).enumerate() {
            socket.set_interrupts((index * self.files_max) as u32, some)?;
        }
        drop(files);
        self.interrupts.replace(made);
        Ok(())
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_nanos() * TICKS_PER_NANOSECOND)
    }

    fn spend(&self, _: Work) {}

    fn relax(&self) {
        // The server may want this core.
        std::thread::yield_now();
    }

    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError> {
        let interrupts = self.interrupts.borrow();
        let Some(interrupt) = interrupts.get(usize::from(vector)) else {
            return Err(HostError::Unsupported("an interrupt vector above its table"));
        };
        let socket = self.socket.borrow();
        loop {
            if take(interrupt) {
                return Ok(Wake::Interrupt);
            }
            let left = deadline.since(self.now());
            if left == Time::ZERO {
                return Ok(Wake::Deadline);
            }
            let nanoseconds = left.picoseconds() / 1_000;
            let timeout = Timespec {
                tv_sec: (nanoseconds / 1_000_000_000) as i64,
                tv_nsec: (nanoseconds % 1_000_000_000) as _,
            };
            let timeout = (deadline != Time::NEVER).then_some(&timeout);
            // A server that ends hangs up, whatever else the socket is watched for.
            let mut watched =
                [PollFd::new(interrupt, PollFlags::IN), PollFd::new(&socket.connection, PollFlags::RDHUP)];
            match poll(&mut watched, timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(socket.lost()),
            }
            let [_, connection] = &watched;
            if connection.revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR) {
                return Err(socket.lost());
            }
        }
    }

    fn reset(&self) -> Result<(), HostError> {
        self.socket.borrow_mut().request(command::DEVICE_RESET, &[], &[])?;
        // An interrupt of before is none of after.
        self.interrupts.borrow().iter().for_each(|interrupt| {
            take(interrupt);
        });
        Ok(())
    }
}

/// Takes what an eventfd counted; says whether it was anything.
fn take(interrupt: &OwnedFd) -> bool {
    rustix::io::read(interrupt, &mut [0; 8]).is_ok()
}
