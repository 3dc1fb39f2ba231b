//! What a function is attached by: iommufd and its own character device, or a container and its group.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use cryptonic_pci::sysfs::{self, Function};
use cryptonic_pci::{DmaAccess, HostError, SharedMemory};
use iommufd_bindings::iommufd::{
    iommu_ioas_map, iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE, iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
};
use iommufd_ioctls::{IommuFd, IommufdError};
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioIommufd, VfioOps, VfioRegionInfoCap};

use super::{obstacles, system_call};

/// A function that is open, and its I/O address space.
pub(super) struct Attachment {
    /// Never dropped: see `drop`.
    device: ManuallyDrop<VfioDevice>,
    space: Space,
}

enum Space {
    Container(Arc<VfioContainer>),
    Iommufd(Arc<VfioIommufd>),
}

/// A BAR as vfio describes it.
pub(super) struct Region {
    /// Size in bytes; 0 if the function has no such BAR.
    pub(super) bytes: u64,
    /// Where it begins in the file of the function.
    pub(super) file_offset: u64,
    /// Which parts of it may be mapped: offset and length.
    pub(super) mappable: Vec<(u64, u64)>,
}

impl Attachment {
    /// Opens a function.
    pub(super) fn open(root: &Path, function: &Function) -> Result<Attachment, HostError> {
        let folder = sysfs::folder(root, function.address);
        // Where iommufd is there but not for us, the group may be.
        let iommufd =
            folder.join("vfio-dev").is_dir().then(open_iommufd).and_then(Result::ok).and_then(|space| {
                let ops: Arc<dyn VfioOps> = space.clone();
                Some((VfioDevice::new(&folder, ops, true).ok()?, Space::Iommufd(space)))
            });
        let opened = match iommufd {
            Some(opened) => Ok(opened),
            None => VfioContainer::new(None).map(Arc::new).and_then(|space| {
                let ops: Arc<dyn VfioOps> = space.clone();
                Ok((VfioDevice::new(&folder, ops, true)?, Space::Container(space)))
            }),
        };
        let (device, space) = opened.map_err(|error| obstacles::opening(function, &error))?;
        Ok(Attachment { device: ManuallyDrop::new(device), space })
    }

    pub(super) fn is_iommufd(&self) -> bool {
        matches!(self.space, Space::Iommufd(_))
    }

    /// Describes a BAR.
    pub(super) fn region(&self, index: u32) -> Region {
        let bytes = self.device.get_region_size(index);
        let mut mappable = Vec::new();
        if self.device.get_region_flags(index) & VFIO_REGION_INFO_FLAG_MMAP != 0 {
            let mut sparse = None;
            for capability in self.device.get_region_caps(index) {
                if let VfioRegionInfoCap::SparseMmap(areas) = capability {
                    sparse = Some(areas.areas);
                }
            }
            match sparse {
                Some(areas) => mappable.extend(areas.iter().map(|area| (area.offset, area.size))),
                None => mappable.push((0, bytes)),
            }
        }
        Region { bytes, file_offset: self.device.get_region_offset(index), mappable }
    }

    /// How many interrupts of a kind the function has.
    pub(super) fn interrupts(&self, index: u32) -> u32 {
        self.device.get_irq_info(index).map_or(0, |interrupts| interrupts.count)
    }

    pub(super) fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        let mut bytes = [0; 4];
        self.read(self.config(offset)?, &mut bytes)
            .map_err(|error| failed(format_args!("reading config space at {offset:#x}"), error))?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        let bytes = value.to_le_bytes();
        self.write(self.config(offset)?, &bytes)
            .map_err(|error| failed(format_args!("writing config space at {offset:#x}"), error))
    }

    fn config(&self, offset: u16) -> Result<u64, HostError> {
        let index = VFIO_PCI_CONFIG_REGION_INDEX;
        if self.device.get_region_flags(index) & VFIO_REGION_INFO_FLAG_READ == 0 {
            return Err(HostError::Unsupported("config space"));
        }
        Ok(self.device.get_region_offset(index) + u64::from(offset))
    }

    /// Reads from the file of the function. The crate's own call would swallow the error.
    pub(super) fn read(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let wanted = bytes.len();
        let read = rustix::io::pread(self, bytes, file_offset)?;
        if read == wanted { Ok(()) } else { Err(Errno::IO) }
    }

    /// Writes to the file of the function.
    pub(super) fn write(&self, file_offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let written = rustix::io::pwrite(self, bytes, file_offset)?;
        if written == bytes.len() { Ok(()) } else { Err(Errno::IO) }
    }

    /// Lets the function reach memory, which it may write only if `access` says so.
    pub(super) fn map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        let writes = access == DmaAccess::DeviceReadsAndWrites;
        let result = match &self.space {
            // The crate would let the function write all that it maps.
            Space::Container(container) => {
                system_call::map_in_container(container.as_ref(), memory, iova, writes)
            }
            Space::Iommufd(space) => map_in_iommufd(space, memory, iova, writes),
        };
        result.map_err(|error| HostError::Map {
            iova,
            reason: obstacles::mapping(memory.bytes(), error.raw_os_error()),
        })
    }

    /// Ends a mapping of exactly this size.
    pub(super) fn unmap(&self, iova: u64, bytes: usize) -> Result<(), HostError> {
        let result = match &self.space {
            Space::Container(container) => container.vfio_dma_unmap(iova, bytes),
            Space::Iommufd(space) => space.vfio_dma_unmap(iova, bytes),
        };
        result.map_err(|error| HostError::Map { iova, reason: error.to_string() })
    }

    /// Resets the function.
    pub(super) fn reset(&self) -> Result<(), HostError> {
        match system_call::reset(self) {
            Ok(()) => Ok(()),
            // The kernel knows no way to reset this function (VFIO_DEVICE_FLAGS_RESET is not set).
            Err(Errno::INVAL | Errno::NOTTY) => Err(HostError::Unsupported("a function-level reset")),
            Err(error) => Err(failed("the reset", error)),
        }
    }
}

impl AsFd for Attachment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        system_call::borrow(&*self.device)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // A device of the crate that is dropped looks for its group in /sys and panics if that is gone, as it is once a
        // removal goes on: closing the device is what a removal waits for. So the device is closed here, and what it shares
        // with the space is released; the kernel ends the rest when the last file is closed. A few hundred bytes of
        // description stay behind.
        system_call::close_device(&self.device);
        match &self.space {
            Space::Container(space) => system_call::release(space),
            Space::Iommufd(space) => system_call::release(space),
        }
    }
}

fn open_iommufd() -> Result<Arc<VfioIommufd>, VfioError> {
    let iommufd = IommuFd::new().map_err(VfioError::NewVfioIommufd)?;
    VfioIommufd::new(Arc::new(iommufd), None, None).map(Arc::new)
}

fn map_in_iommufd(space: &VfioIommufd, memory: &SharedMemory, iova: u64, writes: bool) -> io::Result<()> {
    let bytes = memory.bytes() as u64;
    let result = match space.ioas().map_file(memory.file().as_raw_fd(), 0, bytes, iova, writes) {
        // The first kernels with iommufd take addresses alone.
        Err(IommufdError::IommuIoasMapFile(error)) if error.errno() == Errno::NOTTY.raw_os_error() => {
            let mut flags = iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                | iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE;
            if writes {
                flags |= iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE;
            }
            space.iommufd().map_iommu_ioas(&iommu_ioas_map {
                size: size_of::<iommu_ioas_map>() as u32,
                flags,
                ioas_id: space.ioas().id(),
                __reserved: 0,
                user_va: memory.address() as u64,
                length: bytes,
                iova,
            })
        }
        other => other,
    };
    result.map_err(|error| match error {
        IommufdError::IommuIoasMap(error) | IommufdError::IommuIoasMapFile(error) => error.into(),
        other => io::Error::other(other.to_string()),
    })
}

/// An access to the function's file that failed: it is gone, or the kernel says why not.
pub(super) fn failed(access: impl fmt::Display, error: Errno) -> HostError {
    match error {
        Errno::NODEV | Errno::NXIO | Errno::IO => HostError::Gone,
        error => HostError::Access { access: access.to_string(), reason: error.to_string() },
    }
}
