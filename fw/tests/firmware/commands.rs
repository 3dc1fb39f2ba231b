//! Each command's success, what it costs, and each refusal of its form.

use cryptonic_fw::Firmware;
use cryptonic_regs::admin::{
    AdminStatus, CapabilityReply, Command, CommandLengths, Opcode, SaStateReply, StatisticsReply,
};
use cryptonic_regs::events::SlotState;

use crate::hardware::{Hardware, PARAMETERS, REPLAY_WINDOW_MAX, REPLY};
use crate::samples::{booted, command, inbound, outbound};

fn reply<const WORDS: usize>(hardware: &Hardware) -> [u64; WORDS] {
    hardware.reply[..WORDS].try_into().unwrap()
}

/// The table in the crate's documentation: what the model charges for.
#[test]
fn every_command_succeeds_at_its_documented_cost() {
    let (mut hardware, mut firmware) = booted(16);
    let installed = hardware.install(&mut firmware, &outbound(0x1000));
    assert_eq!((installed.status, installed.result, hardware.reply[0]), (AdminStatus::Ok, 0, 1 << 32));
    let source = include_str!("../../src/lib.rs");
    let mut lines = String::new();
    let arguments = [
        (Opcode::Capabilities, 0),
        (Opcode::Statistics, 0),
        (Opcode::SaInstall, 1),
        (Opcode::SaDelete, 1 | 2 << 32),
        (Opcode::SaQuery, 1 << 32),
        (Opcode::SaArm, 1 << 32),
        (Opcode::PspAllocate, 3 | 1 << 32),
        (Opcode::PspRotate, 0),
        (Opcode::PspTestKeyLoad, 0),
        (Opcode::PspTestIvLoad, 500),
    ];
    assert!(arguments.iter().map(|(opcode, _)| opcode).eq(Opcode::ALL));
    for (opcode, argument_0) in arguments {
        let done = hardware.serve(&mut firmware, command(opcode, argument_0));
        assert_eq!((done.status, done.identifier), (AdminStatus::Ok, 0x77), "{}", opcode.name());
        let line = format!("//! | `{}` | {} |\n", opcode.name(), done.accesses);
        lines.push_str(&line);
        match opcode {
            Opcode::SaInstall => assert_eq!((done.result, hardware.reply[0]), (0, 1 | 2 << 32)),
            Opcode::SaArm => assert_eq!((done.result, hardware.slots[0].soft_limit), (0, 1500)),
            Opcode::PspAllocate => assert_eq!((done.result, hardware.psp.spis), (3, 3)),
            Opcode::PspRotate => assert_eq!((done.result, hardware.psp.rotations.len()), (1, 1)),
            _ => assert_eq!(done.result, 0),
        }
    }
    print!("{lines}");
    assert!(source.contains(&lines), "the table in src/lib.rs is not this:\n{lines}");
    assert_eq!((hardware.psp.iv, hardware.psp.test_keys_loaded), (500, 1));
    assert_eq!(hardware.slots[0].generation, 1);

    let costs = |accesses: &str| assert!(source.contains(accesses), "src/lib.rs does not say: {accesses}");
    let refused = hardware.serve(&mut firmware, Command::default());
    costs(&format!("by its form alone takes {};", refused.accesses));
    let sas: Vec<_> = (0..3).map(|index| outbound(0x2000 + index)).collect();
    let [two, three] = [2, 3].map(|count| hardware.install_all(&mut firmware, &sas[..count]).accesses);
    costs(&format!("Each further SA of an `sa_install` takes {} more", three - two));
    let [plain, rotates] = [1, 0].map(|remaining| {
        (hardware.psp.on_exhaustion, hardware.psp.remaining) = (remaining == 0, remaining);
        hardware.serve(&mut firmware, command(Opcode::PspAllocate, 1)).accesses
    });
    costs(&format!("an allocation that rotates first takes {} more", rotates - plain));
    let [empty, full] = [0, 1].map(|events| {
        hardware.psp.wanted_period_ms = events * u32::MAX;
        hardware.events += events;
        let before = hardware.accesses;
        hardware.run(&mut firmware);
        hardware.accesses - before
    });
    costs(&format!("a look at an empty mailbox takes {empty}, {full} with events"));
}

#[test]
fn replies_hold_what_they_say() {
    let (mut hardware, mut firmware) = booted(200);
    hardware.serve(&mut firmware, command(Opcode::Capabilities, 0));
    let expected = CapabilityReply {
        spis_per_command: 2048,
        sa_slots: 200,
        firmware_version: u64::from(Firmware::VERSION),
        replay_window_max: u64::from(REPLAY_WINDOW_MAX),
    };
    assert_eq!(CapabilityReply::of_words(&reply(&hardware)), expected);

    hardware.install(&mut firmware, &inbound(0x1000));
    hardware.serve(&mut firmware, command(Opcode::SaDelete, 5));
    hardware.serve(&mut firmware, command(Opcode::PspAllocate, 2048));
    assert_eq!(hardware.reply[5 * 2047] as u32, 2048, "the last SPI");
    hardware.serve(&mut firmware, command(Opcode::Statistics, 0));
    let expected = StatisticsReply {
        commands: 5,
        refusals: 1,
        sa_slots_used: 1,
        sa_slots: 200,
        spis_allocated: 2048,
        time_picoseconds: 0x0123_4567_89ab_cdef,
    };
    assert_eq!(StatisticsReply::of_words(&reply(&hardware)), expected);

    hardware.serve(&mut firmware, command(Opcode::SaQuery, 1 << 32));
    let state = SaStateReply::of_words(&reply(&hardware));
    assert_eq!((state.head.spi(), state.sequence, state.icv_failures), (0x1000, 1, 12));
    assert_eq!(state.sticky.into_bits(), 13, "all of it");
}

#[test]
fn the_version_is_the_packages() {
    let major: u32 = env!("CARGO_PKG_VERSION_MAJOR").parse().unwrap();
    let minor: u32 = env!("CARGO_PKG_VERSION_MINOR").parse().unwrap();
    assert_eq!(Firmware::VERSION, major << 16 | minor);
}

type Change = fn(&mut Command);

#[test]
fn each_fault_of_form_has_its_status() {
    use AdminStatus::{BadAddress, BadArgument, NoSuchSa, Ok, UnknownOpcode, Unsupported};
    use Opcode::{
        Capabilities, PspAllocate, PspRotate, PspTestIvLoad, PspTestKeyLoad, SaArm, SaDelete, SaInstall,
        SaQuery, Statistics,
    };
    let rows: &[(&str, Opcode, u64, Change, AdminStatus)] = &[
        ("opcode 0", PspRotate, 0, |c| c.head = Default::default(), UnknownOpcode),
        ("opcode 0xffff", PspRotate, 0, |c| c.head.set_opcode(0xffff), UnknownOpcode),
        ("head reserved, low", PspRotate, 0, |c| c.head = (c.head.into_bits() | 1 << 32).into(), BadArgument),
        (
            "head reserved, high",
            PspRotate,
            0,
            |c| c.head = (c.head.into_bits() | 1 << 63).into(),
            BadArgument,
        ),
        ("reserved 0", PspRotate, 0, |c| c.reserved_0 = 1, BadArgument),
        ("reserved 1", PspRotate, 0, |c| c.reserved_1 = 1 << 63, BadArgument),
        ("argument 1", SaQuery, 1 << 32, |c| c.argument_1 = 1, BadArgument),
        ("argument 0 of capabilities", Capabilities, 1, |_| {}, BadArgument),
        ("argument 0 of statistics", Statistics, 1, |_| {}, BadArgument),
        ("no SA", SaInstall, 0, |c| c.lengths = CommandLengths::new(), BadArgument),
        ("too many SAs", SaInstall, 17, |_| {}, BadArgument),
        ("2^32 - 1 SAs", SaInstall, 0xffff_ffff, |c| c.lengths = CommandLengths::from(u64::MAX), BadArgument),
        ("argument 0 of install, high half", SaInstall, 1 | 1 << 32, |_| {}, BadArgument),
        ("argument 1 of install", SaInstall, 1, |c| c.argument_1 = 1, BadArgument),
        ("argument 0 of rotate", PspRotate, 1, |_| {}, BadArgument),
        ("argument 0 of key load", PspTestKeyLoad, 1, |_| {}, BadArgument),
        ("parameters of rotate", PspRotate, 0, |c| c.parameter_address = PARAMETERS, BadArgument),
        ("parameter bytes of rotate", PspRotate, 0, |c| c.lengths.set_parameter_bytes(8), BadArgument),
        ("reply of delete", SaDelete, 1 << 32, |c| c.reply_address = REPLY, BadArgument),
        ("reply bytes of delete", SaDelete, 1 << 32, |c| c.lengths.set_reply_bytes(8), BadArgument),
        ("parameters too short", SaInstall, 2, |c| c.lengths.set_parameter_bytes(447), BadAddress),
        ("parameters too long", SaInstall, 2, |c| c.lengths.set_parameter_bytes(456), BadArgument),
        ("parameters misaligned", SaInstall, 1, |c| c.parameter_address += 4, BadAddress),
        ("no parameters", SaInstall, 1, |c| c.parameter_address = 0, BadAddress),
        ("parameters wrap", SaInstall, 1, |c| c.parameter_address = u64::MAX - 215, BadAddress),
        ("reply of install too short", SaInstall, 2, |c| c.lengths.set_reply_bytes(15), BadAddress),
        ("reply of install misaligned", SaInstall, 2, |c| c.reply_address += 4, BadAddress),
        ("reply of install unmapped", SaInstall, 1, |c| c.reply_address = 8, BadAddress),
        ("parameters unmapped", SaInstall, 1, |c| c.parameter_address = 8, BadAddress),
        ("keys too short", PspTestKeyLoad, 0, |c| c.lengths.set_parameter_bytes(63), BadAddress),
        ("keys misaligned", PspTestKeyLoad, 0, |c| c.parameter_address += 1, BadAddress),
        ("keys unmapped", PspTestKeyLoad, 0, |c| c.parameter_address = 8, BadAddress),
        ("reply too short", Capabilities, 0, |c| c.lengths.set_reply_bytes(31), BadAddress),
        ("reply longer than needed", Capabilities, 0, |c| c.lengths.set_reply_bytes(u32::MAX), Ok),
        ("reply misaligned", Capabilities, 0, |c| c.reply_address += 2, BadAddress),
        ("no reply", Statistics, 0, |c| c.reply_address = 0, BadAddress),
        ("reply unmapped", Statistics, 0, |c| c.reply_address = 8, BadAddress),
        ("reply wraps", Statistics, 0, |c| c.reply_address = u64::MAX - 7, BadAddress),
        ("state unmapped", SaQuery, 1 << 32, |c| c.reply_address = 8, BadAddress),
        ("state too short", SaQuery, 1 << 32, |c| c.lengths.set_reply_bytes(111), BadAddress),
        ("query: generation 0", SaQuery, 0, |_| {}, NoSuchSa),
        ("query: other generation", SaQuery, 2 << 32, |_| {}, NoSuchSa),
        ("query: empty slot, generation 0", SaQuery, 1, |_| {}, NoSuchSa),
        ("query: slot past the end", SaQuery, 1 << 32 | 8, |_| {}, NoSuchSa),
        ("delete: generation 0 of an empty slot", SaDelete, 1, |_| {}, NoSuchSa),
        ("delete: other generation", SaDelete, 2 << 32, |_| {}, NoSuchSa),
        ("delete: slot past the end", SaDelete, 1 << 32 | 8, |_| {}, NoSuchSa),
        ("delete: slot 2^32 - 1", SaDelete, u64::MAX, |_| {}, NoSuchSa),
        ("arm: soft limit 0", SaArm, 1 << 32, |c| c.argument_1 = 0, BadArgument),
        ("arm: soft limit at the hard one", SaArm, 1 << 32, |c| c.argument_1 = 2000, BadArgument),
        ("arm: soft limit above the hard one", SaArm, 1 << 32, |c| c.argument_1 = u64::MAX, BadArgument),
        ("arm: generation 0", SaArm, 0, |_| {}, NoSuchSa),
        ("arm: other generation", SaArm, 2 << 32, |_| {}, NoSuchSa),
        ("arm: empty slot", SaArm, 1, |_| {}, NoSuchSa),
        ("arm: slot past the end", SaArm, 1 << 32 | 8, |_| {}, NoSuchSa),
        ("arm with a reply", SaArm, 1 << 32, |c| c.reply_address = REPLY, BadArgument),
        ("no SPI", PspAllocate, 0, |_| {}, BadArgument),
        ("too many SPIs", PspAllocate, 2049, |c| c.lengths.set_reply_bytes(u32::MAX), BadArgument),
        ("2^32 - 1 SPIs", PspAllocate, 0xffff_ffff, |c| c.lengths.set_reply_bytes(u32::MAX), BadArgument),
        ("no such PSP version", PspAllocate, 1 | 4 << 32, |_| {}, BadArgument),
        ("PSP version of no use here", PspAllocate, 1 | 2 << 32, |_| {}, Unsupported),
        ("SPIs: reply too short", PspAllocate, 2, |c| c.lengths = CommandLengths::from(79 << 32), BadAddress),
        ("SPIs: reply unmapped", PspAllocate, 2, |c| c.reply_address = 16, BadAddress),
        ("IV already used", PspTestIvLoad, 100, |_| {}, BadArgument),
        ("IV with parameters", PspTestIvLoad, 101, |c| c.parameter_address = 8, BadArgument),
    ];
    for (name, opcode, argument_0, change, status) in rows {
        let (mut hardware, mut firmware) = booted(8);
        hardware.install(&mut firmware, &outbound(0x1000));
        hardware.psp.iv = 100;
        hardware.parameters = [outbound(0x1001), outbound(0x1002)].map(|sa| sa.to_words()).concat();
        let mut command = command(*opcode, *argument_0);
        change(&mut command);
        let done = hardware.serve(&mut firmware, command);
        assert_eq!((done.status, done.result), (*status, 0), "{name}");
        let psp = &hardware.psp;
        let effects = (hardware.used(), hardware.slots[0].soft_limit, psp.spis, psp.rotations.len(), psp.iv);
        assert_eq!(effects, (1, 1000, 0, 0, 100), "{name}: an effect");
    }
}

/// A limit can be armed behind its SA's soft limit, and never behind its hard one.
#[test]
fn a_soft_limit_is_armed_anew_until_the_sa_expires() {
    use AdminStatus::{BadArgument, Ok};
    let rows = [
        (SlotState::Armed, Ok),
        (SlotState::Soft, Ok),
        (SlotState::Expired, BadArgument),
        (SlotState::Draining, BadArgument),
    ];
    for (state, status) in rows {
        let (mut hardware, mut firmware) = booted(4);
        hardware.install(&mut firmware, &outbound(0x1000));
        hardware.slots[0].state = state;
        let done = hardware.serve(&mut firmware, command(Opcode::SaArm, 1 << 32));
        assert_eq!((done.status, done.result), (status, 0), "{}", state.name());
        let expected = if status == Ok { (SlotState::Armed, 1500) } else { (state, 1000) };
        assert_eq!((hardware.slots[0].state, hardware.slots[0].soft_limit), expected, "{}", state.name());
    }
}

#[test]
fn slots_are_taken_again_as_late_as_possible() {
    let (mut hardware, mut firmware) = booted(4);
    for spi in 0..4 {
        hardware.install(&mut firmware, &inbound(0x1000 + spi));
        assert_eq!(hardware.reply[0] as u32, spi);
    }
    assert_eq!(hardware.install(&mut firmware, &inbound(0x2000)).status, AdminStatus::NoFreeSlot);
    for slot in [2, 1] {
        let done = hardware.serve(&mut firmware, command(Opcode::SaDelete, slot | (slot + 1) << 32));
        assert_eq!(done.status, AdminStatus::Ok);
    }
    for (installed, delete) in [(5 << 32 | 1, true), (6 << 32 | 2, false)] {
        assert_eq!(hardware.install(&mut firmware, &inbound(0x2000)).status, AdminStatus::Ok);
        assert_eq!(hardware.reply[0], installed);
        if delete {
            hardware.serve(&mut firmware, command(Opcode::SaDelete, installed));
        }
    }
}

#[test]
fn a_table_without_slots_and_one_beyond_the_limit() {
    let (mut hardware, mut firmware) = booted(0);
    assert_eq!(hardware.install(&mut firmware, &outbound(0x1000)).status, AdminStatus::NoFreeSlot);
    let (mut hardware, mut firmware) = booted(cryptonic_fw::SLOTS_MAX as usize + 10);
    assert_eq!(hardware.install(&mut firmware, &outbound(0x1000)).status, AdminStatus::Ok);
    hardware.serve(&mut firmware, command(Opcode::Capabilities, 0));
    assert_eq!(hardware.reply[1], 65536);
}
