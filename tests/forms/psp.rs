//! PSP: version × mode × families × crypt offset × cookie × where the key stands × size × descriptor format.

use cryptonic_driver::{
    Mode, OuterHeader, Protection, PspDeviceKeys, PspSaConfiguration, PspTransmit, ReceivedProtocol,
    SecretKey, SourcePort, Status,
};

use crate::bench::Backend;
use crate::esp::{SIZES, address, assert_same, ends, outer, protocol};
use crate::packets::{self, SHAPES};
use crate::rig::{FORMATS, Format, Rig};
use crate::witness::{self, Packet, psp_key};
use crate::{Trials, is_long, trial};

const DEVICE_KEYS: [[u8; 32]; 2] = [[0x31; 32], [0x9c; 32]];
const COOKIE: [u8; 8] = [0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];
/// Of each device key one.
const SPIS: [u32; 2] = [0x1234_5678, 0x9a34_5678];
const CRYPT_OFFSETS: [usize; 6] = [0, 1, 2, 5, 11, 63];

/// Where the key of a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Slot,
    Descriptor,
    /// In the descriptor, and the frame has its headers already.
    Preformatted,
}

#[derive(Clone, Copy, Debug)]
struct Form {
    version: u8,
    carrier: Carrier,
    tunnel: bool,
    inner_ipv6: bool,
    outer_ipv6: bool,
    cookie: bool,
}

fn forms() -> impl Iterator<Item = Form> {
    let both = [false, true];
    (0..4)
        .flat_map(move |version| {
            [Carrier::Slot, Carrier::Descriptor, Carrier::Preformatted].into_iter().flat_map(move |carrier| {
                both.into_iter().flat_map(move |tunnel| {
                    both.into_iter().flat_map(move |inner_ipv6| {
                        both.into_iter().flat_map(move |outer_ipv6| {
                            both.into_iter().map(move |cookie| Form {
                                version,
                                carrier,
                                tunnel,
                                inner_ipv6,
                                outer_ipv6,
                                cookie,
                            })
                        })
                    })
                })
            })
        })
        .filter(|form| form.tunnel || form.inner_ipv6 == form.outer_ipv6)
        // A descriptor has no room for an outer header: tunnels are in slots, or pre-formatted.
        .filter(|form| !(form.tunnel && form.carrier == Carrier::Descriptor))
}

/// The cases of the table.
pub fn trials(trials: &mut Trials, backend: Backend) {
    for form in forms() {
        let family = |ipv6| if ipv6 { "v6" } else { "v4" };
        let mode = if form.tunnel {
            format!("tunnel {} in {}", family(form.inner_ipv6), family(form.outer_ipv6))
        } else {
            format!("transport {}", family(form.inner_ipv6))
        };
        let cookie = if form.cookie { ", cookie" } else { "" };
        let name = format!("psp version {}, {mode}, {:?}{cookie}", form.version, form.carrier);
        trials.push(trial(backend, name, move || psp_form(backend, form)));
    }
}

/// The formats that have room for the key where it stands.
fn formats(form: Form) -> Vec<Format> {
    let least = match form.carrier {
        Carrier::Slot => 32,
        Carrier::Descriptor if form.cookie => 128,
        Carrier::Descriptor | Carrier::Preformatted => 64,
    };
    FORMATS.into_iter().filter(|format| format.stride >= least).collect()
}

fn witness(form: Form, spi: u32, crypt_offset: usize, turn: usize) -> witness::Psp {
    witness::Psp {
        key: psp_key(&DEVICE_KEYS, spi, form.version),
        spi,
        version: form.version,
        crypt_offset,
        // A slot has no S and D bits: they are a descriptor's.
        sample: form.carrier != Carrier::Slot && turn % 2 == 1,
        drop: form.carrier != Carrier::Slot && turn % 3 == 1,
        cookie: form.cookie.then_some(COOKIE),
        extension: if form.carrier == Carrier::Preformatted { vec![0x5a; turn % 4 * 8] } else { vec![] },
        source_port: 0xc123,
        destination_port: 1000,
        mode: if form.tunnel {
            witness::Mode::Tunnel(outer(form.outer_ipv6))
        } else {
            witness::Mode::Transport
        },
    }
}

/// Given a key, when packets of every size leave in every descriptor format, then they are those of the witness, and
/// open with the key that the receiver derives; a changed one does not open.
fn psp_form(backend: Backend, form: Form) {
    let formats = formats(form);
    let mut rig = Rig::on(backend, &formats);
    rig.sender.psp_test_iv_load(1).expect("IVs begin at 1");
    rig.receiver.psp_test_keys_load(PspDeviceKeys::new(&DEVICE_KEYS[0], &DEVICE_KEYS[1])).expect("keys");
    rig.receiver.psp_receive(0b1111, 1000).expect("receive");
    let mut iv = 0;
    for (turn, bytes) in SIZES.into_iter().enumerate() {
        for number in 0..formats.len() {
            let spi = SPIS[(turn + number) % 2];
            let turn = turn + number * 7;
            let shapes = if is_long() { &SHAPES[..] } else { &SHAPES[turn % SHAPES.len()..][..1] };
            for shape in shapes {
                let inner = packets::packet(form.inner_ipv6, *shape, protocol(bytes), bytes);
                let behind_the_iv =
                    if form.cookie { 8 } else { 0 } + if form.tunnel { inner.packet().len() } else { bytes };
                let fits = |offset: &usize| offset * 4 <= behind_the_iv;
                let wanted = CRYPT_OFFSETS[turn % CRYPT_OFFSETS.len()];
                // AES-GMAC reserves the field.
                let crypt_offset =
                    if form.version >= 2 { 0 } else { wanted.min((0..64).rev().find(fits).unwrap_or(0)) };
                let witness = witness(form, spi, crypt_offset, turn);
                let at = format!(
                    "{bytes} bytes, {shape:?}, crypt offset {crypt_offset}, descriptor {}",
                    formats[number].name
                );
                iv += 1;
                let expected = witness.protect(&inner, iv);
                let sent = send(&mut rig, form, number, &inner, &witness);
                assert_same(&sent, &expected, &at);
                opens(&mut rig, &inner, &witness, &expected, iv, &at);
            }
        }
    }
}

fn send(
    rig: &mut Rig,
    form: Form,
    number: usize,
    inner: &Packet,
    witness: &witness::Psp,
) -> Result<Vec<u8>, Status> {
    let key = SecretKey::new(&witness.key).expect("a key");
    if form.carrier == Carrier::Slot {
        let (source, destination) = ends(form.outer_ipv6);
        let handle = rig
            .sender
            .install_psp_sa(PspSaConfiguration {
                mode: if form.tunnel { Mode::Tunnel } else { Mode::Transport },
                outer: form.tunnel.then(|| OuterHeader::new(address(&source), address(&destination))),
                crypt_offset: witness.crypt_offset as u8,
                source_port: SourcePort::Fixed(witness.source_port),
                virtualization_cookie: witness.cookie,
                ..PspSaConfiguration::new(form.version, key, witness.spi)
            })
            .expect("a slot");
        let sent = rig.send(number, &inner.frame(), Protection::Sa(handle));
        rig.sender.delete_sa(handle).expect("deleted");
        return sent;
    }
    let id = rig.queue(number).add_psp_key(form.version, witness.spi, &key).expect("a key");
    let preformatted = form.carrier == Carrier::Preformatted;
    let psp = PspTransmit {
        source_port: SourcePort::Fixed(witness.source_port),
        preformatted,
        ..PspTransmit::new(id)
    };
    let (frame, psp) = if preformatted {
        (witness.preformatted(inner), psp)
    } else {
        let crypt_offset = witness.crypt_offset as u8;
        let (sample, drop, cookie) = (witness.sample, witness.drop, witness.cookie);
        (inner.frame(), PspTransmit { crypt_offset, sample, drop, cookie, ..psp })
    };
    let sent = rig.send(number, &frame, Protection::PspKey(psp));
    rig.queue(number).remove_psp_key(id).expect("removed");
    sent
}

fn opens(rig: &mut Rig, inner: &Packet, witness: &witness::Psp, expected: &[u8], iv: u64, at: &str) {
    let mut changed = expected.to_vec();
    let place = changed.len() - 1 - (iv as usize * 5) % 16;
    changed[place] ^= 1 << (iv % 8);
    assert_eq!(rig.receive(&changed).map(|_| ()), Err(Status::IcvMismatch), "{at}: changed");

    let delivered = rig.receive(expected).unwrap_or_else(|status| panic!("{at}: dropped, {}", status.name()));
    assert_eq!(hex::encode(&delivered.frame), hex::encode(inner.frame()), "{at}: opened");
    let facts = delivered.facts;
    assert_eq!((facts.protocol, facts.spi, facts.iv), (ReceivedProtocol::Psp, witness.spi, iv), "{at}");
    assert_eq!(
        (facts.psp_version, facts.psp_sample, facts.psp_drop, facts.psp_cookie),
        (witness.version, witness.sample, witness.drop, witness.cookie),
        "{at}"
    );
}
