//! What every process has to forget, because its truth changed here: rows and SQL.
//!
//! A change writes its row in its own transaction; each process polls for rows that it has not seen
//! ([`crate::credentials`]).

use sqlx::FromRow;

use super::{Db, Tx, done};
use crate::clock::Timestamp;
use crate::error::Result;

text_enum! {
    /// What kind of thing changed.
    pub enum Kind {
        /// One API key or URL token.
        Credential = "credential",
        /// A tenant, and with it all its credentials.
        Tenant = "tenant",
        /// A plan, and with it what all tenants on it may use.
        Plan = "plan",
        /// A tenant's account: its periods or grants.
        Account = "account",
    }
}

/// One change.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Invalidation {
    /// Rises with each change; a change that commits late appears among lower ones.
    pub(crate) id: i64,
    pub(crate) kind: Kind,
    /// The id of what changed; the name of a plan.
    pub(crate) subject: String,
}

pub(crate) async fn insert(tx: &mut Tx, at: Timestamp, kind: Kind, subject: String) -> Result<()> {
    in_tx!(tx, |conn| done(
        sqlx::query("insert into invalidations (at, kind, subject) values ($1, $2, $3)")
            .bind(at)
            .bind(kind)
            .bind(subject)
            .execute(conn)
    ))
    .map(|_| ())
}

/// Up to `limit` changes after the one of id `after`, in order.
pub(crate) async fn after(db: &Db, after: i64, limit: i64) -> Result<Vec<Invalidation>> {
    on_reader!(db, |conn| sqlx::query_as(
        "select id, kind, subject from invalidations where id > $1 order by id limit $2"
    )
    .bind(after)
    .bind(limit)
    .fetch_all(conn))
}

/// Deletes the changes made before `at`.
pub(crate) async fn delete_before(db: &Db, at: Timestamp) -> Result<()> {
    on_writer!(db, |conn| done(sqlx::query("delete from invalidations where at < $1").bind(at).execute(conn)))
        .map(|_| ())
}
