//! Sessions that are or were open: rows and SQL. The live session is not here and holds no row's lock.

use serde::Serialize;
use sqlx::FromRow;

use super::{Db, Listed, Page, Pools};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{SessionRowId, TenantId};

/// A legacy session, from its opening to its end.
#[derive(Debug, Clone, FromRow)]
pub struct SessionRow {
    /// Its row's id; not the secret id that the client sends.
    pub id: SessionRowId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The credential that opened it: `key_...` or `jwt_...`.
    pub principal: String,
    /// `streamable_http` or `sse`.
    pub transport: String,
    /// The protocol revision that was agreed on.
    pub revision: String,
    /// What the client calls itself.
    pub client_name: String,
    /// The client's version.
    pub client_version: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ended; `None` while it is open, and where its process died.
    pub closed_at: Option<Timestamp>,
    /// Why it ended.
    pub close_reason: Option<String>,
    /// JSON-RPC requests that it carried.
    pub requests: i64,
    /// Tool calls among them.
    pub calls: i64,
}

/// A session on its way into the database, open or ended already; the names are those of the columns.
#[derive(Serialize)]
pub(crate) struct NewSession<'a> {
    pub(crate) id: SessionRowId,
    pub(crate) tenant_id: TenantId,
    pub(crate) principal: String,
    pub(crate) transport: &'a str,
    pub(crate) opened_at: i64,
    #[serde(flatten)]
    pub(crate) agreed: Agreed<'a>,
    #[serde(flatten)]
    pub(crate) end: Option<End<'a>>,
}

/// What client and server agreed on, and what the client says of itself.
#[derive(Serialize)]
pub(crate) struct Agreed<'a> {
    pub(crate) revision: &'a str,
    pub(crate) client_name: String,
    pub(crate) client_version: String,
}

/// How a session ended.
#[derive(Serialize)]
pub(crate) struct End<'a> {
    pub(crate) closed_at: i64,
    pub(crate) close_reason: &'a str,
    pub(crate) requests: i64,
    pub(crate) calls: i64,
}

/// The end of a session whose row is there already.
#[derive(Serialize)]
pub(crate) struct Ended<'a> {
    pub(crate) id: SessionRowId,
    pub(crate) tenant_id: TenantId,
    #[serde(flatten)]
    pub(crate) agreed: Option<Agreed<'a>>,
    #[serde(flatten)]
    pub(crate) end: End<'a>,
}

/// What a session carried beside what is recorded.
#[derive(Serialize)]
pub(crate) struct Used {
    pub(crate) id: SessionRowId,
    pub(crate) tenant_id: TenantId,
    pub(crate) requests: i64,
    pub(crate) calls: i64,
}

fn list_of(batch: &impl Serialize) -> Result<String> {
    serde_json::to_string(batch).map_err(|error| Error::Internal(error.to_string()))
}

/// Inserts sessions in one statement; one that is there already stays as it is, so a batch may be sent again. The
/// engines read a list from JSON each in its own way.
pub(crate) async fn insert_batch(db: &Db, batch: &[NewSession<'_>]) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let list = list_of(&batch)?;
    match db.pools() {
        // `where true` tells SQLite's parser that `on` is not a join's.
        Pools::Sqlite { write, .. } => on_pool!(db, write, |conn| {
            sqlx::query(
                "insert into session_history (id, tenant_id, principal, transport, revision, client_name,
                                              client_version, opened_at, closed_at, close_reason, requests, calls)
                 select value ->> 'id', value ->> 'tenant_id', value ->> 'principal', value ->> 'transport',
                        value ->> 'revision', value ->> 'client_name', value ->> 'client_version',
                        value ->> 'opened_at', value ->> 'closed_at', value ->> 'close_reason',
                        coalesce(value ->> 'requests', 0), coalesce(value ->> 'calls', 0)
                 from jsonb_each($1) where true
                 on conflict (id) do nothing",
            )
            .bind(list)
            .execute(conn)
        })
        .map(|_| ()),
        Pools::Postgres(pool) => on_pool!(db, pool, |conn| {
            sqlx::query(
                "insert into session_history (id, tenant_id, principal, transport, revision, client_name,
                                              client_version, opened_at, closed_at, close_reason, requests, calls)
                 select id, tenant_id, principal, transport, revision, client_name, client_version, opened_at,
                        closed_at, close_reason, coalesce(requests, 0), coalesce(calls, 0)
                 from json_to_recordset(cast($1 as json)) as r
                      (id text, tenant_id text, principal text, transport text, revision text, client_name text,
                       client_version text, opened_at bigint, closed_at bigint, close_reason text,
                       requests bigint, calls bigint)
                 on conflict (id) do nothing",
            )
            .bind(list)
            .execute(conn)
        })
        .map(|_| ()),
    }
}

/// Records ends in one statement, for those sessions that are open; the first end counts.
pub(crate) async fn close_batch(db: &Db, batch: &[Ended<'_>]) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let list = list_of(&batch)?;
    match db.pools() {
        Pools::Sqlite { write, .. } => on_pool!(db, write, |conn| {
            sqlx::query(
                "update session_history
                 set closed_at = r.value ->> 'closed_at', close_reason = r.value ->> 'close_reason',
                     requests = requests + (r.value ->> 'requests'), calls = calls + (r.value ->> 'calls'),
                     revision = coalesce(r.value ->> 'revision', revision),
                     client_name = coalesce(r.value ->> 'client_name', client_name),
                     client_version = coalesce(r.value ->> 'client_version', client_version)
                 from jsonb_each($1) as r
                 where session_history.id = r.value ->> 'id'
                   and session_history.tenant_id = r.value ->> 'tenant_id'
                   and session_history.closed_at is null",
            )
            .bind(list)
            .execute(conn)
        })
        .map(|_| ()),
        Pools::Postgres(pool) => on_pool!(db, pool, |conn| {
            sqlx::query(
                "update session_history as s
                 set closed_at = r.closed_at, close_reason = r.close_reason,
                     requests = s.requests + r.requests, calls = s.calls + r.calls,
                     revision = coalesce(r.revision, s.revision),
                     client_name = coalesce(r.client_name, s.client_name),
                     client_version = coalesce(r.client_version, s.client_version)
                 from json_to_recordset(cast($1 as json)) as r
                      (id text, tenant_id text, revision text, client_name text, client_version text,
                       closed_at bigint, close_reason text, requests bigint, calls bigint)
                 where s.id = r.id and s.tenant_id = r.tenant_id and s.closed_at is null",
            )
            .bind(list)
            .execute(conn)
        })
        .map(|_| ()),
    }
}

/// Adds to the counts of sessions, in one statement.
pub(crate) async fn add_batch(db: &Db, batch: &[Used]) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let list = list_of(&batch)?;
    match db.pools() {
        Pools::Sqlite { write, .. } => on_pool!(db, write, |conn| {
            sqlx::query(
                "update session_history
                 set requests = requests + (r.value ->> 'requests'), calls = calls + (r.value ->> 'calls')
                 from jsonb_each($1) as r
                 where session_history.id = r.value ->> 'id'
                   and session_history.tenant_id = r.value ->> 'tenant_id'",
            )
            .bind(list)
            .execute(conn)
        })
        .map(|_| ()),
        Pools::Postgres(pool) => on_pool!(db, pool, |conn| {
            sqlx::query(
                "update session_history as s
                 set requests = s.requests + r.requests, calls = s.calls + r.calls
                 from json_to_recordset(cast($1 as json)) as r
                      (id text, tenant_id text, requests bigint, calls bigint)
                 where s.id = r.id and s.tenant_id = r.tenant_id",
            )
            .bind(list)
            .execute(conn)
        })
        .map(|_| ()),
    }
}

pub(crate) async fn list(db: &Db, tenant: TenantId, page: Page<SessionRowId>) -> Result<Listed<SessionRow>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, tenant_id, principal, transport, revision, client_name, client_version,
                opened_at, closed_at, close_reason, requests, calls
         from session_history
         where tenant_id = $1 and id > $2
         order by id
         limit $3"
    )
    .bind(tenant)
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}
