//! 3, continued: the limits that a key has by itself: the end of its sequence numbers, and 2^32 uses with an ICV of 8 bytes.

use cryptonic_driver::{
    Direction, EventCause, Lifetime, Mode, Protection, SaConfiguration, SlotState, Status,
};
use cryptonic_hwmodel::{Parameters, World};

use crate::limits::frames;
use crate::rig::{End, esp_number, pair, send_all};

#[test]
fn an_inbound_sa_takes_the_last_sequence_number_and_none_behind_it() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let (world, mut a, mut b) = pair();
        let sa =
            |direction| SaConfiguration { esn, sequence: last - 2, ..esp_number(direction, Mode::Tunnel, 1) };
        let out = a.nic.install_sa(sa(Direction::Out)).expect("install");
        let incoming = b.nic.install_sa(sa(Direction::In)).expect("install");
        world.record_drops(b.id);
        let ends = send_all(&mut a.queue, &frames(4), Protection::Sa(out));
        let exhausted = Status::SequenceExhausted;
        let statuses: Vec<_> = ends.iter().map(|end| end.status).collect();
        assert_eq!(statuses, [Status::Ok, Status::Ok, exhausted, exhausted]);
        let sequences: Vec<_> = b.receive().iter().map(|(heard, _)| heard.sequence).collect();
        assert_eq!(sequences, [last - 1, last]);
        let state = b.nic.query_sa(incoming).expect("query");
        assert!(state.causes.contains(EventCause::SequenceHard), "{state:?}");
        // What comes again is a replay, and what would come next is none of this SA's.
        for frame in a.wire.take() {
            world.inject(b.id, &frame);
            let mut next = frame.clone();
            next[38..42].copy_from_slice(&1_u32.to_be_bytes());
            world.inject(b.id, &next);
        }
        assert_eq!(b.receive(), []);
        let drops = world.take_drops(b.id);
        assert!(
            drops.iter().all(|status| {
                matches!(status, Status::ReplayDuplicate | Status::ReplayBelowWindow | Status::BadSequence)
            }),
            "{drops:?}"
        );
        assert_eq!(drops.len(), 4);
    }
}

#[test]
fn a_key_with_an_icv_of_8_bytes_protects_2_to_the_32_packets() {
    for limit in [None, Some((1 << 32) + 5), Some((1 << 32) - 1)] {
        let passes = if limit == Some((1 << 32) - 1) { 2 } else { 3 };
        let world = World::new(1);
        let mut a = End::new(&world, &Parameters::default());
        let sa = SaConfiguration {
            esn: true,
            packets: (1 << 32) - 3,
            lifetime: Lifetime::packets(None, limit),
            icv_bytes: 8,
            ..esp_number(Direction::Out, Mode::Tunnel, 1)
        };
        let sa = a.nic.install_sa(sa).expect("install");
        let ends = send_all(&mut a.queue, &frames(6), Protection::Sa(sa));
        let refused = ends.iter().filter(|end| end.status == Status::HardLimit).count();
        assert_eq!((a.wire.frames().len(), refused), (passes, 6 - passes), "{limit:?}");
        let state = a.nic.query_sa(sa).expect("query");
        assert_eq!(state.state, SlotState::Expired);
        assert_eq!(state.causes.contains(EventCause::HardIcv8), passes == 3);
    }
}

#[test]
fn of_an_icv_of_8_bytes_wrong_ones_count_on_receive_too() {
    for wrong in 0..5 {
        let (world, mut a, mut b) = pair();
        let sa = |direction, packets| SaConfiguration {
            packets,
            icv_bytes: 8,
            ..esp_number(direction, Mode::Tunnel, 1)
        };
        let out = a.nic.install_sa(sa(Direction::Out, 0)).expect("install");
        let incoming = b.nic.install_sa(sa(Direction::In, (1 << 32) - 3)).expect("install");
        // A frame that is never received has its ICV broken, `wrong` times.
        let (_other_world, mut other, _) = pair();
        let forger = other.nic.install_sa(sa(Direction::Out, 0)).expect("install");
        send_all(&mut other.queue, &frames(1), Protection::Sa(forger));
        let mut forged = other.wire.take().remove(0);
        *forged.last_mut().expect("bytes") ^= 1;
        for _ in 0..wrong {
            world.inject(b.id, &forged);
            assert_eq!(b.receive(), []);
        }
        world.record_drops(b.id);
        send_all(&mut a.queue, &frames(5), Protection::Sa(out));
        let passes = 3_usize.saturating_sub(wrong);
        assert_eq!(b.receive().len(), passes, "{wrong} wrong ICVs");
        assert_eq!(world.take_drops(b.id), vec![Status::ReceiveHardLimit; 5 - passes]);
        let state = b.nic.query_sa(incoming).expect("query");
        assert_eq!((state.state, state.icv_failures), (SlotState::Expired, wrong as u64));
    }
}
