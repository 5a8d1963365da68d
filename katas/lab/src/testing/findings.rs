//! Golden files for findings: a flawed variant must be told its own flaw.
//!
//! A flawed variant that fails the declared check for another reason than its flaw would prove
//! nothing. So each kata keeps, for each flawed variant, what was done and what was promised when
//! it failed: `tests/findings/VARIANT.txt`. What was *seen* is left out, since it counts what
//! happened and differs from run to run.

use std::{fs, io, path::Path};

use crate::{
    kata::{Kind, Variant},
    report::Record,
    testing::{UPDATE, is_set},
};

/// From the package's folder, where cargo runs its tests.
const FOLDER: &str = "tests/findings";

/// What is wrong with the findings of a flawed variant, if anything.
pub(super) fn strange(variant: &Variant, records: &[Record]) -> Option<String> {
    if !matches!(variant.kind, Kind::Flawed(_)) {
        return None;
    }
    let seen: Vec<Entry> = records.iter().filter_map(Entry::of).collect();
    let path = Path::new(FOLDER).join(format!("{}.txt", variant.id));
    if is_set(UPDATE) {
        let text: Vec<_> = seen.iter().map(|entry| entry.text.clone()).collect();
        let written = fs::create_dir_all(FOLDER)
            .and_then(|()| fs::write(&path, format!("{}\n", text.join("\n\n"))));
        return written
            .err()
            .map(|error| format!("{}: {error}", path.display()));
    }
    let kept = match fs::read_to_string(&path) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Some(format!("{} cannot be read: {error}", path.display())),
    };
    let kept: Vec<_> = kept.split("\n\n").map(Entry::promise_of).collect();
    let strange = seen
        .iter()
        .filter(|entry| !kept.contains(&Entry::promise_of(&entry.text)));
    let strange: Vec<_> = strange.map(|entry| entry.text.as_str()).collect();
    (!strange.is_empty()).then(|| {
        format!(
            "{} does not have these findings. If they tell the variant's own flaw, write them with {UPDATE}=1.\n\n{}\n",
            path.display(),
            strange.join("\n\n"),
        )
    })
}

/// A finding as it is kept: the check, what was done, what was promised.
struct Entry {
    text: String,
}

impl Entry {
    fn of(record: &Record) -> Option<Self> {
        let finding = record.finding.as_ref()?;
        let (name, did, expected) = (&record.name, shape(&finding.did), &finding.expected);
        Some(Self {
            text: format!("{name}\n  did       {did}\n  expected  {expected}"),
        })
    }

    /// What is compared: the check and the promise. A check may have several scenes for one promise,
    /// and which of them finds the flaw first is for the scheduler to decide.
    fn promise_of(text: &str) -> (Option<&str>, Option<&str>) {
        (text.lines().next(), text.trim_end().lines().last())
    }
}

/// A sentence without what may differ from run to run: where a crash came.
fn shape(sentence: &str) -> String {
    const CRASHED: &str = "; crashed ";
    if let Some((before, after)) = sentence.split_once(CRASHED)
        && let Some((_, after)) = after.split_once(';')
    {
        return format!("{before}{CRASHED}…;{after}");
    }
    sentence.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_crash_came_is_left_out_of_a_sentence() {
        assert_eq!(
            shape("POST /pay; crashed before round trip 7; started again"),
            "POST /pay; crashed …; started again"
        );
        assert_eq!(shape("POST /pay 50 times"), "POST /pay 50 times");
    }
}
