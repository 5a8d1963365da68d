//! The matrix as a person reads it: a mark for each cell, a legend, and every surprise explained.

use super::{
    bad, dim,
    finding::{item, story, written},
    good,
    list::mark,
    strong, text, warn,
};
use crate::{
    matrix::{Cell, Matrix, Row, explain},
    verdict::VerdictKind,
};

/// Headings of words take at most so many lines.
const HEADING_LINES: usize = 6;

/// The width of a column under a number: a mark and a space.
const NUMBERED: usize = 2;

/// A timeline in the matrix shows the scene, not all of it: the command to see more is beside it.
const SCENE: usize = 14;

/// The measured matrix. `again` is the command that judges one variant by one check.
pub fn matrix(
    matrix: &Matrix,
    again: impl Fn(&Row, usize, u64) -> String,
    columns: usize,
) -> String {
    let labels = matrix
        .rows
        .iter()
        .map(|row| text::width(&row.label))
        .max()
        .unwrap_or_default();
    let labels = labels.min(columns / 2);
    let room = columns.saturating_sub(2 + labels + 1);
    let mut out = match stacked(&matrix.checks, room) {
        Some(headings) => with_headings(matrix, &headings, labels),
        None => with_numbers(matrix, labels, room, columns),
    };
    out.push('\n');
    out.push_str(&legend(matrix, columns));
    for row in &matrix.rows {
        for (column, cell) in row.cells.iter().enumerate() {
            if let Some((seed, record)) = &cell.surprise {
                out.push('\n');
                out.push_str(&surprise(matrix, row, cell, record, columns));
                let again = again(row, matrix.checks[column].0, *seed);
                out.push_str(&format!("  again     {again}\n"));
            }
        }
    }
    out
}

/// Headings of words below each other, if all of them fit beside the labels.
fn stacked(checks: &[(usize, &str)], room: usize) -> Option<Vec<Vec<String>>> {
    let headings: Vec<Vec<String>> = checks
        .iter()
        .map(|(_, name)| name.split('_').map(str::to_owned).collect())
        .collect();
    let fits = headings.iter().all(|words| words.len() <= HEADING_LINES)
        && headings
            .iter()
            .map(|words| heading_width(words))
            .sum::<usize>()
            <= room;
    fits.then_some(headings)
}

fn heading_width(words: &[String]) -> usize {
    words
        .iter()
        .map(|word| text::width(word))
        .max()
        .unwrap_or_default()
        .max(2)
        + 2
}

fn with_headings(matrix: &Matrix, headings: &[Vec<String>], labels: usize) -> String {
    let mut out = String::new();
    for line in 0..headings.iter().map(Vec::len).max().unwrap_or_default() {
        let words = headings.iter().map(|words| {
            text::pad(
                words.get(line).map_or("", String::as_str),
                heading_width(words),
            )
        });
        let line = format!(
            "{}{}",
            " ".repeat(2 + labels + 2),
            words.collect::<String>()
        );
        out.push_str(&format!("{}\n", dim(line.trim_end())));
    }
    let widths: Vec<_> = headings.iter().map(|words| heading_width(words)).collect();
    for row in &matrix.rows {
        out.push_str(&line(
            row,
            labels,
            row.cells.iter().zip(widths.iter().copied()),
            false,
        ));
    }
    out
}

/// Numbers over the columns and their names below; in blocks if one row of numbers is too wide.
fn with_numbers(matrix: &Matrix, labels: usize, room: usize, columns: usize) -> String {
    let all: Vec<usize> = (0..matrix.checks.len()).collect();
    let blocks = (all.len() * NUMBERED).div_ceil(room.max(NUMBERED)).max(1);
    // Blocks of one size, and not a full one and a rest.
    let at_once = all.len().div_ceil(blocks).max(1);
    let mut out = String::new();
    for (number, block) in all.chunks(at_once).enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let widths = numbered_widths(&matrix.checks, block, room);
        // Tens above units, so that a column needs no more room than its mark.
        for unit in [10, 1] {
            let digits = block.iter().zip(&widths).map(|(column, width)| {
                let digit = match (column + 1) / unit {
                    0 => String::new(),
                    number => (number % 10).to_string(),
                };
                text::pad(&digit, *width)
            });
            let heading = format!(
                "{}{}",
                " ".repeat(2 + labels + 2),
                digits.collect::<String>()
            );
            if !heading.trim().is_empty() {
                out.push_str(&format!("{}\n", dim(heading.trim_end())));
            }
        }
        for row in &matrix.rows {
            let cells = block.iter().map(|column| &row.cells[*column]);
            out.push_str(&line(row, labels, cells.zip(widths.iter().copied()), true));
        }
    }
    out.push('\n');
    out.push_str(&names(&matrix.checks, columns));
    out
}

/// The widths of a block's columns, with a gap after each step if there is room for the gaps.
fn numbered_widths(checks: &[(usize, &str)], block: &[usize], room: usize) -> Vec<usize> {
    let ends_a_step = |column: usize| {
        checks
            .get(column + 1)
            .is_some_and(|(step, _)| *step != checks[column].0)
    };
    let gaps = block.iter().filter(|column| ends_a_step(**column)).count();
    let fits = block.len() * NUMBERED + gaps <= room;
    block
        .iter()
        .map(|column| NUMBERED + usize::from(fits && ends_a_step(*column)))
        .collect()
}

/// The names behind the numbers, in two columns if they fit, read downwards.
fn names(checks: &[(usize, &str)], columns: usize) -> String {
    let entries: Vec<_> = checks
        .iter()
        .enumerate()
        .map(|(i, (_, name))| format!("{:>4}  {name}", i + 1))
        .collect();
    let widest = entries
        .iter()
        .map(|entry| text::width(entry))
        .max()
        .unwrap_or_default();
    let lines = match 2 * widest + 2 <= columns {
        true => entries.len().div_ceil(2),
        false => entries.len(),
    };
    let mut out = String::new();
    for line in 0..lines {
        let left = text::pad(&entries[line], widest + 2);
        let right = entries
            .get(line + lines)
            .map(String::as_str)
            .unwrap_or_default();
        out.push_str(&format!("{}\n", dim(format!("{left}{right}").trim_end())));
    }
    out
}

fn line<'a>(
    row: &Row,
    labels: usize,
    cells: impl Iterator<Item = (&'a Cell, usize)>,
    tight: bool,
) -> String {
    let mut out = format!("  {}  ", text::pad(&text::cut(&row.label, labels), labels));
    for (cell, width) in cells {
        let (plain, coloured) = shown(cell, tight);
        out.push_str(&coloured);
        out.push_str(&" ".repeat(width.saturating_sub(text::width(&plain))));
    }
    format!("{}\n", out.trim_end())
}

/// A cell without and with colour: the mark of its verdict, and `!` if that is a surprise. With
/// repeats a surprise shows how often it came. Where room is tight, the `!` alone has to do.
fn shown(cell: &Cell, tight: bool) -> (String, String) {
    let surprises = cell.surprises();
    let Some(last) = cell.verdicts.last() else {
        return (" ".to_owned(), " ".to_owned());
    };
    if surprises == 0 {
        let plain = last.mark().to_string();
        let coloured = match (cell.must_fail, last) {
            // A failure that is declared is what the flawed variant is for.
            (Some(true), VerdictKind::Failed) => warn(&plain),
            (_, kind) => mark(*kind),
        };
        return (plain, coloured);
    }
    let plain = match cell.verdicts.len() {
        _ if tight => "!".to_owned(),
        1 => format!("{}!", last.mark()),
        _ => format!("{surprises}!"),
    };
    (plain.clone(), bad(&strong(&plain)))
}

fn legend(matrix: &Matrix, columns: usize) -> String {
    let surprises = matrix.surprises();
    let mut said = vec!["✗ = fails, as declared.".to_owned()];
    if matrix
        .rows
        .iter()
        .flat_map(|row| &row.cells)
        .any(|cell| cell.must_fail.is_none())
    {
        said.push("The exercise may do anything.".to_owned());
    }
    if surprises > 0 {
        said.push("! = not as declared.".to_owned());
    }
    let size = format!(
        "{} × {}, {}",
        text::plural(matrix.rows.len(), "variant"),
        text::plural(matrix.checks.len(), "check"),
        text::plural(surprises, "surprise"),
    );
    said.push(match matrix.repeats {
        1 => format!("{size}."),
        repeats => {
            let wrong: usize = matrix
                .rows
                .iter()
                .flat_map(|r| &r.cells)
                .map(Cell::surprises)
                .sum();
            format!(
                "{size}; {repeats} times each: {} of {} verdicts were wrong.",
                text::count(wrong as u64),
                text::count(matrix.verdicts() as u64),
            )
        }
    });
    let lines = text::wrap(&said.join(" "), columns);
    let colour = if surprises == 0 { good } else { bad };
    lines
        .iter()
        .map(|line| format!("{}\n", colour(line)))
        .collect()
}

fn surprise(
    matrix: &Matrix,
    row: &Row,
    cell: &Cell,
    record: &super::Record,
    columns: usize,
) -> String {
    let often = match matrix.repeats {
        1 => String::new(),
        repeats => format!(" ({} of {repeats} times)", cell.surprises()),
    };
    let said = format!("{}: {}{often}", row.label, explain(cell.must_fail, record));
    let mut out = text::hang("!", &said, 2, columns);
    if let Some(finding) = &record.finding {
        out.push_str(&story(finding, SCENE, columns));
        if !finding.output.is_empty() {
            out.push_str(&written(&finding.output, columns));
        }
    }
    if let Some(why) = record.reason.as_ref().or(record.note.as_ref()) {
        out.push_str(&item("said", why, columns));
    }
    out
}
