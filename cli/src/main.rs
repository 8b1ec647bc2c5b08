//! `varve`: the broker and its command line.

fn main() {}
