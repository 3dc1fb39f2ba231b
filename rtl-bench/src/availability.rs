//! Whether this build has the RTL, and if not, why.

use std::fmt;

/// The RTL cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What the build found, of one or more lines.
    pub reason: &'static str,
    /// The command that installs what is missing; empty where installing something does not help.
    pub install: &'static str,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this build has no RTL: {}", self.reason)?;
        if !self.install.is_empty() {
            write!(f, "; to install it: {}", self.install)?;
        }
        Ok(())
    }
}

impl std::error::Error for Unavailable {}

/// What build.rs found: Verilator's version, or why there is no RTL.
static BUILT: Result<&str, Unavailable> = include!(concat!(env!("OUT_DIR"), "/availability.rs"));

/// Whether this build can run the RTL: the version of the Verilator that built it.
///
/// # Errors
/// [`Unavailable`], with the reason.
pub fn availability() -> Result<&'static str, Unavailable> {
    BUILT
}

/// The error of a build that has no function table for a unit, although it may have some RTL.
pub(crate) fn unavailable() -> Unavailable {
    match BUILT {
        Err(unavailable) => unavailable,
        Ok(_) => Unavailable {
            reason: "the unit cannot be made, is built for tests alone (feature test-units), or is asked for mutants, \
                     which only the inspect build has",
            install: "",
        },
    }
}
