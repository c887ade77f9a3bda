//! An account follows what somebody else decides: the subscription that its tenant pays for, and whether it is paid.

use std::time::Duration;

use serde_json::{Value, json};

use super::opening::{self, Beginning};
use super::{Access, Account};
use crate::audit::{self, Actor, By, Subject};
use crate::clock::Timestamp;
use crate::db::invalidations::{self, Kind};
use crate::db::tenants::Tenant;
use crate::db::{self, Tx};
use crate::error::{Error, Result};
use crate::plans::{self, PlanName};
use crate::prices::{self, Cycle};

/// How an account is to be. What is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The plan that the tenant is on now.
    pub(crate) plan: Option<PlanName>,
    /// What its months are counted from.
    pub(crate) anchor: Option<Timestamp>,
    /// Whether the month that a new anchor begins is paid for by itself.
    pub(crate) is_paid: bool,
    /// The plan that follows, and from when on; `Some(None)`: none does.
    pub(crate) next: Option<Option<(PlanName, Timestamp)>>,
    /// What it may do.
    pub(crate) access: Option<Access>,
    /// The subscription that it follows; `Some(None)`: none.
    pub(crate) subscription: Option<Option<String>>,
}

/// Makes a tenant's account as it is to be; where it is so already, nothing changes. Periods on another plan, or counted from another
/// anchor, begin `lead` later, so that every process has heard before. Says whether anything changed. The tenant's row must be
/// held, and the account's.
///
/// # Errors
/// [`Error::Invalid`] where there is no such plan, [`Error::Internal`] for a price version that is not what was published,
/// [`Error::Database`].
pub(crate) async fn follow(
    tx: &mut Tx,
    (row, account): (&Tenant, &mut Account),
    by: By,
    wanted: &Wanted,
    lead: Duration,
) -> Result<bool> {
    let tenant = row.id;
    let mut before: PlanName = row.plan.parse()?;
    // What was to follow by now did, at the instant for which it was planned.
    let mut turned = false;
    if account.next_plan_at.is_some_and(|from| from <= by.at) {
        opening::go_on(tx, account, before, by.at).await?;
        turned = account.next_plan.is_none();
        before = db::tenants::lock(tx, tenant).await?.ok_or(Error::NotFound("tenant"))?.plan.parse()?;
    }
    let plan = wanted.plan.clone().unwrap_or_else(|| before.clone());
    let mut detail = serde_json::Map::new();
    let anchor =
        wanted.anchor.filter(|anchor| (account.cycle, account.anchor_at) != (Cycle::Anchored, *anchor));
    if plan != before || anchor.is_some() {
        put_on(tx, account, by, (&before, &plan), (anchor, wanted.is_paid, lead)).await?;
        detail.insert("plan".to_owned(), json!({ "before": before, "plan": plan, "anchor": anchor }));
    }
    if let Some(next) = &wanted.next {
        let next = next.as_ref().filter(|(next, _)| *next != plan);
        let (name, at) = (next.map(|(plan, _)| plan), next.map(|(_, at)| *at));
        if (account.next_plan.as_ref(), account.next_plan_at) != (name, at) {
            if let Some(name) = name
                && !is_there(tx, name).await?
            {
                tracing::error!(%tenant, plan = %name, "the plan that is to follow does not exist; create it before it does");
            }
            db::accounts::set_next_plan(tx, tenant, name.zip(at)).await?;
            detail.insert("next".to_owned(), json!({ "plan": name, "from": at }));
        }
    }
    if let Some(subscription) = wanted.subscription.as_ref().filter(|wanted| **wanted != account.subscription)
    {
        db::accounts::set_subscription(tx, tenant, subscription.as_deref()).await?;
        detail.insert("subscription".to_owned(), json!(subscription));
    }
    if let Some(access) = wanted.access.filter(|access| *access != account.access) {
        db::accounts::set_access(tx, tenant, access).await?;
        detail.insert("access".to_owned(), json!({ "before": account.access, "access": access }));
    }
    if detail.is_empty() && !turned {
        return Ok(false);
    }
    if !detail.is_empty() {
        audit::record(tx, by, "account.follow", Subject::Tenant(tenant), &Value::Object(detail)).await?;
    }
    invalidations::insert(tx, by.at, Kind::Account, tenant.to_string()).await?;
    Ok(true)
}

/// Whether a plan exists; it does to the end of the transaction.
async fn is_there(tx: &mut Tx, plan: &PlanName) -> Result<bool> {
    Ok(plan.as_str() == plans::DEFAULT || db::plans::lock(tx, plan).await?.is_some())
}

async fn put_on(
    tx: &mut Tx,
    account: &mut Account,
    by: By,
    (before, plan): (&PlanName, &PlanName),
    (anchor, is_paid, lead): (Option<Timestamp>, bool, Duration),
) -> Result<()> {
    let tenant = account.tenant_id;
    if plan != before {
        if !is_there(tx, plan).await? {
            return Err(Error::Invalid(format!("plan: there is none named {plan}; create it first")));
        }
        db::tenants::set_plan(tx, tenant, plan.as_str(), by.at).await?;
        invalidations::insert(tx, by.at, Kind::Tenant, tenant.to_string()).await?;
    }
    // What is due is due by the months before.
    while opening::open_due(tx, account, before, by.at, opening::AT_ONCE).await? == opening::AT_ONCE {}
    if let Some(anchor) = anchor {
        (account.cycle, account.anchor_at) = (Cycle::Anchored, anchor);
        db::accounts::set_cycle(tx, tenant, account.cycle, anchor).await?;
    }
    let beginning = match anchor {
        Some(_) if is_paid => Beginning::Paid,
        Some(_) => Beginning::Followed,
        None => Beginning::Shared,
    };
    opening::switch(tx, account, (before, plan), (by.at, lead), beginning).await
}

/// Puts a tenant on the plan that was to follow by now; where that is gone, on the default one. Its periods until then are open already.
/// The next one begins where the last one ended; one that still runs ends soon. Tenant and account must be held. The plan that it
/// is on then, and how many periods were opened.
pub(super) async fn turn(
    tx: &mut Tx,
    account: &mut Account,
    (before, next): (&PlanName, PlanName),
    at: Timestamp,
) -> Result<(PlanName, usize)> {
    let tenant = account.tenant_id;
    let by = By { actor: Actor::Billing, at };
    let plan = if is_there(tx, &next).await? {
        next
    } else {
        tracing::error!(%tenant, plan = %next, "the plan that was to follow is gone: its tenant is on the default one now");
        plans::DEFAULT.parse()?
    };
    db::accounts::set_next_plan(tx, tenant, None).await?;
    (account.next_plan, account.next_plan_at) = (None, None);
    db::tenants::set_plan(tx, tenant, plan.as_str(), at).await?;
    let detail = json!({ "before": before, "plan": plan });
    audit::record(tx, by, "tenant.plan", Subject::Tenant(tenant), &detail).await?;
    invalidations::insert(tx, at, Kind::Tenant, tenant.to_string()).await?;
    let Some(latest) = db::periods::latest(tx, tenant).await? else { return Ok((plan, 0)) };
    if latest.ends_at > at {
        // It was to end within a month.
        let runs_already = latest.plan == plan;
        if !runs_already {
            let when = (at, opening::HEARD);
            opening::switch(tx, account, (before, &plan), when, Beginning::Shared).await?;
            invalidations::insert(tx, at, Kind::Account, tenant.to_string()).await?;
        }
        return Ok((plan, usize::from(!runs_already)));
    }
    let history = prices::versions::history_in(tx, &plan).await?;
    let Some(version) = history.at(latest.ends_at) else { return Ok((plan, 0)) };
    opening::open_one(tx, account, version, latest.ends_at, Beginning::Shared).await?;
    Ok((plan, 1))
}
