//! What QEMU's client does, in its order, and what any client may learn.

use std::os::fd::{AsFd, OwnedFd};

use cryptonic_hwmodel::vfio_user_server::Notice;
use rustix::event::{EventfdFlags, eventfd};

use crate::raw::*;

const TRIGGER: u32 = 1 << 5;
const NONE: u32 = TRIGGER | 1;
const BOOL: u32 = TRIGGER | 1 << 1;
const EVENTFD: u32 = TRIGGER | 1 << 2;

fn counter() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// What an eventfd counted since the last look.
fn counted(file: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(file, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

#[test]
fn a_client_learns_what_the_device_is() {
    let served = Served::start();
    let mut client = served.attach();
    assert_eq!(served.told(|_| true), Notice::Attached);
    let info = client.ask(DEVICE_GET_INFO, &words(&[16, 0, 0, 0]), &[]).expect("answered");
    assert_eq!(info, words(&[16, 3, 9, 5]), "a PCI function with a reset, 9 regions, 5 kinds of interrupts");

    let region = |client: &mut Raw, index| {
        client.ask(DEVICE_GET_REGION_INFO, &[words(&[32, 0, index, 0]), longs(&[0, 0])].concat(), &[])
    };
    let config = client.read(CONFIG, 0, 0x40).expect("config space");
    for index in 0..9 {
        let answer = region(&mut client, index).expect("answered");
        let bytes = u64::from_ne_bytes(answer[16..24].try_into().expect("eight octets"));
        let flags = if bytes > 0 { 3 } else { 0 };
        assert_eq!(answer[..16], words(&[32, flags, index, 0]), "readable and writable, not to be mapped");
        match index {
            0 | 2 | 4 => {
                // A BAR is as long as config space says it is (PCI 3.0 6.2.5.1).
                let at = 0x10 + u64::from(index) * 4;
                client.write(CONFIG, at, &[0xff; 4]).expect("sizing");
                let mask = client.read(CONFIG, at, 4).expect("the mask");
                let mask = u32::from_le_bytes(mask.try_into().expect("four octets"));
                assert_eq!(bytes, u64::from(!(mask & !0xf)) + 1);
                client.write(CONFIG, at, &config[at as usize..at as usize + 4]).expect("put back");
            }
            7 => assert_eq!(bytes, 4096),
            _ => assert_eq!(bytes, 0),
        }
    }
    assert_eq!(region(&mut client, 9), Err(EINVAL));

    for (index, kind) in ["INTx", "MSI", "MSI-X", "error", "request"].into_iter().enumerate() {
        let answer =
            client.ask(DEVICE_GET_IRQ_INFO, &words(&[16, 0, index as u32, 0]), &[]).expect("answered");
        let count = u32::from_ne_bytes(answer[12..].try_into().expect("four octets"));
        let wanted = match kind {
            // The table's size in config space, which counts from 0 (PCIe 4.0 7.7.2.2).
            "MSI-X" => u32::from(client.read(CONFIG, 0x82, 1).expect("read")[0]) + 1,
            "error" | "request" => 1,
            _ => 0,
        };
        assert_eq!(count, wanted, "{kind}");
    }
    assert_eq!(client.ask(DEVICE_GET_IRQ_INFO, &words(&[16, 0, 5, 0]), &[]), Err(EINVAL));
    assert_eq!(client.ask(VERSION, &[1, 0, 0, 0], &[]), Err(EINVAL), "version 1.0");
    assert_eq!(client.ask(6, &[0; 16], &[]), Err(ENOTSUP), "eventfds for registers");
    assert_eq!(client.ask(11, &[0; 16], &[]), Err(ENOTSUP), "a read of the server's memory");
}

#[test]
fn nothing_is_answered_before_the_version() {
    let served = Served::start();
    let mut client = served.connect();
    for command in [DMA_MAP, DEVICE_GET_INFO, REGION_READ, DEVICE_RESET] {
        assert_eq!(client.ask(command, &[0; 32], &[]), Err(EINVAL), "{command}");
    }
    client.agree();
    assert!(client.ask(DEVICE_GET_INFO, &words(&[16, 0, 0, 0]), &[]).is_ok());
}

#[test]
fn accesses_of_every_size_are_answered_or_refused() {
    let served = Served::start();
    let mut client = served.attach();
    let whole = client.read(CONFIG, 0, 256).expect("config space");
    for (offset, count) in
        [(0, 1), (1, 1), (2, 2), (3, 2), (0, 4), (0x3f, 4), (0, 8), (5, 8), (255, 1), (7, 0)]
    {
        let wanted = whole[offset..offset + count].to_vec();
        assert_eq!(client.read(CONFIG, offset as u64, count as u32), Ok(wanted), "{offset:#x} {count}");
    }
    assert_eq!(client.read(BAR0, 1, 2), Ok(b"RN".to_vec()));
    assert_eq!(client.read(BAR0, 0, 8).map(|bytes| bytes[..4].to_vec()), Ok(b"CRNC".to_vec()));
    assert_eq!(client.read(CONFIG, 4095, 1), Ok(vec![0]));
    for (region, offset, count) in [
        (CONFIG, 4095, 2),
        (CONFIG, u64::MAX, 4),
        (CONFIG, 0, u32::MAX),
        (BAR0, 1 << 32, 4),
        (BAR4, 0xfff, 2),
        (1, 0, 1),
        (8, 0, 1),
        (9, 0, 4),
    ] {
        assert_eq!(client.read(region, offset, count), Err(EINVAL), "{region} {offset:#x} {count}");
    }
    // A nothing at the end of a region that is not there is no access.
    assert_eq!(client.read(1, 0, 0), Ok(vec![]));

    // Interrupt line: eight bits that are software's own (PCI 3.0 6.2.4).
    client.write(CONFIG, 0x3c, &[0xa5]).expect("one byte");
    assert_eq!(client.read(CONFIG, 0x3c, 1), Ok(vec![0xa5]));
    // MSI-X entry 1: address and data, by 4 and by 8 bytes.
    client.write(BAR4, 0x10, &[0x10, 0x20, 0x30, 0x40]).expect("a word");
    client.write(BAR4, 0x18, &[7, 0, 0, 0, 1, 0, 0, 0]).expect("two words");
    assert_eq!(
        client.read(BAR4, 0x10, 16),
        Ok(vec![0x10, 0x20, 0x30, 0x40, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0])
    );
    for (offset, data) in [(0x10, &[1][..]), (0x10, &[1, 2]), (0x12, &[1, 2, 3, 4]), (0x10, &[0; 6])] {
        assert_eq!(client.write(BAR4, offset, data), Err(EINVAL), "registers have 4 bytes");
    }
    assert_eq!(client.write(BAR0, 0, &[0; 4]), Ok(()), "read-only");
    assert_eq!(client.read(BAR0, 0, 4), Ok(b"CRNC".to_vec()));
}

/// QEMU's order: a vector without an eventfd, all off, then those in use one a message.
#[test]
fn vectors_are_set_one_a_message() {
    let served = Served::start();
    let mut client = served.attach();
    let vectors = u32::from(client.read(CONFIG, 0x82, 1).expect("read")[0]) + 1;
    assert!(vectors >= 3);
    client.set_irqs(EVENTFD, MSIX, 0, 1, &[]).expect("a vector without an eventfd");
    let files: Vec<OwnedFd> = (0..vectors).map(|_| counter()).collect();
    for used in 1..=vectors as usize {
        client.set_irqs(NONE, MSIX, 0, 0, &[]).expect("all off");
        assert_eq!(client.read(CONFIG, 0x83, 1).map(|byte| byte[0] >> 7), Ok(0), "MSI-X is off");
        for (vector, file) in files[..used].iter().enumerate() {
            client.set_irqs(EVENTFD, MSIX, vector as u32, 1, &[file.as_fd()]).expect("one vector");
        }
        assert_eq!(client.read(CONFIG, 0x83, 1).map(|byte| byte[0] >> 7), Ok(1), "MSI-X is on");
        for vector in 0..vectors as usize {
            let control = client.read(BAR4, vector as u64 * 16 + 12, 4).expect("the table");
            assert_eq!(control[0] == 0, vector < used, "vector {vector} of {used} is unmasked");
        }
    }
    for vector in 0..vectors {
        client.set_irqs(NONE, MSIX, vector, 1, &[]).expect("sent for a test");
        let counts: Vec<u64> = files.iter().map(counted).collect();
        let wanted: Vec<u64> = (0..vectors).map(|other| u64::from(other == vector)).collect();
        assert_eq!(counts, wanted);
    }
    let payload = [words(&[23, BOOL, MSIX, 0, 3]), vec![1, 0, 1]].concat();
    client.ask(DEVICE_SET_IRQS, &payload, &[]).expect("those that are wanted");
    assert_eq!(files.iter().map(counted).collect::<Vec<_>>()[..3], [1, 0, 1]);

    // The others: error and request have one each, INTx and MSI none. Turning those off touches nobody else's.
    let request = counter();
    client.set_irqs(EVENTFD, 4, 0, 1, &[request.as_fd()]).expect("request");
    for index in [0, 1, 3] {
        client.set_irqs(NONE, index, 0, 0, &[]).expect("off");
    }
    client.set_irqs(NONE, 4, 0, 1, &[]).expect("sent for a test");
    assert_eq!(counted(&request), 1);
    for (flags, index, start, count) in [
        (EVENTFD, MSIX, vectors, 1),
        (EVENTFD, MSIX, 1, u32::MAX),
        (EVENTFD, 0, 0, 1),
        (EVENTFD, 5, 0, 0),
        (NONE | 1 << 2, MSIX, 0, 1),
        (TRIGGER, MSIX, 0, 1),
    ] {
        assert_eq!(client.set_irqs(flags, index, start, count, &[]), Err(EINVAL), "{flags:#x} {index}");
    }
    assert_eq!(client.set_irqs(1 << 3 | 1, MSIX, 0, 1, &[]), Err(ENOTSUP), "masking");
}

/// A guest's driver resets the function by config space; its interrupts are as before, as vfio-pci has it.
#[test]
fn a_reset_by_config_space_is_a_reset_and_keeps_interrupts() {
    let served = Served::start();
    let mut client = served.attach();
    let files = [counter(), counter()];
    for (vector, file) in files.iter().enumerate() {
        client.set_irqs(EVENTFD, MSIX, vector as u32, 1, &[file.as_fd()]).expect("one vector");
    }
    client.write(CONFIG, COMMAND, &[6, 0]).expect("memory and bus master");
    client.write(BAR0, 0x200, &[2, 0, 0, 0]).expect("MAC loopback");
    assert_eq!(client.read(CONFIG, COMMAND, 1), Ok(vec![6]));
    assert_eq!(client.read(BAR0, 0x200, 1), Ok(vec![2]));
    let control = client.read(CONFIG, DEVICE_CONTROL, 2).expect("read");
    client.write(CONFIG, DEVICE_CONTROL, &[control[0], control[1] | 0x80]).expect("FLR, by two bytes");
    let is_reset = |client: &mut Raw| {
        assert_eq!(client.read(CONFIG, COMMAND, 2), Ok(vec![0, 0]));
        assert_eq!(client.read(BAR0, 0x200, 4), Ok(vec![0; 4]));
        let status = client.read(BAR0, DEVICE_STATUS, 1).expect("read");
        assert_ne!(status[0] & KEYS_ZEROISED, 0);
        let masks = [0, 1, 2].map(|vector| client.read(BAR4, vector * 16 + 12, 1).expect("the table")[0]);
        assert_eq!(masks, [0, 0, 1]);
        assert_eq!(client.read(CONFIG, 0x83, 1).map(|byte| byte[0] >> 7), Ok(1), "MSI-X is on");
    };
    is_reset(&mut client);
    client.write(CONFIG, COMMAND, &[6]).expect("one byte");
    client.ask(DEVICE_RESET, &[], &[]).expect("a reset by command");
    is_reset(&mut client);
    client.write(CONFIG, DEVICE_CONTROL + 1, &[0x80]).expect("FLR, by one byte");
    is_reset(&mut client);
}
