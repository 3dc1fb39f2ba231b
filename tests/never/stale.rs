//! 6. A stale SA reference, deleted or replaced, never encrypts or decrypts anything.

use cryptonic_driver::{Direction, Error, Mode, Protection, QueueError, SaHandle, Status, Time};
use cryptonic_hwmodel::{Parameters, World};
use cryptonic_regs::descriptor::{Security, TransmitSa};

use crate::raw::{RawQueue, control};
use crate::rig::{End, apart, drain, esp, marked, packet_of, pair_with, put_on, udp};

/// A device with one SA slot, so that a new SA takes the place of the one before.
fn one_slot() -> Parameters {
    let mut parameters = Parameters::default();
    parameters.capacity.sa_slots = 1;
    parameters
}

fn assert_stale(end: &mut End, handle: SaHandle, what: &str) {
    let before = end.wire.frames().len();
    assert_eq!(end.send(&udp(&marked(64)), Protection::Sa(handle)).status, Status::StaleSa, "{what}");
    assert_eq!(end.wire.frames().len(), before, "{what}: nothing leaves");
}

/// As [`assert_stale`], of a host without a driver's care.
fn assert_stale_by_hand(world: &World, end: &End, handle: SaHandle, what: &str) {
    let mut queue = RawQueue::new(world, end.id, 5, 32, false);
    let frame = udp(&marked(64));
    let at = queue.frame(&frame);
    let name = TransmitSa::new().with_index(handle.index).with_generation(handle.generation);
    let control = control(frame.len(), Security::Sa).into_bits();
    let words = [at, control, name.into_bits(), frame.len() as u64, 0, 0, 0, 0];
    let before = end.wire.frames().len();
    assert_eq!(queue.send(words), Some(Status::StaleSa), "{what}");
    assert_eq!(end.wire.frames().len(), before, "{what}: nothing leaves");
    queue.turn_off();
}

#[test]
fn a_reference_to_a_deleted_or_replaced_sa_protects_nothing() {
    let (world, mut a, _b) = pair_with(&one_slot());
    let first = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    assert_eq!(a.send(&udp(&marked(64)), Protection::Sa(first)).status, Status::Ok);
    a.nic.delete_sa(first).expect("delete");
    assert_stale(&mut a, first, "deleted");
    world.restart_firmware(a.id);
    assert_stale(&mut a, first, "deleted, firmware restarted");
    let mut old = vec![first];
    for key in 0x50..0x60 {
        let next = a.nic.install_sa(esp(Direction::Out, Mode::Transport, key)).expect("install");
        assert_eq!(next.index, first.index, "the same slot");
        for handle in &old {
            assert_stale(&mut a, *handle, "replaced");
        }
        assert_eq!(a.send(&udp(&marked(64)), Protection::Sa(next)).status, Status::Ok);
        a.nic.delete_sa(next).expect("delete");
        old.push(next);
    }
    // And over a reset: the new SA in the slot has a generation that none had before.
    let mut a = a.reopen(&world);
    for handle in &old {
        assert_stale_by_hand(&world, &a, *handle, "from before the reset, slot empty");
    }
    let next = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x61)).expect("install");
    for handle in &old {
        assert_stale_by_hand(&world, &a, *handle, "from before the reset, slot taken");
        // The driver itself does not take them any more.
        let mut packet = vec![packet_of(&mut a.queue, &udp(&marked(64)), Protection::Sa(*handle))];
        assert!(matches!(a.queue.transmit(&mut packet), Err(QueueError::ForeignSa)));
        a.queue.give_back(packet.remove(0).buffer).expect("back");
    }
    assert_eq!(a.send(&udp(&marked(64)), Protection::Sa(next)).status, Status::Ok);
    assert!(!a.wire.shows_marker());
}

#[test]
fn a_guessed_reference_protects_nothing() {
    let (_world, mut a, _b) = apart();
    let sa = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    for (index, generation) in [
        (sa.index, 0),
        (sa.index, sa.generation + 1),
        (sa.index, sa.generation.wrapping_sub(1)),
        (sa.index, u32::MAX),
        (sa.index, sa.generation | 1 << 31),
        (sa.index + 1, sa.generation),
        (sa.index + 1, 0),
        (2048, sa.generation),
        (0xff_ffff, sa.generation),
    ] {
        let mut guessed = sa;
        (guessed.index, guessed.generation) = (index, generation);
        assert_stale(&mut a, guessed, &format!("{index} {generation}"));
    }
}

#[test]
fn a_stale_handle_neither_queries_nor_deletes_its_successor() {
    let (_world, mut a, _b) = pair_with(&one_slot());
    let first = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    a.nic.delete_sa(first).expect("delete");
    let second = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x43)).expect("install");
    assert!(matches!(a.nic.query_sa(first), Err(Error::UnknownSa)));
    assert!(matches!(a.nic.delete_sa(first), Err(Error::UnknownSa)));
    assert_eq!(a.send(&udp(&marked(64)), Protection::Sa(second)).status, Status::Ok);
}

#[test]
fn packets_under_way_when_their_sa_is_replaced_never_take_the_new_one() {
    // At whatever moment the deletion comes.
    for relaxes in 0..60 {
        let (_world, mut a, _b) = pair_with(&one_slot());
        let first = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
        for cookie in 0..32 {
            put_on(&mut a.queue, &udp(&marked(600)), Protection::Sa(first), cookie);
        }
        for _ in 0..relaxes {
            a.nic.relax();
        }
        a.nic.delete_sa(first).expect("delete");
        a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x43)).expect("install");
        let done = drain(&mut a.queue);
        assert_eq!(done.iter().map(|end| end.packets).sum::<u32>(), 32);
        for frame in a.wire.frames() {
            assert_eq!(frame[34..38], 0x1042_u32.to_be_bytes(), "under the first SA, or not at all");
        }
    }
}

#[test]
fn a_deleted_or_replaced_sa_opens_nothing_at_whatever_moment_the_deletion_comes() {
    let mut arrived = 0;
    for nanoseconds in (0..24_000).step_by(300) {
        let (world, mut a, mut b) = pair_with(&one_slot());
        let out = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
        let incoming = b.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x42)).expect("install");
        world.record_drops(b.id);
        for cookie in 0..32 {
            put_on(&mut a.queue, &udp(&marked(600)), Protection::Sa(out), cookie);
        }
        let deadline = b.nic.time() + Time::from_nanoseconds(nanoseconds);
        let _ = b.queue.wait(deadline);
        b.nic.delete_sa(incoming).expect("delete");
        // Another SA takes slot and SPI.
        let mut other = esp(Direction::In, Mode::Tunnel, 0x43);
        other.spi = 0x1042;
        b.nic.install_sa(other).expect("install");
        let heard = b.receive();
        world.drain();
        for (one, _) in &heard {
            assert_eq!(one.status, Status::Ok);
        }
        arrived += heard.len();
        let drops = world.take_drops(b.id);
        let expected = [Status::NoSa, Status::SaDeleted, Status::IcvMismatch];
        assert!(drops.iter().all(|status| expected.contains(status)), "{drops:?}");
        assert_eq!(heard.len() + drops.len(), 32, "each packet ends");
    }
    assert!(arrived > 0);
}

#[test]
fn after_a_reset_nothing_of_before_opens() {
    let (world, mut a, mut b) = apart();
    let out = a.nic.install_sa(esp(Direction::Out, Mode::Tunnel, 0x42)).expect("install");
    b.nic.install_sa(esp(Direction::In, Mode::Tunnel, 0x42)).expect("install");
    a.send(&udp(&marked(64)), Protection::Sa(out));
    let frame = a.wire.take().remove(0);
    // On its way into the NIC as the reset comes, and after it.
    world.inject(b.id, &frame);
    let mut b = b.reopen(&world);
    world.record_drops(b.id);
    world.inject(b.id, &frame);
    assert_eq!(b.receive(), []);
    assert_eq!(world.take_drops(b.id), [Status::NoSa]);
}
