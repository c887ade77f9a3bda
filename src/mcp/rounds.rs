//! Rounds of one call (2026-07-28 "Multi Round-Trip Requests"): what the client answers is handed to the provider, and
//! what the provider wants to remember travels through the client, sealed.
//!
//! A `requestState` opens only for the principal, method, target and arguments that it was made for, and for ten
//! minutes, as the section "Server Requirements" asks.

use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Exchange;
use super::error::{RpcError, code};
use super::result::{CoreResult, InputRequired};
use crate::app::App;
use crate::clock::Timestamp;
use crate::providers::InputResponses;
use crate::seal::Purpose;

/// How long a client may take to answer, at least.
const LIFETIME: Duration = Duration::from_secs(600);

/// How long a state is good: a legacy client, for which it never leaves the process, may be given more time.
fn lifetime(app: &App) -> Duration {
    LIFETIME.max(app.config.mcp.input_timeout.get() + Duration::from_secs(60))
}

#[derive(Serialize, Deserialize)]
struct State {
    until: i64,
    value: Value,
}

/// What the client sent along with a retry.
pub struct Round {
    /// Its answers.
    pub inputs: InputResponses,
    /// What the provider remembered.
    pub state: Option<Value>,
}

/// What the state of this exchange is bound to.
fn binding(exchange: &Exchange) -> Vec<u8> {
    let params = &exchange.request.params;
    let mut context = digest::Context::new(&digest::SHA256);
    let target = params.name.as_deref().or(params.uri.as_deref()).unwrap_or("");
    let owner = format!("{:?}", exchange.caller.principal());
    let arguments = params
        .arguments
        .as_deref()
        .map_or(Value::Null, |raw| serde_json::from_slice(raw).unwrap_or(Value::Null));
    for part in [owner.as_str(), &exchange.request.method, target, &arguments.to_string()] {
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().to_vec()
}

/// Reads the answers and opens the state.
///
/// # Errors
/// −32602 where an answer is no object ("Error Handling"), or the state was changed, is too old or belongs to another request.
pub fn open(app: &App, exchange: &Exchange) -> Result<Round, RpcError> {
    let params = &exchange.request.params;
    let inputs: Map<String, Value> = match &params.input_responses {
        None => Map::new(),
        Some(raw) => serde_json::from_slice(raw)
            .map_err(|_| RpcError::invalid_params("params.inputResponses must be an object"))?,
    };
    if let Some((key, _)) = inputs.iter().find(|(_, answer)| !answer.is_object()) {
        let key: String = key.chars().take(64).collect();
        let text = format!("params.inputResponses: the answer under {key:?} must be an object");
        return Err(RpcError::invalid_params(text));
    }
    let Some(text) = &params.request_state else {
        return Ok(Round { inputs: InputResponses(inputs), state: None });
    };
    let state = app
        .sealer
        .open(Purpose::State, &binding(exchange), text)
        .and_then(|plain| serde_json::from_slice::<State>(&plain).ok())
        .filter(|state| Timestamp::from_micros(state.until) > app.clock.now())
        .ok_or_else(|| {
            RpcError::invalid_params(
                "params.requestState is not valid for this request (changed, expired, or of another request); \
                 call again without it",
            )
        })?;
    Ok(Round { inputs: InputResponses(inputs), state: Some(state.value) })
}

/// Turns a provider's question into a result, if this client can be asked.
///
/// # Errors
/// −32021 where the client did not declare what the question needs.
pub fn ask(app: &App, exchange: &Exchange, input: InputRequired) -> Result<CoreResult, RpcError> {
    let mut missing = Map::new();
    for request in input.requests.values() {
        let method = request.get("method").and_then(Value::as_str).unwrap_or("");
        let params = request.get("params").unwrap_or(&Value::Null);
        if let Some(Value::Object(capability)) = exchange.request.capabilities.missing_for(method, params) {
            for (name, what) in capability {
                merge(missing.entry(name).or_insert_with(|| json!({})), what);
            }
        }
    }
    if !missing.is_empty() {
        return Err(RpcError::missing_capability(&Value::from(missing)));
    }
    let state = input.state.map(|value| seal(app, exchange, value)).transpose()?;
    Ok(CoreResult::InputRequired { requests: input.requests, state })
}

/// Adds the members of an object to another one.
fn merge(into: &mut Value, what: Value) {
    if let (Value::Object(into), Value::Object(what)) = (into, what) {
        into.extend(what);
    }
}

fn seal(app: &App, exchange: &Exchange, value: Value) -> Result<String, RpcError> {
    let state = State { until: app.clock.now().plus(lifetime(app)).as_micros(), value };
    serde_json::to_vec(&state)
        .ok()
        .and_then(|plain| app.sealer.seal(Purpose::State, &binding(exchange), &plain).ok())
        .ok_or_else(|| RpcError::new(code::INTERNAL, 200, "cannot keep the state of this call"))
}
