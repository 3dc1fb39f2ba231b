//! SA configurations: the words that reach the device, what is refused by whom, and the key ledger.

mod fake;

use std::net::IpAddr;

use cryptonic_driver::{
    Cipher, DfPolicy, Direction, EcnPolicy, Error, FlowLabel, KeyLedger, Mode, Network, Nic, OpenOptions,
    OuterHeader, PspSaConfiguration, SaConfiguration, SecretKey, Selector, SourcePort, UdpEncapsulation,
};
use cryptonic_regs::admin::SaParameters;
use cryptonic_regs::bar0::{CIPHER_CAPABILITY, CipherCapability, PROTOCOL_CAPABILITY, TIME_PICOSECONDS};
use fake::Fake;

const V4: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2))];

fn v6(last: u16) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
}

fn key(bytes: usize, fill: u8) -> SecretKey {
    SecretKey::new(&vec![fill; bytes]).unwrap()
}

fn base(direction: Direction, mode: Mode) -> SaConfiguration {
    SaConfiguration::new(direction, mode, Cipher::AesGcm128, key(16, 1), *b"salt", 0x1001)
}

/// A device that can do everything.
fn able() -> (Fake, Nic) {
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(CIPHER_CAPABILITY.offset, 0x7f);
    let nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    (fake, nic)
}

fn installed(sa: SaConfiguration) -> SaParameters {
    let (fake, mut nic) = able();
    nic.install_sa(sa).unwrap();
    let words: [u64; SaParameters::WORDS] = fake.device.borrow().parameters[0].clone().try_into().unwrap();
    SaParameters::of_words(&words)
}

fn installed_psp(sa: PspSaConfiguration) -> SaParameters {
    let (fake, mut nic) = able();
    nic.install_psp_sa(sa).unwrap();
    let words: [u64; SaParameters::WORDS] = fake.device.borrow().parameters[0].clone().try_into().unwrap();
    SaParameters::of_words(&words)
}

#[test]
fn defaults_are_zeros_but_for_what_was_given() {
    let found = installed(base(Direction::Out, Mode::Transport));
    assert_eq!((found.form.direction(), found.form.protocol(), found.form.mode()), (0, 1, 1));
    assert_eq!((found.form.icv_bytes(), found.names.spi()), (16, 0x1001));
    assert_eq!((found.options.into_bits(), found.selector.into_bits(), found.psp_cookie), (0, 0, 0));
    assert_eq!((found.window.into_bits(), found.sequence, found.tunnel_source_0), (0, 0, 0));
    assert_eq!(installed(base(Direction::In, Mode::Tunnel)).window.replay_window(), 1024);
}

#[test]
fn outer_rules_of_both_families() {
    let outer = OuterHeader {
        ttl: None,
        df: DfPolicy::Set,
        dscp: Some(46),
        ecn: EcnPolicy::NotCapable,
        flow_label: FlowLabel::CopyOr(0x1_2345),
        ..OuterHeader::new(V4[0], V4[1])
    };
    let found = installed(SaConfiguration { outer: Some(outer), ..base(Direction::Out, Mode::Tunnel) });
    assert_eq!((found.form.ttl(), found.form.df(), found.form.dscp()), (0, 1, 46));
    assert_eq!((found.form.copy_dscp(), found.options.ecn(), found.form.outer_ipv6()), (false, 1, false));
    assert_eq!((found.options.flow_label_policy(), found.window.flow_label()), (0, 0), "IPv4 has none");
    assert_eq!(found.tunnel_source_1.to_le_bytes(), [0, 0, 0, 0, 192, 0, 2, 1]);

    let outer = OuterHeader { source: v6(1), destination: v6(2), ttl: Some(7), dscp: None, ..outer };
    let found = installed(SaConfiguration { outer: Some(outer), ..base(Direction::Out, Mode::Tunnel) });
    assert_eq!((found.form.ttl(), found.form.df(), found.form.copy_dscp()), (7, 0, true), "IPv6 has no DF");
    assert_eq!((found.options.flow_label_policy(), found.window.flow_label()), (1, 0x1_2345));
    assert_eq!(found.tunnel_destination_1.to_le_bytes(), [0, 0, 0, 0, 0, 0, 0, 2]);
    let outer = OuterHeader { flow_label: FlowLabel::Hash, ..outer };
    let found = installed(SaConfiguration { outer: Some(outer), ..base(Direction::Out, Mode::Tunnel) });
    assert_eq!((found.options.flow_label_policy(), found.window.flow_label()), (2, 0));
}

#[test]
fn every_option_of_esp() {
    let found = installed(SaConfiguration {
        encapsulation: Some(UdpEncapsulation { source_port: 4501, destination_port: 4502, checksum: true }),
        implicit_iv: true,
        protect_destination_options: true,
        ..base(Direction::Out, Mode::Transport)
    });
    assert!(found.form.implicit_iv() && found.options.udp_encapsulation() && found.options.udp_checksum());
    assert!(found.options.protect_destination_options());
    assert_eq!((found.options.udp_source_port(), found.selector.udp_destination_port()), (4501, 4502));
    assert!(!found.selector.present());

    let found = installed(SaConfiguration {
        outer: Some(OuterHeader::new(V4[0], V4[1])),
        tfc_bytes: 1400,
        cipher: Cipher::AesGmac192,
        key: key(24, 3),
        ..base(Direction::Out, Mode::Tunnel)
    });
    assert_eq!((found.options.tfc_bytes(), found.form.cipher()), (1400, 4));

    let selector = Selector {
        source: Network { address: [10, 0, 0, 0].into(), bits: 8 },
        destination: Network { address: [10, 1, 0, 0].into(), bits: 16 },
        protocol: Some(6),
    };
    let found = installed(SaConfiguration {
        selector: Some(selector),
        check_selector: true,
        refuse_clear: true,
        receive_scaling: true,
        encapsulation: Some(UdpEncapsulation::new()),
        icv_bytes: 12,
        destination: Some(V4[1]),
        ..base(Direction::In, Mode::Tunnel)
    });
    assert!(found.options.check_selector() && found.options.refuse_clear() && found.form.receive_scaling());
    assert!(found.selector.present() && found.selector.match_protocol() && !found.selector.ipv6());
    assert_eq!((found.selector.protocol(), found.form.icv_bytes()), (6, 12));
    assert_eq!((found.selector.source_bits(), found.selector.destination_bits()), (8, 16));
    assert_eq!(found.selector_source_1.to_le_bytes(), [0, 0, 0, 0, 10, 0, 0, 0]);
    assert_eq!(found.selector_destination_1.to_le_bytes(), [0, 0, 0, 0, 10, 1, 0, 0]);
    assert!(found.options.udp_encapsulation(), "in: packets in UDP alone, of any port");
    assert_eq!((found.options.udp_source_port(), found.selector.udp_destination_port()), (0, 0));

    for direction in [Direction::Out, Direction::In] {
        let found = installed(SaConfiguration {
            selector: Some(Selector::between(v6(1), v6(2))),
            outer: Some(OuterHeader::new(V4[0], V4[1])),
            ..base(direction, Mode::Beet)
        });
        assert_eq!((found.form.mode(), found.form.outer_ipv6(), found.selector.ipv6()), (2, false, true));
        assert_eq!((found.selector.source_bits(), found.selector.destination_bits()), (128, 128));
        assert_eq!((found.form.ttl(), found.form.copy_dscp()), (0, false), "BEET copies; it has no rules");
        assert_ne!(found.tunnel_source_1, 0);
    }
}

#[test]
fn psp_slots() {
    for (version, bytes, cipher) in [(0, 16, 0), (1, 32, 2)] {
        let found = installed_psp(PspSaConfiguration {
            crypt_offset: 5,
            source_port: SourcePort::Fixed(777),
            virtualization_cookie: Some(*b"\x01\x02\x03\x04\x05\x06\x07\x08"),
            ..PspSaConfiguration::new(version, key(bytes, 9), 0x8000_0001)
        });
        assert_eq!((found.form.direction(), found.form.protocol(), found.form.mode()), (0, 2, 1));
        assert_eq!((found.form.cipher(), found.form.icv_bytes()), (cipher, 16));
        assert_eq!((found.names.spi(), found.options.psp_crypt_offset()), (0x8000_0001, 5));
        assert_eq!((found.options.psp_source_port_policy(), found.options.udp_source_port()), (2, 777));
        assert!(found.options.psp_cookie());
        assert_eq!(found.psp_cookie, 0x0807_0605_0403_0201);
        assert_eq!((found.sequence, found.salt.into_bits()), (0, 0));
    }
    let found = installed_psp(PspSaConfiguration {
        mode: Mode::Tunnel,
        outer: Some(OuterHeader::new(v6(1), v6(2))),
        ..PspSaConfiguration::new(0, key(16, 9), 1)
    });
    assert_eq!((found.form.mode(), found.form.outer_ipv6(), found.form.ttl()), (0, true, 64));
    assert_eq!((found.options.psp_source_port_policy(), found.options.psp_cookie()), (0, false));
}

#[test]
fn what_no_device_can_do_is_an_argument() {
    let (fake, mut nic) = able();
    let (out, incoming) = (Direction::Out, Direction::In);
    let network = |bits| Network { address: [10, 0, 0, 0].into(), bits };
    let selector = |bits| Selector { source: network(bits), destination: network(8), protocol: None };
    let outer = OuterHeader::new(V4[0], V4[1]);
    let tunnel = |outer| SaConfiguration { outer: Some(outer), ..base(out, Mode::Tunnel) };
    let cases: Vec<(&str, SaConfiguration)> = vec![
        (
            "GMAC, short ICV",
            SaConfiguration { cipher: Cipher::AesGmac128, icv_bytes: 12, ..base(out, Mode::Transport) },
        ),
        (
            "implicit IV, short ICV",
            SaConfiguration { implicit_iv: true, icv_bytes: 8, ..base(out, Mode::Transport) },
        ),
        (
            "implicit IV of GMAC",
            SaConfiguration { implicit_iv: true, cipher: Cipher::AesGmac128, ..base(out, Mode::Transport) },
        ),
        ("ICV", SaConfiguration { icv_bytes: 10, ..base(out, Mode::Transport) }),
        (
            "BEET without addresses",
            SaConfiguration { selector: Some(Selector::between(V4[0], V4[1])), ..base(incoming, Mode::Beet) },
        ),
        ("BEET without inner addresses", SaConfiguration { outer: Some(outer), ..base(out, Mode::Beet) }),
        (
            "BEET of networks",
            SaConfiguration { outer: Some(outer), selector: Some(selector(8)), ..base(out, Mode::Beet) },
        ),
        ("nothing to check", SaConfiguration { check_selector: true, ..base(incoming, Mode::Tunnel) }),
        ("nothing to refuse", SaConfiguration { refuse_clear: true, ..base(incoming, Mode::Tunnel) }),
        (
            "long prefix",
            SaConfiguration {
                check_selector: true,
                selector: Some(selector(33)),
                ..base(incoming, Mode::Tunnel)
            },
        ),
        (
            "mixed selector",
            SaConfiguration {
                check_selector: true,
                selector: Some(Selector::between(V4[0], v6(1))),
                ..base(incoming, Mode::Tunnel)
            },
        ),
        ("selector out", SaConfiguration { selector: Some(selector(8)), ..base(out, Mode::Transport) }),
        (
            "options in",
            SaConfiguration { protect_destination_options: true, ..base(incoming, Mode::Transport) },
        ),
        ("padding in transport", SaConfiguration { tfc_bytes: 100, ..base(out, Mode::Transport) }),
        (
            "queue and scaling",
            SaConfiguration { receive_scaling: true, receive_queue: 1, ..base(incoming, Mode::Transport) },
        ),
        (
            "UDP port 0",
            SaConfiguration {
                encapsulation: Some(UdpEncapsulation { source_port: 0, ..UdpEncapsulation::new() }),
                ..base(out, Mode::Transport)
            },
        ),
        ("scaling out", SaConfiguration { receive_scaling: true, ..base(out, Mode::Transport) }),
        ("window out", SaConfiguration { replay_window: 64, ..base(out, Mode::Transport) }),
        ("queue out", SaConfiguration { receive_queue: 1, ..base(out, Mode::Transport) }),
        ("destination out", SaConfiguration { destination: Some(V4[0]), ..base(out, Mode::Transport) }),
        ("DSCP", tunnel(OuterHeader { dscp: Some(64), ..outer })),
        ("flow label", tunnel(OuterHeader { flow_label: FlowLabel::Fixed(1 << 20), ..outer })),
        ("flow label", tunnel(OuterHeader { flow_label: FlowLabel::CopyOr(1 << 20), ..outer })),
        ("TTL", tunnel(OuterHeader { ttl: Some(0), ..outer })),
        ("families", tunnel(OuterHeader { destination: v6(1), ..outer })),
    ];
    for (name, sa) in cases {
        let outcome = nic.install_sa(sa);
        assert!(matches!(outcome, Err(Error::Argument(_))), "{name}: {outcome:?}");
    }
    let psp = |version, bytes, spi| PspSaConfiguration::new(version, key(bytes, 9), spi);
    let cases = [
        ("version", psp(4, 16, 1)),
        ("key", psp(1, 16, 1)),
        ("SPI", psp(0, 16, 0x8000_0000)),
        ("BEET", PspSaConfiguration { mode: Mode::Beet, ..psp(0, 16, 1) }),
        ("no outer header", PspSaConfiguration { mode: Mode::Tunnel, ..psp(0, 16, 1) }),
        ("an outer header", PspSaConfiguration { outer: Some(outer), ..psp(0, 16, 1) }),
        ("crypt offset", PspSaConfiguration { crypt_offset: 64, ..psp(0, 16, 1) }),
        ("crypt offset of GMAC", PspSaConfiguration { crypt_offset: 1, ..psp(2, 16, 1) }),
    ];
    for (name, sa) in cases {
        let outcome = nic.install_psp_sa(sa);
        assert!(matches!(outcome, Err(Error::Argument(_))), "{name}: {outcome:?}");
    }
    assert!(fake.device.borrow().parameters.is_empty());
}

#[test]
fn everything_that_a_device_lacks_is_named_at_once() {
    let fake = Fake::new();
    fake.device.borrow_mut().registers.insert(PROTOCOL_CAPABILITY.offset, 0);
    fake.device.borrow_mut().registers.insert(CIPHER_CAPABILITY.offset, 0);
    let mut nic = Nic::open(fake.host(), OpenOptions::default()).unwrap();
    let sa = || SaConfiguration {
        cipher: Cipher::AesGcm192,
        key: key(24, 1),
        icv_bytes: 8,
        esn: true,
        replay_window: 4096,
        receive_queue: 9,
        encapsulation: Some(UdpEncapsulation::new()),
        selector: Some(Selector::between(V4[0], V4[1])),
        refuse_clear: true,
        ..base(Direction::In, Mode::Tunnel)
    };
    let lacks = nic.information().capabilities.supports(&sa()).unwrap_err();
    assert_eq!(
        lacks.sentences().collect::<Vec<_>>(),
        [
            "the device does not support ESP",
            "the device does not support ESP in tunnel mode",
            "the device does not support AES-GCM with a 192-bit key",
            "the device does not support an ICV of 8 bytes",
            "the device does not support extended sequence numbers",
            "the device does not support ESP in UDP",
            "the device does not support selectors of inbound SAs",
            "the device does not support a replay window of more than 1024 packets",
            "the device does not support more than 4 queue pairs",
        ]
    );
    assert!(matches!(nic.install_sa(sa()), Err(Error::Unsupported(found)) if found == lacks));
    let psp = PspSaConfiguration {
        virtualization_cookie: Some([1; 8]),
        ..PspSaConfiguration::new(3, key(32, 1), 1)
    };
    let lacks = nic.information().capabilities.supports_psp(&psp).unwrap_err();
    assert_eq!(lacks.sentences().count(), 5);
    assert!(lacks.to_string().contains("version 3 of PSP; PSP in transport mode; PSP cookies"), "{lacks}");
    assert!(fake.device.borrow().parameters.is_empty());

    // One who can do it all lacks nothing.
    let (_fake, nic) = able();
    let cipher = nic.information().capabilities.cipher;
    assert_eq!(cipher, CipherCapability::from_bits(0x7f));
    let able = SaConfiguration { replay_window: 1024, receive_queue: 3, ..sa() };
    assert_eq!(nic.information().capabilities.supports(&able), Ok(()));
}

#[test]
fn a_psp_key_is_used_by_one_slot_at_a_time_and_never_behind_the_clock() {
    let fake = Fake::new();
    let ledger = KeyLedger::new();
    let open = |fake: &Fake| {
        let options = OpenOptions { key_ledger: ledger.clone(), ..OpenOptions::default() };
        Nic::open(fake.host(), options).unwrap()
    };
    let clock = |fake: &Fake, now: u32| {
        fake.device.borrow_mut().registers.insert(TIME_PICOSECONDS.offset, now);
    };
    let psp = || PspSaConfiguration::new(0, key(16, 7), 5);
    clock(&fake, 1000);
    let mut nic = open(&fake);
    let sa = nic.install_psp_sa(psp()).unwrap();
    assert!(matches!(nic.install_psp_sa(psp()), Err(Error::KeyInUse)));
    // Nor by ESP: the ledger knows keys, not protocols.
    let esp = SaConfiguration { key: key(16, 7), ..base(Direction::Out, Mode::Transport) };
    assert!(matches!(nic.install_sa(esp), Err(Error::KeyInUse)));
    clock(&fake, 5000);
    nic.delete_sa(sa).unwrap();
    // The clock has gone on: it needs no start sequence.
    clock(&fake, 5001);
    let sa = nic.install_psp_sa(psp()).unwrap();
    clock(&fake, 9000);
    nic.delete_sa(sa).unwrap();

    // Another device whose clock is behind would use IVs a second time.
    let other = Fake::new();
    clock(&other, 8999);
    let mut behind = open(&other);
    assert!(matches!(behind.install_psp_sa(psp()), Err(Error::KeyReused { lowest: Some(9000) })));
    clock(&other, 9000);
    behind.install_psp_sa(psp()).unwrap();
}
