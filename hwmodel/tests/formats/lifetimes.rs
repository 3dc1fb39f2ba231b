//! Limits, counters and sticky bits of SA slots, exactly, as commit keeps them.

use cryptonic_hwmodel::Parameters;
use cryptonic_regs::Status;
use cryptonic_regs::admin::{AdminStatus, Direction, LifetimeKind, Opcode, SaParameters, SaStateReply};
use cryptonic_regs::bar0::{QueueControl, STATUS_COUNTERS_OFFSET};
use cryptonic_regs::descriptor::{Security, TransmitExtent, TransmitSa};
use cryptonic_regs::events::{
    EventCause, ICV_8_PACKETS, ICV_FAILURES_IN_A_ROW, SEQUENCE_MARGIN, SLOT_GENERATION, SLOT_SELECT,
    SLOT_STATUS, STICKY_SLOTS, SlotState, SlotStatus,
};

use crate::admin::{Admin, Ring, cause, esp, limited, name};
use crate::raw::{Raw, control, extent, payload, tcp, udp};

/// Bytes of the IP packet in [`packet`].
const PACKET_BYTES: u64 = 86;

fn packet() -> Vec<u8> {
    udp(14 + PACKET_BYTES as usize)
}

/// A NIC whose cable is open: what leaves may be brought back by hand.
struct Nic {
    raw: Raw,
    admin: Admin,
}

impl Nic {
    fn new() -> Nic {
        Nic::with(&Parameters::default())
    }

    fn with(parameters: &Parameters) -> Nic {
        let mut raw = Raw::new(parameters, 32);
        let admin = Admin::new(&raw);
        raw.post(&[2_048; 32]);
        raw.world.drain();
        Nic { raw, admin }
    }

    fn install(&mut self, sa: SaParameters) -> TransmitSa {
        self.admin.install(&self.raw, &[sa])[0]
    }

    fn send(&mut self, sa: TransmitSa, frame: &[u8], maximum_segment: u16) -> Status {
        self.give(sa, frame, maximum_segment);
        self.raw.statuses()[0]
    }

    /// Gives a frame to the NIC and does not wait for it.
    fn give(&mut self, sa: TransmitSa, frame: &[u8], maximum_segment: u16) {
        let at = self.raw.bytes(frame);
        let control = control(frame.len()).with_security(Security::Sa.number() as u8).into_bits();
        let extent = TransmitExtent::from(extent(frame.len(), 0)).with_maximum_segment(maximum_segment);
        self.raw.put([at, control, sa.into_bits(), extent.into_bits()], &[]);
        self.raw.ring();
    }

    /// Frames that so many packets of an SA become.
    fn wire(&mut self, sa: TransmitSa, count: usize) -> Vec<Vec<u8>> {
        for _ in 0..count {
            assert_eq!(self.send(sa, &packet(), 0), Status::Ok);
        }
        self.raw.sent()
    }

    /// Has frames arrive at one time; gives how many were opened.
    fn arrive(&mut self, frames: &[Vec<u8>]) -> usize {
        for frame in frames {
            self.raw.world.inject(self.raw.id, frame);
        }
        self.raw.world.drain();
        let received = self.raw.received().len();
        self.raw.post(&vec![2_048; received]);
        received
    }

    fn query(&mut self, sa: TransmitSa) -> SaStateReply {
        self.admin.query(&self.raw, sa)
    }

    fn arm(&mut self, sa: TransmitSa, soft: u64) -> AdminStatus {
        self.admin.try_ask(&self.raw, Opcode::SaArm, [name(sa), soft], &[], 0).0
    }

    fn slot(&self, index: u32) -> (u32, SlotStatus) {
        self.raw.write(SLOT_SELECT.offset, index);
        assert_eq!(self.raw.read(SLOT_SELECT.offset), index);
        (self.raw.read(SLOT_GENERATION.offset), SlotStatus::from_bits(self.raw.read(SLOT_STATUS.offset)))
    }

    fn state(&self, sa: TransmitSa) -> SlotState {
        SlotState::of_number(self.slot(sa.index()).1.state().into()).expect("a state")
    }

    fn sticky(&self, sa: TransmitSa) -> bool {
        let word = self.raw.read(STICKY_SLOTS.offset + sa.index() / 32 * 4);
        word >> (sa.index() % 32) & 1 == 1
    }

    fn count(&self, status: Status) -> u32 {
        self.raw.read(STATUS_COUNTERS_OFFSET + 8 * status.number())
    }
}

fn causes(causes: &[EventCause]) -> u16 {
    causes.iter().map(|cause| 1 << cause.number()).sum()
}

#[test]
fn a_hard_limit_passes_exactly_what_it_says_in_both_directions() {
    // (kind, hard limit, packets that pass): byte N is begun by the last packet that passes, which may reach over.
    for (kind, hard, passes) in [
        (LifetimeKind::Packets, 1, 1),
        (LifetimeKind::Packets, 7, 7),
        (LifetimeKind::Bytes, 1, 1),
        (LifetimeKind::Bytes, PACKET_BYTES, 1),
        (LifetimeKind::Bytes, PACKET_BYTES + 1, 2),
        (LifetimeKind::Bytes, 5 * PACKET_BYTES, 5),
        (LifetimeKind::Bytes, 5 * PACKET_BYTES + 1, 6),
    ] {
        for direction in [Direction::Out, Direction::In] {
            let name = format!("{kind:?} {hard} {direction:?}");
            let mut nic = Nic::new();
            let sa = nic.install(limited(esp(direction, 0x1001), kind, 0, hard));
            let (passed, refusal) = if direction == Direction::Out {
                let passed = (0..10).filter(|_| nic.send(sa, &packet(), 0) == Status::Ok).count();
                assert_eq!(nic.raw.sent().len(), passed, "{name}");
                (passed, Status::HardLimit)
            } else {
                let peer = nic.install(esp(Direction::Out, 0x1001));
                let frames = nic.wire(peer, 10);
                (nic.arrive(&frames), Status::ReceiveHardLimit)
            };
            assert_eq!(passed, passes, "{name}");
            assert_eq!(nic.count(refusal) as usize, 10 - passes, "{name}");
            let state = nic.query(sa);
            assert_eq!((state.packets, state.refused), (passes as u64, 10 - passes as u64), "{name}");
            assert_eq!(state.bytes, passes as u64 * PACKET_BYTES, "{name}");
            assert_eq!(nic.state(sa), SlotState::Expired, "{name}");
        }
    }
}

#[test]
fn counts_of_a_life_before_are_part_of_this_one() {
    let mut nic = Nic::new();
    let sa = limited(esp(Direction::Out, 0x1001), LifetimeKind::Packets, 0, 10);
    let sa = nic.install(SaParameters { packets: 8, bytes: 800, ..sa });
    let sent = (0..5).filter(|_| nic.send(sa, &packet(), 0) == Status::Ok).count();
    let state = nic.query(sa);
    assert_eq!((sent, state.packets, state.bytes), (2, 10, 800 + 2 * PACKET_BYTES));
    let used_up = limited(esp(Direction::Out, 0x1002), LifetimeKind::Packets, 0, 10);
    let block = SaParameters { packets: 10, ..used_up }.to_words();
    let (ended, _) = nic.admin.try_ask(&nic.raw, Opcode::SaInstall, [1, 0], &block, 1);
    assert_eq!(ended, AdminStatus::BadArgument);
}

#[test]
fn a_large_frame_ends_where_its_sa_does() {
    let mut nic = Nic::new();
    let sa = nic.install(limited(esp(Direction::Out, 0x1001), LifetimeKind::Packets, 2, 3));
    // Five segments of 1000 bytes.
    let large = tcp(false, &payload(5_000));
    assert_eq!(nic.send(sa, &large, 1_000), Status::HardLimit);
    assert_eq!(nic.raw.sent().len(), 3, "each counts alone");
    assert_eq!(nic.send(sa, &large, 1_000), Status::HardLimit);
    assert_eq!(nic.raw.sent().len(), 0);
    let state = nic.query(sa);
    assert_eq!((state.packets, state.refused), (3, 2), "what is left of a frame is refused as one");
    let expected = causes(&[EventCause::SoftPackets, EventCause::HardPackets]);
    assert_eq!(state.sticky.causes(), expected);
}

#[test]
fn a_key_with_an_icv_of_eight_bytes_ends_after_2_32_uses_and_forgeries_are_uses() {
    let mut nic = Nic::new();
    let short = |direction| {
        let mut sa = esp(direction, 0x1001);
        sa.form.set_icv_bytes(8);
        sa
    };
    let out = nic.install(SaParameters { packets: ICV_8_PACKETS - 4, ..short(Direction::Out) });
    let mut frames = nic.wire(out, 4);
    assert_eq!(nic.send(out, &packet(), 0), Status::HardLimit);
    assert_eq!(nic.state(out), SlotState::Expired);
    assert_eq!(nic.query(out).sticky.causes(), causes(&[EventCause::HardIcv8]));

    let inbound = nic.install(SaParameters { packets: ICV_8_PACKETS - 4, ..short(Direction::In) });
    // Two good ones, two forgeries, and then nothing passes.
    for forged in &mut frames[2..] {
        *forged.last_mut().expect("some") ^= 1;
    }
    assert_eq!(nic.arrive(&frames[..3]), 2);
    assert_eq!(nic.state(inbound), SlotState::Armed);
    assert_eq!(nic.arrive(&frames[3..]), 0);
    assert_eq!(nic.state(inbound), SlotState::Expired);
    *frames[3].last_mut().expect("some") ^= 1;
    assert_eq!(nic.arrive(&frames[3..]), 0, "a good one");
    let state = nic.query(inbound);
    assert_eq!((state.packets, state.icv_failures, state.refused), (ICV_8_PACKETS - 2, 2, 1));
    let spent = SaParameters { packets: ICV_8_PACKETS, ..short(Direction::Out) };
    let (ended, _) = nic.admin.try_ask(&nic.raw, Opcode::SaInstall, [1, 0], &spent.to_words(), 1);
    assert_eq!(ended, AdminStatus::BadArgument);
}

#[test]
fn the_first_and_the_last_use_are_told() {
    let mut nic = Nic::new();
    let sa = nic.install(esp(Direction::Out, 0x1001));
    let fresh = nic.query(sa);
    assert_eq!((fresh.first_use_picoseconds, fresh.last_use_picoseconds), (0, 0));
    assert!(fresh.installed_picoseconds > 0);
    nic.wire(sa, 1);
    let first = nic.query(sa);
    assert!(first.first_use_picoseconds > fresh.installed_picoseconds);
    assert_eq!(first.first_use_picoseconds, first.last_use_picoseconds);
    nic.wire(sa, 1);
    let second = nic.query(sa);
    assert_eq!(second.first_use_picoseconds, first.first_use_picoseconds);
    assert!(second.last_use_picoseconds > first.last_use_picoseconds);
    assert!(second.last_use_picoseconds <= nic.raw.world.now().picoseconds());
    assert_eq!(second.installed_picoseconds, fresh.installed_picoseconds);
}

#[test]
fn a_soft_limit_tells_once_an_arming_and_can_be_armed_until_the_sa_ends() {
    let mut nic = Nic::new();
    let mut ring = Ring::new(&nic.raw);
    ring.turn_on(&nic.raw, 0, 6);
    let sa = nic.install(limited(esp(Direction::Out, 0x1001), LifetimeKind::Packets, 2, 8));
    let soft = causes(&[EventCause::SoftPackets]);
    nic.wire(sa, 4);
    let events = ring.take(&nic.raw);
    assert_eq!(
        events.iter().map(|event| (cause(event), event.packets, event.head.arming())).collect::<Vec<_>>(),
        [(EventCause::SoftPackets, 2, 0)]
    );
    assert_eq!(
        (nic.state(sa), nic.slot(sa.index()).1.causes(), nic.sticky(sa)),
        (SlotState::Soft, soft, true)
    );
    for refused in [0, 8, 9, u64::MAX] {
        assert_eq!(nic.arm(sa, refused), AdminStatus::BadArgument, "{refused}");
    }
    assert!(nic.sticky(sa), "a refused arming clears nothing");
    assert_eq!(nic.arm(sa, 6), AdminStatus::Ok);
    assert_eq!(
        (nic.state(sa), nic.slot(sa.index()).1.arming(), nic.sticky(sa)),
        (SlotState::Armed, 1, false)
    );
    nic.wire(sa, 4);
    let events = ring.take(&nic.raw);
    assert_eq!(
        events.iter().map(|event| (cause(event), event.packets, event.head.arming())).collect::<Vec<_>>(),
        [(EventCause::SoftPackets, 6, 1), (EventCause::HardPackets, 8, 1)]
    );
    assert_eq!(nic.arm(sa, 7), AdminStatus::BadArgument, "it has ended");
    assert_eq!(nic.state(sa), SlotState::Expired);
}

#[test]
fn few_sequence_numbers_left_are_told_at_the_margin_and_not_before() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let mut nic = Nic::new();
        let mut ring = Ring::new(&nic.raw);
        ring.turn_on(&nic.raw, 0, 4);
        let mut sa = esp(Direction::Out, 0x1001);
        sa.form.set_esn(esn);
        sa.sequence = last - SEQUENCE_MARGIN - 2;
        let sa = nic.install(sa);
        nic.wire(sa, 1);
        assert_eq!(
            (nic.state(sa), ring.take(&nic.raw).len()),
            (SlotState::Armed, 0),
            "one more than the margin"
        );
        nic.wire(sa, 3);
        let told = ring.take(&nic.raw);
        let told: Vec<_> = told.iter().map(|event| (cause(event), last - event.sequence)).collect();
        assert_eq!(told, [(EventCause::SequenceSoft, SEQUENCE_MARGIN)], "ESN {esn}");
        assert_eq!(nic.state(sa), SlotState::Soft);
        // Nothing gives numbers back: arming anew leaves the sticky bit where it is.
        assert_eq!(nic.arm(sa, 100), AdminStatus::Ok);
        nic.wire(sa, 1);
        assert_eq!((nic.state(sa), ring.take(&nic.raw).len()), (SlotState::Soft, 0));
    }
}

#[test]
fn an_inbound_sa_that_received_the_highest_number_is_armed_for_those_that_are_late() {
    let mut nic = Nic::new();
    let last = u64::from(u32::MAX);
    let out = nic.install(SaParameters { sequence: last - 3, ..esp(Direction::Out, 0x1001) });
    let frames = nic.wire(out, 3);
    assert_eq!(nic.send(out, &packet(), 0), Status::SequenceExhausted);
    assert_eq!((nic.state(out), nic.query(out).refused), (SlotState::Expired, 1));
    assert_eq!(nic.arm(out, 100), AdminStatus::BadArgument);

    let mut sa = limited(esp(Direction::In, 0x1001), LifetimeKind::Packets, 1, 0);
    sa.sequence = last - 4;
    sa.window.set_replay_window(64);
    let inbound = nic.install(sa);
    assert_eq!(nic.arrive(&frames[2..]), 1, "the highest first");
    let seen = causes(&[EventCause::SoftPackets, EventCause::SequenceSoft, EventCause::SequenceHard]);
    assert_eq!((nic.state(inbound), nic.slot(inbound.index()).1.causes()), (SlotState::Soft, seen));
    assert_eq!(nic.arm(inbound, 2), AdminStatus::Ok, "packets still pass");
    assert_eq!(nic.arrive(&frames), 2, "the late ones, and one that came before");
    assert_eq!(nic.query(inbound).replay_duplicates, 1);
    let seen = causes(&[EventCause::SoftPackets, EventCause::SequenceSoft, EventCause::SequenceHard]);
    assert_eq!(nic.slot(inbound.index()).1.causes(), seen, "and it told once more");
}

#[test]
fn icv_failures_in_a_row_are_an_event_and_one_good_packet_ends_the_row() {
    let mut nic = Nic::new();
    let mut ring = Ring::new(&nic.raw);
    ring.turn_on(&nic.raw, 0, 6);
    let out = nic.install(esp(Direction::Out, 0x1001));
    let good = nic.wire(out, 1);
    let inbound = nic.install(esp(Direction::In, 0x1001));
    let mut bad = good[0].clone();
    *bad.last_mut().expect("some") ^= 1;
    let row = ICV_FAILURES_IN_A_ROW as usize;
    for (bads, goods, events) in [(row - 1, 1, 0), (row - 1, 0, 0), (1, 0, 1), (3 * row, 1, 0), (row, 0, 0)] {
        nic.arrive(&vec![bad.clone(); bads]);
        nic.arrive(&vec![good[0].clone(); goods]);
        let told = ring.take(&nic.raw);
        ring.ring(&nic.raw);
        assert_eq!(told.len(), events, "{bads} bad, {goods} good");
        assert!(told.iter().all(|event| cause(event) == EventCause::IcvFailures));
    }
    let state = nic.query(inbound);
    assert_eq!(state.sticky.icv_failures_in_a_row(), ICV_FAILURES_IN_A_ROW);
    assert_eq!(nic.arm(inbound, 1_000), AdminStatus::Ok);
    nic.arrive(&[bad]);
    assert_eq!(ring.take(&nic.raw).len(), 1, "armed anew, it is told anew");
}

#[test]
fn a_batch_is_installed_as_a_whole_or_not_at_all() {
    let mut nic = Nic::new();
    let peer = nic.install(esp(Direction::Out, 0x1003));
    let frames = nic.wire(peer, 2);
    let batch: Vec<SaParameters> = (0x1001..0x1006).map(|spi| esp(Direction::In, spi)).collect();
    let mut twice = batch.clone();
    twice[4] = batch[2];
    let block: Vec<u64> = twice.iter().flat_map(SaParameters::to_words).collect();
    let (ended, which) = nic.admin.try_ask(&nic.raw, Opcode::SaInstall, [5, 0], &block, 5);
    assert_eq!((ended, which), (AdminStatus::DuplicateSpi, 4));
    assert_eq!(nic.arrive(&frames[..1]), 0, "none is there");
    assert_eq!(nic.count(Status::NoSa), 1);
    for slot in 1..8 {
        assert_eq!(nic.slot(slot), (0, SlotStatus::new()), "slot {slot} is free");
    }
    let sas = nic.admin.install(&nic.raw, &batch);
    assert_eq!(nic.arrive(&frames[..1]), 1);
    let mut slots: Vec<u32> = sas.iter().map(|sa| sa.index()).collect();
    slots.dedup();
    assert_eq!(slots.len(), 5);
    for sa in sas {
        let (generation, status) = nic.slot(sa.index());
        assert_eq!((generation, status.state()), (sa.generation(), SlotState::Armed.number() as u8));
    }
}

#[test]
fn no_packet_uses_a_slot_before_the_command_that_installs_it_completes() {
    // Frames arrive all the time while the command is served; none is opened before the completion is posted.
    let mut nic = Nic::new();
    let peer = nic.install(esp(Direction::Out, 0x1001));
    let frame = nic.wire(peer, 1).remove(0);
    let batch = [esp(Direction::In, 0x1001), esp(Direction::In, 0x1002)];
    let block: Vec<u64> = batch.iter().flat_map(SaParameters::to_words).collect();
    nic.admin.post(&nic.raw, Opcode::SaInstall, [2, 0], &block, 2);
    let (mut refused, mut staged) = (0, 0);
    while nic.admin.ended().is_none() {
        nic.raw.world.inject(nic.raw.id, &frame);
        nic.raw.pass(cryptonic_pci::Time::from_nanoseconds(200));
        let opened = nic.raw.received().len();
        let state = nic.slot(1).1.state();
        staged += u32::from(state == SlotState::Staged.number() as u8);
        assert!(opened == 0 || state == SlotState::Armed.number() as u8, "opened by slot 1 in state {state}");
        refused = nic.count(Status::NoSa);
        assert!(refused < 10_000, "the command ends");
    }
    assert!(refused > 1 && staged > 0, "{refused} refused, {staged} looks at a staged slot");
    assert_eq!(nic.arrive(&[frame]), 1);
}

#[test]
fn a_deletion_waits_for_the_packets_under_way_and_for_nothing_else() {
    // Lanes that take a millisecond: what is in them when the deletion comes is seen.
    let mut parameters = Parameters::default();
    parameters.crypto.lane_latency_cycles = 322_266;
    let microseconds = cryptonic_pci::Time::from_microseconds;
    for direction in [Direction::Out, Direction::In] {
        let mut nic = Nic::with(&parameters);
        let out = nic.install(esp(Direction::Out, 0x1001));
        let idle = nic.install(esp(Direction::Out, 0x1002));
        let sa = if direction == Direction::Out {
            nic.give(out, &packet(), 0);
            out
        } else {
            let frame = nic.wire(out, 1).remove(0);
            let inbound = nic.install(esp(Direction::In, 0x1001));
            nic.raw.world.inject(nic.raw.id, &frame);
            inbound
        };
        nic.raw.pass(microseconds(20));
        nic.admin.post(&nic.raw, Opcode::SaDelete, [name(idle), 0], &[], 0);
        nic.raw.pass(microseconds(100));
        assert!(nic.admin.ended().is_some(), "nothing uses this one");

        nic.admin.post(&nic.raw, Opcode::SaDelete, [name(sa), 0], &[], 0);
        nic.raw.pass(microseconds(500));
        assert_eq!((nic.state(sa), nic.admin.ended()), (SlotState::Draining, None), "{direction:?}");
        nic.raw.pass(microseconds(1_000));
        assert_eq!((nic.state(sa), nic.admin.ended()), (SlotState::Free, Some((AdminStatus::Ok, 0))));
        match direction {
            Direction::Out => assert_eq!(nic.raw.sent().len(), 1, "it was past commit"),
            Direction::In => assert_eq!(nic.count(Status::SaDeleted), 1, "it was before commit"),
        }
    }
}

#[test]
fn what_a_limit_refuses_moves_no_window_and_replays_are_counted_apart() {
    let mut nic = Nic::new();
    let out = nic.install(esp(Direction::Out, 0x1001));
    let frames = nic.wire(out, 40);
    let inbound = nic.install(limited(esp(Direction::In, 0x1001), LifetimeKind::Packets, 2, 3));
    assert_eq!(nic.arrive(&frames[..3]), 3);
    assert_eq!(nic.arrive(&frames[5..6]), 0);
    let state = nic.query(inbound);
    assert_eq!((state.sequence, state.packets, state.refused), (3, 3, 1), "number 6 was not taken");
    nic.admin.ask(&nic.raw, Opcode::SaDelete, name(inbound), &[], 0);

    let mut parameters = esp(Direction::In, 0x1001);
    parameters.window = parameters.window.with_replay_window(32);
    let inbound = nic.install(parameters);
    // The last, then one inside the window, both again, and two behind it.
    let order = [39, 20, 39, 20, 20, 7, 0].map(|index: usize| frames[index].clone());
    assert_eq!(nic.arrive(&order), 2);
    let state = nic.query(inbound);
    assert_eq!((state.replay_duplicates, state.replay_below_window), (3, 2));
    assert_eq!((state.packets, state.refused, state.icv_failures), (2, 0, 0));
}

#[test]
fn a_deleted_slot_has_no_state_and_no_sticky_bit() {
    let mut nic = Nic::new();
    let sa = nic.install(limited(esp(Direction::Out, 0x1001), LifetimeKind::Packets, 1, 2));
    nic.wire(sa, 2);
    assert!(nic.sticky(sa));
    nic.admin.ask(&nic.raw, Opcode::SaDelete, name(sa), &[], 0);
    assert!(!nic.sticky(sa));
    assert_eq!(nic.slot(sa.index()), (0, SlotStatus::new()));
    assert_eq!(nic.slot(u32::MAX), (0, SlotStatus::new()), "and there is no such slot");
    let again = nic.install(esp(Direction::Out, 0x1001));
    assert!(!nic.sticky(again) && nic.state(again) == SlotState::Armed);
    assert_eq!(nic.send(sa, &packet(), 0), Status::StaleSa);
    nic.raw.host.reset().expect("reset");
    nic.raw.set_up(QueueControl::new());
    assert_eq!(nic.slot(again.index()), (0, SlotStatus::new()));
}
