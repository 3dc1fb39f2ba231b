//! Who the device is and what it can do.

use std::fmt;
use std::ops::Range;

use cryptonic_pci::HostError;
use cryptonic_regs::admin::LifetimeKind;
use cryptonic_regs::bar0::{
    BLOCK_TABLE, BLOCK_TABLE_ENTRY_BYTES, BLOCKS, CHAIN_CAPABILITY, CIPHER_CAPABILITY, CONTRACT_VERSION,
    ChainCapability, CipherCapability, ContractVersion, DESCRIPTOR_CAPABILITY, DEVICE_KIND,
    DescriptorCapability, DeviceKind, FRAME_BYTES_MAX, LIFE_CAPABILITY, LINE_RATE_MBPS, LifeCapability,
    MAC_ADDRESS, MAGIC, MAGIC_VALUE, PROTOCOL_CAPABILITY, ProtocolCapability, QUEUE_CAPABILITY,
    QUEUE_PAIRS_MAX, QueueCapability, REPLAY_WINDOW_MAX, SA_PACKET_SLOTS, SA_SLOTS, SEGMENTED_BYTES_MAX,
    SERIAL,
};
use cryptonic_regs::shadow_doorbells::SHADOW_DOORBELLS;
use cryptonic_regs::{Block, CONTRACT_MAJOR, Register, Value};

use crate::Error;
use crate::shared::Shared;

/// The most SA slots that descriptors can name.
const SA_SLOTS_MAX: u32 = 1 << 24;
/// The most MSI-X vectors that the pending bits of BAR4 have room for.
const VECTORS_MAX: u8 = 128;
/// The most that the control register of a queue pair can ask for.
const RING_SLOTS_LOG2_MAX: u8 = 15;

/// Who the device is.
#[derive(Clone, Debug)]
pub struct Information {
    /// PCI vendor identifier.
    pub vendor: u16,
    /// PCI device identifier.
    pub device: u16,
    /// 1: the model; 2: RTL in simulation; 3: silicon or FPGA.
    pub kind: u16,
    /// Revision of the implementation.
    pub revision: u16,
    /// Major and minor version of the contract it follows.
    pub contract: (u16, u16),
    /// Serial number.
    pub serial: u64,
    /// MAC address, in the order of the wire.
    pub mac_address: [u8; 6],
    /// What it can do.
    pub capabilities: Capabilities,
}

/// What the device can do.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Queues, rings and vectors.
    pub queue: QueueCapability,
    /// Descriptor formats.
    pub descriptor: DescriptorCapability,
    /// Protocols and modes.
    pub protocol: ProtocolCapability,
    /// Ciphers and ICV lengths.
    pub cipher: CipherCapability,
    /// SA slots.
    pub sa_slots: u32,
    /// SA slots that are count-based, from slot 0 on; those behind them are byte-based.
    pub sa_packet_slots: u32,
    /// Events, installing in batches, and what PSP does beside opening and protecting.
    pub life: LifeCapability,
    /// Largest replay window in packets.
    pub replay_window_max: u32,
    /// Largest frame in bytes, without FCS.
    pub frame_bytes_max: u32,
    /// Line rate in Mb/s.
    pub line_rate_mbps: u32,
    /// The longest chains.
    pub chain: ChainCapability,
    /// Most bytes of a frame that the device cuts into segments.
    pub segmented_bytes_max: u32,
}

/// The limits that firmware sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareCapabilities {
    /// Most SPIs that one command allocates.
    pub spis_per_command: u64,
    /// SA slots.
    pub sa_slots: u64,
    /// Version of the firmware.
    pub version: (u16, u16),
    /// Largest replay window in packets.
    pub replay_window_max: u64,
}

impl Information {
    /// The first look at a device: is it one of ours, and of a version we know?
    pub(crate) fn check_identity(shared: &Shared) -> Result<ContractVersion, Error> {
        let magic = shared.read(MAGIC)?;
        if magic != MAGIC_VALUE {
            return Err(Error::NotCryptonic { found: magic });
        }
        let version: ContractVersion = shared.read(CONTRACT_VERSION)?;
        if version.major() != CONTRACT_MAJOR {
            return Err(Error::ContractVersion { major: version.major(), minor: version.minor() });
        }
        Ok(version)
    }

    /// Reads the block table and everything that the device says of itself.
    pub(crate) fn read(shared: &Shared, version: ContractVersion) -> Result<Self, Error> {
        let capabilities = Capabilities::read(shared)?;
        check_blocks(shared, &capabilities)?;
        let identifiers = shared.host.config_read(0)?;
        let kind: DeviceKind = shared.read(DEVICE_KIND)?;
        let [a, b, c, d, e, f, _, _] = shared.read(MAC_ADDRESS)?.to_le_bytes();
        Ok(Information {
            vendor: identifiers as u16,
            device: (identifiers >> 16) as u16,
            kind: kind.kind(),
            revision: kind.revision(),
            contract: (version.major(), version.minor()),
            serial: shared.read(SERIAL)?,
            mac_address: [a, b, c, d, e, f],
            capabilities,
        })
    }
}

impl Capabilities {
    fn read(shared: &Shared) -> Result<Self, Error> {
        let capabilities = Capabilities {
            queue: shared.read(QUEUE_CAPABILITY)?,
            descriptor: shared.read(DESCRIPTOR_CAPABILITY)?,
            protocol: shared.read(PROTOCOL_CAPABILITY)?,
            cipher: shared.read(CIPHER_CAPABILITY)?,
            sa_slots: shared.read(SA_SLOTS)?,
            sa_packet_slots: shared.read(SA_PACKET_SLOTS)?,
            life: shared.read(LIFE_CAPABILITY)?,
            replay_window_max: shared.read(REPLAY_WINDOW_MAX)?,
            frame_bytes_max: shared.read(FRAME_BYTES_MAX)?,
            line_rate_mbps: shared.read(LINE_RATE_MBPS)?,
            chain: shared.read(CHAIN_CAPABILITY)?,
            segmented_bytes_max: shared.read(SEGMENTED_BYTES_MAX)?,
        };
        let queue = capabilities.queue;
        let check = |name, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(Error::Capability { name, value }) }
        };
        check("queue_pairs", queue.queue_pairs().into(), 1, QUEUE_PAIRS_MAX.into())?;
        let slots_log2 = queue.ring_slots_log2_max();
        check("ring_slots_log2_max", slots_log2.into(), 1, RING_SLOTS_LOG2_MAX.into())?;
        check("vectors", queue.vectors().into(), 1, VECTORS_MAX.into())?;
        check("sa_slots", capabilities.sa_slots.into(), 0, SA_SLOTS_MAX.into())?;
        let sa_slots = capabilities.sa_slots.into();
        check("sa_packet_slots", capabilities.sa_packet_slots.into(), 0, sa_slots)?;
        check("sa_batch", capabilities.life.sa_batch().into(), sa_slots.min(1), u8::MAX.into())?;
        check("frame_bytes_max", capabilities.frame_bytes_max.into(), 60, u16::MAX.into())?;
        Ok(capabilities)
    }

    /// SA slots whose limits count this.
    pub fn sa_slots_of(&self, kind: LifetimeKind) -> Range<u32> {
        match kind {
            LifetimeKind::Packets => 0..self.sa_packet_slots,
            LifetimeKind::Bytes => self.sa_packet_slots..self.sa_slots,
        }
    }

    /// Every capability as a name and a number; a flag is 0 or 1.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut all = Vec::new();
        fields(&mut all, self.queue);
        fields(&mut all, self.descriptor);
        fields(&mut all, self.protocol);
        fields(&mut all, self.cipher);
        all.extend([
            ("sa_slots", self.sa_slots.into()),
            ("sa_packet_slots", self.sa_packet_slots.into()),
            ("replay_window_max", self.replay_window_max.into()),
            ("frame_bytes_max", self.frame_bytes_max.into()),
            ("line_rate_mbps", self.line_rate_mbps.into()),
            ("segmented_bytes_max", self.segmented_bytes_max.into()),
        ]);
        fields(&mut all, self.chain);
        fields(&mut all, self.life);
        all.into_iter()
    }
}

fn fields<T: Value>(all: &mut Vec<(&'static str, u64)>, value: T) {
    let mut bits = value.bits();
    for field in T::FIELDS {
        if !field.reserved() {
            all.push((field.name, bits & ((1 << field.bits) - 1)));
        }
        bits >>= field.bits;
    }
}

/// A device of our contract has every block where the contract puts it; it may have more. The block of shadow doorbells came
/// with a minor version: a device without them may be without it.
fn check_blocks(shared: &Shared, capabilities: &Capabilities) -> Result<(), Error> {
    let queue_pairs = capabilities.queue.queue_pairs();
    let table = shared.read(BLOCK_TABLE)?;
    let (offset, entry_bytes) = (u32::from(table.offset()), u32::from(table.entry_bytes()));
    let missing = |block: &Block| Err(Error::Block { name: block.name });
    let may_be_missing =
        |block: &Block| block.kind == SHADOW_DOORBELLS.kind && !capabilities.descriptor.shadow_doorbells();
    let mut found: Vec<bool> = BLOCKS.iter().map(may_be_missing).collect();
    if entry_bytes >= BLOCK_TABLE_ENTRY_BYTES && entry_bytes.is_multiple_of(4) && offset.is_multiple_of(4) {
        for entry in 0..u32::from(table.entries()) {
            let word = |index: u32| -> Result<u32, HostError> {
                let at = offset + entry * entry_bytes + index * 4;
                shared.read(Register::<u32>::new(
                    at,
                    "BLOCK_TABLE_ENTRY",
                    cryptonic_regs::Access::ReadOnly,
                    "",
                ))
            };
            let (names, at, instances, stride) = (word(0)?, word(1)?, word(2)?, word(3)?);
            let (kind, version) = (names as u16, (names >> 16) as u16);
            for (block, found) in BLOCKS.iter().zip(&mut found) {
                let repeats =
                    if block.name == cryptonic_regs::bar0::QUEUE_PAIR.name { queue_pairs } else { 1 };
                *found |= kind == block.kind
                    && version >= block.version
                    && at == block.offset
                    && instances >= u32::from(repeats)
                    && (stride == block.stride || repeats == 1);
            }
        }
    }
    match BLOCKS.iter().zip(found).find(|(_, found)| !found) {
        Some((block, _)) => missing(block),
        None => Ok(()),
    }
}

impl fmt::Display for Information {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            1 => "model",
            2 => "RTL in simulation",
            3 => "hardware",
            _ => "of an unknown kind",
        };
        write!(formatter, "Cryptonic NIC {:016x} ({kind}), revision {}", self.serial, self.revision)
    }
}
