//! Errors in the envelope of Stripe's API (docs.stripe.com/api/errors).

use http::StatusCode;
use serde_json::{Value, json};

/// Why a request is refused: one error envelope.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    message: String,
    param: Option<String>,
    decline_code: Option<&'static str>,
    /// The endpoint had begun its work, so the answer is kept for the request's idempotency key.
    pub begun: bool,
}

impl Refusal {
    /// 400 before the endpoint began: the parameters are wrong in themselves.
    pub fn invalid(code: Option<&'static str>, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), code, ..Self::plain(StatusCode::BAD_REQUEST, message) }
    }

    /// An `invalid_request_error` without a code or a parameter, before the endpoint began.
    pub fn plain(status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            kind: "invalid_request_error",
            code: None,
            message,
            param: None,
            decline_code: None,
            begun: false,
        }
    }

    /// A parameter that must be there is not.
    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required param: {param}.");
        Self::invalid(Some("parameter_missing"), param, message)
    }

    /// The endpoint looked for an object that is not there. 404 for the one in the path, 400 for one in a parameter.
    pub fn no_such(what: &str, id: &str, param: &str, status: StatusCode) -> Self {
        let message = format!("No such {what}: '{id}'");
        Self { status, begun: true, ..Self::invalid(Some("resource_missing"), param, message) }
    }

    /// 400 from the endpoint itself: the parameters contradict what is there.
    pub fn conflict(code: Option<&'static str>, param: &str, message: impl Into<String>) -> Self {
        Self { begun: true, ..Self::invalid(code, param, message) }
    }

    /// 404: there will be no further invoice.
    pub fn none_upcoming(message: &str) -> Self {
        let refusal = Self::invalid(Some("invoice_upcoming_none"), "subscription", message);
        Self { status: StatusCode::NOT_FOUND, begun: true, ..refusal }
    }

    /// The key was used before, for something else, or is in use now.
    pub fn idempotency(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { kind: "idempotency_error", code, ..Self::plain(status, message) }
    }

    /// 429: too many requests at once.
    pub fn too_many(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::plain(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// 402: the card's issuer, or a check before it, said no (docs.stripe.com/declines/codes).
    pub fn card(code: &'static str, decline_code: Option<&'static str>, message: &str) -> Self {
        let refusal = Self::plain(StatusCode::PAYMENT_REQUIRED, message);
        Self { kind: "card_error", code: Some(code), decline_code, begun: true, ..refusal }
    }

    /// 500: trouble on the other side.
    pub fn trouble() -> Self {
        let message = "An unknown error occurred";
        Self { kind: "api_error", begun: true, ..Self::plain(StatusCode::INTERNAL_SERVER_ERROR, message) }
    }

    /// What is wrong, in words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The envelope.
    pub fn body(&self) -> Value {
        let mut error = json!({ "message": self.message, "type": self.kind });
        if let Some(code) = self.code {
            error["code"] = json!(code);
            let page = code.replace('_', "-");
            error["doc_url"] = json!(format!("https://stripe.com/docs/error-codes/{page}"));
        }
        if let Some(code) = self.decline_code {
            error["decline_code"] = json!(code);
        }
        if let Some(param) = &self.param {
            error["param"] = json!(param);
        }
        json!({ "error": error })
    }
}
