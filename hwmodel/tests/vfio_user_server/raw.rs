//! A server in a thread, and a client that sends what a test says, right or wrong.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cryptonic_hwmodel::vfio_user_server::{Notice, VfioUserServer};
use cryptonic_hwmodel::{Parameters, World};
use cryptonic_pci::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub const VERSION: u16 = 1;
pub const DMA_MAP: u16 = 2;
pub const DMA_UNMAP: u16 = 3;
pub const DEVICE_GET_INFO: u16 = 4;
pub const DEVICE_GET_REGION_INFO: u16 = 5;
pub const DEVICE_GET_IRQ_INFO: u16 = 7;
pub const DEVICE_SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const DEVICE_RESET: u16 = 13;

pub const BAR0: u32 = 0;
pub const BAR2: u32 = 2;
pub const BAR4: u32 = 4;
pub const CONFIG: u32 = 7;
pub const MSIX: u32 = 2;

pub const EINVAL: u32 = 22;
pub const ENOTSUP: u32 = 95;

/// Config space: the command register, and Device Control of the PCI Express capability.
pub const COMMAND: u64 = 0x04;
pub const DEVICE_CONTROL: u64 = 0x48;
/// DEVICE_STATUS in BAR0, and its bit that says that no key is left.
pub const DEVICE_STATUS: u64 = 0x204;
pub const KEYS_ZEROISED: u8 = 1 << 3;

/// No answer takes longer, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server in a thread. One at a time: descriptors and mappings of the process are counted.
pub struct Served {
    pub path: PathBuf,
    pub notices: Receiver<Notice>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Served {
    pub fn start() -> Served {
        let alone = alone();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nic");
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, notices) = channel();
        let (ready, bound) = channel();
        let (at, end) = (path.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let world = World::new(1);
            let nic = world.add_nic(&Parameters::default()).expect("the defaults are in range");
            let mut server = VfioUserServer::bind(&at, &world, nic).expect("the path is free");
            ready.send(()).expect("the test waits");
            let started = Instant::now();
            while !end.load(Ordering::Relaxed) {
                let busy = server.serve(|notice| drop(tell.send(notice)));
                world.drain();
                world.run_until(Time::from_nanoseconds(started.elapsed().as_nanos() as u64));
                server.signal();
                if !busy {
                    let watched = PollFd::from_borrowed_fd(server.descriptor(), PollFlags::IN);
                    let nap = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                    let _ = poll(&mut [watched], Some(&nap));
                }
            }
        });
        bound.recv().expect("the server is there");
        Served { path, notices, stop, thread: Some(thread), _directory: directory, _alone: alone }
    }

    /// A client that agreed on the version.
    pub fn attach(&self) -> Raw {
        let mut raw = self.connect();
        raw.agree();
        raw
    }

    /// A client that said nothing yet.
    pub fn connect(&self) -> Raw {
        let stream = UnixStream::connect(&self.path).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes it");
        Raw { stream, next: 0 }
    }

    /// Waits for a notice.
    pub fn told(&self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            let notice = self.notices.recv_timeout(PATIENCE).expect("the server tells of it");
            if wanted(&notice) {
                return notice;
            }
        }
    }

    /// A client is served as if nothing had been. It gives back what its device says of keys.
    pub fn is_sane(&self) -> u8 {
        let mut client = self.attach();
        assert_eq!(client.read(CONFIG, 0, 4), Ok(vec![0x34, 0x12, 0x17, 0xc4]), "vendor and device");
        assert_eq!(client.read(BAR0, 0, 4), Ok(b"CRNC".to_vec()), "magic");
        assert_eq!(client.read(CONFIG, COMMAND, 2), Ok(vec![0, 0]), "no bus master");
        let status = client.read(BAR0, DEVICE_STATUS, 4).expect("a register");
        assert_ne!(status[0] & KEYS_ZEROISED, 0);
        status[0]
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

/// An answer: identifier, command, flags, errno, payload.
pub type Answer = (u16, u16, u32, u32, Vec<u8>);

/// A client's end of the socket.
pub struct Raw {
    pub stream: UnixStream,
    pub next: u16,
}

pub fn header(id: u16, command: u16, bytes: u32, flags: u32) -> Vec<u8> {
    [&id.to_ne_bytes()[..], &command.to_ne_bytes(), &bytes.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]]
        .concat()
}

pub fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

pub fn longs(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

impl Raw {
    pub fn agree(&mut self) {
        let payload = [&[0, 0, 1, 0][..], b"{\"capabilities\":{\"max_msg_fds\":1}}\0"].concat();
        let answer = self.ask(VERSION, &payload, &[]).expect("the version is known");
        assert_eq!(answer[..4], [0, 0, 1, 0], "version 0.1");
    }

    /// Sends bytes as they are, with files at their beginning.
    pub fn send(&mut self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        let mut left = &bytes[sent..];
        while !left.is_empty() {
            let mut none = SendAncillaryBuffer::default();
            let sent = sendmsg(&self.stream, &[IoSlice::new(left)], &mut none, SendFlags::NOSIGNAL)?;
            left = &left[sent..];
        }
        Ok(())
    }

    /// Sends a command; gives its identifier.
    pub fn command(&mut self, command: u16, flags: u32, payload: &[u8], files: &[BorrowedFd<'_>]) -> u16 {
        let id = self.next;
        self.next = id.wrapping_add(1);
        let message = [header(id, command, 16 + payload.len() as u32, flags), payload.to_vec()].concat();
        self.send(&message, files).expect("the server takes it");
        id
    }

    /// The next answer; `None` when the server closed its end.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut header = [0; 16];
        let mut have = 0;
        while have < header.len() {
            match self.stream.read(&mut header[have..]) {
                Ok(0) => return None,
                Ok(bytes) => have += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the server neither answers nor closes: {error}"),
            }
        }
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four octets"));
        let mut payload = vec![0; word(4) as usize - 16];
        self.stream.read_exact(&mut payload).expect("an answer comes whole");
        Some((half(0), half(2), word(8), word(12), payload))
    }

    /// Sends a command and takes its answer: the payload, or the errno.
    pub fn ask(&mut self, command: u16, payload: &[u8], files: &[BorrowedFd<'_>]) -> Result<Vec<u8>, u32> {
        let sent = self.command(command, 0, payload, files);
        let (id, of, flags, errno, payload) = self.answer().expect("the server is there");
        assert_eq!((id, of), (sent, command));
        match flags {
            0x01 => Ok(payload),
            0x21 => {
                assert_ne!(errno, 0, "an error has a number");
                Err(errno)
            }
            other => panic!("flags {other:#x} in an answer"),
        }
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let asked = [longs(&[offset]), words(&[region, count])].concat();
        let answer = self.ask(REGION_READ, &asked, &[])?;
        assert_eq!(answer[..16], asked[..]);
        Ok(answer[16..].to_vec())
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), u32> {
        let asked = [longs(&[offset]), words(&[region, data.len() as u32])].concat();
        let answer = self.ask(REGION_WRITE, &[&asked, data].concat(), &[])?;
        assert_eq!(answer, asked);
        Ok(())
    }

    pub fn map(
        &mut self,
        file: Option<&File>,
        offset: u64,
        iova: u64,
        bytes: u64,
        flags: u32,
    ) -> Result<(), u32> {
        let files: Vec<BorrowedFd<'_>> = file.into_iter().map(AsFd::as_fd).collect();
        let answer = self.ask(DMA_MAP, &map_payload(offset, iova, bytes, flags), &files)?;
        assert!(answer.is_empty());
        Ok(())
    }

    pub fn unmap(&mut self, iova: u64, bytes: u64, flags: u32) -> Result<(), u32> {
        let asked = [words(&[24, flags]), longs(&[iova, bytes])].concat();
        assert_eq!(self.ask(DMA_UNMAP, &asked, &[])?, asked);
        Ok(())
    }

    /// Sets interrupts: `flags` as in linux/vfio.h.
    pub fn set_irqs(
        &mut self,
        flags: u32,
        index: u32,
        start: u32,
        count: u32,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), u32> {
        self.ask(DEVICE_SET_IRQS, &words(&[20, flags, index, start, count]), files).map(drop)
    }
}

pub fn map_payload(offset: u64, iova: u64, bytes: u64, flags: u32) -> Vec<u8> {
    [words(&[32, flags]), longs(&[offset, iova, bytes])].concat()
}

/// How many descriptors this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}

/// Waits until as many are open: the server notices some time that a client is gone.
pub fn descriptors_become(wanted: usize) {
    let started = Instant::now();
    while descriptors() != wanted {
        assert!(started.elapsed() < PATIENCE, "{} descriptors instead of {wanted}", descriptors());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many mappings this process has of files with this in their name.
pub fn mappings_of(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc is mounted");
    maps.lines().filter(|line| line.contains(name)).count()
}

/// A memfd that may not be made shorter.
pub fn sealed(name: &str, bytes: u64) -> File {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&file, bytes).expect("as long as this");
    fcntl_add_seals(&file, SealFlags::SHRINK).expect("sealed");
    File::from(file)
}
