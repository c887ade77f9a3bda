//! Sessions that are or were open: rows and SQL. The live session is not here and holds no row's lock.

use sqlx::FromRow;

use super::{Db, Listed, Page, done};
use crate::clock::Timestamp;
use crate::error::Result;
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

pub(crate) async fn insert(db: &Db, row: &SessionRow) -> Result<()> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "insert into session_history
             (id, tenant_id, principal, transport, revision, client_name, client_version, opened_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (id) do nothing"
        )
        .bind(row.id)
        .bind(row.tenant_id)
        .bind(row.principal.as_str())
        .bind(row.transport.as_str())
        .bind(row.revision.as_str())
        .bind(row.client_name.as_str())
        .bind(row.client_version.as_str())
        .bind(row.opened_at)
        .execute(conn)
    ))
    .map(|_| ())
}

/// What is known at a session's end.
pub(crate) struct End<'a> {
    pub(crate) at: Timestamp,
    pub(crate) revision: &'a str,
    pub(crate) client_name: &'a str,
    pub(crate) client_version: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) requests: i64,
    pub(crate) calls: i64,
}

/// Records the end of a session; whether it was open.
pub(crate) async fn close(db: &Db, tenant: TenantId, id: SessionRowId, end: End<'_>) -> Result<bool> {
    on_writer!(db, |conn| done(
        sqlx::query(
            "update session_history set closed_at = $3, close_reason = $4, requests = $5, calls = $6,
                 revision = $7, client_name = $8, client_version = $9
             where tenant_id = $1 and id = $2 and closed_at is null",
        )
        .bind(tenant)
        .bind(id)
        .bind(end.at)
        .bind(end.reason)
        .bind(end.requests)
        .bind(end.calls)
        .bind(end.revision)
        .bind(end.client_name)
        .bind(end.client_version)
        .execute(conn)
    ))
    .map(|rows| rows > 0)
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
