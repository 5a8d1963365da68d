//! The kata's proof: the reference and the alternatives pass, each flawed variant fails exactly
//! what it declares, and the exercise stands where it stands.

mod isolation;

use std::process::ExitCode;

use kata_02_persistence::kata;
use kata_lab::testing::{main_with, texts};

fn main() -> ExitCode {
    let mut extra = texts(kata());
    extra.extend(isolation::trials());
    main_with(kata(), extra)
}
