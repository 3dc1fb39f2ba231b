//! PSP between two gateways: each receives by its own device keys, and sends by a key that the test derives from the other's.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::forms::{Form, Held, OUTER_4, OUTER_6, TUNNEL, held};
use crate::host::addresses;
use crate::rig::Rig;
use crate::witness::psp_key;

/// The device keys of each side.
const DEVICE_KEYS: [[[u8; 32]; 2]; 2] = [[[0x31; 32], [0x9c; 32]], [[0x52; 32], [0xe7; 32]]];
/// UDP's port for PSP, and the bytes of its header without a cookie (PSP specification).
const PORT: u16 = 1000;
const HEADER_BYTES: usize = 16;

/// What a pair of SAs is like.
#[derive(Clone, Copy, Debug)]
struct Psp {
    name: &'static str,
    /// None is transport mode.
    outer: Option<[&'static str; 2]>,
    version: u8,
}

const FORMS: [Psp; 3] = [
    Psp { name: "tunnel", outer: Some(OUTER_4), version: 0 },
    Psp { name: "tunnel over IPv6, 256", outer: Some(OUTER_6), version: 1 },
    Psp { name: "transport", outer: None, version: 0 },
];

/// The SPI by which `sender` sends packets of a family: its top bit says which of the receiver's keys it is of.
fn spi(sender: usize, family: usize) -> u32 {
    ((sender as u32) << 31) | (0x4000 + family as u32)
}

impl Psp {
    /// What tells an inner packet from another.
    fn like(self) -> Form {
        Form { outer: self.outer, ..TUNNEL }
    }

    fn key(self, sender: usize, spi: u32) -> Vec<u8> {
        psp_key(&DEVICE_KEYS[1 - sender], spi, self.version)
    }

    /// The file of `side`.
    fn file(self, side: usize) -> String {
        let [first, second] = DEVICE_KEYS[side].map(hex::encode);
        let mut text = format!(
            "default = \"drop\"\n\n[psp]\ndevice_keys = [\"{first}\", \"{second}\"]\nreceive = true\n\n"
        );
        for family in [0, 1] {
            let spi = spi(side, family);
            let (version, key) = (self.version, hex::encode(self.key(side, spi)));
            let mode = if self.outer.is_some() { "tunnel" } else { "transport" };
            text += &format!(
                "[[sa]]\nname = \"out-{family}\"\ndirection = \"out\"\nprotocol = \"psp\"\nmode = \"{mode}\"\n\
                 spi = {spi:#x}\nversion = {version}\nkey = \"{key}\"\n"
            );
            let ends = [1, 2].map(|number| match self.outer {
                Some(_) => addresses(number, 1)[family],
                None => addresses(9, number)[family],
            });
            let (from, to) = (ends[side], ends[1 - side]);
            text += &format!("selector = {{ src = \"{from}\", dst = \"{to}\" }}\n");
            if let Some(outer) = self.outer {
                let (from, to) = (outer[side], outer[1 - side]);
                text += &format!("tunnel = {{ src = \"{from}\", dst = \"{to}\" }}\n");
            }
            text.push('\n');
        }
        text
    }

    /// What a frame of `sender` holds; none for ARP and neighbour discovery. Nothing else may be on the wire.
    fn open(self, sender: usize, frame: &[u8]) -> Option<Held> {
        let (protocol, rest) = match frame[12..14] {
            [0x08, 0x06] => return None,
            [0x08, 0x00] => {
                (frame[23], &frame[34..14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))])
            }
            _ => (frame[20], &frame[54..54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]))]),
        };
        if protocol == 58 && matches!(rest[0], 135 | 136) {
            return None;
        }
        assert_eq!((protocol, &rest[2..4]), (17, &PORT.to_be_bytes()[..]), "in clear: {frame:02x?}");
        let (header, sealed) = rest[8..].split_at(HEADER_BYTES);
        assert_eq!(header[2] & 0x3f, 0, "no crypt offset");
        assert_eq!(header[3] >> 2 & 0xf, self.version, "the version");
        let spi = u32::from_be_bytes(header[4..8].try_into().expect("four octets"));
        let algorithm = if self.version == 0 { &AES_128_GCM } else { &AES_256_GCM };
        let key = UnboundKey::new(algorithm, &self.key(sender, spi)).expect("a key");
        // The nonce is SPI and IV, and the header is what is authenticated beside the text.
        let nonce = Nonce::assume_unique_for_key(header[4..16].try_into().expect("12 octets"));
        let mut text = sealed.to_vec();
        let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::from(header), &mut text);
        let opened = opened.expect("the ICV is right").to_vec();
        Some(match self.outer {
            Some(_) => {
                assert_eq!(header[0], if opened[0] >> 4 == 4 { 4 } else { 41 });
                Held::Tunnel(opened)
            }
            None => Held::Transport(header[0], opened),
        })
    }
}

#[test]
fn hosts_behind_two_gateways_ping_and_stream_through_psp() {
    for form in FORMS {
        println!("{}", form.name);
        // Given gateways that have each a key of the other
        let files = [0, 1].map(|side| form.file(side));
        let on_link = form.outer.is_none();
        let mut rig = Rig::new([&files[0], &files[1]], on_link);
        // When hosts of either family ping and stream, both ways; then all comes as it was sent
        for family in [0, 1] {
            let ends = rig.ends(family, on_link);
            rig.ping(0, ends, 4);
            rig.ping(1, ends, 4);
            rig.stream(ends, 40_000 + family as u16, 60_000, |_, _| {});
        }
        // And another library opens every packet on the wire, and finds what the hosts sent
        let reports = [0, 1].map(|side| rig.end(side));
        rig.carry();
        let mut sent = [0, 1].map(|side| {
            let packets = rig.hosts[side].port.sent.borrow();
            packets.iter().map(|packet| held(&form.like(), packet)).collect::<Vec<_>>()
        });
        let mut opened = 0;
        for (side, frame) in &rig.carried {
            let Some(inner) = form.open(*side, frame) else { continue };
            let place = sent[*side].iter().position(|packet| *packet == inner);
            sent[*side].swap_remove(place.unwrap_or_else(|| panic!("nobody sent {inner:02x?}")));
            opened += 1;
        }
        assert!(opened > 200, "{opened}");
        for report in &reports {
            assert_eq!(report["lost_without_reason"], 0, "{report:#}");
        }
    }
}
