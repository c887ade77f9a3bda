//! Providers: where tools, resources and prompts come from.
//!
//! A provider owns one server (a named bundle at `/s/{server}/mcp`) and answers for everything in its
//! [`Catalog`]. Implement [`Provider`] directly, or put closures into a [`Toolkit`]. Nothing here knows which
//! protocol revision the client speaks.

pub mod builtin;
mod call;
mod catalog;
mod explain;
mod invoke;
mod mirrored;
mod naming;
mod registry;
mod schema;
mod spec;
mod template;
mod toolkit;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::mcp::bus::Notifier;
use crate::mcp::content::{PromptMessage, ResourceContents, ToolResult};

pub(crate) use call::CallData;
pub use call::{Arguments, Call, Failure, InputResponses, NoArguments, Reply};
pub use catalog::{Catalog, HeaderParam, PromptEntry, ResourceEntry, TemplateEntry, ToolEntry};
pub use invoke::{Outcome, guarded, invoke, sound};
pub use registry::{Found, Listed, Registry, Snapshot};
pub use spec::{PromptSpec, ResourceSpec, TemplateSpec, ToolSpec};
pub use template::{UriTemplate, Variables};
pub use toolkit::Toolkit;

/// What `prompts/get` answers.
#[derive(Debug, Clone, Default)]
pub struct PromptResult {
    /// What the prompt is for.
    pub description: Option<String>,
    /// The messages.
    pub messages: Vec<PromptMessage>,
    /// `_meta`, passed through untouched.
    pub meta: Map<String, Value>,
}

/// What is being completed (MCP schema, `CompleteRequest.params.ref`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// An argument of this prompt.
    Prompt(String),
    /// A variable of this resource template.
    Template(String),
}

/// Suggestions for one argument. At most 100 values are sent (MCP schema, `CompleteResult`).
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Completion {
    /// The suggestions.
    pub values: Vec<String>,
    /// How many there are in all, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
    /// Whether there are more than were sent.
    pub has_more: bool,
}

/// The argument that is being typed, and those that are known already.
#[derive(Debug, Clone)]
pub struct Completing {
    /// The argument's name.
    pub name: String,
    /// What has been typed so far.
    pub value: String,
    /// Arguments that are known already.
    pub known: BTreeMap<String, String>,
}

/// A source of tools, resources and prompts under one server name.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The server's name: 1 to 64 characters of `a-z 0-9 - _`, unique in the deployment.
    fn server(&self) -> &str;

    /// What there is right now. Called when the provider is registered and after each `list_changed`.
    fn catalog(&self) -> Arc<Catalog>;

    /// Called once at the start with the means to say that something changed.
    fn attach(&self, notifier: Notifier) {
        let _ = notifier;
    }

    /// Calls a tool of the catalogue. The arguments fit its input schema, where the entry has one to check.
    async fn call_tool(
        &self,
        call: Call,
        tool: &str,
        arguments: Arguments,
    ) -> Result<Reply<ToolResult>, Failure>;

    /// Reads a resource of the catalogue, or one that fits a template of it.
    async fn read_resource(&self, call: Call, uri: &str) -> Result<Reply<Vec<ResourceContents>>, Failure> {
        let _ = (call, uri);
        Err(Failure::NotFound)
    }

    /// Gets a prompt of the catalogue.
    async fn get_prompt(
        &self,
        call: Call,
        name: &str,
        arguments: BTreeMap<String, String>,
    ) -> Result<Reply<PromptResult>, Failure> {
        let _ = (call, name, arguments);
        Err(Failure::NotFound)
    }

    /// Suggests values for an argument; none by default.
    async fn complete(&self, call: Call, what: Reference, typing: Completing) -> Result<Completion, Failure> {
        let _ = (call, what, typing);
        Ok(Completion::default())
    }
}
