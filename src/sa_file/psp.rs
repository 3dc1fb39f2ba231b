//! The keys of a PSP SA, and the section of the PSP device keys.

use cryptonic_driver::{OuterHeader, SourcePort};
use cryptonic_regs::admin::{Direction, Mode};
use zeroize::Zeroizing;

use super::{Secret, outer};
use crate::error::Result;
use crate::toml_reader::{Item, Table};

/// The crypt offset has six bits.
const CRYPT_OFFSET_MAX: u64 = 63;

/// How PSP packets are opened.
#[derive(Debug)]
pub(crate) struct Psp {
    /// Both device keys, for tests; absent: the device makes its own.
    pub(crate) device_keys: Option<[DeviceKey; 2]>,
    pub(crate) receive: Receive,
}

/// Which versions of PSP are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// All that the device can.
    All,
    /// These, one bit each; 0 is none.
    These(u8),
}

impl Psp {
    /// Whether another section says the same.
    pub(crate) fn is_same(&self, other: &Psp) -> bool {
        let keys = |psp: &Psp| psp.device_keys.clone().map(|keys| keys.map(|key| key.0));
        self.receive == other.receive && keys(self) == keys(other)
    }

    /// Whether any packet is opened.
    pub(crate) fn receives(&self) -> bool {
        self.receive != Receive::These(0)
    }
}

/// A device key.
#[derive(Clone)]
pub(crate) struct DeviceKey(pub(crate) Zeroizing<[u8; 32]>);

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("secret")
    }
}

/// A PSP SA: it protects.
#[derive(Debug)]
pub(crate) struct PspSa {
    pub(crate) version: u8,
    pub(crate) key: Secret,
    pub(crate) mode: Mode,
    /// Tunnel mode.
    pub(crate) outer: Option<OuterHeader>,
    /// In units of 4 bytes from the end of the IV.
    pub(crate) crypt_offset: u8,
    pub(crate) source_port: SourcePort,
    pub(crate) virtualization_cookie: Option<[u8; 8]>,
    /// The S bit.
    pub(crate) sample: bool,
    /// The D bit.
    pub(crate) drop: bool,
    /// The next IV, for tests; absent: device time.
    pub(crate) iv: Option<u64>,
}

/// Reads `[psp]`.
pub(super) fn section(item: &Item<'_>) -> Result<Psp> {
    let mut table = item.table()?;
    let device_keys = table.take("device_keys").map(|item| device_keys(&item)).transpose()?;
    let receive = table.take("receive").map(|item| receive(&item)).transpose()?.unwrap_or(Receive::All);
    table.finish()?;
    Ok(Psp { device_keys, receive })
}

fn device_keys(item: &Item<'_>) -> Result<[DeviceKey; 2]> {
    let items = item.items()?;
    let [first, second] = items.as_slice() else {
        return Err(item.error(format_args!("wants two keys of 32 bytes, not {}", items.len())));
    };
    Ok([DeviceKey(first.array_of_bytes()?), DeviceKey(second.array_of_bytes()?)])
}

/// true, false, or the versions.
fn receive(item: &Item<'_>) -> Result<Receive> {
    if !item.is_array() {
        return Ok(if item.boolean()? { Receive::All } else { Receive::These(0) });
    }
    let mut mask = 0;
    for version in item.items()? {
        mask |= 1 << version.number(0, 3)?;
    }
    if mask == 0 { Err(item.error("names no version; false opens none")) } else { Ok(Receive::These(mask)) }
}

/// Reads what a PSP SA has beyond what every SA has.
pub(super) fn sa(table: &mut Table<'_>, notes: &mut Vec<String>) -> Result<PspSa> {
    let mode = match table.take("mode") {
        Some(item) => match item.word(&[
            ("transport", Mode::Transport),
            ("tunnel", Mode::Tunnel),
            ("beet", Mode::Beet),
        ])? {
            Mode::Beet => return Err(item.error("PSP has transport and tunnel mode")),
            mode => mode,
        },
        None => Mode::Transport,
    };
    let version = table.require("version")?.number(0, 3)? as u8;
    let key_item = table.require("key")?;
    let key = key_item.bytes()?;
    let key_bytes = if matches!(version, 0 | 2) { 16 } else { 32 };
    if key.len() != key_bytes {
        return Err(key_item.error(format_args!("{} bytes, version {version} wants {key_bytes}", key.len())));
    }
    let mut crypt_offset = 0;
    if let Some(item) = table.take("crypt_offset") {
        crypt_offset = item.number(0, CRYPT_OFFSET_MAX)? as u8;
        if crypt_offset > 0 && version > 1 {
            notes
                .push(item.error("stands in the header alone: versions 2 and 3 encrypt nothing").to_string());
        }
    }
    let cookie = table.take("vc").map(|item| item.array_of_bytes()).transpose()?;
    let source_port = table.take("src_port").map(|item| source_port(&item)).transpose()?;
    let outer = outer::tunnel(table, mode, Direction::Out, notes)?;
    let mut bits = [false; 2];
    for (bit, key) in bits.iter_mut().zip(["sample", "drop"]) {
        let Some(item) = table.take(key) else { continue };
        *bit = item.boolean()?;
        if *bit && mode == Mode::Tunnel {
            return Err(item.error("is told with a key in the descriptor, which has no tunnel"));
        }
    }
    let iv = table.take("iv").map(|item| item.number(0, u64::MAX)).transpose()?;
    Ok(PspSa {
        version,
        key: key.into(),
        mode,
        outer,
        crypt_offset,
        source_port: source_port.unwrap_or(SourcePort::Entropy),
        virtualization_cookie: cookie.map(|cookie| *cookie),
        sample: bits[0],
        drop: bits[1],
        iv,
    })
}

fn source_port(item: &Item<'_>) -> Result<SourcePort> {
    if item.is_text() {
        return item.word(&[
            ("entropy", SourcePort::Entropy),
            ("ports-xor", SourcePort::PortsXor),
            ("table", SourcePort::Table),
        ]);
    }
    Ok(SourcePort::Fixed(item.number(1, 65_535)? as u16))
}

/// Refuses the keys that only an ESP SA has.
pub(super) fn refuse_keys_of_esp(table: &mut Table<'_>) -> Result<()> {
    for key in [
        "cipher",
        "salt",
        "icv",
        "implicit_iv",
        "esn",
        "sequence",
        "replay_window",
        "udp_encap",
        "tfc",
        "protect_destination_options",
    ] {
        if let Some(item) = table.take(key) {
            return Err(item.error("is a key of esp, not of psp"));
        }
    }
    Ok(())
}
