//! Segmentation and checksums: what the device does to a frame before it protects it.

use cryptonic_driver::{
    Cipher, Direction, Mode, Offload, OuterHeader, Protection, PspSaConfiguration, SaConfiguration,
    SecretKey, SourcePort,
};

use crate::bench::Backend;
use crate::esp::{address, assert_same, ends, outer};
use crate::packets::{self, SHAPES, Shape, TCP, UDP};
use crate::rig::{FORMATS, Rig};
use crate::witness::{self, Packet, upper_checksum};
use crate::{Trials, trial};

const TCP_HEADER_BYTES: usize = 20;
const IP_PACKET_BYTES_MAX: usize = 65_535;
/// As much payload as an IP packet holds.
const LONGEST: usize = usize::MAX;
/// FIN and PSH belong to the last segment, CWR to the first, the others to all (RFC 9293 3.1, RFC 3168 6.1.2).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

#[derive(Clone, Copy, Debug)]
enum How {
    Clear,
    EspTunnel,
    EspTransport,
    PspTunnel,
    PspTransport,
}

/// The cases of the table.
pub fn trials(trials: &mut Trials, backend: Backend) {
    for how in [How::Clear, How::EspTunnel, How::EspTransport, How::PspTunnel, How::PspTransport] {
        for ipv6 in [false, true] {
            let family = if ipv6 { "v6" } else { "v4" };
            let name = format!("segments of TCP, {how:?} {family}");
            trials.push(trial(backend, name, move || segments(backend, how, ipv6)));
            let name = format!("checksums, {how:?} {family}");
            trials.push(trial(backend, name, move || checksums(backend, how, ipv6)));
        }
    }
}

/// The frame of a packet, which is the n-th of its case, from 1 on.
type Expect = Box<dyn Fn(&Packet, u64) -> Vec<u8>>;

/// What protects, and what the witness makes of the packets in their order.
struct Protected {
    protection: Protection,
    witness: Expect,
}

fn protected(rig: &mut Rig, how: How, ipv6: bool) -> Protected {
    let (source, destination) = ends(ipv6);
    let header = || OuterHeader::new(address(&source), address(&destination));
    let key = [0x77; 16];
    let secret = SecretKey::new(&key).expect("a key");
    let tunnel = matches!(how, How::EspTunnel | How::PspTunnel);
    let (mode, witness_mode) = if tunnel {
        (Mode::Tunnel, witness::Mode::Tunnel(outer(ipv6)))
    } else {
        (Mode::Transport, witness::Mode::Transport)
    };
    match how {
        How::Clear => {
            Protected { protection: Protection::Clear, witness: Box::new(|packet, _| packet.frame()) }
        }
        How::EspTunnel | How::EspTransport => {
            // The low half of the sequence number wraps in the midst of the segments.
            let start = 0x1_ffff_fffb;
            let sa = SaConfiguration {
                esn: true,
                sequence: start,
                outer: tunnel.then(header),
                ..SaConfiguration::new(Direction::Out, mode, Cipher::AesGcm128, secret, [9, 8, 7, 6], 0x2222)
            };
            let handle = rig.sender.install_sa(sa).expect("a slot");
            let sa = witness::Esp {
                key: key.to_vec(),
                salt: [9, 8, 7, 6],
                spi: 0x2222,
                gmac: false,
                icv_bytes: 16,
                implicit_iv: false,
                extended_sequence: true,
                udp: None,
                tfc_bytes: 0,
                protect_destination_options: false,
                mode: witness_mode,
            };
            Protected {
                protection: Protection::Sa(handle),
                witness: Box::new(move |packet, number| sa.protect(packet, start + number)),
            }
        }
        How::PspTunnel | How::PspTransport => {
            rig.sender.psp_test_iv_load(1).expect("IVs begin at 1");
            let sa = PspSaConfiguration {
                mode,
                outer: tunnel.then(header),
                crypt_offset: 1,
                source_port: SourcePort::Fixed(0xc123),
                ..PspSaConfiguration::new(0, secret, 0x1234_5678)
            };
            let handle = rig.sender.install_psp_sa(sa).expect("a slot");
            let sa = witness::Psp {
                key: key.to_vec(),
                spi: 0x1234_5678,
                version: 0,
                crypt_offset: 1,
                sample: false,
                drop: false,
                cookie: None,
                extension: vec![],
                source_port: 0xc123,
                destination_port: 1000,
                mode: witness_mode,
            };
            Protected {
                protection: Protection::Sa(handle),
                witness: Box::new(move |packet, number| sa.protect(packet, number)),
            }
        }
    }
}

/// Given a TCP packet with more payload than a segment may have, when the device cuts it, then each segment is the
/// packet that TCP itself would have sent, protected by itself.
fn segments(backend: Backend, how: How, ipv6: bool) {
    let mut rig = Rig::on(backend, &FORMATS);
    let protected = protected(&mut rig, how, ipv6);
    let mut number = 0;
    for (turn, (payload_bytes, maximum)) in [
        (1, 1),
        (1, 100),
        (100, 100),
        (101, 100),
        (3000, 1448),
        (20_000, 536),
        (8_948, 8_948),
        (64_000, 1_448),
        (LONGEST, 8_900),
        (LONGEST, 536),
    ]
    .into_iter()
    .enumerate()
    {
        let shape = SHAPES[turn % SHAPES.len()];
        let headers = packets::packet(ipv6, shape, TCP, TCP_HEADER_BYTES).packet().len();
        let payload_bytes = payload_bytes.min(IP_PACKET_BYTES_MAX - headers);
        let mut large = packets::packet(ipv6, shape, TCP, TCP_HEADER_BYTES + payload_bytes);
        large.upper[13] = FIN | PSH | ACK | CWR;
        // The sequence number wraps, in the midst of longer packets.
        large.upper[4..8].copy_from_slice(&0xffff_f000_u32.to_be_bytes());
        let format = turn % FORMATS.len();
        let frames: Vec<Vec<u8>> = cut(&large, maximum)
            .iter()
            .map(|segment| {
                number += 1;
                (protected.witness)(segment, number)
            })
            .collect();
        let at =
            format!("{payload_bytes} bytes by {maximum}, {shape:?}, descriptor {}", FORMATS[format].name);
        let offload = Offload::NONE.segments(maximum as u16).l4_checksum().ip_checksum();
        let sent = rig.send_many(format, &large.frame(), protected.protection, offload);
        let sent = sent.unwrap_or_else(|status| panic!("{at}: not sent, {}", status.name()));
        assert_eq!(sent.len(), frames.len(), "{at}: segments");
        for (index, (sent, expected)) in sent.into_iter().zip(&frames).enumerate() {
            assert_same(&Ok(sent), expected, &format!("{at}, segment {index}"));
        }
    }
}

/// The segments of a TCP packet (RFC 9293 3.1).
fn cut(large: &Packet, maximum: usize) -> Vec<Packet> {
    let (header, payload) = large.upper.split_at(TCP_HEADER_BYTES);
    let sequence = u32::from_be_bytes(header[4..8].try_into().expect("4 bytes"));
    let count = payload.len().div_ceil(maximum);
    payload
        .chunks(maximum)
        .enumerate()
        .map(|(index, part)| {
            let mut segment = large.clone();
            segment.identification = large.identification.wrapping_add(index as u16);
            let mut upper = header.to_vec();
            let number = sequence.wrapping_add((index * maximum) as u32);
            upper[4..8].copy_from_slice(&number.to_be_bytes());
            if index > 0 {
                upper[13] &= !CWR;
            }
            if index + 1 < count {
                upper[13] &= !(FIN | PSH);
            }
            upper[16..18].fill(0);
            upper.extend(part);
            let checksum = upper_checksum(&segment.source, &segment.destination, TCP, &upper);
            upper[16..18].copy_from_slice(&checksum.to_be_bytes());
            segment.upper = upper;
            segment
        })
        .collect()
}

/// Given a frame whose checksums are anything, when the device is asked for them, then they are right, and without
/// being asked they stay as they were.
fn checksums(backend: Backend, how: How, ipv6: bool) {
    let mut rig = Rig::on(backend, &FORMATS);
    let protected = protected(&mut rig, how, ipv6);
    let mut number = 0;
    for (turn, (protocol, bytes)) in
        [(UDP, 8), (UDP, 9), (TCP, 20), (TCP, 21), (UDP, 1472), (TCP, 1473)].into_iter().enumerate()
    {
        for shape in [Shape::Plain, Shape::TwoTags, Shape::Options] {
            let right = packets::packet(ipv6, shape, protocol, bytes);
            let mut wrong = right.clone();
            let field = if protocol == UDP { 6 } else { 16 };
            wrong.upper[field] ^= 0x5a;
            for (offload, expected) in [(Offload::NONE.l4_checksum(), &right), (Offload::NONE, &wrong)] {
                number += 1;
                let format = turn % FORMATS.len();
                let at = format!("{bytes} bytes of {protocol}, {shape:?}, {offload:?}");
                let sent = rig.send_many(format, &wrong.frame(), protected.protection, offload);
                let sent = sent.map(|mut frames| frames.remove(0));
                assert_same(&sent, &(protected.witness)(expected, number), &at);
            }
            if !ipv6 {
                number += 1;
                let mut frame = right.frame();
                let header = right.link.len() + 2;
                frame[header + 10] ^= 0xa5;
                let sent = rig.send_many(0, &frame, protected.protection, Offload::NONE.ip_checksum());
                let sent = sent.map(|mut frames| frames.remove(0));
                assert_same(
                    &sent,
                    &(protected.witness)(&right, number),
                    &format!("IPv4 checksum, {shape:?}"),
                );
            }
        }
    }
}
