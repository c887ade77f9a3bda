//! How periods follow one another: the next one when one is over, and another one when the tenant's plan changes.

use std::ops::Range;
use std::time::Duration;

use super::{Account, Period, caps, cycle};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::grants::{Grant, GrantKind, source_of};
use crate::db::invalidations::{self, Kind};
use crate::db::{self, Db, Tx};
use crate::error::{Error, Result};
use crate::id::{PeriodId, TenantId};
use crate::plans::PlanName;
use crate::prices::{self, PriceVersion};

/// Most periods that are opened in one transaction.
pub(super) const AT_ONCE: usize = 12;

/// The shortest period there is.
const LEAST: Duration = Duration::from_micros(1);

/// How a period begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It is the first: it says how long all are, and has all that is included.
    First,
    /// Its whole cycle is paid for by itself: it has all that is included.
    Paid,
    /// A subscription begins it that does not pay for it by itself, such as a trial: it begins also where there was none before, and
    /// has its share.
    Followed,
    /// It has the share of what is included that its length is of the cycle.
    Shared,
}

/// Opens periods of a tenant that are due by `at`, in order and not too many at once; makes the account where there is none.
/// Says how many.
pub(super) async fn open(db: &Db, tenant: TenantId, at: Timestamp) -> Result<usize> {
    // Most tenants that come here are on plans without prices: for them nothing is locked.
    let Some(row) = db::tenants::get(db, tenant).await? else { return Ok(0) };
    if prices::history(db, &row.plan.parse()?).await?.at(at).is_none() {
        return Ok(0);
    }
    let mut tx = db.begin().await?;
    let Some(row) = db::tenants::lock(&mut tx, tenant).await? else {
        tx.commit().await?;
        return Ok(0);
    };
    let plan = row.plan.parse()?;
    if prices::versions::history_in(&mut tx, &plan).await?.at(at).is_none() {
        tx.commit().await?;
        return Ok(0);
    }
    let mut account = db::accounts::lock_or_make(&mut tx, tenant, at).await?;
    let opened = go_on(&mut tx, &mut account, plan, at).await?;
    tx.commit().await?;
    Ok(opened)
}

/// Opens periods that are due by `at`, not too many at once; where the plan was to change by then, on the one before and on the
/// one after. Tenant and account must be held. Says how many.
pub(super) async fn go_on(
    tx: &mut Tx,
    account: &mut Account,
    plan: PlanName,
    at: Timestamp,
) -> Result<usize> {
    let Some((next, from)) =
        account.next_plan.clone().zip(account.next_plan_at).filter(|(_, from)| *from <= at)
    else {
        return open_due(tx, account, &plan, at, AT_ONCE).await;
    };
    let before = Timestamp::from_micros(from.as_micros() - 1);
    let mut opened = open_due(tx, account, &plan, before, AT_ONCE).await?;
    if opened == AT_ONCE {
        return Ok(opened);
    }
    let (next, turned) = super::following::turn(tx, account, (&plan, next), at).await?;
    opened += turned;
    Ok(opened + open_due(tx, account, &next, at, AT_ONCE).await?)
}

/// Opens up to `most` periods that are due by `at`. The account's row must be held.
pub(super) async fn open_due(
    tx: &mut Tx,
    account: &mut Account,
    plan: &PlanName,
    at: Timestamp,
    most: usize,
) -> Result<usize> {
    let history = prices::versions::history_in(tx, plan).await?;
    let Some(first) = history.first() else { return Ok(0) };
    for opened in 0..most {
        let latest = db::periods::latest(tx, account.tenant_id).await?;
        let starts_at = match &latest {
            Some(latest) if latest.ends_at > at => return Ok(opened),
            Some(latest) if latest.plan == *plan => latest.ends_at,
            // Where the plan of the last period is another one, that tenant was on a plan without prices since.
            _ => at.max(first.effective_at),
        };
        match history.at(starts_at) {
            Some(version) if starts_at <= at => {
                // Who follows a subscription has its months, and no more than its share of them.
                let is_first = latest.is_none() && account.subscription.is_none();
                let beginning = if is_first { Beginning::First } else { Beginning::Shared };
                open_one(tx, account, version, starts_at, beginning).await?;
            }
            _ => return Ok(opened),
        }
    }
    Ok(most)
}

/// Opens a period up to the end of the cycle that its beginning is in, and gives its included credits.
pub(super) async fn open_one(
    tx: &mut Tx,
    account: &mut Account,
    version: &PriceVersion,
    starts_at: Timestamp,
    beginning: Beginning,
) -> Result<()> {
    let terms = &version.terms;
    if beginning == Beginning::First {
        (account.cycle, account.anchor_at) = (terms.cycle, starts_at);
        db::accounts::set_cycle(tx, account.tenant_id, account.cycle, account.anchor_at).await?;
    }
    let whole = cycle::containing(account.cycle, account.anchor_at, starts_at);
    let included = match beginning {
        Beginning::First | Beginning::Paid => terms.included,
        Beginning::Followed | Beginning::Shared => {
            included(tx, account, version, starts_at..whole.end, &whole).await?
        }
    };
    let period = Period {
        id: PeriodId::new(),
        tenant_id: account.tenant_id,
        plan: version.plan.clone(),
        price_version_id: version.id,
        starts_at,
        ends_at: whole.end,
        hard_cap: caps::hard_cap(terms, account.spend_cap),
        soft_cap: terms.soft_cap,
        overage_used: Credits::ZERO,
        overage_leased: Credits::ZERO,
        closed_at: None,
    };
    let has_all = matches!(beginning, Beginning::First | Beginning::Paid);
    db::periods::insert(tx, &period, &whole, has_all).await?;
    if included.is_positive() {
        let source = source_of(period.id);
        let mut grant = Grant::new(period.tenant_id, GrantKind::Included, source, included, starts_at);
        grant.expires_at = Some(period.ends_at);
        db::grants::insert(tx, &grant).await?;
    }
    Ok(())
}

/// The credits included in a period that is not the first: the share that its length is of the whole cycle. All periods of
/// one cycle together get no more than the most that one of their plans includes, so that changing to and fro is no way to
/// get more.
async fn included(
    tx: &mut Tx,
    account: &Account,
    version: &PriceVersion,
    period: Range<Timestamp>,
    whole: &Range<Timestamp>,
) -> Result<Credits> {
    let full = version.terms.included;
    let share = full.share(cycle::micros(&period), cycle::micros(whole));
    let given = db::periods::given(tx, account.tenant_id, whole.start, whole.end).await?;
    let most = given.iter().map(|earlier| earlier.terms.included).fold(full, Ord::max);
    let kept: Credits = given.iter().map(|earlier| earlier.kept).sum();
    Ok(share.min(most - kept).max(Credits::ZERO))
}

/// Ends a period earlier, and takes back what of its included credits is more than the share that its length is of the
/// cycle, as far as that is not used.
async fn end_early(tx: &mut Tx, account: &Account, period: &Period, ends_at: Timestamp) -> Result<()> {
    if ends_at >= period.ends_at {
        return Ok(());
    }
    let history = prices::versions::history_in(tx, &period.plan).await?;
    let version = history.versions().iter().find(|version| version.id == period.price_version_id);
    let version =
        version.ok_or_else(|| Error::Internal(format!("{}: its price version is gone", period.id)))?;
    let whole = cycle::containing(account.cycle, account.anchor_at, period.starts_at);
    let length = cycle::micros(&(period.starts_at..ends_at));
    let entitled = version.terms.included.share(length, cycle::micros(&whole));
    db::periods::end_at(tx, period.id, ends_at).await?;
    db::grants::shorten(tx, period.tenant_id, period.id, ends_at, entitled).await
}

/// What follows for a tenant's periods when it is put on another plan at `now`: the last one ends `lead` later, so that every
/// process has heard before, and one on the new plan follows, if that has prices then. A period that was to begin because of
/// an earlier change, and has not, is ended in the same way: other processes count on it until they hear. The tenant's row
/// must be held.
pub(crate) async fn plan_changed(
    tx: &mut Tx,
    tenant: TenantId,
    (from, to): (&PlanName, &PlanName),
    now: Timestamp,
    lead: Duration,
) -> Result<()> {
    let Some(mut account) = db::accounts::lock(tx, tenant, now).await? else { return Ok(()) };
    switch(tx, &mut account, (from, to), (now, lead), Beginning::Shared).await?;
    invalidations::insert(tx, now, Kind::Account, tenant.to_string()).await
}

/// The periods' part of it. The account's row must be held.
pub(super) async fn switch(
    tx: &mut Tx,
    account: &mut Account,
    (from, to): (&PlanName, &PlanName),
    (now, lead): (Timestamp, Duration),
    beginning: Beginning,
) -> Result<()> {
    // What is due was due on the plan before.
    while open_due(tx, account, from, now, AT_ONCE).await? == AT_ONCE {}
    let latest = db::periods::latest(tx, account.tenant_id).await?;
    let starts_at = match &latest {
        Some(latest) if latest.ends_at > now => {
            let ends_at = now.plus(lead).max(latest.starts_at.plus(LEAST)).min(latest.ends_at);
            end_early(tx, account, latest, ends_at).await?;
            ends_at
        }
        Some(_) => now,
        None if matches!(beginning, Beginning::Paid | Beginning::Followed) => now,
        None => return Ok(()),
    };
    if let Some(version) = prices::versions::history_in(tx, to).await?.at(starts_at) {
        open_one(tx, account, version, starts_at, beginning).await?;
    }
    Ok(())
}

/// Holds the tenant's account, if there is one, until the transaction ends. The tenant's row must be held.
pub(crate) async fn hold(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Option<Account>> {
    db::accounts::lock(tx, tenant, now).await
}

/// For how long after its deletion, or the end of its subscription, calls of a tenant may still begin as before: other processes hear of
/// it within this time.
pub(super) const HEARD: Duration = Duration::from_secs(5);

/// Ends a tenant's periods: soon nobody can call any more. The tenant's row must be held.
pub(crate) async fn tenant_deleted(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<()> {
    let Some(account) = db::accounts::lock(tx, tenant, now).await? else { return Ok(()) };
    for period in db::periods::ending_after(tx, tenant, now).await? {
        let ends_at = now.plus(HEARD).max(period.starts_at.plus(LEAST));
        if ends_at < period.ends_at {
            end_early(tx, &account, &period, ends_at).await?;
        }
    }
    invalidations::insert(tx, now, Kind::Account, tenant.to_string()).await
}
