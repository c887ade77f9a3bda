//! A provider made of closures: the short way to tools of one's own (see `examples/custom_tools.rs`).

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::call::{Arguments, Call, Failure, Reply};
use super::catalog::{Catalog, PromptEntry, ResourceEntry, TemplateEntry, ToolEntry};
use super::schema::{ArgumentSchema, header_params, schema_of};
use super::template::{UriTemplate, Variables};
use super::{Completing, Completion, PromptResult, Provider, Reference};
use crate::error::{Error, Result};
use crate::mcp::content::{ResourceContents, ToolResult};
use crate::policy::Risk;

type Handler<A, T> =
    Box<dyn Fn(Call, A) -> BoxFuture<'static, std::result::Result<T, Failure>> + Send + Sync>;

/// What is said about a tool (MCP schema, `Tool` and `ToolAnnotations`).
#[derive(Debug, Clone, Default)]
pub struct ToolSpec {
    name: String,
    fields: Map<String, Value>,
    annotations: Map<String, Value>,
    timeout: Option<Duration>,
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
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// The input schema as JSON, instead of the one of the argument type.
    #[must_use]
    pub fn input_schema(self, schema: Value) -> Self {
        self.field("inputSchema", schema)
    }

    /// The structured result is a `T`.
    #[must_use]
    pub fn output<T: JsonSchema>(self) -> Self {
        self.field("outputSchema", schema_of::<T>())
    }

    /// A call may take this long.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
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

    fn entry(mut self, server: &Arc<str>, schema: impl FnOnce() -> Value) -> Result<ToolEntry> {
        let wrong = |text: String| Error::Invalid(format!("tool {}: {text}", self.name));
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if self.name.is_empty() || self.name.len() > 128 || !self.name.chars().all(good) {
            return Err(wrong("a name is 1 to 128 characters of A-Z a-z 0-9 _ - .".to_owned()));
        }
        let schema = self.fields.entry("inputSchema").or_insert_with(schema).clone();
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err(wrong("an input schema has the type object".to_owned()));
        }
        let arguments = ArgumentSchema::compile(&schema).map_err(wrong)?;
        let headers = header_params(&schema).map_err(wrong)?;
        let mut descriptor = Map::from_iter([("name".to_owned(), Value::from(self.name.as_str()))]);
        descriptor.extend(self.fields.clone());
        if !self.annotations.is_empty() {
            descriptor.insert("annotations".to_owned(), Value::from(self.annotations.clone()));
        }
        Ok(ToolEntry {
            name: self.name.as_str().into(),
            server: server.clone(),
            descriptor: raw(&Value::from(descriptor))?,
            risk: self.risk(),
            timeout: self.timeout,
            arguments: Some(arguments),
            headers,
        })
    }
}

fn raw(value: &Value) -> Result<Box<serde_json::value::RawValue>> {
    serde_json::value::to_raw_value(value).map_err(|e| Error::Internal(e.to_string()))
}

/// What is said about a resource (MCP schema, `Resource`).
#[derive(Debug, Clone)]
pub struct ResourceSpec {
    uri: String,
    fields: Map<String, Value>,
}

/// What is said about a resource template (MCP schema, `ResourceTemplate`).
#[derive(Debug, Clone)]
pub struct TemplateSpec {
    template: String,
    fields: Map<String, Value>,
}

/// What is said about a prompt (MCP schema, `Prompt`).
#[derive(Debug, Clone)]
pub struct PromptSpec {
    name: String,
    fields: Map<String, Value>,
    arguments: Vec<Value>,
    required: Vec<String>,
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

            fn descriptor(&self) -> Result<Box<serde_json::value::RawValue>> {
                let mut all = Map::from_iter([($wire.to_owned(), Value::from(self.$key.as_str()))]);
                all.extend(self.fields.clone());
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

type PromptHandler = Handler<BTreeMap<String, String>, Reply<PromptResult>>;
type ResourceHandler = Handler<(String, Variables), Reply<Vec<ResourceContents>>>;
type CompletionHandler = Handler<(Reference, Completing), Completion>;

/// A server made of closures. Collects descriptions and handlers, then serves as a [`Provider`].
pub struct Toolkit {
    server: Arc<str>,
    catalog: Catalog,
    tools: HashMap<Arc<str>, Handler<Arguments, Reply<ToolResult>>>,
    resources: HashMap<Arc<str>, ResourceHandler>,
    templates: Vec<(UriTemplate, ResourceHandler)>,
    prompts: HashMap<Arc<str>, PromptHandler>,
    completion: Option<CompletionHandler>,
    ready: Arc<Catalog>,
}

impl Toolkit {
    /// An empty server of this name.
    #[must_use]
    pub fn new(server: &str) -> Self {
        Self {
            server: server.into(),
            catalog: Catalog::default(),
            tools: HashMap::new(),
            resources: HashMap::new(),
            templates: Vec::new(),
            prompts: HashMap::new(),
            completion: None,
            ready: Arc::default(),
        }
    }

    /// Adds a tool whose arguments are an `A`; its input schema is the one of `A` unless the description has one.
    ///
    /// # Errors
    /// Where the name or the schema is not valid.
    pub fn tool<A, R, F, Fut>(mut self, spec: ToolSpec, handler: F) -> Result<Self>
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Into<Reply<ToolResult>> + 'static,
        F: Fn(Call, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<R, Failure>> + Send + 'static,
    {
        let entry = spec.entry(&self.server, schema_of::<A>)?;
        let handler = Arc::new(handler);
        let boxed: Handler<Arguments, Reply<ToolResult>> = Box::new(move |call, arguments| {
            let handler = handler.clone();
            Box::pin(async move { handler(call, arguments.parse()?).await.map(Into::into) })
        });
        self.tools.insert(entry.name.clone(), boxed);
        self.catalog.tools.push(Arc::new(entry));
        Ok(self)
    }

    /// Adds a resource.
    ///
    /// # Errors
    /// Where the description cannot be written as JSON.
    pub fn resource<F, Fut>(mut self, spec: &ResourceSpec, handler: F) -> Result<Self>
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Reply<Vec<ResourceContents>>, Failure>> + Send + 'static,
    {
        let uri: Arc<str> = spec.uri.as_str().into();
        self.catalog
            .resources
            .push(Arc::new(ResourceEntry { uri: uri.clone(), descriptor: spec.descriptor()? }));
        self.resources.insert(uri, Box::new(move |call, _| Box::pin(handler(call))));
        Ok(self)
    }

    /// Adds a resource template; the handler gets the URI and its variables.
    ///
    /// # Errors
    /// Where the template is not valid.
    pub fn template<F, Fut>(mut self, spec: &TemplateSpec, handler: F) -> Result<Self>
    where
        F: Fn(Call, (String, Variables)) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Reply<Vec<ResourceContents>>, Failure>> + Send + 'static,
    {
        let template = UriTemplate::parse(&spec.template).map_err(Error::Invalid)?;
        let entry = TemplateEntry { template: template.clone(), descriptor: spec.descriptor()? };
        self.catalog.templates.push(Arc::new(entry));
        self.templates.push((template, Box::new(move |call, found| Box::pin(handler(call, found)))));
        Ok(self)
    }

    /// Adds a prompt.
    ///
    /// # Errors
    /// Where the description cannot be written as JSON.
    pub fn prompt<F, Fut>(mut self, spec: PromptSpec, handler: F) -> Result<Self>
    where
        F: Fn(Call, BTreeMap<String, String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Reply<PromptResult>, Failure>> + Send + 'static,
    {
        let name: Arc<str> = spec.name.as_str().into();
        let arguments = Value::from(spec.arguments.clone());
        let required = spec.required.clone();
        let spec = if spec.arguments.is_empty() { spec } else { spec.field("arguments", arguments) };
        let entry = PromptEntry { name: name.clone(), descriptor: spec.descriptor()?, required };
        self.catalog.prompts.push(Arc::new(entry));
        self.prompts.insert(name, Box::new(move |call, arguments| Box::pin(handler(call, arguments))));
        Ok(self)
    }

    /// Suggests values for arguments of prompts and templates.
    #[must_use]
    pub fn completion<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Call, (Reference, Completing)) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Completion, Failure>> + Send + 'static,
    {
        self.completion = Some(Box::new(move |call, what| Box::pin(handler(call, what))));
        self
    }

    /// The finished provider.
    #[must_use]
    pub fn build(mut self) -> Arc<dyn Provider> {
        self.ready = Arc::new(std::mem::take(&mut self.catalog));
        Arc::new(self)
    }
}

#[async_trait]
impl Provider for Toolkit {
    fn server(&self) -> &str {
        &self.server
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.ready.clone()
    }

    async fn call_tool(
        &self,
        call: Call,
        tool: &str,
        arguments: Arguments,
    ) -> std::result::Result<Reply<ToolResult>, Failure> {
        self.tools.get(tool).ok_or(Failure::NotFound)?(call, arguments).await
    }

    async fn read_resource(
        &self,
        call: Call,
        uri: &str,
    ) -> std::result::Result<Reply<Vec<ResourceContents>>, Failure> {
        if let Some(handler) = self.resources.get(uri) {
            return handler(call, (uri.to_owned(), Variables::new())).await;
        }
        for (template, handler) in &self.templates {
            if let Some(found) = template.matches(uri) {
                return handler(call, (uri.to_owned(), found)).await;
            }
        }
        Err(Failure::NotFound)
    }

    async fn get_prompt(
        &self,
        call: Call,
        name: &str,
        arguments: BTreeMap<String, String>,
    ) -> std::result::Result<Reply<PromptResult>, Failure> {
        self.prompts.get(name).ok_or(Failure::NotFound)?(call, arguments).await
    }

    async fn complete(
        &self,
        call: Call,
        what: Reference,
        typing: Completing,
    ) -> std::result::Result<Completion, Failure> {
        match &self.completion {
            Some(handler) => handler(call, (what, typing)).await,
            None => Ok(Completion::default()),
        }
    }
}
