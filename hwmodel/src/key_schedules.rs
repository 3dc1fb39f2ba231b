//! Key schedules of PSP keys, kept for the next packet with the same key.
//!
//! The hardware makes a schedule for each packet and is charged for it; that the model keeps some is invisible
//! in bytes and in time. They are found by the whole key, so none can be used for another. All are wiped when a
//! queue pair goes off and by a function-level reset; those of received packets when device keys change; those
//! of descriptors as soon as no descriptor with a key is under way, for a host does not say when it is done
//! with a key.

use cryptonic_crypto::{Cipher, GcmKey};
use zeroize::Zeroizing;

/// Places, by the first byte of a key.
const PLACES: usize = 256;

/// The schedules.
pub(crate) struct KeySchedules {
    places: Vec<Option<Schedule>>,
    taken: Vec<u8>,
}

struct Schedule {
    cipher: Cipher,
    key: Zeroizing<[u8; 32]>,
    ready: GcmKey,
}

impl KeySchedules {
    pub(crate) fn new() -> Self {
        KeySchedules { places: (0..PLACES).map(|_| None).collect(), taken: Vec::new() }
    }

    /// The key, ready for use. What is behind the cipher's key length must be zero. `None` never happens with
    /// ciphers of the table.
    #[inline]
    pub(crate) fn get(&mut self, cipher: Cipher, key: &[u8; 32]) -> Option<&GcmKey> {
        let place = self.places.get_mut(usize::from(key[0]))?;
        let kept = place.as_ref().is_some_and(|schedule| schedule.cipher == cipher && *schedule.key == *key);
        if !kept {
            let ready = GcmKey::new(cipher, key.get(..cipher.key_length())?).ok()?;
            if place.is_none() {
                self.taken.push(key[0]);
            }
            // The key is copied where it stays: moving it there would leave a copy on the stack.
            let schedule = place.insert(Schedule { cipher, key: Zeroizing::new([0; 32]), ready });
            schedule.key.copy_from_slice(key);
        }
        place.as_ref().map(|schedule| &schedule.ready)
    }

    /// Wipes all.
    pub(crate) fn clear(&mut self) {
        for first in &mut self.taken {
            if let Some(place) = self.places.get_mut(usize::from(std::mem::take(first))) {
                *place = None;
            }
        }
        self.taken.clear();
    }
}
