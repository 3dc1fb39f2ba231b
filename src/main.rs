//! The `cryptonic` command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    cryptonic::main()
}
