//! The limits of an SA, and which slot it gets for them.

use cryptonic_regs::admin::{AdminStatus, SaLifetime, SaParameters};

use crate::hardware::Hardware;
use crate::samples::{boot, booted, in_bytes, inbound, outbound, unlimited};

fn psp(spi: u32) -> SaParameters {
    let mut sa = outbound(spi);
    sa.form.set_protocol(2);
    sa
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    use AdminStatus::{BadArgument, Ok};
    type Row = (&'static str, fn(&mut SaParameters), AdminStatus);
    let rows: &[Row] = &[
        ("as it is", |_| {}, Ok),
        ("kind 0", |s| s.lifetime.set_kind(0), BadArgument),
        ("kind 3", |s| s.lifetime.set_kind(3), BadArgument),
        ("kind 15", |s| s.lifetime.set_kind(15), BadArgument),
        ("reserved", |s| s.lifetime = SaLifetime::from(s.lifetime.into_bits() | 1 << 6), BadArgument),
        ("reserved, last", |s| s.lifetime = SaLifetime::from(s.lifetime.into_bits() | 1 << 63), BadArgument),
        ("no soft limit", |s| (s.lifetime.set_no_soft_limit(true), s.soft_limit = 0).0, Ok),
        ("a soft limit that is not there", |s| s.lifetime.set_no_soft_limit(true), BadArgument),
        ("soft limit 0", |s| s.soft_limit = 0, BadArgument),
        ("no hard limit", |s| (s.lifetime.set_no_hard_limit(true), s.hard_limit = 0).0, Ok),
        ("a hard limit that is not there", |s| s.lifetime.set_no_hard_limit(true), BadArgument),
        ("hard limit 0", |s| s.hard_limit = 0, BadArgument),
        ("no limit", |s| *s = unlimited(*s), Ok),
        ("limits 0, no flag", |s| (s.soft_limit, s.hard_limit) = (0, 0), BadArgument),
        ("soft one below hard", |s| s.soft_limit = 1999, Ok),
        ("soft as hard", |s| s.soft_limit = 2000, BadArgument),
        ("soft above hard", |s| s.soft_limit = 2001, BadArgument),
        ("the least limits", |s| (s.soft_limit, s.hard_limit) = (1, 2), Ok),
        ("the greatest limits", |s| (s.soft_limit, s.hard_limit) = (u64::MAX - 1, u64::MAX), Ok),
        (
            "a greatest soft limit alone",
            |s| {
                s.lifetime.set_no_hard_limit(true);
                (s.soft_limit, s.hard_limit) = (u64::MAX, 0);
            },
            Ok,
        ),
    ];
    for (name, change, status) in rows {
        for base in [outbound(0x1000), inbound(0x1000), psp(0x1000)] {
            for base in [base, in_bytes(base)] {
                let (mut hardware, mut firmware) = boot(Hardware::new(1, 2));
                let mut sa = base;
                change(&mut sa);
                assert_eq!(hardware.install(&mut firmware, &sa).status, *status, "{name}");
                assert_eq!(hardware.used() == 1, *status == Ok, "{name}");
            }
        }
    }
}

/// An SA whose hard limit was reached elsewhere has nothing left; beyond its soft limit it has.
#[test]
fn what_was_counted_before_is_below_the_hard_limit_of_its_kind() {
    use AdminStatus::{BadArgument, Ok};
    let rows =
        [(0, 0, Ok, Ok), (1999, 0, Ok, Ok), (2000, 0, BadArgument, Ok), (u64::MAX, 1500, BadArgument, Ok)];
    for (counted, other, with_limit, without) in rows {
        let count = |sa: SaParameters| SaParameters { packets: counted, bytes: other, ..sa };
        let count_bytes = |sa: SaParameters| SaParameters { packets: other, bytes: counted, ..in_bytes(sa) };
        let sa = outbound(0x1000);
        let cases = [
            (count(sa), with_limit),
            (count_bytes(sa), with_limit),
            (count(unlimited(sa)), without),
            (count_bytes(unlimited(sa)), without),
        ];
        for (sa, status) in cases {
            let (mut hardware, mut firmware) = boot(Hardware::new(1, 2));
            assert_eq!(hardware.install(&mut firmware, &sa).status, status, "{counted}, {other}");
        }
    }
}

#[test]
fn an_icv_of_8_bytes_asks_for_no_limits_of_its_own() {
    let (mut hardware, mut firmware) = booted(4);
    let mut sa = unlimited(inbound(0x1000));
    sa.form.set_icv_bytes(8);
    assert_eq!(hardware.install(&mut firmware, &sa).status, AdminStatus::Ok);
}

#[test]
fn an_sa_gets_a_slot_of_its_kind() {
    let (mut hardware, mut firmware) = boot(Hardware::new(3, 7));
    let (packets, bytes) = (outbound, |spi| in_bytes(outbound(spi)));
    let rows: &[(SaParameters, Option<u32>)] = &[
        (bytes(0x1000), Some(3)),
        (packets(0x1001), Some(0)),
        (bytes(0x1002), Some(4)),
        (packets(0x1003), Some(1)),
        (packets(0x1004), Some(2)),
        (packets(0x1005), None),
        (bytes(0x1006), Some(5)),
        (bytes(0x1007), Some(6)),
        (bytes(0x1008), None),
        (packets(0x1009), None),
    ];
    for (sa, slot) in rows {
        let done = hardware.install(&mut firmware, sa);
        let installed = (done.status == AdminStatus::Ok).then_some(hardware.reply[0] as u32);
        assert_eq!(installed, *slot, "SPI {:#x}", sa.names.spi());
        assert!(slot.is_some() || done.status == AdminStatus::NoFreeSlot);
    }
}

#[test]
fn an_sa_without_limits_takes_a_slot_of_the_other_kind_when_its_own_is_full() {
    for bytes_first in [false, true] {
        let (mut hardware, mut firmware) = boot(Hardware::new(2, 4));
        let sa = |spi| if bytes_first { in_bytes(outbound(spi)) } else { outbound(spi) };
        let slots = if bytes_first { [2, 3, 0, 1] } else { [0, 1, 2, 3] };
        for (spi, slot) in (0x1000..).zip(slots) {
            assert_eq!(hardware.install(&mut firmware, &unlimited(sa(spi))).status, AdminStatus::Ok);
            assert_eq!(hardware.reply[0] as u32, slot);
        }
        let done = hardware.install(&mut firmware, &unlimited(sa(0x2000)));
        assert_eq!(done.status, AdminStatus::NoFreeSlot);
    }
    // One limit is enough to keep it in its own.
    let (mut hardware, mut firmware) = boot(Hardware::new(0, 4));
    let mut sa = outbound(0x1000);
    sa.lifetime.set_no_hard_limit(true);
    sa.hard_limit = 0;
    assert_eq!(hardware.install(&mut firmware, &sa).status, AdminStatus::NoFreeSlot);
}
