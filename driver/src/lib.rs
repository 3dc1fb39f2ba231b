//! The userspace driver.
//!
//! [`Nic`] is one function of the device: it holds the host side, the admin queue and what was installed.
//! [`QueuePair`] is a pair of rings, owned by whoever moves packets with it. Both are for one thread.
//!
//! The device is taken to be hostile. What it writes is copied once, checked and matched with private state;
//! what cannot be true quarantines the queue with a reason ([`Quarantine`]) and never panics. What the device
//! only reads (descriptors, commands, frames to send) lies in memory that it cannot write. Every wait has a
//! deadline in the time of the host.
//!
//! The life of an SA: it is installed with its limits ([`Lifetime`]), alone or as one with others
//! ([`Nic::install_sas`]); it tells of itself ([`EventStream`]); it is replaced before it ends
//! ([`Nic::replace_sas`], with [`rekey`] to say when); it is deleted. A [`SaHandle`] is of one NIC and one SA, and names
//! nothing else ever.
//!
//! PSP: the device owns the keys that packets are received by. They are rotated ([`Nic::psp_rotate`],
//! [`Nic::psp_set_rotation`]), SPIs with their keys come in batches ([`Nic::psp_allocate`]), and a sender has such a key in its
//! descriptors ([`QueuePair::add_psp_key`]) or in a slot ([`Nic::install_psp_sa`]). Each operation of Linux's `psp_dev_ops`
//! has its call.
//!
//! ```no_run
//! # fn example(host: Box<dyn cryptonic_pci::Host>) -> Result<(), Box<dyn std::error::Error>> {
//! use cryptonic_driver::{Nic, OpenOptions, Protection, QueuePairOptions, TransmitPacket};
//!
//! let mut nic = Nic::open(host, OpenOptions::default())?;
//! let options = QueuePairOptions { clear_allowed: true, ..QueuePairOptions::default() };
//! let mut queue = nic.create_queue_pair(options)?;
//! let mut buffer = queue.take_buffer().ok_or("no buffer")?;
//! queue.fill(&mut buffer, &[0; 60])?;
//! let mut batch = vec![TransmitPacket::new(buffer, Protection::Clear, 1)];
//! queue.transmit(&mut batch)?;
//! # Ok(())
//! # }
//! ```

// Mapped registers and system calls need it, in the two modules that allow it.
#![deny(unsafe_code)]

mod admin;
pub mod backend;
pub mod coalesce;
mod doorbells;
mod error;
mod event_ring;
mod events;
mod information;
mod ledger;
mod lifetime;
mod nic;
mod psp;
mod psp_keys;
mod psp_policy;
mod queue;
mod receive;
mod receive_ring;
mod region;
pub mod rekey;
mod replace;
mod sa;
mod sa_configuration;
mod secret;
mod shared;
mod slots;
mod software;
mod software_form;
mod software_psp;
mod software_usage;
mod statistics;
mod steering;
mod support;
mod transmit;
mod transmit_ring;

pub use cryptonic_pci::host::Wake;
pub use cryptonic_pci::{Host, Time};
pub use cryptonic_regs::Status;
pub use cryptonic_regs::admin::{
    AdminStatus, Cipher, DfPolicy, Direction, EcnPolicy, LifetimeKind, Mode, Opcode,
};
pub use cryptonic_regs::bar0::PspKeyStatus;
pub use cryptonic_regs::completion::{ChecksumState, HashKind, ReceivedProtocol};
pub use cryptonic_regs::events::{EventCause, SlotState};
pub use error::{AdminAnomaly, Error, EventAnomaly, Quarantine, QueueError};
pub use event_ring::EventDispatcher;
pub use events::{Event, EventOptions, EventRecord, EventStatistics, EventStream};
pub use information::{Capabilities, FirmwareCapabilities, Information};
pub use ledger::KeyLedger;
pub use lifetime::Lifetime;
pub use nic::{Nic, OpenOptions};
pub use psp::{PspDeviceKeys, PspSpi};
pub use psp_keys::PspKeyId;
pub use psp_policy::{PspCaptureOptions, PspSamplingOptions, PspStatistics, psp_epoch_picoseconds};
pub use queue::{QueuePair, QueuePairOptions};
pub use receive::Received;
pub use region::Region;
pub use replace::{Replacement, SaPair};
pub use sa::{SaCauses, SaHandle, SaState};
pub use sa_configuration::{
    FlowLabel, Network, OuterHeader, PspSaConfiguration, SaConfiguration, Salt, Selector, UdpEncapsulation,
};
pub use secret::SecretKey;
pub use software::{Installation, PspInstallation, SoftwareOpened, SoftwareSa};
pub use software_psp::SoftwarePspSa;
pub use software_usage::SoftwareUsage;
pub use statistics::Statistics;
pub use steering::ReceiveScalingOptions;
pub use support::Unsupported;
pub use transmit::{
    InlinePolicy, Offload, Protection, PspTransmit, PushPolicy, QueueStatistics, Reclaimed, SourcePort,
    TransmitBuffer, TransmitPacket, Transmitted,
};
