//! Memory that a client lets the NIC reach.
//!
//! Pages of a guest lie anywhere in one file, and each may be a mapping of its own: a file is mapped into this process
//! once, whole, and the NIC's mappings are parts of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use cryptonic_pci::vfio_user::{DmaMap, DmaUnmap, dma_flags};
use cryptonic_pci::{DmaAccess, SharedMemory};

use super::Refusal;
use crate::host_memory::HostMemory;

/// As many mappings as VFIO allows by default (its `dma_entry_limit`).
const MAPPINGS_MAX: usize = 65_535;
/// Files that may be in use at once, well below what a process may map.
const FILES_MAX: usize = 4_096;

/// A file, however often it was handed over.
type FileIdentity = (u64, u64);

/// What a client mapped.
#[derive(Default)]
pub(super) struct ClientMemory {
    /// By I/O address: size, and whose part it is.
    mappings: BTreeMap<u64, (u64, FileIdentity)>,
    files: HashMap<FileIdentity, SharedMemory>,
}

impl ClientMemory {
    /// Maps a part of a file.
    pub(super) fn map(&mut self, host: &mut HostMemory, map: &DmaMap, file: File) -> Result<(), Refusal> {
        let refused =
            |reason: &str| Refusal::invalid(format!("memory at {:#x}+{:#x}: {reason}", map.iova, map.bytes));
        let access = match map.flags & (dma_flags::READ | dma_flags::WRITE) {
            0 => return Err(refused("the device may neither read nor write it")),
            dma_flags::READ => DmaAccess::DeviceReads,
            _ => DmaAccess::DeviceReadsAndWrites,
        };
        if self.mappings.len() >= MAPPINGS_MAX || self.files.len() >= FILES_MAX {
            return Err(refused("there are too many mappings"));
        }
        let metadata = file.metadata().map_err(|error| refused(&error.to_string()))?;
        let identity = (metadata.dev(), metadata.ino());
        let memory = match self.files.get(&identity) {
            Some(memory) if memory.bytes() as u64 == metadata.len() => memory.clone(),
            _ => SharedMemory::of_file(file).map_err(|error| refused(&error.to_string()))?,
        };
        host.map(&memory, map.offset, map.bytes, map.iova, access).map_err(refused)?;
        self.files.insert(identity, memory);
        self.mappings.insert(map.iova, (map.bytes, identity));
        Ok(())
    }

    /// Takes back every mapping in a range.
    pub(super) fn unmap(&mut self, host: &mut HostMemory, unmap: &DmaUnmap) -> Result<(), Refusal> {
        let all = unmap.flags & dma_flags::UNMAP_ALL != 0;
        let (iova, bytes) = if all { (0, u64::MAX) } else { (unmap.iova, unmap.bytes) };
        host.unmap_range(iova, bytes)
            .map_err(|reason| Refusal::invalid(format!("memory at {iova:#x}+{bytes:#x}: {reason}")))?;
        let end = iova.saturating_add(bytes);
        self.mappings.retain(|start, _| *start < iova || *start >= end);
        let used: Vec<FileIdentity> = self.mappings.values().map(|(_, identity)| *identity).collect();
        self.files.retain(|identity, _| used.contains(identity));
        Ok(())
    }
}
