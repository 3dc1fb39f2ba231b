//! Dummy packets, AGGFRAG payloads, flow labels and source ports.

use cryptonic_driver::{
    Direction, FlowLabel, Mode, Offload, OuterHeader, Protection, PspSaConfiguration, PspTransmit, SecretKey,
    SourcePort, Status,
};

use crate::packets::{TCP, UDP};
use crate::sas::{ENDS_V4, esp, packet, packet_v6, plain, psp, sa, sa_v6, tunnel, wide};
use crate::witness::{Mode as WitnessMode, Packet};

/// AGGFRAG payloads (RFC 9347 6.1).
const AGGFRAG: u8 = 144;

#[test]
fn a_dummy_leaves_like_any_packet_and_is_dropped_at_the_far_end() {
    let mut rig = plain();
    let out = rig.sender.install_sa(sa(Direction::Out, Mode::Tunnel)).expect("out");
    rig.receiver.install_sa(sa(Direction::In, Mode::Tunnel)).expect("in");
    let inner = packet(UDP, 40);
    let sent = rig.send_many(0, &inner.frame(), Protection::Sa(out), Offload::NONE.dummy()).expect("sent");
    let expected = esp(tunnel()).protect_dummy(&inner, 1);
    assert_eq!(sent, std::slice::from_ref(&expected));
    assert_eq!(rig.receive(&expected).map(|_| ()), Err(Status::Dummy));
    assert_eq!(rig.receive(&expected).map(|_| ()), Err(Status::ReplayDuplicate), "it took its number");
    // What follows has the next one.
    let sent = rig.send(0, &inner.frame(), Protection::Sa(out)).expect("sent");
    assert_eq!(sent, esp(tunnel()).protect(&inner, 2));
}

/// Given a tunnel, when its packet's payload is AGGFRAG, then it leaves under the IP header it came with, and comes out
/// so at the far end, whatever its selector says.
#[test]
fn an_aggfrag_payload_is_not_wrapped() {
    for mode in [Mode::Tunnel, Mode::Transport, Mode::Beet] {
        let mut rig = plain();
        let mut inner = packet(AGGFRAG, 52);
        (inner.source, inner.destination) = (ENDS_V4[0].to_vec(), ENDS_V4[1].to_vec());
        let whole = cryptonic_driver::Selector::between([10, 0, 0, 1].into(), [10, 1, 0, 2].into());
        let mut out = sa(Direction::Out, mode);
        let mut into = sa(Direction::In, mode);
        into.selector = Some(whole);
        into.check_selector = true;
        if mode == Mode::Beet {
            out.selector = Some(whole);
        }
        let out = rig.sender.install_sa(out).expect("out");
        rig.receiver.install_sa(into).expect("in");
        let sent = rig.send(0, &inner.frame(), Protection::Sa(out)).expect("sent");
        let expected = esp(WitnessMode::Transport).protect(&inner, 1);
        assert_eq!(sent, expected, "{mode:?}");
        let delivered = rig.receive(&expected).expect("delivered");
        assert_eq!(delivered.frame, inner.frame(), "{mode:?}");
        assert_eq!((delivered.facts.next_header, delivered.facts.sequence), (AGGFRAG, 1), "{mode:?}");
    }
}

/// The 20 bits of an IPv6 frame's flow label.
fn flow_label(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().expect("4 bytes")) & 0xf_ffff
}

#[test]
fn flow_labels_follow_their_policy() {
    let mut rig = plain();
    let mut install = |flow_label| {
        let mut out = sa_v6(Direction::Out, Mode::Tunnel);
        out.outer = out.outer.map(|outer| OuterHeader { flow_label, ..outer });
        out.key = SecretKey::new(&[flow_label_key(flow_label); 16]).expect("a key");
        rig.sender.install_sa(out).expect("out")
    };
    let copied = install(FlowLabel::CopyOr(0x77777));
    let hashed = install(FlowLabel::Hash);
    let mut label =
        |sa, inner: &Packet| flow_label(&rig.send(0, &inner.frame(), Protection::Sa(sa)).expect("sent"));

    assert_eq!(label(copied, &packet_v6(UDP, 40)), 0x5_4321, "that of the inner header");
    assert_eq!(label(copied, &packet(UDP, 40)), 0x7_7777, "IPv4 has none: the number of the SA");

    // Given flows that differ in one port, when they are hashed, then each keeps its label, and hardly any two agree.
    let labels: Vec<u32> = (0..32)
        .map(|port| {
            let mut inner = packet_v6(TCP, 40);
            inner.upper[1] = port;
            let first = label(hashed, &inner);
            inner.upper[30] ^= 1;
            assert_eq!(label(hashed, &inner), first, "the same flow");
            first
        })
        .collect();
    assert!(labels.iter().all(|label| *label != 0), "0 would be no label (RFC 6437 2)");
    let mut distinct = labels.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() >= 30, "{labels:x?}");
}

/// A key of its own for each SA: the driver refuses to use one twice.
fn flow_label_key(label: FlowLabel) -> u8 {
    match label {
        FlowLabel::Fixed(_) => 1,
        FlowLabel::CopyOr(_) => 2,
        FlowLabel::Hash => 3,
    }
}

/// UDP source port of an IPv4 frame without options.
fn source_port(frame: &[u8]) -> u16 {
    u16::from_be_bytes(frame[34..36].try_into().expect("2 bytes"))
}

/// Given a key in a descriptor, in a slot, and a frame with its headers already, when each sends the same flow, then
/// all take the port that the policy says, and the same one.
#[test]
fn source_ports_follow_their_policy() {
    let mut rig = wide();
    let version = 0;
    let witness = psp(version);
    let key = || SecretKey::new(&witness.key).expect("a key");
    let id = rig.queue(0).add_psp_key(version, witness.spi, &key()).expect("a key");
    let entries: [u16; 16] = std::array::from_fn(|entry| 20_000 + entry as u16);
    rig.sender.set_psp_source_ports(&entries).expect("a table");

    for (policy, number) in [(SourcePort::Entropy, 0), (SourcePort::PortsXor, 1), (SourcePort::Table, 2)] {
        let mut seen = vec![];
        for low in 0..48 {
            let mut inner = packet(TCP, 40);
            inner.upper[1] = low;
            let preformatted = witness.preformatted(&inner);
            let mut slot = PspSaConfiguration::new(version, key(), witness.spi);
            slot.source_port = policy;
            // The key is in use by one slot at a time.
            let slot = rig.sender.install_psp_sa(slot).expect("a slot");
            let by_slot = source_port(&rig.send(0, &inner.frame(), Protection::Sa(slot)).expect("sent"));
            rig.sender.delete_sa(slot).expect("deleted");
            let plain = PspTransmit { source_port: policy, ..PspTransmit::new(id) };
            let by_key = source_port(&rig.send(0, &inner.frame(), Protection::PspKey(plain)).expect("sent"));
            let formatted = PspTransmit { preformatted: true, ..plain };
            let by_host =
                source_port(&rig.send(0, &preformatted, Protection::PspKey(formatted)).expect("sent"));
            assert_eq!([by_slot, by_host], [by_key; 2], "{policy:?}");
            match number {
                0 => assert!(by_key >= 49_152, "dynamic ports (RFC 6335)"),
                1 => {
                    let port = |at: usize| u16::from_be_bytes([inner.upper[at], inner.upper[at + 1]]);
                    assert_eq!(by_key, port(0) ^ port(2));
                }
                _ => assert!(entries.contains(&by_key)),
            }
            seen.push(by_key);
        }
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() >= 10, "{policy:?} spreads flows: {seen:?}");
    }

    // What has no ports is sent from PSP's own by exclusive-or, as the reference implementation does; a pre-formatted
    // frame keeps its port under the policy `fixed`.
    let inner = packet(crate::packets::EXPERIMENT, 40);
    let xor = PspTransmit { source_port: SourcePort::PortsXor, ..PspTransmit::new(id) };
    assert_eq!(source_port(&rig.send(0, &inner.frame(), Protection::PspKey(xor)).expect("sent")), 1000);
    let fixed = PspTransmit { source_port: SourcePort::Fixed(9), preformatted: true, ..PspTransmit::new(id) };
    let sent = rig.send(0, &witness.preformatted(&inner), Protection::PspKey(fixed)).expect("sent");
    assert_eq!(source_port(&sent), witness.source_port);
}

#[test]
fn a_slot_of_psp_tells_what_it_protected() {
    let mut rig = plain();
    let key = SecretKey::new(&psp(3).key).expect("a key");
    let mut slot = PspSaConfiguration::new(3, key, psp(3).spi);
    slot.mode = Mode::Tunnel;
    slot.outer = Some(OuterHeader::new(ENDS_V4[0].into(), ENDS_V4[1].into()));
    let slot = rig.sender.install_psp_sa(slot).expect("a slot");
    for _ in 0..3 {
        rig.send(0, &packet(UDP, 100).frame(), Protection::Sa(slot)).expect("sent");
    }
    let state = rig.sender.query_sa(slot).expect("a state");
    assert_eq!((state.packets, state.bytes, state.spi), (3, 3 * 120, psp(3).spi));
}
