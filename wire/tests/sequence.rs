//! Sequence arithmetic: directed cases (`vectors/esn-inference.json`), the two cases of RFC 4303 A2.2 as they are
//! written there, and the replay window against a set of numbers.

mod witness;

use std::collections::BTreeSet;

use cryptonic_wire::sequence::{BadSequence, BadWindow, ReplayWindow, Verdict, infer, ring_blocks};
use proptest::prelude::*;
use witness::{number, vectors};

#[test]
fn infers_the_directed_cases() {
    let vectors = vectors(include_str!("../../tests/vectors/esn-inference.json"));
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 90);
    for vector in vectors {
        let top = number(&vector["top_t"]) as u64;
        let inferred = infer(top, number(&vector["seq_lo"]) as u32, number(&vector["window"]) as u32);
        match vector["verdict"].as_str().unwrap() {
            "reject_zero" => assert_eq!(inferred, Err(BadSequence::Zero), "{vector}"),
            "reject_underflow" => assert_eq!(inferred, Err(BadSequence::Underflow), "{vector}"),
            "reject_overflow" => assert_eq!(inferred, Err(BadSequence::Overflow), "{vector}"),
            verdict => {
                let sequence = inferred.unwrap();
                assert_eq!(u128::from(sequence), number(&vector["seq64"]), "{vector}");
                assert_eq!(sequence > top, verdict == "new_right_edge", "{vector}");
            }
        }
    }
}

/// RFC 4303, A2.2, in numbers wide enough not to wrap.
fn infer_by_cases(top: u64, low: u32, window: u32) -> Option<u64> {
    let (high, top_low) = (i128::from(top >> 32), i128::from(top as u32));
    let (low, window) = (i128::from(low), i128::from(window));
    let bottom_low = (top_low - window + 1).rem_euclid(1 << 32);
    let high = if top_low >= window - 1 {
        if low >= bottom_low { high } else { high + 1 }
    } else if low >= bottom_low {
        high - 1
    } else {
        high
    };
    let sequence = high * (1 << 32) + low;
    u64::try_from(sequence).ok().filter(|sequence| *sequence != 0)
}

/// Tops near every edge, and everywhere.
fn tops() -> impl Strategy<Value = u64> {
    let near = |edge: u64| (-70000i64..70000).prop_map(move |distance| edge.wrapping_add_signed(distance));
    prop_oneof![any::<u64>(), near(0), near(1 << 32), near(5 << 32), near(1 << 31)]
}

#[test]
fn window_sizes_and_rings() {
    assert_eq!([0, 32, 64, 65, 1024, 65536].map(ring_blocks), [0, 2, 2, 4, 32, 2048]);
    assert_eq!(ReplayWindow::new(31, 0, [0u64; 2]).unwrap_err(), BadWindow::Size);
    assert_eq!(ReplayWindow::new(65537, 0, vec![0u64; 2048]).unwrap_err(), BadWindow::Size);
    assert_eq!(ReplayWindow::new(64, 0, [0u64; 4]).unwrap_err(), BadWindow::Ring);
    let mut ring = [0u64; 2];
    assert!(ReplayWindow::new(64, 0, &mut ring[..]).is_ok());
}

#[test]
fn window_off_refuses_nothing() {
    let mut window = ReplayWindow::new(0, 7, [0u64; 0]).unwrap();
    for sequence in [0, 7, 7, 8, 8, u64::MAX, 1] {
        assert!(window.update(sequence).is_acceptable());
    }
    assert_eq!(window.top(), u64::MAX);
}

#[test]
fn restored_window_counts_the_past_as_seen() {
    for top in [0, 1, 31, 63, 64, 100, 1000, u64::MAX - 1] {
        let mut window = ReplayWindow::new(64, top, [0u64; 2]).unwrap();
        for sequence in top.saturating_sub(200)..=top {
            assert!(!window.update(sequence).is_acceptable(), "{sequence} after {top}");
        }
        assert_eq!(window.update(top + 1), Verdict::New);
        assert_eq!(window.update(top + 1), Verdict::Duplicate);
    }
}

#[test]
fn every_pair_of_steps_on_the_smallest_window() {
    for first in 1..200u64 {
        for second in 1..400u64 {
            for third in [second.saturating_sub(33), second.saturating_sub(32), second - 1, second, first] {
                compare(32, 0, &[first, second, third]);
            }
        }
    }
}

/// Runs numbers through a window and through a set of everything accepted.
fn compare(size: u32, start: u64, sequences: &[u64]) {
    let mut window = ReplayWindow::new(size, start, vec![0u64; ring_blocks(size)]).unwrap();
    let mut seen = BTreeSet::new();
    let mut top = start;
    for &sequence in sequences {
        let expected = if sequence == 0 {
            Verdict::BelowWindow
        } else if sequence > top {
            Verdict::New
        } else if top - sequence >= u64::from(size) {
            Verdict::BelowWindow
        } else if sequence <= start || seen.contains(&sequence) {
            Verdict::Duplicate
        } else {
            Verdict::InWindow
        };
        assert_eq!(window.check(sequence), expected, "{sequence} with top {top}");
        assert_eq!(window.update(sequence), expected);
        if expected.is_acceptable() {
            seen.insert(sequence);
            top = top.max(sequence);
        }
        assert_eq!(window.top(), top);
    }
}

proptest! {
    #[test]
    fn one_adder_is_both_cases(top in tops(), low in any::<u32>(), near in -70000i64..70000, window in 1u32..=1 << 31) {
        for window in [window, 32, 64, 65536] {
            for low in [low, (top as u32).wrapping_add(near as u32)] {
                prop_assert_eq!(infer(top, low, window).ok(), infer_by_cases(top, low, window));
            }
        }
    }

    #[test]
    fn window_is_a_set(
        size in prop_oneof![32u32..=300, Just(1024u32), Just(65536u32)],
        start in tops(),
        steps in proptest::collection::vec((0u8..6, any::<u64>()), 1..300),
    ) {
        let mut top = start;
        let sequences: Vec<u64> = steps
            .into_iter()
            .map(|(kind, number)| {
                let size = u64::from(size);
                let sequence = match kind {
                    0 | 1 => top.saturating_add(1 + number % 4),
                    2 => top.saturating_add(number % (3 * size)),
                    3 => top.saturating_sub(number % (2 * size)),
                    4 => top.saturating_sub(number % 8),
                    _ => top.saturating_sub(size - 2 + number % 4),
                };
                top = top.max(sequence);
                sequence
            })
            .collect();
        compare(size, start, &sequences);
    }
}
