//! What a frame is made of where one descriptor at one address does not say it: inline bytes, and the pieces of a
//! chain, on transmit; the buffers of a scattered frame, on receive. Places are recycled, so that in the steady
//! state nothing is allocated; a frame of one piece takes none.

/// Most inline bytes of a frame: a slot of 128 bytes but for the words before them.
pub(crate) const INLINE_BYTES_MAX: usize = 96;

/// Bytes of host memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// IOVA.
    pub(crate) address: u64,
    /// How many.
    pub(crate) bytes: u16,
}

/// A frame to be transmitted: its inline bytes, then its pieces.
pub(crate) struct FrameParts {
    pub(crate) inline: [u8; INLINE_BYTES_MAX],
    pub(crate) inline_bytes: usize,
    pub(crate) pieces: Vec<Piece>,
}

impl Default for FrameParts {
    fn default() -> Self {
        FrameParts { inline: [0; INLINE_BYTES_MAX], inline_bytes: 0, pieces: Vec::new() }
    }
}

impl FrameParts {
    /// The inline bytes.
    pub(crate) fn inline(&self) -> &[u8] {
        self.inline.get(..self.inline_bytes).unwrap_or(&[])
    }

    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        self.inline_bytes = 0;
        self.pieces.clear();
    }
}

/// One buffer of a scattered frame, and its completion.
#[derive(Clone, Copy)]
pub(crate) struct ScatteredBuffer {
    pub(crate) piece: Piece,
    /// IOVA of the completion.
    pub(crate) completion: u64,
    /// Words of the completion.
    pub(crate) words: [u64; 8],
}

/// Numbered places for things that are used again and again.
pub(crate) struct Places<T> {
    places: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Places { places: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Places<T> {
    /// A place, with whatever its last user left in it.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(T::default());
            self.places.len() as u32 - 1
        })
    }

    /// What is in a place.
    pub(crate) fn at(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)
    }

    /// The same, to be changed.
    pub(crate) fn at_mut(&mut self, place: u32) -> Option<&mut T> {
        self.places.get_mut(place as usize)
    }

    /// Gives a place back.
    pub(crate) fn give(&mut self, place: Option<u32>) {
        self.free.extend(place);
    }
}
