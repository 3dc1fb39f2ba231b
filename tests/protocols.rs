//! The rules of ESP and PSP through driver, rings and NIC, beside the bytes of their forms (`tests/conformance.rs`), and what
//! must never happen to any form: a refused packet takes no number and sends nothing, a changed one is never
//! delivered, one in clear never enters where an SA was due.

#[path = "conformance/bench.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod bench;
#[path = "protocols/changed.rs"]
mod changed;
#[path = "protocols/clear.rs"]
mod clear;
#[path = "forms/packets.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod packets;
#[path = "protocols/receive.rs"]
mod receive;
#[path = "protocols/refused.rs"]
mod refused;
#[path = "forms/rig.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod rig;
#[path = "protocols/sas.rs"]
mod sas;
#[path = "forms/textbook.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod textbook;
#[path = "protocols/transmit.rs"]
mod transmit;
#[path = "forms/witness.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod witness;
