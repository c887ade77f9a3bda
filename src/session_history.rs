//! The history of legacy sessions: who opened one, with what, and how it ended. The live session keeps its own
//! state elsewhere and works without its row.

use crate::caller::Principal;
use crate::clock::Timestamp;
use crate::credentials;
use crate::db::{self, Db, Listed, Page, storable};
use crate::error::Result;
use crate::id::{SessionRowId, TenantId};

pub use crate::db::session_history::SessionRow;

/// Longest kept text that a client sent about itself, in bytes.
const MAX_CLIENT_TEXT: usize = 200;

/// What is known when a session opens.
#[derive(Debug, Clone)]
pub struct SessionOpened {
    /// The session's id in logs and history.
    pub id: SessionRowId,
    /// Who opened it.
    pub principal: Principal,
    /// `streamable` or `sse`.
    pub transport: &'static str,
    /// The protocol revision that was agreed on.
    pub revision: &'static str,
    /// `clientInfo.name`, as it was sent; cut to 200 bytes.
    pub client_name: String,
    /// `clientInfo.version`, as it was sent; cut to 200 bytes.
    pub client_version: String,
    /// When.
    pub opened_at: Timestamp,
}

/// What is known when a session ends.
#[derive(Debug, Clone)]
pub struct SessionClosed {
    /// Which session.
    pub id: SessionRowId,
    /// Whose it was.
    pub tenant: TenantId,
    /// When.
    pub closed_at: Timestamp,
    /// The revision that it spoke in the end; HTTP+SSE settles it after the session is open.
    pub revision: &'static str,
    /// `clientInfo.name`, as it was sent last; cut to 200 bytes.
    pub client_name: String,
    /// `clientInfo.version`, as it was sent last; cut to 200 bytes.
    pub client_version: String,
    /// Why, in a word or two, such as `client` or `idle`.
    pub reason: &'static str,
    /// JSON-RPC requests that it carried.
    pub requests: u64,
    /// Tool calls among them.
    pub calls: u64,
}

/// Records that a session was opened.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn open(db: &Db, opened: &SessionOpened) -> Result<()> {
    let row = SessionRow {
        id: opened.id,
        tenant_id: opened.principal.tenant,
        principal: credentials::label(&opened.principal.credential),
        transport: opened.transport.to_owned(),
        revision: opened.revision.to_owned(),
        client_name: storable(&opened.client_name, MAX_CLIENT_TEXT),
        client_version: storable(&opened.client_version, MAX_CLIENT_TEXT),
        opened_at: opened.opened_at,
        closed_at: None,
        close_reason: None,
        requests: 0,
        calls: 0,
    };
    db::session_history::insert(db, &row).await
}

/// Records that a session ended. Whether it was recorded as open; the first end counts.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn close(db: &Db, closed: &SessionClosed) -> Result<bool> {
    let client_name = storable(&closed.client_name, MAX_CLIENT_TEXT);
    let client_version = storable(&closed.client_version, MAX_CLIENT_TEXT);
    let end = db::session_history::End {
        at: closed.closed_at,
        revision: closed.revision,
        client_name: &client_name,
        client_version: &client_version,
        reason: closed.reason,
        requests: i64::try_from(closed.requests).unwrap_or(i64::MAX),
        calls: i64::try_from(closed.calls).unwrap_or(i64::MAX),
    };
    db::session_history::close(db, closed.tenant, closed.id, end).await
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
    use crate::clock::Clock;
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
            let id = SessionRowId::new();
            let opened = SessionOpened {
                id,
                principal,
                transport: "sse",
                revision: "2024-11-05",
                client_name: String::new(),
                client_version: String::new(),
                opened_at: clock.now(),
            };
            open(&db, &opened).await.expect("a row");
            open(&db, &opened).await.expect("written twice is written once");
            let closed = SessionClosed {
                id,
                tenant,
                closed_at: clock.now(),
                revision: "2025-03-26",
                client_name: "odd\0name".to_owned(),
                client_version: "9".repeat(1000),
                reason: "idle",
                requests: 3,
                calls: 2,
            };
            let of_other = SessionClosed { tenant: other, ..closed.clone() };
            assert!(!close(&db, &of_other).await.expect("an answer"));
            assert!(close(&db, &closed).await.expect("an answer"));
            assert!(!close(&db, &closed).await.expect("an answer"));

            let rows = list(&db, tenant, Page::first(10)).await.expect("a list").rows;
            assert_eq!(rows.len(), 1);
            assert_eq!((rows[0].client_name.as_str(), rows[0].client_version.len()), ("oddname", 200));
            assert_eq!((rows[0].requests, rows[0].calls), (3, 2));
            assert_eq!(rows[0].revision, "2025-03-26");
            assert_eq!(rows[0].close_reason.as_deref(), Some("idle"));
            assert!(list(&db, other, Page::first(10)).await.expect("a list").rows.is_empty());
        })
        .await;
    }
}
