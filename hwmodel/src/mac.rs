//! The MAC and its line: padding to the shortest frame, preamble, FCS and gap, at line rate.

use crate::Ticks;

use crate::calendar::Calendar;
use crate::packet::Packet;
use crate::parameters::MacParameters;

/// Shortest frame without FCS (IEEE 802.3 4.2.3.3).
pub const FRAME_BYTES_MIN: u64 = 60;
/// Frame check sequence.
pub const FCS_BYTES: u64 = 4;
/// Preamble and start delimiter.
pub const PREAMBLE_BYTES: u64 = 8;
/// Gap between frames.
pub const GAP_BYTES: u64 = 12;

/// Time of a byte on the line.
pub fn byte_time(parameters: &MacParameters) -> Ticks {
    Ticks(33 * 8_000 / parameters.rate_gbps)
}

/// The transmit side of a MAC.
pub struct Mac {
    line: Calendar,
    byte_time: Ticks,
    latency: Ticks,
}

impl Mac {
    /// An idle line.
    pub fn new(parameters: &MacParameters) -> Self {
        Mac {
            line: Calendar::default(),
            byte_time: byte_time(parameters),
            latency: Ticks::from_nanoseconds(parameters.latency_ns),
        }
    }

    /// Sends a frame that is ready at `ready`, padded if it is short. Gives when its last bit has left the
    /// pipeline's buffer, and when it is on the line.
    #[inline]
    pub fn send(&mut self, ready: Ticks, packet: &mut Packet) -> Sent {
        let bytes = packet.bytes();
        if bytes < FRAME_BYTES_MIN {
            // Tailroom is larger than the shortest frame, so this cannot fail; if it did the frame would
            // leave unpadded, which receivers tolerate.
            let _ = packet.with_room(|room| {
                let length = room.length();
                room.extend_back(FRAME_BYTES_MIN as usize - length)?;
                room.frame_mut()[length..].fill(0);
                Ok::<_, cryptonic_wire::NoRoom>(())
            });
        }
        let on_line = PREAMBLE_BYTES + packet.bytes() + FCS_BYTES;
        let start = self.line.serve(ready, self.byte_time.times(on_line + GAP_BYTES));
        let left = start + self.byte_time.times(on_line);
        Sent { left, on_line: left + self.latency }
    }

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        self.line.begin_anew(by);
    }

    /// Time the line was in use.
    pub fn busy(&self) -> Ticks {
        self.line.busy()
    }
}

/// The two times of a sent frame.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When its last bit left the transmit buffer.
    pub left: Ticks,
    /// When its last bit is on the line.
    pub on_line: Ticks,
}
