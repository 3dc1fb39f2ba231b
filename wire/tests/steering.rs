//! What steers packets: the Toeplitz hash against Microsoft's verification suite, and selectors.

mod witness;

use std::net::{Ipv4Addr, Ipv6Addr};

use cryptonic_wire::selector::{PortRange, Prefix, Selector};
use cryptonic_wire::toeplitz::{Toeplitz, With};
use cryptonic_wire::{Plain, parse_transmit};
use witness::reference::{self, Ip};

/// Microsoft, "Verifying the RSS Hash Calculation": the key of the verification suite.
const KEY: &str = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";

/// The suite's rows: destination and port, source and port, hash of the addresses, hash of addresses and ports.
#[rustfmt::skip]
const SUITE_V4: [(&str, u16, &str, u16, u32, u32); 5] = [
    ("161.142.100.80", 1766,  "66.9.149.187",   2794,  0x323e_8fc2, 0x51cc_c178),
    ("65.69.140.83",   4739,  "199.92.111.2",   14230, 0xd718_262a, 0xc626_b0ea),
    ("12.22.207.184",  38024, "24.19.198.95",   12898, 0xd2d0_a5de, 0x5c2b_394a),
    ("209.142.163.6",  2217,  "38.27.205.30",   48228, 0x8298_9176, 0xafc7_327f),
    ("202.188.127.2",  1303,  "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
];
#[rustfmt::skip]
const SUITE_V6: [(&str, u16, &str, u16, u32, u32); 3] = [
    ("3ffe:2501:200:3::1",       1766,  "3ffe:2501:200:1fff::7",               2794,  0x2cc1_8cd5, 0x4020_7d3d),
    ("ff02::1",                  4739,  "3ffe:501:8::260:97ff:fe40:efab",      14230, 0x0f0c_461c, 0xdde5_1bbf),
    ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4b61_e985, 0x02d1_feef),
];

fn plain(source: &str, destination: &str, protocol: u8, ports: Option<(u16, u16)>) -> Plain {
    let octets = |text: &str| match text.parse::<Ipv4Addr>() {
        Ok(address) => address.octets().to_vec(),
        Err(_) => text.parse::<Ipv6Addr>().unwrap().octets().to_vec(),
    };
    let ip = Ip {
        source: octets(source),
        destination: octets(destination),
        traffic_class: 0,
        hop_limit: 64,
        dont_fragment: true,
        identification: 0,
        flow_label: 0,
        extra: Vec::new(),
        first_extension: None,
    };
    let payload =
        ports.map_or(vec![0; 2], |(source, destination)| reference::udp(source, destination, &[0; 12]));
    parse_transmit(&reference::frame(&[], &ip.packet(protocol, &payload))).unwrap()
}

#[test]
fn verification_suite_of_the_toeplitz_hash() {
    let toeplitz = Toeplitz::new(&hex::decode(KEY).unwrap().try_into().unwrap());
    for (destination, destination_port, source, source_port, addresses, all) in
        SUITE_V4.iter().chain(&SUITE_V6)
    {
        for protocol in [6, 17] {
            let plain = plain(source, destination, protocol, Some((*source_port, *destination_port)));
            assert_eq!(toeplitz.hash_packet(&plain, With::Addresses), *addresses, "{source}");
            assert_eq!(toeplitz.hash_packet(&plain, With::Ports), *all, "{source}");
            // An SPI of the same octets stands where the ports would.
            let spi = u32::from(*source_port) << 16 | u32::from(*destination_port);
            assert_eq!(toeplitz.hash_packet(&plain, With::Spi(spi)), *all, "{source}");
        }
        let portless = plain(source, destination, 50, None);
        assert_eq!(toeplitz.hash_packet(&portless, With::Ports), *addresses, "{source}");
    }
    let not_ip = parse_transmit(&[0; 60]).unwrap();
    assert_eq!(toeplitz.hash_packet(&not_ip, With::Addresses), 0);
}

#[test]
fn selectors_match_what_they_say() {
    let v4 = |address: [u8; 4], length: u8| Prefix::V4 { address, length };
    let v6 =
        |length: u8| Prefix::V6 { address: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], length };
    let range = |first: u16, last: u16| Some(PortRange { first, last });
    let udp4 = plain("10.1.2.3", "192.0.2.77", 17, Some((4000, 53)));
    let icmp4 = plain("10.1.2.3", "192.0.2.77", 1, None);
    let udp6 = plain("2001:db8::1", "2001:db8:ffff::2", 17, Some((4000, 53)));
    let any = Selector::default();
    let rows = [
        (any, &udp4, true),
        (any, &udp6, true),
        (Selector { source: v4([10, 0, 0, 0], 8), ..any }, &udp4, true),
        (Selector { source: v4([10, 255, 255, 255], 8), ..any }, &udp4, true),
        (Selector { source: v4([11, 0, 0, 0], 8), ..any }, &udp4, false),
        (Selector { source: v4([11, 0, 0, 0], 7), ..any }, &udp4, true),
        (Selector { source: v4([10, 1, 2, 3], 32), ..any }, &udp4, true),
        (Selector { source: v4([10, 1, 2, 2], 32), ..any }, &udp4, false),
        (Selector { source: v4([10, 1, 2, 2], 31), ..any }, &udp4, true),
        (Selector { source: v4([99, 1, 2, 2], 0), ..any }, &udp4, true),
        (Selector { source: v4([0; 4], 0), ..any }, &udp6, false),
        (Selector { destination: v4([192, 0, 2, 64], 26), ..any }, &udp4, true),
        (Selector { destination: v4([192, 0, 2, 64], 26), source: v4([9, 0, 0, 0], 8), ..any }, &udp4, false),
        (Selector { source: v6(128), ..any }, &udp6, true),
        (Selector { source: v6(255), ..any }, &udp6, true),
        (Selector { destination: v6(32), ..any }, &udp6, true),
        (Selector { destination: v6(33), ..any }, &udp6, false),
        (Selector { destination: v6(0), ..any }, &udp6, true),
        (Selector { destination: v6(0), ..any }, &udp4, false),
        (Selector { protocol: Some(17), ..any }, &udp4, true),
        (Selector { protocol: Some(6), ..any }, &udp4, false),
        (Selector { source_ports: range(4000, 4000), ..any }, &udp4, true),
        (Selector { source_ports: range(4001, 5000), ..any }, &udp4, false),
        (Selector { destination_ports: range(0, 53), ..any }, &udp4, true),
        (Selector { destination_ports: range(54, 60), ..any }, &udp4, false),
        (Selector { destination_ports: range(0, 65535), ..any }, &icmp4, false),
        (Selector { protocol: Some(1), ..any }, &icmp4, true),
    ];
    for (index, (selector, plain, expected)) in rows.into_iter().enumerate() {
        assert_eq!(selector.matches(plain), expected, "row {index}");
    }
    assert!(!any.matches(&parse_transmit(&[0; 60]).unwrap()));
}
