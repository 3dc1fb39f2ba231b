//! SA files that follow one another under traffic.

use std::fs;

use etherparse::PacketBuilder;

use crate::forms::{Held, TUNNEL, Witness, spi};
use crate::host::Host;
use crate::rig::Rig;

const GENERATIONS: u32 = 4;
const BURST: u32 = 16;

/// Has a gateway read its file again. Gives what it says.
fn read_again(rig: &Rig, side: usize, text: &str) -> String {
    fs::write(rig.path("sa.toml", side), text).expect("a file");
    let gateway = rig.gateways[side].as_ref().expect("it runs");
    gateway.signal("HUP");
    gateway.await_line("SAs")
}

/// Sends numbered packets both ways, and takes what comes.
struct Numbered {
    next: u32,
    /// Numbers that came to each host.
    came: [Vec<u32>; 2],
}

impl Numbered {
    fn frame(from: usize, number: u32) -> Vec<u8> {
        let side = from as u8 + 1;
        let builder = PacketBuilder::ethernet2([2, 0xaa, 0, 0, 0, side], [2, 0, 10, side, 0, 254])
            .ipv4([10, side, 0, 1], [10, 3 - side, 0, 1], 64)
            .udp(9, 9);
        let mut frame = Vec::new();
        builder.write(&mut frame, &number.to_be_bytes()).expect("a frame");
        frame
    }

    fn send(&mut self, rig: &Rig) {
        for number in self.next..self.next + BURST {
            (0..2).for_each(|from| rig.hosts[from].port.put(&Numbered::frame(from, number)));
        }
        self.next += BURST;
    }

    fn take(&mut self, host: usize, from: &Host) {
        while let Some(frame) = from.port.get() {
            if frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17) {
                self.came[host].push(u32::from_be_bytes(frame[42..46].try_into().expect("a number")));
            }
        }
    }

    /// Until all that was sent has come.
    fn await_all(&mut self, rig: &mut Rig) {
        let all = self.next as usize;
        let deadline = std::time::Instant::now() + crate::rig::PATIENCE;
        while self.came.iter().any(|came| came.len() < all) {
            assert!(std::time::Instant::now() < deadline, "{} of {all} came", self.came[0].len());
            rig.carry();
            (0..2).for_each(|host| self.take(host, &rig.hosts[host]));
        }
    }
}

#[test]
fn pairs_of_keys_follow_one_another_under_traffic_and_no_packet_is_lost() {
    // Given two gateways, and hosts that they know
    let file = |side: usize, out: u32, opens: &[u32]| TUNNEL.file(side, out, opens);
    let files = [0, 1].map(|side| file(side, 1, &[1]));
    let mut rig = Rig::new([&files[0], &files[1]], false);
    rig.ping(0, rig.ends(0, false), 1);
    rig.ping(1, rig.ends(0, false), 1);
    let mut numbered = Numbered { next: 0, came: [vec![], vec![]] };
    let telling = |rig: &mut Rig, numbered: &mut Numbered, out: u32, opens: &[u32], says: &str| {
        for side in [0, 1] {
            // Packets are on their way whenever a file is read.
            numbered.send(rig);
            rig.carry();
            let line = read_again(rig, side, &file(side, out, opens));
            assert!(line.ends_with(says), "{line}");
            numbered.send(rig);
            rig.carry();
        }
    };
    // When each pair is installed before it is used, and the one before is deleted when nothing is under way by it
    for old in 1..GENERATIONS {
        let new = old + 1;
        telling(&mut rig, &mut numbered, old, &[old, new], "1 SAs installed, 2 kept, 0 deleted");
        telling(&mut rig, &mut numbered, new, &[old, new], "1 SAs installed, 2 kept, 1 deleted");
        numbered.await_all(&mut rig);
        telling(&mut rig, &mut numbered, new, &[new], "0 SAs installed, 2 kept, 1 deleted");
    }
    numbered.await_all(&mut rig);
    // Then every packet came, once and in order
    let all: Vec<u32> = (0..numbered.next).collect();
    assert_eq!(numbered.came, [all.clone(), all]);
    // And each pair was used, its numbers from 1 on without a gap, and another library opens them
    let mut witness = Witness::new(TUNNEL);
    let mut udp = 0;
    for (_, frame) in &rig.carried {
        udp += u32::from(matches!(witness.open(frame), Some(Held::Tunnel(inner)) if inner[9] == 17));
    }
    assert_eq!(udp, 2 * numbered.next);
    for generation in 1..=GENERATIONS {
        assert!((0..2).all(|side| witness.met().contains_key(&spi(side, generation, 0))), "{generation}");
    }
    // And the reports tell of all of them
    for side in [0, 1] {
        let report = rig.end(side);
        let deleted = |sa: &&serde_json::Value| sa["deleted"] == true;
        let sas = report["sas"].as_array().expect("SAs");
        assert_eq!((sas.len(), sas.iter().filter(deleted).count()), (8, 6), "{report:#}");
        let opened = sas
            .iter()
            .filter(|sa| sa["direction"] == "in")
            .map(|sa| sa["packets"].as_u64().expect("a count"));
        assert_eq!(opened.sum::<u64>(), u64::from(numbered.next) + 2, "{report:#}");
        assert_eq!((&report["sa_file_read_again"], &report["lost_without_reason"]), (&9.into(), &0.into()));
    }
}

#[test]
fn a_file_that_will_not_do_is_told_and_nothing_changes() {
    let files = [0, 1].map(|side| TUNNEL.file(side, 1, &[1]));
    let mut rig = Rig::new([&files[0], &files[1]], false);
    let ends = rig.ends(0, false);
    rig.ping(0, ends, 1);
    let good = &files[0];
    let other_key = good.replacen("key = \"", "key = \"ff", 1).replacen("\"\nsalt", "\"\n#", 1);
    let salt = "salt = \"";
    let place = good.find(salt).expect("a salt") + salt.len();
    let mut other_salt = good.clone();
    other_salt.replace_range(place..place + 2, "00");
    // A new SA with the key of one that was in use, and one more that is good: neither comes in.
    let again = TUNNEL.file(0, 2, &[1]).replace("spi = 0x1002", "spi = 0x1003");
    let twice = format!("{good}{}", &again[again.find("[[sa]]").expect("an SA")..]);
    let rows: [(&str, &[&str]); 6] = [
        ("", &["0 SAs installed", "2 deleted"]),
        ("nonsense", &["sa.toml-left:1"]),
        (&other_key, &["sa.toml-left:", "16", "stay as they were"]),
        (&other_salt, &["`salt` is not as it was", "take a new SPI", "stay as they were"]),
        (&twice, &["exists", "stay as they were"]),
        ("[psp]\nreceive = true\n", &["[psp]: cannot change", "stay as they were"]),
    ];
    for (text, parts) in rows.into_iter().skip(1) {
        let line = read_again(&rig, 0, text);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        rig.ping(0, ends, 1);
        rig.ping(1, ends, 1);
    }
    fs::remove_file(rig.path("sa.toml", 0)).expect("removes");
    let gateway = rig.gateways[0].as_ref().expect("it runs");
    gateway.signal("HUP");
    assert!(gateway.await_line("sa.toml-left").contains("No such file"));
    rig.ping(0, ends, 1);
    // An empty file is a good one: it takes all SAs away, and nothing passes in clear but what `default` lets pass.
    let (text, parts) = rows[0];
    let line = read_again(&rig, 0, &format!("default = \"drop\"\n{text}"));
    assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    // Its keys were in use: they do not come back with the numbers that they had.
    let line = read_again(&rig, 0, good);
    assert!(line.contains("stay as they were"), "{line}");
    let report = rig.end(0);
    assert_eq!(
        (&report["sa_file_read_again"], &report["sa_file_refused"]),
        (&1.into(), &7.into()),
        "{report:#}"
    );
}
