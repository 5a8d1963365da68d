//! Text that has to fit: width as a terminal counts it, padding, wrapping, numbers.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

/// Texts are laid out for at least this many columns, and for at most [`WIDEST`].
pub const NARROWEST: usize = 80;

/// Longer lines are hard to read, however wide the terminal is.
pub const WIDEST: usize = 100;

/// How many columns there are to write in.
pub fn columns() -> usize {
    let terminal = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    terminal.unwrap_or(WIDEST).clamp(NARROWEST, WIDEST)
}

/// How many columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text with what a terminal would obey instead of show replaced: a program under test must
/// not be able to move the cursor or ring the bell.
pub fn harmless(text: &str) -> String {
    let show = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(show).collect()
}

/// The text and spaces after it up to a width; longer texts stay as they are.
pub fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

/// Spaces up to a width and then the text.
pub fn pad_left(text: &str, to: usize) -> String {
    format!("{}{text}", " ".repeat(to.saturating_sub(width(text))))
}

/// Two texts at the two ends of a line.
pub fn ends(left: &str, right: &str, columns: usize) -> String {
    let gap = columns.saturating_sub(width(left) + width(right)).max(2);
    format!("{left}{}{right}", " ".repeat(gap))
}

/// The text, or its beginning and `…` if it is wider.
pub fn cut(text: &str, to: usize) -> String {
    if width(text) <= to {
        return text.to_owned();
    }
    let (head, _) = split_at_width(text, to.saturating_sub(1));
    format!("{}…", head.trim_end())
}

/// The text in lines no wider than `to`, broken between words where that is possible. Line breaks
/// of the text stay.
pub fn wrap(text: &str, to: usize) -> Vec<String> {
    let to = to.max(10);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let paragraph = harmless(paragraph.trim_end());
        let mut rest = paragraph.as_str();
        while width(rest) > to {
            let (head, _) = split_at_width(rest, to);
            let space = head.rfind(' ').filter(|at| !head[..*at].trim().is_empty());
            let end = match space {
                _ if rest[head.len()..].starts_with(' ') => head.len(),
                // A break inside a word only when that word fits on no line; JSON breaks well after
                // a comma.
                Some(space) if word_width(&rest[space + 1..]) <= to => space,
                _ => match head.rfind(',') {
                    Some(comma) if comma > head.len() / 2 => comma + 1,
                    _ => head.len(),
                },
            };
            lines.push(rest[..end].trim_end().to_owned());
            rest = rest[end..].trim_start();
        }
        lines.push(rest.to_owned());
    }
    lines
}

/// The width of the first word.
fn word_width(text: &str) -> usize {
    width(text.split(' ').next().unwrap_or_default())
}

/// Lines under a heading of a fixed width: the first beside it, the others below each other.
pub fn hang(heading: &str, text: &str, indent: usize, columns: usize) -> String {
    let mut out = String::new();
    let lines = wrap(text, columns.saturating_sub(indent));
    for (index, line) in lines.iter().enumerate() {
        let head = if index == 0 { heading } else { "" };
        out.push_str(format!("{}{line}", pad(head, indent)).trim_end());
        out.push('\n');
    }
    out
}

/// Splits so that the first part is no wider than `to` (and never empty).
fn split_at_width(text: &str, to: usize) -> (&str, &str) {
    let mut end = 0;
    for (start, c) in text.char_indices() {
        let next = start + c.len_utf8();
        if end > 0 && width(&text[..next]) > to {
            break;
        }
        end = next;
    }
    text.split_at(end)
}

/// A number with separators: `10,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 check`, `22 checks`.
pub fn plural(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {what}{s}", count(number as u64))
}

/// A duration in seconds with one decimal place: `0.3 s`.
pub fn seconds(took: f64) -> String {
    format!("{took:.1} s")
}

/// A duration in milliseconds, with one decimal place below ten: `5.2 ms`, `58 ms`.
pub fn millis(took: Duration) -> String {
    let millis = took.as_secs_f64() * 1_000.0;
    match millis < 9.95 {
        true => format!("{millis:.1} ms"),
        false => format!("{} ms", count(millis.round() as u64)),
    }
}

/// A text as one word for a shell.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_between_words_and_breaks_only_words_that_are_too_wide() {
        assert_eq!(wrap("one two three", 10), ["one two", "three"]);
        assert_eq!(wrap("0123456789abc", 10), ["0123456789", "abc"]);
        assert_eq!(wrap("exactly10c then", 10), ["exactly10c", "then"]);
        assert_eq!(wrap("a\n\nb", 10), ["a", "", "b"]);
        // Two columns for each character, and nothing is split inside one.
        assert_eq!(wrap("数据库连接数据库", 10), ["数据库连接", "数据库"]);
    }

    #[test]
    fn every_line_fits_whatever_the_text() {
        let text = "ключ a🙂b  naïve 数据\u{301} x".repeat(9);
        for to in 10..40 {
            assert!(wrap(&text, to).iter().all(|line| width(line) <= to));
            assert!(width(&cut(&text, to)) <= to);
        }
    }

    #[test]
    fn a_program_under_test_cannot_move_the_cursor() {
        assert_eq!(wrap("a\u{1b}[2Jb", 20), ["a\u{fffd}[2Jb"]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "check"), "1 check");
        assert_eq!(millis(Duration::from_micros(5_240)), "5.2 ms");
        assert_eq!(millis(Duration::from_micros(58_400)), "58 ms");
    }

    #[test]
    fn shell_words_survive_a_shell() {
        assert_eq!(shell_word("--seed=4821"), "--seed=4821");
        assert_eq!(shell_word("node server.js"), "'node server.js'");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }
}
