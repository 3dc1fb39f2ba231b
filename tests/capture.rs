//! A capture of what two Linux hosts said to each other (TCP, UDP, DNS, ICMP, fragments, IPv4 options, IPv6) goes out
//! protected in tunnels, and comes back byte for byte.

mod common;

use common::{cryptonic_pcap, ip_packet, read_pcap, repository};

const ESP: u8 = 50;
const UDP: u8 = 17;
/// Packets of the capture that are IP; the others are ARP.
const IP_PACKETS: usize = 175;
/// Those of them that are fragments.
const FRAGMENTS: usize = 26;

const FOUR: &str = r#"tunnel = { src = "192.0.2.1", dst = "192.0.2.2", ttl = "copy", df = "clear" }"#;
const SIX: &str = r#"tunnel = { src = "2001:db8::1", dst = "2001:db8::2", flow_label = "hash" }"#;

/// How the capture is carried.
struct Way {
    name: &'static str,
    esp: bool,
    /// Keys of the SAs, at both ends.
    keys: &'static [&'static str],
    /// The outer header's addresses and rules.
    tunnel: &'static str,
    /// The protocol behind the outer IP header, and the UDP destination port if that is UDP.
    carried_in: (u8, Option<u16>),
}

const GCM: &[&str] = &["cipher = \"aes-gcm-128\"", "key = \"000102030405060708090a0b0c0d0e0f\""];
const GMAC_IN_UDP: &[&str] = &[
    "cipher = \"aes-gmac-128\"",
    "key = \"000102030405060708090a0b0c0d0e0f\"",
    "esn = true",
    "udp_encap = { dst_port = 4500 }",
];
const SHORT_IN_UDP: &[&str] = &[
    "cipher = \"aes-gcm-128\"",
    "key = \"000102030405060708090a0b0c0d0e0f\"",
    "icv = 12",
    "udp_encap = { dst_port = 4501 }",
];
/// Keys that the PSP specification prints for the device keys below.
const PSP_0: &[&str] =
    &["spi = 0x12345678", "version = 0", "key = \"96c22dc799198090b74b70ae468e4e30\"", "crypt_offset = 5"];
const PSP_1: &[&str] = &[
    "spi = 0x1a345678",
    "version = 1",
    "key = \"184eecc110d0ecfcf85e6f7c9eedab4d21122fb2d2b8c344af3a1c38d0b6adfd\"",
    "vc = \"0102030405060708\"",
];

const WAYS: [Way; 6] = [
    Way { name: "ESP in IPv4", esp: true, keys: GCM, tunnel: FOUR, carried_in: (ESP, None) },
    Way { name: "ESP in IPv6", esp: true, keys: GCM, tunnel: SIX, carried_in: (ESP, None) },
    Way {
        name: "ESP in UDP over IPv4",
        esp: true,
        keys: GMAC_IN_UDP,
        tunnel: FOUR,
        carried_in: (UDP, Some(4500)),
    },
    Way {
        name: "ESP in UDP over IPv6",
        esp: true,
        keys: SHORT_IN_UDP,
        tunnel: SIX,
        carried_in: (UDP, Some(4501)),
    },
    Way { name: "PSP in IPv4", esp: false, keys: PSP_0, tunnel: FOUR, carried_in: (UDP, Some(1000)) },
    Way { name: "PSP in IPv6", esp: false, keys: PSP_1, tunnel: SIX, carried_in: (UDP, Some(1000)) },
];

impl Way {
    /// The SA files of this end and of the far end.
    fn files(&self) -> [String; 2] {
        let (keys, tunnel) = (self.keys.join("\n"), self.tunnel);
        if !self.esp {
            let here = format!(
                "[[sa]]\ndirection = \"out\"\nprotocol = \"psp\"\nmode = \"tunnel\"\n{keys}\n{tunnel}\n"
            );
            let there = "[psp]\ndevice_keys = [\n\
                \"34448a064292601b11a0978f56a2d34cf3fc35ede1a6bc04f8db3e5243a2b0ca\",\n\
                \"563952565d3a78ae773ec1b779f2f2d99f4a7f53a6fbb9b07d5b71f39364d739\",\n]\n";
            return [here, there.to_owned()];
        }
        ["out", "in"].map(|direction| {
            format!(
                "[[sa]]\ndirection = \"{direction}\"\nprotocol = \"esp\"\nmode = \"tunnel\"\nspi = 0x1001\n\
                 salt = \"a1b2c3d4\"\n{keys}\n{tunnel}\n"
            )
        })
    }
}

fn is_fragment(ip: &[u8]) -> bool {
    if ip[0] >> 4 == 4 { u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0 } else { ip[6] == 44 }
}

#[test]
fn a_real_capture_goes_out_and_comes_back() {
    let input = repository().join("tests/vectors/captures/linux.pcap");
    let clear = read_pcap(&input);
    let ip: Vec<_> = clear.iter().filter_map(|packet| ip_packet(&packet.frame)).collect();
    assert_eq!(ip.len(), IP_PACKETS);
    assert_eq!(ip.iter().filter(|(_, ip)| is_fragment(ip)).count(), FRAGMENTS);

    for way in &WAYS {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let path = |name: &str| scratch.path().join(name);
        let [here, there] = way.files();
        std::fs::write(path("here.toml"), here).expect("an SA file");
        std::fs::write(path("there.toml"), there).expect("an SA file");

        cryptonic_pcap(&path("here.toml"), &input, &path("sealed.pcap"));
        cryptonic_pcap(&path("there.toml"), &path("sealed.pcap"), &path("opened.pcap"));

        let sealed = read_pcap(&path("sealed.pcap"));
        assert_eq!(sealed.len(), clear.len(), "{}", way.name);
        for (index, (sealed, clear)) in sealed.iter().zip(&clear).enumerate() {
            let number = index + 1;
            assert_eq!(sealed.time, clear.time, "{}: packet {number}", way.name);
            let Some((_, ip)) = ip_packet(&sealed.frame) else {
                assert_eq!(sealed.frame, clear.frame, "{}: packet {number} is not IP", way.name);
                continue;
            };
            let (protocol, l4) = if ip[0] >> 4 == 4 { (ip[9], &ip[20..]) } else { (ip[6], &ip[40..]) };
            let port = (protocol == UDP).then(|| u16::from_be_bytes([l4[2], l4[3]]));
            assert_eq!((protocol, port), way.carried_in, "{}: packet {number}", way.name);
        }
        let opened = read_pcap(&path("opened.pcap"));
        for (index, (opened, clear)) in opened.iter().zip(&clear).enumerate() {
            assert_eq!(opened, clear, "{}: packet {} comes back", way.name, index + 1);
        }
        assert_eq!(opened.len(), clear.len(), "{}: packets that come back", way.name);
    }
}
