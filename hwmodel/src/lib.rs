//! The bit-exact, cycle-level model of the NIC.
