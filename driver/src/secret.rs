//! Keys in the host's private memory.

use std::fmt;

use zeroize::Zeroizing;

/// A key of 16, 24 or 32 bytes. It cannot be cloned, its memory is zeroised on drop, and `Debug` shows its
/// length alone.
pub struct SecretKey {
    // Boxed: moving the value must not leave copies behind.
    bytes: Box<Zeroizing<[u8; 32]>>,
    length: usize,
}

impl SecretKey {
    /// Copies a key in; `None` for any other length. The caller zeroises its own copy.
    pub fn new(key: &[u8]) -> Option<Self> {
        if !matches!(key.len(), 16 | 24 | 32) {
            return None;
        }
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        bytes.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        Some(SecretKey { bytes, length: key.len() })
    }

    /// Copies in the first `length` bytes of these words.
    pub(crate) fn of_words(words: &[u64; 4], length: usize) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        for (to, from) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        SecretKey::new(bytes.get(..length)?)
    }

    /// The key as descriptor words, zeros behind it.
    pub(crate) fn words(&self) -> Zeroizing<[u64; 4]> {
        let mut words = Zeroizing::new([0; 4]);
        for (to, from) in words.iter_mut().zip(self.bytes.as_chunks::<8>().0) {
            *to = u64::from_le_bytes(*from);
        }
        words
    }

    /// The bytes of the key. Whoever copies them zeroises the copy.
    pub fn expose(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// Length in bytes: 16, 24 or 32.
    pub fn bytes(&self) -> usize {
        self.length
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey({} bytes, redacted)", self.length)
    }
}
