//! Tool calls that were made: rows and SQL.

use std::ops::Range;

use serde::Serialize;
use sqlx::FromRow;

use super::{Db, JsonText, Listed, Page, Pools, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{CallId, PeriodId, PriceVersionId, TenantId};

/// One logical tool call.
#[derive(Debug, Clone, FromRow)]
pub struct CallRow {
    /// Its id.
    pub id: CallId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The credential that made it: `key_...` or `jwt_...`.
    pub credential: String,
    /// The server that the tool belongs to.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// How it ended.
    pub outcome: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in microseconds.
    pub duration_us: i64,
    /// The size of its arguments.
    pub request_bytes: i64,
    /// The size of its result.
    pub result_bytes: i64,
    /// What an error quotes, and what the logs are searched for.
    pub correlation_id: String,
}

/// A call on its way into the database; the names are those of the columns.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NewCall {
    pub(crate) id: CallId,
    pub(crate) tenant_id: TenantId,
    pub(crate) credential: String,
    pub(crate) server: String,
    pub(crate) tool: String,
    pub(crate) outcome: &'static str,
    pub(crate) started_at: i64,
    pub(crate) duration_us: i64,
    pub(crate) request_bytes: i64,
    pub(crate) result_bytes: i64,
    pub(crate) period_id: Option<PeriodId>,
    pub(crate) price_version_id: Option<PriceVersionId>,
}

/// The engines read a list from JSON each in its own way. `where true` tells SQLite's parser that `on` is not a join's.
const INSERT_SQLITE: &str =
    "insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us,
                        request_bytes, result_bytes, correlation_id, period_id, price_version_id)
     select value ->> 'id', value ->> 'tenant_id', value ->> 'credential', value ->> 'server',
            value ->> 'tool', value ->> 'outcome', value ->> 'started_at', value ->> 'duration_us',
            value ->> 'request_bytes', value ->> 'result_bytes', value ->> 'id',
            value ->> 'period_id', value ->> 'price_version_id'
     from jsonb_each($1) where true
     on conflict (id) do nothing";
const INSERT_POSTGRES: &str =
    "insert into calls (id, tenant_id, credential, server, tool, outcome, started_at, duration_us,
                        request_bytes, result_bytes, correlation_id, period_id, price_version_id)
     select id, tenant_id, credential, server, tool, outcome, started_at, duration_us,
            request_bytes, result_bytes, id, period_id, price_version_id
     from json_to_recordset(cast($1 as json)) as r
          (id text, tenant_id text, credential text, server text, tool text, outcome text,
           started_at bigint, duration_us bigint, request_bytes bigint, result_bytes bigint,
           period_id text, price_version_id text)
     on conflict (id) do nothing";

fn insert_sql(db: &Db) -> &'static str {
    match db.pools() {
        Pools::Sqlite { .. } => INSERT_SQLITE,
        Pools::Postgres(_) => INSERT_POSTGRES,
    }
}

/// Inserts calls in one statement; one that is there already stays as it is, so a batch may be sent again.
pub(crate) async fn insert_batch(db: &Db, batch: &[NewCall]) -> Result<()> {
    let sql = insert_sql(db);
    on_writer!(db, |conn| done(sqlx::query(sql).bind(JsonText(batch)).execute(conn))).map(|_| ())
}

/// The same within a transaction.
pub(crate) async fn insert_batch_in(db: &Db, tx: &mut Tx, batch: &[NewCall]) -> Result<()> {
    let sql = insert_sql(db);
    in_tx!(tx, |conn| done(sqlx::query(sql).bind(JsonText(batch)).execute(conn))).map(|_| ())
}

/// A tenant's calls that began within `range`, in the order in which they began.
pub(crate) async fn list_tenant(
    db: &Db,
    tenant: TenantId,
    range: Range<Timestamp>,
    page: Page<CallId>,
) -> Result<Listed<CallRow>> {
    let start = start_of(db, tenant, range.start, page).await?;
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                result_bytes, correlation_id
         from calls
         where tenant_id = $1 and (started_at, id) > ($2, $3) and started_at < $4
         order by started_at, id
         limit $5"
    )
    .bind(tenant)
    .bind(start)
    .bind(page.after_text())
    .bind(range.end)
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// The calls of one credential that began within `range`, in the order in which they began.
pub(crate) async fn list_credential(
    db: &Db,
    tenant: TenantId,
    credential: &str,
    range: Range<Timestamp>,
    page: Page<CallId>,
) -> Result<Listed<CallRow>> {
    let start = start_of(db, tenant, range.start, page).await?;
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, credential, server, tool, outcome, started_at, duration_us, request_bytes,
                result_bytes, correlation_id
         from calls
         where tenant_id = $1 and credential = $2 and (started_at, id) > ($3, $4) and started_at < $5
         order by started_at, id
         limit $6"
    )
    .bind(tenant)
    .bind(credential)
    .bind(start)
    .bind(page.after_text())
    .bind(range.end)
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// When the call that a page comes after began, never before the range; the range's end of time for a call
/// that the tenant does not have, so that a foreign cursor finds nothing.
pub(super) async fn start_of(
    db: &Db,
    tenant: TenantId,
    from: Timestamp,
    page: Page<CallId>,
) -> Result<Timestamp> {
    let Some(after) = page.after else { return Ok(from) };
    let began: Option<Timestamp> = on_reader!(db, |conn| sqlx::query_scalar(
        "select started_at from calls where tenant_id = $1 and id = $2"
    )
    .bind(tenant)
    .bind(after)
    .fetch_optional(conn))?;
    Ok(began.map_or(Timestamp::from_micros(i64::MAX), |began| began.max(from)))
}
