//! The audit trail: rows and SQL. What is written, and by whom, is in [`crate::audit`].

use sqlx::FromRow;

use super::{Db, Listed, Page, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{AuditId, TenantId};

/// One change: what was done to what, when, by whom.
#[derive(Debug, Clone, FromRow)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// When it was done.
    pub at: Timestamp,
    /// Who did it: `operator:opk_...`, `cli` or `dev`.
    pub actor: String,
    /// What was done, such as `tenant.suspend`.
    pub action: String,
    /// The kind of thing that it was done to, such as `tenant`.
    pub subject_kind: String,
    /// The id of that thing.
    pub subject_id: String,
    /// The tenant concerned, if one is.
    pub tenant_id: Option<TenantId>,
    /// More about it, as a JSON object. Never a secret.
    pub detail: String,
}

pub(crate) async fn insert(tx: &mut Tx, entry: &AuditEntry) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query(
            "insert into audit_entries (id, at, actor, action, subject_kind, subject_id, tenant_id, detail)
         values ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
        .bind(entry.id)
        .bind(entry.at)
        .bind(entry.actor.as_str())
        .bind(entry.action.as_str())
        .bind(entry.subject_kind.as_str())
        .bind(entry.subject_id.as_str())
        .bind(entry.tenant_id)
        .bind(entry.detail.as_str())
        .execute(conn)
    ))
    .map(|_| ())
}

/// The whole deployment's trail; for operators.
pub(crate) async fn list_all(db: &Db, page: Page<AuditId>) -> Result<Listed<AuditEntry>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, at, actor, action, subject_kind, subject_id, tenant_id, detail
         from audit_entries
         where id > $1
         order by id
         limit $2"
    )
    .bind(page.after_text())
    .bind(page.fetch())
    .fetch_all(conn))?;
    Ok(page.cut(rows))
}

/// One tenant's trail.
pub(crate) async fn list_tenant(
    db: &Db,
    tenant: TenantId,
    page: Page<AuditId>,
) -> Result<Listed<AuditEntry>> {
    let rows = on_reader!(db, |conn| sqlx::query_as(
        "select id, at, actor, action, subject_kind, subject_id, tenant_id, detail
         from audit_entries
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
