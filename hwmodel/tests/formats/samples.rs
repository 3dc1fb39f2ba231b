//! The bits S and D of PSP: copies of opened packets, and packets that are dropped behind their copy.

use cryptonic_pci::Time;
use cryptonic_regs::Status;
use cryptonic_regs::bar0;
use cryptonic_regs::completion::{ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd};
use cryptonic_regs::psp_policy::{PSP_SAMPLING, PspSampling};

use crate::psp::{HEADER, Psp};

const ON: PspSampling = PspSampling::new().with_enable(true);

fn sampling(sampling: PspSampling) -> Psp {
    let psp = Psp::new(|_| {});
    psp.raw.write(PSP_SAMPLING.offset, sampling.into_bits());
    psp.raw.world.drain();
    psp
}

/// A completion without what names its buffer and without `copy`.
fn content(completion: &ReceiveCompletion) -> ReceiveCompletion {
    ReceiveCompletion {
        completed: ReceiveCompleted::new().with_length(completion.completed.length()),
        end: ReceiveCompletionEnd::new()
            .with_status(completion.end.status())
            .with_next_header(completion.end.next_header()),
        ..*completion
    }
}

#[test]
fn the_bits_decide_what_is_delivered_and_what_is_copied() {
    // (S, D, sampling, delivered, copied)
    for (sample, drop, register, delivered, copied) in [
        (false, false, ON.with_drop(true), true, false),
        (true, false, ON.with_drop(true), true, true),
        (true, true, ON.with_drop(true), false, true),
        (false, true, ON.with_drop(true), false, false),
        (true, true, ON, true, true),
        (false, true, ON, true, false),
        (true, true, PspSampling::new(), true, false),
        (true, true, PspSampling::new().with_drop(true), false, false),
        (true, false, ON.with_queue(9), true, false),
    ] {
        let name = format!("S {sample}, D {drop}, {register:?}");
        let mut psp = sampling(register);
        let (frame, wire) = psp.wire(|control| control.with_psp_sample(sample).with_psp_drop(drop));
        psp.post(&[2_048; 4]);
        let good = psp.count(Status::Ok);
        let (_, before) = psp.raw.world.pcie_bytes(psp.raw.id);
        psp.arrive(&wire);
        let (_, after) = psp.raw.world.pcie_bytes(psp.raw.id);
        let received = psp.raw.received();
        let copies: Vec<bool> = received.iter().map(|(completion, _)| completion.end.copy()).collect();
        let expected: &[bool] = match (delivered, copied) {
            (true, true) => &[false, true],
            (true, false) => &[false],
            (false, true) => &[true],
            (false, false) => &[],
        };
        assert_eq!(copies, expected, "{name}");
        for (completion, bytes) in &received {
            assert_eq!((bytes, completion.end.status()), (&frame, 0), "{name}");
            assert_eq!(content(completion), content(&received[0].0), "{name}");
            assert_eq!((completion.steering.psp_sample(), completion.steering.psp_drop()), (sample, drop));
        }
        // A copy costs PCI Express what a packet does: a header and 154 bytes, a header and a completion.
        let writes = received.len() as u64;
        assert_eq!(after - before, writes * (24 + frame.len() as u64 + 24 + 64), "{name}");
        // Counted once, whatever became of it.
        assert_eq!(psp.count(Status::Ok) - good, u32::from(delivered), "{name}");
        assert_eq!(psp.count(Status::PspDropBit), u32::from(!delivered), "{name}");
        assert_eq!(psp.raw.read(bar0::PSP_RECEIVED_PACKETS.offset), 1, "{name}");
    }
}

#[test]
fn a_copy_takes_no_buffer_from_the_packet_itself_and_none_waits() {
    let mut psp = sampling(ON);
    let (frame, wire) = psp.wire(|control| control.with_psp_sample(true));
    psp.post(&[2_048]);
    psp.arrive(&wire);
    let received = psp.raw.received();
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].0.end.copy(), &received[0].1), (false, &frame));
    assert_eq!(psp.count(Status::NoBuffer), 0, "the copy is not missed");
}

#[test]
fn what_is_not_authentic_is_never_copied() {
    let mut psp = sampling(ON.with_drop(true));
    let (_, wire) = psp.wire(|control| control);
    psp.post(&[2_048; 4]);
    // Somebody on the way sets S, or D: the ICV covers them.
    for flag in [0x80, 0x40, 0xc0] {
        let mut changed = wire.clone();
        changed[HEADER + 3] |= flag;
        psp.arrive(&changed);
    }
    assert_eq!((psp.raw.received().len(), psp.count(Status::IcvMismatch)), (0, 3));
}

#[test]
fn one_copy_an_interval_is_made_and_every_packet_is_delivered() {
    let mut psp = sampling(ON.with_interval_us(10));
    let (_, wire) = psp.wire(|control| control.with_psp_sample(true));
    psp.post(&[2_048; 64]);
    for _ in 0..50 {
        psp.raw.world.inject(psp.raw.id, &wire);
        psp.raw.pass(Time::from_microseconds(1));
    }
    psp.raw.world.drain();
    let received = psp.raw.received();
    let copies = received.iter().filter(|(completion, _)| completion.end.copy()).count();
    assert_eq!((received.len() - copies, copies), (50, 5));
}
