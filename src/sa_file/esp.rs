//! The keys of an ESP SA.

use cryptonic_driver::{OuterHeader, UdpEncapsulation};
use cryptonic_regs::admin::{Cipher, Direction, Mode};

use super::{Secret, note_if_idle, outer};
use crate::error::Result;
use crate::toml_reader::{Item, Table};

/// Replay window of an inbound SA that does not name one, in packets.
const REPLAY_WINDOW_DEFAULT: u32 = 1024;
/// The smallest window besides 0 (RFC 4303 3.4.3).
const REPLAY_WINDOW_MIN: u64 = 32;

/// An ESP SA.
#[derive(Debug)]
pub(crate) struct Esp {
    pub(crate) mode: Mode,
    pub(crate) cipher: Cipher,
    pub(crate) key: Secret,
    pub(crate) salt: Secret,
    /// 8, 12 or 16.
    pub(crate) icv_bytes: u8,
    pub(crate) implicit_iv: bool,
    pub(crate) esn: bool,
    pub(crate) sequence: u64,
    pub(crate) replay_window: u32,
    /// Tunnel and BEET mode; inbound and in BEET mode its addresses alone count.
    pub(crate) outer: Option<OuterHeader>,
    pub(crate) encapsulation: Option<UdpEncapsulation>,
    /// Shorter inner packets are padded to as many bytes; 0 is off.
    pub(crate) tfc_bytes: u16,
    pub(crate) protect_destination_options: bool,
}

/// Ciphers by their names in the file, with their key bytes.
pub(crate) const CIPHERS: [(&str, (Cipher, usize)); 6] = [
    ("aes-gcm-128", (Cipher::AesGcm128, 16)),
    ("aes-gcm-192", (Cipher::AesGcm192, 24)),
    ("aes-gcm-256", (Cipher::AesGcm256, 32)),
    ("aes-gmac-128", (Cipher::AesGmac128, 16)),
    ("aes-gmac-192", (Cipher::AesGmac192, 24)),
    ("aes-gmac-256", (Cipher::AesGmac256, 32)),
];

/// Whether a cipher authenticates without encrypting (RFC 4543).
pub(crate) fn is_gmac(cipher: Cipher) -> bool {
    matches!(cipher, Cipher::AesGmac128 | Cipher::AesGmac192 | Cipher::AesGmac256)
}

/// Reads what an ESP SA has beyond what every SA has.
pub(super) fn sa(table: &mut Table<'_>, direction: Direction, notes: &mut Vec<String>) -> Result<Esp> {
    let mode = table.require("mode")?.word(&[
        ("tunnel", Mode::Tunnel),
        ("transport", Mode::Transport),
        ("beet", Mode::Beet),
    ])?;
    let cipher_item = table.require("cipher")?;
    let (cipher, key_bytes) = cipher_item.word(&CIPHERS)?;
    let key = key(&table.require("key")?, cipher_item.text()?, key_bytes)?;
    let salt_item = table.require("salt")?;
    let salt = salt_item.bytes()?;
    if salt.len() != 4 {
        return Err(salt_item.error(format_args!("{} bytes, wants 4", salt.len())));
    }
    let implicit_iv_item = table.take("implicit_iv");
    let implicit_iv = implicit_iv_item.as_ref().map(Item::boolean).transpose()?.unwrap_or(false);
    if let Some(item) = implicit_iv_item.filter(|_| implicit_iv && is_gmac(cipher)) {
        return Err(item.error("AES-GMAC has no implicit IV (RFC 8750)"));
    }
    let icv_bytes =
        table.take("icv").map(|item| icv_bytes(&item, cipher, implicit_iv)).transpose()?.unwrap_or(16);
    let esn = table.take("esn").map(|item| item.boolean()).transpose()?.unwrap_or(false);
    let sequence =
        table.take("sequence").map(|item| sequence(&item, direction, esn)).transpose()?.unwrap_or(0);
    let replay_window = match table.take("replay_window") {
        Some(item) => replay_window(&item, direction, esn, notes)?,
        None => REPLAY_WINDOW_DEFAULT,
    };
    let outer = outer::tunnel(table, mode, direction, notes)?;
    let encapsulation =
        table.take("udp_encap").map(|item| outer::encapsulation(&item, direction, notes)).transpose()?;
    let mut tfc_bytes = 0;
    if let Some(item) = table.take("tfc") {
        tfc_bytes = item.number(0, 65_535)? as u16;
        if mode != Mode::Tunnel {
            return Err(item.error("packets can be padded in mode \"tunnel\" alone (RFC 4303 2.7)"));
        }
        note_if_idle(&item, direction == Direction::In, "an inbound SA", notes);
    }
    let mut protect_destination_options = false;
    if let Some(item) = table.take("protect_destination_options") {
        protect_destination_options = item.boolean()?;
        if mode != Mode::Transport {
            return Err(item.error("a choice of mode \"transport\" alone (RFC 4303 3.1.1)"));
        }
        note_if_idle(&item, direction == Direction::In, "an inbound SA", notes);
    }
    Ok(Esp {
        mode,
        cipher,
        key,
        salt: salt.into(),
        icv_bytes,
        implicit_iv,
        esn,
        sequence,
        replay_window,
        outer,
        encapsulation,
        tfc_bytes,
        protect_destination_options,
    })
}

fn key(item: &Item<'_>, cipher: &str, key_bytes: usize) -> Result<Secret> {
    let key = item.bytes()?;
    if key.len() == key_bytes {
        return Ok(key.into());
    }
    let salt_hint =
        if key.len() == key_bytes + 4 { "; are the last 4 the salt? It has a key of its own" } else { "" };
    Err(item.error(format_args!("{} bytes, {cipher} wants {key_bytes}{salt_hint}", key.len())))
}

fn icv_bytes(item: &Item<'_>, cipher: Cipher, implicit_iv: bool) -> Result<u8> {
    match item.number(0, u64::MAX)? {
        16 => Ok(16),
        8 | 12 if is_gmac(cipher) => Err(item.error("the ICV of AES-GMAC has 16 bytes (RFC 4543 3.5)")),
        8 | 12 if implicit_iv => Err(item.error("with an implicit IV the ICV has 16 bytes (RFC 8750 6)")),
        8 => Ok(8),
        12 => Ok(12),
        _ => Err(item.error("wants 16, 12 or 8")),
    }
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

fn replay_window(item: &Item<'_>, direction: Direction, esn: bool, notes: &mut Vec<String>) -> Result<u32> {
    let window = item.number(0, 1 << 30)?;
    if (1..REPLAY_WINDOW_MIN).contains(&window) {
        return Err(item.error(format_args!("wants 0 (off) or at least {REPLAY_WINDOW_MIN} packets")));
    }
    if esn && window == 0 && direction == Direction::In {
        return Err(item.error("extended sequence numbers need a replay window (RFC 4303 2.2.1)"));
    }
    note_if_idle(item, direction == Direction::Out, "an outbound SA", notes);
    Ok(window as u32)
}

/// Refuses the keys that only a PSP SA has.
pub(super) fn refuse_keys_of_psp(table: &mut Table<'_>) -> Result<()> {
    for key in ["version", "crypt_offset", "vc", "src_port", "sample", "drop", "iv"] {
        if let Some(item) = table.take(key) {
            return Err(item.error("is a key of psp, not of esp"));
        }
    }
    Ok(())
}
