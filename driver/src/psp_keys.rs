//! The PSP keys of a queue pair, which travel in its descriptors.

use cryptonic_pci::SharedMemory;
use cryptonic_pci::memory::OutOfBounds;
use zeroize::Zeroizing;

use crate::{QueueError, SecretKey};

/// Names a PSP key of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PspKeyId {
    queue: u32,
    index: u32,
    generation: u32,
}

pub(crate) struct Key {
    /// Boxed: moving the entry must not leave copies behind.
    words: Box<Zeroizing<[u64; 4]>>,
    pub(crate) spi: u32,
    pub(crate) version: u8,
    generation: u32,
}

impl Key {
    /// Puts the key into a slot, at `offset`.
    pub(crate) fn put(&self, memory: &SharedMemory, offset: usize) -> Result<(), OutOfBounds> {
        memory.write_words(offset, &**self.words)
    }
}

/// Keys by their number.
#[derive(Default)]
pub(crate) struct PspKeys {
    keys: Vec<Option<Key>>,
    next_generation: u32,
}

impl PspKeys {
    pub(crate) fn add(
        &mut self,
        queue: u32,
        version: u8,
        spi: u32,
        key: &SecretKey,
    ) -> Result<PspKeyId, QueueError> {
        if crate::psp::key_bytes(version) != Some(key.bytes()) {
            return Err(QueueError::Argument("the key does not have the length of its PSP version"));
        }
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let mut words = Box::new(Zeroizing::new([0; 4]));
        words.copy_from_slice(&*key.words());
        let key = Some(Key { words, spi, version, generation });
        let index = match self.keys.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.keys.push(None);
                self.keys.len() - 1
            }
        };
        if let Some(place) = self.keys.get_mut(index) {
            *place = key;
        }
        Ok(PspKeyId { queue, index: index as u32, generation })
    }

    pub(crate) fn get(&self, queue: u32, id: PspKeyId) -> Result<&Key, QueueError> {
        match self.keys.get(id.index as usize) {
            _ if id.queue != queue => Err(QueueError::Foreign),
            Some(Some(key)) if key.generation == id.generation => Ok(key),
            _ => Err(QueueError::UnknownKey),
        }
    }

    pub(crate) fn remove(&mut self, queue: u32, id: PspKeyId) -> Result<(), QueueError> {
        self.get(queue, id)?;
        if let Some(place) = self.keys.get_mut(id.index as usize) {
            *place = None;
        }
        Ok(())
    }

    pub(crate) fn forget(&mut self) {
        self.keys.clear();
    }
}
