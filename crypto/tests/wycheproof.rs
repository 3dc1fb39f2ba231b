//! Project Wycheproof's AES-GCM and GMAC vectors with 96-bit nonces, through the trait, for each library.

use cryptonic_crypto::{Cipher, GcmKey, Library};
use cryptonic_wire::aead::{Aead, AuthenticationFailed};
use wycheproof::{TestResult, aead, mac_with_nonce};

fn name<T: std::fmt::Debug>(library: Library, id: usize, comment: &str, flags: T) -> String {
    format!("{}, test {id} ({comment}) {flags:?}", library.name())
}

#[test]
fn aes_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let (mut valid, mut invalid, mut skipped) = (0, 0, 0);
    for group in &set.test_groups {
        if group.nonce_size != 96 {
            skipped += group.tests.len();
            continue;
        }
        let cipher = match group.key_size {
            128 => Cipher::AesGcm128,
            192 => Cipher::AesGcm192,
            256 => Cipher::AesGcm256,
            size => panic!("no cipher has a key of {size} bits"),
        };
        for test in &group.tests {
            for library in Library::ALL {
                let name = name(library, test.tc_id, &test.comment, &test.flags);
                let key = GcmKey::with_library(library, cipher, &test.key).unwrap();
                let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
                let mut text = test.ct.to_vec();
                let opened = key.open(&nonce, &test.aad, &mut text, &test.tag);
                match test.result {
                    TestResult::Valid => {
                        assert_eq!(opened, Ok(()), "{name}");
                        assert_eq!(text, test.pt[..], "{name}");
                        let tag = key.seal(&nonce, &test.aad, &mut text);
                        assert_eq!(text, test.ct[..], "{name}");
                        assert_eq!(tag[..], test.tag[..], "{name}");
                    }
                    TestResult::Invalid => assert_eq!(opened, Err(AuthenticationFailed), "{name}"),
                    TestResult::Acceptable => panic!("none is left to taste: {name}"),
                }
            }
            if test.result == TestResult::Valid { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid, valid + invalid + skipped), (116, 81, set.number_of_tests));
}

#[test]
fn aes_gmac() {
    let set = mac_with_nonce::TestSet::load(mac_with_nonce::TestName::Gmac).unwrap();
    let mut checked = 0;
    for group in set.test_groups.iter().filter(|group| group.nonce_size == 96) {
        let cipher = match group.key_size {
            128 => Cipher::AesGmac128,
            192 => Cipher::AesGmac192,
            256 => Cipher::AesGmac256,
            size => panic!("no cipher has a key of {size} bits"),
        };
        for test in &group.tests {
            for library in Library::ALL {
                let name = name(library, test.tc_id, &test.comment, &test.flags);
                let key = GcmKey::with_library(library, cipher, &test.key).unwrap();
                let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
                let opened = key.open(&nonce, &test.msg, &mut [], &test.tag);
                let valid = test.result == TestResult::Valid;
                assert_eq!(opened.is_ok(), valid, "{name}");
                if valid {
                    assert_eq!(key.seal(&nonce, &test.msg, &mut [])[..], test.tag[..], "{name}");
                }
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 207);
}
