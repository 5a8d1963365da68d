//! What a program asks its database, for people to read: one short line for each statement, with
//! its parameters in place. It is never what a verdict rests on, so it may give up: on a parameter
//! whose type is unknown, on a text that is longer than what was looked at.

use std::{collections::HashMap, time::Instant};

use super::frame::word;

/// How much of a frame is looked at.
pub(super) const LOOK: usize = 2048;
const LINE: usize = 160;
const PARAMETER: usize = 40;
/// Names that a session remembers; a program that prepares more and closes none is not followed.
const NAMES: usize = 4096;

/// A statement that a program has sent, on its way through a front.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The number of the connection in its front, from 1.
    pub connection: u64,
    /// The round trip it is part of, counted since the front was last armed; 0 if that counts as
    /// none.
    pub round_trip: u64,
    /// In one line, its parameters in place where their type is known: `select … where key = '7f3a'`.
    pub text: String,
    /// When it came from the program.
    pub at: Instant,
}

#[derive(Debug)]
struct Prepared {
    text: String,
    types: Vec<u32>,
}

/// The prepared statements of one session, by name.
#[derive(Debug, Default)]
pub(super) struct Statements(HashMap<Vec<u8>, Prepared>);

impl Statements {
    /// A Parse: remembers the statement under its name.
    pub(super) fn parse(&mut self, mut body: &[u8]) {
        let name = text(&mut body);
        let line = one_line(text(&mut body), LINE);
        let count = half(&mut body).unwrap_or(0);
        let types = (0..count).map_while(|_| take(&mut body, 4).and_then(word));
        if self.0.len() < NAMES || self.0.contains_key(name) {
            let prepared = Prepared {
                text: line,
                types: types.collect(),
            };
            self.0.insert(name.to_vec(), prepared);
        }
    }

    /// A Close: forgets a statement.
    pub(super) fn close(&mut self, body: &[u8]) {
        if let Some((b'S', mut name)) = body.split_first().map(|(kind, rest)| (*kind, rest)) {
            self.0.remove(text(&mut name));
        }
    }

    /// The text of a Parse alone.
    pub(super) fn parsed(mut body: &[u8]) -> String {
        text(&mut body);
        one_line(text(&mut body), LINE)
    }

    /// The text of a Query.
    pub(super) fn query(mut body: &[u8]) -> String {
        one_line(text(&mut body), LINE)
    }

    /// A Bind: the statement with its parameters, if the statement is known.
    pub(super) fn bind(&self, mut body: &[u8]) -> Option<String> {
        text(&mut body);
        let prepared = self.0.get(text(&mut body))?;
        let parameters = parameters(body, &prepared.types).unwrap_or_default();
        Some(in_place(&prepared.text, &parameters))
    }
}

/// The parameters of a Bind as literals. Those that were not looked at are missing.
fn parameters(mut body: &[u8], types: &[u32]) -> Option<Vec<String>> {
    let formats = half(&mut body)?;
    let formats: Vec<u16> = (0..formats).map_while(|_| half(&mut body)).collect();
    let count = half(&mut body)?;
    let mut literals = Vec::new();
    for index in 0..usize::from(count) {
        let Some(length) = take(&mut body, 4).and_then(word) else {
            break;
        };
        if length == u32::MAX {
            literals.push("null".to_owned());
            continue;
        }
        let Some(value) = take(&mut body, length as usize) else {
            break;
        };
        // One format stands for all, none for text.
        let format = formats
            .get(index)
            .or(formats.first().filter(|_| formats.len() == 1));
        let is_text = format.is_none_or(|format| *format == 0);
        literals.push(literal(
            value,
            is_text,
            types.get(index).copied().unwrap_or(0),
        ));
    }
    Some(literals)
}

/// A value as SQL would write it, or `…` if its type is not one of the common ones.
fn literal(value: &[u8], is_text: bool, kind: u32) -> String {
    let number = |value: &[u8]| match *value {
        [a, b] => Some(i64::from(i16::from_be_bytes([a, b]))),
        [a, b, c, d] => Some(i64::from(i32::from_be_bytes([a, b, c, d]))),
        _ => value.try_into().ok().map(i64::from_be_bytes),
    };
    match (is_text, kind) {
        (true, 20 | 21 | 23) => one_line(value, PARAMETER),
        // name, text, bpchar and varchar are their own binary form.
        (true, _) | (false, 19 | 25 | 1042 | 1043) => format!("'{}'", one_line(value, PARAMETER)),
        (false, 16) => (value != [0]).to_string(),
        (false, 20 | 21 | 23) => {
            number(value).map_or("…".to_owned(), |number| number.to_string())
        }
        (false, 2950) => {
            uuid::Uuid::from_slice(value).map_or("…".to_owned(), |uuid| format!("'{uuid}'"))
        }
        // Some drivers leave the type to the server. Numbers and the like have control characters.
        (false, 0) => match std::str::from_utf8(value) {
            Ok(text) if !text.contains(char::is_control) => {
                format!("'{}'", one_line(value, PARAMETER))
            }
            _ => "…".to_owned(),
        },
        (false, _) => "…".to_owned(),
    }
}

/// Puts literals where `$1`, `$2` … stand. Inside quotes too: it is for reading, not for running.
fn in_place(statement: &str, literals: &[String]) -> String {
    let mut pieces = statement.split('$');
    let mut line = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.len() - piece.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (index, rest) = piece.split_at(digits);
        let index = index.parse::<usize>().ok();
        match index.and_then(|index| literals.get(index.checked_sub(1)?)) {
            Some(literal) => line.extend([literal, rest]),
            None => line.extend(["$", piece]),
        }
    }
    line
}

/// White space becomes single spaces; what is longer is cut, and says so.
fn one_line(text: &[u8], limit: usize) -> String {
    // A character of text has at most four bytes; the rest need not be read.
    let text = String::from_utf8_lossy(&text[..text.len().min(limit * 8)]);
    let mut line = String::with_capacity(text.len().min(limit + 4));
    let mut length = 0;
    for word in text.split_whitespace() {
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for character in word.chars() {
            if length >= limit {
                line.push('…');
                return line;
            }
            line.push(character);
            length += 1;
        }
    }
    line
}

/// A text up to its NUL, or up to where the look ends.
fn text<'a>(body: &mut &'a [u8]) -> &'a [u8] {
    let end = body
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(body.len());
    let (text, rest) = body.split_at(end);
    *body = rest.get(1..).unwrap_or_default();
    text
}

fn half(body: &mut &[u8]) -> Option<u16> {
    let bytes = take(body, 2)?;
    bytes.first_chunk().copied().map(u16::from_be_bytes)
}

fn take<'a>(body: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
        let mut body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0"].concat();
        body.extend((types.len() as u16).to_be_bytes());
        body.extend(types.iter().flat_map(|kind| kind.to_be_bytes()));
        body
    }

    fn bind(name: &str, formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = [b"\0", name.as_bytes(), b"\0"].concat();
        body.extend((formats.len() as u16).to_be_bytes());
        body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
        body.extend((values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                Some(value) => {
                    body.extend((value.len() as u32).to_be_bytes());
                    body.extend(*value);
                }
                None => body.extend(u32::MAX.to_be_bytes()),
            }
        }
        body
    }

    #[test]
    fn a_statement_reads_as_one_line_with_its_parameters() {
        let mut statements = Statements::default();
        let sql = "select *\n  from keys\n where key = $1 and n > $2 and ok = $3 and $4 is null";
        statements.parse(&parse("s1", sql, &[25, 20, 16, 17]));
        let values = [
            Some(b"7f3a".as_slice()),
            Some(&[0, 0, 0, 0, 0, 0, 1, 0]),
            Some(&[1]),
            None,
        ];
        assert_eq!(
            statements.bind(&bind("s1", &[1], &values)).unwrap(),
            "select * from keys where key = '7f3a' and n > 256 and ok = true and null is null"
        );
        let values = [Some(b"7f3a".as_slice()), Some(b"12")];
        assert_eq!(
            statements.bind(&bind("s1", &[], &values)).unwrap(),
            "select * from keys where key = '7f3a' and n > 12 and ok = $3 and $4 is null"
        );
        statements.parse(&parse("", "select $1, $2", &[]));
        let values = [Some(b"7f3a".as_slice()), Some(&[0, 0, 0, 1])];
        assert_eq!(
            statements.bind(&bind("", &[1], &values)).unwrap(),
            "select '7f3a', …"
        );
        statements.close(b"Ss1\0");
        assert_eq!(statements.bind(&bind("s1", &[], &[])), None);
    }

    #[test]
    fn a_long_statement_is_cut_and_says_so() {
        let line = Statements::query(&[b'x'; 5000]);
        assert_eq!(line.chars().count(), LINE + 1);
        assert!(line.ends_with("x…"));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut rng = StdRng::seed_from_u64(0xface);
        let mut statements = Statements::default();
        let whole = bind("", &[0, 1], &[Some(b"a"), None]);
        statements.parse(&parse("", "select $1, $2, $, $99, '$é'", &[25]));
        for _ in 0..5_000 {
            let mut body = match rng.random_bool(0.5) {
                true => whole.clone(),
                false => (0..rng.random_range(0..40)).map(|_| rng.random()).collect(),
            };
            body.truncate(rng.random_range(0..=body.len()));
            if !body.is_empty() {
                let at = rng.random_range(0..body.len());
                body[at] = rng.random();
            }
            statements.bind(&body);
            statements.close(&body);
            Statements::query(&body);
            Statements::parsed(&body);
        }
        for _ in 0..500 {
            let body: Vec<u8> = (0..rng.random_range(0..40)).map(|_| rng.random()).collect();
            statements.parse(&body);
        }
    }
}
