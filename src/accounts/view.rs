//! An account at a glance, for operators. Looking changes nothing: no period is opened.

use super::events::Event;
use super::{Account, Standing};
use crate::clock::Timestamp;
use crate::credits::Credits;
use crate::db::{self, Db};
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::ledger::{self, Left};

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
    let (left, owed) = ledger::left_and_owed(db, tenant, at).await?;
    let events = match &standing.current {
        Some(period) => db::account_events::of_period(db, period.id).await?,
        None => Vec::new(),
    };
    Ok(Overview { plan: row.plan, account, standing, left, owed, events })
}
