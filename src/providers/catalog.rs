//! What a provider has: descriptors, serialised once, beside what the core must know to route and to check.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::schema::{ArgumentSchema, ResultSchema};
use super::template::UriTemplate;
use crate::policy::{Guarded, Risk};

/// A tool of a catalogue.
#[derive(Debug)]
pub struct ToolEntry {
    /// Its name: 1 to 128 characters of `A-Z a-z 0-9 _ - .` (2025-11-25 "Tool Names").
    pub name: Arc<str>,
    /// The server that it belongs to.
    pub server: Arc<str>,
    /// The `Tool` object as `tools/list` sends it.
    pub descriptor: Box<RawValue>,
    /// The same for clients from before 2026-07-28, where they could not read that one.
    pub(crate) older: Option<Box<RawValue>>,
    /// What it may do at worst.
    pub risk: Risk,
    /// How long a call may take, where that differs from the configured default.
    pub timeout: Option<Duration>,
    /// Checks arguments before the provider sees them; `None`: the provider checks them itself.
    pub(crate) arguments: Option<ArgumentSchema>,
    /// Checks structured results before a client sees them; `None`: the tool promises nothing.
    pub(crate) results: Option<ResultSchema>,
    /// Arguments that modern clients repeat in `Mcp-Param-*` headers.
    pub headers: Vec<HeaderParam>,
    /// Calls cost nothing, whatever the plan says.
    pub free: bool,
    /// The argument that holds the idempotency key, where it has one.
    pub key_argument: Option<Box<str>>,
}

impl ToolEntry {
    /// The `Tool` object as clients of the modern era get it, or those from before.
    #[must_use]
    pub fn shown(&self, modern: bool) -> &RawValue {
        self.older.as_ref().filter(|_| !modern).unwrap_or(&self.descriptor)
    }
}

/// An argument that is mirrored into a header (2026-07-28 "Custom Headers from Tool Parameters").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderParam {
    /// The header's name, lower case, such as `mcp-param-region`.
    pub header: String,
    /// The chain of `properties` keys that leads to the argument.
    pub path: Vec<String>,
}

impl Guarded for ToolEntry {
    fn server(&self) -> &str {
        &self.server
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn risk(&self) -> Risk {
        self.risk
    }
}

impl<T: Guarded> Guarded for Arc<T> {
    fn server(&self) -> &str {
        T::server(self)
    }
    fn name(&self) -> &str {
        T::name(self)
    }
    fn risk(&self) -> Risk {
        T::risk(self)
    }
}

/// A resource of a catalogue.
#[derive(Debug)]
pub struct ResourceEntry {
    /// Its URI.
    pub uri: Arc<str>,
    /// The `Resource` object as `resources/list` sends it.
    pub descriptor: Box<RawValue>,
}

/// A resource template of a catalogue.
#[derive(Debug)]
pub struct TemplateEntry {
    /// The template.
    pub template: UriTemplate,
    /// The `ResourceTemplate` object as `resources/templates/list` sends it.
    pub descriptor: Box<RawValue>,
}

/// A prompt of a catalogue.
#[derive(Debug)]
pub struct PromptEntry {
    /// Its name.
    pub name: Arc<str>,
    /// The `Prompt` object as `prompts/list` sends it.
    pub descriptor: Box<RawValue>,
    /// Names of the arguments that must be given.
    pub required: Vec<String>,
}

/// Everything a provider has at one moment. In any order; lists are sorted when catalogues are merged.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Tools.
    pub tools: Vec<Arc<ToolEntry>>,
    /// Resources.
    pub resources: Vec<Arc<ResourceEntry>>,
    /// Resource templates.
    pub templates: Vec<Arc<TemplateEntry>>,
    /// Prompts.
    pub prompts: Vec<Arc<PromptEntry>>,
}
