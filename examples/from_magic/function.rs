//! The PCI function: config space, registers, reset, capabilities, and memory that the device may reach.

use std::cell::Cell;
use std::error::Error;

use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use cryptonic_pci::{Bar, DmaAccess, Host, SharedMemory, Time};
use cryptonic_regs::bar0::{
    ADMIN, BLOCK_TABLE, CAPABILITY, CIPHER_CAPABILITY, CONTRACT_VERSION, CONTROL, CONTROL_BLOCK,
    CipherCapability, Control, DESCRIPTOR_CAPABILITY, DEVICE_STATUS, DescriptorCapability, LIFE_CAPABILITY,
    LifeCapability, MAGIC, MAGIC_VALUE, PROTOCOL_CAPABILITY, PSP, ProtocolCapability, QUEUE_CAPABILITY,
    QUEUE_PAIR, QueueCapability,
};
use cryptonic_regs::events::{EVENTS, SLOT_STATES};
use cryptonic_regs::psp_policy::PSP_POLICY;
use cryptonic_regs::{CONTRACT_MAJOR, PCI_DEVICE_ID, PCI_VENDOR_ID, Register, Value};

/// What a step of this driver gives, or why it failed.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long anything may take that the device does.
const TIMEOUT: Time = Time::from_milliseconds(100);
/// Where I/O addresses begin: above 4 GiB, so that both halves of a base register count.
const ADDRESSES_START: u64 = 1 << 32;
/// Mappings begin at multiples of this.
const ADDRESSES_STEP: u64 = 2 << 20;

/// A PCI function of this device.
pub struct Function {
    /// The host side of it.
    pub host: Box<dyn Host>,
    next_address: Cell<u64>,
}

impl Function {
    // guide: config space
    /// Takes a function for this device, or refuses it. Nothing is written before its identifiers are known.
    pub fn find(host: Box<dyn Host>) -> Outcome<Function> {
        let identifiers = host.config_read(0)?;
        if identifiers != u32::from(PCI_DEVICE_ID) << 16 | u32::from(PCI_VENDOR_ID) {
            return Err(format!("{identifiers:#010x} is another device, or none").into());
        }
        let function = Function { host, next_address: Cell::new(ADDRESSES_START) };
        function.set_command(COMMAND_MEMORY)?;
        Ok(function)
    }

    /// Lets the function answer memory accesses, start transactions of its own, or neither.
    pub fn set_command(&self, bits: u32) -> Outcome<()> {
        // The upper half of the word is the status register: ones would clear it, zeros leave it.
        let kept = self.host.config_read(COMMAND)? & 0xffff & !(COMMAND_MEMORY | COMMAND_BUS_MASTER);
        Ok(self.host.config_write(COMMAND, kept | bits)?)
    }
    // guide: end

    // guide: registers
    /// Reads a register of BAR0.
    pub fn read<T: Value>(&self, register: Register<T>) -> Outcome<T> {
        // Of a 64-bit register the low half first: reading it latches the high half.
        let low = self.host.read32(Bar::Bar0, register.offset)?;
        let high = match T::WIDTH_BITS {
            64 => self.host.read32(Bar::Bar0, register.offset + 4)?,
            _ => 0,
        };
        Ok(T::of_bits(u64::from(high) << 32 | u64::from(low)))
    }

    /// Writes a register of BAR0.
    pub fn write<T: Value>(&self, register: Register<T>, value: T) -> Outcome<()> {
        // Of a 64-bit register the low half last: it makes the write take effect.
        if T::WIDTH_BITS == 64 {
            self.host.write32(Bar::Bar0, register.offset + 4, (value.bits() >> 32) as u32)?;
        }
        Ok(self.host.write32(Bar::Bar0, register.offset, value.bits() as u32)?)
    }

    /// Looks until there is something, gives time away in between, and looks once more when time is up.
    pub fn poll<T>(&self, what: &str, mut look: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
        let deadline = self.host.now() + TIMEOUT;
        loop {
            let late = self.host.now() >= deadline;
            match look()? {
                Some(found) => return Ok(found),
                None if late => return Err(format!("no {what} in time").into()),
                None => self.host.relax(),
            }
        }
    }
    // guide: end

    // guide: magic
    /// Checks that this is a device of the contract that the driver was written for.
    pub fn identify(&self) -> Outcome<()> {
        let magic = self.read(MAGIC)?;
        if magic != MAGIC_VALUE {
            return Err(format!("MAGIC reads {magic:#010x}").into());
        }
        let version = self.read(CONTRACT_VERSION)?;
        if version.major() != CONTRACT_MAJOR {
            return Err(format!("a device of contract {}.{}", version.major(), version.minor()).into());
        }
        for block in [CAPABILITY, CONTROL_BLOCK, ADMIN, PSP, EVENTS, PSP_POLICY, QUEUE_PAIR, SLOT_STATES] {
            let [head, offset, _instances, stride] = self.block(block.kind)?;
            if (offset, stride) != (block.offset, block.stride) || head >> 16 < u32::from(block.version) {
                return Err(format!("{} is not where it was", block.name).into());
            }
        }
        Ok(())
    }

    /// The entry of a block in the block table: kind and version, offset, instances, stride.
    fn block(&self, kind: u16) -> Outcome<[u32; 4]> {
        let table = self.read(BLOCK_TABLE)?;
        for entry in 0..u32::from(table.entries()) {
            let at = u32::from(table.offset()) + entry * u32::from(table.entry_bytes());
            let mut words = [0; 4];
            for (word, offset) in words.iter_mut().zip((at..).step_by(4)) {
                *word = self.host.read32(Bar::Bar0, offset)?;
            }
            if words[0] & 0xffff == u32::from(kind) {
                return Ok(words);
            }
        }
        Err(format!("no block of kind {kind}").into())
    }
    // guide: end

    // guide: reset
    /// Resets the function and waits until it is there again, without a key.
    pub fn reset(&self) -> Outcome<()> {
        self.set_command(0)?;
        self.host.reset()?;
        self.set_command(COMMAND_MEMORY)?;
        let status = self.poll("end of the reset", || {
            let status = self.read(DEVICE_STATUS)?;
            if status.fatal() {
                return Err("the device says that nothing but another reset helps".into());
            }
            Ok((status.ready() && status.firmware_running()).then_some(status))
        })?;
        if !status.keys_zeroised() {
            return Err("the device kept keys over a reset".into());
        }
        Ok(())
    }
    // guide: end

    // guide: capabilities
    /// Asks what the device can do, and refuses one that this driver cannot use.
    pub fn capabilities(&self) -> Outcome<Capabilities> {
        let capabilities = Capabilities {
            queue: self.read(QUEUE_CAPABILITY)?,
            descriptor: self.read(DESCRIPTOR_CAPABILITY)?,
            protocol: self.read(PROTOCOL_CAPABILITY)?,
            cipher: self.read(CIPHER_CAPABILITY)?,
            life: self.read(LIFE_CAPABILITY)?,
        };
        let Capabilities { queue, descriptor, protocol, cipher, life } = &capabilities;
        let esp = protocol.esp_tunnel() && protocol.esn() && cipher.aes_gcm_128() && cipher.icv_16();
        let psp = protocol.psp_transport() && protocol.psp_versions() & 1 << 0 != 0;
        let keys = life.events() && life.psp_rotation() && life.sa_batch() >= 3;
        if queue.vectors() < 3 || !descriptor.stride_64() || !esp || !psp || !keys {
            return Err("the device lacks what this driver needs".into());
        }
        Ok(capabilities)
    }
    // guide: end

    // guide: memory
    /// Zeroed memory of whole pages, and the address at which the device finds it.
    pub fn arena(&self, bytes: usize, access: DmaAccess) -> Outcome<Arena> {
        let memory = SharedMemory::new(bytes)?;
        let iova = self.next_address.get();
        // Addresses are never used twice, and unmapped ones lie between two mappings: a stale or a runaway
        // access of the device is a fault that is counted, and touches nothing.
        let end = iova + (memory.bytes() as u64).next_multiple_of(ADDRESSES_STEP);
        self.next_address.set(end + ADDRESSES_STEP);
        self.host.dma_map(&memory, iova, access)?;
        Ok(Arena { memory, iova })
    }

    /// Takes memory back, and wipes it when the device can no longer reach it.
    pub fn release(&self, arena: &Arena) -> Outcome<()> {
        self.host.dma_unmap(arena.iova)?;
        Ok(arena.memory.zeroise(0, arena.memory.bytes())?)
    }
    // guide: end

    /// Lets packets in and out, or stops them.
    pub fn set_enabled(&self, enabled: bool) -> Outcome<()> {
        self.write(CONTROL, Control::new().with_enable(enabled))
    }
}

/// What the device can do.
pub struct Capabilities {
    /// Queues, rings and vectors.
    pub queue: QueueCapability,
    /// Descriptor formats.
    pub descriptor: DescriptorCapability,
    /// Protocols and modes.
    pub protocol: ProtocolCapability,
    /// Ciphers and ICV lengths.
    pub cipher: CipherCapability,
    /// Events, SAs of one command, and what PSP does beside opening and protecting.
    pub life: LifeCapability,
}

/// Memory that the device may reach, and its I/O address.
pub struct Arena {
    /// The memory.
    pub memory: SharedMemory,
    /// Its address for the device.
    pub iova: u64,
}
