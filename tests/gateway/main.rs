//! `gateway` as its users meet it: two of them back to back, with a TCP/IP stack of another project behind each.

mod forms;
mod host;
mod namespaces;
mod psp;
mod rekey;
mod rig;
mod router;
#[path = "../forms/textbook.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod textbook;
mod verdicts;
#[path = "../forms/witness.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod witness;

use std::fs;

use forms::{Form, OUTER_6, TUNNEL, Witness, held, hops, spi};
use rig::Rig;

const FORMS: [Form; 7] = [
    TUNNEL,
    Form { name: "tunnel over IPv6, 256", outer: Some(OUTER_6), key_bytes: 32, ..TUNNEL },
    Form { name: "tunnel in UDP, 256", key_bytes: 32, udp: true, ..TUNNEL },
    Form { name: "tunnel with ESN over 2^32", esn: true, sequence: 0xffff_ffe0, ..TUNNEL },
    Form { name: "tunnel over IPv6 in UDP with ESN", outer: Some(OUTER_6), esn: true, udp: true, ..TUNNEL },
    Form { name: "transport", outer: None, ..TUNNEL },
    Form {
        name: "transport in UDP with ESN over 2^32, 256",
        outer: None,
        key_bytes: 32,
        esn: true,
        sequence: 0x1_ffff_fff0,
        udp: true,
    },
];

/// Every ESP packet on the wire holds a packet that the host behind its sender sent; gives how many there were.
fn judge(rig: &Rig, form: Form, witness: &mut Witness) -> usize {
    let mut sent = [0, 1].map(|side| {
        let packets = rig.hosts[side].port.sent.borrow();
        packets.iter().map(|packet| held(&form, packet)).collect::<Vec<_>>()
    });
    let mut opened = 0;
    for (side, frame) in &rig.carried {
        let Some(inner) = witness.open(frame) else { continue };
        let place = sent[*side].iter().position(|packet| *packet == inner);
        sent[*side].swap_remove(place.unwrap_or_else(|| panic!("nobody sent {inner:02x?}")));
        opened += 1;
    }
    opened
}

#[test]
fn hosts_behind_two_gateways_ping_and_stream_in_every_form() {
    for form in FORMS {
        println!("{}", form.name);
        // Given gateways with a pair of SAs
        let files = [0, 1].map(|side| form.file(side, 1, &[1]));
        let mut rig = Rig::new([&files[0], &files[1]], form.is_transport());
        // When hosts of either family ping and stream, both ways; then all comes as it was sent
        for family in [0, 1] {
            let ends = rig.ends(family, form.is_transport());
            rig.ping(0, ends, 4);
            rig.ping(1, ends, 4);
            rig.stream(ends, 40_000 + family as u16, 60_000, |_, _| {});
        }
        // And another library opens every packet on the wire, the last ones too, and finds what the hosts sent
        let reports = [0, 1].map(|side| rig.end(side));
        rig.carry();
        let mut witness = Witness::new(form);
        let opened = judge(&rig, form, &mut witness);
        assert!(opened > 200, "{opened}");
        // And two routers are two hops; those who think themselves on one link stay so
        for host in &rig.hosts {
            let wanted = if form.is_transport() { 64 } else { 62 };
            assert!(host.port.received.borrow().iter().all(|packet| hops(packet) == wanted));
        }
        // And the reports know them
        for side in [0, 1] {
            let report = &reports[side];
            assert_eq!(report["lost_without_reason"], 0, "{report:#}");
            assert_eq!(report["interrupted"], true);
            assert!(report["verdicts"]["no_neighbour"].is_null(), "{report:#}");
            let sas = report["sas"].as_array().expect("SAs");
            for sa in sas.iter().filter(|sa| sa["direction"] == "out") {
                let number = sa["spi"].as_u64().expect("a number") as u32;
                let last = witness.met().get(&number).copied();
                assert_eq!(sa["sequence"].as_u64(), last, "{report:#}");
                let written = fs::read_to_string(rig.path("sa-out.toml", side)).expect("written");
                assert!(written.contains(&format!("sequence = {}\n", last.expect("used"))), "{written}");
            }
            assert_eq!(sas.iter().filter(|sa| sa["spi"] == spi(side, 1, 0)).count(), 1);
        }
    }
}

#[test]
fn a_gateway_that_was_away_goes_on_where_it_was() {
    // Given two gateways that were used
    let files = [0, 1].map(|side| TUNNEL.file(side, 1, &[1]));
    let mut rig = Rig::new([&files[0], &files[1]], false);
    let ends = rig.ends(0, false);
    rig.ping(0, ends, 3);
    // When one ends, and the other goes on
    rig.end(1);
    assert!(!rig.path("outside", 1).exists() && !rig.path("inside", 1).exists(), "no socket is left");
    rig.hosts[0].send_ping(ends[0], ends[1], 99, b"into the dark");
    let before = rig.carried.len();
    rig.until("the packet on the wire", |rig| rig.carried.len() > before);
    // And comes back with the numbers that it wrote down
    fs::rename(rig.path("sa-out.toml", 1), rig.path("sa.toml", 1)).expect("renames");
    rig.start(1, &[]);
    // Then both talk as before, and no number was used twice
    rig.ping(1, ends, 3);
    rig.ping(0, ends, 3);
    assert!(judge(&rig, TUNNEL, &mut Witness::new(TUNNEL)) >= 19);
    for side in [0, 1] {
        assert!(rig.end(side)["sas"][1]["replayed"] == 0);
    }
}
