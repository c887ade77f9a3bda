//! `POST /webhooks/stripe`: what Stripe says happened. Signed over the raw body, so that nothing else is asked for, and whatever
//! stands in `Content-Type`. <https://docs.stripe.com/webhooks>

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;

use super::extract::Json;
use super::problem::Problem;
use crate::app::App;
use crate::billing::inbox::receive::{Received, Receiver, Refused};

/// Largest event, in bytes. They hold one object each, and of its lists the first ten.
const MAX_BODY: usize = 256 * 1024;

/// How long a body may take at most: Stripe sends it at once, and whoever does not keeps a place from others.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes an event in. 200 says that it is stored, was so before, or is of no interest.
pub async fn stripe(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let Some(receiver) = &app.webhooks else {
        return Err(Problem::not_found("no Stripe is configured here"));
    };
    receiver.expects(signature(request.headers())).map_err(problem)?;
    let Some(_place) = receiver.place() else {
        return Err(Problem::unavailable("too many events at once; send it again"));
    };
    let (parts, body) = request.into_parts();
    let time = app.config.server.body_read_timeout.get().min(PATIENCE);
    let body = read(receiver, body, time).await?;
    match receiver.receive(signature(&parts.headers), &body).await {
        Ok(received) => {
            let what = match received {
                Received::Stored => "stored",
                Received::Duplicate => "known",
                Received::Unfollowed => "not followed",
            };
            Ok(Json(json!({ "received": what })).into_response())
        }
        Err(refused) => Err(problem(refused)),
    }
}

/// The one header; nothing, where there are several or none.
fn signature(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all("stripe-signature").iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().unwrap_or(""),
        _ => "",
    }
}

fn problem(refused: Refused) -> Problem {
    let (code, detail) = (refused.text(), refused.to_string());
    match refused {
        Refused::NoSecret => Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail),
        Refused::Signature(_) | Refused::Malformed | Refused::Mode => {
            Problem::new(StatusCode::BAD_REQUEST, code, detail)
        }
        Refused::Unstored(error) => error.into(),
    }
}

async fn read(receiver: &Receiver, body: Body, time: Duration) -> Result<Bytes, Problem> {
    let oversized = || {
        receiver.turned_away("oversized");
        let text = format!("an event holds at most {MAX_BODY} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
    };
    if http_body::Body::size_hint(&body).lower() > MAX_BODY as u64 {
        return Err(oversized());
    }
    match tokio::time::timeout(time, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => {
            receiver.turned_away("slow");
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time"))
        }
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(oversized()),
        Ok(Err(_)) => {
            receiver.turned_away("broken_off");
            Err(Problem::bad_request("the body broke off"))
        }
    }
}
