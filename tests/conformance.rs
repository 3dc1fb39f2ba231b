//! The conformance suite: what every device of this contract does, whatever stands between it and its driver. A case runs
//! over each backend: the model in this process, and the model in a process of its own, over vfio-user.
//!
//! `rules`: what a driver relies on. `forms`: every form of ESP and PSP × mode × families × size × descriptor format, against a witness that shares nothing
//! with us: `forms/witness.rs` lays each packet out from the standards' words, and `forms/textbook.rs` is AES-GCM out of the
//! book, judged by Project Wycheproof. A case is one form in one mode between one pair of families; it runs through all sizes
//! and descriptor formats.
//!
//! A device of this machine that vfio-pci has is a backend too: `CRYPTONIC_VFIO=0000:03:00.0` runs what needs the driver's
//! calls alone, with a reason for each case that is skipped.
//!
//! `cargo test --test conformance -- --list` names the cases; `CRYPTONIC_LONG=1` runs each form with every kind of header
//! around it.

#[path = "conformance/bench.rs"]
mod bench;
#[path = "guest/cache.rs"]
mod cache;
#[path = "forms/esp.rs"]
mod esp;
#[path = "conformance/guest.rs"]
mod guest;
#[path = "guest/machine.rs"]
#[allow(dead_code, reason = "tests/guest uses the rest")]
mod machine;
#[path = "forms/packets.rs"]
mod packets;
#[path = "forms/psp.rs"]
mod psp;
#[path = "forms/rig.rs"]
#[allow(dead_code, reason = "tests/protocols.rs uses the rest")]
mod rig;
#[path = "conformance/rules.rs"]
mod rules;
#[path = "forms/segments.rs"]
mod segments;
#[path = "forms/textbook.rs"]
mod textbook;
#[path = "forms/witness.rs"]
#[allow(dead_code, reason = "tests/protocols.rs uses the rest")]
mod witness;

use bench::Backend;
use libtest_mimic::{Arguments, Completion, Trial};

type Trials = Vec<Trial>;

/// A case that fails by panicking, and needs more than a driver can do.
fn trial(backend: Backend, name: impl AsRef<str>, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::ignorable_test(format!("{}: {}", backend.name(), name.as_ref()), move || {
        match backend.lacks_lab() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                run();
                Ok(Completion::Completed)
            }
        }
    })
}

/// A case that fails by panicking, and needs a driver alone.
fn bare_trial(backend: Backend, name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(format!("{}: {name}", backend.name()), move || {
        run();
        Ok(())
    })
}

fn is_long() -> bool {
    std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1")
}

fn main() {
    let mut trials = vec![Trial::test("the book is right", || {
        textbook::the_book_is_right();
        Ok(())
    })];
    for backend in [Backend::InProcess, Backend::VfioUser] {
        rules::trials(&mut trials, backend);
        esp::trials(&mut trials, backend);
        psp::trials(&mut trials, backend);
        segments::trials(&mut trials, backend);
    }
    rules::trials(&mut trials, Backend::VfioUserTrapped);
    guest::trials(&mut trials);
    let mut arguments = Arguments::from_args();
    if std::env::var_os(bench::VFIO).is_some() {
        rules::trials(&mut trials, Backend::Vfio);
        esp::trials(&mut trials, Backend::Vfio);
        psp::trials(&mut trials, Backend::Vfio);
        segments::trials(&mut trials, Backend::Vfio);
        // Every case takes the same functions.
        arguments.test_threads = Some(1);
    }
    libtest_mimic::run(&arguments, trials).exit();
}
