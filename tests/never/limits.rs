//! 3. No packet passes a hard limit, and none that may pass is refused.

use cryptonic_driver::{
    Direction, Error, EventCause, EventOptions, Lifetime, LifetimeKind, Mode, Nic, Offload, Protection,
    PspSaConfiguration, QueuePairOptions, SaConfiguration, SaHandle, SaState, SlotState, SourcePort, Status,
    Time, TransmitPacket, Transmitted,
};
use cryptonic_hwmodel::{Parameters, World};

use crate::rig::{
    Chance, End, cases, drain, esp_number, guarded, ip_bytes, key_number, marked, packet_of, pair, pair_with,
    send_all, tcp, tcp6, udp,
};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Tunnel,
    Transport,
    /// In tunnel mode, over the end of 32 bits.
    Esn,
    /// A key of PSP in a slot.
    Psp,
}

const ESP_FORMS: [Form; 3] = [Form::Tunnel, Form::Transport, Form::Esn];
const FORMS: [Form; 4] = [Form::Tunnel, Form::Transport, Form::Esn, Form::Psp];
const KINDS: [LifetimeKind; 2] = [LifetimeKind::Packets, LifetimeKind::Bytes];

impl Form {
    fn install(self, nic: &mut Nic, direction: Direction, lifetime: Lifetime, start: u64) -> SaHandle {
        let (packets, bytes) = match lifetime.kind {
            LifetimeKind::Packets => (start, 0),
            LifetimeKind::Bytes => (0, start),
        };
        let esp = |mode| SaConfiguration { lifetime, packets, bytes, ..esp_number(direction, mode, 1) };
        let installed = match self {
            Form::Tunnel => nic.install_sa(esp(Mode::Tunnel)),
            Form::Transport => nic.install_sa(esp(Mode::Transport)),
            Form::Esn => {
                nic.install_sa(SaConfiguration { esn: true, sequence: (1 << 32) - 3, ..esp(Mode::Tunnel) })
            }
            Form::Psp => nic.install_psp_sa(PspSaConfiguration { lifetime, packets, bytes, ..psp(1) }),
        };
        installed.expect("install")
    }
}

fn psp(number: u32) -> PspSaConfiguration {
    PspSaConfiguration {
        version: 0,
        key: key_number(number),
        spi: 0x90 + number,
        mode: Mode::Transport,
        outer: None,
        crypt_offset: 0,
        source_port: SourcePort::Entropy,
        virtualization_cookie: None,
        lifetime: Lifetime::UNLIMITED,
        packets: 0,
        bytes: 0,
        cookie: 0,
    }
}

fn hard(kind: LifetimeKind, hard: u64) -> Lifetime {
    Lifetime { kind, soft: None, hard: Some(hard) }
}

/// Packets over both IP versions with up to 1200 bytes of the marker.
pub fn frames(count: usize) -> Vec<Vec<u8>> {
    let mut chance = Chance::new(count as u64);
    let frame = |_| {
        let payload = marked(chance.below(1200) as usize);
        if chance.one_in(2) { udp(&payload) } else { tcp6(&payload) }
    };
    (0..count).map(frame).collect()
}

/// How many packets of such bytes pass from `counted` on: each that begins below the limit.
fn passing(kind: LifetimeKind, bytes: impl Iterator<Item = u64>, mut counted: u64, hard: u64) -> usize {
    let passes = |bytes: &u64| {
        let passes = counted < hard;
        let weight = if kind == LifetimeKind::Packets { 1 } else { *bytes };
        counted = counted.saturating_add(weight);
        passes
    };
    bytes.take_while(passes).count()
}

/// The limits of the table, and how many packets come: one too few, just enough, one and many too many.
fn attempts(kind: LifetimeKind, limit: u64) -> [usize; 4] {
    let enough = passing(kind, frames(2000).iter().map(|frame| ip_bytes(frame)), 0, limit);
    [enough - 1, enough, enough + 1, enough + 50]
}

fn assert_counted(state: SaState, kind: LifetimeKind, start: u64, frames: &[Vec<u8>], refused: usize) {
    let bytes: u64 = frames.iter().map(|frame| ip_bytes(frame)).sum();
    let (packets_before, bytes_before) = match kind {
        LifetimeKind::Packets => (start, 0),
        LifetimeKind::Bytes => (0, start),
    };
    let expected = (
        packets_before.saturating_add(frames.len() as u64),
        bytes_before.saturating_add(bytes),
        refused as u64,
    );
    assert_eq!((state.packets, state.bytes, state.refused), expected);
    let counted = if kind == LifetimeKind::Packets { state.packets } else { state.bytes };
    let ended = state.lifetime.hard.is_some_and(|hard| counted >= hard);
    assert_eq!(state.state == SlotState::Expired, ended, "{state:?}");
}

/// Sends frames by an SA with a limit; `passes` of them leave.
fn assert_out(form: Form, lifetime: Lifetime, start: u64, frames: &[Vec<u8>], passes: usize) {
    let world = World::new(1);
    let mut a = End::new(&world, &Parameters::default());
    let sa = form.install(&mut a.nic, Direction::Out, lifetime, start);
    let ends = send_all(&mut a.queue, frames, Protection::Sa(sa));
    let what = format!("{form:?}, {lifetime:?} from {start}, {} packets", frames.len());
    let statuses: Vec<_> = ends.iter().map(|end| end.status).collect();
    let expected = [vec![Status::Ok; passes], vec![Status::HardLimit; frames.len() - passes]].concat();
    assert_eq!(statuses, expected, "{what}");
    assert_eq!(a.wire.frames().len(), passes, "{what}: on the wire");
    assert!(!a.wire.shows_marker(), "{what}: in clear");
    let state = a.nic.query_sa(sa).expect("query");
    assert_counted(state, lifetime.kind, start, &frames[..passes], frames.len() - passes);
}

/// Sends frames to an SA with a limit; `passes` of them are received.
fn assert_in(form: Form, lifetime: Lifetime, start: u64, frames: &[Vec<u8>], passes: usize) {
    let (world, mut a, mut b) = pair();
    let out = form.install(&mut a.nic, Direction::Out, Lifetime::UNLIMITED, 0);
    let sa = form.install(&mut b.nic, Direction::In, lifetime, start);
    world.record_drops(b.id);
    let mut received = vec![];
    for some in frames.chunks(200) {
        send_all(&mut a.queue, some, Protection::Sa(out));
        received.extend(b.receive());
    }
    let what = format!("{form:?}, {lifetime:?} from {start}, {} packets", frames.len());
    assert!(received.iter().all(|(heard, _)| heard.status == Status::Ok), "{what}");
    let opened: Vec<_> = received.into_iter().map(|(_, frame)| frame).collect();
    assert!(opened == frames[..passes], "{what}: {} received in place of {passes}", opened.len());
    assert_eq!(world.take_drops(b.id), vec![Status::ReceiveHardLimit; frames.len() - passes], "{what}");
    let state = b.nic.query_sa(sa).expect("query");
    assert_counted(state, lifetime.kind, start, &frames[..passes], frames.len() - passes);
    // Both ends count alike.
    if passes == frames.len() && start == 0 {
        let sender = a.nic.query_sa(out).expect("query");
        assert_eq!((sender.packets, sender.bytes), (state.packets, state.bytes), "{what}");
    }
}

#[test]
fn a_limit_of_n_lets_exactly_n_packets_out() {
    for (form, kind, limit) in table(&FORMS) {
        for attempts in attempts(kind, limit) {
            let frames = frames(attempts);
            let passes = passing(kind, frames.iter().map(|frame| ip_bytes(frame)), 0, limit);
            assert_out(form, hard(kind, limit), 0, &frames, passes);
        }
    }
}

#[test]
fn a_limit_of_n_lets_exactly_n_packets_in() {
    for (form, kind, limit) in table(&ESP_FORMS) {
        for attempts in attempts(kind, limit) {
            let frames = frames(attempts);
            let passes = passing(kind, frames.iter().map(|frame| ip_bytes(frame)), 0, limit);
            assert_in(form, hard(kind, limit), 0, &frames, passes);
        }
    }
}

/// Every form and kind with every limit.
fn table(forms: &[Form]) -> Vec<(Form, LifetimeKind, u64)> {
    let limits = [1, 2, 7, 1000];
    let kinds = |form: Form| KINDS.into_iter().map(move |kind| (form, kind));
    let all = forms.iter().flat_map(|form| kinds(*form));
    all.flat_map(|(form, kind)| limits.map(|limit| (form, kind, limit))).collect()
}

#[test]
fn limits_hold_where_counters_pass_32_bits_and_where_they_end() {
    let edges = [
        ((1 << 32) - 3, 1 << 32),
        ((1 << 32) - 3, (1 << 32) + 1),
        ((1 << 32) - 1, 1 << 32),
        (u64::MAX - 3, u64::MAX),
        (u64::MAX - 1, u64::MAX),
    ];
    for (kind, (start, limit)) in KINDS.into_iter().flat_map(|kind| edges.map(|edge| (kind, edge))) {
        let frames = frames(8);
        let passes = passing(kind, frames.iter().map(|frame| ip_bytes(frame)), start, limit);
        assert!((1..8).contains(&passes));
        assert_out(Form::Tunnel, hard(kind, limit), start, &frames, passes);
        assert_out(Form::Psp, hard(kind, limit), start, &frames, passes);
        assert_in(Form::Esn, hard(kind, limit), start, &frames, passes);
    }
}

#[test]
fn counters_stop_at_their_end_and_do_not_begin_anew() {
    for kind in KINDS {
        let frames = frames(5);
        let unlimited = Lifetime { kind, soft: None, hard: None };
        for start in [u64::MAX - 2, u64::MAX] {
            assert_out(Form::Tunnel, unlimited, start, &frames, 5);
            assert_in(Form::Tunnel, unlimited, start, &frames, 5);
        }
    }
}

#[test]
fn a_soft_limit_is_told_once_each_time_it_is_armed() {
    // Counters from elsewhere may be behind the soft limit at the start: the first packet tells.
    for (kind, start) in KINDS.into_iter().flat_map(|kind| [0, 1000].map(|start| (kind, start))) {
        let world = World::new(1);
        let mut a = End::new(&world, &Parameters::default());
        let lifetime = Lifetime { kind, soft: Some(500), hard: Some(1 << 40) };
        let sa = Form::Tunnel.install(&mut a.nic, Direction::Out, lifetime, start);
        let mut stream = a.nic.open_events(EventOptions::default()).expect("events");
        let mut counted = start;
        let mut soft = 500;
        for turn in 0..600 {
            let frame = udp(&marked(turn % 90));
            let before = counted;
            counted += if kind == LifetimeKind::Packets { 1 } else { ip_bytes(&frame) };
            assert_eq!(a.send(&frame, Protection::Sa(sa)).status, Status::Ok);
            world.drain();
            let told = stream.next().expect("next");
            let reached = counted >= soft && (before < soft || turn == 0);
            let cause =
                if kind == LifetimeKind::Packets { EventCause::SoftPackets } else { EventCause::SoftBytes };
            assert_eq!(told.map(|event| event.cause), reached.then_some(cause), "turn {turn}");
            if let Some(record) = told.and_then(|event| event.record) {
                let of_kind = if kind == LifetimeKind::Packets { record.packets } else { record.bytes };
                assert_eq!(of_kind, counted, "the packet that reached it is counted");
            }
            if reached {
                soft = counted + 17;
                a.nic.arm_sa(sa, soft).expect("arm");
            }
        }
        assert!(stream.statistics().told >= 2);
        assert_eq!(stream.statistics().repeated, 0, "the device itself tells once");
    }
}

/// Puts as many packets into each queue as it takes before the device begins, and gives their ends.
fn send_at_once(
    queues: &mut [cryptonic_driver::QueuePair],
    each: usize,
    mut frame: impl FnMut() -> Vec<u8>,
    protection: Protection,
) -> Vec<Transmitted> {
    for queue in queues.iter_mut() {
        let mut batch: Vec<_> = (0..each).map(|_| packet_of(queue, &frame(), protection)).collect();
        assert_eq!(queue.transmit(&mut batch).expect("transmit"), each);
    }
    queues.iter_mut().flat_map(drain).collect()
}

#[test]
fn masses_under_way_over_every_queue_and_lane_do_not_pass_a_limit() {
    const EACH: usize = 200;
    for preset in Parameters::PRESETS {
        let parameters = Parameters::preset(preset).expect("a preset");
        for (queues, form, kind) in [
            (1, Form::Tunnel, LifetimeKind::Packets),
            (4, Form::Esn, LifetimeKind::Bytes),
            (4, Form::Psp, LifetimeKind::Bytes),
            (16, Form::Transport, LifetimeKind::Packets),
            (16, Form::Psp, LifetimeKind::Packets),
        ] {
            let what = format!("{preset}, {queues} queues, {form:?}, {kind:?}");
            let world = World::new(1);
            let id = world.add_nic(&parameters).expect("in range");
            let wire = crate::rig::Wire::on(&world, id);
            let mut nic = crate::rig::open(&world, id, &Default::default());
            let mut all: Vec<_> =
                (0..queues).map(|_| nic.create_queue_pair(guarded()).expect("queue")).collect();
            // Of bytes, packets alike: then it does not matter which come first.
            let mut chance = Chance::new(queues as u64);
            let packets = kind == LifetimeKind::Packets;
            let frame = || udp(&marked(if packets { chance.below(1400) as usize } else { 572 }));
            let passes = EACH * queues * 2 / 3;
            let limit = if packets { passes as u64 } else { passes as u64 * 600 - 599 };
            let sa = form.install(&mut nic, Direction::Out, hard(kind, limit), 0);
            let ends = send_at_once(&mut all, EACH, frame, Protection::Sa(sa));
            let count = |status| ends.iter().filter(|end| end.status == status).count();
            assert_eq!(wire.frames().len(), passes, "{what}");
            assert_eq!(count(Status::Ok), passes, "{what}");
            assert_eq!(count(Status::HardLimit), EACH * queues - passes, "{what}");
            assert!(!wire.shows_marker(), "{what}");
        }
    }
}

#[test]
fn masses_under_way_from_every_queue_do_not_pass_a_limit_on_receive() {
    const EACH: usize = 200;
    for (preset, kind) in Parameters::PRESETS.into_iter().flat_map(|preset| KINDS.map(|kind| (preset, kind)))
    {
        let parameters = Parameters::preset(preset).expect("a preset");
        let world = World::new(1);
        let mut a = End::new(&world, &parameters);
        let wide = QueuePairOptions { receive_slots: 2048, ..guarded() };
        let mut b = End::with_queue(&world, &parameters, wide);
        world.connect(a.id, b.id, Time::from_nanoseconds(10));
        world.record_drops(b.id);
        let mut queues: Vec<_> = (0..4).map(|_| a.nic.create_queue_pair(guarded()).expect("queue")).collect();
        let passes = 500;
        let limit = if kind == LifetimeKind::Packets { passes } else { passes * 600 - 599 };
        let out = Form::Tunnel.install(&mut a.nic, Direction::Out, Lifetime::UNLIMITED, 0);
        Form::Tunnel.install(&mut b.nic, Direction::In, hard(kind, limit), 0);
        send_at_once(&mut queues, EACH, || udp(&marked(572)), Protection::Sa(out));
        world.drain();
        let mut received = 0;
        loop {
            let some = b.receive();
            received += some.len();
            if some.is_empty() {
                break;
            }
        }
        assert_eq!(received as u64, passes, "{preset} {kind:?}");
        let drops = world.take_drops(b.id);
        assert_eq!(drops, vec![Status::ReceiveHardLimit; 4 * EACH - received], "{preset} {kind:?}");
    }
}

#[test]
fn of_a_frame_that_is_cut_exactly_the_segments_below_the_limit_leave() {
    // Ten segments of 40 + 100 bytes a frame.
    let frame = tcp(1_000);
    for (form, kind, limit, segments) in [
        (Form::Tunnel, LifetimeKind::Packets, 1, 1),
        (Form::Tunnel, LifetimeKind::Packets, 7, 7),
        (Form::Transport, LifetimeKind::Packets, 10, 10),
        (Form::Esn, LifetimeKind::Packets, 23, 23),
        (Form::Psp, LifetimeKind::Packets, 11, 11),
        (Form::Tunnel, LifetimeKind::Bytes, 1, 1),
        (Form::Transport, LifetimeKind::Bytes, 140 * 3, 3),
        (Form::Esn, LifetimeKind::Bytes, 140 * 13 + 1, 14),
        (Form::Psp, LifetimeKind::Bytes, 140 * 20 - 1, 20),
    ] {
        let what = format!("{form:?}, {kind:?}, {limit}");
        let world = World::new(1);
        let mut a = End::new(&world, &Parameters::default());
        let sa = form.install(&mut a.nic, Direction::Out, hard(kind, limit), 0);
        let ends: Vec<_> = (0..4)
            .map(|_| {
                let offload = Offload::NONE.segments(100);
                let packet =
                    TransmitPacket { offload, ..packet_of(&mut a.queue, &frame, Protection::Sa(sa)) };
                assert_eq!(a.queue.transmit(&mut vec![packet]).expect("transmit"), 1);
                drain(&mut a.queue)[0].status
            })
            .collect();
        let whole = segments / 10;
        let expected = [vec![Status::Ok; whole], vec![Status::HardLimit; 4 - whole]].concat();
        assert_eq!(ends, expected, "{what}");
        assert_eq!(a.wire.frames().len(), segments, "{what}");
        assert!(!a.wire.shows_marker(), "{what}");
        let state = a.nic.query_sa(sa).expect("query");
        assert_eq!((state.packets, state.bytes), (segments as u64, 140 * segments as u64), "{what}");
    }
}

#[test]
fn random_packets_arm_no_way_past_a_limit() {
    // Packets of every size, faults between them, limits armed anew, SAs in both directions, ends counted on the wire.
    for seed in 0..cases(4) {
        let mut chance = Chance::new(seed);
        let (world, mut a, mut b) = pair_with(&Parameters::default());
        let kind = chance.pick(&KINDS);
        let limit =
            if kind == LifetimeKind::Packets { chance.below(150) + 2 } else { chance.below(90_000) + 2 };
        let limits = Lifetime { kind, soft: Some(1), hard: Some(limit) };
        let out = Form::Tunnel.install(&mut a.nic, Direction::Out, limits, 0);
        Form::Tunnel.install(&mut b.nic, Direction::In, Lifetime::UNLIMITED, 0);
        let (mut counted, mut passes) = (0, 0);
        for _ in 0..250 {
            match chance.below(12) {
                0 => {
                    let faulty = vec![0xee; 64];
                    let status = a.send(&faulty, Protection::Sa(out)).status;
                    assert!(matches!(status, Status::NotIp | Status::HardLimit), "{status:?}");
                }
                1 => {
                    let soft = chance.below(limit) + 1;
                    let armed = a.nic.arm_sa(out, soft);
                    let lives = counted < limit && soft < limit;
                    assert_eq!(armed.is_ok(), lives, "seed {seed}: {armed:?} {counted} {soft} {limit}");
                    assert!(matches!(armed, Ok(()) | Err(Error::Argument(_) | Error::Refused { .. })));
                }
                2 => world.restart_firmware(a.id),
                _ => {
                    let frame = udp(&marked(chance.below(1400) as usize));
                    let may = counted < limit;
                    let status = a.send(&frame, Protection::Sa(out)).status;
                    assert_eq!(status, if may { Status::Ok } else { Status::HardLimit }, "seed {seed}");
                    if may {
                        counted += if kind == LifetimeKind::Packets { 1 } else { ip_bytes(&frame) };
                        passes += 1;
                    }
                }
            }
        }
        assert_eq!(a.wire.frames().len(), passes, "seed {seed}");
        assert!(!a.wire.shows_marker());
        b.receive();
    }
}

#[test]
fn what_is_added_to_packets_counts_at_neither_end_and_a_dummy_is_a_packet_of_no_bytes() {
    let (_world, mut a, mut b) = pair();
    let sa = |direction| SaConfiguration {
        tfc_bytes: if direction == Direction::Out { 900 } else { 0 },
        lifetime: Lifetime::packets(None, Some(4)),
        ..esp_number(direction, Mode::Tunnel, 1)
    };
    let out = a.nic.install_sa(sa(Direction::Out)).expect("install");
    let incoming = b.nic.install_sa(sa(Direction::In)).expect("install");
    for (turn, dummy) in [false, true, false, true, true].into_iter().enumerate() {
        let packet = packet_of(&mut a.queue, &udp(&marked(72)), Protection::Sa(out));
        let offload = if dummy { Offload::NONE.dummy() } else { Offload::NONE };
        a.queue.transmit(&mut vec![TransmitPacket { offload, ..packet }]).expect("transmit");
        let expected = if turn < 4 { Status::Ok } else { Status::HardLimit };
        assert_eq!(drain(&mut a.queue)[0].status, expected, "packet {turn}");
    }
    assert_eq!(b.receive().len(), 2, "dummies go no further");
    for state in [a.nic.query_sa(out), b.nic.query_sa(incoming)].map(|state| state.expect("query")) {
        assert_eq!((state.packets, state.bytes, state.state), (4, 200, SlotState::Expired));
    }
}
