//! The kata's command line.

fn main() {}
