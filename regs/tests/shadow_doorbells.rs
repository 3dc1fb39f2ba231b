//! Shadow doorbells: the rule of the event index, and where the counts stand.

use cryptonic_regs::bar0::QUEUE_PAIRS_MAX;
use cryptonic_regs::shadow_doorbells::{
    EventIndices, SHADOW_ALIGNMENT_LOG2, ShadowCount, ShadowDoorbells, doorbell_wanted,
};

#[test]
fn a_doorbell_is_wanted_when_the_count_passes_the_event_index() {
    const LAST: u32 = u32::MAX;
    // (event index, count before, count now, wanted)
    for (event, old, new, wanted) in [
        (0, 0, 1, true),
        (0, 0, 64, true),
        (0, 1, 2, false),
        (LAST, 0, 1, false),
        (LAST, 0, 64, false),
        (9, 10, 20, false),
        (10, 10, 20, true),
        (15, 10, 20, true),
        (19, 10, 20, true),
        (20, 10, 20, false),
        (10, 10, 10, false),
        (9, 10, 10, false),
        (LAST, LAST, 3, true),
        (2, LAST, 3, true),
        (3, LAST, 3, false),
        (LAST - 1, LAST, 3, false),
        (1 << 31, 0, 1 << 31, false),
        (1 << 31, 0, (1 << 31) + 1, true),
    ] {
        assert_eq!(doorbell_wanted(event, old, new), wanted, "event {event}, from {old} to {new}");
    }
}

#[test]
fn counts_are_the_first_words_of_a_line_and_an_array_fits_its_alignment() {
    let count = |count| ShadowCount::new().with_count(count);
    let line = ShadowDoorbells {
        transmit: count(0x1111_1111),
        receive: count(0x2222_2222),
        interrupt_arm: count(u32::MAX),
        ..Default::default()
    };
    assert_eq!(line.to_words(), [0x1111_1111, 0x2222_2222, 0xffff_ffff, 0, 0, 0, 0, 0]);
    assert_eq!((ShadowDoorbells::BYTES, EventIndices::BYTES), (64, 64));
    assert!(QUEUE_PAIRS_MAX as usize * EventIndices::BYTES <= 1 << SHADOW_ALIGNMENT_LOG2);
}
