//! Every form of SA, once in the device and once in software: the lines carry the same bytes, and both open them to the
//! same frames. What software does is held against captures and a second implementation elsewhere (tests/software.rs,
//! wire/tests); here it is the device, its firmware and the driver's parameters that are on trial.

use std::net::IpAddr;

use cryptonic_driver::{
    Cipher, DfPolicy, Direction, EcnPolicy, FlowLabel, Mode, Network, Nic, OpenOptions, OuterHeader,
    Protection, PspSaConfiguration, QueuePair, QueuePairOptions, Received, SaConfiguration, SecretKey,
    Selector, SourcePort, Status, Time, TransmitPacket, UdpEncapsulation,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

const V4: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 1, 0, 2]];
const V6: [[u8; 16]; 2] = [[0xfd; 16], [0xfc; 16]];

/// A frame of either family, made by an independent library.
fn frame(ipv6: bool, payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|index| (index * 3) as u8).collect();
    let ethernet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut frame = vec![];
    if ipv6 {
        let builder = ethernet.ipv6(V6[0], V6[1], 61).tcp(1234, 5678, 1, 1024);
        builder.write(&mut frame, &payload).expect("a vector takes all");
    } else {
        let builder = ethernet.ipv4(V4[0], V4[1], 61).udp(1234, 5678);
        builder.write(&mut frame, &payload).expect("a vector takes all");
    }
    frame
}

fn key(cipher: Cipher) -> SecretKey {
    let bytes = match cipher {
        Cipher::AesGcm128 | Cipher::AesGmac128 => 16,
        Cipher::AesGcm192 | Cipher::AesGmac192 => 24,
        Cipher::AesGcm256 | Cipher::AesGmac256 => 32,
    };
    SecretKey::new(&vec![0x42; bytes]).expect("a key's length")
}

fn outer(ipv6: bool) -> OuterHeader {
    let address = |last: u8| -> IpAddr {
        if ipv6 { [0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()].into() } else { [192, 0, 2, last].into() }
    };
    // Nothing of the header is left to the sender's choice: it may not be fragmented.
    OuterHeader { df: DfPolicy::Set, ..OuterHeader::new(address(1), address(2)) }
}

/// The SA of one direction; `inner_ipv6` says what it carries.
fn base(
    direction: Direction,
    mode: Mode,
    cipher: Cipher,
    outer_ipv6: bool,
    inner_ipv6: bool,
) -> SaConfiguration {
    let between = |[source, destination]: [IpAddr; 2]| Selector::between(source, destination);
    let needs_outer = mode == Mode::Beet || (mode == Mode::Tunnel && direction == Direction::Out);
    SaConfiguration {
        outer: needs_outer.then(|| outer(outer_ipv6)),
        selector: (mode == Mode::Beet)
            .then(|| if inner_ipv6 { between(V6.map(Into::into)) } else { between(V4.map(Into::into)) }),
        destination: (mode == Mode::Tunnel && direction == Direction::In)
            .then(|| outer(outer_ipv6).destination),
        ..SaConfiguration::new(direction, mode, cipher, key(cipher), [9, 8, 7, 6], 0x1001)
    }
}

type Change = fn(&mut SaConfiguration);

fn is_out(sa: &SaConfiguration) -> bool {
    sa.direction == Direction::Out
}

struct Bench {
    world: World,
    sender: (NicId, Nic, QueuePair),
    receiver: (NicId, Nic, QueuePair),
    other: Nic,
}

impl Bench {
    fn new() -> Bench {
        let world = World::new(1);
        let open = || {
            let id = world.add_nic(&Parameters::default()).expect("the defaults are in range");
            let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("open");
            let queue = nic.create_queue_pair(QueuePairOptions::default()).expect("queue pair");
            (id, nic, queue)
        };
        let (sender, receiver, (_, other, _)) = (open(), open(), open());
        Bench { world, sender, receiver, other }
    }

    /// What leaves the sender.
    fn send(&mut self, frame: &[u8], protection: Protection, name: &str) -> Vec<u8> {
        let (id, _, queue) = &mut self.sender;
        let mut buffer = queue.take_buffer().expect("a buffer");
        queue.fill(&mut buffer, frame).expect("fits");
        queue.transmit(&mut vec![TransmitPacket::new(buffer, protection, 0)]).expect("transmit");
        let mut done = vec![];
        queue.drain(queue.time() + Time::from_milliseconds(1), &mut done).expect("drains");
        assert_eq!(done[0].status, Status::Ok, "{name}");
        self.world.drain();
        let mut sent = self.world.take_sent(*id);
        assert_eq!(sent.len(), 1, "{name}");
        sent.remove(0)
    }

    /// What the receiver makes of a frame.
    fn receive(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let (id, _, queue) = &mut self.receiver;
        self.world.inject(*id, frame);
        self.world.drain();
        let mut received: Vec<Received> = vec![];
        queue.receive(&mut received, 2).expect("receive");
        let found = received.pop()?;
        assert!(found.sa().is_some(), "an SA opened it");
        let mut bytes = vec![0; found.length()];
        queue.copy_out(found, &mut bytes).expect("in range");
        Some(bytes)
    }
}

#[test]
fn every_form_of_esp() {
    let gcm = Cipher::AesGcm128;
    let (tunnel, transport, beet) = (Mode::Tunnel, Mode::Transport, Mode::Beet);
    let cases: Vec<(&str, Mode, Cipher, Change)> = vec![
        ("tunnel", tunnel, gcm, |_| {}),
        ("transport", transport, gcm, |_| {}),
        ("BEET", beet, gcm, |_| {}),
        ("192", tunnel, Cipher::AesGcm192, |_| {}),
        ("256", transport, Cipher::AesGcm256, |_| {}),
        ("ICV 8", tunnel, gcm, |sa| sa.icv_bytes = 8),
        ("ICV 12", transport, gcm, |sa| sa.icv_bytes = 12),
        ("GMAC 128", tunnel, Cipher::AesGmac128, |_| {}),
        ("GMAC 192", transport, Cipher::AesGmac192, |_| {}),
        ("GMAC 256", beet, Cipher::AesGmac256, |_| {}),
        ("GMAC with ESN", tunnel, Cipher::AesGmac128, |sa| {
            sa.esn = true;
            sa.sequence = (5 << 32) - 2;
        }),
        ("ESN", transport, gcm, |sa| {
            sa.esn = true;
            sa.sequence = (5 << 32) - 2;
        }),
        ("implicit IV", tunnel, gcm, |sa| sa.implicit_iv = true),
        ("implicit IV with ESN", beet, gcm, |sa| {
            sa.implicit_iv = true;
            sa.esn = true;
            sa.sequence = (5 << 32) - 2;
        }),
        ("UDP", tunnel, gcm, |sa| sa.encapsulation = Some(UdpEncapsulation::new())),
        ("UDP in transport", transport, gcm, |sa| sa.encapsulation = Some(UdpEncapsulation::new())),
        ("UDP in BEET", beet, gcm, |sa| sa.encapsulation = Some(UdpEncapsulation::new())),
        ("UDP with a checksum", tunnel, gcm, |sa| {
            sa.encapsulation = Some(UdpEncapsulation { checksum: is_out(sa), ..UdpEncapsulation::new() });
        }),
        ("padding", tunnel, gcm, |sa| sa.tfc_bytes = if is_out(sa) { 500 } else { 0 }),
        ("protected options", transport, gcm, |sa| sa.protect_destination_options = is_out(sa)),
        ("outer rules", tunnel, gcm, |sa| {
            if let Some(outer) = &mut sa.outer {
                outer.ttl = None;
                outer.dscp = Some(46);
                outer.ecn = EcnPolicy::NotCapable;
                outer.flow_label = FlowLabel::CopyOr(0x5_4321);
            }
        }),
        ("checked selector", tunnel, gcm, |sa| {
            if !is_out(sa) && sa.destination.is_some_and(|address| address.is_ipv4()) {
                let any = Network { address: [10, 0, 0, 0].into(), bits: 7 };
                sa.selector = Some(Selector { source: any, destination: any, protocol: Some(17) });
                sa.check_selector = true;
            }
        }),
    ];
    for (name, mode, cipher, change) in cases {
        for (outer_ipv6, inner_ipv6) in [(false, false), (false, true), (true, false), (true, true)] {
            if (mode == transport && outer_ipv6 != inner_ipv6) || (name == "checked selector" && inner_ipv6) {
                continue;
            }
            let name = format!("{name}, outer IPv6 {outer_ipv6}, inner IPv6 {inner_ipv6}");
            let sa = |direction| {
                let mut sa = base(direction, mode, cipher, outer_ipv6, inner_ipv6);
                change(&mut sa);
                sa
            };
            let mut bench = Bench::new();
            bench.receiver.1.set_esp_udp_port(Some(4500)).expect("a port");
            let install =
                |nic: &mut Nic, sa| nic.install_sa(sa).unwrap_or_else(|error| panic!("{name}: {error}"));
            let out = install(&mut bench.sender.1, sa(Direction::Out));
            install(&mut bench.receiver.1, sa(Direction::In));
            let mut software_out = bench.other.software_sa(sa(Direction::Out)).expect("in software");
            let mut software_in = bench.other.software_sa(sa(Direction::In)).expect("in software");
            for payload in [0, 1, 40, 700, 1300] {
                let clear = frame(inner_ipv6, payload);
                let sent = bench.send(&clear, Protection::Sa(out), &name);
                let (protected, _) = software_out.protect(&clear).expect("protects");
                assert_eq!(hex::encode(&sent), hex::encode(protected), "{name}, {payload}");
                let by_device = bench.receive(&sent).unwrap_or_else(|| panic!("{name}, {payload}: dropped"));
                let (by_software, _) = software_in.open(&sent).expect("opens");
                assert_eq!(hex::encode(&by_device), hex::encode(by_software), "{name}, {payload}");
                // Padding of the link is not the packet's, and BEET mode rebuilds the header.
                if mode != beet && !name.starts_with("padding") {
                    assert_eq!(hex::encode(&by_device), hex::encode(&clear), "{name}, {payload}");
                }
            }
        }
    }
}

#[test]
fn every_form_of_psp_slots() {
    for version in 0..=3 {
        for (mode, outer_ipv6, inner_ipv6) in [
            (Mode::Transport, false, false),
            (Mode::Transport, true, true),
            (Mode::Tunnel, false, false),
            (Mode::Tunnel, false, true),
            (Mode::Tunnel, true, false),
            (Mode::Tunnel, true, true),
        ] {
            for (crypt_offset, cookie) in
                [(0, None), (5, None), (0, Some(*b"a cookie")), (3, Some(*b"a cookie"))]
            {
                // A version that does not encrypt has no crypt offset.
                if version > 1 && crypt_offset != 0 {
                    continue;
                }
                let name = format!("{version} {mode:?} {outer_ipv6} {inner_ipv6} {crypt_offset} {cookie:?}");
                let sa = || PspSaConfiguration {
                    mode,
                    outer: (mode == Mode::Tunnel).then(|| outer(outer_ipv6)),
                    crypt_offset,
                    source_port: SourcePort::PortsXor,
                    virtualization_cookie: cookie,
                    ..PspSaConfiguration::new(
                        version,
                        SecretKey::new(&vec![0x77; if version % 2 == 0 { 16 } else { 32 }]).expect("a key"),
                        0x1234_5678,
                    )
                };
                let mut bench = Bench::new();
                let nic = &mut bench.sender.1;
                nic.psp_test_iv_load(1).expect("IVs begin at 1");
                let handle = nic.install_psp_sa(sa()).unwrap_or_else(|error| panic!("{name}: {error}"));
                let mut software = bench.other.software_psp_sa(sa()).expect("in software");
                software.load_test_iv(1).expect("IVs begin at 1");
                for payload in [40, 700, 1300] {
                    let clear = frame(inner_ipv6, payload);
                    let sent = bench.send(&clear, Protection::Sa(handle), &name);
                    let (protected, _) = software.protect(&clear).expect("protects");
                    assert_eq!(hex::encode(&sent), hex::encode(protected), "{name}, {payload}");
                }
            }
        }
    }
}
