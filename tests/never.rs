//! What must never happen: for each line, tests that try to make it happen.
//!
//! | line | what must never happen | module |
//! |---|---|---|
//! | 1 | the same key and nonce encrypt two packets | `nonces` |
//! | 2 | a packet meant to be encrypted leaves in clear; a clear one enters where an SA was due | `clear` |
//! | 3 | one packet passes a hard limit | none yet: an SA has no limits but the end of its numbers (`nonces`) |
//! | 4 | a replayed or unauthenticated packet reaches a receive queue marked good | `replay` |
//! | 5 | a key byte can be read back, or stays behind | `keys` |
//! | 6 | a stale SA reference encrypts or decrypts anything | `stale` |
//! | 7 | a malicious host or packet makes the model panic or hang | `hostile`, `hostile_admin`, `hostile_packets` |
//!
//! `tests/protocols.rs` holds every form of ESP and PSP to lines 1, 2 and 4.
//!
//! What is random comes from seeds that stand in the failure's message. `CRYPTONIC_LONG=1` multiplies the
//! cases.

#[path = "never/clear.rs"]
mod clear;
#[path = "never/hostile.rs"]
mod hostile;
#[path = "never/hostile_admin.rs"]
mod hostile_admin;
#[path = "never/hostile_packets.rs"]
mod hostile_packets;
#[path = "never/keys.rs"]
mod keys;
#[path = "never/nonces.rs"]
mod nonces;
#[path = "never/raw.rs"]
mod raw;
#[path = "never/replay.rs"]
mod replay;
#[path = "never/rig.rs"]
mod rig;
#[path = "never/stale.rs"]
mod stale;
