//! What this test does in the guest: stages on a device that is given by name, each with a line on the console.

mod errors;
mod instructions;
mod isolation;
mod loopback;
mod removal;
mod rig;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use cryptonic::device::DeviceName;

pub use errors::STAGES as ERRORS;
pub use instructions::STAGES as INSTRUCTIONS;
pub use isolation::STAGES as ISOLATION;
pub use loopback::STAGES as LOOPBACK;
pub use removal::STAGES as REMOVAL;

/// Does the stages of a part: `loopback vfio:0000:00:05.0`.
pub fn run(arguments: &[String]) -> ExitCode {
    let [part, device] = arguments else {
        eprintln!("usage: guest inside loopback|isolation|errors|removal|instructions DEVICE");
        return ExitCode::from(2);
    };
    let device: DeviceName = match device.parse() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("{device}: {error}");
            return ExitCode::from(2);
        }
    };
    match part.as_str() {
        "loopback" => loopback::run(&device),
        "isolation" => isolation::run(&device),
        "errors" => errors::run(&device),
        "instructions" => instructions::run(&device),
        "removal" => removal::run(&device),
        other => {
            eprintln!("there is no part {other}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Does a stage, and says how it ended.
fn stage(name: &str, body: impl FnOnce()) {
    let started = Instant::now();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(()) => println!("STAGE {name}: OK after {:.2} s", started.elapsed().as_secs_f64()),
        // What it panicked with is on the console already.
        Err(_) => println!("STAGE {name}: FAILED"),
    }
}
