//! Transmit descriptors: inline data, chains, and what is wrong with them. A clear packet leaves as it was given, so that
//! each byte is its own witness.

use cryptonic_hwmodel::Parameters;
use cryptonic_regs::Status;
use cryptonic_regs::descriptor::{Security, TransmitControl, inline_room};

use crate::raw::{Raw, control, extent, payload, udp};

#[test]
fn a_frame_is_its_inline_bytes_then_those_at_its_address() {
    for stride in [32, 64, 128] {
        let room = inline_room(stride, false, false).expect("base words fit") as usize;
        for bytes in [60, 64, 90, 96, 97, 256, 1514] {
            for inline in [0, 1, 7, 8, 14, 31, 32, 60, 64, 95, 96] {
                let mut raw = Raw::new(&Parameters::default(), stride as usize);
                if inline > room || inline > bytes {
                    continue;
                }
                let frame = udp(bytes);
                raw.put_frame(&frame, inline);
                raw.ring();
                assert_eq!(raw.statuses(), [Status::Ok], "{stride}, {bytes}, {inline} inline");
                assert_eq!(raw.sent(), [frame], "{stride}, {bytes}, {inline} inline");
            }
        }
    }
}

/// Puts a frame as a chain of pieces of these sizes, tags ascending, `report` on the first alone; inline bytes first.
fn put_chain(raw: &mut Raw, frame: &[u8], inline: usize, pieces: &[usize]) {
    let (head, mut rest) = frame.split_at(inline);
    for (index, bytes) in pieces.iter().enumerate() {
        let (piece, behind) = rest.split_at(*bytes);
        rest = behind;
        let address = raw.bytes(piece);
        let control = control(*bytes)
            .with_report(index == 0)
            .with_end_of_packet(index + 1 == pieces.len())
            .with_tag(raw.produced as u16);
        let first = index == 0;
        let words = [address, control.into_bits(), 0, if first { extent(frame.len(), inline) } else { 0 }];
        raw.put(words, if first { head } else { &[] });
    }
}

#[test]
fn a_chain_is_one_frame_and_its_completion_names_its_last_descriptor() {
    for (stride, inline, pieces) in [
        (32, 0, vec![14, 20, 1, 65]),
        (64, 14, vec![86]),
        (64, 32, vec![1, 67]),
        (128, 96, vec![1, 1, 1, 1]),
        (32, 0, vec![3; 32]),
        (128, 40, vec![0, 60]),
    ] {
        let mut raw = Raw::new(&Parameters::default(), stride);
        let frame = udp(inline + pieces.iter().sum::<usize>());
        // Around the ring's end as well.
        for round in 0..5 {
            put_chain(&mut raw, &frame, inline, &pieces);
            raw.ring();
            raw.world.drain();
            let told = raw.told();
            assert_eq!(told.len(), 1, "round {round}");
            assert_eq!(u32::from(told[0].end.status()), Status::Ok.number());
            assert_eq!(usize::from(told[0].completed.descriptors()), pieces.len());
            assert_eq!(u32::from(told[0].completed.tag()), raw.produced - 1, "the last descriptor");
            assert_eq!(raw.sent(), std::slice::from_ref(&frame));
        }
    }
}

#[test]
fn a_frame_whose_end_is_not_produced_waits_and_holds_nobody_up() {
    let mut raw = Raw::new(&Parameters::default(), 32);
    let frame = udp(100);
    let (head, rest) = frame.split_at(40);
    let address = raw.bytes(head);
    raw.put([address, control(40).with_end_of_packet(false).into_bits(), 0, extent(100, 0)], &[]);
    raw.ring();
    assert_eq!((raw.statuses(), raw.sent().len()), (vec![], 0));
    let address = raw.bytes(rest);
    raw.put([address, control(60).into_bits(), 0, 0], &[]);
    raw.ring();
    assert_eq!(raw.statuses(), [Status::Ok]);
    assert_eq!(raw.sent(), [frame]);

    // And a queue pair that is turned off forgets it.
    let address = raw.bytes(&[0xaa; 40]);
    raw.put([address, control(40).with_end_of_packet(false).into_bits(), 0, extent(100, 0)], &[]);
    raw.ring();
    raw.world.drain();
    raw.write(cryptonic_regs::bar0::QUEUE_CONTROL.offset, 0);
    raw.turn_on(Default::default());
    let frame = udp(70);
    raw.put_frame(&frame, 0);
    raw.ring();
    assert_eq!(raw.statuses(), [Status::Ok]);
    assert_eq!(raw.sent(), [frame]);
}

#[test]
fn a_fault_anywhere_in_a_chain_is_the_whole_frames_and_names_its_last_descriptor() {
    let plain = |length: usize| control(length).with_end_of_packet(false).into_bits();
    let end = |length: usize| control(length).with_tag(9).into_bits();
    let security = u64::from(TransmitControl::new().with_security(Security::Sa.number() as u8));
    // (what is wrong, descriptors, status)
    let cases: Vec<(&str, Vec<[u64; 4]>, Status)> = vec![
        (
            "sum below the total",
            vec![[0, plain(40), 0, extent(101, 0)], [0, end(60), 0, 0]],
            Status::LengthMismatch,
        ),
        (
            "sum above the total",
            vec![[0, plain(40), 0, extent(99, 0)], [0, end(60), 0, 0]],
            Status::LengthMismatch,
        ),
        ("total of 0", vec![[0, plain(40), 0, 0], [0, end(60), 0, 0]], Status::BadDescriptor),
        (
            "a security field",
            vec![[0, plain(40), 0, extent(100, 0)], [0, end(60) | security, 0, 0]],
            Status::BadDescriptor,
        ),
        (
            "a security word",
            vec![[0, plain(40), 0, extent(100, 0)], [0, end(60), 1, 0]],
            Status::BadDescriptor,
        ),
        (
            "a total length",
            vec![[0, plain(40), 0, extent(100, 0)], [0, end(60), 0, 60]],
            Status::BadDescriptor,
        ),
        (
            "inline bytes",
            vec![[0, plain(40), 0, extent(100, 0)], [0, end(60), 0, 1 << 18]],
            Status::BadDescriptor,
        ),
        ("an MSS", vec![[0, plain(40), 0, extent(100, 0)], [0, end(60), 0, 1 << 25]], Status::BadDescriptor),
        ("a length of 0", vec![[0, plain(100), 0, extent(100, 0)], [0, end(0), 0, 0]], Status::BadDescriptor),
        ("a bad first", vec![[0, plain(40), 7, extent(100, 0)], [0, end(60), 0, 0]], Status::BadDescriptor),
        (
            "memory that is not there",
            vec![[0, plain(40), 0, extent(100, 0)], [1, end(60), 0, 0]],
            Status::DmaFault,
        ),
        (
            "too long in all",
            vec![[0, plain(9_000), 0, extent(9_601, 0)], [0, end(601), 0, 0]],
            Status::TooLong,
        ),
    ];
    for (name, descriptors, expected) in cases {
        let mut raw = Raw::new(&Parameters::default(), 32);
        let at = raw.bytes(&udp(100));
        for [address, control, security, extent] in &descriptors {
            let address = if *address == 0 { at } else { *address };
            raw.put([address, *control, *security, *extent], &[]);
        }
        let good = udp(60);
        raw.put_frame(&good, 0);
        raw.ring();
        raw.world.drain();
        let told = raw.told();
        let found: Vec<_> = told
            .iter()
            .map(|one| {
                (crate::raw::status(one.end.status()), one.completed.descriptors(), one.completed.tag())
            })
            .collect();
        assert_eq!(found, [(expected, descriptors.len() as u16, 9), (Status::Ok, 1, 0)], "{name}");
        assert_eq!(raw.sent(), [good], "{name}: the next frame is none of its business");
    }
    // A producer index is the ring's to ignore.
    let mut raw = Raw::new(&Parameters::default(), 32);
    let frame = udp(100);
    let at = raw.bytes(&frame);
    let producer = 0xffff << 39;
    raw.put([at, plain(40), 0, extent(100, 0) | producer], &[]);
    raw.put([at + 40, end(60), 0, producer], &[]);
    raw.ring();
    assert_eq!(raw.statuses(), [Status::Ok]);
    assert_eq!(raw.sent(), [frame]);
}

#[test]
fn a_chain_that_is_too_long_is_told_in_parts_and_discarded_to_its_end() {
    let mut parameters = Parameters::default();
    parameters.descriptors.transmit_chain = 4;
    // A prefetch smaller than a chain must not hold it up.
    parameters.descriptors.transmit_prefetch = 2;
    // Descriptors of the frame, and what its completions retire.
    for (descriptors, retired) in [
        (4, vec![(Status::Ok, 4)]),
        (5, vec![(Status::ChainTooLong, 4), (Status::ChainTooLong, 1)]),
        (8, vec![(Status::ChainTooLong, 4), (Status::ChainTooLong, 4)]),
        (13, [4, 4, 4, 1].map(|count| (Status::ChainTooLong, count)).to_vec()),
    ] {
        let mut raw = Raw::new(&parameters, 32);
        let frame = udp(20 * descriptors);
        put_chain(&mut raw, &frame, 0, &vec![20; descriptors]);
        let good = udp(60);
        raw.put_frame(&good, 0);
        raw.ring();
        raw.world.drain();
        let told = raw.told();
        let mut expected = retired.clone();
        expected.push((Status::Ok, 1));
        let found: Vec<_> = told
            .iter()
            .map(|one| (crate::raw::status(one.end.status()), one.completed.descriptors()))
            .collect();
        assert_eq!(found, expected, "{descriptors} descriptors");
        let mut last = 0;
        for (one, (_, count)) in told.iter().zip(&retired) {
            last += count;
            assert_eq!(one.completed.tag() + 1, last, "the last descriptor of each");
        }
        let sent = raw.sent();
        assert_eq!(sent.last(), Some(&good));
        assert_eq!(sent.len(), if descriptors == 4 { 2 } else { 1 });
        // One packet is one count, however often it is told.
        let counter = cryptonic_regs::bar0::STATUS_COUNTERS_OFFSET + 8 * Status::ChainTooLong.number();
        assert_eq!(raw.read(counter), u32::from(descriptors > 4));
    }
}

#[test]
fn frames_of_every_form_keep_their_order() {
    // Given frames with and without reads, in clear and faulty, one after another and many at once,
    let mut raw = Raw::new(&Parameters::default(), 128);
    let mut expected = vec![];
    for index in 0..60 {
        let mut frame = udp(60 + index % 7 * 12);
        frame[42] = index as u8;
        match index % 4 {
            0 => drop(raw.put_frame(&frame, 0)),
            1 => drop(raw.put_frame(&frame, frame.len().min(96))),
            2 => drop(raw.put_frame(&frame, 20)),
            _ => drop(raw.put([0, control(0).into_bits(), 0, 0], &payload(96))),
        }
        if index % 4 != 3 {
            expected.push(frame);
        }
    }
    // when they go with one doorbell, then those that can leave do so in their order, and so are they told.
    raw.ring();
    let statuses = raw.statuses();
    assert_eq!(statuses.len(), 60);
    for (index, status) in statuses.iter().enumerate() {
        assert_eq!(*status == Status::Ok, index % 4 != 3);
    }
    assert_eq!(raw.sent(), expected);
}
