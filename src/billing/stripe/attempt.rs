//! One attempt: the request as it goes out, and the answer as it comes in.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use miniserde::Deserialize;
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use super::answer::{self, Headers, MAX_BYTES};
use super::operation::{is_plain, method};
use super::{Call, Fate, Key, Operation, Stripe, StripeError, Trouble, VERSION};

/// A success, as it arrived.
pub(super) struct Ready {
    pub(super) body: Bytes,
    pub(super) request_id: Option<String>,
    /// How many attempts it took.
    pub(super) attempts: u32,
    pub(super) operation: Operation,
    pub(super) status: u16,
}

/// How an attempt ended.
pub(super) struct Attempt {
    pub(super) result: Result<Ready, StripeError>,
    /// Whether another one may bring something else, and does no harm.
    pub(super) retry: bool,
    /// How long to wait before, as far as Stripe said.
    pub(super) wait: Option<Duration>,
}

impl Ready {
    /// As the type that it should be.
    pub(super) fn parsed<T: Deserialize>(self) -> Result<T, StripeError> {
        let text = std::str::from_utf8(&self.body).map_err(|_| "not UTF-8".to_owned());
        let parsed = text.and_then(|text| {
            miniserde::json::from_str(text).map_err(|_| {
                match serde_json::from_str::<serde_json::Value>(text) {
                    Ok(_) => format!("not a {}", std::any::type_name::<T>()),
                    Err(_) => "not JSON".to_owned(),
                }
            })
        });
        parsed.map_err(|why| self.unreadable(why))
    }

    /// The same for a type of our own, which need not be the whole object.
    pub(super) fn parsed_json<T: DeserializeOwned>(self) -> Result<T, StripeError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // Other texts quote what stands there.
            let text = error.to_string();
            let is_plain = error.is_syntax() || error.is_eof() || text.starts_with("missing field");
            self.unreadable(if is_plain { text } else { format!("not a {}", std::any::type_name::<T>()) })
        })
    }

    fn unreadable(self, why: String) -> StripeError {
        StripeError {
            operation: self.operation,
            fate: Fate::Happened,
            trouble: Trouble::Unreadable(why),
            status: Some(self.status),
            said: None,
            request_id: self.request_id,
            replayed: false,
            attempts: self.attempts,
        }
    }
}

impl Stripe {
    /// Sends the request once. `key` is its idempotency key, if it is of a kind that has one.
    pub(super) async fn attempt(&self, call: &Call<'_>, operation: &Operation, key: &str) -> Attempt {
        let mut error = StripeError {
            operation: operation.clone(),
            fate: Fate::Refused,
            trouble: Trouble::Unsendable,
            status: None,
            said: None,
            request_id: None,
            replayed: false,
            attempts: 1,
        };
        if !is_plain(&call.request.path) {
            return Attempt { result: Err(error), retry: false, wait: None };
        }
        let sent = self.request(call, key).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(why) => {
                (error.trouble, error.fate) = unanswered(why);
                return Attempt { result: Err(error), retry: true, wait: None };
            }
        };
        let status = response.status().as_u16();
        let headers = Headers::of(response.headers());
        (error.status, error.request_id, error.replayed) =
            (Some(status), headers.request_id.clone(), headers.replayed);
        let body = read(response).await;
        if !(200..300).contains(&status) {
            error.trouble = Trouble::Status;
            error.said = body.ok().and_then(|body| answer::said(&body, self.key.expose_secret()));
            error.fate = answer::fate(status, error.said.as_ref());
            let retry = answer::may_retry(status, &headers);
            return Attempt { result: Err(error), retry, wait: headers.retry_after };
        }
        // The same key brings the same answer again; another one would do the same a second time.
        let same = call.request.body.is_none() || !matches!(call.key, Key::PerAttempt);
        match body {
            Ok(body) => {
                let (request_id, operation) = (error.request_id, error.operation);
                let ready = Ready { body, request_id, attempts: 1, operation, status };
                Attempt { result: Ok(ready), retry: false, wait: None }
            }
            Err(trouble) => {
                let retry = same && trouble != Trouble::TooLarge;
                error.fate = Fate::Happened;
                error.trouble = trouble;
                Attempt { result: Err(error), retry, wait: None }
            }
        }
    }

    fn request(&self, call: &Call<'_>, key: &str) -> reqwest::RequestBuilder {
        let request = &call.request;
        let method = method(request.method);
        let query = request.query.as_deref().filter(|query| !query.is_empty());
        let url = match query {
            Some(query) => format!("{}/v1{}?{query}", self.url, request.path),
            None => format!("{}/v1{}", self.url, request.path),
        };
        let is_post = method == http::Method::POST;
        let mut sent = self
            .client
            .request(method, url)
            .bearer_auth(self.key.expose_secret())
            .header("Stripe-Version", VERSION.as_str())
            .header(header::ACCEPT, "application/json");
        if let Some(account) = &call.account {
            sent = sent.header("Stripe-Account", account);
        }
        if let Some(timeout) = call.timeout {
            sent = sent.timeout(timeout);
        }
        if is_post {
            sent = sent
                .header("Idempotency-Key", key)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(request.body.clone().unwrap_or_default());
        }
        sent
    }
}

/// What is known where no answer came.
fn unanswered(error: reqwest::Error) -> (Trouble, Fate) {
    // Nothing has been sent before there is a connection, however long that takes.
    let fate = if error.is_connect() { Fate::Refused } else { Fate::Unclear };
    let trouble = if error.is_timeout() {
        Trouble::Timeout
    } else if error.is_connect() {
        Trouble::Unreachable(chain(error))
    } else {
        Trouble::Broken(chain(error))
    };
    (trouble, fate)
}

/// The whole chain of an error, without the URL: its query may name customers.
fn chain(error: reqwest::Error) -> String {
    use std::error::Error;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn read(mut response: reqwest::Response) -> Result<Bytes, Trouble> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_BYTES => return Err(Trouble::TooLarge),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(error) if error.is_timeout() => return Err(Trouble::Timeout),
            Err(error) => return Err(Trouble::Broken(chain(error))),
        }
    }
}
