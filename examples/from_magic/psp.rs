//! PSP: device keys, SPIs with their keys, the clock of IVs, and rotation.

use cryptonic_regs::admin::{Opcode, PspAllocation};
use cryptonic_regs::bar0::{PSP_CONTROL, PSP_KEY_STATUS, PspControl};
use cryptonic_regs::psp_policy::{PSP_EPOCH, PSP_ROTATION, PSP_ROTATION_PERIOD_MS, PspRotation};

use super::admin::{Admin, Request};
use super::function::{Function, Outcome};

/// The version that this driver speaks: AES-GCM with 128 bits.
const VERSION: u64 = 0;

// guide: psp keys
/// Makes a device key, and opens PSP packets of version 0.
pub fn start(admin: &mut Admin, function: &Function) -> Outcome<()> {
    admin.run(function, Request::new(Opcode::PspRotate))?;
    function.write(PSP_CONTROL, PspControl::new().with_receive_versions(1 << VERSION).with_udp_port(1000))
}

/// Allocates one SPI with its key.
pub fn allocate(admin: &mut Admin, function: &Function) -> Outcome<PspAllocation> {
    let request = Request {
        arguments: [VERSION << 32 | 1, 0],
        reply_bytes: PspAllocation::BYTES,
        ..Request::new(Opcode::PspAllocate)
    };
    if admin.run(function, request)? != 1 {
        return Err("the device allocated another number of SPIs".into());
    }
    let allocation = PspAllocation::of_words(&admin.reply()?);
    if allocation.spi.key_bytes() != 16 || allocation.spi.spi() << 1 == 0 {
        return Err("the device gave an SPI or a key that cannot be".into());
    }
    Ok(allocation)
}
// guide: end

// guide: psp epoch
/// Sees to it that every IV from now on is above `highest_iv`.
pub fn set_epoch(function: &Function, highest_iv: u64) -> Outcome<()> {
    // The clock is the epoch and the time since power-on, so it is never below the epoch.
    if function.read(PSP_EPOCH)? > highest_iv {
        return Ok(());
    }
    function.write(PSP_EPOCH, highest_iv.checked_add(1).ok_or("no IV is left")?)?;
    let status = function.read(PSP_KEY_STATUS)?;
    if status.epoch_refused() || !status.epoch_set() {
        return Err("the device does not take this epoch".into());
    }
    Ok(())
}
// guide: end

// guide: psp rotation
/// Has the device rotate its key by itself: each `period_ms`, and when it has too few SPIs left. 0 ends both.
pub fn rotate_every(function: &Function, period_ms: u32) -> Outcome<()> {
    function.write(PSP_ROTATION, PspRotation::new().with_on_exhaustion(period_ms != 0))?;
    function.write(PSP_ROTATION_PERIOD_MS, period_ms)
}
// guide: end
