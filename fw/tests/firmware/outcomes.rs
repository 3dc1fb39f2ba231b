//! What the engines report, and what becomes of it.

use cryptonic_regs::admin::{AdminStatus, Opcode};
use cryptonic_regs::firmware::Outcome;

use crate::hardware::{EngineName, Forced, booted, command, inbound, outbound};

fn expected(outcome: u8, wrong_state: AdminStatus, bad_argument: AdminStatus) -> AdminStatus {
    match Outcome::of_number(u32::from(outcome)) {
        Some(Outcome::Ok) => AdminStatus::Ok,
        Some(Outcome::DmaFault) => AdminStatus::BadAddress,
        Some(Outcome::DuplicateSpi) => AdminStatus::DuplicateSpi,
        Some(Outcome::WrongState) => wrong_state,
        Some(Outcome::NoSpiLeft) => AdminStatus::NoSpiLeft,
        Some(Outcome::Locked) => AdminStatus::Locked,
        Some(Outcome::BadArgument) => bad_argument,
        None => AdminStatus::Aborted,
    }
}

#[test]
fn each_outcome_of_each_engine_has_its_status() {
    use AdminStatus::{Aborted, BadArgument, NoFreeSlot, NoSuchSa, Unsupported};
    use EngineName::{Dma, Psp, Sa};
    let rows = [
        (Opcode::Capabilities, 0, Dma, Aborted, BadArgument),
        (Opcode::Statistics, 0, Dma, Aborted, BadArgument),
        (Opcode::SaInstall, 0, Dma, Aborted, BadArgument),
        (Opcode::SaInstall, 0, Sa, NoFreeSlot, BadArgument),
        (Opcode::SaDelete, 1 << 32, Sa, NoSuchSa, BadArgument),
        (Opcode::SaQuery, 1 << 32, Sa, NoSuchSa, BadArgument),
        (Opcode::SaQuery, 1 << 32, Dma, Aborted, BadArgument),
        (Opcode::PspAllocate, 1, Psp, Aborted, Unsupported),
        (Opcode::PspRotate, 0, Psp, Aborted, BadArgument),
        (Opcode::PspTestKeyLoad, 0, Psp, Aborted, BadArgument),
        (Opcode::PspTestIvLoad, 9, Psp, Aborted, BadArgument),
    ];
    for (opcode, argument_0, engine, wrong_state, bad_argument) in rows {
        for outcome in (1..10).chain([255]) {
            let (mut hardware, mut firmware) = booted(4);
            hardware.install(&mut firmware, &outbound(0x1000));
            let slots = hardware.slots.clone();
            hardware.forced.push(Forced { engine, outcome, effect: false });
            let done = hardware.serve(&mut firmware, command(opcode, argument_0));
            let status = expected(outcome, wrong_state, bad_argument);
            assert_eq!((done.status, done.result), (status, 0), "{} {engine:?} {outcome}", opcode.name());
            assert_eq!(hardware.slots, slots);
            let after = hardware.install(&mut firmware, &outbound(0x1000));
            assert_eq!(after.status, AdminStatus::Ok, "firmware goes on");
        }
    }
}

#[test]
fn an_install_that_contradicts_itself_is_undone() {
    for outcome in (1..10).chain([255]) {
        let (mut hardware, mut firmware) = booted(4);
        hardware.forced.push(Forced { engine: EngineName::Sa, outcome, effect: true });
        assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).status, AdminStatus::Aborted);
        assert_eq!(hardware.slots[0].generation, 0);
    }
    // Ok, but nothing is there.
    let (mut hardware, mut firmware) = booted(4);
    hardware.forced.push(Forced { engine: EngineName::Sa, outcome: 0, effect: false });
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).status, AdminStatus::Aborted);
}

#[test]
fn a_delete_tells_what_is_left() {
    let (mut hardware, mut firmware) = booted(4);
    hardware.install(&mut firmware, &inbound(0x1000));
    hardware.forced.push(Forced { engine: EngineName::Sa, outcome: 0, effect: false });
    let delete = command(Opcode::SaDelete, 1 << 32);
    assert_eq!(
        hardware.serve(&mut firmware, delete).status,
        AdminStatus::Aborted,
        "ok, but it is still there"
    );
    hardware.forced.push(Forced { engine: EngineName::Sa, outcome: 99, effect: true });
    assert_eq!(hardware.serve(&mut firmware, delete).status, AdminStatus::Aborted);
    assert_eq!(hardware.serve(&mut firmware, delete).status, AdminStatus::NoSuchSa);
}

#[test]
fn an_inbound_sa_is_there_once() {
    let (mut hardware, mut firmware) = booted(4);
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).status, AdminStatus::Ok);
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).status, AdminStatus::DuplicateSpi);
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1001)).status, AdminStatus::Ok);
    assert_eq!(hardware.install(&mut firmware, &outbound(0x1000)).status, AdminStatus::Ok);
}

/// Slots that are full without firmware's doing are passed over, never overwritten.
#[test]
fn a_slot_that_is_full_after_all_is_passed() {
    let (mut hardware, mut firmware) = booted(4);
    hardware.slots[0].generation = 90;
    hardware.slots[1].generation = 91;
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).result as u32, 2);
    assert_eq!((hardware.slots[0].generation, hardware.slots[1].generation), (90, 91));
    hardware.slots[3].generation = 92;
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1001)).status, AdminStatus::NoFreeSlot);
}
