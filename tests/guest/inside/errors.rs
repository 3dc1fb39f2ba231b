//! What happens to the device while it is in use, without a word from its driver: an error of its bus, a reset.

use std::fs::{self, OpenOptions};
use std::io::Write;

use cryptonic::device::DeviceName;
use cryptonic_driver::{
    Error, Protection, Quarantine, QueueError, QueuePairOptions, Status, Time, TransmitPacket, Wake,
};
use cryptonic_pci::{Bar, Host, HostError};
use cryptonic_regs::bar0::MAGIC;

use super::rig::{PATIENCE, Rig};
use super::stage;

pub const STAGES: &[&str] = &[
    "an error of the bus takes the device away, and it can be had again",
    "a reset by somebody else ends in an error, not in a crash",
];

/// The root port that the device is behind.
const PORT: [u8; 3] = [0, 5, 0];
/// Uncorrectable, and not fatal: a poisoned TLP was received (PCIe 6.2.7, table 6-5).
const POISONED_TLP: u32 = 1 << 12;

pub fn run(device: &DeviceName) {
    let bodies: [fn(&DeviceName); STAGES.len()] = [bus_error, foreign_reset];
    for (name, body) in STAGES.iter().zip(bodies) {
        stage(name, || body(device));
    }
}

fn bus_error(device: &DeviceName) {
    let mut rig = Rig::new(device, QueuePairOptions::new());
    while rig.queue.wait(rig.queue.time()).expect("it waits") == Wake::Interrupt {}
    inject(PORT, POISONED_TLP);
    assert_eq!(rig.queue.wait(rig.queue.time() + PATIENCE), Err(QueueError::Gone));
    assert_eq!(rig.host.read32(Bar::Bar0, MAGIC.offset), Err(HostError::Gone));
    assert!(matches!(rig.nic.device_status(), Err(Error::Gone)));
    drop(rig);
    works(device);
}

fn foreign_reset(device: &DeviceName) {
    let (DeviceName::Vfio(address) | DeviceName::VfioWithoutIommu(address)) = device else {
        panic!("{device} is not one of this machine")
    };
    let mut rig = Rig::new(device, QueuePairOptions::new());
    let frame = [0x55; 60];
    assert_eq!(rig.send(&[frame.to_vec()], Protection::Clear), [Status::Ok]);
    fs::write(format!("/sys/bus/pci/devices/{address}/reset"), "1").expect("root may do this");

    // The queue is off: what is given to it never ends, which the driver finds out and says.
    let mut buffer = rig.queue.take_buffer().expect("a buffer");
    rig.queue.fill(&mut buffer, &frame).expect("it fits");
    let mut batch =
        vec![TransmitPacket { report: true, ..TransmitPacket::new(buffer, Protection::Clear, 0) }];
    rig.queue.transmit(&mut batch).expect("it stands in the ring");
    let soon = rig.queue.time() + Time::from_milliseconds(200);
    let outcome = rig.queue.drain(soon, &mut Vec::new());
    assert_eq!(outcome, Err(QueueError::Quarantined(Quarantine::DeviceStopped)));
    // The device is there; its firmware does not hear this driver any more.
    assert!(rig.nic.device_status().expect("a register").firmware_running());
    assert!(matches!(rig.nic.statistics(), Err(Error::Deadline { .. })));
    drop(rig);
    works(device);
}

fn works(device: &DeviceName) {
    let mut rig = Rig::new(device, QueuePairOptions::new());
    assert_eq!(rig.send(&[vec![0xaa; 60]], Protection::Clear), [Status::Ok]);
    rig.receive(1);
    rig.close();
}

/// Has the kernel see an error of a function (Documentation/PCI/pcieaer-howto.rst, "Software error injection").
fn inject([bus, device, function]: [u8; 3], uncorrectable: u32) {
    // `struct aer_error_inj`: bus, device, function; status of uncorrectable and of correctable errors; four words of a
    // header; domain.
    let mut error = [0_u8; 32];
    error[..3].copy_from_slice(&[bus, device, function]);
    error[4..8].copy_from_slice(&uncorrectable.to_ne_bytes());
    // It makes no file that is not there.
    let mut file = OpenOptions::new().write(true).open("/dev/aer_inject").expect("the kernel has aer_inject");
    file.write_all(&error).expect("the port reports errors");
}
