//! A variant's file reads as the map says, and can be copied over the exercise.

use std::{fs, sync::Arc};

use libtest_mimic::Trial;

use crate::kata::{Kata, Kind, Variant};

/// The signature that an implementation has in every file that can take the exercise's place.
const APP: &str = "pub async fn app(env: Env) -> Result<App, BoxError> {";

/// The trials of a kata's variants, in its own folder as well.
pub(super) fn trials(kata: &Arc<Kata>) -> Vec<Trial> {
    let trial = |name: &str, judge: fn(&Variant, &str) -> Result<(), String>| {
        let kata = kata.clone();
        Trial::test(format!("variants: {name}"), move || {
            let others = kata.variants.iter().filter(|v| v.kind != Kind::Exercise);
            for variant in others.filter(|v| v.has_a_file()) {
                let file = format!("src/variants/{}.rs", variant.id.replace('-', "_"));
                let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
                judge(variant, &text).map_err(|wrong| format!("{file}: {wrong}"))?;
            }
            Ok(())
        })
    };
    vec![
        trial(
            "each says its idea or its flaw in its first line",
            says_what_it_is,
        ),
        trial("each can be copied over the exercise", can_be_copied),
    ]
}

fn says_what_it_is(variant: &Variant, text: &str) -> Result<(), String> {
    let begins = match variant.kind {
        Kind::Reference => "//! The reference: ",
        Kind::Alternative => "//! Alternative: ",
        Kind::Flawed(_) => "//! Flaw: ",
        Kind::Exercise => return Ok(()),
    };
    match text.starts_with(begins) {
        true => Ok(()),
        false => Err(format!("it does not begin with {begins:?}")),
    }
}

// Relative paths and another signature are what would break; the rest the compiler has seen.
fn can_be_copied(_variant: &Variant, text: &str) -> Result<(), String> {
    if !text.contains(APP) {
        return Err(format!("it has no {APP:?}"));
    }
    match ["super::", "self::"]
        .into_iter()
        .find(|path| text.contains(path))
    {
        None => Ok(()),
        Some(path) => Err(format!("{path} means something else in another folder")),
    }
}
