//! What accounts do beside requests: periods open and close, grants expire, keys of idempotent calls are forgotten. Every
//! process does it, a tenant at a time under its account's row; whatever another one did is found done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::events::{self, Event};
use super::{closing, opening};
use crate::clock::{Clock, Timestamp};
use crate::db::{self, Db};
use crate::error::{Result, bearable};
use crate::id::{PeriodId, TenantId};
use crate::telemetry::metrics::Metrics;

/// Rows that are asked for at once.
const BATCH: i64 = 200;
/// Batches of each kind of work in a round; what is left waits for the next one.
const BATCHES: usize = 50;
/// So long before the last round grants are looked at again that expired then: clocks differ.
const MARGIN: Duration = Duration::from_secs(3600);

/// What the log says where it cannot be done for one tenant.
const KEPT: &str = "an account cannot be kept";

/// What a round did.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Periods that were opened.
    pub opened: usize,
    /// Periods that were closed.
    pub closed: usize,
    /// Grants of which something expired.
    pub expired: usize,
    /// Keys of idempotent calls that were forgotten.
    pub keys: u64,
    /// What somebody should know.
    pub events: Vec<Event>,
}

/// Does rounds of upkeep.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Grants that expired before then have been looked at: what later comes back to one expires where it does.
    grants_from: Option<Timestamp>,
}

/// One round of upkeep over everything that there is.
///
/// # Errors
/// As of [`Keeper::round`].
pub async fn keep(db: &Db, clock: &Clock) -> Result<Kept> {
    Keeper::default().round(db, clock).await
}

impl Keeper {
    /// One round. A tenant's work that fails for a reason of its own is logged, and does not keep others waiting.
    ///
    /// # Errors
    /// [`Error::Database`](crate::error::Error::Database), [`Error::Away`](crate::error::Error::Away).
    pub async fn round(&mut self, db: &Db, clock: &Clock) -> Result<Kept> {
        let now = clock.now();
        let mut kept = Kept::default();
        turn_periods(db, now, &mut kept).await?;
        let from = self.grants_from.unwrap_or(Timestamp::from_micros(i64::MIN));
        if expire_grants(db, from, now, &mut kept).await? {
            self.grants_from = Some(now.minus(MARGIN));
        }
        for _ in 0..BATCHES {
            let keys = db::expired_keys::delete(db, now, BATCH).await?;
            kept.keys += keys;
            if keys < BATCH.unsigned_abs() {
                break;
            }
        }
        Ok(kept)
    }

    /// Rounds for ever, announcing what they find.
    pub async fn run(mut self, db: Db, clock: Clock, metrics: Arc<Metrics>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.round(&db, &clock).await {
                Ok(kept) => {
                    failing = false;
                    events::announce(&metrics, &kept.events);
                    let Kept { opened, closed, expired, keys, .. } = kept;
                    if opened + closed + expired > 0 {
                        tracing::debug!(opened, closed, expired, keys, "accounts were kept");
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(?error, "accounts cannot be kept; trying on");
                }
                Err(_) => {}
            }
        }
    }
}

/// Opens what follows periods that are over, and closes those.
async fn turn_periods(db: &Db, now: Timestamp, kept: &mut Kept) -> Result<()> {
    let mut after = None;
    for _ in 0..BATCHES {
        let over = db::periods::over(db, now, after, BATCH).await?;
        after = over.last().copied();
        for period in over {
            let turned = turn(db, period.tenant_id, period.id, now).await;
            if let Some((opened, closed)) = bearable(turned, period.tenant_id, KEPT)? {
                kept.opened += opened;
                kept.closed += usize::from(closed.is_some());
                kept.events.extend(closed.unwrap_or_default());
            }
        }
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// Opens what follows a period, and closes it; in one transaction, so that a closed period is followed by another.
async fn turn(
    db: &Db,
    tenant: TenantId,
    period: PeriodId,
    now: Timestamp,
) -> Result<(usize, Option<Vec<Event>>)> {
    let mut tx = db.begin().await?;
    // Other processes are at the same list: most of it is done by one of them, and needs no lock.
    if db::periods::get_in(&mut tx, period).await?.is_none_or(|period| period.closed_at.is_some()) {
        tx.commit().await?;
        return Ok((0, None));
    }
    let row = db::tenants::lock(&mut tx, tenant).await?;
    let Some(mut account) = db::accounts::lock(&mut tx, tenant, now).await? else {
        tx.commit().await?;
        return Ok((0, None));
    };
    let mut opened = 0;
    if let Some(row) = row {
        opened = opening::go_on(&mut tx, &mut account, row.plan.parse()?, now).await?;
    }
    let closed = closing::close(&mut tx, &account, period, now).await?;
    tx.commit().await?;
    Ok((opened, closed))
}

/// Ends what is left of grants that expired from `from` on; says whether these were all.
async fn expire_grants(db: &Db, from: Timestamp, now: Timestamp, kept: &mut Kept) -> Result<bool> {
    let mut after = None;
    for _ in 0..BATCHES {
        let lapsed = db::grants::lapsed(db, from, now, after, BATCH).await?;
        after = lapsed.last().copied();
        for grant in lapsed {
            let expired = async {
                let mut tx = db.begin().await?;
                db::accounts::lock(&mut tx, grant.tenant_id, now).await?;
                let expired = db::grants::expire(&mut tx, grant.id, now).await?;
                tx.commit().await?;
                Ok(expired)
            };
            kept.expired += usize::from(bearable(expired.await, grant.tenant_id, KEPT)?.unwrap_or(false));
        }
        if after.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}
