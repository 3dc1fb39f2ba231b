//! A server that is honest up to one message, and then is not.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use cryptonic_driver::backend::vfio_user::{AttachError, VfioUser};
use cryptonic_driver::{Nic, Time};
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory};

/// How long the client waits for an answer here.
const PATIENCE: Duration = Duration::from_millis(300);
/// When a test has hung.
const HUNG: Duration = Duration::from_secs(60);
/// Messages of an attach: version, device, three regions, interrupts.
const ATTACH: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// An error with this errno.
    Errno(u32),
    /// A reply to another message than was sent.
    WrongIdentifier,
    /// A reply to another command.
    WrongCommand,
    /// A reply without its payload.
    Empty,
    /// A reply of which one byte is missing, then nothing more.
    Short,
    /// Half of a reply, then the end.
    Half,
    /// A reply that claims to have no end.
    Endless,
    /// A reply that claims to be shorter than its header.
    Tiny,
    HangUp,
    Silence,
    /// A command from the server, then the reply.
    CommandBefore,
    /// Commands from the server, and no reply ever.
    CommandsForEver,
    /// The reply, twice.
    Twice,
    /// A reply with this payload instead.
    Payload(&'static [u8]),
}

fn header(id: u16, command: u16, bytes: usize, flags: u32, errno: u32) -> Vec<u8> {
    let bytes = bytes as u32;
    [
        &id.to_ne_bytes()[..],
        &command.to_ne_bytes(),
        &bytes.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &errno.to_ne_bytes(),
    ]
    .concat()
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn whole(id: u16, command: u16, payload: &[u8]) -> Vec<u8> {
    [header(id, command, 16 + payload.len(), 1, 0), payload.to_vec()].concat()
}

/// What an honest server answers: a function whose BARs are large enough, and whose registers are 0.
fn honest(command: u16, payload: &[u8]) -> Vec<u8> {
    match command {
        1 => [&[0, 0, 1, 0][..], b"{\"capabilities\":{\"max_msg_fds\":8}}\0"].concat(),
        4 => words(&[16, 3, 9, 5]),
        5 => [words(&[32, 3, u32::from_ne_bytes(payload[8..12].try_into().expect("four octets")), 0]), {
            let sizes: [u64; 2] = [1 << 20, 0];
            sizes.iter().flat_map(|size| size.to_ne_bytes()).collect()
        }]
        .concat(),
        7 => words(&[16, 9, 2, 4]),
        9 => {
            let count = u32::from_ne_bytes(payload[12..16].try_into().expect("four octets"));
            [payload, &vec![0; count as usize]].concat()
        }
        3 => payload.to_vec(),
        _ => vec![],
    }
}

/// Reads a message; `None` at the end.
fn message(stream: &mut UnixStream) -> Option<(u16, u16, u32, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).ok()?;
    let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four octets"));
    let mut payload = vec![0; word(4) as usize - 16];
    stream.read_exact(&mut payload).ok()?;
    let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    Some((half(0), half(2), word(8), payload))
}

struct Served {
    path: PathBuf,
    /// Gives how many messages wanted a reply.
    thread: JoinHandle<usize>,
    _directory: tempfile::TempDir,
}

/// Serves one client, with a fault at the message of this number among those that want a reply.
fn serve(at: usize, fault: Fault) -> Served {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("device");
    let listener = UnixListener::bind(&path).expect("bound");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut count = 0;
        while let Some((id, command, flags, payload)) = message(&mut stream) {
            if flags & 1 << 4 != 0 {
                continue;
            }
            let answer = whole(id, command, &honest(command, &payload));
            let number = count;
            count += 1;
            // Who hung up or gave up reads no more.
            let _ = if number == at {
                misbehave(&mut stream, fault, id, command, &answer)
            } else {
                stream.write_all(&answer)
            };
        }
        count
    });
    Served { path, thread, _directory: directory }
}

fn misbehave(
    stream: &mut UnixStream,
    fault: Fault,
    id: u16,
    command: u16,
    answer: &[u8],
) -> std::io::Result<()> {
    // DMA_READ, which asks for memory of the client.
    let command_of_server = [header(77, 11, 32, 0, 0), vec![0; 16]].concat();
    match fault {
        Fault::Errno(errno) => stream.write_all(&header(id, command, 16, 0x21, errno)),
        Fault::WrongIdentifier => stream.write_all(&whole(id.wrapping_add(1), command, &answer[16..])),
        Fault::WrongCommand => stream.write_all(&whole(id, command + 1, &answer[16..])),
        Fault::Empty => stream.write_all(&whole(id, command, &[])),
        Fault::Short => stream.write_all(&answer[..answer.len() - 1]),
        Fault::Half => {
            stream.write_all(&answer[..answer.len() / 2])?;
            stream.shutdown(Shutdown::Both)
        }
        Fault::Endless => stream.write_all(&header(id, command, u32::MAX as usize, 1, 0)),
        Fault::Tiny => stream.write_all(&header(id, command, 15, 1, 0)),
        Fault::HangUp => stream.shutdown(Shutdown::Both),
        Fault::Silence => Ok(()),
        Fault::CommandBefore => {
            stream.write_all(&command_of_server)?;
            let (id, command, flags, _) = message(stream).expect("the client answers");
            assert_eq!((id, command, flags), (77, 11, 0x21), "it offers nothing");
            stream.write_all(answer)
        }
        Fault::CommandsForEver => {
            let mut read = stream.try_clone()?;
            let drain = std::thread::spawn(move || drop(read.read_to_end(&mut vec![])));
            while stream.write_all(&command_of_server).is_ok() {}
            drop(drain.join());
            Ok(())
        }
        Fault::Twice => {
            stream.write_all(answer)?;
            stream.write_all(answer)
        }
        Fault::Payload(payload) => stream.write_all(&whole(id, command, payload)),
    }
}

const EVERY: [Fault; 13] = [
    Fault::Errno(22),
    Fault::Errno(0),
    Fault::Errno(u32::MAX),
    Fault::WrongIdentifier,
    Fault::WrongCommand,
    Fault::Empty,
    Fault::Short,
    Fault::Half,
    Fault::Endless,
    Fault::Tiny,
    Fault::HangUp,
    Fault::Silence,
    Fault::CommandsForEver,
];

/// Runs `work` in a thread, which has to end.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = channel();
    let thread = std::thread::spawn(move || drop(done.send(work())));
    match end.recv_timeout(HUNG) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it panicked"))
        }
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

fn attach(path: &Path) -> Result<VfioUser, AttachError> {
    VfioUser::attach(path, PATIENCE)
}

#[test]
fn whatever_goes_wrong_while_attaching_is_an_error() {
    for at in 0..ATTACH {
        for fault in EVERY {
            let error = ends(move || {
                let served = serve(at, fault);
                let outcome = attach(&served.path).map(drop);
                // The client is gone, whatever happened.
                served.thread.join().expect("the server ends");
                outcome.expect_err("no device")
            });
            let text = error.to_string();
            match (fault, at) {
                (Fault::Errno(_), _) => assert!(text.contains("refuses command"), "{at} {fault:?} {text}"),
                (Fault::Empty, _) => assert!(text.contains("makes no sense"), "{at} {fault:?} {text}"),
                (Fault::Short | Fault::Silence | Fault::CommandsForEver, 0) => {
                    assert!(text.contains("did not answer in 300 ms"), "{at} {fault:?} {text}");
                }
                _ => assert!(matches!(error, AttachError::Host(HostError::Gone)), "{at} {fault:?} {text}"),
            }
        }
    }
}

#[test]
fn a_server_of_another_version_is_refused() {
    for (payload, wanted) in [
        (&[0, 0, 2, 0, b'{', b'}', 0][..], "speaks vfio-user 0.2"),
        (&[1, 0, 0, 0, b'{', b'}', 0], "speaks vfio-user 1.0"),
        (&[0, 0, 1], "makes no sense"),
    ] {
        let served = serve(0, Fault::Payload(payload));
        let error = attach(&served.path).err().expect("no device").to_string();
        assert!(error.contains(wanted), "{error}");
    }
    // What it says of itself may be no JSON, or none of ours: the least is taken for granted.
    for payload in [
        &[0, 0, 0, 0][..],
        &[0, 0, 1, 0, 0xff, 0xfe],
        b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":\"many\"}}\0",
    ] {
        let served = serve(0, Fault::Payload(payload));
        let client = attach(&served.path).expect("a device");
        client.interrupts_enable(2).expect("one a message");
        drop(client);
        assert_eq!(served.thread.join().expect("the server ends"), ATTACH + 3, "all off, and two vectors");
    }
}

/// A device's answers may be nonsense of the right size.
#[test]
fn sizes_that_no_device_has_are_refused_or_do_no_harm() {
    for (at, payload, wanted) in [
        (1, words(&[16, 1, 9, 5]), "not a PCI function with a reset"),
        (1, words(&[16, 2, 9, 5]), "not a PCI function with a reset"),
        (1, words(&[16, 3, 7, 5]), "not a PCI function with a reset"),
        (1, words(&[16, 3, 9, 2]), "not a PCI function with a reset"),
        (2, words(&[32, 3, 0, 0, 0x100, 0, 0, 0]), "Bar0"),
        (3, words(&[32, 3, 2, 0, 0, 0, 0, 0]), "Bar2"),
    ] {
        let served = serve(at, Fault::Payload(payload.leak()));
        let error = attach(&served.path).err().expect("no device").to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let served = serve(2, Fault::Payload(words(&[32, 3, 0, 0, u32::MAX, u32::MAX, 0, 0]).leak()));
    let client = attach(&served.path).expect("a large device");
    assert_eq!(client.read32(Bar::Bar0, u32::MAX - 3), Ok(0));
    let served = serve(5, Fault::Payload(words(&[16, 9, 2, u32::MAX]).leak()));
    let client = attach(&served.path).expect("many vectors");
    client.interrupts_enable(20).expect("in messages of eight");
}

/// Each operation that wants an answer, with each fault.
#[test]
fn whatever_goes_wrong_later_is_an_error_of_the_operation() {
    type Operation = fn(&VfioUser) -> Result<(), HostError>;
    let operations: [(&str, Operation); 6] = [
        ("read32", |client| client.read32(Bar::Bar0, 0).map(drop)),
        ("config_read", |client| client.config_read(0).map(drop)),
        ("reset", |client| client.reset()),
        ("interrupts_enable", |client| client.interrupts_enable(1)),
        ("dma_map", |client| {
            client.dma_map(&SharedMemory::new(4096).expect("memory"), 0x1000, DmaAccess::DeviceReads)
        }),
        ("dma_unmap", |client| {
            client.dma_map(&SharedMemory::new(4096).expect("memory"), 0x1000, DmaAccess::DeviceReads)?;
            client.dma_unmap(0x1000)
        }),
    ];
    for (name, operation) in operations {
        let at = if name == "dma_unmap" { ATTACH + 1 } else { ATTACH };
        for fault in EVERY {
            let (outcome, next) = ends(move || {
                let served = serve(at, fault);
                let client = attach(&served.path).expect("a device");
                let outcome = operation(&client);
                let next = client.read32(Bar::Bar0, 0);
                drop(client);
                served.thread.join().expect("the server ends");
                (outcome, next)
            });
            match fault {
                Fault::Errno(_) => {
                    let refused = match name {
                        "dma_map" => matches!(outcome, Err(HostError::Map { iova: 0x1000, .. })),
                        _ => matches!(outcome, Err(HostError::Refused { .. })),
                    };
                    assert!(refused, "{name} {fault:?} {outcome:?}");
                    assert_eq!(next, Ok(0), "it goes on");
                }
                // What has no payload, or none that is looked at, misses none.
                Fault::Empty if !name.contains("read") => {
                    assert_eq!((outcome, next), (Ok(()), Ok(0)), "{name}")
                }
                _ => {
                    assert_eq!(outcome, Err(HostError::Gone), "{name} {fault:?}");
                    assert_eq!(next, Err(HostError::Gone), "{name} {fault:?}: no way back");
                }
            }
        }
    }
}

#[test]
fn a_command_of_the_server_is_refused_and_the_answer_behind_it_taken() {
    let served = serve(ATTACH, Fault::CommandBefore);
    let client = attach(&served.path).expect("a device");
    assert_eq!(client.read32(Bar::Bar0, 0), Ok(0));
    assert_eq!(client.read32(Bar::Bar0, 0), Ok(0));
    let served = serve(ATTACH, Fault::Twice);
    let client = attach(&served.path).expect("a device");
    assert_eq!(client.read32(Bar::Bar0, 0), Ok(0));
    assert_eq!(client.read32(Bar::Bar0, 0), Err(HostError::Gone), "an answer that nobody asked for");
}

#[test]
fn a_hang_up_wakes_who_waits() {
    for how in [Shutdown::Both, Shutdown::Write] {
        ends(move || {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("device");
            let listener = UnixListener::bind(&path).expect("bound");
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                for _ in 0..ATTACH + 2 {
                    let (id, command, _, payload) = message(&mut stream).expect("a command");
                    stream.write_all(&whole(id, command, &honest(command, &payload))).expect("taken");
                }
                std::thread::sleep(Duration::from_millis(100));
                stream.shutdown(how).expect("shut");
                message(&mut stream)
            });
            let client = attach(&path).expect("a device");
            client.interrupts_enable(1).expect("enabled");
            assert_eq!(client.wait(0, Time::NEVER), Err(HostError::Gone));
            assert_eq!(client.wait(0, client.now()), Ok(cryptonic_driver::Wake::Deadline));
            assert_eq!(client.write32(Bar::Bar0, 0, 0), Err(HostError::Gone));
            drop(client);
            server.join().expect("the server ends");
        });
    }
}

/// A server that takes nothing any more: posted writes fill the socket, and the patience ends.
#[test]
fn a_server_that_takes_nothing_is_gone() {
    ends(|| {
        let served = serve(usize::MAX, Fault::Silence);
        let client = attach(&served.path).expect("a device");
        assert_eq!(client.read32(Bar::Bar0, 0), Ok(0));
        drop((client, served));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("device");
        let listener = UnixListener::bind(&path).expect("bound");
        let error = attach(&path).err().expect("nobody accepts");
        assert!(matches!(error, AttachError::Silent { .. }), "{error}");
        drop(listener);
        let error = attach(&path).err().expect("nobody listens").to_string();
        assert!(error.contains("no vfio-user server answers"), "{error}");
    });
}

/// The driver above it: an open that fails at any message leaves nothing behind, and is an error.
#[test]
fn a_driver_on_such_a_server_fails_in_order() {
    for at in ATTACH..ATTACH + 12 {
        for fault in [Fault::HangUp, Fault::Errno(5), Fault::WrongIdentifier] {
            ends(move || {
                let served = serve(at, fault);
                let client = attach(&served.path).expect("a device");
                let outcome = Nic::open(Box::new(client), cryptonic_driver::OpenOptions::default());
                assert!(outcome.is_err(), "its magic number is 0, if nothing else");
                drop(outcome);
                served.thread.join().expect("the server ends");
            });
        }
    }
}
