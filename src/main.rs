//! The `cryptonic` command line.

fn main() {}
