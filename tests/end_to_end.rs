//! The thread through the house: driver, rings, NIC, cable, NIC, rings, driver.

use cryptonic_driver::{
    Cipher, DfPolicy, Direction, Mode, Nic, OpenOptions, OuterHeader, Protection, PspDeviceKeys, PspTransmit,
    QueuePair, QueuePairOptions, Received, ReceivedProtocol, SaConfiguration, SaHandle, SecretKey,
    SourcePort, Status, Time, TransmitPacket, Wake,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

/// One end of the cable.
struct End {
    id: NicId,
    nic: Nic,
    queue: QueuePair,
}

fn pair_of_nics() -> (World, End, End) {
    let world = World::new(1);
    let parameters = Parameters::default();
    let ids = [(); 2].map(|()| world.add_nic(&parameters).expect("the defaults are in range"));
    world.connect(ids[0], ids[1], Time::from_nanoseconds(10));
    let mut ends = ids.map(|id| {
        let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("open");
        let options = QueuePairOptions { stride: 64, clear_allowed: true, ..Default::default() };
        let queue = nic.create_queue_pair(options).expect("queue pair");
        End { id, nic, queue }
    });
    ends.reverse();
    let [b, a] = ends;
    (world, a, b)
}

fn send(end: &mut End, frame: &[u8], protection: Protection) {
    let mut buffer = end.queue.take_buffer().expect("a buffer");
    end.queue.fill(&mut buffer, frame).expect("fits");
    let mut packet = TransmitPacket::new(buffer, protection, 7);
    packet.report = true;
    assert_eq!(end.queue.transmit(&mut vec![packet]).expect("transmit"), 1);
}

fn receive(end: &mut End) -> Option<(Received, Vec<u8>)> {
    let deadline = end.queue.time() + Time::from_microseconds(100);
    let mut received = vec![];
    while end.queue.receive(&mut received, 1).expect("receive") == 0 {
        if end.queue.time() > deadline {
            return None;
        }
        end.queue.relax();
    }
    let one = received.pop()?;
    let mut bytes = vec![0; one.length()];
    end.queue.read(&one, 0, &mut bytes).expect("in range");
    Some((one, bytes))
}

/// A UDP packet over IPv4, made by an independent library.
fn udp_frame(payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678);
    let payload: Vec<u8> = (0..payload).map(|index| index as u8).collect();
    let mut frame = vec![];
    builder.write(&mut frame, &payload).expect("a vector takes all");
    frame
}

fn esp(direction: Direction, mode: Mode) -> SaConfiguration {
    SaConfiguration {
        replay_window: if direction == Direction::In { 64 } else { 0 },
        outer: (mode == Mode::Tunnel && direction == Direction::Out).then(|| OuterHeader {
            df: DfPolicy::Copy,
            ..OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
        }),
        cookie: if direction == Direction::In { 0xc00c } else { 0 },
        ..SaConfiguration::new(
            direction,
            mode,
            Cipher::AesGcm128,
            SecretKey::new(&[0x42; 16]).expect("16 bytes"),
            [1, 2, 3, 4],
            0x1001,
        )
    }
}

#[test]
fn a_register_is_read_through_driver_pci_and_model() {
    let (_world, a, _b) = pair_of_nics();
    assert_eq!(a.nic.information().contract, (4, 1));
    assert_eq!(a.nic.information().capabilities.line_rate_mbps, 100_000);
}

#[test]
fn opening_and_using_a_nic_touches_no_reserved_register() {
    let (world, mut a, mut b) = pair_of_nics();
    let before = a.nic.device_time_picoseconds().expect("device time");
    send(&mut a, &udp_frame(100), Protection::Clear);
    assert!(receive(&mut b).is_some());
    a.nic.statistics().expect("statistics");
    assert!(a.nic.device_time_picoseconds().expect("device time") > before);
    assert_eq!([a.id, b.id].map(|id| world.reserved_accesses(id)), [0, 0]);
}

#[test]
fn a_sleeping_receiver_is_woken_by_a_packet_and_by_its_deadline() {
    let (_world, mut a, mut b) = pair_of_nics();
    let sleep = Time::from_microseconds(50);
    let start = b.queue.time();
    assert_eq!(b.queue.wait(start + sleep), Ok(Wake::Deadline));
    assert!(b.queue.time() >= start + sleep);
    send(&mut a, &udp_frame(100), Protection::Clear);
    let deadline = b.queue.time() + sleep;
    assert_eq!(b.queue.wait(deadline), Ok(Wake::Interrupt));
    assert!(b.queue.time() < deadline);
    let mut received = vec![];
    assert_eq!(b.queue.receive(&mut received, 8).expect("receive"), 1);
    b.queue.return_buffers(&mut received).expect("goes back");
}

#[test]
fn a_clear_packet_crosses_rings_and_cable() {
    let (_world, mut a, mut b) = pair_of_nics();
    let frame = udp_frame(100);
    send(&mut a, &frame, Protection::Clear);
    let (received, bytes) = receive(&mut b).expect("arrives");
    assert_eq!((received.status(), received.protocol()), (Status::Ok, ReceivedProtocol::Clear));
    assert_eq!(bytes, frame);
}

fn install(a: &mut End, b: &mut End, mode: Mode) -> (SaHandle, SaHandle) {
    (
        a.nic.install_sa(esp(Direction::Out, mode)).expect("install out"),
        b.nic.install_sa(esp(Direction::In, mode)).expect("install in"),
    )
}

#[test]
fn esp_packets_are_protected_on_the_wire_and_opened_at_the_far_end() {
    for mode in [Mode::Tunnel, Mode::Transport] {
        let (world, mut a, mut b) = pair_of_nics();
        let (out, incoming) = install(&mut a, &mut b, mode);
        let wire = std::rc::Rc::new(std::cell::RefCell::new(vec![]));
        let heard = wire.clone();
        world.tap(a.id, Box::new(move |_, _, frame| heard.borrow_mut().push(frame.to_vec())));
        for (index, payload) in [0, 1, 17, 1000, 1400].into_iter().enumerate() {
            let frame = udp_frame(payload);
            send(&mut a, &frame, Protection::Sa(out));
            let (received, bytes) = receive(&mut b).expect("arrives");
            assert_eq!(bytes, frame, "{mode:?} {payload}");
            assert_eq!(received.protocol(), ReceivedProtocol::Esp);
            assert_eq!(
                (received.sequence(), received.spi(), received.cookie()),
                (index as u64 + 1, 0x1001, 0xc00c)
            );
            assert_eq!(received.sa(), Some(incoming));
            let on_wire = wire.borrow().last().cloned().expect("one frame a packet");
            let protocol = on_wire[14 + 9];
            assert_eq!(protocol, 50);
            assert!(
                payload < 8
                    || !on_wire.windows(payload.min(16)).any(|part| part == &frame[42..42 + payload.min(16)])
            );
        }
        assert_eq!(world.context_misses(a.id), 1, "the first packet alone fetches the context");
        assert_eq!(a.nic.query_sa(out).expect("query").sequence, 5);
        assert_eq!(b.nic.query_sa(incoming).expect("query").packets, 5);
    }
}

#[test]
fn a_deleted_sa_protects_and_opens_nothing() {
    let (world, mut a, mut b) = pair_of_nics();
    let (out, incoming) = install(&mut a, &mut b, Mode::Tunnel);
    b.nic.delete_sa(incoming).expect("delete");
    world.record_drops(b.id);
    send(&mut a, &udp_frame(64), Protection::Sa(out));
    assert!(receive(&mut b).is_none());
    assert_eq!(world.take_drops(b.id), [Status::NoSa]);

    a.nic.delete_sa(out).expect("delete");
    let mut done = vec![];
    a.queue.completed(&mut done).expect("completions");
    done.clear();
    send(&mut a, &udp_frame(64), Protection::Sa(out));
    a.queue.drain(a.queue.time() + Time::from_microseconds(100), &mut done).expect("drains");
    assert_eq!(done.iter().map(|one| one.status).collect::<Vec<_>>(), [Status::StaleSa]);
}

#[test]
fn a_replayed_packet_is_dropped_and_says_why() {
    let (world, mut a, mut b) = pair_of_nics();
    let (out, _) = install(&mut a, &mut b, Mode::Tunnel);
    let wire = std::rc::Rc::new(std::cell::RefCell::new(vec![]));
    let heard = wire.clone();
    world.tap(a.id, Box::new(move |_, _, frame| heard.borrow_mut().push(frame.to_vec())));
    send(&mut a, &udp_frame(64), Protection::Sa(out));
    let (first, _) = receive(&mut b).expect("arrives");
    b.queue.return_buffer(first).expect("goes back");
    world.record_drops(b.id);
    let replayed = wire.borrow()[0].clone();
    world.inject(b.id, &replayed);
    let mut tampered = replayed.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    tampered[14 + 20 + 7] = 9; // Another sequence number, so that the window lets it through.
    world.inject(b.id, &tampered);
    assert!(receive(&mut b).is_none());
    assert_eq!(world.take_drops(b.id), [Status::ReplayDuplicate, Status::IcvMismatch]);
}

#[test]
fn psp_keys_from_the_receiver_protect_packets_with_the_key_in_the_descriptor() {
    for version in [0, 1] {
        let (_world, mut a, mut b) = pair_of_nics();
        b.nic.psp_rotate().expect("rotate");
        b.nic.psp_receive(0b11, 1000).expect("receive");
        let spis = b.nic.psp_allocate(version, 2).expect("allocate");
        assert_eq!(spis.len(), 2);
        let key = a.queue.add_psp_key(version, spis[1].spi, &spis[1].key).expect("key");
        for (crypt_offset, payload) in [(0, 100), (1, 100), (2, 0), (10, 1400)] {
            let frame = udp_frame(payload);
            let psp = PspTransmit { crypt_offset, source_port: SourcePort::Entropy, ..PspTransmit::new(key) };
            send(&mut a, &frame, Protection::PspKey(psp));
            let (received, bytes) = receive(&mut b).expect("arrives");
            assert_eq!(bytes, frame);
            assert_eq!((received.protocol(), received.spi()), (ReceivedProtocol::Psp, spis[1].spi));
            assert_ne!(received.iv(), 0);
        }
    }
}

#[test]
fn test_device_keys_give_the_printed_psp_key() {
    let (_world, _a, mut b) = pair_of_nics();
    let bytes = |text: &str| <[u8; 32]>::try_from(hex::decode(text).expect("hex")).expect("32 bytes");
    let keys = PspDeviceKeys::new(
        &bytes("34448a064292601b11a0978f56a2d34cf3fc35ede1a6bc04f8db3e5243a2b0ca"),
        &bytes("563952565d3a78ae773ec1b779f2f2d99f4a7f53a6fbb9b07d5b71f39364d739"),
    );
    b.nic.psp_test_keys_load(keys).expect("load");
    b.nic.psp_test_lock().expect("lock");
    let again = PspDeviceKeys::new(&[0; 32], &[1; 32]);
    assert!(b.nic.psp_test_keys_load(again).is_err(), "locked");
}
