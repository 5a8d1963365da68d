//! The lab against real services: one binary, since linking is what costs.

// Clippy lets helpers of a test unwrap only where it sees the attribute.
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod replica;
