//! The life of PSP device keys through driver and NIC: SPIs of the key before, rotation by period, the low-water mark,
//! captures and samples on a queue pair of their own, the eight counters, the epoch of the IV clock.

use std::time::Duration;

use cryptonic_driver::{
    AdminStatus, Error, Event, EventCause, EventOptions, EventStream, Nic, OpenOptions, Protection,
    PspCaptureOptions, PspSamplingOptions, PspSpi, PspStatistics, PspTransmit, QueuePair, QueuePairOptions,
    Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

const VERSION: u8 = 1;
const PSP_PORT: u16 = 1000;
/// Ethernet, IPv4, UDP: what stands before the PSP header of a frame in transport mode.
const OUTER: usize = 14 + 20 + 8;
/// Of the PSP header: fixed octets, SPI, IV.
const TO_END_OF_IV: usize = 16;
const ICV: usize = 16;
const COPIES: u32 = 1;

struct End {
    id: NicId,
    nic: Nic,
    queue: QueuePair,
    copies: QueuePair,
    events: EventStream,
}

impl End {
    fn new(world: &World) -> End {
        End::with(world, &Parameters::default())
    }

    fn with(world: &World, parameters: &Parameters) -> End {
        let id = world.add_nic(parameters).expect("in range");
        let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("open");
        let options = QueuePairOptions { stride: 64, ..QueuePairOptions::default() };
        let queue = nic.create_queue_pair(QueuePairOptions { index: Some(0), ..options }).expect("queue");
        let options = QueuePairOptions { index: Some(COPIES), copies: true, ..options };
        let copies = nic.create_queue_pair(options).expect("queue");
        let events = nic.open_events(EventOptions::default()).expect("events");
        End { id, nic, queue, copies, events }
    }

    fn event(&mut self) -> Event {
        let deadline = self.nic.time() + Time::from_milliseconds(100);
        self.events.wait(deadline).expect("wait").expect("an event in time")
    }

    fn allocate(&mut self) -> PspSpi {
        self.nic.psp_allocate(VERSION, 1).expect("allocate").remove(0)
    }
}

/// A receiver whose keys are asked about, and the sender that uses them. No cable: the test carries the frames.
struct Rig {
    world: World,
    sender: End,
    receiver: End,
}

/// What came: status, SPI, whether it is a copy, bytes.
type Came = (Status, u32, bool, Vec<u8>);

impl Rig {
    fn new() -> Rig {
        let world = World::new(1);
        let (sender, mut receiver) = (End::new(&world), End::new(&world));
        world.record_drops(receiver.id);
        receiver.nic.psp_receive(1 << VERSION, PSP_PORT).expect("receive");
        Rig { world, sender, receiver }
    }

    /// Protects a frame by an SPI of the receiver. Gives what left.
    fn protect(&mut self, spi: &PspSpi, frame: &[u8], sample: bool, drop: bool) -> Vec<u8> {
        let (status, sent) = self.send(spi, frame, |psp| PspTransmit { sample, drop, ..psp });
        assert_eq!(status, Status::Ok);
        sent.expect("it left")
    }

    fn send(
        &mut self,
        spi: &PspSpi,
        frame: &[u8],
        change: impl FnOnce(PspTransmit) -> PspTransmit,
    ) -> (Status, Option<Vec<u8>>) {
        let End { id, queue, .. } = &mut self.sender;
        let key = queue.add_psp_key(spi.version, spi.spi, &spi.key).expect("a key");
        let mut buffer = queue.take_buffer().expect("a buffer");
        queue.fill(&mut buffer, frame).expect("fits");
        let packet = TransmitPacket::new(buffer, Protection::PspKey(change(PspTransmit::new(key))), 0);
        queue.transmit(&mut vec![TransmitPacket { report: true, ..packet }]).expect("transmit");
        self.world.drain();
        let mut done = vec![];
        queue.completed(&mut done).expect("completed");
        queue.remove_psp_key(key).expect("the key is there");
        (done[0].status, self.world.take_sent(*id).pop())
    }

    /// Has a frame arrive at the receiver. Gives what came to its queue, and to the one of copies.
    fn arrive(&mut self, frame: &[u8]) -> [Vec<Came>; 2] {
        self.world.inject(self.receiver.id, frame);
        self.world.drain();
        let End { queue, copies, .. } = &mut self.receiver;
        [taken(queue), taken(copies)]
    }

    /// Whether a packet of the SPI is opened, and if not, why.
    fn opens(&mut self, spi: &PspSpi) -> Result<(), Status> {
        let clear = clear_frame(100);
        let frame = self.protect(spi, &clear, false, false);
        let [own, copies] = self.arrive(&frame);
        assert_eq!(copies, []);
        match (&own[..], self.world.take_drops(self.receiver.id).pop()) {
            ([came], None) => {
                assert_eq!(came, &(Status::Ok, spi.spi, false, clear));
                Ok(())
            }
            ([], Some(reason)) => Err(reason),
            other => panic!("{other:?}"),
        }
    }
}

fn taken(queue: &mut QueuePair) -> Vec<Came> {
    let mut received = vec![];
    queue.receive(&mut received, 64).expect("receive");
    let copy = |one: cryptonic_driver::Received| {
        let (status, spi, is_copy) = (one.status(), one.spi(), one.is_copy());
        let mut bytes = vec![0; one.length()];
        queue.copy_out(one, &mut bytes).expect("in range");
        (status, spi, is_copy, bytes)
    };
    received.into_iter().map(copy).collect()
}

/// UDP over IPv4 with so many bytes.
fn clear_frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![];
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678)
        .write(&mut frame, &vec![0x5a; bytes])
        .expect("a vector takes all");
    frame
}

#[test]
fn spis_of_the_key_before_are_open_and_after_a_second_rotation_they_are_not() {
    let mut rig = Rig::new();
    let generation = rig.receiver.nic.psp_rotate().expect("rotate");
    let old = rig.receiver.allocate();
    assert_eq!((old.generation, rig.opens(&old)), (generation, Ok(())));
    // One rotation: new SPIs are of the other key, and both are open.
    rig.receiver.nic.psp_rotate().expect("rotate");
    let new = rig.receiver.allocate();
    assert_eq!((new.spi ^ old.spi) >> 31, 1, "the top bit says which key");
    assert_eq!((new.generation, rig.opens(&old), rig.opens(&new)), (generation + 1, Ok(()), Ok(())));
    // Two: the place of the first key has another one.
    rig.receiver.nic.psp_rotate().expect("rotate");
    assert_eq!((rig.opens(&old), rig.opens(&new)), (Err(Status::IcvMismatch), Ok(())));
    for turn in 0..3 {
        let event = rig.receiver.event();
        let record = event.record.expect("no record was lost");
        assert_eq!(event.cause, EventCause::PspRotatedByCommand);
        assert_eq!((event.sa, record.number), (None, u32::from(generation) + turn));
    }
}

#[test]
fn a_period_rotates_and_each_rotation_is_told() {
    let mut rig = Rig::new();
    let first = rig.receiver.nic.psp_rotate().expect("rotate");
    assert_eq!(rig.receiver.event().cause, EventCause::PspRotatedByCommand);
    let period = Duration::from_millis(2);
    rig.receiver.nic.psp_set_rotation(Some(period), false).expect("period");
    let mut times = vec![];
    let mut active = rig.receiver.nic.psp_key_status().expect("status").active();
    for turn in 1..=4 {
        let event = rig.receiver.event();
        let record = event.record.expect("no record was lost");
        assert_eq!((event.cause, event.sa), (EventCause::PspRotatedByPeriod, None));
        assert_eq!(record.number, u32::from(first) + turn);
        let status = rig.receiver.nic.psp_key_status().expect("status");
        assert_ne!(status.active(), active, "they take turns");
        active = status.active();
        times.push(record.time_picoseconds);
    }
    for pair in times.windows(2) {
        let apart = Duration::from_nanos((pair[1] - pair[0]) / 1000);
        assert!(apart >= period && apart < period + Duration::from_micros(100), "{apart:?}");
    }
    // Off is off.
    rig.receiver.nic.psp_set_rotation(None, false).expect("off");
    let deadline = rig.receiver.nic.time() + Time::from_milliseconds(10);
    assert_eq!(rig.receiver.events.wait(deadline).expect("wait"), None);
}

#[test]
fn a_key_without_spis_left_refuses_or_is_rotated_as_the_host_wants_it() {
    let world = World::new(1);
    let mut parameters = Parameters::default();
    parameters.crypto.psp_spis_per_key = 5;
    let mut end = End::with(&world, &parameters);
    end.nic.psp_rotate().expect("rotate");
    assert_eq!(end.event().cause, EventCause::PspRotatedByCommand);
    // Fewer than 2^24 are few.
    end.nic.psp_allocate(VERSION, 4).expect("allocate");
    assert_eq!(end.event().cause, EventCause::PspSpiLow);
    for _ in 0..2 {
        let refused = end.nic.psp_allocate(VERSION, 2);
        assert!(matches!(refused, Err(Error::Refused { status: AdminStatus::NoSpiLeft, .. })), "{refused:?}");
    }
    assert_eq!(end.event().cause, EventCause::PspSpiExhausted, "told once a key");
    let last = end.nic.psp_allocate(VERSION, 1).expect("the last one");
    assert_eq!((end.events.next().expect("next"), end.nic.psp_spis_remaining().expect("read")), (None, 0));

    end.nic.psp_set_rotation(None, true).expect("rotation on exhaustion");
    let generation = end.nic.psp_key_status().expect("status").generation();
    let next = end.nic.psp_allocate(VERSION, 2).expect("by the next key");
    assert_eq!(next[0].generation, generation + 1);
    assert_ne!(next[0].spi >> 31, last[0].spi >> 31, "the other device key");
    let causes = [end.event().cause, end.event().cause];
    assert_eq!(causes, [EventCause::PspRotatedByExhaustion, EventCause::PspSpiLow]);
    assert_eq!(end.nic.psp_spis_remaining().expect("read"), 3);
}

#[test]
fn few_spis_left_are_told_once_for_each_device_key() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.receiver.nic.psp_rotate().expect("rotate");
        let _rotated = rig.receiver.event();
        let whole = rig.receiver.nic.psp_spis_remaining().expect("remaining");
        assert_eq!(whole, (1 << 31) - 1, "an SPI whose low 31 bits are 0 is none");
        rig.receiver.nic.psp_set_low_water(whole - 10).expect("low water");
        let before = rig.receiver.nic.psp_allocate(VERSION, 9).expect("allocate");
        assert_eq!(rig.receiver.events.next().expect("next"), None, "one is left above the mark");
        let after = rig.receiver.nic.psp_allocate(VERSION, 3).expect("allocate");
        let event = rig.receiver.event();
        assert_eq!(event.cause, EventCause::PspSpiLow);
        let left = event.record.expect("no record was lost").number;
        assert!((whole - 12..=whole - 10).contains(&left), "{left} of {whole}");
        rig.receiver.nic.psp_allocate(VERSION, 5).expect("allocate");
        assert_eq!(rig.receiver.events.next().expect("next"), None, "told once");
        assert_eq!(rig.receiver.nic.psp_spis_remaining().expect("remaining"), whole - 17);
        let mut spis: Vec<u32> = before.iter().chain(&after).map(|one| one.spi).collect();
        spis.dedup();
        assert!(spis.is_sorted() && spis.len() == 12, "each SPI is given once: {spis:x?}");
    }
}

#[test]
fn captures_and_samples_come_to_the_queue_of_copies_and_no_capture_is_good() {
    let mut rig = Rig::new();
    rig.receiver.nic.psp_rotate().expect("rotate");
    let capture = PspCaptureOptions { queue: COPIES as u8, receive: true, transmit: true, interval_us: 0 };
    rig.receiver.nic.psp_set_capture(Some(capture)).expect("capture");
    rig.sender.nic.psp_set_capture(Some(capture)).expect("capture");
    let sampling = PspSamplingOptions { queue: COPIES as u8, copies: true, drop: true, interval_us: 0 };
    rig.receiver.nic.psp_set_sampling(Some(sampling)).expect("sampling");
    let spi = rig.receiver.allocate();
    let clear = clear_frame(300);

    // (S, D, to its own queue, copies)
    for (sample, drop, delivered, copies) in
        [(false, false, 1, 0), (true, false, 1, 1), (true, true, 0, 1), (false, true, 0, 0)]
    {
        let frame = rig.protect(&spi, &clear, sample, drop);
        let [own, copied] = rig.arrive(&frame);
        assert_eq!((own.len(), copied.len()), (delivered, copies), "S {sample}, D {drop}");
        assert!(own.iter().all(|came| came == &(Status::Ok, spi.spi, false, clear.clone())));
        assert!(copied.iter().all(|came| came == &(Status::Ok, spi.spi, true, clear.clone())));
    }

    let good = rig.protect(&spi, &clear, false, false);
    for (status, at, bits) in [
        (Status::IcvMismatch, good.len() - 1, 1),
        (Status::PspReservedBit, OUTER + 3, 1),
        (Status::PspNoDeviceKey, OUTER + 4, 0x80),
    ] {
        let mut bad = good.clone();
        bad[at] ^= bits;
        let [own, captured] = rig.arrive(&bad);
        assert_eq!(own, [], "{status:?}");
        let [(found, _, is_copy, bytes)] = &captured[..] else { panic!("{status:?}: {captured:?}") };
        assert_eq!((*found, *is_copy, bytes), (status, true, &bad), "as it was on the wire");
    }

    // What cannot be protected comes back as the host gave it.
    let short = clear_frame(20);
    let (status, sent) = rig.send(&spi, &short, |psp| PspTransmit { crypt_offset: 63, ..psp });
    assert_eq!((status, sent), (Status::TransmitCryptOffset, None));
    assert_eq!(taken(&mut rig.sender.copies), [(status, spi.spi, true, short)]);
}

#[test]
fn the_eight_counters_count_what_the_test_made() {
    let mut rig = Rig::new();
    rig.receiver.nic.psp_rotate().expect("rotate");
    let spi = rig.receiver.allocate();
    let statistics = |end: &End| end.nic.psp_statistics().expect("statistics");
    let mut sent = PspStatistics::default();
    let mut received = PspStatistics::default();
    for bytes in [0, 1, 100, 1400] {
        let frame = rig.protect(&spi, &clear_frame(bytes), false, false);
        // From the first byte behind the IV to the last of the payload: UDP header and data of the inner packet.
        let counted = (frame.len() - OUTER - TO_END_OF_IV - ICV) as u64;
        assert_eq!(counted, 8 + bytes as u64);
        sent.transmitted_packets += 1;
        sent.transmitted_bytes += counted;
        assert_eq!(statistics(&rig.sender), sent, "{bytes}");
        let [own, _] = rig.arrive(&frame);
        assert_eq!(own.len(), 1);
        received.received_packets += 1;
        received.received_bytes += counted;
        assert_eq!(statistics(&rig.receiver), received, "{bytes}");
    }
    let good = rig.protect(&spi, &clear_frame(64), false, false);
    type Count = fn(&mut PspStatistics) -> &mut u64;
    let authentication: Count = |found| &mut found.received_authentication_failures;
    let errors: Count = |found| &mut found.received_errors;
    let bad: Count = |found| &mut found.received_bad;
    for (place, value, count) in [
        (good.len() - 1, good[good.len() - 1] ^ 1, authentication),
        (OUTER + 1, 200, errors),
        (OUTER + 2, 63, errors),
        (OUTER + 3, good[OUTER + 3] | 0xf << 2, bad),
        (OUTER + 4, good[OUTER + 4] ^ 0x80, bad),
    ] {
        let mut frame = good.clone();
        frame[place] = value;
        assert_eq!(rig.arrive(&frame), [vec![], vec![]]);
        *count(&mut received) += 1;
        assert_eq!(statistics(&rig.receiver), received, "octet {place}");
    }
    // What cannot be protected.
    let before = statistics(&rig.sender);
    let (status, _) = rig.send(&spi, &clear_frame(20), |psp| PspTransmit { crypt_offset: 63, ..psp });
    assert_eq!(status, Status::TransmitCryptOffset);
    let errors = before.transmitted_errors + 1;
    assert_eq!(statistics(&rig.sender), PspStatistics { transmitted_errors: errors, ..before });
}

#[test]
fn the_epoch_goes_forward_alone() {
    let mut rig = Rig::new();
    let nic = &mut rig.sender.nic;
    let clock = nic.psp_clock_picoseconds().expect("clock").expect("an epoch is set");
    let ahead = clock + 1_000_000_000_000;
    nic.psp_set_epoch(ahead).expect("ahead");
    for back in [ahead - 1, clock, 1] {
        let refused = nic.psp_set_epoch(back);
        assert!(matches!(refused, Err(Error::EpochRefused { .. })), "{back}: {refused:?}");
        assert!(nic.psp_clock_picoseconds().expect("clock").expect("an epoch") >= ahead, "unchanged");
    }
    // IVs are of the new epoch.
    rig.receiver.nic.psp_rotate().expect("rotate");
    let spi = rig.receiver.allocate();
    let frame = rig.protect(&spi, &clear_frame(64), false, false);
    let iv = u64::from_be_bytes(frame[OUTER + 8..OUTER + 16].try_into().expect("8 bytes"));
    assert!(iv >= ahead, "{iv} of {ahead}");
}
