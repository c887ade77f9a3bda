//! Descriptions of tools, resources and prompts: what is said about a thing, from which its descriptor is made. Fields that
//! Weir does not know are sent as they are.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::catalog::ToolEntry;
use super::mirrored::header_params;
use super::naming;
use super::schema::{ArgumentSchema, ResultSchema, for_older_clients, result_schema_of};
use crate::error::{Error, Result};
use crate::policy::Risk;

/// What is said about a tool (MCP schema, `Tool` and `ToolAnnotations`).
#[derive(Debug, Clone, Default)]
pub struct ToolSpec {
    name: String,
    fields: Map<String, Value>,
    annotations: Map<String, Value>,
    timeout: Option<Duration>,
    free: bool,
    key_argument: Option<Box<str>>,
}

impl ToolSpec {
    /// A tool of this name. Without annotations it counts as destructive, as the schema's defaults say.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// A title for people.
    #[must_use]
    pub fn title(self, title: &str) -> Self {
        self.field("title", title.into())
    }

    /// What it does, for the model.
    #[must_use]
    pub fn description(self, text: &str) -> Self {
        self.field("description", text.into())
    }

    /// It changes nothing.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.annotation("readOnlyHint", true.into())
    }

    /// It changes things but destroys nothing.
    #[must_use]
    pub fn additive(self) -> Self {
        self.annotation("destructiveHint", false.into())
    }

    /// Calling it twice with the same arguments is the same as once.
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.annotation("idempotentHint", true.into())
    }

    /// Whether it reaches beyond this deployment.
    #[must_use]
    pub fn open_world(self, open: bool) -> Self {
        self.annotation("openWorldHint", open.into())
    }

    /// Any annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: Value) -> Self {
        self.annotations.insert(name.to_owned(), value);
        self
    }

    /// Any other field of the descriptor, such as `icons` or `_meta`.
    #[must_use]
    pub fn field(mut self, name: &str, value: Value) -> Self {
        match value {
            // One map, whichever way an annotation came: what is shown is what policy goes by.
            Value::Object(annotations) if name == "annotations" => self.annotations.extend(annotations),
            value => {
                self.fields.insert(name.to_owned(), value);
            }
        }
        self
    }

    /// The input schema as JSON, instead of the one of the argument type.
    #[must_use]
    pub fn input_schema(self, schema: Value) -> Self {
        self.field("inputSchema", schema)
    }

    /// The structured result is a `T`. One that does not fit never reaches a client (2025-06-18 "Output Schema").
    #[must_use]
    pub fn output<T: JsonSchema>(self) -> Self {
        self.field("outputSchema", result_schema_of::<T>())
    }

    /// The output schema as JSON. Clients from before 2026-07-28 see it only where its type is `object`.
    #[must_use]
    pub fn output_schema(self, schema: Value) -> Self {
        self.field("outputSchema", schema)
    }

    /// A call may take this long.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Calls cost nothing, whatever the plan says.
    #[must_use]
    pub fn free(mut self) -> Self {
        self.free = true;
        self
    }

    /// The argument (a string) that says which call this is: one that comes again with the same value and the same arguments is
    /// not made again, but answered as before.
    #[must_use]
    pub fn idempotency_argument(mut self, name: &str) -> Self {
        self.key_argument = Some(name.into());
        self
    }

    fn risk(&self) -> Risk {
        let hint = |name: &str| self.annotations.get(name).and_then(Value::as_bool);
        if hint("readOnlyHint") == Some(true) {
            Risk::ReadOnly
        } else if hint("destructiveHint") == Some(false) {
            Risk::Write
        } else {
            Risk::Destructive
        }
    }

    pub(crate) fn entry(mut self, server: &Arc<str>, schema: impl FnOnce() -> Value) -> Result<ToolEntry> {
        let wrong = |text: String| Error::Invalid(format!("tool {:?}: {text}", self.name));
        naming::tool(&self.name).map_err(wrong)?;
        let schema = self.fields.entry("inputSchema").or_insert_with(schema).clone();
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err(wrong("an input schema has the type object".to_owned()));
        }
        let wrong_input = |text| wrong(format!("inputSchema: {text}"));
        let arguments = ArgumentSchema::compile(&schema).map_err(wrong_input)?;
        let headers = header_params(&schema).map_err(wrong_input)?;
        let results = self.fields.get("outputSchema").map(|schema| match schema {
            Value::Object(_) => ResultSchema::compile(schema),
            _ => Err("a schema of results is an object".to_owned()),
        });
        let results = results.transpose().map_err(|text| wrong(format!("outputSchema: {text}")))?;
        let mut descriptor = self.fields.clone();
        descriptor.insert("name".to_owned(), self.name.as_str().into());
        if !self.annotations.is_empty() {
            descriptor.insert("annotations".to_owned(), Value::from(self.annotations.clone()));
        }
        Ok(ToolEntry {
            name: self.name.as_str().into(),
            server: server.clone(),
            older: for_older_clients(&descriptor).map(|older| raw(&Value::from(older))).transpose()?,
            descriptor: raw(&Value::from(descriptor))?,
            risk: self.risk(),
            timeout: self.timeout,
            arguments: Some(arguments),
            results,
            headers,
            free: self.free,
            key_argument: self.key_argument.clone(),
        })
    }
}

fn raw(value: &Value) -> Result<Box<serde_json::value::RawValue>> {
    serde_json::value::to_raw_value(value).map_err(|e| Error::Internal(e.to_string()))
}

/// What is said about a resource (MCP schema, `Resource`).
#[derive(Debug, Clone)]
pub struct ResourceSpec {
    pub(super) uri: String,
    fields: Map<String, Value>,
}

/// What is said about a resource template (MCP schema, `ResourceTemplate`).
#[derive(Debug, Clone)]
pub struct TemplateSpec {
    pub(super) template: String,
    fields: Map<String, Value>,
}

/// What is said about a prompt (MCP schema, `Prompt`).
#[derive(Debug, Clone)]
pub struct PromptSpec {
    pub(super) name: String,
    fields: Map<String, Value>,
    pub(super) arguments: Vec<Value>,
    pub(super) required: Vec<String>,
}

macro_rules! described {
    ($($spec:ident($key:ident, $wire:literal)),+) => {$(
        impl $spec {
            /// Any field of the descriptor, such as `title`, `description` or `mimeType`.
            #[must_use]
            pub fn field(mut self, name: &str, value: Value) -> Self {
                self.fields.insert(name.to_owned(), value);
                self
            }

            /// A title for people.
            #[must_use]
            pub fn title(self, title: &str) -> Self {
                self.field("title", title.into())
            }

            /// What it is.
            #[must_use]
            pub fn description(self, text: &str) -> Self {
                self.field("description", text.into())
            }

            pub(super) fn descriptor(&self) -> Result<Box<serde_json::value::RawValue>> {
                let mut all = self.fields.clone();
                all.insert($wire.to_owned(), self.$key.as_str().into());
                raw(&Value::from(all))
            }
        }
    )+};
}

described!(ResourceSpec(uri, "uri"), TemplateSpec(template, "uriTemplate"), PromptSpec(name, "name"));

impl ResourceSpec {
    /// A resource with this URI and name.
    #[must_use]
    pub fn new(uri: &str, name: &str, mime_type: &str) -> Self {
        let fields = Map::from_iter([("name".into(), name.into()), ("mimeType".into(), mime_type.into())]);
        Self { uri: uri.to_owned(), fields }
    }
}

impl TemplateSpec {
    /// Resources whose URIs fit this template.
    #[must_use]
    pub fn new(template: &str, name: &str, mime_type: &str) -> Self {
        let fields = Map::from_iter([("name".into(), name.into()), ("mimeType".into(), mime_type.into())]);
        Self { template: template.to_owned(), fields }
    }
}

impl PromptSpec {
    /// A prompt of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), fields: Map::new(), arguments: Vec::new(), required: Vec::new() }
    }

    /// Takes one more argument.
    #[must_use]
    pub fn argument(mut self, name: &str, description: &str, required: bool) -> Self {
        self.arguments.push(json!({ "name": name, "description": description, "required": required }));
        if required {
            self.required.push(name.to_owned());
        }
        self
    }
}
