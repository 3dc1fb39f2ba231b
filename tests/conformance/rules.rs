//! Rules of the contract that a driver relies on, whatever the device is behind: who it is, what an SA's life is, what a
//! reset and a crash of firmware do, when a sleeping host is woken. The cable is the test.

use cryptonic_driver::{
    Cipher, Direction, Error, EventCause, EventOptions, KeyLedger, Lifetime, Mode, Nic, OpenOptions,
    OuterHeader, Protection, PspTransmit, QueuePair, QueuePairOptions, ReceiveScalingOptions, Received,
    SaConfiguration, SaHandle, SecretKey, Status, Time, TransmitPacket, Wake,
};

use crate::bench::{Backend, Lab};
use crate::packets::{self, Shape, UDP};
use crate::{Trials, bare_trial, trial};

/// What is said of every device, and the case that holds it.
type Rule = (&'static str, fn(Backend));

const RULES: [Rule; 19] = [
    ("it says what the model in this process says of itself", identity),
    ("opening, using and closing it touches no register that is reserved", no_reserved_register),
    ("a queue without leave sends nothing in clear", no_clear_packet),
    ("a hard limit of packets passes exactly as many", hard_limit_of_packets),
    ("a hard limit of bytes refuses the packet that begins at it", hard_limit_of_bytes),
    ("a soft limit is told once", soft_limit_is_told_once),
    ("without extended numbers the SA ends at 2^32 - 1", sequence_numbers_end),
    ("a packet that is repeated or changed does not come up", replayed_and_changed),
    ("a deleted SA protects nothing, nor what takes its slot", stale_reference),
    ("an inbound SA that is deleted opens nothing", deleted_inbound),
    ("keys are gone from the device behind a delete, and behind a close", keys_are_gone),
    ("a device that is opened again has none of what it had", opened_again),
    ("a sleeping host is woken by a packet, and by its deadline", woken),
    ("firmware that crashes stops no packet and serves the next command", firmware_crashes),
    ("firmware that stalls stops no packet, and limits hold", firmware_stalls),
    ("PSP: allocated keys open what they protect until the second rotation", psp_rotation),
    ("PSP: after a reset nothing is opened before there are new keys", psp_after_reset),
    ("receive scaling spreads flows and keeps each on its queue", receive_scaling),
    ("no buffer, no loss of what comes later", no_buffers),
];

const MAC_LOOPBACK: &str = "with its MAC looped back, what it protects it opens";

/// The cases of the table.
pub fn trials(trials: &mut Trials, backend: Backend) {
    for (name, rule) in RULES {
        trials.push(trial(backend, name, move || rule(backend)));
    }
    trials.push(bare_trial(backend, MAC_LOOPBACK, move || mac_loopback(backend)));
}

/// What the cases are called.
pub fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(name, _)| *name).chain([MAC_LOOPBACK])
}

/// A device with a driver and a queue pair.
struct End {
    queue: QueuePair,
    nic: Nic,
    lab: Lab,
}

fn guarded() -> QueuePairOptions {
    QueuePairOptions { stride: 64, transmit_slots: 64, receive_slots: 64, ..QueuePairOptions::new() }
}

impl End {
    fn on(backend: Backend) -> End {
        End::with(backend, guarded(), OpenOptions::default())
    }

    fn with(backend: Backend, queue: QueuePairOptions, options: OpenOptions) -> End {
        let device = backend.devices(1).pop().expect("a device");
        let (mut nic, mut lab) = device.open_with(options);
        let queue = nic.create_queue_pair(queue).expect("queue pair");
        lab.settle();
        End { queue, nic, lab }
    }

    /// Sends a frame; how it ended, and what left.
    fn send(&mut self, frame: &[u8], protection: Protection) -> (Status, Vec<Vec<u8>>) {
        let mut buffer = self.queue.take_buffer().expect("a buffer");
        self.queue.fill(&mut buffer, frame).expect("fits");
        let packet = TransmitPacket { report: true, ..TransmitPacket::new(buffer, protection, 0) };
        assert_eq!(self.queue.transmit(&mut vec![packet]).expect("transmit"), 1);
        let mut done = vec![];
        self.queue.drain(self.queue.time() + self.lab.patience(), &mut done).expect("an end");
        self.queue.reclaim(&mut vec![]);
        self.lab.settle();
        (done.last().expect("a completion").status, self.lab.take_sent())
    }

    /// Gives a frame to the device; what came to the queue.
    fn receive(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        self.lab.inject(frame);
        self.received().pop()
    }

    /// The good frames that have come; their buffers go back.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let mut received: Vec<Received> = vec![];
        self.queue.receive(&mut received, 64).expect("receive");
        let mut frames = vec![];
        for one in &received {
            let mut bytes = vec![0; one.length()];
            self.queue.read(one, 0, &mut bytes).expect("in range");
            if one.status() == Status::Ok {
                frames.push(bytes);
            }
        }
        self.queue.return_buffers(&mut received).expect("go back");
        self.lab.settle();
        frames
    }

    fn installed(&mut self, direction: Direction) -> SaHandle {
        self.nic.install_sa(esp(direction, 0x42)).expect("a slot")
    }
}

/// An SA in tunnel mode, its key a byte repeated.
fn esp(direction: Direction, key: u8) -> SaConfiguration {
    let key = SecretKey::new(&[key; 16]).expect("16 bytes");
    SaConfiguration {
        replay_window: if direction == Direction::In { 64 } else { 0 },
        outer: (direction == Direction::Out)
            .then(|| OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())),
        ..SaConfiguration::new(direction, Mode::Tunnel, Cipher::AesGcm128, key, [1, 2, 3, 4], 0x1001)
    }
}

/// A UDP packet over IPv4 with this many bytes of UDP: 34 more as a frame, 20 more as an IP packet.
fn frame(udp_bytes: usize) -> Vec<u8> {
    packets::packet(false, Shape::Plain, UDP, udp_bytes).frame()
}

fn identity(backend: Backend) {
    let (nic, _lab) = backend.devices(1).pop().expect("a device").open();
    let (model, _) = Backend::InProcess.devices(1).pop().expect("a device").open();
    let facts = |nic: &Nic| {
        let information = nic.information();
        // Where doorbells are rung is the one matter of who serves the device.
        let capabilities: Vec<(String, u64)> = information
            .capabilities
            .iter()
            .filter(|(name, _)| *name != "shadow_doorbells")
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        (information.vendor, information.device, information.contract, capabilities)
    };
    assert_eq!(facts(&nic), facts(&model));
}

fn no_reserved_register(backend: Backend) {
    let mut end = End::on(backend);
    let out = end.installed(Direction::Out);
    assert_eq!(end.send(&frame(100), Protection::Sa(out)).0, Status::Ok);
    end.nic.statistics().expect("statistics");
    end.nic.capabilities_from_firmware().expect("firmware");
    let End { queue, nic, mut lab } = end;
    queue.close().expect("close");
    nic.close().expect("close");
    assert_eq!(lab.reserved_accesses(), 0);
}

fn mac_loopback(backend: Backend) {
    let mut end = End::on(backend);
    end.nic.set_mac_loopback(true).expect("loopback");
    let out = end.installed(Direction::Out);
    let _into = end.installed(Direction::In);
    for bytes in [8, 100, 1400] {
        let (status, left) = end.send(&frame(bytes), Protection::Sa(out));
        assert_eq!((status, left), (Status::Ok, vec![]), "nothing leaves");
        let came = end.received();
        // The L2 header is the receiver's own; the packet behind it is what was sent.
        assert_eq!(came.len(), 1);
        assert_eq!(came[0][14..], frame(bytes)[14..]);
    }
}

fn no_clear_packet(backend: Backend) {
    let mut end = End::on(backend);
    let (status, left) = end.send(&frame(100), Protection::Clear);
    assert_eq!((status, left), (Status::ClearNotAllowed, vec![]));
}

fn hard_limit_of_packets(backend: Backend) {
    for limit in [1, 5] {
        let mut end = End::on(backend);
        let sa = SaConfiguration { lifetime: Lifetime::packets(None, Some(limit)), ..esp(Direction::Out, 1) };
        let sa = end.nic.install_sa(sa).expect("a slot");
        for number in 0..limit + 3 {
            let (status, left) = end.send(&frame(64), Protection::Sa(sa));
            let passes = number < limit;
            assert_eq!((status == Status::Ok, left.len()), (passes, usize::from(passes)), "{number}");
        }
        assert_eq!(end.nic.query_sa(sa).expect("state").packets, limit);
    }
}

fn hard_limit_of_bytes(backend: Backend) {
    let mut end = End::on(backend);
    // Each packet is 100 bytes: the third begins at 200, below the limit, and the fourth at 300, past it.
    let sa = SaConfiguration { lifetime: Lifetime::bytes(None, Some(201)), ..esp(Direction::Out, 1) };
    let sa = end.nic.install_sa(sa).expect("a slot");
    let passed = (0..6).filter(|_| end.send(&frame(80), Protection::Sa(sa)).0 == Status::Ok).count();
    assert_eq!(passed, 3);
    assert_eq!(end.nic.query_sa(sa).expect("state").bytes, 300);
}

fn soft_limit_is_told_once(backend: Backend) {
    let mut end = End::on(backend);
    let mut events = end.nic.open_events(EventOptions { slots: 16, vector: None }).expect("events");
    let lifetime = Lifetime::packets(Some(3), Some(10));
    let sa = SaConfiguration { lifetime, cookie: 77, ..esp(Direction::Out, 1) };
    let sa = end.nic.install_sa(sa).expect("a slot");
    let mut told = vec![];
    for _ in 0..8 {
        end.send(&frame(64), Protection::Sa(sa));
        while let Some(event) = events.next().expect("next") {
            told.push((event.cause, event.sa, event.cookie, event.record.map(|record| record.packets)));
        }
    }
    assert_eq!(told, [(EventCause::SoftPackets, Some(sa), 77, Some(3))]);
    events.close().expect("close");
}

fn sequence_numbers_end(backend: Backend) {
    let mut end = End::on(backend);
    let sa = SaConfiguration { sequence: u64::from(u32::MAX) - 2, ..esp(Direction::Out, 1) };
    let sa = end.nic.install_sa(sa).expect("a slot");
    let mut last = vec![];
    for _ in 0..2 {
        let (status, left) = end.send(&frame(64), Protection::Sa(sa));
        assert_eq!(status, Status::Ok);
        last = left;
    }
    // RFC 4303 3.3.3: the number must not cycle. It stands behind the SPI, 34 bytes into the frame.
    assert_eq!(last[0][38..42], u32::MAX.to_be_bytes());
    let (status, left) = end.send(&frame(64), Protection::Sa(sa));
    assert!(status != Status::Ok && left.is_empty(), "{}", status.name());
}

fn replayed_and_changed(backend: Backend) {
    let mut end = End::on(backend);
    let (out, _into) = (end.installed(Direction::Out), end.installed(Direction::In));
    let packets: Vec<Vec<u8>> =
        (0..3).map(|_| end.send(&frame(64), Protection::Sa(out)).1.pop().expect("it leaves")).collect();
    // The second comes first; the first, late, is within the window.
    for (number, expected) in [(1, None), (0, None), (1, Some(Status::ReplayDuplicate)), (2, None)] {
        let came = end.receive(&packets[number]);
        assert_eq!(
            (came.is_some(), end.lab.take_drops()),
            (expected.is_none(), expected.into_iter().collect())
        );
    }
    let fresh = end.send(&frame(64), Protection::Sa(out)).1.pop().expect("it leaves");
    for at in [42, 50, fresh.len() - 1] {
        let mut changed = fresh.clone();
        changed[at] ^= 1;
        assert_eq!(end.receive(&changed), None, "byte {at}");
        assert_eq!(end.lab.take_drops(), [Status::IcvMismatch], "byte {at}");
    }
    assert!(end.receive(&fresh).is_some(), "what was refused has not used its number");
}

fn stale_reference(backend: Backend) {
    let mut end = End::on(backend);
    let old = end.installed(Direction::Out);
    end.nic.delete_sa(old).expect("deleted");
    let refused = |end: &mut End| {
        let mut buffer = end.queue.take_buffer().expect("a buffer");
        end.queue.fill(&mut buffer, &frame(64)).expect("fits");
        let packet = TransmitPacket { report: true, ..TransmitPacket::new(buffer, Protection::Sa(old), 0) };
        // The driver may refuse what the device would refuse too.
        let mut batch = vec![packet];
        if end.queue.transmit(&mut batch).is_ok() && batch.is_empty() {
            let mut done = vec![];
            end.queue.drain(end.queue.time() + end.lab.patience(), &mut done).expect("an end");
            assert_ne!(done[0].status, Status::Ok);
        }
        end.queue.reclaim(&mut vec![]);
        end.lab.settle();
        assert_eq!(end.lab.take_sent(), Vec::<Vec<u8>>::new());
    };
    refused(&mut end);
    let new = end.nic.install_sa(esp(Direction::Out, 0x43)).expect("its slot");
    refused(&mut end);
    assert_eq!(end.send(&frame(64), Protection::Sa(new)).0, Status::Ok);
}

fn deleted_inbound(backend: Backend) {
    let mut end = End::on(backend);
    let (out, into) = (end.installed(Direction::Out), end.installed(Direction::In));
    let packets: Vec<Vec<u8>> =
        (0..2).map(|_| end.send(&frame(64), Protection::Sa(out)).1.pop().expect("it leaves")).collect();
    assert!(end.receive(&packets[0]).is_some());
    end.nic.delete_sa(into).expect("deleted");
    assert_eq!(end.receive(&packets[1]), None);
    assert_eq!(end.lab.take_drops(), [Status::NoSa]);
}

/// The key stands here inverted, so that only copies of it are found.
fn keys_are_gone(backend: Backend) {
    for close in [false, true] {
        let inverted: Vec<u8> =
            (0..16).map(|index: u8| !(index.wrapping_mul(37) ^ 0x5c ^ u8::from(close))).collect();
        let mut end = End::on(backend);
        let mut key: Vec<u8> = inverted.iter().map(|byte| !byte).collect();
        let secret = SecretKey::new(&key).expect("16 bytes");
        key.fill(0);
        let sa = SaConfiguration { key: secret, ..esp(Direction::Out, 0) };
        let sa = end.nic.install_sa(sa).expect("a slot");
        assert_eq!(end.send(&frame(64), Protection::Sa(sa)).0, Status::Ok);
        assert_ne!(end.lab.search(&inverted), 0, "while it is installed the device has it");
        let End { queue, mut nic, mut lab } = end;
        if close {
            queue.close().expect("close");
            nic.close().expect("close");
        } else {
            nic.delete_sa(sa).expect("deleted");
        }
        assert_eq!(lab.search(&inverted), 0);
    }
}

fn opened_again(backend: Backend) {
    let mut devices = backend.devices(1);
    let (mut nic, mut lab) = devices.remove(0).open();
    for turn in 0..3 {
        let queue = nic.create_queue_pair(guarded()).expect("queue pair");
        lab.settle();
        let mut end = End { queue, nic, lab };
        let out = SaConfiguration { spi: 0x100 + turn, ..esp(Direction::Out, 0x50 + turn as u8) };
        let out = end.nic.install_sa(out).expect("a slot");
        let (status, left) = end.send(&frame(64), Protection::Sa(out));
        assert_eq!((status, left.len()), (Status::Ok, 1));
        // What an earlier turn had installed opens nothing now.
        assert_eq!(end.receive(&left[0]), None);
        assert_eq!(end.lab.take_drops(), [Status::NoSa]);
        let End { queue, nic: old, lab: mut again } = end;
        queue.close().expect("close");
        old.close().expect("close");
        let host = again.attach_again();
        nic = Nic::open(host, OpenOptions { key_ledger: KeyLedger::new(), ..OpenOptions::default() })
            .expect("open");
        lab = again;
        assert!(nic.device_status().expect("status").keys_zeroised());
    }
}

fn woken(backend: Backend) {
    let mut end = End::on(backend);
    let out = end.installed(Direction::Out);
    let _into = end.installed(Direction::In);
    let packet = end.send(&frame(64), Protection::Sa(out)).1.pop().expect("it leaves");
    let nap = Time::from_milliseconds(2);
    let start = end.queue.time();
    assert_eq!(end.queue.wait(start + nap), Ok(Wake::Deadline));
    assert!(end.queue.time() >= start + nap);
    end.lab.inject(&packet);
    assert_eq!(end.queue.wait(end.queue.time() + end.lab.patience()), Ok(Wake::Interrupt));
    assert_eq!(end.received().len(), 1);
}

fn firmware_crashes(backend: Backend) {
    let mut end = End::on(backend);
    let (out, _into) = (end.installed(Direction::Out), end.installed(Direction::In));
    for turn in 0..5 {
        end.lab.restart_firmware();
        let (status, left) = end.send(&frame(64 + turn), Protection::Sa(out));
        assert_eq!(status, Status::Ok);
        assert!(end.receive(&left[0]).is_some());
        // A command under way may have ended as aborted; the next is served.
        let other = SaConfiguration { spi: 0x2000 + turn as u32, ..esp(Direction::Out, 0x60 + turn as u8) };
        let other = end.nic.install_sa(other).expect("firmware is back");
        end.nic.delete_sa(other).expect("deleted");
    }
}

fn firmware_stalls(backend: Backend) {
    let options = OpenOptions { command_timeout: Time::from_milliseconds(50), ..OpenOptions::default() };
    let mut end = End::with(backend, guarded(), options);
    let sa = SaConfiguration { lifetime: Lifetime::packets(None, Some(4)), ..esp(Direction::Out, 1) };
    let sa = end.nic.install_sa(sa).expect("a slot");
    end.lab.stop_firmware();
    let passed = (0..7).filter(|_| end.send(&frame(64), Protection::Sa(sa)).0 == Status::Ok).count();
    assert_eq!(passed, 4);
    let refused = end.nic.query_sa(sa);
    assert!(matches!(refused, Err(Error::Deadline { .. })), "{refused:?}");
    let End { queue, nic, .. } = end;
    let _ = queue.close();
    let _ = nic.close();
}

fn psp_rotation(backend: Backend) {
    let mut end = End::on(backend);
    end.nic.psp_rotate().expect("keys");
    end.nic.psp_receive(1, 1000).expect("receive");
    let key = end.nic.psp_allocate(0, 1).expect("an SPI").remove(0);
    let id = end.queue.add_psp_key(0, key.spi, &key.key).expect("room");
    for (rotations, opens) in [(0, true), (1, true), (2, false)] {
        let (status, left) = end.send(&frame(64), Protection::PspKey(PspTransmit::new(id)));
        assert_eq!(status, Status::Ok);
        assert_eq!(end.receive(&left[0]).is_some(), opens, "after {rotations} rotations");
        let drops: &[Status] = if opens { &[] } else { &[Status::IcvMismatch] };
        assert_eq!(end.lab.take_drops(), drops);
        end.nic.psp_rotate().expect("rotated");
    }
}

fn psp_after_reset(backend: Backend) {
    let mut end = End::on(backend);
    end.nic.psp_rotate().expect("keys");
    end.nic.psp_receive(1, 1000).expect("receive");
    let key = end.nic.psp_allocate(0, 1).expect("an SPI").remove(0);
    let id = end.queue.add_psp_key(0, key.spi, &key.key).expect("room");
    let packet = end.send(&frame(64), Protection::PspKey(PspTransmit::new(id))).1.remove(0);
    let End { queue, nic, mut lab } = end;
    queue.close().expect("close");
    nic.close().expect("close");
    let mut nic = Nic::open(lab.attach_again(), OpenOptions::default()).expect("open");
    let queue = nic.create_queue_pair(guarded()).expect("queue pair");
    lab.settle();
    let mut end = End { queue, nic, lab };
    assert_eq!(end.receive(&packet), None);
    assert_eq!(end.lab.take_drops().len(), 1);
    // The top bit of an SPI says which of two keys it is of: both are made anew.
    for _ in 0..2 {
        end.nic.psp_rotate().expect("keys");
    }
    end.nic.psp_receive(1, 1000).expect("receive");
    assert_eq!(end.receive(&packet), None, "new keys are other keys");
    assert_eq!(end.lab.take_drops(), [Status::IcvMismatch]);
}

fn receive_scaling(backend: Backend) {
    let clear = QueuePairOptions { clear_allowed: true, ..guarded() };
    let mut end = End::with(backend, clear, OpenOptions::default());
    let mut second = end.nic.create_queue_pair(clear).expect("queue pair");
    end.lab.settle();
    let queues = [end.queue.index(), second.index()];
    let table: Vec<u8> = (0..128).map(|entry| queues[entry % 2] as u8).collect();
    let key: [u8; 40] = std::array::from_fn(|index| (index as u8).wrapping_mul(151) ^ 0x6d);
    end.nic.configure_receive_scaling(&key, &table, ReceiveScalingOptions::default()).expect("scaling");
    let mut counts = [0; 2];
    for flow in 0..16_u16 {
        let mut of_flow = vec![];
        for size in [32, 64] {
            let mut packet = packets::packet(false, Shape::Plain, UDP, size);
            packet.source[3] = flow as u8;
            end.lab.inject(&packet.frame());
            of_flow.push((end.received().len(), drain(&mut second)));
        }
        assert!(of_flow[0] == of_flow[1] && of_flow[0].0 + of_flow[0].1 == 1, "flow {flow}: {of_flow:?}");
        counts[of_flow[0].1] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
}

fn drain(queue: &mut QueuePair) -> usize {
    let mut received = vec![];
    queue.receive(&mut received, 64).expect("receive");
    let count = received.len();
    queue.return_buffers(&mut received).expect("go back");
    count
}

fn no_buffers(backend: Backend) {
    let options = QueuePairOptions { receive_slots: 4, clear_allowed: true, ..guarded() };
    let mut end = End::with(backend, options, OpenOptions::default());
    for _ in 0..3 {
        (0..12).for_each(|_| end.lab.inject(&frame(64)));
        // Those without a buffer wait in the device or are dropped for that reason; none comes damaged.
        let mut came = 0;
        loop {
            let frames = end.received();
            if frames.is_empty() {
                break;
            }
            assert!(frames.iter().all(|one| *one == frame(64)));
            came += frames.len();
        }
        let dropped = end.lab.take_drops();
        assert!(dropped.iter().all(|status| *status == Status::NoBuffer), "{dropped:?}");
        assert_eq!(came + dropped.len(), 12);
    }
}
