//! An answer before it goes out, and what becomes of a connection that gets none.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use super::refusal::Refusal;

/// How the server names itself, so that nobody takes it for Stripe.
const SERVER: &str = "weir-stripe-standin";

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// JSON, printed as Stripe prints it.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, "application/json", format!("{body:#}\n"))
    }

    /// Text of some other kind.
    pub fn new(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(http::header::SERVER, HeaderValue::from_static(SERVER));
        Self { status, headers, body: body.into() }
    }

    /// What a proxy before Stripe says when it finds nobody behind it.
    pub fn bad_gateway() -> Self {
        let page =
            "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n";
        Self::new(StatusCode::BAD_GATEWAY, "text/html", page)
    }

    /// With a header; one that cannot be written is left out.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// This answer given once more for its idempotency key.
    pub fn replayed(&self) -> Self {
        let first =
            self.headers.get("request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        self.clone().with("idempotent-replayed", "true").with("original-request", &first)
    }

    /// As it goes out.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Self {
        let answer = Self::json(refusal.status, &refusal.body());
        // STANDIN-RETRY-1
        if refusal.status.is_client_error() && refusal.status.as_u16() < 409 {
            answer.with("stripe-should-retry", "false")
        } else {
            answer
        }
    }
}

/// What a request comes to.
pub enum Outcome {
    /// An answer.
    Answer(Answer),
    /// The connection closes without one.
    Close,
    /// The connection is reset.
    Reset,
}
