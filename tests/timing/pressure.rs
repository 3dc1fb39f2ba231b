//! What happens when a buffer, the tags or a link are too small: packets wait or are dropped with a reason, and
//! every unit comes back.

use std::collections::BTreeMap;

use cryptonic_driver::Status;
use cryptonic_hwmodel::Parameters;

use crate::rig::{Kind, Rig, frame, with_idle_hosts};

#[test]
fn small_buffers_and_few_tags_slow_packets_down_and_lose_none() {
    let base = with_idle_hosts(Parameters::default());
    let mut small_buffer = base.clone();
    small_buffer.mac.transmit_buffer_bytes = 16_384;
    let mut slow_line = small_buffer.clone();
    slow_line.mac.rate_gbps = 1;
    let mut few_tags = base.clone();
    few_tags.pcie.read_tags = 32;
    let mut few_credits = base.clone();
    few_credits.pcie.completion_credit_bytes = 16_384;
    let mut few_descriptors = base.clone();
    few_descriptors.descriptors.transmit_prefetch = 1;
    few_descriptors.descriptors.receive_prefetch = 2;
    let mut few_results = base.clone();
    few_results.pipeline.parse_results = 1;
    for (name, parameters) in [
        ("transmit buffer", small_buffer),
        ("transmit buffer and line", slow_line),
        ("tags", few_tags),
        ("credits", few_credits),
        ("prefetch", few_descriptors),
        ("parser results", few_results),
    ] {
        for kind in [Kind::Clear, Kind::EspTunnel, Kind::Psp] {
            for size in [64, 1518] {
                let mut rig = Rig::new(&parameters, if kind == Kind::Psp { 64 } else { 32 });
                let protection = rig.protection(kind);
                rig.world.record_drops(rig.b.id);
                // Twice: what was held in the first flood has come back for the second.
                for _ in 0..2 {
                    let arrived = rig.flood(&frame(size), protection, 600, 64);
                    assert_eq!(rig.world.take_drops(rig.b.id), [], "{name}, {kind:?}, {size} bytes");
                    assert_eq!(arrived, 600, "{name}, {kind:?}, {size} bytes");
                }
            }
        }
    }
}

/// Little's law at the tags, end to end: reads of packets leave 8 of 32 free; 17 reads are 16 packets, under way
/// for 540 ns and their bytes on the link.
#[test]
fn few_tags_bound_the_packet_rate() {
    let mut parameters = with_idle_hosts(Parameters::default());
    parameters.pcie.read_tags = 32;
    let mut rig = Rig::new(&parameters, 32);
    let protection = rig.protection(Kind::Clear);
    let line = rig.tap(rig.a.id);
    let packets = 4_000;
    assert_eq!(rig.flood(&frame(64), protection, packets, 64), packets);
    let line = line.borrow();
    let found = (packets - 1 - 1_000) as f64 / (line[packets - 1].0 - line[1_000].0).nanoseconds();
    // 108 bytes on the link at 28.4 bytes a nanosecond.
    let expected = (32.0 - 8.0) * 16.0 / 17.0 / (540.0 + 108.0 * 8.0 / 227.4);
    println!("32 tags: {:.2} Mpps, at most {:.2}", found * 1e3, expected * 1e3);
    assert!(found < expected * 1.01, "{found} of at most {expected} packets/ns");
    assert!(found > expected * 0.97, "{found} of at most {expected} packets/ns");
}

/// A receiver whose PCI Express link carries a seventh of its line.
#[test]
fn a_slow_host_link_drops_with_a_reason_and_recovers() {
    let sender = with_idle_hosts(Parameters::default());
    let mut receiver = sender.clone();
    receiver.pcie.lanes = 1;
    receiver.mac.receive_buffer_bytes = 65_536;
    for (kind, size) in
        [(Kind::Clear, 64), (Kind::EspTransport, 512), (Kind::EspTunnel, 1518), (Kind::Psp, 1518)]
    {
        let mut rig = Rig::with_two(&sender, &receiver, 64);
        let protection = rig.protection(kind);
        rig.world.record_drops(rig.b.id);
        let packets = 6_000;
        let mut arrived_before = None;
        for _ in 0..3 {
            let before = rig.b.nic.statistics().expect("statistics");
            let arrived = rig.flood(&frame(size), protection, packets, 64);
            let mut reasons = BTreeMap::new();
            for reason in rig.world.take_drops(rig.b.id) {
                *reasons.entry(reason.number()).or_insert(0) += 1;
            }
            let dropped: usize = reasons.values().sum();
            assert_eq!(arrived + dropped, packets, "{kind:?}: nothing is lost without a reason: {reasons:?}");
            let overflow = reasons.get(&Status::ReceiveOverflow.number()).copied().unwrap_or(0);
            assert_eq!(overflow, dropped, "{kind:?}: no other reason: {reasons:?}");
            assert!(overflow > packets / 4, "{kind:?}: {arrived} arrived, {overflow} overflowed");
            let after = rig.b.nic.statistics().expect("statistics");
            let counted = |status| (after.packets(status) - before.packets(status)) as usize;
            assert_eq!((counted(Status::Ok), counted(Status::ReceiveOverflow)), (arrived, overflow));
            // Credits came back: the next flood finds the buffer as empty as this one did.
            if let Some(earlier) = arrived_before.replace(arrived) {
                assert!(arrived.abs_diff(earlier) <= 8, "{kind:?}: {earlier}, then {arrived} arrived");
            }
            // And a single packet passes.
            assert_eq!(rig.flood(&frame(size), protection, 1, 1), 1);
        }
    }
}
