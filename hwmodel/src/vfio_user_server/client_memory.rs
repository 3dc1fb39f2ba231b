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
/// Files that may be in use at once: with the eventfds of all vectors, below the 1024 that a process may open by default.
const FILES_MAX: usize = 768;
/// Bytes of all files together, so that they leave room among the addresses of this process (2^47 on x86-64).
const FILE_BYTES_MAX: u64 = 1 << 44;

/// A file, however often it was handed over.
type FileIdentity = (u64, u64);

/// What a client mapped.
#[derive(Default)]
pub(super) struct ClientMemory {
    /// By I/O address: whose part it is.
    mappings: BTreeMap<u64, FileIdentity>,
    files: HashMap<FileIdentity, ClientFile>,
    /// Of all files.
    file_bytes: u64,
}

/// A file that is mapped into this process, as long as a mapping needs it.
struct ClientFile {
    memory: SharedMemory,
    mappings: usize,
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
        if self.mappings.len() >= MAPPINGS_MAX {
            return Err(refused("there are too many mappings"));
        }
        let metadata = file.metadata().map_err(|error| refused(&error.to_string()))?;
        let identity = (metadata.dev(), metadata.ino());
        match self.files.get_mut(&identity) {
            // One that grew since is mapped no further than it was.
            Some(known) => {
                host.map(&known.memory, map.offset, map.bytes, map.iova, access).map_err(refused)?;
                known.mappings += 1;
            }
            None => {
                if self.files.len() >= FILES_MAX {
                    return Err(refused("there are too many files"));
                }
                if metadata.len() > FILE_BYTES_MAX - self.file_bytes {
                    return Err(refused("its file is too long"));
                }
                let memory = SharedMemory::of_file(file).map_err(|error| refused(&error.to_string()))?;
                host.map(&memory, map.offset, map.bytes, map.iova, access).map_err(refused)?;
                self.file_bytes += memory.bytes() as u64;
                self.files.insert(identity, ClientFile { memory, mappings: 1 });
            }
        }
        self.mappings.insert(map.iova, identity);
        Ok(())
    }

    /// Takes back every mapping in a range. One that is partly in it is refused, as by VFIO (type1v2 since Linux 3.10, and
    /// iommufd): what would be left of it is no mapping that the client knows of.
    pub(super) fn unmap(&mut self, host: &mut HostMemory, unmap: &DmaUnmap) -> Result<(), Refusal> {
        if unmap.flags & !dma_flags::UNMAP_ALL != 0 {
            return Err(Refusal::unsupported("a map of written pages is not kept"));
        }
        let all = unmap.flags & dma_flags::UNMAP_ALL != 0;
        let (iova, bytes) = if all { (0, u64::MAX) } else { (unmap.iova, unmap.bytes) };
        host.unmap_range(iova, bytes)
            .map_err(|reason| Refusal::invalid(format!("memory at {iova:#x}+{bytes:#x}: {reason}")))?;
        let end = iova.saturating_add(bytes);
        while let Some((start, identity)) = self.mappings.range(iova..end).next() {
            let (start, identity) = (*start, *identity);
            self.mappings.remove(&start);
            self.release(identity);
        }
        Ok(())
    }

    /// A mapping of a file is gone; with the last one the file goes.
    fn release(&mut self, identity: FileIdentity) {
        let Some(file) = self.files.get_mut(&identity) else { return };
        file.mappings -= 1;
        if file.mappings == 0 {
            self.file_bytes -= file.memory.bytes() as u64;
            self.files.remove(&identity);
        }
    }
}
