//! `subscriptions/listen` (2026-07-28 "Subscriptions"): a request whose response is a stream of what changes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use axum::response::Response;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Arrival;
use super::accept::Accepts;
use super::notices::{Notice, Notices, everything, notification};
use super::reply::{limited, with_rate};
use super::stream::sse;
use crate::limits::{Admission, Scope};
use crate::mcp::bus::Changed;
use crate::mcp::error::{RpcError, code};
use crate::mcp::feed::frame;
use crate::mcp::jsonrpc::{self, RequestId};
use crate::mcp::request::{MAX_URI, Params};
use crate::telemetry::labels::Stream;

/// Resources that one stream may watch.
const MAX_RESOURCES: usize = 256;

#[derive(Deserialize)]
struct Wire {
    /// Read in two steps, because serde would take a list for a struct.
    notifications: serde_json::Map<String, Value>,
}

/// What the client wants to hear.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: BTreeSet<Box<str>>,
}

impl Filter {
    fn wants(&self, what: &Changed) -> bool {
        match what {
            Changed::Tools => self.tools_list_changed,
            Changed::Prompts => self.prompts_list_changed,
            Changed::Resources => self.resources_list_changed,
            Changed::Resource(uri) => self.resource_subscriptions.contains(&**uri),
        }
    }

    /// The part that is honoured: all of it, but for resources that the caller cannot see.
    fn narrow(mut self, arrival: &Arrival) -> Self {
        let snapshot = arrival.app.registry.snapshot(arrival.endpoint.0.as_deref());
        let scopes = arrival.caller.scopes();
        self.resource_subscriptions
            .retain(|uri| snapshot.as_ref().is_some_and(|s| s.resource(uri, scopes).is_some()));
        self
    }

    fn to_json(&self) -> Value {
        let mut out = json!({});
        for (name, on) in [
            ("toolsListChanged", self.tools_list_changed),
            ("promptsListChanged", self.prompts_list_changed),
            ("resourcesListChanged", self.resources_list_changed),
        ] {
            if on {
                out[name] = true.into();
            }
        }
        if !self.resource_subscriptions.is_empty() {
            out["resourceSubscriptions"] = json!(self.resource_subscriptions);
        }
        out
    }
}

fn read_filter(params: &Params) -> Result<Filter, RpcError> {
    let wire: Wire = params.read()?;
    let filter: Filter = serde_json::from_value(Value::Object(wire.notifications))
        .map_err(|error| RpcError::invalid_params(format!("params.notifications: {error}")))?;
    if filter.resource_subscriptions.len() > MAX_RESOURCES {
        let text = format!("params.notifications.resourceSubscriptions holds at most {MAX_RESOURCES} URIs");
        return Err(RpcError::invalid_params(text));
    }
    if filter.resource_subscriptions.iter().any(|uri| uri.len() > MAX_URI) {
        let text =
            format!("params.notifications.resourceSubscriptions: a URI is longer than {MAX_URI} bytes");
        return Err(RpcError::invalid_params(text));
    }
    Ok(filter)
}

/// Opens the stream.
///
/// # Errors
/// The response that says why not: 406 for a client that cannot read a stream, −32602 for a filter that is none, −31001 where the tenant has as many streams
/// as it may.
pub async fn listen(
    arrival: &Arrival,
    id: &RequestId,
    params: &Params,
    admission: &Admission,
) -> Result<Response, Response> {
    let refuse = |error: &RpcError| super::error_response(Some(id), error);
    if !Accepts::from(&arrival.headers).stream {
        return Err(refuse(&RpcError::new(code::HTTP, 406, "accept text/event-stream for this method")));
    }
    let filter = read_filter(params).map_err(|error| refuse(&error))?;
    let app = &arrival.app;
    let place = app.limits.place(&arrival.caller, Scope::Streams).await.map_err(|reached| {
        app.metrics.rate_limited.inc(reached.scope);
        limited(Some(id), reached)
    })?;
    let notices = Notices::subscribe(arrival);
    let filter = filter.narrow(arrival);
    let number = format!("\"io.modelcontextprotocol/subscriptionId\":{}", id.as_json());
    let subscription = format!("\"_meta\":{{{number}}}");
    let acknowledged = jsonrpc::notification(
        "notifications/subscriptions/acknowledged",
        Some(&format!("{{\"notifications\":{},{subscription}}}", filter.to_json())),
    );
    let end = format!(
        "{{\"resultType\":\"complete\",\"_meta\":{{\"io.modelcontextprotocol/serverInfo\":{},{number}}}}}",
        app.server_info
    );
    let state = Listening {
        notices: Some(notices),
        filter,
        subscription,
        end: jsonrpc::response(id, &end),
        queue: VecDeque::from([acknowledged]),
    };
    let messages = stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((frame(None, &text), state))
    });
    Ok(with_rate(sse(app, Stream::Listen, messages, Arc::new(place)), Some(admission.standing)))
}

struct Listening {
    notices: Option<Notices>,
    filter: Filter,
    subscription: String,
    end: String,
    queue: VecDeque<String>,
}

impl Listening {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.queue.pop_front() {
                return Some(text);
            }
            match self.notices.as_mut()?.next().await {
                Some(Notice::Changed(what)) if self.filter.wants(&what) => {
                    return Some(notification(&what, &self.subscription));
                }
                Some(Notice::Changed(_)) => {}
                Some(Notice::Missed) => {
                    let all = everything(self.filter.resource_subscriptions.iter());
                    for what in all.filter(|what| self.filter.wants(what)) {
                        self.queue.push_back(notification(&what, &self.subscription));
                    }
                }
                None => {
                    self.notices = None;
                    self.queue.push_back(std::mem::take(&mut self.end));
                }
            }
        }
    }
}
