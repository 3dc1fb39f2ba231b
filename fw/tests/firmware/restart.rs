//! Firmware that is started anew at any access of the bus, once or twice, while the hardware runs on.

use cryptonic_fw::Firmware;
use cryptonic_regs::admin::{AdminStatus, Command, Opcode};

use crate::hardware::{Hardware, booted, command, inbound, outbound};

/// What the host does next, from the slots and generations it was told of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    InstallIn(u32),
    InstallOut(u32),
    DeleteFirst,
    QueryLast,
    Other(Opcode, u64),
}

const SCRIPT: &[Act] = &[
    Act::Other(Opcode::Capabilities, 0),
    Act::InstallIn(0x1000),
    Act::InstallOut(0x2000),
    Act::QueryLast,
    Act::DeleteFirst,
    Act::InstallOut(0x10),
    Act::InstallIn(0x1001),
    Act::Other(Opcode::PspAllocate, 3),
    Act::Other(Opcode::PspRotate, 0),
    Act::InstallIn(0x1002),
    Act::DeleteFirst,
    Act::Other(Opcode::PspTestKeyLoad, 0),
    Act::Other(Opcode::PspTestIvLoad, 77),
    Act::InstallOut(0x2001),
    Act::Other(Opcode::Statistics, 0),
];

/// Runs the script with crashes after so many accesses each; gives the number of crashes that happened and
/// how many commands were aborted.
fn play(crashes: &[usize], engine_first: bool) -> (usize, usize) {
    let (mut hardware, mut firmware) = (Hardware::new(4), Firmware::new());
    hardware.wakes_early = true;
    let mut crashes = crashes.iter();
    hardware.crash_at = crashes.next().copied();
    let (mut restarts, mut aborted) = (0, 0);
    // Slots that the host was told of, and those of which it cannot know whether they are gone.
    let mut held: Vec<u64> = Vec::new();
    let mut unsure: Vec<u64> = Vec::new();
    for (index, act) in SCRIPT.iter().enumerate() {
        let first = held.first().copied().unwrap_or(1 << 40);
        let mut next: Command = match *act {
            Act::InstallIn(spi) => {
                hardware.parameters = inbound(spi).to_words();
                command(Opcode::SaInstall, 0)
            }
            Act::InstallOut(spi) => {
                hardware.parameters = outbound(spi).to_words();
                command(Opcode::SaInstall, 0)
            }
            Act::DeleteFirst => command(Opcode::SaDelete, first),
            Act::QueryLast => command(Opcode::SaQuery, held.last().copied().unwrap_or(1 << 40)),
            Act::Other(opcode, argument_0) => command(opcode, argument_0),
        };
        next.head.set_identifier(index as u16);
        hardware.queue.push_back(next);
        while !hardware.run(&mut firmware) {
            restarts += 1;
            firmware = Firmware::new();
            hardware.crash_at = crashes.next().map(|after| hardware.accesses + after);
            if engine_first {
                hardware.step();
            }
        }
        assert_eq!(hardware.completions.len(), index + 1, "{act:?}: one completion a command");
        let done = hardware.completions[index];
        assert_eq!(usize::from(done.identifier), index, "{act:?}");
        aborted += usize::from(done.status == AdminStatus::Aborted);
        match (act, done.status) {
            (Act::InstallIn(_) | Act::InstallOut(_), AdminStatus::Ok) => held.push(done.result),
            (Act::InstallOut(0x10), status) => {
                assert!(matches!(status, AdminStatus::ReservedSpi | AdminStatus::Aborted));
            }
            (Act::DeleteFirst, AdminStatus::Ok) => drop(held.remove(0)),
            (Act::DeleteFirst, AdminStatus::Aborted) if !held.is_empty() => unsure.push(held.remove(0)),
            (_, AdminStatus::Ok | AdminStatus::Aborted) => {}
            (Act::DeleteFirst | Act::QueryLast, AdminStatus::NoSuchSa) if held.is_empty() => {}
            (_, status) => panic!("{act:?} ended with {status:?}"),
        }
        hardware.assert_agrees(&firmware);
        for (slot, state) in hardware.slots.iter().enumerate() {
            let name = u64::from(state.generation) << 32 | slot as u64;
            let known = held.contains(&name);
            assert!(
                if state.generation == 0 { !known } else { known || unsure.contains(&name) },
                "{act:?}: slot {slot} is {state:?}, the host holds {held:x?}"
            );
        }
        assert!(
            held.iter().all(|name| hardware.slots[*name as u32 as usize].generation != 0),
            "an SA is lost"
        );
    }
    assert!(aborted <= restarts);
    assert!(hardware.rotations <= 1 && hardware.spis <= 3 && hardware.test_keys_loaded <= 1);
    (restarts, aborted)
}

#[test]
fn a_restart_at_any_access_loses_nothing() {
    assert_eq!(play(&[], false), (0, 0));
    let mut aborted = 0;
    let mut at = 0;
    loop {
        let (restarts, first) = play(&[at], false);
        aborted += first + play(&[at], true).1;
        if restarts == 0 {
            break;
        }
        at += 1;
    }
    println!("{at} accesses, {aborted} commands cut short");
    assert!(at > 400 && aborted > 400);
}

#[test]
fn a_restart_during_a_restart_loses_nothing() {
    for first in 0..700 {
        for second in 0..30 {
            play(&[first, second, second / 2], second % 2 == 0);
        }
    }
}

/// A restart between two runs, after every k-th run, with the sequence of commands that comes.
#[test]
fn a_restart_after_every_kth_run_completes_each_command_once() {
    for every in 2..40 {
        let (mut hardware, mut firmware) = booted(300);
        for index in 0..40u32 {
            hardware.parameters = inbound(0x1000 + index).to_words();
            hardware.queue.push_back(command(Opcode::SaInstall, 0));
            let mut runs = 0;
            loop {
                runs += 1;
                let wake = firmware.run(&mut hardware);
                if runs % every == 0 && runs < 10 * every {
                    firmware = Firmware::new();
                } else if wake == cryptonic_fw::Wake::OnEvent && !hardware.step() {
                    break;
                }
            }
            assert_eq!(hardware.completions.len(), index as usize + 1);
            hardware.assert_agrees(&firmware);
        }
        let installed = hardware.completions.iter().filter(|done| done.status == AdminStatus::Ok).count();
        let used = hardware.slots.iter().filter(|slot| slot.generation != 0).count();
        assert_eq!(used, installed);
    }
}

/// A command that came while firmware started is served, not aborted.
#[test]
fn a_command_before_the_first_run_is_served() {
    let mut hardware = Hardware::new(4);
    hardware.queue.push_back(command(Opcode::Statistics, 0));
    assert!(hardware.step());
    assert!(hardware.run(&mut Firmware::new()));
    assert_eq!(hardware.completions[0].status, AdminStatus::Ok);
}

#[test]
fn the_scan_is_bounded_and_comes_before_the_first_command() {
    let mut hardware = Hardware::new(1000);
    for (index, slot) in hardware.slots.iter_mut().enumerate() {
        slot.generation = u32::from(index != 999);
    }
    hardware.queue.push_back(command(Opcode::Statistics, 0));
    hardware.step();
    let mut firmware = Firmware::new();
    while hardware.completions.is_empty() {
        let before = hardware.accesses;
        if firmware.run(&mut hardware) == cryptonic_fw::Wake::OnEvent {
            hardware.step();
        }
        assert!(hardware.accesses - before <= 256);
    }
    assert_eq!(hardware.reply[2], 999);
    assert_eq!(hardware.install(&mut firmware, &outbound(0x1000)).result as u32, 999);
}
