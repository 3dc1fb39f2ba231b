//! Files that a client hands over and that will not do.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::raw::*;

const PAGE: u64 = 4096;

fn memfd(bytes: u64, seals: SealFlags) -> File {
    let file = memfd_create("unfit", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&file, bytes).expect("as long as this");
    fcntl_add_seals(&file, seals).expect("sealed");
    File::from(file)
}

fn read_only(file: &File) -> File {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("opened again").into()
}

/// None of these may be mapped: the server would have nothing to write to, or end by an access to what is not there.
#[test]
fn memory_is_a_sealed_file_of_whole_pages_that_may_be_written() {
    let served = Served::start();
    let mut client = served.attach();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("regular");
    std::fs::write(&path, vec![0; 4 * PAGE as usize]).expect("written");
    let regular = File::options().read(true).write(true).open(&path).expect("opened");
    let (pipe, _write) = std::io::pipe().expect("a pipe");
    let shrink = SealFlags::SHRINK;
    let before = descriptors();
    for (what, file) in [
        ("a regular file", regular),
        ("a file that may be cut off", memfd(4 * PAGE, SealFlags::empty())),
        ("one sealed against growth alone", memfd(4 * PAGE, SealFlags::GROW)),
        ("one too short", memfd(PAGE, shrink)),
        ("one of no bytes", memfd(0, shrink)),
        ("one of broken pages", memfd(4 * PAGE + 1, shrink)),
        ("one that may not be written", memfd(4 * PAGE, shrink | SealFlags::WRITE)),
        ("one opened to read", read_only(&memfd(4 * PAGE, shrink))),
        ("one that would fill all addresses", memfd(1 << 46, shrink)),
        ("an eventfd", File::from(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"))),
        ("a pipe", File::from(OwnedFd::from(pipe))),
        ("a socket", File::from(OwnedFd::from(std::os::unix::net::UnixStream::pair().expect("a pair").0))),
        ("a directory", File::open(directory.path()).expect("opened")),
        ("a device", File::options().read(true).write(true).open("/dev/null").expect("opened")),
    ] {
        assert_eq!(client.map(Some(&file), 0, 0x10_0000, 4 * PAGE, 3), Err(EINVAL), "{what}");
        assert_eq!(mappings_of("/memfd:unfit"), 0, "{what}");
    }
    assert!(descriptors() < before, "those of this test are closed, and the server has none of them");
    served_is_clean(&served, client);
}

/// A file that grows after it was mapped is as long as it was.
#[test]
fn a_file_that_grows_is_mapped_no_further() {
    let served = Served::start();
    let mut client = served.attach();
    let file = memfd(2 * PAGE, SealFlags::SHRINK);
    client.map(Some(&file), 0, 0x10_0000, 2 * PAGE, 3).expect("mapped");
    ftruncate(&file, 8 * PAGE).expect("grown");
    assert_eq!(client.map(Some(&file), 4 * PAGE, 0x20_0000, PAGE, 3), Err(EINVAL));
    client.map(Some(&file), PAGE, 0x20_0000, PAGE, 3).expect("what was there before");
    served_is_clean(&served, client);
}

#[test]
fn interrupts_go_to_eventfds_alone() {
    let served = Served::start();
    let mut client = served.attach();
    let (_read, pipe) = std::io::pipe().expect("a pipe");
    let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
    let directory = tempfile::tempdir().expect("a directory");
    // A name as an eventfd's is no eventfd.
    let path = directory.path().join("anon_inode:[eventfd]");
    let named = File::create(path).expect("a file");
    for file in
        [OwnedFd::from(memfd(PAGE, SealFlags::SHRINK)), pipe.into(), OwnedFd::from(one), OwnedFd::from(named)]
    {
        // Beside one that would do: none of both is taken.
        let files = [eventfd.as_fd(), file.as_fd()];
        assert_eq!(client.set_irqs(1 << 5 | 1 << 2, MSIX, 0, 2, &files), Err(EINVAL));
    }
    client.set_irqs(1 << 5 | 1, MSIX, 0, 1, &[]).expect("sent to nobody");
    assert!(!is_counted(&eventfd));
    served_is_clean(&served, client);
}

/// Whether anything is counted.
fn is_counted(file: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&now)).expect("polled") > 0
}

/// A counter that cannot be added to would stop whoever writes to it.
#[test]
fn an_eventfd_that_is_full_stops_nobody() {
    let served = Served::start();
    let mut client = served.attach();
    let full = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd that blocks");
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).expect("filled");
    client.set_irqs(1 << 5 | 1 << 2, MSIX, 0, 1, &[full.as_fd()]).expect("set");
    for _ in 0..3 {
        client.set_irqs(1 << 5 | 1, MSIX, 0, 1, &[]).expect("sent");
    }
    assert_eq!(client.read(BAR0, 0, 4), Ok(b"CRNC".to_vec()));
    served_is_clean(&served, client);
}

/// More files than a message may have end the connection; what the kernel cut off is not taken for a message without.
#[test]
fn more_than_sixteen_files_end_the_connection() {
    let served = Served::start();
    let file = memfd(PAGE, SealFlags::SHRINK);
    let before = descriptors();
    let mut client = served.attach();
    client.command(DMA_MAP, 0, &map_payload(0, 0x1000, PAGE, 3), &[file.as_fd(); 17]);
    assert_eq!(client.answer(), None);
    drop(client);
    served.is_sane();
    let mut client = served.attach();
    // Sixteen are a message, and one too many for a mapping.
    let payload = map_payload(0, 0x1000, PAGE, 3);
    assert_eq!(client.ask(DMA_MAP, &payload, &[file.as_fd(); 16]), Err(EINVAL));
    // Files beside any command are closed.
    assert!(client.ask(DEVICE_GET_INFO, &words(&[16, 0, 0, 0]), &[file.as_fd(); 16]).is_ok());
    drop(client);
    served.is_sane();
    descriptors_become(before);
    assert_eq!(mappings_of("/memfd:unfit"), 0);
}

/// When the client is gone nothing of it is left.
fn served_is_clean(served: &Served, client: Raw) {
    assert!(Path::new(&served.path).exists());
    drop(client);
    served.is_sane();
    assert_eq!(mappings_of("/memfd:unfit"), 0);
}
