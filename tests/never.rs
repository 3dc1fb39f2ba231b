//! What must never happen: for each line, tests that try to make it happen.
//!
//! | line | what must never happen | module |
//! |---|---|---|
//! | 1 | the same key and nonce encrypt two packets | `nonces`, `key_nonces` |
//! | 2 | a packet meant to be encrypted leaves in clear; a clear one enters where an SA was due | `clear` |
//! | 3 | one packet passes a hard limit | `limits`, `limits_of_keys`; that each is told once: `events` |
//! | 4 | a replayed or unauthenticated packet reaches a receive queue marked good | `replay` |
//! | 5 | a key byte can be read back, or stays behind | `keys`, `key_ends` |
//! | 6 | a stale SA reference encrypts or decrypts anything | `stale`; one that is not valid yet: `staged` |
//! | 7 | a malicious host or packet makes the model panic or hang | `hostile`, `hostile_admin`, `hostile_packets`, `hostile_shadow` |
//!
//! `crash` has firmware crash and stall against all of them, `refused` asks for what cannot be. `tests/rekey.rs` replaces SAs
//! under traffic, `tests/esn.rs` goes through sequence numbers of 64 bits. `tests/protocols.rs` holds every form of ESP and
//! PSP to lines 1, 2 and 4.
//!
//! What is random comes from seeds that stand in the failure's message. `CRYPTONIC_LONG=1` multiplies the
//! cases.

#[path = "never/clear.rs"]
mod clear;
#[path = "never/crash.rs"]
mod crash;
#[path = "never/events.rs"]
mod events;
#[path = "never/hostile.rs"]
mod hostile;
#[path = "never/hostile_admin.rs"]
mod hostile_admin;
#[path = "never/hostile_packets.rs"]
mod hostile_packets;
#[path = "never/hostile_shadow.rs"]
mod hostile_shadow;
#[cfg(target_os = "linux")]
#[path = "never/key_ends.rs"]
mod key_ends;
#[path = "never/key_nonces.rs"]
mod key_nonces;
#[path = "never/keys.rs"]
mod keys;
#[path = "never/limits.rs"]
mod limits;
#[path = "never/limits_of_keys.rs"]
mod limits_of_keys;
#[cfg(target_os = "linux")]
#[path = "never/memory.rs"]
mod memory;
#[path = "never/nonces.rs"]
mod nonces;
#[path = "never/raw.rs"]
mod raw;
#[path = "never/refused.rs"]
mod refused;
#[path = "never/replay.rs"]
mod replay;
#[path = "never/rig.rs"]
mod rig;
#[path = "never/staged.rs"]
mod staged;
#[path = "never/stale.rs"]
mod stale;
#[path = "never/stepped.rs"]
mod stepped;
