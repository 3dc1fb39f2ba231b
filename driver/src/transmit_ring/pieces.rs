//! What frames are made of: buffers and registered memory, in chains.

use cryptonic_pci::SharedMemory;
use cryptonic_pci::memory::OutOfBounds;

use crate::region::Region;
use crate::transmit::{Reclaimed, TransmitBuffer};

/// A part of a frame in one place.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) iova: u64,
    pub(super) bytes: u32,
    /// The piece it is of, as in [`TransmitBuffer`]; 0 for the packet's own buffer.
    piece: u32,
    /// Bytes of the piece before it.
    taken: u32,
}

/// The parts of a packet's frame: its own buffer, then what is attached.
pub(super) fn collect_spans(
    spans: &mut Vec<Span>,
    pieces: &Pieces,
    buffer: &TransmitBuffer,
    frames_iova: u64,
) {
    let iova = |place: u32| frames_iova + u64::from(place);
    spans.clear();
    spans.push(Span { iova: iova(buffer.place), bytes: buffer.length, piece: 0, taken: 0 });
    for (number, piece) in pieces.of(buffer.chain) {
        let (iova, bytes) = match piece {
            Piece::Buffer { place, length } => (iova(*place), *length),
            Piece::Region(region) => (region.iova(), region.bytes() as u32),
            Piece::Free => (0, 0),
        };
        spans.push(Span { iova, bytes, piece: number, taken: 0 });
    }
}

/// Takes the frame's first bytes out of its spans.
pub(super) fn take_inline(
    spans: &mut [Span],
    pieces: &Pieces,
    memory: &SharedMemory,
    own_frame: usize,
    frames_offset: usize,
    inline: &mut [u8],
) -> Result<(), OutOfBounds> {
    let mut rest = inline;
    for span in spans {
        if rest.is_empty() {
            break;
        }
        let step = rest.len().min(span.bytes as usize);
        let (part, behind) = std::mem::take(&mut rest).split_at_mut(step);
        let (source, start) = match pieces.get(span.piece) {
            Some(Piece::Region(region)) => region.source(),
            Some(Piece::Buffer { place, .. }) => (memory, frames_offset + *place as usize),
            _ => (memory, own_frame),
        };
        source.read(start + span.taken as usize, part)?;
        span.iova += step as u64;
        span.bytes -= step as u32;
        span.taken += step as u32;
        rest = behind;
    }
    Ok(())
}

/// What is attached to a buffer.
pub(crate) enum Piece {
    Free,
    Buffer { place: u32, length: u32 },
    Region(Region),
}

struct Node {
    piece: Piece,
    next: u32,
}

/// The attached pieces of all packets, in chains. A piece's number is its place and 1, so that 0 is none.
#[derive(Default)]
pub(crate) struct Pieces {
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// Registered memory whose packets have ended.
    pub(crate) reclaimed: Vec<Reclaimed>,
}

impl Pieces {
    /// Puts a piece at the end of a chain.
    pub(crate) fn append(&mut self, chain: &mut u32, piece: Piece) {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.nodes.push(Node { piece: Piece::Free, next: 0 });
                self.nodes.len() as u32
            }
        };
        if let Some(node) = self.nodes.get_mut(number as usize - 1) {
            *node = Node { piece, next: 0 };
        }
        let mut last = 0;
        for (number, _) in self.of(*chain) {
            last = number;
        }
        match (last as usize).checked_sub(1).and_then(|place| self.nodes.get_mut(place)) {
            Some(node) => node.next = number,
            None => *chain = number,
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Piece> {
        Some(&self.nodes.get((number as usize).checked_sub(1)?)?.piece)
    }

    /// The pieces of a chain, with their numbers.
    fn of(&self, chain: u32) -> impl Iterator<Item = (u32, &Piece)> {
        let mut number = chain;
        std::iter::from_fn(move || {
            let node = self.nodes.get((number as usize).checked_sub(1)?)?;
            let found = (number, &node.piece);
            number = node.next;
            Some(found)
        })
    }

    /// Frees the pieces of a chain: buffers into `free`, registered memory to be reclaimed.
    pub(crate) fn release(&mut self, chain: u32, cookie: Option<u64>, free: &mut Vec<u32>) {
        let mut number = chain;
        while let Some(node) = (number as usize).checked_sub(1).and_then(|place| self.nodes.get_mut(place)) {
            match std::mem::replace(&mut node.piece, Piece::Free) {
                Piece::Buffer { place, .. } => free.push(place),
                Piece::Region(region) => self.reclaimed.push(Reclaimed { cookie, region }),
                Piece::Free => {}
            }
            self.free.push(number);
            number = std::mem::take(&mut node.next);
        }
    }
}
