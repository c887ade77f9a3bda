//! What keys and prices mean for the answer of a call: the key it came with, the refusal of one that cannot be paid, the answer of
//! one that was made before, and the receipt.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::Exchange;
use super::error::{RpcError, code};
use super::result::{CoreResult, InputRequired};
use super::rounds;
use crate::app::App;
use crate::credits::Credits;
use crate::hooks::{CallEnd, CallStart};
use crate::id::CallId;
use crate::mcp::content::ToolResult;
use crate::providers::{Found, ToolEntry};
use crate::telemetry::labels::Outcome;
use crate::usage::{Claimed, KeyTrouble, MAX_KEY, Receipt, Refusal, Sizes, Stored};

/// In `_meta` of a result: the receipt.
pub const RECEIPT: &str = "dev.weir/receipt";
/// In `_meta` of a refusal: why.
const REFUSED: &str = "dev.weir/refused";
/// Under which the user is sent to buy credits.
const TOP_UP: &str = "weir_top_up";

/// The key that a call came with: in `_meta`, in the `Idempotency-Key` header, or in the argument that the tool names.
///
/// # Errors
/// −32602 where the argument is there and can be none.
fn key_of(exchange: &Exchange, tool: &Found<ToolEntry>) -> Result<Option<String>, RpcError> {
    let params = &exchange.request.params;
    if let Some(key) = &params.meta.idempotency_key {
        return Ok(Some(key.clone()));
    }
    let (Some(name), Some(raw)) = (&tool.entry.key_argument, &params.arguments) else { return Ok(None) };
    // Arguments that are no object are refused further on.
    let arguments: Map<String, Value> = serde_json::from_slice(raw).unwrap_or_default();
    match arguments.get(&**name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(key)) => Ok(Some(key.clone())),
        Some(Value::Number(key)) => Ok(Some(key.to_string())),
        Some(_) => Err(RpcError::invalid_params(format!(
            "params.arguments.{name} must be a string: it is the idempotency key"
        ))),
    }
}

/// Takes the key of a call, if it came with one, or finds the answer of the call that had it.
///
/// # Errors
/// Why the call cannot be made under this key.
pub async fn claim(
    app: &App,
    exchange: &Exchange,
    tool: &Found<ToolEntry>,
    id: CallId,
) -> Result<Option<Claimed>, RpcError> {
    let Some(key) = key_of(exchange, tool)? else { return Ok(None) };
    let patience = tool.entry.timeout.unwrap_or(app.config.mcp.tool_timeout.get());
    let target = (&*tool.server, &*tool.entry.name);
    let arguments = exchange.request.params.arguments.as_deref();
    let claimed = app.usage.claim(&exchange.caller, (&key, id), target, arguments, patience).await;
    claimed.map(Some).map_err(|trouble| trouble_with(trouble, &id))
}

fn trouble_with(trouble: KeyTrouble, id: &CallId) -> RpcError {
    match trouble {
        KeyTrouble::Malformed => {
            RpcError::invalid_params(format!("the idempotency key must have 1 to {MAX_KEY} bytes"))
        }
        // Not "use a unique one": a model that reads this makes up another key when it tries again.
        KeyTrouble::Taken => RpcError::invalid_params(
            "this idempotency key belongs to a call of another tool or with other arguments; to get that call's answer, \
             repeat it as it was; for another call use another key",
        ),
        KeyTrouble::NotKept(call) => RpcError::new(
            code::GONE,
            200,
            format!("{call} was made with this key and charged; its answer was too large to be kept"),
        ),
        KeyTrouble::Running => {
            let mut error = RpcError::new(
                code::UNAVAILABLE,
                200,
                "the call with this key still runs; come back with the same key for its answer",
            );
            error.retry_after = Some(1);
            error
        }
        KeyTrouble::Away(error) => {
            tracing::error!(call = %id, ?error, "a key cannot be looked up");
            RpcError::call_unavailable(id)
        }
    }
}

/// Answers a call that was made before, and records that it came again.
///
/// # Errors
/// Where the answer cannot be written as JSON.
pub async fn replayed(
    app: &App,
    exchange: &Exchange,
    start: CallStart<'_>,
    stored: Stored,
) -> Result<CoreResult, RpcError> {
    record(app, exchange, start, Outcome::Replay).await;
    let credits = exchange.caller.data().metered.then_some(stored.credits);
    let receipt = Receipt { call: stored.call, credits, left: None, replayed: true };
    super::tools::finished(stored.result, exchange.request.revision).map(|reply| with_receipt(reply, receipt))
}

/// Answers a call that may not be made. A client that can send its user to a page is asked to, once; any other gets a text that its
/// model can read, because that is where somebody learns of it.
///
/// # Errors
/// −31006 where it is only that nothing can be charged now.
pub async fn refused(
    app: &App,
    exchange: &Exchange,
    start: CallStart<'_>,
    refusal: Refusal,
) -> Result<CoreResult, RpcError> {
    let id = start.id;
    let (text, why) = match refusal {
        Refusal::Unavailable(error) => return Err(unavailable(&error, &id)),
        Refusal::Unpriced => {
            let text = format!(
                "Not charged, and not called: {} has no price in the plan of this account. The operator of this gateway can \
                 set one; calling it again before that will not help.",
                start.tool
            );
            (text, json!({ "reason": "unpriced" }))
        }
        Refusal::Suspended => suspended(app.usage.top_up_url(exchange.caller.tenant()).as_deref()),
        Refusal::Exhausted { price, left } => {
            let url = app.usage.top_up_url(exchange.caller.tenant());
            if let Some(url) = url.as_deref().filter(|_| may_ask(exchange)) {
                let message =
                    format!("This call may cost {price} credits, and {left} are left. Get more to go on.");
                let asked =
                    rounds::ask(app, exchange, InputRequired::new().elicit_url(TOP_UP, &message, url))?;
                record(app, exchange, start, Outcome::Denied).await;
                return Ok(asked);
            }
            exhausted(price, left, url.as_deref())
        }
    };
    record(app, exchange, start, Outcome::Denied).await;
    let mut result = ToolResult::error(text);
    result.meta.insert(REFUSED.to_owned(), why);
    super::tools::finished(result, exchange.request.revision)
}

fn exhausted(price: Credits, left: Credits, url: Option<&str>) -> (String, Value) {
    let mut text = format!(
        "Not charged, and not called: this call may cost {price} credits, and {left} are left for now. Tell the user; calling it \
         again will not help until there are more. Tools that are free still work. "
    );
    let mut why = json!({ "reason": "exhausted", "price": price, "left": left });
    match url {
        Some(url) => {
            let _ = write!(text, "More credits: {url}");
            why["topUpUrl"] = url.into();
        }
        None => text.push_str("The operator of this gateway can add credits."),
    }
    (text, why)
}

fn suspended(url: Option<&str>) -> (String, Value) {
    let mut text = "Not charged, and not called: this account is suspended, because an invoice is not paid. Tell the user; calling it \
         again will not help before it is paid. Tools that are free still work. "
        .to_owned();
    let mut why = json!({ "reason": "suspended" });
    match url {
        Some(url) => {
            let _ = write!(text, "To pay: {url}");
            why["topUpUrl"] = url.into();
        }
        None => text.push_str("The operator of this gateway knows how to pay it."),
    }
    (text, why)
}

/// Whether the user can be sent to a page by this client, and was not in this call.
fn may_ask(exchange: &Exchange) -> bool {
    let request = &exchange.request;
    let fresh = request.params.input_responses.is_none() && request.params.request_state.is_none();
    request.revision.is_modern() && request.capabilities.elicitation_url && fresh
}

/// The error for a call that cannot be charged now.
pub fn unavailable(error: &crate::error::Error, id: &CallId) -> RpcError {
    tracing::error!(call = %id, ?error, "a call cannot be charged");
    RpcError::call_unavailable(id)
}

async fn record(app: &App, exchange: &Exchange, start: CallStart<'_>, outcome: Outcome) {
    let end = CallEnd { start, outcome, duration: std::time::Duration::ZERO };
    let request = exchange.request.params.arguments.as_ref().map_or(0, bytes::Bytes::len);
    app.usage.record(&exchange.caller, &end, app.clock.now(), Sizes { request, result: 0 }).await;
}

/// The result with its receipt.
pub fn with_receipt(reply: CoreResult, receipt: Receipt) -> CoreResult {
    let mut text = format!("{{\"call\":\"{}\"", receipt.call);
    if let Some(credits) = receipt.credits {
        let _ = write!(text, ",\"credits\":\"{credits}\"");
    }
    if let Some(left) = receipt.left {
        let _ = write!(text, ",\"left\":\"{left}\"");
    }
    if receipt.replayed {
        text.push_str(",\"replayed\":true");
    }
    text.push('}');
    match reply {
        CoreResult::Complete(complete) => complete.own_meta(RECEIPT, text).into(),
        asks @ CoreResult::InputRequired { .. } => asks,
    }
}
