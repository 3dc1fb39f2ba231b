//! A second implementation of EESP and WESPv2, from the drafts' words and pictures alone, as `reference` is of ESP:
//! draft-ietf-ipsecme-eesp-03, draft-klassert-ipsecme-wespv2-01.

#![allow(dead_code, reason = "each test binary uses its part")]

use super::reference::{EspCipher, gcm};

/// An EESP SA, and what its sender puts into the options.
#[derive(Clone, Debug)]
pub struct Eesp {
    pub key: Vec<u8>,
    pub salt: [u8; 4],
    pub spi: u32,
    pub session_id: u16,
    pub has_sequence: bool,
    pub has_iv: bool,
    /// Whether there is a payload info header.
    pub is_full: bool,
    /// Crypt offset of the crypt offset option, if there is one, in 4-octet units.
    pub crypt_offset: Option<u8>,
    /// On how many octets the next layer's header is aligned.
    pub boundary: usize,
    pub icv_octets: usize,
}

impl Eesp {
    /// Octets between options and payload.
    fn behind_options(&self) -> usize {
        let eight = |is_there: bool| if is_there { 8 } else { 0 };
        eight(self.has_sequence) + eight(self.has_iv) + if self.is_full { 4 } else { 0 }
    }

    /// The options: crypt offset first, then padding until what is behind is aligned.
    pub fn options(&self) -> Vec<u8> {
        let crypt_length = if self.crypt_offset.is_some() { 4 } else { 0 };
        let mut padding = 0;
        while !(8 + crypt_length + padding + self.behind_options()).is_multiple_of(self.boundary) {
            padding += 1;
        }
        let mut options = Vec::new();
        if let Some(crypt_offset) = self.crypt_offset {
            let payload_header =
                8 + crypt_length + padding + self.behind_options() - if self.is_full { 4 } else { 0 };
            // Two fields of six bits and one of four.
            let word = payload_header / 4 * 1024 + usize::from(crypt_offset) * 16;
            options.extend([2, 2, (word / 256) as u8, (word % 256) as u8]);
        }
        match padding {
            0 => {}
            1 => options.push(0),
            _ => {
                options.extend([1, padding as u8 - 2]);
                options.resize(crypt_length + padding, 0);
            }
        }
        options
    }

    /// A packet from header to ICV, padded with the fewest zeros to a 4-octet boundary.
    pub fn packet(&self, number: u64, payload: &[u8], next_header: u8) -> Vec<u8> {
        let mut padding = 0;
        while !(payload.len() + padding).is_multiple_of(4) {
            padding += 1;
        }
        let clear = self.clear(number, &self.options(), payload, next_header, padding);
        self.sealed(number, clear, self.crypt_offset.unwrap_or(0))
    }

    /// A packet without its ICV, nothing encrypted.
    pub fn clear(
        &self,
        number: u64,
        options: &[u8],
        payload: &[u8],
        next_header: u8,
        padding: usize,
    ) -> Vec<u8> {
        let mut out = vec![0x80, options.len() as u8];
        out.extend(self.session_id.to_be_bytes());
        out.extend(self.spi.to_be_bytes());
        out.extend(options);
        if self.has_sequence {
            out.extend(number.to_be_bytes());
        }
        if self.has_iv {
            out.extend(number.to_be_bytes());
        }
        if self.is_full {
            out.extend([0, 0, next_header, padding as u8]);
        }
        out.extend(payload);
        out.resize(out.len() + padding, 0);
        out
    }

    /// Encrypts from the crypt offset on, which counts from the payload info header, and authenticates all.
    pub fn sealed(&self, number: u64, clear: Vec<u8>, crypt_offset: u8) -> Vec<u8> {
        let options_end = 8 + usize::from(clear[1]);
        let payload_header = options_end + self.behind_options() - if self.is_full { 4 } else { 0 };
        let (aad, text) = clear.split_at(payload_header + 4 * usize::from(crypt_offset));
        let nonce = [&self.salt[..], &number.to_be_bytes()].concat();
        let (ciphertext, tag) = gcm(&self.key, &nonce, aad, text);
        [aad, &ciphertext, &tag[..self.icv_octets]].concat()
    }
}

/// A WESPv2 SA. The draft leaves the order of the AAD open: it is here all that stands in front of the encrypted octets.
#[derive(Clone, Debug)]
pub struct Wespv2 {
    pub key: Vec<u8>,
    pub salt: [u8; 4],
    pub spi: u32,
    pub cipher: EspCipher,
    pub icv_octets: usize,
    /// On how many octets ESP's payload is aligned.
    pub boundary: usize,
    /// In 4-octet units from the end of the IV.
    pub crypt_offset: u8,
}

impl Wespv2 {
    /// The options: padding until ESP's payload is aligned.
    pub fn options(&self) -> Vec<u8> {
        let iv_length = if self.cipher == EspCipher::ImplicitIv { 0 } else { 8 };
        match (4 + 8 + iv_length) % self.boundary {
            0 => Vec::new(),
            past => {
                let octets = self.boundary - past;
                let mut option = vec![1, octets as u8 - 2];
                option.resize(octets, 0);
                option
            }
        }
    }

    /// A packet from WESPv2 header to ICV, with ESP's padding to a 4-octet boundary.
    pub fn packet(&self, sequence: u32, payload: &[u8], next_header: u8) -> Vec<u8> {
        self.sealed(sequence, self.clear(sequence, &self.options(), payload, next_header))
    }

    /// A packet without its ICV, nothing encrypted. A header without crypt offset names "no next header".
    pub fn clear(&self, sequence: u32, options: &[u8], payload: &[u8], next_header: u8) -> Vec<u8> {
        let iv_length = if self.cipher == EspCipher::ImplicitIv { 0 } else { 8 };
        let mut out = vec![
            if self.crypt_offset == 0 { 59 } else { next_header },
            (4 + options.len() + 8 + iv_length) as u8,
            self.crypt_offset * 4,
            0b0100_0000 + options.len() as u8,
        ];
        out.extend(options);
        out.extend(self.spi.to_be_bytes());
        out.extend(sequence.to_be_bytes());
        if iv_length == 8 {
            out.extend(u64::from(sequence).to_be_bytes());
        }
        out.extend(payload);
        let mut padding = 0u8;
        while !(payload.len() + usize::from(padding) + 2).is_multiple_of(4) {
            padding += 1;
            out.push(padding);
        }
        out.push(padding);
        out.push(next_header);
        out
    }

    /// Encrypts from the crypt offset on, which the header says, and authenticates all. AES-GMAC encrypts nothing.
    pub fn sealed(&self, sequence: u32, clear: Vec<u8>) -> Vec<u8> {
        let text_at = match self.cipher {
            EspCipher::Gmac => clear.len(),
            _ => usize::from(clear[1]) + usize::from(clear[2] / 4) * 4,
        };
        let (aad, text) = clear.split_at(text_at);
        let nonce = [&self.salt[..], &u64::from(sequence).to_be_bytes()].concat();
        let (ciphertext, tag) = gcm(&self.key, &nonce, aad, text);
        [aad, &ciphertext, &tag[..self.icv_octets]].concat()
    }
}
