//! vfio-user: a PCI function over a Unix socket. The messages are those of VFIO's ioctls (linux/vfio.h) behind a
//! header; file descriptors of memory and eventfds travel beside them (the protocol's specification is
//! `docs/vfio-user.rst` of libvfio-user, version 0.9). The ends are on one machine: numbers are in its byte order.
//!
//! ```text
//!  byte  0        2        4                 8                 12               16
//!       +--------+--------+-----------------+-----------------+-----------------+---------
//!       | id     | command| bytes in all    | flags           | error (errno)   | payload
//!       +--------+--------+-----------------+-----------------+-----------------+---------
//! ```

mod connection;

pub use connection::{Connection, Incoming};

use crate::host::Bar;

/// What a message asks for.
pub mod command {
    /// Agreement on the version: always the first message.
    pub const VERSION: u16 = 1;
    /// Lets the device reach memory.
    pub const DMA_MAP: u16 = 2;
    /// Takes memory back.
    pub const DMA_UNMAP: u16 = 3;
    /// What kind of device it is.
    pub const DEVICE_GET_INFO: u16 = 4;
    /// Size of a region, and whether it may be mapped.
    pub const DEVICE_GET_REGION_INFO: u16 = 5;
    /// How many interrupts of a kind there are.
    pub const DEVICE_GET_IRQ_INFO: u16 = 7;
    /// Which eventfds interrupts go to.
    pub const DEVICE_SET_IRQS: u16 = 8;
    /// Reads registers or config space.
    pub const REGION_READ: u16 = 9;
    /// Writes registers or config space.
    pub const REGION_WRITE: u16 = 10;
    /// Resets the function.
    pub const DEVICE_RESET: u16 = 13;
}

/// Bits of a header's flags.
pub mod header_flags {
    /// The message is a reply; without it, a command.
    pub const REPLY: u32 = 1;
    /// The sender wants no reply.
    pub const NO_REPLY: u32 = 1 << 4;
    /// The command failed: the header's error says why.
    pub const ERROR: u32 = 1 << 5;
}

/// Bits of [`DmaMap::flags`].
pub mod dma_flags {
    /// The device may read.
    pub const READ: u32 = 1;
    /// The device may write.
    pub const WRITE: u32 = 2;
    /// Of an unmap: everything.
    pub const UNMAP_ALL: u32 = 1 << 1;
}

/// Bits of [`DeviceInfo::flags`].
pub mod device_flags {
    /// The device can be reset.
    pub const RESET: u32 = 1;
    /// It is a PCI function.
    pub const PCI: u32 = 2;
}

/// Bits of [`RegionInfo::flags`].
pub mod region_flags {
    /// It can be read.
    pub const READ: u32 = 1;
    /// It can be written.
    pub const WRITE: u32 = 2;
}

/// Bits of [`InterruptInfo::flags`].
pub mod interrupt_flags {
    /// It can be signalled by an eventfd.
    pub const EVENTFD: u32 = 1;
    /// How many are in use changes only by turning all off.
    pub const NO_RESIZE: u32 = 1 << 3;
}

/// Bits of [`SetInterrupts::flags`].
pub mod set_flags {
    /// No data: the action itself.
    pub const DATA_NONE: u32 = 1;
    /// A byte for each interrupt.
    pub const DATA_BOOL: u32 = 1 << 1;
    /// An eventfd for each interrupt.
    pub const DATA_EVENTFD: u32 = 1 << 2;
    /// All that data can be.
    pub const DATA: u32 = DATA_NONE | DATA_BOOL | DATA_EVENTFD;
    /// Sends the interrupt, or says where it is sent to.
    pub const ACTION_TRIGGER: u32 = 1 << 5;
}

/// Regions of a PCI function, by index (linux/vfio.h).
pub mod region {
    /// Config space.
    pub const CONFIG: u32 = 7;
    /// How many there are: BARs, ROM, config space, VGA.
    pub const COUNT: u32 = 9;
}

/// Interrupts of a PCI function, by index (linux/vfio.h).
pub mod interrupt {
    /// MSI-X.
    pub const MSIX: u32 = 2;
    /// How many there are: INTx, MSI, MSI-X, error, request to let go.
    pub const COUNT: u32 = 5;
}

/// Version of the protocol that is spoken here.
pub const MAJOR: u16 = 0;
/// See [`MAJOR`].
pub const MINOR: u16 = 1;
/// Bytes of registers in one message at most: the protocol's default.
pub const TRANSFER_BYTES_MAX: usize = 1 << 20;
/// File descriptors with one message at most.
pub const FILES_MAX: usize = 16;

/// Bytes of config space of a PCI Express function.
pub const CONFIG_BYTES: u64 = 4096;

impl Bar {
    /// Index of the region that the BAR is.
    pub fn region(self) -> u32 {
        match self {
            Bar::Bar0 => 0,
            Bar::Bar2 => 2,
            Bar::Bar4 => 4,
        }
    }

    /// The BAR that a region is.
    pub fn of_region(region: u32) -> Option<Bar> {
        [Bar::Bar0, Bar::Bar2, Bar::Bar4].into_iter().find(|bar| bar.region() == region)
    }
}

/// Declares records of the protocol: fields one behind the other, without gaps.
macro_rules! records {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $name {
            /// Size in bytes.
            pub const BYTES: usize = 0 $(+ size_of::<$type>())*;

            /// The record that `bytes` begin with, and what follows it; `None` if they are too few.
            pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
                let rest = bytes;
                $(
                    let (field, rest) = rest.split_first_chunk()?;
                    let $field = <$type>::from_ne_bytes(*field);
                )*
                Some(($name { $($field),* }, rest))
            }

            /// Adds the record to `bytes`.
            pub fn write(&self, bytes: &mut Vec<u8>) {
                $(bytes.extend_from_slice(&self.$field.to_ne_bytes());)*
            }
        }
    )*};
}

records! {
    /// What every message begins with.
    Header {
        /// Chosen by who sends the command, and repeated in its reply.
        id: u16,
        /// One of [`command`].
        command: u16,
        /// Size of the message, this header included.
        bytes: u32,
        /// Bits of [`header_flags`].
        flags: u32,
        /// An errno, with [`header_flags::ERROR`].
        error: u32,
    }

    /// Version; what the sender can do follows as JSON that ends with a zero.
    Version {
        /// Has to be the same at both ends.
        major: u16,
        /// The lower of both is spoken.
        minor: u16,
    }

    /// Memory that the device may reach; its file travels beside the message, if it has one.
    DmaMap {
        /// Size of this record.
        record_bytes: u32,
        /// Bits of [`dma_flags`].
        flags: u32,
        /// Where in the file the memory begins.
        offset: u64,
        /// The first I/O address.
        iova: u64,
        /// Size in bytes.
        bytes: u64,
    }

    /// Memory that is taken back: every mapping in the range.
    DmaUnmap {
        /// Size of this record.
        record_bytes: u32,
        /// Bits of [`dma_flags`].
        flags: u32,
        /// The first I/O address.
        iova: u64,
        /// Size in bytes.
        bytes: u64,
    }

    /// What kind of device it is.
    DeviceInfo {
        /// Size of this record.
        record_bytes: u32,
        /// Bits of [`device_flags`].
        flags: u32,
        /// How many regions it has.
        regions: u32,
        /// How many kinds of interrupts it has.
        interrupts: u32,
    }

    /// A region.
    RegionInfo {
        /// Size of this record and what follows it.
        record_bytes: u32,
        /// Bits of [`region_flags`].
        flags: u32,
        /// Which region.
        index: u32,
        /// Where its list of capabilities begins; 0 for none.
        capabilities_offset: u32,
        /// Size in bytes; 0 for a region that does not exist.
        bytes: u64,
        /// Where it begins in its file, if it may be mapped.
        offset: u64,
    }

    /// A kind of interrupts.
    InterruptInfo {
        /// Size of this record.
        record_bytes: u32,
        /// Bits of [`interrupt_flags`].
        flags: u32,
        /// Which kind.
        index: u32,
        /// How many.
        count: u32,
    }

    /// What interrupts do; eventfds travel beside the message.
    SetInterrupts {
        /// Size of this record and what follows it.
        record_bytes: u32,
        /// Bits of [`set_flags`].
        flags: u32,
        /// Which kind.
        index: u32,
        /// The first.
        start: u32,
        /// How many; 0 with an action turns all of the kind off.
        count: u32,
    }

    /// Registers or config space; the bytes follow it.
    RegionAccess {
        /// The first byte.
        offset: u64,
        /// Which region.
        region: u32,
        /// How many bytes.
        count: u32,
    }
}

/// A message as it is sent: header, then payload.
pub fn message(id: u16, command: u16, flags: u32, error: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(Header::BYTES + payload.len());
    let size = (Header::BYTES + payload.len()) as u32;
    Header { id, command, bytes: size, flags, error }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and places that libvfio-user's specification prints.
    #[test]
    fn records_have_their_sizes() {
        let sizes = [
            (Header::BYTES, 16),
            (Version::BYTES, 4),
            (DmaMap::BYTES, 32),
            (DmaUnmap::BYTES, 24),
            (DeviceInfo::BYTES, 16),
            (RegionInfo::BYTES, 32),
            (InterruptInfo::BYTES, 16),
            (SetInterrupts::BYTES, 20),
            (RegionAccess::BYTES, 16),
        ];
        for (ours, specified) in sizes {
            assert_eq!(ours, specified);
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_from_fewer_bytes() {
        let map = DmaMap { record_bytes: 32, flags: 3, offset: 0x1000, iova: 1 << 40, bytes: 4096 };
        let mut bytes = Vec::new();
        map.write(&mut bytes);
        bytes.push(9);
        assert_eq!(DmaMap::read(&bytes), Some((map, &[9][..])));
        assert_eq!(DmaMap::read(&bytes[..31]), None);
    }

    #[test]
    fn bars_are_regions_of_their_numbers() {
        for bar in [Bar::Bar0, Bar::Bar2, Bar::Bar4] {
            assert_eq!(Bar::of_region(bar.region()), Some(bar));
        }
        assert_eq!(Bar::of_region(1), None);
        assert_eq!(Bar::of_region(region::CONFIG), None);
    }
}
