//! `completion/complete`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::RpcError;
use super::result::{Complete, CoreResult};
use super::{Exchange, rounds, tools};
use crate::app::App;
use crate::id::CallId;
use crate::providers::{self, Call, Completing, Reference};

/// Most values in one answer (MCP schema, `CompleteResult`).
const MAX_VALUES: usize = 100;

#[derive(Deserialize)]
struct Wire {
    r#ref: RefWire,
    argument: ArgumentWire,
    #[serde(default)]
    context: ContextWire,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum RefWire {
    #[serde(rename = "ref/prompt")]
    Prompt { name: String },
    #[serde(rename = "ref/resource")]
    Resource { uri: String },
}

#[derive(Deserialize)]
struct ArgumentWire {
    name: String,
    value: String,
}

#[derive(Deserialize, Default)]
struct ContextWire {
    #[serde(default)]
    arguments: BTreeMap<String, String>,
}

/// Suggests values for an argument of a prompt or a variable of a template.
///
/// # Errors
/// −32602 where there is nothing of that name that the caller can see.
pub async fn complete(app: &App, exchange: &mut Exchange) -> Result<CoreResult, RpcError> {
    let wire: Wire = exchange.request.params.read()?;
    let snapshot = exchange.snapshot(app)?;
    let scopes = exchange.caller.scopes();
    let found = match &wire.r#ref {
        RefWire::Prompt { name } => {
            let found = snapshot.prompts.get(name, |found| scopes.allows_server(&found.server));
            found.map(|f| (f.provider.clone(), f.server.clone()))
        }
        RefWire::Resource { uri } => snapshot
            .templates
            .get(uri, |found| scopes.allows_server(&found.server))
            .map(|f| (f.provider.clone(), f.server.clone()))
            .or_else(|| snapshot.resource(uri, scopes)),
    };
    let (provider, server) = found.ok_or_else(|| {
        RpcError::invalid_params("params.ref names no prompt or resource template that exists")
    })?;
    let what = match wire.r#ref {
        RefWire::Prompt { name } => Reference::Prompt(name),
        RefWire::Resource { uri } => Reference::Template(uri),
    };
    let typing =
        Completing { name: wire.argument.name, value: wire.argument.value, known: wire.context.arguments };
    let _place = exchange.place(app).await?;
    let id = CallId::new();
    let round = rounds::Round { inputs: providers::InputResponses::default(), state: None };
    let call = Call::start(app, exchange, id, &server, round);
    let cancelled = call.cancelled().clone();
    let work = async move { provider.complete(call, what, typing).await };
    let mut completion = providers::guarded(work, app.config.mcp.tool_timeout.get(), &cancelled)
        .await
        .map_err(|failure| tools::failed(failure, &id))?;
    if completion.values.len() > MAX_VALUES {
        completion.total = completion.total.or(u32::try_from(completion.values.len()).ok());
        completion.values.truncate(MAX_VALUES);
        completion.has_more = true;
    }
    Ok(Complete::new().field("completion", &completion)?.into())
}
