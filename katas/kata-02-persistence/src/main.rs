//! The kata's command line; `--help` lists the verbs.

use std::process::ExitCode;

fn main() -> ExitCode {
    kata_lab::cli::main(kata_02_persistence::kata())
}
