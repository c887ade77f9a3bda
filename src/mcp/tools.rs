//! `tools/list` and `tools/call`. The straight line of a call is [`call`]: it fits on a screen, and every transport,
//! era and provider goes down it.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::{RpcError, code};
use super::result::{Complete, CoreResult};
use super::revision::Revision;
use super::{Exchange, charges, lists, rounds};
use crate::app::App;
use crate::error::Error;
use crate::hooks::{self, CallEnd, CallStart};
use crate::id::CallId;
use crate::mcp::content::{Content, ToolResult};
use crate::policy;
use crate::prices::History;
use crate::prices::tags::Tagged;
use crate::providers::{self, Call, Failure, Found, Outcome, Reply, ToolEntry};
use crate::telemetry::labels::Outcome as Word;
use crate::usage::{Claimed, Sizes};

/// `tools/list`. Whoever pays is told what each tool costs now.
///
/// # Errors
/// −32602 for a bad cursor.
pub async fn list(app: &App, exchange: &Exchange) -> Result<CoreResult, RpcError> {
    let snapshot = exchange.snapshot(app)?;
    let visible = |found: &Found<ToolEntry>| policy::allowed(&exchange.caller, found);
    let modern = exchange.request.revision.is_modern();
    let tools = &snapshot.tools;
    let listed = match price_list(app, exchange).await {
        None => lists::page(app, exchange, "tools", tools, visible, |found| found.entry.shown(modern)),
        Some(prices) => {
            let version = prices.at(app.clock.now()).map(|version| &**version);
            let tagged = |found: &Found<ToolEntry>| Priced {
                tagged: app.prices.tagged(version, &found.server, &found.entry),
                modern,
            };
            lists::page(app, exchange, "tools", tools, visible, tagged)
        }
    };
    listed.map(Into::into)
}

/// The prices of the caller's plan, if it has an account. While they cannot be read, tools are shown without: a list is no
/// promise, and a call says what it costs.
async fn price_list(app: &App, exchange: &Exchange) -> Option<Arc<History>> {
    let caller = exchange.caller.data();
    if !caller.metered {
        return None;
    }
    if let Some(known) = app.prices.known(&caller.plan) {
        return Some(known);
    }
    let plan = caller.plan.parse().ok()?;
    let found = app.prices.of(&plan).await;
    found
        .inspect_err(|error| {
            // That the database is away has been said.
            if !matches!(error, Error::Away(_)) {
                tracing::warn!(%plan, ?error, "prices cannot be read; tools are listed without");
            }
        })
        .ok()
}

/// A descriptor with its price.
struct Priced {
    tagged: Arc<Tagged>,
    modern: bool,
}

impl Deref for Priced {
    type Target = RawValue;

    fn deref(&self) -> &RawValue {
        self.tagged.shown(self.modern)
    }
}

/// `tools/call`.
///
/// # Errors
/// −32602 for a tool that the caller cannot see, −31001 for a limit, −31005 for a timeout, −32603 with a
/// correlation id for what broke.
pub async fn call(app: &App, exchange: &mut Exchange) -> Result<CoreResult, RpcError> {
    let name =
        exchange.request.params.name.clone().ok_or_else(|| {
            RpcError::invalid_params("params.name is required: the name of the tool to call")
        })?;
    let unknown = || RpcError::invalid_params(format!("Unknown tool: {name}"));
    let snapshot = exchange.snapshot(app)?;
    let visible = |found: &Found<ToolEntry>| policy::allowed(&exchange.caller, found);
    let tool = snapshot.tools.get(&name, visible).ok_or_else(unknown)?;

    let caller = exchange.caller.clone();
    let permit = policy::authorize(&caller, tool).ok_or_else(unknown)?;
    let place = exchange.place(app).await?;
    let round = rounds::open(app, exchange)?;

    let id = CallId::new();
    let start = CallStart { id, caller: &caller, server: &tool.server, tool: &tool.entry.name };
    let key = match charges::claim(app, exchange, tool, id).await? {
        Some(Claimed::Answered(stored)) => return charges::replayed(app, exchange, start, *stored).await,
        Some(Claimed::Ours(key)) => Some(key),
        None => None,
    };
    let reservation = match app.usage.reserve(permit, place, key).await {
        Ok(reservation) => reservation,
        Err(refusal) => return charges::refused(app, exchange, start, refusal).await,
    };

    let started = app.clock.monotonic_micros();
    hooks::tell(&app.hooks, |hook| hook.before_call(&start));
    let running = Call::start(app, exchange, id, &tool.server, round);
    let arguments = exchange.request.params.arguments.clone();
    let request_bytes = arguments.as_ref().map_or(0, bytes::Bytes::len);
    let outcome =
        providers::invoke(&reservation, running, arguments, app.config.mcp.tool_timeout.get()).await;

    let duration = app.clock.elapsed_since(started);
    let (word, kept) = (outcome.word(), reservation.kept(&outcome));
    let reply = into_reply(app, exchange, outcome, &id);
    let kept = kept.filter(|_| reply.is_ok());
    let end = CallEnd { start, outcome: released(word, &reply), duration };
    hooks::tell(&app.hooks, |hook| hook.after_call(&end));
    let sizes = Sizes { request: request_bytes, result: reply.as_ref().map_or(0, CoreResult::size) };
    let receipt = app.usage.settle(reservation, &end, sizes, (kept.as_ref(), &exchange.cancelled)).await;
    match (reply, receipt) {
        (Ok(reply), Ok(receipt)) => Ok(charges::with_receipt(reply, receipt)),
        (Ok(_), Err(error)) => Err(charges::unavailable(&error, &id)),
        (Err(error), _) => Err(error),
    }
}

/// How the call ended for whoever made it: a result that cannot be sent is none.
fn released(outcome: Word, reply: &Result<CoreResult, RpcError>) -> Word {
    match (outcome, reply) {
        (Word::Ok | Word::ToolError, Err(_)) => Word::SystemError,
        (outcome, _) => outcome,
    }
}

/// What the client is told.
fn into_reply(app: &App, exchange: &Exchange, outcome: Outcome, id: &CallId) -> Result<CoreResult, RpcError> {
    match outcome {
        Outcome::Answered(Reply::Done(result)) => finished(result, exchange.request.revision),
        Outcome::Answered(Reply::NeedsInput(input)) => rounds::ask(app, exchange, input),
        // The model can correct itself only by what it reads (2025-11-25 "Error Handling").
        Outcome::InvalidArguments(text) | Outcome::Failed(Failure::InvalidParams(text)) => {
            finished(ToolResult::error(text), exchange.request.revision)
        }
        Outcome::Failed(failure) => Err(failed(failure, id)),
    }
}

/// The result as a client of this revision gets it.
///
/// # Errors
/// Where it cannot be written as JSON.
pub(super) fn finished(mut result: ToolResult, revision: Revision) -> Result<CoreResult, RpcError> {
    if let Some(structured) = &result.structured {
        // Up to 2025-11-25 structured content is an object; older clients refuse a whole result with another.
        let readable = revision.is_modern() || structured.is_object();
        if !repeats(&result.content, (!readable).then_some(structured)) {
            result.content.push(Content::text(structured.to_string()));
        }
        result.structured.take_if(|_| !readable);
    }
    result.content.iter_mut().for_each(|block| block.spoken_in(revision));
    let mut complete = Complete::new().field("content", &result.content)?;
    if let Some(structured) = &result.structured {
        complete = complete.field("structuredContent", structured)?;
    }
    let is_error = if result.is_error { RawValue::TRUE } else { RawValue::FALSE };
    Ok(complete.raw("isError", is_error.to_owned()).meta(result.meta).into())
}

/// Whether the content has a text block, as results with structured content should (2025-06-18 "Structured Content"); where
/// the client gets nothing else of `exactly`, one that is the JSON of it.
fn repeats(content: &[Content], exactly: Option<&Value>) -> bool {
    let text = |block: &Content| match (block, exactly) {
        (Content::Text { text }, Some(value)) => {
            serde_json::from_str::<Value>(text).is_ok_and(|said| said == *value)
        }
        (Content::Text { .. }, None) => true,
        (Content::Other(block), None) => block.get("type").and_then(Value::as_str) == Some("text"),
        _ => false,
    };
    content.iter().any(text)
}

/// The JSON-RPC error for what a provider failed with. The cause goes to the log under the same id.
pub(super) fn failed(failure: Failure, correlation: &CallId) -> RpcError {
    match failure {
        Failure::InvalidParams(text) => RpcError::invalid_params(text),
        Failure::MissingCapability(required) => RpcError::missing_capability(&required),
        Failure::Cancelled => RpcError::new(code::INVALID_REQUEST, 200, "the request was cancelled"),
        Failure::Timeout => {
            let text = format!("the tool did not answer in time; you may try again (quote {correlation})");
            RpcError::new(code::TIMEOUT, 200, text)
                .with_data(&json!({ "correlationId": correlation.to_string(), "retryable": true }))
        }
        Failure::NotFound => {
            RpcError::invalid_params("the tool is no longer available; list the tools again")
        }
        Failure::Panic => RpcError::internal(correlation),
        Failure::System(cause) => {
            tracing::error!(call = %correlation, error = %cause, "a provider failed");
            match cause.downcast_ref() {
                Some(Error::Database(_) | Error::Away(_)) => RpcError::call_unavailable(correlation),
                _ => RpcError::internal(correlation),
            }
        }
    }
}

impl Call {
    /// What a provider gets for this exchange.
    pub(super) fn start(
        app: &App,
        exchange: &Exchange,
        id: CallId,
        server: &Arc<str>,
        round: rounds::Round,
    ) -> Self {
        Self(Arc::new(providers::CallData {
            caller: exchange.caller.clone(),
            id,
            capabilities: exchange.request.capabilities,
            outlet: exchange.outlet.clone(),
            // Of its own: a time limit that cancels the call must not silence its answer.
            cancelled: exchange.cancelled.child_token(),
            inputs: round.inputs,
            state: round.state,
            notifier: app.bus.notifier(server.clone()),
        }))
    }
}
