//! The kata's proof: the reference and the alternatives pass, each flawed variant fails exactly
//! what it declares, and the exercise stands where it stands.

mod interleavings;

use std::process::ExitCode;

use kata_01_concurrency::kata;
use kata_lab::testing::{main_with, texts};

fn main() -> ExitCode {
    if let Ok(scene) = std::env::var(interleavings::EXPLORE) {
        return interleavings::explore(&scene);
    }
    let mut extra = texts(kata());
    extra.extend(interleavings::trials());
    main_with(kata(), extra)
}
