//! What a scraper gets: OpenMetrics if it asks for it, else Prometheus' own text.
//!
//! Two formats, because only OpenMetrics has exemplars and units, and only the older one is read
//! by everything (`curl`, `promtool check metrics`, a browser).

use std::sync::{Arc, PoisonError};

use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prometheus_client::encoding::{prometheus_text, text};

use super::Metrics;
use crate::http::Problem;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// A route for `GET /metrics`. It has no guard of its own: who can reach it can read it.
    pub fn route<S: Clone + Send + Sync + 'static>(&self) -> MethodRouter<S> {
        // Not a clone of it all, so that a router does not hold more than it shows.
        let metrics = self.clone();
        get(async move |headers: HeaderMap| metrics.answer(&headers))
    }

    /// The text in the format that `Accept` prefers.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let registry = Arc::clone(&self.registry);
        let registry = registry.read().unwrap_or_else(PoisonError::into_inner);
        let mut body = String::new();
        let (written, content_type) = if prefers_openmetrics(headers) {
            (text::encode(&mut body, &registry), OPENMETRICS)
        } else {
            let written = prometheus_text::encode(&mut body, &registry);
            (written, prometheus_text::CONTENT_TYPE)
        };
        if written.is_err() {
            // Half a page of metrics would be taken for all of them.
            return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no metrics").into_response();
        }
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (header::VARY, HeaderValue::from_static("accept")),
        ];
        (headers, body).into_response()
    }
}

/// RFC 9110, section 12.5.1, for two types: the greater quality wins, and OpenMetrics where both
/// are equal, but only if it is named: `*/*` is what a browser and `curl` say.
fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let mut openmetrics = 0.0_f64;
    let (mut text, mut any_text, mut anything) = (None, None, None);
    let values = headers.get_all(header::ACCEPT).iter();
    let ranges = values.filter_map(|value| value.to_str().ok());
    for range in ranges.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut quality = 1.0;
        let mut version = None;
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q" | "Q", value)) => quality = value.parse().unwrap_or(0.0),
                Some(("version", value)) => version = Some(value.trim_matches('"')),
                _ => {}
            }
        }
        match name.as_str() {
            // The 0.0.1 that old scrapers name is the draft of the same text.
            "application/openmetrics-text"
                if version.is_none_or(|version| ["1.0.0", "0.0.1"].contains(&version)) =>
            {
                openmetrics = openmetrics.max(quality);
            }
            "text/plain" if version.is_none_or(|version| version == "0.0.4") => {
                text = Some(text.map_or(quality, |known: f64| known.max(quality)));
            }
            "text/*" => any_text = Some(quality),
            "*/*" => anything = Some(quality),
            _ => {}
        }
    }
    // The narrower range counts, not the greater quality.
    let text = text.or(any_text).or(anything).unwrap_or(0.0);
    openmetrics > 0.0 && openmetrics >= text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        let prefers = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            prefers_openmetrics(&headers)
        };
        // Prometheus 2.42, and 3 with its protobuf first.
        assert!(prefers(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(prefers(
            "application/vnd.google.protobuf;q=0.9,application/openmetrics-text;version=1.0.0;q=0.8, text/plain;version=0.0.4;q=0.6,*/*;q=0.5"
        ));
        assert!(prefers("application/openmetrics-text, */*;q=0.1"));
        for text in [
            "*/*",
            "",
            "text/html,*/*;q=0.8",
            "text/plain",
            "application/openmetrics-text;q=0.2,text/plain;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
        ] {
            assert!(!prefers(text), "{text}");
        }
        assert!(!prefers_openmetrics(&HeaderMap::new()));
    }
}
