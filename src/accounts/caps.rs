//! Caps: what may be owed in a period.

use serde_json::json;

use super::Account;
use crate::audit::{self, Actor, By, Subject};
use crate::clock::Clock;
use crate::credits::Credits;
use crate::db::invalidations::{self, Kind};
use crate::db::{self, Db};
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::prices::{self, Terms};

/// The most that may be owed under these terms by a tenant with this spend cap; none: as much as is used.
#[must_use]
pub(super) fn hard_cap(terms: &Terms, spend_cap: Option<Credits>) -> Option<Credits> {
    if !terms.kind.may_owe() {
        return Some(Credits::ZERO);
    }
    [terms.hard_cap, spend_cap].into_iter().flatten().min()
}

/// Caps what a tenant may owe per period, from now on: the cap of its plan counts where it is lower. A period that has begun
/// is not capped below what is owed and set aside in it already. Makes the account where there is none.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Internal`] for a price version that is not what was published, [`Error::Database`].
pub async fn set_spend_cap(
    db: &Db,
    clock: &Clock,
    actor: Actor,
    tenant: TenantId,
    cap: Option<Credits>,
) -> Result<Account> {
    let by = By { actor, at: clock.now() };
    let mut tx = db.begin().await?;
    db::tenants::lock(&mut tx, tenant).await?.ok_or(Error::NotFound("tenant"))?;
    let before = db::accounts::lock_or_make(&mut tx, tenant, by.at).await?;
    let after = Account { spend_cap: cap, ..before.clone() };
    if before.spend_cap == cap {
        tx.commit().await?;
        return Ok(after);
    }
    db::accounts::set_spend_cap(&mut tx, tenant, cap).await?;
    for period in db::periods::ending_after(&mut tx, tenant, by.at).await? {
        let history = prices::versions::history_in(&mut tx, &period.plan).await?;
        let version = history.versions().iter().find(|version| version.id == period.price_version_id);
        if let Some(version) = version {
            db::periods::set_hard_cap(&mut tx, period.id, hard_cap(&version.terms, cap)).await?;
        }
    }
    let detail = json!({ "before": before.spend_cap, "spend_cap": cap });
    audit::record(&mut tx, by, "account.spend_cap", Subject::Tenant(tenant), &detail).await?;
    invalidations::insert(&mut tx, by.at, Kind::Account, tenant.to_string()).await?;
    tx.commit().await?;
    Ok(after)
}
