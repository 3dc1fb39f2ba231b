//! The gateway as a router: what it tells senders, what it cuts, and what nobody outside may see.

use std::fs;
use std::time::{Duration, Instant};

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice, icmpv4, icmpv6,
};
use serde_json::Value;

use crate::forms::{Held, TUNNEL, Witness, hops, sealed};
use crate::host::Port;
use crate::rig::{Gateway, PATIENCE, text};

const HOST_MAC: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];
const INSIDE_MAC: [u8; 6] = [2, 0, 10, 1, 0, 254];
const OUTSIDE_MAC: [u8; 6] = [2, 1, 192, 0, 2, 1];
const PEER_MAC: [u8; 6] = [2, 1, 192, 0, 2, 2];
const HOST: [u8; 4] = [10, 1, 0, 1];
const FAR: [u8; 4] = [10, 2, 0, 1];
const GATEWAY: [u8; 4] = [10, 1, 0, 254];
const HOST_6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const FAR_6: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// What leaves 1500 octets room for an IPv4 header, ESP's 16, its trailer and an ICV.
const LONGEST: usize = 1446;

/// One gateway, whose host and peer are this test.
struct Alone {
    folder: tempfile::TempDir,
    gateway: Gateway,
    host: Port,
    peer: Port,
    /// The last sequence number that the peer used.
    sequence: u32,
}

impl Alone {
    fn new(file: &str, more: &[&str]) -> Alone {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let name = |what: &str| text(&path(what));
        fs::write(path("sa.toml"), file).expect("a file");
        let [host, peer] =
            [("host", "inside"), ("wire", "outside")].map(|(one, other)| Port::new(&path(one), &path(other)));
        let [inside, outside] = [("inside", "host"), ("outside", "wire")]
            .map(|(one, other)| format!("dgram:{},{}", name(one), name(other)));
        let sa = name("sa.toml");
        let mut arguments = ["--sa", &sa, "--inside", &inside, "--outside", &outside].to_vec();
        arguments.extend(["--inside-gateway", "10.1.0.254", "--inside-gateway", "fd00:1::fe"]);
        arguments.extend(["--neighbour", "192.0.2.2=02:01:c0:00:02:02"]);
        arguments.extend(["--neighbour", "10.1.0.1=02:aa:00:00:00:01"]);
        arguments.extend(more);
        let gateway = Gateway::start(&arguments.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        Alone { folder, gateway, host, peer, sequence: 0 }
    }

    /// A packet from the peer.
    fn send_as_peer(&mut self, inner: &[u8]) {
        self.sequence += 1;
        self.peer.put(&sealed(1, self.sequence, inner));
    }

    fn end(self) -> Value {
        let report = self.gateway.end();
        assert_eq!(report["lost_without_reason"], 0, "{report:#}");
        drop(self.folder);
        report
    }
}

fn get(port: &Port) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(frame) = port.get() {
            return frame;
        }
        assert!(Instant::now() < deadline, "nothing comes");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// A packet of UDP in a frame from the host to the gateway.
fn udp(hop_limit: u8, dont_fragment: bool, length: usize) -> Vec<u8> {
    let mut header =
        Ipv4Header::new((length - 20) as u16, hop_limit, IpNumber::UDP, HOST, FAR).expect("a length");
    header.dont_fragment = dont_fragment;
    header.identification = 0x4321;
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [&INSIDE_MAC[..], &HOST_MAC, &[8, 0]].concat();
    header.write(&mut frame).expect("a header");
    frame.extend((20..length).map(|place| (place * 11) as u8));
    frame
}

fn udp_6(hop_limit: u8, length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(HOST_MAC, INSIDE_MAC).ipv6(HOST_6, FAR_6, hop_limit).udp(9, 9);
    builder.write(&mut frame, &vec![7; length - 48]).expect("a frame");
    frame
}

/// The same back: a packet without its frame, from beyond the tunnel.
fn back(frame: &[u8]) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    if packet[0] >> 4 == 4 {
        (0..4).for_each(|place| packet.swap(12 + place, 16 + place));
    } else {
        (0..16).for_each(|place| packet.swap(8 + place, 24 + place));
    }
    packet
}

/// What an error says, its checksum checked, and the packet that it quotes.
fn told(frame: &[u8]) -> (String, Vec<u8>, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a packet");
    match (packet.net, packet.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(icmp.header().checksum, icmp.icmp_type().calc_checksum(icmp.payload()));
            let what = match icmp.icmp_type() {
                Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu,
                }) => format!("at most {next_hop_mtu}"),
                Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit) => {
                    "no hops".to_owned()
                }
                other => panic!("{other:?}"),
            };
            (what, [&header.source[..], &header.destination].concat(), icmp.payload().to_vec())
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            let header = ip.header().to_header();
            assert!(icmp.is_checksum_valid(header.source, header.destination));
            let what = match icmp.icmp_type() {
                Icmpv6Type::PacketTooBig { mtu } => format!("at most {mtu}"),
                Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded) => "no hops".to_owned(),
                other => panic!("{other:?}"),
            };
            (what, [&header.source[..], &header.destination].concat(), icmp.payload().to_vec())
        }
        _ => panic!("no ICMP: {frame:02x?}"),
    }
}

/// Opens a frame of the gateway; gives the packet that was in it.
fn opened(witness: &mut Witness, frame: &[u8]) -> Vec<u8> {
    match witness.open(frame) {
        Some(Held::Tunnel(inner)) => inner,
        other => panic!("{other:?} from {frame:02x?}"),
    }
}

/// Puts fragments together; none is longer than `longest`.
fn whole(fragments: &[Vec<u8>], longest: usize) -> Vec<u8> {
    let mut data = Vec::new();
    for (number, fragment) in fragments.iter().enumerate() {
        let (header, part) = Ipv4Header::from_slice(fragment).expect("a header");
        assert!(fragment.len() <= longest);
        assert_eq!((header.identification, header.header_checksum), (0x4321, header.calc_header_checksum()));
        assert_eq!(header.fragment_offset, IpFragOffset::try_new((data.len() / 8) as u16).expect("13 bits"));
        assert_eq!(header.more_fragments, number + 1 < fragments.len());
        data.extend_from_slice(part);
    }
    data
}

#[test]
fn a_host_inside_is_told_what_does_not_pass_and_what_may_be_cut_is_cut() {
    // Given a gateway, a host and a peer
    let alone = Alone::new(&TUNNEL.file(0, 1, &[1]), &[]);
    let mut witness = Witness::new(TUNNEL);
    // When a packet is too long by one octet, or has no hop left, then its host hears so and nothing leaves
    let too_big = format!("at most {LONGEST}");
    let rows = [
        (udp(1, true, 100), "no hops"),
        (udp(0, false, 1500), "no hops"),
        (udp_6(1, 100), "no hops"),
        (udp(64, true, LONGEST + 1), &too_big),
        (udp(64, true, 1500), &too_big),
        (udp_6(64, LONGEST + 1), &too_big),
    ];
    for (frame, wanted) in &rows {
        alone.host.put(frame);
        let error = get(&alone.host);
        assert_eq!((&error[..6], &error[6..12]), (&HOST_MAC[..], &INSIDE_MAC[..]));
        let (what, addresses, quoted) = told(&error);
        assert_eq!(&what, wanted);
        let wanted = match frame[12] {
            8 => [GATEWAY, HOST].concat(),
            _ => [[0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe], HOST_6].concat(),
        };
        assert_eq!(addresses, wanted);
        // Addresses and what follows of the packet are quoted
        let at = if frame[12] == 8 { 12 } else { 8 };
        assert_eq!(quoted[at..], frame[14 + at..][..quoted.len() - at]);
    }
    assert!(alone.peer.get().is_none());
    // And the longest passes, one hop on
    for frame in [udp(64, true, LONGEST), udp_6(64, LONGEST), udp(2, false, 100)] {
        alone.host.put(&frame);
        let inner = opened(&mut witness, &get(&alone.peer));
        assert_eq!(inner.len(), frame.len() - 14);
        assert_eq!(hops(&inner), hops(&frame[14..]) - 1);
    }
    // And what may be cut is, before it is protected
    let frame = udp(64, false, 1500);
    alone.host.put(&frame);
    let fragments: Vec<_> = (0..2).map(|_| opened(&mut witness, &get(&alone.peer))).collect();
    assert_eq!(whole(&fragments, LONGEST), frame[34..]);
    // And nobody is told of an error
    let mut error = Vec::new();
    let builder = PacketBuilder::ethernet2(HOST_MAC, INSIDE_MAC).ipv4(HOST, FAR, 1);
    builder.icmpv4_raw(3, 1, [0; 4]).write(&mut error, &[7; 40]).expect("a frame");
    alone.host.put(&error);
    // And a header that is broken goes nowhere
    let mut broken = udp(64, true, 100);
    broken[25] ^= 1;
    alone.host.put(&broken);
    // Until one passes that came after them
    alone.host.put(&udp(64, true, 100));
    opened(&mut witness, &get(&alone.peer));
    assert!(alone.host.get().is_none() && alone.peer.get().is_none());
    let report = alone.end();
    let wanted = serde_json::json!({ "hops_exceeded": 4, "packet_too_big": 3, "protected": 5, "bad_ipv4_checksum": 1 });
    assert_eq!(report["verdicts"], wanted, "{report:#}");
    let counters = ["errors_sent", "errors_withheld", "packets_cut", "fragments"].map(|name| &report[name]);
    assert_eq!(counters, [6, 1, 1, 2], "{report:#}");
    assert_eq!((&report["inside"]["mtu"], &report["outside"]["mtu"]), (&1500.into(), &1500.into()));
}

#[test]
fn an_error_about_what_a_tunnel_brought_goes_back_through_an_sa_or_not_at_all() {
    // (what `out` takes, whether the gateway's own errors are among it)
    let rows = [
        ("selector = { src = \"10.1.0.0/24\", dst = \"10.2.0.0/24\" }", true),
        // The SA that takes what answers the packet does (RFC 4301 6.2)
        ("selector = { src = \"10.1.0.1\", dst = \"10.2.0.1\" }", true),
        ("selector = { src = \"10.1.0.0/24\", dst = \"10.3.0.0/24\" }", false),
    ];
    for (selector, comes_back) in rows {
        // Given a gateway that lets pass what no SA takes, with a narrow link inside
        let file = TUNNEL.file(0, 1, &[1]).replace("\"drop\"", "\"pass\"");
        let file = file.replacen("[[sa]]\nname = \"in", &format!("{selector}\n[[sa]]\nname = \"in"), 1);
        let mut alone = Alone::new(&file, &["--inside-mtu", "1300"]);
        let mut witness = Witness::new(TUNNEL);
        // When packets come that cannot go on
        for (frame, wanted) in [(udp(1, false, 100), "no hops"), (udp(64, true, 1301), "at most 1300")] {
            // The header's sum is right in either direction
            alone.send_as_peer(&back(&frame));
            if comes_back {
                // Then their sender hears so, and nobody else
                let inner = opened(&mut witness, &get(&alone.peer));
                let (what, addresses, _) = told(&[&[0; 12][..], &[8, 0], &inner].concat());
                assert_eq!((what.as_str(), addresses), (wanted, [GATEWAY, FAR].concat()));
            }
        }
        // And what may be cut is, and the longest passes
        alone.send_as_peer(&back(&udp(64, false, 1400)));
        let fragments: Vec<_> = (0..2).map(|_| get(&alone.host)[14..].to_vec()).collect();
        assert_eq!(whole(&fragments, 1300), udp(64, false, 1400)[34..]);
        alone.send_as_peer(&back(&udp(64, true, 1300)));
        let last = get(&alone.host);
        assert_eq!((last.len(), hops(&last[14..])), (1314, 63));
        assert!(alone.peer.get().is_none(), "nothing else leaves");
        let report = alone.end();
        let counters = ["errors_sent", "errors_withheld"].map(|name| report[name].as_u64());
        assert_eq!(counters, if comes_back { [Some(2), Some(0)] } else { [Some(0), Some(2)] });
    }
}

#[test]
fn what_a_router_outside_tells_of_the_path_holds_for_its_sa() {
    let alone = Alone::new(&TUNNEL.file(0, 1, &[1]), &[]);
    let mut witness = Witness::new(TUNNEL);
    // Given a packet that left
    alone.host.put(&udp(64, true, LONGEST));
    let protected = get(&alone.peer);
    assert_eq!(opened(&mut witness, &protected).len(), LONGEST);
    // When a router on its way says that it takes 1400, of it and of one with another SPI
    let error = |packet: &[u8], mtu: u16| {
        let [high, low] = mtu.to_be_bytes();
        let mut frame = Vec::new();
        let builder =
            PacketBuilder::ethernet2(PEER_MAC, OUTSIDE_MAC).ipv4([203, 0, 113, 9], [192, 0, 2, 1], 9);
        builder.icmpv4_raw(3, 4, [0, 0, high, low]).write(&mut frame, &packet[..28]).expect("a frame");
        frame
    };
    let mut other = protected[14..].to_vec();
    other[23] ^= 1;
    alone.peer.put(&error(&other, 700));
    alone.peer.put(&error(&protected[14..], 500));
    alone.peer.put(&error(&protected[14..], 1400));
    // Then senders inside hear of what is left of that, from the next packet on
    let deadline = Instant::now() + PATIENCE;
    loop {
        alone.host.put(&udp(64, true, LONGEST));
        if let Some(error) = alone.host.get() {
            assert_eq!(told(&error).0, format!("at most {}", LONGEST - 100));
            break;
        }
        assert!(Instant::now() < deadline, "nothing is told");
        while alone.peer.get().is_some() {}
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = alone.end();
    assert_eq!(
        [&report["verdicts"]["path_mtu"], &report["verdicts"]["path_mtu_ignored"]],
        [1, 2],
        "{report:#}"
    );
}

#[test]
fn in_transport_mode_a_packet_keeps_its_hops_and_is_cut_when_it_is_protected() {
    // Given hosts that think themselves on one link, with the gateway between
    let transport = crate::forms::Form { outer: None, ..TUNNEL };
    let file = transport.file(0, 1, &[1]).replace("10.9.0.1", "10.1.0.1").replace("10.9.0.2", "10.2.0.1");
    let alone = Alone::new(&file, &["--neighbour", "10.2.0.1=02:01:c0:00:02:02"]);
    // When packets come with one hop left, and too long
    alone.host.put(&udp(1, true, 1466));
    let frame = get(&alone.peer);
    assert_eq!((frame.len(), hops(&frame[14..])), (1514, 1));
    alone.host.put(&udp(1, true, 1467));
    let (what, addresses, _) = told(&get(&alone.host));
    // Then it is the far host that seems to say so
    assert_eq!((what.as_str(), addresses), ("at most 1466", [FAR, HOST].concat()));
    // And what may be cut is cut as the packet of ESP that it became
    alone.host.put(&udp(1, false, 1500));
    let fragments: Vec<_> = (0..2).map(|_| get(&alone.peer)[14..].to_vec()).collect();
    let esp = whole(&fragments, 1500);
    let mut joined = [&fragments[0][..20], &esp].concat();
    let length = joined.len() as u16;
    joined[2..4].copy_from_slice(&length.to_be_bytes());
    let mut witness = Witness::new(transport);
    assert!(witness.open(&frame).is_some());
    let inner = witness.open(&[&[0; 12][..], &[8, 0], &joined].concat());
    assert_eq!(inner, Some(Held::Transport(17, udp(1, false, 1500)[34..].to_vec())));
    alone.end();
}
