//! What a PCI function looks like from both sides.
