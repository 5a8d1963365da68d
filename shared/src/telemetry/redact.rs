//! Nothing secret in a line, whoever wrote it there.
//!
//! Our own code logs neither headers nor addresses with a password. Others' errors do, and one
//! `{request:?}` in a hurry is enough; so whatever leaves the process as a log line or as an
//! attribute of a span passes through here. It is a net below the rope and not the rope: a secret
//! in a field of an innocent name is not found.

use std::borrow::Cow;

/// What stands for a secret.
pub(super) const MASK: &str = "***";

/// Ends of the names whose values are secret, in small letters and with `_` for `-`.
const SECRET_NAMES: [&str; 10] = [
    "authorization",
    "cookie",
    "password",
    "passwd",
    "pgpassword",
    "secret",
    "api_key",
    "access_token",
    "refresh_token",
    "private_key",
];

/// Whether the value of a field or header of this name is never shown: `authorization`,
/// `Proxy-Authorization`, `db_password` …
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|secret| {
        name.strip_suffix(secret)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '.']))
    })
}

/// The text with `***` in the place of
///
/// - the password in `scheme://user:password@host`;
/// - what follows `Bearer` or `Basic`;
/// - the value of a secret name, as `name=value`, `name: value`, or in Rust's debug form.
///
/// What is inside of a JSON string may be given as it is written there: an escape is never split.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find([':', '=', ' ']) {
        at += found;
        let secret = secret_after(text, at);
        at += 1;
        if let Some((from, to)) = secret {
            clean.push_str(&text[kept..from]);
            clean.push_str(MASK);
            (kept, at) = (to, to);
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[kept..]);
    Cow::Owned(clean)
}

/// A line of JSON, redacted string by string, so that it stays one whatever the strings hold.
pub(super) fn redact_json(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    let mut is_secret = false;
    while let Some(quote) = rest.find('"') {
        let (before, string) = rest.split_at(quote + 1);
        // A number or the like in the place of a secret, or an object, whose own names count.
        let bare = before.trim_end_matches('"');
        match bare.find([',', '}', ']', '{', '[']) {
            Some(end) if is_secret && bare[..end].trim() != "" => {
                clean.push_str(&format!("\"{MASK}\"{}\"", &bare[end..]));
                is_secret = false;
            }
            Some(_) => {
                clean.push_str(before);
                is_secret = false;
            }
            None => clean.push_str(before),
        }
        let end = closing_quote(string, 0);
        let (content, after) = string.split_at(end);
        rest = after.strip_prefix('"').unwrap_or_default();
        let is_name = rest.starts_with(':');
        if is_name {
            is_secret = is_secret_name(content);
            clean.push_str(content);
            clean.push_str("\":");
            rest = &rest[1..];
        } else {
            clean.push_str(&if is_secret {
                MASK.into()
            } else {
                redact(content)
            });
            clean.push('"');
            is_secret = false;
        }
    }
    match rest.find(['}', ']']) {
        Some(end) if is_secret && !rest.starts_with(['{', '[']) => {
            clean.push_str(&format!("\"{MASK}\"{}", &rest[end..]));
        }
        _ => clean.push_str(rest),
    }
    clean
}

/// Where the secret is that the separator at `at` announces.
fn secret_after(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &text[at..];
    if rest.starts_with("://") {
        return password_of_an_address(text, at + 3);
    }
    if rest.starts_with(' ') {
        return credentials_after_a_scheme(text, at);
    }
    value_of_a_secret_name(text, at)
}

fn password_of_an_address(text: &str, from: usize) -> Option<(usize, usize)> {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "/?#\"'<>\\".contains(c);
    let authority = text[from..].split(ends).next()?;
    let user_info = &authority[..authority.rfind('@')?];
    let password = user_info.find(':')? + 1;
    let is_shown = user_info.len() > password && &user_info[password..] != MASK;
    is_shown.then_some((from + password, from + user_info.len()))
}

fn credentials_after_a_scheme(text: &str, at: usize) -> Option<(usize, usize)> {
    let scheme = word_before(text, at);
    if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // The alphabet of RFC 7235's token68.
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let from = at + 1;
    let token = text[from..].split(|c| !is_token(c)).next()?;
    // A sentence about a basic check has shorter words after it, or plain ones.
    let is_credential = token.len() >= 8 && !token.bytes().all(|byte| byte.is_ascii_lowercase());
    is_credential.then_some((from, from + token.len()))
}

fn value_of_a_secret_name(text: &str, at: usize) -> Option<(usize, usize)> {
    // A name in quotes, which within a string are escaped.
    let name_end = text[..at].trim_end_matches(['"', '\\']).len();
    if !is_secret_name(word_before(text, name_end)) {
        return None;
    }
    let value = text[at + 1..].trim_start_matches(' ');
    let from = text.len() - value.len();
    let backslashes = value.len() - value.trim_start_matches('\\').len();
    if value[backslashes..].starts_with('"') {
        let from = from + backslashes + 1;
        let to = from + closing_quote(&text[from..], backslashes);
        return (from < to).then_some((from, to));
    }
    if value.starts_with(['{', '[']) {
        return None;
    }
    let ends = |c: char| c.is_whitespace() || ",;&}])\"\\".contains(c);
    let to = from + value.find(ends).unwrap_or(value.len());
    (from < to).then_some((from, to))
}

/// How long the string is that was opened by a quote behind so many backslashes.
fn closing_quote(text: &str, backslashes: usize) -> usize {
    let mut run = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\\' => run += 1,
            // An escaped backslash is two; within an escaped string, everything doubles once more.
            b'"' if run % (2 * (backslashes + 1)) == backslashes => return at - backslashes,
            _ => run = 0,
        }
    }
    text.len()
}

fn word_before(text: &str, at: usize) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let start = text[..at].trim_end_matches(is_part).len();
    let word = &text[start..at];
    // In `\npassword` the `n` is a part of the escape.
    match text[..start].ends_with('\\') {
        true => word.get(1..).unwrap_or_default(),
        false => word,
    }
}

#[cfg(test)]
mod tests {
    use super::{MASK, redact, redact_json};

    #[test]
    fn secrets_are_masked_and_the_rest_is_kept() {
        for (text, clean) in [
            (
                "cannot reach postgres://shop:s3cr3t@db:5432/shop: refused",
                "cannot reach postgres://shop:***@db:5432/shop: refused",
            ),
            ("redis://:pw@h redis://h", "redis://:***@h redis://h"),
            ("amqp://u:a@b@h/%2f", "amqp://u:***@h/%2f"),
            (
                "Config { password: \"x y\", port: 1 }",
                "Config { password: \"***\", port: 1 }",
            ),
            (
                r#"{"authorization": "Bearer abc.def", "accept": "*/*"}"#,
                r#"{"authorization": "***", "accept": "*/*"}"#,
            ),
            (r"a\npassword=abc\nb", r"a\npassword=***\nb"),
            ("PGPASSWORD=abc psql", "PGPASSWORD=*** psql"),
            ("password=a&user=b", "password=***&user=b"),
            ("a Bearer eyJhbGciOi.J9 is no", "a Bearer *** is no"),
        ] {
            assert_eq!(redact(text), clean);
            // What is clean stays as it is.
            assert_eq!(redact(clean), clean);
        }
        let basic = redact("proxy-authorization: Basic dXNlcjpwYXNz").into_owned();
        assert!(!basic.contains("dXNlcjpwYXNz"), "{basic}");
    }

    #[test]
    fn a_line_of_json_stays_one() {
        for (line, clean) in [
            (
                r#"{"headers":"{\"authorization\": \"Bearer abc.def\", \"accept\": \"*/*\"}"}"#,
                r#"{"headers":"{\"authorization\": \"***\", \"accept\": \"*/*\"}"}"#,
            ),
            (
                r#"{"password":"a\"b\\","next":1}"#,
                r#"{"password":"***","next":1}"#,
            ),
            (
                r#"{"db_password":1234,"n":1,"cookie":true}"#,
                r#"{"db_password":"***","n":1,"cookie":"***"}"#,
            ),
            (
                r#"{"span":{"secret":"a","name":"b"},"password":{"a":1,"b":"c"}}"#,
                r#"{"span":{"secret":"***","name":"b"},"password":{"a":1,"b":"c"}}"#,
            ),
            (r#"{"message":"password="}"#, r#"{"message":"password="}"#),
        ] {
            assert_eq!(redact_json(line), clean);
        }
    }

    #[test]
    fn what_is_no_secret_is_not_touched() {
        for text in [
            "",
            "a lease token: 7, fencing_token=8",
            "http://host:8080/path?x=a@b:c",
            "postgres://user@host/db",
            "the basic configuration: it's bearer authentication",
            "ends with a password:",
            "ü: é = ß ://",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn any_text_is_survived() {
        use rand::{RngExt, SeedableRng};
        let parts = [
            "\"", "\\", ":", "=", " ", "://", "@", "password", "Bearer ", "ü", "{", "}", "a", "\n",
        ];
        let mut random = rand::rngs::StdRng::seed_from_u64(4821);
        for _ in 0..20_000 {
            let text: String = (0..random.random_range(0..12))
                .map(|_| parts[random.random_range(0..parts.len())])
                .collect();
            redact(&text);
            let value =
                serde_json::json!({ "message": text, "password": text, "n": 1, "cookie": 2 });
            let line = redact_json(&value.to_string());
            let clean: serde_json::Value = serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("{error}: {value} → {line}"));
            assert_eq!(clean["n"], 1);
            assert_eq!(
                (&clean["password"], &clean["cookie"]),
                (&MASK.into(), &MASK.into())
            );
        }
    }
}
