//! The same calls on the same seed give the same frames, whether the model is in this process or in another.

use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use cryptonic_driver::{
    Cipher, DfPolicy, Direction, Host, Mode, Nic, OuterHeader, Protection, PspDeviceKeys, PspTransmit,
    QueuePair, ReceivedProtocol, SaConfiguration, SecretKey, SourcePort, Time, Wake,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

use crate::rig::{PATIENCE, Server, patient, queue_pair, send, udp_frame};

/// A reset does not set the clock of IVs back, so each driver begins above the last.
const FIRST_IVS: [u64; 2] = [1, 1000];

/// The line that a NIC's cable leads to.
enum Line {
    Here(World, NicId),
    There(UnixDatagram),
}

impl Line {
    /// The next frame that left.
    fn take(&self, nic: &Nic) -> Vec<u8> {
        match self {
            Line::Here(world, id) => loop {
                if let Some(frame) = world.take_sent(*id).pop() {
                    return frame;
                }
                nic.relax();
            },
            Line::There(socket) => {
                let mut frame = vec![0; 16_384];
                let bytes = socket.recv(&mut frame).expect("a frame leaves");
                frame.truncate(bytes);
                frame
            }
        }
    }

    fn put(&self, frame: &[u8]) {
        match self {
            Line::Here(world, id) => world.inject(*id, frame),
            Line::There(socket) => drop(socket.send(frame).expect("the server takes it")),
        }
    }
}

fn esp(direction: Direction, mode: Mode, spi: u32) -> SaConfiguration {
    let tunnel = mode == Mode::Tunnel && direction == Direction::Out;
    SaConfiguration {
        replay_window: if direction == Direction::In { 64 } else { 0 },
        outer: tunnel.then(|| OuterHeader {
            df: DfPolicy::Copy,
            ..OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())
        }),
        ..SaConfiguration::new(
            direction,
            mode,
            Cipher::AesGcm256,
            SecretKey::new(&[spi as u8; 32]).expect("32 bytes"),
            [1, 2, 3, 4],
            spi,
        )
    }
}

/// Sends a frame, hears it on the line, sends it back, sleeps until it is there, and compares. Gives what was on the line.
fn there_and_back(
    nic: &Nic,
    queue: &mut QueuePair,
    line: &Line,
    protection: Protection,
    protocol: ReceivedProtocol,
) -> Vec<Vec<u8>> {
    let mut heard = vec![];
    for payload in [0, 1, 17, 100, 1000, 1400] {
        let frame = udp_frame(payload);
        send(queue, &frame, protection).expect("taken");
        let on_line = line.take(nic);
        let clear = protection == Protection::Clear;
        let hidden = payload < 100 || !on_line.windows(16).any(|part| part == &frame[60..76]);
        assert!(clear || hidden, "nothing of the payload is on the line");
        line.put(&on_line);
        let mut received = vec![];
        while queue.receive(&mut received, 1).expect("receive") == 0 {
            let deadline = queue.time() + Time::from_milliseconds(30_000);
            assert_eq!(queue.wait(deadline), Ok(Wake::Interrupt), "{protocol:?} {payload}");
        }
        let one = received.pop().expect("one");
        assert_eq!(one.protocol(), protocol);
        let mut bytes = vec![0; one.length()];
        queue.copy_out(one, &mut bytes).expect("fits");
        assert_eq!(bytes[..frame.len()], frame, "{protocol:?} {payload}");
        heard.push(on_line);
    }
    heard
}

/// Opens a NIC, sends what it can protect, and closes it.
fn every_protection(host: Box<dyn Host>, line: &Line, first_iv: u64) -> Vec<Vec<u8>> {
    let mut nic = Nic::open(host, patient()).expect("open");
    let nic = &mut nic;
    let mut queue = queue_pair(nic);
    let mut heard = there_and_back(nic, &mut queue, line, Protection::Clear, ReceivedProtocol::Clear);
    for (mode, spi) in [(Mode::Transport, 0x1001), (Mode::Tunnel, 0x1002)] {
        let out = nic.install_sa(esp(Direction::Out, mode, spi)).expect("install out");
        nic.install_sa(esp(Direction::In, mode, spi)).expect("install in");
        heard.extend(there_and_back(nic, &mut queue, line, Protection::Sa(out), ReceivedProtocol::Esp));
    }
    nic.psp_test_keys_load(PspDeviceKeys::new(&[0x11; 32], &[0x22; 32])).expect("device keys");
    nic.psp_test_iv_load(first_iv).expect("IVs above those that were used");
    nic.psp_receive(0b11, 1000).expect("PSP is received");
    for version in [0, 1] {
        let spi = nic.psp_allocate(version, 1).expect("a key").remove(0);
        let key = queue.add_psp_key(version, spi.spi, &spi.key).expect("room for it");
        let psp = PspTransmit { crypt_offset: 1, source_port: SourcePort::Entropy, ..PspTransmit::new(key) };
        let protection = Protection::PspKey(psp);
        heard.extend(there_and_back(nic, &mut queue, line, protection, ReceivedProtocol::Psp));
    }
    queue.close().expect("closes");
    heard
}

#[test]
fn what_is_on_the_line_is_the_same_in_one_process_and_in_two() {
    let world = World::new(1);
    let id = world.add_nic(&Parameters::default()).expect("the defaults are in range");
    let line = Line::Here(world.clone(), id);
    // One driver after another: each finds the NIC as after power-on, but for its clock.
    let here = FIRST_IVS.map(|first_iv| every_protection(world.host(id), &line, first_iv));
    assert_eq!(here[0].len(), 5 * 6);

    for clock in ["free", "wall"] {
        let directory = tempfile::tempdir().expect("a directory");
        let [near, far] = ["near", "far"].map(|name| directory.path().join(name));
        let socket = UnixDatagram::bind(&far).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
        let link = format!("dgram:{},{}", near.display(), far.display());
        let server = Server::start_in(directory, &["--clock", clock, "--link", &link]);
        socket.connect(&near).expect("the server's end");
        let line = Line::There(socket);
        for (first_iv, here) in FIRST_IVS.into_iter().zip(&here) {
            let there = every_protection(Box::new(server.attach()), &line, first_iv);
            assert_eq!(there.len(), here.len());
            for (index, (there, here)) in there.iter().zip(here).enumerate() {
                assert_eq!(there, here, "frame {index}, clock {clock}");
            }
            let started = Instant::now();
            while server.mappings_of("cryptonic-dma") > 0 {
                assert!(started.elapsed() < PATIENCE, "a client that is gone leaves nothing mapped");
            }
        }
    }
}
