//! What neither `vfio-ioctls` nor `rustix` has safe calls for.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use cryptonic_pci::SharedMemory;
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, Updater, ioctl, opcode};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_NOIOMMU_IOMMU, VFIO_TYPE,
    vfio_iommu_type1_dma_map,
};
use vfio_ioctls::{VfioContainer, VfioDevice};

// The numbers are those of linux/vfio.h.
const SET_IOMMU: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 2);
const GROUP_SET_CONTAINER: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 4);
const DEVICE_GET_REGION_INFO: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 8);
const DEVICE_GET_IRQ_INFO: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 9);
const DEVICE_SET_IRQS: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 10);
const DEVICE_RESET: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 11);
const IOMMU_MAP_DMA: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 13);

/// The most interrupts of a kind that are set at once: as many vectors as MSI-X has (PCI 3.0 6.8.2).
const INTERRUPTS_MAX: usize = 2048;
/// Room for the description of a region: its capabilities take a few dozen bytes.
pub(super) const REGION_INFO_BYTES: usize = 4096;
/// Words of `struct vfio_irq_set` before the file descriptors.
const IRQ_SET_WORDS: usize = 5;

/// Maps memory for the functions of a container; they may write it only if `writes`.
pub(super) fn map_in_container(
    container: &VfioContainer,
    memory: &SharedMemory,
    iova: u64,
    writes: bool,
) -> io::Result<()> {
    let map = vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
        flags: VFIO_DMA_MAP_FLAG_READ | if writes { VFIO_DMA_MAP_FLAG_WRITE } else { 0 },
        vaddr: memory.address() as u64,
        iova,
        size: memory.bytes() as u64,
    };
    // SAFETY: the opcode takes this structure, whose address and size are those of one mapping. The kernel pins the pages
    // behind it, so the function reaches that memory whatever becomes of the mapping; on our side it is accessed by
    // atomics and volatile copies alone (`SharedMemory`).
    unsafe { ioctl(borrow(container), Setter::<IOMMU_MAP_DMA, _>::new(map)) }?;
    Ok(())
}

/// Resets a function.
pub(super) fn reset(device: impl AsFd) -> Result<(), Errno> {
    // SAFETY: the opcode takes no argument. Mappings of BARs stay valid: what is read of them meanwhile waits for the
    // end of the reset.
    unsafe { ioctl(device, NoArg::<DEVICE_RESET>::new()) }
}

/// Has interrupt `index` signal these, one for each vector from 0 on; none of them turns it off.
pub(super) fn set_interrupts(device: impl AsFd, index: u32, signals: &[OwnedFd]) -> Result<(), Errno> {
    let mut words = [0_u32; IRQ_SET_WORDS + INTERRUPTS_MAX];
    let Some(places) = words.get_mut(IRQ_SET_WORDS..IRQ_SET_WORDS + signals.len()) else {
        return Err(Errno::INVAL);
    };
    for (place, signal) in places.iter_mut().zip(signals) {
        *place = signal.as_raw_fd() as u32;
    }
    let data = if signals.is_empty() { VFIO_IRQ_SET_DATA_NONE } else { VFIO_IRQ_SET_DATA_EVENTFD };
    let bytes = (IRQ_SET_WORDS + signals.len()) * size_of::<u32>();
    words[..IRQ_SET_WORDS].copy_from_slice(&[
        bytes as u32,
        data | VFIO_IRQ_SET_ACTION_TRIGGER,
        index,
        0, // The first vector.
        signals.len() as u32,
    ]);
    // SAFETY: the opcode takes `struct vfio_irq_set`: five words, the first of them its size in bytes, then one file
    // descriptor a vector, each of 32 bits. The array holds more than that size, and the kernel only reads it.
    unsafe { ioctl(device, Setter::<DEVICE_SET_IRQS, _>::new(words)) }
}

/// The file behind a value of the crate.
pub(super) fn borrow(of: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the crate's values own their file as long as they live, and the result lives no longer than the borrow.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}

/// Takes the file out of a device of the crate, which is never dropped: a device that is dropped looks for its group in /sys
/// and panics if that is gone, as it is once a removal goes on, for closing the device is what a removal waits for. The kernel
/// ends the rest when the last file is closed. A few hundred bytes of description stay behind.
pub(super) fn take_file<T>(device: VfioDevice, space: &Arc<T>) -> OwnedFd {
    let device = ManuallyDrop::new(device);
    // SAFETY: the device was made with a clone of this Arc and has kept it; it is neither dropped nor used again, so that
    // its count is ours to give up. The caller holds a count of its own.
    unsafe { Arc::decrement_strong_count(Arc::as_ptr(space)) };
    // SAFETY: the crate closes the file only when the device is dropped, which it is not.
    unsafe { OwnedFd::from_raw_fd(device.as_raw_fd()) }
}

/// Puts a group that no IOMMU holds back into a container, and opens a function of it.
pub(super) fn open_without_iommu(
    container: impl AsFd,
    group: impl AsFd,
    address: &CStr,
) -> Result<OwnedFd, Errno> {
    let container = container.as_fd();
    // SAFETY: the opcode takes a pointer to a file descriptor of 32 bits.
    unsafe { ioctl(&group, Setter::<GROUP_SET_CONTAINER, i32>::new(container.as_raw_fd())) }?;
    // SAFETY: the opcode takes a number.
    unsafe { ioctl(container, IntegerSetter::<SET_IOMMU>::new_usize(VFIO_NOIOMMU_IOMMU as usize)) }?;
    // SAFETY: `OpenFunction` is made for this opcode.
    unsafe { ioctl(&group, OpenFunction(address)) }
}

/// VFIO_GROUP_GET_DEVICE_FD: takes the name of a function, gives a file.
struct OpenFunction<'a>(&'a CStr);

// SAFETY: the opcode reads a string that ends with a NUL, which lives as long as `self`, and gives a new file descriptor.
unsafe impl Ioctl for OpenFunction<'_> {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 6)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_ptr().cast_mut().cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: errors never come here, and the file is nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(output) })
    }
}

/// Has vfio describe a region: `struct vfio_region_info`, and its capabilities.
pub(super) fn region_info(device: impl AsFd, index: u32) -> Result<[u8; REGION_INFO_BYTES], Errno> {
    let mut words = [0_u32; REGION_INFO_BYTES / size_of::<u32>()];
    words[0] = REGION_INFO_BYTES as u32;
    words[2] = index;
    // SAFETY: the opcode takes this structure, whose first word is how many bytes there are to write to. It is aligned for
    // words, as which the kernel copies it, and all it holds is plain numbers.
    unsafe { ioctl(device, Updater::<DEVICE_GET_REGION_INFO, _>::new(&mut words)) }?;
    let mut bytes = [0; REGION_INFO_BYTES];
    for (bytes, word) in bytes.chunks_exact_mut(size_of::<u32>()).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(bytes)
}

/// How many interrupts of a kind a function has.
pub(super) fn interrupts(device: impl AsFd, index: u32) -> Result<u32, Errno> {
    // `struct vfio_irq_info`: its size, flags, index, count.
    let mut words = [size_of::<[u32; 4]>() as u32, 0, index, 0];
    // SAFETY: the opcode takes this structure.
    unsafe { ioctl(device, Updater::<DEVICE_GET_IRQ_INFO, _>::new(&mut words)) }?;
    Ok(words[3])
}
