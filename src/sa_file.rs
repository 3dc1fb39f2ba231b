//! The SA file: which packets are protected and opened, and how.
//!
//! The file is checked whole: an unknown key, a wrong length, a duplicate SA or a key whose feature does not
//! exist yet is an error with file and line. Keys are zeroised when dropped and never shown.

mod change;
mod esp;
mod lifetime;
mod outer;
mod psp;
mod selector;
pub(crate) mod template;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use cryptonic_regs::admin::{Direction, Mode};
use zeroize::Zeroizing;

pub(crate) use esp::{CIPHERS, Esp, is_gmac};
pub(crate) use lifetime::SaLifetime;
pub(crate) use psp::{Psp, PspSa, Receive};
pub(crate) use selector::{Prefix, Selector};

use crate::error::{Error, Result};
use crate::toml_reader::{Item, Source, Table};

/// The UDP port of PSP.
pub(crate) const PSP_UDP_PORT: u16 = cryptonic_wire::psp::DEFAULT_UDP_PORT;

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
    /// The UDP port at which inbound SAs take ESP, if one does.
    pub(crate) esp_udp_port: Option<u16>,
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
    pub(crate) lifetime: Option<SaLifetime>,
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
    /// Its place and its name, for messages.
    pub(crate) fn full_place(&self) -> String {
        format!("{}: sa \"{}\"", self.place, self.name)
    }

    /// What no two SAs of a file share.
    pub(crate) fn identity(&self) -> (Direction, &'static str, u32, Option<IpAddr>) {
        (self.direction, self.protocol.name(), self.spi, self.destination())
    }

    /// Its mode.
    pub(crate) fn mode(&self) -> Mode {
        match &self.protocol {
            Protocol::Esp(esp) => esp.mode,
            Protocol::Psp(psp) => psp.mode,
        }
    }

    /// Whether its packets are ESP in UDP.
    pub(crate) fn is_in_udp(&self) -> bool {
        matches!(self.protocol, Protocol::Esp(Esp { encapsulation: Some(_), .. }))
    }

    /// The destination its packets have on the wire, where the file says.
    pub(crate) fn destination(&self) -> Option<IpAddr> {
        match &self.protocol {
            Protocol::Esp(esp) => esp.outer.map(|outer| outer.destination),
            Protocol::Psp(_) => None,
        }
    }
}

impl SaFile {
    /// Reads and checks a file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<SaFile> {
        SaFile::parse(&Source::read(path)?)
    }

    /// Checks a file that was read.
    pub(crate) fn parse(source: &Source) -> Result<SaFile> {
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
            let esp_udp_port = esp_udp_port(&sas, psp.as_ref())?;
            Ok(SaFile { default, psp, sas, esp_udp_port, notes })
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
    let selector_item = table.take("selector");
    let selector = selector_item.as_ref().map(selector::read).transpose()?.unwrap_or_default();
    let lifetime = table.take("lifetime").map(|item| SaLifetime::read(&item)).transpose()?;
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
        Protocol::Psp(psp::sa(&mut table, notes)?)
    } else {
        if spi < 256 {
            return Err(spi_item.error(format_args!("{spi} is reserved; ESP takes 256 and up")));
        }
        esp::refuse_keys_of_psp(&mut table)?;
        Protocol::Esp(esp::sa(&mut table, direction, notes)?)
    };
    table.finish()?;
    let sa = Sa { name, place, direction, spi, selector, lifetime, protocol };
    check_selector(&sa, selector_item.as_ref(), &table)?;
    if let Protocol::Psp(PspSa { sample, drop, .. }) = &sa.protocol
        && (*sample || *drop)
        && sa.lifetime.is_some()
    {
        return Err(
            table.error("a lifetime is of an SA slot; sample and drop are told with a key in the descriptor")
        );
    }
    Ok(sa)
}

/// What the device must be told of a selector, it must be able to know.
fn check_selector(sa: &Sa, item: Option<&Item<'_>>, table: &Table<'_>) -> Result<()> {
    let fault = if sa.mode() == Mode::Beet && !sa.selector.is_pair() {
        "mode \"beet\" needs a selector of two addresses: those of the inner packets"
    } else if sa.direction == Direction::In && !sa.selector.is_all() && sa.selector.of_device().is_none() {
        "the selector of an inbound SA has src, dst or both, beside a protocol"
    } else {
        return Ok(());
    };
    Err(item.map_or_else(|| table.error(fault), |item| item.error(fault)))
}

/// The one UDP port at which a NIC takes ESP.
fn esp_udp_port(sas: &[Sa], psp: Option<&Psp>) -> Result<Option<u16>> {
    let mut first: Option<(&Sa, u16)> = None;
    for sa in sas.iter().filter(|sa| sa.direction == Direction::In) {
        let Protocol::Esp(Esp { encapsulation: Some(udp), .. }) = &sa.protocol else { continue };
        let port = udp.destination_port;
        let fault = match first {
            Some((other, known)) if known != port => {
                format!(
                    "the NIC takes ESP at one UDP port, and \"{}\" at {} has {known}",
                    other.name, other.place
                )
            }
            _ if port == PSP_UDP_PORT && psp.is_some_and(Psp::receives) => {
                format!("UDP port {port} is that of PSP, which [psp] receives")
            }
            _ => {
                first = Some((sa, port));
                continue;
            }
        };
        return Err(Error::at(
            &sa.place,
            format_args!("sa \"{}\": udp_encap: dst_port {port}: {fault}", sa.name),
        ));
    }
    Ok(first.map(|(_, port)| port))
}

/// Notes a key that is right but does nothing where it stands.
fn note_if_idle(item: &Item<'_>, idle: bool, where_idle: &str, notes: &mut Vec<String>) {
    if idle {
        notes.push(item.error(format_args!("does nothing in {where_idle}")).to_string());
    }
}

fn refuse_duplicates(sas: &[Sa]) -> Result<()> {
    let mut seen: HashMap<_, &Sa> = HashMap::new();
    let mut keys: HashMap<(&[u8], &[u8]), &Sa> = HashMap::new();
    for sa in sas {
        if let Some(first) = seen.insert(sa.identity(), sa) {
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
