//! Memory that a client hands over: it is mapped into this process as long as a mapping of the client needs it.

use std::os::fd::AsFd;
use std::time::Instant;

use crate::raw::*;

const PAGE: u64 = 4096;
const BOTH: u32 = 3;
const UNMAP_ALL: u32 = 1 << 1;

#[test]
fn memory_is_mapped_as_long_as_a_mapping_needs_it() {
    let served = Served::start();
    let mut client = served.attach();
    let before = descriptors();
    let (one, other) = (sealed("kept-one", 8 * PAGE), sealed("kept-other", PAGE));
    for page in 0..4 {
        client.map(Some(&one), page * PAGE, 0x10_0000 + page * 0x2000, PAGE, BOTH).expect("a page");
    }
    client.map(Some(&other), 0, 0x20_0000, PAGE, 1).expect("a page to read");
    assert_eq!([mappings_of("kept-one"), mappings_of("kept-other")], [1, 1]);
    assert_eq!(descriptors(), before + 4, "two here, two there");

    client.unmap(0x10_0000, PAGE, 0).expect("one page");
    client.unmap(0x10_2000, 0x3000, 0).expect("more than is mapped there");
    assert_eq!(mappings_of("kept-one"), 1);
    client.unmap(0, 0x20_0000, 0).expect("a range that holds the last");
    assert_eq!([mappings_of("kept-one"), mappings_of("kept-other")], [0, 1]);
    client.unmap(0x50_0000, PAGE, 0).expect("nothing is there");
    client.unmap(0, 0, UNMAP_ALL).expect("all");
    assert_eq!(mappings_of("kept-other"), 0);
    drop((one, other));
    assert_eq!(descriptors(), before);
}

/// As VFIO's type1v2 and iommufd: what would be left is no mapping that the client knows of.
#[test]
fn an_unmap_that_cuts_a_mapping_takes_nothing() {
    let served = Served::start();
    let mut client = served.attach();
    let file = sealed("uncut", 8 * PAGE);
    client.map(Some(&file), 0, 0x10_0000, 4 * PAGE, BOTH).expect("mapped");
    client.map(Some(&file), 0, 0x20_0000, PAGE, BOTH).expect("mapped");
    for (iova, bytes) in
        [(0x10_1000, PAGE), (0x10_0000, PAGE), (0x10_3000, 0x10_0000), (0, 0x10_1000), (0x10_1000, 0)]
    {
        assert_eq!(client.unmap(iova, bytes, 0), Err(EINVAL), "{iova:#x}+{bytes:#x}");
    }
    assert_eq!(client.unmap(0x10_0000, 4 * PAGE, 1), Err(ENOTSUP), "with a map of written pages");
    assert_eq!(client.map(Some(&file), 0, 0x10_3000, PAGE, BOTH), Err(EINVAL), "it is still mapped");
    assert_eq!(client.map(Some(&file), 0, 0x20_0000, PAGE, BOTH), Err(EINVAL), "so is this");
    client.unmap(0, u64::MAX, 0).expect("a range that holds both");
    assert_eq!(mappings_of("uncut"), 0);
}

#[test]
fn mappings_that_make_no_sense_are_refused_and_leave_nothing() {
    let served = Served::start();
    let mut client = served.attach();
    let file = sealed("senseless", 4 * PAGE);
    let before = descriptors();
    let top = u64::MAX - PAGE + 1;
    for (offset, iova, bytes, flags) in [
        (0, 0x1000, 0, BOTH),
        (0, 0x1000, 5 * PAGE, BOTH),
        (PAGE, 0x1000, 4 * PAGE, BOTH),
        (top, 0x1000, PAGE, BOTH),
        (top, 0x1000, 2 * PAGE, BOTH),
        (0, top, PAGE, BOTH),
        (0, top, 2 * PAGE, BOTH),
        (0, 0x1000, u64::MAX, BOTH),
        (0, 0x1000, top, BOTH),
        (0, 0x1001, PAGE, BOTH),
        (1, 0x1000, PAGE, BOTH),
        (0, 0x1000, 100, BOTH),
        (0, 0x1000, PAGE, 0),
    ] {
        assert_eq!(
            client.map(Some(&file), offset, iova, bytes, flags),
            Err(EINVAL),
            "{offset:#x} {iova:#x} {bytes:#x}"
        );
        assert_eq!(mappings_of("senseless"), 0);
    }
    client.map(None, 0, 0xfffc_0000, PAGE, BOTH).expect("what has no file is another device's, and no error");
    client.unmap(0xfffc_0000, PAGE, 0).expect("nor is its end");
    let two = [file.as_fd(), file.as_fd()];
    assert_eq!(client.ask(DMA_MAP, &map_payload(0, 0x1000, PAGE, BOTH), &two), Err(EINVAL), "two files");
    assert_eq!(descriptors(), before);
}

/// VFIO allows 65 535 mappings; a guest may have one a page. Each is gone as quickly as it came.
#[test]
fn there_may_be_65_535_mappings_and_no_more() {
    const MAPPINGS: u64 = 65_535;
    let served = Served::start();
    let mut client = served.attach();
    let file = sealed("many", 16 * PAGE);
    let before = descriptors();
    let started = Instant::now();
    let files = [file.as_fd()];
    for page in 0..MAPPINGS {
        let payload = map_payload(page % 16 * PAGE, (page * 7919 % MAPPINGS) << 13, PAGE, BOTH);
        // Files on their way are counted, so the answer is wanted now and then.
        match page % 128 {
            0 => drop(client.ask(DMA_MAP, &payload, &files).expect("mapped")),
            _ => drop(client.command(DMA_MAP, 1 << 4, &payload, &files)),
        }
    }
    let mapped = started.elapsed();
    assert_eq!(client.map(Some(&file), 0, MAPPINGS << 13, PAGE, BOTH), Err(EINVAL));
    assert_eq!(mappings_of("/memfd:many"), 1);
    assert_eq!(descriptors(), before + 1);
    let started = Instant::now();
    for page in 0..MAPPINGS {
        let payload = [words(&[24, 0]), longs(&[page << 13, PAGE])].concat();
        assert_eq!(mappings_of_some(page), 1);
        match page % 128 {
            0 => drop(client.ask(DMA_UNMAP, &payload, &[]).expect("unmapped")),
            _ => drop(client.command(DMA_UNMAP, 1 << 4, &payload, &[])),
        }
    }
    client.map(Some(&file), 0, 0, 16 * PAGE, BOTH).expect("there is room again");
    client.unmap(0, 16 * PAGE, 0).expect("unmapped");
    assert_eq!(mappings_of("/memfd:many"), 0);
    println!("65 535 mappings: {mapped:?} to map, {:?} to unmap one by one", started.elapsed());
}

/// Now and then, that the file is still there.
fn mappings_of_some(page: u64) -> usize {
    if page.is_multiple_of(8192) { mappings_of("/memfd:many") } else { 1 }
}
