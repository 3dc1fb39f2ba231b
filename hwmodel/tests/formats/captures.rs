//! PSP packets that failed go to a queue, as they were, and count as if they did not.

use cryptonic_pci::Time;
use cryptonic_regs::Status;
use cryptonic_regs::admin::{LifetimeKind, Mode, SaForm, SaParameters, SaProtocol, SecretWord};
use cryptonic_regs::bar0;
use cryptonic_regs::completion::ReceivedProtocol;
use cryptonic_regs::descriptor::Security;
use cryptonic_regs::psp_policy::{PSP_CAPTURE, PspCapture};

use crate::admin::{esp, limited};
use crate::psp::{HEADER, Psp};
use crate::raw::{control, extent, payload, status, tcp};

const ON: PspCapture = PspCapture::new().with_receive(true).with_transmit(true);

fn capturing(capture: PspCapture) -> Psp {
    let psp = Psp::new(|_| {});
    psp.raw.write(PSP_CAPTURE.offset, capture.into_bits());
    psp.raw.world.drain();
    psp
}

/// UDP to the port of PSP with so many bytes behind it.
fn udp_to_psp(bytes: usize) -> Vec<u8> {
    let mut frame = vec![];
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 1000)
        .write(&mut frame, &payload(bytes))
        .expect("a vector takes all");
    frame
}

#[test]
fn a_received_packet_that_fails_is_captured_as_it_was_on_the_wire_and_counted_once() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(Status, [u32; 3], Change); 9] = [
        (Status::IcvMismatch, [1, 0, 0], |frame| *frame.last_mut().expect("some") ^= 1),
        (Status::PspReservedBit, [0, 0, 1], |frame| frame[HEADER + 3] &= !1),
        (Status::PspBadVersion, [0, 0, 1], |frame| frame[HEADER + 3] = 0x3d),
        (Status::PspVersionDisabled, [0, 0, 1], |frame| frame[HEADER + 3] = 0x05),
        (Status::PspNoDeviceKey, [0, 0, 1], |frame| frame[HEADER + 4] ^= 0x80),
        (Status::ReservedSpi, [0, 0, 1], |frame| frame[HEADER + 4..HEADER + 8].fill(0)),
        (Status::PspBadHeaderLength, [0, 1, 0], |frame| frame[HEADER + 1] = 200),
        (Status::PspCryptOffsetPastEnd, [0, 1, 0], |frame| frame[HEADER + 2] = 63),
        (Status::TruncatedPsp, [0, 1, 0], |frame| {
            let header: [u8; HEADER + 16] = frame[..HEADER + 16].try_into().expect("a header");
            *frame = udp_to_psp(20);
            frame[HEADER..HEADER + 16].copy_from_slice(&header[HEADER..]);
        }),
    ];
    for (fault, faults, change) in cases {
        for on in [true, false] {
            let mut psp = capturing(if on { ON } else { ON.with_receive(false) });
            let (_, mut frame) = psp.wire(|control| control.with_psp_sample(true));
            change(&mut frame);
            psp.post(&[2_048; 4]);
            let good = psp.count(Status::Ok);
            psp.arrive(&frame);
            assert_eq!(psp.count(fault), 1, "{fault:?}, capture {on}");
            assert_eq!(psp.faults(), faults, "{fault:?}, capture {on}");
            assert_eq!(psp.count(Status::Ok), good, "{fault:?} is never counted as good");
            let received = psp.raw.received();
            assert_eq!(received.len(), usize::from(on), "{fault:?}");
            for (completion, bytes) in received {
                assert_eq!(bytes, frame, "{fault:?}: as on the wire");
                assert_eq!(status(completion.end.status()), fault);
                assert!(completion.end.copy(), "{fault:?}");
                assert_eq!((completion.completed.sa_index(), completion.sa_generation), (0, 0));
                assert_eq!(u32::from(completion.steering.protocol()), ReceivedProtocol::Psp.number());
                let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("4 bytes"));
                assert_eq!(completion.security.spi(), word(HEADER + 4), "{fault:?}");
                let iv = u64::from(word(HEADER + 8)) << 32 | u64::from(word(HEADER + 12));
                assert_eq!(completion.iv, iv, "{fault:?}");
                assert_eq!(completion.steering.psp_version(), frame[HEADER + 3] >> 2 & 0xf, "{fault:?}");
                assert_eq!(completion.steering.hash_kind(), 0);
            }
        }
    }
}

#[test]
fn a_fault_of_another_protocol_is_not_captured() {
    let mut psp = capturing(ON);
    psp.post(&[2_048; 4]);
    // The same faults, of UDP to another port and of ESP with SPI 0.
    let mut other = udp_to_psp(20);
    other[36..38].copy_from_slice(&999_u16.to_be_bytes());
    other[38] = 0xff;
    let mut esp = udp_to_psp(40);
    esp[23] = 50;
    (esp[24], esp[25]) = (0, 0);
    let checksum = esp[14..34]
        .chunks_exact(2)
        .fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let checksum = !((checksum & 0xffff) + (checksum >> 16)) as u16;
    esp[24..26].copy_from_slice(&checksum.to_be_bytes());
    esp[34..38].fill(0);
    psp.arrive(&esp);
    assert_eq!((psp.count(Status::ReservedSpi), psp.faults()), (1, [0; 3]));
    psp.arrive(&other);
    assert!(psp.raw.received().iter().all(|(completion, _)| !completion.end.copy()));
}

#[test]
fn one_packet_an_interval_is_captured_and_every_one_is_counted() {
    let mut psp = capturing(ON.with_interval_us(10));
    let (_, mut frame) = psp.wire(|control| control);
    frame[HEADER + 60] ^= 1;
    psp.post(&[2_048; 32]);
    for _ in 0..100 {
        psp.raw.world.inject(psp.raw.id, &frame);
        psp.raw.pass(Time::from_microseconds(1));
    }
    psp.raw.world.drain();
    let times: Vec<u64> =
        psp.raw.received().iter().map(|(completion, _)| completion.time_picoseconds).collect();
    assert!((9..=10).contains(&times.len()), "{times:?}");
    // The interval is between commits, which lie behind the arrivals by some cycles more or less.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] > 9_900_000), "{times:?}");
    assert_eq!((psp.count(Status::IcvMismatch), psp.faults()), (100, [100, 0, 0]));
    // A refused packet shares the interval.
    let arp = [0; 60];
    assert_eq!(psp.send(&arp, |control| control), Status::NotIp);
    let captured = psp.raw.received().len();
    psp.raw.pass(Time::from_microseconds(10));
    assert_eq!(psp.send(&arp, |control| control), Status::NotIp);
    assert_eq!((captured, psp.raw.received().len()), (0, 1));
}

#[test]
fn a_capture_without_a_buffer_or_a_queue_counts_as_what_it_is() {
    for (name, capture, posted) in
        [("no buffer", ON, 0), ("queue off", ON.with_queue(3), 4), ("no such queue", ON.with_queue(200), 4)]
    {
        let mut psp = capturing(capture);
        let (_, good) = psp.wire(|control| control);
        psp.post(&vec![2_048; posted]);
        let mut bad = good.clone();
        bad[HEADER + 60] ^= 1;
        psp.arrive(&bad);
        assert_eq!(psp.send(&[0; 60], |control| control), Status::NotIp);
        assert_eq!((psp.count(Status::IcvMismatch), psp.count(Status::NotIp)), (1, 1), "{name}");
        assert_eq!((psp.count(Status::NoBuffer), psp.count(Status::QueueOff)), (0, 0), "{name}");
        assert_eq!(psp.raw.received().len(), 0, "{name}");
        // Nothing is stuck: a good packet comes as ever.
        psp.post(&[2_048]);
        psp.arrive(&good);
        assert_eq!(psp.raw.received().len(), 1, "{name}");
    }
}

#[test]
fn captures_give_the_receive_buffer_back() {
    let mut psp = Psp::new(|parameters| parameters.mac.receive_buffer_bytes = 16_384);
    psp.raw.write(PSP_CAPTURE.offset, ON.into_bits());
    let (_, mut frame) = psp.wire(|control| control);
    frame[HEADER + 60] ^= 1;
    for _ in 0..200 {
        psp.post(&[2_048; 2]);
        psp.arrive(&frame);
        assert_eq!(psp.send(&[0; 60], |control| control), Status::NotIp);
        assert_eq!(psp.raw.received().len(), 2);
    }
    assert_eq!(psp.count(Status::ReceiveOverflow), 0);
}

#[test]
fn a_refused_packet_is_captured_as_the_host_gave_it_and_never_leaves() {
    let frame = tcp(false, &payload(100));
    type Send = fn(&mut Psp, &[u8]) -> Status;
    let cases: [(Status, u64, Send); 5] = [
        (Status::BadPspKey, 1_000_000_000_000, |psp, frame| {
            psp.key[2] = 1;
            psp.send(frame, |control| control)
        }),
        (Status::TransmitCryptOffset, 1_000_000_000_000, |psp, frame| {
            psp.send(frame, |control| control.with_psp_crypt_offset(63))
        }),
        (Status::BadPreformatted, 1_000_000_000_000, |psp, frame| {
            psp.send(frame, |control| control.with_psp_preformatted(true))
        }),
        (Status::BadDescriptor, 1_000_000_000_000, |psp, frame| {
            psp.send(frame, |control| control.with_psp_preformatted(true).with_psp_sample(true))
        }),
        (Status::PspNoEpoch, 0, |psp, frame| psp.send(frame, |control| control)),
    ];
    for (fault, epoch_ps, send) in cases {
        let mut psp = Psp::new(|parameters| parameters.crypto.psp_epoch_ps = epoch_ps);
        psp.raw.write(PSP_CAPTURE.offset, ON.into_bits());
        psp.post(&[2_048; 4]);
        assert_eq!(send(&mut psp, &frame), fault);
        assert_eq!(psp.count(fault), 1);
        assert_eq!(psp.raw.read(bar0::PSP_TRANSMITTED_ERRORS.offset), 1);
        assert!(psp.raw.sent().is_empty(), "{fault:?}: it never leaves");
        let (completion, bytes) = psp.raw.received().remove(0);
        assert_eq!((bytes, status(completion.end.status())), (frame.clone(), fault));
        assert!(completion.end.copy());
        assert_eq!((completion.security.spi(), completion.iv), (psp.spi, 0));
        // The key was in the descriptor; it is in no buffer.
        let mut buffers = vec![0; 0x8_0000];
        psp.raw.memory.read(0x20_0000, &mut buffers).expect("in range");
        let key = psp.key[0].to_le_bytes();
        assert!(buffers.windows(8).all(|bytes| bytes != key), "{fault:?}");
    }
}

/// A PSP slot that passes so many packets.
fn slot(spi: u32, hard: u64) -> SaParameters {
    let form = SaForm::new()
        .with_protocol(SaProtocol::Psp.number() as u8)
        .with_mode(Mode::Transport.number() as u8)
        .with_icv_bytes(16);
    let sa = SaParameters {
        form,
        tunnel_source_1: 0,
        tunnel_destination_1: 0,
        key_0: SecretWord::new().with_secret(7),
        ..esp(cryptonic_regs::admin::Direction::Out, spi)
    };
    limited(sa, LifetimeKind::Packets, 0, hard)
}

#[test]
fn a_packet_behind_the_hard_limit_of_a_psp_slot_is_captured_and_one_of_esp_is_not() {
    let mut psp = capturing(ON);
    let hard = 1;
    let esp = limited(esp(cryptonic_regs::admin::Direction::Out, 0x2001), LifetimeKind::Packets, 0, hard);
    let sas = psp.admin.install(&psp.raw, &[slot(0x8000_1001, hard), esp]);
    psp.post(&[2_048; 8]);
    let frame = tcp(false, &payload(64));
    let mut captured = vec![];
    for sa in [sas[0], sas[0], sas[1], sas[1]] {
        let at = psp.raw.bytes(&frame);
        let control = control(frame.len()).with_security(Security::Sa.number() as u8).into_bits();
        psp.raw.put([at, control, sa.into_bits(), extent(frame.len(), 0)], &[]);
        psp.raw.ring();
        let status = psp.raw.statuses()[0];
        captured.push((status, psp.raw.received()));
    }
    let statuses: Vec<_> = captured.iter().map(|(status, got)| (*status, got.len())).collect();
    let expected = [(Status::Ok, 0), (Status::HardLimit, 1), (Status::Ok, 0), (Status::HardLimit, 0)];
    assert_eq!(statuses, expected);
    let (completion, bytes) = &captured[1].1[0];
    assert_eq!((completion.security.spi(), bytes), (0x8000_1001, &frame));
    assert_eq!(psp.raw.sent().len(), 2, "as many as the limits let pass");
}
