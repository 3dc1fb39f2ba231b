//! SA files of both ends, and what they protect opened by ring, which nothing of the NIC uses.

use std::collections::HashMap;
use std::fmt::Write;

use etherparse::{Ipv4Header, UdpHeader};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::host::addresses;
use crate::textbook::gcm_seal;

/// What an SA pair is like.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub name: &'static str,
    /// The outer addresses of left and right; none is transport mode.
    pub outer: Option<[&'static str; 2]>,
    pub key_bytes: usize,
    pub esn: bool,
    /// Last sequence number used.
    pub sequence: u64,
    pub udp: bool,
}

pub const OUTER_4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub const OUTER_6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];
pub const TUNNEL: Form =
    Form { name: "tunnel", outer: Some(OUTER_4), key_bytes: 16, esn: false, sequence: 0, udp: false };

/// The SPI of what `side` sends in a generation, by family: in tunnel mode both take the one of IPv4.
pub fn spi(side: usize, generation: u32, family: usize) -> u32 {
    0x1000 * (side as u32 + 1) + 0x100 * family as u32 + generation
}

fn key(spi: u32, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|place| (spi >> 8) as u8 ^ (spi as u8).wrapping_mul(29) ^ (place as u8).wrapping_mul(113))
        .collect()
}

fn salt(spi: u32) -> [u8; 4] {
    (!spi).to_be_bytes()
}

impl Form {
    pub fn is_transport(&self) -> bool {
        self.outer.is_none()
    }

    fn families(&self) -> &'static [usize] {
        if self.is_transport() { &[0, 1] } else { &[0] }
    }

    /// One `[[sa]]` of `side`'s file, for what `sender` sends.
    fn sa(&self, side: usize, sender: usize, generation: u32, family: usize) -> String {
        let spi = spi(sender, generation, family);
        let direction = if side == sender { "out" } else { "in" };
        let mode = if self.is_transport() { "transport" } else { "tunnel" };
        let mut text = format!(
            "[[sa]]\nname = \"{direction}-{spi:x}\"\ndirection = \"{direction}\"\nprotocol = \"esp\"\nmode = \"{mode}\"\n\
             spi = {spi:#x}\ncipher = \"aes-gcm-{}\"\nkey = \"{}\"\nsalt = \"{}\"\nesn = {}\nsequence = {}\n",
            self.key_bytes * 8,
            hex::encode(key(spi, self.key_bytes)),
            hex::encode(salt(spi)),
            self.esn,
            self.sequence
        );
        if let Some(outer) = self.outer {
            let _ =
                writeln!(text, "tunnel = {{ src = \"{}\", dst = \"{}\" }}", outer[sender], outer[1 - sender]);
        } else {
            let host = |side: usize| addresses(9, side as u8 + 1)[family];
            let _ =
                writeln!(text, "selector = {{ src = \"{}\", dst = \"{}\" }}", host(sender), host(1 - sender));
        }
        if self.udp {
            text.push_str("udp_encap = { src_port = 4500, dst_port = 4500 }\n");
        }
        text.push('\n');
        text
    }

    /// The file of `side`, which sends by one generation and opens several.
    pub fn file(&self, side: usize, out: u32, opens: &[u32]) -> String {
        let mut text = "default = \"drop\"\n\n".to_owned();
        for family in self.families() {
            text.push_str(&self.sa(side, side, out, *family));
            opens.iter().for_each(|generation| text.push_str(&self.sa(side, 1 - side, *generation, *family)));
        }
        text
    }
}

/// Opens ESP packets in the order in which they were sent.
pub struct Witness {
    form: Form,
    /// The last sequence number of each SPI.
    last: HashMap<u32, u64>,
}

/// What a packet held: the whole inner packet, or next header and upper-layer packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Held {
    Tunnel(Vec<u8>),
    Transport(u8, Vec<u8>),
}

impl Witness {
    pub fn new(form: Form) -> Witness {
        Witness { form, last: HashMap::new() }
    }

    /// The SPIs it met, with their last sequence numbers.
    pub fn met(&self) -> &HashMap<u32, u64> {
        &self.last
    }

    /// None for what is no ESP but ARP or neighbour discovery. Nothing else may be on the wire.
    pub fn open(&mut self, frame: &[u8]) -> Option<Held> {
        let (mut protocol, mut rest) = match frame[12..14] {
            [0x08, 0x06] => return None,
            [0x08, 0x00] => {
                assert_eq!(frame[14], 0x45);
                let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
                (frame[23], &frame[34..14 + length])
            }
            [0x86, 0xdd] => {
                let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
                (frame[20], &frame[54..54 + length])
            }
            _ => panic!("neither IP nor ARP: {frame:02x?}"),
        };
        if protocol == 58 && matches!(rest[0], 135 | 136) {
            return None;
        }
        assert_eq!(protocol == 17, self.form.udp, "in UDP or not: {frame:02x?}");
        if protocol == 17 {
            assert_eq!(rest[..4], [0x11, 0x94, 0x11, 0x94], "ports 4500");
            assert_eq!(usize::from(u16::from_be_bytes([rest[4], rest[5]])), rest.len());
            // RFC 3948 2.1, RFC 8200 8.1
            let (udp, payload) = UdpHeader::from_slice(rest).expect("a header");
            let checksum = match frame[12] {
                0x08 => 0,
                _ => {
                    let [source, destination] =
                        [22, 38].map(|at| frame[at..at + 16].try_into().expect("an address"));
                    udp.calc_checksum_ipv6_raw(source, destination, payload).expect("a length")
                }
            };
            assert_eq!(udp.checksum, checksum, "the checksum of {frame:02x?}");
            (protocol, rest) = (50, &rest[8..]);
        }
        assert_eq!(protocol, 50, "in clear: {frame:02x?}");
        let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().expect("four octets"));
        let spi = word(0);
        let last = self.last.entry(spi).or_insert(self.form.sequence);
        *last += 1;
        let sequence = *last;
        assert_eq!(word(4), sequence as u32, "numbers of {spi:#x} follow one another");
        let mut aad = spi.to_be_bytes().to_vec();
        if self.form.esn {
            aad.extend(sequence.to_be_bytes());
        } else {
            aad.extend((sequence as u32).to_be_bytes());
        }
        let nonce: Vec<u8> = salt(spi).into_iter().chain(rest[8..16].iter().copied()).collect();
        let algorithm = if self.form.key_bytes == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key =
            LessSafeKey::new(UnboundKey::new(algorithm, &key(spi, self.form.key_bytes)).expect("a key"));
        let mut sealed = rest[16..].to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce.try_into().expect("12 octets"));
        let opened = key.open_in_place(nonce, Aad::from(aad), &mut sealed).expect("the ICV is right");
        // RFC 4303 2.4: pad length, next header; the padding counts from 1.
        let (text, trailer) = opened.split_at(opened.len() - 2);
        let (text, padding) = text.split_at(text.len() - usize::from(trailer[0]));
        assert!(padding.iter().zip(1..).all(|(byte, number)| *byte == number));
        Some(if self.form.is_transport() {
            Held::Transport(trailer[1], text.to_vec())
        } else {
            assert_eq!(trailer[1], if text[0] >> 4 == 4 { 4 } else { 41 });
            Held::Tunnel(text.to_vec())
        })
    }
}

/// What a packet of a host should be found as: a tunnel's gateway is a router, and counts its hops.
pub fn held(form: &Form, packet: &[u8]) -> Held {
    if !form.is_transport() {
        return Held::Tunnel(one_hop_on(packet));
    }
    if packet[0] >> 4 == 4 {
        Held::Transport(packet[9], packet[usize::from(packet[0] & 0xf) * 4..].to_vec())
    } else {
        Held::Transport(packet[6], packet[40..].to_vec())
    }
}

fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    let (mut header, payload) = Ipv4Header::from_slice(&packet).expect("a header");
    header.time_to_live -= 1;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// TTL or hop limit of a packet.
pub fn hops(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[8] } else { packet[7] }
}

/// A packet in a frame of [`TUNNEL`], as `sender` protects it.
pub fn sealed(sender: usize, sequence: u32, inner: &[u8]) -> Vec<u8> {
    let spi = spi(sender, 1, 0);
    let padding: Vec<u8> = (1..).take((4 - (inner.len() + 2) % 4) % 4).collect();
    let next_header = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let text = [inner, &padding, &[padding.len() as u8, next_header]].concat();
    let header = [spi.to_be_bytes(), sequence.to_be_bytes()].concat();
    let iv = u64::from(sequence).to_be_bytes();
    let nonce = [&salt(spi)[..], &iv].concat().try_into().expect("12 octets");
    let (text, icv) = gcm_seal(&key(spi, TUNNEL.key_bytes), &nonce, &header, &text);
    let octets = |side: usize| OUTER_4[side].parse::<std::net::Ipv4Addr>().expect("an address").octets();
    let mac = |side: usize| [&[2, 1][..], &octets(side)].concat().try_into().expect("six octets");
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(mac(sender), mac(1 - sender));
    let builder = builder.ipv4(octets(sender), octets(1 - sender), 64);
    let packet = [&header[..], &iv, &text, &icv].concat();
    builder.write(&mut frame, etherparse::IpNumber(50), &packet).expect("a frame");
    frame
}
