//! `Accept`: which of the two forms of a reply the client can read.

use http::HeaderMap;
use http::header::ACCEPT;

/// What the client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// `application/json`.
    pub json: bool,
    /// `text/event-stream`.
    pub stream: bool,
}

impl Accepts {
    /// Reads `Accept` (RFC 9110 section 12.5.1). A missing header accepts everything; so do wildcards. A range with
    /// `q=0` is refused by the client.
    #[must_use]
    pub fn from(headers: &HeaderMap) -> Self {
        let mut seen = false;
        let mut accepts = Self { json: false, stream: false };
        for value in headers.get_all(ACCEPT) {
            for range in value.to_str().unwrap_or("").split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or("").to_ascii_lowercase();
                seen |= !kind.is_empty();
                let refused = parts.any(|p| {
                    p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
                });
                if refused {
                    continue;
                }
                match kind.as_str() {
                    "application/json" | "application/*" => accepts.json = true,
                    "text/event-stream" | "text/*" => accepts.stream = true,
                    "*/*" => accepts = Self { json: true, stream: true },
                    _ => {}
                }
            }
        }
        if seen { accepts } else { Self { json: true, stream: true } }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_the_client_can_read() {
        for (value, json, stream) in [
            ("application/json, text/event-stream", true, true),
            ("application/json", true, false),
            ("TEXT/EVENT-STREAM;q=0.5", false, true),
            ("*/*", true, true),
            ("text/event-stream;q=0, application/json", true, false),
            ("text/html", false, false),
            ("", true, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, value.parse().expect("a value"));
            assert_eq!(Accepts::from(&headers), Accepts { json, stream }, "{value}");
        }
        assert_eq!(Accepts::from(&HeaderMap::new()), Accepts { json: true, stream: true });
    }
}
