//! The device is taken away while it is in use, and put back.

use std::fs;
use std::path::PathBuf;
use std::thread;

use cryptonic::device::DeviceName;
use cryptonic_driver::{Error, QueueError, QueuePairOptions};
use cryptonic_pci::{Bar, Host, HostError};
use cryptonic_regs::bar0::MAGIC;

use super::rig::{PATIENCE, Rig};
use super::stage;

pub const STAGES: &[&str] = &["a device that is taken away is gone, and its driver lets go"];

pub fn run(device: &DeviceName) {
    for name in STAGES {
        stage(name, || taken_away(device));
    }
}

fn taken_away(device: &DeviceName) {
    let (DeviceName::Vfio(address) | DeviceName::VfioWithoutIommu(address)) = device else {
        panic!("{device} cannot be taken away")
    };
    let folder = PathBuf::from(format!("/sys/bus/pci/devices/{address}"));
    let mut rig = Rig::new(device, QueuePairOptions::new());
    // What the rings announced while they were set up is not waited for.
    while rig.queue.wait(rig.queue.time()).expect("it waits") == cryptonic_driver::Wake::Interrupt {}

    // The kernel does not come back from this before the device was let go.
    let remove = folder.join("remove");
    let kernel = thread::spawn(move || fs::write(remove, "1"));
    assert_eq!(rig.queue.wait(rig.queue.time() + PATIENCE), Err(QueueError::Gone));
    assert_eq!(rig.host.read32(Bar::Bar0, MAGIC.offset), Err(HostError::Gone));
    assert!(matches!(rig.nic.device_status(), Err(Error::Gone)));
    assert!(folder.exists(), "it waits for us");
    drop(rig);
    kernel.join().expect("no panic").expect("root may do this");
    assert!(!folder.exists(), "it is gone");

    fs::write("/sys/bus/pci/rescan", "1").expect("root may do this");
    assert!(folder.exists(), "it is back");
}
