//! What vfio says of a function's regions: how large they are, and which parts of them may be mapped.

use std::os::fd::AsFd;

use vfio_bindings::bindings::vfio::{
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP,
};

use super::system_call;

/// Bytes of `struct vfio_region_info` before its capabilities, and of a capability's head, whose identifier, version and
/// offset of the next are all that capabilities have in common (linux/vfio.h).
const INFO_BYTES: usize = 32;
const CAPABILITY_HEAD_BYTES: usize = 8;
/// More capabilities than a description has room for: a list that is longer runs in a circle.
const CAPABILITIES_MAX: usize = system_call::REGION_INFO_BYTES / CAPABILITY_HEAD_BYTES;

/// A region of a function: a BAR, or config space.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Region {
    /// Size in bytes; 0 if the function has no such region.
    pub(super) bytes: u64,
    /// Where it begins in the file of the function.
    pub(super) file_offset: u64,
    /// Which parts of it may be mapped: offset and length.
    pub(super) mappable: Vec<(u64, u64)>,
}

impl Region {
    /// Describes a region; one that vfio does not describe is not there.
    pub(super) fn of(device: impl AsFd, index: u32) -> Region {
        system_call::region_info(device, index)
            .map_or_else(|_| Region::default(), |info| Region::parse(&info))
    }

    /// Reads `struct vfio_region_info` and the capabilities behind it:
    ///
    /// ```text
    ///  0 argsz   4 flags   8 index   12 offset of the first capability, or 0   16 size   24 offset in the file
    /// capability: 0 identifier (16 bits)   2 version (16)   4 offset of the next, or 0   8 ...
    /// sparse mmap:   8 count   12 reserved   16 { 0 offset   8 size } each
    /// ```
    ///
    /// A description that contradicts itself is one of a region that is reached by system calls.
    fn parse(info: &[u8]) -> Region {
        let word = |at: usize| {
            info.get(at..at + 4).and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)))
        };
        let long = |at: usize| {
            info.get(at..at + 8).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)))
        };
        let (Some(bytes_described), Some(flags), Some(bytes), Some(file_offset)) =
            (word(0), word(4), long(16), long(24))
        else {
            return Region::default();
        };
        let mut region = Region { bytes, file_offset, mappable: Vec::new() };
        if flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return region;
        }
        if flags & VFIO_REGION_INFO_FLAG_CAPS == 0 {
            region.mappable.push((0, bytes));
            return region;
        }
        // More capabilities than there was room for: which parts may be mapped is not known.
        if bytes_described as usize > info.len() {
            return region;
        }
        let mut at = word(12).unwrap_or(0) as usize;
        for _ in 0..CAPABILITIES_MAX {
            if at < INFO_BYTES {
                // The end: no capability keeps parts of it from being mapped.
                region.mappable.push((0, bytes));
                break;
            }
            let (Some(head), Some(next)) = (word(at), word(at + 4)) else { break };
            if head & 0xffff == VFIO_REGION_INFO_CAP_SPARSE_MMAP {
                let count = word(at + 8).unwrap_or(0) as usize;
                let areas = (0..count)
                    .map_while(|area| Some((long(at + 16 + area * 16)?, long(at + 24 + area * 16)?)));
                region.mappable = areas.collect();
                break;
            }
            at = next as usize;
        }
        region
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MMAP: u32 = VFIO_REGION_INFO_FLAG_MMAP;
    const WITH_CAPABILITIES: u32 = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
    /// VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, which says nothing more.
    const MSIX_MAPPABLE: u32 = 3;
    const SPARSE: u32 = VFIO_REGION_INFO_CAP_SPARSE_MMAP;

    /// A description of 64 KiB at 1 GiB of the file, its first capability and what stands behind the structure.
    fn info(flags: u32, first: u32, behind: &[u32]) -> Vec<u8> {
        let mut words = vec![32 + behind.len() as u32 * 4, flags, 2, first, 0x1_0000, 0, 0x4000_0000, 0];
        words.extend(behind);
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn sparse(next: u32, areas: &[(u32, u32)]) -> Vec<u32> {
        let mut words = vec![1 << 16 | SPARSE, next, areas.len() as u32, 0];
        words.extend(areas.iter().flat_map(|(offset, bytes)| [*offset, 0, *bytes, 0]));
        words
    }

    #[test]
    fn what_may_be_mapped_is_what_vfio_says() {
        let whole = vec![(0, 0x1_0000)];
        let areas = [(0x1000, 0x2000), (0x8000, 0x1000)];
        let parts = vec![(0x1000, 0x2000), (0x8000, 0x1000)];
        let msix = vec![1 << 16 | MSIX_MAPPABLE, 0];
        let msix_then_sparse = [vec![1 << 16 | MSIX_MAPPABLE, 40], sparse(0, &areas)].concat();
        for (what, info, mappable) in [
            ("no mapping at all", info(0, 0, &[]), vec![]),
            ("all of it", info(MMAP, 0, &[]), whole.clone()),
            ("all of it, MSI-X table and all", info(WITH_CAPABILITIES, 32, &msix), whole.clone()),
            ("areas", info(WITH_CAPABILITIES, 32, &sparse(0, &areas)), parts.clone()),
            ("areas in the second capability", info(WITH_CAPABILITIES, 32, &msix_then_sparse), parts),
            ("no area", info(WITH_CAPABILITIES, 32, &sparse(0, &[])), vec![]),
            ("no capability in the list", info(WITH_CAPABILITIES, 0, &[]), whole),
        ] {
            let region = Region::parse(&info);
            assert_eq!((region.bytes, region.file_offset), (0x1_0000, 0x4000_0000), "{what}");
            assert_eq!(region.mappable, mappable, "{what}");
        }
    }

    #[test]
    fn a_description_that_contradicts_itself_lets_nothing_be_mapped() {
        let circle = [1 << 16 | MSIX_MAPPABLE, 32];
        let too_many = [1 << 16 | SPARSE, 0, 1000, 0, 0x1000, 0, 0x1000, 0];
        let mut longer = info(WITH_CAPABILITIES, 32, &sparse(0, &[(0, 0x1000)]));
        longer[..4].copy_from_slice(&4096_u32.to_ne_bytes());
        for (what, info, mappable) in [
            ("a circle", info(WITH_CAPABILITIES, 32, &circle), vec![]),
            ("a capability outside", info(WITH_CAPABILITIES, 4000, &[]), vec![]),
            ("more capabilities than there was room for", longer, vec![]),
            ("fewer areas than it counts", info(WITH_CAPABILITIES, 32, &too_many), vec![(0x1000, 0x1000)]),
        ] {
            assert_eq!(Region::parse(&info).mappable, mappable, "{what}");
        }
        assert_eq!(Region::parse(&[0; 31]), Region::default());
        assert_eq!(Region::parse(&[]), Region::default());
    }
}
