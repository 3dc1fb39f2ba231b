//! The RTL of the parser and its co-simulation.
