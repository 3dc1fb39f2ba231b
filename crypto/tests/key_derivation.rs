//! PSP key derivation against printed values, and the batch against single calls.

use cryptonic_crypto::DeviceKey;
use cryptonic_wire::psp::Version;
use proptest::prelude::*;

const MASTER_KEY_0: &str = "34448a064292601b11a0978f56a2d34cf3fc35ede1a6bc04f8db3e5243a2b0ca";
const MASTER_KEY_1: &str = "563952565d3a78ae773ec1b779f2f2d99f4a7f53a6fbb9b07d5b71f39364d739";

fn device_key(hex_key: &str) -> DeviceKey {
    DeviceKey::new(&hex::decode(hex_key).unwrap().try_into().unwrap())
}

fn derive(device_key: &DeviceKey, version: Version, spi: u32) -> String {
    let mut key = [0xff; 32];
    let length = device_key.derive(version, spi, &mut key);
    assert!(key[length..].iter().all(|&byte| byte == 0), "the rest is zeroed");
    hex::encode(&key[..length])
}

#[test]
fn printed_values() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/vectors/psp.json")).unwrap();
    let keys = [MASTER_KEY_0, MASTER_KEY_1].map(device_key);
    assert_eq!(vectors["kdf"]["master_key_0"], MASTER_KEY_0);
    assert_eq!(vectors["kdf"]["master_key_1"], MASTER_KEY_1);

    let printed = vectors["kdf"]["keys"].as_array().unwrap().iter().map(|key| (key, "key"));
    let computed = vectors["cases"].as_array().unwrap().iter().map(|case| (case, "derived_key"));
    let mut checked = 0;
    for (vector, field) in printed.chain(computed) {
        let spi = u32::from_str_radix(vector["spi"].as_str().unwrap(), 16).unwrap();
        let version = Version::from_code(vector["version"].as_u64().unwrap() as u8).unwrap();
        assert_eq!(derive(&keys[(spi >> 31) as usize], version, spi), vector[field], "{vector}");
        checked += 1;
    }
    assert_eq!(checked, 3 + 12);
}

/// Also in the Scapy test suite (psp.uts).
#[test]
fn second_256_bit_key() {
    let key = derive(&device_key(MASTER_KEY_1), Version::AesGcm256, 0x9a34_5678);
    assert_eq!(key, "fa00f609df6020289a1c93d6027081a637ad45b24a5576b36e6f49dd43114d80");
}

#[test]
fn subkeys() {
    let subkey = |key| hex::encode(device_key(key).subkey_for_tests());
    assert_eq!(subkey(MASTER_KEY_0), "054af3167123ecae37eb410199a6b035");
    assert_eq!(subkey(MASTER_KEY_1), "988cfcab87ff0b068a43df9b3c3f738a");
}

/// NIST SP 800-38B, D.3 (AES-256). Its E(K, 0) has the top bit set, so that the reduction is seen to work.
#[test]
fn subkey_of_sp_800_38b() {
    let key = device_key("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    assert_eq!(hex::encode(key.subkey_for_tests()), "cad1ed03299eedac2e9a99808621502f");
}

/// No value for versions 2 and 3 is published; that they differ from the GCM versions is all that can be held.
#[test]
fn gmac_versions_have_keys_of_their_own() {
    let device_key = device_key(MASTER_KEY_0);
    let keys = [0, 1, 2, 3].map(|code| derive(&device_key, Version::from_code(code).unwrap(), 0x1234_5678));
    assert_eq!(keys.each_ref().map(|key| key.len() / 2), [16, 32, 16, 32]);
    assert_ne!(keys[0], keys[2]);
    assert_ne!(keys[1], keys[3]);
}

proptest! {
    #[test]
    fn batch_equals_single(master: [u8; 32], code in 0_u8..4, spis in prop::collection::vec(any::<u32>(), 0..100)) {
        let version = Version::from_code(code).unwrap();
        let device_key = DeviceKey::new(&master);
        let mut batch = vec![[0xff; 32]; spis.len()];
        let length = device_key.derive_batch(version, &spis, &mut batch);
        for (spi, key) in spis.iter().zip(&batch) {
            let mut single = [0xff; 32];
            prop_assert_eq!(device_key.derive(version, *spi, &mut single), length);
            prop_assert_eq!(key, &single);
        }
    }
}
