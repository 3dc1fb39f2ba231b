//! A sender and a receiver around the second implementation's SAs: what the tests of ESP send and receive with.

#![allow(dead_code, reason = "each test binary uses its part")]

use cryptonic_wire::esp::{self, Cipher, Ipv6UdpChecksum, Parameters, UdpEncapsulation};
use cryptonic_wire::outer::Endpoints;
use cryptonic_wire::packet::Ports;
use cryptonic_wire::{
    Decapsulated, Geometry, IcvLength, Parsed, Plain, Protocol, Refused, Rejected, Room, UdpPorts,
    esp_transform, parse_receive, parse_transmit,
};

use super::Gcm;
use super::reference::{self, Esp, EspCipher, Ip};

pub const HEADROOM: usize = 96;
pub const TAILROOM: usize = 24;
pub const UDP_PORTS: UdpPorts = UdpPorts { psp: 1000, esp: 4500 };

/// The modes of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Tunnel,
    Transport,
    Beet,
}

pub fn inner_ip(version: u8) -> Ip {
    let (source, destination) =
        if version == 4 { (vec![10, 0, 0, 1], vec![10, 1, 0, 1]) } else { (vec![0xfd; 16], vec![0xfc; 16]) };
    Ip {
        source,
        destination,
        traffic_class: 0xb9,
        hop_limit: 57,
        dont_fragment: false,
        identification: 0x1234,
        flow_label: if version == 4 { 0 } else { 0x5_4321 },
        extra: Vec::new(),
        first_extension: None,
    }
}

pub fn endpoints(ip: &Ip) -> Endpoints {
    if ip.is_v4() {
        Endpoints::V4 {
            source: ip.source[..].try_into().unwrap(),
            destination: ip.destination[..].try_into().unwrap(),
        }
    } else {
        Endpoints::V6 {
            source: ip.source[..].try_into().unwrap(),
            destination: ip.destination[..].try_into().unwrap(),
        }
    }
}

pub fn parameters(esp: &Esp, udp: Option<Ipv6UdpChecksum>) -> Parameters {
    Parameters {
        extended_sequence: esp.esn,
        cipher: match esp.cipher {
            EspCipher::Gcm => Cipher::Gcm,
            EspCipher::ImplicitIv => Cipher::GcmImplicitIv,
            EspCipher::Gmac => Cipher::Gmac,
        },
        icv_length: IcvLength::from_octets(esp.icv_octets).unwrap(),
        udp: udp.map(|ipv6_checksum| UdpEncapsulation {
            ports: Ports { source: 4500, destination: 4500 },
            ipv6_checksum,
        }),
        ..Parameters::new(esp.spi, esp.salt)
    }
}

/// What the second implementation sends: the outer packet around an ESP packet.
pub fn wrapped(ip: &Ip, udp: Option<Ipv6UdpChecksum>, esp: &[u8]) -> Vec<u8> {
    match udp {
        None => ip.packet(50, esp),
        Some(Ipv6UdpChecksum::Computed) if !ip.is_v4() => {
            ip.packet(17, &reference::udp_with_checksum(ip, 4500, 4500, esp))
        }
        Some(_) => ip.packet(17, &reference::udp(4500, 4500, esp)),
    }
}

pub fn storage(frame: &[u8], tailroom: usize) -> Vec<u8> {
    [&[0xee; HEADROOM][..], frame, &vec![0xdd; tailroom]].concat()
}

/// Encapsulates, seals and finishes.
pub fn send(
    frame: &[u8],
    esp: &Esp,
    parameters: &Parameters,
    encapsulate: impl FnOnce(&mut Room<'_>, &Plain) -> Result<Geometry, Refused>,
) -> Result<Vec<u8>, Refused> {
    let mut storage = storage(frame, TAILROOM + usize::from(parameters.tfc_length));
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let plain = parse_transmit(room.frame()).unwrap();
    let geometry = encapsulate(&mut room, &plain)?;
    geometry.seal(&Gcm::new(&esp.key), room.frame_mut()).unwrap();
    esp_transform::finish_outer_checksum(room.frame_mut(), parameters).unwrap();
    Ok(room.frame().to_vec())
}

/// Parses, opens and decapsulates.
pub fn receive(
    frame: &[u8],
    esp: &Esp,
    parameters: &Parameters,
    sequence: u64,
    decapsulate: impl FnOnce(&mut Room<'_>, &Parsed) -> Result<Decapsulated, Rejected>,
) -> Result<(Decapsulated, Vec<u8>), Rejected> {
    let mut storage = storage(frame, 0);
    let mut room = Room::new(&mut storage, HEADROOM, HEADROOM + frame.len()).unwrap();
    let parsed = parse_receive(room.frame(), UDP_PORTS).unwrap();
    assert_eq!((parsed.protocol, parsed.spi), (Protocol::Esp, esp.spi));
    assert_eq!(parsed.sequence, sequence as u32);
    // Without ESN the number that is handed in does not matter, the packet's own does.
    let handed_in = if parameters.extended_sequence { sequence } else { !sequence };
    let geometry = esp::receive_geometry(&parsed, room.frame(), parameters, handed_in).unwrap();
    geometry.open(&Gcm::new(&esp.key), room.frame_mut()).unwrap();
    let opened = decapsulate(&mut room, &parsed)?;
    Ok((opened, room.frame().to_vec()))
}
