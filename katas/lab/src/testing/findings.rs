//! Golden files for findings: a flawed variant must be told its own flaw.
//!
//! A flawed variant that fails the declared check for another reason than its flaw would prove
//! nothing. So each kata keeps, for each flawed variant, what was done and what was promised when
//! it failed: `tests/golden/VARIANT.txt`. What was *seen* is left out, since it counts what
//! happened and differs from run to run.

use std::{collections::BTreeSet, fs, io, path::Path};

use crate::{kata::Variant, report::Record, verdict::Finding};

/// From the package's folder, where cargo runs its tests.
const FOLDER: &str = "tests/golden";

/// Rewrites the files when it is set.
const UPDATE: &str = "UPDATE_GOLDEN";

/// What is wrong with the findings of a flawed variant, if anything.
pub(super) fn strange(variant: &Variant, records: &[Record]) -> Option<String> {
    let seen: BTreeSet<String> = records
        .iter()
        .filter_map(|record| Some(entry(&record.name, record.finding.as_ref()?)))
        .collect();
    let path = Path::new(FOLDER).join(format!("{}.txt", variant.id));
    let kept = match fs::read_to_string(&path) {
        Ok(text) => text
            .split_terminator("\n\n")
            .map(|e| e.trim().to_owned())
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => return Some(format!("{} cannot be read: {error}", path.display())),
    };
    if std::env::var_os(UPDATE).is_some() {
        return update(&path, kept, seen)
            .err()
            .map(|error| format!("{}: {error}", path.display()));
    }
    let new: Vec<_> = seen.difference(&kept).cloned().collect();
    if new.is_empty() {
        return None;
    }
    Some(format!(
        "{} does not have these findings. If they tell the variant's own flaw, add them with {UPDATE}=1.\n\n{}\n",
        path.display(),
        new.join("\n\n"),
    ))
}

/// A check may fail at one of several points, so entries are added and never taken away; delete a
/// file to begin again.
fn update(path: &Path, kept: BTreeSet<String>, seen: BTreeSet<String>) -> io::Result<()> {
    let all: Vec<_> = kept
        .into_iter()
        .chain(seen)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    fs::create_dir_all(FOLDER)?;
    fs::write(path, format!("{}\n", all.join("\n\n")))
}

fn entry(check: &str, finding: &Finding) -> String {
    format!(
        "{check}\n  did       {}\n  expected  {}",
        shape(&finding.did),
        shape(&finding.expected)
    )
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
