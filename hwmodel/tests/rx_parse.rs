//! The two faces of `rx_parse` are one unit: its closed form and its clocked shell agree in every cycle,
//! under random packets, gaps between beats and stalls of the consumer.

use std::collections::VecDeque;

use cryptonic_hwmodel::rx_parse::{
    Arrival, BEAT_OCTETS, Beat, RxParseShell, RxParseTiming, headers, parse, verdict,
};
use cryptonic_regs::Status;
use cryptonic_wire::packet::Expected;
use cryptonic_wire::{Malformed, Protocol, UdpPorts};
use proptest::collection::vec;
use proptest::prelude::*;

const PORTS: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: 254,
    eesp_in_udp: true,
    wespv2_protocol: 141,
};

/// A packet and, for each of its beats, how many cycles after the beat before it is there. Beats wait in a FIFO in
/// front of the unit: with 0 they are there together.
#[derive(Clone, Debug)]
struct Offered {
    frame: Vec<u8>,
    gaps: Vec<u64>,
}

fn offered() -> impl Strategy<Value = Offered> {
    let frame = prop_oneof![vec(any::<u8>(), 1..400), protected()];
    (frame, 0_u64..4).prop_flat_map(|(frame, idle)| {
        let beats = frame.len().div_ceil(BEAT_OCTETS);
        let frame = Just(frame);
        (frame, vec(0..=idle, beats)).prop_map(|(frame, gaps)| Offered { frame, gaps })
    })
}

/// Frames that reach into ESP, PSP and UDP: to each port, with an SPI, a marker or a keepalive at its place, cut at
/// any length, and sometimes with an octet changed.
fn protected() -> impl Strategy<Value = Vec<u8>> {
    let carrier =
        (any::<bool>(), prop_oneof![Just(None), Just(Some(1000_u16)), Just(Some(4500)), Just(Some(9))]);
    let first = prop_oneof![
        Just(vec![]),
        Just(vec![0xff]),
        Just(vec![0, 0, 0, 0]),
        Just(vec![0, 0, 0, 200]),
        Just(vec![0x11, 1, 0, 1, 0x80, 0, 0, 9]),
        Just(vec![0x11, 2, 63, 0x07, 0x80, 0, 0, 9]),
    ];
    let rest = vec(any::<u8>(), 0..180);
    let change = prop::option::weighted(0.3, (0_usize..90, 0_u8..8));
    (carrier, first, rest, 0_usize..8, change).prop_map(|((ipv6, port), first, rest, cut, change)| {
        let payload = [first, rest].concat();
        let upper = match port {
            None => payload,
            Some(port) => {
                let length = (payload.len() + 8) as u16;
                let header = [[0x12, 0x34], port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
                [header, payload].concat()
            }
        };
        let mut frame = framed(ipv6, if port.is_some() { 17 } else { 50 }, &upper);
        if let Some((place, bit)) = change
            && let Some(octet) = frame.get_mut(place)
        {
            *octet ^= 1 << bit;
        }
        frame.truncate(frame.len() - cut.min(frame.len() - 1));
        frame
    })
}

/// Ethernet and IP in front of an upper protocol.
fn framed(ipv6: bool, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(if ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    let mut header = if ipv6 {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend((upper.len() as u16).to_be_bytes());
        header.extend([protocol, 64]);
        header.extend([7; 32]);
        header
    } else {
        let mut header = vec![0x45, 0];
        header.extend((upper.len() as u16 + 20).to_be_bytes());
        header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        header.extend([7; 8]);
        header
    };
    if !ipv6 {
        // RFC 1071, over ten words.
        let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        header[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
    }
    frame.extend(header);
    frame.extend(upper);
    frame
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
            for (beat, bytes) in packet.frame.chunks(BEAT_OCTETS).enumerate() {
                time += packet.gaps[beat];
                there[index].push(time);
                let mut data = [0xa5; BEAT_OCTETS];
                data[..bytes.len()].copy_from_slice(bytes);
                let octets = bytes.len() as u8;
                beats.push_back((beat == 0, time, Beat { data, octets, last: beat + 1 == count }));
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
            prop_assert_eq!(results_seen[index], headers(&packet.frame, &PORTS));
        }
    }
}

#[test]
fn every_malformation_has_a_verdict_of_its_own_name() {
    for malformed in Malformed::ALL.iter().filter(|malformed| **malformed != Malformed::NotThisProtocol) {
        assert_eq!(verdict(*malformed).name(), malformed.name());
    }
    assert_eq!(Status::of_number(verdict(Malformed::Fragment).number()), Some(Status::Fragment));
}

/// The frames of the property reach what they are to reach.
#[test]
fn the_parser_tells_esp_in_udp_from_what_shares_its_port() {
    let to = |port: u16, payload: &[u8]| {
        let header = [[0x12, 0x34], port.to_be_bytes(), (payload.len() as u16 + 8).to_be_bytes(), [0, 0]];
        framed(false, 17, &[header.concat(), payload.to_vec()].concat())
    };
    let esp = [&[0, 0, 1, 0][..], &[0; 40]].concat();
    let psp = [&[0x11, 1, 0, 1, 0x80, 0, 0, 9][..], &[0; 40]].concat();
    let off = Expected::from(UdpPorts { psp: 1000, esp: 0 });
    let rows = [
        (to(4500, &esp), PORTS, Ok(Protocol::Esp)),
        (to(4500, &esp), off, Ok(Protocol::Other)),
        (to(4501, &esp), PORTS, Ok(Protocol::Other)),
        (to(4500, &[0; 40]), PORTS, Ok(Protocol::Other)),
        (to(4500, &[0xff]), PORTS, Ok(Protocol::NatKeepalive)),
        (to(4500, &[0xff]), off, Ok(Protocol::Other)),
        (to(4500, &[0xff, 0xff]), PORTS, Err(Status::TruncatedEsp)),
        (to(4500, &[0, 0, 0, 255, 0, 0, 0, 1]), PORTS, Ok(Protocol::Other)),
        (to(1000, &psp), PORTS, Ok(Protocol::Psp)),
        (to(1000, &psp[..20]), PORTS, Err(Status::TruncatedPsp)),
        (framed(true, 50, &esp), PORTS, Ok(Protocol::Esp)),
        (framed(true, 50, &[0; 40]), PORTS, Err(Status::ReservedSpi)),
    ];
    for (index, (frame, ports, expected)) in rows.iter().enumerate() {
        assert_eq!(parse(frame, ports).map(|parsed| parsed.protocol), *expected, "row {index}");
    }
}
