//! Key schedules of PSP keys, kept for the next packet with the same key.
//!
//! The hardware makes a schedule for each packet and is charged for it; that the model keeps some is invisible
//! in bytes and in time. They are found by the whole key, so none can be used for another. They are wiped when
//! a queue pair goes off, when device keys change, and by a function-level reset.

use cryptonic_crypto::{Cipher, GcmKey};
use zeroize::Zeroizing;

/// Places, by the first byte of a key.
const PLACES: usize = 256;

/// The schedules.
pub(crate) struct KeySchedules(Vec<Option<Schedule>>);

struct Schedule {
    cipher: Cipher,
    key: Zeroizing<[u8; 32]>,
    ready: GcmKey,
}

impl KeySchedules {
    pub(crate) fn new() -> Self {
        KeySchedules((0..PLACES).map(|_| None).collect())
    }

    /// The key, ready for use. What is behind the cipher's key length must be zero. `None` never happens with
    /// ciphers of the table.
    #[inline]
    pub(crate) fn get(&mut self, cipher: Cipher, key: &[u8; 32]) -> Option<&GcmKey> {
        let place = self.0.get_mut(usize::from(key[0]))?;
        let kept = place.as_ref().is_some_and(|schedule| schedule.cipher == cipher && *schedule.key == *key);
        if !kept {
            let ready = GcmKey::new(cipher, key.get(..cipher.key_length())?).ok()?;
            *place = Some(Schedule { cipher, key: Zeroizing::new(*key), ready });
        }
        place.as_ref().map(|schedule| &schedule.ready)
    }

    /// Wipes all.
    pub(crate) fn clear(&mut self) {
        self.0.iter_mut().for_each(|place| *place = None);
    }
}
