//! What neither `vfio-ioctls` nor `rustix` has safe calls for.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use cryptonic_pci::SharedMemory;
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_TYPE, vfio_iommu_type1_dma_map,
};
use vfio_ioctls::{VfioContainer, VfioDevice};

// The numbers are those of linux/vfio.h.
const DEVICE_SET_IRQS: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 10);
const DEVICE_RESET: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 11);
const IOMMU_MAP_DMA: Opcode = opcode::none(VFIO_TYPE, VFIO_BASE as u8 + 13);

/// The most interrupts of a kind that are set at once: as many vectors as MSI-X has (PCI 3.0 6.8.2).
const INTERRUPTS_MAX: usize = 2048;
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

/// Closes the file of a device of the crate that is never to be dropped.
pub(super) fn close_device(device: &VfioDevice) {
    // SAFETY: called once, from the drop of its owner; the crate closes the file only when the device is dropped, which
    // it is not.
    drop(unsafe { OwnedFd::from_raw_fd(device.as_raw_fd()) });
}

/// Gives up what a device of the crate that is never to be dropped holds of its address space.
pub(super) fn release<T>(space: &Arc<T>) {
    // SAFETY: the device was made with a clone of this Arc and has kept it; it is neither dropped nor used again, so that
    // its count is ours to give up. Called once, from the drop of its owner, which holds a count of its own.
    unsafe { Arc::decrement_strong_count(Arc::as_ptr(space)) };
}
