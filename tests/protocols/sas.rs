//! SAs as the driver takes them and as the witness does, and small helpers around both.

use std::net::IpAddr;

use cryptonic_driver::{
    Cipher, Direction, Mode, Network, OuterHeader, PspDeviceKeys, SaConfiguration, SecretKey, Selector,
};

use crate::packets::{self, Shape};
use crate::rig::{FORMATS, Format, Rig};
use crate::witness::{self, Outer, Packet};

pub const SPI: u32 = 0x8000_1001;
pub const SALT: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];
pub const KEY: [u8; 16] = [0x5a; 16];
pub const DEVICE_KEYS: [[u8; 32]; 2] = [[0x31; 32], [0x9c; 32]];
/// The ends of a tunnel.
pub const ENDS_V4: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];

/// Stride 32, all of a frame at its address.
pub fn plain() -> Rig {
    Rig::new(&FORMATS[..1])
}

/// A queue pair with room for a key and a cookie.
pub fn wide() -> Rig {
    let wide = Format { stride: 128, ..FORMATS[0] };
    Rig::new(&[wide])
}

pub fn packet(protocol: u8, bytes: usize) -> Packet {
    packets::packet(false, Shape::Plain, protocol, bytes)
}

pub fn packet_v6(protocol: u8, bytes: usize) -> Packet {
    packets::packet(true, Shape::Plain, protocol, bytes)
}

pub fn ends_v6() -> [Vec<u8>; 2] {
    [1, 2].map(|last| [&[0x20, 0x01, 0x0d, 0xb8, 0xff][..], &[0; 10], &[last]].concat())
}

pub fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).expect("4 or 16 bytes").into(),
    }
}

/// AES-GCM with a key of 128 bits.
pub fn sa(direction: Direction, mode: Mode) -> SaConfiguration {
    let key = SecretKey::new(&KEY).expect("a key");
    SaConfiguration {
        outer: (mode != Mode::Transport).then(|| OuterHeader::new(ENDS_V4[0].into(), ENDS_V4[1].into())),
        ..SaConfiguration::new(direction, mode, Cipher::AesGcm128, key, SALT, SPI)
    }
}

/// As [`sa`], over IPv6.
pub fn sa_v6(direction: Direction, mode: Mode) -> SaConfiguration {
    let [source, destination] = ends_v6();
    let outer = OuterHeader::new(address(&source), address(&destination));
    SaConfiguration { outer: Some(outer), ..sa(direction, mode) }
}

pub fn network(address: [u8; 4], bits: u8) -> Network {
    Network { address: address.into(), bits }
}

/// What the packets of [`packet`] are.
pub fn selector() -> Selector {
    Selector { source: network([10, 0, 0, 0], 24), destination: network([10, 1, 0, 0], 16), protocol: None }
}

/// The same SA as the witness takes it.
pub fn esp(mode: witness::Mode) -> witness::Esp {
    witness::Esp {
        key: KEY.to_vec(),
        salt: SALT,
        spi: SPI,
        gmac: false,
        icv_bytes: 16,
        implicit_iv: false,
        extended_sequence: false,
        udp: None,
        tfc_bytes: 0,
        protect_destination_options: false,
        mode,
    }
}

pub fn tunnel() -> witness::Mode {
    witness::Mode::Tunnel(outer(ENDS_V4[0].to_vec(), ENDS_V4[1].to_vec()))
}

pub fn tunnel_v6() -> witness::Mode {
    let [source, destination] = ends_v6();
    witness::Mode::Tunnel(outer(source, destination))
}

pub fn outer(source: Vec<u8>, destination: Vec<u8>) -> Outer {
    Outer {
        source,
        destination,
        ttl: Some(64),
        dscp: None,
        dont_fragment: None,
        ecn_compatibility: false,
        flow_label: Some(0),
    }
}

/// A PSP packet of device key 1.
pub fn psp(version: u8) -> witness::Psp {
    let spi = 0x9a34_5678;
    witness::Psp {
        key: witness::psp_key(&DEVICE_KEYS, spi, version),
        spi,
        version,
        crypt_offset: 0,
        sample: false,
        drop: false,
        cookie: None,
        extension: vec![],
        source_port: 0xc123,
        destination_port: 1000,
        mode: witness::Mode::Transport,
    }
}

/// A receiver that opens every version with [`DEVICE_KEYS`].
pub fn opening_psp(mut rig: Rig) -> Rig {
    let keys = PspDeviceKeys::new(&DEVICE_KEYS[0], &DEVICE_KEYS[1]);
    rig.receiver.psp_test_keys_load(keys).expect("keys");
    rig.receiver.psp_receive(0b1111, 1000).expect("receive");
    rig
}
