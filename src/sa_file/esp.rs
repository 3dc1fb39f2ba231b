//! The keys of an ESP SA.

use std::net::IpAddr;

use cryptonic_regs::admin::{Cipher, DfPolicy, Direction, Mode};

use super::Secret;
use super::selector::address;
use crate::error::Result;
use crate::toml_reader::{Item, Table};

/// Replay window of an inbound SA that does not name one, in packets.
const REPLAY_WINDOW_DEFAULT: u32 = 1024;
/// The smallest window besides 0 (RFC 4303 3.4.3).
const REPLAY_WINDOW_MIN: u64 = 32;
/// TTL and hop limit of an outer header that the file does not name.
const TTL_DEFAULT: u8 = 64;

/// An ESP SA.
#[derive(Debug)]
pub(crate) struct Esp {
    pub(crate) mode: Mode,
    pub(crate) cipher: Cipher,
    pub(crate) key: Secret,
    pub(crate) salt: Secret,
    pub(crate) esn: bool,
    pub(crate) sequence: u64,
    pub(crate) replay_window: u32,
    pub(crate) tunnel: Option<Tunnel>,
}

/// The outer header of a tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) df: DfPolicy,
    pub(crate) dscp: Dscp,
    pub(crate) flow_label: u32,
}

/// The DSCP of an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dscp {
    /// That of the inner header.
    Copy,
    /// A number.
    Set(u8),
}

/// Ciphers by their names in the file, with their key bytes.
pub(crate) const CIPHERS: [(&str, (Cipher, usize)); 3] = [
    ("aes-gcm-128", (Cipher::AesGcm128, 16)),
    ("aes-gcm-192", (Cipher::AesGcm192, 24)),
    ("aes-gcm-256", (Cipher::AesGcm256, 32)),
];

/// Reads what an ESP SA has beyond what every SA has.
pub(super) fn sa(table: &mut Table<'_>, direction: Direction, notes: &mut Vec<String>) -> Result<Esp> {
    let mode_item = table.require("mode")?;
    let modes = [("tunnel", Some(Mode::Tunnel)), ("transport", Some(Mode::Transport)), ("beet", None)];
    let mode = mode_item.word(&modes)?.ok_or_else(|| mode_item.not_supported("beet"))?;

    let cipher_item = table.require("cipher")?;
    if cipher_item.text()?.starts_with("aes-gmac-") {
        return Err(cipher_item.not_supported(cipher_item.text()?));
    }
    let (cipher, key_bytes) = cipher_item.word(&CIPHERS)?;
    let key_item = table.require("key")?;
    let key = key_item.bytes()?;
    if key.len() != key_bytes {
        let salt_hint = if key.len() == key_bytes + 4 {
            "; are the last 4 the salt? It has a key of its own"
        } else {
            ""
        };
        return Err(key_item.error(format_args!(
            "{} bytes, {} wants {key_bytes}{salt_hint}",
            key.len(),
            cipher_item.text()?
        )));
    }
    let salt_item = table.require("salt")?;
    let salt = salt_item.bytes()?;
    if salt.len() != 4 {
        return Err(salt_item.error(format_args!("{} bytes, wants 4", salt.len())));
    }

    if let Some(item) = table.take("icv") {
        match item.number(0, u64::MAX)? {
            16 => {}
            8 | 12 => return Err(item.not_supported("an ICV of 8 or 12 bytes")),
            _ => return Err(item.error("wants 16, 12 or 8")),
        }
    }
    if let Some(item) = table.take("implicit_iv")
        && item.boolean()?
    {
        return Err(item.not_supported("`implicit_iv`"));
    }
    let esn = table.take("esn").map(|item| item.boolean()).transpose()?.unwrap_or(false);
    let sequence =
        table.take("sequence").map(|item| sequence(&item, direction, esn)).transpose()?.unwrap_or(0);
    let mut replay_window = REPLAY_WINDOW_DEFAULT;
    if let Some(item) = table.take("replay_window") {
        replay_window = u32::try_from(item.number(0, 1 << 30)?).unwrap_or(u32::MAX);
        if (1..REPLAY_WINDOW_MIN).contains(&u64::from(replay_window)) {
            return Err(item.error(format_args!("wants 0 (off) or at least {REPLAY_WINDOW_MIN} packets")));
        }
        if esn && replay_window == 0 && direction == Direction::In {
            return Err(item.error("extended sequence numbers need a replay window (RFC 4303 2.2.1)"));
        }
        note_if_idle(&item, direction == Direction::Out, "an outbound SA", notes);
    }
    table.refuse_unsupported("udp_encap")?;
    table.refuse_unsupported("lifetime")?;

    let tunnel = match (mode, table.take("tunnel")) {
        (Mode::Tunnel, Some(item)) => Some(tunnel(&item, direction, notes)?),
        (Mode::Tunnel, None) if direction == Direction::Out => {
            return Err(table.error("`tunnel` is missing: mode \"tunnel\" needs the outer addresses"));
        }
        (Mode::Transport | Mode::Beet, Some(item)) => {
            return Err(item.error("mode \"transport\" keeps the packet's own header; `tunnel` has no place"));
        }
        (_, None) => None,
    };
    Ok(Esp { mode, cipher, key: key.into(), salt: salt.into(), esn, sequence, replay_window, tunnel })
}

fn sequence(item: &Item<'_>, direction: Direction, esn: bool) -> Result<u64> {
    let sequence = item.number(0, u64::MAX)?;
    let last = if esn { u64::MAX } else { u64::from(u32::MAX) };
    if sequence > last {
        return Err(item.error(format_args!("wants a number from 0 to {last}; more takes esn = true")));
    }
    if direction == Direction::Out && sequence == last {
        return Err(item.error("the SA has no sequence number left"));
    }
    Ok(sequence)
}

fn tunnel(item: &Item<'_>, direction: Direction, notes: &mut Vec<String>) -> Result<Tunnel> {
    let mut table = item.table()?;
    let source = address(&table.require("src")?)?;
    let destination_item = table.require("dst")?;
    let destination = address(&destination_item)?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(destination_item.error("src and dst are not of one family"));
    }
    let inbound = direction == Direction::In;
    let mut tunnel =
        Tunnel { source, destination, ttl: TTL_DEFAULT, df: DfPolicy::Copy, dscp: Dscp::Copy, flow_label: 0 };
    if let Some(item) = table.take("ttl") {
        tunnel.ttl = u8::try_from(item.number(1, 255)?).unwrap_or(u8::MAX);
        note_if_idle(&item, inbound, "an inbound SA", notes);
    }
    if let Some(item) = table.take("df") {
        tunnel.df =
            item.word(&[("copy", DfPolicy::Copy), ("set", DfPolicy::Set), ("clear", DfPolicy::Clear)])?;
        note_if_idle(&item, inbound, "an inbound SA", notes);
        note_if_idle(&item, source.is_ipv6(), "an IPv6 outer header", notes);
    }
    if let Some(item) = table.take("dscp") {
        tunnel.dscp = if item.is_text() {
            item.word(&[("copy", Dscp::Copy)])?
        } else {
            Dscp::Set(u8::try_from(item.number(0, 63)?).unwrap_or(0))
        };
        note_if_idle(&item, inbound, "an inbound SA", notes);
    }
    if let Some(item) = table.take("flow_label") {
        if item.is_text() {
            return Err(item.not_supported("a flow label that is not a number"));
        }
        tunnel.flow_label = u32::try_from(item.number(0, 0xf_ffff)?).unwrap_or(0);
        if source.is_ipv4() {
            return Err(item.error("an IPv4 outer header has no flow label"));
        }
        note_if_idle(&item, inbound, "an inbound SA", notes);
    }
    table.refuse_unsupported("ecn")?;
    table.finish()?;
    Ok(tunnel)
}

fn note_if_idle(item: &Item<'_>, idle: bool, where_idle: &str, notes: &mut Vec<String>) {
    if idle {
        notes.push(item.error(format_args!("does nothing in {where_idle}")).to_string());
    }
}

/// Refuses the keys that only a PSP SA has.
pub(super) fn refuse_keys_of_psp(table: &mut Table<'_>) -> Result<()> {
    for key in ["version", "crypt_offset", "vc", "src_port", "iv"] {
        if let Some(item) = table.take(key) {
            return Err(item.error("is a key of psp, not of esp"));
        }
    }
    Ok(())
}
