//! The keys of a PSP SA, and the section of the PSP device keys.

use cryptonic_regs::descriptor::SourcePortPolicy;
use zeroize::Zeroizing;

use super::Secret;
use crate::error::Result;
use crate::toml_reader::{Item, Table};

/// The crypt offset has six bits.
const CRYPT_OFFSET_MAX: u64 = 63;

/// How PSP packets are opened.
#[derive(Debug)]
pub(crate) struct Psp {
    /// Both device keys, for tests; absent: the device makes its own.
    pub(crate) device_keys: Option<[DeviceKey; 2]>,
    pub(crate) receive: bool,
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
    /// In units of 4 bytes from the end of the IV.
    pub(crate) crypt_offset: u8,
    pub(crate) source_port_policy: SourcePortPolicy,
    /// For the policy `Fixed`.
    pub(crate) source_port: u16,
    /// The next IV, for tests; absent: device time.
    pub(crate) iv: Option<u64>,
}

/// Reads `[psp]`.
pub(super) fn section(item: &Item<'_>) -> Result<Psp> {
    let mut table = item.table()?;
    let device_keys = table.take("device_keys").map(|item| device_keys(&item)).transpose()?;
    let receive = table.take("receive").map(|item| item.boolean()).transpose()?.unwrap_or(true);
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

/// Reads what a PSP SA has beyond what every SA has.
pub(super) fn sa(table: &mut Table<'_>) -> Result<PspSa> {
    if let Some(item) = table.take("mode")
        && item.word(&[("transport", false), ("tunnel", true)])?
    {
        return Err(item.not_supported("PSP in tunnel mode"));
    }
    let version_item = table.require("version")?;
    let version = u8::try_from(version_item.number(0, 3)?).unwrap_or(0);
    if version > 1 {
        return Err(version_item.not_supported(format_args!("PSP version {version} (AES-GMAC)")));
    }
    let key_item = table.require("key")?;
    let key = key_item.bytes()?;
    let key_bytes = if version == 0 { 16 } else { 32 };
    if key.len() != key_bytes {
        return Err(key_item.error(format_args!("{} bytes, version {version} wants {key_bytes}", key.len())));
    }
    let crypt_offset =
        table.take("crypt_offset").map(|item| item.number(0, CRYPT_OFFSET_MAX)).transpose()?.unwrap_or(0);
    table.refuse_unsupported("vc")?;
    let (mut source_port_policy, mut source_port) = (SourcePortPolicy::Entropy, 0);
    if let Some(item) = table.take("src_port") {
        if item.is_text() {
            source_port_policy = item
                .word(&[("entropy", SourcePortPolicy::Entropy), ("ports-xor", SourcePortPolicy::PortsXor)])?;
        } else {
            source_port_policy = SourcePortPolicy::Fixed;
            source_port = u16::try_from(item.number(1, 65_535)?).unwrap_or(0);
        }
    }
    let iv = table.take("iv").map(|item| item.number(0, u64::MAX)).transpose()?;
    Ok(PspSa {
        version,
        key: key.into(),
        crypt_offset: u8::try_from(crypt_offset).unwrap_or(0),
        source_port_policy,
        source_port,
        iv,
    })
}

/// Refuses the keys that only an ESP SA has.
pub(super) fn refuse_keys_of_esp(table: &mut Table<'_>) -> Result<()> {
    for key in
        ["cipher", "salt", "icv", "implicit_iv", "esn", "sequence", "replay_window", "tunnel", "udp_encap"]
    {
        if let Some(item) = table.take(key) {
            return Err(item.error("is a key of esp, not of psp"));
        }
    }
    table.refuse_unsupported("lifetime")
}
