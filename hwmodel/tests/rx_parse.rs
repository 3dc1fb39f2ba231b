//! The two faces of `rx_parse` are one unit: its closed form and its clocked shell agree in every cycle,
//! under random packets, gaps between beats and stalls of the consumer.

use std::collections::VecDeque;

use cryptonic_hwmodel::rx_parse::{Arrival, Beat, RxParseShell, RxParseTiming, parse, verdict};
use cryptonic_regs::Status;
use cryptonic_wire::{Malformed, UdpPorts};
use proptest::collection::vec;
use proptest::prelude::*;

const BUS_BYTES: usize = 64;
const PORTS: UdpPorts = UdpPorts { psp: 1000, esp: 4500 };

/// A packet and, for each of its beats, how many cycles after the beat before it is there. Beats wait in a FIFO in
/// front of the unit: with 0 they are there together.
#[derive(Clone, Debug)]
struct Offered {
    frame: Vec<u8>,
    gaps: Vec<u64>,
}

fn offered() -> impl Strategy<Value = Offered> {
    (vec(any::<u8>(), 1..400), 0_u64..4).prop_flat_map(|(frame, idle)| {
        let beats = frame.len().div_ceil(BUS_BYTES);
        let frame = Just(frame);
        (frame, vec(0..=idle, beats)).prop_map(|(frame, gaps)| Offered { frame, gaps })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn shell_and_closed_form_agree(
        packets in vec(offered(), 1..40),
        results in 1_u64..6,
        stalls in vec(any::<bool>(), 1..64),
    ) {
        let consumer_ready = |cycle: u64| !stalls[cycle as usize % stalls.len()] || cycle % 64 == 63;

        // When each beat is there, whatever the unit does.
        let mut beats = VecDeque::new();
        let mut there = vec![vec![]; packets.len()];
        let mut time = 0;
        for (index, packet) in packets.iter().enumerate() {
            let count = packet.gaps.len();
            for (beat, bytes) in packet.frame.chunks(BUS_BYTES).enumerate() {
                time += packet.gaps[beat];
                there[index].push(time);
                beats.push_back((beat == 0, time, Beat { bytes: bytes.to_vec(), last: beat + 1 == count }));
            }
        }

        // The clocked shell. A beat is offered from when it is there on, until it is taken.
        let mut shell = RxParseShell::new(results, PORTS);
        let (mut first, mut last, mut shown, mut taken) = (vec![], vec![], vec![], vec![]);
        let mut results_seen = vec![];
        let mut showing = false;
        for cycle in 0.. {
            prop_assert!(cycle < 100_000, "the shell hangs");
            let offered = beats.front().filter(|(_, there, _)| *there <= cycle).cloned();
            let outputs = shell.step(offered.as_ref().map(|(.., beat)| beat), consumer_ready(cycle));
            if let Some(result) = outputs.result {
                if !showing {
                    shown.push(cycle);
                    results_seen.push(result);
                }
                showing = !consumer_ready(cycle);
                if !showing {
                    taken.push(cycle);
                }
            }
            if let Some((is_first, _, beat)) = offered
                && outputs.ready
            {
                if is_first {
                    first.push(cycle);
                }
                if beat.last {
                    last.push(cycle);
                }
                beats.pop_front();
            }
            if beats.is_empty() && shell.drained() {
                break;
            }
        }

        // The closed form, packet by packet.
        let mut timing = RxParseTiming::new(results);
        let mut last_taken = None;
        for (index, packet) in packets.iter().enumerate() {
            let there = &there[index];
            let ahead = |(beat, cycle): (usize, &u64)| cycle.saturating_sub(beat as u64);
            let skew = there.iter().enumerate().map(ahead).max().unwrap_or(0);
            let passage = timing.pass(Arrival {
                first_beat: there[0],
                latest_skew: skew,
                beats: packet.gaps.len() as u64,
            });
            let valid = last_taken.map_or(passage.result, |taken: u64| passage.result.max(taken + 1));
            let take = (valid..).find(|cycle| consumer_ready(*cycle)).unwrap_or(valid);
            timing.take(take);
            last_taken = Some(take);
            prop_assert_eq!(passage.first_beat, first[index], "first beat of packet {}", index);
            prop_assert_eq!(passage.last_beat, last[index], "last beat of packet {}", index);
            prop_assert_eq!(valid, shown[index], "result of packet {}", index);
            prop_assert_eq!(take, taken[index], "taking of packet {}", index);
            prop_assert_eq!(results_seen[index], parse(&packet.frame, PORTS));
        }
    }
}

#[test]
fn every_malformation_has_a_verdict_of_its_own_name() {
    for malformed in Malformed::ALL {
        if *malformed != Malformed::NotThisProtocol {
            assert_eq!(verdict(*malformed).name(), malformed.name());
        }
    }
    assert_eq!(Status::of_number(verdict(Malformed::Fragment).number()), Some(Status::Fragment));
}
