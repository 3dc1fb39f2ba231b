//! Sequence arithmetic: directed cases (`vectors/esn-inference.json`), the two cases of RFC 4303 A2.2 as they are
//! written there, and the replay window against a receiver that remembers every number it accepted.
//!
//! The judge's numbers are `i128`: whatever 64-bit numbers, windows and epochs add up to fits, and nothing wraps. Random
//! steps are as many as take a second, or a hundred million with `CRYPTONIC_LONG=1`.

mod witness;

use std::collections::{HashSet, VecDeque};

use cryptonic_wire::sequence::{
    BLOCK_BITS, BadSequence, BadWindow, ReplayWindow, Verdict, infer, ring_blocks,
};
use proptest::prelude::*;
use witness::{number, vectors};

/// Windows at, below and above whole blocks, and the smallest and the largest.
const WINDOWS: [u32; 11] = [0, 32, 33, 63, 64, 65, 128, 1024, 4096, 65535, 65536];
/// The last number of all.
const LAST: i128 = u64::MAX as i128;
/// What stands for the window in the inference when it is off (RFC 4303, A2.1: at most 2^31).
const NO_WINDOW: u32 = 1 << 31;

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

/// A number that the table calls `in_window` lies in the window itself, and `new_right_edge` above it.
#[test]
fn the_window_judges_the_directed_cases_as_the_table_does() {
    let vectors = vectors(include_str!("../../tests/vectors/esn-inference.json"));
    let mut judged = [0; 2];
    for vector in vectors["vectors"].as_array().unwrap() {
        let (top, size) = (number(&vector["top_t"]) as u64, number(&vector["window"]) as u32);
        // Nothing below the top was seen.
        let start = top.saturating_sub(u64::from(size));
        let mut window = ReplayWindow::new(size, start, vec![0; ring_blocks(size)]).unwrap();
        window.update(top);
        assert_eq!(window.top(), top);
        let sequence = || number(&vector["seq64"]) as u64;
        match vector["verdict"].as_str().unwrap() {
            "in_window" => {
                let expected = if sequence() == top { Verdict::Duplicate } else { Verdict::InWindow };
                assert_eq!(window.check(sequence()), expected, "{vector}");
                judged[0] += 1;
            }
            "new_right_edge" => {
                assert_eq!(window.check(sequence()), Verdict::New, "{vector}");
                judged[1] += 1;
            }
            "reject_zero" => assert_eq!(window.check(0), Verdict::BelowWindow, "{vector}"),
            verdict => assert!(matches!(verdict, "reject_underflow" | "reject_overflow"), "{vector}"),
        }
    }
    assert_eq!(judged, [30, 42]);
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

#[test]
fn a_window_outside_of_what_the_rfc_allows_is_taken_as_the_nearest_it_does() {
    for top in [0, 1 << 31, (1 << 32) - 1, 7 << 32, u64::MAX] {
        for low in [0, 1, NO_WINDOW - 1, NO_WINDOW, NO_WINDOW + 1, u32::MAX] {
            assert_eq!(infer(top, low, 0), infer(top, low, 1));
            assert_eq!(infer(top, low, NO_WINDOW + 1), infer(top, low, NO_WINDOW));
            assert_eq!(infer(top, low, u32::MAX), infer(top, low, NO_WINDOW));
        }
    }
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
                let mut pair = Pair::new(32, 0);
                for sequence in [first, second, third] {
                    pair.step(sequence);
                }
            }
        }
    }
}

/// A window in which every number was seen is moved by any distance: what it enters is unseen, what it keeps is seen.
#[test]
fn every_jump_of_a_full_window() {
    for size in [32, 33, 63, 64, 65, 127, 128, 129] {
        let (width, ring) = (u64::from(size), u64::from(BLOCK_BITS) * ring_blocks(size) as u64);
        for phase in [0, 1, 31, 62, 63] {
            for jump in 1..=ring + 2 * u64::from(BLOCK_BITS) {
                let start = 5 * ring + phase;
                let mut window = ReplayWindow::new(size, start, vec![0; ring_blocks(size)]).unwrap();
                (start + 1..=start + ring)
                    .for_each(|sequence| assert!(window.update(sequence).is_acceptable()));
                let (full, top) = (start + ring, start + ring + jump);
                assert_eq!(window.update(top), Verdict::New);
                for sequence in top - 2 * ring..=top + 2 {
                    let expected = match sequence {
                        _ if sequence > top => Verdict::New,
                        _ if sequence + width <= top => Verdict::BelowWindow,
                        _ if sequence <= full || sequence == top => Verdict::Duplicate,
                        _ => Verdict::InWindow,
                    };
                    assert_eq!(
                        window.check(sequence),
                        expected,
                        "{sequence}: {full} + {jump}, window {size}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_window_is_the_set_of_all_accepted_numbers() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut counts = [0u64; 4];
    let mut steps = step_count();
    while steps > 0 {
        for size in WINDOWS {
            let mut pair = Pair::new(size, random.start(size));
            for _ in 0..STEPS_PER_WINDOW {
                let sequence = random.number(pair.judge.top, size, &pair.recent);
                counts[pair.step(sequence) as usize] += 1;
            }
        }
        steps = steps.saturating_sub(WINDOWS.len() as u64 * STEPS_PER_WINDOW);
    }
    println!("new, in window, duplicate, below: {counts:?}");
    assert!(counts.iter().all(|count| *count > counts.iter().sum::<u64>() / 20), "{counts:?}");
}

/// The whole of a receiver: number from 32 bits, advisory check, ICV, and update in order behind a pipeline, only where
/// the ICV was good.
#[test]
fn a_receiver_accepts_what_was_sent_once_and_nothing_else() {
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let mut steps = step_count();
    let mut seen = Fates::default();
    while steps > 0 {
        for size in WINDOWS {
            for extended in [true, false] {
                let start = random.start(size);
                let start = if extended { start } else { start & u64::from(u32::MAX) };
                let mut receiver =
                    Receiver { pair: Pair::new(size, start), extended, pipeline: VecDeque::new() };
                for _ in 0..STEPS_PER_WINDOW {
                    let sent = random.number(receiver.pair.judge.top, size, &receiver.pair.recent);
                    let sent = if extended { sent } else { sent & u64::from(u32::MAX) };
                    receiver.arrive(sent, random.below(8) > 0, &mut seen);
                    while receiver.pipeline.len() as i128 > random.below(8) {
                        receiver.commit(&mut seen);
                    }
                }
            }
        }
        steps = steps.saturating_sub(2 * WINDOWS.len() as u64 * STEPS_PER_WINDOW);
    }
    println!("{seen:?}");
    let Fates { accepted, refused_early, refused_late, not_authentic, wrong_epoch, no_number } = seen;
    for count in [accepted, refused_early, refused_late, not_authentic, wrong_epoch, no_number] {
        assert!(count > 100, "{seen:?}");
    }
}

const STEPS_PER_WINDOW: u64 = 2_000;

fn step_count() -> u64 {
    let long = std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1");
    if long { 100_000_000 } else { 1_000_000 }
}

/// A receiver that remembers every number it accepted, and decides by the words of RFC 4303 3.4.3.
struct Judge {
    window: i128,
    /// Numbers up to here count as accepted.
    start: u64,
    top: u64,
    accepted: HashSet<u64>,
}

impl Judge {
    fn verdict(&self, sequence: u64) -> Verdict {
        let (number, top) = (i128::from(sequence), i128::from(self.top));
        let right_of_window = number > top;
        let left_of_window = number < top - self.window + 1;
        match () {
            () if self.window == 0 => {
                if right_of_window {
                    Verdict::New
                } else {
                    Verdict::InWindow
                }
            }
            // The first packet sent has number 1 (3.3.3).
            () if sequence == 0 => Verdict::BelowWindow,
            () if right_of_window => Verdict::New,
            () if left_of_window => Verdict::BelowWindow,
            () if sequence <= self.start || self.accepted.contains(&sequence) => Verdict::Duplicate,
            () => Verdict::InWindow,
        }
    }

    fn accept(&mut self, sequence: u64) {
        let first = self.accepted.insert(sequence) && sequence > self.start;
        assert!(first || self.window == 0, "{sequence} accepted twice");
        self.top = self.top.max(sequence);
    }
}

/// A window and its judge, which must agree at every step.
struct Pair {
    window: ReplayWindow<Vec<u64>>,
    judge: Judge,
    /// Some of the numbers accepted last.
    recent: [u64; 16],
    steps: usize,
}

impl Pair {
    fn new(size: u32, start: u64) -> Pair {
        let window = ReplayWindow::new(size, start, vec![0x5555; ring_blocks(size)]).unwrap();
        let judge = Judge { window: size.into(), start, top: start, accepted: HashSet::new() };
        Pair { window, judge, recent: [start; 16], steps: 0 }
    }

    fn check(&self, sequence: u64) -> Verdict {
        let verdict = self.window.check(sequence);
        assert_eq!(
            verdict,
            self.judge.verdict(sequence),
            "{sequence} after {}, window {}, start {}, step {}",
            self.judge.top,
            self.judge.window,
            self.judge.start,
            self.steps
        );
        verdict
    }

    fn step(&mut self, sequence: u64) -> Verdict {
        let verdict = self.check(sequence);
        assert_eq!(self.window.update(sequence), verdict, "{sequence}: update is not what check was");
        if verdict.is_acceptable() {
            self.judge.accept(sequence);
            self.recent[self.steps % self.recent.len()] = sequence;
        }
        assert_eq!(self.window.top(), self.judge.top);
        self.steps += 1;
        verdict
    }
}

/// A packet between the advisory check and commit.
struct Flight {
    sequence: u64,
    icv_good: bool,
}

/// What became of packets.
#[derive(Debug, Default)]
struct Fates {
    accepted: u64,
    /// By the check before the ICV.
    refused_early: u64,
    /// Acceptable before the ICV, not any more at commit.
    refused_late: u64,
    /// Changed on the way.
    not_authentic: u64,
    /// Given a number of another epoch, so that the ICV fails.
    wrong_epoch: u64,
    /// No 64-bit number fits.
    no_number: u64,
}

struct Receiver {
    pair: Pair,
    extended: bool,
    pipeline: VecDeque<Flight>,
}

impl Receiver {
    fn arrive(&mut self, sent: u64, unchanged: bool, fates: &mut Fates) {
        let top = self.pair.judge.top;
        let low = sent as u32;
        let sequence = if self.extended {
            let size = if self.pair.judge.window == 0 { NO_WINDOW } else { self.pair.judge.window as u32 };
            let inferred = infer(top, low, size);
            assert_eq!(
                inferred.ok(),
                infer_by_cases(top, low, size),
                "{low:#x} after {top:#x}, window {size}"
            );
            // What the sender may have sent since the window's left edge is always told right.
            let left = i128::from(top) - i128::from(size) + 1;
            let telling = sent != 0 && (left..left + (1 << 32)).contains(&i128::from(sent));
            assert_eq!(inferred == Ok(sent), telling, "{sent:#x} after {top:#x}, window {size}");
            let Ok(sequence) = inferred else {
                fates.no_number += 1;
                return;
            };
            sequence
        } else {
            low.into()
        };
        if !self.pair.check(sequence).is_acceptable() {
            fates.refused_early += 1;
            return;
        }
        fates.wrong_epoch += u64::from(sequence != sent);
        fates.not_authentic += u64::from(!unchanged);
        self.pipeline.push_back(Flight { sequence, icv_good: unchanged && sequence == sent });
    }

    fn commit(&mut self, fates: &mut Fates) {
        let Some(flight) = self.pipeline.pop_front().filter(|flight| flight.icv_good) else { return };
        if self.pair.step(flight.sequence).is_acceptable() {
            fates.accepted += 1;
        } else {
            fates.refused_late += 1;
        }
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    fn below(&mut self, bound: i128) -> i128 {
        i128::from(self.next() >> 20) % bound
    }

    fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len() as i128) as usize]
    }

    /// Where a window begins: at edges of blocks, halves, epochs and of all numbers, or anywhere.
    fn start(&mut self, size: u32) -> u64 {
        let (anywhere, late) = (i128::from(self.next()), LAST - self.below(200_000));
        let epoch = 1 << 32;
        let edges = [
            0,
            31,
            32,
            64,
            epoch / 2,
            epoch,
            epoch + i128::from(size),
            5 * epoch,
            LAST / 2,
            LAST,
            anywhere,
            late,
        ];
        clamp(self.one_of(&edges) + self.below(5) - 2)
    }

    /// The next number to come: near the top and the window's left edge, in the window, around it, at the edges of
    /// blocks, over the whole ring, half an epoch, an epoch, to the last number of all; seen before, or where what was
    /// seen before stands in the ring.
    fn number(&mut self, top: u64, size: u32, recent: &[u64; 16]) -> u64 {
        let (top, width, epoch) = (i128::from(top), i128::from(size.max(32)), 1 << 32);
        let block = i128::from(BLOCK_BITS);
        let ring = block * ring_blocks(size).max(1) as i128;
        let past = i128::from(self.one_of(recent));
        let about = self.below(5) - 2;
        let (seldom, rarely) = (self.below(8) == 0, self.below(64) == 0);
        let number = match self.below(24) {
            0..=3 => top + 1 + self.below(4),
            4 => top + self.below(block),
            5 => (top / block + 1 + self.below(3)) * block + about,
            6 => top + self.below(3 * width),
            7 if seldom => top + ring * (1 + self.below(2)) + about,
            8 if rarely => {
                let far = self.below(1 << 40);
                let jumps = [epoch / 2, epoch - width, epoch, epoch + width, 3 * epoch, far, LAST - top];
                top + self.one_of(&jumps) + about
            }
            7..=12 => top - self.below(width),
            13 | 14 => top - width + 1 + about,
            15 => top - self.below(3 * width),
            16 | 17 => top - self.below(8),
            18..=20 => past,
            21 => past + ring * (self.below(3) - 1),
            22 if seldom => 0,
            22 if rarely => top - epoch + about,
            _ => past - self.below(block),
        };
        clamp(number)
    }
}

fn clamp(number: i128) -> u64 {
    number.clamp(0, LAST) as u64
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
}
