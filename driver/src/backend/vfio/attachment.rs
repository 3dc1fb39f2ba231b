//! What a function is attached by: iommufd and its own character device, a container and its group, or, if the user
//! wants that, a group that no IOMMU holds back.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
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
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioIommufd, VfioOps};

use super::region::Region;
use super::without_iommu::{self, WithoutIommu};
use super::{obstacles, system_call};

/// Memory of at least this many bytes is worth a huge page.
const HUGE_FROM_BYTES: usize = 1 << 20;

/// A function that is open, and its I/O address space. In this order they are closed.
pub(super) struct Attachment {
    device: OwnedFd,
    space: Space,
    /// Config space.
    config: Region,
}

enum Space {
    Container(Arc<VfioContainer>),
    Iommufd(Arc<VfioIommufd>),
    /// The addresses of memory itself.
    Physical(#[expect(dead_code, reason = "it keeps the function open")] WithoutIommu),
}

impl Attachment {
    /// Opens a function that an IOMMU holds back.
    pub(super) fn open(root: &Path, function: &Function) -> Result<Attachment, HostError> {
        let folder = sysfs::folder(root, function.address);
        // Where iommufd is there but not for us, the group may be.
        let iommufd =
            folder.join("vfio-dev").is_dir().then(open_iommufd).and_then(Result::ok).and_then(|space| {
                let ops: Arc<dyn VfioOps> = space.clone();
                let device = VfioDevice::new(&folder, ops, true).ok()?;
                Some(Attachment::new(system_call::take_file(device, &space), Space::Iommufd(space)))
            });
        if let Some(attachment) = iommufd {
            return Ok(attachment);
        }
        let opened = VfioContainer::new(None).map(Arc::new).and_then(|space| {
            let ops: Arc<dyn VfioOps> = space.clone();
            let device = VfioDevice::new(&folder, ops, true)?;
            Ok(Attachment::new(system_call::take_file(device, &space), Space::Container(space)))
        });
        opened.map_err(|error| obstacles::opening(function, &error))
    }

    /// Opens a function that nothing holds back.
    pub(super) fn open_without_iommu(root: &Path, function: &Function) -> Result<Attachment, HostError> {
        let (device, space) = WithoutIommu::open(root, function)?;
        Ok(Attachment::new(device, Space::Physical(space)))
    }

    fn new(device: OwnedFd, space: Space) -> Attachment {
        let config = Region::of(&device, VFIO_PCI_CONFIG_REGION_INDEX);
        Attachment { device, space, config }
    }

    pub(super) fn is_iommufd(&self) -> bool {
        matches!(self.space, Space::Iommufd(_))
    }

    /// Zeroed memory that the function can be let reach.
    pub(super) fn memory(&self, bytes: usize) -> io::Result<SharedMemory> {
        match &self.space {
            Space::Physical(_) => without_iommu::memory(bytes),
            _ if bytes >= HUGE_FROM_BYTES => SharedMemory::new_huge(bytes),
            _ => SharedMemory::new(bytes),
        }
    }

    /// Where the function sees memory that the driver would have at `wanted`.
    pub(super) fn address_of(&self, memory: &SharedMemory, wanted: u64) -> Result<u64, HostError> {
        match &self.space {
            Space::Physical(_) => without_iommu::physical_address(memory),
            Space::Container(_) | Space::Iommufd(_) => Ok(wanted),
        }
    }

    /// Whether memory that is no longer mapped is out of the function's reach at once.
    pub(super) fn holds_back(&self) -> bool {
        !matches!(self.space, Space::Physical(_))
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
        if self.config.bytes < u64::from(offset) + 4 {
            return Err(HostError::Unsupported("config space"));
        }
        Ok(self.config.file_offset + u64::from(offset))
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
            // It reaches all memory anyway, and may write it.
            Space::Physical(_) => {
                return match without_iommu::physical_address(memory)? {
                    address if address == iova => Ok(()),
                    address => Err(HostError::Map {
                        iova,
                        reason: format!("without an IOMMU this memory is at {address:#x} and nowhere else"),
                    }),
                };
            }
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
            Space::Physical(_) => return Ok(()),
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
        self.device.as_fd()
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
