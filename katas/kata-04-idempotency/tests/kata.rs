//! The kata's tests.

fn main() {}
