//! What is read, and what is refused with its place.

use cryptonic_driver::{FlowLabel, SourcePort};
use cryptonic_regs::admin::EcnPolicy;

use super::*;

const GOOD: &str = r#"
[[sa]]
name = "east"
direction = "out"
protocol = "esp"
mode = "tunnel"
spi = 0x1001
cipher = "aes-gcm-128"
key = "00112233445566778899aabbccddeeff"
salt = "a1b2c3d4"
tunnel = { src = "192.0.2.1", dst = "192.0.2.2" }
selector = { src = "10.0.0.0/8", dst = "10.1.0.0/16" }
"#;

fn parse(text: &str) -> Result<SaFile> {
    SaFile::parse(&Source::new("f.toml", text.to_owned()))
}

#[test]
fn defaults_are_those_of_rfc_4301() {
    let file = parse(GOOD).unwrap();
    let Protocol::Esp(esp) = &file.sas[0].protocol else { panic!("ESP") };
    let outer = esp.outer.unwrap();
    assert_eq!((outer.ttl, outer.dscp, outer.ecn), (Some(64), None, EcnPolicy::Copy));
    assert_eq!((esp.icv_bytes, esp.implicit_iv, esp.tfc_bytes), (16, false, 0));
    assert_eq!(file.default, DefaultAction::Pass);
}

#[test]
fn every_key_is_passed_on() {
    let text = GOOD
        .replace("aes-gcm-128", "aes-gcm-256")
        .replace("aabbccddeeff\"", "aabbccddeeff00112233445566778899aabbccddeeff\"")
        .replace(
            "dst = \"192.0.2.2\"",
            "dst = \"192.0.2.2\", ttl = \"copy\", df = \"set\", dscp = 46, ecn = \"not-capable\"",
        )
        .replace("\"10.1.0.0/16\"", "\"10.1.0.0/16\", protocol = \"udp\"");
    let more = "icv = 12\ntfc = 1400\nudp_encap = { src_port = 4501, dst_port = 4502 }\n";
    let sa = &parse(&format!("{text}{more}")).unwrap().sas[0];
    let Protocol::Esp(esp) = &sa.protocol else { panic!("ESP") };
    let (outer, udp) = (esp.outer.unwrap(), esp.encapsulation.unwrap());
    assert_eq!((esp.icv_bytes, esp.tfc_bytes), (12, 1400));
    assert_eq!((udp.source_port, udp.destination_port, udp.checksum), (4501, 4502, true));
    assert_eq!((outer.ttl, outer.dscp, outer.ecn), (None, Some(46), EcnPolicy::NotCapable));
    assert_eq!(sa.selector.protocol, Some(17));

    let text = "[[sa]]\ndirection = \"out\"\nprotocol = \"psp\"\nspi = 7\nversion = 2\nmode = \"tunnel\"\n\
                key = \"00112233445566778899aabbccddeeff\"\nvc = \"0102030405060708\"\nsrc_port = \"table\"\n\
                tunnel = { src = \"::1\", dst = \"::2\", flow_label = \"hash\" }\n\
                [psp]\nreceive = [1, 3]\n";
    let file = parse(text).unwrap();
    let Protocol::Psp(psp) = &file.sas[0].protocol else { panic!("PSP") };
    assert_eq!((psp.version, psp.mode, psp.source_port), (2, Mode::Tunnel, SourcePort::Table));
    assert_eq!(psp.virtualization_cookie, Some([1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(psp.outer.unwrap().flow_label, FlowLabel::Hash);
    assert_eq!(file.psp.unwrap().receive, Receive::These(0b1010));
}

#[test]
fn debug_text_holds_no_key() {
    let text = format!("{:?}", parse(GOOD).unwrap());
    assert!(text.contains("secret"));
    for digits in ["00112233", "a1b2c3d4", "17, 34", "161, 178"] {
        assert!(!text.contains(digits), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let replace = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replace(from, to)
    };
    let twice = format!("{GOOD}{GOOD}");
    let key_twice = format!("{GOOD}{}", GOOD.replace("0x1001", "0x1002"));
    let in_psp = "[[sa]]\ndirection = \"in\"\nprotocol = \"psp\"\nspi = 7\n".to_owned();
    let psp = |rest: &str| format!("[[sa]]\ndirection = \"out\"\nprotocol = \"psp\"\nspi = 7\n{rest}\n");
    let other_port = |port: u16, psp: &str| {
        let east = GOOD.replace("\"out\"", "\"in\"");
        let first = if psp.is_empty() { 4500 } else { port };
        let west = east.replace("east", "west").replace("0x1001", "0x1002");
        format!(
            "{psp}{}udp_encap = {{ dst_port = {first} }}\n{west}udp_encap = {{ dst_port = {port} }}\n",
            &east[usize::from(!psp.is_empty())..]
        )
    };
    let tunnel = "tunnel = { src = \"::1\", dst = \"::2\" }";
    let key16 = "key = \"00112233445566778899aabbccddeeff\"";
    let cases: &[(String, &str, &str)] = &[
        (replace("spi = 0x1001", "spi = 255"), "f.toml:7", "reserved"),
        (replace("spi = 0x1001", "spi = 0x1_0000_0000"), "f.toml:7", "from 0 to 4294967295"),
        (replace("spi = 0x1001", ""), "f.toml:2", "`spi` is missing"),
        (replace("aes-gcm-128", "aes-gcm-192"), "f.toml:9", "16 bytes, aes-gcm-192 wants 24"),
        (replace("eeff\"", "eeffa1b2c3d4\""), "f.toml:9", "salt"),
        (replace("eeff\"", "eef\""), "f.toml:9", "31 hex digits"),
        (replace("eeff\"", "eegg\""), "f.toml:9", "character 31"),
        (replace("a1b2c3d4", "a1b2c3"), "f.toml:10", "3 bytes, wants 4"),
        (format!("{}icv = 12", replace("aes-gcm-128", "aes-gmac-128")), "f.toml:13", "RFC 4543"),
        (format!("{}implicit_iv = true", replace("gcm", "gmac")), "f.toml:13", "no implicit IV"),
        (format!("{GOOD}implicit_iv = true\nicv = 8"), "f.toml:14", "RFC 8750"),
        (replace("\"tunnel\"", "\"beet\""), "f.toml:12", "two addresses"),
        (
            replace("\"tunnel\"", "\"beet\"").replace("/8", "/32").replace("10.1.0.0/16", "10.1.0.0/31"),
            "f.toml:12",
            "two addresses",
        ),
        (
            replace("\"tunnel\"", "\"beet\"").replace("2.2\"", "2.2\", ttl = 3"),
            "f.toml:11",
            "from the packet itself",
        ),
        (
            replace("\"out\"", "\"in\"")
                .replace("src = \"10.0.0.0/8\", dst = \"10.1.0.0/16\"", "protocol = 6"),
            "f.toml:12",
            "src, dst or both",
        ),
        (replace("16\" }", "16\", protocol = \"tpc\" }"), "f.toml:12", "known are icmp, tcp"),
        (format!("{}tfc = 1", replace("\"tunnel\"", "\"beet\"")), "f.toml:13", "alone"),
        (format!("{GOOD}tfc = 65536"), "f.toml:13", "0 to 65535"),
        (format!("{GOOD}protect_destination_options = true"), "f.toml:13", "mode \"transport\" alone"),
        (format!("{GOOD}udp_encap = {{ src_port = 0 }}"), "f.toml:13", "1 to 65535"),
        (format!("{GOOD}udp_encap = {{ port = 4500 }}"), "f.toml:13", "unknown key `port`"),
        (other_port(4501, ""), "f.toml:15", "\"east\" at f.toml:2 has 4500"),
        (other_port(1000, "[psp]\n"), "f.toml:2", "that of PSP"),
        (replace("\"tunnel\"", "\"transport\""), "f.toml:11", "tunnel"),
        (replace("protocol = \"esp\"", "protocol = \"eesp\""), "f.toml:5", "not supported yet"),
        (replace("protocol = \"esp\"", "protocol = \"ah\""), "f.toml:5", "known are esp"),
        (replace("10.0.0.0/8", "10.0.0.1/8"), "f.toml:12", "10.0.0.0/8"),
        (replace("10.0.0.0/8", "2001:db8::/32"), "f.toml:12", "family"),
        (replace("10.0.0.0/8", "10.0.0.0/33"), "f.toml:12", "/33"),
        (replace("192.0.2.1\"", "2001:db8::1\""), "f.toml:11", "family"),
        (replace("dst = \"192.0.2.2\"", "dst = \"192.0.2.2\", ttl = 0"), "f.toml:11", "1 to 255"),
        (replace("dst = \"192.0.2.2\"", "dst = \"192.0.2.2\", ecn = true"), "f.toml:11", "wants text"),
        (replace("2.2\"", "2.2\", flow_label = \"hash\""), "f.toml:11", "no flow label"),
        (format!("{GOOD}icv = 11"), "f.toml:13", "16"),
        (format!("{GOOD}lifetime = {{ kind = \"count\" }}"), "f.toml:13", "has soft, hard or both"),
        (format!("{GOOD}lifetime = {{ kind = \"packets\", hard = 3 }}"), "f.toml:13", "count"),
        (format!("{GOOD}lifetime = {{ kind = \"count\", hard = 0 }}"), "f.toml:13", "1 to"),
        (format!("{GOOD}lifetime = {{ kind = \"bytes\", soft = 3, hard = 3 }}"), "f.toml:13", "not below"),
        (format!("{GOOD}lifetime = {{ kind = \"bytes\", hard = 3, used = 3 }}"), "f.toml:13", "has ended"),
        (format!("{GOOD}lifetime = {{ kind = \"bytes\", hard = 3, time = 3 }}"), "f.toml:13", "time"),
        (format!("{GOOD}sequense = 3"), "f.toml:13", "did you mean `sequence`?"),
        (format!("{GOOD}crypt_offset = 3"), "f.toml:13", "a key of psp"),
        (format!("{GOOD}sequence = 0xffffffff"), "f.toml:13", "no sequence number left"),
        (format!("{GOOD}sequence = 0x1_0000_0000"), "f.toml:13", "esn"),
        (twice, "f.toml:14", "\"east\" at f.toml:2"),
        (key_twice, "f.toml:14", "the same key"),
        (in_psp, "f.toml:3", "[psp]"),
        (psp(&format!("version = 4\n{key16}")), "f.toml:5", "0 to 3"),
        (psp(&format!("version = 1\n{key16}")), "f.toml:6", "16 bytes, version 1 wants 32"),
        (psp(&format!("version = 0\n{key16}\nvc = \"00\"")), "f.toml:7", "1 bytes, wants 8"),
        (psp(&format!("version = 3\n{key16}")), "f.toml:6", "16 bytes, version 3 wants 32"),
        (psp(&format!("version = 0\n{key16}\nmode = \"tunnel\"")), "f.toml:1", "`tunnel` is missing"),
        (psp(&format!("version = 0\n{key16}\nmode = \"beet\"")), "f.toml:7", "transport and tunnel"),
        (psp(&format!("version = 0\n{key16}\n{tunnel}")), "f.toml:7", "has no place"),
        (
            psp(&format!("version = 0\n{key16}\nmode = \"tunnel\"\n{tunnel}\nsample = true")),
            "f.toml:9",
            "which has no tunnel",
        ),
        ("[psp]\nreceive = []".to_owned(), "f.toml:2", "names no version"),
        ("[psp]\nreceive = [4]".to_owned(), "f.toml:2", "0 to 3"),
        (psp(&format!("version = 0\n{key16}\ncrypt_offset = 64")), "f.toml:7", "0 to 63"),
        (psp(&format!("version = 0\n{key16}\nsrc_port = \"random\"")), "f.toml:7", "known are"),
        (psp(&format!("version = 0\n{key16}\nsalt = \"00000000\"")), "f.toml:7", "a key of esp"),
        (psp("version = 0").replace("spi = 7", "spi = 0x80000000"), "f.toml:4", "reserved"),
        ("[psp]\ndevice_keys = [\"00\"]".to_owned(), "f.toml:2", "two keys"),
        ("[psp]\ndevice_keys = [\"00\",\n\"11\"]".to_owned(), "f.toml:2", "1 bytes, wants 32"),
        ("default = \"pas\"".to_owned(), "f.toml:1", "did you mean `pass`?"),
        ("default = ".to_owned(), "f.toml:1", ""),
        ("[[sas]]".to_owned(), "f.toml:1", "did you mean `sa`?"),
    ];
    for (text, place, message) in cases {
        let error = parse(text).map(|_| ()).expect_err(text);
        assert!(
            error.place() == Some(place) && error.message().contains(message),
            "wanted {place}: …{message}…, got {error}"
        );
    }
}
