//! Firmware that is started anew at any access of the bus, once or more, while the hardware runs on.

use cryptonic_fw::{Firmware, Wake};
use cryptonic_regs::admin::{AdminStatus, Opcode, SaParameters};
use cryptonic_regs::events::{EventCause, SlotState};

use crate::engines::Slot;
use crate::hardware::Hardware;
use crate::samples::{booted, command, in_bytes, inbound, outbound, unlimited};

type Sample = fn(u32) -> SaParameters;

/// What the host does next, from the slots and generations it was told of.
enum Act {
    /// Installs SAs; so it ends if nothing cuts it short.
    Install(&'static [(Sample, u32)], AdminStatus),
    DeleteFirst,
    ArmFirst,
    QueryLast,
    Other(Opcode, u64),
}

fn inbound_bytes(spi: u32) -> SaParameters {
    in_bytes(inbound(spi))
}

fn outbound_unlimited(spi: u32) -> SaParameters {
    unlimited(outbound(spi))
}

const SCRIPT: &[Act] = &[
    Act::Other(Opcode::Capabilities, 0),
    Act::Install(&[(inbound, 0x1000)], AdminStatus::Ok),
    Act::Install(&[(outbound, 0x2000), (inbound_bytes, 0x1001)], AdminStatus::Ok),
    Act::QueryLast,
    Act::ArmFirst,
    Act::DeleteFirst,
    Act::Install(&[(outbound, 0x10)], AdminStatus::ReservedSpi),
    Act::Install(&[(inbound, 0x1002), (inbound_bytes, 0x1003), (outbound, 0x10)], AdminStatus::ReservedSpi),
    Act::Install(&[(inbound, 0x1002), (inbound, 0x1002)], AdminStatus::DuplicateSpi),
    Act::Other(Opcode::PspAllocate, 3),
    Act::Other(Opcode::PspRotate, 0),
    Act::Install(&[(outbound_unlimited, 0x2001), (inbound_bytes, 0x1004)], AdminStatus::Ok),
    Act::DeleteFirst,
    Act::Other(Opcode::PspTestKeyLoad, 0),
    Act::Other(Opcode::PspTestIvLoad, 77),
    Act::Install(&[(inbound_bytes as Sample, 0x1005); 7], AdminStatus::DuplicateSpi),
    Act::Install(&[(outbound as Sample, 0x2002); 7], AdminStatus::NoFreeSlot),
    Act::Other(Opcode::Statistics, 0),
];

/// What the host knows of the SAs.
#[derive(Default)]
struct Host {
    /// Those it was told of, by slot and generation, and its SPI.
    held: Vec<(u64, u32)>,
    /// Those whose delete was cut short.
    unsure: Vec<u64>,
}

impl Host {
    /// Each SA that the host was told of is there, none else is, and no slot is staged.
    fn check(&self, slots: &[Slot]) {
        for (index, slot) in slots.iter().enumerate() {
            let name = u64::from(slot.generation) << 32 | index as u64;
            let known = self.held.contains(&(name, slot.spi));
            match slot.state {
                SlotState::Free => {}
                SlotState::Armed => assert!(known || self.unsure.contains(&name), "slot {index}: {slot:?}"),
                state => panic!("slot {index} is {}", state.name()),
            }
        }
        for (name, _) in &self.held {
            assert_eq!(slots[*name as u32 as usize].state, SlotState::Armed, "an SA is lost");
        }
    }
}

/// Runs the script with crashes after so many accesses each; gives the number of crashes that happened and
/// how many commands were aborted.
fn play(crashes: &[usize], engine_first: bool) -> (usize, usize) {
    let (mut hardware, mut firmware) = (Hardware::new(4, 8), Firmware::new());
    hardware.wakes_early = true;
    hardware.psp.on_exhaustion = true;
    hardware.psp.wanted_period_ms = 100;
    hardware.psp.key_made_ms = Some(hardware.clock_ms());
    let mut crashes = crashes.iter();
    hardware.crash_at = crashes.next().copied();
    let (mut restarts, mut aborted) = (0, 0);
    let mut host = Host::default();
    for (index, act) in SCRIPT.iter().enumerate() {
        hardware.clock_picoseconds += 15_000_000_000;
        let first = host.held.first().map_or(1 << 40, |held| held.0);
        let last = host.held.last().map_or(1 << 40, |held| held.0);
        let (mut next, ends) = match act {
            Act::Install(sas, ends) => {
                let sas: Vec<_> = sas.iter().map(|(sa, spi)| sa(*spi)).collect();
                (hardware.install_command(&sas), *ends)
            }
            Act::DeleteFirst => (command(Opcode::SaDelete, first), AdminStatus::Ok),
            Act::ArmFirst => (command(Opcode::SaArm, first), AdminStatus::Ok),
            Act::QueryLast => (command(Opcode::SaQuery, last), AdminStatus::Ok),
            Act::Other(opcode, argument_0) => {
                if *opcode == Opcode::PspAllocate {
                    hardware.psp.remaining = 2;
                }
                (command(*opcode, *argument_0), AdminStatus::Ok)
            }
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
        assert_eq!(hardware.completions.len(), index + 1, "command {index}: one completion a command");
        let done = hardware.completions[index];
        assert_eq!(usize::from(done.identifier), index);
        aborted += usize::from(done.status == AdminStatus::Aborted);
        match (act, done.status) {
            (Act::Install(sas, _), AdminStatus::Ok) => {
                let told = hardware.reply.iter().zip(sas.iter());
                host.held.extend(told.map(|(name, (_, spi))| (*name, *spi)));
            }
            (Act::DeleteFirst, AdminStatus::Ok) => drop(host.held.remove(0)),
            (Act::DeleteFirst, AdminStatus::Aborted) if !host.held.is_empty() => {
                host.unsure.push(host.held.remove(0).0);
            }
            (_, AdminStatus::Aborted) => {}
            (Act::DeleteFirst | Act::ArmFirst | Act::QueryLast, AdminStatus::NoSuchSa) => {
                assert!(host.held.is_empty());
            }
            (_, status) => assert_eq!(status, ends, "command {index}"),
        }
        hardware.assert_agrees(&firmware);
        host.check(&hardware.slots);
    }
    assert!(aborted <= restarts);
    let psp = &hardware.psp;
    assert!(psp.spis <= 3 && psp.test_keys_loaded <= 1);
    // 15 ms a command: whether a rotation by period was due is checked by the hardware.
    for cause in [EventCause::PspRotatedByCommand, EventCause::PspRotatedByExhaustion] {
        assert!(psp.rotations.iter().filter(|rotation| rotation.0 == cause).count() <= 1);
    }
    if restarts == 0 {
        let causes: Vec<_> = psp.rotations.iter().map(|rotation| rotation.0.name()).collect();
        let expected = ["psp_rotated_by_period", "psp_rotated_by_exhaustion", "psp_rotated_by_command"];
        assert_eq!(causes, [expected[0], expected[1], expected[2], expected[0]]);
    }
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
    assert!(at > 1500 && aborted > 1500);
}

#[test]
fn a_restart_during_a_restart_loses_nothing() {
    for first in 0..2000 {
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
            let sas = [inbound(0x1000 + index), outbound(0x1000 + index)];
            let install = hardware.install_command(&sas);
            hardware.queue.push_back(install);
            let mut runs = 0;
            loop {
                runs += 1;
                let wake = firmware.run(&mut hardware);
                if runs % every == 0 && runs < 20 * every {
                    firmware = Firmware::new();
                } else if wake == Wake::OnEvent && !hardware.step() {
                    break;
                }
            }
            assert_eq!(hardware.completions.len(), index as usize + 1);
            hardware.assert_agrees(&firmware);
        }
        let installed = hardware.completions.iter().filter(|done| done.status == AdminStatus::Ok).count();
        assert_eq!(hardware.used(), 2 * installed);
    }
}

/// A command that came while firmware started is served, not aborted.
#[test]
fn a_command_before_the_first_run_is_served() {
    let mut hardware = Hardware::new(4, 4);
    hardware.queue.push_back(command(Opcode::Statistics, 0));
    assert!(hardware.step());
    assert!(hardware.run(&mut Firmware::new()));
    assert_eq!(hardware.completions[0].status, AdminStatus::Ok);
}

/// Whatever left them there, and wherever they are.
#[test]
fn staged_slots_are_deleted_before_the_first_command() {
    let mut hardware = Hardware::new(200, 300);
    for (index, slot) in hardware.slots.iter_mut().enumerate() {
        let state =
            if matches!(index, 0 | 1 | 127 | 128 | 299) { SlotState::Staged } else { SlotState::Soft };
        *slot = Slot { generation: 1 + index as u32, state, ..Default::default() };
    }
    hardware.queue.push_back(command(Opcode::Statistics, 0));
    let mut firmware = Firmware::new();
    assert!(hardware.run(&mut firmware));
    assert_eq!((hardware.completions[0].status, hardware.reply[2]), (AdminStatus::Ok, 295));
    hardware.assert_agrees(&firmware);
}

#[test]
fn the_scan_is_bounded_and_comes_before_the_first_command() {
    let mut hardware = Hardware::new(1000, 1000);
    for (index, slot) in hardware.slots.iter_mut().enumerate().filter(|(index, _)| *index != 999) {
        *slot = Slot { generation: 1 + index as u32, state: SlotState::Armed, ..Default::default() };
    }
    hardware.queue.push_back(command(Opcode::Statistics, 0));
    hardware.step();
    let mut firmware = Firmware::new();
    while hardware.completions.is_empty() {
        let before = hardware.accesses;
        if firmware.run(&mut hardware) == Wake::OnEvent {
            hardware.step();
        }
        assert!(hardware.accesses - before <= 256);
    }
    assert_eq!(hardware.reply[2], 999);
    assert_eq!(hardware.install(&mut firmware, &outbound(0x1000)).status, AdminStatus::Ok);
    assert_eq!(hardware.reply[0] as u32, 999);
}
