//! The keys of descriptors on their way through the transmit stages. Each is in one place until its packet has
//! ended, and is wiped there; what moves from stage to stage is the number of the place.

use zeroize::{Zeroize, Zeroizing};

/// The keys of descriptors.
#[derive(Default)]
pub(crate) struct DescriptorKeys {
    #[expect(clippy::vec_box, reason = "growing must not leave copies of keys behind")]
    places: Vec<Box<Zeroizing<[u64; 4]>>>,
    free: Vec<u32>,
}

impl DescriptorKeys {
    /// A place for a key, zero so far.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(Box::new(Zeroizing::new([0; 4])));
            self.places.len() as u32 - 1
        })
    }

    /// The words of a place.
    pub(crate) fn words(&mut self, place: u32) -> Option<&mut [u64; 4]> {
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

    /// Whether no descriptor with a key is under way.
    pub(crate) fn none_under_way(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Wipes every place.
    pub(crate) fn reset(&mut self) {
        *self = DescriptorKeys::default();
    }
}
