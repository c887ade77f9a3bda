//! The one place where a provider's code runs: with a reservation in hand, under a time limit, cancellable, and with
//! its panics caught.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::call::{Arguments, Call, Failure, Reply};
use super::catalog::ToolEntry;
use super::registry::Found;
use crate::mcp::content::ToolResult;
use crate::policy::{Guarded, Risk};
use crate::telemetry::labels::Outcome as Word;
use crate::usage::Reservation;

impl Guarded for Found<ToolEntry> {
    fn server(&self) -> &str {
        &self.server
    }
    fn name(&self) -> &str {
        &self.entry.name
    }
    fn risk(&self) -> Risk {
        self.entry.risk
    }
    fn is_free(&self) -> bool {
        self.entry.free
    }
}

/// How a call ended, before anybody is told.
#[derive(Debug)]
pub enum Outcome {
    /// The tool answered, with a result, a business error or a question.
    Answered(Reply<ToolResult>),
    /// The arguments do not fit the schema; the text is for the model.
    InvalidArguments(String),
    /// The tool did not answer.
    Failed(Failure),
}

impl Outcome {
    /// The word for logs, metrics and the call's record.
    #[must_use]
    pub fn word(&self) -> Word {
        match self {
            Self::Answered(Reply::Done(result)) if result.is_error => Word::ToolError,
            Self::Answered(Reply::Done(_)) => Word::Ok,
            Self::Answered(Reply::NeedsInput(_)) => Word::InputRequired,
            Self::InvalidArguments(_) | Self::Failed(Failure::InvalidParams(_)) => Word::InvalidArguments,
            Self::Failed(Failure::Cancelled) => Word::Cancelled,
            Self::Failed(Failure::Timeout) => Word::Timeout,
            Self::Failed(Failure::Panic) => Word::Panic,
            Self::Failed(_) => Word::SystemError,
        }
    }
}

/// Calls the reserved tool. `limit` counts where the tool has no limit of its own.
pub async fn invoke(
    reservation: &Reservation<'_, &Found<ToolEntry>>,
    call: Call,
    arguments: Option<Bytes>,
    limit: Duration,
) -> Outcome {
    let tool = reservation.tool();
    let arguments = arguments.unwrap_or(Bytes::from_static(b"{}"));
    let value = match &tool.entry.arguments {
        None => None,
        Some(schema) => {
            let Ok(value) = serde_json::from_slice::<Value>(&arguments) else {
                return Outcome::InvalidArguments("Invalid arguments: expected a JSON object.".to_owned());
            };
            if let Some(text) = schema.explain(&value) {
                return Outcome::InvalidArguments(text);
            }
            Some(value)
        }
    };
    let (provider, name): (_, Arc<str>) = (tool.provider.clone(), tool.entry.name.clone());
    let cancelled = call.cancelled().clone();
    let work = async move { provider.call_tool(call, &name, Arguments::new(arguments, value)).await };
    match guarded(work, tool.entry.timeout.unwrap_or(limit), &cancelled).await.and_then(sound) {
        Ok(reply) => match broken_promise(&tool.entry, &reply) {
            None => Outcome::Answered(reply),
            Some(cause) => Outcome::Failed(Failure::System(cause.into())),
        },
        Err(failure) => Outcome::Failed(failure),
    }
}

/// A reply that may be sent, as far as the protocol goes: questions must be questions.
///
/// # Errors
/// [`Failure::System`] that says what is wrong.
pub fn sound<T>(reply: Reply<T>) -> Result<Reply<T>, Failure> {
    match &reply {
        Reply::NeedsInput(input) => match input.fault() {
            Some(fault) => Err(Failure::System(fault.into())),
            None => Ok(reply),
        },
        Reply::Done(_) => Ok(reply),
    }
}

/// How a result differs from what the tool's output schema says (2025-06-18 "Output Schema": "Servers MUST provide
/// structured results that conform to this schema"). Business errors promise nothing.
fn broken_promise(tool: &ToolEntry, reply: &Reply<ToolResult>) -> Option<String> {
    match (&tool.results, reply) {
        (Some(schema), Reply::Done(result)) if !result.is_error => {
            schema.mismatch(result.structured.as_ref())
        }
        _ => None,
    }
}

/// Runs a provider's future under a time limit and a cancellation token; a panic becomes a system error.
///
/// # Errors
/// What the provider failed with, or [`Failure::Cancelled`], [`Failure::Timeout`].
pub async fn guarded<T>(
    work: impl Future<Output = Result<T, Failure>>,
    limit: Duration,
    cancelled: &CancellationToken,
) -> Result<T, Failure> {
    let work = AssertUnwindSafe(work).catch_unwind();
    tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(Failure::Cancelled),
        done = tokio::time::timeout(limit, work) => match done {
            Err(_) => {
                cancelled.cancel();
                Err(Failure::Timeout)
            }
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::Panic),
        },
    }
}
