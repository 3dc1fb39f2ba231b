//! What must be on the wire, laid out from the standards' own words with nothing of ours: each packet is put
//! together from its parts, none is parsed, and the cipher is that of the textbook.

use crate::textbook::{cmac_of_a_block, gcm_seal};

/// An IP packet in its parts.
#[derive(Clone, Debug)]
pub struct Packet {
    /// MAC addresses and VLAN tags: what stands before the EtherType.
    pub link: Vec<u8>,
    /// 4 or 16 bytes each, of one family.
    pub source: Vec<u8>,
    pub destination: Vec<u8>,
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub ttl: u8,
    /// IPv4: identification, and the flag.
    pub identification: u16,
    pub dont_fragment: bool,
    /// IPv4: options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6.
    pub flow_label: u32,
    /// IPv6: extension headers, each its number and its bytes, whose first names what follows and is set here.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// What follows the headers, and its number.
    pub protocol: u8,
    pub upper: Vec<u8>,
}

/// Destination options (RFC 8200 4.6).
pub const DESTINATION_OPTIONS: u8 = 60;

impl Packet {
    pub fn is_ipv4(&self) -> bool {
        self.source.len() == 4
    }

    /// The IP packet (RFC 791 3.1, RFC 8200 3).
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        if self.is_ipv4() {
            let header_bytes = 20 + self.options.len();
            packet.extend([0x40 | (header_bytes / 4) as u8, self.traffic_class]);
            packet.extend(((header_bytes + self.upper.len()) as u16).to_be_bytes());
            packet.extend(self.identification.to_be_bytes());
            packet.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, self.protocol, 0, 0]);
            packet.extend(&self.source);
            packet.extend(&self.destination);
            packet.extend(&self.options);
            let checksum = internet_checksum(&packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let mut rest = Vec::new();
            let mut first = self.protocol;
            for (number, bytes) in self.extensions.iter().rev() {
                let mut header = bytes.clone();
                header[0] = std::mem::replace(&mut first, *number);
                rest.splice(0..0, header);
            }
            let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
            packet.extend(word.to_be_bytes());
            packet.extend(((rest.len() + self.upper.len()) as u16).to_be_bytes());
            packet.extend([first, self.ttl]);
            packet.extend(&self.source);
            packet.extend(&self.destination);
            packet.extend(rest);
        }
        packet.extend(&self.upper);
        packet
    }

    /// The Ethernet frame without FCS, unpadded.
    pub fn frame(&self) -> Vec<u8> {
        let ethertype: u16 = if self.is_ipv4() { 0x0800 } else { 0x86dd };
        [self.link.clone(), ethertype.to_be_bytes().to_vec(), self.packet()].concat()
    }

    /// Another upper protocol behind the same headers.
    fn carrying(&self, protocol: u8, upper: Vec<u8>) -> Packet {
        Packet { protocol, upper, ..self.clone() }
    }
}

/// RFC 1071.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of TCP or UDP, with its pseudo header (RFC 9293 3.1, RFC 768, RFC 8200 8.1). The field in `upper` is 0.
pub fn upper_checksum(source: &[u8], destination: &[u8], protocol: u8, upper: &[u8]) -> u16 {
    let mut bytes = [source, destination].concat();
    bytes.extend((upper.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(upper);
    internet_checksum(&bytes)
}

/// Where the outer fields of a tunnel come from (RFC 4301 5.1.2, RFC 6040, RFC 6438).
#[derive(Clone, Debug)]
pub struct Outer {
    pub source: Vec<u8>,
    pub destination: Vec<u8>,
    /// `None` copies.
    pub ttl: Option<u8>,
    pub dscp: Option<u8>,
    pub dont_fragment: Option<bool>,
    /// RFC 6040 compatibility mode: not ECN-capable.
    pub ecn_compatibility: bool,
    /// `None` copies that of an inner IPv6 packet.
    pub flow_label: Option<u32>,
}

impl Outer {
    fn around(&self, inner: &Packet, protocol: u8, upper: Vec<u8>) -> Packet {
        let ecn = if self.ecn_compatibility { 0 } else { inner.traffic_class & 3 };
        Packet {
            link: inner.link.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            traffic_class: self.dscp.map_or(inner.traffic_class & !3, |dscp| dscp << 2) | ecn,
            ttl: self.ttl.unwrap_or(inner.ttl),
            identification: 0,
            // What is IPv6 inside is never fragmented by routers.
            dont_fragment: self.dont_fragment.unwrap_or(inner.dont_fragment || !inner.is_ipv4()),
            options: Vec::new(),
            flow_label: self.flow_label.unwrap_or(inner.flow_label),
            extensions: Vec::new(),
            protocol,
            upper,
        }
    }
}

/// The mode of a protected packet.
#[derive(Clone, Debug)]
pub enum Mode {
    Transport,
    Tunnel(Outer),
    /// The ends of the tunnel; the inner addresses are those of the packet (RFC 7402 appendix B).
    Beet {
        source: Vec<u8>,
        destination: Vec<u8>,
    },
}

/// An ESP SA.
#[derive(Clone, Debug)]
pub struct Esp {
    pub key: Vec<u8>,
    pub salt: [u8; 4],
    pub spi: u32,
    /// AES-GMAC (RFC 4543) in place of AES-GCM (RFC 4106).
    pub gmac: bool,
    pub icv_bytes: usize,
    /// RFC 8750.
    pub implicit_iv: bool,
    pub extended_sequence: bool,
    /// RFC 3948: source and destination port, and whether the checksum is computed.
    pub udp: Option<(u16, u16, bool)>,
    /// Inner packets are padded to this many bytes (RFC 4303 2.7).
    pub tfc_bytes: usize,
    /// Transport mode: the destination options are protected (RFC 4303 3.1.1).
    pub protect_destination_options: bool,
    pub mode: Mode,
}

impl Esp {
    /// The frame of `inner` with a sequence number.
    pub fn protect(&self, inner: &Packet, sequence: u64) -> Vec<u8> {
        let (carrier, next_header, payload) = match &self.mode {
            Mode::Tunnel(outer) => {
                let mut payload = inner.packet();
                payload.resize(payload.len().max(self.tfc_bytes), 0);
                (outer.around(inner, 0, vec![]), if inner.is_ipv4() { 4 } else { 41 }, payload)
            }
            Mode::Transport => {
                let mut carrier = inner.clone();
                let (mut next_header, mut payload) = (inner.protocol, inner.upper.clone());
                if self.protect_destination_options
                    && carrier.extensions.last().is_some_and(|(number, _)| *number == DESTINATION_OPTIONS)
                    && let Some((number, mut bytes)) = carrier.extensions.pop()
                {
                    bytes[0] = std::mem::replace(&mut next_header, number);
                    payload.splice(0..0, bytes);
                }
                (carrier, next_header, payload)
            }
            Mode::Beet { source, destination } => {
                // Fields that both headers have are carried over, as Linux does (xfrm_inout.h).
                let one_family = source.len() == inner.source.len();
                let carrier = Packet {
                    source: source.clone(),
                    destination: destination.clone(),
                    identification: if one_family { inner.identification } else { 0 },
                    flow_label: if one_family { inner.flow_label } else { 0 },
                    ..inner.clone()
                };
                (carrier, inner.protocol, inner.upper.clone())
            }
        };
        self.wrap(&carrier, next_header, payload, sequence)
    }

    /// The frame of `inner` as a dummy packet in tunnel mode (RFC 4303 2.6).
    pub fn protect_dummy(&self, inner: &Packet, sequence: u64) -> Vec<u8> {
        let Mode::Tunnel(outer) = &self.mode else { panic!("dummy packets are made in tunnel mode") };
        let mut payload = inner.packet();
        payload.resize(payload.len().max(self.tfc_bytes), 0);
        self.wrap(&outer.around(inner, 0, vec![]), 59, payload, sequence)
    }

    /// ESP around a payload, and what carries it around that.
    fn wrap(&self, carrier: &Packet, next_header: u8, payload: Vec<u8>, sequence: u64) -> Vec<u8> {
        let esp = self.seal(next_header, payload, sequence);
        let Some((source_port, destination_port, with_checksum)) = self.udp else {
            return carrier.carrying(50, esp).frame();
        };
        let datagram = udp_datagram(carrier, source_port, destination_port, with_checksum, &esp);
        carrier.carrying(17, datagram).frame()
    }

    /// RFC 4303 2, RFC 4106 and RFC 4543.
    fn seal(&self, next_header: u8, payload: Vec<u8>, sequence: u64) -> Vec<u8> {
        let spi = self.spi.to_be_bytes();
        let low_half = (sequence as u32).to_be_bytes();
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&sequence.to_be_bytes());
        let iv = if self.implicit_iv { vec![] } else { sequence.to_be_bytes().to_vec() };

        let mut text = payload;
        let padding = (4 - (text.len() + 2) % 4) % 4;
        text.extend((1..=padding).map(|octet| octet as u8));
        text.extend([padding as u8, next_header]);

        let mut aad = spi.to_vec();
        if self.extended_sequence {
            aad.extend(((sequence >> 32) as u32).to_be_bytes());
        }
        aad.extend(low_half);
        let (text, icv) = if self.gmac {
            aad.extend(&iv);
            aad.extend(&text);
            let (_, icv) = gcm_seal(&self.key, &nonce, &aad, &[]);
            (text, icv)
        } else {
            gcm_seal(&self.key, &nonce, &aad, &text)
        };
        [&spi[..], &low_half, &iv, &text, &icv[..self.icv_bytes]].concat()
    }
}

/// RFC 768.
fn udp_datagram(
    carrier: &Packet,
    source: u16,
    destination: u16,
    with_checksum: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    if with_checksum {
        let checksum = upper_checksum(&carrier.source, &carrier.destination, 17, &datagram);
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
    datagram
}

/// How a PSP packet is protected (PSP Architecture Specification, "PSP Packet Format").
#[derive(Clone, Debug)]
pub struct Psp {
    pub key: Vec<u8>,
    pub spi: u32,
    /// 0 and 1 are AES-GCM, 2 and 3 AES-GMAC.
    pub version: u8,
    /// In units of 4 bytes, from the end of the IV.
    pub crypt_offset: usize,
    pub sample: bool,
    pub drop: bool,
    pub cookie: Option<[u8; 8]>,
    /// Header octets behind the cookie, a multiple of 8.
    pub extension: Vec<u8>,
    pub source_port: u16,
    pub destination_port: u16,
    /// Transport or tunnel.
    pub mode: Mode,
}

impl Psp {
    /// The frame of `inner` with an IV.
    pub fn protect(&self, inner: &Packet, iv: u64) -> Vec<u8> {
        let (carrier, next_header, payload) = self.carried(inner);
        let psp = self.seal(next_header, &payload, iv);
        let datagram = udp_datagram(&carrier, self.source_port, self.destination_port, false, &psp);
        carrier.carrying(17, datagram).frame()
    }

    /// The frame of `inner` as a host pre-formats it: no ICV yet, SPI and IV 0, and lengths without the ICV.
    pub fn preformatted(&self, inner: &Packet) -> Vec<u8> {
        let (carrier, next_header, payload) = self.carried(inner);
        let mut psp = Psp { spi: 0, ..self.clone() }.header(next_header, 0);
        psp.extend(payload);
        let datagram = udp_datagram(&carrier, self.source_port, self.destination_port, false, &psp);
        carrier.carrying(17, datagram).frame()
    }

    /// What carries the PSP packet, and what it carries.
    fn carried(&self, inner: &Packet) -> (Packet, u8, Vec<u8>) {
        match &self.mode {
            Mode::Tunnel(outer) => {
                (outer.around(inner, 0, vec![]), if inner.is_ipv4() { 4 } else { 41 }, inner.packet())
            }
            _ => (inner.clone(), inner.protocol, inner.upper.clone()),
        }
    }

    /// Header, payload and ICV.
    fn seal(&self, next_header: u8, payload: &[u8], iv: u64) -> Vec<u8> {
        let mut packet = self.header(next_header, iv);
        let nonce: [u8; 12] = packet[4..16].try_into().expect("12 bytes");
        packet.extend(payload);
        // With AES-GMAC nothing is encrypted.
        let clear = if self.version < 2 { 16 + 4 * self.crypt_offset } else { packet.len() };
        let (aad, text) = packet.split_at(clear);
        let (ciphertext, icv) = gcm_seal(&self.key, &nonce, aad, text);
        [aad, &ciphertext, &icv].concat()
    }

    /// Header with cookie and extension.
    fn header(&self, next_header: u8, iv: u64) -> Vec<u8> {
        let behind_the_iv =
            [self.cookie.map_or(vec![], |cookie| cookie.to_vec()), self.extension.clone()].concat();
        let flags = u8::from(self.sample) << 7
            | u8::from(self.drop) << 6
            | self.version << 2
            | u8::from(self.cookie.is_some()) << 1
            | 1;
        let mut packet =
            vec![next_header, 1 + (behind_the_iv.len() / 8) as u8, self.crypt_offset as u8, flags];
        packet.extend(self.spi.to_be_bytes());
        packet.extend(iv.to_be_bytes());
        packet.extend(behind_the_iv);
        packet
    }
}

/// The key of an SPI (PSP Architecture Specification, "Key Derivation"; the label of versions 2 and 3 is the rule that
/// the text gives for 0 and 1, carried on).
pub fn psp_key(device_keys: &[[u8; 32]; 2], spi: u32, version: u8) -> Vec<u8> {
    let bits: u32 = if version.is_multiple_of(2) { 128 } else { 256 };
    let device_key = &device_keys[(spi >> 31) as usize];
    (1..=bits / 128)
        .flat_map(|counter| {
            let label = [0x50, 0x76, 0x30 | version, 0x00];
            let block = [counter.to_be_bytes(), label, spi.to_be_bytes(), bits.to_be_bytes()].concat();
            cmac_of_a_block(device_key, block.try_into().expect("16 bytes"))
        })
        .collect()
}
