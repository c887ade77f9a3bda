//! `/admin/v1/tenants/{tenant}/usage` and `/calls`: what a tenant used, in sums and call by call.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::super::caller::Operator;
use super::super::extract::{Json, Path, Query};
use super::super::problem::Problem;
use super::{PageBody, PageQuery};
use crate::app::App;
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::error::Error;
use crate::id::{CallId, PeriodId, PriceVersionId, TenantId};
use crate::ledger::days;
use crate::ledger::usage::{self, By, Entry, Line, Sums};

/// Most days of one answer.
const MOST_DAYS: i32 = 400;

/// `?from=&to=&by=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumsQuery {
    from: String,
    to: String,
    by: Option<By>,
}

/// `?from=&to=&limit=&cursor=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsQuery {
    from: String,
    to: String,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Sums over the calls of a day, key, server or tool.
#[derive(Debug, Default, Serialize)]
struct LineBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(flatten)]
    sums: Sums,
}

impl LineBody {
    fn new(by: By, line: Line) -> Self {
        let fresh = Self { server: line.server, sums: line.sums, ..Self::default() };
        let name = Some(line.name);
        match by {
            By::Day => Self { day: name, ..fresh },
            By::Key => Self { key: name, ..fresh },
            By::Server => Self { server: name, ..fresh },
            By::Tool => Self { tool: name, ..fresh },
        }
    }
}

/// Sums as the API shows them.
#[derive(Debug, Serialize)]
struct SumsBody {
    from: String,
    to: String,
    by: By,
    data: Vec<LineBody>,
}

/// A call as the API shows it.
#[derive(Debug, Serialize)]
pub struct CallBody {
    id: CallId,
    started_at: Timestamp,
    key: String,
    server: String,
    tool: String,
    outcome: String,
    duration_us: i64,
    request_bytes: i64,
    result_bytes: i64,
    credits: Credits,
    included: Credits,
    promotional: Credits,
    prepaid: Credits,
    overage: Credits,
    given_back: Credits,
    period: Option<PeriodId>,
    price_version: Option<PriceVersionId>,
}

impl From<Entry> for CallBody {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            started_at: entry.started_at,
            key: entry.credential,
            server: entry.server,
            tool: entry.tool,
            outcome: entry.outcome,
            duration_us: entry.duration_us,
            request_bytes: entry.request_bytes,
            result_bytes: entry.result_bytes,
            credits: entry.credits,
            included: entry.included,
            promotional: entry.promotional,
            prepaid: entry.prepaid,
            overage: entry.overage,
            given_back: entry.given_back,
            period: entry.period_id,
            price_version: entry.price_version_id,
        }
    }
}

/// The days from the first to the last, both included.
fn range(from: &str, to: &str) -> Result<RangeInclusive<Date>, Problem> {
    let (from, to) = (days::parse(from)?, days::parse(to)?);
    let length = from.until(to).map_or(i32::MAX, |span| span.get_days());
    if !(0..MOST_DAYS).contains(&length) {
        let text = format!("to: expected a day from {from} on, at most {MOST_DAYS} days in all; found {to}");
        return Err(Error::Invalid(text).into());
    }
    Ok(from..=to)
}

/// Sums of what a tenant used, by day where the request does not say.
pub async fn sums(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<SumsQuery>,
) -> Result<Response, Problem> {
    let days = range(&query.from, &query.to)?;
    crate::tenants::get(&app.db, tenant).await?;
    app.usage.flush().await;
    let by = query.by.unwrap_or(By::Day);
    let lines = usage::sums(&app.db, tenant, days, by).await?;
    let data = lines.into_iter().map(|line| LineBody::new(by, line)).collect();
    Ok(Json(SumsBody { from: query.from, to: query.to, by, data }).into_response())
}

/// A tenant's calls, in the order in which they began.
pub async fn calls(
    _operator: Operator,
    State(app): State<Arc<App>>,
    Path(tenant): Path<TenantId>,
    Query(query): Query<CallsQuery>,
) -> Result<Response, Problem> {
    let days = range(&query.from, &query.to)?;
    let page = PageQuery { limit: query.limit, cursor: query.cursor }.page()?;
    crate::tenants::get(&app.db, tenant).await?;
    app.usage.flush().await;
    let listed = usage::calls(&app.db, tenant, days, page).await?;
    Ok(Json(PageBody::new(listed, |call| call.id.to_string(), CallBody::from)).into_response())
}
