//! An account at a glance, for operators. Looking changes nothing: no period is opened.

use super::events::Event;
use super::grants::GrantKind;
use super::{Account, Standing};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::{self, Db};
use crate::error::{Error, Result};
use crate::id::TenantId;

/// Credits that are left, by where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Left {
    /// Included in the current period.
    pub included: Credits,
    /// Promotional.
    pub promotional: Credits,
    /// Prepaid.
    pub prepaid: Credits,
}

/// An account at a glance.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The plan that the tenant is on.
    pub plan: String,
    /// The account; none, where the tenant was never charged or given anything.
    pub account: Option<Account>,
    /// Its periods, as they are now.
    pub standing: Standing,
    /// Credits left.
    pub left: Left,
    /// Owed in the current period, what open slabs used included.
    pub owed: Credits,
    /// Events of the current period.
    pub events: Vec<Event>,
}

/// A tenant's account at a glance.
///
/// # Errors
/// [`Error::NotFound`] for the tenant, [`Error::Database`].
pub async fn overview(db: &Db, tenant: TenantId, at: Timestamp) -> Result<Overview> {
    let row = db::tenants::get(db, tenant).await?.ok_or(Error::NotFound("tenant"))?;
    let account = db::accounts::get(db, tenant).await?;
    let standing = Standing::of(db::periods::around(db, tenant, at).await?, at);
    let current = standing.current.as_ref();
    let mut left = Left::default();
    for grant in db::grants::usable(db, tenant, current.map(|period| period.id), at).await? {
        let sum = match grant.kind {
            GrantKind::Included => &mut left.included,
            GrantKind::Promotional => &mut left.promotional,
            GrantKind::Prepaid => &mut left.prepaid,
        };
        *sum += grant.remaining();
    }
    let (mut owed, mut events) = (Credits::ZERO, Vec::new());
    if let Some(period) = current {
        owed = period.overage_used + db::periods::overage_open(db, period).await?;
        events = db::account_events::of_period(db, period.id).await?;
    }
    Ok(Overview { plan: row.plan, account, standing, left, owed, events })
}
