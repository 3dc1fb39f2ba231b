//! What can go wrong, as values.

use cryptonic_pci::HostError;
use cryptonic_pci::memory::OutOfBounds;
use cryptonic_regs::Status;
use cryptonic_regs::admin::{AdminStatus, Opcode};
use thiserror::Error;

use crate::Unsupported;

/// Why an operation of a [`crate::Nic`] failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The function was removed, or reads all ones.
    #[error("the device is gone")]
    Gone,
    /// The host side refused an access.
    #[error("the host refused: {0}")]
    Host(#[source] HostError),
    /// The magic number is not that of a Cryptonic NIC.
    #[error("this is not a Cryptonic NIC: its magic number is {found:#010x}")]
    NotCryptonic {
        /// What it reads.
        found: u32,
    },
    /// The device follows another major version of the contract.
    #[error("the device follows version {major}.{minor} of the contract, which this driver does not know")]
    ContractVersion {
        /// Major version of the device.
        major: u16,
        /// Minor version of the device.
        minor: u16,
    },
    /// A block is missing, or is not where the contract puts it.
    #[error("the device's table has no usable block {name:?}")]
    Block {
        /// Name of the block.
        name: &'static str,
    },
    /// A capability that no device can have.
    #[error("the device claims {name} = {value}, which is out of range")]
    Capability {
        /// Name of the capability.
        name: &'static str,
        /// What it reads.
        value: u64,
    },
    /// A deadline passed.
    #[error("the device did not become {what} in time")]
    Deadline {
        /// What was waited for.
        what: &'static str,
    },
    /// The device reports a fault that only a reset ends.
    #[error("the device reports a fatal fault")]
    Fatal,
    /// The reset did not zeroise the key memory.
    #[error("the device does not confirm that its reset erased all keys")]
    KeysNotZeroised,
    /// Memory for the device could not be had.
    #[error("allocating memory for the device: {0}")]
    Memory(#[source] std::io::Error),
    /// The I/O address space of this function is used up.
    #[error("no I/O addresses are left")]
    AddressesExhausted,
    /// The device cannot do this; its capabilities say so.
    #[error("{0}")]
    Unsupported(#[from] Unsupported),
    /// An argument is out of range.
    #[error("{0}")]
    Argument(&'static str),
    /// A ring of events that the device cannot have.
    #[error("a ring of events has a power of two of slots, {least} to {most}, not {slots}")]
    EventSlots {
        /// How many were asked for.
        slots: u32,
        /// The least there may be.
        least: u32,
        /// The most there may be.
        most: u32,
    },
    /// The stream of events is in quarantine.
    #[error("the stream of events is in quarantine: {0}")]
    EventsQuarantined(EventAnomaly),
    /// An epoch that would turn the IV clock of PSP back.
    #[error("the device refuses an epoch that turns its IV clock back behind {clock_picoseconds} ps")]
    EpochRefused {
        /// Where the clock stands.
        clock_picoseconds: u64,
    },
    /// Every queue pair is in use, or the one asked for.
    #[error("no such queue pair is free")]
    NoFreeQueue,
    /// The device stopped a queue pair as it was turned on.
    #[error("the device stopped queue pair {index}: {}", .cause.map_or("for an unknown cause", Status::name))]
    QueueStopped {
        /// Index of the pair.
        index: u32,
        /// Why, if it is a status number.
        cause: Option<Status>,
    },
    /// The device refused a command.
    #[error("the device refused {}: {}", .command.name(), .status.name())]
    Refused {
        /// The command.
        command: Opcode,
        /// Its status.
        status: AdminStatus,
        /// Its result: of `sa_install`, the number of the SA that is refused.
        result: u64,
    },
    /// What is wrong with one SA of several, of which none was installed.
    #[error("SA {number} of the batch: {error}")]
    InBatch {
        /// Its number, from 0 on.
        number: usize,
        /// What is wrong with it.
        #[source]
        error: Box<Error>,
    },
    /// More SAs than one command installs.
    #[error("the device installs {most} SAs at once, not {sas}")]
    BatchTooLarge {
        /// How many.
        sas: usize,
        /// The most there may be.
        most: usize,
    },
    /// The device answered a command with what cannot be true.
    #[error("the device's answer to {} cannot be true: {anomaly}", .command.name())]
    Anomaly {
        /// The command.
        command: Opcode,
        /// What is wrong with the answer.
        anomaly: AdminAnomaly,
    },
    /// The admin queue was given up after a deadline or an anomaly.
    #[error("the admin queue is out of use since an earlier failure")]
    AdminStopped,
    /// The key was installed before, and the start sequence is not above what it may have used.
    #[error("this key was in use before and may only start at {}", .lowest.map_or("no number".into(), |lowest| format!("{lowest} or above")))]
    KeyReused {
        /// The lowest start sequence that is accepted; none if that cannot be known.
        lowest: Option<u64>,
    },
    /// The key is in use by another SA of the same direction.
    #[error("this key is in use by another SA")]
    KeyInUse,
    /// No SA of this handle was installed by this driver.
    #[error("there is no SA with this handle")]
    UnknownSa,
    /// The device was closed, or reset because it failed.
    #[error("the device is closed")]
    Closed,
}

/// What is wrong with an admin completion or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdminAnomaly {
    /// It answers another command.
    #[error("it carries another command's identifier")]
    Identifier,
    /// The status is no status.
    #[error("its status is unknown")]
    Status,
    /// The result is out of range.
    #[error("its result is out of range")]
    Result,
    /// The reply contradicts itself or the command.
    #[error("its reply is malformed")]
    Reply,
}

/// Why a stream of events is in quarantine: what the device told that cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventAnomaly {
    /// A cause that is none.
    #[error("an event's cause is unknown")]
    UnknownCause,
    /// A slot that the device does not have.
    #[error("an event's SA slot is out of range")]
    SlotOutOfRange,
    /// A slot and a generation that no SA ever had.
    #[error("an event is of an SA that there never was")]
    UnknownSa,
    /// A cause that the SA cannot have, or a name that is not the SA's.
    #[error("an event contradicts what its SA is")]
    Contradiction,
    /// The device stopped the ring.
    #[error("the device stopped the ring of events")]
    DeviceStopped,
}

/// Why an operation of a [`crate::QueuePair`] failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// The queue pair is in quarantine.
    #[error("the queue pair is in quarantine: {0}")]
    Quarantined(Quarantine),
    /// The function was removed, or reads all ones.
    #[error("the device is gone")]
    Gone,
    /// The device was closed, or reset because it failed.
    #[error("the device is closed")]
    Closed,
    /// The host side refused an access.
    #[error("the host refused: {0}")]
    Host(HostError),
    /// The bytes do not fit into the buffer.
    #[error("{bytes} bytes do not fit into a buffer with room for {room}")]
    TooLong {
        /// How many.
        bytes: usize,
        /// Room in the buffer.
        room: usize,
    },
    /// A buffer or a key of another queue pair.
    #[error("the buffer or key belongs to another queue pair")]
    Foreign,
    /// An SA of another NIC, or of the same device before it was opened again.
    #[error("the SA is not one of this NIC")]
    ForeignSa,
    /// A PSP key needs transmit descriptors of stride 64, with a cookie of stride 128.
    #[error("a key in the descriptor needs a stride of 64, a key and a cookie need 128")]
    NoRoomForKey,
    /// The device cannot do this; its capabilities say so.
    #[error("the device does not support {0}")]
    Unsupported(&'static str),
    /// A software SA does not protect this frame.
    #[error("the frame cannot be protected: {}", .0.name())]
    Refused(Status),
    /// A frame of more descriptors than the device or the ring takes.
    #[error("a frame of {descriptors} descriptors, where {most} are the most")]
    ChainTooLong {
        /// How many.
        descriptors: usize,
        /// The most there may be.
        most: usize,
    },
    /// The PSP key was removed.
    #[error("the PSP key was removed")]
    UnknownKey,
    /// An argument is out of range.
    #[error("{0}")]
    Argument(&'static str),
    /// A deadline passed.
    #[error("the queue pair was not drained in time")]
    Deadline,
    /// A ring access was out of bounds: a fault of this driver.
    #[error("access outside shared memory")]
    OutOfBounds,
}

macro_rules! quarantine {
    ($( $(#[doc = $doc:literal])* $name:ident = $text:literal, $sentence:literal; )*) => {
        /// Why a queue pair is in quarantine: what the device wrote that cannot be true.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
        pub enum Quarantine {
            $( $(#[doc = $doc])* #[error($sentence)] $name, )*
        }

        impl Quarantine {
            /// Every reason.
            pub const ALL: &'static [Quarantine] = &[ $( Quarantine::$name, )* ];

            /// Its name in snake_case.
            pub const fn name(self) -> &'static str {
                match self { $( Quarantine::$name => $text, )* }
            }
        }
    };
}

quarantine! {
    /// A tag that no slot has.
    TagOutOfRange = "tag_out_of_range", "a completion's tag is out of range";
    /// A tag that is not that of the descriptor the completion is about.
    TagMismatch = "tag_mismatch", "a completion's tag is not that of its descriptor";
    /// A tag generation that is not the current one.
    StaleGeneration = "stale_generation", "a completion's tag generation is stale";
    /// A receive completion for a buffer that the device does not hold.
    NotPosted = "not_posted", "a completion is for a buffer that the device does not hold";
    /// A transmit completion that retires nothing.
    NoDescriptors = "no_descriptors", "a completion retires no descriptor";
    /// A transmit completion that retires more than is under way.
    TooManyDescriptors = "too_many_descriptors", "a completion retires more descriptors than are under way";
    /// A status that is none, or not of this direction.
    UnknownStatus = "unknown_status", "a completion's status is unknown";
    /// A length above that of the posted buffer.
    LengthTooLong = "length_too_long", "a completion's length is above that of its buffer";
    /// A good frame of no bytes.
    LengthZero = "length_zero", "a good frame has no bytes";
    /// A protocol that is none.
    UnknownProtocol = "unknown_protocol", "a completion's protocol is unknown";
    /// An SA slot or generation that no SA has.
    SaOutOfRange = "sa_out_of_range", "a completion's SA is out of range";
    /// A transmit completion that ends inside a packet.
    InsidePacket = "inside_packet", "a completion ends inside a packet";
    /// A frame that goes on where the queue pair, or the contract, does not let it.
    FrameTooLong = "frame_too_long", "a received frame takes more buffers than it may";
    /// Completions of one frame that contradict each other.
    FrameContradiction = "frame_contradiction", "the completions of a received frame contradict each other";
    /// A kind of hash, or the state of a checksum, that is none.
    UnknownMetadata = "unknown_metadata", "a completion's hash kind or checksum state is unknown";
    /// A copy, for a queue pair that takes none.
    UnexpectedCopy = "unexpected_copy", "a received frame is a copy, which the queue pair does not take";
    /// The device stopped the pair itself; the cause is in [`crate::QueuePair::device_cause`].
    DeviceStopped = "device_stopped", "the device stopped the queue pair";
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Gone => Error::Gone,
            other => Error::Host(other),
        }
    }
}

impl From<OutOfBounds> for Error {
    fn from(_: OutOfBounds) -> Self {
        Error::Argument("access outside shared memory")
    }
}

impl From<HostError> for QueueError {
    #[cold]
    fn from(error: HostError) -> Self {
        match error {
            HostError::Gone => QueueError::Gone,
            other => QueueError::Host(other),
        }
    }
}

impl From<OutOfBounds> for QueueError {
    #[cold]
    fn from(_: OutOfBounds) -> Self {
        QueueError::OutOfBounds
    }
}
