//! The kata's proof: the reference and the alternatives pass, each flawed variant fails exactly
//! what it declares, and the exercise stands where it stands.

mod lesson;

use std::process::ExitCode;

fn main() -> ExitCode {
    kata_lab::testing::main_with(kata_04_idempotency::kata(), lesson::trials())
}
