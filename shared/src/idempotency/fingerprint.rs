//! What makes two requests the same request.

use http::request::Parts;
use http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::key::hex;

/// JSON nested deeper than this is compared byte by byte; 128 is also where serde_json gives up.
const DEEPEST: usize = 128;

/// How bodies are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BodyForm {
    /// Byte by byte. What a client sends again is mostly what it kept.
    #[default]
    Bytes,
    /// JSON without regard to white space, to the order of members, and to how a text is escaped;
    /// other bodies byte by byte. For clients that write the body anew.
    ///
    /// Numbers are compared as they are written, so 1.0 and 1 differ: two large numbers that a
    /// `f64` cannot tell apart are two amounts. A member that comes twice counts twice.
    Json,
}

/// A SHA-256 of a request. It tells requests apart; it does not hide what is in them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Fingerprint {
    /// Of parts, each with its length before it: `["ab", "c"]` is not `["a", "bc"]`.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }

    /// Of a request: method, path, query, content type, and body in one of two forms.
    pub fn of_request(parts: &Parts, body: &[u8], form: BodyForm) -> Self {
        let canonical = match form {
            BodyForm::Json if is_json(&parts.headers) => canonical(body),
            _ => None,
        };
        // Whatever the bytes, no body is taken for the canonical form of another one.
        let (kind, body) = match &canonical {
            Some(text) => (&b"json"[..], text.as_bytes()),
            None => (&b"bytes"[..], body),
        };
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        Self::of(&[
            parts.method.as_str().as_bytes(),
            parts.uri.path().as_bytes(),
            parts.uri.query().unwrap_or_default().as_bytes(),
            content_type
                .map(|value| value.as_bytes())
                .unwrap_or_default(),
            kind,
            body,
        ])
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

/// `None` if it is no JSON, or nested too deeply.
fn canonical(body: &[u8]) -> Option<String> {
    let value: &RawValue = serde_json::from_slice(body).ok()?;
    let mut text = String::with_capacity(body.len());
    write(value.get(), DEEPEST, &mut text)?;
    Some(text)
}

/// Not through `serde_json::Value`: it holds numbers as `f64`, and whether it keeps the order of
/// members depends on a feature that any crate of the tree may switch on.
fn write(json: &str, depth: usize, text: &mut String) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match json.as_bytes().first()? {
        b'{' => {
            let Members(mut members) = serde_json::from_str(json).ok()?;
            // Stable: members of the same name stay in their order.
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            text.push('{');
            for (name, value) in members {
                text.push_str(&serde_json::to_string(&name).ok()?);
                text.push(':');
                write(value.get(), depth, text)?;
                text.push(',');
            }
            text.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            text.push('[');
            for item in items {
                write(item.get(), depth, text)?;
                text.push(',');
            }
            text.push(']');
        }
        b'"' => {
            let value: String = serde_json::from_str(json).ok()?;
            text.push_str(&serde_json::to_string(&value).ok()?);
        }
        _ => text.push_str(json),
    }
    Some(())
}

/// An object's members, all of them: a map would drop all but one of the same name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(method: &str, uri: &str, content_type: &str, body: &str, form: BodyForm) -> Fingerprint {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content_type)
            .body(())
            .unwrap();
        Fingerprint::of_request(&request.into_parts().0, body.as_bytes(), form)
    }

    #[test]
    fn each_part_of_a_request_counts() {
        let prints = [
            of("POST", "/a?b=c", "text/plain", "d", BodyForm::Bytes),
            of("PATCH", "/a?b=c", "text/plain", "d", BodyForm::Bytes),
            of("POST", "/x?b=c", "text/plain", "d", BodyForm::Bytes),
            of("POST", "/a?b=x", "text/plain", "d", BodyForm::Bytes),
            of("POST", "/a", "text/plain", "d", BodyForm::Bytes),
            of("POST", "/a?b=c", "text/html", "d", BodyForm::Bytes),
            of("POST", "/a?b=c", "text/plain", "x", BodyForm::Bytes),
            of("POST", "/a?b=", "text/plain", "cd", BodyForm::Bytes),
        ];
        for (n, print) in prints.iter().enumerate() {
            assert!(!prints[..n].contains(print), "{n}");
        }
    }

    #[test]
    fn the_same_json_written_differently_is_the_same_only_if_asked_for() {
        let of = |body, form| of("POST", "/a", "application/json; charset=utf-8", body, form);
        let (one, other) = (
            r#"{"amount":1.50,"to":{"x":"é","y":[1,null]}}"#,
            "{ \"to\" : {\"y\":[ 1, null ],\"x\":\"\\u00e9\"}, \"amount\": 1.50 }\n",
        );
        assert_eq!(of(one, BodyForm::Json), of(other, BodyForm::Json));
        assert_ne!(of(one, BodyForm::Bytes), of(other, BodyForm::Bytes));
    }

    #[test]
    fn json_that_says_something_else_is_never_the_same() {
        let deep = |n: usize, x: &str| format!("{}{x}{}", "[".repeat(n), "]".repeat(n));
        let (deep_1, deep_2) = (deep(200, "1"), deep(200, "2"));
        let bodies = [
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"{"a":2}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[12]}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"a":null}"#,
            // Beyond what a `f64` can tell apart.
            r#"{"a":90071992547409931}"#,
            r#"{"a":90071992547409932}"#,
            r#"{"a":100000000000000000001}"#,
            r#"{"a":100000000000000000002}"#,
            "no json",
            "{",
            "",
            &deep_1,
            &deep_2,
        ];
        let of = |body| {
            of(
                "POST",
                "/a",
                "application/vnd.pay+json",
                body,
                BodyForm::Json,
            )
        };
        for (n, body) in bodies.iter().enumerate() {
            for other in &bodies[..n] {
                assert_ne!(of(body), of(other), "{body} {other}");
            }
        }
    }

    #[test]
    fn a_hostile_depth_is_no_stack_overflow() {
        let body = "[".repeat(1 << 20);
        of("POST", "/a", "application/json", &body, BodyForm::Json);
        let closed = format!("{body}{}", "]".repeat(1 << 20));
        of("POST", "/a", "application/json", &closed, BodyForm::Json);
    }
}
