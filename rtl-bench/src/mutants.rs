//! The deliberate faults that the inspect build carries: the rows of mutants.toml.

/// A deliberate fault in the RTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// What selects it, from 1.
    pub number: u32,
    /// Its name, of which there is one.
    pub name: &'static str,
    /// The module of the unit that it is in.
    pub unit: &'static str,
    /// The file of the unit.
    pub file: &'static str,
    /// The expression of the RTL.
    pub original: &'static str,
    /// What stands in its place.
    pub fault: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// Every mutant, in the order of its number.
pub static MUTANTS: &[Mutant] = include!(concat!(env!("OUT_DIR"), "/mutants.rs"));
