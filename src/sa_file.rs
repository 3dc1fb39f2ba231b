//! The SA file: which packets are protected and opened, and how.
//!
//! The file is checked whole: an unknown key, a wrong length, a duplicate SA or a key whose feature does not
//! exist yet is an error with file and line. Keys are zeroised when dropped and never shown.

mod esp;
mod psp;
mod selector;
pub(crate) mod template;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use cryptonic_regs::admin::Direction;
use zeroize::Zeroizing;

pub(crate) use esp::{CIPHERS, Dscp, Esp};
pub(crate) use psp::{Psp, PspSa};
pub(crate) use selector::Selector;

use crate::error::{Error, Result};
use crate::toml_reader::{Source, Table};

/// Bytes that are never shown, and zeroised when dropped.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Secret {
        Secret(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("secret")
    }
}

/// What becomes of packets that no SA takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultAction {
    /// They pass in clear.
    Pass,
    /// They are dropped.
    Drop,
}

/// A whole SA file.
#[derive(Debug)]
pub(crate) struct SaFile {
    pub(crate) default: DefaultAction,
    pub(crate) psp: Option<Psp>,
    pub(crate) sas: Vec<Sa>,
    /// Keys that are right but do nothing where they stand.
    pub(crate) notes: Vec<String>,
}

/// One SA.
#[derive(Debug)]
pub(crate) struct Sa {
    pub(crate) name: String,
    /// Where it begins, as `file:line`.
    pub(crate) place: String,
    pub(crate) direction: Direction,
    pub(crate) spi: u32,
    pub(crate) selector: Selector,
    pub(crate) protocol: Protocol,
}

/// What an SA does to a packet.
#[derive(Debug)]
pub(crate) enum Protocol {
    Esp(Esp),
    Psp(PspSa),
}

impl Protocol {
    /// Its name in the file.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Protocol::Esp(_) => "esp",
            Protocol::Psp(_) => "psp",
        }
    }
}

impl Sa {
    /// The destination its packets have on the wire, where the file says.
    pub(crate) fn destination(&self) -> Option<IpAddr> {
        match &self.protocol {
            Protocol::Esp(esp) => esp.tunnel.as_ref().map(|tunnel| tunnel.destination),
            Protocol::Psp(_) => None,
        }
    }
}

impl SaFile {
    /// Reads and checks a file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<SaFile> {
        SaFile::parse(&Source::read(path)?)
    }

    fn parse(source: &Source) -> Result<SaFile> {
        source.parse(|root| {
            let default = root
                .take("default")
                .map(|item| item.word(&[("pass", DefaultAction::Pass), ("drop", DefaultAction::Drop)]))
                .transpose()?
                .unwrap_or(DefaultAction::Pass);
            let psp = root.take("psp").map(|item| psp::section(&item)).transpose()?;
            let mut notes = Vec::new();
            let mut sas = Vec::new();
            for (index, item) in
                root.take("sa").map(|item| item.items()).transpose()?.into_iter().flatten().enumerate()
            {
                sas.push(sa(item.table()?, index, &mut notes)?);
            }
            refuse_duplicates(&sas)?;
            Ok(SaFile { default, psp, sas, notes })
        })
    }
}

fn sa(mut table: Table<'_>, index: usize, notes: &mut Vec<String>) -> Result<Sa> {
    let mut name = format!("sa {}", index + 1);
    if let Some(item) = table.take("name") {
        item.text()?.clone_into(&mut name);
        if name.is_empty() {
            return Err(item.error("is empty"));
        }
    }
    table.rename(format!("sa \"{name}\""));
    let direction = table.require("direction")?.word(&[("out", Direction::Out), ("in", Direction::In)])?;
    let protocol_item = table.require("protocol")?;
    let is_psp = match protocol_item.word(&[
        ("esp", "esp"),
        ("psp", "psp"),
        ("wespv2", "wespv2"),
        ("eesp", "eesp"),
    ])? {
        "esp" => false,
        "psp" => true,
        other => return Err(protocol_item.not_supported(other)),
    };
    let spi_item = table.require("spi")?;
    let spi = u32::try_from(spi_item.number(0, u64::from(u32::MAX))?).unwrap_or(u32::MAX);
    let selector = table.take("selector").map(|item| selector::read(&item)).transpose()?.unwrap_or_default();
    let place = table.place();
    let protocol = if is_psp {
        if direction == Direction::In {
            return Err(protocol_item.error(
                "a PSP packet is opened with the device key that its SPI names, so receiving takes [psp], not an SA",
            ));
        }
        if spi & 0x7fff_ffff == 0 {
            return Err(spi_item.error(format_args!("{spi:#x} is reserved: its low 31 bits are 0")));
        }
        psp::refuse_keys_of_esp(&mut table)?;
        Protocol::Psp(psp::sa(&mut table)?)
    } else {
        if spi < 256 {
            return Err(spi_item.error(format_args!("{spi} is reserved; ESP takes 256 and up")));
        }
        esp::refuse_keys_of_psp(&mut table)?;
        Protocol::Esp(esp::sa(&mut table, direction, notes)?)
    };
    table.finish()?;
    Ok(Sa { name, place, direction, spi, selector, protocol })
}

fn refuse_duplicates(sas: &[Sa]) -> Result<()> {
    let mut seen: HashMap<(Direction, &str, u32, Option<IpAddr>), &Sa> = HashMap::new();
    let mut keys: HashMap<(&[u8], &[u8]), &Sa> = HashMap::new();
    for sa in sas {
        let identity = (sa.direction, sa.protocol.name(), sa.spi, sa.destination());
        if let Some(first) = seen.insert(identity, sa) {
            let message = format!(
                "sa \"{}\": an SA with this direction, protocol, SPI and destination exists: \"{}\" at {}",
                sa.name, first.name, first.place
            );
            return Err(Error::at(&sa.place, message));
        }
        if sa.direction == Direction::Out {
            let key = match &sa.protocol {
                Protocol::Esp(esp) => (esp.key.expose(), esp.salt.expose()),
                Protocol::Psp(psp) => (psp.key.expose(), &[][..]),
            };
            if let Some(first) = keys.insert(key, sa) {
                let message = format!(
                    "sa \"{}\": the same key as \"{}\" at {}: two SAs would use one nonce twice",
                    sa.name, first.name, first.place
                );
                return Err(Error::at(&sa.place, message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
        let tunnel = esp.tunnel.as_ref().unwrap();
        assert_eq!((tunnel.ttl, tunnel.dscp), (64, Dscp::Copy));
        assert_eq!(file.default, DefaultAction::Pass);
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
            (replace("aes-gcm-128", "aes-gmac-128"), "f.toml:8", "not supported yet"),
            (replace("\"tunnel\"", "\"beet\""), "f.toml:6", "not supported yet"),
            (replace("\"tunnel\"", "\"transport\""), "f.toml:11", "tunnel"),
            (replace("protocol = \"esp\"", "protocol = \"eesp\""), "f.toml:5", "not supported yet"),
            (replace("protocol = \"esp\"", "protocol = \"ah\""), "f.toml:5", "known are esp"),
            (replace("10.0.0.0/8", "10.0.0.1/8"), "f.toml:12", "10.0.0.0/8"),
            (replace("10.0.0.0/8", "2001:db8::/32"), "f.toml:12", "family"),
            (replace("10.0.0.0/8", "10.0.0.0/33"), "f.toml:12", "/33"),
            (replace("192.0.2.1\"", "2001:db8::1\""), "f.toml:11", "family"),
            (replace("dst = \"192.0.2.2\"", "dst = \"192.0.2.2\", ttl = 0"), "f.toml:11", "1 to 255"),
            (
                replace("dst = \"192.0.2.2\"", "dst = \"192.0.2.2\", ecn = true"),
                "f.toml:11",
                "not supported yet",
            ),
            (format!("{GOOD}icv = 12"), "f.toml:13", "not supported yet"),
            (format!("{GOOD}icv = 11"), "f.toml:13", "16"),
            (format!("{GOOD}implicit_iv = true"), "f.toml:13", "not supported yet"),
            (format!("{GOOD}lifetime = {{ kind = \"count\", hard = 3 }}"), "f.toml:13", "not supported yet"),
            (format!("{GOOD}udp_encap = {{ src_port = 4500 }}"), "f.toml:13", "not supported yet"),
            (format!("{GOOD}sequense = 3"), "f.toml:13", "did you mean `sequence`?"),
            (format!("{GOOD}crypt_offset = 3"), "f.toml:13", "a key of psp"),
            (format!("{GOOD}sequence = 0xffffffff"), "f.toml:13", "no sequence number left"),
            (format!("{GOOD}sequence = 0x1_0000_0000"), "f.toml:13", "esn"),
            (twice, "f.toml:14", "\"east\" at f.toml:2"),
            (key_twice, "f.toml:14", "the same key"),
            (in_psp, "f.toml:3", "[psp]"),
            (psp(&format!("version = 2\n{key16}")), "f.toml:5", "not supported yet"),
            (psp(&format!("version = 4\n{key16}")), "f.toml:5", "0 to 3"),
            (psp(&format!("version = 1\n{key16}")), "f.toml:6", "16 bytes, version 1 wants 32"),
            (
                psp(&format!("version = 0\n{key16}\nvc = \"0000000000000000\"")),
                "f.toml:7",
                "not supported yet",
            ),
            (psp(&format!("version = 0\n{key16}\nmode = \"tunnel\"")), "f.toml:7", "not supported yet"),
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
}
