//! Pages of lists: in order of their keys, filtered by what the caller may see, with cursors that only the tenant they
//! were made for can use.

use std::ops::Deref;

use serde_json::value::RawValue;

use super::error::{RpcError, code};
use super::result::{CacheHint, Complete};
use super::{Exchange, array};
use crate::app::App;
use crate::providers::{Found, Listed};
use crate::seal::Purpose;

/// One page of `list` as a result with the field `name`.
///
/// # Errors
/// −32602 where the cursor is not one of ours for this tenant and list.
pub fn page<'a, T, D: Deref<Target = RawValue>>(
    app: &App,
    exchange: &Exchange,
    name: &'static str,
    list: &'a Listed<T>,
    visible: impl Fn(&Found<T>) -> bool,
    descriptor: impl Fn(&'a Found<T>) -> D,
) -> Result<Complete, RpcError> {
    let bound = binding(exchange, name);
    let start = match &exchange.request.params.cursor {
        None => 0,
        Some(cursor) => {
            let after = app.sealer.open(Purpose::Cursor, &bound, cursor).ok_or_else(|| {
                RpcError::invalid_params("unknown cursor; start the list again without one")
            })?;
            list.entries.partition_point(|(key, _)| key.as_bytes() <= after.as_slice())
        }
    };
    let size = app.config.mcp.page_size;
    let mut seen = list.visible(start, visible);
    let shown: Vec<_> = seen.by_ref().take(size).collect();
    let more = seen.next().is_some();
    let items = array(shown.iter().map(|(_, found)| descriptor(found)))?;
    let mut result = Complete::new().raw(name, items);
    if let (true, Some((last, _))) = (more, shown.last()) {
        let cursor = app
            .sealer
            .seal(Purpose::Cursor, &bound, last.as_bytes())
            .map_err(|_| RpcError::new(code::INTERNAL, 200, "cannot make a cursor"))?;
        result = result.field("nextCursor", &cursor)?;
    }
    let ttl_ms = u64::try_from(app.config.mcp.list_ttl.get().as_millis()).unwrap_or(0);
    Ok(result.cached(CacheHint { ttl_ms }))
}

/// What a cursor is bound to: tenant, endpoint and list.
fn binding(exchange: &Exchange, name: &str) -> Vec<u8> {
    let server = exchange.endpoint.0.as_deref().unwrap_or("*");
    format!("{}\n{server}\n{name}", exchange.caller.tenant()).into_bytes()
}
