//! Places for what may hold a key on its way through a stage: the keys of descriptors, the lines of pushes. A key is
//! in one place until it is no longer needed, and is wiped there; what moves from stage to stage is the number
//! of the place.

use zeroize::{Zeroize, Zeroizing};

/// Places of so many words.
pub(crate) struct SecretPlaces<const WORDS: usize> {
    // Boxed, so that growing leaves no copies of keys behind.
    places: Vec<Box<Zeroizing<[u64; WORDS]>>>,
    free: Vec<u32>,
}

impl<const WORDS: usize> Default for SecretPlaces<WORDS> {
    fn default() -> Self {
        SecretPlaces { places: Vec::new(), free: Vec::new() }
    }
}

impl<const WORDS: usize> SecretPlaces<WORDS> {
    /// A place, zero so far.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(Box::new(Zeroizing::new([0; WORDS])));
            self.places.len() as u32 - 1
        })
    }

    /// The words of a place.
    pub(crate) fn words(&mut self, place: u32) -> Option<&mut [u64; WORDS]> {
        self.places.get_mut(place as usize).map(|words| &mut ***words)
    }

    /// Wipes a place and gives it back.
    pub(crate) fn give(&mut self, place: Option<u32>) {
        if let Some(place) = place
            && let Some(words) = self.places.get_mut(place as usize)
        {
            words.zeroize();
            self.free.push(place);
        }
    }

    /// Whether no place is taken.
    pub(crate) fn none_under_way(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Wipes every place.
    pub(crate) fn reset(&mut self) {
        *self = SecretPlaces::default();
    }
}
