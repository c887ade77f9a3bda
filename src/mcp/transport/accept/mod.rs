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
    /// Reads `Accept` (RFC 9110 section 12.5.1). A missing header accepts everything. A range with `q=0` is refused by the
    /// client; of ranges that fit, the most specific one counts.
    #[must_use]
    pub fn from(headers: &HeaderMap) -> Self {
        let mut seen = false;
        let (mut json, mut stream) = (Choice::default(), Choice::default());
        for value in headers.get_all(ACCEPT) {
            for range in value.to_str().unwrap_or("").split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or("").to_ascii_lowercase();
                seen |= !kind.is_empty();
                let refused = parts.any(|p| {
                    p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
                });
                match kind.as_str() {
                    "application/json" => json.hear(2, !refused),
                    "application/*" => json.hear(1, !refused),
                    "text/event-stream" => stream.hear(2, !refused),
                    "text/*" => stream.hear(1, !refused),
                    "*/*" => {
                        json.hear(0, !refused);
                        stream.hear(0, !refused);
                    }
                    _ => {}
                }
            }
        }
        if seen { Self { json: json.taken, stream: stream.taken } } else { Self { json: true, stream: true } }
    }
}

/// Whether one form is taken, by the most specific range so far.
#[derive(Default)]
struct Choice {
    specificity: u8,
    taken: bool,
    heard: bool,
}

impl Choice {
    fn hear(&mut self, specificity: u8, taken: bool) {
        if self.heard && specificity < self.specificity {
            return;
        }
        // Of two ranges alike, the one that takes it wins.
        let alike = self.heard && specificity == self.specificity;
        *self = Self { specificity, taken: taken || (alike && self.taken), heard: true };
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
            ("text/event-stream;q=0, */*", true, false),
            ("*/*, application/json;q=0", false, true),
            ("application/*;q=0, application/json, text/*", true, true),
            ("*/*;q=0", false, false),
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
