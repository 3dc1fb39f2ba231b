//! A NIC in MAC loopback with one queue pair, and its host side for what a driver would not do.

use std::io;
use std::rc::Rc;

use cryptonic::device::{self, DeviceName};
use cryptonic_driver::{
    Nic, OpenOptions, Protection, QueuePair, QueuePairOptions, Received, Status, Time, TransmitPacket,
};
use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory, Work};
use cryptonic_regs::bar0::{CONTROL, Control};

/// How long anything may take: the machine is emulated and may be busy.
pub const PATIENCE: Time = Time::from_milliseconds(10_000);

/// A NIC whose frames come back to it.
pub struct Rig {
    pub nic: Nic,
    pub queue: QueuePair,
    pub host: Both,
}

impl Rig {
    pub fn new(device: &DeviceName, options: QueuePairOptions) -> Rig {
        Rig::with(device, options, OpenOptions::default().shadow_doorbells)
    }

    /// With doorbells in host memory, or with registers alone, which a pushed descriptor needs.
    pub fn with(device: &DeviceName, options: QueuePairOptions, shadow_doorbells: bool) -> Rig {
        let (mut nic, host) = open(device, shadow_doorbells);
        nic.set_mac_loopback(true).expect("the device has a loopback");
        let options = QueuePairOptions { clear_allowed: true, buffer_bytes: 16_384, ..options };
        let queue = nic.create_queue_pair(options).expect("a queue pair");
        Rig { nic, queue, host }
    }

    /// Sends frames, protected alike; gives how each ended.
    pub fn send(&mut self, frames: &[Vec<u8>], protection: Protection) -> Vec<Status> {
        let mut batch = Vec::new();
        for frame in frames {
            let mut buffer = self.queue.take_buffer().expect("a buffer");
            self.queue.fill(&mut buffer, frame).expect("it fits");
            batch.push(TransmitPacket { report: true, ..TransmitPacket::new(buffer, protection, 0) });
        }
        let mut ended = Vec::new();
        while !batch.is_empty() {
            self.queue.transmit(&mut batch).expect("transmitted");
        }
        self.queue.drain(self.queue.time() + PATIENCE, &mut ended).expect("all of them end");
        ended.iter().map(|ended| ended.status).collect()
    }

    /// Takes so many frames from the receive ring, in order.
    pub fn receive(&mut self, count: usize) -> Vec<(Received, Vec<u8>)> {
        let deadline = self.queue.time() + PATIENCE;
        let mut received = Vec::new();
        while received.len() < count {
            let wanted = count - received.len();
            if self.queue.receive(&mut received, wanted).expect("received") == 0 {
                assert!(self.queue.time() < deadline, "{} of {count} frames came", received.len());
                self.queue.relax();
            }
        }
        received
            .into_iter()
            .map(|one| {
                let mut frame = vec![0; one.length()];
                self.queue.read(&one, 0, &mut frame).expect("in range");
                (one, frame)
            })
            .collect()
    }

    /// Sends a frame and takes what comes back.
    pub fn there_and_back(&mut self, frame: &[u8], protection: Protection) -> (Received, Vec<u8>) {
        assert_eq!(self.send(&[frame.to_vec()], protection), [Status::Ok]);
        self.receive(1).pop().expect("one")
    }

    pub fn give_back(&mut self, received: Received) {
        self.queue.return_buffer(received).expect("it goes back");
    }

    /// Has protected packets that no SA takes come up as they are.
    pub fn unmatched_to_host(&self) {
        let control = self.host.read32(Bar::Bar0, CONTROL.offset).expect("a register");
        let control = Control::from_bits(control).with_unmatched_to_host(true);
        self.host.write32(Bar::Bar0, CONTROL.offset, control.into_bits()).expect("a register");
    }

    pub fn close(self) {
        self.queue.close().expect("the queue pair closes");
        self.nic.close().expect("the device closes");
    }
}

/// Opens a device, and keeps its host side too.
pub fn open(device: &DeviceName, shadow_doorbells: bool) -> (Nic, Both) {
    let host = Both(Rc::from(device::host(device).unwrap_or_else(|error| panic!("{error}"))));
    let nic = Nic::open(Box::new(host.clone()), OpenOptions { shadow_doorbells, ..device::patient() })
        .expect("the device opens");
    (nic, host)
}

/// A host side that two have.
#[derive(Clone)]
pub struct Both(Rc<dyn Host>);

impl Host for Both {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        self.0.config_read(offset)
    }
    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        self.0.config_write(offset, value)
    }
    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        self.0.read32(bar, offset)
    }
    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        self.0.write32(bar, offset, value)
    }
    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        self.0.push64(bar, offset, line)
    }
    fn memory(&self, bytes: usize) -> io::Result<SharedMemory> {
        self.0.memory(bytes)
    }
    fn address_of(&self, memory: &SharedMemory, wanted: u64) -> Result<u64, HostError> {
        self.0.address_of(memory, wanted)
    }
    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        self.0.dma_map(memory, iova, access)
    }
    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        self.0.dma_unmap(iova)
    }
    fn interrupts_enable(&self, vectors: u16) -> Result<(), HostError> {
        self.0.interrupts_enable(vectors)
    }
    fn now(&self) -> Time {
        self.0.now()
    }
    fn spend(&self, work: Work) {
        self.0.spend(work);
    }
    fn relax(&self) {
        self.0.relax();
    }
    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError> {
        self.0.wait(vector, deadline)
    }
    fn reset(&self) -> Result<(), HostError> {
        self.0.reset()
    }
}
