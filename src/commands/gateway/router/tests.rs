use cryptonic_wire::packet;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, PacketBuilder};

use super::*;

const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];
const TO: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A packet of UDP in a frame, as etherparse makes it.
fn frame(version: u8, hop_limit: u8, payload: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(FROM, TO);
    let builder = match version {
        4 => builder.ipv4([10, 1, 0, 1], [10, 2, 0, 1], hop_limit),
        _ => builder.ipv6([0x20; 16], [0x21; 16], hop_limit),
    };
    let payload: Vec<u8> = (0..payload).map(|place| (place * 7) as u8).collect();
    let mut frame = Vec::new();
    builder.udp(1000, 2000).write(&mut frame, &payload).expect("a frame");
    frame
}

fn plain(frame: &[u8]) -> Plain {
    packet::parse_transmit(frame).expect("an IP packet")
}

/// An IPv4 packet with these options, don't-fragment and place in its datagram.
fn ipv4(options: &[u8], dont_fragment: bool, more: bool, offset: u16, payload: usize) -> Vec<u8> {
    let mut header =
        Ipv4Header::new(payload as u16, 64, IpNumber::UDP, [10, 1, 0, 1], [10, 2, 0, 1]).expect("a length");
    header.options = Ipv4Options::try_from(options).expect("whole words");
    header.dont_fragment = dont_fragment;
    header.more_fragments = more;
    header.identification = 0x1234;
    header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
    header.set_payload_len(payload).expect("a length");
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [&TO[..], &FROM, &[8, 0]].concat();
    header.write(&mut frame).expect("a header");
    frame.extend((0..payload).map(|place| (place * 3 + 1) as u8));
    frame
}

#[test]
fn hops_are_counted_down_with_the_checksum_and_nothing_else_changes() {
    for version in [4, 6] {
        for hop_limit in [2, 3, 64, 128, 255] {
            let before = frame(version, hop_limit, 40);
            let mut after = before.clone();
            assert_eq!(count_down(&mut after, &plain(&before)), Hops::Left);
            // Then it is what etherparse makes with one fewer
            assert_eq!(after, frame(version, hop_limit - 1, 40), "IPv{version}, {hop_limit}");
        }
        for hop_limit in [0, 1] {
            let before = frame(version, hop_limit, 40);
            let mut after = before.clone();
            assert_eq!(count_down(&mut after, &plain(&before)), Hops::Exceeded);
            assert_eq!(after, before);
        }
    }
    let mut broken = frame(4, 64, 40);
    broken[24] ^= 1;
    assert_eq!(count_down(&mut broken.clone(), &plain(&broken)), Hops::BadChecksum);
}

/// RFC 1624 3: sums around the two spellings of zero.
#[test]
fn every_checksum_stays_right() {
    let mut seen_zero = false;
    for identification in 0..=u16::MAX {
        let mut header =
            Ipv4Header::new(0, 9, IpNumber::UDP, [10, 1, 0, 1], [10, 2, 0, 1]).expect("a length");
        header.identification = identification;
        header.header_checksum = header.calc_header_checksum();
        let mut frame = [&TO[..], &FROM, &[8, 0]].concat();
        header.write(&mut frame).expect("a header");
        let plain = plain(&frame);
        assert_eq!(count_down(&mut frame, &plain), Hops::Left);
        let after = Ipv4Header::from_slice(&frame[14..]).expect("a header").0;
        assert_eq!(after.header_checksum, after.calc_header_checksum(), "{identification:#06x}");
        seen_zero |= after.header_checksum == 0;
    }
    assert!(seen_zero);
}

#[test]
fn what_may_be_cut_is_told_from_what_may_not() {
    // (frame, the longest that passes, what it is)
    let rows = [
        (ipv4(&[], false, false, 0, 80), 100, Fit::Whole),
        (ipv4(&[], true, false, 0, 80), 100, Fit::Whole),
        (ipv4(&[], false, false, 0, 81), 100, Fit::InPieces),
        (ipv4(&[], true, false, 0, 81), 100, Fit::TooBig),
        (frame(6, 64, 52), 100, Fit::Whole),
        (frame(6, 64, 53), 100, Fit::TooBig),
    ];
    for (mut frame, longest, wanted) in rows {
        assert_eq!(fit(&plain(&frame), longest), wanted, "{frame:02x?}");
        // Padding of Ethernet does not count.
        frame.extend([0; 20]);
        assert_eq!(fit(&plain(&frame), longest), wanted);
    }
}

#[test]
fn fragments_make_the_packet_again_and_none_is_too_long() {
    // An option that all have (loose source route), one of the first alone (timestamp), and the end.
    let options: &[u8] = &[0x83, 7, 4, 10, 9, 9, 9, 0x44, 4, 5, 0, 0];
    for options in [&[][..], options] {
        let header_length = 20 + options.len();
        for (more, offset) in [(false, 0), (true, 0), (true, 100), (false, 100)] {
            for payload in [100_usize, 104, 1480, 4000] {
                for longest in [header_length + 8, 68, 576, 1279] {
                    let mut frame = ipv4(options, false, more, offset, payload);
                    let whole = frame.clone();
                    frame.extend([0; 3]);
                    let fragments = fragments(&frame, &plain(&frame), longest);
                    let mut data = Vec::new();
                    for (number, fragment) in fragments.iter().enumerate() {
                        assert_eq!(fragment[..14], whole[..14]);
                        let (header, part) = Ipv4Header::from_slice(&fragment[14..]).expect("a header");
                        assert!(fragment.len() - 14 <= longest, "{} > {longest}", fragment.len() - 14);
                        assert_eq!(usize::from(header.total_len), fragment.len() - 14);
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                        assert_eq!((header.identification, header.time_to_live), (0x1234, 64));
                        assert_eq!(
                            usize::from(header.fragment_offset.value()) * 8,
                            usize::from(offset) * 8 + data.len()
                        );
                        let last = number + 1 == fragments.len();
                        assert_eq!(header.more_fragments, more || !last);
                        assert!(last || part.len() % 8 == 0);
                        if !options.is_empty() {
                            let wanted: &[u8] =
                                if number == 0 { options } else { &[0x83, 7, 4, 10, 9, 9, 9, 1, 1, 1, 1, 0] };
                            assert_eq!(&header.options[..], wanted);
                        }
                        data.extend_from_slice(part);
                    }
                    assert_eq!(data, whole[14 + header_length..]);
                }
            }
        }
    }
    // There is no fragment without payload, and none of IPv6
    assert!(
        fragments(&ipv4(&[], false, false, 0, 100), &plain(&ipv4(&[], false, false, 0, 100)), 27).is_empty()
    );
    assert!(fragments(&frame(6, 64, 100), &plain(&frame(6, 64, 100)), 60).is_empty());
}

/// Bits of an option's length are what the sender wrote.
#[test]
fn options_of_any_length_are_survived() {
    for kind in 0..=255_u8 {
        for length in 0..=255_u8 {
            let mut header = [0; 32];
            header[20..24].copy_from_slice(&[1, kind, length, 7]);
            leave_out_options(&mut header);
        }
    }
}
