//! The shared core: what every transport leads to. It speaks the newest revision and knows no HTTP framework and no
//! database; the transports lift older eras to it and translate what comes back.

pub mod bus;
mod charges;
mod completion;
pub mod content;
mod discover;
pub mod error;
pub mod feed;
pub mod jsonrpc;
mod lists;
pub mod outlet;
mod prompts;
pub mod request;
mod resources;
pub mod result;
pub mod revision;
mod rounds;
pub mod session;
mod tools;
pub mod transport;

use std::ops::Deref;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::caller::Caller;
use crate::limits::{Admission, Limited, Place, Scope};
use crate::providers::Snapshot;
use crate::telemetry::labels::Label;
use error::{RpcError, code};
use outlet::Outlet;
use request::Request;
use result::CoreResult;

pub use discover::{capabilities, server_info};

/// Which tools a URL offers: all that the caller may use, or one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Endpoint(pub Option<Arc<str>>);

/// One request with everything that the core needs beside it.
pub struct Exchange {
    /// Who asks.
    pub caller: Caller,
    /// At which URL.
    pub endpoint: Endpoint,
    /// What is asked.
    pub request: Request,
    /// Proof that the caller is within its limits.
    pub admission: Admission,
    /// Where progress and log messages go.
    pub outlet: Arc<Outlet>,
    /// Fires when the client gives up.
    pub cancelled: CancellationToken,
}

impl Exchange {
    /// One of the tenant's places for what runs at once. Tool calls take theirs with the reservation.
    async fn place(&mut self, app: &App) -> Result<Place, RpcError> {
        let place = app.limits.running(&self.caller, &mut self.admission).await;
        Ok(place.inspect_err(|reached| app.metrics.rate_limited.inc(reached.scope))?)
    }

    fn snapshot(&self, app: &App) -> Result<Arc<Snapshot>, RpcError> {
        app.registry
            .snapshot(self.endpoint.0.as_deref())
            .ok_or_else(|| RpcError::new(code::INVALID_REQUEST, 404, "no such server; check the URL"))
    }
}

/// Answers a request.
///
/// # Errors
/// The JSON-RPC error to answer with.
pub async fn answer(app: &App, exchange: &mut Exchange) -> Result<CoreResult, RpcError> {
    match &*exchange.request.method {
        "tools/call" => tools::call(app, exchange).await,
        "tools/list" => tools::list(app, exchange).await,
        "resources/list" => resources::list(app, exchange),
        "resources/templates/list" => resources::templates(app, exchange),
        "resources/read" => resources::read(app, exchange).await,
        "prompts/list" => prompts::list(app, exchange),
        "prompts/get" => prompts::get(app, exchange).await,
        "completion/complete" => completion::complete(app, exchange).await,
        "server/discover" => discover::discover(app),
        method => Err(RpcError::method_not_found(method, exchange.request.revision)),
    }
}

/// Methods that the core answers. Transports add those that belong to their era.
pub const METHODS: [&str; 9] = [
    "tools/call",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "server/discover",
];

/// Whether answering this method may run a provider's code, and so take time.
#[must_use]
pub fn runs_provider(method: &str) -> bool {
    matches!(method, "tools/call" | "resources/read" | "prompts/get" | "completion/complete")
}

impl From<Limited> for RpcError {
    /// HTTP 200 inside `/mcp`: several clients drop the body of any other status, and with it the reason.
    fn from(limited: Limited) -> Self {
        let millis = u64::try_from(limited.retry_after.as_millis()).unwrap_or(u64::MAX).max(1);
        let seconds = millis.div_ceil(1000);
        let what = match limited.scope {
            Scope::Tenant => "requests of this tenant",
            Scope::Key => "requests of this credential",
            Scope::Server => "calls of the tools of this server",
            Scope::Tool => "calls of this tool",
            Scope::Bytes => "bytes of this tenant",
            Scope::Concurrency => "calls running at once",
            Scope::Sessions => "sessions open at once",
            Scope::Streams => "streams open at once",
            Scope::Questions => "calls waiting for an answer at once",
            Scope::Unavailable => return Self::away("limits cannot be checked right now; try again"),
        };
        let text = format!("limit reached: {what}; try again in {seconds} s");
        let mut error = Self::new(code::LIMITED, 200, text).with_data(&serde_json::json!({
            "limit": limited.scope.text(),
            "max": limited.limit,
            "retryAfterMs": millis,
        }));
        error.retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        error.limit = Some(limited.limit);
        error
    }
}

/// Joins serialised values into a JSON array.
fn array(items: impl Iterator<Item = impl Deref<Target = RawValue>>) -> Result<Box<RawValue>, RpcError> {
    let mut out = String::from("[");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(item.get());
    }
    out.push(']');
    RawValue::from_string(out).map_err(|_| RpcError::new(code::INTERNAL, 200, "a descriptor is not JSON"))
}
