//! A command as it came, and what can be refused before anything is fetched.

use cryptonic_regs::admin::{
    AdminStatus, CapabilityReply, Command, CommandHead, Opcode, PspAllocation, PspTestKeys, SaParameters,
    SaStateReply, StatisticsReply,
};
use cryptonic_regs::rows::Field;
use cryptonic_regs::{Value, firmware};

/// The most SPIs one `psp_allocate` gives.
pub const SPIS_PER_COMMAND: u32 = 2048;
/// The highest PSP version that exists.
const PSP_VERSION_LAST: u32 = 3;

/// A command whose form is right. Addresses are aligned, and their ranges do not wrap.
#[derive(Clone, Copy)]
pub enum Request {
    Capabilities { reply: u64 },
    Statistics { reply: u64 },
    SaInstall { parameters: u64 },
    SaDelete { slot: u32, generation: u32 },
    SaQuery { slot: u32, generation: u32, reply: u64 },
    PspAllocate { count: u32, version: u32, reply: u64 },
    PspRotate,
    PspTestKeyLoad { parameters: u64 },
    PspTestIvLoad { iv: u64 },
}

/// The bits of the reserved fields of a value.
pub const fn reserved_mask(fields: &[Field]) -> u64 {
    let mut mask = 0;
    let mut position = 0u32;
    let mut rest = fields;
    while let [field, tail @ ..] = rest {
        if field.reserved() {
            mask |= (u64::MAX >> 64u32.saturating_sub(field.bits as u32)) << position;
        }
        position = position.saturating_add(field.bits as u32);
        rest = tail;
    }
    mask
}

const HEAD_RESERVED: u64 = reserved_mask(<CommandHead as Value>::FIELDS);

/// Which of its words an opcode reads; the others must be 0.
struct Form {
    parameter_bytes: u32,
    reply_bytes: u32,
    argument_0: bool,
}

fn form(opcode: Opcode, argument_0: u64) -> Form {
    let (parameter_bytes, reply_bytes, argument_0) = match opcode {
        Opcode::Capabilities => (0, CapabilityReply::BYTES as u32, false),
        Opcode::Statistics => (0, StatisticsReply::BYTES as u32, false),
        Opcode::SaInstall => (SaParameters::BYTES as u32, 0, false),
        Opcode::SaDelete => (0, 0, true),
        Opcode::SaQuery => (0, SaStateReply::BYTES as u32, true),
        Opcode::PspAllocate => {
            (0, (argument_0 as u32).saturating_mul(PspAllocation::BYTES as u32).max(1), true)
        }
        Opcode::PspRotate => (0, 0, false),
        Opcode::PspTestKeyLoad => (PspTestKeys::BYTES as u32, 0, false),
        Opcode::PspTestIvLoad => (0, 0, true),
    };
    Form { parameter_bytes, reply_bytes, argument_0 }
}

impl Request {
    /// Checks the form of a command: first the opcode, then reserved and unused words, then the arguments,
    /// last the places in host memory.
    pub fn check(command: &Command) -> Result<Request, AdminStatus> {
        let opcode = Opcode::of_number(u32::from(command.head.opcode())).ok_or(AdminStatus::UnknownOpcode)?;
        let form = form(opcode, command.argument_0);
        let unused = command.head.into_bits() & HEAD_RESERVED
            | command.argument_1
            | command.reserved_0
            | command.reserved_1
            | if form.argument_0 { 0 } else { command.argument_0 };
        if unused != 0 {
            return Err(AdminStatus::BadArgument);
        }

        let (low, high) = (command.argument_0 as u32, (command.argument_0 >> 32) as u32);
        if opcode == Opcode::PspAllocate && (low == 0 || low > SPIS_PER_COMMAND || high > PSP_VERSION_LAST) {
            return Err(AdminStatus::BadArgument);
        }

        let parameters = command.parameter_address;
        let parameter_bytes = command.lengths.parameter_bytes();
        // A longer block than this firmware knows would say something that it cannot heed.
        if parameter_bytes > form.parameter_bytes {
            return Err(AdminStatus::BadArgument);
        }
        check_place(parameters, parameter_bytes, form.parameter_bytes)?;
        let reply = command.reply_address;
        if form.reply_bytes == 0 && command.lengths.reply_bytes() != 0 {
            return Err(AdminStatus::BadArgument);
        }
        check_place(reply, command.lengths.reply_bytes(), form.reply_bytes)?;

        Ok(match opcode {
            Opcode::Capabilities => Request::Capabilities { reply },
            Opcode::Statistics => Request::Statistics { reply },
            Opcode::SaInstall => Request::SaInstall { parameters },
            Opcode::SaDelete => Request::SaDelete { slot: low, generation: high },
            Opcode::SaQuery => Request::SaQuery { slot: low, generation: high, reply },
            Opcode::PspAllocate => Request::PspAllocate { count: low, version: high, reply },
            Opcode::PspRotate => Request::PspRotate,
            Opcode::PspTestKeyLoad => Request::PspTestKeyLoad { parameters },
            Opcode::PspTestIvLoad => Request::PspTestIvLoad { iv: command.argument_0 },
        })
    }
}

/// Whether `needed` bytes fit in a place of the host's memory. A place that nothing needs is at address 0.
fn check_place(address: u64, bytes: u32, needed: u32) -> Result<(), AdminStatus> {
    if needed == 0 {
        return if address == 0 { Ok(()) } else { Err(AdminStatus::BadArgument) };
    }
    let aligned = address != 0 && address.trailing_zeros() >= 3;
    let ends = address.checked_add(u64::from(needed)).is_some();
    if aligned && ends && bytes >= needed { Ok(()) } else { Err(AdminStatus::BadAddress) }
}

// What firmware keeps of a slot number in the mailbox's note fits there.
const _: () = assert!(crate::slots::SLOTS_MAX == 1 << u16::BITS);
// Parameters and replies have a place each in scratch memory.
const _: () = assert!(SaParameters::PUBLIC_BYTES as u32 <= crate::REPLY_OFFSET);
const _: () = assert!(crate::REPLY_OFFSET + StatisticsReply::BYTES as u32 <= firmware::SCRATCH_BYTES);
const _: () = assert!(crate::REPLY_OFFSET + CapabilityReply::BYTES as u32 <= firmware::SCRATCH_BYTES);
const _: () = assert!(crate::REPLY_OFFSET + SaStateReply::BYTES as u32 <= firmware::SCRATCH_BYTES);
