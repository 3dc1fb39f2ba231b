//! A small device to drive the driver with: it serves registers, the admin queue and the rings as the
//! contract says, and lies where a test tells it to. What is transmitted comes back to the same pair.
//! It works only while the host gives time away.

#![allow(dead_code)] // Every test binary uses its own part.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER};
use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory, Time, Work};
use cryptonic_regs::admin::{
    AdminCompletion, AdminCompletionEnd, AdminStatus, AllocatedSpi, CapabilityReply, Command, Opcode, SaForm,
    SaNames, SaParameters, SaStateHead, SaStateReply, StatisticsReply,
};
use cryptonic_regs::bar0::{
    ADMIN_COMMAND_BASE, ADMIN_COMPLETION_BASE, ADMIN_CONTROL, ADMIN_DOORBELL, ADMIN_STATUS, AdminControl,
    BLOCK_TABLE, BLOCK_TABLE_ENTRY_BYTES, BLOCK_TABLE_OFFSET, BLOCKS, BlockTable, CIPHER_CAPABILITY,
    CONTRACT_VERSION, CipherCapability, ContractVersion, DESCRIPTOR_CAPABILITY, DEVICE_KIND, DEVICE_STATUS,
    DescriptorCapability, DeviceKind, DeviceStatus, FRAME_BYTES_MAX, LINE_RATE_MBPS, MAC_ADDRESS, MAGIC,
    MAGIC_VALUE, PROTOCOL_CAPABILITY, ProtocolCapability, QUEUE_CAPABILITY, QUEUE_CONTROL, QUEUE_PAIR,
    QUEUE_PAIR_STRIDE, QUEUE_STATUS, QueueCapability, QueueControl, QueueStatus, RECEIVE_COMPLETION_BASE,
    RECEIVE_RING_BASE, REPLAY_WINDOW_MAX, SA_SLOTS, SERIAL, TRANSMIT_COMPLETION_BASE, TRANSMIT_RING_BASE,
};
use cryptonic_regs::completion::{
    ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSecurity, ReceiveSteering,
    ReceivedProtocol, TransmitCompleted, TransmitCompletion, TransmitCompletionEnd,
};
use cryptonic_regs::descriptor::{ReceiveControl, Security, TransmitControl, TransmitPsp, TransmitSa};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, INTERRUPT_ARM, RECEIVE_DOORBELL, TRANSMIT_DOORBELL};
use cryptonic_regs::{CONTRACT_MAJOR, Register, Value};

pub const QUEUE_PAIRS: usize = 4;
pub const SA_SLOT_COUNT: u32 = 8;

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
    pub lose_interrupts: bool,
    pub no_interrupts: bool,
    pub accesses_refused: u32,
    /// The last words of parameter blocks that were read.
    pub parameters: Vec<Vec<u64>>,
    /// The last frames that were sent, with the words of their descriptors.
    pub sent: Vec<(Vec<u64>, Vec<u8>)>,
    pub keep_sent: bool,
    pub on_admin: Hook<AdminCompletion>,
    pub on_transmit: Hook<TransmitCompletion>,
    pub on_receive: Hook<ReceiveCompletion>,
    admin_doorbell: u32,
    admin_done: u32,
    next_generation: u32,
    next_spi: u32,
    generation: u16,
    frame: Vec<u8>,
}

#[derive(Default)]
pub struct Queue {
    transmit_doorbell: u32,
    receive_doorbell: u32,
    pub transmit_rings: u32,
    pub receive_rings: u32,
    transmit_done: u32,
    unreported: u16,
    transmit_completions: u32,
    receive_done: u32,
    receive_completions: u32,
    armed: bool,
    fired: bool,
}

#[derive(Clone)]
pub struct Sa {
    generation: u32,
    form: SaForm,
    names: SaNames,
    pub sequence: u64,
    packets: u64,
}

/// The host side of a [`Device`]; clones are the same device.
#[derive(Clone, Default)]
pub struct Fake {
    pub device: Rc<RefCell<Device>>,
    now: Rc<Cell<u64>>,
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
        self.now.set(self.now.get() + Time::from_nanoseconds(500).0);
        let device = self.device.borrow();
        Ok(if device.gone { u32::MAX } else { device.registers.get(&offset).copied().unwrap_or(0) })
    }

    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        self.device.borrow_mut().write(bar, offset, value);
        Ok(())
    }

    fn push64(&self, _: Bar, _: u32, _: &[u8; 64]) -> Result<(), HostError> {
        Err(HostError::Unsupported("pushes"))
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
        Time(self.now.get())
    }

    fn spend(&self, _: Work) {}

    fn relax(&self) {
        self.now.set(self.now.get() + Time::from_microseconds(1).0);
        self.device.borrow_mut().work();
    }

    fn wait(&self, _: u16, deadline: Time) -> Result<Wake, HostError> {
        while self.now() < deadline {
            self.relax();
            let mut device = self.device.borrow_mut();
            let lost = device.lose_interrupts;
            let fired =
                device.queues.iter_mut().fold(false, |any, queue| std::mem::take(&mut queue.fired) | any);
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
            .with_vectors(5);
        set(QUEUE_CAPABILITY.offset, queue.into_bits());
        let descriptor = DescriptorCapability::new().with_stride_32(true).with_stride_64(true);
        set(DESCRIPTOR_CAPABILITY.offset, descriptor.into_bits());
        let protocol = ProtocolCapability::new()
            .with_esp(true)
            .with_psp(true)
            .with_esp_tunnel(true)
            .with_esp_transport(true)
            .with_psp_transport(true)
            .with_esn(true)
            .with_mac_loopback(true)
            .with_psp_versions(0b0011);
        set(PROTOCOL_CAPABILITY.offset, protocol.into_bits());
        let cipher = CipherCapability::new().with_aes_gcm_128(true).with_aes_gcm_256(true).with_icv_16(true);
        set(CIPHER_CAPABILITY.offset, cipher.into_bits());
        set(SA_SLOTS.offset, SA_SLOT_COUNT);
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
                self.registers.insert(offset, value);
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
                    at if at == INTERRUPT_ARM.offset => queue.armed = true,
                    at => panic!("no doorbell at {at:#x}"),
                }
            }
            Bar::Bar4 => panic!("the driver leaves the MSI-X table to the host"),
        }
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

    fn serve_admin(&mut self) {
        let control: AdminControl = self.register(ADMIN_CONTROL);
        let slots_log2 = u32::from(control.slots_log2());
        let slot = u64::from(self.admin_done & ((1 << slots_log2) - 1));
        let phase = (self.admin_done >> slots_log2) & 1 == 0;
        self.admin_done = self.admin_done.wrapping_add(1);
        let base = self.register(ADMIN_COMMAND_BASE);
        let Some(words) = self.words(base + slot * Command::BYTES as u64) else { return };
        let command = Command::of_words(&words);
        let (result, status) = match self.command(&command) {
            Ok(result) => (result, AdminStatus::Ok),
            Err(status) => (0, status),
        };
        let end = AdminCompletionEnd::new()
            .with_identifier(command.head.identifier())
            .with_status(status.number() as u16)
            .with_phase(phase);
        let mut completion = AdminCompletion { result, end };
        if let Some(hook) = &mut self.on_admin {
            hook(&mut completion);
        }
        let base = self.register(ADMIN_COMPLETION_BASE);
        self.put_words(base + slot * 16, &completion.to_words());
    }

    fn command(&mut self, command: &Command) -> Result<u64, AdminStatus> {
        let (low, high) = (command.argument_0 as u32, (command.argument_0 >> 32) as u32);
        match Opcode::of_number(command.head.opcode().into()).ok_or(AdminStatus::UnknownOpcode)? {
            Opcode::Capabilities => {
                let reply = CapabilityReply {
                    spis_per_command: 3,
                    sa_slots: SA_SLOT_COUNT.into(),
                    firmware_version: 0x1_0002,
                    replay_window_max: 1024,
                };
                self.put_words(command.reply_address, &reply.to_words());
                Ok(0)
            }
            Opcode::Statistics => {
                let reply = StatisticsReply { commands: 42, ..StatisticsReply::default() };
                self.put_words(command.reply_address, &reply.to_words());
                Ok(0)
            }
            Opcode::SaInstall => {
                let words: [u64; SaParameters::WORDS] =
                    self.words(command.parameter_address).ok_or(AdminStatus::BadAddress)?;
                self.parameters.push(words.to_vec());
                let parameters = SaParameters::of_words(&words);
                let index = (0..SA_SLOT_COUNT)
                    .find(|index| !self.sas.contains_key(index))
                    .ok_or(AdminStatus::NoFreeSlot)?;
                self.next_generation += 1;
                let sa = Sa {
                    generation: self.next_generation,
                    form: parameters.form,
                    names: parameters.names,
                    sequence: parameters.sequence,
                    packets: 0,
                };
                self.sas.insert(index, sa);
                Ok(u64::from(self.next_generation) << 32 | u64::from(index))
            }
            Opcode::SaDelete => match self.sas.get(&low) {
                Some(sa) if sa.generation == high => {
                    self.sas.remove(&low);
                    Ok(0)
                }
                _ => Err(AdminStatus::NoSuchSa),
            },
            Opcode::SaQuery => match self.sas.get(&low).cloned() {
                Some(sa) if sa.generation == high => {
                    let head = SaStateHead::new()
                        .with_state(1)
                        .with_direction(sa.form.direction())
                        .with_protocol(sa.form.protocol())
                        .with_spi(sa.names.spi());
                    let reply = SaStateReply { head, sequence: sa.sequence, packets: sa.packets, bytes: 0 };
                    self.put_words(command.reply_address, &reply.to_words());
                    Ok(0)
                }
                _ => Err(AdminStatus::NoSuchSa),
            },
            Opcode::PspAllocate => {
                for record in 0..u64::from(low) {
                    self.next_spi += 1;
                    let key_bytes = if high == 0 { 16 } else { 32 };
                    let head = AllocatedSpi::new().with_spi(self.next_spi).with_key_bytes(key_bytes);
                    let words = [head.into_bits(), 0x004b_4559, 0x004b_455a, 0, 0];
                    self.put_words(command.reply_address + record * 40, &words);
                }
                Ok(low.into())
            }
            Opcode::PspRotate => {
                self.generation += 1;
                Ok(self.generation.into())
            }
            Opcode::PspTestKeyLoad => {
                let words: [u64; 8] = self.words(command.parameter_address).ok_or(AdminStatus::BadAddress)?;
                self.parameters.push(words.to_vec());
                Ok(0)
            }
            Opcode::PspTestIvLoad => Err(AdminStatus::Locked),
        }
    }

    /// Sends the next frame of a queue, to itself.
    fn send(&mut self, index: usize) -> Option<()> {
        let number = index as u32;
        let control: QueueControl = self.register(QUEUE_CONTROL.instance(number, QUEUE_PAIR_STRIDE));
        let slots_log2 = u32::from(control.transmit_slots_log2());
        let position = self.queues[index].transmit_done;
        let slot = u64::from(position & ((1 << slots_log2) - 1));
        let base = self.register(TRANSMIT_RING_BASE.instance(number, QUEUE_PAIR_STRIDE));
        let at = base + (slot << control.transmit_stride_log2());
        let long = control.transmit_stride_log2() == 6;
        let short: [u64; 4] = self.words(at)?;
        let words = if long { self.words::<8>(at)?.to_vec() } else { short.to_vec() };
        let descriptor = TransmitControl::from_bits(short[1]);
        let length = usize::from(descriptor.length());
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(length, 0);
        let (memory, offset) = self.reach(short[0], length, false)?;
        memory.read(offset, &mut frame).unwrap();
        let mut status = cryptonic_regs::Status::Ok;
        let (mut sa_index, mut sequence, mut protocol, mut spi, mut cookie, mut sa_generation) =
            (0, 0, ReceivedProtocol::Clear, 0, 0, 0);
        match Security::of_number(descriptor.security().into()) {
            Some(Security::Clear) if !control.transmit_clear_allowed() => {
                status = cryptonic_regs::Status::ClearNotAllowed;
            }
            Some(Security::Clear) => {}
            Some(Security::Sa) => {
                let name = TransmitSa::from_bits(short[2]);
                match self.sas.get_mut(&name.index()) {
                    Some(sa) if sa.generation == name.generation() => {
                        sa.sequence += 1;
                        sa.packets += 1;
                        sa_index = name.index();
                        sequence = sa.sequence;
                        protocol = ReceivedProtocol::Esp;
                        spi = sa.names.spi();
                        cookie = sa.names.cookie();
                        sa_generation = sa.generation.into();
                    }
                    _ => status = cryptonic_regs::Status::StaleSa,
                }
            }
            Some(Security::PspKey) => {
                spi = TransmitPsp::from_bits(short[2]).spi();
                protocol = ReceivedProtocol::Psp;
                sequence = 0x1000 + u64::from(position);
            }
            None => status = cryptonic_regs::Status::BadDescriptor,
        }
        let queue = &mut self.queues[index];
        queue.transmit_done = position.wrapping_add(1);
        queue.unreported += 1;
        if descriptor.report() || status != cryptonic_regs::Status::Ok {
            let number = queue.transmit_completions;
            queue.transmit_completions = number.wrapping_add(1);
            let mut completion = TransmitCompletion {
                completed: TransmitCompleted::new()
                    .with_descriptors(std::mem::take(&mut queue.unreported))
                    .with_tag(descriptor.tag())
                    .with_tag_generation(descriptor.tag_generation())
                    .with_sa_index(sa_index),
                sequence,
                time_picoseconds: 1,
                end: TransmitCompletionEnd::new()
                    .with_status(status.number() as u16)
                    .with_phase((number >> slots_log2) & 1 == 0),
            };
            if let Some(hook) = &mut self.on_transmit {
                hook(&mut completion);
            }
            let slot = u64::from(number & ((1 << slots_log2) - 1));
            let base = self.register(TRANSMIT_COMPLETION_BASE.instance(index as u32, QUEUE_PAIR_STRIDE));
            self.put_words(base + slot * TransmitCompletion::BYTES as u64, &completion.to_words());
            self.interrupt(index);
        }
        if status == cryptonic_regs::Status::Ok {
            let completion = ReceiveCompletion {
                completed: ReceiveCompleted::new().with_sa_index(sa_index),
                security: ReceiveSecurity::new().with_spi(spi).with_cookie(cookie),
                sequence,
                iv: sequence,
                time_picoseconds: 2,
                steering: ReceiveSteering::new().with_protocol(protocol.number() as u8),
                sa_generation,
                end: ReceiveCompletionEnd::new(),
            };
            self.deliver(index, &frame, completion);
        }
        if self.keep_sent {
            self.sent.push((words, frame.clone()));
        }
        self.frame = frame;
        Some(())
    }

    /// Puts a frame into the next posted buffer, if there is one.
    fn deliver(&mut self, index: usize, frame: &[u8], mut completion: ReceiveCompletion) -> Option<()> {
        let number = index as u32;
        let control: QueueControl = self.register(QUEUE_CONTROL.instance(number, QUEUE_PAIR_STRIDE));
        let slots_log2 = u32::from(control.receive_slots_log2());
        let mask = (1 << slots_log2) - 1;
        let queue = &mut self.queues[index];
        if queue.receive_done == queue.receive_doorbell {
            return None;
        }
        let slot = u64::from(queue.receive_done & mask);
        queue.receive_done = queue.receive_done.wrapping_add(1);
        let base = self.register(RECEIVE_RING_BASE.instance(number, QUEUE_PAIR_STRIDE));
        let words: [u64; 2] = self.words(base + slot * 16)?;
        let buffer = ReceiveControl::from_bits(words[1]);
        let length = frame.len().min(buffer.length().into());
        let (memory, offset) = self.reach(words[0], length, true)?;
        memory.write(offset, &frame[..length]).unwrap();
        let queue = &mut self.queues[index];
        let place = queue.receive_completions;
        queue.receive_completions = place.wrapping_add(1);
        completion.completed = completion
            .completed
            .with_length(length as u16)
            .with_tag(buffer.tag())
            .with_tag_generation(buffer.tag_generation());
        completion.end = completion.end.with_phase((place >> slots_log2) & 1 == 0);
        if let Some(hook) = &mut self.on_receive {
            hook(&mut completion);
        }
        let base = self.register(RECEIVE_COMPLETION_BASE.instance(number, QUEUE_PAIR_STRIDE));
        let at = base + u64::from(place & mask) * ReceiveCompletion::BYTES as u64;
        self.put_words(at, &completion.to_words());
        self.interrupt(index);
        Some(())
    }

    fn interrupt(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        queue.fired |= std::mem::take(&mut queue.armed);
    }
}
