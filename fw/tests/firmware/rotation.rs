//! When the device rotates its PSP key by itself. The hardware of these tests panics at a rotation that is
//! not due.

use cryptonic_fw::{Firmware, Wake};
use cryptonic_regs::admin::{AdminStatus, Opcode};
use cryptonic_regs::events::EventCause::{
    self, PspRotatedByCommand, PspRotatedByExhaustion, PspRotatedByPeriod,
};

use crate::engines::{EngineName, FRESH_SPIS, Forced};
use crate::hardware::Hardware;
use crate::samples::{boot, command};

const MILLISECOND: u64 = 1_000_000;

/// Hardware whose active key was made now.
fn fresh() -> Hardware {
    let mut hardware = Hardware::new(4, 4);
    hardware.psp.key_made_ms = Some(hardware.clock_ms());
    hardware
}

fn causes(hardware: &Hardware) -> Vec<EventCause> {
    hardware.psp.rotations.iter().map(|(cause, _)| *cause).collect()
}

#[test]
fn without_a_period_firmware_sleeps() {
    let (mut hardware, mut firmware) = boot(fresh());
    assert_eq!(hardware.wake, Wake::OnEvent);
    hardware.psp.key_made_ms = None;
    hardware.run_for(&mut firmware, 3_600_000 * MILLISECOND);
    assert_eq!((causes(&hardware), hardware.wake), (vec![], Wake::OnEvent));
}

#[test]
fn a_key_is_rotated_when_its_period_is_over() {
    for period in [1, 7, 999, 1000, 1001, 60_000] {
        let mut hardware = fresh();
        hardware.psp.wanted_period_ms = period;
        let start = hardware.clock_ms();
        let (mut hardware, mut firmware) = boot(hardware);
        hardware.run_for(&mut firmware, 10 * u64::from(period) * MILLISECOND);
        let ages: Vec<_> = hardware.psp.rotations.iter().map(|(_, made)| made - start).collect();
        let expected: Vec<_> = (1..=10).map(|index| index * period).collect();
        // The last one falls on the end, or one tick behind it.
        assert_eq!(ages[..9], expected[..9], "{period} ms");
        assert!(causes(&hardware).iter().all(|cause| *cause == PspRotatedByPeriod));
    }
}

#[test]
fn a_change_of_the_period_is_noticed_within_a_second() {
    let mut hardware = fresh();
    hardware.psp.wanted_period_ms = 3_600_000;
    let (mut hardware, mut firmware) = boot(hardware);
    assert_eq!(hardware.wake, Wake::After { nanoseconds: 1_000_000_000 });
    hardware.run_for(&mut firmware, 5000 * MILLISECOND);
    hardware.psp.wanted_period_ms = 10;
    hardware.run_for(&mut firmware, 1005 * MILLISECOND);
    assert!(!causes(&hardware).is_empty());
    hardware.psp.wanted_period_ms = 0;
    hardware.run_for(&mut firmware, 1000 * MILLISECOND);
    let so_far = causes(&hardware);
    hardware.run_for(&mut firmware, 5000 * MILLISECOND);
    assert_eq!((causes(&hardware), hardware.wake), (so_far, Wake::OnEvent));
}

#[test]
fn a_missing_key_is_made_at_once_if_a_period_is_wanted() {
    let mut hardware = fresh();
    // Power-on is less than a period ago.
    hardware.clock_picoseconds = 5_000_000_000_000;
    (hardware.psp.key_made_ms, hardware.psp.wanted_period_ms) = (None, 60_000);
    let (hardware, _) = boot(hardware);
    assert_eq!(hardware.psp.rotations, [(PspRotatedByPeriod, 5000)]);
}

#[test]
fn a_rotation_by_command_begins_the_period_anew() {
    let mut hardware = fresh();
    hardware.psp.wanted_period_ms = 100;
    let start = hardware.clock_ms();
    let (mut hardware, mut firmware) = boot(hardware);
    hardware.run_for(&mut firmware, 70 * MILLISECOND);
    assert_eq!(hardware.serve(&mut firmware, command(Opcode::PspRotate, 0)).result, 1);
    hardware.run_for(&mut firmware, 150 * MILLISECOND);
    let rotations: Vec<_> =
        hardware.psp.rotations.iter().map(|(cause, made)| (*cause, made - start)).collect();
    assert_eq!(rotations, [(PspRotatedByCommand, 70), (PspRotatedByPeriod, 170)]);
}

/// Ages are differences modulo 2^32.
#[test]
fn the_milliseconds_wrap() {
    let mut hardware = fresh();
    hardware.clock_picoseconds = ((1 << 32) - 50) * 1_000_000_000;
    hardware.psp.key_made_ms = Some(u32::MAX - 49);
    hardware.psp.wanted_period_ms = 100;
    let (mut hardware, mut firmware) = boot(hardware);
    hardware.run_for(&mut firmware, 99 * MILLISECOND);
    assert_eq!(causes(&hardware), []);
    hardware.run_for(&mut firmware, 2 * MILLISECOND);
    assert_eq!(hardware.psp.rotations, [(PspRotatedByPeriod, 50)]);
}

/// Its end cannot pass unseen between two looks, though it is so long that the next age is 0 again.
#[test]
fn the_longest_period_ends() {
    let (mut hardware, mut firmware) = boot(fresh());
    hardware.psp.wanted_period_ms = u32::MAX - 60_000;
    hardware.clock_picoseconds += u64::from(hardware.psp.wanted_period_ms - 1) * 1_000_000_000;
    hardware.run_for(&mut firmware, MILLISECOND / 2);
    assert_eq!((causes(&hardware), hardware.wake), (vec![], Wake::After { nanoseconds: 1_000_000 }));
    hardware.psp.wanted_period_ms = u32::MAX;
    hardware.psp.tolerance_ms = 60_000;
    hardware.clock_picoseconds += 2 * 1_000_000_000;
    assert!(hardware.run(&mut firmware));
    assert_eq!(causes(&hardware), [PspRotatedByPeriod]);
}

/// Commands back to back, and never an empty mailbox: the rotation that is due comes between two of them.
#[test]
fn a_host_that_never_stops_asking_does_not_put_rotation_off() {
    let mut hardware = fresh();
    hardware.psp.wanted_period_ms = 100;
    let (mut hardware, mut firmware) = boot(hardware);
    while hardware.completions.len() < 50 {
        hardware.queue.push_back(command(Opcode::Statistics, 0));
        // The next command is there before firmware looks again.
        hardware.step();
        hardware.clock_picoseconds += 3_000_000_000;
        firmware.run(&mut hardware);
    }
    assert!(causes(&hardware).len() >= 3);
}

/// One that failed is tried again, and not without end.
#[test]
fn a_rotation_that_fails_is_tried_again_a_while_later() {
    for (period, expected) in [(60_000, 6), (10, 501)] {
        let mut hardware = fresh();
        (hardware.psp.key_made_ms, hardware.psp.wanted_period_ms) = (None, period);
        let failure = Forced { engine: EngineName::Psp, skip: 0, outcome: 6, effect: false };
        hardware.forced = vec![failure; 1000];
        for (index, failure) in hardware.forced.iter_mut().enumerate() {
            failure.skip = index;
        }
        let (mut hardware, mut firmware) = boot(hardware);
        hardware.run_for(&mut firmware, 5000 * MILLISECOND);
        assert_eq!(1000 - hardware.forced.len(), expected, "period {period} ms");
        hardware.forced.clear();
        hardware.run_for(&mut firmware, 1000 * MILLISECOND);
        assert!(!causes(&hardware).is_empty());
    }
}

#[test]
fn an_allocation_that_finds_too_few_spis_rotates_first_if_the_host_wants_it() {
    let rows = [
        (true, 3, 3, AdminStatus::Ok, 0),
        (true, 2, 3, AdminStatus::Ok, 1),
        (true, 0, 2048, AdminStatus::Ok, 1),
        (false, 2, 3, AdminStatus::NoSpiLeft, 0),
        (false, 3, 3, AdminStatus::Ok, 0),
    ];
    for (on_exhaustion, remaining, count, status, rotations) in rows {
        let mut hardware = fresh();
        (hardware.psp.on_exhaustion, hardware.psp.remaining) = (on_exhaustion, remaining);
        let (mut hardware, mut firmware) = boot(hardware);
        let done = hardware.serve(&mut firmware, command(Opcode::PspAllocate, count));
        assert_eq!(done.status, status, "{remaining} of {count}");
        assert_eq!(causes(&hardware), vec![PspRotatedByExhaustion; rotations], "{remaining} of {count}");
        let allocated = if status == AdminStatus::Ok { count as u32 } else { 0 };
        assert_eq!((done.result as u32, hardware.psp.spis), (allocated, allocated));
        let before = if rotations == 1 { FRESH_SPIS } else { remaining };
        assert_eq!(hardware.psp.remaining, before - allocated);
    }
}

/// There is one rotation in a command at most, even if it changed nothing.
#[test]
fn an_allocation_rotates_once() {
    for (outcome, effect, status) in [
        (0, false, AdminStatus::NoSpiLeft),
        (6, false, AdminStatus::BadArgument),
        (4, true, AdminStatus::NoSpiLeft),
        (99, true, AdminStatus::Aborted),
    ] {
        let mut hardware = fresh();
        (hardware.psp.on_exhaustion, hardware.psp.remaining) = (true, 2);
        let (mut hardware, mut firmware) = boot(hardware);
        hardware.forced.push(Forced { engine: EngineName::Psp, skip: 0, outcome, effect });
        let done = hardware.serve(&mut firmware, command(Opcode::PspAllocate, 3));
        assert_eq!((done.status, done.result), (status, 0));
        assert_eq!((causes(&hardware).len(), hardware.psp.spis), (usize::from(effect), 0));
    }
}

/// Firmware started anew at every access around a rotation by period, up to three times: the age of the key
/// is the hardware's, so the old key of peers is not evicted by a second rotation.
#[test]
fn a_restart_does_not_rotate_twice() {
    let play = |crashes: [usize; 3], engine_first: bool| {
        let mut hardware = fresh();
        hardware.psp.wanted_period_ms = 100;
        let (mut hardware, mut firmware) = boot(hardware);
        hardware.clock_picoseconds += 150 * 1_000_000_000;
        hardware.queue.push_back(command(Opcode::Statistics, 0));
        let mut restarts = 0;
        let mut crashes = crashes.into_iter();
        hardware.crash_at = crashes.next().map(|after| hardware.accesses + after);
        while !hardware.run(&mut firmware) {
            restarts += 1;
            firmware = Firmware::new();
            hardware.crash_at = crashes.next().map(|after| hardware.accesses + after);
            if engine_first {
                hardware.step();
            }
        }
        hardware.crash_at = None;
        hardware.run_for(&mut firmware, 90 * MILLISECOND);
        assert_eq!(causes(&hardware), [PspRotatedByPeriod], "{restarts} restarts");
        assert_eq!(hardware.completions.len(), 1);
        restarts
    };
    let mut most = 0;
    for first in 0..100 {
        for second in 0..40 {
            for engine_first in [false, true] {
                most = most.max(play([first, second, second / 3], engine_first));
            }
        }
    }
    assert_eq!(most, 3);
}
