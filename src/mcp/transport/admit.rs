//! What a request takes from its caller's limits, asked for once, when it is known what it is.

use std::sync::Arc;

use super::Arrival;
use crate::limits::{Admission, Asked, Limited};
use crate::mcp::request::Params;
use crate::mcp::runs_provider;
use crate::policy;

/// Lets in what is no JSON-RPC request, or none that can be read.
pub async fn plain(arrival: &Arrival, bytes: usize) -> Result<Admission, Limited> {
    ask(arrival, Asked { bytes, ..Asked::default() }).await
}

/// Lets in a request.
pub async fn request(
    arrival: &Arrival,
    method: &str,
    params: &Params,
    bytes: usize,
) -> Result<Admission, Limited> {
    let called = called(arrival, method, params);
    let tool = called.as_ref().map(|(server, tool)| (&**server, &**tool));
    ask(arrival, Asked { bytes, tool, runs: runs_provider(method) }).await
}

/// Refuses what would be refused anyway, as far as is known here. For what is not to be read, then.
pub fn look(arrival: &Arrival) -> Result<(), Limited> {
    let looked = arrival.app.limits.look(&arrival.caller);
    looked.inspect_err(|reached| arrival.app.metrics.rate_limited.inc(reached.scope))
}

async fn ask(arrival: &Arrival, asked: Asked<'_>) -> Result<Admission, Limited> {
    let admitted = arrival.app.limits.admit(&arrival.caller, asked).await;
    admitted.inspect_err(|reached| arrival.app.metrics.rate_limited.inc(reached.scope))
}

/// Server and name of the tool that is called, where the caller's plan has rates for such. A name that it cannot see has
/// none.
fn called(arrival: &Arrival, method: &str, params: &Params) -> Option<(Arc<str>, Arc<str>)> {
    if method != "tools/call" || !arrival.caller.limits().has_rules() {
        return None;
    }
    let name = params.name.as_deref()?;
    let snapshot = arrival.app.registry.snapshot(arrival.endpoint.0.as_deref())?;
    let found = snapshot.tools.get(name, |found| policy::allowed(&arrival.caller, found))?;
    Some((found.server.clone(), found.entry.name.clone()))
}
