//! The history of legacy sessions: who opened one, with what, and how it ended. The live session keeps its own
//! state elsewhere and works without its row.

use std::collections::HashMap;

use crate::caller::Principal;
use crate::clock::Timestamp;
use crate::credentials;
use crate::db::session_history::{Agreed, End, Ended, NewSession, Used};
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
    /// `clientInfo.name`; at most 200 bytes of it are kept.
    pub client_name: String,
    /// `clientInfo.version`; at most 200 bytes of it are kept.
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
    /// What was agreed on; nothing where that is not known, and what is recorded stays.
    pub agreed: Option<SessionAgreed>,
    /// Why, in a word or two, such as `client` or `idle`.
    pub reason: &'static str,
    /// JSON-RPC requests that it carried at the replica that ended it.
    pub requests: u64,
    /// Tool calls among them.
    pub calls: u64,
}

/// What client and server agreed on in the end; HTTP+SSE settles it after the session is open.
#[derive(Debug, Clone)]
pub struct SessionAgreed {
    /// The revision.
    pub revision: &'static str,
    /// `clientInfo.name`, as it was sent last; at most 200 bytes of it are kept.
    pub client_name: String,
    /// `clientInfo.version`, as it was sent last; at most 200 bytes of it are kept.
    pub client_version: String,
}

/// What a session carried at a replica that has not ended it.
#[derive(Debug, Clone)]
pub struct SessionUsed {
    /// Which session.
    pub id: SessionRowId,
    /// Whose.
    pub tenant: TenantId,
    /// JSON-RPC requests.
    pub requests: u64,
    /// Tool calls among them.
    pub calls: u64,
}

/// Records sessions that opened and sessions that ended, in at most two statements. One that did both is one row. What
/// is recorded already stays as it is, so a batch whose fate is not known may be sent again; of a session's ends the
/// first counts.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database); then what became of the batch is not known.
pub async fn write(db: &Db, opened: &[SessionOpened], closed: &[SessionClosed]) -> Result<()> {
    let mut places = HashMap::with_capacity(opened.len());
    let mut new: Vec<_> = opened.iter().map(row).collect();
    for (place, one) in opened.iter().enumerate() {
        places.insert((one.id, one.principal.tenant), place);
    }
    let mut ended = Vec::new();
    for one in closed {
        let agreed =
            one.agreed.as_ref().map(|said| agreed(said.revision, &said.client_name, &said.client_version));
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let end = End {
            closed_at: one.closed_at.as_micros(),
            close_reason: one.reason,
            requests: whole(one.requests),
            calls: whole(one.calls),
        };
        match places.get(&(one.id, one.tenant)).and_then(|place| new.get_mut(*place)) {
            Some(row) if row.end.is_none() => {
                row.end = Some(end);
                if let Some(agreed) = agreed {
                    row.agreed = agreed;
                }
            }
            Some(_) => {}
            None => ended.push(Ended { id: one.id, tenant_id: one.tenant, agreed, end }),
        }
    }
    db::session_history::insert_batch(db, &new).await?;
    db::session_history::close_batch(db, &ended).await
}

/// Adds what sessions carried at replicas that have not ended them, in one statement.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database); then it may have been added all the same.
pub async fn add(db: &Db, used: &[SessionUsed]) -> Result<()> {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let used: Vec<_> = used
        .iter()
        .map(|one| Used {
            id: one.id,
            tenant_id: one.tenant,
            requests: whole(one.requests),
            calls: whole(one.calls),
        })
        .collect();
    db::session_history::add_batch(db, &used).await
}

fn row(opened: &SessionOpened) -> NewSession<'_> {
    NewSession {
        id: opened.id,
        tenant_id: opened.principal.tenant,
        principal: credentials::label(&opened.principal.credential),
        transport: opened.transport,
        opened_at: opened.opened_at.as_micros(),
        agreed: agreed(opened.revision, &opened.client_name, &opened.client_version),
        end: None,
    }
}

fn agreed<'a>(revision: &'a str, client_name: &str, client_version: &str) -> Agreed<'a> {
    Agreed {
        revision,
        client_name: storable(client_name, MAX_CLIENT_TEXT),
        client_version: storable(client_version, MAX_CLIENT_TEXT),
    }
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
            for _ in 0..2 {
                write(&db, std::slice::from_ref(&opened), &[]).await.expect("written twice is written once");
            }
            let closed = SessionClosed {
                id,
                tenant,
                closed_at: clock.now(),
                agreed: Some(SessionAgreed {
                    revision: "2025-03-26",
                    client_name: "odd\0name".to_owned(),
                    client_version: "9".repeat(1000),
                }),
                reason: "idle",
                requests: 3,
                calls: 2,
            };
            let of_other = SessionClosed { tenant: other, reason: "theirs", ..closed.clone() };
            write(&db, &[], &[of_other]).await.expect("no row");
            let again = SessionClosed { reason: "late", requests: 9, ..closed.clone() };
            write(&db, &[], std::slice::from_ref(&closed)).await.expect("a row");
            write(&db, &[], &[again]).await.expect("no row");

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

    #[tokio::test]
    async fn what_opens_and_ends_in_one_batch_is_one_row() {
        on_every_engine(async |db| {
            let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
            let tenant = tenants::create(&db, &clock, Actor::Cli, "a").await.expect("a tenant").id;
            let principal = Principal { tenant, credential: Credential::ApiKey(KeyId::new()) };
            let opened: Vec<_> = (0..3)
                .map(|number| SessionOpened {
                    id: SessionRowId::new(),
                    principal: principal.clone(),
                    transport: "streamable",
                    revision: "2025-11-25",
                    client_name: format!("client \"{number}\""),
                    client_version: String::new(),
                    opened_at: clock.now(),
                })
                .collect();
            let closed = |at: usize, reason| SessionClosed {
                id: opened[at].id,
                tenant,
                closed_at: clock.now(),
                agreed: Some(SessionAgreed {
                    revision: "2025-06-18",
                    client_name: format!("client {at}"),
                    client_version: "1".to_owned(),
                }),
                reason,
                requests: 7,
                calls: 5,
            };
            // The first was open before; the second opens and ends here, by a retry twice; the third stays open.
            write(&db, &opened[..1], &[]).await.expect("a row");
            let ends = [closed(0, "client"), closed(1, "idle"), closed(1, "late")];
            for _ in 0..2 {
                write(&db, &opened[1..], &ends).await.expect("rows");
            }
            let rows = list(&db, tenant, Page::first(10)).await.expect("a list").rows;
            let of = |at: usize| rows.iter().find(|row| row.id == opened[at].id).expect("a row");
            assert_eq!(rows.len(), 3);
            for (at, reason) in [(0, "client"), (1, "idle")] {
                assert_eq!(of(at).close_reason.as_deref(), Some(reason));
                assert_eq!((of(at).closed_at, of(at).revision.as_str()), (Some(clock.now()), "2025-06-18"));
                assert_eq!((of(at).requests, of(at).calls), (7, 5));
                assert_eq!(of(at).client_name, format!("client {at}"));
            }
            assert_eq!((of(2).closed_at, of(2).requests), (None, 0));
            assert_eq!(of(2).client_name, "client \"2\"");
        })
        .await;
    }
}
