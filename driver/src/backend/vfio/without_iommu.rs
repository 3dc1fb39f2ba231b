//! A function that no IOMMU holds back (CONFIG_VFIO_NOIOMMU): it sees memory at its physical addresses, all of it.
//!
//! vfio gives such a function to who may do anything with the machine anyway (CAP_SYS_RAWIO), and taints the kernel. It
//! maps and pins nothing, so memory lies in huge pages, which the kernel neither swaps nor moves while they are in use; where
//! they are, `/proc/self/pagemap` tells (Documentation/admin-guide/mm/pagemap.rst).

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cryptonic_pci::memory::HUGE_PAGE_BYTES;
use cryptonic_pci::sysfs::Function;
use cryptonic_pci::{HostError, SharedMemory};

use super::{obstacles, system_call};

const CONTAINER: &str = "dev/vfio/vfio";
const PAGE_BYTES: u64 = 4096;
/// An entry of pagemap, for each page: its frame in the low 55 bits, bit 63 when it is in memory.
const ENTRY_BYTES: u64 = 8;
const ENTRY_FRAME: u64 = (1 << 55) - 1;
const ENTRY_PRESENT: u64 = 1 << 63;
/// How many pages more than are wanted are looked at, one number after the other.
const MORE_PAGES: [usize; 5] = [0, 4, 16, 64, 256];

/// What keeps a function open besides its own file.
pub(super) struct WithoutIommu {
    _group: File,
    _container: File,
}

impl WithoutIommu {
    /// Opens a function whose group is one without an IOMMU.
    pub(super) fn open(root: &Path, function: &Function) -> Result<(OwnedFd, WithoutIommu), HostError> {
        let open = |path: &str| {
            let opened = OpenOptions::new().read(true).write(true).open(root.join(path));
            opened.map_err(|error| obstacles::opening_without_iommu(&format!("/{path}"), &error))
        };
        let number = function.group.as_ref().map_or(0, |group| group.number);
        let (container, group) = (open(CONTAINER)?, open(&format!("dev/vfio/noiommu-{number}"))?);
        let address = function.address;
        let name = CString::new(address.to_string()).unwrap_or_default();
        let device = system_call::open_without_iommu(&container, &group, &name).map_err(|error| {
            HostError::Refused {
                reason: format!(
                    "vfio does not give {address} away without an IOMMU ({error}): the kernel's log says why"
                ),
            }
        })?;
        Ok((device, WithoutIommu { _group: group, _container: container }))
    }
}

/// Zeroed memory in huge pages that follow one another. The kernel gives them in any order, so some more are taken, of which
/// those that do not fit go back.
pub(super) fn memory(bytes: usize) -> io::Result<SharedMemory> {
    let pages = bytes.max(1).div_ceil(HUGE_PAGE_BYTES);
    for more in MORE_PAGES {
        let memory = SharedMemory::new_huge((pages + more) * HUGE_PAGE_BYTES)?;
        if !memory.has_huge_pages() {
            break;
        }
        let addresses = page_addresses(&memory).map_err(io::Error::other)?;
        if let Some(order) = run(&addresses, pages) {
            return memory.into_huge_pages(&order);
        }
    }
    Err(io::Error::other(format!(
        "without an IOMMU memory lies in huge pages that follow one another, and {pages} such are not free: `sysctl \
         vm.nr_hugepages=128`, or hugepages=128 on the kernel's command line"
    )))
}

/// Where a function sees memory that [`memory`] gave.
pub(super) fn physical_address(memory: &SharedMemory) -> Result<u64, HostError> {
    let refused = |reason: String| HostError::Refused { reason: format!("memory for the device: {reason}") };
    if !memory.has_huge_pages() {
        return Err(refused("without an IOMMU it has to lie in huge pages".to_owned()));
    }
    let addresses = page_addresses(memory).map_err(refused)?;
    let follow = addresses.windows(2).all(|two| two[0].checked_add(HUGE_PAGE_BYTES as u64) == Some(two[1]));
    match addresses.first() {
        Some(address) if follow => Ok(*address),
        _ => Err(refused("its huge pages do not follow one another".to_owned())),
    }
}

/// Pages by number, so many of them, whose addresses follow one another.
fn run(addresses: &[u64], pages: usize) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..addresses.len()).collect();
    order.sort_unstable_by_key(|page| addresses[*page]);
    let span = (pages.checked_sub(1)? * HUGE_PAGE_BYTES) as u64;
    // They are sorted, and no two are the same: the last is that far from the first only if none is missing.
    order
        .windows(pages)
        .find(|run| addresses[run[pages - 1]] - addresses[run[0]] == span)
        .map(<[usize]>::to_vec)
}

/// The physical address of each huge page of a memory.
fn page_addresses(memory: &SharedMemory) -> Result<Vec<u64>, String> {
    let failed = |error: io::Error| format!("/proc/self/pagemap: {error}");
    let pagemap = File::open("/proc/self/pagemap").map_err(failed)?;
    let mut addresses = Vec::new();
    for offset in (0..memory.bytes()).step_by(HUGE_PAGE_BYTES) {
        // A huge page is there from the first access on, be it a read.
        memory.read_word(offset).map_err(|error| error.to_string())?;
        let mut entry = [0; ENTRY_BYTES as usize];
        let page = (memory.address() as u64 + offset as u64) / PAGE_BYTES;
        pagemap.read_exact_at(&mut entry, page * ENTRY_BYTES).map_err(failed)?;
        addresses.push(frame_address(u64::from_ne_bytes(entry))?);
    }
    Ok(addresses)
}

/// The physical address of a page by its entry.
fn frame_address(entry: u64) -> Result<u64, &'static str> {
    match (entry & ENTRY_PRESENT != 0, entry & ENTRY_FRAME) {
        (false, _) => Err("a page of it is not in memory"),
        // So it is shown to who lacks the capability.
        (true, 0) => Err("this process may not see physical addresses, for which it needs CAP_SYS_ADMIN"),
        (true, frame) => Ok(frame * PAGE_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_pagemap_tells_where_a_page_is() {
        for (entry, address) in [
            (ENTRY_PRESENT | 0x1_2345, Some(0x1234_5000)),
            // Soft-dirty, exclusively mapped and of a file (bits 55, 56, 61).
            (ENTRY_PRESENT | 1 << 55 | 1 << 56 | 1 << 61 | 2, Some(0x2000)),
            (ENTRY_PRESENT, None),
            (0x1_2345, None),
            (0, None),
        ] {
            assert_eq!(frame_address(entry).ok(), address, "{entry:#x}");
        }
    }

    #[test]
    fn pages_are_taken_that_follow_one_another() {
        let page = |number: u64| number * HUGE_PAGE_BYTES as u64;
        for (numbers, pages, order) in [
            (&[7][..], 1, Some(vec![0])),
            (&[3, 2, 1], 3, Some(vec![2, 1, 0])),
            (&[9, 4, 6, 5, 1], 3, Some(vec![1, 3, 2])),
            (&[9, 4, 6, 5, 1], 4, None),
            (&[1, 3, 5], 2, None),
            (&[1, 2], 3, None),
            (&[], 1, None),
        ] {
            let addresses: Vec<u64> = numbers.iter().map(|number| page(*number)).collect();
            assert_eq!(run(&addresses, pages), order, "{pages} of {numbers:?}");
        }
    }

    #[test]
    fn memory_of_small_pages_is_refused() {
        let memory = SharedMemory::new(4096).expect("memory");
        let error = physical_address(&memory).expect_err("its pages may move").to_string();
        assert!(error.contains("huge pages"), "{error}");
    }
}
