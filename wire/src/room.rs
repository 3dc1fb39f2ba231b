//! A frame inside a larger buffer: headroom before it, tailroom after it.

use core::fmt;

/// A frame in `storage[start..end]` that can grow at both ends without moving its payload.
///
/// ```text
///  storage  |<-- headroom -->|<------ frame ------>|<-- tailroom -->|
///           0              start                  end        storage.len()
/// ```
///
/// Octets that growth brings in hold whatever the storage held: the one who grows a frame writes all of them. The
/// fields are public so that a device can keep them in a descriptor; a `Room` whose fields contradict each other
/// acts as an empty frame without room.
#[derive(Debug)]
pub struct Room<'a> {
    /// The whole buffer.
    pub storage: &'a mut [u8],
    /// Offset of the frame's first octet in `storage`.
    pub start: usize,
    /// Offset one past the frame's last octet in `storage`.
    pub end: usize,
}

/// A frame does not fit: too little headroom, tailroom or frame for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the buffer has too little room for the frame")
    }
}

impl core::error::Error for NoRoom {}

impl<'a> Room<'a> {
    /// The frame `storage[start..end]`.
    ///
    /// # Errors
    /// [`NoRoom`] unless `start <= end <= storage.len()`.
    #[inline]
    pub fn new(storage: &'a mut [u8], start: usize, end: usize) -> Result<Self, NoRoom> {
        if start > end || end > storage.len() { Err(NoRoom) } else { Ok(Self { storage, start, end }) }
    }

    /// The frame.
    #[inline]
    pub fn frame(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or(&[])
    }

    /// The frame, to be written.
    #[inline]
    pub fn frame_mut(&mut self) -> &mut [u8] {
        self.storage.get_mut(self.start..self.end).unwrap_or(&mut [])
    }

    /// Length of the frame in octets.
    #[inline]
    pub fn length(&self) -> usize {
        self.frame().len()
    }

    /// Octets free before the frame.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start.min(self.storage.len())
    }

    /// Octets free after the frame.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.storage.len().saturating_sub(self.end)
    }

    /// Grows the frame by `octets` at its front.
    ///
    /// # Errors
    /// [`NoRoom`] where the headroom is smaller; the frame is then unchanged.
    #[inline]
    pub fn push_front(&mut self, octets: usize) -> Result<(), NoRoom> {
        self.start = self.start.checked_sub(octets).ok_or(NoRoom)?;
        Ok(())
    }

    /// Drops the frame's first `octets`.
    ///
    /// # Errors
    /// [`NoRoom`] where the frame is shorter; it is then unchanged.
    #[inline]
    pub fn pop_front(&mut self, octets: usize) -> Result<(), NoRoom> {
        if octets > self.length() {
            return Err(NoRoom);
        }
        self.start += octets;
        Ok(())
    }

    /// Grows the frame by `octets` at its back.
    ///
    /// # Errors
    /// [`NoRoom`] where the tailroom is smaller; the frame is then unchanged.
    #[inline]
    pub fn extend_back(&mut self, octets: usize) -> Result<(), NoRoom> {
        if octets > self.tailroom() {
            return Err(NoRoom);
        }
        self.end += octets;
        Ok(())
    }

    /// Cuts the frame to its first `octets`.
    ///
    /// # Errors
    /// [`NoRoom`] where the frame is shorter; it is then unchanged.
    #[inline]
    pub fn truncate(&mut self, octets: usize) -> Result<(), NoRoom> {
        if octets > self.length() {
            return Err(NoRoom);
        }
        self.end = self.start + octets;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_within_the_storage() {
        let mut storage = [0u8; 10];
        let mut room = Room::new(&mut storage, 4, 6).unwrap();
        assert_eq!((room.headroom(), room.length(), room.tailroom()), (4, 2, 4));
        assert_eq!(room.push_front(5), Err(NoRoom));
        assert_eq!(room.extend_back(5), Err(NoRoom));
        room.push_front(4).unwrap();
        room.extend_back(4).unwrap();
        assert_eq!((room.headroom(), room.length(), room.tailroom()), (0, 10, 0));
        assert_eq!(room.pop_front(11), Err(NoRoom));
        room.pop_front(3).unwrap();
        assert_eq!(room.truncate(8), Err(NoRoom));
        room.truncate(1).unwrap();
        assert_eq!((room.headroom(), room.length(), room.tailroom()), (3, 1, 6));
    }

    #[test]
    fn contradicting_fields_are_an_empty_frame() {
        let mut storage = [0u8; 4];
        assert!(Room::new(&mut storage, 3, 2).is_err());
        let mut room = Room { storage: &mut storage, start: 9, end: 7 };
        assert!(room.frame_mut().is_empty());
        assert_eq!((room.headroom(), room.tailroom()), (4, 0));
        assert_eq!(room.extend_back(1), Err(NoRoom));
        assert_eq!(room.pop_front(1), Err(NoRoom));
    }
}
