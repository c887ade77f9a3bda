//! What an answer means: whether something happened, and whether asking again may help. No network here.

use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;

use super::{Fate, Said};

/// Largest answer that is read, in bytes. A page of a hundred invoices has about one mebibyte.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// Longest text of Stripe's that is kept of an error, in characters.
const MAX_TEXT: usize = 500;

/// What the headers of an answer say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Headers {
    /// `Request-Id`.
    pub(super) request_id: Option<String>,
    /// `Stripe-Should-Retry`.
    pub(super) should_retry: Option<bool>,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<Duration>,
    /// `Idempotent-Replayed`.
    pub(super) replayed: bool,
}

impl Headers {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        Self {
            request_id: text("request-id").map(|id| start(id, 64)),
            should_retry: text("stripe-should-retry").and_then(|value| value.parse().ok()),
            retry_after: text("retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs),
            replayed: text("idempotent-replayed") == Some("true"),
        }
    }
}

/// Whether another attempt may bring another answer. Stripe's word counts before the status; an answer that was kept for the
/// key stays what it is. <https://docs.stripe.com/error-low-level>
pub(super) fn may_retry(status: u16, headers: &Headers) -> bool {
    !headers.replayed && headers.should_retry.unwrap_or(matches!(status, 409 | 424 | 429 | 500..))
}

/// What an answer that is no success says of the operation. Only a no in Stripe's words is one; what stands in between may have
/// passed the request on. With 409 another request of the same key is at work, and with 424 and from 500 on Stripe does not know itself.
pub(super) fn fate(status: u16, said: Option<&Said>) -> Fate {
    match status {
        409 | 424 => Fate::Unclear,
        400..500 if said.is_some() => Fate::Refused,
        _ => Fate::Unclear,
    }
}

/// Stripe's words in the body of an error. `key` is taken out, should it be there.
pub(super) fn said(body: &[u8], key: &str) -> Option<Said> {
    #[derive(Deserialize)]
    struct Body {
        error: Words,
    }
    #[derive(Deserialize)]
    struct Words {
        #[serde(rename = "type")]
        kind: String,
        code: Option<String>,
        decline_code: Option<String>,
        param: Option<String>,
        message: Option<String>,
    }
    let Words { kind, code, decline_code, param, message } = serde_json::from_slice::<Body>(body).ok()?.error;
    let clean = |text: String| start(&text.replace(key, "[key]"), MAX_TEXT);
    Some(Said {
        kind: clean(kind),
        code: code.map(clean),
        decline_code: decline_code.map(clean),
        param: param.map(clean),
        message: clean(message.unwrap_or_default()),
    })
}

/// The first characters, on one line.
fn start(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Said {
        Said { kind: "invalid_request_error".to_owned(), ..Said::default() }
    }

    #[test]
    fn a_status_decides_what_is_known_and_whether_to_ask_again() {
        // Status, whether in Stripe's words, Stripe-Should-Retry; what is known, and whether it is tried again.
        let table = [
            (400, true, None, Fate::Refused, false),
            (400, true, Some(true), Fate::Refused, true),
            (401, true, None, Fate::Refused, false),
            (402, true, None, Fate::Refused, false),
            (403, true, None, Fate::Refused, false),
            (403, false, None, Fate::Unclear, false),
            (404, true, None, Fate::Refused, false),
            (404, false, None, Fate::Unclear, false),
            (409, true, None, Fate::Unclear, true),
            (409, true, Some(false), Fate::Unclear, false),
            (424, true, None, Fate::Unclear, true),
            (429, true, None, Fate::Refused, true),
            (429, true, Some(false), Fate::Refused, false),
            (429, false, None, Fate::Unclear, true),
            (500, true, None, Fate::Unclear, true),
            (500, true, Some(false), Fate::Unclear, false),
            (502, false, None, Fate::Unclear, true),
            (503, false, Some(true), Fate::Unclear, true),
            (302, false, None, Fate::Unclear, false),
            (103, false, None, Fate::Unclear, false),
        ];
        for (status, own, should_retry, known, again) in table {
            let said = own.then(words);
            assert_eq!(fate(status, said.as_ref()), known, "{status} {own}");
            let headers = Headers { should_retry, ..Headers::default() };
            assert_eq!(may_retry(status, &headers), again, "{status} {should_retry:?}");
            let replayed = Headers { replayed: true, ..headers };
            assert!(!may_retry(status, &replayed), "{status}: it would be the same again");
        }
    }

    #[test]
    fn headers_are_read_where_they_make_sense() {
        let mut headers = HeaderMap::new();
        assert_eq!(Headers::of(&headers), Headers::default());
        for (name, value) in [
            ("request-id", "req_1"),
            ("stripe-should-retry", "false"),
            ("retry-after", " 7 "),
            ("idempotent-replayed", "true"),
        ] {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
        let expected = Headers {
            request_id: Some("req_1".to_owned()),
            should_retry: Some(false),
            retry_after: Some(Duration::from_secs(7)),
            replayed: true,
        };
        assert_eq!(Headers::of(&headers), expected);
        for odd in ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "", "99999999999999999999999"] {
            headers.insert("retry-after", http::HeaderValue::from_static(odd));
            assert_eq!(Headers::of(&headers).retry_after, None, "{odd}");
        }
    }

    #[test]
    fn words_are_bounded_and_hold_no_key() {
        let text = format!("no such key: sk_test_1{}\n", "x".repeat(1000));
        let body = serde_json::json!({ "error": { "type": "invalid_request_error", "message": text } });
        let found = said(body.to_string().as_bytes(), "sk_test_1").expect("words");
        assert_eq!(found.message.chars().count(), MAX_TEXT);
        assert!(found.message.starts_with("no such key: [key]xxx"), "{}", found.message);
        for odd in ["<html>502</html>", "{}", r#"{"error": "x"}"#, r#"{"error": {}}"#, ""] {
            assert_eq!(said(odd.as_bytes(), "sk_test_1"), None, "{odd}");
        }
    }
}
