//! SAs in software against Scapy's captures, and against the device: which way an SA goes shows in no byte.

#[allow(dead_code)] // The command line is not run here.
mod common;

use std::net::IpAddr;

use common::{ip_packet, read_pcap, repository};
use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OpenOptions, OuterHeader, Protection, PspSaConfiguration, QueuePair,
    QueuePairOptions, ReceivedProtocol, SaConfiguration, SecretKey, SoftwarePspSa, SoftwareSa, SourcePort,
    Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

/// A software SA of a set's file, and the networks that its packets go to.
struct Entry {
    table: toml::Table,
    destination: (IpAddr, u32),
}

impl Entry {
    fn text(&self, name: &str) -> &str {
        self.table[name].as_str().unwrap_or_else(|| panic!("{name} is a string"))
    }

    fn number(&self, name: &str) -> u64 {
        self.table.get(name).map_or(0, |value| value.as_integer().expect("a number") as u64)
    }

    fn key(&self) -> SecretKey {
        SecretKey::new(&hex::decode(self.text("key")).expect("hex")).expect("a key's length")
    }

    fn esp(&self, direction: Direction) -> SaConfiguration {
        let cipher = match self.text("cipher") {
            "aes-gcm-128" => Cipher::AesGcm128,
            "aes-gcm-192" => Cipher::AesGcm192,
            "aes-gcm-256" => Cipher::AesGcm256,
            other => panic!("{other}"),
        };
        let mode = if self.text("mode") == "tunnel" { Mode::Tunnel } else { Mode::Transport };
        let salt: [u8; 4] = hex::decode(self.text("salt")).expect("hex").try_into().expect("4 bytes");
        let outer = self.table.get("tunnel").map(|tunnel| {
            let address = |name: &str| tunnel[name].as_str().expect("text").parse().expect("an address");
            OuterHeader::new(address("src"), address("dst"))
        });
        SaConfiguration {
            esn: self.table.get("esn").is_some_and(|esn| esn.as_bool() == Some(true)),
            sequence: self.number("sequence"),
            outer,
            ..SaConfiguration::new(direction, mode, cipher, self.key(), salt, self.number("spi") as u32)
        }
    }

    fn psp(&self) -> PspSaConfiguration {
        PspSaConfiguration {
            crypt_offset: self.number("crypt_offset") as u8,
            source_port: SourcePort::Fixed(self.number("src_port") as u16),
            virtualization_cookie: self.table.get("vc").map(|cookie| {
                hex::decode(cookie.as_str().expect("text")).expect("hex").try_into().expect("8 bytes")
            }),
            ..PspSaConfiguration::new(self.number("version") as u8, self.key(), self.number("spi") as u32)
        }
    }

    fn takes(&self, packet: &[u8]) -> bool {
        let (address, bits) = self.destination;
        match address {
            IpAddr::V4(address) if packet[0] >> 4 == 4 => {
                let own = u32::from_be_bytes(packet[16..20].try_into().expect("4 bytes"));
                (own ^ u32::from(address)).checked_shr(32 - bits).unwrap_or(0) == 0
            }
            IpAddr::V6(address) if packet[0] >> 4 == 6 => {
                let own = u128::from_be_bytes(packet[24..40].try_into().expect("16 bytes"));
                (own ^ u128::from(address)).checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

fn entries(file: &str) -> Vec<Entry> {
    let path = repository().join("tests/vectors/scapy").join(file);
    let text = std::fs::read_to_string(path).expect("a file");
    let mut file: toml::Table = text.parse().expect("TOML");
    let Some(toml::Value::Array(all)) = file.remove("sa") else { panic!("no SA") };
    all.into_iter()
        .map(|entry| {
            let toml::Value::Table(table) = entry else { panic!("a table") };
            let network = table["selector"]["dst"].as_str().expect("a network").to_owned();
            let (address, bits) = network.split_once('/').expect("a prefix");
            let destination = (address.parse().expect("an address"), bits.parse().expect("bits"));
            Entry { table, destination }
        })
        .collect()
}

fn capture(file: &str) -> Vec<Vec<u8>> {
    let path = repository().join("tests/vectors/scapy").join(file);
    read_pcap(&path).into_iter().map(|packet| packet.frame).collect()
}

fn nic(world: &World) -> (NicId, Nic) {
    let id = world.add_nic(&Parameters::default()).expect("the defaults are in range");
    (id, Nic::open(world.host(id), OpenOptions::default()).expect("open"))
}

/// An outer IPv4 header's identification is the sender's choice; here both it and the checksum over it are left out.
fn blank(mut frame: Vec<u8>, tunnel: bool) -> Vec<u8> {
    let (l2, ip) = ip_packet(&frame).expect("IP");
    if tunnel && ip[0] >> 4 == 4 {
        let at = l2.len();
        frame[at + 4..at + 6].fill(0);
        frame[at + 10..at + 12].fill(0);
    }
    frame
}

#[test]
fn software_opens_what_scapy_protected_and_nothing_tampered_or_replayed() {
    for set in ["esp-tunnel", "esp-transport", "esp-esn"] {
        for input in ["protected", "hostile"] {
            let world = World::new(1);
            let (_, mut nic) = nic(&world);
            let mut sas: Vec<SoftwareSa> = entries(&format!("{set}.in.toml"))
                .iter()
                .map(|entry| nic.software_sa(entry.esp(Direction::In)).expect("an SA"))
                .collect();
            let mut opened = vec![];
            for frame in capture(&format!("{set}.{input}.pcap")) {
                for sa in &mut sas {
                    match sa.open(&frame) {
                        Ok((bytes, _)) => opened.push(bytes.to_vec()),
                        Err(Status::NoSa) => continue,
                        Err(_) => {}
                    }
                    break;
                }
            }
            assert_eq!(opened, capture(&format!("{set}.clear.pcap")), "{set} {input}");
        }
    }
}

#[test]
fn software_protects_to_what_scapy_sends() {
    for set in ["esp-tunnel", "esp-transport", "esp-esn"] {
        let world = World::new(1);
        let (_, mut nic) = nic(&world);
        let entries = entries(&format!("{set}.out.toml"));
        let mut sas: Vec<SoftwareSa> =
            entries.iter().map(|entry| nic.software_sa(entry.esp(Direction::Out)).expect("an SA")).collect();
        let clear = capture(&format!("{set}.clear.pcap"));
        let expected = capture(&format!("{set}.protected.pcap"));
        assert_eq!(clear.len(), expected.len());
        for (number, (clear, expected)) in clear.iter().zip(expected).enumerate() {
            let (_, packet) = ip_packet(clear).expect("IP");
            let place = entries.iter().position(|entry| entry.takes(packet)).expect("an SA takes it");
            let tunnel = entries[place].table.contains_key("tunnel");
            let (protected, _) = sas[place].protect(clear).expect("protects");
            let (protected, expected) = (blank(protected.to_vec(), tunnel), blank(expected, tunnel));
            assert_eq!(hex::encode(protected), hex::encode(expected), "{set} packet {}", number + 1);
        }
    }
}

#[test]
fn software_protects_psp_to_what_scapy_sends_cookies_included() {
    for set in ["psp-transport", "psp-cookie"] {
        let world = World::new(1);
        let (_, mut nic) = nic(&world);
        let entries = entries(&format!("{set}.out.toml"));
        let mut sas: Vec<SoftwarePspSa> = entries
            .iter()
            .map(|entry| {
                // A sender of its own for each, at whose installation no time has passed.
                let mut sa = nic.software_psp_sa(entry.psp()).expect("an SA");
                sa.load_test_iv(entry.number("iv")).expect("no packet was sent");
                sa
            })
            .collect();
        for (number, (clear, expected)) in capture(&format!("{set}.clear.pcap"))
            .iter()
            .zip(capture(&format!("{set}.protected.pcap")))
            .enumerate()
        {
            let (_, packet) = ip_packet(clear).expect("IP");
            let place = entries.iter().position(|entry| entry.takes(packet)).expect("an SA takes it");
            let (protected, _) = sas[place].protect(clear).expect("protects");
            assert_eq!(hex::encode(protected), hex::encode(expected), "{set} packet {}", number + 1);
        }
    }
}

/// One frame of every size class, of both families.
fn frames() -> Vec<Vec<u8>> {
    let ends = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut frames = vec![];
    for bytes in [0, 1, 18, 100, 1000, 1400] {
        let payload: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
        let mut frame = vec![];
        etherparse::PacketBuilder::ethernet2(ends.0, ends.1)
            .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
            .udp(1234, 5678)
            .write(&mut frame, &payload)
            .expect("a vector takes all");
        frames.push(frame);
        let mut frame = vec![];
        etherparse::PacketBuilder::ethernet2(ends.0, ends.1)
            .ipv6([0xfd; 16], [0xfc; 16], 64)
            .tcp(1234, 5678, 1, 1024)
            .write(&mut frame, &payload)
            .expect("a vector takes all");
        frames.push(frame);
    }
    frames
}

fn clear_queue(nic: &mut Nic) -> QueuePair {
    let options = QueuePairOptions { clear_allowed: true, ..QueuePairOptions::default() };
    nic.create_queue_pair(options).expect("queue pair")
}

fn configuration(direction: Direction, mode: Mode, esn: bool) -> SaConfiguration {
    let outer = OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    SaConfiguration {
        esn,
        sequence: if esn { (7 << 32) - 3 } else { 40 },
        outer: (mode == Mode::Tunnel && direction == Direction::Out).then_some(outer),
        ..SaConfiguration::new(
            direction,
            mode,
            Cipher::AesGcm256,
            SecretKey::new(&[0x42; 32]).expect("32 bytes"),
            [1, 2, 3, 4],
            0x1001,
        )
    }
}

#[test]
fn device_and_software_give_the_same_bytes_and_open_each_others() {
    for (mode, esn) in
        [(Mode::Tunnel, false), (Mode::Tunnel, true), (Mode::Transport, false), (Mode::Transport, true)]
    {
        // Given one NIC with the SA in the device, one with it in software, whose lines are heard,
        let world = World::new(1);
        let (device_id, mut device) = nic(&world);
        let (software_id, mut software) = nic(&world);
        let (mut device_queue, mut software_queue) = (clear_queue(&mut device), clear_queue(&mut software));
        let handle = device.install_sa(configuration(Direction::Out, mode, esn)).expect("in the device");
        let mut sa = software.software_sa(configuration(Direction::Out, mode, esn)).expect("in software");
        let mut opener = software.software_sa(configuration(Direction::In, mode, esn)).expect("in software");
        // when both send the same frames,
        for frame in frames() {
            let mut buffer = device_queue.take_buffer().expect("a buffer");
            device_queue.fill(&mut buffer, &frame).expect("fits");
            device_queue
                .transmit(&mut vec![TransmitPacket::new(buffer, Protection::Sa(handle), 0)])
                .expect("transmit");
            let mut buffer = software_queue.take_buffer().expect("a buffer");
            software_queue.fill_protected(&mut buffer, &frame, &mut sa).expect("protects");
            software_queue
                .transmit(&mut vec![TransmitPacket::new(buffer, Protection::Clear, 0)])
                .expect("transmit");
            world.drain();
            // then the lines carry the same, and software opens it to what was sent.
            let [one, other] = [device_id, software_id].map(|id| {
                let mut sent = world.take_sent(id);
                assert_eq!(sent.len(), 1);
                sent.remove(0)
            });
            let tunnel = mode == Mode::Tunnel;
            assert_eq!(
                hex::encode(blank(one.clone(), tunnel)),
                hex::encode(blank(other, tunnel)),
                "{mode:?} {esn}"
            );
            assert_eq!(opener.open(&one).expect("opens").0, frame);
        }
        for queue in [&mut device_queue, &mut software_queue] {
            queue.drain(queue.time() + Time::from_milliseconds(1), &mut vec![]).expect("drains");
        }
    }
}

#[test]
fn what_software_protects_a_device_opens() {
    let world = World::new(1);
    let ((sender_id, mut sender), (receiver_id, mut receiver)) = (nic(&world), nic(&world));
    world.connect(sender_id, receiver_id, Time::from_nanoseconds(10));
    let (mut from, mut to) = (clear_queue(&mut sender), clear_queue(&mut receiver));
    let mut sa = sender.software_sa(configuration(Direction::Out, Mode::Tunnel, true)).expect("in software");
    let handle =
        receiver.install_sa(configuration(Direction::In, Mode::Tunnel, true)).expect("in the device");
    for frame in frames() {
        let mut buffer = from.take_buffer().expect("a buffer");
        let sequence = from.fill_protected(&mut buffer, &frame, &mut sa).expect("protects");
        from.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Clear, 0)]).expect("transmit");
        from.drain(from.time() + Time::from_milliseconds(1), &mut vec![]).expect("drains");
        let mut received = vec![];
        while to.receive(&mut received, 1).expect("receive") == 0 {
            to.relax();
        }
        let found = received.remove(0);
        assert_eq!((found.sa(), found.sequence(), found.status()), (Some(handle), sequence, Status::Ok));
        let mut bytes = vec![0; found.length()];
        to.copy_out(found, &mut bytes).expect("in range");
        assert_eq!(bytes, frame);
    }
}

#[test]
fn what_no_sa_of_the_device_takes_comes_up_for_an_sa_in_software() {
    // Given a device that sends by an SA, and one that has none,
    let world = World::new(1);
    let ((sender_id, mut sender), (receiver_id, mut receiver)) = (nic(&world), nic(&world));
    let (mut from, mut to) = (clear_queue(&mut sender), clear_queue(&mut receiver));
    let handle = sender.install_sa(configuration(Direction::Out, Mode::Tunnel, true)).expect("in the device");
    world.record_drops(receiver_id);
    let mut carry = |frame: &[u8]| {
        let mut buffer = from.take_buffer().expect("a buffer");
        from.fill(&mut buffer, frame).expect("fits");
        from.transmit(&mut vec![TransmitPacket::new(buffer, Protection::Sa(handle), 0)]).expect("transmit");
        from.drain(from.time() + Time::from_milliseconds(1), &mut vec![]).expect("drains");
        world.drain();
        world.inject(receiver_id, &world.take_sent(sender_id).remove(0));
        world.drain();
        let mut received = vec![];
        to.receive(&mut received, 8).expect("receive");
        received.pop().map(|one| {
            let mut bytes = vec![0; one.length()];
            let protocol = one.protocol();
            to.copy_out(one, &mut bytes).expect("in range");
            (protocol, bytes)
        })
    };
    // when a packet comes before there is an SA in software, then it is dropped;
    let frames = frames();
    assert!(carry(&frames[0]).is_none());
    assert_eq!(world.take_drops(receiver_id), [Status::NoSa]);
    // and afterwards it comes up as it was on the line, and opens.
    let sa = configuration(Direction::In, Mode::Tunnel, true);
    let mut sa = receiver.software_sa(sa).expect("in software");
    for frame in frames {
        let (protocol, bytes) =
            carry(&frame).unwrap_or_else(|| panic!("dropped: {:?}", world.take_drops(receiver_id)));
        assert_eq!(protocol, ReceivedProtocol::Clear, "the device opened nothing");
        assert_eq!(sa.open(&bytes).expect("opens").0, frame);
    }
}
