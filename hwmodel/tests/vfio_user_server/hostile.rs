//! Clients that send what no client would. The server answers or closes; it never panics, hangs, or keeps what is theirs.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

use cryptonic_hwmodel::vfio_user_server::Notice;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::raw::*;

fn cases(short: u32) -> Config {
    let long = std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1");
    Config { failure_persistence: None, ..Config::with_cases(if long { short * 50 } else { short }) }
}

#[test]
fn every_command_of_every_length_is_answered() {
    let served = Served::start();
    let mut client = served.attach();
    let before = descriptors();
    for command in (0..=20).chain([255, 256, 0x7fff, 0xffff]) {
        for length in 0..=64 {
            for fill in [0x00, 0x01, 0xff] {
                let sent = client.command(command, 0, &vec![fill; length], &[]);
                let (id, of, flags, errno, _) = client.answer().expect("an answer");
                assert_eq!((id, of), (sent, command));
                assert!(
                    flags == 1 && errno == 0 || flags == 0x21 && errno != 0,
                    "{command} {length} {fill:#x}"
                );
            }
        }
    }
    assert_eq!(descriptors(), before);
    drop(client);
    served.is_sane();
}

/// Records cut short are refused, whatever the command; none is read past its end.
#[test]
fn a_record_that_is_cut_short_is_refused() {
    let served = Served::start();
    let mut client = served.attach();
    for (command, bytes) in [
        (VERSION, 4),
        (DMA_UNMAP, 24),
        (DEVICE_GET_REGION_INFO, 32),
        (DEVICE_GET_IRQ_INFO, 16),
        (DEVICE_SET_IRQS, 20),
        (REGION_READ, 16),
        (REGION_WRITE, 16),
    ] {
        for length in 0..bytes {
            assert_eq!(client.ask(command, &vec![0; length], &[]), Err(EINVAL), "{command} of {length}");
        }
    }
    // The bytes to write are fewer than the record says.
    let claimed = [longs(&[0]), words(&[BAR4, 8]), vec![0; 7]].concat();
    assert_eq!(client.ask(REGION_WRITE, &claimed, &[]), Err(EINVAL));
    assert_eq!(client.ask(DMA_MAP, &[0; 31], &[]), Err(EINVAL));
}

#[test]
fn headers_that_no_command_has_end_the_connection() {
    let served = Served::start();
    for (bytes, flags) in [(0, 0), (15, 0), ((1 << 20) + 8192, 0), (u32::MAX, 0), (16, 1), (16, 2), (16, 0xf)]
    {
        let mut client = served.attach();
        client.send(&header(9, DEVICE_RESET, bytes, flags), &[]).expect("sent");
        assert_eq!(client.answer(), None, "{bytes} {flags:#x}");
    }
    served.is_sane();
}

#[test]
fn random_bytes_are_answered_or_end_the_connection() {
    let served = Served::start();
    let before = descriptors();
    let strategy = (any::<bool>(), vec(vec(any::<u8>(), 0..80), 1..6));
    let outcome = TestRunner::new(cases(60)).run(&strategy, |(agreed, pieces)| {
        let mut client = served.connect();
        if agreed {
            client.agree();
        }
        for piece in pieces {
            // The server may have closed already.
            let _ = client.stream.write_all(&piece);
        }
        let _ = client.stream.shutdown(Shutdown::Write);
        let ended = client.stream.read_to_end(&mut Vec::new());
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        prop_assert!(ended.as_ref().is_ok() || ended.as_ref().is_err_and(reset), "{ended:?}");
        Ok(())
    });
    outcome.expect("the server holds");
    served.is_sane();
    descriptors_become(before);
}

/// Well-formed headers around numbers that are likely to hurt, with files and without.
#[test]
fn random_commands_are_answered() {
    let served = Served::start();
    let before = descriptors();
    let file = sealed("random", 16 * 4096);
    let number = prop_oneof![
        0_u64..64,
        (0_u64..64).prop_map(|page| page << 12),
        (0_u64..64).prop_map(|less| u64::MAX - less),
        (0_u64..64).prop_map(|page| u64::MAX << 12 & !(page << 12)),
        (0_u64..64).prop_map(|bit| 1 << bit),
        any::<u64>(),
    ];
    let one = (1_u16..16, any::<bool>(), 0_u32..64, 0_u32..10, vec(number, 3..5), 0_usize..3);
    let strategy = vec(one, 1..30);
    let outcome = TestRunner::new(cases(60)).run(&strategy, |commands| {
        let mut client = served.attach();
        for (command, quiet, flags, index, numbers, files) in commands {
            let payload = match command {
                REGION_READ | REGION_WRITE => {
                    let count = numbers[1] as u32;
                    let data = vec![0xa5; count.min(300) as usize];
                    [longs(&numbers[..1]), words(&[index, count]), data].concat()
                }
                DEVICE_SET_IRQS => {
                    [words(&[20, flags, index % 6, numbers[0] as u32, numbers[1] as u32]), vec![1; 8]]
                        .concat()
                }
                DEVICE_GET_REGION_INFO | DEVICE_GET_IRQ_INFO => {
                    [words(&[32, 0, index, 0]), vec![0; 16]].concat()
                }
                _ => [words(&[32, flags % 4]), longs(&numbers)].concat(),
            };
            let files = vec![file.as_fd(); files];
            let quiet = if quiet { 1 << 4 } else { 0 };
            let sent = client.command(command, quiet, &payload, &files);
            if quiet == 0 {
                let answer = client.answer();
                let named = answer.as_ref().map(|(id, of, ..)| (*id, *of));
                prop_assert_eq!(named, Some((sent, command)));
            }
        }
        prop_assert_eq!(client.read(CONFIG, 0, 2), Ok(vec![0x34, 0x12]));
        Ok(())
    });
    outcome.expect("the server holds");
    served.is_sane();
    assert_eq!(mappings_of("/memfd:random"), 0);
    descriptors_become(before + 1);
}

#[test]
fn a_message_in_pieces_is_one_and_a_piece_alone_is_none() {
    let served = Served::start();
    let mut client = served.attach();
    let message = [header(7, REGION_READ, 32, 0), longs(&[0]), words(&[CONFIG, 4])].concat();
    for byte in &message {
        client.stream.write_all(&[*byte]).expect("taken");
    }
    let (id, _, flags, _, payload) = client.answer().expect("an answer");
    assert_eq!((id, flags, &payload[16..]), (7, 1, &[0x34, 0x12, 0x17, 0xc4][..]));
    drop(client);
    for length in [1, 15, 16, 17, 31] {
        let mut client = served.attach();
        client.stream.write_all(&message[..length]).expect("taken");
        client.stream.shutdown(Shutdown::Write).expect("shut");
        assert_eq!(client.answer(), None, "{length}");
    }
    served.is_sane();
}

/// It would fill the socket, and the server with it.
#[test]
fn a_client_that_never_reads_its_answers_is_let_go() {
    let served = Served::start();
    let mut client = served.attach();
    client.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a socket takes it");
    let asked = [header(1, REGION_READ, 32, 0), longs(&[0]), words(&[CONFIG, 4096])].concat();
    while client.stream.write_all(&asked).is_ok() {}
    assert_eq!(
        served.told(|notice| matches!(notice, Notice::Gone(_))),
        Notice::Gone("it does not read its answers".to_owned())
    );
    served.is_sane();
}

/// Registers that are written faster than the NIC takes them are not kept for ever, and not without an answer.
#[test]
fn long_writes_of_doorbells_are_taken_before_the_next() {
    let served = Served::start();
    let mut client = served.attach();
    let info = client.ask(DEVICE_GET_REGION_INFO, &[words(&[32, 0, BAR2, 0]), longs(&[0, 0])].concat(), &[]);
    let bytes = u64::from_ne_bytes(info.expect("answered")[16..24].try_into().expect("eight octets"));
    let pages = vec![0x11; bytes.min(1 << 18) as usize];
    for _ in 0..8 {
        client.write(BAR2, 0, &pages).expect("taken");
    }
    assert_eq!(client.read(BAR0, 0, 4), Ok(b"CRNC".to_vec()));
}

#[test]
fn a_client_that_says_nothing_makes_room_for_the_next() {
    let served = Served::start();
    let mut silent = served.connect();
    let mut half = served.connect();
    half.stream.write_all(&header(0, VERSION, 20, 0)[..10]).expect("taken");
    served.is_sane();
    assert_eq!((silent.answer(), half.answer()), (None, None));
    assert!(matches!(served.told(|_| true), Notice::Refused(_)));
}
