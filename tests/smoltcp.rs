//! The example of a TCP/IP stack on the driver runs, and everything that TCP sent went through ESP.

#[path = "../examples/smoltcp/main.rs"]
mod example;

#[test]
fn an_echo_server_answers_through_esp() {
    let exchanged = example::run(300_000).expect("the example runs");
    assert_eq!((exchanged.bytes, exchanged.refused), (300_000, 0));
    // 300 000 bytes at 1423 a packet (MTU less IP and TCP headers), each way, beside acknowledgements.
    assert!(exchanged.opened.iter().all(|packets| *packets >= 300_000 / 1423), "{exchanged:?}");
}
