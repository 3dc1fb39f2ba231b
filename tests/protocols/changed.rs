//! A packet of any form with any octet changed is never delivered as what its sender protected.

use cryptonic_driver::{
    Cipher, Direction, Mode, OuterHeader, ReceivedProtocol, SaConfiguration, SecretKey, Selector,
    UdpEncapsulation,
};

use crate::packets::{EXPERIMENT, UDP};
use crate::rig::Rig;
use crate::sas::{ENDS_V4, SALT, SPI, esp, opening_psp, packet, plain, psp, tunnel};
use crate::witness::{self, Esp, Psp};

/// A form, as the witness makes it, and its SA at the receiver.
struct Form {
    name: &'static str,
    cipher: Cipher,
    mode: Mode,
    witness: Esp,
}

fn forms() -> Vec<Form> {
    let ends = ENDS_V4.map(|end| end.to_vec());
    let modes = [
        (Mode::Tunnel, tunnel()),
        (Mode::Transport, witness::Mode::Transport),
        (Mode::Beet, witness::Mode::Beet { source: ends[0].clone(), destination: ends[1].clone() }),
    ];
    let base = |mode: &witness::Mode| esp(mode.clone());
    modes
        .into_iter()
        .flat_map(|(mode, carried)| {
            let form = |name, cipher, witness| Form { name, cipher, mode, witness };
            [
                form("gcm", Cipher::AesGcm128, base(&carried)),
                form("icv 8", Cipher::AesGcm128, Esp { icv_bytes: 8, ..base(&carried) }),
                form(
                    "icv 12, esn",
                    Cipher::AesGcm128,
                    Esp { icv_bytes: 12, extended_sequence: true, ..base(&carried) },
                ),
                form("implicit iv", Cipher::AesGcm128, Esp { implicit_iv: true, ..base(&carried) }),
                form("gmac", Cipher::AesGmac128, Esp { gmac: true, ..base(&carried) }),
                form(
                    "gmac, esn",
                    Cipher::AesGmac128,
                    Esp { gmac: true, extended_sequence: true, ..base(&carried) },
                ),
                form("udp", Cipher::AesGcm128, Esp { udp: Some((4500, 4500, false)), ..base(&carried) }),
                form(
                    "gmac, udp",
                    Cipher::AesGmac128,
                    Esp { gmac: true, udp: Some((4500, 4500, false)), ..base(&carried) },
                ),
            ]
        })
        .collect()
}

/// Changes each bit of a frame from the security header on, and cuts it short; nothing opens but the frame itself.
fn nothing_else_opens(rig: &mut Rig, frame: &[u8], from: usize, name: &str) {
    for place in from..frame.len() {
        for bit in 0..8 {
            let mut changed = frame.to_vec();
            changed[place] ^= 1 << bit;
            not_opened(rig, &changed, &format!("{name}: bit {bit} of octet {place}"));
        }
    }

    for octets in 1..frame.len() - from {
        not_opened(rig, &shortened(frame, octets), &format!("{name}: {octets} octets fewer"));
    }
}

fn not_opened(rig: &mut Rig, frame: &[u8], what: &str) {
    if let Ok(delivered) = rig.receive(frame) {
        // As it was on the wire, to the host: an SPI that is the host's.
        assert_eq!(delivered.facts.protocol, ReceivedProtocol::Clear, "{what}");
        assert_eq!(delivered.frame, frame, "{what}");
    }
}

/// The frame without its last octets, its lengths told right.
fn shortened(frame: &[u8], octets: usize) -> Vec<u8> {
    let mut frame = frame[..frame.len() - octets].to_vec();
    let ip_bytes = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&ip_bytes.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = witness::internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    if frame[23] == UDP && frame.len() >= 42 {
        frame[38..40].copy_from_slice(&(ip_bytes - 20).to_be_bytes());
    }
    frame
}

#[test]
fn esp_of_every_form() {
    for form in forms() {
        let name = format!("{}, {:?}", form.name, form.mode);
        let mut rig = plain();
        let witness = &form.witness;
        let configuration = SaConfiguration {
            icv_bytes: witness.icv_bytes as u8,
            implicit_iv: witness.implicit_iv,
            esn: witness.extended_sequence,
            encapsulation: witness.udp.map(|_| UdpEncapsulation::new()),
            outer: (form.mode != Mode::Transport)
                .then(|| OuterHeader::new(ENDS_V4[0].into(), ENDS_V4[1].into())),
            selector: (form.mode == Mode::Beet)
                .then(|| Selector::between([10, 0, 0, 1].into(), [10, 1, 0, 2].into())),
            // Every packet is a new one to the window, so that it is the ICV that refuses.
            replay_window: 0,
            ..SaConfiguration::new(
                Direction::In,
                form.mode,
                form.cipher,
                SecretKey::new(&witness.key).expect("a key"),
                SALT,
                SPI,
            )
        };
        rig.receiver.install_sa(configuration).expect("in");
        // One octet of payload, and none.
        for bytes in [1, 0] {
            let inner = packet(EXPERIMENT, bytes);
            let frame = witness.protect(&inner, 77);
            let from = if witness.udp.is_some() { 42 } else { 34 };
            nothing_else_opens(&mut rig, &frame, from, &name);
            assert_eq!(rig.receive(&frame).expect(&name).frame, inner.frame(), "{name}");
        }
    }
}

/// Versions 0 to 3, with all of the payload covered by the crypt offset and with none of it.
#[test]
fn psp_of_every_version() {
    let mut rig = opening_psp(plain());
    for version in 0..4 {
        for (crypt_offset, cookie) in [(0, None), (2, None), (0, Some([7; 8])), (4, Some([7; 8]))] {
            if version >= 2 && crypt_offset != 0 {
                continue;
            }
            // With 8 octets of payload the ciphertext is empty where the offset covers them.
            let witness = Psp { crypt_offset, cookie, ..psp(version) };
            let inner = packet(EXPERIMENT, 8);
            let frame = witness.protect(&inner, 5);
            let name = format!("version {version}, crypt offset {crypt_offset}, cookie {cookie:?}");
            nothing_else_opens(&mut rig, &frame, 42, &name);
            assert_eq!(rig.receive(&frame).expect(&name).frame, inner.frame(), "{name}");
        }
    }
}
