//! Storms: clients that do far too much of something cheap.

use std::sync::Arc;

use weir::db::Page;
use weir::id::SessionRowId;
use weir::session_history;

use crate::support::legacy::initialize;
use crate::support::{Gateway, Key, Legacy};

/// `initialize` before every call, as claude.ai does: sessions that nobody uses make room for new ones, and of each there
/// is a row that says so.
#[tokio::test]
async fn a_storm_of_initialize_loses_no_row() {
    const CLIENTS: usize = 32;
    const EACH: usize = 64;
    let gateway = Gateway::build()
        .set("limits.tenant.per_second", 100_000)
        .set("limits.tenant.burst", 100_000)
        .set("limits.key.per_second", 100_000)
        .set("limits.key.burst", 100_000)
        .set("limits.tenant.sessions", 100)
        .start()
        .await;
    let gateway = Arc::new(gateway);
    let key = gateway.caller().await;
    let storm = (0..CLIENTS).map(|_| {
        let (gateway, key) = (gateway.clone(), key.clone());
        async move {
            for _ in 0..EACH {
                let hello = Legacy::hello(&*gateway, &key, "2025-11-25").body(initialize("2025-11-25"));
                assert_eq!(hello.send().await.status, 200);
            }
        }
    });
    futures_util::future::join_all(storm).await;
    gateway.is_recorded().await;
    assert_eq!(gateway.metric("weir_calls_dropped_total"), 0.0);
    let (open, ended) = history(&gateway, &key).await;
    assert_eq!(open + ended, CLIENTS * EACH);
    assert_eq!((open, gateway.sessions()), (100, 100));
}

/// How many sessions of the key's tenant are open, and how many have ended.
async fn history(gateway: &Gateway, key: &Key) -> (usize, usize) {
    let (mut open, mut ended, mut after) = (0, 0, None);
    loop {
        let page = Page { after, limit: Page::<SessionRowId>::MAX };
        let listed = session_history::list(&gateway.app.db, key.tenant, page).await.expect("a list");
        for row in &listed.rows {
            if row.closed_at.is_some() { ended += 1 } else { open += 1 }
        }
        after = listed.rows.last().map(|row| row.id);
        if !listed.more {
            return (open, ended);
        }
    }
}
