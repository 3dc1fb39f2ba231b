//! The flows of `run`: how each is protected, and how its packets are described to the NIC.

use std::path::Path;

use cryptonic_driver::{InlinePolicy, Lifetime, PushPolicy};
use cryptonic_hwmodel::CableParameters;
use cryptonic_regs::admin::{Cipher, Mode};
use cryptonic_wire::sequence::{MAX_WINDOW, MIN_WINDOW};

use crate::cable;
use crate::error::Result;
use crate::sa_file::{CIPHERS, SaLifetime, is_gmac};
use crate::toml_reader::{Item, Source, Table};
use crate::workload::{FCS_BYTES, NUMBER_BYTES, SIZE_MAX, SIZE_MIN, Sizes};

const ETHERNET_BYTES: usize = 14;

/// How the packets of a queue pair are described to the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Its name in a workload file.
    pub(crate) name: &'static str,
    /// Bytes of a slot.
    pub(crate) stride: u32,
    /// Bytes of the frame's beginning that stand in the slot, if there is room.
    pub(crate) inline_bytes: u8,
    /// A lone packet's slot is pushed.
    pub(crate) pushed: bool,
    /// The headers are one piece of memory, the payload another.
    pub(crate) scattered: bool,
}

const fn descriptor(name: &'static str, stride: u32, inline_bytes: u8, pushed: bool) -> Descriptor {
    Descriptor { name, stride, inline_bytes, pushed, scattered: false }
}

impl Descriptor {
    /// Every one that has a name.
    pub(crate) const ALL: [Descriptor; 8] = [
        descriptor("stride-32", 32, 0, false),
        Descriptor::STRIDE_64,
        descriptor("stride-128", 128, 0, false),
        descriptor("inline-64", 64, 32, false),
        descriptor("inline-128", 128, 96, false),
        descriptor("pushed-64", 64, 32, true),
        descriptor("pushed-128", 128, 96, true),
        Descriptor { scattered: true, ..descriptor("scatter-gather", 32, 0, false) },
    ];
    /// An address, and room for a PSP key.
    pub(crate) const STRIDE_64: Descriptor = descriptor("stride-64", 64, 0, false);

    /// What the driver is told of it.
    pub(crate) fn policies(&self) -> (InlinePolicy, PushPolicy) {
        let inline = match self.inline_bytes {
            0 => InlinePolicy::Never,
            bytes => InlinePolicy::Heads { bytes },
        };
        (inline, if self.pushed { PushPolicy::WhenIdle } else { PushPolicy::Never })
    }
}

/// How a flow is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    Esp(EspForm),
    Psp(PspForm),
}

/// A form of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EspForm {
    pub(crate) mode: Mode,
    pub(crate) cipher: Cipher,
    pub(crate) icv_bytes: u8,
    pub(crate) implicit_iv: bool,
    pub(crate) esn: bool,
    pub(crate) in_udp: bool,
    /// The outer header of a tunnel, and the outer addresses of BEET mode, are IPv6.
    pub(crate) outer_ipv6: bool,
    /// Packets of the receiver's replay window, 0 for none.
    pub(crate) replay_window: u32,
    /// The last sequence number used before the run.
    pub(crate) sequence: u64,
    /// Limits of each of its SAs; the soft one makes the next.
    pub(crate) lifetime: Option<Lifetime>,
}

/// The replay window of a flow that does not say one.
pub(crate) const REPLAY_WINDOW: u32 = 1024;

impl EspForm {
    /// A mode and a cipher, and nothing out of the ordinary.
    pub(crate) const fn new(mode: Mode, cipher: Cipher) -> EspForm {
        EspForm {
            mode,
            cipher,
            icv_bytes: 16,
            implicit_iv: false,
            esn: false,
            in_udp: false,
            outer_ipv6: false,
            replay_window: REPLAY_WINDOW,
            sequence: 0,
            lifetime: None,
        }
    }
}

/// A form of PSP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PspForm {
    pub(crate) version: u8,
    pub(crate) crypt_offset: u8,
    pub(crate) cookie: bool,
    /// The key is in an SA slot; else in the descriptor.
    pub(crate) slot: bool,
    pub(crate) tunnel: bool,
    pub(crate) outer_ipv6: bool,
}

/// A kind of flow.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) name: String,
    /// Which way: from the first NIC to the second, back, or both.
    pub(crate) ways: [bool; 2],
    pub(crate) protection: Protection,
    pub(crate) descriptor: Descriptor,
    pub(crate) ipv6: bool,
    pub(crate) tcp: bool,
    pub(crate) sizes: Sizes,
    /// Packets relative to other flows.
    pub(crate) weight: usize,
    /// How many SAs or PSP keys share this description.
    pub(crate) count: usize,
}

impl Flow {
    /// A flow both ways of UDP over IPv4.
    pub(crate) fn new(name: &str, protection: Protection, sizes: Sizes) -> Flow {
        Flow {
            name: name.to_owned(),
            ways: [true; 2],
            protection,
            descriptor: Descriptor::STRIDE_64,
            ipv6: false,
            tcp: false,
            sizes,
            weight: 1,
            count: 1,
        }
    }

    /// The smallest frame that holds the headers and a packet's number, FCS included.
    pub(crate) fn smallest(&self) -> usize {
        let network = if self.ipv6 { 40 } else { 20 };
        let transport = if self.tcp { 20 } else { 8 };
        ETHERNET_BYTES + network + transport + NUMBER_BYTES + FCS_BYTES
    }
}

/// The flows that `run` has without a workload file, both ways.
pub(crate) fn default_flows(sizes: &Sizes) -> Vec<Flow> {
    // IPv6 where it fits.
    let roomy = sizes.smallest() >= 96;
    let flow = |name: &str, protection, ipv6: bool, tcp| Flow {
        ipv6: ipv6 && roomy,
        tcp,
        ..Flow::new(name, protection, sizes.clone())
    };
    let esp = |mode, cipher| EspForm::new(mode, cipher);
    let psp = PspForm::default();
    vec![
        flow("esp-tunnel", Protection::Esp(esp(Mode::Tunnel, Cipher::AesGcm128)), false, false),
        flow(
            "esp-transport",
            Protection::Esp(EspForm { esn: true, ..esp(Mode::Transport, Cipher::AesGcm256) }),
            true,
            true,
        ),
        flow(
            "esp-udp",
            Protection::Esp(EspForm { in_udp: true, ..esp(Mode::Tunnel, Cipher::AesGmac128) }),
            true,
            true,
        ),
        flow(
            "esp-beet",
            Protection::Esp(EspForm { implicit_iv: true, ..esp(Mode::Beet, Cipher::AesGcm128) }),
            false,
            false,
        ),
        flow("psp-v0", Protection::Psp(psp), false, true),
        flow("psp-v1", Protection::Psp(PspForm { version: 1, crypt_offset: 1, ..psp }), true, false),
        flow(
            "psp-tunnel",
            Protection::Psp(PspForm { cookie: true, slot: true, tunnel: true, outer_ipv6: true, ..psp }),
            false,
            true,
        ),
    ]
}

/// One way, one SA: UDP over IPv4 in ESP transport mode with AES-GCM-128.
pub(crate) fn bench_flow(size: usize) -> Flow {
    let form = EspForm { esn: true, ..EspForm::new(Mode::Transport, Cipher::AesGcm128) };
    Flow {
        ways: [true, false],
        ..Flow::new(&format!("{size} B"), Protection::Esp(form), Sizes::These(vec![size]))
    }
}

/// Reads the flows of a workload file, and the cable they go over.
pub(crate) fn read_workload(path: &Path, default_sizes: &Sizes) -> Result<(Vec<Flow>, CableParameters)> {
    Source::read(path)?.parse(|root| {
        let cable =
            root.take("cable").map(|item| cable::read(item.table()?)).transpose()?.unwrap_or_default();
        let list = root.require("flow")?;
        let flows = list.items()?;
        if flows.is_empty() {
            return Err(list.error("there is no flow"));
        }
        let flows = flows.iter().enumerate().map(|(index, item)| flow(item.table()?, index, default_sizes));
        Ok((flows.collect::<Result<_>>()?, cable))
    })
}

const FAMILIES: [(&str, bool); 2] = [("ipv4", false), ("ipv6", true)];

fn flow(mut table: Table<'_>, index: usize, default_sizes: &Sizes) -> Result<Flow> {
    let name = table.take("name").map(|item| item.text().map(str::to_owned)).transpose()?;
    let name = name.unwrap_or_else(|| format!("flow {}", index + 1));
    table.rename(format!("flow \"{name}\""));
    let ways = table
        .take("from")
        .map(|item| item.word(&[("a", [true, false]), ("b", [false, true]), ("both", [true; 2])]))
        .transpose()?
        .unwrap_or([true; 2]);
    let kind = table.require("protection")?;
    let esp_mode = kind.word(&[
        ("esp-tunnel", Some(Mode::Tunnel)),
        ("esp-transport", Some(Mode::Transport)),
        ("esp-beet", Some(Mode::Beet)),
        ("psp", None),
        ("psp-tunnel", None),
    ])?;
    let protection = match esp_mode {
        Some(mode) => Protection::Esp(esp_form(&mut table, mode)?),
        None => Protection::Psp(psp_form(&mut table, kind.text()? == "psp-tunnel")?),
    };
    let descriptor = descriptor_of(&mut table, &protection)?;
    let ipv6 = flag(&mut table, "ip", &FAMILIES)?;
    let tcp = flag(&mut table, "transport", &[("udp", false), ("tcp", true)])?;
    let size_item = table.take("size");
    let sizes = size_item.as_ref().map(sizes).transpose()?.unwrap_or_else(|| default_sizes.clone());
    let number = |item: Option<Item<'_>>, high| -> Result<usize> {
        Ok(item.map(|item| item.number(1, high)).transpose()?.unwrap_or(1) as usize)
    };
    let weight = number(table.take("weight"), 1_000)?;
    let count = number(table.take("count"), 65_536)?;
    let flow = Flow { name, ways, protection, descriptor, ipv6, tcp, sizes, weight, count };
    let (smallest, wanted) = (flow.smallest(), flow.sizes.smallest());
    // Imix and mix let small packets grow to what the headers need; a size that was asked for is exact.
    if matches!(flow.sizes, Sizes::These(_)) && wanted < smallest {
        let message = format!("{wanted} bytes do not hold these headers and a number; {smallest} do");
        return Err(size_item.map_or_else(|| table.error(&message), |item| item.error(&message)));
    }
    table.finish()?;
    Ok(flow)
}

/// One of two words, the first if there is none.
fn flag(table: &mut Table<'_>, key: &'static str, words: &[(&'static str, bool); 2]) -> Result<bool> {
    Ok(table.take(key).map(|item| item.word(words)).transpose()?.unwrap_or(words[0].1))
}

fn boolean(table: &mut Table<'_>, key: &'static str) -> Result<bool> {
    Ok(table.take(key).map(|item| item.boolean()).transpose()?.unwrap_or(false))
}

fn esp_form(table: &mut Table<'_>, mode: Mode) -> Result<EspForm> {
    let cipher = table.take("cipher").map(|item| item.word(&CIPHERS)).transpose()?;
    let cipher = cipher.map_or(Cipher::AesGcm128, |(cipher, _)| cipher);
    let implicit_iv = boolean(table, "implicit_iv")?;
    let mut icv_bytes = 16;
    if let Some(item) = table.take("icv") {
        icv_bytes = match item.number(0, u64::MAX)? {
            16 => 16,
            8 | 12 if is_gmac(cipher) || implicit_iv => {
                return Err(item.error("AES-GMAC and implicit IVs have ICVs of 16 bytes"));
            }
            bytes @ (8 | 12) => bytes as u8,
            _ => return Err(item.error("wants 16, 12 or 8")),
        };
    }
    if implicit_iv && is_gmac(cipher) {
        return Err(table.error("AES-GMAC has no implicit IV (RFC 8750)"));
    }
    let outer_ipv6 = mode != Mode::Transport && flag(table, "outer", &FAMILIES)?;
    let esn = boolean(table, "esn")?;
    Ok(EspForm {
        mode,
        cipher,
        icv_bytes,
        implicit_iv,
        esn,
        in_udp: boolean(table, "udp")?,
        outer_ipv6,
        replay_window: table.take("replay_window").map_or(Ok(REPLAY_WINDOW), |item| replay_window(&item))?,
        sequence: table.take("sequence").map_or(Ok(0), |item| sequence(&item, esn))?,
        lifetime: table.take("lifetime").map(|item| lifetime(&item)).transpose()?,
    })
}

fn lifetime(item: &Item<'_>) -> Result<Lifetime> {
    let SaLifetime { limits, used } = SaLifetime::read(item)?;
    if limits.soft.is_none() {
        return Err(item.error("wants `soft`, at which a new SA takes the place of the old one"));
    }
    if used != 0 {
        return Err(item.error("has no `used`: the SAs of a flow are new"));
    }
    Ok(limits)
}

fn replay_window(item: &Item<'_>) -> Result<u32> {
    match item.number(0, u64::MAX)? {
        packets if packets == 0 || (MIN_WINDOW.into()..=MAX_WINDOW.into()).contains(&packets) => {
            Ok(packets as u32)
        }
        _ => Err(item.error(format_args!("wants 0 (off) or {MIN_WINDOW} to {MAX_WINDOW} packets"))),
    }
}

fn sequence(item: &Item<'_>, esn: bool) -> Result<u64> {
    let sequence = item.number(0, u64::MAX)?;
    if !esn && sequence > u32::MAX.into() {
        return Err(item.error("without ESN a sequence number has 32 bits"));
    }
    Ok(sequence)
}

fn psp_form(table: &mut Table<'_>, tunnel: bool) -> Result<PspForm> {
    let number = |item: Option<Item<'_>>, high| -> Result<u8> {
        Ok(item.map(|item| item.number(0, high)).transpose()?.unwrap_or(0) as u8)
    };
    let version = number(table.take("version"), 3)?;
    let crypt_offset = number(table.take("crypt_offset"), 63)?;
    let cookie = boolean(table, "cookie")?;
    let slot = match table.take("key") {
        Some(item) => match item.word(&[("descriptor", false), ("slot", true)])? {
            false if tunnel => return Err(item.error("a tunnel needs a slot, which has its outer header")),
            slot => slot,
        },
        None => tunnel,
    };
    let outer_ipv6 = tunnel && flag(table, "outer", &FAMILIES)?;
    Ok(PspForm { version, crypt_offset, cookie, slot, tunnel, outer_ipv6 })
}

fn descriptor_of(table: &mut Table<'_>, protection: &Protection) -> Result<Descriptor> {
    let needed = match protection {
        Protection::Psp(PspForm { slot: false, cookie: true, .. }) => 128,
        Protection::Psp(PspForm { slot: false, .. }) => 64,
        _ => 32,
    };
    let Some(item) = table.take("descriptor") else {
        let fits = |descriptor: &&Descriptor| descriptor.stride >= needed.max(64);
        return Ok(*Descriptor::ALL.iter().find(fits).unwrap_or(&Descriptor::STRIDE_64));
    };
    let descriptor = item.word(&Descriptor::ALL.map(|descriptor| (descriptor.name, descriptor)))?;
    if descriptor.stride < needed {
        return Err(item.error(format_args!("a key in the descriptor needs a stride of {needed} bytes")));
    }
    Ok(descriptor)
}

fn sizes(item: &Item<'_>) -> Result<Sizes> {
    let size = |item: &Item<'_>| Ok(item.number(SIZE_MIN as u64, SIZE_MAX as u64)? as usize);
    if item.is_text() {
        return Sizes::parse(item.text()?).map_err(|message| item.error(message));
    }
    if !item.is_array() {
        return Ok(Sizes::These(vec![size(item)?]));
    }
    let sizes = item.items()?.iter().map(size).collect::<Result<Vec<usize>>>()?;
    if sizes.is_empty() || sizes.len() > 255 {
        return Err(item.error("wants 1 to 255 sizes"));
    }
    Ok(Sizes::These(sizes))
}
