use cryptonic_wire::packet;
use etherparse::PacketBuilder;

use super::*;
use crate::commands::gate::{Gate, Outcome};
use crate::device::DeviceName;
use crate::toml_reader::Source;

const OVER_4: &str = "tunnel = { src = \"192.0.2.1\", dst = \"192.0.2.2\" }\n";
const OVER_6: &str = "tunnel = { src = \"2001:db8::1\", dst = \"2001:db8::2\" }\n";
const IN_UDP: &str = "udp_encap = { src_port = 4500, dst_port = 4500 }\n";

fn esp(mode: &str, more: &str) -> String {
    let key = "000102030405060708090a0b0c0d0e0f";
    format!(
        "default = \"drop\"\n[[sa]]\ndirection = \"out\"\nprotocol = \"esp\"\nmode = \"{mode}\"\nspi = 0x1001\n\
         key = \"{key}\"\nsalt = \"a1b2c3d4\"\ncipher = \"aes-gcm-128\"\n{more}"
    )
}

fn psp(mode: &str, more: &str) -> String {
    let key = "000102030405060708090a0b0c0d0e0f";
    format!(
        "default = \"drop\"\n[[sa]]\ndirection = \"out\"\nprotocol = \"psp\"\nmode = \"{mode}\"\nspi = 0x1001\n\
         key = \"{key}\"\nversion = 0\n{more}"
    )
}

fn file(text: &str) -> SaFile {
    SaFile::parse(&Source::new("sa.toml", text.to_owned())).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// An IP packet of this length in a frame.
fn frame(family: u8, length: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let (builder, headers) = match family {
        4 => (builder.ipv4([10, 1, 0, 1], [10, 2, 0, 1], 64), 28),
        _ => (builder.ipv6([0x20; 16], [0x21; 16], 64), 48),
    };
    let mut frame = Vec::new();
    builder.udp(1000, 2000).write(&mut frame, &vec![7; length - headers]).expect("a frame");
    frame
}

/// The NIC is asked: the longest packet fits the link when it is protected, and one octet more does not.
#[test]
fn the_longest_packet_of_each_form_is_what_the_nic_makes_fit() {
    let pair_4 = "selector = { src = \"10.1.0.1\", dst = \"10.2.0.1\" }\n";
    let pair_6 = "selector = { src = \"2020:2020:2020:2020:2020:2020:2020:2020\", \
                  dst = \"2121:2121:2121:2121:2121:2121:2121:2121\" }\n";
    let with = |parts: &[&str]| parts.concat();
    // (SA, family of the packet, the longest in 1500 where it was reckoned by hand)
    let rows = [
        (esp("tunnel", OVER_4), 4, Some(1446)),
        (esp("tunnel", OVER_4), 6, Some(1446)),
        (esp("tunnel", OVER_6), 4, Some(1426)),
        (esp("tunnel", OVER_6), 6, Some(1426)),
        (esp("tunnel", &with(&[OVER_4, IN_UDP])), 4, Some(1438)),
        (esp("tunnel", &with(&[OVER_6, IN_UDP])), 6, Some(1418)),
        (esp("tunnel", &with(&[OVER_4, "implicit_iv = true\n"])), 4, Some(1454)),
        (esp("tunnel", &with(&[OVER_4, "icv = 8\n"])), 4, Some(1454)),
        (esp("tunnel", &with(&[OVER_4, "icv = 12\nesn = true\n"])), 4, Some(1450)),
        (esp("tunnel", &with(&[OVER_4, "tfc = 1400\n"])), 4, Some(1446)),
        (esp("tunnel", OVER_4).replace("aes-gcm-128", "aes-gmac-128"), 4, Some(1446)),
        (esp("transport", ""), 4, Some(1466)),
        (esp("transport", ""), 6, Some(1466)),
        (esp("transport", IN_UDP), 4, Some(1458)),
        (esp("transport", IN_UDP), 6, Some(1458)),
        (esp("beet", &with(&[OVER_4, pair_4])), 4, Some(1466)),
        (esp("beet", &with(&[OVER_6, pair_4])), 4, Some(1446)),
        (esp("beet", &with(&[OVER_4, pair_6])), 6, Some(1486)),
        (esp("beet", &with(&[OVER_6, pair_6])), 6, Some(1466)),
        (psp("transport", ""), 4, Some(1460)),
        (psp("transport", ""), 6, Some(1460)),
        (psp("tunnel", OVER_4), 4, Some(1440)),
        (psp("tunnel", OVER_6), 6, Some(1420)),
        (psp("tunnel", &with(&[OVER_6, "vc = \"0102030405060708\"\n"])), 6, Some(1412)),
    ];
    for (text, family, by_hand) in rows {
        let mut gate = Gate::new(&DeviceName::Model, file(&text), 1).expect("the model opens");
        for mtu in [1280, 1281, 1282, 1283, 1499, 1500, 9000] {
            let longest = longest(&gate.file().sas[0], mtu);
            if let (1500, Some(by_hand)) = (mtu, by_hand) {
                assert_eq!(longest, by_hand, "{text}");
            }
            if longest == 0 {
                assert!(mtu < 1460 && text.contains("tfc"), "{mtu}: {text}");
                continue;
            }
            let mut length = |length| match gate.push_out(Some(0), &frame(family, length)).expect("works") {
                Outcome::Out(_, frame) => {
                    let plain = packet::parse_transmit(&frame).expect("a packet");
                    plain.l3_end - plain.l3_offset
                }
                other => panic!("{other:?}: {text}"),
            };
            assert!(length(longest) <= mtu, "{longest} octets become too many for {mtu}: {text}");
            assert!(length(longest + 1) > mtu, "{longest} octets are too few for {mtu}: {text}");
        }
    }
}

#[test]
fn a_file_whose_padding_does_not_fit_is_refused() {
    let file = file(&esp("tunnel", &format!("name = \"wide\"\n{OVER_4}tfc = 1446\n")));
    assert!(check(&file, 1500).is_ok());
    let message = check(&file, 1499).expect_err("it is too wide").to_string();
    assert!(message.contains("wide") && message.contains("1499") && message.contains("tfc"), "{message}");
}

#[test]
fn a_router_is_believed_as_far_as_it_knows_the_sa() {
    let tunnel = file(&esp("tunnel", OVER_4));
    let transport = file(&esp("transport", "selector = { src = \"10.1.0.0/24\", dst = \"10.2.0.0/24\" }\n"));
    let told = |mtu, source: &str, destination: &str, protocol, spi| Told {
        mtu,
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        protocol,
        spi,
    };
    let (near, far) = ("192.0.2.1", "192.0.2.2");
    // (file, what is told, whether it is believed)
    let rows = [
        (&tunnel, told(1400, near, far, "esp", 0x1001), true),
        (&tunnel, told(1499, near, far, "esp", 0x1001), true),
        (&tunnel, told(576, near, far, "esp", 0x1001), true),
        // Not narrower than the link, or narrower than any path
        (&tunnel, told(1500, near, far, "esp", 0x1001), false),
        (&tunnel, told(575, near, far, "esp", 0x1001), false),
        (&tunnel, told(0, near, far, "esp", 0x1001), false),
        (&tunnel, told(1400, near, far, "esp", 0x1002), false),
        (&tunnel, told(1400, near, far, "psp", 0x1001), false),
        (&tunnel, told(1400, far, near, "esp", 0x1001), false),
        (&tunnel, told(1400, near, "192.0.2.3", "esp", 0x1001), false),
        (&transport, told(1400, "10.1.0.9", "10.2.0.1", "esp", 0x1001), true),
        (&transport, told(1400, "10.1.1.9", "10.2.0.1", "esp", 0x1001), false),
        (&transport, told(1400, "10.1.0.9", "10.3.0.1", "esp", 0x1001), false),
    ];
    let now = Instant::now();
    for (file, told, believed) in rows {
        let mut paths = Paths::default();
        assert_eq!(paths.believe(file, &told, 1500, now), believed, "{told:?}");
        let known = if believed { told.mtu } else { 1500 };
        assert_eq!(paths.mtu(&file.sas[0], 1500, now), known);
        // Wider it gets by waiting alone
        assert!(!believed || !paths.believe(file, &Told { mtu: known + 1, ..told }, 1500, now));
        assert_eq!(paths.mtu(&file.sas[0], 1500, now + Duration::from_secs(601)), 1500);
    }
}
