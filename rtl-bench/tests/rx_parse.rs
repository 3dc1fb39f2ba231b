//! `rx_parse`: what the bench around the RTL can do. Whether the RTL is right is for the lockstep tests.

mod common;

use cryptonic_hwmodel::rx_parse::{BEAT_OCTETS, Beat, Result as ParseResult, headers};
use cryptonic_rtl_bench::rx_parse::{RESULTS, RxParseRtl};
use cryptonic_rtl_bench::{Build, MUTANTS, TraceError, availability};
use cryptonic_wire::packet::{Expected, UdpPorts};

const EXPECTED: Expected = Expected {
    udp_ports: UdpPorts { psp: 1000, esp: 4500 },
    eesp_protocol: 253,
    eesp_in_udp: true,
    wespv2_protocol: 141,
};

/// The unit, or nothing where there is no RTL and none is required.
fn rtl(build: Build) -> Option<RxParseRtl> {
    let rtl = RxParseRtl::new(build, &EXPECTED);
    assert_eq!(rtl.as_ref().err(), availability().as_ref().err(), "one reason for all");
    rtl.map_err(common::skip).ok()
}

/// Ethernet, an EtherType that is not IP, zeros.
fn not_ip(octets: usize) -> Vec<u8> {
    let mut frame = vec![0; octets.max(14)];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame.truncate(octets);
    frame
}

/// IPv4 from 192.0.2.1 to 192.0.2.2 with ESP, whose SPI and sequence number are 0x1001 and 7. The checksum was added up
/// by hand: 4500 + 0028 + 4000 + 4032 + c000 + 0201 + c000 + 0202 = 2495d, 2 + 495d = 495f, ~495f = b6a0.
fn esp() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 50, 0xb6, 0xa0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([0, 0, 0x10, 0x01, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    frame
}

fn frames() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = [1, 13, 14, 60, 64, 65, 128, 1500].map(not_ip).into();
    frames.push(esp());
    frames
}

/// The beats of a frame. What counts for nothing is not zero.
fn beats(frame: &[u8]) -> Vec<Beat> {
    let count = frame.len().div_ceil(BEAT_OCTETS);
    let beat = |(index, octets): (usize, &[u8])| {
        let mut data = [0xa5; BEAT_OCTETS];
        data[..octets.len()].copy_from_slice(octets);
        Beat { data, octets: octets.len() as u8, last: index + 1 == count }
    };
    frame.chunks(BEAT_OCTETS).enumerate().map(beat).collect()
}

/// What comes out for these frames, with gaps and stalls, until the unit is drained.
fn results(rtl: &mut RxParseRtl, frames: &[Vec<u8>]) -> Vec<ParseResult> {
    let beats: Vec<Beat> = frames.iter().flat_map(|frame| beats(frame)).collect();
    let (mut next, mut results) = (0, Vec::new());
    for cycle in 0.. {
        let offered = beats.get(next).filter(|_| cycle % 3 != 1);
        let consumer_ready = cycle % 5 != 2;
        let outputs = rtl.step(offered, consumer_ready);
        next += usize::from(outputs.ready && offered.is_some());
        results.extend(outputs.result.filter(|_| consumer_ready));
        if next == beats.len() && rtl.drained() {
            break;
        }
        assert!(cycle < 100_000, "the unit does not drain");
    }
    results
}

fn by_model(frames: &[Vec<u8>]) -> Vec<ParseResult> {
    frames.iter().map(|frame| headers(frame, &EXPECTED)).collect()
}

#[test]
fn both_builds_give_the_results_of_the_model() {
    for (build, seed) in
        [(Build::Fast, 0), (Build::Inspect, 0), (Build::Inspect, 1), (Build::Inspect, u32::MAX)]
    {
        let Some(_) = rtl(build) else { return };
        let mut rtl = RxParseRtl::with_seed(build, &EXPECTED, seed).expect("there is RTL");
        assert!(rtl.drained());
        assert_eq!(results(&mut rtl, &frames()), by_model(&frames()), "{build:?}, seed {seed}");
        assert_eq!(rtl.failed_assertion(), None);
    }
}

#[test]
fn a_result_comes_a_fixed_time_behind_its_last_beat() {
    let Some(mut rtl) = rtl(Build::Fast) else { return };
    let mut latencies = Vec::new();
    for frame in frames() {
        for beat in beats(&frame) {
            assert!(rtl.step(Some(&beat), true).ready);
        }
        latencies.push((1..1000).find(|_| rtl.step(None, true).result.is_some()).expect("a result comes"));
    }
    latencies.dedup();
    assert_eq!(latencies.len(), 1, "{latencies:?}");
}

#[test]
fn without_a_consumer_the_unit_takes_as_many_packets_as_it_has_places() {
    let Some(mut rtl) = rtl(Build::Fast) else { return };
    let beat = beats(&not_ip(60))[0];
    let taken = (0..1000).filter(|_| rtl.step(Some(&beat), false).ready).count();
    assert_eq!(taken as u64, RESULTS);
}

#[test]
fn configuration_reaches_the_rtl() {
    let Some(_) = rtl(Build::Fast) else { return };
    let mut frame = esp();
    // Protocol 141 for 50, so that the header's sum is 91 less.
    frame[23] = 141;
    frame[25] -= 91;
    let off = Expected { wespv2_protocol: 0, ..EXPECTED };
    let frames = [frame];
    for expected in [EXPECTED, off] {
        let mut rtl = RxParseRtl::new(Build::Fast, &expected).expect("there is RTL");
        assert_eq!(results(&mut rtl, &frames), [headers(&frames[0], &expected)]);
    }
    assert_ne!(headers(&frames[0], &EXPECTED), headers(&frames[0], &off), "the frame tells them apart");
}

#[test]
fn a_failed_assertion_is_reported_and_the_run_goes_on() {
    let Some(mut rtl) = rtl(Build::Inspect) else { return };
    rtl.step(Some(&Beat { data: [0; BEAT_OCTETS], octets: 65, last: true }), true);
    rtl.step(None, true);
    let failure = rtl.failed_assertion().expect("a beat has no more than 64 octets");
    assert!(failure.contains("rx_parse.sv:") && failure.contains("BeatOctetsInRange"), "{failure}");
    for _ in 0..100 {
        rtl.step(None, true);
    }
    assert!(rtl.drained());
    assert_eq!(rtl.failed_assertion(), Some(failure), "it stays the first");
}

#[test]
fn a_mutant_differs_and_is_not_left_behind() {
    let Some(mut rtl) = rtl(Build::Inspect) else { return };
    // More packets than places, which nobody takes at first.
    let many: Vec<Vec<u8>> = frames().into_iter().cycle().take(200).collect();
    let stalled = |rtl: &mut RxParseRtl| {
        let beat = beats(&not_ip(60))[0];
        (0..1000).filter(|_| rtl.step(Some(&beat), false).ready).count() as u64
    };
    for mutant in FIRST_MUTANTS {
        let mutant = MUTANTS.iter().find(|row| row.name == mutant).expect("a row of mutants.toml");
        rtl.select_mutant(Some(mutant)).expect("the inspect build has mutants");
        let caught = stalled(&mut rtl) != RESULTS || {
            rtl.select_mutant(Some(mutant)).expect("the inspect build has mutants");
            results(&mut rtl, &many) != by_model(&many)
        };
        assert!(caught, "{}", mutant.name);
    }
    rtl.select_mutant(None).expect("no mutant is always there");
    assert_eq!(stalled(&mut rtl), RESULTS);
    rtl.select_mutant(None).expect("no mutant is always there");
    assert_eq!(results(&mut rtl, &many), by_model(&many));
    assert_eq!(rtl.failed_assertion(), None);
}

/// Those that these frames are enough for. The lockstep has all.
const FIRST_MUTANTS: [&str; 2] = ["packet_without_a_place", "checksum_carry_is_lost"];

#[test]
fn the_fast_build_has_neither_mutants_nor_waveforms() {
    let Some(mut rtl) = rtl(Build::Fast) else { return };
    let refused = rtl.select_mutant(MUTANTS.first()).expect_err("it has none");
    assert!(refused.to_string().contains("inspect"), "{refused}");
    let refused = rtl.trace_to("/dev/null".as_ref()).expect_err("it has none");
    assert!(matches!(refused, TraceError::NeedsInspect), "{refused}");
    assert_eq!(results(&mut rtl, &frames()), by_model(&frames()), "it runs on");
}

#[test]
fn a_mutant_of_another_unit_is_refused() {
    let Some(mut rtl) = rtl(Build::Inspect) else { return };
    let other = cryptonic_rtl_bench::Mutant { unit: "other", ..MUTANTS[0] };
    let refused = rtl.select_mutant(Some(&other)).expect_err("it is of another unit");
    assert!(refused.to_string().contains("another unit"), "{refused}");
}

#[test]
fn a_waveform_has_the_cycles_from_where_it_was_begun() {
    let Some(mut rtl) = rtl(Build::Inspect) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rx_parse.vcd");
    results(&mut rtl, &frames());
    let begun = rtl.cycle();
    rtl.trace_to(&path).expect("the file can be made");
    results(&mut rtl, &[esp()]);
    rtl.stop_trace();
    let ended = rtl.cycle();
    results(&mut rtl, &frames());
    let text = std::fs::read_to_string(&path).expect("it was written");
    let times: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix('#')?.parse().ok()).collect();
    assert!(text.contains("$timescale 1ps $end") && text.contains("beat_data_i"), "{}", &text[..200]);
    // One nanosecond a cycle, in picoseconds; the first evaluation is that of the first falling edge.
    assert_eq!((times.first(), times.last()), (Some(&(begun * 1000 + 500)), Some(&(ended * 1000))));
}

#[test]
fn a_waveform_that_cannot_be_written_is_explained() {
    let Some(mut rtl) = rtl(Build::Inspect) else { return };
    let path = "/nowhere/rx_parse.vcd";
    let error = rtl.trace_to(path.as_ref()).expect_err("there is no such folder");
    assert!(matches!(&error, TraceError::Io { error, .. } if error.kind() == std::io::ErrorKind::NotFound));
    assert!(error.to_string().contains(path), "{error}");
    assert_eq!(results(&mut rtl, &frames()), by_model(&frames()), "it runs on");
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_is_full_ends_no_run() {
    let Some(mut rtl) = rtl(Build::Inspect) else { return };
    let error = rtl.trace_to("/dev/full".as_ref()).expect_err("its head cannot be written");
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert_eq!(results(&mut rtl, &frames()), by_model(&frames()), "it runs on");
}

#[test]
fn units_in_several_threads_do_not_disturb_each_other() {
    let Some(_) = rtl(Build::Inspect) else { return };
    std::thread::scope(|scope| {
        for faulty in [false, true, false, true] {
            scope.spawn(move || {
                let mut rtl = RxParseRtl::new(Build::Inspect, &EXPECTED).expect("there is RTL");
                for _ in 0..20 {
                    assert_eq!(results(&mut rtl, &frames()), by_model(&frames()));
                }
                if faulty {
                    rtl.step(Some(&Beat { data: [0; BEAT_OCTETS], octets: 65, last: true }), true);
                    rtl.step(None, true);
                }
                assert_eq!(rtl.failed_assertion().is_some(), faulty);
            });
        }
    });
}

#[test]
fn differences_name_the_ports() {
    let Some(mut rtl) = rtl(Build::Fast) else { return };
    for beat in beats(&esp()) {
        rtl.step(Some(&beat), true);
    }
    let mut shown =
        (0..1000).map(|_| rtl.step(None, false)).find(|shown| shown.result.is_some()).expect("one");
    assert_eq!(rtl.differences(&shown), []);
    let Some(Ok(headers)) = &mut shown.result else { panic!("the frame is well formed: {shown:?}") };
    headers.parsed.spi ^= 0x10;
    headers.parsed.plain.source[15] ^= 1;
    shown.ready = false;
    let told: Vec<String> = rtl
        .differences(&shown)
        .iter()
        .map(|difference| format!("{} {} {}", difference.port, difference.rtl, difference.model))
        .collect();
    assert_eq!(
        told,
        [
            "beat_ready_o 0x1 0x0",
            "result_source_o 0x10200c0000000000000000000000000 0x200c0000000000000000000000000",
            "result_spi_o 0x1001 0x1011",
        ]
    );
}
