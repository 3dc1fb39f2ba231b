//! The mutants: each deliberate fault in the RTL runs until the bench catches it.

use cryptonic_wire::packet::Expected;

use crate::availability::Unavailable;
use crate::campaign;
use crate::lockstep::What;
use crate::mutants::{MUTANTS, Mutant};
use crate::rx_parse::RxParseRtl;
use crate::shrink::Shrunk;
use crate::stimulus::Style;
use crate::units::{Build, RX_PARSE};

/// What became of a mutant.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The mutant.
    pub mutant: &'static Mutant,
    /// What caught it.
    pub caught: Option<Caught>,
    /// Packets that ran.
    pub packets: u64,
}

/// What caught a mutant.
#[derive(Clone, Debug)]
pub struct Caught {
    /// What differed first.
    pub what: What,
    /// The packet it was about, from the run's first.
    pub packet: u64,
    /// The cycle, from the run's first.
    pub cycle: u64,
}

/// The mutants of the receive parser.
pub fn mutants() -> impl Iterator<Item = &'static Mutant> {
    MUTANTS.iter().filter(|mutant| mutant.unit == RX_PARSE.name)
}

/// Runs one mutant for at most so many packets, or until it differs from the model.
///
/// # Errors
/// [`Unavailable`] where this build has no RTL.
pub fn hunt(mutant: &'static Mutant, style: &Style, packets: u64) -> Result<Hunt, Unavailable> {
    let outcome = campaign::run(&mut unit(mutant)?, style, packets, |_| true);
    let caught = outcome.failure.map(|failure| Caught {
        what: failure.difference.what,
        packet: failure.packet,
        cycle: failure.cycle,
    });
    Ok(Hunt { mutant, caught, packets: outcome.packets })
}

/// The smallest case that catches a mutant, if one of the first packets does.
///
/// # Errors
/// [`Unavailable`] where this build has no RTL.
pub fn smallest(mutant: &'static Mutant, style: &Style, packets: u64) -> Result<Option<Shrunk>, Unavailable> {
    let outcome = campaign::run(&mut unit(mutant)?, style, packets, |_| true);
    Ok(outcome.failure.and_then(|failure| campaign::smallest(&failure, || unit(mutant).ok())))
}

fn unit(mutant: &'static Mutant) -> Result<RxParseRtl, Unavailable> {
    let mut unit = RxParseRtl::new(Build::Inspect, &Expected::default())?;
    unit.select_mutant(Some(mutant))?;
    Ok(unit)
}
