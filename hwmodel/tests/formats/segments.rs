//! Segmentation and checksums on transmit, judged by an independent library.

use cryptonic_hwmodel::Parameters;
use cryptonic_regs::Status;
use cryptonic_regs::descriptor::TransmitExtent;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::raw::{Raw, control, extent, payload, tcp, udp};

/// The extent word of a frame to be cut.
fn cut(total: usize, maximum_segment: u16) -> u64 {
    TransmitExtent::from(extent(total, 0)).with_maximum_segment(maximum_segment).into_bits()
}

/// Checks the checksums of a TCP packet, and gives its sequence number, identification, flags and payload.
fn judge(frame: &[u8]) -> (u32, u16, (bool, bool), Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a packet");
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("TCP") };
    let header = tcp.to_header();
    let (checksum, identification) = match packet.net.expect("IP") {
        NetSlice::Ipv4(ip) => {
            let ipv4 = ip.header().to_header();
            assert_eq!(ipv4.header_checksum, ipv4.calc_header_checksum());
            (header.calc_checksum_ipv4(&ipv4, tcp.payload()).expect("short"), ipv4.identification)
        }
        NetSlice::Ipv6(ip) => {
            let ipv6 = ip.header().to_header();
            (header.calc_checksum_ipv6(&ipv6, tcp.payload()).expect("short"), 0)
        }
        NetSlice::Arp(_) => panic!("IP"),
    };
    assert_eq!(header.checksum, checksum);
    (header.sequence_number, identification, (header.psh, header.fin), tcp.payload().to_vec())
}

#[test]
fn a_large_frame_leaves_as_segments_that_carry_all_of_it_once() {
    for ipv6 in [false, true] {
        for (bytes, maximum_segment) in [
            (1, 1_460),
            (1_460, 1_460),
            (1_461, 1_460),
            (5_000, 536),
            (300, 1),
            (65_000, 1_460),
            (64_000, 9_000),
        ] {
            let mut raw = Raw::new(&Parameters::default(), 32);
            let data = payload(bytes);
            let frame = tcp(ipv6, &data);
            // In two pieces, neither of which ends with the headers.
            let (head, rest) = frame.split_at(20);
            let at = [raw.bytes(head), raw.bytes(rest)];
            let first = control(head.len()).with_end_of_packet(false).into_bits();
            raw.put([at[0], first, 0, cut(frame.len(), maximum_segment)], &[]);
            raw.put([at[1], control(rest.len()).into_bits(), 0, 0], &[]);
            raw.ring();
            assert_eq!(raw.statuses(), [Status::Ok], "one completion for all");
            let sent = raw.sent();
            let segments = bytes.div_ceil(maximum_segment.into());
            assert_eq!(sent.len(), segments);
            let (mut carried, mut sequence, before) = (vec![], 1_000, judge(&sent[0]).1);
            for (index, segment) in sent.iter().enumerate() {
                let (number, identification, flags, part) = judge(segment);
                let last = index + 1 == segments;
                assert_eq!(number, sequence);
                assert!(ipv6 || identification == before.wrapping_add(index as u16));
                assert_eq!(flags, (last, last), "PSH and FIN stand on the last");
                assert!(last || part.len() == usize::from(maximum_segment));
                sequence += part.len() as u32;
                carried.extend_from_slice(&part);
            }
            assert_eq!(carried, data);
        }
    }
}

#[test]
fn what_cannot_be_cut_does_not_leave() {
    let limit = 65_535 + 18;
    let parts = |frame: &[u8]| frame.to_vec();
    // (what is wrong, frame, MSS, status)
    for (name, frame, maximum_segment, expected) in [
        ("UDP", parts(&udp(500)), 100, Status::BadSegmentation),
        ("no payload", tcp(false, &[]), 100, Status::BadSegmentation),
        ("no IP", vec![0xee; 100], 100, Status::BadSegmentation),
        ("a segment above the largest frame", tcp(false, &payload(20_000)), 9_600, Status::TooLong),
    ] {
        let mut raw = Raw::new(&Parameters::default(), 32);
        let at = raw.bytes(&frame);
        let words = [at, control(frame.len()).into_bits(), 0, cut(frame.len(), maximum_segment)];
        raw.put(words, &[]);
        raw.ring();
        assert_eq!(raw.statuses(), [expected], "{name}");
        assert!(raw.sent().is_empty(), "{name}");
    }
    // One byte above what the device says it takes.
    let mut raw = Raw::new(&Parameters::default(), 32);
    assert_eq!(raw.read(cryptonic_regs::bar0::SEGMENTED_BYTES_MAX.offset), limit);
    let half = raw.bytes(&payload(40_000));
    let first = control(40_000).with_end_of_packet(false).into_bits();
    let rest = limit as usize + 1 - 40_000;
    raw.put([half, first, 0, cut(40_000 + rest, 1_000)], &[]);
    raw.put([half, control(rest).into_bits(), 0, 0], &[]);
    raw.ring();
    assert_eq!(raw.statuses(), [Status::TooLong]);
}

#[test]
fn checksums_are_filled_where_a_descriptor_asks() {
    for ipv6 in [false, true] {
        for bytes in [0, 1, 2, 99, 1_400] {
            let right = tcp(ipv6, &payload(bytes));
            let mut frame = right.clone();
            let l4 = if ipv6 { 54 } else { 34 };
            frame[l4 + 16..l4 + 18].copy_from_slice(&[0xde, 0xad]);
            if !ipv6 {
                frame[24..26].copy_from_slice(&[0xbe, 0xef]);
            }
            let mut raw = Raw::new(&Parameters::default(), 32);
            let at = raw.bytes(&frame);
            let both = control(frame.len()).with_l4_checksum(true).with_ip_checksum(!ipv6);
            raw.put([at, both.into_bits(), 0, extent(frame.len(), 0)], &[]);
            raw.put([at, control(frame.len()).into_bits(), 0, extent(frame.len(), 0)], &[]);
            raw.ring();
            assert_eq!(raw.statuses(), [Status::Ok; 2]);
            let padded = |mut frame: Vec<u8>| {
                frame.resize(frame.len().max(60), 0);
                frame
            };
            assert_eq!(raw.sent(), [padded(right), padded(frame)], "as asked, and as it was");
        }
    }
    // A header that has none of them.
    let mut raw = Raw::new(&Parameters::default(), 32);
    let frame = tcp(true, &[1]);
    let at = raw.bytes(&frame);
    raw.put([at, control(frame.len()).with_ip_checksum(true).into_bits(), 0, extent(frame.len(), 0)], &[]);
    raw.ring();
    assert_eq!(raw.statuses(), [Status::BadDescriptor]);
    assert!(raw.sent().is_empty());
}
