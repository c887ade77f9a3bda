//! The history of legacy sessions: who opened one, with what, and how it ended. The live session keeps its own
//! state elsewhere and works without its row.

use crate::caller::Principal;
use crate::clock::Clock;
use crate::credentials;
use crate::db::{self, Db, Listed, Page, storable};
use crate::error::Result;
use crate::id::{SessionRowId, TenantId};

pub use crate::db::session_history::SessionRow;

/// Longest kept text that a client sent about itself, in bytes.
const MAX_CLIENT_TEXT: usize = 200;

/// What is known when a session opens.
#[derive(Debug, Clone, Copy)]
pub struct Opened<'a> {
    /// Who opens it.
    pub principal: &'a Principal,
    /// `streamable_http` or `sse`.
    pub transport: &'a str,
    /// The protocol revision that was agreed on.
    pub revision: &'a str,
    /// `clientInfo.name`, as it was sent; cut to 200 bytes.
    pub client_name: &'a str,
    /// `clientInfo.version`, as it was sent; cut to 200 bytes.
    pub client_version: &'a str,
}

/// What is known when a session ends.
#[derive(Debug, Clone, Copy)]
pub struct Closed<'a> {
    /// Why, in a word or two, such as `client` or `idle`.
    pub reason: &'a str,
    /// JSON-RPC requests that it carried.
    pub requests: u64,
    /// Tool calls among them.
    pub calls: u64,
}

/// Records that a session was opened now.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn open(db: &Db, clock: &Clock, opened: Opened<'_>) -> Result<SessionRowId> {
    let row = SessionRow {
        id: SessionRowId::new(),
        tenant_id: opened.principal.tenant,
        principal: credentials::label(&opened.principal.credential),
        transport: opened.transport.to_owned(),
        revision: storable(opened.revision, MAX_CLIENT_TEXT),
        client_name: storable(opened.client_name, MAX_CLIENT_TEXT),
        client_version: storable(opened.client_version, MAX_CLIENT_TEXT),
        opened_at: clock.now(),
        closed_at: None,
        close_reason: None,
        requests: 0,
        calls: 0,
    };
    db::session_history::insert(db, &row).await?;
    Ok(row.id)
}

/// Records that a session ended now. Whether it was recorded as open; the first end counts.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn close(
    db: &Db,
    clock: &Clock,
    tenant: TenantId,
    id: SessionRowId,
    closed: Closed<'_>,
) -> Result<bool> {
    let end = db::session_history::End {
        at: clock.now(),
        reason: closed.reason,
        requests: i64::try_from(closed.requests).unwrap_or(i64::MAX),
        calls: i64::try_from(closed.calls).unwrap_or(i64::MAX),
    };
    db::session_history::close(db, tenant, id, end).await
}

/// One page of a tenant's sessions, oldest first.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn list(db: &Db, tenant: TenantId, page: Page<SessionRowId>) -> Result<Listed<SessionRow>> {
    db::session_history::list(db, tenant, page).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Actor;
    use crate::caller::Credential;
    use crate::clock::Timestamp;
    use crate::db::testing::on_every_engine;
    use crate::id::KeyId;
    use crate::tenants;

    #[tokio::test]
    async fn a_session_opens_and_ends_once() {
        on_every_engine(async |db| {
            let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
            let tenant = tenants::create(&db, &clock, Actor::Cli, "a").await.expect("a tenant").id;
            let other = tenants::create(&db, &clock, Actor::Cli, "b").await.expect("a tenant").id;
            let principal = Principal { tenant, credential: Credential::ApiKey(KeyId::new()) };
            let opened = Opened {
                principal: &principal,
                transport: "sse",
                revision: "2024-11-05",
                client_name: "odd\0name",
                client_version: &"9".repeat(1000),
            };
            let id = open(&db, &clock, opened).await.expect("a row");
            let closed = Closed { reason: "idle", requests: 3, calls: 2 };
            assert!(!close(&db, &clock, other, id, closed).await.expect("an answer"));
            assert!(close(&db, &clock, tenant, id, closed).await.expect("an answer"));
            assert!(!close(&db, &clock, tenant, id, closed).await.expect("an answer"));

            let rows = list(&db, tenant, Page::first(10)).await.expect("a list").rows;
            assert_eq!(rows.len(), 1);
            assert_eq!((rows[0].client_name.as_str(), rows[0].client_version.len()), ("oddname", 200));
            assert_eq!((rows[0].requests, rows[0].calls), (3, 2));
            assert_eq!(rows[0].close_reason.as_deref(), Some("idle"));
            assert!(list(&db, other, Page::first(10)).await.expect("a list").rows.is_empty());
        })
        .await;
    }
}
