//! A NIC of a world as a vfio-user device: clients attach to a Unix socket one after another, as drivers to a slot.
//!
//! The server answers what has come in whole, and what a client does wrong is an error in its reply or the end of its
//! connection. It waits for a client in one place, where an answer is not taken, and not for long. When a client goes, the
//! NIC is reset, as vfio-pci does when a device is closed; the next one is attached then.

mod client_memory;
mod interrupts;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cryptonic_pci::vfio_user::{
    CONFIG_BYTES, Connection, DeviceInfo, DmaMap, DmaUnmap, Header, Incoming, InterruptInfo, MAJOR, MINOR,
    RegionAccess, RegionInfo, SetInterrupts, TRANSFER_BYTES_MAX, Version, command, device_flags,
    header_flags, interrupt, message, region, region_flags,
};
use cryptonic_pci::{Bar, Host, config};

use crate::world::{NicId, World};
use client_memory::ClientMemory;
use interrupts::Interrupts;

/// What this server can do, in the protocol's JSON.
const CAPABILITIES: &str =
    r#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096}}"#;
/// How long a client may take to read an answer, and to agree on a version.
const PATIENCE: Duration = Duration::from_secs(2);
/// Messages that are answered before the NIC moves on.
const MESSAGES_AT_ONCE: usize = 64;
/// Bytes of registers in one message that are written as they come; after longer ones the NIC has to have taken them.
const POSTED_BYTES_MAX: usize = 64;
/// Bits of a header's flags that say what kind of message it is.
const MESSAGE_KIND: u32 = 0xf;

/// What a server has to tell whoever runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A client attached: it agreed on a version.
    Attached,
    /// A client that was attached is gone, and why; the NIC was reset.
    Gone(String),
    /// A command of a client failed, or it went before it was attached, and why.
    Refused(String),
}

/// A NIC on a socket.
pub struct VfioUserServer {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the socket's file.
    identity: Option<(u64, u64)>,
    world: World,
    nic: NicId,
    host: Box<dyn Host>,
    client: Option<Client>,
}

/// The client that is attached.
struct Client {
    connection: Connection,
    since: Instant,
    agreed: bool,
    memory: ClientMemory,
    interrupts: Interrupts,
}

/// Why a command failed: an errno, and a sentence for whoever runs the server.
struct Refusal {
    errno: rustix::io::Errno,
    reason: String,
}

impl Refusal {
    fn invalid(reason: impl Into<String>) -> Refusal {
        Refusal { errno: rustix::io::Errno::INVAL, reason: reason.into() }
    }

    fn unsupported(reason: impl Into<String>) -> Refusal {
        Refusal { errno: rustix::io::Errno::NOTSUP, reason: reason.into() }
    }
}

impl VfioUserServer {
    /// Offers a NIC at `path`. A socket that nobody serves any more is replaced; one that somebody serves is an error.
    pub fn bind(path: &Path, world: &World, nic: NicId) -> io::Result<VfioUserServer> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            other => other,
        }?;
        listener.set_nonblocking(true)?;
        let host = world.host(nic);
        let identity = identity(path);
        let path = path.to_owned();
        Ok(VfioUserServer { listener, path, identity, world: world.clone(), nic, host, client: None })
    }

    /// What becomes readable when there is something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.client {
            Some(client) => client.connection.as_fd(),
            None => self.listener.as_fd(),
        }
    }

    /// Whether a client is attached.
    pub fn attached(&self) -> bool {
        self.client.is_some()
    }

    /// Answers what has come in; says whether there was anything.
    pub fn serve(&mut self, mut tell: impl FnMut(Notice)) -> bool {
        let Some(client) = &mut self.client else { return self.accept(&mut tell) };
        let mut busy = false;
        for _ in 0..MESSAGES_AT_ONCE {
            let incoming = match client.connection.receive() {
                Ok(Some(incoming)) => incoming,
                Ok(None) if !client.agreed && client.since.elapsed() > PATIENCE => {
                    self.detach("it sent no version".to_owned(), &mut tell);
                    return true;
                }
                Ok(None) => break,
                Err(error) => {
                    self.detach(departure(&error), &mut tell);
                    return true;
                }
            };
            busy = true;
            let device = Device { world: &self.world, nic: self.nic, host: self.host.as_ref() };
            if let Err(error) = client.handle(incoming, &device, &mut tell) {
                self.detach(departure(&error), &mut tell);
                return true;
            }
        }
        busy
    }

    /// Passes on the interrupts that the NIC sent.
    pub fn signal(&mut self) {
        let interrupts = self.client.as_ref().map(|client| &client.interrupts);
        self.world.take_interrupts(self.nic, |vector| {
            if let Some(interrupts) = interrupts {
                interrupts.signal(vector.into());
            }
        });
    }

    /// Asks the client to let go of the device, as a machine does before a card is pulled.
    pub fn request_release(&self) {
        if let Some(client) = &self.client {
            client.interrupts.request_release();
        }
    }

    fn accept(&mut self, tell: &mut impl FnMut(Notice)) -> bool {
        let Ok((stream, _)) = self.listener.accept() else { return false };
        match Connection::new(stream) {
            Ok(connection) => {
                let interrupts = Interrupts::new(self.world.vectors(self.nic));
                let memory = ClientMemory::default();
                let since = Instant::now();
                self.client = Some(Client { connection, since, agreed: false, memory, interrupts });
            }
            Err(error) => tell(Notice::Refused(error.to_string())),
        }
        true
    }

    fn detach(&mut self, reason: String, tell: &mut impl FnMut(Notice)) {
        let attached = self.client.take().is_some_and(|client| client.agreed);
        // Resets of a modelled function do not fail.
        let _ = self.host.reset();
        self.world.with_host_memory(self.nic, |memory| memory.unmap_all());
        self.world.take_interrupts(self.nic, |_| ());
        tell(if attached {
            Notice::Gone(reason)
        } else {
            Notice::Refused(format!("a client that did not attach: {reason}"))
        });
    }
}

/// Why a connection ended, in words.
fn departure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "it closed its end".to_owned()
        }
        io::ErrorKind::TimedOut => "it does not read its answers".to_owned(),
        io::ErrorKind::InvalidData => "it does not speak vfio-user".to_owned(),
        _ => error.to_string(),
    }
}

impl Drop for VfioUserServer {
    fn drop(&mut self) {
        // Who served the path since is not to lose it.
        if identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Which file a path leads to.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether a socket is there that nobody listens to. Connecting to what is no socket is refused too.
fn is_stale(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The NIC behind a socket.
struct Device<'a> {
    world: &'a World,
    nic: NicId,
    host: &'a dyn Host,
}

impl Client {
    fn handle(
        &mut self,
        incoming: Incoming,
        device: &Device<'_>,
        tell: &mut impl FnMut(Notice),
    ) -> io::Result<()> {
        let Header { id, command, flags, .. } = incoming.header;
        if flags & MESSAGE_KIND != 0 {
            return Err(io::ErrorKind::InvalidData.into()); // No command; and nothing was asked of the client.
        }
        let agreed = self.agreed;
        let answer = if agreed || command == command::VERSION {
            self.answer(incoming, device)
        } else {
            Err(Refusal::invalid("a command came before the version"))
        };
        if self.agreed && !agreed {
            tell(Notice::Attached);
        }
        let reply = match answer {
            Ok(payload) => message(id, command, header_flags::REPLY, 0, &payload),
            Err(refusal) => {
                tell(Notice::Refused(refusal.reason));
                let errno = refusal.errno.raw_os_error() as u32;
                message(id, command, header_flags::REPLY | header_flags::ERROR, errno, &[])
            }
        };
        if flags & header_flags::NO_REPLY != 0 {
            return Ok(());
        }
        self.connection.send(&reply, &[], PATIENCE)
    }

    /// Does what a command says; gives the reply's payload.
    fn answer(&mut self, incoming: Incoming, device: &Device<'_>) -> Result<Vec<u8>, Refusal> {
        let Incoming { header, payload, mut files } = incoming;
        let short = || Refusal::invalid(format!("command {} is cut short", header.command));
        let mut reply = Vec::new();
        match header.command {
            command::VERSION => {
                let (version, _) = Version::read(&payload).ok_or_else(short)?;
                if version.major != MAJOR {
                    return Err(Refusal::invalid(format!(
                        "the client speaks version {}.{}; this server speaks {MAJOR}.{MINOR}",
                        version.major, version.minor
                    )));
                }
                self.agreed = true;
                Version { major: MAJOR, minor: version.minor.min(MINOR) }.write(&mut reply);
                reply.extend_from_slice(CAPABILITIES.as_bytes());
                reply.push(0);
            }
            command::DMA_MAP => {
                let (map, _) = DmaMap::read(&payload).ok_or_else(short)?;
                if files.len() > 1 {
                    return Err(Refusal::invalid("memory comes with one file"));
                }
                // What has no file, such as another device's registers, cannot be reached from here.
                if let Some(file) = files.pop() {
                    device.world.with_host_memory(device.nic, |host| self.memory.map(host, &map, file))?;
                }
            }
            command::DMA_UNMAP => {
                let (unmap, _) = DmaUnmap::read(&payload).ok_or_else(short)?;
                // The NIC looks at its mappings whenever it touches memory: behind this nothing is under way.
                device.world.with_host_memory(device.nic, |host| self.memory.unmap(host, &unmap))?;
                unmap.write(&mut reply);
            }
            command::DEVICE_GET_INFO => {
                DeviceInfo {
                    record_bytes: DeviceInfo::BYTES as u32,
                    flags: device_flags::RESET | device_flags::PCI,
                    regions: region::COUNT,
                    interrupts: interrupt::COUNT,
                }
                .write(&mut reply);
            }
            command::DEVICE_GET_REGION_INFO => {
                let (asked, _) = RegionInfo::read(&payload).ok_or_else(short)?;
                let bytes = device.region_bytes(asked.index)?;
                let flags = if bytes > 0 { region_flags::READ | region_flags::WRITE } else { 0 };
                let record_bytes = RegionInfo::BYTES as u32;
                RegionInfo { record_bytes, flags, index: asked.index, bytes, ..RegionInfo::default() }
                    .write(&mut reply);
            }
            command::DEVICE_GET_IRQ_INFO => {
                let (asked, _) = InterruptInfo::read(&payload).ok_or_else(short)?;
                self.interrupts.information(asked.index)?.write(&mut reply);
            }
            command::DEVICE_SET_IRQS => {
                let (set, data) = SetInterrupts::read(&payload).ok_or_else(short)?;
                self.interrupts.set(&set, data, files, device.host)?;
            }
            command::REGION_READ => {
                let (access, _) = RegionAccess::read(&payload).ok_or_else(short)?;
                device.check(&access)?;
                access.write(&mut reply);
                device.read(&access, &mut reply)?;
            }
            command::REGION_WRITE => {
                let (access, data) = RegionAccess::read(&payload).ok_or_else(short)?;
                device.check(&access)?;
                let data = data.get(..access.count as usize).ok_or_else(short)?;
                if device.write(&access, data)? {
                    self.interrupts.restore(device.host)?;
                }
                access.write(&mut reply);
            }
            command::DEVICE_RESET => {
                device.host.reset().map_err(|error| Refusal::invalid(error.to_string()))?;
                self.interrupts.restore(device.host)?;
            }
            other => return Err(Refusal::unsupported(format!("command {other} is not supported"))),
        }
        Ok(reply)
    }
}

impl Device<'_> {
    /// Size of a region, 0 if the function has none of this index.
    fn region_bytes(&self, index: u32) -> Result<u64, Refusal> {
        let [bar0, bar2, bar4] = self.world.bar_bytes(self.nic);
        match Bar::of_region(index) {
            Some(Bar::Bar0) => Ok(bar0.into()),
            Some(Bar::Bar2) => Ok(bar2.into()),
            Some(Bar::Bar4) => Ok(bar4.into()),
            None if index == region::CONFIG => Ok(CONFIG_BYTES),
            None if index < region::COUNT => Ok(0),
            None => Err(Refusal::invalid(format!("there is no region {index}"))),
        }
    }

    /// Whether an access is within its region.
    fn check(&self, access: &RegionAccess) -> Result<(), Refusal> {
        let bytes = self.region_bytes(access.region)?;
        let end = access.offset.checked_add(access.count.into());
        if end.is_none_or(|end| end > bytes) || access.count as usize > TRANSFER_BYTES_MAX {
            let RegionAccess { offset, region, count } = access;
            return Err(Refusal::invalid(format!("region {region} has no {count} bytes at {offset:#x}")));
        }
        Ok(())
    }

    /// Reads any bytes of a region, word by word.
    fn read(&self, access: &RegionAccess, into: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut at = access.offset as u32;
        let end = at + access.count;
        while at < end {
            let word = self.read_word(access.region, at & !3)?;
            let next = ((at & !3) + 4).min(end);
            let bytes = word.to_le_bytes();
            into.extend_from_slice(
                bytes
                    .get((at % 4) as usize..)
                    .and_then(|rest| rest.get(..(next - at) as usize))
                    .unwrap_or_default(),
            );
            at = next;
        }
        Ok(())
    }

    /// Writes config space by the byte, registers by the word, and 64 aligned bytes of doorbells as one push. Says whether
    /// that reset the function.
    fn write(&self, access: &RegionAccess, data: &[u8]) -> Result<bool, Refusal> {
        let offset = access.offset as u32;
        let failed = |error: cryptonic_pci::HostError| Refusal::invalid(error.to_string());
        let Some(bar) = Bar::of_region(access.region) else {
            return self.write_config(offset, data);
        };
        if let (Bar::Bar2, Ok(line), true) = (bar, <&[u8; 64]>::try_from(data), offset.is_multiple_of(64)) {
            return self.host.push64(bar, offset, line).map_err(failed).map(|()| false);
        }
        let (words, rest) = data.as_chunks::<4>();
        if !offset.is_multiple_of(4) || !rest.is_empty() {
            return Err(Refusal::invalid(format!(
                "{bar:?} is written by 4 bytes, not {} at {offset:#x}",
                data.len()
            )));
        }
        if let [low, high] = words {
            // Of a 64-bit register the low half makes the write take effect.
            let value = u64::from(u32::from_le_bytes(*high)) << 32 | u64::from(u32::from_le_bytes(*low));
            return self.host.write64(bar, offset, value).map_err(failed).map(|()| false);
        }
        for (index, word) in words.iter().enumerate() {
            self.host.write32(bar, offset + index as u32 * 4, u32::from_le_bytes(*word)).map_err(failed)?;
        }
        if data.len() > POSTED_BYTES_MAX {
            // A read pushes posted writes ahead: a client cannot pile them up faster than the NIC takes them.
            self.read_word(region::CONFIG, 0)?;
        }
        Ok(false)
    }

    fn write_config(&self, offset: u32, data: &[u8]) -> Result<bool, Refusal> {
        let mut at = offset;
        let mut left = data;
        let mut reset = false;
        while !left.is_empty() {
            let place = (at % 4) as usize;
            let take = left.len().min(4 - place);
            let word = (at & !3) as u16;
            let mut bytes = self.read_word(region::CONFIG, word.into())?.to_le_bytes();
            for (byte, new) in bytes.iter_mut().skip(place).zip(left.iter().take(take)) {
                *byte = *new;
            }
            let value = u32::from_le_bytes(bytes);
            self.host.config_write(word, value).map_err(|error| Refusal::invalid(error.to_string()))?;
            reset |= word == config::DEVICE_CONTROL && value & config::DEVICE_CONTROL_RESET != 0;
            left = left.get(take..).unwrap_or_default();
            at += take as u32;
        }
        if reset {
            // An interrupt of before is none of after.
            self.world.take_interrupts(self.nic, |_| ());
        }
        Ok(reset)
    }

    fn read_word(&self, region: u32, offset: u32) -> Result<u32, Refusal> {
        match Bar::of_region(region) {
            Some(bar) => self.host.read32(bar, offset),
            None => self.host.config_read(offset as u16),
        }
        .map_err(|error| Refusal::invalid(error.to_string()))
    }
}
