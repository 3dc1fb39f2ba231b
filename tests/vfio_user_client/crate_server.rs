//! A small device behind the server of the crate `vfio_user`. That server takes one file a message, and answers a posted
//! command that failed (version 0.1.7).

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cryptonic_driver::backend::vfio_user::{AttachError, VfioUser};
use cryptonic_driver::{Time, Wake};
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory};
use vfio_bindings::bindings::vfio::vfio_region_info;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

const PATIENCE: Duration = Duration::from_secs(30);
const BAR_BYTES: [u64; 9] = [0x1_0000, 0, 0x1000, 0, 0x1000, 0, 0, 4096, 0];
const VECTORS: u32 = 5;
/// What the device refuses.
const BAD_OFFSET: u64 = 0x40;
const BAD_IOVA: u64 = 0xbad_000;

/// What the device was asked for, and what it has.
#[derive(Default)]
struct State {
    calls: Vec<String>,
    regions: Vec<Vec<u8>>,
    vectors: Vec<Option<File>>,
    refuses_reset: bool,
}

#[derive(Clone, Default)]
struct Device(Arc<Mutex<State>>);

impl Device {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("nobody panicked"))
    }

    fn calls(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.calls))
    }
}

fn refused() -> io::Error {
    io::Error::other("refused by the test")
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if offset == BAD_OFFSET {
            return Err(refused());
        }
        self.with(|state| {
            data.copy_from_slice(&state.regions[region as usize][offset as usize..][..data.len()]);
        });
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == BAD_OFFSET {
            return Err(refused());
        }
        self.with(|state| {
            state.calls.push(format!("write {region} {offset:#x} of {}", data.len()));
            state.regions[region as usize][offset as usize..][..data.len()].copy_from_slice(data);
        });
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        iova: u64,
        bytes: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        if iova == BAD_IOVA {
            return Err(refused());
        }
        let number = file.expect("memory has a file").metadata().expect("asked").ino();
        self.with(|state| {
            state.calls.push(format!("map {} {offset:#x} {iova:#x} {bytes:#x} of {number}", flags.bits()));
        });
        Ok(())
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, iova: u64, bytes: u64) -> io::Result<()> {
        self.with(|state| state.calls.push(format!("unmap {} {iova:#x} {bytes:#x}", flags.bits())));
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.with(|state| {
            state.calls.push("reset".to_owned());
            if state.refuses_reset { Err(refused()) } else { Ok(()) }
        })
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        files: Vec<File>,
    ) -> io::Result<()> {
        self.with(|state| {
            state.calls.push(format!("irqs {index} {flags:#x} {start} {count} files {}", files.len()));
            state.vectors.resize_with(VECTORS as usize, || None);
            for (vector, file) in files.into_iter().enumerate() {
                state.vectors[start as usize + vector] = Some(file);
            }
        });
        Ok(())
    }
}

struct Served {
    device: Device,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

/// Serves one client.
fn serve(resettable: bool, bytes: [u64; 9]) -> Served {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("device");
    let region = |(index, bytes): (usize, &u64)| ServerRegion {
        region_info: vfio_region_info {
            argsz: 32,
            flags: 3,
            index: index as u32,
            size: *bytes,
            ..Default::default()
        },
        sparse_areas: vec![],
        mmap_fd: None,
    };
    let regions = bytes.iter().enumerate().map(region).collect();
    let irq = |index| IrqInfo { index, flags: 1, count: if index == 2 { VECTORS } else { 0 } };
    let server = Server::new(&path, resettable, (0..5).map(irq).collect(), regions).expect("bound");
    let device = Device::default();
    device.with(|state| state.regions = bytes.iter().map(|bytes| vec![0; *bytes as usize]).collect());
    let mut backend = device.clone();
    let thread = std::thread::spawn(move || server.run(&mut backend).expect("its client closes in order"));
    Served { device, path, thread: Some(thread), _directory: directory }
}

impl Served {
    fn attach(&self) -> Result<VfioUser, AttachError> {
        VfioUser::attach(&self.path, PATIENCE)
    }

    /// The client is gone, so the server ends.
    fn ends(mut self) {
        self.thread.take().expect("it was started").join().expect("the server ends in order");
    }
}

#[test]
fn registers_are_read_and_written_as_they_are() {
    let served = serve(true, BAR_BYTES);
    let client = served.attach().expect("it serves");
    served.device.with(|state| {
        state.regions[7][..4].copy_from_slice(&[0x34, 0x12, 0x17, 0xc4]);
        state.regions[0][8..16].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    });
    assert_eq!(client.config_read(0), Ok(0xc417_1234));
    assert_eq!(client.read32(Bar::Bar0, 8), Ok(0x0403_0201));
    assert_eq!(client.read64(Bar::Bar0, 8), Ok(0x0807_0605_0403_0201));
    client.config_write(4, 6).expect("posted");
    client.write32(Bar::Bar4, 0xffc, 0xa1b2_c3d4).expect("posted");
    client.push64(Bar::Bar2, 0x40 * 3, &[0x5a; 64]).expect("posted");
    // A read comes after the writes before it.
    assert_eq!(client.read32(Bar::Bar4, 0xffc), Ok(0xa1b2_c3d4));
    assert_eq!(served.device.calls(), ["write 7 0x4 of 4", "write 4 0xffc of 4", "write 2 0xc0 of 64"]);
    served.device.with(|state| assert_eq!(state.regions[2][0xc0..0x100], [0x5a; 64]));

    for (bar, offset) in
        [(Bar::Bar0, 0x1_0000), (Bar::Bar4, 0x1000), (Bar::Bar4, 2), (Bar::Bar0, u32::MAX - 3)]
    {
        assert_eq!(client.read32(bar, offset), Err(HostError::OutOfRange { bar, offset }));
        assert_eq!(client.write32(bar, offset, 0), Err(HostError::OutOfRange { bar, offset }));
    }
    let late = client.push64(Bar::Bar2, 0xfc4, &[0; 64]);
    assert_eq!(late, Err(HostError::OutOfRange { bar: Bar::Bar2, offset: 0xfc4 }));
    assert!(served.device.calls().is_empty());
    drop(client);
    served.ends();
}

/// The server answers a posted write that failed, which nobody waits for; what is asked after it is answered as it should be.
#[test]
fn what_a_server_refuses_is_an_error_and_nothing_more() {
    let served = serve(true, BAR_BYTES);
    let client = served.attach().expect("it serves");
    let is_refused = |outcome: Result<(), HostError>| {
        let Err(HostError::Refused { reason }) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("refuses command") && reason.contains("does not say why"), "{reason}");
    };
    for _ in 0..3 {
        is_refused(client.read32(Bar::Bar0, BAD_OFFSET as u32).map(drop));
        client.write32(Bar::Bar0, BAD_OFFSET as u32, 1).expect("posted");
        client.write32(Bar::Bar0, BAD_OFFSET as u32, 1).expect("posted");
        client.write32(Bar::Bar0, 0x80, 7).expect("posted");
        assert_eq!(client.read32(Bar::Bar0, 0x80), Ok(7));
    }
    served.device.with(|state| state.refuses_reset = true);
    is_refused(client.reset());
    let memory = SharedMemory::new(4096).expect("memory");
    let refused = client.dma_map(&memory, BAD_IOVA, DmaAccess::DeviceReads);
    assert!(matches!(refused, Err(HostError::Map { iova: BAD_IOVA, .. })), "{refused:?}");
    served.device.calls();
    // What was not mapped is not unmapped either.
    let unmapped = client.dma_unmap(BAD_IOVA);
    assert!(matches!(unmapped, Err(HostError::Map { iova: BAD_IOVA, .. })), "{unmapped:?}");
    assert!(served.device.calls().is_empty());
    drop(client);
    served.ends();
}

#[test]
fn memory_travels_as_its_file_and_interrupts_as_eventfds() {
    let served = serve(true, BAR_BYTES);
    let client = served.attach().expect("it serves");
    let memory = SharedMemory::new(3 * 4096).expect("memory");
    let number = memory.file().metadata().expect("asked").ino();
    client.dma_map(&memory, 0x10_0000, DmaAccess::DeviceReads).expect("mapped");
    client.dma_map(&memory, 0x20_0000, DmaAccess::DeviceReadsAndWrites).expect("mapped");
    client.dma_unmap(0x10_0000).expect("unmapped");
    assert_eq!(
        served.device.calls(),
        [
            format!("map 1 0x0 0x100000 0x3000 of {number}"),
            format!("map 3 0x0 0x200000 0x3000 of {number}"),
            "unmap 0 0x100000 0x3000".to_owned(),
        ]
    );

    assert_eq!(
        client.wait(0, Time::NEVER),
        Err(HostError::Unsupported("an interrupt vector above its table"))
    );
    let most = client.interrupts_enable(VECTORS as u16 + 1);
    assert_eq!(most, Err(HostError::Unsupported("as many interrupt vectors")));
    client.interrupts_enable(3).expect("enabled");
    let calls = served.device.calls();
    // All off, then as many files a message as the server takes: one.
    assert_eq!(calls[0], "irqs 2 0x21 0 0 files 0");
    assert_eq!(calls[1..], [0, 1, 2].map(|vector| format!("irqs 2 0x24 {vector} 1 files 1")));
    let send = |vector: usize| {
        served.device.with(|state| {
            let mut file = state.vectors[vector].as_ref().expect("an eventfd");
            io::Write::write_all(&mut file, &1_u64.to_ne_bytes()).expect("counted");
        });
    };
    let soon = |client: &VfioUser| client.now() + Time::from_milliseconds(20);
    send(1);
    assert_eq!(client.wait(0, soon(&client)), Ok(Wake::Deadline));
    assert_eq!(client.wait(1, Time::NEVER), Ok(Wake::Interrupt));
    assert_eq!(client.wait(1, soon(&client)), Ok(Wake::Deadline), "it was taken");
    send(2);
    client.reset().expect("reset");
    assert_eq!(client.wait(2, soon(&client)), Ok(Wake::Deadline), "an interrupt of before is none of after");
    drop(client);
    served.ends();
}

#[test]
fn a_device_that_will_not_do_is_refused() {
    let served = serve(false, BAR_BYTES);
    assert!(matches!(served.attach(), Err(AttachError::NotPci)));
    served.ends();
    for (bar, index) in [(Bar::Bar0, 0), (Bar::Bar2, 2)] {
        let mut small = BAR_BYTES;
        small[index] = 0x800;
        let served = serve(true, small);
        let outcome = served.attach().err();
        let Some(AttachError::BarTooSmall { bar: found, bytes: 0x800, .. }) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(found, bar);
        served.ends();
    }
}
