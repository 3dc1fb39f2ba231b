//! ESP: form × mode × families × size × descriptor format.

use std::net::IpAddr;

use cryptonic_driver::{
    ChecksumState, Cipher, DfPolicy, Direction, EcnPolicy, FlowLabel, Mode, OuterHeader, Protection,
    ReceivedProtocol, SaConfiguration, SecretKey, Selector, Status, UdpEncapsulation,
};

use crate::bench::Backend;
use crate::packets::{self, EXPERIMENT, SHAPES, Shape, TCP, UDP};
use crate::rig::{FORMATS, Rig};
use crate::witness::{self, Outer, Packet};
use crate::{Trials, is_long, trial};

/// What an SA is, but for mode and families.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    cipher: Cipher,
    icv_bytes: u8,
    implicit_iv: bool,
    /// Extended sequence numbers.
    esn: bool,
    /// The last sequence number used before.
    start: u64,
    /// In UDP, and whether with a checksum.
    udp: Option<bool>,
    tfc_bytes: u16,
    protect_destination_options: bool,
}

const GCM: Form = Form {
    name: "gcm-128",
    cipher: Cipher::AesGcm128,
    icv_bytes: 16,
    implicit_iv: false,
    esn: false,
    start: 0,
    udp: None,
    tfc_bytes: 0,
    protect_destination_options: false,
};
/// The low half of the sequence number wraps at the third packet.
const WRAPPING: Form = Form { esn: true, start: 0x0000_0007_ffff_fffd, ..GCM };

const FORMS: [Form; 20] = [
    GCM,
    Form { name: "gcm-192", cipher: Cipher::AesGcm192, ..GCM },
    Form { name: "gcm-256", cipher: Cipher::AesGcm256, ..GCM },
    Form { name: "gcm-128 icv 8", icv_bytes: 8, ..GCM },
    Form { name: "gcm-256 icv 12", cipher: Cipher::AesGcm256, icv_bytes: 12, ..GCM },
    Form { name: "gcm-128 implicit iv", implicit_iv: true, ..GCM },
    Form { name: "gcm-128 esn", ..WRAPPING },
    Form { name: "gcm-192 esn icv 8", cipher: Cipher::AesGcm192, icv_bytes: 8, ..WRAPPING },
    Form { name: "gcm-256 esn implicit iv", cipher: Cipher::AesGcm256, implicit_iv: true, ..WRAPPING },
    Form { name: "gmac-128", cipher: Cipher::AesGmac128, ..GCM },
    Form { name: "gmac-192", cipher: Cipher::AesGmac192, ..GCM },
    Form { name: "gmac-256", cipher: Cipher::AesGmac256, ..GCM },
    Form { name: "gmac-128 esn", cipher: Cipher::AesGmac128, ..WRAPPING },
    Form { name: "gcm-128 udp", udp: Some(false), ..GCM },
    Form { name: "gcm-256 udp checksum", cipher: Cipher::AesGcm256, udp: Some(true), ..GCM },
    Form { name: "gmac-256 esn udp", cipher: Cipher::AesGmac256, udp: Some(false), ..WRAPPING },
    Form { name: "gcm-128 implicit iv udp checksum", implicit_iv: true, udp: Some(true), ..GCM },
    Form { name: "gcm-128 tfc", tfc_bytes: 1200, ..GCM },
    Form { name: "gmac-128 tfc esn", cipher: Cipher::AesGmac128, tfc_bytes: 300, ..WRAPPING },
    Form { name: "gcm-128 destination options", protect_destination_options: true, ..GCM },
];

/// Mode and families: whether the inner packet is IPv6, and the outer header.
#[derive(Clone, Copy, Debug)]
struct Carriage {
    mode: Mode,
    inner_ipv6: bool,
    outer_ipv6: bool,
}

fn carriages() -> impl Iterator<Item = Carriage> {
    [Mode::Tunnel, Mode::Transport, Mode::Beet].into_iter().flat_map(|mode| {
        [false, true].into_iter().flat_map(move |inner_ipv6| {
            [false, true].into_iter().map(move |outer_ipv6| Carriage { mode, inner_ipv6, outer_ipv6 })
        })
    })
}

impl Carriage {
    /// Whether the standards know this form in this mode.
    fn suits(self, form: &Form) -> bool {
        let one_family = self.mode != Mode::Transport || self.inner_ipv6 == self.outer_ipv6;
        // Over IPv4 the checksum is 0 (RFC 3948 2.1).
        let checksum = form.udp != Some(true) || self.outer_ipv6;
        let tfc = form.tfc_bytes == 0 || self.mode == Mode::Tunnel;
        let options = !form.protect_destination_options || (self.mode == Mode::Transport && self.inner_ipv6);
        one_family && checksum && tfc && options
    }

    fn name(self) -> String {
        let family = |ipv6| if ipv6 { "v6" } else { "v4" };
        match self.mode {
            Mode::Transport => format!("transport {}", family(self.inner_ipv6)),
            mode => format!("{} {} in {}", mode.name(), family(self.inner_ipv6), family(self.outer_ipv6)),
        }
    }
}

/// Bytes of the upper protocol, with its header: none, one, around the edges of blocks, a full and a jumbo frame.
pub const SIZES: [usize; 18] = [0, 1, 2, 3, 13, 14, 15, 16, 17, 31, 32, 33, 48, 63, 64, 256, 1440, 8900];

/// The upper protocol of a packet of this size: each that fits in turn.
pub fn protocol(bytes: usize) -> u8 {
    match bytes {
        0..8 => EXPERIMENT,
        8..20 => UDP,
        bytes if bytes.is_multiple_of(2) => TCP,
        _ => UDP,
    }
}

pub fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).expect("4 or 16 bytes").into(),
    }
}

/// The ends of a tunnel.
pub fn ends(ipv6: bool) -> (Vec<u8>, Vec<u8>) {
    if ipv6 {
        let end = |last| [&[0x20, 0x01, 0x0d, 0xb8, 0xff][..], &[0; 10], &[last]].concat();
        (end(1), end(2))
    } else {
        (vec![192, 0, 2, 1], vec![192, 0, 2, 2])
    }
}

pub fn outer(ipv6: bool) -> Outer {
    let (source, destination) = ends(ipv6);
    Outer {
        source,
        destination,
        ttl: Some(64),
        dscp: None,
        dont_fragment: None,
        ecn_compatibility: false,
        flow_label: Some(0),
    }
}

fn key(cipher: Cipher) -> Vec<u8> {
    let bytes = match cipher {
        Cipher::AesGcm128 | Cipher::AesGmac128 => 16,
        Cipher::AesGcm192 | Cipher::AesGmac192 => 24,
        Cipher::AesGcm256 | Cipher::AesGmac256 => 32,
    };
    (0..bytes).map(|index| 0x40 + index * 3).collect()
}

const SALT: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];
const SPI: u32 = 0x8000_1001;

/// The SA as the driver takes it.
fn configuration(form: &Form, carriage: Carriage, direction: Direction, sample: &Packet) -> SaConfiguration {
    let (source, destination) = ends(carriage.outer_ipv6);
    let (source, destination) = (address(&source), address(&destination));
    let key = SecretKey::new(&key(form.cipher)).expect("a key");
    let out = direction == Direction::Out;
    SaConfiguration {
        icv_bytes: form.icv_bytes,
        esn: form.esn,
        implicit_iv: form.implicit_iv,
        sequence: form.start,
        outer: (carriage.mode != Mode::Transport).then(|| OuterHeader::new(source, destination)),
        encapsulation: form.udp.map(|checksum| UdpEncapsulation {
            source_port: 4500,
            destination_port: 4500,
            checksum: checksum && out,
        }),
        selector: (carriage.mode == Mode::Beet)
            .then(|| Selector::between(address(&sample.source), address(&sample.destination))),
        tfc_bytes: if out { form.tfc_bytes } else { 0 },
        protect_destination_options: out && form.protect_destination_options,
        ..SaConfiguration::new(direction, carriage.mode, form.cipher, key, SALT, SPI)
    }
}

/// The SA as the witness takes it.
fn witness(form: &Form, carriage: Carriage) -> witness::Esp {
    let (source, destination) = ends(carriage.outer_ipv6);
    witness::Esp {
        key: key(form.cipher),
        salt: SALT,
        spi: SPI,
        gmac: matches!(form.cipher, Cipher::AesGmac128 | Cipher::AesGmac192 | Cipher::AesGmac256),
        icv_bytes: form.icv_bytes.into(),
        implicit_iv: form.implicit_iv,
        extended_sequence: form.esn,
        udp: form.udp.map(|checksum| (4500, 4500, checksum)),
        tfc_bytes: form.tfc_bytes.into(),
        protect_destination_options: form.protect_destination_options,
        mode: match carriage.mode {
            Mode::Tunnel => witness::Mode::Tunnel(outer(carriage.outer_ipv6)),
            Mode::Transport => witness::Mode::Transport,
            Mode::Beet => witness::Mode::Beet { source, destination },
        },
    }
}

/// The cases of the table.
pub fn trials(trials: &mut Trials, backend: Backend) {
    for form in FORMS {
        for carriage in carriages().filter(|carriage| carriage.suits(&form)) {
            let name = format!("esp {}, {}", form.name, carriage.name());
            trials.push(trial(backend, name, move || form_in_carriage(backend, &form, carriage)));
        }
    }
    for inner_ipv6 in [false, true] {
        for outer_ipv6 in [false, true] {
            let carriage = Carriage { mode: Mode::Tunnel, inner_ipv6, outer_ipv6 };
            let name = format!("esp outer header rules, {}", carriage.name());
            trials.push(trial(backend, name, move || outer_rules(backend, carriage)));
        }
    }
}

/// Given an SA and its peer, when packets of every size leave in every descriptor format, then they are those of the
/// witness, and open to what they were; a changed one and a repeated one do not open.
fn form_in_carriage(backend: Backend, form: &Form, carriage: Carriage) {
    let mut rig = Rig::on(backend, &FORMATS);
    let sample = packets::packet(carriage.inner_ipv6, Shape::Plain, EXPERIMENT, 0);
    let witness = witness(form, carriage);
    let out = configuration(form, carriage, Direction::Out, &sample);
    let out = rig.sender.install_sa(out).expect("out");
    let into = configuration(form, carriage, Direction::In, &sample);
    rig.receiver.install_sa(into).expect("in");

    let mut sequence = form.start;
    for (turn, bytes) in SIZES.into_iter().enumerate() {
        for (number, format) in FORMATS.iter().enumerate() {
            for shape in shapes(form, carriage, turn + number) {
                let inner = packets::packet(carriage.inner_ipv6, shape, protocol(bytes), bytes);
                let at = format!("{bytes} bytes, {shape:?}, descriptor {}", format.name);
                sequence += 1;
                let expected = witness.protect(&inner, sequence);
                let sent = rig.send(number, &inner.frame(), Protection::Sa(out));
                assert_same(&sent, &expected, &at);
                opens(&mut rig, &inner, &expected, sequence, carriage, &at);
            }
        }
    }
}

/// The shapes that a packet takes here: one in turn, or all in the long form.
fn shapes(form: &Form, carriage: Carriage, turn: usize) -> Vec<Shape> {
    if form.protect_destination_options {
        return vec![Shape::DestinationOptions];
    }
    // BEET carries neither IPv4 options nor extension headers (RFC 7402 appendix B: software's).
    let allowed: Vec<Shape> = SHAPES
        .into_iter()
        .filter(|shape| {
            carriage.mode != Mode::Beet || !matches!(shape, Shape::Options | Shape::DestinationOptions)
        })
        .collect();
    if is_long() { allowed } else { vec![allowed[turn % allowed.len()]] }
}

/// A frame on the wire is padded to 60 bytes (IEEE 802.3 4.2.3.3).
pub fn assert_same(sent: &Result<Vec<u8>, Status>, expected: &[u8], at: &str) {
    let sent = sent.as_ref().unwrap_or_else(|status| panic!("{at}: not sent, {}", status.name()));
    let mut padded = expected.to_vec();
    padded.resize(expected.len().max(60), 0);
    if *sent != padded {
        let differs = sent.iter().zip(&padded).position(|(one, other)| one != other);
        panic!(
            "{at}: {} bytes for {}, first difference at {differs:?}\nsent     {}\nexpected {}",
            sent.len(),
            padded.len(),
            hex::encode(&sent[..sent.len().min(160)]),
            hex::encode(&padded[..padded.len().min(160)])
        );
    }
}

fn opens(rig: &mut Rig, inner: &Packet, expected: &[u8], sequence: u64, carriage: Carriage, at: &str) {
    let mut changed = expected.to_vec();
    // Somewhere in trailer or ICV; every packet has at least as many octets there.
    let place = changed.len() - 1 - (sequence as usize * 5) % 10;
    changed[place] ^= 1 << (sequence % 8);
    assert_eq!(rig.receive(&changed).map(|_| ()), Err(Status::IcvMismatch), "{at}: changed");

    let delivered = rig.receive(expected).unwrap_or_else(|status| panic!("{at}: dropped, {}", status.name()));
    let mut clear = inner.clone();
    if carriage.mode == Mode::Beet && carriage.inner_ipv6 != carriage.outer_ipv6 {
        // The inner header is made anew (RFC 7402 appendix B), and an outer header of another family has not carried these.
        clear.identification = 0;
        clear.flow_label = 0;
    }
    assert_eq!(hex::encode(&delivered.frame), hex::encode(clear.frame()), "{at}: opened");
    let facts = delivered.facts;
    assert_eq!((facts.protocol, facts.spi, facts.sequence), (ReceivedProtocol::Esp, SPI, sequence), "{at}");
    let next_header = match (carriage.mode, inner.is_ipv4()) {
        (Mode::Tunnel, true) => 4,
        (Mode::Tunnel, false) => 41,
        _ => facts.next_header,
    };
    assert_eq!(facts.next_header, next_header, "{at}: next header");
    let checksum = if inner.is_ipv4() { ChecksumState::Good } else { ChecksumState::NotChecked };
    assert_eq!(facts.ip_checksum, checksum, "{at}: IPv4 checksum");
    assert_ne!(facts.l4_checksum, ChecksumState::Bad, "{at}: checksum");

    assert_eq!(rig.receive(expected).map(|_| ()), Err(Status::ReplayDuplicate), "{at}: repeated");
}

/// TTL, DSCP, don't-fragment, ECN and flow label, each by rule (RFC 4301 5.1.2 and 8.1, RFC 6040, RFC 6438).
fn outer_rules(backend: Backend, carriage: Carriage) {
    let mut rig = Rig::on(backend, &FORMATS[..1]);
    for turn in 0..72_u32 {
        let pick = |of: u32, by: u32| turn / by % of;
        let ttl = [Some(64), None][pick(2, 1) as usize];
        let dscp = [None, Some(0x2e)][pick(2, 2) as usize];
        let ecn_compatibility = pick(2, 4) == 1;
        let (df, dont_fragment) =
            [(DfPolicy::Copy, None), (DfPolicy::Set, Some(true)), (DfPolicy::Clear, Some(false))]
                [pick(3, 8) as usize];
        let (label, flow_label) = [
            (FlowLabel::Fixed(0), Some(0)),
            (FlowLabel::Fixed(0xabcde), Some(0xabcde)),
            (FlowLabel::CopyOr(0), None),
        ][pick(3, 24) as usize];
        let mut header = OuterHeader {
            ttl,
            dscp,
            ..configuration(&GCM, carriage, Direction::Out, &sample(carriage)).outer.expect("a tunnel")
        };
        header.ecn = if ecn_compatibility { EcnPolicy::NotCapable } else { EcnPolicy::Copy };
        // What a family does not have must not be asked for.
        if carriage.outer_ipv6 {
            header.flow_label = label
        } else {
            header.df = df
        }
        let rules =
            Outer { ttl, dscp, dont_fragment, ecn_compatibility, flow_label, ..outer(carriage.outer_ipv6) };

        let mut form = GCM;
        form.start = u64::from(turn) * 10;
        let out = SaConfiguration {
            outer: Some(header),
            ..configuration(&form, carriage, Direction::Out, &sample(carriage))
        };
        let out = rig.sender.install_sa(out).expect("out");
        for ecn in 0..4 {
            let mut inner = packets::packet(carriage.inner_ipv6, Shape::Plain, UDP, 40);
            inner.traffic_class = 0xb8 | ecn;
            inner.dont_fragment = turn % 2 == 0;
            let at = format!(
                "ttl {ttl:?}, dscp {dscp:?}, {df:?}, {label:?}, compatibility {ecn_compatibility}, ecn {ecn}"
            );
            let sent = rig.send(0, &inner.frame(), Protection::Sa(out));
            let witness =
                witness::Esp { mode: witness::Mode::Tunnel(rules.clone()), ..witness(&form, carriage) };
            let mut expected = witness.protect(&inner, form.start + 1 + u64::from(ecn));
            let may_be_fragmented = !carriage.outer_ipv6 && expected[20] & 0x40 == 0;
            if let Ok(sent) = &sent
                && may_be_fragmented
            {
                // The sender chooses the identification (RFC 6864 4.3).
                expected[18..20].copy_from_slice(&sent[18..20]);
                expected[24..26].fill(0);
                let checksum = witness::internet_checksum(&expected[14..34]);
                expected[24..26].copy_from_slice(&checksum.to_be_bytes());
            }
            assert_same(&sent, &expected, &at);
        }
        rig.sender.delete_sa(out).expect("deleted");
    }
}

fn sample(carriage: Carriage) -> Packet {
    packets::packet(carriage.inner_ipv6, Shape::Plain, EXPERIMENT, 0)
}
