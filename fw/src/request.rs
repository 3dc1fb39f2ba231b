//! A command as it came, and what can be refused before anything is fetched.

use cryptonic_regs::admin::{
    AdminStatus, CapabilityReply, Command, CommandHead, InstalledSa, Opcode, PspAllocation, PspTestKeys,
    SaParameters, SaStateReply, StatisticsReply,
};
use cryptonic_regs::rows::Field;
use cryptonic_regs::{Value, firmware};

/// The most SPIs one `psp_allocate` gives.
pub const SPIS_PER_COMMAND: u32 = 2048;
/// The most SAs one `sa_install` installs: what the hardware reports as `sa_batch`.
pub const SA_BATCH: u32 = 16;
/// Bytes of one record of the reply of `sa_install`.
const INSTALLED_BYTES: u32 = size_of::<InstalledSa>() as u32;
/// The highest PSP version that exists.
const PSP_VERSION_LAST: u32 = 3;

/// A command whose form is right. Addresses are aligned, and their ranges do not wrap.
#[derive(Clone, Copy)]
pub enum Request {
    Capabilities { reply: u64 },
    Statistics { reply: u64 },
    SaInstall { count: u32, parameters: u64, reply: u64 },
    SaDelete { slot: u32, generation: u32 },
    SaQuery { slot: u32, generation: u32, reply: u64 },
    SaArm { slot: u32, generation: u32, soft_limit: u64 },
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
    /// Arguments that it has, from 0 on.
    arguments: u32,
}

fn form(opcode: Opcode, argument_0: u64) -> Form {
    // Records that the command names, where that is what the argument says.
    let count = argument_0 as u32;
    let records = |bytes: u32| count.saturating_mul(bytes).max(1);
    let (parameter_bytes, reply_bytes, arguments) = match opcode {
        Opcode::Capabilities => (0, CapabilityReply::BYTES as u32, 0),
        Opcode::Statistics => (0, StatisticsReply::BYTES as u32, 0),
        Opcode::SaInstall => (records(SaParameters::BYTES as u32), records(INSTALLED_BYTES), 1),
        Opcode::SaDelete => (0, 0, 1),
        Opcode::SaQuery => (0, SaStateReply::BYTES as u32, 1),
        Opcode::SaArm => (0, 0, 2),
        Opcode::PspAllocate => (0, records(PspAllocation::BYTES as u32), 1),
        Opcode::PspRotate => (0, 0, 0),
        Opcode::PspTestKeyLoad => (PspTestKeys::BYTES as u32, 0, 0),
        Opcode::PspTestIvLoad => (0, 0, 1),
    };
    Form { parameter_bytes, reply_bytes, arguments }
}

impl Request {
    /// Checks the form of a command: first the opcode, then reserved and unused words, then the arguments,
    /// last the places in host memory.
    pub fn check(command: &Command) -> Result<Request, AdminStatus> {
        let opcode = Opcode::of_number(u32::from(command.head.opcode())).ok_or(AdminStatus::UnknownOpcode)?;
        let form = form(opcode, command.argument_0);
        let unused = command.head.into_bits() & HEAD_RESERVED
            | command.reserved_0
            | command.reserved_1
            | if form.arguments > 0 { 0 } else { command.argument_0 }
            | if form.arguments > 1 { 0 } else { command.argument_1 };
        if unused != 0 {
            return Err(AdminStatus::BadArgument);
        }

        let (low, high) = (command.argument_0 as u32, (command.argument_0 >> 32) as u32);
        let fits = match opcode {
            Opcode::SaInstall => (1..=SA_BATCH).contains(&low) && high == 0,
            // A soft limit of 0 is an error, never "none".
            Opcode::SaArm => command.argument_1 != 0,
            Opcode::PspAllocate => (1..=SPIS_PER_COMMAND).contains(&low) && high <= PSP_VERSION_LAST,
            _ => true,
        };
        if !fits {
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
            Opcode::SaInstall => Request::SaInstall { count: low, parameters, reply },
            Opcode::SaDelete => Request::SaDelete { slot: low, generation: high },
            Opcode::SaQuery => Request::SaQuery { slot: low, generation: high, reply },
            Opcode::SaArm => Request::SaArm { slot: low, generation: high, soft_limit: command.argument_1 },
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

// Parameters and replies have a place each in scratch memory.
const _: () = assert!(SaParameters::PUBLIC_BYTES as u32 <= crate::REPLY_OFFSET);
const _: () = assert!(crate::REPLY_OFFSET + StatisticsReply::BYTES as u32 <= firmware::SCRATCH_BYTES);
const _: () = assert!(crate::REPLY_OFFSET + CapabilityReply::BYTES as u32 <= firmware::SCRATCH_BYTES);
const _: () = assert!(crate::REPLY_OFFSET + SA_BATCH * INSTALLED_BYTES <= firmware::SCRATCH_BYTES);
const _: () = assert!(crate::REPLY_OFFSET + SaStateReply::BYTES as u32 <= firmware::SCRATCH_BYTES);
