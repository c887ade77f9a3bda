//! `server/discover`, and what Weir says about itself in every era.

use serde_json::{Value, json};

use super::error::RpcError;
use super::result::{CacheHint, Complete, CoreResult};
use super::revision::Revision;
use crate::app::App;

/// What this server can do, for `initialize` and `server/discover`. The same for every caller: what a caller may
/// use shows in the lists.
#[must_use]
pub fn capabilities() -> Value {
    json!({
        "tools": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "prompts": { "listChanged": true },
        "completions": {},
        "logging": {},
    })
}

/// Name and version, as `serverInfo`.
#[must_use]
pub fn server_info(name: &str) -> Value {
    json!({ "name": name, "title": "Weir", "version": env!("CARGO_PKG_VERSION") })
}

/// `server/discover` (2026-07-28 "Discovery").
///
/// # Errors
/// None in practice: everything in the result is known to be JSON.
pub fn discover(app: &App) -> Result<CoreResult, RpcError> {
    let ttl_ms = u64::try_from(app.config.mcp.list_ttl.get().as_millis()).unwrap_or(0);
    Ok(Complete::new()
        .field("supportedVersions", &Revision::NAMES)?
        .field("capabilities", &capabilities())?
        .field("instructions", &app.config.mcp.instructions)?
        .cached(CacheHint { ttl_ms })
        .into())
}
