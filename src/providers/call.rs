//! What a provider gets for one call, and what it hands back.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::id::CallId;
use crate::mcp::bus::Notifier;
use crate::mcp::outlet::Outlet;
use crate::mcp::request::{Capabilities, LogLevel};
use crate::mcp::result::InputRequired;

/// One call on its way through a provider. Cloning is a reference count.
#[derive(Clone)]
pub struct Call(pub(crate) Arc<CallData>);

pub(crate) struct CallData {
    pub caller: Caller,
    pub id: CallId,
    pub capabilities: Capabilities,
    pub outlet: Arc<Outlet>,
    pub cancelled: CancellationToken,
    pub inputs: InputResponses,
    pub state: Option<Value>,
    pub notifier: Notifier,
}

impl Call {
    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The call's id; the rounds of a multi-round call each have their own for now.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.0.id
    }

    /// What the client can be asked for.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    /// Reports progress; `progress` must grow from one report to the next.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<&str>) {
        self.0.outlet.progress(progress, total, message);
    }

    /// Sends a log message to the client, if it wants this severity.
    pub fn log(&self, level: LogLevel, logger: Option<&str>, data: &Value) {
        self.0.outlet.log(level, logger, data);
    }

    /// Closes the client's connection while the call goes on; the client comes back for the rest (2025-11-25 "Sending
    /// Messages to the Server", item 6). For tools that know that nothing will happen for long. Without effect for
    /// clients that do not know this.
    pub fn close_stream(&self) {
        self.0.outlet.pause();
    }

    /// Fires when the client gave the call up or its time is over. A handler that is cancelled is dropped at its
    /// next await in any case; this is for those that have something to put away.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.0.cancelled
    }

    /// What the client answered to earlier [`InputRequired`] rounds.
    #[must_use]
    pub fn inputs(&self) -> &InputResponses {
        &self.0.inputs
    }

    /// What an earlier round asked to remember; verified, so it is what this provider wrote.
    #[must_use]
    pub fn state(&self) -> Option<&Value> {
        self.0.state.as_ref()
    }

    /// Says that something on this provider's server changed.
    #[must_use]
    pub fn notifier(&self) -> &Notifier {
        &self.0.notifier
    }
}

/// Answers of the client, by the key that the question was asked under.
#[derive(Debug, Clone, Default)]
pub struct InputResponses(pub(crate) Map<String, Value>);

impl InputResponses {
    /// The answer under `key`, if the client gave one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// What the user filled into the form asked under `key`; nothing where they declined, or have not been asked.
    #[must_use]
    pub fn accepted(&self, key: &str) -> Option<&Map<String, Value>> {
        let answer = self.0.get(key)?;
        if answer.get("action")?.as_str()? == "accept" { answer.get("content")?.as_object() } else { None }
    }

    /// Whether nothing was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The arguments of a tool that takes none. Whatever a client sends all the same is refused.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// The arguments of a tool call: the JSON object as it came, parsed where a schema had to be checked.
#[derive(Debug, Clone)]
pub struct Arguments {
    raw: Bytes,
    value: Option<Value>,
}

impl Arguments {
    pub(crate) fn new(raw: Bytes, value: Option<Value>) -> Self {
        Self { raw, value }
    }

    /// The JSON text as the client sent it.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The arguments as a type of the tool's own.
    ///
    /// # Errors
    /// [`Failure::InvalidParams`] where they do not fit.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let parsed = match self.value {
            Some(value) => serde_json::from_value(value),
            None => serde_json::from_slice(&self.raw),
        };
        parsed.map_err(|e| Failure::InvalidParams(format!("arguments: {e}")))
    }
}

/// Done, or in need of input.
#[derive(Debug)]
pub enum Reply<T> {
    /// Done.
    Done(T),
    /// The client has to answer something first; the call then comes again with the answers.
    NeedsInput(InputRequired),
}

impl<T> From<T> for Reply<T> {
    fn from(done: T) -> Self {
        Self::Done(done)
    }
}

impl<T> Reply<T> {
    /// Asks the client.
    #[must_use]
    pub fn ask(input: InputRequired) -> Self {
        Self::NeedsInput(input)
    }
}

/// Why a provider has no answer. A tool's own "no" is not a failure but a
/// [`ToolResult::error`](crate::mcp::content::ToolResult::error).
pub enum Failure {
    /// There is no such thing (any more).
    NotFound,
    /// The parameters are wrong; the text says which and what is allowed.
    InvalidParams(String),
    /// The client must declare these capabilities (a `ClientCapabilities` object).
    MissingCapability(Value),
    /// The call was cancelled.
    Cancelled,
    /// The call took too long.
    Timeout,
    /// The provider's code panicked; the panic itself is in the log.
    Panic,
    /// Something broke. The cause goes to the log; the client gets a correlation id.
    System(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::InvalidParams(text) => write!(f, "invalid params: {text}"),
            Self::MissingCapability(what) => write!(f, "missing capability: {what}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Timeout => f.write_str("timeout"),
            Self::Panic => f.write_str("panic"),
            Self::System(cause) => write!(f, "system error: {cause}"),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self::System(Box::new(cause))
    }
}
