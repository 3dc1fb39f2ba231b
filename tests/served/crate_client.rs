//! The client of the crate `vfio_user` as a witness of the server. It does not look whether an answer is an error, and its
//! `resettable` is the wrong way round (version 0.1.7), so what it asks for is looked for in the server.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_BAR4_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_PCI_NUM_REGIONS, VFIO_PCI_REQ_IRQ_INDEX, VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::Client;

use crate::rig::Server;

fn sealed(bytes: u64) -> File {
    let file =
        memfd_create("crate-client", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&file, bytes).expect("as long as this");
    fcntl_add_seals(&file, SealFlags::SHRINK).expect("sealed");
    File::from(file)
}

fn counted(file: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(file, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

fn read<const BYTES: usize>(client: &mut Client, region: u32, offset: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    client.region_read(region, offset, &mut bytes).expect("answered");
    bytes
}

#[test]
fn a_client_of_others_drives_the_server() {
    let server = Server::start(&[]);
    let (config, bar0) = (VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_BAR0_REGION_INDEX);
    // One after another.
    for _ in 0..3 {
        let mut client = Client::new(&server.socket()).expect("it serves");
        for index in 0..VFIO_PCI_NUM_REGIONS {
            let region = client.region(index).expect("told");
            assert!(region.file_offset.is_none() && region.sparse_areas.is_empty());
            let there =
                [bar0, VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_BAR4_REGION_INDEX, config].contains(&index);
            assert_eq!(region.size > 0, there, "{index}");
            let flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
            assert_eq!(region.flags, if there { flags } else { 0 });
        }
        assert_eq!(client.region(config).map(|region| region.size), Some(4096));
        assert_eq!(read(&mut client, config, 0), [0x34, 0x12, 0x17, 0xc4], "vendor and device");
        assert_eq!(read(&mut client, bar0, 0), *b"CRNC");
        for (index, count) in
            [(VFIO_PCI_INTX_IRQ_INDEX, 0), (VFIO_PCI_ERR_IRQ_INDEX, 1), (VFIO_PCI_REQ_IRQ_INDEX, 1)]
        {
            assert_eq!(client.get_irq_info(index).expect("told").count, count);
        }
        let vectors = client.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).expect("told").count;
        let [table] = read(&mut client, config, 0x82);
        assert_eq!(vectors, u32::from(table) + 1);

        // Interrupts: all vectors in one message, then each sent for a test.
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let files: Vec<OwnedFd> =
            (0..vectors.min(16)).map(|_| eventfd(0, flags).expect("an eventfd")).collect();
        let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let set = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_EVENTFD;
        client.set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, set, 0, raw.len() as u32, &raw).expect("answered");
        let trigger = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_NONE;
        for vector in 0..files.len() {
            client.set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, trigger, vector as u32, 1, &[]).expect("answered");
            let counts: Vec<u64> = files.iter().map(counted).collect();
            assert_eq!(counts, (0..files.len()).map(|other| u64::from(other == vector)).collect::<Vec<_>>());
        }

        let file = sealed(4 << 20);
        client.dma_map(0, 0x1_0000_0000, 4 << 20, file.as_raw_fd()).expect("answered");
        assert_eq!(server.mappings_of("/memfd:crate-client"), 1);
        client.dma_map(0, 0x1_0000_0000, 4 << 20, file.as_raw_fd()).expect("answered, with an error");
        client.dma_unmap(0x1_0000_0000, 4 << 20).expect("answered");
        assert_eq!(server.mappings_of("/memfd:crate-client"), 0);
        client.dma_map(1 << 20, 0x2_0000_0000, 1 << 20, file.as_raw_fd()).expect("answered");

        client.region_write(config, 4, &[6, 0]).expect("answered");
        assert_eq!(read(&mut client, config, 4), [6], "memory and bus master");
        client.reset().expect("answered");
        assert_eq!(read(&mut client, config, 4), [0], "a reset takes them away");
        assert_eq!(server.mappings_of("/memfd:crate-client"), 1, "and takes no memory away");
        client.shutdown().expect("shut");
    }
    assert_eq!(server.notes().matches("a client attached").count(), 3);
}
