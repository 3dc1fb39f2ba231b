//! A commented SA file with fresh keys.

use std::fmt::Write;

use cryptonic_crypto::DeviceKey;
use cryptonic_wire::psp::Version;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Random bytes of the operating system.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut())
        .map_err(|error| Error::input(format_args!("no random bytes: {error}")))?;
    Ok(bytes)
}

fn hex<const N: usize>(bytes: &[u8; N]) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(bytes))
}

/// A template for ESP.
pub(crate) fn esp() -> Result<Zeroizing<String>> {
    let (key, salt) = (random::<16>()?, random::<4>()?);
    let spi = 0x1000 | u32::from_be_bytes(*random::<4>()?) & 0x7fff_ffff;
    let (key, salt) = (hex(&key), hex(&salt));
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let written = write!(
        text,
        r#"# SA file of `cryptonic pcap`. Check it with `cryptonic sa check FILE`.
# The keys are fresh and random: this file is a secret.
#
# As it stands it protects packets from 10.0.0.0/8 to 10.1.0.0/16, and opens what it protected:
#   cryptonic pcap --sa FILE clear.pcap protected.pcap
#   cryptonic pcap --sa FILE protected.pcap opened.pcap

default = "pass"                     # packets that no SA takes: pass | drop

[[sa]]
name = "east"
direction = "out"                    # out protects, in opens
protocol = "esp"
mode = "tunnel"                      # tunnel | transport | beet
spi = {spi:#010x}                     # 256 and up
cipher = "aes-gcm-128"               # aes-gcm-128 | -192 | -256, aes-gmac-128 | -192 | -256 (no encryption)
key = "{key}"
salt = "{salt}"
icv = 16                             # bytes: 16 | 12 | 8
implicit_iv = false                  # the IV is not sent (RFC 8750)
esn = false                          # extended (64-bit) sequence numbers
sequence = 0                         # last sequence number used; --sa-out carries on
tunnel = {{ src = "192.0.2.1", dst = "192.0.2.2", ttl = 64, df = "copy", dscp = "copy", ecn = "copy" }}
# udp_encap = {{ src_port = 4500, dst_port = 4500 }}       # ESP in UDP, on both ends
# tfc = 1400                         # shorter packets are padded to as many bytes
# lifetime = {{ kind = "count", soft = 900000, hard = 1000000 }}   # kind: count (packets) | bytes
selector = {{ src = "10.0.0.0/8", dst = "10.1.0.0/16" }}   # absent: every packet; the first match wins

[[sa]]
name = "east-peer"
direction = "in"
protocol = "esp"
mode = "tunnel"
spi = {spi:#010x}
cipher = "aes-gcm-128"
key = "{key}"
salt = "{salt}"
icv = 16
implicit_iv = false
esn = false
sequence = 0                         # highest sequence number accepted so far
replay_window = 1024                 # packets; 0 turns replay protection off
tunnel = {{ src = "192.0.2.1", dst = "192.0.2.2" }}
# udp_encap = {{ dst_port = 4500 }}
selector = {{ src = "10.0.0.0/8", dst = "10.1.0.0/16" }}   # what may come out, and must not come in clear
"#,
        key = *key,
        salt = *salt,
    );
    written.map_err(Error::input)?;
    Ok(text)
}

/// A template for PSP: device keys, and an SA whose key they derive.
pub(crate) fn psp() -> Result<Zeroizing<String>> {
    let device_keys = [random::<32>()?, random::<32>()?];
    let spi = 1 | u32::from_be_bytes(*random::<4>()?);
    let mut derived = Zeroizing::new([0; 32]);
    // The top bit of an SPI chooses the device key.
    DeviceKey::new(&device_keys[(spi >> 31) as usize]).derive(Version::AesGcm128, spi, &mut derived);
    let key = Zeroizing::new(hex::encode(&derived[..16]));
    let (first, second) = (hex(&device_keys[0]), hex(&device_keys[1]));
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let written = write!(
        text,
        r#"# SA file of `cryptonic pcap`. Check it with `cryptonic sa check FILE`.
# The keys are fresh and random: this file is a secret.
#
# As it stands it protects packets from 10.0.0.0/8 to 10.1.0.0/16, and opens what it protected:
#   cryptonic pcap --sa FILE clear.pcap protected.pcap
#   cryptonic pcap --sa FILE protected.pcap opened.pcap

default = "pass"                     # packets that no SA takes: pass | drop

[psp]                                # receiving needs no SA: every key comes from the device keys
device_keys = [
  "{first}",
  "{second}",
]
receive = true                       # true | false | versions: [0, 1]

[[sa]]
name = "west"
direction = "out"
protocol = "psp"
mode = "transport"                   # transport | tunnel, with tunnel = {{ src = "192.0.2.1", dst = "192.0.2.2" }}
spi = {spi:#010x}                     # its top bit names the device key
version = 0                          # 0, 1: AES-GCM-128, -256 | 2, 3: AES-GMAC-128, -256
key = "{key}"   # derived from the device key, the version and the SPI
crypt_offset = 0                     # 4-byte words from the end of the IV that stay in clear
src_port = "entropy"                 # entropy | ports-xor | table | a number
# vc = "0000000000000000"            # virtualization cookie
selector = {{ src = "10.0.0.0/8", dst = "10.1.0.0/16" }}   # absent: every packet; the first match wins
"#,
        first = *first,
        second = *second,
        key = *key,
    );
    written.map_err(Error::input)?;
    Ok(text)
}
