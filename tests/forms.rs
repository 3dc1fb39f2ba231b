//! Every form of ESP and PSP × mode × families × size × descriptor format, through driver, rings and NIC, against a
//! witness that shares nothing with us: `forms/witness.rs` lays each packet out from the standards' words, and
//! `forms/textbook.rs` is AES-GCM out of the book, judged by Project Wycheproof.
//!
//! A case is one form in one mode between one pair of families; it runs through all sizes and descriptor formats.
//! `cargo test --test forms -- --list` names them; `CRYPTONIC_LONG=1` runs each with every kind of header around it.

#[path = "forms/esp.rs"]
mod esp;
#[path = "forms/packets.rs"]
mod packets;
#[path = "forms/psp.rs"]
mod psp;
#[path = "forms/rig.rs"]
mod rig;
#[path = "forms/segments.rs"]
mod segments;
#[path = "forms/textbook.rs"]
mod textbook;
#[path = "forms/witness.rs"]
#[allow(dead_code, reason = "tests/protocols.rs uses the rest")]
mod witness;

use libtest_mimic::{Arguments, Trial};

type Trials = Vec<Trial>;

/// A case that fails by panicking.
fn trial(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

fn is_long() -> bool {
    std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1")
}

fn main() {
    let mut trials = vec![trial("the book is right", textbook::the_book_is_right)];
    esp::trials(&mut trials);
    psp::trials(&mut trials);
    segments::trials(&mut trials);
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
