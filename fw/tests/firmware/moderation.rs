//! When the interrupt of the event ring is sent.

use cryptonic_fw::{Firmware, Wake};
use cryptonic_regs::admin::Opcode;

use crate::hardware::Hardware;
use crate::samples::{booted, command};

const AT_ONCE: (u32, u8) = (0, 0);
const SOON: (u32, u8) = (10_000, 16);
const LATE: (u32, u8) = (100_000, 64);
const MICROSECOND: u64 = 1_000_000;

/// Events come one by one, with this many picoseconds between them; each wakes firmware.
fn come(hardware: &mut Hardware, firmware: &mut Firmware, events: u32, apart: u64) {
    for _ in 0..events {
        hardware.clock_picoseconds += apart;
        hardware.events = hardware.events.wrapping_add(1);
        assert!(hardware.run(firmware));
    }
}

#[test]
fn the_interrupt_waits_as_long_as_the_events_are_dense() {
    let rows = [
        ("one", 1, 0, AT_ONCE),
        ("few at a time", 17, 0, AT_ONCE),
        ("many at a time", 18, 0, SOON),
        ("16 in a millisecond, for long", 1600, 1000 * MICROSECOND / 16, AT_ONCE),
        ("20 in a millisecond, for long", 2000, 50 * MICROSECOND, SOON),
        ("most at a time for the middle step", 257, 0, SOON),
        ("very many at a time", 258, 0, LATE),
        ("500 in a millisecond, for long", 5000, 2 * MICROSECOND, LATE),
    ];
    for (name, events, apart, expected) in rows {
        for first_count in [0, u32::MAX - 5] {
            let mut hardware = Hardware::new(4, 4);
            hardware.events = first_count;
            let (mut hardware, mut firmware) = crate::samples::boot(hardware);
            come(&mut hardware, &mut firmware, events, apart);
            assert_eq!(hardware.moderation(), expected, "{name}, from event {first_count} on");
        }
    }
}

#[test]
fn the_interrupt_falls_back_when_all_is_calm_and_firmware_sleeps() {
    let (mut hardware, mut firmware) = booted(4);
    come(&mut hardware, &mut firmware, 300, MICROSECOND);
    assert_eq!(hardware.moderation(), LATE);
    assert!(matches!(hardware.wake, Wake::After { nanoseconds: 1..=1_000_000 }), "{:?}", hardware.wake);
    hardware.run_for(&mut firmware, 2_000_000);
    assert_eq!((hardware.moderation(), hardware.wake), (AT_ONCE, Wake::OnEvent));
    // A middle step down.
    come(&mut hardware, &mut firmware, 300, MICROSECOND);
    come(&mut hardware, &mut firmware, 40, 50 * MICROSECOND);
    assert_eq!(hardware.moderation(), SOON);
    hardware.run_for(&mut firmware, 2_000_000);
    assert_eq!((hardware.moderation(), hardware.wake), (AT_ONCE, Wake::OnEvent));
}

#[test]
fn a_firmware_that_sees_no_event_sleeps() {
    let (mut hardware, mut firmware) = booted(4);
    for _ in 0..3 {
        let before = hardware.accesses;
        assert!(hardware.run(&mut firmware));
        assert_eq!((hardware.wake, hardware.accesses - before), (Wake::OnEvent, 3));
    }
    hardware.events += 1;
    assert!(hardware.run(&mut firmware));
    assert_eq!(hardware.wake, Wake::OnEvent, "one event is no reason to stay awake");
}

/// They may have come in a second as well as in a millisecond.
#[test]
fn events_of_a_time_when_nobody_looked_say_nothing() {
    let (mut hardware, mut firmware) = booted(4);
    hardware.clock_picoseconds += 1_000_000 * MICROSECOND;
    hardware.events += 300;
    assert!(hardware.run(&mut firmware));
    assert_eq!((hardware.moderation(), hardware.wake), (AT_ONCE, Wake::OnEvent));
}

/// Commands neither hide events nor end the watch over them.
#[test]
fn events_during_commands_count() {
    let (mut hardware, mut firmware) = booted(4);
    hardware.clock_picoseconds += 5000 * MICROSECOND;
    come(&mut hardware, &mut firmware, 1, 0);
    hardware.events += 20;
    hardware.serve(&mut firmware, command(Opcode::Statistics, 0));
    assert_eq!(hardware.moderation(), SOON);
    assert!(matches!(hardware.wake, Wake::After { .. }));
}

#[test]
fn a_restart_sends_the_interrupt_at_once_again() {
    let (mut hardware, mut firmware) = booted(4);
    come(&mut hardware, &mut firmware, 300, 0);
    assert_eq!(hardware.moderation(), LATE);
    firmware = Firmware::new();
    assert!(hardware.run(&mut firmware));
    assert_eq!((hardware.moderation(), hardware.wake), (AT_ONCE, Wake::OnEvent));
}
