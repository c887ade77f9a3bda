//! A provider made of closures: the short way to tools of one's own (see `examples/custom_tools.rs`).

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::call::{Arguments, Call, Failure, Reply};
use super::catalog::{Catalog, PromptEntry, ResourceEntry, TemplateEntry};
use super::schema::schema_of;
use super::spec::{PromptSpec, ResourceSpec, TemplateSpec, ToolSpec};
use super::template::{UriTemplate, Variables};
use super::{Completing, Completion, PromptResult, Provider, Reference};
use crate::error::{Error, Result};
use crate::mcp::content::{ResourceContents, ToolResult};

type Handler<A, T> =
    Box<dyn Fn(Call, A) -> BoxFuture<'static, std::result::Result<T, Failure>> + Send + Sync>;

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
