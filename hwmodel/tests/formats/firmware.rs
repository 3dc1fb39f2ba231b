//! Firmware that stalls, crashes and starts anew while the hardware runs on.

use cryptonic_hwmodel::Parameters;
use cryptonic_pci::Time;
use cryptonic_regs::Status;
use cryptonic_regs::admin::{AdminStatus, Direction, LifetimeKind, Opcode, SaParameters};
use cryptonic_regs::bar0::{self, DeviceStatus};
use cryptonic_regs::descriptor::{Security, TransmitSa};
use cryptonic_regs::events::{
    EVENT_STICKY, EventCause, SLOT_GENERATION, SLOT_SELECT, SLOT_STATUS, STICKY_SLOTS, SlotState, SlotStatus,
};
use cryptonic_regs::psp_policy::PSP_ROTATION_PERIOD_MS;

use crate::admin::{Admin, Ring, cause, esp, limited, name};
use crate::raw::{Raw, control, extent, udp};

fn nic() -> (Raw, Admin) {
    let raw = Raw::new(&Parameters::default(), 32);
    let admin = Admin::new(&raw);
    (raw, admin)
}

fn device(raw: &Raw) -> DeviceStatus {
    DeviceStatus::from_bits(raw.read(bar0::DEVICE_STATUS.offset))
}

fn send(raw: &mut Raw, sa: TransmitSa) -> Status {
    let frame = udp(100);
    let at = raw.bytes(&frame);
    let control = control(frame.len()).with_security(Security::Sa.number() as u8).into_bits();
    raw.put([at, control, sa.into_bits(), extent(frame.len(), 0)], &[]);
    raw.ring();
    raw.statuses()[0]
}

#[test]
fn packets_limits_events_and_sticky_bits_go_on_without_firmware() {
    let (mut raw, mut admin) = nic();
    let mut ring = Ring::new(&raw);
    ring.turn_on(&raw, 0, 4);
    let out = limited(esp(Direction::Out, 0x1001), LifetimeKind::Packets, 3, 5);
    let inbound = limited(esp(Direction::In, 0x1001), LifetimeKind::Packets, 2, 4);
    let sas = admin.install(&raw, &[out, inbound]);
    raw.world.stop_firmware(raw.id);
    assert!(device(&raw).ready() && !device(&raw).firmware_running());

    let statuses: Vec<Status> = (0..7).map(|_| send(&mut raw, sas[0])).collect();
    let (ok, limit) = (Status::Ok, Status::HardLimit);
    assert_eq!(statuses, [ok, ok, ok, ok, ok, limit, limit]);
    raw.post(&[2_048; 8]);
    for frame in raw.sent() {
        raw.world.inject(raw.id, &frame);
    }
    raw.world.drain();
    assert_eq!(raw.received().len(), 4);
    let events: Vec<_> =
        ring.take(&raw).iter().map(|event| (cause(event), event.head.sa_index(), event.packets)).collect();
    let (soft, hard) = (EventCause::SoftPackets, EventCause::HardPackets);
    let (out, inbound) = (sas[0].index(), sas[1].index());
    assert_eq!(events, [(soft, out, 3), (hard, out, 5), (soft, inbound, 2), (hard, inbound, 4)]);
    for slot in [out, inbound] {
        raw.write(SLOT_SELECT.offset, slot);
        let status = SlotStatus::from_bits(raw.read(SLOT_STATUS.offset));
        assert_eq!(u32::from(status.state()), SlotState::Expired.number());
        assert_eq!(raw.read(STICKY_SLOTS.offset + slot / 32 * 4) >> (slot % 32) & 1, 1);
    }
    ring.ring(&raw);

    // What the host asks for meanwhile has no answer, and has one when firmware is back.
    admin.post(&raw, Opcode::SaQuery, [name(sas[0]), 0], &[], 14);
    raw.pass(Time::from_microseconds(100_000));
    assert_eq!(admin.ended(), None);
    raw.world.restart_firmware(raw.id);
    assert!(!device(&raw).firmware_running(), "it takes some time to start");
    raw.world.drain();
    assert!(device(&raw).firmware_running());
    assert_eq!(admin.ended(), Some((AdminStatus::Ok, 0)), "nobody had begun it");
    let restarted = ring.take(&raw);
    assert_eq!(cause(&restarted[0]), EventCause::FirmwareRestarted);
    assert_eq!(admin.query(&raw, sas[0]).packets, 5);
    assert_eq!(send(&mut raw, sas[0]), Status::HardLimit, "the limit holds");
}

#[test]
fn a_command_that_was_begun_is_aborted_after_a_stall_wherever_it_was() {
    let mut ends = [0, 0];
    for step in 0..60 {
        let (mut raw, mut admin) = nic();
        let block = [esp(Direction::Out, 0x1001), esp(Direction::Out, 0x1002)];
        let block: Vec<u64> = block.iter().flat_map(SaParameters::to_words).collect();
        admin.post(&raw, Opcode::SaInstall, [2, 0], &block, 2);
        raw.pass(Time::from_nanoseconds(250 * step));
        raw.world.stop_firmware(raw.id);
        raw.pass(Time::from_microseconds(1_000));
        let before = admin.ended();
        assert!(before.is_none_or(|(status, _)| status == AdminStatus::Ok));
        raw.world.restart_firmware(raw.id);
        raw.world.drain();
        let (status, _) = admin.ended().expect("it ends");
        assert!(before.is_none() || before == admin.ended(), "once");
        let aborted = status == AdminStatus::Aborted;
        assert!(aborted || status == AdminStatus::Ok, "{status:?}");
        ends[usize::from(aborted)] += 1;
        // After an abort nothing is left: the slots are free and take the same SAs again.
        if aborted {
            for slot in [0, 1] {
                raw.write(SLOT_SELECT.offset, slot);
                assert_eq!(raw.read(SLOT_STATUS.offset), 0, "{step}: slot {slot} is free");
            }
        }
        let sas = admin.install(&raw, &[esp(Direction::Out, 0x1003)]);
        assert_eq!(send(&mut raw, sas[0]), Status::Ok, "{step}");
    }
    assert!(ends.iter().all(|count| *count > 5), "{ends:?} well and aborted");
}

#[test]
fn slots_of_a_command_whose_queue_went_off_are_never_used() {
    let (mut free, mut unheard) = (0, 0);
    for step in 0..60 {
        let (raw, mut admin) = nic();
        let block = [esp(Direction::In, 0x1001), esp(Direction::In, 0x1002)];
        let block: Vec<u64> = block.iter().flat_map(SaParameters::to_words).collect();
        admin.post(&raw, Opcode::SaInstall, [2, 0], &block, 2);
        raw.pass(Time::from_nanoseconds(250 * step));
        raw.write(bar0::ADMIN_CONTROL.offset, 0);
        raw.world.drain();
        raw.write(SLOT_SELECT.offset, 0);
        let state = SlotStatus::from_bits(raw.read(SLOT_STATUS.offset)).state();
        assert_ne!(u32::from(state), SlotState::Staged.number(), "step {step}");
        free += u32::from(state == 0);
        unheard += u32::from(state != 0 && admin.ended().is_none());
    }
    // A completion on its way to host memory is lost with its queue.
    assert!(free > 5 && unheard <= 3, "{free} free, {unheard} in use that nobody heard of");
}

#[test]
fn a_reset_starts_stalled_firmware() {
    let (mut raw, mut admin) = nic();
    raw.world.stop_firmware(raw.id);
    raw.host.reset().expect("reset");
    raw.set_up(bar0::QueueControl::new());
    admin.turn_on(&raw);
    assert!(device(&raw).firmware_running());
    admin.ask(&raw, Opcode::PspRotate, 0, &[], 0);
    assert_eq!(raw.read(EVENT_STICKY.offset) >> (EventCause::FirmwareRestarted.number() - 16) & 1, 0);
}

#[test]
fn firmware_that_waits_for_a_period_serves_a_command_at_once_and_lets_the_world_come_to_rest() {
    let (raw, mut admin) = nic();
    admin.ask(&raw, Opcode::PspRotate, 0, &[], 0);
    let start = raw.world.now();
    raw.write(PSP_ROTATION_PERIOD_MS.offset, 3_600_000);
    raw.world.drain();
    assert!(raw.world.drained() && raw.world.now() - start < Time::from_microseconds(100));
    let start = raw.world.now();
    admin.ask(&raw, Opcode::PspRotate, 0, &[], 0);
    assert!(raw.world.now() - start < Time::from_microseconds(100), "not at the end of the period");
    // A host that looks at nothing in particular is not carried off to it.
    let start = raw.host.now();
    raw.host.relax();
    assert!(raw.host.now() - start < Time::from_microseconds(10));
    // And the period is kept.
    raw.write(PSP_ROTATION_PERIOD_MS.offset, 20);
    raw.pass(Time::from_microseconds(50_000));
    let by_period = EventCause::PspRotatedByPeriod.number() - 16;
    assert_eq!(raw.read(EVENT_STICKY.offset) >> by_period & 1, 1);
}

#[test]
fn slots_of_an_install_that_its_queue_did_not_outlive_are_given_out_again() {
    let mut parameters = Parameters::default();
    parameters.capacity.sa_slots = 4;
    let raw = Raw::new(&parameters, 32);
    let mut admin = Admin::new(&raw);
    let sas = [0x1001, 0x1002, 0x1003, 0x1004].map(|spi| esp(Direction::Out, spi));
    let block: Vec<u64> = sas.iter().flat_map(SaParameters::to_words).collect();
    let mut unheard = 0;
    for moment in 0.. {
        admin.post(&raw, Opcode::SaInstall, [4, 0], &block, 4);
        for _ in 0..moment {
            raw.pass(Time::from_nanoseconds(400));
        }
        raw.write(bar0::ADMIN_CONTROL.offset, 0);
        raw.world.drain();
        let ended = admin.ended().is_some();
        admin.turn_on(&raw);
        if ended {
            break;
        }
        unheard += 1;
        let (status, result) = admin.try_ask(&raw, Opcode::SaInstall, [4, 0], &block, 4);
        assert_eq!((status, result), (AdminStatus::Ok, 0), "turned off at moment {moment}");
        for sa in 0..4 {
            let generation = slot_generation(&raw, sa);
            let deleted =
                admin.try_ask(&raw, Opcode::SaDelete, [generation << 32 | u64::from(sa), 0], &[], 0);
            assert_eq!(deleted.0, AdminStatus::Ok);
        }
    }
    assert!(unheard > 20, "{unheard} moments");
}

fn slot_generation(raw: &Raw, slot: u32) -> u64 {
    raw.write(SLOT_SELECT.offset, slot);
    raw.read(SLOT_GENERATION.offset).into()
}
