//! Segments made by a naive segmenter of this file, which shares nothing with the driver, come out as the frame that
//! they were cut from; and what Linux's receive offload would not join is not joined.

mod fake;

use cryptonic_driver::coalesce::{Coalescer, Joined, Origin};
use cryptonic_driver::{
    ChecksumState, Cipher, Direction, Mode, Nic, OpenOptions, SaConfiguration, SaHandle, SecretKey,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// A TCP packet to be written down.
#[derive(Clone)]
struct Tcp {
    ipv6: bool,
    vlan: bool,
    tos: u8,
    ttl: u8,
    flow_label: u32,
    identification: u16,
    dont_fragment: bool,
    source_port: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

fn tcp(ipv6: bool, payload: usize) -> Tcp {
    Tcp {
        ipv6,
        vlan: false,
        tos: 0x2a,
        ttl: 61,
        flow_label: 0x1_2345,
        identification: 0xfffe,
        dont_fragment: true,
        source_port: 443,
        sequence: u32::MAX - 3000,
        acknowledgement: 77,
        flags: ACK,
        window: 501,
        urgent: 0,
        // Two no-operations, then a timestamp.
        options: vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4],
        payload: (0..payload).map(|index| (index * 13 + index / 251) as u8).collect(),
    }
}

/// The Internet checksum, two octets at a time (RFC 1071 4.1).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Tcp {
    fn write(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.vlan {
            frame.extend([0x81, 0x00, 0x00, 0x07]);
        }
        let tcp_length = 20 + self.options.len() + self.payload.len();
        let mut segment = vec![];
        segment.extend(self.source_port.to_be_bytes());
        segment.extend(5000_u16.to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.push((((20 + self.options.len()) / 4) << 4) as u8);
        segment.push(self.flags);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(self.urgent.to_be_bytes());
        segment.extend(&self.options);
        segment.extend(&self.payload);
        let mut pseudo = vec![];
        if self.ipv6 {
            frame.extend([0x86, 0xdd]);
            let word = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
            frame.extend(word.to_be_bytes());
            frame.extend((tcp_length as u16).to_be_bytes());
            frame.extend([6, self.ttl]);
            let addresses = [[0xfd; 16], [0xfc; 16]].concat();
            frame.extend(&addresses);
            pseudo.extend(&addresses);
            pseudo.extend((tcp_length as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, 6]);
        } else {
            frame.extend([0x08, 0x00]);
            let start = frame.len();
            frame.extend([0x45, self.tos]);
            frame.extend(((20 + tcp_length) as u16).to_be_bytes());
            frame.extend(self.identification.to_be_bytes());
            frame.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, 6, 0, 0]);
            let addresses = [10, 0, 0, 1, 10, 0, 0, 2];
            frame.extend(addresses);
            let sum = checksum(&frame[start..]);
            frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
            pseudo.extend(addresses);
            pseudo.extend([0, 6]);
            pseudo.extend((tcp_length as u16).to_be_bytes());
        }
        let sum = checksum(&[pseudo, segment.clone()].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        frame.extend(segment);
        frame
    }

    /// Cut into segments as a sender does: FIN and PSH go to the last, CWR to the first, identifications rise.
    fn segments(&self, size: usize) -> Vec<Tcp> {
        let count = self.payload.len().div_ceil(size);
        (0..count)
            .map(|index| {
                let payload = self.payload.chunks(size).nth(index).unwrap().to_vec();
                let mut flags = self.flags;
                if index + 1 < count {
                    flags &= !(FIN | PSH);
                }
                if index > 0 {
                    flags &= !CWR;
                }
                Tcp {
                    identification: self.identification.wrapping_add(index as u16),
                    sequence: self.sequence.wrapping_add((index * size) as u32),
                    flags,
                    payload,
                    ..self.clone()
                }
            })
            .collect()
    }
}

const CLEAR: Origin = Origin { sa: None, spi: 0, l4_checksum: ChecksumState::NotChecked };

type Delivered = Vec<(Vec<u8>, Joined)>;

fn push(coalescer: &mut Coalescer, frame: &[u8], origin: Origin) -> Delivered {
    let mut delivered = vec![];
    coalescer.push(frame, origin, |frame, joined| delivered.push((frame.to_vec(), joined)));
    delivered
}

fn joined(frames: &[Vec<u8>]) -> Delivered {
    let mut coalescer = Coalescer::new(8);
    let mut delivered = vec![];
    for frame in frames {
        delivered.extend(push(&mut coalescer, frame, CLEAR));
    }
    coalescer.flush(|frame, joined| delivered.push((frame.to_vec(), joined)));
    assert_eq!(coalescer.held(), 0);
    delivered
}

#[test]
fn segments_come_out_as_the_frame_they_were_cut_from() {
    for ipv6 in [false, true] {
        for vlan in [false, true] {
            for (payload, size) in
                [(2, 1), (100, 50), (101, 50), (1449, 1448), (14_480, 1448), (60_000, 1400), (65_000, 8948)]
            {
                for flags in [ACK, ACK | PSH, ACK | PSH | FIN, ACK | ECE, ACK | CWR | PSH] {
                    // Given a frame and the segments that a sender makes of it, when they are joined,
                    let whole = Tcp { flags, vlan, ..tcp(ipv6, payload) };
                    let segments = whole.segments(size);
                    let frames: Vec<_> = segments.iter().map(Tcp::write).collect();
                    let found = joined(&frames);
                    // then every octet is the frame's, and segmenting it again is possible.
                    assert_eq!(found.len(), 1, "{ipv6} {payload} {size} {flags:#x}");
                    assert!(found[0].0 == whole.write(), "{ipv6} {payload} {size} {flags:#x}");
                    assert_eq!(found[0].1.segments as usize, segments.len());
                    assert_eq!(usize::from(found[0].1.segment_bytes), size);
                }
            }
        }
    }
}

#[test]
fn identifications_may_stay_under_dont_fragment_alone() {
    let with = |identifications: [u16; 4], dont_fragment| {
        let mut segments = tcp(false, 400).segments(100);
        for (segment, identification) in segments.iter_mut().zip(identifications) {
            segment.identification = identification;
            segment.dont_fragment = dont_fragment;
        }
        let frames: Vec<_> = segments.iter().map(Tcp::write).collect();
        joined(&frames).iter().map(|(_, joined)| joined.segments).collect::<Vec<_>>()
    };
    assert_eq!(with([7, 8, 9, 10], false), [4]);
    assert_eq!(with([7, 8, 9, 10], true), [4]);
    assert_eq!(with([7, 7, 7, 7], true), [4]);
    assert_eq!(with([7, 7, 7, 7], false), [1, 1, 1, 1]);
    // What rose does not stay, what stayed does not rise.
    assert_eq!(with([7, 8, 8, 9], true), [2, 2]);
    assert_eq!(with([7, 7, 8, 9], true), [2, 2]);
    assert_eq!(with([7, 9, 10, 12], true), [1, 2, 1]);
    assert_eq!(with([u16::MAX, 0, 1, 2], false), [4]);
}

#[test]
fn what_differs_is_not_joined() {
    // (name, change of the second of three segments, frames that come out: how many segments each)
    type Change = fn(&mut Tcp);
    let cases: [(&str, Change, &[u32]); 21] = [
        ("nothing", |_| {}, &[3]),
        ("TOS", |second| second.tos ^= 4, &[1, 1, 1]),
        ("ECN", |second| second.tos |= 3, &[1, 1, 1]),
        ("TTL", |second| second.ttl -= 1, &[1, 1, 1]),
        ("acknowledgement", |second| second.acknowledgement += 1, &[1, 1, 1]),
        ("window", |second| second.window += 1, &[1, 1, 1]),
        ("timestamp", |second| second.options[7] += 1, &[1, 1, 1]),
        ("no options", |second| second.options.clear(), &[1, 1, 1]),
        ("sequence", |second| second.sequence += 1, &[1, 1, 1]),
        ("a segment again", |second| second.sequence -= 100, &[1, 1, 1]),
        ("ECE", |second| second.flags |= ECE, &[1, 1, 1]),
        ("CWR", |second| second.flags |= CWR, &[1, 2]),
        ("PSH", |second| second.flags |= PSH, &[2, 1]),
        ("FIN", |second| second.flags |= FIN, &[2, 1]),
        ("SYN", |second| second.flags |= SYN, &[1, 1, 1]),
        ("RST", |second| second.flags |= RST, &[1, 1, 1]),
        ("URG", |second| second.flags |= URG, &[1, 1, 1]),
        ("urgent pointer", |second| second.urgent = 3, &[1, 1, 1]),
        ("shorter", |second| second.payload.truncate(99), &[2, 1]),
        ("longer", |second| second.payload.push(9), &[1, 1, 1]),
        ("no payload", |second| second.payload.clear(), &[1, 1, 1]),
    ];
    for ipv6 in [false, true] {
        for (name, change, expected) in cases {
            let mut segments = tcp(ipv6, 300).segments(100);
            change(&mut segments[1]);
            let frames: Vec<_> = segments.iter().map(Tcp::write).collect();
            let found = joined(&frames);
            let counts: Vec<_> = found.iter().map(|(_, joined)| joined.segments).collect();
            assert_eq!(counts, expected, "{name}, IPv6: {ipv6}");
            // What comes out alone is as it went in, and the order is kept.
            let mut place = 0;
            for (frame, joined) in &found {
                if joined.segments == 1 {
                    assert!(*frame == frames[place], "{name}");
                    assert_eq!(joined.segment_bytes, 0);
                }
                place += joined.segments as usize;
            }
        }
        if ipv6 {
            let mut segments = tcp(true, 300).segments(100);
            segments[1].flow_label ^= 1;
            let frames: Vec<_> = segments.iter().map(Tcp::write).collect();
            assert_eq!(joined(&frames).len(), 3);
        }
    }
}

#[test]
fn frames_that_cannot_be_joined_pass_as_they_are() {
    let good = tcp(false, 100).write();
    let mut bad_checksum = good.clone();
    *bad_checksum.last_mut().unwrap() ^= 1;
    let mut bad_ip = good.clone();
    bad_ip[14 + 10] ^= 1;
    let mut fragment = tcp(false, 100);
    fragment.dont_fragment = false;
    let mut fragment = fragment.write();
    fragment[14 + 6] = 0x20;
    let mut padded = good.clone();
    padded.extend([0; 10]);
    let mut udp = good.clone();
    udp[14 + 9] = 17;
    let mut cut = good.clone();
    cut.truncate(40);
    let mut long_header = good.clone();
    long_header[14 + 20 + 12] = 0xf0;
    long_header.truncate(14 + 20 + 60);
    for (name, frame) in [
        ("checksum", bad_checksum),
        ("IP checksum", bad_ip),
        ("fragment", fragment),
        ("padding", padded),
        ("UDP", udp),
        ("cut", cut),
        ("header", long_header),
        ("ARP", vec![0; 60]),
        ("nothing", vec![]),
    ] {
        let mut coalescer = Coalescer::new(8);
        let delivered = push(&mut coalescer, &frame, CLEAR);
        assert_eq!(delivered.len(), 1, "{name}");
        assert_eq!((&delivered[0].0, coalescer.held()), (&frame, 0), "{name}");
    }
    // The device's verdict is taken; where it has none the checksum is computed.
    for (state, held) in [(ChecksumState::Good, 1), (ChecksumState::Bad, 0), (ChecksumState::NotChecked, 1)] {
        let mut coalescer = Coalescer::new(8);
        push(&mut coalescer, &good, Origin { l4_checksum: state, ..CLEAR });
        assert_eq!(coalescer.held(), held, "{state:?}");
    }
}

/// Of three SAs.
fn handles() -> Vec<SaHandle> {
    let fake = fake::Fake::new();
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let sa = |number| {
        let key = SecretKey::new(&[number; 16]).unwrap();
        SaConfiguration::new(Direction::In, Mode::Transport, Cipher::AesGcm128, key, [0; 4], 0x1001)
    };
    nic.install_sas((0..3).map(sa).collect()).unwrap()
}

#[test]
fn flows_do_not_mix_and_neither_do_sas() {
    let handles = handles();
    let sa = |number: usize| Origin { sa: Some(handles[number]), spi: 5, ..CLEAR };
    let segments = |source_port| Tcp { source_port, ..tcp(false, 300) }.segments(100);
    let (one, other) = (segments(1), segments(2));
    let mut coalescer = Coalescer::new(8);
    let mut delivered = vec![];
    for (first, second) in one.iter().zip(&other) {
        delivered.extend(push(&mut coalescer, &first.write(), sa(1)));
        delivered.extend(push(&mut coalescer, &second.write(), sa(1)));
        // The same packets out of another SA, and in clear.
        delivered.extend(push(&mut coalescer, &first.write(), sa(2)));
        delivered.extend(push(&mut coalescer, &first.write(), CLEAR));
    }
    assert_eq!((delivered.len(), coalescer.held()), (0, 4));
    coalescer.flush(|frame, joined| delivered.push((frame.to_vec(), joined)));
    assert!(delivered.iter().all(|(_, joined)| joined.segments == 3));
    let origins: Vec<_> = delivered.iter().map(|(_, joined)| joined.origin.sa).collect();
    assert_eq!(origins, [sa(1).sa, sa(1).sa, sa(2).sa, None]);

    // With fewer places the one held longest goes.
    let mut coalescer = Coalescer::new(2);
    let mut delivered = vec![];
    for port in 1..=3 {
        delivered.extend(push(&mut coalescer, &segments(port)[0].write(), CLEAR));
    }
    assert_eq!((delivered.len(), coalescer.held()), (1, 2));
    assert_eq!(delivered[0].0, segments(1)[0].write());
}

#[test]
fn a_frame_never_grows_past_what_its_length_can_say() {
    for ipv6 in [false, true] {
        let whole = tcp(ipv6, 1000);
        let mut delivered = vec![];
        let mut coalescer = Coalescer::new(1);
        let mut sequence = whole.sequence;
        for index in 0..200_u16 {
            let segment =
                Tcp { sequence, identification: whole.identification.wrapping_add(index), ..whole.clone() };
            sequence = sequence.wrapping_add(1000);
            delivered.extend(push(&mut coalescer, &segment.write(), CLEAR));
        }
        coalescer.flush(|frame, joined| delivered.push((frame.to_vec(), joined)));
        assert_eq!(delivered.iter().map(|(_, joined)| joined.segments).sum::<u32>(), 200);
        assert!(delivered.iter().all(|(frame, _)| frame.len() - 14 <= 65_535));
        assert_eq!(delivered.len(), 200_usize.div_ceil(65));
    }
}
