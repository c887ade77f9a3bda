//! The record of tool calls: one per logical call, written in batches, read by the tenant that made them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::caller::{Credential, Principal};
use crate::clock::{Clock, Timestamp};
use crate::credentials;
use crate::db::calls::NewCall;
use crate::db::{self, Db, Listed, Page, storable};
use crate::error::Result;
use crate::id::{CallId, PeriodId, PriceVersionId, TenantId};
use crate::ledger::{days, rollups};

pub use crate::db::calls::CallRow;

/// Longest kept name of a server or a tool, in bytes.
const MAX_NAME: usize = 256;

/// One logical tool call that has ended.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// Its id.
    pub id: CallId,
    /// Who made it.
    pub principal: Principal,
    /// The server that the tool belongs to.
    pub server: Arc<str>,
    /// The tool.
    pub tool: Arc<str>,
    /// How it ended, in one word.
    pub outcome: &'static str,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The size of its arguments.
    pub request_bytes: u64,
    /// The size of its result.
    pub result_bytes: u64,
    /// The period of the tenant's account, where it has one.
    pub period: Option<PeriodId>,
    /// The prices that were in force.
    pub version: Option<PriceVersionId>,
}

impl CallRecord {
    /// The call as it is written.
    pub(crate) fn row(&self) -> NewCall {
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        NewCall {
            id: self.id,
            tenant_id: self.principal.tenant,
            credential: credentials::label(&self.principal.credential),
            server: storable(&self.server, MAX_NAME),
            tool: storable(&self.tool, MAX_NAME),
            outcome: self.outcome,
            started_at: self.started_at.as_micros(),
            duration_us: i64::try_from(self.duration.as_micros()).unwrap_or(i64::MAX),
            request_bytes: whole(self.request_bytes),
            result_bytes: whole(self.result_bytes),
            period_id: self.period,
            price_version_id: self.version,
        }
    }
}

/// Records calls, in one statement unless some began on an earlier day, whose sums are then not right any more. A call that is
/// recorded already stays as it is, so a batch whose fate is not known may be sent again.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database); then none of the batch was recorded, or its fate is not
/// known.
pub async fn insert_batch(db: &Db, clock: &Clock, records: &[CallRecord]) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let batch: Vec<_> = records.iter().map(CallRecord::row).collect();
    let today = days::day_of(clock.now());
    let began = records.iter().map(|record| days::day_of(record.started_at));
    let late: BTreeSet<_> = began.filter(|day| *day < today).collect();
    if late.is_empty() {
        return db::calls::insert_batch(db, &batch).await;
    }
    let mut tx = db.begin().await?;
    db::calls::insert_batch_in(db, &mut tx, &batch).await?;
    for day in late {
        rollups::mark_stale(&mut tx, day).await?;
    }
    tx.commit().await
}

/// One page of the calls that a tenant, or one credential of it, began within `range` (its end not included), in
/// the order in which they began.
///
/// # Errors
/// [`Error::Database`](crate::error::Error::Database).
pub async fn list_day(
    db: &Db,
    tenant: TenantId,
    credential: Option<&Credential>,
    range: Range<Timestamp>,
    page: Page<CallId>,
) -> Result<Listed<CallRow>> {
    match credential {
        Some(credential) => {
            let label = credentials::label(credential);
            db::calls::list_credential(db, tenant, &label, range, page).await
        }
        None => db::calls::list_tenant(db, tenant, range, page).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Actor;
    use crate::db::testing::on_every_engine;
    use crate::id::KeyId;
    use crate::tenants;

    const DAY: Range<Timestamp> = Timestamp::from_micros(1000)..Timestamp::from_micros(2000);

    fn record(principal: &Principal, started: i64) -> CallRecord {
        CallRecord {
            id: CallId::new(),
            principal: principal.clone(),
            server: "dns".into(),
            tool: "dns\0_resolve \"é\"".into(),
            outcome: "ok",
            started_at: Timestamp::from_micros(started),
            duration: Duration::from_micros(42),
            request_bytes: 7,
            result_bytes: u64::MAX,
            period: None,
            version: None,
        }
    }

    #[tokio::test]
    async fn a_batch_is_written_once_and_read_in_pages() {
        on_every_engine(async |db| {
            let clock = Clock::manual(Timestamp::from_micros(0));
            let tenant = tenants::create(&db, &clock, Actor::Cli, "a").await.expect("a tenant").id;
            let other = tenants::create(&db, &clock, Actor::Cli, "b").await.expect("a tenant").id;
            let key = Principal { tenant, credential: Credential::ApiKey(KeyId::new()) };
            let jwt = Principal { tenant, credential: Credential::Jwt("ab12".into()) };
            let foreign = Principal { tenant: other, credential: key.credential.clone() };
            // Ids rise, times do not: pages go by time. Two begin at the same microsecond.
            let batch = [
                record(&key, 1999),
                record(&key, 1500),
                record(&key, 1500),
                record(&jwt, 1000),
                record(&key, 999),
                record(&key, 2000),
                record(&foreign, 1500),
            ];
            insert_batch(&db, &clock, &batch).await.expect("a batch");
            insert_batch(&db, &clock, &batch).await.expect("the same batch");
            insert_batch(&db, &clock, &[]).await.expect("nothing");

            let mut seen = Vec::new();
            let mut page = Page::first(1);
            loop {
                let part = list_day(&db, tenant, None, DAY, page).await.expect("a page");
                seen.extend(part.rows.iter().map(|row| row.id));
                page.after = seen.last().copied();
                if !part.more {
                    break;
                }
            }
            assert_eq!(seen, [batch[3].id, batch[1].id, batch[2].id, batch[0].id]);

            let own =
                list_day(&db, tenant, Some(&jwt.credential), DAY, Page::first(9)).await.expect("a page");
            assert_eq!(own.rows.len(), 1);
            let row = &own.rows[0];
            assert_eq!((row.credential.as_str(), row.tool.as_str()), ("jwt_ab12", "dns_resolve \"é\""));
            assert_eq!((row.duration_us, row.request_bytes, row.result_bytes), (42, 7, i64::MAX));
            assert_eq!(row.started_at, Timestamp::from_micros(1000));

            let foreign_cursor = Page { after: Some(batch[6].id), limit: 9 };
            let none = list_day(&db, tenant, None, DAY, foreign_cursor).await.expect("a page");
            assert!(none.rows.is_empty());
            let second = Page { after: Some(batch[1].id), limit: 9 };
            let rest = list_day(&db, tenant, Some(&key.credential), DAY, second).await.expect("a page");
            assert_eq!(rest.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [batch[2].id, batch[0].id]);
        })
        .await;
    }
}
