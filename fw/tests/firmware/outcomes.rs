//! What the engines report, and what becomes of it.

use cryptonic_regs::admin::{AdminStatus, Opcode};
use cryptonic_regs::events::SlotState;
use cryptonic_regs::firmware::Outcome;

use crate::engines::{EngineName, Forced, Slot};
use crate::hardware::Hardware;
use crate::samples::{booted, command, inbound, outbound};

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
        (Opcode::SaInstall, 1, Dma, Aborted, BadArgument),
        (Opcode::SaInstall, 1, Sa, NoFreeSlot, BadArgument),
        (Opcode::SaDelete, 1 << 32, Sa, NoSuchSa, BadArgument),
        (Opcode::SaQuery, 1 << 32, Sa, NoSuchSa, BadArgument),
        (Opcode::SaArm, 1 << 32, Sa, BadArgument, BadArgument),
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
            hardware.forced.push(Forced { engine, skip: 0, outcome, effect: false });
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
        hardware.forced.push(Forced { engine: EngineName::Sa, skip: 0, outcome, effect: true });
        assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).status, AdminStatus::Aborted);
        assert_eq!(hardware.used(), 0);
    }
    // Ok, but nothing is there.
    let (mut hardware, mut firmware) = booted(4);
    hardware.forced.push(Forced { engine: EngineName::Sa, skip: 0, outcome: 0, effect: false });
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).status, AdminStatus::Aborted);
}

#[test]
fn a_delete_tells_what_is_left() {
    let (mut hardware, mut firmware) = booted(4);
    hardware.install(&mut firmware, &inbound(0x1000));
    hardware.forced.push(Forced { engine: EngineName::Sa, skip: 0, outcome: 0, effect: false });
    let delete = command(Opcode::SaDelete, 1 << 32);
    assert_eq!(
        hardware.serve(&mut firmware, delete).status,
        AdminStatus::Aborted,
        "ok, but it is still there"
    );
    hardware.forced.push(Forced { engine: EngineName::Sa, skip: 0, outcome: 99, effect: true });
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
    let held = |generation| Slot { generation, state: SlotState::Armed, ..Default::default() };
    (hardware.slots[0], hardware.slots[1]) = (held(90), held(91));
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1000)).status, AdminStatus::Ok);
    assert_eq!(hardware.reply[0] as u32, 2);
    assert_eq!((hardware.slots[0], hardware.slots[1]), (held(90), held(91)));
    hardware.slots[3] = held(92);
    assert_eq!(hardware.install(&mut firmware, &inbound(0x1001)).status, AdminStatus::NoFreeSlot);
}

/// The next command that ends well would make it valid.
#[test]
fn firmware_stops_when_the_hardware_does_not_give_up_a_staged_slot() {
    for (failures, stops) in [(1, false), (2, false), (3, true)] {
        let (mut hardware, mut firmware) = booted(4);
        let mut refused = outbound(0x1001);
        refused.names.set_spi(0);
        let install = hardware.install_command(&[outbound(0x1000), refused]);
        // Behind the install that goes well.
        let failure = Forced { engine: EngineName::Sa, skip: 1, outcome: 0, effect: false };
        hardware.forced = vec![failure; failures];
        for (index, failure) in hardware.forced.iter_mut().enumerate() {
            failure.skip += index;
        }
        hardware.queue.extend([install, command(Opcode::Statistics, 0)]);
        assert!(hardware.run(&mut firmware));
        let statuses: Vec<_> = hardware.completions.iter().map(|done| done.status).collect();
        let expected = [AdminStatus::ReservedSpi, AdminStatus::Ok];
        assert_eq!(statuses, &expected[..if stops { 0 } else { 2 }], "{failures} deletes that fail");
        let accesses = hardware.accesses;
        assert!(hardware.run(&mut firmware) && hardware.accesses - accesses == if stops { 0 } else { 3 });

        // Started anew, it tries again.
        hardware.queue.push_back(command(Opcode::Capabilities, 0));
        let mut firmware = cryptonic_fw::Firmware::new();
        assert!(hardware.run(&mut firmware));
        hardware.assert_agrees(&firmware);
        assert_eq!(hardware.completions.len(), 3);
        assert_eq!(hardware.used(), 0);
    }
}

#[test]
fn a_restarted_firmware_stops_as_well() {
    for (failures, stops) in [(2, false), (3, true)] {
        let mut hardware = Hardware::new(4, 4);
        hardware.slots[2] = Slot { generation: 9, state: SlotState::Staged, ..Default::default() };
        let failure = Forced { engine: EngineName::Sa, skip: 0, outcome: 0, effect: false };
        hardware.forced = vec![failure; failures];
        for (index, failure) in hardware.forced.iter_mut().enumerate() {
            failure.skip += index;
        }
        hardware.queue.push_back(command(Opcode::Statistics, 0));
        assert!(hardware.run(&mut cryptonic_fw::Firmware::new()));
        assert_eq!(hardware.completions.is_empty(), stops, "{failures} deletes that fail");
    }
}
