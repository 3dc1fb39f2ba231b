//! Policy of PSP: when device keys are rotated, where the IV clock stands, what is captured and sampled.

use crate::declare::{bits, registers};

bits! {
    /// Rotation of the device keys by the device itself.
    pub struct PspRotation: u32 {
        /// An allocation that finds too few SPIs left rotates first.
        on_exhaustion: bool = 1,
        /// Reserved.
        _reserved: u32 = 31,
    }
    /// Packets that failed and go to a queue nevertheless, with their status: at most one in an interval.
    pub struct PspCapture: u32 {
        /// Queue pair that takes them.
        queue: u8 = 8,
        /// Received packets with a wrong ICV, a fault of framing or no key: as they were on the wire.
        receive: bool = 1,
        /// Packets that could not be protected: as the host gave them.
        transmit: bool = 1,
        /// Reserved.
        _reserved: u8 = 6,
        /// Least time between two of them in microseconds.
        interval_us: u16 = 16,
    }
    /// Copies of opened packets with the S bit: at most one in an interval.
    pub struct PspSampling: u32 {
        /// Queue pair that takes them.
        queue: u8 = 8,
        /// Copies are made.
        enable: bool = 1,
        /// Packets with the D bit are dropped, after their copy was made if they have the S bit.
        drop: bool = 1,
        /// Reserved.
        _reserved: u8 = 6,
        /// Least time between two of them in microseconds.
        interval_us: u16 = 16,
    }
}

registers! {
    /// PSP policy.
    pub block PSP_POLICY, kind 10, version 1, at 0x1400, stride 0x100 {
        /// Rotation on exhaustion.
        0x00 ReadWrite PSP_ROTATION: PspRotation;
        /// Age in milliseconds at which the active device key is rotated; 0 for never. While it is not 0 and no device key is
        /// valid, one is made at once.
        0x04 ReadWrite PSP_ROTATION_PERIOD_MS: u32;
        /// As many SPIs left to the active device key, or fewer, are the event `psp_spi_low`. 2^24 after reset.
        0x08 ReadWrite PSP_SPI_LOW_WATER: u32;
        /// The epoch: the IV clock is this and the time since power-on, in picoseconds. 0: none is known since power-on,
        /// and no PSP packet leaves (`psp_no_epoch`). The host sets it above every IV that a key still in use may have seen. A
        /// write of less than there is, of 0, or of more than 2^63 is refused: it changes nothing but `epoch_refused` of
        /// [`crate::bar0::PspKeyStatus`]. A function-level reset leaves epoch and clock as they are.
        0x10 ReadWrite PSP_EPOCH: u64;
        /// Capture of failed packets. Both directions share the interval; a packet for which its queue has no buffer is not
        /// captured.
        0x18 ReadWrite PSP_CAPTURE: PspCapture;
        /// Copies of sampled packets. A copy for which its queue has no buffer is not made, and its packet goes on.
        0x1c ReadWrite PSP_SAMPLING: PspSampling;
    }
}
