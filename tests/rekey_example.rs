//! The example of rekeying runs: events come to a task, pairs are replaced below their limits, and no packet is lost.

#[path = "../examples/rekey/main.rs"]
mod example;

#[test]
fn pairs_are_replaced_below_their_limits_and_every_packet_arrives() {
    let done = example::run(6).expect("the example runs");
    assert_eq!(done.rekeys.len(), 6);
    for (end, event) in &done.rekeys {
        let packets = event.record.expect("no record was lost").packets;
        // Libreswan's ranges: 25 to 31.25 % of the hard limit for the initiator, 43.75 to 50 % for the responder.
        let range = [5_000..=6_250, 8_750..=10_000][*end].clone();
        assert!(range.contains(&packets), "{packets}: {done:?}");
    }
    let [(sent, received), (sent_back, received_back)] = done.packets;
    assert_eq!((received, received_back), (sent_back, sent), "{done:?}");
    assert!(sent + sent_back >= 6 * 5_000);
    assert_eq!(done.slots, [2, 2], "one pair is left at each end");
}
