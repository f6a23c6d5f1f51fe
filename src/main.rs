//! The `rwkvc` command line.
fn main() {}
