//! The life of SAs: limits, the notice of them, and the next key in time.

use cryptonic_regs::Status;
use cryptonic_regs::events::{Event, EventCause, SlotState};

use super::admin::{inbound, limited, outbound, tunnel};
use super::events::Events;
use super::queue::Protection;
use super::{A, B, BACK_SPI, COOKIE, End, Opens, Outcome, SALT, SPI, Told, clear_frame, key_of};

/// One tunnel from its first packet to its last, and the next one in time.
pub(super) fn rekey(a: &mut End, b: &mut End, told: &mut Told) -> Outcome<()> {
    // guide: lifetime
    // The key of this tunnel is for six packets, and notice is to come with the third.
    let old = tunnel(SPI + 1, &key_of(SPI + 1), SALT);
    let [old_incoming] = b.admin.install(&b.function, [inbound(old, 0, COOKIE)])?;
    let [old_outgoing] = a.admin.install(&a.function, [limited(outbound(old, A, B), 3, 6)])?;
    for sequence in 1..=3 {
        told.send(a, b, old_outgoing, Opens::Esp { spi: SPI + 1, sequence })?;
    }
    // Both ends count alike: IP packets in clear.
    let (here, there) =
        (a.admin.query(&a.function, old_outgoing)?, b.admin.query(&b.function, old_incoming)?);
    assert_eq!((here.packets, here.bytes), (3, told.clear_bytes(3)));
    assert_eq!((there.packets, there.bytes), (here.packets, here.bytes));
    // guide: end

    // guide: soft
    // The record names the SA and shows its counters as they were at the packet that reached the limit.
    let notice = a.event()?;
    assert_eq!(cause_of(&notice), Some(EventCause::SoftPackets));
    assert_eq!(notice.head.sa_index(), old_outgoing.index());
    assert_eq!(notice.names.generation(), old_outgoing.generation());
    assert_eq!((notice.packets, notice.sequence, notice.head.arming()), (3, 3, 0));
    // Notice is given once. Who wants another one arms the limit anew.
    a.admin.arm(&a.function, old_outgoing, 5)?;
    for sequence in 4..=5 {
        told.send(a, b, old_outgoing, Opens::Esp { spi: SPI + 1, sequence })?;
    }
    let notice = a.event()?;
    assert_eq!((cause_of(&notice), notice.head.arming()), (Some(EventCause::SoftPackets), 1));
    // guide: end

    // guide: make
    // Make: each end installs its new pair by one command. What opens is there as soon as what protects.
    let new = tunnel(SPI + 2, &key_of(SPI + 2), SALT);
    let back = tunnel(BACK_SPI, &key_of(BACK_SPI), SALT);
    let [b_incoming, b_outgoing] =
        b.admin.install(&b.function, [inbound(new, 0, COOKIE), outbound(back, B, A)])?;
    // The other end has answered that it is ready: only now is there something here that sends to it.
    let [a_incoming, a_outgoing] =
        a.admin.install(&a.function, [inbound(back, 0, COOKIE), outbound(new, A, B)])?;
    // The old SA is as good as before, up to its last packet.
    told.send(a, b, old_outgoing, Opens::Esp { spi: SPI + 1, sequence: 6 })?;
    // guide: end

    // guide: hard
    // One more descriptor named the old SA before the driver looked.
    let frame = clear_frame(told.sent.len());
    a.queue.transmit(&a.function, &frame, &Protection::Sa(old_outgoing))?;
    assert_eq!(a.completed()?.status, Status::HardLimit);
    // It was not sent and took no number. The frame is still the driver's, and leaves by the new SA.
    told.send_frame(a, b, a_outgoing, frame, Opens::Esp { spi: SPI + 2, sequence: 1 })?;
    assert_eq!(cause_of(&a.event()?), Some(EventCause::HardPackets));
    // guide: end
    told.send(b, a, b_outgoing, Opens::Esp { spi: BACK_SPI, sequence: 1 })?;

    // guide: break
    // Break: nothing here names the old SA any more, so it goes. It has ended by itself too.
    assert_eq!(a.admin.query(&a.function, old_outgoing)?.head.state(), SlotState::Expired.number() as u8);
    a.admin.delete(&a.function, old_outgoing)?;
    // The end that opens keeps its own until the peer has said so and nothing can be on the way.
    b.admin.delete(&b.function, old_incoming)?;
    // guide: end
    a.sas.extend([a_incoming, a_outgoing]);
    b.sas.extend([b_incoming, b_outgoing]);
    Ok(())
}

/// More happens than the ring of events has room for.
pub(super) fn overflow(a: &mut End, b: &mut End, told: &mut Told) -> Outcome<()> {
    // guide: overflow
    // Three keys for two packets each: six records, a ring of four, and nobody looks.
    let spis = [SPI + 3, SPI + 4, SPI + 5];
    let tunnels = spis.map(|spi| tunnel(spi, &key_of(spi), SALT));
    let incoming = b.admin.install(&b.function, tunnels.map(|sa| inbound(sa, 0, COOKIE)))?;
    let outgoing = a.admin.install(&a.function, tunnels.map(|sa| limited(outbound(sa, A, B), 1, 2)))?;
    for (sa, spi) in outgoing.into_iter().zip(spis) {
        for sequence in 1..=2 {
            told.send(a, b, sa, Opens::Esp { spi, sequence })?;
        }
    }
    for index in [0, 0, 1, 1] {
        assert_eq!(a.event()?.head.sa_index(), outgoing[index].index());
    }
    // The first record that was taken made room for one that says how many are missing.
    let lost = a.event()?;
    assert_eq!((cause_of(&lost), lost.detail.number()), (Some(EventCause::EventsLost), 2));
    // Nothing else is: each slot knows what happened to it.
    for (sa, status) in Events::scan(&a.function)? {
        assert!(outgoing.contains(&sa) && u32::from(status.state()) == SlotState::Expired.number());
        assert!(status.causes() >> EventCause::HardPackets.number() & 1 == 1);
        a.admin.delete(&a.function, sa)?;
    }
    // guide: end
    assert_eq!(Events::scan(&a.function)?.len(), 0);
    b.sas.extend(incoming);
    Ok(())
}

// guide: cause
/// What a record tells of; `None` is a cause of a later minor version, which is nothing to stumble over.
pub(super) fn cause_of(event: &Event) -> Option<EventCause> {
    EventCause::of_number(u32::from(event.head.cause()))
}
// guide: end
