//! A small device to drive the driver with: it serves registers, the admin queue and the rings as the
//! contract says, and lies where a test tells it to. What is transmitted comes back to the same pair.
//! It works only while the host gives time away.

#![allow(dead_code)] // Every test binary uses its own part.

mod admin;
mod events;
mod rings;
mod shadow;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER};
use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory, Time, Work};
use cryptonic_regs::admin::{AdminCompletion, InstalledSa, LifetimeKind, SaParameters, SaStateReply};
use cryptonic_regs::bar0::{
    ADMIN_CONTROL, ADMIN_DOORBELL, ADMIN_STATUS, BLOCK_TABLE, BLOCK_TABLE_ENTRY_BYTES, BLOCK_TABLE_OFFSET,
    BLOCKS, BlockTable, CHAIN_CAPABILITY, CIPHER_CAPABILITY, CONTRACT_VERSION, ChainCapability,
    CipherCapability, ContractVersion, DESCRIPTOR_CAPABILITY, DEVICE_KIND, DEVICE_STATUS,
    DescriptorCapability, DeviceKind, DeviceStatus, FRAME_BYTES_MAX, LIFE_CAPABILITY, LINE_RATE_MBPS,
    LifeCapability, MAC_ADDRESS, MAGIC, MAGIC_VALUE, PROTOCOL_CAPABILITY, PSP_KEY_STATUS, ProtocolCapability,
    PspKeyStatus, QUEUE_CAPABILITY, QUEUE_CONTROL, QUEUE_PAIR, QUEUE_PAIR_STRIDE, QUEUE_STATUS,
    QueueCapability, QueueControl, QueueStatus, REPLAY_WINDOW_MAX, SA_PACKET_SLOTS, SA_SLOTS,
    SEGMENTED_BYTES_MAX, SERIAL,
};
use cryptonic_regs::completion::{ReceiveCompletion, TransmitCompletion};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, INTERRUPT_ARM, RECEIVE_DOORBELL, TRANSMIT_DOORBELL};
use cryptonic_regs::events::{EventCause, SlotState};
use cryptonic_regs::psp_policy::PSP_EPOCH;
use cryptonic_regs::shadow_doorbells::SHADOW_DOORBELL_CONTROL;
use cryptonic_regs::{CONTRACT_MAJOR, Register, Value};

pub const QUEUE_PAIRS: usize = 4;
pub const SA_SLOT_COUNT: u32 = 8;
/// Of them those that count packets.
pub const PACKET_SLOT_COUNT: u32 = 6;
/// SAs that one command installs.
pub const SA_BATCH: u8 = 4;
/// The longest chains that the device takes.
pub const TRANSMIT_CHAIN: u8 = 6;
pub const RECEIVE_CHAIN: u8 = 4;

type Hook<T> = Option<Box<dyn FnMut(&mut T)>>;

/// The device, and the lies it tells.
#[derive(Default)]
pub struct Device {
    pub registers: HashMap<u32, u32>,
    pub mappings: Vec<(u64, SharedMemory, DmaAccess)>,
    /// All memory that was ever mapped.
    pub all_memory: Vec<SharedMemory>,
    pub queues: [Queue; QUEUE_PAIRS],
    pub sas: HashMap<u32, Sa>,
    pub resets: u32,
    pub bus_master: bool,
    pub gone: bool,
    pub never_ready: bool,
    pub admin_silent: bool,
    /// Holds transmit descriptors back.
    pub hold: bool,
    /// What the next receive completions say beside what they must.
    pub extra: ReceiveExtra,
    pub lose_interrupts: bool,
    pub no_interrupts: bool,
    pub no_pushes: bool,
    pub accesses_refused: u32,
    /// The last words of parameter blocks that were read.
    pub parameters: Vec<Vec<u64>>,
    /// The last frames that were sent, with the words of their first descriptors.
    pub sent: Vec<(Vec<u64>, Vec<u8>)>,
    /// Where whole descriptors were pushed to, in the page of their queue pair.
    pub pushes: Vec<u32>,
    /// How many of them were used without a look at the ring.
    pub pushes_used: u32,
    pub keep_sent: bool,
    pub shadow: shadow::Shadow,
    /// Register reads.
    pub reads: u32,
    pub on_admin: Hook<AdminCompletion>,
    pub on_query: Hook<SaStateReply>,
    /// The reply to an installation, and the number of the SA in its command.
    pub on_installed: Hook<(u32, InstalledSa)>,
    pub on_transmit: Hook<TransmitCompletion>,
    pub on_receive: Hook<ReceiveCompletion>,
    admin_doorbell: u32,
    admin_done: u32,
    /// Which of the SAs of a command is refused.
    refused_record: u64,
    epoch: u64,
    pub events: events::Events,
    next_generation: u32,
    next_spi: u32,
    generation: u16,
    frame: Vec<u8>,
}

/// What a device says of received packets that this one does not look at.
#[derive(Clone, Copy, Default)]
pub struct ReceiveExtra {
    pub steering: u64,
    pub next_header: u8,
}

#[derive(Default)]
pub struct Queue {
    transmit_doorbell: u32,
    receive_doorbell: u32,
    pub transmit_rings: u32,
    pub receive_rings: u32,
    pub arm_rings: u32,
    arms: u32,
    transmit_done: u32,
    unreported: u16,
    transmit_completions: u32,
    receive_done: u32,
    receive_completions: u32,
    armed: bool,
    fired: bool,
    /// A descriptor that is being pushed, and one that was, with its position.
    window: Vec<u8>,
    pushed: Option<(u32, Vec<u64>)>,
}

#[derive(Clone)]
pub struct Sa {
    pub generation: u32,
    pub parameters: SaParameters,
    pub sequence: u64,
    pub packets: u64,
    pub bytes: u64,
    pub refused: u64,
    pub arming: u8,
    /// Sticky bits.
    pub causes: u16,
}

impl Sa {
    fn expired(&self) -> bool {
        self.causes & (1 << 2 | 1 << 4 | 1 << 6 | 1 << 7) != 0
    }

    fn state(&self) -> SlotState {
        match self.causes & (1 << 1 | 1 << 3) {
            _ if self.expired() => SlotState::Expired,
            0 => SlotState::Armed,
            _ => SlotState::Soft,
        }
    }

    fn at_hard_limit(&self) -> bool {
        let parameters = &self.parameters;
        !parameters.lifetime.no_hard_limit() && self.counted().0 >= parameters.hard_limit
    }

    /// What the limits are held against, with the causes of the soft and of the hard one.
    fn counted(&self) -> (u64, EventCause, EventCause) {
        if u32::from(self.parameters.lifetime.kind()) == LifetimeKind::Packets.number() {
            (self.packets, EventCause::SoftPackets, EventCause::HardPackets)
        } else {
            (self.bytes, EventCause::SoftBytes, EventCause::HardBytes)
        }
    }
}

/// The host side of a [`Device`]; clones are the same device.
#[derive(Clone, Default)]
pub struct Fake {
    pub device: Rc<RefCell<Device>>,
    now: Rc<Cell<Time>>,
}

impl Fake {
    pub fn new() -> Self {
        let fake = Fake::default();
        fake.device.borrow_mut().power_on();
        fake
    }

    pub fn host(&self) -> Box<dyn Host> {
        Box::new(self.clone())
    }

    pub fn set(&self, register: Register<u32>, value: u32) {
        self.device.borrow_mut().registers.insert(register.offset, value);
    }
}

impl Host for Fake {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        Ok(if offset == 0 { 0xc417_1234 } else { 0 })
    }

    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        if offset == COMMAND {
            self.device.borrow_mut().bus_master = value & COMMAND_BUS_MASTER != 0;
        }
        Ok(())
    }

    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        assert_eq!((bar, offset % 4), (Bar::Bar0, 0));
        self.now.set(self.now.get() + Time::from_nanoseconds(500));
        let mut device = self.device.borrow_mut();
        device.reads += 1;
        if device.gone {
            return Ok(u32::MAX);
        }
        if let Some(value) = device.read_event_register(offset) {
            return Ok(value);
        }
        Ok(device.registers.get(&offset).copied().unwrap_or(0))
    }

    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        self.device.borrow_mut().write(bar, offset, value);
        Ok(())
    }

    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        assert_eq!(bar, Bar::Bar2);
        let mut device = self.device.borrow_mut();
        if device.no_pushes {
            return Err(HostError::Unsupported("pushes"));
        }
        device.push(offset, line);
        Ok(())
    }

    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        let mut device = self.device.borrow_mut();
        for (start, other, _) in &device.mappings {
            let apart = iova + memory.bytes() as u64 <= *start || iova >= start + other.bytes() as u64;
            assert!(apart, "mappings overlap");
        }
        device.mappings.push((iova, memory.clone(), access));
        device.all_memory.push(memory.clone());
        Ok(())
    }

    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        self.device.borrow_mut().mappings.retain(|(start, ..)| *start != iova);
        Ok(())
    }

    fn interrupts_enable(&self, _: u16) -> Result<(), HostError> {
        if self.device.borrow().no_interrupts { Err(HostError::Unsupported("interrupts")) } else { Ok(()) }
    }

    fn now(&self) -> Time {
        self.now.get()
    }

    fn spend(&self, _: Work) {}

    fn relax(&self) {
        self.now.set(self.now.get() + Time::from_microseconds(1));
        self.device.borrow_mut().work();
    }

    fn wait(&self, _: u16, deadline: Time) -> Result<Wake, HostError> {
        while self.now() < deadline {
            self.relax();
            let mut device = self.device.borrow_mut();
            let lost = device.lose_interrupts;
            let events = std::mem::take(&mut device.events.fired);
            let fired =
                device.queues.iter_mut().fold(events, |any, queue| std::mem::take(&mut queue.fired) | any);
            if fired && !lost {
                return Ok(Wake::Interrupt);
            }
        }
        Ok(Wake::Deadline)
    }

    fn reset(&self) -> Result<(), HostError> {
        let mut device = self.device.borrow_mut();
        device.resets += 1;
        device.queues = Default::default();
        device.sas.clear();
        device.events = Default::default();
        device.write_shadow_register(SHADOW_DOORBELL_CONTROL.offset, 0);
        device.admin_doorbell = 0;
        device.admin_done = 0;
        device.bus_master = false;
        Ok(())
    }
}

impl Device {
    fn power_on(&mut self) {
        let mut set = |offset: u32, value: u32| self.registers.insert(offset, value);
        set(MAGIC.offset, MAGIC_VALUE);
        set(CONTRACT_VERSION.offset, ContractVersion::new().with_major(CONTRACT_MAJOR).into_bits());
        let table = BlockTable::new()
            .with_offset(BLOCK_TABLE_OFFSET as u16)
            .with_entries(BLOCKS.len() as u8)
            .with_entry_bytes(BLOCK_TABLE_ENTRY_BYTES as u8);
        set(BLOCK_TABLE.offset, table.into_bits());
        for (index, block) in BLOCKS.iter().enumerate() {
            let at = BLOCK_TABLE_OFFSET + index as u32 * BLOCK_TABLE_ENTRY_BYTES;
            set(at, u32::from(block.version) << 16 | u32::from(block.kind));
            set(at + 4, block.offset);
            set(at + 8, if block.name == QUEUE_PAIR.name { QUEUE_PAIRS as u32 } else { 1 });
            set(at + 12, block.stride);
        }
        set(DEVICE_KIND.offset, DeviceKind::new().with_kind(1).with_revision(7).into_bits());
        set(SERIAL.offset, 0x1234_5678);
        let queue = QueueCapability::new()
            .with_queue_pairs(QUEUE_PAIRS as u16)
            .with_ring_slots_log2_max(10)
            .with_vectors(QUEUE_PAIRS as u8 + 2);
        set(QUEUE_CAPABILITY.offset, queue.into_bits());
        let descriptor = DescriptorCapability::new()
            .with_stride_32(true)
            .with_stride_64(true)
            .with_stride_128(true)
            .with_inline_data(true)
            .with_push_windows(true)
            .with_scatter_gather(true)
            .with_segmentation(true)
            .with_checksums(true)
            .with_receive_scatter(true)
            .with_completion_coalescing(true)
            .with_interrupt_moderation(true)
            .with_receive_scaling(true)
            .with_psp_preformatted(true);
        set(DESCRIPTOR_CAPABILITY.offset, descriptor.into_bits());
        let chain = ChainCapability::new()
            .with_transmit_descriptors(TRANSMIT_CHAIN)
            .with_receive_buffers(RECEIVE_CHAIN)
            .with_clear_policies(4);
        set(CHAIN_CAPABILITY.offset, chain.into_bits());
        set(SEGMENTED_BYTES_MAX.offset, 65_600);
        let protocol = ProtocolCapability::new()
            .with_esp(true)
            .with_psp(true)
            .with_esp_tunnel(true)
            .with_esp_transport(true)
            .with_psp_transport(true)
            .with_esn(true)
            .with_mac_loopback(true)
            .with_psp_versions(0b0011)
            .with_psp_tunnel(true)
            .with_esp_beet(true)
            .with_implicit_iv(true)
            .with_udp_encapsulation(true)
            .with_traffic_flow_confidentiality(true)
            .with_selectors(true)
            .with_psp_slot(true)
            .with_psp_cookie(true);
        set(PROTOCOL_CAPABILITY.offset, protocol.into_bits());
        let cipher = CipherCapability::new().with_aes_gcm_128(true).with_aes_gcm_256(true).with_icv_16(true);
        set(CIPHER_CAPABILITY.offset, cipher.into_bits());
        set(SA_SLOTS.offset, SA_SLOT_COUNT);
        set(SA_PACKET_SLOTS.offset, PACKET_SLOT_COUNT);
        let life = LifeCapability::new()
            .with_events(true)
            .with_psp_rotation(true)
            .with_psp_capture(true)
            .with_psp_sampling(true)
            .with_sa_batch(SA_BATCH)
            .with_event_slots_log2_max(6);
        set(LIFE_CAPABILITY.offset, life.into_bits());
        set(REPLAY_WINDOW_MAX.offset, 1024);
        set(FRAME_BYTES_MAX.offset, 9600);
        set(LINE_RATE_MBPS.offset, 100_000);
        set(MAC_ADDRESS.offset, 0x4433_2202);
        set(MAC_ADDRESS.offset + 4, 0x6655);
        let status =
            DeviceStatus::new().with_ready(true).with_firmware_running(true).with_keys_zeroised(true);
        set(DEVICE_STATUS.offset, status.into_bits());
    }

    fn register<T: Value>(&self, register: Register<T>) -> T {
        let word = |offset| u64::from(self.registers.get(&offset).copied().unwrap_or(0));
        let high = if T::WIDTH_BITS == 64 { word(register.offset + 4) } else { 0 };
        T::of_bits(high << 32 | word(register.offset))
    }

    fn write(&mut self, bar: Bar, offset: u32, value: u32) {
        match bar {
            Bar::Bar0 => {
                if self.write_event_register(offset, value) {
                    return;
                }
                if offset == PSP_EPOCH.offset {
                    return self.write_epoch(value);
                }
                self.registers.insert(offset, value);
                self.write_shadow_register(offset, value);
                if offset == ADMIN_DOORBELL.offset {
                    self.admin_doorbell = value;
                }
                if offset == ADMIN_CONTROL.offset {
                    self.registers.insert(ADMIN_STATUS.offset, value & 1);
                }
                let first = QUEUE_CONTROL.offset;
                if offset >= first && (offset - first).is_multiple_of(QUEUE_PAIR_STRIDE) {
                    let enabled = QueueControl::from_bits(value).enable();
                    let status = QueueStatus::new().with_enabled(enabled);
                    self.registers.insert(offset + QUEUE_STATUS.offset - first, status.into_bits());
                    if enabled {
                        self.queues[((offset - first) / QUEUE_PAIR_STRIDE) as usize] = Queue::default();
                    }
                }
            }
            Bar::Bar2 => {
                let queue = &mut self.queues[(offset / DOORBELL_PAGE_BYTES) as usize];
                match offset % DOORBELL_PAGE_BYTES {
                    at if at == TRANSMIT_DOORBELL.offset => {
                        queue.transmit_doorbell = value;
                        queue.transmit_rings += 1;
                    }
                    at if at == RECEIVE_DOORBELL.offset => {
                        queue.receive_doorbell = value;
                        queue.receive_rings += 1;
                    }
                    at if at == INTERRUPT_ARM.offset => {
                        queue.armed = true;
                        queue.arm_rings += 1;
                    }
                    at => panic!("no doorbell at {at:#x}"),
                }
            }
            Bar::Bar4 => panic!("the driver leaves the MSI-X table to the host"),
        }
    }

    /// The high half is there. An epoch that turns the clock back changes nothing but a bit.
    fn write_epoch(&mut self, low: u32) {
        let high = self.registers.get(&(PSP_EPOCH.offset + 4)).copied().unwrap_or(0);
        let epoch = u64::from(high) << 32 | u64::from(low);
        let refused = epoch < self.epoch;
        self.epoch = self.epoch.max(epoch);
        self.registers.insert(PSP_EPOCH.offset, self.epoch as u32);
        self.registers.insert(PSP_EPOCH.offset + 4, (self.epoch >> 32) as u32);
        let status = PspKeyStatus::new().with_epoch_set(self.epoch != 0).with_epoch_refused(refused);
        self.registers.insert(PSP_KEY_STATUS.offset, status.into_bits());
    }

    /// The memory behind an address and the offset in it, if the device may do this.
    fn reach(&mut self, iova: u64, bytes: usize, write: bool) -> Option<(SharedMemory, usize)> {
        let found = self.mappings.iter().find_map(|(start, memory, access)| {
            let offset = iova.checked_sub(*start)? as usize;
            let within = offset + bytes <= memory.bytes();
            let allowed = !write || *access == DmaAccess::DeviceReadsAndWrites;
            (within && allowed).then(|| (memory.clone(), offset))
        });
        let found = found.filter(|_| self.bus_master);
        self.accesses_refused += u32::from(found.is_none());
        found
    }

    fn words<const COUNT: usize>(&mut self, iova: u64) -> Option<[u64; COUNT]> {
        let (memory, offset) = self.reach(iova, COUNT * 8, false)?;
        Some(std::array::from_fn(|index| memory.read_word(offset + index * 8).unwrap()))
    }

    fn put_words(&mut self, iova: u64, words: &[u64]) {
        let Some((memory, offset)) = self.reach(iova, words.len() * 8, true) else { return };
        for (index, word) in words.iter().enumerate() {
            memory.write_word_release(offset + index * 8, *word).unwrap();
        }
    }

    #[inline(never)]
    fn work(&mut self) {
        if self.never_ready {
            self.registers.insert(DEVICE_STATUS.offset, 0);
        }
        if self.gone {
            return;
        }
        while !self.admin_silent && self.admin_done != self.admin_doorbell {
            self.serve_admin();
        }
        self.look_at_shadow();
        for index in 0..QUEUE_PAIRS {
            let status = self.register(QUEUE_STATUS.instance(index as u32, QUEUE_PAIR_STRIDE));
            while status.enabled()
                && !self.hold
                && self.queues[index].transmit_done != self.queues[index].transmit_doorbell
            {
                if self.send(index).is_none() {
                    break;
                }
            }
        }
    }

    fn interrupt(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        queue.fired |= std::mem::take(&mut queue.armed);
    }
}
