//! Questions of tools to legacy clients: what the core returns as `input_required` goes out as requests of our own on
//! the stream of the call, and the call goes on with the answers, which come as messages of their own (2025-11-25
//! "Elicitation", "Sampling", "Roots").
//!
//! Declined and cancelled forms are answers like any other: the tool hears of them. Where no usable answer comes, the
//! call ends with a business error that says what was asked and what went wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Arrival;
use super::reply::business_error;
use crate::app::App;
use crate::caller::Caller;
use crate::credentials::{CredentialRef, Refused};
use crate::limits::Scope;
use crate::mcp::error::RpcError;
use crate::mcp::feed::{Feed, Undeliverable};
use crate::mcp::jsonrpc::{self, RequestId};
use crate::mcp::result::CoreResult;
use crate::mcp::revision::Revision;
use crate::mcp::session::{Question, Session};
use crate::mcp::{self, Exchange};
use crate::telemetry::labels::Answer;

/// How often one call may ask.
const MAX_ROUNDS: u32 = 16;
/// How long a call waits that asks nothing but to come again.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest part of a client's own words that is repeated, in characters.
const MAX_QUOTED: usize = 200;

/// Where a call can ask its client, and hear from it.
#[derive(Clone)]
pub struct Line {
    /// The session that answers come to.
    pub session: Arc<Session>,
    /// The stream that questions go out on.
    pub feed: Arc<Feed>,
    /// How to check who calls, before the call goes on.
    pub credential: CredentialRef,
}

impl Line {
    /// A line through this stream, for whoever sent the request.
    pub fn new(arrival: &Arrival, session: &Arc<Session>, feed: Arc<Feed>) -> Self {
        Self { session: session.clone(), feed, credential: arrival.credential.clone() }
    }
}

/// Answers a legacy request, with as many questions over `line` as it takes. Without a line the question itself is the
/// outcome.
///
/// # Errors
/// The JSON-RPC error to answer with; −31001 where too many calls of the tenant wait for answers.
pub async fn answer(app: &App, exchange: &mut Exchange, line: Option<&Line>) -> Result<CoreResult, RpcError> {
    // Both came with 2026-07-28; here they are ours alone.
    exchange.request.params.input_responses = None;
    exchange.request.params.request_state = None;
    for _ in 0..MAX_ROUNDS {
        let outcome = mcp::answer(app, exchange).await?;
        let (CoreResult::InputRequired { requests, state }, Some(line)) = (&outcome, line) else {
            return Ok(outcome);
        };
        let place = app.limits.place(&exchange.caller, Scope::Questions).await;
        let _place = place.inspect_err(|reached| app.metrics.rate_limited.inc(reached.scope))?;
        match line.ask(app, exchange, requests).await {
            Ok(answers) => exchange.request.params.input_responses = Some(answers),
            Err(Unanswered(outcome, why)) => {
                app.metrics.questions.inc(outcome);
                return business_error(&exchange.request.method, why);
            }
        }
        if !requests.is_empty() {
            app.metrics.questions.inc(Answer::Answered);
        }
        exchange.caller = line.caller(app).await?;
        exchange.request.params.request_state.clone_from(state);
    }
    business_error(
        &exchange.request.method,
        format!("The tool asked {MAX_ROUNDS} times and was not content."),
    )
}

/// Why there is no usable answer: for metrics, and for the client's model.
struct Unanswered(Answer, String);

impl Unanswered {
    fn abandoned(text: impl Into<String>) -> Self {
        Self(Answer::Abandoned, text.into())
    }
}

/// One question that went out.
struct Asked<'a> {
    key: &'a str,
    request: &'a Value,
    question: Question,
}

fn method(request: &Value) -> &str {
    request.get("method").and_then(Value::as_str).unwrap_or("")
}

impl Line {
    /// Asks everything at once and returns the answers as `inputResponses`.
    ///
    /// # Errors
    /// What went wrong. Questions that are not answered are withdrawn.
    async fn ask(
        &self,
        app: &App,
        exchange: &Exchange,
        requests: &Map<String, Value>,
    ) -> Result<Bytes, Unanswered> {
        let mut asked = Vec::with_capacity(requests.len());
        let mut answers = Map::new();
        let outcome = match self.send(exchange, requests, &mut asked) {
            Ok(()) => wait(app, exchange, &mut asked, &mut answers).await,
            Err(why) => Err(why),
        };
        if outcome.is_err() {
            self.give_up(asked.iter().filter(|asked| !answers.contains_key(asked.key)));
        }
        outcome.map(|()| Bytes::from(Value::from(answers).to_string()))
    }

    /// Sends the questions out.
    fn send<'a>(
        &self,
        exchange: &Exchange,
        requests: &'a Map<String, Value>,
        asked: &mut Vec<Asked<'a>>,
    ) -> Result<(), Unanswered> {
        if exchange.request.revision < Revision::V2025_11_25 && requests.values().any(has_lists) {
            let text = "The form to fill in has a list of choices, which this client's revision of MCP does not know.";
            return Err(Unanswered::abandoned(text));
        }
        for (key, request) in requests {
            let question = self.session.ask().map_err(|error| Unanswered::abandoned(error.message))?;
            let params = wording(request, exchange.request.revision, question.id());
            let text = jsonrpc::request(question.id(), method(request), &params.to_string());
            self.feed.must(&text).map_err(|why| {
                Unanswered::abandoned(match why {
                    Undeliverable::Full => "The connection has too many unread messages to ask anything.",
                    Undeliverable::Ended => "The client went away before it could be asked.",
                })
            })?;
            asked.push(Asked { key, request, question });
        }
        Ok(())
    }

    /// Who answered, as far as that may have changed while a person was thinking.
    async fn caller(&self, app: &App) -> Result<Caller, RpcError> {
        match app.credentials.resolve_reference(&self.credential).await {
            Ok(caller) => Ok(caller),
            Err(Refused::Unavailable) => Err(RpcError::unavailable()),
            Err(Refused::Invalid | Refused::Suspended { .. }) => Err(RpcError::session_not_found()),
        }
    }

    /// Tells the client that its answers are no longer wanted ("Cancellation").
    fn give_up<'a>(&self, unanswered: impl Iterator<Item = &'a Asked<'a>>) {
        for asked in unanswered {
            let id = asked.question.id().as_json();
            let params = format!("{{\"requestId\":{id},\"reason\":\"the call that asked is over\"}}");
            self.feed.say(&jsonrpc::notification("notifications/cancelled", Some(&params)));
        }
    }
}

/// Waits for the answers, as long as that makes sense.
async fn wait(
    app: &App,
    exchange: &Exchange,
    asked: &mut [Asked<'_>],
    answers: &mut Map<String, Value>,
) -> Result<(), Unanswered> {
    if asked.is_empty() {
        // A call that asks nothing comes again a moment later.
        tokio::select! {
            () = exchange.cancelled.cancelled() => {}
            () = app.tasks.stopping().cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
        return Ok(());
    }
    let limit = app.config.mcp.input_timeout.get();
    tokio::select! {
        biased;
        () = exchange.cancelled.cancelled() => Err(Unanswered::abandoned("The call was cancelled.")),
        () = app.tasks.stopping().cancelled() => {
            let text = "The gateway is restarting and cannot wait for the answer; call again.";
            Err(Unanswered::abandoned(text))
        }
        done = tokio::time::timeout(limit, hear(asked, answers)) => {
            let text = || format!("The client did not answer within {} s; call again.", limit.as_secs_f64());
            done.unwrap_or_else(|_| Err(Unanswered(Answer::Timeout, text())))
        }
    }
}

/// Waits for the answer to each question, in any order.
async fn hear(asked: &mut [Asked<'_>], answers: &mut Map<String, Value>) -> Result<(), Unanswered> {
    let each = asked.iter_mut().map(|one| async { (one.key, one.request, one.question.answer().await) });
    let mut each: FuturesUnordered<_> = each.collect();
    while let Some((key, request, heard)) = each.next().await {
        let ended = || Unanswered::abandoned("The session ended before the client answered.");
        let method = method(request);
        let answer = match heard.ok_or_else(ended)? {
            Ok(result) => serde_json::from_slice(&result).unwrap_or(Value::Null),
            Err(error) => {
                answers.insert(key.to_owned(), Value::Null);
                return Err(Unanswered(Answer::Refused, refused(method, &error)));
            }
        };
        let wrong = check(request, &answer);
        answers.insert(key.to_owned(), answer);
        if let Some(wrong) = wrong {
            let text = format!("The client's answer to {method} cannot be used: {wrong}.");
            return Err(Unanswered(Answer::Malformed, text));
        }
    }
    Ok(())
}

/// What to say of an error that the client answered with.
fn refused(method: &str, error: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Wire {
        code: i64,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Wire>(error) {
        Ok(Wire { code, message }) => {
            let message: String = message.chars().filter(|c| !c.is_control()).take(MAX_QUOTED).collect();
            format!("The client refused {method}: {message} ({code}).")
        }
        Err(_) => format!("The client refused {method} without saying why."),
    }
}

/// What is wrong with an answer, if something is.
fn check(request: &Value, answer: &Value) -> Option<String> {
    let is_text = |name: &str| answer.get(name).is_some_and(Value::is_string);
    match method(request) {
        "elicitation/create" => match answer.get("action").and_then(Value::as_str) {
            Some("accept") => form_mistake(request.get("params")?, answer.get("content")),
            Some("decline" | "cancel") => None,
            _ => Some("`action` must be accept, decline or cancel".to_owned()),
        },
        "sampling/createMessage" => {
            let content = answer.get("content").is_some_and(|c| c.is_object() || c.is_array());
            (!(is_text("role") && is_text("model") && content))
                .then(|| "it must have `role`, `content` and `model`".to_owned())
        }
        "roots/list" => {
            let roots = answer.get("roots").and_then(Value::as_array);
            let good = |root: &Value| root.get("uri").is_some_and(Value::is_string);
            (!roots.is_some_and(|roots| roots.iter().all(good)))
                .then(|| "`roots` must be a list of objects with a `uri`".to_owned())
        }
        _ => (!answer.is_object()).then(|| "it must be an object".to_owned()),
    }
}

/// What is wrong with a form that the user filled in ("Elicitation: Security Considerations": both sides validate).
fn form_mistake(params: &Value, content: Option<&Value>) -> Option<String> {
    let schema = params.get("requestedSchema")?;
    let content = content.unwrap_or(&Value::Null);
    if !content.is_object() {
        return Some("`content` must be an object".to_owned());
    }
    let validator = jsonschema::validator_for(schema).ok()?;
    let error = validator.validate(content).err()?;
    let place = error.instance_path().to_string();
    let text: String = error.to_string().chars().take(MAX_QUOTED).collect();
    Some(if place.is_empty() { text } else { format!("{place}: {text}") })
}

/// Whether a form has fields that came with 2025-11-25 ("Requested Schema": multi-select).
fn has_lists(request: &Value) -> bool {
    let fields = request.pointer("/params/requestedSchema/properties").and_then(Value::as_object);
    fields.is_some_and(|fields| fields.values().any(|field| field.get("type") == Some(&json!("array"))))
}

/// The parameters as this revision words them: the mode came with 2025-11-25, which also wants an id for a URL.
fn wording(request: &Value, revision: Revision, id: &RequestId) -> Value {
    let mut params = request.get("params").cloned().unwrap_or_else(|| json!({}));
    if method(request) == "elicitation/create"
        && let Value::Object(fields) = &mut params
    {
        let is_form = fields.get("mode").is_none_or(|mode| mode == "form");
        if is_form && revision < Revision::V2025_11_25 {
            fields.remove("mode");
        }
        if !is_form && !fields.contains_key("elicitationId") {
            fields.insert("elicitationId".to_owned(), id.as_json().trim_matches('"').into());
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Value {
        json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "?", "requestedSchema": {
            "type": "object", "properties": { "age": { "type": "integer" } }, "required": ["age"],
        } } })
    }

    #[test]
    fn answers_that_cannot_be_used_are_told_apart() {
        let sampling = json!({ "method": "sampling/createMessage", "params": {} });
        let roots = json!({ "method": "roots/list", "params": {} });
        let said = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "x" } });
        for (request, answer, good) in [
            (form(), json!({ "action": "accept", "content": { "age": 7 } }), true),
            (form(), json!({ "action": "decline" }), true),
            (form(), json!({ "action": "cancel", "content": 3 }), true),
            (form(), json!({ "action": "accept" }), false),
            (form(), json!({ "action": "accept", "content": { "age": "seven" } }), false),
            (form(), json!({ "action": "accept", "content": {} }), false),
            (form(), json!({ "action": "yes" }), false),
            (form(), json!([]), false),
            (sampling.clone(), said, true),
            (sampling, json!({ "role": "assistant" }), false),
            (roots.clone(), json!({ "roots": [{ "uri": "file:///a" }] }), true),
            (roots.clone(), json!({ "roots": [{}] }), false),
            (roots, Value::Null, false),
        ] {
            assert_eq!(check(&request, &answer).is_none(), good, "{request} {answer}");
        }
    }

    #[test]
    fn a_form_is_worded_for_its_revision() {
        let id = RequestId::integer(7);
        assert_eq!(wording(&form(), Revision::V2025_11_25, &id)["mode"], "form");
        assert_eq!(wording(&form(), Revision::V2025_06_18, &id).get("mode"), None);
        let url =
            json!({ "method": "elicitation/create", "params": { "mode": "url", "url": "https://a.test/" } });
        assert_eq!(wording(&url, Revision::V2025_11_25, &id)["elicitationId"], "7");
    }

    #[test]
    fn a_refusal_is_quoted_within_bounds() {
        let error = json!({ "code": -1, "message": format!("no\n{}", "x".repeat(1000)) }).to_string();
        let text = refused("roots/list", error.as_bytes());
        assert!(text.starts_with("The client refused roots/list: nox") && text.len() < 260, "{text}");
        assert_eq!(refused("roots/list", b"7"), "The client refused roots/list without saying why.");
    }
}
