//! Push windows: a push is a doorbell that brings its descriptor along, and never more than that.

use cryptonic_hwmodel::Parameters;
use cryptonic_pci::{Bar, Time};
use cryptonic_regs::Status;
use cryptonic_regs::doorbell::PUSH_WINDOWS;

use crate::raw::{Raw, control, extent, udp};

#[test]
fn a_pushed_descriptor_is_not_fetched_and_its_frame_leaves() {
    for stride in [32, 64, 128] {
        for inline in [0, 20, stride - 32] {
            if inline > stride - 32 {
                continue;
            }
            let mut raw = Raw::new(&Parameters::default(), stride);
            for round in 0..100_u32 {
                let mut frame = udp(128);
                frame[42] = round as u8;
                let slot = raw.put_frame(&frame, inline);
                raw.push(&slot, round as usize % 2);
                assert_eq!(raw.statuses(), [Status::Ok], "stride {stride}, {inline} inline, round {round}");
                assert_eq!(raw.sent(), [frame]);
            }
            assert_eq!(raw.world.pushes_used(raw.id), 100, "stride {stride}, {inline} inline");
        }
    }
}

/// The 32-bit stores of a slot, by their place in it.
fn stores(slot: &[u8]) -> Vec<(u32, u32)> {
    slot.chunks_exact(4)
        .enumerate()
        .map(|(index, word)| (index as u32 * 4, u32::from_le_bytes(word.try_into().expect("4 bytes"))))
        .collect()
}

#[test]
fn narrow_stores_fill_a_window_and_what_is_missing_makes_it_a_doorbell_or_nothing() {
    // (name, which stores of a slot of 64 bytes, whether the frame leaves, whether without a fetch)
    let cases: [(&str, Vec<usize>, bool, bool); 8] = [
        ("all in order", (0..16).collect(), true, true),
        ("the last word before the extent's", (0..6).chain(8..16).chain(6..8).collect(), false, false),
        ("payload missing", (0..10).chain(12..16).collect(), true, false),
        ("address missing", (1..16).collect(), true, false),
        ("half of the extent missing", (0..7).chain(8..16).collect(), false, false),
        ("extent missing", (0..6).chain(8..16).collect(), false, false),
        ("only extent and last word", vec![6, 7, 14, 15], true, false),
        ("begun anew halfway", (0..10).chain([0]).chain(10..16).collect(), false, false),
    ];
    for (name, order, leaves, used) in cases {
        let mut raw = Raw::new(&Parameters::default(), 64);
        let frame = udp(64);
        let slot = raw.put_frame(&frame, 32);
        let all = stores(&raw.with_producer(&slot, raw.produced));
        for index in order {
            let (at, value) = all[index];
            raw.host.write32(Bar::Bar2, PUSH_WINDOWS[0] + at, value).expect("write");
        }
        let sent = raw.sent();
        assert_eq!(sent.len(), usize::from(leaves), "{name}");
        assert_eq!(raw.world.pushes_used(raw.id), u64::from(used), "{name}");
        // Memory stays the truth: a doorbell brings it out in any case, and once.
        raw.ring();
        let later = raw.sent();
        assert_eq!([sent, later].concat(), [frame], "{name}");
        assert_eq!(raw.statuses(), [Status::Ok]);
    }
}

#[test]
fn what_an_earlier_push_left_behind_is_not_taken_for_part_of_the_next() {
    let mut raw = Raw::new(&Parameters::default(), 128);
    let frames = [udp(128), udp(127), udp(126)];
    // The second line of the first push is lost, so that it never ends.
    let slot = raw.put_frame(&frames[0], 96);
    let line: [u8; 64] = raw.with_producer(&slot, 1)[..64].try_into().expect("64 bytes");
    raw.host.push64(Bar::Bar2, PUSH_WINDOWS[0], &line).expect("push");
    assert!(raw.sent().is_empty());
    // The next push takes the other window: it is not next in line, and so a doorbell for both.
    let slot = raw.put_frame(&frames[1], 96);
    raw.push(&slot, 1);
    assert_eq!(raw.sent(), frames[..2]);
    // Of the third the first line is lost. All of the window was written then, by two pushes.
    let slot = raw.put_frame(&frames[2], 96);
    let line: [u8; 64] = raw.with_producer(&slot, 3)[64..].try_into().expect("64 bytes");
    raw.host.push64(Bar::Bar2, PUSH_WINDOWS[0] + 64, &line).expect("push");
    assert!(raw.sent().is_empty(), "what is left of the first push is not next in line");
    assert_eq!(raw.world.pushes_used(raw.id), 0);
}

#[test]
fn a_push_that_is_not_next_in_line_is_a_doorbell() {
    let mut raw = Raw::new(&Parameters::default(), 64);
    let frames: Vec<_> = (0..6).map(|index| udp(60 + index)).collect();
    // The first has no doorbell of its own, so the second is not next;
    raw.put_frame(&frames[0], 32);
    let slot = raw.put_frame(&frames[1], 32);
    raw.push(&slot, 0);
    assert_eq!(raw.sent(), frames[..2]);
    // the fourth comes while the third is being fetched.
    raw.put_frame(&frames[2], 32);
    raw.ring();
    let slot = raw.put_frame(&frames[3], 32);
    raw.pass(Time::from_nanoseconds(300));
    raw.push(&slot, 1);
    assert_eq!(raw.sent(), frames[2..4]);
    assert_eq!(raw.world.pushes_used(raw.id), 0);
    // A push of what was sent long ago, with its old index, is a doorbell out of range.
    let slot = raw.put_frame(&frames[4], 32);
    raw.push(&slot, 0);
    assert_eq!(raw.world.pushes_used(raw.id), 0, "not before it arrives");
    assert_eq!(raw.sent(), frames[4..5]);
    assert_eq!(raw.world.pushes_used(raw.id), 1);
    raw.push(&slot, 0);
    raw.world.drain();
    assert!(raw.status().enabled(), "an index that is known is no fault");
    raw.produced -= 3;
    raw.push(&slot, 0);
    raw.world.drain();
    assert_eq!(u32::from(raw.status().cause()), Status::BadDoorbell.number());
    assert!(raw.sent().is_empty());
}

#[test]
fn a_pushed_fault_is_the_frames_and_the_pushed_bytes_are_what_counts() {
    let mut raw = Raw::new(&Parameters::default(), 64);
    // The bytes pushed say another length than memory does: what was pushed is used, whole.
    let frame = udp(64);
    let slot = raw.put_frame(&frame, 32);
    raw.memory.write(0, &[0xff; 64]).expect("in range");
    raw.push(&slot, 0);
    assert_eq!(raw.statuses(), [Status::Ok]);
    assert_eq!(raw.sent(), [frame]);
    let slot = raw.put([0, control(0).into_bits(), 0, extent(0, 0)], &[]);
    raw.push(&slot, 1);
    assert_eq!(raw.statuses(), [Status::BadDescriptor]);
    assert!(raw.status().enabled());
}
