//! Packet rates against the arithmetic of the wire.

use cryptonic_driver::Protection;
use cryptonic_hwmodel::Parameters;
use cryptonic_hwmodel::pcie::transaction_rate_gbps;

use crate::rig::{Kind, Rig, frame, protected_bytes, with_idle_hosts};

/// Packets a nanosecond on the line of a flood, its first quarter left out, and what the line lets pass: frame,
/// FCS, preamble and gap.
fn measured_and_line(parameters: &Parameters, kind: Kind, size: usize, packets: usize) -> (f64, f64) {
    let mut rig = Rig::new(parameters, if kind == Kind::Psp { 64 } else { 32 });
    let protection = rig.protection(kind);
    let line = rig.tap(rig.a.id);
    assert_eq!(
        rig.flood(&frame(size), protection, packets, 64),
        packets,
        "{kind:?}, {size} bytes: all arrive"
    );
    let line = line.borrow();
    let protected = protected_bytes(kind, size);
    assert!(line.iter().all(|(_, frame)| frame.len() == protected.max(60)));
    let from = packets / 4;
    let span = (line[packets - 1].0 - line[from].0).nanoseconds();
    let found = (packets - 1 - from) as f64 / span;
    (found, parameters.mac.rate_gbps as f64 / (8.0 * (protected.max(60) + 24) as f64))
}

#[test]
fn esp_and_psp_run_at_line_rate_from_64_bytes_up() {
    let parameters = with_idle_hosts(Parameters::preset("100g").expect("a preset"));
    for kind in [Kind::EspTransport, Kind::EspTunnel, Kind::Psp] {
        for size in [64, 128, 256, 512, 1024, 1518] {
            let (found, line) = measured_and_line(&parameters, kind, size, 3_000);
            println!("{kind:?}, {size} bytes: {:.2} of {:.2} Mpps", found * 1e3, line * 1e3);
            assert!(
                (found / line - 1.0).abs() < 0.01,
                "{kind:?}, {size} bytes: {found}, not {line} packets/ns"
            );
        }
    }
}

/// The clock lets one packet a beat pass: 322.265625 million beats a second.
const BEATS: f64 = 0.322_265_625;

/// Packets a nanosecond that completions and doorbells let pass: frame, a sixteenth of a fetch of 16 descriptors,
/// a doorbell in 64.
fn pcie_rate(parameters: &Parameters, size: usize, stride: u64) -> f64 {
    let link = &parameters.pcie;
    let completion = |bytes: u64| (20 * bytes.div_ceil(link.completion_bytes) + bytes) as f64;
    let bytes = completion(size as u64 - 4) + completion(16 * stride) / 16.0 + 28.0 / 64.0;
    transaction_rate_gbps(link.generation, link.lanes, link.mps_bytes) / 8.0 / bytes
}

/// Where the line does not decide, the bus does, in a beat of which one frame begins, or the link to the device.
#[test]
fn each_preset_runs_at_the_rate_of_its_line_or_of_its_bus() {
    for preset in Parameters::PRESETS {
        let parameters = with_idle_hosts(Parameters::preset(preset).expect("a preset"));
        for (kind, size) in [
            (Kind::Clear, 64),
            (Kind::EspTransport, 64),
            (Kind::Psp, 64),
            // A byte more than a beat of 128: 161.1 of 163.4 Mpps at 200 Gb/s.
            (Kind::Clear, 133),
            (Kind::EspTunnel, 256),
            (Kind::EspTunnel, 1518),
        ] {
            let (found, line) = measured_and_line(&parameters, kind, size, 4_000);
            let beats = protected_bytes(kind, size).div_ceil(parameters.pipeline.bus_bytes as usize);
            let limits = [
                (line, "line"),
                (BEATS / beats as f64, "bus"),
                (pcie_rate(&parameters, size, if kind == Kind::Psp { 64 } else { 32 }), "link to the device"),
            ];
            let (limit, stage) =
                limits.into_iter().min_by(|one, other| one.0.total_cmp(&other.0)).expect("three");
            println!(
                "{preset}, {kind:?}, {size} bytes: {:.2} Mpps, {stage} {:.2} Mpps",
                found * 1e3,
                limit * 1e3
            );
            assert!(
                (found / limit - 1.0).abs() < 0.01,
                "{preset}, {kind:?}, {size} bytes: {found}, not {limit} packets/ns of the {stage}"
            );
        }
    }
}

/// One queue pair has no more descriptors under way than prefetch allows; a fetch waits behind the reads of the
/// packets whose descriptors came before it.
#[test]
fn prefetch_bounds_the_rate_of_one_queue_pair_as_littles_law_says() {
    let mut parameters = with_idle_hosts(Parameters::preset("100g").expect("a preset"));
    parameters.descriptors.transmit_prefetch = 64;
    let (found, line) = measured_and_line(&parameters, Kind::Clear, 64, 6_000);
    // 24 bytes up, 540 ns, 552 bytes down, and 16 gather cycles.
    let expected = 64.0 / (540.0 + 576.0 * 8.0 / 227.4 + 16.0 / 0.322_265_625);
    println!(
        "prefetch 64: {:.2} Mpps, {:.2} by Little's law, line {:.2}",
        found * 1e3,
        expected * 1e3,
        line * 1e3
    );
    assert!((found / expected - 1.0).abs() < 0.01, "{found}, not {expected} packets/ns");
}

/// Both directions of a NIC share its link. Reads that wait for their turn leave no holes in it: with 94 % of its
/// bytes to the host in use, both lines are full.
#[test]
fn both_ways_at_once_run_at_line_rate() {
    let parameters = with_idle_hosts(Parameters::preset("100g").expect("a preset"));
    let mut rig = Rig::new(&parameters, 32);
    let lines = [rig.tap(rig.a.id), rig.tap(rig.b.id)];
    let (size, batches) = (84, 100);
    let frames = vec![frame(size); 64];
    let (mut sent, mut arrived) = ([0; 2], [0; 2]);
    while arrived != [batches * 64; 2] {
        let mut moved = false;
        for (index, end) in [&mut rig.a, &mut rig.b].into_iter().enumerate() {
            end.reap();
            arrived[index] += end.receive(|_, _| {});
            if sent[index] < batches && end.queue.transmit_space() >= 64 {
                end.send(&frames, Protection::Clear);
                sent[index] += 1;
                moved = true;
            }
        }
        if !moved {
            rig.a.queue.relax();
        }
    }
    let expected = 100.0 / (8.0 * (size + 20) as f64);
    for line in lines {
        let line = line.borrow();
        let found = (line.len() - 1 - 1_600) as f64 / (line[line.len() - 1].0 - line[1_600].0).nanoseconds();
        println!("both ways, {size} bytes clear: {:.2} of {:.2} Mpps", found * 1e3, expected * 1e3);
        assert!((found / expected - 1.0).abs() < 0.01, "{found}, not {expected} packets/ns");
    }
}
