//! Documents made from the rows: the register manual, `regs.json`, the SystemVerilog package.

mod json;
mod layouts;
mod manual;
mod picture;
mod system_verilog;

pub use json::json;
pub use manual::manual;
pub use system_verilog::system_verilog;

use crate::rows::{Block, Enumeration, Field, Record, Value};
use crate::{admin, bar0, completion, descriptor, doorbell, events, firmware, shadow_doorbells, status};

/// An address space and its blocks.
pub(crate) struct Space {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) blocks: &'static [Block],
}

pub(crate) const SPACES: &[Space] = &[
    Space { name: "bar0", doc: "BAR0: registers.", blocks: bar0::BLOCKS },
    Space { name: "bar2", doc: "BAR2: one page a queue pair.", blocks: &[doorbell::DOORBELLS] },
    Space {
        name: "firmware",
        doc: "The firmware's address space; the host cannot reach it.",
        blocks: firmware::BLOCKS,
    },
];

pub(crate) const RECORDS: &[Record] = &[
    descriptor::TransmitDescriptor::ROW,
    descriptor::TransmitInline64Descriptor::ROW,
    descriptor::TransmitKeyDescriptor::ROW,
    descriptor::ReceiveDescriptor::ROW,
    completion::TransmitCompletion::ROW,
    completion::ReceiveCompletion::ROW,
    admin::Command::ROW,
    admin::AdminCompletion::ROW,
    admin::SaParameters::ROW,
    admin::PspTestKeys::ROW,
    admin::PspAllocation::ROW,
    admin::SaStateReply::ROW,
    admin::StatisticsReply::ROW,
    admin::CapabilityReply::ROW,
    events::Event::ROW,
    shadow_doorbells::ShadowDoorbells::ROW,
    shadow_doorbells::EventIndices::ROW,
];

/// The forms of a word that its record holds as plain bits.
pub(crate) const WORD_FORMS: &[(&str, &[Field])] = &[
    ("TransmitSa", <descriptor::TransmitSa as Value>::FIELDS),
    ("TransmitPsp", <descriptor::TransmitPsp as Value>::FIELDS),
    ("InstalledSa", <admin::InstalledSa as Value>::FIELDS),
];

pub(crate) const ENUMERATIONS: &[Enumeration] = &[
    status::Status::ROW,
    descriptor::Security::ROW,
    descriptor::SourcePortPolicy::ROW,
    completion::ReceivedProtocol::ROW,
    completion::ChecksumState::ROW,
    completion::HashKind::ROW,
    admin::Opcode::ROW,
    admin::AdminStatus::ROW,
    admin::Direction::ROW,
    admin::SaProtocol::ROW,
    admin::LifetimeKind::ROW,
    admin::Mode::ROW,
    admin::Cipher::ROW,
    admin::DfPolicy::ROW,
    admin::EcnPolicy::ROW,
    admin::FlowLabelPolicy::ROW,
    events::EventCause::ROW,
    events::SlotState::ROW,
    firmware::SaOperation::ROW,
    firmware::PspOperation::ROW,
    firmware::Outcome::ROW,
];

/// Writes a value's fields for `Debug`, secrets redacted.
pub(crate) fn debug_fields<T: Value>(
    name: &str,
    value: &T,
    formatter: &mut core::fmt::Formatter<'_>,
) -> core::fmt::Result {
    let mut debug = formatter.debug_struct(name);
    let mut shift = 0;
    for field in T::FIELDS {
        let bits = value.bits() >> shift & (u64::MAX >> (64 - u32::from(field.bits)));
        shift += u32::from(field.bits);
        if field.secret {
            debug.field(field.name, &"secret");
        } else if !field.reserved() {
            debug.field(field.name, &bits);
        }
    }
    debug.finish()
}

/// The fields of a value with the position of each one's lowest bit.
pub(crate) fn positions(fields: &'static [Field]) -> impl Iterator<Item = (u32, &'static Field)> {
    fields.iter().scan(0, |position, field| {
        let low = *position;
        *position += u32::from(field.bits);
        Some((low, field))
    })
}

/// A doc comment as one line.
pub(crate) struct OneLine(pub(crate) &'static str);

impl OneLine {
    /// Its lines as they were written, without what surrounds them.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &'static str> {
        self.0.lines().map(str::trim).filter(|line| !line.is_empty())
    }
}

impl core::fmt::Display for OneLine {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                formatter.write_str(" ")?;
            }
            formatter.write_str(line)?;
        }
        Ok(())
    }
}
