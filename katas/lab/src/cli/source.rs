//! Where things are in the repository: its root, the file to edit, the line to begin at.

use std::path::{Path, PathBuf};

use crate::kata::Kata;

/// The root of the repository: the folder from which the kata's exercise file is named.
pub(super) fn root(kata: &Kata) -> Option<PathBuf> {
    let current = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
    let starts = [current.as_deref(), program.as_deref(), Some(built_from)];
    let mut above = starts.into_iter().flatten().flat_map(Path::ancestors);
    above
        .find(|folder| folder.join(kata.exercise_file).is_file())
        .map(Path::to_owned)
}

/// The place where work on a step begins, as `file:line`; without the line if it is not found.
pub(super) fn place_of_step(kata: &Kata, step: usize) -> String {
    let file = kata.exercise_file;
    let code = root(kata).and_then(|root| std::fs::read_to_string(root.join(file)).ok());
    match code.and_then(|code| line_of_step(&code, step)) {
        Some(line) => format!("{file}:{line}"),
        None => file.to_owned(),
    }
}

/// The line (from 1) of the first `todo!` of a step: one that names it, else the first one below
/// the step's heading, else the heading itself.
fn line_of_step(code: &str, step: usize) -> Option<usize> {
    let lines: Vec<_> = code.lines().collect();
    let names_it = |line: &str| steps_named(line).contains(&step);
    let is_todo = |line: &str| line.contains("todo!(");
    // The text of a `todo!` may be on the line below it.
    let named = (0..lines.len()).find(|index| {
        let below = lines.get(index + 1).copied().unwrap_or_default();
        is_todo(lines[*index])
            && (names_it(lines[*index])
                || lines[*index].trim_end().ends_with('(') && names_it(below))
    });
    let heading = lines.iter().position(|line| names_it(line));
    let below = heading.and_then(|heading| {
        let rest = lines.iter().enumerate().skip(heading);
        let mut of_step = rest.take_while(|(_, line)| {
            let named = steps_named(line);
            named.is_empty() || named.contains(&step)
        });
        of_step
            .find(|(_, line)| is_todo(line))
            .map(|(index, _)| index)
    });
    named.or(below).or(heading).map(|index| index + 1)
}

/// The numbers of the steps that a line names.
fn steps_named(line: &str) -> Vec<usize> {
    let line = line.to_ascii_lowercase();
    let number = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    line.split("step ").skip(1).filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"//! Steps 1 to 3.

/// Step 1: a key is required.
fn key() {
    todo!("step 1: a key")
}

/// Step 2 uses what step 1 gave.
fn many() {
    todo!()
}

/// Step 10 is far away.
fn late() {
    todo!(
        "step 10: late"
    )
}
"#;

    #[test]
    fn finds_the_first_todo_of_a_step() {
        assert_eq!(line_of_step(CODE, 1), Some(5));
        assert_eq!(line_of_step(CODE, 2), Some(10));
        assert_eq!(line_of_step(CODE, 10), Some(15));
        assert_eq!(line_of_step(CODE, 4), None);
    }

    #[test]
    fn a_step_without_a_todo_is_found_by_its_heading() {
        let code = "// step 1\nfn one() {}\n// step 2\nfn two() { todo!() }\n";
        assert_eq!(line_of_step(code, 1), Some(1));
        assert_eq!(line_of_step(code, 2), Some(4));
    }
}
