//! The command line as a person, a shell and CI meet it: a program with arguments, output, an exit
//! code, and signals. It is driven with the smallest kata, `examples/turnstile.rs`.

mod check;
mod running;
mod tests_of_a_kata;
mod verbs;
mod watch;

use running::{Running, at_once, kata, run};
