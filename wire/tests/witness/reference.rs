//! A second implementation of the packet formats, written from the documents alone and sharing nothing with the crate:
//! octets are appended to a `Vec` in the order in which the documents draw them, and the cipher gets copies.
//!
//! RFC 4303 (ESP), RFC 4106 (AES-GCM), RFC 4543 (AES-GMAC), RFC 8750 (implicit IV), RFC 3948 (UDP), RFC 7402 appendix B
//! (BEET), PSP Architecture Specification of 17 November 2022.

#![allow(dead_code, reason = "each test binary uses its part")]

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};

/// Ciphertext and tag.
pub fn gcm(key: &[u8], nonce: &[u8], aad: &[u8], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut out = text.to_vec();
    let nonce: [u8; 12] = nonce.try_into().unwrap();
    let nonce = (&nonce).into();
    let buffer = out.as_mut_slice();
    let tag: [u8; 16] = match key.len() {
        16 => Aes128Gcm::new_from_slice(key).unwrap().encrypt_inout_detached(nonce, aad, buffer.into()),
        24 => AesGcm::<aes::Aes192, U12>::new_from_slice(key).unwrap().encrypt_inout_detached(
            nonce,
            aad,
            buffer.into(),
        ),
        _ => Aes256Gcm::new_from_slice(key).unwrap().encrypt_inout_detached(nonce, aad, buffer.into()),
    }
    .unwrap()
    .into();
    (out, tag.to_vec())
}

/// RFC 1071, word by word.
pub fn internet_checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for index in (0..octets.len()).step_by(2) {
        let low = if index + 1 < octets.len() { octets[index + 1] } else { 0 };
        sum += u32::from(octets[index]) * 256 + u32::from(low);
    }
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    0xffff - sum as u16
}

/// An IP header. Addresses have 4 or 16 octets, and so say the family.
#[derive(Clone, Debug)]
pub struct Ip {
    pub source: Vec<u8>,
    pub destination: Vec<u8>,
    pub traffic_class: u8,
    pub hop_limit: u8,
    pub dont_fragment: bool,
    pub identification: u16,
    pub flow_label: u32,
    /// IPv4 options; for IPv6 extension headers, the first of which has the given number.
    pub extra: Vec<u8>,
    pub first_extension: Option<u8>,
}

impl Ip {
    pub fn is_v4(&self) -> bool {
        self.source.len() == 4
    }

    /// The header before a payload of the given protocol. IPv6 extension headers must already name it.
    pub fn header(&self, protocol: u8, payload_length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_v4() {
            let header_length = 20 + self.extra.len();
            out.push(0x40 + (header_length / 4) as u8);
            out.push(self.traffic_class);
            out.extend(((header_length + payload_length) as u16).to_be_bytes());
            out.extend(self.identification.to_be_bytes());
            out.extend(if self.dont_fragment { [0x40, 0] } else { [0, 0] });
            out.push(self.hop_limit);
            out.push(protocol);
            out.extend([0, 0]);
            out.extend(&self.source);
            out.extend(&self.destination);
            out.extend(&self.extra);
            let sum = internet_checksum(&out);
            out[10] = (sum >> 8) as u8;
            out[11] = sum as u8;
        } else {
            let word = 0x6000_0000 + (u32::from(self.traffic_class) << 20) + self.flow_label;
            out.extend(word.to_be_bytes());
            out.extend(((self.extra.len() + payload_length) as u16).to_be_bytes());
            out.push(self.first_extension.unwrap_or(protocol));
            out.push(self.hop_limit);
            out.extend(&self.source);
            out.extend(&self.destination);
            out.extend(&self.extra);
        }
        out
    }

    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        [self.header(protocol, payload.len()), payload.to_vec()].concat()
    }

    /// The checksum of a UDP or TCP payload with its checksum field zero (RFC 768; RFC 8200, 8.1).
    pub fn transport_checksum(&self, protocol: u8, payload: &[u8]) -> u16 {
        let mut pseudo = [&self.source[..], &self.destination].concat();
        if self.is_v4() {
            pseudo.extend([0, protocol]);
            pseudo.extend((payload.len() as u16).to_be_bytes());
        } else {
            pseudo.extend((payload.len() as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, protocol]);
        }
        pseudo.extend(payload);
        internet_checksum(&pseudo)
    }
}

/// Link header with tags before an IP packet.
pub fn frame(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (protocol, control) in tags {
        out.extend(protocol.to_be_bytes());
        out.extend(control.to_be_bytes());
    }
    out.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    out.extend(packet);
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EspCipher {
    Gcm,
    ImplicitIv,
    Gmac,
}

#[derive(Clone, Debug)]
pub struct Esp {
    pub key: Vec<u8>,
    pub salt: [u8; 4],
    pub spi: u32,
    pub esn: bool,
    pub cipher: EspCipher,
    pub icv_octets: usize,
}

impl Esp {
    /// An ESP packet from SPI to ICV. The explicit IV is the 64-bit sequence number.
    pub fn packet(&self, sequence: u64, payload: &[u8], next_header: u8) -> Vec<u8> {
        let high = ((sequence >> 32) as u32).to_be_bytes();
        let low = (sequence as u32).to_be_bytes();
        let iv = sequence.to_be_bytes();
        let spi = self.spi.to_be_bytes();

        let mut body = payload.to_vec();
        let mut padding = 0u8;
        while !(body.len() + 2).is_multiple_of(4) {
            padding += 1;
            body.push(padding);
        }
        body.push(padding);
        body.push(next_header);

        let mut nonce = self.salt.to_vec();
        if self.cipher == EspCipher::ImplicitIv && !self.esn {
            nonce.extend([0; 4]);
            nonce.extend(low);
        } else {
            nonce.extend(iv);
        }
        let mut aad = spi.to_vec();
        if self.esn {
            aad.extend(high);
        }
        aad.extend(low);

        let mut out = [spi, low].concat();
        if self.cipher != EspCipher::ImplicitIv {
            out.extend(iv);
        }
        let (body, tag) = if self.cipher == EspCipher::Gmac {
            aad.extend(iv);
            aad.extend(&body);
            let (_, tag) = gcm(&self.key, &nonce, &aad, &[]);
            (body, tag)
        } else {
            gcm(&self.key, &nonce, &aad, &body)
        };
        out.extend(body);
        out.extend(&tag[..self.icv_octets]);
        out
    }
}

/// A UDP datagram with checksum zero.
pub fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = source_port.to_be_bytes().to_vec();
    out.extend(destination_port.to_be_bytes());
    out.extend(((payload.len() + 8) as u16).to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

/// The same with the checksum of an IP header.
pub fn udp_with_checksum(ip: &Ip, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = udp(source_port, destination_port, payload);
    let sum = ip.transport_checksum(17, &out);
    let sum = if sum == 0 { 0xffff } else { sum };
    out[6..8].copy_from_slice(&sum.to_be_bytes());
    out
}

#[derive(Clone, Debug)]
pub struct Psp {
    pub key: Vec<u8>,
    pub spi: u32,
    pub version: u8,
    pub crypt_offset: u8,
    pub reserved: u8,
    pub sample: bool,
    pub drop: bool,
    pub cookie: Option<[u8; 8]>,
    pub extension: Vec<u8>,
}

impl Psp {
    /// Header, cookie and extension in clear.
    pub fn header(&self, next_header: u8, iv: u64) -> Vec<u8> {
        let behind_the_iv =
            [self.cookie.map_or(Vec::new(), |cookie| cookie.to_vec()), self.extension.clone()].concat();
        let mut flags = 1;
        flags += 2 * u8::from(self.cookie.is_some());
        flags += 4 * self.version;
        flags += 64 * u8::from(self.drop);
        flags += 128 * u8::from(self.sample);
        let units = (16 + behind_the_iv.len() - 8) / 8;
        let mut out = vec![next_header, units as u8, 64 * self.reserved + self.crypt_offset, flags];
        out.extend(self.spi.to_be_bytes());
        out.extend(iv.to_be_bytes());
        out.extend(behind_the_iv);
        out
    }

    /// A PSP packet from header to ICV.
    pub fn packet(&self, iv: u64, payload: &[u8], next_header: u8) -> Vec<u8> {
        let clear = [self.header(next_header, iv), payload.to_vec()].concat();
        let nonce = clear[4..16].to_vec();
        // Versions 2 and 3 authenticate all and encrypt nothing.
        let split = if self.version >= 2 { clear.len() } else { 16 + 4 * usize::from(self.crypt_offset) };
        let (aad, text) = clear.split_at(split);
        let (ciphertext, tag) = gcm(&self.key, &nonce, aad, text);
        [aad, &ciphertext, &tag].concat()
    }
}
