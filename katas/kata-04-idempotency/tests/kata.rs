//! The kata's proof: the reference and the alternatives pass, each flawed variant fails exactly
//! what it declares, and the exercise stands where it stands.

use std::process::ExitCode;

fn main() -> ExitCode {
    kata_lab::testing::main(kata_04_idempotency::kata())
}
