//! What the device must not reach: it is told of addresses that are not its own, and has to say that it was refused.
//!
//! An IOMMU that translates nothing would let these accesses through, and nothing else here would notice.

use cryptonic::device::DeviceName;
use cryptonic_driver::{Nic, Status};
use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER};
use cryptonic_pci::{Bar, DmaAccess, Host, SharedMemory};
use cryptonic_regs::bar0::{self, DMA_FAULTS, QueueControl, QueueStatus};
use cryptonic_regs::completion::TransmitCompletion;
use cryptonic_regs::descriptor::{
    ReceiveControl, ReceiveDescriptor, Security, TransmitControl, TransmitDescriptor, TransmitExtent,
};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, RECEIVE_DOORBELL, TRANSMIT_DOORBELL};

use super::rig::{Both, PATIENCE, open};
use super::stage;

pub const STAGES: &[&str] = &[
    "DMA of mapped memory",
    "DMA of an address that was never mapped",
    "DMA after the end of a mapping",
    "DMA of physical memory",
    "DMA over the end of a mapping",
    "writes to memory that may only be read",
    "DMA without bus mastering",
    "a mapping twice, and an end twice, are refused",
];

/// Where the rings, the frame and the receive buffer are for the device.
const RINGS: u64 = 0x10_0000_0000;
const FRAME: u64 = 0x11_0000_0000;
const BUFFER: u64 = 0x12_0000_0000;
/// Nothing was ever mapped there.
const NOWHERE: u64 = 0x13_0000_0000;
/// Memory of the machine where its kernel may be, and memory where it is not.
const PHYSICAL: [u64; 3] = [0x10_0000, 0x100_0000, 0x1000_0000];
const PAGE: usize = 4096;
const FRAME_BYTES: usize = 60;
const BUFFER_BYTES: u32 = 2048;

/// Where in the memory of the rings each begins.
const TRANSMIT_COMPLETIONS: usize = 0x4000;
const RECEIVE_RING: usize = 0x8000;
const RECEIVE_COMPLETIONS: usize = 0xc000;
const RINGS_BYTES: usize = 0x1_0000;
const SLOTS_LOG2: u8 = 4;
/// Frames that no rule steers are the first queue pair's.
const QUEUE: u32 = 0;

pub fn run(device: &DeviceName) {
    let bodies: [fn(&mut Raw); STAGES.len()] = [
        mapped,
        unmapped,
        after_unmap,
        physical,
        over_the_end,
        read_only,
        without_bus_mastering,
        mapped_twice,
    ];
    for (name, body) in STAGES.iter().zip(bodies) {
        stage(name, || {
            let mut raw = Raw::new(device);
            body(&mut raw);
            raw.nic.close().expect("the device closes");
        });
    }
}

/// A queue pair in loopback that no driver watches over.
struct Raw {
    nic: Nic,
    host: Both,
    rings: SharedMemory,
    frame: SharedMemory,
    buffer: SharedMemory,
    sent: u32,
}

impl Raw {
    fn new(device: &DeviceName) -> Raw {
        let (mut nic, host) = open(device, false);
        nic.set_mac_loopback(true).expect("the device has a loopback");
        let memory = |bytes| SharedMemory::new(bytes).expect("memory");
        let (rings, frame, buffer) = (memory(RINGS_BYTES), memory(PAGE), memory(PAGE));
        host.dma_map(&rings, RINGS, DmaAccess::DeviceReadsAndWrites).expect("mapped");
        host.dma_map(&frame, FRAME, DmaAccess::DeviceReads).expect("mapped");
        host.dma_map(&buffer, BUFFER, DmaAccess::DeviceReadsAndWrites).expect("mapped");
        let bytes: Vec<u8> = (0..PAGE).map(|index| index as u8 | 1).collect();
        frame.write(0, &bytes).expect("in range");
        let raw = Raw { nic, host, rings, frame, buffer, sent: 0 };
        raw.turn_on(RINGS);
        raw
    }

    fn turn_on(&self, rings: u64) {
        for (register, offset) in [
            (bar0::TRANSMIT_RING_BASE, 0),
            (bar0::TRANSMIT_COMPLETION_BASE, TRANSMIT_COMPLETIONS),
            (bar0::RECEIVE_RING_BASE, RECEIVE_RING),
            (bar0::RECEIVE_COMPLETION_BASE, RECEIVE_COMPLETIONS),
        ] {
            let register = register.offset + QUEUE * bar0::QUEUE_PAIR_STRIDE;
            self.host.write64(Bar::Bar0, register, rings + offset as u64).expect("a register");
        }
        let control = QueueControl::new()
            .with_enable(true)
            .with_transmit_clear_allowed(true)
            .with_transmit_stride_log2(5)
            .with_transmit_slots_log2(SLOTS_LOG2)
            .with_receive_slots_log2(SLOTS_LOG2);
        let register = bar0::QUEUE_CONTROL.offset + QUEUE * bar0::QUEUE_PAIR_STRIDE;
        self.host.write32(Bar::Bar0, register, control.into_bits()).expect("a register");
    }

    fn status(&self) -> QueueStatus {
        let register = bar0::QUEUE_STATUS.offset + QUEUE * bar0::QUEUE_PAIR_STRIDE;
        QueueStatus::from_bits(self.host.read32(Bar::Bar0, register).expect("a register"))
    }

    /// Has the device send the frame at an address; how that ended.
    fn send_from(&mut self, address: u64) -> Option<Status> {
        let control = TransmitControl::new()
            .with_length(FRAME_BYTES as u16)
            .with_security(Security::Clear.number() as u8)
            .with_report(true)
            .with_end_of_packet(true);
        let extent = TransmitExtent::new().with_total_length(FRAME_BYTES as u32);
        let words = TransmitDescriptor { address, control, security: 0, extent }.to_words();
        let slot = (self.sent % (1 << SLOTS_LOG2)) as usize;
        self.rings.write_words(slot * TransmitDescriptor::BYTES, &words).expect("in range");
        self.sent += 1;
        self.ring(TRANSMIT_DOORBELL.offset, self.sent);
        let place = TRANSMIT_COMPLETIONS + slot * TransmitCompletion::BYTES;
        let phase = (self.sent - 1) >> SLOTS_LOG2 & 1 == 0;
        self.wait_until(|raw| {
            let mut words = [0; TransmitCompletion::WORDS];
            raw.rings.read_words(place, &mut words).expect("in range");
            let completion = TransmitCompletion::of_words(&words);
            (completion.end.phase() == phase).then(|| Status::of_number(completion.end.status().into()))?
        })
    }

    /// Gives the device a receive buffer at an address.
    fn post(&self, address: u64) {
        let control = ReceiveControl::new().with_length(BUFFER_BYTES as u16);
        let words = ReceiveDescriptor { address, control }.to_words();
        self.rings.write_words(RECEIVE_RING, &words).expect("in range");
        self.ring(RECEIVE_DOORBELL.offset, 1);
    }

    fn ring(&self, doorbell: u32, producer: u32) {
        self.host.write32(Bar::Bar2, doorbell + QUEUE * DOORBELL_PAGE_BYTES, producer).expect("a doorbell");
    }

    fn wait_until<T>(&self, look: impl Fn(&Raw) -> Option<T>) -> Option<T> {
        let deadline = self.host.now() + PATIENCE;
        while self.host.now() < deadline {
            if let Some(found) = look(self) {
                return Some(found);
            }
            // The answer to a read comes behind all that the device wrote before it.
            self.status();
        }
        None
    }

    /// How often an IOMMU refused the device something.
    fn faults(&self) -> u64 {
        self.host.read64(Bar::Bar0, DMA_FAULTS.offset).expect("a register")
    }

    /// What the device sends from an address that is not its own ends with a fault, which is counted.
    fn is_refused(&mut self, address: u64) {
        let before = self.faults();
        assert_eq!(self.send_from(address), Some(Status::DmaFault), "{address:#x}");
        assert!(self.faults() > before, "{address:#x}: the fault is not counted");
        assert!(self.status().enabled(), "a packet's fault is not one of its queue pair");
    }

    fn received(&self) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_BYTES];
        self.buffer.read(0, &mut bytes).expect("in range");
        bytes
    }
}

fn mapped(raw: &mut Raw) {
    raw.post(BUFFER);
    assert_eq!(raw.send_from(FRAME), Some(Status::Ok));
    let mut sent = vec![0; FRAME_BYTES];
    raw.frame.read(0, &mut sent).expect("in range");
    raw.wait_until(|raw| (raw.received() == sent).then_some(())).expect("the frame comes back");
    assert_eq!(raw.faults(), 0);
}

fn unmapped(raw: &mut Raw) {
    for address in [NOWHERE, 0, u64::MAX - 0xfff] {
        raw.is_refused(address);
    }
    assert_eq!(raw.send_from(FRAME), Some(Status::Ok), "the queue pair goes on");
}

fn after_unmap(raw: &mut Raw) {
    assert_eq!(raw.send_from(FRAME), Some(Status::Ok));
    raw.host.dma_unmap(FRAME).expect("it was mapped");
    raw.is_refused(FRAME);
    raw.host.dma_map(&raw.frame, FRAME, DmaAccess::DeviceReads).expect("mapped anew");
    assert_eq!(raw.send_from(FRAME), Some(Status::Ok));
}

fn physical(raw: &mut Raw) {
    for address in PHYSICAL {
        raw.is_refused(address);
    }
}

fn over_the_end(raw: &mut Raw) {
    let end = FRAME + PAGE as u64;
    assert_eq!(raw.send_from(end - FRAME_BYTES as u64), Some(Status::Ok));
    raw.is_refused(end - FRAME_BYTES as u64 + 1);
}

/// The frame's memory may only be read: it cannot be a receive buffer.
fn read_only(raw: &mut Raw) {
    let read = |raw: &Raw| {
        let mut bytes = vec![0; PAGE];
        raw.frame.read(0, &mut bytes).expect("in range");
        bytes
    };
    let before = read(raw);
    raw.post(FRAME + BUFFER_BYTES as u64);
    raw.send_from(FRAME);
    let cause = raw.wait_until(|raw| raw.status().quarantined().then(|| raw.status().cause()));
    assert_eq!(cause.and_then(|cause| Status::of_number(cause.into())), Some(Status::ReceiveDmaFault));
    assert!(raw.faults() > 0);
    assert_eq!(read(raw), before, "not a byte was written");
}

fn without_bus_mastering(raw: &mut Raw) {
    let command = raw.host.config_read(COMMAND).expect("config space") & 0xffff;
    assert!(command & COMMAND_BUS_MASTER != 0);
    raw.host.config_write(COMMAND, command & !COMMAND_BUS_MASTER).expect("config space");
    raw.ring(TRANSMIT_DOORBELL.offset, 1);
    let cause = raw.wait_until(|raw| raw.status().quarantined().then(|| raw.status().cause()));
    assert_eq!(cause.and_then(|cause| Status::of_number(cause.into())), Some(Status::RingDmaFault));
    raw.host.config_write(COMMAND, command).expect("config space");
}

fn mapped_twice(raw: &mut Raw) {
    let error = raw.host.dma_map(&raw.buffer, FRAME, DmaAccess::DeviceReadsAndWrites);
    println!("{error:?}");
    assert!(error.is_err(), "an address is mapped once");
    assert_eq!(raw.send_from(FRAME), Some(Status::Ok), "what was mapped stays so");
    raw.host.dma_unmap(BUFFER).expect("it was mapped");
    assert!(raw.host.dma_unmap(BUFFER).is_err(), "a mapping ends once");
}
