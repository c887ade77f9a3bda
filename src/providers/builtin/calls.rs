//! `logs://calls/{date}`: the caller's own calls of one day, in pages.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;

use super::Core;
use crate::calls;
use crate::clock::Timestamp;
use crate::db::Page;
use crate::error::Result;
use crate::id::CallId;
use crate::mcp::content::ResourceContents;
use crate::providers::{Call, Completion, Failure, Reference, Reply, TemplateSpec, Toolkit};

/// The template. A page after the first is read at the `next` URI that the page before names.
pub const TEMPLATE: &str = "logs://calls/{date}";
const NEXT_PAGE: &str = "logs://calls/{date}/after/{call}";
/// Calls per page.
const PAGE: u32 = 100;
/// Days that completion offers.
const OFFERED_DAYS: i64 = 31;

/// The day as a span of time, in UTC.
fn day(date: &str) -> Option<std::ops::Range<Timestamp>> {
    let date: Date = date.parse().ok().filter(|parsed: &Date| parsed.to_string() == date)?;
    let start = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let end = date.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(start.into()..end.into())
}

async fn read(
    core: &Core,
    call: &Call,
    uri: String,
    found: &BTreeMap<String, String>,
) -> std::result::Result<Reply<Vec<ResourceContents>>, Failure> {
    let date = found.get("date").map_or("", String::as_str);
    let Some(range) = day(date) else {
        return Err(Failure::InvalidParams(format!("{date:?} is not a date; expected YYYY-MM-DD, in UTC")));
    };
    let after = match found.get("call").map(|id| id.parse::<CallId>()) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return Err(Failure::NotFound),
    };
    core.usage.flush().await;
    let caller = call.caller();
    let credential = &caller.principal().credential;
    let page = Page { after, limit: PAGE };
    let listed = calls::list_day(&core.db, caller.tenant(), Some(credential), range, page).await?;
    let next =
        listed.rows.last().filter(|_| listed.more).map(|row| format!("logs://calls/{date}/after/{}", row.id));
    let rows: Vec<_> = listed
        .rows
        .iter()
        .map(|row| {
            json!({
                "call": row.id,
                "server": row.server,
                "tool": row.tool,
                "outcome": row.outcome,
                "started_at": row.started_at,
                "duration_us": row.duration_us,
                "request_bytes": row.request_bytes,
                "result_bytes": row.result_bytes,
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&json!({ "date": date, "calls": rows, "next": next }))?;
    Ok(vec![ResourceContents::text(uri, "application/json", text)].into())
}

/// Adds the template and the completion of its date.
///
/// # Errors
/// None in practice: the templates are fixed.
pub fn add(mut kit: Toolkit, core: &Core) -> Result<Toolkit> {
    for (template, name, text) in [
        (
            TEMPLATE,
            "Calls of a day",
            "Your own tool calls of one day (UTC, YYYY-MM-DD), oldest first, 100 to a page.",
        ),
        (
            NEXT_PAGE,
            "Calls of a day, further pages",
            "The page after a call; `next` of the page before names it.",
        ),
    ] {
        let spec = TemplateSpec::new(template, name, "application/json").description(text);
        let core = core.clone();
        kit = kit.template(&spec, move |call: Call, (uri, found)| {
            let core = core.clone();
            async move { read(&core, &call, uri, &found).await }
        })?;
    }
    let clock = core.clock.clone();
    Ok(kit.completion(move |_call, (what, typing)| {
        let today = clock.now().to_jiff().to_zoned(TimeZone::UTC).date();
        async move {
            if what != Reference::Template(TEMPLATE.to_owned()) || typing.name != "date" {
                return Ok(Completion::default());
            }
            let days =
                (0..OFFERED_DAYS).filter_map(|back| today.checked_sub(jiff::Span::new().days(back)).ok());
            let values: Vec<_> =
                days.map(|d| d.to_string()).filter(|d| d.starts_with(&typing.value)).collect();
            Ok(Completion { total: u32::try_from(values.len()).ok(), has_more: false, values })
        }
    }))
}
