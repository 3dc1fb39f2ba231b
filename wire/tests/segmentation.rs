//! Segmentation against rules written out by hand: NDIS, "Offloading the segmentation of large TCP packets" (FIN and PSH
//! on the last segment, CWR on the first, identification counting up, options copied), which Linux's TSO shares.

mod witness;

use cryptonic_wire::l4_checksum::{Checked, check_ipv4_checksum, check_l4_checksum, fill_l4_checksum};
use cryptonic_wire::segmentation::{NotSegmentable, Segmentation};
use cryptonic_wire::{Plain, parse_transmit};
use witness::reference::{self, Ip};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

fn ip(version: u8, identification: u16) -> Ip {
    let (source, destination) =
        if version == 4 { (vec![10, 0, 0, 1], vec![10, 0, 0, 2]) } else { (vec![0xfd; 16], vec![0xfc; 16]) };
    Ip {
        source,
        destination,
        traffic_class: 2,
        hop_limit: 64,
        dont_fragment: false,
        identification,
        flow_label: if version == 4 { 0 } else { 77 },
        extra: Vec::new(),
        first_extension: None,
    }
}

/// A TCP segment with 12 octets of options and the checksum of its packet.
fn tcp(ip: &Ip, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x2b, 0x67, 0x56, 0xce];
    out.extend(sequence.to_be_bytes());
    out.extend([5, 6, 7, 8, 0x80, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend([1, 1, 8, 10, 9, 9, 9, 9, 8, 8, 8, 8]);
    out.extend(data);
    let sum = ip.transport_checksum(6, &out);
    out[16..18].copy_from_slice(&sum.to_be_bytes());
    out
}

/// All segments of a frame, as a NIC makes them.
fn segments(frame: &[u8], plain: &Plain, mss: u16) -> Vec<Vec<u8>> {
    let cut = Segmentation::new(frame, plain, mss).unwrap();
    let mut made = Vec::new();
    for index in 0..cut.segments() {
        let mut segment = frame[..cut.header_length()].to_vec();
        cut.segment_header(index, &mut segment).unwrap();
        segment.extend(&frame[cut.data(index).unwrap().range()]);
        assert!(fill_l4_checksum(&mut segment, &cut.plain(index).unwrap()));
        made.push(segment);
    }
    assert_eq!((cut.data(made.len()), cut.plain(made.len())), (None, None));
    assert!(cut.segment_header(made.len(), &mut frame.to_vec()).is_err());
    made
}

#[test]
fn segments_are_what_the_rules_say() {
    let all = FIN | PSH | ACK | ECE | CWR;
    // (data, MSS, segments)
    let sizes = [
        (1, 1460, 1),
        (1460, 1460, 1),
        (1461, 1460, 2),
        (4380, 1460, 3),
        (10_000, 999, 11),
        (5, 1, 5),
        (65_000, 8948, 8),
        (65_000, 65_535, 1),
    ];
    for version in [4, 6] {
        for (size, mss, count) in sizes {
            for flags in [all, ACK, ACK | PSH, ACK | CWR, ACK | FIN] {
                let data: Vec<u8> = (0..size).map(|index| (index * 7) as u8).collect();
                let options = if version == 4 { vec![1, 1, 1, 0] } else { Vec::new() };
                let with = |identification| Ip { extra: options.clone(), ..ip(version, identification) };
                // Sequence numbers and identifications wrap.
                let (sequence, identification) = (0xffff_f000_u32, 0xfffe_u16);
                let large = with(identification);
                let tags = &[(0x8100, 5)];
                let frame = reference::frame(tags, &large.packet(6, &tcp(&large, sequence, flags, &data)));
                let made = segments(&frame, &parse_transmit(&frame).unwrap(), mss);
                assert_eq!(made.len(), count);
                for (index, (made, part)) in made.iter().zip(data.chunks(usize::from(mss))).enumerate() {
                    let mut expected_flags = flags;
                    if index > 0 {
                        expected_flags &= !CWR;
                    }
                    if index + 1 < count {
                        expected_flags &= !(FIN | PSH);
                    }
                    let ip = with(identification.wrapping_add(index as u16));
                    let start = sequence.wrapping_add(index as u32 * u32::from(mss));
                    let expected =
                        reference::frame(tags, &ip.packet(6, &tcp(&ip, start, expected_flags, part)));
                    assert!(*made == expected, "{version} {size} {mss} {index}: {}", hex::encode(made));
                    let plain = parse_transmit(made).unwrap();
                    assert_eq!(check_l4_checksum(made, &plain), Checked::Good);
                    assert_eq!(check_ipv4_checksum(made, &plain) == Checked::Good, version == 4);
                }
            }
        }
    }
}

#[test]
fn what_is_not_segmented_has_a_name() {
    let v4 = ip(4, 0);
    let frame_of = |payload: &[u8]| reference::frame(&[], &v4.packet(6, payload));
    let good = frame_of(&tcp(&v4, 1, ACK, &[7; 100]));
    let name = |frame: &[u8], mss: u16| Segmentation::new(frame, &parse_transmit(frame).unwrap(), mss).err();
    let mut fragment = good.clone();
    fragment[20] = 0x20;
    let mut small = good.clone();
    small[34 + 12] = 0x40;
    let mut long = good.clone();
    long[34 + 12] = 0xf0;
    let mut arp = good.clone();
    arp[13] = 6;
    let udp = reference::frame(&[], &v4.packet(17, &[0; 40]));
    let rows = [
        (good.clone(), 40, None),
        (udp, 40, Some(NotSegmentable::NotTcp)),
        (arp, 40, Some(NotSegmentable::NotTcp)),
        (fragment, 40, Some(NotSegmentable::Fragment)),
        (good.clone(), 0, Some(NotSegmentable::ZeroMss)),
        (frame_of(&tcp(&v4, 1, ACK, &[])), 40, Some(NotSegmentable::NoPayload)),
        (frame_of(&tcp(&v4, 1, ACK, &[])[..31]), 40, Some(NotSegmentable::TruncatedHeader)),
        (frame_of(&tcp(&v4, 1, ACK, &[])[..12]), 40, Some(NotSegmentable::TruncatedHeader)),
        (small, 40, Some(NotSegmentable::TruncatedHeader)),
        (
            frame_of(&{
                let mut segment = tcp(&v4, 1, ACK, &[7; 27]);
                segment[12] = 0xf0;
                segment
            }),
            40,
            Some(NotSegmentable::TruncatedHeader),
        ),
        (frame_of(&tcp(&v4, 1, ACK | SYN, &[7; 9])), 40, Some(NotSegmentable::Flags)),
        (frame_of(&tcp(&v4, 1, ACK | RST, &[7; 9])), 40, Some(NotSegmentable::Flags)),
        (frame_of(&tcp(&v4, 1, ACK | URG, &[7; 9])), 40, Some(NotSegmentable::Flags)),
        (long, 40, None),
    ];
    for (index, (frame, mss, expected)) in rows.into_iter().enumerate() {
        assert_eq!(name(&frame, mss), expected, "row {index}");
    }
    let plain = parse_transmit(&good).unwrap();
    assert_eq!(Segmentation::new(&good[..60], &plain, 40).err(), Some(NotSegmentable::StaleParse));
    let cut = Segmentation::new(&good, &plain, 40).unwrap();
    assert!(cut.segment_header(0, &mut good[..cut.header_length() - 1].to_vec()).is_err());
}
