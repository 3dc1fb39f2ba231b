//! Published vectors, through the trait, for each library.

use cryptonic_crypto::{Cipher, GcmKey, Library};
use cryptonic_wire::aead::{Aead, AuthenticationFailed};
use serde_json::Value;

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn gcm(key: &[u8]) -> Cipher {
    match key.len() {
        16 => Cipher::AesGcm128,
        24 => Cipher::AesGcm192,
        32 => Cipher::AesGcm256,
        length => panic!("no cipher has a key of {length} bytes"),
    }
}

fn gmac(key: &[u8]) -> Cipher {
    match key.len() {
        16 => Cipher::AesGmac128,
        24 => Cipher::AesGmac192,
        32 => Cipher::AesGmac256,
        length => panic!("no cipher has a key of {length} bytes"),
    }
}

struct Case {
    cipher: Cipher,
    key: Vec<u8>,
    nonce: [u8; 12],
    aad: Vec<u8>,
    plaintext: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: [u8; 16],
}

/// Seals, opens with each length of tag, and sees every bit flip of the tag and one of each other input refused.
fn check(case: &Case, name: &str) {
    for library in Library::ALL {
        let at = format!("{name}, {}", library.name());
        let key = GcmKey::with_library(library, case.cipher, &case.key).unwrap();

        let mut text = case.plaintext.clone();
        let tag = key.seal(&case.nonce, &case.aad, &mut text);
        assert_eq!(hex::encode(&text), hex::encode(&case.ciphertext), "{at}");
        assert_eq!(hex::encode(tag), hex::encode(case.tag), "{at}");

        for length in [8, 12, 16] {
            let mut text = case.ciphertext.clone();
            assert_eq!(key.open(&case.nonce, &case.aad, &mut text, &case.tag[..length]), Ok(()), "{at}");
            assert_eq!(hex::encode(text), hex::encode(&case.plaintext), "{at}, tag of {length}");

            let refused = |nonce: &[u8; 12], aad: &[u8], text: &[u8], tag: &[u8]| {
                let result = key.open(nonce, aad, &mut text.to_vec(), tag);
                assert_eq!(result, Err(AuthenticationFailed), "{at}, tag of {length}");
            };
            let flip = |bytes: &[u8], bit: usize| {
                let mut bytes = bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            };
            for bit in 0..8 * length {
                refused(&case.nonce, &case.aad, &case.ciphertext, &flip(&case.tag[..length], bit));
            }
            for bit in 0..8 * case.nonce.len() {
                let nonce = flip(&case.nonce, bit).try_into().unwrap();
                refused(&nonce, &case.aad, &case.ciphertext, &case.tag[..length]);
            }
            for bit in (0..8 * case.aad.len()).step_by(3) {
                refused(&case.nonce, &flip(&case.aad, bit), &case.ciphertext, &case.tag[..length]);
            }
            for bit in (0..8 * case.ciphertext.len()).step_by(37) {
                refused(&case.nonce, &case.aad, &flip(&case.ciphertext, bit), &case.tag[..length]);
            }
        }
        for length in (0..=20).filter(|length| ![8, 12, 16].contains(length)) {
            let mut tag = case.tag.to_vec();
            tag.resize(length, 0);
            let result = key.open(&case.nonce, &case.aad, &mut case.ciphertext.clone(), &tag);
            assert_eq!(result, Err(AuthenticationFailed), "{at}, tag of {length}");
        }
    }
}

#[test]
fn esp_mcgrew() {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/esp-mcgrew.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let mut gmacs = 0;
    for vector in vectors {
        let algorithm = vector["alg"].as_str().unwrap();
        let is_gmac = algorithm.starts_with("rfc4543");
        gmacs += usize::from(is_gmac);
        let key = bytes(&vector["key"]);
        let aad = bytes(&vector["aad"]);
        let (aad, plaintext, ciphertext) = if is_gmac {
            (aad, vec![], vec![])
        } else {
            (aad, bytes(&vector["plaintext_with_trailer"]), bytes(&vector["ciphertext"]))
        };
        let case = Case {
            cipher: if is_gmac { gmac(&key) } else { gcm(&key) },
            key,
            nonce: bytes(&vector["nonce"]).try_into().unwrap(),
            aad,
            plaintext,
            ciphertext,
            tag: bytes(&vector["icv16"]).try_into().unwrap(),
        };
        check(&case, &format!("case {}", vector["case"]));
    }
    assert_eq!((vectors.len(), gmacs), (17, 1));
}

/// The ICVs of the PSP frames: the clear frame is rebuilt from its recipe, the header from the printed octets.
#[test]
fn psp() {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/psp.json")).unwrap();
    let mut clear = bytes(&file["clear_first_42"]);
    clear.extend((0..1392).map(|i| i as u8));
    assert_eq!(clear.len(), 1434);

    let mut checked = 0;
    for vector in file["cases"].as_array().unwrap() {
        let name = vector["case"].as_str().unwrap();
        let first = bytes(&vector["first_82_octets"]);
        let aad_octets = vector["aad_octets"].as_u64().unwrap() as usize;
        let ciphertext_octets = vector["ciphertext_octets"].as_u64().unwrap() as usize;
        // PSP begins after Ethernet, IPv4 and UDP. The header is 16 octets; a VC adds 8, here all zero.
        let header = &first[42..58];
        let vc: &[u8] = if vector["vc"] == true { &[0; 8] } else { &[] };
        let inner = if vector["mode"] == "tunnel" { &clear[14..] } else { &clear[34..] };
        let mut psp = [header, vc, inner].concat();
        if name.ends_with("_empty") {
            // No UDP payload: all that there is stands in the printed octets.
            psp = first[42..42 + aad_octets].to_vec();
        }
        assert_eq!(psp.len(), aad_octets + ciphertext_octets, "{name}");
        let (aad, plaintext) = psp.split_at(aad_octets);

        let key = bytes(&vector["derived_key"]);
        let nonce: [u8; 12] = header[4..16].try_into().unwrap();
        let mut ciphertext = plaintext.to_vec();
        let cipher = gcm(&key);
        GcmKey::new(cipher, &key).unwrap().seal(&nonce, aad, &mut ciphertext);
        let printed = &first[42 + aad_octets..];
        let shared = printed.len().min(ciphertext.len());
        assert_eq!(printed[..shared], ciphertext[..shared], "{name}");

        let case = Case {
            cipher,
            nonce,
            aad: aad.to_vec(),
            plaintext: plaintext.to_vec(),
            ciphertext,
            tag: bytes(&vector["icv"]).try_into().unwrap(),
            key,
        };
        check(&case, name);
        checked += 1;
    }
    assert_eq!(checked, 12);
}
