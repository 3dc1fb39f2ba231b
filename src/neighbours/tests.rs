use super::*;

const MAC: Mac = Mac([2, 0, 10, 1, 0, 254]);
const HOST: Mac = Mac([2, 0xaa, 0, 0, 0, 1]);

fn segment() -> Segment {
    let mut segment = Segment::new(MAC);
    segment.set_own(vec!["10.1.0.254".parse().expect("v4"), "fd00:1::fe".parse().expect("v6")]);
    segment
}

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// What is ready to be sent.
fn ready(segment: &mut Segment) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| segment.next_ready()).collect()
}

fn octets(hexadecimal: &str) -> Vec<u8> {
    hex::decode(hexadecimal.replace(' ', "")).expect("hexadecimal")
}

fn frame() -> Vec<u8> {
    [&[0; 12][..], &[8, 0], &[7; 40]].concat()
}

#[test]
fn arp_is_asked_and_answered_in_the_octets_of_rfc_826() {
    let now = Instant::now();
    // Given a request for an own address, then it is answered
    let request = octets(
        "ffffffffffff 02aa00000001 0806 0001 0800 06 04 0001 02aa00000001 0a010001 000000000000 0a0100fe",
    );
    let answer = octets(
        "02aa00000001 02000a0100fe 0806 0001 0800 06 04 0002 02000a0100fe 0a0100fe 02aa00000001 0a010001",
    );
    let mut segment = segment();
    assert!(segment.is_addressed(&request) && segment.hear(&request, now));
    assert_eq!(ready(&mut segment), [answer]);
    // And one for another address is not, nor one that is cut off; both are ARP
    let mut other = request.clone();
    other[41] = 9;
    for frame in [&other[..], &request[..30], &request[..14]] {
        assert!(segment.hear(frame, now));
        assert_eq!(ready(&mut segment), Vec::<Vec<u8>>::new());
    }
    // And a frame for an unknown neighbour asks for it
    let question = octets(
        "ffffffffffff 02000a0100fe 0806 0001 0800 06 04 0001 02000a0100fe 0a0100fe 000000000000 0a010007",
    );
    segment.send(frame(), address("10.1.0.7"), now);
    assert_eq!(ready(&mut segment), [question]);
    // From the own address that is nearest
    segment.set_own(["10.2.0.254", "10.1.0.254", "192.0.2.1"].map(address).to_vec());
    for (target, nearest) in
        [("10.1.0.8", [10, 1, 0, 254]), ("10.2.0.8", [10, 2, 0, 254]), ("198.0.0.1", [192, 0, 2, 1])]
    {
        segment.send(frame(), address(target), now);
        assert_eq!(ready(&mut segment)[0][28..32], nearest);
    }
}

#[test]
fn neighbour_discovery_is_asked_and_answered_in_the_octets_of_rfc_4861() {
    let now = Instant::now();
    let mut segment = segment();
    // Given a frame for an unknown neighbour, then it is asked for, of its solicited-node group (RFC 4291 2.7.1)
    segment.send([&[0; 12][..], &[0x86, 0xdd], &[7; 60]].concat(), address("fd00:1::1234:5678"), now);
    let question = ready(&mut segment).pop().expect("a question");
    let wanted = octets(
        "3333ff345678 02000a0100fe 86dd 60000000 0020 3a ff fd00000100000000 00000000000000fe \
         ff020000000000000000 0001ff345678",
    );
    assert_eq!(question[..54], wanted[..]);
    assert_eq!((&question[54..56], &question[58..62]), (&[135, 0][..], &[0; 4][..]));
    assert_eq!(question[62..], octets("fd000001000000000000000012345678 0101 02000a0100fe")[..]);
    assert_eq!(sum(&question), 0xffff, "its checksum is right (RFC 4443 2.3)");
    // And without an own address, from that which needs no configuration (RFC 4291 appendix A)
    let mut bare = Segment::new(MAC);
    bare.send(frame(), address("fd00:1::1"), now);
    let question = ready(&mut bare).pop().expect("a question");
    assert_eq!(question[22..38], octets("fe80000000000000 00000afffe0100fe")[..]);
    // And the same from a host for an own address is answered, from another MAC
    let mut asked = octets(
        "3333ff0000fe 02aa00000001 86dd 60000000 0020 3a ff fd000001000000000000000000000001 \
         ff0200000000000000000001ff0000fe 87000000 00000000 fd0000010000000000000000000000fe 0101 02aa00000001",
    );
    set_checksum(&mut asked);
    assert!(segment.hear(&asked, now));
    let answer = ready(&mut segment).pop().expect("an answer");
    let head = octets(
        "02aa00000001 02000a0100fe 86dd 60000000 0020 3a ff fd0000010000000000000000000000fe \
         fd000001000000000000000000000001",
    );
    assert_eq!(answer[..54], head[..]);
    // Router, solicited, override.
    assert_eq!((&answer[54..56], &answer[58..62]), (&[136, 0][..], &[0xe0, 0, 0, 0][..]));
    assert_eq!(answer[62..], octets("fd0000010000000000000000000000fe 0201 02000a0100fe")[..]);
    assert_eq!(sum(&answer), 0xffff);
    // And what RFC 4861 7.1.1 has discarded is not: a router on the way, a wrong checksum
    for (at, octet) in [(21, 254), (57, asked[57] ^ 1)] {
        let mut wrong = asked.clone();
        wrong[at] = octet;
        segment.hear(&wrong, now);
        assert_eq!(ready(&mut segment), Vec::<Vec<u8>>::new());
    }
    // And one from nobody asks whether the address is free: all hear the answer (RFC 4861 7.2.4)
    asked[22..38].fill(0);
    set_checksum(&mut asked);
    assert!(segment.hear(&asked, now));
    let answer = ready(&mut segment).pop().expect("an answer");
    assert_eq!((&answer[..6], &answer[38..54]), (&[0x33, 0x33, 0, 0, 0, 1][..], &ALL_NODES.octets()[..]));
    assert_eq!(answer[58], 0xa0, "router and override, not solicited");
    // And an echo request is none of this.
    asked[54] = 128;
    assert!(!segment.hear(&asked, now));
}

/// The sum of an ICMPv6 packet with its pseudo-header; all ones where the checksum is right.
fn sum(frame: &[u8]) -> u16 {
    let length = (frame.len() - 54) as u16;
    let pseudo = [&frame[22..54], &length.to_be_bytes(), &[0, 58], &frame[54..]].concat();
    let words = pseudo.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

fn set_checksum(frame: &mut [u8]) {
    frame[56..58].fill(0);
    let checksum = !sum(frame);
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn frames_wait_for_an_answer_and_not_for_ever() {
    let start = Instant::now();
    let mut segment = segment();
    let to = address("10.1.0.1");
    segment.send(frame(), to, start);
    segment.send(frame(), to, start);
    assert_eq!(ready(&mut segment).len(), 1, "one question");
    // When it answers, then both leave, in order, with both addresses
    let answer = octets(
        "02000a0100fe 02aa00000001 0806 0001 0800 06 04 0002 02aa00000001 0a010001 02000a0100fe 0a0100fe",
    );
    assert!(segment.hear(&answer, start));
    let sent = ready(&mut segment);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|frame| frame[..6] == HOST.0 && frame[6..12] == MAC.0 && frame[14..] == [7; 40]));
    assert_eq!(segment.next_time(), None);
    // A neighbour that is known for long is asked again while it is used, once
    let later = start + FRESH;
    segment.send(frame(), to, later);
    segment.send(frame(), to, later);
    let sent = ready(&mut segment);
    assert_eq!((sent.len(), &sent[0][..6], &sent[0][12..14]), (3, &HOST.0[..], &[8, 6][..]));
    // One that never answers is asked three times
    let nobody = address("10.1.0.99");
    segment.send(frame(), nobody, start);
    let mut questions = ready(&mut segment).len();
    for second in 1..=5 {
        segment.pass(start + Duration::from_secs(second));
        questions += ready(&mut segment).len();
    }
    assert_eq!((questions, segment.take_given_up(), segment.take_given_up()), (3, 1, 0));
    // And too many frames for one do not pile up
    (0..WAITING_FRAMES + 5).for_each(|_| segment.send(frame(), nobody, start));
    assert_eq!(segment.take_given_up(), 5);
}

#[test]
fn what_a_neighbour_says_itself_counts_more_than_what_packets_say() {
    let now = Instant::now();
    let to = address("10.1.0.1");
    let other = Mac([2, 0xbb, 0, 0, 0, 1]);
    let from = |mac: Mac| [&MAC.0[..], &mac.0, &[8, 0]].concat();
    let announces = octets(
        "ffffffffffff 02bb00000001 0806 0001 0800 06 04 0001 02bb00000001 0a010001 000000000000 0a010001",
    );
    let goes_to = |segment: &mut Segment| {
        segment.send(frame(), to, now);
        Mac(*ready(segment).pop().expect("sent").first_chunk().expect("an address"))
    };
    let mut segment = segment();
    segment.learn(to, &from(HOST), now);
    assert_eq!(goes_to(&mut segment), HOST);
    // A packet from elsewhere changes nothing, an announcement does
    segment.learn(to, &from(other), now);
    assert_eq!(goes_to(&mut segment), HOST);
    assert!(segment.hear(&announces, now));
    assert_eq!(goes_to(&mut segment), other);
    // What was given changes by nothing
    segment.fix(to, HOST);
    assert!(segment.hear(&announces, now));
    assert_eq!(goes_to(&mut segment), HOST);
    // Nobody else has an own address, and groups have theirs
    segment.learn(address("10.1.0.254"), &from(other), now);
    assert!(!segment.neighbours.contains_key(&address("10.1.0.254")));
    for (group, mac) in [
        ("224.129.2.3", "01:00:5e:01:02:03"),
        ("ff05::1:2", "33:33:00:01:00:02"),
        ("255.255.255.255", "ff:ff:ff:ff:ff:ff"),
    ] {
        segment.send(frame(), address(group), now);
        let sent = ready(&mut segment).pop().expect("sent");
        assert_eq!(Mac(*sent.first_chunk().expect("an address")).to_string(), mac);
    }
}

#[test]
fn as_many_neighbours_as_a_flood_brings_are_not_kept() {
    let now = Instant::now();
    let mut segment = segment();
    for number in 0..NEIGHBOURS_MAX as u32 + 1000 {
        segment.learn(
            Ipv4Addr::from(0x0a02_0000 + number).into(),
            &[&MAC.0[..], &HOST.0, &[8, 0]].concat(),
            now,
        );
    }
    assert_eq!(segment.neighbours.len(), NEIGHBOURS_MAX);
    // One that is asked for is served all the same, and time makes room.
    segment.send(frame(), address("10.1.0.1"), now);
    ready(&mut segment);
    let answer = octets(
        "02000a0100fe 02aa00000001 0806 0001 0800 06 04 0002 02aa00000001 0a010001 02000a0100fe 0a0100fe",
    );
    segment.hear(&answer, now);
    assert_eq!(ready(&mut segment).len(), 1);
    segment.hear(&answer, now + FRESH);
    assert!(segment.neighbours.len() == 1);
}

#[test]
fn ethernet_addresses_are_read_and_shown_alike() {
    let text = "02:aa:00:0b:ff:01";
    assert_eq!(text.parse::<Mac>().expect(text).to_string(), text);
    for text in [
        "",
        "02:aa:00:0b:ff",
        "02:aa:00:0b:ff:01:02",
        "2:aa:00:0b:ff:01",
        "02:aa:00:0b:ff:0g",
        "02-aa-00-0b-ff-01",
        "+2:aa:00:0b:ff:01",
    ] {
        assert!(text.parse::<Mac>().expect_err(text).contains("not an Ethernet address"));
    }
}
