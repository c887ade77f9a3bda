//! `prompts/list` and `prompts/get`.

use std::collections::BTreeMap;

use super::error::RpcError;
use super::result::{Complete, CoreResult};
use super::{Exchange, lists, rounds, tools};
use crate::app::App;
use crate::id::CallId;
use crate::providers::{self, Call, Failure, Found, PromptEntry, Reply};

/// `prompts/list`.
///
/// # Errors
/// −32602 for a bad cursor.
pub fn list(app: &App, exchange: &Exchange) -> Result<CoreResult, RpcError> {
    let snapshot = exchange.snapshot(app)?;
    let sees = |found: &Found<PromptEntry>| exchange.caller.scopes().allows_server(&found.server);
    lists::page(app, exchange, "prompts", &snapshot.prompts, sees, |f| &*f.entry.descriptor).map(Into::into)
}

/// `prompts/get`.
///
/// # Errors
/// −32602 for a prompt that the caller cannot see, and for missing or malformed arguments.
pub async fn get(app: &App, exchange: &mut Exchange) -> Result<CoreResult, RpcError> {
    let name =
        exchange.request.params.name.clone().ok_or_else(|| {
            RpcError::invalid_params("params.name is required: the name of the prompt to get")
        })?;
    let unknown = || RpcError::invalid_params(format!("Unknown prompt: {name}"));
    let snapshot = exchange.snapshot(app)?;
    let sees = |found: &Found<PromptEntry>| exchange.caller.scopes().allows_server(&found.server);
    let found = snapshot.prompts.get(&name, sees).ok_or_else(unknown)?;
    let arguments: BTreeMap<String, String> = match &exchange.request.params.arguments {
        None => BTreeMap::new(),
        Some(raw) => serde_json::from_slice(raw).map_err(|_| {
            RpcError::invalid_params("params.arguments: every argument of a prompt is a string")
        })?,
    };
    if let Some(missing) = found.entry.required.iter().find(|n| !arguments.contains_key(n.as_str())) {
        return Err(RpcError::invalid_params(format!("params.arguments.{missing} is required")));
    }
    let round = rounds::open(app, exchange)?;
    let _place = exchange.place(app).await?;
    let id = CallId::new();
    let (provider, entry) = (found.provider.clone(), found.entry.clone());
    let call = Call::start(app, exchange, id, &found.server, round);
    let cancelled = call.cancelled().clone();
    let work = async move { provider.get_prompt(call, &entry.name, arguments).await };
    let reply = providers::guarded(work, app.config.mcp.tool_timeout.get(), &cancelled).await;
    match reply.and_then(providers::sound) {
        Ok(Reply::Done(mut prompt)) => {
            let revision = exchange.request.revision;
            prompt.messages.iter_mut().for_each(|message| message.content.spoken_in(revision));
            let complete = match &prompt.description {
                Some(text) => Complete::new().field("description", text)?,
                None => Complete::new(),
            };
            Ok(complete.field("messages", &prompt.messages)?.meta(prompt.meta).into())
        }
        Ok(Reply::NeedsInput(input)) => rounds::ask(app, exchange, input),
        Err(Failure::NotFound) => Err(unknown()),
        Err(failure) => Err(tools::failed(failure, &id)),
    }
}
