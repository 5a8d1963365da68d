//! What names a request: the client's key, and the scope in which it is unique.

use std::fmt;

use http::{HeaderMap, HeaderName};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::IdempotencyError;

/// The request header that carries the key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longer keys are no identifiers but somebody's attempt to fill our table.
const LONGEST_KEY_BYTES: usize = 255;

/// A scope longer than this is kept as its digest: PostgreSQL refuses index entries above some
/// 2,700 bytes.
const LONGEST_SCOPE_BYTES: usize = 512;

/// A key as the client chose it: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// A key that comes from elsewhere than a header: the id of a message, for example.
    ///
    /// # Errors
    /// `BadKey` if it is empty, longer than 255 bytes, or not printable ASCII.
    pub fn new(key: impl Into<String>) -> Result<Self, IdempotencyError> {
        let key = key.into();
        let is_printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        match key.len() {
            1..=LONGEST_KEY_BYTES if is_printable => Ok(Self(key)),
            0 => Err(IdempotencyError::BadKey("the key is empty")),
            _ if is_printable => Err(IdempotencyError::BadKey(
                "the key has more than 255 characters",
            )),
            _ => Err(IdempotencyError::BadKey("the key must be printable ASCII")),
        }
    }

    /// The key of a request, if it has the header.
    ///
    /// The draft wants a structured-field string (RFC 9651, section 3.3.3), `"8e03…"` with its
    /// quotes. Most clients leave them out: a token (letters, digits and ``!#$%&'*+-.^_`|~:/``)
    /// is taken as the string of the same characters, so that both forms are one key.
    ///
    /// # Errors
    /// `BadKey`: more than one header, or no string and no token. Parameters behind the string are
    /// refused as well: the draft defines none, and to ignore one might be to ignore what makes two
    /// keys different.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, IdempotencyError> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(IdempotencyError::BadKey(
                "send one Idempotency-Key, not two",
            ));
        }
        let bytes = value.as_bytes().trim_ascii();
        let key = match bytes.strip_prefix(b"\"") {
            Some(rest) => unquote(rest)?,
            None if bytes.iter().all(|byte| is_token(*byte)) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            None => {
                return Err(IdempotencyError::BadKey(
                    "write the key in double quotes: Idempotency-Key: \"8e03978e\"",
                ));
            }
        };
        Self::new(key).map(Some)
    }

    /// Without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose key it is and what for. The same key in two scopes is two keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(String);

impl Scope {
    /// A scope from its parts: caller, method, route; or the name of a consumer.
    ///
    /// Written as a JSON array, so that no two lists of parts are the same scope: joined with a
    /// separator, `a:b` and `c` would be `a` and `b:c`.
    pub fn new(parts: &[&str]) -> Self {
        let text = json!(parts).to_string();
        if text.len() <= LONGEST_SCOPE_BYTES {
            return Self(text);
        }
        // No scope that is written out begins like this.
        Self(format!("sha256:{}", hex(&Sha256::digest(text))))
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What follows an opening quote: characters, `\"` and `\\`, the closing quote, and nothing.
fn unquote(rest: &[u8]) -> Result<String, IdempotencyError> {
    let mut key = String::new();
    let mut bytes = rest.iter().copied();
    loop {
        match bytes.next() {
            Some(b'"') => break,
            Some(b'\\') => match bytes.next() {
                Some(escaped @ (b'"' | b'\\')) => key.push(char::from(escaped)),
                _ => {
                    return Err(IdempotencyError::BadKey(
                        "a backslash in the key stands before a quote or a backslash",
                    ));
                }
            },
            Some(byte @ b' '..=b'~') => key.push(char::from(byte)),
            Some(_) => return Err(IdempotencyError::BadKey("the key must be printable ASCII")),
            None => {
                return Err(IdempotencyError::BadKey(
                    "the key's closing quote is missing",
                ));
            }
        }
    }
    match bytes.next() {
        None => Ok(key),
        Some(_) => Err(IdempotencyError::BadKey(
            "nothing may follow the key's closing quote",
        )),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(values: &[&[u8]]) -> Result<Option<String>, String> {
        let headers = values.iter().map(|value| {
            let value = HeaderValue::from_bytes(value).unwrap();
            (IDEMPOTENCY_KEY, value)
        });
        // `collect` would keep the last of several.
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        match Key::from_headers(&map) {
            Ok(key) => Ok(key.map(|key| key.0)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_quoted_key_and_a_bare_one_are_the_same_key() {
        for same in [&b"\"8e03-978e\""[..], b"8e03-978e", b" \"8e03-978e\" "] {
            assert_eq!(key(&[same]), Ok(Some("8e03-978e".to_owned())));
        }
        assert_eq!(key(&[]), Ok(None));
    }

    #[test]
    fn a_quoted_key_may_hold_what_a_token_may_not() {
        assert_eq!(
            key(&[br#""a, \"b\" \\ ;c""#]),
            Ok(Some(r#"a, "b" \ ;c"#.to_owned()))
        );
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_to_do() {
        let long = format!("\"{}\"", "x".repeat(256));
        for (wrong, word) in [
            (&b""[..], "empty"),
            (b"\"\"", "empty"),
            (b"\"abc", "closing quote is missing"),
            (b"abc\"", "double quotes"),
            (b"a b", "double quotes"),
            (b"a, b", "double quotes"),
            (b"\"a\"b", "nothing may follow"),
            (b"\"a\"; p=1", "nothing may follow"),
            (b"\"a\", \"b\"", "nothing may follow"),
            (br#""a\n""#, "backslash"),
            (b"\"a\tb\"", "printable"),
            ("\"ä\"".as_bytes(), "printable"),
            (long.as_bytes(), "more than 255"),
        ] {
            let error = key(&[wrong]).unwrap_err();
            assert!(error.contains(word), "{wrong:?}: {error}");
        }
        assert!(key(&[b"a", b"a"]).unwrap_err().contains("not two"));
        assert!(Key::new("a\0").is_err());
        assert_eq!(Key::new("x".repeat(255)).unwrap().as_str().len(), 255);
    }

    #[test]
    fn no_two_lists_of_parts_are_the_same_scope() {
        let long = "x".repeat(600);
        let scopes = [
            Scope::new(&["a:b", "c"]),
            Scope::new(&["a", "b:c"]),
            Scope::new(&["a", "b", "c"]),
            Scope::new(&["a\",\"b", "c"]),
            Scope::new(&["a\0b", "c"]),
            Scope::new(&[&long, "c"]),
            Scope::new(&[&long, "d"]),
        ];
        for (n, scope) in scopes.iter().enumerate() {
            assert!(scope.as_str().len() <= LONGEST_SCOPE_BYTES && !scope.as_str().contains('\0'));
            assert!(!scopes[..n].contains(scope), "{scope:?}");
        }
    }
}
