//! Errors outside of MCP: problem details (RFC 9457), one mapping for the whole admin API.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::error::Error;

/// An error as the caller sees it.
#[derive(Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable word for programs, such as `not_found`.
    pub code: &'static str,
    /// A sentence for people that says what to do.
    pub detail: String,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem of this status, code and text.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None }
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 400.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 429.
    #[must_use]
    pub fn too_many(retry_after: u32) -> Self {
        let detail = format!("too many requests; try again in {retry_after} s");
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
        Self { retry_after: Some(retry_after), ..problem }
    }

    /// 503, for what may be tried again in a second.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        Self { retry_after: Some(1), ..problem }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(what) => Self::not_found(format!("{what} not found")),
            Error::Conflict(text) => Self::new(StatusCode::CONFLICT, "conflict", text),
            Error::Invalid(text) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text),
            Error::Database(cause) => {
                tracing::error!(error = %cause, "the database failed");
                Self::unavailable("the database is not available; try again")
            }
            // Not an event of its own: that the dependency is away has been said.
            away @ Error::Away(_) => Self::unavailable(away.to_string()),
            Error::Internal(cause) => {
                tracing::error!(error = %cause, "internal error");
                let text = "something broke here; quote the X-Request-Id of this response when you report it";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
