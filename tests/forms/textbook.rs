//! AES-GCM out of the book: FIPS 197 and SP 800-38D, bit by bit, with nothing of ours and no library. It is
//! slow and not constant in time, which does not matter here; `wycheproof` and the values that FIPS 197 prints judge
//! it (`the_book_is_right`).

/// An AES key, expanded (FIPS 197 5.2).
pub struct Aes {
    round_keys: Vec<[u8; 16]>,
    substitution: [u8; 256],
}

impl Aes {
    /// Of 16, 24 or 32 bytes.
    pub fn new(key: &[u8]) -> Self {
        let substitution = substitution_table();
        let words_of_key = key.len() / 4;
        let rounds = words_of_key + 6;
        let mut words: Vec<[u8; 4]> = key.chunks(4).map(|word| word.try_into().expect("4 bytes")).collect();
        let mut round_constant = 1;
        for index in words_of_key..4 * (rounds + 1) {
            let mut word = words[index - 1];
            if index % words_of_key == 0 {
                word.rotate_left(1);
                word = word.map(|byte| substitution[usize::from(byte)]);
                word[0] ^= round_constant;
                round_constant = doubled(round_constant);
            } else if words_of_key > 6 && index % words_of_key == 4 {
                word = word.map(|byte| substitution[usize::from(byte)]);
            }
            let before = words[index - words_of_key];
            words.push(std::array::from_fn(|byte| word[byte] ^ before[byte]));
        }
        let round_keys = words.chunks(4).map(|four| four.concat().try_into().expect("16 bytes")).collect();
        Aes { round_keys, substitution }
    }

    /// The cipher (FIPS 197 5.1). Bytes stand in columns of four.
    pub fn encrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let (first, rest) = self.round_keys.split_first().expect("rounds");
        let (last, middle) = rest.split_last().expect("rounds");
        let mut state = xor(block, *first);
        for round_key in middle {
            state = xor(mix_columns(self.substitute_and_shift(state)), *round_key);
        }
        xor(self.substitute_and_shift(state), *last)
    }

    fn substitute_and_shift(&self, state: [u8; 16]) -> [u8; 16] {
        // Row r of column c comes from column c + r.
        std::array::from_fn(|at| self.substitution[usize::from(state[(at + 4 * (at % 4)) % 16])])
    }
}

fn xor(one: [u8; 16], other: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|at| one[at] ^ other[at])
}

/// Times x in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
fn doubled(byte: u8) -> u8 {
    byte << 1 ^ if byte & 0x80 != 0 { 0x1b } else { 0 }
}

fn multiplied(mut one: u8, mut other: u8) -> u8 {
    let mut product = 0;
    while other != 0 {
        product ^= if other & 1 != 0 { one } else { 0 };
        one = doubled(one);
        other >>= 1;
    }
    product
}

/// The inverse in GF(2^8), then the affine map (FIPS 197 5.1.1).
fn substitution_table() -> [u8; 256] {
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        let inverse = (1..=255).find(|other| multiplied(byte, *other) == 1).unwrap_or(0);
        (1..5).fold(inverse, |sum, turn| sum ^ inverse.rotate_left(turn)) ^ 0x63
    })
}

fn mix_columns(state: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|at| {
        let column = at / 4 * 4;
        let byte = |row: usize| state[column + (at + row) % 4];
        doubled(byte(0)) ^ doubled(byte(1)) ^ byte(1) ^ byte(2) ^ byte(3)
    })
}

/// AES-GCM with a nonce of 12 bytes (SP 800-38D 7.1): the ciphertext and the whole tag.
pub fn gcm_seal(key: &[u8], nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let aes = Aes::new(key);
    let counter_block = |counter: u32| {
        let mut block = [0; 16];
        block[..12].copy_from_slice(nonce);
        block[12..].copy_from_slice(&counter.to_be_bytes());
        aes.encrypt(block)
    };
    let mut ciphertext = text.to_vec();
    for (index, chunk) in ciphertext.chunks_mut(16).enumerate() {
        let stream = counter_block(index as u32 + 2);
        chunk.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
    }
    let hash_key = u128::from_be_bytes(aes.encrypt([0; 16]));
    let mut hash = 0;
    for part in [aad, &ciphertext] {
        for chunk in part.chunks(16) {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            hash = times(hash ^ u128::from_be_bytes(block), hash_key);
        }
    }
    let lengths = ((aad.len() as u128 * 8) << 64) | (text.len() as u128 * 8);
    hash = times(hash ^ lengths, hash_key);
    (ciphertext, xor(hash.to_be_bytes(), counter_block(1)))
}

/// The product in GF(2^128) (SP 800-38D 6.3): the leftmost bit is the coefficient of 1.
fn times(one: u128, other: u128) -> u128 {
    let (mut product, mut shifted) = (0, other);
    for bit in (0..128).rev() {
        product ^= if one >> bit & 1 == 1 { shifted } else { 0 };
        shifted = shifted >> 1 ^ if shifted & 1 == 1 { 0xe1 << 120 } else { 0 };
    }
    product
}

/// AES-CMAC of one whole block (RFC 4493 2.4).
pub fn cmac_of_a_block(key: &[u8], block: [u8; 16]) -> [u8; 16] {
    let aes = Aes::new(key);
    let l = u128::from_be_bytes(aes.encrypt([0; 16]));
    let k1 = l << 1 ^ if l >> 127 == 1 { 0x87 } else { 0 };
    aes.encrypt(xor(block, k1.to_be_bytes()))
}

/// What FIPS 197 prints for each key length, and Project Wycheproof's cases with nonces of 96 bits.
pub fn the_book_is_right() {
    let plain: [u8; 16] = hex::decode("00112233445566778899aabbccddeeff").unwrap().try_into().unwrap();
    for (key_bytes, cipher) in [
        (16, "69c4e0d86a7b0430d8cdb78070b4c55a"),
        (24, "dda97ca4864cdfe06eaf70a0ec0d7191"),
        (32, "8ea2b7ca516745bfeafc49904b496089"),
    ] {
        let key: Vec<u8> = (0..key_bytes).collect();
        assert_eq!(hex::encode(Aes::new(&key).encrypt(plain)), cipher, "FIPS 197 appendix C");
    }
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).expect("vectors");
    let mut checked = 0;
    for test in set.test_groups.iter().filter(|group| group.nonce_size == 96).flat_map(|group| &group.tests) {
        let nonce = test.nonce[..].try_into().expect("12 bytes");
        let (text, tag) = gcm_seal(&test.key, &nonce, &test.aad, &test.pt);
        let agrees = text == test.ct[..] && tag == test.tag[..];
        assert_eq!(agrees, test.result == wycheproof::TestResult::Valid, "test {}", test.tc_id);
        checked += 1;
    }
    assert_eq!(checked, 197);
}
